//! `stockgate demo`: a gateway, simulated platforms and their APIs, all on loopback, and a summary that must balance.
//!
//! Exit code 0: every level is what its platform says and every delivery is accounted for. 1: not so, or interrupted.

mod show;
mod verdict;

use std::io::IsTerminal as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use self::show::{Moment, live, redraw, summary, thousands};
use self::verdict::{Mismatch, Summary, account, compare, explain, levels, millis};
use super::code::{FAILURE, TRY_AGAIN};
use super::logging;
use super::output::print;
use crate::app::Gateway;
use crate::config::{self, Checked, Inputs, LogConfig, LogLevel, Overrides};
use crate::net::client::{BaseUrl, parse_fingerprint};
use crate::simulator::meter::quantile;
use crate::simulator::sender::Target;
use crate::simulator::{Ran, Run, World};
use crate::sources;
use crate::time;
use crate::types::{Quantity, Settings};

/// How long the gateway may take to fold and fetch everything after the last delivery.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Show the gateway at work with simulated platforms, and check its levels against theirs.
///
/// Everything runs in this process and on loopback, in a scratch directory that is removed at the end. The summary must
/// balance: deliveries = accepted + duplicates + refused, and no level may differ from its platform's.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long the platforms send, such as 10s or 2m
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = length)]
    duration: Duration,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
    /// Seed of everything that happens
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Deliveries a second over all platforms [default: as many as the gateway takes]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How many times the usual 4,000 positions
    #[arg(long, value_name = "FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50))]
    scale: u32,
    /// Keep the scratch directory and say where it is
    #[arg(long)]
    keep: bool,
}

fn length(text: &str) -> Result<Duration, String> {
    let length = Settings::of_one("for", text).duration("for").filter(|length| !length.is_zero());
    length.ok_or_else(|| "expected a length of time such as 10s, 500ms or 2m".to_owned())
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    logging::start(&LogConfig { level: LogLevel::Error, ..LogConfig::default() });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(16).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("stockgate: cannot start: {error}");
            return ExitCode::from(TRY_AGAIN);
        }
    };
    let scratch = match Scratch::new(args.keep) {
        Ok(scratch) => scratch,
        Err(error) => {
            eprintln!("stockgate: no scratch directory in {}: {error}", std::env::temp_dir().display());
            return ExitCode::from(FAILURE);
        }
    };
    let outcome = runtime.block_on(Box::pin(interruptible(args, &scratch.path)));
    drop(runtime);
    if args.keep {
        eprintln!("kept: {}", scratch.path.display());
    }
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILURE),
        Err(why) => {
            eprintln!("stockgate: {why}");
            ExitCode::from(FAILURE)
        }
    }
}

/// A directory of our own that goes when we go.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(keep: bool) -> std::io::Result<Self> {
        let name = format!("stockgate-demo-{}-{}", std::process::id(), time::now().0);
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::error!(path = %self.path.display(), %error, "the scratch directory cannot be removed");
        }
    }
}

/// The demonstration, unless a signal comes first: then what it made is cleaned up all the same.
async fn interruptible(args: &Args, scratch: &Path) -> Result<bool, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        outcome = demonstrate(args, scratch) => outcome,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("interrupted".to_owned()),
    }
}

