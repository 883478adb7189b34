//! What a configuration is made into: nothing here is bound or started.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StartError;
use crate::api::SourceInfo;
use crate::config::{self, AcmeChallenge, AdminTls, Checked, ClientAuth, SourceConfig, TlsChoice};
use crate::limits::ACME_HTTP_CONNECTIONS_MAX;
use crate::net::acme::Proof;
use crate::net::client::{Alpn, BaseUrl, Client, Limits as ClientLimits};
use crate::net::client_auth::{Authorities, ClientTrust, authorities};
use crate::net::serve::{Limits as ServerLimits, Proxies};
use crate::net::tls::{Identity, TlsError, certificates, load_or_make};
use crate::net::trust::Trust;
use crate::pipeline::certificate::kept::Kept;
use crate::pipeline::certificate::renew::Setting;
use crate::pipeline::certificate::watch::Files;
use crate::pipeline::fetch::FetchSource;
use crate::pipeline::ingest::Route;
use crate::pipeline::retain::Keep;
use crate::sources::Credentials;
use crate::store::restoring_path;
use crate::time;
use crate::types::{ItemMaps, Secret, SourceId};

/// Make the data directory, for its owner only, unless it is there. One in which a restore did not end is refused.
pub fn make_data_directory(path: &Path) -> Result<(), StartError> {
    if restoring_path(path).exists() {
        let why = format!(
            "a restore into {} is under way or did not end: run `stockgate restore` again, it begins anew",
            path.display()
        );
        return Err(StartError::DataDirectory(why));
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| {
        // its name must survive a power cut, like what will be in it
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match std::fs::File::open(parent) {
            Ok(parent) => parent.sync_all(),
            // somebody else's directory: whoever made ours in it has seen to its name
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
        }
    });
    made.map_err(|error| StartError::DataDirectory(format!("the data directory {} cannot be made: {error}", path.display())))
}

/// Why a gateway with this configuration would not start, as far as its certificates, keys, authorities and addresses say.
pub fn unusable(config: &Checked) -> Option<StartError> {
    let tls = |choice: &TlsChoice| match choice {
        TlsChoice::Files { certificate_pem, key_pem, .. } => Identity::from_pem(certificate_pem, key_pem.expose()).err(),
        TlsChoice::SelfMade { .. } | TlsChoice::Acme { .. } => None,
    };
    let admin = match &config.admin_access.tls {
        AdminTls::Own(own) => tls(own),
        AdminTls::Off | AdminTls::Public => None,
    };
    tls(&config.tls).or(admin).map(StartError::Tls).or_else(|| routes(config).err())
}

/// Let a configuration hold the mappings that are in use already instead of its own copies of them.
pub(super) fn share_items(config: &mut Checked, items: &ItemMaps) {
    for source in &mut config.sources {
        source.items = items.share(std::mem::take(&mut source.items));
    }
}

pub(super) fn identity(config: &Checked) -> Result<Identity, TlsError> {
    match &config.tls {
        TlsChoice::SelfMade { names } => load_or_make(&config.data_dir, names, time::now()),
        TlsChoice::Files { certificate_pem, key_pem, .. } => Identity::from_pem(certificate_pem, key_pem.expose()),
        TlsChoice::Acme { names, .. } => match Kept::in_data(&config.data_dir).identity() {
            Ok(Some(kept)) if kept.not_after() > time::now() => Ok(kept),
            Ok(_) => load_or_make(&config.data_dir, names, time::now()),
            Err(error) => {
                tracing::warn!(%error, "the certificate that ACME brought cannot be used: the self-made one serves until it is replaced");
                load_or_make(&config.data_dir, names, time::now())
            }
        },
    }
}

/// The files of the certificate, when it is the operator's own.
pub(super) fn certificate_files(config: &Checked) -> Option<Files> {
    match &config.tls {
        TlsChoice::Files { certificate, key, .. } => Some(Files { certificate: certificate.clone(), key: key.clone() }),
        TlsChoice::SelfMade { .. } | TlsChoice::Acme { .. } => None,
    }
}

/// What is asked of an ACME server, when one is.
pub(super) fn acme(config: &Checked) -> Result<Option<Arc<Setting>>, StartError> {
    let TlsChoice::Acme { acme, .. } = &config.tls else { return Ok(None) };
    let trust = match &acme.ca_pem {
        Some(pem) => Trust::Roots(certificates(pem).map_err(|error| StartError::Api(format!("tls.acme.ca_file: {error}")))?),
        None => Trust::SystemRoots,
    };
    let proof = match acme.challenge {
        AcmeChallenge::TlsAlpn01 => Proof::TlsAlpn01,
        AcmeChallenge::Http01 { .. } => Proof::Http01,
    };
    Ok(Some(Arc::new(Setting {
        directory: acme.directory.clone(),
        trust,
        names: acme.names.clone(),
        contact: acme.contact.clone(),
        proof,
        data: config.data_dir.clone(),
    })))
}

/// Where HTTP-01 is answered, when it is.
pub(super) fn http_01(config: &Checked) -> Option<SocketAddr> {
    let TlsChoice::Acme { acme, .. } = &config.tls else { return None };
    match acme.challenge {
        AcmeChallenge::TlsAlpn01 => None,
        AcmeChallenge::Http01 { address } => Some(address),
    }
}

/// The bounds of the listener that answers HTTP-01: a few short requests without a body.
pub(super) fn http_01_limits() -> ServerLimits {
    ServerLimits {
        connections: ACME_HTTP_CONNECTIONS_MAX,
        connections_per_address: ACME_HTTP_CONNECTIONS_MAX / 2,
        body_bytes: 0,
        bodies_buffered: 0,
        ..ServerLimits::default()
    }
}

