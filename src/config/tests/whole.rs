//! A good configuration, read as a whole.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::{checked, environment, lines, parse_in};
use crate::config::{
    ACME_DIRECTORY, AcmeChallenge, Checked, FIXED_KEYS, Inputs, LogFormat, LogLevel, Overrides, TlsChoice, masked, parse,
    unknown_variables, variable,
};
use crate::stock::policy::Policy;
use crate::types::{Settings, WarehouseId};

const SHOP: &str = r#"
[source.shop]
kind = "signed"
secret_env = "GOOD"
locations = { 53716844710 = "east", "*" = "main" }
items = { 271878346596884015 = "SKU-1" }
topics = ["b", "a"]
map = { sku = "/sku" }
tolerance = "10m"

[source.feed]
kind = "unsigned"
warehouse = "main"
token_env = "GOOD"
allow = ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7"]

[warehouse.main]
name = "Main hall"
authority = ["shop", "feed"]
low = "2.50"
"#;

#[test]
fn a_source_is_read_to_the_last_key() {
    let checked = checked(SHOP);
    let [feed, shop] = checked.sources.as_slice() else { panic!("two sources") };
    assert_eq!((shop.id.as_str(), shop.kind.name, shop.secrets.len()), ("shop", "signed", 1));
    assert_eq!(shop.adapter.horizon(), Duration::from_secs(600), "the platform got its own settings");
    assert_eq!(shop.locations.get("53716844710").map(WarehouseId::as_str), Some("east"));
    assert_eq!(shop.items.get("271878346596884015"), Some("SKU-1"));
    assert_eq!((feed.warehouse.as_ref().map(WarehouseId::as_str), feed.allow.len()), (Some("main"), 3));
    assert!(feed.token.is_some() && feed.secrets.is_empty() && feed.api.is_none());

    let names: Vec<&str> = checked.warehouses.keys().map(WarehouseId::as_str).collect();
    assert_eq!(names, ["east", "main"], "a warehouse that a source names needs no table");
    let main = &checked.warehouses[&WarehouseId::new("main").expect("valid")];
    assert_eq!((main.name.as_str(), main.low.map(|q| q.to_string())), ("Main hall", Some("2.5".to_owned())));
}

#[test]
fn an_api_takes_what_the_platform_says_unless_told_otherwise() {
    let text = "[source.crm]\nkind = \"hosted\"\nwarehouse = \"main\"\ntoken_env = \"GOOD\"\n[source.crm.api]\ntoken_env = \"GOOD\"\n";
    let checked = checked(text);
    let api = checked.sources[0].api.as_ref().expect("configured");
    assert_eq!(
        (api.base_url.as_str(), api.requests, api.per, api.gather),
        ("https://api.example.com", 30, Duration::from_secs(60), Duration::from_secs(2))
    );
    assert_eq!(api.ca_pem, None);
    assert!(checked.policy.sources["crm"].api, "the fold may ask");
}

#[test]
fn the_policy_is_what_deliveries_mean_and_nothing_else() {
    assert_eq!(
        checked(SHOP).policy.to_canonical(),
        concat!(
            r#"{"sources":{"feed":{"api":false,"items":null,"kind":"unsigned","locations":{},"settings":{},"warehouse":"main"},"#,
            r#""shop":{"api":false,"items":{"count":1,"parts":1,"sha256":"6c553c8d1cd2f8f42a2b28fd8a187673c6f304e0fdab722ea8ec4a0cf27339bf"},"kind":"signed","locations":{"*":"main","53716844710":"east"},"#,
            r#""settings":{"map":{"sku":"/sku"},"tolerance":"10m","topics":["b","a"]},"warehouse":null}},"v":2,"#,
            r#""warehouses":{"east":{"authority":[],"low":null},"main":{"authority":["shop","feed"],"low":"2.5"}}}"#
        )
    );
}

#[test]
fn the_policy_does_not_depend_on_spelling() {
    let respelled = r#"
        [warehouse]
        main.low = "2.5"
        main.authority = ["shop", "feed"]
        [source]
        feed = { kind = "unsigned", warehouse = "main", token_env = "GOOD" }
        [source.shop]
        tolerance = "10m"
        topics = [ "b", # in the order that was written
                   "a" ]
        secret_env = ["GOOD", "GOOD"]
        kind = 'signed'
        [source.shop.map]
        sku = "/sku"
        [source.shop.items]
        "271878346596884015" = " SKU-1 "
        [source.shop.locations]
        "*" = "main"
        "53716844710" = "east"
    "#;
    assert_eq!(checked(respelled).policy.to_canonical(), checked(SHOP).policy.to_canonical());
}

