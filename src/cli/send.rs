//! `stockgate send`: sign a payload as the source's platform would, and deliver it to a running gateway.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use ring::rand::SecureRandom as _;

use super::code::{CONFIGURATION, FAILURE, UNAVAILABLE};
use super::environment;
use super::output::{clean, print};
use super::serve::BUILT_IN_SECRET_FILE;
use crate::config::{self, Checked, Overrides, SourceConfig, TlsChoice};
use crate::limits;
use crate::net::client::{Alpn, BaseUrl, Client, ClientError, Trust, parse_fingerprint};
use crate::net::tls::{certificates, fingerprint_of};
use crate::pipeline::certificate::kept::Kept;
use crate::simulator::sign::{SenderSettings, Signed, sign};
use crate::time::{self, Timestamp};
use crate::types::{HeaderList, Message, Observation, Place, Secret, closest};

/// The self-made certificate in the data directory.
const CERTIFICATE_FILE: &str = "tls-cert.pem";
/// Positions that are named after a delivery.
const NAMED: usize = 3;

/// Sign a payload as the source's platform would and deliver it to a running gateway.
///
/// Takes the source's platform, secret and path from the configuration that the gateway runs with. Without --config: the
/// source `generic` of a gateway that was started without a configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source, as it is called in the configuration
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The payload; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// The gateway's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The gateway's data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Base URL of the gateway, without the path of the source [default: this machine, at listen.address]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Trust only the server whose certificate has this SHA-256 fingerprint
    #[arg(long, value_name = "SHA256")]
    pin: Option<String>,
    /// The delivery's id; the same id again is a repeat [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// Why nothing was delivered: the exit code and what a person reads.
#[derive(Debug, PartialEq, Eq)]
struct Failed(u8, String);

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    match attempt(args) {
        Ok(text) => print(&text),
        Err(Failed(code, why)) => {
            eprintln!("stockgate: {why}");
            ExitCode::from(code)
        }
    }
}

fn attempt(args: &Args) -> Result<String, Failed> {
    let checked = configuration(args)?;
    let source = find(&checked, &args.source)?;
    let body = payload(&args.file)?;
    let id = args.id.clone().map_or_else(new_id, Ok)?;
    let plan = Plan::new(source, body, time::now(), id)?;
    let place = Destination::new(args, &checked)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed(FAILURE, format!("cannot start: {error}")))?;
    let status = runtime.block_on(deliver(&plan, &place))?;
    verdict(status, &plan, source, &place)
}

/// The configuration that the gateway runs with; the built-in one with the secret from its data directory.
fn configuration(args: &Args) -> Result<Checked, Failed> {
    let mut overrides = Overrides::default();
    if let Some(data) = &args.data {
        overrides = overrides.set("data.directory", &data.display().to_string(), "--data");
    }
    let unusable = |report: config::Report| Failed(CONFIGURATION, report.to_string());
    let (checked, _) = config::load(args.config.as_deref(), &overrides, &environment).map_err(unusable)?;
    if args.config.is_some() {
        return Ok(checked);
    }
    let path = checked.data_dir.join(BUILT_IN_SECRET_FILE);
    let secret = config::read_secret(&path).map_err(|why| {
        let hint = "start `stockgate serve` first, or name its --data directory or --config file";
        Failed(CONFIGURATION, format!("the secret of the built-in source: {why}; {hint}"))
    })?;
    config::built_in(&secret, &overrides, &environment).map(|(checked, _)| checked).map_err(unusable)
}

fn find<'c>(checked: &'c Checked, name: &str) -> Result<&'c SourceConfig, Failed> {
    if let Some(source) = checked.sources.iter().find(|source| source.id.as_str() == name) {
        return Ok(source);
    }
    let names: Vec<&str> = checked.sources.iter().map(|source| source.id.as_str()).collect();
    let hint = closest(name, names.iter().copied()).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
    let known = if names.is_empty() { "none is configured".to_owned() } else { format!("there are {}", names.join(", ")) };
    Err(Failed(CONFIGURATION, format!("there is no source `{name}`: {known}{hint}")))
}

