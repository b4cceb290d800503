//! Replicas by state. A transition consumes the old state: [`OpenReplica`] -> [`FinalReplica`];
//! writing to a final replica does not compile. ARCHITECTURE.md draws who may move which.
//!
//! Invariants: an open replica has at most one [`OpenReplica`], whoever holds it; nothing is written to its
//! files but through a [`Pen`] of that, so whoever holds it after a writer was stopped knows that no write of
//! theirs is still under way.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mobula_disk::{FileRef, Open};
use mobula_types::{Block, BlockId, GenStamp, ReplicaState};
use mobula_wire::checksum::Checksum;
use mobula_wire::meta::META_HEADER_LENGTH;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::direct::Direct;
use crate::files::sum_at;
use crate::journal::{Draft, Fact};
use crate::volume::{VolumeRef, data_name, meta_name};

/// Longest wait for a writer to stop (HDFS: `dfs.datanode.xceiver.stop.timeout.millis`).
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A write of so many bytes takes less time than handing it to another thread.
const SHORT_BYTES_MAX: usize = 64 << 10;

/// The replica of a block.
#[derive(Clone, Debug)]
pub(crate) enum Replica {
    Open(Arc<Growing>),
    Final(FinalReplica),
    Waiting(WaitingReplica),
    Recovering(Arc<RecoveringReplica>),
}

impl Replica {
    /// Id, stamp and length on the disk; under recovery as it was before.
    pub(crate) fn block(&self) -> Block {
        match self.original() {
            Replica::Open(it) => Block { length: it.progress().on_disk, ..it.block },
            Replica::Final(it) => it.block,
            Replica::Waiting(it) => it.block,
            Replica::Recovering(_) => unreachable!("the original of a recovery is none"),
        }
    }

    pub(crate) fn volume(&self) -> &VolumeRef {
        match self.original() {
            Replica::Open(it) => &it.volume,
            Replica::Final(it) => &it.volume,
            Replica::Waiting(it) => &it.volume,
            Replica::Recovering(_) => unreachable!("the original of a recovery is none"),
        }
    }

    /// Its state; under recovery that before, as HDFS reports it.
    pub(crate) fn state(&self) -> ReplicaState {
        match self.original() {
            Replica::Open(it) => it.kind.state(),
            Replica::Final(_) => ReplicaState::Finalized,
            Replica::Waiting(_) => ReplicaState::Rwr,
            Replica::Recovering(_) => ReplicaState::Rur,
        }
    }

    /// What it was before a recovery began, or is.
    pub(crate) fn original(&self) -> &Replica {
        match self {
            Replica::Recovering(it) => &it.original,
            it => it,
        }
    }

    /// Whether it is that open replica.
    pub(crate) fn is_open(&self, growing: &Arc<Growing>) -> bool {
        matches!(self, Replica::Open(it) if Arc::ptr_eq(it, growing))
    }
}

/// Why a replica is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenKind {
    /// A client writes it: readers may follow.
    Rbw,
    /// A DataNode copies it here: nobody sees it.
    Temporary,
}

impl OpenKind {
    pub(crate) fn state(self) -> ReplicaState {
        match self {
            OpenKind::Rbw => ReplicaState::Rbw,
            OpenKind::Temporary => ReplicaState::Temporary,
        }
    }
}

/// How far an open replica has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes handed to the operating system, their checksums too.
    pub on_disk: u64,
    /// The checksum of the last chunk, if that chunk is not full.
    pub last_sum: Option<u32>,
    /// Bytes acknowledged by the whole pipeline: what readers of the file may count on.
    pub acked: u64,
}

/// What an open replica is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub block: Block,
    pub kind: OpenKind,
    pub volume: VolumeRef,
    pub folder: PathBuf,
    pub checksum: Checksum,
    pub files: Option<OpenFiles>,
    pub progress: Progress,
    /// Bytes up to which it is synced, as far as is known.
    pub synced: u64,
    /// Bytes up to which a power loss leaves it for certain.
    pub kept: u64,
    /// Bytes of the volume that are set aside for what is still to come.
    pub reserved: u64,
    pub direct: Direct,
}

