//! Sends replicas to other DataNodes, by order of a NameNode (DNA_TRANSFER) or for a client's
//! pipeline (TRANSFER_BLOCK) (HDFS: `DataNode.DataTransfer`). Bytes are verified before they leave.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_proto::hdfs::{
    BaseHeaderProto, ClientOperationHeaderProto, DatanodeInfoProto, DnTransferAckProto, OpTransferBlockProto,
    OpWriteBlockProto, Status, StorageTypeProto,
};
use mobula_types::{Block, ReplicaState};
use mobula_wire::datatransfer::{Op, encode_op, encode_response, response_success};
use mobula_wire::{convert, try_decode_delimited};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::framed::{Framed, write_all};
use crate::node::{CONNECT_LIMIT, Counted, Node, READ_LIMIT, WRITE_LIMIT, xfer_name};
use crate::reports::Trouble;
use crate::send::{Corrupt, SendError, Sending, checked};
use crate::source::{Source, SourceError, Verify};

/// Longest `DNTransferAckProto`, in bytes.
const ACK_MAX: usize = 1 << 10;

/// Where a copy goes.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// The nodes, in the order of the pipeline.
    pub nodes: Vec<DatanodeInfoProto>,
    /// The media of their volumes, one each, or none.
    pub kinds: Vec<i32>,
    /// Their volumes, one each, or none.
    pub storages: Vec<String>,
}

/// Copies a replica by order of the NameNode. Success shows in the target's report.
pub(crate) async fn by_order(node: &Arc<Node>, block: Block, targets: Targets) {
    // The queue of orders is bounded by what the NameNode hands out.
    let Ok(_permit) = node.transfer_permits.clone().acquire_owned().await else { return };
    let _counted = Counted::new(&node.transfers);
    let copied = async {
        let source = Source::open(node, &block, 0).await?;
        if source.state != ReplicaState::Finalized {
            return Err(SourceError::State { block: block.id, state: source.state }.into());
        }
        if !source.has_sums() {
            return Err(SourceError::NoChecksums(source.block).into());
        }
        if source.length < block.length {
            node.store.mark_bad(&source.block, &source.volume);
            let length = source.length;
            let range = SourceError::Range { block: block.id, offset: 0, end: block.length, length };
            return Err(SendError::Source(range));
        }
        let length = source.length;
        send(node, source, (length, length), &targets, "", Stage::PipelineSetupCreate).await
    };
    match copied.await {
        Ok(()) => {}
        Err(SendError::Source(error @ (SourceError::State { .. } | SourceError::Missing(_)))) => {
            node.store
                .reports
                .error(Trouble::InvalidBlock, &format!("Can't send invalid block {block}: {error}"));
        }
        // Bad bytes were reported where they were found.
        Err(error) => tracing::warn!(%block, %error, "cannot copy a replica"),
    }
}

/// TRANSFER_BLOCK: copies a replica for a client's pipeline: what is visible of it, under its own stamp. As in
/// HDFS a copy that failed is only logged, and the client is told of success; the set-up that follows fails.
pub(crate) async fn for_client(
    node: &Arc<Node>,
    write: &mut mobula_net::WriteHalf,
    request: OpTransferBlockProto,
) -> Result<(), SendError> {
    let block = checked(node, &request.header.base_header.block)?;
    let source = Source::open(node, &block.block, 0).await?;
    let stage = match source.state {
        ReplicaState::Finalized => Stage::TransferFinalized,
        ReplicaState::Rbw => Stage::TransferRbw,
        state => return Err(SourceError::State { block: block.block.id, state }.into()),
    };
    let targets = Targets {
        nodes: request.targets,
        kinds: request.target_storage_types,
        storages: request.target_storage_ids,
    };
    // To the end of the last visible byte's chunk: its checksum is here, and its bytes fit it. What is visible of it,
    // the header says (HDFS: `FsDatasetImpl.convertTemporaryToRbw`).
    let visible = source.visible;
    let (_, length) = source.span(0, visible)?;
    let _counted = Counted::new(&node.transfers);
    let client = &request.header.client_name;
    if let Err(error) = send(node, source, (visible, length), &targets, client, stage).await {
        tracing::warn!(block = %block, %error, "cannot copy a replica for a client");
    }
    let mut out = BytesMut::new();
    encode_response(&response_success(), &mut out);
    Ok(write_all(write, &out, WRITE_LIMIT).await?)
}

/// Sends the first `length` bytes, as a block that has `visible`.
async fn send(
    node: &Arc<Node>,
    source: Source,
    (visible, length): (u64, u64),
    targets: &Targets,
    client: &str,
    stage: Stage,
) -> Result<(), SendError> {
    let Some(first) = targets.nodes.first() else {
        return Err(SendError::Request("no target to copy to".into()));
    };
    let block = Block { length: visible, ..source.block };
    let checksum = source.checksum;
    let with_sums = source.has_sums();
    let pool = node.store.pool().ok_or_else(|| SendError::Request("no pool yet".into()))?.clone();
    // Verified before a connection is made: bad bytes cost the target nothing.
    let sending =
        Sending::open(node, source, (0, length), with_sums, (Verify::Yes, Corrupt::Refused)).await?;
    let request = OpWriteBlockProto {
        header: ClientOperationHeaderProto {
            base_header: BaseHeaderProto {
                block: convert::pool_block_proto(&pool, &block),
                token: Some(convert::empty_token()),
                trace_info: None,
            },
            client_name: client.to_owned(),
        },
        targets: targets.nodes[1..].to_vec(),
        source: Some(node.info()),
        stage: stage as i32,
        pipeline_size: 0,
        min_bytes_rcvd: 0,
        max_bytes_rcvd: 0,
        latest_generation_stamp: 0,
        requested_checksum: checksum.to_proto(),
        storage_type: Some(targets.kinds.first().copied().unwrap_or(StorageTypeProto::Disk as i32)),
        target_storage_types: rest(&targets.kinds, targets.nodes.len()),
        storage_id: targets.storages.first().cloned(),
        target_storage_ids: rest(&targets.storages, targets.nodes.len()),
        ..OpWriteBlockProto::default()
    };
    let stream = node.env.net.connect(&xfer_name(first), CONNECT_LIMIT).await?;
    let (mut read, mut write) = stream.into_split();
    let mut out = BytesMut::new();
    encode_op(Op::WriteBlock, &request, &mut out);
    write_all(&mut write, &out, WRITE_LIMIT).await?;
    sending.send(node, &mut write).await?;
    if !client.is_empty() {
        let decode = |input: &mut BytesMut| try_decode_delimited::<DnTransferAckProto>(input, ACK_MAX);
        let ack = Framed::new(read, READ_LIMIT).next(decode).await?;
        if ack.status != Status::Success as i32 {
            return Err(io::Error::other(format!("the target answered {}", ack.status)).into());
        }
        return Ok(());
    }
    // The target hangs up when it is done; until then the order counts as under way.
    let mut nothing = [0; 16];
    let _ = timeout(READ_LIMIT, read.read(&mut nothing)).await;
    Ok(())
}

/// All but the first, if there is one for each node.
fn rest<T: Clone>(list: &[T], nodes: usize) -> Vec<T> {
    if list.len() == nodes { list[1..].to_vec() } else { Vec::new() }
}
