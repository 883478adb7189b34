//! Probes and the metrics page.

use std::io::Read;

use super::*;

#[tokio::test]
async fn readiness_names_what_is_wrong() {
    let world = World::new();
    let ready = world.get("/readyz").await;
    assert_eq!((ready.status, ready.text()), (200, "ok\n"));
    let all = world.get("/healthz?verbose").await;
    assert_eq!(all.text(), "journal: ok\ndisk: ok\nqueue: ok\ncertificate: ok\nfold: ok\ndraining: ok\nok\n");
    world.health.fold_alive(false);
    let answer = world.get("/readyz").await;
    assert_eq!(
        (answer.status, answer.text()),
        (
            503,
            "fold: failed: it does not run, or its state cannot be written: deliveries are kept, levels stand still\nnot ready\n"
        )
    );
    world.health.fold_alive(true);
    world.health.drain();
    assert_eq!(world.get("/readyz").await.text(), "draining: failed: the gateway is stopping\nnot ready\n");
    assert_eq!(world.get("/livez").await.text(), "ok\n");
}

#[tokio::test]
async fn a_gateway_that_has_nothing_loaded_is_not_ready() {
    let world = World::new();
    world.health.certificate_loaded(false);
    assert_eq!(world.get("/readyz").await.text(), "certificate: failed: none is loaded\nnot ready\n");
}

#[tokio::test]
async fn a_closed_journal_is_not_ready() {
    let world = World::new();
    world.api.shared.context.appender.close().await;
    while !world.writer.is_finished() {
        tokio::task::yield_now().await;
    }
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("journal: failed: "), "{}", answer.text());
}

/// The value of a series.
fn value<'a>(page: &'a str, series: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

#[tokio::test]
async fn the_metrics_follow_the_state() {
    let world = World::new();
    world.say("metered", "metered-hall", "A", count("2.5"), 1);
    world.say("metered", "metered-hall", "B", count("0"), 2);
    let answer = world.get("/metrics").await;
    assert_eq!((answer.status, answer.header(CONTENT_TYPE)), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), "no-store");
    let page = answer.text();
    for (series, expected) in [
        ("stockgate_warehouse_units{warehouse=\"metered-hall\"}", "2.5"),
        ("stockgate_warehouse_inflow_units_total{warehouse=\"metered-hall\"}", "2.5"),
        ("stockgate_warehouse_outflow_units_total{warehouse=\"metered-hall\"}", "0"),
        ("stockgate_warehouse_low_skus{warehouse=\"metered-hall\"}", "0"),
        ("stockgate_drift_positions{source=\"wms\"}", "0"),
        ("stockgate_warehouse_skus{warehouse=\"metered-hall\",state=\"out\"}", "1"),
        ("stockgate_dead_letters{cause=\"bad-sku\"}", "0"),
        ("stockgate_fetch_tasks{source=\"wms\"}", "0"),
        ("stockgate_source_last_delivery_timestamp_seconds{source=\"wms\"}", "0"),
    ] {
        assert_eq!(value(page, series), Some(expected), "{series}");
    }
    for cause in Cause::ALL {
        assert!(value(page, &format!("stockgate_dead_letters{{cause=\"{}\"}}", cause.2)).is_some());
    }
    for series in [
        "stockgate_journal_head",
        "stockgate_fold_lag_seconds",
        "stockgate_ready",
        "stockgate_ledger_sequence",
        "stockgate_clock_timestamp_seconds",
    ] {
        assert!(value(page, series).is_some(), "{series}");
    }
}

#[tokio::test]
async fn drift_is_counted_by_source_and_listed_in_pages() {
    let world = World::new();
    for (n, sku) in (0..).zip(["A", "B", "C"]) {
        world.say_under("wms", "main", sku, count("5"), 10 * n + 1, &["wms"]);
        let other = if sku == "B" { "5" } else { "4" };
        world.say_under("shop", "main", sku, count(other), 10 * n + 2, &["wms"]);
    }
    let page = world.get("/metrics").await;
    assert_eq!(value(page.text(), "stockgate_drift_positions{source=\"shop\"}"), Some("2"));
    assert_eq!(value(page.text(), "stockgate_drift_positions{source=\"wms\"}"), Some("0"));
    let mut seen = Vec::new();
    let mut target = "/api/v1/drift?limit=1".to_owned();
    loop {
        let page = world.get(&target).await.json();
        for row in page["drift"].as_array().expect("rows") {
            let number = |said: &Json| format!("{} {}", said["source"].as_str().unwrap(), said["quantity"]);
            let others = row["others"].as_array().expect("others");
            assert_eq!(others.len(), 1);
            seen.push(format!("{}: {}, {}", row["sku"].as_str().unwrap(), number(&row["counts"]), number(&others[0])));
        }
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/api/v1/drift?limit=1&after={next}");
    }
    assert_eq!(seen, ["A: wms 5, shop 4", "C: wms 5, shop 4"]);
    assert_eq!(world.get("/api/v1/drift?after=?").await.status, 400);
}

#[tokio::test]
async fn every_metric_on_the_page_has_help_and_a_type_and_appears_once() {
    let world = World::new();
    world.say("shop", "main", "A", count("2"), 1);
    let answer = world.get("/metrics").await;
    let mut helped = Vec::new();
    let mut seen = Vec::new();
    for line in answer.text().lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let series = line.rsplit_once(' ').unwrap().0;
            let name = series.split('{').next().unwrap();
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).filter(|f| helped.contains(f));
            assert!(helped.contains(&family.unwrap_or(name)), "{line}");
            seen.push(series);
        }
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "a series appears twice");
    assert!(seen.contains(&"process_start_time_seconds"));
}

#[tokio::test]
async fn the_page_is_packed_for_those_who_take_it() {
    let world = World::new();
    let packed = world.ask(Method::GET, "/metrics", &[("accept-encoding", "gzip")], "").await;
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "accept-encoding"));
    let mut page = String::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_string(&mut page).expect("gzip");
    assert!(page.contains("\nstockgate_ready "));
    assert_eq!(world.get("/metrics").await.header("content-encoding"), "");
}
