//! Boundary tests: the real binary over real sockets, and the shape of the house.

mod lockfile;
mod rust_source;
mod tidy;
