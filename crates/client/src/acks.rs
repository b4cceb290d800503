//! Reads a pipeline's acknowledgements, says whom to blame when they stop, and keeps the pipeline alive.
//!
//! Invariant: acks come one per packet and in order, or the pipeline has failed. Bytes from a DataNode
//! never panic.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use mobula_net::ReadHalf;
use mobula_proto::hdfs;
use mobula_wire::ack::{Ecn, PipelineAck, Slow};
use mobula_wire::packet::HEARTBEAT_SEQNO;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::Shared;
use crate::link::{broken, receive};
use crate::pipeline::{Blame, Fault, LATE, Progress, Sender};
use crate::probe;

/// Silence after which a heartbeat is sent (HDFS: half of the 60 s after which a DataNode gives up).
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Longest wait for the next ack while any is due and all nodes react, and how much each node adds: the
/// DataNodes' own limits are shorter the farther down they are, so that the bad one's neighbour speaks
/// first (HDFS: `READ_TIMEOUT`, `READ_TIMEOUT_EXTENSION`).
const ACK_LIMIT: Duration = Duration::from_secs(60);
const ACK_LIMIT_PER_NODE: Duration = Duration::from_secs(5);
/// Acks in a row in which a node calls itself slow, until it is left
/// (HDFS: `dfs.client.mark.slownode.as.badnode.threshold`).
const SLOW_ACKS_MAX: u32 = 10;

/// Reads acks until the pipeline ends or fails.
pub(crate) struct AckReader {
    shared: Arc<Shared>,
    located: hdfs::LocatedBlockProto,
    stream: ReadHalf,
    input: BytesMut,
    /// The seqno that was acknowledged last; -1 before the first.
    acked: i64,
    last_sent: Arc<AtomicI64>,
    sender: Arc<Mutex<Sender>>,
    /// By node: in how many acks running it called itself slow.
    slow: Vec<u32>,
    congested: bool,
    /// Since when an ack is due, and how often the nodes were probed since.
    waiting_since: Instant,
    probes: u32,
}

/// What woke the reader.
enum Event {
    Ack(io::Result<PipelineAck>),
    Tick,
    Probed(Vec<usize>),
}

