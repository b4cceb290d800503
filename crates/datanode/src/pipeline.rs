//! A block on its way in, packet by packet: each is passed on to the next node of the pipeline while it comes,
//! handed to the disk and acknowledged (HDFS: `BlockReceiver`). The walk goes on in `store`.
//!
//! Three activities in one task, joined by short queues (`stir`): *ingest* reads packets, verifies them
//! and forwards them; *persist* writes what was gathered; *respond* (in `respond`) joins the acknowledgements
//! of the nodes further down with ours, in order.
//!
//! Invariants: nothing is acknowledged before it was handed to the operating system; bytes with a wrong
//! checksum go nowhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mobula_net::{ReadHalf, WriteHalf};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::batch::{Arrived, Batch, Checksums, PacketError, Tail};
use crate::framed::{Framed, write_two};
use crate::incoming::Incoming;
use crate::journal::{Fact, Journal};
use crate::node::{Node, WRITE_LIMIT};
use crate::receive::{Kept, Mirror, ReceiveError, Sender, Setup};
use crate::replica::{OpenReplica, Pen, SyncNow};
use crate::reports::BadBlock;
use crate::respond::Respond;
use crate::stir::{Giver, Stir, Taker};
use crate::store::Store;

/// Batches of one connection: one is filled while the other is written.
const BATCHES: usize = 2;
/// A packet of so many bytes of data is not waited for by those before it: their sender would miss their
/// acknowledgements. Java's client sends 63 KiB, HBase's log writer up to 12 MiB.
const LONG_PACKET: u32 = 1 << 20;
/// Acknowledgements that wait for the nodes further down. The sender's window bounds it, too.
const ACKS_MAX: usize = 4096;
/// What is still read from a sender that was told of an error, in bytes, so that it can read the answer.
const DRAIN_MAX: usize = 64 << 20;

/// A packet that is on its way to its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pending {
    /// It is with the operating system.
    Stored(Arrived),
    /// Its bytes were wrong.
    Corrupt(i64),
}

/// Everything that receives one block.
pub(crate) struct Pipeline<'a> {
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
pub(crate) struct PipelineState {
    pub mirror_broken: AtomicBool,
    pub broke: Notify,
    pub sender_gone: AtomicBool,
    pub gone: Notify,
    /// When the next node was last sent something.
    sent: Mutex<Option<Instant>>,
}

