//! What DataNodes say of their replicas: full reports, merged in slices, and the news between them.
//!
//! A report is a set of facts about one volume at one time (DESIGN D4). What was told in increments
//! since its lease was given is newer than the report and is not touched by it (CASES 26); only a
//! volume that heartbeats show as healthy can say by silence that a replica is gone (CASES 27, 28).

use mobula_types::{
    Block, BlockId, DatanodeUuid, Millis, ReplicaState, StorageType, StorageUuid, StoredReplica,
};
use rand::Rng;
use smallvec::SmallVec;

use crate::event::{ReceivedDeleted, ReplicaNews, ReportError};
use crate::fleet::Fleet;
use crate::map::{OddReplica, SLOTS_MAX, Verdict};
use crate::notice::Notice;
use crate::roster::StorageHealth;
use crate::table::{BlockTable, TableBlock};
use crate::view::NodeState;

/// Nodes that may send full reports at one time (`dfs.namenode.max.full.block.report.leases`).
const REPORT_LEASES_MAX: usize = 6;
/// How long such a lease holds (`dfs.namenode.full.block.report.lease.length.ms`).
const REPORT_LEASE_MS: u64 = 300_000;
/// Rows of the block table that are fetched at once for a dense report.
const ROWS_AT_ONCE: usize = 512;
/// A report that names at least one of so many neighbouring ids is dense.
const DENSE: u64 = 4;

/// A full report of one volume that is being read in slices.
#[derive(Debug)]
pub struct ReportCursor {
    node: u32,
    slot: u32,
    epoch: u64,
    storage: StorageUuid,
    /// All below it is merged.
    next: Option<BlockId>,
    /// The volume was reported since the node registered: only differences matter.
    was_confirmed: bool,
    /// Without a lease it is not known what is newer: nothing is taken away.
    additive: bool,
    replicas: u64,
}

impl Fleet {
    /// The lease for the full report that a node asks for; 0: later.
    pub(crate) fn grant_lease(&mut self, now: Millis, index: u32) -> u64 {
        let held = self.roster.iter().filter(|(other, node)| *other != index && node.lease.is_some()).count();
        if held >= REPORT_LEASES_MAX {
            return 0;
        }
        let lease = self.rng.random_range(1..=i64::MAX as u64);
        self.roster.node_mut(index).lease = Some((lease, now));
        lease
    }

    /// Leases that were not used in time go to others.
    pub(crate) fn expire_leases(&mut self, now: Millis) {
        for index in self.roster.indices() {
            let node = self.roster.node_mut(index);
            if node.lease.is_some_and(|(_, given)| now.since(given).0 > REPORT_LEASE_MS) {
                node.lease = None;
                self.roster.forget_recent(index);
            }
        }
    }

    pub(crate) fn begin_report(
        &mut self,
        now: Millis,
        node: &DatanodeUuid,
        storage: &StorageUuid,
        lease: u64,
    ) -> Result<ReportCursor, ReportError> {
        let known = self.roster.index(node).filter(|index| self.roster.node(*index).state != NodeState::Dead);
        let index = known.ok_or_else(|| ReportError::UnknownNode(node.clone()))?;
        let valid = |(id, given): (u64, Millis)| id == lease && now.since(given).0 <= REPORT_LEASE_MS;
        if lease != 0 && !self.roster.node(index).lease.is_some_and(valid) {
            return Err(ReportError::BadLease { node: node.clone(), lease });
        }
        let slot = self
            .roster
            .slot_of(index, storage, StorageType::Disk)
            .ok_or(ReportError::TooManyVolumes { slots: SLOTS_MAX })?;
        let state = self.roster.slot(slot);
        if state.health != StorageHealth::Healthy {
            return Err(ReportError::UnhealthyStorage { node: node.clone(), storage: storage.clone() });
        }
        Ok(ReportCursor {
            node: index,
            slot,
            epoch: self.roster.node(index).epoch,
            storage: storage.clone(),
            next: Some(BlockId(0)),
            was_confirmed: state.confirmed,
            additive: lease == 0 && state.confirmed,
            replicas: 0,
        })
    }

