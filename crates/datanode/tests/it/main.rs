//! DataNodes on loopback, a NameNode that only takes notes, and a client that speaks packets.
#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod crash_images;
mod durable;
mod faults;
mod images;
mod journal;
mod namenode;
mod orders;
mod pipeline;
mod random;
mod recovery;
mod shortage;
mod speaker;
mod stages;
mod write_read;

use std::time::Duration;

use mobula_datanode::{DataNode, DatanodeConfig, VolumeConfig};
use mobula_disk::{CrashDisk, DiskRef, RealDisk};
use mobula_net::Env;

use namenode::FakeNamenode;

/// Some DataNodes under one NameNode.
pub struct Bench {
    pub env: Env,
    pub namenode: FakeNamenode,
    pub nodes: Vec<DataNode>,
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub async fn real(nodes: usize) -> Bench {
        Bench::with(nodes, |_| {}).await
    }

    pub async fn with(nodes: usize, change: impl Fn(&mut DatanodeConfig)) -> Bench {
        let env = Env::real();
        let namenode = FakeNamenode::start(&env).await;
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench { env, namenode, nodes: Vec::new(), folder };
        for at in 0..nodes {
            let node = bench.launch(at, RealDisk::new(), &change).await;
            bench.nodes.push(node);
        }
        bench
    }

    pub async fn launch(&self, at: usize, disk: DiskRef, change: impl Fn(&mut DatanodeConfig)) -> DataNode {
        let mut config = self.config(at);
        change(&mut config);
        let node = DataNode::start(self.env.clone(), disk, config).await.unwrap();
        within(node.wait_registered()).await.unwrap();
        node
    }

    pub fn config(&self, at: usize) -> DatanodeConfig {
        DatanodeConfig {
            volumes: vec![VolumeConfig::new(self.folder.path().join(format!("dn{at}")))],
            namenodes: vec![self.namenode.address()],
            heartbeat_ms: 50,
            user: "admin".into(),
            ..DatanodeConfig::default()
        }
    }

    pub fn addr(&self, at: usize) -> String {
        self.nodes[at].xfer_addr().to_string()
    }
}

/// How long each of a journal's files may become, in tests that are made with several: there is none; it is full after a
/// few records, so that the files take turns, and often both are; it has room for all.
pub const JOURNALS: [u64; 3] = [0, 4 << 10, 64 << 10];

/// A DataNode on a disk that crashes.
pub async fn on(disk: &CrashDisk, namenode: &FakeNamenode) -> DataNode {
    on_with(disk, namenode, 64 << 10).await
}

/// One with such a journal.
pub async fn on_with(disk: &CrashDisk, namenode: &FakeNamenode, journal_bytes: u64) -> DataNode {
    let node = start_with(disk, namenode, journal_bytes).await;
    within(node.wait_registered()).await.unwrap();
    node
}

/// One with such a journal, which may yet refuse to serve.
pub async fn start_with(disk: &CrashDisk, namenode: &FakeNamenode, journal_bytes: u64) -> DataNode {
    let config = DatanodeConfig {
        volumes: vec![VolumeConfig::new("/data")],
        namenodes: vec![namenode.address()],
        heartbeat_ms: 50,
        user: "admin".into(),
        volume_spare_bytes: 0,
        journal_bytes,
        ..DatanodeConfig::default()
    };
    DataNode::start(Env::real(), disk.process(), config).await.unwrap()
}

/// Fails the test when it takes too long.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("within 20 s")
}

/// Waits until it holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Bytes that differ everywhere.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}
