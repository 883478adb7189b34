//! `stockgate explain SKU@WAREHOUSE`: why a number is what it is.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, Failure, Number, Reach, encoded, finish, print_json, read, target, words};
use super::output::{Align, aligned, clean, print, shortened};

/// Longest delivery id in a line; the JSON has the whole.
const DELIVERY_CHARS: usize = 20;

/// Explain a stock level: every delivery that made it what it is, and those that were not taken.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The level to explain, such as A-1@main; the last @ divides
    #[arg(value_name = "SKU@WAREHOUSE", value_parser = place)]
    place: Place,
    /// Lines at most
    #[arg(long, value_name = "LINES", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// A SKU in a warehouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sku: String,
    pub(super) warehouse: String,
}

/// Divide at the last `@`: SKUs may hold one, warehouse names may not.
pub(super) fn place(text: &str) -> Result<Place, String> {
    match text.rsplit_once('@') {
        Some((sku, warehouse)) if !sku.trim().is_empty() && !warehouse.trim().is_empty() => {
            Ok(Place { sku: sku.trim().to_owned(), warehouse: warehouse.trim().to_owned() })
        }
        _ => Err("write SKU@WAREHOUSE, for example A-1@main".to_owned()),
    }
}

#[derive(Deserialize)]
pub(super) struct Explained {
    warehouse: String,
    sku: String,
    state: String,
    quantity: Option<Box<RawValue>>,
    source: Option<String>,
    since: Option<String>,
    ledger: Option<u64>,
    history: Vec<Line>,
    more: bool,
    reports: Vec<Said>,
}

/// One delivery: a change has `before`, `after` and `ledger`; an ignored one has `said`.
#[derive(Deserialize)]
struct Line {
    kind: String,
    at: String,
    source: String,
    delivery: String,
    ledger: Option<u64>,
    before: Option<Number>,
    after: Option<Number>,
    said: Option<Number>,
    why: String,
}

#[derive(Deserialize)]
struct Said {
    source: String,
    state: String,
    quantity: Option<Box<RawValue>>,
    counts: bool,
    heard: Option<String>,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(show(args))
}

fn show(args: &Args) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/explain/{}/{}", encoded(&args.place.warehouse), encoded(&args.place.sku));
    let limit = args.limit.to_string();
    let body = Client::new(&args.reach)?.get(&target(&path, &[("limit", Some(&limit))]))?;
    let explained: Explained = read(&body)?;
    if args.json {
        return Ok(print_json(&body));
    }
    let printed = print(&render(&explained));
    if explained.more {
        eprintln!("there are older lines: ask with a larger --limit");
    }
    Ok(printed)
}

pub(super) fn render(e: &Explained) -> String {
    let mut out = format!("{} in {}: {}", clean(&e.sku), clean(&e.warehouse), words(&e.state, e.quantity.as_deref()));
    if let (Some(source), Some(since), Some(ledger)) = (&e.source, &e.since, e.ledger) {
        out.push_str(&format!("   (from {}, since {since}, ledger #{ledger})", clean(source)));
    }
    out.push('\n');
    let lines: Vec<Vec<String>> = e.history.iter().map(line).collect();
    out.push_str(&aligned("  ", &[Align::Left; 6], &lines));
    let rivals: Vec<&Said> = e.reports.iter().filter(|said| !said.counts).collect();
    if !rivals.is_empty() {
        out.push_str("reported by others, not counted:\n");
        let lines: Vec<Vec<String>> = rivals.into_iter().map(rival).collect();
        out.push_str(&aligned("  ", &[Align::Left, Align::Right, Align::Left], &lines));
    }
    out
}

fn line(line: &Line) -> Vec<String> {
    let number = |n: &Option<Number>| n.as_ref().map(Number::words);
    let (what, why) = if line.kind == "changed" {
        let before = number(&line.before).unwrap_or_else(|| "none".to_owned());
        (format!("{before} -> {}", number(&line.after).unwrap_or_default()), line.why.clone())
    } else {
        let said = number(&line.said).map(|said| format!("said {said}")).unwrap_or_default();
        (said, format!("ignored: {}", line.why))
    };
    vec![
        seconds(&line.at),
        line.source.clone(),
        format!("delivery {}", shortened(&clean(&line.delivery), DELIVERY_CHARS)),
        what,
        why,
        line.ledger.map(|ledger| format!("#{ledger}")).unwrap_or_default(),
    ]
}

fn rival(said: &Said) -> Vec<String> {
    let heard = said.heard.as_deref().map(|at| format!("last heard {}", seconds(at))).unwrap_or_default();
    vec![said.source.clone(), words(&said.state, said.quantity.as_deref()), heard]
}

/// A moment without its fraction.
fn seconds(at: &str) -> String {
    at.split_once('.').map_or_else(|| at.to_owned(), |(whole, _)| format!("{whole}Z"))
}
