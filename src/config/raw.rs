//! Text to a tree of plain values, with the line of every key, and the overrides laid over it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Findings, Inputs, Located, Report};
use crate::types::closest;

/// What a key of a fixed section holds; decides how the text of an override is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Text, also lengths of time and sizes.
    Text,
    /// A whole number.
    Whole,
    /// `true` or `false`.
    Flag,
    /// Several texts, separated by commas in an override.
    List,
}

/// Every key that `STOCKGATE__SECTION__KEY` and the command line can set: all of the fixed sections.
pub const FIXED_KEYS: &[(&str, Shape)] = &[
    ("admin.address", Shape::Text),
    ("admin.certificate", Shape::Text),
    ("admin.key", Shape::Text),
    ("admin.tls", Shape::Flag),
    ("admin.tokens", Shape::Text),
    ("data.directory", Shape::Text),
    ("limits.bodies", Shape::Text),
    ("limits.body", Shape::Text),
    ("limits.body_timeout", Shape::Text),
    ("limits.connections", Shape::Whole),
    ("limits.connections_per_address", Shape::Whole),
    ("limits.handshake_timeout", Shape::Text),
    ("limits.header_timeout", Shape::Text),
    ("limits.idle_timeout", Shape::Text),
    ("limits.queue", Shape::Whole),
    ("listen.address", Shape::Text),
    ("listen.proxy_protocol_from", Shape::List),
    ("log.format", Shape::Text),
    ("log.level", Shape::Text),
    ("retention.age", Shape::Text),
    ("retention.bytes", Shape::Text),
    ("store.cache", Shape::Text),
    ("store.checkpoint", Shape::Text),
    ("store.reserve", Shape::Text),
    ("tls.acme.ca_file", Shape::Text),
    ("tls.acme.challenge", Shape::Text),
    ("tls.acme.contact", Shape::List),
    ("tls.acme.directory", Shape::Text),
    ("tls.acme.http_address", Shape::Text),
    ("tls.acme.terms_agreed", Shape::Flag),
    ("tls.certificate", Shape::Text),
    ("tls.key", Shape::Text),
    ("tls.names", Shape::List),
];

/// The variable that sets a fixed key: `STOCKGATE__LISTEN__ADDRESS` for `listen.address`.
pub fn variable(key: &str) -> String {
    format!("STOCKGATE__{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Warnings for variables that look like ours and set nothing: a mistyped one would be ignored in silence.
/// `names` are the names of all variables of the environment.
pub fn unknown_variables<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Located> {
    let known: Vec<String> = FIXED_KEYS.iter().map(|(key, _)| variable(key)).collect();
    let ours = names.filter(|name| name.starts_with("STOCKGATE__") && !known.iter().any(|k| k == name));
    ours.map(|name| {
        let hint = closest(name, known.iter().map(String::as_str));
        let hint = hint.map(|k| format!("; did you mean {k}?")).unwrap_or_default();
        Located {
            file: format!("environment variable {name}"),
            line: None,
            path: String::new(),
            message: format!("sets nothing{hint}"),
        }
    })
    .collect()
}

/// Where each setting stands.
#[derive(Debug, Default)]
pub(super) struct Origins {
    file: String,
    lines: BTreeMap<String, usize>,
    /// Settings that came from elsewhere, and from where.
    overridden: BTreeMap<String, String>,
}

impl Origins {
    /// A finding at the place of `path`, or of its nearest parent that stands in the file.
    pub(super) fn locate(&self, path: &str, message: &str) -> Located {
        let at =
            |file: &str, line| Located { file: file.to_owned(), line, path: path.to_owned(), message: message.to_owned() };
        let mut place = path;
        loop {
            if let Some(from) = self.overridden.get(place) {
                return at(from, None);
            }
            if let Some(line) = self.lines.get(place) {
                return at(&self.file, Some(*line));
            }
            match place.rfind(['.', '[']).and_then(|end| place.get(..end)) {
                Some(parent) => place = parent,
                None => return at(&self.file, None),
            }
        }
    }

    /// The configuration file's name.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// A finding about the file, not about a key.
    fn whole_file(&self, line: Option<usize>, message: String) -> Located {
        Located { file: self.file.clone(), line, path: String::new(), message }
    }
}

/// Read TOML, note every key's line, lay the environment and the command line over it.
pub(super) fn read(text: &str, file: &str, inputs: &Inputs<'_>) -> Result<(Map<String, Value>, Findings), Report> {
    let origins = Origins { file: file.to_owned(), ..Origins::default() };
    let mut found = Findings { origins, unreadable: BTreeSet::new(), problems: Vec::new(), warnings: Vec::new() };
    let lines = Lines::of(text);
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Report { problems: syntax(&errors, &lines, &found.origins), warnings: Vec::new() });
    }
    let mut root = table(tree.get_ref(), "", &lines, &mut found);
    for (key, shape) in FIXED_KEYS {
        // An empty variable counts as unset: that is how compose files pass on what nobody set.
        if let Some(value) = (inputs.env)(&variable(key)).filter(|v| !v.is_empty()) {
            let origin = format!("environment variable {}", variable(key));
            set(&mut root, key, *shape, &value, origin, &mut found);
        }
    }
    for over in &inputs.overrides.0 {
        match FIXED_KEYS.iter().find(|(key, _)| *key == over.key) {
            Some((key, shape)) => set(&mut root, key, *shape, &over.value, over.flag.clone(), &mut found),
            None => found.problem(&over.key, "cannot be set from outside the file"),
        }
    }
    Ok((root, found))
}

