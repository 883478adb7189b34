//! `[warehouse.<id>]`: who has authority over it, when it is low, what people call it.
//!
//! A warehouse needs no table: a source that names one declares it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Findings, SourceConfig, WarehouseConfig, repeated};
use crate::limits;
use crate::types::{Quantity, Settings, SourceId, WarehouseId, closest, map_of};

/// Read every warehouse table, and add those that sources name. `declared` are the names of all source tables, those with
/// mistakes too.
pub(super) fn read(
    root: &mut Settings,
    declared: &BTreeSet<String>,
    sources: &[SourceConfig],
    found: &mut Findings,
) -> BTreeMap<WarehouseId, WarehouseConfig> {
    // not collected, for the reason of `map_of`
    let mut named = BTreeSet::new();
    named.extend(sources.iter().flat_map(|s| s.warehouse.iter().chain(s.locations.values())));
    let mut warehouses = map_of(named.iter().map(|id| ((*id).clone(), WarehouseConfig::undeclared(id))));
    let Some(mut tables) = root.table("warehouse") else { return warehouses };
    for key in tables.keys() {
        let id = WarehouseId::new(&key);
        if let Err(why) = &id {
            tables.problem(&key, why.to_string());
        }
        let Some(mut table) = tables.table(&key) else { continue };
        let config = one(&mut table, &key, declared);
        found.absorb(table.finish());
        let Ok(id) = id else { continue };
        // A source with mistakes may be the one that names it: warn only when all could be read.
        if !named.contains(&id) && sources.len() == declared.len() {
            found.warning(&format!("warehouse.{key}"), "no source names this warehouse");
        }
        warehouses.insert(id, config);
    }
    found.absorb(tables.finish());
    warehouses
}

fn one(table: &mut Settings, key: &str, declared: &BTreeSet<String>) -> WarehouseConfig {
    let name = table.text_or("name", key);
    if name.is_empty() || name.len() > limits::NAME_MAX_BYTES || name.chars().any(char::is_control) {
        table.problem("name", format!("must be 1 to {} bytes without control characters", limits::NAME_MAX_BYTES));
    }
    WarehouseConfig { name, authority: authority(table, declared), low: low(table) }
}

fn authority(table: &mut Settings, declared: &BTreeSet<String>) -> Vec<SourceId> {
    let names = table.list("authority").unwrap_or_default();
    for name in repeated(names.iter().map(String::as_str)) {
        table.problem("authority", format!("names `{name}` twice"));
    }
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !declared.contains(*name)) {
        let hint = closest(name, declared.iter().map(String::as_str));
        let hint = hint.map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
        table.problem(&format!("authority[{i}]"), format!("there is no source `{}`{hint}", name.escape_debug()));
    }
    names.iter().filter_map(|name| SourceId::new(name).ok()).collect()
}

/// A quantity in quotes; a whole number needs none.
fn low(table: &mut Settings) -> Option<Quantity> {
    let text = match table.value("low")? {
        Value::String(text) => text,
        Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string(),
        _ => {
            table.problem("low", "expected a quantity in quotes, such as \"5\" or \"2.5\"");
            return None;
        }
    };
    match text.parse::<Quantity>() {
        Ok(low) if !low.is_negative() => return Some(low),
        Ok(_) => table.problem("low", "is negative: no level would ever count as low"),
        Err(why) => table.problem("low", format!("\"{}\" is {why}", text.escape_debug())),
    }
    None
}
