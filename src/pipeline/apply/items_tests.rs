//! What the fold promises about item mappings: a policy's items come before it, stay with it and go with it.

use std::sync::Arc;

use super::Folder;
use super::tests::{Bench, policy, record, shop, tracked};
use crate::limits::ITEM_PART_MAX_BYTES;
use crate::stock::policy::Policy;
use crate::types::{ItemMap, ItemMapBuilder, ItemMaps, ItemsPart, RecordBody};

fn map(lines: &str) -> ItemMap {
    let mut items = ItemMapBuilder::default();
    items.insert_part(lines).expect("good lines");
    items.finish()
}

/// The items of the source `shop`.
pub(super) fn items() -> ItemMap {
    map("10\tA\n11\tB\n")
}

/// Other items of it.
pub(super) fn other_items() -> ItemMap {
    map("10\tX\n77\tC\n")
}

/// Records of a mapping's parts.
pub(super) fn parts(items: &ItemMap) -> Vec<Vec<u8>> {
    let map = items.name().sha256;
    let part = |(part, lines): (u32, String)| record(0, RecordBody::Items(ItemsPart { map, part, lines: &lines }));
    (0..).zip(items.parts()).map(part).collect()
}

/// What a journal begins with: the items and the policy that names them.
pub(super) fn rules() -> Vec<Vec<u8>> {
    [parts(&items()), vec![names(&items())]].concat()
}

/// The policy with another mapping.
pub(super) fn policy_with(items: &ItemMap) -> Policy {
    let mut policy = policy();
    policy.sources.get_mut("shop").expect("there").items = Some(items.name().clone());
    policy
}

/// Its record.
pub(super) fn names(items: &ItemMap) -> Vec<u8> {
    record(0, RecordBody::Policy(&policy_with(items).to_canonical()))
}

/// 5,000 items, more than one part of them.
fn many() -> ItemMap {
    let mut items = ItemMapBuilder::default();
    for n in 0..5_000 {
        items.insert(&format!("2718{n:08}"), &format!("SKU-{n}")).expect("is mapped");
    }
    items.finish()
}

#[test]
fn items_are_in_force_with_their_policy_and_leave_with_it() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 5, 1)]);
    let (old, new) = (items(), many());
    assert!(new.name().parts > 1, "{ITEM_PART_MAX_BYTES} bytes a part");
    b.feed(&parts(&new));
    b.feed(&[shop(2, "d2", 10, 1, 6, 2)]);
    assert_eq!(b.level("hall", "A"), tracked(6), "parts alone change nothing");
    b.checkpoint();
    b.feed(&[names(&new), shop(3, "d3", 271_800_004_999, 1, 7, 3)]);
    assert_eq!(b.level("hall", "SKU-4999"), tracked(7));
    for unwritten in [true, false] {
        let has = |map: &ItemMap| b.state.has_item_map(map.name()).expect("reads");
        assert_eq!((has(&old), has(&new)), (false, true), "not written yet: {unwritten}");
        assert_eq!(b.state.item_map(new.name()).expect("reads"), Some(new.clone()));
        assert_eq!(b.state.item_map(old.name()).expect("reads"), None);
        b.checkpoint();
    }
    b.folder = Folder::new(&mut b.state, ItemMaps::default()).expect("the state holds all that its policy means");
    b.feed(&[shop(4, "d4", 271_800_000_000, 1, 8, 4)]);
    assert_eq!(b.level("hall", "SKU-0"), tracked(8));
    b.judge();
}

#[test]
fn parts_that_no_policy_named_go_with_the_next_policy() {
    let mut b = Bench::new();
    b.feed(&parts(&many()));
    b.checkpoint();
    b.feed(&parts(&map("5\tE\n")));
    b.feed(&parts(&other_items()));
    b.feed(&[names(&other_items())]);
    for left in [many(), map("5\tE\n"), items()] {
        assert!(!b.state.has_item_map(left.name()).expect("reads"));
    }
    assert!(b.state.has_item_map(other_items().name()).expect("reads"));
}

/// Retention may cut the journal between the parts and their policy. What is left must mean the same to every fold of it,
/// also to one that shares its items with a configuration.
#[test]
fn a_policy_whose_items_are_not_in_the_journal_is_not_taken() {
    let digests = [false, true].map(|shared| {
        let (mut b, in_use) = (Bench::new(), ItemMaps::default());
        let held = in_use.share(Arc::new(other_items()));
        if shared {
            b.folder = Folder::new(&mut b.state, in_use).expect("a policy that can be read");
        }
        let in_force = b.state.meta.policy.clone();
        b.feed(&[names(&other_items()), shop(1, "d1", 10, 1, 5, 1)]);
        assert_eq!(b.tally.unusable_policies, [3]);
        assert_eq!((b.level("hall", "A"), b.level("hall", "X")), (tracked(5), None));
        assert_eq!(b.state.meta.policy, in_force, "so that a start sees that it must write its own again");
        b.feed(&parts(&other_items()));
        b.feed(&[names(&other_items()), shop(2, "d2", 10, 1, 6, 2)]);
        assert_eq!(b.level("hall", "X"), tracked(6));
        drop(held);
        b.checkpoint();
        b.state.digest().expect("reads")
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_fold_takes_the_mapping_that_is_in_use_instead_of_building_its_own() {
    let (mut b, in_use) = (Bench::new(), ItemMaps::default());
    let held = in_use.share(Arc::new(other_items()));
    b.folder = Folder::new(&mut b.state, in_use.clone()).expect("a policy that can be read");
    b.feed(&parts(&held));
    b.feed(&[names(&held)]);
    let uses = Arc::strong_count(&held);
    assert_eq!(uses, 2, "the fold and this test");
    assert!(in_use.get(items().name()).is_none(), "nobody holds the mapping that was in force before");
}

#[test]
fn a_state_with_a_policy_of_another_form_is_not_folded_by_guessing() {
    let mut b = Bench::new();
    b.state.meta.policy = b.state.meta.policy.replace(r#""v":2"#, r#""v":9"#);
    let error = Folder::new(&mut b.state, ItemMaps::default()).err().expect("refused").to_string();
    assert!(error.contains("version 9 is of another release"), "{error}");
}
