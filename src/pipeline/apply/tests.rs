//! What the fold promises, over real adapters and a real state on disk.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::items_tests::{items, names, other_items, parts, rules};
use super::{Fold, Folder, Tally};
use crate::stock::level::Value;
use crate::stock::policy::Policy;
use crate::store::codec::encode_record;
use crate::store::journal::{Batch, Journal};
use crate::store::rows::{Cause, PositionKey, Remains};
use crate::store::state::{HistoryItem, SharedState, State, Verifier};
use crate::time::Timestamp;
use crate::types::{
    Decision, Delivery, DeliveryKey, FetchFailed, Fetched, HeaderList, ItemMaps, Need, Quantity, Record, RecordBody, Seq,
};

pub(super) const CACHE: usize = 4 * 1024 * 1024;
/// Small, so that generations are sealed within a test.
pub(super) const GENERATION: usize = 40;

pub(super) fn policy() -> Policy {
    let source = |kind: &str, extra: serde_json::Value| {
        let mut source = json!({
            "kind": kind, "settings": {}, "api": false, "warehouse": null, "locations": {}, "items": null
        });
        for (key, value) in extra.as_object().expect("an object") {
            source[key] = value.clone();
        }
        source
    };
    let text = json!({
        "v": 2,
        "sources": {
            "shop": source("shopify", json!({"api": true, "locations": {"1": "hall", "2": "yard"}, "items": items().name()})),
            "woo": source("woocommerce", json!({"warehouse": "web"})),
            "jetti": source("jetti", json!({"locations": {"*": "dock"}})),
            "bsale": source("bsale", json!({"api": true, "locations": {"1": "hall"}})),
            "gen": source("generic", json!({"warehouse": "gen", "settings": {
                "identity": {"header": "x-id"},
                "map": {"sku": "/sku", "quantity": "/n", "mode": "delta", "time": "/t"}
            }})),
        },
        "warehouses": {"hall": {"authority": ["shop", "bsale"], "low": "2"}, "web": {"authority": [], "low": null}},
    });
    Policy::from_json(&text.to_string()).expect("a good policy")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(1_700_000_000 + second)
}

pub(super) fn record(second: i64, body: RecordBody<'_>) -> Vec<u8> {
    encode_record(&Record { at: at(second), body })
}

fn sha<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&ring::digest::digest(&ring::digest::SHA256, bytes).as_ref()[..N]);
    out
}

fn deliver(second: i64, source: &str, id: Option<&str>, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let key = id.map_or(DeliveryKey::Content, |id| DeliveryKey::Named(sha(format!("{source}/{id}").as_bytes())));
    record(
        second,
        RecordBody::Delivery(Delivery {
            source,
            key,
            body_digest: sha(body.as_bytes()),
            label: id.unwrap_or("content"),
            query: "",
            headers: HeaderList(headers.to_vec()),
            body: body.as_bytes(),
        }),
    )
}

pub(super) fn shop(second: i64, id: &str, item: u64, location: u64, available: i64, updated: i64) -> Vec<u8> {
    let updated = at(updated).to_string();
    let body = format!(
        r#"{{"inventory_item_id":{item},"location_id":{location},"available":{available},"updated_at":"{updated}"}}"#
    );
    deliver(second, "shop", Some(id), &[("x-shopify-topic", "inventory_levels/update")], &body)
}

fn jetti(second: i64, sku: &str, available: i64) -> Vec<u8> {
    let body = json!({
        "variant": {"id": 10, "inventoryPolicy": "track"},
        "channelVariant": {"id": 9, "variantId": 10, "externalId": sku, "channel": {"id": 21, "warehouseId": 11}},
        "inventory": {"available": available}
    });
    deliver(second, "jetti", None, &[], &body.to_string())
}

pub(super) fn moved(second: i64, id: &str, sku: &str, by: i64, said: i64) -> Vec<u8> {
    let body = json!({"sku": sku, "n": by, "t": at(said).to_string()});
    deliver(second, "gen", Some(id), &[("x-id", id)], &body.to_string())
}

