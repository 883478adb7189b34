//! Maps made from what an iterator gives.

use std::collections::BTreeMap;

/// A map of these entries; of two with the same key the later counts. `collect` does the same and sorts first: that is 5 KB of code
/// for each type, and buys nothing where entries are few or a map is made rarely.
pub fn map_of<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(entries);
    map
}
