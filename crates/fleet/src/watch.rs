//! Watches: nodes that fall silent, volumes that come and go, the blocks these touch, the walk
//! through the block table, and when after a start orders may begin. Bounded work per tick.

use std::collections::BTreeSet;

use mobula_types::{BlockId, DatanodeUuid, Millis, StorageUuid};

use crate::event::{Heartbeat, HeartbeatAnswer, NodeError, RegisterError, Registration};
use crate::fleet::Fleet;
use crate::notice::Notice;
use crate::order::Order;
use crate::roster::{HOPE_MS, Standing, StorageHealth};
use crate::set::{PAGE_BLOCKS, id_at};
use crate::table::BlockTable;
use crate::view::NodeState;

/// Longer than this between two ticks means that this process stood still, not the nodes (CASES
/// 39): their silence in that time does not count. (Or one and a half beats, if they are longer.)
const TICK_GAP_MS_MAX: u64 = 1_500;
/// Pages of the map that one tick looks through: 4,096 x 3 KiB, some 3 ms.
const SWEEP_PAGES: usize = 4_096;
/// Blocks that one tick assesses for a sweep, and as many again for the first walk.
const BLOCKS_PER_TICK: usize = 10_000;
/// Later walks through the table go slowly, and begin this often.
const WALK_MS: u64 = 600_000;
/// Blocks that one tick assesses for a later walk.
const WALK_BLOCKS: usize = 1_000;
/// A dead node's replicas are dropped from the map after this long.
const PURGE_MS: u64 = 600_000;
/// A node is asked to register again at most this often.
const ASK_MS: u64 = 300_000;
/// Rows fetched at once when many blocks of a page are looked at.
const DENSE_PAGE: usize = 32;
/// Nodes that register but never report do not hold back deletions longer than this many start
/// delays.
const HUNG_NODE_DELAYS: u64 = 10;

/// Looks through the map for blocks on volumes that came or went.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    page: u64,
    slots: BTreeSet<u32>,
    queued: BTreeSet<u32>,
}

impl Sweep {
    pub(crate) fn queue(&mut self, slots: &[u32]) {
        self.queued.extend(slots);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.queued.is_empty()
    }
}

/// The walk through the block table: finds blocks that no report ever named.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Where it stands; none between walks.
    pub(crate) at: Option<BlockId>,
    /// The first one is done.
    pub(crate) done_once: bool,
    pub(crate) ended: Millis,
    /// Committed blocks counted so far, and by the last walk.
    pub(crate) counted: u64,
    pub(crate) committed: u64,
}

/// When orders may be given (DESIGN D11, D15).
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) since: Millis,
    pub(crate) copies_open: bool,
    /// Deletions of what is surplus, bad, or was removed in this life.
    pub(crate) deletes_open: bool,
    /// Deletions of replicas of blocks that no file has, as reported.
    pub(crate) strays_open: bool,
}

impl Fleet {
    pub(crate) fn register(&mut self, now: Millis, registration: Registration) -> Result<(), RegisterError> {
        self.roster.check(&registration)?;
        if let Some(predecessor) = self.roster.predecessor(&registration) {
            self.take_off(now, predecessor);
        }
        let uuid = registration.id.uuid.clone();
        let known = self.roster.index(&uuid);
        let index = self.roster.enroll(now, registration);
        match known {
            Some(_) => {
                self.drop_copies_of(now, index);
                self.wake(now, index);
            }
            None => self.journal.add(now, Notice::NodeNew { node: uuid }),
        }
        let moved = self.roster.refresh(index);
        self.sweep.queue(&moved);
        Ok(())
    }

    /// A node that was not live is.
    fn wake(&mut self, now: Millis, index: u32) {
        let node = self.roster.node_mut(index);
        let was = node.state;
        if was == NodeState::Live {
            return;
        }
        let was_dead = was == NodeState::Dead;
        if was_dead {
            node.revive(now)
        } else {
            node.state = NodeState::Live
        }
        let uuid = node.info.id.uuid.clone();
        self.journal.add(now, Notice::NodeBack { node: uuid, was_dead });
    }

