//! What the gateway needs of a target's start files, C library and linker, without the gateway: built and run by tests/system/cross.

use std::net::ToSocketAddrs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2040-01-01T00:00:00Z: more than 31 bits of seconds.
const AFTER_2038: Duration = Duration::from_secs(2_208_988_800);

fn main() {
    let file = std::env::args().nth(1).expect("usage: probe FILE");

    let caught = std::panic::catch_unwind(|| assert!(file.is_empty(), "meant to be caught"));
    assert!(caught.is_err(), "a panic unwinds to where it is caught");
    let other = std::thread::spawn(|| panic!("in another thread"));
    assert!(other.join().is_err(), "and in another thread");

    let mut found = ("localhost", 443).to_socket_addrs().expect("localhost has an address");
    assert!(found.all(|address| address.ip().is_loopback()));

    let written = std::fs::File::create(&file).expect("the file can be made");
    written.set_modified(UNIX_EPOCH + AFTER_2038).expect("its time can be set");
    let read = std::fs::metadata(&file).and_then(|metadata| metadata.modified()).expect("its time can be read");
    assert_eq!(read, UNIX_EPOCH + AFTER_2038);
    assert!(SystemTime::now() > UNIX_EPOCH);
}
