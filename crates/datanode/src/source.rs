//! A replica as it is read from disk, chunk by chunk, verified.
//!
//! Invariant: bytes leave here only with the checksums that were stored with them; whether they fit is known, unless the
//! caller does not want to know.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use mobula_disk::{FileRef, is_shortage};
use mobula_types::{Block, BlockId, GenStamp, ReplicaState};
use mobula_wire::checksum::{Checksum, ChecksumKind, SUM_LENGTH};
use mobula_wire::meta::{self, META_HEADER_LENGTH};
use tokio::time::timeout;

use crate::node::Node;
use crate::replica::{Growing, Progress, Replica};
use crate::volume::VolumeRef;

/// Longest wait for bytes that a writer has sent, but that are not on the disk yet (HDFS: 3 s).
const GROWTH_LIMIT: Duration = Duration::from_secs(3);
/// Chunk of a replica without checksums (HDFS: `BlockSender.CHUNK_SIZE`).
const PLAIN_CHUNK: u32 = 512;
/// How often a replica is opened that changes its state meanwhile.
const OPEN_TRIES: usize = 3;

/// Why a replica cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("no replica of {0} is here")]
    Missing(BlockId),
    #[error("replica of {block} has generation stamp {have}, older than {wanted}")]
    Stale { block: BlockId, have: GenStamp, wanted: GenStamp },
    #[error("replica of {block} is in state {state:?}")]
    State { block: BlockId, state: ReplicaState },
    #[error("bytes {offset} to {end} of {block} were asked for, it has {length}")]
    Range { block: BlockId, offset: u64, end: u64, length: u64 },
    #[error("replica of {0} has no checksums")]
    NoChecksums(Block),
    #[error("replica of {block} is corrupt at {offset}: {reason}")]
    Corrupt { block: Block, offset: u64, reason: String },
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// An open replica, as much of it as there was when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub block: Block,
    pub state: ReplicaState,
    pub volume: VolumeRef,
    pub checksum: Checksum,
    /// Bytes that can be read.
    pub length: u64,
    /// Of those, bytes that the whole pipeline acknowledged.
    pub visible: u64,
    data: FileRef,
    meta: Option<FileRef>,
    last_sum: Option<u32>,
    /// The open replica that it is a view of.
    growing: Option<Arc<Growing>>,
}

/// Buffers for one read, used again and again.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub data: Vec<u8>,
    /// How much of `data` was read.
    pub length: usize,
    /// The checksums; what was in it before stays in front.
    pub front: BytesMut,
}

impl Source {
    /// Opens the replica of `block` in a state that may be read; an open one, once it has `end` bytes
    /// or has not grown to that within the limit.
    pub(crate) async fn open(node: &Node, block: &Block, end: u64) -> Result<Source, SourceError> {
        wait_for_growth(node, block.id, end).await;
        let mut tries = 0;
        loop {
            let source = Source::open_once(node, block).await?;
            // A final one that was opened for an append meanwhile may have got another last checksum before ours
            // was read. An open one brings it along.
            tries += 1;
            if source.growing.is_some() || tries >= OPEN_TRIES || node.store.holds(&source.block) {
                return Ok(source);
            }
        }
    }

