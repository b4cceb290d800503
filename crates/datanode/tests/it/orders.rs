//! What the NameNode orders, what it is told, and volumes that fail.

use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;

use mobula_datanode::{DataNode, DatanodeConfig, DatanodeError, Stopped, VolumeConfig};
use mobula_disk::{Crash, CrashDisk, RealDisk, fake::CallKind};
use mobula_net::Env;
use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::datanode as dn;
use mobula_wire::datatransfer::Op;
use mobula_wire::remote::class;

use crate::namenode::{FakeNamenode, POOL};
use crate::speaker::{Flags, Speaker, read_as, read_block, target, write_block, write_op};
use crate::{Bench, bytes, until, within};

pub fn order(action: i32, id: u64, stamp: u64, length: u64) -> dn::BlockCommandProto {
    dn::BlockCommandProto {
        action,
        block_pool_id: POOL.into(),
        blocks: vec![pb::BlockProto { block_id: id, gen_stamp: stamp, num_bytes: Some(length) }],
        ..Default::default()
    }
}

fn copy_to(addr: &str, id: u64, length: u64) -> dn::BlockCommandProto {
    dn::BlockCommandProto {
        targets: vec![pb::DatanodeInfosProto { datanodes: vec![target(addr)] }],
        target_storage_uuids: vec![pb::StorageUuidsProto { storage_uuids: vec!["DS-x".into()] }],
        target_storage_types: vec![pb::StorageTypesProto { storage_types: vec![1] }],
        ..order(1, id, 1001, length)
    }
}

#[tokio::test]
async fn copies_and_deletions() {
    let bench = Bench::real(2).await;
    let data = bytes(1_300_000);
    write_block(&bench.addr(0), 1, &[], &data, 64_512).await;
    let uuid = bench.nodes[0].uuid();
    bench.namenode.order(uuid.as_str(), copy_to(&bench.addr(1), 1, 1_300_000));
    until(|| bench.namenode.received(1) == 2).await;
    assert_eq!(read_block(&bench.addr(1), 1, 0, 1_300_000).await.unwrap(), data);
    // Another version is not touched; the right one goes.
    bench.namenode.order(uuid.as_str(), order(2, 1, 1000, 0));
    bench.namenode.order(uuid.as_str(), order(2, 1, 1001, 0));
    until(|| bench.namenode.deleted(1)).await;
    assert!(read_block(&bench.addr(0), 1, 0, 1).await.is_err());
    assert_eq!(bench.nodes[0].replicas(), 0);
}

#[tokio::test]
async fn a_corrupt_replica_is_shown_to_readers_but_not_copied_and_it_is_reported() {
    let bench = Bench::real(2).await;
    let data = bytes(100_000);
    write_block(&bench.addr(0), 1, &[], &data, 64_512).await;
    let folder = bench.folder.path().join(format!("dn0/current/{POOL}/current/finalized/subdir0/subdir0"));
    let path = folder.join("blk_1");
    let mut stored = std::fs::read(&path).unwrap();
    stored[50_000] ^= 1;
    std::fs::write(&path, &stored).unwrap();
    // The reader finds out by itself, in the first packet or a later one, and could go on.
    for _ in 0..2 {
        assert!(read_block(&bench.addr(0), 1, 0, 100_000).await.unwrap_err().contains("checksum"));
        assert_eq!(read_block(&bench.addr(0), 1, 60_000, 40_000).await.unwrap(), data[60_000..]);
    }
    // Who wants no checksums gets what there is, to save what can be saved.
    let salvaged = read_as(&bench.addr(0), 1, (0, 100_000), Some(false)).await.unwrap();
    assert_eq!(salvaged, stored);
    until(|| bench.namenode.notes.lock().bad.iter().any(|bad| bad.b.block_id == 1)).await;
    // A NameNode that has started anew knows nothing of it: it is told again, or it would take the
    // replica for a good one and might drop a really good one as surplus.
    bench.namenode.notes.lock().bad.clear();
    let register = dn::DatanodeCommandProto {
        cmd_type: dn::datanode_command_proto::Type::RegisterCommand.into(),
        register_cmd: Some(dn::RegisterCommandProto {}),
        ..Default::default()
    };
    bench.namenode.notes.lock().orders.push((bench.nodes[0].uuid().to_string(), register));
    until(|| bench.namenode.notes.lock().bad.iter().any(|bad| bad.b.block_id == 1)).await;
    bench.namenode.notes.lock().bad.clear();
    bench.namenode.order(bench.nodes[0].uuid().as_str(), copy_to(&bench.addr(1), 1, 100_000));
    until(|| !bench.namenode.notes.lock().bad.is_empty()).await;
    assert_eq!(bench.nodes[1].replicas(), 0);
    // Its file is gone: reported, too.
    std::fs::remove_file(&path).unwrap();
    bench.namenode.notes.lock().bad.clear();
    assert!(read_block(&bench.addr(0), 1, 0, 1).await.is_err());
    until(|| !bench.namenode.notes.lock().bad.is_empty()).await;
}

