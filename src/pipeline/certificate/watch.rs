//! An operator's certificate and key: taken without a word from anybody when their files have changed and fit together.
//!
//! Each look reads both files and compares what they hold. So it makes no difference how they are replaced: written in place, renamed over,
//! or by a symbolic link that moves (certbot, Kubernetes). A new certificate beside the old key is the middle of a replacement: the old pair
//! stays, the log says so once, and the pair is taken when it is whole.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::limits::{CERTIFICATE_FILE_MAX_BYTES, CERTIFICATE_LOOK_PERIOD};
use crate::net::tls::{Identity, TlsError, digest_of};

/// Where a pair lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM chain, the server's certificate first.
    pub certificate: PathBuf,
    /// PEM of its key.
    pub key: PathBuf,
}

/// Looks at one pair of files.
pub struct Watch {
    identity: Arc<Identity>,
    /// What was refused at the last look: the digest of what the files held, or why they could not be read. It is told once.
    refused: Option<Result<[u8; 32], TlsError>>,
}

impl Watch {
    /// Hand what changes to `identity`.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, refused: None }
    }

    /// Look once. Reads files: not for an async task.
    pub fn look(&mut self, files: &Files) {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let offered = read(&files.certificate).and_then(|cert| Ok((cert, read(&files.key)?)));
        let seen = offered.as_ref().map(|(cert, key)| digest_of(cert, key)).map_err(Clone::clone);
        if self.refused.as_ref() == Some(&seen) {
            return;
        }
        let outcome = match &offered {
            Ok((cert, key)) => {
                let changed = !self.identity.uses(cert, key);
                self.identity.swap(cert, key).map(|()| changed)
            }
            Err(error) => {
                self.identity.unreadable(error);
                Err(error.clone())
            }
        };
        match outcome {
            Ok(changed) => {
                self.refused = None;
                if changed {
                    let (fingerprint, until) = (self.identity.fingerprint(), self.identity.not_after());
                    tracing::info!(%certificate, %fingerprint, not_after = %until, "a new certificate is in use");
                }
            }
            Err(error) => {
                self.refused = Some(seen);
                tracing::warn!(%certificate, %key, %error, "the certificate's files changed and cannot be used: the one before stays");
            }
        }
    }
}

/// Look every few seconds, and at once after a reload. `None`: there is nothing to watch.
pub async fn run(identity: Arc<Identity>, mut files: watch::Receiver<Option<Files>>) {
    let mut watch = Watch::new(Arc::clone(&identity));
    loop {
        let now = files.borrow_and_update().clone();
        if let Some(now) = now {
            let looked = tokio::task::spawn_blocking(move || {
                watch.look(&now);
                watch
            });
            match looked.await {
                Ok(back) => watch = back,
                Err(error) => {
                    tracing::error!(%error, "the look at the certificate's files ended early");
                    watch = Watch::new(Arc::clone(&identity));
                }
            }
        }
        // the share of its lifetime that is left falls by itself
        identity.publish();
        tokio::select! {
            () = tokio::time::sleep(CERTIFICATE_LOOK_PERIOD) => {}
            changed = files.changed() => if changed.is_err() { return },
        }
    }
}

/// A whole regular file, up to a bound. Nothing else is opened: a pipe would block.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let meta = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !meta.is_file() {
        return Err(failed("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(CERTIFICATE_FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > CERTIFICATE_FILE_MAX_BYTES {
        return Err(failed("it is too large for a certificate or a key".to_owned()));
    }
    Ok(bytes)
}
