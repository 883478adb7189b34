//! The client against odd servers.

use std::io::Write;

use tokio::net::TcpListener;

use super::*;
use crate::net::client::{self, ClientError};

/// A server that gives prepared replies: one inner list for each connection, one reply for each request on it. Then it closes.
async fn replying(connections: Vec<Vec<Vec<u8>>>) -> (BaseUrl, JoinSet<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut served = 0;
        for replies in connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            for reply in replies {
                head(&mut stream).await;
                // The client may stop reading half-way: that is its right.
                if stream.write_all(&reply).await.is_ok() {
                    served += 1;
                }
            }
        }
        served
    });
    (url, task)
}

fn plain_client() -> Client {
    small_client(usize::MAX)
}

fn small_client(body_bytes: usize) -> Client {
    let limits = client::Limits { connect: PATIENCE, total: PATIENCE, body_bytes };
    Client::with(Trust::Fingerprint([0; 32]), Alpn::Both, limits, true).unwrap()
}

fn reply(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// One request to a server that gives this one reply.
async fn ask(client: &Client, reply: Vec<u8>) -> Result<client::Answer, ClientError> {
    let (url, _server) = replying(vec![vec![reply]]).await;
    soon(client.send(&url, get("/"))).await
}

#[tokio::test]
async fn compressed_answers_are_decompressed() {
    let text = b"stock ".repeat(50_000);
    let packed = [gzipped(&text), gzipped(b"and a second member")].concat();
    let answer = ask(&plain_client(), reply("Content-Encoding: gzip\r\n", &packed)).await.unwrap();
    assert_eq!(answer.body, [&text[..], b"and a second member"].concat());
    assert!(answer.headers.get("content-encoding").is_none() && answer.headers.get("content-length").is_none());
    let answer = ask(&plain_client(), reply("Content-Encoding: gzip\r\n", b"")).await.unwrap();
    assert_eq!(answer.body, "", "an empty body is not a damaged one");
}

#[tokio::test]
async fn compression_is_asked_for_only_when_wanted() {
    let running = Running::start(None, Limits::default(), |request: Incoming| async move {
        let field = |name: &str| request.headers.get(name).map_or("-", |v| v.to_str().unwrap());
        outgoing(StatusCode::OK, format!("{} {}", field("accept-encoding"), field("user-agent")))
    })
    .await;
    let product = concat!("stockgate/", env!("CARGO_PKG_VERSION"));
    let url = running.url("http");
    let plain = Client::new(Trust::Fingerprint([0; 32]), Alpn::Http1).unwrap();
    assert_eq!(plain.send(&url, get("/")).await.unwrap().body, format!("- {product}"));
    assert_eq!(plain_client().send(&url, get("/")).await.unwrap().body, format!("gzip {product}"));
    let own = Request::get("/").header("user-agent", "me").body(Bytes::new()).unwrap();
    assert_eq!(plain.send(&url, own).await.unwrap().body, "- me");
    running.stopped().await;
}

#[tokio::test]
async fn a_decompression_bomb_is_not_unpacked() {
    let bomb = gzipped(&vec![0; 50 * 1024 * 1024]);
    assert!(bomb.len() < 100_000);
    let result = ask(&small_client(1024 * 1024), reply("Content-Encoding: gzip\r\n", &bomb)).await;
    assert!(matches!(result, Err(ClientError::TooLarge)), "{result:?}");
}

#[tokio::test]
async fn damaged_or_unknown_encodings_are_errors() {
    let packed = gzipped(b"some stock levels, some stock levels");
    let mut flipped = packed.clone();
    let crc = flipped.len() - 6;
    flipped[crc] ^= 1;
    let cut = packed[..packed.len() - 9].to_vec();
    let trailing = [&packed[..], b"garbage"].concat();
    for damaged in [flipped, cut, trailing, b"not gzip at all".to_vec()] {
        let result = ask(&plain_client(), reply("Content-Encoding: gzip\r\n", &damaged)).await;
        assert!(matches!(result, Err(ClientError::Encoding)), "{result:?}");
    }
    let result = ask(&plain_client(), reply("Content-Encoding: br\r\n", b"x")).await;
    assert!(matches!(result, Err(ClientError::Encoding)), "{result:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_by_its_length_or_as_it_comes() {
    let client = small_client(1000);
    assert_eq!(ask(&client, reply("", &[b'x'; 1000])).await.unwrap().body.len(), 1000);
    assert!(matches!(ask(&client, reply("", &[b'x'; 1001])).await, Err(ClientError::TooLarge)));
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "64\r\n".to_owned() + &"x".repeat(100) + "\r\n");
    let endless = chunked + &("64\r\n".to_owned() + &"x".repeat(100) + "\r\n").repeat(10);
    let result = ask(&client, endless.into_bytes()).await;
    assert!(matches!(result, Err(ClientError::TooLarge)), "{result:?}");
}

#[tokio::test]
async fn an_answer_cut_short_is_an_error_that_may_have_been_acted_on() {
    let mut cut = reply("", b"0123456789");
    cut.truncate(cut.len() - 1);
    let error = ask(&plain_client(), cut).await.unwrap_err();
    assert!(matches!(error, ClientError::BrokenOff(_)), "{error}");
    assert!(!error.never_sent());
}

#[tokio::test]
async fn redirects_are_answers() {
    let answer = ask(
        &plain_client(),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n".to_vec(),
    )
    .await
    .unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.headers.get("location").unwrap(), "http://127.0.0.1:1/elsewhere");
}

