//! The journal where replicas go and come back, where something is short, and where power fails twice.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mobula_datanode::DataNode;
use mobula_disk::fake::{CallKind, Loss};
use mobula_disk::{Crash, CrashDisk, Open};
use mobula_net::Env;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_types::ReplicaState;
use mobula_wire::checksum::ChecksumKind;
use mobula_wire::datatransfer::Op;

use crate::namenode::{FakeNamenode, POOL};
use crate::orders::order;
use crate::recovery::Peer;
use crate::speaker::{Flags, Speaker, read_block, write_block, write_op};
use crate::stages::Again;
use crate::{bytes, on_with, start_with, until, within};

/// Room for some records.
const SMALL: u64 = 4 << 10;
/// Room for all records of a test.
const LARGE: u64 = 64 << 10;
/// The stamp of what is written here first.
const STAMP: u64 = 1001;
/// A block that is only there to be written beside others.
const OTHER: u64 = 50;

fn pool() -> PathBuf {
    Path::new("/data/current").join(POOL)
}

fn rbw() -> PathBuf {
    pool().join("current/rbw")
}

fn last() -> PathBuf {
    pool().join("current/finalized/subdir0/subdir0")
}

fn is_journal(path: &Path) -> bool {
    path.starts_with(pool().join("mobula"))
}

async fn namenode() -> FakeNamenode {
    FakeNamenode::start(&Env::real()).await
}

fn addr(node: &DataNode) -> String {
    node.xfer_addr().to_string()
}

/// Opens a block under a new stamp, or the same.
async fn again(node: &DataNode, id: u64, stage: Stage, (stamp, next): (u64, u64), length: usize) -> Speaker {
    let length = length as u64;
    let again = Again { stage, stamp, next, least: length, most: length, client: "client" };
    let (speaker, accepted) = again.ask(&addr(node), id, &[]).await;
    assert!(accepted, "{again:?}");
    speaker
}

/// Writes `data` from `from` on, and waits.
async fn write(speaker: &mut Speaker, seqno: i64, data: &[u8], from: usize, flags: Flags) {
    speaker.packet(seqno, from, &data[from..], flags).await;
    speaker.acked(seqno, 1).await;
}

/// Syncs bytes of another block: what was written to the journal before is durable, too.
async fn sync_another(node: &DataNode, id: u64) -> Speaker {
    let mut speaker = Speaker::open(&addr(node), id, &[]).await;
    write(&mut speaker, 0, &bytes(10), 0, Flags::Sync).await;
    speaker
}

async fn delete(namenode: &FakeNamenode, node: &DataNode, id: u64, stamp: u64) {
    namenode.order(node.uuid().as_str(), order(2, id, stamp, 0));
    until(|| namenode.deleted(id)).await;
}

/// What a copy by order, or for a pipeline, brings.
async fn copy(node: &DataNode, id: u64, (stage, stamp): (Stage, u64), data: &[u8]) {
    let client = if stage == Stage::PipelineSetupCreate { "" } else { "client" };
    let mut op = write_op(id, client, &[]);
    op.stage = stage as i32;
    op.header.base_header.block.generation_stamp = stamp;
    op.header.base_header.block.num_bytes = Some(data.len() as u64);
    let mut speaker = Speaker::connect(&addr(node)).await;
    speaker.op(Op::WriteBlock, &op).await;
    speaker.packet(0, 0, data, Flags::None).await;
    speaker.packet(1, data.len(), &[], Flags::Last).await;
    let mut answer = Vec::new();
    let _ = within(tokio::io::AsyncReadExt::read_to_end(&mut speaker.stream, &mut answer)).await;
}

/// Whatever a node calls final can be read, all of it: `data` from the beginning on.
async fn check_final(namenode: &FakeNamenode, node: &DataNode, data: &[u8], what: &str) {
    let report = namenode.notes.lock().full.last().unwrap().1.clone();
    for replica in report.iter().filter(|replica| replica.state == ReplicaState::Finalized) {
        let length = replica.block.length;
        let read = read_block(&addr(node), replica.block.id.0, 0, length).await;
        assert!(read.is_ok_and(|read| read == data[..length as usize]), "{what}: {replica:?}");
    }
}

