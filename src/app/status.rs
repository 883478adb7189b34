//! The line that `systemctl status` shows while the gateway works.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::manager::Manager;
use super::reload::Core;
use crate::limits::STATUS_PERIOD;
use crate::pipeline::apply::FoldHandle;
use crate::types::Seq;

/// What the line is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct View {
    sources: usize,
    levels: u64,
    head: Seq,
    cursor: Seq,
    /// The journal's head when the process started: up to there the levels are made anew.
    rebuilt_at: Seq,
    problem: Option<&'static str>,
    reload_refused: bool,
}

impl View {
    fn line(&self) -> String {
        let Self { sources, levels, head, cursor, rebuilt_at, .. } = *self;
        let mut line = if let Some(problem) = self.problem {
            problem.to_owned()
        } else if cursor < rebuilt_at {
            format!("rebuilding the levels: {cursor} of {rebuilt_at} records folded; deliveries are taken meanwhile")
        } else {
            let behind = head.saturating_sub(cursor);
            format!("sources: {sources}, levels: {levels}, records: {head}, not folded yet: {behind}")
        };
        if self.reload_refused {
            line.push_str("; the last reload was refused");
        }
        line
    }
}

/// Says how it goes, for as long as the gateway works.
pub(super) struct Teller {
    core: Arc<Core>,
    fold: FoldHandle,
    last: View,
}

impl Teller {
    pub(super) fn new(core: &Arc<Core>, fold: &FoldHandle, rebuilt_at: Seq) -> Self {
        let last = View { rebuilt_at, ..View::default() };
        Self { core: Arc::clone(core), fold: fold.clone(), last }
    }

    /// The line as it is now.
    pub(super) fn line(&mut self) -> String {
        let core = &self.core;
        let full = core.journal.reserve().is_some_and(|reserve| !reserve.has_room());
        self.last.problem = if full {
            Some("the disk is full: nothing is acknowledged until there is room")
        } else if !core.journal.healthy() {
            Some("the journal cannot be written: nothing is acknowledged until its file opens again")
        } else if self.fold.stuck() {
            Some("the state cannot be written: deliveries are taken, levels stand still")
        } else {
            None
        };
        self.last.sources = core.infos.read().unwrap_or_else(PoisonError::into_inner).len();
        self.last.reload_refused = core.refused.load(Ordering::Acquire);
        self.last.head = core.journal.head();
        self.last.cursor = *self.fold.folded().borrow();
        // who holds the state may hold it for long, and this runs beside everything else
        if let Ok(state) = core.state.try_read() {
            self.last.levels = state.warehouses().map(|(_, totals)| totals.levels).sum();
        }
        self.last.line()
    }

    pub(super) async fn run(mut self, manager: Arc<Manager>) {
        while manager.listens() {
            tokio::time::sleep(STATUS_PERIOD).await;
            let line = self.line();
            manager.status(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_matters_most() {
        let mut view = View { sources: 2, levels: 5, head: 90, cursor: 40, rebuilt_at: 80, ..View::default() };
        assert_eq!(view.line(), "rebuilding the levels: 40 of 80 records folded; deliveries are taken meanwhile");
        view.cursor = 85;
        assert_eq!(view.line(), "sources: 2, levels: 5, records: 90, not folded yet: 5");
        view.reload_refused = true;
        view.problem = Some("the disk is full");
        assert_eq!(view.line(), "the disk is full; the last reload was refused");
    }
}
