//! The AutoHealer: restores lost replicas, riskiest blocks first, within what each node can carry.
//! The end of the walk through Mobula: a file that lost a replica is whole again here.
//!
//! A copy is planned in `tick`, handed to its source with that node's next beat if it is still
//! wanted then, and done when the *target* says RECEIVED with the right stamp and length: it has
//! verified the checksums. Until then it is nothing but a hope with an expiry. Only good replicas on
//! live nodes are sources (CASES 33). Knows no deletion: that is `trim`.

use mobula_types::{BlockId, Millis, Target};
use rand::Rng;
use smallvec::SmallVec;

use crate::copies::{Copy, UNITS_PER_COPY, slowest, units};
use crate::fleet::Fleet;
use crate::needs::Urgency;
use crate::notice::Notice;
use crate::order::Order;
use crate::table::{BlockTable, TableBlock};
use crate::view::NodeState;

/// Blocks of one urgency that one tick tries to plan.
const PLANS_PER_TICK: usize = 1_000;
/// In a row without room for a copy: all nodes are busy, the next tick goes on.
const BUSY_IN_A_ROW: usize = 64;
/// A source that says that it does no transfers has lost our orders, or failed in them, once they
/// are this old.
const IDLE_MS: u64 = 5_000;
/// Nodes looked at, at random, before all are.
const TARGET_TRIES: usize = 8;

/// What became of an attempt to plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planned {
    /// Done, or nothing to do.
    Yes,
    /// Its sources or targets have enough to do.
    Busy,
    /// There is no source or no target.
    Stuck,
}

impl Fleet {
    /// Plans copies for blocks that are short of replicas. True if more could be planned at once.
    pub(crate) fn plan_copies(&mut self, now: Millis, table: &dyn BlockTable) -> bool {
        if !self.gives_orders() || !self.gate.copies_open || self.needs.todo.is_empty() {
            return false;
        }
        let usable = self.roster.iter().filter(|(_, node)| node.is_usable()).count();
        let mut more = false;
        let urgencies: Vec<Urgency> = self.needs.todo.keys().copied().collect();
        for urgency in urgencies {
            let present = usize::from(urgency.present());
            if usable < 2 || present >= usable + self.suspects() {
                // As many nodes as there are have it already.
                continue;
            }
            more |= self.plan_urgency(now, urgency, table);
        }
        more
    }

    fn suspects(&self) -> usize {
        self.roster.iter().filter(|(_, node)| node.state != NodeState::Dead && !node.is_usable()).count()
    }

    fn plan_urgency(&mut self, now: Millis, urgency: Urgency, table: &dyn BlockTable) -> bool {
        let from = self.plan_cursors.get(&urgency).copied().unwrap_or(BlockId(0));
        let Some(set) = self.needs.todo.get(&urgency) else { return false };
        let batch = set.take_round(from, PLANS_PER_TICK);
        let mut busy = 0;
        let full = batch.len() == PLANS_PER_TICK;
        for id in batch {
            // A block that must wait is tried again before those behind it.
            let planned = self.plan_block(now, id, table);
            busy = if planned == Planned::Busy { busy + 1 } else { 0 };
            if busy == BUSY_IN_A_ROW {
                return false;
            }
            if busy == 0 {
                self.plan_cursors.insert(urgency, BlockId(id.0.wrapping_add(1)));
            }
        }
        full && busy == 0
    }

    fn plan_block(&mut self, now: Millis, id: BlockId, table: &dyn BlockTable) -> Planned {
        let row = self.row(id, table);
        self.assess(now, id, row, table.next_block());
        let Some(row) = row.filter(|row| row.committed) else { return Planned::Yes };
        let census = self.census(id);
        let lacking = row.replication.max(1).saturating_sub(census.present + census.pending);
        if lacking == 0 || census.present == 0 {
            return Planned::Yes;
        }
        let source = match self.choose_source(now, &row) {
            Ok(source) => source,
            Err(planned) => return planned,
        };
        let mut result = Planned::Stuck;
        let mut first = true;
        for _ in 0..lacking {
            match self.choose_target(now, &row) {
                Ok((target, slot)) => {
                    let expires = now + self.config.order_expiry_ms + slowest(row.block.length);
                    self.copies.plan(&mut self.roster, row.block, source, (target, slot), expires, first);
                    first = false;
                    result = Planned::Yes;
                }
                Err(planned) if result != Planned::Yes => return planned,
                Err(_) => break,
            }
        }
        self.assess(now, id, Some(row), table.next_block());
        result
    }

