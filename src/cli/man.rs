//! `stockgate man`: the manual, one page a command, in roff.

use std::io;
use std::process::ExitCode;

use super::client::{Failure, finish};
use super::code;
use super::output::print;

/// Print the manual pages of all commands (roff).
///
/// To read it: stockgate man | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Run it.
pub(super) fn run(_args: &Args) -> ExitCode {
    finish(pages().map(|pages| print(&pages)).map_err(|error| Failure::new(code::FAILURE, error.to_string())))
}

pub(super) fn pages() -> io::Result<String> {
    let mut pages = Vec::new();
    let mut command = super::command().disable_help_subcommand(true);
    // gives every subcommand its full name
    command.build();
    render(&command, &mut pages)?;
    Ok(String::from_utf8_lossy(&pages).into_owned())
}

/// A command's page, then those of its subcommands.
fn render(command: &clap::Command, pages: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(pages)?;
    command.get_subcommands().filter(|sub| sub.get_name() != "help").try_for_each(|sub| render(sub, pages))
}
