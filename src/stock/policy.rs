//! The part of the configuration that decides what deliveries mean.
//!
//! It is written into the journal whenever it changes, so a replay reads every delivery by the rules that held when it was
//! first folded: the fold builds its adapters from here, never from today's file. So it must hold no secret (journals are
//! backed up and shipped), and the same rules must always be the same text (a change of spelling is not a change of policy).
//!
//! ```text
//! {"v":2,
//!  "sources":{"<source>":{"kind":"shopify","settings":{..},"api":true,"warehouse":"main"|null,
//!                         "locations":{"<platform's id>|*":"<warehouse>"},
//!                         "items":{"count":100000,"parts":48,"sha256":".."}|null}},
//!  "warehouses":{"<warehouse>":{"authority":["<source>"],"low":"5"|null}}}
//! ```
//!
//! Items are named, not listed: a mapping may be megabytes, and this text is compared, kept and written often. The parts of
//! a mapping stand in the journal before the first policy that names it, and in the state for as long as the policy in force
//! names it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::{ItemMapDigest, ItemMapRef, WarehouseId, map_of};

/// The version of the text's form. A reader refuses another one: guessing a rule would change numbers silently.
const VERSION: u32 = 2;

/// The key of [`SourcePolicy::locations`] that stands for every location without a line of its own.
pub const ANY_LOCATION: &str = "*";

/// What deliveries mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of the text's form.
    pub v: u32,
    /// By source name.
    pub sources: BTreeMap<String, SourcePolicy>,
    /// By warehouse name: every warehouse that the configuration names.
    pub warehouses: BTreeMap<String, WarehousePolicy>,
}

/// Today's version, and no source.
impl Default for Policy {
    fn default() -> Self {
        Self { v: VERSION, sources: BTreeMap::new(), warehouses: BTreeMap::new() }
    }
}

/// How one source's deliveries are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePolicy {
    /// The platform: a name in the list of kinds.
    pub kind: String,
    /// The adapter's own table, as `build` takes it. Never a secret.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// True when the platform's API is configured, so that it can be asked.
    #[serde(default)]
    pub api: bool,
    /// The warehouse of facts that name no location.
    #[serde(default)]
    pub warehouse: Option<WarehouseId>,
    /// The platform's location ids, verbatim; [`ANY_LOCATION`] for those not listed.
    #[serde(default)]
    pub locations: BTreeMap<String, WarehouseId>,
    /// The platform's item ids, verbatim, and our SKUs: which mapping of them. `None`: none is mapped.
    #[serde(default)]
    pub items: Option<ItemMapRef>,
}

impl SourcePolicy {
    /// The warehouse of a location of the platform: its own line, else that of [`ANY_LOCATION`]. `None` is unmapped.
    pub fn warehouse_of(&self, location: &str) -> Option<&WarehouseId> {
        self.locations.get(location).or_else(|| self.locations.get(ANY_LOCATION))
    }
}

/// How one warehouse's levels are chosen and judged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarehousePolicy {
    /// Sources by falling authority; empty: the newest stamp decides.
    #[serde(default)]
    pub authority: Vec<String>,
    /// A level at or below this quantity (its decimal text) counts as low; `None`: nothing does.
    #[serde(default)]
    pub low: Option<String>,
}

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPolicy(String);

impl fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a policy: {}", self.0)
    }
}

impl std::error::Error for BadPolicy {}

impl Policy {
    /// The one text of this policy: compact JSON, keys sorted at every depth.
    pub fn to_canonical(&self) -> String {
        let mut value = serde_json::to_value(self).expect("maps from text to plain values are always JSON");
        // Objects are sorted already unless some dependency turns on serde_json's `preserve_order`.
        value.sort_all_objects();
        value.to_string()
    }

    /// The item mappings that it names, each once.
    pub fn item_maps(&self) -> BTreeMap<ItemMapDigest, &ItemMapRef> {
        map_of(self.sources.values().filter_map(|source| source.items.as_ref()).map(|items| (items.sha256, items)))
    }

