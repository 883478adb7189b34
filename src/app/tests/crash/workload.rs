//! A store at work: deliveries, some of them twice, folded, checkpointed, aged out; stopped, killed, cut off.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use super::Random;
use crate::pipeline::apply::{Folder, Tally};
use crate::store::codec::encode_record;
use crate::store::disk::Disk;
use crate::store::disk::lying::{Image, LyingDisk, Op, Platter};
use crate::store::journal::{Appender, Journal, Pending, Retention};
use crate::store::open_state_on;
use crate::store::state::{State, Unwritten};
use crate::time::Timestamp;
use crate::types::{Delivery, DeliveryKey, HeaderList, ItemMaps, Record, RecordBody, Seq};

/// Where the data lies on the lying disk.
pub(super) const DATA: &str = "data";
/// Page caches: a reopened file must not be larger than its cache, or the reads would be what is tested.
pub(super) const CACHE: usize = 1 << 20;
/// Keys in a dedup generation: small, so that they are sealed and dropped.
pub(super) const GENERATION: usize = 12;
/// Bytes of records in a segment: small, so that there are many.
const SEGMENT_BYTES: u64 = 2500;
/// Bytes of the journal that are kept at most: a few files, or the newest alone.
const KEPT_BYTES: [u64; 3] = [1, 150_000, 2_500_000];
/// Batches of one life.
const BATCHES: u64 = 24;
const LIVES: u64 = 3;

/// A record, and what it must come to.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    /// The delivery's id, its SKU and by how much it moves the level; `None`: it moves nothing.
    pub(super) moves: Option<(u64, u64, i64)>,
}

/// From one power cut to the next.
pub(super) struct Life {
    /// What the cut before left.
    pub(super) base: Image,
    /// What the disk held when it was closed.
    pub(super) end: Image,
    /// What was asked of the disk.
    pub(super) log: Vec<Op>,
    /// The recovery was done at this moment.
    pub(super) recovered: usize,
    /// From this moment on records up to this one were acknowledged.
    pub(super) acked: Vec<(usize, Seq)>,
    /// From this moment on records up to this one may be in the journal.
    pub(super) sent: Vec<(usize, Seq)>,
    /// Every record by number, from 1.
    pub(super) records: Vec<Sent>,
    /// Digest of the state that has folded so many of them.
    pub(super) digests: Vec<[u8; 32]>,
}

impl Life {
    /// The last value that holds at a moment.
    pub(super) fn at(list: &[(usize, Seq)], moment: usize) -> Seq {
        list.iter().take_while(|(from, _)| *from <= moment).last().map_or(0, |(_, seq)| *seq)
    }
}

pub(super) struct Workload {
    pub(super) lives: Vec<Life>,
}

impl Workload {
    pub(super) fn run(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let mut lives: Vec<Life> = Vec::new();
        let mut base = Image::default();
        let (mut records, mut acked, mut folded) = (Vec::new(), 0, Reference::default());
        for life in 0..LIVES {
            let life = live(base, records, acked, &mut folded, 1000 * life, &mut random);
            // the cut that the next life begins with
            let at = usize::try_from(random.below(life.log.len() as u64 + 1)).expect("fits");
            let mut platter = Platter::new(life.base.clone());
            life.log[..at].iter().for_each(|op| platter.play(op));
            base = platter.image(&mut |bound| random.below(bound));
            (records, acked) = (life.records.clone(), Life::at(&life.acked, at));
            lives.push(life);
        }
        Self { lives }
    }
}

/// The store, open.
pub(super) struct Running {
    pub(super) state: State,
    folder: Folder,
    pub(super) journal: Journal,
    appender: Appender,
    thread: JoinHandle<()>,
    /// The writer waits in its callback after a commit, so that what is queued meanwhile is one batch.
    committed: Receiver<()>,
    go_on: SyncSender<()>,
    held: bool,
    /// A checkpoint that has begun and is not written yet.
    under_way: Option<Unwritten>,
}

