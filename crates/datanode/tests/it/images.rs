//! Every instant at which a node can be killed, or lose its power, in the life of a replica: what was promised is
//! there afterwards, under a stamp not older than the one that was promised.

use std::io::ErrorKind;

use mobula_datanode::DataNode;
use mobula_disk::{Crash, CrashDisk};
use mobula_net::Env;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_wire::datatransfer::Op;

use crate::namenode::FakeNamenode;
use crate::recovery::Peer;
use crate::speaker::{Flags, Speaker, read_block, write_op};
use crate::stages::Again;
use crate::{JOURNALS, bytes, on, on_with};

const ID: u64 = 1;

/// What a client knows to hold.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    /// Bytes that survive a kill.
    flushed: usize,
    /// Bytes that survive a power loss.
    synced: usize,
    /// The stamp that they have at least.
    stamp: u64,
    /// Whether the block is closed.
    closed: bool,
}

/// A block's life: flushed, synced, cut by the recovery of its pipeline, closed, appended to, closed, truncated.
struct Life {
    disk: CrashDisk,
    addr: String,
    data: Vec<u8>,
    now: Promise,
    /// Each with the number of changes to the disk at the time.
    promises: Vec<(usize, Promise)>,
}

impl Life {
    fn promise(&mut self, change: impl FnOnce(&mut Promise)) {
        change(&mut self.now);
        self.promises.push((self.disk.changes(), self.now));
    }

    /// Writes from a chunk's border, or within a chunk, and waits. `None`, as for all of these, if the node fails at it.
    async fn write(
        &mut self,
        speaker: &mut Speaker,
        seqno: i64,
        (from, to): (usize, usize),
        flags: Flags,
    ) -> Option<()> {
        speaker.packet(seqno, from, &self.data[from..to], flags).await;
        acked(speaker, seqno).await?;
        self.promise(|promise| {
            promise.flushed = to;
            if flags == Flags::Sync {
                promise.synced = to;
            }
        });
        Some(())
    }

    async fn again(&mut self, stage: Stage, next: u64) -> Option<Speaker> {
        let length = self.now.flushed as u64;
        self.promise(|promise| promise.closed = false);
        let again =
            Again { stage, stamp: self.now.stamp, next, least: length, most: length, client: "client" };
        let (speaker, accepted) = again.ask(&self.addr, ID, &[]).await;
        if accepted {
            self.promise(|promise| promise.stamp = next);
        }
        accepted.then_some(speaker)
    }

    async fn close(&mut self, speaker: &mut Speaker, seqno: i64) -> Option<()> {
        let length = self.now.flushed;
        speaker.packet(seqno, length, &[], Flags::Last).await;
        acked(speaker, seqno).await?;
        self.promise(|promise| {
            promise.closed = true;
            promise.synced = promise.flushed;
        });
        Some(())
    }

    async fn live(&mut self, peer: &Peer) -> Option<()> {
        let mut speaker = Speaker::connect(&self.addr).await;
        speaker.op(Op::WriteBlock, &write_op(ID, "client", &[])).await;
        speaker.response().await?;
        self.promise(|promise| promise.stamp = 1001);
        self.write(&mut speaker, 0, (0, 100), Flags::None).await?;
        self.write(&mut speaker, 1, (0, 700), Flags::Sync).await?;
        // On within the chunk whose checksum was synced, flushed and not.
        self.write(&mut speaker, 2, (512, 800), Flags::None).await?;
        self.write(&mut speaker, 3, (512, 900), Flags::None).await?;
        self.write(&mut speaker, 4, (512, 5000), Flags::None).await?;
        self.write(&mut speaker, 5, (4608, 6000), Flags::Sync).await?;
        self.write(&mut speaker, 6, (5632, 6100), Flags::None).await?;
        drop(speaker);
        let mut speaker = self.again(Stage::PipelineSetupStreamingRecovery, 1002).await?;
        self.write(&mut speaker, 7, (5632, 6300), Flags::None).await?;
        self.write(&mut speaker, 8, (6144, 6400), Flags::Sync).await?;
        self.close(&mut speaker, 9).await?;
        let mut speaker = self.again(Stage::PipelineSetupAppend, 1003).await?;
        self.write(&mut speaker, 0, (6400, 6500), Flags::None).await?;
        self.write(&mut speaker, 1, (6400, 6656), Flags::Sync).await?;
        self.write(&mut speaker, 2, (6656, 7000), Flags::None).await?;
        drop(speaker);
        self.again(Stage::PipelineCloseRecovery, 1004).await?;
        self.promise(|promise| {
            promise.closed = true;
            promise.synced = promise.flushed;
        });
        // Truncated: from now on that much is promised.
        self.promise(|promise| {
            *promise = Promise { flushed: 5500, synced: 5500, closed: false, ..*promise };
        });
        let found = peer.init(ID, 1004, 1005).await.ok()?;
        assert_eq!(found, Some((0, 7000, 1004)));
        peer.update((ID, 1004, 7000), 1005, 5500, None).await.ok()?;
        self.promise(|promise| *promise = Promise { stamp: 1005, closed: true, ..*promise });
        Some(())
    }
}

