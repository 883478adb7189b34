//! `stockgate doctor`: look at a data directory and the box it is on, and say what is wrong and what to do.
//!
//! [`look`] observes, [`checks`] judges: pure functions from what was seen to a finding, so that a full disk or a clock that was
//! set back can be tested without one.

mod checks;
mod look;
mod machine;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::client::{Failure, finish};
use super::{code, output};
use checks::{Finding, Status};

/// Look at the data directory and the box: what is wrong, and what to do about it.
///
/// Works beside a running gateway (it takes no lock) and without one. It writes 50 blocks of 4 KiB to a file of its own in the
/// data directory, to see how long the disk takes to store one; for a moment it binds the addresses of a gateway that does
/// not run. Run it as the gateway's user or as root. Exit code 1 when something fails.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file of the gateway; without one, what the gateway does without one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Admin API of the gateway, instead of the configured one
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Finding],
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(doctor(args))
}

fn doctor(args: &Args) -> Result<ExitCode, Failure> {
    let findings = look::everything(args);
    let ok = findings.iter().all(|finding| finding.status != Status::Fail);
    let text = if args.json {
        let report = Report { ok, checks: &findings };
        serde_json::to_string(&report).map(|text| text + "\n").map_err(|e| Failure::new(code::FAILURE, e.to_string()))?
    } else {
        render(&findings)
    };
    let printed = output::print(&text);
    Ok(if ok { printed } else { ExitCode::from(code::FAILURE) })
}

/// A line for each check, below it what to do, at the end how many.
fn render(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let seen = output::clean(&finding.seen);
        out.push_str(&format!("{:<4}  {:<width$}  {seen}\n", finding.status.word(), finding.check));
        if let Some(advice) = &finding.advice {
            out.push_str(&format!("{:>1$}{2}\n", "", width + 8, output::clean(advice)));
        }
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    out + &format!("{} ok, {} to look at, {} failed\n", count(Status::Ok), count(Status::Warn), count(Status::Fail))
}