/// A state and the fold on it, fed with records under 1, 2, 3, ...
pub(super) struct Bench {
    keep: Option<TempDir>,
    pub(super) state: State,
    pub(super) folder: Folder,
    next: Seq,
    pub(super) tally: Tally,
}

impl Bench {
    fn open(path: &Path) -> Self {
        let mut state = State::open_with(path, CACHE, GENERATION).expect("opens");
        let folder = Folder::new(&mut state, ItemMaps::default()).expect("a policy that can be read");
        let next = state.meta.cursor + 1;
        Self { keep: None, state, folder, next, tally: Tally::default() }
    }

    pub(super) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut bench = Self { keep: None, ..Self::open(directory.path()) };
        bench.keep = Some(directory);
        bench.feed(&rules());
        bench
    }

    /// Its data directory.
    pub(super) fn path(&self) -> &Path {
        self.keep.as_ref().expect("it has one of its own").path()
    }

    pub(super) fn feed(&mut self, records: &[Vec<u8>]) {
        for bytes in records {
            self.folder.fold(&mut self.state, self.next, bytes, &mut self.tally).expect("folds");
            self.next += 1;
        }
    }

    pub(super) fn checkpoint(&mut self) {
        self.state.checkpoint().expect("writes");
    }

    pub(super) fn level(&self, warehouse: &str, sku: &str) -> Option<Value> {
        let warehouse = self.state.find_warehouse(warehouse)?;
        let position = self.state.position(&PositionKey { warehouse, sku: sku.into() }).expect("reads")?;
        position.effective.map(|(_, value)| value)
    }

    fn history(&self, warehouse: &str, sku: &str) -> Vec<HistoryItem> {
        let warehouse = self.state.find_warehouse(warehouse).expect("known");
        let position = self.state.position(&PositionKey { warehouse, sku: sku.into() }).expect("reads").expect("there");
        self.state.history(&position, 100).expect("reads")
    }

    fn dead(&self) -> Vec<(Cause, String)> {
        let letters = self.state.dead_letters(0, None, 100).expect("reads");
        letters.into_iter().map(|(_, letter)| (letter.cause, letter.waits_for)).collect()
    }

    fn source(&self, name: &str) -> crate::store::rows::SourceRow {
        self.state.sources().find(|(n, _)| *n == name).expect("known").1
    }

    /// Sums of the levels equal the totals; the ledger has no gap; the chain ends where it should.
    pub(super) fn judge(&mut self) {
        let mut after = None;
        let mut sums: std::collections::BTreeMap<u16, (u64, i128, u64, u64, u64)> = std::collections::BTreeMap::new();
        loop {
            let page = self.state.stock(None, after.as_ref(), 7).expect("reads");
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, position) in page {
                let sum = sums.entry(key.warehouse).or_default();
                match position.effective {
                    None | Some((_, Value::Deleted)) => continue,
                    Some((_, Value::Untracked)) => {}
                    Some((_, Value::Tracked(q))) => {
                        sum.1 += i128::from(q.micros());
                        match q.cmp(&Quantity::ZERO) {
                            std::cmp::Ordering::Greater => sum.2 += 1,
                            std::cmp::Ordering::Equal => sum.3 += 1,
                            std::cmp::Ordering::Less => sum.4 += 1,
                        }
                    }
                }
                sum.0 += 1;
            }
        }
        for (number, (levels, units, in_stock, out, negative)) in sums {
            let totals = self.state.totals_mut(number).clone();
            assert_eq!(
                (totals.levels, totals.units, totals.in_stock, totals.out, totals.negative),
                (levels, units, in_stock, out, negative),
                "totals of warehouse {number}"
            );
        }
        for ledger in 1..=self.state.meta.ledger {
            let (entry, _) = self.state.audit_entry(ledger).expect("reads").expect("no gap");
            assert_eq!(entry.ledger, ledger);
        }
        let verified = Verifier::all(&self.state).expect("reads");
        assert_eq!((verified.entries, verified.problems), (self.state.meta.ledger, vec![]));
    }
}

