//! From changes of the truth to deliveries, with the faults of the real world. Deterministic: what a lane does depends on the
//! seed and on the answers it gets.
//!
//! | fault | what happens |
//! |---|---|
//! | duplicate | the same message again at once, under the same id |
//! | late duplicate | the same message again after others |
//! | late original | the first attempt never leaves the platform; the payload *as it was* comes after newer ones |
//! | overtaken | two changes of one item, the newer delivered first |
//! | same second | two changes of one item under one stamp |
//! | A-B-A | an item returns to its earlier number: where bodies carry no time, the very same body |
//! | forged | a wrong signature, or a wrong secret path: must be refused |
//! | unknown | an item that no mapping and no catalogue knows |
//!
//! **What makes the end certain.** A lane owns its cells, so messages about one cell never race each other but where a fault
//! above says so. Until a message that carries a cell's newest number is taken, the cell is *owed*; at the end the lane
//! delivers what is owed. Where two messages share a stamp the newer one is delivered last, and the platform's API settles it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::platform::{Clock, Hook, Manners, Moment, Platform, Retry};
use super::random::Random;
use super::truth::{Account, Change, Mapping};
use crate::time::Timestamp;

/// One delivery to be attempted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// The message.
    pub hook: Hook,
    /// The cells it carries news of, and the version of each.
    pub covers: Vec<(usize, u32)>,
    /// Signed with a secret that is not the account's, or sent to a path that is not.
    pub forged: bool,
    /// Attempts made before this one.
    pub attempt: u32,
}

/// What came of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The platform takes the answer for success.
    Taken,
    /// Another answer.
    Refused,
    /// No answer in time.
    Silence,
}

/// What a lane does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next delivery.
    Go,
    /// The same delivery again, at once.
    Again,
}

/// Steps that a late message waits for.
const LATE_STEPS: u64 = 6;
/// The step at which the first lane tells of the item that nobody knows.
const UNKNOWN_STEP: u64 = 5;
/// Owed cells delivered in one round of the end.
const ROUND: usize = 64;
/// How far back the platforms' clocks start: they run faster than ours while the traffic is dense.
pub(super) const HEAD_START: Duration = Duration::from_secs(3600);

/// One of an account's senders.
pub struct Lane {
    account: Arc<Account>,
    platform: &'static dyn Platform,
    number: usize,
    random: Random,
    order: Vec<usize>,
    next: usize,
    steps: u64,
    ticks: u64,
    start: Timestamp,
    since: Timestamp,
    late: VecDeque<(u64, Shot)>,
    owed: BTreeMap<usize, u32>,
    unknown: Option<usize>,
}

impl Lane {
    /// The lane `number` of the account.
    pub fn new(account: Arc<Account>, platform: &'static dyn Platform, number: usize, seed: u64, start: Timestamp) -> Self {
        let lanes = platform.manners().lanes;
        let is_unknown = |cell: usize| account.names(cell).0.mapping == Mapping::Unknown;
        let own = |cell: &usize| account.keys.get(*cell).is_some_and(|key| key.good % lanes == number);
        let mut order: Vec<usize> = (0..account.keys.len()).filter(own).filter(|cell| !is_unknown(*cell)).collect();
        let unknown = (number == 0).then(|| (0..account.keys.len()).find(|cell| is_unknown(*cell))).flatten();
        let stream = account.name.bytes().fold(number as u64 + 1, |sum, b| sum.wrapping_mul(131).wrapping_add(u64::from(b)));
        let mut random = Random::new(seed, stream);
        random.shuffle(&mut order);
        Self {
            account,
            platform,
            number,
            random,
            order,
            next: 0,
            steps: 0,
            ticks: 0,
            start,
            since: start,
            late: VecDeque::new(),
            owed: BTreeMap::new(),
            unknown,
        }
    }

