//! `items_file`: two columns, the platform's item id and our SKU.
//!
//! RFC 4180: a field in double quotes may hold the separator and, doubled, quotes. Comma, semicolon or tab, whichever the
//! first line has (spreadsheets save all three). A first line `item,sku` is a heading. Blank lines and a byte order mark
//! are skipped. A quoted field ends on its line: no id holds a newline.

use std::io::{BufRead, Read};

use crate::limits;
use crate::types::{ItemMapBuilder, NotMapped, Sku};

/// A line of a mapping that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Line in the file, from 1.
    pub line: usize,
    /// Why, in a sentence.
    pub message: String,
}

/// Why a mapping cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadItems {
    /// The file cannot be read: why, in words.
    Unreadable(String),
    /// Lines cannot be used. Past [`limits::ITEMS_BAD_LINES_TOLD`] the last one says that there are more.
    Rows(Vec<BadRow>),
}

/// Read a mapping into `items`, line by line: the file is never in memory as a whole. Every bad line is reported; none is
/// skipped in silence. A line that is not text, or that does not end, ends the reading.
pub fn read_items(mut file: impl BufRead, mut items: ItemMapBuilder) -> Result<ItemMapBuilder, BadItems> {
    let mut bad = Vec::new();
    let mut separator = None;
    let mut line = Vec::new();
    for number in 1.. {
        let tell = |message: String| BadRow { line: number, message };
        line.clear();
        let longest = limits::ITEMS_LINE_MAX_BYTES as u64 + 1;
        let read = file.by_ref().take(longest).read_until(b'\n', &mut line);
        if read.map_err(|error| BadItems::Unreadable(super::in_words(&error)))? == 0 {
            break;
        }
        if line.len() > limits::ITEMS_LINE_MAX_BYTES {
            bad.push(tell(format!("the line is longer than {} bytes", limits::ITEMS_LINE_MAX_BYTES)));
            break;
        }
        let Ok(row) = std::str::from_utf8(&line) else {
            bad.push(tell("not UTF-8 text".to_owned()));
            break;
        };
        let row = if number == 1 { row.strip_prefix('\u{feff}').unwrap_or(row) } else { row };
        let row = row.strip_suffix('\n').unwrap_or(row);
        let row = row.strip_suffix('\r').unwrap_or(row);
        if row.trim().is_empty() {
            continue;
        }
        let heading_possible = separator.is_none();
        let separator = *separator.get_or_insert_with(|| separator_of(row));
        if let Err(message) = columns(row, separator).and_then(|columns| take(&mut items, &columns, heading_possible)) {
            if bad.len() == limits::ITEMS_BAD_LINES_TOLD {
                bad.push(tell("and there are more bad lines: is it the right file?".to_owned()));
                break;
            }
            bad.push(tell(message));
        }
    }
    if bad.is_empty() { Ok(items) } else { Err(BadItems::Rows(bad)) }
}

/// Take one row in; an item that is two SKUs is a mistake, the same line twice is not.
fn take(items: &mut ItemMapBuilder, columns: &[String], heading_possible: bool) -> Result<(), String> {
    let [item, sku] = columns else {
        return Err(format!("expected two columns, the platform's item id and the SKU, found {}", columns.len()));
    };
    let (item, sku) = (item_id(item)?, Sku::check(sku).map_err(|e| e.to_string())?);
    if heading_possible && item.eq_ignore_ascii_case("item") && sku.eq_ignore_ascii_case("sku") {
        return Ok(());
    }
    items.insert(item, sku).map_err(|why| not_mapped(item, sku, &why))
}

/// Why an item was not mapped, in a sentence.
pub(super) fn not_mapped(item: &str, sku: &str, why: &NotMapped) -> String {
    match why {
        NotMapped::Already(other) => format!("item `{item}` is `{other}` already and cannot be `{sku}` too"),
        NotMapped::Unfit => format!("item `{}` cannot be mapped to `{}`", item.escape_debug(), sku.escape_debug()),
        NotMapped::Full => "the mapping is too large for a configuration: use `stockgate map import`".to_owned(),
    }
}

/// The separator of a table whose first row is this one.
fn separator_of(first: &str) -> char {
    let mut quoted = false;
    for c in first.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' | ';' | '\t' if !quoted => return c,
            _ => {}
        }
    }
    ','
}

