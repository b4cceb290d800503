//! Figures, safe mode, and the small protocols.

use mobula_proto::{common, hdfs};

use crate::fixture::*;

#[tokio::test]
async fn safe_mode_is_an_administrators() {
    let fixture = Fixture::start().await;
    let (root, alice) = (fixture.client("hdfs"), fixture.client("alice"));
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
    let (class, message) = root.refused("mkdirs", &mkdirs("/a")).await;
    assert_eq!(class, "SafeModeException");
    assert_eq!(message, "Cannot create directory /a. Name node is in safe mode.");
    assert!(root.status("/").await.is_some(), "reading goes on");
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
