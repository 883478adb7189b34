//! The disk by itself: one writer appends 4 KiB to a file and syncs it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::figures::{micros, nanos, percentile};
use crate::open::Schedule;
use crate::{Failure, at};

/// Bytes of one write: a page, the least that reaches a disk.
const PAGE: [u8; 4096] = [0x5A; 4096];

/// Options of `disk`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file that is written, and removed again; in the file system that is measured
    #[arg(long)]
    file: PathBuf,
    /// Writes in a second; 0: one after the other
    #[arg(long)]
    rate: u64,
    /// How long
    #[arg(long)]
    seconds: u64,
    /// When this was, for the row
    #[arg(long)]
    when: String,
    /// The round of the open loop that it belongs to
    #[arg(long)]
    round: u64,
}

/// Write, print one row with every time, so that rows can be put together.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut file = File::create_new(&args.file).map_err(at(&args.file))?;
    let mut times = Vec::new();
    let (began, length) = (Instant::now(), Duration::from_secs(args.seconds));
    let schedule = (args.rate > 0).then(|| Schedule::new(began, args.rate));
    for turn in 0.. {
        if let Some(schedule) = &schedule {
            schedule.wait_for(turn);
        }
        let start = Instant::now();
        if start.duration_since(began) >= length {
            break;
        }
        file.write_all(&PAGE).and_then(|()| file.sync_data()).map_err(at(&args.file))?;
        times.push(nanos(start.elapsed()));
    }
    std::fs::remove_file(&args.file).map_err(at(&args.file))?;
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    println!(
        "{}",
        json!({
            "section": "fdatasync", "when": args.when, "round": args.round, "wanted_rate": args.rate, "rate": rate.round(), "writes": times.len(),
            "p50_us": micros(percentile(&times, 50.0)), "p99_us": micros(percentile(&times, 99.0)),
            "p999_us": micros(percentile(&times, 99.9)), "max_us": micros(percentile(&times, 100.0)),
            "nanos": times,
        })
    );
    Ok(())
}