/// The first error of every line: what follows on the same line is the parser finding its feet again.
fn syntax(errors: &[toml::de::Error], lines: &Lines, origins: &Origins) -> Vec<Located> {
    let mut errors: Vec<(Option<usize>, &str)> =
        errors.iter().map(|error| (error.span().map(|span| span.start), error.message())).collect();
    errors.sort_unstable();
    let mut problems: Vec<Located> = Vec::new();
    for (start, message) in errors {
        let line = start.map(|start| lines.at(start));
        if problems.last().is_none_or(|before| before.line != line) {
            let message = message.strip_suffix(", expected nothing").unwrap_or(message);
            problems.push(origins.whole_file(line, format!("not valid TOML: {message}")));
        }
    }
    problems
}

/// Lay one value over the tree.
fn set(root: &mut Map<String, Value>, path: &str, shape: Shape, text: &str, origin: String, found: &mut Findings) {
    let value = match shape {
        Shape::Text => Value::String(text.to_owned()),
        // Not a number: the reader of the key says so.
        Shape::Whole => text.trim().parse::<u64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
        Shape::Flag => text.trim().parse::<bool>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
        Shape::List => text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect(),
    };
    let Some((sections, key)) = path.rsplit_once('.') else { return };
    let mut table = root;
    for section in sections.split('.') {
        let inner = table.entry(section).or_insert_with(|| Value::Object(Map::new()));
        // A section that is not a table is reported by its reader.
        let Some(inner) = inner.as_object_mut() else { return };
        table = inner;
    }
    table.insert(key.to_owned(), value);
    found.origins.overridden.insert(path.to_owned(), origin);
}

fn table(tree: &DeTable<'_>, path: &str, lines: &Lines, found: &mut Findings) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, value) in tree {
        let name: &str = key.get_ref();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        found.origins.lines.insert(path.clone(), lines.at(key.span().start));
        map.insert(name.to_owned(), plain(value, &path, lines, found));
    }
    map
}

/// A TOML value as JSON; what JSON cannot hold is reported.
fn plain(value: &Spanned<DeValue<'_>>, path: &str, lines: &Lines, found: &mut Findings) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => found.unreadable(path, "is a date: no key takes one; a text needs quotes"),
        DeValue::Integer(number) => match whole(number.as_str(), number.radix()) {
            Some(number) => Value::Number(number),
            None => found.unreadable(path, "the number is out of range: an id this long needs quotes"),
        },
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => found.unreadable(path, "the number is out of range"),
        },
        DeValue::Array(items) => {
            let items = items.iter().enumerate().map(|(i, item)| {
                let path = format!("{path}[{i}]");
                found.origins.lines.insert(path.clone(), lines.at(item.span().start));
                plain(item, &path, lines, found)
            });
            Value::Array(items.collect())
        }
        DeValue::Table(inner) => Value::Object(table(inner, path, lines, found)),
    }
}

fn whole(digits: &str, radix: u32) -> Option<Number> {
    let unsigned = u64::from_str_radix(digits, radix).ok().map(Number::from);
    unsigned.or_else(|| i64::from_str_radix(digits, radix).ok().map(Number::from))
}

/// The offsets at which lines start.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1).collect())
    }

    /// Line of a byte offset, from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}
