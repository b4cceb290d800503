//! Disks that fail, and power that goes, where it is easy to forget what had been promised.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mobula_datanode::{DataNode, Stopped};
use mobula_disk::fake::{CallKind, Loss};
use mobula_disk::{Crash, CrashDisk, Open};
use mobula_net::Env;
use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_rpc::{RpcClient, RpcClientOptions};
use mobula_types::ReplicaState;
use mobula_wire::datatransfer::Op;

use crate::namenode::{FakeNamenode, POOL};
use crate::orders::order;
use crate::recovery::{Peer, written};
use crate::speaker::{Flags, Speaker, base, block_proto, read_block, target, write_block};
use crate::stages::Again;
use crate::{Bench, bytes, on, on_with, until, within};

const STAMP: u64 = 1001;

fn client_of(node: &DataNode) -> RpcClient {
    RpcClient::new(
        &Env::real(),
        RpcClientOptions {
            address: node.ipc_addr().to_string(),
            user: "admin".into(),
            protocol: "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol",
            connect_limit: Duration::from_secs(5),
            call_limit: Duration::from_secs(5),
        },
    )
}

async fn transfer(from: &str, id: u64, to: &str) {
    let mut speaker = Speaker::connect(from).await;
    let request = pb::OpTransferBlockProto {
        header: pb::ClientOperationHeaderProto {
            base_header: base(block_proto(id, STAMP, 0)),
            client_name: "client".into(),
        },
        targets: vec![target(to)],
        target_storage_types: vec![1],
        target_storage_ids: vec![],
    };
    speaker.op(Op::TransferBlock, &request).await;
    assert_eq!(speaker.response().await.unwrap().status, 0);
}

/// A sync of a flushed record fails once; what it was to make durable can still be read, and the next sync succeeds.
#[tokio::test]
async fn a_failed_sync_of_a_record_is_final() {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(3);
    let node = on(&disk, &namenode).await;
    let mut speaker = Speaker::open(&node.xfer_addr().to_string(), 1, &[]).await;
    speaker.packet(0, 0, &bytes(5000), Flags::None).await;
    speaker.acked(0, 1).await;
    disk.fail_sync(0);
    speaker.packet(1, 5000, &[], Flags::Sync).await;
    assert_eq!(within(node.wait_stopped()).await, Stopped::VolumesFailed { failed: 1, all: 1 });
}

/// A record's sync fails, and the node is started again: what can be read then was never on a disk, and no later sync would
/// write it. What a recovery settles on is written again.
#[tokio::test]
async fn a_recovery_after_a_failed_sync_and_a_start_is_durable() {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(3);
    let data = bytes(9000);
    let node = on_with(&disk, &namenode, 0).await;
    let mut speaker = Speaker::open(&node.xfer_addr().to_string(), 1, &[]).await;
    speaker.packet(0, 0, &data, Flags::None).await;
    speaker.acked(0, 1).await;
    disk.fail_sync(0);
    speaker.packet(1, 9000, &[], Flags::Sync).await;
    assert_eq!(within(node.wait_stopped()).await, Stopped::VolumesFailed { failed: 1, all: 1 });
    drop((node, speaker));
    disk.crash(Crash::Kill);

    let node = on_with(&disk, &namenode, 0).await;
    let peer = Peer::of(&node);
    assert_eq!(peer.init(1, STAMP, 2000).await.unwrap().unwrap().1, 9000);
    peer.update((1, STAMP, 9000), 2000, 9000, None).await.unwrap();
    drop(node);
    disk.lose_power(Loss::Lost);
    let node = on_with(&disk, &namenode, 0).await;
    assert!(read_block(&node.xfer_addr().to_string(), 1, 0, 9000).await.unwrap() == data);
}

/// A recovery's sync fails once, then it is ordered again.
#[tokio::test]
async fn a_failed_sync_of_a_recovery_is_final() {
    for number in 0..2 {
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(4);
        let node = on(&disk, &namenode).await;
        let mut speaker = Speaker::open(&node.xfer_addr().to_string(), 1, &[]).await;
        speaker.packet(0, 0, &bytes(5000), Flags::None).await;
        speaker.acked(0, 1).await;
        let peer = Peer::of(&node);
        peer.init(1, STAMP, 2000).await.unwrap().unwrap();
        disk.fail_sync(number);
        assert!(peer.update((1, STAMP, 5000), 2000, 4000, None).await.is_err(), "sync {number}");
        assert_eq!(within(node.wait_stopped()).await, Stopped::VolumesFailed { failed: 1, all: 1 });
    }
}

