//! What a well-behaved client sees: protocols, panics, drain.

use rustls::pki_types::ServerName;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;

use super::*;

/// A TLS stream with an ALPN list of our own.
async fn tls_stream(
    running: &Running,
    identity: &Identity,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let trust = Trust::Fingerprint(parse_fingerprint(&identity.fingerprint()).unwrap());
    let mut config = trust.config().unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, running.raw().await).await
}

#[tokio::test]
async fn http_1_and_http_2_clients_get_the_same_answer() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    for (alpn, is_h2) in [(Alpn::Http1, false), (Alpn::Http2, true), (Alpn::Both, true)] {
        let client = pinned(&identity, alpn);
        let mut connection = client.connect(&running.url("https")).await.unwrap();
        assert_eq!(connection.is_http2(), is_h2, "{alpn:?}");
        for _ in 0..3 {
            let answer = connection.send(post("/in/shop%2Fx?a=%20b", "four")).await.unwrap();
            let text = format!("POST /in/shop%2Fx a=%20b {} 4", running.address);
            assert_eq!((answer.status, answer.body), (StatusCode::OK, Bytes::from(text)), "{alpn:?}");
        }
    }
    running.stopped().await;
}

#[tokio::test]
async fn many_requests_at_once_share_an_http_2_connection() {
    let identity = identity();
    let (arrived, mut arrivals) = mpsc::channel(8);
    let (go, gone) = watch::channel(false);
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), move |_request: Incoming| {
        let (arrived, mut gone) = (arrived.clone(), gone.clone());
        async move {
            arrived.send(()).await.unwrap();
            gone.wait_for(|go| *go).await.unwrap();
            outgoing(StatusCode::OK, "x")
        }
    })
    .await;
    let client = Arc::new(pinned(&identity, Alpn::Both));
    let url = running.url("https");
    let mut requests = JoinSet::new();
    for _ in 0..8 {
        let (client, url) = (Arc::clone(&client), url.clone());
        requests.spawn(async move { client.send(&url, get("/")).await.unwrap().status });
    }
    for _ in 0..8 {
        soon(arrivals.recv()).await.unwrap();
    }
    go.send_replace(true);
    while let Some(status) = soon(requests.join_next()).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    running.stopped().await;
}

#[tokio::test]
async fn an_http_1_0_client_is_served_and_closed() {
    let running = Running::start(None, Limits::default(), echo).await;
    let reply = talk(&running, b"POST /in/woo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi").await;
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n"), "{reply}");
    assert!(reply.contains("content-length: "), "{reply}");
    assert!(reply.ends_with("POST /in/woo  - 2"), "{reply}");
    running.stopped().await;
}

#[tokio::test]
async fn a_client_that_offers_http_1_0_alone_in_alpn_or_no_alpn_is_served() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    for alpn in [&[b"http/1.0".as_slice()][..], &[]] {
        let mut stream = tls_stream(&running, &identity, alpn).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.starts_with("HTTP/1.0 200"));
    }
    let refused = tls_stream(&running, &identity, &[b"spdy/3"]).await;
    assert!(refused.is_err(), "nothing in common");
    running.stopped().await;
}

#[tokio::test]
async fn tls_1_2_clients_are_served() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.leaf()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&tls::PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, running.raw().await).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.0 200"));
    running.stopped().await;
}

#[tokio::test]
async fn the_order_of_ciphers_is_ours_and_not_the_clients() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.leaf()).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let usable = |suite: &&rustls::SupportedCipherSuite| suite.version() == version && !is_rsa(suite);
        let best = tls::PROVIDER.cipher_suites.iter().find(usable).unwrap().suite();
        let mut backwards = rustls::crypto::CryptoProvider::clone(&tls::PROVIDER);
        backwards.cipher_suites.reverse();
        assert_ne!(backwards.cipher_suites.iter().find(usable).unwrap().suite(), best, "the client wants another");
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(backwards))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, running.raw().await).await.unwrap();
        assert_eq!(stream.get_ref().1.negotiated_cipher_suite().unwrap().suite(), best, "{version:?}");
    }
    running.stopped().await;
}

/// The server's certificate is ECDSA: suites for RSA are not for it.
fn is_rsa(suite: &rustls::SupportedCipherSuite) -> bool {
    suite.suite().as_str().is_some_and(|name| name.contains("_RSA_"))
}