/// A deletion is on its way to the disk, the journal knows of it, and the power fails: what is left of the replica is not
/// taken for one.
#[tokio::test]
async fn what_is_left_of_a_deleted_replica() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    let data = bytes(9_000);
    let node = on_with(&disk, &namenode, LARGE).await;
    disk.record();
    for id in 1..=4 {
        write_block(&addr(&node), id, &[], &data[..id as usize * 2_000], 1024).await;
    }
    for id in 1..=4 {
        delete(&namenode, &node, id, STAMP).await;
        sync_another(&node, OTHER + id).await;
    }
    drop(node);
    for image in disk.recorded().images(4) {
        let namenode = crate::journal::namenode().await;
        let node = on_with(&image.disk, &namenode, LARGE).await;
        check_final(&namenode, &node, &data, &format!("{image:?}")).await;
    }
}

/// A copy takes the place of a final replica, a client goes on with it, and the power loss brings the old one back.
#[tokio::test]
async fn an_old_final_replica_comes_back_beside_what_was_synced() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    let data = bytes(3_000);
    let node = on_with(&disk, &namenode, 0).await;
    write_block(&addr(&node), 1, &[], &data[..1_000], 1024).await;
    drop(node);
    disk.crash(Crash::Kill);
    let node = on_with(&disk, &namenode, LARGE).await;
    copy(&node, 1, (Stage::TransferRbw, 1002), &data[..1_500]).await;
    let stage = Stage::PipelineSetupStreamingRecovery;
    let mut speaker = again(&node, 1, stage, (1002, 1003), 1_500).await;
    speaker.packet(1, 1024, &data[1024..2_000], Flags::Sync).await;
    speaker.acked(1, 1).await;
    drop((speaker, node));
    disk.lose_power(Loss::Lost);
    let node = on_with(&disk, &namenode, LARGE).await;
    let found = Peer::of(&node).init(1, 1003, 9000).await.unwrap().unwrap();
    assert_eq!((found.1, found.2), (2_000, 1003));
}

/// What the journal alone had of a replica is there although a kill leaves its end half done, and the power fails after
/// the start that follows.
#[tokio::test]
async fn a_kill_and_then_a_power_loss() {
    for journal in [SMALL, LARGE] {
        let namenode = namenode().await;
        let disk = CrashDisk::new(1);
        let data = bytes(20_000);
        let node = on_with(&disk, &namenode, journal).await;
        disk.record();
        let mut speaker = Speaker::open(&addr(&node), 1, &[]).await;
        write(&mut speaker, 0, &data[..1_000], 0, Flags::Sync).await;
        let synced = disk.changes();
        // More than is finished in the journal.
        speaker.packet(1, 512, &data[512..], Flags::None).await;
        speaker.acked(1, 1).await;
        speaker.packet(2, data.len(), &[], Flags::Last).await;
        speaker.acked(2, 1).await;
        drop(node);
        for (changes, disk) in disk.recorded().kills().filter(|(changes, _)| *changes >= synced) {
            let what = format!("journal of {journal} bytes, killed after change {changes}");
            drop(on_with(&disk, &namenode, journal).await);
            disk.lose_power(Loss::Lost);
            let node = on_with(&disk, &namenode, journal).await;
            let found = Peer::of(&node).init(1, STAMP, 9000).await.unwrap();
            let length = found.unwrap_or_else(|| panic!("{what}: it is gone")).1;
            assert!(length >= 1_000, "{what}: {length}");
        }
    }
}

