//! `stockgate drift`: where sources disagree.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, Failure, Reach, finish, print_json, read, target, words};
use super::output::{Align, print, table};

/// Show where a source's number differs from the one in force, and both have stood for 15 minutes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rows at most
    #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Go on behind an earlier listing: the value that it ended with
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print the API's JSON, one page of it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Deserialize, Default)]
pub(super) struct Page {
    drift: Vec<Differing>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Differing {
    warehouse: String,
    sku: String,
    counts: Said,
    others: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    source: String,
    state: String,
    quantity: Option<Box<RawValue>>,
    heard: Option<String>,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(show(args))
}

fn show(args: &Args) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.reach)?;
    let mut found = Page { next: args.after.clone(), ..Page::default() };
    // a page looks at so many positions, whatever it finds: go on until there are rows enough
    loop {
        let limit = usize::from(args.limit).saturating_sub(found.drift.len()).to_string();
        let query = [("limit", Some(limit.as_str())), ("after", found.next.as_deref())];
        let body = client.get(&target("/api/v1/drift", &query))?;
        if args.json {
            return Ok(print_json(&body));
        }
        let page: Page = read(&body)?;
        found.drift.extend(page.drift);
        found.next = page.next;
        if found.next.is_none() || found.drift.len() >= usize::from(args.limit) {
            break;
        }
    }
    if found.drift.is_empty() {
        eprintln!("no drift: every source that has spoken of a position shows the number in force");
        return Ok(ExitCode::SUCCESS);
    }
    let printed = print(&render(&found));
    if let Some(next) = &found.next {
        eprintln!("there are more: add --after {next}");
    }
    Ok(printed)
}

pub(super) fn render(page: &Page) -> String {
    use Align::{Left, Right};
    let columns = [
        ("WAREHOUSE", Left),
        ("SKU", Left),
        ("IN FORCE", Right),
        ("BY", Left),
        ("DIFFERS", Right),
        ("AT", Left),
        ("HEARD", Left),
    ];
    let rows = page.drift.iter().flat_map(|position| {
        position.others.iter().map(|other| {
            vec![
                position.warehouse.clone(),
                position.sku.clone(),
                words(&position.counts.state, position.counts.quantity.as_deref()),
                position.counts.source.clone(),
                words(&other.state, other.quantity.as_deref()),
                other.source.clone(),
                other.heard.clone().unwrap_or_default(),
            ]
        })
    });
    table(&columns, &rows.collect::<Vec<_>>())
}
