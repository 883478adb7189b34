//! What is shipped for Prometheus and Grafana: whole, consistent, and about metrics that there are. That it works with the real
//! Prometheus is shown by tests/system/prometheus.sh and prometheus_rules.sh.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use stockgate::limits::{SERIES_PER_SOURCE_MAX, SERIES_PER_WAREHOUSE_MAX, SERIES_REST_MAX};
use stockgate::metrics::FACT_OUTCOMES;
use stockgate::stock::level::Ignored;

use crate::gateway::{ABSOLUTE, Site};

fn shipped(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A line's text behind `key:`, without quotes.
fn after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    Some(line.trim_start().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(':')?.trim().trim_matches('"'))
}

/// The alerts, each with its lines.
fn alerts() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in shipped("prometheus/stockgate.rules.yml").lines() {
        if line.trim_start().starts_with("- ") {
            current = line.trim_start().strip_prefix("- alert: ").map(str::to_owned);
            if let Some(name) = &current {
                assert!(found.insert(name.clone(), Vec::new()).is_none(), "{name} stands twice");
            }
        } else if let Some(name) = &current {
            found.get_mut(name).unwrap().push(line.to_owned());
        }
    }
    assert!(found.len() > 20, "the rules file has another form: {found:?}");
    found
}

/// Which alerts the cases see firing, and which they see quiet.
fn cases() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for file in ["prometheus/stockgate.rules.test.yml", "prometheus/stockgate.rules.days.test.yml"] {
        let mut name = String::new();
        for line in shipped(file).lines() {
            if let Some(alert) = after(line, "alertname") {
                alert.clone_into(&mut name);
            }
            match after(line, "exp_alerts") {
                Some("[]") => quiet.insert(name.clone()),
                Some("") => firing.insert(name.clone()),
                Some(other) => panic!("{file}: {other}"),
                None => continue,
            };
        }
    }
    (firing, quiet)
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let (firing, quiet) = cases();
    let alerts: BTreeSet<String> = alerts().into_keys().collect();
    let lacking = |seen: &BTreeSet<String>| alerts.difference(seen).cloned().collect::<Vec<_>>();
    assert!(lacking(&firing).is_empty(), "no case sees these fire: {:?}", lacking(&firing));
    assert!(lacking(&quiet).is_empty(), "no case sees these quiet: {:?}", lacking(&quiet));
    let unknown: Vec<_> = firing.union(&quiet).filter(|name| !alerts.contains(*name)).collect();
    assert!(unknown.is_empty(), "cases of alerts that are not there: {unknown:?}");
}

#[test]
fn every_alert_says_how_bad_it_is_what_to_do_and_where_to_read_on() {
    let runbook = shipped("prometheus/README.md");
    for (name, lines) in alerts() {
        let value = |key: &str| lines.iter().find_map(|line| after(line, key)).unwrap_or_default().to_owned();
        assert!(name.starts_with("Stockgate"), "{name}");
        assert!(["critical", "warning", "info"].contains(&value("severity").as_str()), "{name}: severity");
        assert!(value("summary").len() > 20, "{name}: summary");
        assert!(value("description").len() > 40, "{name}: description");
        assert_eq!(value("runbook"), format!("packaging/prometheus/README.md#{}", name.to_lowercase()), "{name}");
        let (_, section) = runbook.split_once(&format!("\n### {name}\n")).unwrap_or_else(|| panic!("{name}: no section"));
        let text = section.split("\n### ").next().unwrap_or_default();
        assert!(text.trim().len() > 10, "{name}: an empty section");
    }
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("### ")).count();
    assert_eq!(sections, alerts().len(), "a section is about no alert");
}

/// Names that begin so, in a text.
fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !word(c)).filter(|w| w.starts_with(prefix) && w.len() > prefix.len());
    words.map(str::to_owned).collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_there_are() {
    let source = [include_str!("../../src/metrics/mod.rs"), include_str!("../../src/metrics/page.rs")].concat();
    let known = names(&source, "stockgate_");
    // expressions only: prose and the names of jobs and files are no metrics
    let rules = shipped("prometheus/stockgate.rules.yml");
    let rules: String =
        rules.lines().filter(|l| after(l, "description").is_none() && !l.trim_start().starts_with('#')).collect();
    let asked: Vec<String> = targets().into_iter().map(|(_, target)| target["expr"].to_string()).collect();
    let dashboard = asked.join(" ");
    let mut seen = 0;
    for name in names(&rules, "stockgate_").union(&names(&dashboard, "stockgate_")) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(known.contains(name) || family.is_some_and(|f| known.contains(f)), "{name} is no metric of ours");
        seen += 1;
    }
    assert!(seen > 40, "only {seen} metrics are watched");
    let recorded: BTreeSet<String> = rules_records();
    for name in names(&rules, "stockgate:") {
        assert!(recorded.contains(&name), "{name} is recorded by no rule");
    }
    assert!(names(&dashboard, "stockgate:").is_empty(), "the dashboard must work without the rules");
}

fn rules_records() -> BTreeSet<String> {
    shipped("prometheus/stockgate.rules.yml").lines().filter_map(|line| after(line, "record")).map(str::to_owned).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&shipped("grafana/stockgate.json")).expect("the dashboard is JSON")
}

