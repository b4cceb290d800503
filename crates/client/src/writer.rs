//! Writing a file: bytes are cut into packets, packets go down a pipeline, blocks follow each other.
//!
//! Packets are kept until all nodes of the pipeline have acknowledged them, so that they can be sent
//! again when a node is lost; `recovery` says how. An open file holds at most a window of
//! packets, whatever its block size. Next on the walk: the NameNode's `client_rpc`, which hands out
//! blocks.
//!
//! Invariants: what is acknowledged lies on every node of the pipeline; what `hflush` returned for stays
//! there as long as one of them lives; what `hsync` and `close` returned for is on their disks, in every
//! block that this writer wrote.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mobula_proto::hdfs;
use mobula_wire::remote::class;
use tokio::time::Instant;

use crate::client::Shared;
use crate::error::ClientError;
use crate::lease::Lease;
use crate::packet::{Cutter, Packets};
use crate::pipeline::{Fault, Pipeline};
use crate::recovery::Block;

/// So much of what `write` was given is cut into packets before they are sent.
const SLICE_BYTES: usize = 1 << 20;
/// Waiting for the NameNode to hear of the replicas: the first pause, doubling, and in all (HDFS
/// begins at 400 ms and gives up after 12 s).
const SETTLE_PAUSE_FIRST: Duration = Duration::from_millis(2);
const SETTLE_PAUSE_MAX: Duration = Duration::from_millis(400);
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Pause before nodes that failed are asked again, because there are no others.
const NO_NODES_PAUSE: Duration = Duration::from_millis(500);

/// A file being written. Dropped without `close`, it stays open on the server until its lease ends.
///
/// A `write`, `hflush` or `hsync` may be dropped half-way: [`FileWriter::position`] says what was taken,
/// and the next call goes on from there over a new connection.
#[derive(Debug)]
pub struct FileWriter {
    pub(crate) client: Arc<Shared>,
    pub(crate) path: String,
    pub(crate) file_id: Option<u64>,
    pub(crate) block_size: u64,
    /// Replicas that each block shall have.
    pub(crate) replication: usize,
    /// The block before the one in hand, with its length.
    previous: Option<hdfs::ExtendedBlockProto>,
    /// The block in hand, and the connection to its nodes; a block without one needs recovery.
    pub(crate) block: Option<Block>,
    pub(crate) pipeline: Option<Pipeline>,
    pub(crate) packets: Packets,
    pub(crate) cutter: Cutter,
    /// A send began and did not end.
    sending: bool,
    /// Bytes in blocks that are done.
    finished: u64,
    /// DataNodes that failed, and until when they are not asked for.
    pub(crate) excluded: Vec<(hdfs::DatanodeInfoProto, Instant)>,
    /// How often the block in hand was begun.
    pub(crate) tries: u32,
    /// The only node restarts: until when it is waited for.
    pub(crate) restarts_until: Option<Instant>,
    failed: Option<String>,
    _lease: Lease,
}

/// What an open file is at the NameNode when writing begins.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    pub(crate) path: String,
    pub(crate) status: hdfs::HdfsFileStatusProto,
    /// What the caller wanted, should the status not say.
    pub(crate) block_size: u64,
    pub(crate) replication: usize,
    /// A last block to be gone on with.
    pub(crate) last_block: Option<hdfs::LocatedBlockProto>,
    /// A last block that stays as it is.
    pub(crate) previous: Option<hdfs::ExtendedBlockProto>,
}

/// What a flush shall do beyond making visible (HDFS: `HdfsDataOutputStream.SyncFlag`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncOptions {
    /// The NameNode learns the length, so that `getFileInfo` and listings show it.
    pub update_length: bool,
    /// The block in hand ends here; the next byte begins a new one.
    pub end_block: bool,
}

/// How far the block in hand must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// All packets were sent.
    Sent,
    /// All packets were acknowledged.
    Acknowledged,
}

/// Whether a flush waits for the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Visible,
    OnDisk,
}

impl FileWriter {
    pub(crate) fn new(client: Arc<Shared>, file: OpenedFile, lease: Lease) -> FileWriter {
        let OpenedFile { path, status, block_size, replication, last_block, previous } = file;
        let begun = last_block.as_ref().map_or(0, |last| last.b.num_bytes.unwrap_or(0));
        FileWriter {
            client,
            path,
            file_id: status.file_id,
            block_size: status.blocksize.filter(|size| *size > 0).unwrap_or(block_size),
            replication: status
                .block_replication
                .filter(|wanted| *wanted > 0)
                .map_or(replication, |wanted| wanted as usize),
            previous,
            packets: Packets::new(last_block.is_none()),
            block: last_block.map(Block::reopened),
            pipeline: None,
            cutter: Cutter::new(begun),
            sending: false,
            finished: status.length.saturating_sub(begun),
            excluded: Vec::new(),
            tries: 0,
            restarts_until: None,
            failed: None,
            _lease: lease,
        }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes of the file so far: what it had, and what was written.
    pub fn position(&self) -> u64 {
        self.finished + self.block_length()
    }

    /// The DataNodes that the block in hand is written to; none between two blocks
    /// (HDFS: `DFSOutputStream.getPipeline`).
    pub fn pipeline(&self) -> &[hdfs::DatanodeInfoProto] {
        self.block.as_ref().map_or(&[], |block| &block.located.locs)
    }

    /// Takes `data`, without a copy where it can; waits while the window of packets is full.
    ///
    /// # Errors
    /// The NameNode's exceptions, or no DataNode left that takes the block.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), ClientError> {
        self.check_usable()?;
        self.finish_what_was_dropped().await?;
        while !data.is_empty() {
            let room = usize::try_from(self.block_size.saturating_sub(self.block_length()));
            let part = data.split_to(data.len().min(room.unwrap_or(usize::MAX)).min(SLICE_BYTES));
            self.cutter.cut(part, &mut self.packets);
            if self.block_length() >= self.block_size {
                self.finish_block().await?;
            } else if self.packets.has_unsent() {
                self.settle(Goal::Sent).await?;
            }
        }
        Ok(())
    }

