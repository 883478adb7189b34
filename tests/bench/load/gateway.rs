//! Waiting for the gateway: ready, folded.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::figures::rounded;
use crate::{Failure, at, wire};

/// How often a state that comes within a second is asked for.
const POLL: Duration = Duration::from_millis(1);
/// How often a state that takes longer is asked for, so that asking costs the gateway nothing.
const CALM_POLL: Duration = Duration::from_millis(50);

/// Options of `ready`.
#[derive(clap::Args)]
pub(crate) struct ReadyArgs {
    /// The admin address
    #[arg(long)]
    admin: SocketAddr,
    /// What the row is called
    #[arg(long, default_value = "ready")]
    section: String,
    /// A file with the moment of the start, in seconds since 1970; written before the gateway is started, read at the end
    #[arg(long)]
    began: PathBuf,
    /// Seconds to wait at most
    #[arg(long, default_value_t = 600)]
    patience: u64,
}

/// Wait until it is ready, then until its journal is folded to the end; print a row with both times since the start.
pub(crate) fn ready(args: &ReadyArgs) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(args.patience);
    until(end, POLL, "it is not ready", || wire::get(args.admin, "/readyz").ok().filter(|(status, _)| *status == 200))?;
    let ready_at = now();
    let head = until(end, POLL, "it has not folded its journal", || {
        status(args.admin).ok().filter(|s| s.lag == 0).map(|s| s.head)
    })?;
    let folded_at = now();
    let began = fs::read_to_string(&args.began).map_err(at(&args.began))?;
    let began: f64 = began.trim().parse().map_err(at(&args.began))?;
    println!(
        "{}",
        json!({
            "section": args.section, "peer": "stockgate", "seconds": rounded(ready_at - began, 4),
            "folded_seconds": rounded(folded_at - began, 4), "events": head,
        })
    );
    Ok(())
}

/// Wait until everything is folded. Returns how long that took.
pub(crate) fn folded(admin: SocketAddr) -> Result<Duration, Failure> {
    let began = Instant::now();
    let end = began + Duration::from_secs(600);
    until(end, CALM_POLL, "it does not catch up", || status(admin).ok().filter(|s| s.lag == 0))?;
    Ok(began.elapsed())
}

/// What the gateway says about itself.
pub(crate) struct Status {
    /// The newest journal record.
    pub(crate) head: u64,
    /// Records not folded yet.
    pub(crate) lag: u64,
    /// Delivery ids remembered.
    pub(crate) remembered: u64,
    /// Positions known.
    pub(crate) levels: u64,
    /// Size of `state.redb`.
    pub(crate) state_bytes: u64,
    /// Size of the journal.
    pub(crate) journal_bytes: u64,
    /// Dead letters; none is expected.
    pub(crate) dead_letters: u64,
}

/// Ask for its status.
pub(crate) fn status(admin: SocketAddr) -> Result<Status, Failure> {
    let (code, body) = wire::get(admin, "/api/v1/status").map_err(|e| format!("the admin API: {e}"))?;
    let page: Value = serde_json::from_slice(&body).map_err(|e| format!("the admin API answers {code}: {e}"))?;
    let number = |pointer: &str| {
        page.pointer(pointer).and_then(Value::as_u64).ok_or_else(|| format!("/api/v1/status has no number {pointer}"))
    };
    Ok(Status {
        head: number("/journal/head")?,
        lag: number("/fold/lag_records")?,
        remembered: number("/deliveries_remembered")?,
        levels: number("/levels")?,
        state_bytes: number("/state_file_bytes")?,
        journal_bytes: number("/journal/file_bytes")?,
        dead_letters: number("/dead_letters")?,
    })
}

fn until<T>(end: Instant, poll: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= end {
            return Err(format!("waited in vain: {what}"));
        }
        thread::sleep(poll);
    }
}

/// Seconds since 1970, to compare with bash's EPOCHREALTIME.
fn now() -> f64 {
    rounded(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(), 6)
}

/// Options of `ports`.
#[derive(clap::Args)]
pub(crate) struct PortsArgs {
    /// How many
    count: usize,
}

/// Print free TCP ports of the loopback address, one a line. All are held at once, so that they differ.
pub(crate) fn ports(args: &PortsArgs) -> Result<(), Failure> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| format!("no free port: {e}"));
    let held = (0..args.count).map(bind).collect::<Result<Vec<_>, _>>()?;
    for listener in &held {
        println!("{}", listener.local_addr().map_err(|e| e.to_string())?.port());
    }
    Ok(())
}
