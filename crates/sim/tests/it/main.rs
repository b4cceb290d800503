//! A few seeds, each twice, and written plans for the faults that once lost or stopped something.
#![allow(clippy::unwrap_used)]

use mobula_sim::{Fault, Keep, Node, Piece, compare, pairs, run, run_piece, run_plan};

/// Seeds of the quick test; CI runs many more with the binary.
const SEEDS: u64 = 5;
const NN: Node = Node::Namenode;
const DN: [Node; 3] = [Node::Datanode(0), Node::Datanode(1), Node::Datanode(2)];

#[test]
fn some_seeds_lose_nothing_and_leave_the_same_trace_twice() {
    for seed in 0..SEEDS {
        let once = run(seed, Keep::Last).unwrap_or_else(|failure| panic!("{failure:#?}"));
        let again = run(seed, Keep::Last).unwrap_or_else(|failure| panic!("{failure:#?}"));
        assert_eq!(once, again, "seed {seed}: {:?}", compare(seed));
        assert!(once.changes.0 > 20, "seed {seed}: only {once:?}");
    }
}

/// Seeds that found something, with what was wrong. Whoever changes what a seed draws makes them ordinary ones; the
/// tests of the crate that was wrong go on guarding.
const FOUND: [(u64, &str); 6] = [
    (6, "a file stayed open: a primary that found no byte was not believed, for it had reported some before"),
    (21, "a DataNode waited a minute to register, and a recovery did without the bytes that only it had"),
    (
        131,
        "a file stayed open: DataNodes do not tell of the stamp that their pipeline went on under, and counted as stale",
    ),
    (768, "the disk failed, and a view whose tables nobody had opened yet could not be read any more"),
    (1_030, "the disk failed under the second machine's own look at the tables, not under the NameNode"),
    (
        24_468,
        "a reader was sent only to the node that had lost the open block; the other one was taken for dead",
    ),
];

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    for (seed, what) in FOUND {
        run(seed, Keep::Last).unwrap_or_else(|failure| panic!("once {what}: {failure:#?}"));
    }
}

/// Runs a plan twice.
fn hold(faults: &[(u64, Fault)]) {
    let once = run_plan(0, DN.len(), faults.to_vec()).unwrap_or_else(|failure| panic!("{failure:#?}"));
    let again = run_plan(0, DN.len(), faults.to_vec()).unwrap_or_else(|failure| panic!("{failure:#?}"));
    assert_eq!(once, again);
}

/// The log was read back from the page cache after a failed sync, and written on behind a batch that
/// no disk had: gone with the power, and all behind it.
#[test]
fn a_failed_sync_of_the_log_then_a_restart_then_power_loss() {
    hold(&[(3_000, Fault::FailSync(NN, 24)), (9_000, Fault::FailSync(NN, 11))]);
}

/// Heartbeats went on for a minute over a connection that had lost a message.
#[test]
fn a_short_cut_between_the_namenode_and_a_datanode() {
    hold(&[
        (4_000, Fault::Cut(NN, DN[1])),
        (4_300, Fault::Mend(NN, DN[1])),
        (9_000, Fault::Cut(DN[2], NN)),
        (9_600, Fault::Mend(DN[2], NN)),
    ]);
}

/// Clients that waited for a DataNode to hear which pool is its own were let in in any order.
#[test]
fn all_datanodes_at_once() {
    hold(&[
        (3_000, Fault::PowerLoss(DN[0])),
        (3_000, Fault::Kill(DN[1])),
        (3_000, Fault::PowerLoss(DN[2])),
        (3_100, Fault::Restart(DN[1])),
        (3_200, Fault::Restart(DN[0])),
        (3_700, Fault::Restart(DN[2])),
    ]);
}

#[test]
fn a_full_disk_of_each() {
    hold(&[
        (2_000, Fault::Full(DN[0], 100_000)),
        (4_000, Fault::Full(NN, 100_000)),
        (9_000, Fault::Room(NN)),
        (15_000, Fault::Room(DN[0])),
    ]);
}

/// Broken off in the quick test, of each piece of work; `mobula-sim --pairs` does all.
const PAIRS: usize = 25;

#[test]
fn pairs_of_messages_broken_off_lose_nothing() {
    for piece in Piece::ALL {
        let (messages, whole) =
            run_piece(piece, &[], Keep::Last).unwrap_or_else(|failure| panic!("{failure:#?}"));
        assert!(whole && messages.len() > 5, "{piece}: {messages:?}");
        let all = pairs(&messages);
        for victims in all.iter().step_by(all.len().div_ceil(PAIRS)) {
            if let Err(failure) = run_piece(piece, victims, Keep::Last) {
                panic!("{piece} without {victims:?}: {failure:#?}");
            }
        }
    }
}
