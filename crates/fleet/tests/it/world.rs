//! A small cluster of pretended DataNodes around a real `Fleet`, in virtual time. It does what it is
//! ordered, drops it or lies, as told, and checks each order against what is really on the disks.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash, Hasher};

use crate::writing::{RecoveryJob, Writing};
use mobula_fleet::{
    BlockChange, BlockTable, Fleet, FleetConfig, Heartbeat, NodeState, Order, PlacementRequest,
    ReceivedDeleted, Registration, ReplicaNews, TableBlock,
};
use mobula_types::{
    Block, BlockId, DatanodeId, DatanodeUuid, GenStamp, Millis, ReplicaState, StorageReport, StorageState,
    StorageType, StorageUuid, StoredReplica, Target,
};

pub const STEP_MS: u64 = 100;
pub const DISK_BYTES: u64 = 1 << 40;

#[derive(Debug, Default)]
pub struct Table {
    pub rows: BTreeMap<BlockId, TableBlock>,
    pub next: u64,
}

impl BlockTable for Table {
    fn block(&self, id: BlockId) -> Option<TableBlock> {
        self.rows.get(&id).copied()
    }

    fn blocks_from(&self, from: BlockId, count: usize) -> Vec<TableBlock> {
        self.rows.range(from..).take(count).map(|(_, row)| *row).collect()
    }

    fn next_block(&self) -> BlockId {
        BlockId(self.next)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    pub block: Block,
    pub state: ReplicaState,
    /// Its bytes are bad, whoever knows it.
    pub rotten: bool,
    /// The highest recovery that it took part in: it refuses lower ones.
    pub recovery: GenStamp,
}

#[derive(Debug, Default)]
pub struct Volume {
    pub failed: bool,
    /// A heartbeat has said so: before that nobody can know.
    pub told_failed: bool,
    pub replicas: BTreeMap<BlockId, Replica>,
}

#[derive(Debug)]
pub struct Dn {
    pub up: bool,
    /// Cut off: it runs, but nothing goes through.
    pub cut: bool,
    pub registered: bool,
    pub reported: bool,
    pub beat_ms: u64,
    pub next_beat: u64,
    pub volumes: Vec<Volume>,
    pub news: Vec<(usize, ReceivedDeleted)>,
    pub report: Option<(u64, u64, Vec<Vec<StoredReplica>>)>,
    /// Its RECEIVED of copies are lost.
    pub mute: bool,
    /// It ignores orders.
    pub deaf: bool,
    pub remaining: u64,
    /// Time from a lease to the arrival of its report.
    pub report_delay: u64,
    /// Copies under way: due, what, to whom.
    pub jobs: Vec<(u64, Block, Vec<Target>)>,
    /// Recoveries under way.
    pub recoveries: Vec<RecoveryJob>,
    /// It dies in the middle of its next recovery: when it has updated one replica.
    pub breaks: bool,
    pub life: u64,
}

pub struct World {
    pub fleet: Fleet,
    pub now: u64,
    pub table: Table,
    pub nodes: Vec<Dn>,
    pub step_ms: u64,
    pub copy_ms: u64,
    pub told_corrupt: BTreeSet<(BlockId, usize)>,
    pub retell: BTreeSet<(BlockId, usize)>,
    pub copies: u64,
    pub deletes: u64,
    pub seed: u64,
    pub config: FleetConfig,
    pub trace: u64,
    pub ordered_copies: u64,
    pub writing: Writing,
}

pub fn uuid(index: usize) -> DatanodeUuid {
    format!("dn{}", index + 1).as_str().into()
}

pub fn storage(index: usize, volume: usize) -> StorageUuid {
    format!("DS-{}-{}", index + 1, volume + 1).as_str().into()
}

impl World {
    pub fn new(seed: u64, config: FleetConfig) -> World {
        let fleet = Fleet::new(config.clone(), seed, Millis(0));
        World {
            fleet,
            now: 0,
            table: Table { next: BlockId::FIRST.0, ..Table::default() },
            nodes: Vec::new(),
            step_ms: STEP_MS,
            copy_ms: 300,
            told_corrupt: BTreeSet::new(),
            retell: BTreeSet::new(),
            copies: 0,
            deletes: 0,
            seed,
            config,
            trace: 0,
            ordered_copies: 0,
            writing: Writing::default(),
        }
    }

