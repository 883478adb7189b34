//! The fakes against the adapters, and the truth against a plain model of what was delivered. No sockets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Map;

use super::api::{self, Call};
use super::sender::attempt;
use super::sign::SenderSettings;
use super::traffic::{Outcome, Shot, Then};
use super::*;
use crate::sources::{self, ApiAnswer, Credentials, Source, Verdict};
use crate::types::{Change, Fact, HeaderList, Identity, Message, Need, Observation, Place, Secret, Settings};

const START: Timestamp = Timestamp::from_seconds(1_763_000_000);

fn world(seed: u64) -> World {
    World::starting_at(seed, 1, START)
}

fn by_kind<'w>(world: &'w World, kind: &str) -> &'w Simulated {
    world.accounts().iter().find(|s| s.platform.kind() == kind).expect("simulated")
}

fn adapter_of(simulated: &Simulated) -> Box<dyn Source> {
    let table: toml::Table = simulated.platform.settings().parse().expect("TOML");
    let serde_json::Value::Object(map) = serde_json::to_value(table).expect("JSON") else { panic!("a table") };
    let mut settings = Settings::new("source.x", map);
    let adapter = (sources::kind(simulated.platform.kind()).expect("a kind").build)(&mut settings);
    assert_eq!(settings.finish(), []);
    adapter
}

fn headers(fields: &[(String, String)]) -> HeaderList<'_> {
    HeaderList(fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect())
}

/// A number as the model keeps it.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    at: Option<Timestamp>,
    arrival: u64,
    stock: Option<Quantity>,
}

/// Takes deliveries in as a gateway should, as simply as can be: the newest stamp of each place stands.
struct Plain<'w> {
    simulated: &'w Simulated,
    adapter: Box<dyn Source>,
    settings: SenderSettings,
    arrivals: u64,
    known: BTreeSet<Vec<Vec<u8>>>,
    skus: BTreeMap<String, String>,
    places: BTreeMap<(String, String), Held>,
    needs: BTreeMap<String, Need>,
    taken: u64,
    forged: u64,
    equal: u64,
}

impl<'w> Plain<'w> {
    fn new(simulated: &'w Simulated) -> Self {
        let configured = simulated.account.goods.iter().filter(|good| good.mapping == Mapping::Configured);
        Self {
            simulated,
            adapter: adapter_of(simulated),
            settings: SenderSettings::new(simulated.platform.kind(), &Map::new()).unwrap(),
            arrivals: 0,
            known: BTreeSet::new(),
            skus: configured.map(|good| (good.id.clone(), good.sku.clone())).collect(),
            places: BTreeMap::new(),
            needs: BTreeMap::new(),
            taken: 0,
            forged: 0,
            equal: 0,
        }
    }

    /// True when the delivery is genuine.
    fn deliver(&mut self, shot: &Shot, now: Timestamp) -> bool {
        let account = &self.simulated.account;
        let sent = attempt(self.simulated.platform, account, &self.settings, shot, now);
        let (path, query) = sent.target.split_once('?').unwrap_or((&sent.target, ""));
        let expected =
            account.token.as_ref().map_or(format!("/in/{}", account.name), |t| format!("/in/{}/{t}", account.name));
        let fields = headers(&sent.headers);
        let message = Message { query, headers: &fields, body: &shot.hook.body, received_at: now };
        let secrets: Vec<Secret> = account.secret.iter().cloned().collect();
        if path != expected || self.adapter.authenticate(&message, &secrets).is_err() {
            self.forged += 1;
            return false;
        }
        self.taken += 1;
        self.arrivals += 1;
        assert_eq!(self.adapter.greet("POST", &message), None);
        if let Identity::Named(parts) = self.adapter.identify(&message)
            && !self.known.insert(parts)
        {
            return true;
        }
        // only what the gateway keeps is there when the fold reads the message
        let kept = self.adapter.kept_headers();
        let fields = HeaderList(fields.0.into_iter().filter(|(name, _)| kept.iter().any(|k| k == name)).collect());
        let message = Message { query, headers: &fields, body: &shot.hook.body, received_at: now };
        let observations = self.adapter.parse(&message).expect("readable");
        assert!(!observations.is_empty());
        self.observe(observations, self.arrivals, None);
        true
    }