/// The payload, of at most the size that a gateway takes by default.
fn payload(file: &Path) -> Result<Bytes, Failed> {
    let most = limits::BODY_MAX_BYTES as u64 + 1;
    let mut body = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(most).read_to_end(&mut body))
    };
    match read {
        Ok(_) if body.len() > limits::BODY_MAX_BYTES => {
            Err(Failed(FAILURE, format!("{} is larger than {} bytes", file.display(), limits::BODY_MAX_BYTES)))
        }
        Ok(_) => Ok(body.into()),
        Err(error) => Err(Failed(FAILURE, format!("{} cannot be read: {error}", file.display()))),
    }
}

fn new_id() -> Result<String, Failed> {
    let mut bytes = [0; 8];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Failed(FAILURE, "the system gives no random numbers".to_owned()))?;
    Ok(format!("send-{}", data_encoding::HEXLOWER.encode(&bytes)))
}

/// A signed delivery.
struct Plan {
    body: Bytes,
    /// Path and query. Holds the path token: never shown.
    target: String,
    headers: Vec<(String, String)>,
    at: Timestamp,
    id: String,
}

impl Plan {
    fn new(source: &SourceConfig, body: Bytes, at: Timestamp, id: String) -> Result<Self, Failed> {
        let cannot = |why: String| Failed(FAILURE, format!("a payload for `{}` cannot be signed: {why}", source.id));
        let settings = SenderSettings::new(source.kind.name, &source.settings).map_err(|why| cannot(why.to_string()))?;
        let nothing = Secret::new(Vec::new());
        let secret = source.secrets.first().unwrap_or(&nothing);
        let Signed { mut headers, query } =
            sign(&settings, secret, &body, at, &id).map_err(|why| cannot(why.to_string()))?;
        headers.extend(settings.envelope().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        let token = source.token.as_ref().and_then(Secret::expose_str).map(|token| format!("/{token}")).unwrap_or_default();
        let query = if query.is_empty() { query } else { format!("?{query}") };
        Ok(Self { body, target: format!("/in/{}{token}{query}", source.id), headers, at, id })
    }

    fn request(&self) -> Result<Request<Bytes>, Failed> {
        let cannot = |what: &str| Failed(FAILURE, format!("the delivery cannot be sent: {what}"));
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::try_from(&self.target).map_err(|_| cannot("its path is not a URL's"))?;
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).map_err(|_| cannot("a header's name is not one"))?;
            let value = HeaderValue::try_from(value).map_err(|_| cannot("a header's value is not printable"))?;
            request.headers_mut().append(name, value);
        }
        Ok(request)
    }

    /// The message as the gateway sees it.
    fn observe(&self, source: &SourceConfig) -> Result<Vec<Observation>, String> {
        let headers = HeaderList(self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect());
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let message = Message { query, headers: &headers, body: &self.body, received_at: self.at };
        source.adapter.parse(&message).map_err(|unreadable| unreadable.0)
    }
}

/// A gateway, and how to know that it is the one.
#[derive(Debug)]
struct Destination {
    base: BaseUrl,
    trust: Trust,
}

impl Destination {
    fn new(args: &Args, checked: &Checked) -> Result<Self, Failed> {
        if args.to.is_none() && checked.listen.port() == 0 {
            let why = "the gateway listens on a port of the system's choice: say where with --to https://127.0.0.1:PORT";
            return Err(Failed(FAILURE, why.to_owned()));
        }
        let text = args.to.clone().unwrap_or_else(|| format!("https://{}", reachable(checked.listen)));
        let base = BaseUrl::parse(&text).map_err(|why| Failed(FAILURE, format!("--to {text}: {why}")))?;
        let trust = match &args.pin {
            Some(pin) => Trust::Fingerprint(
                parse_fingerprint(pin).ok_or_else(|| Failed(FAILURE, "--pin: expected 64 hexadecimal digits".to_owned()))?,
            ),
            None if base.is_loopback() || args.to.is_none() => Trust::Fingerprint(own_certificate(checked)?),
            None => Trust::SystemRoots,
        };
        Ok(Self { base, trust })
    }
}

/// An address to connect to for an address that is listened on.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    SocketAddr::new(ip, listen.port())
}

