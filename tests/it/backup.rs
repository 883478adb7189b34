//! Backup and restore: consistent under load, resumable, and refused when anything is not as it was written.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;
use stockgate::net::client::Alpn;
use stockgate::store::codec::encode_record;
use stockgate::store::journal::{Journal, Retention};
use stockgate::time::Timestamp;
use stockgate::types::{Record, RecordBody};

use crate::gateway::{ABSOLUTE, DELTA, Gateway, Site, delivery};
use crate::load::{Books, id, sku};
use crate::process::{PATIENCE, Transcript, run, stockgate, wait};

fn backup(gateway: &Gateway, to: &Path) -> Value {
    run(gateway.command(&["backup", "--json"]).arg(to), "").json()
}

fn restore(from: &Path, data: &Path) -> crate::process::Finished {
    run(stockgate().arg("restore").arg(from).arg("--data").arg(data), "")
}

fn manifest(backup: &Path) -> Value {
    serde_json::from_slice(&fs::read(backup.join("manifest.json")).expect("a manifest")).expect("JSON")
}

/// Every file below a folder, with its content.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.clone(), fs::read(path).expect("it can be read")));
            }
        }
    }
    found.sort();
    found
}

/// A few deliveries of every fate: counted, late, twice, unreadable.
async fn deliveries(gateway: &Gateway, site: &Site) {
    let mut client = gateway.connect(site, Alpn::Http1).await;
    for (id, body) in [
        ("d-1", r#"{"sku":"A-1","quantity":9,"time":"2026-11-20T10:00:00Z"}"#),
        ("d-2", r#"{"sku":"A-1","quantity":5,"time":"2026-11-20T11:00:00Z"}"#),
        ("d-3", r#"{"sku":"A-1","quantity":7,"time":"2026-11-20T09:00:00Z"}"#),
        ("d-2", r#"{"sku":"A-1","quantity":5,"time":"2026-11-20T11:00:00Z"}"#),
        ("d-4", r#"{"sku":"B-1","quantity":2.5,"time":"2026-11-20T09:00:00Z"}"#),
        ("d-5", "not json"),
    ] {
        let answer = client.send(delivery(id, body)).await.expect("an answer");
        assert_eq!(answer.status.as_u16(), 200, "{id}");
    }
    gateway.folded().await;
}

/// What a gateway says of everything, without what depends on the time of asking.
async fn told(gateway: &Gateway) -> Vec<Value> {
    let mut told = Vec::new();
    for target in ["stock", "explain/main/A-1", "explain/main/B-1", "warehouses", "dead-letters", "dead-letters/1", "verify"]
    {
        told.push(gateway.api(&format!("/api/v1/{target}")).await);
    }
    let status = gateway.api("/api/v1/status").await;
    told.extend([status["ledger"].clone(), status["fold"].clone(), status["deliveries_remembered"].clone()]);
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_gateway_tells_the_same_and_knows_what_it_had() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    deliveries(&gateway, &site).await;
    let to = site.path().join("backup");
    let report = backup(&gateway, &to);
    let before = told(&gateway).await;
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(report["journal_first"], 1);
    for (path, _) in content(&to) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }

    let other = Site::new(ABSOLUTE);
    let said = restore(&to, &other.data()).ok();
    assert!(said.contains("2 levels") && said.contains("the chain is whole"), "{said}");
    for command in ["verify", "replay"] {
        let said = run(stockgate().arg(command).arg("--data").arg(other.data()), "").ok();
        assert!(said.contains(if command == "verify" { "ok" } else { "same" }), "{command}: {said}");
    }
    let gateway = other.start();
    assert_eq!(told(&gateway).await, before);
    // a platform's retry of what is in the backup changes nothing, what comes after it is taken
    let mut client = gateway.connect(&other, Alpn::Http1).await;
    let again = delivery("d-2", r#"{"sku":"A-1","quantity":5,"time":"2026-11-20T11:00:00Z"}"#);
    assert_eq!(client.send(again).await.expect("an answer").status.as_u16(), 200);
    client.send(delivery("d-6", r#"{"sku":"A-1","quantity":4,"time":"2026-11-20T12:00:00Z"}"#)).await.expect("an answer");
    gateway.folded().await;
    assert_eq!(gateway.metric(r#"stockgate_deliveries_total{source="gen",result="duplicate"}"#).await, "1");
    assert_eq!(gateway.api("/api/v1/stock/main/A-1").await["quantity"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_holds_what_was_acknowledged_before_it_and_refuses_nobody() {
    let site = Site::new(&format!("{DELTA}\n[store]\ncheckpoint = \"100ms\"\n"));
    let books = Books::new();
    let gateway = site.start();
    let senders = books.open(&gateway, &site, 5).await;
    books.acknowledged_more(300).await;
    let acknowledged = books.acknowledged();
    let to = site.path().join("backup");
    let mut command = gateway.command(&["backup", "--json"]);
    command.arg(&to);
    tokio::task::spawn_blocking(move || run(&mut command, "").ok()).await.expect("no panic");
    books.acknowledged_more(100).await;
    books.close(senders).await;
    assert!(books.attempts().values().all(|times| *times == 1), "nobody was told to come again");
    assert_eq!(gateway.stop().0, Some(0));

    let other = Site::new(DELTA);
    restore(&to, &other.data()).ok();
    let restored: Vec<String> = other.deliveries().into_iter().map(|(label, _)| label).collect();
    let missing: Vec<u64> = acknowledged.iter().copied().filter(|n| !restored.contains(&id(*n))).collect();
    assert!(missing.is_empty(), "acknowledged before the backup began, and not in it: {missing:?}");
    // every platform sends everything again: what is there is recognised, the rest is taken
    let gateway = other.start();
    let mut client = gateway.connect(&other, Alpn::Http1).await;
    for n in books.acknowledged() {
        let body = format!(r#"{{"sku":"{}","by":1}}"#, sku(n));
        assert_eq!(client.send(delivery(&id(n), &body)).await.expect("an answer").status.as_u16(), 200);
    }
    gateway.folded().await;
    let sum: u64 = gateway.api("/api/v1/stock").await["stock"]
        .as_array()
        .expect("levels")
        .iter()
        .map(|level| level["quantity"].as_u64().expect("a count"))
        .sum();
    assert_eq!(sum, books.acknowledged().len() as u64, "each delivery counts once");
    assert!(run(&mut gateway.command(&["verify"]), "").ok().starts_with("ok"));
}

/// Passes on so many bytes of the answers, says so, and then nothing any more.
fn relay(to: SocketAddr, bytes: usize) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (said, stalled) = channel();
    thread::spawn(move || {
        let mut left = bytes;
        let mut open = Vec::new();
        for client in listener.incoming() {
            let (mut client, mut server) = (client.expect("a client"), TcpStream::connect(to).expect("the gateway"));
            let (mut requests, mut out) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            thread::spawn(move || drop(std::io::copy(&mut requests, &mut out)));
            let mut buffer = [0; 1024];
            while left > 0 {
                let room = left.min(buffer.len());
                let read = server.read(&mut buffer[..room]).unwrap_or(0);
                if read == 0 || client.write_all(&buffer[..read]).is_err() {
                    break;
                }
                left -= read;
            }
            // not closed: the client waits
            open.push((client, server));
            if left == 0 {
                // a later connection finds nobody who waits
                said.send(()).unwrap_or_default();
            }
        }
    });
    (address, stalled)
}

/// Run a backup that is killed when so many bytes of the gateway's answers have come.
fn interrupted(gateway: &Gateway, to: &Path, bytes: usize) {
    let (address, stalled) = relay(gateway.admin, bytes);
    let mut command = stockgate();
    command.arg("backup").arg(to).arg("--admin").arg(format!("http://{address}"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let said = Transcript::follow(child.stderr.take().expect("piped"));
    stalled.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it ended before: {}", said.text()));
    child.kill().expect("it can be killed");
    assert_eq!(wait(&mut child).code(), None, "{}", said.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_backup_goes_on_and_spoils_nothing_that_was_there() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let mut client = gateway.connect(&site, Alpn::Http1).await;
    let mut send = async |from: u32| {
        for n in from..from + 20 {
            // large bodies, so that the journal has many pages
            let body = format!(r#"{{"sku":"A-{n}","quantity":{n},"note":"{}"}}"#, "x".repeat(100_000));
            client.send(delivery(&format!("d-{n}"), &body)).await.expect("an answer");
        }
        gateway.folded().await;
    };
    send(0).await;
    let to = site.path().join("backup");
    for bytes in [2_000, 900_000] {
        interrupted(&gateway, &to, bytes);
        assert!(!to.join("manifest.json").exists());
        let said = restore(&to, &site.path().join("nothing")).failed(1);
        assert!(said.contains("manifest.json") && said.contains("stockgate backup"), "{said}");
    }
    let first = backup(&gateway, &to);
    let (bytes, written) = (first["bytes"].as_u64().expect("bytes"), first["written_bytes"].as_u64().expect("bytes"));
    assert!(bytes > 2_000_000 && written + 300_000 < bytes, "what was there was kept: {written} of {bytes}");
    let old = manifest(&to);

    // the next backup is interrupted, too: the one before is still whole
    send(20).await;
    for bytes in [3_000, 1_500_000] {
        interrupted(&gateway, &to, bytes);
        assert_eq!(manifest(&to), old);
        run(stockgate().args(["restore", "--check"]).arg(&to), "").ok();
    }
    restore(&to, &site.path().join("older")).ok();
    let second = backup(&gateway, &to);
    assert!(second["bytes"].as_u64().expect("bytes") > bytes + 2_000_000);
    assert!(second["written_bytes"].as_u64().expect("bytes") < 1_200_000, "only what is new is fetched: {second}");
    let third = backup(&gateway, &to);
    assert!(third["written_bytes"].as_u64().expect("bytes") < 100_000, "nothing is new: {third}");
    let said = restore(&to, &site.path().join("newer")).ok();
    assert!(said.contains("40 levels"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_not_as_it_was_written_is_refused_by_name() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    deliveries(&gateway, &site).await;
    // a stop writes everything down: every log has rows
    gateway.stop();
    let to = site.path().join("backup");
    run(stockgate().arg("backup").arg(&to).arg("--data").arg(site.data()), "").ok();
    let data = site.path().join("restored");
    let pieces = content(&to);
    assert_eq!(pieces.len(), 5, "a manifest, three logs and the tables");
    for (path, whole) in &pieces {
        let name = path.strip_prefix(&to).expect("below").display().to_string();
        for at in [0, whole.len() / 2, whole.len() - 3] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(path, &bytes).expect("it can be written");
            let said = restore(&to, &data).failed(1);
            assert!(said.contains(&name), "{name} at {at}: {said}");
        }
        fs::write(path, &whole[..whole.len() - 1]).expect("it can be written");
        if name != "manifest.json" {
            assert!(restore(&to, &data).failed(1).contains(&name), "{name} cut short");
            fs::remove_file(path).expect("it is there");
            assert!(restore(&to, &data).failed(1).contains(&name), "{name} removed");
        }
        fs::write(path, whole).expect("it can be written");
    }
    assert!(!data.exists(), "nothing was begun");
    restore(&to, &data).ok();

    let mut newer = manifest(&to);
    newer["format"] = 99.into();
    fs::write(to.join("manifest.json"), newer.to_string()).expect("it can be written");
    let said = restore(&to, &site.path().join("other")).failed(78);
    assert!(said.contains("newer stockgate"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overwritten_and_histories_are_not_mixed() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    deliveries(&gateway, &site).await;
    let to = site.path().join("backup");
    backup(&gateway, &to);
    // over a gateway at work, over a stopped one, over somebody's files
    let said = restore(&to, &site.data()).failed(1);
    assert!(said.contains("is not empty"), "{said}");
    let said = run(gateway.command(&["backup"]).arg(site.path()), "").failed(1);
    assert!(said.contains("holds no backup"), "{said}");

    // another gateway's journal does not go into this backup
    let other = Site::new(ABSOLUTE);
    let stranger = other.start();
    let mut client = stranger.connect(&other, Alpn::Http1).await;
    for n in 0..9 {
        client.send(delivery(&format!("o-{n}"), r#"{"sku":"Z","quantity":1}"#)).await.expect("an answer");
    }
    let said = run(stranger.command(&["backup"]).arg(&to), "").failed(1);
    assert!(said.contains("another gateway"), "{said}");
    restore(&to, &site.path().join("still-good")).ok();

    // with --data: asks the gateway while it runs, reads the files when it has stopped
    let from_files = site.path().join("from-files");
    let command = |gateway: &Gateway| {
        let mut command = gateway.command(&["backup", "--json"]);
        command.arg(&from_files).arg("--data").arg(site.data());
        command
    };
    let mut while_stopped = command(&gateway);
    let finished = run(&mut command(&gateway), "");
    assert!(finished.stderr.contains("asking the gateway"), "{finished:?}");
    finished.ok();
    gateway.stop();
    let report = run(&mut while_stopped, "").json();
    assert_eq!(report["cursor"], report["journal_last"]);
    restore(&from_files, &site.path().join("from-files-restored")).ok();
    // nobody answers and no data is named
    let said =
        run(stockgate().args(["backup", "--admin", "http://127.0.0.1:9"]).arg(site.path().join("none")), "").failed(69);
    assert!(said.contains("stockgate serve") && !site.path().join("none").exists(), "{said}");
}

/// As if the first raw deliveries had aged out: their segment goes, what they came to stays.
async fn age_out(site: &Site) {
    let (head, state) = site.opened();
    let journal = Journal::open(&site.data(), 1 << 20, head).expect("the journal opens");
    let (appender, thread) = journal.start_with(1, 1, |_| {}).expect("a thread");
    let record = encode_record(&Record { at: stockgate::time::now(), body: RecordBody::Policy(&state.meta.policy) });
    drop(state);
    appender.append(record).expect("room").durable().await.expect("durable");
    let what = Retention { before: Timestamp(i64::MAX), max_bytes: u64::MAX, folded: head, only_look: false };
    assert_eq!(appender.retain(what).await.last, head);
    drop(appender);
    thread.join().expect("ends");
    assert_eq!(journal.oldest(), head + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_journal_that_begins_late_is_whole_and_replays() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    deliveries(&gateway, &site).await;
    gateway.stop();
    let backed_up =
        |to: &Path| run(stockgate().args(["backup", "--json"]).arg(to).arg("--data").arg(site.data()), "").json();
    let early = site.path().join("early");
    backed_up(&early);
    age_out(&site).await;
    // a file of the backup goes when all of it has aged out
    assert_eq!(backed_up(&early)["journal_first"].as_u64(), Some(1));
    restore(&early, &site.path().join("early-restored")).ok();
    let to = site.path().join("late");
    let report = backed_up(&to);
    let numbers = ["journal_first", "journal_last", "cursor"].map(|name| report[name].as_u64().expect("a number"));
    assert_eq!(numbers, [8, 8, 7]);
    let other = Site::new(ABSOLUTE);
    restore(&to, &other.data()).ok();
    let said = run(stockgate().arg("replay").arg("--data").arg(other.data()), "").ok();
    assert!(said.contains("same: records 8 to 8"), "{said}");
    // a state that is lost after a restore is begun from what the restore left, not from nothing
    fs::remove_file(other.data().join("state.redb")).expect("it is there");
    let gateway = other.start();
    gateway.folded().await;
    assert_eq!(gateway.api("/api/v1/stock/main/A-1").await["quantity"], 5);
}

#[test]
fn a_restore_that_did_not_end_keeps_a_gateway_from_starting_and_begins_anew() {
    let site = Site::new(ABSOLUTE);
    let gateway = site.start();
    let to = site.path().join("backup");
    backup(&gateway, &to);
    gateway.stop();
    let other = Site::new(ABSOLUTE);
    fs::create_dir_all(other.data().join("restoring")).expect("it can be made");
    fs::create_dir_all(other.data().join("journal")).expect("it can be made");
    let said = other.refused().failed(1);
    assert!(said.contains("stockgate restore"), "{said}");
    restore(&to, &other.data()).ok();
    assert_eq!(other.start().stop().0, Some(0));
}