    fn check_cursor(&self, cursor: &ReportCursor) -> Result<(), ReportError> {
        let node = self.roster.try_node(cursor.node);
        let same = node.is_some_and(|node| node.epoch == cursor.epoch && node.state != NodeState::Dead);
        let healthy = self.roster.slot(cursor.slot).health == StorageHealth::Healthy;
        if same && healthy {
            return Ok(());
        }
        Err(ReportError::Overtaken { storage: cursor.storage.clone() })
    }

    pub(crate) fn merge_slice(
        &mut self,
        now: Millis,
        cursor: &mut ReportCursor,
        replicas: &[StoredReplica],
        table: &dyn BlockTable,
    ) -> Result<(), ReportError> {
        self.check_cursor(cursor)?;
        let (Some(from), Some(last)) = (cursor.next, replicas.last()) else { return Ok(()) };
        if last.block.id < from {
            return Ok(());
        }
        let noted = self.on_slot(cursor.slot, from, last.block.id);
        let mut noted = noted.into_iter().peekable();
        let mut rows = Rows::new(table, replicas);
        let next = table.next_block();
        for stored in replicas.iter().filter(|stored| stored.block.id >= from) {
            let id = stored.block.id;
            while let Some(absent) = noted.next_if(|noted| *noted < id) {
                self.take_absence(now, cursor, absent, table);
            }
            noted.next_if_eq(&id);
            let row = if self.removed.contains(id) { None } else { rows.get(id) };
            self.take_reported(now, cursor, *stored, row, next);
        }
        cursor.replicas += replicas.len() as u64;
        cursor.next = last.block.id.0.checked_add(1).map(BlockId);
        Ok(())
    }

    pub(crate) fn end_report(
        &mut self,
        now: Millis,
        cursor: ReportCursor,
        last: bool,
        table: &dyn BlockTable,
    ) -> Result<(), ReportError> {
        self.check_cursor(&cursor)?;
        if let Some(from) = cursor.next {
            for absent in self.on_slot(cursor.slot, from, BlockId(u64::MAX)) {
                self.take_absence(now, &cursor, absent, table);
            }
        }
        let slot = self.roster.slot_mut(cursor.slot);
        slot.confirmed = true;
        slot.recent.clear();
        let node = self.roster.node_mut(cursor.node);
        node.last_report = Some(now);
        if last {
            node.lease = None;
            // News that came while later volumes were read is older than any report that is to come.
            self.roster.forget_recent(cursor.node);
        }
        let node = self.roster.node_mut(cursor.node);
        let uuid = node.info.id.uuid.clone();
        let moved = self.roster.refresh(cursor.node);
        self.sweep.queue(&moved);
        if !cursor.was_confirmed {
            let replicas = cursor.replicas;
            self.journal.add(now, Notice::StorageReported { node: uuid, storage: cursor.storage, replicas });
        }
        Ok(())
    }

    /// Blocks in that range of which the volume is known to have a replica. Not looked for on one of which nothing is
    /// known, as all are after a start: the map is large.
    fn on_slot(&self, slot: u32, from: BlockId, to: BlockId) -> Vec<BlockId> {
        if self.roster.slot(slot).replicas == 0 { Vec::new() } else { self.map.on_slot(slot, from, to) }
    }

    fn take_absence(&mut self, now: Millis, cursor: &ReportCursor, id: BlockId, table: &dyn BlockTable) {
        if cursor.additive || self.roster.slot(cursor.slot).recent.contains(id) {
            return;
        }
        if self.drop_replica(id, cursor.slot) {
            self.assess_in(now, id, table);
        }
    }

    fn take_reported(
        &mut self,
        now: Millis,
        cursor: &ReportCursor,
        stored: StoredReplica,
        row: Option<TableBlock>,
        next: BlockId,
    ) {
        let id = stored.block.id;
        if self.roster.slot(cursor.slot).recent.contains(id) {
            return;
        }
        let mut changed = !cursor.was_confirmed;
        if !cursor.was_confirmed && self.map.get(id, cursor.slot).is_some_and(|entry| entry.is_doomed()) {
            // The order to delete it was lost with the node's old life (CASES 25): decide anew.
            self.map.set_doom(id, cursor.slot, false);
        }
        changed |= self.note(cursor.slot, stored, row, next);
        if changed {
            self.assess(now, id, row, next);
            self.confirm_copy(now, id, cursor.slot, row, next);
        }
    }

