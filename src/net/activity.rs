//! When an HTTP/2 connection is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Since when an HTTP/2 connection has nothing to do.
pub(super) struct Activity {
    opened: Instant,
    requests: AtomicUsize,
    last_ms: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { opened: Instant::now(), requests: AtomicUsize::new(0), last_ms: AtomicU64::new(0) }
    }

    /// When the last request ended (or the connection was opened); `None` while one is under way.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        (self.requests.load(Ordering::Acquire) == 0)
            .then(|| self.opened + Duration::from_millis(self.last_ms.load(Ordering::Acquire)))
    }
}

/// One request under way.
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now_ms = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.fetch_max(now_ms, Ordering::AcqRel);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}
