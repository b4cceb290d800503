//! Reading a file: the replicas of each block are tried in the NameNode's order, and a bad, slow or
//! missing one costs a try, not the read.
//!
//! Invariant: bytes that are handed out were verified, and came from a replica of the block that the
//! NameNode named for their place in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_proto::hdfs;
use mobula_wire::remote::{RemoteException, class};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Shared;
use crate::error::ClientError;
use crate::stream::{Patience, Range, ReadFault, ReplicaStream};
use crate::visible;

/// Locations are asked for so many bytes of the file at a time.
const LOCATE_BYTES: u64 = 1 << 30;
/// How patient to be with a replica while there are others, and with the last one.
const PATIENCE_FIRST: Patience = Patience { connect: Duration::from_secs(2), stall: Duration::from_secs(5) };
const PATIENCE_LAST: Patience = Patience { connect: Duration::from_secs(20), stall: Duration::from_secs(60) };
/// How often all replicas may fail at one place before the reader gives up (HDFS: 3), and the pause
/// before the NameNode is asked for others, which doubles (HDFS: 3 s and more each time).
const ROUNDS_MAX: u32 = 4;
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// The NameNode knows no replica of an open block: how long it is asked again, and how often (HDFS: 3
/// times, 4 s apart).
const NO_LOCATIONS_LIMIT: Duration = Duration::from_secs(12);
const NO_LOCATIONS_PAUSE: Duration = Duration::from_millis(500);
/// The next block is asked for when less than this is left of the one before.
const AHEAD_BYTES: u64 = 2 << 20;

/// An open file to read from; many reads at once are fine.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<OpenFile>,
    cursor: Cursor,
}

/// What all reads of an open file share.
#[derive(Debug)]
struct OpenFile {
    client: Arc<Shared>,
    path: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    length: u64,
    /// By offset in the file.
    blocks: BTreeMap<u64, Arc<hdfs::LocatedBlockProto>>,
    /// DataNodes (uuid) that did not answer; cleared when locations are asked for again.
    dead: BTreeSet<String>,
    /// Replicas (block, uuid) with a wrong checksum.
    corrupt: BTreeSet<(u64, String)>,
    /// Those of them that the NameNode has not heard of, by block.
    unreported: BTreeMap<u64, Vec<hdfs::LocatedBlockProto>>,
}

/// A place in the file, and the read that is under way there.
#[derive(Debug)]
struct Cursor {
    position: u64,
    end: u64,
    running: Option<Running>,
    ahead: Option<Ahead>,
    /// Where the last failure was, and how often all replicas failed there.
    failed_at: u64,
    rounds: u32,
}

#[derive(Debug)]
struct Running {
    stream: ReplicaStream,
    block: Arc<hdfs::LocatedBlockProto>,
    node: usize,
}

/// The next block's read, opened before it is needed.
#[derive(Debug)]
struct Ahead {
    position: u64,
    task: JoinHandle<Option<Running>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cursor {
    fn new(position: u64, end: u64) -> Cursor {
        Cursor { position, end, running: None, ahead: None, failed_at: 0, rounds: 0 }
    }
}

impl FileReader {
    pub(crate) async fn open(client: Arc<Shared>, path: &str) -> Result<FileReader, ClientError> {
        let (length, blocks) = look(&client, path, 0).await?;
        let state = Mutex::new(State { length, blocks, ..State::default() });
        let file = OpenFile { client, path: path.into(), state };
        Ok(FileReader { file: Arc::new(file), cursor: Cursor::new(0, length) })
    }

    /// Its length in bytes, the visible part of an open last block included, as it was when the file was
    /// opened or looked at again.
    pub fn length(&self) -> u64 {
        self.file.state.lock().length
    }

