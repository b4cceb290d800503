//! Copies that are planned or under way, with their expiry and what they cost each node.

use std::collections::{BTreeMap, BTreeSet};

use mobula_types::{Block, BlockId, Millis};
use smallvec::SmallVec;

use crate::roster::Roster;

/// A copy counts one unit a MiB against `copies_per_node_max` times [`UNITS_PER_COPY`], at least 1
/// and at most [`UNITS_PER_COPY`]: small blocks are limited by their number, large ones by bytes.
const UNIT_BYTES: u64 = 1 << 20;
/// See [`UNIT_BYTES`].
pub const UNITS_PER_COPY: u64 = 16;
/// The slowest copy that is waited for, bytes a second.
const SLOWEST_BYTES_PER_S: u64 = 10 << 20;
/// An end of a copy that failed is not tried again for that block for this long.
const AVOID_MS: u64 = 60_000;
/// Failures that are remembered; the oldest block's go first.
const AVOIDED_MAX: usize = 65_536;

/// One copy to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What, with its final length and stamp.
    pub block: Block,
    /// Index of the node that sends.
    pub source: u32,
    /// Index of the node that receives.
    pub target: u32,
    /// The volume there.
    pub slot: u32,
    /// When it was handed to the source.
    pub handed: Option<Millis>,
    /// Given up then.
    pub expires: Millis,
    /// The first target of its order: the source is charged for it, not for the rest of the chain.
    first: bool,
}

/// The limit's units that a copy of so many bytes costs each end.
pub fn units(length: u64) -> u64 {
    length.div_ceil(UNIT_BYTES).clamp(1, UNITS_PER_COPY)
}

/// How long a copy may take beside the fixed expiry.
pub fn slowest(length: u64) -> Millis {
    Millis(length / (SLOWEST_BYTES_PER_S / 1_000))
}

/// All of them.
#[derive(Debug, Default)]
pub struct Copies {
    by_block: BTreeMap<BlockId, SmallVec<[Copy; 2]>>,
    expiries: BTreeSet<(Millis, BlockId, u32)>,
    avoided: BTreeMap<(BlockId, u32), Millis>,
    len: u64,
}

impl Copies {
    /// Those of one block.
    pub fn of(&self, id: BlockId) -> &[Copy] {
        self.by_block.get(&id).map_or(&[], |copies| copies)
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Notes a plan and what it costs. The first target of an order is charged to the source.
    pub fn plan(
        &mut self,
        roster: &mut Roster,
        block: Block,
        source: u32,
        (target, slot): (u32, u32),
        expires: Millis,
        first: bool,
    ) {
        let copy = Copy { block, source, target, slot, handed: None, expires, first };
        self.by_block.entry(block.id).or_default().push(copy);
        self.expiries.insert((expires, block.id, target));
        self.len += 1;
        if first {
            let load = &mut roster.node_mut(source).load;
            load.bytes_out += block.length;
            load.units += units(block.length);
        }
        let load = &mut roster.node_mut(target).load;
        load.bytes_in += block.length;
        load.units += units(block.length);
        if first {
            roster.node_mut(source).outbox.push(block.id);
        }
    }

    /// It was handed to its source.
    pub fn hand(&mut self, id: BlockId, target: u32, now: Millis, expires: Millis) {
        let Some(copies) = self.by_block.get_mut(&id) else { return };
        if let Some(copy) = copies.iter_mut().find(|copy| copy.target == target) {
            self.expiries.remove(&(copy.expires, id, target));
            copy.handed = Some(now);
            copy.expires = expires;
            self.expiries.insert((expires, id, target));
        }
    }

    /// Takes one out, verified or given up.
    pub fn take(&mut self, roster: &mut Roster, id: BlockId, target: u32) -> Option<Copy> {
        let copies = self.by_block.get_mut(&id)?;
        let index = copies.iter().position(|copy| copy.target == target)?;
        let copy = copies.remove(index);
        if copies.is_empty() {
            self.by_block.remove(&id);
        }
        self.expiries.remove(&(copy.expires, id, target));
        self.len -= 1;
        if copy.first && roster.try_node(copy.source).is_some() {
            let load = &mut roster.node_mut(copy.source).load;
            load.bytes_out -= copy.block.length;
            load.units -= units(copy.block.length);
        }
        if roster.try_node(copy.target).is_some() {
            let load = &mut roster.node_mut(copy.target).load;
            load.bytes_in -= copy.block.length;
            load.units -= units(copy.block.length);
        }
        Some(copy)
    }

    /// The next one that has expired.
    pub fn expired(&self, now: Millis) -> Option<(BlockId, u32)> {
        self.expiries.first().filter(|(expires, ..)| *expires <= now).map(|(_, id, target)| (*id, *target))
    }

    /// All in which a node has a part, as (block, target).
    pub fn touching(&self, node: u32) -> Vec<(BlockId, u32)> {
        let of_node = |copy: &&Copy| copy.source == node || copy.target == node;
        self.by_block
            .values()
            .flat_map(|copies| copies.iter().filter(of_node).map(|copy| (copy.block.id, copy.target)))
            .collect()
    }

    /// All of one source, as (block, target, handed out at).
    pub fn sent_by(&self, node: u32) -> Vec<(BlockId, u32, Option<Millis>)> {
        self.by_block
            .values()
            .flatten()
            .filter(|copy| copy.source == node)
            .map(|copy| (copy.block.id, copy.target, copy.handed))
            .collect()
    }

    /// Remembers that a node failed in a copy of this block; true if it had failed before.
    pub fn avoid(&mut self, id: BlockId, node: u32, now: Millis) -> bool {
        if self.avoided.len() >= AVOIDED_MAX {
            self.avoided.pop_first();
        }
        self.avoided.insert((id, node), now + Millis(AVOID_MS)).is_some()
    }

    /// Whether it failed lately.
    pub fn is_avoided(&self, id: BlockId, node: u32, now: Millis) -> bool {
        self.avoided.get(&(id, node)).is_some_and(|until| *until > now)
    }

    /// The block has what it needs: its failures are history.
    pub fn forgive(&mut self, id: BlockId) {
        if !self.avoided.is_empty() {
            let old: Vec<_> = self.avoided.range((id, 0)..=(id, u32::MAX)).map(|(key, _)| *key).collect();
            for key in old {
                self.avoided.remove(&key);
            }
        }
    }
}
