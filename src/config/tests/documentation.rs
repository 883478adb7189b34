//! `defaults.toml` is documentation: it must be true.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::{BUILT_IN, Checked, DEFAULTS, FIXED_KEYS, Inputs, Overrides, masked, parse};
use crate::sources::{self, Kind};

fn tree(text: &str) -> Map<String, Value> {
    let inputs = Inputs { kinds: &[], overrides: &Overrides::default(), env: &|_| None };
    let text = super::super::raw::Text { file: "defaults.toml".to_owned(), text: text.to_owned() };
    super::super::raw::read(&[text], &inputs).unwrap_or_else(|report| panic!("{report}")).0
}

/// The examples switched on: every line that begins with `#` and no blank.
fn uncommented() -> String {
    let example = |line: &&str| line.strip_prefix('#').is_some_and(|rest| !rest.is_empty() && !rest.starts_with(' '));
    let lines = DEFAULTS.lines().map(|line| if example(&line) { line.trim_start_matches('#') } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let inputs = Inputs { kinds: &[], overrides: &Overrides::default(), env: &|_| None };
    let (documented, warned) = parse(DEFAULTS, "defaults.toml", Path::new(""), &inputs).unwrap_or_else(|r| panic!("{r}"));
    assert_eq!(warned, []);
    assert_eq!(masked(&documented), masked(&Checked::default()));
    assert_eq!(format!("{documented:?}"), format!("{:?}", Checked::default()));
}

#[test]
fn every_fixed_key_is_documented_and_no_other() {
    let tree = tree(&uncommented());
    let mut documented: Vec<String> = Vec::new();
    for (section, table) in tree.iter().filter(|(section, _)| *section != "source" && *section != "warehouse") {
        for (key, value) in table.as_object().expect("a table") {
            match value {
                Value::Object(inner) => documented.extend(inner.keys().map(|inner| format!("{section}.{key}.{inner}"))),
                _ => documented.push(format!("{section}.{key}")),
            }
        }
    }
    let fixed: Vec<&str> = FIXED_KEYS.iter().map(|(key, _)| *key).collect();
    assert_eq!(documented, fixed);
}

/// The example sources by the name of their platform.
fn examples() -> BTreeMap<String, (String, Map<String, Value>)> {
    let tree = tree(&uncommented());
    let sources = tree["source"].as_object().expect("tables");
    let kinds = sources.iter().map(|(name, table)| {
        let table = table.as_object().expect("a table").clone();
        (table["kind"].as_str().expect("a text").to_owned(), (name.clone(), table))
    });
    kinds.collect()
}

#[test]
fn every_platform_has_an_example() {
    let examples = examples();
    for Kind { name, .. } in sources::KINDS {
        assert!(examples.contains_key(*name), "{name} has no example in defaults.toml");
    }
}

/// Write every file that a table of examples names.
fn provide_files(table: &Map<String, Value>, directory: &Path) {
    for (key, value) in table {
        match value {
            Value::String(file) if key.ends_with("_file") => {
                // A Standard Webhooks secret is base64; the others are any text.
                std::fs::write(directory.join(file), "c3RvY2tnYXRlIGV4YW1wbGUh").expect("written");
            }
            Value::Object(inner) => provide_files(inner, directory),
            _ => {}
        }
    }
}

/// The examples switched on, but for the lines that begin so; of a table the whole.
fn without(beginnings: &[&str]) -> String {
    let mut lines = Vec::new();
    let mut in_table = false;
    for line in uncommented().lines() {
        let left_out = beginnings.iter().any(|beginning| line.starts_with(beginning));
        if line.starts_with('[') {
            in_table = left_out;
        }
        lines.push(if left_out || in_table { "" } else { line }.to_owned());
    }
    lines.join("\n")
}

#[test]
fn every_example_is_right() {
    let directory = tempfile::tempdir().expect("a directory");
    let examples = examples();
    let unknown = examples.iter().filter(|(kind, _)| sources::kind(kind).is_none()).map(|(_, (name, _))| name);
    let unknown: Vec<&String> = unknown.collect();
    for (_, table) in examples.values() {
        provide_files(table, directory.path());
    }
    std::fs::write(directory.path().join("fullchain.pem"), "-----BEGIN CERTIFICATE-----\n").expect("written");
    std::fs::write(directory.path().join("privkey.pem"), "-----BEGIN PRIVATE KEY-----\n").expect("written");
    std::fs::write(directory.path().join("admin.pem"), "-----BEGIN CERTIFICATE-----\n").expect("written");
    std::fs::write(directory.path().join("admin-key.pem"), "-----BEGIN PRIVATE KEY-----\n").expect("written");
    std::fs::write(directory.path().join("acme-ca.pem"), "-----BEGIN CERTIFICATE-----\n").expect("written");
    let inputs = Inputs { kinds: sources::KINDS, overrides: &Overrides::default(), env: &|_| None };
    // a certificate of one's own and an ordered one exclude each other
    let (own, ordered) = (without(&["[tls.acme]"]), without(&["certificate =", "key ="]));
    let ordered = ordered.replace("names = [", "names = [\"gate.example.com\", ");
    let ordered = parse(&ordered, "defaults.toml", directory.path(), &inputs).err().map(|r| r.problems);
    let problems = parse(&own, "defaults.toml", directory.path(), &inputs).err().map(|r| r.problems);
    assert_eq!(ordered, problems, "they are right alone");
    // A platform that this build lacks is told so, and nothing else may be wrong.
    let others = problems.unwrap_or_default().into_iter();
    let others: Vec<String> = others
        .filter(|p| !unknown.iter().any(|name| p.path == format!("source.{name}.kind")))
        .map(|p| p.to_string())
        .collect();
    assert_eq!(others, [] as [&str; 0]);
}

#[test]
fn the_built_in_source_is_good_where_its_platform_is() {
    let built_in = tree(BUILT_IN);
    assert_eq!(built_in["source"]["generic"]["kind"], "generic");
    if sources::kind("generic").is_none() {
        return;
    }
    let secret = crate::types::Secret::new("0123456789abcdef0123456789abcdef");
    let overrides = Overrides::default().set("data.directory", "/srv/stock", "--data");
    let (checked, warned) =
        crate::config::built_in(&secret, &overrides, &|_| None).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(warned, []);
    assert_eq!(checked.sources[0].secrets, [secret]);
    assert_eq!(checked.data_dir, Path::new("/srv/stock"));
    let warehouses: Vec<&str> = checked.warehouses.keys().map(crate::types::WarehouseId::as_str).collect();
    assert_eq!(warehouses, ["main"]);
}
