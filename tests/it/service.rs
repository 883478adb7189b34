//! Under a service manager: what it is told and when, and the sockets that it passes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use http::StatusCode;
use stockgate::net::client::{Alpn, BaseUrl};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::gateway::{ABSOLUTE, Gateway, Site, delivery};
use crate::process::{Finished, PATIENCE, Transcript, run, signal, stockgate, wait};

/// Plays the service manager: reads what it is told.
struct Manager {
    socket: UnixDatagram,
    address: String,
    _directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("notify");
        Self::bound(UnixDatagram::bind(&path).expect("binds"), path.display().to_string(), directory)
    }

    /// With a name in the abstract namespace.
    fn of_name() -> Self {
        let directory = TempDir::new().expect("a directory");
        let name = format!("stockgate{}", directory.path().display());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        Self::bound(UnixDatagram::bind_addr(&address).expect("binds"), format!("@{name}"), directory)
    }

    fn bound(socket: UnixDatagram, address: String, directory: TempDir) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self { socket, address, _directory: directory }
    }

    /// The next message: its lines.
    #[track_caller]
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message comes");
        String::from_utf8(buffer[..length].to_vec()).expect("text").lines().map(str::to_owned).collect()
    }

    /// All messages up to the first with this line.
    #[track_caller]
    fn until(&self, line: &str) -> Vec<Vec<String>> {
        let mut heard = Vec::new();
        loop {
            let message = self.next();
            let found = message.iter().any(|l| l == line);
            heard.push(message);
            if found {
                return heard;
            }
        }
    }

    /// What has been said and not been read yet.
    fn rest(&self) -> Vec<Vec<String>> {
        self.socket.set_nonblocking(true).expect("it can");
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect());
        }
        self.socket.set_nonblocking(false).expect("it can");
        heard
    }

    fn over(&self, mut command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.address);
        command
    }
}

fn says(messages: &[Vec<String>], line: &str) -> bool {
    messages.iter().flatten().any(|l| l == line)
}

/// The value behind `KEY=` in a message.
fn value<'a>(message: &'a [String], key: &str) -> Option<&'a str> {
    message.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

fn free_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_ready_when_it_is_and_stopping_when_it_stops() {
    for manager in [Manager::new(), Manager::of_name()] {
        let site = Site::new(ABSOLUTE);
        let admin = free_address();
        let mut command = manager.over(site.serve());
        command.arg("--admin").arg(admin.to_string());
        // asks at the moment of READY, and once
        let asked = std::thread::spawn(move || {
            let before = manager.until("READY=1");
            let mut stream = TcpStream::connect(admin).expect("it listens");
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            (manager, before, answer)
        });
        let gateway = Gateway::start(&mut command);
        let (manager, before, answer) = asked.join().expect("asked");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (ready, before) = before.split_last().expect("READY");
        let status = value(ready, "STATUS").expect("a status");
        assert!(status.starts_with("sources: 1, levels: 0, records: 1, not folded yet: "), "{status}");
        for message in before {
            assert!(message.iter().all(|line| line.starts_with("STATUS=") || line.starts_with("EXTEND_")), "{message:?}");
        }
        assert!(before.iter().flatten().any(|line| line.starts_with("STATUS=opening ")), "{before:?}");

        assert_eq!(gateway.stop().0, Some(0));
        let heard = manager.rest();
        assert!(says(&heard, "STOPPING=1") && !says(&heard, "READY=1"), "{heard:?}");
    }
}