    async fn open_once(node: &Node, block: &Block) -> Result<Source, SourceError> {
        let found = node.store.open_to_read(block.id).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::Missing(block.id),
            _ => SourceError::Disk(error),
        })?;
        if found.block.stamp < block.stamp {
            let (have, wanted) = (found.block.stamp, block.stamp);
            return Err(SourceError::Stale { block: block.id, have, wanted });
        }
        if matches!(found.state, ReplicaState::Rwr | ReplicaState::Temporary | ReplicaState::Rur) {
            return Err(SourceError::State { block: block.id, state: found.state });
        }
        let length = found.block.length;
        let final_length = found.open.is_none().then_some(length);
        let (data, header_of) = (found.data.clone(), found.meta.clone());
        let header = found.volume.pool.run(move || {
            let sums = header_of.map(|meta| read_header(&meta, final_length)).transpose()?;
            Ok::<_, io::Error>((sums, data.length()?))
        });
        let corrupt = |reason: String| {
            node.store.mark_bad(&found.block, &found.volume);
            SourceError::Corrupt { block: found.block, offset: 0, reason }
        };
        let (header, on_disk) = header.await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupt("its checksums are cut short".into()),
            io::ErrorKind::InvalidData => corrupt(error.to_string()),
            _ => SourceError::Disk(error),
        })?;
        let plain =
            || Checksum::new(ChecksumKind::Null, PLAIN_CHUNK).expect("a chunk of 512 bytes is in range");
        let (checksum, stored_last) = header.unwrap_or_else(|| (plain(), None));
        let (progress, growing) = match found.open {
            Some((progress, growing)) => (progress, Some(growing)),
            None => (Progress { on_disk: length, last_sum: stored_last, acked: length }, None),
        };
        let Progress { on_disk: grown, last_sum, acked } = progress;
        if on_disk < grown {
            return Err(corrupt(format!("{on_disk} of {grown} bytes are there")));
        }
        Ok(Source {
            block: found.block,
            state: found.state,
            volume: found.volume,
            checksum,
            length: grown,
            visible: acked,
            data: found.data,
            meta: found.meta,
            last_sum,
            growing,
        })
    }

    /// Reports it as bad, unless it was cut or replaced since it was opened.
    fn mark_bad(&self, node: &Node) {
        let is_it = match &self.growing {
            Some(growing) => !growing.is_cancelled(),
            None => node.store.holds(&self.block),
        };
        if is_it {
            node.store.mark_bad(&self.block, &self.volume);
        }
    }

    /// Whether it has checksums.
    pub(crate) fn has_sums(&self) -> bool {
        self.meta.is_some() && self.checksum.kind() != ChecksumKind::Null
    }

    /// The replica's meta file, if it has one.
    pub(crate) fn meta(&self) -> Option<&FileRef> {
        self.meta.as_ref()
    }

    /// Where a read of these bytes begins and ends on chunks' borders, or at the end.
    pub(crate) fn span(&self, offset: u64, length: u64) -> Result<(u64, u64), SourceError> {
        let end = offset.saturating_add(length);
        if end > self.length {
            return Err(SourceError::Range { block: self.block.id, offset, end, length: self.length });
        }
        let chunk = u64::from(self.checksum.bytes_per_chunk());
        let up = end.div_ceil(chunk).saturating_mul(chunk);
        Ok((self.checksum.chunk_start(offset), up.min(self.length)))
    }

    /// Has the disk begin with bytes that will be read soon.
    fn prepare(&self, (from, to): (u64, u64)) {
        if from < to {
            self.data.will_read(from, to - from);
        }
    }

    /// Reads `length` bytes at `at`, which is a chunk's border, and their checksums; both end at a
    /// border or at the end. Verified if `verify`. `ahead` will be wanted soon after.
    pub(crate) async fn load(
        &self,
        node: &Node,
        at: u64,
        length: usize,
        mut load: Load,
        (ahead, verify): ((u64, u64), Verify),
    ) -> Result<Load, SourceError> {
        let of = self.clone();
        let result = self.volume.pool.run(move || {
            of.prepare(ahead);
            of.load_patiently(at, length, &mut load, verify).map(|()| load)
        });
        match result.await {
            Ok(load) => Ok(load),
            Err(SourceError::Disk(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.mark_bad(node);
                let reason = "its files are too short".to_owned();
                Err(SourceError::Corrupt { block: self.block, offset: at, reason })
            }
            Err(error) => {
                match &error {
                    SourceError::Disk(error) => {
                        // A sector that cannot be read is this replica's end, not always the disk's.
                        if !is_shortage(error) {
                            self.mark_bad(node);
                        }
                        node.store.examine(&self.volume, error).await;
                    }
                    _ => self.mark_bad(node),
                }
                Err(error)
            }
        }
    }

    /// Tries once more what the disk could not read: a controller fails for a moment, a sector for good. The
    /// NameNode believes a bad replica to be bad until it is replaced, and it may be the last one.
    fn load_patiently(
        &self,
        at: u64,
        length: usize,
        load: &mut Load,
        verify: Verify,
    ) -> Result<(), SourceError> {
        let front = load.front.len();
        match self.load_now(at, length, load, (ReadFrom::Disk, verify)) {
            Err(SourceError::Disk(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                tracing::warn!(block = %self.block, at, %error, "cannot be read: tried once more");
                load.front.truncate(front);
                self.load_now(at, length, load, (ReadFrom::Disk, verify))
            }
            done => done,
        }
    }

    /// As [`Source::load`], at once and on this thread: `false`, and `load` as it was, unless all of it is in
    /// memory and in order. What is wrong with it is for [`Source::load`] to find.
    pub(crate) fn load_cached(&self, at: u64, length: usize, load: &mut Load, verify: Verify) -> bool {
        let front = load.front.len();
        let loaded = self.load_now(at, length, load, (ReadFrom::Memory, verify)).is_ok();
        if !loaded {
            load.front.truncate(front);
        }
        loaded
    }

    fn load_now(
        &self,
        at: u64,
        length: usize,
        load: &mut Load,
        (from, verify): (ReadFrom, Verify),
    ) -> Result<(), SourceError> {
        if load.data.len() < length {
            load.data.resize(length, 0);
        }
        load.length = length;
        let data = &mut load.data[..length];
        from.read(&self.data, data, at)?;
        let Some(meta) = self.meta.as_ref().filter(|_| self.has_sums()) else { return Ok(()) };
        let sums_length = self.checksum.sums_length(length as u64) as usize;
        let front = load.front.len();
        load.front.put_bytes(0, sums_length);
        let sums = &mut load.front[front..];
        let index = at / u64::from(self.checksum.bytes_per_chunk());
        let sums_at = META_HEADER_LENGTH as u64 + index * SUM_LENGTH as u64;
        let ends = at + length as u64 == self.length;
        match (self.last_sum.filter(|_| ends), sums_length) {
            (Some(last), 1..) => {
                // The last chunk may have grown since: its checksum is the one that was taken with the length.
                let (whole, part) = sums.split_at_mut(sums_length - SUM_LENGTH);
                from.read(meta, whole, sums_at)?;
                part.copy_from_slice(&last.to_be_bytes());
            }
            _ => from.read(meta, sums, sums_at)?,
        }
        if verify == Verify::Yes {
            self.checksum.verify(data, sums).map_err(|mismatch| SourceError::Corrupt {
                block: self.block,
                offset: at + mismatch.chunk as u64 * u64::from(self.checksum.bytes_per_chunk()),
                reason: mismatch.to_string(),
            })?;
        }
        Ok(())
    }
}

/// Where bytes are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadFrom {
    /// Wherever they are; the thread may wait.
    Disk,
    /// The system's memory, or `WouldBlock`.
    Memory,
}

