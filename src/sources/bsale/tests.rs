use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::{Change, Fact, HeaderList, Item, Measure, Place, Problem, Quantity, Said};

const STOCK: &str = include_str!("fixtures/stock.json");
const DOCUMENT: &str = include_str!("fixtures/document.json");
const PRODUCT: &str = include_str!("fixtures/product.json");
const VARIANT: &str = include_str!("fixtures/variant.json");
const PRICE: &str = include_str!("fixtures/price.json");
const STOCKS_ONE: &str = include_str!("fixtures/stocks_one.json");
const STOCKS_PAGE: &str = include_str!("fixtures/stocks_page.json");
const STOCKS_EMPTY: &str = include_str!("fixtures/stocks_empty.json");
const DOCUMENT_STOCKS: &str = include_str!("fixtures/document_stocks.json");
const VARIANT_ANSWER: &str = include_str!("fixtures/variant_answer.json");

const SENT: Timestamp = Timestamp::from_seconds(1_503_500_900);

fn built(settings: Value) -> (Box<dyn Source>, Vec<Problem>) {
    let Value::Object(map) = settings else { panic!("an object") };
    let mut settings = Settings::new("source.b", map);
    let source = (KIND.build)(&mut settings);
    (source, settings.finish())
}

fn plain() -> Box<dyn Source> {
    built(json!({})).0
}

