//! Block recovery through the NameNode's own protocols: who is ordered, whose result is taken, and what a
//! start, a failed sync or a dead primary leaves of it (CASES 17 to 20, 23).

use std::io::ErrorKind;

use mobula_disk::fake::{CallKind, Loss};
use mobula_namenode::NamenodeError;
use mobula_proto::hdfs;
use mobula_types::{InodeId, ReplicaState};

use crate::fixture::*;

/// The id of the only recovery that the tables have.
fn running(fixture: &Fixture) -> Option<u64> {
    let open = fixture.namenode().service().view().open_files(InodeId(0), 10).unwrap();
    open.into_iter().find_map(|file| file.recovery).map(|recovery| recovery.id.0)
}

fn holders(block: &hdfs::LocatedBlockProto) -> Vec<&str> {
    let mut uuids: Vec<_> = block.locs.iter().map(|node| node.id.datanode_uuid.as_str()).collect();
    uuids.sort_unstable();
    uuids
}

/// A file `/f` whose writer flushed 100 bytes to three nodes and is gone, and whose recovery was ordered.
struct Recovering {
    client: Client,
    nodes: Vec<FakeNode>,
    block: hdfs::ExtendedBlockProto,
    /// Which of the nodes is to do it.
    primary: usize,
    order: hdfs::RecoveringBlockProto,
}

impl Recovering {
    async fn begin(fixture: &Fixture) -> Recovering {
        let mut nodes = fixture.three().await;
        let client = fixture.client("hdfs");
        let block = client.open("/f", &nodes, 100).await;
        assert!(!client.recover_lease("/f", "w2").await);
        let (primary, order) = ordered(&mut nodes, &block).await;
        Recovering { client, nodes, block, primary, order }
    }
}

/// A shorter replica of the same block.
fn cut(block: &hdfs::ExtendedBlockProto, length: u64) -> hdfs::ExtendedBlockProto {
    hdfs::ExtendedBlockProto { num_bytes: Some(length), ..block.clone() }
}

#[tokio::test]
async fn whom_the_primary_names_can_be_appended_to_before_they_say_a_word() {
    let fixture = Fixture::with(patient).await;
    let Recovering { client, nodes, block, primary, order } = Recovering::begin(&fixture).await;
    assert_eq!(order.new_gen_stamp, block.generation_stamp + 1);
    assert_eq!(order.block.b.generation_stamp, block.generation_stamp, "the stamp from before");
    assert_eq!(order.block.locs[0].id.datanode_uuid, nodes[primary].uuid, "the primary stands first");
    assert_eq!((order.block.locs.len(), order.truncate_block.is_none()), (3, true));

    let other = (primary + 1) % 3;
    nodes[primary].synchronize(&order, 120, &[&nodes[primary], &nodes[other]]).await.unwrap();
    assert!(client.is_closed("/f").await);
    let located = client.blocks("/f").await;
    let mut named = [nodes[primary].uuid.as_str(), nodes[other].uuid.as_str()];
    named.sort_unstable();
    assert_eq!(located.file_length, 120);
    assert_eq!(holders(&located.blocks[0]), named, "the third one's replica is stale");
    let appended: hdfs::AppendResponseProto = client.call("append", &append("/f", "w3")).await;
    let last = appended.block.unwrap();
    assert_eq!((last.b.generation_stamp, last.b.num_bytes), (order.new_gen_stamp, Some(120)));
    assert_eq!(holders(&last), named);
}

#[tokio::test]
async fn when_the_primary_dies_another_one_begins_and_the_first_ones_result_is_refused() {
    let fixture = Fixture::with(patient).await;
    let Recovering { client, mut nodes, block, primary, order: first } = Recovering::begin(&fixture).await;
    let dead = nodes.remove(primary);
    dead.fail().await;
    let (next, second) = ordered(&mut nodes, &block).await;
    assert!(second.new_gen_stamp > first.new_gen_stamp);
    assert_eq!(holders(&second.block), [nodes[0].uuid.as_str(), nodes[1].uuid.as_str()]);

    let (class, message) = dead.synchronize(&first, 100, &[&dead]).await.unwrap_err();
    assert_eq!(class, "IOException");
    let told = format!(
        "The recovery id {} does not match current recovery id {}",
        first.new_gen_stamp, second.new_gen_stamp
    );
    assert!(message.starts_with(&told), "{message}");
    assert!(!client.is_closed("/f").await);
    nodes[next].synchronize(&second, 110, &[&nodes[0], &nodes[1]]).await.unwrap();
    // Both say it again: it changes nothing.
    nodes[next].synchronize(&second, 110, &[&nodes[0], &nodes[1]]).await.unwrap();
    dead.synchronize(&first, 100, &[&dead]).await.unwrap();
    let located = client.blocks("/f").await;
    assert_eq!((located.file_length, located.under_construction), (110, false));
    assert_eq!(located.blocks[0].b.generation_stamp, second.new_gen_stamp);
    assert_eq!(holders(&located.blocks[0]).len(), 2);
}