fn configure(world: &World, ports: &std::collections::BTreeMap<String, u16>, scratch: &Path) -> Result<Checked, String> {
    world.write_files(scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let text = world.config_toml(ports, &scratch.join("data"));
    let inputs = Inputs { kinds: sources::KINDS, overrides: &Overrides::default(), env: &|_| None };
    let (checked, _) = config::parse(&text, "demo.toml", scratch, &inputs).map_err(|report| report.to_string())?;
    Ok(checked)
}

async fn demonstrate(args: &Args, scratch: &Path) -> Result<bool, String> {
    let world = World::new(args.seed, usize::try_from(args.scale).unwrap_or(1));
    let apis = world.start_apis().await.map_err(|error| format!("the simulated APIs do not start: {error}"))?;
    let checked = configure(&world, &apis.ports, scratch)?;
    let gateway = Gateway::start(checked).await.map_err(|error| error.to_string())?;
    let base = format!("https://{}", gateway.public_addr());
    if !args.json {
        say(&format!(
            "stockgate demo: {} platforms, {} warehouses, {} positions, gateway {base} (admin http://{})\n",
            world.accounts().len(),
            world.warehouses().len(),
            thousands(u64::try_from(world.positions()).unwrap_or(u64::MAX)),
            gateway.admin_addr()
        ));
    }
    let target = Target {
        base: BaseUrl::parse(&base).map_err(|error| format!("{base}: {error}"))?,
        fingerprint: parse_fingerprint(&gateway.fingerprint()).expect("a gateway's fingerprint is one"),
    };
    let mut screen = Screen::new(args.json);
    let began = time::instant();
    let run = Run { target, duration: args.duration, rate: args.rate };
    let progress = |world: &World| screen.show(&moment(world, &gateway, began.elapsed()));
    let ran = Box::pin(world.run(&run, progress)).await.map_err(|error| error.to_string())?;
    let sent = began.elapsed();
    let settled = settle(&world, &gateway, |now| screen.show(now), began).await;
    let report = judge(args, &world, &gateway, ran, settled, sent, began.elapsed()).await;
    gateway.stop().await;
    apis.stop().await;
    let (result, explanations) = report?;
    if args.json {
        say(&format!("{}\n", serde_json::to_string(&result).expect("figures serialise")));
    } else {
        say(&summary(&result));
    }
    for line in result.problems.iter().chain(&explanations) {
        eprintln!("{line}");
    }
    Ok(result.mismatches == 0 && result.problems.is_empty())
}

/// The figures of this moment.
fn moment(world: &World, gateway: &Gateway, passed: Duration) -> Moment {
    let tally = world.tally();
    let state = gateway.state().read().unwrap_or_else(PoisonError::into_inner);
    let mut now = Moment { passed, deliveries: tally.deliveries, rejected: tally.rejected, ..Moment::default() };
    for (_, row) in state.sources() {
        now.accepted += row.accepted + row.conflicts;
        now.duplicates += row.duplicates;
    }
    now.positions = state.warehouses().map(|(_, totals)| totals.levels).sum();
    now.ledger = state.meta.ledger;
    now.behind = gateway.journal().head().saturating_sub(state.meta.cursor);
    now.tasks = state.tasks().len() as u64;
    now
}

/// Wait until everything is folded and every question to a platform is answered. False when that does not happen.
async fn settle(world: &World, gateway: &Gateway, mut show: impl FnMut(&Moment), began: std::time::Instant) -> bool {
    let deadline = time::instant() + SETTLE_TIMEOUT;
    loop {
        let now = moment(world, gateway, began.elapsed());
        if now.behind == 0 && now.tasks == 0 {
            return true;
        }
        if time::instant() >= deadline {
            return false;
        }
        show(&now);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Compare, count and verify. Returns the figures and the mismatches in words.
async fn judge(
    args: &Args,
    world: &World,
    gateway: &Gateway,
    ran: Ran,
    settled: bool,
    sent: Duration,
    elapsed: Duration,
) -> Result<(Summary, Vec<String>), String> {
    let (lines, mut problems) = account(world, gateway.state());
    if !settled {
        problems.push("the gateway did not fold and fetch everything in time".to_owned());
    }
    if ran.undelivered > 0 {
        problems.push(format!("the newest numbers of {} positions were never taken", ran.undelivered));
    }
    let truth = world.truth();
    let shared = gateway.state().clone();
    // walks every position and every audit entry: not for a thread that serves
    let walked = tokio::task::spawn_blocking(move || {
        let state = shared.read().unwrap_or_else(PoisonError::into_inner);
        let (positions, mismatches) = compare(&truth, &levels(&state)?);
        let explanations = explain(&state, &mismatches);
        Ok::<_, crate::store::StoreError>((
            positions,
            mismatches,
            explanations,
            crate::store::state::Verifier::all(&state)?.problems,
        ))
    });
    let walked = walked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let (positions, mismatches, explanations, broken): (u64, Vec<Mismatch>, _, Vec<String>) = walked;
    problems.extend(broken.into_iter().take(3));
    let state = gateway.state().read().unwrap_or_else(PoisonError::into_inner);
    let sum = |of: fn(&verdict::SourceLine) -> u64| lines.iter().map(of).sum::<u64>();
    let meters = || world.accounts().iter().map(|s| &*s.meter);
    let deliveries = sum(|l| l.deliveries);
    let figures = Summary {
        deliveries,
        accepted: sum(|l| l.accepted),
        duplicates: sum(|l| l.duplicates),
        rejected: sum(|l| l.rejected),
        dead_letters: state.dead_counts().values().sum(),
        applied: sum(|l| l.changed + l.confirmed),
        positions,
        warehouses: state.warehouses().count() as u64,
        ledger_seq: state.meta.ledger,
        pushes: 0,
        mismatches: mismatches.len() as u64,
        fetched: sum(|l| l.fetched),
        lost: ran.tally.lost,
        put_off: ran.tally.other,
        problems,
        sources: lines,
        seed: args.seed,
        elapsed_seconds: seconds(elapsed),
        deliveries_per_second: per_second(deliveries, sent),
        ack_p50_ms: millis(quantile(meters(), 500)),
        ack_p99_ms: millis(quantile(meters(), 990)),
        ack_max_ms: millis(ran.tally.slowest),
    };
    Ok((figures, explanations))
}

/// Seconds with two places.
fn seconds(duration: Duration) -> Quantity {
    let hundredths = i64::try_from(duration.as_millis() / 10).unwrap_or(i64::MAX);
    Quantity::from_micros(hundredths.saturating_mul(10_000))
}

fn per_second(count: u64, within: Duration) -> u64 {
    let per = u128::from(count) * 1000 / within.as_millis().max(1);
    u64::try_from(per).unwrap_or(u64::MAX)
}

/// Write to standard output. A reader that has gone away does not end the demonstration.
fn say(text: &str) {
    let _printed = print(text);
}

/// Live counts: rewritten in place on a terminal, a line a second elsewhere, nothing beside JSON.
struct Screen {
    quiet: bool,
    rewrites: bool,
    first: bool,
    next: Duration,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let rewrites = std::io::stdout().is_terminal() && !dumb;
        Self { quiet, rewrites, first: true, next: Duration::from_secs(1) }
    }

    fn show(&mut self, now: &Moment) {
        if self.quiet {
            return;
        }
        if self.rewrites {
            say(&redraw(now, self.first));
            self.first = false;
        } else if now.passed >= self.next {
            self.next = now.passed + Duration::from_secs(1);
            say(&format!("{}\n", live(now).join("  ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_in_the_configuration() {
        assert_eq!(length("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(length("2m"), Ok(Duration::from_secs(120)));
        for bad in ["20", "soon", "0s", ""] {
            assert_eq!(length(bad), Err("expected a length of time such as 10s, 500ms or 2m".to_owned()), "{bad}");
        }
    }

    #[test]
    fn the_configuration_of_a_world_is_accepted_whole() {
        let world = World::new(1, 1);
        let scratch = Scratch::new(false).unwrap();
        world.write_files(&scratch.path).unwrap();
        let with_api = || world.accounts().iter().filter(|s| s.platform.manners().api);
        let ports = with_api().map(|s| (s.account.name.to_owned(), 4000)).collect();
        let text = world.config_toml(&ports, &scratch.path.join("data"));
        let inputs = Inputs { kinds: sources::KINDS, overrides: &Overrides::default(), env: &|_| None };
        let (checked, warnings) = config::parse(&text, "demo.toml", &scratch.path, &inputs).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(checked.sources.len(), world.accounts().len());
        assert_eq!(checked.warehouses.len(), world.warehouses().len());
        assert_eq!(checked.sources.iter().filter(|s| s.api.is_some()).count(), with_api().count());
    }

    #[test]
    fn a_short_demonstration_balances() {
        let args = Args { duration: Duration::from_millis(700), json: true, seed: 11, rate: None, scale: 1, keep: false };
        let scratch = Scratch::new(false).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(Box::pin(demonstrate(&args, &scratch.path))), Ok(true));
    }

    #[test]
    fn figures_are_exact() {
        assert_eq!(seconds(Duration::from_millis(20_479)).to_string(), "20.47");
        assert_eq!(per_second(10_000, Duration::from_millis(2_500)), 4000);
        assert_eq!(per_second(5, Duration::ZERO), 5000);
    }

    #[test]
    fn a_scratch_directory_is_private_and_goes() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::new(false).unwrap();
        let path = scratch.path.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(path.join("x"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
