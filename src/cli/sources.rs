//! `stockgate sources`: what is configured and what each has done.

use std::process::ExitCode;

use serde::Deserialize;

use super::client::{Client, Failure, Reach, finish, print_json, read};
use super::output::{Align, print, table};

/// Show the sources: what is configured and what each has delivered.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Deserialize)]
pub(super) struct List {
    sources: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "source")]
    name: String,
    kind: Option<String>,
    path: Option<String>,
    accepted: u64,
    duplicates: u64,
    ignored: u64,
    dead_letters_made: u64,
    fetch_tasks: u64,
    last_delivery: Option<String>,
    silence_seconds: Option<u64>,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(show(args))
}

fn show(args: &Args) -> Result<ExitCode, Failure> {
    let body = Client::new(&args.reach)?.get("/api/v1/sources")?;
    let list: List = read(&body)?;
    if args.json {
        return Ok(print_json(&body));
    }
    if list.sources.is_empty() {
        eprintln!("no source is configured");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(print(&render(&list)))
}

pub(super) fn render(list: &List) -> String {
    use Align::{Left, Right};
    let columns = [
        ("SOURCE", Left),
        ("KIND", Left),
        ("PATH", Left),
        ("ACCEPTED", Right),
        ("DUPLICATES", Right),
        ("IGNORED", Right),
        ("DEAD", Right),
        ("FETCHING", Right),
        ("LAST DELIVERY", Left),
    ];
    let row = |s: &Source| {
        let last = match (&s.last_delivery, s.silence_seconds) {
            (Some(at), Some(silence)) => format!("{at} ({} ago)", span(silence)),
            (Some(at), None) => at.clone(),
            (None, _) => "never".to_owned(),
        };
        vec![
            s.name.clone(),
            s.kind.clone().unwrap_or_else(|| "not configured".to_owned()),
            s.path.clone().unwrap_or_default(),
            s.accepted.to_string(),
            s.duplicates.to_string(),
            s.ignored.to_string(),
            s.dead_letters_made.to_string(),
            s.fetch_tasks.to_string(),
            last,
        ]
    };
    table(&columns, &list.sources.iter().map(row).collect::<Vec<_>>())
}

/// A length of time in its largest unit.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
