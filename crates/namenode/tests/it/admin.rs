//! Figures, safe mode, and the small protocols.

use std::time::Duration;

use mobula_proto::{common, hdfs};
use tokio::time::Instant;

use crate::fixture::*;

#[tokio::test]
async fn safe_mode_is_an_administrators() {
    let fixture = Fixture::with(patient).await;
    let nodes = fixture.three().await;
    let (root, alice) = (fixture.client("hdfs"), fixture.client("alice"));
    let written = root.write("/written", &nodes, 9).await;
    let block = root.open("/open", &nodes, 5).await;
    let set = |action: hdfs::SafeModeActionProto| hdfs::SetSafeModeRequestProto {
        action: action as i32,
        checked: None,
    };
    use hdfs::SafeModeActionProto as Action;
    assert_eq!(
        alice.refused("setSafeMode", &set(Action::SafemodeEnter)).await.1,
        "Access denied for user alice. Superuser privilege is required for operation safemode_enter"
    );
    let off: hdfs::SetSafeModeResponseProto = alice.call("setSafeMode", &set(Action::SafemodeGet)).await;
    assert!(!off.result, "none after a start");
    let save = hdfs::SaveNamespaceRequestProto { time_window: None, tx_gap: None };
    assert_eq!(
        root.refused("saveNamespace", &save).await.1,
        "Safe mode should be turned ON in order to create namespace image."
    );
    let on: hdfs::SetSafeModeResponseProto = root.call("setSafeMode", &set(Action::SafemodeEnter)).await;
    assert!(on.result);
    let upgraded: hdfs::UpgradeStatusResponseProto =
        alice.call("upgradeStatus", &hdfs::UpgradeStatusRequestProto {}).await;
    assert!(upgraded.upgrade_finalized, "anybody may ask");
    let (class, message) = root.refused("mkdirs", &mkdirs("/a")).await;
    assert_eq!(class, "SafeModeException");
    assert_eq!(message, "Cannot create directory /a. Name node is in safe mode.");
    let name = format!("{}:blk_{}_{}", block.pool_id, block.block_id, block.generation_stamp);
    let node = hdfs::GetAdditionalDatanodeRequestProto {
        src: "/open".into(),
        blk: block.clone(),
        client_name: "w1".into(),
        ..Default::default()
    };
    let abandon = hdfs::AbandonBlockRequestProto {
        b: block.clone(),
        src: "/open".into(),
        holder: "w1".into(),
        file_id: None,
    };
    let stamp = hdfs::UpdateBlockForPipelineRequestProto { block: block.clone(), client_name: "w1".into() };
    let update = hdfs::UpdatePipelineRequestProto {
        client_name: "w1".into(),
        old_block: block.clone(),
        new_block: block.clone(),
        ..Default::default()
    };
    for (refused, words) in [
        (root.refused("create", &create("/f", "w1")).await, "Cannot create file/f".to_string()),
        (root.refused("append", &append("/written", "w1")).await, "Cannot append to file/written".into()),
        (root.refused("addBlock", &add_block("/open", None)).await, "Cannot add block to /open".into()),
        (
            root.refused("getAdditionalDatanode", &node).await,
            format!("Cannot add datanode; src=/open, blk={name}"),
        ),
        (root.refused("abandonBlock", &abandon).await, format!("Cannot abandon block {name} for file/open")),
        (
            root.refused("updateBlockForPipeline", &stamp).await,
            format!("Cannot get a new generation stamp and an access token for block {name}"),
        ),
        (root.refused("updatePipeline", &update).await, "Pipeline not updated".into()),
        (root.refused("rollEdits", &hdfs::RollEditsRequestProto {}).await, "Log not rolled".into()),
    ] {
        let message = format!("{words}. Name node is in safe mode.");
        assert_eq!(refused, ("SafeModeException".into(), message));
    }
    assert!(root.status("/").await.is_some(), "reading goes on");
    assert_eq!(root.blocks("/written").await.blocks[0].b, written);
    for node in &nodes {
        node.fail().await;
    }
    let gone = hdfs::GetBlockLocationsRequestProto { src: "/written".into(), offset: 0, length: 9 };
    assert_eq!(
        root.refused("getBlockLocations", &gone).await,
        ("SafeModeException".into(), "Zero blocklocations for /written. Name node is in safe mode.".into())
    );
    let request =
        hdfs::GetLocatedFileInfoRequestProto { src: Some("/written".into()), need_block_token: None };
    let told: hdfs::GetLocatedFileInfoResponseProto = root.call("getLocatedFileInfo", &request).await;
    assert!(told.fs.unwrap().locations.unwrap().blocks[0].locs.is_empty(), "a status is told nevertheless");
    let saved: hdfs::SaveNamespaceResponseProto = root.call("saveNamespace", &save).await;
    assert_eq!(saved.saved, Some(true));
    let off: hdfs::SetSafeModeResponseProto = root.call("setSafeMode", &set(Action::SafemodeLeave)).await;
    assert!(!off.result);
    assert!(root.mkdirs("/a").await);
}

