//! What was seen, judged. Each function is pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cli::output::size;
use crate::limits::JOURNAL_SEGMENT_BYTES;
use crate::net::acme::{Reason, Report};
use crate::time::Timestamp;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// The gateway does not work like this, or loses data.
    Fail,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) status: Status,
    /// What was seen.
    pub(super) seen: String,
    /// What to do.
    #[serde(rename = "do")]
    pub(super) advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, seen: seen.into(), advice: None }
    }

    fn warn(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, seen: seen.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Fail, ..Self::warn(check, seen, advice) }
    }
}

// ---- configuration --------------------------------------------------------------------------------------------------

/// The configuration: its name, and the sources and warnings of a good one or the problems of a bad one.
pub(super) fn configuration(name: &str, loaded: Result<(usize, Vec<String>), Vec<String>>) -> Finding {
    const CHECK: &str = "configuration";
    match loaded {
        Ok((0, _)) => Finding::warn(
            CHECK,
            format!("{name}: no source is configured"),
            "add a [source.<name>] table: `stockgate check --defaults` has an example for each platform",
        ),
        Ok((sources, warnings)) => match warnings.first() {
            None => Finding::ok(CHECK, format!("{name}, sources: {sources}")),
            Some(first) => Finding::warn(CHECK, format!("{name}, warnings: {}", warnings.len()), first),
        },
        Err(problems) => {
            let first = problems.first().cloned().unwrap_or_default();
            let advice = format!("{first}; `stockgate check` shows all. What follows looks at the defaults");
            Finding::fail(CHECK, format!("{name}, problems: {}", problems.len()), advice)
        }
    }
}

// ---- data directory -------------------------------------------------------------------------------------------------

/// What was seen of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// `None`: it is not there.
    pub(super) found: Option<Found>,
    /// Who looks.
    pub(super) me: u32,
    /// A restore did not end in it.
    pub(super) restoring: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) directory: bool,
    pub(super) mode: u32,
    pub(super) owner: u32,
}

pub(super) fn directory(seen: &Directory) -> Finding {
    const CHECK: &str = "data directory";
    let path = seen.path.display();
    let Some(found) = seen.found else {
        return Finding::ok(CHECK, format!("{path} is not there yet: the first start makes it"));
    };
    let mode = found.mode & 0o7777;
    if !found.directory {
        return Finding::fail(CHECK, format!("{path} is no directory"), "name another one: [data].directory or --data");
    }
    if seen.restoring {
        let advice = "run `stockgate restore` again: it begins anew";
        return Finding::fail(CHECK, format!("a restore into {path} did not end"), advice);
    }
    if seen.me != 0 && found.owner != seen.me {
        let advice = format!("run this as the gateway's user or as root, or: chown -R {} {path}", seen.me);
        return Finding::fail(CHECK, format!("{path} belongs to user {}, not to {}", found.owner, seen.me), advice);
    }
    if mode & 0o700 != 0o700 {
        return Finding::fail(
            CHECK,
            format!("{path} has mode {mode:04o}: its owner cannot use it"),
            format!("chmod 700 {path}"),
        );
    }
    if mode & 0o022 != 0 {
        let seen = format!("{path} has mode {mode:04o}: others may write to it");
        return Finding::fail(CHECK, seen, format!("chmod 700 {path}"));
    }
    if mode & 0o055 != 0 {
        let seen = format!("{path} has mode {mode:04o}: others may read customers' data");
        return Finding::warn(CHECK, seen, format!("chmod 700 {path}"));
    }
    Finding::ok(CHECK, format!("{path}, mode {mode:04o}, owner {}", found.owner))
}

/// Files with secrets, and their modes.
pub(super) fn secrets(files: &[(PathBuf, u32)]) -> Finding {
    const CHECK: &str = "secrets";
    let open: Vec<&PathBuf> = files.iter().filter(|(_, mode)| mode & 0o007 != 0).map(|(path, _)| path).collect();
    let group: Vec<&PathBuf> = files.iter().filter(|(_, mode)| mode & 0o070 != 0).map(|(path, _)| path).collect();
    let names = |paths: &[&PathBuf]| paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ");
    if !open.is_empty() {
        let names = names(&open);
        return Finding::fail(CHECK, format!("open to every user of this machine: {names}"), format!("chmod 600 {names}"));
    }
    if !group.is_empty() {
        let names = names(&group);
        return Finding::warn(
            CHECK,
            format!("open to a group: {names}"),
            format!("chmod 600 {names}, unless that is meant"),
        );
    }
    Finding::ok(CHECK, format!("files that only their owner may read: {}", files.len()))
}