/// Check the platform's id of an item or a location: not empty, not too long, nothing unprintable.
pub(super) fn item_id(text: &str) -> Result<&str, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the platform's id is empty".to_owned());
    }
    if text.len() > limits::NAME_MAX_BYTES {
        return Err(format!("the platform's id is longer than {} bytes", limits::NAME_MAX_BYTES));
    }
    if text.chars().any(char::is_control) {
        return Err("the platform's id holds a control character".to_owned());
    }
    Ok(text)
}

fn columns(row: &str, separator: char) -> Result<Vec<String>, String> {
    let mut columns = Vec::new();
    let mut chars = row.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err("a quote is not closed on its line".to_owned()),
                }
            }
            if chars.peek().is_some_and(|c| *c != separator) {
                return Err("a quoted field goes on after its closing quote".to_owned());
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != separator) {
                field.push(c);
            }
        }
        columns.push(field);
        if chars.next().is_none() {
            return Ok(columns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let items = read_items(text.as_bytes(), ItemMapBuilder::default()).expect("a good mapping").finish();
        items.iter().map(|(item, sku)| (item.to_owned(), sku.to_owned())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn what_spreadsheets_save_is_read() {
        let expected = pairs(&[("271878346596884015", "SKU-1"), ("9", "a, \"b\"")]);
        assert_eq!(read("item,sku\n271878346596884015,SKU-1\n9,\"a, \"\"b\"\"\"\n"), expected);
        assert_eq!(read("\u{feff}Item;SKU\r\n271878346596884015;SKU-1\r\n\r\n9;\"a, \"\"b\"\"\"\r\n"), expected);
        assert_eq!(read("271878346596884015\tSKU-1\n9\t\"a, \"\"b\"\"\""), expected);
        assert_eq!(read(""), []);
    }

    /// The bad lines of a mapping, as `line: why`.
    fn bad(bytes: &[u8]) -> Vec<String> {
        match read_items(bytes, ItemMapBuilder::default()) {
            Err(BadItems::Rows(rows)) => rows.iter().map(|row| format!("{}: {}", row.line, row.message)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_bad_line_is_named() {
        assert_eq!(
            bad(b"item,sku\n1,A\n2\n3,A,B\n4,\n,A\n1,B\n1,A\n5,\"A\n6,\"A\"B\nitem,sku\n"),
            [
                "3: expected two columns, the platform's item id and the SKU, found 1",
                "4: expected two columns, the platform's item id and the SKU, found 3",
                "5: `` cannot be a SKU: it is empty",
                "6: the platform's id is empty",
                "7: item `1` is `A` already and cannot be `B` too",
                "9: a quote is not closed on its line",
                "10: a quoted field goes on after its closing quote",
            ]
        );
    }

    #[test]
    fn what_is_no_table_is_not_read_to_its_end() {
        assert_eq!(
            bad(b"1,A\n2\n3,\xff\n4\n"),
            ["2: expected two columns, the platform's item id and the SKU, found 1", "3: not UTF-8 text"]
        );
        let endless = format!("1,A\n{}\n2\n", "x".repeat(limits::ITEMS_LINE_MAX_BYTES));
        assert_eq!(bad(endless.as_bytes()), ["2: the line is longer than 4096 bytes"]);
        let another_file = bad("not a table\n".repeat(1000).as_bytes());
        assert_eq!(another_file.len(), limits::ITEMS_BAD_LINES_TOLD + 1);
        assert_eq!(
            another_file.last().map(String::as_str),
            Some("101: and there are more bad lines: is it the right file?")
        );
    }

    #[test]
    fn the_longest_ids_fit_a_line() {
        let (item, sku) = ("\"".repeat(limits::NAME_MAX_BYTES), "é".repeat(limits::NAME_MAX_BYTES / 2));
        let line = format!("\"{}\",\"{sku}\"\r\n", item.replace('"', "\"\""));
        assert_eq!(read(&line), pairs(&[(item.as_str(), sku.as_str())]));
    }

    proptest! {
        #[test]
        fn any_pair_survives_quoting(item in "[ -~]{0,20}[!-~]", sku in "[!-~][ -~]{0,20}") {
            let quote = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
            let text = format!("item,sku\n{},{}\n", quote(&item), quote(&sku));
            prop_assert_eq!(read(&text), pairs(&[(item.trim(), sku.trim())]));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            drop(read_items(bytes.as_slice(), ItemMapBuilder::default()));
        }
    }
}
