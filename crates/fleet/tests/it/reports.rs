//! Reports and news that overtake each other, where a scenario cannot say it.

use mobula_fleet::FleetConfig;
use mobula_types::Millis;

use crate::world::{World, storage, uuid};

/// News of a volume that was already read comes while the node's other volume is read. That is over with the report:
/// what the next one does not have is gone.
#[test]
fn news_between_two_volumes_of_a_report_do_not_outlive_it() {
    let mut world = World::new(1, FleetConfig::default());
    world.add_node(2);
    world.advance(5_000);
    world.nodes[0].report_delay = 60_000;
    world.nodes[0].reported = false;
    while world.nodes[0].report.is_none() {
        world.advance(100);
    }
    let (_, lease, volumes) = world.nodes[0].report.take().unwrap();
    world.nodes[0].reported = true;
    let take = |world: &mut World, number: usize| {
        let (now, last) = (Millis(world.now), number == 1);
        let (node, storage) = (uuid(0), storage(0, number));
        world
            .fleet
            .on_full_report(now, &node, &storage, &volumes[number], lease, last, &world.table)
            .unwrap();
    };
    take(&mut world, 0);
    let block = world.write(1, 1 << 20, Some(vec![0])).unwrap();
    world.advance(100);
    take(&mut world, 1);
    let places = |world: &World| world.fleet.locations(Millis(world.now), block.id, "").replicas.len();
    assert_eq!(places(&world), 1);
    world.nodes[0].volumes[0].replicas.remove(&block.id);
    world.nodes[0].report_delay = 0;
    world.nodes[0].reported = false;
    world.advance(5_000);
    assert_eq!(places(&world), 0, "the node has said that it is not there");
}
