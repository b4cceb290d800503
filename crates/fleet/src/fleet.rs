//! The fleet's face. Each method hands on to the room that does the work.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_types::{Block, BlockId, DatanodeUuid, GenStamp, Millis, StorageUuid, StoredReplica, Target};
use rand::SeedableRng;
use rand::rngs::StdRng;
use smallvec::SmallVec;

use crate::copies::Copies;
use crate::event::*;
use crate::map::ReplicaMap;
use crate::needs::{Needs, Urgency};
use crate::notice::{Journal, Notice};
use crate::recovery::Recoveries;
use crate::report::ReportCursor;
use crate::roster::Roster;
use crate::set::BlockSet;
use crate::table::{BlockTable, TableBlock};
use crate::view::*;
use crate::watch::{Gate, Sweep, Walk};

/// The pipeline's other reports are on their way: a block that was just committed is not short of
/// replicas before this.
const COMMIT_GRACE_MS: u64 = 2_000;

/// The fleet. All `now`s are monotonic milliseconds.
#[derive(Debug)]
pub struct Fleet {
    pub(crate) config: FleetConfig,
    pub(crate) rng: StdRng,
    /// Orders are given by the leader only.
    pub(crate) leading: bool,
    /// Orders wait, although it leads: safe mode.
    held: bool,
    pub(crate) roster: Roster,
    pub(crate) map: ReplicaMap,
    /// Blocks whose recovery runs or is to run.
    pub(crate) recoveries: Recoveries,
    /// Blocks whose removal was told and that still have replicas.
    pub(crate) removed: BlockSet,
    pub(crate) needs: Needs,
    pub(crate) copies: Copies,
    /// To be looked at again, when the table is at hand.
    pub(crate) dirty: BlockSet,
    pub(crate) sweep: Sweep,
    pub(crate) walk: Walk,
    pub(crate) gate: Gate,
    pub(crate) journal: Journal,
    pub(crate) ticked: Millis,
    pub(crate) plan_cursors: BTreeMap<Urgency, BlockId>,
    pub(crate) trim_cursor: BlockId,
    /// Something was short of replicas since all was healed last.
    was_hurt: bool,
}

impl Fleet {
    /// An empty fleet that leads. The `seed` decides all random choices.
    pub fn new(config: FleetConfig, seed: u64, now: Millis) -> Fleet {
        Fleet {
            config,
            rng: StdRng::seed_from_u64(seed),
            leading: true,
            held: false,
            roster: Roster::default(),
            map: ReplicaMap::default(),
            recoveries: Recoveries::default(),
            removed: BlockSet::default(),
            needs: Needs::default(),
            copies: Copies::default(),
            dirty: BlockSet::default(),
            sweep: Sweep::default(),
            walk: Walk::default(),
            gate: Gate { since: now, ..Gate::default() },
            journal: Journal::default(),
            ticked: now,
            plan_cursors: BTreeMap::new(),
            trim_cursor: BlockId(0),
            was_hurt: false,
        }
    }

    /// This NameNode leads from now on: orders are given again once full reports have come (D15).
    pub fn lead(&mut self, now: Millis) {
        self.leading = true;
        self.gate = Gate { since: now, ..Gate::default() };
        // The leader before may have ordered deletions: only new reports tell what is left (D15).
        for index in self.roster.indices() {
            let node = self.roster.node_mut(index);
            node.ask_register = true;
            node.asked = None;
            for slot in node.slots.clone() {
                self.roster.slot_mut(slot).confirmed = false;
            }
            self.roster.refresh(index);
        }
    }

    /// This NameNode follows from now on: it listens to reports and orders nothing.
    pub fn follow(&mut self) {
        self.leading = false;
        for index in self.roster.indices() {
            for (id, target) in self.copies.touching(index) {
                self.copies.take(&mut self.roster, id, target);
            }
            let node = self.roster.node_mut(index);
            node.outbox.clear();
            node.recover_box.clear();
            node.forget_deletions();
        }
        self.recoveries.unassign_all();
    }

    /// Orders nothing until [`Fleet::release_orders`]. It listens on, and what was handed out goes on and is confirmed, so that
    /// nothing is missed: nobody has to report again because of it.
    pub fn hold_orders(&mut self) {
        self.held = true;
    }

    /// Orders again, if it leads.
    pub fn release_orders(&mut self) {
        self.held = false;
    }

    pub(crate) fn gives_orders(&self) -> bool {
        self.leading && !self.held
    }

    /// A DataNode says who it is.
    ///
    /// # Errors
    /// [`RegisterError::IdentityInUse`] if a live DataNode at another address has this identity.
    pub fn on_register(&mut self, now: Millis, registration: Registration) -> Result<(), RegisterError> {
        self.register(now, registration)
    }

    /// A heartbeat; the answer may hold [`crate::Order::Register`] for a node that is unknown or was dead.
    pub fn on_heartbeat(&mut self, now: Millis, beat: Heartbeat, table: &dyn BlockTable) -> HeartbeatAnswer {
        self.beat(now, &beat, table)
    }