#[tokio::test]
async fn figures_and_reports() {
    let fixture = Fixture::start().await;
    let _node = fixture.datanode("n1").await;
    let (root, alice) = (fixture.client("hdfs"), fixture.client("alice"));
    let stats: hdfs::GetFsStatsResponseProto =
        alice.call("getFsStats", &hdfs::GetFsStatusRequestProto {}).await;
    assert_eq!((stats.capacity, stats.remaining, stats.used), (1 << 40, 1 << 40, 0));
    let request = hdfs::GetDatanodeReportRequestProto { r#type: hdfs::DatanodeReportTypeProto::Live as i32 };
    let (class, message) = alice.refused("getDatanodeReport", &request).await;
    assert_eq!(class, "AccessControlException");
    assert!(message.ends_with("for operation datanodeReport"), "{message}");
    let report: hdfs::GetDatanodeReportResponseProto = root.call("getDatanodeReport", &request).await;
    assert_eq!(report.di.len(), 1);
    assert_eq!((report.di[0].capacity, report.di[0].id.ip_addr.as_str()), (Some(1 << 40), "127.0.0.1"));
    let request =
        hdfs::GetDatanodeStorageReportRequestProto { r#type: hdfs::DatanodeReportTypeProto::All as i32 };
    let report: hdfs::GetDatanodeStorageReportResponseProto =
        root.call("getDatanodeStorageReport", &request).await;
    assert_eq!(report.datanode_storage_reports[0].storage_reports[0].storage_uuid, "DS-n1");
    let defaults: hdfs::GetServerDefaultsResponseProto =
        alice.call("getServerDefaults", &hdfs::GetServerDefaultsRequestProto {}).await;
    let defaults = defaults.server_defaults;
    assert_eq!((defaults.block_size, defaults.replication), (128 << 20, 3));
    assert_eq!((defaults.checksum_type, defaults.key_provider_uri.as_deref()), (Some(2), Some("")));
    let request = hdfs::ListCorruptFileBlocksRequestProto { path: "/".into(), cookie: None };
    let corrupt: hdfs::ListCorruptFileBlocksResponseProto =
        root.call("listCorruptFileBlocks", &request).await;
    assert!(corrupt.corrupt.files.is_empty());
    root.create("/open").await;
    let request = hdfs::ListOpenFilesRequestProto { id: 0, types: vec![1], path: None };
    let open: hdfs::ListOpenFilesResponseProto = root.call("listOpenFiles", &request).await;
    assert_eq!((open.entries.len(), open.entries[0].path.as_str()), (1, "/open"));
    let _: hdfs::MsyncResponseProto = root.call("msync", &hdfs::MsyncRequestProto {}).await;
    let _: hdfs::RefreshNodesResponseProto =
        root.call("refreshNodes", &hdfs::RefreshNodesRequestProto {}).await;
}

/// Asks page after page, as HDFS's clients do: with the cookie of the last one, until one is empty.
async fn corrupt_files(client: &Client, path: &str) -> Vec<Vec<String>> {
    let (mut pages, mut cookie) = (Vec::new(), None);
    loop {
        let request = hdfs::ListCorruptFileBlocksRequestProto { path: path.into(), cookie: cookie.clone() };
        let answer: hdfs::ListCorruptFileBlocksResponseProto =
            client.call("listCorruptFileBlocks", &request).await;
        if answer.corrupt.files.is_empty() {
            return pages;
        }
        assert_ne!(cookie.as_ref(), Some(&answer.corrupt.cookie), "the same page for ever");
        cookie = Some(answer.corrupt.cookie);
        pages.push(answer.corrupt.files);
    }
}

/// An entry a block, and none twice or left out where an answer ends; nor does what is elsewhere count.
#[tokio::test]
async fn corrupt_files_of_several_pages() {
    const BLOCKS: usize = 100;
    let fixture = Fixture::with(patient).await;
    let (root, nodes) = (fixture.client("hdfs"), [fixture.datanode("n1").await]);
    let names = ["/a/1", "/a/2", "/b/1", "/a/3", "/a/4", "/b/2", "/a/5", "/a/6"];
    for name in names {
        root.create(name).await;
        let mut last = None;
        for _ in 0..BLOCKS {
            let block = full(&root.add_block(name, last).await, 9);
            nodes[0].received(&block).await;
            last = Some(block);
        }
        assert!(root.complete(name, last).await);
    }
    nodes[0].fail().await;
    let deadline = Instant::now() + LIMIT;
    loop {
        let stats: hdfs::GetFsStatsResponseProto =
            root.call("getFsStats", &hdfs::GetFsStatusRequestProto {}).await;
        if stats.missing_blocks == (names.len() * BLOCKS) as u64 {
            break;
        }
        assert!(Instant::now() < deadline, "{} blocks are missing", stats.missing_blocks);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (path, lengths) in [("/", vec![500, 300]), ("/a", vec![500, 100]), ("/b", vec![200]), ("/c", vec![])]
    {
        let pages = corrupt_files(&root, path).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "{path}");
        let all = pages.concat();
        for name in names {
            let expected = if name.starts_with(path) { BLOCKS } else { 0 };
            assert_eq!(all.iter().filter(|file| *file == name).count(), expected, "{name} in {path}");
        }
    }
}

/// `dfsadmin -report` prints a line of what is there only, and HDFS has all of it.
#[tokio::test]
async fn the_figures_of_what_is_not_there_are_noughts() {
    let fixture = Fixture::with(patient).await;
    let stats: hdfs::GetFsEcBlockGroupStatsResponseProto = fixture
        .client("alice")
        .call("getFsECBlockGroupStats", &hdfs::GetFsEcBlockGroupStatsRequestProto {})
        .await;
    let expected = hdfs::GetFsEcBlockGroupStatsResponseProto {
        highest_prio_low_redundancy_blocks: Some(0),
        badly_distributed_blocks: Some(0),
        ..Default::default()
    };
    assert_eq!(stats, expected);
}

#[tokio::test]
async fn the_small_protocols() {
    let fixture = Fixture::start().await;
    let mappings = fixture.of("bob", "org.apache.hadoop.tools.GetUserMappingsProtocol");
    let request = common::GetGroupsForUserRequestProto { user: "alice".into() };
    let groups: common::GetGroupsForUserResponseProto = mappings.call("getGroupsForUser", &request).await;
    assert_eq!(groups.groups, ["staff"]);

    let refresh = |user| fixture.of(user, "org.apache.hadoop.security.RefreshUserMappingsProtocol");
    let request = common::RefreshUserToGroupsMappingsRequestProto {};
    let _: common::RefreshUserToGroupsMappingsResponseProto =
        refresh("hdfs").call("refreshUserToGroupsMappings", &request).await;
    let refused = refresh("bob").refused("refreshUserToGroupsMappings", &request).await;
    assert_eq!(refused.0, "AccessControlException");

    let namenode = fixture.of("bob", "org.apache.hadoop.hdfs.server.protocol.NamenodeProtocol");
    let version: hdfs::VersionResponseProto =
        namenode.call("versionRequest", &hdfs::VersionRequestProto {}).await;
    assert_eq!(version.info.software_version, "3.5.0");

    let ha = fixture.of("hdfs", "org.apache.hadoop.ha.HAServiceProtocol");
    let status: common::GetServiceStatusResponseProto =
        ha.call("getServiceStatus", &common::GetServiceStatusRequestProto {}).await;
    assert_eq!(status.state, common::HaServiceStateProto::Active as i32);

    let (class, message) = fixture.client("bob").refused("noSuchThing", &request).await;
    assert_eq!(class, "RpcNoSuchMethodException");
    assert!(message.contains("noSuchThing"), "{message}");
    let nobody = fixture.of("bob", "org.example.Nothing");
    assert_eq!(nobody.refused("x", &request).await.0, "RpcNoSuchProtocolException");
}

fn safe_mode(action: hdfs::SafeModeActionProto) -> hdfs::SetSafeModeRequestProto {
    hdfs::SetSafeModeRequestProto { action: action as i32, checked: None }
}

/// HDFS asks its retry cache before safe mode: who lost the answer gets it in safe mode, too.
#[tokio::test]
async fn what_happened_once_is_answered_again_in_safe_mode() {
    let fixture = Fixture::start().await;
    let hdfs = fixture.client("hdfs");
    hdfs.touch("/old").await;
    let enter = safe_mode(hdfs::SafeModeActionProto::SafemodeEnter);
    let file_id = |answer: hdfs::CreateResponseProto| answer.fs.unwrap().file_id;
    let made = hdfs.again("create", &create("/new", "w2"), 7_001).await.map(file_id).unwrap();
    let appended: hdfs::AppendResponseProto =
        hdfs.again("append", &append("/old", "w3"), 7_002).await.unwrap();
    let renamed: hdfs::RenameResponseProto =
        hdfs.again("rename", &rename("/new", "/moved"), 7_003).await.unwrap();
    let deleted: hdfs::DeleteResponseProto = hdfs.again("delete", &delete("/moved"), 7_004).await.unwrap();
    assert!(renamed.result && deleted.result);
    assert!(hdfs.call::<_, hdfs::SetSafeModeResponseProto>("setSafeMode", &enter).await.result);

    let again = hdfs.again("create", &create("/new", "w2"), 7_001).await.map(file_id);
    assert_eq!(again.unwrap(), made);
    assert_eq!(appended, hdfs.again("append", &append("/old", "w3"), 7_002).await.unwrap());
    assert_eq!(renamed, hdfs.again("rename", &rename("/new", "/moved"), 7_003).await.unwrap());
    assert_eq!(deleted, hdfs.again("delete", &delete("/moved"), 7_004).await.unwrap());

    // What did not happen does not, under a number of its own or one that was refused before.
    for _ in 0..2 {
        let refused = hdfs.again::<_, hdfs::DeleteResponseProto>("delete", &delete("/old"), 7_005).await;
        assert!(refused.unwrap_err().to_string().contains("Name node is in safe mode"));
    }
    // What may happen any number of times is no repeat.
    assert_eq!(hdfs.refused("mkdirs", &mkdirs("/d")).await.0, "SafeModeException");
    assert!(hdfs.status("/old").await.is_some());
}

/// Safe mode comes before what is said of features that are not there, as in HDFS, but for who may use them at all.
#[tokio::test]
async fn in_safe_mode_features_that_are_not_there_are_refused_for_that() {
    let fixture = Fixture::start().await;
    let (hdfs, alice) = (fixture.client("hdfs"), fixture.client("alice"));
    let enter = safe_mode(hdfs::SafeModeActionProto::SafemodeEnter);
    assert!(hdfs.call::<_, hdfs::SetSafeModeResponseProto>("setSafeMode", &enter).await.result);
    let about = |src: &str| hdfs::GetFileInfoRequestProto { src: src.into() };
    for (method, words) in [
        ("setAcl", "Cannot set ACL on /d"),
        ("removeDefaultAcl", "Cannot remove default ACL entries on /d"),
        ("setXAttr", "Cannot set XAttr on /d"),
        ("allowSnapshot", "Cannot allow snapshot for /d"),
        ("createSnapshot", "Cannot create snapshot for /d"),
        ("setQuota", "Cannot set quota on /d"),
        ("removeCachePool", "Cannot modify cache pool/d"),
        ("enableErasureCodingPolicy", "Cannot enable erasure coding policy /d"),
        ("renewDelegationToken", "Cannot renew delegation token"),
    ] {
        let refused = hdfs.refused(method, &about("/d")).await;
        assert_eq!(refused, ("SafeModeException".into(), format!("{words}. Name node is in safe mode.")));
    }
    let info = hdfs::CachePoolInfoProto { pool_name: Some("p".into()), ..Default::default() };
    let words = hdfs.refused("addCachePool", &hdfs::AddCachePoolRequestProto { info }).await.1;
    assert_eq!(words, "Cannot add cache poolp. Name node is in safe mode.");
    assert_eq!(hdfs.refused("createSymlink", &about("/d")).await.1, "Symlinks not supported");
    let denied = "Access denied for user alice. Superuser privilege is required for operation allowSnapshot";
    assert_eq!(alice.refused("allowSnapshot", &about("/d")).await.1, denied);
}