/// A copy for a pipeline was synced as a whole: what is flushed behind it must not cost that at a power loss.
#[tokio::test]
async fn a_copy_for_a_pipeline_stays_synced() {
    let bench = Bench::real(1).await;
    let data = bytes(1000);
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[]).await;
    speaker.packet(0, 0, &data[..100], Flags::Sync).await;
    speaker.acked(0, 1).await;
    for seed in 0..40 {
        println!("seed {seed}");
        let disk = CrashDisk::new(seed);
        let node = on(&disk, &bench.namenode).await;
        let addr = node.xfer_addr().to_string();
        transfer(&bench.addr(0), 1, &addr).await;
        let again = Again { least: 100, most: 100, ..Again::new(Stage::PipelineSetupStreamingRecovery) };
        let (mut writer, accepted) = again.ask(&addr, 1, &[]).await;
        assert!(accepted);
        writer.packet(1, 0, &data[..150], Flags::None).await;
        writer.acked(1, 1).await;
        disk.lose_power(Loss::Reordered);
        drop((node, writer));
        let node = on(&disk, &bench.namenode).await;
        let (state, length, _) = Peer::of(&node).init(1, STAMP + 1, 2000).await.unwrap().unwrap();
        assert!(length >= 100, "{length} bytes are left of 100 that were synced, in state {state}");
    }
}

/// What was sent to the end of a chunk, so that its checksum fits, is not what was acknowledged.
#[tokio::test]
async fn a_copy_for_a_pipeline_shows_what_was_acknowledged() {
    let bench = Bench::real(2).await;
    let _writer = written(&bench.addr(0), 1, &bytes(600), (100, 600)).await;
    transfer(&bench.addr(0), 1, &bench.addr(1)).await;
    let request = pb::GetReplicaVisibleLengthRequestProto { block: block_proto(1, STAMP, 0) };
    for node in &bench.nodes {
        let answer: pb::GetReplicaVisibleLengthResponseProto =
            client_of(node).call("getReplicaVisibleLength", &request).await.unwrap();
        assert_eq!(answer.length, 100);
    }
}

/// A node is shut down for a moment, its writers wait, and then the power goes: the marker is there, and less of the
/// replica than was acknowledged.
#[tokio::test]
async fn a_restart_that_a_power_loss_overtakes() {
    for lost in [false, true] {
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(6);
        let node = on(&disk, &namenode).await;
        let mut speaker = Speaker::open(&node.xfer_addr().to_string(), 1, &[]).await;
        for (seqno, (from, to, flags)) in
            [(0, 512, Flags::Sync), (512, 50_000, Flags::None)].into_iter().enumerate()
        {
            speaker.packet(seqno as i64, from, &bytes(50_000)[from..to], flags).await;
            speaker.acked(seqno as i64, 1).await;
        }
        let request = pb::ShutdownDatanodeRequestProto { for_upgrade: true };
        let _: pb::ShutdownDatanodeResponseProto =
            client_of(&node).call("shutdownDatanode", &request).await.unwrap();
        within(node.wait_stopped()).await;
        let folder = Path::new("/data/current").join(POOL).join("current");
        let process = disk.process();
        process.open(&folder.join("rbw:.blk_1.restart"), Open::ReadWrite).unwrap().sync_all().unwrap();
        process.sync_folder(&folder).unwrap();
        if lost {
            disk.lose_power(Loss::Lost);
        } else {
            disk.crash(Crash::Kill);
        }
        drop((node, speaker));
        let node = on(&disk, &namenode).await;
        let found = Peer::of(&node).init(1, STAMP, 2000).await.unwrap();
        let (state, length) = if lost { (ReplicaState::Rwr, 512) } else { (ReplicaState::Rbw, 50_000) };
        assert_eq!(found, Some((state as i32, length, STAMP)));
    }
}

