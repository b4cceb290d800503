//! The block in hand when its pipeline is lost: with the nodes that are left, in place
//! (HDFS: `DataStreamer.setupPipelineForAppendOrRecovery`).
//!
//! The steps: leave the bad node; ask for another in its stead if the policy says so, and have the
//! block copied to it; get a new generation stamp; set the nodes up with it, which cuts each replica to
//! what it has acknowledged; tell the NameNode; send again what we have no ack for. A replica that was
//! left behind has an old stamp, and never counts again.
//!
//! A new block of which readers were promised nothing, and whose bytes we still have, may also be given
//! up and begun elsewhere: that helps when all its nodes are lost.
//!
//! No step is dropped half-way, though a caller's time may be up at any: a task takes them, and the
//! writer's next call waits for the same one. Begun anew, a set-up would find the replicas of the one
//! before it, and blame good nodes for them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_wire::datatransfer::Op;
use mobula_wire::remote::class;
use tokio::time::Instant;

use crate::client::Shared;
use crate::error::ClientError;
use crate::link::{Link, address_of};
use crate::packet::{Held, Packets};
use crate::pipeline::{Blame, Fault, Pipeline, SetUp};
use crate::writer::OpenedFile;

/// Waiting for the NameNode to hear of the replicas: the first pause, doubling, and in all (HDFS
/// begins at 400 ms and gives up after 12 s).
pub(crate) const SETTLE_PAUSE_FIRST: Duration = Duration::from_millis(2);
pub(crate) const SETTLE_PAUSE_MAX: Duration = Duration::from_millis(400);
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Pause before nodes that failed are asked again, because there are no others.
const NO_NODES_PAUSE: Duration = Duration::from_millis(500);
/// How often one block is begun before the writer gives up (HDFS: 1 + 3 retries).
const BLOCK_TRIES_MAX: u32 = 6;
/// Recoveries with no ack between them, after which the writer gives up
/// (HDFS: `maxPipelineRecoveryRetries`: the 6th fails).
const RECOVERIES_MAX: u32 = 5;
/// How long a node that failed is not asked for (HDFS: 10 minutes).
const EXCLUDE_FOR: Duration = Duration::from_secs(600);
/// How long a node that restarts in order is waited for if there is no other, how often it is tried, and
/// how long it is not asked for if there are others (HDFS: `dfs.client.datanode-restart.timeout`).
const RESTART_LIMIT: Duration = Duration::from_secs(30);
const RESTART_PAUSE: Duration = Duration::from_millis(250);
/// How many nodes are tried for one that is to be replaced (HDFS: 3).
const REPLACEMENTS_MAX: u32 = 3;
/// Longest wait for a node to copy its replica to a new one: so long, and as long as the copy takes at
/// that many bytes a second.
const TRANSFER_CONNECT_LIMIT: Duration = Duration::from_secs(5);
const TRANSFER_LIMIT: Duration = Duration::from_secs(30);
const TRANSFER_RATE_MIN: u64 = 4 << 20;

/// When a node that was lost is replaced by another one, to which the block is copied
/// (HDFS: `dfs.client.block.write.replace-datanode-on-failure.policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplacePolicy {
    /// Of r >= 3 replicas if no more than half are left, or any is lost of a file that was flushed or
    /// opened for appending.
    #[default]
    Default,
    /// Whenever there are fewer nodes than replicas wanted.
    Always,
    /// Never: the NameNode has the block copied once it is complete.
    Never,
}

/// The policy, and what happens when no node can take the lost one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaceDatanode {
    /// When.
    pub policy: ReplacePolicy,
    /// Go on with the nodes that are left if there is no other (HDFS: `..best-effort`). HDFS's default is
    /// to fail the write, which then also fails on a cluster of three nodes that lost two; ours is to
    /// go on: a writer survives as long as one node does.
    pub best_effort: bool,
}

impl Default for ReplaceDatanode {
    fn default() -> ReplaceDatanode {
        ReplaceDatanode { policy: ReplacePolicy::Default, best_effort: true }
    }
}

