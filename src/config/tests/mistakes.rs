//! One test for each sort of mistake: the whole message, with its line.

use super::{environment, lines, parse_in, problems, warnings};
use crate::config::{Inputs, Overrides, load, parse};
use std::fmt::Write as _;
use std::path::Path;

/// A good source; tests add the line that is wrong.
const SHOP: &str = "[source.shop]\nkind = \"signed\"\nwarehouse = \"main\"\nsecret_env = \"GOOD\"\n";
const FEED: &str = "[source.feed]\nkind = \"unsigned\"\nwarehouse = \"main\"\n";

#[test]
fn an_unknown_key_is_told_with_what_was_meant_wherever_it_stands() {
    let text =
        format!("{SHOP}tolerence = \"5m\"\nwarehous = \"main\"\nmap = {{ skus = \"/a\" }}\nzzz = 1\n\n[limit]\nbody = 1\n");
    assert_eq!(
        problems(&text),
        [
            "stockgate.toml:5: source.shop.tolerence: unknown key `tolerence`; did you mean `tolerance`?",
            "stockgate.toml:6: source.shop.warehous: unknown key `warehous`; did you mean `warehouse`?",
            "stockgate.toml:7: source.shop.map.skus: unknown key `skus`; did you mean `sku`?",
            "stockgate.toml:8: source.shop.zzz: unknown key `zzz`",
            "stockgate.toml:10: limit: unknown key `limit`; did you mean `limits`?",
        ]
    );
}

#[test]
fn every_syntax_error_is_told_and_nothing_else() {
    assert_eq!(
        problems("[listen]\naddress = 0.0.0.0:8443\n\n[admin]\nport = = 1\n[listen]\n"),
        [
            "stockgate.toml:2: not valid TOML: invalid float",
            "stockgate.toml:5: not valid TOML: extra `=`",
            "stockgate.toml:6: not valid TOML: duplicate key",
        ]
    );
}

#[test]
fn a_wrong_type_says_what_was_expected_and_what_was_found() {
    assert_eq!(
        problems(
            "listen = 1\n[limits]\nconnections = \"many\"\nbody = \"1 MB of it\"\nqueue = 0\n[source]\nshop = 3\n[warehouse]\nmain = []\n"
        ),
        [
            "stockgate.toml:1: listen: expected a table, found the number 1",
            "stockgate.toml:3: limits.connections: expected a whole number, found \"many\"",
            "stockgate.toml:4: limits.body: expected a size such as \"64KiB\", \"1MiB\" or \"2GiB\", found \"1 MB of it\"",
            "stockgate.toml:5: limits.queue: 0 is out of range: 1 to 1000000",
            "stockgate.toml:7: source.shop: expected a table: [source.<name>]",
            "stockgate.toml:9: warehouse.main: expected a table, found a list",
        ]
    );
}

#[test]
fn a_number_that_cannot_be_held_is_told_once() {
    assert_eq!(
        problems(&format!("{SHOP}items = {{ 7 = 99999999999999999999 }}\ntopics = [\"a\", nan]\n")),
        [
            "stockgate.toml:5: source.shop.items: expected a table of texts, found a table",
            "stockgate.toml:5: source.shop.items.7: the number is out of range: an id this long needs quotes",
            "stockgate.toml:6: source.shop.topics: expected a list of texts in quotes, found a list",
            "stockgate.toml:6: source.shop.topics[1]: the number is out of range",
        ]
    );
}

