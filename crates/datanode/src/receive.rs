//! WRITE_BLOCK: sets up the receiving of a block, as its stage says, and hands it to the pipeline
//! (HDFS: `DataXceiver.writeBlock`). The walk goes on in `pipeline`, where the packets come in, and in `store`.
//!
//! Invariant: a request that does not fit changes no replica; the sender sees the connection end, as HDFS does it.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::{MaybeDone, maybe_done};
use mobula_net::{ReadHalf, WriteHalf};
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_proto::hdfs::{BlockOpResponseProto, DatanodeInfoProto, OpWriteBlockProto, Status};
use mobula_types::{ExtendedBlock, GenStamp, StorageType};
use mobula_wire::checksum::Checksum;
use mobula_wire::convert;
use mobula_wire::datatransfer::{Op, encode_op, encode_response, response_failure, response_success};

use crate::batch::PacketError;
use crate::create::{NewReplica, Origin};
use crate::framed::{Framed, write_all};
use crate::incoming::Incoming;
use crate::node::{CONNECT_LIMIT, Node, READ_LIMIT, READ_LIMIT_PER_NODE, WRITE_LIMIT, xfer_name};
use crate::pipeline::Pipeline;
use crate::reopen::Again;
use crate::replica::{OpenKind, OpenReplica};
use crate::store::OpenError;

/// Why receiving a block ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the request: {0}")]
    Request(String),
    #[error("refused: {0}")]
    Open(#[from] OpenError),
    #[error("the sender: {0}")]
    Sender(#[source] io::Error),
    #[error("the sender: {0}")]
    Packet(#[from] PacketError),
    #[error("the next node of the pipeline: {0}")]
    Mirror(String),
    #[error("the disk: {0}")]
    Disk(#[source] io::Error),
    #[error("the replica is somebody else's now, or is to be removed")]
    Cancelled,
}

/// Who sends a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A client, or the node before us in its pipeline: every packet is acknowledged.
    Client,
    /// A DataNode that copies a block by order: nothing is answered.
    Datanode,
    /// A DataNode that copies a block for a client's pipeline: the end is answered.
    Transfer(Becomes),
}

/// What a copy for a client's pipeline becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// One that a client writes on.
    Rbw,
    Final,
}

/// What is to be done with a replica that is here (HDFS: `BlockConstructionStage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reopening {
    Append,
    AppendRecovery,
    StreamingRecovery,
    CloseRecovery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    New(Origin),
    Again(Reopening),
}

/// What a WRITE_BLOCK asks for, checked.
#[derive(Debug)]
pub(crate) struct Setup {
    pub block: ExtendedBlock,
    pub checksum: Checksum,
    pub sender: Sender,
    pub request: OpWriteBlockProto,
    beginning: Beginning,
    storage_type: StorageType,
}

impl Setup {
    fn read(request: OpWriteBlockProto) -> Result<Setup, ReceiveError> {
        let bad = |what: String| ReceiveError::Request(what);
        let block =
            convert::extended_block(&request.header.base_header.block).map_err(|e| bad(e.to_string()))?;
        let checksum = Checksum::from_proto(&request.requested_checksum).map_err(|e| bad(e.to_string()))?;
        let storage_type =
            convert::storage_type_or_disk(request.storage_type).map_err(|e| bad(e.to_string()))?;
        let types = request.target_storage_types.len();
        if types != 0 && types != request.targets.len() {
            return Err(bad(format!("{types} storage types for {} targets", request.targets.len())));
        }
        let stage = Stage::try_from(request.stage).map_err(|_| bad(format!("stage {}", request.stage)))?;
        let by_client = !request.header.client_name.is_empty();
        let (sender, beginning) = match stage {
            // Whatever its stage says: a DataNode that sends copies (HDFS: `DataXceiver.isDatanode`).
            _ if !by_client => (Sender::Datanode, Beginning::New(Origin::Copy)),
            Stage::PipelineSetupCreate => (Sender::Client, Beginning::New(Origin::Client)),
            Stage::TransferRbw | Stage::TransferFinalized => {
                if !request.targets.is_empty() {
                    return Err(bad(format!("{} to more than one target", stage.as_str_name())));
                }
                let becomes = if stage == Stage::TransferRbw { Becomes::Rbw } else { Becomes::Final };
                (Sender::Transfer(becomes), Beginning::New(Origin::Transfer))
            }
            Stage::PipelineSetupAppend => (Sender::Client, Beginning::Again(Reopening::Append)),
            Stage::PipelineSetupAppendRecovery => {
                (Sender::Client, Beginning::Again(Reopening::AppendRecovery))
            }
            Stage::PipelineSetupStreamingRecovery => {
                (Sender::Client, Beginning::Again(Reopening::StreamingRecovery))
            }
            Stage::PipelineCloseRecovery => (Sender::Client, Beginning::Again(Reopening::CloseRecovery)),
            Stage::DataStreaming | Stage::PipelineClose => {
                return Err(bad(format!("stage {} begins nothing", stage.as_str_name())));
            }
        };
        Ok(Setup { block, checksum, sender, request, beginning, storage_type })
    }

