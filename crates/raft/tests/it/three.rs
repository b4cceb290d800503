//! Three voters in one process, over a network in memory that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mobula_disk::fake::{Crash, CrashDisk};
use mobula_raft::{FirstStart, Leadership, Peers, ProposeError, Raft, RaftOptions};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{Seen, Toy, ready, run, small, start, until};

#[derive(Default)]
struct Wires {
    nodes: BTreeMap<u64, Raft<Toy>>,
    cut: BTreeSet<(u64, u64)>,
    calls: BTreeMap<&'static str, u64>,
}

#[derive(Clone)]
struct Wire {
    from: u64,
    wires: Arc<Mutex<Wires>>,
}

impl Peers for Wire {
    fn send(
        &self,
        to: u64,
        _address: String,
        method: &'static str,
        request: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>> {
        let (from, wires) = (self.from, self.wires.clone());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let node = {
                let mut wires = wires.lock();
                *wires.calls.entry(method).or_default() += 1;
                let open = !wires.cut.contains(&(from, to));
                wires.nodes.get(&to).filter(|_| open).cloned().ok_or(format!("{to} is not there"))?
            };
            let answer = node.receive(method, request).await?;
            if wires.lock().cut.contains(&(to, from)) {
                return Err("the answer was lost".to_owned());
            }
            Ok(answer)
        })
    }
}

/// Three nodes, their disks and what their machines hold.
struct Three {
    wires: Arc<Mutex<Wires>>,
    disks: BTreeMap<u64, CrashDisk>,
    seen: BTreeMap<u64, Seen>,
}

impl Three {
    async fn start(seed: u64) -> Three {
        let disks = (1..=3).map(|node| (node, CrashDisk::new(seed * 10 + node))).collect();
        let mut three = Three { wires: Arc::default(), disks, seen: BTreeMap::new() };
        for node in 1..=3 {
            three.boot(node, seed).await;
        }
        three
    }

    async fn boot(&mut self, node: u64, _seed: u64) {
        let voters = (1..=3).map(|node| (node, format!("node-{node}"))).collect();
        let wire = Wire { from: node, wires: self.wires.clone() };
        let options = RaftOptions {
            keep_entries: 0,
            segment_bytes: 4096,
            cache_bytes: 1024,
            ..RaftOptions::among(node, voters, Arc::new(wire))
        };
        let (raft, seen) = start(&self.disks[&node].process(), options).await.unwrap();
        self.wires.lock().nodes.insert(node, raft);
        self.seen.insert(node, seen);
    }

    fn crash(&mut self, node: u64, crash: Crash) {
        let raft = self.wires.lock().nodes.remove(&node);
        self.disks[&node].crash(crash);
        drop(raft);
    }

    fn node(&self, node: u64) -> Raft<Toy> {
        self.wires.lock().nodes[&node].clone()
    }

    fn isolate(&self, node: u64) {
        let mut wires = self.wires.lock();
        for other in (1..=3).filter(|other| *other != node) {
            wires.cut.extend([(node, other), (other, node)]);
        }
    }

    fn heal(&self) {
        self.wires.lock().cut.clear();
    }

    fn leader_among(&self, nodes: &[u64]) -> Option<u64> {
        let wires = self.wires.lock();
        let ready =
            |node: &&u64| wires.nodes.get(node).is_some_and(|raft| raft.leadership().borrow().is_ready());
        nodes.iter().find(ready).copied()
    }

    async fn leader(&self, nodes: &[u64]) -> u64 {
        until("a leader", || self.leader_among(nodes).is_some()).await;
        self.leader_among(nodes).unwrap()
    }

    async fn same_everywhere(&self, count: usize) {
        until("all nodes hold the same", || {
            let all: Vec<_> = self.seen.values().map(Seen::all).collect();
            all.iter().all(|one| one.len() >= count && one == &all[0])
        })
        .await;
    }
}

