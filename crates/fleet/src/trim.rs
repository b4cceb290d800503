//! Takes replicas away: those of removed blocks, bad ones once there are good ones, and one too many
//! of a block. Never the last good one: what is to stay is counted among live, reported, settled
//! nodes only, when a replica is doomed and again when its order goes out (CASES 30, 31, 34).

use mobula_types::{Block, BlockId, Millis};
use smallvec::SmallVec;

use crate::fleet::Fleet;
use crate::notice::Notice;
use crate::order::Order;
use crate::roster::Standing;
use crate::table::{BlockTable, TableBlock};
use crate::view::NodeState;

/// Blocks that one tick looks at.
const TRIMS_PER_TICK: usize = 1_000;
/// A deletion that was not confirmed by then is ordered again.
const DELETE_EXPIRY_MS: u64 = 30_000;
/// Ordered so often without an answer, it is taken for done, but for bad ones; the next full report tells.
const DELETE_TRIES_MAX: u8 = 3;

/// What is to be done with a doomed replica when its node beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Delete it.
    Goes(Why),
    /// Not yet.
    Waits,
    /// It is needed after all.
    Stays,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Removed,
    Bad,
    Surplus,
}

impl Fleet {
    /// Dooms bad and surplus replicas that are not needed. True if more wait.
    pub(crate) fn trim(&mut self, now: Millis, table: &dyn BlockTable) -> bool {
        if !self.gives_orders() || !self.gate.deletes_open || self.needs.trim.is_empty() {
            return false;
        }
        let batch = self.needs.trim.take_round(self.trim_cursor, TRIMS_PER_TICK);
        let mut doomed = false;
        for id in &batch {
            let row = self.row(*id, table);
            if let Some(row) = row.filter(|row| row.committed) {
                doomed |= self.trim_block(now, &row);
            }
            self.assess(now, *id, row, table.next_block());
        }
        self.trim_cursor = batch.last().map_or(BlockId(0), |id| BlockId(id.0.wrapping_add(1)));
        doomed && batch.len() == TRIMS_PER_TICK
    }

    fn trim_block(&mut self, now: Millis, row: &TableBlock) -> bool {
        let id = row.block.id;
        let bad: SmallVec<[u32; 4]> = self
            .map
            .entries(id)
            .iter()
            .filter(|entry| !entry.is_doomed() && self.is_bad(id, **entry))
            .map(|entry| entry.slot())
            .filter(|slot| self.roster.standing(*slot) == Standing::Live)
            .collect();
        let mut doomed = false;
        if !bad.is_empty() && self.bad_may_go(row) {
            bad.into_iter().for_each(|slot| self.doom(id, slot));
            doomed = true;
        }
        for slot in self.surplus(now, row) {
            self.doom(id, slot);
            doomed = true;
        }
        doomed
    }

