//! Looking: everything that the checks judge.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;

use super::Args;
use super::checks::{self, Bind, Certificate, Directory, Finding, Found, Gateway, Room};
use super::machine;
use crate::cli::client::{Client, Reach};
use crate::cli::serve::BUILT_IN_SECRET_FILE;
use crate::cli::{code, environment, known};
use crate::config::{self, AdminTls, Checked, Overrides, TlsChoice};
use crate::net::client::{Trust, parse_fingerprint};
use crate::net::serve::{Limits as ServerLimits, Server};
use crate::net::tls::{Identity, TlsError};
use crate::pipeline::certificate::kept::Kept;
use crate::store::{restoring_path, state_path};
use crate::time;
use crate::types::{Secret, TOKENS_FILE};

/// How long the gateway may take to say whether it is ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// Memory of a connection, see `limits::CONNECTIONS_MAX`.
const CONNECTION_BYTES: u64 = 50 * 1024;
/// The program itself, its threads, its dedup filters and its queues.
const BASE_BYTES: u64 = 64 * 1024 * 1024;

/// Every check, in the order in which things depend on one another.
pub(super) fn everything(args: &Args) -> Vec<Finding> {
    let (config, configuration) = configuration(args);
    let data = config.data_dir.as_path();
    let near = machine::existing(data);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = checks::mount_of(&mountinfo, &near);
    let now = time::now();
    let newest = machine::newest_file(data);
    let mut findings = vec![configuration, checks::directory(&directory(data)), checks::secrets(&secrets(&config))];
    findings.push(checks::set_aside(&machine::set_aside(data)));
    findings.push(checks::file_system(mount.as_ref()));
    if let Some((free, inodes)) = machine::left(&near) {
        let state = fs::metadata(state_path(data)).map_or(0, |meta| meta.len());
        let (journal, keep) = (machine::journal_bytes(data), config.retention.bytes);
        findings.push(checks::room(&Room { free, inodes, journal, state, keep }));
    }
    if data.is_dir() {
        let times = machine::sync_times(data).map_err(|error| error.to_string());
        let in_memory = mount.as_ref().is_some_and(checks::Mount::in_memory);
        findings.push(checks::sync(times.as_deref().map_err(String::as_str), in_memory));
    }
    let newest = newest.as_ref().map(|(path, at)| (path.as_path(), *at));
    findings.push(checks::clock(now, newest, machine::synchronised()));
    findings.push(checks::certificate(&certificate(&config), now));
    if let TlsChoice::Acme { acme, .. } = &config.tls {
        let report = Kept::in_data(data).report();
        let report = report.filter(|report| report.directory == acme.directory && report.names == acme.names);
        findings.push(checks::acme(report.as_ref()));
    }
    findings.push(checks::gateway(&gateway(args, &config)));
    findings.push(checks::descriptors(machine::open_files(), config.limits.connections));
    findings.push(checks::memory(machine::available_memory(), memory_wanted(&config)));
    findings
}

/// The configuration, or the defaults in the place of one that cannot be used.
fn configuration(args: &Args) -> (Checked, Finding) {
    let mut overrides = Overrides::default();
    if let Some(data) = &args.data {
        overrides = overrides.set("data.directory", &data.display().to_string(), "--data");
    }
    let stand_in = Secret::new(vec![b'0'; 64]);
    let loaded = match &args.config {
        Some(file) => config::load(Some(file), &overrides, &environment),
        None => config::built_in(&stand_in, &overrides, &environment),
    };
    let name = args.config.as_ref().map_or("built in".to_owned(), |file| file.display().to_string());
    let words = |all: &[config::Located]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    match loaded {
        Ok((checked, warnings)) => {
            // those of the built-in one are its own
            let warnings = if args.config.is_some() { words(&warnings) } else { Vec::new() };
            let finding = checks::configuration(&name, Ok((checked.sources.len(), warnings)));
            (checked, finding)
        }
        Err(report) => {
            let mut checked = Checked::default();
            if let Some(data) = &args.data {
                checked.data_dir.clone_from(data);
            }
            (checked, checks::configuration(&name, Err(words(&report.problems))))
        }
    }
}

fn directory(path: &Path) -> Directory {
    let found = fs::metadata(path).ok();
    let found = found.map(|m| Found { directory: m.is_dir(), mode: m.mode(), owner: m.uid() });
    Directory { path: path.to_owned(), found, me: machine::user(), restoring: restoring_path(path).exists() }
}

/// Files with secrets that are there, and their modes.
fn secrets(config: &Checked) -> Vec<(PathBuf, u32)> {
    let mut paths = vec![config.data_dir.join(BUILT_IN_SECRET_FILE), config.data_dir.join("tls-key.pem")];
    match &config.tls {
        TlsChoice::Files { key, .. } => paths.push(key.clone()),
        TlsChoice::Acme { acme, .. } => {
            let kept = Kept::in_data(&config.data_dir);
            paths.extend([kept.certificate_path(), kept.account_path(&acme.directory)]);
        }
        TlsChoice::SelfMade { .. } => {}
    }
    paths.push(config.data_dir.join(TOKENS_FILE));
    if let AdminTls::Own(TlsChoice::Files { key, .. }) = &config.admin_access.tls {
        paths.push(key.clone());
    }
    // a place that is no file (the environment) is none of that name either
    paths.extend(config.sources.iter().flat_map(|source| source.secrets_from.iter().map(PathBuf::from)));
    let api = config.sources.iter().filter_map(|source| source.api.as_ref());
    paths.extend(api.flat_map(|api| api.credential_files.iter().map(|(_, path)| path.clone())));
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().filter_map(|path| Some((path.clone(), fs::metadata(&path).ok()?.mode()))).collect()
}

