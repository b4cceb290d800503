//! The model of files that are written again: append, truncate, concat, pipelines, recoveries. Every rule is
//! written out from what HDFS's clients may rely on, not from the code.

use mobula_namespace::{
    Append, BlockEffect, BlockState, Caller, Closable, CommitBlockSynchronization, ErrorKind, Operation,
    Truncate, UpdatePipeline,
};
use mobula_types::{Block, BlockId, GenStamp, HdfsPath, InodeId, Millis};
use std::collections::BTreeMap;

use crate::fixture::START;
use crate::model::Said::{No, Yes};
use crate::model::{Checked, Model, Node, Said, parent_of, refuse};

/// Older than the soft limit.
fn is_expired(renewed: Option<Millis>) -> bool {
    renewed.is_some_and(|renewed| START - renewed.0 > 60_000)
}

fn internal(holder: &str) -> String {
    if holder.starts_with("HDFS_NameNode") { holder.into() } else { format!("HDFS_NameNode-{START}") }
}

impl Node {
    pub fn length(&self) -> u64 {
        self.blocks.iter().map(|(block, _)| block.length).sum()
    }

    pub fn last_is_open(&self) -> bool {
        self.blocks.last().is_some_and(|(_, committed)| !committed)
    }

    fn reopen(&mut self, holder: &str) {
        let (block, committed) = self.blocks.last_mut().unwrap();
        assert!(*committed);
        (*committed, self.kept) = (false, block.length);
        self.holder = Some(holder.into());
    }

    pub fn close(&mut self) {
        assert!(!self.last_is_open() && self.recovery.is_none(), "closed with an open block: {self:?}");
        (self.holder, self.kept) = (None, 0);
    }

    pub fn drop_last(&mut self) {
        self.blocks.pop();
        (self.recovery, self.kept) = (None, 0);
    }
}

impl Model {
    pub fn writer(&mut self, caller: &Caller, operation: &Operation) -> Checked<Said> {
        match operation {
            Operation::Append(append) => self.append(caller, append),
            Operation::Truncate(truncate) => self.truncate(caller, truncate),
            Operation::Concat { target, sources } => self.concat(caller, target, sources),
            Operation::UpdateBlockForPipeline { block, holder } => {
                self.open_block(*block, holder)?;
                self.next_stamp += 1;
                Ok(Yes)
            }
            Operation::UpdatePipeline(update) => self.pipeline(update),
            Operation::CommitBlockSynchronization(commit) => self.synchronized(commit),
            Operation::RetryRecovery { file, recovery } => {
                let found = self.nodes.iter().find(|(_, node)| node.id == *file);
                let path = found.map(|(path, _)| path.clone());
                if let Some(path) = path
                    && let Some((id, truncate)) = self.nodes[&path].recovery
                    && id == *recovery
                {
                    self.begin(&path, truncate);
                }
                Ok(Yes)
            }
            Operation::ExpireLease { holder, file, closable } => self.expire(holder, *file, closable),
            other => panic!("not modelled: {other:?}"),
        }
    }

    fn file(&self, path: &str) -> Checked<&Node> {
        match self.nodes.get(path).filter(|node| !node.directory) {
            Some(node) => Ok(node),
            None => refuse(ErrorKind::FileNotFound),
        }
    }

    fn begin(&mut self, path: &str, truncate: Option<u64>) {
        self.nodes.get_mut(path).unwrap().recovery = Some((GenStamp(self.next_stamp), truncate));
        self.next_stamp += 1;
    }

    /// Whether the file is closed now.
    pub fn release(&mut self, path: &str, holder: &str) -> bool {
        if !self.nodes[path].last_is_open() {
            self.nodes.get_mut(path).unwrap().close();
            return true;
        }
        if self.nodes[path].recovery.is_none() {
            self.begin(path, None);
        }
        self.nodes.get_mut(path).unwrap().holder = Some(holder.into());
        false
    }

    pub fn contend(&mut self, path: &str, holder: &str, renewed: Option<Millis>) -> Checked<()> {
        let node = &self.nodes[path];
        let Some(owner) = node.holder.clone() else { return Ok(()) };
        if owner == holder {
            return refuse(ErrorKind::AlreadyBeingCreated);
        }
        if is_expired(renewed) {
            return match self.release(path, &internal(&owner)) {
                true => Ok(()),
                false => refuse(ErrorKind::RecoveryInProgress),
            };
        }
        match node.recovery {
            Some(_) => refuse(ErrorKind::RecoveryInProgress),
            None => refuse(ErrorKind::AlreadyBeingCreated),
        }
    }

