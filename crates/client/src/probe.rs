//! Asks DataNodes about a replica: how much of it can be seen, and whether they react at all.
//!
//! A node that died breaks its connections; one that hangs (a stopped process, a host that is off, a
//! cable that is out) only says nothing, and neither its neighbours nor HDFS's clients notice before a
//! minute is over. So a writer whose ack is late asks each node of its pipeline on the IPC port, which a
//! DataNode answers from memory, and leaves those that do not react. If none reacts it may be us, or
//! a firewall in front of the IPC ports: then nobody is blamed, and HDFS's limits hold.

use std::time::Duration;

use mobula_proto::hdfs;
use mobula_rpc::{CallError, RpcClient, RpcClientOptions};
use tokio::task::JoinSet;

use crate::client::Shared;

/// Java's name of the protocol that DataNodes speak with clients.
const CLIENT_DATANODE_PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol";
/// Longest wait for a node that may hang. A collection of Java's garbage can take a second or two.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// How much of `block` the DataNode `node` shows to readers; 2^64-1 (Java's -1) if it waits for recovery.
pub(crate) async fn visible_length(
    client: &Shared,
    node: &hdfs::DatanodeInfoProto,
    block: &hdfs::ExtendedBlockProto,
    limit: Duration,
) -> Result<u64, CallError> {
    let rpc = RpcClient::new(
        &client.env,
        RpcClientOptions {
            address: format!("{}:{}", node.id.ip_addr, node.id.ipc_port),
            user: client.options.user.clone(),
            protocol: CLIENT_DATANODE_PROTOCOL,
            connect_limit: limit,
            call_limit: limit,
        },
    );
    let request = hdfs::GetReplicaVisibleLengthRequestProto { block: block.clone() };
    let answer = rpc
        .call::<_, hdfs::GetReplicaVisibleLengthResponseProto>("getReplicaVisibleLength", &request)
        .await?;
    Ok(answer.length)
}

/// Which nodes of a pipeline do not react, by index; none if no node does.
pub(crate) async fn silent_nodes(
    shared: &std::sync::Arc<Shared>,
    located: &hdfs::LocatedBlockProto,
) -> Vec<usize> {
    let mut asked = JoinSet::new();
    for (index, node) in located.locs.iter().enumerate() {
        let (shared, node, block) = (shared.clone(), node.clone(), located.b.clone());
        asked.spawn(async move {
            let answer = visible_length(&shared, &node, &block, PROBE_LIMIT);
            let answer = tokio::time::timeout(PROBE_LIMIT, answer).await;
            // Any answer will do, an exception too.
            let reacts = matches!(answer, Ok(Ok(_) | Err(CallError::Remote(_))));
            (index, reacts)
        });
    }
    let mut silent: Vec<usize> =
        asked.join_all().await.into_iter().filter(|(_, reacts)| !reacts).map(|(index, _)| index).collect();
    if silent.len() == located.locs.len() {
        silent.clear();
    }
    silent.sort_unstable();
    silent
}
