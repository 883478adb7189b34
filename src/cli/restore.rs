//! `stockgate restore`: make a data directory of a backup, once everything about it is seen to be right.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::backup::failed;
use super::client::{Failure, finish};
use super::{code, output};
use crate::limits::{JOURNAL_CACHE_BYTES, STATE_CACHE_BYTES};
use crate::pipeline::apply::refold;
use crate::store::backup::{BackupError, Manifest, Restored, check, unpack};
use crate::store::journal::Journal;
use crate::store::state::{State, Verifier};
use crate::store::{copy_file, snapshot_path, state_path};

/// Make a data directory of a backup, after it has been verified.
///
/// Every file's SHA-256 is compared with the manifest, both stores are built apart, the journal is folded to its end, the
/// ledger's chain of hashes is walked and every level compared with it. Only then is anything moved into place. Nothing is
/// overwritten: the data directory must be empty.
///
/// What the gateway acknowledged after the backup is not in it. Put configuration, secrets and certificates back, too.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Data directory, empty or not there yet
    #[arg(long, value_name = "DIR", default_value = "stockgate-data")]
    data: PathBuf,
    /// Only compare every file with the manifest; write nothing
    #[arg(long, conflicts_with = "data")]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// False with --check.
    restored: bool,
    /// When the backup was made.
    at: String,
    /// Bytes of its files.
    bytes: u64,
    /// Journal records up to here are folded.
    cursor: u64,
    /// Last ledger number.
    ledger: u64,
    /// Levels, all warehouses together.
    levels: u64,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(restore(args))
}

fn restore(args: &Args) -> Result<ExitCode, Failure> {
    let manifest = check(&args.directory).map_err(|e| failed(&e))?;
    let report = if args.check { checked(&manifest) } else { accept(args, &manifest)? };
    let text = if args.json {
        serde_json::to_string(&report).map(|text| text + "\n").map_err(|e| Failure::new(code::FAILURE, e.to_string()))?
    } else {
        render(args, &report)
    };
    Ok(output::print(&text))
}

fn checked(manifest: &Manifest) -> Report {
    let (at, bytes) = (manifest.at.clone(), manifest.bytes());
    Report { restored: false, at, bytes, cursor: manifest.cursor, ledger: manifest.ledger, levels: 0 }
}

fn accept(args: &Args, manifest: &Manifest) -> Result<Report, Failure> {
    let target = Restored::prepare(&args.data).map_err(|e| failed(&e))?;
    let scratch = target.scratch();
    unpack(&args.directory, manifest, &scratch).map_err(|e| failed(&e))?;
    let report = prove(manifest, &scratch)?;
    target.accept().map_err(|e| failed(&e))?;
    Ok(report)
}

fn refused(why: &str) -> Failure {
    Failure::new(code::FAILURE, format!("{why}: nothing was restored"))
}

/// What was built is what the manifest says, folds to the journal's end, and explains itself.
fn prove(manifest: &Manifest, data: &Path) -> Result<Report, Failure> {
    let store = |error| failed(&BackupError::Store(error));
    // older raw records have aged out: what they had come to begins here, as after retention
    if manifest.journal.map_or(manifest.cursor + 1, |span| span.first) > 1 {
        copy_file(&state_path(data), &snapshot_path(data)).map_err(store)?;
    }
    let mut state = State::open(data, STATE_CACHE_BYTES).map_err(store)?;
    let link = data_encoding::HEXLOWER.encode(&state.meta.link);
    if (state.meta.cursor, state.meta.ledger, &link) != (manifest.cursor, manifest.ledger, &manifest.link) {
        return Err(refused(&format!(
            "the tables are those of record {}, ledger {}, link {link}; the manifest says record {}, ledger {}, link {}",
            state.meta.cursor, state.meta.ledger, manifest.cursor, manifest.ledger, manifest.link
        )));
    }
    let journal = Journal::open(data, JOURNAL_CACHE_BYTES, manifest.cursor).map_err(store)?;
    if let Some(span) = manifest.journal
        && (journal.oldest(), journal.head()) != (span.first, span.last.max(manifest.cursor))
    {
        return Err(refused(&format!("the journal has records {} to {}", journal.oldest(), journal.head())));
    }
    let cursor = refold(&journal, &mut state, journal.head()).map_err(store)?;
    let verified = Verifier::all(&state).map_err(store)?;
    if !verified.problems.is_empty() {
        return Err(refused(&verified.problems.join("\n")));
    }
    let levels = verified.positions;
    Ok(Report {
        restored: true,
        at: manifest.at.clone(),
        bytes: manifest.bytes(),
        cursor,
        ledger: state.meta.ledger,
        levels,
    })
}

fn render(args: &Args, report: &Report) -> String {
    let backup = args.directory.display();
    if !report.restored {
        return format!("ok: {backup} is whole, {}, made at {}\n", output::size(report.bytes), report.at);
    }
    format!(
        "restored {backup}, made at {}, to {}: {} levels, ledger 1 to {}, the chain is whole\n\
         what was acknowledged after that moment is not in it: let the platforms send it again where they can\n\
         configuration, secrets and certificates are not in a backup: put them back before the start\n",
        report.at,
        args.data.display(),
        report.levels,
        report.ledger
    )
}
