//! A request body: read whole, within a size, a time and a share of the memory for all bodies.

use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::rt::Executor as _;

use super::stream::Marks;
use super::tasks::Spawner;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// Larger than allowed, by its `Content-Length` or by what arrived: 413.
    TooLarge,
    /// Not all of it arrived in time: 408.
    TimedOut,
    /// All memory for bodies is in use: 503 with `Retry-After`.
    Budget,
    /// The client went away or broke the framing: nobody is left to answer, or 400.
    Broken,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body is larger than allowed",
            Self::TimedOut => "the body did not arrive in time",
            Self::Budget => "too many bodies are being received",
            Self::Broken => "the body broke off",
        })
    }
}

impl std::error::Error for BodyError {}

/// The memory for all bodies of a listener, in bytes. Reserving never waits: what does not fit is refused.
#[derive(Debug)]
pub(super) struct Budget {
    free: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes) })
    }
}

/// Part of a [`Budget`]; given back on drop.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, by: usize) -> Result<(), BodyError> {
        self.budget
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(by))
            .map_err(|_| BodyError::Budget)?;
        self.bytes += by;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

/// A body that was read whole. Dereferences to [`Bytes`]; its share of the memory for bodies is given back on drop, so keep
/// it as long as the bytes are kept.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    _share: Option<Share>,
}

impl Deref for Held {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that is still to be read.
#[derive(Debug)]
pub struct Body(Source);

#[derive(Debug)]
enum Source {
    Ready(Bytes),
    Wire(Wire),
}

impl Body {
    /// Read all of it. The time starts here, so read first and think later.
    // Not an `async fn`, which would keep a second place for its argument in the future.
    pub fn read(self) -> impl Future<Output = Result<Held, BodyError>> + Send {
        let mut source = self.0;
        async move {
            match &mut source {
                Source::Ready(bytes) => Ok(Held { bytes: std::mem::take(bytes), _share: None }),
                Source::Wire(wire) => wire.read().await,
            }
        }
    }

    pub(super) fn wire(incoming: hyper::body::Incoming, rules: &Arc<Rules>, marks: &Arc<Marks>) -> Self {
        if incoming.is_end_stream() {
            return Self::from(Bytes::new());
        }
        let (rules, marks) = (Arc::clone(rules), Arc::clone(marks));
        Self(Source::Wire(Wire { incoming: Some(incoming), whole: false, rules, marks }))
    }
}

/// A body that is here already: for callers that have no socket.
impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Ready(bytes))
    }
}

/// What every body of a listener obeys.
#[derive(Debug)]
pub(super) struct Rules {
    /// Most bytes of one body.
    pub(super) max: usize,
    /// From the start of reading to the last byte.
    pub(super) timeout: Duration,
    /// Memory of all bodies together.
    pub(super) budget: Arc<Budget>,
}

#[derive(Debug)]
struct Wire {
    /// Taken on drop.
    incoming: Option<hyper::body::Incoming>,
    whole: bool,
    rules: Arc<Rules>,
    marks: Arc<Marks>,
}

impl Wire {
    async fn read(&mut self) -> Result<Held, BodyError> {
        let timeout = self.rules.timeout;
        let result = {
            let mut gathering = pin!(self.gather());
            // nearly every body is here already: no timer for it
            match std::future::poll_fn(|cx| Poll::Ready(gathering.as_mut().poll(cx))).await {
                Poll::Ready(result) => result,
                // in a box, because every request would have room for it otherwise
                Poll::Pending => {
                    Box::pin(tokio::time::timeout(timeout, gathering)).await.unwrap_or(Err(BodyError::TimedOut))
                }
            }
        };
        if result.is_err() {
            self.marks.broken.store(true, Ordering::Relaxed);
        }
        result
    }

    async fn gather(&mut self) -> Result<Held, BodyError> {
        let max = self.rules.max;
        let incoming = self.incoming.as_mut().expect("it is taken on drop only");
        if incoming.size_hint().lower() > max as u64 {
            return Err(BodyError::TooLarge);
        }
        let mut share = Share { budget: Arc::clone(&self.rules.budget), bytes: 0 };
        // Nearly every body is one frame, which is then handed on without a copy.
        let mut only = Bytes::new();
        let mut gathered = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if share.bytes.saturating_add(data.len()) > max {
                return Err(BodyError::TooLarge);
            }
            share.grow(data.len())?;
            if gathered.is_empty() && only.is_empty() {
                only = data;
                continue;
            }
            if gathered.is_empty() {
                gathered.extend_from_slice(&std::mem::take(&mut only));
            }
            gathered.extend_from_slice(&data);
        }
        self.whole = true;
        let bytes = if gathered.is_empty() { only } else { gathered.freeze() };
        Ok(Held { bytes, _share: Some(share) })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if !self.whole {
            self.marks.unread.store(true, Ordering::Relaxed);
            if let (Some(incoming), Some(discard)) = (self.incoming.take(), self.marks.discard.get()) {
                discard.rest_of(incoming);
            }
        }
    }
}

/// Reads what is left of HTTP/2 request bodies, and throws it away, so that their streams end in order.
///
/// An answer that comes before the end of the body would otherwise be followed by a reset of the stream. RFC 9113 section 8.1
/// allows that, but common clients (curl 7.88 among them) then report an error and never show the 404, 413 or 503.
#[derive(Debug)]
pub(super) struct Discard {
    spawner: Spawner,
    /// How long; then the stream is reset after all.
    linger: Duration,
}

impl Discard {
    pub(super) fn new(spawner: Spawner, linger: Duration) -> Self {
        Self { spawner, linger }
    }

    fn rest_of(&self, mut incoming: hyper::body::Incoming) {
        let linger = self.linger;
        self.spawner.execute(async move {
            let rest = async { while let Some(Ok(_)) = incoming.frame().await {} };
            // in time or not, the stream ends here
            drop(tokio::time::timeout(linger, rest).await);
        });
    }
}
