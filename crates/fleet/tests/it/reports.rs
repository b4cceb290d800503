//! Reports and news that overtake each other, where a scenario cannot say it.

use mobula_fleet::{FleetConfig, ReceivedDeleted, ReplicaNews};
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

/// A copy has just been made, and somebody finds it bad before its node tells of it: that word, which is of an expected copy,
/// does not make it good.
#[test]
fn a_bad_copy_is_known_before_its_own_word() {
    let mut world = World::with_nodes(1, 4);
    let block = world.write(3, 1 << 20, Some(vec![0, 1, 2])).unwrap();
    world.advance(1_000);
    world.nodes[3].mute = true;
    world.kill(2);
    while world.find(3, block.id).is_none() {
        assert!(world.now < 60_000, "nobody copies");
        world.advance(100);
    }
    world.rot(3, block.id);
    world.call_bad(3, block);
    world.nodes[3].mute = false;
    let word = ReceivedDeleted { block, news: ReplicaNews::Received, delete_hint: None };
    world.nodes[3].news.push((0, word));
    world.advance(10_000);
    assert!(world.fleet.health().healed, "{:?}", world.fleet.health());
    assert_eq!(world.is_healed(), Ok(()));
    assert_eq!(world.find(3, block.id).map(|replica| replica.rotten), Some(false), "it was copied again");
}

/// Of a block that was closed under a new stamp one node has told the old one only, and somebody finds the new one bad there.
#[test]
fn a_bad_replica_is_known_before_the_word_of_its_stamp() {
    let mut world = World::with_nodes(1, 4);
    let id = world.open_block(3, vec![0, 1, 2]).id;
    world.advance(1_000);
    assert!(world.flush(id, 1_000));
    world.nodes[0].cut = true;
    assert!(world.close_block(id));
    world.nodes[2].cut = true;
    world.advance(1_000);
    assert!(!world.is_open(id), "one node has told that it is done");
    let block = world.table.rows[&id].block;
    world.rot(2, id);
    world.call_bad(2, block);
    (world.nodes[0].cut, world.nodes[2].cut) = (false, false);
    world.advance(30_000);
    assert!(world.fleet.health().healed, "{:?}", world.fleet.health());
    assert_eq!(world.is_healed(), Ok(()));
}

/// A node gets orders to delete its bad replica and does not obey: it comes to its senses after the last one.
#[test]
fn a_bad_replica_that_is_not_deleted_stays_bad() {
    let mut world = World::with_nodes(1, 4);
    let block = world.write(2, 1 << 20, Some(vec![0, 1])).unwrap();
    world.advance(1_000);
    world.rot(0, block.id);
    world.nodes[0].deaf = true;
    world.call_bad(0, block);
    world.advance(200_000);
    assert!(world.fleet.health().healed, "{:?}", world.fleet.health());
    assert_eq!(world.is_healed(), Ok(()), "what its reports say is no proof");
    world.nodes[0].deaf = false;
    world.advance(60_000);
    assert_eq!(world.find(0, block.id), None);
    assert_eq!(world.is_healed(), Ok(()));
}

/// A node takes a block and its writer's bytes and dies before it has told of it; the disk of the other one fails. That nobody told
/// of a replica is no proof that there is none: the block is not dropped, and the dead node brings it back.
#[test]
fn a_block_is_not_dropped_before_the_word_of_it_could_come() {
    let mut world = World::with_nodes(1, 4);
    let id = world.open_block(2, vec![0, 1]).id;
    assert!(world.flush(id, 1_000));
    world.kill(1);
    world.nodes[0].volumes[0].failed = true;
    world.recover(id);
    world.advance(60_000);
    assert!(world.is_open(id));
    world.start(1);
    world.advance(120_000);
    assert_eq!(world.table.rows[&id].block.length, 1_000);
    assert!(world.fleet.health().healed, "{:?}", world.fleet.health());
    assert_eq!(world.is_healed(), Ok(()));
}
