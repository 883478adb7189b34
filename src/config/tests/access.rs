//! Who may connect, as the configuration says it.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::config::{AdminTls, TlsChoice, masked};
use crate::time::{self, Timestamp};
use crate::types::{Role, TOKENS_FILE, Token, Tokens};

/// A data directory with a token that ends at a time.
fn with_token(expires: Option<Timestamp>) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let mut tokens = Tokens::default();
    tokens.add(Token::new("ops", Role::Operator, time::now(), expires, &[1; 32]).expect("a name").0).expect("room");
    fs::write(dir.path().join(TOKENS_FILE), tokens.to_json()).expect("written");
    dir
}

fn admin(lines: &str, data: &Path) -> Result<Checked, Vec<String>> {
    let text = format!("[data]\ndirectory = \"{}\"\n[admin]\n{lines}", data.display());
    parse_in(&text, data, &[]).map(|(checked, _)| checked).map_err(|report| lines_without(&report, data))
}

/// Problems without the directory's name.
fn lines_without(report: &Report, data: &Path) -> Vec<String> {
    lines(&report.problems).into_iter().map(|line| line.replace(&data.display().to_string(), "DATA")).collect()
}

const MAKE: &str =
    "make one with `stockgate token new --role operator --name NAME`, with the --config or --data of this gateway";

#[test]
fn other_machines_reach_the_admin_side_only_with_tls_and_a_token() {
    let with = with_token(None);
    let checked = admin("address = \"0.0.0.0:9780\"\ntls = true\n", with.path()).expect("is good");
    assert_eq!((checked.admin_access.tls.clone(), checked.admin_access.tokens_required), (AdminTls::Public, true));
    assert!(masked(&checked).contains("tls = true\ntokens = \"required\"\n"), "{}", masked(&checked));

    let none = tempfile::tempdir().expect("a directory");
    let refused = |lines: &str, data: &Path| admin(lines, data).expect_err("refused");
    assert_eq!(
        refused("address = \"192.0.2.7:9780\"\ntls = true\n", none.path()),
        [format!("stockgate.toml:4: admin.address: needs tokens, and there are none (DATA/{TOKENS_FILE}): {MAKE}")]
    );
    assert_eq!(
        refused("address = \"127.0.0.1:9780\"\ntokens = \"required\"\n", none.path()),
        [format!("stockgate.toml:5: admin.tokens: needs tokens, and there are none (DATA/{TOKENS_FILE}): {MAKE}")]
    );
    let expired = with_token(Some(Timestamp(0)));
    assert_eq!(
        refused("address = \"192.0.2.7:9780\"\ntls = true\n", expired.path()),
        [format!(
            "stockgate.toml:4: admin.address: needs tokens, and none of DATA/{TOKENS_FILE} can be used any more: {MAKE}"
        )]
    );
    fs::write(none.path().join(TOKENS_FILE), "{}").expect("written");
    let broken = refused("tokens = \"required\"\n", none.path());
    assert!(broken[0].contains("needs tokens, and DATA/admin-tokens.json is not a file of tokens"), "{broken:?}");
    assert_eq!(
        refused("address = \"[::]:9780\"\ntls = false\n", with.path()),
        [
            "stockgate.toml:4: admin.address: [::]:9780 can be reached from other machines, so a token would pass in the clear: \
          set admin.tls = true, or use 127.0.0.1 and a tunnel or a proxy in front"
        ]
    );
    assert_eq!(
        refused("address = \"[::]:9780\"\ntls = true\ntokens = \"optional\"\n", with.path()),
        ["stockgate.toml:6: admin.tokens: must be \"required\" (or left out): [::]:9780 can be reached from other machines"]
    );
}

#[test]
fn on_this_machine_neither_is_needed_and_both_may_be() {
    let with = with_token(None);
    let plain = admin("", with.path()).expect("is good");
    assert_eq!((plain.admin_access.tls, plain.admin_access.tokens_required), (AdminTls::Off, false));
    let both = admin("tls = true\ntokens = \"required\"\n", with.path()).expect("is good");
    assert_eq!((both.admin_access.tls, both.admin_access.tokens_required), (AdminTls::Public, true));
    let variables =
        [("STOCKGATE__ADMIN__TLS", "true"), ("STOCKGATE__LISTEN__PROXY_PROTOCOL_FROM", "10.0.0.5, 192.168.7.0/24")];
    let (from_outside, _) = parse_in("", with.path(), &variables).expect("is good");
    assert_eq!(from_outside.admin_access.tls, AdminTls::Public);
    assert!(masked(&from_outside).contains("proxy_protocol_from = [\"10.0.0.5\", \"192.168.7.0/24\"]\n"));
    let wrong = parse_in("", with.path(), &[("STOCKGATE__ADMIN__TLS", "maybe")]).expect_err("refused");
    assert_eq!(
        lines(&wrong.problems),
        ["environment variable STOCKGATE__ADMIN__TLS: admin.tls: expected true or false, found \"maybe\""]
    );
}