pub(super) fn server_limits(config: &Checked) -> ServerLimits {
    ServerLimits {
        connections: config.limits.connections,
        connections_per_address: config.limits.connections_per_address,
        body_bytes: config.limits.body_bytes,
        bodies_buffered: config.limits.bodies_buffered_bytes,
        handshake: config.limits.handshake_timeout,
        header: config.limits.header_timeout,
        body: config.limits.body_timeout,
        idle: config.limits.idle_timeout,
        ..ServerLimits::default()
    }
}

pub(super) fn keep(config: &Checked) -> Keep {
    Keep { age: config.retention.age, bytes: config.retention.bytes }
}

/// The sources as the public listener needs them.
pub(super) fn routes(config: &Checked) -> Result<Vec<Route>, StartError> {
    let route = |s: &SourceConfig| {
        let route = Route::new(s.id.clone(), Arc::clone(&s.adapter), s.secrets.clone(), s.token.clone(), s.allow.clone());
        let Some(clients) = &s.clients else { return Ok(route) };
        Ok(route.from_clients(client_trust(&s.id, clients)?))
    };
    config.sources.iter().map(route).collect()
}

fn client_trust(source: &SourceId, clients: &ClientAuth) -> Result<ClientTrust, StartError> {
    let crl = clients.crl.as_ref();
    let trust =
        ClientTrust::from_pem(&clients.ca_pem, crl.map(|(_, pem)| &**pem), clients.names.clone()).map_err(|error| {
            let (key, path) = match (&error, crl) {
                (TlsError::BadList(_), Some((path, _))) => ("client_crl_file", path),
                _ => ("client_ca_file", &clients.ca),
            };
            StartError::Clients(format!("source.{source}.{key} ({}): {error}", path.display()))
        })?;
    if let Some(end) = trust.list_expires().filter(|end| *end <= time::now()) {
        tracing::warn!(%source, %end, "the list of revoked client certificates has expired: the source takes nothing until there is a new one");
    }
    Ok(trust)
}

/// The authorities whose certificates clients are asked for.
pub(super) fn asked_authorities(routes: &[Route]) -> Authorities {
    authorities(routes.iter().filter_map(Route::clients))
}

/// The certificate of the admin listener; `None`: it speaks plain HTTP.
pub(super) fn admin_identity(config: &Checked, public: &Arc<Identity>) -> Result<Option<Arc<Identity>>, TlsError> {
    match &config.admin_access.tls {
        AdminTls::Public => Ok(Some(Arc::clone(public))),
        AdminTls::Own(TlsChoice::Files { certificate_pem, key_pem, .. }) => {
            Identity::from_pem(certificate_pem, key_pem.expose()).map(|own| Some(Arc::new(own)))
        }
        AdminTls::Off | AdminTls::Own(TlsChoice::SelfMade { .. } | TlsChoice::Acme { .. }) => Ok(None),
    }
}

/// Which peers begin a connection with a PROXY header; `None`: none do.
pub(super) fn proxies(config: &Checked) -> Option<Proxies> {
    let listed = config.proxies.clone();
    (!listed.is_empty()).then(|| -> Proxies { Arc::new(move |peer| listed.iter().any(|network| network.contains(peer))) })
}

pub(super) fn infos(config: &Checked) -> Vec<SourceInfo> {
    let info = |s: &SourceConfig| SourceInfo {
        name: s.id.to_string(),
        kind: s.kind.name.to_owned(),
        path: format!("/in/{}{}", s.id, if s.token.is_some() { "/***" } else { "" }),
        signed: s.adapter.signed(),
        warehouse: s.warehouse.as_ref().map(ToString::to_string),
        authority: config
            .warehouses
            .iter()
            .filter(|(_, w)| w.authority.contains(&s.id))
            .map(|(id, _)| id.to_string())
            .collect(),
    };
    config.sources.iter().map(info).collect()
}

/// The sources that can be asked, with their clients.
pub(super) fn api_sources(config: &Checked) -> Result<Vec<FetchSource>, StartError> {
    let mut found = Vec::new();
    for source in &config.sources {
        let Some(api) = &source.api else { continue };
        let bad = |why: String| StartError::Api(format!("source.{}.api: {why}", source.id));
        let base = BaseUrl::parse(&api.base_url).map_err(|error| bad(error.to_string()))?;
        let trust = match &api.ca_pem {
            Some(pem) => Trust::Roots(certificates(pem).map_err(|error| bad(format!("ca_file: {error}")))?),
            // plain HTTP to this machine trusts nobody: no root certificates are needed
            None if !base.is_https() => Trust::Fingerprint([0; 32]),
            None => Trust::SystemRoots,
        };
        let client = Client::with(trust, Alpn::Http1, ClientLimits::default(), true).map_err(|e| bad(e.to_string()))?;
        let (credentials, files) = (api.credentials.clone(), api.credential_files.clone());
        found.push(FetchSource {
            name: source.id.to_string(),
            adapter: Arc::clone(&source.adapter),
            base,
            client,
            credentials: Box::new(move || current_credentials(&credentials, &files)),
            requests: api.requests,
            per: api.per,
            gather: api.gather,
        });
    }
    Ok(found)
}

/// Credentials as their files hold them now: access tokens of some platforms live two hours and are renewed in place.
fn current_credentials(as_read: &Credentials, files: &[(String, PathBuf)]) -> Credentials {
    let renewed = |name: &str| -> Option<Secret> {
        let (_, path) = files.iter().find(|(n, _)| n == name)?;
        config::read_secret(path).ok().filter(|secret| !secret.is_empty())
    };
    Credentials(
        as_read.0.iter().map(|(name, secret)| (name.clone(), renewed(name).unwrap_or_else(|| secret.clone()))).collect(),
    )
}
