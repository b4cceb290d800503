//! The RPC server of a DataNode: ClientDatanodeProtocol, and the place of InterDatanodeProtocol
//! (HDFS: `DataNode` itself).

use std::sync::Arc;

use mobula_proto::hdfs as pb;
use mobula_rpc::{Call, Responder, RpcService};
use mobula_types::{ExtendedBlock, GenStamp};
use mobula_wire::convert;
use mobula_wire::remote::{RemoteException, class};
use prost::Message;

use crate::error::Stopped;
use crate::node::{Node, SOFTWARE_VERSION};
use crate::replica::OpenKind;
use crate::store::Replica;

/// Java's name of the protocol of clients.
pub(crate) const CLIENT_PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol";
/// Java's name of the protocol of other DataNodes.
pub(crate) const PEER_PROTOCOL: &str = "org.apache.hadoop.hdfs.server.protocol.InterDatanodeProtocol";
/// What a replica without a visible length has: -1 in Java.
const NOT_VISIBLE: u64 = u64::MAX;

/// Answers calls.
pub(crate) struct Ipc {
    pub node: Arc<Node>,
}

impl RpcService for Ipc {
    fn call(&self, call: Call, reply: Responder) {
        match &*call.protocol {
            CLIENT_PROTOCOL => self.client_call(&call, reply),
            PEER_PROTOCOL => reply.error(&unsupported("Recovery of blocks is not supported yet")),
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
            b"shutdownDatanode" => reply.finish(self.superuser(call).map(|()| {
                node.stop(Stopped::Asked);
                pb::ShutdownDatanodeResponseProto::default()
            })),
            b"refreshNamenodes"
            | b"deleteBlockPool"
            | b"evictWriters"
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
    let (stamp, length): (GenStamp, u64) = match node.store.get(block.block.id).ok_or_else(missing)? {
        Replica::Busy => return Err(missing()),
        Replica::Open(it) if it.kind == OpenKind::Rbw => (it.block.stamp, it.progress().acked),
        Replica::Open(it) => (it.block.stamp, NOT_VISIBLE),
        Replica::Final(it) => (it.block.stamp, it.block.length),
        Replica::Waiting(it) => (it.block.stamp, NOT_VISIBLE),
    };
    if stamp < block.block.stamp {
        let message = format!("Replica generation stamp {stamp} is older than that of {block}");
        return Err(RemoteException::new(class::IO, message));
    }
    Ok(length)
}

fn unsupported(message: &str) -> RemoteException {
    RemoteException::new(class::UNSUPPORTED_OPERATION, message)
}

fn read<M: Message + Default>(call: &Call) -> Result<M, RemoteException> {
    M::decode(call.body.clone()).map_err(|error| RemoteException::new(class::IO, error.to_string()))
}
