//! What a position promises, one by one and over every order of arrival.

use super::*;
use crate::types::Seq;
use proptest::prelude::*;

fn units(n: i64) -> Quantity {
    Quantity::from_units(n).expect("small")
}

fn fact(source: u16, change: Change, at: Option<i64>, seq: Seq) -> Incoming {
    let stamp = Stamp { version: None, at: at.map(Timestamp::from_seconds), seq, part: 0 };
    let heard = Timestamp::from_seconds(1_000_000 + i64::try_from(seq).expect("small"));
    Incoming { source, change, stamp, digest: seq.to_be_bytes(), by_content: false, heard }
}

fn number(p: &Position) -> Option<Value> {
    p.effective.map(|(_, v)| v)
}

fn feed(facts: &[Incoming], authority: &[u16]) -> Position {
    let mut position = Position::default();
    for fact in facts {
        position.apply(fact, authority).expect("in range");
    }
    position
}

#[test]
fn an_older_number_never_replaces_a_newer_one() {
    let mut p = Position::default();
    p.apply(&fact(1, Change::Absolute(units(5)), Some(100), 1), &[]).expect("in range");
    let (outcome, equal) = p.apply(&fact(1, Change::Absolute(units(9)), Some(99), 2), &[]).expect("in range");
    assert_eq!((outcome, equal), (Outcome::Ignored(Ignored::Stale), false));
    assert_eq!(number(&p), Some(Value::Tracked(units(5))));
}

#[test]
fn a_platform_version_beats_its_time() {
    let mut p = Position::default();
    let mut first = fact(1, Change::Absolute(units(5)), Some(100), 1);
    first.stamp.version = Some(7);
    let mut second = fact(1, Change::Absolute(units(6)), Some(50), 2);
    second.stamp.version = Some(8);
    p.apply(&first, &[]).expect("in range");
    let (outcome, _) = p.apply(&second, &[]).expect("in range");
    assert!(matches!(outcome, Outcome::Changed { rule: Rule::NewerVersion, .. }));
}

#[test]
fn an_equal_stamp_with_another_number_takes_the_later_arrival_and_says_so() {
    let mut p = Position::default();
    p.apply(&fact(1, Change::Absolute(units(5)), Some(100), 1), &[]).expect("in range");
    let (outcome, equal) = p.apply(&fact(1, Change::Absolute(units(6)), Some(100), 2), &[]).expect("in range");
    assert!(matches!(outcome, Outcome::Changed { rule: Rule::EqualStamp, .. }));
    assert!(equal);
    let (outcome, equal) = p.apply(&fact(1, Change::Absolute(units(6)), Some(100), 3), &[]).expect("in range");
    assert_eq!((outcome, equal), (Outcome::Ignored(Ignored::Duplicate), false));
}

#[test]
fn a_body_without_an_id_repeats_only_right_after_itself() {
    let body = |digest: u8, n: i64, seq| Incoming {
        digest: [digest; 8],
        by_content: true,
        ..fact(1, Change::Absolute(units(n)), None, seq)
    };
    let mut p = Position::default();
    let mut outcomes = Vec::new();
    for f in [body(1, 5, 1), body(1, 5, 2), body(2, 3, 3), body(1, 5, 4)] {
        outcomes.push(p.apply(&f, &[]).expect("in range").0);
    }
    assert_eq!(outcomes[1], Outcome::Ignored(Ignored::Duplicate));
    assert!(
        matches!(outcomes[3], Outcome::Changed { after, .. } if after == Value::Tracked(units(5))),
        "A, B, A is three reports"
    );
}

#[test]
fn a_clock_set_back_does_not_make_arrivals_stale() {
    let mut early = fact(1, Change::Absolute(units(7)), None, 2);
    early.heard = Timestamp::from_seconds(5);
    let p = feed(&[fact(1, Change::Absolute(units(5)), None, 1), early], &[]);
    assert_eq!(number(&p), Some(Value::Tracked(units(7))));
}

