//! The connection on which one block is written: packets down, acknowledgements up.
//!
//! The owner sends; a task of the pipeline's reads the acks, and sends a heartbeat when nothing else
//! was sent for a while. Invariant: acks come one per packet and in order, or the pipeline has failed.
//! It knows no NameNode and no file: what to do after a [`Fault`] is the writer's business.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_net::{ReadHalf, WriteHalf};
use mobula_proto::hdfs;
use mobula_wire::ack::PipelineAck;
use mobula_wire::checksum::Checksum;
use mobula_wire::datatransfer::Op;
use mobula_wire::packet::{HEADER_LENGTH_MAX, HEARTBEAT_SEQNO, PacketHeader, PacketPrefix};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Shared;
use crate::link::{Link, address_of, broken, receive, write_all};

/// Packets sent and not acknowledged (HDFS: `dfs.client.write.max-packets-in-flight`).
const WINDOW_PACKETS_MAX: usize = 80;
/// Bytes sent and not acknowledged: 80 packets of HDFS's size would be 5.2 MB.
const WINDOW_BYTES_MAX: usize = 16 << 20;
/// Silence after which a heartbeat is sent (HDFS: half of the 60 s after which a DataNode gives up).
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// Longest wait for a connection, and for each node of the pipeline to be connected on.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const SETUP_LIMIT_PER_NODE: Duration = Duration::from_secs(10);
/// Longest wait for the next ack while any is due, and how much each node of the pipeline adds to
/// it (HDFS: `READ_TIMEOUT`, `READ_TIMEOUT_EXTENSION`).
const ACK_LIMIT: Duration = Duration::from_secs(60);
const ACK_LIMIT_PER_NODE: Duration = Duration::from_secs(5);
/// No packet was acknowledged yet.
const NONE_ACKED: i64 = -1;

/// A packet's bytes: `data` begins at a chunk's start, or has been sent once already from there.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Where in the block it begins.
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    pub(crate) sums: Bytes,
    /// Ends the block: no data.
    pub(crate) last: bool,
    /// To be on disk before it is acknowledged.
    pub(crate) sync: bool,
}

impl Packet {
    /// A packet without data that wants what came before on disk, and may end the block.
    pub(crate) fn empty(offset: u64, last: bool) -> Packet {
        Packet { offset, data: Bytes::new(), sums: Bytes::new(), last, sync: true }
    }
}

/// Why a pipeline is of no use any more, and whose fault it is.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Index of the bad node; none if it was ours.
    pub(crate) bad: Option<usize>,
    pub(crate) reason: String,
}

impl Fault {
    fn new(bad: usize, reason: impl ToString) -> Fault {
        Fault { bad: Some(bad), reason: reason.to_string() }
    }
}

#[derive(Clone, Debug)]
struct Progress {
    acked: i64,
    fault: Option<Fault>,
}

/// An open pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) located: hdfs::LocatedBlockProto,
    sender: Arc<Mutex<Sender>>,
    progress: watch::Receiver<Progress>,
    last_sent: Arc<AtomicI64>,
    /// Seqno and length of what was not acknowledged when last looked.
    unacked: VecDeque<(i64, usize)>,
    unacked_bytes: usize,
    next_seqno: i64,
    acks: JoinHandle<()>,
}

#[derive(Debug)]
struct Sender {
    stream: WriteHalf,
    sent_at: Instant,
    /// A send began and did not end: the next byte would land in the middle of a packet.
    torn: bool,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.acks.abort();
    }
}

impl Pipeline {
    /// Connects the nodes of `located` for a new block.
    pub(crate) async fn open(
        shared: &Shared,
        located: hdfs::LocatedBlockProto,
        block_size: u64,
        sums: Checksum,
    ) -> Result<Pipeline, (hdfs::LocatedBlockProto, Fault)> {
        match Pipeline::connect(shared, &located, block_size, sums).await {
            Ok(link) => Ok(Pipeline::start(located, link)),
            Err(fault) => Err((located, fault)),
        }
    }

    async fn connect(
        shared: &Shared,
        located: &hdfs::LocatedBlockProto,
        block_size: u64,
        sums: Checksum,
    ) -> Result<Link, Fault> {
        let Some(first) = located.locs.first() else {
            return Err(Fault::new(0, "the NameNode named no DataNode"));
        };
        let address = address_of(first);
        let op = write_op(shared, located, block_size, sums);
        let nodes = located.locs.len() as u32;
        let mut link = Link::connect(&shared.env, &address, CONNECT_LIMIT)
            .await
            .map_err(|error| Fault::new(0, error))?;
        let answer = link
            .ask(Op::WriteBlock, &op, SETUP_LIMIT_PER_NODE * (nodes + 1))
            .await
            .map_err(|error| Fault::new(0, format!("{address}: {error}")))?;
        if answer.status == hdfs::Status::Success as i32 {
            return Ok(link);
        }
        let bad_link = answer.first_bad_link.unwrap_or_default();
        let bad = located.locs.iter().position(|node| address_of(node) == bad_link).unwrap_or(0);
        let reason = format!(
            "{}: status {} {}",
            address_of(&located.locs[bad]),
            status_name(answer.status),
            answer.message.unwrap_or_default()
        );
        Err(Fault::new(bad, reason))
    }

