//! DataNodes and their volumes: who lives, who is suspect, who is dead, and what that makes of the
//! replicas on each volume. Knows no block.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mobula_types::{BlockId, DatanodeUuid, Millis, StorageReport, StorageState, StorageType, StorageUuid};
use smallvec::SmallVec;

use crate::event::{FleetConfig, Heartbeat, RegisterError, Registration};
use crate::map::SLOTS_MAX;
use crate::set::BlockSet;
use crate::view::{NodeInfo, NodeState};

/// Volumes of one node at most.
pub const VOLUMES_MAX: usize = 1_024;
/// A node's beat is measured over this many of its last intervals (their median).
const BEATS_KEPT: usize = 5;
/// Slower beats than this do not stretch a node's times further. Apache's default is 3 s.
const BEAT_MS_MAX: u64 = 6_000;
/// Assumed of a node that has beaten once, where that is to be suspected: it may be one of Apache's. For
/// its death it is not: that comes after several of Apache's beats, too.
const BEAT_MS_UNKNOWN: u64 = 3_000;
/// A node that came back from the dead is not relied on for this long, doubled for each further
/// death within [`DEATHS_KEPT_MS`] (CASES 36).
const SETTLE_MS: u64 = 10_000;
/// See [`SETTLE_MS`].
const DEATHS_KEPT_MS: u64 = 600_000;
/// See [`SETTLE_MS`]: at most this many doublings.
const SETTLE_DOUBLINGS_MAX: u32 = 6;
/// Replicas of a node that registered anew are hoped for this long; without its report they are
/// gone then.
pub const HOPE_MS: u64 = 60_000;

/// What a volume's state makes of a replica on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its node is dead, or the volume failed: the replica counts for nothing.
    Gone,
    /// The node has not reported this volume in full since it registered: no copy is ordered
    /// because of it, and nothing is deleted because of it.
    Hoped,
    /// The node is suspect: as `Hoped`.
    Suspect,
    /// Counts.
    Live,
}

/// Whether a volume can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageHealth {
    /// No heartbeat has told of it yet.
    Unseen,
    /// The last heartbeat shows it in order.
    Healthy,
    /// Failed, or missing from the last heartbeat.
    Failed,
}

/// A volume of a node.
#[derive(Debug)]
pub struct Slot {
    /// Index of its node.
    pub node: u32,
    /// Its figures, as the last heartbeat told.
    pub report: StorageReport,
    /// Whether it can be used.
    pub health: StorageHealth,
    /// Reported in full since the node registered.
    pub confirmed: bool,
    /// What its replicas count for; follows from the rest.
    pub standing: Standing,
    /// Replicas noted on it.
    pub replicas: u64,
    /// Blocks told of in incremental reports since the lease for the next full one was given, or
    /// since registration: they are newer than what that report will say (CASES 26).
    pub recent: BlockSet,
}

