//! `stockgate reload`: take a changed configuration into use.

use std::process::ExitCode;

use http::Method;
use serde::Deserialize;

use super::client::{Client, Failure, Reach, finish, print_json, read};
use super::output::print;

/// Make the running gateway read its configuration again.
///
/// A configuration with a mistake is refused as a whole (exit code 78), and the running one stays in force.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Deserialize)]
struct Done {
    detail: String,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(reload(args))
}

fn reload(args: &Args) -> Result<ExitCode, Failure> {
    let body = Client::new(&args.reach)?.act(Method::POST, "/api/v1/reload")?;
    let done: Done = read(&body)?;
    Ok(if args.json { print_json(&body) } else { print(&format!("{}\n", done.detail)) })
}
