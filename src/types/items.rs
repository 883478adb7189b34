//! A platform's item ids and the SKUs they stand for: many, looked up for every fact, never changed once they are made.
//!
//! A configuration may map 100,000 items, and a gateway must fit a small machine. So a mapping is one text, a line for each
//! item, and a hash table of the lines' offsets: about 40 bytes an item, in two allocations, whatever the number of items.
//!
//! ```text
//! lines   "271878346596884015\tSKU-1\n271878346596884016\tSKU-2\n.."     (no id and no SKU holds a control character)
//! slots   [0, tag << 26 | 26, 0, tag << 26 | 1, ..]        (offset of a line and 1, six bits of the hash; 0 is free)
//! ```
//!
//! The lines stand in memory in the order in which they came. Where a mapping is written down ([`ItemMap::parts`]) or named
//! ([`ItemMapRef`]), they are sorted: the same mapping has one form.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::limits::{ITEM_MAP_MAX_BYTES, ITEM_PART_MAX_BYTES};

/// SHA-256 over the parts of a mapping, each after its length in eight bytes: other parts are another mapping.
pub type ItemMapDigest = [u8; 32];

/// Which mapping, in the place of the mapping itself: what a policy holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemMapRef {
    /// Items.
    pub count: u64,
    /// Parts that it is written down in, numbered from 0.
    pub parts: u32,
    /// Over all of them.
    #[serde(with = "hex")]
    pub sha256: ItemMapDigest,
}

/// A digest as a policy's text has it: 64 lower-case hexadecimal digits.
mod hex {
    use data_encoding::HEXLOWER;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::ItemMapDigest;

    pub(super) fn serialize<S: Serializer>(digest: &ItemMapDigest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ItemMapDigest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| D::Error::custom("a SHA-256 has 64 lower-case hexadecimal digits"))
    }
}

/// Why an item was not put into a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotMapped {
    /// It stands for this SKU already.
    Already(String),
    /// An id or a SKU that is empty or holds a control character: whoever maps items has to check them first.
    Unfit,
    /// The mapping has [`ITEM_MAP_MAX_BYTES`].
    Full,
}

/// A mapping that is being made.
#[derive(Debug, Clone, Default)]
pub struct ItemMapBuilder(Table);

impl ItemMapBuilder {
    /// With room for so many bytes of ids and SKUs, two for each item besides: a file of two columns has that size.
    pub fn with_room(bytes: usize) -> Self {
        Self(Table { lines: String::with_capacity(bytes.min(ITEM_MAP_MAX_BYTES)), ..Table::default() })
    }

    /// Map an item. The same pair once more changes nothing.
    pub fn insert(&mut self, item: &str, sku: &str) -> Result<(), NotMapped> {
        let fits = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !fits(item) || !fits(sku) {
            return Err(NotMapped::Unfit);
        }
        match self.0.get(item) {
            Some(other) if other != sku => return Err(NotMapped::Already(other.to_owned())),
            Some(_) => return Ok(()),
            None => {}
        }
        let offset = self.0.lines.len();
        // also what keeps every offset within its bits of a slot
        if offset + item.len() + sku.len() + 2 > ITEM_MAP_MAX_BYTES {
            return Err(NotMapped::Full);
        }
        for text in [item, "\t", sku, "\n"] {
            self.0.lines.push_str(text);
        }
        self.0.index(offset);
        Ok(())
    }

    /// Take one part in, as [`ItemMap::parts`] gives it.
    pub fn insert_part(&mut self, part: &str) -> Result<(), NotMapped> {
        for line in part.split_terminator('\n') {
            let (item, sku) = line.split_once('\t').ok_or(NotMapped::Unfit)?;
            self.insert(item, sku)?;
        }
        Ok(())
    }

    /// Items so far.
    pub fn len(&self) -> usize {
        self.0.count
    }

    /// No item so far.
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// The mapping.
    pub fn finish(mut self) -> ItemMap {
        self.0.lines.shrink_to_fit();
        let (mut parts, mut digest) = (0, PartsDigest::default());
        self.0.each_part(|part| {
            digest.update(part);
            parts += 1;
        });
        let name = ItemMapRef { count: self.0.count as u64, parts, sha256: digest.finish() };
        ItemMap { table: self.0, name }
    }
}

