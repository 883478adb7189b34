//! From rows to figures: medians, ratios, the tables, and the verdict against bars and floors.
//!
//! A ratio of two peers is taken in each round (they ran one after the other) and the median of the rounds is the figure, so a
//! machine that becomes slower meanwhile does not shift it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::figures::{median, micros, percentile, rounded};
use crate::{Failure, at};

const MIB: f64 = 1024.0 * 1024.0;
/// The load at which bars are set.
const CONNECTIONS: u64 = 64;

/// Peers in the order of the tables: what they are called in rows, and what each does and does not do.
const PEERS: [(&str, &str); 4] = [
    (
        "nginx",
        "the ceiling: TLS, HTTP, reads and discards the body, answers 204. No signature, no store. 1 worker a core, no access log",
    ),
    (
        "stockgate",
        "TLS, HTTP, HMAC, journal synced before the answer, repeats recognised, 800,000 levels, hash-chained history, totals, metrics",
    ),
    (
        "fastify-redis",
        "TLS, HTTP, HMAC, raw deliveries once in a stream (SET NX + XADD), appendfsync always. No levels, history, totals",
    ),
    (
        "fastify-postgres",
        "TLS, HTTP, HMAC, raw deliveries once (INSERT .. ON CONFLICT DO NOTHING), pool of 32, fsync on. No levels, history, totals",
    ),
];

/// Options of `report`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One row of a section a line
    #[arg(long)]
    rows: PathBuf,
    /// Bars and floors
    #[arg(long)]
    floors: PathBuf,
    /// Only some sections were asked for: figures may be missing
    #[arg(long)]
    partial: bool,
    /// Where the JSON object goes
    #[arg(long)]
    out: Option<PathBuf>,
    /// The command that was given
    #[arg(long)]
    command: String,
    /// When
    #[arg(long)]
    date: String,
    /// What the data lay on
    #[arg(long)]
    disk: String,
}

/// What a figure should come to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Goal {
    what: String,
    better: Better,
    /// What it should reach.
    bar: f64,
    /// What it must reach even on a busy machine and with small sizes.
    floor: f64,
    /// Why the floor is there. For readers of the file.
    #[serde(rename = "why")]
    _why: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Better {
    Higher,
    Lower,
}

impl Better {
    fn reaches(self, value: f64, goal: f64) -> bool {
        match self {
            Self::Higher => value >= goal,
            Self::Lower => value <= goal,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Higher => ">=",
            Self::Lower => "<=",
        }
    }
}

/// Print the tables, write the object, judge.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let rows = Rows(read_rows(&args.rows)?);
    let goals = fs::read(&args.floors).map_err(at(&args.floors))?;
    let goals: BTreeMap<String, Goal> = serde_json::from_slice(&goals).map_err(at(&args.floors))?;
    let figures = rows.figures();
    if rows.section("closed").next().is_some() {
        print!("{}", closed_loop(&rows));
    }
    print!("{}", other_sections(&rows));
    let (verdict, missed, absent) = verdict(&goals, &figures);
    print!("{verdict}");
    if let Some(out) = &args.out {
        let object = object(args, &rows, &figures, &goals);
        fs::write(out, format!("{object:#}\n")).map_err(at(out))?;
        println!("\nwritten to {}", out.display());
    }
    if !absent.is_empty() && !args.partial {
        return Err(format!("not measured: {}", absent.join(", ")));
    }
    if !missed.is_empty() {
        return Err(format!("under the floor (see {}): {}", args.floors.display(), missed.join(", ")));
    }
    Ok(())
}

fn read_rows(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| serde_json::from_str(line).map_err(at(path))).collect()
}

struct Rows(Vec<Value>);

fn number(row: &Value, name: &str) -> Option<f64> {
    row.get(name).and_then(Value::as_f64)
}

impl Rows {
    fn section<'r>(&'r self, section: &'r str) -> impl Iterator<Item = &'r Value> {
        self.0.iter().filter(move |row| row.get("section").and_then(Value::as_str) == Some(section))
    }

    fn closed<'r>(&'r self, peer: &'r str, connections: u64) -> impl Iterator<Item = &'r Value> {
        self.section("closed").filter(move |row| {
            row.get("peer").and_then(Value::as_str) == Some(peer)
                && row.get("connections").and_then(Value::as_u64) == Some(connections)
        })
    }

    /// The median of a figure over the rounds.
    fn middle(&self, peer: &str, connections: u64, name: &str) -> Option<f64> {
        median(self.closed(peer, connections).filter_map(|row| number(row, name)).collect())
    }

