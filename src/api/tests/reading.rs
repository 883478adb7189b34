//! Levels, explanations, warehouses, sources, and the manners of the router.

use super::*;

fn stocked() -> World {
    let world = World::new();
    world.say("shop", "main", "A-1", count("9"), 1);
    world.say("shop", "main", "A-1", count("5"), 2);
    world.say("shop", "main", "A-10", count("46.500001"), 3);
    world.say("shop", "main", "B/7 ö", Change::Untracked, 4);
    world.say("wms", "depot", "A-1", count("-6"), 5);
    world.say("wms", "depot", "C", Change::Deleted, 6);
    world
}

#[tokio::test]
async fn quantities_are_exact_numbers_and_null_says_why() {
    let world = stocked();
    let answer = world.get("/api/v1/stock").await;
    assert_eq!((answer.status, answer.header(CONTENT_TYPE)), (200, "application/json"));
    assert!(answer.text().contains(r#""state":"tracked","quantity":46.500001,"#), "{}", answer.text());
    let json = answer.json();
    let rows: Vec<_> =
        json["stock"].as_array().expect("rows").iter().map(|r| (&r["warehouse"], &r["sku"], &r["state"])).collect();
    let expected = [
        ("main", "A-1", "tracked"),
        ("main", "A-10", "tracked"),
        ("main", "B/7 ö", "untracked"),
        ("depot", "A-1", "tracked"),
        ("depot", "C", "deleted"),
    ];
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!((row.0.as_str(), row.1.as_str(), row.2.as_str()), (Some(expected.0), Some(expected.1), Some(expected.2)));
    }
    assert_eq!(json["next"], Json::Null);
    assert_eq!(json["stock"][0]["since"], "2023-11-14T22:13:22.000Z");
    assert_eq!(json["stock"][0]["ledger"], 2);
    assert_eq!(json["stock"][2]["quantity"], Json::Null);
}

/// Every row of a listing, page by page.
async fn walk(world: &World, target: &str, limit: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let json = world.get(&format!("{target}limit={limit}{after}")).await.json();
        let rows = json["stock"].as_array().expect("rows");
        assert!(rows.len() <= limit);
        found.extend(
            rows.iter().map(|r| (r["warehouse"].as_str().unwrap().to_owned(), r["sku"].as_str().unwrap().to_owned())),
        );
        match json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_give_every_row_once() {
    let world = stocked();
    // part of it in the file, part in memory
    {
        let mut state = world.state.write().expect("not poisoned");
        state.checkpoint().expect("writes");
    }
    world.say("shop", "main", "A-2", count("1"), 7);
    world.say("shop", "main", "A", count("1"), 8);
    for target in [
        "/api/v1/stock?",
        "/api/v1/stock?warehouse=main&",
        "/api/v1/stock?prefix=A&",
        "/api/v1/stock?prefix=A-1&warehouse=main&",
        "/api/v1/stock?sku=A-1&",
    ] {
        let whole = walk(&world, target, 1000).await;
        assert!(!whole.is_empty());
        for limit in 1..=whole.len() {
            assert_eq!(walk(&world, target, limit).await, whole, "{target} {limit}");
        }
    }
    let skus = |rows: Vec<(String, String)>| rows.into_iter().map(|(w, s)| format!("{s}@{w}")).collect::<Vec<_>>();
    assert_eq!(skus(walk(&world, "/api/v1/stock?prefix=A-1&", 9).await), ["A-1@main", "A-10@main", "A-1@depot"]);
    assert_eq!(
        skus(walk(&world, "/api/v1/stock?prefix=A&warehouse=main&", 9).await),
        ["A@main", "A-1@main", "A-10@main", "A-2@main"]
    );
    assert_eq!(skus(walk(&world, "/api/v1/stock?sku=A-1&", 9).await), ["A-1@main", "A-1@depot"]);
    assert_eq!(walk(&world, "/api/v1/stock?sku=A-1&warehouse=depot&", 9).await.len(), 1);
}

#[tokio::test]
async fn one_level_shows_what_every_source_says() {
    let world = World::new();
    world.say_under("shop", "main", "A/1", count("5"), 1, &["shop"]);
    world.say_under("wms", "main", "A/1", count("12"), 2, &["shop"]);
    let answer = world.get("/api/v1/stock/main/A%2F1").await;
    let json = answer.json();
    assert_eq!((json["quantity"].as_i64(), json["source"].as_str()), (Some(5), Some("shop")));
    assert_eq!(json["reports"][0]["counts"], true);
    assert_eq!((json["reports"][1]["source"].as_str(), json["reports"][1]["quantity"].as_i64()), (Some("wms"), Some(12)));
    assert_eq!(json["reports"][1]["counts"], false);
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_there_is() {
    let world = stocked();
    for (target, detail) in [
        ("/api/v1/stock/main/a-1", "no level of `a-1` in `main` is known; did you mean `A-1`?"),
        ("/api/v1/stock/main/C", "no level of `C` in `main` is known; there is one in depot"),
        ("/api/v1/stock/mian/A-1", "no warehouse `mian`; did you mean `main`?"),
        ("/api/v1/explain/main/zzz", "no level of `zzz` in `main` is known"),
        ("/api/v1/stock?warehouse=nowhere", "no warehouse `nowhere`; /api/v1/warehouses lists those that have stock"),
        ("/api/v1/stocks", "there is nothing at /api/v1/stocks; /api/v1/openapi.json says what there is"),
    ] {
        let answer = world.get(target).await;
        assert_eq!((answer.status, answer.detail().as_str()), (404, detail), "{target}");
    }
    let empty = World::new().get("/api/v1/stock?warehouse=main").await;
    assert_eq!(empty.detail(), "no warehouse `main`: nothing has been delivered to any warehouse yet");
}

#[tokio::test]
async fn bad_parameters_are_refused_with_a_sentence() {
    let world = stocked();
    for (target, detail) in [
        ("/api/v1/stock?limit=0", "limit must be a number from 1 to 1000"),
        (
            "/api/v1/stock?wharehouse=main",
            "unknown parameter `wharehouse`: this resource takes warehouse, sku, prefix, limit, after",
        ),
        ("/api/v1/stock?sku=A&prefix=A", "sku is one SKU and prefix is many: give one of them"),
        ("/api/v1/stock?after=x", "after must be the `next` of an earlier page of this very listing"),
        ("/api/v1/stock?warehouse=depot&after=AABB", "after must be the `next` of an earlier page of this very listing"),
        ("/api/v1/status?x", "unknown parameter `x`: this resource takes none"),
        ("/api/v1/dead-letters?cause=unmaped-item", "no cause `unmaped-item`; did you mean `unmapped-item`?"),
        ("/api/v1/dead-letters/first", "`first` is not the id of a dead letter: it is a number"),
        ("/api/v1/dead-letters?after=__________8", "after must be the `next` of an earlier page of this very listing"),
    ] {
        let answer = world.get(target).await;
        assert_eq!((answer.status, answer.detail().as_str()), (400, detail), "{target}");
    }
}

#[tokio::test]
async fn an_explanation_tells_every_delivery_newest_first_and_why() {
    let world = World::new();
    world.say_under("shop", "main", "A-1", count("9"), 2, &["shop"]);
    world.say_under("wms", "main", "A-1", count("12"), 3, &["shop"]);
    world.say_under("shop", "main", "A-1", count("7"), 1, &["shop"]);
    world.say_under("shop", "main", "A-1", count("5"), 4, &["shop"]);
    let json = world.get("/api/v1/explain/main/A-1").await.json();
    assert_eq!(
        (json["quantity"].as_i64(), json["ledger"].as_u64(), json["more"].as_bool()),
        (Some(5), Some(2), Some(false))
    );
    let line = |i: usize| {
        let l = &json["history"][i];
        (
            l["kind"].as_str().unwrap(),
            l["source"].as_str().unwrap(),
            l["delivery"].as_str().unwrap(),
            l["why"].as_str().unwrap(),
        )
    };
    assert_eq!(line(0), ("changed", "shop", "d-4", "newer source time"));
    assert_eq!(line(1), ("ignored", "wms", "d-3", "another source says something newer"));
    assert_eq!(line(2), ("changed", "shop", "d-2", "first report"));
    assert_eq!(line(3), ("ignored", "shop", "d-1", "older than what shop had said already"));
    assert_eq!(
        (json["history"][0]["before"]["quantity"].as_i64(), json["history"][0]["after"]["quantity"].as_i64()),
        (Some(9), Some(5))
    );
    assert_eq!(json["history"][2]["before"], Json::Null);
    assert_eq!(json["history"][1]["said"]["quantity"], 12);
    let short = world.get("/api/v1/explain/main/A-1?limit=2").await.json();
    assert_eq!((short["history"].as_array().map(Vec::len), short["more"].as_bool()), (Some(2), Some(true)));
    assert_eq!(short["history"][1]["delivery"], "d-3");
}

#[tokio::test]
async fn a_rival_is_told_that_it_has_no_authority_where_a_list_says_so() {
    let world = World::new();
    world.say_under("shop", "main", "A-1", count("9"), 2, &["shop"]);
    world.say_under("wms", "main", "A-1", count("12"), 3, &["shop"]);
    let policy = r#"{"v":2,"sources":{},"warehouses":{"main":{"authority":["shop"]}}}"#;
    policy.clone_into(&mut world.state.write().expect("not poisoned").meta.policy);
    let json = world.get("/api/v1/explain/main/A-1").await.json();
    assert_eq!(json["history"][0]["why"], "wms has no authority here");
}

#[tokio::test]
async fn a_warehouse_adds_up_exactly() {
    let world = stocked();
    let text = world.get("/api/v1/warehouses").await.text().to_owned();
    let main = r#"{"warehouse":"main","levels":3,"units":51.500001,"in_stock":2,"out":0,"negative":0,"low":0,"untracked":1,"this_hour":{"inflow":0,"outflow":0},"today":{"inflow":0,"outflow":0},"last_event":"2023-11-14T22:13:24.000Z"}"#;
    assert!(text.contains(main), "{text}");
    assert!(text.contains(r#""warehouse":"depot","levels":1,"units":-6,"#), "{text}");
}

#[tokio::test]
async fn sources_are_the_configured_ones_and_those_that_once_delivered() {
    let world = World::new();
    world.say("shop", "main", "A", count("1"), 1);
    world.say("gone", "main", "B", count("1"), 2);
    let json = world.get("/api/v1/sources").await.json();
    let names: Vec<_> = json["sources"].as_array().expect("rows").iter().map(|s| s["source"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop", "wms", "gone"]);
    let (shop, wms, gone) = (&json["sources"][0], &json["sources"][1], &json["sources"][2]);
    assert_eq!((shop["accepted"].as_u64(), shop["last_delivery"].as_str()), (Some(1), Some("2023-11-14T22:13:21.000Z")));
    assert!(shop["silence_seconds"].as_u64().is_some_and(|s| s > 0));
    assert_eq!(
        (wms["path"].as_str(), &wms["last_delivery"], &wms["silence_seconds"]),
        (Some("/in/wms/***"), &Json::Null, &Json::Null)
    );
    assert_eq!((gone["configured"].as_bool(), &gone["path"]), (Some(false), &Json::Null));
}

#[tokio::test]
async fn status_tells_where_the_fold_is() {
    let world = stocked();
    let json = world.get("/api/v1/status").await.json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((json["fold"]["cursor"].as_u64(), json["ledger"]["sequence"].as_u64()), (Some(6), Some(6)));
    assert_eq!(
        (json["levels"].as_u64(), json["warehouses"].as_u64(), json["ready"].as_bool()),
        (Some(4), Some(2), Some(true))
    );
    assert_eq!(json["ledger"]["link"].as_str().map(str::len), Some(64));
}

#[tokio::test]
async fn methods_are_told_and_head_is_a_get() {
    let world = stocked();
    let answer = world.ask(Method::PUT, "/api/v1/dead-letters/1", &[], "").await;
    assert_eq!((answer.status, answer.header(ALLOW)), (405, "GET, HEAD, DELETE"));
    assert_eq!(world.get("/api/v1/reload").await.header(ALLOW), "POST");
    assert_eq!(world.ask(Method::HEAD, "/api/v1/stock", &[], "").await.status, 200);
}

#[tokio::test]
async fn another_host_name_is_not_answered() {
    let world = stocked();
    let answer = world.ask(Method::GET, "/api/v1/stock", &[("host", "evil.example")], "").await;
    assert_eq!(answer.status, 421);
    assert!(!answer.text().contains("A-1"));
}

#[tokio::test]
async fn the_page_for_people_has_no_script_and_forbids_any() {
    let world = stocked();
    let answer = world.get("/").await;
    assert_eq!((answer.status, answer.header(CONTENT_TYPE)), (200, "text/html; charset=utf-8"));
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(answer.text().contains("<td>main</td><td class=\"n\">51.500001</td>"), "{}", answer.text());
    assert!(!answer.text().contains("<script"));
}