    fn new_replica(&self, origin: Origin) -> Result<NewReplica, ReceiveError> {
        let block = self.block.block;
        let latest = GenStamp(self.request.latest_generation_stamp);
        // Clients before 3.4.1 send none; hdfs-native sends the block's own.
        let stamp = (origin == Origin::Client && latest.0 != 0).then_some(latest);
        if stamp.is_some_and(|stamp| stamp < block.stamp) {
            let what = format!("new generation stamp {latest} is older than that of {block}");
            return Err(ReceiveError::Request(what));
        }
        let (storage_type, checksum) = (self.storage_type, self.checksum);
        Ok(NewReplica { block, stamp, origin, storage_type, expected: block.length, checksum })
    }

    fn again(&self) -> Again {
        Again {
            block: self.block.block,
            stamp: GenStamp(self.request.latest_generation_stamp),
            least: self.request.min_bytes_rcvd,
            most: self.request.max_bytes_rcvd,
            expected: self.block.block.length,
            bytes_per_chunk: self.checksum.bytes_per_chunk(),
        }
    }

    /// Opens the replica; none if its block ended here.
    async fn begin(&self, node: &Node) -> Result<Option<OpenReplica>, ReceiveError> {
        let store = &node.store;
        Ok(match self.beginning {
            Beginning::New(origin) => Some(store.create(self.new_replica(origin)?).await?),
            Beginning::Again(Reopening::Append) => Some(store.append(self.again()).await?),
            Beginning::Again(Reopening::AppendRecovery) => Some(store.recover_append(self.again()).await?),
            Beginning::Again(Reopening::StreamingRecovery) => {
                Some(store.recover_streaming(self.again()).await?)
            }
            Beginning::Again(Reopening::CloseRecovery) => {
                store.recover_close(self.again()).await?;
                None
            }
        })
    }
}

/// The next node of a pipeline, connected.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub read: Framed<ReadHalf>,
    pub write: WriteHalf,
}

/// The sender's connection, on which another operation may come.
pub(crate) struct Kept {
    pub read: ReadHalf,
    /// What of it has arrived already.
    pub rest: BytesMut,
    pub write: WriteHalf,
}

/// Receives a block. If all went well, and who sent it is a client or the node before us, another operation may follow on
/// the connection: HDFS's DataNodes close it, and so do all of its clients.
///
/// # Errors
/// [`ReceiveError`]; the sender was told what it can be told.
pub(crate) async fn write_block(
    node: &Arc<Node>,
    read: ReadHalf,
    mut write: WriteHalf,
    rest: BytesMut,
    request: OpWriteBlockProto,
) -> Result<Option<Kept>, ReceiveError> {
    let setup = Setup::read(request)?;
    if node.store.pool() != Some(&setup.block.pool) {
        return Err(ReceiveError::Request(format!("pool {} is not ours", setup.block.pool)));
    }
    let mut connecting = pin!(maybe_done(connect_mirror(node, &setup)));
    let Some(open) = begin(node, &setup, connecting.as_mut()).await? else {
        return answer(&setup, connecting, &mut write).await.map(|_| None);
    };
    let growing = open.growing().clone();
    let mut open = Some(open);
    let result = tokio::select! {
        biased;
        () = growing.stop.notified() => Err(ReceiveError::Cancelled),
        result = run(node, (read, write), rest, &setup, connecting, &mut open) => result,
    };
    if let Err(ReceiveError::Disk(error)) = &result {
        node.store.examine(&growing.volume, error).await;
    }
    if let Some(open) = open {
        growing.rest();
        // A client's replica stays as it is, for the recovery of its block; a copy is of no use unfinished.
        if growing.kind == OpenKind::Temporary {
            node.store.abandon(open).await;
        }
    }
    result
}

/// Opens the replica. For a new block the next node is asked meanwhile: what its files take is not added up along the
/// pipeline. HDFS asks afterwards; what a node has then that had been asked in vain is an empty replica of a block
/// that its client abandons, as after any failure further up.
async fn begin(
    node: &Node,
    setup: &Setup,
    mut connecting: Pin<&mut MaybeDone<impl Future<Output = Connected>>>,
) -> Result<Option<OpenReplica>, ReceiveError> {
    let opening = setup.begin(node);
    if setup.beginning != Beginning::New(Origin::Client) {
        return opening.await;
    }
    let mut opening = pin!(opening);
    tokio::select! {
        biased;
        opened = &mut opening => opened,
        () = connecting.as_mut() => opening.await,
    }
}

