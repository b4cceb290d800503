//! Random commands from a seed: small trees, few names, so that they meet.

use mobula_namespace::{
    AddBlock, Caller, Closable, Command, Create, Operation, Overwrite, Parents, RetryKey,
};
use mobula_types::{Block, BlockId, ClientId, GenStamp, HdfsPath, InodeId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{path, superuser, target, user};

pub struct Random {
    pub rng: SmallRng,
    calls: i32,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { rng: SmallRng::seed_from_u64(seed), calls: 0 }
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
        match self.rng.random_range(0..6) {
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

    /// One of the open or recent files and blocks that the caller of this knows of.
    pub fn operation(&mut self, files: &[InodeId], blocks: &[Block]) -> Operation {
        let file = match files.len() {
            0 => InodeId(99),
            count => files[self.rng.random_range(count.saturating_sub(6)..count)],
        };
        let block = match blocks.len() {
            0 => Block { id: BlockId(1), stamp: GenStamp(1), length: 0 },
            count => blocks[self.rng.random_range(count.saturating_sub(4)..count)],
        };
        let block = Block { length: self.rng.random_range(0..100), ..block };
        let maybe = if self.rng.random_bool(0.5) { Some(block) } else { None };
        let (path, other, holder) = (self.path(), self.path(), self.holder());
        let by_id = if self.rng.random_bool(0.8) { Some(file) } else { None };
        match self.rng.random_range(0..40) {
            0..=5 => Operation::Mkdirs { path, mode: self.mode(), parents: self.parents() },
            6..=12 => Operation::Create(Create {
                path,
                mode: self.mode() & 0o777,
                holder,
                flags: [1, 1, 3, 2][self.rng.random_range(0..4)],
                parents: self.parents(),
                replication: self.rng.random_range(1..4),
                block_size: 1 << 20,
                holder_renewed: None,
            }),
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
                let overwrite = if self.rng.random_bool(0.5) { Overwrite::Yes } else { Overwrite::No };
                Operation::Rename2 {
                    source: path,
                    target: other,
                    overwrite,
                    to_trash: self.rng.random_bool(0.2),
                }
            }
            33..=34 => Operation::Delete { path, recursive: self.rng.random_bool(0.5) },
            35 => Operation::SetReplication { path, replication: self.rng.random_range(1..5) },
            36..=37 => Operation::SetPermission { path, mode: self.mode() },
            38 => Operation::SetOwner {
                path,
                user: Some(["alice", "bob", "carol"][self.rng.random_range(0..3)].into()),
                group: Some(["users", "staff", "other"][self.rng.random_range(0..3)].into()),
            },
            _ => Operation::ExpireLease { holder, file, closable: Closable::NotYet },
        }
    }

    pub fn command(&mut self, files: &[InodeId], blocks: &[Block]) -> Command {
        let operation = self.operation(files, blocks);
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
