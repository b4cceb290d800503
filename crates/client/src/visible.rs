//! How much of an open file's last block can be seen: the DataNodes know, the NameNode does not
//! (HDFS: `DFSInputStream.readBlockLength`).

use std::time::Duration;

use mobula_proto::hdfs;
use mobula_rpc::{CallError, RpcClient, RpcClientOptions};
use mobula_wire::remote::class;

use crate::client::Shared;
use crate::error::ClientError;

/// Java's name of the protocol that DataNodes speak with clients.
const CLIENT_DATANODE_PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol";
/// Longest wait for one DataNode.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The first length that a DataNode tells; 0 if all say that they have no replica yet.
pub(crate) async fn length_of(client: &Shared, block: &hdfs::LocatedBlockProto) -> Result<u64, ClientError> {
    let mut reasons = Vec::new();
    for node in &block.locs {
        let rpc = RpcClient::new(
            &client.env,
            RpcClientOptions {
                address: format!("{}:{}", node.id.ip_addr, node.id.ipc_port),
                user: client.options.user.clone(),
                protocol: CLIENT_DATANODE_PROTOCOL,
                connect_limit: CONNECT_LIMIT,
                call_limit: CALL_LIMIT,
            },
        );
        let request = hdfs::GetReplicaVisibleLengthRequestProto { block: block.b.clone() };
        let answer = rpc
            .call::<_, hdfs::GetReplicaVisibleLengthResponseProto>("getReplicaVisibleLength", &request)
            .await;
        match answer {
            // 2^64-1 is Java's -1: the replica waits for recovery.
            Ok(answer) if answer.length as i64 >= 0 => return Ok(answer.length),
            Ok(_) => reasons.push(format!("{}: waits for recovery", node.id.host_name)),
            Err(CallError::Remote(remote)) if remote.class == class::REPLICA_NOT_FOUND => {}
            Err(error) => reasons.push(error.to_string()),
        }
    }
    // Nobody has a replica: the writer has the block and has sent nothing yet.
    if reasons.is_empty() {
        return Ok(0);
    }
    let reasons = reasons.join("; ");
    Err(ClientError::DataNodes(format!("Cannot obtain block length for blk_{}: {reasons}", block.b.block_id)))
}
