//! The connection on which one block is written: packets down, acknowledgements up.
//!
//! The owner sends; a task of the pipeline's ([`crate::acks`]) reads what comes back. It knows no
//! NameNode and no file: what to do after a [`Fault`] is the writer's business.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_net::WriteHalf;
use mobula_proto::hdfs;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage;
use mobula_wire::datatransfer::Op;
use mobula_wire::packet::{HEADER_LENGTH_MAX, PacketHeader, PacketPrefix};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::acks::AckReader;
use crate::client::Shared;
use crate::link::{Link, address_of, write_all};
use crate::packet::{Packet, Packets};
use crate::probe;

/// Packets sent and not acknowledged (HDFS: `dfs.client.write.max-packets-in-flight`).
const WINDOW_PACKETS_MAX: usize = 80;
/// The same while a node says that its network is congested (HDFS pauses for seconds instead).
const WINDOW_PACKETS_CONGESTED: usize = 8;
/// Bytes sent and not acknowledged: 80 packets of HDFS's size would be 5.2 MB.
const WINDOW_BYTES_MAX: usize = 16 << 20;
/// Longest wait for a connection. A dead host says nothing; SYNs are sent again after 1 and 3 s.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a set-up, and how much each node adds. A DataNode that reopens a
/// replica may wait 60 s for the writer before to stop (HDFS: `READ_TIMEOUT`, `READ_TIMEOUT_EXTENSION`).
const SETUP_LIMIT: Duration = Duration::from_secs(60);
const SETUP_LIMIT_PER_NODE: Duration = Duration::from_secs(5);
/// After so long without an answer or ack, the nodes are asked whether they live; see [`probe`].
pub(crate) const LATE: Duration = Duration::from_secs(5);
/// How long to wait, after a send failed, for an ack that says which node is to blame.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(500);

/// Why a pipeline is of no use any more, and whose fault it is.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) blame: Blame,
    pub(crate) reason: String,
}

/// Who is to blame; nodes by their index in the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// We ourselves.
    Nobody,
    /// These do not work.
    Nodes(Vec<usize>),
    /// This one restarts in order, and will be back.
    Restarting(usize),
}

impl Fault {
    pub(crate) fn of_node(bad: usize, reason: impl ToString) -> Fault {
        Fault { blame: Blame::Nodes(vec![bad]), reason: reason.to_string() }
    }

    pub(crate) fn ours(reason: impl ToString) -> Fault {
        Fault { blame: Blame::Nobody, reason: reason.to_string() }
    }

    pub(crate) fn of_silent(silent: Vec<usize>, for_long: Duration) -> Fault {
        let reason = format!("no answer for {for_long:?}, and nodes {silent:?} of the pipeline do not react");
        Fault { blame: Blame::Nodes(silent), reason }
    }
}

/// How a block is to be opened on its nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetUp {
    pub(crate) stage: BlockConstructionStage,
    /// The stamp that the replicas get. 0 on create: a DataNode of 3.4.1+ takes anything else as leave
    /// to delete a replica.
    pub(crate) new_stamp: u64,
    /// Bytes that were acknowledged, and bytes that were sent: a replica must have between them.
    pub(crate) acked: u64,
    pub(crate) sent: u64,
    pub(crate) block_size: u64,
}

/// What the ack reader tells the owner.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Packets acknowledged on this connection.
    pub(crate) acked: usize,
    pub(crate) congested: bool,
    pub(crate) fault: Option<Fault>,
}

/// An open pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    sender: Arc<Mutex<Sender>>,
    progress: watch::Receiver<Progress>,
    last_sent: Arc<AtomicI64>,
    /// Lengths of what was sent, from the oldest whose ack was not counted yet.
    unacked: VecDeque<usize>,
    unacked_bytes: usize,
    /// Acks that were counted.
    counted: usize,
    /// Acks that were counted and that the owner has not heard of.
    news: usize,
    next_seqno: i64,
    acks: JoinHandle<()>,
}

/// The way down. What a send that was dropped half-way left goes out first, before the next one's.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: WriteHalf,
    /// What is to go out: the rest of a packet, and whole ones.
    queue: VecDeque<Bytes>,
    sent_at: Instant,
}

