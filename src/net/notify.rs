//! Messages to the service manager that started this process, by the protocol of sd_notify(3).
//!
//! One datagram a message: lines `KEY=value`, to the Unix socket that `NOTIFY_SOCKET` names by its path or, with `@` in front, by
//! its name in the abstract namespace. Nothing is answered. The socket is looked up for each message, so that a manager that was
//! restarted hears the next one.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::limits::NOTIFY_TIMEOUT;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Notify {
    /// Get ready to send to what `NOTIFY_SOCKET` says. Fails for addresses of other kinds (`vsock:`), which only virtual machines
    /// have; nothing is sent yet.
    pub fn new(address: &OsStr) -> io::Result<Self> {
        let to = match address.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
        Ok(Self { socket, to })
    }

    /// Send a message: lines without a line end after the last one.
    pub fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    #[test]
    fn both_kinds_of_address_are_reached_also_after_the_manager_came_back() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("binds");
        let notify = Notify::new(path.as_os_str()).expect("a path");
        notify.send("READY=1\nSTATUS=well").expect("sent");
        assert_eq!(received(&manager), "READY=1\nSTATUS=well");
        drop(manager);
        std::fs::remove_file(&path).expect("removes");
        assert!(notify.send("WATCHDOG=1").is_err(), "nobody is there");
        let manager = UnixDatagram::bind(&path).expect("binds");
        notify.send("WATCHDOG=1").expect("sent");
        assert_eq!(received(&manager), "WATCHDOG=1");

        let name = format!("stockgate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("binds");
        Notify::new(OsStr::new(&format!("@{name}"))).expect("a name").send("STOPPING=1").expect("sent");
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn other_addresses_are_refused() {
        for address in ["", "@", "vsock:2:1", "notify"] {
            assert!(Notify::new(OsStr::new(address)).is_err(), "{address}");
        }
    }
}
