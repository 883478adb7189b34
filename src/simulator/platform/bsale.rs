//! Bsale: thin notices without id or signature; receptions name a variant, sales name a document; pages of stock.

use std::time::Duration;

use super::super::api::{Call, Reply};
use super::super::random::Random;
use super::super::truth::{Account, Change, Mapping, Numbers};
use super::{Clock, Ground, Hook, Manners, Moment, Platform, Retry, Wire, is_2xx, json_stock, numbered, site, stream};
use crate::types::Quantity;

pub(super) struct Bsale;

const MANNERS: Manners = Manners {
    deadline: Duration::from_secs(10),
    success: is_2xx,
    retry: Retry::Never,
    wire: Wire::KeepAlive,
    lanes: LANES,
    pace: Duration::from_millis(20),
    named: false,
    fresh: false,
    clock: Clock::Silent,
    batch: 1,
    api: true,
    numbers: Numbers { negative: false, grain: 10_000, untracked: false },
};

const LANES: usize = 4;
/// The account's number.
const COMPANY: u32 = 2;
/// What customers have put aside in every office.
const RESERVED: Quantity = Quantity::from_micros(2_500_000);
/// Largest page the API gives.
const PAGE_MAX: usize = 50;
/// Rows of a page when nobody says.
const PAGE: usize = 25;

/// The cells that a document sells: of one office, and all of the lane that wrote it. The document's number says it all, so
/// that documents need not be kept.
fn sold(account: &Account, document: u64) -> Vec<usize> {
    let lanes = LANES as u64;
    let sites = account.sites.len().max(1);
    let mut random = Random::new(document, 4);
    let office = random.index(sites);
    let lane = usize::try_from(document % lanes).unwrap_or(0);
    let own = account.goods.len().saturating_sub(lane).div_ceil(LANES);
    let mut cells = Vec::new();
    for _ in 0..=random.index(3) {
        let good = lane + LANES * random.index(own);
        let cell = good * sites + office;
        if !cells.contains(&cell) && cell < account.keys.len() {
            cells.push(cell);
        }
    }
    cells
}

impl Platform for Bsale {
    fn kind(&self) -> &'static str {
        "bsale"
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn account(&self, ground: Ground) -> Account {
        let mut random = stream(ground, self.kind());
        let goods = numbered(200 * ground.scale, 7000, "BSA", Mapping::InMessage);
        let sites = vec![site("1", "till-centro"), site("2", "till-sur")];
        let mut account = Account::new("bsale-cl", sites, goods, |_, _| true, MANNERS.numbers, ground.start, &mut random);
        account.token = Some(random.hex(32));
        account.credentials = vec![("token", random.hex(40))];
        account
    }