impl Running {
    pub(super) fn open(disk: &Arc<dyn Disk>) -> Self {
        let data = Path::new(DATA);
        let mut state = open_state_on(disk, data, CACHE, GENERATION).expect("opens");
        let journal = Journal::open_on(Arc::clone(disk), data, CACHE, state.meta.cursor).expect("opens");
        let folder = Folder::new(&mut state, ItemMaps::default()).expect("a policy that can be read");
        let (entered, committed) = sync_channel(1);
        let (go_on, wait) = sync_channel(1);
        let callback = move |_| {
            if entered.send(()).is_ok() {
                // the other end gone means the same as being let go
                wait.recv().unwrap_or_default();
            }
        };
        let (appender, thread) = journal.start_with(64, SEGMENT_BYTES, callback).expect("starts");
        let mut running = Self { state, folder, journal, appender, thread, committed, go_on, held: false, under_way: None };
        running.fold();
        running
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.held) {
            self.go_on.send(()).expect("the writer waits");
        }
    }

    /// Append records in one commit; a writer that is not held gets one record.
    pub(super) fn append(&mut self, records: &[Sent]) -> Seq {
        let waiting: Vec<Pending> =
            records.iter().map(|sent| self.appender.append(sent.bytes.clone()).expect("room")).collect();
        self.let_go();
        self.committed.recv().expect("commits");
        self.held = true;
        waiting.into_iter().map(|pending| pending.durable_blocking().expect("durable")).last().expect("a record")
    }

    pub(super) fn fold(&mut self) {
        let records = self.journal.read(self.state.meta.cursor + 1, usize::MAX, usize::MAX).expect("reads");
        for (seq, bytes) in records {
            self.folder.fold(&mut self.state, seq, &bytes, &mut Tally::default()).expect("folds");
        }
    }

    pub(super) fn checkpoint(&mut self) {
        self.finish_checkpoint();
        self.state.checkpoint().expect("writes");
    }

    fn finish_checkpoint(&mut self) {
        if let Some(unwritten) = self.under_way.take() {
            unwritten.write().expect("writes");
            self.state.written().expect("reads");
        }
    }

    /// Drop old segments of the journal, up to this record at most.
    fn drop_old(&mut self, max_bytes: u64, folded: Seq) {
        self.let_go();
        let what = Retention { before: Timestamp(i64::MIN), max_bytes, folded, only_look: false };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.appender.retain(what));
    }

    /// End the writer, then the rest.
    pub(super) fn close(self) {
        let Self { state, journal, appender, thread, committed, go_on, under_way, .. } = self;
        drop((under_way, appender, committed, go_on));
        thread.join().expect("ends");
        journal.close();
        drop(state);
    }
}

/// A life, while it lasts.
struct Living {
    lying: LyingDisk,
    running: Running,
    records: Vec<Sent>,
    sent: Vec<(usize, Seq)>,
    acked: Vec<(usize, Seq)>,
    next_second: u64,
}

impl Living {
    /// Send a batch, and wait until it is acknowledged.
    fn deliver(&mut self, random: &mut Random) {
        let count = if self.running.held { 1 + random.below(7) } else { 1 };
        let first = self.records.len();
        for i in 0..count {
            let next = make_record(self.next_second + i, &self.records, random);
            self.records.push(next);
        }
        self.next_second += 10;
        self.sent.push((self.lying.moment(), self.records.len() as Seq));
        let seq = self.running.append(&self.records[first..]);
        self.acked.push((self.lying.moment(), seq));
        assert_eq!(seq, self.records.len() as Seq, "numbers go on without a gap");
    }