/// A platform's item ids and the SKUs they stand for.
#[derive(Debug, Clone)]
pub struct ItemMap {
    table: Table,
    name: ItemMapRef,
}

impl Default for ItemMap {
    fn default() -> Self {
        ItemMapBuilder::default().finish()
    }
}

/// The same items with the same SKUs.
impl PartialEq for ItemMap {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ItemMap {}

impl ItemMap {
    /// The SKU of an item.
    pub fn get(&self, item: &str) -> Option<&str> {
        self.table.get(item)
    }

    /// Items.
    pub fn len(&self) -> usize {
        self.table.count
    }

    /// No item.
    pub fn is_empty(&self) -> bool {
        self.table.count == 0
    }

    /// Which mapping it is.
    pub fn name(&self) -> &ItemMapRef {
        &self.name
    }

    /// Item and SKU, sorted by item.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.table.sorted().into_iter().filter_map(|offset| line(&self.table.lines, wide(offset)).split_once('\t'))
    }

    /// The mapping as it is written down: whole lines, sorted by item, cut after the last one that fits
    /// [`ITEM_PART_MAX_BYTES`]. Each part is made when it is asked for.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        let mut offsets = self.table.sorted().into_iter().peekable();
        std::iter::from_fn(move || self.table.next_part(&mut offsets))
    }
}

/// Adds up [`ItemMapRef::sha256`].
pub struct PartsDigest(Context);

