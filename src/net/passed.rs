//! Listening sockets that whoever started this process has opened for it: socket activation, sd_listen_fds(3).
//!
//! `LISTEN_FDS` says how many there are, from descriptor 3 on, `LISTEN_PID` for which process, and `LISTEN_FDNAMES` what they are
//! called (`FileDescriptorName=` of a socket unit): `https` is the public listener, `admin` the other one. Without any names the
//! first is `https` and the second `admin`. The kernel keeps connections in their queue while nobody listens, so that a restart
//! refuses none.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// What the public listener is called.
pub const PUBLIC: &str = "https";
/// What the admin listener is called.
pub const ADMIN: &str = "admin";

/// The sockets that were passed.
#[derive(Debug, Default)]
pub struct Passed {
    /// The public listener.
    pub public: Option<TcpListener>,
    /// The admin listener.
    pub admin: Option<TcpListener>,
}

impl Passed {
    /// Take them, once a process and before it has a second thread: the variables are removed, so that no child takes them again.
    /// `names` is `LISTEN_FDNAMES`. The error says what the socket unit should be.
    pub fn take(names: Option<&str>) -> Result<Self, String> {
        let mut given = ListenFd::from_env();
        let names = names.map(|names| names.split(':').collect::<Vec<_>>());
        let mut passed = Self::default();
        for i in 0..given.len() {
            let name = match &names {
                Some(names) => names.get(i).copied().unwrap_or(""),
                None => [PUBLIC, ADMIN].get(i).copied().unwrap_or(""),
            };
            let fd = i + 3;
            let place = match name {
                PUBLIC => &mut passed.public,
                ADMIN => &mut passed.admin,
                "connection" => {
                    return Err(format!("descriptor {fd} is one connection: the socket unit needs Accept=no"));
                }
                other => {
                    return Err(format!(
                        "descriptor {fd} was passed as `{}`: the socket unit needs FileDescriptorName={PUBLIC} (deliveries) or \
                         FileDescriptorName={ADMIN}",
                        other.escape_debug()
                    ));
                }
            };
            if place.is_some() {
                return Err(format!(
                    "two sockets were passed as `{name}`, and one is served: ListenStream=443 takes IPv4 and IPv6 alike"
                ));
            }
            *place = Some(listener(&mut given, i).map_err(|why| format!("descriptor {fd}, passed as `{name}`, {why}"))?);
        }
        Ok(passed)
    }

    /// Where the public one listens, and where the admin one does.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let address = |socket: &Option<TcpListener>| socket.as_ref().and_then(|socket| socket.local_addr().ok());
        (address(&self.public), address(&self.admin))
    }
}

fn listener(given: &mut ListenFd, i: usize) -> Result<TcpListener, String> {
    const WANTED: &str =
        "is no listening TCP socket: the socket unit needs ListenStream= with a port, or an address and a port";
    // it looks at the kind and the family, and keeps children from inheriting it
    let socket = given.take_tcp_listener(i).map_err(|error| format!("{WANTED} ({error})"))?;
    let socket = socket.ok_or_else(|| WANTED.to_owned())?;
    match socket_acceptconn(&socket) {
        Ok(true) => Ok(socket),
        Ok(false) => Err(WANTED.to_owned()),
        Err(error) => Err(format!("{WANTED} ({error})")),
    }
}