/// The files of an open replica.
#[derive(Clone, Debug)]
pub(crate) struct OpenFiles {
    pub data: FileRef,
    pub meta: FileRef,
}

/// What writer and readers share of an open replica.
#[derive(Debug)]
pub(crate) struct Growing {
    pub block: Block,
    pub kind: OpenKind,
    pub volume: VolumeRef,
    pub folder: PathBuf,
    pub checksum: Checksum,
    /// None while nobody writes: a writer that died may leave thousands, until their recoveries.
    files: Mutex<Option<OpenFiles>>,
    direct: Direct,
    progress: Mutex<Progress>,
    /// Bytes up to which it is synced, if it may be; changed with a pen only.
    synced: AtomicU64,
    /// Bytes up to which a power loss leaves it for certain, here or in the journal; changed with a pen only.
    kept: AtomicU64,
    /// The journal has the checksum of the last chunk that was synced, with the chunk's bytes.
    in_journal: AtomicBool,
    /// Held while its files are written.
    writing: Mutex<()>,
    /// Told when `progress` moves.
    pub moved: Notify,
    stopped: AtomicBool,
    /// Told when the writer is to stop.
    pub stop: Notify,
    reserved: AtomicU64,
    /// One permit: the right to write.
    right: Arc<Semaphore>,
}

