//! Append, truncate, concat and lost leases, through ClientProtocol: with a NameNode that starts again between
//! the calls, syncs that fail, and holders who come back late (CASES 16).

use std::io::ErrorKind;

use mobula_disk::fake::{CallKind, CrashDisk, Loss};
use mobula_namenode::NameNode;
use mobula_net::{Clock, Env};
use mobula_proto::hdfs;
use mobula_types::{InodeId, Millis, ReplicaState};

use crate::fixture::*;

fn truncate(path: &str, holder: &str, new_length: u64) -> hdfs::TruncateRequestProto {
    hdfs::TruncateRequestProto { src: path.into(), new_length, client_name: holder.into() }
}

fn concat(target: &str, sources: &[&str]) -> hdfs::ConcatRequestProto {
    hdfs::ConcatRequestProto { trg: target.into(), srcs: sources.iter().map(|s| s.to_string()).collect() }
}

fn new_stamp(block: &hdfs::ExtendedBlockProto, holder: &str) -> hdfs::UpdateBlockForPipelineRequestProto {
    hdfs::UpdateBlockForPipelineRequestProto { block: block.clone(), client_name: holder.into() }
}

fn pipeline(
    old: &hdfs::ExtendedBlockProto,
    new: &hdfs::ExtendedBlockProto,
    holder: &str,
    nodes: &[FakeNode],
) -> hdfs::UpdatePipelineRequestProto {
    hdfs::UpdatePipelineRequestProto {
        client_name: holder.into(),
        old_block: old.clone(),
        new_block: new.clone(),
        new_nodes: nodes.iter().map(|node| node.registration.datanode_id.clone()).collect(),
        storage_i_ds: nodes.iter().map(|node| node.storage().storage_uuid).collect(),
    }
}

fn abandon(path: &str, block: &hdfs::ExtendedBlockProto) -> hdfs::AbandonBlockRequestProto {
    hdfs::AbandonBlockRequestProto { b: block.clone(), src: path.into(), holder: "w1".into(), file_id: None }
}

fn at(block: &hdfs::ExtendedBlockProto, stamp: u64, length: u64) -> hdfs::ExtendedBlockProto {
    hdfs::ExtendedBlockProto { generation_stamp: stamp, num_bytes: Some(length), ..block.clone() }
}

/// Everybody is back, with these blocks.
async fn all_report(nodes: &mut [FakeNode], blocks: &[hdfs::ExtendedBlockProto]) {
    for node in nodes {
        node.begin_again(blocks, ReplicaState::Finalized).await;
    }
}

#[tokio::test]
async fn an_append_goes_on_over_restarts_with_the_same_stamps() {
    let mut fixture = Fixture::with(patient).await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.write("/f", &nodes, 100).await;
    let (append_id, pipeline_id) = (client.0.next_call_id(), client.0.next_call_id());
    let request = append("/f", "w2");
    let opened: hdfs::AppendResponseProto = client.again("append", &request, append_id).await.unwrap();
    let last = opened.block.clone().unwrap();
    assert_eq!((&last.b, last.locs.len(), last.offset), (&block, 3, 0), "as it was closed");

    fixture.kill_and_restart_here().await;
    all_report(&mut nodes, std::slice::from_ref(&block)).await;
    let again: hdfs::AppendResponseProto = client.again("append", &request, append_id).await.unwrap();
    assert_eq!(again.block.unwrap().b, last.b);
    assert_eq!(again.stat, opened.stat);
    let (class, _) = client.refused("append", &request).await;
    assert_eq!(class, "AlreadyBeingCreatedException", "another call of the same client is another one");

    // Idempotent in HDFS, not at-most-once: another stamp each time, and never one that was given out before.
    let request = new_stamp(&last.b, "w2");
    let first: hdfs::UpdateBlockForPipelineResponseProto =
        client.call("updateBlockForPipeline", &request).await;
    fixture.kill_and_restart_here().await;
    let second: hdfs::UpdateBlockForPipelineResponseProto =
        client.call("updateBlockForPipeline", &request).await;
    let stamp = second.block.b.generation_stamp;
    assert_eq!(first.block.b.generation_stamp, block.generation_stamp + 1);
    assert_eq!(stamp, block.generation_stamp + 2);

    let request = pipeline(&block, &at(&block, stamp, 100), "w2", &nodes[..2]);
    for _ in 0..2 {
        let _: hdfs::UpdatePipelineResponseProto =
            client.again("updatePipeline", &request, pipeline_id).await.unwrap();
        fixture.kill_and_restart_here().await;
    }
    all_report(&mut nodes, std::slice::from_ref(&block)).await;
    let old = complete("/f", "w2", Some(at(&block, block.generation_stamp, 150)));
    let (class, message) = client.refused("complete", &old).await;
    assert_eq!(class, "IOException", "{message}");
    let new = at(&block, stamp, 150);
    let close = complete("/f", "w2", Some(new.clone()));
    let closed: hdfs::CompleteResponseProto = client.call("complete", &close).await;
    assert!(!closed.result, "those who have the old stamp do not count");
    nodes[0].received(&new).await;
    let closed: hdfs::CompleteResponseProto = client.call("complete", &close).await;
    assert!(closed.result);
    let located = client.blocks("/f").await;
    assert_eq!((located.file_length, located.blocks[0].locs.len()), (150, 1));
    assert_eq!(located.blocks[0].locs[0].id.datanode_uuid, nodes[0].uuid);
}