#[test]
fn addresses_must_be_addresses_and_the_admin_side_stays_at_home() {
    assert_eq!(
        problems("[listen]\naddress = \"localhost:8443\"\n[admin]\naddress = \"0.0.0.0:9780\"\n"),
        [
            "stockgate.toml:2: listen.address: \"localhost:8443\" is not an address and port such as \"0.0.0.0:8443\"",
            "stockgate.toml:4: admin.address: 0.0.0.0:9780 can be reached from other machines: that needs TLS and tokens, which \
             this version does not have; use 127.0.0.1 and a tunnel or a proxy in front",
        ]
    );
    assert_eq!(
        problems("[admin]\naddress = \"127.0.0.1:8443\"\n"),
        ["stockgate.toml:2: admin.address: 127.0.0.1:8443 is taken by listen.address (0.0.0.0:8443): use another port"]
    );
    assert_eq!(warnings("[admin]\naddress = \"[::1]:9780\"\n"), [] as [&str; 0]);
}

#[test]
fn limits_have_bounds_and_must_fit_together() {
    assert_eq!(
        problems(
            "[limits]\nbody = \"32MiB\"\nconnections = 10\nconnections_per_address = 11\nidle_timeout = \"1ms\"\n[retention]\nage = \"5m\"\n"
        ),
        [
            "stockgate.toml:2: limits.body: one body of 32MiB does not fit in the 16MiB of limits.bodies: raise that too",
            "stockgate.toml:4: limits.connections_per_address: 11 is more than limits.connections (10)",
            "stockgate.toml:5: limits.idle_timeout: 1ms is out of range: 100ms to 10m",
            "stockgate.toml:7: retention.age: 5m is out of range: 1h to 3650d",
        ]
    );
    assert_eq!(problems("[limits]\nbody = 1023\n"), ["stockgate.toml:2: limits.body: 1023B is out of range: 1KiB to 64MiB"]);
}

#[test]
fn a_word_of_a_closed_set() {
    assert_eq!(
        problems("[log]\nlevel = \"inf\"\nformat = \"xml\"\n"),
        [
            "stockgate.toml:2: log.level: \"inf\" is not one of error, warn, info, debug, trace; did you mean \"info\"?",
            "stockgate.toml:3: log.format: \"xml\" is not one of auto, text, json, journald",
        ]
    );
}

#[test]
fn a_certificate_needs_its_key_and_both_must_be_there() {
    assert_eq!(
        problems("[tls]\ncertificate = \"a.pem\"\n"),
        ["stockgate.toml:1: tls.key: missing: tls.certificate needs its private key"]
    );
    assert_eq!(
        problems("[tls]\nkey = \"a.pem\"\n"),
        ["stockgate.toml:1: tls.certificate: missing: tls.key needs its certificate"]
    );
    assert_eq!(
        problems("[tls]\ncertificate = \"a.pem\"\nkey = \"b.pem\"\n"),
        [
            "stockgate.toml:2: tls.certificate: /nonexistent/a.pem cannot be read: no such file",
            "stockgate.toml:3: tls.key: /nonexistent/b.pem cannot be read: no such file",
        ]
    );
    assert_eq!(
        problems("[tls]\nnames = [\n  \"gateway.example\",\n  \"https://gateway.example\",\n]\n"),
        ["stockgate.toml:4: tls.names[1]: \"https://gateway.example\" is neither a host name nor an IP address"]
    );
}

#[test]
fn a_certificate_and_a_key_are_looked_into() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
    write("cert.pem", "-----BEGIN CERTIFICATE-----\n");
    write("sealed.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let text = "[tls]\ncertificate = \"sealed.pem\"\nkey = \"cert.pem\"\n";
    let shown = directory.path().display();
    assert_eq!(
        lines(&parse_in(text, directory.path(), &[]).expect_err("swapped").problems),
        [
            format!("stockgate.toml:2: tls.certificate: {shown}/sealed.pem holds no PEM with `-----BEGIN CERTIFICATE-----`"),
            format!("stockgate.toml:3: tls.key: {shown}/cert.pem holds no PEM with `PRIVATE KEY-----`"),
        ]
    );
    let text = "[tls]\ncertificate = \"cert.pem\"\nkey = \"sealed.pem\"\n";
    let sealed = lines(&parse_in(text, directory.path(), &[]).expect_err("sealed").problems);
    let why = "is encrypted: a gateway that starts by itself cannot ask for its password";
    assert_eq!(sealed, [format!("stockgate.toml:3: tls.key: {shown}/sealed.pem {why}")]);
}

