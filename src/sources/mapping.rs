//! From a JSON body to facts by configuration alone: the `[map]` table that `generic` and `standard-webhooks` share.
//!
//! | key | meaning |
//! |---|---|
//! | `rows` | pointer to an array; one fact per element, and the other pointers then start at the element. `""`: the body itself |
//! | `item`, `sku` | the platform's item id, our SKU; one of them must be set, and an absent `item` is the `sku` |
//! | `location` | the platform's location id; not set, or nothing there: the source's own warehouse |
//! | `quantity` | a number, or a text with one; `null`: untracked. Needed |
//! | `mode` | `"absolute"` (default): the number is now this. `"delta"`: it moved by this |
//! | `combine` | rows about one item and place: `"last"` (default) counts, or `"sum"` (bins, batches). Deltas are always summed |
//! | `time` | when the fact became true; nothing there: arrival counts |
//! | `time_format` | `"auto"` (default), `"rfc3339"`, `"unix"`, `"unix-ms"`, `"naive"` |
//! | `utc_offset_hours` | where dates without an offset are meant; 0 by default |
//! | `version` | a counter that only grows (a whole number); never a time |
//! | `deleted` | when it holds something true, the item (at the location, or everywhere) is gone |
//! | `only_if` | pointer = value or list of values; where one differs, the message or row is none of our business |
//!
//! Pointers are RFC 6901 ([`super::pointer`]); with `rows`, a leading `^` starts at the whole body. A message is read whole
//! or not at all: one bad row makes it a dead letter that names the row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::Value;
use serde_json::value::RawValue;

use super::moment::{Offset, TimeFormat};
use super::pointer::{self, Pointer, Scalar};
use crate::limits::FACTS_PER_RECORD;
use crate::types::{Change, Fact, Item, Measure, Observation, Place, Quantity, Said, Settings, Unreadable};

/// The pointers that hold when no `[map]` table is given. A table replaces them all.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// The platform's item id.
    pub item: &'static str,
    /// Our SKU.
    pub sku: &'static str,
    /// The location.
    pub location: &'static str,
    /// The quantity.
    pub quantity: &'static str,
    /// When the fact became true.
    pub time: &'static str,
}

/// How a body becomes facts.
#[derive(Debug, Clone)]
pub struct Mapping {
    rows: Option<Pointer>,
    /// Pointers that start at the whole body although there are rows: found once a message, not once a row.
    roots: Vec<Pointer>,
    item: Option<Spot>,
    sku: Option<Spot>,
    location: Option<Spot>,
    quantity: Option<Spot>,
    time: Option<Spot>,
    version: Option<Spot>,
    deleted: Option<Spot>,
    only_if: Vec<Condition>,
    mode: Mode,
    combine: Combine,
    time_format: TimeFormat,
    offset: Offset,
    measure: Measure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Absolute,
    Delta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Combine {
    Last,
    Sum,
}

/// Where a value is.
#[derive(Debug, Clone)]
enum Spot {
    /// Under the row, or under the body when there are no rows.
    Row(Pointer),
    /// Under the body: an index into `Mapping::roots`.
    Root(usize),
}

#[derive(Debug, Clone)]
struct Condition {
    spot: Spot,
    wanted: Vec<String>,
}

/// One row of one message, and what was found at the roots.
#[derive(Clone, Copy)]
struct View<'a> {
    row: &'a RawValue,
    roots: &'a [Option<&'a RawValue>],
}

impl<'a> View<'a> {
    fn at(&self, spot: &Spot) -> Option<&'a RawValue> {
        match spot {
            Spot::Row(pointer) => pointer.find(self.row),
            Spot::Root(index) => self.roots.get(*index).copied().flatten(),
        }
    }

    /// What is there; nothing and `null` are the same.
    fn present(&self, spot: Option<&Spot>) -> Option<Scalar<'a>> {
        self.at(spot?).map(pointer::scalar).filter(|s| *s != Scalar::Null)
    }
}

// ---- reading the configuration ----------------------------------------------------------------------------------

/// The table while it is read.
struct Draft<'s> {
    table: &'s mut Settings,
    with_rows: bool,
    roots: Vec<Pointer>,
}

