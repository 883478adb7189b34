//! A disk that takes no more: the shell's limit on file sizes plays it, so that a real write of the real binary fails.

use std::process::Command;

use http::StatusCode;
use stockgate::net::client::Alpn;
use stockgate::store::state::Verifier;

use crate::gateway::{ABSOLUTE, Gateway, Site, delivery};

/// Room for the databases as they are made, and for some growth: in blocks of 512 bytes, as POSIX shells count. The limit is
/// a soft one, so that it can be lifted while the gateway runs.
const FILE_BLOCKS: u32 = 2400;

/// The gateway, none of whose files may grow beyond the limit. A write past it fails with EFBIG.
fn cramped(site: &Site) -> Command {
    let inner = site.serve();
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -S -f {FILE_BLOCKS}; exec \"$@\"");
    command.arg("-c").arg(script).arg("sh").arg(inner.get_program()).args(inner.get_args()).current_dir(site.path());
    command
}

/// 6,000 letters that do not shrink to nothing (splitmix64).
fn pad(n: u64) -> String {
    let letter = |at: u64| {
        let mut z = (n * 100_000 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        char::from(b'a' + (z >> 60).to_le_bytes()[0])
    };
    (0..6000).map(letter).collect()
}

fn padded(n: u32) -> String {
    format!(r#"{{"sku":"P-{n}","quantity":{n},"pad":"{}"}}"#, pad(n.into()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_stops_acknowledgement_and_nothing_else() {
    // no checkpoint while this runs: only the journal meets the limit
    let site = Site::new(&format!("{ABSOLUTE}\n[store]\ncheckpoint = \"1h\"\n"));
    let gateway = Gateway::start(&mut cramped(&site));
    let mut connection = gateway.connect(&site, Alpn::Http1).await;
    let mut taken = Vec::new();
    let refused = loop {
        let n = u32::try_from(taken.len()).unwrap() + 1;
        assert!(n < 1000, "the limit was never met");
        let answer = connection.send(delivery(&format!("d-{n}"), &padded(n))).await.expect("an answer");
        if answer.status != StatusCode::OK {
            break answer;
        }
        taken.push(format!("d-{n}"));
    };
    assert!(!taken.is_empty(), "some deliveries fit");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"), "the platform is told to come back");

    gateway
        .until("it says that it is not ready", async || {
            let ready = gateway.admin("/readyz").await;
            ready.status == StatusCode::SERVICE_UNAVAILABLE
                && String::from_utf8_lossy(&ready.body).contains("journal: failed")
        })
        .await;
    gateway.folded().await;
    let shown = gateway.api("/api/v1/stock?limit=1000").await;
    assert_eq!(shown["stock"].as_array().map(Vec::len), Some(taken.len()), "what was taken can be read");
    let failures = gateway.metric("stockgate_journal_commit_failures_total").await;
    assert!(failures.parse::<u64>().is_ok_and(|n| n > 0), "{failures}");
    gateway.kill();

    let gateway = site.start();
    let mut connection = gateway.connect(&site, Alpn::Http1).await;
    let answer = connection.send(delivery("after", &padded(7))).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "there is room again");
    gateway.folded().await;
    assert_eq!(gateway.stop().0, Some(0));
    let found: Vec<String> = site.deliveries().into_iter().map(|(id, _)| id).collect();
    for id in &taken {
        assert_eq!(found.iter().filter(|f| *f == id).count(), 1, "{id} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_written_ends_nothing_and_loses_nothing() {
    // large dead letters: the state holds them twice over, and meets the limit before the journal does
    let site = Site::new(&format!("{ABSOLUTE}\n[store]\ncheckpoint = \"100ms\"\n"));
    let gateway = Gateway::start(&mut cramped(&site));
    let mut connection = gateway.connect(&site, Alpn::Http1).await;
    let mut taken = Vec::new();
    loop {
        let n = taken.len() + 1;
        assert!(n < 2000, "the limit was never met");
        let id = format!("d-{n}");
        // genuine, and not to be understood
        let body = format!(r#"{{"sku":"P-{n}","quantity":"many","pad":"{}"}}"#, pad(n as u64));
        match connection.send(delivery(&id, &body)).await.expect("an answer").status {
            StatusCode::OK => taken.push(id),
            StatusCode::SERVICE_UNAVAILABLE => break,
            other => panic!("{other}"),
        }
    }
    gateway
        .until("a checkpoint has failed", async || {
            let failed = gateway.metric("stockgate_checkpoints_total{result=\"failed\"}").await;
            failed.parse::<u64>().is_ok_and(|n| n > 0)
        })
        .await;
    assert_eq!(gateway.admin("/livez").await.status, StatusCode::OK);
    gateway
        .until("it says that it is not ready", async || {
            gateway.admin("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
    assert_eq!(gateway.stop().0, Some(0), "a stop is a stop");

    let gateway = site.start();
    gateway.folded().await;
    let dead = gateway.api("/api/v1/status").await["dead_letters"].as_u64();
    assert!(dead >= Some(taken.len() as u64), "{dead:?} of {}: every one of them is kept", taken.len());
    gateway.until("it is ready again", async || gateway.admin("/readyz").await.status == StatusCode::OK).await;
    assert_eq!(gateway.stop().0, Some(0));
    let found: Vec<String> = site.deliveries().into_iter().map(|(id, _)| id).collect();
    for id in &taken {
        assert_eq!(found.iter().filter(|f| *f == id).count(), 1, "{id} was acknowledged");
    }
    let (_, state) = site.opened();
    assert_eq!(Verifier::all(&state).expect("it reads").problems, [] as [String; 0]);
}