#[tokio::test]
async fn connections_are_used_again_and_closed_ones_are_replaced() {
    let (url, mut server) =
        replying(vec![vec![reply("", b"1"), reply("", b"2"), reply("Connection: close\r\n", b"3")], vec![reply("", b"4")]])
            .await;
    let client = plain_client();
    for expected in ["1", "2", "3", "4"] {
        assert_eq!(soon(client.send(&url, get("/"))).await.unwrap().body, expected);
    }
    assert_eq!(soon(server.join_next()).await.unwrap().unwrap(), 4);
}

#[tokio::test]
async fn a_request_is_never_sent_twice() {
    // The second request is read, and the connection closed without an answer: it may have been acted on.
    let (url, _server) = replying(vec![vec![reply("", b"1"), Vec::new()], vec![reply("", b"no")]]).await;
    let client = plain_client();
    soon(client.send(&url, get("/"))).await.unwrap();
    let error = soon(client.send(&url, post("/", ""))).await.unwrap_err();
    assert!(matches!(error, ClientError::BrokenOff(_)) && !error.never_sent(), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = client::Limits { connect: SHORT, total: SHORT * 2, body_bytes: 10 };
    let client = Client::with(Trust::Fingerprint([0; 32]), Alpn::Both, limits, false).unwrap();
    let plain = BaseUrl::parse(&format!("http://{address}")).unwrap();
    assert!(matches!(soon(client.send(&plain, get("/"))).await, Err(ClientError::TimedOut)));
    let secure = BaseUrl::parse(&format!("https://{address}")).unwrap();
    let error = soon(client.send(&secure, get("/"))).await.unwrap_err();
    assert!(matches!(error, ClientError::ConnectTimedOut) && error.never_sent(), "{error}");
}

#[tokio::test]
async fn nobody_there_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let error = plain_client().send(&url, get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)) && error.never_sent(), "{error}");
}

#[tokio::test]
async fn http_2_is_an_error_where_the_server_lacks_it() {
    let identity = identity();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = BaseUrl::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
    let mut server = JoinSet::new();
    let mut config = (*identity.config(false)).clone();
    config.alpn_protocols.clear();
    server.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_ok()
    });
    let error = soon(pinned(&identity, Alpn::Http2).connect(&url)).await.err().unwrap();
    assert!(matches!(error, ClientError::Protocol) && error.never_sent(), "{error}");
}

#[tokio::test]
async fn errors_show_no_target() {
    let url = BaseUrl::parse("http://127.0.0.1:1/rest/s3cr3t").unwrap();
    let error = plain_client().send(&url, get("/x?token=s3cr3t")).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cr3t"));
}