pub(super) fn tracked(units: i64) -> Option<Value> {
    Quantity::from_units(units).map(Value::Tracked)
}

#[test]
fn a_repeat_by_id_changes_nothing_and_is_shown_beside_the_level() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 5, 1), shop(2, "d1", 10, 1, 5, 1)]);
    assert_eq!(b.level("hall", "A"), tracked(5));
    let row = b.source("shop");
    assert_eq!((row.accepted, row.duplicates, row.changed), (1, 1, 1));
    assert_eq!(b.history("hall", "A").len(), 2);
    b.judge();
}

#[test]
fn a_retry_with_the_original_payload_does_not_bring_an_old_number_back() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 5, 10), shop(2, "d2", 10, 1, 4, 20), shop(3, "d3", 10, 1, 5, 10)]);
    assert_eq!(b.level("hall", "A"), tracked(4), "d3 says what was true before d2");
    b.judge();
}

#[test]
fn the_same_id_with_another_body_is_kept_counted_and_not_applied() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 5, 1), shop(2, "d1", 10, 1, 900, 2)]);
    assert_eq!(b.level("hall", "A"), tracked(5));
    assert_eq!(b.source("shop").conflicts, 1);
    assert_eq!(b.tally.conflicts.len(), 1);
    assert_eq!(b.dead(), [(Cause::Conflict, String::new())]);
    b.judge();
}

#[test]
fn bodies_that_repeat_a_b_a_are_three_reports() {
    let mut b = Bench::new();
    b.feed(&[jetti(1, "J", 5), jetti(2, "J", 3), jetti(3, "J", 5), jetti(4, "J", 5)]);
    assert_eq!(b.level("dock", "J"), tracked(5), "a key over the body would have dropped the third");
    let row = b.source("jetti");
    assert_eq!((row.accepted, row.duplicates, row.changed), (3, 1, 3));
    b.judge();
}

#[test]
fn an_item_without_a_sku_waits_and_is_applied_by_itself_in_its_own_order() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 77, 1, 9, 1), shop(2, "d2", 77, 1, 8, 2), shop(3, "d3", 77, 2, 1, 3)]);
    assert_eq!(
        b.dead(),
        [(Cause::UnmappedItem, "77".to_owned()), (Cause::UnmappedItem, "77".to_owned())],
        "one for each place"
    );
    let tasks: Vec<_> = b.state.tasks().values().map(|t| t.need.key.to_string()).collect();
    assert_eq!(tasks, ["catalogue/77"], "the catalogue is asked, once");
    b.feed(&[record(4, RecordBody::Decision(Decision::MapItem { source: "shop", item: "77", sku: "C" }))]);
    assert_eq!((b.level("hall", "C"), b.level("yard", "C")), (tracked(8), tracked(1)));
    assert_eq!(b.dead(), []);
    b.feed(&[shop(5, "d4", 77, 1, 7, 5)]);
    assert_eq!(b.level("hall", "C"), tracked(7));
    b.judge();
}

#[test]
fn a_location_without_a_warehouse_waits_for_the_configuration() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 99, 4, 1)]);
    assert_eq!(b.dead(), [(Cause::UnmappedLocation, "99".to_owned())]);
    let mut changed = policy();
    let yard = crate::types::WarehouseId::new("yard").expect("a name");
    changed.sources.get_mut("shop").expect("there").locations.insert("99".to_owned(), yard);
    b.feed(&[record(2, RecordBody::Policy(&changed.to_canonical()))]);
    assert_eq!(b.level("yard", "A"), tracked(4));
    assert_eq!(b.dead(), []);
    b.judge();
}