#[tokio::test]
async fn a_truncation_ends_at_exactly_its_length_whoever_starts_again() {
    let mut fixture = Fixture::with(patient).await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.write("/f", &nodes, 100).await;
    let (request, id) = (truncate("/f", "w2", 40), client.0.next_call_id());
    let begun: hdfs::TruncateResponseProto = client.again("truncate", &request, id).await.unwrap();
    assert!(!begun.result, "a recovery cuts it");
    let (primary, order) = ordered(&mut nodes, &block).await;
    let aim = order.truncate_block.as_ref().unwrap();
    assert_eq!((aim.block_id, aim.num_bytes), (block.block_id, Some(40)));
    assert_eq!((aim.gen_stamp, order.new_gen_stamp), (order.new_gen_stamp, block.generation_stamp + 1));
    assert_eq!(client.blocks("/f").await.last_block.unwrap().b.num_bytes, Some(100), "until it has ended");

    fixture.kill_and_restart_here().await;
    let again: hdfs::TruncateResponseProto = client.again("truncate", &request, id).await.unwrap();
    assert!(!again.result);
    all_report(&mut nodes, std::slice::from_ref(&block)).await;
    let (class, message) = client.refused("truncate", &truncate("/f", "w3", 30)).await;
    assert_eq!(class, "AlreadyBeingCreatedException", "{message}");
    for length in [39, 41] {
        let refused = nodes[primary].synchronize(&order, length, &[&nodes[primary]]).await;
        let (class, message) = refused.unwrap_err();
        assert_eq!(class, "IOException");
        assert!(message.ends_with(&format!("{length} bytes, but it was to be cut to 40")), "{message}");
    }
    let (primary, second) = ordered(&mut nodes, &block).await;
    assert!(second.new_gen_stamp > order.new_gen_stamp);
    assert_eq!(second.truncate_block.as_ref().unwrap().num_bytes, Some(40));
    nodes[primary].synchronize(&second, 40, &[&nodes[0], &nodes[1], &nodes[2]]).await.unwrap();
    assert!(client.is_closed("/f").await);
    assert_eq!(client.blocks("/f").await.file_length, 40);
    let done: hdfs::TruncateResponseProto = client.call("truncate", &truncate("/f", "w2", 40)).await;
    assert!(done.result);
}

