//! What a checkpoint writes, taken out of the state in one piece, so that the fold goes on while it is written.
//!
//! From [`State::freeze`] on the state has three layers: what changed since, what is frozen, the file. Whoever looks something up asks
//! them in this order. [`State::written`] takes the middle one away, [`State::not_written`] makes it one with the first again. On a
//! memory card a checkpoint of many positions takes seconds, in which levels would stand still.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{Database, WriteTransaction};

use super::hot::Hot;
use super::item_maps::UnwrittenParts;
use super::log::Log;
use super::{
    AUDIT, ByBytes, ByNumber, DEAD, DEDUP_GENERATIONS, DEDUP_KEYS, DEDUP_LOG, IGNORED, ITEMS, LOCATIONS, Learnt, META,
    SOURCES, State, StoreError, TASKS, TOTALS, TaskKey, View, encode_learnt, files, runs,
};
use crate::limits::POSITIONS_CACHED;
use crate::store::dedup;
use crate::store::rows::{DeadLetter, encode_dead, encode_source, encode_task, encode_totals, source_key};
use crate::types::Seq;

/// What changed between two checkpoints. What is always in memory is here as rows.
#[derive(Clone)]
pub(super) struct Frozen {
    pub(super) positions: Hot,
    pub(super) audit: Log,
    pub(super) ignored: Log,
    pub(super) dead: BTreeMap<u64, Option<DeadLetter>>,
    pub(super) item_parts: UnwrittenParts,
    pub(super) dedup: dedup::Unwritten,
    tasks: BTreeMap<TaskKey, Option<Vec<u8>>>,
    items: LearntRows,
    locations: LearntRows,
    sources: Vec<Vec<u8>>,
    totals: Vec<Vec<u8>>,
    cursor: Seq,
    meta: Vec<u8>,
    records: u64,
    letters: usize,
}

/// Names that were learnt, and what each stands for.
type LearntRows = BTreeMap<(u16, Box<str>), Box<str>>;

/// A checkpoint that is still to be written, by any thread.
pub struct Unwritten {
    frozen: Arc<Frozen>,
    database: Arc<Database>,
}

impl Unwritten {
    /// Write everything, with the cursor, in one durable transaction.
    pub fn write(self) -> Result<(), StoreError> {
        crate::store::guarded(|| self.frozen.write(&self.database))
    }
}

impl State {
    /// Take what a checkpoint writes. [`State::written`] or [`State::not_written`] must follow before the next one.
    pub fn freeze(&mut self) -> Result<Unwritten, StoreError> {
        let database = Arc::clone(&files(self.files.as_ref())?.database);
        self.not_written();
        let task = |key: &TaskKey| self.tasks.get(key).map(encode_task);
        let frozen = Arc::new(Frozen {
            cursor: self.meta.cursor,
            meta: self.meta.encode(self.dedup.newest()),
            positions: std::mem::take(&mut self.positions),
            audit: self.audit.take(),
            ignored: self.ignored.take(),
            dead: std::mem::take(&mut self.dead),
            item_parts: std::mem::take(&mut self.item_parts),
            dedup: self.dedup.unwritten(),
            tasks: std::mem::take(&mut self.tasks_changed).into_iter().map(|key| (key.clone(), task(&key))).collect(),
            items: take_learnt(&mut self.items),
            locations: take_learnt(&mut self.locations),
            sources: self.source_rows.iter().map(encode_source).collect(),
            totals: self.totals.iter().map(encode_totals).collect(),
            records: std::mem::take(&mut self.records_since_checkpoint),
            letters: std::mem::take(&mut self.unwritten_letters),
        });
        self.changed = false;
        self.frozen = Some(Arc::clone(&frozen));
        Ok(Unwritten { frozen, database })
    }

    /// What was frozen is in the file.
    pub fn written(&mut self) -> Result<(), StoreError> {
        if let Some(files) = &mut self.files {
            files.view = View::open(&files.database, Some(&files.view))?;
        }
        let Some(frozen) = self.frozen.take() else { return Ok(()) };
        self.dedup.written(&frozen.dedup);
        for learnt in [&mut self.items, &mut self.locations] {
            if learnt.len() > POSITIONS_CACHED {
                learnt.retain(|_, (_, dirty)| *dirty);
            }
        }
        // somebody else may still hold it: then nothing is kept of it
        if let Some(frozen) = Arc::into_inner(frozen) {
            self.positions.go_on_from(frozen.positions, POSITIONS_CACHED);
        }
        Ok(())
    }