impl PipelineState {
    /// When the next node was last sent something, if ever.
    pub(crate) fn last_sent(&self) -> Option<Instant> {
        *self.sent.lock()
    }

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
    pub(crate) fn new(
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

    /// Receives all packets of the block, the last one among them; what can be used for another block.
    ///
    /// # Errors
    /// [`ReceiveError`]; `open` is still there unless its block was finished.
    pub(crate) async fn run(self, open: &mut Option<OpenReplica>) -> Result<Ended, ReceiveError> {
        let pen = open.as_ref().expect("the replica was just opened").pen();
        let growing = pen.growing().clone();
        let progress = growing.progress();
        let tail = Tail { length: progress.on_disk, last_sum: progress.last_sum.unwrap_or(0) };
        let Pipeline { node, setup, mirror_write, mirror_read, mut incoming, mut upstream, state } = self;
        let stir = Stir::default();
        let (full, filled) = stir.queue(1);
        let (spare, spares) = stir.queue(BATCHES);
        for _ in 0..BATCHES {
            spare.give(Batch::default()).await.expect("the queue holds all batches");
        }
        let (stored, acks) = stir.queue(ACKS_MAX);
        let corrupt = stored.clone();
        let checksums = Checksums { sent: setup.checksum, stored: growing.checksum };
        let mut taken = Ingest { setup, checksums, state: &state, mirror: mirror_write };
        let ingest = async {
            let result = taken.run(&mut incoming, tail, spares, full).await;
            if let Err(ReceiveError::Sender(_)) = &result {
                state.lose_sender();
            }
            (result, corrupt)
        };
        let mut answered = Respond::new(node, setup, &state, &growing, mirror_read);
        let activities = async {
            let persist = persist(&node.store, pen, filled, spare, stored);
            let chain = async {
                tokio::pin!(ingest, persist);
                let ((ingested, corrupt), persisted) = tokio::select! {
                    biased;
                    persisted = &mut persist => {
                        // A disk that failed: the sender, who may wait for its answer, is to know at once.
                        persisted?;
                        (ingest.await, Ok(()))
                    }
                    ingested = &mut ingest => (ingested, persist.await),
                };
                persisted?;
                if let Err(ReceiveError::Packet(PacketError::Checksum { seqno, .. })) = &ingested {
                    // Behind all that arrived before it, which is stored. The queue is open as long as somebody
                    // answers; if nobody does, nobody needs to know.
                    let _ = corrupt.give(Pending::Corrupt(*seqno)).await;
                }
                drop(corrupt);
                Ok::<_, ReceiveError>(ingested)
            };
            let respond = answered.run(acks, &mut upstream, open);
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
                match &chained {
                    Some(Err(_)) => break,
                    Some(Ok(Err(ReceiveError::Packet(error))))
                        if !matches!(error, PacketError::Checksum { .. }) =>
                    {
                        break;
                    }
                    _ => {}
                }
            }
            (chained.unwrap_or(Ok(Ok(()))), responded.unwrap_or(Ok(())))
        };
        let (chained, responded) = stir.drive(activities).await;
        let ingested = chained?;
        if let Err(error @ ReceiveError::Packet(PacketError::Checksum { .. })) = ingested {
            report_source(node, setup);
            // So that the answer is not lost with the connection: read on until the sender hangs up.
            drop(upstream);
            incoming.drain(DRAIN_MAX).await;
            return responded.and(Err(error));
        }
        responded.and(ingested)?;
        let mirror = taken.mirror.zip(answered.into_mirror()).map(|(write, read)| Mirror { read, write });
        let (read, rest) = incoming.into_parts();
        Ok(Ended { sender: Kept { read, rest, write: upstream }, mirror })
    }
}

/// A block's connections, after its end.
pub(crate) struct Ended {
    pub sender: Kept,
    pub mirror: Option<Mirror>,
}

/// A DataNode sent bad bytes: its replica is bad.
fn report_source(node: &Node, setup: &Setup) {
    if let (Sender::Datanode, Some(source)) = (setup.sender, &setup.request.source) {
        match BadBlock::sent_by(source, setup.block.block) {
            Some(bad) => node.store.reports.bad(&bad),
            None => tracing::warn!(block = %setup.block, "bad bytes from somebody who is no DataNode"),
        }
    }
}

/// Reads, verifies and forwards.
struct Ingest<'a> {
    setup: &'a Setup,
    checksums: Checksums,
    state: &'a PipelineState,
    mirror: Option<WriteHalf>,
}

