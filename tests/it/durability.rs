//! 200 means that it is on disk: the gateway killed and stopped under load.

use std::collections::BTreeMap;

use stockgate::store::rows::PositionKey;
use stockgate::store::state::State;
use stockgate::types::Quantity;

use crate::gateway::{DELTA, Gateway, Site};
use crate::load::{Books, SKUS, id, sku};
use crate::process::{run, stockgate};

/// Lives that end by SIGKILL.
const KILLS: u64 = 20;

/// A small generator with a seed (SplitMix64), so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// How often each delivery stands in the journal.
fn counts(site: &Site) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (label, _) in site.deliveries() {
        *counts.entry(label).or_default() += 1;
    }
    counts
}

/// Every level is the number of deliveries that moved it by one: each was folded exactly once.
fn levels_are_counts(state: &State, books: &Books) {
    let warehouse = state.find_warehouse("main").expect("the warehouse");
    let mut expected = BTreeMap::new();
    for n in books.acknowledged() {
        *expected.entry(sku(n)).or_insert(0_i64) += 1;
    }
    assert_eq!(expected.len() as u64, SKUS);
    for (sku, count) in expected {
        let key = PositionKey { warehouse, sku: sku.as_str().into() };
        let position = state.position(&key).expect("it reads").expect("the position is there");
        let level = position.effective.and_then(|(_, value)| value.quantity());
        assert_eq!(level, Some(count.to_string().parse::<Quantity>().expect("a number")), "{sku}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_under_load_it_keeps_every_acknowledged_delivery_exactly_once() {
    let site = Site::new(&format!("{DELTA}\n[store]\ncheckpoint = \"300ms\"\n"));
    let books = Books::new();
    let mut random = Random(20_261_121);
    for life in 0..KILLS {
        let gateway = site.start();
        let senders = books.open(&gateway, &site, 5).await;
        // most lives are short, some long enough for checkpoints in between
        books.acknowledged_more(1 + random.below(if life % 4 == 0 { 2000 } else { 120 })).await;
        gateway.kill();
        books.close(senders).await;
    }
    let gateway = site.start();
    books.send_the_rest(&gateway, &site).await;
    let (code, log) = gateway.stop();
    assert_eq!(code, Some(0), "{log}");

    let (acknowledged, attempts, found) = (books.acknowledged(), books.attempts(), counts(&site));
    for n in &acknowledged {
        let times = found.get(&id(*n)).copied().unwrap_or(0);
        // sent once and acknowledged: there once. Sent again after a kill: each attempt may have reached the disk
        assert!((1..=attempts[n]).contains(&times), "{} was sent {} times and is there {times} times", id(*n), attempts[n]);
    }
    assert_eq!(found.len(), acknowledged.len(), "everything that was sent was acknowledged in the end");
    {
        let (head, state) = site.opened();
        assert_eq!(state.meta.cursor, head, "a stop folds everything");
        let (_, row) = state.sources().find(|(name, _)| *name == "gen").expect("the source");
        assert_eq!(row.accepted, acknowledged.len() as u64);
        assert_eq!(row.duplicates, found.values().sum::<u64>() - row.accepted, "a repeat is counted, not folded");
        assert_eq!((row.conflicts, row.dead), (0, 0));
        levels_are_counts(&state, &books);
    }
    for command in ["verify", "replay"] {
        let said = run(stockgate().arg(command).arg("--data").arg(site.data()), "").ok();
        assert!(said.contains(if command == "verify" { "ok" } else { "same" }), "{command}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_answers_what_it_took() {
    let site = Site::new(DELTA);
    let books = Books::new();
    let gateway = site.start();
    let senders = books.open(&gateway, &site, 5).await;
    books.acknowledged_more(300).await;
    let stopped = tokio::task::spawn_blocking(move || Gateway::stop(gateway));
    let (code, log) = stopped.await.expect("it stops");
    assert_eq!(code, Some(0), "{log}");
    books.close(senders).await;

    let found = counts(&site);
    assert!(found.values().all(|times| *times == 1), "nothing was sent twice");
    let acknowledged: Vec<String> = books.acknowledged().iter().map(|n| id(*n)).collect();
    let unanswered: Vec<&String> = found.keys().filter(|label| !acknowledged.contains(label)).collect();
    assert!(unanswered.is_empty(), "on disk, but their senders were not told: {unanswered:?}");
    assert_eq!(found.len(), acknowledged.len(), "acknowledged, but not on disk");
    let (head, state) = site.opened();
    assert_eq!(state.meta.cursor, head, "a stop folds everything");
    levels_are_counts(&state, &books);
}
