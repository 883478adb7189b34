//! The doctor on a real directory: each thing that can be made wrong here is, and found. The rest is judged in `cli::doctor`.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::gateway::{ABSOLUTE, Site};
use crate::process::{run, stockgate};

/// What one check says, and the exit code of all.
fn check(site: &Site, more: &[&str], name: &str) -> (String, String, Option<i32>) {
    let mut command = stockgate();
    command.args(["doctor", "--json", "--config"]).arg(site.config()).args(more);
    if !more.contains(&"--data") {
        command.arg("--data").arg(site.data());
    }
    let finished = run(&mut command, "");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    assert_eq!(report["ok"], finished.code == Some(0), "{report}");
    let found = report["checks"].as_array().expect("checks").iter().find(|check| check["check"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name} in {report}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    if text("status") == "fail" {
        assert_eq!(finished.code, Some(1));
    }
    assert_eq!(found["do"].is_null(), text("status") == "ok", "{found}");
    (text("status"), format!("{} {}", text("seen"), text("do")), finished.code)
}

#[track_caller]
fn says(site: &Site, more: &[&str], name: &str, status: &str, words: &str) {
    let (found, text, _) = check(site, more, name);
    assert!(found == status && text.contains(words), "{name}: {found}: {text}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// A site whose gateway ran once.
fn used() -> Site {
    let site = Site::new(ABSOLUTE);
    assert_eq!(site.start().stop().0, Some(0));
    site
}

#[test]
fn doctor_finds_a_running_gateway_well_and_leaves_nothing_behind() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let names = |site: &Site| {
        let entries = fs::read_dir(site.data()).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names(&site);
    let admin = gateway.admin.to_string();
    let admin = ["--admin", admin.as_str()];
    for (name, words) in [
        ("configuration", "sources: 1"),
        ("data directory", "mode 0700"),
        ("secrets", "2"),
        ("certificate", "self-made, valid until"),
        ("gateway", "ready"),
    ] {
        says(&site, &admin, name, "ok", words);
    }
    let (_, text, _) = check(&site, &admin, "sync");
    assert!(text.contains("4 KiB are durable after"), "{text}");
    assert_eq!(names(&site), before);
    let mut command = stockgate();
    let text = run(command.args(["doctor", "--config"]).arg(site.config()).args(admin).arg("--data").arg(site.data()), "");
    assert!(text.stdout.lines().last().expect("a line").contains(" failed"), "{text:?}");
}

#[test]
fn doctor_looks_before_there_is_anything() {
    let site = Site::new(ABSOLUTE);
    says(&site, &[], "data directory", "ok", "the first start makes it");
    says(&site, &[], "certificate", "ok", "at the first start");
    says(&site, &[], "gateway", "ok", "does not run");
    assert!(!site.data().exists());
}

#[test]
fn doctor_finds_what_is_open_to_others() {
    let site = used();
    chmod(&site.data(), 0o755);
    says(&site, &[], "data directory", "warn", "chmod 700");
    chmod(&site.data(), 0o777);
    says(&site, &[], "data directory", "fail", "chmod 700");
    chmod(&site.data(), 0o700);
    chmod(&site.path().join("gen.secret"), 0o644);
    says(&site, &[], "secrets", "fail", "gen.secret");
    chmod(&site.path().join("gen.secret"), 0o600);
    chmod(&site.data().join("tls-key.pem"), 0o640);
    says(&site, &[], "secrets", "warn", "tls-key.pem");
}

#[test]
fn doctor_finds_a_clock_that_was_set_back() {
    let site = used();
    let state = File::options().append(true).open(site.data().join("state.redb")).expect("it is there");
    state.set_modified(SystemTime::now() + Duration::from_secs(3600)).expect("it is ours");
    says(&site, &[], "clock", "fail", "state.redb");
}

#[test]
fn doctor_finds_what_a_start_has_set_aside() {
    let site = used();
    says(&site, &[], "damage", "ok", "nothing");
    site.write("data/state.redb", "not a database any more");
    assert_eq!(site.start().stop().0, Some(0), "it is rebuilt");
    says(&site, &[], "damage", "warn", "state.damaged-");
}

#[test]
fn doctor_finds_a_directory_that_is_in_memory() {
    // on every Linux, in a container or not
    says(
        &Site::new(ABSOLUTE),
        &["--data", "/dev/stockgate-doctor"],
        "file system",
        "fail",
        "put the data directory on a disk",
    );
}

/// A certificate and its key for a span of years.
fn certificate(from: i32, to: i32) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec!["box.lan".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn doctor_finds_a_certificate_that_no_platform_accepts() {
    let site = Site::new(&format!("{ABSOLUTE}\n[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n"));
    let put = |(cert, key): (String, String)| {
        site.write("c.pem", &cert);
        site.write("k.pem", &key);
    };
    put(certificate(2020, 2021));
    says(&site, &[], "certificate", "fail", "expired at 2021-01-01");
    put(certificate(2090, 2091));
    says(&site, &[], "certificate", "fail", "valid only from 2090-01-01");
    put((certificate(2020, 2090).0, certificate(2020, 2090).1));
    says(&site, &[], "certificate", "fail", "does not belong");
    put(certificate(2020, 2090));
    says(&site, &[], "certificate", "ok", "valid until 2090-01-01");
    // a self-made one for names that the configuration has got since
    let made = used();
    made.configure(&format!("{ABSOLUTE}\n[tls]\nnames = [\"localhost\", \"box.lan\"]\n"));
    says(&made, &[], "certificate", "warn", "not for box.lan");
}

#[test]
fn doctor_finds_an_address_in_use_and_a_configuration_with_mistakes() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let site = Site::new(ABSOLUTE);
    let text = fs::read_to_string(site.config()).expect("it is there");
    site.write("stockgate.toml", &text.replacen("127.0.0.1:0", &address, 1));
    says(&site, &[], "gateway", "fail", &format!("{address} is in use"));
    site.configure(&format!("{ABSOLUTE}\n[limit]\nbody = 3\n"));
    says(&site, &[], "configuration", "fail", "stockgate check");
    fs::create_dir_all(site.data().join("restoring")).expect("it can be made");
    says(&site, &[], "data directory", "fail", "stockgate restore");
}