    /// With so many nodes of one volume, which have reported.
    pub fn with_nodes(seed: u64, nodes: usize) -> World {
        let mut world = World::new(seed, FleetConfig::default());
        for _ in 0..nodes {
            world.add_node(1);
        }
        world.advance(5_000);
        world
    }

    pub fn add_node(&mut self, volumes: usize) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Dn {
            up: true,
            cut: false,
            registered: false,
            reported: false,
            beat_ms: 1_000,
            next_beat: self.now + (index as u64 * 137) % 1_000,
            volumes: (0..volumes).map(|_| Volume::default()).collect(),
            news: Vec::new(),
            report: None,
            mute: false,
            deaf: false,
            remaining: DISK_BYTES,
            report_delay: 0,
            jobs: Vec::new(),
            recoveries: Vec::new(),
            breaks: false,
            life: 0,
        });
        index
    }

    fn registration(&self, index: usize) -> Registration {
        Registration {
            id: DatanodeId {
                ip: format!("10.0.{}.{}", index / 250, index % 250 + 1),
                host_name: format!("host{}", index + 1),
                uuid: uuid(index),
                xfer_port: 9866,
                info_port: 0,
                info_secure_port: 0,
                ipc_port: 9867,
            },
            software_version: "3.5.0".into(),
        }
    }

    pub fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += self.step_ms;
            self.step();
        }
    }

    pub fn step(&mut self) {
        for index in 0..self.nodes.len() {
            self.run_jobs(index);
            self.run_recoveries(index);
            if !self.nodes[index].up || self.nodes[index].cut {
                continue;
            }
            self.send_news(index);
            self.send_report(index);
            if self.nodes[index].next_beat <= self.now {
                let node = &mut self.nodes[index];
                node.next_beat = self.now + node.beat_ms;
                self.beat(index);
            }
        }
        self.lead_writers();
        let now = Millis(self.now);
        let mut calls = 0;
        while self.fleet.tick(now, &self.table) {
            calls += 1;
            assert!(calls < 1_000, "it never has enough: {:?}", self.fleet.health());
        }
    }

    fn beat(&mut self, index: usize) {
        let now = Millis(self.now);
        if !self.nodes[index].registered {
            let registration = self.registration(index);
            if self.fleet.on_register(now, registration).is_err() {
                return;
            }
            self.nodes[index].registered = true;
            self.nodes[index].reported = false;
            self.nodes[index].report = None;
        }
        for volume in &mut self.nodes[index].volumes {
            volume.told_failed = volume.failed;
        }
        let node = &self.nodes[index];
        let storages = node
            .volumes
            .iter()
            .enumerate()
            .map(|(number, volume)| StorageReport {
                storage: storage(index, number),
                kind: StorageType::Disk,
                state: StorageState::Normal,
                failed: volume.failed,
                capacity: DISK_BYTES,
                dfs_used: volume.replicas.len() as u64,
                remaining: node.remaining,
                pool_used: volume.replicas.len() as u64,
                non_dfs_used: 0,
            })
            .collect();
        let heartbeat = Heartbeat {
            node: uuid(index),
            storages,
            transfers: node.jobs.len() as u32,
            xceivers: 0,
            failed_volumes: node.volumes.iter().filter(|volume| volume.failed).count() as u32,
            wants_report_lease: !node.reported && node.report.is_none(),
            cache_capacity: 0,
            cache_used: 0,
        };
        let answer = self.fleet.on_heartbeat(now, heartbeat, &self.table);
        if answer.report_lease != 0 {
            let node = &mut self.nodes[index];
            node.report = Some((self.now + node.report_delay, answer.report_lease, snapshot(node)));
        }
        let alone = answer.orders.len() == 1;
        assert!(alone || !answer.orders.contains(&Order::Register), "{:?}", answer.orders);
        for order in answer.orders {
            self.obey(index, order);
        }
    }

    fn obey(&mut self, index: usize, order: Order) {
        self.hash_order(index, &order);
        match order {
            Order::Register => {
                self.nodes[index].registered = false;
                self.nodes[index].next_beat = self.now;
            }
            Order::Copy { block, targets } => {
                self.ordered_copies += targets.len() as u64;
                self.check_copy(index, block, &targets);
                if !self.nodes[index].deaf {
                    let due = self.now + self.copy_ms;
                    self.nodes[index].jobs.push((due, block, targets));
                }
            }
            Order::Recover { block, recovery, targets, truncate } => {
                self.take_recovery(index, RecoveryJob { due: 0, block, recovery, targets, truncate });
            }
            Order::Delete { blocks } => {
                if self.nodes[index].deaf {
                    return;
                }
                for block in blocks {
                    self.delete(index, block);
                }
            }
        }
    }

    fn hash_order(&mut self, index: usize, order: &Order) {
        let mut hasher = foldhash::fast::FixedState::with_seed(7).build_hasher();
        (self.trace, self.now, index).hash(&mut hasher);
        format!("{order:?}").hash(&mut hasher);
        self.trace = hasher.finish();
    }

    /// A copy is ordered from a live source only, that nobody has called corrupt.
    fn check_copy(&self, index: usize, block: Block, targets: &[Target]) {
        assert!(!self.told_corrupt.contains(&(block.id, index)), "copy of {block} from its corrupt replica");
        assert_eq!(
            self.fleet.node_state(&uuid(index)),
            Some(NodeState::Live),
            "copy from a node that is not live"
        );
        for target in targets {
            let state = self.fleet.node_state(&target.datanode);
            assert_eq!(state, Some(NodeState::Live), "copy of {block} to {}", target.datanode);
            assert_ne!(target.datanode, uuid(index), "copy of {block} to itself");
        }
    }

    /// Deletes, and checks that a good replica is left somewhere if a file has the block.
    fn delete(&mut self, index: usize, block: Block) {
        let mut gone = Vec::new();
        for (number, volume) in self.nodes[index].volumes.iter_mut().enumerate() {
            let same = volume.replicas.get(&block.id).is_some_and(|r| r.block.stamp == block.stamp);
            if !volume.failed && same {
                gone.extend(volume.replicas.remove(&block.id).map(|replica| (number, replica)));
            }
        }
        if let Some(row) = self.table.rows.get(&block.id) {
            assert!(row.committed, "{block} is being written and may not be deleted");
            // One on a node that is taken for dead is no reason to do without this one.
            let counts = |at: usize| self.fleet.node_state(&uuid(at)).is_some_and(|it| it != NodeState::Dead);
            assert!(
                self.good_on_disks(row).any(counts),
                "deleted the last good replica of {block} from dn{}",
                index + 1
            );
        }
        for (number, replica) in gone {
            self.deletes += 1;
            self.told_corrupt.remove(&(block.id, index));
            let news =
                ReceivedDeleted { block: replica.block, news: ReplicaNews::Deleted, delete_hint: None };
            self.nodes[index].news.push((number, news));
        }
    }

    /// Nodes, up or not, with a replica that is really good.
    pub fn good_on_disks<'a>(&'a self, row: &'a TableBlock) -> impl Iterator<Item = usize> + 'a {
        let good = |replica: &Replica| {
            !replica.rotten && replica.block == row.block && replica.state == ReplicaState::Finalized
        };
        (0..self.nodes.len()).filter(move |index| {
            self.nodes[*index]
                .volumes
                .iter()
                .any(|volume| !volume.told_failed && volume.replicas.get(&row.block.id).is_some_and(good))
        })
    }

    fn run_jobs(&mut self, index: usize) {
        if !self.nodes[index].up {
            return;
        }
        let jobs = std::mem::take(&mut self.nodes[index].jobs);
        for (due, block, targets) in jobs {
            if due > self.now {
                self.nodes[index].jobs.push((due, block, targets));
                continue;
            }
            let found = self.find(index, block.id);
            match found {
                Some(replica) if replica.rotten => self.call_bad(index, block),
                Some(replica) if replica.block == block => {
                    for target in targets {
                        self.receive_copy(block, &target);
                    }
                }
                _ => {}
            }
        }
    }

    pub fn find(&self, index: usize, id: BlockId) -> Option<Replica> {
        self.nodes[index].volumes.iter().find_map(|volume| volume.replicas.get(&id).copied())
    }

    fn receive_copy(&mut self, block: Block, target: &Target) {
        let index = self.index_of(&target.datanode);
        let there = self.find(index, block.id).is_some();
        let node = &mut self.nodes[index];
        let volume = node.volumes.iter().position(|volume| !volume.failed);
        let full = node.remaining == 0;
        let (true, false, false, false, Some(number)) = (node.up, node.cut, full, there, volume) else {
            return;
        };
        node.volumes[number].replicas.insert(
            block.id,
            Replica { block, state: ReplicaState::Finalized, rotten: false, recovery: GenStamp(0) },
        );
        self.copies += 1;
        self.told_corrupt.remove(&(block.id, index));
        if !node.mute {
            let news = ReceivedDeleted { block, news: ReplicaNews::Received, delete_hint: None };
            node.news.push((number, news));
        }
    }

    pub fn index_of(&self, node: &DatanodeUuid) -> usize {
        node.as_str()[2..].parse::<usize>().unwrap() - 1
    }

    /// The bytes of a node's replica go bad; nobody knows yet.
    pub fn rot(&mut self, index: usize, id: BlockId) {
        for volume in &mut self.nodes[index].volumes {
            if let Some(replica) = volume.replicas.get_mut(&id) {
                replica.rotten = true;
            }
        }
    }

    /// A reader or the node itself finds the replica bad.
    pub fn call_bad(&mut self, index: usize, block: Block) {
        // A NameNode that has just started knows no such node: nobody listens.
        if self.fleet.node(&uuid(index)).is_none() {
            self.retell.insert((block.id, index));
            return;
        }
        self.told_corrupt.insert((block.id, index));
        let volumes = &self.nodes[index].volumes;
        let number = volumes.iter().position(|volume| volume.replicas.contains_key(&block.id));
        let at = (uuid(index), number.map(|number| storage(index, number)));
        self.fleet.on_bad_replica(Millis(self.now), block, &[at], &self.table);
    }

    fn send_news(&mut self, index: usize) {
        if !self.nodes[index].registered {
            return;
        }
        let news = std::mem::take(&mut self.nodes[index].news);
        for (number, item) in news {
            let storage = storage(index, number);
            self.fleet.on_received_deleted(Millis(self.now), &uuid(index), &storage, &[item], &self.table);
        }
    }

    fn send_report(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.report.as_ref().is_none_or(|(due, ..)| *due > self.now) {
            return;
        }
        let Some((_, lease, volumes)) = node.report.take() else { return };
        let count = volumes.len();
        let mut taken = true;
        for (number, replicas) in volumes.into_iter().enumerate() {
            if self.nodes[index].volumes[number].failed {
                continue;
            }
            let last = number + 1 == count;
            let now = Millis(self.now);
            let (node, storage) = (uuid(index), storage(index, number));
            taken &=
                self.fleet.on_full_report(now, &node, &storage, &replicas, lease, last, &self.table).is_ok();
        }
        self.nodes[index].reported = taken;
        let again: Vec<_> = self.retell.iter().copied().filter(|(_, node)| taken && *node == index).collect();
        for key in again {
            self.retell.remove(&key);
            if let Some(replica) = self.find(index, key.0).filter(|replica| replica.rotten) {
                self.call_bad(index, replica.block);
            }
        }
    }

    /// Writes a block through a pipeline: chosen by the fleet, or given.
    pub fn write(&mut self, replication: u16, length: u64, on: Option<Vec<usize>>) -> Option<Block> {
        let block = self.allocate(replication, on.as_deref().unwrap_or(&[]))?;
        let nodes = match on {
            Some(nodes) => nodes,
            None => {
                let request =
                    PlacementRequest { replicas: replication, block_size: length, ..Default::default() };
                let placement = self.fleet.place(Millis(self.now), &request);
                placement.targets.iter().map(|target| self.index_of(&target.datanode)).collect()
            }
        };
        if nodes.is_empty() {
            self.table.rows.remove(&block.id);
            return None;
        }
        let block = Block { length, ..block };
        for index in nodes {
            self.store(index, 0, block, ReplicaState::Finalized, true);
        }
        self.commit(block, replication);
        Some(block)
    }

    pub fn allocate(&mut self, replication: u16, on: &[usize]) -> Option<Block> {
        let id = BlockId(self.table.next);
        self.table.next += 1;
        let block = Block { id, stamp: GenStamp(id.0 - BlockId::FIRST.0 + 1001), length: 0 };
        self.table.rows.insert(id, TableBlock { block, replication, committed: false });
        let targets = on
            .iter()
            .map(|index| Target {
                datanode: uuid(*index),
                storage: storage(*index, 0),
                kind: StorageType::Disk,
            })
            .collect();
        self.fleet.on_block_change(Millis(self.now), BlockChange::Allocated { block, replication, targets });
        Some(block)
    }

    pub fn commit(&mut self, block: Block, replication: u16) {
        self.table.rows.insert(block.id, TableBlock { block, replication, committed: true });
        self.fleet.on_block_change(Millis(self.now), BlockChange::Committed { block, replication });
    }

    pub fn store(&mut self, index: usize, volume: usize, block: Block, state: ReplicaState, tell: bool) {
        self.nodes[index].volumes[volume]
            .replicas
            .insert(block.id, Replica { block, state, rotten: false, recovery: GenStamp(0) });
        if tell {
            let news =
                if state == ReplicaState::Finalized { ReplicaNews::Received } else { ReplicaNews::Receiving };
            self.nodes[index].news.push((volume, ReceivedDeleted { block, news, delete_hint: None }));
        }
    }

    pub fn set_replication(&mut self, id: BlockId, replication: u16) {
        if let Some(row) = self.table.rows.get_mut(&id) {
            row.replication = replication;
            self.fleet.on_block_change(Millis(self.now), BlockChange::Replication { block: id, replication });
        }
    }

    pub fn remove(&mut self, id: BlockId) {
        if self.table.rows.remove(&id).is_some() {
            self.fleet.on_block_change(Millis(self.now), BlockChange::Removed { block: id });
        }
    }

    pub fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.up = false;
        node.life += 1;
        node.jobs.clear();
        node.recoveries.clear();
        node.news.clear();
        node.report = None;
        // What was being written waits for recovery when it comes back.
        for replica in node.volumes.iter_mut().flat_map(|volume| volume.replicas.values_mut()) {
            if replica.state == ReplicaState::Rbw {
                replica.state = ReplicaState::Rwr;
            }
            // That it takes part in a recovery is known in memory only.
            replica.recovery = GenStamp(0);
        }
    }

    pub fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.up {
            node.up = true;
            node.registered = false;
            node.next_beat = self.now;
        }
    }

    pub fn restart_namenode(&mut self) {
        self.seed += 1;
        self.fleet = Fleet::new(self.config.clone(), self.seed, Millis(self.now));
        // Which replicas are bad is soft state: the nodes that hold them tell again when they report.
        self.retell.append(&mut self.told_corrupt);
        self.resume_recoveries();
    }

    /// Every committed block has min(target, nodes) replicas that nobody called corrupt, on live nodes.
    pub fn is_healed(&self) -> Result<(), String> {
        let live = |index: &usize| {
            self.nodes[*index].up && self.fleet.node_state(&uuid(*index)) == Some(NodeState::Live)
        };
        let nodes = (0..self.nodes.len()).filter(live).count();
        for row in self.table.rows.values().filter(|row| row.committed) {
            let good = (0..self.nodes.len())
                .filter(live)
                .filter(|index| {
                    !self.told_corrupt.contains(&(row.block.id, *index))
                        && self.nodes[*index].volumes.iter().any(|volume| {
                            !volume.failed
                                && volume.replicas.get(&row.block.id).is_some_and(|r| r.block == row.block)
                        })
                })
                .count();
            if good < usize::from(row.replication).min(nodes) {
                return Err(format!("{} has {good} of {} on {nodes} nodes", row.block, row.replication));
            }
        }
        Ok(())
    }
}

fn snapshot(node: &Dn) -> Vec<Vec<StoredReplica>> {
    let volume = |volume: &Volume| {
        volume.replicas.values().map(|r| StoredReplica { block: r.block, state: r.state }).collect()
    };
    node.volumes.iter().map(volume).collect()
}
