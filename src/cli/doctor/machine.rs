//! What the machine says of itself: numbers in `/proc`, room on a file system, how long a sync takes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checks::Synchronised;
use crate::time::{self, Timestamp};

/// Blocks that are written to see how long a sync takes.
const BLOCKS: usize = 50;
const BLOCK_BYTES: usize = 4096;
/// A disk that is slower is slow enough to say so.
const SYNC_BUDGET: Duration = Duration::from_secs(5);

/// Who this process is.
pub(super) fn user() -> u32 {
    fs::metadata("/proc/self").map_or(0, |meta| meta.uid())
}

/// The value of a line `Name:   123 kB` or `Max open files   1024   4096   files`.
pub(super) fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Files that this process may have open.
pub(super) fn open_files() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

/// Memory that is free or can be made so, in bytes.
pub(super) fn available_memory() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(|kib| kib.saturating_mul(1024))
}

/// Bytes and inodes that are left, and inodes in all.
pub(super) fn left(path: &Path) -> Option<(u64, (u64, u64))> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_bavail.saturating_mul(stat.f_frsize), (stat.f_favail, stat.f_files)))
}

/// What a time service leaves behind.
pub(super) fn synchronised() -> Synchronised {
    let there = |path: &str| Path::new(path).exists();
    if there("/run/systemd/timesync/synchronized") {
        return Synchronised::Yes;
    }
    // chrony keeps no such mark; that it runs is as much as can be seen
    if ["/run/chrony/chronyd.pid", "/run/chronyd.pid", "/run/ntpd.pid"].iter().any(|path| there(path)) {
        return Synchronised::Yes;
    }
    if there("/run/systemd/timesync") { Synchronised::No } else { Synchronised::Unknown }
}

/// How long it takes to make a block durable. The file has no name while it is written, so that nothing can be left of it.
pub(super) fn sync_times(directory: &Path) -> std::io::Result<Vec<Duration>> {
    // a name of its own, and a new one: root may look at a directory that others write to
    let path = directory.join(format!("doctor-{}.probe", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    let began = time::instant();
    let mut times = Vec::new();
    for block in 0..BLOCKS {
        let bytes = [u8::try_from(block).unwrap_or_default(); BLOCK_BYTES];
        file.write_all(&bytes)?;
        let written = time::instant();
        file.sync_data()?;
        times.push(written.elapsed());
        if began.elapsed() > SYNC_BUDGET {
            break;
        }
    }
    Ok(times)
}

/// The entries of a data directory and of its journal.
fn entries(data: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let directories = [data.to_owned(), crate::store::journal_path(data)];
    directories.into_iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().filter_map(Result::ok)
}

/// The database below a data directory that was written last.
pub(super) fn newest_file(data: &Path) -> Option<(PathBuf, Timestamp)> {
    let written = entries(data).filter_map(|entry| {
        let (path, meta) = (entry.path(), entry.metadata().ok()?);
        let ours = path.extension().is_some_and(|extension| extension == "redb");
        (ours && meta.is_file()).then(|| (path, Timestamp::from_seconds(meta.mtime())))
    });
    written.max_by_key(|(_, at)| *at)
}

/// Files that a start has set aside as damaged.
pub(super) fn set_aside(data: &Path) -> Vec<PathBuf> {
    let damaged = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".damaged-"));
    let mut found: Vec<PathBuf> = entries(data).map(|entry| entry.path()).filter(damaged).collect();
    found.sort_unstable();
    found
}

/// Bytes of the journal's files.
pub(super) fn journal_bytes(data: &Path) -> u64 {
    let entries = fs::read_dir(crate::store::journal_path(data)).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// The path itself, or the nearest one above it that is there.
pub(super) fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    there.canonicalize().unwrap_or_else(|_| there.to_owned())
}
