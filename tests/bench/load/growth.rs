//! Growth: deliver over many connections, signing on the way, from an empty store to millions of remembered ids.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::event::{DUPLICATE_EVERY, Events};
use crate::figures::{micros, nanos, percentile, rounded};
use crate::{Failure, closed, device, gateway, make, process, wire};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Every so many answers of a connection one is timed: enough for percentiles of a slice, small in memory.
const TIMED_EVERY: u64 = 8;

/// Options of `growth`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The gateway's public address
    #[arg(long)]
    address: SocketAddr,
    /// Its admin address
    #[arg(long)]
    admin: SocketAddr,
    /// Its certificate
    #[arg(long)]
    certificate: PathBuf,
    /// The file with the source's secret
    #[arg(long)]
    secret_file: PathBuf,
    /// The gateway
    #[arg(long)]
    pid: u32,
    /// Number of the first event
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Different ids
    #[arg(long)]
    keys: u64,
    /// A directory on the disk that the gateway writes to: what the disk was given is counted, too
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Slices of equal size
    #[arg(long, default_value_t = 20)]
    slices: u64,
    /// Connections kept busy
    #[arg(long, default_value_t = 64)]
    connections: u64,
    /// What the row is called
    #[arg(long, default_value = "growth")]
    section: String,
    /// The gateway is killed meanwhile: that ends the run well. Nothing is waited for afterwards
    #[arg(long)]
    until_killed: bool,
}

struct Shared {
    events: Events,
    next: AtomicU64,
    end: u64,
    answered: AtomicU64,
    /// Told to stop: by an error.
    stop: AtomicBool,
    times: std::sync::Mutex<Vec<u64>>,
}

/// A look at both sides.
struct Mark {
    at: Instant,
    answered: u64,
    head: u64,
    lag: u64,
    server: process::Usage,
    client: process::Usage,
    /// Bytes that the disk was given so far.
    disk: Option<u64>,
}

fn mark(args: &Args, shared: &Shared) -> Result<Mark, Failure> {
    let disk = disk_written(args)?;
    let status = gateway::status(args.admin)?;
    Ok(Mark {
        at: Instant::now(),
        answered: shared.answered.load(Ordering::Relaxed),
        head: status.head,
        lag: status.lag,
        server: process::of(&[args.pid])?,
        client: process::of(&[std::process::id()])?,
        disk,
    })
}

fn disk_written(args: &Args) -> Result<Option<u64>, Failure> {
    Ok(args.disk.as_deref().map(device::written).transpose()?.flatten())
}

/// Run it, print one row with all slices.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let tls = wire::tls(&args.certificate).map_err(|e| e.to_string())?;
    let count = args.keys + args.keys / (DUPLICATE_EVERY - 1);
    let shared = Arc::new(Shared {
        events: Events::new(&make::secret(&args.secret_file)?, "localhost", args.first, 1),
        next: AtomicU64::new(args.first),
        end: args.first + count,
        answered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        times: std::sync::Mutex::new(Vec::new()),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| format!("a runtime: {e}"))?;
    let mut lanes: JoinSet<io::Result<()>> = JoinSet::new();
    for _ in 0..args.connections {
        let (shared, tls, address) = (Arc::clone(&shared), Arc::clone(&tls), args.address);
        lanes.spawn_on(
            async move {
                let done = deliver(&shared, address, &tls).await;
                if done.is_err() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                done
            },
            runtime.handle(),
        );
    }
    let watched = if args.until_killed { Ok(Vec::new()) } else { watch(args, &shared, count) };
    if watched.is_err() {
        shared.stop.store(true, Ordering::Relaxed);
    }
    let ended = runtime.block_on(async {
        let mut ended = Ok(());
        while let Some(lane) = lanes.join_next().await {
            ended = ended.and(lane.map_err(|e| e.to_string()).and_then(|done| done.map_err(|e| e.to_string())));
        }
        ended
    });
    let answered = shared.answered.load(Ordering::Relaxed);
    if args.until_killed {
        println!("{}", json!({ "section": args.section, "answered": answered }));
        return Ok(());
    }
    ended.map_err(|e| format!("{}: {e}", args.section))?;
    let row = summary(args, answered, &watched?)?;
    println!("{row}");
    Ok(())
}