impl Sender {
    /// Sends all there is to send. Cancel safe.
    async fn flush(&mut self) -> io::Result<()> {
        if !self.queue.is_empty() {
            write_all(&mut self.stream, &mut self.queue).await?;
            self.sent_at = Instant::now();
        }
        Ok(())
    }

    /// Tells the nodes that the writer lives, if nothing else did for `silence`. Waits for nothing: what
    /// the socket does not take goes out with the next send or heartbeat.
    pub(crate) async fn beat(&mut self, silence: Duration) -> io::Result<()> {
        if self.queue.is_empty() && self.sent_at.elapsed() >= silence {
            self.queue.push_back(head_bytes(&PacketHeader::heartbeat(), 0));
        }
        tokio::select! {
            biased;
            sent = self.flush() => sent,
            () = std::future::ready(()) => Ok(()),
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.acks.abort();
    }
}

impl Pipeline {
    /// Connects the nodes of `located`, each of which opens its replica as `set_up` says.
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        located: &hdfs::LocatedBlockProto,
        set_up: SetUp,
    ) -> Result<Pipeline, Fault> {
        let Some(first) = located.locs.first() else {
            return Err(Fault::ours("the NameNode named no DataNode"));
        };
        let address = address_of(first);
        let mut link = Link::connect(&shared.env, &address, CONNECT_LIMIT)
            .await
            .map_err(|error| Fault::of_node(0, error))?;
        let op = write_op(shared, located, set_up);
        let answer = ask_patiently(shared, located, &mut link, &op).await?;
        if answer.status == hdfs::Status::Success as i32 {
            return Ok(Pipeline::start(shared, located, link));
        }
        Err(refusal(located, answer))
    }

    fn start(shared: &Arc<Shared>, located: &hdfs::LocatedBlockProto, link: Link) -> Pipeline {
        let (read, write) = link.stream.into_split();
        let sender =
            Arc::new(Mutex::new(Sender { stream: write, queue: VecDeque::new(), sent_at: Instant::now() }));
        let (report, progress) = watch::channel(Progress { acked: 0, congested: false, fault: None });
        let last_sent = Arc::new(AtomicI64::new(-1));
        let reader = AckReader::new(shared, located, (read, link.input), sender.clone(), last_sent.clone());
        let acks = tokio::spawn(reader.run(report));
        Pipeline {
            sender,
            progress,
            last_sent,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            counted: 0,
            news: 0,
            next_seqno: 0,
            acks,
        }
    }

    /// Sends what of `packets` was not sent yet, one after the other, each when the window has room for
    /// it. Cancel safe: what was marked as sent goes out with the next call, or by itself within seconds.
    pub(crate) async fn send(&mut self, packets: &mut Packets) -> Result<(), Fault> {
        loop {
            self.enqueue_what_fits(packets).await;
            self.flush().await?;
            if !packets.has_unsent() {
                return Ok(());
            }
            if self.is_full(packets.next_unsent().map_or(0, |packet| packet.data.len())) {
                self.wait_acked(self.counted + 1).await?;
            }
        }
    }

    /// As many as fit go out in one write.
    async fn enqueue_what_fits(&mut self, packets: &mut Packets) {
        let sender = self.sender.clone();
        let mut sender = sender.lock().await;
        while let Some(packet) = packets.next_unsent() {
            if self.is_full(packet.data.len()) {
                return;
            }
            self.enqueue(packet, &mut sender.queue);
            packets.mark_sent();
        }
    }

    fn is_full(&mut self, next: usize) -> bool {
        let (acked, congested) = {
            let progress = self.progress.borrow();
            (progress.acked, progress.congested)
        };
        self.count(acked);
        let packets = if congested { WINDOW_PACKETS_CONGESTED } else { WINDOW_PACKETS_MAX };
        self.unacked.len() >= packets
            || (self.unacked_bytes > 0 && self.unacked_bytes + next > WINDOW_BYTES_MAX)
    }

