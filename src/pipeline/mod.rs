//! The stages. Each is a set of pure rules with its I/O around it; they are strangers to one another and meet in tables:
//! a crash between any two loses nothing, and "where is it now?" has an answer.
//!
//! - [`ingest`]: the public listener: authenticate, identify, append to the journal, answer.
//! - [`apply`]: the fold: journal records in, state out. The only writer of levels.
//! - [`fetch`]: fetch tasks in the state in, answers appended to the journal.
//! - [`retain`]: drops raw deliveries that are old and folded.
//! - [`certificate`]: keeps the public listener's certificate new: watches its files, or renews it by ACME.

pub mod apply;
pub mod certificate;
pub mod fetch;
pub mod ingest;
pub mod retain;