impl Growing {
    fn new(parts: Parts) -> Growing {
        let Parts { block, kind, volume, folder, checksum, files, progress, synced, kept, reserved, direct } =
            parts;
        volume.reserve(reserved);
        Growing {
            block,
            kind,
            volume,
            folder,
            checksum,
            files: Mutex::new(files),
            direct,
            progress: Mutex::new(progress),
            synced: AtomicU64::new(synced),
            kept: AtomicU64::new(kept),
            in_journal: AtomicBool::new(false),
            writing: Mutex::new(()),
            moved: Notify::new(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
            reserved: AtomicU64::new(reserved),
            right: Arc::new(Semaphore::new(1)),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Its files, if they are open.
    pub(crate) fn open_files(&self) -> Option<OpenFiles> {
        self.files.lock().clone()
    }

    fn is_opened(&self) -> bool {
        self.files.lock().is_some()
    }

    /// Its files, opened if need be, but not kept open. May block.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn files(&self) -> io::Result<OpenFiles> {
        if let Some(files) = self.open_files() {
            return Ok(files);
        }
        let open = |name: String| self.volume.disk.open(&self.folder.join(name), Open::ReadWrite);
        Ok(OpenFiles { data: open(data_name(self.block.id))?, meta: open(meta_name(&self.block))? })
    }

    /// As [`Growing::files`], and keeps them open for whoever is about to write.
    fn keep_open(&self) -> io::Result<OpenFiles> {
        let files = self.files()?;
        Ok(self.files.lock().get_or_insert(files).clone())
    }

    /// The whole pipeline has everything up to `end`.
    pub(crate) fn acknowledge(&self, end: u64) {
        let mut progress = self.progress.lock();
        progress.acked = progress.acked.max(end);
    }

    /// Tells the writer to stop: somebody else takes the replica over, or it is to go.
    pub(crate) fn cancel(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
        self.stop.notify_one();
        self.moved.notify_waiters();
    }

    /// Whether the writer was told to stop: what is read from now on may be another version.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Nobody writes for now: gives back the room that was set aside (HDFS-9530), and closes the files.
    pub(crate) fn rest(&self) {
        self.release();
        self.direct.close();
        self.files.lock().take();
    }

    fn release(&self) {
        self.volume.unreserve(self.reserved.swap(0, Ordering::Relaxed));
    }

    /// As it would be with another stamp and kind in another folder, with room for `reserved` more bytes.
    fn moved_to(&self, stamp: GenStamp, kind: OpenKind, folder: PathBuf, reserved: u64) -> Growing {
        Growing::new(Parts {
            block: Block { stamp, ..self.block },
            kind,
            volume: self.volume.clone(),
            folder,
            checksum: self.checksum,
            files: self.open_files(),
            progress: self.progress(),
            synced: self.synced.load(Ordering::Relaxed),
            kept: self.kept.load(Ordering::Relaxed),
            reserved,
            direct: Direct::never(),
        })
    }

    /// Where a record begins that makes what follows durable: at the border of the chunk up to which it is.
    pub(crate) fn kept_start(&self) -> u64 {
        self.checksum.chunk_start(self.kept.load(Ordering::Relaxed))
    }

    /// The journal has it, up to `end`.
    pub(crate) fn kept_in_journal(&self, end: u64) {
        self.synced.store(end, Ordering::Relaxed);
        self.kept.store(end, Ordering::Relaxed);
        self.in_journal.store(true, Ordering::Release);
    }

    /// What the journal has of it may soon be gone: from now on nothing is overwritten that was synced. Waits for a write
    /// that is under way.
    pub(crate) fn leave_journal(&self) {
        let _writing = self.writing.lock();
        self.in_journal.store(false, Ordering::Release);
    }

    /// All that is written is synced where it lies.
    fn synced_in_place(&self) {
        let length = self.progress().on_disk;
        self.synced.store(length, Ordering::Relaxed);
        self.kept.store(length, Ordering::Relaxed);
        self.in_journal.store(false, Ordering::Release);
    }

    fn wrote(&self, on_disk: u64, last_sum: Option<u32>) {
        let grown = {
            let mut progress = self.progress.lock();
            let grown = on_disk.saturating_sub(progress.on_disk);
            progress.on_disk = on_disk;
            progress.last_sum = last_sum;
            grown
        };
        let take = |left: u64| Some(left.saturating_sub(grown));
        let before = self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(0);
        self.volume.unreserve(before.min(grown));
        self.moved.notify_waiters();
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.release();
    }
}

/// A writer that does not stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("whoever changes the replica of {0} has not stopped within {STOP_LIMIT:?}")]
pub(crate) struct Stuck(pub BlockId);

/// The right to write to an open replica; there is one.
#[derive(Debug)]
pub(crate) struct OpenReplica(Pen);

/// A share in that right, for a call to the disk that goes on even if its writer is gone.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    growing: Arc<Growing>,
    _right: Arc<OwnedSemaphorePermit>,
}

impl OpenReplica {
    /// A replica whose files were just made or opened.
    pub(crate) fn new(parts: Parts) -> OpenReplica {
        OpenReplica::first(Growing::new(parts))
    }

    fn first(growing: Growing) -> OpenReplica {
        let right = growing.right.clone().try_acquire_owned().expect("nobody else knows of it yet");
        OpenReplica(Pen { growing: Arc::new(growing), _right: Arc::new(right) })
    }

    /// Tells whoever writes to stop, and waits until nothing of theirs is under way any more.
    ///
    /// # Errors
    /// [`Stuck`] after [`STOP_LIMIT`].
    pub(crate) async fn take_over(growing: Arc<Growing>) -> Result<OpenReplica, Stuck> {
        growing.cancel();
        let right = timeout(STOP_LIMIT, growing.right.clone().acquire_owned()).await;
        let right = right.map_err(|_| Stuck(growing.block.id))?.expect("it is never closed");
        Ok(OpenReplica(Pen { growing, _right: Arc::new(right) }))
    }

    pub(crate) fn growing(&self) -> &Arc<Growing> {
        &self.0.growing
    }

    pub(crate) fn pen(&self) -> Pen {
        self.0.clone()
    }

    /// The same files under another stamp, which its meta file bears already, open for the next writer.
    pub(crate) fn restamped(self, stamp: GenStamp, reserved: u64) -> OpenReplica {
        let growing = self.growing();
        OpenReplica::first(growing.moved_to(stamp, growing.kind, growing.folder.clone(), reserved))
    }