/// What a NameNode does not take of bad blocks keeps nothing else from it.
#[tokio::test]
async fn bad_blocks_that_are_refused_hold_up_nothing() {
    for class in [class::IO, class::UNREGISTERED_NODE] {
        let bench = Bench::real(1).await;
        let (addr, uuid) = (bench.addr(0), bench.nodes[0].uuid());
        bench.namenode.notes.lock().refuse_bad = Some(class);
        for id in 1..=600 {
            send_bad(&addr, id, target("127.0.0.1:9866")).await;
        }
        until(|| bench.namenode.notes.lock().refused_bad > 0).await;
        {
            let mut notes = bench.namenode.notes.lock();
            notes.full.clear();
            notes.beats.clear();
            notes.refused_bad = 0;
            let register = dn::DatanodeCommandProto {
                cmd_type: dn::datanode_command_proto::Type::RegisterCommand.into(),
                register_cmd: Some(dn::RegisterCommandProto {}),
                ..Default::default()
            };
            notes.orders.push((uuid.to_string(), register));
        }
        until(|| !bench.namenode.notes.lock().full.is_empty()).await;
        write_block(&addr, 1000, &[], b"abc", 512).await;
        until(|| bench.namenode.received(1000) == 1).await;
        until(|| bench.namenode.notes.lock().beats.len() > 5).await;
        {
            let mut notes = bench.namenode.notes.lock();
            let (refused, beats) = (notes.refused_bad, notes.beats.len());
            assert!(refused <= beats + 2, "tried {refused} times in {beats} heartbeats");
            notes.refuse_bad = None;
        }
        until(|| bench.namenode.notes.lock().bad.len() == 600).await;
        assert_eq!(bench.nodes[0].stopped(), None);
    }
}

/// Of one who says to be a DataNode no more is kept than which one.
#[tokio::test]
async fn a_source_says_much() {
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    let much = "x".repeat(200_000);
    let honest = target("127.0.0.1:9866");
    let mut named = honest.clone();
    named.id.host_name = much.clone();
    send_bad(&addr, 1, named).await;
    let mut placed = honest.clone();
    placed.location = Some(much);
    send_bad(&addr, 2, placed).await;
    until(|| !bench.namenode.notes.lock().bad.is_empty()).await;
    let bad = bench.namenode.notes.lock().bad.clone();
    assert_eq!((bad.len(), bad[0].b.block_id, &bad[0].locs), (1, 2, &vec![honest]));
}

/// Sends a block as a DataNode does, with a wrong checksum.
async fn send_bad(addr: &str, id: u64, source: pb::DatanodeInfoProto) {
    let mut speaker = Speaker::connect(addr).await;
    let op = pb::OpWriteBlockProto { source: Some(source), ..write_op(id, "", &[]) };
    speaker.op(Op::WriteBlock, &op).await;
    speaker.packet_with(0, 0, b"abc", &[0; 4], Flags::None).await;
    assert!(speaker.closed().await, "block {id}");
}

/// A disk that could not read once, and then could, has not lost the replica: it may be the last one.
#[tokio::test]
async fn a_replica_is_bad_only_if_it_cannot_be_read_again() {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(1);
    let node = crate::on(&disk, &namenode).await;
    let addr = node.xfer_addr().to_string();
    write_block(&addr, 1, &[], b"abc", 512).await;
    let fails = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let left = fails.clone();
    disk.set_fault(Some(Box::new(move |call| {
        let read = call.kind == CallKind::Read && call.path.ends_with("blk_1");
        let one = |left: usize| left.checked_sub(1);
        let fail = read && left.fetch_update(Relaxed, Relaxed, one).is_ok();
        fail.then_some(ErrorKind::Other)
    })));
    assert_eq!(read_block(&addr, 1, 0, 3).await.unwrap(), b"abc");
    assert_eq!(fails.load(Relaxed), 0, "it did fail");
    assert!(namenode.notes.lock().bad.is_empty());
    fails.store(2, Relaxed);
    read_block(&addr, 1, 0, 3).await.unwrap_err();
    until(|| namenode.notes.lock().bad.iter().any(|bad| bad.b.block_id == 1)).await;
    disk.set_fault(None);
}