/// A DataNode.
#[derive(Debug)]
pub struct Node {
    /// Who it is.
    pub info: Arc<NodeInfo>,
    /// How it is.
    pub state: NodeState,
    /// Its volumes.
    pub slots: SmallVec<[u32; 4]>,
    /// Counts registrations: what was begun under an older one is void.
    pub epoch: u64,
    /// When it registered last.
    pub registered: Millis,
    /// Its last sign of life.
    pub last_beat: Millis,
    /// It has beaten since it registered.
    pub has_beaten: bool,
    /// Its connection broke after its last beat.
    pub broken: bool,
    /// It said that it stops.
    pub stopping: bool,
    /// Its last full report.
    pub last_report: Option<Millis>,
    /// Should register again, so that it reports in full.
    pub ask_register: bool,
    /// When that was asked last.
    pub asked: Option<Millis>,
    /// Open data connections.
    pub xceivers: u32,
    /// Transfers it is doing for us.
    pub transfers: u32,
    /// It has told of transfers before: its 0 means none.
    pub tells_transfers: bool,
    /// Failed volumes, as it says.
    pub failed_volumes: u32,
    /// Passed through.
    pub cache_capacity: u64,
    /// Passed through.
    pub cache_used: u64,
    /// Lease for a full report, and when it was given.
    pub lease: Option<(u64, Millis)>,
    /// Not relied on before this time, for it was dead lately.
    pub settled_at: Millis,
    /// Bytes of copies under way from it and to it, and the limit's units of them.
    pub load: Load,
    /// Blocks placed here since its last beat, and their bytes: not in its figures yet.
    pub placed: (u32, u64),
    /// Blocks whose copies it is to make with its next beat.
    pub outbox: Vec<BlockId>,
    /// Blocks whose recovery it is to begin with its next beats.
    pub recover_box: VecDeque<BlockId>,
    /// Replicas to delete with its next beats.
    pub doomed: BlockSet,
    /// Where in `doomed` the next beat goes on.
    pub doom_cursor: BlockId,
    /// Deletions handed out, not confirmed yet.
    pub deleting: VecDeque<(Millis, BlockSet)>,
    /// How often a deletion was handed out in vain.
    pub retries: BTreeMap<BlockId, u8>,
    deaths: VecDeque<Millis>,
    intervals: VecDeque<u64>,
}

/// Copies under way at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes it sends.
    pub bytes_out: u64,
    /// Bytes it receives.
    pub bytes_in: u64,
    /// Units of `copies_per_node_max`, both ways.
    pub units: u64,
}

impl Node {
    /// Whether new replicas may go there and copies be made from there.
    pub fn is_usable(&self) -> bool {
        self.state == NodeState::Live && !self.stopping
    }

    /// Times of `config`, stretched to the beat that this node is seen to make.
    pub fn stretched(&self, span: Millis, unknown: u64, config: &FleetConfig) -> u64 {
        let usual = config.heartbeat_ms.0.max(1);
        let beat = self.beat_ms().unwrap_or(unknown).min(BEAT_MS_MAX);
        // A quarter is jitter.
        if beat * 4 <= usual * 5 { span.0 } else { span.0 * beat / usual }
    }

    /// Its usual beat, once two have come.
    fn beat_ms(&self) -> Option<u64> {
        let mut sorted: SmallVec<[u64; BEATS_KEPT]> = self.intervals.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// What its silence makes of it.
    pub fn judge(&self, now: Millis, config: &FleetConfig) -> NodeState {
        let silent = now.since(self.last_beat).0;
        let dead = self.stretched(config.dead_ms, 0, config);
        let dead = if self.stopping { dead.max(config.restart_grace_ms.0) } else { dead };
        if self.state == NodeState::Dead || silent >= dead {
            NodeState::Dead
        } else if self.broken
            || self.stopping
            || silent >= self.stretched(config.suspect_ms, BEAT_MS_UNKNOWN, config)
        {
            NodeState::Suspect
        } else {
            NodeState::Live
        }
    }

    /// A sign of life that counts as a beat.
    pub fn beat(&mut self, now: Millis) {
        if self.has_beaten {
            if self.intervals.len() == BEATS_KEPT {
                self.intervals.pop_front();
            }
            self.intervals.push_back(now.since(self.last_beat).0);
        }
        self.has_beaten = true;
        self.broken = false;
        self.stopping = false;
        self.last_beat = now;
        self.placed = (0, 0);
    }

    /// A block that was placed here has come: what it takes is its length, and no longer all that a
    /// block may take. Without this, many small files in one beat fill a disk that has room.
    pub fn arrived(&mut self, length: u64) {
        let (count, bytes) = self.placed;
        if let Some(share) = bytes.checked_div(u64::from(count)) {
            self.placed = (count - 1, bytes - share + length);
        }
    }

    /// It is declared dead.
    pub fn die(&mut self, now: Millis) {
        self.state = NodeState::Dead;
        self.lease = None;
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|death| now.since(*death).0 > DEATHS_KEPT_MS) {
            self.deaths.pop_front();
        }
        self.forget_deletions();
    }

