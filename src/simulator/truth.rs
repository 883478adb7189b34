//! What the simulated platforms themselves know: accounts with their places, goods and stock numbers.
//!
//! An [`Account`]'s catalogue never changes; its numbers ([`Cell`]) move by sales, receptions and corrections. The account's
//! API answers from the same cells, so what is fetched and what is delivered cannot disagree about anything but time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::random::Random;
use crate::time::Timestamp;
use crate::types::{Quantity, Secret};

/// A platform's location.
#[derive(Debug, Clone)]
pub struct Site {
    /// The platform's id; empty on a platform without locations.
    pub id: String,
    /// Our warehouse.
    pub warehouse: &'static str,
}

/// How the gateway learns the SKU of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// The messages carry it.
    InMessage,
    /// The configuration says it.
    Configured,
    /// The platform's catalogue is asked.
    Catalogue,
    /// Nobody knows: what is said about the item stays a dead letter.
    Unknown,
}

/// A platform's item.
#[derive(Debug, Clone)]
pub struct Good {
    /// The platform's id.
    pub id: String,
    /// Our SKU; empty when it has none.
    pub sku: String,
    /// How the gateway learns it.
    pub mapping: Mapping,
}

/// One item at one place.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Index of the place.
    pub site: usize,
    /// Index of the item.
    pub good: usize,
}

/// The number of one item at one place.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// So many; `None`: the platform does not count this item here.
    pub stock: Option<Quantity>,
    /// Counts the changes.
    pub version: u32,
    /// When it last changed, by the platform's own clock (as coarse as that is).
    pub at: Timestamp,
    /// When it last changed, by ours.
    pub moved: Timestamp,
    /// The gateway has acknowledged at least one message about it.
    pub told: bool,
}

/// One change of one number.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// Index of the cell.
    pub cell: usize,
    /// The cell's version after it.
    pub version: u32,
    /// The number before.
    pub before: Option<Quantity>,
    /// The number after.
    pub after: Option<Quantity>,
    /// When, by the platform's clock.
    pub at: Timestamp,
}

/// What numbers a platform knows.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Stock can fall below zero.
    pub negative: bool,
    /// Smallest step in millionths: 1,000,000 for whole units.
    pub grain: i64,
    /// Items can be uncounted.
    pub untracked: bool,
}

