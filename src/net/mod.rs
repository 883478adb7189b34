//! Sockets, TLS and HTTP: the only module that opens a socket.
//!
//! ```text
//!  proxy    the PROXY header of a listed proxy in front: who really connected
//!  listen   accept, cap connections in all and per address, back off when the system is out of descriptors
//!  stream   one connection's bytes, plain or TLS: write timeout, lingering close
//!  tls      the server's certificate, swappable while running; made by ourselves at the first start
//!  client_auth   certificates of clients: asked for once, judged for each source
//!  acme     certificates from an ACME server: orders through `client`, challenges answered by `tls` and `serve`
//!  ciphers  the suites and their order: what this CPU is quick at comes first
//!  serve    HTTP/1.0, 1.1 and 2 by ALPN; deadlines; panics; drain          -> Handler
//!  passed   listening sockets that systemd has opened
//!  notify   what systemd is told
//!  body     a request body: capped, timed, within the budget of all buffered bodies
//!  url, trust, client   the other direction: requests to platforms and channels
//! ```
//!
//! What holds here:
//! - Every wait on a client has an end: handshake, head, body, response, idle connection, drain (`limits`).
//! - Every buffer has a bound: head, body, all bodies together, streams and windows of HTTP/2, an answer after decompression.
//! - A client can make us log at debug level only (a listed proxy once a minute more: it is ours).
//! - A panic in a handler costs that request a 500, nothing else.
//! - Nothing is trusted on the way out: certificates are verified, redirects are not followed, the host is the configured one.
//!
//! Absent on purpose: protocol sniffing (the protocol is what ALPN chose, so no connection waits undecided), cleartext HTTP/2,
//! upgrades, streaming bodies.

#![expect(clippy::disallowed_types, reason = "this is the one module that opens sockets")]

pub mod acme;
mod activity;
pub mod body;
mod ciphers;
pub mod client;
pub mod client_auth;
mod listen;
pub mod notify;
pub mod passed;
mod proxy;
mod self_made;
pub mod serve;
mod stream;
pub(crate) mod tasks;
pub mod tls;
pub mod trust;
pub mod url;
mod x509;

#[cfg(test)]
mod tests;
