//! Files: create, addBlock, complete, leases, with DataNodes that the test plays.

use mobula_proto::hdfs;
use mobula_proto::hdfs::datanode as dn;
use mobula_wire::extension::{CompleteAnswer, CompleteWish, CreateAnswer, CreateWish, WithWish};

use crate::fixture::*;

fn locations(path: &str) -> hdfs::GetBlockLocationsRequestProto {
    hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: i64::MAX as u64 }
}

#[tokio::test]
async fn a_file_of_two_blocks_from_create_to_open() {
    let fixture = Fixture::start().await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let status = client.create("/f").await;
    assert!(status.file_id.unwrap() > 16_385);

    let first = client.add_block("/f", None).await;
    assert_eq!((first.locs.len(), first.storage_i_ds.len(), first.storage_types.len()), (3, 3, 3));
    assert_eq!(first.locs[0].location.as_deref(), Some("/default-rack"));
    assert_eq!((first.b.generation_stamp, first.b.num_bytes, first.offset), (1_001, Some(0), 0));
    let again = client.add_block("/f", None).await;
    assert_eq!(again.b, first.b, "a retry gives the same block");
    let uuids = |block: &hdfs::LocatedBlockProto| -> Vec<String> {
        block.locs.iter().map(|node| node.id.datanode_uuid.clone()).collect()
    };
    assert_eq!(uuids(&again), uuids(&first), "with the same nodes");

    let first = full(&first, 1 << 20);
    for node in &nodes {
        node.received(&first).await;
    }
    let second = client.add_block("/f", Some(first.clone())).await;
    assert_eq!(second.offset, 1 << 20);
    let second = full(&second, 7);
    assert!(!client.complete("/f", Some(second.clone())).await, "nobody has the last block yet");
    nodes[1].received(&second).await;
    assert!(client.complete("/f", Some(second.clone())).await);
    assert!(client.complete("/f", Some(second)).await, "a repetition is answered alike");

    let open: hdfs::GetBlockLocationsResponseProto = client.call("getBlockLocations", &locations("/f")).await;
    let open = open.locations.unwrap();
    assert_eq!((open.file_length, open.blocks.len(), open.under_construction), ((1 << 20) + 7, 2, false));
    assert_eq!((open.blocks[0].locs.len(), open.blocks[1].locs.len()), (3, 1));
    assert!(open.is_last_block_complete);
    let request = hdfs::GetLocatedFileInfoRequestProto { src: Some("/f".into()), need_block_token: None };
    let located: hdfs::GetLocatedFileInfoResponseProto = client.call("getLocatedFileInfo", &request).await;
    assert_eq!(located.fs.unwrap().locations.unwrap().blocks.len(), 2);
    let closed: hdfs::IsFileClosedResponseProto =
        client.call("isFileClosed", &hdfs::IsFileClosedRequestProto { src: "/f".into() }).await;
    assert!(closed.result);
}

#[tokio::test]
async fn a_status_with_locations_is_no_reading() {
    let fixture = Fixture::with(|config| {
        patient(config);
        config.rules.access_time_precision = mobula_types::Millis(1);
    })
    .await;
    let nodes = fixture.three().await;
    let (root, alice) = (fixture.client("hdfs"), fixture.client("alice"));
    let _: hdfs::ExtendedBlockProto = root.open("/d/f", &nodes, 5).await;
    let private = hdfs::SetPermissionRequestProto { src: "/d/f".into(), permission: permission(0o600) };
    let _: hdfs::SetPermissionResponseProto = root.call("setPermission", &private).await;
    let accessed = root.status("/d/f").await.unwrap().access_time;

    let request = hdfs::GetLocatedFileInfoRequestProto { src: Some("/d/f".into()), need_block_token: None };
    let one: hdfs::GetLocatedFileInfoResponseProto = alice.call("getLocatedFileInfo", &request).await;
    let listing = hdfs::GetListingRequestProto {
        src: "/d".into(),
        start_after: bytes::Bytes::new(),
        need_location: true,
    };
    let all: hdfs::GetListingResponseProto = alice.call("getListing", &listing).await;
    for status in [one.fs.unwrap(), all.dir_list.unwrap().partial_listing.remove(0)] {
        let located = status.locations.unwrap();
        assert_eq!((status.length, located.file_length), (5, 0), "what fsync told, and without it");
        assert_eq!((located.blocks.len(), located.under_construction), (1, true));
        assert_eq!(located.last_block.unwrap().b.num_bytes, Some(5));
        assert_eq!(status.access_time, accessed);
    }
    assert_eq!(alice.refused("getBlockLocations", &locations("/d/f")).await.0, "AccessControlException");
}

