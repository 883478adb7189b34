//! `items_file`: two columns, the platform's item id and our SKU.
//!
//! RFC 4180: a field in double quotes may hold the separator and, doubled, quotes. Comma, semicolon or tab, whichever the
//! first line has (spreadsheets save all three). A first line `item,sku` is a heading. Blank lines and a byte order mark
//! are skipped. A quoted field ends on its line: no id holds a newline.

use std::collections::BTreeMap;

use crate::limits;
use crate::types::Sku;

/// A line of a mapping that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Line in the file, from 1.
    pub line: usize,
    /// Why, in a sentence.
    pub message: String,
}

/// Read a mapping. Every bad line is reported; none is skipped in silence.
pub fn read_items(bytes: &[u8]) -> Result<BTreeMap<String, Sku>, Vec<BadRow>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(e) => {
            let line = bytes.iter().take(e.valid_up_to()).filter(|b| **b == b'\n').count() + 1;
            return Err(vec![BadRow { line, message: "not UTF-8 text".to_owned() }]);
        }
    };
    let separator = separator(text);
    let mut items: BTreeMap<String, Sku> = BTreeMap::new();
    let mut bad = Vec::new();
    let mut heading_possible = true;
    for (index, row) in text.lines().enumerate() {
        if row.trim().is_empty() {
            continue;
        }
        let row = columns(row, separator).and_then(|columns| pair(&columns));
        let is_heading = std::mem::take(&mut heading_possible)
            && row
                .as_ref()
                .is_ok_and(|(item, sku)| item.eq_ignore_ascii_case("item") && sku.as_str().eq_ignore_ascii_case("sku"));
        if is_heading {
            continue;
        }
        if let Err(message) = row.and_then(|(item, sku)| insert(&mut items, item, sku)) {
            bad.push(BadRow { line: index + 1, message });
        }
    }
    if bad.is_empty() { Ok(items) } else { Err(bad) }
}

/// Add one mapping; an item that is two SKUs is a mistake, the same line twice is not.
fn insert(items: &mut BTreeMap<String, Sku>, item: String, sku: Sku) -> Result<(), String> {
    match items.get(&item) {
        Some(other) if *other != sku => Err(format!("item `{item}` is `{other}` already and cannot be `{sku}` too")),
        Some(_) => Ok(()),
        None => {
            items.insert(item, sku);
            Ok(())
        }
    }
}

fn separator(text: &str) -> char {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
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

fn pair(columns: &[String]) -> Result<(String, Sku), String> {
    let [item, sku] = columns else {
        return Err(format!("expected two columns, the platform's item id and the SKU, found {}", columns.len()));
    };
    let item = item_id(item)?;
    Ok((item, Sku::new(sku).map_err(|e| e.to_string())?))
}

/// Check the platform's id of an item or a location: not empty, not too long, nothing unprintable.
pub(super) fn item_id(text: &str) -> Result<String, String> {
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
    Ok(text.to_owned())
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
        let items = read_items(text.as_bytes()).expect("a good mapping");
        items.into_iter().map(|(item, sku)| (item, sku.as_str().to_owned())).collect()
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

    #[test]
    fn every_bad_line_is_named() {
        let bad = read_items(b"item,sku\n1,A\n2\n3,A,B\n4,\n,A\n1,B\n1,A\n5,\"A\n6,\"A\"B\nitem,sku\n");
        let bad: Vec<String> = bad.expect_err("bad lines").iter().map(|b| format!("{}: {}", b.line, b.message)).collect();
        assert_eq!(
            bad,
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
        assert_eq!(read_items(b"1,A\n2,\xff\n"), Err(vec![BadRow { line: 2, message: "not UTF-8 text".to_owned() }]));
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
            drop(read_items(&bytes));
        }
    }
}
