//! A disk in memory that knows live from durable, and can crash. For tests and the simulator.
//!
//! A [`CrashDisk`] is the medium; [`CrashDisk::process`] is the view one process has of it. After
//! [`CrashDisk::crash`] every view and every open file from before it answers with errors, its locks
//! are gone, and what is left is decided by the seed. Deterministic: no clock, no thread, one seeded
//! generator.
//!
//! What it holds a program to is stricter than what most file systems do: a name is durable only
//! after its folder was synced, a file's sync says nothing about its name, and unsynced writes may
//! survive in any combination of pages.

mod loss;
mod record;
mod state;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

pub use loss::Loss;
pub use record::{Image, Recording};

use crate::{
    Disk, DiskFile, DiskFolder, DiskRef, Entry, FileRef, FolderRef, Kind, Lock, Open, Pool, Space, unsynced,
};
use state::{Act, Inode, Medium};

/// How the processes on a disk end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// `kill -9`: what was written is there, synced or not.
    Kill,
    /// The power fails: of what was not synced anything may be lost; the seed draws which [`Loss`].
    PowerLoss,
}

/// What a call does; for faults and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    /// Opens or makes a file, opens a folder, or takes a lock.
    Open,
    /// Reads from a file.
    Read,
    /// Writes to a file, sets its length or reserves room.
    Write,
    /// Syncs a file.
    Sync,
    /// Syncs a folder.
    SyncFolder,
    /// Renames, removes or makes a folder.
    Change,
    /// Lists a folder or looks at a name.
    Look,
}

/// A call that is about to be made.
#[derive(Debug)]
pub struct Call<'a> {
    /// How many calls were made before it.
    pub number: u64,
    /// How many of its kind were made before it.
    pub number_of_kind: u64,
    /// What it does.
    pub kind: CallKind,
    /// On what.
    pub path: &'a Path,
    /// How many bytes it reads or writes.
    pub bytes: usize,
}

