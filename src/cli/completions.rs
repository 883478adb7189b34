//! `stockgate completions`: what a shell completes.

use std::process::ExitCode;

use clap::ValueEnum;
use clap_complete::{Shell as Generator, generate};

use super::output::print;

/// Print a shell's completion script.
///
/// For bash: stockgate completions bash > /etc/bash_completion.d/stockgate
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    print(&script(args.shell))
}

pub(super) fn script(shell: Shell) -> String {
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    generate(generator, &mut super::command(), "stockgate", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
