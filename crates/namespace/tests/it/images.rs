//! Crash images of the tables: after every write and sync of a workload the power fails, and what was not
//! synced is lost, torn or reordered. Each image must open to a state that there was, no older than the
//! last sync that was answered, and the log from there on must lead to the same end.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use mobula_disk::fake::{Crash, CrashDisk, Loss};
use mobula_disk::{FileRef, Open};
use mobula_namespace::{Entry, LogPosition, Namespace};

use crate::crash::log;

const CACHE: usize = 1 << 20;
/// The log's entries, and after how many the tables are synced.
const ENTRIES: usize = 60;
const SYNC_EVERY: usize = 6;
/// How often each kind of loss that draws is drawn, for every change of the disk.
const VARIANTS: u64 = 3;
/// Images at least, so that nobody shrinks the workload unnoticed.
const IMAGES_MIN: usize = 1_500;

/// The tables' file on a disk that crashes.
#[derive(Debug)]
struct Tables(FileRef);

impl redb::StorageBackend for Tables {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

fn open(disk: &CrashDisk) -> Namespace {
    let file = disk.process().open(Path::new("/tables"), Open::Create).unwrap();
    Namespace::open(Tables(file), CACHE).unwrap()
}

#[test]
fn every_crash_image_of_the_tables_opens_to_what_was_synced() {
    let log = log(77, ENTRIES);
    let disk = CrashDisk::new(1);
    // Whole before the workload begins: who makes the file gives it its name last (the NameNode's `format`).
    let mut namespace = open(&disk);
    namespace.sync().unwrap();
    disk.process().sync_folder(Path::new("/")).unwrap();
    disk.record();
    // By the entries applied: the state's hash. And what was synced after how many changes of the disk.
    let mut hashes = BTreeMap::from([(0, namespace.state_hash().unwrap())]);
    let mut synced = vec![(disk.changes(), 0)];
    for (at, entry) in log.iter().enumerate() {
        namespace.apply_all(std::slice::from_ref(entry)).unwrap();
        hashes.insert(entry.0.index, namespace.state_hash().unwrap());
        if at % SYNC_EVERY == 0 {
            let position = namespace.sync().unwrap().unwrap();
            synced.push((disk.changes(), position.index));
        }
    }
    // Ended before the tables are dropped: that would sync them.
    let recording = disk.recorded();
    let last = hashes[&log.last().unwrap().0.index];
    let mut images = 0;
    for image in recording.images(VARIANTS) {
        let least = synced.iter().rev().find(|(changes, _)| *changes <= image.changes).map_or(0, |at| at.1);
        let mut left = open(&image.disk);
        let applied = left.applied().map_or(0, |position| position.index);
        assert!(applied >= least, "{image:?}: at {applied}, but {least} was synced");
        assert_eq!(left.state_hash().unwrap(), hashes[&applied], "{image:?}: not the state at {applied}");
        left.apply_all(&log[applied as usize..]).unwrap();
        assert_eq!(left.state_hash().unwrap(), last, "{image:?}: another end");
        images += 1;
    }
    println!("{images} crash images of the tables, {} changes of the disk", recording.len());
    assert!(images >= IMAGES_MIN, "{images} images of {} changes", recording.len());
}

/// CASES 9: a sync fails, the process ends and is started again, and reads from the page cache what no disk has.
/// It goes on from there, and then the power fails.
#[test]
fn after_a_failed_sync_and_a_restart_what_is_synced_survives_power_loss() {
    let log = log(77, ENTRIES);
    let mut whole = open(&CrashDisk::new(1));
    let mut hashes = BTreeMap::from([(0, whole.state_hash().unwrap())]);
    for entry in &log {
        whole.apply_all(std::slice::from_ref(entry)).unwrap();
        hashes.insert(entry.0.index, whole.state_hash().unwrap());
    }
    for number in 0.. {
        for loss in Loss::ALL {
            let what = format!("sync {number}, then {loss:?}");
            let disk = CrashDisk::new(number);
            let namespace = open(&disk);
            disk.process().sync_folder(Path::new("/")).unwrap();
            disk.fail_sync(number);
            let (failed, first) = go_on(namespace, &log[..40], &disk);
            if !failed {
                assert!(number > 10, "only {number} syncs");
                return;
            }
            disk.set_fault(None);
            disk.crash(Crash::Kill);
            let left = open(&disk);
            let applied = left.applied().map_or(0, |position| position.index);
            assert!(applied >= first, "{what}: at {applied}, but {first} was synced");
            let (_, second) = go_on(left, &log[applied as usize..], &disk);
            disk.lose_power(loss);
            let mut left = open(&disk);
            let applied = left.applied().map_or(0, |position| position.index);
            assert!(applied >= second, "{what}: at {applied}, but {second} was synced");
            assert_eq!(left.state_hash().unwrap(), hashes[&applied], "{what}: not the state at {applied}");
            left.apply_all(&log[applied as usize..]).unwrap();
            assert_eq!(left.state_hash().unwrap(), hashes[&(ENTRIES as u64)], "{what}: another end");
        }
    }
}

/// Applies entries and syncs now and then, until it fails; answers whether it did, and what was synced last. What it
/// had is lost with the process.
fn go_on(mut namespace: Namespace, log: &[(LogPosition, Entry)], disk: &CrashDisk) -> (bool, u64) {
    let mut synced = namespace.applied().map_or(0, |position| position.index);
    let mut failed = false;
    for (at, entry) in log.iter().enumerate() {
        failed = namespace.apply_all(std::slice::from_ref(entry)).is_err();
        if !failed && at % SYNC_EVERY == 1 {
            match namespace.sync() {
                Ok(position) => synced = position.map_or(0, |position| position.index),
                Err(_) => failed = true,
            }
        }
        if failed {
            break;
        }
    }
    // Dropped in order, it would sync.
    disk.crash(Crash::Kill);
    (failed, synced)
}
