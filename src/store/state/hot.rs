//! Rows of positions in memory: what was changed since the last checkpoint, and what was changed not long before it.
//!
//! Chunks of bytes hold keys and rows one after the other; a hash index points into them. A map of structs would take four
//! times the memory, and this bounds how many changes a checkpoint can gather, which bounds how often a page of the file is
//! written again.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Bytes of a chunk; a row that is larger has one to itself. Chunks, because one text that grows is copied as it grows, and for
/// a moment it is there twice.
const CHUNK_BYTES: usize = 256 * 1024;

/// Where a row is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Its chunk.
    chunk: u16,
    /// Bytes of the key.
    key: u16,
    /// Offset of the key in the chunk; the row follows it.
    at: u32,
    /// Bytes of the row.
    row: u32,
    /// Bytes that the row may have without being moved.
    room: u32,
    /// Not in the file as it stands here.
    dirty: bool,
}

/// Rows by key.
#[derive(Debug, Default, Clone)]
pub(super) struct Hot {
    slots: HashTable<Slot>,
    chunks: Chunks,
    /// Bytes of rows that were moved.
    waste: usize,
    hasher: RandomState,
}

#[derive(Debug, Default, Clone)]
struct Chunks {
    list: Vec<Vec<u8>>,
    bytes: usize,
}

impl Chunks {
    fn key(&self, slot: &Slot) -> &[u8] {
        let at = slot.at as usize;
        self.of(slot).get(at..at + usize::from(slot.key)).unwrap_or_default()
    }

    fn row(&self, slot: &Slot) -> &[u8] {
        let at = slot.at as usize + usize::from(slot.key);
        self.of(slot).get(at..at + slot.row as usize).unwrap_or_default()
    }

    fn of(&self, slot: &Slot) -> &[u8] {
        self.list.get(usize::from(slot.chunk)).map_or(&[], Vec::as_slice)
    }

    /// Put key and row at the end.
    fn push(&mut self, key: &[u8], row: &[u8]) -> Slot {
        let bytes = key.len() + row.len();
        if self.list.last().is_none_or(|chunk| chunk.capacity() - chunk.len() < bytes) {
            self.list.push(Vec::with_capacity(bytes.max(CHUNK_BYTES)));
        }
        let chunk = self.list.len() - 1;
        let last = self.list.last_mut().expect("just made");
        let at = last.len();
        last.extend_from_slice(key);
        last.extend_from_slice(row);
        self.bytes += bytes;
        let row = u32::try_from(row.len()).expect("a row is far below 4 GiB");
        Slot {
            chunk: u16::try_from(chunk).expect("a checkpoint is due at a few MiB"),
            key: u16::try_from(key.len()).expect("a SKU has at most 255 bytes"),
            at: u32::try_from(at).expect("a chunk is far below 4 GiB"),
            row,
            room: row,
            dirty: true,
        }
    }
}

impl Hot {
    /// About how much memory is in use.
    pub(super) fn memory(&self) -> usize {
        self.chunks.bytes + self.slots.len() * size_of::<Slot>()
    }

