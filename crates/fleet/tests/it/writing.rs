//! Writers and recoveries in the pretended cluster: pipelines that shrink, blocks that are opened
//! again, primaries that ask the others, die in the middle or cannot reach them. It knows what each
//! writer was promised, and checks that no recovery cuts it off (CASES 16 to 20, 34, 35).

use std::collections::{BTreeMap, BTreeSet};

use mobula_fleet::{BlockChange, Notice, Recover, Synchronization, TableBlock};
use mobula_types::{Block, BlockId, GenStamp, Millis, ReplicaState, StorageType, Target};

use crate::world::{World, storage, uuid};

/// What a primary takes from the others' answers to its own.
const RECOVERY_MS: u64 = 200;

#[derive(Debug, Default)]
pub struct Writing {
    /// Nodes of each open block's pipeline.
    pub pipelines: BTreeMap<BlockId, Vec<usize>>,
    /// Bytes that were acknowledged after hflush.
    pub promised: BTreeMap<BlockId, u64>,
    /// The running recovery, as the namespace has it.
    pub recovering: BTreeMap<BlockId, (GenStamp, Option<u64>)>,
    /// Pairs of nodes that cannot reach each other, while the NameNode reaches both.
    pub parted: BTreeSet<(usize, usize)>,
    /// Writers that wait for `complete` to say true.
    pub closing: BTreeMap<BlockId, Block>,
    pub stamps: u64,
    pub recovered: u64,
    pub refused: u64,
    /// Orders by id: nobody else may be given the same.
    pub ordered: BTreeMap<GenStamp, usize>,
}

/// How a client goes on after `append`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// As Java's does.
    NewStamp,
    /// As hdfs-native does.
    SameStamp,
    /// It is gone.
    NeverBegun,
}

#[derive(Clone, Debug)]
pub struct RecoveryJob {
    pub due: u64,
    pub block: Block,
    pub recovery: GenStamp,
    pub targets: Vec<Target>,
    pub truncate: Option<u64>,
}

fn target(index: usize) -> Target {
    Target { datanode: uuid(index), storage: storage(index, 0), kind: StorageType::Disk }
}

impl World {
    /// Stamps above all that `allocate` gives out.
    fn next_stamp(&mut self) -> GenStamp {
        self.writing.stamps += 1;
        GenStamp(1_000_000 + self.writing.stamps)
    }

    fn row(&self, id: BlockId) -> TableBlock {
        self.table.rows[&id]
    }

    pub fn expected(&self, id: BlockId) -> Vec<Target> {
        self.writing.pipelines.get(&id).into_iter().flatten().map(|index| target(*index)).collect()
    }

    fn reaches(&self, index: usize) -> bool {
        self.nodes[index].up && !self.nodes[index].cut
    }

    fn meet(&self, one: usize, other: usize) -> bool {
        let pair = (one.min(other), one.max(other));
        one == other || self.reaches(one) && self.reaches(other) && !self.writing.parted.contains(&pair)
    }

    fn replica_mut(&mut self, index: usize, id: BlockId) -> Option<(usize, &mut crate::world::Replica)> {
        let volumes = self.nodes[index].volumes.iter_mut().enumerate().filter(|(_, volume)| !volume.failed);
        volumes.filter_map(|(number, volume)| Some((number, volume.replicas.get_mut(&id)?))).next()
    }

    /// A new block at these nodes.
    pub fn open_block(&mut self, replication: u16, on: Vec<usize>) -> Block {
        let block = self.allocate(replication, &on).unwrap();
        for index in &on {
            self.store(*index, 0, block, ReplicaState::Rbw, true);
        }
        self.writing.pipelines.insert(block.id, on);
        block
    }

    pub fn is_open(&self, id: BlockId) -> bool {
        self.table.rows.get(&id).is_some_and(|row| !row.committed)
    }

    fn is_writable(&self, id: BlockId) -> bool {
        self.is_open(id)
            && !self.writing.recovering.contains_key(&id)
            && !self.writing.closing.contains_key(&id)
            && self.writing.pipelines.contains_key(&id)
    }

