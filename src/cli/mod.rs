//! The command line: one file a command.
//!
//! Data goes to standard output, everything said about it to standard error. Exit codes (sysexits): 0 ok, 1 failure, 2 usage,
//! 69 unavailable, 75 try again, 78 configuration.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the part that talks to people")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;
mod logging;
mod replay;
mod send;
mod serve;

/// Exit codes beyond success and usage (`ExitCode::from` is not const for u8 on every toolchain we support).
mod code {
    pub(super) const FAILURE: u8 = 1;
    pub(super) const UNAVAILABLE: u8 = 69;
    pub(super) const TRY_AGAIN: u8 = 75;
    pub(super) const CONFIGURATION: u8 = 78;
}

/// Inventory gateway: stock webhooks in, one level per warehouse and SKU that explains itself.
#[derive(Debug, Parser)]
#[command(name = "stockgate", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Replay(replay::Args),
    Send(send::Args),
}

/// Run the command line of this process.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Send(args) => send::run(&args),
    }
}

/// The process's environment.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