    fn start(located: hdfs::LocatedBlockProto, link: Link) -> Pipeline {
        let (read, write) = link.stream.into_split();
        let sender = Arc::new(Mutex::new(Sender { stream: write, sent_at: Instant::now(), torn: false }));
        let (report, progress) = watch::channel(Progress { acked: NONE_ACKED, fault: None });
        let last_sent = Arc::new(AtomicI64::new(NONE_ACKED));
        let reader = AckReader {
            stream: read,
            input: link.input,
            acked: NONE_ACKED,
            nodes: located.locs.len(),
            last_sent: last_sent.clone(),
            sender: sender.clone(),
        };
        let acks = tokio::spawn(reader.run(report));
        Pipeline {
            located,
            sender,
            progress,
            last_sent,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            next_seqno: 0,
            acks,
        }
    }

    /// Sends `packets` one after the other, each when the window has room for it.
    pub(crate) async fn send(&mut self, packets: &[Packet]) -> Result<(), Fault> {
        let mut packets = packets.iter().peekable();
        while packets.peek().is_some() {
            let mut queue = VecDeque::new();
            // As many as fit go out in one write; at least one.
            while let Some(packet) = packets.peek() {
                let full = self.unacked.len() >= WINDOW_PACKETS_MAX
                    || (self.unacked_bytes > 0 && self.unacked_bytes + packet.data.len() > WINDOW_BYTES_MAX);
                if full && queue.is_empty() {
                    self.wait_for_room().await?;
                    continue;
                }
                if full {
                    break;
                }
                self.enqueue(packet, &mut queue);
                packets.next();
            }
            self.flush(&mut queue).await?;
        }
        Ok(())
    }

    fn enqueue(&mut self, packet: &Packet, queue: &mut VecDeque<Bytes>) {
        let seqno = self.next_seqno;
        self.next_seqno += 1;
        self.unacked.push_back((seqno, packet.data.len()));
        self.unacked_bytes += packet.data.len();
        self.last_sent.store(seqno, Ordering::Release);
        queue.push_back(packet_head(packet, seqno));
        queue.extend([&packet.sums, &packet.data].into_iter().filter(|piece| !piece.is_empty()).cloned());
    }

    async fn flush(&mut self, queue: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        let mut sender = self.sender.lock().await;
        if sender.torn {
            return Err(Fault { bad: None, reason: "a write was dropped half-way".into() });
        }
        sender.torn = true;
        let failed = self.progress.wait_for(|progress| progress.fault.is_some());
        let sent = tokio::select! {
            biased;
            progress = failed => Err(fault_of(&progress)),
            sent = write_all(&mut sender.stream, queue) => sent.map_err(|error| Fault::new(0, error)),
        };
        match sent {
            Ok(()) => {
                sender.torn = false;
                sender.sent_at = Instant::now();
                Ok(())
            }
            Err(fault) => {
                drop(sender);
                Err(self.better_reason(fault).await)
            }
        }
    }

    /// A broken socket says less than the ack that may have come before it broke.
    async fn better_reason(&mut self, fault: Fault) -> Fault {
        let wait = self.progress.wait_for(|progress| progress.fault.is_some());
        match tokio::time::timeout(LAST_WORD_LIMIT, wait).await {
            Ok(progress) => fault_of(&progress),
            Err(_) => fault,
        }
    }

    async fn wait_for_room(&mut self) -> Result<(), Fault> {
        let oldest = self.unacked.front().map_or(NONE_ACKED, |(seqno, _)| *seqno);
        self.wait_acked(oldest).await
    }

    /// Waits until all that was sent is acknowledged by all nodes.
    pub(crate) async fn wait_all(&mut self) -> Result<(), Fault> {
        self.wait_acked(self.next_seqno - 1).await
    }

    async fn wait_acked(&mut self, seqno: i64) -> Result<(), Fault> {
        let acked = {
            let progress =
                self.progress.wait_for(|progress| progress.fault.is_some() || progress.acked >= seqno).await;
            match progress {
                Ok(progress) if progress.acked >= seqno => progress.acked,
                other => return Err(fault_of(&other)),
            }
        };
        while let Some((_, length)) = self.unacked.pop_front_if(|(seqno, _)| *seqno <= acked) {
            self.unacked_bytes -= length;
        }
        Ok(())
    }
}

/// How long to wait, after a send failed, for an ack that says which node is to blame.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(500);

fn fault_of(progress: &Result<watch::Ref<'_, Progress>, watch::error::RecvError>) -> Fault {
    let known = progress.as_ref().ok().and_then(|progress| progress.fault.clone());
    known.unwrap_or_else(|| Fault::new(0, "the pipeline ended"))
}

fn status_name(status: i32) -> String {
    hdfs::Status::try_from(status).map_or_else(|_| status.to_string(), |status| status.as_str_name().into())
}

