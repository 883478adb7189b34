//! What a hostile or broken client meets.

use rustls::pki_types::ServerName;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::*;

#[tokio::test]
async fn a_body_that_is_too_large_by_its_length_is_refused_and_the_client_can_read_so() {
    let running = Running::start(None, Limits { body_bytes: 1000, ..Limits::default() }, echo).await;
    let body = vec![b'x'; 8 * 1024 * 1024];
    let mut stream = running.raw().await;
    stream
        .write_all(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
        .await
        .unwrap();
    // Like most clients: first send everything, then look for the answer.
    soon(stream.write_all(&body)).await.unwrap();
    let reply = rest(&mut stream).await;
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    assert!(reply.contains("connection: close"), "{reply}");
    drop(stream);
    running.stopped().await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused() {
    let running = Running::start(None, Limits { body_bytes: 1000, ..Limits::default() }, echo).await;
    let chunk = format!("190\r\n{}\r\n", "x".repeat(0x190));
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let reply = talk(&running, format!("{head}{}", chunk.repeat(3)).as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");

    let reply = talk(
        &running,
        format!("{}{}0\r\n\r\n", head.replace("1.1\r\n", "1.1\r\nConnection: close\r\n"), chunk.repeat(2)).as_bytes(),
    )
    .await;
    assert!(reply.ends_with("POST /  x 800"), "below the limit, chunks are put together: {reply}");
    running.stopped().await;
}

#[tokio::test]
async fn the_limit_holds_on_http_2_and_the_connection_lives_on() {
    let identity = identity();
    let running =
        Running::start(Some(Arc::clone(&identity)), Limits { body_bytes: 200_000, ..Limits::default() }, echo).await;
    let mut connection = pinned(&identity, Alpn::Http2).connect(&running.url("https")).await.unwrap();
    assert_eq!(connection.send(post("/", vec![0; 200_001])).await.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer = connection.send(post("/", vec![0; 200_000])).await.unwrap();
    assert!(answer.body.ends_with(b" 200000"), "more than one window: {:?}", answer.body);
    running.stopped().await;
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let running = Running::start(None, Limits { body: SHORT, ..Limits::default() }, echo).await;
    let mut stream = running.raw().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab").await.unwrap();
    let reply = head(&mut stream).await;
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(reply.contains("connection: close"), "{reply}");
    drop(stream);
    running.stopped().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (seen, mut results) = mpsc::channel(1);
    let running = Running::start(None, Limits::default(), move |request: Incoming| {
        let seen = seen.clone();
        async move {
            seen.send(request.body.read().await.map(|b| b.len())).await.unwrap();
            outgoing(StatusCode::OK, "")
        }
    })
    .await;
    let mut stream = running.raw().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n").await.unwrap();
    assert_eq!(soon(results.recv()).await, Some(Err(BodyError::Broken)));
    drop(stream);
    running.stopped().await;
}

#[tokio::test]
async fn bodies_in_memory_have_a_common_bound_that_is_given_back() {
    let (read, mut reads) = mpsc::channel(1);
    let (go, gone) = watch::channel(false);
    let limits = Limits { bodies_buffered: 100, ..Limits::default() };
    let running = Running::start(None, limits, move |request: Incoming| {
        let (read, mut gone) = (read.clone(), gone.clone());
        async move {
            match request.body.read().await {
                Ok(held) => {
                    read.send(()).await.unwrap();
                    gone.wait_for(|go| *go).await.unwrap();
                    outgoing(StatusCode::OK, held.to_vec())
                }
                Err(error) => {
                    assert_eq!(error, BodyError::Budget);
                    outgoing(StatusCode::SERVICE_UNAVAILABLE, "")
                }
            }
        }
    })
    .await;
    let url = running.url("http");
    let client = Arc::new(Client::new(Trust::Fingerprint([0; 32]), Alpn::Http1).unwrap());
    let send = |size: usize| {
        let (client, url) = (Arc::clone(&client), url.clone());
        async move { client.send(&url, post("/", vec![b'x'; size])).await.unwrap().status }
    };
    let mut first = JoinSet::new();
    first.spawn(send(80));
    soon(reads.recv()).await.unwrap();
    assert_eq!(send(21).await, StatusCode::SERVICE_UNAVAILABLE, "80 of 100 are held");
    go.send_replace(true);
    assert_eq!(soon(first.join_next()).await.unwrap().unwrap(), StatusCode::OK);
    assert_eq!(send(100).await, StatusCode::OK, "all of it is free again");
    running.stopped().await;
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let running = Running::start(None, Limits { header: SHORT, ..Limits::default() }, echo).await;
    assert_eq!(talk(&running, b"").await, "", "never a byte");
    assert_eq!(talk(&running, b"GET / HTTP/1.1\r\nHo").await, "", "never a whole head");
    let reply = talk(&running, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 200"), "answered, and closed once idle: {reply}");
    running.stopped().await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_closed() {
    let running = Running::start(Some(identity()), Limits { handshake: SHORT, ..Limits::default() }, echo).await;
    assert_eq!(talk(&running, b"").await, "");
    assert_eq!(talk(&running, b"\x16\x03\x01\x02\x00\x01").await, "");
    running.stopped().await;
}

/// An HTTP/2 connection that sent its preface (or not) and then nothing.
async fn silent_h2(running: &Running, identity: &Identity, preface: &[u8]) -> usize {
    let mut config = Trust::Fingerprint(parse_fingerprint(&identity.fingerprint()).unwrap()).config().unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, running.raw().await).await.unwrap();
    stream.write_all(preface).await.unwrap();
    rest(&mut stream).await.len()
}

#[tokio::test]
async fn idle_http_2_connections_are_closed_even_without_a_preface() {
    let identity = identity();
    let limits = Limits { idle: SHORT, header: SHORT, ..Limits::default() };
    let running = Running::start(Some(Arc::clone(&identity)), limits, echo).await;
    assert!(
        silent_h2(&running, &identity, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await > 0,
        "settings, goodbye"
    );
    silent_h2(&running, &identity, b"PRI * HT").await;
    running.stopped().await;
}

#[tokio::test]
async fn a_request_under_way_keeps_its_http_2_connection_from_being_idle() {
    let identity = identity();
    let limits = Limits { idle: SHORT, header: SHORT, ..Limits::default() };
    let running = Running::start(Some(Arc::clone(&identity)), limits, |_request: Incoming| async {
        // The time itself is what is tested: several idle periods pass.
        tokio::time::sleep(SHORT * 4).await;
        outgoing(StatusCode::OK, "late")
    })
    .await;
    let answer = pinned(&identity, Alpn::Http2).send(&running.url("https"), get("/")).await.unwrap();
    assert_eq!(answer.body, "late");
    running.stopped().await;
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_dropped() {
    let limits = Limits { write: SHORT, drain: PATIENCE * 10, ..Limits::default() };
    let (arrived, mut arrivals) = mpsc::channel(1);
    let running = Running::start(None, limits, move |_request: Incoming| {
        let arrived = arrived.clone();
        async move {
            arrived.send(()).await.unwrap();
            outgoing(StatusCode::OK, vec![0; 64 * 1024 * 1024])
        }
    })
    .await;
    let mut stream = running.raw().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    soon(arrivals.recv()).await.unwrap();
    running.stopped().await; // the drain is longer than our patience: only the write timeout ends this
    drop(stream);
}

#[tokio::test]
async fn connections_over_a_cap_are_closed_at_once() {
    for limits in
        [Limits { connections: 1, ..Limits::default() }, Limits { connections_per_address: 1, ..Limits::default() }]
    {
        let running = Running::start(None, limits, echo).await;
        let mut first = running.raw().await;
        first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(head(&mut first).await.starts_with("HTTP/1.1 200"));
        assert_eq!(rest(&mut running.raw().await).await, "");
        first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut first).await.contains("HTTP/1.1 200"), "the first is not disturbed");
        running.stopped().await;
    }
}

#[tokio::test]
async fn heads_have_bounds() {
    let running = Running::start(None, Limits::default(), echo).await;
    let request =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    for (status, request) in [
        ("200", request(&format!("/{}", "a".repeat(4095)), "")),
        ("414", request(&format!("/{}", "a".repeat(4096)), "")),
        ("200", request("/", &"a: b\r\n".repeat(62))),
        ("431", request("/", &"a: b\r\n".repeat(63))),
        ("200", request("/", &format!("a: {}\r\n", "b".repeat(15_000)))),
        ("431", request("/", &format!("a: {}\r\n", "b".repeat(17_000)))),
    ] {
        let reply = talk(&running, request.as_bytes()).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {}", reply.lines().next().unwrap_or_default());
    }
    running.stopped().await;
}

#[tokio::test]
async fn long_targets_are_refused_on_http_2_too() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let mut connection = pinned(&identity, Alpn::Http2).connect(&running.url("https")).await.unwrap();
    let answer = connection.send(get(&format!("/?{}", "a".repeat(4096)))).await.unwrap();
    assert_eq!(answer.status, StatusCode::URI_TOO_LONG);
    running.stopped().await;
}
