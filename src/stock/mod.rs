//! The stock model, pure: what a report does to a position, whose number counts, what a warehouse adds up to, and the
//! chain that proves it.
//!
//! No I/O, no clock, no `async`, no floating point, no unchecked arithmetic. The fold (`pipeline::apply`) brings the rows
//! and stores the results.
#![warn(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm, clippy::cast_possible_truncation)]

pub mod audit;
pub mod level;
pub mod policy;
pub mod totals;