/// Of a replica's two files one cannot be removed: it is gone, or as good as before, but nothing between.
#[tokio::test]
async fn a_replica_is_removed_or_stays() {
    for (name, goes) in [("blk_1", false), ("blk_1_1001.meta", true)] {
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(1);
        let node = on(&disk, &namenode).await;
        let addr = node.xfer_addr().to_string();
        write_block(&addr, 1, &[], &bytes(5000), 1024).await;
        write_block(&addr, 2, &[], &bytes(5000), 1024).await;
        disk.set_fault(Some(Box::new(move |call| {
            (call.kind == CallKind::Change && call.path.ends_with(name)).then_some(ErrorKind::StorageFull)
        })));
        namenode.order(node.uuid().as_str(), order(2, 1, STAMP, 0));
        namenode.order(node.uuid().as_str(), order(2, 2, STAMP, 0));
        until(|| namenode.deleted(2)).await;
        assert_eq!(namenode.deleted(1), goes, "{name}");
        assert_eq!(
            read_block(&addr, 1, 0, 5000).await.is_ok_and(|read| read == bytes(5000)),
            !goes,
            "{name}"
        );
    }
}

/// A write fails behind the checksum of the chunk that had been flushed in part: that one is of more bytes by now.
#[tokio::test]
async fn a_write_that_fails_takes_nothing_of_what_was_flushed() {
    let data = bytes(9000);
    let mut failed = 0;
    for fails in 0..6 {
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(1);
        let node = on(&disk, &namenode).await;
        let mut speaker = Speaker::open(&node.xfer_addr().to_string(), 1, &[]).await;
        speaker.packet(0, 0, &data[..5000], Flags::None).await;
        speaker.acked(0, 1).await;
        let writes = AtomicU32::new(0);
        disk.set_fault(Some(Box::new(move |call| {
            let strikes = call.kind == CallKind::Write && writes.fetch_add(1, Ordering::Relaxed) == fails;
            strikes.then_some(ErrorKind::OutOfMemory)
        })));
        // Written together, if they arrive together.
        for (number, (from, to)) in [(4608, 6000), (5632, 7200), (7168, 9000)].into_iter().enumerate() {
            speaker.packet(number as i64 + 1, from, &data[from..to], Flags::None).await;
        }
        let mut acked = 0;
        while acked < 3 && speaker.ack().await.is_some_and(|ack| ack.is_success()) {
            acked += 1;
        }
        disk.set_fault(None);
        failed += u32::from(acked < 3);
        drop(speaker);
        let (_, length, _) = Peer::of(&node).init(1, STAMP, 2000).await.unwrap().unwrap();
        assert!((5000..=9000).contains(&length), "write {fails} failed: {length} bytes");
        Peer::of(&node).update((1, STAMP, length), 2000, length, None).await.unwrap();
        let read = read_block(&node.xfer_addr().to_string(), 1, 0, length).await.unwrap();
        assert!(read == data[..length as usize], "write {fails} failed");
    }
    assert_eq!(failed, 6);
}

/// A truncation meets a shortage behind the checksums: the replica is as long as those reach, and who believes in more of it is
/// refused. Else its writer would go on behind a checksum of fewer bytes, and all that it brings could be read by nobody.
#[tokio::test]
async fn a_cut_that_fails_behind_the_checksums() {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(1);
    let node = on(&disk, &namenode).await;
    let (addr, data) = (node.xfer_addr().to_string(), bytes(6000));
    write_block(&addr, 1, &[], &data[..5000], 1024).await;
    assert_eq!(Peer::of(&node).init(1, STAMP, 2000).await.unwrap(), Some((0, 5000, STAMP)));
    disk.set_fault(Some(Box::new(|call| {
        (call.kind == CallKind::Write && call.path.ends_with("blk_1")).then_some(ErrorKind::OutOfMemory)
    })));
    assert!(Peer::of(&node).update((1, STAMP, 5000), 2000, 4500, None).await.is_err());
    disk.set_fault(None);
    let again =
        Again { least: 5000, most: 5000, next: 2001, ..Again::new(Stage::PipelineSetupStreamingRecovery) };
    assert!(!again.ask(&addr, 1, &[]).await.1);
    let (mut writer, accepted) = Again { least: 4500, most: 4500, ..again }.ask(&addr, 1, &[]).await;
    assert!(accepted);
    writer.packet(0, 4096, &data[4096..], Flags::None).await;
    writer.acked(0, 1).await;
    drop(writer);
    let (_, length, stamp) = Peer::of(&node).init(1, STAMP, 3000).await.unwrap().unwrap();
    assert_eq!(length, 6000);
    Peer::of(&node).update((1, stamp, 6000), 3000, 6000, None).await.unwrap();
    assert!(read_block(&addr, 1, 0, 6000).await.unwrap() == data);
}