#[test]
fn a_source_needs_a_name_and_a_platform() {
    assert_eq!(
        problems("[source.\"My Shop\"]\nkind = \"sined\"\nwarehouse = \"main\"\n[source.other]\nwarehouse = \"main\"\n"),
        [
            "stockgate.toml:1: source.My Shop: `My Shop` cannot be a source name: use lower-case letters, digits, `-` and `_`",
            "stockgate.toml:2: source.My Shop.kind: \"sined\" is not one of asking, hosted, signed, unsigned; did you mean \"signed\"?",
            "stockgate.toml:4: source.other.kind: missing: name the platform, one of asking, hosted, signed, unsigned",
        ]
    );
}

#[test]
fn a_source_says_where_its_stock_lies() {
    assert_eq!(
        problems("\n[source.shop]\nkind = \"signed\"\nsecret_env = \"GOOD\"\n"),
        [
            "stockgate.toml:2: source.shop: does not say where its stock lies: set warehouse = \"main\" when it is all in one \
          place, or map the platform's locations with locations = { \"<id>\" = \"main\" }"
        ]
    );
    assert_eq!(
        problems("[source.shop]\nkind = \"signed\"\nsecret_env = \"GOOD\"\nlocations = {}\n"),
        ["stockgate.toml:4: source.shop.locations: maps nothing: name a location, or set warehouse = \"main\""]
    );
    assert_eq!(
        problems(
            "[source.shop]\nkind = \"signed\"\nsecret_env = \"GOOD\"\nwarehouse = \"Main\"\n[source.shop.locations]\n53716844710 = \"East Hall\"\n\"\" = \"main\"\n"
        ),
        [
            "stockgate.toml:4: source.shop.warehouse: `Main` cannot be a warehouse name: use lower-case letters, digits, `-` and `_`",
            "stockgate.toml:6: source.shop.locations.53716844710: `East Hall` cannot be a warehouse name: use lower-case letters, digits, `-` and `_`",
            "stockgate.toml:7: source.shop.locations.: the platform's id is empty",
        ]
    );
}

#[test]
fn what_a_source_is_trusted_by_must_be_there() {
    assert_eq!(
        problems("[source.shop]\nkind = \"signed\"\nwarehouse = \"main\"\ntoken_env = \"GOOD\"\n"),
        [
            "stockgate.toml:1: source.shop: signed signs what it sends, and there is no secret to check it with: set secret_file \
          (a file that holds the secret) or secret_env"
        ]
    );
    assert_eq!(
        problems(FEED),
        [
            "stockgate.toml:1: source.feed: unsigned does not sign what it sends: set token_file (a file that holds a secret path \
          of at least 16 characters) or allow (the addresses it sends from)"
        ]
    );
    assert_eq!(
        warnings(&format!("{FEED}allow = \"203.0.113.0/24\"\nsecret_env = \"GOOD\"\n")),
        [
            "stockgate.toml:1: source.feed: unsigned does not sign what it sends: set token_file too, an address alone can be \
             shared or forged",
            "stockgate.toml:1: source.feed: has a secret, but unsigned does not sign what it sends: it is not used",
        ]
    );
    assert_eq!(warnings(&format!("{FEED}token_env = \"GOOD\"\n")), [] as [&str; 0]);
}

