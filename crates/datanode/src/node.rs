//! What the rooms of a DataNode share.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mobula_net::Env;
use mobula_proto::hdfs::DatanodeInfoProto;
use mobula_types::{DatanodeId, DatanodeUuid};
use tokio::sync::{Notify, Semaphore, watch};

use crate::block_recovery::Recoveries;
use crate::config::DatanodeConfig;
use crate::error::Stopped;
use crate::mirrors::Mirrors;
use crate::namenode_link::Active;
use crate::store::Store;

/// Longest silence of one who sends, per connection (HDFS: `dfs.client.socket-timeout`).
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(60);
/// Added for every node further down a pipeline (HDFS: `READ_TIMEOUT_EXTENSION`).
pub(crate) const READ_LIMIT_PER_NODE: Duration = Duration::from_secs(5);
/// Longest that one who receives may take nothing (HDFS: `dfs.datanode.socket.write.timeout`).
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(480);
/// Longest wait for a connection (HDFS: `dfs.client.socket-timeout`).
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait between the operations of one connection (HDFS: `dfs.datanode.socket.reuse.keepalive`).
pub(crate) const KEEPALIVE_LIMIT: Duration = Duration::from_secs(4);
/// Longest wait for a NameNode to say which pool is ours, before an operation is given up.
pub(crate) const POOL_LIMIT: Duration = Duration::from_secs(20);
/// What we say we are; Apache's NameNodes want a Hadoop version.
pub(crate) const SOFTWARE_VERSION: &str = "3.5.0";

/// Shared by all rooms of one DataNode.
#[derive(Debug)]
pub(crate) struct Node {
    pub env: Env,
    pub config: DatanodeConfig,
    pub uuid: DatanodeUuid,
    pub xfer_addr: SocketAddr,
    pub ipc_addr: SocketAddr,
    pub store: Arc<Store>,
    /// Why it stopped by itself.
    pub stopped: watch::Sender<Option<Stopped>>,
    /// How many NameNodes have registered it and have its full report.
    pub registered: watch::Sender<usize>,
    /// Told when the pool is known; wakes those who wait in the order in which they came.
    pub pool_known: Notify,
    /// It ends in order: nothing new is begun.
    pub ending: AtomicBool,
    /// Whether it is about to be restarted in order: writers are told to wait for it.
    pub restarting: watch::Sender<bool>,
    /// Told when it ends in order.
    pub ended: Notify,
    /// Which NameNode is active.
    pub active: Active,
    /// Connections to next nodes that wait for a block.
    pub mirrors: Mirrors,
    /// Data transfer operations under way.
    pub xceivers: AtomicUsize,
    /// Copies that go out.
    pub transfers: AtomicUsize,
    pub transfer_permits: Arc<Semaphore>,
    /// Recoveries of blocks whose primary this node is.
    pub recoveries: Recoveries,
    /// Who we are, as the first NameNode answered.
    pub identity: OnceLock<DatanodeId>,
    /// When it started, in the clock's monotonic milliseconds.
    pub started_ms: u64,
}

impl Node {
    /// Who we are and where we listen.
    pub(crate) fn id(&self) -> DatanodeId {
        if let Some(id) = self.identity.get() {
            return id.clone();
        }
        let ip: IpAddr = self.config.advertised_ip.unwrap_or(self.xfer_addr.ip());
        DatanodeId {
            ip: ip.to_string(),
            host_name: self.config.host_name.clone(),
            uuid: self.uuid.clone(),
            xfer_port: self.xfer_addr.port(),
            info_port: 0,
            info_secure_port: 0,
            ipc_port: self.ipc_addr.port(),
        }
    }

    /// As [`Node::id`], as pipelines and reports name a node.
    pub(crate) fn info(&self) -> DatanodeInfoProto {
        mobula_wire::convert::datanode_info_proto(&self.id())
    }

    /// It cannot go on; the first reason stays.
    pub(crate) fn stop(&self, why: Stopped) {
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            if first {
                tracing::error!(%why, "the DataNode stops");
                *stopped = Some(why);
            }
            first
        });
    }
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `ip:port` of a node's data transfer, as HDFS writes it into `firstBadLink`.
pub(crate) fn xfer_name(node: &DatanodeInfoProto) -> String {
    format!("{}:{}", node.id.ip_addr, node.id.xfer_port)
}