    /// Write as the checkpoints' thread does. Again and again it is held up between two of its operations, and deliveries are
    /// acknowledged and folded meanwhile.
    fn write_meanwhile<T: Send>(&mut self, random: &mut Random, write: impl FnOnce() -> T + Send) -> T {
        let lying = self.lying.clone();
        std::thread::scope(|scope| {
            let pause = |random: &mut Random| {
                let ((reached, told), (go_on, wait)) = (sync_channel(1), sync_channel(1));
                lying.pause_after(1 + random.below(24), reached, wait);
                (told, go_on)
            };
            let mut next = pause(random);
            let ended = lying.clone();
            let writer = scope.spawn(move || {
                let written = write();
                ended.pause_no_more();
                written
            });
            // an error: it has ended
            while next.0.recv().is_ok() {
                match random.below(4) {
                    0 | 1 => self.deliver(random),
                    2 => {
                        self.deliver(random);
                        self.running.fold();
                    }
                    _ => self.running.fold(),
                }
                let (_, go_on) = std::mem::replace(&mut next, pause(random));
                go_on.send(()).expect("it waits");
            }
            writer.join().expect("writes")
        })
    }

    /// The journal and the fold go on until it is written.
    fn begin_checkpoint(&mut self, random: &mut Random) {
        self.finish_checkpoint(random);
        self.running.fold();
        self.running.under_way = Some(self.running.state.freeze().expect("is open"));
    }

    fn finish_checkpoint(&mut self, random: &mut Random) {
        if let Some(unwritten) = self.running.under_way.take() {
            self.write_meanwhile(random, || unwritten.write()).expect("writes");
            self.running.state.written().expect("reads");
        }
    }

    fn retain(&mut self, random: &mut Random) {
        self.begin_checkpoint(random);
        self.finish_checkpoint(random);
        let snapshot = self.running.state.begin_snapshot().expect("is open");
        let (folded, _) = self.write_meanwhile(random, || snapshot.write()).expect("copies");
        self.running.drop_old(KEPT_BYTES[usize::try_from(random.below(3)).expect("few")], folded);
    }

    fn reopen(self, disk: &Arc<dyn Disk>) -> Self {
        let Self { lying, running, records, sent, acked, next_second } = self;
        running.close();
        Self { running: Running::open(disk), lying, records, sent, acked, next_second }
    }
}

fn live(
    base: Image,
    mut records: Vec<Sent>,
    acked: Seq,
    folded: &mut Reference,
    next_second: u64,
    random: &mut Random,
) -> Life {
    let lying = LyingDisk::holding(base.clone());
    let disk: Arc<dyn Disk> = Arc::new(lying.clone());
    // after a cut fewer may be in the journal than were sent
    let (sent, acked) = (vec![(0, records.len() as Seq)], vec![(0, acked)]);
    let running = Running::open(&disk);
    records.truncate(usize::try_from(running.journal.head()).expect("fits"));
    let recovered = lying.moment();
    let mut living = Living { lying: lying.clone(), running, records, sent, acked, next_second };
    for _ in 0..BATCHES {
        living.deliver(random);
        match random.below(16) {
            0..=2 => living.running.fold(),
            3 | 4 => {
                living.running.fold();
                living.running.checkpoint();
            }
            5 | 6 => {
                living.begin_checkpoint(random);
                living.finish_checkpoint(random);
            }
            7 | 8 => living.retain(random),
            9 => living = living.reopen(&disk),
            10 => {
                lying.kill();
                living = living.reopen(&disk);
            }
            11 | 12 => living.begin_checkpoint(random),
            13 => living.finish_checkpoint(random),
            _ => {}
        }
    }
    let Living { running, records, sent, acked, .. } = living;
    running.close();
    folded.go_on(&records);
    Life { base, end: lying.now(), log: lying.log(), recovered, acked, sent, digests: folded.digests.clone(), records }
}

