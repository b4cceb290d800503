//! Replicas by state. A transition consumes the old state: `OpenReplica` -> [`FinalReplica`];
//! writing to a final replica does not compile.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mobula_disk::FileRef;
use mobula_types::{Block, ReplicaState};
use mobula_wire::checksum::Checksum;
use mobula_wire::meta::META_HEADER_LENGTH;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::direct::Direct;
use crate::volume::VolumeRef;

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

/// What writer and readers share of an open replica.
#[derive(Debug)]
pub(crate) struct Growing {
    pub block: Block,
    pub kind: OpenKind,
    pub volume: VolumeRef,
    pub folder: PathBuf,
    pub checksum: Checksum,
    pub data: FileRef,
    pub meta: FileRef,
    direct: Direct,
    progress: Mutex<Progress>,
    /// Told when `progress` moves.
    pub moved: Notify,
    stopped: AtomicBool,
    /// Told when the writer is to stop.
    pub stop: Notify,
    reserved: AtomicU64,
}

impl Growing {
    #[allow(clippy::too_many_arguments)] // One call, where the files are made.
    pub(crate) fn new(
        block: Block,
        kind: OpenKind,
        volume: VolumeRef,
        folder: PathBuf,
        checksum: Checksum,
        data: FileRef,
        meta: FileRef,
        reserved: u64,
        direct: Direct,
    ) -> Growing {
        volume.reserve(reserved);
        Growing {
            block,
            kind,
            volume,
            folder,
            checksum,
            data,
            meta,
            direct,
            progress: Mutex::default(),
            moved: Notify::new(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
            reserved: AtomicU64::new(reserved),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// The whole pipeline has everything up to `end`.
    pub(crate) fn acknowledge(&self, end: u64) {
        let mut progress = self.progress.lock();
        progress.acked = progress.acked.max(end);
    }

    /// Tells the writer to stop: the replica is to go.
    pub(crate) fn cancel(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
        self.stop.notify_one();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
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
        self.volume.unreserve(self.reserved.load(Ordering::Relaxed));
    }
}

/// The right to write to an open replica; there is one.
#[derive(Debug)]
pub(crate) struct OpenReplica(pub(crate) Arc<Growing>);

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

impl OpenReplica {
    /// Hands bytes and checksums to the operating system, in this order: whoever finds the files
    /// after a crash finds a checksum only for bytes that are there.
    pub(crate) fn write(growing: &Growing, write: &Write<'_>) -> io::Result<()> {
        let data = |bytes: &[u8], at| growing.direct.write(growing, bytes, at);
        write_pieces(&growing.data, data, write.data, write.data_pieces, 0)?;
        let sums = |bytes: &[u8], at| growing.meta.write_all_at(bytes, at);
        write_pieces(&growing.meta, sums, write.sums, write.sum_pieces, META_HEADER_LENGTH as u64)?;
        growing.wrote(write.end, write.last_sum);
        Ok(())
    }
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
