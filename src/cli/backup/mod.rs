//! `stockgate backup`: copy what the gateway holds into a directory, while it works.

mod origin;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::client::{Failure, Reach, finish};
use super::{code, output};
use crate::store::backup::{BackupError, Directory, Log, Manifest, Moment};
use origin::Origin;

/// Times that a backup begins anew when raw deliveries age out while it copies them.
const TRIES: u32 = 3;

/// Copy state and journal into a directory, while the gateway goes on working.
///
/// DIR is empty, or holds an earlier backup of this gateway: then only what is new is fetched. An interrupted backup goes on
/// when it is run again, and what was whole in DIR before stays whole until the new one is. Configuration, secrets and
/// certificates are not in it: keep those files as you keep other secrets.
///
/// With --data it reads the files of a stopped gateway instead; when they are in use, it asks the gateway after all.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to; files for the owner only, since deliveries hold customers' data
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Data directory of a stopped gateway
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Serialize)]
struct Report<'a> {
    directory: String,
    at: &'a str,
    cursor: u64,
    ledger: u64,
    link: &'a str,
    journal_first: u64,
    journal_last: u64,
    bytes: u64,
    written_bytes: u64,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(backup(args))
}

/// The failure of a backup or a restore.
pub(super) fn failed(error: &BackupError) -> Failure {
    let code = match error {
        BackupError::Newer(_) => code::CONFIGURATION,
        BackupError::Store(error) => super::store_code(error),
        BackupError::Refused(_) | BackupError::Damaged(_) => code::FAILURE,
    };
    Failure::new(code, error.to_string())
}

fn backup(args: &Args) -> Result<ExitCode, Failure> {
    // asked first: a directory is not begun for a gateway that does not answer
    let mut origin = origin::find(args.data.as_deref(), &args.reach)?;
    let (manifest, written) = copy(&mut *origin, &args.directory)?;
    let journal = manifest.journal;
    let report = Report {
        directory: args.directory.display().to_string(),
        at: &manifest.at,
        cursor: manifest.cursor,
        ledger: manifest.ledger,
        link: &manifest.link,
        journal_first: journal.map_or(0, |j| j.first),
        journal_last: journal.map_or(0, |j| j.last),
        bytes: manifest.bytes(),
        written_bytes: written,
    };
    let text = if args.json {
        serde_json::to_string(&report).map(|text| text + "\n").map_err(|e| Failure::new(code::FAILURE, e.to_string()))?
    } else {
        render(&report)
    };
    Ok(output::print(&text))
}

fn render(report: &Report<'_>) -> String {
    format!(
        "backed up to {}: journal records {} to {}, tables as of record {}; {}, {} of it written now\n",
        report.directory,
        report.journal_first,
        report.journal_last,
        report.cursor,
        output::size(report.bytes),
        output::size(report.written_bytes)
    )
}

fn copy(origin: &mut dyn Origin, to: &Path) -> Result<(Manifest, u64), Failure> {
    for _ in 0..TRIES {
        let mut directory = Directory::open(to).map_err(|e| failed(&e))?;
        for mended in directory.mended() {
            eprintln!("warning: {}; fetched again", output::clean(mended));
        }
        let moment = origin.begin()?;
        // the tables first: the gateway holds a moment for them
        let mut after = None;
        loop {
            let rows = origin.rows(after.as_ref())?;
            directory.append_rows(&rows).map_err(|e| failed(&e))?;
            let Some(last) = rows.last() else { break };
            after = Some((last.table.clone(), last.key.clone()));
        }
        let mut whole = true;
        for log in Log::ALL {
            whole = whole && copy_log(origin, &mut directory, log, &moment)?;
        }
        if whole {
            let written = directory.written();
            return directory.finish(&moment).map(|manifest| (manifest, written)).map_err(|e| failed(&e));
        }
    }
    let why = "raw deliveries age out faster than they are copied: raise [retention].bytes, or back up to something faster";
    Err(Failure::new(code::TRY_AGAIN, why))
}

/// Fetch what is missing of a log. False when rows that belong to the backup aged out before they were copied.
fn copy_log(origin: &dyn Origin, directory: &mut Directory, log: Log, moment: &Moment) -> Result<bool, Failure> {
    let foreign = |why: &str| {
        let why = format!(
            "{} {why}: it is a backup of another gateway, or of this one before a restore; give an empty directory",
            log.name()
        );
        Failure::new(code::FAILURE, why)
    };
    let (first, last) = (moment.first(log), moment.last(log));
    let mut next = first;
    let mut fetched = None;
    if let Some(held) = directory.last(log) {
        if held > last {
            return Err(foreign(&format!("goes to {held} in the backup and only to {last} here")));
        }
        // what is older has aged out here: it can no longer be compared, and leaves the backup when the rest of its file does
        if held >= first {
            let mut rows = origin.log(log, held)?;
            match rows.first() {
                Some((number, bytes)) if directory.same_history(log, *number, bytes) => drop(rows.remove(0)),
                // gone since: aged out, or lost with a damaged segment
                Some((number, _)) if *number > held && log == Log::Journal => {}
                _ => return Err(foreign(&format!("row {held} is another one in the backup"))),
            }
            next = held + 1;
            fetched = Some(rows).filter(|rows| !rows.is_empty());
        }
    }
    while next <= last {
        let mut rows = match fetched.take() {
            Some(rows) => rows,
            None => origin.log(log, next)?,
        };
        rows.retain(|(number, _)| *number <= last);
        let (Some((begin, _)), Some((end, _))) = (rows.first(), rows.last()) else { break };
        // a restore folds what comes after the tables: none of it may be missing, but for what the gateway itself has lost
        if log == Log::Journal && *begin > next && *begin > moment.cursor + 1 && origin.oldest()? > next {
            return Ok(false);
        }
        next = end + 1;
        directory.append(log, &rows).map_err(|e| failed(&e))?;
    }
    Ok(true)
}