#[tokio::test]
async fn complete_waits_a_moment_for_the_report() {
    let fixture = Fixture::with(|config| config.complete_wait = LIMIT).await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let block = full(&client.add_block("/f", None).await, 9);
    let (closed, ()) = tokio::join!(client.complete("/f", Some(block.clone())), async {
        tokio::task::yield_now().await;
        nodes[0].received(&block).await;
    });
    assert!(closed, "without a false in between, for which clients would wait 400 ms");
}

#[tokio::test]
async fn blocks_must_be_there_before_the_next_but_one() {
    let fixture = Fixture::start().await;
    let _nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let first = full(&client.add_block("/f", None).await, 1 << 20);
    let second = full(&client.add_block("/f", Some(first)).await, 1 << 20);
    let (class, message) = client.refused("addBlock", &add_block("/f", Some(second))).await;
    assert_eq!((class.as_str(), message.as_str()), ("NotReplicatedYetException", "Not replicated yet: /f"));
}

#[tokio::test]
async fn no_nodes_at_all_or_none_that_would_do() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let (class, message) = client.refused("addBlock", &add_block("/f", None)).await;
    assert_eq!(class, "IOException");
    assert_eq!(
        message,
        "File /f could only be written to 0 of the 1 minReplication nodes. There are 0 datanode(s) running \
         and no node(s) are excluded in this operation."
    );
    let nodes = fixture.three().await;
    let mut request = add_block("/f", None);
    request.exclude_nodes = nodes
        .iter()
        .map(|node| hdfs::DatanodeInfoProto {
            id: node.registration.datanode_id.clone(),
            ..Default::default()
        })
        .collect();
    let before = tokio::time::Instant::now();
    let (_, message) = client.refused("addBlock", &request).await;
    assert!(
        message.ends_with("There are 3 datanode(s) running and 3 node(s) are excluded in this operation.")
    );
    assert!(before.elapsed() < fixture.config.placement_wait, "waiting would not help");
}

#[tokio::test]
async fn a_block_is_not_begun_on_fewer_nodes_than_it_must_have() {
    let fixture = Fixture::with(|config| {
        patient(config);
        config.rules.replication_min = 2;
    })
    .await;
    let _first = fixture.datanode("n1").await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let (class, message) = client.refused("addBlock", &add_block("/f", None)).await;
    assert_eq!(class, "IOException");
    assert!(
        message.starts_with("File /f could only be written to 1 of the 2 minReplication nodes."),
        "{message}"
    );
    let _second = fixture.datanode("n2").await;
    assert_eq!(client.add_block("/f", None).await.locs.len(), 2);
}

#[tokio::test]
async fn blocks_of_another_pool_are_refused() {
    let fixture = Fixture::start().await;
    let _nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let block = full(&client.add_block("/f", None).await, 9);
    let pool = &block.pool_id;
    let words = format!("Unexpected BlockPoolId BP-other - expected {pool}");
    let foreign = hdfs::ExtendedBlockProto { pool_id: "BP-other".into(), ..block.clone() };
    let said = ("IOException".to_string(), words);
    assert_eq!(client.refused("addBlock", &add_block("/f", Some(foreign.clone()))).await, said);
    assert_eq!(client.refused("complete", &complete("/f", "w1", Some(foreign))).await, said);
}

