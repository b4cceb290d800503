//! DatanodeProtocol: registration, heartbeats, reports, orders, broken connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobula_fleet::{NodeFilter, NodeState};
use mobula_namenode::{GroupDirectory, GroupMapping};
use mobula_proto::hdfs;
use mobula_proto::hdfs::datanode as dn;

use crate::fixture::*;

#[tokio::test]
async fn a_datanode_is_told_what_apaches_must_know() {
    let fixture = Fixture::start().await;
    let mut node = FakeNode::new(&fixture, "n1").await;
    assert_eq!(node.info.software_version, "3.5.0");
    assert_eq!(node.info.capabilities, Some(1));
    assert!(node.info.block_pool_id.starts_with("BP-"));
    assert!(node.info.storage_info.cluster_id.starts_with("CID-"));

    let early = node.beat().await;
    assert_eq!(early.cmds.len(), 1, "an unknown node is told to register, not refused");
    assert_eq!(early.cmds[0].cmd_type, dn::datanode_command_proto::Type::RegisterCommand as i32);

    node.register().await;
    assert_eq!(node.registration.datanode_id.ip_addr, "127.0.0.1", "the peer's address, not what it said");
    assert_eq!(node.registration.datanode_id.datanode_uuid, "n1");
    let beat = node.beat().await;
    assert_eq!(beat.ha_status.state, 0, "ACTIVE");
    assert!(beat.ha_status.txid >= 1 << 40, "the term stands above the index");
    assert_ne!(beat.full_block_report_lease_id, Some(0));
    assert!(beat.rolling_upgrade_status.is_none() && beat.cmds.is_empty());
    let before = beat.ha_status.txid;
    fixture.client("hdfs").mkdirs("/a").await;
    assert!(node.beat().await.ha_status.txid > before);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let fixture = Fixture::start().await;
    let mut node = FakeNode::new(&fixture, "n1").await;
    node.registration.storage_info.namespce_id ^= 1;
    let request = dn::RegisterDatanodeRequestProto { registration: node.registration.clone() };
    let (class, message) = node.rpc.refused("registerDatanode", &request).await;
    assert_eq!(class, "IOException");
    assert!(message.contains("CID-"), "{message}");
}

#[tokio::test]
async fn reports_after_a_restart_bring_locations_back_and_strangers_are_removed() {
    let mut fixture = Fixture::start().await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let block = full(&client.add_block("/f", None).await, 100);
    for node in &nodes {
        node.received(&block).await;
    }
    assert!(client.complete("/f", Some(block.clone())).await);

    fixture.kill_and_restart().await;
    let client = fixture.client("hdfs");
    let request =
        hdfs::GetBlockLocationsRequestProto { src: "/f".into(), offset: 0, length: i64::MAX as u64 };
    let located: hdfs::GetBlockLocationsResponseProto = client.call("getBlockLocations", &request).await;
    assert!(located.locations.unwrap().blocks[0].locs.is_empty(), "nobody has come back");
    let stranger = hdfs::ExtendedBlockProto { block_id: block.block_id - 1, ..block.clone() };
    for uuid in ["n1", "n2", "n3"] {
        let mut node = FakeNode::new(&fixture, uuid).await;
        node.register().await;
        node.beat().await;
        assert!(node.report(&[block.clone(), stranger.clone()]).await.is_none());
    }
    let located: hdfs::GetBlockLocationsResponseProto = client.call("getBlockLocations", &request).await;
    assert_eq!(located.locations.unwrap().blocks[0].locs.len(), 3);
}

#[tokio::test]
async fn a_report_of_an_unknown_node_or_with_a_wrong_lease() {
    let fixture = Fixture::start().await;
    let node = FakeNode::new(&fixture, "n1").await;
    let command = node.report(&[]).await.unwrap();
    assert_eq!(command.cmd_type, dn::datanode_command_proto::Type::RegisterCommand as i32);
}

