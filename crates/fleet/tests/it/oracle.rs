//! Random events against an oracle that sees all disks. `World` checks each order as it is given:
//! no deletion of a last good replica, no copy from a dead or corrupt source.

use mobula_fleet::{FleetConfig, NodeState};
use mobula_types::BlockId;
use proptest::prelude::*;

use crate::world::{DISK_BYTES, World, uuid};
use crate::writing::Append;

#[derive(Clone, Debug)]
enum Event {
    Write { replication: u16 },
    Open { replication: u16, at: usize },
    Flush { block: usize, length: u64 },
    Close { block: usize },
    Append { block: usize, how: Append },
    Truncate { block: usize, length: u64 },
    Recover { block: usize },
    Breaks { node: usize },
    Part { node: usize, other: usize },
    Rejoin,
    Kill { node: usize },
    Start { node: usize },
    Cut { node: usize },
    Join { node: usize },
    Bad { block: usize, node: usize },
    SetReplication { block: usize, replication: u16 },
    Remove { block: usize },
    Mute { node: usize, mute: bool },
    Deaf { node: usize, deaf: bool },
    Full { node: usize, full: bool },
    Wipe { node: usize },
    FailVolume { node: usize, volume: usize, failed: bool },
    Report { node: usize },
    Delay { node: usize, ms: u64 },
    NameNode,
    Advance { ms: u64 },
}

const NODES: usize = 6;

fn event() -> impl Strategy<Value = Event> {
    let node = 0..NODES;
    let append = prop::sample::select(vec![Append::NewStamp, Append::SameStamp, Append::NeverBegun]);
    prop_oneof![
        4 => (1_u16..5).prop_map(|replication| Event::Write { replication }),
        3 => (1_u16..4, node.clone()).prop_map(|(replication, at)| Event::Open { replication, at }),
        4 => (any::<usize>(), 1_u64..100_000).prop_map(|(block, length)| Event::Flush { block, length }),
        2 => any::<usize>().prop_map(|block| Event::Close { block }),
        2 => (any::<usize>(), append).prop_map(|(block, how)| Event::Append { block, how }),
        1 => (any::<usize>(), 1_u64..100_000).prop_map(|(block, length)| Event::Truncate { block, length }),
        3 => any::<usize>().prop_map(|block| Event::Recover { block }),
        1 => node.clone().prop_map(|node| Event::Breaks { node }),
        1 => (node.clone(), node.clone()).prop_map(|(node, other)| Event::Part { node, other }),
        1 => Just(Event::Rejoin),
        3 => node.clone().prop_map(|node| Event::Kill { node }),
        4 => node.clone().prop_map(|node| Event::Start { node }),
        2 => node.clone().prop_map(|node| Event::Cut { node }),
        3 => node.clone().prop_map(|node| Event::Join { node }),
        3 => (any::<usize>(), node.clone()).prop_map(|(block, node)| Event::Bad { block, node }),
        2 => (any::<usize>(), 1_u16..5).prop_map(|(block, replication)| Event::SetReplication { block, replication }),
        1 => any::<usize>().prop_map(|block| Event::Remove { block }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, mute)| Event::Mute { node, mute }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, deaf)| Event::Deaf { node, deaf }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, full)| Event::Full { node, full }),
        1 => node.clone().prop_map(|node| Event::Wipe { node }),
        1 => (node.clone(), 0_usize..2, any::<bool>())
            .prop_map(|(node, volume, failed)| Event::FailVolume { node, volume, failed }),
        1 => node.clone().prop_map(|node| Event::Report { node }),
        1 => (node, 0_u64..3_000).prop_map(|(node, ms)| Event::Delay { node, ms }),
        1 => Just(Event::NameNode),
        8 => (100_u64..20_000).prop_map(|ms| Event::Advance { ms }),
    ]
}

fn pick(world: &World, choice: usize) -> Option<BlockId> {
    let committed: Vec<BlockId> =
        world.table.rows.values().filter(|row| row.committed).map(|row| row.block.id).collect();
    (!committed.is_empty()).then(|| committed[choice % committed.len()])
}

/// Does something to one of the committed, or of the open blocks.
fn with(world: &mut World, choice: usize, committed: bool, act: impl FnOnce(&mut World, BlockId) -> bool) {
    let of_kind = world.table.rows.values().filter(|row| row.committed == committed);
    let blocks: Vec<BlockId> = of_kind.map(|row| row.block.id).collect();
    if !blocks.is_empty() {
        act(world, blocks[choice % blocks.len()]);
    }
}