#[test]
fn a_start_that_fails_is_never_called_ready() {
    let site = Site::new(ABSOLUTE);
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let manager = Manager::new();
    let mut command = manager.over(site.serve());
    run(command.arg("--listen").arg(taken.local_addr().expect("bound").to_string()), "").failed(69);
    let heard = manager.rest();
    assert!(!says(&heard, "READY=1"), "{heard:?}");
    let last = value(heard.last().expect("messages"), "STATUS").expect("a status");
    assert!(last.contains("cannot listen on"), "it says why: {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_told_from_its_beginning_to_its_end() {
    let site = Site::new(ABSOLUTE);
    let manager = Manager::new();
    let gateway = Gateway::start(&mut manager.over(site.serve()));
    manager.until("READY=1");

    let reload = |expected: Option<i32>| {
        let before = stockgate::time::monotonic_micros();
        let finished = run(&mut gateway.command(&["reload"]), "");
        assert_eq!(finished.code, expected, "{finished:?}");
        // what was told before the command returned; status lines of the running service may stand between
        let heard: Vec<_> = manager.rest().into_iter().filter(|m| m.len() > 1).collect();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert_eq!(heard[0][0], "RELOADING=1");
        let at: u64 = value(&heard[0], "MONOTONIC_USEC").expect("a time").parse().expect("a number");
        assert!((before..=stockgate::time::monotonic_micros()).contains(&at), "{at}");
        assert_eq!(heard[1][0], "READY=1");
        (finished, value(&heard[1], "STATUS").expect("a status").to_owned())
    };
    assert_eq!(reload(Some(0)).1, "1 sources in force");

    site.configure(&format!("{ABSOLUTE}\n[limits]\nbodi = \"2MiB\"\n"));
    let (finished, status) = reload(Some(78));
    assert!(finished.stderr.contains("bodi"), "the reason is printed: {finished:?}");
    assert_eq!(status, "the reload was refused: the old configuration stays in force");

    // the same by signal: the outcome is in the log
    signal(gateway.pid(), "HUP");
    manager.until("RELOADING=1");
    manager.until("READY=1");
    gateway.log.wait_for(|log| (log.matches("reload refused").count() == 2).then_some(())).expect("it goes on");
    site.configure(ABSOLUTE);
    signal(gateway.pid(), "HUP");
    let heard = manager.until("READY=1");
    assert!(says(&heard, "RELOADING=1"), "{heard:?}");
    gateway.log.wait_for(|log| (log.matches("configuration reloaded").count() == 2).then_some(())).expect("it goes on");
    assert_eq!(gateway.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_of_life_come_idle_and_busy() {
    let site = Site::new(ABSOLUTE);
    let manager = Manager::new();
    let mut command = manager.over(site.serve());
    let gateway = Gateway::start(command.env("WATCHDOG_USEC", "400000"));
    manager.until("READY=1");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    let mut connection = gateway.connect(&site, Alpn::Http1).await;
    let mut signs = 0;
    for n in 0.. {
        let body = format!(r#"{{"sku":"A","quantity":{n}}}"#);
        let answer = connection.send(delivery(&format!("d-{n}"), &body)).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK);
        signs += manager.rest().iter().filter(|m| says(std::slice::from_ref(m), "WATCHDOG=1")).count();
        if signs >= 3 {
            break;
        }
    }
    assert_eq!(gateway.stop().0, Some(0));
}

/// A gateway's child that a test looks after by itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_stop_while_the_store_is_being_opened_does_not_wait_for_it() {
    let site = Site::new(ABSOLUTE);
    // there is no state, so the snapshot is read; and whoever opens this pipe waits for ever
    fs::create_dir(site.data()).expect("made");
    let made = Command::new("mkfifo").arg(site.data().join("snapshot.redb")).status().expect("mkfifo");
    assert!(made.success());
    let manager = Manager::new();
    let child = manager.over(site.serve()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
    let mut child = Running(child);
    let out = Transcript::follow(child.0.stdout.take().expect("piped"));
    let log = Transcript::follow(child.0.stderr.take().expect("piped"));
    log.wait_for(|log| log.contains("begun from the last snapshot").then_some(())).expect("it opens the store");
    // by the second look it is seen that nothing moves: no time is asked for
    let mut looks = 0;
    let mut asked = 0;
    while looks < 3 {
        let message = manager.next();
        looks += usize::from(value(&message, "STATUS").is_some_and(|status| status.contains("MiB read in")));
        asked += usize::from(value(&message, "EXTEND_TIMEOUT_USEC").is_some());
        assert!(!message.iter().any(|line| line == "READY=1"), "{message:?}");
    }
    assert!(asked <= 1, "time was asked for {asked} times, and nothing went on");
    signal(child.0.id(), "TERM");
    assert_eq!(wait(&mut child.0).code(), Some(0), "{}", log.text());
    assert_eq!(out.whole(), "");
    assert!(says(&manager.rest(), "STOPPING=1"));
}

/// A gateway that is passed a socket, as systemd does it: descriptor 3, and the variables. A shell moves it there from
/// standard input and becomes the gateway, so that the process id is right.
fn passed(site: &Site, socket: impl Into<OwnedFd>, names: Option<&str>) -> Command {
    let inner = site.serve();
    let mut command = Command::new("sh");
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    command.arg("-c").arg(script).arg("sh").arg(inner.get_program()).args(inner.get_args()).current_dir(site.path());
    command.stdin(Stdio::from(socket.into()));
    if let Some(names) = names {
        command.env("LISTEN_FDNAMES", names);
    }
    command
}

/// Start it with standard input as it is.
fn start(command: &mut Command) -> (Running, Transcript, Transcript) {
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned"));
    let out = Transcript::follow(child.0.stdout.take().expect("piped"));
    let log = Transcript::follow(child.0.stderr.take().expect("piped"));
    out.wait_for(|out| out.contains("admin on ").then_some(())).unwrap_or_else(|| panic!("{}", log.whole()));
    (child, out, log)
}

fn refused(command: &mut Command) -> Finished {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
    let mut child = Running(child);
    let out = Transcript::follow(child.0.stdout.take().expect("piped"));
    let log = Transcript::follow(child.0.stderr.take().expect("piped"));
    let code = wait(&mut child.0).code();
    Finished { code, stdout: out.whole(), stderr: log.whole() }
}

#[test]
fn a_passed_socket_is_served_whatever_is_configured() {
    for (names, label) in
        [(Some("https"), "listening on https://"), (None, "listening on https://"), (Some("admin"), "admin on http://")]
    {
        let site = Site::new(ABSOLUTE);
        let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = socket.local_addr().expect("bound");
        // it waits in the queue from before the start
        let mut early = TcpStream::connect(address).expect("the kernel takes it");
        let (mut child, out, log) = start(&mut passed(&site, socket, names));
        assert!(out.text().contains(&format!("{label}{address}\n")), "{names:?}: {}", out.text());
        let key = if names == Some("admin") { "[admin].address" } else { "[listen].address" };
        let told =
            log.text().lines().any(|l| l.contains(&address.to_string()) && l.contains(key) && l.contains("127.0.0.1:0"));
        assert!(told, "{names:?}: {}", log.text());
        if names == Some("admin") {
            early.write_all(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").expect("sent");
            let mut answer = String::new();
            early.read_to_string(&mut answer).expect("answered");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        signal(child.0.id(), "TERM");
        assert_eq!(wait(&mut child.0).code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_passed_socket_refuses_no_connection() {
    let site = Site::new(ABSOLUTE);
    // the test keeps it open, as systemd does
    let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
    let base = format!("https://{}", socket.local_addr().expect("bound"));
    let start_one = || start(&mut passed(&site, socket.try_clone().expect("cloned"), Some("https")));
    let stop_one = |mut child: Running| {
        signal(child.0.id(), "TERM");
        assert_eq!(wait(&mut child.0).code(), Some(0));
    };
    stop_one(start_one().0);
    // nobody accepts now
    let client = Gateway::client(&site, Alpn::Http1);
    let mut senders = JoinSet::new();
    senders.spawn(async move {
        let base = BaseUrl::parse(&base).expect("a base");
        let mut connection = client.connect(&base).await.expect("nothing refuses it");
        connection.send(delivery("d-1", r#"{"sku":"A","quantity":1}"#)).await.expect("an answer").status
    });
    let (child, ..) = start_one();
    assert_eq!(senders.join_next().await.expect("one").expect("no panic"), StatusCode::OK);
    stop_one(child);
    assert_eq!(site.deliveries().len(), 1);
}

#[test]
fn sockets_for_another_process_are_not_ours() {
    let site = Site::new(ABSOLUTE);
    let mut command = site.serve();
    let gateway = Gateway::start(command.envs([("LISTEN_FDS", "1"), ("LISTEN_PID", "1"), ("LISTEN_FDNAMES", "https")]));
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn what_is_no_listener_of_ours_is_refused_with_what_to_do() {
    let site = Site::new(ABSOLUTE);
    let listener = || TcpListener::bind("127.0.0.1:0").expect("binds");
    let connected = {
        let listener = listener();
        TcpStream::connect(listener.local_addr().expect("bound")).expect("connects")
    };
    let unix = UnixListener::bind(site.path().join("unix")).expect("binds");
    let file = File::open(site.config()).expect("there");
    let no_listener = "no listening TCP socket";
    let cases: [(OwnedFd, &str, &str); 7] = [
        (listener().into(), "stockgate.socket", "FileDescriptorName=https"),
        (listener().into(), "", "FileDescriptorName=https"),
        (connected.try_clone().expect("cloned").into(), "connection", "Accept=no"),
        (connected.into(), "https", no_listener),
        (UdpSocket::bind("127.0.0.1:0").expect("binds").into(), "https", no_listener),
        (unix.into(), "https", no_listener),
        (file.into(), "admin", no_listener),
    ];
    for (socket, name, part) in cases {
        let said = refused(&mut passed(&site, socket, Some(name))).failed(78);
        assert!(said.contains(part) && said.contains("descriptor 3"), "`{name}`: {said}");
    }
    assert!(!site.data().exists(), "nothing was begun");
}

#[test]
fn what_holds_for_a_configured_address_holds_for_a_passed_one() {
    let site = Site::new(ABSOLUTE);
    let everywhere = TcpListener::bind("0.0.0.0:0").expect("binds");
    let said = refused(&mut passed(&site, everywhere, Some("admin"))).failed(78);
    assert!(said.contains("the socket passed as `admin`") && said.contains("other machines"), "{said}");
}

#[test]
fn a_data_directory_of_a_newer_release_is_refused_before_anything_is_opened() {
    let site = Site::new(ABSOLUTE);
    assert_eq!(site.start().stop().0, Some(0));
    let format = site.data().join("format.json");
    let ours = fs::read_to_string(&format).expect("it says who wrote it");
    assert!(ours.contains(env!("CARGO_PKG_VERSION")), "{ours}");
    // what this release cannot read at all: it would be taken for damage, and set aside
    site.write("data/format.json", "{\"schema\":99,\"release\":\"7.8.9\"}\n");
    let state = site.data().join("state.redb");
    fs::write(&state, "a database of another kind").expect("written");
    let manager = Manager::new();
    let said = run(&mut manager.over(site.serve()), "").failed(78);
    for part in ["schema version 99", "stockgate 7.8.9", "install that version again"] {
        assert!(said.contains(part), "`{part}` in: {said}");
    }
    assert!(!says(&manager.rest(), "READY=1"));
    for command in ["verify", "replay"] {
        let said = run(stockgate().arg(command).arg("--data").arg(site.data()), "").stderr;
        assert!(said.contains("stockgate 7.8.9"), "{command}: {said}");
    }
    assert_eq!(fs::read_to_string(&state).expect("left alone"), "a database of another kind");
    assert_eq!(fs::metadata(&format).expect("there").permissions().mode() & 0o077, 0);
}

/// Log lines of a start, as they are in a file.
fn logged(site: &Site, stream: impl Fn(&File) -> String) -> String {
    let path: PathBuf = site.path().join("log");
    let file = File::create(&path).expect("made");
    let mut command = site.serve();
    command.env("STOCKGATE__LOG__FORMAT", "auto").env("JOURNAL_STREAM", stream(&file));
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::from(file)).spawn().expect("spawned"));
    let out = Transcript::follow(child.0.stdout.take().expect("piped"));
    out.wait_for(|out| out.contains("admin on ").then_some(())).expect("it starts");
    signal(child.0.id(), "TERM");
    assert_eq!(wait(&mut child.0).code(), Some(0));
    fs::read_to_string(path).expect("there")
}

#[test]
fn lines_have_a_priority_in_front_when_journald_reads_them() {
    let site = Site::new(ABSOLUTE);
    let of = |file: &File, off: u64| {
        let about = file.metadata().expect("there");
        format!("{}:{}", about.dev(), about.ino() + off)
    };
    let ours = logged(&site, |file| of(file, 0));
    assert!(!ours.is_empty() && ours.lines().all(|line| line.starts_with('<')), "{ours}");
    assert!(ours.lines().any(|line| line.starts_with("<6>ready")), "{ours}");
    // the variable was inherited, and somebody else reads
    let others = logged(&site, |file| of(file, 1));
    assert!(!others.is_empty() && others.lines().all(|line| line.starts_with('{')), "{others}");
}
