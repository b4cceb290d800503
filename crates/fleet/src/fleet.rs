//! The fleet's face. Each method hands on to the room that does the work.

use mobula_types::{Block, BlockId, DatanodeUuid, Millis, StorageUuid, StoredReplica};

use crate::event::*;
use crate::notice::{Journal, Notice};
use crate::table::BlockTable;
use crate::view::*;

/// A full report of one volume that is being read in slices.
#[derive(Debug)]
pub struct ReportCursor {
    pub(crate) node: DatanodeUuid,
    pub(crate) storage: StorageUuid,
}

/// The fleet. All `now`s are monotonic milliseconds.
#[derive(Debug)]
pub struct Fleet {
    config: FleetConfig,
    journal: Journal,
}

#[allow(unused_variables)]
impl Fleet {
    /// An empty fleet that leads. The `seed` decides all random choices.
    pub fn new(config: FleetConfig, seed: u64, now: Millis) -> Fleet {
        Fleet { config, journal: Journal::default() }
    }

    /// This NameNode leads from now on: orders are given again once full reports have come (D15).
    pub fn lead(&mut self, now: Millis) {}

    /// This NameNode follows from now on: it listens to reports and orders nothing.
    pub fn follow(&mut self) {}

    /// A DataNode says who it is.
    ///
    /// # Errors
    /// [`RegisterError::IdentityInUse`] if a live DataNode at another address has this identity.
    pub fn on_register(&mut self, now: Millis, registration: Registration) -> Result<(), RegisterError> {
        Ok(())
    }

    /// A heartbeat; the answer may hold [`crate::Order::Register`] for a node that is unknown or was dead.
    pub fn on_heartbeat(&mut self, now: Millis, beat: Heartbeat, table: &dyn BlockTable) -> HeartbeatAnswer {
        HeartbeatAnswer::default()
    }

    /// A full report of one volume in one go; `last` if it ends the node's reports (the last volume
    /// of the last RPC): the lease is given back. For long reports use [`Fleet::report_begin`].
    ///
    /// # Errors
    /// See [`ReportError`]; nothing was changed then.
    #[allow(clippy::too_many_arguments)]
    pub fn on_full_report(
        &mut self,
        now: Millis,
        node: &DatanodeUuid,
        storage: &StorageUuid,
        replicas: &[StoredReplica],
        lease: u64,
        last: bool,
        table: &dyn BlockTable,
    ) -> Result<(), ReportError> {
        let mut cursor = self.report_begin(now, node, storage, lease)?;
        self.report_slice(now, &mut cursor, replicas, table)?;
        self.report_finish(now, cursor, last, table)
    }

