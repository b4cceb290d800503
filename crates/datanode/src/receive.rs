//! WRITE_BLOCK: takes a block in, packet by packet, passes each on to the next node of the pipeline
//! while it comes, hands it to the disk and acknowledges it (HDFS: `DataXceiver.writeBlock`,
//! `BlockReceiver`). The walk goes on in `store`.
//!
//! Three activities in one task, joined by two short queues: *ingest* reads packets, verifies them
//! and forwards them; *persist* writes what was gathered; *respond* joins the acknowledgements of the
//! nodes further down with ours, in order.
//!
//! Invariants: nothing is acknowledged before it was handed to the operating system; the last
//! acknowledgement leaves after the replica is final; bytes with a wrong checksum go nowhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use mobula_net::{ReadHalf, WriteHalf};
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_proto::hdfs::{DatanodeInfoProto, DnTransferAckProto, OpWriteBlockProto, Status};
use mobula_types::ExtendedBlock;
use mobula_wire::ack::{PipelineAck, UNKNOWN_SEQNO};
use mobula_wire::checksum::Checksum;
use mobula_wire::datatransfer::{Op, encode_op, encode_response, response_failure, response_success};
use mobula_wire::packet::HEARTBEAT_SEQNO;
use mobula_wire::{convert, encode_delimited};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::batch::{Arrived, Batch, PacketError, Tail};
use crate::framed::{Framed, write_all, write_two};
use crate::incoming::Incoming;
use crate::node::{CONNECT_LIMIT, Node, READ_LIMIT, READ_LIMIT_PER_NODE, WRITE_LIMIT, xfer_name};
use crate::replica::{Growing, OpenKind, OpenReplica};
use crate::reports::BadBlock;

/// Batches of one connection: one is filled while the other is written.
const BATCHES: usize = 2;
/// Acknowledgements that wait for the nodes further down. The sender's window bounds it, too.
const ACKS_MAX: usize = 4096;
/// Between repeated acknowledgements that say that the next node is gone.
const BROKEN_MIRROR_REPEAT: Duration = Duration::from_secs(1);
/// What is still read from a sender that was told of an error, in bytes, so that it can read the answer.
const DRAIN_MAX: usize = 64 << 20;

