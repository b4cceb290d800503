//! Names: directories, listings, renames, permissions, and their exceptions.

use mobula_proto::hdfs;

use crate::fixture::*;

fn said(class: &str, message: &str) -> (String, String) {
    (class.into(), message.into())
}

#[tokio::test]
async fn directories_are_made_listed_renamed_and_deleted() {
    let fixture = Fixture::start().await;
    let hdfs_user = fixture.client("hdfs");
    assert!(hdfs_user.mkdirs("/a/b").await);
    assert!(hdfs_user.mkdirs("/a/b").await, "an existing directory is as good");
    hdfs_user.touch("/a/f").await;
    assert_eq!(hdfs_user.names("/a").await, ["b", "f"]);
    assert_eq!(hdfs_user.names("/a/f").await, [""], "a file gives itself, without a name");

    let status = hdfs_user.status("//a/f/").await.unwrap();
    assert_eq!((status.path.len(), status.file_type, status.length), (0, 2, 0));
    assert_eq!((status.owner.as_str(), status.permission.perm), ("hdfs", 0o644));
    assert_eq!((status.block_replication, status.blocksize), (Some(3), Some(1 << 20)));
    assert_eq!(hdfs_user.status("/nothing").await, None);

    let renamed: hdfs::RenameResponseProto = hdfs_user.call("rename", &rename("/a/f", "/g")).await;
    assert!(renamed.result);
    let renamed: hdfs::RenameResponseProto = hdfs_user.call("rename", &rename("/a/f", "/g")).await;
    assert!(!renamed.result, "a missing source");
    let deleted: hdfs::DeleteResponseProto = hdfs_user.call("delete", &delete("/a")).await;
    assert!(deleted.result);
    let deleted: hdfs::DeleteResponseProto = hdfs_user.call("delete", &delete("/a")).await;
    assert!(!deleted.result);
    assert_eq!(hdfs_user.names("/").await, ["g"]);
}

#[tokio::test]
async fn what_nobody_made_is_shown_as_in_hdfs() {
    let fixture = Fixture::start().await;
    let client = fixture.client("alice");
    let bare = |status: hdfs::HdfsFileStatusProto| {
        (status.permission.perm, status.owner, status.group, status.file_id, status.flags)
    };
    let nobody = |mode: u32| (mode, String::new(), String::new(), Some(u64::MAX), Some(0));
    assert_eq!(bare(client.status("/.reserved").await.unwrap()), nobody(0o1770));
    assert_eq!(bare(client.status("/.snapshot").await.unwrap()), nobody(0o777));
    assert_eq!(client.status("/").await.unwrap().flags, Some(8), "it may have snapshots");
    assert_eq!(client.names("/.reserved").await, [".inodes", "raw"]);
    assert!(client.names("/.snapshot").await.is_empty());
}