/// Files that were set aside because they could not be read (`store` gives them such names).
pub(super) fn set_aside(files: &[PathBuf]) -> Finding {
    const CHECK: &str = "damage";
    if files.is_empty() {
        return Finding::ok(CHECK, "nothing was set aside");
    }
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let advice = "the log of that start says what was lost. See whether the disk fails (smartctl -a), and remove them when you \
                  need them no more";
    Finding::warn(CHECK, format!("damaged and set aside: {}", names.join(" ")), advice)
}

// ---- file system ----------------------------------------------------------------------------------------------------

/// Where the data directory is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Kind of the file system: `ext4`.
    pub(super) kind: String,
    /// Where it is mounted.
    pub(super) point: String,
    /// All of its options.
    pub(super) options: Vec<String>,
}

impl Mount {
    /// It keeps nothing when the power goes.
    pub(super) fn in_memory(&self) -> bool {
        ["tmpfs", "ramfs", "devtmpfs"].contains(&self.kind.as_str())
    }
}

/// The mount that a path is on, of `/proc/self/mountinfo` (proc(5)).
pub(super) fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let before: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        let (Some(point), Some(options), Some(kind)) = (before.get(4), before.get(5), after.first()) else { continue };
        let point = unescaped(point);
        let depth = Path::new(&point).components().count();
        // a later line of the same point covers the earlier one
        if path.starts_with(&point) && best.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            let options = options.split(',').chain(after.get(2).into_iter().flat_map(|o| o.split(','))).map(str::to_owned);
            best = Some((depth, Mount { kind: (*kind).to_owned(), point, options: options.collect() }));
        }
    }
    best.map(|(_, mount)| mount)
}

/// Blanks and backslashes stand there in octal.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |t, (a, b)| t.replace(a, b))
}

pub(super) fn file_system(mount: Option<&Mount>) -> Finding {
    const CHECK: &str = "file system";
    const NETWORK: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "fuse.glusterfs"];
    let Some(mount) = mount else {
        return Finding::warn(CHECK, "which one it is cannot be seen", "see that it is a local one, on a disk");
    };
    let (kind, seen) = (mount.kind.as_str(), format!("{} at {}", mount.kind, mount.point));
    let has = |option: &str| mount.options.iter().any(|o| o == option);
    if has("ro") {
        return Finding::fail(
            CHECK,
            format!("{seen} is mounted read-only"),
            "look into the kernel's log for why, then remount it",
        );
    }
    if mount.in_memory() {
        let advice = "put the data directory on a disk: what was acknowledged is gone when the power is";
        return Finding::fail(CHECK, format!("{seen} is in memory"), advice);
    }
    if has("nobarrier") || has("barrier=0") {
        let advice = "mount it with barriers: without them a power failure takes what was acknowledged";
        return Finding::fail(CHECK, format!("{seen} is mounted without write barriers"), advice);
    }
    if NETWORK.contains(&kind) {
        let advice = "use a local disk: locks and syncs of a network file system depend on both ends";
        return Finding::warn(CHECK, format!("{seen} is on the network"), advice);
    }
    if ["overlay", "aufs"].contains(&kind) {
        let advice = "give the container a volume for the data directory: this goes away with the container";
        return Finding::warn(CHECK, format!("{seen} is a container's own layer"), advice);
    }
    if ["vfat", "exfat", "msdos", "ntfs", "ntfs3"].contains(&kind) {
        let advice = "use ext4, xfs, btrfs or f2fs: this one has no permissions and may tear on a power failure";
        return Finding::warn(CHECK, seen, advice);
    }
    Finding::ok(CHECK, seen)
}

// ---- room -----------------------------------------------------------------------------------------------------------

