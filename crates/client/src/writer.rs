//! Writing a file: bytes are cut into packets, packets go down a pipeline, blocks follow each other.
//!
//! The packets of the block in hand are kept until the block is closed, so that it can be written
//! again elsewhere when a node of its pipeline dies. They share the caller's buffers: an open file
//! holds references to at most one block's worth of them (`dfs.blocksize`), and copies only what was
//! written in small pieces. Next on the walk: the NameNode's `client_rpc`, which hands out blocks.
//!
//! Invariant: `held` are the packets of the block in hand, from its first byte, without a gap;
//! `tail` are the bytes after them. What is acknowledged lies on every node of the pipeline.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_proto::hdfs;
use mobula_wire::checksum::{BYTES_PER_CHUNK_DEFAULT, Checksum, SUM_LENGTH};
use mobula_wire::remote::class;
use tokio::time::Instant;

use crate::client::Shared;
use crate::error::ClientError;
use crate::lease::Lease;
use crate::pipeline::{Fault, Packet, Pipeline};

/// Data bytes of a packet: HDFS's 126 chunks are the least that pays.
const PACKET_BYTES: usize = 126 * CHUNK_BYTES;
/// What one checksum covers (`dfs.bytes-per-checksum`).
const CHUNK_BYTES: usize = BYTES_PER_CHUNK_DEFAULT as usize;
/// Shorter writes than this are copied together.
const COPY_BYTES_MAX: usize = 16 << 10;
/// How often one block is begun before the writer gives up (HDFS: 1 + 3 retries).
const BLOCK_TRIES_MAX: u32 = 6;
/// How long a node that failed is not asked for (HDFS: 10 minutes).
const EXCLUDE_FOR: Duration = Duration::from_secs(600);
/// Waiting for the NameNode to hear of the replicas: the first pause, doubling, and in all (HDFS
/// begins at 400 ms and gives up after 12 s).
const SETTLE_PAUSE_FIRST: Duration = Duration::from_millis(2);
const SETTLE_PAUSE_MAX: Duration = Duration::from_millis(400);
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Pause before nodes that failed are asked again, because there are no others.
const NO_NODES_PAUSE: Duration = Duration::from_millis(500);

/// A file being written. Dropped without `close`, it stays open on the server until its lease ends.
///
/// A `write`, `hflush` or `hsync` that is dropped half-way makes the block in hand start again.
#[derive(Debug)]
pub struct FileWriter {
    client: Arc<Shared>,
    path: String,
    file_id: Option<u64>,
    block_size: u64,
    /// The block before the one in hand, with its length.
    previous: Option<hdfs::ExtendedBlockProto>,
    pipeline: Option<Pipeline>,
    held: Vec<Packet>,
    /// How many of `held` this pipeline was sent.
    sent: usize,
    /// A send began and did not end.
    sending: bool,
    /// Where `tail` begins in the block in hand: a chunk's start.
    tail_start: u64,
    tail: BytesMut,
    /// Bytes of `tail` that are in `held` already: a partial chunk that was flushed.
    tail_held: usize,
    /// Bytes in blocks that are done.
    finished: u64,
    excluded: Vec<(hdfs::DatanodeInfoProto, Instant)>,
    tries: u32,
    /// The NameNode was told of this block by fsync.
    told: bool,
    failed: Option<String>,
    _lease: Lease,
}

/// How far the block in hand must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// All packets were sent.
    Sent,
    /// All packets were acknowledged.
    Acknowledged,
}

impl FileWriter {
    pub(crate) fn new(
        client: Arc<Shared>,
        path: String,
        status: &hdfs::HdfsFileStatusProto,
        block_size: u64,
        lease: Lease,
    ) -> FileWriter {
        FileWriter {
            client,
            path,
            file_id: status.file_id,
            block_size: status.blocksize.filter(|size| *size > 0).unwrap_or(block_size),
            previous: None,
            pipeline: None,
            held: Vec::new(),
            sent: 0,
            sending: false,
            tail_start: 0,
            tail: BytesMut::new(),
            tail_held: 0,
            finished: 0,
            excluded: Vec::new(),
            tries: 0,
            told: false,
            failed: None,
            _lease: lease,
        }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.finished + self.block_length()
    }

