//! Damage: a segment that cannot be read is set aside, and one with everything that it still gives takes its place.
//!
//! The new file is made whole first; then the old one is renamed to `<first>.damaged-<k>` and the new one gets its name. A
//! power cut between the two leaves a damaged file without its segment, and the next start mends again from that. What could
//! not be read is written into the new file, so that it can be told for as long as the segment is kept; retention removes
//! both. Numbers are never given twice: a mended newest segment goes on above every number that may have been given.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use redb::ReadableDatabase;

use super::find::{Found, each, newest_record, record_time};
use super::log::Log;
use super::newest::Newest;
use super::salvage::{self, Lost};
use super::{BLOCKS, OLD_SEGMENT_CACHE_BYTES, Segment, Shared, block};
use crate::limits::JOURNAL_BATCH_RECORDS;
use crate::store::disk::{self, Disk, Reader};
use crate::store::{META, StoreError, guarded, is_damage, open, open_reader, open_whole};
use crate::time::Timestamp;
use crate::types::Seq;

/// A segment that is being put together from what another one still gives.
const MENDED: &str = "mended.unfinished";
/// The row of `meta` that says what a mended segment has lost.
pub(super) const LOST: &str = "lost";

/// An older segment, open to be read.
pub(super) struct Older(Option<Reader>);

impl Older {
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, StoreError> {
        match open_reader(disk, path, OLD_SEGMENT_CACHE_BYTES) {
            // a segment is not newer than the one that is written
            Err(newer @ StoreError::Newer { .. }) => Err(StoreError::Row(newer.to_string())),
            opened => Ok(Self(Some(opened?))),
        }
    }

    pub(super) fn database(&self) -> &dyn ReadableDatabase {
        &**self.0.as_ref().expect("taken when it is dropped")
    }
}

impl Drop for Older {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::debug!("a damaged segment was not closed cleanly");
        }
    }
}

/// What a mended segment says that it has lost.
fn lost_in(database: &dyn ReadableDatabase) -> Result<Vec<Lost>, StoreError> {
    let read = database.begin_read()?;
    let table = read.open_table(META)?;
    table.get(LOST)?.map_or_else(|| Ok(Vec::new()), |row| salvage::decode(row.value()))
}

/// The first numbers from `begin` up to, not including, `end` that are neither found nor known to be lost.
fn unexplained(found: impl Iterator<Item = Seq>, begin: Seq, end: Seq, lost: &[Lost]) -> Option<Seq> {
    let mut next = begin;
    for seq in found.filter(|seq| *seq >= begin).chain([end]) {
        while next < seq {
            match lost.iter().find(|lost| (lost.from..=lost.to).contains(&next)) {
                Some(lost) => next = lost.to + 1,
                None => return Some(next),
            }
        }
        next = next.max(seq + 1);
    }
    None
}

