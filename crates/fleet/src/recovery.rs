//! Block recovery: the last block of a file whose writer is gone, or that is truncated, is brought to
//! one length and stamp by one of its DataNodes, the *primary* (HDFS: `BlockUnderConstructionFeature`,
//! `PendingRecoveryBlocks`, and the DataNode's `BlockRecoveryWorker`).
//!
//! Invariants: one attempt has one id and one primary, so that never two work under one id; an attempt
//! that ends without a result is only repeated under a higher id, which the namespace gives out, and
//! which makes DataNodes refuse the older one (CASES 18, 19). A recovery that cannot decide waits: what a
//! writer was promised may be on a node that is away for a moment, and is not cut off or dropped as
//! long as that could be (CASES 20). Nothing is deleted here.

use std::collections::BTreeMap;

use mobula_types::{Block, BlockId, GenStamp, Millis, ReplicaState, Target};
use smallvec::SmallVec;

use crate::event::{Recover, Synchronization, Undecided};
use crate::fleet::Fleet;
use crate::map::{OddReplica, Verdict};
use crate::notice::Notice;
use crate::order::Order;
use crate::roster::StorageHealth;
use crate::view::NodeState;

/// An attempt ends after 30 beats. HDFS allows as many (`PendingRecoveryBlocks`, 90 s of 3 s each); ours
/// come each second, and a recovery is some round trips and one sync, so a primary that takes longer is
/// stuck. For Apache's DataNodes it is stretched to their beats.
const ATTEMPT_MS: u64 = 30_000;
/// An attempt that ran before this NameNode started: it ends by itself sooner than that, or never.
const RESUME_MS: u64 = 5_000;
/// Nodes that are suspect or have not reported since they registered are waited for so long at most:
/// after 10 s they are either back or dead.
const SETTLE_MS: u64 = 12_000;
/// A result that would drop or cut bytes which an absent node may have is refused for so long. Dead nodes'
/// replicas are remembered as long.
const PATIENCE_MS: u64 = 600_000;
/// After a refused result, doubled with each further one; and after a repetition was asked for in vain.
const PAUSE_MS: u64 = 3_000;
/// See [`PAUSE_MS`]: at most this many doublings, 96 s.
const PAUSE_DOUBLINGS_MAX: u32 = 5;
/// Recoveries that one tick looks at.
const ASSIGNS_PER_TICK: usize = 1_000;
/// Recoveries that a node is handed with one beat. Each is some syncs on every node of its pipeline, before which
/// writers' syncs stand in line: a crash of HBase must not stop everybody else. Three nodes of ours still close
/// 1,000 files in 24 s. 200 files on one disk: others' p99 was 532 ms with 100 a beat, 340 ms with 14 (medians of 3
/// and 4; 140 ms before). Apache's DataNodes do them one after the other.
const RECOVERIES_PER_BEAT: usize = 14;

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// No primary yet.
    Unassigned,
    /// In that node's box: handed with its next beat.
    Assigned { node: u32 },
    /// Handed; none for one that began before this NameNode started.
    Running { node: Option<u32>, epoch: u64, ends: Millis },
    /// Ended without a result: it is asked for again at that time.
    Over { again: Millis },
}

impl Attempt {
    fn primary(self) -> Option<u32> {
        if let Attempt::Running { node, .. } = self { node } else { None }
    }
}

