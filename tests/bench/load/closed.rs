//! The closed loop: wrk keeps so many connections busy, and what the servers use meanwhile is counted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::figures::rounded;
use crate::process::Usage;
use crate::{Failure, at, gateway, process};

/// Options of `closed`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What is measured
    #[arg(long)]
    peer: String,
    /// The round
    #[arg(long)]
    round: u64,
    /// Connections kept open
    #[arg(long)]
    connections: u64,
    /// Seconds of load
    #[arg(long)]
    seconds: u64,
    /// Where it listens: https://localhost:PORT
    #[arg(long)]
    url: String,
    /// wrk's script
    #[arg(long)]
    script: PathBuf,
    /// Files of `make`, without the number of the part
    #[arg(long)]
    requests: PathBuf,
    /// Length of one request in them
    #[arg(long)]
    record_bytes: u64,
    /// Begin again at the end of the files; only for a server that keeps nothing
    #[arg(long)]
    wrap: bool,
    /// The servers
    #[arg(long, required = true)]
    pid: Vec<u32>,
    /// The gateway's admin address: wait until it has folded all, and count that, too
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// A command after which the servers have written everything
    #[arg(long)]
    settle: Option<String>,
    /// Where wrk's script writes its figures
    #[arg(long)]
    scratch: PathBuf,
}

/// Threads of wrk, and files of requests.
const THREADS: u64 = 2;

/// Run it once, print one row.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let before = process::of(&args.pid)?;
    let found = wrk(args)?;
    let mut caught_up = 0.0;
    if let Some(admin) = args.admin {
        caught_up = gateway::folded(admin)?.as_secs_f64();
    }
    if let Some(command) = &args.settle {
        let status = Command::new("sh").arg("-c").arg(command).status().map_err(|e| format!("{command}: {e}"))?;
        if !status.success() {
            return Err(format!("{command}: {status}"));
        }
    }
    let after = process::of(&args.pid)?;
    let number = |name: &str| found.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let requests = number("requests");
    if requests < 1.0 {
        return Err(format!("{}: no request was answered", args.peer));
    }
    let bad = ["non_2xx", "connect_errors", "read_errors", "write_errors", "timeouts"];
    if let Some(kind) = bad.into_iter().find(|kind| number(kind) > 0.0) {
        return Err(format!("{} at {} connections: {} {kind}", args.peer, args.connections, number(kind)));
    }
    if number("exhausted") > 0.0 {
        let rate = requests / args.seconds as f64;
        return Err(format!("{} used up all requests at {rate:.0}/s: set BENCH_EVENTS_PER_SECOND higher", args.peer));
    }
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    let write_bytes = after.write_bytes - before.write_bytes;
    let row = json!({
        "section": "closed", "peer": args.peer, "round": args.round, "connections": args.connections,
        "seconds": rounded(number("seconds"), 3), "requests": requests,
        "rate": rounded(requests / number("seconds"), 1),
        "p50_us": number("p50_us"), "p99_us": number("p99_us"), "p999_us": number("p999_us"), "max_us": number("max_us"),
        "cpu_seconds": rounded(cpu_seconds, 2), "write_bytes": write_bytes,
        "peak_rss_bytes": after.peak_rss_bytes, "catch_up_seconds": rounded(caught_up, 3),
    });
    println!("{}", per_event(row)?);
    Ok(())
}

/// Options of `ended`.
#[derive(clap::Args)]
pub(crate) struct EndedArgs {
    /// The file with the row
    #[arg(long)]
    row: PathBuf,
    /// What the gateway's parent and its children had used before the gateway was told to end
    #[arg(long)]
    before: PathBuf,
    /// ... and when it had ended
    #[arg(long)]
    after: PathBuf,
}

/// Print the row with what was used for the end: the last checkpoint, which otherwise would come later, or never be counted.
///
/// What a child has used is added to its parent's account when it has ended and was waited for (getrusage(2), proc(5)).
pub(crate) fn ended(args: &EndedArgs) -> Result<(), Failure> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(at(path));
    let mut row: Value = serde_json::from_slice(&read(&args.row)?).map_err(at(&args.row))?;
    let before: Usage = serde_json::from_slice(&read(&args.before)?).map_err(at(&args.before))?;
    let after: Usage = serde_json::from_slice(&read(&args.after)?).map_err(at(&args.after))?;
    let fields = row.as_object_mut().ok_or("the row is no object")?;
    let cpu = fields.get("cpu_seconds").and_then(Value::as_f64).ok_or("the row has no CPU time")?;
    let written = fields.get("write_bytes").and_then(Value::as_u64).ok_or("the row has no bytes")?;
    fields.insert("cpu_seconds".to_owned(), json!(rounded(cpu + after.cpu_seconds - before.cpu_seconds, 2)));
    fields.insert("write_bytes".to_owned(), json!(written + after.write_bytes - before.write_bytes));
    println!("{}", per_event(row)?);
    Ok(())
}

/// The row with its totals divided by its requests.
pub(crate) fn per_event(mut row: Value) -> Result<Value, Failure> {
    let number = |name: &str| row.get(name).and_then(Value::as_f64).ok_or_else(|| format!("the row has no {name}"));
    let requests = number("requests")?.max(1.0);
    let cpu = rounded(number("cpu_seconds")? / requests * 1e5, 3);
    let bytes = rounded(number("write_bytes")? / requests, 1);
    if let Some(fields) = row.as_object_mut() {
        fields.insert("cpu_seconds_per_100k".to_owned(), json!(cpu));
        fields.insert("bytes_per_event".to_owned(), json!(bytes));
    }
    Ok(row)
}

fn wrk(args: &Args) -> Result<Value, Failure> {
    let out = args.scratch.join("wrk.json");
    if let Err(error) = std::fs::remove_file(&out)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(at(&out)(error));
    }
    let mut command = Command::new("wrk");
    command.args(["--latency", "--timeout", "30s"]);
    command.arg(format!("-t{THREADS}")).arg(format!("-c{}", args.connections)).arg(format!("-d{}s", args.seconds));
    command.arg("-s").arg(&args.script).arg(&args.url).arg("--");
    command.arg(&args.requests).arg(args.record_bytes.to_string()).arg(if args.wrap { "wrap" } else { "once" }).arg(&out);
    let output = command.output().map_err(|e| format!("wrk: {e}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return Err(format!("wrk: {}: {out}{err}", output.status));
    }
    let text = std::fs::read(&out).map_err(|e| {
        format!(
            "wrk left no figures ({e}): {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    serde_json::from_slice(&text).map_err(at(&out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_divided_by_the_requests() {
        let row = per_event(json!({ "requests": 200.0, "cpu_seconds": 0.01, "write_bytes": 3000 })).unwrap();
        assert_eq!((&row["cpu_seconds_per_100k"], &row["bytes_per_event"]), (&json!(5.0), &json!(15.0)));
        assert!(per_event(json!({ "requests": 200.0 })).is_err());
    }
}