#[tokio::test]
async fn a_deletion_stops_the_writer() {
    let bench = Bench::real(1).await;
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[]).await;
    speaker.packet(0, 0, b"abc", Flags::None).await;
    speaker.acked(0, 1).await;
    bench.namenode.order(bench.nodes[0].uuid().as_str(), order(2, 1, 1001, 0));
    assert!(speaker.closed().await);
    until(|| bench.namenode.deleted(1)).await;
    assert_eq!(bench.nodes[0].replicas(), 0);
}

#[tokio::test]
async fn reports_that_failed_are_sent_again() {
    let bench = Bench::real(1).await;
    bench.namenode.notes.lock().fail_changes = 3;
    write_block(&bench.addr(0), 1, &[], b"abc", 512).await;
    until(|| bench.namenode.received(1) == 1).await;
}

#[tokio::test]
async fn a_failed_sync_takes_the_volume_out_and_the_other_serves() {
    let env = Env::real();
    let namenode = FakeNamenode::start(&env).await;
    let disk = CrashDisk::new(1);
    let config = DatanodeConfig {
        volumes: vec![VolumeConfig::new("/a"), VolumeConfig::new("/b")],
        namenodes: vec![namenode.address()],
        heartbeat_ms: 50,
        volume_spare_bytes: 0,
        ..DatanodeConfig::default()
    };
    let node = DataNode::start(env, disk.process(), config).await.unwrap();
    within(node.wait_registered()).await.unwrap();
    let addr = node.xfer_addr().to_string();
    for id in 1..=4 {
        write_block(&addr, id, &[], b"abc", 512).await;
    }
    // Every second block lies on each.
    disk.set_fault(Some(Box::new(|call| {
        (call.kind == CallKind::Sync && call.path.starts_with("/a")).then_some(ErrorKind::Other)
    })));
    for id in 10..=11 {
        let mut speaker = Speaker::open(&addr, id, &[]).await;
        speaker.packet(0, 0, b"abc", Flags::None).await;
        speaker.acked(0, 1).await;
        speaker.packet(1, 3, &[], Flags::Last).await;
        let _ = speaker.ack().await;
    }
    until(|| {
        let notes = namenode.notes.lock();
        let beat = notes.beats.last().unwrap();
        beat.failed_volumes == Some(1)
            && beat.reports.iter().filter(|report| report.failed == Some(true)).count() == 1
    })
    .await;
    disk.set_fault(None);
    // Two old ones on the other volume, and one new.
    assert_eq!(node.replicas(), 3);
    for id in 20..=23 {
        write_block(&addr, id, &[], b"abc", 512).await;
        assert_eq!(read_block(&addr, id, 0, 3).await.unwrap(), b"abc");
    }
    assert_eq!(node.stopped(), None);
}

#[tokio::test]
async fn a_full_volume_is_passed_over_and_the_last_one_refuses() {
    let bench = Bench::with(1, |config| {
        config.volume_spare_bytes = 0;
        let folder = config.volumes[0].path.clone();
        config.volumes = ["small", "large"].map(|name| VolumeConfig::new(folder.join(name))).into();
        config.volumes[0].capacity_limit = Some(100);
        config.volumes[1].capacity_limit = Some(3 << 20);
    })
    .await;
    let addr = bench.addr(0);
    write_block(&addr, 1, &[], &bytes(1000), 512).await;
    write_block(&addr, 2, &[], &bytes(1000), 512).await;
    let open = Speaker::open(&addr, 3, &[]).await;
    let also = Speaker::open(&addr, 4, &[]).await;
    // Each open block has its full size set aside.
    let mut refused = Speaker::connect(&addr).await;
    refused.op(Op::WriteBlock, &write_op(5, "client", &[])).await;
    assert!(refused.closed().await);
    drop((open, also));
}

