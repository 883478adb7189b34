//! `stockgate verify`: is the ledger whole, and do the levels follow from it?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::client::{Client, Failure, Reach, finish, read};
use super::{code, output};
use crate::limits::{JOURNAL_CACHE_BYTES, STATE_CACHE_BYTES};
use crate::store::journal::Journal;
use crate::store::state::{State, Verified, Verifier};
use crate::store::{StoreError, journal_path, state_path};

/// Verify the ledger: walk its chain of hashes and compare every level with it.
///
/// Asks the running gateway, which goes on working meanwhile. With --data it opens the files of a stopped one instead; when
/// they are in use, it asks the gateway after all.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Data directory of a stopped gateway
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    pub(super) entries: u64,
    pub(super) positions: u64,
    pub(super) problems: Vec<String>,
    /// Journal records that damage has taken, in sentences.
    pub(super) lost: Vec<String>,
}

impl From<Verified> for Report {
    fn from(verified: Verified) -> Self {
        let Verified { entries, positions, problems } = verified;
        Self { ok: problems.is_empty(), entries, positions, problems, lost: Vec::new() }
    }
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(verify(args))
}

fn verify(args: &Args) -> Result<ExitCode, Failure> {
    let report = match &args.data {
        Some(data) => in_files(data, &args.reach)?,
        None => ask(&args.reach)?,
    };
    let text = if args.json {
        serde_json::to_string(&report).map(|text| text + "\n").map_err(|e| Failure::new(code::FAILURE, e.to_string()))?
    } else {
        render(&report)
    };
    let printed = output::print(&text);
    Ok(if report.ok { printed } else { ExitCode::from(code::FAILURE) })
}

fn ask(reach: &Reach) -> Result<Report, Failure> {
    read(&Client::new(reach)?.get("/api/v1/verify")?)
}

/// The files of a stopped gateway; a directory without any is not given any.
pub(super) fn in_files(data: &Path, reach: &Reach) -> Result<Report, Failure> {
    let path = state_path(data);
    if !path.exists() {
        let message = format!("there is no {}; --data names the directory that `stockgate serve` keeps", path.display());
        return Err(Failure::new(code::FAILURE, message));
    }
    let look = |state: State| {
        let mut report = walk(&state)?;
        // a copy of the state alone has no journal, and is not given one
        if journal_path(data).exists() {
            let journal = Journal::open(data, JOURNAL_CACHE_BYTES, state.meta.cursor)?;
            report.lost = journal.lost().iter().map(ToString::to_string).collect();
        }
        Ok(report)
    };
    match State::open(data, STATE_CACHE_BYTES).and_then(look) {
        Ok(report) => Ok(report),
        Err(StoreError::Locked(file)) => {
            eprintln!("{} is in use: asking the gateway that runs", file.display());
            ask(reach)
        }
        Err(error) => Err(Failure::new(code::FAILURE, error.to_string())),
    }
}

pub(super) fn walk(state: &State) -> Result<Report, StoreError> {
    Verifier::all(state).map(Report::from)
}

pub(super) fn render(report: &Report) -> String {
    let walked = format!("{} ledger entries and {} levels", report.entries, report.positions);
    let mut out = if report.ok {
        format!("ok: {walked}, the chain is whole and every level follows from it\n")
    } else {
        format!("not ok: {walked} walked\n")
    };
    for problem in report.problems.iter().chain(&report.lost) {
        out.push_str(&format!("  {}\n", output::clean(problem)));
    }
    out
}
