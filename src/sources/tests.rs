//! What every platform's adapter keeps to, walked over the list of kinds.

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::types::{HeaderList, Headers, Settings};

fn built(kind: &Kind) -> Box<dyn Source> {
    (kind.build)(&mut Settings::new("", Map::new()))
}

/// Header names that some platform might read, and a few that none does.
fn names() -> Vec<String> {
    let mut names: Vec<String> = KINDS.iter().flat_map(|kind| built(kind).kept_headers()).collect();
    names.extend(
        ["authorization", "x-api-key", "content-type", "user-agent", "x-wc-webhook-delivery-id", "x-request-id"]
            .map(str::to_owned),
    );
    names.sort();
    names.dedup();
    names
}

#[test]
fn the_list_is_sorted_and_every_line_says_what_it_is() {
    assert!(KINDS.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted by name, each once");
    for kind in KINDS {
        assert!(kind.about.len() > 20, "{}", kind.name);
        assert!(super::kind(kind.name).is_some());
        let folder = kind.name.replace('-', "_");
        assert!(kind.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{folder}");
    }
}

#[test]
fn unknown_settings_are_refused_by_every_adapter() {
    for kind in KINDS {
        let map = [("no_such_setting".to_owned(), serde_json::Value::from(1))].into_iter().collect();
        let mut settings = Settings::new("source.x", map);
        drop((kind.build)(&mut settings));
        let problems = settings.finish();
        assert!(problems.iter().any(|p| p.path == "source.x.no_such_setting"), "{}: {problems:?}", kind.name);
    }
}

#[test]
fn windows_reach_as_far_as_any_platform_retries_and_kept_headers_are_lower_case() {
    for kind in KINDS {
        let adapter = built(kind);
        assert!(adapter.horizon() >= Duration::from_secs(3600), "{}", kind.name);
        assert!((200..=204).contains(&adapter.success_status()), "{}", kind.name);
        for name in adapter.kept_headers() {
            assert_eq!(name, name.to_lowercase(), "{}", kind.name);
        }
    }
}

#[test]
fn what_a_signed_platform_sends_without_a_signature_is_refused() {
    let secrets = [Secret::new("a-secret-of-some-length")];
    for kind in KINDS {
        let adapter = built(kind);
        let message = Message { query: "", headers: &HeaderList::default(), body: b"{}", received_at: Timestamp(0) };
        assert_eq!(adapter.authenticate(&message, &secrets).is_err(), adapter.signed(), "{}", kind.name);
        if adapter.signed() {
            assert!(adapter.authenticate(&message, &[]).is_err(), "{}: no secret, no trust", kind.name);
        }
    }
}

#[test]
fn requests_stay_on_the_configured_host() {
    let credentials = Credentials(vec![("token".to_owned(), Secret::new("t0ken"))]);
    for kind in KINDS {
        let adapter = built(kind);
        for id in [
            "1",
            "271878346596884015",
            "b2f3d5c0-1234-11ec-0a80-0123456789ab",
            "//evil.example/x",
            "@evil.example",
            "..",
            "a b#?&",
        ] {
            let needs = [adapter.settle(id, Some(id)), adapter.settle(id, None), adapter.catalogue(id)];
            for need in needs.into_iter().flatten() {
                let Some(request) = adapter.request(&need, None, &credentials) else { continue };
                let target = request.target.parse::<http::uri::PathAndQuery>();
                assert!(
                    target.is_ok() && request.target.starts_with('/') && !request.target.starts_with("//"),
                    "{}: {request:?}",
                    kind.name
                );
                assert!(!request.target.split('?').next().unwrap_or_default().contains(".."), "{}: {request:?}", kind.name);
                assert!(!format!("{request:?}").contains("t0ken"), "{}: credentials are not shown", kind.name);
            }
        }
    }
}

struct Answered<'a>(&'a [(String, String)]);

impl Headers for Answered<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Bodies that look like something, and ones that do not.
fn arb_body() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just(r#"{"inventory_item_id":1,"location_id":2,"available":3,"updated_at":"2020-09-03T08:44:10-04:00"}"#.to_owned()),
        Just(r#"{"id":794,"sku":"w","manage_stock":true,"stock_quantity":9,"date_modified_gmt":"2024-03-15T10:00:00"}"#.to_owned()),
        Just(r#"{"object_class":"Product","object":{"id":9,"updated_at":"2022-06-30T14:53:00+00:00","user_ref":"s","stock":-6}}"#.to_owned()),
        Just(r#"{"accountId":"a","stockType":"stock","reportType":"all","reportUrl":"https://x/y?changedSince=2022-09-24 19:14:32"}"#.to_owned()),
        Just(r#"{"cpnId":2,"resource":"/v2/stocks.json?variant=7&office=1","resourceId":"7","topic":"stock","officeId":"1","send":1}"#.to_owned()),
        Just(r#"[{"assortmentId":"a","storeId":"b","stock":1.5}]"#.to_owned()),
        Just(r#"{"items":[{"quantity":1,"quantityAvailable":1,"variant":{"id":7,"code":"c"},"office":{"id":"1"}}]}"#.to_owned()),
        "\\PC{0,80}",
    ];
    prop_oneof![
        2 => text.clone().prop_map(String::into_bytes),
        // one byte changed
        3 => (text, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(text, at, byte)| {
            let mut bytes = text.into_bytes();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// No bytes, headers, query or key make an adapter panic; and what the fold reads from the journal (kept headers only) is
    /// what the door would have read.
    #[test]
    fn adapters_take_anything_and_read_kept_headers_only(
        body in arb_body(),
        values in proptest::collection::vec((any::<prop::sample::Index>(), "\\PC{0,30}"), 0..8),
        query in "[a-zA-Z0-9=&%+/-]{0,40}",
        key in "[a-zA-Z0-9/_-]{0,30}",
        status in 100_u16..600,
        at in any::<i64>(),
    ) {
        let names = names();
        let all: Vec<(String, String)> = values.into_iter().map(|(i, value)| (names[i.index(names.len())].clone(), value)).collect();
        let secrets = [Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")];
        for kind in KINDS {
            let adapter = built(kind);
            let everything = Answered(&all);
            let message = Message { query: &query, headers: &everything, body: &body, received_at: Timestamp(at) };
            let kept: Vec<(String, String)> =
                all.iter().filter(|(name, _)| adapter.kept_headers().contains(name)).cloned().collect();
            let kept = Answered(&kept);
            let stored = Message { headers: &kept, ..message };
            for method in ["GET", "POST", "HEAD", "OPTIONS"] {
                drop(adapter.greet(method, &message));
            }
            let genuine = adapter.authenticate(&message, &secrets).is_ok();
            prop_assert!(!genuine || !adapter.signed(), "{}: nobody signed this", kind.name);
            prop_assert_eq!(adapter.identify(&message), adapter.identify(&stored), "{}", kind.name);
            prop_assert_eq!(adapter.parse(&message), adapter.parse(&stored), "{}", kind.name);
            let need = Need { key: key.as_str().into(), from: None };
            drop(adapter.request(&need, Some(&query), &Credentials::default()));
            drop(adapter.judge(&need, &ApiAnswer { status, headers: &everything, body: &body }, Timestamp(at)));
            for key in [key.as_str(), "stock/7/1", "stock/7", "catalogue/7", "document/7", "report/bystore/stock"] {
                drop(adapter.read(&Need { key: key.into(), from: None }, Timestamp(at), &body));
            }
        }
    }
}