    /// Writes up to `length` and waits for the acknowledgement: with what is left of the pipeline, under
    /// a new stamp, if a node of it is gone. False if none is left.
    pub fn flush(&mut self, id: BlockId, length: u64) -> bool {
        if !self.is_writable(id) {
            return false;
        }
        let row = self.row(id);
        let pipeline = self.writing.pipelines[&id].clone();
        let mut alive = pipeline.clone();
        alive.retain(|index| {
            self.reaches(*index)
                && self.replica_mut(*index, id).is_some_and(|(_, replica)| {
                    replica.block.stamp == row.block.stamp && replica.state == ReplicaState::Rbw
                })
        });
        if alive.is_empty() {
            return false;
        }
        let promised = self.writing.promised.get(&id).copied().unwrap_or(0).max(length);
        if alive.len() == pipeline.len() {
            for index in alive {
                let (_, replica) = self.replica_mut(index, id).unwrap();
                replica.block.length = promised;
            }
        } else {
            let stamp = self.next_stamp();
            // As HDFS's DataNodes, which tell nobody of a streaming recovery: the writer does.
            self.move_pipeline(Block { stamp, length: promised, id }, alive, false);
        }
        self.writing.promised.insert(id, promised);
        true
    }

    /// `updatePipeline`: these nodes go on under this stamp, and may tell of it.
    fn move_pipeline(&mut self, block: Block, nodes: Vec<usize>, tell: bool) {
        for index in &nodes {
            let volume = self.replica_mut(*index, block.id).map_or(0, |(volume, _)| volume);
            self.store(*index, volume, block, ReplicaState::Rbw, tell);
        }
        let row = self.table.rows.get_mut(&block.id).unwrap();
        row.block = block;
        let row = *row;
        self.writing.pipelines.insert(block.id, nodes);
        let targets = self.expected(block.id);
        self.fleet.on_block_change(Millis(self.now), BlockChange::Pipeline { block: row.block, targets });
    }

    /// `append`: opens a committed block again, and sets up its pipeline as `how` says.
    pub fn append(&mut self, id: BlockId, how: Append) -> bool {
        let row = self.row(id);
        if !row.committed {
            return false;
        }
        let targets = self.fleet.good_targets(row.block);
        let nodes: Vec<usize> = targets.iter().map(|target| self.index_of(&target.datanode)).collect();
        let nodes: Vec<usize> = nodes
            .into_iter()
            .filter(|index| {
                self.replica_mut(*index, id).is_some_and(|(_, r)| r.block == row.block && !r.rotten)
            })
            .collect();
        if nodes.is_empty() {
            return false;
        }
        self.reopen(row, nodes.clone());
        let alive: Vec<usize> = nodes.into_iter().filter(|index| self.reaches(*index)).collect();
        match how {
            Append::NewStamp if !alive.is_empty() => {
                let stamp = self.next_stamp();
                self.move_pipeline(Block { stamp, ..row.block }, alive, true);
            }
            Append::SameStamp => {
                for index in alive {
                    let (volume, _) = self.replica_mut(index, id).unwrap();
                    self.store(index, volume, row.block, ReplicaState::Rbw, true);
                }
            }
            Append::NewStamp | Append::NeverBegun => {}
        }
        true
    }

    fn reopen(&mut self, row: TableBlock, nodes: Vec<usize>) {
        let id = row.block.id;
        self.table.rows.insert(id, TableBlock { committed: false, ..row });
        self.writing.promised.insert(id, row.block.length);
        self.writing.pipelines.insert(id, nodes);
        let targets = self.expected(id);
        let change = BlockChange::Reopened { block: row.block, replication: row.replication, targets };
        self.fleet.on_block_change(Millis(self.now), change);
    }

    /// `truncate` into the block.
    pub fn truncate(&mut self, id: BlockId, length: u64) -> bool {
        let row = self.row(id);
        if !row.committed || length >= row.block.length {
            return false;
        }
        let targets = self.fleet.good_targets(row.block);
        if targets.is_empty() {
            return false;
        }
        let nodes = targets.iter().map(|target| self.index_of(&target.datanode)).collect();
        self.reopen(row, nodes);
        self.writing.promised.insert(id, length);
        self.begin(id, Some(length));
        true
    }

