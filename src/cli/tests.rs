//! What people read, letter by letter.

use http::StatusCode;

use super::client::{Failure, encoded, refused, target};
use super::completions::{Shell, script};
use super::known::Known;
use super::output::{Align, aligned, clean, shortened, size, table};
use super::{check, code, command, dead, drift, explain, man, sources, stock, verify, warehouses};
use crate::config::{self, Overrides};
use crate::stock::level::Value;
use crate::stock::level::{Incoming, Outcome, Position};
use crate::store::rows::PositionKey;
use crate::store::state::{NewEntry, State};
use crate::time::Timestamp;
use crate::types::{Change, Quantity, Secret, Stamp};

fn read<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("the form of the API")
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_command_has_a_page_and_is_completed() {
    let pages = man::pages().expect("writes into memory");
    for name in command().get_subcommands().map(clap::Command::get_name) {
        let page = pages.iter().find(|page| page.file == format!("stockgate-{name}.1"));
        assert!(page.is_some_and(|page| page.roff.contains(&format!(".TH stockgate-{name} "))), "{name}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(script(shell).contains(name), "{name} {shell:?}");
        }
    }
    assert!(pages.iter().any(|page| page.file == "stockgate-dead-retry.1"), "subcommands of subcommands, too");
}

#[test]
fn a_table_is_as_wide_as_its_cells_and_has_no_trailing_blanks() {
    let rows = [vec!["A-1".to_owned(), "5".to_owned()], vec!["Größe 42".to_owned(), "-6.25".to_owned()]];
    let expected = "SKU       QUANTITY\nA-1              5\nGröße 42     -6.25\n";
    assert_eq!(table(&[("SKU", Align::Left), ("QUANTITY", Align::Right)], &rows), expected);
    assert_eq!(aligned("> ", &[Align::Left, Align::Left], &[vec!["a".to_owned(), String::new()]]), "> a\n");
}

#[test]
fn sizes_have_one_place_and_never_too_many() {
    let sizes = [0, 1023, 1024, 1587, (1 << 20) - 1, 5 << 30].map(size);
    assert_eq!(sizes, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "5.0 GiB"]);
}

#[test]
fn a_platforms_text_cannot_steer_the_terminal() {
    assert_eq!(clean("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    assert_eq!(shortened("7f3a7f3a7f3a7f3a7f3a7f3a", 10), "7f3a7f3a..");
    assert_eq!(shortened("äöü", 3), "äöü");
}

#[test]
fn levels_are_a_table_with_exact_digits() {
    let page = read(
        r#"{"stock":[
            {"warehouse":"main","sku":"A-1","state":"tracked","quantity":9223372036854.775807,"source":"shop","since":"2026-11-21T03:00:43.120Z","ledger":17},
            {"warehouse":"main","sku":"B","state":"untracked","quantity":null,"source":"shop","since":"2026-11-21T03:00:43.120Z","ledger":18},
            {"warehouse":"depot","sku":"C","state":"unknown","quantity":null,"source":null,"since":null,"ledger":null}],"next":null}"#,
    );
    let expected = "\
WAREHOUSE  SKU              QUANTITY  SOURCE  SINCE
main       A-1  9223372036854.775807  shop    2026-11-21T03:00:43.120Z
main       B               untracked  shop    2026-11-21T03:00:43.120Z
depot      C                 unknown
";
    assert_eq!(stock::render(&page), expected);
}

