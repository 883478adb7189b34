//! What a disk was given to write, as its block device counts.
//!
//! `/proc/<pid>/io` counts pages that became dirty, and a page cache of large folios makes a whole folio dirty with one page of it:
//! four kilobytes written into a part of a file that was read ahead count as up to megabytes (README.md beside the benchmark
//! shows it). The device counts what it gets: from everybody, with the file system's own journal.

use std::fs::File;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor, syncfs};

use crate::{Failure, at};

/// Sectors in `/sys/dev/block/<major>:<minor>/stat` have 512 bytes, whatever the disk has (Documentation/block/stat.rst).
const SECTOR_BYTES: u64 = 512;

/// Bytes written so far to the device that a directory is on, once all that waits has been written. `None`: it is not on a block device of
/// its own.
pub(crate) fn written(directory: &Path) -> Result<Option<u64>, Failure> {
    let opened = File::open(directory).map_err(at(directory))?;
    syncfs(&opened).map_err(at(directory))?;
    let device = opened.metadata().map_err(at(directory))?.st_dev();
    let stat = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
    let Ok(text) = std::fs::read_to_string(&stat) else { return Ok(None) };
    sectors_written(&text).map(|sectors| Some(sectors * SECTOR_BYTES)).ok_or_else(|| format!("{stat}: an unknown form"))
}

/// The seventh field.
fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_found() {
        assert_eq!(sectors_written("  1060  8 31234 345   1007 1166 123456 882 0 1260 1228 0 0\n"), Some(123_456));
        assert_eq!(sectors_written("1 2 3"), None);
    }
}
