//! A disk in memory that tells the truth while it runs and lies after a power cut.
//!
//! It keeps a log of everything that was asked of it. [`Platter`] plays the log up to a cut, knows then what was synced and
//! what was not, and makes the disks that the cut may have left ([`Platter::image`]). What may be lost or kept:
//!
//! - content: of the writes to a file since its last sync any subset, in any order, whole or torn at 512 or 4,096 bytes; of
//!   its changes of length any one, and what lies beyond the length is gone;
//! - names: of the changes in a directory since its last sync any subset (POSIX), or a prefix (what journaling file systems
//!   do). Syncing a file does not keep its name.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Builder, DatabaseError, StorageBackend};

use super::{Disk, Entry, Reader, directory_of};

/// Bytes of a piece of a file; all of a database's writes but the header's are multiples of it.
const PIECE: usize = 4096;

/// What a file holds, in pieces that copies share; `None` is zeros.
#[derive(Debug, Clone, Default)]
struct Content {
    len: usize,
    pieces: Vec<Option<Arc<[u8; PIECE]>>>,
}

impl Content {
    fn set_len(&mut self, len: usize) {
        if len < self.len && !len.is_multiple_of(PIECE) {
            // what is cut off reads as zeros if the file grows again
            let keep = len % PIECE;
            if let Some(Some(piece)) = self.pieces.get_mut(len / PIECE) {
                Arc::make_mut(piece)[keep..].fill(0);
            }
        }
        self.len = len;
        self.pieces.resize(len.div_ceil(PIECE), None);
    }

    fn write(&mut self, mut offset: usize, mut data: &[u8]) {
        if offset + data.len() > self.len {
            self.set_len(offset + data.len());
        }
        while !data.is_empty() {
            let (index, start) = (offset / PIECE, offset % PIECE);
            let (now, later) = data.split_at(data.len().min(PIECE - start));
            let piece = self.pieces[index].get_or_insert_with(|| Arc::new([0; PIECE]));
            Arc::make_mut(piece)[start..start + now.len()].copy_from_slice(now);
            (offset, data) = (offset + now.len(), later);
        }
    }

    fn read(&self, mut offset: usize, mut out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !out.is_empty() {
            let (index, start) = (offset / PIECE, offset % PIECE);
            let count = out.len().min(PIECE - start);
            let (now, later) = std::mem::take(&mut out).split_at_mut(count);
            match &self.pieces[index] {
                Some(piece) => now.copy_from_slice(&piece[start..start + now.len()]),
                None => now.fill(0),
            }
            offset += now.len();
            out = later;
        }
        Ok(())
    }
}

type File = usize;

/// One thing that was asked of the disk.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Bytes of a file.
    Write(File, usize, Arc<[u8]>),
    /// A file's length.
    SetLen(File, usize),
    /// A file's content made durable.
    Sync(File),
    /// A name for a new file.
    Create(PathBuf, File),
    /// Another name.
    Rename(PathBuf, PathBuf),
    /// A name gone.
    Remove(PathBuf),
    /// A directory's names made durable.
    SyncDirectory(PathBuf),
}

/// A disk's files, and the names that lead to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    files: Vec<Arc<Content>>,
    names: BTreeMap<PathBuf, File>,
}

impl Image {
    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Path> {
        self.names.keys().map(PathBuf::as_path)
    }

    /// A file's bytes.
    pub(crate) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let content = &self.files[*self.names.get(path)?];
        let mut out = vec![0; content.len];
        content.read(0, &mut out).expect("as long as the file");
        Some(out)
    }

    /// Another content for a file.
    pub(crate) fn set(&mut self, path: &Path, bytes: &[u8]) {
        let mut content = Content::default();
        content.write(0, bytes);
        self.names.insert(path.to_owned(), self.files.len());
        self.files.push(Arc::new(content));
    }

    /// Take a file away.
    pub(crate) fn remove(&mut self, path: &Path) {
        self.names.remove(path);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(file, offset, data) => Arc::make_mut(&mut self.files[*file]).write(*offset, data),
            Op::SetLen(file, len) => Arc::make_mut(&mut self.files[*file]).set_len(*len),
            Op::Create(path, file) => drop(self.names.insert(path.clone(), *file)),
            Op::Rename(from, to) => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Op::Remove(path) => drop(self.names.remove(path)),
            Op::Sync(_) | Op::SyncDirectory(_) => {}
        }
    }
}

/// Whoever asks for the last of so many more operations waits behind it.
#[derive(Debug)]
struct Pause {
    after: usize,
    reached: SyncSender<()>,
    go_on: Receiver<()>,
}

