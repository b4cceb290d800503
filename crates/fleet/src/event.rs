//! What the fleet is told.

use mobula_types::{
    Block, BlockId, DatanodeId, DatanodeUuid, GenStamp, Millis, StorageReport, StorageUuid, Target,
};

use crate::order::Order;

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

/// What a change of the namespace means for replicas: `mobula_namespace::BlockEffect`, which
/// `namenode` converts (the fleet does not know the namespace).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// A new block under construction at these targets.
    Allocated {
        /// Id and stamp.
        block: Block,
        /// Target number of replicas.
        replication: u16,
        /// Where its replicas are expected, in pipeline order.
        targets: Vec<Target>,
    },
    /// Its length and stamp are final; it counts for healing from now on.
    Committed {
        /// Id, stamp, length.
        block: Block,
        /// Target number of replicas.
        replication: u16,
    },
    /// A committed block is under construction again (append, truncation inside it); its replicas at
    /// these targets are as good as before.
    Reopened {
        /// Id, stamp, and the length so far.
        block: Block,
        /// Target number of replicas.
        replication: u16,
        /// Where its replicas are expected.
        targets: Vec<Target>,
    },
    /// Its writer goes on under this stamp at these targets; replicas with an older one are stale.
    Pipeline {
        /// Id, new stamp.
        block: Block,
        /// Where its replicas are expected from now on.
        targets: Vec<Target>,
    },
    /// Its recovery begins, or begins again: one DataNode is to be ordered to do it.
    Recover(Recover),
    /// Its recovery ended: those whom the primary named have it final and synced; replicas with an older
    /// stamp are stale.
    Recovered {
        /// Id, the recovery's stamp, the length that was agreed upon.
        block: Block,
        /// Whom the primary named.
        targets: Vec<Target>,
    },
    /// No file has it any more: its replicas go.
    Removed {
        /// Which.
        block: BlockId,
    },
    /// Its target number of replicas changed.
    Replication {
        /// Which.
        block: BlockId,
        /// The new target.
        replication: u16,
    },
}

/// An attempt at a block's recovery, as the namespace gave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recover {
    /// Id, stamp as it is now.
    pub block: Block,
    /// The recovery's id, and the block's stamp afterwards.
    pub recovery: GenStamp,
    /// Where its replicas are expected.
    pub targets: Vec<Target>,
    /// Cut to this length, bytes.
    pub truncate: Option<u64>,
}

/// How a block's recovery ended, as its primary DataNode tells it.
#[derive(Clone, Copy, Debug)]
pub struct Synchronization<'a> {
    /// Id, the stamp from before the recovery, and the least length that the writer is known to have
    /// been promised (`fsync`), bytes.
    pub block: Block,
    /// The recovery's id.
    pub recovery: GenStamp,
    /// The length that the replicas have now, bytes.
    pub length: u64,
    /// No replica that took part had any byte: the block is to be dropped.
    pub delete: bool,
    /// Who took part and has it now.
    pub targets: &'a [Target],
    /// Who said what it has, of those and of others; none where the primary does not tell.
    pub heard: &'a [DatanodeUuid],
}

/// Why the end of a recovery is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// It would drop a block that has bytes somewhere.
    #[error("{block} has bytes on DataNode {holder}, which had no part in recovery {recovery}")]
    BytesElsewhere {
        /// Which.
        block: Block,
        /// Who has them.
        holder: DatanodeUuid,
        /// The recovery.
        recovery: GenStamp,
    },
    /// It would drop a block of which the NameNode was told that so many bytes were written.
    #[error("{block} was dropped by recovery {recovery}, though its writer was promised its bytes")]
    BytesPromised {
        /// Which, with the promised length.
        block: Block,
        /// The recovery.
        recovery: GenStamp,
    },
    /// It would cut off bytes, and a node that had no part in it may have them.
    #[error("recovery {recovery} of {block} has {length} bytes, and DataNode {absent} may have more")]
    Cut {
        /// Which, with the promised length.
        block: Block,
        /// Who is awaited.
        absent: DatanodeUuid,
        /// The recovery.
        recovery: GenStamp,
        /// What it came to.
        length: u64,
    },
}

/// Why a registration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A live DataNode elsewhere has this identity: a cloned disk (CASES 29). The newcomer should
    /// be answered with DisallowedDatanodeException.
    #[error("DataNode {uuid} at {claimant} claims the identity of the live DataNode at {holder}")]
    IdentityInUse {
        /// The identity.
        uuid: DatanodeUuid,
        /// `ip:port` of the one that has it.
        holder: String,
        /// `ip:port` of the one that wants it.
        claimant: String,
    },
    /// More volumes than the map of replicas can number.
    #[error("{slots} volumes are known, which is the limit")]
    TooManyVolumes {
        /// How many there are.
        slots: usize,
    },
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// What to do.
    pub orders: Vec<Order>,
    /// Id to send with the full block report that the node may send now; 0: none, or later.
    pub report_lease: u64,
}

/// Why a full report was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Not registered: answer Register.
    #[error("DataNode {0} is not registered")]
    UnknownNode(DatanodeUuid),
    /// HDFS: `InvalidBlockReportLeaseException`.
    #[error("DataNode {node} reports with lease {lease:#x}, which is not its own or has expired")]
    BadLease {
        /// Who.
        node: DatanodeUuid,
        /// What it sent.
        lease: u64,
    },
    /// Its heartbeats do not show this volume as healthy: its absences mean nothing (CASES 28).
    #[error("volume {storage} of DataNode {node} is not reported as healthy")]
    UnhealthyStorage {
        /// Who.
        node: DatanodeUuid,
        /// Which volume.
        storage: StorageUuid,
    },
    /// The node registered anew or died while the report was being read: it will send another.
    #[error("the report of volume {storage} was overtaken by a new registration")]
    Overtaken {
        /// Which volume.
        storage: StorageUuid,
    },
    /// More volumes than the map of replicas can number.
    #[error("{slots} volumes are known, which is the limit")]
    TooManyVolumes {
        /// How many there are.
        slots: usize,
    },
}

/// What an error report says (`errorReport`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// 0 NOTIFY: nothing to do.
    Notice,
    /// 1 DISK_ERROR: a volume failed; heartbeats say which.
    Disk,
    /// 2 INVALID_BLOCK.
    InvalidBlock,
    /// 3 FATAL_DISK_ERROR: no volume is left; the node is as good as dead.
    FatalDisk,
}

/// What a writer needs placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementRequest {
    /// New replicas wanted.
    pub replicas: u16,
    /// Room needed for each, bytes.
    pub block_size: u64,
    /// The writer's ip or host name; empty if unknown.
    pub client_machine: String,
    /// Not these.
    pub excluded: Vec<DatanodeUuid>,
    /// Rather these: `ip:port` or `host:port` of the data-transfer protocol.
    pub favored: Vec<String>,
    /// Replicas that exist already (`getAdditionalDatanode`): their nodes are not chosen again.
    pub existing: Vec<Target>,
    /// NO_LOCAL_WRITE: not on the writer's machine, if there are others.
    pub no_local: bool,
    /// IGNORE_CLIENT_LOCALITY: the writer's machine means nothing.
    pub ignore_locality: bool,
}

/// Where a writer's replicas go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// New targets, in pipeline order; maybe fewer than asked for, maybe none.
    pub targets: Vec<Target>,
    /// DataNodes that are running, for HDFS's message.
    pub live: usize,
    /// How many of the excluded are known here, for HDFS's message.
    pub excluded: usize,
}
