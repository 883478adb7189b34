//! The policy of a configuration: what goes into the journal of it.

use super::Checked;
use crate::stock::policy::{Policy, SourcePolicy, WarehousePolicy};
use crate::types::map_of;

pub(super) fn of(checked: &Checked) -> Policy {
    let sources = checked.sources.iter().map(|source| {
        let policy = SourcePolicy {
            kind: source.kind.name.to_owned(),
            settings: source.settings.clone(),
            api: source.api.is_some(),
            warehouse: source.warehouse.clone(),
            locations: source.locations.clone(),
            items: Some(source.items.name()).filter(|items| items.count > 0).cloned(),
        };
        (source.id.as_str().to_owned(), policy)
    });
    let warehouses = checked.warehouses.iter().map(|(id, warehouse)| {
        let authority = warehouse.authority.iter().map(|source| source.as_str().to_owned()).collect();
        (id.as_str().to_owned(), WarehousePolicy { authority, low: warehouse.low.map(|low| low.to_string()) })
    });
    Policy { sources: map_of(sources), warehouses: map_of(warehouses), ..Policy::default() }
}
