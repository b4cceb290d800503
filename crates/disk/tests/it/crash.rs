//! The fake disk: what a crash must leave, may lose, and may not.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use mobula_disk::fake::{CallKind, Crash, CrashDisk, Loss};
use mobula_disk::{Disk, Kind, Open, create_folder_durably, read_file, sync_names_above, write_file_durably};
use proptest::prelude::*;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn read(disk: &dyn Disk, name: &str) -> Option<Vec<u8>> {
    read_file(disk, path(name), u64::MAX).ok()
}

#[test]
fn only_what_was_synced_is_certain() {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    let synced = process.open(path("/synced"), Open::CreateNew).unwrap();
    synced.write_all_at(b"kept", 0).unwrap();
    synced.sync_data().unwrap();
    process.sync_folder(path("/")).unwrap();
    synced.write_all_at(b"LOST+more", 0).unwrap();
    let nameless = process.open(path("/nameless"), Open::CreateNew).unwrap();
    nameless.write_all_at(b"x", 0).unwrap();
    nameless.sync_data().unwrap();
    disk.lose_power(Loss::Lost);
    let process = disk.process();
    assert_eq!(read(&*process, "/synced").unwrap(), b"kept");
    assert_eq!(process.look(path("/nameless")).unwrap(), None, "its name was not synced");
}

#[test]
fn one_sync_of_all_files_keeps_their_bytes_and_says_nothing_of_names() {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    let around = process.open_folder(path("/")).unwrap();
    let make = |name: &str| {
        let file = process.open(path(name), Open::CreateNew).unwrap();
        file.write_all_at(name.as_bytes(), 0).unwrap();
        file
    };
    let (_named, _nameless) = (make("/named"), make("/nameless"));
    process.sync_folder(path("/")).unwrap();
    let late = make("/late");
    around.sync_all_files().unwrap();
    late.write_all_at(b"after", 0).unwrap();
    disk.lose_power(Loss::Lost);
    let after = disk.process();
    assert_eq!(read(&*after, "/named").unwrap(), b"/named");
    assert_eq!(read(&*after, "/nameless").unwrap(), b"/nameless");
    assert_eq!(after.look(path("/late")).unwrap(), None, "its name was not synced");
    // One that failed has lost what it should have kept.
    let file = after.open(path("/named"), Open::ReadWrite).unwrap();
    let around = after.open_folder(path("/")).unwrap();
    file.write_all_at(b"newer", 0).unwrap();
    disk.fail_sync(0);
    around.sync_all_files().unwrap_err();
    around.sync_all_files().unwrap();
    disk.lose_power(Loss::Lost);
    assert_eq!(read(&*disk.process(), "/named").unwrap(), b"/named");
}

