//! What the fleet is told.

use mobula_types::{Block, DatanodeId, DatanodeUuid, Millis, StorageReport};

/// Times and limits, with Mobula's defaults (DESIGN D5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetConfig {
    /// How often DataNodes beat.
    pub heartbeat_ms: Millis,
    /// Suspect after this long without a beat: no new blocks, readers elsewhere first.
    pub suspect_ms: Millis,
    /// Dead after this long without a beat.
    pub dead_ms: Millis,
    /// Dead after this long, for a node that said it stops (restart in order).
    pub restart_grace_ms: Millis,
    /// Apache's DataNodes beat each 3 s: the times above are stretched to at least 2 and 10 of the
    /// beats that a node is seen to make.
    pub replication_min: u16,
    /// Bytes of copies that a node is handed per beat at most (the protocol has no cancel).
    pub copy_bytes_per_beat: u64,
    /// Copies under way from or to one node at most.
    pub copies_per_node_max: usize,
    /// An order that was not confirmed within this time plus the time its bytes take is given up.
    pub order_expiry_ms: Millis,
    /// After a start: no deletion, no copy, before each known node has reported in full or this
    /// long has passed (D11, D15).
    pub start_delay_ms: Millis,
    /// Most blocks to invalidate in one answer (`dfs.block.invalidate.limit`).
    pub invalidate_max: usize,
    /// Free bytes that must be left on a volume besides the new block.
    pub reserve_bytes: u64,
}

impl Default for FleetConfig {
    fn default() -> FleetConfig {
        FleetConfig {
            heartbeat_ms: Millis(1_000),
            suspect_ms: Millis(2_500),
            dead_ms: Millis(10_000),
            restart_grace_ms: Millis(60_000),
            replication_min: 1,
            copy_bytes_per_beat: 256 << 20,
            copies_per_node_max: 16,
            order_expiry_ms: Millis(30_000),
            start_delay_ms: Millis(30_000),
            invalidate_max: 1_000,
            reserve_bytes: 0,
        }
    }
}

/// A DataNode that says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Identity and addresses; `ip` is what the connection came from or what it advertises.
    pub id: DatanodeId,
    /// Its software, as it says.
    pub software_version: String,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub node: DatanodeUuid,
    /// One per volume.
    pub storages: Vec<StorageReport>,
    /// Transfers that it is doing for the NameNode.
    pub transfers: u32,
    /// Open data connections: its load.
    pub xceivers: u32,
    /// Volumes that failed.
    pub failed_volumes: u32,
    /// Wants a lease for a full block report.
    pub wants_report_lease: bool,
    /// Cache figures, passed through to reports.
    pub cache_capacity: u64,
    /// See `cache_capacity`.
    pub cache_used: u64,
}

/// An entry of an incremental block report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedDeleted {
    /// Id, stamp, length.
    pub block: Block,
    /// What happened.
    pub news: ReplicaNews,
    /// The node that should lose its replica for this one (balancer); advice only.
    pub delete_hint: Option<DatanodeUuid>,
}

/// What happened to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaNews {
    /// Being written.
    Receiving,
    /// Finalized; its checksums were verified on the way in.
    Received,
    /// Gone from the disk.
    Deleted,
}