    fn manners(&self) -> &'static Manners {
        self.platform.manners()
    }

    /// The account it sends for.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Cells whose newest number has not been taken yet.
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// What happens next, and the deliveries that follow from it, in their order.
    pub fn step(&mut self, now: Timestamp) -> Vec<Shot> {
        self.steps += 1;
        let mut shots = self.due();
        if self.order.is_empty() {
            return shots;
        }
        if self.steps == UNKNOWN_STEP
            && let Some(cell) = self.unknown.take()
        {
            let change = self.change(cell, now);
            let hook = self.message(&change, now);
            shots.push(Shot { hook, covers: Vec::new(), forged: false, attempt: 0 });
        }
        let manners = self.manners();
        if manners.batch > 1 {
            shots.extend(self.batch(now, manners.batch));
            return shots;
        }
        if manners.clock == Clock::Silent && manners.api {
            shots.extend(self.thin(now));
            return shots;
        }
        shots.extend(self.push(now));
        shots
    }

    /// The late messages whose time has come.
    fn due(&mut self) -> Vec<Shot> {
        let mut due = Vec::new();
        while self.late.front().is_some_and(|(at, _)| *at <= self.steps) {
            due.extend(self.late.pop_front().map(|(_, shot)| shot));
        }
        due
    }

    /// One change, or a fault.
    fn push(&mut self, now: Timestamp) -> Vec<Shot> {
        let Manners { named, fresh, clock, retry, .. } = *self.manners();
        let timed = clock != Clock::Silent;
        let cell = self.pick();
        match self.random.below(1000) {
            0..30 => self.duplicate(cell, now),
            30..50 if named && matches!(retry, Retry::Later(_)) => self.late_original(cell, now),
            50..70 if timed && !fresh => self.late_duplicate(cell, now),
            70..90 if timed => self.overtaken(cell, now),
            90..100 => self.same_second(cell, now),
            100..120 => self.there_and_back(cell, now),
            120..128 => {
                let forged = self.forged(cell, now);
                let mut shots = self.plain(cell, now);
                shots.insert(0, forged);
                shots
            }
            _ => self.plain(cell, now),
        }
    }

    fn plain(&mut self, cell: usize, now: Timestamp) -> Vec<Shot> {
        let change = self.change(cell, now);
        vec![self.news(&change, now)]
    }

    fn duplicate(&mut self, cell: usize, now: Timestamp) -> Vec<Shot> {
        let mut shots = self.plain(cell, now);
        shots.extend_from_within(..);
        shots
    }

    fn late_duplicate(&mut self, cell: usize, now: Timestamp) -> Vec<Shot> {
        let shots = self.plain(cell, now);
        for shot in &shots {
            self.late.push_back((self.steps + LATE_STEPS, shot.clone()));
        }
        shots
    }

    /// The attempt fails before it reaches anyone; the next change of the cell is delivered before the retry.
    fn late_original(&mut self, cell: usize, now: Timestamp) -> Vec<Shot> {
        for shot in self.plain(cell, now) {
            self.late.push_back((self.steps + LATE_STEPS, Shot { attempt: 1, ..shot }));
        }
        if self.random.per_mille(500) { self.plain(cell, now) } else { Vec::new() }
    }

    fn overtaken(&mut self, cell: usize, now: Timestamp) -> Vec<Shot> {
        let first = self.change(cell, now);
        let first = self.news(&first, now);
        let change = self.change(cell, now);
        let second = self.news(&change, now);
        if self.manners().fresh {
            // Both jobs carry the newest state.
            return vec![second.clone(), second];
        }
        if self.platform.manners().clock == Clock::Micros {
            return vec![second, first];
        }
        // The two may share a stamp, so the newer one is said once more: another movement, nothing changed.
        let again = self.touch(cell, now);
        vec![second, first, again]
    }

    fn same_second(&mut self, cell: usize, now: Timestamp) -> Vec<Shot> {
        let first = self.change(cell, now);
        let at = first.at;
        let shot = self.news(&first, now);
        let (numbers, at) = (self.manners().numbers, self.distinct(at));
        let second = self.account.change(cell, numbers, &mut self.random, at, now);
        self.owe(&second);
        vec![shot, self.news(&second, now)]
    }

    fn there_and_back(&mut self, cell: usize, now: Timestamp) -> Vec<Shot> {
        let first = self.change(cell, now);
        let mut shots = vec![self.news(&first, now)];
        self.pass_a_second();
        let second = self.change(cell, now);
        shots.push(self.news(&second, now));
        self.pass_a_second();
        self.ticks += 1;
        let at = self.clock(now);
        let back = self.account.assign(cell, first.after, at, now);
        self.owe(&back);
        shots.push(self.news(&back, now));
        shots
    }

    /// A message about a real item with an invented number.
    fn forged(&mut self, cell: usize, now: Timestamp) -> Shot {
        let is = self.account.cell(cell);
        let lie = crate::types::Quantity::from_units(999_999);
        let change = Change { cell, version: is.version, before: is.stock, after: lie, at: self.clock(now) };
        Shot { hook: self.message(&change, now), covers: Vec::new(), forged: true, attempt: 0 }
    }

    /// A thin platform with a message for each change: receptions and stock-takes name an item, sales a document.
    fn thin(&mut self, now: Timestamp) -> Vec<Shot> {
        let roll = self.random.below(1000);
        if roll < 250
            && let Some((hook, cells)) = self.platform.document(&self.account, self.number, self.steps)
        {
            let covers = cells.into_iter().map(|cell| self.change(cell, now)).map(|c| (c.cell, c.version)).collect();
            return vec![Shot { hook, covers, forged: false, attempt: 0 }];
        }
        let cell = self.pick();
        match roll {
            250..290 => self.duplicate(cell, now),
            290..320 => self.same_second(cell, now),
            320..330 => {
                let forged = self.forged(cell, now);
                let mut shots = self.plain(cell, now);
                shots.push(forged);
                shots
            }
            _ => self.plain(cell, now),
        }
    }

    /// Many changes, one notification for all that is owed.
    fn batch(&mut self, now: Timestamp, most: u64) -> Vec<Shot> {
        let mut last = None;
        for _ in 0..=self.random.below(most) {
            let cell = self.pick();
            last = Some(self.change(cell, now));
        }
        let Some(change) = last else { return Vec::new() };
        let mut shot = self.news(&change, now);
        shot.covers = self.owed.iter().map(|(cell, version)| (*cell, *version)).collect();
        self.since = now;
        match self.random.below(100) {
            0..3 => vec![shot.clone(), shot],
            3..5 => {
                let forged = self.forged(change.cell, now);
                vec![shot, forged]
            }
            _ => vec![shot],
        }
    }

    /// The cells in turn, in an order of the lane's own.
    fn pick(&mut self) -> usize {
        let cell = self.order.get(self.next).copied().unwrap_or_default();
        self.next = (self.next + 1) % self.order.len().max(1);
        cell
    }

    /// The platform's clock; never ahead of ours.
    fn clock(&self, now: Timestamp) -> Timestamp {
        match self.manners().clock {
            Clock::Seconds { changes } => {
                let passed = Duration::from_secs(self.ticks / changes.max(1));
                Timestamp::from_seconds(self.start.plus(passed).min(now).seconds())
            }
            Clock::Micros => self.start.plus(Duration::from_micros(self.ticks * 100)),
            Clock::Silent => now,
        }
    }

    /// A stamp for a change that follows at once: the same where the clock is coarse.
    fn distinct(&self, at: Timestamp) -> Timestamp {
        if self.manners().clock == Clock::Micros { at.plus(Duration::from_micros(7)) } else { at }
    }

    fn pass_a_second(&mut self) {
        if let Clock::Seconds { changes } = self.manners().clock {
            self.ticks += changes;
        }
    }

    fn change(&mut self, cell: usize, now: Timestamp) -> Change {
        self.ticks += 1;
        let at = self.clock(now);
        let change = self.account.change(cell, self.manners().numbers, &mut self.random, at, now);
        self.owe(&change);
        change
    }

    fn owe(&mut self, change: &Change) {
        if self.account.names(change.cell).0.mapping != Mapping::Unknown {
            self.owed.insert(change.cell, change.version);
        }
    }

    /// The platform says a cell's present number once more, as after a movement that changes nothing.
    fn touch(&mut self, cell: usize, now: Timestamp) -> Shot {
        self.ticks += 1;
        self.pass_a_second();
        let at = self.clock(now);
        let change = self.account.assign(cell, self.account.cell(cell).stock, at, now);
        self.owe(&change);
        self.news(&change, now)
    }

    fn message(&mut self, change: &Change, now: Timestamp) -> Hook {
        let moment = Moment { now, since: self.since };
        self.platform.message(&self.account, change, moment, &mut self.random)
    }

    fn news(&mut self, change: &Change, now: Timestamp) -> Shot {
        let hook = self.message(change, now);
        Shot { hook, covers: vec![(change.cell, change.version)], forged: false, attempt: 0 }
    }

    /// Take note of what came of a delivery.
    pub fn answered(&mut self, shot: &mut Shot, outcome: Outcome) -> Then {
        if shot.forged {
            return Then::Go;
        }
        if outcome == Outcome::Taken {
            self.account.tell(shot.covers.iter().map(|(cell, _)| *cell));
            for (cell, version) in &shot.covers {
                if self.owed.get(cell).is_some_and(|owed| owed <= version) {
                    self.owed.remove(cell);
                }
            }
            return Then::Go;
        }
        // An older message that got lost may have been the last to arrive: say the newest again.
        for (cell, _) in &shot.covers {
            self.owed.entry(*cell).or_insert_with(|| self.account.cell(*cell).version);
        }
        shot.attempt += 1;
        match (self.manners().retry, outcome) {
            (Retry::AtOnce(most), Outcome::Refused) if shot.attempt <= most => Then::Again,
            (Retry::Later(most), _) if shot.attempt <= most => {
                self.late.push_back((self.steps + LATE_STEPS, shot.clone()));
                Then::Go
            }
            _ => Then::Go,
        }
    }

    /// After the traffic: what is still to be delivered. Empty when everything is; ask again after each round.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Shot> {
        self.steps += 1;
        let late: Vec<Shot> = self.late.drain(..).map(|(_, shot)| shot).collect();
        if !late.is_empty() {
            return late;
        }
        let owed: Vec<usize> = self.owed.keys().copied().take(ROUND).collect();
        if self.manners().batch > 1 {
            let Some(cell) = owed.first().copied() else { return Vec::new() };
            let mut shot = self.touch(cell, now);
            shot.covers = self.owed.iter().map(|(cell, version)| (*cell, *version)).collect();
            self.since = now;
            return vec![shot];
        }
        owed.into_iter().map(|cell| self.touch(cell, now)).collect()
    }
}