#[test]
fn what_cannot_be_read_is_a_dead_letter_with_its_record() {
    let mut b = Bench::new();
    let odd = deliver(1, "shop", Some("d1"), &[("x-shopify-topic", "inventory_levels/update")], "{\"available\":");
    b.feed(&[odd.clone(), deliver(2, "gone", Some("d2"), &[], "{}")]);
    let letters = b.state.dead_letters(0, None, 10).expect("reads");
    assert_eq!(letters.iter().map(|(_, l)| l.cause).collect::<Vec<_>>(), [Cause::Unreadable, Cause::UnknownSource]);
    assert_eq!(letters[0].1.remains, Remains::Record(odd));
    b.feed(&[record(3, RecordBody::Decision(Decision::DropDead(letters[1].0)))]);
    assert_eq!(b.dead().len(), 1);
}

#[test]
fn an_answer_with_too_many_facts_is_kept_whole_and_not_cut() {
    let mut b = Bench::new();
    let row = r#"{"quantityAvailable":1,"quantity":1,"variant":{"id":1,"code":"X"},"office":{"id":"1"}}"#;
    let body = format!("{{\"items\":[{}]}}", vec![row; crate::limits::FACTS_PER_RECORD + 1].join(","));
    let need = Need { key: "stock/1/1".into(), from: None };
    let fetched = Fetched { source: "bsale", need, answers: 1, sent_at: at(1), page: 0, last: true, body: body.as_bytes() };
    b.feed(&[record(1, RecordBody::Fetched(fetched))]);
    assert_eq!(b.level("hall", "X"), None);
    let letters = b.state.dead_letters(0, None, 10).expect("reads");
    assert!(letters[0].1.detail.starts_with("200001 facts in one message"), "{}", letters[0].1.detail);
    assert!(matches!(&letters[0].1.remains, Remains::Record(bytes) if bytes.len() > body.len()));
}

#[test]
fn a_retried_dead_letter_acts_as_the_delivery_would_have() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 5, 1), shop(2, "d1", 10, 1, 6, 2)]);
    let (id, _) = b.state.dead_letters(0, None, 10).expect("reads")[0].clone();
    b.feed(&[record(3, RecordBody::Decision(Decision::RetryDead(id)))]);
    assert_eq!(b.level("hall", "A"), tracked(6), "a person decided that the second body was right");
    assert_eq!(b.dead(), []);
    b.judge();
}

fn bsale_notice(second: i64, variant: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"cpnId":2,"resource":"/v2/stocks.json?variant={variant}&office=1","resourceId":"{variant}","topic":"stock","action":"put","officeId":"1","send":1503500856}}"#
    );
    deliver(second, "bsale", None, &[], &body)
}

fn bsale_answer(second: i64, key: &str, answers: Seq, sku: &str, quantity: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"count":1,"limit":25,"offset":0,"items":[{{"quantity":{quantity},"quantityReserved":0,"quantityAvailable":{quantity},"variant":{{"id":7079,"code":"{sku}"}},"office":{{"id":"1"}}}}]}}"#
    );
    let need = Need { key: key.into(), from: None };
    let fetched =
        Fetched { source: "bsale", need, answers, sent_at: at(second), page: 0, last: true, body: body.as_bytes() };
    record(second, RecordBody::Fetched(fetched))
}

#[test]
fn a_thin_notification_becomes_one_task_that_ends_with_a_newer_answer_only() {
    let mut b = Bench::new();
    b.feed(&[bsale_notice(1, "7079"), bsale_notice(1, "7079")]);
    let tasks: Vec<_> = b.state.tasks().values().cloned().collect();
    assert_eq!(tasks.len(), 1, "two notices of one second, one task");
    let key = tasks[0].need.key.to_string();
    let before_the_second = b.next - 2;
    b.feed(&[bsale_answer(2, &key, before_the_second, "BS", "60.36")]);
    assert_eq!(b.level("hall", "BS"), Some(Value::Tracked("60.36".parse().expect("a number"))));
    assert_eq!(b.state.tasks().len(), 1, "the second notice came after the request was sent");
    let head = b.next - 1;
    b.feed(&[bsale_answer(3, &key, head, "BS", "59")]);
    assert_eq!(b.level("hall", "BS"), tracked(59));
    assert!(b.state.tasks().is_empty());
    b.judge();
}

