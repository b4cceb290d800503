//! Features that are not there: reading calls find nothing, changing ones say so.

use mobula_proto::hdfs;

use crate::fixture::*;

#[tokio::test]
async fn reading_calls_answer_as_an_hdfs_without_the_feature() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.touch("/f").await;
    let acl: hdfs::GetAclStatusResponseProto =
        client.call("getAclStatus", &hdfs::GetAclStatusRequestProto { src: "/f".into() }).await;
    assert_eq!((acl.result.owner.as_str(), acl.result.entries.len()), ("hdfs", 0));
    let names: hdfs::ListXAttrsResponseProto =
        client.call("listXAttrs", &hdfs::ListXAttrsRequestProto { src: "/f".into() }).await;
    assert!(names.x_attrs.is_empty());
    let all = hdfs::GetXAttrsRequestProto { src: "/f".into(), x_attrs: Vec::new() };
    let found: hdfs::GetXAttrsResponseProto = client.call("getXAttrs", &all).await;
    assert!(found.x_attrs.is_empty());
    let named = hdfs::GetXAttrsRequestProto { src: "/f".into(), x_attrs: vec![hdfs::XAttrProto::default()] };
    assert_eq!(client.refused("getXAttrs", &named).await.0, "XAttrNotFoundException");
    let zone: hdfs::GetEzForPathResponseProto =
        client.call("getEZForPath", &hdfs::GetEzForPathRequestProto { src: "/f".into() }).await;
    assert!(zone.zone.is_none());
    let request = hdfs::GetErasureCodingPolicyRequestProto { src: "/f".into() };
    let policy: hdfs::GetErasureCodingPolicyResponseProto =
        client.call("getErasureCodingPolicy", &request).await;
    assert!(policy.ec_policy.is_none());
    let request = hdfs::GetErasureCodingPolicyRequestProto { src: "/nothing".into() };
    assert_eq!(client.refused("getErasureCodingPolicy", &request).await.0, "FileNotFoundException");
    let key: hdfs::GetDataEncryptionKeyResponseProto =
        client.call("getDataEncryptionKey", &hdfs::GetDataEncryptionKeyRequestProto {}).await;
    assert!(key.data_encryption_key.is_none());
    let request = hdfs::GetSnapshottableDirListingRequestProto {};
    let listing: hdfs::GetSnapshottableDirListingResponseProto =
        client.call("getSnapshottableDirListing", &request).await;
    assert!(listing.snapshottable_dir_list.is_none());
    let policies: hdfs::GetStoragePoliciesResponseProto =
        client.call("getStoragePolicies", &hdfs::GetStoragePoliciesRequestProto {}).await;
    assert_eq!(policies.policies.len(), 8);
    let policy: hdfs::GetStoragePolicyResponseProto =
        client.call("getStoragePolicy", &hdfs::GetStoragePolicyRequestProto { path: "/f".into() }).await;
    assert_eq!(policy.storage_policy.policy_id, 7);
}

#[tokio::test]
async fn changing_calls_say_that_it_is_not_there() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.touch("/d/f").await;
    let any = hdfs::GetFileInfoRequestProto { src: "/d".into() };
    for method in [
        "removeAcl",
        "setXAttr",
        "allowSnapshot",
        "setQuota",
        "createSymlink",
        "addCachePool",
        "setErasureCodingPolicy",
        "satisfyStoragePolicy",
        "setBalancerBandwidth",
    ] {
        let (class, message) = client.refused(method, &any).await;
        assert_eq!(class, "UnsupportedOperationException", "{method}");
        assert!(
            message.contains("upported") || message.contains("cannot") || message.contains("no balancer")
        );
    }
    assert_eq!(
        client.refused("createSnapshot", &any).await,
        ("SnapshotException".into(), "Directory is not a snapshottable directory: /d".into())
    );
    let zone = hdfs::CreateEncryptionZoneRequestProto { src: "/d".into(), key_name: None };
    assert_eq!(
        client.refused("createEncryptionZone", &zone).await.1,
        "Can't create an encryption zone for /d since no key provider is available."
    );
    let request = hdfs::HaServiceStateRequestProto {};
    assert_eq!(client.refused("getHAServiceState", &request).await.0, "ServiceFailedException");
}

#[tokio::test]
async fn every_file_has_the_policy_hot_and_may_be_given_it() {
    let fixture = Fixture::start().await;
    let (root, alice) = (fixture.client("hdfs"), fixture.client("alice"));
    root.touch("/d/f").await;
    let set = |src: &str, name: &str| hdfs::SetStoragePolicyRequestProto {
        src: src.into(),
        policy_name: name.into(),
    };
    let _: hdfs::SetStoragePolicyResponseProto = root.call("setStoragePolicy", &set("/d", "hot")).await;
    let unset = |src: &str| hdfs::UnsetStoragePolicyRequestProto { src: src.into() };
    let _: hdfs::UnsetStoragePolicyResponseProto = root.call("unsetStoragePolicy", &unset("/d/f")).await;
    let missing = ("FileNotFoundException".to_string(), "File/Directory does not exist: /none".to_string());
    assert_eq!(root.refused("setStoragePolicy", &set("/none", "HOT")).await, missing);
    assert_eq!(root.refused("unsetStoragePolicy", &unset("/none")).await, missing);
    assert_eq!(alice.refused("setStoragePolicy", &set("/d", "HOT")).await.0, "AccessControlException");
    let unknown = "Cannot find a block policy with the name LUKEWARM";
    assert_eq!(
        root.refused("setStoragePolicy", &set("/d", "LUKEWARM")).await,
        ("HadoopIllegalArgumentException".into(), unknown.into())
    );
    assert_eq!(root.refused("setStoragePolicy", &set("/d", "COLD")).await.0, "UnsupportedOperationException");

    let with =
        |name: &str| hdfs::CreateRequestProto { storage_policy: Some(name.into()), ..create("/d/g", "w1") };
    assert_eq!(root.refused("create", &with("LUKEWARM")).await.1, unknown);
    assert_eq!(root.refused("create", &with("ONE_SSD")).await.0, "UnsupportedOperationException");
    let made: hdfs::CreateResponseProto = root.call("create", &with("HOT")).await;
    assert!(made.fs.is_some());
}

