//! A DataNode in memory that keeps HDFS's rules for replicas (states, generation stamps, what each
//! stage of a write needs) as strictly as Apache's, says as little when it refuses (it hangs up), and
//! fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_net::{Env, Listener, Stream};
use mobula_proto::hdfs;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_rpc::{Call, Responder, RpcService};
use mobula_wire::ack::{PipelineAck, Reply, Slow, UNKNOWN_SEQNO};
use mobula_wire::checksum::{Checksum, ChecksumKind};
use mobula_wire::datatransfer::{self, Op, OpDecoder, Request};
use mobula_wire::packet::{HEARTBEAT_SEQNO, PacketHeader, PacketPrefix};
use mobula_wire::remote::{RemoteException, class};
use mobula_wire::{WireError, encode_delimited, try_decode_delimited};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake::{READ_PACKET, decode};

const CHUNK: usize = 512;

pub struct FakeNode {
    pub env: Env,
    pub index: usize,
    pub data: SocketAddr,
    pub ipc: SocketAddr,
    pub state: Mutex<NodeState>,
    /// All nodes of the cluster.
    pub peers: OnceLock<Vec<Arc<FakeNode>>>,
}

#[derive(Default)]
pub struct NodeState {
    pub replicas: BTreeMap<u64, Replica>,
    /// Hangs up on everybody.
    pub dead: bool,
    /// Takes connections and says nothing.
    pub hung: bool,
    /// At which moment of a write it waits until this is cleared.
    pub held: Option<Moment>,
    /// Something waits for that.
    pub waits: bool,
    /// What goes wrong in a write, and when.
    pub fault: Option<(Moment, Failure)>,
    /// Dies in the middle of a read after so many bytes.
    pub dies_after_bytes_read: Option<usize>,
    /// Acknowledges the next packet as one with a wrong checksum.
    pub claims_bad_checksum: bool,
    /// Takes a read and says nothing more.
    pub stalls_reads: bool,
    /// Calls itself slow in every ack.
    pub slow: bool,
    /// What is copied to it does not arrive.
    pub refuses_copies: bool,
    pub connections: usize,
    pub reads: usize,
    pub statuses: Vec<i32>,
    pub syncs: usize,
    pub stages: Vec<Stage>,
    pub copies: usize,
    pub packets: usize,
    /// Calls that wait for ever.
    waiting: Vec<Responder>,
}

/// When in a write. Packets are counted over all writes of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the next set-up is answered.
    SetUp,
    /// Before it looks at the packet after so many.
    Packet(usize),
    /// After it stored that packet and passed it on, before it acknowledges it.
    Ack(usize),
    /// After it ended a block, before it says so.
    End,
    /// After it sent a copy of a block to another node, before it says so.
    Copy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Dies as a process does: its connections break, and its open replicas wait for recovery.
    Dies,
    /// Says nothing any more.
    Hangs,
    /// Restarts in order, for so many milliseconds: open replicas stay what they are.
    Restarts(u64),
    /// Acknowledges a packet that was not sent.
    AcksTheFuture,
    /// Forgets the node after it in its ack.
    AcksForOneOnly,
}

#[derive(Default, Clone)]
pub struct Replica {
    pub data: Vec<u8>,
    /// The sums as they were when the bytes came, so that what rots can be told.
    sums: Vec<u8>,
    pub finalized: bool,
    pub stamp: u64,
    /// What was acknowledged by this node and those after it.
    pub acked: usize,
    /// Bytes on disk.
    pub synced: usize,
    /// Its node was started again: no writer may go on with it.
    waits_for_recovery: bool,
    /// Which writer it has; one before that is stopped.
    writer: u64,
}

impl Replica {
    /// Cuts, and computes the sums of what is left.
    fn cut(&mut self, length: usize) {
        self.data.truncate(length);
        self.sum_from(length);
    }

    /// Computes the sums from the chunk of `offset` on.
    fn sum_from(&mut self, offset: usize) {
        let chunk = offset / CHUNK;
        self.sums.truncate(chunk * 4);
        let mut sums = BytesMut::new();
        Checksum::default_crc32c().compute(&self.data[chunk * CHUNK..], &mut sums);
        self.sums.extend_from_slice(&sums);
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionAborted.into())
}