    /// It is back from the dead, and has to prove itself.
    pub fn revive(&mut self, now: Millis) {
        self.state = NodeState::Live;
        let doublings = (self.deaths.len() as u32).saturating_sub(1).min(SETTLE_DOUBLINGS_MAX);
        self.settled_at = now + Millis(SETTLE_MS << doublings);
    }

    /// Drops what it was to delete: it will report what it has.
    pub fn forget_deletions(&mut self) {
        self.doomed.clear();
        self.deleting.clear();
        self.retries.clear();
    }

    /// It has nothing of this block any more.
    pub fn lost(&mut self, id: BlockId) {
        self.doomed.remove(id);
        self.retries.remove(&id);
        let _ = self.deleting.iter_mut().any(|(_, blocks)| blocks.remove(id));
    }

    /// Replicas that wait for deletion.
    pub fn pending_deletions(&self) -> u64 {
        self.doomed.len() + self.deleting.iter().map(|(_, blocks)| blocks.len()).sum::<u64>()
    }

    /// Whether `name` is its ip or host name.
    pub fn is_machine(&self, name: &str) -> bool {
        !name.is_empty() && (self.info.id.ip == name || self.info.id.host_name == name)
    }
}

/// All DataNodes.
#[derive(Debug)]
pub struct Roster {
    nodes: Vec<Option<Node>>,
    by_uuid: BTreeMap<DatanodeUuid, u32>,
    slots: Vec<Slot>,
    /// How many there may be: [`SLOTS_MAX`], but for tests.
    slots_max: usize,
    /// Where numbers that were left behind are looked for next.
    left_from: usize,
}

impl Default for Roster {
    fn default() -> Roster {
        let (nodes, by_uuid, slots) = (Vec::new(), BTreeMap::new(), Vec::new());
        Roster { nodes, by_uuid, slots, slots_max: SLOTS_MAX, left_from: 0 }
    }
}

impl Roster {
    /// The index of a node.
    pub fn index(&self, uuid: &DatanodeUuid) -> Option<u32> {
        self.by_uuid.get(uuid).copied()
    }

    /// A node that is known to be there.
    pub fn node(&self, index: u32) -> &Node {
        self.nodes[index as usize].as_ref().expect("indices are handed out for present nodes only")
    }

    /// See [`Roster::node`].
    pub fn node_mut(&mut self, index: u32) -> &mut Node {
        self.nodes[index as usize].as_mut().expect("indices are handed out for present nodes only")
    }

    /// A volume.
    pub fn slot(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    /// A volume.
    pub fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// The node of a volume, if it was not removed.
    pub fn holder(&self, slot: u32) -> Option<&Node> {
        self.nodes[self.slot(slot).node as usize].as_ref()
    }

    /// No full report that was composed before is under way any more: news of single replicas is not newer than the next.
    pub fn forget_recent(&mut self, node: u32) {
        for slot in self.node(node).slots.clone() {
            let slot = self.slot_mut(slot);
            if slot.confirmed {
                slot.recent.clear();
            }
        }
    }

    /// What a replica on that volume counts for.
    pub fn standing(&self, slot: u32) -> Standing {
        self.slots[slot as usize].standing
    }

    /// All nodes with their indices, in order of first registration.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index as u32, node.as_ref()?)))
    }

    /// Indices of all nodes.
    pub fn indices(&self) -> Vec<u32> {
        self.iter().map(|(index, _)| index).collect()
    }

    /// Indices are below this.
    pub fn bound(&self) -> usize {
        self.nodes.len()
    }

