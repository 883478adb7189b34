//! What goes to standard output: tables, and text that a terminal may not take for commands.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use super::code;

/// Longest text in a table's cell, in characters. `show` and `--json` give the whole.
const CELL_CHARS: usize = 100;

/// Print data. A reader that has seen enough (`| head`) is no failure.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stockgate: cannot write: {error}");
            ExitCode::from(code::FAILURE)
        }
    }
}

/// A text from outside (a delivery's id, a platform's words) without control characters: a terminal would obey them.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// The start of a text, with two dots when something was left out.
pub(super) fn shortened(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars.saturating_sub(2)).collect();
    format!("{kept}..")
}

/// How a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table: columns as wide as their widest cell, two blanks between them, nothing at the ends of lines.
pub(super) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let aligns: Vec<Align> = columns.iter().map(|(_, align)| *align).collect();
    let mut lines = vec![head];
    lines.extend(rows.iter().cloned());
    aligned("", &aligns, &lines)
}

/// Lines of cells, aligned, each line behind `indent`.
pub(super) fn aligned(indent: &str, aligns: &[Align], lines: &[Vec<String>]) -> String {
    let lines: Vec<Vec<String>> =
        lines.iter().map(|cells| cells.iter().map(|cell| shortened(&clean(cell), CELL_CHARS)).collect()).collect();
    let width = |column: usize| lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..aligns.len()).map(width).collect();
    let mut out = String::new();
    for cells in &lines {
        let mut line = indent.to_owned();
        for ((cell, align), width) in cells.iter().zip(aligns).zip(&widths) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            match align {
                Align::Left => line.extend([cell, padding.as_str(), "  "]),
                Align::Right => line.extend([padding.as_str(), cell, "  "]),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}
