//! Is what a power cut left whole?

use std::path::Path;
use std::sync::Arc;

use super::Random;
use super::workload::{CACHE, DATA, GENERATION, Life, levels};
use crate::pipeline::apply::refold;
use crate::stock::level::Value;
use crate::store::disk::Disk;
use crate::store::disk::lying::{Image, LyingDisk};
use crate::store::journal::Journal;
use crate::store::rows::PositionKey;
use crate::store::state::{State, Verifier};
use crate::store::{StoreError, open_state_on, state_path};
use crate::types::{Quantity, Seq};

/// Open an image as a start does, and look at everything that was promised about it.
pub(super) fn judge(image: Image, life: &Life, cut: usize, random: &mut Random) -> Result<(), String> {
    let lying = LyingDisk::holding(image);
    let disk: Arc<dyn Disk> = Arc::new(lying.clone());
    let (acked, sent) = (Life::at(&life.acked, cut), Life::at(&life.sent, cut));
    let recovered = recover(&disk).map_err(|error| format!("does not open: {error}"))?;
    let (mut state, journal) = recovered;
    let head = journal.head();
    if head < acked {
        return Err(format!("records up to {acked} were acknowledged, the journal ends at {head}"));
    }
    if head > sent {
        return Err(format!("the journal ends at {head}, only {sent} records were sent"));
    }
    let records = &life.records[..usize::try_from(head).expect("fits")];
    compare_journal(&journal, records, head)?;
    fold(&mut state, &journal, life, head)?;
    let found = Verifier::all(&state).map_err(|e| e.to_string())?;
    if !found.problems.is_empty() {
        return Err(format!("the ledger: {:?}", found.problems));
    }
    compare_levels(&state, records)?;
    if let Some(aside) = lying.now().names().find(|name| name.display().to_string().contains("damaged")) {
        return Err(format!("a power cut damages nothing, but there is {}", aside.display()));
    }
    // one in four: without its state, from the snapshot or from nothing
    if random.below(4) == 0 {
        drop((state, journal));
        disk.remove(&state_path(Path::new(DATA))).map_err(|e| e.to_string())?;
        let (mut state, journal) = recover(&disk).map_err(|error| format!("does not open again: {error}"))?;
        fold(&mut state, &journal, life, head).map_err(|why| format!("begun from the snapshot: {why}"))?;
    }
    Ok(())
}

/// What a start does, as far as it gets: on an image that a control made it may fail, which is judged afterwards.
pub(super) fn recover_and_fold(disk: &Arc<dyn Disk>) {
    if let Ok((mut state, journal)) = recover(disk) {
        drop(refold(&journal, &mut state, Seq::MAX));
    }
}

fn recover(disk: &Arc<dyn Disk>) -> Result<(State, Journal), StoreError> {
    let data = Path::new(DATA);
    let state = open_state_on(disk, data, CACHE, GENERATION)?;
    let journal = Journal::open_on(Arc::clone(disk), data, CACHE, state.meta.cursor)?;
    Ok((state, journal))
}

/// Every record that the journal keeps is the one that was sent under its number, and none is missing.
fn compare_journal(journal: &Journal, records: &[super::workload::Sent], head: Seq) -> Result<(), String> {
    let kept = journal.read(1, usize::MAX, usize::MAX).map_err(|e| e.to_string())?;
    let mut next = journal.oldest();
    for (seq, bytes) in &kept {
        if *seq != next {
            return Err(format!("record {next} is missing: {seq} comes instead"));
        }
        if records.get(usize::try_from(*seq - 1).expect("fits")).is_none_or(|sent| sent.bytes != *bytes) {
            return Err(format!("record {seq} is not what was sent"));
        }
        next += 1;
    }
    if next == head + 1 { Ok(()) } else { Err(format!("the journal says it ends at {head}, its records end before {next}")) }
}

/// Fold the journal's rest: the state is what a fold without a cut gives.
fn fold(state: &mut State, journal: &Journal, life: &Life, head: Seq) -> Result<(), String> {
    let begun = state.meta.cursor;
    let reached = refold(journal, state, Seq::MAX).map_err(|e| e.to_string())?;
    if reached != head {
        return Err(format!("folded from {begun} to {reached}, the journal ends at {head}"));
    }
    let digest = state.digest().map_err(|e| e.to_string())?;
    if digest == life.digests[usize::try_from(head).expect("fits")] {
        return Ok(());
    }
    Err(format!("the state after {head} records, folded from {begun} on, is another one"))
}

/// The levels are the sums of the deliveries, each taken once.
fn compare_levels(state: &State, records: &[super::workload::Sent]) -> Result<(), String> {
    for (sku, expected) in levels(records) {
        let warehouse = state.find_warehouse("hall").ok_or("the warehouse is gone")?;
        let key = PositionKey { warehouse, sku: format!("S{sku}").as_str().into() };
        let level = state.position(&key).map_err(|e| e.to_string())?.and_then(|position| position.effective);
        let expected = Value::Tracked(Quantity::from_units(expected).expect("small"));
        if level.map(|(_, value)| value) != Some(expected) {
            return Err(format!("the level of S{sku} is not {expected:?}"));
        }
    }
    Ok(())
}
