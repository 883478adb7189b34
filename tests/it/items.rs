//! A mapping file: read at the start and at a reload, kept in the journal, in force for as long as the configuration names it.

use std::fs;

use http::StatusCode;
use stockgate::net::client::Alpn;
use stockgate::stock::policy::Policy;
use stockgate::store::codec::{decode_record, encode_record};
use stockgate::store::journal::Journal;
use stockgate::types::{Record, RecordBody};

use crate::gateway::{Gateway, Site, delivery};
use crate::process::{run, stockgate};

/// `gen` names items, not SKUs.
const MAPPED: &str = r#"map = { item = "/item", quantity = "/quantity" }
items_file = "items.csv"
"#;
/// So many that they are more than one part.
const ITEMS: usize = 5_000;

/// A mapping of [`ITEMS`], newest first as platforms export them.
fn mapping(prefix: &str) -> String {
    let rows: Vec<String> = (0..ITEMS).rev().map(|n| format!("2718{n:08};{prefix}-{n}\n")).collect();
    format!("item;sku\n{}", rows.concat())
}

/// Deliver a quantity of an item and wait for the level of a SKU.
async fn arrives(gateway: &Gateway, site: &Site, quantity: i64, item: usize, sku: &str) {
    let body = format!(r#"{{"item":"2718{item:08}","quantity":{quantity}}}"#);
    let mut connection = gateway.connect(site, Alpn::Http1).await;
    let answer = connection.send(delivery(&format!("d-{quantity}"), &body)).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK);
    gateway.folded().await;
    let level = gateway.api(&format!("/api/v1/stock/main/{sku}")).await;
    assert_eq!(level["quantity"], quantity, "{sku}: {level}");
}

/// Records of the journal that are parts of mappings, and that are policies. The gateway must be stopped.
fn parts_and_policies(site: &Site) -> (usize, usize) {
    let journal = Journal::open(&site.data(), 1 << 20, 0).expect("the journal opens");
    let records = journal.read(1, 1000, 64 << 20).expect("the journal reads");
    let count = |is: fn(&RecordBody<'_>) -> bool| {
        records.iter().filter(|(_, bytes)| is(&decode_record(bytes).expect("a record").body)).count()
    };
    (count(|body| matches!(body, RecordBody::Items(_))), count(|body| matches!(body, RecordBody::Policy(_))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_file_is_in_force_after_a_start_a_reload_and_a_restart() {
    let site = Site::new(MAPPED);
    site.write("items.csv", &mapping("SKU"));
    let gateway = site.start();
    arrives(&gateway, &site, 1, 0, "SKU-0").await;
    arrives(&gateway, &site, 2, ITEMS - 1, "SKU-4999").await;

    // the same mapping in another order is no change
    let mut rows: Vec<String> = mapping("SKU").lines().map(str::to_owned).collect();
    rows[1..].sort();
    site.write("items.csv", &rows.join("\r\n"));
    let head = gateway.api("/api/v1/status").await["journal"]["head"].clone();
    run(&mut gateway.command(&["reload"]), "").ok();
    assert_eq!(gateway.api("/api/v1/status").await["journal"]["head"], head);

    site.write("items.csv", &mapping("ART"));
    run(&mut gateway.command(&["reload"]), "").ok();
    arrives(&gateway, &site, 3, 0, "ART-0").await;

    site.write("items.csv", "item,sku\n1,A\n1,B\n");
    let refused = run(&mut gateway.command(&["reload"]), "");
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("items.csv:3: item `1` is `A` already and cannot be `B` too"), "{}", refused.stderr);
    arrives(&gateway, &site, 4, 1, "ART-1").await;
    assert_eq!(gateway.stop().0, Some(0));

    site.write("items.csv", &mapping("ART"));
    let gateway = site.start();
    arrives(&gateway, &site, 5, 2, "ART-2").await;
    assert_eq!(gateway.stop().0, Some(0));
    let (parts, policies) = parts_and_policies(&site);
    assert!(parts >= 4, "{parts} parts of two mappings");
    assert_eq!(policies, 2, "one for each mapping, none for what changed nothing");

    // a change of the rest does not write the items again
    let text = fs::read_to_string(site.config()).expect("the configuration");
    site.write("stockgate.toml", &format!("{text}[warehouse.main]\nlow = \"3\"\n"));
    assert_eq!(site.start().stop().0, Some(0));
    assert_eq!(parts_and_policies(&site), (parts, 3));
    for command in ["verify", "replay"] {
        run(stockgate().arg(command).arg("--data").arg(site.data()), "").ok();
    }
}

/// After a crash the state lags behind the journal, where another policy may stand: a start that looks only at the state would
/// take the configuration for the policy in force, and then fold the other one.
#[test]
fn a_policy_that_is_not_folded_yet_does_not_outlive_a_start() {
    let site = Site::new(MAPPED);
    site.write("items.csv", &mapping("SKU"));
    assert_eq!(site.start().stop().0, Some(0));
    let configured = {
        let (_, state) = site.opened();
        state.meta.policy.clone()
    };
    let mut other = Policy::from_json(&configured).expect("a policy");
    other.sources.get_mut("gen").expect("there").items = None;
    assert_ne!(other.to_canonical(), configured);
    {
        let journal = Journal::open(&site.data(), 1 << 20, 0).expect("the journal opens");
        let (appender, writer) = journal.start(8, |_| {}).expect("starts");
        let body = RecordBody::Policy(&other.to_canonical());
        let record = encode_record(&Record { at: stockgate::time::now(), body });
        appender.append(record).expect("room").durable_blocking().expect("durable");
        drop(appender);
        writer.join().expect("ends");
        journal.close();
    }
    assert_eq!(site.start().stop().0, Some(0));
    let (head, state) = site.opened();
    assert_eq!((state.meta.cursor, state.meta.policy.as_str()), (head, configured.as_str()));
    let maps = Policy::from_json(&configured).expect("a policy");
    for map in maps.item_maps().values() {
        assert!(state.has_item_map(map).expect("reads"), "its items went with the other policy and came back with it");
    }
}
