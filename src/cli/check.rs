//! `stockgate check`: is a configuration good, and what would it do?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::print;
use super::{code, environment};
use crate::config::{self, AcmeChallenge, AdminTls, Checked, Overrides, Report, SourceConfig, TlsChoice};
use crate::types::Secret;

/// Check a configuration: every problem with its line, or what it would do.
///
/// Prints the whole configuration, defaults included and secrets masked. Exit code 78 when there is a problem.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file (TOML); without one, what the gateway does without one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the documentation of every key instead: a file that changes nothing
    #[arg(long, conflicts_with = "config")]
    defaults: bool,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    if args.defaults {
        return print(config::DEFAULTS);
    }
    let overrides = Overrides::default();
    let loaded = match &args.config {
        Some(file) => config::load(Some(file), &overrides, &environment),
        None => config::built_in(&stand_in(), &overrides, &environment),
    };
    for warning in config::unknown_variables(std::env::vars().map(|(n, _)| n).collect::<Vec<_>>().iter().map(String::as_str))
    {
        eprintln!("warning: {warning}");
    }
    match loaded {
        Ok((checked, warnings)) => {
            for warning in warnings.iter().filter(|_| args.config.is_some()) {
                eprintln!("warning: {warning}");
            }
            if let Some(error) = crate::app::unusable(&checked) {
                eprintln!("{error}\n1 problem: not usable");
                return ExitCode::from(code::CONFIGURATION);
            }
            print(&(render(&checked) + &read_from(args.config.as_deref())))
        }
        Err(report) => {
            eprint!("{}", refusal(&report));
            ExitCode::from(code::CONFIGURATION)
        }
    }
}

/// Stands for the secret that `serve` makes at the first start; shown as `***` like any other.
fn stand_in() -> Secret {
    Secret::new(vec![b'0'; 64])
}

/// What is wrong, then what should be better, then how much there is.
pub(super) fn refusal(report: &Report) -> String {
    let mut out = String::new();
    for problem in &report.problems {
        out.push_str(&format!("{problem}\n"));
    }
    for warning in &report.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    let count = report.problems.len();
    out + &format!("{count} {}: not usable\n", if count == 1 { "problem" } else { "problems" })
}

/// The configuration, then what it would do as comments: the whole is still a configuration.
pub(super) fn render(checked: &Checked) -> String {
    let mut out = config::masked(checked);
    out.push_str("\n# ok: this is what it would do\n");
    let certificate = match &checked.tls {
        TlsChoice::SelfMade { names } => format!("a self-made certificate for {}", names.join(", ")),
        TlsChoice::Files { certificate, .. } => format!("the certificate {}", certificate.display()),
        TlsChoice::Acme { acme, .. } => format!("a certificate for {} from ACME", acme.names.join(", ")),
    };
    let mut lines = vec![
        format!("take deliveries at https://{} with {certificate}", checked.listen),
        format!("answer its operator at {}", admin(checked)),
        format!("keep its data in {}", checked.data_dir.display()),
    ];
    if let TlsChoice::Acme { acme, .. } = &checked.tls {
        let answered = match acme.challenge {
            AcmeChallenge::TlsAlpn01 => "there".to_owned(),
            AcmeChallenge::Http01 { address } => format!("at http://{address}"),
        };
        let challenge = acme.challenge.as_str();
        lines.push(format!("order that certificate from {} and answer {challenge} {answered}", acme.directory));
    }
    lines.extend(checked.sources.iter().map(source));
    if checked.sources.is_empty() {
        lines.push("take nothing in: no source is configured".to_owned());
    }
    for line in lines {
        out.push_str(&format!("#   {line}\n"));
    }
    out
}

fn admin(checked: &Checked) -> String {
    let access = &checked.admin_access;
    let (scheme, with) = match &access.tls {
        AdminTls::Off => ("http", ""),
        AdminTls::Public => ("https", " with the same certificate"),
        AdminTls::Own(_) => ("https", " with a certificate of its own"),
    };
    let tokens = if access.tokens_required { ", for tokens only" } else { "" };
    format!("{scheme}://{}{with}{tokens}", checked.admin)
}

/// The files that the configuration was read from, when there is more than the one that was named.
fn read_from(file: Option<&Path>) -> String {
    let drop_ins = file.and_then(|file| config::drop_ins(file).ok()).unwrap_or_default();
    let mut out = String::new();
    for file in drop_ins {
        out.push_str(&format!("#   read {} as well\n", file.display()));
    }
    out
}

fn source(source: &SourceConfig) -> String {
    let token = if source.token.is_some() { "/***" } else { "" };
    let proof = if source.adapter.signed() { "signed" } else { "not signed by the platform" };
    let certified = if source.clients.is_some() { ", from clients with a certificate" } else { "" };
    let mut warehouses: Vec<&str> =
        source.warehouse.iter().chain(source.locations.values()).map(crate::types::WarehouseId::as_str).collect();
    warehouses.sort_unstable();
    warehouses.dedup();
    let asked = source.api.as_ref().map(|api| format!(", ask {}", host(&api.base_url))).unwrap_or_default();
    format!(
        "take {} ({proof}{certified}) at /in/{}{token} for {}{asked}",
        source.kind.name,
        source.id,
        warehouses.join(", ")
    )
}

/// Scheme and host of a base URL: its path may hold a token.
fn host(url: &str) -> String {
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}