#[tokio::test]
async fn ranges_of_blocks() {
    let fixture = Fixture::with(patient).await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let first = full(&client.add_block("/f", None).await, 1 << 20);
    for node in &nodes {
        node.received(&first).await;
    }
    let second = full(&client.add_block("/f", Some(first)).await, 7);
    nodes[0].received(&second).await;
    assert!(client.complete("/f", Some(second)).await);
    let range = |offset, length| hdfs::GetBlockLocationsRequestProto { src: "/f".into(), offset, length };
    for (offset, length, expected) in [
        (0, 0, vec![0]),
        (1 << 20, 0, vec![1 << 20]),
        (5, 0, vec![0]),
        (0, 1 << 20, vec![0]),
        (0, (1 << 20) + 1, vec![0, 1 << 20]),
        ((1 << 20) + 7, 0, vec![]),
    ] {
        let request = range(offset, length);
        let found: hdfs::GetBlockLocationsResponseProto = client.call("getBlockLocations", &request).await;
        let offsets: Vec<_> = found.locations.unwrap().blocks.iter().map(|block| block.offset).collect();
        assert_eq!(offsets, expected, "{offset} {length}");
    }
    let minus_one = u64::MAX;
    for (request, field) in [(range(minus_one, 1), "offset"), (range(0, minus_one), "length")] {
        assert_eq!(
            client.refused("getBlockLocations", &request).await,
            ("IllegalArgumentException".into(), format!("Negative {field} is not supported. File: /f"))
        );
    }
}

#[tokio::test]
async fn add_block_waits_for_nodes_to_come_back() {
    let fixture = Fixture::with(|config| config.placement_wait = LIMIT).await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let request = add_block("/f", None);
    let (block, _nodes) =
        tokio::join!(client.call::<_, hdfs::AddBlockResponseProto>("addBlock", &request), fixture.three());
    assert!(!block.block.locs.is_empty());
}

#[tokio::test]
async fn one_writer_a_file() {
    let fixture = Fixture::start().await;
    let _nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let (class, message) = client.refused("create", &create("/f", "w2")).await;
    assert_eq!(class, "AlreadyBeingCreatedException");
    assert!(message.starts_with("Failed to CREATE_FILE /f for w2 on 127.0.0.1 because"), "{message}");
    let (class, _) = client.refused("create", &create("/f", "w1")).await;
    assert_eq!(class, "AlreadyBeingCreatedException");
    let mut foreign = add_block("/f", None);
    foreign.client_name = "w2".into();
    assert_eq!(client.refused("addBlock", &foreign).await.0, "LeaseExpiredException");

    let mut overwrite = create("/f", "w2");
    overwrite.create_flag = 3;
    let _: hdfs::CreateResponseProto = client.call("create", &overwrite).await;
    assert_eq!(client.refused("addBlock", &add_block("/f", None)).await.0, "LeaseExpiredException");
    let closed =
        hdfs::CompleteRequestProto { src: "/f".into(), client_name: "w2".into(), last: None, file_id: None };
    let _: hdfs::CompleteResponseProto = client.call("complete", &closed).await;
    let (class, message) = client.refused("create", &create("/f", "w1")).await;
    assert_eq!(class, "FileAlreadyExistsException");
    assert_eq!(message, "/f for client 127.0.0.1 already exists");
}

#[tokio::test]
async fn abandoned_blocks_and_additional_nodes() {
    let fixture = Fixture::start().await;
    let _nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let mut one = create("/f", "w1");
    one.replication = 1;
    let _: hdfs::CreateResponseProto = client.call("create", &one).await;
    let block = client.add_block("/f", None).await;
    assert_eq!(block.locs.len(), 1);
    let request = hdfs::GetAdditionalDatanodeRequestProto {
        src: "/f".into(),
        blk: block.b.clone(),
        existings: block.locs.clone(),
        excludes: Vec::new(),
        num_additional_nodes: 1,
        client_name: "w1".into(),
        existing_storage_uuids: block.storage_i_ds.clone(),
        file_id: None,
    };
    let more: hdfs::GetAdditionalDatanodeResponseProto = client.call("getAdditionalDatanode", &request).await;
    assert_eq!(more.block.locs.len(), 2);
    assert_eq!(more.block.locs[0].id, block.locs[0].id);
    assert_ne!(more.block.locs[1].id, block.locs[0].id);

    let abandon = hdfs::AbandonBlockRequestProto {
        b: block.b.clone(),
        src: "/f".into(),
        holder: "w1".into(),
        file_id: None,
    };
    let _: hdfs::AbandonBlockResponseProto = client.call("abandonBlock", &abandon).await;
    let next = client.add_block("/f", None).await;
    assert_ne!(next.b.block_id, block.b.block_id);
    let fsync = hdfs::FsyncRequestProto {
        src: "/f".into(),
        client: "w1".into(),
        last_block_length: Some(123),
        file_id: None,
    };
    let _: hdfs::FsyncResponseProto = client.call("fsync", &fsync).await;
    let open: hdfs::GetBlockLocationsResponseProto = client.call("getBlockLocations", &locations("/f")).await;
    let open = open.locations.unwrap();
    assert!(open.under_construction && !open.is_last_block_complete);
    let last = open.last_block.unwrap();
    assert_eq!((last.b.num_bytes, last.locs.len()), (Some(123), 1));
}

