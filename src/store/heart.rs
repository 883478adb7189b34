//! Signs of life of a thread that works with the store.
//!
//! A thread that hangs on a disk that does not answer looks from outside like one that has nothing to do. So the journal's and
//! the fold's threads each have a [`Heart`], which beats when a piece of work is done: a command taken from the queue, a record
//! folded, a read, write or sync of a file that has come back. An idle thread beats when it is poked. A heart that stands still
//! although its thread was poked belongs to a thread that hangs; nobody else can make it beat, because it is the thread's own. The one
//! exception: while a checkpoint is being written, its thread has the fold's heart, because the fold may wait for it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what a thread has done.
#[derive(Debug, Clone, Default)]
pub struct Heart(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    beats: AtomicU64,
    bytes_read: AtomicU64,
}

thread_local! {
    /// The heart of this thread, if it has one. Disks are shared by threads: who waits for one cannot be told by the disk.
    static MINE: RefCell<Option<Heart>> = const { RefCell::new(None) };
}

impl Heart {
    /// Changes whenever something was done.
    pub fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    /// Bytes of databases that came from files.
    pub fn bytes_read(&self) -> u64 {
        self.0.bytes_read.load(Ordering::Relaxed)
    }

    /// Make it this thread's own, until what is returned is dropped.
    #[must_use]
    pub fn live(&self) -> Living {
        MINE.set(Some(self.clone()));
        Living(())
    }
}

/// A thread has a heart while this is there.
#[derive(Debug)]
pub struct Living(());

impl Drop for Living {
    fn drop(&mut self) {
        MINE.set(None);
    }
}

/// This thread has done something. A thread without a heart: nothing happens.
pub fn beat() {
    with_mine(|counts| {
        counts.beats.fetch_add(1, Ordering::Relaxed);
    });
}

/// A read of so many bytes has come back.
pub(super) fn read(bytes: usize) {
    with_mine(|counts| {
        counts.beats.fetch_add(1, Ordering::Relaxed);
        counts.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    });
}

fn with_mine(count: impl FnOnce(&Counts)) {
    MINE.with_borrow(|mine| {
        if let Some(heart) = mine {
            count(&heart.0);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_thread_makes_a_heart_beat() {
        let heart = Heart::default();
        beat();
        std::thread::spawn(beat).join().expect("ends");
        assert_eq!(heart.beats(), 0);
        let living = heart.live();
        beat();
        read(512);
        std::thread::spawn(beat).join().expect("ends");
        assert_eq!((heart.beats(), heart.bytes_read()), (2, 512));
        drop(living);
        beat();
        assert_eq!(heart.beats(), 2);
    }
}