#[test]
fn three_agree_and_keep_who_they_are() {
    run(async {
        let mut three = Three::start(1).await;
        let leader = three.leader(&[1, 2, 3]).await;
        for number in 0..50 {
            three.node(leader).propose(vec![number]).await.unwrap();
        }
        three.node(leader).read_index().await.unwrap();
        three.same_everywhere(50).await;
        let other = if leader == 1 { 2 } else { 1 };
        assert_eq!(
            three.node(other).propose(vec![1]).await,
            Err(ProposeError::NotLeader { leader: Some(leader) })
        );
        assert_eq!(
            three.node(other).read_index().await,
            Err(ProposeError::NotLeader { leader: Some(leader) })
        );
        for node in 1..=3 {
            three.crash(node, Crash::PowerLoss);
        }
        for node in 1..=3 {
            three.boot(node, 1).await;
        }
        let leader = three.leader(&[1, 2, 3]).await;
        let voters: Vec<_> = three.node(leader).voters().into_iter().collect();
        assert_eq!(voters, [(1, "node-1".into()), (2, "node-2".into()), (3, "node-3".into())]);
        three.same_everywhere(50).await;
    });
}

#[test]
fn an_isolated_leader_acknowledges_nothing_and_comes_back_clean() {
    run(async {
        let three = Three::start(2).await;
        let old = three.leader(&[1, 2, 3]).await;
        three.node(old).propose(vec![1]).await.unwrap();
        three.isolate(old);
        let lone = three.node(old);
        let lost: Vec<_> = (100..140)
            .map(|number| {
                let lone = lone.clone();
                tokio::spawn(async move { lone.propose(vec![number]).await })
            })
            .collect();
        let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
        let new = three.leader(&others).await;
        for number in 2..60 {
            three.node(new).propose(vec![number]).await.unwrap();
        }
        assert!(lone.read_index().await.is_err(), "a leader without a majority reads nothing");
        three.heal();
        three.same_everywhere(59).await;
        assert_eq!(three.seen[&old].all(), (1..60).collect::<Vec<_>>());
        for one in lost {
            assert!(one.await.unwrap().is_err());
        }
        let follows = Leadership::Follower { leader: Some(new) };
        until("the old leader follows", || *three.node(old).leadership().borrow() == follows).await;
    });
}

/// CASES 7: who was away for longer than the log reaches back gets a snapshot, and keeps it.
#[test]
fn who_lags_gets_a_snapshot() {
    run(async {
        let mut three = Three::start(3).await;
        let leader = three.leader(&[1, 2, 3]).await;
        let [other, away] = [1, 2, 3].into_iter().filter(|node| *node != leader).collect::<Vec<_>>()[..]
        else {
            unreachable!()
        };
        three.node(leader).propose(vec![0]).await.unwrap();
        three.same_everywhere(1).await;
        three.isolate(away);
        three.disks[&away].record();
        for number in 1..400 {
            three.node(leader).propose(vec![number]).await.unwrap();
        }
        until("the other one has all", || three.seen[&other].all().len() == 400).await;
        // openraft's leader keeps what a silent follower may still want; followers cut.
        three.node(other).compact_now().await.unwrap();
        three.crash(leader, Crash::PowerLoss);
        three.heal();
        assert_eq!(three.leader(&[other, away]).await, other);
        for number in 400..420 {
            three.node(other).propose(vec![number]).await.unwrap();
        }
        three.boot(leader, 3).await;
        three.same_everywhere(420).await;
        assert!(three.wires.lock().calls["snapshot"] > 0, "by entries alone");
        let recording = three.disks[&away].recorded();
        three.crash(away, Crash::PowerLoss);
        three.boot(away, 3).await;
        for number in 420..500 {
            let leader = three.leader(&[1, 2, 3]).await;
            three.node(leader).propose(vec![number]).await.unwrap();
        }
        three.same_everywhere(500).await;
        assert_eq!(three.node(away).voters().len(), 3);
        every_crash_while_catching_up(&recording, away).await;
    });
}

/// Whenever it crashed while it caught up, it starts again and holds a beginning of what is true.
async fn every_crash_while_catching_up(recording: &mobula_disk::fake::Recording, node: u64) {
    let voters: BTreeMap<u64, String> = (1..=3).map(|node| (node, format!("node-{node}"))).collect();
    let mut lengths = BTreeSet::new();
    for image in recording.images(2) {
        let options = RaftOptions {
            segment_bytes: 4096,
            ..RaftOptions::among(node, voters.clone(), Arc::new(mobula_raft::NoPeers))
        };
        let started = start(&image.disk.process(), options).await;
        let (raft, seen) = started.unwrap_or_else(|error| panic!("{image:?}: {error}"));
        let seen = seen.all();
        assert_eq!(seen, (0..seen.len() as u64).collect::<Vec<_>>(), "{image:?}");
        assert_eq!(raft.voters().len(), 3, "{image:?}");
        lengths.insert(seen.len());
    }
    assert!(lengths.contains(&0) && lengths.iter().any(|length| *length >= 400), "{lengths:?}");
}