    /// Nodes with a good replica.
    fn good_nodes(&self, id: BlockId) -> SmallVec<[u32; 4]> {
        let mut nodes: SmallVec<[u32; 4]> =
            self.good_slots(id).iter().map(|slot| self.roster.slot(*slot).node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Bad replicas go when the good ones are complete; or when there is a good one and no other
    /// node could take a copy, for then the bad one holds the only place (HDFS-17798).
    fn bad_may_go(&self, row: &TableBlock) -> bool {
        let good = self.good_nodes(row.block.id).len();
        if good >= usize::from(row.replication.max(1)) {
            return true;
        }
        good > 0
            && self.copies.of(row.block.id).is_empty()
            && !(0..self.roster.bound() as u32).any(|index| self.could_hold(row, index).is_some())
    }

    /// The volumes of replicas beyond the target: those on nodes that were dead lately first, then
    /// those on the fullest.
    fn surplus(&self, now: Millis, row: &TableBlock) -> SmallVec<[u32; 4]> {
        let id = row.block.id;
        let wanted = usize::from(row.replication.max(1));
        let nodes = self.good_nodes(id);
        if nodes.len() <= wanted {
            return SmallVec::new();
        }
        let slots = self.good_slots(id);
        let mut ranked: Vec<(bool, bool, u64, u32)> = Vec::new();
        for index in nodes {
            let node = self.roster.node(index);
            let here: SmallVec<[u32; 2]> =
                slots.iter().copied().filter(|slot| self.roster.slot(*slot).node == index).collect();
            // An order names no volume: which of two would go is not known.
            let twice = here.len() > 1;
            let settled = node.settled_at <= now && !node.stopping;
            let free = self.roster.slot(here[0]).report.remaining;
            ranked.push((twice, settled, free, here[0]));
        }
        ranked.sort_unstable_by(|left, right| right.cmp(left));
        let (keep, spare) = ranked.split_at(wanted);
        if keep.iter().any(|(_, settled, ..)| !settled) {
            return SmallVec::new();
        }
        spare.iter().filter(|(twice, ..)| !twice).map(|(.., slot)| *slot).collect()
    }

    fn doom(&mut self, id: BlockId, slot: u32) {
        self.map.set_doom(id, slot, true);
        let index = self.roster.slot(slot).node;
        self.roster.node_mut(index).doomed.insert(id);
    }

    /// No file has the block: all its replicas go.
    pub(crate) fn doom_all(&mut self, id: BlockId) {
        let entries: SmallVec<[crate::map::Entry; 4]> = self.map.entries(id).into();
        for entry in entries {
            let dead = self.roster.holder(entry.slot()).is_none_or(|node| node.state == NodeState::Dead);
            if dead {
                self.drop_replica(id, entry.slot());
            } else if !entry.is_doomed() {
                self.doom(id, entry.slot());
            }
        }
    }

    fn fate(&self, id: BlockId, slot: u32, row: Option<&TableBlock>, next: BlockId) -> Fate {
        let opens = |open: bool, why| if open { Fate::Goes(why) } else { Fate::Waits };
        let Some(row) = row else {
            return match (self.removed.contains(id), id < next) {
                (true, _) => opens(self.gate.deletes_open, Why::Removed),
                (false, true) => opens(self.gate.strays_open, Why::Removed),
                (false, false) => Fate::Stays,
            };
        };
        let Some(entry) = self.map.get(id, slot).filter(|_| row.committed && self.gate.deletes_open) else {
            return Fate::Stays;
        };
        if self.is_bad(id, entry) {
            return if self.bad_may_go(row) { Fate::Goes(Why::Bad) } else { Fate::Stays };
        }
        let others = self.good_nodes(id).len();
        if others >= usize::from(row.replication.max(1)) { Fate::Goes(Why::Surplus) } else { Fate::Stays }
    }

    /// Hands a node what it is to delete.
    pub(crate) fn hand_deletes(
        &mut self,
        now: Millis,
        index: u32,
        table: &dyn BlockTable,
        orders: &mut Vec<Order>,
    ) {
        if self.roster.node(index).doomed.is_empty() {
            return;
        }
        let node = self.roster.node(index);
        let batch = node.doomed.take_round(node.doom_cursor, self.config.invalidate_max);
        let slots = node.slots.clone();
        let next = table.next_block();
        let mut blocks: Vec<Block> = Vec::new();
        for id in &batch {
            let row = self.row(*id, table);
            for slot in &slots {
                if !self.map.get(*id, *slot).is_some_and(|entry| entry.is_doomed()) {
                    continue;
                }
                match self.fate(*id, *slot, row.as_ref(), next) {
                    Fate::Waits => {}
                    Fate::Stays => {
                        self.map.set_doom(*id, *slot, false);
                        self.roster.node_mut(index).doomed.remove(*id);
                        self.dirty.insert(*id);
                    }
                    Fate::Goes(why) => {
                        let stamp = self.stamp_at(*id, *slot).unwrap_or_default();
                        blocks.push(Block { id: *id, stamp, length: row.map_or(0, |row| row.block.length) });
                        self.roster.node_mut(index).doomed.remove(*id);
                        self.tell_deleted(now, *id, index, why);
                    }
                }
            }
        }
        let node = self.roster.node_mut(index);
        node.doom_cursor = batch.last().map_or(BlockId(0), |id| BlockId(id.0.wrapping_add(1)));
        if !blocks.is_empty() {
            node.deleting.push_back((now, blocks.iter().map(|block| block.id).collect()));
            orders.push(Order::Delete { blocks });
        }
    }

    fn tell_deleted(&mut self, now: Millis, block: BlockId, index: u32, why: Why) {
        let node = self.roster.node(index).info.id.uuid.clone();
        match why {
            Why::Removed => {}
            Why::Bad => self.journal.add(now, Notice::CorruptRemoved { block, node }),
            Why::Surplus => self.journal.add(now, Notice::SurplusRemoved { block, node }),
        }
    }

    /// Deletions that were not confirmed in time are ordered again.
    pub(crate) fn expire_deletes(&mut self, now: Millis) {
        for index in self.roster.indices() {
            while let Some((handed, _)) = self.roster.node(index).deleting.front()
                && now.since(*handed).0 >= DELETE_EXPIRY_MS
            {
                let node = self.roster.node_mut(index);
                let (_, blocks) = node.deleting.pop_front().expect("just seen");
                for id in blocks.iter_from(BlockId(0)) {
                    self.delete_again(id, index);
                }
            }
        }
    }

    fn delete_again(&mut self, id: BlockId, index: u32) {
        let slots = self.roster.node(index).slots.clone();
        for slot in slots {
            let Some(entry) = self.map.get(id, slot).filter(|entry| entry.is_doomed()) else { continue };
            let bad = self.is_bad(id, entry) && !self.removed.contains(id);
            let node = self.roster.node_mut(index);
            let tries = node.retries.entry(id).or_insert(1);
            if *tries < DELETE_TRIES_MAX {
                *tries += 1;
                node.doomed.insert(id);
            } else {
                node.ask_register = true;
                if bad {
                    // No report says that its bytes are bad, only whether it is still there.
                    node.retries.remove(&id);
                    self.map.set_doom(id, slot, false);
                } else {
                    self.drop_replica(id, slot);
                }
                self.dirty.insert(id);
            }
        }
    }
}
