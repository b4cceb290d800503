//! What others may ask of the fleet: types of the answers.

use std::sync::Arc;

use mobula_types::{Block, DatanodeId, DatanodeUuid, Millis, StorageReport, StorageType, StorageUuid};

/// Who a DataNode is, shared by all answers that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Identity and addresses.
    pub id: DatanodeId,
    /// Its software, as it says.
    pub software_version: String,
    /// `/default-rack` until racks come.
    pub rack: String,
}

/// How a DataNode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Beats.
    Live,
    /// Missed beats, lost its connection or is stopping: no new blocks, readers elsewhere first.
    Suspect,
    /// Its replicas do not count.
    Dead,
}

/// Which DataNodes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeFilter {
    /// All.
    All,
    /// Live and suspect ones, as HDFS counts.
    Live,
    /// Dead ones.
    Dead,
    /// Suspect ones.
    Suspect,
}

/// A DataNode's figures, for `getDatanodeReport` and `getDatanodeStorageReport`.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// Who.
    pub info: Arc<NodeInfo>,
    /// How it is.
    pub state: NodeState,
    /// Volumes with their last figures.
    pub storages: Vec<StorageReport>,
    /// Sums over healthy volumes, bytes.
    pub capacity: u64,
    /// See `capacity`.
    pub dfs_used: u64,
    /// See `capacity`.
    pub remaining: u64,
    /// See `capacity`.
    pub pool_used: u64,
    /// See `capacity`.
    pub non_dfs_used: u64,
    /// Replicas.
    pub blocks: u64,
    /// Open data connections.
    pub xceivers: u32,
    /// Failed volumes.
    pub failed_volumes: u32,
    /// Cache figures, passed through.
    pub cache_capacity: u64,
    /// See `cache_capacity`.
    pub cache_used: u64,
    /// Monotonic time of its last beat.
    pub last_beat: Millis,
    /// Monotonic time of its last full report.
    pub last_report: Option<Millis>,
}

/// Where a replica is.
#[derive(Clone, Debug)]
pub struct Location {
    /// Who has it.
    pub node: Arc<NodeInfo>,
    /// On which volume.
    pub storage: StorageUuid,
    /// Of which medium.
    pub kind: StorageType,
    /// It is bad.
    pub corrupt: bool,
    /// Its node is suspect, or has not reported since it registered.
    pub stale: bool,
}

/// Where a block's replicas are, best first for the reader who asked.
#[derive(Clone, Debug, Default)]
pub struct Locations {
    /// Corrupt ones are left out unless all are.
    pub replicas: Vec<Location>,
    /// All are corrupt.
    pub corrupt: bool,
}

/// Figures of the whole fleet, for `getFsStats` and others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetStats {
    /// Sums over live nodes' healthy volumes, bytes.
    pub capacity: u64,
    /// See `capacity`.
    pub used: u64,
    /// See `capacity`.
    pub remaining: u64,
    /// See `capacity`.
    pub pool_used: u64,
    /// Nodes that are live or suspect.
    pub nodes_live: usize,
    /// Of these, suspect.
    pub nodes_suspect: usize,
    /// Dead ones that are remembered.
    pub nodes_dead: usize,
    /// Open data connections of all live nodes.
    pub xceivers: u64,
    /// Committed blocks below their target, missing ones among them.
    pub under_replicated: u64,
    /// Blocks with a corrupt replica.
    pub corrupt: u64,
    /// Blocks without a good replica. 0 until copies are open after a start, as in HDFS.
    pub missing: u64,
    /// Of these, with a target of 1.
    pub missing_repl_one: u64,
    /// Replicas that wait to be deleted.
    pub pending_deletion: u64,
    /// Copies ordered and not verified yet.
    pub pending_copies: u64,
    /// Open blocks whose recovery runs or waits for a DataNode that can do it.
    pub pending_recoveries: u64,
    /// Blocks that stand above the namespace's next id.
    pub in_future: u64,
    /// Replicas in the map.
    pub replicas: u64,
    /// Bytes of `in_future` replicas are not known: HDFS's field counts them.
    pub bytes_in_future: u64,
}

/// DESIGN 3b: whether every block of every closed file has its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Every committed block has min(target, eligible nodes) live verified replicas, and nothing is
    /// being found out that could change that.
    pub healed: bool,
    /// Committed blocks below their target.
    pub under_replicated: u64,
    /// Of these, on as many nodes as there are: they wait for more nodes.
    pub limited_by_nodes: u64,
    /// Blocks without a good replica.
    pub missing: u64,
    /// Copies ordered and not verified yet.
    pub pending_copies: u64,
    /// Live or suspect nodes that have not reported in full since they registered.
    pub unreported_nodes: usize,
    /// Suspect nodes.
    pub suspect_nodes: usize,
    /// The first walk through the block table after the start is done.
    pub scanned: bool,
    /// Blocks that are looked at again in the next ticks.
    pub unsettled: u64,
}

/// Why a block has fewer replicas than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhyUnder {
    /// A copy is on its way.
    CopyPending,
    /// It will be copied as soon as there is room in the limits.
    Queued,
    /// Copies wait for full reports after the start.
    Starting,
    /// No good replica is left.
    NoSource,
    /// Each live node has it already.
    NoMoreNodes,
    /// No other node has room.
    NoSpace,
    /// Its only good replicas are on suspect nodes or on ones that have not reported.
    SourceSuspect,
}

/// A block below its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderReplicated {
    /// Which.
    pub block: Block,
    /// Good replicas.
    pub live: u16,
    /// How many there should be.
    pub wanted: u16,
    /// Who has the good ones.
    pub holders: Vec<DatanodeUuid>,
    /// Why it is not healed yet.
    pub why: WhyUnder,
}

/// How far the reports after a start have come, for safe mode's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartProgress {
    /// Committed blocks that the table has, as far as it was walked.
    pub blocks_expected: u64,
    /// Of these, with a good replica reported.
    pub blocks_reported: u64,
    /// Live nodes.
    pub nodes: usize,
    /// Of these, fully reported.
    pub nodes_reported: usize,
    /// Copies may be ordered.
    pub copies_open: bool,
    /// Replicas may be deleted.
    pub deletes_open: bool,
}
