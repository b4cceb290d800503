//! The acknowledgements of a block that comes in (HDFS: `BlockReceiver.PacketResponder`): ours, once a packet is
//! with the operating system, joined with those of the nodes further down, in order.
//!
//! Invariants: what was acknowledged by all counts as visible before the acknowledgement leaves; the last one leaves
//! after the replica is final; a node that fails is named exactly as HDFS names it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mobula_net::{ReadHalf, WriteHalf};
use mobula_proto::hdfs::{DnTransferAckProto, Status};
use mobula_wire::ack::{PipelineAck, UNKNOWN_SEQNO};
use mobula_wire::encode_delimited;
use mobula_wire::packet::HEARTBEAT_SEQNO;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::batch::Arrived;
use crate::framed::{Framed, write_all};
use crate::node::{Counted, Node, READ_LIMIT, WRITE_LIMIT};
use crate::pipeline::{Pending, PipelineState};
use crate::receive::{Becomes, ReceiveError, Sender, Setup};
use crate::replica::{Growing, OpenReplica};
use crate::reports::Change;
use crate::stir::Taker;

/// Between repeated acknowledgements that say that the next node is gone.
const BROKEN_MIRROR_REPEAT: Duration = Duration::from_secs(1);
/// A next node that hangs up after so long a silence of ours is not to blame: we are
/// (HDFS: 0.9 x `dfs.client.socket-timeout`).
const SILENCE_MAX: Duration = Duration::from_secs(54);

/// Acknowledges.
pub(crate) struct Respond<'a> {
    node: &'a Arc<Node>,
    setup: &'a Setup,
    state: &'a PipelineState,
    growing: &'a Arc<Growing>,
    mirror: Option<Framed<ReadHalf>>,
    /// What the next node said before it was asked.
    early: Option<io::Result<PipelineAck>>,
    /// Whether this node is about to be restarted; none once the sender was told.
    restarting: Option<watch::Receiver<bool>>,
}

/// What the nodes further down say of a packet.
enum Downstream {
    /// There is none.
    Nobody,
    /// Their answers.
    Said(PipelineAck),
    /// Out of band: not about the packet.
    Aside(PipelineAck),
    /// They are out of reach.
    Broken,
}

impl<'a> Respond<'a> {
    /// The next node's side that speaks, if it has said all that it had to.
    pub(crate) fn into_mirror(self) -> Option<Framed<ReadHalf>> {
        self.mirror.filter(|_| self.early.is_none() && !self.state.mirror_broken.load(Ordering::Acquire))
    }

