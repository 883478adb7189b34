//! The main job in one piece: seven simulated platforms against a real gateway over real TLS, through the command.

use crate::process::{run, stockgate};

#[test]
fn the_demo_balances_and_every_level_is_what_the_platforms_say() {
    let summary = run(stockgate().args(["demo", "--for", "2s", "--json", "--seed", "7"]), "").json();
    let number = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("{key} in {summary}"));
    assert_eq!(number("mismatches"), 0);
    assert_eq!(number("deliveries"), number("accepted") + number("duplicates") + number("rejected"));
    for key in
        ["deliveries", "accepted", "duplicates", "rejected", "dead_letters", "applied", "positions", "ledger_seq", "fetched"]
    {
        assert!(number(key) > 0, "{key} in {summary}");
    }
    assert_eq!(summary["sources"].as_array().map(Vec::len), Some(7));
    assert_eq!(summary["problems"].as_array().map(Vec::len), Some(0), "{summary}");
}
