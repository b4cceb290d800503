//! Any order of what can happen to a few blocks on one node, with calls that fail, kills and power losses in between;
//! after each of those everything that was acknowledged is there, and nothing else is taken for it.
//!
//! `MOBULA_SEED=<seed>` runs one seed, `MOBULA_SEEDS=<count>` so many, from `MOBULA_FROM` on; `MOBULA_CALLS=1` prints what the disk
//! is told.

use std::io::ErrorKind;

use mobula_datanode::{DataNode, DatanodeConfig, VolumeConfig};
use mobula_disk::fake::CallKind;
use mobula_disk::{Crash, CrashDisk};
use mobula_net::{Entropy, Env};
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_types::ReplicaState;
use mobula_wire::datatransfer::Op;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use crate::namenode::FakeNamenode;
use crate::orders::order;
use crate::recovery::Peer;
use crate::speaker::{Flags, Speaker, read_block, write_op};
use crate::stages::Again;
use crate::{JOURNALS, within};

/// Some ten a second.
const SEEDS: u64 = 120;
/// Those that have found something: the wrong file synced, what was left of two replicas put together, a replica without its data,
/// a replay that was not sure of its journal, a cut that failed in the middle.
const FOUND: [u64; 8] = [1030, 1794, 2696, 10821, 12589, 14458, 11963, 43171];
const AT_ONCE: usize = 24;
const STEPS: u64 = 40;
const BLOCKS: u64 = 3;
/// How many bytes a write brings: within a chunk, around its border, around the longest that the journal takes.
const SIZES: [usize; 10] = [0, 1, 100, 511, 512, 513, 1_400, 5_000, 17_000, 70_000];

/// A block, and what its client knows.
#[derive(Default)]
struct Block {
    id: u64,
    /// All bytes that were sent and not taken back. What is there is a beginning of it.
    sent: Vec<u8>,
    /// Bytes that survive a kill.
    flushed: usize,
    /// Bytes that survive a power loss.
    synced: usize,
    closed: bool,
    /// It was begun, and so it is there at least after a kill.
    begun: bool,
    /// The stamp that it has at least; 0 if there is no block.
    stamp: u64,
    /// The first one.
    first: u64,
    writer: Option<Speaker>,
    seqno: i64,
    /// What was deleted or replaced before: bytes, first and last stamp.
    older: Vec<(Vec<u8>, u64, u64)>,
}

struct Run {
    seed: u64,
    entropy: Entropy,
    disk: CrashDisk,
    namenode: FakeNamenode,
    journal: u64,
    node: Option<DataNode>,
    blocks: Vec<Block>,
    stamp: u64,
    copies: u64,
    /// Calls fail, or did since the last start.
    fails: bool,
    log: Vec<String>,
}