    /// A copy that came in and was synced, now that its files lie in `folder`, as one that a client writes; `acked` bytes of
    /// it count as acknowledged.
    pub(crate) fn published(self, folder: PathBuf, acked: u64) -> OpenReplica {
        let growing = self.growing();
        let moved = growing.moved_to(growing.block.stamp, OpenKind::Rbw, folder, 0);
        moved.progress.lock().acked = acked;
        moved.synced_in_place();
        OpenReplica::first(moved)
    }
}

impl Pen {
    pub(crate) fn growing(&self) -> &Arc<Growing> {
        &self.growing
    }

    /// Hands bytes and checksums to the operating system, in this order: whoever finds the files
    /// after a kill finds a checksum only for bytes that are there.
    ///
    /// After a power loss, too, where it matters: a checksum that was synced, of a chunk that is not full, is
    /// not overwritten before the chunk's new bytes are synced, unless the journal has both. Else the new checksum might
    /// survive without them, and with it all that was synced of the chunk would be lost.
    pub(crate) fn write(&self, write: Option<&Write<'_>>, sync: SyncNow) -> io::Result<()> {
        let growing = &*self.growing;
        let _writing = growing.writing.lock();
        let OpenFiles { data: data_file, meta: meta_file } = growing.keep_open()?;
        if sync == SyncNow::Yes {
            growing.direct.leave();
        }
        if let Some(write) = write {
            let data = |bytes: &[u8], at| growing.direct.write(growing, &data_file, bytes, at);
            write_pieces(&data_file, data, write.data, write.data_pieces, 0)?;
        }
        let data_first = write.is_some_and(|write| self.overwrites_synced_sum(write));
        if data_first {
            data_file.sync_data()?;
        }
        if let Some(write) = write {
            let sums = |bytes: &[u8], at| meta_file.write_all_at(bytes, at);
            write_pieces(&meta_file, sums, write.sums, write.sum_pieces, META_HEADER_LENGTH as u64)?;
            growing.wrote(write.end, write.last_sum);
        }
        if sync == SyncNow::Yes {
            // Both at the end, one behind the other: what the first sync has the file system's journal do, the
            // second finds done.
            if !data_first {
                data_file.sync_data()?;
            }
            meta_file.sync_data()?;
            growing.synced_in_place();
        }
        Ok(())
    }

    /// What is written and not yet durable as a record of the journal, read back from the page cache; for
    /// [`Fact::Final`] all of it. The journal must take it. Blocking.
    pub(crate) fn draft(&self, fact: Fact) -> io::Result<Draft> {
        let growing = &*self.growing;
        let (checksum, length) = (growing.checksum, growing.progress().on_disk);
        let start = if fact == Fact::Final { 0 } else { growing.kept_start() };
        let mut draft = Draft::new(fact, Block { length, ..growing.block }, start, checksum);
        let OpenFiles { data, meta } = growing.files()?;
        let (bytes, sums) = draft.parts();
        data.read_exact_at(bytes, start)?;
        meta.read_exact_at(sums, sum_at(checksum, start))?;
        Ok(draft)
    }

    /// Whether a write only copies a little into the page cache.
    pub(crate) fn is_short(&self, write: &Write<'_>) -> bool {
        let bytes: usize = write.data_pieces.iter().map(|piece| piece.length).sum();
        bytes <= SHORT_BYTES_MAX && self.growing.is_opened() && !self.overwrites_synced_sum(write)
    }

    /// Whether the checksum of a chunk that was synced while it was not full is among those to be written.
    fn overwrites_synced_sum(&self, write: &Write<'_>) -> bool {
        if self.growing.in_journal.load(Ordering::Acquire) {
            return false;
        }
        let synced = self.growing.synced.load(Ordering::Relaxed);
        let first = write.data_pieces.iter().map(|piece| piece.at).min().unwrap_or(u64::MAX);
        let chunk = u64::from(self.growing.checksum.bytes_per_chunk());
        !synced.is_multiple_of(chunk) && self.growing.checksum.chunk_start(first) < synced
    }

