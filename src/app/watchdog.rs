//! A sign of life for the service manager, given only while the threads that matter do their work.
//!
//! This runs on the runtime, so it stops with it. The journal's and the fold's threads each have a [`Heart`]; at every look both are
//! poked, and by the next one both must have beaten: busy ones with what they do, idle ones because they were poked. A sync that does
//! not return, a fold that turns in a circle, a thread that has died: its heart stands still, no sign is given, and when the
//! period is over the manager kills the process. A restart costs nothing that was acknowledged.

use std::sync::Arc;

use super::manager::{Manager, Progress};
use crate::limits::WATCHDOG_LOOKS;
use crate::pipeline::apply::FoldHandle;
use crate::store::heart::Heart;
use crate::store::journal::{Appender, Journal};
use crate::time;

/// Run for as long as the gateway does.
pub(super) async fn run(manager: Arc<Manager>, journal: Journal, appender: Appender, fold: FoldHandle) {
    let Some(period) = manager.watchdog() else { return };
    let mut watch = Watch::new(vec![("journal", journal.heart().clone()), ("fold", fold.heart().clone())]);
    let (half, mut signed) = (period / 2, time::instant());
    while fold.alive() {
        appender.poke();
        fold.poke();
        tokio::time::sleep(period / WATCHDOG_LOOKS).await;
        if watch.all_beat() && signed.elapsed() >= half {
            manager.alive();
            signed = time::instant();
        }
    }
}

/// Hearts that are looked at.
struct Watch {
    hearts: Vec<(&'static str, Heart, Progress)>,
    /// Looks in a row at which one of them stood still.
    still: u32,
}

impl Watch {
    fn new(hearts: Vec<(&'static str, Heart)>) -> Self {
        let with_progress = |(name, heart): (&'static str, Heart)| {
            let mut progress = Progress::default();
            progress.made(heart.beats());
            (name, heart, progress)
        };
        Self { hearts: hearts.into_iter().map(with_progress).collect(), still: 0 }
    }

    /// All of them have beaten since the last look.
    fn all_beat(&mut self) -> bool {
        let still: Vec<&str> = self
            .hearts
            .iter_mut()
            .filter_map(|(name, heart, progress)| (!progress.made(heart.beats())).then_some(*name))
            .collect();
        if still.is_empty() {
            self.still = 0;
            return true;
        }
        self.still += 1;
        // half of the period: whoever reads the log after a kill should know why
        if self.still == WATCHDOG_LOOKS / 2 {
            tracing::error!(
                threads = still.join(", "),
                "a thread does not go on: the service manager is given no sign of life"
            );
        }
        false
    }
}