/// The fingerprint of the certificate that the gateway on this machine serves.
fn own_certificate(checked: &Checked) -> Result<[u8; 32], Failed> {
    let pem = match &checked.tls {
        TlsChoice::Files { certificate_pem, .. } => certificate_pem.to_vec(),
        TlsChoice::Acme { .. } if Kept::in_data(&checked.data_dir).certificate_path().exists() => {
            let kept = Kept::in_data(&checked.data_dir).certificate();
            let kept = kept.map_err(|error| Failed(UNAVAILABLE, format!("the gateway's certificate: {error}")))?;
            kept.unwrap_or_default()
        }
        TlsChoice::SelfMade { .. } | TlsChoice::Acme { .. } => {
            let path = checked.data_dir.join(CERTIFICATE_FILE);
            std::fs::read(&path).map_err(|error| {
                let hint = "start the gateway, or give its --data directory or the server's --pin";
                Failed(UNAVAILABLE, format!("the gateway's certificate {}: {error}; {hint}", path.display()))
            })?
        }
    };
    let unusable = |why: String| Failed(CONFIGURATION, format!("the gateway's certificate cannot be read: {why}"));
    let chain = certificates(&pem).map_err(|error| unusable(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| unusable("it is empty".to_owned()))?;
    Ok(parse_fingerprint(&fingerprint_of(leaf)).expect("a fingerprint of our own making is one"))
}

async fn deliver(plan: &Plan, to: &Destination) -> Result<StatusCode, Failed> {
    let client = Client::new(to.trust.clone(), Alpn::Both).map_err(|error| Failed(FAILURE, error.to_string()))?;
    let sent = client.send(&to.base, plan.request()?).await;
    sent.map(|answer| answer.status).map_err(|error| {
        let hint = match &error {
            ClientError::Unreachable(_) | ClientError::ConnectTimedOut => "; is it running? (stockgate serve)",
            ClientError::Tls(_) => "; it shows another certificate than expected (see --data and --pin)",
            _ => "",
        };
        Failed(UNAVAILABLE, format!("no answer from {}: {error}{hint}", to.base.origin()))
    })
}

/// What the answer means.
fn verdict(status: StatusCode, plan: &Plan, source: &SourceConfig, to: &Destination) -> Result<String, Failed> {
    let (name, origin) = (&source.id, to.base.origin());
    if status.is_success() {
        return Ok(taken(status, plan, source));
    }
    let (code, why) = match status {
        StatusCode::UNAUTHORIZED => {
            (FAILURE, "it does not take the signature: does it run with the same secret? (stockgate reload)")
        }
        StatusCode::NOT_FOUND => (FAILURE, "it knows no such source, or the source's secret path or address list differs"),
        StatusCode::PAYLOAD_TOO_LARGE => (FAILURE, "the payload is larger than its limits.body"),
        StatusCode::SERVICE_UNAVAILABLE => (UNAVAILABLE, "it is overloaded or cannot write; try again in a few seconds"),
        _ => (FAILURE, "that is not an answer of a gateway"),
    };
    Err(Failed(code, format!("{origin} answered {} to `{name}`: {why}", status.as_u16())))
}

/// A delivery was taken; what becomes of it, and where to look.
fn taken(status: StatusCode, plan: &Plan, source: &SourceConfig) -> String {
    let mut text = format!("{} delivery {} taken\n", status.as_u16(), plan.id);
    let observations = match plan.observe(source) {
        Ok(observations) => observations,
        Err(why) => {
            text.push_str(&format!(
                "it cannot be read, so it is a dead letter now: {}\nsee: stockgate dead list\n",
                clean(&why)
            ));
            return text;
        }
    };
    let mut named = 0;
    for observation in &observations {
        match observation {
            Observation::Fact(fact) => {
                let sku = fact.item.sku.as_deref().or(source.items.get(&fact.item.id));
                let warehouse = match &fact.place {
                    Place::At(location) => source.locations.get(&**location).or_else(|| source.locations.get("*")),
                    Place::Default | Place::Everywhere => source.warehouse.as_ref(),
                };
                if let (Some(sku), Some(warehouse)) = (sku, warehouse)
                    && named < NAMED
                {
                    named += 1;
                    text.push_str(&format!("see: stockgate explain '{}@{warehouse}'\n", clean(sku)));
                }
            }
            Observation::Fetch(_) => {
                text.push_str("it says only that something changed: the gateway asks the platform now\n");
            }
            Observation::Irrelevant(why) => text.push_str(&format!("it changes no level: {}\n", clean(why))),
            Observation::Catalogue { .. } => {}
        }
    }
    if named == 0 {
        text.push_str("see: stockgate stock, stockgate dead list\n");
    }
    text
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
