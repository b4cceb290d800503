//! The same round trips, and the faults that need real disks, against the NameNode and the DataNodes
//! of this workspace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_client::{AppendOptions, Client, ClientOptions, CreateOptions, NewBlock, ReplaceDatanode};
use mobula_datanode::{DataNode, DatanodeConfig, VolumeConfig};
use mobula_disk::RealDisk;
use mobula_namenode::{NameNode, NamenodeConfig};
use mobula_net::Env;
use tokio::time::{Instant, timeout};

use crate::{appends, assert_same, pattern, round_trip};

/// Longest wait for anything of a cluster.
const LIMIT: Duration = Duration::from_secs(60);
const BLOCK: u64 = 256 << 10;

struct Cluster {
    folder: tempfile::TempDir,
    client: Client,
    datanodes: Vec<Option<DataNode>>,
    namenode: NameNode,
}

impl Cluster {
    async fn start(datanodes: usize) -> Cluster {
        let (env, disk, folder) = (Env::real(), RealDisk::new(), tempfile::tempdir().unwrap());
        let mut config = NamenodeConfig {
            name_dir: folder.path().join("name"),
            user: "alice".into(),
            ..NamenodeConfig::default()
        };
        config.rules.block_size_min = 0;
        let namenode = NameNode::start(env.clone(), disk.clone(), config).await.unwrap();
        let address = namenode.rpc_addr().to_string();
        let mut nodes = Vec::new();
        for index in 0..datanodes {
            let config = DatanodeConfig {
                volumes: vec![VolumeConfig::new(folder.path().join(format!("data{index}")))],
                namenodes: vec![address.clone()],
                user: "alice".into(),
                ..DatanodeConfig::default()
            };
            let node = DataNode::start(env.clone(), disk.clone(), config).await.unwrap();
            timeout(LIMIT, node.wait_registered()).await.unwrap().unwrap();
            nodes.push(Some(node));
        }
        let options = ClientOptions {
            namenodes: vec![address],
            user: "alice".into(),
            replication: Some(3),
            block_size: Some(BLOCK),
            umask: 0o022,
            call_limit: LIMIT,
            replace_datanode: ReplaceDatanode::default(),
            favored_nodes: Vec::new(),
        };
        let client = Client::new(env, options);
        Cluster { folder, client, datanodes: nodes, namenode }
    }

    /// Which of the DataNodes that live has that identity.
    fn index_of(&self, uuid: &str) -> Option<usize> {
        let is = |node: &Option<DataNode>| node.as_ref().is_some_and(|node| node.uuid().as_str() == uuid);
        self.datanodes.iter().position(is)
    }
}

impl Cluster {
    /// The middle one of those that have it, where there are three.
    async fn kill_node_of_last_block(&mut self, path: &str) {
        let block = blocks_of(&self.client, path).await.pop().unwrap();
        let victim = &block.locs[block.locs.len() / 2].id.datanode_uuid;
        let at = self.index_of(victim).expect("it lives");
        self.datanodes[at] = None;
    }
}

fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, name, found);
        } else if path.file_name().is_some_and(|found| found == name) {
            found.push(path);
        }
    }
}

async fn blocks_of(client: &Client, path: &str) -> Vec<mobula_proto::hdfs::LocatedBlockProto> {
    let request =
        mobula_proto::hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: 1 << 40 };
    client.namenode().get_block_locations(request).await.unwrap().locations.unwrap().blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_cluster_gives_back_what_it_took() {
    let cluster = Cluster::start(3).await;
    round_trip::everything(&cluster.client, "/t").await;
}