    pub(crate) fn take_news(
        &mut self,
        now: Millis,
        node: &DatanodeUuid,
        storage: &StorageUuid,
        news: &[ReceivedDeleted],
        table: &dyn BlockTable,
    ) -> bool {
        let Some(index) =
            self.roster.index(node).filter(|index| self.roster.node(*index).state != NodeState::Dead)
        else {
            return false;
        };
        let Some(slot) = self.roster.slot_of(index, storage, StorageType::Disk) else { return true };
        for item in news {
            match item.news {
                ReplicaNews::Receiving => self.take_receiving(now, slot, item.block, table),
                ReplicaNews::Received => self.take_received(now, index, slot, item.block, table),
                ReplicaNews::Deleted => self.take_deleted(now, slot, item.block, table),
            }
        }
        true
    }

    /// Marks a block as newer than the full report that is to come.
    pub(crate) fn mark_recent(&mut self, slot: u32, id: BlockId) {
        let leased = self.roster.holder(slot).is_some_and(|node| node.lease.is_some());
        let slot = self.roster.slot_mut(slot);
        if leased || !slot.confirmed {
            slot.recent.insert(id);
        }
    }

    fn take_receiving(&mut self, now: Millis, slot: u32, block: Block, table: &dyn BlockTable) {
        let id = block.id;
        // What is known of this version or a newer one is further on: this is an old message.
        if self.stamp_at(id, slot).is_some_and(|stamp| stamp >= block.stamp) {
            return;
        }
        self.mark_recent(slot, id);
        let row = self.row(id, table);
        if row.is_some() {
            // A replica that was closed is written on under a new stamp: what was said of it is past.
            self.drop_replica(id, slot);
        }
        self.note(slot, StoredReplica { block, state: ReplicaState::Rbw }, row, table.next_block());
        self.assess(now, id, row, table.next_block());
    }

    fn take_received(&mut self, now: Millis, index: u32, slot: u32, block: Block, table: &dyn BlockTable) {
        let id = block.id;
        self.mark_recent(slot, id);
        let expected = self.copies.of(id).iter().any(|copy| copy.target == index && copy.block == block);
        if !expected {
            self.roster.node_mut(index).arrived(block.length);
        }
        let old = self.map.get(id, slot);
        let old_stamp = old.and_then(|_| self.stamp_at(id, slot));
        if let Some(entry) = old
            && !expected
            && old_stamp >= Some(block.stamp)
            && (entry.is_doomed() || self.is_bad(id, entry))
        {
            // An old message: it does not bring back what is to be deleted, nor mend bad bytes.
            return;
        }
        if !expected && old_stamp > Some(block.stamp) {
            // As old: the replica has been written on since.
            return;
        }
        if old.is_some() && (expected || old_stamp < Some(block.stamp)) {
            self.drop_replica(id, slot);
        }
        for other in self.roster.node(index).slots.clone() {
            // A node has a block once: it was moved between volumes.
            if other != slot {
                self.drop_replica(id, other);
            }
        }
        let row = self.row(id, table);
        let next = table.next_block();
        self.note(slot, StoredReplica { block, state: ReplicaState::Finalized }, row, next);
        self.assess(now, id, row, next);
        self.confirm_copy(now, id, slot, row, next);
    }

    fn take_deleted(&mut self, now: Millis, slot: u32, block: Block, table: &dyn BlockTable) {
        self.mark_recent(slot, block.id);
        if self.stamp_at(block.id, slot).is_none_or(|stamp| stamp > block.stamp) {
            return;
        }
        if self.drop_replica(block.id, slot) {
            self.assess_in(now, block.id, table);
        }
    }

    /// The stamp of a noted replica.
    pub(crate) fn stamp_at(&self, id: BlockId, slot: u32) -> Option<mobula_types::GenStamp> {
        let entry = self.map.get(id, slot)?;
        if entry.is_odd() { self.map.odd(id, slot).map(|odd| odd.stamp) } else { self.map.stamp(id) }
    }