/// Descriptors are short while a file is settled: that is tried again, and nothing is out of use.
#[tokio::test]
async fn descriptors_are_short_while_the_journal_is_settled() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    let node = on_with(&disk, &namenode, SMALL).await;
    let data = bytes(200_000);
    let mut speaker = Speaker::open(&addr(&node), 1, &[]).await;
    // Too much for the journal: from now on the replica's name is durable.
    let mut length = 150_000;
    write(&mut speaker, 0, &data[..length], 0, Flags::Sync).await;
    let strikes = |call: &mobula_disk::fake::Call<'_>| {
        (call.kind == CallKind::SyncFolder && call.path == rbw()).then_some(ErrorKind::OutOfMemory)
    };
    disk.set_fault(Some(Box::new(strikes)));
    let mut seqno = 0;
    let mut more = async |count: usize| {
        for _ in 0..count {
            (seqno, length) = (seqno + 1, length + 500);
            speaker
                .packet(
                    seqno,
                    (length - 500) / 512 * 512,
                    &data[(length - 500) / 512 * 512..length],
                    Flags::Sync,
                )
                .await;
            speaker.acked(seqno, 1).await;
        }
    };
    more(20).await;
    disk.set_fault(None);
    let made = disk.count(CallKind::Change);
    more(20).await;
    assert_eq!(node.stopped(), None);
    assert_eq!(disk.count(CallKind::Change), made, "no probe: nothing is wrong");
    drop((speaker, node));
    disk.lose_power(Loss::Lost);
    let node = on_with(&disk, &namenode, SMALL).await;
    let (_, length, _) = Peer::of(&node).init(1, STAMP, 9000).await.unwrap().unwrap();
    assert_eq!(length, 170_000);
    assert_eq!(Peer::of(&node).update((1, STAMP, length), 9000, length, None).await.map(drop), Ok(()));
    assert_eq!(read_block(&addr(&node), 1, 0, length).await.unwrap(), data[..length as usize]);
}

/// The journal cannot be written: the volume is out of use, and not in a state in which it takes all and syncs nothing.
#[tokio::test]
async fn a_journal_that_cannot_be_written() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    let node = on_with(&disk, &namenode, LARGE).await;
    let mut speaker = sync_another(&node, 1).await;
    let mut left = Some(ErrorKind::Other);
    disk.set_fault(Some(Box::new(move |call| {
        if call.kind == CallKind::Write && is_journal(call.path) { left.take() } else { None }
    })));
    speaker.packet(1, 0, &bytes(100), Flags::Sync).await;
    assert!(speaker.ack().await.is_none());
    within(node.wait_stopped()).await;
}

/// A file of a replica is gone that the journal has: that is one replica's trouble.
#[tokio::test]
async fn an_append_to_what_lost_a_file() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    let node = on_with(&disk, &namenode, LARGE).await;
    for id in 1..=2 {
        write_block(&addr(&node), id, &[], &bytes(1_000), 1024).await;
    }
    disk.process().remove_file(&last().join("blk_1_1001.meta")).unwrap();
    assert!(!Again::new(Stage::PipelineSetupAppend).ask(&addr(&node), 1, &[]).await.1);
    assert_eq!((node.stopped(), node.replicas()), (None, 2));
    assert_eq!(read_block(&addr(&node), 2, 0, 1_000).await.unwrap(), bytes(1_000));
    until(|| namenode.notes.lock().bad.iter().any(|bad| bad.b.block_id == 1)).await;
}

/// Whoever still writes after an orderly end syncs in place: no journal is left for whoever has the volume next.
#[tokio::test]
async fn an_orderly_end_leaves_no_journal() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    let node = on_with(&disk, &namenode, LARGE).await;
    let data = bytes(1 << 20);
    let mut speaker = sync_another(&node, 1).await;
    write_block(&addr(&node), 2, &[], &data[..100], 1024).await;
    let (written, ended) = (data.clone(), Arc::new(AtomicBool::new(false)));
    let until_then = ended.clone();
    let writer = tokio::spawn(async move {
        let mut acked = 10;
        for (seqno, end) in (20..).step_by(10).enumerate() {
            let from = acked / 512 * 512;
            speaker.packet(seqno as i64 + 1, from, &written[from..end], Flags::Sync).await;
            if !speaker.ack().await.is_some_and(|ack| ack.is_success()) {
                break;
            }
            acked = end;
            if until_then.load(Ordering::Acquire) {
                break;
            }
        }
        acked
    });
    within(node.shutdown()).await;
    ended.store(true, Ordering::Release);
    let acked = within(writer).await.unwrap();
    for name in ["journal-0", "journal-1"] {
        assert_eq!(disk.process().look(&pool().join("mobula").join(name)).unwrap(), None, "{name}");
    }
    disk.lose_power(Loss::Lost);
    let node = on_with(&disk, &namenode, LARGE).await;
    assert_eq!(read_block(&addr(&node), 2, 0, 100).await.unwrap(), data[..100]);
    let (_, length, _) = Peer::of(&node).init(1, STAMP, 9000).await.unwrap().unwrap();
    assert!(length >= acked as u64, "{length} of {acked}");
}

