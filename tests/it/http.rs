//! The versions of HTTP and TLS that platforms speak.

use http::StatusCode;
use stockgate::net::client::Alpn;
use tokio::task::JoinSet;

use crate::gateway::{ABSOLUTE, Gateway, SECRET, Site, delivery};
use crate::raw::{Frame, Raw, tag_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_and_http_2_clients_deliver_side_by_side() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let mut kept_alive = gateway.connect(&site, Alpn::Http1).await;
    for n in 0..20 {
        let answer = kept_alive.send(delivery(&format!("one-{n}"), &format!(r#"{{"sku":"ONE","quantity":{n}}}"#))).await;
        assert_eq!(answer.expect("an answer").status, StatusCode::OK, "request {n} of one HTTP/1.1 connection");
    }
    let base = gateway.base();
    let http2 = std::sync::Arc::new(Gateway::client(&site, Alpn::Http2));
    // the first opens the connection that all others share
    http2.send(&base, delivery("two-first", r#"{"sku":"TWO","quantity":1}"#)).await.expect("an answer");
    let mut streams = JoinSet::new();
    for n in 0..50 {
        let (http2, base) = (std::sync::Arc::clone(&http2), base.clone());
        streams.spawn(async move {
            let body = format!(r#"{{"sku":"TWO-{n}","quantity":{n}}}"#);
            http2.send(&base, delivery(&format!("two-{n}"), &body)).await.expect("an answer").status
        });
    }
    while let Some(status) = streams.join_next().await {
        assert_eq!(status.expect("no panic"), StatusCode::OK);
    }
    gateway.folded().await;
    assert_eq!(gateway.api("/api/v1/stock/main/ONE").await["quantity"], 19);
    assert_eq!(gateway.api("/api/v1/stock/main/TWO-49").await["quantity"], 49);
    assert_eq!(gateway.metric(r#"stockgate_deliveries_total{source="gen",result="accepted"}"#).await, "71");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_and_tls_1_2_are_spoken() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let body = r#"{"sku":"A-1","quantity":5}"#;
    // as WooCommerce does: HTTP/1.0, one request a connection
    let request = |version: &str| {
        let tag = tag_of(SECRET, body);
        format!(
            "POST /in/gen HTTP/{version}\r\nhost: localhost\r\ncontent-length: {}\r\nx-signature: {tag}\r\n\r\n{body}",
            body.len()
        )
    };
    for (version, protocols) in [
        (&rustls::version::TLS12, &[b"http/1.1".as_slice()][..]),
        (&rustls::version::TLS13, &[]),
        (&rustls::version::TLS12, &[]),
    ] {
        let mut old = Raw::with(&gateway, &site, version, protocols).await;
        let answer = old.exchange(request("1.0").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{version:?}: {answer}");
        let answer = Raw::with(&gateway, &site, version, protocols).await.exchange(request("1.1").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{version:?}: {answer}");
    }
    let both = Raw::with(&gateway, &site, &rustls::version::TLS12, &[b"h2", b"http/1.1"]).await;
    assert_eq!(both.protocol(), Some(b"h2".as_slice()), "HTTP/2 is preferred");
}

/// The fields of one request are read into the map of the one before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_nothing_of_the_one_before_it() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let body = r#"{"sku":"A-1","quantity":5}"#;
    let signed = format!("x-delivery-id: d-1\r\nx-signature: {}\r\n", tag_of(SECRET, body));
    let request = |fields: &str| {
        format!("POST /in/gen HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
    };
    let mut kept_alive = Raw::open(&gateway, &site).await;
    for (fields, status) in [(signed.as_str(), "200 "), ("", "401 "), (signed.as_str(), "200 "), ("", "401 ")] {
        let answer = kept_alive.exchange(request(fields).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{fields:?}: {answer}");
        assert!(!answer.contains("x-"), "an answer has no field of a request: {answer}");
    }
}

/// Many HTTP/2 clients take a stream that is reset for an error, whatever was answered on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_over_http_2_lets_the_client_finish_its_body() {
    const END_HEADERS: u8 = 4;
    const END_STREAM: u8 = 1;
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let mut client = Raw::with(&gateway, &site, &rustls::version::TLS13, &[b"h2"]).await;
    // POST /in/no of https://x, in HPACK without a table; the body is still to come
    let request = [b"\x83\x87\x04\x06/in/no".as_slice(), b"\x01\x01x"].concat();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(Frame::new(Frame::SETTINGS, 0, 0, b"").encode());
    opening.extend(Frame::new(Frame::HEADERS, END_HEADERS, 1, &request).encode());
    client.write(&opening).await;
    loop {
        let frame = client.frame().await;
        if frame.kind == Frame::HEADERS && frame.stream == 1 {
            // :status 404 stands in HPACK's static table
            assert_eq!(frame.payload.first(), Some(&0x8d));
            break;
        }
    }
    // the ping's answer is behind everything that the answer brought with it
    let mut rest = Frame::new(Frame::PING, 0, 0, &[7; 8]).encode();
    rest.extend(Frame::new(Frame::DATA, END_STREAM, 1, b"{}").encode());
    rest.extend(Frame::new(Frame::PING, 0, 0, &[8; 8]).encode());
    client.write(&rest).await;
    loop {
        let frame = client.frame().await;
        assert_ne!(frame.kind, Frame::RST_STREAM, "the stream is reset: {frame:?}");
        if frame.kind == Frame::PING && frame.flags == 1 && frame.payload == [8; 8] {
            break;
        }
    }
}
