//! Certificates by ACME: one worker that orders, keeps, takes into use and renews.
//!
//! A look decides by what is known ([`Worker::due`]): no usable certificate, other names or another directory than configured, or
//! the moment of renewal. A failure is told once in the log and kept with the time of the next attempt, so that a gateway that is
//! restarted over and over does not ask over and over. A reload asks at once, unless the server itself asked for patience.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::kept::Kept;
use crate::limits::{ACME_ATTEMPT_TIMEOUT, ACME_LOOK_PERIOD, ACME_RENEWAL_INFO_PERIOD};
use crate::metrics;
use crate::net::acme::{Failure, Issued, LastFailure, Order, Proof, Reason, Renewal, Report, Server, Standing};
use crate::net::tls::{Identity, TlsError};
use crate::net::trust::Trust;
use crate::retry::renewal::{Lifetime, pause, renew_at};
use crate::time::{self, Timestamp};

/// What is asked for, and from whom.
#[derive(Debug, Clone)]
pub struct Setting {
    /// URL of the server's directory.
    pub directory: String,
    /// Whom to trust at that address.
    pub trust: Trust,
    /// Host names.
    pub names: Vec<String>,
    /// `mailto:` URLs.
    pub contact: Vec<String>,
    /// How the names are proven.
    pub proof: Proof,
    /// The data directory.
    pub data: PathBuf,
}

/// Renew for ever; `None`: ACME is not configured.
pub async fn run(identity: Arc<Identity>, mut settings: watch::Receiver<Option<Arc<Setting>>>, standing: Arc<Standing>) {
    let mut reloaded = false;
    loop {
        let now = settings.borrow_and_update().clone();
        match now {
            None => {
                standing.set(None);
                if settings.changed().await.is_err() {
                    return;
                }
            }
            Some(setting) => {
                let mut worker = Worker::new(setting, Arc::clone(&identity), Arc::clone(&standing));
                if reloaded {
                    worker.hurry();
                }
                if worker.run(&mut settings).await.is_err() {
                    return;
                }
            }
        }
        reloaded = true;
    }
}

/// The work for one setting.
pub(super) struct Worker {
    setting: Arc<Setting>,
    identity: Arc<Identity>,
    standing: Arc<Standing>,
    kept: Kept,
    report: Report,
    /// The certificate in use came from this server for these names.
    in_use: bool,
    /// When the server wants it renewed, and when to ask it again.
    suggested: Option<Renewal>,
    ask_at: Timestamp,
}

impl Worker {
    pub(super) fn new(setting: Arc<Setting>, identity: Arc<Identity>, standing: Arc<Standing>) -> Self {
        for reason in Reason::ALL {
            metrics::acme_failures(reason.as_str(), 0);
        }
        let kept = Kept::in_data(&setting.data);
        let fresh = Report { directory: setting.directory.clone(), names: setting.names.clone(), ..Report::default() };
        let report = kept.report().filter(|r| r.directory == setting.directory && r.names == setting.names).unwrap_or(fresh);
        let mut worker =
            Self { setting, identity, standing, kept, report, in_use: false, suggested: None, ask_at: Timestamp(0) };
        worker.take_kept();
        worker
    }

    /// Take the kept certificate into use, if it is of any.
    fn take_kept(&mut self) {
        let taken = match self.kept.certificate() {
            Ok(None) => return,
            Ok(Some(pem)) => self.identity.swap(&pem, &pem),
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => {
                let whole = self.setting.names.iter().all(|name| self.identity.is_for(name));
                self.in_use = whole && self.report.last_success.is_some();
            }
            Err(error) => tracing::warn!(%error, "the kept certificate cannot be used: a new one is ordered"),
        }
    }

    /// Somebody may have mended what was wrong: forget our own pause, not the server's.
    pub(super) fn hurry(&mut self) {
        self.report.next_attempt = self.report.held_until;
    }

    #[cfg(test)]
    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    /// When the next attempt is due: at once, for `Timestamp(0)`.
    pub(super) fn due(&self) -> Timestamp {
        let retry = if self.report.failures > 0 { self.report.next_attempt } else { None };
        let renewal = self.in_use.then(|| {
            let life = Lifetime {
                not_before: self.identity.not_before(),
                not_after: self.identity.not_after(),
                obtained: self.report.last_success.unwrap_or_default(),
            };
            renew_at(&life, self.seed(), self.suggested.map(|s| (s.start, s.end)))
        });
        retry.max(renewal).unwrap_or_default()
    }

    /// Chance that is the same for one certificate, and another for each box.
    fn seed(&self) -> u64 {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.identity.leaf());
        digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    async fn run(&mut self, settings: &mut watch::Receiver<Option<Arc<Setting>>>) -> Result<(), watch::error::RecvError> {
        loop {
            let now = time::now();
            if self.in_use && self.ask_at <= now {
                self.ask().await;
            }
            let due = self.due();
            if due <= now {
                self.attempt().await;
                continue;
            }
            self.report.next_attempt = Some(due);
            self.show();
            tokio::select! {
                changed = settings.changed() => return changed,
                () = tokio::time::sleep(due.since(now).min(ACME_LOOK_PERIOD)) => {}
            }
        }
    }

    fn show(&self) {
        metrics::acme(self.report.last_success, self.report.next_attempt);
        self.standing.set(Some(self.report.clone()));
    }