fn with_message<T>(body: &[u8], use_it: impl FnOnce(&Message<'_>) -> T) -> T {
    let headers = HeaderList::default();
    use_it(&Message { query: "", headers: &headers, body, received_at: Timestamp::from_seconds(1_503_500_857) })
}

fn parse(source: &dyn Source, body: &str) -> Result<Vec<Observation>, Unreadable> {
    with_message(body.as_bytes(), |m| source.parse(m))
}

fn fetched(body: &str) -> String {
    match parse(&*plain(), body).expect("readable").as_slice() {
        [Observation::Fetch(need)] => {
            assert_eq!(need.from, None);
            need.key.to_string()
        }
        other => panic!("one fetch, not {other:?}"),
    }
}

fn cause(body: &str) -> String {
    parse(&*plain(), body).expect_err("unreadable").0
}

fn key(key: &str) -> Need {
    Need { key: key.into(), from: None }
}

fn target(need: &Need, page: Option<&str>) -> Option<String> {
    plain().request(need, page, &Credentials::default()).map(|r| r.target)
}

fn read(need: &str, body: &str) -> Result<Vec<Observation>, Unreadable> {
    plain().read(&key(need), SENT, body.as_bytes())
}

fn judge(need: &str, status: u16, headers: &[(&str, &str)], body: &str) -> Verdict {
    let headers = HeaderList(headers.to_vec());
    plain().judge(&key(need), &ApiAnswer { status, headers: &headers, body: body.as_bytes() }, SENT)
}

fn absolute(quantity: &str) -> Change {
    Change::Absolute(quantity.parse::<Quantity>().expect("a quantity"))
}

fn fact(item: &str, sku: Option<&str>, office: &str, change: Change) -> Observation {
    Observation::Fact(Fact {
        item: Item { id: item.into(), sku: sku.map(Into::into) },
        place: Place::At(office.into()),
        measure: Measure::Available,
        change,
        said: Said { version: None, at: Some(SENT) },
    })
}

// ---- notices -------------------------------------------------------------------------------------------------------

#[test]
fn the_vendors_samples_ask_for_a_variant_at_an_office_and_for_a_document() {
    assert_eq!(fetched(STOCK), "stock/7079/1");
    assert_eq!(fetched(DOCUMENT), "document/14417");
}

#[test]
fn topics_that_move_no_stock_are_irrelevant_and_named() {
    for (body, reason) in [(PRODUCT, "topic product"), (VARIANT, "topic variant"), (PRICE, "topic price")] {
        assert_eq!(parse(&*plain(), body), Ok(vec![Observation::Irrelevant(reason.into())]));
    }
    let strange = PRODUCT.replace("product\"", "a new <b>thing</b>\"");
    assert_eq!(parse(&*plain(), &strange), Ok(vec![Observation::Irrelevant("a topic that is not known".into())]));
}

#[test]
fn two_movements_in_one_second_are_two_notices() {
    // Both movements of the second make the same notice, byte for byte. The naive key is equal for both, and the second
    // movement would never be asked about; as content, each asks, and two questions about one key are one.
    let naive = |body: &str| {
        let notice: Value = serde_json::from_str(body).expect("JSON");
        ["cpnId", "topic", "resourceId", "officeId", "send"].map(|k| notice[k].to_string())
    };
    let (first, second) = (STOCK.to_owned(), STOCK.to_owned());
    assert_eq!(naive(&first), naive(&second));
    for body in [&first, &second] {
        assert_eq!(with_message(body.as_bytes(), |m| plain().identify(m)), Identity::Content);
    }
    assert_eq!(fetched(&first), fetched(&second));
}

#[test]
fn ids_may_be_numbers_or_stand_in_the_resource_alone() {
    assert_eq!(fetched(r#"{"topic":"stock","resourceId":7079,"officeId":1}"#), "stock/7079/1");
    assert_eq!(fetched(r#"{"topic":"stock","resource":"/v2/stocks.json?variant=7079&office=1"}"#), "stock/7079/1");
    assert_eq!(fetched(r#"{"topic":"stock","resourceId":"7079"}"#), "stock/7079");
    assert_eq!(fetched(r#"{"topic":"document","resource":"/documents/14417.json?x=1"}"#), "document/14417");
    assert_eq!(
        fetched(r#"{"topic":"stock","resourceId":18446744073709551615,"officeId":"1"}"#),
        "stock/18446744073709551615/1"
    );
}

#[test]
fn ids_that_could_break_out_of_a_path_are_refused() {
    for bad in [r#""../1""#, r#""1/2""#, r#""1&officeid=2""#, r#""""#, r#""1e9""#, "1.5", "-1", "{}", "true"] {
        let body = format!(r#"{{"topic":"stock","resourceId":{bad},"officeId":"1"}}"#);
        assert_eq!(cause(&body), "resourceId is not a whole number", "{bad}");
    }
    let hidden = r#"{"topic":"stock","resource":"http://169.254.169.254/?variant=1%2F2"}"#;
    assert_eq!(cause(hidden), "an id of the notice's resource is not a whole number");
    for bad in ["", "a", "1/2", "123456789012345678901"] {
        assert_eq!(plain().catalogue(bad), None, "{bad}");
        assert_eq!(plain().settle("1", Some(bad)), None, "{bad}");
    }
}

#[test]
fn what_cannot_be_read_says_why_without_quoting_a_credential() {
    assert_eq!(cause("{}"), "not a notice: it has no topic");
    assert_eq!(cause(r#"{"topic":"stock"}"#), "a stock notice without resourceId or a variant in its resource");
    assert_eq!(
        cause(r#"{"topic":"document","resource":"/documents"}"#),
        "a document notice without resourceId or a document in its resource"
    );
    assert!(cause("{").starts_with("not a notice: JSON trouble at line 1"));
    assert!(!cause(r#""hush""#).contains("hush"));
    assert!(parse(&*plain(), &"[".repeat(100_000)).is_err());
    let courier = r#"{"topic":"courierOrder","userToken":"hush"}"#;
    assert_eq!(parse(&*plain(), courier), Ok(vec![Observation::Irrelevant("topic courierOrder".into())]));
}

#[test]
fn another_companys_notice_is_not_followed() {
    for account in [json!({"account": 2}), json!({"account": "2"})] {
        let (ours, problems) = built(account);
        assert_eq!(problems, []);
        assert!(parse(&*ours, STOCK).is_ok());
    }
    let (other, _) = built(json!({"account": 3}));
    let refused = |body: &str| parse(&*other, body).expect_err("of another company").0;
    assert_eq!(refused(STOCK), "a notice of company 2; this source is company 3");
    assert_eq!(refused(r#"{"topic":"stock","resourceId":1}"#), "cpnId is missing, so the company cannot be checked");
}

#[test]
fn settings_are_checked() {
    let (_, problems) = built(json!({"account": "two", "count": "reserved", "offices": []}));
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["source.b.account", "source.b.count", "source.b.offices"]);
}

#[test]
fn it_is_unsigned() {
    assert!(!plain().signed());
    assert_eq!(with_message(STOCK.as_bytes(), |m| plain().authenticate(m, &[])), Ok(0));
}

// ---- requests ------------------------------------------------------------------------------------------------------

#[test]
fn requests_are_paths_of_ours_with_encoded_brackets() {
    assert_eq!(
        target(&key("stock/7079/1"), None).as_deref(),
        Some("/v1/stocks.json?variantid=7079&officeid=1&limit=25&offset=0&expand=%5Bvariant%5D")
    );
    assert_eq!(
        target(&key("stock/7079"), Some("25")).as_deref(),
        Some("/v1/stocks.json?variantid=7079&limit=25&offset=25&expand=%5Bvariant%5D")
    );
    assert_eq!(target(&key("document/14417"), None).as_deref(), Some("/v2/stocks/documents/14417.json"));
    assert_eq!(target(&key("document/14417"), Some("50")).as_deref(), Some("/v2/stocks/documents/14417.json?offset=50"));
    assert_eq!(target(&key("catalogue/7079"), None).as_deref(), Some("/v1/variants/7079.json"));
    for foreign in ["", "stock", "stock/a/1", "stock/1/2/3", "document/../1", "catalogue/1?x"] {
        assert_eq!(target(&key(foreign), None), None, "{foreign}");
    }
    assert_eq!(target(&key("stock/1"), Some("25&officeid=9")), None);
    assert_eq!(target(&key("catalogue/1"), Some("25")), None);
}

#[test]
fn the_token_travels_in_its_header_and_does_not_print() {
    let credentials = Credentials(vec![("token".into(), Secret::new("t0ken\n"))]);
    let request = plain().request(&key("stock/7079/1"), None, &credentials).expect("a key of ours");
    assert_eq!(request.headers[0], ("access_token", "t0ken".to_owned()));
    assert!(!format!("{request:?}").contains("t0ken"));
}

#[test]
fn needs_of_items_have_the_keys_of_notices() {
    assert_eq!(plain().settle("7079", Some("1")), Some(key("stock/7079/1")));
    assert_eq!(plain().settle("7079", None), Some(key("stock/7079")));
    assert_eq!(plain().catalogue("7079"), Some(key("catalogue/7079")));
}

// ---- answers -------------------------------------------------------------------------------------------------------

#[test]
fn a_row_is_a_fact_of_the_moment_the_request_was_sent() {
    assert_eq!(read("stock/7079/1", STOCKS_ONE), Ok(vec![fact("7079", Some("KET-1"), "1", absolute("57.86"))]));
    assert_eq!(
        read("stock/351", STOCKS_PAGE),
        Ok(vec![fact("351", None, "2", absolute("60.36")), fact("351", None, "1", absolute("0"))])
    );
}

#[test]
fn the_physical_number_can_be_chosen() {
    let (source, problems) = built(json!({"count": "quantity"}));
    assert_eq!(problems, []);
    let read = source.read(&key("stock/7079/1"), SENT, STOCKS_ONE.as_bytes()).expect("readable");
    let [Observation::Fact(fact)] = read.as_slice() else { panic!("one fact") };
    assert_eq!((fact.measure, fact.change), (Measure::OnHand, absolute("60.36")));
}

#[test]
fn no_record_at_the_office_is_zero_there_and_an_overrun_page_is_not() {
    assert_eq!(read("stock/7079/1", STOCKS_EMPTY), Ok(vec![fact("7079", None, "1", absolute("0"))]));
    let nothing_said = Ok(vec![Observation::Irrelevant("a page of stock without rows".into())]);
    let overrun = r#"{"count":30,"limit":25,"offset":50,"items":[]}"#;
    assert_eq!(read("stock/7079/1", overrun), nothing_said);
    let emptied = r#"{"count":0,"limit":25,"offset":25,"items":[]}"#;
    assert_eq!(read("stock/7079/1", emptied), nothing_said);
    assert_eq!(read("stock/7079", STOCKS_EMPTY), nothing_said, "no office to be zero at");
    for broken in ["{}", r#"{"items":null}"#, r#"{"error":"no"}"#] {
        assert!(read("stock/7079/1", broken).is_err(), "{broken} is not an empty stock");
    }
}

#[test]
fn null_and_unlimited_are_not_zero() {
    let null = STOCKS_ONE.replace(r#""quantityAvailable":57.86"#, r#""quantityAvailable":null"#);
    assert_eq!(read("stock/7079/1", &null), Ok(vec![fact("7079", Some("KET-1"), "1", Change::Untracked)]));
    let unlimited = STOCKS_ONE.replace(r#""unlimitedStock":0"#, r#""unlimitedStock":1"#);
    assert_eq!(read("stock/7079/1", &unlimited), Ok(vec![fact("7079", Some("KET-1"), "1", Change::Untracked)]));
}

#[test]
fn ids_are_read_from_numbers_texts_and_links() {
    let row = |variant: &str, office: &str| {
        format!(r#"{{"items":[{{"quantityAvailable":-1,"variant":{variant},"office":{office}}}]}}"#)
    };
    let expected = Ok(vec![fact("351", None, "2", absolute("-1"))]);
    assert_eq!(read("stock/351/2", &row(r#"{"id":351}"#, r#"{"id":"2"}"#)), expected);
    let linked = row(r#"{"href":"https://api.bsale.cl/v1/variants/351.json"}"#, r#"{"href":"https://x/v1/offices/2.json"}"#);
    assert_eq!(read("stock/351/2", &linked), expected);
    let code = row(r#"{"id":351,"code":42}"#, r#"{"id":2}"#);
    assert_eq!(read("stock/351/2", &code), Ok(vec![fact("351", Some("42"), "2", absolute("-1"))]));
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let cause = |body: &str| read("stock/7079/1", body).expect_err("unreadable").0;
    assert_eq!(
        cause(&STOCKS_ONE.replace(r#""quantityAvailable":57.86"#, r#""quantityAvailable":"many""#)),
        "the stock of variant 7079: quantityAvailable is not a decimal number"
    );
    assert_eq!(
        cause(&STOCKS_ONE.replace(r#","quantityAvailable":57.86"#, "")),
        "the stock of variant 7079: quantityAvailable is missing"
    );
    assert_eq!(cause(r#"{"items":[{"quantityAvailable":1}]}"#), "a stock row without the id of its variant");
    assert_eq!(
        cause(r#"{"items":[{"quantityAvailable":1,"variant":{"id":7079}}]}"#),
        "the stock of variant 7079: its office has no id"
    );
}

#[test]
fn a_documents_rows_are_facts_or_questions() {
    assert_eq!(
        read("document/14417", DOCUMENT_STOCKS),
        Ok(vec![fact("7079", Some("KET-1"), "2", absolute("11")), fact("7080", None, "2", absolute("-1.5"))])
    );
    let vague = r#"{"data":[{"variant":{"id":7079},"quantityAvailable":3},{"variant":{"id":7080},"office":{"id":2}}]}"#;
    assert_eq!(
        read("document/14417", vague),
        Ok(vec![Observation::Fetch(key("stock/7079")), Observation::Fetch(key("stock/7080/2"))])
    );
    assert!(matches!(read("document/14417", r#"{"items":[]}"#).as_deref(), Ok([Observation::Irrelevant(_)])));
    assert!(read("document/14417", "{}").is_err());
}

#[test]
fn a_variant_gives_its_code_and_only_its_own() {
    let is = Observation::Catalogue { item: "7079".into(), sku: "KET-1".into() };
    assert_eq!(read("catalogue/7079", VARIANT_ANSWER), Ok(vec![is]));
    assert_eq!(
        read("catalogue/7080", VARIANT_ANSWER),
        Err(Unreadable("the answer for variant 7080 is about another one".into()))
    );
    let nameless = VARIANT_ANSWER.replace("KET-1", " ");
    assert_eq!(read("catalogue/7079", &nameless), Ok(vec![Observation::Irrelevant("the variant has no code".into())]));
    assert!(read("nothing/of/ours", STOCKS_ONE).is_err());
}

#[test]
fn pages_are_followed_by_what_has_arrived_until_the_count_is_reached() {
    assert_eq!(judge("stock/351", 200, &[], STOCKS_PAGE), Verdict::Next("2".into()));
    let last = STOCKS_PAGE.replace(r#""offset":0"#, r#""offset":1"#);
    assert_eq!(judge("stock/351", 200, &[], &last), Verdict::Done);
    assert_eq!(judge("stock/7079/1", 200, &[], STOCKS_ONE), Verdict::Done);
    assert_eq!(judge("stock/7079/1", 200, &[], STOCKS_EMPTY), Verdict::Done);
    assert_eq!(judge("catalogue/7079", 200, &[], VARIANT_ANSWER), Verdict::Done);
}

#[test]
fn of_a_next_link_only_the_offset_is_taken_and_only_forward() {
    let page = |next: &str| format!(r#"{{"offset":25,"next":"{next}","items":[{{}}]}}"#);
    assert_eq!(judge("stock/351", 200, &[], &page("http://169.254.169.254/?offset=50")), Verdict::Next("50".into()));
    assert_eq!(judge("stock/351", 200, &[], &page("https://x/?offset=25")), Verdict::Done, "it would ask for ever");
    assert_eq!(judge("stock/351", 200, &[], &page("https://x/?offset=a")), Verdict::Done);
}

#[test]
fn busy_waits_as_long_as_it_says() {
    assert_eq!(judge("stock/1", 429, &[("retry-after", "7")], ""), Verdict::Retry(Some(Duration::from_secs(7))));
    assert_eq!(judge("stock/1", 503, &[], ""), Verdict::Retry(None));
    assert_eq!(judge("stock/1", 404, &[], ""), Verdict::GiveUp("the platform's API answered 404".into()));
}

// ---- anything ------------------------------------------------------------------------------------------------------

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("stock/7079/1".to_owned()),
        Just("stock/7079".to_owned()),
        Just("document/14417".to_owned()),
        Just("catalogue/7079".to_owned()),
        "\\PC{0,30}",
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        with_message(&body, |m| {
            prop_assert_eq!(plain().identify(m), Identity::Content);
            drop(plain().parse(m));
            Ok(())
        })?;
    }

    #[test]
    fn no_resource_leads_anywhere_but_to_a_key_of_ours(resource in "\\PC{0,40}", id in "\\PC{0,12}") {
        let body = json!({"topic": "stock", "resource": format!("{resource}?variant={id}"), "officeId": "1"}).to_string();
        if let Ok(read) = parse(&*plain(), &body) {
            let [Observation::Fetch(need)] = read.as_slice() else { panic!("one fetch") };
            prop_assert!(target(need, None).is_some());
        }
    }

    #[test]
    fn no_answer_panics(
        key in any_key(),
        status in 100u16..600,
        header in "\\PC{0,12}",
        page in proptest::option::of("\\PC{0,12}"),
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let need = Need { key: key.as_str().into(), from: None };
        let headers = HeaderList(vec![("retry-after", header.as_str())]);
        drop(plain().judge(&need, &ApiAnswer { status, headers: &headers, body: &body }, SENT));
        drop(plain().read(&need, SENT, &body));
        drop(target(&need, page.as_deref()));
    }

    #[test]
    fn no_damage_to_an_answer_panics(key in any_key(), at in 0..STOCKS_PAGE.len(), byte: u8, cut in 0..STOCKS_PAGE.len()) {
        let need = Need { key: key.as_str().into(), from: None };
        let mut body = STOCKS_PAGE.as_bytes().to_vec();
        body[at] = byte;
        let headers = HeaderList::default();
        drop(plain().judge(&need, &ApiAnswer { status: 200, headers: &headers, body: &body }, SENT));
        drop(plain().read(&need, SENT, &body));
        prop_assert!(plain().read(&need, SENT, &STOCKS_PAGE.as_bytes()[..cut]).is_err(), "a truncated answer is not read");
    }
}
