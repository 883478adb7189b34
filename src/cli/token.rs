//! `stockgate token`: who may ask the admin API.
//!
//! Works on the file in the data directory, whether the gateway runs or not; the gateway looks at the file for every request, so that
//! a new or revoked token counts at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ring::rand::SecureRandom;
use serde::Serialize;

use super::client::{Failure, finish};
use super::known::Known;
use super::output::{Align, clean, print, table};
use super::{code, environment};
use crate::limits::{TOKEN_BYTES, TOKENS_FILE_MAX_BYTES};
use crate::time;
use crate::types::{Role, Settings, TOKENS_FILE, Token, Tokens};

/// Tokens of the admin API: make, list and revoke them.
///
/// They count at once, without a reload. What is kept is a hash; a lost token cannot be shown again, only replaced.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Data directory of the gateway [default: that of the configuration, or stockgate-data]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Configuration file of the gateway, to take the data directory from
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "data")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token and print it, this once
    New {
        /// What it allows: `read` to look (metrics, status, levels), `operator` to decide, too (dead letters, reload, backup)
        #[arg(long, value_enum)]
        role: RoleArg,
        /// What it is called: lower-case letters, digits, `-` and `_`
        #[arg(long)]
        name: String,
        /// It ends after this long, such as 12h or 90d [default: never]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List them, without what is secret
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make one worthless
    Revoke {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleArg {
    Read,
    Operator,
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    finish(token(args))
}

fn failed(why: impl Into<String>) -> Failure {
    Failure::new(code::FAILURE, why)
}

fn token(args: &Args) -> Result<ExitCode, Failure> {
    let data = match (&args.data, &args.config) {
        (Some(data), _) => data.clone(),
        (None, Some(file)) => Known::read(file)?.data_directory()?,
        (None, None) => {
            environment(&crate::config::variable("data.directory")).unwrap_or_else(|| "stockgate-data".to_owned()).into()
        }
    };
    match &args.command {
        Command::New { role, name, expires } => {
            let role = match role {
                RoleArg::Read => Role::Read,
                RoleArg::Operator => Role::Operator,
            };
            make(&data, name, role, expires.as_deref().map(length).transpose()?)
        }
        Command::List { json } => list(&data, *json),
        Command::Revoke { name } => revoke(&data, name),
    }
}

/// A length of time as the configuration writes it.
fn length(text: &str) -> Result<Duration, Failure> {
    let mut settings = Settings::of_one("--expires", text);
    let length = settings.duration("--expires").filter(|length| !length.is_zero());
    length.ok_or_else(|| Failure::new(USAGE, "--expires takes a length of time such as 12h or 90d".to_owned()))
}

/// What clap ends with when an argument cannot be read.
const USAGE: u8 = 2;

fn make(data: &Path, name: &str, role: Role, lives: Option<Duration>) -> Result<ExitCode, Failure> {
    let mut random = [0; TOKEN_BYTES];
    ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| failed("the system gives no random numbers"))?;
    let now = time::now();
    let expires = lives.map(|lives| now.plus(lives));
    let (token, text) = Token::new(name, role, now, expires, &random).map_err(|why| Failure::new(USAGE, why))?;
    if !data.exists() {
        crate::app::make_data_directory(data).map_err(|error| failed(error.to_string()))?;
    }
    change(data, |tokens| tokens.add(token).map_err(failed))?;
    let until = expires.map_or("until it is revoked".to_owned(), |end| format!("until {end}"));
    eprintln!("`{name}` may {} {until}; this is shown once:", if role == Role::Read { "read" } else { "do everything" });
    Ok(print(&format!("{text}\n")))
}

fn revoke(data: &Path, name: &str) -> Result<ExitCode, Failure> {
    change(data, |tokens| {
        let names = tokens.iter().map(|token| token.name.clone()).collect::<Vec<_>>().join(", ");
        if tokens.revoke(name) {
            return Ok(());
        }
        let there = if names.is_empty() { "there are none".to_owned() } else { format!("there are {names}") };
        Err(failed(format!("there is no token `{}`: {there}", clean(name))))
    })?;
    eprintln!("`{}` is worth nothing any more", clean(name));
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Row {
    name: String,
    role: Role,
    created: String,
    expires: Option<String>,
    expired: bool,
}

fn list(data: &Path, json: bool) -> Result<ExitCode, Failure> {
    let tokens = read(&data.join(TOKENS_FILE))?;
    let now = time::now();
    let row = |token: &Token| {
        let Token { name, role, created, expires, .. } = token.clone();
        Row {
            name,
            role,
            created: created.to_string(),
            expires: expires.map(|end| end.to_string()),
            expired: token.is_expired(now),
        }
    };
    let rows: Vec<Row> = tokens.iter().map(row).collect();
    if json {
        let text = serde_json::to_string(&rows).map_err(|error| failed(error.to_string()))?;
        return Ok(print(&format!("{{\"tokens\":{text}}}\n")));
    }
    let cells = |row: &Row| {
        let end = row.expires.clone().unwrap_or_else(|| "never".to_owned());
        vec![row.name.clone(), row.role.to_string(), row.created.clone(), end + if row.expired { " (over)" } else { "" }]
    };
    let columns = ["NAME", "ROLE", "MADE", "EXPIRES"].map(|name| (name, Align::Left));
    Ok(print(&table(&columns, &rows.iter().map(cells).collect::<Vec<_>>())))
}

/// Change the file of tokens: whole or not at all, one change at a time.
fn change(data: &Path, how: impl FnOnce(&mut Tokens) -> Result<(), Failure>) -> Result<(), Failure> {
    let file = data.join(TOKENS_FILE);
    let cannot = |error: io::Error| failed(format!("{} cannot be written: {error}", file.display()));
    // the directory is locked, since the file is replaced
    let directory = File::open(data).map_err(|error| failed(format!("{} cannot be opened: {error}", data.display())))?;
    directory.lock().map_err(cannot)?;
    let mut tokens = read(&file)?;
    how(&mut tokens)?;
    let new = data.join(format!("{TOKENS_FILE}.new"));
    let write = || {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        out.write_all(tokens.to_json().as_bytes())?;
        out.sync_all()
    };
    write().map_err(cannot)?;
    inherit(&new, data)?;
    fs::rename(&new, &file).and_then(|()| directory.sync_all()).map_err(cannot)
}

/// Give a file to the owner of a directory: root makes tokens for a gateway that runs as somebody else and must read them.
fn inherit(file: &Path, directory: &Path) -> Result<(), Failure> {
    let give = || {
        let (ours, theirs) = (fs::metadata(file)?, fs::metadata(directory)?);
        if (ours.uid(), ours.gid()) == (theirs.uid(), theirs.gid()) {
            return Ok(());
        }
        match std::os::unix::fs::chown(file, Some(theirs.uid()), Some(theirs.gid())) {
            // not root: then the gateway runs as us, or as somebody whose directory we could not write into
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && ours.uid() == theirs.uid() => Ok(()),
            other => other,
        }
    };
    give().map_err(|error| {
        failed(format!("{} cannot be given to the owner of {}: {error}", file.display(), directory.display()))
    })
}

/// The tokens; none when there is no file.
fn read(file: &Path) -> Result<Tokens, Failure> {
    let shown = file.display();
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tokens::default()),
        Err(error) => return Err(failed(format!("{shown} cannot be read: {error}"))),
        Ok(meta) if meta.len() > TOKENS_FILE_MAX_BYTES => {
            return Err(failed(format!("{shown} is too large to be a file of tokens")));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(file).map_err(|error| failed(format!("{shown} cannot be read: {error}")))?;
    Tokens::parse(&bytes).map_err(|why| failed(format!("{shown} {why}")))
}
