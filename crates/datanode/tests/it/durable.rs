//! What is left after kills and power losses.

use std::path::{Path, PathBuf};

use mobula_disk::{Crash, CrashDisk, Disk, Open, read_file};
use mobula_net::{Entropy, Env};
use mobula_types::{ReplicaState, StoredReplica};

use crate::namenode::{FakeNamenode, POOL};
use crate::speaker::{Flags, Speaker, read_block, write_block};
use crate::{bytes, on, on_with, within};

#[tokio::test]
async fn a_closed_block_survives_power_loss_and_an_open_one_a_kill() {
    for seed in 0..20 {
        println!("seed {seed}");
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(seed);
        let data = bytes(5000);
        let node = on(&disk, &namenode).await;
        let addr = node.xfer_addr().to_string();
        let uuid = node.uuid();
        write_block(&addr, 1, &[], &data, 1024).await;
        let mut speaker = Speaker::open(&addr, 2, &[]).await;
        for (seqno, (from, to)) in [(0, 100), (0, 700), (512, 1300)].into_iter().enumerate() {
            speaker.packet(seqno as i64, from, &data[from..to], Flags::None).await;
            speaker.acked(seqno as i64, 1).await;
        }
        disk.crash(if seed % 2 == 0 { Crash::PowerLoss } else { Crash::Kill });
        drop((node, speaker));
        namenode.notes.lock().full.clear();
        let node = on(&disk, &namenode).await;
        assert_eq!(node.uuid(), uuid);
        let addr = node.xfer_addr().to_string();
        assert_eq!(read_block(&addr, 1, 0, 5000).await.unwrap(), data);
        let report = namenode.notes.lock().full.last().unwrap().1.clone();
        let find = |id| report.iter().find(|replica| replica.block.id.0 == id).copied();
        assert_eq!(find(1).unwrap().state, ReplicaState::Finalized);
        if seed % 2 == 1 {
            let open = find(2).expect("an open block survives a kill");
            assert_eq!((open.state, open.block.length), (ReplicaState::Rwr, 1300));
        }
        assert!(read_block(&addr, 2, 0, 100).await.is_err(), "a replica that waits is not served");
    }
}

#[tokio::test]
async fn kills_and_power_losses_at_random_points() {
    let seed = 4711;
    println!("seed {seed}");
    let entropy = Entropy::seeded(seed);
    let mut total = 0;
    for round in 0..40 {
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(entropy.u64());
        let node = on(&disk, &namenode).await;
        let addr = node.xfer_addr().to_string();
        let mut writers = tokio::task::JoinSet::new();
        for id in 0..6 {
            let addr = addr.clone();
            writers.spawn(async move { try_write(&addr, id).await.then_some(id) });
        }
        let calls = disk.calls() + entropy.below(120);
        let mut before: Vec<u64> = Vec::new();
        while disk.calls() < calls && !writers.is_empty() {
            tokio::task::yield_now().await;
            before.extend(writers.try_join_next().and_then(|done| done.unwrap()));
        }
        let crash = if round % 2 == 0 { Crash::PowerLoss } else { Crash::Kill };
        disk.crash(crash);
        drop(node);
        let node = on(&disk, &namenode).await;
        total += before.len();
        for id in before {
            let read = read_block(&node.xfer_addr().to_string(), id, 0, 3000).await;
            assert_eq!(read.unwrap(), bytes(3000), "round {round}, block {id}, {crash:?}");
        }
    }
    assert!(total > 20, "only {total} blocks were acknowledged before the crashes");
}

/// Whether the last packet was acknowledged.
async fn try_write(addr: &str, id: u64) -> bool {
    let data = bytes(3000);
    let mut speaker = Speaker::connect(addr).await;
    let op = crate::speaker::write_op(id, "client", &[]);
    speaker.op(mobula_wire::datatransfer::Op::WriteBlock, &op).await;
    if speaker.response().await.is_none() {
        return false;
    }
    for (seqno, part) in data.chunks(1024).enumerate() {
        speaker.packet(seqno as i64, seqno * 1024, part, Flags::None).await;
    }
    speaker.packet(3, 3000, &[], Flags::Last).await;
    for seqno in 0..=3 {
        match speaker.ack().await {
            Some(ack) if ack.seqno == seqno && ack.is_success() => {}
            _ => return false,
        }
    }
    true
}