impl Draft<'_> {
    fn spot(&mut self, key: &str) -> Option<Spot> {
        let text = self.table.text(key)?;
        self.place(key, &text)
    }

    fn place(&mut self, key: &str, text: &str) -> Option<Spot> {
        let (from_root, text) = match text.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match Pointer::parse(text) {
            Ok(pointer) if from_root && self.with_rows => {
                self.roots.push(pointer);
                Some(Spot::Root(self.roots.len() - 1))
            }
            Ok(pointer) => Some(Spot::Row(pointer)),
            Err(bad) => {
                self.table.problem(key, bad.to_string());
                None
            }
        }
    }

    fn conditions(&mut self) -> Vec<Condition> {
        let Some(mut table) = self.table.table("only_if") else { return Vec::new() };
        let mut conditions = Vec::new();
        for key in table.keys() {
            let wanted = match table.value(&key) {
                Some(Value::Array(values)) => values.iter().map(word).collect(),
                Some(value) => word(&value).map(|w| vec![w]),
                None => None,
            };
            let Some(wanted) = wanted.filter(|w| !w.is_empty()) else {
                table.problem(&key, "expected a text, a number, true or false, or a list of them");
                continue;
            };
            if let Some(spot) = self.place("only_if", &key) {
                conditions.push(Condition { spot, wanted });
            }
        }
        self.table.absorb(table.finish());
        conditions
    }
}

/// A wanted value as the text that it is compared by.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Mapping {
    /// Read the source's `map` table and its `measure` (`"available"` or `"on-hand"`).
    pub fn read(settings: &mut Settings, defaults: &Defaults) -> Self {
        let measures = [("available", Measure::Available), ("on-hand", Measure::OnHand)];
        let measure = settings.choice("measure", &measures).unwrap_or_default();
        let Some(mut table) = settings.table("map") else { return Self::from_defaults(defaults, measure) };
        let mapping = Self::from_table(&mut table, measure);
        settings.absorb(table.finish());
        mapping
    }

    /// Further restrict to messages whose `pointer` (from the body) holds one of the words.
    #[must_use]
    pub fn only_words(mut self, pointer: &str, wanted: Vec<String>) -> Self {
        if let Ok(pointer) = Pointer::parse(pointer) {
            self.roots.push(pointer);
            self.only_if.push(Condition { spot: Spot::Root(self.roots.len() - 1), wanted });
        }
        self
    }

    fn from_defaults(defaults: &Defaults, measure: Measure) -> Self {
        let spot = |text| Some(Spot::Row(Pointer::parse(text).expect("the default pointers are well-formed")));
        Self {
            rows: None,
            roots: Vec::new(),
            item: spot(defaults.item),
            sku: spot(defaults.sku),
            location: spot(defaults.location),
            quantity: spot(defaults.quantity),
            time: spot(defaults.time),
            version: None,
            deleted: None,
            only_if: Vec::new(),
            mode: Mode::Absolute,
            combine: Combine::Last,
            time_format: TimeFormat::Auto,
            offset: Offset::default(),
            measure,
        }
    }

    fn from_table(table: &mut Settings, measure: Measure) -> Self {
        let rows = table.text("rows").and_then(|text| {
            Pointer::parse(text.strip_prefix('^').unwrap_or(&text))
                .map_err(|bad| table.problem("rows", bad.to_string()))
                .ok()
        });
        let mode = table.choice("mode", &[("absolute", Mode::Absolute), ("delta", Mode::Delta)]).unwrap_or(Mode::Absolute);
        let combine = table.choice("combine", &[("last", Combine::Last), ("sum", Combine::Sum)]);
        if mode == Mode::Delta && combine == Some(Combine::Last) {
            table.problem("combine", "changes of one item are always summed: leave this out, or set \"sum\"");
        }
        let time_format = table.choice("time_format", TimeFormat::WORDS).unwrap_or_default();
        let offset = Offset::read(table, "utc_offset_hours");
        for key in ["quantity", "item"] {
            let there = table.value(key).is_some() || (key == "item" && table.value("sku").is_some());
            if !there {
                let hint = if key == "item" { " or `sku`" } else { "" };
                table.problem(key, format!("missing: a JSON pointer such as \"/{key}\"{hint}"));
            }
        }
        let mut draft = Draft { with_rows: rows.is_some(), table, roots: Vec::new() };
        Self {
            item: draft.spot("item"),
            sku: draft.spot("sku"),
            location: draft.spot("location"),
            quantity: draft.spot("quantity"),
            time: draft.spot("time"),
            version: draft.spot("version"),
            deleted: draft.spot("deleted"),
            only_if: draft.conditions(),
            roots: draft.roots,
            rows,
            mode,
            combine: combine.unwrap_or(Combine::Last),
            time_format,
            offset,
            measure,
        }
    }
}

// ---- reading a message ------------------------------------------------------------------------------------------

impl Mapping {
    /// What a JSON body says.
    pub fn observe(&self, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
        let document = pointer::document(body)?;
        let roots: Vec<Option<&RawValue>> = self.roots.iter().map(|p| p.find(document)).collect();
        let whole = View { row: document, roots: &roots };
        if let Some(reason) = self.mismatch(&whole, |spot| self.rows.is_none() || matches!(spot, Spot::Root(_))) {
            return Ok(vec![Observation::Irrelevant(reason)]);
        }
        let Some(pointer) = &self.rows else {
            return Ok(vec![Observation::Fact(self.fact(&whole).map_err(Unreadable)?)]);
        };
        self.observe_rows(&whole, pointer)
    }