    /// Looks again how long the file is, and answers that: a writer may have flushed more since.
    ///
    /// # Errors
    /// The NameNode's exceptions; `FileNotFoundException` if the file is gone.
    pub async fn refresh(&mut self) -> Result<u64, ClientError> {
        let from = self.file.state.lock().blocks.last_key_value().map_or(0, |(offset, _)| *offset);
        let (length, blocks) = look(&self.file.client, &self.file.path, from).await?;
        {
            let mut state = self.file.state.lock();
            if length > from && !state.agrees(&blocks) {
                return Err(self.file.replaced());
            }
            state.length = length;
            state.dead.clear();
            state.blocks.split_off(&from);
            state.blocks.extend(blocks);
            state.blocks.split_off(&length);
        }
        if length < self.cursor.position {
            // It was cut under us.
            self.cursor = Cursor::new(length, length);
        }
        self.cursor.end = length;
        Ok(length)
    }

    /// The stream's position.
    pub fn position(&self) -> u64 {
        self.cursor.position
    }

    /// Reads `length` bytes at `offset`, fewer at the end of the file.
    ///
    /// # Errors
    /// No replica of a block could be read.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, ClientError> {
        let end = self.length().min(offset.saturating_add(length as u64));
        let mut cursor = Cursor::new(offset.min(end), end);
        let Some(first) = self.file.next(&mut cursor).await? else { return Ok(Bytes::new()) };
        if cursor.position == end {
            self.file.finish(&mut cursor).await;
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity((end - offset) as usize);
        all.extend_from_slice(&first);
        drop(first);
        while let Some(piece) = self.file.next(&mut cursor).await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The next piece from the stream's position, in whatever size arrives; `None` at the end. The
    /// stream keeps its connection and reads ahead.
    ///
    /// # Errors
    /// No replica of a block could be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.file.next(&mut self.cursor).await
    }

    /// Moves the stream's position.
    pub fn seek(&mut self, offset: u64) {
        if offset != self.cursor.position {
            let length = self.length();
            self.cursor = Cursor::new(offset.min(length), length);
        }
    }
}

impl OpenFile {
    /// The next piece at the cursor, from whichever replica has it.
    async fn next(self: &Arc<Self>, cursor: &mut Cursor) -> Result<Option<Bytes>, ClientError> {
        loop {
            if cursor.position >= cursor.end {
                self.finish(cursor).await;
                return Ok(None);
            }
            if cursor.running.is_none() {
                cursor.running = Some(self.start(cursor).await?);
            }
            let Some(running) = &mut cursor.running else { continue };
            match running.stream.next().await {
                Ok(Some(piece)) => {
                    cursor.position += piece.len() as u64;
                    let (block, left) = (running.block.clone(), running.stream.left());
                    self.tell_of_corrupt(&block).await;
                    self.look_ahead(cursor, &block, left);
                    return Ok(Some(piece));
                }
                Ok(None) => self.finish(cursor).await,
                Err(fault) => {
                    let (block, node) = (running.block.clone(), running.node);
                    cursor.running = None;
                    self.blame(&block, node, &fault).await;
                }
            }
        }
    }

    /// Ends the running read, whose bytes were all handed out.
    async fn finish(&self, cursor: &mut Cursor) {
        if let Some(running) = cursor.running.take()
            && running.stream.left() == 0
        {
            running.stream.finish(&self.client).await;
        }
    }

    /// Opens the read of the block at the cursor, unless it was opened ahead.
    async fn start(self: &Arc<Self>, cursor: &mut Cursor) -> Result<Running, ClientError> {
        if let Some(mut ahead) = cursor.ahead.take()
            && ahead.position == cursor.position
            && let Ok(Some(running)) = (&mut ahead.task).await
        {
            return Ok(running);
        }
        if cursor.failed_at != cursor.position {
            (cursor.failed_at, cursor.rounds) = (cursor.position, 0);
        }
        loop {
            let block = self.block_at(cursor.position).await?;
            if let Some(running) = self.try_replicas(&block, cursor.position, cursor.end).await {
                return Ok(running);
            }
            cursor.rounds += 1;
            if cursor.rounds >= ROUNDS_MAX {
                return Err(ClientError::DataNodes(format!(
                    "Could not obtain block: {}:blk_{}_{} file={}: none of its {} replicas could be read",
                    block.b.pool_id,
                    block.b.block_id,
                    block.b.generation_stamp,
                    self.path,
                    block.locs.len()
                )));
            }
            tokio::time::sleep(ROUND_PAUSE * 2_u32.pow(cursor.rounds - 1)).await;
            self.locate_again(cursor.position).await?;
        }
    }