/// What a file system has left and what of it is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes that the gateway's user may still write.
    pub(super) free: u64,
    /// Files that may still be made, and all that may ever be; (0, 0) where that has no bound.
    pub(super) inodes: (u64, u64),
    /// Bytes of the journal now.
    pub(super) journal: u64,
    /// Bytes of the state now.
    pub(super) state: u64,
    /// Bytes of raw deliveries that are kept (`retention.bytes`).
    pub(super) keep: u64,
}

/// Inodes below which a start and retention may find none.
const INODES_MIN: u64 = 100;

pub(super) fn room(seen: &Room) -> Finding {
    const CHECK: &str = "free space";
    // a segment, and the two copies of the state that retention makes before it removes anything
    let least = JOURNAL_SEGMENT_BYTES.saturating_mul(4).saturating_add(seen.state.saturating_mul(2));
    let wanted = seen.keep.saturating_sub(seen.journal).saturating_add(least);
    let free = size(seen.free);
    let advice = format!(
        "free some, or keep less: [retention].bytes is {}, the journal has {}, the state {}",
        size(seen.keep),
        size(seen.journal),
        size(seen.state)
    );
    if seen.free < least {
        return Finding::fail(CHECK, format!("{free} left, retention alone needs {}", size(least)), advice);
    }
    if seen.inodes.1 > 0 && seen.inodes.0 < INODES_MIN {
        return Finding::fail(CHECK, format!("{} inodes left", seen.inodes.0), "remove files: no new ones can be made soon");
    }
    if seen.free < wanted {
        return Finding::warn(CHECK, format!("{free} left, up to {} will be used", size(wanted)), advice);
    }
    Finding::ok(CHECK, format!("{free} left, up to {} will be used", size(wanted)))
}

// ---- disk -----------------------------------------------------------------------------------------------------------

/// No medium that keeps data without power stores a block faster: the fastest with a protected cache take 15 to 30 us, and the
/// way through the kernel is some of it.
const FASTEST: Duration = Duration::from_micros(20);
/// Every acknowledgement waits for a commit of two syncs; platforms give up after 1.5 to 5 s.
const SLOW_MEDIAN: Duration = Duration::from_millis(50);
const SLOW_P99: Duration = Duration::from_millis(400);
const TOO_SLOW: Duration = Duration::from_millis(500);

/// How long it took to make a block durable, some fifty times; an error: it could not be written.
pub(super) fn sync(samples: Result<&[Duration], &str>, in_memory: bool) -> Finding {
    const CHECK: &str = "sync";
    let samples = match samples {
        Ok(samples) => samples,
        Err(why) => {
            let advice = "the gateway must be able to write to its data directory";
            return Finding::fail(CHECK, format!("a block cannot be written: {why}"), advice);
        }
    };
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default();
    let (median, p99) = (at(50), at(99));
    let seen = format!("4 KiB are durable after {} (median), {} (p99)", micros(median), micros(p99));
    if in_memory {
        return Finding::ok(CHECK, seen);
    }
    if median < FASTEST {
        let advice = "no disk is so fast: it may say so before it has stored. Switch its write cache off (hdparm -W 0), or see \
                      how the virtual machine's disk is cached (use none or writethrough)";
        return Finding::warn(CHECK, seen, advice);
    }
    if median > TOO_SLOW {
        return Finding::fail(CHECK, seen, "use a faster disk: platforms give up before they are answered");
    }
    if median > SLOW_MEDIAN || p99 > SLOW_P99 {
        return Finding::warn(CHECK, seen, "every answer waits for this: a better card or an SSD helps, and less beside it");
    }
    Finding::ok(CHECK, seen)
}

fn micros(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..=9_999 => format!("{us} us"),
        us => format!("{} ms", us / 1000),
    }
}

// ---- clock ----------------------------------------------------------------------------------------------------------

/// Who says that the clock is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synchronised {
    /// A time service, and it has.
    Yes,
    /// A time service, and it has not yet.
    No,
    /// Nobody that we know.
    Unknown,
}

/// A file from later than this is from the future.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(120);