    pub(crate) fn beat(&mut self, now: Millis, beat: &Heartbeat, table: &dyn BlockTable) -> HeartbeatAnswer {
        let register = HeartbeatAnswer { orders: vec![Order::Register], report_lease: 0 };
        let Some(index) = self.roster.index(&beat.node) else { return register };
        let was_dead = self.roster.node(index).state == NodeState::Dead;
        self.sign_of_life(now, index);
        if was_dead {
            // What is on its disks after that time, only a full report can tell.
            for slot in self.roster.node(index).slots.clone() {
                self.roster.slot_mut(slot).confirmed = false;
            }
            let node = self.roster.node_mut(index);
            node.epoch += 1;
            node.registered = now;
        }
        self.take_figures(now, index, beat);
        if was_dead {
            return register;
        }
        let mut answer = HeartbeatAnswer::default();
        if beat.wants_report_lease {
            answer.report_lease = self.grant_lease(now, index);
        }
        if !self.leading {
            return answer;
        }
        if self.wants_register(now, index) {
            // Alone: what is handed to this life of the node would be given up with the next one.
            answer.orders.push(Order::Register);
            return answer;
        }
        self.give_up_idle(now, index);
        if !self.gives_orders() {
            return answer;
        }
        // Apache's NameNode sends a recovery command alone, so nobody has tried anything else.
        if self.hand_recoveries(now, index, &mut answer.orders) {
            return answer;
        }
        self.hand_copies(now, index, table, &mut answer.orders);
        self.hand_deletes(now, index, table, &mut answer.orders);
        answer
    }

    /// A sign of life of a node whose heartbeats are held up: what it is to do waits for those. A node that is not
    /// registered or was declared dead has to come by a heartbeat, which tells it to register.
    pub(crate) fn lifeline(&mut self, now: Millis, beat: &Heartbeat) {
        if let Some(index) = self.roster.index(&beat.node)
            && self.roster.node(index).state != NodeState::Dead
        {
            self.sign_of_life(now, index);
            self.take_figures(now, index, beat);
        }
    }

    fn sign_of_life(&mut self, now: Millis, index: u32) {
        self.roster.node_mut(index).beat(now);
        self.wake(now, index);
    }

    /// What a node says of its volumes and its load.
    fn take_figures(&mut self, now: Millis, index: u32, beat: &Heartbeat) {
        for slot in self.roster.take_beat(index, beat) {
            self.tell_failed(now, index, slot);
        }
        let moved = self.roster.refresh(index);
        self.sweep.queue(&moved);
    }

    /// Whether the node is to register again now, so that it reports in full.
    fn wants_register(&mut self, now: Millis, index: u32) -> bool {
        let node = self.roster.node_mut(index);
        let due = node.ask_register && node.asked.is_none_or(|asked| now.since(asked).0 >= ASK_MS);
        if due {
            node.ask_register = false;
            node.asked = Some(now);
        }
        due
    }

    fn tell_failed(&mut self, now: Millis, index: u32, slot: u32) {
        let node = self.roster.node(index).info.id.uuid.clone();
        let slot = self.roster.slot(slot);
        let (storage, replicas) = (slot.report.storage.clone(), slot.replicas);
        self.journal.add(now, Notice::StorageFailed { node, storage, replicas });
    }

    pub(crate) fn disconnected(&mut self, now: Millis, node: &DatanodeUuid) {
        if let Some(index) = self.roster.index(node) {
            self.roster.node_mut(index).broken = true;
            self.judge_node(now, index);
        }
    }

    pub(crate) fn stopping(&mut self, now: Millis, node: &DatanodeUuid) {
        if let Some(index) = self.roster.index(node) {
            self.roster.node_mut(index).stopping = true;
            self.judge_node(now, index);
        }
    }

    pub(crate) fn storage_failed(&mut self, now: Millis, node: &DatanodeUuid, storage: &StorageUuid) {
        let Some(index) = self.roster.index(node) else { return };
        let Some(slot) = self.roster.find_slot(index, storage) else { return };
        if self.roster.slot(slot).health != StorageHealth::Failed {
            self.roster.slot_mut(slot).health = StorageHealth::Failed;
            self.tell_failed(now, index, slot);
        }
        let moved = self.roster.refresh(index);
        self.sweep.queue(&moved);
    }

    pub(crate) fn error_report(&mut self, now: Millis, node: &DatanodeUuid, error: NodeError) {
        if let (Some(index), NodeError::FatalDisk) = (self.roster.index(node), error) {
            self.bury(now, index);
        }
    }

    /// What a node's silence makes of it.
    fn judge_node(&mut self, now: Millis, index: u32) {
        let node = self.roster.node(index);
        let judged = node.judge(now, &self.config);
        if judged == node.state {
            return;
        }
        if judged == NodeState::Dead {
            self.bury(now, index);
            return;
        }
        // Only a beat brings back to life: `wake`.
        if judged == NodeState::Suspect {
            let silent_ms = now.since(node.last_beat);
            let uuid = node.info.id.uuid.clone();
            self.roster.node_mut(index).state = NodeState::Suspect;
            self.journal.add(now, Notice::NodeSuspect { node: uuid, silent_ms });
            self.roster.refresh(index);
        }
    }

