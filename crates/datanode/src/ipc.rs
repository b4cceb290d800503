//! The RPC server of a DataNode: ClientDatanodeProtocol and InterDatanodeProtocol (HDFS: `DataNode` itself).

use std::sync::Arc;
use std::time::Duration;

use mobula_proto::hdfs as pb;
use mobula_rpc::{Call, Responder, RpcService};
use mobula_types::{Block, BlockId, ExtendedBlock, GenStamp};
use mobula_wire::convert;
use mobula_wire::remote::{RemoteException, class};
use prost::Message;

use crate::error::Stopped;
use crate::node::{Node, SOFTWARE_VERSION};
use crate::recovery::{Outcome, RecoveryError};
use crate::replica::{OpenKind, Replica};

/// Java's name of the protocol of clients.
pub(crate) const CLIENT_PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol";
/// Java's name of the protocol of other DataNodes.
pub(crate) const PEER_PROTOCOL: &str = "org.apache.hadoop.hdfs.server.protocol.InterDatanodeProtocol";
/// What a replica without a visible length has: -1 in Java.
const NOT_VISIBLE: u64 = u64::MAX;
/// Between telling writers of a restart and ending (HDFS: `DataNode.shutdown`).
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Answers calls.
pub(crate) struct Ipc {
    pub node: Arc<Node>,
}

impl RpcService for Ipc {
    fn call(&self, call: Call, reply: Responder) {
        match &*call.protocol {
            CLIENT_PROTOCOL => self.client_call(&call, reply),
            PEER_PROTOCOL => self.peer_call(&call, reply),
            _ => reply.no_such_protocol(&call),
        }
    }
}

impl Ipc {
    fn client_call(&self, call: &Call, reply: Responder) {
        let node = &self.node;
        match &call.method[..] {
            b"getReplicaVisibleLength" => {
                reply.finish(read(call).and_then(|request: pb::GetReplicaVisibleLengthRequestProto| {
                    let length = visible_length(node, &request.block)?;
                    Ok(pb::GetReplicaVisibleLengthResponseProto { length })
                }));
            }
            b"getDatanodeInfo" => {
                reply.success(&pb::GetDatanodeInfoResponseProto { local_info: self.info() })
            }
            b"getBalancerBandwidth" => {
                let bandwidth = node.config.balancer_bandwidth;
                reply.success(&pb::GetBalancerBandwidthResponseProto { bandwidth });
            }
            b"triggerBlockReport" => reply.finish(self.superuser(call).map(|()| {
                node.store.reports.want_full();
                pb::TriggerBlockReportResponseProto::default()
            })),
            b"getVolumeReport" => reply.finish(self.superuser(call).map(|()| self.volumes())),
            b"shutdownDatanode" => {
                reply.finish(self.superuser(call).and_then(|()| self.shut_down(read(call)?)));
            }
            b"evictWriters" => reply.finish(self.superuser(call).map(|()| {
                node.store.stop_writers();
                pb::EvictWritersResponseProto::default()
            })),
            b"refreshNamenodes"
            | b"deleteBlockPool"
            | b"getBlockLocalPathInfo"
            | b"getReconfigurationStatus"
            | b"startReconfiguration"
            | b"listReconfigurableProperties"
            | b"submitDiskBalancerPlan"
            | b"cancelDiskBalancerPlan"
            | b"queryDiskBalancerPlan"
            | b"getDiskBalancerSetting" => {
                let method = String::from_utf8_lossy(&call.method);
                reply.error(&unsupported(&format!("{method} is not supported yet")));
            }
            _ => reply.no_such_method(call),
        }
    }

    /// InterDatanodeProtocol: the primary of a block's recovery asks.
    fn peer_call(&self, call: &Call, reply: Responder) {
        let node = self.node.clone();
        match &call.method[..] {
            b"initReplicaRecovery" => match read(call) {
                Ok(request) => _ = tokio::spawn(async move { reply.finish(begin(&node, request).await) }),
                Err(error) => reply.error(&error),
            },
            b"updateReplicaUnderRecovery" => match read(call) {
                Ok(request) => _ = tokio::spawn(async move { reply.finish(end(&node, request).await) }),
                Err(error) => reply.error(&error),
            },
            _ => reply.no_such_method(call),
        }
    }

    /// Ends the node; before a restart writers are asked to wait for it, and their replicas are marked.
    fn shut_down(
        &self,
        request: pb::ShutdownDatanodeRequestProto,
    ) -> Result<pb::ShutdownDatanodeResponseProto, RemoteException> {
        let node = self.node.clone();
        if !request.for_upgrade {
            node.stop(Stopped::Asked);
        } else if !node.restarting.send_replace(true) {
            tokio::spawn(async move {
                node.store.mark_for_restart(node.env.clock.now_ms()).await;
                // The writers' clients read it before the connection ends (HDFS: 1 s).
                tokio::time::sleep(RESTART_PAUSE).await;
                node.stop(Stopped::Asked);
            });
        }
        Ok(pb::ShutdownDatanodeResponseProto::default())
    }

    fn superuser(&self, call: &Call) -> Result<(), RemoteException> {
        if *call.user == *self.node.config.user {
            return Ok(());
        }
        let message = format!("Access denied for user {}. Superuser privilege is required", call.user);
        Err(RemoteException::new(class::ACCESS_CONTROL, message))
    }