    fn append(&mut self, caller: &Caller, append: &Append) -> Checked<Said> {
        let path = append.path.as_str();
        self.traverse(caller, path, ErrorKind::AccessControl)?;
        if self.nodes.get(path).is_some_and(|node| node.directory) {
            return refuse(ErrorKind::FileAlreadyExists);
        }
        self.want(caller, path, 2)?;
        self.file(path)?;
        self.contend(path, &append.holder, append.holder_renewed)?;
        let node = self.nodes.get_mut(path).unwrap();
        let partial = node.blocks.last().filter(|(block, _)| block.length < 1 << 20).map(|(block, _)| *block);
        match partial {
            Some(block) if append.flags & 32 == 0 => {
                if append.last.as_ref().map(|last| last.block) != Some(block) {
                    return refuse(ErrorKind::Io); // Moved.
                }
                node.reopen(&append.holder);
            }
            _ => node.holder = Some(append.holder.clone()),
        }
        Ok(Yes)
    }

    fn truncate(&mut self, caller: &Caller, truncate: &Truncate) -> Checked<Said> {
        let (path, length) = (truncate.path.as_str(), truncate.length);
        self.traverse(caller, path, ErrorKind::AccessControl)?;
        self.want(caller, path, 2)?;
        let node = self.file(path)?;
        if let Some((_, Some(cut))) = node.recovery {
            let (last, _) = node.blocks.last().unwrap();
            let same = node.length() - last.length + cut == length;
            return if same { Ok(No) } else { refuse(ErrorKind::AlreadyBeingCreated) };
        }
        self.contend(path, &truncate.holder, truncate.holder_renewed)?;
        let node = self.nodes.get_mut(path).unwrap();
        if length >= node.length() {
            return if length == node.length() { Ok(Yes) } else { refuse(ErrorKind::IllegalArgument) };
        }
        let mut left = length;
        let mut keep = 0;
        while left > 0 {
            let (block, _) = node.blocks[keep];
            keep += 1;
            if block.length > left {
                if truncate.last.as_ref().map(|last| last.block) != Some(block) {
                    return refuse(ErrorKind::Io); // Moved.
                }
                node.blocks.truncate(keep);
                node.reopen(&truncate.holder);
                node.kept = left;
                self.begin(path, Some(left));
                return Ok(No);
            }
            left -= block.length;
        }
        node.blocks.truncate(keep);
        Ok(Yes)
    }

    fn concat(&mut self, caller: &Caller, target: &HdfsPath, sources: &[HdfsPath]) -> Checked<Said> {
        if sources.is_empty() {
            return refuse(ErrorKind::JavaIllegalArgument);
        }
        let target = target.as_str();
        self.traverse(caller, target, ErrorKind::AccessControl)?;
        self.want(caller, target, 2)?;
        if self.file(target)?.holder.is_some() {
            return refuse(ErrorKind::IllegalArgument);
        }
        for source in sources {
            let source = source.as_str();
            self.traverse(caller, source, ErrorKind::AccessControl)?;
            self.want(caller, source, 4)?;
            self.want_parent(caller, source)?;
            let node = self.file(source)?;
            let unfit = parent_of(source) != parent_of(target)
                || source == target
                || node.holder.is_some()
                || node.blocks.is_empty();
            if unfit {
                return refuse(ErrorKind::IllegalArgument);
            }
        }
        if (1..sources.len()).any(|index| sources[..index].contains(&sources[index])) {
            return refuse(ErrorKind::IllegalArgument);
        }
        for source in sources {
            let moved = self.nodes.remove(source.as_str()).unwrap();
            self.nodes.get_mut(target).unwrap().blocks.extend(moved.blocks);
        }
        Ok(Yes)
    }

    /// The path of the file whose open last block that is.
    fn open_block(&self, block: Block, holder: &str) -> Checked<String> {
        let has = |node: &Node| node.blocks.iter().any(|(found, _)| found.id == block.id);
        let Some((path, node)) = self.nodes.iter().find(|(_, node)| has(node)) else {
            return refuse(ErrorKind::Io);
        };
        let (last, committed) = node.blocks.last().unwrap();
        if last.id != block.id || *committed || node.recovery.is_some() {
            return refuse(ErrorKind::Io);
        }
        if node.holder.as_deref() != Some(holder) {
            return refuse(ErrorKind::LeaseExpired);
        }
        Ok(path.clone())
    }

    fn pipeline(&mut self, update: &UpdatePipeline) -> Checked<Said> {
        if update.old.id != update.new.id {
            return refuse(ErrorKind::Io);
        }
        let path = self.open_block(update.old, &update.holder)?;
        let next = self.next_stamp;
        let (block, _) = self.nodes.get_mut(&path).unwrap().blocks.last_mut().unwrap();
        if update.new.stamp <= block.stamp || update.new.stamp.0 >= next || update.new.length < block.length {
            return refuse(ErrorKind::Io);
        }
        *block = update.new;
        Ok(Yes)
    }