/// Decides which calls fail, and how. A failing sync loses what it should have made durable, and a
/// second one does not notice, as on Linux (CASES, 9). A failing write may have written some
/// pages.
pub type Fault = Box<dyn FnMut(&Call<'_>) -> Option<ErrorKind> + Send>;

struct Inner {
    medium: Medium,
    /// Views of earlier processes do not work any more.
    generation: u64,
    power_losses: u64,
    calls: u64,
    calls_of_kind: [u64; 7],
    fault: Option<Fault>,
    read_only: bool,
    recording: Option<Recording>,
}

/// The disk as the world sees it: it outlives the processes. Clones are the same disk.
#[derive(Clone)]
pub struct CrashDisk(Arc<Mutex<Inner>>);

impl CrashDisk {
    /// An empty disk; the seed decides what crashes leave.
    pub fn new(seed: u64) -> CrashDisk {
        CrashDisk::of(Medium::new(seed))
    }

    fn of(medium: Medium) -> CrashDisk {
        CrashDisk(Arc::new(Mutex::new(Inner {
            medium,
            generation: 0,
            power_losses: 0,
            calls: 0,
            calls_of_kind: [0; 7],
            fault: None,
            read_only: false,
            recording: None,
        })))
    }

    /// The disk as a process sees it that starts now. Works until the next crash.
    pub fn process(&self) -> DiskRef {
        let generation = self.0.lock().generation;
        Arc::new(View { disk: self.clone(), generation })
    }

    /// Ends all processes; what of their unsynced work is left, `crash` says.
    pub fn crash(&self, crash: Crash) {
        let loss = match crash {
            Crash::Kill => None,
            Crash::PowerLoss => Some(self.0.lock().medium.draw_loss()),
        };
        self.end(loss);
    }

    /// A power loss of the given kind.
    pub fn lose_power(&self, loss: Loss) {
        self.end(Some(loss));
    }

    fn end(&self, loss: Option<Loss>) {
        let mut inner = self.0.lock();
        inner.generation += 1;
        inner.medium.locks.clear();
        inner.medium.opens.clear();
        if let Some(loss) = loss {
            inner.power_losses += 1;
            inner.medium.lose(loss);
        }
    }

    /// Has every call asked about; `None` ends that. A crash does not.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.0.lock().fault = fault;
    }

    /// Lets the `number`th call from now (0 is the next) fail, once.
    pub fn fail_call(&self, number: u64, error: ErrorKind) {
        self.fail_calls(number, 1, error, |_| true);
    }

    /// Lets those of `count` calls fail that `can`, from the `number`th from now (0 is the next) on.
    pub fn fail_calls(
        &self,
        number: u64,
        count: u64,
        error: ErrorKind,
        can: impl Fn(&Call<'_>) -> bool + Send + 'static,
    ) {
        let from = self.0.lock().calls + number;
        self.set_fault(Some(Box::new(move |call| {
            let among = call.number >= from && call.number - from < count;
            (among && can(call)).then_some(error)
        })));
    }

    /// Lets the `number`th sync of a file from now (0 is the next) fail, once.
    pub fn fail_sync(&self, number: u64) {
        let at = self.count(CallKind::Sync) + number;
        self.set_fault(Some(Box::new(move |call| {
            (call.kind == CallKind::Sync && call.number_of_kind == at).then_some(ErrorKind::Other)
        })));
    }

    /// Bytes that fit; writes and reservations beyond fail with `StorageFull`. Without one: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().medium.capacity = bytes;
    }

    /// Refuses (or takes again) all changes.
    pub fn set_read_only(&self, read_only: bool) {
        self.0.lock().read_only = read_only;
    }

    /// Calls made so far, failed ones among them.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// Bytes of the files in a folder, as it is now; 0 if there is none. It is the world that looks, and no process: that
    /// is no call, and no fault strikes it.
    pub fn bytes_in(&self, folder: &Path) -> u64 {
        let entries = self.0.lock().medium.list(folder).unwrap_or_default();
        entries.iter().map(|entry| entry.length).sum()
    }

    /// Calls of one kind made so far.
    pub fn count(&self, kind: CallKind) -> u64 {
        self.0.lock().calls_of_kind[kind as usize]
    }

    /// Changes one byte behind everybody's back, as decay does; live and durable.
    ///
    /// # Errors
    /// `NotFound`, `UnexpectedEof`.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.0.lock().medium.flip(path, offset, mask)
    }

    /// Remembers every change from now on, for [`CrashDisk::recorded`].
    pub fn record(&self) {
        let mut inner = self.0.lock();
        inner.recording = Some(Recording::from(inner.medium.clone()));
    }

    /// Changes recorded so far: the number that an [`Image`] of now would bear.
    pub fn changes(&self) -> usize {
        self.0.lock().recording.as_ref().map_or(0, Recording::len)
    }

    /// Ends the recording and hands it out; an empty one if there was none.
    pub fn recorded(&self) -> Recording {
        let mut inner = self.0.lock();
        let now = inner.medium.clone();
        inner.recording.take().unwrap_or_else(|| Recording::from(now))
    }
}

impl fmt::Debug for CrashDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrashDisk({} calls)", self.0.lock().calls)
    }
}

impl Inner {
    fn call(&mut self, generation: u64, kind: CallKind, path: &Path, bytes: usize) -> io::Result<()> {
        if generation != self.generation {
            return Err(named(path, ErrorKind::Other, "the process has crashed"));
        }
        let of_kind = &mut self.calls_of_kind[kind as usize];
        let call = Call { number: self.calls, number_of_kind: *of_kind, kind, path, bytes };
        self.calls += 1;
        *of_kind += 1;
        match self.fault.as_mut().and_then(|fault| fault(&call)) {
            Some(error) => {
                let error = named(path, error, "made to fail");
                // A folder that is synced is opened first, for which descriptors may be short.
                let opens = kind == CallKind::SyncFolder && error.kind() == ErrorKind::OutOfMemory;
                let syncs = matches!(kind, CallKind::Sync | CallKind::SyncFolder);
                Err(if syncs && !opens { unsynced(error) } else { error })
            }
            None => Ok(()),
        }
    }

