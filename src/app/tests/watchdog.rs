//! Who hangs gives no sign of life.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tempfile::TempDir;

use crate::app::manager::Manager;
use crate::app::watchdog;
use crate::pipeline::apply::{Fold, FoldHandle};
use crate::store::codec::encode_record;
use crate::store::disk::failing::{FailingDisk, Stall};
use crate::store::journal::{Appender, Journal};
use crate::store::state::State;
use crate::time;
use crate::types::{ItemMaps, Record, RecordBody};

const CACHE: usize = 1 << 20;
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// How often a sign of life is wanted.
const PERIOD: Duration = Duration::from_millis(200);
/// Without a sign for so long it would have been killed several times over.
const SILENCE: Duration = Duration::from_secs(1);
/// Longer than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A journal and a fold, each on a disk that can be made to hang, and what the service manager hears.
struct Rig {
    // dropped first: nothing of it runs on
    _runtime: tokio::runtime::Runtime,
    appender: Appender,
    fold: FoldHandle,
    journal_disk: Arc<Stall>,
    state_disk: Arc<Stall>,
    heard: UnixDatagram,
    _directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let (journal_disk, state_disk) = (Arc::new(FailingDisk::default()), Arc::new(FailingDisk::default()));
        let state = State::open_on(state_disk.clone(), directory.path(), CACHE, 40).expect("opens");
        let journal = Journal::open_on(journal_disk.clone(), directory.path(), CACHE, 0).expect("opens");
        let state = Arc::new(RwLock::new(state));
        let fold = Fold::new(&state, ItemMaps::default());
        let handle = fold.handle();
        let (appender, _) = journal.start(64, |_| {}).expect("starts");
        drop(fold.start(state, journal.clone(), NEVER).expect("starts"));

        let path = directory.path().join("notify");
        let heard = UnixDatagram::bind(&path).expect("binds");
        let environment = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.display().to_string()),
            "WATCHDOG_USEC" => Some(PERIOD.as_micros().to_string()),
            _ => None,
        };
        let manager = Arc::new(Manager::of_environment(&environment, std::process::id()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
        drop(runtime.spawn(watchdog::run(manager, journal, appender.clone(), handle.clone())));
        Self {
            _runtime: runtime,
            appender,
            fold: handle,
            journal_disk: Arc::clone(&journal_disk.stalled),
            state_disk: Arc::clone(&state_disk.stalled),
            heard,
            _directory: directory,
        }
    }

    /// What is heard within a time.
    fn next(&self, within: Duration) -> Option<String> {
        self.heard.set_read_timeout(Some(within)).expect("a time");
        let mut buffer = [0; 256];
        let length = self.heard.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[track_caller]
    fn is_alive(&self) {
        assert_eq!(self.next(PATIENCE).as_deref(), Some("WATCHDOG=1"));
    }

    /// What was under way when the thread began to hang may still be heard: one sign, and one that was not read yet.
    #[track_caller]
    fn falls_silent(&self) {
        for heard in 0.. {
            assert!(heard <= 2, "signs of life of a thread that hangs");
            if self.next(SILENCE).is_none() {
                return;
            }
        }
    }

    fn append(&self) -> crate::store::journal::Pending {
        let policy = r#"{"v":2,"sources":{},"warehouses":{}}"#;
        self.appender.append(encode_record(&Record { at: time::now(), body: RecordBody::Policy(policy) })).expect("room")
    }
}

#[test]
fn a_journal_that_hangs_in_a_sync_gives_no_sign_of_life_until_it_goes_on() {
    let rig = Rig::new();
    // idle, and after work
    rig.is_alive();
    rig.append().durable_blocking().expect("durable");
    rig.is_alive();
    rig.journal_disk.begin();
    let pending = rig.append();
    rig.journal_disk.until_met();
    rig.falls_silent();
    rig.journal_disk.end();
    pending.durable_blocking().expect("durable");
    rig.is_alive();
}

#[test]
fn a_fold_that_hangs_in_a_checkpoint_gives_no_sign_of_life_until_it_goes_on() {
    let rig = Rig::new();
    rig.append().durable_blocking().expect("durable");
    rig.is_alive();
    rig.state_disk.begin();
    let fold = rig.fold.clone();
    let checkpoint = std::thread::spawn(move || fold.checkpoint());
    rig.state_disk.until_met();
    rig.falls_silent();
    rig.state_disk.end();
    checkpoint.join().expect("ends");
    rig.is_alive();
}

#[test]
fn a_thread_that_has_ended_gives_no_sign_of_life() {
    let rig = Rig::new();
    rig.is_alive();
    rig.fold.stop(time::instant() + NEVER);
    rig.falls_silent();
}
