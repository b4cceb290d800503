//! Every crash and every failing call of a workload: what was acknowledged is there afterwards.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobula_disk::fake::{Crash, CrashDisk, Loss};
use mobula_disk::read_file;
use mobula_raft::{ProposeError, Raft, RaftError};
use parking_lot::Mutex;

use crate::fixture::{FOLDER, Toy, ready, run, small, start, start_ready};

/// An acknowledged number, and how many changes of the disk had been recorded then.
type Acks = Arc<Mutex<Vec<(u64, usize)>>>;

/// Numbers one by one and at the same time, large ones, and two cuts of the log. Ends at the first
/// refusal.
async fn workload(disk: &CrashDisk, raft: &Raft<Toy>, acks: &Acks, from: u64) {
    let mut next = from;
    for round in 0..8 {
        let some: Vec<_> = (0..1 + round % 4 * 3)
            .map(|_| {
                let (disk, raft, acks, number) = (disk.clone(), raft.clone(), acks.clone(), next);
                next += 1;
                tokio::spawn(async move {
                    let padding = if number % 5 == 0 { 400 } else { 0 };
                    let mut command = vec![number];
                    command.extend(std::iter::repeat_n(u64::MAX, padding));
                    if raft.propose(command).await.is_ok() {
                        acks.lock().push((number, disk.changes()));
                    }
                })
            })
            .collect();
        for one in some {
            one.await.unwrap();
        }
        if round % 3 == 2 && raft.compact_now().await.is_err() {
            return;
        }
    }
}

fn numbers(all: Vec<u64>) -> Vec<u64> {
    all.into_iter().filter(|number| *number != u64::MAX).collect()
}

fn check(seen: Vec<u64>, acked: &[u64], what: &dyn std::fmt::Debug) {
    let seen = numbers(seen);
    for number in acked {
        assert!(seen.contains(number), "{what:?}: {number} was acknowledged and is gone: {seen:?}");
    }
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), seen.len(), "{what:?}: applied twice: {seen:?}");
}

#[test]
fn every_crash_keeps_what_was_acknowledged() {
    let disk = CrashDisk::new(1);
    let acks = Acks::default();
    run(async {
        disk.record();
        let (raft, _) = start_ready(&disk).await;
        workload(&disk, &raft, &acks, 0).await;
    });
    let acks = acks.lock().clone();
    assert!(acks.len() > 30);
    let recording = disk.recorded();
    let mut images = 0;
    for image in recording.images(5) {
        let acked: Vec<u64> =
            acks.iter().filter(|(_, changes)| *changes <= image.changes).map(|(number, _)| *number).collect();
        run(async {
            let (raft, seen) = start_ready(&image.disk).await;
            check(seen.all(), &acked, &image);
            // And it goes on from there, twice.
            raft.propose(vec![1000]).await.unwrap();
            image.disk.crash(Crash::PowerLoss);
            let (_raft, seen) = start_ready(&image.disk).await;
            let mut acked = acked;
            acked.push(1000);
            check(seen.all(), &acked, &image);
        });
        images += 1;
    }
    println!("{images} crash images of the log, {} changes of the disk", recording.len());
    assert!(images > 1500, "{images} images of {} changes", recording.len());
}

/// Fails each call of a start and a workload in turn: nothing is acknowledged that a power loss takes.
#[test]
fn every_failing_call_is_survived() {
    for number in 0.. {
        let disk = CrashDisk::new(number);
        let acks = Acks::default();
        let failed = run(async {
            start_ready(&disk).await.0.propose(vec![999]).await.unwrap();
            disk.crash(Crash::Kill);
            let process = disk.process();
            let (toy, _) = Toy::open(&process, Path::new("/toy"));
            let calls = disk.calls();
            disk.fail_call(number, ErrorKind::Other);
            let env = crate::fixture::env(1);
            if let Ok(raft) = Raft::start(&env, process, FOLDER.into(), small(1), toy).await {
                let mut stopped = raft.stopped();
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(Option::is_some) => {}
                    _ = async { ready(&raft).await; workload(&disk, &raft, &acks, 0).await } => {}
                }
                // A failing read of a lock or a folder's list may harm nobody; a write does.
                if raft.stopped().borrow().is_some() {
                    assert!(raft.propose(vec![5000]).await.is_err());
                }
            }
            disk.calls() - calls > number
        });
        disk.set_fault(None);
        disk.lose_power(if number % 2 == 0 { Loss::Lost } else { Loss::Torn });
        let acked: Vec<u64> = acks.lock().iter().map(|(number, _)| *number).chain([999]).collect();
        let seen = run(async { start_ready(&disk).await.1.all() });
        check(seen, &acked, &number);
        if !failed {
            assert!(number > 100, "only {number} calls");
            return;
        }
    }
}