#[tokio::test]
async fn leases_are_taken_over() {
    let fixture = Fixture::start().await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let block = full(&client.add_block("/f", None).await, 1 << 20);
    nodes[0].received(&block).await;
    let request = hdfs::RecoverLeaseRequestProto { src: "/f".into(), client_name: "w2".into() };
    let closed: hdfs::RecoverLeaseResponseProto = client.call("recoverLease", &request).await;
    let gone = client.refused("addBlock", &add_block("/f", Some(block))).await;
    assert_eq!(gone.0, "LeaseExpiredException", "closed: {}", closed.result);

    client.create("/empty").await;
    let request = hdfs::RecoverLeaseRequestProto { src: "/empty".into(), client_name: "w2".into() };
    let closed: hdfs::RecoverLeaseResponseProto = client.call("recoverLease", &request).await;
    assert!(closed.result, "nothing to recover");
    let renew = |namespaces| hdfs::RenewLeaseRequestProto { client_name: "anybody".into(), namespaces };
    let _: hdfs::RenewLeaseResponseProto = client.call("renewLease", &renew(Vec::new())).await;
    assert_eq!(client.refused("renewLease", &renew(vec!["ns".into()])).await.0, "IOException");
}

#[tokio::test]
async fn a_silent_writers_file_is_closed() {
    let fixture = Fixture::with(|config| {
        config.rules.lease_ms_soft = mobula_types::Millis(100);
        config.rules.lease_ms_hard = mobula_types::Millis(200);
    })
    .await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let request = hdfs::IsFileClosedRequestProto { src: "/f".into() };
    until("the file to be closed", || async {
        client.call::<_, hdfs::IsFileClosedResponseProto>("isFileClosed", &request).await.result
    })
    .await;
}

#[tokio::test]
async fn names_of_nodes_are_no_longer_and_no_more_than_any_are() {
    let fixture = Fixture::start().await;
    let mut nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    client.create("/f").await;
    let many = (0..513).map(|port| format!("10.0.0.1:{port}")).collect();
    let favoring = hdfs::AddBlockRequestProto { favored_nodes: many, ..add_block("/f", None) };
    let (_, message) = client.refused("addBlock", &favoring).await;
    assert_eq!(message, "513 nodes, more than 512");
    let node =
        hdfs::DatanodeInfoProto { id: nodes[0].registration.datanode_id.clone(), ..Default::default() };
    let excluding = hdfs::AddBlockRequestProto { exclude_nodes: vec![node; 513], ..add_block("/f", None) };
    let (_, message) = client.refused("addBlock", &excluding).await;
    assert_eq!(message, "addBlock with a list of 513, more than 512");
    let long = hdfs::AddBlockRequestProto { src: "/".repeat(2 << 20), ..add_block("/f", None) };
    let (_, message) = client.refused("addBlock", &long).await;
    assert!(message.starts_with("addBlock with a request of 20971"), "{message}");
    let replica = hdfs::LocatedBlockProto::default();
    let bad = hdfs::ReportBadBlocksRequestProto { blocks: vec![replica; 513] };
    let (_, message) = client.refused("reportBadBlocks", &bad).await;
    assert!(message.contains("513"), "{message}");

    let block = client.add_block("/f", None).await.b;
    let named =
        hdfs::DatanodeIdProto { datanode_uuid: "x".repeat(257), ..nodes[0].registration.datanode_id.clone() };
    let update = hdfs::UpdatePipelineRequestProto {
        client_name: "w1".into(),
        old_block: block.clone(),
        new_block: block,
        new_nodes: vec![named],
        storage_i_ds: vec!["s".into()],
    };
    let (_, message) = client.refused("updatePipeline", &update).await;
    assert_eq!(message, "a DataNode's UUID of 257 bytes, more than 256");
    let update = hdfs::UpdatePipelineRequestProto {
        new_nodes: vec![nodes[0].registration.datanode_id.clone()],
        storage_i_ds: vec!["s".repeat(257)],
        ..update
    };
    let (_, message) = client.refused("updatePipeline", &update).await;
    assert_eq!(message, "a storage's ID of 257 bytes, more than 256");

    nodes[0].registration.datanode_id.host_name = "h".repeat(257);
    let request = dn::RegisterDatanodeRequestProto { registration: nodes[0].registration.clone() };
    let (_, message) = nodes[0].rpc.refused("registerDatanode", &request).await;
    assert_eq!(message, "a DataNode's host name of 257 bytes, more than 256");
    let mut beat = nodes[1].heartbeat();
    beat.reports[0].storage_uuid = "s".repeat(257);
    let (_, message) = nodes[1].rpc.refused("sendHeartbeat", &beat).await;
    assert_eq!(message, "a storage's ID of 257 bytes, more than 256");
}

