//! The one who writes a journal: gathers what waits, writes and syncs it at once, and lets the files take turns.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mobula_disk::{Open, copy_error, is_shortage};
use mobula_types::{Block, BlockId};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::file::JournalFile;
use super::format::{Draft, Fact, Header, RECORDS_FROM};
use super::{Done, FILE_NAMES, Live, Request, Said, Shared, What, folder_of};
use crate::replica::Pen;
use crate::syncer::{Finalise, move_to_final};
use crate::volume::{data_name, meta_name};

/// Requests that are written and synced together. Each has a bit more than `DATA_MAX` at most.
const GROUP_MAX: usize = 64;

/// As many replicas are settled one by one, so as not to write what others have not asked for; more with all that is on
/// the file system.
pub(super) const SETTLE_EACH_MAX: usize = 8;

/// Serves requests until nobody can ask any more.
pub(super) async fn run(shared: Arc<Shared>, mut requests: mpsc::Receiver<Request>) {
    let mut writer = Writer { shared, files: None, active: 0, order: 0, settling: None, closed: false };
    let mut group = Vec::with_capacity(GROUP_MAX);
    while requests.recv_many(&mut group, GROUP_MAX).await > 0 {
        writer.serve(&mut group).await;
    }
}

/// A file, and the folders whose names it stands for, too.
#[derive(Debug)]
struct Part {
    file: JournalFile,
    folders: BTreeSet<PathBuf>,
}

struct Writer {
    shared: Arc<Shared>,
    /// Made when the first request comes.
    files: Option<[Arc<Mutex<Part>>; 2]>,
    /// Which of the two is written.
    active: usize,
    /// That of the header that was written last.
    order: u64,
    /// The other one is on its way to being used again.
    settling: Option<JoinHandle<io::Result<()>>>,
    /// The files are gone, and stay so.
    closed: bool,
}

/// Why something was not kept.
#[derive(Debug)]
enum Refusal {
    Full,
    Broken(io::Error),
}

/// What is to be written, and what comes after it.
#[derive(Debug, Default)]
struct Batch {
    drafts: Vec<Draft>,
    after: Vec<After>,
    waiting: Vec<Option<Done>>,
    /// Somebody waits for it.
    sync: bool,
}

#[derive(Debug)]
enum After {
    /// So many bytes of what this writes are durable.
    Kept(Pen, u64),
    Move(Finalise),
    Forget(BlockId),
    Nothing,
}

impl Writer {
    async fn serve(&mut self, group: &mut Vec<Request>) {
        let mut batch = Batch::default();
        let mut room = self.room();
        for request in group.drain(..) {
            let (draft, after) = match request.what {
                What::Written { draft, pen } => {
                    let end = draft.end();
                    (draft, After::Kept(pen, end))
                }
                What::Final { draft, step } => (draft, After::Move(step)),
                What::Forget(block) => (Draft::empty(Fact::Forgotten, block), After::Forget(block.id)),
                What::Removed(block) => (Draft::empty(Fact::Removed, block), After::Nothing),
                What::Close => {
                    self.write(std::mem::take(&mut batch)).await;
                    answer(request.done, self.close().await.map(|()| true));
                    room = self.room();
                    continue;
                }
            };
            let size = draft.size() as u64;
            let must = matches!(after, After::Forget(_));
            if self.closed && must {
                answer(request.done, Ok(true));
                continue;
            }
            if self.closed || size > self.shared.file_bytes.saturating_sub(RECORDS_FROM) {
                Refusal::Full.answer(request.done);
                continue;
            }
            if size > room {
                self.write(std::mem::take(&mut batch)).await;
                let turned = self.turn(must).await;
                room = self.room();
                if let Err(refusal) = turned {
                    refusal.answer(request.done);
                    continue;
                }
            }
            room -= size;
            batch.sync |= request.done.is_some();
            batch.drafts.push(draft);
            batch.after.push(after);
            batch.waiting.push(request.done);
        }
        self.write(batch).await;
    }

    /// Bytes that the file takes that is written.
    fn room(&self) -> u64 {
        self.files.as_ref().map_or(0, |files| files[self.active].lock().file.room())
    }

