//! What deliveries mean for stock: pure rules over values. No I/O, no clock, no `async`.

pub mod policy;
