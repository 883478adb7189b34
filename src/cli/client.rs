//! Asking the running gateway.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::known::Known;
use super::{code, environment, output};
use crate::config;
use crate::net::client::{Alpn, BaseUrl, Client as HttpClient, ClientError, Limits, Trust};
use crate::net::tls::{Certificate, certificates};

/// Where the admin API is when nobody says.
const DEFAULT: &str = "http://127.0.0.1:9780";
/// Connecting: the gateway is on this machine or behind a tunnel.
const CONNECT: Duration = Duration::from_secs(5);
/// A whole answer; a walk over a large ledger takes minutes.
const TOTAL: Duration = Duration::from_secs(900);
/// Largest answer in bytes: a page of long dead letters has less.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// How the running gateway is reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Reach {
    /// Admin API of the running gateway [default: http://127.0.0.1:9780]
    #[arg(long, value_name = "URL", global = true)]
    admin: Option<String>,
    /// Configuration file of the gateway, to take the address of its admin API from
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// File with a token for the admin API (`stockgate token`) [default: $STOCKGATE_TOKEN_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// PEM of the authority, or the certificate itself, to trust at https:// [default: $STOCKGATE_CA_FILE, or the system's]
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// Whom to trust when nothing is said.
    #[arg(skip)]
    trust: Option<Trust>,
}

/// Why a command ends without success: one sentence that says what to do, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Tell it.
    pub(super) fn report(&self) -> ExitCode {
        let lines: Vec<_> = self.message.lines().map(output::clean).collect();
        eprintln!("stockgate: {}", lines.join("\n"));
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The end of a command.
pub(super) fn finish(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|failure| failure.report())
}

impl Reach {
    /// At this address, trusting this one when it is https.
    pub(super) fn at(admin: String, trust: Option<Trust>) -> Self {
        Self { admin: Some(admin), trust, ..Self::default() }
    }

    /// Where it is, and whom to trust there.
    fn base(&self) -> Result<(BaseUrl, Trust), Failure> {
        let known = self.config.as_deref().map(Known::read).transpose()?;
        let (text, from) = match (&self.admin, &known) {
            (Some(text), _) => (with_scheme(text), "--admin"),
            (None, Some(known)) => (with_scheme(&known.admin()?.unwrap_or_else(|| DEFAULT.to_owned())), "[admin].address"),
            (None, None) => (DEFAULT.to_owned(), "--admin"),
        };
        let base =
            BaseUrl::parse(&text).map_err(|error| Failure::new(code::CONFIGURATION, format!("{from} `{text}`: {error}")))?;
        let ca_file = self.ca_file.clone().or_else(|| file_in("STOCKGATE_CA_FILE"));
        let trust = if !base.is_https() {
            // plain HTTP to this machine needs no roots; asking for them would fail where none are installed
            Trust::Fingerprint([0; 32])
        } else if let Some(file) = ca_file {
            Trust::Roots(authorities(&file)?)
        } else {
            self.trust.clone().or_else(|| known.and_then(|known| known.trust())).unwrap_or(Trust::SystemRoots)
        };
        Ok((base, trust))
    }