    /// Begins a full report that is given in slices, so that no lock is held for long. Slices of
    /// some 10,000 replicas are good; other events may come between them.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub fn report_begin(
        &mut self,
        now: Millis,
        node: &DatanodeUuid,
        storage: &StorageUuid,
        lease: u64,
    ) -> Result<ReportCursor, ReportError> {
        Ok(ReportCursor { node: node.clone(), storage: storage.clone() })
    }

    /// The next slice. Sort the whole report by block id before the first one (outside the lock).
    ///
    /// # Errors
    /// See [`ReportError`].
    pub fn report_slice(
        &mut self,
        now: Millis,
        cursor: &mut ReportCursor,
        replicas: &[StoredReplica],
        table: &dyn BlockTable,
    ) -> Result<(), ReportError> {
        Ok(())
    }

    /// All slices were given: what was not in them is not on the volume.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub fn report_finish(
        &mut self,
        now: Millis,
        cursor: ReportCursor,
        last: bool,
        table: &dyn BlockTable,
    ) -> Result<(), ReportError> {
        Ok(())
    }

    /// An incremental report of one volume. An unknown volume is made; false: the node is unknown
    /// (answer Register with its next heartbeat).
    pub fn on_received_deleted(
        &mut self,
        now: Millis,
        node: &DatanodeUuid,
        storage: &StorageUuid,
        news: &[ReceivedDeleted],
        table: &dyn BlockTable,
    ) -> bool {
        true
    }

    /// A reader, a writer or a DataNode found a replica's bytes to be bad.
    pub fn on_bad_replica(
        &mut self,
        now: Millis,
        block: Block,
        at: &[(DatanodeUuid, Option<StorageUuid>)],
        table: &dyn BlockTable,
    ) {
    }

    /// A node's connection broke: suspect at once.
    pub fn on_disconnected(&mut self, now: Millis, node: &DatanodeUuid) {}

    /// A node stops in order: suspect at once, dead only after the longer grace.
    pub fn on_stopping(&mut self, now: Millis, node: &DatanodeUuid) {}

    /// A volume failed, before its node's next heartbeat says so.
    pub fn on_storage_failed(&mut self, now: Millis, node: &DatanodeUuid, storage: &StorageUuid) {}

    /// A node's `errorReport`.
    pub fn on_error_report(&mut self, now: Millis, node: &DatanodeUuid, error: NodeError) {}

    /// The namespace changed.
    pub fn on_block_change(&mut self, now: Millis, change: BlockChange) {}

    /// Time passes: nodes die, orders expire, queues advance. Call it each 100 to 500 ms; the work
    /// of one call is bounded.
    pub fn tick(&mut self, now: Millis, table: &dyn BlockTable) {}

    /// Where a writer's replicas go.
    pub fn place(&mut self, now: Millis, request: &PlacementRequest) -> Placement {
        Placement::default()
    }

    /// Where a block's replicas are, best first for a reader on `reader_machine` (ip or host name).
    pub fn locations(&self, now: Millis, block: BlockId, reader_machine: &str) -> Locations {
        Locations::default()
    }

    /// Live finalized replicas with this stamp and length: for `complete` and `addBlock`.
    pub fn finalized(&self, block: Block) -> usize {
        0
    }

    /// DataNodes by identity, sorted by address.
    pub fn datanodes(&self, now: Millis, filter: NodeFilter) -> Vec<NodeReport> {
        Vec::new()
    }

    /// One DataNode, whatever its state.
    pub fn node(&self, node: &DatanodeUuid) -> Option<std::sync::Arc<NodeInfo>> {
        None
    }

    /// How one DataNode is.
    pub fn node_state(&self, node: &DatanodeUuid) -> Option<NodeState> {
        None
    }

    /// Sums.
    pub fn stats(&self) -> FleetStats {
        FleetStats::default()
    }

    /// Whether all is healed (DESIGN 3b).
    pub fn health(&self) -> Health {
        Health::default()
    }

    /// Up to `limit` blocks below their target, riskiest first, each with why.
    pub fn under_replicated(&self, limit: usize, table: &dyn BlockTable) -> Vec<UnderReplicated> {
        Vec::new()
    }

    /// Up to `limit` blocks without a good replica, ascending from `after` (exclusive), for
    /// `listCorruptFileBlocks`.
    pub fn missing_blocks(&self, after: Option<BlockId>, limit: usize) -> Vec<BlockId> {
        Vec::new()
    }

    /// How far the reports after a start have come.
    pub fn start_progress(&self) -> StartProgress {
        StartProgress::default()
    }

    /// What was noticed and done, from `seq` on.
    pub fn notices_since(&self, seq: u64) -> Vec<(u64, Millis, Notice)> {
        self.journal.since(seq)
    }

    /// Forgets a node that an administrator took away; its replicas no longer count.
    pub fn remove_node(&mut self, now: Millis, node: &DatanodeUuid) {}

    /// `refreshNodes`: dead nodes are forgotten. (Lists of hosts come with decommissioning.)
    pub fn refresh_nodes(&mut self, now: Millis) {}

    /// The times and limits in force.
    pub fn config(&self) -> &FleetConfig {
        &self.config
    }
}