#[test]
fn an_answer_loses_to_what_arrived_after_its_request_was_sent() {
    let mut b = Bench::new();
    b.feed(&[bsale_notice(1, "7079")]);
    let key = b.state.tasks().values().next().expect("a task").need.key.to_string();
    let sent = b.next - 1;
    b.feed(&[bsale_answer(5, &key, sent + 1, "BS", "10"), bsale_answer(6, &key, sent, "BS", "99")]);
    assert_eq!(b.level("hall", "BS"), tracked(10), "the slower answer was asked for earlier");
}

#[test]
fn a_fetch_that_is_given_up_is_a_dead_letter_and_can_be_asked_again() {
    let mut b = Bench::new();
    b.feed(&[bsale_notice(1, "7079")]);
    let need = b.state.tasks().values().next().expect("a task").need.clone();
    let answers = b.next - 1;
    b.feed(&[record(2, RecordBody::FetchFailed(FetchFailed { source: "bsale", need, answers, cause: "404" }))]);
    assert!(b.state.tasks().is_empty());
    let (id, letter) = b.state.dead_letters(0, None, 10).expect("reads")[0].clone();
    assert_eq!(letter.cause, Cause::FetchFailed);
    b.feed(&[record(3, RecordBody::Decision(Decision::RetryDead(id)))]);
    assert_eq!(b.state.tasks().len(), 1);
    assert_eq!(b.dead(), []);
}

#[test]
fn two_numbers_with_one_stamp_are_settled_by_asking() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 5, 7), shop(2, "d2", 10, 1, 4, 7)]);
    assert_eq!(b.level("hall", "A"), tracked(4), "until the answer comes, the later arrival counts");
    assert_eq!(b.source("shop").equal_stamps, 1);
    assert_eq!(b.state.tasks().values().map(|t| &*t.need.key).collect::<Vec<_>>(), ["stock/10/1"]);
    b.judge();
}

#[test]
fn the_platforms_answer_settles_a_tie_even_when_nothing_came_in_between() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 4, 7), shop(2, "d2", 10, 1, 5, 7)]);
    let head = b.next - 1;
    let updated = at(7).to_string();
    let body = format!(
        r#"{{"inventory_levels":[{{"inventory_item_id":10,"location_id":1,"available":4,"updated_at":"{updated}"}}]}}"#
    );
    let need = Need { key: "stock/10/1".into(), from: None };
    let fetched =
        Fetched { source: "shop", need, answers: head, sent_at: at(3), page: 0, last: true, body: body.as_bytes() };
    b.feed(&[record(3, RecordBody::Fetched(fetched))]);
    assert_eq!(b.level("hall", "A"), tracked(4), "the webhooks came in the wrong order, and the shop says so");
    assert!(b.state.tasks().is_empty(), "and is not asked again because of its own answer");
    b.judge();
}

#[test]
fn a_new_authority_list_and_a_new_low_mark_go_through_the_levels() {
    let mut b = Bench::new();
    b.feed(&[shop(1, "d1", 10, 1, 5, 1), bsale_notice(2, "7079")]);
    let head = b.next - 1;
    b.feed(&[bsale_answer(3, "stock/7079/1", head, "A", "3")]);
    assert_eq!(b.level("hall", "A"), tracked(5), "shop is first on the list");
    let mut changed = policy();
    let hall = changed.warehouses.get_mut("hall").expect("there");
    hall.authority = vec!["bsale".to_owned(), "shop".to_owned()];
    hall.low = Some("3".to_owned());
    b.feed(&[record(4, RecordBody::Policy(&changed.to_canonical()))]);
    assert_eq!(b.level("hall", "A"), tracked(3));
    let hall = b.state.find_warehouse("hall").expect("known");
    assert_eq!(b.state.totals_mut(hall).low, 1);
    b.judge();
}