/// From one voter to three: configuration, not surgery.
#[test]
fn one_becomes_three() {
    run(async {
        let wires: Arc<Mutex<Wires>> = Arc::default();
        let disks: BTreeMap<u64, CrashDisk> = (1..=3).map(|node| (node, CrashDisk::new(node))).collect();
        let (raft, _) = start(&disks[&1].process(), small(1)).await.unwrap();
        ready(&raft).await;
        for number in 0..300 {
            raft.propose(vec![number]).await.unwrap();
        }
        raft.compact_now().await.unwrap();
        raft.shutdown().await;
        disks[&1].crash(Crash::Kill);

        let voters: BTreeMap<u64, String> = (1..=3).map(|node| (node, format!("node-{node}"))).collect();
        let mut seen = Vec::new();
        for node in 1..=3 {
            let wire = Wire { from: node, wires: wires.clone() };
            let options = RaftOptions {
                segment_bytes: 4096,
                first_start: FirstStart::Join,
                ..RaftOptions::among(node, voters.clone(), Arc::new(wire))
            };
            let (raft, one) = start(&disks[&node].process(), options).await.unwrap();
            wires.lock().nodes.insert(node, raft);
            seen.push(one);
        }
        let raft = wires.lock().nodes[&1].clone();
        ready(&raft).await;
        raft.set_voters(voters.clone()).await.unwrap();
        raft.propose(vec![300]).await.unwrap();
        until("all hold the same", || seen.iter().all(|one| one.all().len() == 301)).await;
        assert_eq!(raft.voters(), voters);
        drop(raft);
        wires.lock().nodes.clear();
        disks[&1].crash(Crash::Kill);
        let refused = start(&disks[&1].process(), small(1)).await.expect_err("it is not alone any more");
        assert!(refused.to_string().contains("[1, 2, 3] vote"), "{refused}");
    });
}

/// Crashes, cuts and cuts of the log at random; answers what happened, for comparing.
async fn storm(seed: u64) -> (Vec<u64>, Vec<u64>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut three = Three::start(seed).await;
    let (mut acked, mut next) = (Vec::new(), 0u64);
    for _ in 0..12 {
        match rng.random_range(0..5) {
            0 => three.isolate(rng.random_range(1..=3)),
            1 => {
                let node = rng.random_range(1..=3);
                three.crash(node, if rng.random() { Crash::Kill } else { Crash::PowerLoss });
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..5000))).await;
                three.boot(node, seed).await;
            }
            2 => three.heal(),
            _ => {
                if let Some(leader) = three.leader_among(&[1, 2, 3]) {
                    let limit = Duration::from_secs(5);
                    let _ = tokio::time::timeout(limit, three.node(leader).compact_now()).await;
                }
            }
        }
        for _ in 0..rng.random_range(1..20) {
            let Some(leader) = three.leader_among(&[1, 2, 3]) else {
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            };
            let raft = three.node(leader);
            let proposed = raft.propose(vec![next]);
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(400), proposed).await {
                acked.push(next);
            }
            next += 1;
        }
    }
    three.heal();
    // Who led before it was healed may still believe that it does.
    loop {
        let leader = three.leader(&[1, 2, 3]).await;
        match three.node(leader).propose(vec![u64::MAX]).await {
            Ok(_) => break,
            Err(ProposeError::Stopped { why }) => panic!("seed {seed}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    until("the last one is everywhere", || {
        three.seen.values().all(|seen| seen.all().last() == Some(&u64::MAX))
    })
    .await;
    let all: Vec<_> = three.seen.values().map(Seen::all).collect();
    assert!(all.iter().all(|one| one == &all[0]), "seed {seed}: {all:?}");
    let calls = three.disks.values().map(CrashDisk::calls);
    let trace = all[0].iter().copied().chain(calls).collect();
    for number in &acked {
        assert!(all[0].contains(number), "seed {seed}: {number} was acknowledged and is gone");
    }
    (acked, trace)
}

#[test]
fn storms_lose_nothing_and_replay_from_their_seed() {
    let mut acked = 0;
    for seed in 0..25 {
        let first = run(storm(seed));
        assert_eq!(first, run(storm(seed)), "seed {seed} does not replay");
        acked += first.0.len();
    }
    assert!(acked > 500, "only {acked} acknowledged: {}", small(1).segment_bytes);
}
