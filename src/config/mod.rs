//! One TOML file, checked whole before anything is bound.
//!
//! ```text
//! text -> raw (TOML tree, lines, overrides) -> sections, sources, warehouses -> Checked { .., policy }
//!                                                       |
//!                                                       +-> Report: every problem with its line
//! ```
//!
//! * Every mistake is reported in one go, each as `stockgate.toml:12: source.shop.tolerence: unknown key ..`. Only a file
//!   that is not TOML is read no further: what half of a file means would be noise.
//! * [`Checked`] holds no default as a `None` and has read every secret, certificate and mapping that it names.
//! * What wins: command line, then `STOCKGATE__SECTION__KEY` in the environment, then the drop-ins, then the file, then the
//!   default. The environment and the command line reach the fixed sections ([`FIXED_KEYS`]), not the sources.
//! * Drop-ins are the files `conf.d/*.toml` beside the configuration file: a package's file stays as it came, and what is put in
//!   or taken out by a program is a file of its own.
//! * Secrets come from files or the environment. One written into the file itself works, with a warning. No secret is in a
//!   message, in `Debug`, in [`masked()`] or in the policy.
//! * The module does not know the platforms: it takes the keys that all sources share out of a source's table and hands the
//!   rest to the platform's own `build`, which refuses what it does not know.
//!
//! Every key with its default, unit, bound and reason is in [`DEFAULTS`].
//!
//! Relative paths: a file that the configuration names, when it holds a secret, a certificate or a key, is looked up in
//! `$CREDENTIALS_DIRECTORY` (systemd) first and in `credentials/` beside the configuration file; then, as all others, beside the
//! configuration file (not beside the drop-in that names it). `data.directory` is relative to the working directory, as `--data` is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use crate::sources::{self, Kind};
use crate::types::{Problem, Secret};

mod access;
mod acme;
mod address;
mod api;
mod checked;
mod drop_ins;
mod items;
mod masked;
mod policy;
mod raw;
mod secret;
mod sections;
mod source;
mod units;
mod warehouse;

#[cfg(test)]
mod tests;

pub use acme::{ACME_DIRECTORY, AcmeChallenge, AcmeConfig};
pub use checked::{
    AdminAccess, AdminTls, ApiConfig, Checked, ClientAuth, Limits, LogConfig, LogFormat, LogLevel, Retention, SourceConfig,
    StoreConfig, TlsChoice, WarehouseConfig,
};
pub use drop_ins::drop_ins;
pub use items::{BadItems, BadRow, read_items};
pub use masked::masked;
pub use raw::{FIXED_KEYS, Shape, unknown_variables, variable};
pub use secret::read_secret;

/// The documentation of every key: a configuration file that changes nothing.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// What a gateway without a configuration file takes in: one generic source, signed with a secret of its own.
const BUILT_IN: &str = include_str!("built_in.toml");
/// The variable through which [`built_in`] hands its secret to [`BUILT_IN`].
const BUILT_IN_SECRET: &str = "STOCKGATE_BUILT_IN_SECRET";

/// Something wrong, or worth a warning, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file, or what else the setting came from (`--data`, `environment variable STOCKGATE__LOG__LEVEL`).
    pub file: String,
    /// Line in the file, from 1; `None` when it stands nowhere in it.
    pub line: Option<usize>,
    /// Dotted path of the key; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do, in a sentence.
    pub message: String,
}

/// `stockgate.toml:12: source.shop.tolerence: unknown key ..`
impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A configuration that cannot be used: everything that is wrong with it, and the warnings found on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What must be mended: the file's lines in their order, then other files; never empty.
    pub problems: Vec<Located>,
    /// What works but should not stay so.
    pub warnings: Vec<Located>,
}

/// One line a problem.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// A usable configuration and its warnings.
pub type Loaded = (Checked, Vec<Located>);

/// Looks a variable of the environment up; a parameter, so that tests and `demo` own theirs.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Settings from the command line; they win over the environment and the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<Override>);

