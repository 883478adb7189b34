//! `openapi.json` and the table of routes say the same.

use std::collections::BTreeSet;

use super::*;

const METHODS: &[&str] = &["get", "put", "post", "delete", "patch", "head", "options", "trace"];

fn document() -> Json {
    serde_json::from_str(OPENAPI).expect("the description is JSON")
}

#[test]
fn every_route_is_described_with_its_parameters_and_nothing_else_is() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item").iter().filter(|(m, _)| METHODS.contains(&m.as_str())) {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named = |place: &str| -> BTreeSet<String> {
                let here = parameters.iter().filter(|p| p["in"] == place);
                here.map(|p| p["name"].as_str().expect("a name").to_owned()).collect()
            };
            let braces: BTreeSet<String> =
                path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned).collect();
            assert_eq!(named("path"), braces, "{path}");
            described.insert((method.to_uppercase(), path.clone(), named("query")));
        }
    }
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|r| (r.method.to_string(), r.path.to_owned(), r.params.iter().map(|p| (*p).to_owned()).collect()))
        .collect();
    assert_eq!(routes.len(), ROUTES.len(), "a route stands twice in the table");
    assert_eq!(described, routes);
}

#[test]
fn the_role_of_every_route_is_described_and_what_is_answered_without() {
    let document = document();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let role = match route.need {
            Need::Nothing => None,
            Need::Read => Some("read"),
            Need::Operator | Need::Deliveries => Some("operator"),
        };
        let described =
            operation["security"].as_array().expect("security").first().map(|s| s["token"][0].as_str().expect("a role"));
        assert_eq!(described, role, "{} {}", route.method, route.path);
        assert_eq!(!operation["responses"]["401"].is_null(), role.is_some(), "{} {}", route.method, route.path);
        assert!(role != Some("operator") || !operation["responses"]["403"].is_null(), "{} {}", route.method, route.path);
    }
}

/// Every `$ref` of a document.
fn references<'a>(json: &'a Json, found: &mut Vec<&'a str>) {
    match json {
        Json::Object(map) => {
            found.extend(map.get("$ref").and_then(Json::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Json::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().expect("schemas").keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}").as_str()), "{name} is not used");
    }
}

#[test]
fn the_words_in_the_description_are_the_programs() {
    let document = document();
    let words = |pointer: &str| -> Vec<String> {
        let list = document.pointer(pointer).and_then(Json::as_array).expect("an enum");
        list.iter().map(|w| w.as_str().expect("a word").to_owned()).collect()
    };
    let schemas = "/components/schemas";
    assert_eq!(words(&format!("{schemas}/Cause/enum")), Cause::ALL.iter().map(|c| c.2).collect::<Vec<_>>());
    let rules = crate::stock::level::Rule::ALL.iter().map(|r| r.2).collect::<Vec<_>>();
    assert_eq!(words(&format!("{schemas}/Changed/properties/rule/enum")), rules);
    let reasons = crate::stock::level::Ignored::ALL.iter().map(|r| r.2).collect::<Vec<_>>();
    assert_eq!(words(&format!("{schemas}/Ignored/properties/reason/enum")), reasons);
}

/// The fields that a schema promises, `allOf` included.
fn required(document: &Json, schema: &Json) -> BTreeSet<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).expect("leads somewhere");
        return required(document, target);
    }
    let own = schema["required"].as_array().into_iter().flatten().map(|f| f.as_str().expect("a name").to_owned());
    let parts = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| required(document, part));
    own.chain(parts).collect()
}

#[tokio::test]
async fn answers_have_exactly_the_fields_that_the_description_promises() {
    let world = World::new();
    world.say("shop", "main", "A-1", count("5"), 2);
    world.say("wms", "main", "A-1", count("4"), 1);
    world.bury("shop", Cause::Unreadable, b"{}");
    let document = document();
    for (target, path) in [
        ("/api/v1/status", "/api/v1/status"),
        ("/api/v1/stock", "/api/v1/stock"),
        ("/api/v1/stock/main/A-1", "/api/v1/stock/{warehouse}/{sku}"),
        ("/api/v1/explain/main/A-1", "/api/v1/explain/{warehouse}/{sku}"),
        ("/api/v1/warehouses", "/api/v1/warehouses"),
        ("/api/v1/drift", "/api/v1/drift"),
        ("/api/v1/sources", "/api/v1/sources"),
        ("/api/v1/dead-letters", "/api/v1/dead-letters"),
        ("/api/v1/dead-letters/1", "/api/v1/dead-letters/{id}"),
        ("/api/v1/verify", "/api/v1/verify"),
    ] {
        let answer = world.get(target).await.json();
        let schema = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let fields: BTreeSet<String> = answer.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(fields, required(&document, schema), "{target}");
    }
    for (target, list, row, schema) in [
        ("/api/v1/stock", "stock", 0, "Level"),
        ("/api/v1/stock/main/A-1", "reports", 0, "Said"),
        ("/api/v1/explain/main/A-1", "history", 0, "Changed"),
        ("/api/v1/explain/main/A-1", "history", 1, "Ignored"),
        ("/api/v1/warehouses", "warehouses", 0, "Warehouse"),
        ("/api/v1/drift", "drift", 0, "Differing"),
        ("/api/v1/sources", "sources", 0, "Source"),
        ("/api/v1/dead-letters", "dead_letters", 0, "DeadLetter"),
    ] {
        let answer = world.get(target).await.json();
        let fields: BTreeSet<String> = answer[list][row].as_object().expect("a row").keys().cloned().collect();
        assert_eq!(fields, required(&document, &document["components"]["schemas"][schema]), "{target}");
    }
}
