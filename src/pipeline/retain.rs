//! Ages raw deliveries out of the journal, by age and by bytes, and never one that the state does not hold durably.

use std::time::Duration;

use tokio::sync::watch;

use crate::limits::RETENTION_PERIOD;
use crate::store::StoreError;
use crate::store::journal::{Aged, Appender, Retention};
use crate::time::{self, Timestamp};
use crate::types::Seq;

/// How much is kept; what is older **or** past the bytes goes, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// By age.
    pub age: Duration,
    /// By bytes of records.
    pub bytes: u64,
}

/// A piece of the journal is removed when it is at least this share of what is kept, or a day after the last: each removal
/// needs a snapshot that is brought up to date, in which most positions have changed by then, and flash wears.
const PIECES: u64 = 8;
const AT_LEAST_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Look once a minute until told to stop, and at once when the disk has become full (`tight`): then every piece is worth it.
///
/// `folded` says up to where the state is durable; `snapshot` brings the copy of the state up to date that stands for the removed
/// records from then on, and says up to where it reaches. Without one nothing is removed: state and journal together always hold
/// everything that was ever acknowledged.
pub async fn run<F, S>(
    journal: Appender,
    keep: watch::Receiver<Keep>,
    folded: impl Fn() -> Seq,
    snapshot: F,
    mut tight: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) where
    F: Fn() -> S,
    S: Future<Output = Result<Seq, StoreError>>,
{
    let mut removed_at = time::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(RETENTION_PERIOD) => {}
            Ok(()) = tight.changed() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let now = time::now();
        let Keep { age, bytes } = *keep.borrow();
        let before = Timestamp(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        let look = Retention { before, max_bytes: bytes, folded: folded(), only_look: true };
        let would = journal.retain(look).await;
        let keep = if *tight.borrow() { 0 } else { bytes };
        if !worth_it(would, keep, now.since(removed_at)) {
            continue;
        }
        match snapshot().await {
            Ok(reaches) => {
                journal
                    .retain(Retention { folded: reaches.min(look.folded.max(would.last)), only_look: false, ..look })
                    .await;
                removed_at = now;
            }
            Err(error) => tracing::warn!(%error, "no snapshot of the state: raw deliveries stay"),
        }
    }
}

fn worth_it(would: Aged, keep: u64, since: Duration) -> bool {
    would.last > 0 && (would.bytes >= keep.checked_div(PIECES).unwrap_or(0) || since >= AT_LEAST_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::encode_record;
    use crate::store::journal::Journal;
    use crate::types::{Record, RecordBody};

    /// A journal of forty records in many segments, kept to one segment's bytes.
    async fn full_journal(directory: &std::path::Path) -> (Journal, Appender, std::thread::JoinHandle<()>) {
        let journal = Journal::open(directory, 1 << 20, 0).expect("opens");
        let (appender, thread) = journal.start_with(64, 1, |_| {}).expect("starts");
        for n in 0..40 {
            let body = RecordBody::Policy("{}");
            let record = encode_record(&Record { at: Timestamp::from_seconds(n), body });
            appender.append(record).expect("room").durable().await.expect("durable");
        }
        (journal, appender, thread)
    }

    #[tokio::test(start_paused = true)]
    async fn records_go_only_after_a_snapshot_that_holds_them() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let (journal, appender, thread) = full_journal(directory.path()).await;
        let (_keep, keep) = watch::channel(Keep { age: Duration::from_secs(1 << 40), bytes: 1 });
        let (stop, stopping) = watch::channel(false);
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let asking = std::sync::Arc::clone(&asked);
        let seen = journal.clone();
        // the first snapshot fails, the second reaches record 20, later ones record 30
        let snapshot = move || {
            let n = asking.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let oldest = seen.oldest();
            async move {
                match n {
                    0 => Err(StoreError::Io("no room".to_owned())),
                    1 => {
                        assert_eq!(oldest, 1, "nothing went without a snapshot");
                        Ok(20)
                    }
                    _ => Ok(30),
                }
            }
        };
        let mut worker = tokio::task::JoinSet::new();
        let (_tight, tight) = watch::channel(false);
        worker.spawn(run(appender.clone(), keep, || 30, snapshot, tight, stopping));
        while journal.oldest() != 31 {
            tokio::time::advance(RETENTION_PERIOD).await;
            assert!(worker.try_join_next().is_none(), "the worker works on");
        }
        assert!(asked.load(std::sync::atomic::Ordering::SeqCst) >= 3);
        assert!(journal.get(31).expect("reads").is_some(), "what is not folded stays");
        stop.send_replace(true);
        worker.join_next().await.expect("one worker").expect("no panic");
        drop(appender);
        thread.join().expect("ends");
    }

    #[test]
    fn small_pieces_wait_for_a_day() {
        let piece = |bytes| Aged { bytes, last: 1 };
        assert!(!worth_it(Aged::default(), 1 << 30, AT_LEAST_EVERY));
        assert!(!worth_it(piece(16 << 20), 1 << 30, Duration::from_secs(60)));
        assert!(worth_it(piece(16 << 20), 1 << 30, AT_LEAST_EVERY));
        assert!(worth_it(piece(128 << 20), 1 << 30, Duration::from_secs(60)));
        assert!(worth_it(piece(1), 0, Duration::from_secs(1)), "on a full disk every piece counts");
    }
}
