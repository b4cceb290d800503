//! How much of an open file's last block can be seen: the DataNodes know, the NameNode does not
//! (HDFS: `DFSInputStream.readBlockLength`).

use std::time::Duration;

use mobula_proto::hdfs;
use mobula_rpc::CallError;
use mobula_wire::remote::class;

use crate::client::Shared;
use crate::error::ClientError;
use crate::probe;

/// Longest wait for one DataNode.
const LENGTH_LIMIT: Duration = Duration::from_secs(5);
/// A DataNode that has just started does not know its pool yet: how long it is asked again, and how often.
const STARTING_LIMIT: Duration = Duration::from_secs(20);
const STARTING_PAUSE: Duration = Duration::from_millis(200);

/// The first length that a DataNode tells; 0 if all say that they have no replica yet, or none was chosen.
pub(crate) async fn length_of(client: &Shared, block: &hdfs::LocatedBlockProto) -> Result<u64, ClientError> {
    let started = tokio::time::Instant::now();
    loop {
        let mut reasons = Vec::new();
        let mut starting = false;
        for node in &block.locs {
            match probe::visible_length(client, node, &block.b, LENGTH_LIMIT).await {
                // 2^64-1 is Java's -1: the replica waits for recovery.
                Ok(length) if length as i64 >= 0 => return Ok(length),
                Ok(_) => reasons.push(format!("{}: waits for recovery", node.id.host_name)),
                Err(CallError::Remote(remote)) if remote.class == class::REPLICA_NOT_FOUND => {}
                Err(CallError::Remote(remote)) if remote.class == class::RETRIABLE => {
                    starting = true;
                    reasons.push(remote.to_string());
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        // Nobody has a replica: the writer has the block and has sent nothing yet.
        if reasons.is_empty() {
            return Ok(0);
        }
        if !starting || started.elapsed() >= STARTING_LIMIT {
            let reasons = reasons.join("; ");
            let text = format!("Cannot obtain block length for blk_{}: {reasons}", block.b.block_id);
            return Err(ClientError::DataNodes(text));
        }
        tokio::time::sleep(STARTING_PAUSE).await;
    }
}