    /// Read a policy back.
    pub fn from_json(text: &str) -> Result<Self, BadPolicy> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        let bad = |e: serde_json::Error| BadPolicy(e.to_string());
        let Versioned { v } = serde_json::from_str(text).map_err(bad)?;
        if v != VERSION {
            return Err(BadPolicy(format!("version {v} is of another release; this one reads version {VERSION}")));
        }
        serde_json::from_str(text).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn warehouse(name: &str) -> WarehouseId {
        WarehouseId::new(name).expect("a valid name")
    }

    fn sample() -> Policy {
        let Value::Object(settings) = json!({"zeta": {"b": 1, "a": [true, 2.5]}, "alpha": "x"}) else { unreachable!() };
        let shop = SourcePolicy {
            kind: "shopify".to_owned(),
            settings,
            api: true,
            warehouse: None,
            locations: BTreeMap::from([("53716844710".to_owned(), warehouse("east")), ("*".to_owned(), warehouse("main"))]),
            items: Some(ItemMapRef { count: 1, parts: 1, sha256: [0xab; 32] }),
        };
        let main = WarehousePolicy { authority: vec!["shop".to_owned()], low: Some("2.5".to_owned()) };
        Policy {
            v: VERSION,
            sources: BTreeMap::from([("shop".to_owned(), shop)]),
            warehouses: BTreeMap::from([("main".to_owned(), main), ("east".to_owned(), WarehousePolicy::default())]),
        }
    }

    #[test]
    fn the_text_is_fixed_for_ever() {
        // Journals hold this text: changing it needs a new version.
        assert_eq!(
            sample().to_canonical(),
            r#"{"sources":{"shop":{"api":true,"items":{"count":1,"parts":1,"sha256":"abababababababababababababababababababababababababababababababab"},"kind":"shopify","locations":{"*":"main","53716844710":"east"},"settings":{"alpha":"x","zeta":{"a":[true,2.5],"b":1}},"warehouse":null}},"v":2,"warehouses":{"east":{"authority":[],"low":null},"main":{"authority":["shop"],"low":"2.5"}}}"#
        );
    }

    #[test]
    fn it_reads_back_from_its_text() {
        let policy = sample();
        assert_eq!(Policy::from_json(&policy.to_canonical()), Ok(policy));
    }

    #[test]
    fn what_a_policy_leaves_out_has_one_meaning() {
        let brief = r#"{"v":2,"sources":{"shop":{"kind":"shopify"}},"warehouses":{"main":{}}}"#;
        let policy = Policy::from_json(brief).expect("a policy");
        assert_eq!(
            policy.to_canonical(),
            r#"{"sources":{"shop":{"api":false,"items":null,"kind":"shopify","locations":{},"settings":{},"warehouse":null}},"v":2,"warehouses":{"main":{"authority":[],"low":null}}}"#
        );
        assert_eq!(Policy::from_json(&Policy::default().to_canonical()), Ok(Policy::default()));
    }

    #[test]
    fn another_version_or_an_unknown_rule_is_refused() {
        let text = r#"{"v":3,"sources":{},"warehouses":{},"pools":{}}"#;
        let refused = Policy::from_json(text).expect_err("another version").to_string();
        assert_eq!(refused, "not a policy: version 3 is of another release; this one reads version 2");
        assert!(Policy::from_json(r#"{"v":2,"sources":{},"warehouses":{},"pools":{}}"#).is_err());
        assert!(
            Policy::from_json(r#"{"v":2,"sources":{"shop":{"kind":"shopify","items":{"1":"A"}}},"warehouses":{}}"#).is_err()
        );
        assert!(Policy::from_json(r#"{"v":2,"sources":{},"warehouses":{"Main Hall":1}}"#).is_err());
        assert!(Policy::from_json("").is_err());
    }

    #[test]
    fn a_location_without_a_line_falls_to_the_star() {
        let mut policy = sample().sources.remove("shop").expect("the sample's source");
        assert_eq!(policy.warehouse_of("53716844710"), Some(&warehouse("east")));
        assert_eq!(policy.warehouse_of("99"), Some(&warehouse("main")));
        policy.locations.remove(ANY_LOCATION);
        assert_eq!(policy.warehouse_of("99"), None);
    }
}