#[tokio::test]
async fn a_namenode_that_starts_again_knows_the_recovery() {
    let mut fixture = Fixture::with(patient).await;
    let Recovering { client, mut nodes, block, primary, order } = Recovering::begin(&fixture).await;
    fixture.kill_and_restart_here().await;
    assert_eq!(running(&fixture), Some(order.new_gen_stamp));
    assert!(!client.recover_lease("/f", "w2").await);
    assert_eq!(running(&fixture), Some(order.new_gen_stamp), "asked again, not begun again");
    // Its primary never noticed, and says how it ended before it has registered.
    nodes[primary].synchronize(&order, 100, &[&nodes[0], &nodes[1], &nodes[2]]).await.unwrap();
    assert!(client.is_closed("/f").await);
    let mut done = cut(&block, 100);
    done.generation_stamp = order.new_gen_stamp;
    for node in &mut nodes {
        node.begin_again(std::slice::from_ref(&done), ReplicaState::Finalized).await;
    }
    assert_eq!(holders(&client.blocks("/f").await.blocks[0]), ["n1", "n2", "n3"]);
    client.create("/next").await;
    assert_eq!(client.add_block("/next", None).await.b.generation_stamp, order.new_gen_stamp + 1);
}

#[tokio::test]
async fn a_recovery_that_a_start_found_is_begun_again_if_nobody_ends_it() {
    let mut fixture = Fixture::with(patient).await;
    let Recovering { client, mut nodes, block, primary, order: first } = Recovering::begin(&fixture).await;
    fixture.kill_and_restart_here().await;
    for node in &mut nodes {
        node.begin_again(std::slice::from_ref(&block), ReplicaState::Rbw).await;
    }
    let (next, second) = ordered(&mut nodes, &block).await;
    assert!(second.new_gen_stamp > first.new_gen_stamp);
    assert_eq!(second.block.b.generation_stamp, block.generation_stamp);
    nodes[primary].synchronize(&first, 100, &[&nodes[primary]]).await.unwrap_err();
    nodes[next].synchronize(&second, 100, &[&nodes[0], &nodes[1], &nodes[2]]).await.unwrap();
    assert!(client.is_closed("/f").await);
}

#[tokio::test]
async fn of_replicas_that_were_all_restarted_nobody_is_cut_below_what_was_promised() {
    let mut fixture = Fixture::with(patient).await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.open("/f", &nodes, 80).await;
    fixture.kill_and_restart_here().await;
    for (node, length) in nodes.iter_mut().zip([100, 60, 80]) {
        node.begin_again(&[cut(&block, length)], ReplicaState::Rwr).await;
    }
    assert!(!client.recover_lease("/f", "w2").await);
    let (primary, first) = ordered(&mut nodes, &block).await;
    assert_eq!(holders(&first.block), ["n1", "n2", "n3"]);
    let all: Vec<&FakeNode> = nodes.iter().collect();
    let (class, message) = nodes[primary].synchronize(&first, 60, &all).await.unwrap_err();
    assert_eq!(class, "IOException");
    assert!(message.ends_with("ended with 60 bytes, but 80 were synced before"), "{message}");
    let (class, message) = nodes[primary].synchronize(&first, 0, &[]).await.unwrap_err();
    assert_eq!(class, "IOException", "{message}");
    assert!(!client.is_closed("/f").await);

    let (primary, second) = ordered(&mut nodes, &block).await;
    assert!(second.new_gen_stamp > first.new_gen_stamp);
    nodes[primary].synchronize(&second, 100, &[&nodes[0]]).await.unwrap();
    let located = client.blocks("/f").await;
    assert_eq!((located.file_length, holders(&located.blocks[0])), (100, vec!["n1"]));
}