    /// A node by a bare number, if there is one.
    pub fn try_node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)?.as_ref()
    }

    /// The volume of a node, made if it is new. None above [`VOLUMES_MAX`] of the node, or [`SLOTS_MAX`] of all nodes.
    pub fn slot_of(&mut self, node: u32, storage: &StorageUuid, kind: StorageType) -> Option<u32> {
        if let Some(slot) = self.find_slot(node, storage) {
            return Some(slot);
        }
        if self.node(node).slots.len() >= VOLUMES_MAX {
            return None;
        }
        let fresh = Slot {
            node,
            report: StorageReport {
                storage: storage.clone(),
                kind,
                state: StorageState::Normal,
                failed: false,
                capacity: 0,
                dfs_used: 0,
                remaining: 0,
                pool_used: 0,
                non_dfs_used: 0,
            },
            health: StorageHealth::Unseen,
            confirmed: false,
            standing: Standing::Gone,
            replicas: 0,
            recent: BlockSet::default(),
        };
        let slot = if self.slots.len() < self.slots_max {
            self.slots.push(fresh);
            self.slots.len() - 1
        } else {
            let slot = self.left_slot()?;
            self.slots[slot] = fresh;
            slot
        } as u32;
        self.node_mut(node).slots.push(slot);
        self.refresh(node);
        Some(slot)
    }

    /// A number that a node left behind which is off the roster, and that no replica bears any more.
    fn left_slot(&mut self) -> Option<usize> {
        let all = self.slots.len();
        let found =
            (self.left_from..all).chain(0..self.left_from).find(|at| self.is_left(&self.slots[*at]))?;
        self.left_from = found + 1;
        Some(found)
    }

    fn is_left(&self, slot: &Slot) -> bool {
        slot.replicas == 0 && self.nodes[slot.node as usize].is_none()
    }

    /// The volume of a node, if it is known.
    pub fn find_slot(&self, node: u32, storage: &StorageUuid) -> Option<u32> {
        self.node(node).slots.iter().copied().find(|slot| self.slot(*slot).report.storage == *storage)
    }

    /// Works out what the replicas on a node's volumes count for. Answers the volumes that came or
    /// went: their blocks must be looked at.
    pub fn refresh(&mut self, node: u32) -> SmallVec<[u32; 4]> {
        let state = self.node(node).state;
        let mut moved = SmallVec::new();
        for slot in self.node(node).slots.clone() {
            let slot_state = self.slot_mut(slot);
            let standing = match (state, slot_state.health, slot_state.confirmed) {
                (NodeState::Dead, ..) | (_, StorageHealth::Failed, _) => Standing::Gone,
                (_, _, false) => Standing::Hoped,
                (NodeState::Suspect, ..) => Standing::Suspect,
                (NodeState::Live, ..) => Standing::Live,
            };
            if (standing == Standing::Gone) != (slot_state.standing == Standing::Gone) {
                moved.push(slot);
            }
            slot_state.standing = standing;
        }
        moved
    }

    /// Whether a registration may stand: [`RegisterError`] if a living node elsewhere has the
    /// identity.
    pub fn check(&self, registration: &Registration) -> Result<(), RegisterError> {
        let claimant = &registration.id;
        if let Some(index) = self.index(&claimant.uuid) {
            let holder = self.node(index);
            let elsewhere =
                holder.info.id.ip != claimant.ip || holder.info.id.xfer_port != claimant.xfer_port;
            if elsewhere && holder.state == NodeState::Live {
                return Err(RegisterError::IdentityInUse {
                    uuid: claimant.uuid.clone(),
                    holder: holder.info.id.xfer_address(),
                    claimant: claimant.xfer_address(),
                });
            }
            return Ok(());
        }
        if self.slots.len() >= self.slots_max && !self.slots.iter().any(|slot| self.is_left(slot)) {
            return Err(RegisterError::TooManyVolumes { slots: self.slots.len() });
        }
        Ok(())
    }

    /// Another node that listens where this one says it does: its disks were formatted anew.
    pub fn predecessor(&self, registration: &Registration) -> Option<u32> {
        let same = |node: &Node| {
            node.info.id.ip == registration.id.ip
                && node.info.id.xfer_port == registration.id.xfer_port
                && registration.id.xfer_port != 0
                && node.info.id.uuid != registration.id.uuid
        };
        self.iter().find(|(_, node)| same(node)).map(|(index, _)| index)
    }

    /// Adds a node, or begins a new epoch of one: its volumes must be reported again.
    pub fn enroll(&mut self, now: Millis, registration: Registration) -> u32 {
        let uuid = registration.id.uuid.clone();
        let info = Arc::new(NodeInfo {
            id: registration.id,
            software_version: registration.software_version,
            rack: "/default-rack".into(),
        });
        let index = match self.index(&uuid) {
            Some(index) => {
                let node = self.node_mut(index);
                node.info = info;
                node.epoch += 1;
                node.registered = now;
                node.last_beat = now;
                (node.broken, node.stopping, node.has_beaten) = (false, false, false);
                (node.lease, node.ask_register) = (None, false);
                node.forget_deletions();
                index
            }
            None => {
                let index = self.nodes.len() as u32;
                self.nodes.push(Some(new_node(info, now)));
                self.by_uuid.insert(uuid, index);
                index
            }
        };
        for slot in self.node(index).slots.clone() {
            let slot = self.slot_mut(slot);
            slot.confirmed = false;
            slot.recent.clear();
            if slot.health == StorageHealth::Healthy {
                slot.health = StorageHealth::Unseen;
            }
        }
        index
    }

    /// Takes a node off the roster. Its volumes stay numbered, gone.
    pub fn remove(&mut self, index: u32) -> Option<Node> {
        let node = self.nodes[index as usize].take()?;
        self.by_uuid.remove(&node.info.id.uuid);
        for slot in &node.slots {
            self.slot_mut(*slot).standing = Standing::Gone;
        }
        Some(node)
    }

    /// Takes in a beat's figures. Answers the volumes that just failed.
    pub fn take_beat(&mut self, index: u32, beat: &Heartbeat) -> SmallVec<[u32; 4]> {
        let node = self.node_mut(index);
        node.xceivers = beat.xceivers;
        node.transfers = beat.transfers;
        node.tells_transfers |= beat.transfers > 0;
        node.failed_volumes = beat.failed_volumes;
        node.cache_capacity = beat.cache_capacity;
        node.cache_used = beat.cache_used;
        let mut failed = SmallVec::new();
        for report in &beat.storages {
            let Some(slot) = self.slot_of(index, &report.storage, report.kind) else { continue };
            let state = self.slot_mut(slot);
            let was = state.health;
            state.health = if report.failed { StorageHealth::Failed } else { StorageHealth::Healthy };
            state.report = report.clone();
            match (was, state.health) {
                (StorageHealth::Failed, StorageHealth::Healthy) => {
                    // What is on it now, only a full report can tell.
                    state.confirmed = false;
                    state.recent.clear();
                    self.node_mut(index).ask_register = true;
                }
                (StorageHealth::Unseen | StorageHealth::Healthy, StorageHealth::Failed) => failed.push(slot),
                _ => {}
            }
        }
        // A volume that no beat tells of any more is out of use.
        for slot in self.node(index).slots.clone() {
            let state = self.slot_mut(slot);
            let told = beat.storages.is_empty()
                || beat.storages.iter().any(|report| report.storage == state.report.storage);
            if !told && state.health != StorageHealth::Failed {
                state.health = StorageHealth::Failed;
                failed.push(slot);
            }
        }
        failed
    }

    /// Whether all healthy volumes of a node were reported in full since it registered.
    pub fn is_reported(&self, index: u32) -> bool {
        let node = self.node(index);
        node.has_beaten
            && node.slots.iter().map(|slot| self.slot(*slot)).all(|slot| match slot.health {
                StorageHealth::Healthy => slot.confirmed,
                // Volumes of an older life that no beat has told of: hoped for until then.
                StorageHealth::Unseen => slot.replicas == 0,
                StorageHealth::Failed => true,
            })
    }

    /// Bytes free for another replica on a volume, 0 if it takes none.
    pub fn free(&self, slot: u32, config: &FleetConfig) -> u64 {
        let slot = self.slot(slot);
        let usable = slot.health == StorageHealth::Healthy && slot.report.state == StorageState::Normal;
        if usable { slot.report.remaining.saturating_sub(config.reserve_bytes) } else { 0 }
    }
}