impl ReplaceDatanode {
    /// Whether `left` of `wanted` nodes are too few.
    fn is_wanted(self, left: usize, wanted: usize, precious: bool) -> bool {
        let lacks = left > 0 && left < wanted;
        match self.policy {
            ReplacePolicy::Never => false,
            ReplacePolicy::Always => lacks,
            ReplacePolicy::Default => lacks && wanted >= 3 && (left <= wanted / 2 || precious),
        }
    }
}

/// Whether the replicas of a closed file's block were opened by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reopening {
    ToDo,
    /// Some nodes may have opened theirs, others not.
    Tried,
    Done,
}

/// The block in hand.
#[derive(Debug)]
pub(crate) struct Block {
    /// Its stamp, and the nodes of its pipeline.
    pub(crate) located: hdfs::LocatedBlockProto,
    /// Bytes that all nodes acknowledged, and bytes that were sent.
    acked: u64,
    sent: u64,
    /// The packet that ends it was sent.
    end_sent: bool,
    /// It belonged to a closed file.
    reopened: bool,
    reopening: Reopening,
    /// Readers were promised some of it.
    pub(crate) flushed: bool,
    /// The NameNode was told of it by fsync.
    pub(crate) told: bool,
    /// Recoveries since the last ack.
    recoveries: u32,
    /// What the last pipeline died of; nobody is to blame any more once the bad nodes are left.
    fault: Option<Fault>,
    /// Nodes that failed this block.
    failed: Vec<hdfs::DatanodeInfoProto>,
}

impl Block {
    fn new(located: hdfs::LocatedBlockProto) -> Block {
        Block {
            located,
            acked: 0,
            sent: 0,
            end_sent: false,
            reopened: false,
            reopening: Reopening::Done,
            flushed: false,
            told: false,
            recoveries: 0,
            fault: None,
            failed: Vec::new(),
        }
    }

    /// The last block of a file that is opened for appending.
    pub(crate) fn reopened(located: hdfs::LocatedBlockProto) -> Block {
        let length = located.b.num_bytes.unwrap_or(0);
        Block {
            acked: length,
            sent: length,
            reopened: true,
            reopening: Reopening::ToDo,
            ..Block::new(located)
        }
    }

    pub(crate) fn note_sending(&mut self, packets: &Packets) {
        self.sent = self.sent.max(packets.end().unwrap_or(0));
        self.end_sent |= packets.has_end();
    }

    fn note_acked(&mut self, end: u64) {
        self.acked = self.acked.max(end);
        self.recoveries = 0;
    }

    /// It must not become less safe than it is: it was promised to readers, or to whoever closed the file.
    fn is_precious(&self) -> bool {
        self.flushed || self.reopened
    }

    fn note_fault(&mut self, path: &str, fault: Fault) {
        let (block, acked) = (self.located.b.block_id, self.acked);
        tracing::warn!(path, block, acked, reason = fault.reason, "a pipeline failed");
        self.fault = Some(fault);
    }

    fn set_up(&self, stage: Stage, new_stamp: u64, block_size: u64) -> SetUp {
        SetUp { stage, new_stamp, acked: self.acked, sent: self.sent, block_size }
    }

    /// Takes node `index` out of the pipeline.
    fn remove(&mut self, index: usize) -> hdfs::DatanodeInfoProto {
        let located = &mut self.located;
        if index < located.storage_types.len() {
            located.storage_types.remove(index);
        }
        if index < located.storage_i_ds.len() {
            located.storage_i_ds.remove(index);
        }
        located.is_cached.clear();
        located.locs.remove(index)
    }
}

/// How to go on with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Its nodes are set up at this stage, under a new stamp.
    InPlace(Stage),
    /// It is given up, and begun again on other nodes.
    Elsewhere,
}

