//! Crash images of the replica files: after every write, sync and rename of a workload the power fails,
//! and what was not synced is lost, torn or reordered. Each image must open to what was acknowledged: a
//! closed block is final and whole, and what a packet with the sync flag covered is there to be recovered.

use std::sync::Arc;

use mobula_disk::fake::{CrashDisk, Image, Loss};
use mobula_net::Env;
use mobula_types::{ReplicaState, StoredReplica};
use tokio::task::JoinSet;

use crate::namenode::FakeNamenode;
use crate::speaker::{Flags, Speaker, read_block, write_block};
use crate::{JOURNALS, bytes, on, on_with};

/// How often each kind of loss that draws is drawn, for every change of the disk.
const VARIANTS: u64 = 4;
/// Images that are looked at at the same time: each waits for a heartbeat or two.
const AT_ONCE: usize = 32;
/// Images at least, so that nobody shrinks the workload unnoticed.
const IMAGES_MIN: usize = 1_200;
/// Blocks that are closed, in sizes around those of a chunk and a packet.
const CLOSED: [usize; 6] = [1, 511, 512, 3_000, 4_097, 9_000];
/// Blocks that stay open, and how far each grows between two syncs.
const OPEN: [&[usize]; 3] = [&[100, 700, 1_300], &[512, 1_024], &[3_000, 3_001, 3_002, 6_000]];
/// Ids of blocks that stay open begin here.
const OPEN_FROM: u64 = 100;

/// What was acknowledged of a block, and after how many changes of the disk.
#[derive(Clone, Copy, Debug)]
struct Ack {
    changes: usize,
    id: u64,
    length: usize,
    closed: bool,
}

/// Writes, one block after the other.
async fn workload(disk: &CrashDisk, addr: &str) -> Vec<Ack> {
    let mut acks = Vec::new();
    for (id, length) in CLOSED.into_iter().enumerate() {
        write_block(addr, id as u64, &[], &bytes(length), 1024).await;
        acks.push(Ack { changes: disk.changes(), id: id as u64, length, closed: true });
    }
    for (at, lengths) in OPEN.into_iter().enumerate() {
        let id = OPEN_FROM + at as u64;
        let mut speaker = Speaker::open(addr, id, &[]).await;
        let mut from = 0;
        for (seqno, length) in lengths.iter().copied().enumerate() {
            // A chunk that was not full is sent again from its start, as clients do.
            speaker.packet(seqno as i64, from, &bytes(length)[from..], Flags::Sync).await;
            speaker.acked(seqno as i64, 1).await;
            acks.push(Ack { changes: disk.changes(), id, length, closed: false });
            from = length / 512 * 512;
        }
        // Bytes that nobody was promised.
        let all = bytes(lengths.last().unwrap() + 400);
        speaker.packet(lengths.len() as i64, from, &all[from..], Flags::None).await;
        speaker.acked(lengths.len() as i64, 1).await;
    }
    acks
}

async fn check(image: &Image, acks: &[Ack], journal: u64) {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let node = on_with(&image.disk, &namenode, journal).await;
    let addr = node.xfer_addr().to_string();
    let report: Vec<StoredReplica> =
        namenode.notes.lock().full.iter().flat_map(|(_, replicas)| replicas.clone()).collect();
    for replica in &report {
        // Whatever is called final can be read, all of it.
        if replica.state == ReplicaState::Finalized {
            let length = replica.block.length as usize;
            let read = read_block(&addr, replica.block.id.0, 0, length as u64).await;
            assert_eq!(read, Ok(bytes(length)), "{image:?}: {replica:?}");
        }
    }
    for ack in acks.iter().filter(|ack| ack.changes <= image.changes) {
        let found = report.iter().find(|replica| replica.block.id.0 == ack.id);
        let Some(found) = found else { panic!("{image:?}: {ack:?} is gone") };
        let length = found.block.length as usize;
        if ack.closed {
            assert_eq!((found.state, length), (ReplicaState::Finalized, ack.length), "{image:?}: {ack:?}");
        } else {
            assert!(
                found.state == ReplicaState::Rwr && length >= ack.length,
                "{image:?}: {ack:?}: {found:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_crash_image_of_the_replicas_opens_to_what_was_acknowledged() {
    for journal in JOURNALS {
        every_crash_image(journal).await;
    }
}

async fn every_crash_image(journal: u64) {
    let namenode = FakeNamenode::start(&Env::real()).await;
    let disk = CrashDisk::new(1);
    disk.record();
    let node = on_with(&disk, &namenode, journal).await;
    let acks = workload(&disk, &node.xfer_addr().to_string()).await;
    let recording = disk.recorded();
    drop(node);
    let acks = Arc::new(acks);
    let (mut images, mut checks) = (0, JoinSet::new());
    for image in recording.images(VARIANTS) {
        let acks = acks.clone();
        checks.spawn(async move { check(&image, &acks, journal).await });
        images += 1;
        if checks.len() == AT_ONCE {
            checks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(checked) = checks.join_next().await {
        checked.unwrap();
    }
    let changes = recording.len();
    println!(
        "{images} crash images of the replicas, {changes} changes of the disk, journal of {journal} bytes"
    );
    assert!(images >= IMAGES_MIN, "{images} images of {changes} changes");
}

/// A first start that is killed anywhere leaves folders whose names no disk has yet: the next one makes them durable,
/// the volume's own among them, or the power takes all that was closed since.
#[tokio::test]
async fn what_follows_a_first_start_that_was_killed_survives_power_loss() {
    let disk = CrashDisk::new(1);
    disk.record();
    drop(on(&disk, &FakeNamenode::start(&Env::real()).await).await);
    let mut kills = 0;
    for (changes, disk) in disk.recorded().kills() {
        let what = format!("killed after {changes} changes");
        let namenode = FakeNamenode::start(&Env::real()).await;
        let node = on(&disk, &namenode).await;
        write_block(&node.xfer_addr().to_string(), 1, &[], &bytes(3_000), 1024).await;
        disk.lose_power(Loss::Lost);
        drop(node);
        let node = on(&disk, &FakeNamenode::start(&Env::real()).await).await;
        let read = read_block(&node.xfer_addr().to_string(), 1, 0, 3_000).await;
        assert!(read == Ok(bytes(3_000)), "{what}: {:?}", read.map(|bytes| bytes.len()));
        kills += 1;
    }
    assert!(kills > 15, "{kills} kills");
}