    fn observe(&mut self, observations: Vec<Observation>, arrival: u64, sent_at: Option<Timestamp>) {
        for observation in observations {
            match observation {
                Observation::Fact(fact) => self.fact(&fact, arrival, sent_at),
                Observation::Fetch(need) => drop(self.needs.insert(need.key.to_string(), need)),
                Observation::Catalogue { item, sku } => drop(self.skus.insert(item.to_string(), sku.to_string())),
                Observation::Irrelevant(_) => assert!(sent_at.is_some(), "a platform sends nothing without meaning"),
            }
        }
    }

    fn fact(&mut self, fact: &Fact, arrival: u64, sent_at: Option<Timestamp>) {
        if let Some(sku) = &fact.item.sku {
            self.skus.insert(fact.item.id.to_string(), sku.to_string());
        }
        if !self.skus.contains_key(&*fact.item.id)
            && let Some(need) = self.adapter.catalogue(&fact.item.id)
        {
            self.needs.insert(need.key.to_string(), need);
        }
        let stock = match fact.change {
            Change::Absolute(quantity) => Some(quantity),
            Change::Untracked => None,
            Change::Delta(_) | Change::Deleted => panic!("no platform says this: {fact:?}"),
        };
        let place = match &fact.place {
            Place::Default => "",
            Place::At(place) => place,
            Place::Everywhere => panic!("no platform says this: {fact:?}"),
        };
        let new = Held { at: fact.said.at.filter(|at| Some(*at) != sent_at), arrival, stock };
        let key = (fact.item.id.to_string(), place.to_owned());
        let Some(old) = self.places.get_mut(&key) else {
            self.places.insert(key, new);
            return;
        };
        let order = new.at.zip(old.at).map_or(std::cmp::Ordering::Equal, |(new, old)| new.cmp(&old));
        if order == std::cmp::Ordering::Equal && new.at.is_some() && new.stock != old.stock && sent_at.is_none() {
            self.equal += 1;
            let location = Some(place).filter(|p| !p.is_empty());
            if let Some(need) = self.adapter.settle(&fact.item.id, location) {
                self.needs.insert(need.key.to_string(), need);
            }
        }
        if order.is_gt() || (order.is_eq() && new.arrival >= old.arrival) {
            *old = new;
        }
    }

    /// Ask the platform's API what is open. True when there is more to ask.
    fn fetch(&mut self, now: Timestamp) -> bool {
        let open = std::mem::take(&mut self.needs);
        for need in open.into_values() {
            if !self.ask(&need, now) {
                self.needs.insert(need.key.to_string(), need);
            }
        }
        !self.needs.is_empty()
    }

    fn ask(&mut self, need: &Need, now: Timestamp) -> bool {
        let account = &self.simulated.account;
        let credentials =
            Credentials(account.credentials.iter().map(|(n, v)| ((*n).to_owned(), Secret::new(v.as_bytes()))).collect());
        self.arrivals += 1;
        let arrival = self.arrivals;
        let mut page: Option<String> = None;
        loop {
            let request = self.adapter.request(need, page.as_deref(), &credentials).expect("the adapter's own need");
            let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
            let mut fields: Vec<(&str, &str)> = request.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            fields.push(("accept-encoding", "gzip"));
            let fields = HeaderList(fields);
            let reply = api::answer(self.simulated.platform, account, &Call { path, query, headers: &fields, now });
            let answered = HeaderList(reply.headers.iter().map(|(n, v)| (*n, v.as_str())).collect());
            let answer = ApiAnswer { status: reply.status, headers: &answered, body: reply.body.as_bytes() };
            let verdict = self.adapter.judge(need, &answer, now);
            if matches!(verdict, Verdict::Retry(_)) {
                assert_eq!(reply.status, 429, "{need:?}: {}", reply.body);
                return false;
            }
            assert!(matches!(verdict, Verdict::Done | Verdict::Next(_)), "{need:?}: {verdict:?} {}", reply.body);
            let observations = self.adapter.read(need, now, reply.body.as_bytes()).expect("readable");
            self.observe(observations, arrival, Some(now));
            match verdict {
                Verdict::Next(next) => page = Some(next),
                _ => return true,
            }
        }
    }