async fn deliver(shared: &Shared, address: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> io::Result<()> {
    let mut connection = wire::Tasked::open(address, tls).await?;
    let (mut request, mut sent) = (Vec::with_capacity(1024), 0_u64);
    while !shared.stop.load(Ordering::Relaxed) {
        let k = shared.next.fetch_add(1, Ordering::Relaxed);
        if k >= shared.end {
            break;
        }
        shared.events.write(k, &mut request);
        let start = sent.is_multiple_of(TIMED_EVERY).then(Instant::now);
        let status = connection.exchange(&request).await?;
        if status != 200 {
            return Err(io::Error::other(format!("an answer with status {status}")));
        }
        sent += 1;
        shared.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(start) = start {
            shared.times.lock().expect("no lane panics").push(nanos(start.elapsed()));
        }
    }
    Ok(())
}

/// Look at both sides at the end of each slice.
fn watch(args: &Args, shared: &Shared, count: u64) -> Result<Vec<(Mark, Value)>, Failure> {
    let mut marks = vec![(mark(args, shared)?, Value::Null)];
    for slice in 1..=args.slices {
        let goal = count * slice / args.slices;
        while shared.answered.load(Ordering::Relaxed) < goal {
            if shared.stop.load(Ordering::Relaxed) {
                return Ok(marks);
            }
            std::thread::sleep(LOOK);
        }
        let now = mark(args, shared)?;
        let row = slice_row(&marks.last().expect("one from the start").0, &now, shared);
        eprintln!("{} {slice}/{}: {row}", args.section, args.slices);
        marks.push((now, row));
    }
    Ok(marks)
}

fn slice_row(before: &Mark, now: &Mark, shared: &Shared) -> Value {
    let mut times = std::mem::take(&mut *shared.times.lock().expect("no lane panics"));
    times.sort_unstable();
    let (seconds, answered) = (now.at.duration_since(before.at).as_secs_f64(), now.answered - before.answered);
    let folded = (now.head - now.lag).saturating_sub(before.head - before.lag);
    let per_100k = |cpu: f64| rounded(cpu / answered.max(1) as f64 * 1e5, 3);
    json!({
        "answered": now.answered, "seconds": rounded(seconds, 3), "rate": rounded(answered as f64 / seconds, 1),
        "folded_rate": rounded(folded as f64 / seconds, 1), "lag_records": now.lag,
        "p50_us": micros(percentile(&times, 50.0)), "p99_us": micros(percentile(&times, 99.0)),
        "cpu_seconds_per_100k": per_100k(now.server.cpu_seconds - before.server.cpu_seconds),
        "client_cpu_seconds_per_100k": per_100k(now.client.cpu_seconds - before.client.cpu_seconds),
        "bytes_per_event": rounded((now.server.write_bytes - before.server.write_bytes) as f64 / answered.max(1) as f64, 1),
        "disk_bytes_per_event": before.disk.zip(now.disk).map(|(b, n)| rounded((n - b) as f64 / answered.max(1) as f64, 1)),
        "peak_rss_bytes": now.server.peak_rss_bytes,
    })
}

fn summary(args: &Args, answered: u64, marks: &[(Mark, Value)]) -> Result<Value, Failure> {
    let caught_up = gateway::folded(args.admin)?;
    let (status, server) = (gateway::status(args.admin)?, process::of(&[args.pid])?);
    let Some((first, _)) = marks.first() else { return Err("no look at the beginning".to_owned()) };
    let disk = first.disk.zip(disk_written(args)?).map(|(first, last)| last - first);
    let slices: Vec<&Value> = marks.iter().skip(1).map(|(_, row)| row).collect();
    let ratio = |name: &str| {
        let rate = |row: Option<&&Value>| row.and_then(|row| row.get(name)?.as_f64());
        Some(rate(slices.last())? / rate(slices.first())?)
    };
    let (acknowledged, folded) = (ratio("rate"), ratio("folded_rate"));
    let both = acknowledged.zip(folded).ok_or("no slice was measured")?;
    closed::per_event(json!({
        "section": args.section, "peer": "stockgate", "connections": args.connections, "requests": answered,
        "remembered": status.remembered, "levels": status.levels, "dead_letters": status.dead_letters,
        "state_bytes": status.state_bytes, "journal_bytes": status.journal_bytes,
        "last_over_first": rounded(both.0.min(both.1), 4), "acknowledged_last_over_first": rounded(both.0, 4),
        "folded_last_over_first": rounded(both.1, 4), "catch_up_seconds": rounded(caught_up.as_secs_f64(), 3),
        "cpu_seconds": rounded(server.cpu_seconds - first.server.cpu_seconds, 2),
        "write_bytes": server.write_bytes - first.server.write_bytes,
        "disk_bytes": disk, "disk_bytes_per_event": disk.map(|bytes| rounded(bytes as f64 / answered.max(1) as f64, 1)),
        "peak_rss_bytes": server.peak_rss_bytes, "slices": slices,
    }))
}