#[tokio::test]
async fn listings_come_in_pages() {
    let fixture = Fixture::with(|config| config.listing_max = 3).await;
    let client = fixture.client("hdfs");
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        client.mkdirs(&format!("/d/{name}")).await;
    }
    let mut seen = Vec::new();
    let mut start_after = bytes::Bytes::new();
    loop {
        let request = hdfs::GetListingRequestProto { src: "/d".into(), start_after, need_location: true };
        let page: hdfs::GetListingResponseProto = client.call("getListing", &request).await;
        let page = page.dir_list.unwrap();
        assert!(page.partial_listing.len() <= 3);
        seen.extend(page.partial_listing.iter().map(|entry| entry.path.clone()));
        start_after = seen.last().unwrap().clone();
        assert_eq!(page.remaining_entries as usize, 7 - seen.len());
        if page.remaining_entries == 0 {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e", "f", "g"]);
}

#[tokio::test]
async fn several_directories_are_listed_in_one_batch() {
    let fixture = Fixture::with(|config| config.listing_max = 3).await;
    let client = fixture.client("hdfs");
    for name in ["/d/a", "/d/b", "/e/c", "/e/d", "/e/e"] {
        client.mkdirs(name).await;
    }
    let paths: Vec<String> = ["/d", "/missing", "/e"].map(String::from).to_vec();
    let mut seen = Vec::new();
    let mut errors = Vec::new();
    let mut start_after = bytes::Bytes::new();
    let mut cursor = bytes::Bytes::new();
    loop {
        let request = hdfs::GetBatchedListingRequestProto {
            paths: paths.clone(),
            start_after: start_after.clone(),
            need_location: false,
        };
        let page: hdfs::GetBatchedListingResponseProto = client.call("getBatchedListing", &request).await;
        for listing in page.listings {
            errors.extend(listing.exception.map(|exception| {
                (listing.parent_idx, exception.class_name, exception.message.unwrap_or_default())
            }));
            let names = listing.partial_listing.iter();
            seen.extend(names.map(|entry| (listing.parent_idx, entry.path.clone())));
        }
        if !page.has_more {
            break;
        }
        start_after = page.start_after;
        cursor = start_after.clone();
    }
    let names: Vec<_> = seen.iter().map(|(at, name)| (*at, std::str::from_utf8(name).unwrap())).collect();
    assert_eq!(names, [(0, "a"), (0, "b"), (2, "c"), (2, "d"), (2, "e")]);
    let missing = ("java.io.FileNotFoundException".to_string(), "Path /missing does not exist".to_string());
    assert_eq!(errors, [(1, missing.0, missing.1)]);

    let none = hdfs::GetBatchedListingRequestProto::default();
    let page: hdfs::GetBatchedListingResponseProto = client.call("getBatchedListing", &none).await;
    assert!(page.listings.is_empty() && !page.has_more);
    let many = hdfs::GetBatchedListingRequestProto { paths: vec!["/d".into(); 101], ..Default::default() };
    assert_eq!(
        client.refused("getBatchedListing", &many).await,
        said("IllegalArgumentException", "Too many source paths (101 > 100)")
    );
    let of_others = hdfs::GetBatchedListingRequestProto {
        paths: vec!["/d".into()],
        start_after: cursor,
        ..Default::default()
    };
    assert_eq!(client.refused("getBatchedListing", &of_others).await.0, "IllegalArgumentException");
}

#[tokio::test]
async fn a_listing_goes_on_after_an_inode() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.touch("/d/a").await;
    client.touch("/d/b").await;
    let id = client.status("/d/a").await.unwrap().file_id.unwrap();
    let after = |id: u64| hdfs::GetListingRequestProto {
        src: "/d".into(),
        start_after: format!("/.reserved/.inodes/{id}").into(),
        need_location: false,
    };
    let page: hdfs::GetListingResponseProto = client.call("getListing", &after(id)).await;
    let names: Vec<_> = page.dir_list.unwrap().partial_listing.into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(
        client.refused("getListing", &after(9)).await,
        said("DirectoryListingStartAfterNotFoundException", "Can't find startAfter /.reserved/.inodes/9")
    );
}

#[tokio::test]
async fn who_may_do_what() {
    let fixture = Fixture::start().await;
    let (root, alice) = (fixture.client("hdfs"), fixture.client("alice"));
    assert_eq!(
        alice.refused("mkdirs", &mkdirs("/x")).await,
        said(
            "AccessControlException",
            "Permission denied: user=alice, access=WRITE, inode=\"/\":hdfs:supergroup:drwxr-xr-x"
        )
    );
    root.mkdirs("/home").await;
    let owner = hdfs::SetOwnerRequestProto {
        src: "/home".into(),
        username: Some("alice".into()),
        groupname: Some("staff".into()),
    };
    assert_eq!(alice.refused("setOwner", &owner).await.0, "AccessControlException");
    let _: hdfs::SetOwnerResponseProto = root.call("setOwner", &owner).await;
    assert!(alice.mkdirs("/home/mine").await);
    let mode = hdfs::SetPermissionRequestProto { src: "/home".into(), permission: permission(0o700) };
    let _: hdfs::SetPermissionResponseProto = alice.call("setPermission", &mode).await;

    let bob = fixture.client("bob");
    let request = hdfs::GetFileInfoRequestProto { src: "/home/mine".into() };
    assert_eq!(bob.refused("getFileInfo", &request).await.0, "AccessControlException");
    assert!(fixture.client("eve").status("/home/mine").await.is_some(), "of the supergroup");
    let access = hdfs::CheckAccessRequestProto { path: "/home".into(), mode: 4 };
    assert_eq!(bob.refused("checkAccess", &access).await.0, "AccessControlException");
    let _: hdfs::CheckAccessResponseProto = alice.call("checkAccess", &access).await;
}