    fn has_room(&self, bytes: u64, node_bytes: u64, node_units: u64) -> bool {
        let bytes_fit = node_bytes == 0 || node_bytes + bytes <= self.config.copy_bytes_per_beat;
        let units_max = self.config.copies_per_node_max as u64 * UNITS_PER_COPY;
        bytes_fit && (node_units == 0 || node_units + units(bytes) <= units_max)
    }

    /// The live node with a good replica that has the least to send.
    fn choose_source(&mut self, now: Millis, row: &TableBlock) -> Result<u32, Planned> {
        let id = row.block.id;
        let mut best: Option<((bool, u64, u64), u32)> = None;
        let mut any = false;
        for slot in self.good_slots(id) {
            let index = self.roster.slot(slot).node;
            let node = self.roster.node(index);
            if !node.is_usable() {
                continue;
            }
            any = true;
            if !self.has_room(row.block.length, node.load.bytes_out, node.load.units) {
                continue;
            }
            let failed = self.copies.is_avoided(id, index, now);
            let rank = (failed, node.load.bytes_out, self.rng.random::<u64>());
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, index));
            }
        }
        best.map(|(_, index)| index).ok_or(if any { Planned::Busy } else { Planned::Stuck })
    }

    /// A node for a copy and its volume: some at random, the one with the least to receive; if none
    /// of them will do, the first of all that does.
    fn choose_target(&mut self, now: Millis, row: &TableBlock) -> Result<(u32, u32), Planned> {
        let bound = self.roster.bound();
        let mut best: Option<(u64, u32, u32)> = None;
        for _ in 0..TARGET_TRIES.min(bound) {
            let index = self.rng.random_range(0..bound) as u32;
            if let Ok(slot) = self.target_on(now, row, index) {
                let rank = self.roster.node(index).load.bytes_in;
                if best.is_none_or(|(least, ..)| rank < least) {
                    best = Some((rank, index, slot));
                }
            }
        }
        if let Some((_, index, slot)) = best {
            return Ok((index, slot));
        }
        let start = self.rng.random_range(0..bound);
        let mut why = Planned::Stuck;
        for step in 0..bound {
            let index = ((start + step) % bound) as u32;
            match self.target_on(now, row, index) {
                Ok(slot) => return Ok((index, slot)),
                Err(Planned::Busy) => why = Planned::Busy,
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// The volume of a node that could take a copy.
    fn target_on(&self, now: Millis, row: &TableBlock, index: u32) -> Result<u32, Planned> {
        let id = row.block.id;
        let slot = self.could_hold(row, index).ok_or(Planned::Stuck)?;
        if self.copies.is_avoided(id, index, now) {
            return Err(Planned::Stuck);
        }
        let node = self.roster.node(index);
        // One that flaps gets no new replicas until it has settled (CASES 36).
        if node.settled_at > now || !self.has_room(row.block.length, node.load.bytes_in, node.load.units) {
            return Err(Planned::Busy);
        }
        Ok(slot)
    }

    /// The roomiest volume of a usable node that has nothing of this block and room for it.
    pub(crate) fn could_hold(&self, row: &TableBlock, index: u32) -> Option<u32> {
        let id = row.block.id;
        let node = self.roster.try_node(index).filter(|node| node.is_usable())?;
        if self.holds(id, index) || self.copies.of(id).iter().any(|copy| copy.target == index) {
            return None;
        }
        let (free, slot) =
            node.slots.iter().map(|slot| (self.roster.free(*slot, &self.config), *slot)).max()?;
        let coming = node.load.bytes_in + node.placed.1;
        (free > 0 && free >= row.block.length.saturating_add(coming)).then_some(slot)
    }

    /// Hands a node the copies that were planned for it, those that are still wanted.
    pub(crate) fn hand_copies(
        &mut self,
        now: Millis,
        index: u32,
        table: &dyn BlockTable,
        orders: &mut Vec<Order>,
    ) {
        for id in std::mem::take(&mut self.roster.node_mut(index).outbox) {
            let planned: SmallVec<[crate::copies::Copy; 2]> = self
                .copies
                .of(id)
                .iter()
                .filter(|copy| copy.source == index && copy.handed.is_none())
                .copied()
                .collect();
            let Some(block) = planned.first().map(|copy| copy.block) else { continue };
            let row = self.row(id, table).filter(|row| row.committed && row.block == block);
            let source_good = self.good_slots(id).iter().any(|slot| self.roster.slot(*slot).node == index);
            let census = self.census(id);
            let under_way = census.pending - planned.len() as u16;
            let wanted = row.map_or(0, |row| row.replication.max(1));
            let mut lacking = wanted.saturating_sub(census.present + under_way);
            let mut targets = Vec::new();
            for copy in planned {
                let ready = self.roster.try_node(copy.target).is_some_and(|node| node.is_usable())
                    && !self.holds(id, copy.target);
                if row.is_none() || !source_good || !ready || lacking == 0 {
                    self.copies.take(&mut self.roster, id, copy.target);
                    continue;
                }
                lacking -= 1;
                self.hand_copy(now, &copy, census.present, wanted);
                targets.push(self.target(copy.target, copy.slot));
            }
            if !targets.is_empty() {
                orders.push(Order::Copy { block, targets });
            }
            self.assess(now, id, row.or_else(|| self.row(id, table)), table.next_block());
        }
    }

    fn hand_copy(&mut self, now: Millis, copy: &crate::copies::Copy, live: u16, wanted: u16) {
        let length = copy.block.length;
        self.copies.hand(
            copy.block.id,
            copy.target,
            now,
            now + self.config.order_expiry_ms + slowest(length),
        );
        self.journal.add(
            now,
            Notice::CopyOrdered {
                block: copy.block.id,
                source: self.roster.node(copy.source).info.id.uuid.clone(),
                target: self.roster.node(copy.target).info.id.uuid.clone(),
                live,
                wanted,
                length,
            },
        );
    }

    pub(crate) fn target(&self, index: u32, slot: u32) -> Target {
        let report = &self.roster.slot(slot).report;
        Target {
            datanode: self.roster.node(index).info.id.uuid.clone(),
            storage: report.storage.clone(),
            kind: report.kind,
        }
    }

    /// A finalized replica was told of: if it is the plain one that was ordered, the copy is done.
    pub(crate) fn confirm_copy(
        &mut self,
        now: Millis,
        id: BlockId,
        slot: u32,
        row: Option<TableBlock>,
        next: BlockId,
    ) {
        let index = self.roster.slot(slot).node;
        let plain = self.map.get(id, slot).is_some_and(|entry| !entry.is_odd());
        if !plain || row.is_none() {
            return;
        }
        let Some(copy) = self.copies.take(&mut self.roster, id, index) else { return };
        let target = self.roster.node(index).info.id.uuid.clone();
        let took_ms = now.since(copy.handed.unwrap_or(now));
        self.journal.add(now, Notice::CopyVerified { block: id, target, took_ms, length: copy.block.length });
        self.assess(now, id, row, next);
    }

    /// A copy came to nothing: its ends are avoided for a while, and it is planned anew.
    pub(crate) fn give_up(&mut self, now: Millis, id: BlockId, target: u32) {
        let Some(copy) = self.drop_copy(now, id, target).filter(|copy| copy.handed.is_some()) else { return };
        self.copies.avoid(id, copy.source, now);
        let again = self.copies.avoid(id, copy.target, now);
        if again
            && self.roster.try_node(copy.target).is_some()
            && self.roster.node(copy.target).state == NodeState::Live
        {
            // Perhaps it has the replica and its word was lost: a full report tells.
            self.roster.node_mut(copy.target).ask_register = true;
        }
    }

    /// Takes off a copy that will not be done, without a word on whose fault that is; its block is looked at again.
    pub(crate) fn drop_copy(&mut self, now: Millis, id: BlockId, target: u32) -> Option<Copy> {
        let copy = self.copies.take(&mut self.roster, id, target)?;
        self.dirty.insert(id);
        let name = |index: u32| self.roster.try_node(index).map(|node| node.info.id.uuid.clone());
        if copy.handed.is_some()
            && let (Some(source), Some(target)) = (name(copy.source), name(copy.target))
        {
            self.journal.add(now, Notice::CopyGivenUp { block: id, source, target });
        }
        Some(copy)
    }

    /// Copies that were not confirmed in time.
    pub(crate) fn expire_copies(&mut self, now: Millis) {
        while let Some((id, target)) = self.copies.expired(now) {
            self.give_up(now, id, target);
        }
    }

    /// A source that does no transfers any more has failed in those that are not confirmed.
    pub(crate) fn give_up_idle(&mut self, now: Millis, index: u32) {
        let node = self.roster.node(index);
        if !node.tells_transfers || node.transfers > 0 || node.load.bytes_out == 0 {
            return;
        }
        let old = |handed: &Millis| now.since(*handed).0 >= IDLE_MS;
        for (id, target, handed) in self.copies.sent_by(index) {
            if handed.as_ref().is_some_and(old) {
                self.give_up(now, id, target);
            }
        }
    }

    /// A node died or began a new life: the copies in which it has a part will not be done.
    pub(crate) fn drop_copies_of(&mut self, now: Millis, index: u32) {
        self.roster.node_mut(index).outbox.clear();
        for (id, target) in self.copies.touching(index) {
            self.drop_copy(now, id, target);
        }
    }
}
