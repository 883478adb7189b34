//! Each check, made to fail: what was seen is given, not made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checks::{
    self, Bind, Certificate, Directory, Finding, Found, Gateway, Mount, Room, Status, Synchronised, mount_of,
};
use super::{machine, render};
use crate::net::acme::{LastFailure, Report};
use crate::time::Timestamp;

const GIB: u64 = 1 << 30;

fn time(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).expect("a time")
}

#[track_caller]
fn judged(finding: &Finding, status: Status, seen: &str, advice: &str) {
    assert_eq!(finding.status, status, "{finding:?}");
    assert!(finding.seen.contains(seen), "{finding:?}");
    assert!(finding.advice.as_deref().unwrap_or_default().contains(advice), "{finding:?}");
    assert_eq!(finding.advice.is_none(), status == Status::Ok, "what is not well has an advice: {finding:?}");
}

#[test]
fn doctor_reads_its_findings_aloud() {
    let findings = [
        checks::configuration("stockgate.toml", Ok((2, Vec::new()))),
        checks::descriptors(Some(100), 512),
        checks::file_system(Some(&mount("tmpfs", "/dev/shm", "rw"))),
    ];
    let expected = "\
ok    configuration  stockgate.toml, sources: 2
warn  open files     100 allowed here, 576 wanted
                     raise it (LimitNOFILE= of the service, ulimit -n), or lower [limits].connections
fail  file system    tmpfs at /dev/shm is in memory
                     put the data directory on a disk: what was acknowledged is gone when the power is
1 ok, 1 to look at, 1 failed
";
    assert_eq!(render(&findings), expected);
    let json = serde_json::to_string(&findings[1]).expect("JSON");
    assert!(
        json.starts_with(r#"{"check":"open files","status":"warn","seen":"100"#) && json.contains(r#""do":"raise"#),
        "{json}"
    );
}

#[test]
fn doctor_shows_the_first_problem_of_a_configuration() {
    let problems = vec!["s.toml:3: a".to_owned(), "s.toml:4: b".to_owned()];
    judged(&checks::configuration("s.toml", Err(problems)), Status::Fail, "problems: 2", "s.toml:3: a");
    judged(&checks::configuration("s.toml", Ok((1, vec!["w".to_owned()]))), Status::Warn, "warnings: 1", "w");
    judged(&checks::configuration("s.toml", Ok((0, Vec::new()))), Status::Warn, "no source", "check --defaults");
}

#[test]
fn doctor_wants_the_data_directory_for_the_gateway_alone() {
    let seen = |mode, owner, me| Directory {
        path: PathBuf::from("/data"),
        found: Some(Found { directory: true, mode, owner }),
        me,
        restoring: false,
    };
    judged(&checks::directory(&seen(0o40_700, 7, 7)), Status::Ok, "mode 0700", "");
    judged(&checks::directory(&seen(0o40_700, 7, 0)), Status::Ok, "owner 7", "");
    judged(&checks::directory(&seen(0o40_700, 7, 8)), Status::Fail, "belongs to user 7", "chown");
    judged(&checks::directory(&seen(0o40_755, 7, 7)), Status::Warn, "may read", "chmod 700 /data");
    judged(&checks::directory(&seen(0o40_770, 7, 7)), Status::Fail, "may write", "chmod 700 /data");
    judged(&checks::directory(&seen(0o40_500, 7, 7)), Status::Fail, "cannot use", "chmod 700 /data");
    judged(&checks::directory(&Directory { found: None, ..seen(0, 0, 0) }), Status::Ok, "not there yet", "");
    let file = Some(Found { directory: false, mode: 0o100_600, owner: 7 });
    judged(&checks::directory(&Directory { found: file, ..seen(0, 0, 7) }), Status::Fail, "no directory", "--data");
    let restoring = Directory { restoring: true, ..seen(0o40_700, 7, 7) };
    judged(&checks::directory(&restoring), Status::Fail, "did not end", "stockgate restore");
}

#[test]
fn doctor_wants_secrets_for_their_owner_alone() {
    let files = |mode| vec![(PathBuf::from("/s/a"), 0o100_600), (PathBuf::from("/s/b"), mode)];
    judged(&checks::secrets(&files(0o100_600)), Status::Ok, "2", "");
    judged(&checks::secrets(&files(0o100_640)), Status::Warn, "/s/b", "chmod 600 /s/b");
    judged(&checks::secrets(&files(0o100_644)), Status::Fail, "every user", "chmod 600 /s/b");
}

#[test]
fn doctor_shows_what_was_set_aside() {
    judged(&checks::set_aside(&[]), Status::Ok, "nothing", "");
    judged(&checks::set_aside(&[PathBuf::from("/data/state.damaged-1")]), Status::Warn, "state.damaged-1", "smartctl");
}

fn mount(kind: &str, point: &str, options: &str) -> Mount {
    Mount { kind: kind.to_owned(), point: point.to_owned(), options: options.split(',').map(str::to_owned).collect() }
}

#[test]
fn doctor_finds_the_mount_of_a_path() {
    let info = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 22 0:26 / /srv rw - tmpfs tmpfs rw
31 22 8:2 / /srv rw,noatime - xfs /dev/sdb1 rw,barrier=0
32 22 8:3 / /srv/my\\040data ro - vfat /dev/sdc1 rw
33 22 8:3 / /srv2 rw - nfs4 host:/x rw
short line
";
    let at = |path: &str| mount_of(info, Path::new(path)).map(|m| (m.kind, m.point));
    let is = |kind: &str, point: &str| Some((kind.to_owned(), point.to_owned()));
    assert_eq!(at("/var/lib/stockgate"), is("ext4", "/"));
    assert_eq!(at("/srv/data"), is("xfs", "/srv"), "the later mount covers the earlier one");
    assert_eq!(at("/srv/my data/x"), is("vfat", "/srv/my data"));
    assert_eq!(at("/srv2"), is("nfs4", "/srv2"), "whole names are compared");
    let found = mount_of(info, Path::new("/srv/data")).expect("a mount");
    judged(&checks::file_system(Some(&found)), Status::Fail, "write barriers", "barriers");
    assert_eq!(mount_of("", Path::new("/")), None);
}

#[test]
fn doctor_knows_which_file_systems_keep_what_they_are_given() {
    let judge = |kind, options| checks::file_system(Some(&mount(kind, "/data", options)));
    for kind in ["ext4", "xfs", "btrfs", "f2fs", "zfs"] {
        judged(&judge(kind, "rw"), Status::Ok, kind, "");
    }
    judged(&judge("ext4", "ro,noatime"), Status::Fail, "read-only", "remount");
    judged(&judge("tmpfs", "rw"), Status::Fail, "in memory", "disk");
    judged(&judge("ext4", "rw,nobarrier"), Status::Fail, "barriers", "barriers");
    judged(&judge("nfs4", "rw"), Status::Warn, "network", "local");
    judged(&judge("overlay", "rw"), Status::Warn, "layer", "volume");
    judged(&judge("vfat", "rw"), Status::Warn, "vfat", "ext4");
    judged(&checks::file_system(None), Status::Warn, "cannot be seen", "local");
}

#[test]
fn doctor_counts_what_retention_will_still_need() {
    let plenty = Room { free: 10 * GIB, inodes: (1000, 2000), journal: GIB / 2, state: 1 << 20, keep: GIB };
    judged(&checks::room(&plenty), Status::Ok, "10.0 GiB left, up to 546.0 MiB", "");
    judged(&checks::room(&Room { free: GIB / 4, ..plenty }), Status::Warn, "256.0 MiB left", "[retention].bytes is 1.0 GiB");
    judged(&checks::room(&Room { free: 20 << 20, ..plenty }), Status::Fail, "20.0 MiB left", "free some");
    // a large state needs its copies
    judged(&checks::room(&Room { free: GIB, state: GIB, ..plenty }), Status::Fail, "needs 2.0 GiB", "state 1.0 GiB");
    judged(&checks::room(&Room { inodes: (99, 2000), ..plenty }), Status::Fail, "99 inodes", "remove files");
    assert_eq!(checks::room(&Room { inodes: (0, 0), ..plenty }).status, Status::Ok, "btrfs has no such bound");
}

#[test]
fn doctor_does_not_believe_a_disk_that_is_too_fast() {
    let all = |us: u64| vec![Duration::from_micros(us); 50];
    let judge = |samples: &[Duration], in_memory| checks::sync(Ok(samples), in_memory);
    judged(&judge(&all(170), false), Status::Ok, "170 us (median), 170 us (p99)", "");
    judged(&judge(&all(6), false), Status::Warn, "6 us", "before it has stored");
    judged(&judge(&all(6), true), Status::Ok, "6 us", "");
    judged(&judge(&all(60_000), false), Status::Warn, "60 ms", "SSD");
    judged(&judge(&all(600_000), false), Status::Fail, "600 ms", "platforms give up");
    let mut spiky = all(900);
    spiky[10] = Duration::from_millis(800);
    spiky[20] = Duration::from_millis(800);
    judged(&judge(&spiky, false), Status::Warn, "900 us (median), 800 ms (p99)", "SSD");
    judged(&checks::sync(Err("permission denied"), false), Status::Fail, "permission denied", "write");
}

#[test]
fn doctor_sees_a_clock_that_cannot_be_right() {
    let now = time("2026-11-21T09:00:00Z");
    let file = Path::new("/data/state.redb");
    let judge = |now, newest: &str| checks::clock(now, Some((file, time(newest))), Synchronised::Yes);
    judged(&judge(now, "2026-11-21T09:01:00Z"), Status::Ok, "synchronised", "");
    judged(&judge(now, "2026-11-21T09:03:00Z"), Status::Fail, "state.redb", "chrony");
    for wrong in ["1970-01-01T00:00:09Z", "2025-12-31T23:59:59Z", "2106-02-07T06:28:15Z"] {
        judged(&judge(time(wrong), "1970-01-01T00:00:00Z"), Status::Fail, "is not today", "chrony");
    }
    judged(&checks::clock(now, None, Synchronised::No), Status::Warn, "not synchronised yet", "chrony");
    judged(&checks::clock(now, None, Synchronised::Unknown), Status::Warn, "nothing here says", "chrony");
}

#[test]
fn doctor_looks_at_the_certificate_as_a_platform_does() {
    let now = time("2026-11-21T09:00:00Z");
    let seen = |from: &str, to: &str, self_made, missing: &[&str]| Certificate::Usable {
        not_before: time(from),
        not_after: time(to),
        self_made,
        missing: missing.iter().map(|name| (*name).to_owned()).collect(),
    };
    let judge = |seen: &Certificate| checks::certificate(seen, now);
    let (past, soon, later) = ("2026-11-01T00:00:00Z", "2026-11-30T00:00:00Z", "2027-02-01T00:00:00Z");
    judged(&judge(&seen(past, later, false, &[])), Status::Ok, "valid until 2027-02-01", "");
    judged(&judge(&seen("2026-09-01T00:00:00Z", soon, false, &[])), Status::Warn, "expires in 8 days", "renew");
    judged(&judge(&seen("2026-11-25T00:00:00Z", later, true, &[])), Status::Fail, "valid only from", "clock");
    let six_days = |from| judge(&seen(from, "2026-11-24T00:00:00Z", false, &[]));
    judged(&six_days("2026-11-18T00:00:00Z"), Status::Ok, "valid until", "");
    judged(&six_days("2026-11-01T00:00:00Z"), Status::Warn, "expires in 2 days", "renew");
    judged(&judge(&seen(past, past, false, &[])), Status::Fail, "expired at", "renew");
    judged(&judge(&seen(past, past, true, &[])), Status::Fail, "self-made, expired", "restart");
    judged(&judge(&seen(soon, later, false, &[])), Status::Fail, "valid only from", "clock");
    judged(&judge(&seen(past, later, true, &["box.lan"])), Status::Warn, "not for box.lan", "tls-cert.pem");
    judged(&judge(&Certificate::NotYet), Status::Ok, "first start", "");
    judged(&judge(&Certificate::Ordered), Status::Warn, "not here yet", "ACME");
    judged(&judge(&Certificate::Unusable("no key".to_owned())), Status::Fail, "no key", "[tls]");
}

#[test]
fn doctor_tells_how_it_stands_with_acme() {
    let good = Report {
        directory: "https://acme.example/dir".to_owned(),
        names: vec!["gate.example.com".to_owned()],
        last_success: Some(time("2026-11-20T09:00:00Z")),
        ..Report::default()
    };
    judged(&checks::acme(None), Status::Ok, "nothing was ordered yet", "");
    judged(&checks::acme(Some(&good)), Status::Ok, "gate.example.com, last at 2026-11-20T09:00", "");
    let last_failure = Some(LastFailure {
        at: time("2026-11-21T08:00:00Z"),
        reason: "challenge".to_owned(),
        message: "gate.example.com is not proven: no address".to_owned(),
    });
    let failing = Report { failures: 2, last_failure, next_attempt: Some(time("2026-11-21T09:00:00Z")), ..good };
    judged(&checks::acme(Some(&failing)), Status::Warn, "is not proven: no address", "port 443");
    judged(&checks::acme(Some(&failing)), Status::Warn, "failed: 2", "again at 2026-11-21T09:00:00");
    let never = Report { last_success: None, ..failing };
    judged(&checks::acme(Some(&never)), Status::Fail, "is not proven", "stockgate reload");
}

#[test]
fn doctor_says_why_a_gateway_cannot_listen() {
    let judge = |problem| {
        let listen = ("listen", "0.0.0.0:443".to_owned(), problem);
        checks::gateway(&Gateway::Stopped(vec![listen, ("admin", "127.0.0.1:9780".to_owned(), None)]))
    };
    judged(&judge(None), Status::Ok, "0.0.0.0:443 and 127.0.0.1:9780 can be used", "");
    judged(&judge(Some(Bind::InUse)), Status::Fail, "0.0.0.0:443 is in use", "[listen].address");
    judged(&judge(Some(Bind::NotAllowed)), Status::Fail, "may not listen", "CAP_NET_BIND_SERVICE");
    judged(&judge(Some(Bind::Other("no such address".to_owned()))), Status::Fail, "no such address", "this machine's");
    judged(&checks::gateway(&Gateway::Ready), Status::Ok, "ready", "");
    judged(&checks::gateway(&Gateway::NotReady("journal: failed".to_owned())), Status::Fail, "journal: failed", "log");
    judged(&checks::gateway(&Gateway::Odd("it is a printer".to_owned())), Status::Fail, "printer", "[admin].address");
}

#[test]
fn doctor_reads_what_the_machine_says() {
    let limits =
        "Limit                     Soft Limit  Hard Limit  Units\nMax open files            1024        524288      files\n";
    assert_eq!(machine::number_after(limits, "Max open files"), Some(1024));
    assert_eq!(machine::number_after("MemTotal: 9 kB\nMemAvailable:    4096 kB\n", "MemAvailable:"), Some(4096));
    assert_eq!(machine::number_after("Max open files unlimited", "Max open files"), None);
    judged(&checks::descriptors(None, 512), Status::Ok, "no bound", "");
    judged(&checks::descriptors(Some(1024), 512), Status::Ok, "1024", "");
    judged(&checks::memory(Some(GIB), GIB / 8), Status::Ok, "1.0 GiB available", "");
    judged(&checks::memory(Some(GIB / 16), GIB / 8), Status::Warn, "64.0 MiB available", "[limits]");
    judged(&checks::memory(None, GIB), Status::Ok, "cannot be seen", "");
}
