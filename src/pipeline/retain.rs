//! Ages raw deliveries out of the journal, by age and by bytes, and never one that the state does not hold durably.

use std::time::Duration;

use tokio::sync::watch;

use crate::limits::RETENTION_PERIOD;
use crate::store::journal::{Appender, Retention};
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

/// Look once a minute until told to stop. `folded` says up to where the state is durable.
pub async fn run(journal: Appender, keep: watch::Receiver<Keep>, folded: impl Fn() -> Seq, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RETENTION_PERIOD) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let Keep { age, bytes } = *keep.borrow();
        let before = Timestamp(time::now().0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        journal.retain(Retention { before, max_bytes: bytes, folded: folded() }).await;
    }
}