impl FakeNode {
    pub fn info(&self) -> hdfs::DatanodeInfoProto {
        hdfs::DatanodeInfoProto {
            id: hdfs::DatanodeIdProto {
                ip_addr: "127.0.0.1".into(),
                host_name: "localhost".into(),
                datanode_uuid: self.uuid(),
                xfer_port: self.data.port().into(),
                ipc_port: self.ipc.port().into(),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    pub fn uuid(&self) -> String {
        format!("uuid-{}", self.index)
    }

    /// Comes back after it died or hung, as a process that was started again.
    pub fn come_back(&self) {
        let mut state = self.state.lock();
        (state.dead, state.hung) = (false, false);
        for replica in state.replicas.values_mut().filter(|replica| !replica.finalized) {
            replica.waits_for_recovery = true;
        }
    }

    pub async fn serve(self: Arc<Self>, listener: Listener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            self.state.lock().connections += 1;
            let node = self.clone();
            tokio::spawn(async move {
                let _ = node.talk(stream).await;
            });
        }
    }

    async fn check_alive(&self) -> io::Result<()> {
        let (dead, hung) = {
            let state = self.state.lock();
            (state.dead, state.hung)
        };
        if hung {
            return std::future::pending().await;
        }
        match dead {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    async fn talk(self: Arc<Self>, mut stream: Stream) -> io::Result<()> {
        let mut input = BytesMut::new();
        loop {
            self.check_alive().await?;
            let mut decoder = OpDecoder;
            let request = loop {
                match decoder.next(&mut input) {
                    Ok(Some(request)) => break request,
                    Ok(None) => more(&mut stream, &mut input).await?,
                    Err(_) => return Err(io::ErrorKind::InvalidData.into()),
                }
            };
            self.check_alive().await?;
            match request {
                Request::WriteBlock(op) => return self.write(stream, input, op).await,
                Request::ReadBlock(op) => self.read(&mut stream, &mut input, op).await?,
                Request::BlockChecksum(op) => return self.checksum(stream, op).await,
                Request::TransferBlock(op) => return self.transfer(stream, op).await,
                _ => return Ok(()),
            }
        }
    }

    /// What was planned for `moment`, if this is it.
    fn planned(&self, moment: Moment) -> Option<Failure> {
        let mut state = self.state.lock();
        let (_, failure) = state.fault.take_if(|(planned, _)| *planned == moment)?;
        Some(failure)
    }

    fn is_held(&self, moment: Moment) -> bool {
        let mut state = self.state.lock();
        let held = state.held == Some(moment);
        state.waits |= held;
        held
    }

    /// Lets what was planned for `moment` go wrong, unless it is a lie that only the acks tell.
    async fn meet(self: &Arc<Self>, moment: Moment, stream: &mut Stream) -> io::Result<Option<Failure>> {
        while self.is_held(moment) {
            tokio::task::yield_now().await;
        }
        let failure = self.planned(moment);
        match failure {
            Some(Failure::Dies) => self.state.lock().dead = true,
            Some(Failure::Hangs) => self.state.lock().hung = true,
            Some(Failure::Restarts(pause)) => {
                let mut ack = BytesMut::new();
                PipelineAck::new(UNKNOWN_SEQNO, [hdfs::Status::OobRestart]).encode(&mut ack);
                stream.write_all(&ack).await?;
                self.state.lock().dead = true;
                let node = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    node.state.lock().dead = false;
                });
            }
            other => return Ok(other),
        }
        self.check_alive().await?;
        Ok(None)
    }

    /// Opens a replica as the stage wants it; answers the number of its writer.
    fn open(&self, op: &hdfs::OpWriteBlockProto) -> io::Result<u64> {
        let mut state = self.state.lock();
        let block = &op.header.base_header.block;
        let (old, new) = (block.generation_stamp, op.latest_generation_stamp);
        let stage = op.stage();
        state.stages.push(stage);
        if stage == Stage::PipelineSetupCreate {
            assert_eq!(new, 0);
            if state.replicas.contains_key(&block.block_id) {
                return refused();
            }
            let replica = Replica { stamp: old, ..Replica::default() };
            state.replicas.insert(block.block_id, replica);
            return Ok(0);
        }
        let Some(replica) = state.replicas.get_mut(&block.block_id) else { return refused() };
        let (min, max) = (op.min_bytes_rcvd as usize, op.max_bytes_rcvd as usize);
        let stamps = (old..=new).contains(&replica.stamp) && !replica.waits_for_recovery;
        let whole = replica.data.len() == min && (replica.finalized || replica.acked == min);
        let fits = match stage {
            Stage::PipelineSetupAppend => replica.finalized && replica.stamp == old && whole,
            Stage::PipelineSetupAppendRecovery | Stage::PipelineCloseRecovery => stamps && whole,
            Stage::PipelineSetupStreamingRecovery => {
                stamps && !replica.finalized && replica.acked >= min && replica.data.len() <= max
            }
            _ => false,
        };
        if !fits {
            return refused();
        }
        replica.cut(replica.acked);
        replica.synced = replica.synced.min(replica.acked);
        replica.stamp = new;
        replica.finalized = stage == Stage::PipelineCloseRecovery;
        replica.writer += 1;
        Ok(replica.writer)
    }

    async fn write(
        self: Arc<Self>,
        mut stream: Stream,
        mut input: BytesMut,
        op: hdfs::OpWriteBlockProto,
    ) -> io::Result<()> {
        let id = op.header.base_header.block.block_id;
        self.meet(Moment::SetUp, &mut stream).await?;
        let writer = self.open(&op)?;
        let mut mirror = None;
        let mut answer = BytesMut::new();
        if let Some((next, rest)) = op.targets.split_first() {
            let address = format!("{}:{}", next.id.ip_addr, next.id.xfer_port);
            match connect_mirror(&self.env, &address, &op, rest).await {
                Ok(Ok(link)) => mirror = Some(link),
                Ok(Err(response)) => {
                    datatransfer::encode_response(&response, &mut answer);
                    return stream.write_all(&answer).await;
                }
                Err(_) => {
                    let response = datatransfer::response_failure(hdfs::Status::Error, &address, "no mirror");
                    datatransfer::encode_response(&response, &mut answer);
                    return stream.write_all(&answer).await;
                }
            }
        }
        datatransfer::encode_response(&datatransfer::response_success(), &mut answer);
        stream.write_all(&answer).await?;
        loop {
            let (prefix, packet) = packet(&mut stream, &mut input).await?;
            self.check_alive().await?;
            let heartbeat = prefix.header.seqno == HEARTBEAT_SEQNO;
            let count = self.state.lock().packets;
            self.meet(Moment::Packet(count), &mut stream).await?;
            self.state.lock().packets += usize::from(!heartbeat);
            let mut replies = vec![self.store(id, writer, &prefix, &packet)?];
            let mut seqno = prefix.header.seqno;
            if let Some((stream, input)) = &mut mirror {
                match forward(stream, input, &packet).await {
                    Ok(ack) => {
                        seqno = ack.seqno;
                        replies.extend(ack.replies);
                    }
                    // As HDFS says that the node after it is gone, whichever packet it is.
                    Err(_) => {
                        seqno = UNKNOWN_SEQNO;
                        replies.push(hdfs::Status::Error.into());
                    }
                }
            }
            self.acknowledge(id, writer, &prefix, &replies)?;
            let moment = if prefix.header.last { Moment::End } else { Moment::Ack(count) };
            match self.meet(moment, &mut stream).await? {
                Some(Failure::AcksTheFuture) => seqno += 1,
                Some(Failure::AcksForOneOnly) => replies.truncate(1),
                _ => {}
            }
            let mut ack = BytesMut::new();
            PipelineAck { seqno, replies, downstream_nanos: 0 }.encode(&mut ack);
            stream.write_all(&ack).await?;
            if prefix.header.last {
                return Ok(());
            }
        }
    }

    /// Checks and stores a packet.
    fn store(&self, id: u64, writer: u64, prefix: &PacketPrefix, packet: &Bytes) -> io::Result<Reply> {
        let mut state = self.state.lock();
        let slow = if state.slow { Slow::Slow } else { Slow::Normal };
        let success = Reply { slow, ..hdfs::Status::Success.into() };
        if std::mem::take(&mut state.claims_bad_checksum) {
            return Ok(hdfs::Status::ErrorChecksum.into());
        }
        let PacketHeader { offset_in_block, seqno, last, sync, .. } = prefix.header;
        if seqno == HEARTBEAT_SEQNO {
            return Ok(success);
        }
        state.syncs += usize::from(sync);
        let sums = packet.slice(prefix.length..prefix.length + prefix.checksum_length as usize);
        let data = packet.slice(prefix.length + sums.len()..);
        let start = offset_in_block as usize;
        let within = start % CHUNK;
        assert!(within == 0 || within + data.len() <= CHUNK, "{start}+{} crosses a chunk's end", data.len());
        Checksum::default_crc32c().verify(&data, &sums).expect("the client's sums are right");
        let Some(replica) = state.replicas.get_mut(&id) else { return refused() };
        if replica.writer != writer || replica.finalized {
            return refused();
        }
        let have = replica.data.len();
        assert!(start <= have, "no gap: {start} after {have}");
        if start + data.len() > have {
            replica.data.extend_from_slice(&data[have - start..]);
            replica.sum_from(have);
        }
        if last {
            assert_eq!(start, replica.data.len(), "the last packet stands at the block's end");
        }
        if sync {
            replica.synced = replica.data.len();
        }
        Ok(success)
    }

    fn acknowledge(&self, id: u64, writer: u64, prefix: &PacketPrefix, replies: &[Reply]) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(replica) = state.replicas.get_mut(&id) else { return refused() };
        if replica.writer != writer {
            return refused();
        }
        if replies.iter().all(|reply| reply.status == hdfs::Status::Success) {
            replica.acked = replica.acked.max(prefix.header.end() as usize);
            replica.finalized = prefix.header.last;
        }
        Ok(())
    }

    /// Copies a replica to another node; says that it did, whatever became of it, as Apache's.
    async fn transfer(
        self: &Arc<Self>,
        mut stream: Stream,
        op: hdfs::OpTransferBlockProto,
    ) -> io::Result<()> {
        self.copy(&op)?;
        self.meet(Moment::Copy, &mut stream).await?;
        let mut answer = BytesMut::new();
        datatransfer::encode_response(&datatransfer::response_success(), &mut answer);
        stream.write_all(&answer).await
    }

    fn copy(&self, op: &hdfs::OpTransferBlockProto) -> io::Result<()> {
        let block = &op.header.base_header.block;
        let Some(mut copy) = self.state.lock().replicas.get(&block.block_id).cloned() else {
            return refused();
        };
        if copy.stamp < block.generation_stamp {
            return refused();
        }
        copy.cut(copy.acked);
        (copy.writer, copy.synced) = (0, 0);
        let target =
            self.peers.get().unwrap().iter().find(|peer| peer.info().id == op.targets[0].id).unwrap();
        {
            let mut state = target.state.lock();
            if state.replicas.contains_key(&block.block_id) {
                return refused();
            }
            if !state.dead && !state.hung && !state.refuses_copies {
                state.copies += 1;
                state.replicas.insert(block.block_id, copy);
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        stream: &mut Stream,
        input: &mut BytesMut,
        op: hdfs::OpReadBlockProto,
    ) -> io::Result<()> {
        let (replica, stalls) = {
            let mut state = self.state.lock();
            state.reads += 1;
            (state.replicas.get(&op.header.base_header.block.block_id).cloned(), state.stalls_reads)
        };
        if stalls {
            return std::future::pending().await;
        }
        let mut out = BytesMut::new();
        let Some(replica) = replica
            .filter(|replica| op.offset + op.len <= replica.data.len() as u64 && !replica.waits_for_recovery)
        else {
            let response = datatransfer::response_failure(hdfs::Status::Error, "", "no such replica");
            datatransfer::encode_response(&response, &mut out);
            stream.write_all(&out).await?;
            return Err(io::ErrorKind::NotFound.into());
        };
        let first = op.offset / 512 * 512;
        let until = (op.offset + op.len).div_ceil(512).saturating_mul(512).min(replica.data.len() as u64);
        let response = hdfs::BlockOpResponseProto {
            read_op_checksum_info: Some(hdfs::ReadOpChecksumInfoProto {
                checksum: Checksum::default_crc32c().to_proto(),
                chunk_offset: first,
            }),
            ..datatransfer::response_success()
        };
        datatransfer::encode_response(&response, &mut out);
        let (mut at, mut seqno) = (first, 0);
        while at < until {
            let end = until.min(at + READ_PACKET as u64);
            let data = &replica.data[at as usize..end as usize];
            let sums = &replica.sums[at as usize / 512 * 4..end.div_ceil(512) as usize * 4];
            put_packet(&mut out, at, seqno, data, sums, false);
            (at, seqno) = (end, seqno + 1);
        }
        put_packet(&mut out, until, seqno, &[], &[], true);
        let dies = self.state.lock().dies_after_bytes_read;
        if let Some(bytes) = dies.filter(|bytes| *bytes < out.len()) {
            stream.write_all(&out[..bytes]).await?;
            self.state.lock().dead = true;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        stream.write_all(&out).await?;
        let decode = |input: &mut BytesMut| try_decode_delimited::<hdfs::ClientReadStatusProto>(input, 100);
        let status = receive(stream, input, decode).await?;
        self.state.lock().statuses.push(status.status);
        Ok(())
    }

    async fn checksum(&self, mut stream: Stream, op: hdfs::OpBlockChecksumProto) -> io::Result<()> {
        use md5::{Digest, Md5};
        let replica = self.state.lock().replicas[&op.header.block.block_id].clone();
        let composite = op.block_checksum_options.and_then(|options| options.block_checksum_type)
            == Some(hdfs::BlockChecksumTypeProto::CompositeCrc as i32);
        let block_checksum = match composite {
            true => Bytes::from(ChecksumKind::Crc32c.crc(&replica.data).to_be_bytes().to_vec()),
            false => Bytes::from(Md5::digest(&replica.sums).to_vec()),
        };
        let response = hdfs::BlockOpResponseProto {
            checksum_response: Some(hdfs::OpBlockChecksumResponseProto {
                bytes_per_crc: 512,
                crc_per_block: replica.sums.len() as u64 / 4,
                block_checksum,
                crc_type: Some(hdfs::ChecksumTypeProto::ChecksumCrc32c as i32),
                block_checksum_options: op.block_checksum_options,
            }),
            ..datatransfer::response_success()
        };
        let mut out = BytesMut::new();
        encode_delimited(&response, &mut out);
        stream.write_all(&out).await
    }
}

impl RpcService for FakeNode {
    fn call(&self, call: Call, reply: Responder) {
        assert_eq!(&call.method[..], b"getReplicaVisibleLength");
        let request: hdfs::GetReplicaVisibleLengthRequestProto = decode(&call);
        let mut state = self.state.lock();
        if state.hung || state.dead {
            state.waiting.push(reply);
            return;
        }
        let visible = |replica: &Replica| match replica.waits_for_recovery {
            true => u64::MAX,
            false => replica.acked as u64,
        };
        let length = state.replicas.get(&request.block.block_id).map(visible);
        drop(state);
        reply.finish(match length {
            Some(length) => Ok(hdfs::GetReplicaVisibleLengthResponseProto { length }),
            None => Err(RemoteException::new(class::REPLICA_NOT_FOUND, "not here")),
        });
    }
}

fn put_packet(out: &mut BytesMut, offset: u64, seqno: i64, data: &[u8], sums: &[u8], last: bool) {
    let header =
        PacketHeader { offset_in_block: offset, seqno, last, data_length: data.len() as u32, sync: false };
    PacketPrefix::encode(&header, sums.len() as u32, out);
    out.extend_from_slice(sums);
    out.extend_from_slice(data);
}

/// A mirror, or what it says instead.
async fn connect_mirror(
    env: &Env,
    address: &str,
    op: &hdfs::OpWriteBlockProto,
    rest: &[hdfs::DatanodeInfoProto],
) -> io::Result<Result<(Stream, BytesMut), hdfs::BlockOpResponseProto>> {
    let mut stream = env.net.connect(address, Duration::from_secs(5)).await?;
    let op = hdfs::OpWriteBlockProto { targets: rest.to_vec(), ..op.clone() };
    let mut frame = BytesMut::new();
    datatransfer::encode_op(Op::WriteBlock, &op, &mut frame);
    stream.write_all(&frame).await?;
    let mut input = BytesMut::new();
    let answer = receive(&mut stream, &mut input, datatransfer::decode_response).await?;
    match answer.status {
        0 => Ok(Ok((stream, input))),
        _ => Ok(Err(answer)),
    }
}

async fn forward(stream: &mut Stream, input: &mut BytesMut, packet: &Bytes) -> io::Result<PipelineAck> {
    stream.write_all(packet).await?;
    receive(stream, input, PipelineAck::decode).await
}

async fn more(stream: &mut Stream, input: &mut BytesMut) -> io::Result<()> {
    input.reserve(64 << 10);
    match stream.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn receive<M>(
    stream: &mut Stream,
    input: &mut BytesMut,
    decode: impl Fn(&mut BytesMut) -> Result<Option<M>, WireError>,
) -> io::Result<M> {
    loop {
        match decode(input) {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => more(stream, input).await?,
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

/// A whole packet as it came, with its prefix.
async fn packet(stream: &mut Stream, input: &mut BytesMut) -> io::Result<(PacketPrefix, Bytes)> {
    loop {
        if let Some(prefix) = PacketPrefix::parse(input).map_err(io::Error::other)? {
            let whole = prefix.length + prefix.body_length();
            if input.len() >= whole {
                return Ok((prefix, input.split_to(whole).freeze()));
            }
        }
        more(stream, input).await?;
    }
}