#[test]
fn an_adapter_can_be_built_again_from_the_policy() {
    let checked = checked(SHOP);
    let policy = Policy::from_json(&checked.policy.to_canonical()).expect("a policy");
    assert_eq!(policy, checked.policy);
    let shop = &policy.sources["shop"];
    let kind = super::KINDS.iter().find(|k| k.name == shop.kind).expect("a known kind");
    let mut settings = Settings::new("", shop.settings.clone());
    assert_eq!((kind.build)(&mut settings).horizon(), Duration::from_secs(600));
    assert_eq!(settings.finish(), []);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let text = "[log]\nlevel = \"warn\"\nformat = \"json\"\n[limits]\nqueue = 10\n";
    let env = environment(&[
        ("STOCKGATE__LOG__LEVEL", "debug"),
        ("STOCKGATE__LISTEN__ADDRESS", "[::]:443"),
        ("STOCKGATE__LIMITS__QUEUE", " 20 "),
        ("STOCKGATE__TLS__NAMES", "a.example, 192.0.2.1"),
        ("STOCKGATE__RETENTION__BYTES", "2GiB"),
        ("STOCKGATE__STORE__CHECKPOINT", ""),
    ]);
    let overrides = Overrides::default().set("log.level", "trace", "--log-level").set("data.directory", "/srv", "--data");
    let inputs = Inputs { kinds: super::KINDS, overrides: &overrides, env: &env };
    let (checked, warned) = parse(text, "stockgate.toml", Path::new("/etc"), &inputs).expect("good");
    assert_eq!((checked.log.level, checked.log.format), (LogLevel::Trace, LogFormat::Json));
    assert_eq!(checked.listen.to_string(), "[::]:443");
    assert_eq!((checked.limits.queue_records, checked.retention.bytes), (20, 2 << 30));
    assert_eq!(checked.store.checkpoint, crate::limits::CHECKPOINT_PERIOD, "an empty variable counts as unset");
    assert_eq!(checked.data_dir, PathBuf::from("/srv"));
    assert_eq!(checked.tls, TlsChoice::SelfMade { names: vec!["a.example".to_owned(), "192.0.2.1".to_owned()] });
    assert_eq!(lines(&warned), [] as [&str; 0]);
}

#[test]
fn a_mistyped_variable_is_not_ignored_in_silence() {
    let names = ["PATH", "STOCKGATE__LISTEN__ADRESS", "STOCKGATE__LISTEN__ADDRESS", "STOCKGATE__X"];
    assert_eq!(
        lines(&unknown_variables(names.into_iter())),
        [
            "environment variable STOCKGATE__LISTEN__ADRESS: sets nothing; did you mean STOCKGATE__LISTEN__ADDRESS?",
            "environment variable STOCKGATE__X: sets nothing",
        ]
    );
    assert!(FIXED_KEYS.is_sorted_by_key(|(key, _)| *key));
    assert_eq!(variable("limits.connections_per_address"), "STOCKGATE__LIMITS__CONNECTIONS_PER_ADDRESS");
}

#[test]
fn a_smaller_total_of_connections_bounds_the_default_for_one_address() {
    assert_eq!(checked("[limits]\nconnections = 16\n").limits.connections_per_address, 16);
}

#[test]
fn an_ordered_certificate_is_for_the_public_names_and_reads_back() {
    let text = "[tls]\nnames = [\"Gate.example.com\", \"localhost\", \"::1\", \"gate.example.com\"]\n[tls.acme]\nterms_agreed = true\n";
    let (plain, warned) = parse_in(text, Path::new(""), &[]).expect("good");
    assert_eq!(lines(&warned), [] as [&str; 0]);
    let TlsChoice::Acme { names, acme } = &plain.tls else { panic!("ordered") };
    assert_eq!(names.len(), 4, "the self-made one is for all of them");
    assert_eq!((acme.names.as_slice(), acme.directory.as_str()), (&["gate.example.com".to_owned()][..], ACME_DIRECTORY));
    assert_eq!((acme.challenge, acme.contact.is_empty()), (AcmeChallenge::TlsAlpn01, true));
    reads_back(&plain);

    let env = [
        ("STOCKGATE__TLS__ACME__CHALLENGE", "http-01"),
        ("STOCKGATE__TLS__ACME__TERMS_AGREED", "true"),
        ("STOCKGATE__TLS__ACME__CONTACT", "a@example.com, mailto:b@example.com"),
        ("STOCKGATE__TLS__NAMES", "gate.example.com"),
    ];
    let (by_http, _) = parse_in("", Path::new(""), &env).expect("good");
    let TlsChoice::Acme { acme, .. } = &by_http.tls else { panic!("ordered") };
    assert_eq!(acme.challenge, AcmeChallenge::Http01 { address: "0.0.0.0:80".parse().expect("an address") });
    assert_eq!(acme.contact, ["mailto:a@example.com", "mailto:b@example.com"]);
    reads_back(&by_http);
    let env = [("STOCKGATE__TLS__ACME__TERMS_AGREED", "yes"), ("STOCKGATE__TLS__NAMES", "gate.example.com")];
    assert!(parse_in("", Path::new(""), &env).is_err(), "consent is a plain true");
}