#[tokio::test]
async fn a_truncation_waits_for_nodes_that_are_gone() {
    let fixture = Fixture::with(patient).await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.write("/f", &nodes, 100).await;
    for node in &nodes {
        node.fail().await;
    }
    let begun: hdfs::TruncateResponseProto = client.call("truncate", &truncate("/f", "w2", 40)).await;
    assert!(!begun.result, "a recovery is to cut it");
    let (class, message) = client.refused("truncate", &truncate("/f", "w2", 0)).await;
    assert_eq!(class, "AlreadyBeingCreatedException", "{message}");
    for node in &mut nodes {
        node.begin_again(std::slice::from_ref(&block), ReplicaState::Finalized).await;
    }
    let (primary, order) = ordered(&mut nodes, &block).await;
    assert_eq!(order.block.locs.len(), 3);
    assert_eq!(order.truncate_block.as_ref().unwrap().num_bytes, Some(40));
    nodes[primary].synchronize(&order, 40, &[&nodes[0], &nodes[1], &nodes[2]]).await.unwrap();
    assert!(client.is_closed("/f").await);
    assert_eq!(client.status("/f").await.unwrap().length, 40);
}

#[tokio::test]
async fn repeated_after_a_restart_concat_and_recover_lease_are_answered_alike() {
    let mut fixture = Fixture::with(patient).await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    for path in ["/a", "/b", "/c"] {
        client.write(path, &nodes, 10).await;
    }
    let open = client.open("/open", &nodes, 5).await;
    let (join, join_id) = (concat("/a", &["/b", "/c"]), client.0.next_call_id());
    let (take, take_id) = (recover_lease("/open", "w2"), client.0.next_call_id());
    let _: hdfs::ConcatResponseProto = client.again("concat", &join, join_id).await.unwrap();
    let taken: hdfs::RecoverLeaseResponseProto = client.again("recoverLease", &take, take_id).await.unwrap();
    assert!(!taken.result);
    let recovery = |fixture: &Fixture| {
        let open = fixture.namenode().service().view().open_files(InodeId(0), 10).unwrap();
        (open[0].holder.clone(), open[0].recovery.unwrap().id.0)
    };
    let before = recovery(&fixture);
    assert_eq!(before, ("w2".into(), open.generation_stamp + 1));

    fixture.kill_and_restart_here().await;
    let _: hdfs::ConcatResponseProto = client.again("concat", &join, join_id).await.unwrap();
    let taken: hdfs::RecoverLeaseResponseProto = client.again("recoverLease", &take, take_id).await.unwrap();
    assert!(!taken.result);
    assert_eq!(recovery(&fixture), before);
    assert_eq!(client.names("/").await, ["a", "open"]);
    assert_eq!(client.status("/a").await.unwrap().length, 30);
    let (class, _) = client.refused("concat", &join).await;
    assert_eq!(class, "FileNotFoundException", "as another call it is refused");
}

#[tokio::test]
async fn what_the_log_could_not_sync_has_not_happened() {
    for (method, round) in [("append", 0), ("truncate", 1), ("concat", 2)] {
        let mut fixture = Fixture::with(patient).await;
        let mut nodes = fixture.three().await;
        let client = fixture.client("hdfs");
        let mut blocks = Vec::new();
        for path in ["/a", "/b"] {
            blocks.push(client.write(path, &nodes, 10).await);
        }
        fixture
            .disk
            .set_fault(Some(Box::new(|call| (call.kind == CallKind::Sync).then_some(ErrorKind::Other))));
        let failed = match round {
            0 => client.0.call::<_, hdfs::AppendResponseProto>(method, &append("/a", "w2")).await.is_err(),
            1 => {
                let request = truncate("/a", "w2", 4);
                client.0.call::<_, hdfs::TruncateResponseProto>(method, &request).await.is_err()
            }
            _ => {
                let request = concat("/a", &["/b"]);
                client.0.call::<_, hdfs::ConcatResponseProto>(method, &request).await.is_err()
            }
        };
        assert!(failed, "{method} was acknowledged");
        tokio::time::timeout(LIMIT, fixture.namenode().stopped()).await.unwrap();
        fixture.disk.set_fault(None);
        fixture.config.listen.set_port(fixture.namenode().rpc_addr().port());
        fixture.namenode = None;
        fixture.disk.lose_power(Loss::Lost);
        fixture.restart().await.unwrap();
        all_report(&mut nodes, &blocks).await;
        assert_eq!(client.names("/").await, ["a", "b"], "{method}");
        assert!(client.is_closed("/a").await, "{method}");
        let opened: hdfs::AppendResponseProto = client.call("append", &append("/a", "w3")).await;
        assert_eq!(opened.block.unwrap().b, blocks[0], "{method}");
    }
}

