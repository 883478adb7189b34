//! The policy, compiled: adapters, mappings, authority, by number.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::sources::{self, Source};
use crate::stock::policy::{Policy, SourcePolicy};
use crate::store::StoreError;
use crate::store::state::State;
use crate::types::{ItemMap, ItemMapDigest, ItemMaps, Quantity, Settings, WarehouseId};

/// The item mappings that a policy names.
pub(super) type PolicyMaps = BTreeMap<ItemMapDigest, Arc<ItemMap>>;

/// Find the mappings that a policy names: those in use are shared, others are built from the state. `None` when the state does
/// not hold one of them. With a policy that is new also what is in use must have come through the journal: what the fold makes
/// of a journal must not depend on who else holds its items.
pub(super) fn find_maps(
    policy: &Policy,
    new: bool,
    state: &State,
    in_use: &ItemMaps,
) -> Result<Option<PolicyMaps>, StoreError> {
    let mut maps = PolicyMaps::new();
    for (digest, name) in policy.item_maps() {
        let map = match in_use.get(name) {
            Some(map) => (!new || state.has_item_map(name)?).then_some(map),
            None => state.item_map(name)?.map(|map| in_use.share(Arc::new(map))),
        };
        let Some(map) = map else { return Ok(None) };
        maps.insert(digest, map);
    }
    Ok(Some(maps))
}

/// How one source is folded.
pub(super) struct SourceRules {
    pub(super) name: String,
    pub(super) number: u16,
    pub(super) adapter: Box<dyn Source>,
    /// The platform can be asked.
    pub(super) api: bool,
    pub(super) warehouse: Option<u16>,
    pub(super) locations: BTreeMap<String, u16>,
    pub(super) items: Arc<ItemMap>,
}

/// Whose word counts in one warehouse, and what is low.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WarehouseRules {
    pub(super) authority: Vec<u16>,
    pub(super) low: Option<Quantity>,
}

/// Everything that decides what a delivery means.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) sources: HashMap<String, SourceRules>,
    pub(super) warehouses: HashMap<u16, WarehouseRules>,
    /// Delivery keys are remembered at least this long.
    pub(super) window: Duration,
}

impl Rules {
    /// Compile a policy; names that are new get their numbers, in the policy's order.
    pub(super) fn compile(policy: &Policy, maps: &PolicyMaps, state: &mut State) -> Self {
        let mut rules = Self::default();
        for name in policy.sources.keys() {
            state.source_number(name);
        }
        for (name, warehouse) in &policy.warehouses {
            let number = state.warehouse_number(name);
            let authority = warehouse.authority.iter().map(|source| state.source_number(source)).collect();
            let low = warehouse.low.as_deref().and_then(|text| text.parse().ok());
            rules.warehouses.insert(number, WarehouseRules { authority, low });
        }
        for (name, source) in &policy.sources {
            // a kind that this program does not know is a source without rules: its deliveries become dead letters
            let Some(compiled) = SourceRules::compile(name, source, maps, state) else { continue };
            rules.window = rules.window.max(compiled.adapter.horizon());
            rules.sources.insert(name.clone(), compiled);
        }
        rules
    }

    pub(super) fn warehouse(&self, number: u16) -> &WarehouseRules {
        const NONE: &WarehouseRules = &WarehouseRules { authority: Vec::new(), low: None };
        self.warehouses.get(&number).unwrap_or(NONE)
    }
}

impl SourceRules {
    fn compile(name: &str, policy: &SourcePolicy, maps: &PolicyMaps, state: &mut State) -> Option<Self> {
        let kind = sources::kind(&policy.kind)?;
        let mut settings = Settings::new("", policy.settings.clone());
        let adapter = (kind.build)(&mut settings);
        let mut number = |warehouse: &WarehouseId| state.warehouse_number(warehouse.as_str());
        let warehouse = policy.warehouse.as_ref().map(&mut number);
        let locations = policy.locations.iter().map(|(location, w)| (location.clone(), number(w))).collect();
        Some(Self {
            name: name.to_owned(),
            number: state.source_number(name),
            adapter,
            api: policy.api,
            warehouse,
            locations,
            items: policy.items.as_ref().and_then(|name| maps.get(&name.sha256)).cloned().unwrap_or_default(),
        })
    }

    /// The warehouses this source can speak about.
    pub(super) fn all_warehouses(&self) -> Vec<u16> {
        let mut all: Vec<u16> = self.warehouse.iter().chain(self.locations.values()).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