/// A block's recovery, over all its attempts.
#[derive(Debug)]
pub(crate) struct Recovery {
    block: Block,
    id: GenStamp,
    targets: Vec<Target>,
    truncate: Option<u64>,
    attempt: Attempt,
    /// Primaries of earlier attempts.
    tried: SmallVec<[u32; 4]>,
    /// When the first attempt was asked for.
    since: Millis,
    /// Results that were refused.
    refusals: u32,
    /// Primaries, each in one life of it, that looked at their own replica and found no byte.
    denials: SmallVec<[(u32, u64); 4]>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Recoveries {
    running: BTreeMap<BlockId, Recovery>,
    cursor: BlockId,
}

impl Recoveries {
    /// Whoever follows orders nothing. What was handed goes on.
    pub(crate) fn unassign_all(&mut self) {
        for recovery in self.running.values_mut() {
            if let Attempt::Assigned { .. } = recovery.attempt {
                recovery.attempt = Attempt::Unassigned;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }
}

/// A node that has a part in a recovery: it is expected to have a replica, or told of one.
#[derive(Clone, Debug)]
struct Participant {
    target: Target,
    /// None if it has not registered.
    node: Option<u32>,
    /// The best that it told of.
    noted: Option<Noted>,
    bad: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    state: ReplicaState,
    length: u64,
}

impl Participant {
    fn is_sound(&self) -> bool {
        self.noted.is_some_and(Noted::is_sound)
    }
}

impl Noted {
    /// What survives a power cut stands first: who was restarted may have lost its last bytes.
    fn is_sound(self) -> bool {
        self.state != ReplicaState::Rwr
    }
}

impl Fleet {
    pub(crate) fn begin_recovery(&mut self, now: Millis, asked: Recover) {
        let Recover { block, recovery: id, targets, truncate } = asked;
        let old = self.recoveries.running.remove(&block.id);
        let (mut tried, mut since, mut refusals, mut denials) = (SmallVec::new(), now, 0, SmallVec::new());
        if let Some(old) = old {
            if old.id >= id {
                // Told twice, or late.
                self.recoveries.running.insert(block.id, old);
                return;
            }
            (tried, since, refusals, denials) = (old.tried, old.since, old.refusals, old.denials);
            tried.extend(old.attempt.primary().filter(|node| !tried.contains(node)));
        }
        let attempt = Attempt::Unassigned;
        let recovery = Recovery { block, id, targets, truncate, attempt, tried, since, refusals, denials };
        self.recoveries.running.insert(block.id, recovery);
        self.dirty.insert(block.id);
    }

    pub(crate) fn resume(&mut self, now: Millis, running: Recover) {
        let (block, id) = (running.block.id, running.recovery);
        // Told before, by a log that was replayed: whether it was handed out nobody knows any more.
        self.begin_recovery(now, running);
        if let Some(recovery) = self.recoveries.running.get_mut(&block)
            && recovery.id == id
            && matches!(recovery.attempt, Attempt::Unassigned | Attempt::Assigned { .. })
        {
            recovery.attempt = Attempt::Running { node: None, epoch: 0, ends: now + Millis(RESUME_MS) };
        }
    }

    pub(crate) fn end_recovery(&mut self, id: BlockId) {
        self.recoveries.running.remove(&id);
    }

    /// A recovery's end is in the log. Those whom its primary names have the block before their own word of
    /// it comes: who appends next is not refused for want of replicas. HDFS counts them at once, too
    /// (`FSNamesystem.commitBlockSynchronization`, `DatanodeStorageInfo.addBlock`).
    pub(crate) fn recovered(&mut self, block: Block, targets: &[Target]) {
        self.pipeline_changed(block);
        for target in targets {
            self.note_recovered(block, target);
        }
    }

    /// Not on a volume that has yet to report in full: what its node says then is newer than what the
    /// primary knew, and by silence it could not take the replica back.
    fn note_recovered(&mut self, block: Block, target: &Target) {
        let Some(index) = self.roster.index(&target.datanode) else { return };
        let Some(slot) = self.roster.find_slot(index, &target.storage) else { return };
        let volume = self.roster.slot(slot);
        if !volume.confirmed || volume.health != StorageHealth::Healthy {
            return;
        }
        if self.stamp_at(block.id, slot).is_some_and(|stamp| stamp >= block.stamp) {
            return; // Its own word was faster.
        }
        self.mark_recent(slot, block.id);
        // A node has a block once.
        for slot in self.roster.node(index).slots.clone() {
            self.drop_replica(block.id, slot);
        }
        let Block { id, stamp, length } = block;
        let (state, verdict) = (ReplicaState::Finalized, Verdict::Open);
        let before = self.map.len();
        self.map.put_odd(id, slot, OddReplica { stamp, length, state, verdict });
        self.roster.slot_mut(slot).replicas += self.map.len() - before;
    }

    /// Everyone who could have a replica of the block as it is now. Stale ones have no part in it, nor, until patience is
    /// over, those beside the pipeline under its very stamp: a client may append without a new one (hdfs-native does), and
    /// then such a node was away, and has the block as it was before.
    fn participants(&self, now: Millis, recovery: &Recovery) -> SmallVec<[Participant; 4]> {
        let patient = now.since(recovery.since).0 < PATIENCE_MS;
        let picky = patient && recovery.truncate.is_none() && !recovery.targets.is_empty();
        let id = recovery.block.id;
        let mut found: SmallVec<[Participant; 4]> = SmallVec::new();
        for entry in self.map.entries(id) {
            let slot = entry.slot();
            let odd = self.map.odd(id, slot);
            let stamp = self.stamp_at(id, slot);
            let index = self.roster.slot(slot).node;
            let stale = stamp.is_none_or(|stamp| stamp < recovery.block.stamp);
            let failed = self.roster.slot(slot).health == StorageHealth::Failed;
            let beside = picky && stamp == Some(recovery.block.stamp) && !self.is_expected(recovery, index);
            if stale || beside || failed || self.roster.try_node(index).is_none() {
                continue;
            }
            let noted = Noted {
                state: odd.map_or(ReplicaState::Finalized, |odd| odd.state),
                length: odd.map_or(recovery.block.length, |odd| odd.length),
            };
            let bad = odd.is_some_and(|odd| odd.verdict == Verdict::Corrupt);
            match found.iter_mut().find(|other| other.node == Some(index)) {
                Some(other) if noted.is_sound() => other.noted = Some(noted),
                Some(_) => {}
                None => found.push(Participant {
                    target: self.target(index, slot),
                    node: Some(index),
                    noted: Some(noted),
                    bad,
                }),
            }
        }
        for target in &recovery.targets {
            let node = self.roster.index(&target.datanode);
            // What it told of an older stamp was before the pipeline changed, or it was restarted: it is asked.
            let known = found.iter().any(|other| other.target.datanode == target.datanode);
            if !known {
                found.push(Participant { target: target.clone(), node, noted: None, bad: false });
            }
        }
        if !found.iter().all(|participant| participant.bad) {
            found.retain(|participant| !participant.bad);
        }
        found
    }

    /// Whether the node is one of the block's pipeline.
    fn is_expected(&self, recovery: &Recovery, node: u32) -> bool {
        recovery.targets.iter().any(|target| self.roster.index(&target.datanode) == Some(node))
    }

    /// Live, and all that it has was reported. Its word of a replica may have died with it: who told of none has beaten
    /// since the recovery began.
    fn is_settled(&self, recovery: &Recovery, participant: &Participant) -> bool {
        participant.node.is_some_and(|index| {
            let node = self.roster.node(index);
            let spoken = self.holds(recovery.block.id, index) || node.last_beat > recovery.since;
            spoken && node.state == NodeState::Live && self.roster.is_reported(index)
        })
    }

    fn is_dead(&self, participant: &Participant) -> bool {
        participant.node.is_some_and(|index| self.roster.node(index).state == NodeState::Dead)
    }

    /// Away, but not given up, and it may have all that was flushed: it was never restarted as far as is known, or
    /// has not registered since this NameNode started.
    fn may_have_all(&self, participant: &Participant) -> bool {
        participant.node.is_none()
            || participant.is_sound() && !self.is_usable(participant) && !self.is_dead(participant)
    }

    fn is_usable(&self, participant: &Participant) -> bool {
        participant.node.is_some_and(|index| self.roster.node(index).is_usable())
    }

    /// Who could be the primary now: a live node that told of a replica; if nobody at all did, or those
    /// who did stay away, any live one that could have it.
    fn primaries(&self, now: Millis, recovery: &Recovery) -> SmallVec<[u32; 4]> {
        let participants = self.participants(now, recovery);
        let waited = now.since(recovery.since).0;
        let awaited =
            |participant: &Participant| !self.is_settled(recovery, participant) && !self.is_dead(participant);
        if waited < SETTLE_MS && participants.iter().any(awaited) {
            return SmallVec::new();
        }
        // An attempt leaves replicas closed, with which the next one would begin: those who may have lost their last
        // bytes are not sent ahead of one that may have them, and cannot be asked.
        let sound_now = |p: &Participant| self.is_usable(p) && p.is_sound();
        if waited < PATIENCE_MS
            && recovery.truncate.is_none()
            && !participants.iter().any(sound_now)
            && participants.iter().any(|participant| self.may_have_all(participant))
        {
            return SmallVec::new();
        }
        let live = || participants.iter().filter(|participant| self.is_usable(participant));
        let nodes = |noted: bool| {
            live()
                .filter(|participant| participant.noted.is_some() || !noted)
                .filter_map(|p| p.node)
                .collect()
        };
        let holders: SmallVec<[u32; 4]> = nodes(true);
        let nobody = participants.iter().all(|participant| participant.noted.is_none());
        if holders.is_empty() && (nobody || waited >= PATIENCE_MS) { nodes(false) } else { holders }
    }

    /// Gives recoveries without a primary to one, and ends attempts whose time is over or whose primary
    /// is dead or began a new life.
    pub(crate) fn advance_recoveries(&mut self, now: Millis) {
        let from = self.recoveries.cursor;
        let running = &self.recoveries.running;
        let after = running.range(from..).map(|(id, _)| *id).take(ASSIGNS_PER_TICK);
        let mut batch: Vec<BlockId> = after.collect();
        self.recoveries.cursor = match batch.last() {
            Some(last) if batch.len() == ASSIGNS_PER_TICK => BlockId(last.0.wrapping_add(1)),
            _ => {
                let rest = ASSIGNS_PER_TICK - batch.len();
                batch.extend(running.range(..from).map(|(id, _)| *id).take(rest));
                BlockId(0)
            }
        };
        for id in batch {
            self.advance_recovery(now, id);
        }
    }

    fn advance_recovery(&mut self, now: Millis, id: BlockId) {
        let Some(recovery) = self.recoveries.running.get(&id) else { return };
        let attempt = match recovery.attempt {
            Attempt::Unassigned if self.gives_orders() => self.assign(now, id),
            Attempt::Assigned { node } => {
                let usable = self.roster.try_node(node).is_some_and(|node| node.is_usable());
                if usable { recovery.attempt } else { Attempt::Unassigned }
            }
            Attempt::Running { node, epoch, ends } => {
                let alive = node.is_none_or(|node| {
                    let node = self.roster.try_node(node);
                    node.is_some_and(|node| node.state != NodeState::Dead && node.epoch == epoch)
                });
                if !alive || now >= ends {
                    self.end_attempt(now, id, now);
                }
                return;
            }
            same => same,
        };
        if let Some(recovery) = self.recoveries.running.get_mut(&id) {
            recovery.attempt = attempt;
        }
    }

    /// An attempt came to nothing; another is asked for at `again`.
    fn end_attempt(&mut self, now: Millis, id: BlockId, again: Millis) {
        let Some(recovery) = self.recoveries.running.get_mut(&id) else { return };
        let Attempt::Running { node, .. } = recovery.attempt else { return };
        recovery.tried.extend(node.filter(|node| !recovery.tried.contains(node)));
        recovery.attempt = Attempt::Over { again };
        self.journal.add(now, Notice::RecoveryGivenUp { block: id, recovery: recovery.id });
    }

    /// The primary is the one with the fewest recoveries to begin; of these the one that has been tried
    /// least, then the one with the newest beat.
    fn assign(&mut self, now: Millis, id: BlockId) -> Attempt {
        let recovery = &self.recoveries.running[&id];
        let candidates = self.primaries(now, recovery);
        let mut fresh: SmallVec<[u32; 4]> =
            candidates.iter().copied().filter(|node| !recovery.tried.contains(node)).collect();
        let all_tried = fresh.is_empty();
        if all_tried {
            fresh = candidates;
        }
        let best = fresh.into_iter().min_by_key(|index| {
            let node = self.roster.node(*index);
            (node.recover_box.len() / RECOVERIES_PER_BEAT, std::cmp::Reverse(node.last_beat))
        });
        let Some(node) = best else { return Attempt::Unassigned };
        if all_tried && let Some(recovery) = self.recoveries.running.get_mut(&id) {
            recovery.tried.clear();
        }
        self.roster.node_mut(node).recover_box.push_back(id);
        Attempt::Assigned { node }
    }

    /// Hands a node the recoveries that it is the primary of. True if there are any.
    pub(crate) fn hand_recoveries(&mut self, now: Millis, index: u32, orders: &mut Vec<Order>) -> bool {
        let mut handed = 0;
        while handed < RECOVERIES_PER_BEAT
            && let Some(id) = self.roster.node_mut(index).recover_box.pop_front()
        {
            let Some(recovery) = self.recoveries.running.get(&id) else { continue };
            if recovery.attempt != (Attempt::Assigned { node: index }) {
                continue;
            }
            let attempt = if self.primaries(now, recovery).contains(&index) {
                orders.push(self.recovery_order(now, recovery, index));
                handed += 1;
                let primary = self.roster.node(index).info.id.uuid.clone();
                self.journal.add(now, Notice::RecoveryOrdered { block: id, primary, recovery: recovery.id });
                let node = self.roster.node(index);
                let span = node.stretched(Millis(ATTEMPT_MS), 0, &self.config);
                Attempt::Running { node: Some(index), epoch: node.epoch, ends: now + Millis(span) }
            } else {
                Attempt::Unassigned
            };
            if let Some(recovery) = self.recoveries.running.get_mut(&id) {
                recovery.attempt = attempt;
            }
        }
        handed > 0
    }

    /// Names those who live, the primary first. Suspect ones are left out if there are two others, as in
    /// HDFS: a primary that waits for a connection to them holds up the rest.
    fn recovery_order(&self, now: Millis, recovery: &Recovery, primary: u32) -> Order {
        let participants = self.participants(now, recovery);
        let state = |participant: &Participant| participant.node.map(|index| self.roster.node(index).state);
        let of = |wanted| participants.iter().filter(move |participant| state(participant) == Some(wanted));
        let mut chosen: SmallVec<[&Participant; 4]> = of(NodeState::Live).collect();
        if chosen.len() < 2 {
            chosen.extend(of(NodeState::Suspect));
        }
        chosen.sort_by_key(|participant| participant.node != Some(primary));
        Order::Recover {
            block: recovery.block,
            recovery: recovery.id,
            targets: chosen.into_iter().map(|participant| participant.target.clone()).collect(),
            truncate: recovery.truncate,
        }
    }

    pub(crate) fn list_overdue(&mut self, now: Millis, limit: usize) -> Vec<(BlockId, GenStamp)> {
        let mut overdue = Vec::new();
        for (id, recovery) in &mut self.recoveries.running {
            if overdue.len() == limit {
                break;
            }
            if let Attempt::Over { again } = &mut recovery.attempt
                && *again <= now
            {
                *again = now + Millis(PAUSE_MS);
                overdue.push((*id, recovery.id));
            }
        }
        overdue
    }

    pub(crate) fn judge_synchronization(
        &mut self,
        now: Millis,
        sync: &Synchronization<'_>,
    ) -> Result<(), Undecided> {
        let id = sync.block.id;
        let Some(recovery) = self.recoveries.running.get_mut(&id).filter(|known| known.id == sync.recovery)
        else {
            // One that is not ours: the namespace has the words for it.
            return Ok(());
        };
        if sync.delete
            && let Some(primary) = recovery.attempt.primary()
            && let Some(node) = self.roster.try_node(primary)
        {
            let denial = (primary, node.epoch);
            if !recovery.denials.contains(&denial) {
                recovery.denials.push(denial);
            }
        }
        let recovery = &self.recoveries.running[&id];
        let verdict = if sync.delete {
            self.judge_drop(now, recovery, sync)
        } else {
            self.judge_cut(now, recovery, sync)
        };
        if verdict.is_err() {
            self.fail_recovery(now, id, sync.recovery);
        }
        verdict
    }

    /// An attempt came to nothing: its primary has said so, or said what cannot be.
    pub(crate) fn fail_recovery(&mut self, now: Millis, id: BlockId, attempt: GenStamp) {
        let Some(recovery) = self.recoveries.running.get_mut(&id).filter(|known| known.id == attempt) else {
            return;
        };
        let pause = PAUSE_MS << recovery.refusals.min(PAUSE_DOUBLINGS_MAX);
        recovery.refusals += 1;
        self.end_attempt(now, id, now + Millis(pause));
    }

    /// A primary that found no byte. It speaks for all if it has a replica itself that was never cut by a
    /// power failure, for each replica with the block's stamp has all that was promised; else only if
    /// nobody has one, and nobody is away who could. A node that was the primary has looked: it may have
    /// reported bytes, before that, whose checksums were lost. Bytes that `updatePipeline` told of are given
    /// up only once patience is over and every node that could have them has looked in vain: they were
    /// flushed, not synced, and a power failure of the last node of a pipeline takes them.
    fn judge_drop(
        &self,
        now: Millis,
        recovery: &Recovery,
        sync: &Synchronization<'_>,
    ) -> Result<(), Undecided> {
        let block = sync.block;
        let primary = recovery.attempt.primary();
        let participants = self.participants(now, recovery);
        let speaks = participants.iter().any(|p| p.is_sound() && p.node.is_some() && p.node == primary);
        let patient = now.since(recovery.since).0 < PATIENCE_MS;
        let denies = |p: &Participant| {
            p.node.is_some_and(|node| recovery.denials.contains(&(node, self.roster.node(node).epoch)))
        };
        if block.length > 0 && (patient || !participants.iter().all(denies)) {
            return Err(Undecided::BytesPromised { block, recovery: sync.recovery });
        }
        for participant in participants.iter().filter(|p| !denies(p)) {
            let has = match participant.noted {
                Some(noted) if noted.length > 0 => patient || !self.is_dead(participant),
                // Told of as it began: how long it is now is not known.
                Some(noted) if noted.state == ReplicaState::Rbw => {
                    !speaks && (patient || !self.is_dead(participant))
                }
                Some(_) => false,
                None => patient && !speaks && !self.is_settled(recovery, participant),
            };
            if has {
                let holder = participant.target.datanode.clone();
                return Err(Undecided::BytesElsewhere { block, holder, recovery: sync.recovery });
            }
        }
        Ok(())
    }

    /// A primary that agreed with some on a length. Those who were restarted may have lost bytes in a
    /// power cut: they are not believed without those who were not, nor without one that has not registered
    /// since this NameNode started, of which nothing is known. And less than was promised is taken from nobody as
    /// long as somebody is away. (`updatePipeline` promises what was sent, not what was acknowledged, where the writer is
    /// hdfs-native.) Who was heard is not away, whatever it had.
    fn judge_cut(
        &self,
        now: Millis,
        recovery: &Recovery,
        sync: &Synchronization<'_>,
    ) -> Result<(), Undecided> {
        if recovery.truncate.is_some() || now.since(recovery.since).0 >= PATIENCE_MS {
            return Ok(());
        }
        let participants = self.participants(now, recovery);
        let took_part =
            |p: &Participant| sync.targets.iter().any(|target| target.datanode == p.target.datanode);
        let is_short = sync.length < sync.block.length;
        let unsound = !participants.iter().filter(|p| took_part(p)).any(Participant::is_sound);
        // If nothing is known of those who took part either, this NameNode has just started, and the attempt is older.
        let is_known = participants.iter().any(|p| took_part(p) && p.noted.is_some());
        let heard = |p: &Participant| sync.heard.contains(&p.target.datanode);
        let absent = participants.iter().filter(|p| !took_part(p) && !heard(p)).find(|p| {
            is_short && (p.noted.is_some() || !self.is_settled(recovery, p))
                || unsound && (p.is_sound() && !self.is_dead(p) || is_known && p.node.is_none())
        });
        match absent {
            None => Ok(()),
            Some(absent) => Err(Undecided::Cut {
                block: sync.block,
                absent: absent.target.datanode.clone(),
                recovery: sync.recovery,
                length: sync.length,
            }),
        }
    }
}
