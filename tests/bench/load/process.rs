//! What processes have used, from `/proc`: CPU time, bytes written to disks, the peak of their memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// `/proc/<pid>/stat` counts CPU time in hundredths of a second (`USER_HZ`), on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Options of `usage`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Processes; their descendants count, too
    #[arg(required = true)]
    pid: Vec<u32>,
}

/// Used since the processes began. Sums over all of them; shared memory counts once for each process that maps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time, with that of children that have ended.
    pub(crate) cpu_seconds: f64,
    /// Bytes of pages made dirty or written directly: what goes to the disk, without the file system's own journal.
    pub(crate) write_bytes: u64,
    /// `VmHWM`.
    pub(crate) peak_rss_bytes: u64,
}

/// Print the usage.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(&of(&args.pid)?).map_err(|e| e.to_string())?);
    Ok(())
}

/// The usage of these processes and their descendants. A descendant may end meanwhile: then its parent has it.
pub(crate) fn of(pids: &[u32]) -> Result<Usage, Failure> {
    let mut total = Usage::default();
    for pid in with_descendants(pids)? {
        let Ok(usage) = one(pid) else {
            if pids.contains(&pid) {
                return Err(format!("process {pid} is gone"));
            }
            continue;
        };
        total.cpu_seconds += usage.cpu_seconds;
        total.write_bytes += usage.write_bytes;
        total.peak_rss_bytes += usage.peak_rss_bytes;
    }
    Ok(total)
}

fn one(pid: u32) -> Result<Usage, Failure> {
    let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|e| format!("process {pid}: {e}"));
    let fields = stat(&read("stat")?).ok_or("an unknown form of /proc/<pid>/stat")?;
    let number = |text: &str, name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
    };
    let write_bytes = number(&read("io")?, "write_bytes:").ok_or("an unknown form of /proc/<pid>/io")?;
    // a zombie has no memory
    let peak_kib = number(&read("status")?, "VmHWM:").unwrap_or(0);
    Ok(Usage { cpu_seconds: fields.ticks as f64 / TICKS_PER_SECOND, write_bytes, peak_rss_bytes: peak_kib * 1024 })
}

struct Stat {
    parent: u32,
    /// utime, stime, cutime, cstime.
    ticks: u64,
}

/// The second field is the name in parentheses, which may hold anything.
fn stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: Option<Vec<u64>> = fields.get(11..15)?.iter().map(|field| field.parse().ok()).collect();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks: ticks?.iter().sum() })
}

fn with_descendants(pids: &[u32]) -> Result<BTreeSet<u32>, Failure> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").map_err(|e| format!("/proc: {e}"))? {
        let name = entry.map_err(|e| format!("/proc: {e}"))?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = fs::read_to_string(format!("/proc/{pid}/stat"));
        if let Some(stat) = read.ok().as_deref().and_then(stat) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut open = pids.to_vec();
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read_whatever_the_program_is_called() {
        let read = stat("4711 (a) b (c)) S 17 2 3 4 5 6 7 8 9 10 250 75 5 1 20 0 3 0 100 1 2").unwrap();
        assert_eq!((read.parent, read.ticks), (17, 331));
        assert!(stat("4711").is_none());
    }

    #[test]
    fn our_own_usage_is_plausible() {
        let ours = of(&[std::process::id()]).unwrap();
        assert!(ours.peak_rss_bytes > 100_000, "{ours:?}");
        assert!(of(&[u32::MAX]).is_err());
    }
}
