//! Is everything that was acknowledged there, once? Is anything there that was never sent?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stockgate::limits::{JOURNAL_CACHE_BYTES, STATE_CACHE_BYTES};
use stockgate::store::codec::decode_record;
use stockgate::store::journal::Journal;
use stockgate::store::state::State;
use stockgate::types::{DeliveryKey, RecordBody};

use super::Options;
use super::book::{self, Name, Times};

/// Problems that are written out.
const SHOWN: usize = 20;

/// What the journal holds.
#[derive(Default)]
struct Found {
    /// How often each delivery stands there.
    times: BTreeMap<Name, u64>,
    /// Deliveries of each source, and how many of them have names of their own.
    sources: BTreeMap<String, (u64, u64, BTreeSet<[u8; 16]>)>,
    problems: Vec<String>,
    records: u64,
    head: u64,
}

/// Check a stopped gateway's data against the book.
pub(crate) fn check(options: &Options) -> Result<String, String> {
    let (data, book_path) = (Path::new(options.get("--data")?), Path::new(options.get("--book")?));
    let book = book::read(book_path)?;
    let mut found = journal(data, &book)?;
    against_book(&book, &mut found);
    against_state(data, &mut found)?;
    let taken: u64 = book.values().map(|times| times.taken).sum();
    let summary = format!("{taken} acknowledged, {} records, head {}", found.records, found.head);
    if found.problems.is_empty() {
        return Ok(summary);
    }
    let count = found.problems.len();
    found.problems.truncate(SHOWN);
    Err(format!("{summary}; {count} problems:\n{}", found.problems.join("\n")))
}

fn journal(data: &Path, book: &BTreeMap<Name, Times>) -> Result<Found, String> {
    let say = |error: stockgate::store::StoreError| error.to_string();
    let journal = Journal::open(data, JOURNAL_CACHE_BYTES, 0).map_err(say)?;
    let mut found = Found { head: journal.head(), ..Found::default() };
    let mut next = journal.oldest();
    loop {
        let records = journal.read(next, 1000, 4 << 20).map_err(say)?;
        if records.is_empty() {
            break;
        }
        for (seq, bytes) in &records {
            if *seq != next {
                found.problems.push(format!("records {next} to {} are missing", seq - 1));
            }
            next = seq + 1;
            found.records += 1;
            match decode_record(bytes) {
                Ok(record) => {
                    if let RecordBody::Delivery(delivery) = record.body {
                        let of_source = found.sources.entry(delivery.source.to_owned()).or_default();
                        of_source.0 += 1;
                        if let DeliveryKey::Named(key) = delivery.key {
                            of_source.1 += 1;
                            of_source.2.insert(key);
                        }
                        let name = |id: &str| (delivery.source.to_owned(), id.to_owned(), delivery.body_digest);
                        let named = name(delivery.label);
                        // a sender without ids of its own may still send something that the gateway takes for one
                        let name = if book.contains_key(&named) { named } else { name("-") };
                        *found.times.entry(name).or_default() += 1;
                    }
                }
                Err(error) => found.problems.push(format!("record {seq}: {error}")),
            }
        }
    }
    if next != found.head + 1 {
        found.problems.push(format!("the journal says that it ends at {}, its last record is {}", found.head, next - 1));
    }
    Ok(found)
}

/// Each attempt is there at most once, each acknowledged one exactly once: so a delivery stands there at least as often as it
/// was acknowledged, and at most as often as it was sent.
fn against_book(book: &BTreeMap<Name, Times>, found: &mut Found) {
    let show = |(source, id, digest): &Name| format!("{source} {id} {}", data_encoding::HEXLOWER.encode(digest));
    for (name, times) in book {
        let there = found.times.get(name).copied().unwrap_or(0);
        if there < times.taken {
            found.problems.push(format!("LOST: {}: acknowledged {} times, there {there} times", show(name), times.taken));
        }
        if there > times.sent {
            found.problems.push(format!("TWICE: {}: sent {} times, there {there} times", show(name), times.sent));
        }
    }
    for name in found.times.keys().filter(|name| !book.contains_key(*name)) {
        found.problems.push(format!("INVENTED: {}: never sent", show(name)));
    }
}

/// The fold has counted every delivery of the journal, and none of a name twice as new.
fn against_state(data: &Path, found: &mut Found) -> Result<(), String> {
    let state = State::open(data, STATE_CACHE_BYTES).map_err(|error| error.to_string())?;
    if state.meta.cursor != found.head {
        found.problems.push(format!("the state ends at record {}, the journal at {}", state.meta.cursor, found.head));
    }
    let rows: BTreeMap<&str, _> = state.sources().collect();
    for (source, (deliveries, named, names)) in &found.sources {
        let row = rows.get(source.as_str()).copied().unwrap_or_default();
        let folded = row.accepted + row.duplicates + row.conflicts;
        if folded != *deliveries {
            found.problems.push(format!("{source}: {deliveries} deliveries, {folded} of them folded"));
        }
        // fewer are possible: the same number under the same stamp is a duplicate, whatever the delivery is called
        if named == deliveries && row.accepted > names.len() as u64 {
            found.problems.push(format!("{source}: {} delivery ids, {} taken as new", names.len(), row.accepted));
        }
    }
    Ok(())
}
