//! Is it alive, is it ready?
//!
//! `/livez` says that the process answers. `/readyz` says that a delivery sent now would be acknowledged and folded; it is
//! what a load balancer or an update script asks. It turns 503 when a stop begins, before the listeners close.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;

use super::Context;
use super::params::Params;
use super::problem::text;
use crate::net::serve::Outgoing;

/// Share of the journal's queue, in percent, from which on the gateway is not ready.
const QUEUE_FULL_PERCENT: u64 = 90;

/// What the rest of the program reports about itself. Starts as not ready: nothing is loaded, no fold runs.
#[derive(Debug, Default)]
pub struct Health {
    certificate: AtomicBool,
    fold: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// The public listener has a certificate.
    pub fn certificate_loaded(&self, is: bool) {
        self.certificate.store(is, Ordering::Release);
    }

    /// The fold's thread runs. Whoever runs it takes this back when it ends, however it ends.
    pub fn fold_alive(&self, is: bool) {
        self.fold.store(is, Ordering::Release);
    }

    /// A stop began; there is no way back.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

/// One thing that must be well.
pub(super) struct Check {
    name: &'static str,
    /// What is wrong, when something is.
    problem: Option<String>,
}

/// Everything that `/readyz` looks at.
pub(super) fn checks(context: &Context) -> Vec<Check> {
    let health = &context.health;
    let (queued, capacity) = (context.appender.queued(), context.appender.capacity() as u64);
    let full = is_full(queued, capacity);
    let check = |name, ok: bool, problem: &str| Check { name, problem: (!ok).then(|| problem.to_owned()) };
    vec![
        check("journal", context.journal.healthy(), "cannot be written: nothing is acknowledged until its file opens again"),
        disk(context),
        check("queue", !full, &format!("{queued} of {capacity} records wait for the journal")),
        check("certificate", health.certificate.load(Ordering::Acquire), "none is loaded"),
        check(
            "fold",
            health.fold.load(Ordering::Acquire),
            "it does not run, or its state cannot be written: deliveries are kept, levels stand still",
        ),
        check("draining", !health.draining.load(Ordering::Acquire), "the gateway is stopping"),
    ]
}

/// Is there room for deliveries?
fn disk(context: &Context) -> Check {
    let full = context.journal.reserve().filter(|reserve| !reserve.has_room()).map(|reserve| {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        format!(
            "full: {} MiB are free, nothing is acknowledged until {} are; checkpoints and retention go on in the reserve",
            mib(reserve.free()),
            mib(reserve.needed())
        )
    });
    Check { name: "disk", problem: full }
}

/// The queue is so full that the next burst would be refused.
fn is_full(queued: u64, capacity: u64) -> bool {
    queued.saturating_mul(100) >= capacity.saturating_mul(QUEUE_FULL_PERCENT)
}

/// True when every check is well.
pub(super) fn is_ready(context: &Context) -> bool {
    checks(context).iter().all(|check| check.problem.is_none())
}

/// `/livez`.
pub(super) fn live() -> Outgoing {
    text(StatusCode::OK, "ok\n".to_owned())
}

/// `/readyz` and `/healthz`: what is wrong is always listed, what is well with `?verbose`.
pub(super) fn ready(context: &Context, params: &Params) -> Outgoing {
    let checks = checks(context);
    let ready = checks.iter().all(|check| check.problem.is_none());
    let mut body = String::new();
    for check in checks {
        let written = match check.problem {
            Some(problem) => writeln!(body, "{}: failed: {problem}", check.name),
            None if params.flag("verbose") => writeln!(body, "{}: ok", check.name),
            None => Ok(()),
        };
        written.expect("writing into a String does not fail");
    }
    body.push_str(if ready { "ok\n" } else { "not ready\n" });
    text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

#[cfg(test)]
mod tests {
    use super::is_full;

    #[test]
    fn a_queue_is_full_from_nine_tenths_on() {
        assert!(!is_full(0, 4096) && !is_full(3686, 4096));
        assert!(is_full(3687, 4096) && is_full(4096, 4096));
    }
}