    /// Has the other file be written, and settles the one that was: at once or not at all, unless it must be.
    async fn turn(&mut self, must: bool) -> Result<(), Refusal> {
        self.shared.volume.check().map_err(Refusal::Broken)?;
        self.settled(must).await?;
        let Some(pool) = self.shared.pool.get() else { return Err(Refusal::Full) };
        let folder = folder_of(&self.shared.volume, pool);
        let bytes = self.shared.file_bytes;
        let file = |name| JournalFile::new(folder.join(name), bytes);
        let part = |name| Arc::new(Mutex::new(Part { file: file(name), folders: BTreeSet::new() }));
        let files = self.files.get_or_insert_with(|| FILE_NAMES.map(part)).clone();
        let first = !files[self.active].lock().file.is_begun();
        let next = if first { self.active } else { 1 - self.active };
        self.begin(&files[next], next).await?;
        if !first {
            self.settling = Some(self.settle(self.active, &files[self.active]));
            self.active = next;
        }
        Ok(())
    }

    /// Begins to make durable what a file says, so that it can be begun anew.
    fn settle(&self, index: usize, part: &Arc<Mutex<Part>>) -> JoinHandle<io::Result<()>> {
        let (shared, of, part) = (self.shared.clone(), self.shared.clone(), part.clone());
        tokio::spawn(async move { shared.volume.run_sync(move || of.settle(index, &part)).await })
    }

    /// Begins a file in which nothing counts any more.
    async fn begin(&mut self, part: &Arc<Mutex<Part>>, index: usize) -> Result<(), Refusal> {
        self.order += 1;
        let header = Header { order: self.order, salt: self.shared.entropy.u64() };
        let (disk, part) = (self.shared.volume.disk.clone(), part.clone());
        let begun = self.shared.volume.run_sync(move || part.lock().file.begin(&*disk, header)).await;
        match begun {
            Err(error) if is_shortage(&error) => Err(Refusal::Full),
            Err(error) => Err(self.shared.broke(&error)),
            Ok(()) => {
                self.shared.live.lock()[index].clear();
                Ok(())
            }
        }
    }

    /// Whether the file that is not written can be used again: all that it says is settled. Waits for that only if it must
    /// be.
    async fn settled(&mut self, must: bool) -> Result<(), Refusal> {
        let Some(files) = &self.files else { return Ok(()) };
        let other = 1 - self.active;
        let task = match self.settling.take() {
            Some(task) => task,
            None if !files[other].lock().file.is_begun() => return Ok(()),
            // Something was short the last time.
            None => self.settle(other, &files[other]),
        };
        if !must && !task.is_finished() {
            self.settling = Some(task);
            return Err(Refusal::Full);
        }
        match task.await.unwrap_or_else(|panic| Err(io::Error::other(panic.to_string()))) {
            Err(error) if is_shortage(&error) => Err(Refusal::Full),
            settled => settled.map_err(Refusal::Broken),
        }
    }

    /// Writes a batch for which there is room, syncs it if somebody waits, does what comes after, and answers.
    async fn write(&mut self, batch: Batch) {
        let Batch { drafts, after, waiting, sync } = batch;
        if drafts.is_empty() {
            return;
        }
        let part = self.files.as_ref().expect("one of them has room")[self.active].clone();
        self.note(&part, &after);
        let volume = self.shared.volume.clone();
        let written = self.shared.volume.run_sync(move || {
            let appended = part.lock().file.append(drafts, sync);
            if appended.as_ref().is_err_and(is_shortage) {
                part.lock().file.fill_up();
            }
            appended?;
            // Before the file can be settled, which is to make the names durable.
            let follow = |after: &After| match after {
                After::Move(step) => {
                    volume.ensure_folder(&step.folder).and_then(|()| move_to_final(&volume, step))
                }
                After::Kept(..) | After::Forget(_) | After::Nothing => Ok(()),
            };
            let followed: Vec<io::Result<()>> = after.iter().map(follow).collect();
            Ok((after, followed))
        });
        match written.await {
            Ok((after, followed)) => {
                for ((after, done), followed) in after.iter().zip(waiting).zip(followed) {
                    self.shared.kept(after);
                    answer(done, followed.map(|()| true));
                }
            }
            Err(error) => {
                let refusal = if is_shortage(&error) { Refusal::Full } else { self.shared.broke(&error) };
                waiting.into_iter().for_each(|done| refusal.answer(done));
            }
        }
    }

    /// The file will say something of these, whatever becomes of the write.
    fn note(&self, part: &Mutex<Part>, after: &[After]) {
        let (mut live, mut part) = (self.shared.live.lock(), part.lock());
        for after in after {
            let (growing, folder) = match after {
                After::Kept(pen, _) => (pen.growing(), &pen.growing().folder),
                After::Move(step) => (step.pen.growing(), &step.folder),
                After::Forget(_) | After::Nothing => continue,
            };
            for folder in [&growing.folder, folder] {
                if !part.folders.contains(folder) {
                    part.folders.insert(folder.clone());
                }
            }
            let said = Said { stamp: growing.block.stamp, writer: Arc::downgrade(growing) };
            live[self.active].insert(growing.block.id, said);
        }
    }