    /// Makes a change and remembers it.
    fn act(&mut self, path: &Path, act: Act) -> io::Result<Inode> {
        if self.read_only {
            return Err(named(path, ErrorKind::ReadOnlyFilesystem, "read-only"));
        }
        let noted = self.recording.is_some().then(|| act.clone());
        let done = self.medium.act(path, act)?;
        if let (Some(recording), Some(act)) = (&mut self.recording, noted) {
            recording.note(act);
        }
        Ok(done)
    }
}

fn named(path: &Path, kind: ErrorKind, what: &str) -> io::Error {
    io::Error::new(kind, format!("{}: {what} (simulated disk)", path.display()))
}

/// The disk as one process sees it.
#[derive(Debug)]
struct View {
    disk: CrashDisk,
    generation: u64,
}

impl View {
    fn change(&self, kind: CallKind, path: &Path, act: Act) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, kind, path, 0)?;
        inner.act(path, act).map(|_| ())
    }
}

impl Disk for View {
    fn open(&self, path: &Path, how: Open) -> io::Result<FileRef> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Open, path, 0)?;
        let found = inner.medium.file(path)?;
        let inode = match (how, found) {
            (Open::CreateNew, Some(_)) => return Err(named(path, ErrorKind::AlreadyExists, "exists")),
            (Open::CreateNew | Open::Create, None) => inner.act(path, Act::CreateFile(path.into()))?,
            (Open::Read | Open::ReadWrite | Open::Direct, None) => {
                return Err(named(path, ErrorKind::NotFound, "no such file"));
            }
            (_, Some(inode)) => inode,
        };
        if how != Open::Read && inner.read_only {
            return Err(named(path, ErrorKind::ReadOnlyFilesystem, "read-only"));
        }
        *inner.medium.opens.entry(inode).or_default() += 1;
        Ok(Arc::new(File {
            disk: self.disk.clone(),
            generation: self.generation,
            inode,
            path: path.into(),
            writes: how != Open::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(CallKind::Change, from, Act::Rename(from.into(), to.into()))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(CallKind::Change, path, Act::RemoveFile(path.into()))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.change(CallKind::Change, path, Act::CreateFolder(path.into()))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.change(CallKind::Change, path, Act::RemoveFolder(path.into()))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Look, path, 0)?;
        inner.medium.list(path)
    }

    fn look(&self, path: &Path) -> io::Result<Option<(Kind, u64)>> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Look, path, 0)?;
        Ok(inner.medium.look(path))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::SyncFolder, path, 0)?;
        inner.act(path, Act::SyncFolder(path.into())).map(|_| ())
    }

    fn open_folder(&self, path: &Path) -> io::Result<FolderRef> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Open, path, 0)?;
        match inner.medium.look(path) {
            Some((Kind::Folder, _)) => Ok(Arc::new(Folder {
                disk: self.disk.clone(),
                generation: self.generation,
                path: path.into(),
            })),
            _ => Err(named(path, ErrorKind::NotFound, "no such folder")),
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Look, path, 0)?;
        Ok(inner.medium.space())
    }

    fn lock(&self, path: &Path, contents: &str) -> io::Result<Lock> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Open, path, contents.len())?;
        let inode = match inner.medium.file(path)? {
            Some(inode) => inode,
            None => inner.act(path, Act::CreateFile(path.into()))?,
        };
        if let Some(holder) = inner.medium.locks.get(&inode) {
            let what = format!("locked by another process: {holder}");
            return Err(named(path, ErrorKind::WouldBlock, &what));
        }
        inner.act(path, Act::SetLength(inode, 0))?;
        inner.act(path, Act::Write(inode, 0, contents.as_bytes().into()))?;
        inner.medium.locks.insert(inode, contents.to_owned());
        Ok(Lock::new(HeldLock { disk: self.disk.clone(), generation: self.generation, inode }))
    }

    fn boot(&self) -> String {
        self.disk.0.lock().power_losses.to_string()
    }

    fn pool(&self, _name: &str, _threads: usize) -> Pool {
        Pool::inline()
    }
}

