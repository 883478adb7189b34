//! The load and the arithmetic of `tests/bench/run`: each command does one part and prints one JSON object.
//!
//! Parts: requests signed beforehand for wrk ([`make`]), a run of wrk with what the servers used ([`closed`]), the open loop
//! ([`open`]) beside the disk's own sync ([`disk`]), growth to millions of keys ([`growth`]), waiting for the gateway
//! ([`gateway`]), and the table ([`report`]). See `tests/bench/README.md`.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measuring client has sockets and a clock of its own"
)]
#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "figures for people: ratios of what was counted")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that prints its findings")]

mod closed;
mod device;
mod disk;
mod event;
mod figures;
mod gateway;
mod growth;
mod make;
mod open;
mod process;
mod report;
mod wire;

use std::process::ExitCode;

use clap::Parser;

/// Parts of tests/bench/run; see its README.
#[derive(Parser)]
enum Command {
    /// Write items.csv for the gateway and print the source's table for its configuration
    Source(make::SourceArgs),
    /// Write signed requests for wrk into files, one a thread
    Make(make::Args),
    /// Closed loop: run wrk, count what the servers use meanwhile
    Closed(closed::Args),
    /// Open loop: a fixed schedule, times from the scheduled moment
    Open(open::Args),
    /// Time of writing 4 KiB and fdatasync, by itself
    Disk(disk::Args),
    /// Deliver until so many ids are remembered; the rate in each slice
    Growth(growth::Args),
    /// Wait until the gateway is ready, say when
    Ready(gateway::ReadyArgs),
    /// Add to a row what the gateway used until it had ended
    Ended(closed::EndedArgs),
    /// What processes and their descendants have used so far
    Usage(process::Args),
    /// Print free ports of this machine
    Ports(gateway::PortsArgs),
    /// Tables and one JSON object from the rows; fails when a figure is under its floor
    Report(report::Args),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Source(args) => make::source(&args),
        Command::Make(args) => make::run(&args),
        Command::Closed(args) => closed::run(&args),
        Command::Open(args) => open::run(&args),
        Command::Disk(args) => disk::run(&args),
        Command::Growth(args) => growth::run(&args),
        Command::Ready(args) => gateway::ready(&args),
        Command::Ended(args) => closed::ended(&args),
        Command::Usage(args) => process::run(&args),
        Command::Ports(args) => gateway::ports(&args),
        Command::Report(args) => report::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench-load: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What went wrong, in a sentence.
type Failure = String;

/// `path: why`.
fn at<E: std::fmt::Display>(path: &std::path::Path) -> impl Fn(E) -> Failure + '_ {
    move |why| format!("{}: {why}", path.display())
}
