//! The sender of the system tests that take power, disk or process away: `run` sends and keeps a book, `check` holds the
//! gateway's data against the book. Not part of the product.
//!
//! `run` is seven simulated platforms, signed, over TLS on kept connections. They go on while the gateway is away, and at
//! SIGTERM deliver what is owed and wait until every level is what its platform says. The book is a file of lines, one before
//! each attempt and one after each acknowledgement, so it must not stand on the disk that is taken away.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for tests: what it says is its result")]

mod book;
mod check;
mod run;

use std::process::ExitCode;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const USAGE: &str =
    "usage: power-load run   --site DIR --data DIR --book FILE --listen ADDRESS --admin ADDRESS [--seed N] [--rate N]
       power-load check --data DIR --book FILE";

/// The values of `--name VALUE` pairs.
struct Options(Vec<(String, String)>);

impl Options {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let words: Vec<String> = words.collect();
        let pair = |pair: &[String]| match pair {
            [name, value] if name.starts_with("--") => Ok((name.clone(), value.clone())),
            other => Err(format!("{}?\n{USAGE}", other.join(" "))),
        };
        words.chunks(2).map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn get(&self, name: &str) -> Result<&str, String> {
        self.find(name).ok_or_else(|| format!("{name} is missing\n{USAGE}"))
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        self.find(name).map(|text| text.parse().map_err(|_| format!("{name}: {text} is no number"))).transpose()
    }
}

fn main() -> ExitCode {
    // which deliveries were not answered, and how long they waited
    let filter = Targets::new().with_target("stockgate::simulator", LevelFilter::DEBUG);
    tracing_subscriber::registry().with(filter).with(layer().compact().with_ansi(false).with_writer(std::io::stderr)).init();
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let result = Options::read(words).and_then(|options| match command.as_str() {
        "run" => run::run(&options),
        "check" => check::check(&options),
        _ => Err(USAGE.to_owned()),
    });
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