/// Why receiving a block ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the request: {0}")]
    Request(String),
    #[error("refused: {0}")]
    Create(#[from] crate::store::CreateError),
    #[error("the sender: {0}")]
    Sender(#[source] io::Error),
    #[error("the sender: {0}")]
    Packet(#[from] PacketError),
    #[error("the next node of the pipeline: {0}")]
    Mirror(String),
    #[error("the disk: {0}")]
    Disk(#[source] io::Error),
    #[error("the replica is to be removed")]
    Cancelled,
}

/// Who sends a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// A client, or the node before us in its pipeline: every packet is acknowledged.
    Client,
    /// A DataNode that copies a block by order: nothing is answered.
    Datanode,
    /// A DataNode that copies a block for a client's pipeline: the end is answered.
    Transfer,
}

/// What a WRITE_BLOCK asks for, checked.
#[derive(Debug)]
struct Setup {
    block: ExtendedBlock,
    checksum: Checksum,
    sender: Sender,
    request: OpWriteBlockProto,
}

impl Setup {
    fn read(request: OpWriteBlockProto) -> Result<Setup, ReceiveError> {
        let bad = |what: String| ReceiveError::Request(what);
        let block =
            convert::extended_block(&request.header.base_header.block).map_err(|e| bad(e.to_string()))?;
        let checksum = Checksum::from_proto(&request.requested_checksum).map_err(|e| bad(e.to_string()))?;
        let types = request.target_storage_types.len();
        if types != 0 && types != request.targets.len() {
            return Err(bad(format!("{types} storage types for {} targets", request.targets.len())));
        }
        let stage = Stage::try_from(request.stage).map_err(|_| bad(format!("stage {}", request.stage)))?;
        let by_client = !request.header.client_name.is_empty();
        let sender = match stage {
            Stage::PipelineSetupCreate if by_client => Sender::Client,
            Stage::PipelineSetupCreate => Sender::Datanode,
            Stage::TransferFinalized if request.targets.is_empty() => Sender::Transfer,
            // Their place: recovery of pipelines, and append.
            stage => return Err(bad(format!("stage {} is not supported yet", stage.as_str_name()))),
        };
        Ok(Setup { block, checksum, sender, request })
    }
}

/// The next node of a pipeline, connected.
#[derive(Debug)]
struct Mirror {
    read: Framed<ReadHalf>,
    write: WriteHalf,
}

/// Receives a block; the connection is closed afterwards, whatever happened.
///
/// # Errors
/// [`ReceiveError`]; the sender was told what it can be told.
pub(crate) async fn write_block(
    node: &Arc<Node>,
    read: ReadHalf,
    write: WriteHalf,
    rest: BytesMut,
    request: OpWriteBlockProto,
) -> Result<(), ReceiveError> {
    let setup = Setup::read(request)?;
    let kind = if setup.sender == Sender::Client { OpenKind::Rbw } else { OpenKind::Temporary };
    if node.store.pool() != Some(&setup.block.pool) {
        return Err(ReceiveError::Request(format!("pool {} is not ours", setup.block.pool)));
    }
    let block = mobula_types::Block { length: 0, ..setup.block.block };
    let storage_type = convert::storage_type_or_disk(setup.request.storage_type)
        .map_err(|error| ReceiveError::Request(error.to_string()))?;
    let expected = setup.block.block.length;
    let open = node.store.create(block, kind, storage_type, expected, setup.checksum).await?;
    let growing = open.0.clone();
    let mut open = Some(open);
    let result = tokio::select! {
        biased;
        () = growing.stop.notified() => Err(ReceiveError::Cancelled),
        result = run(node, (read, write), rest, &setup, &mut open) => result,
    };
    if let Err(ReceiveError::Disk(error)) = &result {
        node.store.examine(&growing.volume, error).await;
    }
    // A client's replica stays as it is, for the recovery of its block; a copy is of no use unfinished.
    if let (Some(open), OpenKind::Temporary) = (open, kind) {
        node.store.abandon(open).await;
    }
    result
}

async fn run(
    node: &Arc<Node>,
    (read, mut write): (ReadHalf, WriteHalf),
    rest: BytesMut,
    setup: &Setup,
    open: &mut Option<OpenReplica>,
) -> Result<(), ReceiveError> {
    let mut out = BytesMut::new();
    let mirror = match connect_mirror(node, setup).await {
        Ok((mirror, answer)) => {
            if setup.sender == Sender::Client {
                encode_response(&answer, &mut out);
                write_all(&mut write, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
            }
            mirror
        }
        Err(error) if setup.sender != Sender::Client => {
            tracing::warn!(block = %setup.block, %error, "goes on without the next node");
            None
        }
        Err(error) => {
            let bad_link = setup.request.targets.first().map(xfer_name).unwrap_or_default();
            encode_response(&response_failure(Status::Error, &bad_link, &error.to_string()), &mut out);
            write_all(&mut write, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
            return Err(error);
        }
    };
    let limit = READ_LIMIT + READ_LIMIT_PER_NODE * setup.request.targets.len() as u32;
    Pipeline::new(node, setup, mirror, Incoming::new(read, rest, limit), write).run(open).await
}

/// Connects to the next node, if there is one, and waits for its answer when a client writes.
async fn connect_mirror(
    node: &Node,
    setup: &Setup,
) -> Result<(Option<Mirror>, mobula_proto::hdfs::BlockOpResponseProto), ReceiveError> {
    let Some((next, after)) = setup.request.targets.split_first() else {
        return Ok((None, response_success()));
    };
    let fault = |error: io::Error| ReceiveError::Mirror(format!("{}: {error}", xfer_name(next)));
    let stream = node.env.net.connect(&xfer_name(next), CONNECT_LIMIT).await.map_err(fault)?;
    let (read, mut write) = stream.into_split();
    let mut out = BytesMut::new();
    encode_op(Op::WriteBlock, &for_mirror(&setup.request, after), &mut out);
    write_all(&mut write, &out, WRITE_LIMIT).await.map_err(fault)?;
    let limit = READ_LIMIT + READ_LIMIT_PER_NODE * after.len() as u32;
    let mut mirror = Mirror { read: Framed::new(read, limit), write };
    if setup.sender != Sender::Client {
        return Ok((Some(mirror), response_success()));
    }
    let answer = mirror.read.response().await.map_err(fault)?;
    // A failure further down is passed up as it is; then the sender hangs up, or goes on without us.
    Ok((Some(mirror), answer))
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

/// A packet that is on its way to its acknowledgement.
#[derive(Clone, Copy, Debug)]
enum Pending {
    /// It is with the operating system.
    Stored(Arrived),
    /// Its bytes were wrong.
    Corrupt(i64),
}

/// Everything that receives one block.
struct Pipeline<'a> {
    node: &'a Arc<Node>,
    setup: &'a Setup,
    mirror_write: Option<WriteHalf>,
    mirror_read: Option<Framed<ReadHalf>>,
    incoming: Incoming<ReadHalf>,
    upstream: WriteHalf,
    state: PipelineState,
}

/// What the three activities tell each other.
#[derive(Debug, Default)]
struct PipelineState {
    mirror_broken: AtomicBool,
    broke: Notify,
    sender_gone: AtomicBool,
    gone: Notify,
}

impl PipelineState {
    fn break_mirror(&self) {
        self.mirror_broken.store(true, Ordering::Release);
        self.broke.notify_one();
    }

    fn lose_sender(&self) {
        self.sender_gone.store(true, Ordering::Release);
        self.gone.notify_one();
    }
}

impl<'a> Pipeline<'a> {
    fn new(
        node: &'a Arc<Node>,
        setup: &'a Setup,
        mirror: Option<Mirror>,
        incoming: Incoming<ReadHalf>,
        upstream: WriteHalf,
    ) -> Pipeline<'a> {
        let (mirror_read, mirror_write) = match mirror {
            Some(mirror) => (Some(mirror.read), Some(mirror.write)),
            None => (None, None),
        };
        let state = PipelineState::default();
        Pipeline { node, setup, mirror_write, mirror_read, incoming, upstream, state }
    }

    async fn run(self, open: &mut Option<OpenReplica>) -> Result<(), ReceiveError> {
        let growing = open.as_ref().expect("the replica was just made").0.clone();
        let Pipeline { node, setup, mirror_write, mirror_read, mut incoming, mut upstream, state } = self;
        let (full, filled) = mpsc::channel(1);
        let (spare, spares) = mpsc::channel(BATCHES);
        for _ in 0..BATCHES {
            spare.try_send(Batch::default()).expect("the queue holds all batches");
        }
        let (stored, acks) = mpsc::channel(ACKS_MAX);
        let corrupt = stored.clone();
        let ingest = Ingest { setup, state: &state, mirror: mirror_write };
        let ingest = async {
            let result = ingest.run(&mut incoming, spares, full).await;
            if let Err(ReceiveError::Sender(_)) = &result {
                state.lose_sender();
            }
            (result, corrupt)
        };
        let respond = Respond { node, setup, state: &state, growing: &growing, mirror: mirror_read };
        let (ingested, persisted, responded) = {
            let ingest = async {
                let (result, corrupt) = ingest.await;
                // Behind all that arrived before it, once that is stored: see `persist`.
                (result, corrupt)
            };
            let persist = persist(&growing, filled, spare, stored);
            let chain = async {
                let (ingest, persist) = tokio::join!(ingest, persist);
                let (ingested, corrupt) = ingest;
                if let Err(ReceiveError::Packet(PacketError::Checksum { seqno, .. })) = &ingested {
                    // The queue is open as long as somebody answers; if nobody does, nobody needs to know.
                    let _ = corrupt.send(Pending::Corrupt(*seqno)).await;
                }
                drop(corrupt);
                (ingested, persist)
            };
            let respond = respond.run(acks, &mut upstream, open);
            tokio::pin!(chain);
            tokio::pin!(respond);
            let mut chained = None;
            let mut responded = None;
            while chained.is_none() || responded.is_none() {
                tokio::select! {
                    biased;
                    result = &mut chain, if chained.is_none() => chained = Some(result),
                    result = &mut respond, if responded.is_none() => {
                        let failed = result.is_err();
                        responded = Some(result);
                        if failed { break; }
                    }
                }
                // A disk that failed, or a sender out of its mind: nothing more is answered.
                if let Some((Err(ReceiveError::Packet(error)), _)) = &chained
                    && !matches!(error, PacketError::Checksum { .. })
                {
                    break;
                }
                if let Some((_, Err(_))) = &chained {
                    break;
                }
            }
            let (ingested, persisted) = chained.unwrap_or((Ok(()), Ok(())));
            (ingested, persisted, responded.unwrap_or(Ok(())))
        };
        if let Err(ReceiveError::Packet(PacketError::Checksum { .. })) = &ingested {
            report_source(node, setup);
            // So that the answer is not lost with the connection: read on until the sender hangs up.
            drop(upstream);
            incoming.drain(DRAIN_MAX).await;
        }
        persisted.and(responded).and(ingested)
    }
}

/// A DataNode sent bad bytes: its replica is bad.
fn report_source(node: &Node, setup: &Setup) {
    if let (Sender::Datanode, Some(source)) = (setup.sender, &setup.request.source) {
        let bad = BadBlock { block: setup.block.block, storage: None, source: Some(source.clone()) };
        node.store.reports.bad(&bad);
    }
}

/// Reads, verifies and forwards.
struct Ingest<'a> {
    setup: &'a Setup,
    state: &'a PipelineState,
    mirror: Option<WriteHalf>,
}

impl Ingest<'_> {
    async fn run(
        mut self,
        incoming: &mut Incoming<ReadHalf>,
        mut spares: mpsc::Receiver<Batch>,
        full: mpsc::Sender<Batch>,
    ) -> Result<(), ReceiveError> {
        let mut tail = Tail::default();
        let mut spare = None;
        loop {
            let taken = match spare.take() {
                Some(batch) => Some(batch),
                None => spares.recv().await,
            };
            let Some(mut batch) = taken else { return Ok(()) };
            batch.begin(tail.length);
            let filled = self.fill(incoming, &mut batch, &mut tail, &mut spares, &mut spare).await;
            let last = batch.packets.last().is_some_and(|packet| packet.last);
            if !batch.packets.is_empty() && full.send(batch).await.is_err() {
                // The disk failed; that is told elsewhere.
                return Ok(());
            }
            filled?;
            if last {
                return Ok(());
            }
        }
    }

    /// Takes packets until there is enough for a write, or nothing more is here and the disk is idle,
    /// which shows by a batch that came back: `spare`.
    async fn fill(
        &mut self,
        incoming: &mut Incoming<ReadHalf>,
        batch: &mut Batch,
        tail: &mut Tail,
        spares: &mut mpsc::Receiver<Batch>,
        spare: &mut Option<Batch>,
    ) -> Result<(), ReceiveError> {
        loop {
            let prefix = incoming.prefix().await.map_err(ReceiveError::Sender)?;
            let front = incoming.take_front(&prefix);
            let (at, length) = (batch.filled, prefix.header.data_length as usize);
            incoming.data(&mut batch.data, at, length).await.map_err(ReceiveError::Sender)?;
            batch.add(&prefix.header, &front[prefix.length..], self.setup.checksum, tail)?;
            self.forward(&front, &batch.data[at..at + length]).await;
            if prefix.header.last || batch.is_full() {
                return Ok(());
            }
            if !incoming.is_ready().await {
                tokio::select! {
                    biased;
                    // None: the disk failed; that is told elsewhere.
                    back = spares.recv() => {
                        *spare = back;
                        return Ok(());
                    }
                    () = incoming.more() => {}
                }
            }
        }
    }

    /// Passes a packet on as it came. A mirror that fails is given up; the block is stored here all the same.
    async fn forward(&mut self, front: &[u8], data: &[u8]) {
        let Some(mirror) = &mut self.mirror else { return };
        if let Err(error) = write_two(mirror, front, data, WRITE_LIMIT).await {
            tracing::warn!(block = %self.setup.block, %error, "the next node of the pipeline is gone");
            self.mirror = None;
            self.state.break_mirror();
        }
    }
}

/// Hands batches to the operating system, one after the other, and says so.
async fn persist(
    growing: &Arc<Growing>,
    mut filled: mpsc::Receiver<Batch>,
    spare: mpsc::Sender<Batch>,
    stored: mpsc::Sender<Pending>,
) -> Result<(), ReceiveError> {
    let mut folder_synced = false;
    while let Some(batch) = filled.recv().await {
        let sync = batch.packets.iter().any(|packet| packet.sync && !packet.last);
        let sync_folder = sync && !folder_synced;
        folder_synced |= sync;
        let to = growing.clone();
        let write = move || {
            if let Some(write) = batch.write(to.checksum) {
                OpenReplica::write(&to, &write)?;
            }
            if sync {
                to.data.sync_data()?;
                to.meta.sync_data()?;
            }
            if sync_folder {
                to.volume.disk.sync_folder(&to.folder)?;
            }
            Ok::<Batch, io::Error>(batch)
        };
        let pool = if sync { &growing.volume.sync_pool } else { &growing.volume.pool };
        let batch = pool.run(write).await.map_err(ReceiveError::Disk)?;
        for packet in &batch.packets {
            if stored.send(Pending::Stored(*packet)).await.is_err() {
                return Ok(());
            }
        }
        // Nobody fills it any more after the last packet.
        let _ = spare.send(batch).await;
    }
    Ok(())
}

/// Acknowledges.
struct Respond<'a> {
    node: &'a Arc<Node>,
    setup: &'a Setup,
    state: &'a PipelineState,
    growing: &'a Arc<Growing>,
    mirror: Option<Framed<ReadHalf>>,
}