/// The block in hand, the nodes that failed, and how a pipeline is got (HDFS: `DataStreamer`).
#[derive(Debug)]
pub(crate) struct Streamer {
    pub(crate) client: Arc<Shared>,
    pub(crate) path: String,
    pub(crate) file_id: Option<u64>,
    pub(crate) block_size: u64,
    /// Replicas that each block shall have.
    pub(crate) replication: usize,
    /// The block before the one in hand, with its length.
    pub(crate) previous: Option<hdfs::ExtendedBlockProto>,
    pub(crate) block: Option<Block>,
    /// The first block of a new file, if the NameNode gave it with the file and nobody has tried it yet.
    first_block: Option<hdfs::LocatedBlockProto>,
    /// DataNodes that failed, and until when they are not asked for.
    excluded: Vec<(hdfs::DatanodeInfoProto, Instant)>,
    /// How often the block in hand was begun.
    tries: u32,
    /// The only node restarts: until when it is waited for.
    restarts_until: Option<Instant>,
}

/// A pipeline, and what is to be sent on it.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) pipeline: Pipeline,
    pub(crate) again: Again,
}

/// What is sent on a new pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The block from its first byte.
    All,
    /// What is not acknowledged.
    Unacked,
}

impl Streamer {
    pub(crate) fn new(
        client: Arc<Shared>,
        file: &OpenedFile,
        previous: Option<hdfs::ExtendedBlockProto>,
        block: Option<Block>,
    ) -> Streamer {
        let status = &file.status;
        Streamer {
            client,
            path: file.path.clone(),
            file_id: status.file_id,
            block_size: status.blocksize.filter(|size| *size > 0).unwrap_or(file.block_size),
            replication: status
                .block_replication
                .filter(|wanted| *wanted > 0)
                .map_or(file.replication, |wanted| wanted as usize),
            previous,
            block,
            first_block: file.first_block.clone(),
            excluded: Vec::new(),
            tries: 0,
            restarts_until: None,
        }
    }

    /// The block in hand is done, with so many bytes.
    pub(crate) fn end_block(&mut self, length: u64) {
        let mut done = self.block.take().expect("ended: there is a block").located.b;
        done.num_bytes = Some(length);
        self.previous = Some(done);
        self.tries = 0;
    }

    /// Nodes of the pipeline acknowledged the block up to `end`.
    pub(crate) fn note_acked(&mut self, end: u64) {
        if let Some(block) = &mut self.block {
            block.note_acked(end);
        }
        self.restarts_until = None;
    }

    /// The pipeline broke.
    pub(crate) fn note_lost(&mut self, fault: Fault) {
        if let Some(block) = &mut self.block {
            block.note_fault(&self.path, fault);
            block.recoveries += 1;
        }
    }

    /// Gets the block in hand a pipeline, or one for a new block; `held` are the packets that there are.
    pub(crate) async fn connect(&mut self, held: Held) -> Result<Connected, ClientError> {
        loop {
            let Some(block) = &self.block else {
                if let Some(pipeline) = self.begin_block().await? {
                    return Ok(Connected { pipeline, again: Again::All });
                }
                continue;
            };
            if block.recoveries > RECOVERIES_MAX {
                let reason = block.fault.as_ref().map_or("", |fault| &fault.reason);
                return Err(ClientError::DataNodes(format!(
                    "Failing write. Tried pipeline recovery {RECOVERIES_MAX} times without success for blk_{} of {}: {reason}",
                    block.located.b.block_id, self.path
                )));
            }
            self.leave_bad_nodes().await;
            match self.way(held)? {
                Way::InPlace(stage) => {
                    if let Some(pipeline) = self.set_up_again(stage, held).await? {
                        return Ok(Connected { pipeline, again: Again::Unacked });
                    }
                }
                Way::Elsewhere => self.give_up_block().await?,
            }
        }
    }