    fn synchronized(&mut self, commit: &CommitBlockSynchronization) -> Checked<Said> {
        let has = |node: &Node| node.blocks.iter().any(|(found, _)| found.id == commit.block.id);
        let Some(node) = self.nodes.values_mut().find(|node| has(node)) else {
            return if commit.delete { Ok(Yes) } else { refuse(ErrorKind::Io) };
        };
        if node.holder.is_none() || !node.last_is_open() {
            return Ok(Yes);
        }
        let (last, committed) = node.blocks.last_mut().unwrap();
        let Some((id, truncate)) = node.recovery else { return refuse(ErrorKind::Io) };
        let length = if commit.delete { 0 } else { commit.length };
        let fits = match truncate {
            Some(cut) => length == cut,
            None => length >= node.kept,
        };
        if id != commit.stamp || last.id != commit.block.id || !fits {
            return refuse(ErrorKind::Io);
        }
        if commit.delete {
            node.drop_last();
        } else {
            *last = Block { stamp: commit.stamp, length, ..*last };
            *committed = commit.close;
            (node.recovery, node.kept) = (None, length);
        }
        if commit.close {
            node.close();
        }
        Ok(Yes)
    }

    fn expire(&mut self, holder: &str, file: InodeId, closable: &Closable) -> Checked<Said> {
        let Some((path, node)) = self.nodes.iter_mut().find(|(_, node)| node.id == file) else {
            return Ok(Yes);
        };
        let Some(owner) = node.holder.clone() else { return Ok(Yes) };
        if owner != holder {
            return Ok(No);
        }
        if node.last_is_open() {
            let (last, committed) = node.blocks.last_mut().unwrap();
            match closable {
                Closable::Complete { last: Some(said) }
                    if node.recovery.is_none()
                        && (said.id, said.stamp) == (last.id, last.stamp)
                        && said.length >= last.length =>
                {
                    (last.length, *committed) = (said.length, true);
                }
                Closable::DropLast if node.kept == 0 => node.drop_last(),
                _ => {}
            }
        }
        let path = path.clone();
        Ok(if self.release(&path, &internal(&owner)) { Yes } else { No })
    }
}

/// What the effects alone tell the fleet of blocks: it must come to what the tables say.
#[derive(Debug, Default)]
pub struct Told {
    pub blocks: BTreeMap<BlockId, (Block, BlockState)>,
    recoveries: BTreeMap<BlockId, GenStamp>,
}

impl Told {
    pub fn hear(&mut self, effects: &[BlockEffect]) {
        for effect in effects {
            self.hear_one(effect);
        }
    }

    fn hear_one(&mut self, effect: &BlockEffect) {
        use BlockState::{Committed, UnderConstruction};
        match effect {
            BlockEffect::Allocated { block, targets, .. } => {
                assert!(!targets.is_empty());
                let old = self.blocks.insert(block.id, (*block, UnderConstruction));
                assert_eq!(old, None, "a block id was given out twice");
            }
            BlockEffect::Committed { block, .. } => {
                let (old, state) = self.blocks[&block.id];
                assert_eq!((state, old.stamp), (UnderConstruction, block.stamp), "{block}");
                self.blocks.insert(block.id, (*block, Committed));
            }
            BlockEffect::Reopened { block, targets, .. } => {
                assert!(!targets.is_empty());
                assert_eq!(self.blocks[&block.id], (*block, Committed));
                self.blocks.insert(block.id, (*block, UnderConstruction));
            }
            BlockEffect::Pipeline { block, .. } | BlockEffect::Recovered { block, .. } => {
                let (old, state) = self.blocks[&block.id];
                assert_eq!(state, UnderConstruction, "{block}");
                assert!(block.stamp > old.stamp, "{block} after {old}");
                self.blocks.insert(block.id, (*block, UnderConstruction));
            }
            BlockEffect::Recover { block, recovery, truncate, .. } => {
                let (old, state) = self.blocks[&block.id];
                assert_eq!((state, old.stamp), (UnderConstruction, block.stamp), "{block}");
                assert!(*recovery > block.stamp && truncate.is_none_or(|length| length < block.length));
                let before = self.recoveries.insert(block.id, *recovery);
                assert!(before < Some(*recovery), "recovery ids grow");
            }
            BlockEffect::Removed { block } => assert!(self.blocks.remove(block).is_some(), "{block}"),
            BlockEffect::Replication { block, .. } => assert!(self.blocks.contains_key(block), "{block}"),
        }
    }
}
