//! What must be the same however it came about: after a power loss and a replay, through a snapshot, in
//! other groups.

use mobula_namespace::{Batch, Entry, LogPosition, Namespace, Operation, Outcome, TableError};
use mobula_types::{ClientId, Millis};
use rand::Rng;

use crate::fixture::{Fixture, START, Storage, create, delete, format, mkdirs, superuser};
use crate::random::Random;

const CACHE: usize = 16 << 20;

/// A log of random batches that begins with a format.
pub fn log(seed: u64, entries: usize) -> Vec<(LogPosition, Entry)> {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut fixture = Fixture::unformatted();
    let (mut files, mut blocks) = (Vec::new(), Vec::new());
    let mut log = Vec::new();
    let mut time = START;
    for index in 1..=entries as u64 {
        let entry = match index {
            1 => {
                let operation = Operation::Format(format());
                let command = mobula_namespace::Command { caller: superuser(), retry: None, operation };
                Entry::Batch(Batch { time: Millis(time), commands: vec![command] })
            }
            _ if index % 17 == 0 => Entry::Membership(index.to_be_bytes().to_vec()),
            _ if index % 19 == 0 => Entry::Blank,
            _ => {
                time += random.rng.random_range(0..60_000);
                let count = random.rng.random_range(1..20);
                let view = fixture.namespace.view();
                let commands = (0..count).map(|_| random.command(&view, &files, &blocks)).collect();
                Entry::Batch(Batch { time: Millis(time), commands })
            }
        };
        let position = LogPosition { term: 1 + index / 40, index };
        let answers = fixture.namespace.apply_all(&[(position, entry.clone())]).unwrap();
        for applied in answers.into_iter().flatten() {
            match applied.outcome {
                Ok(Outcome::Status(status)) => files.push(status.inode),
                Ok(Outcome::Allocated(allocated)) => blocks.push(allocated.block),
                Ok(Outcome::Begun(status, allocated)) => {
                    files.push(status.inode);
                    blocks.push(allocated.block);
                }
                _ => {}
            }
        }
        log.push((position, entry));
    }
    log
}

fn open(storage: &Storage) -> Namespace {
    Namespace::open(storage.clone(), CACHE).unwrap()
}

#[test]
fn a_power_loss_leaves_the_last_sync_and_a_replay_gives_the_same_state() {
    for seed in 0..6 {
        let log = log(seed, 120);
        let mut whole = open(&Storage::default());
        let expected: Vec<_> =
            log.iter().map(|entry| whole.apply_all(std::slice::from_ref(entry)).unwrap()).collect();
        let mut random = Random::new(seed + 1000);
        let mut storage = Storage::default();
        let mut namespace = open(&storage);
        let mut synced = None;
        let mut at = 0;
        let mut crashes = 0;
        while at < log.len() {
            let count = random.rng.random_range(1..6).min(log.len() - at);
            let answers = namespace.apply_all(&log[at..at + count]).unwrap();
            assert_eq!(answers.concat(), expected[at..at + count].concat().concat(), "seed {seed} at {at}");
            at += count;
            match random.rng.random_range(0..6) {
                0 => synced = Some((namespace.sync().unwrap(), namespace.state_hash().unwrap())),
                1 => {
                    let left = storage.crash(); // Before the drop, which would sync.
                    drop(namespace);
                    storage = left;
                    namespace = open(&storage);
                    if let Some((position, hash)) = synced {
                        assert_eq!(namespace.applied(), position, "the last sync is what is left");
                        assert_eq!(namespace.state_hash().unwrap(), hash);
                    }
                    at = namespace.applied().map_or(0, |applied| applied.index as usize);
                    crashes += 1;
                }
                _ => {}
            }
            if crashes > 40 {
                break; // A seed that syncs too seldom would never end.
            }
        }
        if at == log.len() {
            assert_eq!(namespace.state_hash().unwrap(), whole.state_hash().unwrap(), "seed {seed}");
            assert_eq!(namespace.membership(), whole.membership());
        }
    }
}

#[test]
fn a_clean_close_keeps_what_was_synced() {
    let mut fixture = Fixture::new();
    fixture.run(&superuser(), mkdirs("/a")).unwrap();
    fixture.namespace.sync().unwrap();
    let hash = fixture.namespace.state_hash().unwrap();
    drop(fixture.namespace);
    assert_eq!(open(&fixture.storage).state_hash().unwrap(), hash);
}

#[test]
fn grouping_makes_no_difference() {
    for seed in 20..26 {
        let log = log(seed, 100);
        let mut hashes = Vec::new();
        for group in [1, 3, 100] {
            let mut namespace = open(&Storage::default());
            for entries in log.chunks(group) {
                namespace.apply_all(entries).unwrap();
            }
            hashes.push(namespace.state_hash().unwrap());
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "seed {seed}: {hashes:?}");
    }
}

#[test]
fn another_state_has_another_hash() {
    let mut fixture = Fixture::new();
    let mut hashes = std::collections::BTreeSet::from([fixture.namespace.state_hash().unwrap()]);
    for operation in [mkdirs("/a"), create("/b", "c"), delete("/a")] {
        fixture.run(&superuser(), operation).unwrap();
        assert!(hashes.insert(fixture.namespace.state_hash().unwrap()));
    }
}