    fn settings(&self) -> &'static str {
        "account = 2\n"
    }

    fn message(&self, account: &Account, change: &Change, moment: Moment, _random: &mut Random) -> Hook {
        let (good, place) = account.names(change.cell);
        let body = format!(
            "{{\"cpnId\":{COMPANY},\"resource\":\"/v2/stocks.json?variant={0}&office={1}\",\"resourceId\":\"{0}\",\
             \"topic\":\"stock\",\"action\":\"put\",\"officeId\":\"{1}\",\"send\":{2}}}",
            good.id,
            place.id,
            moment.now.seconds()
        );
        Hook::json(String::new(), body)
    }

    fn document(&self, account: &Account, lane: usize, number: u64) -> Option<(Hook, Vec<usize>)> {
        let document = 14_416 + (LANES as u64) * number + lane as u64;
        let cells = sold(account, document);
        let office = cells.first().map(|cell| account.names(*cell).1.id.clone())?;
        let body = format!(
            "{{\"cpnId\":{COMPANY},\"resource\":\"/documents/{document}.json\",\"resourceId\":\"{document}\",\
             \"topic\":\"document\",\"action\":\"post\",\"officeId\":\"{office}\"}}"
        );
        Some((Hook::json(String::new(), body), cells))
    }

    fn api(&self, account: &Account, call: &Call<'_>) -> Reply {
        if call.header("access_token") != account.credential("token") {
            return Reply::error(401, r#"{"error":"Unauthorized"}"#);
        }
        if call.path == "/v1/stocks.json" {
            return stocks(account, call);
        }
        let id = |prefix: &str| call.path.strip_prefix(prefix).and_then(|r| r.strip_suffix(".json"));
        if let Some(document) = id("/v2/stocks/documents/").and_then(|d| d.parse().ok()) {
            let office = call.parameter("office");
            let here = |cell: &usize| office.as_ref().is_none_or(|wanted| account.names(*cell).1.id == *wanted);
            let rows: Vec<String> =
                sold(account, document).into_iter().filter(here).map(|c| row(account, c, true)).collect();
            return Reply::json(format!("{{\"code\":200,\"data\":[{}]}}", rows.join(",")));
        }
        match id("/v1/variants/").and_then(|v| account.good(v)) {
            Some(good) => Reply::json(format!(
                "{{\"href\":\"https://api.bsale.io/v1/variants/{0}.json\",\"id\":{0},\"description\":\"\",\"unlimitedStock\":0,\
                 \"state\":0,\"barCode\":\"\",\"code\":\"{1}\"}}",
                good.id, good.sku
            )),
            None => Reply::error(404, r#"{"error":"Not Found"}"#),
        }
    }

    fn busy(&self) -> Reply {
        Reply::error(429, r#"{"error":"Too Many Requests"}"#).with("retry-after", "1")
    }
}

fn stocks(account: &Account, call: &Call<'_>) -> Reply {
    let number = |name: &str, default: usize| call.parameter(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let (limit, offset) = (number("limit", PAGE).min(PAGE_MAX), number("offset", 0));
    let (variant, office) = (call.parameter("variantid"), call.parameter("officeid"));
    let expanded = call.parameter("expand").is_some_and(|e| e.trim_matches(['[', ']']).split(',').any(|w| w == "variant"));
    // An expanded answer is cut off at 25 rows without a word.
    let limit = if expanded { limit.min(PAGE) } else { limit };
    let found: Vec<usize> = (0..account.keys.len())
        .filter(|cell| {
            let (good, place) = account.names(*cell);
            variant.as_ref().is_none_or(|v| *v == good.id) && office.as_ref().is_none_or(|o| *o == place.id)
        })
        .collect();
    let rows: Vec<String> = found.iter().skip(offset).take(limit).map(|cell| row(account, *cell, expanded)).collect();
    Reply::json(format!(
        "{{\"href\":\"https://api.bsale.io/v1/stocks.json\",\"count\":{},\"limit\":{limit},\"offset\":{offset},\"items\":[{}]}}",
        found.len(),
        rows.join(",")
    ))
}

/// Ids are numbers here and texts in notices.
fn row(account: &Account, cell: usize, expanded: bool) -> String {
    let ((good, place), stock) = (account.names(cell), account.cell(cell).stock);
    let code =
        if expanded { format!(",\"id\":{},\"code\":\"{}\",\"unlimitedStock\":0", good.id, good.sku) } else { String::new() };
    format!(
        "{{\"href\":\"https://api.bsale.io/v1/stocks/{cell}.json\",\"id\":{cell},\"quantity\":{},\"quantityReserved\":{RESERVED},\
         \"quantityAvailable\":{},\"variant\":{{\"href\":\"https://api.bsale.io/v1/variants/{}.json\"{code}}},\
         \"office\":{{\"href\":\"https://api.bsale.io/v1/offices/{office}.json\",\"id\":\"{office}\"}}}}",
        json_stock(stock.and_then(|q| q.checked_add(RESERVED))),
        json_stock(stock),
        good.id,
        office = place.id,
    )
}