    /// Ask the server when it wants the certificate renewed. No answer is no failure: the share of its lifetime decides then.
    pub(super) async fn ask(&mut self) {
        let (least, most, usual) = ACME_RENEWAL_INFO_PERIOD;
        let asked = async {
            let Some(id) = self.identity.renewal_id() else { return Ok(None) };
            let server = Server::look(&self.setting.directory, self.setting.trust.clone()).await?;
            server.renewal(&id).await
        };
        let answer: Result<Option<Renewal>, Failure> = asked.await;
        let again = match answer {
            Ok(suggested) => {
                if suggested != self.suggested
                    && let Some(Renewal { start, end, .. }) = suggested
                {
                    tracing::info!(%start, %end, "the ACME server suggests when to renew");
                }
                self.suggested = suggested;
                suggested.and_then(|s| s.ask_again).unwrap_or(usual)
            }
            Err(failure) => {
                tracing::debug!(%failure, "no renewal information");
                usual
            }
        };
        self.ask_at = time::now().plus(again.clamp(least, most));
    }

    /// One attempt, whose end is told, kept and shown.
    pub(super) async fn attempt(&mut self) {
        let (directory, names) = (self.setting.directory.as_str(), self.setting.names.join(","));
        tracing::info!(directory, names, challenge = self.setting.proof.as_str(), "asking for a certificate");
        let late = || Failure::new(Reason::Order, "the attempt did not end in time");
        let got = tokio::time::timeout(ACME_ATTEMPT_TIMEOUT, Box::pin(self.obtain())).await;
        let result = match got.unwrap_or_else(|_elapsed| Err(late())) {
            Ok(issued) => self.take(issued).await,
            Err(failure) => Err(failure),
        };
        let now = time::now();
        match result {
            Ok(()) => {
                self.in_use = true;
                self.suggested = None;
                self.ask_at = now;
                let report = Report {
                    last_success: Some(now),
                    next_attempt: None,
                    failures: 0,
                    held_until: None,
                    ..self.report.clone()
                };
                self.report = Report { last_failure: None, ..report };
                tracing::info!(fingerprint = %self.identity.fingerprint(), not_after = %self.identity.not_after(), "a new certificate is in use");
            }
            Err(failure) => self.failed(&failure, now),
        }
        let (kept, report) = (self.kept.clone(), self.report.clone());
        if let Err(failure) = on_disk(move || kept.keep_report(&report)).await {
            tracing::warn!(%failure, "how it stands with ACME cannot be kept");
        }
        self.show();
    }

    /// Note a failure and when to try again.
    pub(super) fn failed(&mut self, failure: &Failure, now: Timestamp) {
        let failures = self.report.failures.saturating_add(1);
        let next = now.plus(pause(failures, self.seed(), failure.reason.is_harmless(), failure.retry_after));
        let reason = failure.reason.as_str();
        metrics::acme_failures(reason, 1);
        let advice = failure.reason.advice();
        tracing::error!(reason, failures, next_attempt = %next, "no certificate: {}; {advice}", failure.message);
        self.report.failures = failures;
        self.report.next_attempt = Some(next);
        self.report.held_until = failure.retry_after.map(|_| next);
        self.report.last_failure =
            Some(LastFailure { at: now, reason: reason.to_owned(), message: failure.message.clone() });
    }

    /// Directory, account, order. An account that the server has forgotten is replaced once.
    async fn obtain(&self) -> Result<Issued, Failure> {
        let Setting { directory, names, contact, proof, .. } = &*self.setting;
        let server = Server::look(directory, self.setting.trust.clone()).await?;
        let replaces = if self.in_use { self.identity.renewal_id() } else { None };
        let order = Order { names, proof: *proof, replaces: replaces.as_ref() };
        let mut again = true;
        loop {
            let (kept, place) = (self.kept.clone(), directory.clone());
            let known = tokio::task::spawn_blocking(move || kept.account(&place)).await.ok().flatten();
            let result = async {
                let (account, new) = server.account(known.as_deref(), contact).await?;
                if let Some(new) = new {
                    let (kept, place) = (self.kept.clone(), directory.clone());
                    on_disk(move || kept.keep_account(&place, &new)).await?;
                    tracing::info!(directory, "an account was made, its key is kept in the data directory");
                }
                account.obtain(&order, self.identity.challenges()).await
            };
            match result.await {
                Err(failure) if failure.account_gone && known.is_some() && again => {
                    again = false;
                    tracing::warn!(directory, "the ACME server does not know the account any more: making a new one");
                    self.kept.forget_account(directory);
                }
                result => return result,
            }
        }
    }

    /// Look at what came, keep it, then use it.
    async fn take(&self, issued: Issued) -> Result<(), Failure> {
        let unusable = |error: TlsError| Failure::new(Reason::Certificate, format!("the certificate that came: {error}"));
        let new = Identity::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).map_err(unusable)?;
        if let Some(name) = self.setting.names.iter().find(|name| !new.is_for(name)) {
            return Err(Failure::new(Reason::Certificate, format!("the certificate that came is not for {name}")));
        }
        if new.not_after() <= time::now() {
            return Err(unusable(TlsError::Expired(new.not_after())));
        }
        let kept = self.kept.clone();
        let pem = on_disk(move || kept.keep_certificate(&issued)).await?;
        self.identity.swap(&pem, &pem).map_err(unusable)
    }
}

/// Write something, away from the async tasks: a sync takes its time.
async fn on_disk<T: Send + 'static>(write: impl FnOnce() -> Result<T, TlsError> + Send + 'static) -> Result<T, Failure> {
    let failed = |why: String| Failure::new(Reason::Storage, format!("the data directory cannot be written: {why}"));
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}