#[test]
fn a_snapshot_gives_the_same_state_and_goes_on_alike() {
    for seed in 40..44 {
        let log = log(seed, 100);
        let (first, second) = log.split_at(60);
        let mut namespace = open(&Storage::default());
        namespace.apply_all(first).unwrap();
        let mut bytes = Vec::new();
        let view = namespace.view();
        let expected = namespace.apply_all(second).unwrap();
        view.write_snapshot(&mut bytes).unwrap(); // Of the old view: later batches do not show.
        let storage = Storage::default();
        let mut other = open(&storage);
        other.apply_all(&log[..10]).unwrap(); // What was there before goes.
        other.restore(&mut bytes.as_slice()).unwrap();
        assert_eq!(other.state_hash().unwrap(), view.state_hash().unwrap());
        assert_eq!(other.applied(), Some(first.last().unwrap().0));
        assert_eq!(open(&storage.crash()).state_hash().unwrap(), view.state_hash().unwrap(), "durable");
        assert_eq!(other.apply_all(second).unwrap(), expected, "seed {seed}");
        assert_eq!(other.state_hash().unwrap(), namespace.state_hash().unwrap());
    }
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let mut fixture = Fixture::new();
    fixture.write("/a/f", 10);
    let mut bytes = Vec::new();
    fixture.namespace.write_snapshot(&mut bytes).unwrap();
    let mut other = Fixture::new();
    let hash = other.namespace.state_hash().unwrap();
    let mut random = Random::new(3);
    for round in 0..200 {
        let mut damaged = bytes.clone();
        match round % 3 {
            0 => damaged.truncate(random.rng.random_range(0..bytes.len())),
            1 => damaged[random.rng.random_range(0..bytes.len())] ^= 1 << random.rng.random_range(0..8),
            _ => {
                let at = random.rng.random_range(0..bytes.len());
                damaged.splice(at..at, [0xff; 9]);
            }
        }
        let refused = other.namespace.restore(&mut damaged.as_slice());
        assert!(matches!(refused, Err(TableError::Snapshot(_))), "round {round}: {refused:?}");
        assert_eq!(other.namespace.state_hash().unwrap(), hash);
    }
    other.run(&superuser(), mkdirs("/still-works")).unwrap();
    other.namespace.restore(&mut bytes.as_slice()).unwrap();
    assert_eq!(other.namespace.state_hash().unwrap(), fixture.namespace.state_hash().unwrap());
}

#[test]
fn the_first_answer_survives_a_crash() {
    let mut fixture = Fixture::new();
    let key = |call| Some(mobula_namespace::RetryKey { client: ClientId([4; 16]), call });
    let first = fixture.apply(&superuser(), key(1), create("/f", "c")).outcome;
    let deleted = fixture.apply(&superuser(), key(2), delete("/f")).outcome;
    fixture.namespace.sync().unwrap();
    let storage = fixture.storage.crash();
    fixture.namespace = open(&storage);
    assert_eq!(fixture.apply(&superuser(), key(1), create("/f", "c")).outcome, first);
    assert_eq!(fixture.apply(&superuser(), key(2), delete("/f")).outcome, deleted);
    assert_eq!(fixture.namespace.view().counts().files, 0);
}

#[test]
fn calls_that_overtake_each_other_are_remembered_all_the_same() {
    let mut fixture = Fixture::new();
    let key = |call| Some(mobula_namespace::RetryKey { client: ClientId([4; 16]), call });
    let calls = [7, 3, -5, i32::MAX, 4];
    let file = |call: i32| format!("/f{call}");
    let make = |fixture: &mut Fixture, call| {
        fixture.apply(&superuser(), key(call), create(&file(call), "c")).outcome.unwrap()
    };
    let first: Vec<_> = calls.iter().map(|call| make(&mut fixture, *call)).collect();
    let again: Vec<_> = calls.iter().map(|call| make(&mut fixture, *call)).collect();
    assert_eq!(first, again, "the second time none is made, and none refused");
    fixture.namespace.sync().unwrap();
    fixture.namespace = open(&fixture.storage.crash());
    let later: Vec<_> = calls.iter().rev().map(|call| make(&mut fixture, *call)).collect();
    assert!(first.iter().eq(later.iter().rev()));
    assert_eq!(fixture.namespace.view().counts().files, calls.len() as u64);
}

#[test]
fn log_time_follows_a_new_term_and_bounds_one_mad_reading() {
    let day = 24 * 3600 * 1000;
    let mut namespace = open(&Storage::default());
    let mut at = |term, index, time| {
        let command = mobula_namespace::Command {
            caller: superuser(),
            retry: None,
            operation: Operation::Format(format()),
        };
        let batch = Entry::Batch(Batch { time: Millis(time), commands: vec![command] });
        namespace.apply_all(&[(LogPosition { term, index }, batch)]).unwrap();
        namespace.view().log_time().0
    };
    assert_eq!(at(1, 1, START), START);
    assert_eq!(at(1, 2, START - 5), START, "never back");
    assert_eq!(at(1, 3, START + 100 * day), START + day, "bounded within a term");
    assert_eq!(at(2, 4, START + 7 * day), START + 7 * day, "a week of being down");
}