pub(super) fn clock(now: Timestamp, newest: Option<(&Path, Timestamp)>, synchronised: Synchronised) -> Finding {
    const CHECK: &str = "clock";
    let advice = "set it, and run chrony or systemd-timesyncd: signed deliveries are refused when the clock is minutes off";
    let year = now.to_string().split('-').next().and_then(|y| y.parse::<i32>().ok()).unwrap_or_default();
    if !(2026..2100).contains(&year) {
        return Finding::fail(CHECK, format!("{now} is not today"), advice);
    }
    if let Some((path, at)) = newest
        && at.since(now) > CLOCK_TOLERANCE
    {
        let seen = format!("{now} is before {}, which was written at {at}: the clock was set back", path.display());
        return Finding::fail(CHECK, seen, advice);
    }
    match synchronised {
        Synchronised::Yes => Finding::ok(CHECK, format!("{now}, synchronised")),
        Synchronised::No => Finding::warn(CHECK, format!("{now}, not synchronised yet"), advice),
        Synchronised::Unknown => Finding::warn(CHECK, format!("{now}, nothing here says that it is synchronised"), advice),
    }
}

// ---- certificate ----------------------------------------------------------------------------------------------------

/// The public listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Certificate {
    /// Made at the first start.
    NotYet,
    /// Ordered by ACME; the self-made one serves.
    Ordered,
    /// It does not read, or its key does not fit.
    Unusable(String),
    Usable {
        not_before: Timestamp,
        not_after: Timestamp,
        self_made: bool,
        /// Configured names that it is not for.
        missing: Vec<String>,
    },
}

/// A certificate that ends sooner needs somebody: renewals happen thirty days before ..
const RENEW: Duration = Duration::from_secs(14 * 24 * 3600);
/// .. or when a third of a shorter lifetime is left: a fourth is late.
const RENEW_PART: u32 = 4;

pub(super) fn certificate(seen: &Certificate, now: Timestamp) -> Finding {
    const CHECK: &str = "certificate";
    let (not_before, not_after, self_made, missing) = match seen {
        Certificate::NotYet => return Finding::ok(CHECK, "self-made, at the first start"),
        Certificate::Ordered => {
            let advice = "the self-made one serves until it comes: see the check of ACME";
            return Finding::warn(CHECK, "ordered, not here yet", advice);
        }
        Certificate::Unusable(why) => {
            return Finding::fail(CHECK, why, "mend [tls].certificate and [tls].key, then `stockgate reload`");
        }
        Certificate::Usable { not_before, not_after, self_made, missing } => (not_before, not_after, self_made, missing),
    };
    let kind = if *self_made { "self-made, " } else { "" };
    if *not_after <= now {
        let advice = if *self_made {
            "restart the gateway: it makes a new one, with a new fingerprint"
        } else {
            "renew it, then `stockgate reload`: no platform delivers to an expired one"
        };
        return Finding::fail(CHECK, format!("{kind}expired at {not_after}"), advice);
    }
    if *not_before > now {
        return Finding::fail(CHECK, format!("{kind}valid only from {not_before}"), "see that the clock is right");
    }
    if !missing.is_empty() {
        let advice =
            "remove tls-cert.pem and tls-key.pem from the data directory and restart: it makes one with a new fingerprint";
        return Finding::warn(CHECK, format!("{kind}not for {}", missing.join(", ")), advice);
    }
    let days = not_after.since(now).as_secs() / 86_400;
    if not_after.since(now) < RENEW.min(not_after.since(*not_before) / RENEW_PART) {
        return Finding::warn(CHECK, format!("{kind}expires in {days} days"), "renew it, then `stockgate reload`");
    }
    Finding::ok(CHECK, format!("{kind}valid until {not_after}"))
}

