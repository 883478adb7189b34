//! stockgate: an inventory gateway for a warehouse. (The picture and the invariants come here.)

pub mod config;
pub mod limits;
pub mod metrics;
pub mod sources;
pub mod stock;
pub mod time;
pub mod types;