    /// The writer closes: its pipeline finalizes, and it asks until a replica is known.
    pub fn close_block(&mut self, id: BlockId) -> bool {
        if !self.is_writable(id) {
            return false;
        }
        let length = self.writing.promised.get(&id).copied().unwrap_or(0);
        if length == 0 || !self.flush(id, length) {
            return false;
        }
        let block = Block { length, ..self.row(id).block };
        for index in self.writing.pipelines[&id].clone() {
            let volume = self.replica_mut(index, id).map_or(0, |(volume, _)| volume);
            self.store(index, volume, block, ReplicaState::Finalized, true);
        }
        self.writing.closing.insert(id, block);
        true
    }

    /// The writer is gone, and its lease ran out.
    pub fn recover(&mut self, id: BlockId) {
        if self.is_open(id) && !self.writing.recovering.contains_key(&id) {
            self.writing.closing.remove(&id);
            self.begin(id, None);
        }
    }

    fn begin(&mut self, id: BlockId, truncate: Option<u64>) {
        let recovery = self.next_stamp();
        self.writing.recovering.insert(id, (recovery, truncate));
        let (block, targets) = (self.row(id).block, self.expected(id));
        let change = BlockChange::Recover(Recover { block, recovery, targets, truncate });
        self.fleet.on_block_change(Millis(self.now), change);
    }

    /// After a start of the NameNode.
    pub fn resume_recoveries(&mut self) {
        for (id, (recovery, truncate)) in self.writing.recovering.clone() {
            let (block, targets) = (self.row(id).block, self.expected(id));
            self.fleet.resume_recovery(Millis(self.now), Recover { block, recovery, targets, truncate });
        }
    }

    /// What the NameNode does each tick for open files.
    pub fn lead_writers(&mut self) {
        for (id, attempt) in self.fleet.overdue_recoveries(Millis(self.now), 100) {
            let Some((running, truncate)) = self.writing.recovering.get(&id).copied() else {
                panic!("recovery {attempt} of {id} is over, and the fleet does not know")
            };
            assert_eq!(running, attempt, "the fleet has the recovery that the namespace has");
            self.begin(id, truncate);
        }
        for (id, block) in self.writing.closing.clone() {
            if self.fleet.finalized(block) > 0 {
                self.writing.closing.remove(&id);
                self.commit_written(block);
            }
        }
    }

    fn commit_written(&mut self, block: Block) {
        let promised = self.writing.promised.get(&block.id).copied().unwrap_or(0);
        assert!(block.length >= promised, "{block} has {} of {promised} promised bytes", block.length);
        self.writing.pipelines.remove(&block.id);
        self.writing.recovering.remove(&block.id);
        self.commit(block, self.row(block.id).replication);
    }

    pub fn take_recovery(&mut self, index: usize, job: RecoveryJob) {
        let known = self.writing.recovering.get(&job.block.id).map(|(id, _)| *id);
        assert_eq!(known, Some(job.recovery), "the order is for the running recovery");
        assert!(job.targets.iter().any(|target| target.datanode == uuid(index)), "the primary has a part");
        let twice = self.writing.ordered.insert(job.recovery, index);
        assert_eq!(twice, None, "recovery {} has two primaries", job.recovery);
        if !self.nodes[index].deaf {
            let due = self.now + RECOVERY_MS;
            self.nodes[index].recoveries.push(RecoveryJob { due, ..job });
        }
    }

    pub fn run_recoveries(&mut self, index: usize) {
        if !self.nodes[index].up {
            return;
        }
        for job in std::mem::take(&mut self.nodes[index].recoveries) {
            if job.due > self.now {
                self.nodes[index].recoveries.push(job);
            } else {
                self.recover_as_primary(index, &job);
            }
        }
    }