    pub(crate) fn take_bad(
        &mut self,
        now: Millis,
        block: Block,
        at: &[(DatanodeUuid, Option<StorageUuid>)],
        table: &dyn BlockTable,
    ) {
        let id = block.id;
        let known = self.row(id, table).is_some_and(|row| row.block.stamp == block.stamp);
        for (node, storage) in at {
            let Some(index) = self.roster.index(node) else { continue };
            let named = storage.as_ref().and_then(|storage| self.roster.find_slot(index, storage));
            let holding: SmallVec<[u32; 4]> = match named {
                Some(slot) if self.map.get(id, slot).is_some() => SmallVec::from_slice(&[slot]),
                _ => {
                    let slots = self.roster.node(index).slots.iter().copied();
                    slots.filter(|slot| self.map.get(id, *slot).is_some()).collect()
                }
            };
            for slot in &holding {
                self.mark_corrupt(now, block, index, *slot);
            }
            // The reader may be there before the node's own word of this version: it will not count as good when that
            // comes, though it were of a copy that is expected.
            let unheard = match holding.as_slice() {
                [] => named,
                [slot] if self.stamp_at(id, *slot) < Some(block.stamp) => Some(*slot),
                _ => None,
            };
            if let Some(slot) = unheard.filter(|_| known) {
                self.put_corrupt(now, block, ReplicaState::Finalized, slot);
                self.drop_copy(now, id, index);
            }
        }
        self.assess_in(now, id, table);
    }

    fn mark_corrupt(&mut self, now: Millis, block: Block, index: u32, slot: u32) {
        let id = block.id;
        // A complaint about another version says nothing of this one.
        if self.stamp_at(id, slot) != Some(block.stamp) {
            return;
        }
        let state = self.map.odd(id, slot).map_or(ReplicaState::Finalized, |odd| odd.state);
        if self.map.odd(id, slot).is_some_and(|odd| odd.verdict == Verdict::Corrupt) {
            return;
        }
        self.put_corrupt(now, block, state, slot);
        let sent: Vec<u32> =
            self.copies.of(id).iter().filter(|copy| copy.source == index).map(|copy| copy.target).collect();
        for target in sent {
            self.give_up(now, id, target);
        }
    }
}

impl Fleet {
    fn put_corrupt(&mut self, now: Millis, block: Block, state: ReplicaState, slot: u32) {
        let replica =
            OddReplica { stamp: block.stamp, length: block.length, state, verdict: Verdict::Corrupt };
        let before = self.map.len();
        self.map.put_odd(block.id, slot, replica);
        self.roster.slot_mut(slot).replicas += self.map.len() - before;
        self.tell_corrupt(now, block.id, slot);
    }
}

/// Sorts a report by block id, as slices want it; do it outside of any lock.
pub fn sort_report(replicas: &mut [StoredReplica]) {
    replicas.sort_unstable_by_key(|replica| replica.block.id);
}

/// Reads rows for ascending ids: in bulk if the report is dense, else one by one.
struct Rows<'a> {
    table: &'a dyn BlockTable,
    dense: bool,
    ahead: std::vec::IntoIter<TableBlock>,
    /// All rows up to here were fetched.
    known_to: Option<BlockId>,
}

impl<'a> Rows<'a> {
    fn new(table: &'a dyn BlockTable, replicas: &[StoredReplica]) -> Rows<'a> {
        let first = replicas.first().map_or(0, |stored| stored.block.id.0);
        let last = replicas.last().map_or(0, |stored| stored.block.id.0);
        let dense = (last - first.min(last)) / DENSE < replicas.len() as u64;
        Rows { table, dense, ahead: Vec::new().into_iter(), known_to: None }
    }

    fn get(&mut self, id: BlockId) -> Option<TableBlock> {
        if !self.dense {
            return self.table.block(id);
        }
        if self.known_to.is_none_or(|known| id > known) {
            let rows = self.table.blocks_from(id, ROWS_AT_ONCE);
            let all = rows.len() < ROWS_AT_ONCE;
            self.known_to = if all { Some(BlockId(u64::MAX)) } else { rows.last().map(|row| row.block.id) };
            self.ahead = rows.into_iter();
        }
        while let Some(row) = self.ahead.as_slice().first() {
            if row.block.id > id {
                return None;
            }
            let row = *row;
            if row.block.id == id {
                // Left in place: the same id may be asked for twice.
                return Some(row);
            }
            self.ahead.next();
        }
        None
    }
}