    /// Level by warehouse and SKU.
    fn levels(&self) -> BTreeMap<Position, Option<Quantity>> {
        let warehouse = |place: &str| {
            self.simulated.account.sites.iter().find(|site| site.id == place).expect("a place of the account").warehouse
        };
        self.places
            .iter()
            .filter_map(|((item, place), held)| {
                Some(((warehouse(place).to_owned(), self.skus.get(item)?.clone()), held.stock))
            })
            .collect()
    }
}

/// Deliver `steps` of every lane of an account in turn, `trouble` in a thousand deliveries failing.
fn play(simulated: &Simulated, lanes: Vec<Lane>, steps: usize, trouble: u64) -> Plain<'_> {
    let mut gateway = Plain::new(simulated);
    let mut luck = random::Random::new(trouble, steps as u64);
    let mut now = START.plus(HEAD_START);
    let mut lanes = lanes;
    for step in 0..steps {
        for lane in &mut lanes {
            now = now.plus(Duration::from_millis(2));
            for shot in lane.step(now) {
                attempt_one(&mut gateway, lane, shot, now, &mut luck, trouble);
            }
        }
        if step % 7 == 0 {
            gateway.fetch(now);
        }
    }
    simulated.account.calm_down();
    for lane in &mut lanes {
        for round in 0.. {
            assert!(round < 1000, "the end never comes");
            now = now.plus(Duration::from_millis(200));
            let shots = lane.finish(now);
            if shots.is_empty() {
                break;
            }
            for shot in shots {
                attempt_one(&mut gateway, lane, shot, now, &mut luck, trouble / 2);
            }
        }
        assert_eq!(lane.owed(), 0);
    }
    while gateway.fetch(now) {
        now = now.plus(Duration::from_secs(1));
    }
    gateway
}

fn attempt_one(
    gateway: &mut Plain<'_>,
    lane: &mut Lane,
    mut shot: Shot,
    now: Timestamp,
    luck: &mut random::Random,
    trouble: u64,
) {
    loop {
        let outcome = match luck.below(1000) {
            // the gateway took it and the answer got lost
            n if n < trouble / 2 => {
                gateway.deliver(&shot, now);
                Outcome::Silence
            }
            n if n < trouble => Outcome::Refused,
            _ if gateway.deliver(&shot, now) => Outcome::Taken,
            _ => Outcome::Refused,
        };
        if lane.answered(&mut shot, outcome) == Then::Go {
            return;
        }
    }
}

fn truth_of(simulated: &Simulated) -> BTreeMap<Position, Option<Quantity>> {
    let account = &simulated.account;
    let cells = account.snapshot();
    let told = cells.iter().enumerate().filter(|(_, cell)| cell.told);
    told.map(|(index, cell)| {
        let (good, site) = account.names(index);
        ((site.warehouse.to_owned(), good.sku.clone()), cell.stock)
    })
    .collect()
}

fn assert_truth(simulated: &Simulated, gateway: &Plain<'_>) {
    let (truth, levels) = (truth_of(simulated), gateway.levels());
    let wrong: Vec<_> = truth.iter().filter(|(position, stock)| levels.get(*position) != Some(stock)).take(3).collect();
    assert!(
        wrong.is_empty(),
        "{}: {wrong:?}, shown as {:?}",
        simulated.account.name,
        wrong.iter().map(|(p, _)| levels.get(*p)).collect::<Vec<_>>()
    );
    let invented: Vec<_> = levels.keys().filter(|position| !truth.contains_key(*position)).take(3).collect();
    assert!(invented.is_empty(), "{}: {invented:?}", simulated.account.name);
}

