//! A state that folds on while a checkpoint of it is written.

use proptest::prelude::*;

use super::tests::{Bench, arb_journal};
use crate::store::state::{State, Unwritten, Verifier};

/// Everything that can be asked of it.
fn told(state: &State) -> Vec<String> {
    let stock = state.stock(None, None, 1000).expect("reads");
    let paged = |rows: usize| {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = state.stock(None, after.as_ref(), rows).expect("reads");
            let Some((last, _)) = page.last() else { return pages };
            after = Some(last.clone());
            pages.extend(page);
        }
    };
    assert_eq!(paged(2), stock, "page by page it is the same");
    let mut told = vec![
        format!("{:?}", state.meta),
        format!("{:?}", state.dead_letters(0, None, 1000).expect("reads")),
        format!("{:?}", state.dead_counts()),
        format!("{:?}", state.tasks()),
        format!("{:?}", state.all_parked()),
        format!("{:?}", state.deliveries_remembered()),
        format!("{:?}", state.sources().collect::<Vec<_>>()),
        format!("{:?}", state.warehouses().collect::<Vec<_>>()),
    ];
    told.extend((1..=state.meta.ledger).map(|n| format!("{:?}", state.audit_entry(n).expect("reads").expect("is there"))));
    for (key, position) in stock {
        assert_eq!(state.position(&key).expect("reads").as_ref(), Some(&position));
        told.push(format!("{key:?} {position:?} {:?}", state.history(&position, 100).expect("reads")));
    }
    told
}

/// What becomes of a checkpoint.
#[derive(Debug, Clone, Copy)]
enum End {
    Written,
    NotWritten,
    /// The disk said that it failed, and has it all the same.
    WrittenAndDenied,
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![3 => Just(End::Written), 1 => Just(End::NotWritten), 1 => Just(End::WrittenAndDenied)]
}

fn end(bench: &mut Bench, unwritten: Unwritten, end: End) {
    match end {
        End::Written => {
            unwritten.write().expect("writes");
            bench.state.written().expect("reads");
        }
        End::NotWritten => {
            drop(unwritten);
            bench.state.not_written();
        }
        End::WrittenAndDenied => {
            unwritten.write().expect("writes");
            bench.state.not_written();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_tells_the_same_before_while_and_after_it_is_written(
        journal in arb_journal(),
        steps in proptest::collection::vec((1_usize..9, proptest::option::of(ends())), 30),
    ) {
        let (mut straight, mut layered) = (Bench::new(), Bench::new());
        let (mut rest, mut under_way) = (journal.as_slice(), None);
        for (records, what) in steps.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, later) = rest.split_at(records.min(rest.len()));
            rest = later;
            straight.feed(part);
            layered.feed(part);
            match (under_way.take(), what) {
                (None, Some(_)) => under_way = Some(layered.state.freeze().expect("is open")),
                (Some(unwritten), Some(what)) => end(&mut layered, unwritten, what),
                (still, None) => under_way = still,
            }
            prop_assert_eq!(told(&straight.state), told(&layered.state));
        }
        if let Some(unwritten) = under_way {
            end(&mut layered, unwritten, End::Written);
        }
        prop_assert_eq!(&straight.tally, &layered.tally);
        straight.checkpoint();
        layered.checkpoint();
        prop_assert_eq!(straight.state.first_difference(&layered.state).expect("reads"), None);
        prop_assert_eq!(straight.state.digest().expect("reads"), layered.state.digest().expect("reads"));
        prop_assert_eq!(Verifier::all(&layered.state).expect("reads").problems, [] as [String; 0]);
    }
}