#[derive(Debug, Default)]
struct World {
    now: Image,
    log: Vec<Op>,
    pause: Option<Pause>,
    /// A process that was killed holds backends of an earlier life: they change nothing any more.
    life: u64,
    open: Vec<File>,
}

/// The disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct LyingDisk(Arc<Mutex<World>>);

impl LyingDisk {
    /// A disk that holds this.
    pub(crate) fn holding(image: Image) -> Self {
        Self(Arc::new(Mutex::new(World { now: image, ..World::default() })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much was asked of it so far: a moment.
    pub(crate) fn moment(&self) -> usize {
        self.world().log.len()
    }

    /// Everything that was asked of it.
    pub(crate) fn log(&self) -> Vec<Op> {
        self.world().log.clone()
    }

    /// What it holds now.
    pub(crate) fn now(&self) -> Image {
        self.world().now.clone()
    }

    /// Whoever has a database open is killed: what they still write is lost, what they wrote stays.
    pub(crate) fn kill(&self) {
        let mut world = self.world();
        world.life += 1;
        world.open.clear();
    }

    /// Let whoever asks for the last of so many more operations wait behind it. It says so to `reached`, and waits for `go_on`.
    pub(crate) fn pause_after(&self, operations: u64, reached: SyncSender<()>, go_on: Receiver<()>) {
        self.world().pause = Some(Pause { after: small(operations), reached, go_on });
    }

    /// Nobody has to wait: whoever listened for it hears that its other end is gone.
    pub(crate) fn pause_no_more(&self) {
        self.world().pause = None;
    }

    fn asked(&self, op: Op) {
        Self::take(self.world(), op);
    }

    fn take(mut world: MutexGuard<'_, World>, op: Op) {
        world.now.apply(&op);
        world.log.push(op);
        if let Some(pause) = &mut world.pause {
            pause.after = pause.after.saturating_sub(1);
        }
        if let Some(pause) = world.pause.take_if(|pause| pause.after == 0) {
            drop(world);
            if pause.reached.send(()).is_ok() {
                // the other end gone means the same as being let go
                pause.go_on.recv().unwrap_or_default();
            }
        }
    }

    fn file(&self, path: &Path) -> io::Result<File> {
        self.world().now.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file_or_new(&self, path: &Path) -> File {
        let mut world = self.world();
        if let Some(file) = world.now.names.get(path) {
            return *file;
        }
        let file = world.now.files.len();
        world.now.files.push(Arc::default());
        let op = Op::Create(path.to_owned(), file);
        world.now.apply(&op);
        world.log.push(op);
        file
    }
}

#[derive(Debug)]
struct Backend {
    disk: LyingDisk,
    file: File,
    life: u64,
}

impl Backend {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.disk.world();
        if world.life == self.life { Ok(world) } else { Err(io::Error::other("this process was killed")) }
    }

    fn ask(&self, op: Op) -> io::Result<()> {
        LyingDisk::take(self.world()?, op);
        Ok(())
    }
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("small files")
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.world()?.now.files[self.file].len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.world()?.now.files[self.file].read(small(offset), out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ask(Op::SetLen(self.file, small(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.ask(Op::Sync(self.file))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ask(Op::Write(self.file, small(offset), data.into()))
    }

    fn close(&self) -> io::Result<()> {
        self.world()?.open.retain(|open| *open != self.file);
        Ok(())
    }
}

impl Disk for LyingDisk {
    fn file(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let file = self.file_or_new(path);
        let life = {
            let mut world = self.world();
            if world.open.contains(&file) {
                return Err(DatabaseError::DatabaseAlreadyOpen);
            }
            world.open.push(file);
            world.life
        };
        Ok(Box::new(Backend { disk: self.clone(), file, life }))
    }

    /// On a copy: what is written there reaches nobody.
    fn reader(&self, path: &Path, _: &Builder) -> Result<Reader, DatabaseError> {
        let file = self.file(path)?;
        let content = {
            let world = self.world();
            if world.open.contains(&file) {
                return Err(DatabaseError::DatabaseAlreadyOpen);
            }
            Arc::clone(&world.now.files[file])
        };
        let copy = Image { files: vec![content], names: BTreeMap::from([(path.to_owned(), 0)]) };
        let mut builder = Builder::new();
        builder.set_cache_size(PIECE * 256).set_repair_callback(redb::RepairSession::abort);
        Ok(Box::new(Self::holding(copy).database(path, &builder)?))
    }

    fn salvage(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.world().now.bytes(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let world = self.world();
        let inside = world.now.names.iter().filter(|(path, _)| directory_of(path) == directory);
        let entry = |(path, file): (&PathBuf, &File)| Entry {
            name: path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned(),
            bytes: world.now.files[*file].len as u64,
        };
        Ok(inside.map(entry).collect())
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        let world = self.world();
        Ok(world.now.names.get(path).map(|file| world.now.files[*file].len as u64))
    }

    /// Directories are there when something is in them: a cut that loses one loses all that it holds, as its files' names do.
    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.file(from)?;
        self.asked(Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.asked(Op::Remove(path.to_owned()));
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let bytes = self.salvage(from)?;
        let file = self.file_or_new(to);
        self.asked(Op::SetLen(file, 0));
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            // a copy of a sparse file is sparse
            if piece.iter().any(|byte| *byte != 0) {
                self.asked(Op::Write(file, i * PIECE, piece.into()));
            }
        }
        self.asked(Op::SetLen(file, bytes.len()));
        self.asked(Op::Sync(file));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.asked(Op::SyncDirectory(directory.to_owned()));
        Ok(())
    }
}

/// A log being played: what is durable, and what waits for a sync.
#[derive(Debug)]
pub(crate) struct Platter {
    durable: Image,
    /// By file.
    waiting: BTreeMap<File, Vec<Op>>,
    /// By directory.
    names_waiting: BTreeMap<PathBuf, Vec<Op>>,
}

/// Numbers below a bound, from a seed.
pub(crate) type Dice<'a> = &'a mut dyn FnMut(u64) -> u64;

impl Platter {
    /// Begins with this, all of it durable.
    pub(crate) fn new(durable: Image) -> Self {
        Self { durable, waiting: BTreeMap::new(), names_waiting: BTreeMap::new() }
    }

    /// Play the next operation of the log.
    pub(crate) fn play(&mut self, op: &Op) {
        match op {
            Op::Write(file, ..) | Op::SetLen(file, _) => self.waiting.entry(*file).or_default().push(op.clone()),
            Op::Sync(file) => {
                for op in self.waiting.remove(file).unwrap_or_default() {
                    self.durable.apply(&op);
                }
            }
            Op::Create(path, file) => {
                if self.durable.files.len() <= *file {
                    self.durable.files.resize(*file + 1, Arc::default());
                }
                self.name_waits(path, op);
            }
            // one directory: the store never moves a file to another
            Op::Rename(path, _) | Op::Remove(path) => self.name_waits(path, op),
            Op::SyncDirectory(directory) => {
                for op in self.names_waiting.remove(directory).unwrap_or_default() {
                    self.durable.apply(&op);
                }
            }
        }
    }

    fn name_waits(&mut self, path: &Path, op: &Op) {
        self.names_waiting.entry(directory_of(path).to_owned()).or_default().push(op.clone());
    }

    /// One of the disks that a power cut may leave now.
    pub(crate) fn image(&self, dice: Dice<'_>) -> Image {
        let mut image = self.durable.clone();
        // how much of what waits reached the disk, in percent; and how finely it tears
        let share = [0, 10, 50, 90, 100][small(dice(5))];
        let grain = [usize::MAX, PIECE, 512][small(dice(3))];
        let in_order = dice(2) == 0;
        for (file, ops) in &self.waiting {
            lie_about_content(Arc::make_mut(&mut image.files[*file]), ops, share, grain, in_order, dice);
        }
        for ops in self.names_waiting.values() {
            let kept = dice(ops.len() as u64 + 1);
            let prefix = dice(2) == 0;
            for (i, op) in (0..).zip(ops) {
                if if prefix { i < kept } else { dice(100) < share } {
                    image.apply(op);
                }
            }
        }
        image
    }
}

fn lie_about_content(content: &mut Content, ops: &[Op], share: u64, grain: usize, in_order: bool, dice: Dice<'_>) {
    let mut len = content.len;
    let mut parts = Vec::new();
    for op in ops {
        match op {
            Op::SetLen(_, to) if dice(100) < share => len = *to,
            Op::Write(_, offset, data) => {
                let mut at = 0;
                while at < data.len() {
                    // to the next boundary of the disk's sectors
                    let end =
                        if grain == usize::MAX { data.len() } else { data.len().min(at + grain - (offset + at) % grain) };
                    if dice(100) < share {
                        parts.push((offset + at, &data[at..end]));
                    }
                    at = end;
                }
            }
            _ => {}
        }
    }
    if !in_order {
        for last in (1..parts.len()).rev() {
            parts.swap(last, small(dice(last as u64 + 1)));
        }
    }
    for (offset, data) in parts {
        content.write(offset, data);
    }
    content.set_len(len);
}