/// Its first block comes with the file; also where a node is gone that the block was meant for, and nobody knows it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_put_takes_one_step_of_the_log_less() {
    let mut cluster = Cluster::start(4).await;
    let options = CreateOptions::default;
    let steps = |cluster: &Cluster| cluster.namenode.service().transaction();
    let before = steps(&cluster);
    cluster.client.put("/put", pattern(1000), options()).await.unwrap();
    assert_eq!(steps(&cluster), before + 2, "the file with its block, and its end");
    cluster.client.put("/empty", bytes::Bytes::new(), options()).await.unwrap();
    assert_eq!(steps(&cluster), before + 4);
    assert_eq!(blocks_of(&cluster.client, "/empty").await, []);
    let mut writer = cluster.client.create("/written", options()).await.unwrap();
    writer.write(pattern(1000)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(steps(&cluster), before + 7);
    cluster.kill_node_of_last_block("/put").await;
    let data = pattern(3 * BLOCK as usize);
    for index in 0..8 {
        let path = format!("/after-{index}");
        cluster.client.put(&path, data.clone(), options()).await.unwrap();
        assert_same(&cluster.client.get(&path).await.unwrap(), &data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_replica_on_disk_is_skipped_and_the_namenode_hears_of_it() {
    let cluster = Cluster::start(3).await;
    let data = pattern(300_000);
    cluster.client.put("/f", data.clone(), CreateOptions::default()).await.unwrap();
    // The replica that readers are sent to first.
    let block = blocks_of(&cluster.client, "/f").await[0].clone();
    let index = cluster.index_of(&block.locs[0].id.datanode_uuid).unwrap();
    let mut found = Vec::new();
    let name = format!("blk_{}", block.b.block_id);
    find(&cluster.folder.path().join(format!("data{index}")), &name, &mut found);
    let mut bytes = std::fs::read(&found[0]).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&found[0], bytes).unwrap();
    // Either the DataNode finds out while it reads, or the client: one of them tells the NameNode,
    // which then has it replaced.
    let bad = |locs: &[mobula_proto::hdfs::DatanodeInfoProto]| {
        locs.iter().any(|node| node.id.datanode_uuid == block.locs[0].id.datanode_uuid)
    };
    let started = Instant::now();
    loop {
        assert_same(&cluster.client.get("/f").await.unwrap(), &data);
        if !bad(&blocks_of(&cluster.client, "/f").await[0].locs) {
            break;
        }
        assert!(started.elapsed() < LIMIT, "the NameNode still names the corrupt replica");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datanodes_killed_while_writing_and_reading_cost_nothing() {
    let mut cluster = Cluster::start(4).await;
    let data = pattern(3 << 20);
    let mut writer = cluster.client.create("/f", CreateOptions::default()).await.unwrap();
    writer.write(data.slice(..1_000_000)).await.unwrap();
    writer.hflush().await.unwrap();
    cluster.kill_node_of_last_block("/f").await;
    writer.write(data.slice(1_000_000..)).await.unwrap();
    writer.hflush().await.unwrap();
    assert_same(&cluster.client.get("/f").await.unwrap(), &data);
    writer.close().await.unwrap();
    let mut reader = cluster.client.open("/f").await.unwrap();
    let mut got = reader.next().await.unwrap().unwrap().to_vec();
    let victim = blocks_of(&cluster.client, "/f").await[0].locs[0].id.datanode_uuid.clone();
    let at = cluster.index_of(&victim);
    if let Some(at) = at {
        cluster.datanodes[at] = None;
    }
    while let Some(piece) = reader.next().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert_same(&got, &data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_cluster_takes_appends_of_every_length() {
    let cluster = Cluster::start(4).await;
    appends::everything(&cluster.client, "/t").await;
    appends::bit_by_bit(&cluster.client, "/t").await;
    appends::an_append_without_a_byte(&cluster.client, "/t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_our_own_cluster_and_its_reader() {
    let cluster = Cluster::start(4).await;
    appends::a_reader_follows(&cluster.client, "/t").await;
    appends::sync_options(&cluster.client, "/t").await;
}

/// When in an append a node of its block is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    BeforeItsSetUp,
    BetweenFlushes,
    BeforeItsEnd,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datanodes_killed_while_appending_cost_nothing() {
    let data = pattern(2 * BLOCK as usize);
    for had in [0, 1_000, 5 * 512, BLOCK as usize] {
        for (kill, new_block) in [
            (Kill::BeforeItsSetUp, NewBlock::WhenFull),
            (Kill::BetweenFlushes, NewBlock::WhenFull),
            (Kill::BetweenFlushes, NewBlock::Always),
            (Kill::BeforeItsEnd, NewBlock::WhenFull),
        ] {
            println!("{had} bytes before, {kill:?}, {new_block:?}");
            let mut cluster = Cluster::start(4).await;
            let client = cluster.client.clone();
            client.put("/f", data.slice(..had), CreateOptions::default()).await.unwrap();
            let mut writer = client.append("/f", AppendOptions { new_block }).await.unwrap();
            let until = had + (data.len() - had) / 3;
            if kill == Kill::BeforeItsSetUp && had > 0 {
                cluster.kill_node_of_last_block("/f").await;
            }
            writer.write(data.slice(had..until)).await.unwrap();
            writer.hflush().await.unwrap();
            if kill == Kill::BetweenFlushes {
                cluster.kill_node_of_last_block("/f").await;
            }
            writer.write(data.slice(until..)).await.unwrap();
            writer.hflush().await.unwrap();
            assert_same(&client.get("/f").await.unwrap(), &data);
            if kill == Kill::BeforeItsEnd {
                cluster.kill_node_of_last_block("/f").await;
            }
            writer.close().await.unwrap();
            assert_same(&client.get("/f").await.unwrap(), &data);
        }
    }
}