/// The power failed when a block was begun here, and has left an empty file. Its copy, which came later, is as durable as any
/// other when the journal goes.
#[tokio::test]
async fn a_file_that_was_left_behind_is_not_settled_in_place_of_the_replica() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    drop(on_with(&disk, &namenode, LARGE).await);
    let process = disk.process();
    process.open(&rbw().join("blk_1"), Open::CreateNew).unwrap().sync_data().unwrap();
    process.sync_folder(&rbw()).unwrap();
    let node = on_with(&disk, &namenode, LARGE).await;
    let data = bytes(1400);
    copy(&node, 1, (Stage::TransferFinalized, STAMP), &data).await;
    assert!(
        process.look(&pool().join("mobula/journal-0")).unwrap().is_some(),
        "it was not kept in the journal"
    );
    within(node.shutdown()).await;
    disk.lose_power(Loss::Lost);
    let node = on_with(&disk, &namenode, LARGE).await;
    assert!(read_block(&addr(&node), 1, 0, 1400).await.unwrap() == data);
}

/// The journal's sync fails at a replica's end, the next process replays what only memory has, and the power fails in the
/// middle: what had been synced before is there.
#[tokio::test]
async fn a_replay_of_what_no_disk_has_is_cut_short() {
    let data = bytes(600);
    for seed in 0..60 {
        let namenode = namenode().await;
        let disk = CrashDisk::new(seed);
        let node = on_with(&disk, &namenode, LARGE).await;
        let mut speaker = Speaker::open(&addr(&node), 1, &[]).await;
        write(&mut speaker, 0, &data, 0, Flags::Sync).await;
        disk.fail_sync(0);
        speaker.packet(1, 600, &[], Flags::Last).await;
        within(node.wait_stopped()).await;
        drop((node, speaker));
        disk.crash(Crash::Kill);
        disk.set_fault(Some(Box::new(|call| {
            let replayed =
                call.kind == CallKind::Write && call.path.starts_with(pool().join("current/finalized"));
            (replayed && call.path.ends_with("blk_1")).then_some(ErrorKind::Other)
        })));
        let node = start_with(&disk, &namenode, LARGE).await;
        within(node.wait_stopped()).await;
        drop(node);
        disk.set_fault(None);
        disk.lose_power(Loss::Reordered);
        let node = on_with(&disk, &namenode, LARGE).await;
        let (_, length, stamp) = Peer::of(&node).init(1, STAMP, 9000).await.unwrap().unwrap();
        assert_eq!(length, 600, "seed {seed}");
        Peer::of(&node).update((1, stamp, 600), 9000, 600, None).await.unwrap();
        assert!(read_block(&addr(&node), 1, 0, 600).await.unwrap() == data, "seed {seed}");
    }
}

/// An orderly end removes one of the files only: what that one says of a replica that has gone on is not done again.
#[tokio::test]
async fn one_of_the_files_stays() {
    for (rounds, stays) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let what = format!("after {rounds} rounds journal-{stays} stays");
        let namenode = namenode().await;
        let disk = CrashDisk::new(1);
        let data = bytes(1_500);
        let node = on_with(&disk, &namenode, SMALL).await;
        for id in 10..10 + rounds * 3 {
            write_block(&addr(&node), id, &[], &data[..1_000], 1024).await;
        }
        write_block(&addr(&node), 1, &[], &data[..1_000], 1024).await;
        for id in 30..32 {
            write_block(&addr(&node), id, &[], &data[..1_000], 1024).await;
        }
        let mut writers = Vec::new();
        for id in 40..44 {
            // Until nothing more fits.
            writers.push(sync_another(&node, id).await);
        }
        // As hdfs-native appends: under the old stamp.
        let mut speaker = again(&node, 1, Stage::PipelineSetupAppend, (STAMP, STAMP), 1_000).await;
        speaker.packet(0, 1_000, &data[1_000..1_024], Flags::None).await;
        speaker.acked(0, 1).await;
        write(&mut speaker, 1, &data, 1_024, Flags::None).await;
        speaker.packet(2, data.len(), &[], Flags::Last).await;
        speaker.acked(2, 1).await;
        let path = pool().join(format!("mobula/journal-{stays}"));
        disk.set_fault(Some(Box::new(move |call| {
            (call.kind == CallKind::Change && call.path == path).then_some(ErrorKind::PermissionDenied)
        })));
        within(node.shutdown()).await;
        disk.set_fault(None);
        disk.crash(Crash::Kill);
        let node = on_with(&disk, &namenode, SMALL).await;
        let read = read_block(&addr(&node), 1, 0, 1_500).await;
        assert!(read == Ok(data), "{what}: {:?}", read.map(|read| read.len()));
    }
}

