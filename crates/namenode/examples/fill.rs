//! Fills a running NameNode with closed files of one block each, playing the DataNodes, so that its memory, its
//! tables and its restart can be measured at any size:
//!
//!     cargo run --release -p mobula-namenode --example fill -- HOST:PORT FILES [IN_FLIGHT]
//!     cargo run --release -p mobula-namenode --example fill -- HOST:PORT answer
//!
//! The second form only waits for the first answer: started together with a NameNode, it says how long the restart took.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mobula_net::Env;
use mobula_proto::hdfs::{self, datanode as dn};
use mobula_rpc::{RpcClient, RpcClientOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;

const CLIENT: &str = "org.apache.hadoop.hdfs.protocol.ClientProtocol";
const DATANODE: &str = "org.apache.hadoop.hdfs.server.protocol.DatanodeProtocol";
const FILES_PER_DIRECTORY: usize = 1000;
const REPLICAS: u16 = 3;
const BLOCK_BYTES: u64 = 1 << 20;
/// Blocks of one incremental report at most.
const REPORT_BLOCKS_MAX: usize = 64;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, what, rest @ ..] = &words[..] else { panic!("HOST:PORT, and FILES or 'answer'") };
    let env = Env::real();
    if what == "answer" {
        return answer(&env, address).await;
    }
    let files: usize = what.parse().unwrap();
    let in_flight: usize = rest.first().map_or(256, |text| text.parse().unwrap());
    fill(&env, address, files, in_flight).await;
}

fn client(env: &Env, address: &str, protocol: &'static str) -> RpcClient {
    let limit = Duration::from_secs(60);
    // As the NameNode, if that runs as the same user.
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let address = address.to_owned();
    RpcClient::new(env, RpcClientOptions { address, user, protocol, connect_limit: limit, call_limit: limit })
}

