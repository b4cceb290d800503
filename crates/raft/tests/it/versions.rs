//! Logs that earlier programs wrote.

use std::path::Path;

use mobula_disk::fake::{Crash, CrashDisk, Loss};
use mobula_disk::{read_file, write_file_durably};

use crate::fixture::{FOLDER, run, small, start, start_ready};

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A segment of version 2 as version 1 would have written it: 16 bytes less of header, no marks, and
/// checksums without a salt.
fn as_version_1(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..44].to_vec();
    assert_eq!(out[8], 2);
    out[8] = 1;
    out.extend(crc(&out).to_le_bytes());
    let mut at = 64;
    // Version 1 wrote no zeros ahead.
    while bytes[at.min(bytes.len())..].iter().any(|byte| *byte != 0) {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let mut record = bytes[at + 4..at + 32 + length].to_vec();
        record[25..28].fill(0);
        out.extend(crc(&record).to_le_bytes());
        out.extend(record);
        out.resize(out.len().next_multiple_of(8), 0);
        at += (32 + length).next_multiple_of(8);
    }
    out
}

/// A folder of version 1 with several segments, the numbers below 100 in it.
fn filled() -> CrashDisk {
    let disk = CrashDisk::new(1);
    run(async {
        let (raft, _) = start_ready(&disk).await;
        for number in 0..100 {
            raft.propose(vec![number; 80]).await.unwrap();
        }
    });
    disk.crash(Crash::Kill);
    let process = disk.process();
    let mut segments = 0;
    for entry in process.list(Path::new(FOLDER)).unwrap() {
        if entry.name.to_string_lossy().starts_with("log-") {
            let path = Path::new(FOLDER).join(entry.name);
            let old = as_version_1(&read_file(&*process, &path, 1 << 20).unwrap());
            write_file_durably(&*process, &path, &old).unwrap();
            segments += 1;
        }
    }
    assert!(segments > 2);
    disk
}

/// The versions of the log's segments, in order.
fn versions(disk: &CrashDisk) -> Vec<u8> {
    let process = disk.process();
    let names = process.list(Path::new(FOLDER)).unwrap().into_iter().map(|entry| entry.name);
    let logs = names.filter(|name| name.to_string_lossy().starts_with("log-"));
    logs.map(|name| read_file(&*process, &Path::new(FOLDER).join(name), 1 << 20).unwrap()[8]).collect()
}

#[test]
fn a_log_of_version_1_goes_on_whatever_crash_comes() {
    for loss in Loss::ALL {
        let disk = filled();
        assert!(versions(&disk).iter().all(|version| *version == 1));
        let mut acked: Vec<u64> = (0..100).flat_map(|number| [number; 80]).collect();
        for life in 0..4 {
            run(async {
                let (raft, seen) = start_ready(&disk).await;
                assert_eq!(seen.all(), acked, "{loss:?}, life {life}");
                for number in 0..5 {
                    let number = 1000 * (life + 1) + number;
                    raft.propose(vec![number; 50]).await.unwrap();
                    acked.push(number);
                    acked.extend([number; 49]);
                }
            });
            disk.lose_power(loss);
            assert_eq!(*versions(&disk).last().unwrap(), 2);
        }
        // Cut behind the machine, nothing of version 1 is left.
        run(async {
            let (raft, _) = start_ready(&disk).await;
            raft.compact_now().await.unwrap();
            raft.propose(vec![7]).await.unwrap();
        });
        assert!(versions(&disk).iter().all(|version| *version == 2));
    }
}

/// What it was refused for, it is refused for.
#[test]
fn damage_in_a_log_of_version_1_is_refused() {
    let disk = filled();
    let process = disk.process();
    let first = process.list(Path::new(FOLDER)).unwrap().remove(0);
    let path = Path::new(FOLDER).join(&first.name);
    for offset in (0..first.length).step_by(7) {
        disk.flip(&path, offset, 0x20).unwrap();
        let error = run(start(&disk.process(), small(1))).expect_err("damaged");
        assert!(error.to_string().contains("corrupt at byte"), "{offset}: {error}");
        disk.crash(Crash::Kill);
        disk.flip(&path, offset, 0x20).unwrap();
    }
}