impl AckReader {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        located: &hdfs::LocatedBlockProto,
        (stream, input): (ReadHalf, BytesMut),
        sender: Arc<Mutex<Sender>>,
        last_sent: Arc<AtomicI64>,
    ) -> AckReader {
        AckReader {
            shared: shared.clone(),
            located: located.clone(),
            stream,
            input,
            acked: -1,
            last_sent,
            sender,
            slow: vec![0; located.locs.len()],
            congested: false,
            waiting_since: Instant::now(),
            probes: 0,
        }
    }

    pub(crate) async fn run(mut self, report: watch::Sender<Progress>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (shared, located) = (self.shared.clone(), self.located.clone());
        let mut probe = None;
        loop {
            let event = tokio::select! {
                biased;
                ack = receive(&mut self.stream, &mut self.input, PipelineAck::decode) => Event::Ack(ack),
                silent = async { probe.as_mut().expect("polled if there is one").await }, if probe.is_some() => {
                    Event::Probed(silent)
                }
                _ = ticks.tick() => Event::Tick,
            };
            let outcome = match event {
                Event::Ack(ack) => {
                    ack.map_err(|error| Fault::of_node(0, error)).and_then(|ack| self.take(&ack))
                }
                Event::Probed(silent) => {
                    probe = None;
                    self.judge(silent)
                }
                Event::Tick => self.look_at_clock().await,
            };
            if probe.is_none() && self.is_probe_due() {
                self.probes += 1;
                let (shared, located) = (shared.clone(), located.clone());
                probe = Some(Box::pin(async move { probe::silent_nodes(&shared, &located).await }));
            }
            match outcome {
                Ok(()) => report.send_if_modified(|progress| {
                    let acked = (self.acked + 1) as usize;
                    let news = progress.acked != acked || progress.congested != self.congested;
                    (progress.acked, progress.congested) = (acked, self.congested);
                    news
                }),
                Err(fault) => {
                    report.send_modify(|progress| progress.fault = Some(fault));
                    return;
                }
            };
        }
    }

    /// Takes an ack; a heartbeat's changes nothing.
    fn take(&mut self, ack: &PipelineAck) -> Result<(), Fault> {
        let last = self.slow.len() - 1;
        if let Some((bad, status)) = ack.first_bad() {
            let bad = bad.min(last);
            let reason = format!("node {bad} of the pipeline says {}", status.as_str_name());
            let blame = match status {
                hdfs::Status::OobRestart => Blame::Restarting(bad),
                _ => Blame::Nodes(vec![bad]),
            };
            return Err(Fault { blame, reason });
        }
        self.note_flags(ack)?;
        if ack.seqno == HEARTBEAT_SEQNO {
            return Ok(());
        }
        let due = self.acked + 1;
        if ack.seqno != due || due > self.last_sent.load(Ordering::Acquire) {
            return Err(Fault::of_node(0, broken(format!("an ack of packet {}, {due} is due", ack.seqno))));
        }
        // Fewer answers than nodes would be an ack for nodes that did not speak.
        if ack.replies.len() != self.slow.len() {
            let what = format!("an ack of {} nodes, the pipeline has {}", ack.replies.len(), self.slow.len());
            return Err(Fault::of_node(0, broken(what)));
        }
        self.acked = due;
        self.waiting_since = Instant::now();
        self.probes = 0;
        Ok(())
    }

    /// Congestion narrows the window; the one node that is slow for long is left, unless all are.
    fn note_flags(&mut self, ack: &PipelineAck) -> Result<(), Fault> {
        self.congested = ack.replies.iter().any(|reply| reply.ecn == Ecn::Congested);
        for (node, reply) in ack.replies.iter().enumerate().take(self.slow.len()) {
            self.slow[node] = if reply.slow == Slow::Slow { self.slow[node] + 1 } else { 0 };
        }
        let mut slow = (0..self.slow.len()).filter(|node| self.slow[*node] >= SLOW_ACKS_MAX);
        match (slow.next(), slow.next()) {
            (Some(bad), None) if self.slow.len() > 1 => {
                Err(Fault::of_node(bad, format!("node {bad} of the pipeline calls itself slow")))
            }
            _ => Ok(()),
        }
    }

    fn is_ack_due(&self) -> bool {
        self.acked < self.last_sent.load(Ordering::Acquire)
    }

    fn is_probe_due(&self) -> bool {
        self.is_ack_due() && self.waiting_since.elapsed() >= LATE * (self.probes + 1)
    }

    fn judge(&self, silent: Vec<usize>) -> Result<(), Fault> {
        if silent.is_empty() || !self.is_probe_due_or_was() {
            return Ok(());
        }
        Err(Fault::of_silent(silent, self.waiting_since.elapsed()))
    }

    /// Whether the ack that made us ask is still missing.
    fn is_probe_due_or_was(&self) -> bool {
        self.is_ack_due() && self.waiting_since.elapsed() >= LATE
    }

    async fn look_at_clock(&mut self) -> Result<(), Fault> {
        if !self.is_ack_due() {
            self.waiting_since = Instant::now();
            self.probes = 0;
            return self.beat().await;
        }
        let limit = ACK_LIMIT + ACK_LIMIT_PER_NODE * self.slow.len() as u32;
        if self.waiting_since.elapsed() > limit {
            return Err(Fault::of_node(0, format!("no acknowledgement within {limit:?}")));
        }
        self.beat().await
    }

    /// Keeps the pipeline alive, and sends what a caller whose time was up left half-sent.
    async fn beat(&mut self) -> Result<(), Fault> {
        // Taken: a packet is being sent right now.
        let Ok(mut sender) = self.sender.try_lock() else { return Ok(()) };
        sender.beat(HEARTBEAT_EVERY).await.map_err(|error| Fault::of_node(0, error))
    }
}