#[test]
fn an_address_list_holds_addresses() {
    assert_eq!(
        problems(&format!(
            "{FEED}allow = [\n  \"203.0.113.0/24\",\n  \"shop.example.com\",\n  \"203.0.113.9/24\",\n]\n[source.feed2]\nkind = \"unsigned\"\nwarehouse = \"main\"\nallow = []\n"
        )),
        [
            "stockgate.toml:6: source.feed.allow[1]: \"shop.example.com\": not an IP address or network such as \
             \"203.0.113.0/24\" or \"2001:db8::7\"",
            "stockgate.toml:7: source.feed.allow[2]: \"203.0.113.9/24\": has bits set past its prefix; did you mean \"203.0.113.0/24\"?",
            "stockgate.toml:9: source.feed2: unsigned does not sign what it sends: set token_file (a file that holds a secret \
             path of at least 16 characters) or allow (the addresses it sends from)",
            "stockgate.toml:12: source.feed2.allow: is an empty list: nobody could deliver; leave the key out to allow every address",
        ]
    );
}

#[test]
fn an_item_is_one_sku() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("map.csv"), "item,sku\n1,A\n2,B\n").expect("written");
    std::fs::write(directory.path().join("bad.csv"), "1,A\n\n1,B\n2\n").expect("written");
    let text = format!("{SHOP}items_file = \"map.csv\"\n[source.shop.items]\n1 = \"A\"\n2 = \"C\"\n3 = \"\"\n");
    assert_eq!(
        lines(&parse_in(&text, directory.path(), &[]).expect_err("two SKUs").problems),
        [
            "stockgate.toml:8: source.shop.items.2: is `C` here and `B` in items_file: keep one",
            "stockgate.toml:9: source.shop.items.3: `` cannot be a SKU: it is empty",
        ]
    );
    let text = format!("{SHOP}items_file = \"bad.csv\"\n");
    let shown = directory.path().display();
    assert_eq!(
        lines(&parse_in(&text, directory.path(), &[]).expect_err("bad lines").problems),
        [
            format!("{shown}/bad.csv:3: item `1` is `A` already and cannot be `B` too"),
            format!("{shown}/bad.csv:4: expected two columns, the platform's item id and the SKU, found 1"),
        ]
    );
    assert_eq!(
        problems(&format!("{SHOP}items_file = \"map.csv\"\n")),
        ["stockgate.toml:5: source.shop.items_file: /nonexistent/map.csv cannot be read: no such file"]
    );
}

#[test]
fn an_api_needs_a_host_and_its_credentials() {
    let shop = "[source.shop]\nkind = \"asking\"\nwarehouse = \"main\"\nsecret_env = \"GOOD\"\n[source.shop.api]\n";
    assert_eq!(
        problems(&format!("{shop}token_evn = \"GOOD\"\nper = \"25h\"\ngather = \"11m\"\nrequests = 0\n")),
        [
            "stockgate.toml:5: source.shop.api.app_id: missing: set app_id_file (a file that holds it) or app_id_env",
            "stockgate.toml:5: source.shop.api.base_url: missing: asking has no address of its own for all; write it as \
             \"https://...\"",
            "stockgate.toml:5: source.shop.api.token: missing: set token_file (a file that holds it) or token_env",
            "stockgate.toml:6: source.shop.api.token_evn: unknown key `token_evn`; did you mean `token_env`?",
            "stockgate.toml:7: source.shop.api.per: 25h is out of range: 100ms to 1d",
            "stockgate.toml:8: source.shop.api.gather: 11m is out of range: 0ms to 10m",
            "stockgate.toml:9: source.shop.api.requests: 0 is out of range: 1 to 1000000",
        ]
    );
    assert_eq!(
        problems(&format!(
            "{shop}token_env = \"GOOD\"\napp_id_env = \"GOOD\"\nbase_url = \"https://me:hunter2@shop.example.com\"\nca_file = \"ca.pem\"\n"
        )),
        [
            "stockgate.toml:8: source.shop.api.base_url: holds a user or a password: credentials have keys of their own",
            "stockgate.toml:9: source.shop.api.ca_file: /nonexistent/ca.pem cannot be read: no such file",
        ]
    );
    assert_eq!(
        problems(&format!("{SHOP}api = {{ token_env = \"GOOD\" }}\n")),
        ["stockgate.toml:5: source.shop.api: signed has no API that stockgate asks: remove this table"]
    );
    assert_eq!(
        warnings("[source.shop]\nkind = \"asking\"\nwarehouse = \"main\"\nsecret_env = \"GOOD\"\n"),
        [
            "stockgate.toml:1: source.shop.api: no API is configured: what only asking's API can tell (SKUs of unmapped items, \
          what thin notifications are about) becomes dead letters"
        ]
    );
}