#[tokio::test]
async fn names_that_cannot_be() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    assert_eq!(
        client.refused("mkdirs", &mkdirs("/a/../b")).await,
        said("InvalidPathException", "Invalid path name Invalid file name: /a/../b")
    );
    assert_eq!(client.refused("mkdirs", &mkdirs("a")).await.0, "InvalidPathException");
    for twice in ["//a", "/a//b", "///a//b/"] {
        let words = format!("Invalid path name Invalid file name: {twice}");
        assert_eq!(client.refused("mkdirs", &mkdirs(twice)).await, said("InvalidPathException", &words));
        assert_eq!(
            client.refused("rename", &rename("/x", twice)).await,
            said("InvalidPathException", &words)
        );
        let words = format!("Invalid path name {twice}");
        assert_eq!(
            client.refused("create", &create(twice, "w1")).await,
            said("InvalidPathException", &words)
        );
    }
    assert!(client.mkdirs("/slashes//").await, "at the end they are nothing");
    assert!(client.status("//slashes").await.is_some(), "and what is there is found");
    assert_eq!(
        client.refused("create", &create("/a:b", "w1")).await,
        said("InvalidPathException", "Invalid path name /a:b")
    );
    let rename2 = hdfs::Rename2RequestProto {
        src: "/slashes".into(),
        dst: "/a:b".into(),
        overwrite_dest: false,
        move_to_trash: None,
    };
    for (method, refused) in [
        ("rename", client.refused("rename", &rename("/slashes", "/a:b")).await),
        ("rename2", client.refused("rename2", &rename2).await),
    ] {
        let words = "Invalid path name Invalid file name: /a:b";
        assert_eq!(refused, said("InvalidPathException", words), "{method}");
    }
    assert_eq!(
        client.refused("create", &create(&"/x".repeat(1_001), "w1")).await,
        said("IOException", "create: Pathname too long.  Limit 8000 characters, 1000 levels.")
    );
    let long = format!("/{}", "x".repeat(256));
    assert_eq!(
        client.refused("mkdirs", &mkdirs(&long)).await.0,
        "FSLimitException$PathComponentTooLongException"
    );
    let relative = hdfs::GetFileInfoRequestProto { src: "a".into() };
    assert_eq!(client.refused("getFileInfo", &relative).await.0, "AssertionError");
    let huge = hdfs::GetFileInfoRequestProto { src: format!("/{}", "x".repeat(1 << 20)) };
    assert_eq!(client.refused("getFileInfo", &huge).await.0, "IOException");

    client.touch("/f").await;
    assert_eq!(
        client.refused("mkdirs", &mkdirs("/f/g")).await,
        said("ParentNotDirectoryException", "/f (is not a directory)")
    );
    assert_eq!(
        client.refused("mkdirs", &mkdirs("/f")).await,
        said("FileAlreadyExistsException", "Path is not a directory: /f")
    );
}

#[tokio::test]
async fn rename2_refuses_with_words() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.mkdirs("/a").await;
    client.mkdirs("/b/c").await;
    let rename2 = |src: &str, dst: &str, overwrite_dest| hdfs::Rename2RequestProto {
        src: src.into(),
        dst: dst.into(),
        overwrite_dest,
        move_to_trash: None,
    };
    for (request, class, message) in [
        (rename2("/x", "/y", false), "FileNotFoundException", "rename source /x is not found."),
        (rename2("/a", "/b", false), "FileAlreadyExistsException", "rename destination /b already exists"),
        (rename2("/a", "/b", true), "IOException", "rename destination directory is not empty: /b"),
    ] {
        assert_eq!(client.refused("rename2", &request).await, said(class, message));
    }
    let _: hdfs::Rename2ResponseProto = client.call("rename2", &rename2("/a", "/b/c", true)).await;
    assert_eq!(client.names("/b").await, ["c"]);
}

