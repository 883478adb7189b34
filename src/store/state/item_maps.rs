//! The item mappings that the policy names: a part is a row, as it came through the journal.
//!
//! A mapping is complete when the policy that names it is folded, and stays for as long as the policy in force names it, so a
//! state that is opened again has all that its policy means.

use std::collections::{BTreeMap, BTreeSet};

use super::{ITEM_MAPS, State, StoreError, view};
use crate::limits::ITEM_PARTS_UNWRITTEN_BYTES;
use crate::store::codec::Reader;
use crate::types::{ItemMap, ItemMapBuilder, ItemMapDigest, ItemMapRef, ItemsPart, PartsDigest};

/// Key of a part: the mapping's digest and the part's number, big-endian.
pub(super) type PartKey = (ItemMapDigest, u32);

/// Parts that are not written yet; `None`: to be removed.
#[derive(Debug, Default, Clone)]
pub(super) struct UnwrittenParts {
    parts: BTreeMap<PartKey, Option<Box<str>>>,
    bytes: usize,
}

fn row_key((map, part): PartKey) -> Vec<u8> {
    [&map[..], &part.to_be_bytes()].concat()
}

fn part_key(row: &[u8]) -> Result<PartKey, StoreError> {
    let mut r = Reader::new(row);
    let key = (r.array("item mapping")?, u32::from_be_bytes(r.array("part")?));
    r.end("item mapping")?;
    Ok(key)
}

impl UnwrittenParts {
    fn put(&mut self, key: PartKey, lines: Option<&str>) {
        self.bytes += lines.map_or(0, str::len);
        self.parts.insert(key, lines.map(Box::from));
    }

    pub(super) fn want_checkpoint(&self) -> bool {
        self.bytes >= ITEM_PARTS_UNWRITTEN_BYTES
    }

    pub(super) fn write(&self, write: &redb::WriteTransaction) -> Result<(), StoreError> {
        let mut table = write.open_table(ITEM_MAPS)?;
        for (key, lines) in &self.parts {
            match lines {
                Some(lines) => drop(table.insert(row_key(*key).as_slice(), lines.as_bytes())?),
                None => drop(table.remove(row_key(*key).as_slice())?),
            }
        }
        Ok(())
    }

    /// What was taken could not be written, and this came after it.
    pub(super) fn put_back(&mut self, taken: Self) {
        let newer = std::mem::replace(self, taken);
        for (key, lines) in &newer.parts {
            self.put(*key, lines.as_deref());
        }
    }
}

impl State {
    /// Keep a part of a mapping that a policy is about to name.
    pub fn put_items(&mut self, items: &ItemsPart<'_>) {
        self.item_parts.put((items.map, items.part), Some(items.lines));
    }

    /// Visit the parts of a mapping in order. False when one is missing.
    fn each_part(&self, name: &ItemMapRef, mut visit: impl FnMut(&str)) -> Result<bool, StoreError> {
        for part in 0..name.parts {
            let key = (name.sha256, part);
            let frozen = self.frozen.as_ref().map(|frozen| &frozen.item_parts.parts);
            match self.item_parts.parts.get(&key).or_else(|| frozen?.get(&key)) {
                Some(Some(lines)) => visit(lines),
                Some(None) => return Ok(false),
                None => match view(self.files.as_ref())?.item_maps.get(row_key(key).as_slice())? {
                    Some(row) => {
                        let lines = std::str::from_utf8(row.value());
                        visit(lines.map_err(|_| StoreError::Row("a part of an item mapping is not UTF-8".to_owned()))?);
                    }
                    None => return Ok(false),
                },
            }
        }
        Ok(true)
    }

    /// Is the whole mapping here? Its parts are read one after the other; nothing is built.
    pub fn has_item_map(&self, name: &ItemMapRef) -> Result<bool, StoreError> {
        let mut digest = PartsDigest::default();
        Ok(self.each_part(name, |part| digest.update(part))? && digest.finish() == name.sha256)
    }

    /// Build a mapping from its parts. `None` when it is not here as a whole.
    pub fn item_map(&self, name: &ItemMapRef) -> Result<Option<ItemMap>, StoreError> {
        let mut bytes = 0;
        if !self.each_part(name, |part| bytes += part.len())? {
            return Ok(None);
        }
        let mut items = ItemMapBuilder::with_room(bytes);
        let mut fits = true;
        self.each_part(name, |part| fits &= items.insert_part(part).is_ok())?;
        Ok(Some(items.finish()).filter(|items| fits && items.name() == name))
    }

    /// Remove every mapping but these.
    pub fn keep_item_maps(&mut self, names: &BTreeSet<ItemMapDigest>) -> Result<(), StoreError> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.item_parts.parts.keys());
        let mut gone: BTreeSet<PartKey> = self.item_parts.parts.keys().chain(frozen).copied().collect();
        gone.retain(|(map, _)| !names.contains(map));
        let mut from = Vec::new();
        loop {
            let next = view(self.files.as_ref())?.item_maps.range::<&[u8]>(from.as_slice()..)?.next().transpose()?;
            let Some(key) = next.map(|(key, _)| part_key(key.value())).transpose()? else { break };
            let (map, part) = key;
            // over the rest of a mapping that stays, in one step
            from = if names.contains(&map) { row_key((map, u32::MAX)) } else { row_key((map, part)) };
            from.push(0);
            if !names.contains(&map) {
                gone.insert(key);
            }
        }
        for key in gone {
            self.item_parts.put(key, None);
        }
        Ok(())
    }
}