    fn enqueue(&mut self, packet: &Packet, queue: &mut VecDeque<Bytes>) {
        let seqno = self.next_seqno;
        self.next_seqno += 1;
        self.unacked.push_back(packet.data.len());
        self.unacked_bytes += packet.data.len();
        self.last_sent.store(seqno, Ordering::Release);
        queue.push_back(packet_head(packet, seqno));
        queue.extend([&packet.sums, &packet.data].into_iter().filter(|piece| !piece.is_empty()).cloned());
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        let mut sender = self.sender.lock().await;
        let failed = self.progress.wait_for(|progress| progress.fault.is_some());
        let sent = tokio::select! {
            biased;
            progress = failed => Err(fault_of(&progress)),
            sent = sender.flush() => sent.map_err(|error| Fault::of_node(0, error)),
        };
        drop(sender);
        match sent {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.better_reason(fault).await),
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

    /// Waits, after a send, until all that was sent is acknowledged by all nodes.
    pub(crate) async fn wait_all(&mut self) -> Result<(), Fault> {
        self.wait_acked(self.counted + self.unacked.len()).await
    }

    async fn wait_acked(&mut self, count: usize) -> Result<(), Fault> {
        let acked = {
            let progress =
                self.progress.wait_for(|progress| progress.fault.is_some() || progress.acked >= count).await;
            match progress {
                Ok(progress) if progress.acked >= count => progress.acked,
                other => return Err(fault_of(&other)),
            }
        };
        self.count(acked);
        Ok(())
    }

    fn count(&mut self, acked: usize) {
        for length in self.unacked.drain(..acked - self.counted) {
            self.unacked_bytes -= length;
        }
        self.news += acked - self.counted;
        self.counted = acked;
    }

    /// How many packets were acknowledged since this was asked last.
    pub(crate) fn take_news(&mut self) -> usize {
        let acked = self.progress.borrow().acked;
        self.count(acked);
        std::mem::take(&mut self.news)
    }
}

fn fault_of(progress: &Result<watch::Ref<'_, Progress>, watch::error::RecvError>) -> Fault {
    let known = progress.as_ref().ok().and_then(|progress| progress.fault.clone());
    known.unwrap_or_else(|| Fault::of_node(0, "the pipeline ended"))
}

/// Sends the set-up and waits for its answer; a node that does not react any more is found out early.
async fn ask_patiently(
    shared: &Arc<Shared>,
    located: &hdfs::LocatedBlockProto,
    link: &mut Link,
    op: &hdfs::OpWriteBlockProto,
) -> Result<hdfs::BlockOpResponseProto, Fault> {
    let limit = SETUP_LIMIT + SETUP_LIMIT_PER_NODE * located.locs.len() as u32;
    let ask = link.ask(Op::WriteBlock, op, limit);
    let mut ask = std::pin::pin!(ask);
    let mut waited = Duration::ZERO;
    loop {
        let probe = async {
            tokio::time::sleep(LATE).await;
            probe::silent_nodes(shared, located).await
        };
        tokio::select! {
            biased;
            answer = &mut ask => return answer.map_err(|error| {
                Fault::of_node(0, format!("{}: {error}", address_of(&located.locs[0])))
            }),
            silent = probe => {
                waited += LATE;
                if !silent.is_empty() {
                    return Err(Fault::of_silent(silent, waited));
                }
            }
        }
    }
}

fn refusal(located: &hdfs::LocatedBlockProto, answer: hdfs::BlockOpResponseProto) -> Fault {
    let bad_link = answer.first_bad_link.unwrap_or_default();
    let bad = located.locs.iter().position(|node| address_of(node) == bad_link).unwrap_or(0);
    let status = hdfs::Status::try_from(answer.status);
    let name = status.map_or_else(|_| answer.status.to_string(), |status| status.as_str_name().into());
    let reason =
        format!("{}: status {name} {}", address_of(&located.locs[bad]), answer.message.unwrap_or_default());
    match status {
        Ok(hdfs::Status::OobRestart) => Fault { blame: Blame::Restarting(bad), reason },
        _ => Fault::of_node(bad, reason),
    }
}

fn write_op(shared: &Shared, located: &hdfs::LocatedBlockProto, set_up: SetUp) -> hdfs::OpWriteBlockProto {
    let mut block = located.b.clone();
    block.num_bytes = Some(set_up.block_size);
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
        stage: set_up.stage as i32,
        pipeline_size: located.locs.len() as u32,
        min_bytes_rcvd: set_up.acked,
        max_bytes_rcvd: set_up.sent,
        latest_generation_stamp: set_up.new_stamp,
        requested_checksum: shared.checksum.to_proto(),
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