#[test]
fn a_warehouse_names_sources_that_exist() {
    assert_eq!(
        problems(&format!(
            "{SHOP}[warehouse.main]\nauthority = [\"shop\", \"shopp\", \"shop\"]\nlow = -1\nname = \"\"\ncolour = 1\n\
             [warehouse.\"Main Hall\"]\nlow = 2.5\n[warehouse.far]\nlow = \"five\"\n"
        )),
        [
            "stockgate.toml:6: warehouse.main.authority: names `shop` twice",
            "stockgate.toml:6: warehouse.main.authority[1]: there is no source `shopp`; did you mean `shop`?",
            "stockgate.toml:7: warehouse.main.low: is negative: no level would ever count as low",
            "stockgate.toml:8: warehouse.main.name: must be 1 to 255 bytes without control characters",
            "stockgate.toml:9: warehouse.main.colour: unknown key `colour`",
            "stockgate.toml:10: warehouse.Main Hall: `Main Hall` cannot be a warehouse name: use lower-case letters, digits, \
             `-` and `_`",
            "stockgate.toml:11: warehouse.Main Hall.low: expected a quantity in quotes, such as \"5\" or \"2.5\"",
            "stockgate.toml:13: warehouse.far.low: \"five\" is not a decimal number",
        ]
    );
    assert_eq!(
        warnings(&format!("{SHOP}[warehouse.far]\n")),
        ["stockgate.toml:5: warehouse.far: no source names this warehouse"]
    );
}

#[test]
fn retention_below_the_retries_of_a_platform_is_warned_about() {
    assert_eq!(
        warnings(&format!("[retention]\nage = \"47h\"\n{SHOP}")),
        [
            "stockgate.toml:2: retention.age: 47h is shorter than the 2d in which the platform of `shop` may repeat a delivery: \
          the first one may be gone by then"
        ]
    );
    assert_eq!(warnings(&format!("[retention]\nage = \"48h\"\n{SHOP}")), [] as [&str; 0]);
}

#[test]
fn there_is_a_most_of_sources_and_warehouses() {
    let mut text = String::new();
    for i in 0..257 {
        write!(text, "[source.s{i}]\nkind = \"signed\"\nsecret_env = \"GOOD\"\nlocations = {{ ").expect("written");
        let locations: Vec<String> = (0..4).map(|j| format!("{j} = \"w{i}-{j}\"")).collect();
        writeln!(text, "{} }}", locations.join(", ")).expect("written");
    }
    assert_eq!(
        problems(&text),
        [
            "stockgate.toml: warehouse: 1028 warehouses are more than the 1024 that one gateway takes",
            "stockgate.toml:1: source: 257 sources are more than the 256 that one gateway takes",
        ]
    );
}

#[test]
fn a_mistake_from_outside_the_file_names_its_variable_or_its_flag() {
    let env = environment(&[("STOCKGATE__LIMITS__CONNECTIONS", "many"), ("STOCKGATE__LOG__LEVEL", "loud")]);
    let overrides = Overrides::default().set("log.level", "quiet", "--log-level").set("source.shop.kind", "x", "--kind");
    let inputs = Inputs { kinds: super::KINDS, overrides: &overrides, env: &env };
    let report = parse("[log]\nlevel = \"info\"\n", "stockgate.toml", Path::new(""), &inputs).expect_err("mistakes");
    assert_eq!(
        lines(&report.problems),
        [
            "stockgate.toml: source.shop.kind: cannot be set from outside the file",
            "--log-level: log.level: \"quiet\" is not one of error, warn, info, debug, trace",
            "environment variable STOCKGATE__LIMITS__CONNECTIONS: limits.connections: expected a whole number, found \"many\"",
        ]
    );
}

