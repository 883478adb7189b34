use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::{Change, Fact, HeaderList, Item, Measure, Place, Problem, Quantity, Said};

const NOTICE: &str = include_str!("fixtures/notice.json");
const NOTICE_KLADANA: &str = include_str!("fixtures/notice_kladana.json");
const DOCUMENT_EVENT: &str = include_str!("fixtures/document_event.json");
const REPORT: &[u8] = include_bytes!("fixtures/report_bystore.json");
const REPORT_FREE: &[u8] = include_bytes!("fixtures/report_free_stock.json");
const REPORT_ALL: &[u8] = include_bytes!("fixtures/report_all_quantity.json");
const REPORT_RECALCULATING: &[u8] = include_bytes!("fixtures/report_recalculating.json");
const ASSORTMENT: &[u8] = include_bytes!("fixtures/assortment.json");
const ERROR_1073: &[u8] = include_bytes!("fixtures/error_1073.json");

const ITEM: &str = "12345678-5838-aaeb-0a80-003a003ef439";
const STORE: &str = "12345678-b123-aaee-0a80-012b0001bb10";
const REQUEST_ID: &str = "requestId=640569eb-522d-427a-b07e-fa757c5d4217";

/// 2022-09-24 19:20:00 in Moscow: five and a half minutes after the sample's window began.
const ARRIVED: Timestamp = Timestamp::from_seconds(1_664_036_400);
const SENT: Timestamp = Timestamp::from_seconds(1_664_036_402);

fn built(settings: Value) -> (Box<dyn Source>, Vec<Problem>) {
    let Value::Object(map) = settings else { panic!("an object") };
    let mut settings = Settings::new("source.k", map);
    let source = (KIND.build)(&mut settings);
    (source, settings.finish())
}

fn plain() -> Box<dyn Source> {
    built(json!({})).0
}

