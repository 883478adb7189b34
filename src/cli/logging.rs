//! Log lines: for people, for machines (JSON), for systemd's journal (`<priority>` and no time, which journald adds).
//!
//! Only our own crate is logged below `warn`: what libraries have to say at `debug` is about bytes, not deliveries.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Compact, Format, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Start logging to standard error. A second call in one process changes nothing.
pub(super) fn start(config: &LogConfig) {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("stockgate", level);
    let registry = tracing_subscriber::registry().with(filter);
    let out = std::io::stderr;
    let started = match resolve(config.format) {
        LogFormat::Json => registry.with(layer().json().flatten_event(true).with_writer(out)).try_init(),
        LogFormat::Journald => registry.with(layer().event_format(Journald::default()).with_writer(out)).try_init(),
        LogFormat::Text | LogFormat::Auto => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(layer().compact().with_target(false).with_ansi(colour).with_writer(out)).try_init()
        }
    };
    if started.is_err() {
        tracing::trace!("logging was started already");
    }
}

/// `auto`: people at a terminal, systemd when it says so, machines elsewhere.
fn resolve(format: LogFormat) -> LogFormat {
    match format {
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto if is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()) => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    }
}

/// Is standard error what journald reads? `JOURNAL_STREAM` names its device and inode (systemd.exec(5)): the variable alone may
/// be inherited by a command whose output goes to a file.
fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else { return false };
    let Ok(about) = rustix::fs::fstat(std::io::stderr()) else { return false };
    let same = |text: &str, number: u64| text.parse::<u64>() == Ok(number);
    same(device, about.st_dev) && same(inode, about.st_ino)
}

/// One line, its priority in front (sd-daemon(3)), without a time.
struct Journald {
    line: Format<Compact, ()>,
}

impl Default for Journald {
    fn default() -> Self {
        Self { line: Format::default().compact().without_time().with_level(false).with_target(false).with_ansi(false) }
    }
}

impl<S, N> FormatEvent<S, N> for Journald
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(out, "<{priority}>")?;
        self.line.format_event(context, out, event)
    }
}
