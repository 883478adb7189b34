//! The open loop: requests leave at fixed moments, however long answers take.
//!
//! A time is counted from the *scheduled* moment. When an answer is late, what was to leave meanwhile leaves late and its wait
//! counts, so no slow moment hides the requests that it held up ("coordinated omission").

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::event::Events;
use crate::figures::{micros, nanos, percentile};
use crate::process::Usage;
use crate::{Failure, make, process, wire};

/// A sleeping thread wakes up to so much late (the kernel's timer slack and a switch), so the rest is waited awake.
const AWAKE: Duration = Duration::from_micros(150);

/// Moments at a fixed distance.
pub(crate) struct Schedule {
    began: Instant,
    rate: u64,
}

impl Schedule {
    pub(crate) fn new(began: Instant, rate: u64) -> Self {
        Self { began, rate }
    }

    /// The moment of a turn, from 0.
    fn moment(&self, turn: u64) -> Instant {
        self.began + Duration::from_nanos(1_000_000_000 * turn / self.rate)
    }

    /// Wait for a turn; returns its moment, which may have passed already.
    pub(crate) fn wait_for(&self, turn: u64) -> Instant {
        let moment = self.moment(turn);
        thread::sleep(moment.saturating_duration_since(Instant::now()).saturating_sub(AWAKE));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        moment
    }
}

/// Options of `open`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The gateway's public address
    #[arg(long)]
    address: SocketAddr,
    /// Its certificate
    #[arg(long)]
    certificate: PathBuf,
    /// The file with the source's secret
    #[arg(long)]
    secret_file: PathBuf,
    /// Number of the first event
    #[arg(long)]
    first: u64,
    /// Requests in a second
    #[arg(long)]
    rate: u64,
    /// How long
    #[arg(long)]
    seconds: u64,
    /// Connections that take turns
    #[arg(long, default_value_t = 16)]
    connections: u64,
    /// The gateway
    #[arg(long)]
    pid: u32,
    /// The round
    #[arg(long)]
    round: u64,
}

/// Times of one connection, in nanoseconds from the schedule, and how late its requests left.
type Times = (Vec<u64>, Vec<u64>);

/// Run it, print one row.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let tls = wire::tls(&args.certificate).map_err(|e| e.to_string())?;
    let events = Events::new(&make::secret(&args.secret_file)?, "localhost", args.first, args.connections);
    let (events, tls) = (&events, &tls);
    let turns = args.rate * args.seconds;
    let before = process::of(&[args.pid])?;
    let lanes = usize::try_from(args.connections).map_err(|e| e.to_string())?;
    // all connect, then all learn the same beginning
    let (connected, told, began) = (&Barrier::new(lanes + 1), &Barrier::new(lanes + 1), &OnceLock::new());
    let results: Vec<Result<Times, Failure>> = thread::scope(|scope| {
        let lane = |lane| {
            scope.spawn(move || {
                let connection = wire::Blocking::open(args.address, tls);
                connected.wait();
                told.wait();
                let connection = connection.map_err(|e| format!("connect to {}: {e}", args.address))?;
                let began = *began.get().expect("set before all were told");
                deliver(args, events, connection, &Schedule::new(began, args.rate), lane, turns)
            })
        };
        let lanes: Vec<_> = (0..args.connections).map(lane).collect();
        connected.wait();
        began.get_or_init(|| Instant::now() + Duration::from_millis(50));
        told.wait();
        lanes.into_iter().map(|lane| lane.join().expect("a lane does not panic")).collect()
    });
    let (mut times, mut late) = (Vec::new(), Vec::new());
    for result in results {
        let (t, l) = result?;
        times.extend(t);
        late.extend(l);
    }
    print(args, (times, late), before, process::of(&[args.pid])?);
    Ok(())
}

fn deliver(
    args: &Args,
    events: &Events,
    mut connection: wire::Blocking,
    schedule: &Schedule,
    lane: u64,
    turns: u64,
) -> Result<Times, Failure> {
    let (mut times, mut late, mut request) = (Vec::new(), Vec::new(), Vec::with_capacity(1024));
    for turn in (lane..turns).step_by(usize::try_from(args.connections).map_err(|e| e.to_string())?) {
        events.write(args.first + turn, &mut request);
        let moment = schedule.wait_for(turn);
        late.push(nanos(moment.elapsed()));
        let status = connection.exchange(&request).map_err(|e| format!("open loop: {e}"))?;
        if status != 200 {
            return Err(format!("open loop: an answer with status {status}"));
        }
        times.push(nanos(moment.elapsed()));
    }
    Ok((times, late))
}

fn print(args: &Args, (mut times, mut late): Times, before: Usage, after: Usage) {
    times.sort_unstable();
    late.sort_unstable();
    println!(
        "{}",
        json!({
            "section": "open", "peer": "stockgate", "round": args.round, "rate": args.rate, "connections": args.connections,
            "requests": times.len(),
            "p50_us": micros(percentile(&times, 50.0)), "p99_us": micros(percentile(&times, 99.0)),
            "p999_us": micros(percentile(&times, 99.9)), "max_us": micros(percentile(&times, 100.0)),
            "sent_late_p50_us": micros(percentile(&late, 50.0)), "sent_late_p99_us": micros(percentile(&late, 99.0)),
            "cpu_seconds": after.cpu_seconds - before.cpu_seconds, "peak_rss_bytes": after.peak_rss_bytes,
        })
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_keep_their_distance_and_do_not_drift() {
        let began = Instant::now();
        let schedule = Schedule::new(began, 3_000);
        assert_eq!(schedule.moment(0), began);
        assert_eq!(schedule.moment(3_000_000), began + Duration::from_secs(1_000));
        let moment = schedule.wait_for(3);
        assert!(moment == began + Duration::from_millis(1) && Instant::now() >= moment);
    }
}
