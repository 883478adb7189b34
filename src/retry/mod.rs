//! When to try again, pure: a decision is a function of what happened and of the time that is passed in.
#![warn(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

pub mod backoff;
pub mod budget;
pub mod renewal;
