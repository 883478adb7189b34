//! The certificate of the first start: made here, kept in the data directory, pinned by its fingerprint.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use super::tls::{Identity, TlsError};
use crate::time::Timestamp;

/// Common name by which we know our own certificates again.
pub(super) const COMMON_NAME: &str = "stockgate self-made certificate";
/// File names in the data directory.
const CERT_FILE: &str = "tls-cert.pem";
const KEY_FILE: &str = "tls-key.pem";
/// How long a self-made certificate is valid. It is pinned, not renewed, so it outlives the box.
const VALIDITY: Duration = Duration::from_secs(3653 * 24 * 3600);
/// Validity starts a day before: clocks of clients differ.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
/// No box runs this program before 2026. One without a battery clock may believe it is 1970: validity then still has to
/// cover the day on which its clock is set.
const EARLIEST_SECONDS: i64 = 1_767_225_600;

/// A certificate and its key, both PEM.
pub struct SelfMade {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key, PKCS #8. A secret.
    pub key_pem: String,
}

impl std::fmt::Debug for SelfMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelfMade").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// Make a self-signed ECDSA P-256 server certificate for DNS names and IP addresses, valid from a day before `now` for ten
/// years (counted from 2026 when the clock is behind that).
pub fn make_self_made(names: &[String], now: Timestamp) -> Result<SelfMade, TlsError> {
    let refused = |e: rcgen::Error| TlsError::Names(e.to_string());
    let mut params = CertificateParams::new(names.to_vec()).map_err(refused)?;
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // The clock of the box may be far off in both directions; keep to years that a certificate can express.
    let now_seconds = u64::try_from(now.seconds()).unwrap_or(0).clamp(BACKDATED.as_secs(), 32_503_680_000);
    let from_2026 = now_seconds.max(EARLIEST_SECONDS.unsigned_abs());
    params.not_before = epoch + Duration::from_secs(now_seconds) - BACKDATED;
    params.not_after = epoch + Duration::from_secs(from_2026) + VALIDITY;
    let key = KeyPair::generate().map_err(refused)?;
    let cert = params.self_signed(&key).map_err(refused)?;
    Ok(SelfMade { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// The identity kept in `dir` (`tls-cert.pem`, `tls-key.pem`), or a new one made for `names` and kept there.
///
/// A pair that is incomplete (a stop between the two files) or a self-made certificate that has expired is replaced. A pair
/// that is there and cannot be used is an error: it may be an operator's own.
pub fn load_or_make(dir: &Path, names: &[String], now: Timestamp) -> Result<Identity, TlsError> {
    let (cert_path, key_path) = (dir.join(CERT_FILE), dir.join(KEY_FILE));
    if let (Some(cert), Some(key)) = (read_if_there(&cert_path)?, read_if_there(&key_path)?) {
        let identity = Identity::from_pem(&cert, &key)?;
        if identity.not_after() > now || !identity.self_made() {
            return Ok(identity);
        }
        tracing::warn!(not_after = %identity.not_after(), "the self-made certificate has expired; making a new one");
    }
    let made = make_self_made(names, now)?;
    // The key first: a certificate is never there without its key.
    keep(&key_path, made.key_pem.as_bytes(), 0o600)?;
    keep(&cert_path, made.cert_pem.as_bytes(), 0o644)?;
    sync_directory(dir)?;
    let identity = Identity::from_pem(made.cert_pem.as_bytes(), made.key_pem.as_bytes())?;
    tracing::info!(fingerprint = %identity.fingerprint(), "made a certificate");
    Ok(identity)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error(path, &e)),
    }
}

/// Write a file whole or not at all, with its final mode from the first byte on. Its name is durable when its directory is synced.
pub fn keep(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let unfinished = PathBuf::from(format!("{}.new", path.display()));
    let write = || {
        match fs::remove_file(&unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|e| file_error(path, &e))
}

/// Make the names in a directory durable.
pub fn sync_directory(dir: &Path) -> Result<(), TlsError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| file_error(dir, &e))
}

fn file_error(path: &Path, error: &io::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: error.to_string() }
}