fn first_block() -> CreateWish {
    CreateWish { first_block: Some(true) }
}

fn named(target: &str) -> CompleteWish {
    CompleteWish { target: Some(target.into()), overwrite: None }
}

#[tokio::test]
async fn a_small_file_takes_two_steps_of_the_log() {
    let fixture = Fixture::start().await;
    let nodes = fixture.three().await;
    let client = fixture.client("hdfs");
    let steps = || fixture.namenode().service().transaction();
    let before = steps();
    let request = WithWish(create("/t", "w1"), first_block());
    let made: CreateAnswer = client.call("create", &request).await;
    assert_eq!(steps(), before + 1);
    let block = made.first_block.expect("it was wished");
    assert_eq!((block.locs.len(), block.b.generation_stamp, block.offset), (3, 1_001, 0));
    assert_eq!(client.add_block("/t", None).await.b, block.b, "the same for who asks again");
    let block = full(&block, 5);
    for node in &nodes {
        node.received(&block).await;
    }
    let mut request = complete("/t", "w1", Some(block));
    request.file_id = made.fs.unwrap().file_id;
    let before = steps();
    let done: CompleteAnswer = client.call("complete", &WithWish(request, named("/f"))).await;
    assert_eq!(steps(), before + 1);
    assert_eq!(done, CompleteAnswer { result: true, renamed: Some(true) });
    assert_eq!((client.names("/").await, client.is_closed("/f").await), (vec!["f".to_owned()], true));
}

#[tokio::test]
async fn a_wish_that_is_not_granted_leaves_hdfss_answer() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    let wished = WithWish(create("/t", "w1"), first_block());
    let made: CreateAnswer = client.call("create", &wished).await;
    assert!(made.fs.is_some() && made.first_block.is_none(), "there are no nodes: addBlock says that");
    let nodes = fixture.three().await;
    assert_eq!(client.refused("create", &wished).await.0, "AlreadyBeingCreatedException");
    assert_eq!(client.names("/").await, ["t"], "and no second block of it");
    assert_eq!(client.blocks("/t").await.blocks.len(), 0);

    let block = full(&client.add_block("/t", None).await, 5);
    let request = WithWish(complete("/t", "w1", Some(block.clone())), named("/f"));
    let answer: CompleteAnswer = client.call("complete", &request).await;
    assert_eq!(answer, CompleteAnswer { result: false, renamed: None }, "nobody has the block");
    assert_eq!((client.names("/").await, client.is_closed("/t").await), (vec!["t".to_owned()], false));
    nodes[0].received(&block).await;
    client.touch("/f").await;
    assert_eq!(client.refused("complete", &request).await.0, "FileAlreadyExistsException");
    let relative = WithWish(complete("/t", "w1", Some(block)), named("f"));
    assert_eq!(client.refused("complete", &relative).await.0, "InvalidPathException");
}