/// What Apache's DataNode, or a kill of ours, may leave behind on a volume.
#[tokio::test]
async fn leftovers_of_steps_that_were_cut_short() {
    use crate::namenode::POOL;
    use mobula_disk::{Open, read_file};
    use std::path::Path;
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(5);
    let node = on_with(&disk, &namenode, 0).await;
    let addr = node.xfer_addr().to_string();
    let data = bytes(2000);
    for id in 1..=5 {
        write_block(&addr, id, &[], &data, 1024).await;
    }
    drop(node);
    disk.crash(Crash::Kill);
    let process = disk.process();
    let pool = Path::new("/data/current").join(POOL);
    let (last, rbw) = (pool.join("current/finalized/subdir0/subdir0"), pool.join("current/rbw"));
    let meta = |id: u64| format!("blk_{id}_1001.meta");
    // 1: an append that had moved the checksums, under a new stamp as Apache's does it.
    process.rename(&last.join(meta(1)), &rbw.join("blk_1_1002.meta")).unwrap();
    // 2: an end that had moved the checksums.
    process.rename(&last.join("blk_2"), &rbw.join("blk_2")).unwrap();
    // 3: a copy of a file with two names that was cut short; 4: one that was whole and had to take its place.
    let part = process.open(&last.join("blk_3.unlinked"), Open::CreateNew).unwrap();
    part.write_all_at(&data[..100], 0).unwrap();
    process.rename(&last.join("blk_4"), &last.join("blk_4.unlinked")).unwrap();
    // 5: a deletion that had removed the data; 6: checksums of a block that was begun.
    process.remove_file(&last.join("blk_5")).unwrap();
    process.open(&rbw.join("blk_6_1001.meta"), Open::CreateNew).unwrap();
    drop(part);
    drop(process);
    namenode.notes.lock().full.clear();
    let node = on_with(&disk, &namenode, 0).await;
    let report = namenode.notes.lock().full.last().unwrap().1.clone();
    let found: Vec<_> =
        report.iter().map(|it| (it.block.id.0, it.block.stamp.0, it.block.length, it.state)).collect();
    let (whole, waits) = (ReplicaState::Finalized, ReplicaState::Rwr);
    assert_eq!(
        found,
        [(1, 1002, 2000, whole), (2, 1001, 2000, waits), (3, 1001, 2000, whole), (4, 1001, 2000, whole)]
    );
    for id in [1, 3, 4] {
        assert_eq!(read_block(&node.xfer_addr().to_string(), id, 0, 2000).await.unwrap(), data);
    }
    let process = disk.process();
    for gone in [last.join("blk_3.unlinked"), last.join(meta(5)), rbw.join("blk_6_1001.meta")] {
        assert!(process.look(&gone).unwrap().is_none(), "{}", gone.display());
    }
    assert_eq!(read_file(&*process, &rbw.join("blk_2"), 5000).unwrap(), data);
}