    /// A sign of life besides the heartbeats (HDFS: `DatanodeManager.handleLifeline`): hands out nothing.
    pub fn on_lifeline(&mut self, now: Millis, beat: Heartbeat) {
        self.lifeline(now, &beat);
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
        if replicas.is_sorted_by_key(|replica| replica.block.id) {
            self.report_slice(now, &mut cursor, replicas, table)?;
        } else {
            let mut sorted = replicas.to_vec();
            crate::report::sort_report(&mut sorted);
            self.report_slice(now, &mut cursor, &sorted, table)?;
        }
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
        self.begin_report(now, node, storage, lease)
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
        self.merge_slice(now, cursor, replicas, table)
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
        self.end_report(now, cursor, last, table)
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
        self.take_news(now, node, storage, news, table)
    }

    /// A reader, a writer or a DataNode found a replica's bytes to be bad.
    pub fn on_bad_replica(
        &mut self,
        now: Millis,
        block: Block,
        at: &[(DatanodeUuid, Option<StorageUuid>)],
        table: &dyn BlockTable,
    ) {
        self.take_bad(now, block, at, table);
    }

    /// A node's connection broke: suspect at once.
    pub fn on_disconnected(&mut self, now: Millis, node: &DatanodeUuid) {
        self.disconnected(now, node);
    }

    /// A node stops in order: suspect at once, dead only after the longer grace.
    pub fn on_stopping(&mut self, now: Millis, node: &DatanodeUuid) {
        self.stopping(now, node);
    }

    /// A volume failed, before its node's next heartbeat says so.
    pub fn on_storage_failed(&mut self, now: Millis, node: &DatanodeUuid, storage: &StorageUuid) {
        self.storage_failed(now, node, storage);
    }

    /// A node's `errorReport`.
    pub fn on_error_report(&mut self, now: Millis, node: &DatanodeUuid, error: NodeError) {
        self.error_report(now, node, error);
    }

    /// The namespace changed.
    pub fn on_block_change(&mut self, now: Millis, change: BlockChange) {
        match change {
            // Where its replicas are expected stands in the table; what reports say is noted as it comes.
            BlockChange::Allocated { .. } => {}
            BlockChange::Committed { block, replication } => self.committed(now, block, replication),
            BlockChange::Reopened { block, .. } => self.reopened(block),
            BlockChange::Pipeline { block, .. } => self.pipeline_changed(block),
            BlockChange::Recover(asked) => self.begin_recovery(now, asked),
            BlockChange::Recovered { block, targets } => self.recovered(block, &targets),
            BlockChange::Removed { block } => self.take_away(block),
            BlockChange::Replication { block, .. } => {
                self.dirty.insert(block);
            }
        }
    }

    fn committed(&mut self, now: Millis, block: Block, replication: u16) {
        self.end_recovery(block.id);
        self.needs.make_young(block.id, now + Millis(COMMIT_GRACE_MS));
        let next = BlockId(block.id.0.saturating_add(1));
        self.assess(now, block.id, Some(TableBlock { block, replication, committed: true }), next);
        // The view that is at hand later may know more.
        self.dirty.insert(block.id);
    }

    fn take_away(&mut self, id: BlockId) {
        self.end_recovery(id);
        self.needs.forget(id);
        self.drop_copies(id);
        if !self.map.entries(id).is_empty() {
            self.removed.insert(id);
            self.doom_all(id);
        }
    }

    /// Forgets the copies of a block that must not be made any more.
    pub(crate) fn drop_copies(&mut self, id: BlockId) {
        let targets: SmallVec<[u32; 2]> = self.copies.of(id).iter().map(|copy| copy.target).collect();
        for target in targets {
            self.copies.take(&mut self.roster, id, target);
        }
    }

    /// Time passes: nodes die, orders expire, queues advance. Call it each 100 to 500 ms; the work
    /// of one call is bounded; true if more waits that could be done at once (let others have the lock first).
    pub fn tick(&mut self, now: Millis, table: &dyn BlockTable) -> bool {
        self.watch_nodes(now);
        self.expire_leases(now);
        self.expire_copies(now);
        self.expire_deletes(now);
        self.advance_recoveries(now);
        let mut more = self.advance_sweep(now, table);
        more |= self.advance_walk(now, table);
        more |= self.settle_dirty(now, table);
        self.open_gates(now);
        more |= self.trim(now, table);
        more |= self.plan_copies(now, table);
        self.tell_health(now);
        more
    }

    fn tell_health(&mut self, now: Millis) {
        let hurt = !self.needs.under.is_empty() || !self.needs.missing.is_empty();
        if hurt {
            self.was_hurt |= self.gate.copies_open;
        } else if self.was_hurt && self.judge_health().healed {
            self.was_hurt = false;
            self.journal.add(now, Notice::Healed);
        }
    }

    /// Where a writer's replicas go.
    pub fn place(&mut self, now: Millis, request: &PlacementRequest) -> Placement {
        let _ = now;
        self.choose_targets(request)
    }

    /// Where a block's replicas are, best first for a reader on `reader_machine` (ip or host name).
    pub fn locations(&self, now: Millis, block: BlockId, reader_machine: &str) -> Locations {
        let _ = now;
        self.locate(block, reader_machine)
    }

