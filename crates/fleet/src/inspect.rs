//! How one block stands, replica by replica, for administrators (HDFS: what `NamenodeFsck` asks of
//! `BlockManager`). Changes nothing.

use std::sync::Arc;

use mobula_types::{Block, ReplicaState, StorageType, StorageUuid, Target};

use crate::fleet::Fleet;
use crate::map::{Entry, OddReplica, Verdict};
use crate::roster::Standing;
use crate::view::{NodeInfo, NodeState};

/// A replica, good or bad, on a volume that is not gone.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Who has it.
    pub node: Arc<NodeInfo>,
    /// On which volume.
    pub storage: StorageUuid,
    /// Of which medium.
    pub kind: StorageType,
    /// Why it is bad, if it is.
    pub bad: Option<Defect>,
    /// It is one too many and is being deleted.
    pub surplus: bool,
    /// Its node has missed beats or lost its connection.
    pub suspect: bool,
    /// Its volume has not reported in full since the node registered.
    pub unconfirmed: bool,
}

impl Replica {
    /// Whether it counts towards its block's target.
    pub fn counts(&self) -> bool {
        self.bad.is_none() && !self.surplus
    }
}

/// What is wrong with a bad replica (HDFS: `CorruptReplicasMap.Reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It has another stamp than its block.
    Stamp,
    /// It has another length than its block.
    Length,
    /// It was never finished.
    State,
    /// Somebody found its bytes to be bad.
    Reported,
}

impl Fleet {
    /// All replicas of a committed block but those on dead nodes and failed volumes; of a node with two, the better one.
    /// Bad ones that are being deleted are left out.
    pub fn replicas(&self, block: Block) -> Vec<Replica> {
        let mut found: Vec<Replica> = Vec::new();
        for entry in self.map.entries(block.id) {
            let Some(replica) = self.replica(block, *entry) else { continue };
            match found.iter_mut().find(|other| other.node.id.uuid == replica.node.id.uuid) {
                Some(other) if !other.counts() && replica.counts() => *other = replica,
                Some(_) => {}
                None => found.push(replica),
            }
        }
        found
    }

    fn replica(&self, block: Block, entry: Entry) -> Option<Replica> {
        let odd = self.map.odd(block.id, entry.slot()).filter(|_| entry.is_odd());
        if odd.is_some() && entry.is_doomed() || odd.is_some_and(|odd| !odd.verdict.is_bad()) {
            return None;
        }
        let bad = odd.map(|odd| defect(odd, block));
        self.shown(entry.slot(), bad, entry.is_doomed())
    }

    fn shown(&self, slot: u32, bad: Option<Defect>, surplus: bool) -> Option<Replica> {
        let standing = self.roster.standing(slot);
        let node = self.roster.holder(slot).filter(|_| standing != Standing::Gone)?;
        let report = &self.roster.slot(slot).report;
        Some(Replica {
            node: Arc::clone(&node.info),
            storage: report.storage.clone(),
            kind: report.kind,
            bad,
            surplus,
            suspect: node.state == NodeState::Suspect,
            unconfirmed: standing == Standing::Hoped,
        })
    }

    /// Where a block's writer was sent, as far as those nodes are known: dead ones as suspect.
    pub fn expected_replicas(&self, targets: &[Target]) -> Vec<Replica> {
        let shown = |target: &Target| {
            Some(Replica {
                node: self.node(&target.datanode)?,
                storage: target.storage.clone(),
                kind: target.kind,
                bad: None,
                surplus: false,
                suspect: self.node_state(&target.datanode) != Some(NodeState::Live),
                unconfirmed: false,
            })
        };
        targets.iter().filter_map(shown).collect()
    }
}

fn defect(odd: &OddReplica, block: Block) -> Defect {
    match odd.verdict {
        Verdict::Corrupt => Defect::Reported,
        _ if odd.stamp != block.stamp => Defect::Stamp,
        _ if odd.state == ReplicaState::Finalized && odd.length != block.length => Defect::Length,
        _ => Defect::State,
    }
}