    /// A node is dead: its replicas no longer count, its copies are done elsewhere.
    fn bury(&mut self, now: Millis, index: u32) {
        let node = self.roster.node(index);
        if node.state == NodeState::Dead {
            return;
        }
        let silent_ms = now.since(node.last_beat);
        let uuid = node.info.id.uuid.clone();
        let replicas = node.slots.iter().map(|slot| self.roster.slot(*slot).replicas).sum();
        self.roster.node_mut(index).die(now);
        self.journal.add(now, Notice::NodeDead { node: uuid, silent_ms, replicas });
        self.drop_copies_of(now, index);
        let moved = self.roster.refresh(index);
        self.sweep.queue(&moved);
    }

    /// Takes a node off the roster for good.
    pub(crate) fn take_off(&mut self, now: Millis, index: u32) {
        self.bury(now, index);
        if let Some(node) = self.roster.remove(index) {
            self.sweep.queue(&node.slots);
        }
    }

    /// All nodes, once a tick.
    pub(crate) fn watch_nodes(&mut self, now: Millis) {
        let gap = now.since(self.ticked).0;
        self.ticked = now;
        for index in self.roster.indices() {
            if gap > TICK_GAP_MS_MAX.max(self.config.heartbeat_ms.0 * 3 / 2) {
                let node = self.roster.node_mut(index);
                node.last_beat = Millis((node.last_beat.0 + gap).min(now.0));
            }
            self.judge_node(now, index);
            self.end_hopes(now, index);
            let node = self.roster.node(index);
            let holds = || node.slots.iter().any(|slot| self.roster.slot(*slot).replicas > 0);
            if node.state == NodeState::Dead && now.since(node.last_beat).0 >= PURGE_MS && holds() {
                let slots = node.slots.clone();
                self.sweep.queue(&slots);
            }
        }
    }

    /// Replicas of an older life that were not reported in time are gone.
    fn end_hopes(&mut self, now: Millis, index: u32) {
        let node = self.roster.node(index);
        if node.state == NodeState::Dead || now.since(node.registered).0 < HOPE_MS {
            return;
        }
        for slot in node.slots.clone() {
            let state = self.roster.slot_mut(slot);
            if state.standing == Standing::Hoped
                && state.health == StorageHealth::Unseen
                && state.replicas > 0
            {
                state.health = StorageHealth::Failed;
                self.tell_failed(now, index, slot);
                let moved = self.roster.refresh(index);
                self.sweep.queue(&moved);
            } else if state.standing == Standing::Hoped {
                self.roster.node_mut(index).ask_register = true;
            }
        }
    }

    /// Looks at blocks on volumes that came or went. True if more wait.
    pub(crate) fn advance_sweep(&mut self, now: Millis, table: &dyn BlockTable) -> bool {
        if self.sweep.slots.is_empty() {
            if self.sweep.queued.is_empty() {
                return false;
            }
            self.sweep.slots = std::mem::take(&mut self.sweep.queued);
            self.sweep.page = 0;
        }
        let mut blocks = 0;
        for _ in 0..SWEEP_PAGES {
            let Some(page) = self.map.next_page(self.sweep.page) else {
                self.sweep.slots.clear();
                return !self.sweep.queued.is_empty();
            };
            let slots = &self.sweep.slots;
            let found = self.map.on_page(page, |entry| slots.contains(&entry.slot()));
            blocks += found.len();
            self.look_at_page(now, page, &found, table);
            match page.checked_add(1) {
                Some(next) => self.sweep.page = next,
                None => self.sweep.slots.clear(),
            }
            if blocks >= BLOCKS_PER_TICK {
                break;
            }
        }
        true
    }

    fn look_at_page(&mut self, now: Millis, page: u64, found: &[BlockId], table: &dyn BlockTable) {
        let next = table.next_block();
        let rows = if found.len() >= DENSE_PAGE {
            let rows = table.blocks_from(id_at(page, 0), PAGE_BLOCKS as usize);
            Some(rows)
        } else {
            None
        };
        for id in found {
            self.purge(now, *id);
            let row = match &rows {
                _ if self.removed.contains(*id) => None,
                Some(rows) => rows.binary_search_by_key(id, |row| row.block.id).ok().map(|index| rows[index]),
                None => table.block(*id),
            };
            self.assess(now, *id, row, next);
        }
    }