#[test]
fn a_certificate_of_its_own_needs_its_key_and_tls() {
    let dir = with_token(None);
    fs::write(dir.path().join("a.pem"), "-----BEGIN CERTIFICATE-----\n").expect("written");
    fs::write(dir.path().join("a.key"), "-----BEGIN PRIVATE KEY-----\n").expect("written");
    let own = admin("tls = true\ncertificate = \"a.pem\"\nkey = \"a.key\"\n", dir.path()).expect("is good");
    assert!(
        matches!(&own.admin_access.tls, AdminTls::Own(TlsChoice::Files { certificate, .. }) if certificate.ends_with("a.pem"))
    );
    assert!(masked(&own).contains("a.pem\"\nkey = "));
    let refused = |lines: &str| admin(lines, dir.path()).expect_err("refused");
    assert_eq!(
        refused("tls = true\ncertificate = \"a.pem\"\n"),
        ["stockgate.toml:3: admin.key: missing: admin.certificate needs its private key"]
    );
    assert_eq!(
        refused("tls = true\nkey = \"a.key\"\n"),
        ["stockgate.toml:3: admin.certificate: missing: admin.key needs its certificate"]
    );
    let text = "[admin]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    let (_, warned) = parse_in(text, dir.path(), &[]).expect("is good");
    assert!(
        lines(&warned).contains(&"stockgate.toml:2: admin.certificate: has no effect without admin.tls = true".to_owned())
    );
}

#[test]
fn proxies_are_addresses_or_networks() {
    assert_eq!(
        problems("[listen]\nproxy_protocol_from = [\"10.0.0.5\", \"lb.example.com\"]\n"),
        ["stockgate.toml:2: listen.proxy_protocol_from[1]: \"lb.example.com\": not an IP address or network such as \
          \"203.0.113.0/24\" or \"2001:db8::7\""]
    );
    assert_eq!(
        problems("[listen]\nproxy_protocol_from = []\n"),
        ["stockgate.toml:2: listen.proxy_protocol_from: is an empty list: leave the key out when no proxy stands in front"]
    );
}

const FEED: &str = "[source.feed]\nkind = \"unsigned\"\nwarehouse = \"main\"\n";

#[test]
fn a_client_certificate_does_instead_of_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----\n").expect("written");
    fs::write(dir.path().join("ca.crl"), "-----BEGIN X509 CRL-----\n").expect("written");
    let keys = "client_ca_file = \"ca.pem\"\nclient_crl_file = \"ca.crl\"\nclient_names = [\"wms.example\"]\n";
    let (checked, warned) = parse_in(&format!("{FEED}{keys}"), dir.path(), &[]).expect("is good");
    assert_eq!(warned, []);
    let clients = checked.sources[0].clients.clone().expect("is there");
    assert_eq!(clients.names, ["wms.example"]);
    assert_eq!(clients.crl.expect("is there").0, dir.path().join("ca.crl"));
    let shown = masked(&checked);
    assert!(
        shown.contains("ca.pem\"\nclient_crl_file = ") && shown.contains("client_names = [\"wms.example\"]\n"),
        "{shown}"
    );

    let refused = |keys: &str| {
        let report = parse_in(&format!("{FEED}token_env = \"GOOD\"\n{keys}"), dir.path(), &[]).expect_err("refused");
        lines_without(&report, dir.path())
    };
    assert_eq!(
        refused("client_ca_file = \"ca.crl\"\nclient_crl_file = \"ca.pem\"\nclient_names = []\n"),
        [
            "stockgate.toml:5: source.feed.client_ca_file: DATA/ca.crl holds no PEM with `-----BEGIN CERTIFICATE-----`",
            "stockgate.toml:6: source.feed.client_crl_file: DATA/ca.pem holds no PEM with `-----BEGIN X509 CRL-----`",
            "stockgate.toml:7: source.feed.client_names: is an empty list: leave the key out to take every certificate of the \
             authority",
        ]
    );
    assert_eq!(
        refused("client_crl_file = \"ca.crl\"\nclient_names = \"wms.example\"\n"),
        [
            "stockgate.toml:5: source.feed.client_crl_file: has no effect without client_ca_file: name the authority whose \
             certificates it is about",
            "stockgate.toml:6: source.feed.client_names: has no effect without client_ca_file: name the authority whose \
             certificates it is about",
        ]
    );
}
