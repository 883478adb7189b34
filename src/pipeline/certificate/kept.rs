//! What ACME leaves in the data directory, in `acme/` (mode 0700, every file 0600, each replaced whole):
//!
//! - `account-<8 digits>.json`: the account at one directory (the digits are of its URL's SHA-256), with its private key.
//! - `certificate.pem`: the private key, then the chain. One file, so that a crash never leaves a new one beside an old one.
//! - `standing.json`: where and for which names it was ordered, how the last attempt ended, when the next one is due.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use super::watch::read;
use crate::net::acme::{Issued, Report};
use crate::net::tls::{Identity, TlsError, keep, sync_directory};

/// The folder in the data directory.
const FOLDER: &str = "acme";
/// Mode of every file: each holds a key or stands beside one.
const MODE: u32 = 0o600;

/// The folder of one gateway.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// In a data directory; nothing is made yet.
    pub fn in_data(data: &Path) -> Self {
        Self { folder: data.join(FOLDER) }
    }

    /// Where the certificate and its key lie.
    pub fn certificate_path(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// Where the account at a directory lies.
    pub fn account_path(&self, directory: &str) -> PathBuf {
        let digest = ring::digest::digest(&ring::digest::SHA256, directory.as_bytes());
        let digits = HEXLOWER.encode(digest.as_ref().get(..4).unwrap_or_default());
        self.folder.join(format!("account-{digits}.json"))
    }

    fn standing_path(&self) -> PathBuf {
        self.folder.join("standing.json")
    }

    /// The certificate with its key, as one PEM text; `None`: there is none yet.
    pub fn certificate(&self) -> Result<Option<Vec<u8>>, TlsError> {
        let path = self.certificate_path();
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    /// The certificate, ready to serve; `None`: there is none yet.
    pub fn identity(&self) -> Result<Option<Identity>, TlsError> {
        self.certificate()?.map(|pem| Identity::from_pem(&pem, &pem)).transpose()
    }

    /// Keep a new certificate.
    pub fn keep_certificate(&self, issued: &Issued) -> Result<Vec<u8>, TlsError> {
        let pem = format!("{}\n{}", issued.key_pem.trim_end(), issued.chain_pem).into_bytes();
        self.write(&self.certificate_path(), &pem)?;
        Ok(pem)
    }

    /// The account at a directory.
    pub fn account(&self, directory: &str) -> Option<Vec<u8>> {
        read(&self.account_path(directory)).ok()
    }

    /// Keep the account at a directory.
    pub fn keep_account(&self, directory: &str, account: &[u8]) -> Result<(), TlsError> {
        self.write(&self.account_path(directory), account)
    }

    /// Forget the account at a directory: the server does not know it any more.
    pub fn forget_account(&self, directory: &str) {
        let path = self.account_path(directory);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "the old account cannot be removed");
        }
    }

    /// How the last attempt ended; nothing when it cannot be read: the worst that follows is one attempt too early.
    pub fn report(&self) -> Option<Report> {
        serde_json::from_slice(&read(&self.standing_path()).ok()?).ok()
    }

    /// Keep how it stands.
    pub fn keep_report(&self, report: &Report) -> Result<(), TlsError> {
        let text = serde_json::to_vec_pretty(report).expect("a report is plain values");
        self.write(&self.standing_path(), &text)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
        let failed = |error: std::io::Error| TlsError::File { path: self.folder.clone(), reason: error.to_string() };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        keep(path, bytes, MODE)?;
        sync_directory(&self.folder)
    }
}
