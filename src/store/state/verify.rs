//! Is the ledger whole, and do the levels follow from it?

use std::collections::HashMap;

use super::{State, StoreError};
use crate::limits::PAGE_ROWS_MAX;
use crate::stock::audit::{GENESIS, Link};
use crate::stock::level::{Position, Value};
use crate::store::rows::PositionKey;

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Audit entries walked.
    pub entries: u64,
    /// Positions compared.
    pub positions: u64,
    /// What is wrong, in sentences; empty when all is well.
    pub problems: Vec<String>,
}

/// Problems told of one walk; what is beyond repair has more, and they say no more.
const PROBLEMS_TOLD: usize = 100;

/// Walks the audit chain from its first entry and checks that what it ends in is what the positions say.
///
/// It works in pages, so that a running gateway can be verified without stopping its fold: between two pages the state may
/// move on. Every page is compared under one borrow of the state, after the chain was walked to its end of that moment.
pub struct Verifier {
    next: u64,
    link: Link,
    last: HashMap<(String, String), Last>,
    /// The last position compared.
    after: Option<PositionKey>,
    verified: Verified,
}

/// What the chain says last of one position.
struct Last {
    ledger: u64,
    value: Value,
    compared: bool,
}

impl Default for Verifier {
    fn default() -> Self {
        Self { next: 1, link: GENESIS, last: HashMap::new(), after: None, verified: Verified::default() }
    }
}

impl Verifier {
    /// The whole walk under one borrow: for a state that nothing else uses.
    pub fn all(state: &State) -> Result<Verified, StoreError> {
        let mut verifier = Self::default();
        loop {
            if let Some(verified) = verifier.step(state)? {
                return Ok(verified);
            }
        }
    }

    /// Walk one page on; `Some` at the end, or at the first break of the chain.
    pub fn step(&mut self, state: &State) -> Result<Option<Verified>, StoreError> {
        if !self.walk(state, PAGE_ROWS_MAX)? {
            return Ok(Some(std::mem::take(&mut self.verified)));
        }
        if self.verified.problems.len() >= PROBLEMS_TOLD {
            self.verified.problems.truncate(PROBLEMS_TOLD);
            self.verified.problems.push("there are more problems: the walk ended here".to_owned());
            return Ok(Some(std::mem::take(&mut self.verified)));
        }
        if self.next <= state.meta.ledger {
            return Ok(None);
        }
        let page = state.stock(None, self.after.as_ref(), PAGE_ROWS_MAX)?;
        if let Some((key, _)) = page.last() {
            self.after = Some(key.clone());
            for (key, position) in page {
                self.compare(state, &key, Some(&position));
            }
            return Ok(None);
        }
        self.finish(state)?;
        Ok(Some(std::mem::take(&mut self.verified)))
    }

    /// Walk at most `entries` audit entries; false when the chain is broken.
    fn walk(&mut self, state: &State, entries: usize) -> Result<bool, StoreError> {
        for _ in 0..entries {
            if self.next > state.meta.ledger {
                break;
            }
            let ledger = self.next;
            let Some((entry, stored)) = state.audit_entry(ledger)? else {
                self.verified.problems.push(format!("audit entry {ledger} is missing"));
                return Ok(false);
            };
            let link = entry.link(&self.link);
            if super::link_mark(&link) != stored {
                self.verified.problems.push(format!("the chain breaks at audit entry {ledger}"));
                return Ok(false);
            }
            self.link = link;
            self.next = self.next.saturating_add(1);
            self.verified.entries = self.verified.entries.saturating_add(1);
            let place = (entry.warehouse, entry.sku);
            let before = self.last.get(&place);
            if before.map(|l| l.value) != entry.before || before.map_or(0, |l| l.ledger) != entry.previous {
                let (warehouse, sku) = &place;
                let problem = format!("audit entry {ledger} does not follow the one before it for {sku} in {warehouse}");
                self.verified.problems.push(problem);
            }
            let compared = before.is_some_and(|l| l.compared);
            self.last.insert(place, Last { ledger, value: entry.after, compared });
        }
        Ok(true)
    }

    /// Compare a position with what the chain says of it.
    fn compare(&mut self, state: &State, key: &PositionKey, position: Option<&Position>) {
        self.verified.positions = self.verified.positions.saturating_add(1);
        let place = (state.meta.warehouses.name(key.warehouse).to_owned(), key.sku.to_string());
        let told = self.last.get_mut(&place).map(|last| {
            last.compared = true;
            (last.ledger, last.value)
        });
        let level = position.and_then(|p| p.effective.map(|(_, value)| (p.last_change, value)));
        if told == level {
            return;
        }
        let (warehouse, sku) = place;
        self.verified.problems.push(match level {
            Some(_) => format!("the level of {sku} in {warehouse} is not what its audit entries say"),
            None => format!("{sku} in {warehouse} has audit entries and no level"),
        });
    }

    /// The chain is walked to its end and so are the positions: what is left came in behind our back, or has no position.
    fn finish(&mut self, state: &State) -> Result<(), StoreError> {
        if self.link != state.meta.link {
            self.verified.problems.push("the chain does not end in the recorded head".to_owned());
        }
        let mut left: Vec<_> = self.last.iter().filter(|(_, l)| !l.compared).map(|(place, _)| place.clone()).collect();
        left.sort_unstable();
        for (warehouse, sku) in left {
            let Some(number) = state.find_warehouse(&warehouse) else {
                self.verified.problems.push(format!("{sku} in {warehouse} has audit entries and no level"));
                continue;
            };
            let key = PositionKey { warehouse: number, sku: sku.into() };
            let position = state.position(&key)?;
            self.compare(state, &key, position.as_ref());
        }
        Ok(())
    }
}
