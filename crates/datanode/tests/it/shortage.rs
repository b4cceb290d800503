//! Room or descriptors run short: whoever needs them fails, and the volume goes on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mobula_disk::CrashDisk;
use mobula_disk::fake::{Call, CallKind, Crash};
use mobula_net::Env;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_wire::datatransfer::Op;
use tokio::io::AsyncReadExt;

use crate::namenode::{FakeNamenode, POOL};
use crate::recovery::Peer;
use crate::speaker::{Flags, Speaker, read_block, write_block, write_op};
use crate::stages::Again;
use crate::{bytes, on, on_with};

const LENGTH: usize = 1000;

fn rbw() -> PathBuf {
    Path::new("/data/current").join(POOL).join("current/rbw")
}

fn last() -> PathBuf {
    Path::new("/data/current").join(POOL).join("current/finalized/subdir0/subdir0")
}

/// Lets the first call fail that `is` means.
fn fail_once(disk: &CrashDisk, error: ErrorKind, is: impl Fn(&Call<'_>) -> bool + Send + 'static) {
    let mut left = Some(error);
    disk.set_fault(Some(Box::new(move |call| if is(call) { left.take() } else { None })));
}

/// The change of that name.
fn change(path: PathBuf) -> impl Fn(&Call<'_>) -> bool {
    move |call| call.kind == CallKind::Change && call.path == path
}

/// A writer that has flushed its block.
async fn flushed(addr: &str, id: u64) -> Speaker {
    let mut speaker = Speaker::open(addr, id, &[]).await;
    speaker.packet(0, 0, &bytes(LENGTH), Flags::None).await;
    speaker.acked(0, 1).await;
    speaker
}

/// Whether the block's end is acknowledged.
async fn ends(speaker: &mut Speaker, seqno: i64) -> bool {
    speaker.packet(seqno, LENGTH, &[], Flags::Last).await;
    speaker.ack().await.is_some_and(|ack| ack.is_success())
}

/// Brings the block to its end again, as its client does.
async fn ends_again(addr: &str, id: u64) {
    let (mut speaker, accepted) = Again::new(Stage::PipelineSetupAppendRecovery).ask(addr, id, &[]).await;
    assert!(accepted, "block {id}");
    assert!(ends(&mut speaker, 1).await, "block {id}");
    assert_eq!(read_block(addr, id, 0, LENGTH as u64).await.unwrap(), bytes(LENGTH));
}

/// One of a group has no room for its new name: it is open as before, and the others are final.
#[tokio::test]
async fn no_room_for_a_final_name() {
    let cases = [
        ("its folder", Path::new("/data/current").join(POOL).join("current/finalized/subdir0/subdir0")),
        ("its checksums", rbw().join("blk_3_1001.meta")),
        ("its data", rbw().join("blk_3")),
    ];
    for writers in [1, 2, 8] {
        for (what, path) in cases.clone() {
            let namenode = FakeNamenode::start(&Env::real()).await;
            let disk = CrashDisk::new(1);
            let node = on(&disk, &namenode).await;
            let addr = node.xfer_addr().to_string();
            let mut speakers = Vec::new();
            for id in 3..3 + writers {
                speakers.push((id, flushed(&addr, id).await));
            }
            fail_once(&disk, ErrorKind::StorageFull, change(path));
            let syncs = disk.count(CallKind::Sync);
            let ended = speakers
                .into_iter()
                .map(|(id, mut speaker)| tokio::spawn(async move { (id, ends(&mut speaker, 1).await) }));
            let mut failed = Vec::new();
            for ended in ended.collect::<Vec<_>>() {
                let (id, ended) = ended.await.unwrap();
                if !ended {
                    failed.push(id);
                }
            }
            let what = format!("no room for {what}, {writers} writers");
            assert_eq!(failed.len(), 1, "{what}: {failed:?}");
            assert_eq!(node.stopped(), None, "{what}");
            // Two a replica, unless a group is synced by one call.
            let syncs = disk.count(CallKind::Sync) - syncs;
            assert!(writers < 8 || syncs < 2 * writers, "{what}: {syncs} syncs");
            let process = disk.process();
            for name in [format!("blk_{}", failed[0]), format!("blk_{}_1001.meta", failed[0])] {
                assert!(process.look(&rbw().join(&name)).unwrap().is_some(), "{what}: {name}");
                assert!(process.look(&last().join(&name)).unwrap().is_none(), "{what}: {name}");
            }
            for id in (3..3 + writers).filter(|id| *id != failed[0]) {
                assert_eq!(read_block(&addr, id, 0, LENGTH as u64).await.unwrap(), bytes(LENGTH), "{what}");
            }
            ends_again(&addr, failed[0]).await;
            drop(node);
            disk.crash(Crash::PowerLoss);
            let node = on(&disk, &namenode).await;
            let addr = node.xfer_addr().to_string();
            for id in 3..3 + writers {
                assert_eq!(read_block(&addr, id, 0, LENGTH as u64).await.unwrap(), bytes(LENGTH), "{what}");
            }
        }
    }
}

/// A sync that failed is final, whatever the system says why.
#[tokio::test]
async fn a_sync_without_room_is_a_failed_sync() {
    for kind in [CallKind::Sync, CallKind::SyncFolder] {
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(1);
        let node = on(&disk, &namenode).await;
        let mut speaker = flushed(&node.xfer_addr().to_string(), 3).await;
        fail_once(&disk, ErrorKind::StorageFull, move |call| call.kind == kind);
        assert!(!ends(&mut speaker, 1).await);
        node.wait_stopped().await;
    }
}

/// The steps of replicas that are written again: each is as before, and done when it is asked for again.
#[tokio::test]
async fn no_room_for_the_names_of_an_append() {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(1);
    let node = on(&disk, &namenode).await;
    let addr = node.xfer_addr().to_string();
    // An append that cannot move the checksums, or the data.
    for (id, name) in [(1, "blk_1_1001.meta"), (2, "blk_2")] {
        write_block(&addr, id, &[], &bytes(LENGTH), 512).await;
        fail_once(&disk, ErrorKind::StorageFull, change(last().join(name)));
        let append = Again::new(Stage::PipelineSetupAppend);
        assert!(!append.ask(&addr, id, &[]).await.1);
        assert_eq!(read_block(&addr, id, 0, LENGTH as u64).await.unwrap(), bytes(LENGTH));
        let (mut speaker, accepted) = append.ask(&addr, id, &[]).await;
        assert!(accepted && ends(&mut speaker, 1).await);
    }
    // One that cannot take its new stamp, and goes on as its recovery.
    write_block(&addr, 3, &[], &bytes(LENGTH), 512).await;
    fail_once(&disk, ErrorKind::StorageFull, change(rbw().join("blk_3_1001.meta")));
    assert!(!Again::new(Stage::PipelineSetupAppend).ask(&addr, 3, &[]).await.1);
    ends_again(&addr, 3).await;
    // A final replica that cannot take its new stamp.
    write_block(&addr, 4, &[], &bytes(LENGTH), 512).await;
    fail_once(&disk, ErrorKind::StorageFull, change(last().join("blk_4_1001.meta")));
    let close = Again::new(Stage::PipelineCloseRecovery);
    assert!(!close.ask(&addr, 4, &[]).await.1);
    assert_eq!(read_block(&addr, 4, 0, LENGTH as u64).await.unwrap(), bytes(LENGTH));
    assert!(close.ask(&addr, 4, &[]).await.1);
    // A copy for a pipeline: it is gone, and may come again.
    for (name, comes) in [(Some("blk_5"), false), (None, true)] {
        if let Some(name) = name {
            let tmp = Path::new("/data/current").join(POOL).join("tmp").join(name);
            fail_once(&disk, ErrorKind::StorageFull, change(tmp));
        }
        assert_eq!(transfer(&addr, 5).await, comes);
        assert_eq!(node.replicas(), 4 + usize::from(comes));
    }
    // The copy of a truncation.
    fail_once(&disk, ErrorKind::StorageFull, change(rbw().join("blk_6")));
    let peer = Peer::of(&node);
    peer.init(1, 1002, 2000).await.unwrap().unwrap();
    peer.update((1, 1002, LENGTH as u64), 2000, 700, Some(6)).await.unwrap_err();
    peer.init(1, 1002, 2001).await.unwrap().unwrap();
    peer.update((1, 1002, LENGTH as u64), 2001, 700, Some(6)).await.unwrap();
    assert_eq!(read_block(&addr, 6, 0, 700).await.unwrap(), &bytes(LENGTH)[..700]);
    assert_eq!(node.stopped(), None);
}

/// No descriptors are left for a while: requests fail, and afterwards all is as before.
#[tokio::test]
async fn no_descriptors() {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(1);
    let node = on_with(&disk, &namenode, 0).await;
    let addr = node.xfer_addr().to_string();
    for id in 1..=2 {
        write_block(&addr, id, &[], &bytes(LENGTH), 512).await;
    }
    let mut writers = Vec::new();
    for id in 3..=5 {
        writers.push(flushed(&addr, id).await);
    }
    // A folder is opened to be synced.
    let opens = |call: &Call<'_>| matches!(call.kind, CallKind::Open | CallKind::SyncFolder);
    disk.set_fault(Some(Box::new(move |call| opens(call).then_some(ErrorKind::OutOfMemory))));
    let mut new = Speaker::connect(&addr).await;
    new.op(Op::WriteBlock, &write_op(6, "client", &[])).await;
    assert!(new.closed().await, "a new block");
    read_block(&addr, 1, 0, LENGTH as u64).await.unwrap_err();
    assert!(!ends(&mut writers[0], 1).await, "a last packet");
    let mut synced = writers.remove(1);
    synced.packet(1, LENGTH, b"more", Flags::Sync).await;
    assert!(synced.closed().await, "a first sync");
    assert!(!Again::new(Stage::PipelineSetupAppend).ask(&addr, 1, &[]).await.1, "an append");
    assert!(!Again::new(Stage::PipelineCloseRecovery).ask(&addr, 2, &[]).await.1, "a new stamp");
    assert!(
        !Again::new(Stage::PipelineCloseRecovery).ask(&addr, 5, &[]).await.1,
        "a new stamp of an open one"
    );
    assert!(!transfer(&addr, 7).await, "a copy");
    disk.set_fault(None);
    assert_eq!(node.stopped(), None);
    for id in 1..=5 {
        assert_eq!(read_block(&addr, id, 0, LENGTH as u64).await.unwrap(), bytes(LENGTH), "block {id}");
    }
    assert_eq!(node.replicas(), 5);
    ends_again(&addr, 3).await;
    ends_again(&addr, 5).await;
    write_block(&addr, 6, &[], &bytes(LENGTH), 512).await;
    assert!(transfer(&addr, 7).await);
    assert!(namenode.notes.lock().bad.is_empty(), "nothing is bad");
}

/// A copy for a client's pipeline; whether its end is answered.
async fn transfer(addr: &str, id: u64) -> bool {
    let mut speaker = Speaker::connect(addr).await;
    let mut op = write_op(id, "client", &[]);
    op.stage = Stage::TransferRbw as i32;
    op.header.base_header.block.num_bytes = Some(LENGTH as u64);
    speaker.op(Op::WriteBlock, &op).await;
    speaker.packet(0, 0, &bytes(LENGTH), Flags::None).await;
    speaker.packet(1, LENGTH, &[], Flags::Last).await;
    let mut answer = Vec::new();
    // A connection that breaks is an end without an answer.
    let _ = speaker.stream.read_to_end(&mut answer).await;
    !answer.is_empty()
}