    /// Drops replicas whose node is gone for good or long dead.
    fn purge(&mut self, now: Millis, id: BlockId) {
        let gone = |slot: u32| match self.roster.holder(slot) {
            None => true,
            Some(node) => node.state == NodeState::Dead && now.since(node.last_beat).0 >= PURGE_MS,
        };
        let slots: Vec<u32> =
            self.map.entries(id).iter().map(|entry| entry.slot()).filter(|slot| gone(*slot)).collect();
        for slot in slots {
            self.drop_replica(id, slot);
        }
    }

    /// Walks on through the block table. True if the first walk is not done.
    pub(crate) fn advance_walk(&mut self, now: Millis, table: &dyn BlockTable) -> bool {
        let at = match self.walk.at {
            Some(at) => at,
            None if !self.walk.done_once || now.since(self.walk.ended).0 >= WALK_MS => {
                self.walk.counted = 0;
                BlockId(0)
            }
            None => return false,
        };
        let count = if self.walk.done_once { WALK_BLOCKS } else { BLOCKS_PER_TICK };
        let rows = table.blocks_from(at, count);
        let next = table.next_block();
        for row in &rows {
            self.walk.counted += u64::from(row.committed);
            let known = (!self.removed.contains(row.block.id)).then_some(*row);
            self.assess(now, row.block.id, known, next);
        }
        self.walk.at = match rows.last() {
            Some(last) if rows.len() == count => last.block.id.0.checked_add(1).map(BlockId),
            _ => None,
        };
        if self.walk.at.is_none() {
            self.walk.done_once = true;
            self.walk.ended = now;
            self.walk.committed = self.walk.counted;
            self.dirty_future(next);
        }
        !self.walk.done_once
    }

    /// Replicas that stood above the next id no longer do: they are judged.
    fn dirty_future(&mut self, next: BlockId) {
        let come: Vec<BlockId> = self
            .needs
            .future
            .iter_from(BlockId(0))
            .take_while(|id| *id < next)
            .take(BLOCKS_PER_TICK)
            .collect();
        for id in come {
            self.dirty.insert(id);
        }
    }

    /// Looks at blocks whose row or grace changed. True if more wait.
    pub(crate) fn settle_dirty(&mut self, now: Millis, table: &dyn BlockTable) -> bool {
        for id in self.needs.grown_up(now, BLOCKS_PER_TICK) {
            self.dirty.insert(id);
        }
        let batch: Vec<BlockId> = self.dirty.iter_from(BlockId(0)).take(BLOCKS_PER_TICK).collect();
        for id in &batch {
            self.dirty.remove(*id);
            self.assess_in(now, *id, table);
        }
        !self.dirty.is_empty()
    }

