//! The command line: one file a command.
//!
//! Data goes to standard output, everything said about it to standard error. Exit codes (sysexits): 0 ok, 1 failure, 2 usage,
//! 69 unavailable, 75 try again, 78 configuration.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the part that talks to people")]

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

mod backup;
mod check;
mod client;
mod completions;
mod dead;
mod demo;
mod doctor;
mod drift;
mod explain;
mod known;
mod logging;
mod man;
mod output;
mod reload;
mod replay;
mod restore;
mod send;
mod serve;
mod sources;
mod stock;
mod token;
mod verify;
mod warehouses;

#[cfg(test)]
mod tests;

/// Exit codes beyond success and usage (`ExitCode::from` is not const for u8 on every toolchain we support).
mod code {
    pub(super) const FAILURE: u8 = 1;
    pub(super) const UNAVAILABLE: u8 = 69;
    pub(super) const TRY_AGAIN: u8 = 75;
    pub(super) const CONFIGURATION: u8 = 78;
}

/// What `--version` says: the version, and the source revision when the build knew it (cross/build tells it).
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    option_env!("STOCKGATE_REVISION").map_or_else(|| version.to_owned(), |revision| format!("{version} ({revision})"))
});

/// Inventory gateway: stock webhooks in, one level per warehouse and SKU that explains itself.
#[derive(Debug, Parser)]
#[command(name = "stockgate", version, long_version = VERSION.as_str(), about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands. Each is a module with `Args` and `run(&Args) -> ExitCode`, and one line below.
macro_rules! commands {
    ($($name:ident($module:ident)),* $(,)?) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($name($module::Args),)*
        }

        /// Run the command line of this process.
        pub fn main() -> ExitCode {
            match Cli::parse().command {
                $(Command::$name(args) => $module::run(&args),)*
            }
        }
    };
}

commands! {
    Serve(serve),
    Demo(demo),
    Send(send),
    Check(check),
    Stock(stock),
    Warehouses(warehouses),
    Explain(explain),
    Drift(drift),
    Sources(sources),
    Dead(dead),
    Verify(verify),
    Replay(replay),
    Backup(backup),
    Restore(restore),
    Doctor(doctor),
    Reload(reload),
    Token(token),
    Completions(completions),
    Man(man),
}

/// The command line as clap knows it: for completions and manual pages.
fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The exit code of a store that does not open or does not work.
fn store_code(error: &crate::store::StoreError) -> u8 {
    use crate::store::StoreError::{Damaged, Full, Io, Locked, Newer, Older, Row};
    match error {
        Locked(_) => code::UNAVAILABLE,
        Newer { .. } | Older { .. } => code::CONFIGURATION,
        Io(_) | Full(_) | Damaged { .. } | Row(_) => code::FAILURE,
    }
}

/// The process's environment.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
