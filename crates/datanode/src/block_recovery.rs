//! Block recovery as its primary (HDFS: `BlockRecoveryWorker`): asks all nodes that are expected to have the block
//! to stand still, decides (`verdict`), has them take the length and stamp decided, and tells the NameNode.
//!
//! Invariants: a recovery that cannot decide changes nothing and is begun again by the NameNode, under a higher id;
//! the NameNode hears of a length only after a replica has it, synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::datanode as dn;
use mobula_rpc::{CallError, RpcClient, RpcClientOptions};
use mobula_types::{Block, BlockId, DatanodeId, ExtendedBlock, GenStamp};
use mobula_wire::convert;
use mobula_wire::extension::{Heard, WithWish};
use mobula_wire::remote::class;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::ipc::PEER_PROTOCOL;
use crate::node::{Counted, Node};
use crate::recovery::{Found, Outcome, RecoveryError};
use crate::verdict::{Answer, Patience, Verdict, decide};

/// Blocks that this node recovers at once, as their primary.
const RECOVERIES_MAX: usize = 32;
/// Blocks whose first attempt is remembered.
const REMEMBERED_MAX: usize = 10_000;
/// How long nodes that do not answer are waited for before a block is closed with what the others have. Longer
/// than a machine takes to start; an administrator who has given a node up can wait as long.
const PATIENCE: Duration = Duration::from_secs(600);
/// Nodes whose connections are kept.
const PEERS_MAX: usize = 1_024;
/// Longest wait for a connection to another DataNode.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for its answer: it may have to stop a writer, and to verify a whole block.
const CALL_LIMIT: Duration = Duration::from_secs(90);
/// How often a NameNode is told what became of a block.
const COMMIT_TRIES: usize = 6;
/// Longest wait for its answer to that, before it is told again: it takes the same twice.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);
/// First pause between those; it doubles.
const COMMIT_PAUSE: Duration = Duration::from_millis(250);

/// What the recoveries of one node share.
#[derive(Debug)]
pub(crate) struct Recoveries {
    permits: Semaphore,
    /// When each block was first tried.
    since: Mutex<BTreeMap<BlockId, Instant>>,
    peers: Mutex<BTreeMap<String, RpcClient>>,
}

impl Default for Recoveries {
    fn default() -> Recoveries {
        Recoveries {
            permits: Semaphore::new(RECOVERIES_MAX),
            since: Mutex::default(),
            peers: Mutex::default(),
        }
    }
}

impl Recoveries {
    fn patience(&self, id: BlockId) -> Patience {
        let mut since = self.since.lock();
        if since.len() >= REMEMBERED_MAX && !since.contains_key(&id) {
            // They wait once more from the beginning.
            since.clear();
        }
        let first = *since.entry(id).or_insert_with(Instant::now);
        if first.elapsed() > PATIENCE { Patience::Over } else { Patience::Waits }
    }

    fn forget(&self, id: BlockId) {
        self.since.lock().remove(&id);
    }

    fn peer(&self, node: &Node, id: &DatanodeId) -> RpcClient {
        let address = format!("{}:{}", id.ip, id.ipc_port);
        let mut peers = self.peers.lock();
        if peers.len() >= PEERS_MAX {
            peers.clear();
        }
        let make = || {
            let options = RpcClientOptions {
                address: address.clone(),
                user: node.config.user.clone(),
                protocol: PEER_PROTOCOL,
                connect_limit: CONNECT_LIMIT,
                call_limit: CALL_LIMIT,
            };
            RpcClient::new(&node.env, options)
        };
        peers.entry(address.clone()).or_insert_with(make).clone()
    }
}

/// What a NameNode orders, checked.
#[derive(Clone, Debug)]
struct Task {
    block: ExtendedBlock,
    recovery: GenStamp,
    /// The length to cut to, and the block that the beginning is copied to if it is another one.
    truncate: Option<Block>,
    nodes: Vec<DatanodeId>,
    order: pb::RecoveringBlockProto,
}

impl Task {
    fn read(order: pb::RecoveringBlockProto) -> Result<Task, mobula_wire::WireError> {
        let block = convert::extended_block(&order.block.b)?;
        let truncate = order.truncate_block.as_ref().map(convert::block).transpose()?;
        let nodes: Result<_, _> = order.block.locs.iter().map(convert::datanode_info_id).collect();
        Ok(Task { block, recovery: GenStamp(order.new_gen_stamp), truncate, nodes: nodes?, order })
    }
}

