//! `stockgate dead`: what was genuine and could not be used.

use std::collections::BTreeMap;
use std::process::ExitCode;

use http::Method;
use serde::Deserialize;

use super::client::{Client, Failure, Reach, finish, print_json, read, target};
use super::output::{Align, clean, print, table};

/// Dead letters: deliveries that were genuine and could not be used.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    reach: Reach,
    /// Print the API's JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them, oldest first
    List {
        /// Only this cause, such as unmapped-item
        #[arg(long)]
        cause: Option<String>,
        /// Rows at most
        #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Go on behind an earlier listing: the value that it ended with
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Show one with the delivery that it came from
    Show {
        /// Its number
        id: u64,
    },
    /// Apply one again, with today's mappings
    Retry {
        /// Its number
        id: u64,
    },
    /// Give one up
    Drop {
        /// Its number
        id: u64,
    },
}

#[derive(Deserialize)]
pub(super) struct Page {
    dead_letters: Vec<Letter>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Letter {
    id: u64,
    at: String,
    source: String,
    cause: String,
    detail: String,
    record: u64,
    fact: Option<String>,
    replaces: u64,
    waits_for: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    letter: Letter,
    decoded: Option<Decoded>,
    record_problem: Option<String>,
}

/// A journal record; which fields there are depends on its kind.
#[derive(Deserialize)]
struct Decoded {
    kind: String,
    received: String,
    delivery: Option<String>,
    need: Option<String>,
    query: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    body: Option<Body>,
    why: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    encoding: String,
    text: String,
    bytes: u64,
    truncated: bool,
}

#[derive(Deserialize)]
struct Decided {
    detail: String,
    journal: u64,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(act(args))
}

fn act(args: &Args) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.reach)?;
    match &args.command {
        Command::List { cause, limit, after } => {
            let limit = limit.to_string();
            let query = [("cause", cause.as_deref()), ("limit", Some(limit.as_str())), ("after", after.as_deref())];
            let body = client.get(&target("/api/v1/dead-letters", &query))?;
            let page: Page = read(&body)?;
            if args.json {
                return Ok(print_json(&body));
            }
            if page.dead_letters.is_empty() {
                eprintln!("no dead letters");
                return Ok(ExitCode::SUCCESS);
            }
            let printed = print(&render(&page));
            if let Some(next) = &page.next {
                eprintln!("there are more: add --after {next}");
            }
            Ok(printed)
        }
        Command::Show { id } => {
            let body = client.get(&format!("/api/v1/dead-letters/{id}"))?;
            let shown: Shown = read(&body)?;
            Ok(if args.json { print_json(&body) } else { print(&render_one(&shown)) })
        }
        Command::Retry { id } => decide(&client, args, Method::POST, &format!("/api/v1/dead-letters/{id}/retry")),
        Command::Drop { id } => decide(&client, args, Method::DELETE, &format!("/api/v1/dead-letters/{id}")),
    }
}

fn decide(client: &Client, args: &Args, method: Method, target: &str) -> Result<ExitCode, Failure> {
    let body = client.act(method, target)?;
    let decided: Decided = read(&body)?;
    if args.json {
        return Ok(print_json(&body));
    }
    Ok(print(&format!("{} (journal record {})\n", decided.detail, decided.journal)))
}

pub(super) fn render(page: &Page) -> String {
    use Align::{Left, Right};
    let columns = [("ID", Right), ("SINCE", Left), ("SOURCE", Left), ("CAUSE", Left), ("WHAT", Left)];
    let row = |d: &Letter| {
        let what = d.fact.as_ref().map_or_else(|| d.detail.clone(), |fact| format!("{fact}: {}", d.detail));
        vec![d.id.to_string(), d.at.clone(), d.source.clone(), d.cause.clone(), what]
    };
    table(&columns, &page.dead_letters.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn render_one(shown: &Shown) -> String {
    let d = &shown.letter;
    let mut fields = vec![
        ("since", d.at.clone()),
        ("source", d.source.clone()),
        ("cause", format!("{}: {}", d.cause, d.detail)),
        ("journal record", d.record.to_string()),
    ];
    let mut add = |name, value: Option<&String>| fields.extend(value.map(|value| (name, value.clone())));
    add("says", d.fact.as_ref());
    add("waits for", d.waits_for.as_ref());
    add("no delivery", shown.record_problem.as_ref());
    if d.replaces > 0 {
        fields.push(("replaces", format!("{} older numbers of the same item and place", d.replaces)));
    }
    let mut body = None;
    if let Some(record) = &shown.decoded {
        fields.push(("received", format!("{} ({})", record.received, record.kind)));
        let named =
            [("delivery id", &record.delivery), ("resource", &record.need), ("query", &record.query), ("why", &record.why)];
        fields.extend(named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        for (name, value) in record.headers.iter().flatten() {
            fields.push(("header", format!("{name}: {value}")));
        }
        body = record.body.as_ref();
    }
    let mut out = format!("dead letter {}\n", d.id);
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("  {name:<14}  {}\n", clean(value)));
    }
    if let Some(body) = body {
        out.push_str(&body_text(body));
    }
    out
}

fn body_text(body: &Body) -> String {
    let cut = if body.truncated { ", only its beginning" } else { "" };
    let coding = if body.encoding == "utf-8" { String::new() } else { format!(", as {}", body.encoding) };
    // a body may have lines; anything else that steers a terminal is taken out
    let text: Vec<_> = body.text.lines().map(clean).collect();
    format!("  body ({} bytes{coding}{cut}):\n{}\n", body.bytes, text.join("\n"))
}