    /// Waits until all that was written is visible to new readers, on all nodes of the pipeline.
    ///
    /// # Errors
    /// As `write`.
    pub async fn hflush(&mut self) -> Result<(), ClientError> {
        self.flush(Depth::Visible, SyncOptions::default()).await
    }

    /// Waits until all that was written survives power loss, in every block of the file.
    ///
    /// # Errors
    /// As `write`.
    pub async fn hsync(&mut self) -> Result<(), ClientError> {
        self.flush(Depth::OnDisk, SyncOptions::default()).await
    }

    /// As `hsync`, and more.
    ///
    /// # Errors
    /// As `write`.
    pub async fn hsync_with(&mut self, options: SyncOptions) -> Result<(), ClientError> {
        self.flush(Depth::OnDisk, options).await
    }

    /// Completes the file; when this returns it is durable.
    ///
    /// # Errors
    /// As `write`.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.check_usable()?;
        if self.block.is_some() || self.block_length() > 0 {
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

    /// A call before this one was dropped while it waited for the end of the block.
    async fn finish_what_was_dropped(&mut self) -> Result<(), ClientError> {
        match self.packets.has_end() {
            true => self.finish_block().await,
            false => Ok(()),
        }
    }

    fn block_length(&self) -> u64 {
        self.cutter.length()
    }

    async fn flush(&mut self, depth: Depth, options: SyncOptions) -> Result<(), ClientError> {
        self.check_usable()?;
        if self.block_length() == 0 {
            // Blocks that are done are synced, and known to the NameNode.
            return Ok(());
        }
        if options.end_block || self.packets.has_end() {
            return self.finish_block().await;
        }
        self.cutter.cut_all(&mut self.packets);
        if depth == Depth::OnDisk {
            self.packets.want_sync(self.block_length());
        }
        if self.packets.has_unacked() {
            self.settle(Goal::Acknowledged).await?;
        }
        self.packets.promise();
        self.tell_namenode(options).await
    }

    /// Makes the NameNode keep the block for this open file, come what may (once a block), or tells it
    /// the length.
    async fn tell_namenode(&mut self, options: SyncOptions) -> Result<(), ClientError> {
        let length = self.block_length();
        let Some(block) = &mut self.block else { return Ok(()) };
        block.flushed = true;
        if block.told && !options.update_length {
            return Ok(());
        }
        let request = hdfs::FsyncRequestProto {
            src: self.path.clone(),
            client: self.client.name.clone(),
            last_block_length: Some(if options.update_length { length as i64 } else { -1 }),
            file_id: self.file_id,
        };
        self.client.namenode.fsync(request).await?;
        block.told = true;
        Ok(())
    }

    /// Ends the block in hand; when this returns its replicas are on disk.
    async fn finish_block(&mut self) -> Result<(), ClientError> {
        let length = self.block_length();
        if !self.packets.has_end() {
            self.cutter.cut_all(&mut self.packets);
            // No node may end its replica while another one may still lack bytes of it: those two could
            // not go on together. A small block, which can be begun again, need not wait.
            if !self.packets.stays_whole() && self.packets.has_unacked() {
                self.settle(Goal::Acknowledged).await?;
            }
            self.packets.push_end(length);
        }
        self.settle(Goal::Acknowledged).await?;
        self.pipeline = None;
        let block = self.block.take().expect("settled: there is a block");
        let mut done = block.located.b;
        done.num_bytes = Some(length);
        self.previous = Some(done);
        self.finished += length;
        self.packets = Packets::new(true);
        self.cutter = Cutter::new(0);
        self.tries = 0;
        Ok(())
    }

    /// Brings the block in hand to `goal`, over as many pipelines as that may take.
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
                self.connect().await?;
                self.sending = false;
            }
            let result = self.push(goal).await;
            self.take_acks();
            match result {
                Ok(()) => return Ok(()),
                Err(fault) => self.lose_pipeline(fault),
            }
        }
    }

    async fn push(&mut self, goal: Goal) -> Result<(), Fault> {
        let pipeline = self.pipeline.as_mut().expect("connected: there is a pipeline");
        if std::mem::replace(&mut self.sending, true) {
            // Which packets went out is not known: the caller dropped the write before this one.
            return Err(Fault::ours("a write was dropped half-way"));
        }
        if let Some(block) = &mut self.block {
            block.note_sending(&self.packets);
        }
        pipeline.send(self.packets.unsent()).await?;
        self.sending = false;
        self.packets.mark_sent();
        match goal {
            Goal::Sent => Ok(()),
            Goal::Acknowledged => pipeline.wait_all().await,
        }
    }

    /// Lets go of what was acknowledged meanwhile.
    fn take_acks(&mut self) {
        let (Some(pipeline), Some(block)) = (&mut self.pipeline, &mut self.block) else { return };
        let count = pipeline.take_news();
        if count > 0 {
            // Acks of packets of a send that failed half-way: they are sent, too.
            self.packets.mark_sent_at_least(count);
            let end = self.packets.acknowledge(count);
            block.note_acked(end.unwrap_or(0));
            self.restarts_until = None;
        }
    }

    pub(crate) async fn add_block(&mut self) -> Result<hdfs::LocatedBlockProto, ClientError> {
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
