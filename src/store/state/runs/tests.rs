use std::collections::BTreeMap;

use proptest::prelude::*;
use redb::{Database, ReadableDatabase};

use super::write::{FRESH_MAX, MERGED_MAX};
use super::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn empty() -> Database {
    let database = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).expect("opens");
    let write = database.begin_write().expect("begins");
    for table in [POSITIONS, POSITION_BLOCKS, POSITION_MERGED] {
        write.open_table(table).expect("is made");
    }
    write.open_table(POSITION_RUNS).expect("is made");
    write.commit().expect("commits");
    database
}

fn checkpoint(database: &Database, cursor: u64, changed: &Rows) {
    let write = database.begin_write().expect("begins");
    let rows: Vec<(&[u8], &[u8])> = changed.iter().map(|(k, r)| (k.as_slice(), r.as_slice())).collect();
    put(&write, cursor, rows.into_iter()).expect("puts");
    write.commit().expect("commits");
}

fn all(positions: &Positions, from: &[u8]) -> Rows {
    let (mut merged, mut rows) = (positions.from(from).expect("opens"), Rows::new());
    while let Some((key, row)) = merged.next().expect("reads") {
        assert!(rows.last_key_value().is_none_or(|(last, _)| last.as_slice() < key), "each once, in order");
        rows.insert(key.to_vec(), row.to_vec());
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// It is a map, whichever way each checkpoint was written, and whether or not its runs were known before.
    #[test]
    fn it_says_what_a_map_says(
        checkpoints in proptest::collection::vec(
            proptest::collection::btree_map((0_u8..60).prop_map(|n| vec![n / 20; usize::from(n)]), any::<[u8; 3]>(), 0..30),
            1..130,
        ),
        reread in any::<u8>(),
    ) {
        let (database, mut map) = (empty(), Rows::new());
        let mut known: Option<Positions> = None;
        let mut most = 0;
        for (cursor, changed) in (1..).zip(checkpoints) {
            let changed: Rows = changed.into_iter().map(|(key, row)| (key, row.to_vec())).collect();
            checkpoint(&database, cursor, &changed);
            map.extend(changed);
            let read = database.begin_read().expect("begins");
            let positions = Positions::open(&read, known.as_ref().filter(|_| cursor % 7 != u64::from(reread % 7))).expect("opens");
            most = most.max(positions.runs.len());
            prop_assert_eq!(all(&positions, &[]), map.clone());
            for n in (0..64).skip(usize::from(reread % 5)).step_by(5) {
                let key = vec![n / 20; usize::from(n)];
                let found = positions.get(&key, |row| Ok(row.to_vec())).expect("reads");
                prop_assert_eq!(found.as_ref(), map.get(&key));
                let rest: Rows = map.range(key.clone()..).map(|(k, r)| (k.clone(), r.clone())).collect();
                prop_assert_eq!(all(&positions, &key), rest);
            }
            known = Some(positions);
        }
        prop_assert!(most <= FRESH_MAX + MERGED_MAX);
    }
}

/// Fresh runs become merged ones, those become part of the table, and what was in them can be read all the time.
#[test]
fn runs_become_part_of_the_table() {
    let database = empty();
    let row = |key: u8, value: u8| (vec![key], vec![value]);
    checkpoint(&database, 1, &(0..9).map(|n| row(n, 0)).collect());
    let levels = |database: &Database| {
        let positions = Positions::open(&database.begin_read().expect("begins"), None).expect("opens");
        assert!(positions.runs.iter().is_sorted_by(|a, b| a.0 > b.0), "the newest first");
        let of = |level| positions.runs.iter().filter(|(_, l, _)| *l == level).count();
        (of(Level::Fresh), of(Level::Merged))
    };
    assert_eq!(levels(&database), (0, 0), "the first rows go where they belong");
    let mut cursor = 1;
    let mut next = |rows: Rows| {
        cursor += 1;
        checkpoint(&database, cursor, &rows);
        levels(&database)
    };
    for merged in 0..MERGED_MAX {
        for fresh in 0..FRESH_MAX {
            assert_eq!(next([row(1, 1), row(2, 2), row(3, 3)].into()), (fresh + 1, merged));
        }
        assert_eq!(next([row(5, 5)].into()), (0, merged + 1));
    }
    for fresh in 0..FRESH_MAX {
        assert_eq!(next([row(6, 6)].into()), (fresh + 1, MERGED_MAX));
    }
    let expected: Rows = (0..9).map(|n| row(n, [0, 1, 2, 3, 0, 5, 6, 0, 0][usize::from(n)])).collect();
    let positions = Positions::open(&database.begin_read().expect("begins"), None).expect("opens");
    assert_eq!(all(&positions, &[]), expected);
    assert_eq!(next([row(3, 4)].into()), (0, 0));
    let read = database.begin_read().expect("begins");
    let table = read.open_table(POSITIONS).expect("opens");
    let values: Vec<u8> = table
        .range::<&[u8]>(..)
        .expect("reads")
        .map(|r| r.expect("reads").1.value().first().copied().expect("one byte"))
        .collect();
    assert_eq!(values, [0, 1, 2, 4, 0, 5, 6, 0, 0]);
    for level in [Level::Fresh, Level::Merged] {
        assert!(read.open_table(level.blocks()).expect("opens").range::<&[u8]>(..).expect("reads").next().is_none());
    }
}

#[test]
fn a_run_without_its_rows_is_damage_and_not_silence() {
    let database = empty();
    checkpoint(&database, 1, &(0..9).map(|n| (vec![n], vec![0])).collect());
    checkpoint(&database, 2, &(0..9).map(|n| (vec![n], vec![1])).collect());
    let read = database.begin_read().expect("begins");
    let before = Positions::open(&read, None).expect("opens");
    assert_eq!(before.runs.len(), 1);
    let write = database.begin_write().expect("begins");
    write.open_table(POSITION_BLOCKS).expect("opens").remove(&block_key(2, 0)[..]).expect("removes");
    write.commit().expect("commits");
    let read = database.begin_read().expect("begins");
    let lacking = Positions::open(&read, None).expect("opens");
    assert!(matches!(lacking.get(&[0], |row| Ok(row.to_vec())), Err(StoreError::Row(_))));
    let write = database.begin_write().expect("begins");
    write.delete_table(POSITION_BLOCKS).expect("deletes");
    write.open_table(POSITION_BLOCKS).expect("opens");
    write.commit().expect("commits");
    let read = database.begin_read().expect("begins");
    assert!(matches!(Positions::open(&read, None), Err(StoreError::Row(_))));
    assert_eq!(before.get(&[0], |row| Ok(row.to_vec())).expect("reads"), Some(vec![1]), "who reads an older moment goes on");
}

#[test]
fn the_hash_of_a_key_is_part_of_the_form() {
    assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
    assert_eq!(hash(b"\0\x01SKU-1"), 0xc490_2d15_2ecf_58cd);
}
