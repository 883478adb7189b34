//! Reading a table of settings so that every mistake is reported, not just the first, and unknown keys are refused.
//!
//! The configuration file (TOML) and the journal's policy record (JSON) both become a JSON object; a reader takes the keys
//! it knows and [`Settings::finish`] reports what is wrong or left over. Problems carry the dotted path of their key; the
//! config module turns that into a line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

/// One thing that is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path: `source.shop.tolerance`.
    pub path: String,
    /// What is wrong and what to do, in a sentence.
    pub message: String,
}

/// A table of settings being read.
#[derive(Debug)]
pub struct Settings {
    path: String,
    map: Map<String, Value>,
    known: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Settings {
    /// Start reading a table that stands at `path`.
    pub fn new(path: &str, map: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), map, known: BTreeSet::new(), problems: Vec::new() }
    }

    /// Read one text as if it stood in a table under this key.
    pub fn of_one(key: &str, text: &str) -> Self {
        let mut map = Map::new();
        map.insert(key.to_owned(), Value::from(text));
        Self::new("", map)
    }

    /// Dotted path of a key of this table.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The keys that are present.
    pub fn keys(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// Report a problem with a key.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let path = self.path_of(key);
        self.problems.push(Problem { path, message: message.into() });
    }

    /// Take over the problems of a table that was read on its own.
    pub fn absorb(&mut self, problems: Vec<Problem>) {
        self.problems.extend(problems);
    }

    /// A raw value; marks the key as known.
    pub fn value(&mut self, key: &str) -> Option<Value> {
        self.known.insert(key.to_owned());
        self.map.get(key).cloned()
    }

    fn typed<T>(&mut self, key: &str, want: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.value(key)?;
        let read = read(&value);
        if read.is_none() {
            self.problem(key, format!("expected {want}, found {}", describe(&value)));
        }
        read
    }

    /// A text.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.typed(key, "a text in quotes", |v| v.as_str().map(str::to_owned))
    }

    /// A text, or the default.
    pub fn text_or(&mut self, key: &str, default: &str) -> String {
        self.text(key).unwrap_or_else(|| default.to_owned())
    }

    /// A text that must be there and not be empty; reports and returns an empty text otherwise.
    pub fn required_text(&mut self, key: &str, why: &str) -> String {
        if !self.map.contains_key(key) {
            self.known.insert(key.to_owned());
            self.problem(key, format!("missing: {why}"));
            return String::new();
        }
        let text = self.text(key).unwrap_or_default();
        if text.is_empty() && matches!(self.map.get(key), Some(Value::String(_))) {
            self.problem(key, format!("is empty: {why}"));
        }
        text
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A whole number within bounds.
    pub fn whole(&mut self, key: &str, at_least: u64, at_most: u64) -> Option<u64> {
        let number = self.typed(key, "a whole number", Value::as_u64)?;
        if number < at_least || number > at_most {
            self.problem(key, format!("{number} is out of range: {at_least} to {at_most}"));
            return None;
        }
        Some(number)
    }

    /// A length of time: `"300ms"`, `"5s"`, `"10m"`, `"48h"`, `"14d"`.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        self.typed(key, "a length of time such as \"30s\", \"10m\", \"48h\" or \"14d\"", |v| {
            v.as_str().and_then(parse_duration)
        })
    }

    /// A number of bytes: `"64KiB"`, `"1MiB"`, `"2GiB"`, or a plain number.
    pub fn bytes(&mut self, key: &str) -> Option<u64> {
        self.typed(key, "a size such as \"64KiB\", \"1MiB\" or \"2GiB\"", |v| match v {
            Value::Number(n) => n.as_u64(),
            Value::String(s) => parse_bytes(s),
            _ => None,
        })
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(&mut self, key: &str, options: &[(&str, T)]) -> Option<T> {
        let word = self.text(key)?;
        if let Some((_, value)) = options.iter().find(|(name, _)| *name == word) {
            return Some(*value);
        }
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        let hint = closest(&word, names.iter().copied()).map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default();
        self.problem(key, format!("\"{word}\" is not one of {}{hint}", names.join(", ")));
        None
    }

    /// A list of texts; a single text counts as a list of one.
    pub fn list(&mut self, key: &str) -> Option<Vec<String>> {
        self.typed(key, "a list of texts in quotes", |v| match v {
            Value::String(s) => Some(vec![s.clone()]),
            Value::Array(items) => items.iter().map(|i| i.as_str().map(str::to_owned)).collect(),
            _ => None,
        })
    }

    /// A table from text to text; whole numbers are taken as their digits (TOML users write ids bare).
    pub fn text_map(&mut self, key: &str) -> Option<BTreeMap<String, String>> {
        self.typed(key, "a table of texts", |v| {
            let mut texts = BTreeMap::new();
            for (k, v) in v.as_object()? {
                let text = match v {
                    Value::String(s) => s.clone(),
                    Value::Number(n) if n.is_u64() || n.is_i64() => n.to_string(),
                    _ => return None,
                };
                texts.insert(k.clone(), text);
            }
            Some(texts)
        })
    }

    /// A table inside this one, to be read on its own; give its `finish()` back to [`Settings::absorb`].
    pub fn table(&mut self, key: &str) -> Option<Self> {
        let path = self.path_of(key);
        self.typed(key, "a table", |v| v.as_object().cloned()).map(|map| Self::new(&path, map))
    }

    /// Everything that was wrong, unknown keys included.
    pub fn finish(mut self) -> Vec<Problem> {
        let unknown: Vec<String> = self.map.keys().filter(|k| !self.known.contains(*k)).cloned().collect();
        for key in unknown {
            let hint = match closest(&key, self.known.iter().map(String::as_str)) {
                Some(known) => format!("; did you mean `{known}`?"),
                None => String::new(),
            };
            self.problem(&key, format!("unknown key `{key}`{hint}"));
        }
        self.problems
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(b) => format!("{b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("\"{}\"", s.chars().take(40).collect::<String>().escape_debug()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(split)?;
    let number: u64 = digits.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn parse_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(split)?;
    let number: u64 = digits.parse().ok()?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The candidate that a mistyped word most likely meant: at most a third of its letters differ, or two (a swap) of four or more.
pub fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (distance(word, c), c))
        .filter(|(d, c)| *d * 3 <= word.len().max(c.len()) || (*d <= 2 && word.len().min(c.len()) >= 4))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Edit distance (Levenshtein), one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cb, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = *cell;
            left = substituted.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: Value) -> Settings {
        match value {
            Value::Object(map) => Settings::new("source.shop", map),
            _ => panic!("an object"),
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_a_suggestion() {
        let mut s = settings(json!({"tolerence": "5m", "zzz": 1}));
        assert_eq!(s.duration("tolerance"), None);
        let found = s.finish();
        assert_eq!(found[0].path, "source.shop.tolerence");
        assert_eq!(found[0].message, "unknown key `tolerence`; did you mean `tolerance`?");
        assert_eq!(found[1].message, "unknown key `zzz`");
    }

    #[test]
    fn wrong_types_say_what_was_expected_and_what_was_found() {
        let mut s = settings(json!({"tolerance": "soon", "secure": "yes", "mode": "fats", "n": 70}));
        assert_eq!(s.duration("tolerance"), None);
        assert_eq!(s.flag("secure"), None);
        assert_eq!(s.choice("mode", &[("fast", 1), ("slow", 2)]), None);
        assert_eq!(s.whole("n", 1, 64), None);
        let messages: Vec<String> = s.finish().into_iter().map(|p| p.message).collect();
        assert_eq!(
            messages,
            [
                "expected a length of time such as \"30s\", \"10m\", \"48h\" or \"14d\", found \"soon\"",
                "expected true or false, found \"yes\"",
                "\"fats\" is not one of fast, slow; did you mean \"fast\"?",
                "70 is out of range: 1 to 64",
            ]
        );
    }

    #[test]
    fn durations_and_sizes_have_units() {
        let mut s = settings(json!({"a": "48h", "b": "1MiB", "c": 512, "d": "250ms"}));
        assert_eq!(s.duration("a"), Some(Duration::from_secs(48 * 3600)));
        assert_eq!(s.bytes("b"), Some(1 << 20));
        assert_eq!(s.bytes("c"), Some(512));
        assert_eq!(s.duration("d"), Some(Duration::from_millis(250)));
        assert_eq!(s.finish(), []);
    }
}
