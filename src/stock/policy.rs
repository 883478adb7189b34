//! What deliveries mean: the part of the configuration that the fold depends on.
//!
//! It is written to the journal whenever it differs from the last one there, as canonical JSON without any secret, so that
//! a replay needs no configuration file and folds every delivery under the policy of its own time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Sku, WarehouseId};

/// Sources and warehouses, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Version of this form.
    pub v: u32,
    /// By source name.
    pub sources: BTreeMap<String, SourcePolicy>,
    /// By warehouse name.
    pub warehouses: BTreeMap<String, WarehousePolicy>,
}

/// How one source is understood.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourcePolicy {
    /// The platform's kind.
    pub kind: String,
    /// The adapter's own settings.
    #[serde(default)]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// True when the platform's API is configured, so that it can be asked.
    #[serde(default)]
    pub api: bool,
    /// The warehouse of a message without a location.
    #[serde(default)]
    pub warehouse: Option<WarehouseId>,
    /// Location id to warehouse; `*` stands for every other location.
    #[serde(default)]
    pub locations: BTreeMap<String, WarehouseId>,
    /// Item id to SKU.
    #[serde(default)]
    pub items: BTreeMap<String, Sku>,
}

/// Whose word counts in one warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WarehousePolicy {
    /// Source names, the first that has reported counts.
    #[serde(default)]
    pub authority: Vec<String>,
    /// SKUs at or below this many are low (decimal text).
    #[serde(default)]
    pub low: Option<String>,
}

impl Policy {
    /// The one spelling of this policy: sorted keys, no blanks.
    pub fn to_canonical(&self) -> String {
        serde_json::to_string(self).expect("maps with text keys serialise")
    }

    /// Read a policy from the journal.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}