/// Carries out a NameNode's order to recover a block; `namenode` is the one that gave it.
pub(crate) async fn recover(node: Arc<Node>, namenode: RpcClient, order: pb::RecoveringBlockProto) {
    if order.ec_policy.is_some() {
        tracing::warn!("recovery of a striped block is not supported yet");
        return;
    }
    let task = match Task::read(order) {
        Ok(task) => task,
        Err(error) => return tracing::warn!(%error, "an order to recover a block that cannot be read"),
    };
    if node.store.pool() != Some(&task.block.pool) {
        return tracing::warn!(block = %task.block, "an order to recover a block of another pool");
    }
    let _permit = node.recoveries.permits.acquire().await.expect("it is never closed");
    let _counted = Counted::new(&node.xceivers);
    let answers = ask(&node, &task).await;
    let patience = node.recoveries.patience(task.block.block.id);
    let wanted = task.truncate.map(|block| block.length);
    let verdict = decide(&task.block.block, wanted, &answers, patience);
    let (block, recovery) = (&task.block, task.recovery);
    tracing::info!(%block, %recovery, ?answers, ?verdict, "recovery of a block");
    match verdict {
        Verdict::Leave => {}
        Verdict::Wait(why) => tracing::warn!(%block, %recovery, why, "a recovery waits"),
        Verdict::Delete => commit(&node, &namenode, &task, &answers, Commit::Delete).await,
        Verdict::Settle { length, nodes } => {
            let done = settle(&node, &task, &answers, length, nodes).await;
            if done.is_empty() {
                tracing::warn!(%block, %recovery, "no replica has taken its new length: a recovery waits");
                return;
            }
            commit(&node, &namenode, &task, &answers, Commit::Close { length, done }).await;
        }
    }
}

/// Asks all nodes at the same time.
async fn ask(node: &Arc<Node>, task: &Task) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (at, id) in task.nodes.iter().enumerate() {
        let (node, id, task) = (node.clone(), id.clone(), task.clone());
        asked.spawn(async move { (at, ask_one(&node, &id, &task).await) });
    }
    let mut answers = vec![Answer::Silent; task.nodes.len()];
    while let Some(answer) = asked.join_next().await {
        if let Ok((at, answer)) = answer {
            answers[at] = answer;
        }
    }
    answers
}

async fn ask_one(node: &Arc<Node>, id: &DatanodeId, task: &Task) -> Answer {
    if id.uuid == node.uuid {
        return match node.store.begin_recovery(task.block.block, task.recovery).await {
            Ok(Some(found)) => Answer::Has(found),
            Ok(None) => Answer::Nothing,
            Err(RecoveryError::InProgress { .. }) => Answer::Busy,
            Err(RecoveryError::Stale { .. }) => Answer::Stale,
            Err(error) => {
                tracing::warn!(block = %task.block, %error, "takes no part in a recovery");
                Answer::Refuses
            }
        };
    }
    let request = pb::InitReplicaRecoveryRequestProto { block: task.order.clone() };
    let peer = node.recoveries.peer(node, id);
    let answer: Result<pb::InitReplicaRecoveryResponseProto, _> =
        peer.call("initReplicaRecovery", &request).await;
    match answer {
        Ok(answer) if !answer.replica_found => Answer::Nothing,
        Ok(answer) => found(&answer).map_or(Answer::Refuses, Answer::Has),
        Err(CallError::Remote(error)) if error.is(class::RECOVERY_IN_PROGRESS) => Answer::Busy,
        Err(CallError::Remote(error)) => {
            tracing::warn!(block = %task.block, node = %id.ip, %error, "takes no part in a recovery");
            if STALE.iter().any(|words| error.message.contains(words)) {
                Answer::Stale
            } else {
                Answer::Refuses
            }
        }
        Err(error) => {
            tracing::warn!(block = %task.block, node = %id.ip, %error, "cannot be asked for its replica");
            Answer::Silent
        }
    }
}

/// How DataNodes say that their replica is stale, ours and Apache's (`FsDatasetImpl.initReplicaRecoveryImpl`): by an
/// IOException, with nothing else to tell it by.
const STALE: [&str; 2] = [", older than", "replica.getGenerationStamp() < block.getGenerationStamp()"];

fn found(answer: &pb::InitReplicaRecoveryResponseProto) -> Option<Found> {
    let state = convert::replica_state(answer.state?).ok()?;
    let block = convert::block(answer.block.as_ref()?).ok()?;
    Some(Found { block, state })
}