#[derive(Debug)]
struct HeldLock {
    disk: CrashDisk,
    generation: u64,
    inode: Inode,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let mut inner = self.disk.0.lock();
        if inner.generation == self.generation {
            inner.medium.locks.remove(&self.inode);
        }
    }
}

#[derive(Debug)]
struct Folder {
    disk: CrashDisk,
    generation: u64,
    path: Box<Path>,
}

impl DiskFolder for Folder {
    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::SyncFolder, &self.path, 0).map_err(unsynced)?;
        inner.act(&self.path, Act::SyncFolder(self.path.clone().into())).map(|_| ())
    }

    fn sync_all_files(&self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        let called = inner.call(self.generation, CallKind::Sync, &self.path, 0);
        if inner.generation != self.generation {
            return called;
        }
        // Files of the whole disk, as a file system is: those of other processes, too.
        for inode in inner.medium.unsynced() {
            let act = if called.is_ok() { Act::Sync(inode) } else { Act::FailSync(inode) };
            inner.act(&self.path, act)?;
        }
        called
    }
}

#[derive(Debug)]
struct File {
    disk: CrashDisk,
    generation: u64,
    inode: Inode,
    path: Box<Path>,
    writes: bool,
}

impl File {
    fn change(&self, kind: CallKind, bytes: usize, act: Act) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, kind, &self.path, bytes)?;
        if !self.writes {
            return Err(named(&self.path, ErrorKind::PermissionDenied, "opened to read"));
        }
        inner.act(&self.path, act).map(|_| ())
    }

    /// A write that failed may have got some way: the pages of its first half, if there is room for them.
    fn write_part(&self, data: &[u8], offset: u64) {
        let mut inner = self.disk.0.lock();
        if inner.generation == self.generation && self.writes {
            let page = loss::PAGE as u64;
            let end = (offset + data.len() as u64 / 2) / page * page;
            let part = &data[..end.saturating_sub(offset) as usize];
            let _ = inner.act(&self.path, Act::Write(self.inode, offset, part.into()));
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        let called = inner.call(self.generation, CallKind::Sync, &self.path, 0);
        if let Err(error) = called {
            if inner.generation == self.generation {
                // The pages are marked clean all the same: a later sync will not write them.
                inner.act(&self.path, Act::FailSync(self.inode))?;
            }
            return Err(error);
        }
        inner.act(&self.path, Act::Sync(self.inode)).map(|_| ())
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Look, &self.path, 0)?;
        Ok(inner.medium.contents(self.inode).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.0.lock();
        inner.call(self.generation, CallKind::Read, &self.path, buffer.len())?;
        let contents = inner.medium.contents(self.inode);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
        let count = buffer.len().min(contents.len() - from);
        buffer[..count].copy_from_slice(&contents[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let written = self.change(CallKind::Write, data.len(), Act::Write(self.inode, offset, data.into()));
        if written.is_err() {
            self.write_part(data, offset);
        }
        written
    }

    /// One call, as `pwritev` is.
    fn write_all_vectored_at(&self, slices: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        let data: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.write_all_at(&data, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(CallKind::Write, 0, Act::SetLength(self.inode, length))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.change(CallKind::Write, 0, Act::Allocate(self.inode, length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let mut inner = self.disk.0.lock();
        if inner.generation != self.generation {
            return;
        }
        if let Some(count) = inner.medium.opens.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                inner.medium.opens.remove(&self.inode);
            }
        }
    }
}