    fn observe_rows(&self, whole: &View<'_>, pointer: &Pointer) -> Result<Vec<Observation>, Unreadable> {
        let place = pointer.as_str();
        let rows = match pointer.find(whole.row) {
            None => return Err(Unreadable(format!("no rows at \"{place}\""))),
            Some(value) if pointer::scalar(value) == Scalar::Null => Vec::new(),
            Some(value) => pointer::elements(value).ok_or_else(|| Unreadable(format!("\"{place}\" is not an array")))?,
        };
        if rows.is_empty() {
            return Ok(vec![Observation::Irrelevant("the message carries no rows".to_owned())]);
        }
        if rows.len() > FACTS_PER_RECORD {
            return Err(Unreadable(format!("{} rows: at most {FACTS_PER_RECORD} are read", rows.len())));
        }
        let mut gathered = Gathered::default();
        for (number, row) in rows.into_iter().enumerate() {
            let view = View { row, roots: whole.roots };
            let outcome = match self.mismatch(&view, |spot| matches!(spot, Spot::Row(_))) {
                Some(reason) => {
                    gathered.out.push(Observation::Irrelevant(reason));
                    Ok(())
                }
                None => self.fact(&view).and_then(|fact| gathered.add(fact, self.combine)),
            };
            outcome.map_err(|why| Unreadable(format!("row {}: {why}", number + 1)))?;
        }
        Ok(gathered.out)
    }

    /// The first condition, of those asked about, that does not hold.
    fn mismatch(&self, view: &View<'_>, asked: impl Fn(&Spot) -> bool) -> Option<String> {
        self.only_if.iter().filter(|c| asked(&c.spot)).find_map(|condition| {
            let found = match view.at(&condition.spot).map(pointer::scalar) {
                Some(Scalar::Text(text)) => text,
                Some(Scalar::Number(text)) => text.to_owned(),
                Some(Scalar::Bool(flag)) => flag.to_string(),
                Some(Scalar::Null | Scalar::Other) | None => String::new(),
            };
            let holds = condition.wanted.contains(&found);
            (!holds).then(|| format!("`{}` is \"{}\"", self.path(&condition.spot), excerpt(&found)))
        })
    }

    fn fact(&self, view: &View<'_>) -> Result<Fact, String> {
        let sku = self.name(view, self.sku.as_ref(), "SKU")?;
        let item = self.name(view, self.item.as_ref(), "item")?;
        let id = item.or_else(|| sku.clone()).ok_or_else(|| match (&self.item, &self.sku) {
            (Some(item), Some(sku)) => format!("no item at {} and no SKU at {}", self.path(item), self.path(sku)),
            (Some(spot), None) => format!("no item at {}", self.path(spot)),
            (None, Some(spot)) => format!("no SKU at {}", self.path(spot)),
            (None, None) => "the mapping names no item".to_owned(),
        })?;
        let location = self.name(view, self.location.as_ref(), "location")?;
        let gone = view.present(self.deleted.as_ref()).is_some_and(truthy);
        let place = match location {
            Some(id) => Place::At(id),
            None if gone => Place::Everywhere,
            None => Place::Default,
        };
        let change = if gone { Change::Deleted } else { self.change(view)? };
        Ok(Fact { item: Item { id, sku }, place, measure: self.measure, change, said: self.said(view)? })
    }

    /// An id: `None` when there is nothing or an empty text.
    fn name(&self, view: &View<'_>, spot: Option<&Spot>, what: &str) -> Result<Option<Box<str>>, String> {
        let (Some(spot), Some(found)) = (spot, view.present(spot)) else { return Ok(None) };
        if matches!(&found, Scalar::Text(text) if text.trim().is_empty()) {
            return Ok(None);
        }
        let unusable = || format!("the {what} at {} is not a number or a text of at most 255 bytes", self.path(spot));
        found.name().map(Some).ok_or_else(unusable)
    }

    fn change(&self, view: &View<'_>) -> Result<Change, String> {
        let spot = self.quantity.as_ref().ok_or("the mapping names no quantity")?;
        let wrong = |why: &str| format!("the quantity at {} is {why}", self.path(spot));
        let text = match view.at(spot).map(pointer::scalar) {
            None => return Err(format!("no quantity at {}", self.path(spot))),
            Some(Scalar::Null) if self.mode == Mode::Delta => return Err(wrong("null, which is no change")),
            Some(Scalar::Null) => return Ok(Change::Untracked),
            Some(Scalar::Number(text)) => text.to_owned(),
            Some(Scalar::Text(text)) => text,
            Some(Scalar::Bool(_) | Scalar::Other) => return Err(wrong("not a number")),
        };
        let quantity: Quantity = text.parse().map_err(|bad| wrong(&format!("\"{}\": {bad}", excerpt(&text))))?;
        Ok(match self.mode {
            Mode::Absolute => Change::Absolute(quantity),
            Mode::Delta => Change::Delta(quantity),
        })
    }