#[test]
fn an_explanation_reads_from_the_number_to_its_reasons() {
    let explained = read(
        r#"{"warehouse":"main","sku":"A-1","state":"tracked","quantity":5,"source":"shopify-eu","since":"2026-11-21T03:00:43.120Z","ledger":17,
        "history":[
            {"kind":"changed","at":"2026-11-21T03:00:43.120Z","source":"shopify-eu","delivery":"7f3a9c1e-54b2-4f0e-9d3b-000000000001","record":90,"ledger":17,
             "before":{"state":"tracked","quantity":9},"after":{"state":"tracked","quantity":5},"rule":"newer-time","why":"newer source time"},
            {"kind":"ignored","at":"2026-11-21T02:58:01.000Z","source":"woo","delivery":"a1b2","record":80,
             "said":{"state":"tracked","quantity":12},"reason":"not-authority","why":"woo has no authority here"},
            {"kind":"ignored","at":"2026-11-21T02:50:00.000Z","source":"shopify-eu","delivery":"c3","record":70,"said":null,"reason":"duplicate","why":"the same delivery again"},
            {"kind":"changed","at":"2026-11-21T02:49:00.000Z","source":"shopify-eu","delivery":"c3","record":60,"ledger":3,
             "before":null,"after":{"state":"untracked","quantity":null},"rule":"first-report","why":"first report"}],
        "more":false,
        "reports":[
            {"source":"shopify-eu","state":"tracked","quantity":5,"counts":true,"source_time":null,"version":null,"deltas":0,"heard":"2026-11-21T03:00:43.120Z"},
            {"source":"woo","state":"tracked","quantity":12,"counts":false,"source_time":null,"version":null,"deltas":0,"heard":"2026-11-21T02:58:01.000Z"}]}"#,
    );
    let expected = "\
A-1 in main: 5   (from shopify-eu, since 2026-11-21T03:00:43.120Z, ledger #17)
  2026-11-21T03:00:43Z  shopify-eu  delivery 7f3a9c1e-54b2-4f0e..  9 -> 5             newer source time                   #17
  2026-11-21T02:58:01Z  woo         delivery a1b2                  said 12            ignored: woo has no authority here
  2026-11-21T02:50:00Z  shopify-eu  delivery c3                                       ignored: the same delivery again
  2026-11-21T02:49:00Z  shopify-eu  delivery c3                    none -> untracked  first report                        #3
reported by others, not counted:
  woo  12  last heard 2026-11-21T02:58:01Z
";
    assert_eq!(explain::render(&explained), expected);
}

#[test]
fn the_last_at_sign_divides_sku_and_warehouse() {
    let place = explain::place("mail@home-2@main").expect("reads");
    assert_eq!((place.sku.as_str(), place.warehouse.as_str()), ("mail@home-2", "main"));
    for bad in ["A-1", "@main", "A-1@", "@", ""] {
        assert_eq!(explain::place(bad), Err("write SKU@WAREHOUSE, for example A-1@main".to_owned()), "{bad}");
    }
}

#[test]
fn warehouses_are_a_table() {
    let list = read(
        r#"{"warehouses":[{"warehouse":"main","levels":3,"units":51.500001,"in_stock":2,"out":0,"negative":0,"low":1,"untracked":1,
        "this_hour":{"inflow":0,"outflow":0},"today":{"inflow":9,"outflow":6.5},"last_event":null}]}"#,
    );
    let expected = "\
WAREHOUSE      UNITS  IN STOCK  OUT  LOW  NEGATIVE  UNTRACKED  IN TODAY  OUT TODAY  LAST CHANGE
main       51.500001         2    0    1         0          1         9        6.5  never
";
    assert_eq!(warehouses::render(&list), expected);
}