#[test]
fn a_kill_loses_nothing_and_ends_the_process() {
    let disk = CrashDisk::new(1);
    let old = disk.process();
    let lock = old.lock(path("/in_use.lock"), "old").unwrap();
    let file = old.open(path("/f"), Open::CreateNew).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    disk.crash(Crash::Kill);
    assert!(file.write_all_at(b"X", 0).is_err() && file.sync_data().is_err() && file.length().is_err());
    assert!(old.open(path("/f"), Open::Read).is_err() && old.list(path("/")).is_err());
    let new = disk.process();
    assert_eq!(read(&*new, "/f").unwrap(), b"abc");
    let held = new.lock(path("/in_use.lock"), "new").unwrap();
    drop(lock);
    assert_eq!(new.lock(path("/in_use.lock"), "third").unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(held);
    disk.lose_power(Loss::Lost);
    assert_eq!(disk.process().look(path("/f")).unwrap(), None, "the kill did not sync it");
}

#[test]
fn a_failed_sync_loses_the_data_and_the_next_one_lies() {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    let file = process.open(path("/f"), Open::CreateNew).unwrap();
    process.sync_folder(path("/")).unwrap();
    disk.fail_sync(0);
    file.write_all_at(b"abc", 0).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(read(&*process, "/f").unwrap(), b"abc", "still in the cache");
    disk.lose_power(Loss::Lost);
    assert_eq!(read(&*disk.process(), "/f").unwrap(), b"");
}

#[test]
fn faults_hit_the_call_they_are_meant_for() {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    let file = process.open(path("/f"), Open::CreateNew).unwrap();
    disk.fail_call(1, ErrorKind::ConnectionReset);
    file.write_all_at(b"a", 0).unwrap();
    let error = file.write_all_at(b"b", 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(error.to_string().contains("/f"));
    file.write_all_at(b"c", 1).unwrap();
    assert_eq!(read(&*process, "/f").unwrap(), b"ac");

    disk.set_read_only(true);
    assert_eq!(file.write_all_at(b"d", 0).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(process.open(path("/g"), Open::Create).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    disk.set_read_only(false);

    disk.set_capacity(Some(10));
    file.write_all_at(b"0123456789", 0).unwrap();
    assert_eq!(file.write_all_at(b"xx", 9).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(process.space(path("/")).unwrap().available, 0);
    process.remove_file(path("/f")).unwrap();
    drop(file);
    assert_eq!(process.space(path("/")).unwrap().available, 10);
    assert!(disk.count(CallKind::Write) >= 5 && disk.calls() > disk.count(CallKind::Write));
}

#[test]
fn a_rename_is_whole_or_not_at_all() {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    create_folder_durably(&*process, path("/a")).unwrap();
    create_folder_durably(&*process, path("/b")).unwrap();
    write_file_durably(&*process, path("/a/f"), b"x").unwrap();
    disk.record();
    process.rename(path("/a/f"), path("/b/f")).unwrap();
    process.sync_folder(path("/b")).unwrap();
    let mut seen = BTreeSet::new();
    for image in disk.recorded().images(20) {
        let process = image.disk.process();
        let (old, new) = (read(&*process, "/a/f").is_some(), read(&*process, "/b/f").is_some());
        assert!(old != new, "{image:?}");
        assert!(new || image.changes < 2, "{image:?}");
        seen.insert((image.changes, new));
    }
    assert_eq!(seen.len(), 4, "before, lost, kept, synced: {seen:?}");
}

/// A process made folders, and was killed before it synced any.
#[test]
fn names_that_another_process_left_are_made_durable() {
    let disk = CrashDisk::new(1);
    disk.process().create_folder(path("/a/b/c")).unwrap();
    disk.crash(Crash::Kill);
    sync_names_above(&*disk.process(), path("/a/b/c")).unwrap();
    disk.lose_power(Loss::Lost);
    assert_eq!(disk.process().look(path("/a/b/c")).unwrap(), Some((Kind::Folder, 0)));

    disk.set_read_only(true);
    sync_names_above(&*disk.process(), path("/a/b/c")).expect("nobody can have changed it");
    disk.set_read_only(false);
    disk.fail_call(0, ErrorKind::Other);
    sync_names_above(&*disk.process(), path("/a/b/c")).expect_err("a failed sync is not hidden");
}

/// Nothing of a write that fails within a page, and whole pages of a longer one.
#[test]
fn a_write_that_fails_may_have_got_some_way() {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    let file = process.open(path("/f"), Open::CreateNew).unwrap();
    for (offset, length, left) in [(0, 4_000, 0), (100, 20_000, 8_192), (8_192, 8_000, 8_192)] {
        disk.fail_call(0, ErrorKind::Other);
        file.write_all_at(&vec![7; length], offset).unwrap_err();
        assert_eq!(file.length().unwrap(), left, "{length} bytes at {offset}");
    }
}

#[test]
fn images_show_every_state_of_a_replaced_file() {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    write_file_durably(&*process, path("/f"), b"old").unwrap();
    disk.record();
    write_file_durably(&*process, path("/f"), b"newer").unwrap();
    let recording = disk.recorded();
    let mut seen = BTreeSet::new();
    for image in recording.images(8) {
        let found = read(&*image.disk.process(), "/f").expect("never missing");
        assert!(found == b"old" || found == b"newer", "{image:?}: {found:?}");
        if image.changes == recording.len() {
            assert_eq!(found, b"newer", "{image:?}");
        }
        seen.insert(found);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn unsynced_pages_survive_in_any_order() {
    const PAGE: usize = 4096;
    let mut patterns = BTreeSet::new();
    for seed in 0..200 {
        let disk = CrashDisk::new(seed);
        let process = disk.process();
        let file = process.open(path("/f"), Open::CreateNew).unwrap();
        file.set_length(4 * PAGE as u64).unwrap();
        file.sync_data().unwrap();
        process.sync_folder(path("/")).unwrap();
        for page in 0..4 {
            file.write_all_at(&[1; PAGE], (page * PAGE) as u64).unwrap();
        }
        disk.lose_power(Loss::Reordered);
        let found = read(&*disk.process(), "/f").unwrap();
        patterns.insert(found.chunks(PAGE).map(|page| page == [1; PAGE]).collect::<Vec<_>>());
    }
    assert!(patterns.contains(&vec![false, true, false, true]), "{patterns:?}");
    assert!(patterns.len() > 12, "{patterns:?}");
}

/// One step of a random workload on two files.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, Vec<u8>),
    Length(usize, u64),
    Sync(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..2usize, 0..9000u64, prop::collection::vec(1..255u8, 1..3000));
    let step = prop_oneof![
        4 => write.prop_map(|(file, offset, data)| Step::Write(file, offset, data)),
        1 => (0..2usize, 0..12_000u64).prop_map(|(file, length)| Step::Length(file, length)),
        2 => (0..2usize).prop_map(Step::Sync),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every byte that a crash leaves was there at some time since the last sync, and the same seed
    /// leaves the same bytes.
    #[test]
    fn a_crash_leaves_bytes_that_were_written(steps in steps(), seed in any::<u64>()) {
        let leave = |loss: Loss| {
            let disk = CrashDisk::new(seed);
            let process = disk.process();
            let files = ["/0", "/1"].map(|name| process.open(path(name), Open::CreateNew).unwrap());
            process.sync_folder(path("/")).unwrap();
            let mut since = [vec![Vec::new()], vec![Vec::new()]];
            for step in &steps {
                match step {
                    Step::Write(file, offset, data) => files[*file].write_all_at(data, *offset).unwrap(),
                    Step::Length(file, length) => files[*file].set_length(*length).unwrap(),
                    Step::Sync(file) => {
                        files[*file].sync_data().unwrap();
                        since[*file].clear();
                    }
                }
                for (file, states) in since.iter_mut().enumerate() {
                    states.push(read(&*process, ["/0", "/1"][file]).unwrap());
                }
            }
            disk.lose_power(loss);
            let process = disk.process();
            (since, ["/0", "/1"].map(|name| read(&*process, name).unwrap()))
        };
        for loss in Loss::ALL {
            let (since, found) = leave(loss);
            prop_assert_eq!(&found, &leave(loss).1);
            for (states, found) in since.iter().zip(&found) {
                if loss == Loss::Lost {
                    prop_assert_eq!(found, &states[0]);
                }
                let lengths = states.iter().map(Vec::len);
                prop_assert!(found.len() <= lengths.clone().max().unwrap());
                for (at, byte) in found.iter().enumerate() {
                    let was = states.iter().any(|state| state.get(at).copied().unwrap_or(0) == *byte);
                    prop_assert!(was, "{:?}: byte {} is {}", loss, at, byte);
                }
            }
        }
    }
}
