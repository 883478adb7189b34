//! `stockgate man`: the manual, one page a command, in roff.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::client::{Failure, finish};
use super::code;
use super::output::print;

/// Print the manual pages of all commands (roff).
///
/// To read it: stockgate man | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write them into this directory instead, one file a page: stockgate.1, stockgate-serve.1 ..
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    let pages = pages().map_err(|error| Failure::new(code::FAILURE, error.to_string()));
    finish(pages.and_then(|pages| match &args.out {
        None => Ok(print(&pages.into_iter().map(|page| page.roff).collect::<String>())),
        Some(directory) => write(&pages, directory),
    }))
}

/// A page of the manual.
pub(super) struct Page {
    /// Its file, such as `stockgate-dead-list.1`.
    pub(super) file: String,
    pub(super) roff: String,
}

fn write(pages: &[Page], directory: &Path) -> Result<ExitCode, Failure> {
    let attempt = |path: &Path, result: io::Result<()>| {
        result.map_err(|error| Failure::new(code::FAILURE, format!("{} cannot be written: {error}", path.display())))
    };
    attempt(directory, fs::create_dir_all(directory))?;
    for page in pages {
        let path = directory.join(&page.file);
        attempt(&path, fs::write(&path, &page.roff))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pages of all commands, each before those of its subcommands.
pub(super) fn pages() -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut command = super::command().disable_help_subcommand(true);
    // gives every subcommand its full name
    command.build();
    render(&command, &mut pages)?;
    Ok(pages)
}

fn render(command: &clap::Command, pages: &mut Vec<Page>) -> io::Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    let mut roff = Vec::new();
    man.render(&mut roff)?;
    pages.push(Page { file: man.get_filename(), roff: String::from_utf8_lossy(&roff).into_owned() });
    command.get_subcommands().filter(|sub| sub.get_name() != "help").try_for_each(|sub| render(sub, pages))
}