#[derive(Debug, Clone)]
struct Override {
    key: String,
    value: String,
    flag: String,
}

impl Overrides {
    /// `key` is one of [`FIXED_KEYS`] (`data.directory`), `flag` what people typed (`--data`) and what a problem names.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str, flag: &str) -> Self {
        self.0.push(Override { key: key.to_owned(), value: value.to_owned(), flag: flag.to_owned() });
        self
    }
}

/// Where everything besides the text comes from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The platforms; in production [`sources::KINDS`].
    pub kinds: &'static [Kind],
    /// The command line.
    pub overrides: &'a Overrides,
    /// The environment.
    pub env: Environment<'a>,
}

/// Read and check a configuration file and its drop-ins ([`drop_ins()`]). Without a file: the defaults, overridden, and no source
/// (see [`built_in`]).
///
/// A drop-in's key of a fixed section wins over the file's. The same key in two drop-ins is a mistake, and so is a source or a
/// warehouse in two files: each stands whole in one. So the order of the drop-ins never matters.
pub fn load(path: Option<&Path>, overrides: &Overrides, env: Environment<'_>) -> Result<Loaded, Report> {
    let inputs = Inputs { kinds: sources::KINDS, overrides, env };
    let Some(path) = path else {
        return parse("", "built-in configuration", Path::new(""), &inputs);
    };
    load_with(path, &inputs)
}

fn load_with(path: &Path, inputs: &Inputs<'_>) -> Result<Loaded, Report> {
    let texts = drop_ins::read_all(path).map_err(|problems| Report { problems, warnings: Vec::new() })?;
    let (checked, mut warnings) = parse_all(&texts, path.parent().unwrap_or(Path::new("")), inputs)?;
    if checked.sources.is_empty() {
        let message = "no source is configured: nothing can be delivered".to_owned();
        warnings.push(Located { file: path.display().to_string(), line: None, path: String::new(), message });
    }
    Ok((checked, warnings))
}

/// The same from text, without drop-ins. `file_name` is what problems name; relative paths are looked up in `base_dir`.
pub fn parse(text: &str, file_name: &str, base_dir: &Path, inputs: &Inputs<'_>) -> Result<Loaded, Report> {
    parse_all(&[raw::Text { file: file_name.to_owned(), text: text.to_owned() }], base_dir, inputs)
}

fn parse_all(texts: &[raw::Text], base_dir: &Path, inputs: &Inputs<'_>) -> Result<Loaded, Report> {
    let (raw, mut found) = raw::read(texts, inputs)?;
    let context = Context { kinds: inputs.kinds, env: inputs.env, base_dir };
    let checked = checked::check(raw, &context, &mut found);
    found.verdict(checked)
}

/// The configuration of a gateway that was given none: a source `generic` whose deliveries go to the warehouse `main`,
/// signed with HMAC-SHA-256 in hexadecimal in `x-stockgate-signature` under `secret`; body
/// `{"sku":"A-1","quantity":5,"time":"2026-11-21T03:00:43Z"}`, `time` optional.
///
/// The caller makes and keeps the secret (text) in the data directory, which it learns from [`load`] without a file.
pub fn built_in(secret: &Secret, overrides: &Overrides, env: Environment<'_>) -> Result<Loaded, Report> {
    let with_secret = |name: &str| {
        if name == BUILT_IN_SECRET { secret.expose_str().map(str::to_owned) } else { env(name) }
    };
    let inputs = Inputs { kinds: sources::KINDS, overrides, env: &with_secret };
    parse(BUILT_IN, "built-in configuration", Path::new(""), &inputs)
}

/// What the readers of single tables share.
struct Context<'a> {
    kinds: &'static [Kind],
    env: Environment<'a>,
    base_dir: &'a Path,
}

/// Problems and warnings as they are found, each looked up in the file at once.
struct Findings {
    origins: raw::Origins,
    /// Paths whose value could not even be represented: one problem is enough for each.
    unreadable: BTreeSet<String>,
    problems: Vec<Located>,
    warnings: Vec<Located>,
}