fn apply(world: &mut World, event: &Event) {
    match *event {
        Event::Write { replication } => {
            world.write(replication, 1 << 20, None);
        }
        Event::Open { replication, at } => {
            world
                .open_block(replication, (0..replication as usize).map(|next| (at + next) % NODES).collect());
        }
        Event::Flush { block, length } => with(world, block, false, |world, id| world.flush(id, length)),
        Event::Close { block } => with(world, block, false, |world, id| world.close_block(id)),
        Event::Append { block, how } => with(world, block, true, |world, id| world.append(id, how)),
        Event::Truncate { block, length } => with(world, block, true, |world, id| world.truncate(id, length)),
        Event::Recover { block } => with(world, block, false, |world, id| {
            world.recover(id);
            true
        }),
        Event::Breaks { node } => world.nodes[node].breaks = true,
        Event::Part { node, other } if node != other => {
            world.writing.parted.insert((node.min(other), node.max(other)));
        }
        Event::Part { .. } => {}
        Event::Rejoin => world.writing.parted.clear(),
        Event::Kill { node } => world.kill(node),
        Event::Start { node } => world.start(node),
        Event::Cut { node } => world.nodes[node].cut = true,
        Event::Join { node } => world.nodes[node].cut = false,
        Event::Bad { block, node } => bad(world, block, node),
        Event::SetReplication { block, replication } => {
            if let Some(id) = pick(world, block) {
                world.set_replication(id, replication);
            }
        }
        Event::Remove { block } => {
            if let Some(id) = pick(world, block) {
                world.remove(id);
            }
        }
        Event::Mute { node, mute } => world.nodes[node].mute = mute,
        Event::Deaf { node, deaf } => world.nodes[node].deaf = deaf,
        Event::Full { node, full } => world.nodes[node].remaining = if full { 0 } else { DISK_BYTES },
        Event::Wipe { node } => wipe(world, node),
        Event::FailVolume { node, volume, failed } => world.nodes[node].volumes[volume].failed = failed,
        Event::Report { node } => world.nodes[node].reported = false,
        Event::Delay { node, ms } => world.nodes[node].report_delay = ms / 100 * 100,
        Event::NameNode => {
            world.restart_namenode();
            for node in &mut world.nodes {
                node.registered = false;
            }
        }
        Event::Advance { ms } => {
            world.advance(ms / 100 * 100);
        }
    }
}

/// Rots a replica and tells, but never the last good one of all disks: nothing could be promised.
fn bad(world: &mut World, choice: usize, node: usize) {
    let Some(id) = pick(world, choice) else { return };
    let row = world.table.rows[&id];
    if world.good_on_disks(&row).count() < 2 || world.find(node, id).is_none() {
        return;
    }
    world.rot(node, id);
    world.call_bad(node, row.block);
}

/// Somebody clears the disks of one that is taken for dead, but for the last good replica of all disks. Of one that has just
/// died nobody can know yet.
fn wipe(world: &mut World, node: usize) {
    if world.nodes[node].up || world.fleet.node_state(&uuid(node)) != Some(NodeState::Dead) {
        return;
    }
    world.nodes[node].news.clear();
    for row in world.table.rows.values().filter(|row| row.committed).copied().collect::<Vec<_>>() {
        if world.good_on_disks(&row).any(|other| other != node) {
            for volume in &mut world.nodes[node].volumes {
                volume.replicas.remove(&row.block.id);
            }
        }
    }
}

fn run(seed: u64, events: &[Event]) -> Result<u64, TestCaseError> {
    let mut world = World::new(seed, FleetConfig::default());
    for _ in 0..NODES {
        world.add_node(2);
    }
    world.advance(3_000);
    for event in events {
        apply(&mut world, event);
    }
    // Everything is mended; then all must be whole again in bounded time.
    for index in 0..NODES {
        let node = &mut world.nodes[index];
        // A word that was lost for good comes with the periodic full report.
        (node.cut, node.mute, node.report_delay, node.reported) = (false, false, 0, false);
        (node.deaf, node.remaining) = (false, DISK_BYTES);
        node.volumes.iter_mut().for_each(|volume| volume.failed = false);
        node.breaks = false;
        world.start(index);
    }
    world.writing.parted.clear();
    world.advance(1_000);
    // All writers are gone.
    let open: Vec<BlockId> =
        world.table.rows.values().filter(|row| !row.committed).map(|row| row.block.id).collect();
    for id in &open {
        world.recover(*id);
    }
    // Blocks whose good replicas are all gone are beyond help: files with them are removed.
    let lost: Vec<BlockId> = world
        .table
        .rows
        .values()
        .filter(|row| row.committed && world.good_on_disks(row).next().is_none())
        .map(|row| row.block.id)
        .collect();
    for id in lost {
        world.remove(id);
    }
    let mut healed = false;
    for _ in 0..900 {
        world.advance(1_000);
        let closed = open.iter().all(|id| !world.is_open(*id));
        if closed && world.fleet.health().healed {
            prop_assert_eq!(world.is_healed(), Ok(()), "healed, it says");
            healed = true;
            break;
        }
    }
    prop_assert!(
        healed,
        "not healed and closed after 15 minutes: {:?} {:?} {:?} {:?}",
        world.writing,
        world.fleet.health(),
        world.fleet.under_replicated(3, &world.table),
        world.is_healed()
    );
    Ok(world.trace)
}

/// `ORACLE_CASES=20000 cargo test` runs it for long.
fn cases() -> u32 {
    std::env::var("ORACLE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(192)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_all_heals(seed in any::<u32>(), events in prop::collection::vec(event(), 1..60)) {
        let trace = run(u64::from(seed), &events)?;
        if seed % 8 == 0 {
            prop_assert_eq!(trace, run(u64::from(seed), &events)?, "the same seed leaves the same trace");
        }
    }
}