    /// Settles everything and removes the files.
    async fn close(&mut self) -> io::Result<()> {
        self.shared.volume.check()?;
        if let Err(refusal) = self.settled(true).await {
            return Err(refusal.into());
        }
        self.closed = true;
        let Some(files) = self.files.take() else { return Ok(()) };
        let (shared, active) = (self.shared.clone(), self.active);
        let done = self.shared.volume.run_sync(move || {
            shared.settle(active, &files[active])?;
            let disk = &*shared.volume.disk;
            // The older one first: what it says may be forgotten in the other.
            [1 - active, active].iter().try_for_each(|index| files[*index].lock().file.remove(disk))?;
            let pool = shared.pool.get().expect("there are files");
            disk.sync_folder(&folder_of(&shared.volume, pool))
        });
        done.await?;
        self.shared.live.lock().iter_mut().for_each(BTreeMap::clear);
        Ok(())
    }
}

impl Shared {
    fn broke(&self, error: &io::Error) -> Refusal {
        self.volume.broke(error);
        Refusal::Broken(copy_error(error))
    }

    fn kept(&self, after: &After) {
        match after {
            After::Kept(pen, end) => pen.growing().kept_in_journal(*end),
            After::Move(_) | After::Nothing => {}
            After::Forget(id) => {
                let forgotten = self.live.lock().each_mut().map(|live| live.remove(id));
                // Nobody writes it meanwhile: no wait.
                let writers = forgotten.iter().flatten().filter_map(|said| said.writer.upgrade());
                writers.for_each(|growing| growing.leave_journal());
            }
        }
    }

    /// Makes durable what a file says, without it: it may be begun anew. A failure is known to all who sync on this disk
    /// before this returns: what it could not write, their syncs might not notice. Blocking.
    fn settle(&self, index: usize, part: &Mutex<Part>) -> io::Result<()> {
        // A shortage has changed nothing.
        let lost = |error: &io::Error| !is_shortage(error);
        self.settle_now(index, part).inspect_err(|error| {
            if lost(error) {
                self.volume.broke(error)
            }
        })
    }

    fn settle_now(&self, index: usize, part: &Mutex<Part>) -> io::Result<()> {
        let live = self.live.lock()[index].clone();
        // Before the sync: a checksum that is overwritten from now on may meet a disk without the record of the old one.
        live.values().filter_map(|said| said.writer.upgrade()).for_each(|growing| growing.leave_journal());
        let mut part = part.lock();
        // Names first: descriptors may be short for them, and then this is done again.
        part.folders.iter().try_for_each(|folder| self.volume.disk.sync_folder(folder))?;
        self.sync_files(&live)?;
        part.folders.clear();
        part.file.retire();
        Ok(())
    }

    fn sync_files(&self, live: &Live) -> io::Result<()> {
        if live.len() > SETTLE_EACH_MAX {
            return self.volume.around.sync_all_files();
        }
        live.iter().try_for_each(|(id, said)| self.sync_replica(*id, said))
    }

    /// Syncs the files of one replica, wherever they are now. Not only the first that is found: a block that was begun here
    /// when the power failed has left a file of no use where those are that are being written.
    fn sync_replica(&self, id: BlockId, said: &Said) -> io::Result<()> {
        let pool = self.pool.get().expect("something was said");
        let block = Block { id, stamp: said.stamp, length: 0 };
        let folders = [self.volume.rbw_folder(pool), self.volume.final_folder(pool, id)];
        let names = [data_name(id), meta_name(&block)];
        // In this order: it may be finished meanwhile. Or it was removed.
        for path in folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))) {
            match self.volume.disk.open(&path, Open::ReadWrite) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Refusal {
    fn answer(&self, done: Option<Done>) {
        answer(
            done,
            match self {
                Refusal::Full => Ok(false),
                Refusal::Broken(error) => Err(copy_error(error)),
            },
        );
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        match refusal {
            Refusal::Full => io::ErrorKind::StorageFull.into(),
            Refusal::Broken(error) => error,
        }
    }
}

/// Nobody waiting any more is no error.
fn answer(done: Option<Done>, result: io::Result<bool>) {
    if let Some(done) = done {
        let _ = done.send(result);
    }
}
