//! Boundary tests: the real binary over real sockets, and the shape of the house.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, measures its own patience, and is the client of the sockets"
)]

mod access;
mod backup;
mod demo;
mod disk;
mod doctor;
mod durability;
mod gateway;
mod hostile;
mod http;
mod items;
mod load;
mod lockfile;
mod native;
mod operator;
mod process;
mod raw;
mod reload;
mod rust_source;
mod service;
mod start;
mod tidy;
mod watching;
