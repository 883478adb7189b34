//! Figures of our own process, from `/proc/self`. Not from `/proc/stat`: hardened containers hide it.

use std::path::Path;

use crate::metrics::ProcessFigures;
use crate::time::Timestamp;

/// Clock ticks in a second, as `/proc/<pid>/stat` counts them. The kernel's interface fixes it (`USER_HZ`) on every
/// architecture that we build for, whatever the kernel's own clock does.
const TICKS_PER_SECOND: u64 = 100;

/// Read what there is; a figure that cannot be read is left out.
pub(super) fn read(started: Timestamp) -> ProcessFigures {
    read_in(Path::new("/proc/self"), started)
}

fn read_in(proc: &Path, started: Timestamp) -> ProcessFigures {
    let file = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap_or_default();
    let status = file("status");
    let kib = |field| status_number(&status, field).and_then(|n| n.checked_mul(1024));
    // reading the directory opens it, which is one descriptor more
    let open_fds = std::fs::read_dir(proc.join("fd")).ok().map(|entries| entries.count().saturating_sub(1) as u64);
    ProcessFigures {
        cpu_centis: cpu_ticks(&file("stat")).map(|ticks| ticks.saturating_mul(100) / TICKS_PER_SECOND),
        resident_bytes: kib("VmRSS:"),
        virtual_bytes: kib("VmSize:"),
        threads: status_number(&status, "Threads:"),
        open_fds,
        max_fds: max_fds(&file("limits")),
        started,
    }
}

/// The first number behind a field of `status`.
fn status_number(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime`, fields 14 and 15 of `stat`. The second field is the name in parentheses, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

/// The soft limit of open files; `None` when there is none.
fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read_whatever_the_program_is_called() {
        let stat = "4711 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 75 0 0 20 0 3 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(325));
        assert_eq!(cpu_ticks("4711"), None);
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t    7 kB\nThreads:\t3\n";
        assert_eq!(status_number(status, "VmRSS:"), Some(7));
        assert_eq!(status_number(status, "VmSwap:"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files  unlimited  unlimited  files\n"), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_its_figures_out() {
        let figures = read_in(Path::new("/nowhere"), Timestamp::from_seconds(7));
        assert_eq!(figures, ProcessFigures { started: Timestamp::from_seconds(7), ..ProcessFigures::default() });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_figures_are_plausible() {
        let figures = read(Timestamp::default());
        assert!(figures.resident_bytes.is_some_and(|b| b > 100_000));
        assert!(figures.virtual_bytes >= figures.resident_bytes);
        assert!(figures.threads.is_some_and(|n| n >= 1));
        assert!(figures.open_fds.is_some_and(|n| n >= 3));
        assert!(figures.cpu_centis.is_some());
    }
}