#[test]
fn every_platform_is_understood_and_the_newest_number_of_each_place_is_the_truth() {
    let world = world(1);
    for simulated in world.accounts() {
        let lanes = world.lanes(simulated);
        let steps = 1600 / lanes.len();
        let gateway = play(simulated, lanes, steps, 0);
        assert_truth(simulated, &gateway);
        let manners = simulated.platform.manners();
        assert!(gateway.forged > 0, "{}: the forger has been here", simulated.account.name);
        let coarse = matches!(manners.clock, platform::Clock::Seconds { .. });
        assert_eq!(gateway.equal > 0, coarse, "{}: equal stamps come from one-second clocks", simulated.account.name);
        assert!(truth_of(simulated).len() > 40, "{}", simulated.account.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn whatever_goes_wrong_on_the_way_the_end_is_the_truth(seed: u64, steps in 5_usize..60, trouble in 0_u64..300) {
        let world = world(seed);
        for simulated in world.accounts() {
            // What arrives last counts where nothing tells the order: a lost answer makes no difference there.
            let gateway = play(simulated, world.lanes(simulated), steps, trouble);
            assert_truth(simulated, &gateway);
        }
    }
}

/// Everything that a world's lanes send in their first steps, when every delivery is taken.
fn transcript(seed: u64) -> Vec<Shot> {
    let world = world(seed);
    let now = START.plus(HEAD_START);
    let mut all = Vec::new();
    for simulated in world.accounts() {
        for mut lane in world.lanes(simulated) {
            for _ in 0..30 {
                for mut shot in lane.step(now) {
                    lane.answered(&mut shot, Outcome::Taken);
                    all.push(shot);
                }
            }
        }
    }
    all
}

#[test]
fn the_same_seed_sends_the_same_bytes_and_another_seed_others() {
    let first = transcript(7);
    assert!(first.len() > 1000);
    assert_eq!(first, transcript(7));
    assert_ne!(first, transcript(8));
}

#[test]
fn the_faults_of_the_real_world_occur() {
    let shots = transcript(3);
    let of =
        |name: &str| -> Vec<&Shot> { shots.iter().filter(|s| s.hook.headers.iter().any(|(n, _)| *n == name)).collect() };
    let shopify = of("x-shopify-event-id");
    let ids: BTreeSet<&str> = shopify.iter().map(|s| s.hook.id.as_str()).collect();
    assert!(ids.len() < shopify.len(), "some deliveries are repeats under their id");
    assert!(shopify.iter().any(|s| s.attempt == 1), "some are retries");
    let versions: Vec<(usize, u32)> = shopify.iter().flat_map(|s| s.covers.clone()).collect();
    let overtaken = versions.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].1 > pair[1].1);
    assert!(overtaken, "some arrive before an older one");
    assert!(shots.iter().any(|s| s.forged));
    let nameless = platform::PLATFORMS.iter().filter(|p| p.kind() == "shopify").count();
    let unknown = shopify.iter().filter(|s| String::from_utf8_lossy(&s.hook.body).contains(":271878346596884015,")).count();
    assert_eq!(unknown, nameless, "one item that nobody knows");
}

#[test]
fn woocommerce_gives_two_deliveries_of_one_second_the_same_id() {
    let world = world(5);
    let woo = by_kind(&world, "woocommerce");
    let settings = SenderSettings::new("woocommerce", &Map::new()).unwrap();
    let mut lane = world.lanes(woo).remove(0);
    let now = Timestamp::from_seconds(1_763_003_600);
    let sent: Vec<_> =
        (0..4).flat_map(|_| lane.step(now)).map(|shot| attempt(woo.platform, &woo.account, &settings, &shot, now)).collect();
    let id = |a: &super::sender::Attempt| a.headers.iter().find(|(n, _)| n == "x-wc-webhook-delivery-id").unwrap().1.clone();
    assert!(sent.iter().all(|a| id(a) == id(&sent[0])));
    let later = attempt(woo.platform, &woo.account, &settings, &lane.step(now)[0], now.plus(Duration::from_secs(1)));
    assert_ne!(id(&later), id(&sent[0]));
}

#[test]
fn jetti_repeats_a_body_when_a_number_returns() {
    let world = world(2);
    let jetti = by_kind(&world, "jetti");
    let mut seen_return = false;
    for mut lane in world.lanes(jetti) {
        let bodies: Vec<_> = (0..200).flat_map(|_| lane.step(START)).filter(|s| !s.forged).map(|s| s.hook.body).collect();
        seen_return |= bodies.windows(3).any(|w| w[0] == w[2] && w[0] != w[1]);
    }
    assert!(seen_return);
}