#[test]
fn old_keys_are_forgotten_after_the_longest_horizon_and_not_before() {
    let mut b = Bench::new();
    let many: Vec<Vec<u8>> = (0..100).map(|n| moved(1, &format!("m{n}"), "D", 1, 1)).collect();
    b.feed(&many);
    assert_eq!(b.level("gen", "D"), tracked(100));
    b.feed(&many);
    assert_eq!(b.level("gen", "D"), tracked(100), "every repeat is known, sealed generations included");
    let later = i64::try_from(Duration::from_secs(60 * 24 * 3600).as_secs()).expect("small");
    b.feed(&[moved(later, "late", "D", 1, later), moved(later, "m0", "D", 1, later)]);
    assert_eq!(b.level("gen", "D"), tracked(102), "two months later the id means nothing any more");
}

/// Batches that found no room in the queue are only in the journal. When that cannot be read, nothing may be folded in their
/// place: the cursor would go past them for good.
#[test]
fn a_batch_behind_a_gap_waits_until_the_journal_can_be_read() {
    let directory = TempDir::new().expect("a directory");
    let records: Vec<Vec<u8>> = (1..=10).map(|n| moved(n, &format!("d-{n}"), "A", 1, n)).collect();
    let journal = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let (appender, writer) = journal.start(100, |_| {}).expect("starts");
    for bytes in rules().into_iter().chain(records.clone()) {
        appender.append(bytes).expect("room").durable_blocking().expect("durable");
    }
    drop(appender);
    writer.join().expect("ends");
    journal.close();

    let fold_until_stop = |journal: Journal, state: &SharedState, batch: Option<Batch>| {
        let fold = Fold::new(state, ItemMaps::default());
        let handle = fold.handle();
        if let Some(batch) = batch {
            handle.offer(batch);
        }
        let thread = fold.start(Arc::clone(state), journal, Duration::from_secs(60)).expect("starts");
        handle.stop(crate::time::instant() + Duration::from_secs(60));
        thread.join().expect("ends");
        let state = state.read().expect("not poisoned");
        (state.meta.cursor, state.meta.ledger)
    };
    let state = Arc::new(RwLock::new(State::open(directory.path(), CACHE).expect("opens")));
    let last_three = Batch { first: 10, records: records[7..].to_vec() };
    assert_eq!(fold_until_stop(journal, &state, Some(last_three)), (0, 0), "eight records are missing before it");
    let journal = Journal::open(directory.path(), CACHE, 0).expect("opens again");
    assert_eq!(fold_until_stop(journal, &state, None), (12, 10), "every record was folded in the end");
}

