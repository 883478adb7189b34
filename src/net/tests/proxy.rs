//! A proxy in front, over real sockets.

use std::net::IpAddr;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::*;
use crate::net::serve::Proxies;

/// A server that says whom it takes its client for. It expects a PROXY header from addresses of 127.0.0.0/24, where every connection
/// of these tests comes from unless it is bound to another.
async fn behind(tls: Option<Arc<Identity>>, limits: Limits) -> Running {
    let server = Server::bind("public", "127.0.0.1:0".parse().unwrap(), tls, limits).await.unwrap();
    let proxies: Proxies = Arc::new(|peer: IpAddr| matches!(peer, IpAddr::V4(v4) if v4.octets()[..3] == [127, 0, 0]));
    let server = server.behind(proxies);
    let address = server.local_addr();
    let (stop, stopping) = watch::channel(false);
    let mut task = JoinSet::new();
    let who = |request: Incoming| std::future::ready(outgoing(StatusCode::OK, format!("{};", request.peer)));
    task.spawn(server.run(Arc::new(who), stopping));
    Running { address, stop, task }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Version 2, PROXY, TCP over IPv4, from 203.0.113.9, with a TLV.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x09\x7f\0\0\x01\x04\xd2\x20\xfb\x04\0\x02ab";

#[tokio::test]
async fn the_client_is_whom_the_proxy_names() {
    let running = behind(None, Limits::default()).await;
    for (header, who) in [
        (&b"PROXY TCP4 203.0.113.9 127.0.0.1 1234 8443\r\n"[..], "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 1234 8443\r\n", "2001:db8::9"),
        (V2, "203.0.113.9"),
        // its own connection: a health check
        (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0", "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let answer = talk(&running, &[header, GET].concat()).await;
        assert!(answer.ends_with(&format!("{who};")), "{answer}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn what_follows_the_header_belongs_to_tls_wherever_the_packets_end() {
    let identity = identity();
    let running = behind(Some(Arc::clone(&identity)), Limits::default()).await;
    let mut config = (*pinned(&identity, Alpn::Http1).tls_config()).clone();
    config.alpn_protocols = Vec::new();
    let connector = TlsConnector::from(Arc::new(config));
    for cut in [0, 1, 11, 12, 13, 16, 27, V2.len()] {
        let mut socket = running.raw().await;
        socket.set_nodelay(true).unwrap();
        let (before, after) = V2.split_at(cut);
        socket.write_all(before).await.unwrap();
        tokio::task::yield_now().await;
        socket.write_all(after).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = soon(connector.connect(name, socket)).await.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        tls.write_all(GET).await.unwrap();
        assert!(rest(&mut tls).await.ends_with("203.0.113.9;"), "cut at {cut}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn a_listed_proxy_without_a_header_is_closed_and_a_stranger_is_never_asked() {
    let identity = identity();
    let running = behind(Some(Arc::clone(&identity)), Limits { proxy: SHORT, ..Limits::default() }).await;
    // TLS at once, HTTP at once, something that is nearly a header, too much of one
    let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 4096]].concat();
    for bad in [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc"[..], GET, b"PROXY TCP9 1 2 3 4\r\n", &long] {
        assert_eq!(talk(&running, bad).await, "", "closed without a word");
    }
    // nothing, or half of one: closed in time
    for half in [&b""[..], &V2[..20], b"PROXY TCP4 203."] {
        assert_eq!(talk(&running, half).await, "");
    }
    // from an address that is not listed: TLS without a header, and no header is believed
    let direct = || async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.1.1:0".parse().unwrap()).unwrap();
        socket.connect(running.address).await.unwrap()
    };
    let connector = TlsConnector::from(pinned(&identity, Alpn::Http1).tls_config());
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = soon(connector.connect(name, direct().await)).await.expect("a stranger needs no header");
    tls.write_all(GET).await.unwrap();
    assert!(rest(&mut tls).await.ends_with("127.0.1.1;"));
    let mut liar = direct().await;
    liar.write_all(V2).await.unwrap();
    assert!(!rest(&mut liar).await.contains("203.0.113.9"));
    running.stopped().await;
}

#[tokio::test]
async fn the_count_of_connections_is_the_clients_not_the_proxys() {
    let limits = Limits { connections_per_address: 1, ..Limits::default() };
    let running = behind(None, limits).await;
    let held = |header: &'static str| {
        let running = &running;
        async move {
            let mut socket = running.raw().await;
            socket.write_all(&[header.as_bytes(), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"].concat()).await.unwrap();
            let mut first = [0; 12];
            (soon(socket.read(&mut first)).await.unwrap_or(0) > 0).then_some(socket)
        }
    };
    let one = held("PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n").await.expect("the first of a client");
    assert!(held("PROXY TCP4 203.0.113.9 127.0.0.1 3 4\r\n").await.is_none(), "the second of the same client");
    let _other = held("PROXY TCP4 203.0.113.10 127.0.0.1 1 2\r\n").await.expect("another client of the same proxy");
    drop(one);
    running.stopped().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_header() {
    let running = behind(None, Limits::default()).await;
    let mut waiting = running.raw().await;
    waiting.write_all(b"PROXY ").await.unwrap();
    // a whole exchange later the other one has been accepted
    assert!(talk(&running, &[V2, GET].concat()).await.ends_with("203.0.113.9;"));
    running.stopped().await;
    assert_eq!(rest(&mut waiting).await, "");
}
