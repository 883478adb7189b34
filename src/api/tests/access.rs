//! Who is let in, with which token.

use super::*;
use crate::types::{Role, TOKENS_FILE, Token, Tokens};

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

impl World {
    /// Keep these tokens, as `stockgate token` does: by replacing the file.
    fn keep(&self, tokens: &Tokens) {
        self.keep_text(&tokens.to_json());
    }

    fn keep_text(&self, text: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.dir.path().join(TOKENS_FILE)).expect("renamed");
    }

    async fn with(&self, method: Method, target: &str, token: &str) -> Answered {
        let json = ("content-type", "application/json");
        self.ask(method, target, &[json, ("authorization", &format!("Bearer {token}"))], "").await
    }
}

fn made(tokens: &mut Tokens, name: &str, role: Role, byte: u8) -> String {
    let (token, text) = Token::new(name, role, time::now(), None, &[byte; 32]).expect("a name");
    tokens.add(token).expect("room");
    text
}

/// A route with its braces filled.
fn filled(route: &Route) -> String {
    route.path.replace("{warehouse}", "main").replace("{sku}", "A-1").replace("{id}", "1").replace("{log}", "audit")
}

fn method(route: &Route) -> Method {
    route.method.clone()
}

#[tokio::test]
async fn where_tokens_are_required_every_route_but_health_asks_for_one_of_its_role() {
    let world = World::with_tokens(true);
    let mut tokens = Tokens::default();
    let read = made(&mut tokens, "prometheus", Role::Read, 1);
    let operator = made(&mut tokens, "ops", Role::Operator, 2);
    world.keep(&tokens);
    for route in ROUTES {
        let target = filled(route);
        let health = ["/livez", "/readyz", "/healthz"].contains(&route.path);
        let looks = route.method == Method::GET && !target.starts_with("/api/v1/backup");
        let status = |answered: &Answered| answered.status;
        let refused = |status: u16| status == 401 || status == 403;
        let without = world.ask(method(route), &target, &[], "").await;
        assert_eq!(refused(status(&without)), !health, "{target} without a token");
        if !health {
            assert_eq!(
                (without.status, without.header("www-authenticate")),
                (401, "Bearer realm=\"stockgate\""),
                "{target}"
            );
            assert!(without.detail().contains("stockgate token new"));
        }
        let reader = world.with(method(route), &target, &read).await;
        assert_eq!(refused(status(&reader)), !health && !looks, "{} {target} with a token to read", route.method);
        assert_eq!(status(&reader) == 403, !health && !looks, "{target}: known, and not allowed");
        let ops = world.with(method(route), &target, &operator).await;
        assert!(!refused(status(&ops)), "{} {target} with a token to operate: {}", route.method, ops.status);
    }
    // nothing more about what there is than its path
    assert_eq!(world.ask(Method::POST, "/api/v1/nothing", &[], "").await.status, 404);
}

#[tokio::test]
async fn on_this_machine_everything_is_open_but_a_shown_token_must_be_good() {
    let world = World::new();
    assert_eq!(world.get("/api/v1/status").await.status, 200);
    // somebody else's header, for a gateway without tokens
    assert_eq!(world.with(Method::GET, "/api/v1/status", "whatever").await.status, 200);
    assert_eq!(world.post("/api/v1/backup", "").await.status, 200);
    let mut tokens = Tokens::default();
    let read = made(&mut tokens, "prometheus", Role::Read, 1);
    let operator = made(&mut tokens, "ops", Role::Operator, 2);
    world.keep(&tokens);
    assert_eq!(world.get("/api/v1/status").await.status, 200);
    assert_eq!(world.post("/api/v1/reload", "").await.status, 200);
    let wrong = world.with(Method::GET, "/api/v1/status", "sgt_wrong").await;
    assert_eq!((wrong.status, wrong.detail()), (401, "the token is unknown, revoked or expired".to_owned()));
    assert_eq!(world.with(Method::POST, "/api/v1/reload", &read).await.status, 403);
    assert_eq!(world.with(Method::GET, "/metrics", &read).await.status, 200);
    // raw deliveries: not for everybody on this machine any more
    assert_eq!(world.post("/api/v1/backup", "").await.status, 401);
    assert_eq!(world.get("/api/v1/backup/log/journal").await.status, 401);
    assert_eq!(world.with(Method::POST, "/api/v1/backup", &read).await.status, 403);
    assert_eq!(world.with(Method::POST, "/api/v1/backup", &operator).await.status, 200);
}

#[tokio::test]
async fn a_revoked_or_expired_token_is_refused_at_once_and_a_new_one_taken() {
    let world = World::with_tokens(true);
    let status = "/api/v1/status";
    // no file: nobody
    assert_eq!(world.with(Method::GET, status, "sgt_x").await.status, 401);
    let mut tokens = Tokens::default();
    let ops = made(&mut tokens, "ops", Role::Operator, 2);
    world.keep(&tokens);
    assert_eq!(world.with(Method::GET, status, &ops).await.status, 200);
    let (over, old) = Token::new("old", Role::Read, Timestamp(0), Some(time::now()), &[3; 32]).expect("a name");
    let (soon, new) = Token::new("new", Role::Read, Timestamp(0), Some(time::now().plus(MINUTE)), &[4; 32]).expect("a name");
    tokens.add(over).expect("room");
    tokens.add(soon).expect("room");
    tokens.revoke("ops");
    world.keep(&tokens);
    assert_eq!(world.with(Method::GET, status, &ops).await.status, 401);
    assert_eq!(world.with(Method::GET, status, &old).await.status, 401);
    assert_eq!(world.with(Method::GET, status, &new).await.status, 200);
    // a damaged file lets nobody in, and neither do other forms of the header
    world.keep_text("{");
    assert_eq!(world.with(Method::GET, status, &new).await.status, 401);
    world.keep(&tokens);
    for header in [format!("Basic {new}"), new.clone(), "Bearer".to_owned(), format!("Bearer {new}x"), String::new()] {
        assert_eq!(world.ask(Method::GET, status, &[("authorization", &header)], "").await.status, 401, "{header}");
    }
    assert_eq!(world.ask(Method::GET, status, &[("authorization", &format!("bearer {new}"))], "").await.status, 200);
}

#[tokio::test]
async fn refusals_are_counted_and_web_pages_stay_out_with_a_token_too() {
    let world = World::with_tokens(true);
    let mut tokens = Tokens::default();
    let ops = made(&mut tokens, "ops", Role::Operator, 2);
    world.keep(&tokens);
    let counted = async || {
        let page = world.with(Method::GET, "/metrics", &ops).await;
        let line = "stockgate_admin_auth_failures_total{reason=\"unknown\"} ";
        page.text().lines().find_map(|l| l.strip_prefix(line)?.parse::<u64>().ok()).expect("the counter is there")
    };
    let before = counted().await;
    assert_eq!(world.with(Method::GET, "/api/v1/status", "guess").await.status, 401);
    // other tests of this process count, too
    assert!(counted().await > before);
    let from_page = [("authorization", format!("Bearer {ops}")), ("origin", "https://evil.example".to_owned())];
    let from_page: Vec<_> = from_page.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(world.ask(Method::POST, "/api/v1/reload", &from_page, "").await.status, 403);
}