/// The policy first, then movements: new ones, some sent before, some that cannot be read.
fn make_record(second: u64, before: &[Sent], random: &mut Random) -> Sent {
    let encode = |body| {
        let at = Timestamp::from_seconds(1_700_000_000 + second.cast_signed());
        encode_record(&Record { at, body })
    };
    if before.is_empty() {
        return Sent { bytes: encode(RecordBody::Policy(policy())), moves: None };
    }
    let again =
        before.iter().rev().take(10).filter_map(|sent| sent.moves).nth(usize::try_from(random.below(8)).expect("few"));
    let moves = match (again, random.below(5)) {
        (Some(again), 0) => again,
        _ => (random.below(1 << 60), random.below(9), random.below(40).cast_signed() - 20),
    };
    let (id, sku, by) = moves;
    let (label, unreadable) = (id.to_string(), id % 11 == 0);
    let filler = "x".repeat(usize::try_from(id % 7).expect("few") * 40);
    let body = if unreadable {
        format!(r#"{{"sku":"S{sku}","n":"many","f":"{filler}"}}"#)
    } else {
        format!(r#"{{"sku":"S{sku}","n":{by},"f":"{filler}"}}"#)
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, label.as_bytes());
    let delivery = Delivery {
        source: "gen",
        key: DeliveryKey::Named(digest.as_ref()[..16].try_into().expect("16 bytes")),
        body_digest: digest.as_ref()[16..24].try_into().expect("8 bytes"),
        label: &label,
        query: "",
        headers: HeaderList(vec![("x-id", &label)]),
        body: body.as_bytes(),
    };
    Sent { bytes: encode(RecordBody::Delivery(delivery)), moves: (!unreadable).then_some(moves) }
}

fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let text = serde_json::json!({
            "v": 2,
            "sources": {"gen": {
                "kind": "generic", "api": false, "warehouse": "hall", "locations": {}, "items": null,
                "settings": {"identity": {"header": "x-id"}, "map": {"sku": "/sku", "quantity": "/n", "mode": "delta"}}
            }},
            "warehouses": {"hall": {"authority": [], "low": "2"}},
        });
        crate::stock::policy::Policy::from_json(&text.to_string()).expect("a good policy").to_canonical()
    })
}

/// The fold of the records on a disk that is never cut, checkpointed after each.
#[derive(Default)]
struct Reference {
    records: Vec<Vec<u8>>,
    digests: Vec<[u8; 32]>,
    images: Vec<Image>,
}

impl Reference {
    /// Fold these; where they begin like the last ones, go on from there.
    fn go_on(&mut self, records: &[Sent]) {
        let same = self.records.iter().zip(records).take_while(|(a, b)| **a == b.bytes).count();
        self.records.truncate(same);
        self.digests.truncate(same + 1);
        self.images.truncate(same + 1);
        let lying = LyingDisk::holding(self.images.last().cloned().unwrap_or_default());
        let mut state = State::open_on(Arc::new(lying.clone()), Path::new(DATA), CACHE, GENERATION).expect("opens");
        let mut folder = Folder::new(&mut state, ItemMaps::default()).expect("a policy that can be read");
        if self.digests.is_empty() {
            state.checkpoint().expect("writes");
            self.digests.push(state.digest().expect("reads"));
            self.images.push(lying.now());
        }
        for (seq, sent) in (1..).zip(records).skip(same) {
            folder.fold(&mut state, seq, &sent.bytes, &mut Tally::default()).expect("folds");
            state.checkpoint().expect("writes");
            self.records.push(sent.bytes.clone());
            self.digests.push(state.digest().expect("reads"));
            self.images.push(lying.now());
        }
    }
}

/// Movements of the first records, each delivery once: what the levels must be.
pub(super) fn levels(records: &[Sent]) -> std::collections::BTreeMap<u64, i64> {
    let mut seen = BTreeSet::new();
    let mut levels = std::collections::BTreeMap::new();
    for (id, sku, by) in records.iter().filter_map(|sent| sent.moves) {
        if seen.insert(id) {
            *levels.entry(sku).or_default() += by;
        }
    }
    levels
}