    fn info(&self) -> pb::DatanodeLocalInfoProto {
        let node = &self.node;
        pb::DatanodeLocalInfoProto {
            software_version: SOFTWARE_VERSION.into(),
            config_version: "core-0.0.0,hdfs-0.0.0".into(),
            uptime: (node.env.clock.monotonic_ms().saturating_sub(node.started_ms)) / 1_000,
        }
    }

    fn volumes(&self) -> pb::GetVolumeReportResponseProto {
        let mut counts = vec![0u64; self.node.store.volumes.len()];
        for (volume, replicas) in self.node.store.full_report() {
            counts[volume.index] = replicas.len() as u64;
        }
        let volume_info = self.node.store.volumes.iter().filter(|volume| !volume.is_failed()).map(|volume| {
            let report = volume.report();
            pb::DatanodeVolumeInfoProto {
                path: volume.config.path.display().to_string(),
                storage_type: convert::storage_type_proto(volume.config.kind) as i32,
                used_space: report.dfs_used,
                free_space: report.remaining,
                reserved_space: volume.config.reserved,
                reserved_space_for_replicas: 0,
                num_blocks: counts[volume.index],
            }
        });
        pb::GetVolumeReportResponseProto { volume_info: volume_info.collect() }
    }
}

/// initReplicaRecovery.
async fn begin(
    node: &Arc<Node>,
    request: pb::InitReplicaRecoveryRequestProto,
) -> Result<pb::InitReplicaRecoveryResponseProto, RemoteException> {
    let block = our_block(node, &request.block.block.b)?;
    let recovery = GenStamp(request.block.new_gen_stamp);
    let found = node.store.begin_recovery(block, recovery).await.map_err(recovery_exception)?;
    Ok(match found {
        None => pb::InitReplicaRecoveryResponseProto { replica_found: false, state: None, block: None },
        Some(found) => pb::InitReplicaRecoveryResponseProto {
            replica_found: true,
            state: Some(convert::replica_state_proto(found.state) as i32),
            block: Some(convert::block_proto(&found.block)),
        },
    })
}

/// updateReplicaUnderRecovery.
async fn end(
    node: &Arc<Node>,
    request: pb::UpdateReplicaUnderRecoveryRequestProto,
) -> Result<pb::UpdateReplicaUnderRecoveryResponseProto, RemoteException> {
    let found = our_block(node, &request.block)?;
    let outcome = Outcome {
        found,
        recovery: GenStamp(request.recovery_id),
        length: request.new_length,
        copy_to: request.new_block_id.filter(|id| *id != 0 && *id != found.id.0).map(BlockId),
    };
    let storage = node.store.end_recovery(outcome).await.map_err(recovery_exception)?;
    let storage_uuid = Some(storage.as_str().to_owned());
    Ok(pb::UpdateReplicaUnderRecoveryResponseProto { storage_uuid })
}

/// A block of our pool.
fn our_block(node: &Node, block: &pb::ExtendedBlockProto) -> Result<Block, RemoteException> {
    let block = convert::extended_block(block)
        .map_err(|error| RemoteException::new(class::JAVA_ILLEGAL_ARGUMENT, error.to_string()))?;
    if node.store.pool() != Some(&block.pool) {
        return Err(RemoteException::new(class::IO, format!("pool {} is not ours", block.pool)));
    }
    Ok(block.block)
}

fn recovery_exception(error: RecoveryError) -> RemoteException {
    let class = match &error {
        RecoveryError::InProgress { .. } => class::RECOVERY_IN_PROGRESS,
        RecoveryError::NotUnder { .. } => class::REPLICA_NOT_FOUND,
        _ => class::IO,
    };
    RemoteException::new(class, error.to_string())
}

/// Bytes of a replica that a reader may count on (HDFS: `FsDatasetImpl.getReplicaVisibleLength`).
fn visible_length(node: &Node, block: &pb::ExtendedBlockProto) -> Result<u64, RemoteException> {
    let block: ExtendedBlock = convert::extended_block(block)
        .map_err(|error| RemoteException::new(class::JAVA_ILLEGAL_ARGUMENT, error.to_string()))?;
    let Some(pool) = node.store.pool() else {
        return Err(RemoteException::new(class::RETRIABLE, "Datanode not registered. Try again later."));
    };
    let missing = || RemoteException::new(class::REPLICA_NOT_FOUND, format!("Replica not found for {block}"));
    if *pool != block.pool {
        return Err(missing());
    }
    let replica = node.store.get(block.block.id).ok_or_else(missing)?;
    let (stamp, length) = (replica.block().stamp, visible(&replica));
    if stamp < block.block.stamp {
        let message = format!("Replica generation stamp {stamp} is older than that of {block}");
        return Err(RemoteException::new(class::IO, message));
    }
    Ok(length)
}

/// Bytes that readers of a replica may count on; under recovery those from before.
fn visible(replica: &Replica) -> u64 {
    match replica.original() {
        Replica::Open(it) if it.kind == OpenKind::Rbw => it.progress().acked,
        Replica::Final(it) => it.block.length,
        Replica::Open(_) | Replica::Waiting(_) | Replica::Recovering(_) => NOT_VISIBLE,
    }
}

fn unsupported(message: &str) -> RemoteException {
    RemoteException::new(class::UNSUPPORTED_OPERATION, message)
}

fn read<M: Message + Default>(call: &Call) -> Result<M, RemoteException> {
    M::decode(call.body.clone()).map_err(|error| RemoteException::new(class::IO, error.to_string()))
}