#[test]
fn drift_is_a_table_with_a_line_for_each_number_that_differs() {
    let said = |source: &str, state: &str, quantity: &str| {
        format!(r#"{{"source":"{source}","state":"{state}","quantity":{quantity},"heard":"2026-11-21T03:00:43Z"}}"#)
    };
    let page = read(&format!(
        r#"{{"drift":[{{"warehouse":"hub","sku":"A-1","counts":{},"others":[{},{}]}}],"next":null}}"#,
        said("crm", "tracked", "5.5"),
        said("shop", "tracked", "12"),
        said("till", "untracked", "null")
    ));
    let expected = "\
WAREHOUSE  SKU  IN FORCE  BY     DIFFERS  AT    HEARD
hub        A-1       5.5  crm         12  shop  2026-11-21T03:00:43Z
hub        A-1       5.5  crm  untracked  till  2026-11-21T03:00:43Z
";
    assert_eq!(drift::render(&page), expected);
}

#[test]
fn sources_are_a_table() {
    let list = read(
        r#"{"sources":[
        {"source":"shop","kind":"shopify","path":"/in/shop/***","accepted":7,"duplicates":1,"ignored":2,"dead_letters_made":0,"fetch_tasks":3,
         "last_delivery":"2026-11-21T03:00:43.120Z","silence_seconds":7300},
        {"source":"gone","kind":null,"path":null,"accepted":1,"duplicates":0,"ignored":0,"dead_letters_made":0,"fetch_tasks":0,
         "last_delivery":null,"silence_seconds":null}]}"#,
    );
    let expected = "\
SOURCE  KIND            PATH          ACCEPTED  DUPLICATES  IGNORED  DEAD  FETCHING  LAST DELIVERY
shop    shopify         /in/shop/***         7           1        2     0         3  2026-11-21T03:00:43.120Z (2h ago)
gone    not configured                       1           0        0     0         0  never
";
    assert_eq!(sources::render(&list), expected);
    assert_eq!([59, 60, 3599, 86_399, 86_400].map(sources::span), ["59s", "1m", "59m", "23h", "1d"]);
}

const LETTER: &str = r#""id":7,"at":"2026-11-21T03:00:43.120Z","source":"bsale","cause":"unmapped-item","detail":"item 42 has no SKU yet",
    "record":90,"part":0,"fact":"item 42 at 1: 5","replaces":2,"waits_for":"42""#;

#[test]
fn dead_letters_are_a_table() {
    let page = read(&format!(r#"{{"dead_letters":[{{{LETTER}}}],"next":null}}"#));
    let expected = "\
ID  SINCE                     SOURCE  CAUSE          WHAT
 7  2026-11-21T03:00:43.120Z  bsale   unmapped-item  item 42 at 1: 5: item 42 has no SKU yet
";
    assert_eq!(dead::render(&page), expected);
}

#[test]
fn one_dead_letter_shows_all_of_it() {
    let shown = read(&format!(
        r#"{{{LETTER},"decoded":{{"kind":"delivery","received":"2026-11-21T03:00:43.120Z","source":"bsale","delivery":"d-1","key":null,"query":"",
        "headers":{{"x-topic":"stock"}},"body":{{"encoding":"utf-8","text":"{{\"a\":\n1\u001b}}","bytes":9,"truncated":false}}}},"record_problem":null}}"#
    ));
    let expected = "\
dead letter 7
  since           2026-11-21T03:00:43.120Z
  source          bsale
  cause           unmapped-item: item 42 has no SKU yet
  journal record  90
  says            item 42 at 1: 5
  waits for       42
  replaces        2 older numbers of the same item and place
  received        2026-11-21T03:00:43.120Z (delivery)
  delivery id     d-1
  header          x-topic: stock
  body (9 bytes):
{\"a\":
1\u{fffd}}
";
    assert_eq!(dead::render_one(&shown), expected);
}

#[test]
fn a_verification_says_what_is_wrong() {
    let ok = verify::Report { ok: true, entries: 3, positions: 2, problems: Vec::new(), lost: Vec::new() };
    assert_eq!(
        verify::render(&ok),
        "ok: 3 ledger entries and 2 levels, the chain is whole and every level follows from it\n"
    );
    let problems = vec!["the chain breaks at audit entry 2".to_owned()];
    let broken = verify::Report { ok: false, entries: 1, positions: 0, problems, lost: Vec::new() };
    let expected = "not ok: 1 ledger entries and 0 levels walked\n  the chain breaks at audit entry 2\n";
    assert_eq!(verify::render(&broken), expected);
}

#[test]
fn files_are_verified_without_a_gateway_and_never_made() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let reach = super::client::Reach::default();
    let missing = verify::in_files(dir.path(), &reach).err().expect("there is nothing");
    assert_eq!(missing.code, code::FAILURE);
    assert!(missing.message.ends_with("state.redb; --data names the directory that `stockgate serve` keeps"), "{missing}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("is there").count(), 0);
    {
        let mut state = State::open(dir.path(), 1 << 20).expect("opens");
        let at = Timestamp::from_seconds(1);
        let source = state.source_number("shop");
        let key = PositionKey { warehouse: state.warehouse_number("main"), sku: "A".into() };
        let mut position = Position::default();
        let change = Change::Absolute(Quantity::from_units(5).expect("in range"));
        let stamp = Stamp { version: None, at: None, seq: 1, part: 0 };
        let fact = Incoming { source, change, stamp, digest: [0; 8], by_content: false, heard: at };
        let (outcome, _) = position.apply(&fact, &[]).expect("in range");
        let Outcome::Changed { before, after, rule, .. } = outcome else { panic!("it is the first") };
        assert_eq!(after, Value::Tracked(Quantity::from_units(5).expect("in range")));
        let (warehouse, delivery, previous) = (key.warehouse, "", 0);
        let entry = NewEntry { at, warehouse, sku: "A", before, after, rule, source, record: 1, delivery, previous };
        position.last_change = state.append_audit(&entry);
        state.put_position(&key, &position);
        state.advance(1, at);
        state.checkpoint().expect("writes");
    }
    let report = verify::in_files(dir.path(), &reach).expect("opens");
    assert_eq!((report.ok, report.entries, report.positions), (true, 1, 1));
}

#[test]
fn a_refusal_becomes_a_sentence_and_an_exit_code() {
    let problem = |status: u16, body: &str| {
        refused("http://127.0.0.1:9780", StatusCode::from_u16(status).expect("a status"), body.as_bytes())
    };
    let not_found = problem(404, r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"no warehouse `x`"}"#);
    assert_eq!(not_found, Failure::new(code::FAILURE, "no warehouse `x`"));
    let refused = problem(422, r#"{"detail":"refused","problems":["stockgate.toml:3: a","stockgate.toml:4: b"]}"#);
    assert_eq!(refused, Failure::new(code::CONFIGURATION, "refused\nstockgate.toml:3: a\nstockgate.toml:4: b"));
    assert_eq!(problem(503, r#"{"detail":"full"}"#).code, code::TRY_AGAIN);
    let other = problem(404, "<html>");
    assert_eq!(other.message, "http://127.0.0.1:9780 answered 404 Not Found, and not as a stockgate admin API does");
}

#[test]
fn names_survive_a_request_target() {
    assert_eq!(encoded("A/1 +ö@%"), "A%2F1%20%2B%C3%B6%40%25");
    let query = [("sku", Some("A&b")), ("prefix", None), ("limit", Some("5"))];
    assert_eq!(target("/api/v1/stock", &query), "/api/v1/stock?sku=A%26b&limit=5");
    assert_eq!(target("/api/v1/stock", &[("sku", None)]), "/api/v1/stock");
}

#[test]
fn the_admin_address_is_read_from_a_configuration_with_unreadable_secrets() {
    let text = "[admin]\naddress = \"127.0.0.1:9999\"\n[source.shop]\nsecret_file = \"/nonexistent/secret\"\n";
    let admin = |text: &str| Known::of(text).expect("TOML").admin().map_err(|failure| failure.message);
    assert_eq!(admin(text), Ok(Some("127.0.0.1:9999".to_owned())));
    assert_eq!(admin(""), Ok(None));
    assert_eq!(
        admin("[admin]\naddress = 9780\n"),
        Err("stockgate.toml: admin.address is not text; `stockgate check --config` says more".to_owned())
    );
    assert_eq!(admin("[admin]\ntls = true\naddress = \"0.0.0.0:1\"\n"), Ok(Some("https://127.0.0.1:1".to_owned())));
    assert_eq!(admin("[admin]\ntls = true\naddress = \"[::]:1\"\n"), Ok(Some("https://[::1]:1".to_owned())));
    assert_eq!(admin("[admin]\ntls = true\n"), Ok(Some("https://127.0.0.1:9780".to_owned())));
}

#[test]
fn a_good_configuration_is_shown_with_what_it_would_do_and_no_secret() {
    let (checked, _) = config::built_in(&Secret::new("hush-hush-hush"), &Overrides::default(), &|_| None).expect("is good");
    let shown = check::render(&checked);
    let tail = "
# ok: this is what it would do
#   take deliveries at https://0.0.0.0:8443 with a self-made certificate for localhost, 127.0.0.1, ::1
#   answer its operator at http://127.0.0.1:9780
#   keep its data in stockgate-data
#   take generic (signed) at /in/generic for main
";
    assert!(shown.ends_with(tail), "{shown}");
    assert!(shown.starts_with("[listen]\n") && !shown.contains("hush"));
    assert!(shown.parse::<toml::Table>().is_ok(), "the whole is still TOML");
}

#[test]
fn a_bad_configuration_is_told_line_by_line() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let file = dir.path().join("stockgate.toml");
    std::fs::write(&file, "[log]\nlevel = \"loud\"\n[lissten]\n").expect("writes");
    let report = config::load(Some(&file), &Overrides::default(), &|_| None).expect_err("is bad");
    let told = check::refusal(&report);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("stockgate.toml:2: log.level: "), "{told}");
    assert!(lines[1].contains("stockgate.toml:3: lissten: "), "{told}");
    assert_eq!(lines.last(), Some(&"2 problems: not usable"));
}
