//! stockgate: an inventory gateway for a warehouse. (The picture and the invariants come here.)

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod pipeline;
pub mod retry;
pub mod simulator;
pub mod sources;
pub mod stock;
pub mod store;
pub mod time;
pub mod types;