#[tokio::test]
async fn a_panic_costs_one_request_and_not_its_connection() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let mut connection = pinned(&identity, alpn).connect(&running.url("https")).await.unwrap();
        let answer = connection.send(get("/panic")).await.unwrap();
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers.get("content-type").unwrap(), "application/problem+json");
        assert_eq!(connection.send(get("/fine")).await.unwrap().status, StatusCode::OK, "{alpn:?}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn bytes_of_another_protocol_close_that_connection_only() {
    let identity = identity();
    let secure = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let reply = talk(&secure, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!reply.contains("HTTP/1.1 200"));
    let answer = pinned(&identity, Alpn::Both).send(&secure.url("https"), get("/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    secure.stopped().await;

    let plain = Running::start(None, Limits::default(), echo).await;
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        assert!(!talk(&plain, garbage).await.contains(" 200 "));
    }
    assert!(talk(&plain, b"GET / HTTP/1.0\r\n\r\n").await.contains(" 200 "));
    plain.stopped().await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_closes_what_is_idle() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let identity = identity();
        let (arrived, mut arrivals) = mpsc::channel(1);
        let (go, gone) = watch::channel(false);
        let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), move |request: Incoming| {
            let (arrived, mut gone) = (arrived.clone(), gone.clone());
            async move {
                if request.path == "/slow" {
                    arrived.send(()).await.unwrap();
                    gone.wait_for(|go| *go).await.unwrap();
                }
                outgoing(StatusCode::OK, "done")
            }
        })
        .await;
        let url = running.url("https");
        let client = pinned(&identity, alpn);
        let mut idle = tls_stream(&running, &identity, &[b"http/1.1"]).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(head(&mut idle).await.starts_with("HTTP/1.1 200"));
        let mut untouched = tls_stream(&running, &identity, &[b"http/1.1"]).await.unwrap();

        let (answer, answered) = oneshot::channel();
        let mut busy = JoinSet::new();
        busy.spawn(async move { answer.send(client.send(&url, get("/slow")).await) });
        soon(arrivals.recv()).await.unwrap();

        running.stop.send_replace(true);
        assert_eq!(rest(&mut idle).await, "done", "the body of its one answer, then the end");
        assert_eq!(rest(&mut untouched).await, "");
        go.send_replace(true);
        let answer = soon(answered).await.unwrap().unwrap();
        assert_eq!((answer.status, answer.body), (StatusCode::OK, Bytes::from("done")), "{alpn:?}");
        let address = running.address;
        running.stopped().await;
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}

#[tokio::test]
async fn a_stop_lets_those_who_have_just_connected_ask() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let raw = running.raw().await;
    // accepted after it, so it has been accepted
    let mut connected = tls_stream(&running, &identity, &[b"http/1.1"]).await.unwrap();
    let address = running.address;
    running.stop.send_replace(true);
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;

    let trust = Trust::Fingerprint(parse_fingerprint(&identity.fingerprint()).unwrap());
    let connector = TlsConnector::from(Arc::new(trust.config().unwrap()));
    let mut raw = connector.connect(ServerName::try_from("localhost").unwrap(), raw).await.unwrap();
    for newcomer in [&mut connected, &mut raw] {
        newcomer.write_all(b"POST /in/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
        let answer = rest(newcomer).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("POST /in/shop  x 2"), "{answer}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let identity = identity();
        let (arrived, mut arrivals) = mpsc::channel(1);
        let limits = Limits { drain: SHORT, ..Limits::default() };
        let running = Running::start(Some(Arc::clone(&identity)), limits, move |_request: Incoming| {
            let arrived = arrived.clone();
            async move {
                arrived.send(()).await.unwrap();
                std::future::pending().await
            }
        })
        .await;
        let url = running.url("https");
        let client = pinned(&identity, alpn);
        let mut busy = JoinSet::new();
        busy.spawn(async move { client.send(&url, get("/")).await.is_err() });
        soon(arrivals.recv()).await.unwrap();
        running.stopped().await;
        assert!(soon(busy.join_next()).await.unwrap().unwrap(), "the client is told by the closed connection");
        assert_eq!(arrivals.recv().await, None, "the handler is gone too ({alpn:?})");
    }
}

#[tokio::test]
async fn a_socket_that_was_bound_elsewhere_is_served() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::from_listener("admin", socket, None, Limits::default()).unwrap();
    let url = BaseUrl::parse(&format!("http://{}/api", server.local_addr())).unwrap();
    let (_stop, stopping) = watch::channel(false);
    let mut task = JoinSet::new();
    task.spawn(server.run(Arc::new(echo), stopping));
    let client = Client::new(Trust::Fingerprint([0; 32]), Alpn::Both).unwrap();
    let answer = client.send(&url, get("/v1/stock?sku=a")).await.unwrap();
    assert_eq!(answer.body, format!("GET /api/v1/stock sku=a {} 0", url.authority()));
}

#[tokio::test]
async fn unread_bodies_disturb_neither_the_next_request_nor_a_stop() {
    // Only a stop that does not linger is faster than our patience.
    let limits = Limits { linger: PATIENCE * 10, drain: PATIENCE * 10, ..Limits::default() };
    let running = Running::start(None, limits, |_request: Incoming| async { outgoing(StatusCode::NOT_FOUND, "") }).await;
    let mut stream = running.raw().await;
    for _ in 0..2 {
        stream.write_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 404"));
    }
    running.stopped().await;
    drop(stream);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let running = Running::start(None, Limits { body_bytes: 10, ..Limits::default() }, echo).await;
    let mut stream = running.raw().await;
    let ask = |n: usize| format!("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {n}\r\n\r\n");
    stream.write_all(ask(10).as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 100 Continue"));
    stream.write_all(b"0123456789").await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));

    let reply = talk(&running, ask(11).as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413"), "no 100 first, and the connection is closed: {reply}");
    running.stopped().await;
}