fn panels() -> Vec<Value> {
    dashboard()["panels"].as_array().expect("panels").clone()
}

/// Every target with the title of its panel.
fn targets() -> Vec<(String, Value)> {
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), target)).collect::<Vec<_>>()
    };
    panels().iter().flat_map(of).collect()
}

#[test]
fn the_dashboards_panels_have_a_place_and_an_id_of_their_own() {
    let mut ids = BTreeSet::new();
    let mut taken: BTreeMap<(i64, i64), String> = BTreeMap::new();
    for panel in panels() {
        let title = panel["title"].as_str().expect("a title").to_owned();
        assert!(!title.is_empty() && ids.insert(panel["id"].as_i64().expect("an id")), "{title}: its id is used twice");
        let at = |key: &str| panel["gridPos"][key].as_i64().unwrap_or_else(|| panic!("{title}: no {key}"));
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        assert!(x >= 0 && y >= 0 && w > 0 && h > 0 && x + w <= 24, "{title}: outside of the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, title.clone()) {
                panic!("{title} lies on {other}");
            }
        }
    }
    assert!(ids.len() > 40);
}

#[test]
fn the_dashboards_panels_have_units_legends_and_the_variables() {
    let dashboard = dashboard();
    assert_eq!((dashboard["title"].as_str(), dashboard["uid"].as_str()), (Some("stockgate"), Some("stockgate-gateway")));
    assert!(dashboard["id"].is_null(), "an id belongs to one Grafana");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let named: Vec<&str> = variables.iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(named, ["datasource", "instance"]);
    assert_eq!((variables[0]["type"].as_str(), variables[0]["query"].as_str()), (Some("datasource"), Some("prometheus")));
    assert_eq!(variables[1]["definition"], "label_values(stockgate_build_info, instance)");
    for panel in panels().iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{title}: no unit");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{title}: no description");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title}: nothing is asked");
    }
    for (title, target) in targets() {
        let expr = target["expr"].as_str().unwrap_or_default();
        assert!(target["legendFormat"].as_str().is_some_and(|legend| !legend.is_empty()), "{title}: {expr}: no legend");
        assert!(expr.contains(r#"instance=~"$instance""#), "{title}: {expr}: the choice of the instance has no effect");
        assert!(!expr.contains("[5m]"), "{title}: {expr}: a rate has the range $__rate_interval");
        assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        // process_ and scrape_ metrics are exported by others, too
        let ours = names(expr, "process_").is_empty() && names(expr, "scrape_").is_empty();
        assert!(ours || expr.contains(r#"job="stockgate""#), "{title}: {expr}: any program's");
    }
}

/// A word of the fold that is not in the list would begin without a zero, and grow the page.
#[test]
fn every_reason_to_ignore_a_fact_is_an_outcome() {
    for (_, _, word) in Ignored::ALL {
        assert!(FACT_OUTCOMES.contains(word), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sources_stay_within_the_bound_of_series_and_end_with_their_source() {
    const SOURCES: usize = 200;
    let site = Site::new(ABSOLUTE);
    site.write("idle.secret", "not-a-real-secret-of-an-idle-source\n");
    let idle: Vec<String> = (1..SOURCES)
        .map(|n| {
            format!(
                "\n[source.idle-{n}]\nkind = \"generic\"\nwarehouse = \"w-{}\"\nsecret_file = \"idle.secret\"\n\
                 signature = {{ algorithm = \"hmac-sha256\", encoding = \"hex\", header = \"x-signature\", signed = \"{{body}}\" }}\n{ABSOLUTE}\n",
                n % 20
            )
        })
        .collect();
    site.configure(&format!("{ABSOLUTE}\n{}", idle.concat()));
    let gateway = site.start();
    let page = String::from_utf8(gateway.admin("/metrics").await.body.to_vec()).unwrap();
    let series: Vec<&str> = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let warehouses = series.iter().filter(|line| line.starts_with("stockgate_warehouse_units{")).count();
    let most = SOURCES * SERIES_PER_SOURCE_MAX + warehouses * SERIES_PER_WAREHOUSE_MAX + SERIES_REST_MAX;
    assert!(series.len() <= most, "{} series, at most {most} are promised", series.len());
    let of = |source: &str| series.iter().filter(|line| line.contains(&format!("source=\"{source}\""))).count();
    assert!(of("idle-7") > 20 && of("idle-7") <= SERIES_PER_SOURCE_MAX, "{} series of a source", of("idle-7"));
    assert!(
        series.len() - SOURCES * of("idle-7") < SERIES_REST_MAX,
        "{} series besides",
        series.len() - SOURCES * of("idle-7")
    );
    // a gauge of what is gone would be told for ever
    let last = "stockgate_source_last_delivery_timestamp_seconds";
    assert_eq!(gateway.metric(&format!("{last}{{source=\"idle-7\"}}")).await, "0");
    site.configure(ABSOLUTE);
    crate::process::signal(gateway.pid(), "HUP");
    gateway
        .until("the source is gone", async || gateway.metric(&format!("{last}{{source=\"idle-7\"}}")).await.is_empty())
        .await;
    assert_eq!(gateway.metric(&format!("{last}{{source=\"gen\"}}")).await, "0");
}
