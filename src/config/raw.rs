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

/// A configuration file as it was read.
#[derive(Debug)]
pub(super) struct Text {
    /// What problems name.
    pub(super) file: String,
    pub(super) text: String,
}

/// A line of a file.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its place in [`Origins::files`]; 0 is the configuration file, the others are drop-ins.
    file: usize,
    /// From 1.
    line: usize,
}

/// Where each setting stands.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// The configuration file, then its drop-ins.
    files: Vec<String>,
    /// The one that is being read.
    reading: usize,
    places: BTreeMap<String, Place>,
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
            if let Some(Place { file, line }) = self.places.get(place) {
                return at(self.name(*file), Some(*line));
            }
            match place.rfind(['.', '[']).and_then(|end| place.get(..end)) {
                Some(parent) => place = parent,
                None => return at(self.file(), None),
            }
        }
    }

    /// The configuration file's name.
    pub(super) fn file(&self) -> &str {
        self.name(0)
    }

    fn name(&self, file: usize) -> &str {
        self.files.get(file).map_or("", String::as_str)
    }

    fn note(&mut self, path: &str, line: usize) {
        self.places.insert(path.to_owned(), Place { file: self.reading, line });
    }

    /// `conf.d/shop.toml:3`, when the setting stands in a file.
    fn place_of(&self, path: &str) -> Option<(Place, String)> {
        self.places.get(path).map(|place| (*place, format!("{}:{}", self.name(place.file), place.line)))
    }

    /// Take over the places of a setting and of all that is in it, instead of those that it had.
    fn replace(&mut self, path: &str, from: &BTreeMap<String, Place>) {
        let within = |place: &str| {
            let rest = place.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.places.retain(|place, _| !within(place));
        self.places.extend(from.iter().filter(|(place, _)| within(place)).map(|(name, place)| (name.clone(), *place)));
    }
}

/// Read the configuration file and its drop-ins, in this order, note every key's place, lay the drop-ins, the environment and the
/// command line over it. Without a file nothing is set.
pub(super) fn read(texts: &[Text], inputs: &Inputs<'_>) -> Result<(Map<String, Value>, Findings), Report> {
    let origins = Origins { files: texts.iter().map(|one| one.file.clone()).collect(), ..Origins::default() };
    let mut found = Findings { origins, unreadable: BTreeSet::new(), problems: Vec::new(), warnings: Vec::new() };
    let trees: Vec<_> = texts.iter().map(|one| (one, Lines::of(&one.text), DeTable::parse_recoverable(&one.text))).collect();
    let problems: Vec<Located> =
        trees.iter().flat_map(|(one, lines, (_, errors))| syntax(errors, lines, &one.file)).collect();
    if !problems.is_empty() {
        return Err(Report { problems, warnings: Vec::new() });
    }
    let mut root = Map::new();
    for (i, (_, lines, (tree, _))) in trees.iter().enumerate() {
        found.origins.reading = i;
        let before = std::mem::take(&mut found.origins.places);
        let tree = table(tree.get_ref(), "", lines, &mut found);
        let places = std::mem::replace(&mut found.origins.places, before);
        lay(&mut root, tree, &places, &mut found);
    }
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
fn syntax(errors: &[toml::de::Error], lines: &Lines, file: &str) -> Vec<Located> {
    let mut errors: Vec<(Option<usize>, &str)> =
        errors.iter().map(|error| (error.span().map(|span| span.start), error.message())).collect();
    errors.sort_unstable();
    let mut problems: Vec<Located> = Vec::new();
    for (start, message) in errors {
        let line = start.map(|start| lines.at(start));
        if problems.last().is_none_or(|before| before.line != line) {
            let message = message.strip_suffix(", expected nothing").unwrap_or(message);
            let message = format!("not valid TOML: {message}");
            problems.push(Located { file: file.to_owned(), line, path: String::new(), message });
        }
    }
    problems
}

/// Lay a file over those before it, by the rule that [`super::load`] states. A place in two files that must not be is reported with
/// both, and the first one stays.
fn lay(root: &mut Map<String, Value>, tree: Map<String, Value>, places: &BTreeMap<String, Place>, found: &mut Findings) {
    for (section, value) in tree {
        let whole = section == "source" || section == "warehouse";
        let (old, new) = match (root.get_mut(&section), value) {
            (Some(Value::Object(old)), Value::Object(new)) => (old, new),
            // new, or something that is no table, of which its reader complains
            (_, value) => {
                found.origins.replace(&section, places);
                root.insert(section, value);
                continue;
            }
        };
        for (key, value) in new {
            let path = format!("{section}.{key}");
            if let Some((place, told)) = found.origins.place_of(&path) {
                let why = match (whole, place.file) {
                    (true, _) => Some("one file holds all of it"),
                    (false, 0) => None,
                    (false, _) => Some("drop-ins must not contradict each other; keep one"),
                };
                if let Some(why) = why {
                    let Some(Place { file, line }) = places.get(&path) else { continue };
                    let file = found.origins.name(*file).to_owned();
                    let message = format!("stands in {told} too: {why}");
                    found.problems.push(Located { file, line: Some(*line), path, message });
                    continue;
                }
            }
            found.origins.replace(&path, places);
            old.insert(key, value);
        }
    }
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
        found.origins.note(&path, lines.at(key.span().start));
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
                found.origins.note(&path, lines.at(item.span().start));
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
