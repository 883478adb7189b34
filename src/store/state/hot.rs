//! Rows of positions in memory: what was changed since the last checkpoint, and what was changed not long before it.
//!
//! One text of bytes holds keys and rows one after the other; a hash index points into it. A map of structs would take four
//! times the memory, and this bounds how many changes a checkpoint can gather, which bounds how often a page of the file is
//! written again.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Where a row is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Offset of the key; the row follows it.
    at: u32,
    /// Bytes of the row.
    row: u32,
    /// Bytes that the row may have without being moved.
    room: u32,
    /// Bytes of the key.
    key: u16,
    /// Not in the file as it stands here.
    dirty: bool,
}

/// Rows by key.
#[derive(Debug, Default)]
pub(super) struct Hot {
    slots: HashTable<Slot>,
    bytes: Vec<u8>,
    /// Bytes of rows that were moved or forgotten.
    waste: usize,
    hasher: RandomState,
}

impl Slot {
    fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let at = self.at as usize;
        bytes.get(at..at + usize::from(self.key)).unwrap_or_default()
    }

    fn row<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let at = self.at as usize + usize::from(self.key);
        bytes.get(at..at + self.row as usize).unwrap_or_default()
    }
}

impl Hot {
    /// About how much memory is in use.
    pub(super) fn memory(&self) -> usize {
        self.bytes.len() + self.slots.len() * size_of::<Slot>()
    }

    /// The row of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let slot = self.slots.find(self.hasher.hash_one(key), |slot| slot.key(&self.bytes) == key)?;
        Some(slot.row(&self.bytes))
    }

    /// Put a changed row.
    pub(super) fn put(&mut self, key: &[u8], row: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let length = u32::try_from(row.len()).expect("a row is far below 4 GiB");
        if let Some(slot) = self.slots.find_mut(hash, |slot| slot.key(&self.bytes) == key) {
            slot.dirty = true;
            if length <= slot.room {
                let at = slot.at as usize + usize::from(slot.key);
                slot.row = length;
                if let Some(place) = self.bytes.get_mut(at..at + row.len()) {
                    place.copy_from_slice(row);
                }
                return;
            }
            self.waste += usize::from(slot.key) + slot.room as usize;
            (slot.at, slot.row, slot.room) = (position(&self.bytes), length, length);
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(row);
            return;
        }
        let key_length = u16::try_from(key.len()).expect("a SKU has at most 255 bytes");
        let slot = Slot { at: position(&self.bytes), row: length, room: length, key: key_length, dirty: true };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(row);
        let (bytes, hasher) = (&self.bytes, &self.hasher);
        self.slots.insert_unique(hash, slot, |slot| hasher.hash_one(slot.key(bytes)));
    }

    /// Changed rows in the order of their keys.
    pub(super) fn dirty(&self) -> Vec<(&[u8], &[u8])> {
        let dirty = self.slots.iter().filter(|slot| slot.dirty);
        let mut rows: Vec<_> = dirty.map(|slot| (slot.key(&self.bytes), slot.row(&self.bytes))).collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows
    }

    /// The first rows from a key on (inclusive) that begin with a prefix, in the order of their keys.
    pub(super) fn range(&self, from: &[u8], prefix: &[u8], rows: usize) -> Vec<(&[u8], &[u8])> {
        let all = self.slots.iter().map(|slot| (slot.key(&self.bytes), slot.row(&self.bytes)));
        let mut found: Vec<_> = all.filter(|(key, _)| *key >= from && key.starts_with(prefix)).collect();
        if found.len() > rows {
            found.select_nth_unstable_by_key(rows, |(key, _)| *key);
            found.truncate(rows);
        }
        found.sort_unstable_by_key(|(key, _)| *key);
        found
    }

    /// Everything is in the file now: keep what fits, forget the rest.
    pub(super) fn written(&mut self, rows_kept: usize) {
        if self.slots.len() > rows_kept {
            // the memory stays for the next ones
            self.slots.clear();
            self.bytes.clear();
            self.waste = 0;
            return;
        }
        let mut bytes = Vec::new();
        let compact = self.waste > self.bytes.len() / 2;
        for slot in &mut self.slots {
            slot.dirty = false;
            if compact {
                let at = position(&bytes);
                bytes.extend_from_slice(slot.key(&self.bytes));
                bytes.extend_from_slice(slot.row(&self.bytes));
                (slot.at, slot.room) = (at, slot.row);
            }
        }
        if compact {
            (self.bytes, self.waste) = (bytes, 0);
        }
    }
}

fn position(bytes: &[u8]) -> u32 {
    // a checkpoint is due at a few MiB
    u32::try_from(bytes.len()).expect("far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a map, whatever is put, moved, written and forgotten.
        #[test]
        fn it_says_what_a_map_says(
            puts in proptest::collection::vec((0_u8..40, 0_usize..60, any::<u8>(), 0_u8..20), 1..300),
            kept in 0_usize..40,
        ) {
            let (mut hot, mut map, mut dirty) = (Hot::default(), BTreeMap::new(), BTreeMap::new());
            for (key, length, fill, write) in puts {
                let (key, row) = (vec![key / 10, key], vec![fill; length]);
                hot.put(&key, &row);
                map.insert(key.clone(), row.clone());
                dirty.insert(key, row);
                if write == 0 {
                    if map.len() > kept {
                        map.clear();
                    }
                    dirty.clear();
                    hot.written(kept);
                }
            }
            prop_assert_eq!(hot.slots.len(), map.len());
            for (key, row) in &map {
                prop_assert_eq!(hot.get(key), Some(row.as_slice()));
            }
            prop_assert_eq!(hot.get(&[9, 9]), None);
            let owned = |rows: Vec<(&[u8], &[u8])>| rows.into_iter().map(|(k, r)| (k.to_vec(), r.to_vec())).collect::<Vec<_>>();
            prop_assert_eq!(owned(hot.dirty()), dirty.into_iter().collect::<Vec<_>>());
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