impl Default for PartsDigest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl PartsDigest {
    /// The next part.
    pub fn update(&mut self, part: &str) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part.as_bytes());
    }

    /// Over all of them.
    pub fn finish(self) -> ItemMapDigest {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The mappings in use. Whoever is about to make one that is here takes this one instead: the configuration, the policy and
/// the fold hold each mapping once between them.
#[derive(Debug, Clone, Default)]
pub struct ItemMaps(Arc<Mutex<Vec<Weak<ItemMap>>>>);

impl ItemMaps {
    /// The mapping of this name, while somebody uses it.
    pub fn get(&self, name: &ItemMapRef) -> Option<Arc<ItemMap>> {
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        maps.iter().filter_map(Weak::upgrade).find(|map| map.name == *name)
    }

    /// The mapping that is here already and is the same, else this one, which is here from now on.
    pub fn share(&self, map: Arc<ItemMap>) -> Arc<ItemMap> {
        if let Some(same) = self.get(&map.name) {
            return same;
        }
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        maps.retain(|map| map.strong_count() > 0);
        maps.push(Arc::downgrade(&map));
        map
    }
}

/// Lines and where they are.
#[derive(Debug, Clone, Default)]
struct Table {
    lines: String,
    /// Linear probing; the number of slots is a power of two, or none.
    slots: Vec<u32>,
    count: usize,
}

/// Slots of the smallest table.
const SLOTS_MIN: usize = 16;
/// A table of which more than this part is taken is doubled: 100,000 items fit 2^17 slots, and a search sees nine of them on
/// average before it knows that an item is not mapped.
const SLOTS_FULL: (usize, usize) = (4, 5);
/// What a slot holds besides the tag.
const OFFSET_MASK: u32 = (1 << 26) - 1;
const _: () = assert!(ITEM_MAP_MAX_BYTES < OFFSET_MASK as usize);

impl Table {
    fn get(&self, item: &str) -> Option<&str> {
        let (mut at, tag) = first_slot(self.slots.len(), item)?;
        loop {
            let slot = *self.slots.get(at)?;
            let offset = wide(slot & OFFSET_MASK).checked_sub(1)?;
            // most lines of other items are told by the tag, and not looked at
            if slot & !OFFSET_MASK == tag
                && let Some((found, sku)) = line(&self.lines, offset).split_once('\t')
                && found == item
            {
                return Some(sku);
            }
            at = after(at, self.slots.len());
        }
    }

    /// Note a new line.
    fn index(&mut self, offset: usize) {
        self.count += 1;
        if self.count * SLOTS_FULL.1 <= self.slots.len() * SLOTS_FULL.0 {
            put(&mut self.slots, &self.lines, offset);
            return;
        }
        // the old table goes before the new one comes: the lines are enough to make it
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        self.slots = Vec::new();
        self.slots.resize(slots, 0);
        for offset in offsets(&self.lines) {
            put(&mut self.slots, &self.lines, offset);
        }
    }

    /// Where the lines begin, in the order of their items: a control character sorts before every other, so whole lines sort
    /// like their items.
    fn sorted(&self) -> Vec<u32> {
        let mut sorted = Vec::with_capacity(self.count);
        sorted.extend(offsets(&self.lines).map(narrow));
        sorted.sort_unstable_by_key(|offset| self.lines.get(wide(*offset)..));
        sorted
    }

    fn next_part(&self, offsets: &mut std::iter::Peekable<std::vec::IntoIter<u32>>) -> Option<String> {
        let mut part = String::new();
        while let Some(line) = offsets.peek().map(|offset| line(&self.lines, wide(*offset))) {
            if !part.is_empty() && part.len() + line.len() + 1 > ITEM_PART_MAX_BYTES {
                break;
            }
            part.push_str(line);
            part.push('\n');
            offsets.next();
        }
        Some(part).filter(|part| !part.is_empty())
    }

    fn each_part(&self, mut visit: impl FnMut(&str)) {
        let mut offsets = self.sorted().into_iter().peekable();
        while let Some(part) = self.next_part(&mut offsets) {
            visit(&part);
        }
    }
}

/// The line that begins at an offset, without its end.
fn line(lines: &str, offset: usize) -> &str {
    lines.get(offset..).and_then(|rest| rest.split('\n').next()).unwrap_or("")
}

/// Where each line begins.
fn offsets(lines: &str) -> impl Iterator<Item = usize> {
    lines.split_inclusive('\n').scan(0, |next, line| Some(std::mem::replace(next, *next + line.len())))
}

/// Where the search for an item begins, and the tag of its slot. `None`: there is no slot.
fn first_slot(slots: usize, item: &str) -> Option<(usize, u32)> {
    let mask = slots.checked_sub(1)? as u64;
    // its keys are fixed: the ids are the operator's own, and a table with free slots has short runs
    let mut hasher = DefaultHasher::new();
    hasher.write(item.as_bytes());
    let hash = hasher.finish();
    let tag = u32::try_from(hash >> 32).ok()? & !OFFSET_MASK;
    Some((usize::try_from(hash & mask).ok()?, tag))
}

fn after(at: usize, slots: usize) -> usize {
    if at + 1 == slots { 0 } else { at + 1 }
}

/// Note a line in the first free slot. At least one is free.
fn put(slots: &mut [u32], lines: &str, offset: usize) {
    let item = line(lines, offset).split_once('\t').map_or("", |(item, _)| item);
    let count = slots.len();
    let Some((mut at, tag)) = first_slot(count, item) else { return };
    while let Some(slot) = slots.get_mut(at) {
        if *slot == 0 {
            *slot = tag | narrow(offset + 1);
            return;
        }
        at = after(at, count);
    }
}

fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).expect("a mapping is bounded far below 4 GiB")
}