    /// A read from the first replica that answers.
    async fn try_replicas(
        &self,
        block: &Arc<hdfs::LocatedBlockProto>,
        position: u64,
        end: u64,
    ) -> Option<Running> {
        let range = Range {
            block: block.b.clone(),
            token: block.block_token.clone(),
            start: position - block.offset,
            end: length_of(block).min(end - block.offset),
        };
        loop {
            let candidates = self.candidates(block);
            let node = *candidates.first()?;
            let patience = if candidates.len() > 1 { PATIENCE_FIRST } else { PATIENCE_LAST };
            match ReplicaStream::open(&self.client, &block.locs[node], &range, patience).await {
                Ok(stream) => return Some(Running { stream, block: block.clone(), node }),
                Err(fault) => self.blame(block, node, &fault).await,
            }
        }
    }

    /// Indices of the replicas that nothing is held against.
    fn candidates(&self, block: &hdfs::LocatedBlockProto) -> Vec<usize> {
        let state = self.state.lock();
        let fine = |uuid: &String| {
            !state.dead.contains(uuid) && !state.corrupt.contains(&(block.b.block_id, uuid.clone()))
        };
        let nodes = block.locs.iter().enumerate();
        nodes.filter(|(_, node)| fine(&node.id.datanode_uuid)).map(|(index, _)| index).collect()
    }

    async fn blame(&self, block: &Arc<hdfs::LocatedBlockProto>, node: usize, fault: &ReadFault) {
        let uuid = block.locs[node].id.datanode_uuid.clone();
        tracing::warn!(path = self.path, block = block.b.block_id, node = uuid, %fault, "a replica failed");
        {
            let mut state = self.state.lock();
            match fault {
                ReadFault::Corrupt(_) => {
                    state.corrupt.insert((block.b.block_id, uuid));
                    state.unreported.entry(block.b.block_id).or_default().push(only(block, node));
                }
                ReadFault::Lost(_) | ReadFault::Refused(_) => {
                    state.dead.insert(uuid);
                }
            }
        }
        // Of several replicas, one is reported when another was good: if all seem bad, it may be us.
        if block.locs.len() == 1 {
            self.tell_of_corrupt(block).await;
        }
    }

    /// Reports the corrupt replicas of `block`, of which one was read well just now or is the only one.
    async fn tell_of_corrupt(&self, block: &hdfs::LocatedBlockProto) {
        let Some(blocks) = self.state.lock().unreported.remove(&block.b.block_id) else { return };
        let request = hdfs::ReportBadBlocksRequestProto { blocks };
        if let Err(error) = self.client.namenode.report_bad_blocks(request).await {
            tracing::warn!(path = self.path, %error, "a corrupt replica was not reported");
        }
    }

    /// Opens the next block's read while the end of this one is still under way.
    fn look_ahead(self: &Arc<Self>, cursor: &mut Cursor, block: &hdfs::LocatedBlockProto, left: u64) {
        let position = block.offset + length_of(block);
        if left > AHEAD_BYTES || position >= cursor.end || cursor.ahead.is_some() {
            return;
        }
        let (file, end) = (self.clone(), cursor.end);
        let task = tokio::spawn(async move {
            let block = file.block_at(position).await.ok()?;
            file.try_replicas(&block, position, end).await
        });
        cursor.ahead = Some(Ahead { position, task });
    }