/// How it stands with ACME, as the gateway left it in the data directory.
pub(super) fn acme(report: Option<&Report>) -> Finding {
    const CHECK: &str = "acme";
    let Some(report) = report else {
        return Finding::ok(CHECK, "nothing was ordered yet: the gateway does it when it runs");
    };
    let Some(last) = report.last_failure.as_ref().filter(|_| report.failures > 0) else {
        let at = report.last_success.map(|at| format!(", last at {at}")).unwrap_or_default();
        return Finding::ok(CHECK, format!("{} brings certificates for {}{at}", report.directory, report.names.join(", ")));
    };
    let seen = format!("attempts that failed: {}, the last at {}: {}", report.failures, last.at, last.message);
    let next = report.next_attempt.map(|at| format!("; it is tried again at {at}")).unwrap_or_default();
    let advice = Reason::named(&last.reason).map_or("its log says more", Reason::advice);
    let advice = format!("{advice}{next}, or at once by `stockgate reload`");
    // a renewal has time: it begins long before the end
    if report.last_success.is_some() { Finding::warn(CHECK, seen, advice) } else { Finding::fail(CHECK, seen, advice) }
}

// ---- gateway --------------------------------------------------------------------------------------------------------

/// What is at the gateway's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gateway {
    Ready,
    /// What `/readyz` says.
    NotReady(String),
    /// Somebody answers who is no gateway, or does not finish.
    Odd(String),
    /// Nobody answers. (section, address, why it cannot be bound)
    Stopped(Vec<(&'static str, String, Option<Bind>)>),
}

/// Why an address cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bind {
    InUse,
    NotAllowed,
    Other(String),
}

pub(super) fn gateway(seen: &Gateway) -> Finding {
    const CHECK: &str = "gateway";
    match seen {
        Gateway::Ready => Finding::ok(CHECK, "runs, and is ready"),
        Gateway::NotReady(why) => Finding::fail(
            CHECK,
            format!("runs, and is not ready: {why}"),
            "its log says more; `stockgate doctor` goes on below",
        ),
        Gateway::Odd(why) => Finding::fail(CHECK, why, "see who listens there (ss -ltnp), or name another [admin].address"),
        Gateway::Stopped(addresses) => {
            for (section, address, problem) in addresses {
                let (seen, advice) = match problem {
                    None => continue,
                    Some(Bind::InUse) => (
                        format!("does not run, and {address} is in use"),
                        format!("see who listens there (ss -ltnp), or name another [{section}].address"),
                    ),
                    Some(Bind::NotAllowed) => (
                        format!("does not run, and this user may not listen at {address}"),
                        "forward the port to 8443, or give the service CAP_NET_BIND_SERVICE".to_owned(),
                    ),
                    Some(Bind::Other(why)) => (
                        format!("does not run, and nobody can listen at {address}: {why}"),
                        format!("[{section}].address must be one of this machine's"),
                    ),
                };
                return Finding::fail(CHECK, seen, advice);
            }
            let free: Vec<&str> = addresses.iter().map(|(_, address, _)| address.as_str()).collect();
            Finding::ok(CHECK, format!("does not run; {} can be used", free.join(" and ")))
        }
    }
}

// ---- machine --------------------------------------------------------------------------------------------------------

/// Files that are open besides connections: databases, logs, listeners, API calls.
const FILES_BESIDES: u64 = 64;

/// Files that a process may have open; `None`: no bound is known.
pub(super) fn descriptors(limit: Option<u64>, connections: usize) -> Finding {
    const CHECK: &str = "open files";
    let wanted = FILES_BESIDES + connections as u64;
    match limit {
        Some(limit) if limit < wanted => {
            let advice = "raise it (LimitNOFILE= of the service, ulimit -n), or lower [limits].connections";
            Finding::warn(CHECK, format!("{limit} allowed here, {wanted} wanted"), advice)
        }
        Some(limit) => Finding::ok(CHECK, format!("{limit} allowed here, {wanted} wanted")),
        None => Finding::ok(CHECK, "no bound is known"),
    }
}

/// Bytes of memory: available now (`None`: not known), and what the gateway may come to use.
pub(super) fn memory(available: Option<u64>, wanted: u64) -> Finding {
    const CHECK: &str = "memory";
    match available {
        Some(available) if available < wanted => {
            let advice = "lower [limits].connections, [limits].bodies or [store].cache, or give it more";
            Finding::warn(CHECK, format!("{} available, up to {} may be used", size(available), size(wanted)), advice)
        }
        Some(available) => Finding::ok(CHECK, format!("{} available, up to {} may be used", size(available), size(wanted))),
        None => Finding::ok(CHECK, "what is available cannot be seen"),
    }
}
