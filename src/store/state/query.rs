//! Reading the state: for the API, the command line and the metrics. Memory first, then the file.

use std::collections::BTreeMap;
use std::collections::btree_map;

use super::{State, StoreError, TaskKey, logged, view};
use crate::stock::audit::Entry;
use crate::stock::level::Position;
use crate::stock::totals::Totals;
use crate::store::rows::{
    Cause, DeadLetter, FetchTask, IgnoredRow, LinkMark, PositionKey, SourceRow, decode_audit, decode_dead, decode_ignored,
    decode_position,
};

/// One line of a position's story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryItem {
    /// A change of the effective level.
    Changed(Entry),
    /// A report that changed nothing.
    Ignored(IgnoredRow),
}

impl State {
    /// Number of a source, if it ever appeared.
    pub fn find_source(&self, name: &str) -> Option<u16> {
        self.meta.sources.find(name)
    }

    /// Number of a warehouse, if it ever appeared.
    pub fn find_warehouse(&self, name: &str) -> Option<u16> {
        self.meta.warehouses.find(name)
    }

    /// Figures of every source that ever appeared, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&str, SourceRow)> {
        self.meta.sources.iter().map(|(n, name)| (name, self.source_rows.get(usize::from(n)).copied().unwrap_or_default()))
    }

    /// Totals of every warehouse that ever appeared, by name.
    pub fn warehouses(&self) -> impl Iterator<Item = (&str, &Totals)> {
        self.meta.warehouses.iter().filter_map(|(n, name)| Some((name, self.totals.get(usize::from(n))?)))
    }

    /// Dead letters by cause.
    pub fn dead_counts(&self) -> &BTreeMap<Cause, u64> {
        &self.dead_counts
    }

    /// Fetch tasks, by source and resource.
    pub fn tasks(&self) -> &BTreeMap<TaskKey, FetchTask> {
        &self.tasks
    }

    /// Delivery keys remembered.
    pub fn deliveries_remembered(&self) -> u64 {
        self.dedup.len()
    }

    /// Positions in key order, from `after` (exclusive) on, of one warehouse or all.
    pub fn stock(
        &self,
        warehouse: Option<u16>,
        after: Option<&PositionKey>,
        rows: usize,
    ) -> Result<Vec<(PositionKey, Position)>, StoreError> {
        let start = after.cloned().unwrap_or(PositionKey { warehouse: warehouse.unwrap_or(0), sku: "".into() });
        let fits = |key: &PositionKey| warehouse.is_none_or(|w| key.warehouse == w) && after.is_none_or(|a| key > a);
        let mut found = BTreeMap::new();
        let (start, prefix) = (start.encode(), warehouse.map(u16::to_be_bytes));
        // the newest layer last
        for layer in self.frozen.iter().map(|frozen| &frozen.positions).chain([&self.positions]) {
            // one more than wanted: the first may be `after` itself
            for (key, row) in layer.range(&start, prefix.as_ref().map_or(&[], |p| &p[..]), rows.saturating_add(1)) {
                let key = PositionKey::decode(key)?;
                if fits(&key) {
                    found.insert(key, decode_position(row)?);
                }
            }
        }
        let mut from_file = 0;
        let mut file = view(self.files.as_ref())?.positions.from(&start)?;
        while let Some((key, row)) = file.next()? {
            let key = PositionKey::decode(key)?;
            if warehouse.is_some_and(|w| key.warehouse != w) || from_file > rows {
                break;
            }
            if fits(&key) {
                from_file += 1;
                if let btree_map::Entry::Vacant(slot) = found.entry(key) {
                    slot.insert(decode_position(row)?);
                }
            }
        }
        Ok(found.into_iter().take(rows).collect())
    }

    /// One audit entry, and the first bytes of its link.
    pub fn audit_entry(&self, ledger: u64) -> Result<Option<(Entry, LinkMark)>, StoreError> {
        let decode = |row: &[u8]| decode_audit(row, ledger, &self.meta.warehouses, &self.meta.sources).map(Some);
        for log in std::iter::once(&self.audit).chain(self.frozen.iter().map(|frozen| &frozen.audit)) {
            if let Some(row) = log.get(ledger)? {
                return decode(row);
            }
        }
        match logged(&view(self.files.as_ref())?.audit, ledger)? {
            Some(row) => decode(&row),
            None => Ok(None),
        }
    }

    fn ignored_row(&self, number: u64) -> Result<Option<IgnoredRow>, StoreError> {
        for log in std::iter::once(&self.ignored).chain(self.frozen.iter().map(|frozen| &frozen.ignored)) {
            if let Some(row) = log.get(number)? {
                return decode_ignored(row).map(Some);
            }
        }
        logged(&view(self.files.as_ref())?.ignored, number)?.map(|row| decode_ignored(&row)).transpose()
    }

    /// The story of a position, newest first: at most `rows` lines of each sort.
    pub fn history(&self, position: &Position, rows: usize) -> Result<Vec<HistoryItem>, StoreError> {
        let mut items = Vec::new();
        let mut next = position.last_change;
        while next != 0 && items.len() < rows {
            let Some((entry, _)) = self.audit_entry(next)? else { break };
            next = entry.previous;
            items.push((entry.record, HistoryItem::Changed(entry)));
        }
        let (mut next, mut ignored) = (position.last_ignored, 0);
        while next != 0 && ignored < rows {
            let Some(row) = self.ignored_row(next)? else { break };
            next = row.previous;
            ignored += 1;
            items.push((row.record, HistoryItem::Ignored(row)));
        }
        items.sort_by_key(|(record, _)| std::cmp::Reverse(*record));
        Ok(items.into_iter().map(|(_, item)| item).collect())
    }

    /// Dead letters in order of their ids, from `after` (exclusive) on.
    pub fn dead_letters(&self, after: u64, cause: Option<Cause>, rows: usize) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        let mut found = BTreeMap::new();
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.dead.range(after + 1..));
        let frozen = frozen.filter(|(id, _)| !self.dead.contains_key(id));
        for (id, letter) in self.dead.range(after + 1..).chain(frozen) {
            if let Some(letter) = letter
                && cause.is_none_or(|c| letter.cause == c)
            {
                found.insert(*id, letter.clone());
            }
        }
        // older ones are in the file, newer ones in memory: a page is full when the file alone has filled it
        let mut from_file = 0;
        for row in view(self.files.as_ref())?.dead.range(after + 1..)? {
            let (id, value) = row?;
            let letter = decode_dead(value.value())?;
            if cause.is_none_or(|c| letter.cause == c) && self.unwritten_letter(id.value()).is_none() {
                found.insert(id.value(), letter);
                from_file += 1;
                if from_file > rows {
                    break;
                }
            }
        }
        Ok(found.into_iter().take(rows).collect())
    }

    /// What is in memory of a dead letter: `Some(None)` when it was taken away.
    fn unwritten_letter(&self, id: u64) -> Option<&Option<DeadLetter>> {
        self.dead.get(&id).or_else(|| self.frozen.as_ref()?.dead.get(&id))
    }

    /// One dead letter.
    pub fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        match self.unwritten_letter(id) {
            Some(letter) => Ok(letter.clone()),
            None => view(self.files.as_ref())?.dead.get(id)?.map(|row| decode_dead(row.value())).transpose(),
        }
    }
}
