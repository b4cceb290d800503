//! What a DataNode is told: where its disks and NameNodes are, and its limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mobula_types::StorageType;

/// One disk of a DataNode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeConfig {
    /// The folder; made if it is missing.
    pub path: PathBuf,
    /// Its medium, as the NameNode is told.
    pub kind: StorageType,
    /// Bytes of it to use at most; none for the whole disk.
    pub capacity_limit: Option<u64>,
    /// Bytes of the disk to leave to others (HDFS: `dfs.datanode.du.reserved`).
    pub reserved: u64,
}

impl VolumeConfig {
    /// A folder on an ordinary disk, all of it ours.
    pub fn new(path: impl Into<PathBuf>) -> VolumeConfig {
        VolumeConfig { path: path.into(), kind: StorageType::Disk, capacity_limit: None, reserved: 0 }
    }
}

/// A DataNode's configuration. [`Default`] is a node on loopback with free ports and no volume.
#[derive(Clone, Debug)]
pub struct DatanodeConfig {
    /// Its disks; at least one.
    pub volumes: Vec<VolumeConfig>,
    /// `host:port` of every NameNode's RPC server: all of them are reported to.
    pub namenodes: Vec<String>,
    /// Where data transfer listens (HDFS: `dfs.datanode.address`).
    pub listen: SocketAddr,
    /// Where the RPC server listens (HDFS: `dfs.datanode.ipc.address`).
    pub ipc_listen: SocketAddr,
    /// Its own name for its host (HDFS: `dfs.datanode.hostname`).
    pub host_name: String,
    /// The address that others are to connect to, where it is not the one that it listens on.
    pub advertised_ip: Option<IpAddr>,
    /// Milliseconds between heartbeats (HDFS: 3 s).
    pub heartbeat_ms: u64,
    /// Milliseconds between full block reports (HDFS: 6 h).
    pub full_report_ms: u64,
    /// As whom it calls NameNodes, and who besides may give it administrator's orders.
    pub user: String,
    /// Data transfer connections at once; one more is closed at once (HDFS: 4096).
    pub xceivers_max: usize,
    /// Blocks that are copied out by order of the NameNode at once (HDFS: `dfs.namenode.replication.max-streams-hard-limit`).
    pub transfers_max: usize,
    /// Volumes that may fail before the node stops, or that it starts without (HDFS:
    /// `dfs.datanode.failed.volumes.tolerated`); none: as long as one is left (HDFS's -1).
    pub failed_volumes_tolerated: Option<usize>,
    /// Threads of each volume.
    pub volume_threads: usize,
    /// Room beyond the block itself that a volume must have free to be chosen (HDFS 3.4.1+: 1 GiB).
    pub volume_spare_bytes: u64,
    /// Blocks are written past the page cache from this length on (all of it, if the sender says that it
    /// is to be as long); none: never.
    pub direct_write_min_bytes: Option<u64>,
    /// Bytes that each of the two files of a volume's journal may have, 1 GiB at most; 0: everything is synced where it lies.
    pub journal_bytes: u64,
    /// Bytes of data in one packet of a read.
    pub read_packet_bytes: usize,
    /// Whether checksums are verified before bytes are served to clients (to DataNodes: always).
    pub verify_reads: bool,
    /// Bytes a second for balancing, as `getBalancerBandwidth` tells it.
    pub balancer_bandwidth: u64,
}

impl Default for DatanodeConfig {
    fn default() -> Self {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        DatanodeConfig {
            volumes: Vec::new(),
            namenodes: Vec::new(),
            listen: loopback,
            ipc_listen: loopback,
            host_name: "localhost".into(),
            advertised_ip: None,
            heartbeat_ms: 1_000,
            full_report_ms: 6 * 60 * 60 * 1_000,
            user: "hdfs".into(),
            xceivers_max: 4_096,
            transfers_max: 16,
            failed_volumes_tolerated: None,
            volume_threads: 4,
            volume_spare_bytes: 1 << 20,
            direct_write_min_bytes: Some(4 << 20),
            journal_bytes: 64 << 20,
            read_packet_bytes: 512 << 10,
            verify_reads: true,
            balancer_bandwidth: 100 << 20,
        }
    }
}