    /// What proves who we are.
    fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(file) = self.token_file.clone().or_else(|| file_in("STOCKGATE_TOKEN_FILE")) else { return Ok(None) };
        let bad = |why: &str| Failure::new(code::CONFIGURATION, format!("{} {why}", file.display()));
        let token = config::read_secret(&file).map_err(|why| Failure::new(code::CONFIGURATION, why))?;
        let text = token.expose_str().map(str::trim).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| bad("holds no token"))?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| bad("holds something else than one token"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The path that a variable of the environment holds.
fn file_in(variable: &str) -> Option<PathBuf> {
    environment(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn authorities(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let bad = |why: String| Failure::new(code::CONFIGURATION, format!("{}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| bad(format!("cannot be read: {error}")))?;
    certificates(&pem).map_err(|error| bad(error.to_string()))
}

/// `127.0.0.1:9780` is meant as a URL, too.
fn with_scheme(text: &str) -> String {
    if text.contains("://") { text.to_owned() } else { format!("http://{text}") }
}

/// The admin API of a running gateway.
pub(super) struct Client {
    base: BaseUrl,
    http: HttpClient,
    authorization: Option<HeaderValue>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Get ready to ask; nothing is sent yet.
    pub(super) fn new(reach: &Reach) -> Result<Self, Failure> {
        Self::within(reach, TOTAL)
    }

    /// The same, with less patience for a whole answer.
    pub(super) fn within(reach: &Reach, total: Duration) -> Result<Self, Failure> {
        let (base, trust) = reach.base()?;
        let authorization = reach.authorization()?;
        let limits = Limits { connect: CONNECT, total, body_bytes: ANSWER_MAX_BYTES };
        let http = HttpClient::with(trust, Alpn::Http1, limits, false)
            .map_err(|error| Failure::new(code::FAILURE, error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(code::TRY_AGAIN, format!("cannot start: {error}")))?;
        Ok(Self { base, http, authorization, runtime })
    }

    /// Ask for JSON.
    pub(super) fn get(&self, target: &str) -> Result<Bytes, Failure> {
        self.send(Method::GET, target, Bytes::new())
    }

    /// Ask for something to be done.
    pub(super) fn act(&self, method: Method, target: &str) -> Result<Bytes, Failure> {
        self.send(method, target, Bytes::new())
    }

    fn send(&self, method: Method, target: &str, body: Bytes) -> Result<Bytes, Failure> {
        let (status, body) = self.exchange(method, target, body)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(refused(&self.base.to_string(), status, &body))
    }

    /// An answer, whatever it is.
    pub(super) fn look(&self, target: &str) -> Result<(StatusCode, Bytes), Failure> {
        self.exchange(Method::GET, target, Bytes::new())
    }

    fn exchange(&self, method: Method, target: &str, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let request = Request::builder().method(method).uri(target).header(CONTENT_TYPE, "application/json").body(body);
        let mut request =
            request.map_err(|error| Failure::new(code::FAILURE, format!("cannot ask for {target}: {error}")))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self
            .runtime
            .block_on(self.http.send(&self.base, request))
            .map_err(|error| unreachable(&self.base.to_string(), &error))?;
        Ok((answer.status, answer.body))
    }
}

/// No answer.
fn unreachable(base: &str, error: &ClientError) -> Failure {
    if error.never_sent() {
        let message = format!(
            "no gateway answers at {base} ({error}); start one with `stockgate serve`, or say with --admin URL where it is"
        );
        return Failure::new(code::UNAVAILABLE, message);
    }
    Failure::new(code::TRY_AGAIN, format!("the gateway at {base} did not finish its answer: {error}"))
}

/// A problem document, as far as it is shown.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    problems: Vec<String>,
}

/// An answer that is no success.
pub(super) fn refused(base: &str, status: StatusCode, body: &[u8]) -> Failure {
    let code = match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::GONE => code::TRY_AGAIN,
        StatusCode::UNPROCESSABLE_ENTITY => code::CONFIGURATION,
        _ => code::FAILURE,
    };
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        return Failure::new(code, format!("{base} answered {status}, and not as a stockgate admin API does"));
    };
    let mut message = problem.detail;
    for line in problem.problems {
        message.push('\n');
        message.push_str(&line);
    }
    Failure::new(code, message)
}

/// Read an answer.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the gateway's answer is not understood ({error}): is it another version of stockgate?");
        Failure::new(code::FAILURE, message)
    })
}

/// Print an answer as it is.
pub(super) fn print_json(body: &[u8]) -> ExitCode {
    output::print(&String::from_utf8_lossy(body))
}

/// A path segment or a query value, percent-encoded (RFC 3986, unreserved characters stay).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A target with its query; values that are `None` are left out.
pub(super) fn target(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let given = query.iter().filter_map(|(name, value)| value.map(|value| format!("{name}={}", encoded(value))));
    let query = given.collect::<Vec<_>>().join("&");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A number and its state, as the API says them.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Number {
    state: String,
    quantity: Option<Box<RawValue>>,
}

impl Number {
    /// The exact digits, or the word for why there are none.
    pub(super) fn words(&self) -> String {
        words(&self.state, self.quantity.as_deref())
    }
}

/// The exact digits of a quantity, or the word for why there are none.
pub(super) fn words(state: &str, quantity: Option<&RawValue>) -> String {
    quantity.map_or(state, RawValue::get).to_owned()
}
