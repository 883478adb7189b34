//! What is written at every scrape and not recorded: figures that follow from the state, series that come and go with the
//! configuration, and numbers that the recorder cannot hold.
//!
//! The recorder never forgets a series. A gauge of a source that is not configured any more would stand still for ever, and
//! an alert on it would never end. Written here, a series is on the page exactly as long as what it speaks of.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::{ProcessFigures, SourceFigures, WarehouseFigures, seconds, units};
use crate::time::Timestamp;

/// The states of a SKU in a warehouse: each has exactly one, so their sum is the number of positions.
const SKU_STATES: [&str; 4] = ["in-stock", "out", "negative", "untracked"];

/// Text in the exposition format, family by family.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Begin a family; its series follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes all");
    }

    fn series(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "{name}{labels} {value}").expect("a String takes all");
    }

    /// A family with one series for each row, or none where there is no value.
    fn each<'a, T, V: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        label: &str,
        rows: &'a [T],
        of: impl Fn(&'a T) -> (&'a str, Option<V>),
    ) {
        self.family(name, kind, help);
        for (text, value) in rows.iter().map(of) {
            if let Some(value) = value {
                self.series(name, &[(label, text)], value);
            }
        }
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The gauges of the configured sources.
pub fn sources_text(sources: &[SourceFigures]) -> String {
    let mut page = Page::default();
    let family = (
        "stockgate_source_last_delivery_timestamp_seconds",
        "gauge",
        "When the source last delivered anything genuine, by the gateway's clock; 0 if it never did.",
    );
    page.each(family, "source", sources, |s| (&s.name, Some(seconds(s.last_delivery))));
    let family = ("stockgate_fetch_tasks", "gauge", "Fetch tasks waiting or under way, by source.");
    page.each(family, "source", sources, |s| (&s.name, Some(s.fetch_tasks)));
    let family = (
        "stockgate_drift_positions",
        "gauge",
        "Positions where the source's number differs from the one in force and both have stood for 15 minutes.",
    );
    page.each(family, "source", sources, |s| (&s.name, s.drift));
    page.0
}

/// What the warehouses look like.
pub fn warehouses_text(warehouses: &[(String, WarehouseFigures)]) -> String {
    let mut page = Page::default();
    let family = ("stockgate_warehouse_units", "gauge", "Units on hand, by warehouse (negative levels count as they are).");
    page.each(family, "warehouse", warehouses, |(name, w)| (name, Some(units(w.units_micros))));
    let name = "stockgate_warehouse_skus";
    page.family(name, "gauge", "SKUs by warehouse and state: in-stock, out, negative or untracked. Each has one state.");
    for (warehouse, w) in warehouses {
        for (state, count) in SKU_STATES.iter().zip([w.in_stock, w.out, w.negative, w.untracked]) {
            page.series(name, &[("warehouse", warehouse), ("state", state)], count);
        }
    }
    let family = ("stockgate_warehouse_low_skus", "gauge", "SKUs at or below the low mark of their warehouse.");
    page.each(family, "warehouse", warehouses, |(name, w)| (name, Some(w.low)));
    let family = (
        "stockgate_warehouse_inflow_units_total",
        "counter",
        "Units by which levels have risen since the gateway started, by warehouse.",
    );
    page.each(family, "warehouse", warehouses, |(name, w)| (name, Some(units(w.inflow_micros))));
    let family = (
        "stockgate_warehouse_outflow_units_total",
        "counter",
        "Units by which levels have fallen since the gateway started, by warehouse.",
    );
    page.each(family, "warehouse", warehouses, |(name, w)| (name, Some(units(w.outflow_micros))));
    let family = (
        "stockgate_warehouse_last_event_timestamp_seconds",
        "gauge",
        "When a level of the warehouse last changed; 0 if none ever did.",
    );
    page.each(family, "warehouse", warehouses, |(name, w)| (name, Some(seconds(w.last_event))));
    page.0
}

/// The gateway's clock at this scrape: whoever scrapes has another one, and can compare.
pub fn clock_text(now: Timestamp) -> String {
    let mut page = Page::default();
    let name = "stockgate_clock_timestamp_seconds";
    page.family(name, "gauge", "The gateway's own clock at the moment of the scrape.");
    page.series(name, &[], seconds(now));
    page.0
}

/// The process under the names that every Prometheus client library uses; what the system does not say is left out.
pub fn process_text(figures: &ProcessFigures) -> String {
    let hundredths = |n: u64| format!("{}.{:02}", n / 100, n % 100);
    let plain = |n: Option<u64>| n.map(|n| n.to_string());
    let started = u64::try_from(figures.started.0).unwrap_or(0) / 10_000;
    let families: [(&str, &str, &str, Option<String>); 7] = [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            figures.cpu_centis.map(hundredths),
        ),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", plain(figures.resident_bytes)),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", plain(figures.virtual_bytes)),
        ("process_open_fds", "gauge", "Number of open file descriptors.", plain(figures.open_fds)),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", plain(figures.max_fds)),
        ("process_threads", "gauge", "Number of threads.", plain(figures.threads)),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since the epoch in seconds.",
            Some(hundredths(started)),
        ),
    ];
    let mut page = Page::default();
    for (name, kind, help, value) in families {
        if let Some(value) = value {
            page.family(name, kind, help);
            page.series(name, &[], value);
        }
    }
    page.0
}

