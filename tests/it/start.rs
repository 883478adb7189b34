//! How a gateway starts, or says why not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use redb::TableDefinition;
use stockgate::net::client::Alpn;

use crate::gateway::{ABSOLUTE, Gateway, Site, delivery};
use crate::process::{run, stockgate};

/// From start to listening, on a busy machine and without optimisation; a release build takes some 50 ms.
const START_MAX: Duration = Duration::from_secs(10);

/// A program and a directory whose names a shell must be told about.
fn serve_without_configuration(site: &Site) -> Gateway {
    let program = site.path().join("the program");
    if !program.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stockgate"), &program).expect("a link");
    }
    let began = Instant::now();
    let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut command = Command::new(program);
    let gateway = Gateway::start(command.arg("serve").args(ports).arg("--data").arg(data(site)).current_dir(site.path()));
    assert!(began.elapsed() < START_MAX);
    gateway
}

fn data(site: &Site) -> PathBuf {
    site.path().join("it's data")
}

/// The commands that the first start prints: the indented lines.
fn printed_commands(gateway: &Gateway) -> Vec<String> {
    let found = gateway.out.wait_for(|text| {
        let commands: Vec<String> = text.lines().filter_map(|l| l.strip_prefix("  ")).map(str::to_owned).collect();
        (commands.len() >= 2 && text.ends_with("\n\n")).then_some(commands)
    });
    found.expect("it prints how to send a first delivery")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_prints_commands_that_work_as_pasted() {
    let site = Site::new(ABSOLUTE);
    let gateway = serve_without_configuration(&site);
    let commands = printed_commands(&gateway);
    let text = gateway.out.text();
    let fingerprint = stockgate::net::tls::fingerprint_of(
        &stockgate::net::tls::certificates(&fs::read(data(&site).join("tls-cert.pem")).unwrap()).unwrap()[0],
    );
    assert!(text.contains(&fingerprint), "the certificate's fingerprint is printed: {text}");
    let secret = fs::read_to_string(data(&site).join("generic.secret")).expect("the secret is kept");
    assert!(secret.trim().len() >= 32 && !text.contains(secret.trim()), "its place is printed, not the secret");
    for private in ["generic.secret", "tls-key.pem", ""] {
        let mode = fs::metadata(data(&site).join(private)).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{private}: {mode:o}");
    }

    let pasted = |command: &str| run(Command::new("sh").args(["-c", command]).current_dir(site.path()), "");
    let (send, look) = (&commands[0], &commands[1]);
    let said = pasted(send).ok();
    assert!(said.contains("200"), "{send}: {said}");
    gateway.folded().await;
    let shown = pasted(look).ok();
    assert!(shown.lines().any(|l| l.contains("main") && l.contains("A-1") && l.contains('5')), "{look}: {shown}");
    assert_eq!(gateway.stop().0, Some(0));

    // a second start keeps both, and the level
    let again = serve_without_configuration(&site);
    assert!(again.out.text().contains(&fingerprint));
    assert_eq!(fs::read_to_string(data(&site).join("generic.secret")).unwrap(), secret);
    assert_eq!(again.api("/api/v1/stock/main/A-1").await["quantity"], 5);
}

#[test]
fn commands_that_need_a_gateway_say_that_there_is_none() {
    // a port that was free a moment ago
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let admin = format!("http://{free}");
    for command in [
        &["stock"][..],
        &["sources"],
        &["warehouses"],
        &["explain", "A-1@main"],
        &["dead", "list"],
        &["verify"],
        &["backup", "nowhere"],
        &["reload"],
    ] {
        let said = run(stockgate().args(command).args(["--admin", &admin]), "").failed(69);
        assert!(said.contains(&admin) && said.contains("stockgate serve"), "{command:?}: {said}");
    }
    assert_eq!(run(stockgate().arg("nonsense"), "").code, Some(2));
    assert_eq!(run(stockgate().args(["explain", "no-warehouse"]), "").code, Some(2));
}

#[test]
fn one_data_directory_and_one_address_serve_one_gateway() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let said = site.refused().failed(69);
    assert!(said.contains("in use by another process"), "{said}");
    let taken = gateway.public.to_string();
    let other = Site::new(ABSOLUTE);
    let said = run(other.serve().args(["--listen", &taken]), "").failed(69);
    assert!(said.contains(&taken) && said.contains("[listen]"), "{said}");
}

/// Every database below the data directory.
fn databases(site: &Site) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![site.data()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "redb") {
                found.push(path);
            }
        }
    }
    found
}

fn set_schema(file: &PathBuf, version: u64) {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let database = redb::Database::open(file).expect("it opens");
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", version.to_be_bytes().as_slice()).unwrap();
    write.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_newer_version_are_refused_and_left_alone() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    client.send(delivery("d-1", r#"{"sku":"A-1","quantity":5}"#)).await.expect("an answer");
    drop(client);
    assert_eq!(gateway.stop().0, Some(0));
    let files = databases(&site);
    assert!(files.len() >= 2, "a state and a journal: {files:?}");
    for file in files {
        set_schema(&file, 99);
        let said = site.refused().failed(78);
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        for part in [name.as_str(), "version 99", "newer stockgate", "install that version again"] {
            assert!(said.contains(part), "`{part}` in: {said}");
        }
        // nor is one from before the first release misread
        set_schema(&file, 2);
        let said = site.refused().failed(78);
        for part in [name.as_str(), "version 2", "before the first release", "--data"] {
            assert!(said.contains(part), "`{part}` in: {said}");
        }
        set_schema(&file, stockgate::store::SCHEMA_VERSION);
    }
    let gateway = site.start();
    assert_eq!(gateway.api("/api/v1/stock/main/A-1").await["quantity"], 5);
}

#[test]
fn a_broken_configuration_is_reported_with_its_lines() {
    let site = Site::new(&format!(
        "{ABSOLUTE}\ntolerence = \"5m\"\n\n[listen2]\naddress = \"x\"\n[limits]\nbody = 7\nqueue = \"many\"\n[source.B]\nkind = \"shopyfi\"\n"
    ));
    let text = fs::read_to_string(site.config()).unwrap();
    let line_of = |start: &str| text.lines().position(|line| line.starts_with(start)).expect("it is there") + 1;
    let check = run(stockgate().arg("check").arg("--config").arg(site.config()), "");
    let said = check.failed(78);
    for start in ["tolerence", "[listen2]", "body = 7", "queue = ", "[source.B]", "kind = \"shopyfi\""] {
        let line = format!("stockgate.toml:{}:", line_of(start));
        assert!(said.lines().any(|l| l.contains(&line)), "`{start}` is reported as {line}\n{said}");
    }
    assert!(said.contains("did you mean \"shopify\""), "{said}");
    // serve says the same and binds nothing
    let said = site.refused().failed(78);
    assert!(said.contains(&format!("stockgate.toml:{}:", line_of("tolerence"))), "{said}");
    assert!(!site.data().exists(), "nothing is made for a configuration that cannot be used");

    site.configure(ABSOLUTE);
    let shown = run(stockgate().arg("check").arg("--config").arg(site.config()), "").ok();
    assert!(shown.contains("ok") && shown.contains("/in/gen") && shown.contains("main"), "{shown}");
    assert!(!shown.contains(crate::gateway::SECRET), "secrets are masked");
    assert_eq!(run(stockgate().args(["check", "--config", "/nowhere/stockgate.toml"]), "").code, Some(78));
}