fn certificate(config: &Checked) -> Certificate {
    let own = config.data_dir.join("tls-cert.pem");
    let (identity, names) = match &config.tls {
        TlsChoice::SelfMade { .. } if !own.exists() => return Certificate::NotYet,
        TlsChoice::Acme { .. } => match Kept::in_data(&config.data_dir).identity() {
            Ok(None) => return Certificate::Ordered,
            Ok(Some(kept)) => (Ok(kept), [].as_slice()),
            Err(error) => (Err(error), [].as_slice()),
        },
        TlsChoice::SelfMade { names } => {
            let read = |path: PathBuf| fs::read(&path).map_err(|error| TlsError::File { path, reason: error.to_string() });
            let pair = read(own).and_then(|cert| Ok((cert, read(config.data_dir.join("tls-key.pem"))?)));
            (pair.and_then(|(cert, key)| Identity::from_pem(&cert, &key)), names.as_slice())
        }
        TlsChoice::Files { certificate_pem, key_pem, .. } => {
            (Identity::from_pem(certificate_pem, key_pem.expose()), [].as_slice())
        }
    };
    match identity {
        Err(error) => Certificate::Unusable(error.to_string()),
        Ok(identity) => Certificate::Usable {
            not_before: identity.not_before(),
            not_after: identity.not_after(),
            self_made: identity.self_made(),
            missing: names.iter().filter(|name| !identity.is_for(name)).cloned().collect(),
        },
    }
}

fn gateway(args: &Args, config: &Checked) -> Gateway {
    if args.admin.is_none() && config.admin.port() == 0 {
        // the system chooses a port at each start: nobody knows where to ask
        return Gateway::Stopped(addresses(config));
    }
    let (scheme, trust) = admin_trust(config);
    let admin = args.admin.clone().unwrap_or_else(|| format!("{scheme}://{}", known::reachable(config.admin)));
    let client = match Client::within(&Reach::at(admin, trust), PATIENCE) {
        Ok(client) => client,
        Err(failure) => return Gateway::Odd(failure.message),
    };
    match client.look("/readyz") {
        Ok((StatusCode::OK, body)) if &body[..] == b"ok\n" => Gateway::Ready,
        Ok((StatusCode::SERVICE_UNAVAILABLE, body)) => {
            let text = String::from_utf8_lossy(&body);
            let lines: Vec<&str> = text.lines().filter(|line| *line != "not ready").collect();
            Gateway::NotReady(lines.join("; "))
        }
        Ok((status, _)) => Gateway::Odd(format!("what answers there is no gateway (status {status})")),
        Err(failure) if failure.code == code::UNAVAILABLE => Gateway::Stopped(addresses(config)),
        Err(failure) => Gateway::Odd(failure.message),
    }
}

/// What the admin listener speaks, and the certificate that it must show: it is asked by an address that no certificate may name.
fn admin_trust(config: &Checked) -> (&'static str, Option<Trust>) {
    let choice = match &config.admin_access.tls {
        AdminTls::Off => return ("http", None),
        AdminTls::Public => &config.tls,
        AdminTls::Own(own) => own,
    };
    let pinned = |own: Identity| parse_fingerprint(&own.fingerprint()).map(Trust::Fingerprint);
    let trust = match choice {
        TlsChoice::SelfMade { .. } => known::self_made(&config.data_dir),
        TlsChoice::Files { certificate_pem, key_pem, .. } => {
            Identity::from_pem(certificate_pem, key_pem.expose()).ok().and_then(pinned)
        }
        TlsChoice::Acme { .. } => match Kept::in_data(&config.data_dir).identity() {
            Ok(Some(kept)) => pinned(kept),
            _ => known::self_made(&config.data_dir),
        },
    };
    ("https", trust)
}

/// The configured addresses, and whether they can be bound: each for a moment.
fn addresses(config: &Checked) -> Vec<(&'static str, String, Option<Bind>)> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let bind = |name: &'static str, address: SocketAddr| {
        let bound = runtime.block_on(Server::bind(name, address, None, ServerLimits::default()));
        let problem = bound.err().map(|error| match error.kind() {
            ErrorKind::AddrInUse => Bind::InUse,
            ErrorKind::PermissionDenied => Bind::NotAllowed,
            _ => Bind::Other(error.to_string()),
        });
        (name, address.to_string(), problem)
    };
    vec![bind("listen", config.listen), bind("admin", config.admin)]
}

fn memory_wanted(config: &Checked) -> u64 {
    let limits = &config.limits;
    let connections = (limits.connections as u64).saturating_mul(CONNECTION_BYTES);
    let held = limits.bodies_buffered_bytes as u64 + config.store.cache_bytes as u64;
    BASE_BYTES.saturating_add(connections).saturating_add(held)
}
