use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::app::Gateway;
use crate::config::Inputs;
use crate::sources;

const CONFIG: &str = r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[source.shop]
kind = "shopify"
locations = { "1" = "main" }
items = { "7" = "A-1" }
secret_file = "secret"
[source.channel]
kind = "jetti"
warehouse = "main"
token_file = "secret"
"#;

fn checked(directory: &Path) -> Checked {
    let secret = directory.join("secret");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let data = directory.join("data");
    let overrides = Overrides::default().set("data.directory", data.to_str().unwrap(), "--data");
    let inputs = Inputs { kinds: sources::KINDS, overrides: &overrides, env: &|_| None };
    config::parse(CONFIG, "stockgate.toml", directory, &inputs).unwrap().0
}

fn args(source: &str, to: Option<String>) -> Args {
    Args { source: source.to_owned(), file: "-".into(), config: None, data: None, to, pin: None, id: None }
}

const LEVEL: &str = r#"{"inventory_item_id":7,"location_id":1,"available":5,"updated_at":"2026-01-01T00:00:00Z"}"#;

fn plan(source: &SourceConfig, body: &'static str) -> Plan {
    Plan::new(source, Bytes::from_static(body.as_bytes()), time::now(), "d-1".to_owned()).unwrap()
}

#[tokio::test]
async fn a_running_gateway_takes_what_is_sent_and_refuses_another_secret() {
    let directory = tempfile::tempdir().unwrap();
    let config = checked(directory.path());
    let gateway = Box::pin(Gateway::start(config.clone())).await.unwrap();
    let to = |to: String| Destination::new(&args("shop", Some(to)), &config).unwrap();
    let here = to(format!("https://{}", gateway.public_addr()));
    let shop = find(&config, "shop").unwrap();
    let plan_of_shop = plan(shop, LEVEL);
    let status = deliver(&plan_of_shop, &here).await.unwrap();
    assert_eq!(
        verdict(status, &plan_of_shop, shop, &here),
        Ok("200 delivery d-1 taken\nsee: stockgate explain 'A-1@main'\n".to_owned())
    );
    let mut forged = shop.clone();
    forged.secrets = vec![Secret::new("another")];
    let status = deliver(&plan(&forged, LEVEL), &here).await.unwrap();
    let refused = verdict(status, &plan_of_shop, shop, &here).expect_err("refused");
    assert_eq!(refused.0, FAILURE);
    assert!(refused.1.contains("answered 401 to `shop`: it does not take the signature"), "{}", refused.1);

    let other = Destination { base: here.base.clone(), trust: Trust::Fingerprint([7; 32]) };
    let stranger = deliver(&plan_of_shop, &other).await.expect_err("another certificate");
    assert!(stranger.0 == UNAVAILABLE && stranger.1.contains("another certificate"), "{}", stranger.1);

    gateway.stop().await;
    let gone = deliver(&plan_of_shop, &here).await.expect_err("stopped");
    assert!(gone.0 == UNAVAILABLE && gone.1.contains("is it running?"), "{}", gone.1);
}

#[test]
fn a_secret_path_is_used_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let config = checked(directory.path());
    let channel = find(&config, "channel").unwrap();
    let plan = plan(channel, "{}");
    assert_eq!(plan.target, "/in/channel/0123456789abcdef");
    let place = Destination { base: BaseUrl::parse("https://127.0.0.1:1").unwrap(), trust: Trust::SystemRoots };
    for status in [200, 401, 404, 413, 503, 302] {
        let said = match verdict(StatusCode::from_u16(status).unwrap(), &plan, channel, &place) {
            Ok(text) | Err(Failed(_, text)) => text,
        };
        assert!(!said.contains("0123456789abcdef"), "{said}");
    }
}

#[test]
fn what_cannot_be_read_is_said_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = checked(directory.path());
    let shop = find(&config, "shop").unwrap();
    assert_eq!(
        taken(StatusCode::OK, &plan(shop, "[]"), shop),
        "200 delivery d-1 taken\nit cannot be read, so it is a dead letter now: the body is not a JSON object\n\
         see: stockgate dead list\n"
    );
}

#[test]
fn a_source_that_is_not_there_is_named_with_those_that_are() {
    let directory = tempfile::tempdir().unwrap();
    let config = checked(directory.path());
    let missing = find(&config, "shp").map(|s| s.id.clone()).expect_err("not there");
    let text = "there is no source `shp`: there are channel, shop; did you mean `shop`?";
    assert_eq!(missing, Failed(CONFIGURATION, text.to_owned()));
}

#[test]
fn without_a_certificate_the_way_out_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = checked(directory.path());
    let Failed(code, why) = Destination::new(&args("shop", None), &config).expect_err("port 0 is anywhere");
    assert!(code == FAILURE && why.contains("--to"), "{why}");
    config.listen.set_port(8443);
    let Failed(code, why) = Destination::new(&args("shop", None), &config).expect_err("no gateway was ever started");
    assert_eq!(code, UNAVAILABLE);
    assert!(why.contains("tls-cert.pem") && why.contains("start the gateway"), "{why}");
    let far = Destination::new(&args("shop", Some("https://stock.example.com".to_owned())), &config).unwrap();
    assert!(matches!(far.trust, Trust::SystemRoots));
}

#[test]
fn an_unspecified_address_is_reached_on_this_machine() {
    for (listen, to) in [("0.0.0.0:8443", "127.0.0.1:8443"), ("[::]:9", "127.0.0.1:9"), ("192.0.2.1:1", "192.0.2.1:1")] {
        assert_eq!(reachable(listen.parse().unwrap()).to_string(), to);
    }
}