    /// Gets a block from the NameNode and connects its nodes; if they do not work there is none again.
    async fn begin_block(&mut self) -> Result<Option<Pipeline>, ClientError> {
        let located = match self.first_block.take() {
            Some(located) => located,
            None => self.add_block().await?,
        };
        let mut block = Block::new(located);
        let set_up = block.set_up(Stage::PipelineSetupCreate, 0, self.block_size);
        let opened = Pipeline::open(&self.client, &block.located, set_up).await;
        let fault = match opened {
            Ok(pipeline) => {
                self.block = Some(block);
                return Ok(Some(pipeline));
            }
            Err(fault) => fault,
        };
        tracing::warn!(
            path = self.path,
            block = block.located.b.block_id,
            reason = fault.reason,
            "no pipeline"
        );
        // Nothing is in it yet: other nodes are better than fewer.
        if let Blame::Nodes(bad) = &fault.blame
            && !self.waits_for_restart()
        {
            for node in bad.iter().filter_map(|bad| block.located.locs.get(*bad)) {
                self.excluded.push((node.clone(), Instant::now() + EXCLUDE_FOR));
            }
        }
        block.fault = Some(fault);
        self.block = Some(block);
        self.give_up_block().await?;
        Ok(None)
    }

    /// Asks the NameNode for the next block, until it has heard of the replicas of the one before.
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
                favored_nodes: self.client.options.favored_nodes.clone(),
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

    /// The only node there is said that it restarts, and may still do so.
    fn waits_for_restart(&self) -> bool {
        self.restarts_until.is_some_and(|until| Instant::now() < until)
    }

    /// Abandons the block in hand, unless blocks were tried too often.
    async fn give_up_block(&mut self) -> Result<(), ClientError> {
        let Some(block) = &self.block else { return Ok(()) };
        let reason = block.fault.as_ref().map_or("", |fault| &fault.reason);
        let waits = self.waits_for_restart();
        if !waits && self.tries + 1 >= BLOCK_TRIES_MAX {
            let text =
                format!("Unable to write a block of {} after {BLOCK_TRIES_MAX} tries: {reason}", self.path);
            return Err(ClientError::DataNodes(text));
        }
        let request = hdfs::AbandonBlockRequestProto {
            b: block.located.b.clone(),
            src: self.path.clone(),
            holder: self.client.name.clone(),
            file_id: self.file_id,
        };
        self.client.namenode.abandon_block(request).await?;
        self.block = None;
        match waits {
            true => tokio::time::sleep(RESTART_PAUSE).await,
            false => self.tries += 1,
        }
        Ok(())
    }

    /// Takes the nodes that are to blame out of the pipeline; waits for one that restarts, if it is the
    /// only one.
    async fn leave_bad_nodes(&mut self) {
        let Some(block) = &mut self.block else { return };
        let Some(fault) = block.fault.clone() else { return };
        let now = Instant::now();
        let only = block.located.locs.len() == 1;
        let mut bad = match fault.blame.clone() {
            Blame::Nobody => Vec::new(),
            Blame::Restarting(_) if only => {
                self.restarts_until.get_or_insert(now + RESTART_LIMIT);
                Vec::new()
            }
            Blame::Restarting(node) => vec![node],
            Blame::Nodes(nodes) => nodes,
        };
        // It was said to restart, and is not back yet.
        if only && self.restarts_until.is_some_and(|until| now < until) {
            tokio::time::sleep(RESTART_PAUSE).await;
            bad.clear();
        }
        let exclude_for = match fault.blame {
            Blame::Restarting(_) => RESTART_LIMIT,
            _ => EXCLUDE_FOR,
        };
        block.fault = Some(Fault::ours(&fault.reason));
        bad.sort_unstable();
        bad.retain(|index| *index < block.located.locs.len());
        for index in bad.into_iter().rev() {
            let node = block.remove(index);
            block.failed.push(node.clone());
            self.excluded.push((node, Instant::now() + exclude_for));
        }
    }