fn with_message<T>(query: &str, body: &[u8], use_it: impl FnOnce(&Message<'_>) -> T) -> T {
    let headers = HeaderList::default();
    use_it(&Message { query, headers: &headers, body, received_at: ARRIVED })
}

fn parse(source: &dyn Source, body: &str) -> Result<Vec<Observation>, Unreadable> {
    with_message(REQUEST_ID, body.as_bytes(), |m| source.parse(m))
}

fn need(source: &dyn Source, body: &str) -> Need {
    match parse(source, body).expect("readable").as_slice() {
        [Observation::Fetch(need)] => need.clone(),
        other => panic!("one fetch, not {other:?}"),
    }
}

fn moscow(need: &Need) -> String {
    need.from.expect("a window").format_naive(3)
}

fn key(key: &str) -> Need {
    Need { key: key.into(), from: None }
}

fn request(need: &Need) -> Option<ApiRequest> {
    let credentials = Credentials(vec![("token".into(), Secret::new("t0ken\n"))]);
    plain().request(need, None, &credentials)
}

fn target(need: &Need) -> String {
    request(need).expect("a key of ours").target
}

fn read(need: &Need, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    plain().read(need, SENT, body)
}

fn fact(item: &str, place: Place, measure: Measure, quantity: &str) -> Observation {
    Observation::Fact(Fact {
        item: Item { id: item.into(), sku: None },
        place,
        measure,
        change: Change::Absolute(quantity.parse::<Quantity>().expect("a quantity")),
        said: Said { version: None, at: Some(SENT) },
    })
}

fn judge(need: &Need, status: u16, headers: &[(&str, &str)], body: &[u8], now: Timestamp) -> Verdict {
    let headers = HeaderList(headers.to_vec());
    plain().judge(need, &ApiAnswer { status, headers: &headers, body }, now)
}

// ---- notification --------------------------------------------------------------------------------------------------

#[test]
fn both_markets_samples_ask_for_the_report_by_store_from_five_minutes_earlier() {
    for body in [NOTICE, NOTICE_KLADANA] {
        let need = need(&*plain(), body);
        assert_eq!(&*need.key, "report/bystore/stock");
        assert_eq!(moscow(&need), "2022-09-24 19:09:32");
    }
}

#[test]
fn the_space_of_the_window_comes_in_three_spellings() {
    for space in [" ", "%20", "+"] {
        let body = NOTICE.replace("24 19", &format!("24{space}19"));
        assert_eq!(moscow(&need(&*plain(), &body)), "2022-09-24 19:09:32", "{space}");
    }
}

#[test]
fn nothing_but_the_window_is_taken_from_the_url() {
    let evil = NOTICE
        .replace("https://api.moysklad.ru/api/remap/1.2/report/stock/all/current", "http://169.254.169.254/latest/meta-data")
        .replace("19:14:32", "19:14:32&stockType=x&filter=assortmentId=1#/../..");
    let asked = target(&need(&*plain(), &evil));
    assert_eq!(asked, target(&need(&*plain(), NOTICE)));
    assert!(asked.starts_with("/api/remap/1.2/report/stock/bystore/current?changedSince="));
}

#[test]
fn a_window_is_never_older_than_the_api_allows_and_never_in_the_future() {
    let from = |when: &str| moscow(&need(&*plain(), &NOTICE.replace("2022-09-24 19:14:32", when)));
    assert_eq!(from("2022-09-01 00:00:00"), "2022-09-23 19:30:00", "23 h 50 min before the arrival");
    assert_eq!(from("2022-09-23 19:31:00"), "2022-09-23 19:30:00", "nor does the overlap pass it");
    assert_eq!(from("2030-01-01 00:00:00"), "2022-09-24 19:15:00", "five minutes before the arrival");
    assert_eq!(from("-9999-01-01 00:00:00"), "2022-09-23 19:30:00");
    assert_eq!(from("yesterday"), "2022-09-23 19:30:00", "what cannot be read is asked for as far back as possible");
    assert_eq!(moscow(&need(&*plain(), r#"{"stockType":"stock"}"#)), "2022-09-23 19:30:00");
    assert_eq!(moscow(&need(&*plain(), r#"{"stockType":"stock","reportUrl":"no url"}"#)), "2022-09-23 19:30:00");
}

#[test]
fn a_resent_notification_is_the_same_and_the_next_one_is_not() {
    let identify = |query: &str, body: &str| with_message(query, body.as_bytes(), |m| plain().identify(m));
    let first = identify(REQUEST_ID, NOTICE);
    let Identity::Named(parts) = &first else { panic!("named") };
    assert_eq!(parts[0], b"640569eb-522d-427a-b07e-fa757c5d4217");
    assert!(parts.iter().all(|p| !p.is_empty()));
    assert_eq!(identify(REQUEST_ID, NOTICE), first);
    // Within one second two notifications can name the same window: their bodies are equal, so a key made of the body
    // would drop the second; the platform's own id keeps them apart.
    assert_ne!(identify("requestId=0b0f7a0e-0000-4000-8000-000000000001", NOTICE), first);
    // Two subscriptions (all, bystore) on one address.
    assert_ne!(identify(REQUEST_ID, &NOTICE.replace(r#""all""#, r#""bystore""#)), first);
}

#[test]
fn without_a_request_id_nothing_is_named() {
    for query in ["", "requestId=", "requestId=%20", "requestid=1", &format!("requestId={}", "x".repeat(256))] {
        assert_eq!(with_message(query, NOTICE.as_bytes(), |m| plain().identify(m)), Identity::Content, "{query}");
    }
    let Identity::Named(parts) = with_message("requestId=7", b"{", |m| plain().identify(m)) else { panic!("named") };
    assert_eq!(parts, [b"7".to_vec()], "a part that is missing is left out, not empty");
}

#[test]
fn document_webhooks_are_irrelevant_and_strange_bodies_are_dead() {
    assert!(matches!(parse(&*plain(), DOCUMENT_EVENT).as_deref(), Ok([Observation::Irrelevant(_)])));
    let cause = |body: &str| parse(&*plain(), body).expect_err("unreadable").0;
    assert_eq!(cause("{}"), "not a stock notification: no stockType, reportType or reportUrl");
    assert_eq!(cause("{"), "not a stock notification: JSON trouble at line 1, column 1");
    assert!(!cause(r#"{"stockType":1,"accountId":"hush"}"#).contains("hush"));
    assert!(parse(&*plain(), &"[".repeat(100_000)).is_err());
}

#[test]
fn a_notification_of_another_account_is_not_followed() {
    let (ours, problems) = built(json!({"account": "F71CB8B6-f7b5-11ec-ac12-000f000000eb"}));
    assert_eq!(problems, []);
    assert!(parse(&*ours, NOTICE).is_ok());
    let (other, _) = built(json!({"account": "00000000-0000-0000-0000-000000000000"}));
    let cause = parse(&*other, NOTICE).expect_err("of another account").0;
    assert!(cause.starts_with("a notification of account f71cb8b6-f7b5-11ec-ac12-000f000000eb;"), "{cause}");
    assert!(parse(&*other, r#"{"stockType":"stock"}"#).is_err());
}

#[test]
fn it_answers_204_and_trusts_the_path() {
    assert_eq!(plain().success_status(), 204);
    assert!(!plain().signed());
    assert_eq!(with_message(REQUEST_ID, NOTICE.as_bytes(), |m| plain().authenticate(m, &[])), Ok(0));
}

#[test]
fn settings_are_checked() {
    let (_, problems) = built(json!({"report": "store", "count": "free", "sku": "ean", "region": "in"}));
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["source.k.report", "source.k.count", "source.k.sku", "source.k.region"]);
}

// ---- requests ------------------------------------------------------------------------------------------------------

#[test]
fn the_report_is_asked_for_with_an_encoded_window_in_moscow_time() {
    let request = request(&need(&*plain(), NOTICE)).expect("a key of ours");
    assert_eq!(
        request.target,
        "/api/remap/1.2/report/stock/bystore/current?changedSince=2022-09-24%2019%3A09%3A32&stockType=stock&withRecalculate=true"
    );
    assert_eq!(request.headers[0], ("authorization", "Bearer t0ken".to_owned()));
    assert!(!format!("{request:?}").contains("t0ken"));
}

#[test]
fn every_need_of_ours_has_a_request() {
    let source = plain();
    let settle = source.settle(ITEM, Some(STORE)).expect("an id of theirs");
    assert_eq!(&*settle.key, format!("item/bystore/stock/{ITEM}/{STORE}"));
    assert_eq!(
        target(&settle),
        format!(
            "/api/remap/1.2/report/stock/bystore/current?filter=assortmentId%3D{ITEM}%3BstoreId%3D{STORE}\
             &include=zeroLines&stockType=stock&withRecalculate=true"
        )
    );
    let catalogue = source.catalogue(ITEM).expect("an id of theirs");
    assert_eq!(&*catalogue.key, format!("catalogue/{ITEM}"));
    assert_eq!(target(&catalogue), format!("/api/remap/1.2/entity/assortment?filter=id%3D{ITEM}"));
    assert_eq!(
        target(&key("report/bystore/stock")),
        "/api/remap/1.2/report/stock/bystore/current?include=zeroLines&stockType=stock&withRecalculate=true",
        "without a window: everything"
    );
}

#[test]
fn the_report_over_all_stores_knows_no_location() {
    let (source, problems) = built(json!({"report": "all", "count": "freeStock"}));
    assert_eq!(problems, []);
    assert_eq!(&*need(&*source, NOTICE).key, "report/all/freeStock");
    let settle = source.settle(ITEM, Some(STORE)).expect("an id of theirs");
    assert_eq!(&*settle.key, format!("item/all/freeStock/{ITEM}"));
    assert!(target(&settle).starts_with("/api/remap/1.2/report/stock/all/current?filter="));
    assert!(!target(&settle).contains("withRecalculate"), "the vendor has it by store only");
}

#[test]
fn what_could_break_out_of_a_path_is_not_asked_for() {
    let source = plain();
    let too_long = "x".repeat(65);
    for bad in ["", "a/b", "a;storeId=b", "..", "a b", "a%2f", "é", &too_long] {
        assert_eq!(source.catalogue(bad), None, "{bad}");
        assert_eq!(source.settle(bad, None), None, "{bad}");
        assert_eq!(source.settle(ITEM, Some(bad)), None, "{bad}");
    }
    for foreign in
        ["", "stock/1/2", "report/x/stock", "report/bystore/reserve", "report/bystore/stock/soon", "catalogue/a b"]
    {
        assert_eq!(request(&key(foreign)), None, "{foreign}");
        assert!(read(&key(foreign), REPORT).is_err(), "{foreign}");
    }
    assert_eq!(source.request(&key("report/bystore/stock"), Some("2"), &Credentials::default()), None);
}

// ---- answers -------------------------------------------------------------------------------------------------------

#[test]
fn each_row_is_a_fact_of_the_moment_the_request_was_sent() {
    let at = |store: &str| Place::At(store.into());
    let second = "12345678-279c-aaeb-0a80-00d6001f847c";
    let other_store = "12345678-b123-aaee-0a80-012b0001bb12";
    assert_eq!(
        read(&key("report/bystore/stock"), REPORT).expect("readable"),
        [
            fact(ITEM, at(STORE), Measure::OnHand, "11"),
            fact(ITEM, at(other_store), Measure::OnHand, "0"),
            fact(second, at(STORE), Measure::OnHand, "46.5"),
            fact(second, at(other_store), Measure::OnHand, "-4.5"),
        ]
    );
}

#[test]
fn a_promise_tied_to_no_store_is_not_stock_anywhere() {
    let read = read(&key("report/bystore/freeStock"), REPORT_FREE).expect("readable");
    assert_eq!(read[0], fact(ITEM, Place::At(STORE.into()), Measure::Available, "4"));
    assert_eq!(read.iter().filter(|o| matches!(o, Observation::Fact(_))).count(), 3);
    assert_eq!(read[3], Observation::Irrelevant("a report row tied to no store".into()));
}

#[test]
fn a_number_under_recalculation_is_not_zero_and_is_asked_for_once_more() {
    let window = Need { key: "report/bystore/stock".into(), from: Some(ARRIVED) };
    let first = read(&window, REPORT_RECALCULATING).expect("readable");
    assert_eq!(first.iter().filter(|o| matches!(o, Observation::Fact(_))).count(), 2);
    let again = Need { key: "report/bystore/stock/again".into(), from: Some(ARRIVED) };
    assert_eq!(
        first[2..],
        [Observation::Irrelevant("a report row under recalculation".into()), Observation::Fetch(again.clone())]
    );
    assert_eq!(target(&again), target(&window));
    let second = read(&again, REPORT_RECALCULATING).expect("readable");
    assert!(
        !second.iter().any(|o| matches!(o, Observation::Fetch(_))),
        "once: a stuck recalculation is not polled for ever"
    );
    let item = read(&key(&format!("item/bystore/stock/{ITEM}")), REPORT_RECALCULATING).expect("readable");
    assert!(!item.iter().any(|o| matches!(o, Observation::Fetch(_))));
}

#[test]
fn the_vendors_window_sample_calls_the_default_number_quantity() {
    let read = read(&key("report/all/stock"), REPORT_ALL).expect("readable");
    assert_eq!(read[0], fact(ITEM, Place::Default, Measure::OnHand, "1"));
    assert_eq!(read.len(), 2);
}

#[test]
fn an_empty_report_says_nothing() {
    let read = read(&key("report/bystore/stock"), b"[]").expect("readable");
    assert_eq!(read, [Observation::Irrelevant("a report without rows".into())]);
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let cause = |row: &str| read(&key("report/bystore/stock"), format!("[{row}]").as_bytes()).expect_err("unreadable").0;
    let row = |number: &str| format!(r#"{{"assortmentId":"a1","storeId":"s1"{number}}}"#);
    assert_eq!(cause(&row("")), "the report's row of a1: the number is missing");
    assert_eq!(cause(&row(r#","freeStock":1"#)), "the report's row of a1: the number is missing");
    assert_eq!(cause(&row(r#","stock":"7""#)), "the report's row of a1: the number is not a decimal number");
    assert_eq!(
        cause(&row(r#","stock":1e99"#)),
        "the report's row of a1: the number is out of range (at most 9223372036854.775807)"
    );
    assert_eq!(
        cause(r#"{"assortmentId":"a/1","storeId":"s1","stock":1}"#),
        "the report's row of a/1: assortmentId is not an id"
    );
    assert_eq!(cause(r#"{"assortmentId":"a1","storeId":"","stock":1}"#), "the report's row of a1: storeId is not an id");
    assert_eq!(cause("{}"), "not a stock report: JSON trouble at line 1, column 3");
    assert!(read(&key("report/bystore/stock"), ERROR_1073).is_err());
}

#[test]
fn the_assortment_gives_the_chosen_field_of_the_very_item() {
    let sku = |field: &str, item: &str| {
        let (source, problems) = built(json!({"sku": field}));
        assert_eq!(problems, []);
        source.read(&key(&format!("catalogue/{item}")), SENT, ASSORTMENT).expect("readable")
    };
    let is = |sku: &str| vec![Observation::Catalogue { item: ITEM.into(), sku: sku.into() }];
    assert_eq!(sku("code", ITEM), is("00042"));
    assert_eq!(sku("article", ITEM), is("KET-1"));
    assert_eq!(sku("externalCode", ITEM), is("x9dK"));
    assert!(matches!(sku("code", STORE).as_slice(), [Observation::Irrelevant(_)]), "another item's row is not taken");
    let nameless = br#"{"rows":[{"id":"a1","code":" "}]}"#;
    assert!(matches!(read(&key("catalogue/a1"), nameless).as_deref(), Ok([Observation::Irrelevant(_)])));
}

#[test]
fn waiting_times_are_milliseconds() {
    let need = key("report/bystore/stock");
    let wait = |headers: &[(&str, &str)]| judge(&need, 429, headers, b"", SENT);
    let all = [("x-lognex-retry-timeinterval", "3000"), ("x-lognex-reset", "1500"), ("x-lognex-retry-after", "1200")];
    assert_eq!(wait(&all), Verdict::Retry(Some(Duration::from_millis(1200))));
    assert_eq!(wait(&all[..2]), Verdict::Retry(Some(Duration::from_millis(1500))));
    assert_eq!(wait(&all[..1]), Verdict::Retry(Some(Duration::from_secs(3))));
    assert_eq!(wait(&[("x-lognex-reset", "0"), ("retry-after", "2")]), Verdict::Retry(Some(Duration::from_secs(2))));
    assert_eq!(wait(&[("x-lognex-retry-after", "soon")]), Verdict::Retry(None));
}

#[test]
fn busy_is_later_and_other_errors_are_named() {
    let need = key("report/bystore/stock");
    assert_eq!(judge(&need, 200, &[], REPORT, SENT), Verdict::Done);
    assert_eq!(judge(&need, 429, &[], ERROR_1073, SENT), Verdict::Retry(None));
    assert_eq!(judge(&need, 403, &[], ERROR_1073, SENT), Verdict::Retry(None));
    assert_eq!(judge(&need, 503, &[], b"", SENT), Verdict::Retry(None));
    let gone = br#"{"errors":[{"error":"no","code":1021}]}"#;
    assert_eq!(judge(&need, 404, &[], gone, SENT), Verdict::GiveUp("the platform's API answered 404, error 1021".into()));
    assert_eq!(judge(&need, 415, &[], b"<html>", SENT), Verdict::GiveUp("the platform's API answered 415".into()));
}

#[test]
fn a_window_that_grew_too_old_is_given_up_with_advice() {
    let need = Need { key: "report/bystore/stock".into(), from: Some(ARRIVED) };
    let later = ARRIVED.plus(Duration::from_secs(24 * 3600));
    let Verdict::GiveUp(reason) = judge(&need, 400, &[], b"", later) else { panic!("given up") };
    assert!(reason.ends_with("reconcile instead"), "{reason}");
    assert_eq!(judge(&need, 400, &[], b"", SENT), Verdict::GiveUp("the platform's API answered 400".into()));
}

// ---- anything ------------------------------------------------------------------------------------------------------

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("report/bystore/stock".to_owned()),
        Just("report/all/quantity/again".to_owned()),
        Just(format!("item/bystore/freeStock/{ITEM}/{STORE}")),
        Just(format!("catalogue/{ITEM}")),
        "\\PC{0,40}",
    ]
}

proptest! {
    #[test]
    fn no_message_panics(query in "\\PC{0,60}", body in proptest::collection::vec(any::<u8>(), 0..300)) {
        with_message(&query, &body, |m| {
            drop(plain().identify(m));
            drop(plain().parse(m));
        });
    }

    #[test]
    fn no_window_leaves_the_bounds(text in "\\PC{0,30}") {
        let body = json!({"stockType": "stock", "reportUrl": format!("https://x/y?changedSince={text}")}).to_string();
        let from = need(&*plain(), &body).from.expect("a window");
        prop_assert!(from <= ARRIVED && ARRIVED.since(from) <= WINDOW_MAX);
    }

    #[test]
    fn no_answer_panics(
        key in any_key(),
        status in 100u16..600,
        header in "\\PC{0,12}",
        body in proptest::collection::vec(any::<u8>(), 0..300),
        now: i64,
    ) {
        let need = Need { key: key.as_str().into(), from: Some(ARRIVED) };
        drop(judge(&need, status, &[("x-lognex-retry-after", &header)], &body, Timestamp(now)));
        drop(read(&need, &body));
        drop(request(&need));
    }

    #[test]
    fn no_damage_to_a_report_panics(at in 0..REPORT.len(), byte: u8, cut in 0..REPORT.len()) {
        let mut body = REPORT.to_vec();
        body[at] = byte;
        drop(read(&key("report/bystore/stock"), &body));
        prop_assert!(read(&key("report/bystore/stock"), &REPORT[..cut]).is_err(), "a truncated report is not read");
    }

    #[test]
    fn a_key_reads_back(scope in 0..2usize, count in 0..3usize, item in "[A-Za-z0-9_-]{1,64}", store in proptest::option::of("[a-z0-9-]{1,64}"), again: bool) {
        let (scope, count) = (Scope::WORDS[scope].1, Count::WORDS[count].1);
        for ask in [
            Ask::Report { scope, count, again },
            Ask::Item { scope, count, item: &item, store: store.as_deref() },
            Ask::Catalogue { item: &item },
        ] {
            let key = ask.key();
            prop_assert_eq!(Ask::of(&key), Some(ask));
        }
    }
}