#[tokio::test]
async fn what_hangs_on_a_file_is_told_to_those_who_may_read_it() {
    let fixture = Fixture::start().await;
    let (root, alice) = (fixture.client("hdfs"), fixture.client("alice"));
    root.touch("/f").await;
    let private = hdfs::SetPermissionRequestProto { src: "/f".into(), permission: permission(0o600) };
    let _: hdfs::SetPermissionResponseProto = root.call("setPermission", &private).await;
    // All of them have the path as their first field.
    let any = hdfs::GetFileInfoRequestProto { src: "/f".into() };
    for method in [
        "getStoragePolicy",
        "getXAttrs",
        "listXAttrs",
        "getErasureCodingPolicy",
        "getEZForPath",
        "getEnclosingRoot",
    ] {
        let (class, message) = alice.refused(method, &any).await;
        assert_eq!(class, "AccessControlException", "{method}");
        assert!(message.contains("user=alice, access=READ, inode=\"/f\""), "{method}: {message}");
    }
    assert!(alice.status("/f").await.is_some());
}

/// Spark's TRUNCATE TABLE sets such a one where there was none.
#[tokio::test]
async fn an_acl_of_owner_group_and_others_alone_is_a_mode() {
    use hdfs::acl_entry_proto::{
        AclEntryScopeProto as Scope, AclEntryTypeProto as Type, FsActionProto as Action,
    };
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.touch("/d/f").await;
    let entry = |kind: Type, action: Action| hdfs::AclEntryProto {
        r#type: kind as i32,
        scope: Scope::Access as i32,
        permissions: action as i32,
        name: None,
    };
    let minimal = vec![
        entry(Type::User, Action::PermAll),
        entry(Type::Group, Action::ReadExecute),
        entry(Type::Other, Action::None),
    ];
    let set = |src: &str, acl_spec: &[hdfs::AclEntryProto]| hdfs::SetAclRequestProto {
        src: src.into(),
        acl_spec: acl_spec.to_vec(),
    };
    for (mode, after) in [(0o1777, 0o1750), (0o700, 0o750)] {
        let permission = hdfs::FsPermissionProto { perm: mode };
        let request = hdfs::SetPermissionRequestProto { src: "/d".into(), permission };
        let _: hdfs::SetPermissionResponseProto = client.call("setPermission", &request).await;
        let _: hdfs::SetAclResponseProto = client.call("setAcl", &set("/d", &minimal)).await;
        assert_eq!(client.status("/d").await.unwrap().permission.perm, after, "from {mode:o}");
    }
    // What is asked before is done before: the sticky bit that stays is the one that there is then.
    for round in 0..50 {
        let (sticky, expected) = if round % 2 == 0 { (0o1777, 0o1750) } else { (0o777, 0o750) };
        let permission = hdfs::FsPermissionProto { perm: sticky };
        let request = hdfs::SetPermissionRequestProto { src: "/d".into(), permission };
        let acl = set("/d", &minimal);
        let both = tokio::join!(
            client.0.call::<_, hdfs::SetPermissionResponseProto>("setPermission", &request),
            client.0.call::<_, hdfs::SetAclResponseProto>("setAcl", &acl),
        );
        both.0.unwrap();
        both.1.unwrap();
        assert_eq!(client.status("/d").await.unwrap().permission.perm, expected, "round {round}");
    }
    let _: hdfs::SetAclResponseProto = client.call("setAcl", &set("/d", &[])).await;
    assert_eq!(client.status("/d").await.unwrap().permission.perm, 0o750, "nothing is taken away");
    assert_eq!(client.refused("setAcl", &set("/nothing", &minimal)).await.0, "FileNotFoundException");
    let stranger = fixture.client("stranger");
    assert_eq!(stranger.refused("setAcl", &set("/d", &minimal)).await.0, "AccessControlException");
    let named = hdfs::AclEntryProto { name: Some("somebody".into()), ..minimal[0].clone() };
    let default = hdfs::AclEntryProto { scope: Scope::Default as i32, ..minimal[0].clone() };
    let mask = entry(Type::Mask, Action::Read);
    for more in [named, default, mask, minimal[0].clone()] {
        let spec = [&minimal[..], &[more]].concat();
        assert_eq!(client.refused("setAcl", &set("/d", &spec)).await.0, "UnsupportedOperationException");
    }
    let two = set("/d", &minimal[..2]);
    assert_eq!(client.refused("setAcl", &two).await.0, "UnsupportedOperationException");
    assert_eq!(client.status("/d").await.unwrap().permission.perm, 0o750);
}