    /// What was frozen, if anything, could not be written: it is part of what changed again. Whether it reached the disk makes no
    /// difference to the next checkpoint.
    pub fn not_written(&mut self) {
        let Some(frozen) = self.frozen.take().map(Arc::unwrap_or_clone) else { return };
        self.positions.go_back_to(frozen.positions);
        self.audit.put_back(frozen.audit);
        self.ignored.put_back(frozen.ignored);
        let newer = std::mem::replace(&mut self.dead, frozen.dead);
        self.dead.extend(newer);
        self.item_parts.put_back(frozen.item_parts);
        self.dedup.not_written(frozen.dedup);
        self.tasks_changed.extend(frozen.tasks.into_keys());
        for (learnt, rows) in [(&mut self.items, frozen.items), (&mut self.locations, frozen.locations)] {
            for key in rows.into_keys() {
                if let Some((_, dirty)) = learnt.get_mut(&key) {
                    *dirty = true;
                }
            }
        }
        self.records_since_checkpoint += frozen.records;
        self.unwritten_letters += frozen.letters;
        self.changed = true;
    }

    /// Write everything that changed. The state stands still meanwhile.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        let written = self.freeze()?.write();
        match written {
            Ok(()) => self.written(),
            Err(error) => {
                self.not_written();
                Err(error)
            }
        }
    }
}

/// What was learnt since the last checkpoint. It stays where it was, too.
fn take_learnt(learnt: &mut Learnt) -> LearntRows {
    let mut rows = LearntRows::new();
    for (key, (known, dirty)) in learnt {
        if std::mem::take(dirty)
            && let Some(known) = known
        {
            rows.insert(key.clone(), known.clone());
        }
    }
    rows
}

impl Frozen {
    fn write(&self, database: &Database) -> Result<(), StoreError> {
        let mut write = database.begin_write()?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        self.put(&write)?;
        write.commit()?;
        Ok(())
    }

    fn put(&self, write: &WriteTransaction) -> Result<(), StoreError> {
        runs::put(write, self.cursor, self.positions.dirty())?;
        let mut table = write.open_table(AUDIT)?;
        for (first, block) in self.audit.changed() {
            table.insert(first, block)?;
        }
        let mut table = write.open_table(IGNORED)?;
        for (first, block) in self.ignored.changed() {
            table.insert(first, block)?;
        }
        let mut table = write.open_table(DEAD)?;
        for (id, letter) in &self.dead {
            match letter {
                Some(letter) => drop(table.insert(id, encode_dead(letter).as_slice())?),
                None => drop(table.remove(id)?),
            }
        }
        let mut table = write.open_table(TASKS)?;
        for ((source, name), row) in &self.tasks {
            let key = source_key(*source, name);
            match row {
                Some(row) => drop(table.insert(key.as_slice(), row.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
        put_learnt(write, ITEMS, &self.items)?;
        put_learnt(write, LOCATIONS, &self.locations)?;
        self.item_parts.write(write)?;
        put_numbered(write, SOURCES, &self.sources)?;
        put_numbered(write, TOTALS, &self.totals)?;
        let (mut log, mut keys) = (write.open_table(DEDUP_LOG)?, write.open_table(DEDUP_KEYS)?);
        let mut generations = write.open_table(DEDUP_GENERATIONS)?;
        self.dedup.rows(|table, key, row| {
            let table = match table {
                dedup::Table::Log => &mut log,
                dedup::Table::Keys => &mut keys,
                dedup::Table::Generations => &mut generations,
            };
            match row {
                Some(row) => drop(table.insert(key, row)?),
                None => drop(table.remove(key)?),
            }
            Ok(())
        })?;
        write.open_table(META)?.insert("state", self.meta.as_slice())?;
        Ok(())
    }
}

fn put_learnt(write: &WriteTransaction, table: ByBytes, learnt: &LearntRows) -> Result<(), StoreError> {
    let mut table = write.open_table(table)?;
    for ((source, name), known) in learnt {
        table.insert(source_key(*source, name).as_slice(), encode_learnt(known).as_slice())?;
    }
    Ok(())
}

fn put_numbered(write: &WriteTransaction, table: ByNumber, rows: &[Vec<u8>]) -> Result<(), StoreError> {
    let mut table = write.open_table(table)?;
    for (number, row) in (0..).zip(rows) {
        table.insert(number, row.as_slice())?;
    }
    Ok(())
}