/// One account on one platform.
pub struct Account {
    /// The source's name in the gateway's configuration.
    pub name: &'static str,
    /// Its places.
    pub sites: Vec<Site>,
    /// Its items.
    pub goods: Vec<Good>,
    /// Which item is stocked where.
    pub keys: Vec<Key>,
    /// The signing secret, when the platform signs.
    pub secret: Option<Secret>,
    /// The secret path segment, when it does not.
    pub token: Option<String>,
    /// What its API wants to see, by name.
    pub credentials: Vec<(&'static str, String)>,
    by_good: HashMap<String, Vec<usize>>,
    cells: Mutex<Vec<Cell>>,
    calm: AtomicBool,
    calls: AtomicU64,
}

/// Micros of a unit.
const UNIT: i64 = 1_000_000;

impl Account {
    /// An account with a starting stock. Every item is stocked at the places that `stocked` says.
    pub fn new(
        name: &'static str,
        sites: Vec<Site>,
        goods: Vec<Good>,
        stocked: impl Fn(usize, usize) -> bool,
        numbers: Numbers,
        start: Timestamp,
        random: &mut Random,
    ) -> Self {
        let mut keys = Vec::new();
        for good in 0..goods.len() {
            keys.extend((0..sites.len()).filter(|site| stocked(*site, good)).map(|site| Key { site, good }));
        }
        let mut by_good: HashMap<String, Vec<usize>> = HashMap::with_capacity(goods.len());
        for (cell, key) in keys.iter().enumerate() {
            if let Some(good) = goods.get(key.good) {
                by_good.entry(good.id.clone()).or_default().push(cell);
            }
        }
        let cells = keys
            .iter()
            .map(|_| {
                let untracked = numbers.untracked && random.per_mille(50);
                let stock = (!untracked).then(|| counted(random, numbers));
                Cell { stock, version: 0, at: start, moved: start, told: false }
            })
            .collect();
        Self {
            name,
            sites,
            goods,
            keys,
            secret: None,
            token: None,
            credentials: Vec::new(),
            by_good,
            cells: Mutex::new(cells),
            calm: AtomicBool::new(false),
            calls: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cell>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cell as it is now; an index that is none reads as an empty cell.
    pub fn cell(&self, index: usize) -> Cell {
        self.lock().get(index).copied().unwrap_or(Cell {
            stock: None,
            version: 0,
            at: Timestamp::default(),
            moved: Timestamp::default(),
            told: false,
        })
    }

    /// Every cell as it is now, all at one moment.
    pub fn snapshot(&self) -> Vec<Cell> {
        self.lock().clone()
    }

    /// The item and the place of a cell.
    pub fn names(&self, cell: usize) -> (&Good, &Site) {
        let key = self.keys.get(cell).expect("a cell's index comes from this account");
        let good = self.goods.get(key.good).expect("a key's item is the account's");
        (good, self.sites.get(key.site).expect("a key's place is the account's"))
    }

    /// The cells of an item, by the platform's id.
    pub fn cells_of(&self, good: &str) -> &[usize] {
        self.by_good.get(good).map_or(&[], Vec::as_slice)
    }

    /// The cell of an item at a place, both by the platform's ids.
    pub fn find(&self, good: &str, site: &str) -> Option<usize> {
        self.cells_of(good).iter().copied().find(|cell| self.names(*cell).1.id == site)
    }

    /// Item by the platform's id.
    pub fn good(&self, id: &str) -> Option<&Good> {
        self.goods.iter().find(|good| good.id == id)
    }

    /// Something happens to a cell: mostly a sale, sometimes a reception or a count.
    pub fn change(&self, cell: usize, numbers: Numbers, random: &mut Random, at: Timestamp, now: Timestamp) -> Change {
        let mut cells = self.lock();
        let slot = cells.get_mut(cell).expect("a cell's index comes from this account");
        let before = slot.stock;
        let after = moved(before, numbers, random);
        Self::set(slot, cell, after, at, now)
    }

    /// A cell takes a number (a return to an earlier one).
    pub fn assign(&self, cell: usize, stock: Option<Quantity>, at: Timestamp, now: Timestamp) -> Change {
        let mut cells = self.lock();
        Self::set(cells.get_mut(cell).expect("a cell's index comes from this account"), cell, stock, at, now)
    }

    fn set(slot: &mut Cell, cell: usize, stock: Option<Quantity>, at: Timestamp, now: Timestamp) -> Change {
        let before = slot.stock;
        slot.stock = stock;
        slot.version = slot.version.wrapping_add(1);
        slot.at = at.max(slot.at);
        slot.moved = now;
        Change { cell, version: slot.version, before, after: stock, at: slot.at }
    }

    /// The gateway has acknowledged a message about these cells.
    pub fn tell(&self, cells: impl Iterator<Item = usize>) {
        let mut all = self.lock();
        for cell in cells {
            if let Some(slot) = all.get_mut(cell) {
                slot.told = true;
            }
        }
    }

    /// A background calculation of these cells ends now: they count as moved.
    pub fn recalculated(&self, cells: &[usize], now: Timestamp) {
        let mut all = self.lock();
        for cell in cells {
            if let Some(slot) = all.get_mut(*cell) {
                slot.moved = now;
            }
        }
    }

    /// From here on the API answers everything at once.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// True when traffic is over.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Counts an API call: 0, 1, 2, ...
    pub fn count_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// A credential by name; empty when there is none of that name.
    pub fn credential(&self, name: &str) -> &str {
        self.credentials.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
    }
}

fn counted(random: &mut Random, numbers: Numbers) -> Quantity {
    let units = i64::try_from(random.below(120)).unwrap_or(0);
    Quantity::from_micros(units * UNIT + part(random, numbers.grain))
}

/// Less than a unit, in whole grains.
fn part(random: &mut Random, grain: i64) -> i64 {
    let grains = u64::try_from(UNIT / grain.max(1)).unwrap_or(1);
    i64::try_from(random.below(grains)).unwrap_or(0) * grain
}

/// The number after the next thing that happens. Never the number before: a platform reports changes.
fn moved(before: Option<Quantity>, numbers: Numbers, random: &mut Random) -> Option<Quantity> {
    let Some(stock) = before else { return Some(counted(random, numbers)) };
    let micros = stock.micros();
    let by = (1 + i64::try_from(random.below(3)).unwrap_or(0)) * UNIT + part(random, numbers.grain);
    let after = match random.below(100) {
        0 if numbers.untracked => return None,
        0..=74 if micros - by >= 0 => micros - by,
        // oversold: as far below zero as a few late orders bring it
        0..=74 if numbers.negative && micros > -5 * UNIT => micros - by,
        0..=89 => micros.max(0) + 20 * UNIT + by,
        _ => counted(random, numbers).micros(),
    };
    Some(Quantity::from_micros(if after == micros { micros + UNIT } else { after }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(numbers: Numbers) -> Account {
        let site = Site { id: "1".into(), warehouse: "main" };
        let goods =
            (0..10).map(|n| Good { id: n.to_string(), sku: format!("A-{n}"), mapping: Mapping::InMessage }).collect();
        Account::new("a", vec![site], goods, |_, _| true, numbers, Timestamp::from_seconds(1), &mut Random::new(1, 1))
    }

    fn walk(numbers: Numbers) -> Vec<Option<Quantity>> {
        let account = account(numbers);
        let mut random = Random::new(3, 3);
        (0..5000)
            .map(|n| {
                let at = Timestamp::from_seconds(2 + n / 7);
                let change = account.change(usize::try_from(n % 10).unwrap(), numbers, &mut random, at, at);
                assert_ne!(change.before, change.after);
                change.after
            })
            .collect()
    }

    #[test]
    fn each_platform_has_its_own_numbers() {
        let whole = walk(Numbers { negative: false, grain: UNIT, untracked: false });
        assert!(whole.iter().all(|q| q.is_some_and(|q| !q.is_negative() && q.micros() % UNIT == 0)));
        let wild = walk(Numbers { negative: true, grain: 10_000, untracked: true });
        assert!(wild.iter().any(Option::is_none));
        assert!(wild.iter().flatten().any(|q| q.is_negative()));
        assert!(wild.iter().flatten().any(|q| q.micros() % UNIT != 0));
        assert!(wild.iter().flatten().all(|q| q.micros() % 10_000 == 0));
    }

    #[test]
    fn a_platforms_clock_never_runs_back_for_a_cell() {
        let numbers = Numbers { negative: false, grain: UNIT, untracked: false };
        let account = account(numbers);
        let mut random = Random::new(1, 2);
        let (late, early) = (Timestamp::from_seconds(9), Timestamp::from_seconds(5));
        account.change(0, numbers, &mut random, late, late);
        assert_eq!(account.change(0, numbers, &mut random, early, late).at, late);
    }

    #[test]
    fn cells_are_found_by_the_platforms_ids() {
        let account = account(Numbers { negative: false, grain: UNIT, untracked: false });
        assert_eq!(account.find("7", "1"), Some(7));
        assert_eq!(account.find("7", "2"), None);
        assert_eq!(account.names(7).0.sku, "A-7");
    }
}