/// A writer told of all that it had sent when its pipeline changed (hdfs-native), and then its nodes were killed: none has
/// so much. Who was asked, and has less, is not waited for.
#[tokio::test]
async fn less_than_was_told_of_is_taken_from_who_has_heard_everybody() {
    let fixture = Fixture::with(patient).await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.open("/f", &nodes, 40).await;
    let request = hdfs::UpdateBlockForPipelineRequestProto { block: block.clone(), client_name: "w1".into() };
    let updated: hdfs::UpdateBlockForPipelineResponseProto =
        client.call("updateBlockForPipeline", &request).await;
    let stamp = updated.block.b.generation_stamp;
    let told = hdfs::ExtendedBlockProto { generation_stamp: stamp, ..cut(&block, 90) };
    let update = hdfs::UpdatePipelineRequestProto {
        client_name: "w1".into(),
        old_block: block.clone(),
        new_block: told.clone(),
        new_nodes: nodes.iter().map(|node| node.registration.datanode_id.clone()).collect(),
        storage_i_ds: nodes.iter().map(|node| node.storage().storage_uuid).collect(),
    };
    let _: hdfs::UpdatePipelineResponseProto = client.call("updatePipeline", &update).await;
    for (node, length) in nodes.iter_mut().zip([70, 60]) {
        node.begin_again(&[cut(&told, length)], ReplicaState::Rwr).await;
    }
    // Its set-up under the new stamp never came.
    nodes[2].begin_again(&[cut(&block, 40)], ReplicaState::Rwr).await;
    assert!(!client.recover_lease("/f", "w2").await);
    let (primary, first) = ordered(&mut nodes, &told).await;
    let (class, message) = nodes[primary].synchronize(&first, 70, &[&nodes[0]]).await.unwrap_err();
    assert_eq!(class, "IOException");
    assert!(message.ends_with("has 70 bytes, and DataNode n2 may have more"), "{message}");

    let (primary, second) = ordered(&mut nodes, &told).await;
    let one_away = [&nodes[0], &nodes[2]];
    let error = nodes[primary].try_synchronize(&second, 70, &[&nodes[0]], &one_away).await.unwrap_err();
    assert!(error.to_string().contains("n2 may have more"), "{error}");
    let (primary, third) = ordered(&mut nodes, &told).await;
    let all = [&nodes[0], &nodes[1], &nodes[2]];
    nodes[primary].try_synchronize(&third, 70, &[&nodes[0]], &all).await.unwrap();
    assert!(client.is_closed("/f").await);
    assert_eq!(client.blocks("/f").await.file_length, 70);
}

#[tokio::test]
async fn a_block_that_nobody_has_is_dropped() {
    let fixture = Fixture::with(patient).await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let block = client.add_block("/f", None).await.b;
    assert!(!client.recover_lease("/f", "w2").await);
    let (primary, order) = ordered(&mut nodes, &block).await;
    nodes[primary].synchronize(&order, 0, &[]).await.unwrap();
    assert!(client.is_closed("/f").await);
    assert!(client.blocks("/f").await.blocks.is_empty());
}

#[tokio::test]
async fn a_result_whose_sync_failed_is_not_acknowledged_and_can_be_told_again() {
    let mut fixture = Fixture::with(patient).await;
    let Recovering { client, nodes, primary, order, .. } = Recovering::begin(&fixture).await;
    fixture.disk.set_fault(Some(Box::new(|call| (call.kind == CallKind::Sync).then_some(ErrorKind::Other))));
    assert!(nodes[primary].try_synchronize(&order, 100, &[&nodes[primary]], &[]).await.is_err());
    let reason = tokio::time::timeout(LIMIT, fixture.namenode().stopped()).await.unwrap();
    assert!(matches!(reason, NamenodeError::Log(_)), "{reason}");
    fixture.disk.set_fault(None);
    fixture.config.listen.set_port(fixture.namenode().rpc_addr().port());
    fixture.namenode = None;
    fixture.disk.lose_power(Loss::Lost);
    fixture.restart().await.unwrap();
    assert!(!client.is_closed("/f").await);
    assert_eq!(running(&fixture), Some(order.new_gen_stamp), "as before");
    nodes[primary].synchronize(&order, 100, &[&nodes[primary]]).await.unwrap();
    assert!(client.is_closed("/f").await);
    assert_eq!(client.blocks("/f").await.file_length, 100);
}

/// A reader believes the first node that says how long the block is, or that all there are have nothing of it.
#[tokio::test]
async fn after_a_start_a_reader_of_an_open_file_is_sent_to_all_who_have_its_last_block() {
    let mut fixture = Fixture::with(|config| config.placement_wait = LIMIT).await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.open("/f", &nodes, 100).await;
    fixture.kill_and_restart_here().await;
    nodes[0].begin_again(std::slice::from_ref(&block), ReplicaState::Rbw).await;
    let (located, ()) = tokio::join!(client.blocks("/f"), async {
        // The answer to a later call on the same connection: the first one is being waited with.
        assert!(!client.is_closed("/f").await);
        for node in &mut nodes[1..] {
            node.begin_again(std::slice::from_ref(&block), ReplicaState::Rbw).await;
        }
    });
    assert_eq!(holders(&located.last_block.unwrap()), ["n1", "n2", "n3"]);
}

#[tokio::test]
async fn who_closes_while_the_last_block_is_recovered_is_told_so_at_once() {
    let fixture = Fixture::with(|config| {
        patient(config);
        config.complete_wait = LIMIT;
    })
    .await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.open("/f", &nodes, 100).await;
    assert!(!client.recover_lease("/f", "w1").await);
    let before = tokio::time::Instant::now();
    let (class, message) = client.refused("complete", &complete("/f", "w1", Some(block.clone()))).await;
    assert!(before.elapsed() < LIMIT, "no replica was waited for");
    let name = format!("blk_{}_{}", block.block_id, block.generation_stamp);
    assert_eq!(class, "IOException");
    assert_eq!(message, format!("Commit or complete block {name}, whereas it is under recovery."));
}