/// Has the nodes take the length that was decided; those that have, and their volumes.
async fn settle(
    node: &Arc<Node>,
    task: &Task,
    answers: &[Answer],
    length: u64,
    nodes: Vec<usize>,
) -> Vec<(DatanodeId, String)> {
    let mut asked = JoinSet::new();
    for at in nodes {
        let Answer::Has(found) = answers[at] else { continue };
        let copy_to = task.truncate.map(|block| block.id).filter(|id| *id != task.block.block.id);
        let outcome = Outcome { found: found.block, recovery: task.recovery, length, copy_to };
        let (node, id, task) = (node.clone(), task.nodes[at].clone(), task.clone());
        asked.spawn(async move { (id.clone(), settle_one(&node, &id, &task, outcome).await) });
    }
    let mut done = Vec::new();
    while let Some(settled) = asked.join_next().await {
        match settled {
            Ok((id, Ok(storage))) => done.push((id, storage)),
            Ok((id, Err(error))) => {
                tracing::warn!(block = %task.block, node = %id.ip, %error, "has not taken its new length");
            }
            Err(error) => tracing::warn!(block = %task.block, %error, "a recovery's step failed"),
        }
    }
    // In the order of the pipeline, for whoever reads it.
    done.sort_by_key(|(id, _)| task.nodes.iter().position(|node| node.uuid == id.uuid));
    done
}

async fn settle_one(
    node: &Arc<Node>,
    id: &DatanodeId,
    task: &Task,
    outcome: Outcome,
) -> Result<String, io::Error> {
    if id.uuid == node.uuid {
        let storage = node.store.end_recovery(outcome).await.map_err(io::Error::other)?;
        return Ok(storage.as_str().to_owned());
    }
    let Outcome { found, recovery, length, copy_to } = outcome;
    let request = pb::UpdateReplicaUnderRecoveryRequestProto {
        block: convert::pool_block_proto(&task.block.pool, &found),
        recovery_id: recovery.0,
        new_length: length,
        new_block_id: Some(copy_to.unwrap_or(task.block.block.id).0),
    };
    let peer = node.recoveries.peer(node, id);
    let answer: pb::UpdateReplicaUnderRecoveryResponseProto =
        peer.call("updateReplicaUnderRecovery", &request).await.map_err(io::Error::other)?;
    Ok(answer.storage_uuid.unwrap_or_default())
}

/// What a NameNode is told.
enum Commit {
    Delete,
    Close { length: u64, done: Vec<(DatanodeId, String)> },
}

async fn commit(node: &Node, namenode: &RpcClient, task: &Task, answers: &[Answer], what: Commit) {
    let (length, delete, done) = match what {
        Commit::Delete => (0, true, Vec::new()),
        Commit::Close { length, done } => (length, false, done),
    };
    let (ids, storages): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    let heard = task.nodes.iter().zip(answers).filter(|(_, answer)| answer.is_known());
    let heard = Heard { heard: heard.map(|(id, _)| id.uuid.as_str().to_owned()).collect() };
    let request = dn::CommitBlockSynchronizationRequestProto {
        block: convert::extended_block_proto(&task.block),
        new_gen_stamp: task.recovery.0,
        new_length: length,
        close_file: true,
        delete_block: delete,
        new_taragets: ids.iter().map(convert::datanode_id_proto).collect(),
        new_target_storages: storages,
    };
    let request = WithWish(request, heard);
    let mut pause = COMMIT_PAUSE;
    for _ in 0..COMMIT_TRIES {
        let call = namenode.call("commitBlockSynchronization", &request);
        let told: Result<Result<dn::CommitBlockSynchronizationResponseProto, _>, _> =
            timeout(COMMIT_LIMIT, call).await;
        let Ok(told) = told else {
            tracing::warn!(block = %task.block, "the NameNode did not answer to a recovery within {COMMIT_LIMIT:?}");
            continue;
        };
        match told {
            Ok(_) => return node.recoveries.forget(task.block.block.id),
            // It has another opinion by now: then it has begun, or will begin, another recovery.
            Err(CallError::Remote(error)) if !error.is(class::RETRIABLE) => {
                return tracing::warn!(block = %task.block, %error, "the NameNode does not take a recovery");
            }
            Err(error) => {
                tracing::warn!(block = %task.block, %error, "the NameNode was not told of a recovery");
                sleep(pause).await;
                pause *= 2;
            }
        }
    }
}