#[test]
fn a_lesser_source_is_evidence_and_changes_nothing() {
    let mut p = feed(&[fact(2, Change::Absolute(units(5)), Some(100), 1)], &[2, 1]);
    let (outcome, _) = p.apply(&fact(1, Change::Absolute(units(9)), Some(500), 2), &[2, 1]).expect("in range");
    assert_eq!(outcome, Outcome::Ignored(Ignored::NotAuthority));
    assert_eq!(p.effective, Some((2, Value::Tracked(units(5)))));
    let changed = p.reconsider(&[1, 2]).expect("the list changed");
    assert!(matches!(changed, Outcome::Changed { by: 1, rule: Rule::Authority, .. }));
}

#[test]
fn without_a_list_the_newest_report_of_any_source_counts() {
    let p =
        feed(&[fact(2, Change::Absolute(units(5)), Some(100), 1), fact(1, Change::Absolute(units(9)), Some(500), 2)], &[]);
    assert_eq!(p.effective, Some((1, Value::Tracked(units(9)))));
}

#[test]
fn untracked_is_not_zero_and_swallows_deltas() {
    let mut p = feed(&[fact(1, Change::Untracked, Some(1), 1)], &[]);
    assert_eq!(number(&p), Some(Value::Untracked));
    let (outcome, _) = p.apply(&fact(1, Change::Delta(units(3)), Some(2), 2), &[]).expect("in range");
    assert_eq!(outcome, Outcome::Ignored(Ignored::NotTracked));
}

#[test]
fn a_sum_out_of_range_leaves_the_position_as_it_was() {
    let most = Quantity::from_micros(i64::MAX);
    let mut p = feed(&[fact(1, Change::Absolute(most), Some(1), 1)], &[]);
    let before = p.clone();
    assert_eq!(p.apply(&fact(1, Change::Delta(units(1)), Some(2), 2), &[]), Err(OutOfRange));
    assert_eq!(p, before);
}

fn arb_facts() -> impl Strategy<Value = Vec<Incoming>> {
    let change = prop_oneof![
        4 => (-50_i64..50).prop_map(|n| Change::Absolute(units(n))),
        3 => (-5_i64..5).prop_map(|n| Change::Delta(units(n))),
    ];
    proptest::collection::vec((1_u16..4, change), 1..24).prop_map(|list| {
        list.into_iter()
            .enumerate()
            .map(|(i, (source, change))| {
                let n = i64::try_from(i).expect("small");
                fact(source, change, Some(n), Seq::try_from(i).expect("small") + 1)
            })
            .collect()
    })
}

proptest! {
    /// The number is a function of the set of facts, not of the order in which they came.
    #[test]
    fn any_order_of_distinct_stamps_gives_the_same_number(
        (facts, shuffled) in arb_facts().prop_flat_map(|f| (Just(f.clone()), Just(f).prop_shuffle())),
        authority in proptest::sample::subsequence(vec![1_u16, 2, 3], 0..=3),
    ) {
        let straight = feed(&facts, &authority);
        let mixed = feed(&shuffled, &authority);
        prop_assert_eq!(straight.effective, mixed.effective);
    }

    /// A fact that comes twice counts once (absolute ones; a delta's repeat is known by its delivery id before it gets here).
    #[test]
    fn a_repeated_absolute_fact_changes_nothing(facts in arb_facts(), again in any::<prop::sample::Index>()) {
        let straight = feed(&facts, &[]);
        let mut twice = straight.clone();
        let repeat = facts[again.index(facts.len())];
        if let Change::Absolute(_) = repeat.change {
            let (outcome, _) = twice.apply(&repeat, &[]).expect("in range");
            prop_assert!(matches!(outcome, Outcome::Ignored(_)));
        }
        prop_assert_eq!(straight.effective, twice.effective);
    }
}
