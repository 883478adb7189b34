//! `stockgate warehouses`: what each adds up to.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, Failure, Reach, finish, print_json, read};
use super::output::{Align, print, table};

/// Show what every warehouse adds up to.
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
    warehouses: Vec<Warehouse>,
}

#[derive(Deserialize)]
struct Warehouse {
    #[serde(rename = "warehouse")]
    name: String,
    units: Box<RawValue>,
    in_stock: u64,
    out: u64,
    low: u64,
    negative: u64,
    untracked: u64,
    today: Moved,
    last_event: Option<String>,
}

#[derive(Deserialize)]
struct Moved {
    inflow: Box<RawValue>,
    outflow: Box<RawValue>,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(show(args))
}

fn show(args: &Args) -> Result<ExitCode, Failure> {
    let body = Client::new(&args.reach)?.get("/api/v1/warehouses")?;
    let list: List = read(&body)?;
    if args.json {
        return Ok(print_json(&body));
    }
    if list.warehouses.is_empty() {
        eprintln!("nothing has been delivered to any warehouse yet");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(print(&render(&list)))
}

pub(super) fn render(list: &List) -> String {
    use Align::{Left, Right};
    let columns = [
        ("WAREHOUSE", Left),
        ("UNITS", Right),
        ("IN STOCK", Right),
        ("OUT", Right),
        ("LOW", Right),
        ("NEGATIVE", Right),
        ("UNTRACKED", Right),
        ("IN TODAY", Right),
        ("OUT TODAY", Right),
        ("LAST CHANGE", Left),
    ];
    let row = |w: &Warehouse| {
        vec![
            w.name.clone(),
            w.units.get().to_owned(),
            w.in_stock.to_string(),
            w.out.to_string(),
            w.low.to_string(),
            w.negative.to_string(),
            w.untracked.to_string(),
            w.today.inflow.get().to_owned(),
            w.today.outflow.get().to_owned(),
            w.last_event.clone().unwrap_or_else(|| "never".to_owned()),
        ]
    };
    table(&columns, &list.warehouses.iter().map(row).collect::<Vec<_>>())
}
