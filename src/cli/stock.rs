//! `stockgate stock`: levels.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, Failure, Reach, finish, print_json, read, target, words};
use super::code;
use super::output::{Align, print, table};

/// Show stock levels.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this SKU, in every warehouse
    sku: Option<String>,
    /// Only this warehouse
    #[arg(long, value_name = "NAME")]
    warehouse: Option<String>,
    /// Only SKUs that begin so
    #[arg(long, value_name = "TEXT", conflicts_with = "sku")]
    prefix: Option<String>,
    /// Rows at most
    #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Go on behind an earlier listing: the value that it ended with
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Deserialize)]
pub(super) struct Page {
    stock: Vec<Level>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Level {
    warehouse: String,
    sku: String,
    state: String,
    quantity: Option<Box<RawValue>>,
    source: Option<String>,
    since: Option<String>,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(show(args))
}

fn show(args: &Args) -> Result<ExitCode, Failure> {
    let limit = args.limit.to_string();
    let query = [
        ("warehouse", args.warehouse.as_deref()),
        ("sku", args.sku.as_deref()),
        ("prefix", args.prefix.as_deref()),
        ("limit", Some(limit.as_str())),
        ("after", args.after.as_deref()),
    ];
    let body = Client::new(&args.reach)?.get(&target("/api/v1/stock", &query))?;
    let page: Page = read(&body)?;
    if let (Some(sku), true) = (&args.sku, page.stock.is_empty()) {
        let place = args.warehouse.as_ref().map_or("any warehouse".to_owned(), |w| format!("`{w}`"));
        let hint =
            format!("no level of `{sku}` is known in {place}; `stockgate stock --prefix TEXT` lists SKUs that begin so");
        return Err(Failure::new(code::FAILURE, hint));
    }
    if args.json {
        return Ok(print_json(&body));
    }
    if page.stock.is_empty() {
        eprintln!("no level matches");
        return Ok(ExitCode::SUCCESS);
    }
    let printed = print(&render(&page));
    if let Some(next) = &page.next {
        eprintln!("there are more: add --after {next}");
    }
    Ok(printed)
}

pub(super) fn render(page: &Page) -> String {
    use Align::{Left, Right};
    let columns = [("WAREHOUSE", Left), ("SKU", Left), ("QUANTITY", Right), ("SOURCE", Left), ("SINCE", Left)];
    let row = |level: &Level| {
        vec![
            level.warehouse.clone(),
            level.sku.clone(),
            words(&level.state, level.quantity.as_deref()),
            level.source.clone().unwrap_or_default(),
            level.since.clone().unwrap_or_default(),
        ]
    };
    table(&columns, &page.stock.iter().map(row).collect::<Vec<_>>())
}
