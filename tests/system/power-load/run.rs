//! Seven platforms at work, until SIGTERM.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use stockgate::net::client::{Alpn, BaseUrl, Client, Trust, parse_fingerprint};
use stockgate::net::tls::{certificates, fingerprint_of};
use stockgate::simulator::sender::Target;
use stockgate::simulator::{Position, World};
use stockgate::time;
use tokio::signal::unix::{SignalKind, signal};

use super::Options;
use super::book;

/// How long to wait for the gateway's certificate, and at the end for its levels.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Write the site's configuration, send, wait for the levels.
pub(crate) fn run(options: &Options) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(Box::pin(send(options)))
}

async fn send(options: &Options) -> Result<String, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let (site, data) = (Path::new(options.get("--site")?), Path::new(options.get("--data")?));
    let writer = Arc::new(book::Writer::open(Path::new(options.get("--book")?))?);
    let world = World::new(options.number("--seed")?.unwrap_or(1), 1);
    let apis = world.start_apis().await.map_err(|error| format!("the simulated APIs do not start: {error}"))?;
    let io = |error: std::io::Error| format!("{}: {error}", site.display());
    world.write_files(site).map_err(io)?;
    // many checkpoints: the cuts are to meet them
    let more = "[store]\ncheckpoint = \"300ms\"\n";
    let text = format!("{}{more}", world.config_toml(&apis.ports, data));
    std::fs::write(site.join("unfinished"), text).map_err(io)?;
    std::fs::rename(site.join("unfinished"), site.join("stockgate.toml")).map_err(io)?;
    println!("configured");

    let base = |scheme: &str, name: &str| {
        let url = format!("{scheme}://{}", options.get(name)?);
        BaseUrl::parse(&url).map_err(|error| format!("{url}: {error}"))
    };
    let admin = base("http", "--admin")?;
    let target = Target { base: base("https", "--listen")?, fingerprint: fingerprint(data).await? };
    listening(&admin).await?;
    let rate = options.number("--rate")?.and_then(|rate| u32::try_from(rate).ok());
    let end = async move {
        terminate.recv().await;
    };
    let ran = Box::pin(world.run_until(&target, rate, Some(writer), end, |_| {})).await.map_err(|e| e.to_string())?;
    let mismatches = settle(&world, &admin).await?;
    apis.stop().await;
    let tally = ran.tally;
    let summary = format!(
        "{} taken, {} put off, {} without an answer, {} refused; {} never taken, {mismatches} levels are not their platform's",
        tally.ok, tally.other, tally.lost, tally.rejected, ran.undelivered
    );
    let well = ran.undelivered == 0 && mismatches == 0 && tally.slipped == 0 && tally.snubbed == 0;
    if well { Ok(summary) } else { Err(summary) }
}

/// The gateway's certificate, once it has made one. Read once: nothing of ours stays open on the gateway's disk.
async fn fingerprint(data: &Path) -> Result<[u8; 32], String> {
    let path = data.join("tls-cert.pem");
    let end = time::instant() + PATIENCE;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if let Some(found) = std::fs::read(&path).ok().and_then(|pem| certificates(&pem).ok())
            && let Some(certificate) = found.first()
        {
            return Ok(parse_fingerprint(&fingerprint_of(certificate)).expect("a fingerprint"));
        }
        if time::instant() > end {
            return Err(format!("{} does not come", path.display()));
        }
    }
}

/// Wait until the gateway answers: its certificate is there before it listens, and what is sent in between has no answer.
async fn listening(admin: &BaseUrl) -> Result<(), String> {
    let client = Client::new(Trust::Fingerprint([0; 32]), Alpn::Http1).map_err(|error| error.to_string())?;
    let end = time::instant() + PATIENCE;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let request = Request::get("/readyz").body(Bytes::new()).expect("a request");
        match client.send(admin, request).await {
            Ok(_) => return Ok(()),
            Err(error) if time::instant() > end => return Err(format!("the admin API does not answer: {error}")),
            Err(_) => {}
        }
    }
}

/// Wait until every level is what its platform says; how many are not, when that does not happen.
async fn settle(world: &World, admin: &BaseUrl) -> Result<usize, String> {
    let client = Client::new(Trust::Fingerprint([0; 32]), Alpn::Http1).map_err(|error| error.to_string())?;
    let truth: BTreeMap<Position, Option<String>> =
        world.truth().into_iter().map(|(position, stock)| (position, stock.map(|q| q.to_string()))).collect();
    let end = time::instant() + PATIENCE;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let levels = levels(&client, admin).await?;
        let invented = levels.keys().filter(|position| !truth.contains_key(*position)).count();
        let wrong: Vec<&Position> =
            truth.iter().filter(|(p, stock)| levels.get(*p) != Some(*stock)).map(|(p, _)| p).collect();
        if invented + wrong.len() == 0 {
            return Ok(0);
        }
        if time::instant() > end {
            for position in wrong.iter().take(5) {
                eprintln!("{position:?}: {:?}, is {:?}", truth.get(*position), levels.get(*position));
            }
            return Ok(invented + wrong.len());
        }
    }
}

async fn levels(client: &Client, admin: &BaseUrl) -> Result<BTreeMap<Position, Option<String>>, String> {
    let (mut levels, mut after) = (BTreeMap::new(), String::new());
    loop {
        let request = Request::get(format!("/api/v1/stock?limit=1000{after}")).body(Bytes::new()).expect("a request");
        let answer = client.send(admin, request).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("the admin API answers {}", answer.status));
        }
        let page: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        for level in page.get("stock").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| level.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let quantity = level
                .get("quantity")
                .filter(|q| !q.is_null())
                .map(|q| q.as_str().map_or_else(|| q.to_string(), str::to_owned));
            levels.insert((text("warehouse"), text("sku")), quantity);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(levels),
        }
    }
}