    pub(crate) fn new(
        node: &'a Arc<Node>,
        setup: &'a Setup,
        state: &'a PipelineState,
        growing: &'a Arc<Growing>,
        mirror: Option<Framed<ReadHalf>>,
    ) -> Respond<'a> {
        let by_client = setup.sender == Sender::Client;
        let mirror = mirror.filter(|_| by_client);
        let restarting = by_client.then(|| node.restarting.subscribe());
        Respond { node, setup, state, growing, mirror, early: None, restarting }
    }

    pub(crate) async fn run(
        &mut self,
        mut acks: Taker<'_, Pending>,
        upstream: &mut WriteHalf,
        open: &mut Option<OpenReplica>,
    ) -> Result<(), ReceiveError> {
        // A writer weighs as much as on Apache's DataNodes, which count its thread and its responder's: else a
        // NameNode that compares loads finds them too busy beside ours (HDFS: `BlockPlacementPolicyDefault`).
        let _counted = Counted::new(&self.node.xceivers);
        let mut out = BytesMut::new();
        while let Some(pending) = self.next(&mut acks, upstream).await? {
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
            let downstream = self.answer(&packet, &mut out, upstream, open).await?;
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

    /// Waits for the next packet that is to be acknowledged. Meanwhile the next node may say something of its
    /// own accord, or be gone: a client that is idle is to know at once.
    async fn next(
        &mut self,
        acks: &mut Taker<'_, Pending>,
        upstream: &mut WriteHalf,
    ) -> Result<Option<Pending>, ReceiveError> {
        if let Some(pending) = acks.take_now() {
            return Ok(Some(pending));
        }
        loop {
            let listens = self.mirror.is_some() && self.early.is_none();
            let said = tokio::select! {
                biased;
                pending = acks.take() => return Ok(pending),
                () = restarts(&mut self.restarting) => Ok(restart_notice()),
                said = listen(&mut self.mirror), if listens => said,
            };
            match said {
                Ok(ack) if is_aside(&ack) => self.pass_on(ack, upstream).await?,
                Ok(ack) => self.early = Some(Ok(ack)),
                Err(error) => {
                    self.check_blame(&error)?;
                    return self.repeat_broken(upstream).await.map(|()| None);
                }
            }
        }
    }

    /// What the nodes further down say of a packet, and after the last one the replica is final.
    async fn answer(
        &mut self,
        packet: &Arrived,
        out: &mut BytesMut,
        upstream: &mut WriteHalf,
        open: &mut Option<OpenReplica>,
    ) -> Result<Downstream, ReceiveError> {
        loop {
            let downstream = tokio::select! {
                biased;
                downstream = self.downstream(packet), if !packet.last => downstream?,
                // Not there yet: what is known already is not held back for it.
                () = std::future::ready(()), if !out.is_empty() => {
                    write_all(upstream, out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
                    out.clear();
                    self.downstream_and_finish(packet, open).await?
                }
                else => self.downstream_and_finish(packet, open).await?,
            };
            match downstream {
                Downstream::Aside(ack) => {
                    write_all(upstream, out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
                    out.clear();
                    self.pass_on(ack, upstream).await?;
                }
                downstream => return Ok(downstream),
            }
        }
    }

    /// Waits for what the next node says of a packet. Behind the last one it makes the replica final
    /// meanwhile: every node of the pipeline syncs at the same time, not one after the other.
    async fn downstream_and_finish(
        &mut self,
        packet: &Arrived,
        open: &mut Option<OpenReplica>,
    ) -> Result<Downstream, ReceiveError> {
        if !packet.last || open.is_none() {
            return self.downstream(packet).await;
        }
        let finish = finish(self.node, self.setup, self.growing, packet, open);
        let (finished, downstream) = tokio::join!(biased; finish, self.downstream(packet));
        finished.and(downstream)
    }

    /// Waits for what the next node says of a packet.
    async fn downstream(&mut self, packet: &Arrived) -> Result<Downstream, ReceiveError> {
        if self.mirror.is_none() {
            return Ok(Downstream::Nobody);
        }
        if self.state.mirror_broken.load(Ordering::Acquire) {
            return Ok(Downstream::Broken);
        }
        let said = match self.early.take() {
            Some(said) => said,
            None => tokio::select! {
                biased;
                said = listen(&mut self.mirror) => said,
                () = self.state.broke.notified() => return Ok(Downstream::Broken),
                () = restarts(&mut self.restarting) => return Ok(Downstream::Aside(restart_notice())),
            },
        };
        match said {
            Ok(ack) if is_aside(&ack) => Ok(Downstream::Aside(ack)),
            Ok(ack) if ack.seqno == packet.seqno || ack.seqno == UNKNOWN_SEQNO => Ok(Downstream::Said(ack)),
            Ok(ack) => {
                tracing::warn!(block = %self.setup.block, expected = packet.seqno, got = ack.seqno, "acks out of order");
                Ok(Downstream::Broken)
            }
            Err(error) => {
                self.check_blame(&error)?;
                Ok(Downstream::Broken)
            }
        }
    }

    /// The next node is gone. If that is because it heard nothing from here for too long, this node is to blame, and
    /// says nothing: then its sender sees it fail.
    fn check_blame(&self, error: &io::Error) -> Result<(), ReceiveError> {
        tracing::warn!(block = %self.setup.block, %error, "the next node of the pipeline is gone");
        if self.state.last_sent().is_some_and(|sent| sent.elapsed() > SILENCE_MAX) {
            return Err(ReceiveError::Mirror(format!("hung up after {SILENCE_MAX:?} without a packet")));
        }
        Ok(())
    }

    /// Passes on what is about no packet, with our own answer in front unless it is from here.
    async fn pass_on(&self, mut ack: PipelineAck, upstream: &mut WriteHalf) -> Result<(), ReceiveError> {
        let ours = ack == restart_notice() && self.restarting.is_none();
        if !ours {
            ack.replies.insert(0, Status::Success.into());
        }
        let mut out = BytesMut::new();
        ack.encode(&mut out);
        write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)
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
                if ack.replies.is_empty() || (ack.seqno == UNKNOWN_SEQNO && ack.is_success()) {
                    return Err(ReceiveError::Mirror(format!("acknowledged {} with nothing", ack.seqno)));
                }
                ack.replies.insert(0, Status::Success.into());
                ack
            }
            Downstream::Broken | Downstream::Aside(_) => {
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
        let give_up = Instant::now() + READ_LIMIT;
        while Instant::now() < give_up && !self.state.sender_gone.load(Ordering::Acquire) {
            write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
            // Woken at once when the sender hangs up.
            let _ = timeout(BROKEN_MIRROR_REPEAT, self.state.gone.notified()).await;
        }
        Err(ReceiveError::Mirror("is gone".into()))
    }

    async fn end(&self, upstream: &mut WriteHalf) -> Result<(), ReceiveError> {
        if let Sender::Transfer(_) = self.setup.sender {
            let mut out = BytesMut::new();
            encode_delimited(&DnTransferAckProto { status: Status::Success as i32 }, &mut out);
            write_all(upstream, &out, WRITE_LIMIT).await.map_err(ReceiveError::Sender)?;
        }
        if self.setup.sender != Sender::Client {
            // The sender may be gone already; it has its answer.
            let _ = upstream.shutdown().await;
        }
        Ok(())
    }
}

/// Waits for an acknowledgement of the next node; for ever if there is none. Nothing is lost if the wait is given up.
async fn listen(mirror: &mut Option<Framed<ReadHalf>>) -> io::Result<PipelineAck> {
    match mirror {
        Some(mirror) => mirror.ack().await,
        None => std::future::pending().await,
    }
}

/// Waits until this node is about to be restarted; once.
async fn restarts(restarting: &mut Option<watch::Receiver<bool>>) {
    match restarting {
        Some(receiver) => match receiver.wait_for(|restarting| *restarting).await.map(|_| ()) {
            Ok(()) => *restarting = None,
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// What a node says that is about to be restarted.
fn restart_notice() -> PipelineAck {
    PipelineAck::new(UNKNOWN_SEQNO, [Status::OobRestart])
}

/// Whether it is out of band: about a node, not about a packet (HDFS: `PipelineAck.getOOBStatus`).
fn is_aside(ack: &PipelineAck) -> bool {
    use Status::{OobReserved1, OobReserved2, OobReserved3, OobRestart};
    let oob = |status| matches!(status, OobRestart | OobReserved1 | OobReserved2 | OobReserved3);
    ack.seqno == UNKNOWN_SEQNO && ack.replies.iter().any(|reply| oob(reply.status))
}

/// Makes the replica what it is to be after its last packet.
async fn finish(
    node: &Node,
    setup: &Setup,
    growing: &Growing,
    packet: &Arrived,
    open: &mut Option<OpenReplica>,
) -> Result<(), ReceiveError> {
    let expected = setup.block.block.length;
    let fits = match setup.sender {
        Sender::Client => true,
        Sender::Datanode => expected == 0 || packet.end == expected,
        // What was visible, to the end of its last chunk.
        Sender::Transfer(_) => packet.end >= expected,
    };
    if !fits {
        let what = format!("{} bytes of {expected} came", packet.end);
        return Err(ReceiveError::Request(what));
    }
    let open = open.take().expect("a block ends once");
    if setup.sender != Sender::Transfer(Becomes::Rbw) {
        growing.acknowledge(packet.end);
    }
    let finished = match setup.sender {
        Sender::Transfer(Becomes::Rbw) => node.store.publish(open, expected).await,
        Sender::Transfer(Becomes::Final) => node.store.finalise(open, packet.end, None).await.map(|_| ()),
        Sender::Client | Sender::Datanode => {
            node.store.finalise(open, packet.end, Some(Change::Received)).await.map(|_| ())
        }
    };
    finished.map_err(ReceiveError::Disk)
}
