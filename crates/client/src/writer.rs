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

use bytes::Bytes;
use mobula_proto::hdfs;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Shared;
use crate::error::ClientError;
use crate::lease::Lease;
use crate::packet::{Cutter, Packets};
use crate::pipeline::{Fault, Pipeline};
use crate::recovery::{
    Again, Block, Connected, SETTLE_LIMIT, SETTLE_PAUSE_FIRST, SETTLE_PAUSE_MAX, Streamer,
};

/// So much of what `write` was given is cut into packets before they are sent.
const SLICE_BYTES: usize = 1 << 20;

/// A file being written. Dropped without `close`, it stays open on the server until its lease ends.
///
/// A `write`, `hflush` or `hsync` may be dropped half-way: [`FileWriter::position`] says what was taken,
/// and the next call goes on from there. That costs nothing: what had begun goes on meanwhile.
#[derive(Debug)]
pub struct FileWriter {
    client: Arc<Shared>,
    path: String,
    file_id: Option<u64>,
    block_size: u64,
    /// The block in hand; `connecting` has it while a pipeline is being set up.
    streamer: Option<Box<Streamer>>,
    connecting: Option<Connecting>,
    /// The connection to the nodes of the block in hand; a block without one needs recovery.
    pipeline: Option<Pipeline>,
    packets: Packets,
    cutter: Cutter,
    /// Bytes in blocks that are done.
    finished: u64,
    failed: Option<String>,
    _lease: Lease,
}

/// A task that gets the block in hand a pipeline, whether or not anybody waits.
#[derive(Debug)]
struct Connecting(JoinHandle<(Box<Streamer>, Result<Connected, ClientError>)>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.abort();
    }
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
    /// A first block that came with the file, of which nothing is written yet.
    pub(crate) first_block: Option<hdfs::LocatedBlockProto>,
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
        let OpenedFile { path, status, last_block, previous, .. } = &file;
        let begun = last_block.as_ref().map_or(0, |last| last.b.num_bytes.unwrap_or(0));
        let block = last_block.clone().map(Block::reopened);
        let streamer = Box::new(Streamer::new(client.clone(), &file, previous.clone(), block));
        let cutter = Cutter::new(begun, client.checksum);
        FileWriter {
            client,
            path: path.clone(),
            file_id: status.file_id,
            block_size: streamer.block_size,
            packets: Packets::new(last_block.is_none()),
            streamer: Some(streamer),
            connecting: None,
            pipeline: None,
            cutter,
            finished: status.length.saturating_sub(begun),
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

    /// The DataNodes that the block in hand is written to; none between two blocks and during a set-up
    /// (HDFS: `DFSOutputStream.getPipeline`).
    pub fn pipeline(&self) -> &[hdfs::DatanodeInfoProto] {
        self.block().map_or(&[], |block| &block.located.locs)
    }

    fn block(&self) -> Option<&Block> {
        self.streamer.as_ref().and_then(|streamer| streamer.block.as_ref())
    }

    fn streamer(&mut self) -> &mut Streamer {
        self.streamer.as_mut().expect("settled: no pipeline is being set up")
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
        if self.block().is_some() || self.block_length() > 0 {
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

    /// A call before this one was dropped while it waited: for the end of the block, or for room.
    async fn finish_what_was_dropped(&mut self) -> Result<(), ClientError> {
        if self.packets.has_end() {
            return self.finish_block().await;
        }
        match self.packets.has_unsent() {
            true => self.settle(Goal::Sent).await,
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
        let Some(block) = &mut self.streamer().block else { return Ok(()) };
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
        if let Some(block) = &mut self.streamer().block {
            block.told = true;
        }
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
        self.streamer().end_block(length);
        self.finished += length;
        self.packets = Packets::new(true);
        self.cutter = Cutter::new(0, self.client.checksum);
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
            }
            let result = self.push(goal).await;
            self.take_acks();
            match result {
                Ok(()) => return Ok(()),
                Err(fault) => {
                    self.pipeline = None;
                    self.streamer().note_lost(fault);
                }
            }
        }
    }

    /// Gets the block in hand a pipeline, or waits for the task that does.
    async fn connect(&mut self) -> Result<(), ClientError> {
        if let Some(mut streamer) = self.streamer.take() {
            let held = self.packets.held();
            self.connecting = Some(Connecting(tokio::spawn(async move {
                let connected = streamer.connect(held).await;
                (streamer, connected)
            })));
        }
        let Connecting(task) = self.connecting.as_mut().expect("it has the block in hand");
        let (streamer, connected) = task.await.map_err(|error| {
            ClientError::DataNodes(format!("getting {} a pipeline ended: {error}", self.path))
        })?;
        (self.streamer, self.connecting) = (Some(streamer), None);
        let Connected { pipeline, again } = connected?;
        match again {
            Again::All => self.packets.send_all_again(),
            Again::Unacked => self.packets.send_unacked_again(),
        }
        self.pipeline = Some(pipeline);
        Ok(())
    }

    async fn push(&mut self, goal: Goal) -> Result<(), Fault> {
        let streamer = self.streamer.as_mut().expect("connected: no pipeline is being set up");
        if let Some(block) = &mut streamer.block {
            block.note_sending(&self.packets);
        }
        let pipeline = self.pipeline.as_mut().expect("connected: there is a pipeline");
        pipeline.send(&mut self.packets).await?;
        match goal {
            Goal::Sent => Ok(()),
            Goal::Acknowledged => pipeline.wait_all().await,
        }
    }

    /// Lets go of what was acknowledged meanwhile.
    fn take_acks(&mut self) {
        let Some(pipeline) = &mut self.pipeline else { return };
        let count = pipeline.take_news();
        if count > 0 {
            let end = self.packets.acknowledge(count);
            self.streamer().note_acked(end.unwrap_or(0));
        }
    }

    async fn complete(&mut self) -> Result<(), ClientError> {
        let started = Instant::now();
        let mut pause = SETTLE_PAUSE_FIRST;
        let last = self.streamer().previous.clone();
        loop {
            let request = hdfs::CompleteRequestProto {
                src: self.path.clone(),
                client_name: self.client.name.clone(),
                last: last.clone(),
                file_id: self.file_id,
            };
            if self.client.namenode.complete(request).await?.result {
                return Ok(());
            }
            if started.elapsed() >= SETTLE_LIMIT {
                let block = last.as_ref().map_or(0, |block| block.block_id);
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
