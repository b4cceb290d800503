//! One voter: what is acknowledged stays, whatever happens.

use std::path::Path;
use std::time::Duration;

use mobula_disk::fake::{CallKind, Crash, CrashDisk};
use mobula_disk::{DiskRef, RealDisk};
use mobula_raft::{Leadership, ProposeError, Raft, RaftOptions};

use crate::fixture::{FOLDER, Seen, Toy, env, ready, run, small, start, start_ready};

#[test]
fn founds_itself_and_answers() {
    run(async {
        let disk = CrashDisk::new(1);
        let (raft, seen) = start_ready(&disk).await;
        assert_eq!(raft.propose(vec![7, 8]).await.unwrap(), [0, 1]);
        assert_eq!(raft.propose(vec![9]).await.unwrap(), [2]);
        raft.read_index().await.unwrap();
        assert_eq!(seen.all(), [7, 8, 9]);
        let committed = raft.committed();
        assert_eq!((committed.term, committed.index), (1, 3), "membership, blank, two commands");
        assert_eq!(raft.voters().into_keys().collect::<Vec<_>>(), [1]);
        let second = start(&disk.process(), small(1)).await.expect_err("the folder is taken");
        assert!(second.to_string().contains("raft.lock"), "{second}");
    });
}

#[test]
fn replays_after_kill_and_power_loss() {
    run(async {
        let disk = CrashDisk::new(1);
        for round in 0..6 {
            let (raft, seen) = start_ready(&disk).await;
            assert_eq!(seen.all(), (0..round * 100).collect::<Vec<_>>());
            let leadership = *raft.leadership().borrow();
            assert_eq!(leadership, Leadership::Leader { term: round + 1, ready: true }, "a term of its own");
            for number in 0..100 {
                raft.propose(vec![round * 100 + number]).await.unwrap();
            }
            if round % 2 == 1 {
                raft.compact_now().await.unwrap();
            }
            disk.crash(if round % 3 == 0 { Crash::Kill } else { Crash::PowerLoss });
        }
    });
}

#[test]
fn proposals_share_syncs() {
    run(async {
        let disk = CrashDisk::new(1);
        let (raft, seen) = start_ready(&disk).await;
        let before = disk.count(CallKind::Sync);
        let proposals: Vec<_> = (0..500)
            .map(|number| {
                let raft = raft.clone();
                tokio::spawn(async move { raft.propose(vec![number]).await.unwrap() })
            })
            .collect();
        for proposal in proposals {
            proposal.await.unwrap();
        }
        assert_eq!(seen.all().len(), 500);
        let syncs = disk.count(CallKind::Sync) - before;
        assert!(syncs < 100, "{syncs} syncs for 500 proposals");
    });
}