    fn replaced(&self) -> ClientError {
        let path = &self.path;
        ClientError::DataNodes(format!(
            "Blocklist for {path} has changed: it was replaced or cut while it was read"
        ))
    }

    /// The block that holds the byte at `position`, which is before the file's end.
    async fn block_at(&self, position: u64) -> Result<Arc<hdfs::LocatedBlockProto>, ClientError> {
        if let Some(block) = self.known_block_at(position) {
            return Ok(block);
        }
        self.locate_again(position).await?;
        self.known_block_at(position).ok_or_else(|| {
            ClientError::DataNodes(format!(
                "the NameNode names no block of {} at {position}: was it cut?",
                self.path
            ))
        })
    }

    fn known_block_at(&self, position: u64) -> Option<Arc<hdfs::LocatedBlockProto>> {
        let state = self.state.lock();
        let (_, block) = state.blocks.range(..=position).next_back()?;
        (position < block.offset + length_of(block)).then(|| block.clone())
    }

    /// Asks the NameNode for the locations around `position`, and gives nodes that failed a new chance. Where a block is
    /// known that is near, the answer has it too, and shows by it whether it is still the same file
    /// (HDFS: `DFSInputStream.fetchAndCheckLocatedBlocks`).
    async fn locate_again(&self, position: u64) -> Result<(), ClientError> {
        let (known, from) = self.state.lock().known_near(position).unzip();
        let located = locate(&self.client, &self.path, from.unwrap_or(position)).await?;
        // Of an open block the NameNode does not know the visible length: it is what it was when we looked.
        let open = (!located.is_last_block_complete).then_some(located.last_block.as_ref()).flatten();
        let open = open.map(|block| block.b.block_id);
        let mut blocks = by_offset(located.blocks);
        // Apache's NameNode names a last block that is open only there.
        if let Some(last) = located.last_block.filter(|_| !located.is_last_block_complete) {
            blocks.entry(last.offset).or_insert_with(|| Arc::new(last));
        }
        let mut state = self.state.lock();
        if !state.agrees(&blocks) || known.is_some_and(|offset| !blocks.contains_key(&offset)) {
            return Err(self.replaced());
        }
        state.dead.clear();
        for (offset, block) in blocks {
            let old = state.blocks.get(&offset).map(|old| (old.b.block_id, length_of(old)));
            match old {
                Some((id, length)) if Some(id) == open && length > length_of(&block) => {
                    let mut block = (*block).clone();
                    block.b.num_bytes = Some(length);
                    state.blocks.insert(offset, Arc::new(block));
                }
                _ => {
                    state.blocks.insert(offset, block);
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// The last known block at or before `position`, by its offset, and a byte of it from which on an answer reaches over
    /// `position`, too; none if there is no such byte.
    fn known_near(&self, position: u64) -> Option<(u64, u64)> {
        let (offset, block) = self.blocks.range(..=position).rev().find(|(_, block)| length_of(block) > 0)?;
        let from = position.min(offset + length_of(block).saturating_sub(1));
        (position - from < LOCATE_BYTES / 2).then_some((*offset, from))
    }

    /// Whether these are blocks of the file that was opened, as far as that can be seen: at the same place the same block.
    /// One that has no byte yet may be given up for another.
    fn agrees(&self, blocks: &BTreeMap<u64, Arc<hdfs::LocatedBlockProto>>) -> bool {
        blocks.iter().all(|(offset, block)| {
            let same = |known: &hdfs::LocatedBlockProto| known.b.block_id == block.b.block_id;
            self.blocks.get(offset).is_none_or(|known| length_of(known) == 0 || same(known))
        })
    }
}

/// `block` with none but its replica number `node`.
fn only(block: &hdfs::LocatedBlockProto, node: usize) -> hdfs::LocatedBlockProto {
    hdfs::LocatedBlockProto {
        locs: vec![block.locs[node].clone()],
        storage_types: block.storage_types.get(node).copied().into_iter().collect(),
        storage_i_ds: block.storage_i_ds.get(node).cloned().into_iter().collect(),
        is_cached: block.is_cached.get(node).copied().into_iter().collect(),
        ..block.clone()
    }
}

fn length_of(block: &hdfs::LocatedBlockProto) -> u64 {
    block.b.num_bytes.unwrap_or(0)
}

fn by_offset(blocks: Vec<hdfs::LocatedBlockProto>) -> BTreeMap<u64, Arc<hdfs::LocatedBlockProto>> {
    blocks.into_iter().map(|block| (block.offset, Arc::new(block))).collect()
}

/// The length of the file, and its blocks from the one at `offset` on, the visible part of an open one
/// included.
async fn look(
    client: &Shared,
    path: &str,
    offset: u64,
) -> Result<(u64, BTreeMap<u64, Arc<hdfs::LocatedBlockProto>>), ClientError> {
    let started = Instant::now();
    loop {
        let located = locate(client, path, offset).await?;
        let mut length = located.file_length;
        let mut blocks = by_offset(located.blocks);
        if !located.under_construction || located.is_last_block_complete {
            return Ok((length, blocks));
        }
        let Some(mut last) = located.last_block else { return Ok((length, blocks)) };
        if last.locs.is_empty() {
            // The NameNode was started again, and has not heard of the replicas yet.
            if started.elapsed() >= NO_LOCATIONS_LIMIT {
                let text = format!("Cannot obtain block length for blk_{}: no locations", last.b.block_id);
                return Err(ClientError::DataNodes(text));
            }
            tokio::time::sleep(NO_LOCATIONS_PAUSE).await;
            continue;
        }
        let visible = visible::length_of(client, &last).await?;
        last.b.num_bytes = Some(visible);
        length += visible;
        blocks.insert(last.offset, Arc::new(last));
        return Ok((length, blocks));
    }
}

/// The blocks of the file from `offset` on, and the last one.
pub(crate) async fn locate(
    client: &Shared,
    path: &str,
    offset: u64,
) -> Result<hdfs::LocatedBlocksProto, ClientError> {
    let request = hdfs::GetBlockLocationsRequestProto { src: path.into(), offset, length: LOCATE_BYTES };
    match client.namenode.get_block_locations(request).await?.locations {
        Some(located) => Ok(located),
        None => {
            let gone = format!("File does not exist: {path}");
            Err(RemoteException::new(class::FILE_NOT_FOUND, gone).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locations are asked for by the piece: from a block that is known, if that is near, else from the position alone.
    #[test]
    fn where_locations_are_asked_from() {
        let block = |offset: u64, length: u64| {
            let b = hdfs::ExtendedBlockProto { num_bytes: Some(length), ..Default::default() };
            (offset, Arc::new(hdfs::LocatedBlockProto { b, offset, ..Default::default() }))
        };
        const GIB: u64 = 1 << 30;
        let state = |blocks: &[(u64, u64)]| State {
            blocks: blocks.iter().map(|(offset, length)| block(*offset, *length)).collect(),
            ..State::default()
        };
        let small = state(&[(0, GIB / 2), (GIB / 2, GIB / 2)]);
        assert_eq!(small.known_near(7), Some((0, 7)), "within a block");
        assert_eq!(small.known_near(GIB), Some((GIB / 2, GIB - 1)), "just behind it");
        assert_eq!(small.known_near(5 * GIB), None, "far behind it");
        assert_eq!(state(&[(0, 4 * GIB)]).known_near(4 * GIB), Some((0, 4 * GIB - 1)), "behind a long block");
        assert_eq!(state(&[(0, 0)]).known_near(0), None, "one that was just begun may be given up");
        assert_eq!(state(&[(0, 9), (9, 0)]).known_near(9), Some((0, 8)));
        assert_eq!(state(&[]).known_near(3), None);
    }
}
