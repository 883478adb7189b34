//! What the service manager (systemd) is told, and when: sd_notify(3).
//!
//! Without `NOTIFY_SOCKET` there is nobody to tell, and all of this does nothing.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::StartError;
use crate::limits::{OPENING_LOOK_PERIOD, OPENING_PATIENCE};
use crate::net::notify::Notify;
use crate::store::heart::Heart;
use crate::time;

/// Longest status line, in bytes: `systemctl status` shows one line of a terminal.
const STATUS_MAX_BYTES: usize = 200;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    notify: Option<Notify>,
    watchdog: Option<Duration>,
    /// What it was told last; it is told only what has changed.
    status: Mutex<String>,
}

impl Manager {
    /// As the environment says: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` unless `WATCHDOG_PID` names another process than `pid`.
    pub fn of_environment(variable: &dyn Fn(&str) -> Option<String>, pid: u32) -> Self {
        let address = variable("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let notify = address.and_then(|address| match Notify::new(OsStr::new(&address)) {
            Ok(notify) => Some(notify),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used: the service manager is told nothing");
                None
            }
        });
        let ours = variable("WATCHDOG_PID").is_none_or(|text| text.parse() == Ok(pid));
        let micros = variable("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|micros| *micros > 0);
        Self { notify, watchdog: micros.filter(|_| ours).map(Duration::from_micros), status: Mutex::default() }
    }

    /// How long it waits for a sign of life, if it wants any.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.notify.is_some())
    }

    /// Somebody listens.
    pub(super) fn listens(&self) -> bool {
        self.notify.is_some()
    }

    /// The service is ready: it listens, and the store is open.
    pub(super) fn ready(&self, status: &str) {
        self.tell("READY=1", status);
    }

    /// A reload has begun. What is returned says that it is over, however it ends: whoever asked may have gone away.
    pub(super) fn reloading(&self) -> Reloading<'_> {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", time::monotonic_micros()), "reloading the configuration");
        Reloading { manager: self, status: "the reload was interrupted".to_owned() }
    }

    /// A stop has begun.
    pub fn stopping(&self, status: &str) {
        self.tell("STOPPING=1", status);
    }

    /// There will be no service, and why.
    pub fn failed(&self, why: &str) {
        self.status(why);
    }

    /// The threads that matter are at work.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// What a person reads in `systemctl status`.
    pub(super) fn status(&self, text: &str) {
        if *self.status.lock().unwrap_or_else(PoisonError::into_inner) != text {
            self.tell("", text);
        }
    }

    fn tell(&self, first: &str, status: &str) {
        let mut last = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.clone_into(&mut last);
        let separator = if first.is_empty() { "" } else { "\n" };
        self.send(&format!("{first}{separator}STATUS={}", one_line(status)));
    }

    fn send(&self, message: &str) {
        if let Some(notify) = &self.notify
            && let Err(error) = notify.send(message)
        {
            tracing::warn!(%error, message, "the service manager does not take a message");
        }
    }

    /// Open the store on a thread of its own, which a damaged file or a slow card can keep busy for minutes: meanwhile a stop is
    /// heard, the status says what goes on, and as long as files are read and written there is asked for more time.
    pub(super) async fn while_opening<T: Send + 'static>(
        &self,
        what: &str,
        open: impl FnOnce() -> Result<T, StartError> + Send + 'static,
    ) -> Result<T, StartError> {
        let heart = Heart::default();
        let at_work = heart.clone();
        let (done, mut opened) = oneshot::channel();
        // not one of the runtime's own: it would be waited for at the end
        let thread = std::thread::Builder::new().name("open".to_owned()).spawn(move || {
            let _living = at_work.live();
            if done.send(open()).is_err() {
                tracing::debug!("the store is open, and nobody waits for it any more");
            }
        });
        thread.map_err(StartError::Thread)?;
        self.status(&format!("opening {what}"));
        let began = time::instant();
        let mut progress = Progress::default();
        loop {
            tokio::select! {
                opened = &mut opened => {
                    return opened.unwrap_or_else(|_| Err(StartError::DataDirectory("opening the store ended in a bug: see the log".to_owned())));
                }
                () = tokio::time::sleep(OPENING_LOOK_PERIOD) => {
                    let read = heart.bytes_read() / (1024 * 1024);
                    self.status(&format!("opening {what}: {read} MiB read in {} s", began.elapsed().as_secs()));
                    if progress.made(heart.beats()) {
                        self.send(&format!("EXTEND_TIMEOUT_USEC={}", OPENING_PATIENCE.as_micros()));
                    }
                }
            }
        }
    }
}

/// A reload that is under way.
pub(super) struct Reloading<'a> {
    manager: &'a Manager,
    pub(super) status: String,
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.manager.ready(&self.status);
    }
}

/// Does a heart go on beating?
#[derive(Debug, Default)]
pub(super) struct Progress(u64);

impl Progress {
    /// It has since the last call.
    pub(super) fn made(&mut self, beats: u64) -> bool {
        std::mem::replace(&mut self.0, beats) != beats
    }
}

/// A status is one line.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > STATUS_MAX_BYTES {
            break;
        }
        line.push(c);
    }
    line
}

/// The manager and the sockets that it passed: what surrounds a gateway.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Who is told how the gateway is.
    pub manager: Arc<Manager>,
    /// What it listens on instead of opening sockets itself.
    pub passed: crate::net::passed::Passed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_is_meant_for_another_process_is_not_ours() {
        let of = |usec: &'static str, pid: Option<&'static str>| {
            let look = move |name: &str| match name {
                "NOTIFY_SOCKET" => Some("@nobody".to_owned()),
                "WATCHDOG_USEC" => Some(usec.to_owned()),
                "WATCHDOG_PID" => pid.map(str::to_owned),
                _ => None,
            };
            Manager::of_environment(&look, 42).watchdog()
        };
        assert_eq!(of("30000000", Some("42")), Some(Duration::from_secs(30)));
        assert_eq!(of("30000000", None), Some(Duration::from_secs(30)));
        assert_eq!(of("30000000", Some("41")), None);
        assert_eq!(of("0", None), None);
        assert_eq!(of("soon", None), None);
        assert_eq!(Manager::of_environment(&|_| None, 42).watchdog(), None);
    }

    #[test]
    fn a_status_is_one_line_and_not_too_long() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
        assert!(one_line(&"ü".repeat(500)).len() <= STATUS_MAX_BYTES);
    }
}