/// Whether the next acknowledgement is that one, of one node.
async fn acked(speaker: &mut Speaker, seqno: i64) -> Option<()> {
    let ack = speaker.ack().await?;
    assert_eq!(ack.seqno, seqno);
    ack.is_success().then_some(())
}

/// A node on a disk that is recorded from now on, and a client that will write to it.
async fn begin(namenode: &FakeNamenode, seed: u64, journal: u64) -> (Life, DataNode) {
    let disk = CrashDisk::new(seed);
    let node = on_with(&disk, namenode, journal).await;
    disk.record();
    let addr = node.xfer_addr().to_string();
    let life = Life { disk, addr, data: bytes(7000), now: Promise::default(), promises: Vec::new() };
    (life, node)
}

#[tokio::test]
async fn every_kill_and_power_loss_in_a_replicas_life() {
    for journal in JOURNALS {
        every_kill_and_power_loss(journal).await;
    }
}

async fn every_kill_and_power_loss(journal: u64) {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let (mut life, node) = begin(&namenode, 1, journal).await;
    life.live(&Peer::of(&node)).await.expect("nothing fails");
    assert_eq!(read_block(&life.addr, ID, 0, 5500).await.unwrap(), &life.data[..5500]);
    drop(node);
    let recording = life.disk.recorded();
    let mut images = 0;
    for image in recording.images(3) {
        let what = format!("journal of {journal} bytes, {image:?}");
        check(&life, &namenode, image.changes, &image.disk, false, &what).await;
        images += 1;
    }
    for (changes, disk) in recording.kills() {
        let what = format!("journal of {journal} bytes, killed after change {changes}");
        check(&life, &namenode, changes, &disk, true, &what).await;
        images += 1;
    }
    let changes = recording.len();
    println!(
        "{images} crash images of a replica's life, {changes} changes of the disk, journal of {journal} bytes"
    );
    assert!(images > 400, "only {images} images of {changes} changes");
}

/// One call to the disk fails, whichever it is: the writer sees it, and what was promised before is there after a start.
#[tokio::test]
async fn every_call_to_the_disk_fails_once() {
    for journal in JOURNALS {
        every_call_fails_once(journal).await;
    }
}

async fn every_call_fails_once(journal: u64) {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let mut failed = 0;
    for number in 0.. {
        let (mut life, node) = begin(&namenode, number, journal).await;
        // Calls of the node's own rounds are among them: those are no failures of the writer.
        let before = life.disk.calls();
        let at = before + number;
        life.disk.set_fault(Some(Box::new(move |call| (call.number == at).then_some(ErrorKind::Other))));
        let done = life.live(&Peer::of(&node)).await;
        let calls = life.disk.calls() - before;
        failed += u32::from(done.is_none());
        drop(node);
        life.disk.set_fault(None);
        let crash = if number % 2 == 0 { Crash::Kill } else { Crash::PowerLoss };
        life.disk.crash(crash);
        let what = format!("journal of {journal} bytes, call {number} failed, then {crash:?}");
        check(&life, &namenode, usize::MAX, &life.disk, crash == Crash::Kill, &what).await;
        if number > calls {
            break;
        }
    }
    assert!(failed > 60, "only {failed} calls whose failure the writer saw");
}

/// Starts a node on an image, recovers the block there, and compares.
async fn check(
    life: &Life,
    namenode: &FakeNamenode,
    changes: usize,
    disk: &CrashDisk,
    killed: bool,
    what: &str,
) {
    let before = life.promises.iter().rev().find(|(at, _)| *at <= changes);
    let Some((_, promise)) = before.copied() else { return };
    let least = if killed { promise.flushed } else { promise.synced };
    let node = on(disk, namenode).await;
    let peer = Peer::of(&node);
    let found = peer.init(ID, 0, 9000).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let Some((state, length, stamp)) = found else {
        assert!(least == 0 && !promise.closed, "{what}: nothing is there, but {promise:?}");
        return;
    };
    assert!(length >= least as u64, "{what}: {length} bytes of {promise:?}");
    // A stamp that a pipeline agreed on is durable as soon as something of it was synced, or it was killed.
    let stamped = promise.stamp == 0 || stamp >= promise.stamp || (!killed && promise.synced == 0);
    assert!(stamped, "{what}: stamp {stamp}, but {promise:?}");
    assert_eq!(promise.closed, promise.closed && state == 0, "{what}: state {state}, but {promise:?}");
    if length > 0 {
        peer.update((ID, stamp, length), 9000, length, None)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let read = read_block(&node.xfer_addr().to_string(), ID, 0, length).await;
        assert!(read.is_ok_and(|read| read == life.data[..length as usize]), "{what}: other bytes");
    }
}
