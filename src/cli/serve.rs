//! `stockgate serve`: run the gateway until it is told to stop.
//!
//! SIGTERM and SIGINT stop it: what was taken is finished and made durable. SIGHUP reloads the configuration, like
//! `stockgate reload`, with the outcome in the log. Under systemd it says how it is (`Type=notify`), answers the watchdog, and
//! takes over the sockets of a `.socket` unit.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ring::rand::SecureRandom;
use tokio::signal::unix::{SignalKind, signal};

use super::code::{CONFIGURATION, FAILURE, TRY_AGAIN, UNAVAILABLE};
use super::{environment, logging};
use crate::app::{Gateway, Manager, StartError, Surroundings};
use crate::config::{self, Checked, Loaded, Located, Overrides, Report};
use crate::net::passed::{ADMIN, PUBLIC, Passed};
use crate::store::StoreError;
use crate::types::Secret;

/// Where the built-in source's secret is kept, in the data directory.
pub(super) const BUILT_IN_SECRET_FILE: &str = "generic.secret";

/// Run the gateway.
///
/// Under systemd (Type=notify) it tells when it is ready, what it does, and that it is alive (WatchdogSec=); it listens on
/// the sockets that a socket unit passes with FileDescriptorName=https (deliveries) or =admin. SIGTERM stops it, SIGHUP
/// reloads the configuration.
///
/// With no configuration: https on :8443 with a self-made certificate, the admin API on 127.0.0.1:9780, data in
/// ./stockgate-data, and one generic source whose secret it makes and prints.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file (TOML); every key is documented by `stockgate check --defaults`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Public address (TLS), such as 0.0.0.0:8443
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Admin address (plain HTTP, this machine only), such as 127.0.0.1:9780
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<String>,
}

impl Args {
    fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::default();
        if let Some(data) = &self.data {
            overrides = overrides.set("data.directory", &data.display().to_string(), "--data");
        }
        if let Some(listen) = &self.listen {
            overrides = overrides.set("listen.address", listen, "--listen");
        }
        if let Some(admin) = &self.admin {
            overrides = overrides.set("admin.address", admin, "--admin");
        }
        overrides
    }
}

/// Run it.
pub(super) fn run(args: &Args) -> ExitCode {
    // before there is a second thread
    let passed = match Passed::take(environment("LISTEN_FDNAMES").as_deref()) {
        Ok(passed) => passed,
        Err(why) => {
            eprintln!("stockgate: {why}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    let mut overrides = args.overrides();
    let (mut config, made, warnings) = match read(args.config.as_deref(), &overrides) {
        Ok(read) => read,
        Err(unreadable) => return unreadable.report(),
    };
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let configured = (config.listen, config.admin);
    if passed.public.is_some() || passed.admin.is_some() {
        // what holds for a configured address holds for a passed one
        overrides = with_passed(overrides, &passed);
        config = match read(args.config.as_deref(), &overrides) {
            Ok((config, ..)) => config,
            Err(unreadable) => return unreadable.report(),
        };
    }
    logging::start(&config.log);
    for (key, configured, used) in
        [("[listen].address", configured.0, config.listen), ("[admin].address", configured.1, config.admin)]
    {
        if configured != used {
            tracing::info!(%configured, %used, "the socket that was passed is used, not {key}");
        }
    }
    let runtime = match crate::app::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("stockgate: cannot start: {error}");
            return ExitCode::from(TRY_AGAIN);
        }
    };
    let manager = Arc::new(Manager::of_environment(&environment, std::process::id()));
    let around = Surroundings { manager, passed };
    let code = runtime.block_on(Box::pin(serve(args, overrides, config, made, around)));
    // a thread that still waits for the disk is not waited for
    runtime.shutdown_background();
    code
}

/// The addresses of the sockets that were passed, as if they were configured.
fn with_passed(mut overrides: Overrides, passed: &Passed) -> Overrides {
    let (public, admin) = passed.addresses();
    for (key, address, name) in [("listen.address", public, PUBLIC), ("admin.address", admin, ADMIN)] {
        if let Some(address) = address {
            overrides = overrides.set(key, &address.to_string(), &format!("the socket passed as `{name}`"));
        }
    }
    overrides
}

enum Unreadable {
    Report(Report),
    Secret(String),
}

impl Unreadable {
    /// Say why.
    fn report(self) -> ExitCode {
        match self {
            Self::Report(report) => {
                for warning in &report.warnings {
                    eprintln!("warning: {warning}");
                }
                eprintln!("{report}");
                ExitCode::from(CONFIGURATION)
            }
            Self::Secret(why) => {
                eprintln!("stockgate: {why}");
                ExitCode::from(FAILURE)
            }
        }
    }
}

/// What was made because nothing was configured.
struct Made {
    secret_path: PathBuf,
    new: bool,
}

/// The configuration, or the built-in one with a secret that is made once and kept.
fn read(file: Option<&Path>, overrides: &Overrides) -> Result<(Checked, Option<Made>, Vec<Located>), Unreadable> {
    let (loaded, made) = if file.is_some() {
        (config::load(file, overrides, &environment).map_err(Unreadable::Report)?, None)
    } else {
        let (bare, _) = config::load(None, overrides, &environment).map_err(Unreadable::Report)?;
        let (secret, made) = built_in_secret(&bare.data_dir).map_err(Unreadable::Secret)?;
        (config::built_in(&secret, overrides, &environment).map_err(Unreadable::Report)?, Some(made))
    };
    let (checked, found) = loaded;
    let mut warnings =
        config::unknown_variables(std::env::vars().map(|(name, _)| name).collect::<Vec<_>>().iter().map(String::as_str));
    if made.is_none() {
        warnings.extend(found);
    }
    Ok((checked, made, warnings))
}

/// The built-in source's secret: 32 random bytes in hexadecimal, made at the first start, mode 0600.
fn built_in_secret(data: &Path) -> Result<(Secret, Made), String> {
    let secret_path = data.join(BUILT_IN_SECRET_FILE);
    if secret_path.exists() {
        return Ok((config::read_secret(&secret_path)?, Made { secret_path, new: false }));
    }
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    let text = data_encoding::HEXLOWER.encode(&bytes);
    crate::app::make_data_directory(data).map_err(|error| error.to_string())?;
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&secret_path)?;
        writeln!(file, "{text}")?;
        file.sync_all()
    };
    write().map_err(|error| format!("the secret {} cannot be written: {error}", secret_path.display()))?;
    Ok((Secret::new(text), Made { secret_path, new: true }))
}

