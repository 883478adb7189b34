//! Child processes that cannot hang a test, and what they write, as it comes.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than anything here takes on a slow machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a process writes to one of its streams.
#[derive(Clone)]
pub(crate) struct Transcript(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    ended: bool,
}

impl Transcript {
    /// Read a stream to its end, on a thread of its own.
    pub(crate) fn follow(mut stream: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Written::default()), Condvar::new()));
        let written = Self(Arc::clone(&shared));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let (lock, changed) = &*shared;
                let mut written = lock.lock().unwrap();
                written.bytes.extend_from_slice(&buffer[..read]);
                written.ended = read == 0;
                changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        written
    }

    /// What was written so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// Wait until `find` finds something in what was written; `None` when the stream ended without it.
    pub(crate) fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (lock, changed) = &*self.0;
        let mut written = lock.lock().unwrap();
        loop {
            if let Some(found) = find(&String::from_utf8_lossy(&written.bytes)) {
                return Some(found);
            }
            if written.ended {
                return None;
            }
            let (next, waited) = changed.wait_timeout(written, PATIENCE).unwrap();
            written = next;
            assert!(!waited.timed_out(), "nothing more came:\n{}", String::from_utf8_lossy(&written.bytes));
        }
    }

    /// Everything, once the stream has ended.
    pub(crate) fn whole(&self) -> String {
        self.wait_for(|_| None::<()>);
        self.text()
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Its standard output, when it ended with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Its standard output as JSON, when it ended with 0.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What it said about ending with this code.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }
}

/// Run a command to its end.
pub(crate) fn run(command: &mut Command, stdin: &str) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = Transcript::follow(child.stdout.take().expect("piped"));
    let stderr = Transcript::follow(child.stderr.take().expect("piped"));
    // a command that does not read its input may be gone by now
    drop(child.stdin.take().expect("piped").write_all(stdin.as_bytes()));
    let status = wait(&mut child);
    Finished { code: status.code(), stdout: stdout.whole(), stderr: stderr.whole() }
}

/// The program under test.
pub(crate) fn stockgate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_stockgate"))
}

/// Wait for a process to end; kill it when it does not.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let watchdog = watchdog(child.id());
    let status = child.wait().expect("it can be waited for");
    drop(watchdog);
    status
}

/// Kills the process unless the returned end is dropped in time.
fn watchdog(pid: u32) -> Sender<()> {
    let (alive, watched) = channel::<()>();
    thread::spawn(move || {
        if watched.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            signal(pid, "KILL");
        }
    });
    alive
}

/// Send a signal to a process of ours.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("a shell");
    assert!(sent.success(), "kill -{name} {pid}");
}