impl Ingest<'_> {
    async fn run(
        &mut self,
        incoming: &mut Incoming<ReadHalf>,
        mut tail: Tail,
        mut spares: Taker<'_, Batch>,
        full: Giver<'_, Batch>,
    ) -> Result<(), ReceiveError> {
        let mut spare = None;
        loop {
            let taken = match spare.take() {
                Some(batch) => Some(batch),
                None => spares.take().await,
            };
            let Some(mut batch) = taken else { return Ok(()) };
            batch.begin(tail.length);
            let filled = self.fill(incoming, &mut batch, &mut tail, &mut spares, &mut spare).await;
            let last = batch.packets.last().is_some_and(|packet| packet.last);
            if !batch.packets.is_empty() && full.give(batch).await.is_err() {
                // The disk failed; that is told elsewhere.
                return Ok(());
            }
            filled?;
            if last {
                return Ok(());
            }
        }
    }

    /// Takes packets until there is enough for a write, or the next one is long, or nothing more is here and
    /// the disk is idle, which shows by a batch that came back: `spare`.
    async fn fill(
        &mut self,
        incoming: &mut Incoming<ReadHalf>,
        batch: &mut Batch,
        tail: &mut Tail,
        spares: &mut Taker<'_, Batch>,
        spare: &mut Option<Batch>,
    ) -> Result<(), ReceiveError> {
        loop {
            let prefix = incoming.prefix().await.map_err(ReceiveError::Sender)?;
            if prefix.header.data_length >= LONG_PACKET && !batch.packets.is_empty() {
                return Ok(());
            }
            let front = incoming.take_front(&prefix);
            let (at, length) = (batch.filled, prefix.header.data_length as usize);
            incoming.data(&mut batch.data, at, length).await.map_err(ReceiveError::Sender)?;
            batch.add(&prefix.header, &front[prefix.length..], self.checksums, tail)?;
            self.forward(&front, &batch.data[at..at + length]).await;
            if prefix.header.last || batch.is_full() {
                return Ok(());
            }
            if !incoming.is_ready().await {
                tokio::select! {
                    biased;
                    // None: the disk failed; that is told elsewhere.
                    back = spares.take() => {
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
        } else if self.setup.sender == Sender::Client {
            *self.state.sent.lock() = Some(Instant::now());
        }
    }
}

/// Hands batches to the operating system, one after the other, and says so.
async fn persist(
    store: &Store,
    pen: Pen,
    mut filled: Taker<'_, Batch>,
    spare: Giver<'_, Batch>,
    stored: Giver<'_, Pending>,
) -> Result<(), ReceiveError> {
    let mut durable = Durable { journal: store.journals.of(&pen.growing().volume), pen: &pen, named: false };
    while let Some(batch) = filled.take().await {
        // The end is synced when the replica is finished.
        let sync = batch.packets.iter().any(|packet| packet.sync && !packet.last);
        let written = if sync {
            durable.write(batch).await
        } else {
            write(&pen, batch, |_| Ok(())).await.map(|(batch, ())| batch)
        };
        let batch = written.map_err(ReceiveError::Disk)?;
        for packet in &batch.packets {
            if stored.give(Pending::Stored(*packet)).await.is_err() {
                return Ok(());
            }
        }
        // Nobody fills it any more after the last packet.
        let _ = spare.give(batch).await;
    }
    Ok(())
}

/// Hands a batch to the operating system, and does what is to follow in the same call.
async fn write<T: Send + 'static>(
    pen: &Pen,
    batch: Batch,
    then: impl FnOnce(&Pen) -> io::Result<T> + Send + 'static,
) -> io::Result<(Batch, T)> {
    let pool = &pen.growing().volume.pool;
    let short = batch.write(pen.growing().checksum).is_none_or(|write| pen.is_short(&write));
    let pen = pen.clone();
    let write = move || {
        pen.write(batch.write(pen.growing().checksum).as_ref(), SyncNow::No)?;
        let done = then(&pen)?;
        Ok((batch, done))
    };
    if short { pool.run_short(write).await } else { pool.run(write).await }
}

/// How what is to be synced becomes durable.
struct Durable<'a> {
    journal: &'a Journal,
    pen: &'a Pen,
    /// The replica's name was synced.
    named: bool,
}

impl Durable<'_> {
    /// In the journal, if it takes as much.
    async fn write(&mut self, batch: Batch) -> io::Result<Batch> {
        if !self.journal.takes_written(self.pen.growing(), batch.tail.length) {
            return self.write_in_place(batch).await;
        }
        let (batch, draft) = write(self.pen, batch, |pen| pen.draft(Fact::Written)).await?;
        if self.journal.written(draft, self.pen.clone()).await? {
            Ok(batch)
        } else {
            self.write_in_place(batch).await
        }
    }

    /// Where it lies. What was written already is written once more: the same bytes.
    async fn write_in_place(&mut self, batch: Batch) -> io::Result<Batch> {
        let (pen, name) = (self.pen.clone(), !self.named);
        let written = self.pen.growing().volume.run_sync(move || {
            let growing = pen.growing();
            pen.write(batch.write(growing.checksum).as_ref(), SyncNow::Yes)?;
            if name {
                growing.volume.disk.sync_folder(&growing.folder)?;
            }
            Ok::<_, io::Error>(batch)
        });
        let batch = written.await?;
        self.named = true;
        Ok(batch)
    }
}
