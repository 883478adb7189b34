//! Which release wrote a data directory: `format.json`, a file of one line that any release can read.
//!
//! Every database says its schema version itself. But to ask it, it must be opened, and an older release may not even open what a
//! newer one has written: it would take it for damaged and set it aside. So this file is looked at first. It is written once the
//! stores are open and belong to this process; a directory that has none was never started by a release that writes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{SCHEMA_VERSION, StoreError};

/// Longest file that is read, in bytes: it has about fifty.
const MAX_BYTES: u64 = 4096;

/// What the file says. Keys that a later release adds are left out.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    /// The schema version of what is in the directory.
    schema: u64,
    /// The release that was started there last.
    release: String,
}

/// The file in a data directory.
pub fn format_path(data: &Path) -> PathBuf {
    data.join("format.json")
}

/// Refuse a data directory that a newer release has written. Nothing is opened or changed. A file that is not there, or says
/// nothing that can be read, is no reason to refuse: the databases are asked next.
pub fn check(data: &Path) -> Result<(), StoreError> {
    match read(data) {
        Some(format) if format.schema > SCHEMA_VERSION => Err(StoreError::Newer {
            file: data.to_owned(),
            found: format.schema,
            release: Some(format.release.chars().filter(char::is_ascii_graphic).take(40).collect()),
        }),
        _ => Ok(()),
    }
}

/// Say that this release was here. A disk that takes no more is no reason not to start.
pub fn claim(data: &Path) {
    let format = Format { schema: SCHEMA_VERSION, release: env!("CARGO_PKG_VERSION").to_owned() };
    if read(data).as_ref() == Some(&format) {
        return;
    }
    if let Err(error) = write(data, &format) {
        tracing::warn!(%error, file = %format_path(data).display(), "it cannot be written: an older release may not know what it finds");
    }
}

fn read(data: &Path) -> Option<Format> {
    let mut text = String::new();
    File::open(format_path(data)).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whole or not at all.
fn write(data: &Path, format: &Format) -> io::Result<()> {
    let path = format_path(data);
    let unfinished = path.with_extension("unfinished");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", serde_json::to_string(format)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(data)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> Result<(), StoreError> {
        let directory = tempfile::TempDir::new().expect("a directory");
        fs::write(format_path(directory.path()), text).expect("writes");
        check(directory.path())
    }

    #[test]
    fn a_newer_form_is_refused_with_the_release_that_wrote_it() {
        let newer = SCHEMA_VERSION + 1;
        let text = format!(r#"{{"schema":{newer},"release":"7.8.9","what a later release adds":[1]}}"#);
        let refused = says(&text).expect_err("newer").to_string();
        assert!(refused.contains("stockgate 7.8.9") && refused.contains(&format!("schema version {newer}")), "{refused}");
        let hostile = format!(r#"{{"schema":{newer},"release":"7 \u001b[31m{}"}}"#, "x".repeat(1000));
        let refused = says(&hostile).expect_err("newer").to_string();
        assert!(!refused.contains('\u{1b}') && refused.len() < 500, "{refused}");
    }

    #[test]
    fn what_says_nothing_refuses_nothing() {
        for text in ["", "rubbish", "{}", r#"{"schema":"2","release":"0.1.0"}"#] {
            assert!(says(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_this_release_writes_it_takes() {
        let directory = tempfile::TempDir::new().expect("a directory");
        fs::write(format_path(directory.path()), r#"{"schema":1,"release":"0.0.1"}"#).expect("writes");
        claim(directory.path());
        let found = read(directory.path()).expect("it is there");
        assert_eq!(found, Format { schema: SCHEMA_VERSION, release: env!("CARGO_PKG_VERSION").to_owned() });
        assert!(check(directory.path()).is_ok());
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 1, "nothing else is left there");
    }
}