fn new_node(info: Arc<NodeInfo>, now: Millis) -> Node {
    Node {
        info,
        state: NodeState::Live,
        slots: SmallVec::new(),
        epoch: 0,
        registered: now,
        last_beat: now,
        has_beaten: false,
        broken: false,
        stopping: false,
        last_report: None,
        ask_register: false,
        asked: None,
        xceivers: 0,
        transfers: 0,
        tells_transfers: false,
        failed_volumes: 0,
        cache_capacity: 0,
        cache_used: 0,
        lease: None,
        settled_at: Millis(0),
        load: Load::default(),
        placed: (0, 0),
        outbox: Vec::new(),
        recover_box: VecDeque::new(),
        doomed: BlockSet::default(),
        doom_cursor: BlockId(0),
        deleting: VecDeque::new(),
        retries: BTreeMap::new(),
        deaths: VecDeque::new(),
        intervals: VecDeque::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mobula_types::DatanodeId;

    use super::*;

    fn enroll(roster: &mut Roster, number: usize) -> Result<u32, RegisterError> {
        let uuid = DatanodeUuid::from(format!("dn{number}").as_str());
        let id = DatanodeId {
            ip: "10.0.0.1".into(),
            host_name: "host".into(),
            uuid,
            xfer_port: 9866,
            info_port: 0,
            info_secure_port: 0,
            ipc_port: 9867,
        };
        let registration = Registration { id, software_version: "3.5.0".into() };
        roster.check(&registration)?;
        Ok(roster.enroll(Millis(0), registration))
    }

    fn volume(roster: &mut Roster, node: u32, number: usize) -> Option<u32> {
        roster.slot_of(node, &StorageUuid::from(format!("DS-{node}-{number}").as_str()), StorageType::Disk)
    }

    #[test]
    fn numbers_of_volumes_that_went_are_used_again_and_known_nodes_always_register() {
        let mut roster = Roster { slots_max: 10, ..Roster::default() };
        let stays = enroll(&mut roster, 0).unwrap();
        let kept = volume(&mut roster, stays, 0).unwrap();
        let mut last = None;
        for number in 1..100 {
            let node = enroll(&mut roster, number).unwrap();
            for at in 0..3 {
                assert_ne!(volume(&mut roster, node, at), Some(kept), "of a node that is still there");
                assert!(volume(&mut roster, node, at).is_some(), "node {number}, volume {at}");
            }
            if let Some(last) = last.replace(node) {
                roster.remove(last);
            }
        }
        for at in 1..=6 {
            assert!(volume(&mut roster, stays, at).is_some());
        }
        assert_eq!(volume(&mut roster, stays, 7), None);
        assert!(matches!(enroll(&mut roster, 100), Err(RegisterError::TooManyVolumes { .. })));
        assert_eq!(enroll(&mut roster, 0).unwrap(), stays);
    }

    #[test]
    fn a_node_has_so_many_volumes_and_no_more() {
        let mut roster = Roster::default();
        let node = enroll(&mut roster, 0).unwrap();
        assert!((0..VOLUMES_MAX).all(|at| volume(&mut roster, node, at).is_some()));
        assert_eq!(volume(&mut roster, node, VOLUMES_MAX), None);
        assert!(volume(&mut roster, node, 7).is_some(), "it is known");
    }
}
