//! Blocks under construction: what a writer's pipeline, an append or a truncation means for replicas
//! that are noted, and where those of an open block are. Where they are *expected* the block table
//! says, and who asks brings it along; nothing of that is kept here.
//!
//! While a block is open nothing is copied, deleted or counted for it (CASES 34, 35): `assess` takes it
//! out of all needs, `auto_healer` and `trim` look at committed blocks only. Knows no recovery.

use std::sync::Arc;

use mobula_types::{Block, ReplicaState, Target};
use smallvec::SmallVec;

use crate::answers::in_order;
use crate::fleet::Fleet;
use crate::map::{OddReplica, Verdict};
use crate::roster::{Standing, StorageHealth};
use crate::view::{Location, Locations, NodeState};

/// Behind those that were reported, before bad ones are sorted out: see [`crate::answers`]' ranks.
const UNREPORTED: u64 = 1 << 62;
/// See [`UNREPORTED`].
const SUSPECT: u64 = 1 << 63;
/// See [`UNREPORTED`].
const DEAD: u64 = SUSPECT | UNREPORTED;

impl Fleet {
    /// A committed block is written on. Its replicas are as good as before, but no longer plain: plain
    /// means the length that the table has, and that may change now without a new stamp.
    pub(crate) fn reopened(&mut self, block: Block) {
        let id = block.id;
        self.drop_copies(id);
        self.needs.forget(id);
        if self.map.stamp(id) == Some(block.stamp) {
            let plain: SmallVec<[u32; 4]> = self
                .map
                .entries(id)
                .iter()
                .filter(|entry| !entry.is_odd())
                .map(|entry| entry.slot())
                .collect();
            for slot in plain {
                let replica = OddReplica {
                    stamp: block.stamp,
                    length: block.length,
                    state: ReplicaState::Finalized,
                    verdict: Verdict::Open,
                };
                self.map.put_odd(id, slot, replica);
            }
        }
        self.dirty.insert(id);
    }

    /// The writer goes on under another stamp: replicas with an older one have become stale, and those
    /// with this one are expected now.
    pub(crate) fn pipeline_changed(&mut self, block: Block) {
        self.end_recovery(block.id);
        self.dirty.insert(block.id);
    }

    pub(crate) fn locate_open(&self, block: Block, expected: &[Target], reader: &str) -> Locations {
        let id = block.id;
        let mut ranked: SmallVec<[(u64, Location); 4]> = SmallVec::new();
        for entry in self.map.entries(id) {
            if !entry.is_doomed()
                && !self.is_superseded(block, entry.slot(), expected)
                && let Some((rank, mut location)) = self.location(id, *entry, reader)
            {
                // The stamp that is asked with may be newer than the one that verdicts were made with.
                location.corrupt |= self.stamp_at(id, entry.slot()).is_some_and(|stamp| stamp < block.stamp);
                ranked.push((rank, location));
            }
        }
        for (place, target) in expected.iter().enumerate() {
            if let Some((state, location)) = self.unreported_location(block, target) {
                let rank = match state {
                    NodeState::Live => UNREPORTED,
                    NodeState::Suspect => SUSPECT,
                    NodeState::Dead => DEAD,
                };
                ranked.push((rank + place as u64, location));
            }
        }
        in_order(ranked)
    }

    /// Whether what is known of a replica is from before the pipeline changed. DataNodes do not tell of the new
    /// stamp (HDFS: `BlockReceiver`, whose streaming recovery notifies nobody); the writer did, as it named those
    /// that have it.
    fn is_superseded(&self, block: Block, slot: u32, expected: &[Target]) -> bool {
        let stale = self.stamp_at(block.id, slot).is_none_or(|stamp| stamp < block.stamp);
        stale
            && self
                .roster
                .holder(slot)
                .is_some_and(|node| expected.iter().any(|target| target.datanode == node.info.id.uuid))
    }

    /// A place where a replica is expected that is not among those that were reported, and how its node is; none if that lives
    /// and has told of one with this stamp, or was never seen. One that is taken for dead may answer yet, and have what others have lost
    /// (HDFS: `BlockUnderConstructionFeature.getExpectedStorageLocations`).
    fn unreported_location(&self, block: Block, target: &Target) -> Option<(NodeState, Location)> {
        let index = self.roster.index(&target.datanode)?;
        let node = self.roster.node(index);
        let told = node.slots.iter().any(|slot| self.stamp_at(block.id, *slot) >= Some(block.stamp));
        if told && node.state != NodeState::Dead {
            return None;
        }
        let slot = self.roster.find_slot(index, &target.storage);
        if slot.is_some_and(|slot| self.roster.slot(slot).health == StorageHealth::Failed) {
            return None;
        }
        let location = Location {
            node: Arc::clone(&node.info),
            storage: target.storage.clone(),
            kind: target.kind,
            corrupt: false,
            stale: node.state != NodeState::Live,
        };
        Some((node.state, location))
    }

    pub(crate) fn list_good_targets(&self, block: Block) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        if self.map.stamp(block.id) != Some(block.stamp) {
            return targets;
        }
        for entry in self.map.entries(block.id) {
            let slot = entry.slot();
            if entry.is_odd() || entry.is_doomed() || self.roster.standing(slot) == Standing::Gone {
                continue;
            }
            let index = self.roster.slot(slot).node;
            if self.roster.node(index).state == NodeState::Live {
                targets.push(self.target(index, slot));
            }
        }
        targets.sort_by(|left, right| left.datanode.cmp(&right.datanode));
        targets.dedup_by(|left, right| left.datanode == right.datanode);
        targets
    }
}
