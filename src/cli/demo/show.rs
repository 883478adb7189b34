//! What a person sees of the demonstration.

use std::time::Duration;

use super::super::output::{Align, table};
use super::verdict::{SourceLine, Summary};

/// Figures of a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) passed: Duration,
    pub(super) deliveries: u64,
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    pub(super) positions: u64,
    pub(super) ledger: u64,
    /// Records that the fold has not reached yet.
    pub(super) behind: u64,
    /// Questions to platforms that are open.
    pub(super) tasks: u64,
}

/// `12345` as `12,345`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Live counts in two parts: what the platforms see, and what the gateway makes of it.
pub(super) fn live(now: &Moment) -> [String; 2] {
    let seconds = now.passed.as_secs();
    [
        format!(
            "{:02}:{:02}  {} deliveries  {} accepted  {} duplicates  {} refused",
            seconds / 60,
            seconds % 60,
            thousands(now.deliveries),
            thousands(now.accepted),
            thousands(now.duplicates),
            thousands(now.rejected),
        ),
        format!(
            "{} positions  ledger {}  behind {}  fetching {}",
            thousands(now.positions),
            thousands(now.ledger),
            thousands(now.behind),
            thousands(now.tasks),
        ),
    ]
}

/// Rewrites what [`live`] showed last on a terminal (`first`: nothing yet). A narrow terminal cuts the lines off: wrapped ones
/// could not be rewritten.
pub(super) fn redraw(now: &Moment, first: bool) -> String {
    let [outside, inside] = live(now);
    let up = if first { "" } else { "\x1b[2A\r" };
    format!("\x1b[?7l{up}{outside}\x1b[K\n       {inside}\x1b[K\n\x1b[?7h")
}

/// The end: a table by source, the sums, and the verdict.
pub(super) fn summary(s: &Summary) -> String {
    let columns = [
        ("SOURCE", Align::Left),
        ("PLATFORM", Align::Left),
        ("DELIVERIES", Align::Right),
        ("ACCEPTED", Align::Right),
        ("DUPLICATES", Align::Right),
        ("REFUSED", Align::Right),
        ("FETCHED", Align::Right),
        ("CHANGED", Align::Right),
        ("SLOWEST", Align::Right),
    ];
    let rows: Vec<Vec<String>> = s.sources.iter().map(source_row).collect();
    let mut out = String::from("\n");
    out.push_str(&table(&columns, &rows));
    out.push_str(&format!(
        "\n{} deliveries = {} accepted + {} duplicates + {} refused\n",
        thousands(s.deliveries),
        thousands(s.accepted),
        thousands(s.duplicates),
        thousands(s.rejected)
    ));
    out.push_str(&format!(
        "{} positions in {} warehouses; {} ledger entries, their chain verified; {} dead letters; {} API answers\n",
        thousands(s.positions),
        s.warehouses,
        thousands(s.ledger_seq),
        s.dead_letters,
        thousands(s.fetched)
    ));
    out.push_str(&format!(
        "{} deliveries a second; acknowledged (durable) within {} ms (half), {} ms (99 %), {} ms (all); {} s in all\n",
        thousands(s.deliveries_per_second),
        s.ack_p50_ms,
        s.ack_p99_ms,
        s.ack_max_ms,
        s.elapsed_seconds
    ));
    if s.lost + s.put_off > 0 {
        out.push_str(&format!("{} deliveries got no answer in time, {} were put off\n", s.lost, s.put_off));
    }
    out.push_str(&if s.mismatches == 0 && s.problems.is_empty() {
        format!("all {} levels are what the platforms say\n", thousands(s.positions))
    } else {
        format!("{} of {} levels are not what the platforms say\n", thousands(s.mismatches), thousands(s.positions))
    });
    out
}

fn source_row(line: &SourceLine) -> Vec<String> {
    let mut row = vec![line.source.clone(), line.platform.clone()];
    let numbers = [line.deliveries, line.accepted, line.duplicates, line.rejected, line.fetched, line.changed];
    row.extend(numbers.map(thousands));
    row.push(format!("{} ms", line.slowest_ms));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let shown: Vec<String> = [0, 999, 1000, 12_345, 1_234_567].into_iter().map(thousands).collect();
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn live_counts_are_two_lines_that_rewrite_themselves() {
        let now = Moment {
            passed: Duration::from_secs(65),
            deliveries: 12_345,
            accepted: 12_000,
            duplicates: 300,
            rejected: 45,
            positions: 4100,
            ledger: 11_000,
            behind: 3,
            tasks: 0,
        };
        let [outside, inside] = live(&now);
        assert_eq!(outside, "01:05  12,345 deliveries  12,000 accepted  300 duplicates  45 refused");
        assert_eq!(inside, "4,100 positions  ledger 11,000  behind 3  fetching 0");
        assert_eq!(redraw(&now, true), format!("\x1b[?7l{outside}\x1b[K\n       {inside}\x1b[K\n\x1b[?7h"));
        assert!(redraw(&now, false).starts_with("\x1b[?7l\x1b[2A\r01:05"));
    }
}
