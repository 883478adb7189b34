//! What an operator sees: health, metrics, the commands, and never a secret.

use bytes::Bytes;
use http::Request;
use stockgate::net::client::Alpn;

use crate::gateway::{ABSOLUTE, SECRET, Site, delivery, signed_with};
use crate::process::run;
use crate::raw::tag_of;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = gateway.admin(path).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok\n"[..]), "{path}");
    }
    let verbose = gateway.admin("/readyz?verbose").await;
    let text = String::from_utf8(verbose.body.to_vec()).unwrap();
    for check in ["journal: ok", "queue: ok", "certificate: ok", "fold: ok", "draining: ok"] {
        assert!(text.contains(check), "{text}");
    }
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    for n in 0..3 {
        client.send(delivery(&format!("d-{n}"), &format!(r#"{{"sku":"A-{n}","quantity":{n}}}"#))).await.expect("an answer");
    }
    client.send(delivery("d-1", r#"{"sku":"A-1","quantity":1}"#)).await.expect("an answer");
    gateway.folded().await;
    let page = gateway.admin("/metrics").await;
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    for line in [
        r#"stockgate_deliveries_total{source="gen",result="accepted"} 3"#,
        r#"stockgate_deliveries_total{source="gen",result="duplicate"} 1"#,
        r#"stockgate_warehouse_units{warehouse="main"} 3"#,
        r#"stockgate_warehouse_skus{warehouse="main",state="out"} 1"#,
        r#"stockgate_warehouse_skus{warehouse="main",state="in-stock"} 2"#,
        "stockgate_ledger_sequence 3",
        "stockgate_fold_lag_records 0",
        "stockgate_journal_queue_records 0",
        "stockgate_ready 1",
        r#"stockgate_tls_certificate_self_made{listener="public"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
    }
    for name in [
        "stockgate_ack_duration_seconds_bucket",
        "stockgate_journal_commit_duration_seconds_bucket",
        "stockgate_source_last_delivery_timestamp_seconds",
        "stockgate_tls_handshakes_total",
        "stockgate_connections{",
        r#"stockgate_tls_certificate_not_after_timestamp_seconds{listener="public"}"#,
        r#"stockgate_tls_certificate_lifetime_remaining_ratio{listener="public"}"#,
        r#"stockgate_tls_certificate_reloads_total{listener="public",outcome="ok"}"#,
        "stockgate_store_bytes",
        "stockgate_build_info{",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
    ] {
        assert!(text.lines().any(|l| l.starts_with(name)), "no metric {name} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reading_commands_tell_the_story_of_a_number() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    for (id, quantity, time) in [("d-1", 9, "10:00:00"), ("d-2", 5, "11:00:00"), ("d-3", 7, "09:00:00")] {
        let body = format!(r#"{{"sku":"A-1","quantity":{quantity},"time":"2026-11-20T{time}Z"}}"#);
        client.send(delivery(id, &body)).await.expect("an answer");
    }
    client.send(delivery("d-4", "not json")).await.expect("an answer");
    gateway.folded().await;
    let command = |args: &[&str]| run(&mut gateway.command(args), "");

    let stock = command(&["stock", "--json"]).json();
    assert_eq!((stock["stock"][0]["sku"].as_str(), stock["stock"][0]["quantity"].as_u64()), (Some("A-1"), Some(5)));
    let story = command(&["explain", "A-1@main"]).ok();
    let mut lines = story.lines();
    assert!(lines.next().expect("a line").starts_with("A-1 in main: 5"), "{story}");
    let at = |id: &str| story.find(id).unwrap_or_else(|| panic!("no {id} in\n{story}"));
    assert!(at("d-2") < at("d-1"), "newest first\n{story}");
    let ignored = story.lines().find(|line| line.contains("d-3")).expect("the late one is shown");
    assert!(ignored.contains('7') && ignored.contains("ignored"), "{ignored}");
    let dead = command(&["dead", "list", "--json"]).json();
    let id = dead["dead_letters"][0]["id"].as_u64().expect("one dead letter").to_string();
    assert!(command(&["dead", "show", &id]).ok().contains("not json"));
    command(&["dead", "drop", &id]).ok();
    gateway.folded().await;
    assert_eq!(command(&["dead", "list", "--json"]).json()["dead_letters"].as_array().map(Vec::len), Some(0));
    assert!(command(&["sources"]).ok().contains("gen"));
    assert!(command(&["warehouses"]).ok().contains("main"));
    assert!(command(&["verify"]).ok().starts_with("ok"));
    assert_eq!(command(&["explain", "B-1@main"]).code, Some(1), "what is not there is a failure");
}

#[test]
fn completions_and_the_manual_name_every_command() {
    let commands = [
        "serve",
        "demo",
        "check",
        "send",
        "stock",
        "warehouses",
        "explain",
        "dead",
        "sources",
        "verify",
        "replay",
        "backup",
        "restore",
        "doctor",
        "reload",
    ];
    let man = run(crate::process::stockgate().arg("man"), "").ok();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(crate::process::stockgate().args(["completions", shell]), "").ok();
        for command in commands {
            assert!(script.contains(command), "{shell}: {command}");
            assert!(man.contains(command), "man: {command}");
        }
    }
}

/// Secrets as they are configured, and as a careless program would show them.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let base64 = data_encoding::BASE64.encode(bytes);
    let debug = format!("{bytes:?}");
    let mut forms =
        vec![secret.to_owned(), data_encoding::HEXLOWER.encode(bytes), debug.trim_matches(['[', ']']).to_owned()];
    forms.push(base64.trim_end_matches('=').to_owned());
    forms
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_ever_shown() {
    let (token, api_token) = ("path-token-0123456789", "api-token-abcdefghijkl");
    let site = Site::new(&format!(
        "{ABSOLUTE}\n[source.till]\nkind = \"bsale\"\nlocations = {{ \"1\" = \"main\" }}\ntoken_file = \"till.path\"\n\
         [source.till.api]\nbase_url = \"http://127.0.0.1:9\"\ntoken_file = \"till.token\"\n"
    ));
    site.write("till.path", token);
    site.write("till.token", api_token);
    let text = std::fs::read_to_string(site.config()).unwrap().replace("level = \"debug\"", "level = \"trace\"");
    site.write("stockgate.toml", &text);
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    let body = r#"{"sku":"A-1","quantity":5}"#;
    let thin = r#"{"cpnId":2,"resource":"/v2/stocks.json?variant=7079&office=1","resourceId":"7079","topic":"stock","action":"put","officeId":"1","send":1503500856}"#;
    let post = |path: String, body: &str| Request::post(path).body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let mut codes = Vec::new();
    for request in [
        delivery("d-1", body),
        signed_with("a-wrong-secret-of-somebody", "d-2", body.as_bytes()),
        signed_with(SECRET, "d-3", b"\xff"),
        post(format!("/in/till/{token}"), thin),
        post(format!("/in/till/{token}x"), thin),
        post(format!("/in/gen/{SECRET}"), body),
        post(format!("/in/till/{token}"), "not json"),
    ] {
        codes.push(client.send(request).await.expect("an answer").status.as_u16());
    }
    assert_eq!(codes, [200, 401, 200, 200, 404, 404, 200]);
    gateway
        .until("the api was asked", async || gateway.metric(r#"stockgate_fetch_tasks{source="till"}"#).await == "1")
        .await;
    let unreachable = r#"stockgate_fetches_total{source="till",result="unreachable"}"#;
    gateway
        .until("the call failed", async || gateway.metric(unreachable).await.parse().is_ok_and(|calls: u64| calls > 0))
        .await;
    run(&mut gateway.command(&["reload"]), "").ok();

    let mut shown = String::new();
    for target in [
        "/",
        "/metrics",
        "/readyz?verbose",
        "/api/v1/status",
        "/api/v1/stock",
        "/api/v1/sources",
        "/api/v1/warehouses",
        "/api/v1/dead-letters",
        "/api/v1/dead-letters/1",
        "/api/v1/dead-letters/2",
        "/api/v1/explain/main/A-1",
    ] {
        let answer = gateway.admin(target).await;
        shown.push_str(&format!("{target} {}\n{}\n", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    for args in [&["sources"][..], &["explain", "A-1@main"], &["dead", "show", "1"], &["dead", "show", "2"]] {
        let finished = run(&mut gateway.command(args), "");
        shown.push_str(&format!("{args:?}\n{}{}\n", finished.stdout, finished.stderr));
    }
    let out = gateway.out.clone();
    let (code, log) = gateway.stop();
    assert_eq!(code, Some(0));
    shown.push_str(&format!("log\n{log}\nout\n{}", out.text()));
    for shows in ["bad-signature", "till", "DEBUG", "api call failed"] {
        assert!(shown.contains(shows), "the net is wide enough: {shows}");
    }
    let tags = [tag_of(SECRET, body)];
    for secret in [SECRET, token, api_token, "a-wrong-secret-of-somebody"].into_iter().flat_map(forms).chain(tags) {
        let place = shown.lines().find(|line| line.contains(&secret));
        assert!(place.is_none(), "`{secret}` is shown in: {place:?}");
    }
}
