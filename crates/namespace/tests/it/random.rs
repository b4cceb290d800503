//! Random commands from a seed: small trees, few names, so that they meet.

use std::collections::VecDeque;

use mobula_namespace::{
    AddBlock, Append, Caller, Closable, Command, CommitBlockSynchronization, Create, FileBlock, LastBlock,
    Operation, Overwrite, Parents, RetryKey, RunningRecovery, Truncate, UpdatePipeline, View,
};
use mobula_types::{Block, BlockId, ClientId, GenStamp, HdfsPath, InodeId, Millis};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{START, path, superuser, target, user};

pub struct Random {
    pub rng: SmallRng,
    calls: i32,
    job: VecDeque<Step>,
}

enum Step {
    Create(HdfsPath),
    Add(HdfsPath),
    Complete(HdfsPath),
    Concat(HdfsPath, Vec<HdfsPath>),
    /// A small file under another name.
    Begin(HdfsPath),
    Finish(HdfsPath, HdfsPath),
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { rng: SmallRng::seed_from_u64(seed), calls: 0, job: VecDeque::new() }
    }

    pub fn path(&mut self) -> HdfsPath {
        let depth = self.rng.random_range(0..5);
        let names = ["a", "b", "c", "d"];
        let mut text = String::from("/");
        for _ in 0..depth {
            text.push('/');
            text.push_str(names[self.rng.random_range(0..names.len())]);
        }
        path(&text)
    }

    pub fn caller(&mut self) -> Caller {
        // Jobs are the superuser's.
        let least = if self.job.is_empty() || self.rng.random_bool(0.5) { 0 } else { 3 };
        match self.rng.random_range(least..6) {
            0 => user("alice", &["users", "staff"]),
            1 => user("bob", &["users"]),
            2 => user("carol", &["other"]),
            _ => superuser(),
        }
    }

    fn holder(&mut self) -> String {
        format!("c{}", self.rng.random_range(0..3))
    }

    fn parents(&mut self) -> Parents {
        if self.rng.random_bool(0.7) { Parents::Create } else { Parents::Require }
    }

    fn mode(&mut self) -> u16 {
        [0o777, 0o755, 0o700, 0o1777, 0o770, 0o500, 0o644, 0o070][self.rng.random_range(0..8)]
    }

    pub fn operation(&mut self, view: &View, files: &[InodeId], blocks: &[Block]) -> Operation {
        if self.rng.random_bool(0.5)
            && let Some(step) = self.job.pop_front()
        {
            return self.step(step, view);
        }
        match self.rng.random_range(0..3) {
            0 => self.seen(view, files, blocks),
            _ => self.asked(view, files, blocks),
        }
    }

    /// One of the open or recent files and blocks that the caller of this knows of.
    fn asked(&mut self, view: &View, files: &[InodeId], blocks: &[Block]) -> Operation {
        let file = match files.len() {
            0 => InodeId(99),
            count => files[self.rng.random_range(count.saturating_sub(6)..count)],
        };
        let block = match blocks.len() {
            0 => Block { id: BlockId(1), stamp: GenStamp(1), length: 0 },
            count => blocks[self.rng.random_range(count.saturating_sub(4)..count)],
        };
        // A writer knows its last block, most often.
        let block = match view.blocks_of(file).unwrap().last() {
            Some(last) if self.rng.random_bool(0.6) => last.block,
            _ => block,
        };
        let length = self.length(block.length);
        let block = Block { length, ..block };
        let maybe = if self.rng.random_bool(0.5) { Some(block) } else { None };
        let (path, other) = (self.path(), self.path());
        let holder = self.holder_of(view, file);
        let by_id = if self.rng.random_bool(0.8) { Some(file) } else { None };
        match self.rng.random_range(0..44) {
            0..=5 => Operation::Mkdirs { path, mode: self.mode(), parents: self.parents() },
            6..=12 => Operation::Create(self.create(path, holder)),
            13..=18 => {
                let targets = vec![target(self.rng.random_range(1..5))];
                Operation::AddBlock(AddBlock { path, file: by_id, holder, previous: maybe, targets })
            }
            19..=22 => Operation::Complete { path, file: by_id, holder, last: maybe },
            23 => Operation::AbandonBlock { path, file: by_id, holder, block },
            24 => Operation::Fsync { path, file: by_id, holder, last_length: Some(block.length) },
            25 => Operation::RecoverLease { path, holder },
            26..=29 => Operation::Rename { source: path, target: other },
            30..=32 => {
                let overwrite = self.overwrite();
                Operation::Rename2 {
                    source: path,
                    target: other,
                    overwrite,
                    to_trash: self.rng.random_bool(0.2),
                }
            }
            33..=34 => Operation::Delete { path, recursive: self.rng.random_bool(0.5) },
            35 => Operation::SetReplication { path, replication: self.rng.random_range(1..5) },
            36 => Operation::SetPermission { path, mode: self.mode() },
            37 => {
                let access = self.rng.random_bool(0.8).then(|| self.mode() & 0o777);
                Operation::SetAcl { path, access }
            }
            38 => Operation::SetOwner {
                path,
                user: Some(["alice", "bob", "carol"][self.rng.random_range(0..3)].into()),
                group: Some(["users", "staff", "other"][self.rng.random_range(0..3)].into()),
            },
            39..=40 => {
                let targets = vec![target(self.rng.random_range(1..5))];
                Operation::CreateWith { create: self.create(path, holder), targets }
            }
            41..=42 => Operation::CompleteAs {
                path,
                file: by_id,
                holder,
                last: maybe,
                target: other,
                overwrite: self.overwrite(),
            },
            _ => {
                let closable = match self.rng.random_range(0..4) {
                    0 => Closable::DropLast,
                    1 => Closable::Complete { last: maybe },
                    _ => Closable::NotYet,
                };
                Operation::ExpireLease { holder, file, closable }
            }
        }
    }

    fn create(&mut self, path: HdfsPath, holder: String) -> Create {
        Create {
            path,
            mode: self.mode() & 0o777,
            holder,
            flags: [1, 1, 3, 2][self.rng.random_range(0..4)],
            parents: self.parents(),
            replication: self.rng.random_range(1..4),
            block_size: 1 << 20,
            holder_renewed: self.renewed(),
        }
    }

    fn overwrite(&mut self) -> Overwrite {
        if self.rng.random_bool(0.5) { Overwrite::Yes } else { Overwrite::No }
    }

    /// What is asked after a look at the files, by the leader, a DataNode or a writer who comes back. The view
    /// may be an older one, and one in some is wrong on purpose.
    fn seen(&mut self, view: &View, files: &[InodeId], blocks: &[Block]) -> Operation {
        let recent = files.len().saturating_sub(12)..files.len();
        let file = if recent.is_empty() { InodeId(99) } else { files[self.rng.random_range(recent)] };
        let path = view.path_of(file).unwrap().filter(|_| self.rng.random_bool(0.9));
        let path = path.unwrap_or_else(|| self.path());
        match self.rng.random_range(0..13) {
            0..=2 => Operation::Append(Append {
                holder: self.holder(),
                flags: [4, 4, 36][self.rng.random_range(0..3)],
                holder_renewed: self.renewed(),
                last: self.last(view.last_block_at(&path).unwrap()),
                path,
            }),
            3 => {
                let length = self.new_length(view, file);
                Operation::Truncate(Truncate {
                    holder: self.holder(),
                    length,
                    holder_renewed: self.renewed(),
                    last: self.last(view.block_cut_at(&path, length).unwrap()),
                    path,
                })
            }
            4 => self.concat(path),
            5 => {
                self.begin_job();
                self.recovers(view, file, blocks)
            }
            6..=8 => self.goes_on(view, file, blocks),
            _ => self.recovers(view, file, blocks),
        }
    }

    /// Two thirds are long ago.
    fn renewed(&mut self) -> Option<Millis> {
        [None, Some(Millis(START - 100_000)), Some(Millis(START - 100))][self.rng.random_range(0..3)]
    }

    fn holder_of(&mut self, view: &View, file: InodeId) -> String {
        match view.lease_of(file).unwrap() {
            Some(holder) if self.rng.random_bool(0.7) => holder,
            _ => self.holder(),
        }
    }

    /// A length near another, or that of a full block.
    fn length(&mut self, near: u64) -> u64 {
        match self.rng.random_range(0..6) {
            0 => near.saturating_sub(1),
            1 => near,
            2 => 1 << 20,
            _ => near.saturating_add(self.rng.random_range(0..100)),
        }
    }

    /// Of a file: at a block's border, or anywhere.
    fn new_length(&mut self, view: &View, file: InodeId) -> u64 {
        let blocks = view.blocks_of(file).unwrap();
        let borders: Vec<u64> = blocks.iter().map(|block| block.offset + block.block.length).collect();
        let end = borders.last().copied().unwrap_or(0);
        match borders.len() {
            0 => self.rng.random_range(0..2),
            count if self.rng.random_bool(0.4) => borders[self.rng.random_range(0..count)],
            _ => self.rng.random_range(0..end + 2),
        }
    }

    fn last(&mut self, found: Option<FileBlock>) -> Option<LastBlock> {
        let mut block = found?.block;
        if self.rng.random_bool(0.05) {
            block.length += 1;
        }
        Some(LastBlock { block, targets: vec![target(self.rng.random_range(1..5))] })
    }

    /// Of anything; what fits is in a [`Random::job`].
    fn concat(&mut self, target: HdfsPath) -> Operation {
        let sources = (0..self.rng.random_range(0..3)).map(|_| self.path()).collect();
        Operation::Concat { target, sources }
    }

    /// A job whose parts are written side by side and joined, each step between those of others.
    fn begin_job(&mut self) {
        let folder = self.path();
        let small = folder.join("e");
        self.job.push_back(Step::Begin(small.clone()));
        let target = self.path();
        self.job.push_back(Step::Finish(small, target));
        let names = ["a", "b", "c", "d"].map(|name| folder.join(name));
        let parts = self.rng.random_range(2..5);
        for part in &names[..parts] {
            self.job.push_back(Step::Create(part.clone()));
            for _ in 0..self.rng.random_range(1..3) {
                self.job.push_back(Step::Add(part.clone()));
            }
            self.job.push_back(Step::Complete(part.clone()));
        }
        let mut sources = names[1..parts].to_vec();
        if self.rng.random_bool(0.1) {
            sources.push(names[self.rng.random_range(0..4)].clone()); // Twice, the target, or nothing.
        }
        self.job.push_back(Step::Concat(names[0].clone(), sources));
    }

    fn step(&mut self, step: Step, view: &View) -> Operation {
        let holder = "job".to_owned();
        let last = |path: &HdfsPath| view.last_block_at(path).unwrap().map(|last| last.block);
        let length = self.rng.random_range(0..100);
        let written = |path: &HdfsPath| {
            last(path).map(|block| Block { length: block.length.saturating_add(length), ..block })
        };
        let replication = self.rng.random_range(1..4);
        let create = |path, holder| Create {
            path,
            mode: 0o644,
            holder,
            flags: 3,
            parents: Parents::Create,
            replication,
            block_size: 1 << 20,
            holder_renewed: None,
        };
        match step {
            Step::Create(path) => Operation::Create(create(path, holder)),
            Step::Begin(path) => {
                Operation::CreateWith { create: create(path, holder), targets: vec![target(1)] }
            }
            Step::Finish(path, target) => {
                let (last, overwrite) = (written(&path), self.overwrite());
                Operation::CompleteAs { path, file: None, holder, last, target, overwrite }
            }
            Step::Add(path) => {
                let (previous, targets) = (written(&path), vec![target(1)]);
                Operation::AddBlock(AddBlock { path, file: None, holder, previous, targets })
            }
            Step::Complete(path) => {
                let last = written(&path);
                Operation::Complete { path, file: None, holder, last }
            }
            Step::Concat(target, sources) => Operation::Concat { target, sources },
        }
    }

    /// A writer whose pipeline broke.
    fn goes_on(&mut self, view: &View, file: InodeId, blocks: &[Block]) -> Operation {
        let holder = self.holder_of(view, file);
        let old = match view.blocks_of(file).unwrap().last() {
            Some(last) => last.block,
            None => blocks.last().copied().unwrap_or_default(),
        };
        if self.rng.random_bool(0.5) {
            return Operation::UpdateBlockForPipeline { block: old, holder };
        }
        let stamp = view.next_stamp().0.saturating_sub(self.rng.random_range(0..4));
        let new = Block { stamp: GenStamp(stamp), length: self.length(old.length), ..old };
        let new = if self.rng.random_bool(0.03) { Block { id: BlockId(7), ..new } } else { new };
        let targets = vec![target(self.rng.random_range(1..5))];
        Operation::UpdatePipeline(UpdatePipeline { holder, old, new, targets })
    }

    /// A DataNode that ends a recovery, or the leader who waited too long for one.
    fn recovers(&mut self, view: &View, file: InodeId, blocks: &[Block]) -> Operation {
        let running = view.recoveries(InodeId(0), 100).unwrap();
        let known = running.len();
        let (file, mut block, mut id, aim) = match known {
            0 => (file, blocks.last().copied().unwrap_or_default(), GenStamp(1_003), None),
            _ => {
                let RunningRecovery { file, block, recovery, .. } = &running[self.rng.random_range(0..known)];
                (*file, *block, recovery.id, recovery.truncate)
            }
        };
        if self.rng.random_bool(0.1) {
            id = GenStamp(id.0 - 1);
        }
        if self.rng.random_bool(0.25) {
            return Operation::RetryRecovery { file, recovery: id };
        }
        if self.rng.random_bool(0.1) {
            block = blocks.last().copied().unwrap_or_default();
        }
        let length = match aim {
            Some(length) if self.rng.random_bool(0.9) => length,
            _ => self.length(block.length),
        };
        Operation::CommitBlockSynchronization(CommitBlockSynchronization {
            block,
            stamp: id,
            length,
            close: self.rng.random_bool(0.8),
            delete: self.rng.random_bool(0.15),
            targets: vec![target(self.rng.random_range(1..5))],
        })
    }

    pub fn command(&mut self, view: &View, files: &[InodeId], blocks: &[Block]) -> Command {
        let operation = self.operation(view, files, blocks);
        // One in ten asks again under the key of a call before.
        let retry = match self.rng.random_range(0..10) {
            0 => Some(RetryKey { client: ClientId([1; 16]), call: self.calls }),
            1..=4 => {
                self.calls += 1;
                Some(RetryKey { client: ClientId([1; 16]), call: self.calls })
            }
            _ => None,
        };
        Command { caller: self.caller(), retry, operation }
    }
}