fn wide(offset: u32) -> usize {
    usize::try_from(offset).expect("an offset was a usize before")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ItemMap {
        let mut items = ItemMapBuilder::default();
        for (item, sku) in pairs {
            items.insert(item, sku).expect("is mapped");
        }
        items.finish()
    }

    fn many(count: usize) -> ItemMap {
        let mut items = ItemMapBuilder::with_room(0);
        for n in 0..count {
            // the order of arrival is not the order of the ids
            items.insert(&format!("2718{:08}", n * 7919 % count), &format!("SKU-{n}")).expect("is mapped");
        }
        items.finish()
    }

    #[test]
    fn an_item_is_one_sku() {
        let mut items = ItemMapBuilder::default();
        assert_eq!(items.insert("1", "A"), Ok(()));
        assert_eq!(items.insert("1", "A"), Ok(()));
        assert_eq!(items.insert("1", "B"), Err(NotMapped::Already("A".to_owned())));
        assert_eq!(items.insert("11", "A"), Ok(()), "another item may be the same SKU");
        for (item, sku) in [("", "A"), ("1", ""), ("1\t1", "A"), ("2", "A\nB")] {
            assert_eq!(items.insert(item, sku), Err(NotMapped::Unfit));
        }
        let items = items.finish();
        assert_eq!((items.len(), items.get("1"), items.get("11"), items.get("111")), (2, Some("A"), Some("A"), None));
        assert_eq!((items.get(""), items.get("1\tA"), items.get("1\tA\n11"), items.get("A")), (None, None, None, None));
        assert_eq!(ItemMap::default().get("1"), None);
    }

    #[test]
    fn its_form_does_not_depend_on_the_order_in_which_it_was_made() {
        let (one, other) = (map(&[("10", "A"), ("9", "B"), ("1", "C")]), map(&[("1", "C"), ("10", "A"), ("9", "B")]));
        assert_eq!(one, other);
        assert_eq!(one.parts().collect::<Vec<_>>(), ["1\tC\n10\tA\n9\tB\n"]);
        assert_eq!(one.iter().collect::<Vec<_>>(), [("1", "C"), ("10", "A"), ("9", "B")]);
        assert_ne!(one, map(&[("10", "A"), ("9", "B"), ("1", "D")]));
    }

    #[test]
    fn its_name_is_fixed_for_ever() {
        // Journals hold it: another way to add it up needs a new version of the policy's form.
        assert_eq!(
            serde_json::to_string(map(&[("271878346596884015", "SKU-1")]).name()).expect("plain values"),
            r#"{"count":1,"parts":1,"sha256":"6c553c8d1cd2f8f42a2b28fd8a187673c6f304e0fdab722ea8ec4a0cf27339bf"}"#
        );
        assert!(serde_json::from_str::<ItemMapRef>(r#"{"count":1,"parts":1,"sha256":"AB"}"#).is_err());
    }

    #[test]
    fn a_hundred_thousand_items_take_little_memory_and_are_written_in_bounded_parts() {
        let items = many(100_000);
        assert_eq!(items.len(), 100_000);
        let bytes = items.table.lines.capacity() + items.table.slots.capacity() * size_of::<u32>();
        assert!(bytes <= 3_500_000, "{bytes} bytes");
        assert_eq!(items.get(&format!("2718{:08}", 99_999 * 7919 % 100_000)), Some("SKU-99999"));

        let mut again = ItemMapBuilder::default();
        for part in items.parts() {
            assert!(part.len() <= ITEM_PART_MAX_BYTES && part.ends_with('\n'));
            again.insert_part(&part).expect("whole lines");
        }
        assert_eq!(again.finish(), items);
    }

    #[test]
    fn a_mapping_in_use_is_shared_and_one_that_is_not_is_let_go() {
        let maps = ItemMaps::default();
        let one = maps.share(Arc::new(map(&[("1", "A")])));
        assert!(Arc::ptr_eq(&one, &maps.share(Arc::new(map(&[("1", "A")])))));
        assert!(!Arc::ptr_eq(&one, &maps.share(Arc::new(map(&[("1", "B")])))));
        let name = one.name().clone();
        assert!(maps.get(&name).is_some());
        drop(one);
        assert_eq!(maps.get(&name), None);
    }

    proptest! {
        #[test]
        fn it_answers_like_a_plain_map(
            pairs in proptest::collection::vec(("[a-c]{1,3}", "[ -~]{1,6}"), 0..200),
            asked in proptest::collection::vec("[a-c\t]{0,4}", 20),
        ) {
            let mut plain: BTreeMap<String, String> = BTreeMap::new();
            let mut items = ItemMapBuilder::default();
            for (item, sku) in &pairs {
                let other = plain.get(item).filter(|other| *other != sku).cloned();
                prop_assert_eq!(items.insert(item, sku).err(), other.map(NotMapped::Already));
                plain.entry(item.clone()).or_insert_with(|| sku.clone());
            }
            let items = items.finish();
            prop_assert!(items.iter().eq(plain.iter().map(|(item, sku)| (item.as_str(), sku.as_str()))));
            for item in plain.keys().chain(&asked) {
                prop_assert_eq!(items.get(item), plain.get(item).map(String::as_str));
            }
        }

        #[test]
        fn no_part_panics(part in "[\t\na-c]{0,30}") {
            drop(ItemMapBuilder::default().insert_part(&part));
        }
    }
}