async fn answer(env: &Env, address: &str) {
    let start = Instant::now();
    loop {
        let request = hdfs::GetFileInfoRequestProto { src: "/".into() };
        let client = client(env, address, CLIENT);
        if client.call::<_, hdfs::GetFileInfoResponseProto>("getFileInfo", &request).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("first answer after {:.3} s", start.elapsed().as_secs_f64());
}

async fn fill(env: &Env, address: &str, files: usize, in_flight: usize) {
    let mut reporters = Vec::new();
    for number in 0..REPLICAS {
        let (sender, receiver) = mpsc::unbounded_channel();
        let node = Node::register(client(env, address, DATANODE), number).await;
        tokio::spawn(node.run(receiver));
        reporters.push(sender);
    }
    let (rpc, next, start) = (client(env, address, CLIENT), Arc::new(AtomicUsize::new(0)), Instant::now());
    let run = env.entropy.u64();
    let writers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (rpc, next, reporters) = (rpc.clone(), next.clone(), reporters.clone());
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= files {
                        return slowest;
                    }
                    let path = format!("/fill{run:x}/d{}/file{index}", index / FILES_PER_DIRECTORY);
                    let begun = Instant::now();
                    write(&rpc, path, &reporters).await;
                    slowest = slowest.max(begun.elapsed());
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for writer in writers {
        slowest = slowest.max(writer.await.unwrap());
    }
    let spent = start.elapsed().as_secs_f64();
    println!("{files} files in {spent:.1} s, {:.0} a second, the slowest {slowest:?}", files as f64 / spent);
}

async fn write(rpc: &RpcClient, path: String, reporters: &[mpsc::UnboundedSender<hdfs::BlockProto>]) {
    let create = hdfs::CreateRequestProto {
        src: path.clone(),
        masked: hdfs::FsPermissionProto { perm: 0o644 },
        client_name: "fill".into(),
        create_flag: 1,
        create_parent: true,
        replication: u32::from(REPLICAS),
        block_size: 128 << 20,
        ..Default::default()
    };
    let created: hdfs::CreateResponseProto = rpc.call("create", &create).await.unwrap();
    let file_id = created.fs.unwrap().file_id;
    let add = hdfs::AddBlockRequestProto {
        src: path.clone(),
        client_name: "fill".into(),
        file_id,
        ..Default::default()
    };
    let added: hdfs::AddBlockResponseProto = rpc.call("addBlock", &add).await.unwrap();
    let block = hdfs::ExtendedBlockProto { num_bytes: Some(BLOCK_BYTES), ..added.block.b };
    for reporter in reporters {
        let replica = hdfs::BlockProto {
            block_id: block.block_id,
            gen_stamp: block.generation_stamp,
            num_bytes: block.num_bytes,
        };
        reporter.send(replica).unwrap();
    }
    let complete =
        hdfs::CompleteRequestProto { src: path, client_name: "fill".into(), last: Some(block), file_id };
    loop {
        let done: hdfs::CompleteResponseProto = rpc.call("complete", &complete).await.unwrap();
        if done.result {
            return;
        }
    }
}

/// A DataNode that has whatever it is told to have.
struct Node {
    rpc: RpcClient,
    registration: dn::DatanodeRegistrationProto,
    pool: String,
    storage: hdfs::DatanodeStorageProto,
}

impl Node {
    async fn register(rpc: RpcClient, number: u16) -> Node {
        let version: hdfs::VersionResponseProto =
            rpc.call("versionRequest", &hdfs::VersionRequestProto {}).await.unwrap();
        let uuid = format!("00000000-0000-4000-8000-{number:012}");
        let registration = dn::DatanodeRegistrationProto {
            datanode_id: hdfs::DatanodeIdProto {
                ip_addr: "127.0.0.1".into(),
                host_name: format!("fill{number}"),
                datanode_uuid: uuid.clone(),
                xfer_port: 50_000 + u32::from(number),
                info_port: 1,
                ipc_port: 2,
                info_secure_port: None,
            },
            storage_info: hdfs::StorageInfoProto {
                layout_version: (-57i32).cast_unsigned(),
                ..version.info.storage_info.clone()
            },
            keys: hdfs::ExportedBlockKeysProto::default(),
            software_version: "3.5.0".into(),
        };
        let request = dn::RegisterDatanodeRequestProto { registration };
        let answer: dn::RegisterDatanodeResponseProto = rpc.call("registerDatanode", &request).await.unwrap();
        let storage = hdfs::DatanodeStorageProto {
            storage_uuid: format!("DS-{uuid}"),
            state: Some(0),
            storage_type: Some(hdfs::StorageTypeProto::Disk as i32),
        };
        let node = Node { rpc, registration: answer.registration, pool: version.info.block_pool_id, storage };
        node.beat().await;
        node
    }

    async fn beat(&self) {
        let report = hdfs::StorageReportProto {
            storage_uuid: self.storage.storage_uuid.clone(),
            failed: Some(false),
            capacity: Some(1 << 50),
            dfs_used: Some(0),
            remaining: Some(1 << 50),
            block_pool_used: Some(0),
            storage: Some(self.storage.clone()),
            non_dfs_used: Some(0),
            mount: None,
        };
        let request = dn::HeartbeatRequestProto {
            registration: self.registration.clone(),
            reports: vec![report],
            ..Default::default()
        };
        let _: dn::HeartbeatResponseProto = self.rpc.call("sendHeartbeat", &request).await.unwrap();
    }

    /// Beats every second and reports what it hears of.
    async fn run(self, mut blocks: mpsc::UnboundedReceiver<hdfs::BlockProto>) {
        let mut beats = tokio::time::interval(Duration::from_secs(1));
        let mut some = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = beats.tick() => self.beat().await,
                count = blocks.recv_many(&mut some, REPORT_BLOCKS_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.tell(some.drain(..)).await;
                }
            }
        }
    }

    async fn tell(&self, blocks: impl Iterator<Item = hdfs::BlockProto>) {
        let received = |block| dn::ReceivedDeletedBlockInfoProto { block, status: 2, delete_hint: None };
        let request = dn::BlockReceivedAndDeletedRequestProto {
            registration: self.registration.clone(),
            block_pool_id: self.pool.clone(),
            blocks: vec![dn::StorageReceivedDeletedBlocksProto {
                storage_uuid: self.storage.storage_uuid.clone(),
                blocks: blocks.map(received).collect(),
                storage: Some(self.storage.clone()),
            }],
        };
        let _: dn::BlockReceivedAndDeletedResponseProto =
            self.rpc.call("blockReceivedAndDeleted", &request).await.unwrap();
    }
}