#[tokio::test]
async fn folders_of_others() {
    let bench = Bench::real(1).await;
    let config = bench.config(0);
    let locked = DataNode::start(Env::real(), RealDisk::new(), config.clone()).await;
    assert!(matches!(locked.unwrap_err(), DatanodeError::Locked { .. }));
    let Bench { mut nodes, namenode, folder, .. } = bench;
    within(nodes.remove(0).shutdown()).await;
    assert!(namenode.notes.lock().errors.contains(&(0, "stopping".into())));
    namenode.notes.lock().cluster = "CID-2".into();
    let node = DataNode::start(Env::real(), RealDisk::new(), config).await.unwrap();
    let Err(Stopped::Refused { reason, .. }) = within(node.wait_registered()).await else {
        panic!("refused")
    };
    assert!(reason.contains("CID-1") && reason.contains("CID-2") && reason.contains("dn0"), "{reason}");
    // Something else lies there.
    std::fs::create_dir(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/diary.txt"), "mine").unwrap();
    let config = DatanodeConfig {
        volumes: vec![VolumeConfig::new(folder.path().join("other"))],
        namenodes: vec![namenode.address()],
        ..DatanodeConfig::default()
    };
    let foreign = DataNode::start(Env::real(), RealDisk::new(), config).await.unwrap_err();
    assert!(foreign.to_string().contains("diary.txt"), "{foreign}");
}

/// CASES 25: a deletion that was ordered, but could not be carried out before a stop, is not forgotten: the replica is
/// in the next report, and the order comes again.
#[tokio::test]
async fn a_queued_deletion_survives() {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(1);
    let node = crate::on(&disk, &namenode).await;
    let uuid = node.uuid();
    write_block(&node.xfer_addr().to_string(), 1, &[], b"abc", 512).await;
    disk.set_fault(Some(Box::new(|call| {
        let stuck =
            call.kind == CallKind::Change && call.path.to_str().is_some_and(|path| path.contains("blk_1"));
        stuck.then_some(ErrorKind::PermissionDenied)
    })));
    let calls = disk.count(CallKind::Change);
    namenode.order(uuid.as_str(), order(2, 1, 1001, 0));
    until(|| disk.count(CallKind::Change) > calls + 1).await;
    assert_eq!(node.replicas(), 1, "it is still there");
    drop(node);
    disk.crash(mobula_disk::Crash::Kill);
    disk.set_fault(None);
    namenode.notes.lock().full.clear();
    let node = crate::on(&disk, &namenode).await;
    let reported = namenode.notes.lock().full.last().unwrap().1.clone();
    assert_eq!(reported.len(), 1);
    assert!(!namenode.deleted(1), "nobody was told that it is gone");
    namenode.order(uuid.as_str(), order(2, 1, 1001, 0));
    until(|| namenode.deleted(1)).await;
    assert_eq!(node.replicas(), 0);
}

/// A disk that fails between two starts: the node starts without it, as it would have gone on without it.
#[tokio::test]
async fn a_disk_that_cannot_be_opened_counts_as_failed() {
    let env = Env::real();
    let namenode = FakeNamenode::start(&env).await;
    let disk = CrashDisk::new(1);
    let config = |tolerated| DatanodeConfig {
        volumes: vec![VolumeConfig::new("/a"), VolumeConfig::new("/b")],
        namenodes: vec![namenode.address()],
        heartbeat_ms: 50,
        volume_spare_bytes: 0,
        failed_volumes_tolerated: tolerated,
        ..DatanodeConfig::default()
    };
    let start = async |tolerated| DataNode::start(Env::real(), disk.process(), config(tolerated)).await;
    let fail = |below: &'static str| {
        disk.set_fault(Some(Box::new(move |call| call.path.starts_with(below).then_some(ErrorKind::Other))));
    };
    // Fresh ones do not say who this node is.
    fail("/a");
    assert!(matches!(start(None).await, Err(DatanodeError::Disk { folder, .. }) if folder.ends_with("a")));
    disk.set_fault(None);
    let node = start(None).await.unwrap();
    within(node.wait_registered()).await.unwrap();
    let uuid = node.uuid();
    for id in 1..=4 {
        write_block(&node.xfer_addr().to_string(), id, &[], b"abc", 512).await;
    }
    drop(node);
    disk.crash(Crash::Kill);

    fail("/a");
    assert!(matches!(start(Some(0)).await, Err(DatanodeError::Disk { folder, .. }) if folder.ends_with("a")));
    fail("/");
    assert!(matches!(start(None).await, Err(DatanodeError::Disk { .. })));
    for below in ["/a", "/b"] {
        fail(below);
        namenode.notes.lock().beats.clear();
        let node = start(None).await.unwrap();
        within(node.wait_registered()).await.unwrap();
        assert_eq!((node.uuid(), node.replicas()), (uuid.clone(), 2), "without {below}");
        let addr = node.xfer_addr().to_string();
        let mut read = 0;
        for id in 1..=4 {
            read += usize::from(read_block(&addr, id, 0, 3).await.is_ok_and(|bytes| bytes == b"abc"));
        }
        assert_eq!(read, 2, "without {below}");
        write_block(&addr, 5, &[], b"abc", 512).await;
        let beat = namenode.notes.lock().beats.last().unwrap().clone();
        assert_eq!((beat.failed_volumes, beat.reports.len()), (Some(1), 1), "without {below}");
        let failed = beat.volume_failure_summary.unwrap().failed_storage_locations;
        assert_eq!(failed, [format!("[DISK]file:{below}")]);
        assert_eq!(node.stopped(), None, "without {below}");
        drop(node);
        disk.crash(Crash::Kill);
        disk.set_fault(None);
    }
    let node = start(None).await.unwrap();
    within(node.wait_registered()).await.unwrap();
    assert_eq!((node.uuid(), node.replicas()), (uuid, 5));
}