#[tokio::test]
async fn deleted_files_leave_the_disks() {
    let fixture = Fixture::start().await;
    let mut node = fixture.datanode("n1").await;
    let client = fixture.client("hdfs");
    let mut one = create("/f", "w1");
    one.replication = 1;
    let _: hdfs::CreateResponseProto = client.call("create", &one).await;
    let block = full(&client.add_block("/f", None).await, 5);
    node.received(&block).await;
    assert!(client.complete("/f", Some(block.clone())).await);
    let _: hdfs::DeleteResponseProto = client.call("delete", &delete("/f")).await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let beat = node.beat().await;
        let removed = beat.cmds.iter().filter_map(|command| command.blk_cmd.as_ref()).find(|command| {
            command.action == dn::block_command_proto::Action::Invalidate as i32
                && command.blocks.iter().any(|removed| removed.block_id == block.block_id)
        });
        if removed.is_some() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no order to remove the replica");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_lost_replica_is_ordered_to_be_copied() {
    let fixture = Fixture::with(|config| {
        config.fleet.suspect_ms = mobula_types::Millis(60_000);
        config.fleet.dead_ms = mobula_types::Millis(60_000);
    })
    .await;
    let mut nodes = Vec::new();
    for uuid in ["n1", "n2"] {
        nodes.push(fixture.datanode(uuid).await);
    }
    let client = fixture.client("hdfs");
    let mut two = create("/f", "w1");
    two.replication = 2;
    let _: hdfs::CreateResponseProto = client.call("create", &two).await;
    let block = full(&client.add_block("/f", None).await, 5);
    nodes[0].received(&block).await;
    assert!(client.complete("/f", Some(block.clone())).await);
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let beat = nodes[0].beat().await;
        nodes[1].beat().await;
        let copy = beat.cmds.iter().filter_map(|command| command.blk_cmd.as_ref()).find(|command| {
            command.action == dn::block_command_proto::Action::Transfer as i32
                && command.blocks.iter().any(|copied| copied.block_id == block.block_id)
        });
        if let Some(copy) = copy {
            assert_eq!(copy.targets[0].datanodes[0].id.datanode_uuid, "n2");
            assert_eq!(copy.target_storage_uuids[0].storage_uuids, ["DS-n2"]);
            assert_eq!(copy.target_storage_types[0].storage_types.len(), 1);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no order to copy the block");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    nodes[1].received(&block).await;
    let service = fixture.namenode().service();
    until("the block to be healed", || async { service.health().under_replicated == 0 }).await;
}

#[tokio::test]
async fn a_broken_connection_makes_its_node_suspect() {
    let fixture = Fixture::start().await;
    let node = fixture.datanode("n1").await;
    let service = fixture.namenode().service();
    assert_eq!(service.nodes(NodeFilter::All)[0].state, NodeState::Live);
    drop(node);
    let before = tokio::time::Instant::now();
    until("the node to be suspect", || async {
        service.nodes(NodeFilter::All)[0].state == NodeState::Suspect
    })
    .await;
    assert!(before.elapsed() < std::time::Duration::from_millis(2_000), "at once, not after missed beats");
}

#[tokio::test]
async fn errors_and_bad_blocks_are_heard() {
    let fixture = Fixture::start().await;
    let nodes = [fixture.datanode("n1").await, fixture.datanode("n2").await];
    let client = fixture.client("hdfs");
    let mut two = create("/f", "w1");
    two.replication = 2;
    let _: hdfs::CreateResponseProto = client.call("create", &two).await;
    let block = client.add_block("/f", None).await;
    let last = full(&block, 5);
    for node in &nodes {
        node.received(&last).await;
    }
    assert!(client.complete("/f", Some(last.clone())).await);
    let bad = hdfs::LocatedBlockProto {
        b: last,
        locs: vec![block.locs[0].clone()],
        storage_i_ds: vec![block.storage_i_ds[0].clone()],
        storage_types: vec![1],
        ..block.clone()
    };
    let request = hdfs::ReportBadBlocksRequestProto { blocks: vec![bad] };
    let _: hdfs::ReportBadBlocksResponseProto = client.call("reportBadBlocks", &request).await;
    let request =
        hdfs::GetBlockLocationsRequestProto { src: "/f".into(), offset: 0, length: i64::MAX as u64 };
    let located: hdfs::GetBlockLocationsResponseProto = client.call("getBlockLocations", &request).await;
    let left = &located.locations.unwrap().blocks[0];
    assert_eq!(left.locs.len(), 1, "the corrupt one is left out");
    assert_eq!(left.locs[0].id, block.locs[1].id);
    let request = dn::ErrorReportRequestProto {
        registartion: nodes[0].registration.clone(),
        error_code: 3,
        msg: "all disks".into(),
    };
    let _: dn::ErrorReportResponseProto = nodes[0].rpc.call("errorReport", &request).await;
}

/// Two threads look users up.
#[tokio::test]
async fn a_directory_of_users_that_hangs_holds_up_no_beat_and_nobody_who_was_known() {
    let hangs = Arc::new(AtomicBool::new(false));
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let asked_again = Arc::new(AtomicBool::new(false));
    let (hanging, again, told) = (Arc::clone(&hangs), Arc::clone(&asked_again), std::sync::Mutex::new(told));
    let directory = GroupDirectory::new(move |user| {
        if hanging.load(Ordering::Acquire) {
            again.fetch_or(user == "hdfs", Ordering::Release);
            // Until the test ends.
            let _ = told.lock().unwrap().recv();
        }
        Some(vec![format!("group-of-{user}")])
    });
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::on_real_disk(folder.path(), |config| {
        config.groups = GroupMapping::Ask(directory);
        config.groups_ttl = Duration::from_millis(100);
    })
    .await;
    let mut node = fixture.datanode("n1").await;
    let client = fixture.client("hdfs");
    client.mkdirs("/a").await;

    hangs.store(true, Ordering::Release);
    until("what is known to be out of date", || async {
        assert!(client.status("/a").await.is_some());
        asked_again.load(Ordering::Acquire)
    })
    .await;
    let strangers: Vec<_> = ["x", "y", "z"].map(|user| fixture.client(user)).into();
    for stranger in &strangers {
        let asked = tokio::time::timeout(Duration::from_millis(50), stranger.status("/a"));
        assert!(asked.await.is_err(), "nobody can say who that is");
    }
    for _ in 0..5 {
        node.beat().await;
        assert!(client.status("/a").await.is_some(), "who was known is still served");
    }
    assert_eq!(fixture.namenode().service().nodes(NodeFilter::All)[0].state, NodeState::Live);
    drop(tell);
    assert!(strangers[0].status("/a").await.is_some());
}

/// A disk was cloned, identity and all, and both servers run. Whichever registered last is the node: the other one's
/// beats do not keep it alive, and what it has counts for nothing.
#[tokio::test]
async fn a_copy_of_a_node_does_not_speak_for_it() {
    let fixture = Fixture::start().await;
    let mut first = fixture.datanode("n1").await;
    let block = hdfs::ExtendedBlockProto {
        pool_id: first.info.block_pool_id.clone(),
        block_id: 1 << 40,
        generation_stamp: 1_001,
        num_bytes: Some(5),
    };
    let service = fixture.namenode().service();
    let state = || service.nodes(NodeFilter::All)[0].state;
    // Its connection breaks; it makes another one.
    first.rpc = fixture.of("hdfs", DATANODE);
    until("the node to be suspect", || async { state() == NodeState::Suspect }).await;
    let mut copy = FakeNode::new(&fixture, "n1").await;
    copy.register().await;
    copy.beat().await;
    let register = dn::datanode_command_proto::Type::RegisterCommand as i32;
    let answer = first.beat().await;
    assert_eq!(answer.cmds.iter().map(|command| command.cmd_type).collect::<Vec<_>>(), [register]);
    assert_eq!(first.report(&[]).await.unwrap().cmd_type, register);
    first.received(&block).await;
    first.fail().await;
    assert_eq!(state(), NodeState::Live, "the error of the other one is not the node's");
    let request = dn::RegisterDatanodeRequestProto { registration: first.registration.clone() };
    let (class, message) = first.rpc.refused("registerDatanode", &request).await;
    assert_eq!(class, "DisallowedDatanodeException", "{message}");
    assert!(copy.beat().await.cmds.is_empty());
}

#[tokio::test]
async fn a_node_with_too_many_volumes_is_refused() {
    let fixture = Fixture::start().await;
    let node = fixture.datanode("n1").await;
    let mut beat = node.heartbeat();
    beat.reports = vec![beat.reports[0].clone(); mobula_fleet::VOLUMES_MAX + 1];
    let (_, message) = node.rpc.refused("sendHeartbeat", &beat).await;
    assert!(message.contains("1025 volumes"), "{message}");
}