    /// Whether orders may begin after a start.
    pub(crate) fn open_gates(&mut self, now: Millis) {
        if self.gate.strays_open || !self.leading {
            return;
        }
        let elapsed = now.since(self.gate.since).0;
        let delay = self.config.start_delay_ms.0;
        let living = |(_, node): &(u32, &crate::roster::Node)| node.state != NodeState::Dead;
        let known = self.roster.iter().filter(living).all(|(index, _)| self.roster.is_reported(index));
        // Every block has all its replicas: nobody is awaited any more.
        let whole = known
            && self.walk.done_once
            && self.dirty.is_empty()
            && self.sweep.is_idle()
            && self.needs.missing.is_empty()
            && self.needs.under.is_empty();
        // A node that lived before the start is as good as dead after dead_ms.
        if !self.gate.copies_open && (whole || known && elapsed >= self.config.dead_ms.0 || elapsed >= delay)
        {
            self.gate.copies_open = true;
            self.journal.add(now, Notice::CopiesOpen);
        }
        let late = known && elapsed >= delay || elapsed >= HUNG_NODE_DELAYS * delay;
        if !self.gate.deletes_open && self.gate.copies_open && (whole || late) {
            self.gate.deletes_open = true;
            self.journal.add(now, Notice::DeletesOpen);
        }
        self.gate.strays_open = self.gate.deletes_open && late;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mobula_types::{Block, DatanodeId, GenStamp, StorageReport, StorageState, StorageType, Target};

    use super::*;
    use crate::event::{BlockChange, FleetConfig, Recover};
    use crate::table::TableBlock;

    struct Empty;

    impl BlockTable for Empty {
        fn block(&self, _: BlockId) -> Option<TableBlock> {
            None
        }

        fn blocks_from(&self, _: BlockId, _: usize) -> Vec<TableBlock> {
            Vec::new()
        }

        fn next_block(&self) -> BlockId {
            BlockId(2)
        }
    }

    fn beat(node: &DatanodeUuid, storage: &StorageUuid) -> Heartbeat {
        let report = StorageReport {
            storage: storage.clone(),
            kind: StorageType::Disk,
            state: StorageState::Normal,
            failed: false,
            capacity: 1,
            dfs_used: 0,
            remaining: 1,
            pool_used: 0,
            non_dfs_used: 0,
        };
        Heartbeat {
            node: node.clone(),
            storages: vec![report],
            transfers: 0,
            xceivers: 0,
            failed_volumes: 0,
            wants_report_lease: true,
            cache_capacity: 0,
            cache_used: 0,
        }
    }

    /// A node with one empty volume, as it was reported.
    fn registered(fleet: &mut Fleet) -> (DatanodeUuid, StorageUuid) {
        let (node, storage) = (DatanodeUuid::from("n1"), StorageUuid::from("s1"));
        let id = DatanodeId {
            ip: "10.0.0.1".into(),
            host_name: "host1".into(),
            uuid: node.clone(),
            xfer_port: 1,
            info_port: 0,
            info_secure_port: 0,
            ipc_port: 2,
        };
        fleet.on_register(Millis(0), Registration { id, software_version: "3.5.0".into() }).unwrap();
        let lease = fleet.on_heartbeat(Millis(0), beat(&node, &storage), &Empty).report_lease;
        fleet.on_full_report(Millis(0), &node, &storage, &[], lease, true, &Empty).unwrap();
        (node, storage)
    }

    fn recovery_of_a_block(fleet: &mut Fleet, node: &DatanodeUuid, storage: &StorageUuid) {
        let block = Block { id: BlockId(1), stamp: GenStamp(1), length: 0 };
        let targets =
            vec![Target { datanode: node.clone(), storage: storage.clone(), kind: StorageType::Disk }];
        let asked = Recover { block, recovery: GenStamp(2), targets, truncate: None };
        fleet.on_block_change(Millis(0), BlockChange::Recover(asked));
        fleet.tick(Millis(0), &Empty);
    }

    #[test]
    fn who_is_told_to_register_is_handed_nothing_else() {
        let mut fleet = Fleet::new(FleetConfig::default(), 1, Millis(0));
        let (node, storage) = registered(&mut fleet);
        recovery_of_a_block(&mut fleet, &node, &storage);
        fleet.roster.node_mut(0).ask_register = true;
        let first = fleet.on_heartbeat(Millis(1), beat(&node, &storage), &Empty);
        assert_eq!(first.orders, [Order::Register]);
        // It has told of no replica: it is the primary now that it has beaten since the recovery began.
        fleet.tick(Millis(1), &Empty);
        let second = fleet.on_heartbeat(Millis(2), beat(&node, &storage), &Empty);
        assert!(matches!(second.orders[..], [Order::Recover { .. }]), "{:?}", second.orders);
    }

    #[test]
    fn a_lifeline_keeps_a_node_alive_and_takes_no_orders() {
        let config = FleetConfig::default();
        let dead_after = config.dead_ms;
        let mut fleet = Fleet::new(config, 1, Millis(0));
        let (node, storage) = registered(&mut fleet);
        let sign = || beat(&node, &storage);
        recovery_of_a_block(&mut fleet, &node, &storage);
        let mut now = Millis(0);
        while now < Millis(3 * dead_after.0) {
            now = Millis(now.0 + dead_after.0 / 4);
            fleet.on_lifeline(now, sign());
            fleet.tick(now, &Empty);
            assert_eq!(fleet.roster.node(0).state, NodeState::Live, "at {now:?}");
        }
        let answer = fleet.on_heartbeat(now, sign(), &Empty);
        assert!(matches!(answer.orders[..], [Order::Recover { .. }]), "{:?}", answer.orders);
        while fleet.roster.node(0).state != NodeState::Dead {
            assert!(now < Millis(10 * dead_after.0), "a node that is silent dies");
            now = Millis(now.0 + dead_after.0 / 40);
            fleet.tick(now, &Empty);
        }
        fleet.on_lifeline(now, sign());
        assert_eq!(fleet.roster.node(0).state, NodeState::Dead, "who was given up must register");
        assert_eq!(fleet.on_heartbeat(now, sign(), &Empty).orders, [Order::Register]);
    }
}
