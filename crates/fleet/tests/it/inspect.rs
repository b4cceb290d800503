//! What administrators are told of single blocks.

use mobula_fleet::{Defect, FleetConfig};
use mobula_types::Block;

use crate::world::World;

fn world(nodes: usize) -> World {
    let mut world = World::new(1, FleetConfig::default());
    for _ in 0..nodes {
        world.add_node(1);
    }
    world.advance(60_000);
    world
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
