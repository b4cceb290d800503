//! A thousand DataNodes and a week of failures in virtual time, in seconds, twice the same.

use mobula_fleet::{FleetConfig, PlacementRequest, ReceivedDeleted, ReplicaNews};
use mobula_types::{Block, Millis};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::world::World;

const NODES: usize = 1_000;
const WEEK_MS: u64 = 7 * 24 * 3_600_000;
/// Beats are this far apart, so that a week has a number of them that a test can make.
const BEAT_MS: u64 = 60_000;

/// Nodes die and return all week, a few at a time; nothing may be lost, and all is whole at the end.
fn week(seed: u64, ms: u64) -> (u64, u64, u64) {
    let config = FleetConfig {
        heartbeat_ms: Millis(BEAT_MS),
        suspect_ms: Millis(BEAT_MS * 5 / 2),
        dead_ms: Millis(BEAT_MS * 10),
        order_expiry_ms: Millis(BEAT_MS * 4),
        start_delay_ms: Millis(BEAT_MS * 5),
        ..FleetConfig::default()
    };
    let mut world = World::new(seed, config);
    world.step_ms = BEAT_MS;
    for index in 0..NODES {
        world.add_node(1);
        world.nodes[index].beat_ms = BEAT_MS;
    }
    // All leases are given out, six at a time.
    world.advance(BEAT_MS * 200);
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..2_000 {
        world.write(3, 1 << 20, None).unwrap();
    }
    let mut down: Vec<(u64, usize)> = Vec::new();
    let end = world.now + ms;
    let mut deaths = 0;
    while world.now < end {
        if random.random_range(0..20) == 0 && down.len() < 20 {
            let node = random.random_range(0..NODES);
            if world.nodes[node].up {
                world.kill(node);
                deaths += 1;
                down.push((world.now + random.random_range(1..60) * BEAT_MS, node));
            }
        }
        down.retain(|(due, node)| {
            let stays = *due > world.now;
            if !stays {
                world.start(*node);
            }
            stays
        });
        world.advance(BEAT_MS);
    }
    for (_, node) in down {
        world.start(node);
    }
    world.advance(BEAT_MS * 60);
    assert!(world.fleet.health().healed, "{:?}", world.fleet.health());
    assert_eq!(world.is_healed(), Ok(()));
    assert_eq!(world.fleet.stats().missing, 0);
    (world.trace, deaths, world.ordered_copies)
}

#[test]
fn a_thousand_nodes_and_a_week_of_failures() {
    let (trace, deaths, copies) = week(11, WEEK_MS);
    assert!(deaths > 300 && copies > 500, "{deaths} deaths, {copies} copies: that was no week of failures");
    let short = WEEK_MS / 14;
    assert_eq!(week(12, short), week(12, short), "the same seed leaves the same trace");
    assert_ne!(week(12, short).0, week(13, short).0);
    assert_ne!(trace, 0);
}

#[test]
fn a_node_with_many_blocks_dies_and_its_blocks_are_found_in_slices() {
    let mut world = World::with_nodes(3, 4);
    for block in 0..100_000 {
        world.write(2, 1 << 10, Some(vec![block % 4, (block + 1) % 4])).unwrap();
    }
    world.advance(5_000);
    assert!(world.fleet.health().healed);
    world.kill(0);
    world.advance(10_500);
    let stats = world.fleet.stats();
    assert!(stats.under_replicated + stats.pending_copies > 40_000, "{stats:?}");
    assert!(world.fleet.map_memory() < 100_000 * 25, "{}", world.fleet.map_memory());
    world.start(0);
    world.advance(20_000);
    // It is back: most was never handed out.
    assert!(world.ordered_copies < 10_000, "{}", world.ordered_copies);
    assert!(world.fleet.health().healed, "{:?}", world.fleet.health());
}

#[test]
fn placement_keeps_its_promises() {
    let mut world = World::new(5, FleetConfig::default());
    for _ in 0..6 {
        world.add_node(2);
    }
    world.advance(5_000);
    let now = Millis(world.now);
    let base = PlacementRequest { replicas: 3, block_size: 1 << 20, ..PlacementRequest::default() };
    for _ in 0..50 {
        let local = PlacementRequest { client_machine: "host4".into(), ..base.clone() };
        let targets = world.fleet.place(now, &local).targets;
        assert_eq!(targets[0].datanode.as_str(), "dn4", "the writer's own machine is first");
        let mut names: Vec<_> = targets.iter().map(|target| target.datanode.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3, "distinct nodes");

        let away = PlacementRequest { no_local: true, ..local.clone() };
        let targets = world.fleet.place(now, &away).targets;
        assert!(targets.iter().all(|target| target.datanode.as_str() != "dn4"));

        let excluded = PlacementRequest { excluded: vec!["dn1".into(), "dn4".into()], ..local };
        let placement = world.fleet.place(now, &excluded);
        assert_eq!((placement.live, placement.excluded), (6, 2));
        assert!(placement.targets.iter().all(|t| !["dn1", "dn4"].contains(&t.datanode.as_str())));

        let favored = PlacementRequest { favored: vec!["10.0.0.6:9866".into()], ..base.clone() };
        assert!(world.fleet.place(now, &favored).targets.iter().any(|t| t.datanode.as_str() == "dn6"));

        let more = PlacementRequest { replicas: 9, existing: targets.clone(), ..base.clone() };
        let added = world.fleet.place(now, &more).targets;
        assert_eq!(added.len(), 3, "what is left");
        assert!(added.iter().all(|target| targets.iter().all(|old| old.datanode != target.datanode)));
    }
    let huge = PlacementRequest { block_size: crate::world::DISK_BYTES + 1, ..base };
    assert!(world.fleet.place(now, &huge).targets.is_empty());
}

/// A thousand small files in one beat: room is set aside for a whole block of each only until it has come.
#[test]
fn small_files_do_not_fill_a_disk_that_has_room() {
    let mut world = World::with_nodes(6, 3);
    let now = Millis(world.now);
    let block_size = crate::world::DISK_BYTES / 4;
    let request = PlacementRequest { replicas: 3, block_size, ..PlacementRequest::default() };
    for round in 0..1_000 {
        let targets = world.fleet.place(now, &request).targets;
        assert_eq!(targets.len(), 3, "file {round}");
        let block = world.allocate(3, &[]).unwrap();
        let block = Block { length: 100_000, ..block };
        world.commit(block, 3);
        for target in targets {
            let news = ReceivedDeleted { block, news: ReplicaNews::Received, delete_hint: None };
            world.fleet.on_received_deleted(now, &target.datanode, &target.storage, &[news], &world.table);
        }
    }
    // Blocks that have not come yet keep their room.
    for expected in [3, 3, 3, 0] {
        assert_eq!(world.fleet.place(now, &request).targets.len(), expected);
    }
}