#[test]
fn pings_come_before_anything_is_signed() {
    let world = world(1);
    for (kind, method, body) in [("woocommerce", "POST", ""), ("shippingbo", "GET", "Pong")] {
        let simulated = by_kind(&world, kind);
        let hook = simulated.platform.greeting().expect("it greets");
        let fields = HeaderList(hook.headers.iter().map(|(n, v)| (*n, v.as_str())).collect());
        let message = Message { query: "", headers: &fields, body: &hook.body, received_at: START };
        assert_eq!(hook.method.as_str(), method);
        let greeting = adapter_of(simulated).greet(method, &message).expect("the adapter knows it");
        assert_eq!((greeting.status, greeting.body.as_str()), (200, body));
    }
}

#[test]
fn an_api_refuses_strangers_and_speaks_its_own_busy() {
    let world = world(1);
    let call = |kind: &str, path: &str, fields: &[(&str, &str)]| {
        let simulated = by_kind(&world, kind);
        let fields = HeaderList(fields.to_vec());
        simulated.platform.api(&simulated.account, &Call { path, query: "", headers: &fields, now: START }).status
    };
    assert_eq!(call("shopify", "/admin/api/2026-07/inventory_levels.json", &[("x-shopify-access-token", "x")]), 401);
    assert_eq!(call("woocommerce", "/wp-json/wc/v3/products/700", &[("authorization", "Basic eDp5")]), 401);
    assert_eq!(call("shippingbo", "/products/922957134", &[("authorization", "Bearer x")]), 401);
    assert_eq!(call("bsale", "/v1/stocks.json", &[("access_token", "x")]), 401);
    let report = "/api/remap/1.2/report/stock/bystore/current";
    assert_eq!(call("kladana", report, &[("accept-encoding", "gzip"), ("authorization", "Bearer x")]), 401);
    let token = by_kind(&world, "kladana").account.credential("token").to_owned();
    let bearer = format!("Bearer {token}");
    assert_eq!(call("kladana", report, &[("authorization", &bearer)]), 415, "compression is a must");
    assert_eq!(call("kladana", report, &[("authorization", &bearer), ("accept-encoding", "gzip")]), 200);

    let waits: Vec<Option<Duration>> = ["shopify", "woocommerce", "bsale", "kladana", "shippingbo"]
        .into_iter()
        .map(|kind| {
            let simulated = by_kind(&world, kind);
            let reply = simulated.platform.busy();
            let fields = HeaderList(reply.headers.iter().map(|(n, v)| (*n, v.as_str())).collect());
            let answer = ApiAnswer { status: reply.status, headers: &fields, body: reply.body.as_bytes() };
            let need = Need { key: "stock/1/1".into(), from: None };
            match adapter_of(simulated).judge(&need, &answer, START) {
                Verdict::Retry(wait) => wait,
                other => panic!("{kind}: {other:?}"),
            }
        })
        .collect();
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!(waits, [ms(500), ms(1000), ms(1000), ms(250), None]);
}

#[test]
fn the_shared_warehouse_shows_what_its_authority_says() {
    let world = world(4);
    let (shopify, svix) = (by_kind(&world, "shopify"), by_kind(&world, "standard-webhooks"));
    let shared = |simulated: &Simulated, sku: &str| {
        let account = &simulated.account;
        (0..account.keys.len())
            .find(|c| account.names(*c).0.sku == sku && account.names(*c).1.warehouse == SHARED.0)
            .unwrap()
    };
    let set = |simulated: &Simulated, sku: &str, units: i64| {
        let cell = shared(simulated, sku);
        simulated.account.assign(cell, Quantity::from_units(units), START, START);
        simulated.account.tell(std::iter::once(cell));
    };
    set(svix, "SHP-00001", 5);
    set(shopify, "SHP-00001", 9);
    set(svix, "SHP-00002", 7);
    let truth = world.truth();
    assert_eq!(truth.len(), 2);
    assert_eq!(truth[&("hub".to_owned(), "SHP-00001".to_owned())], Quantity::from_units(9));
    assert_eq!(truth[&("hub".to_owned(), "SHP-00002".to_owned())], Quantity::from_units(7));
}