#[test]
fn the_log_is_cut_behind_what_is_synced() {
    run(async {
        let disk = CrashDisk::new(1);
        let options = RaftOptions { sync_every_commands: 50, ..small(1) };
        let (raft, _) = start(&disk.process(), options).await.unwrap();
        ready(&raft).await;
        for number in 0..2000 {
            raft.propose(vec![number]).await.unwrap();
            if number % 50 == 0 {
                // Virtual time moves while all wait, and openraft waits a microsecond before it hears of a sync.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let logs = || {
            let left = disk.process().list(Path::new(FOLDER)).unwrap();
            left.iter().filter(|entry| entry.name.to_string_lossy().starts_with("log-")).count()
        };
        assert!((1..=4).contains(&logs()), "{} segments", logs());
        raft.compact_now().await.unwrap();
        assert_eq!(logs(), 1);
        disk.crash(Crash::PowerLoss);
        let (_raft, seen) = start_ready(&disk).await;
        assert_eq!(seen.all().len(), 2000);
    });
}

#[test]
fn large_commands_get_through() {
    run(async {
        let disk = CrashDisk::new(1);
        let (raft, _) = start_ready(&disk).await;
        for size in [1usize, 1000, 50_000, 3] {
            raft.propose(vec![u64::MAX; size]).await.unwrap();
        }
        disk.crash(Crash::Kill);
        let (_raft, seen) = start_ready(&disk).await;
        assert_eq!(seen.all().len(), 51_004);
    });
}

#[test]
fn a_clean_shutdown_leaves_nothing_to_replay() {
    run(async {
        let disk = CrashDisk::new(1);
        let (raft, _) = start_ready(&disk).await;
        raft.propose(vec![1]).await.unwrap();
        raft.shutdown().await;
        assert!(matches!(raft.propose(vec![9]).await, Err(ProposeError::Stopped { .. })));
        assert_eq!(raft.stopped().borrow().as_deref(), Some("shut down"));
        // The old handle is still there; the log and the machine are free.
        let (again, _) = start_ready(&disk).await;
        again.propose(vec![2]).await.unwrap();
        again.shutdown().await;
        disk.crash(Crash::PowerLoss);
        let process = disk.process();
        let (_, seen) = Toy::open(&process, Path::new("/toy"));
        assert_eq!(seen.all(), [1, 2]);
    });
}

/// Alone, its log answers. Once another voter is to be heard, that is not enough: nothing is answered or applied that the
/// other one has not.
#[test]
fn who_is_not_alone_any_more_answers_nothing_alone() {
    run(async {
        let disk = CrashDisk::new(1);
        let (raft, seen) = start_ready(&disk).await;
        for number in 0..10 {
            assert_eq!(raft.propose(vec![number]).await.unwrap(), [number as usize]);
        }
        let voters = std::collections::BTreeMap::from([(1, String::new()), (2, "nobody".to_owned())]);
        let growing = tokio::time::timeout(Duration::from_secs(5), raft.set_voters(voters));
        assert!(growing.await.is_err(), "there is no way to the other one");
        let alone = tokio::time::timeout(Duration::from_secs(5), raft.propose(vec![10])).await;
        assert!(!matches!(alone, Ok(Ok(_))), "{alone:?}");
        assert_eq!(seen.all(), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_failing_machine_stops_the_node() {
    run(async {
        let disk = CrashDisk::new(1);
        let process = disk.process();
        let (toy, _) = Toy::open(&process, Path::new("/toy"));
        let toy = toy.failing_at(13);
        let raft = Raft::start(&env(1), process, FOLDER.into(), small(1), toy).await.unwrap();
        ready(&raft).await;
        raft.propose(vec![12]).await.unwrap();
        let why = raft.propose(vec![13]).await.unwrap_err();
        assert!(matches!(&why, ProposeError::Stopped { why } if why.contains("cannot stand 13")), "{why}");
        assert!(raft.propose(vec![14]).await.is_err());
        let stopped = raft.stopped().borrow().clone();
        assert!(stopped.unwrap().contains("cannot stand 13"));
        assert!(raft.read_index().await.is_err());
    });
}

#[test]
fn options_that_make_no_sense_are_refused() {
    run(async {
        let disk = CrashDisk::new(1);
        let options = RaftOptions { node: 9, ..small(1) };
        let error = start(&disk.process(), options).await.err().unwrap();
        assert!(error.to_string().contains("node 9"), "{error}");
        start_ready(&disk).await;
        disk.crash(Crash::Kill);
        let error = start(&disk.process(), small(2)).await.err().unwrap();
        assert!(error.to_string().contains("node 1, not of node 2"), "{error}");
    });
}

/// Real files, real threads, and a process that ends without a word.
#[test]
fn on_real_files() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::new();
    let life = |round: u64| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (raft, seen) = start_real(&disk, folder.path()).await;
            let mut numbers = seen.all();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..round * 300).collect::<Vec<_>>());
            let proposals: Vec<_> = (round * 300..round * 300 + 300)
                .map(|number| {
                    let raft = raft.clone();
                    tokio::spawn(async move { raft.propose(vec![number]).await.unwrap() })
                })
                .collect();
            for proposal in proposals {
                proposal.await.unwrap();
            }
            if round == 1 {
                raft.compact_now().await.unwrap();
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
    };
    (0..4).for_each(life);
}

async fn start_real(disk: &DiskRef, folder: &Path) -> (Raft<Toy>, Seen) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let (raft, seen) = loop {
        let (toy, seen) = Toy::open(disk, &folder.join("toy"));
        let options = RaftOptions { segment_bytes: 1 << 16, ..RaftOptions::alone(1) };
        let env = mobula_net::Env::real();
        match Raft::start(&env, disk.clone(), folder.join("raft"), options, toy).await {
            Ok(raft) => break (raft, seen),
            // The writer of the life before may be in the middle of a sync, and then keeps the folder.
            Err(error) if error.to_string().contains("raft.lock") => {
                assert!(std::time::Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    ready(&raft).await;
    (raft, seen)
}

/// A sync that is under way when somebody asks for one may be of a state from before: it does not count for him, and
/// he must not wait for one that nobody begins. On real threads: what matters is who comes between a sync and its
/// being known.
#[test]
fn who_asks_for_a_sync_while_another_one_is_made_gets_his_own() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let (raft, _) = start_real(&RealDisk::new(), folder.path()).await;
        for number in 0..200 {
            let before = raft.committed();
            let proposed = tokio::spawn({
                let raft = raft.clone();
                async move { raft.propose(vec![number]).await }
            });
            let ask = || {
                let raft = raft.clone();
                tokio::spawn(async move { raft.compact_now().await })
            };
            let first = ask();
            while raft.committed() == before {
                tokio::task::yield_now().await;
            }
            for asked in [first, ask()] {
                let answered = tokio::time::timeout(Duration::from_secs(30), asked).await;
                answered.unwrap_or_else(|_| panic!("round {number}: no answer")).unwrap().unwrap();
            }
            proposed.await.unwrap().unwrap();
        }
    });
}
