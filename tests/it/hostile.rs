//! What comes over the public socket and should not: too large, too short, forged, stale, unreadable, too much.

use bytes::Bytes;
use http::{Request, StatusCode};
use stockgate::net::client::{Alpn, Connection};
use stockgate::sources::signature::{Algorithm, Encoding, sign};

use crate::gateway::{ABSOLUTE, Gateway, SECRET, Site, delivery, signed_with};
use crate::raw::{Raw, head, tag_of};

const GOOD: &str = r#"{"sku":"A-1","quantity":5}"#;

async fn status(connection: &mut Connection, request: Request<Bytes>) -> StatusCode {
    connection.send(request).await.expect("an answer").status
}

fn nothing_was_kept(site: &Site, gateway: Gateway) {
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(site.deliveries(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_answered_413_and_not_read() {
    let site = Site::new(&format!("{ABSOLUTE}\n[limits]\nbody = \"1KiB\"\n"));
    let gateway = site.start();
    // the length alone is enough: none of the body is sent
    let answer = Raw::open(&gateway, &site).await.exchange(head("/in/gen", "content-length: 1025\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // without a length it is the 1025th byte
    let chunk = format!(
        "{}200\r\n{}\r\n200\r\n{}\r\n1\r\nx\r\n",
        head("/in/gen", "transfer-encoding: chunked\r\n"),
        "x".repeat(512),
        "x".repeat(512)
    );
    let answer = Raw::open(&gateway, &site).await.exchange(chunk.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut http2 = gateway.connect(&site, Alpn::Http2).await;
    let large = format!(r#"{{"sku":"A-1","quantity":5,"note":"{}"}}"#, "x".repeat(1024));
    assert_eq!(status(&mut http2, delivery("d-1", &large)).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(gateway.metric(r#"stockgate_deliveries_total{source="gen",result="too-large"}"#).await, "3");
    // the largest that fits is taken
    let fits = format!(r#"{{"sku":"A-1","quantity":5,"note":"{}"}}"#, "x".repeat(1024 - 36));
    assert_eq!(fits.len(), 1024);
    assert_eq!(status(&mut http2, delivery("d-2", &fits)).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_not_taken() {
    let site = Site::new(&format!("{ABSOLUTE}\n[limits]\nbody_timeout = \"300ms\"\n"));
    let gateway = site.start();
    let signed =
        format!("content-length: {}\r\nx-delivery-id: d-1\r\nx-signature: {}\r\n", GOOD.len(), tag_of(SECRET, GOOD));
    let (most, _) = GOOD.split_at(GOOD.len() - 1);
    // the last byte never comes
    let waiting = format!("{}{most}", head("/in/gen", &signed));
    let answer = Raw::open(&gateway, &site).await.exchange(waiting.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // the client hangs up before it
    let mut leaving = Raw::open(&gateway, &site).await;
    leaving.write(waiting.as_bytes()).await;
    drop(leaving);
    let incomplete = r#"stockgate_deliveries_total{source="gen",result="incomplete"}"#;
    gateway.until("both are counted", async || gateway.metric(incomplete).await == "2").await;
    nothing_was_kept(&site, gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_is_answered_401_and_leaves_no_trace() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    let forged = client.send(signed_with("another-secret", "d-1", GOOD.as_bytes())).await.expect("an answer");
    assert_eq!(forged.status, StatusCode::UNAUTHORIZED);
    assert!(forged.headers.contains_key("www-authenticate") && forged.body.is_empty());
    let unsigned = Request::post("/in/gen").header("x-delivery-id", "d-1").body(Bytes::from_static(GOOD.as_bytes()));
    assert_eq!(status(&mut client, unsigned.expect("a request")).await, StatusCode::UNAUTHORIZED);
    let mut changed = delivery("d-1", GOOD);
    *changed.body_mut() = Bytes::from(GOOD.replace('5', "6"));
    assert_eq!(status(&mut client, changed).await, StatusCode::UNAUTHORIZED);
    let mut cut = delivery("d-1", GOOD);
    let tag = tag_of(SECRET, GOOD);
    cut.headers_mut().insert("x-signature", tag.split_at(16).0.parse().expect("a value"));
    assert_eq!(status(&mut client, cut).await, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.metric(r#"stockgate_deliveries_total{source="gen",result="bad-signature"}"#).await, "3");
    assert_eq!(gateway.metric(r#"stockgate_deliveries_total{source="gen",result="unsigned"}"#).await, "1");
    nothing_was_kept(&site, gateway);
}

/// A message of the convention Standard Webhooks, signed for a time.
fn standard(id: &str, seconds: i64) -> Request<Bytes> {
    let signed = format!("{id}.{seconds}.{GOOD}");
    let tag = Encoding::Base64.encode(&sign(Algorithm::HmacSha256, b"0123456789abcdef01234567", &[signed.as_bytes()]));
    Request::post("/in/hooks")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", format!("v1,{tag}"))
        .body(Bytes::from_static(GOOD.as_bytes()))
        .expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stale_is_refused_and_what_is_replayed_counts_once() {
    let site = Site::new(&format!(
        "{ABSOLUTE}\n[source.hooks]\nkind = \"standard-webhooks\"\nwarehouse = \"main\"\nsecret_file = \"hooks.secret\"\n\
         map = {{ sku = \"/sku\", quantity = \"/quantity\" }}\n"
    ));
    site.write("hooks.secret", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3\n");
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    let now = stockgate::time::now().seconds();
    for off in [-302, 330] {
        assert_eq!(status(&mut client, standard("msg_1", now + off)).await, StatusCode::UNAUTHORIZED, "{off} s");
    }
    assert_eq!(gateway.metric(r#"stockgate_deliveries_total{source="hooks",result="stale-signature"}"#).await, "2");
    for _ in 0..3 {
        assert_eq!(status(&mut client, standard("msg_1", now)).await.as_u16() / 100, 2);
    }
    gateway.folded().await;
    let sources = gateway.api("/api/v1/sources").await;
    let hooks = sources["sources"].as_array().unwrap().iter().find(|s| s["source"] == "hooks").expect("it is listed");
    assert_eq!((hooks["accepted"].as_u64(), hooks["duplicates"].as_u64()), (Some(1), Some(2)));
    assert_eq!(gateway.api("/api/v1/stock/main/A-1").await["quantity"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_genuine_is_taken_and_becomes_a_dead_letter_when_it_cannot_be_read() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    let unreadable: [&[u8]; 4] = [b"\xff\xfe\x00not utf-8", b"", b"{\"sku\":\"A-1\"", br#"{"sku":"A-1","quantity":1e400}"#];
    for (i, body) in unreadable.iter().enumerate() {
        assert_eq!(status(&mut client, signed_with(SECRET, &format!("bad-{i}"), body)).await, StatusCode::OK, "{i}");
    }
    assert_eq!(status(&mut client, delivery("good", GOOD)).await, StatusCode::OK);
    gateway.folded().await;
    let dead = gateway.api("/api/v1/dead-letters").await;
    let dead = dead["dead_letters"].as_array().expect("a list");
    assert_eq!(dead.len(), unreadable.len(), "{dead:?}");
    assert_eq!(gateway.api("/api/v1/stock/main/A-1").await["quantity"], 5, "the good one is folded all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_learns_nothing_from_paths() {
    let token = "0123456789abcdef0123";
    let site = Site::new(&format!(
        "{ABSOLUTE}\n[source.quiet]\nkind = \"generic\"\nwarehouse = \"main\"\ntoken_file = \"quiet.path\"\n\
         signature = \"none\"\nmap = {{ sku = \"/sku\", quantity = \"/quantity\" }}\n"
    ));
    site.write("quiet.path", token);
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    let mut seen = Vec::new();
    let wrong =
        ["/", "/in/", "/in/nobody", "/in/quiet", "/in/quiet/0123456789abcdef0124", "/in/gen/x", "/metrics", "/api/v1/stock"];
    for path in wrong {
        let answer =
            client.send(Request::post(path).body(Bytes::from_static(GOOD.as_bytes())).unwrap()).await.expect("an answer");
        seen.push((answer.status, answer.body.len(), answer.headers.len()));
    }
    seen.push((StatusCode::NOT_FOUND, 0, seen[0].2));
    seen.dedup();
    assert_eq!(seen.len(), 1, "all are the same bare 404: {seen:?}");
    assert_eq!(status(&mut client, Request::get("/in/gen").body(Bytes::new()).unwrap()).await, StatusCode::NOT_FOUND);
    let right = Request::post(format!("/in/quiet/{token}")).body(Bytes::from_static(GOOD.as_bytes())).unwrap();
    assert_eq!(status(&mut client, right).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_gateway_says_when_to_come_back_and_recovers() {
    let site = Site::new(&format!("{ABSOLUTE}\n[limits]\nbody = \"64KiB\"\nbodies = \"64KiB\"\n"));
    let gateway = site.start();
    // one client holds nearly all the memory for bodies
    let mut holder = Raw::open(&gateway, &site).await;
    holder.write(format!("{}{}", head("/in/gen", "content-length: 65536\r\n"), "x".repeat(65_000)).as_bytes()).await;
    let body = format!(r#"{{"sku":"A-1","quantity":5,"note":"{}"}}"#, "x".repeat(1000));
    let mut client = gateway.connect(&site, Alpn::Http2).await;
    let mut sent = 0;
    let refused = loop {
        let answer = client.send(delivery(&format!("d-{sent}"), &body)).await.expect("an answer");
        if answer.status != StatusCode::OK {
            break answer;
        }
        sent += 1;
        assert!(sent < 20_000, "the memory for bodies has no bound");
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().expect("seconds");
    assert!((1..=60).contains(&wait));
    drop(holder);
    gateway
        .until("it takes deliveries again", async || status(&mut client, delivery("d-last", &body)).await == StatusCode::OK)
        .await;
    assert_eq!(gateway.stop().0, Some(0));
    let kept = site.deliveries().len();
    assert!(kept == sent + 1, "{sent} and one more were acknowledged, {kept} are there");
}
