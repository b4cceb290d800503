//! What administrators are told of single blocks, and when a loss is final.

use mobula_fleet::{Defect, FleetConfig, LOST_AFTER_MS};
use mobula_types::{Block, Millis};

use crate::world::World;

fn world(nodes: usize) -> World {
    let mut world = World::new(1, FleetConfig::default());
    for _ in 0..nodes {
        world.add_node(1);
    }
    world.advance(60_000);
    world
}

fn is_final(world: &World) -> bool {
    world.fleet.losses_are_final(Millis(world.now))
}

#[test]
fn a_loss_is_final_once_nobody_can_come_back_with_it() {
    let mut world = world(2);
    world.write(1, 1 << 20, Some(vec![0])).unwrap();
    world.advance(5_000);
    assert!(is_final(&world), "all live and have reported");
    let dies = world.now;
    world.kill(0);
    world.advance(4_000);
    assert!(!is_final(&world), "it is suspect");
    world.advance(60_000);
    assert_eq!(world.fleet.stats().nodes_dead, 1);
    assert!(!is_final(&world), "it is dead, but may come back");
    while world.now < dies + LOST_AFTER_MS - 5_000 {
        world.advance(1_000);
        let early = world.now < dies + LOST_AFTER_MS - 1_000;
        assert!(!early || !is_final(&world), "after {} ms", world.now - dies);
    }
    world.advance(10_000);
    assert!(is_final(&world), "HDFS, too, calls it lost now");
    world.start(0);
    world.advance(20_000);
    assert!(is_final(&world), "it is back, and has reported");
}

#[test]
fn after_a_start_who_was_here_is_not_known() {
    let mut world = world(2);
    world.write(1, 1 << 20, Some(vec![0])).unwrap();
    world.advance(5_000);
    world.kill(0);
    world.restart_namenode();
    let begun = world.now;
    world.advance(120_000);
    assert_eq!((world.fleet.stats().nodes_live, world.fleet.stats().missing), (1, 1));
    assert!(!is_final(&world), "the node that is missing was never seen in this life");
    while world.now < begun + LOST_AFTER_MS {
        world.advance(10_000);
    }
    assert!(is_final(&world));
}

#[test]
fn a_start_with_all_blocks_there_needs_no_time() {
    let mut world = world(2);
    world.write(2, 1 << 20, Some(vec![0, 1])).unwrap();
    world.restart_namenode();
    world.advance(60_000);
    assert!(is_final(&world));
}

#[test]
fn replicas_one_by_one() {
    let mut world = world(3);
    let block = world.write(3, 1 << 20, Some(vec![0, 1, 2])).unwrap();
    world.advance(5_000);
    let replicas = world.fleet.replicas(block);
    assert_eq!(replicas.iter().filter(|replica| replica.counts()).count(), 3);
    world.call_bad(1, block);
    let replicas = world.fleet.replicas(block);
    let bad: Vec<_> = replicas.iter().filter_map(|replica| replica.bad).collect();
    assert_eq!(bad, [Defect::Reported]);
    world.kill(0);
    world.advance(4_000);
    let suspect = world.fleet.replicas(block).iter().filter(|replica| replica.suspect).count();
    assert_eq!(suspect, 1);
    world.advance(30_000);
    assert!(world.fleet.replicas(block).iter().all(|replica| !replica.suspect), "dead ones are not shown");
    assert!(world.fleet.replicas(Block::default()).is_empty());
}
