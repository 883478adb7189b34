//! Dead letters, mappings and reloads: what a person decides is a journal record.

use super::*;
use crate::store::rows::ParkedFact;
use crate::types::{Fact, Item, Measure, Place, Said};

#[tokio::test]
async fn dead_letters_are_listed_by_cause_and_page() {
    let world = World::new();
    for cause in [Cause::Unreadable, Cause::UnmappedItem, Cause::Unreadable] {
        world.bury("shop", cause, b"{}");
    }
    let json = world.get("/api/v1/dead-letters").await.json();
    assert_eq!(json["dead_letters"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (json["dead_letters"][1]["waits_for"].as_str(), &json["dead_letters"][0]["waits_for"]),
        (Some("item-7"), &Json::Null)
    );
    let unreadable = world.get("/api/v1/dead-letters?cause=unreadable&limit=1").await.json();
    assert_eq!(unreadable["dead_letters"][0]["id"], 1);
    let next = unreadable["next"].as_str().expect("a second page");
    let second = world.get(&format!("/api/v1/dead-letters?cause=unreadable&limit=1&after={next}")).await.json();
    assert_eq!((second["dead_letters"][0]["id"].as_u64(), &second["next"]), (Some(3), &Json::Null));
}

#[tokio::test]
async fn no_dead_letter_is_skipped_between_the_file_and_memory() {
    let world = World::new();
    for id in 1..=9 {
        assert_eq!(world.bury("shop", Cause::Unreadable, b"{}"), id);
        if id == 5 {
            let mut state = world.state.write().expect("not poisoned");
            state.checkpoint().expect("writes");
        }
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let json = world.get(&format!("/api/v1/dead-letters?limit=2{after}")).await.json();
        seen.extend(json["dead_letters"].as_array().expect("rows").iter().map(|d| d["id"].as_u64().expect("an id")));
        match json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dead_letter_shows_its_delivery_without_credentials() {
    let world = World::new();
    let id = world.bury("shop", Cause::Unreadable, "{\"n\":\"ö\"}".as_bytes());
    let answer = world.get(&format!("/api/v1/dead-letters/{id}")).await;
    let json = answer.json();
    assert_eq!((json["source"].as_str(), json["detail"].as_str()), (Some("shop"), Some("it is unreadable")));
    let decoded = &json["decoded"];
    assert_eq!(
        (decoded["kind"].as_str(), decoded["delivery"].as_str(), decoded["query"].as_str()),
        (Some("delivery"), Some("d-9"), Some("a=b"))
    );
    assert_eq!(
        (decoded["body"]["encoding"].as_str(), decoded["body"]["text"].as_str()),
        (Some("utf-8"), Some("{\"n\":\"ö\"}"))
    );
    assert_eq!(
        (decoded["headers"]["x-topic"].as_str(), decoded["headers"]["x-access-token"].as_str()),
        (Some("stock"), Some("***"))
    );
    assert!(!answer.text().contains("hush"));
}

#[tokio::test]
async fn a_parked_fact_is_shown_even_when_its_delivery_has_aged_out() {
    let world = World::new();
    let at = Timestamp::from_seconds(1_700_000_000);
    let id = {
        let mut state = world.state.write().expect("not poisoned");
        let source = state.source_number("shop");
        let item = Item { id: "42".into(), sku: None };
        let change = Change::Delta("-1.5".parse().expect("a quantity"));
        let fact = Fact { item, place: Place::At("7".into()), measure: Measure::Available, change, said: Said::default() };
        let label = "d-1".to_owned();
        let remains = Remains::Fact(ParkedFact { fact, part: 3, arrival: 90, label, digest: [0; 8], by_content: false });
        let (detail, waits_for) = ("item 42 has no SKU yet".to_owned(), "42".to_owned());
        state.bury(DeadLetter {
            at,
            source,
            cause: Cause::UnmappedItem,
            detail,
            record: 90,
            waits_for,
            replaces: 2,
            remains,
        })
    };
    let json = world.get(&format!("/api/v1/dead-letters/{id}")).await.json();
    assert_eq!((json["fact"].as_str(), json["part"].as_u64()), (Some("item 42 at 7: moved by -1.5"), Some(3)));
    assert_eq!((&json["decoded"], json["replaces"].as_u64()), (&Json::Null, Some(2)));
    assert_eq!(json["record_problem"], "the raw delivery has aged out of the journal; its fact is kept");
}

#[tokio::test]
async fn a_retry_and_a_drop_are_journal_records() {
    let world = World::new();
    let id = world.bury("shop", Cause::Unreadable, b"{}");
    let retried = world.ask(Method::POST, &format!("/api/v1/dead-letters/{id}/retry"), &[], "").await;
    assert_eq!((retried.status, retried.json()["journal"].as_u64()), (202, Some(1)));
    world.with_decision(1, |decision| assert_eq!(*decision, Decision::RetryDead(id)));
    let dropped = world.ask(Method::DELETE, &format!("/api/v1/dead-letters/{id}"), &[], "").await;
    assert_eq!((dropped.status, dropped.json()["detail"].as_str()), (202, Some("dead letter 1 will be dropped")));
    world.with_decision(2, |decision| assert_eq!(*decision, Decision::DropDead(id)));
    let missing = world.ask(Method::DELETE, "/api/v1/dead-letters/7", &[], "").await;
    assert_eq!(missing.detail(), "no dead letter 7: it was retried, dropped or applied by itself, or never was");
    assert_eq!((missing.status, world.journal.head()), (404, 2));
}

#[tokio::test]
async fn mappings_are_checked_before_they_are_written() {
    let world = World::new();
    let mapped = world.post("/api/v1/map/item", r#"{"source":"shop","item":"271878346596884015","sku":" A-1 "}"#).await;
    assert_eq!((mapped.status, mapped.json()["journal"].as_u64()), (202, Some(1)));
    world.with_decision(1, |decision| {
        assert_eq!(*decision, Decision::MapItem { source: "shop", item: "271878346596884015", sku: "A-1" });
    });
    let mapped = world.post("/api/v1/map/location", r#"{"source":"wms","location":"7","warehouse":"depot"}"#).await;
    assert_eq!(mapped.status, 202);
    world.with_decision(2, |decision| {
        assert_eq!(*decision, Decision::MapLocation { source: "wms", location: "7", warehouse: "depot" });
    });
    for (body, status, said) in [
        (r#"{"source":"shpo","item":"1","sku":"A"}"#, 400, "no source `shpo` is configured; did you mean `shop`?"),
        (r#"{"source":"shop","item":"","sku":"A"}"#, 400, "item must have 1 to 255 bytes"),
        (r#"{"source":"shop","item":"1","sku":"  "}"#, 400, "`` cannot be a SKU: it is empty"),
        (r#"{"source":"shop","item":"1","skuu":"A"}"#, 400, "unknown field `skuu`"),
        ("sku=A", 400, "the body is not what this resource takes"),
    ] {
        let answer = world.post("/api/v1/map/item", body).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.detail().contains(said), "{}", answer.detail());
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(world.ask(Method::POST, "/api/v1/map/item", &form, "a=b").await.status, 415);
    assert_eq!(world.journal.head(), 2, "nothing but the two good ones was written");
}

#[tokio::test]
async fn a_page_of_another_site_decides_nothing() {
    let world = World::new();
    let id = world.bury("shop", Cause::Unreadable, b"{}");
    let origin = [("origin", "http://evil.example")];
    let answer = world.ask(Method::POST, &format!("/api/v1/dead-letters/{id}/retry"), &origin, "").await;
    assert_eq!((answer.status, world.journal.head()), (403, 0));
}

#[tokio::test]
async fn a_refused_reload_lists_every_problem() {
    let world = World::new();
    assert_eq!(world.post("/api/v1/reload", "").await.json()["detail"], "2 sources");
    world.reloads_work.store(false, Ordering::Relaxed);
    let refused = world.post("/api/v1/reload", "").await;
    assert_eq!((refused.status, refused.json()["problems"][0].as_str()), (422, Some("stockgate.toml:3: no")));
    assert_eq!(refused.detail(), "the new configuration was refused; the running one stays in force");
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_is_told_and_nothing_is_promised() {
    let world = World::new();
    let id = world.bury("shop", Cause::Unreadable, b"{}");
    world.api.shared.context.appender.close().await;
    let answer = world.ask(Method::DELETE, &format!("/api/v1/dead-letters/{id}"), &[], "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
}