async fn serve(args: &Args, overrides: Overrides, config: Checked, made: Option<Made>, around: Surroundings) -> ExitCode {
    let file = args.config.clone();
    let reread = move || -> Result<Loaded, Report> {
        match read(file.as_deref(), &overrides) {
            Ok((checked, _, warnings)) => Ok((checked, warnings)),
            Err(Unreadable::Report(report)) => Err(report),
            Err(Unreadable::Secret(why)) => Err(Report {
                problems: vec![config::Located { file: "data".to_owned(), line: None, path: String::new(), message: why }],
                warnings: Vec::new(),
            }),
        }
    };
    let data = config.data_dir.clone();
    // before anything listens, so that no signal is lost
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        eprintln!("stockgate: cannot listen to signals");
        return ExitCode::from(FAILURE);
    };
    let manager = Arc::clone(&around.manager);
    let started = tokio::select! {
        started = Gateway::start_with(config, Box::new(reread), around) => started,
        _ = terminate.recv() => return ended_early(&manager),
        _ = interrupt.recv() => return ended_early(&manager),
    };
    let gateway = match started {
        Ok(gateway) => gateway,
        Err(error) => {
            eprintln!("stockgate: {error}");
            manager.failed(&error.to_string());
            return exit_code(&error);
        }
    };
    print!("{}", welcome(&gateway, args, &data, made.as_ref()));
    drop(std::io::stdout().flush());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // taken or refused, it is in the log and in the metrics
            _ = hangup.recv() => drop(gateway.reload()),
            () = gateway.failed() => {
                eprintln!("stockgate: the fold has stopped (see the log); a restart continues from the last checkpoint");
                gateway.stop().await;
                return ExitCode::from(FAILURE);
            }
        }
    }
    gateway.stop().await;
    ExitCode::SUCCESS
}

/// A stop before the gateway was ready. Whatever a thread is about to write can be cut off: a start after a crash is like any.
fn ended_early(manager: &Manager) -> ExitCode {
    manager.stopping("stopped before it was ready");
    tracing::info!("stopped before it was ready");
    ExitCode::SUCCESS
}

fn exit_code(error: &StartError) -> ExitCode {
    ExitCode::from(match error {
        error if error.is_configuration() => CONFIGURATION,
        StartError::Bind { .. } | StartError::Store(StoreError::Locked(_)) => UNAVAILABLE,
        StartError::Journal(_) | StartError::Store(StoreError::Io(_) | StoreError::Full(_)) | StartError::Thread(_) => {
            TRY_AGAIN
        }
        _ => FAILURE,
    })
}

/// What a person reads after the start.
fn welcome(gateway: &Gateway, args: &Args, data: &Path, made: Option<&Made>) -> String {
    let (public, admin) = (gateway.public_addr(), gateway.admin_addr());
    let mut text = format!("listening on https://{public}\nadmin on http://{admin}\n");
    if gateway.self_made_certificate() {
        text.push_str(&format!("certificate self-made, SHA-256 {}\n", gateway.fingerprint()));
    }
    let Some(made) = made else { return text };
    let program = quoted(Path::new(&std::env::args().next().unwrap_or_else(|| "stockgate".to_owned())));
    let to = std::net::SocketAddr::new(
        if public.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { public.ip() },
        public.port(),
    );
    let data_flag = args.data.as_ref().map(|_| format!(" --data {}", quoted(data))).unwrap_or_default();
    let to_flag = if to.port() == 8443 { String::new() } else { format!(" --to https://{to}") };
    let admin_flag = if admin.port() == 9780 { String::new() } else { format!(" --admin http://{admin}") };
    let (age, path) = (if made.new { "made now" } else { "made at the first start" }, made.secret_path.display());
    text.push_str(&format!(
        "\nno configuration given, so there is one source, `generic`, for the warehouse `main`.\n\
         It takes POST https://{to}/in/generic with a body such as {{\"sku\":\"A-1\",\"quantity\":5}},\n\
         signed with HMAC-SHA-256 (hexadecimal) in the header x-stockgate-signature;\n\
         the secret is in {path} ({age}).\n\n\
         Send a first delivery from another terminal, and look at the level:\n\n  \
         echo '{{\"sku\":\"A-1\",\"quantity\":5}}' | {program} send --source generic{data_flag}{to_flag} -\n  \
         {program} stock{admin_flag}\n\n"
    ));
    text
}

/// A path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