async fn run(
    node: &Arc<Node>,
    (read, mut write): (ReadHalf, WriteHalf),
    rest: BytesMut,
    setup: &Setup,
    connecting: Pin<&mut MaybeDone<impl Future<Output = Connected>>>,
    open: &mut Option<OpenReplica>,
) -> Result<Option<Kept>, ReceiveError> {
    let mirror = answer(setup, connecting, &mut write).await?;
    let limit = READ_LIMIT + READ_LIMIT_PER_NODE * setup.request.targets.len() as u32;
    let pipeline = Pipeline::new(node, setup, mirror, Incoming::new(read, rest, limit), write);
    let ended = pipeline.run(open).await?;
    if setup.sender != Sender::Client {
        return Ok(None);
    }
    if let (Some(next), Some(mirror)) = (setup.request.targets.first(), ended.mirror) {
        node.mirrors.keep(xfer_name(next), mirror);
    }
    Ok(Some(ended.sender))
}

/// Answers the sender, if it waits for that, once the next node has answered.
async fn answer(
    setup: &Setup,
    mut connecting: Pin<&mut MaybeDone<impl Future<Output = Connected>>>,
    write: &mut WriteHalf,
) -> Result<Option<Mirror>, ReceiveError> {
    let mut out = BytesMut::new();
    connecting.as_mut().await;
    match connecting.take_output().expect("it was just awaited, and is taken once") {
        Ok((mirror, answer)) => {
            if setup.sender == Sender::Client {
                encode_response(&answer, &mut out);
                write_all(write, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
            }
            Ok(mirror)
        }
        Err(error) if setup.sender != Sender::Client => {
            tracing::warn!(block = %setup.block, %error, "goes on without the next node");
            Ok(None)
        }
        Err(error) => {
            let bad_link = setup.request.targets.first().map(xfer_name).unwrap_or_default();
            encode_response(&response_failure(Status::Error, &bad_link, &error.to_string()), &mut out);
            write_all(write, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
            Err(error)
        }
    }
}

/// The next node, if there is one, and what it answered.
type Connected = Result<(Option<Mirror>, BlockOpResponseProto), ReceiveError>;

/// Connects to the next node, if there is one, and waits for its answer when a client writes.
async fn connect_mirror(node: &Node, setup: &Setup) -> Connected {
    let Some((next, after)) = setup.request.targets.split_first() else {
        return Ok((None, response_success()));
    };
    let address = xfer_name(next);
    let fault = |error: io::Error| ReceiveError::Mirror(format!("{address}: {error}"));
    let mut out = BytesMut::new();
    encode_op(Op::WriteBlock, &for_mirror(&setup.request, after), &mut out);
    let limit = READ_LIMIT + READ_LIMIT_PER_NODE * after.len() as u32;
    let by_client = setup.sender == Sender::Client;
    // Who answers nothing would not show that it has gone.
    while let Some(mut mirror) = node.mirrors.take(&address).filter(|_| by_client) {
        if !mirror.read.is_quiet().await {
            continue;
        }
        mirror.read.set_limit(limit);
        match ask(&mut mirror, &out).await {
            // A failure further down is passed up as it is; then the sender hangs up, or goes on without us.
            Ok(answer) => return Ok((Some(mirror), answer)),
            Err(error) if hung_up(&error) => {}
            Err(error) => return Err(fault(error)),
        }
    }
    let stream = node.env.net.connect(&address, CONNECT_LIMIT).await.map_err(fault)?;
    let (read, write) = stream.into_split();
    let mut mirror = Mirror { read: Framed::new(read, limit), write };
    if !by_client {
        write_all(&mut mirror.write, &out, WRITE_LIMIT).await.map_err(fault)?;
        return Ok((Some(mirror), response_success()));
    }
    let answer = ask(&mut mirror, &out).await.map_err(fault)?;
    Ok((Some(mirror), answer))
}

async fn ask(mirror: &mut Mirror, request: &[u8]) -> io::Result<BlockOpResponseProto> {
    write_all(&mut mirror.write, request, WRITE_LIMIT).await?;
    mirror.read.response().await
}

/// Whether it closed the connection, as a node does after a silence.
fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// The request as the next node gets it: the original, with the targets after it.
fn for_mirror(request: &OpWriteBlockProto, after: &[DatanodeInfoProto]) -> OpWriteBlockProto {
    let rest = |list: &[String]| list.iter().skip(1).cloned().collect();
    OpWriteBlockProto {
        targets: after.to_vec(),
        storage_type: request.target_storage_types.first().copied().or(request.storage_type),
        target_storage_types: request.target_storage_types.iter().skip(1).copied().collect(),
        pinning: request.target_pinnings.first().copied(),
        target_pinnings: request.target_pinnings.iter().skip(1).copied().collect(),
        storage_id: request.target_storage_ids.first().cloned(),
        target_storage_ids: rest(&request.target_storage_ids),
        ..request.clone()
    }
}