fn write_op(
    shared: &Shared,
    located: &hdfs::LocatedBlockProto,
    block_size: u64,
    sums: Checksum,
) -> hdfs::OpWriteBlockProto {
    let mut block = located.b.clone();
    block.num_bytes = Some(block_size);
    let rest = |types: &[i32]| types.iter().skip(1).copied().collect();
    hdfs::OpWriteBlockProto {
        header: hdfs::ClientOperationHeaderProto {
            base_header: hdfs::BaseHeaderProto {
                block,
                token: Some(located.block_token.clone()),
                trace_info: None,
            },
            client_name: shared.name.clone(),
        },
        targets: located.locs.iter().skip(1).cloned().collect(),
        source: None,
        stage: hdfs::op_write_block_proto::BlockConstructionStage::PipelineSetupCreate as i32,
        pipeline_size: located.locs.len() as u32,
        min_bytes_rcvd: 0,
        max_bytes_rcvd: 0,
        // 0 on create: a DataNode of 3.4.1+ takes anything else as leave to delete a replica.
        latest_generation_stamp: 0,
        requested_checksum: sums.to_proto(),
        caching_strategy: None,
        storage_type: located.storage_types.first().copied(),
        target_storage_types: rest(&located.storage_types),
        allow_lazy_persist: None,
        pinning: None,
        target_pinnings: Vec::new(),
        storage_id: located.storage_i_ds.first().cloned(),
        target_storage_ids: located.storage_i_ds.iter().skip(1).cloned().collect(),
    }
}

fn packet_head(packet: &Packet, seqno: i64) -> Bytes {
    let header = PacketHeader {
        offset_in_block: packet.offset,
        seqno,
        last: packet.last,
        data_length: packet.data.len() as u32,
        sync: packet.sync,
    };
    head_bytes(&header, packet.sums.len())
}

fn head_bytes(header: &PacketHeader, sums: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(HEADER_LENGTH_MAX);
    PacketPrefix::encode(header, sums as u32, &mut head);
    head.freeze()
}

/// Reads acks until the pipeline ends or fails.
struct AckReader {
    stream: ReadHalf,
    input: BytesMut,
    acked: i64,
    nodes: usize,
    last_sent: Arc<AtomicI64>,
    sender: Arc<Mutex<Sender>>,
}

impl AckReader {
    async fn run(mut self, report: watch::Sender<Progress>) {
        let limit = ACK_LIMIT + ACK_LIMIT_PER_NODE * self.nodes as u32;
        let mut waiting_since = Instant::now();
        loop {
            let wake = Instant::now() + HEARTBEAT_EVERY / 2;
            let outcome = tokio::select! {
                biased;
                ack = receive(&mut self.stream, &mut self.input, PipelineAck::decode) => {
                    waiting_since = Instant::now();
                    ack.map_err(|error| Fault::new(0, error)).and_then(|ack| self.take(&ack))
                }
                () = tokio::time::sleep_until(wake) => self.beat().await.map(|()| None),
            };
            if self.acked >= self.last_sent.load(Ordering::Acquire) {
                waiting_since = Instant::now();
            }
            let outcome = match outcome {
                Ok(_) if waiting_since.elapsed() > limit => {
                    Err(Fault::new(0, format!("no acknowledgement within {limit:?}")))
                }
                other => other,
            };
            match outcome {
                Ok(Some(acked)) => report.send_modify(|progress| progress.acked = acked),
                Ok(None) => {}
                Err(fault) => {
                    report.send_modify(|progress| progress.fault = Some(fault));
                    return;
                }
            }
        }
    }

    /// The seqno that `ack` acknowledges, none for a heartbeat's.
    fn take(&mut self, ack: &PipelineAck) -> Result<Option<i64>, Fault> {
        if let Some((bad, status)) = ack.first_bad() {
            let reason = format!("node {bad} of the pipeline says {}", status.as_str_name());
            return Err(Fault::new(bad.min(self.nodes.saturating_sub(1)), reason));
        }
        if ack.seqno == HEARTBEAT_SEQNO {
            return Ok(None);
        }
        let due = self.acked + 1;
        if ack.seqno != due || due > self.last_sent.load(Ordering::Acquire) {
            return Err(Fault::new(0, broken(format!("an ack of packet {}, {due} is due", ack.seqno))));
        }
        self.acked = due;
        Ok(Some(due))
    }

    /// Tells the nodes that the writer lives, unless something else did lately.
    async fn beat(&mut self) -> Result<(), Fault> {
        // Taken: a packet is being sent right now.
        let Ok(mut sender) = self.sender.try_lock() else { return Ok(()) };
        if sender.torn || sender.sent_at.elapsed() < HEARTBEAT_EVERY {
            return Ok(());
        }
        let heartbeat =
            Packet { offset: 0, data: Bytes::new(), sums: Bytes::new(), last: false, sync: false };
        let mut queue = VecDeque::from([packet_head(&heartbeat, HEARTBEAT_SEQNO)]);
        sender.torn = true;
        let sent = tokio::time::timeout(ACK_LIMIT, write_all(&mut sender.stream, &mut queue)).await;
        sent.map_err(io::Error::from).flatten().map_err(|error| Fault::new(0, error))?;
        sender.torn = false;
        sender.sent_at = Instant::now();
        Ok(())
    }
}
