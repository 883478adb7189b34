//! Reading secrets: from files and the environment, or, with a warning, from the configuration itself.
//!
//! No message holds a part of a secret; so the type of a secret's value is checked here and not by `Settings`, whose
//! messages show what they found.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Context, Findings, read_capped};
use crate::limits;
use crate::types::{Secret, Settings};

/// A secret and where it was read.
pub(super) struct Held {
    pub(super) secret: Secret,
    pub(super) from: Place,
    /// The key (with its index in a list) that named it.
    pub(super) key: String,
}

/// Where a secret was read.
pub(super) enum Place {
    File(PathBuf),
    Variable(String),
    Configuration,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::Configuration => f.write_str("the configuration"),
        }
    }
}

/// How many a name may stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    /// A token, a credential.
    One,
    /// Signing secrets: the new one and the old during a rotation. Also makes `<name>_files` a key.
    Rotation,
}

/// The keys under which a secret called `name` may be given.
pub(super) fn keys_of(name: &str, many: Many) -> Vec<String> {
    let suffixes: &[&str] = if many == Many::Rotation { &["_file", "_files", "_env", ""] } else { &["_file", "_env", ""] };
    suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
}

/// Read what `<name>_file`, `<name>_files`, `<name>_env` or `<name>` gives. `None`: no such key is there. Problems are
/// reported; what could be read comes back.
pub(super) fn read(
    settings: &mut Settings,
    name: &str,
    many: Many,
    context: &Context<'_>,
    found: &mut Findings,
) -> Option<Vec<Held>> {
    let keys = keys_of(name, many);
    let given: Vec<(&String, Value)> = keys.iter().filter_map(|key| settings.value(key).map(|value| (key, value))).collect();
    if let [(first, _), .., (last, _)] = given.as_slice() {
        settings.problem(last, format!("give only one of {}: `{first}` is there too", keys.join(", ")));
    }
    if given.is_empty() {
        return None;
    }
    let mut held = Vec::new();
    for (key, value) in &given {
        match texts_of(key, value, many) {
            Some(texts) if texts.is_empty() => settings.problem(key, "is an empty list"),
            Some(texts) => {
                let origin = Origin { name, list_key: key };
                held.extend(texts.iter().filter_map(|(key, text)| origin.read(settings, key, text, context, found)));
            }
            None if many == Many::Rotation => settings.problem(key, "expected a text in quotes, or a list of them"),
            None => settings.problem(key, "expected a text in quotes"),
        }
    }
    Some(held)
}

/// The texts of a value with the key of each.
fn texts_of<'v>(key: &str, value: &'v Value, many: Many) -> Option<Vec<(String, &'v str)>> {
    match value {
        Value::String(text) => Some(vec![(key.to_owned(), text)]),
        Value::Array(items) if many == Many::Rotation => {
            items.iter().enumerate().map(|(i, item)| Some((format!("{key}[{i}]"), item.as_str()?))).collect()
        }
        _ => None,
    }
}

/// The key that a text stands under.
struct Origin<'a> {
    name: &'a str,
    list_key: &'a str,
}

impl Origin<'_> {
    fn read(
        &self,
        settings: &mut Settings,
        key: &str,
        text: &str,
        context: &Context<'_>,
        found: &mut Findings,
    ) -> Option<Held> {
        let path = settings.path_of(key);
        let outcome = match self.list_key.strip_prefix(self.name) {
            Some("_env") => from_environment(text, context),
            Some("") => {
                let message = format!("a secret in the configuration is read by all who read it: use `{}_file`", self.name);
                found.warning(&path, message);
                Ok((Secret::new(text), Place::Configuration))
            }
            _ => from_file(text, &path, context, found),
        };
        match outcome {
            Ok((secret, from)) if secret.is_empty() => {
                settings.problem(key, format!("the secret from {from} is empty"));
                None
            }
            Ok((secret, from)) => Some(Held { secret, from, key: key.to_owned() }),
            Err(why) => {
                settings.problem(key, why);
                None
            }
        }
    }
}

fn from_environment(name: &str, context: &Context<'_>) -> Result<(Secret, Place), String> {
    // What cannot be a name may be the secret itself, in the wrong key: it is not repeated.
    let first_is_letter = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !first_is_letter || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("is not the name of an environment variable".to_owned());
    }
    let value = (context.env)(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
    Ok((Secret::new(without_line_end(value.as_bytes())), Place::Variable(name.to_owned())))
}

fn from_file(text: &str, key_path: &str, context: &Context<'_>, found: &mut Findings) -> Result<(Secret, Place), String> {
    let path = locate(text, context);
    let secret = read_secret(&path)?;
    warn_if_open(&path, key_path, found);
    Ok((secret, Place::File(path)))
}

/// Read a secret's file: the whole of it, without the line end that editors add. The error is a sentence with the path.
pub fn read_secret(path: &Path) -> Result<Secret, String> {
    let bytes = read_capped(path, limits::SECRET_FILE_MAX_BYTES);
    let bytes = bytes.map_err(|why| format!("{} cannot be read: {why}", path.display()))?;
    Ok(Secret::new(without_line_end(&bytes)))
}

/// A file that anyone on the machine may read holds no secret for long.
pub(super) fn warn_if_open(path: &Path, key_path: &str, found: &mut Findings) {
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.mode());
    if mode & 0o007 != 0 {
        let message = format!("{} is open to every user of this machine: chmod o= {0}", path.display());
        found.warning(key_path, message);
    }
}

/// systemd's name for what it loads from a folder: `LoadCredential=credentials:/etc/stockgate/credentials` hands `shop.secret` of
/// that folder over as `credentials_shop.secret` (systemd.exec(5)).
const LOADED_FROM_FOLDER: &str = "credentials_";
/// The folder beside the configuration file that such a unit loads: so a check by hand reads the same secrets.
const CREDENTIALS_FOLDER: &str = "credentials";

/// A relative path where it is there first: in `$CREDENTIALS_DIRECTORY`, by its name or by that of the folder it was loaded from; in
/// `credentials/` beside the configuration file; beside the configuration file.
pub(super) fn locate(text: &str, context: &Context<'_>) -> PathBuf {
    // `join` with an absolute path is that path.
    let beside = context.base_dir.join(text);
    if Path::new(text).is_absolute() {
        return beside;
    }
    let handed = (context.env)("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let in_handed = |name: &str| handed.as_ref().map(|directory| directory.join(name));
    let places = [
        in_handed(text),
        in_handed(&format!("{LOADED_FROM_FOLDER}{text}")),
        Some(context.base_dir.join(CREDENTIALS_FOLDER).join(text)),
    ];
    places.into_iter().flatten().find(|path| path.is_file()).unwrap_or(beside)
}

fn without_line_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r' | b'\n'] = bytes {
        bytes = rest;
    }
    bytes
}
