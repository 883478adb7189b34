//! `[source.<id>.api]`: where the platform's API is, with which credentials and how often it may be asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::secret::{Many, Place};
use super::{ApiConfig, Context, Findings, address, secret, sections, units};
use crate::sources::{ApiProfile, Credentials, Kind, Source};
use crate::types::Settings;

/// The longest window of a request budget.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest that notifications are gathered: past it, levels would be visibly old.
const GATHER_MAX: Duration = Duration::from_secs(600);

/// Read the API table of a source, if it has one.
pub(super) fn read(
    settings: &mut Settings,
    kind: &Kind,
    adapter: &dyn Source,
    context: &Context<'_>,
    found: &mut Findings,
) -> Option<ApiConfig> {
    let given = settings.keys().iter().any(|key| key == "api");
    match (adapter.api(), given) {
        (None, true) => {
            settings.value("api");
            settings.problem("api", format!("{} has no API that stockgate asks: remove this table", kind.name));
            None
        }
        (None, false) => None,
        (Some(_), false) => {
            let message = format!(
                "no API is configured: what only {}'s API can tell (SKUs of unmapped items, what thin notifications are about) \
                 becomes dead letters",
                kind.name
            );
            found.warning(&settings.path_of("api"), message);
            None
        }
        (Some(profile), true) => {
            let mut table = settings.table("api")?;
            let api = configured(&mut table, kind, &profile, context, found);
            found.absorb(table.finish());
            api
        }
    }
}

fn configured(
    table: &mut Settings,
    kind: &Kind,
    profile: &ApiProfile,
    context: &Context<'_>,
    found: &mut Findings,
) -> Option<ApiConfig> {
    let base_url = base_url(table, kind, profile);
    let (credentials, credential_files) = credentials(table, profile, context, found);
    let requests = table.whole("requests", 1, 1_000_000).and_then(|n| u32::try_from(n).ok());
    let per = units::time(table, "per", Duration::from_millis(100)..=WINDOW_MAX, profile.per);
    let gather = units::time(table, "gather", Duration::ZERO..=GATHER_MAX, profile.gather);
    let ca_file = table.text("ca_file").map(|file| secret::locate(&file, context));
    let ca_pem = ca_file.and_then(|path| sections::pem(&path, "-----BEGIN CERTIFICATE-----", "ca_file", table));
    Some(ApiConfig {
        base_url: base_url?,
        credentials,
        credential_files,
        requests: requests.unwrap_or(profile.requests),
        per,
        gather,
        ca_pem: ca_pem.map(Arc::from),
    })
}

fn base_url(table: &mut Settings, kind: &Kind, profile: &ApiProfile) -> Option<String> {
    if !table.keys().iter().any(|key| key == "base_url") {
        table.value("base_url");
        let Some(default) = profile.base_url else {
            let message = format!("missing: {} has no address of its own for all; write it as \"https://...\"", kind.name);
            table.problem("base_url", message);
            return None;
        };
        return Some(default.to_owned());
    }
    let text = table.text("base_url")?;
    address::base_url(&text).map_err(|why| table.problem("base_url", why)).ok()
}

/// Every credential of the profile, and the files of those that came from one.
fn credentials(
    table: &mut Settings,
    profile: &ApiProfile,
    context: &Context<'_>,
    found: &mut Findings,
) -> (Credentials, Vec<(String, PathBuf)>) {
    let mut credentials = Vec::new();
    let mut files = Vec::new();
    for name in profile.credentials {
        let Some(held) = secret::read(table, name, Many::One, context, found) else {
            table.problem(name, format!("missing: set {name}_file (a file that holds it) or {name}_env"));
            continue;
        };
        for one in held {
            if one.secret.expose_str().is_none_or(|text| text.chars().any(char::is_control)) {
                table.problem(&one.key, "must be one line of text: it is sent in a header");
            }
            credentials.push(((*name).to_owned(), one.secret));
            if let Place::File(path) = one.from {
                files.push(((*name).to_owned(), path));
            }
        }
    }
    (Credentials(credentials), files)
}