/// A journal as it might be: every kind of record, repeats, strangers, decisions, in any order.
fn arb_record(n: usize) -> impl Strategy<Value = Vec<u8>> {
    let second = i64::try_from(n).expect("small");
    prop_oneof![
        6 => (0_u32..60, prop_oneof![Just(10_u64), Just(11), Just(77)], 1_u64..4, -3_i64..9, 0_i64..40)
            .prop_map(move |(id, item, location, available, updated)| shop(second, &format!("s{id}"), item, location, available, updated)),
        3 => (0_usize..3, 0_i64..5).prop_map(move |(sku, n)| jetti(second, ["J", "K", ""][sku], n)),
        4 => (0_u32..80, 0_usize..2, -4_i64..5, 0_i64..40)
            .prop_map(move |(id, sku, by, said)| moved(second, &format!("m{id}"), ["D", "E"][sku], by, said)),
        2 => Just(bsale_notice(second, "7079")),
        2 => (0_u64..40, 0_u32..90).prop_map(move |(answers, q)| bsale_answer(second, "stock/7079/1", answers, "BS", &q.to_string())),
        1 => "\\PC{0,20}".prop_map(move |body| deliver(second, "woo", None, &[("x-wc-webhook-topic", "product.updated")], &body)),
        1 => (0_u64..6).prop_map(move |id| record(second, RecordBody::Decision(Decision::RetryDead(id)))),
        1 => Just(record(second, RecordBody::Decision(Decision::MapItem { source: "shop", item: "77", sku: "C" }))),
        1 => Just(record(second, RecordBody::Decision(Decision::MapLocation { source: "shop", location: "3", warehouse: "yard" }))),
        1 => Just(parts(&other_items()).remove(0)),
        1 => any::<bool>().prop_map(move |other| names(&if other { other_items() } else { items() })),
        1 => any::<bool>().prop_map(move |flip| {
            let mut changed = policy();
            if flip {
                changed.warehouses.get_mut("hall").expect("there").authority.reverse();
            }
            record(second, RecordBody::Policy(&changed.to_canonical()))
        }),
    ]
}

pub(super) fn arb_journal() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (20_usize..160).prop_flat_map(|length| (0..length).map(arb_record).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// One journal, one state, byte for byte: whatever the checkpoints, and wherever the process died in between.
    #[test]
    fn the_state_is_a_function_of_the_journal(
        journal in arb_journal(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
    ) {
        let mut straight = Bench::new();
        straight.feed(&journal);
        straight.checkpoint();
        straight.judge();

        let directory = TempDir::new().expect("a directory");
        let mut all = rules();
        all.extend(journal.iter().cloned());
        let mut bench = Bench::open(directory.path());
        for (checkpoint, death) in cuts {
            let done = usize::try_from(bench.next).expect("small") - 1;
            let checkpoint = done + checkpoint.index(all.len() - done + 1);
            let death = checkpoint + death.index(all.len() - checkpoint + 1);
            bench.feed(&all[done..checkpoint]);
            bench.checkpoint();
            bench.feed(&all[checkpoint..death]);
            // what was folded after the checkpoint dies with the process
            drop(bench);
            bench = Bench::open(directory.path());
            prop_assert_eq!(bench.next, u64::try_from(checkpoint).expect("small") + 1);
        }
        let done = usize::try_from(bench.next).expect("small") - 1;
        for part in all[done..].chunks(3) {
            bench.feed(part);
            bench.checkpoint();
        }
        prop_assert_eq!(straight.state.first_difference(&bench.state).expect("reads"), None);
        prop_assert_eq!(straight.state.digest().expect("reads"), bench.state.digest().expect("reads"));
    }

    /// Platforms repeat and reorder as they like: with distinct stamps the levels are those of the facts in their own order,
    /// whatever arrived when and how often.
    #[test]
    fn levels_do_not_depend_on_the_order_or_the_repeats_of_deliveries(
        (facts, shuffled) in proptest::collection::vec((10_u64..12, 1_u64..3, -5_i64..50), 1..40).prop_flat_map(|facts| {
            let numbered: Vec<(usize, (u64, u64, i64))> = facts.into_iter().enumerate().collect();
            let mut repeated = numbered.clone();
            repeated.extend(numbered.iter().step_by(3).copied());
            (Just(numbered), Just(repeated).prop_shuffle())
        }),
    ) {
        let deliver = |list: &[(usize, (u64, u64, i64))]| {
            let mut bench = Bench::new();
            for (second, (n, (item, location, available))) in (1..).zip(list) {
                let said = i64::try_from(*n).expect("small");
                bench.feed(&[shop(second, &format!("d{n}"), *item, *location, *available, said)]);
            }
            bench.judge();
            ["hall", "yard"].map(|w| ["A", "B"].map(|sku| bench.level(w, sku)))
        };
        prop_assert_eq!(deliver(&facts), deliver(&shuffled));
    }
}
