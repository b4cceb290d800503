//! A file's blocks: addBlock, abandonBlock, fsync, complete. HDFS's `FSDirWriteFileOp`.
//!
//! Next on the walk through the house: the DataNode's `receive`, to which the client sends the block
//! that was handed out here.

use std::borrow::Cow;

use mobula_types::{Block, BlockId, HdfsPath, InodeId, Target};

use crate::apply::{Answer, Apply, is_committed};
use crate::command::{AddBlock, Caller, Create, Rules};
use crate::error::NamespaceError;
use crate::guard;
use crate::lease::{check_lease, open_mut};
use crate::outcome::{Allocated, BlockEffect, BlockState, Outcome};
use crate::record::{BlockRow, Construction, File};
use crate::resolve::{self, Walk};
use crate::table::{Read, TableError, file_block_key};

/// What an addBlock turned out to be.
pub(crate) enum Analysis {
    /// The client wants the next block.
    New { last: Option<(BlockId, BlockRow)>, penultimate: Option<(BlockId, BlockRow)> },
    /// It did not hear the answer: the last block again.
    Retry { block: BlockId, row: BlockRow },
}

/// The last block of a file.
pub(crate) fn last_block<R: Read>(
    tables: &R,
    file: InodeId,
    record: &File,
) -> Result<Option<(BlockId, BlockRow)>, TableError> {
    nth_block(tables, file, record, 1)
}

/// The block that is the `nth` from the end, counted from 1.
fn nth_block<R: Read>(
    tables: &R,
    file: InodeId,
    record: &File,
    nth: u32,
) -> Result<Option<(BlockId, BlockRow)>, TableError> {
    let Some(index) = record.blocks.checked_sub(nth) else { return Ok(None) };
    let id = tables.block_at(file, record.first, index)?;
    Ok(Some((id, tables.file_block_row(file, id)?)))
}

/// `Block.matchingIdAndGenStamp`: none matches none.
fn matches(asked: Option<Block>, stored: &Option<(BlockId, BlockRow)>) -> bool {
    match (asked, stored) {
        (None, None) => true,
        (Some(asked), Some((id, row))) => asked.id == *id && asked.stamp == row.stamp,
        _ => false,
    }
}

/// `analyzeFileState`: the caller has checked the lease.
pub(crate) fn analyze<R: Read>(
    tables: &R,
    rules: &Rules,
    pool: &str,
    walk: &Walk<'_>,
    file: &File,
    previous: Option<Block>,
) -> Result<Analysis, NamespaceError> {
    let id = walk.last().expect("the lease was checked").id;
    let last = last_block(tables, id, file)?;
    let penultimate = nth_block(tables, id, file, 2)?;
    if !matches(previous, &last) {
        let full = |row: &BlockRow| row.length >= file.block_size && is_committed(row);
        match &last {
            Some((_, row)) if previous.is_none() && full(row) => {} // Appending at a block's border.
            Some((block, row)) if matches(previous, &penultimate) => {
                // Who got an answer that is no longer so would write where nobody looks.
                let recovered = file.open.as_ref().is_some_and(|open| open.recovery.is_some());
                if row.length != 0 || is_committed(row) || recovered {
                    let (block, length) = (row.block(*block).to_string(), row.length);
                    return Err(NamespaceError::NotARetry { block, length });
                }
                return Ok(Analysis::Retry { block: *block, row: *row });
            }
            _ => {
                let null = || "null".to_owned();
                return Err(NamespaceError::PreviousMismatch {
                    path: walk.text(),
                    previous: previous.map_or_else(null, |block| format!("{pool}:{block}")),
                    last: last.map_or_else(null, |(id, row)| row.block(id).to_string()),
                });
            }
        }
    }
    let (blocks, most) = (u64::from(file.blocks), rules.file_blocks_max);
    if blocks >= most {
        return Err(NamespaceError::TooManyBlocks { blocks, most });
    }
    Ok(Analysis::New { last, penultimate })
}