#[tokio::test]
async fn a_late_holder_can_do_nothing_more() {
    let fixture = Fixture::with(|config| {
        patient(config);
        config.rules.lease_ms_soft = Millis(100);
    })
    .await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let block = client.open("/f", &nodes, 100).await;
    // w1 has got a stamp for a new pipeline, and is slow from then on.
    let late: hdfs::UpdateBlockForPipelineResponseProto =
        client.call("updateBlockForPipeline", &new_stamp(&block, "w1")).await;
    until("the soft limit to pass", || async {
        client.refused("append", &append("/f", "w2")).await.0 == "RecoveryInProgressException"
    })
    .await;
    let (primary, order) = ordered(&mut nodes, &block).await;
    assert!(order.new_gen_stamp > late.block.b.generation_stamp);

    let update = pipeline(&block, &at(&block, late.block.b.generation_stamp, 120), "w1", &nodes);
    let old = at(&block, block.generation_stamp, 120);
    let late_calls = |state: &'static str| {
        let (client, block, update, old) = (&client, &block, &update, &old);
        async move {
            let refused = [
                client.refused("updatePipeline", update).await,
                client.refused("updateBlockForPipeline", &new_stamp(block, "w1")).await,
                client.refused("addBlock", &add_block("/f", Some(old.clone()))).await,
                client.refused("complete", &complete("/f", "w1", Some(old.clone()))).await,
                client.refused("fsync", &fsync("/f", 500)).await,
                client.refused("abandonBlock", &abandon("/f", block)).await,
            ];
            let classes: Vec<_> = refused.iter().map(|(class, _)| class.as_str()).collect();
            // checkUCBlock looks at the block's state before it looks at the lease.
            let (io, lease) = ("IOException", "LeaseExpiredException");
            assert_eq!(classes, [io, io, lease, lease, lease, lease], "{state}: {refused:?}");
        }
    };
    late_calls("under recovery").await;
    nodes[primary].synchronize(&order, 100, &[&nodes[0], &nodes[1], &nodes[2]]).await.unwrap();
    late_calls("closed").await;
    // Its last packets arrive at the NameNode as news, too.
    for node in &nodes {
        node.received(&old).await;
    }
    let opened: hdfs::AppendResponseProto = client.call("append", &append("/f", "w2")).await;
    let last = opened.block.unwrap();
    assert_eq!(last.b, at(&block, order.new_gen_stamp, 100));
    assert_eq!(last.locs.len(), 3);
    assert_eq!(client.blocks("/f").await.last_block.unwrap().b.num_bytes, Some(100));
}

/// The log's time stays where it was, and whoever renewed a moment ago did so by that time, too.
#[tokio::test]
async fn a_clock_that_is_set_back_gives_nobodys_lease_away() {
    let clock = Clock::virtual_from(1_700_000_000_000);
    let env = Env { clock: clock.clone(), ..Env::real() };
    let (disk, config) = (CrashDisk::new(1), config());
    let namenode = NameNode::start(env, disk.process(), config.clone()).await.unwrap();
    let fixture = Fixture { disk, config, namenode: Some(namenode) };
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let renew = hdfs::RenewLeaseRequestProto { client_name: "w1".into(), ..Default::default() };
    let _: hdfs::RenewLeaseResponseProto = client.call("renewLease", &renew).await;
    clock.jump(-3_600_000);
    let (class, _) = client.refused("append", &append("/f", "w2")).await;
    assert_eq!(class, "AlreadyBeingCreatedException");
    let (class, _) = client.refused("create", &create("/f", "w2")).await;
    assert_eq!(class, "AlreadyBeingCreatedException");
}
