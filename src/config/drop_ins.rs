//! The configuration file and the drop-ins beside it, found and read.

use std::path::{Path, PathBuf};

use super::raw::Text;
use super::{Located, in_words, read_capped, too_large};
use crate::limits;

/// The folder of the drop-ins, beside the configuration file.
const FOLDER: &str = "conf.d";

/// The drop-ins of a configuration file: every `conf.d/*.toml` beside it, in the byte order of their names. Hidden files are
/// left out (editors make them), and so is whatever ends otherwise (`.dpkg-old`, `~`). No folder: none. The error says what is wrong
/// with the folder.
pub fn drop_ins(configuration: &Path) -> Result<Vec<PathBuf>, String> {
    let folder = configuration.parent().unwrap_or(Path::new("")).join(FOLDER);
    let unreadable = |error: &std::io::Error| format!("{} cannot be read: {}", folder.display(), in_words(error));
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| unreadable(&error))?.file_name();
        let shown = name.to_string_lossy();
        if !shown.starts_with('.') && shown.ends_with(".toml") {
            found.push(folder.join(name));
        }
        if found.len() > limits::CONFIG_DROP_INS_MAX {
            return Err(format!(
                "{} holds more than {} drop-ins: put several sources into one file",
                folder.display(),
                limits::CONFIG_DROP_INS_MAX
            ));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The configuration file, then its drop-ins; or everything that keeps them from being read.
pub(super) fn read_all(configuration: &Path) -> Result<Vec<Text>, Vec<Located>> {
    let problem =
        |path: &Path, line, message| Located { file: path.display().to_string(), line, path: String::new(), message };
    let drop_ins = drop_ins(configuration).map_err(|why| vec![problem(configuration, None, why)])?;
    let (mut texts, mut problems, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
    for path in std::iter::once(configuration).chain(drop_ins.iter().map(PathBuf::as_path)) {
        match read_text(path) {
            Ok(text) => {
                bytes = bytes.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
                if bytes > limits::CONFIG_MAX_BYTES {
                    let why = too_large(limits::CONFIG_MAX_BYTES);
                    let message = format!("with the files before {why}: mappings of many items belong in an items_file");
                    problems.push(problem(path, None, message));
                    break;
                }
                texts.push(Text { file: path.display().to_string(), text });
            }
            Err((line, message)) => problems.push(problem(path, line, message)),
        }
    }
    if problems.is_empty() { Ok(texts) } else { Err(problems) }
}

/// The text of a configuration file, or why there is none: (line, sentence).
fn read_text(path: &Path) -> Result<String, (Option<usize>, String)> {
    let at_most = limits::CONFIG_MAX_BYTES;
    let bytes = read_capped(path, at_most).map_err(|why| {
        let hint = if why == too_large(at_most) { ": mappings of many items belong in an items_file" } else { "" };
        (None, format!("cannot be read: {why}{hint}"))
    })?;
    String::from_utf8(bytes).map_err(|e| {
        let before = e.as_bytes().iter().take(e.utf8_error().valid_up_to());
        let line = before.filter(|b| **b == b'\n').count() + 1;
        (Some(line), "not UTF-8 text".to_owned())
    })
}