/// `commitOrCompleteLastBlock`'s checks; says whether there is something to commit.
pub(crate) fn check_commit(
    last: &Option<(BlockId, BlockRow)>,
    open: &Construction,
    block: Option<Block>,
) -> Result<bool, NamespaceError> {
    let (Some(block), Some((id, row))) = (block, last) else { return Ok(false) };
    if is_committed(row) {
        return Ok(false);
    }
    if open.recovery.is_some() {
        return Err(NamespaceError::CommitUnderRecovery(block.to_string()));
    }
    if block.id != *id {
        let (have, submitted) = (id.0 as i64, block.id.0 as i64);
        return Err(NamespaceError::CommitIdMismatch { have, submitted });
    }
    let have = row.block(*id);
    if block.stamp != have.stamp {
        let (have, submitted) = (have.to_string(), block.to_string());
        return Err(NamespaceError::CommitStampMismatch { have, submitted });
    }
    if block.length < have.length {
        let (have, submitted) = (have.length, block.length);
        return Err(NamespaceError::CommitShrinks { block: block.to_string(), have, submitted });
    }
    Ok(true)
}

impl Apply<'_, '_> {
    fn leased<'p>(
        &self,
        caller: &Caller,
        path: &'p HdfsPath,
        file: Option<InodeId>,
        operation: &'static str,
    ) -> Result<Walk<'p>, NamespaceError> {
        resolve::resolve_file(&self.tables, &self.state.rules, caller, path, file, operation)
    }

    pub(crate) fn add_block(&mut self, caller: &Caller, add: &AddBlock) -> Answer {
        guard::check_objects(self.state, 0)?;
        let mut walk = self.leased(caller, &add.path, add.file, "addBlock")?;
        let (file, open) = check_lease(&walk, add.file, &add.holder, || self.held(&add.holder))?;
        let pool = self.state.format.as_ref().map_or("", |format| format.pool.as_str());
        let analysis = analyze(&self.tables, &self.state.rules, pool, &walk, file, add.previous)?;
        match analysis {
            Analysis::Retry { block, row } if !open.targets.is_empty() => {
                let targets = open.targets.clone();
                Ok(Outcome::Allocated(Allocated { block: row.block(block), offset: row.offset, targets }))
            }
            Analysis::Retry { block, row } => {
                open_mut(&mut walk).targets = add.targets.clone();
                self.save(&walk, walk.depth)?;
                Ok(self.allocated(block, &row, add))
            }
            Analysis::New { last, .. } => {
                check_commit(&last, open, add.previous)?;
                self.commit_last(&mut walk, add.previous)?;
                Ok(self.append_block(&mut walk, add)?)
            }
        }
    }

    /// A new file and its first block; without it, if it is refused: whoever asks for it again hears why.
    pub(crate) fn create_with_block(
        &mut self,
        caller: &Caller,
        create: &Create,
        targets: &[Target],
    ) -> Answer {
        let created = self.create(caller, create)?;
        let Outcome::Status(status) = created else { return Ok(created) };
        let add = AddBlock {
            path: create.path.clone(),
            file: Some(status.inode),
            holder: create.holder.clone(),
            previous: None,
            targets: targets.to_vec(),
        };
        match self.add_block(caller, &add) {
            Ok(Outcome::Allocated(allocated)) => Ok(Outcome::Begun(status, allocated)),
            Err(NamespaceError::Tables(error)) => Err(error.into()),
            _ => Ok(Outcome::Status(status)),
        }
    }

    fn append_block(&mut self, walk: &mut Walk<'_>, add: &AddBlock) -> Result<Outcome, TableError> {
        let id = self.state.next_block;
        self.state.next_block.0 += 1;
        let stamp = self.next_stamp();
        self.state.blocks += 1;
        let last = walk.nodes.last_mut().expect("the file is there");
        let inode = last.id;
        let file = last.file_mut().expect("checked: a file");
        let row = BlockRow {
            inode,
            stamp,
            length: 0,
            replication: file.replication,
            offset: file.length,
            state: BlockState::UnderConstruction,
        };
        let index = file.blocks;
        file.blocks += 1;
        if index == 0 {
            file.first = id;
        } else {
            let key = file_block_key(inode, index);
            self.tables.file_blocks.insert(key.as_slice(), id.0.to_be_bytes().as_slice())?;
        }
        let open = open_mut(walk);
        (open.open_length, open.kept) = (0, 0);
        open.targets = add.targets.clone();
        self.put_block(id, &row)?;
        self.save(walk, walk.depth)?;
        Ok(self.allocated(id, &row, add))
    }

    fn allocated(&mut self, id: BlockId, row: &BlockRow, add: &AddBlock) -> Outcome {
        let (block, replication, targets) = (row.block(id), row.replication, add.targets.clone());
        self.effects.push(BlockEffect::Allocated { block, replication, targets: targets.clone() });
        Outcome::Allocated(Allocated { block, offset: row.offset, targets })
    }

    /// Commits the last block with the client's length; nothing if it is committed, or `block` is none.
    /// [`check_commit`] has passed. The file's record is not written: the callers change more of it.
    pub(crate) fn commit_last(
        &mut self,
        walk: &mut Walk<'_>,
        block: Option<Block>,
    ) -> Result<(), TableError> {
        let Some(block) = block else { return Ok(()) };
        let last = walk.nodes.last_mut().expect("the file is there");
        let inode = last.id;
        let file = last.file_mut().expect("checked: a file");
        let Some((id, mut row)) = last_block(&self.tables, inode, file)? else { return Ok(()) };
        if is_committed(&row) || id != block.id {
            return Ok(());
        }
        row.length = block.length;
        row.state = BlockState::Committed;
        file.length += block.length;
        if let Some(open) = &mut file.open {
            (open.open_length, open.kept) = (0, 0);
            open.targets.clear();
        }
        self.put_block(id, &row)?;
        self.effects.push(BlockEffect::Committed { block: row.block(id), replication: row.replication });
        Ok(())
    }

    /// Whether that block is the last one, open, and may be committed so.
    pub(crate) fn commits(&self, walk: &Walk<'_>, block: Block) -> Result<bool, TableError> {
        let Some((inode, file)) = walk.last().and_then(|last| Some((last.id, last.file()?))) else {
            return Ok(false);
        };
        Ok(last_block(&self.tables, inode, file)?.is_some_and(|(id, row)| {
            id == block.id && row.stamp == block.stamp && row.length <= block.length && !is_committed(&row)
        }))
    }

    pub(crate) fn last_is_open(&self, walk: &Walk<'_>) -> Result<bool, TableError> {
        let Some((inode, file)) = walk.last().and_then(|last| Some((last.id, last.file()?))) else {
            return Ok(false);
        };
        Ok(last_block(&self.tables, inode, file)?.is_some_and(|(_, row)| !is_committed(&row)))
    }

    /// Takes the last block off an open file. The file's record is not written.
    pub(crate) fn drop_last(&mut self, walk: &mut Walk<'_>) -> Result<(), TableError> {
        let last = walk.nodes.last_mut().expect("the file is there");
        let inode = last.id;
        let file = last.file_mut().expect("checked: a file");
        let Some((id, row)) = last_block(&self.tables, inode, file)? else { return Ok(()) };
        if is_committed(&row) {
            file.length -= row.length;
        }
        file.blocks -= 1;
        let index = file.blocks;
        if let Some(open) = &mut file.open {
            (open.open_length, open.kept) = (0, 0);
            open.targets.clear();
            open.recovery = None;
        }
        self.remove_block(inode, index, id)
    }

    pub(crate) fn abandon_block(
        &mut self,
        caller: &Caller,
        path: &HdfsPath,
        file: Option<InodeId>,
        holder: &str,
        block: Block,
    ) -> Answer {
        let mut walk = self.leased(caller, path, file, "abandonBlock")?;
        let (record, open) = check_lease(&walk, file, holder, || self.held(holder))?;
        let inode = walk.last().expect("the lease was checked").id;
        let last = last_block(&self.tables, inode, record)?;
        if last.is_none_or(|(id, _)| id != block.id) {
            return Ok(Outcome::Done); // Another block: HDFS says nothing, too.
        }
        if open.recovery.is_some() {
            return Err(NamespaceError::AbandonUnderRecovery(block.to_string()));
        }
        // Clients abandon what they could not even begin. Who says so of synced bytes has the lease, and means it.
        self.drop_last(&mut walk)?;
        self.save(&walk, walk.depth)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn fsync(
        &mut self,
        caller: &Caller,
        path: &HdfsPath,
        file: Option<InodeId>,
        holder: &str,
        last_length: Option<u64>,
    ) -> Answer {
        let mut walk = self.leased(caller, path, file, "fsync")?;
        let (record, open) = check_lease(&walk, file, holder, || self.held(holder))?;
        let recovered = open.recovery.is_some();
        let Some(length) = last_length.filter(|length| *length > 0) else { return Ok(Outcome::Done) };
        let inode = walk.last().expect("the lease was checked").id;
        let Some((id, mut row)) = last_block(&self.tables, inode, record)? else { return Ok(Outcome::Done) };
        // Never down: of two that overtook each other both were promised. What a recovery finds is its affair.
        if !is_committed(&row) && !recovered && length > open.kept {
            row.length = row.length.max(length);
            let open = open_mut(&mut walk);
            (open.open_length, open.kept) = (row.length, length);
            self.put_block(id, &row)?;
            self.save(&walk, walk.depth)?;
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn complete(
        &mut self,
        caller: &Caller,
        path: &HdfsPath,
        file: Option<InodeId>,
        holder: &str,
        last: Option<Block>,
    ) -> Answer {
        let closed = self.completed(caller, path, file, holder, last)?;
        Ok(Outcome::Bool(closed.is_some()))
    }

    /// `complete`, and where the file is that it has closed: by its id it is found wherever it was moved. None if it
    /// cannot be closed yet.
    pub(crate) fn completed<'p>(
        &mut self,
        caller: &Caller,
        path: &'p HdfsPath,
        file: Option<InodeId>,
        holder: &str,
        last: Option<Block>,
    ) -> Result<Option<Cow<'p, HdfsPath>>, NamespaceError> {
        let mut walk = self.leased(caller, path, file, "completeFile")?;
        let open = match check_lease(&walk, file, holder, || self.held(holder)) {
            Ok((_, open)) => open,
            Err(refusal @ NamespaceError::NotOpen(_)) => return self.completed_before(walk, last, refusal),
            Err(refusal) => return Err(refusal),
        };
        let inode = walk.last().expect("the lease was checked");
        let stored = last_block(&self.tables, inode.id, inode.file().expect("checked: a file"))?;
        let commits = check_commit(&stored, open, last)?;
        if !commits && stored.is_some_and(|(_, row)| !is_committed(&row)) {
            return Ok(None);
        }
        self.commit_last(&mut walk, last)?;
        self.close(&mut walk)?;
        Ok(Some(walk.path))
    }

    /// Closed already: the client did not hear it if its last block is the file's (HDFS-3031).
    fn completed_before<'p>(
        &self,
        walk: Walk<'p>,
        last: Option<Block>,
        refusal: NamespaceError,
    ) -> Result<Option<Cow<'p, HdfsPath>>, NamespaceError> {
        let inode = walk.last().expect("a closed file was found");
        let file = inode.file().expect("a closed file was found");
        let stored = last_block(&self.tables, inode.id, file)?;
        if matches(last, &stored) { Ok(Some(walk.path)) } else { Err(refusal) }
    }
}