impl Shared {
    pub(super) fn losses(&self) -> MutexGuard<'_, BTreeMap<Seq, Vec<Lost>>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost_of(&self, first: Seq) -> Vec<Lost> {
        self.losses().get(&first).cloned().unwrap_or_default()
    }

    /// The damaged files in the journal's directory: the segment of each, and its name.
    pub(super) fn damaged(&self) -> Result<Vec<(Seq, PathBuf)>, StoreError> {
        let files = self.disk.list(&self.directory).map_err(|e| self.io(&e))?;
        let of = |name: &str| name.split_once(".damaged-")?.0.parse().ok();
        Ok(files.iter().filter_map(|file| Some((of(&file.name)?, self.directory.join(&file.name)))).collect())
    }

    /// Finish what a power cut kept from being mended, and learn what was lost earlier.
    pub(super) fn look_for_damage(&self, segments: &mut Vec<Segment>) -> Result<(), StoreError> {
        let mut damaged = self.damaged()?;
        self.repairs.store(damaged.len() as u64, Ordering::Relaxed);
        damaged.sort();
        damaged.dedup_by_key(|(first, _)| *first);
        for (first, _) in damaged {
            let at = match segments.binary_search_by_key(&first, |s| s.first) {
                Ok(at) => at,
                Err(at) => {
                    let end = segments.get(at).map(|s| s.first);
                    self.mend(first, end, &"a power cut kept it from being mended")?;
                    let bytes = disk::bytes(&*self.disk, &self.path_of(first));
                    segments.insert(at, Segment { first, bytes, newest: None });
                    at
                }
            };
            // the newest one is looked at when it is opened
            if let Some(next) = segments.get(at + 1) {
                let lost = guarded(|| lost_in(Older::open(&*self.disk, &self.path_of(first))?.database()));
                match lost {
                    Ok(lost) => drop(self.losses().insert(first, lost)),
                    Err(error) if is_damage(&error) => self.mend(first, Some(next.first), &error)?,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Open the newest segment, mended when it must be. It is the one that is written, so all of it is checked: redb believes
    /// a file that was closed cleanly, and would hand out pages that are in use when its notes about them are damaged.
    pub(super) fn open_newest(&self, first: Seq) -> Result<Newest, StoreError> {
        let open = || {
            let mut slot = None;
            let lost = guarded(|| {
                // the segment first: it says whose it is, and in which form
                let database = open_whole(&*self.disk, &self.path_of(first), self.cache)?;
                let (log, rows) = self.open_log(|file| Log::open(file, first))?;
                let newest = slot.insert(Newest::recover(first, database, log, self.log_path(), rows)?);
                let database = newest.database();
                let lost = lost_in(database)?;
                let begin = first.max(self.floor.saturating_add(1));
                // not the records themselves, which would be all of a segment in memory
                let mut found = Vec::new();
                each(database, begin, Seq::MAX, &mut |seq, _| {
                    found.push(seq);
                    false
                })?;
                let end = newest_record(database)?.map_or(begin, |(seq, _)| seq + 1);
                match unexplained(found.into_iter(), begin, end, &lost) {
                    Some(seq) => Err(StoreError::Row(format!("record {seq} is missing"))),
                    None => Ok(lost),
                }
            });
            if lost.is_err() {
                // a database over a damaged file may panic once more as it goes
                let closed = guarded(|| {
                    drop(slot.take());
                    Ok(())
                });
                if closed.is_err() {
                    tracing::debug!("a damaged segment was not closed cleanly");
                }
            }
            Ok::<_, StoreError>((slot, lost?))
        };
        let (newest, lost) = match open() {
            Err(error) if is_damage(&error) => {
                self.mend(first, None, &error)?;
                open()?
            }
            other => other?,
        };
        self.next.store(lost.iter().map(|lost| lost.to + 1).max().unwrap_or(0), Ordering::Release);
        if !lost.is_empty() {
            self.losses().insert(first, lost);
        }
        Ok(newest.expect("it is there when nothing failed"))
    }

    /// Read from an older segment, which ends before `end`; mend it when it cannot be read. True when it is enough.
    pub(super) fn read_older(&self, first: Seq, end: Seq, from: Seq, found: &mut Found) -> Result<bool, StoreError> {
        let begin = from.max(first);
        let (records, size) = (found.records.len(), found.size);
        let mut mended = false;
        loop {
            let mut used = None;
            let read = guarded(|| {
                // aged out since the list of segments was made
                let Some(database) = self.older(first)? else { return Ok(false) };
                used = Some(Arc::clone(&database));
                let done = each(database.database(), begin, Seq::MAX, &mut |seq, bytes| found.take(seq, bytes))?;
                let read = found.records.get(records..).unwrap_or_default();
                let until = if done { read.last().map_or(begin, |(seq, _)| seq + 1) } else { end };
                let mut lost = self.lost_of(first);
                if lost.is_empty() && unexplained(read.iter().map(|(seq, _)| *seq), begin, until, &[]).is_some() {
                    // one that was restored from a backup says for itself what it lacks
                    lost = lost_in(database.database())?;
                    self.losses().insert(first, lost.clone());
                }
                match unexplained(read.iter().map(|(seq, _)| *seq), begin, until, &lost) {
                    Some(seq) => Err(StoreError::Row(format!("record {seq} is missing"))),
                    None => Ok(done),
                }
            });
            match read {
                Err(error) if is_damage(&error) && !mended => {
                    (mended, found.size) = (true, size);
                    found.records.truncate(records);
                    self.mend_older(first, end, used, &error)?;
                }
                other => return other,
            }
        }
    }

    /// Time of the newest record of an older segment, which ends before `end`.
    pub(super) fn newest_in(&self, first: Seq, end: Seq) -> Result<Timestamp, StoreError> {
        let read = || {
            guarded(|| {
                let Some(database) = self.older(first)? else { return Ok(None) };
                newest_record(database.database())
            })
        };
        let newest = match read() {
            Err(error) if is_damage(&error) => {
                // reading all of it mends it
                self.read_older(first, end, first, &mut Found::up_to(usize::MAX, usize::MAX))?;
                read()?
            }
            other => other?,
        };
        Ok(newest.map(|(_, bytes)| record_time(&bytes)).unwrap_or_default())
    }

    /// Mend an older segment, unless somebody else has done so since it was read.
    fn mend_older(&self, first: Seq, end: Seq, used: Option<Arc<Older>>, why: &StoreError) -> Result<(), StoreError> {
        let mut open = self.older_open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|(f, _)| *f == first) {
            let (_, there) = open.remove(at);
            if !used.as_ref().is_some_and(|used| Arc::ptr_eq(used, &there)) {
                open.push((first, there));
                return Ok(());
            }
        }
        drop(used);
        if self.disk.length(&self.path_of(first)).map_err(|e| self.io(&e))?.is_some() {
            self.mend(first, Some(end), why)?;
            // opened under the lock, so that who waits for it finds it
            open.push((first, Arc::new(Older::open(&*self.disk, &self.path_of(first))?)));
        }
        Ok(())
    }

    /// Put a segment in the place of a damaged one. `end`: where the next segment begins; `None` for the newest.
    fn mend(&self, first: Seq, end: Option<Seq>, why: &dyn std::fmt::Display) -> Result<(), StoreError> {
        let path = self.path_of(first);
        let there = self.disk.length(&path).map_err(|e| self.io(&e))?.is_some();
        let source = if there {
            path.clone()
        } else {
            let last = self.damaged()?.into_iter().rev().find(|(f, _)| *f == first);
            last.ok_or_else(|| StoreError::Row(format!("{} is gone", path.display())))?.1
        };
        tracing::error!(file = %source.display(), %why, "a journal segment is damaged: what can be read of it is kept");
        let file = self.disk.salvage(&source).map_err(|e| self.io(&e))?;
        // far from where numbers end: what stands in a damaged page is added to
        let mut salvaged = salvage::scan(&file, first, end.unwrap_or(Seq::MAX / 2));
        drop(file);
        if end.is_none() {
            let (_, rows) = self.open_log(|file| Log::open(file, first))?;
            salvaged.add(&rows);
        }
        let proved = salvaged.records.keys().next_back().copied().unwrap_or(first - 1);
        let last = end.map_or(proved.max(self.floor), |end| end - 1);
        let found = salvaged.records.iter().map(|(seq, record)| (*seq, record.as_slice()));
        let mut lost = salvage::missing(found, first, last);
        let known = self.lost_of(first);
        for lost in &mut lost {
            // numbers that were left out when this was the newest segment
            lost.certain = !known.iter().any(|k| !k.certain && (k.from, k.to) == (lost.from, lost.to));
        }
        if end.is_none() {
            // what the last commit held may be unreadable down to its numbers
            let to = salvaged.highest.max(last) + JOURNAL_BATCH_RECORDS as u64;
            let after = salvaged.records.values().next_back().map(|record| record_time(record));
            lost.push(Lost { from: last + 1, to, after, before: None, certain: false });
        }
        self.write_mended(&self.directory.join(MENDED), &salvaged.records, &lost)?;
        if there {
            let aside = disk::set_aside(&*self.disk, &path)?;
            self.repairs.fetch_add(1, Ordering::Relaxed);
            tracing::error!(aside = %aside.display(), "the damaged segment is set aside");
        }
        self.disk.rename(&self.directory.join(MENDED), &path).map_err(|e| self.io(&e))?;
        self.sync_directory()?;
        let told = |lost: &&Lost| !known.contains(lost);
        report(lost.iter().filter(told), salvaged.records.len());
        self.losses().insert(first, lost);
        Ok(())
    }

    fn write_mended(&self, path: &Path, records: &BTreeMap<Seq, Vec<u8>>, lost: &[Lost]) -> Result<(), StoreError> {
        if self.disk.length(path).map_err(|e| self.io(&e))?.is_some() {
            self.disk.remove(path).map_err(|e| self.io(&e))?;
        }
        let database = open(&*self.disk, path, self.cache)?;
        let mut write = database.begin_write()?;
        write.set_two_phase_commit(true);
        {
            let mut table = write.open_table(BLOCKS)?;
            let mut run: (Seq, Vec<Vec<u8>>) = (0, Vec::new());
            let mut flush = |(seq, run): (Seq, Vec<Vec<u8>>)| -> Result<(), StoreError> {
                for (seq, row) in block::pack(seq, &run) {
                    table.insert(seq, row.as_slice())?;
                }
                Ok(())
            };
            for (seq, record) in records {
                if run.0 + run.1.len() as u64 != *seq || run.1.len() >= JOURNAL_BATCH_RECORDS {
                    flush(std::mem::replace(&mut run, (*seq, Vec::new())))?;
                }
                run.1.push(record.clone());
            }
            flush(run)?;
            write.open_table(META)?.insert(LOST, salvage::encode(lost).as_slice())?;
        }
        write.commit()?;
        Ok(())
    }
}

fn report<'a>(lost: impl Iterator<Item = &'a Lost>, kept: usize) {
    let mut gone = 0;
    for lost in lost {
        if lost.certain {
            gone += lost.count();
            tracing::error!(from = lost.from, to = lost.to, "{lost}; levels that had folded them stand");
        } else {
            tracing::warn!(from = lost.from, to = lost.to, "{lost}");
        }
    }
    crate::metrics::journal_repaired();
    tracing::warn!(kept, lost = gone, "the journal segment is mended");
}