/// A deletion that the journal had no room for, and a new copy under the same stamp: the old record is not done again.
#[tokio::test]
async fn a_new_copy_of_what_was_deleted() {
    for rounds in 0..4 {
        let namenode = namenode().await;
        let disk = CrashDisk::new(1);
        // More than is finished in the journal.
        let data = bytes(20_000);
        let node = on_with(&disk, &namenode, SMALL).await;
        for id in 10..10 + rounds {
            write_block(&addr(&node), id, &[], &data[..1_000], 1024).await;
        }
        write_block(&addr(&node), 1, &[], &data[..1_000], 1024).await;
        let full = |call: &mobula_disk::fake::Call<'_>| {
            (call.kind == CallKind::Write && is_journal(call.path)).then_some(ErrorKind::StorageFull)
        };
        disk.set_fault(Some(Box::new(full)));
        delete(&namenode, &node, 1, STAMP).await;
        disk.set_fault(None);
        copy(&node, 1, (Stage::PipelineSetupCreate, STAMP), &data).await;
        until(|| namenode.received(1) == 2).await;
        drop(node);
        disk.lose_power(Loss::Lost);
        let node = on_with(&disk, &namenode, SMALL).await;
        let read = read_block(&addr(&node), 1, 0, 20_000).await;
        assert!(read == Ok(data), "after {rounds} rounds: {:?}", read.map(|read| read.len()));
    }
}

/// Descriptors were short when the journal's folder was to be made durable, and are there again: it is durable before anything
/// is kept in it.
#[tokio::test]
async fn descriptors_are_short_while_the_journal_is_made() {
    let namenode = namenode().await;
    for parent in [true, false] {
        let disk = CrashDisk::new(1);
        let node = on_with(&disk, &namenode, LARGE).await;
        let folder = if parent { pool() } else { pool().join("mobula") };
        let mut left = Some(ErrorKind::OutOfMemory);
        disk.set_fault(Some(Box::new(move |call| {
            if call.kind == CallKind::SyncFolder && call.path == folder { left.take() } else { None }
        })));
        let data = bytes(300);
        let mut speaker = Speaker::open(&addr(&node), 1, &[]).await;
        for (seqno, end) in [100, 200, 300].into_iter().enumerate() {
            write(&mut speaker, seqno as i64, &data[..end], 0, Flags::Sync).await;
        }
        drop((speaker, node));
        disk.lose_power(Loss::Lost);
        let node = on_with(&disk, &namenode, LARGE).await;
        let found = Peer::of(&node).init(1, STAMP, 9000).await.unwrap();
        assert_eq!(found.map(|(_, length, _)| length), Some(300));
    }
}

/// What a later program has written is not known here, and nothing is done as if it were nothing.
#[tokio::test]
async fn a_journal_of_a_later_version_is_left_alone() {
    let namenode = namenode().await;
    let disk = CrashDisk::new(1);
    let node = on_with(&disk, &namenode, LARGE).await;
    drop((sync_another(&node, 1).await, node));
    disk.crash(Crash::Kill);
    let process = disk.process();
    let file = process.open(&pool().join("mobula/journal-0"), Open::ReadWrite).unwrap();
    let mut header = [0; 40];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8] = 2;
    let crc = ChecksumKind::Crc32c.crc(&header[..36]);
    header[36..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    drop((file, process));
    let node = start_with(&disk, &namenode, LARGE).await;
    let why = within(node.wait_stopped()).await.to_string();
    assert!(why.contains("journal-0: a journal of version 2, known here 1"), "{why}");
    drop(node);
    let process = disk.process();
    assert!(process.look(&pool().join("mobula/journal-0")).unwrap().is_some(), "it is still there");
}