/// CASES 9: a sync that fails once and then succeeds.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    for number in 0..30 {
        let disk = CrashDisk::new(number);
        run(async {
            let (raft, _) = start_ready(&disk).await;
            disk.fail_sync(number);
            let mut acked = Vec::new();
            let mut failed = false;
            for next in 0..60 {
                match raft.propose(vec![next]).await {
                    Ok(_) => {
                        assert!(!failed, "{next} was acknowledged after a failed sync");
                        acked.push(next);
                    }
                    Err(ProposeError::Stopped { why }) => {
                        assert!(why.contains("made to fail") && why.contains(FOLDER), "{why}");
                        failed = true;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(failed);
            assert!(raft.stopped().borrow().is_some());
            disk.lose_power(Loss::Lost);
            let (_raft, seen) = start_ready(&disk).await;
            check(seen.all(), &acked, &number);
        });
    }
}

/// CASES 9: after a failed sync the process is started again, and reads from the page cache what no
/// disk has. Then the power fails.
#[test]
fn what_follows_a_failed_call_and_a_restart_survives_power_loss() {
    for number in (0..120).step_by(7) {
        for (loss, sync) in [(Loss::Lost, true), (Loss::Torn, true), (Loss::Reordered, false)] {
            let disk = CrashDisk::new(number);
            run(async {
                let mut acked = Vec::new();
                let (raft, _) = start_ready(&disk).await;
                if sync {
                    disk.fail_sync(number)
                } else {
                    disk.fail_call(number, ErrorKind::Other)
                }
                for next in 0..60 {
                    if raft.propose(vec![next]).await.is_ok() {
                        acked.push(next);
                    }
                }
                disk.set_fault(None);
                disk.crash(Crash::Kill);
                let (raft, _) = start_ready(&disk).await;
                for next in 100..104 {
                    raft.propose(vec![next]).await.unwrap();
                    acked.push(next);
                }
                disk.lose_power(loss);
                let (_raft, seen) = start_ready(&disk).await;
                check(seen.all(), &acked, &(number, loss));
            });
        }
    }
}

/// CASES 11: the disk fills up, at whatever byte.
#[test]
fn a_full_disk_stops_cleanly() {
    for spare in (0..12_000).step_by(400) {
        let disk = CrashDisk::new(spare);
        run(async {
            let (raft, _) = start_ready(&disk).await;
            let space = disk.process().space(Path::new("/")).unwrap();
            disk.set_capacity(Some(space.capacity - space.available + spare));
            let mut acked = Vec::new();
            let why = loop {
                let next = acked.len() as u64;
                match raft.propose(vec![next; 1]).await {
                    Ok(_) => acked.push(next),
                    Err(error) => break error,
                }
            };
            assert!(why.to_string().contains("no space left"), "{why}");
            disk.set_capacity(None);
            assert!(raft.propose(vec![9999]).await.is_err(), "a node that failed stays failed");
            disk.crash(Crash::PowerLoss);
            let (_raft, seen) = start_ready(&disk).await;
            check(seen.all(), &acked, &spare);
        });
    }
}

/// A disk with a log of several segments, each entry synced by itself.
fn filled() -> CrashDisk {
    let disk = CrashDisk::new(1);
    run(async {
        let (raft, _) = start_ready(&disk).await;
        for number in 0..250 {
            raft.propose(vec![number, 77]).await.unwrap();
        }
    });
    disk.crash(Crash::Kill);
    disk
}

/// The log's segments, and how long each is without the zeros that were written ahead.
fn logs(disk: &CrashDisk) -> Vec<(PathBuf, u64)> {
    let process = disk.process();
    let entries = process.list(Path::new(FOLDER)).unwrap();
    let logs = entries.into_iter().filter(|entry| entry.name.to_string_lossy().starts_with("log-"));
    let used = |path: &Path| {
        let bytes = read_file(&*process, path, 1 << 20).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    };
    logs.map(|entry| Path::new(FOLDER).join(entry.name)).map(|path| (path.clone(), used(&path))).collect()
}

/// CASES 8: decay in the middle of the log stops the node, with the place named.
#[test]
fn a_flipped_bit_is_refused_with_file_and_offset() {
    let disk = filled();
    let logs = logs(&disk);
    assert!(logs.len() >= 3, "{logs:?}");
    let last = logs.last().unwrap().clone();
    let mut refused = 0;
    for (path, length) in &logs {
        for offset in (0..*length).step_by(5) {
            disk.flip(path, offset, 0x10).unwrap();
            let started = run(async {
                let (raft, seen) = start(&disk.process(), small(1)).await?;
                ready(&raft).await;
                Ok::<_, RaftError>(seen.all().len())
            });
            match started {
                Err(RaftError::Corrupt { file, offset: at, what }) => {
                    assert_eq!(&file, path, "{what}");
                    assert!(at <= offset && offset - at < 100, "{at} named for {offset}: {what}");
                    refused += 1;
                }
                Err(other) => panic!("{} at {offset}: {other}", path.display()),
                Ok(count) if path == &last.0 && offset + 60 > last.1 => {
                    // The last record: decay looks like a write that a crash cut short.
                    assert!(count >= 498);
                    return assert!(refused > 1000, "{refused} refused");
                }
                Ok(count) => panic!("{} at {offset}: not noticed, {count} left", path.display()),
            }
            disk.crash(Crash::Kill);
            disk.flip(path, offset, 0x10).unwrap();
        }
    }
    panic!("the last record was not reached");
}

#[test]
fn a_missing_segment_or_vote_is_refused() {
    for victim in 0..3 {
        let disk = filled();
        let path = match victim {
            2 => Path::new(FOLDER).join("vote"),
            number => logs(&disk)[number].0.clone(),
        };
        disk.process().remove_file(&path).unwrap();
        let error = run(start(&disk.process(), small(1))).expect_err("something is missing");
        match victim {
            // Without the first segment the log could be one that was cut; the machine knows better.
            0 => assert!(
                error.to_string().contains("Cannot") || error.to_string().contains("machine"),
                "{error}"
            ),
            _ => assert!(matches!(error, RaftError::Corrupt { .. }), "{error}"),
        }
    }
}

/// The folder is another one than before: empty, or as it was when the machine was at an earlier place. However often
/// somebody starts it again, nothing that was acknowledged is forgotten without a word.
#[test]
fn a_log_that_ends_before_the_machine_is_refused() {
    let disk = filled();
    run(async {
        let (raft, _) = start_ready(&disk).await;
        raft.shutdown().await;
    });
    for (path, _) in logs(&disk) {
        disk.process().remove_file(&path).unwrap();
    }
    disk.process().remove_file(&Path::new(FOLDER).join("vote")).unwrap();
    for _ in 0..5 {
        let error = run(start(&disk.process(), small(1))).expect_err("the log is gone");
        assert!(matches!(error, RaftError::Behind { log: None, .. }), "{error}");
        disk.crash(Crash::Kill);
    }
}

#[test]
fn a_later_version_is_refused_and_left_alone() {
    let disk = filled();
    let process = disk.process();
    let path = &logs(&disk)[0].0;
    let file = process.open(path, mobula_disk::Open::ReadWrite).unwrap();
    let mut header = [0; 48];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8] = 3;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &header[..44]) as u32;
    header[44..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    drop(file);
    let error = run(start(&disk.process(), small(1))).err().unwrap();
    assert!(matches!(&error, RaftError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("version 3"), "{error}");
}