    /// The median over the rounds of stockgate's figure divided by a peer's.
    fn ratio(&self, peer: &str, connections: u64, name: &str) -> Option<f64> {
        let ratios = self.closed("stockgate", connections).filter_map(|ours| {
            let theirs = self.closed(peer, connections).find(|row| row.get("round") == ours.get("round"))?;
            Some(number(ours, name)? / number(theirs, name)?)
        });
        median(ratios.collect())
    }

    fn connections(&self) -> Vec<u64> {
        let mut found: Vec<u64> = self.section("closed").filter_map(|row| row.get("connections")?.as_u64()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Times of the disk's own sync at the open loop's rate, before and after a round of it, in microseconds.
    fn fdatasync(&self, round: &Value, percent: f64) -> Option<f64> {
        let rows = self
            .section("fdatasync")
            .filter(|row| row.get("round") == Some(round) && number(row, "wanted_rate").is_some_and(|rate| rate > 0.0));
        let mut nanos: Vec<u64> =
            rows.filter_map(|row| row.get("nanos")?.as_array()).flatten().filter_map(Value::as_u64).collect();
        nanos.sort_unstable();
        (!nanos.is_empty()).then(|| micros(percentile(&nanos, percent)))
    }

    /// The median over the rounds of the open loop's time divided by the disk's.
    fn open_over_disk(&self, name: &str, percent: f64) -> Option<f64> {
        let ratios =
            self.section("open").filter_map(|row| Some(number(row, name)? / self.fdatasync(row.get("round")?, percent)?));
        median(ratios.collect())
    }

    fn median_of(&self, section: &str, name: &str) -> Option<f64> {
        median(self.section(section).filter_map(|row| number(row, name)).collect())
    }

    /// The largest of a figure over everything that stockgate did.
    fn largest(&self, name: &str) -> Option<f64> {
        let ours = self.0.iter().filter(|row| row.get("peer").and_then(Value::as_str) == Some("stockgate"));
        ours.filter_map(|row| number(row, name)).max_by(f64::total_cmp)
    }

    /// The figures that have bars. One that was not measured is absent.
    fn figures(&self) -> BTreeMap<String, f64> {
        let rebuilt =
            self.section("rebuild").filter_map(|row| Some(number(row, "events")? / number(row, "folded_seconds")?));
        let tail =
            self.closed("stockgate", CONNECTIONS).filter_map(|row| Some(number(row, "p99_us")? / number(row, "p50_us")?));
        // what the disk was given, where that is known
        let grown = self.median_of("growth", "disk_bytes_per_event").or_else(|| self.median_of("growth", "bytes_per_event"));
        let written = [self.middle("stockgate", CONNECTIONS, "bytes_per_event"), grown];
        let written = written.into_iter().flatten().max_by(f64::total_cmp);
        let found = [
            ("cpu_per_event_over_nginx_64", self.ratio("nginx", CONNECTIONS, "cpu_seconds_per_100k"), 3),
            ("ratio_nginx_64", self.ratio("nginx", CONNECTIONS, "rate"), 3),
            ("p99_over_p50_64", median(tail.collect()), 2),
            ("ratio_fastify_redis_64", self.ratio("fastify-redis", CONNECTIONS, "rate"), 2),
            ("ratio_fastify_postgres_64", self.ratio("fastify-postgres", CONNECTIONS, "rate"), 2),
            ("open_loop_p50_over_fdatasync_p50", self.open_over_disk("p50_us", 50.0), 2),
            ("open_loop_p99_over_fdatasync_p99", self.open_over_disk("p99_us", 99.0), 2),
            ("growth_last_over_first", self.median_of("growth", "last_over_first"), 3),
            ("peak_rss_mib", self.largest("peak_rss_bytes").map(|bytes| bytes / MIB), 1),
            ("bytes_written_per_event", written, 0),
            ("restart_seconds", self.median_of("restart", "seconds"), 3),
            ("rebuild_events_per_second", median(rebuilt.collect()), 0),
            ("binary_bytes", self.median_of("binary", "bytes"), 0),
        ];
        found.into_iter().filter_map(|(name, value, decimals)| Some((name.to_owned(), rounded(value?, decimals)))).collect()
    }
}

fn millis(us: Option<f64>) -> f64 {
    us.unwrap_or(0.0) / 1e3
}

fn write_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    out.write_fmt(line).and_then(|()| out.write_char('\n')).expect("writing into a String does not fail");
}

fn closed_loop(rows: &Rows) -> String {
    let mut out = String::new();
    let line = &mut out;
    write_line(line, format_args!("\nclosed loop, medians of the rounds (CPU: of the servers, client not counted)"));
    write_line(
        line,
        format_args!(
            "{:<17} {:>5} {:>10} {:>8} {:>8} {:>9} {:>12} {:>12} {:>9}",
            "peer", "conns", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU s/100k", "bytes/event", "peak MiB"
        ),
    );
    for connections in rows.connections() {
        for (peer, _) in PEERS {
            let middle = |name| rows.middle(peer, connections, name);
            let Some(rate) = middle("rate") else { continue };
            write_line(
                line,
                format_args!(
                    "{peer:<17} {connections:>5} {rate:>10.0} {:>8.2} {:>8.2} {:>9.2} {:>12.2} {:>12.0} {:>9.1}",
                    millis(middle("p50_us")),
                    millis(middle("p99_us")),
                    millis(middle("p999_us")),
                    middle("cpu_seconds_per_100k").unwrap_or(0.0),
                    middle("bytes_per_event").unwrap_or(0.0),
                    middle("peak_rss_bytes").unwrap_or(0.0) / MIB,
                ),
            );
        }
    }
    write_line(line, format_args!("\nwhat each does"));
    for (peer, does) in PEERS {
        write_line(line, format_args!("{peer:<17} {does}"));
    }
    write_line(line, format_args!("\nstockgate's share of each peer's events/s, and its CPU per event as a multiple"));
    for connections in rows.connections() {
        for (peer, _) in PEERS.iter().filter(|(peer, _)| *peer != "stockgate") {
            let ratio = |name| rows.ratio(peer, connections, name);
            let Some((rate, cpu)) = ratio("rate").zip(ratio("cpu_seconds_per_100k")) else { continue };
            write_line(
                line,
                format_args!("{peer:<17} {connections:>5} connections: {rate:>6.2} x the rate, {cpu:>6.2} x the CPU"),
            );
        }
    }
    out
}

fn other_sections(rows: &Rows) -> String {
    let mut out = String::new();
    let line = &mut out;
    if rows.section("open").next().is_some() {
        write_line(
            line,
            format_args!("\nopen loop (times from the scheduled moment) and the disk by itself, in microseconds"),
        );
    }
    for row in rows.section("open").chain(rows.section("fdatasync")) {
        let what = match row.get("when").and_then(Value::as_str) {
            Some(when) => format!("4 KiB + fdatasync, {when}"),
            None => format!("stockgate at {} events/s", number(row, "rate").unwrap_or(0.0)),
        };
        let us = |name| number(row, name).unwrap_or(0.0);
        write_line(
            line,
            format_args!("{what:<45} p50 {:>8.0}  p99 {:>8.0}  p99.9 {:>8.0}", us("p50_us"), us("p99_us"), us("p999_us")),
        );
    }
    for growth in rows.section("growth") {
        let get = |name| number(growth, name).unwrap_or(0.0);
        write_line(
            line,
            format_args!(
                "\ngrowth to {:.0} remembered ids and {:.0} levels: {:.2} CPU s/100k, {:.0} bytes/event by the disk's count ({:.0} by the process's), journal {:.0} MiB, state {:.0} MiB",
                get("remembered"),
                get("levels"),
                get("cpu_seconds_per_100k"),
                get("disk_bytes_per_event"),
                get("bytes_per_event"),
                get("journal_bytes") / MIB,
                get("state_bytes") / MIB
            ),
        );
        for slice in growth.get("slices").and_then(Value::as_array).into_iter().flatten() {
            let get = |name| number(slice, name).unwrap_or(0.0);
            write_line(
                line,
                format_args!(
                    "{:>10.0} events: {:>7.0}/s, folded {:>7.0}/s, behind {:>8.0}, p50 {:>6.2} ms, p99 {:>7.2} ms, CPU {:>5.2} + client {:>5.2} s/100k, {:>6.0} bytes/event ({:.0})",
                    get("answered"),
                    get("rate"),
                    get("folded_rate"),
                    get("lag_records"),
                    get("p50_us") / 1e3,
                    get("p99_us") / 1e3,
                    get("cpu_seconds_per_100k"),
                    get("client_cpu_seconds_per_100k"),
                    get("disk_bytes_per_event"),
                    get("bytes_per_event")
                ),
            );
        }
    }
    out
}

/// The table of bars; names of figures under their floor, and of those that are missing.
fn verdict(goals: &BTreeMap<String, Goal>, figures: &BTreeMap<String, f64>) -> (String, Vec<String>, Vec<String>) {
    let (mut out, mut missed, mut absent) = (String::new(), Vec::new(), Vec::new());
    write_line(&mut out, format_args!("\n{:<76} {:>12} {:>14} {:>14}", "against the bars", "measured", "bar", "floor"));
    for (name, goal) in goals {
        let (sign, what) = (goal.better.sign(), &goal.what);
        let Some(value) = figures.get(name) else {
            write_line(&mut out, format_args!("{what:<76} {:>12}", "-"));
            absent.push(name.clone());
            continue;
        };
        let bar = if goal.better.reaches(*value, goal.bar) { "passed" } else { "MISSED" };
        let floor = goal.better.reaches(*value, goal.floor);
        let (bar_text, floor_text) = (format!("{sign} {}", goal.bar), format!("{sign} {}", goal.floor));
        let fell = if floor { "" } else { "  UNDER THE FLOOR" };
        write_line(&mut out, format_args!("{what:<76} {value:>12} {bar_text:>14} {floor_text:>14}  {bar}{fell}"));
        if !floor {
            missed.push(name.clone());
        }
    }
    (out, missed, absent)
}

fn object(args: &Args, rows: &Rows, figures: &BTreeMap<String, f64>, goals: &BTreeMap<String, Goal>) -> Value {
    let mut object: Map<String, Value> = figures.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let passed = goals.iter().filter_map(|(name, goal)| {
        let value = *figures.get(name)?;
        let row = json!({
            "what": goal.what, "value": value, "bar": goal.bar, "better": if goal.better == Better::Higher { "higher" } else { "lower" },
            "passed": goal.better.reaches(value, goal.bar), "floor": goal.floor,
        });
        Some((name.clone(), row))
    });
    object.insert("bars".to_owned(), Value::Object(passed.collect()));
    object.insert("command".to_owned(), json!(args.command));
    object.insert("date".to_owned(), json!(args.date));
    object.insert("machine".to_owned(), machine(&args.disk));
    let peers: Map<String, Value> = PEERS.iter().map(|(peer, does)| ((*peer).to_owned(), json!(does))).collect();
    object.insert("peers".to_owned(), Value::Object(peers));
    let raw = rows.0.iter().cloned().map(|mut row| {
        if let Some(fields) = row.as_object_mut() {
            fields.remove("nanos");
        }
        row
    });
    object.insert("rows".to_owned(), raw.collect());
    Value::Object(object)
}

fn machine(disk: &str) -> Value {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    json!({
        "cpu": line(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": line(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "disk": disk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let row = |peer: &str, round: u64, rate: f64| json!({ "section": "closed", "peer": peer, "round": round, "connections": 64, "rate": rate });
        Rows(vec![
            row("nginx", 1, 100.0),
            row("stockgate", 1, 50.0),
            row("nginx", 2, 10.0),
            row("stockgate", 2, 4.0),
            row("nginx", 3, 100.0),
            row("stockgate", 3, 30.0),
            json!({ "section": "fdatasync", "round": 1, "wanted_rate": 1000, "nanos": [100_000, 300_000] }),
            json!({ "section": "fdatasync", "round": 1, "wanted_rate": 0, "nanos": [1] }),
            json!({ "section": "fdatasync", "round": 1, "wanted_rate": 1000, "nanos": [200_000] }),
            json!({ "section": "fdatasync", "round": 2, "wanted_rate": 1000, "nanos": [400_000] }),
            json!({ "section": "open", "round": 1, "peer": "stockgate", "p50_us": 600.0, "peak_rss_bytes": 1_048_576 }),
            json!({ "section": "open", "round": 2, "peer": "stockgate", "p50_us": 2000.0, "peak_rss_bytes": 524_288 }),
        ])
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(rows().ratio("nginx", 64, "rate"), Some(0.4));
        assert_eq!(rows().ratio("nginx", 16, "rate"), None);
    }

    #[test]
    fn the_disk_counts_in_its_round_at_the_open_loops_rate() {
        let figures = rows().figures();
        assert_eq!(figures.get("open_loop_p50_over_fdatasync_p50"), Some(&4.0));
        assert_eq!(figures.get("peak_rss_mib"), Some(&1.0));
        assert!(!figures.contains_key("restart_seconds"));
    }

    #[test]
    fn a_figure_under_its_floor_and_one_that_is_missing_are_named() {
        let goal = |better, bar, floor| Goal { what: "w".to_owned(), better, bar, floor, _why: String::new() };
        let goals = BTreeMap::from([
            ("ratio_nginx_64".to_owned(), goal(Better::Higher, 0.5, 0.45)),
            ("peak_rss_mib".to_owned(), goal(Better::Lower, 0.5, 2.0)),
            ("restart_seconds".to_owned(), goal(Better::Lower, 1.0, 5.0)),
        ]);
        let (text, missed, absent) = verdict(&goals, &rows().figures());
        assert_eq!((missed, absent), (vec!["ratio_nginx_64".to_owned()], vec!["restart_seconds".to_owned()]));
        assert_eq!(text.matches("MISSED").count(), 2);
        assert_eq!(text.matches("UNDER THE FLOOR").count(), 1);
    }
}