#[test]
fn acme_needs_consent_a_public_name_and_good_addresses() {
    let consent = "must be true: read the terms of service that the server's directory names (Let's Encrypt: \
                   https://letsencrypt.org/repository/) and agree to them, or remove [tls.acme]";
    for terms in ["", "terms_agreed = false\n"] {
        let text = format!("[tls]\nnames = [\"gate.example.com\"]\n[tls.acme]\n{terms}");
        let line = if terms.is_empty() { 3 } else { 4 };
        assert_eq!(problems(&text), [format!("stockgate.toml:{line}: tls.acme.terms_agreed: {consent}")]);
    }
    let complaints = problems(
        "[tls]\nnames = [\"localhost\", \"192.0.2.7\"]\n[tls.acme]\nterms_agreed = true\ndirectory = \"http://acme.example\"\n\
         contact = [\"nobody\"]\nhttp_address = \"0.0.0.0:80\"\nchalenge = \"dns-01\"\n",
    );
    assert_eq!(
        complaints,
        [
            "stockgate.toml:2: tls.names: [tls.acme] needs the host name under which platforms reach this machine, such as \
             \"gate.example.com\": no public certificate is for localhost or for an address",
            "stockgate.toml:5: tls.acme.directory: must start with https:// (http is allowed to this machine only)",
            "stockgate.toml:6: tls.acme.contact[0]: \"nobody\" is not a mail address such as \"admin@example.com\"",
            "stockgate.toml:7: tls.acme.http_address: has no effect without challenge = \"http-01\": remove it, or set that",
            "stockgate.toml:8: tls.acme.chalenge: unknown key `chalenge`; did you mean `challenge`?",
        ]
    );
    let wild = problems("[tls]\nnames = [\"a.example\", \"*.b.example\"]\n[tls.acme]\nterms_agreed = true\n");
    let why = "a wildcard is proven through DNS only, which this version does not do: name each host";
    assert_eq!(wild, [format!("stockgate.toml:2: tls.names[1]: {why}")]);
    let beside = problems("[tls]\ncertificate = \"a\"\nkey = \"b\"\n[tls.acme]\nterms_agreed = true\n");
    let why = "stands beside tls.certificate: either order the certificate, or bring your own";
    assert!(beside.contains(&format!("stockgate.toml:4: tls.acme: {why}")), "{beside:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("stockgate.toml");
    let complaint = || load(Some(&path), &Overrides::default(), &|_| None).expect_err("unusable").to_string();
    let shown = path.display();
    assert_eq!(complaint(), format!("{shown}: cannot be read: no such file"));
    std::fs::write(&path, b"[listen]\n# \xff\n").expect("written");
    assert_eq!(complaint(), format!("{shown}:2: not UTF-8 text"));
    std::fs::write(&path, "# ".repeat(300_000)).expect("written");
    assert_eq!(
        complaint(),
        format!("{shown}: cannot be read: it is larger than 512KiB: mappings of many items belong in an items_file")
    );
}

#[test]
fn a_file_without_a_source_is_warned_about() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("stockgate.toml");
    std::fs::write(&path, "").expect("written");
    let (_, warned) = load(Some(&path), &Overrides::default(), &|_| None).expect("good");
    assert_eq!(lines(&warned), [format!("{}: no source is configured: nothing can be delivered", path.display())]);
    let (_, warned) = load(None, &Overrides::default(), &|_| None).expect("good");
    assert_eq!(lines(&warned), [] as [&str; 0], "without a file the gateway brings a source of its own");
}
