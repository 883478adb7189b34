//! Kladana: a thin notification for many changes, no signature, 1.5 seconds to answer, and a report to fetch for a window.

use std::time::Duration;

use super::super::api::{Call, Reply};
use super::super::random::Random;
use super::super::truth::{Account, Change, Good, Mapping, Numbers};
use super::{Clock, Ground, Hook, Manners, Moment, Platform, Retry, Wire, eighth, site, stream};
use crate::time::Timestamp;
use crate::types::query_value;

pub(super) struct Kladana;

const MANNERS: Manners = Manners {
    deadline: Duration::from_millis(1500),
    success: |status| status == 200 || status == 204,
    retry: Retry::AtOnce(3),
    wire: Wire::KeepAlive,
    lanes: 1,
    pace: Duration::from_millis(100),
    named: true,
    fresh: false,
    clock: Clock::Silent,
    batch: 12,
    api: true,
    numbers: Numbers { negative: true, grain: 500_000, untracked: false },
};

/// All times are Moscow's, without an offset.
const MOSCOW: i64 = 3;
const ACCOUNT: &str = "f71cb8b6-f7b5-11ec-ac12-000f000000eb";
const STORES: [&str; 2] = ["12345678-b123-aaee-0a80-012b0001bb10", "12345678-b123-aaee-0a80-012b0001bb12"];
/// One report in so many finds a row under recalculation.
const RECALCULATION_EVERY: u64 = 7;
/// The window reaches back at most so long.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

impl Platform for Kladana {
    fn kind(&self) -> &'static str {
        "kladana"
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn account(&self, ground: Ground) -> Account {
        let mut random = stream(ground, self.kind());
        let goods = (0..250 * ground.scale)
            .map(|n| Good { id: random.uuid(), sku: format!("KLA-{:05}", n + 1), mapping: eighth(n, Mapping::Configured) })
            .collect();
        let sites = vec![site(STORES[0], "crm-east"), site(STORES[1], "crm-west")];
        // What changed before the platform's first message is outside of every window.
        let long_ago = Timestamp(ground.start.0.saturating_sub(48 * 3_600_000_000));
        let mut account = Account::new("kladana", sites, goods, |_, _| true, MANNERS.numbers, long_ago, &mut random);
        account.token = Some(random.hex(32));
        account.credentials = vec![("token", random.hex(40))];
        account
    }

    fn settings(&self) -> &'static str {
        "account = \"f71cb8b6-f7b5-11ec-ac12-000f000000eb\"\n"
    }

    fn message(&self, _account: &Account, _change: &Change, moment: Moment, random: &mut Random) -> Hook {
        // The URL has a raw space, as the vendor sends it.
        let body = format!(
            "{{\"accountId\":\"{ACCOUNT}\",\"stockType\":\"stock\",\"reportType\":\"bystore\",\
             \"reportUrl\":\"https://api.kladana.com/api/remap/1.2/report/stock/bystore/current?changedSince={}\"}}",
            moment.since.format_naive(MOSCOW)
        );
        Hook::json(random.uuid(), body)
    }

    fn api(&self, account: &Account, call: &Call<'_>) -> Reply {
        if !call.header("accept-encoding").contains("gzip") {
            return error(415, 1062, "The header Accept-Encoding must allow gzip");
        }
        if call.header("authorization") != format!("Bearer {}", account.credential("token")) {
            return error(401, 1056, "Access token is not valid");
        }
        let mut reply = match call.path.strip_prefix("/api/remap/1.2/") {
            Some("report/stock/bystore/current") => report(account, call),
            Some("entity/assortment") => assortment(account, call),
            _ => error(404, 1002, "Unknown path"),
        };
        reply.gzip = true;
        reply.with("x-ratelimit-limit", "45").with("x-ratelimit-remaining", "44").with("x-lognex-retry-timeinterval", "3000")
    }

    /// Waits are in milliseconds here.
    fn busy(&self) -> Reply {
        error(429, 1049, "Too many requests").with("x-lognex-retry-after", "250").with("x-lognex-reset", "250")
    }
}

fn error(status: u16, code: u32, message: &str) -> Reply {
    Reply::error(status, &format!("{{\"errors\":[{{\"error\":\"{message}\",\"code\":{code}}}]}}"))
}

fn report(account: &Account, call: &Call<'_>) -> Reply {
    let since = match call.parameter("changedSince") {
        None => None,
        Some(text) => match Timestamp::parse_naive(&text, MOSCOW) {
            Some(at) if at <= call.now && call.now.since(at) <= WINDOW_MAX => Some(at),
            _ => return error(412, 3006, "changedSince must lie within the last 24 hours"),
        },
    };
    let filter = call.parameter("filter").unwrap_or_default().replace(';', "&");
    let wanted = |name: &str, id: &str| query_value(&filter, name).is_none_or(|only| only == id);
    let now = account.snapshot();
    let rows = now.iter().enumerate().filter(|(index, cell)| {
        let (good, store) = account.names(*index);
        since.is_none_or(|s| cell.moved >= s) && wanted("assortmentId", &good.id) && wanted("storeId", &store.id)
    });
    let indexes: Vec<usize> = rows.map(|(index, _)| index).collect();
    let recalculating = recalculating(account, call, &indexes);
    let mut out = vec![format!("{{\"assortmentId\":\"{}\",\"storeId\":null,\"stock\":-5}}", account.names(0).0.id)];
    for index in indexes {
        let (good, store) = account.names(index);
        let stock = now.get(index).and_then(|cell| cell.stock).filter(|_| recalculating != Some(index));
        let shown = super::json_stock(stock);
        if recalculating != Some(index) || call.parameter("withRecalculate").as_deref() == Some("true") {
            out.push(format!("{{\"assortmentId\":\"{}\",\"storeId\":\"{}\",\"stock\":{shown}}}", good.id, store.id));
        }
    }
    Reply::json(format!("[{}]", out.join(",")))
}

/// A row whose number is being calculated anew at this moment. When that is done the row counts as changed, so it is in the
/// next notification's window.
fn recalculating(account: &Account, call: &Call<'_>, rows: &[usize]) -> Option<usize> {
    if account.is_calm() || !account.count_call().is_multiple_of(RECALCULATION_EVERY) {
        return None;
    }
    let row = rows.last().copied()?;
    account.recalculated(&[row], call.now);
    Some(row)
}

fn assortment(account: &Account, call: &Call<'_>) -> Reply {
    let filter = call.parameter("filter").unwrap_or_default();
    let good = filter.strip_prefix("id=").and_then(|id| account.good(id));
    let row = good.map(|good| {
        format!(
            "{{\"meta\":{{\"type\":\"product\"}},\"id\":\"{}\",\"name\":\"Item\",\"code\":\"{}\",\"externalCode\":\"x-{1}\"}}",
            good.id, good.sku
        )
    });
    Reply::json(format!(
        "{{\"context\":{{}},\"meta\":{{\"size\":{}}},\"rows\":[{}]}}",
        u8::from(row.is_some()),
        row.unwrap_or_default()
    ))
}
