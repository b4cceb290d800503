//! One voter: what is acknowledged stays, whatever happens.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use mobula_disk::RealDisk;
use mobula_disk::fake::{CallKind, Crash, CrashDisk, Loss};
use mobula_raft::{Leadership, ProposeError, Raft, RaftOptions};

use crate::fixture::{FOLDER, Toy, env, ready, small, start, start_ready, until};

#[tokio::test]
async fn founds_itself_and_answers() {
    let disk = CrashDisk::new(1);
    let (raft, seen) = start_ready(&disk).await;
    assert_eq!(raft.propose(vec![7, 8]).await.unwrap(), [0, 1]);
    assert_eq!(raft.propose(vec![9]).await.unwrap(), [2]);
    raft.read_index().await.unwrap();
    assert_eq!(seen.all(), [7, 8, 9]);
    let committed = raft.committed();
    assert_eq!((committed.term, committed.index), (1, 3), "membership, blank, two commands");
    assert_eq!(raft.voters().into_keys().collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn replays_after_a_kill() {
    let disk = CrashDisk::new(1);
    for round in 0..5 {
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
        disk.crash(if round % 2 == 0 { Crash::Kill } else { Crash::PowerLoss });
    }
}