    /// The row of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let slot = self.slots.find(self.hasher.hash_one(key), |slot| self.chunks.key(slot) == key)?;
        Some(self.chunks.row(slot))
    }

    /// Put a changed row.
    pub(super) fn put(&mut self, key: &[u8], row: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let Self { slots, chunks, waste, hasher } = self;
        let Some(slot) = slots.find_mut(hash, |slot| chunks.key(slot) == key) else {
            let slot = chunks.push(key, row);
            slots.insert_unique(hash, slot, |slot| hasher.hash_one(chunks.key(slot)));
            return;
        };
        if row.len() > slot.room as usize {
            *waste += usize::from(slot.key) + slot.room as usize;
            *slot = chunks.push(key, row);
            return;
        }
        slot.dirty = true;
        slot.row = u32::try_from(row.len()).expect("it fits its room");
        let at = slot.at as usize + usize::from(slot.key);
        let chunk = chunks.list.get_mut(usize::from(slot.chunk));
        if let Some(place) = chunk.and_then(|chunk| chunk.get_mut(at..at + row.len())) {
            place.copy_from_slice(row);
        }
    }

    /// Changed rows in the order of their keys.
    pub(super) fn dirty(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let mut slots: Vec<&Slot> = self.slots.iter().filter(|slot| slot.dirty).collect();
        slots.sort_unstable_by_key(|slot| self.chunks.key(slot));
        slots.into_iter().map(|slot| (self.chunks.key(slot), self.chunks.row(slot)))
    }

    /// The first rows from a key on (inclusive) that begin with a prefix, in the order of their keys.
    pub(super) fn range(&self, from: &[u8], prefix: &[u8], rows: usize) -> Vec<(&[u8], &[u8])> {
        let all = self.slots.iter().map(|slot| (self.chunks.key(slot), self.chunks.row(slot)));
        let mut found: Vec<_> = all.filter(|(key, _)| *key >= from && key.starts_with(prefix)).collect();
        if found.len() > rows {
            found.select_nth_unstable_by_key(rows, |(key, _)| *key);
            found.truncate(rows);
        }
        found.sort_unstable_by_key(|(key, _)| *key);
        found
    }

    /// Everything is in the file now: keep what fits, forget the rest.
    fn written(&mut self, rows_kept: usize) {
        if self.slots.len() > rows_kept {
            *self = Self::default();
            return;
        }
        let compact = self.waste > self.chunks.bytes / 2;
        let mut chunks = Chunks::default();
        for slot in &mut self.slots {
            if compact {
                *slot = chunks.push(self.chunks.key(slot), self.chunks.row(slot));
            }
            slot.dirty = false;
        }
        if compact {
            (self.chunks, self.waste) = (chunks, 0);
        }
    }

    /// What stood here before is in the file now, and this came after it: keep of both what fits.
    pub(super) fn go_on_from(&mut self, mut before: Self, rows_kept: usize) {
        before.written(rows_kept);
        if !before.slots.is_empty() {
            before.put_all(self);
            *self = before;
        }
    }

    /// What stood here before could not be written: it is still to be.
    pub(super) fn go_back_to(&mut self, mut before: Self) {
        before.put_all(self);
        *self = before;
    }

    fn put_all(&mut self, newer: &Self) {
        for slot in &newer.slots {
            self.put(newer.chunks.key(slot), newer.chunks.row(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a map, whatever is put, moved, written or not, and forgotten.
        #[test]
        fn it_says_what_a_map_says(
            puts in proptest::collection::vec((0_u8..40, 0_usize..60, any::<u8>(), 0_u8..20), 1..300),
            kept in 0_usize..40,
        ) {
            let (mut hot, mut map, mut dirty) = (Hot::default(), BTreeMap::new(), BTreeMap::new());
            let mut frozen = None;
            for (key, length, fill, write) in puts {
                let (key, row) = (vec![key / 10, key], vec![fill; length]);
                hot.put(&key, &row);
                map.insert(key.clone(), row.clone());
                dirty.insert(key, row);
                match (write, frozen.take()) {
                    (0, None) => {
                        frozen = Some((std::mem::take(&mut hot), std::mem::take(&mut map), std::mem::take(&mut dirty)));
                    }
                    (0, Some((before, mut before_map, _))) => {
                        if before_map.len() > kept {
                            before_map.clear();
                        }
                        before_map.append(&mut map);
                        map = before_map;
                        hot.go_on_from(before, kept);
                    }
                    (1, Some((before, mut before_map, mut before_dirty))) => {
                        before_map.append(&mut map);
                        before_dirty.append(&mut dirty);
                        (map, dirty) = (before_map, before_dirty);
                        hot.go_back_to(before);
                    }
                    (_, still) => frozen = still,
                }
            }
            prop_assert_eq!(hot.slots.len(), map.len());
            for (key, row) in &map {
                prop_assert_eq!(hot.get(key), Some(row.as_slice()));
            }
            prop_assert_eq!(hot.get(&[9, 9]), None);
            let owned = |rows: Vec<(&[u8], &[u8])>| rows.into_iter().map(|(k, r)| (k.to_vec(), r.to_vec())).collect::<Vec<_>>();
            let put = hot.dirty().collect();
            prop_assert_eq!(owned(put), dirty.into_iter().collect::<Vec<_>>());
            for (from, prefix) in [(vec![], vec![]), (vec![2], vec![2]), (vec![1, 13], vec![])] {
                let all = map.iter().filter(|(k, _)| **k >= from && k.starts_with(&prefix));
                let expected: Vec<_> = all.take(7).map(|(k, r)| (k.clone(), r.clone())).collect();
                prop_assert_eq!(owned(hot.range(&from, &prefix, 7)), expected);
            }
        }
    }

    #[test]
    fn rows_that_keep_growing_do_not_keep_their_old_places() {
        let mut hot = Hot::default();
        for length in 0..200 {
            hot.put(b"key", &vec![1; length]);
        }
        hot.written(10);
        assert!(hot.memory() < 300, "{}", hot.memory());
        assert_eq!(hot.get(b"key").map(<[u8]>::len), Some(199));
    }
}