    /// What can be done for the block in hand with the nodes that are left.
    fn way(&self, held: Held) -> Result<Way, ClientError> {
        let block = self.block.as_ref().expect("asked for a block in hand");
        let again = held.whole && !block.is_precious();
        if block.located.locs.is_empty() {
            return match again {
                true => Ok(Way::Elsewhere),
                false => Err(ClientError::DataNodes(all_bad(&self.path, block))),
            };
        }
        match block.reopening {
            Reopening::ToDo => return Ok(Way::InPlace(Stage::PipelineSetupAppend)),
            Reopening::Tried => return Ok(Way::InPlace(Stage::PipelineSetupAppendRecovery)),
            Reopening::Done => {}
        }
        if !block.end_sent {
            return Ok(Way::InPlace(Stage::PipelineSetupStreamingRecovery));
        }
        // Some nodes may have ended their replicas. HDFS's clients let the others do the same without a
        // further packet (PIPELINE_CLOSE_RECOVERY), which Apache's DataNodes do without a sync; this
        // opens them all, and the end is sent again.
        if held.only_end_is_left {
            return Ok(Way::InPlace(Stage::PipelineSetupAppendRecovery));
        }
        assert!(again, "the end is sent ahead of acks only in a block that can be begun again");
        Ok(Way::Elsewhere)
    }

    /// Sets the nodes that are left up again, with others in the place of lost ones; no pipeline if a
    /// node does not work.
    async fn set_up_again(&mut self, stage: Stage, held: Held) -> Result<Option<Pipeline>, ClientError> {
        if !held.has_end {
            self.replace_lost_nodes().await?;
        }
        let block = self.block.as_mut().expect("set up for a block in hand");
        let request = hdfs::UpdateBlockForPipelineRequestProto {
            block: block.current(),
            client_name: self.client.name.clone(),
        };
        let fresh = self.client.namenode.update_block_for_pipeline(request).await?.block;
        let new_stamp = fresh.b.generation_stamp;
        block.located.block_token = fresh.block_token;
        if block.reopening == Reopening::ToDo {
            block.reopening = Reopening::Tried;
        }
        let set_up = block.set_up(stage, new_stamp, self.block_size);
        let pipeline = match Pipeline::open(&self.client, &block.located, set_up).await {
            Ok(pipeline) => pipeline,
            Err(fault) => {
                block.note_fault(&self.path, fault);
                return Ok(None);
            }
        };
        let old = block.current();
        let mut new = old.clone();
        new.generation_stamp = new_stamp;
        let request = hdfs::UpdatePipelineRequestProto {
            client_name: self.client.name.clone(),
            old_block: old,
            new_block: new,
            new_nodes: block.located.locs.iter().map(|node| node.id.clone()).collect(),
            storage_i_ds: block.located.storage_i_ds.clone(),
        };
        self.client.namenode.update_pipeline(request).await?;
        block.located.b.generation_stamp = new_stamp;
        block.reopening = Reopening::Done;
        block.end_sent = false;
        Ok(Some(pipeline))
    }

    /// Brings in another node as the policy wants it, and has the block copied to it.
    async fn replace_lost_nodes(&mut self) -> Result<(), ClientError> {
        let replace = self.client.options.replace_datanode;
        let block = self.block.as_ref().expect("replaced for a block in hand");
        let mut tried = 0;
        let mut reason = String::from("no more good datanodes being available to try");
        if !replace.is_wanted(block.located.locs.len(), self.replication, block.is_precious()) {
            return Ok(());
        }
        while tried < REPLACEMENTS_MAX {
            match self.replace_one().await? {
                Replacement::Made => return Ok(()),
                Replacement::CopyFailed(why) => reason = why,
                Replacement::NoneOffered(why) => {
                    reason = why;
                    break;
                }
            }
            tried += 1;
        }
        let block = self.block.as_ref().expect("replaced for a block in hand");
        let left: Vec<String> = block.located.locs.iter().map(address_of).collect();
        let text = format!(
            "Failed to replace a bad datanode on the existing pipeline of blk_{} of {}: {reason}. (Nodes: current=[{}])",
            block.located.b.block_id,
            self.path,
            left.join(", ")
        );
        if !replace.best_effort {
            return Err(ClientError::DataNodes(text));
        }
        tracing::warn!("{text}; the write goes on with those");
        Ok(())
    }