    fn said(&self, view: &View<'_>) -> Result<Said, String> {
        let digits = |spot: Option<&Spot>| match view.present(spot) {
            Some(Scalar::Number(text)) => Ok(Some(text.to_owned())),
            Some(Scalar::Text(text)) if text.trim().is_empty() => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(Scalar::Bool(_) | Scalar::Other) => Err("not a number or a text"),
            Some(Scalar::Null) | None => Ok(None),
        };
        let read = |spot: Option<&Spot>, what: &str| {
            digits(spot).map_err(|why| format!("the {what} at {} is {why}", spot.map(|s| self.path(s)).unwrap_or_default()))
        };
        let mut said = Said::default();
        if let Some(text) = read(self.time.as_ref(), "time")? {
            let at = self.time_format.read(&text, self.offset);
            said.at = Some(at.ok_or_else(|| format!("the time \"{}\" cannot be read", excerpt(&text)))?);
        }
        if let Some(text) = read(self.version.as_ref(), "version")? {
            let version = text.trim().parse();
            said.version = Some(version.map_err(|_| format!("the version \"{}\" is not a whole number", excerpt(&text)))?);
        }
        Ok(said)
    }

    /// A spot as people wrote it.
    fn path(&self, spot: &Spot) -> String {
        match spot {
            Spot::Row(pointer) => pointer.as_str().to_owned(),
            Spot::Root(index) => {
                let start = if self.rows.is_some() { "^" } else { "" };
                format!("{start}{}", self.roots.get(*index).map_or("", Pointer::as_str))
            }
        }
    }
}

/// Does a value say yes? A date (`deleted_at`) does; an empty text, `0`, `"0"`, `"false"` and `"no"` do not.
fn truthy(value: Scalar<'_>) -> bool {
    match value {
        Scalar::Bool(flag) => flag,
        Scalar::Number(text) => text.parse::<Quantity>() != Ok(Quantity::ZERO),
        Scalar::Text(text) => !["", "0", "false", "no"].contains(&text.trim().to_ascii_lowercase().as_str()),
        Scalar::Null => false,
        Scalar::Other => true,
    }
}

/// The beginning of a value, for a sentence that people read.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect::<String>().escape_debug().to_string()
}

/// Facts of one message, one per item and place.
#[derive(Default)]
struct Gathered {
    out: Vec<Observation>,
    places: HashMap<(Box<str>, Place), usize>,
}

impl Gathered {
    fn add(&mut self, fact: Fact, combine: Combine) -> Result<(), String> {
        match self.places.entry((fact.item.id.clone(), fact.place.clone())) {
            Entry::Vacant(free) => {
                free.insert(self.out.len());
                self.out.push(Observation::Fact(fact));
            }
            Entry::Occupied(taken) => {
                if let Some(Observation::Fact(earlier)) = self.out.get_mut(*taken.get()) {
                    merge(earlier, fact, combine)?;
                }
            }
        }
        Ok(())
    }
}

/// Two rows about one item and place. A row without a number (untracked, deleted) gives way to one that has one when rows
/// are parts of a sum; otherwise the later row wins unless it says itself that it is older.
fn merge(earlier: &mut Fact, later: Fact, combine: Combine) -> Result<(), String> {
    let sum = |a: Quantity, b: Quantity| a.checked_add(b).ok_or("the sum of the rows is out of range");
    let newer = is_newer(&later.said, &earlier.said);
    match (earlier.change, later.change, combine) {
        (Change::Delta(a), Change::Delta(b), _) => earlier.change = Change::Delta(sum(a, b)?),
        (Change::Absolute(a), Change::Absolute(b), Combine::Sum) => earlier.change = Change::Absolute(sum(a, b)?),
        (Change::Absolute(_) | Change::Delta(_), Change::Untracked | Change::Deleted, Combine::Sum) => {}
        (_, change, Combine::Sum) => earlier.change = change,
        (_, _, Combine::Last) => {
            if newer {
                *earlier = later;
            }
            return Ok(());
        }
    }
    if newer {
        earlier.said = later.said;
    }
    Ok(())
}

/// Not older, by what the rows themselves say.
fn is_newer(later: &Said, earlier: &Said) -> bool {
    (later.version, later.at) >= (earlier.version, earlier.at)
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