#[tokio::test]
async fn times_replication_and_sums() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.touch("/d/f").await;
    let times = hdfs::SetTimesRequestProto { src: "/d/f".into(), mtime: 5_000, atime: u64::MAX };
    let _: hdfs::SetTimesResponseProto = client.call("setTimes", &times).await;
    let status = client.status("/d/f").await.unwrap();
    assert_eq!(status.modification_time, 5_000);
    assert!(status.access_time > 5_000, "-1 leaves it as it was");
    let accessed = status.access_time;
    let negative = u64::MAX - 1;
    let times = hdfs::SetTimesRequestProto { src: "/d/f".into(), mtime: negative, atime: negative };
    let _: hdfs::SetTimesResponseProto = client.call("setTimes", &times).await;
    let status = client.status("/d/f").await.unwrap();
    assert_eq!((status.modification_time, status.access_time), (5_000, accessed), "as any below 0");
    assert_eq!(client.status("/d").await.unwrap().access_time, 0, "nobody set it");
    let times = hdfs::SetTimesRequestProto { src: "/d".into(), mtime: 6_000, atime: 7_000 };
    let _: hdfs::SetTimesResponseProto = client.call("setTimes", &times).await;
    let status = client.status("/d").await.unwrap();
    assert_eq!((status.modification_time, status.access_time), (6_000, 7_000));
    let set = |src: &str, replication| hdfs::SetReplicationRequestProto { src: src.into(), replication };
    let done: hdfs::SetReplicationResponseProto = client.call("setReplication", &set("/d/f", 2)).await;
    assert!(done.result);
    let done: hdfs::SetReplicationResponseProto = client.call("setReplication", &set("/nothing", 2)).await;
    assert!(!done.result);
    assert_eq!(client.status("/d/f").await.unwrap().block_replication, Some(2));

    let request = hdfs::GetContentSummaryRequestProto { path: "/".into() };
    let sum: hdfs::GetContentSummaryResponseProto = client.call("getContentSummary", &request).await;
    assert_eq!((sum.summary.file_count, sum.summary.directory_count), (1, 2));
    assert_eq!((sum.summary.quota, sum.summary.space_quota), (i64::MAX as u64, u64::MAX));
    let request = hdfs::GetQuotaUsageRequestProto { path: "/d".into() };
    let usage: hdfs::GetQuotaUsageResponseProto = client.call("getQuotaUsage", &request).await;
    assert_eq!((usage.usage.file_and_directory_count, usage.usage.quota), (2, u64::MAX));
    let request = hdfs::GetQuotaUsageRequestProto { path: "/nothing".into() };
    assert_eq!(
        client.refused("getQuotaUsage", &request).await,
        said("FileNotFoundException", "File/Directory does not exist: /nothing")
    );
    let request = hdfs::GetPreferredBlockSizeRequestProto { filename: "/d/f".into() };
    let size: hdfs::GetPreferredBlockSizeResponseProto = client.call("getPreferredBlockSize", &request).await;
    assert_eq!(size.bsize, 1 << 20);
    let request = hdfs::IsFileClosedRequestProto { src: "/nothing".into() };
    assert_eq!(client.refused("isFileClosed", &request).await.0, "FileNotFoundException");
}

#[tokio::test]
async fn a_large_tree_is_deleted_while_others_go_on() {
    let fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    let calls = (0..5_000).map(|i| {
        let (rpc, request) = (client.0.clone(), mkdirs(&format!("/big/{:02}/{i}", i % 50)));
        async move { rpc.call::<_, hdfs::MkdirsResponseProto>("mkdirs", &request).await.unwrap() }
    });
    let mut set = tokio::task::JoinSet::new();
    calls.for_each(|call| _ = set.spawn(call));
    set.join_all().await;
    assert_eq!(client.names("/big").await.len(), 50);
    let deleted: hdfs::DeleteResponseProto = client.call("delete", &delete("/big")).await;
    assert!(deleted.result);
    assert!(client.mkdirs("/big/again").await);
    let service = fixture.namenode().service();
    until("the tree to be reaped", || async { service.view().counts().pending_reap == 0 }).await;
    assert_eq!(service.view().counts().inodes, 3);
}
