//! `stockgate backup`: copy what the gateway holds into a directory, while it works.

mod origin;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::client::{Failure, Reach, finish};
use super::{code, output};
use crate::store::backup::{BackupError, Directory, Log, Manifest};
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
    let mut origin = Origin::find(args.data.as_deref(), &args.reach)?;
    let (manifest, written) = copy(&mut origin, args)?;
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
        "backed up to {}: journal records {} to {}, ledger 1 to {}; {} bytes, {} of them new\n",
        report.directory, report.journal_first, report.journal_last, report.ledger, report.bytes, report.written_bytes
    )
}

fn copy(origin: &mut Origin, args: &Args) -> Result<(Manifest, u64), Failure> {
    let mut tries = 1;
    loop {
        let mut directory = Directory::open(&args.directory).map_err(|e| failed(&e))?;
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
        let mut aged_out = false;
        for log in Log::ALL {
            aged_out |= !copy_log(origin, &mut directory, log, moment.first(log), moment.last(log))?;
        }
        let written = directory.written();
        if aged_out && tries < TRIES {
            tries += 1;
            continue;
        }
        return directory.finish(&moment).map(|manifest| (manifest, written)).map_err(|e| failed(&e));
    }
}

/// Fetch what is missing of a log up to `last`. False when rows went away before they were copied.
fn copy_log(origin: &mut Origin, directory: &mut Directory, log: Log, first: u64, last: u64) -> Result<bool, Failure> {
    let foreign = |why: &str| {
        let why = format!(
            "{} {why}: it is a backup of another gateway, or of this one before a restore; give an empty directory",
            log.name()
        );
        Failure::new(code::FAILURE, why)
    };
    let mut next = first;
    let mut fetched = None;
    if let Some(held) = directory.last(log) {
        if held > last {
            return Err(foreign(&format!("goes to {held} in the backup and only to {last} here")));
        }
        // what is older has aged out here: it can no longer be compared, and does not belong to the backup any more
        if held >= first {
            let mut rows = origin.log(log, held)?;
            match rows.first() {
                Some((number, bytes)) if directory.same_history(log, *number, bytes) => {}
                // removed since the moment was taken
                Some((number, _)) if *number > held && log == Log::Journal => return Ok(false),
                _ => return Err(foreign(&format!("row {held} is another one in the backup"))),
            }
            rows.remove(0);
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
        let Some((end, _)) = rows.last() else { break };
        next = end + 1;
        directory.append(log, &rows).map_err(|e| failed(&e))?;
    }
    Ok(true)
}
