//! What a warehouse adds up to. Kept in the fold, so it is never a second truth: it moves with the level that moves it.

use crate::time::Timestamp;
use crate::types::Quantity;

use super::level::Value;

/// Hours of flow kept.
pub const HOURS_KEPT: usize = 48;
/// Days of flow kept.
pub const DAYS_KEPT: usize = 35;
const HOUR_SECONDS: i64 = 3600;
const DAY_SECONDS: i64 = 86_400;

/// Units that came in and went out during one hour or day, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Hours or days since the epoch (UTC).
    pub slot: i64,
    /// Units in.
    pub inflow: i128,
    /// Units out, positive.
    pub outflow: i128,
}

/// Totals of one warehouse. Quantities in millionths; sums are `i128` and cannot overflow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Positions with a number, untracked ones included, deleted ones not.
    pub levels: u64,
    /// Sum of the tracked numbers.
    pub units: i128,
    /// SKUs above zero.
    pub in_stock: u64,
    /// SKUs at zero.
    pub out: u64,
    /// SKUs below zero.
    pub negative: u64,
    /// SKUs at or below the warehouse's low mark.
    pub low: u64,
    /// SKUs that are not counted here.
    pub untracked: u64,
    /// Per hour, oldest first, at most [`HOURS_KEPT`].
    pub hours: Vec<Flow>,
    /// Per day, oldest first, at most [`DAYS_KEPT`].
    pub days: Vec<Flow>,
    /// When a level last changed, by our clock.
    pub last_event: Timestamp,
}

impl Totals {
    /// A level changed: take the old number out and the new one in.
    pub fn change(&mut self, before: Option<Value>, after: Option<Value>, low: Option<Quantity>, at: Timestamp) {
        self.count(before, low, false);
        self.count(after, low, true);
        let number = |v: Option<Value>| v.and_then(Value::quantity).map_or(0, |q| i128::from(q.micros()));
        let moved = number(after).saturating_sub(number(before));
        self.units = self.units.saturating_add(moved);
        flow(&mut self.hours, at.seconds().div_euclid(HOUR_SECONDS), moved, HOURS_KEPT);
        flow(&mut self.days, at.seconds().div_euclid(DAY_SECONDS), moved, DAYS_KEPT);
        self.last_event = self.last_event.max(at);
    }

    /// The low mark changed for a level that did not.
    pub fn remark(&mut self, value: Option<Value>, old_low: Option<Quantity>, new_low: Option<Quantity>) {
        if is_low(value, old_low) {
            self.low = self.low.saturating_sub(1);
        }
        if is_low(value, new_low) {
            self.low = self.low.saturating_add(1);
        }
    }

    /// Flow of the hour that `at` falls into.
    pub fn this_hour(&self, at: Timestamp) -> Flow {
        let slot = at.seconds().div_euclid(HOUR_SECONDS);
        self.hours.iter().rev().find(|f| f.slot == slot).copied().unwrap_or(Flow { slot, ..Flow::default() })
    }

    /// Flow of the UTC day that `at` falls into.
    pub fn this_day(&self, at: Timestamp) -> Flow {
        let slot = at.seconds().div_euclid(DAY_SECONDS);
        self.days.iter().rev().find(|f| f.slot == slot).copied().unwrap_or(Flow { slot, ..Flow::default() })
    }

    fn count(&mut self, value: Option<Value>, low: Option<Quantity>, up: bool) {
        let step = |n: &mut u64| *n = if up { n.saturating_add(1) } else { n.saturating_sub(1) };
        match value {
            None | Some(Value::Deleted) => return,
            Some(Value::Untracked) => step(&mut self.untracked),
            Some(Value::Tracked(q)) if q > Quantity::ZERO => step(&mut self.in_stock),
            Some(Value::Tracked(q)) if q == Quantity::ZERO => step(&mut self.out),
            Some(Value::Tracked(_)) => step(&mut self.negative),
        }
        step(&mut self.levels);
        if is_low(value, low) {
            step(&mut self.low);
        }
    }
}

fn is_low(value: Option<Value>, low: Option<Quantity>) -> bool {
    matches!((value.and_then(Value::quantity), low), (Some(q), Some(mark)) if q <= mark)
}

/// Add to a slot; slots stay sorted, and one older than everything kept is dropped.
fn flow(slots: &mut Vec<Flow>, slot: i64, moved: i128, keep: usize) {
    if moved == 0 {
        return;
    }
    let index = match slots.binary_search_by_key(&slot, |f| f.slot) {
        Ok(index) => index,
        Err(index) => {
            slots.insert(index, Flow { slot, ..Flow::default() });
            index
        }
    };
    if let Some(entry) = slots.get_mut(index) {
        if moved > 0 {
            entry.inflow = entry.inflow.saturating_add(moved);
        } else {
            entry.outflow = entry.outflow.saturating_sub(moved);
        }
    }
    if slots.len() > keep {
        slots.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked(units: i64) -> Option<Value> {
        Quantity::from_units(units).map(Value::Tracked)
    }

    #[test]
    fn a_sku_is_in_exactly_one_state_and_its_units_are_in_the_sum() {
        let mut totals = Totals::default();
        let low = Quantity::from_units(5);
        let at = Timestamp::from_seconds(7200);
        totals.change(None, tracked(10), low, at);
        assert_eq!((totals.levels, totals.in_stock, totals.low, totals.units), (1, 1, 0, 10_000_000));
        totals.change(tracked(10), tracked(3), low, at);
        assert_eq!((totals.in_stock, totals.low, totals.units), (1, 1, 3_000_000));
        totals.change(tracked(3), tracked(0), low, at);
        assert_eq!((totals.in_stock, totals.out, totals.low), (0, 1, 1));
        totals.change(tracked(0), tracked(-2), low, at);
        assert_eq!((totals.out, totals.negative, totals.units), (0, 1, -2_000_000));
        totals.change(tracked(-2), Some(Value::Untracked), low, at);
        assert_eq!((totals.negative, totals.untracked, totals.low, totals.units), (0, 1, 0, 0));
        totals.change(Some(Value::Untracked), Some(Value::Deleted), low, at);
        assert_eq!((totals.levels, totals.untracked), (0, 0));
        assert_eq!(totals.this_hour(at).inflow, 12_000_000);
        assert_eq!(totals.this_hour(at).outflow, 12_000_000);
    }

    #[test]
    fn flows_are_kept_for_two_days_by_the_hour() {
        let mut totals = Totals::default();
        for hour in 0..60 {
            totals.change(tracked(hour), tracked(hour + 1), None, Timestamp::from_seconds(hour * HOUR_SECONDS));
        }
        assert_eq!(totals.hours.len(), HOURS_KEPT);
        assert_eq!(totals.hours.first().map(|f| f.slot), Some(12));
        assert_eq!(totals.days.iter().map(|f| f.inflow).sum::<i128>(), 60_000_000);
    }

    #[test]
    fn a_new_low_mark_recounts_without_moving_units() {
        let mut totals = Totals::default();
        totals.change(None, tracked(4), None, Timestamp::default());
        totals.remark(tracked(4), None, Quantity::from_units(5));
        assert_eq!((totals.low, totals.units), (1, 4_000_000));
        totals.remark(tracked(4), Quantity::from_units(5), Quantity::from_units(3));
        assert_eq!(totals.low, 0);
    }
}
