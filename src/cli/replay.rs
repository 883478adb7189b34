//! `stockgate replay`: fold the journal once more and compare the result with the state, row by row.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::code::{FAILURE, UNAVAILABLE};
use crate::limits::{JOURNAL_CACHE_BYTES, STATE_CACHE_BYTES};
use crate::pipeline::apply::refold;
use crate::store::journal::Journal;
use crate::store::state::{Difference, State};
use crate::store::{StoreError, copy_file, snapshot_path, state_path};

/// Fold the journal again and compare with the state: `same`, or where they first differ.
///
/// Works on the files of a stopped gateway and changes nothing in them; a copy is made in the data directory and removed
/// again. Begins at the journal's first record, or at the last snapshot when older records have aged out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Data directory
    #[arg(long, value_name = "DIR", default_value = "stockgate-data")]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Replayed {
    same: bool,
    /// Records folded again.
    records: u64,
    /// The first of them.
    from: u64,
    /// The journal record up to which both were folded.
    to: u64,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_difference: Option<Where>,
    /// Journal records that damage has taken, in sentences: a state that had folded them differs from a replay without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<String>,
}

#[derive(Serialize)]
struct Where {
    table: String,
    key: String,
    state: Option<String>,
    replay: Option<String>,
}

impl From<Difference> for Where {
    fn from(d: Difference) -> Self {
        Self { table: d.table, key: d.key, state: d.ours, replay: d.theirs }
    }
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    if !state_path(&args.data).exists() {
        eprintln!("stockgate: {} holds no state: give the gateway's data directory with --data", args.data.display());
        return ExitCode::from(FAILURE);
    }
    let scratch = args.data.join("replay");
    let result = std::fs::create_dir_all(&scratch)
        .map_err(|error| StoreError::Io(format!("{}: {error}", scratch.display())))
        .and_then(|()| replay(&args.data, &scratch));
    if let Err(error) = std::fs::remove_dir_all(&scratch) {
        eprintln!("warning: {} could not be removed: {error}", scratch.display());
    }
    match result {
        Ok(replayed) => {
            show(&replayed, args.json);
            if replayed.same { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
        }
        Err(error) => {
            eprintln!("stockgate: {error}");
            ExitCode::from(if matches!(error, StoreError::Locked(_)) { UNAVAILABLE } else { FAILURE })
        }
    }
}

fn replay(data: &Path, scratch: &Path) -> Result<Replayed, StoreError> {
    let state = State::open(data, STATE_CACHE_BYTES)?;
    let to = state.meta.cursor;
    let journal = Journal::open(data, JOURNAL_CACHE_BYTES, to)?;
    if journal.oldest() > 1 {
        let snapshot = snapshot_path(data);
        if !snapshot.exists() {
            let why = format!(
                "the journal begins at record {} and there is no snapshot of what came before: nothing to compare from",
                journal.oldest()
            );
            return Err(StoreError::Io(why));
        }
        copy_file(&snapshot, &state_path(scratch))?;
    }
    let mut again = State::open(scratch, STATE_CACHE_BYTES)?;
    let from = again.meta.cursor + 1;
    let reached = refold(&journal, &mut again, to)?;
    let difference = state.first_difference(&again)?;
    Ok(Replayed {
        same: difference.is_none() && reached == to,
        records: (to + 1).saturating_sub(from),
        from,
        to: reached,
        digest: data_encoding::HEXLOWER.encode(&state.digest()?),
        first_difference: difference.map(Where::from),
        lost: journal.lost().iter().map(ToString::to_string).collect(),
    })
}

fn show(replayed: &Replayed, json: bool) {
    if json {
        match serde_json::to_string_pretty(replayed) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("stockgate: {error}"),
        }
        return;
    }
    for lost in &replayed.lost {
        println!("{lost}");
    }
    match &replayed.first_difference {
        None if replayed.same => {
            println!("same: records {} to {} give this state, digest {}", replayed.from, replayed.to, replayed.digest);
        }
        None => println!("different: the journal ends at record {}, before what the state has folded", replayed.to),
        Some(at) => println!(
            "different: first in table {} at {}: the state has {}, the replay has {}",
            at.table,
            at.key,
            at.state.as_deref().unwrap_or("nothing"),
            at.replay.as_deref().unwrap_or("nothing")
        ),
    }
}