/// A bad sector under one open block, its data's or its checksums': all else on the disk is served, and nothing says
/// that the block is empty.
#[tokio::test]
async fn an_open_replica_that_cannot_be_read_costs_no_other() {
    use crate::namenode::POOL;
    use crate::recovery::Peer;
    use mobula_disk::{Open, fake::CallKind};
    use std::io::ErrorKind;
    use std::path::Path;
    let current = Path::new("/data/current").join(POOL).join("current");
    for (bad, kind, restarts) in [
        ("rbw/blk_2", CallKind::Read, false),
        ("rbw/blk_2_1001.meta", CallKind::Read, false),
        ("rbw/blk_2", CallKind::Open, false),
        ("rbw/blk_2", CallKind::Read, true),
        ("rbw:.blk_2.restart", CallKind::Read, true),
    ] {
        let namenode = FakeNamenode::start(&Env::real()).await;
        let disk = CrashDisk::new(7);
        let node = on(&disk, &namenode).await;
        let addr = node.xfer_addr().to_string();
        let data = bytes(1300);
        write_block(&addr, 1, &[], &data, 1024).await;
        let mut speakers = Vec::new();
        for id in 2..=3 {
            let mut speaker = Speaker::open(&addr, id, &[]).await;
            speaker.packet(0, 0, &data, Flags::None).await;
            speaker.acked(0, 1).await;
            speakers.push(speaker);
        }
        drop((node, speakers));
        disk.crash(Crash::Kill);
        if restarts {
            // As an orderly end leaves it: its writer is about to go on.
            let until = Env::real().clock.now_ms() + 20_000;
            let marker = disk.process().open(&current.join("rbw:.blk_2.restart"), Open::CreateNew).unwrap();
            marker.write_all_at(until.to_string().as_bytes(), 0).unwrap();
        }
        let path = current.join(bad);
        disk.set_fault(Some(Box::new(move |call| {
            (call.kind == kind && call.path == path).then_some(ErrorKind::Other)
        })));
        let node = on(&disk, &namenode).await;
        let what = format!("{kind:?} of {bad}, in order: {restarts}");
        assert_eq!((node.stopped(), node.replicas()), (None, 2), "{what}");
        assert_eq!(read_block(&node.xfer_addr().to_string(), 1, 0, 1300).await.unwrap(), data, "{what}");
        let refused = Peer::of(&node).init(2, 1001, 2000).await.unwrap_err();
        assert!(refused.contains("could not be read"), "{what}: {refused}");
        drop(node);
        // The next start can read it.
        disk.set_fault(None);
        disk.crash(Crash::Kill);
        let node = on(&disk, &namenode).await;
        assert_eq!(node.replicas(), 3, "{what}");
        let (_, length, _) = Peer::of(&node).init(2, 1001, 2000).await.unwrap().unwrap();
        assert_eq!(length, 1300, "{what}");
    }
}

/// What a start finds of block 1 after it was finished with 5,000 bytes and `change` was done to its files. Folders: of open
/// ones, of final ones.
async fn found_after(change: impl FnOnce(&dyn Disk, &Path, &Path)) -> (CrashDisk, Vec<StoredReplica>) {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(1);
    let node = on(&disk, &namenode).await;
    write_block(&node.xfer_addr().to_string(), 1, &[], &bytes(5000), 1024).await;
    within(node.shutdown()).await;
    let pool = Path::new("/data/current").join(POOL).join("current");
    change(&*disk.process(), &pool.join("rbw"), &pool.join("finalized/subdir0/subdir0"));
    disk.crash(Crash::Kill);
    drop(on(&disk, &namenode).await);
    let found = namenode.notes.lock().full.last().unwrap().1.clone();
    (disk, found)
}

/// Of a replica that was removed, the power loss has brought back the data; of one that had been begun before, the beginning
/// of its checksums. Those are not taken for the checksums of that data.
#[tokio::test]
async fn what_is_left_of_two_replicas_is_not_put_together() {
    let mut left = PathBuf::new();
    let (disk, found) = found_after(|disk, open, done| {
        left = open.join("blk_1_900.meta");
        let meta = done.join("blk_1_1001.meta");
        let header = read_file(disk, &meta, 1 << 20).unwrap();
        disk.remove_file(&meta).unwrap();
        disk.open(&left, Open::CreateNew).unwrap().write_all_at(&header[..7], 0).unwrap();
    })
    .await;
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(disk.process().look(&left).unwrap(), None);
}

/// An end that was cut short between two names is found out, though something is left of an older replica.
#[tokio::test]
async fn what_is_left_is_not_in_the_way_of_an_end_that_was_cut_short() {
    for header in [0, 7] {
        let (_, found) = found_after(|disk, open, done| {
            let bytes = read_file(disk, &done.join("blk_1_1001.meta"), 1 << 20).unwrap();
            let left = disk.open(&open.join("blk_1_900.meta"), Open::CreateNew).unwrap();
            left.write_all_at(&bytes[..header], 0).unwrap();
            disk.rename(&done.join("blk_1"), &open.join("blk_1")).unwrap();
        })
        .await;
        let found: Vec<_> = found.iter().map(|it| (it.block.stamp.0, it.block.length, it.state)).collect();
        assert_eq!(found, [(1001, 5000, ReplicaState::Rwr)]);
    }
}