    /// Sets how far the replica goes, after its files were cut.
    pub(crate) fn cut(&self, length: u64, last_sum: Option<u32>) {
        let mut progress = self.growing.progress.lock();
        assert!(length <= progress.on_disk, "a cut to {length} of {}", progress.on_disk);
        *progress = Progress { on_disk: length, last_sum, acked: progress.acked.min(length) };
        self.growing.synced.store(length, Ordering::Relaxed);
        self.growing.kept.fetch_min(length, Ordering::Relaxed);
        self.growing.in_journal.store(false, Ordering::Release);
    }
}

/// Whether a write is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncNow {
    Yes,
    No,
}

/// A run of bytes and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where in the file.
    pub at: u64,
    /// Where in the buffer.
    pub from: usize,
    /// How many bytes.
    pub length: usize,
}

/// What is to be written at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub data: &'a [u8],
    pub data_pieces: &'a [Piece],
    pub sums: &'a [u8],
    /// Offsets count from the first checksum, behind the header.
    pub sum_pieces: &'a [Piece],
    /// Where the replica ends after it.
    pub end: u64,
    /// The checksum of the last chunk, if it is not full.
    pub last_sum: Option<u32>,
}

/// Most slices of one write (Linux: `IOV_MAX` is 1024).
const SLICES_MAX: usize = 512;

/// Writes pieces in as few calls as can be; `write_run` takes those that are one run in the buffer, too.
fn write_pieces(
    file: &FileRef,
    write_run: impl Fn(&[u8], u64) -> io::Result<()>,
    buffer: &[u8],
    pieces: &[Piece],
    base: u64,
) -> io::Result<()> {
    let mut rest = pieces;
    while let Some(first) = rest.first() {
        let (mut count, mut end) = (1, first.at + first.length as u64);
        while count < rest.len().min(SLICES_MAX) && rest[count].at == end {
            end += rest[count].length as u64;
            count += 1;
        }
        let (run, after) = rest.split_at(count);
        let last = &run[count - 1];
        if last.from + last.length - first.from == (end - first.at) as usize {
            // They lie side by side in the buffer, too.
            write_run(&buffer[first.from..last.from + last.length], base + first.at)?;
        } else {
            let slices: Vec<IoSlice<'_>> = run
                .iter()
                .map(|piece| IoSlice::new(&buffer[piece.from..piece.from + piece.length]))
                .collect();
            file.write_all_vectored_at(&slices, base + first.at)?;
        }
        rest = after;
    }
    Ok(())
}

/// A replica whose bytes do not change any more, synced with its checksums and names.
#[derive(Clone, Debug)]
pub(crate) struct FinalReplica {
    pub block: Block,
    pub volume: VolumeRef,
}

/// A replica that was being written when the node stopped; it waits for recovery.
#[derive(Clone, Debug)]
pub(crate) struct WaitingReplica {
    pub block: Block,
    pub volume: VolumeRef,
}

/// A replica whose block is under recovery (HDFS: `ReplicaUnderRecovery`): nobody writes it, and only the
/// recovery with this id, or a later one, may change it. In memory only: after a kill it is what its folder says.
#[derive(Debug)]
pub(crate) struct RecoveringReplica {
    /// What it was. Never under recovery itself.
    original: Replica,
    /// The recovery's id, and the stamp that the block will have.
    pub recovery: GenStamp,
    /// Bytes that can be relied on.
    pub length: u64,
    /// What it proves: as what it takes part.
    pub state: ReplicaState,
}

impl RecoveringReplica {
    /// A recovery of `replica`, or a later one of one that is under recovery.
    pub(crate) fn new(
        replica: &Replica,
        recovery: GenStamp,
        (length, state): (u64, ReplicaState),
    ) -> RecoveringReplica {
        RecoveringReplica { original: replica.original().clone(), recovery, length, state }
    }
}
