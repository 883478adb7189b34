//! Accepting connections: caps in all and per address, and patience when the system is short of descriptors.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::{limits, metrics};

/// A listening socket whose errors do not make it spin.
pub(super) struct Listener {
    socket: TcpListener,
    pause: Duration,
    paused_until: Option<Instant>,
}

impl Listener {
    pub(super) fn new(socket: TcpListener) -> Self {
        Self { socket, pause: limits::ACCEPT_PAUSE_MIN, paused_until: None }
    }

    /// The next connection. Cancel safe: a pause that was cut short goes on at the next call.
    pub(super) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Some(until) = self.paused_until {
                tokio::time::sleep_until(until).await;
                self.paused_until = None;
            }
            match self.socket.accept().await {
                Ok(accepted) => {
                    self.pause = limits::ACCEPT_PAUSE_MIN;
                    return accepted;
                }
                Err(error) if is_the_clients(&error) => tracing::debug!(%error, "connection was gone before accept"),
                Err(error) => {
                    tracing::warn!(%error, pause_ms = self.pause.as_millis(), "cannot accept a connection");
                    self.paused_until = Some(Instant::now() + self.pause);
                    self.pause = self.pause.saturating_mul(2).min(limits::ACCEPT_PAUSE_MAX);
                }
            }
        }
    }
}

/// Errors of one connection, after which the next accept can succeed at once. All others (EMFILE, ENFILE, ENOBUFS, ENOMEM)
/// are the system's and would come back immediately.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts open connections, in all and per address.
pub(super) struct Gate {
    listener: &'static str,
    max: usize,
    max_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Gate {
    pub(super) fn new(listener: &'static str, max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self { listener, max, max_per_address, open: Mutex::default() })
    }

    /// A place for a connection from `peer`, or which cap it hit.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Slot, &'static str> {
        let mut slot = self.enter_unnamed()?;
        slot.count_for(peer)?;
        Ok(slot)
    }

    /// A place for a connection whose client a proxy is going to name: see [`Slot::count_for`].
    pub(super) fn enter_unnamed(self: &Arc<Self>) -> Result<Slot, &'static str> {
        let mut open = self.lock();
        if open.total >= self.max {
            return Err("total");
        }
        open.total += 1;
        metrics::connections(self.listener, open.total as u64);
        Ok(Slot { gate: Arc::clone(self), address: None })
    }

    fn leave(&self, address: Option<IpAddr>) {
        let mut open = self.lock();
        open.total -= 1;
        if let Some(address) = address
            && let Some(count) = open.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
        metrics::connections(self.listener, open.total as u64);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection's place; given back on drop.
pub(super) struct Slot {
    gate: Arc<Gate>,
    /// Whose it counts as; `None` until that is known.
    address: Option<IpAddr>,
}

impl Slot {
    /// Count this connection for a client's address, or say which cap that hits. To be called once.
    pub(super) fn count_for(&mut self, client: IpAddr) -> Result<(), &'static str> {
        let address = counted_as(client);
        let mut open = self.gate.lock();
        let from_address = open.by_address.entry(address).or_default();
        if *from_address >= self.gate.max_per_address {
            return Err("per-address");
        }
        *from_address += 1;
        drop(open);
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.leave(self.address);
    }
}

/// One customer, one count: an IPv4 address (also when mapped into IPv6), or the /64 that an IPv6 customer owns whole.
fn counted_as(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_cap_refuses_with_its_name_and_a_closed_connection_makes_room() {
        let gate = Gate::new("public", 3, 2);
        let first = gate.enter(ip("192.0.2.1")).ok().unwrap();
        let _second = gate.enter(ip("::ffff:192.0.2.1")).ok().unwrap();
        assert_eq!(gate.enter(ip("192.0.2.1")).err(), Some("per-address"));
        let _third = gate.enter(ip("192.0.2.2")).ok().unwrap();
        assert_eq!(gate.enter(ip("192.0.2.3")).err(), Some("total"));
        drop(first);
        assert!(gate.enter(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_connection_through_a_proxy_counts_for_the_client_that_it_names() {
        let gate = Gate::new("public", 3, 1);
        let mut first = gate.enter_unnamed().ok().unwrap();
        let mut second = gate.enter_unnamed().ok().unwrap();
        assert_eq!(first.count_for(ip("192.0.2.1")), Ok(()));
        assert_eq!(second.count_for(ip("192.0.2.1")), Err("per-address"));
        drop(second);
        assert_eq!(gate.enter(ip("192.0.2.1")).err(), Some("per-address"), "also for one that comes directly");
        assert_eq!(gate.lock().total, 1, "what was refused holds no place");
        drop(first);
        assert!(gate.enter(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_customer() {
        let gate = Gate::new("public", 10, 1);
        let _first = gate.enter(ip("2001:db8:1:2::1")).ok().unwrap();
        assert_eq!(gate.enter(ip("2001:db8:1:2:ffff::9")).err(), Some("per-address"));
        assert!(gate.enter(ip("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn addresses_without_a_connection_are_forgotten() {
        let gate = Gate::new("public", 10, 1);
        for last in 0..=255_u8 {
            assert!(gate.enter(IpAddr::from([192, 0, 2, last])).is_ok());
        }
        assert_eq!(gate.lock().by_address.len(), 0);
    }

    #[test]
    fn being_out_of_descriptors_is_not_taken_for_a_clients_fault() {
        assert!(!is_the_clients(&io::Error::from_raw_os_error(24)));
        assert!(is_the_clients(&io::Error::from(io::ErrorKind::ConnectionAborted)));
    }
}