/// The answer to the last call was lost with the NameNode.
#[tokio::test]
async fn who_did_not_hear_that_it_is_renamed_asks_again() {
    let mut fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    let _: CreateAnswer = client.call("create", &create("/t", "w1")).await;
    let request = WithWish(complete("/t", "w1", None), named("/f"));
    let first: CompleteAnswer = client.again("complete", &request, 40).await.unwrap();
    fixture.kill_and_restart_here().await;
    let second: CompleteAnswer = client.again("complete", &request, 40).await.unwrap();
    assert_eq!((first, second.renamed), (second, Some(true)));
    assert_eq!(client.names("/").await, ["f"]);
}

/// Room for one block, and clients that are refused: none of it is placed for them.
#[tokio::test]
async fn a_wish_that_is_refused_takes_no_room() {
    let fixture = Fixture::with(patient).await;
    let node = fixture.datanode("n1").await;
    let client = fixture.client("hdfs");
    client.touch("/there").await;
    let mut beat = node.heartbeat();
    beat.reports[0].remaining = Some(1 << 20);
    let _: dn::HeartbeatResponseProto = node.rpc.call("sendHeartbeat", &beat).await;
    let wished = |path: &str, change: fn(&mut hdfs::CreateRequestProto)| {
        let mut request = hdfs::CreateRequestProto { replication: 1, ..create(path, "w1") };
        change(&mut request);
        WithWish(request, first_block())
    };
    let alice = fixture.client("alice");
    assert_eq!(alice.refused("create", &wished("/no", |_| {})).await.0, "AccessControlException");
    for (request, class) in [
        (wished("/there", |_| {}), "FileAlreadyExistsException"),
        (wished("/", |_| {}), "FileAlreadyExistsException"),
        (wished("/a:b", |_| {}), "InvalidPathException"),
        (wished("/none/f", |create| create.create_parent = false), "FileNotFoundException"),
        (wished("/f", |create| create.create_flag = 2), "FileNotFoundException"),
        (wished("/f", |create| create.replication = 513), "IOException"),
        (wished("/f", |create| create.replication = 0), "IOException"),
        (wished("/f", |create| create.block_size = 1), "IOException"),
    ] {
        assert_eq!(client.refused("create", &request).await.0, class);
    }
    let safe = |action: hdfs::SafeModeActionProto| hdfs::SetSafeModeRequestProto {
        action: action as i32,
        checked: None,
    };
    let on = safe(hdfs::SafeModeActionProto::SafemodeEnter);
    let _: hdfs::SetSafeModeResponseProto = client.call("setSafeMode", &on).await;
    assert_eq!(client.refused("create", &wished("/f", |_| {})).await.0, "SafeModeException");
    let off = safe(hdfs::SafeModeActionProto::SafemodeLeave);
    let _: hdfs::SetSafeModeResponseProto = client.call("setSafeMode", &off).await;

    let made: CreateAnswer = client.call("create", &wished("/f", |_| {})).await;
    assert_eq!(made.first_block.expect("the room is there").locs.len(), 1);
    let more: CreateAnswer = client.call("create", &wished("/g", |_| {})).await;
    assert_eq!(more.first_block, None, "and now it is taken");
}

/// A client that counts its calls anew under its old identity hears of another call: not that this file is closed.
#[tokio::test]
async fn the_answer_to_another_call_closes_no_file() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    let _: CreateAnswer = client.again("create", &create("/s", "w1"), 40).await.unwrap();
    client.create("/t").await;
    let request = WithWish(complete("/t", "w1", None), named("/f"));
    let answer = client.again::<_, CompleteAnswer>("complete", &request, 40).await;
    assert!(matches!(answer, Err(mobula_rpc::CallError::Remote(_))), "{answer:?}");
    assert!(!client.is_closed("/t").await);
    let answer = client.again::<_, CompleteAnswer>("complete", &request, 41).await.unwrap();
    assert_eq!(answer.renamed, Some(true));
}