    async fn replace_one(&mut self) -> Result<Replacement, ClientError> {
        let block = self.block.as_mut().expect("replaced for a block in hand");
        let excluded = self.excluded.iter().map(|(node, _)| node);
        let request = hdfs::GetAdditionalDatanodeRequestProto {
            src: self.path.clone(),
            blk: block.current(),
            existings: block.located.locs.clone(),
            excludes: block.failed.iter().chain(excluded).cloned().collect(),
            num_additional_nodes: 1,
            client_name: self.client.name.clone(),
            existing_storage_uuids: block.located.storage_i_ds.clone(),
            file_id: self.file_id,
        };
        let offered = match self.client.namenode.get_additional_datanode(request).await {
            Ok(answer) => answer.block,
            // A lost lease and the like come up again at the next call.
            Err(ClientError::Remote(remote)) => {
                return Ok(Replacement::NoneOffered(remote.first_line().to_owned()));
            }
            Err(error) => return Err(error),
        };
        let known = |node: &hdfs::DatanodeInfoProto| {
            block.located.locs.iter().any(|old| old.id.datanode_uuid == node.id.datanode_uuid)
        };
        let Some(at) = offered.locs.iter().position(|node| !known(node)) else {
            return Ok(Replacement::NoneOffered("the NameNode offers no further node".into()));
        };
        let target = offered.locs[at].clone();
        let types: Vec<i32> = offered.storage_types.get(at).copied().into_iter().collect();
        let storages: Vec<String> = offered.storage_i_ds.get(at).cloned().into_iter().collect();
        let request = hdfs::OpTransferBlockProto {
            header: hdfs::ClientOperationHeaderProto {
                base_header: hdfs::BaseHeaderProto {
                    block: block.current(),
                    token: Some(offered.block_token),
                    trace_info: None,
                },
                client_name: self.client.name.clone(),
            },
            targets: vec![target.clone()],
            target_storage_types: types.clone(),
            target_storage_ids: storages.clone(),
        };
        // The last node: it has verified what it has.
        let source = address_of(block.located.locs.last().expect("wanted only if a node is left"));
        let limit = TRANSFER_LIMIT + Duration::from_secs(block.acked / TRANSFER_RATE_MIN);
        let copied = copy_block(&self.client.env, &source, &request, limit).await;
        if let Err(fault) = copied {
            let why = format!("the copy from {source} to {} failed: {fault}", address_of(&target));
            block.failed.push(target);
            return Ok(Replacement::CopyFailed(why));
        }
        block.located.locs.push(target);
        block.located.storage_types.extend(types);
        block.located.storage_i_ds.extend(storages);
        Ok(Replacement::Made)
    }
}

/// What became of a node in a lost one's stead.
enum Replacement {
    Made,
    NoneOffered(String),
    CopyFailed(String),
}

/// Makes the node at `source` send its replica to another one. Success means little: Apache's DataNodes
/// say it although their copy failed, and the set-up that follows finds out.
async fn copy_block(
    env: &Env,
    source: &str,
    request: &hdfs::OpTransferBlockProto,
    limit: Duration,
) -> io::Result<()> {
    let mut link = Link::connect(env, source, TRANSFER_CONNECT_LIMIT).await?;
    let answer = link.ask(Op::TransferBlock, request, limit).await?;
    match answer.status == hdfs::Status::Success as i32 {
        true => Ok(()),
        false => {
            let text = format!("status {} {}", answer.status, answer.message.unwrap_or_default());
            Err(io::Error::other(text))
        }
    }
}

impl Block {
    /// The block as the NameNode knows it, with the length that is acknowledged.
    fn current(&self) -> hdfs::ExtendedBlockProto {
        hdfs::ExtendedBlockProto { num_bytes: Some(self.acked), ..self.located.b.clone() }
    }
}

fn all_bad(path: &str, block: &Block) -> String {
    let nodes: Vec<String> = block.failed.iter().map(address_of).collect();
    let reason = block.fault.as_ref().map_or("", |fault| &fault.reason);
    format!(
        "All datanodes [{}] of blk_{} of {path} are bad. Aborting... {reason}",
        nodes.join(", "),
        block.located.b.block_id
    )
}
