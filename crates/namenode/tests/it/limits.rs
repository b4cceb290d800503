//! What an administrator has put out of reach: protected directories, a number of objects, lengths of answers.

use mobula_namespace::Guards;
use mobula_proto::hdfs;
use mobula_types::HdfsPath;

use crate::fixture::*;

fn protect(paths: &[&str], subdirectories: bool) -> Guards {
    let protected = paths.iter().map(|path| HdfsPath::parse(path).unwrap()).collect();
    Guards { protected, protect_subdirectories: subdirectories, ..Guards::default() }
}

/// The old rename and the new one answer alike.
async fn refused_to_move(client: &Client, src: &str) -> String {
    let to = "/elsewhere";
    let old = client.refused("rename", &rename(src, to)).await;
    let rename2 = hdfs::Rename2RequestProto {
        src: src.into(),
        dst: to.into(),
        overwrite_dest: false,
        move_to_trash: None,
    };
    assert_eq!(old, client.refused("rename2", &rename2).await);
    assert_eq!(old, client.refused("delete", &delete(src)).await);
    assert_eq!(old.0, "AccessControlException");
    old.1
}

async fn deletes(client: &Client, path: &str) -> bool {
    client.call::<_, hdfs::DeleteResponseProto>("delete", &delete(path)).await.result
}

#[tokio::test]
async fn protected_directories_stay_while_they_hold_something() {
    let mut fixture =
        Fixture::with(|config| config.guards = protect(&["/a/b", "/a/empty", "/z"], false)).await;
    let hdfs = fixture.client("hdfs");
    for path in ["/a/b/c/d", "/a/empty", "/a-b/x", "/z"] {
        assert!(hdfs.mkdirs(path).await);
    }
    hdfs.touch("/a/b/f").await;
    let own = "Cannot delete/rename non-empty protected directory /a/b";
    assert_eq!(refused_to_move(&hdfs, "/a/b").await, own);
    let below = "Cannot delete/rename non-empty protected subdirectory /a/b";
    assert_eq!(refused_to_move(&hdfs, "/a").await, below);
    // Without `recursive` it is said first that it is not empty.
    let flat = hdfs::DeleteRequestProto { src: "/a/b".into(), recursive: false };
    assert_eq!(hdfs.refused("delete", &flat).await.0, "PathIsNotEmptyDirectoryException");
    // What is in it, what is only called alike, and what is empty may go.
    assert!(deletes(&hdfs, "/a/b/c").await && deletes(&hdfs, "/a-b").await && deletes(&hdfs, "/z").await);
    assert!(deletes(&hdfs, "/a/empty").await);
    assert!(deletes(&hdfs, "/a/b/f").await && deletes(&hdfs, "/a").await);

    // Another configuration at the next start.
    assert!(hdfs.mkdirs("/a/b/c/d").await);
    fixture.config.guards = protect(&["/a", "/a/b"], true);
    fixture.kill_and_restart().await;
    let hdfs = fixture.client("hdfs");
    let above = "Cannot delete/rename subdirectory under protected subdirectory /a/b";
    assert_eq!(refused_to_move(&hdfs, "/a/b/c").await, above);
    assert!(deletes(&hdfs, "/a/b/c/d").await, "an empty one");
    fixture.config.guards = Guards::default();
    fixture.kill_and_restart().await;
    assert!(deletes(&fixture.client("hdfs"), "/a").await);
}

#[tokio::test]
async fn no_more_objects_than_an_administrator_wants() {
    let fixture = Fixture::with(|config| config.guards.objects_max = 4).await;
    let (hdfs, nodes) = (fixture.client("hdfs"), fixture.three().await);
    let words = "Exceeded the configured number of objects 4 in the filesystem.";
    // With the root and the block, four.
    hdfs.create("/f").await;
    assert!(hdfs.mkdirs("/d").await);
    let block = full(&hdfs.add_block("/f", None).await, 1_000);
    for node in &nodes {
        node.received(&block).await;
    }
    let refused = ("IOException".to_owned(), words.to_owned());
    assert_eq!(hdfs.refused("mkdirs", &mkdirs("/e")).await, refused);
    assert_eq!(hdfs.refused("create", &create("/g", "w1")).await, refused);
    assert_eq!(hdfs.refused("addBlock", &add_block("/f", Some(block.clone()))).await, refused);
    // What is there already, and what ends.
    assert!(hdfs.mkdirs("/d").await && hdfs.complete("/f", Some(block)).await);
    // A file that takes the place of another with its block makes none more.
    let over = hdfs::CreateRequestProto { create_flag: 3, ..create("/f", "w1") };
    let _: hdfs::CreateResponseProto = hdfs.call("create", &over).await;
    assert!(hdfs.mkdirs("/e").await);
    assert_eq!(hdfs.refused("mkdirs", &mkdirs("/h")).await, refused);
}

#[tokio::test]
async fn listings_are_as_long_as_an_administrator_wants() {
    let fixture = Fixture::with(|config| (config.listing_max, config.batched_paths_max) = (2, 2)).await;
    let hdfs = fixture.client("hdfs");
    for path in ["/d/a", "/d/b", "/d/c"] {
        assert!(hdfs.mkdirs(path).await);
    }
    assert_eq!(hdfs.names("/d").await, ["a", "b"]);
    let batch = |count: usize| hdfs::GetBatchedListingRequestProto {
        paths: vec!["/d".into(); count],
        start_after: bytes::Bytes::new(),
        need_location: false,
    };
    let listed: hdfs::GetBatchedListingResponseProto = hdfs.call("getBatchedListing", &batch(2)).await;
    assert!(listed.has_more && listed.listings[0].partial_listing.len() == 2);
    let refused = hdfs.refused("getBatchedListing", &batch(3)).await;
    assert_eq!(refused, ("IllegalArgumentException".into(), "Too many source paths (3 > 2)".into()));
}