    /// Where the replicas of a block under construction are, best first: those that were reported and
    /// are not stale, then those that are `expected` (the block table has them) and have not reported
    /// yet. Stale ones only where there is nothing else.
    pub fn open_locations(&self, block: Block, expected: &[Target], reader_machine: &str) -> Locations {
        self.locate_open(block, expected, reader_machine)
    }

    /// Nodes with a finalized replica of this committed block, those that readers would be sent to:
    /// where it can be appended to.
    pub fn good_targets(&self, block: Block) -> Vec<Target> {
        self.list_good_targets(block)
    }

    /// A recovery that ran before this NameNode started goes on: its primary may still be at work, so
    /// it is given a moment before [`Fleet::overdue_recoveries`] names it.
    pub fn resume_recovery(&mut self, now: Millis, running: Recover) {
        self.resume(now, running);
    }

    /// Up to `limit` recoveries whose attempt has ended without a result, or has taken too long: they
    /// are to begin again under a higher id. Each is named again only after a pause.
    pub fn overdue_recoveries(&mut self, now: Millis, limit: usize) -> Vec<(BlockId, GenStamp)> {
        self.list_overdue(now, limit)
    }

    /// A recovery's attempt came to nothing, for a reason that was found elsewhere.
    pub fn on_recovery_failed(&mut self, now: Millis, block: BlockId, recovery: GenStamp) {
        self.fail_recovery(now, block, recovery);
    }

    /// Whether the end of a recovery, as its primary tells it, may be taken: not if bytes that a writer
    /// was promised could be on replicas that had no part in it.
    ///
    /// # Errors
    /// [`Undecided`]: it is tried again.
    pub fn check_synchronization(
        &mut self,
        now: Millis,
        sync: &Synchronization<'_>,
    ) -> Result<(), Undecided> {
        self.judge_synchronization(now, sync)
    }

    /// Live finalized replicas with this stamp and length: for `complete` and `addBlock`.
    pub fn finalized(&self, block: Block) -> usize {
        self.count_finalized(block)
    }

    /// DataNodes by identity, sorted by address.
    pub fn datanodes(&self, now: Millis, filter: NodeFilter) -> Vec<NodeReport> {
        let _ = now;
        self.node_reports(filter)
    }

    /// One DataNode, whatever its state.
    pub fn node(&self, node: &DatanodeUuid) -> Option<Arc<NodeInfo>> {
        Some(Arc::clone(&self.roster.node(self.roster.index(node)?).info))
    }

    /// Whether the identity is registered from another address than this one: who speaks is a copy of the node, or was
    /// one before it moved (HDFS: `DatanodeManager.getDatanode`).
    pub fn is_elsewhere(&self, node: &DatanodeUuid, ip: &str, xfer_port: u16) -> bool {
        self.node(node).is_some_and(|known| known.id.ip != ip || known.id.xfer_port != xfer_port)
    }

    /// How one DataNode is.
    pub fn node_state(&self, node: &DatanodeUuid) -> Option<NodeState> {
        Some(self.roster.node(self.roster.index(node)?).state)
    }

    /// Sums.
    pub fn stats(&self) -> FleetStats {
        self.sum_up()
    }

    /// Whether all is healed (DESIGN 3b).
    pub fn health(&self) -> Health {
        self.judge_health()
    }

    /// Up to `limit` blocks below their target, riskiest first, each with why.
    pub fn under_replicated(&self, limit: usize, table: &dyn BlockTable) -> Vec<UnderReplicated> {
        self.list_under(limit, table)
    }

    /// Up to `limit` blocks without a good replica, ascending from `after` (exclusive), for
    /// `listCorruptFileBlocks`.
    pub fn missing_blocks(&self, after: Option<BlockId>, limit: usize) -> Vec<BlockId> {
        let from = after.map_or(BlockId(0), |id| BlockId(id.0.saturating_add(1)));
        self.needs.missing.iter_from(from).take(limit).collect()
    }

    /// How far the reports after a start have come.
    pub fn start_progress(&self) -> StartProgress {
        self.progress()
    }

    /// What was noticed and done, from `seq` on.
    pub fn notices_since(&self, seq: u64) -> Vec<(u64, Millis, Notice)> {
        self.journal.since(seq)
    }

    /// Forgets a node that an administrator took away; its replicas no longer count.
    pub fn remove_node(&mut self, now: Millis, node: &DatanodeUuid) {
        if let Some(index) = self.roster.index(node) {
            self.take_off(now, index);
        }
    }

    /// `refreshNodes`: dead nodes are forgotten. (Lists of hosts come with decommissioning.)
    pub fn refresh_nodes(&mut self, now: Millis) {
        for index in self.roster.indices() {
            if self.roster.node(index).state == NodeState::Dead {
                self.take_off(now, index);
            }
        }
    }

    /// Bytes that the map of replicas takes, about.
    pub fn map_memory(&self) -> usize {
        self.map.memory()
    }

    /// The times and limits in force.
    pub fn config(&self) -> &FleetConfig {
        &self.config
    }
}