    /// `BlockRecoveryWorker`, as Apache's DataNodes have it.
    fn recover_as_primary(&mut self, primary: usize, job: &RecoveryJob) {
        let id = job.block.id;
        let mut found: Vec<(usize, ReplicaState, u64)> = Vec::new();
        let mut errors = 0;
        for target in &job.targets {
            let index = self.index_of(&target.datanode);
            if !self.meet(primary, index) {
                errors += 1;
                continue;
            }
            let Some((_, replica)) = self.replica_mut(index, id) else { continue };
            if replica.recovery >= job.recovery {
                return; // Another one, later than this.
            }
            if replica.block.stamp >= job.recovery {
                errors += 1;
                continue;
            }
            replica.recovery = job.recovery;
            if replica.block.stamp >= job.block.stamp && replica.block.length > 0 {
                found.push((index, replica.state, replica.block.length));
            }
        }
        if errors == job.targets.len() {
            return;
        }
        let rank = |state: ReplicaState| match state {
            ReplicaState::Finalized => 0,
            ReplicaState::Rbw => 1,
            _ => 2,
        };
        let best = found.iter().map(|(_, state, _)| rank(*state)).min();
        found.retain(|(_, state, _)| Some(rank(*state)) == best);
        let length = found.iter().map(|(.., length)| *length).min().unwrap_or(0);
        let length = job.truncate.map_or(length, |truncate| truncate.min(length));
        let block = Block { id, stamp: job.recovery, length };
        let mut taken = Vec::new();
        for (index, ..) in found {
            let (volume, _) = self.replica_mut(index, id).unwrap();
            self.store(index, volume, block, ReplicaState::Finalized, true);
            let (_, replica) = self.replica_mut(index, id).unwrap();
            replica.recovery = job.recovery;
            taken.push(target(index));
            if self.nodes[primary].breaks {
                self.nodes[primary].breaks = false;
                return self.kill(primary);
            }
        }
        if self.reaches(primary) {
            self.synchronize(job, block, taken);
        }
    }

    /// `commitBlockSynchronization` at the NameNode.
    fn synchronize(&mut self, job: &RecoveryJob, block: Block, targets: Vec<Target>) {
        let id = block.id;
        if self.writing.recovering.get(&id).map(|(running, _)| *running) != Some(job.recovery) {
            return;
        }
        let delete = targets.is_empty();
        let sync = Synchronization {
            block: self.row(id).block,
            recovery: job.recovery,
            length: block.length,
            delete,
            targets: &targets,
            heard: &[],
        };
        if self.fleet.check_synchronization(Millis(self.now), &sync).is_err() {
            self.writing.refused += 1;
            return;
        }
        self.writing.recovered += 1;
        if delete {
            let promised = self.writing.promised.get(&id).copied().unwrap_or(0);
            let holders = self.holders_of_promised(id);
            assert!(
                promised == 0 || holders.is_empty(),
                "{block} was dropped, its writer was promised {promised} bytes, and {holders:?} have some"
            );
            self.writing.recovering.remove(&id);
            self.writing.pipelines.remove(&id);
            self.remove(id);
        } else {
            let change = BlockChange::Recovered { block, targets };
            self.fleet.on_block_change(Millis(self.now), change);
            self.commit_written(block);
        }
    }

    /// Nodes, also those that are down, whose disks have bytes of the block under its stamp.
    fn holders_of_promised(&mut self, id: BlockId) -> Vec<usize> {
        let stamp = self.row(id).block.stamp;
        let has = |world: &mut World, index: usize| {
            let replica = world.replica_mut(index, id);
            replica.is_some_and(|(_, r)| r.block.stamp >= stamp && r.block.length > 0 && !r.rotten)
        };
        (0..self.nodes.len()).filter(|index| has(self, *index)).collect()
    }

    /// How often a primary was ordered, as the journal has it.
    pub fn recovery_orders(&self) -> usize {
        let notices = self.fleet.notices_since(0);
        notices.iter().filter(|(.., notice)| matches!(notice, Notice::RecoveryOrdered { .. })).count()
    }
}