impl Run {
    fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[self.entropy.below(of.len() as u64) as usize]
    }

    fn bytes(&self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.entropy.u64().to_le_bytes()).take(length).collect()
    }

    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// A node, unless calls fail.
    async fn start(&mut self) -> bool {
        self.journal = self.one_of(&JOURNALS);
        let config = DatanodeConfig {
            volumes: vec![VolumeConfig::new("/data")],
            namenodes: vec![self.namenode.address()],
            heartbeat_ms: 20,
            user: "admin".into(),
            volume_spare_bytes: 0,
            journal_bytes: self.journal,
            ..DatanodeConfig::default()
        };
        self.namenode.notes.lock().full.clear();
        let Ok(node) = DataNode::start(Env::real(), self.disk.process(), config).await else { return false };
        let registered = within(node.wait_registered()).await.is_ok();
        self.node = registered.then_some(node);
        registered
    }

    /// What lies on the disk.
    fn files(&self) -> Vec<String> {
        let disk = self.disk.process();
        let pool = std::path::Path::new("/data/current").join(crate::namenode::POOL);
        let folders = ["mobula", "current/rbw", "current/finalized/subdir0/subdir0"];
        let list = |folder| disk.list(&pool.join(folder)).unwrap_or_default();
        let names =
            |folder| list(folder).into_iter().map(move |it| format!("{folder}/{:?} {}", it.name, it.length));
        folders.into_iter().flat_map(names).collect()
    }

    fn addr(&self) -> String {
        self.node.as_ref().unwrap().xfer_addr().to_string()
    }

    fn peer(&self) -> Peer {
        Peer::of(self.node.as_ref().unwrap())
    }

    async fn step(&mut self) {
        let at = self.entropy.below(BLOCKS) as usize;
        let mut block = std::mem::take(&mut self.blocks[at]);
        let what = self.entropy.below(20);
        if block.stamp == 0 {
            match what {
                0..10 => self.create(&mut block).await,
                10..14 => self.copy(&mut block, Stage::TransferRbw).await,
                _ => self.copy(&mut block, Stage::TransferFinalized).await,
            }
        } else if block.closed {
            match what {
                0..6 => self.append(&mut block, Stage::PipelineSetupAppend).await,
                6..8 => self.append(&mut block, Stage::PipelineSetupAppendRecovery).await,
                8..10 => self.end_again(&mut block).await,
                10..13 => self.truncate(&mut block).await,
                13..14 => self.copy_beginning(&mut block).await,
                14..16 => self.copy(&mut block, Stage::TransferRbw).await,
                16..17 => self.copy(&mut block, Stage::TransferFinalized).await,
                _ => self.delete(&mut block).await,
            }
        } else if block.writer.is_some() {
            match what {
                0..14 => self.write(&mut block).await,
                14..18 => self.close(&mut block).await,
                18 => self.recover(&mut block).await,
                _ => block.writer = None,
            }
        } else {
            match what {
                0..8 => self.append(&mut block, Stage::PipelineSetupStreamingRecovery).await,
                8..11 => self.append(&mut block, Stage::PipelineSetupAppendRecovery).await,
                11..14 => self.end_again(&mut block).await,
                14..18 => self.recover(&mut block).await,
                _ => self.delete(&mut block).await,
            }
        }
        let Block { id, flushed, synced, closed, stamp, .. } = block;
        self.log.push(format!(
            "{what}: block {id}: {flushed} flushed, {synced} synced, closed: {closed}, stamp {stamp}, call {}",
            self.disk.calls()
        ));
        self.blocks[at] = block;
    }

    async fn create(&mut self, block: &mut Block) {
        let stamp = self.next_stamp();
        *block = Block {
            id: block.id,
            stamp,
            first: stamp,
            older: std::mem::take(&mut block.older),
            ..Block::default()
        };
        let mut op = write_op(block.id, "client", &[]);
        op.header.base_header.block.generation_stamp = stamp;
        let mut speaker = Speaker::connect(&self.addr()).await;
        speaker.op(Op::WriteBlock, &op).await;
        block.begun = speaker.response().await.is_some();
        block.writer = block.begun.then_some(speaker);
    }

    /// Some packets, the last of which may be synced.
    async fn write(&mut self, block: &mut Block) {
        let mut writer = block.writer.take().unwrap();
        let count = 1 + self.entropy.below(3);
        let mut sent = Vec::new();
        for number in 0..count {
            let from = block.sent.len() / 512 * 512;
            let more = self.bytes(self.one_of(&SIZES));
            block.sent.extend(&more);
            block.seqno += 1;
            let sync = number + 1 == count && self.entropy.below(2) == 0;
            let flags = if sync { Flags::Sync } else { Flags::None };
            writer.packet(block.seqno, from, &block.sent[from..], flags).await;
            sent.push((block.seqno, block.sent.len(), sync));
        }
        for (seqno, end, sync) in sent {
            match writer.ack().await {
                Some(ack) if ack.is_success() && ack.seqno == seqno => {}
                _ => return,
            }
            block.flushed = end;
            block.synced = if sync { end } else { block.synced };
        }
        block.writer = Some(writer);
    }

    async fn close(&mut self, block: &mut Block) {
        let mut writer = block.writer.take().unwrap();
        block.seqno += 1;
        writer.packet(block.seqno, block.sent.len(), &[], Flags::Last).await;
        if writer.ack().await.is_some_and(|ack| ack.is_success()) {
            (block.closed, block.synced) = (true, block.flushed);
        }
    }

    async fn ask(&mut self, block: &mut Block, stage: Stage) -> Option<Speaker> {
        block.writer = None;
        block.closed = false;
        let next = if self.entropy.below(3) == 0 { block.stamp } else { self.next_stamp() };
        let (least, most) = (block.flushed as u64, block.sent.len() as u64);
        let again = Again { stage, stamp: block.stamp, next, least, most, client: "client" };
        let (speaker, accepted) = again.ask(&self.addr(), block.id, &[]).await;
        if !accepted {
            return None;
        }
        block.stamp = next;
        if stage != Stage::PipelineSetupStreamingRecovery {
            // The node has no more than that, or it would not have accepted.
            block.sent.truncate(block.flushed);
            return Some(speaker);
        }
        self.send_again(block, speaker).await
    }

    /// What was sent and not acknowledged comes once more; the node may have some of it.
    async fn send_again(&mut self, block: &mut Block, mut writer: Speaker) -> Option<Speaker> {
        let from = block.flushed / 512 * 512;
        block.seqno += 1;
        writer.packet(block.seqno, from, &block.sent[from..], Flags::None).await;
        if !writer.ack().await.is_some_and(|ack| ack.is_success()) {
            return None;
        }
        block.flushed = block.sent.len();
        Some(writer)
    }

    /// Goes on with a replica, or with one that was closed.
    async fn append(&mut self, block: &mut Block, stage: Stage) {
        let closed = block.closed;
        block.writer = self.ask(block, stage).await;
        // A block that was closed and opened again is durable as it was.
        block.synced = if closed { block.flushed } else { block.synced };
    }

    async fn end_again(&mut self, block: &mut Block) {
        if self.ask(block, Stage::PipelineCloseRecovery).await.is_some() {
            (block.closed, block.synced) = (true, block.flushed);
        }
    }

    /// The recovery of a block whose writer is gone, or still there.
    async fn recover(&mut self, block: &mut Block) {
        let next = self.next_stamp();
        let Ok(found) = self.peer().init(block.id, 0, next).await else { return };
        block.writer = None;
        let Some((_, length, stamp)) = found else { return };
        assert!(length as usize >= block.flushed && length as usize <= block.sent.len(), "{length} bytes");
        self.update(block, (stamp, length), next, length).await;
    }

    async fn truncate(&mut self, block: &mut Block) {
        let next = self.next_stamp();
        let Ok(Some((_, length, stamp))) = self.peer().init(block.id, 0, next).await else { return };
        let new_length = self.entropy.below(length + 1);
        self.update(block, (stamp, length), next, new_length).await;
    }

    async fn update(&mut self, block: &mut Block, (stamp, length): (u64, u64), next: u64, new_length: u64) {
        let least = new_length as usize;
        block.closed = false;
        (block.flushed, block.synced) = (block.flushed.min(least), block.synced.min(least));
        if self.peer().update((block.id, stamp, length), next, new_length, None).await.is_ok() {
            block.sent.truncate(least);
            (block.flushed, block.synced) = (least, least);
            (block.closed, block.stamp) = (true, next);
        }
    }

    /// Truncates by a copy, which is then deleted.
    async fn copy_beginning(&mut self, block: &mut Block) {
        let (next, length) = (self.next_stamp(), block.flushed as u64);
        let Ok(Some((_, have, stamp))) = self.peer().init(block.id, 0, next).await else { return };
        assert_eq!(have, length);
        self.copies += 1;
        let (id, new_length) = (1_000 + self.copies, self.entropy.below(length + 1));
        let copied = self.peer().update((block.id, stamp, length), next, new_length, Some(id)).await;
        if copied.is_ok() && new_length > 0 {
            match read_block(&self.addr(), id, 0, new_length).await {
                Ok(read) => assert!(read == block.sent[..new_length as usize], "the copy"),
                Err(error) => assert!(self.fails, "the copy: {error}"),
            }
        }
    }

    /// A copy in the place of what is here, or of what was deleted.
    async fn copy(&mut self, block: &mut Block, stage: Stage) {
        let here = block.stamp != 0;
        let mut older = std::mem::take(&mut block.older);
        if here {
            older.push((block.sent.clone(), block.first, self.stamp));
        }
        let becomes_final = stage == Stage::TransferFinalized;
        let same = !here && becomes_final && !older.is_empty() && self.entropy.below(2) == 0;
        let (mut bytes, first, stamp) = match older.pop_if(|_| same) {
            Some(older) => older,
            None => (block.sent.clone(), self.stamp + 1, self.next_stamp()),
        };
        bytes.extend(self.bytes(self.one_of(&SIZES)));
        let mut op = write_op(block.id, "client", &[]);
        op.stage = stage as i32;
        op.header.base_header.block.generation_stamp = stamp;
        op.header.base_header.block.num_bytes = Some(bytes.len() as u64);
        *block = Block { id: block.id, stamp, first, older, ..Block::default() };
        let mut speaker = Speaker::connect(&self.addr()).await;
        speaker.op(Op::WriteBlock, &op).await;
        speaker.packet(0, 0, &bytes, Flags::None).await;
        speaker.packet(1, bytes.len(), &[], Flags::Last).await;
        let mut answer = Vec::new();
        let _ = within(speaker.stream.read_to_end(&mut answer)).await;
        block.sent = bytes;
        if !answer.is_empty() {
            (block.flushed, block.synced, block.begun) = (block.sent.len(), block.sent.len(), true);
            block.closed = becomes_final;
        }
    }

    async fn delete(&mut self, block: &mut Block) {
        let Some(node) = &self.node else { return };
        let before = self.deleted(block.id);
        self.namenode.order(node.uuid().as_str(), order(2, block.id, block.stamp, 0));
        let mut older = std::mem::take(&mut block.older);
        let sent = std::mem::take(&mut block.sent);
        *block =
            Block { id: block.id, sent, older, stamp: block.stamp, first: block.first, ..Block::default() };
        for _ in 0..50 {
            if self.deleted(block.id) > before {
                older = std::mem::take(&mut block.older);
                older.push((std::mem::take(&mut block.sent), block.first, self.stamp));
                *block = Block { id: block.id, older, ..Block::default() };
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    fn deleted(&self, id: u64) -> usize {
        let is = |(_, block, status): &&(String, mobula_proto::hdfs::BlockProto, i32)| {
            block.block_id == id && *status == 3
        };
        self.namenode.notes.lock().changes.iter().filter(is).count()
    }

    /// Lets calls fail from now on: one, all that follow, or all syncs.
    fn fail(&mut self) {
        let at = self.disk.calls() + self.entropy.below(30);
        let error = self.one_of(&[ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::OutOfMemory]);
        let how = self.entropy.below(4);
        self.log.push(format!("fails: {error:?} from call {at}, {how}"));
        let count = [1, 1, 5, u64::MAX][how as usize];
        self.set_fault(at, count, error);
        self.fails = true;
    }

    /// With `MOBULA_CALLS` set, all calls that change the disk are printed.
    fn set_fault(&self, at: u64, count: u64, error: ErrorKind) {
        let prints = std::env::var_os("MOBULA_CALLS").is_some();
        self.disk.set_fault(Some(Box::new(move |call| {
            // Reads say nothing of durability.
            let strikes = call.number >= at
                && call.number - at < count
                && !matches!(call.kind, CallKind::Read | CallKind::Look);
            if prints && !matches!(call.kind, CallKind::Read | CallKind::Look) {
                let failed = if strikes { ": fails" } else { "" };
                println!("{} {:?} {}{failed}", call.number, call.kind, call.path.display());
            }
            strikes.then_some(error)
        })));
    }

    /// Ends the node somehow; whether the power was lost.
    async fn end(&mut self) -> bool {
        for block in &mut self.blocks {
            block.writer = None;
        }
        let how = self.entropy.below(7);
        self.log.push(format!("ends: {how}, call {}", self.disk.calls()));
        let node = self.node.take();
        if let Some(node) = node.filter(|_| how == 0) {
            within(node.shutdown()).await;
        }
        self.set_fault(u64::MAX, 0, ErrorKind::Other);
        let crash = if how < 3 { Crash::Kill } else { Crash::PowerLoss };
        self.disk.crash(crash);
        crash == Crash::PowerLoss
    }

    /// Ends it, perhaps again in the middle of its start, starts it, and looks at everything.
    async fn again(&mut self) {
        let mut power = self.end().await;
        for _ in 0..self.entropy.below(3) {
            if self.entropy.below(2) == 0 {
                let at = self.disk.calls() + self.entropy.below(60);
                self.set_fault(at, u64::MAX, ErrorKind::Other);
            }
            self.start().await;
            power |= self.end().await;
        }
        let before = self.files();
        assert!(self.start().await, "nothing fails");
        self.fails = false;
        self.log.push(format!("starts with a journal of {} bytes from {before:?}", self.journal));
        let mut blocks = std::mem::take(&mut self.blocks);
        for block in &mut blocks {
            self.check(block, power).await;
        }
        self.blocks = blocks;
    }

    async fn check(&mut self, block: &mut Block, power: bool) {
        let report = self.namenode.notes.lock().full.last().unwrap().1.clone();
        let found = report.iter().find(|replica| replica.block.id.0 == block.id);
        let Block { id, flushed, synced, closed, begun, stamp, .. } = *block;
        let must = closed || if power { synced > 0 } else { begun };
        self.log.push(format!("finds block {id}: {found:?}, power lost: {power}"));
        let Some(found) = found else {
            assert!(!must, "block {id} is gone");
            let mut older = std::mem::take(&mut block.older);
            if stamp != 0 {
                older.push((std::mem::take(&mut block.sent), block.first, self.stamp));
            }
            *block = Block { id, older, ..Block::default() };
            return;
        };
        let (have, is_final) = (found.block.stamp.0, found.state == ReplicaState::Finalized);
        let is_older = stamp == 0 || have < block.first;
        assert!(!must || !is_older && have >= stamp, "block {id}: stamp {have}, not {stamp}");
        let sent = if is_older {
            let was = block.older.iter().rev().find(|(_, first, last)| (*first..=*last).contains(&have));
            was.unwrap_or_else(|| panic!("block {id}: stamp {have}")).0.clone()
        } else {
            std::mem::take(&mut block.sent)
        };
        let least = if is_older {
            0
        } else if power {
            surely_synced(synced)
        } else {
            flushed
        };
        let next = self.next_stamp();
        // What nobody was promised may be gone after the next crash.
        let stays = is_final && closed && !is_older;
        let length = if stays {
            found.block.length
        } else {
            let (_, length, _) = self.peer().init(id, 0, next).await.unwrap().unwrap();
            self.peer().update((id, have, length), next, length, None).await.unwrap();
            length
        };
        assert!(length as usize >= least, "block {id}: {length} bytes, not {least}");
        assert!(!closed || is_final && length as usize == flushed, "block {id} was closed: {length} bytes");
        assert!(length as usize <= sent.len(), "block {id}: {length} bytes of {}", sent.len());
        if length > 0 {
            let read = read_block(&self.addr(), id, 0, length).await.unwrap();
            assert!(read == sent[..length as usize], "block {id}: other bytes");
        }
        let stamp = if stays { have } else { next };
        let length = length as usize;
        let sent = sent[..length].to_vec();
        let (flushed, synced, closed, begun) = (length, length, true, true);
        let older = std::mem::take(&mut block.older);
        *block = Block {
            id,
            sent,
            flushed,
            synced,
            closed,
            begun,
            stamp,
            first: stamp,
            older,
            ..Block::default()
        };
    }

    async fn run(&mut self) {
        self.set_fault(u64::MAX, 0, ErrorKind::Other);
        assert!(self.start().await);
        for _ in 0..STEPS {
            match self.entropy.below(20) {
                0 => self.fail(),
                1 => self.again().await,
                _ if self.node.as_ref().is_some_and(|node| node.stopped().is_some()) => self.again().await,
                _ => self.step().await,
            }
        }
        self.again().await;
    }
}

/// How much of what was synced no power loss takes, though more was written behind it. The checksum of a chunk that is not
/// full may be torn as it is overwritten, if it lies across the border of a sector (docs/decisions/0005-block-recovery.md).
fn surely_synced(synced: usize) -> usize {
    let (full, sum_at) = (synced / 512 * 512, 7 + synced / 512 * 4);
    if sum_at % 512 > 508 { full } else { synced }
}

/// Says what happened if it fails.
impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("MOBULA_SEED={}, journal of {} bytes\n{}", self.seed, self.journal, self.log.join("\n"));
        }
    }
}

async fn run(seed: u64) {
    let blocks = (1..=BLOCKS).map(|id| Block { id, ..Block::default() }).collect();
    let mut run = Run {
        seed,
        entropy: Entropy::seeded(seed),
        disk: CrashDisk::new(seed),
        namenode: FakeNamenode::start(&Env::real()).await,
        journal: 0,
        node: None,
        blocks,
        stamp: 1_000,
        copies: 0,
        fails: false,
        log: Vec::new(),
    };
    run.run().await;
}

#[tokio::test]
async fn whatever_happens_what_was_acknowledged_is_there() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let from = number("MOBULA_FROM").unwrap_or(0);
    let (found, seeds) = match number("MOBULA_SEED") {
        Some(seed) => (&[][..], seed..seed + 1),
        None => (&FOUND[..], from..from + number("MOBULA_SEEDS").unwrap_or(SEEDS)),
    };
    let mut runs = JoinSet::new();
    for seed in found.iter().copied().chain(seeds) {
        runs.spawn(run(seed));
        if runs.len() == AT_ONCE {
            runs.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}