impl Findings {
    fn problem(&mut self, path: &str, message: impl AsRef<str>) {
        if self.unreadable.contains(path) {
            return;
        }
        let located = self.origins.locate(path, message.as_ref());
        self.problems.push(located);
    }

    fn warning(&mut self, path: &str, message: impl AsRef<str>) {
        let located = self.origins.locate(path, message.as_ref());
        self.warnings.push(located);
    }

    /// A value that cannot be represented; its reader will see nothing there.
    fn unreadable(&mut self, path: &str, message: &str) -> Value {
        self.problem(path, message);
        self.unreadable.insert(path.to_owned());
        Value::Null
    }

    /// Take over what a `Settings` reader found.
    fn absorb(&mut self, problems: Vec<Problem>) {
        for Problem { path, message } in problems {
            self.problem(&path, message);
        }
    }

    /// Take over a finding about another file (a line of an `items_file`).
    fn elsewhere(&mut self, problem: Located) {
        self.problems.push(problem);
    }

    fn verdict(mut self, checked: Checked) -> Result<Loaded, Report> {
        // The configuration file first, in the order of its lines; then what it names and what stands outside of it.
        let main = self.origins.file().to_owned();
        let order = |a: &Located, b: &Located| {
            let key = |one: &Located| (one.file != main, one.file.clone(), one.line, one.path.clone());
            key(a).cmp(&key(b))
        };
        self.problems.sort_by(order);
        self.warnings.sort_by(order);
        if self.problems.is_empty() {
            Ok((checked, self.warnings))
        } else {
            Err(Report { problems: self.problems, warnings: self.warnings })
        }
    }
}

/// A regular file that is read up to a bound.
struct Capped {
    file: std::io::Take<File>,
    /// Its size when it was opened.
    bytes: u64,
    at_most: u64,
}

/// Fails, too, when the file turns out to be larger than the bound: it may grow while it is read.
impl Read for Capped {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        if self.file.limit() == 0 && !buffer.is_empty() {
            return Err(std::io::Error::other(too_large(self.at_most)));
        }
        Ok(read)
    }
}

/// Open a regular file, or say why not, in words. Nothing else is opened: a pipe would block, a device would not end.
fn open_capped(path: &Path, at_most: u64) -> Result<Capped, String> {
    open_capped_or(path, at_most).map_err(|(_, why)| why)
}

/// The same with the system's kind of error.
fn open_capped_or(path: &Path, at_most: u64) -> Result<Capped, (ErrorKind, String)> {
    let told = |e: std::io::Error| (e.kind(), in_words(&e));
    let meta = std::fs::metadata(path).map_err(told)?;
    if !meta.is_file() {
        return Err((ErrorKind::Other, "it is not a regular file".to_owned()));
    }
    if meta.len() > at_most {
        return Err((ErrorKind::Other, too_large(at_most)));
    }
    let file = File::open(path).map_err(told)?;
    Ok(Capped { file: file.take(at_most.saturating_add(1)), bytes: meta.len(), at_most })
}

/// A whole regular file, or why not, in words.
fn read_capped(path: &Path, at_most: u64) -> Result<Vec<u8>, String> {
    read_capped_or(path, at_most).map_err(|(_, why)| why)
}

/// The same with the system's kind of error.
fn read_capped_or(path: &Path, at_most: u64) -> Result<Vec<u8>, (ErrorKind, String)> {
    let mut file = open_capped_or(path, at_most)?;
    let mut bytes = Vec::with_capacity(usize::try_from(file.bytes).unwrap_or(0));
    file.read_to_end(&mut bytes).map_err(|e| (e.kind(), in_words(&e)))?;
    Ok(bytes)
}

fn too_large(at_most: u64) -> String {
    format!("it is larger than {}", units::size_text(at_most))
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Names that occur more than once, each once.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name).collect()
}