/// What the nodes further down say of a packet.
enum Downstream {
    /// There is none.
    Nobody,
    /// Their answers.
    Said(PipelineAck),
    /// They are out of reach.
    Broken,
}

impl Respond<'_> {
    async fn run(
        mut self,
        mut acks: mpsc::Receiver<Pending>,
        upstream: &mut WriteHalf,
        open: &mut Option<OpenReplica>,
    ) -> Result<(), ReceiveError> {
        let mut out = BytesMut::new();
        while let Some(pending) = acks.recv().await {
            let packet = match pending {
                Pending::Stored(packet) => packet,
                Pending::Corrupt(seqno) => {
                    if self.setup.sender == Sender::Client {
                        PipelineAck::new(seqno, [Status::ErrorChecksum]).encode(&mut out);
                        write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
                    }
                    return Ok(());
                }
            };
            let downstream = tokio::select! {
                biased;
                downstream = self.downstream(&packet), if !packet.last => downstream,
                // Not there yet: what is known already is not held back for it.
                () = std::future::ready(()), if !out.is_empty() => {
                    write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
                    out.clear();
                    self.downstream_and_finish(&packet, open).await?
                }
                else => self.downstream_and_finish(&packet, open).await?,
            };
            if self.setup.sender == Sender::Client {
                self.acknowledge(&packet, downstream, &mut out, upstream).await?;
                if acks.is_empty() || packet.last || out.len() > 4096 {
                    write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
                    out.clear();
                }
            }
            if packet.last {
                return self.end(upstream).await;
            }
        }
        Ok(())
    }

    /// Waits for what the next node says of a packet. Behind the last one it makes the replica final
    /// meanwhile: every node of the pipeline syncs at the same time, not one after the other.
    async fn downstream_and_finish(
        &mut self,
        packet: &Arrived,
        open: &mut Option<OpenReplica>,
    ) -> Result<Downstream, ReceiveError> {
        if !packet.last {
            return Ok(self.downstream(packet).await);
        }
        let finish = finish(self.node, self.setup, self.growing, packet, open);
        let (finished, downstream) = tokio::join!(biased; finish, self.downstream(packet));
        finished.map(|()| downstream)
    }

    /// Waits for what the next node says of a packet.
    async fn downstream(&mut self, packet: &Arrived) -> Downstream {
        if self.setup.sender != Sender::Client {
            return Downstream::Nobody;
        }
        let Some(mirror) = &mut self.mirror else { return Downstream::Nobody };
        if self.state.mirror_broken.load(Ordering::Acquire) {
            return Downstream::Broken;
        }
        let ack = tokio::select! {
            biased;
            ack = mirror.ack() => ack,
            () = self.state.broke.notified() => return Downstream::Broken,
        };
        match ack {
            Ok(ack) if ack.seqno == packet.seqno || ack.seqno == UNKNOWN_SEQNO => Downstream::Said(ack),
            Ok(ack) => {
                tracing::warn!(block = %self.setup.block, expected = packet.seqno, got = ack.seqno, "acks out of order");
                Downstream::Broken
            }
            Err(error) => {
                tracing::warn!(block = %self.setup.block, %error, "the next node of the pipeline is gone");
                Downstream::Broken
            }
        }
    }

    async fn acknowledge(
        &mut self,
        packet: &Arrived,
        downstream: Downstream,
        out: &mut BytesMut,
        upstream: &mut WriteHalf,
    ) -> Result<(), ReceiveError> {
        let ack = match downstream {
            Downstream::Nobody => PipelineAck::new(packet.seqno, [Status::Success]),
            Downstream::Said(mut ack) => {
                if ack.replies.first().is_some_and(|reply| reply.status == Status::ErrorChecksum) {
                    // We sent it bad bytes: the sender is to see this node fail, not that one.
                    return Err(ReceiveError::Mirror("found the bytes that we sent bad".into()));
                }
                ack.replies.insert(0, Status::Success.into());
                ack
            }
            Downstream::Broken => {
                write_all(upstream, out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
                out.clear();
                return self.repeat_broken(upstream).await;
            }
        };
        if ack.is_success() && packet.seqno != HEARTBEAT_SEQNO {
            // Before it leaves: what a client saw acknowledged is visible everywhere.
            self.growing.acknowledge(packet.end);
        }
        ack.encode(out);
        Ok(())
    }

    /// Says that the next node is gone, until the sender hangs up. What it still sends is stored.
    async fn repeat_broken(&self, upstream: &mut WriteHalf) -> Result<(), ReceiveError> {
        let mut out = BytesMut::new();
        PipelineAck::new(UNKNOWN_SEQNO, [Status::Success, Status::Error]).encode(&mut out);
        let give_up = tokio::time::Instant::now() + READ_LIMIT;
        while tokio::time::Instant::now() < give_up && !self.state.sender_gone.load(Ordering::Acquire) {
            write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
            // Woken at once when the sender hangs up.
            let _ = timeout(BROKEN_MIRROR_REPEAT, self.state.gone.notified()).await;
        }
        Err(ReceiveError::Mirror("is gone".into()))
    }

    async fn end(&self, upstream: &mut WriteHalf) -> Result<(), ReceiveError> {
        if self.setup.sender == Sender::Transfer {
            let mut out = BytesMut::new();
            encode_delimited(&DnTransferAckProto { status: Status::Success as i32 }, &mut out);
            write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
        }
        // The sender may be gone already; it has its answer.
        let _ = upstream.shutdown().await;
        Ok(())
    }
}

/// Makes the replica final.
async fn finish(
    node: &Node,
    setup: &Setup,
    growing: &Growing,
    packet: &Arrived,
    open: &mut Option<OpenReplica>,
) -> Result<(), ReceiveError> {
    let expected = setup.block.block.length;
    if setup.sender != Sender::Client && expected != 0 && packet.end != expected {
        let what = format!("{} bytes of {expected} came", packet.end);
        return Err(ReceiveError::Request(what));
    }
    let open = open.take().expect("a block ends once");
    growing.acknowledge(packet.end);
    node.store.finalise(open, packet.end).await.map(|_| ()).map_err(ReceiveError::Disk)
}