impl ReadFrom {
    fn read(self, file: &FileRef, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            ReadFrom::Disk => file.read_exact_at(buffer, offset),
            ReadFrom::Memory if file.read_cached_at(buffer, offset) == buffer.len() => Ok(()),
            ReadFrom::Memory => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Whether bytes are compared with their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    Yes,
    No,
}

/// What kind of checksums a meta file holds, and that of the last chunk of a final replica if that chunk is not
/// full: an append will overwrite it.
fn read_header(meta: &FileRef, final_length: Option<u64>) -> io::Result<(Checksum, Option<u32>)> {
    let mut header = [0; META_HEADER_LENGTH];
    meta.read_exact_at(&mut header, 0)?;
    let checksum =
        meta::decode(&header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let Some(length) = final_length.filter(|_| checksum.kind() != ChecksumKind::Null) else {
        return Ok((checksum, None));
    };
    if length.is_multiple_of(checksum.bytes_per_chunk().into()) {
        return Ok((checksum, None));
    }
    let mut sum = [0; SUM_LENGTH];
    meta.read_exact_at(&mut sum, meta::file_length(checksum, length) - SUM_LENGTH as u64)?;
    Ok((checksum, Some(u32::from_be_bytes(sum))))
}

async fn wait_for_growth(node: &Node, id: BlockId, end: u64) {
    let grown = async {
        // A writer that was replaced by another one leaves the replica to it.
        while let Some(Replica::Open(growing)) = node.store.get(id) {
            let moved = growing.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if growing.progress().on_disk >= end {
                return;
            }
            moved.await;
        }
    };
    // Too late is found by the check of the range.
    let _ = timeout(GROWTH_LIMIT, grown).await;
}