/// What flowed during one hour, as the state keeps it: the hour's number, units in and units out in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HourFlow {
    /// Hours since the epoch.
    pub hour: i64,
    /// Units in.
    pub inflow: i128,
    /// Units out.
    pub outflow: i128,
}

/// Turns the flows of the last hours into counters that only grow, as Prometheus wants them: the state keeps sums an hour, which
/// begin at zero every hour. Nothing is missed between two scrapes that are less apart than the hours that are kept.
#[derive(Debug, Default)]
pub struct FlowCounters(BTreeMap<String, Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// What was seen last.
    seen: HourFlow,
    inflow: i128,
    outflow: i128,
}

impl FlowCounters {
    /// What is there before anything is counted: it belongs to an earlier process.
    pub fn skip(&mut self, warehouse: &str, hours: &[HourFlow]) {
        self.0
            .insert(warehouse.to_owned(), Counted { seen: hours.last().copied().unwrap_or_default(), ..Counted::default() });
    }

    /// Units in and out since the start, in millionths. `hours`: the flows that are kept, oldest first.
    pub fn count(&mut self, warehouse: &str, hours: &[HourFlow]) -> (i128, i128) {
        let counted = self.0.entry(warehouse.to_owned()).or_default();
        for flow in hours {
            let before = match flow.hour.cmp(&counted.seen.hour) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => counted.seen,
                std::cmp::Ordering::Greater => HourFlow { hour: flow.hour, ..HourFlow::default() },
            };
            // a state that went back to its last checkpoint comes to the same numbers again: they count once
            let (inflow, outflow) = (flow.inflow.max(before.inflow), flow.outflow.max(before.outflow));
            counted.inflow = counted.inflow.saturating_add(inflow.saturating_sub(before.inflow));
            counted.outflow = counted.outflow.saturating_add(outflow.saturating_sub(before.outflow));
            counted.seen = HourFlow { hour: flow.hour, inflow, outflow };
        }
        (counted.inflow, counted.outflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(hour: i64, inflow: i128, outflow: i128) -> HourFlow {
        HourFlow { hour, inflow, outflow }
    }

    #[test]
    fn flows_become_counters_that_only_grow() {
        let mut counters = FlowCounters::default();
        counters.skip("main", &[flow(9, 50, 50), flow(10, 7, 2)]);
        assert_eq!(counters.count("main", &[flow(9, 50, 50), flow(10, 7, 2)]), (0, 0), "an earlier process counted that");
        assert_eq!(counters.count("main", &[flow(9, 50, 50), flow(10, 8, 4)]), (1, 2));
        // the rest of the hour, an hour between two scrapes, and the hour that runs
        assert_eq!(counters.count("main", &[flow(10, 10, 4), flow(11, 100, 0), flow(12, 0, 5)]), (103, 7));
        assert_eq!(counters.count("main", &[flow(12, 0, 5)]), (103, 7));
        assert_eq!(
            counters.count("new", &[flow(12, 3, 1)]),
            (3, 1),
            "a warehouse that is new is counted from its beginning"
        );
    }

    #[test]
    fn a_state_that_is_folded_again_is_not_counted_again() {
        let mut counters = FlowCounters::default();
        assert_eq!(counters.count("main", &[flow(10, 9, 9)]), (9, 9));
        assert_eq!(counters.count("main", &[flow(10, 4, 2)]), (9, 9), "back to the checkpoint");
        assert_eq!(counters.count("main", &[]), (9, 9));
        assert_eq!(counters.count("main", &[flow(10, 9, 10)]), (9, 10));
    }

    #[test]
    fn a_source_that_never_delivered_is_there_and_one_without_a_finding_has_no_drift() {
        let source = SourceFigures { name: "a\"b".to_owned(), fetch_tasks: 2, ..SourceFigures::default() };
        let text = sources_text(&[source]);
        assert!(text.contains("\nstockgate_source_last_delivery_timestamp_seconds{source=\"a\\\"b\"} 0\n"), "{text}");
        assert!(text.contains("\nstockgate_fetch_tasks{source=\"a\\\"b\"} 2\n"), "{text}");
        assert!(!text.contains("\nstockgate_drift_positions{"), "{text}");
    }
}
