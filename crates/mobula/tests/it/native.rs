//! `hdfs-native`, a client that nobody here wrote, against an embedded cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use mobula::Cluster;

/// Bytes of a packet, a chunk and a block of these tests, around which sizes are chosen.
const PACKET: usize = 64 * 1024;
const CHUNK: usize = 512;
const BLOCK: usize = 256 * 1024;

async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::with(|c| c.namenode.defaults.block_size = BLOCK as u64).await.unwrap();
    let client = client(&cluster.uri(), &[]);
    (cluster, client)
}

fn client(uri: &str, settings: &[(&str, &str)]) -> Client {
    // Only what is given here: no configuration of the machine's.
    let empty = tempfile::tempdir().unwrap();
    let settings: HashMap<String, String> =
        settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    ClientBuilder::new()
        .with_config_dir(empty.path().to_str().unwrap())
        .with_url(uri)
        .with_config(settings)
        .build()
        .unwrap()
}

fn bytes(length: usize, seed: u32) -> Bytes {
    let byte = |at: usize| ((at as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 23) as u8;
    (0..length).map(byte).collect::<Vec<u8>>().into()
}

async fn write(client: &Client, path: &str, data: Bytes) {
    let mut writer = client.create(path, WriteOptions::default()).await.unwrap();
    writer.write_bytes(data).await.unwrap();
    writer.close().await.unwrap();
}

async fn read(client: &Client, path: &str) -> Bytes {
    let mut reader = client.read(path).await.unwrap();
    let length = reader.file_length();
    reader.read_bytes(length).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_around_every_border() {
    let (cluster, client) = cluster().await;
    let mut sizes = vec![0, 1];
    for border in [CHUNK, PACKET, BLOCK, 2 * BLOCK, 3 * BLOCK + PACKET + CHUNK] {
        sizes.extend([border - 1, border, border + 1]);
    }
    for size in sizes {
        let (path, data) = (format!("/size/{size}"), bytes(size, size as u32));
        write(&client, &path, data.clone()).await;
        assert_eq!(client.get_file_info(&path).await.unwrap().length, size);
        assert!(read(&client, &path).await == data, "{size} bytes came back different");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_a_file_of_several_blocks() {
    let (cluster, client) = cluster().await;
    let data = bytes(3 * BLOCK + 1_000, 5);
    write(&client, "/ranges", data.clone()).await;
    let reader = client.read("/ranges").await.unwrap();
    for (from, length) in [
        (0, 1),
        (CHUNK - 1, 2),
        (PACKET - 1, 2),
        (BLOCK - 1, 2),
        (BLOCK, BLOCK),
        (1, 3 * BLOCK),
        (data.len() - 1, 1),
    ] {
        let part = reader.read_range(from, length).await.unwrap();
        assert!(part == data.slice(from..from + length), "{length} bytes at {from}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_and_readers_at_once() {
    let (cluster, client) = cluster().await;
    let client = Arc::new(client);
    let tasks: Vec<_> = (0..32u32)
        .map(|at| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let data = bytes(20_000 * (1 + at as usize % 20), at);
                let path = format!("/many/{at}");
                write(&client, &path, data.clone()).await;
                let again = (0..3).map(|_| read(&client, &path));
                for copy in futures_all(again).await {
                    assert!(copy == data, "{path} came back different");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(client.list_status("/many", false).await.unwrap().len(), 32);
    cluster.shutdown().await;
}

/// Runs them one after the other; the concurrency is that of the tasks around it.
async fn futures_all<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut results = Vec::new();
    for one in all {
        results.push(one.await);
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_of_ten_thousand_comes_in_pages_and_in_order() {
    let (cluster, client) = cluster().await;
    let client = Arc::new(client);
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                for at in 0..500 {
                    client.mkdirs(&format!("/long/d{:05}", task * 500 + at), 0o755, true).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let names: Vec<String> =
        client.list_status("/long", false).await.unwrap().into_iter().map(|status| status.path).collect();
    let expected: Vec<String> = (0..10_000).map(|at| format!("/long/d{at:05}")).collect();
    assert_eq!(names, expected);
    let summary = client.get_content_summary("/long").await.unwrap();
    assert_eq!(summary.directory_count, 10_001);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_attributes() {
    let (cluster, client) = cluster().await;
    write(&client, "/a/b/file", bytes(100, 1)).await;
    client.set_permission("/a/b/file", 0o640).await.unwrap();
    client.set_owner("/a/b/file", Some("alice"), Some("staff")).await.unwrap();
    client.set_times("/a/b/file", 1_000_000, 2_000_000).await.unwrap();
    assert!(client.set_replication("/a/b/file", 2).await.unwrap());
    let status = client.get_file_info("/a/b/file").await.unwrap();
    assert_eq!((status.owner.as_str(), status.group.as_str()), ("alice", "staff"));
    assert_eq!((status.permission, status.replication), (0o640, Some(2)));
    assert_eq!((status.modification_time, status.access_time), (1_000_000, 2_000_000));
    client.rename("/a/b/file", "/a/moved", false).await.unwrap();
    assert!(read(&client, "/a/moved").await == bytes(100, 1));
    write(&client, "/a/other", bytes(50, 2)).await;
    client.rename("/a/other", "/a/moved", true).await.unwrap();
    assert!(read(&client, "/a/moved").await == bytes(50, 2));
    assert!(client.delete("/a", true).await.unwrap());
    assert!(!client.delete("/a", true).await.unwrap());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_hdfss() {
    let (cluster, client) = cluster().await;
    write(&client, "/file", bytes(10, 1)).await;
    assert!(matches!(client.get_file_info("/none").await, Err(HdfsError::FileNotFound(_))));
    let missing = |error: HdfsError| {
        matches!(&error, HdfsError::FileNotFound(_))
            || matches!(&error, HdfsError::RPCError(class, _) if class == "java.io.FileNotFoundException")
    };
    assert!(missing(client.read("/none").await.err().unwrap()));
    let again = client.create("/file", WriteOptions::default()).await;
    assert!(matches!(again.err(), Some(HdfsError::AlreadyExists(_))));
    let class = |error: HdfsError| match error {
        HdfsError::RPCError(class, _) => class,
        other => panic!("no exception of the server's: {other:?}"),
    };
    let error = client.mkdirs("/file/below", 0o755, true).await.unwrap_err();
    assert_eq!(class(error), "org.apache.hadoop.fs.ParentNotDirectoryException");
    client.mkdirs("/full/below", 0o755, true).await.unwrap();
    let error = client.delete("/full", false).await.unwrap_err();
    assert_eq!(class(error), "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException");
    assert!(missing(client.rename("/none", "/other", false).await.unwrap_err()));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_readable_while_a_datanode_of_its_is_down() {
    let (mut cluster, client) = cluster().await;
    let data = bytes(2 * BLOCK + 7, 9);
    write(&client, "/file", data.clone()).await;
    cluster.kill_datanode(1);
    assert!(read(&client, "/file").await == data);
    cluster.kill_datanode(2);
    assert!(read(&client, "/file").await == data);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_the_namenode_was_killed() {
    let (mut cluster, client) = cluster().await;
    let mut expected = BTreeMap::new();
    for at in 0..20u32 {
        let (path, data) = (format!("/kept/{at}"), bytes(10_000 * at as usize, at));
        write(&client, &path, data.clone()).await;
        expected.insert(path, data);
    }
    cluster.kill_namenode();
    cluster.restart_namenode().await.unwrap();
    cluster.wait_ready().await.unwrap();
    let client = self::client(&cluster.uri(), &[]);
    for (path, data) in expected {
        assert!(read(&client, &path).await == data, "{path} came back different");
    }
    cluster.shutdown().await;
}