#[test]
fn certificate_and_key_are_read_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let (cert, key) = ("-----BEGIN CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nhunter2\n");
    std::fs::write(directory.path().join("cert.pem"), cert).expect("written");
    std::fs::write(directory.path().join("key.pem"), key).expect("written");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(directory.path().join("key.pem"), open).expect("set");
    let text = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nnames = [\"x.example\"]\n";
    let (checked, warned) = parse_in(text, directory.path(), &[]).expect("good");
    let TlsChoice::Files { certificate_pem, key_pem, .. } = &checked.tls else { panic!("files") };
    assert_eq!((certificate_pem.as_ref(), key_pem.expose()), (cert.as_bytes(), key.as_bytes()));
    assert!(!format!("{checked:?}{}", masked(&checked)).contains("hunter2"));
    let shown = directory.path().display();
    assert_eq!(
        lines(&warned),
        [
            format!(
                "stockgate.toml:3: tls.key: {shown}/key.pem is open to every user of this machine: chmod o= {shown}/key.pem"
            ),
            "stockgate.toml:4: tls.names: has no effect beside tls.certificate: it names what a self-made one is for"
                .to_owned(),
        ]
    );
}

/// `masked` is TOML that says the same but for its secrets.
fn reads_back(checked: &Checked) {
    let shown = masked(checked);
    let shown = shown.replace("token = \"***\"", "token = \"0123456789abcdef\"");
    let (again, _) = parse_in(&shown, Path::new(""), &[]).unwrap_or_else(|report| panic!("{report}\n{shown}"));
    assert_eq!(again.policy, checked.policy);
    assert_eq!(again.warehouses, checked.warehouses);
    assert_eq!((again.listen, again.admin, &again.data_dir), (checked.listen, checked.admin, &checked.data_dir));
    assert_eq!((&again.limits, &again.retention, &again.store), (&checked.limits, &checked.retention, &checked.store));
    assert_eq!((&again.tls, &again.log), (&checked.tls, &checked.log));
    let networks = |c: &Checked| c.sources.iter().map(|s| s.allow.clone()).collect::<Vec<_>>();
    assert_eq!(networks(&again), networks(checked));
}

#[test]
fn what_is_shown_is_a_configuration() {
    reads_back(&checked(SHOP));
    reads_back(&Checked::default());
    reads_back(&checked(
        "[limits]\nbody = 1500\nbody_timeout = \"1500ms\"\n[data]\ndirectory = \"a \\\"b\\\" \\t\\\\ é\"\n[log]\nlevel = \"trace\"\n",
    ));
    let many: Vec<String> = (0..21).map(|i| format!("{i} = \"SKU-{i}\"")).collect();
    let shop = format!(
        "[source.s]\nkind = \"signed\"\nwarehouse = \"m\"\nsecret_env = \"GOOD\"\nitems = {{ {} }}\n",
        many.join(", ")
    );
    assert!(masked(&checked(&shop)).contains("# 21 items are mapped"));
}

#[test]
fn secrets_are_shown_by_their_place() {
    let shown = masked(&checked(SHOP));
    assert!(shown.contains("secret = [\"***\"] # from the environment variable GOOD\n"), "{shown}");
    assert!(shown.contains("token = \"***\"\n"), "{shown}");
}

proptest! {
    #[test]
    fn any_settings_are_shown_as_toml(topics in proptest::collection::vec("\\PC{0,12}", 0..4), sku in any::<String>(), name in "\\PC{1,20}") {
        let escape = |c: char| format!("\\U{:08X}", u32::from(c));
        let quote = |s: &str| format!("\"{}\"", s.chars().map(escape).collect::<Vec<_>>().concat());
        let topics: Vec<String> = topics.iter().map(|t| quote(t)).collect();
        let text = format!(
            "{SHOP}\n[source.more]\nkind = \"signed\"\nsecret_env = \"GOOD\"\nlocations.{} = \"main\"\ntopics = [{}]\nmap.sku = {}\n",
            quote(&format!("x{name}")), topics.join(", "), quote(&sku)
        );
        if let Ok((checked, _)) = parse_in(&text, Path::new(""), &[]) {
            reads_back(&checked);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}", lines in proptest::collection::vec("(\\[[a-z.]{1,12}\\]|[a-z.]{1,12} = (\"[a-z0-9]*\"|[0-9]{1,30}|\\[\\]|\\{\\}))", 0..12)) {
        drop(parse_in(&text, Path::new("/nonexistent"), &[]));
        drop(parse_in(&format!("{SHOP}{}\n{text}", lines.join("\n")), Path::new("/nonexistent"), &[]));
    }
}
