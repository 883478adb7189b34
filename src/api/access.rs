//! Who may ask for what: bearer tokens and their roles.
//!
//! | listener | without a token | with one |
//! |---|---|---|
//! | this machine only, `tokens = "optional"` (the default) | everything; raw deliveries (`backup`) only while there are no tokens | what its role allows |
//! | `tokens = "required"`, and always where other machines reach it | `/livez`, `/readyz`, `/healthz` | what its role allows |
//!
//! A presented token is never ignored while there are tokens: a wrong one is an error also where none is needed.
//!
//! The file is looked at for every request that needs it and read when it has changed: a revoked token is refused from the next request
//! on. A file that cannot be read lets nobody in.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::problem::Problem;
use crate::limits::{TOKENS_FILE_MAX_BYTES, WARN_PERIOD_SECONDS};
use crate::metrics;
use crate::net::serve::Incoming;
use crate::time;
use crate::types::{Role, TOKENS_FILE, Tokens};

/// What an operation asks of whoever wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: whether the gateway lives and is ready is for every load balancer.
    Nothing,
    /// To be allowed to look.
    Read,
    /// To be allowed to decide.
    Operator,
    /// The same, and a token also where none is needed, as soon as there are any: raw deliveries hold customers' data, and
    /// everybody on this machine reaches a listener without tokens.
    Deliveries,
}

/// The tokens of the admin listener.
pub struct Access {
    file: PathBuf,
    required: bool,
    known: Mutex<Known>,
    /// When a refusal was last logged, in seconds.
    warned_at: AtomicI64,
}

/// What the file was when it was last read.
#[derive(Default)]
struct Known {
    stamp: Option<Stamp>,
    tokens: Arc<Tokens>,
}

/// Changes with the file: device and inode (it is replaced, never written into), times of change in nanoseconds, size.
type Stamp = (u64, u64, i64, i64, u64);

/// The file of tokens cannot be read; the log says why.
struct Unreadable;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Missing,
    Unknown,
    Expired,
    Role,
}

impl Failure {
    /// The `reason` in metrics and log; one of [`metrics::ADMIN_AUTH_FAILURES`].
    fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Role => "role",
        }
    }
}

impl Access {
    /// With the tokens of a data directory. `required`: nothing but health without one.
    pub fn new(data: &Path, required: bool) -> Self {
        let (known, warned_at) = (Mutex::default(), AtomicI64::new(i64::MIN));
        Self { file: data.join(TOKENS_FILE), required, known, warned_at }
    }

    /// Nothing but health without a token. Then no web page can speak for a person either: it does not know one.
    pub(super) fn is_required(&self) -> bool {
        self.required
    }

    /// Let a request pass to an operation, or say why not.
    pub(super) fn check(&self, request: &Incoming, need: Need) -> Result<(), Problem> {
        let failure = match self.decide(&request.headers, need) {
            Ok(None) => return Ok(()),
            Ok(Some(name)) => {
                if matches!(need, Need::Operator | Need::Deliveries) {
                    tracing::info!(token = name, peer = %request.peer, method = %request.method, path = request.path, "operator");
                }
                return Ok(());
            }
            Err(failure) => failure,
        };
        metrics::admin_auth_failed(failure.reason());
        let (now, last) = (time::now().seconds(), self.warned_at.load(Ordering::Relaxed));
        if now.saturating_sub(last) >= WARN_PERIOD_SECONDS {
            self.warned_at.store(now, Ordering::Relaxed);
            tracing::warn!(peer = %request.peer, reason = failure.reason(), "a request to the admin listener is refused for its token");
        }
        Err(match failure {
            Failure::Missing => Problem::unauthorized(
                "this needs a token: send `Authorization: Bearer <token>`; `stockgate token new` makes one, --token-file names it",
            ),
            // which of the two is told to whoever may read the log
            Failure::Unknown | Failure::Expired => Problem::unauthorized("the token is unknown, revoked or expired"),
            Failure::Role => {
                Problem::new(StatusCode::FORBIDDEN, "this token may only read: this needs one with the role `operator`")
            }
        })
    }

    /// The name of the token that lets a request pass; `None`: it passes without.
    fn decide(&self, headers: &HeaderMap, need: Need) -> Result<Option<String>, Failure> {
        let role = match need {
            Need::Nothing => return Ok(None),
            Need::Read => Role::Read,
            Need::Operator | Need::Deliveries => Role::Operator,
        };
        let presented = headers.get(AUTHORIZATION);
        if presented.is_none() && !self.required && need != Need::Deliveries {
            return Ok(None);
        }
        let tokens = self.tokens();
        let none_exist = tokens.as_ref().is_ok_and(|tokens| tokens.iter().next().is_none());
        if !self.required && none_exist {
            return Ok(None);
        }
        let Some(presented) = presented else { return Err(Failure::Missing) };
        let text = presented.to_str().ok().and_then(bearer).ok_or(Failure::Unknown)?;
        let tokens = tokens.map_err(|Unreadable| Failure::Unknown)?;
        let token = tokens.find(text).ok_or(Failure::Unknown)?;
        if token.is_expired(time::now()) {
            Err(Failure::Expired)
        } else if token.role < role {
            Err(Failure::Role)
        } else {
            Ok(Some(token.name.clone()))
        }
    }

    /// The tokens as the file has them now; no file is no tokens.
    fn tokens(&self) -> Result<Arc<Tokens>, Unreadable> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |why: String| {
            tracing::error!(file = %self.file.display(), why, "the tokens cannot be read: none is taken");
            Unreadable
        };
        let stamp = match fs::metadata(&self.file) {
            Ok(meta) if meta.len() > TOKENS_FILE_MAX_BYTES => return Err(failed("it is too large".to_owned())),
            Ok(meta) => {
                let changed = meta.ctime().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec());
                let written = meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec());
                Some((meta.dev(), meta.ino(), changed, written, meta.len()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error.to_string())),
        };
        if stamp != known.stamp {
            let tokens = if stamp.is_some() {
                let bytes = fs::read(&self.file).map_err(|error| failed(error.to_string()))?;
                Tokens::parse(&bytes).map_err(failed)?
            } else {
                Tokens::default()
            };
            *known = Known { stamp, tokens: Arc::new(tokens) };
        }
        Ok(Arc::clone(&known.tokens))
    }
}

/// The token of `Bearer <token>` (RFC 6750, section 2.1; the scheme's case does not matter).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