    /// Takes `data`, without a copy where it can; waits while the window of packets is full.
    ///
    /// # Errors
    /// The NameNode's exceptions, or no DataNode left that takes the block.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), ClientError> {
        self.check_usable()?;
        while !data.is_empty() {
            let room = self.block_size - self.block_length();
            let part = data.split_to(data.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.cut(part);
            if self.block_length() == self.block_size {
                self.finish_block().await?;
            } else if self.sent < self.held.len() {
                self.settle(Goal::Sent).await?;
            }
        }
        Ok(())
    }

    /// Waits until all that was written is visible to new readers.
    ///
    /// # Errors
    /// As `write`.
    pub async fn hflush(&mut self) -> Result<(), ClientError> {
        self.flush(false).await
    }

    /// Waits until all that was written survives power loss.
    ///
    /// # Errors
    /// As `write`.
    pub async fn hsync(&mut self) -> Result<(), ClientError> {
        self.flush(true).await
    }

    /// Completes the file; when this returns it is durable.
    ///
    /// # Errors
    /// As `write`.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.check_usable()?;
        if self.block_length() > 0 {
            self.finish_block().await?;
        }
        self.complete().await
    }

    fn check_usable(&self) -> Result<(), ClientError> {
        match &self.failed {
            Some(reason) => Err(ClientError::DataNodes(format!("{} failed before: {reason}", self.path))),
            None => Ok(()),
        }
    }

    fn block_length(&self) -> u64 {
        self.tail_start + self.tail.len() as u64
    }

    /// Cuts `data`, which fits into the block, into packets; what ends in the middle of a chunk, and
    /// what came in small pieces, stays in `tail`.
    fn cut(&mut self, mut data: Bytes) {
        if data.len() < COPY_BYTES_MAX {
            self.tail.extend_from_slice(&data);
            if self.tail.len() >= PACKET_BYTES {
                let whole = self.tail.len() - self.tail.len() % CHUNK_BYTES;
                self.hold_tail(whole);
            }
            return;
        }
        let missing = (CHUNK_BYTES - self.tail.len() % CHUNK_BYTES) % CHUNK_BYTES;
        self.tail.extend_from_slice(&data.split_to(missing));
        self.hold_tail(self.tail.len());
        while data.len() >= CHUNK_BYTES {
            let length = data.len().min(PACKET_BYTES);
            self.hold(data.split_to(length - length % CHUNK_BYTES));
        }
        self.tail.extend_from_slice(&data);
    }

    /// The first `length` bytes of the tail, whole chunks, become packets.
    fn hold_tail(&mut self, length: usize) {
        let mut data = self.tail.split_to(length).freeze();
        while !data.is_empty() {
            self.hold(data.split_to(data.len().min(PACKET_BYTES)));
        }
    }

    fn hold(&mut self, data: Bytes) {
        // A partial chunk that was flushed is sent again from its start, and replaces what was held of it.
        if self.tail_held > 0 {
            self.drop_partial_chunk();
        }
        let packet = Packet { offset: self.tail_start, sums: sums_of(&data), last: false, sync: false, data };
        self.tail_start += packet.data.len() as u64;
        self.held.push(packet);
    }

    /// Takes the flushed partial chunk at the end off the packets held: the tail has it, too.
    fn drop_partial_chunk(&mut self) {
        self.tail_held = 0;
        let Some(packet) = self.held.last_mut() else { return };
        let whole = packet.data.len() - packet.data.len() % CHUNK_BYTES;
        packet.data.truncate(whole);
        packet.sums.truncate(whole / CHUNK_BYTES * SUM_LENGTH);
        if whole == 0 {
            self.held.pop();
            self.sent = self.sent.min(self.held.len());
        }
    }

    /// Everything written becomes packets; the partial chunk at the end also stays in the tail.
    fn hold_everything(&mut self) {
        let whole = self.tail.len() - self.tail.len() % CHUNK_BYTES;
        if whole > 0 {
            self.hold_tail(whole);
        }
        if self.tail.len() > self.tail_held {
            if self.tail_held > 0 {
                self.drop_partial_chunk();
            }
            let data = Bytes::copy_from_slice(&self.tail);
            let sums = sums_of(&data);
            self.held.push(Packet { offset: self.tail_start, data, sums, last: false, sync: false });
            self.tail_held = self.tail.len();
        }
    }

    async fn flush(&mut self, sync: bool) -> Result<(), ClientError> {
        self.check_usable()?;
        if self.block_length() == 0 {
            // Blocks that are done are synced, and known to the NameNode.
            return Ok(());
        }
        self.hold_everything();
        if sync {
            // An empty packet carries the wish, so that packets sent before need not be sent again.
            let offset = self.block_length();
            self.held.push(Packet::empty(offset, false));
        }
        let settled = self.settle(Goal::Acknowledged).await;
        if sync {
            self.held.pop();
            self.sent = self.sent.min(self.held.len());
        }
        settled?;
        if !self.told {
            self.tell_namenode().await?;
        }
        Ok(())
    }

    /// Makes the NameNode keep the block for this open file, come what may (once a block).
    async fn tell_namenode(&mut self) -> Result<(), ClientError> {
        let request = hdfs::FsyncRequestProto {
            src: self.path.clone(),
            client: self.client.name.clone(),
            last_block_length: Some(self.block_length() as i64),
            file_id: self.file_id,
        };
        self.client.namenode.fsync(request).await?;
        self.told = true;
        Ok(())
    }

    /// Ends the block in hand; when this returns its replicas are on disk.
    async fn finish_block(&mut self) -> Result<(), ClientError> {
        self.hold_everything();
        let length = self.block_length();
        // There is one already if a write was dropped while it waited for this.
        if !self.held.last().is_some_and(|packet| packet.last) {
            self.held.push(Packet::empty(length, true));
        }
        self.settle(Goal::Acknowledged).await?;
        let pipeline = self.pipeline.take().expect("settled: there is a pipeline");
        let mut block = pipeline.located.b.clone();
        block.num_bytes = Some(length);
        self.previous = Some(block);
        self.finished += length;
        self.held.clear();
        self.sent = 0;
        self.tail.clear();
        self.tail_start = 0;
        self.tail_held = 0;
        self.tries = 0;
        self.told = false;
        Ok(())
    }

    /// Brings the block in hand to `goal`, beginning it again elsewhere as often as that may help.
    async fn settle(&mut self, goal: Goal) -> Result<(), ClientError> {
        let result = self.try_settle(goal).await;
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        result
    }

    async fn try_settle(&mut self, goal: Goal) -> Result<(), ClientError> {
        loop {
            if self.pipeline.is_none() {
                self.begin_block().await?;
            }
            let Err(fault) = self.push(goal).await else { return Ok(()) };
            let pipeline = self.pipeline.take().expect("pushed: there is a pipeline");
            self.give_up_block(pipeline.located.clone(), fault).await?;
        }
    }

    async fn push(&mut self, goal: Goal) -> Result<(), Fault> {
        let pipeline = self.pipeline.as_mut().expect("begun: there is a pipeline");
        if std::mem::replace(&mut self.sending, true) {
            // Which packets went out is not known: the caller dropped the write before this one.
            return Err(Fault { bad: None, reason: "a write was dropped half-way".into() });
        }
        pipeline.send(&self.held[self.sent..]).await?;
        self.sending = false;
        self.sent = self.held.len();
        match goal {
            Goal::Sent => Ok(()),
            Goal::Acknowledged => pipeline.wait_all().await,
        }
    }

    /// Gets a block from the NameNode and connects its nodes.
    async fn begin_block(&mut self) -> Result<(), ClientError> {
        loop {
            let located = self.add_block().await?;
            let opened =
                Pipeline::open(&self.client, located, self.block_size, Checksum::default_crc32c()).await;
            match opened {
                Ok(pipeline) => {
                    self.sent = 0;
                    self.sending = false;
                    self.pipeline = Some(pipeline);
                    return Ok(());
                }
                Err((located, fault)) => self.give_up_block(located, fault).await?,
            }
        }
    }

    /// Excludes the bad node and abandons the block, unless it was tried too often.
    async fn give_up_block(
        &mut self,
        located: hdfs::LocatedBlockProto,
        fault: Fault,
    ) -> Result<(), ClientError> {
        self.tries += 1;
        tracing::warn!(
            path = self.path,
            block = located.b.block_id,
            reason = fault.reason,
            "a pipeline failed"
        );
        if let Some(node) = fault.bad.and_then(|bad| located.locs.get(bad)) {
            self.excluded.push((node.clone(), Instant::now() + EXCLUDE_FOR));
        }
        if self.tries >= BLOCK_TRIES_MAX {
            let text = format!(
                "Unable to write a block of {} after {} tries: {}",
                self.path, self.tries, fault.reason
            );
            return Err(ClientError::DataNodes(text));
        }
        let request = hdfs::AbandonBlockRequestProto {
            b: located.b,
            src: self.path.clone(),
            holder: self.client.name.clone(),
            file_id: self.file_id,
        };
        self.client.namenode.abandon_block(request).await?;
        self.told = false;
        Ok(())
    }

    async fn add_block(&mut self) -> Result<hdfs::LocatedBlockProto, ClientError> {
        let started = Instant::now();
        let mut pause = SETTLE_PAUSE_FIRST;
        loop {
            self.excluded.retain(|(_, until)| *until > Instant::now());
            let request = hdfs::AddBlockRequestProto {
                src: self.path.clone(),
                client_name: self.client.name.clone(),
                previous: self.previous.clone(),
                exclude_nodes: self.excluded.iter().map(|(node, _)| node.clone()).collect(),
                file_id: self.file_id,
                favored_nodes: Vec::new(),
                flags: Vec::new(),
            };
            let error = match self.client.namenode.add_block(request).await {
                Ok(answer) => return Ok(answer.block),
                Err(error) => error,
            };
            if started.elapsed() >= SETTLE_LIMIT {
                return Err(error);
            }
            match error.class() {
                Some(class::NOT_REPLICATED_YET) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(SETTLE_PAUSE_MAX);
                }
                // No node is left: those that failed may have come back.
                Some(class::IO) if !self.excluded.is_empty() => {
                    self.excluded.clear();
                    tokio::time::sleep(NO_NODES_PAUSE).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn complete(&mut self) -> Result<(), ClientError> {
        let started = Instant::now();
        let mut pause = SETTLE_PAUSE_FIRST;
        loop {
            let request = hdfs::CompleteRequestProto {
                src: self.path.clone(),
                client_name: self.client.name.clone(),
                last: self.previous.clone(),
                file_id: self.file_id,
            };
            if self.client.namenode.complete(request).await?.result {
                return Ok(());
            }
            if started.elapsed() >= SETTLE_LIMIT {
                let block = self.previous.as_ref().map_or(0, |block| block.block_id);
                return Err(ClientError::DataNodes(format!(
                    "Unable to close file because the last block blk_{block} of {} does not have enough number of replicas.",
                    self.path
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SETTLE_PAUSE_MAX);
        }
    }
}

/// The checksums of whole chunks, the last of which may be partial.
fn sums_of(data: &[u8]) -> Bytes {
    let checksum = Checksum::default_crc32c();
    let mut sums = BytesMut::with_capacity(checksum.sums_length(data.len() as u64) as usize);
    checksum.compute(data, &mut sums);
    sums.freeze()
}
