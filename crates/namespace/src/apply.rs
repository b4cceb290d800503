//! One transaction's worth of commands over one set of opened tables. Dispatch is here, each operation
//! beside its noun: [`crate::tree`], [`crate::attribute`], [`crate::block`], [`crate::append`],
//! [`crate::truncate`], [`crate::concat`], [`crate::pipeline`], [`crate::recovery`], [`crate::lease`],
//! [`crate::reap`].
//!
//! Every operation checks first and changes after: a refusal has changed nothing, but where HDFS itself
//! changes something and then refuses (a lease whose recovery begins), and where two operations are one.

use std::sync::Arc;

use mobula_types::{BlockId, HdfsPath, InodeId, Millis};

use crate::command::{Batch, Caller, Command, Format, Guards, Operation, Rules};
use crate::error::NamespaceError;
use crate::holders::Holders;
use crate::names::NameNumbers;
use crate::outcome::{Applied, BlockEffect, BlockState, FileKind, FileStatus, Outcome};
use crate::record::{BlockRow, Body, Directory, Inode, Place};
use crate::resolve::{self, Aim, Walk};
use crate::retry::{Kept, LastCalls};
use crate::state::State;
use crate::table::{ROOT_PARENT, Read, TableError, WriteTables, file_block_key};

/// An operation's answer.
pub(crate) type Answer = Result<Outcome, NamespaceError>;

/// Mode of the root directory (HDFS: `FSDirectory.createRoot`).
const ROOT_MODE: u16 = 0o755;

pub(crate) struct Apply<'a, 't> {
    pub(crate) tables: WriteTables<'t>,
    pub(crate) state: &'a mut State,
    pub(crate) numbers: &'a mut NameNumbers,
    pub(crate) holders: &'a mut Holders,
    pub(crate) calls: &'a mut LastCalls,
    /// First answers of the batch in hand.
    pub(crate) kept: Kept,
    /// Of the command in hand.
    pub(crate) effects: Vec<BlockEffect>,
    pub(crate) scratch: Vec<u8>,
}

impl Apply<'_, '_> {
    /// Applies a batch of that term.
    pub(crate) fn batch(&mut self, term: u64, batch: &Batch) -> Result<Vec<Applied>, TableError> {
        self.state.advance(term, batch.time);
        let mut answers = Vec::with_capacity(batch.commands.len());
        for command in &batch.commands {
            answers.push(self.command(command)?);
        }
        self.remember()?;
        Ok(answers)
    }

    fn command(&mut self, command: &Command) -> Result<Applied, TableError> {
        if let Some(key) = &command.retry
            && let Some(outcome) = self.remembered(key)?
        {
            return Ok(Applied { outcome: Ok(outcome), effects: Vec::new() });
        }
        let outcome = match self.operation(&command.caller, &command.operation) {
            Err(NamespaceError::Tables(error)) => return Err(error),
            outcome => outcome,
        };
        if let (Some(key), Ok(outcome)) = (&command.retry, &outcome) {
            self.keep(key, outcome)?;
        }
        Ok(Applied { outcome, effects: std::mem::take(&mut self.effects) })
    }

    fn operation(&mut self, caller: &Caller, operation: &Operation) -> Answer {
        if let Operation::Format(format) = operation {
            return self.format(format);
        }
        if self.state.format.is_none() {
            return Err(NamespaceError::NotFormatted);
        }
        match operation {
            Operation::Format(_) => unreachable!("answered above"),
            Operation::Configure(rules) => self.configure(rules),
            Operation::Mkdirs { path, mode, parents } => self.mkdirs(caller, path, *mode, *parents),
            Operation::Create(create) => self.create(caller, create),
            Operation::AddBlock(add) => self.add_block(caller, add),
            Operation::AbandonBlock { path, file, holder, block } => {
                self.abandon_block(caller, path, *file, holder, *block)
            }
            Operation::Complete { path, file, holder, last } => {
                self.complete(caller, path, *file, holder, *last)
            }
            Operation::Fsync { path, file, holder, last_length } => {
                self.fsync(caller, path, *file, holder, *last_length)
            }
            Operation::RecoverLease { path, holder } => self.recover_lease(caller, path, holder),
            Operation::ExpireLease { holder, file, closable } => self.expire_lease(holder, *file, closable),
            Operation::Rename { source, target } => self.rename(caller, source, target),
            Operation::Rename2 { source, target, overwrite, to_trash } => {
                self.rename2(caller, source, target, *overwrite, *to_trash)
            }
            Operation::Delete { path, recursive } => self.delete(caller, path, *recursive),
            Operation::SetReplication { path, replication } => {
                self.set_replication(caller, path, *replication)
            }
            Operation::SetPermission { path, mode } => self.set_permission(caller, path, *mode),
            Operation::SetAcl { path, access } => self.set_acl(caller, path, *access),
            Operation::SetOwner { path, user, group } => {
                self.set_owner(caller, path, user.as_deref(), group.as_deref())
            }
            Operation::SetTimes { path, modified, accessed } => {
                self.set_times(caller, path, *modified, *accessed)
            }
            Operation::Append(append) => self.append(caller, append),
            Operation::UpdateBlockForPipeline { block, holder } => {
                self.update_block_for_pipeline(*block, holder)
            }
            Operation::UpdatePipeline(update) => self.update_pipeline(update),
            Operation::CommitBlockSynchronization(commit) => self.commit_block_synchronization(commit),
            Operation::RetryRecovery { file, recovery } => self.retry_recovery(*file, *recovery),
            Operation::Truncate(truncate) => self.truncate(caller, truncate),
            Operation::Concat { target, sources } => self.concat(caller, target, sources),
            Operation::CreateWith { create, targets } => self.create_with_block(caller, create, targets),
            Operation::CompleteAs { path, file, holder, last, target, overwrite } => {
                match self.completed(caller, path, *file, holder, *last)? {
                    None => Ok(Outcome::Bool(false)),
                    // It has the name: the answer was lost, and who asks again has another number.
                    Some(closed) if *closed == *target => Ok(Outcome::Bool(true)),
                    Some(closed) => {
                        self.rename2(caller, &closed, target, *overwrite, false).map(|_| Outcome::Bool(true))
                    }
                }
            }
            Operation::Guard(guards) => self.guard(guards),
            Operation::Touch { accesses } => self.touch(accesses),
            Operation::Reap { inodes } => {
                self.reap(*inodes)?;
                Ok(Outcome::Done)
            }
        }
    }

    fn format(&mut self, format: &Format) -> Answer {
        if let Some(formatted) = &self.state.format {
            return Err(NamespaceError::AlreadyFormatted(formatted.cluster_id.clone()));
        }
        self.state.next_block = format.next_block;
        self.state.next_stamp = format.next_stamp;
        self.state.next_inode = format.next_inode.max(InodeId(InodeId::ROOT.0 + 1));
        self.state.rules = Arc::new(format.rules.clone());
        self.state.format = Some(Arc::new(format.clone()));
        self.state.dirty_format = true;
        let root = Inode {
            id: InodeId::ROOT,
            mode: ROOT_MODE,
            owner: self.number_of(&format.owner)?,
            group: self.number_of(&format.rules.supergroup)?,
            modified: self.state.time,
            body: Body::Directory(Directory::default()),
        };
        self.put_entry(ROOT_PARENT, "", &root)?;
        self.state.directories = 1;
        Ok(Outcome::Done)
    }

    fn configure(&mut self, rules: &Rules) -> Answer {
        self.state.rules = Arc::new(rules.clone());
        self.state.dirty_format = true;
        Ok(Outcome::Done)
    }

    fn guard(&mut self, guards: &Guards) -> Answer {
        self.state.guards = Arc::new(guards.clone());
        self.state.dirty_guards = true;
        Ok(Outcome::Done)
    }

    // What the operations share: small writes of one record.

    pub(crate) fn now(&self) -> Millis {
        self.state.time
    }

    pub(crate) fn resolve<'p>(
        &self,
        caller: &Caller,
        path: &'p HdfsPath,
        aim: Aim,
        operation: &'static str,
    ) -> Result<Walk<'p>, NamespaceError> {
        resolve::resolve(&self.tables, &self.state.rules, caller, path, aim, operation)
    }

    /// The number of an owner or group, a new one if it was never seen.
    pub(crate) fn number_of(&mut self, name: &str) -> Result<u32, TableError> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(number);
        }
        let number = self.numbers.next();
        self.tables.name_rows.insert(u64::from(number), name.as_bytes())?;
        self.tables.names.set(number, name);
        self.numbers.set(number, name);
        Ok(number)
    }

    pub(crate) fn put_entry(&mut self, parent: InodeId, name: &str, inode: &Inode) -> Result<(), TableError> {
        self.tables.put_entry(parent, name.as_bytes(), inode, &mut self.scratch)
    }

    pub(crate) fn remove_entry(&mut self, parent: InodeId, name: &[u8]) -> Result<(), TableError> {
        self.tables.remove_entry(parent, name)
    }

    /// Writes back the node at `index` of a walk.
    pub(crate) fn save(&mut self, walk: &Walk<'_>, index: usize) -> Result<(), TableError> {
        let (parent, name) = walk.place(index);
        self.put_entry(parent, name, &walk.nodes[index])
    }

    pub(crate) fn put_place(
        &mut self,
        inode: InodeId,
        parent: InodeId,
        name: &str,
    ) -> Result<(), TableError> {
        self.scratch.clear();
        Place::encode(parent, name.as_bytes(), &mut self.scratch);
        self.tables.inodes.insert(inode.0, self.scratch.as_slice())?;
        Ok(())
    }

    pub(crate) fn put_block(&mut self, id: BlockId, row: &BlockRow) -> Result<(), TableError> {
        self.scratch.clear();
        row.encode(&mut self.scratch);
        self.tables.blocks.insert(id.0, self.scratch.as_slice())?;
        Ok(())
    }

    /// Removes the block at `index` of a file from all tables.
    pub(crate) fn remove_block(&mut self, file: InodeId, index: u32, id: BlockId) -> Result<(), TableError> {
        self.tables.blocks.remove(id.0)?;
        if index > 0 {
            self.tables.file_blocks.remove(file_block_key(file, index).as_slice())?;
        }
        self.state.blocks -= 1;
        self.effects.push(BlockEffect::Removed { block: id });
        Ok(())
    }

    /// Hangs a new inode into the directory at the end of a walk, which grows by it.
    pub(crate) fn hang(&mut self, walk: &mut Walk<'_>, inode: Inode) -> Result<(), TableError> {
        let index = walk.nodes.len();
        let parent = index - 1;
        walk.nodes[parent].modified = walk.nodes[parent].modified.max(inode.modified);
        let directory = walk.nodes[parent].directory_mut().expect("the walk ends in a directory");
        directory.children += 1;
        directory.subdirectories += u64::from(inode.is_directory());
        match inode.is_directory() {
            true => self.state.directories += 1,
            false => self.state.files += 1,
        }
        self.save(walk, parent)?;
        walk.nodes.push(inode);
        self.save(walk, index)?;
        let (parent, name) = walk.place(index);
        self.put_place(walk.nodes[index].id, parent, name)
    }

    pub(crate) fn next_inode(&mut self) -> InodeId {
        let id = self.state.next_inode;
        self.state.next_inode.0 += 1;
        id
    }

    /// What `getFileInfo` would tell of that node.
    pub(crate) fn status(&self, inode: &Inode, name: &str) -> FileStatus {
        file_status(&self.tables, inode, name.as_bytes())
    }
}

/// What `getFileInfo` tells; the length of an open file has what fsync recorded.
pub(crate) fn file_status<R: Read>(tables: &R, inode: &Inode, name: &[u8]) -> FileStatus {
    let (kind, accessed) = match &inode.body {
        Body::Directory(directory) => {
            (FileKind::Directory { children: directory.children }, directory.accessed)
        }
        Body::File(file) => (
            FileKind::File {
                length: file.length + file.open.as_ref().map_or(0, |open| open.open_length),
                replication: file.replication,
                block_size: file.block_size,
                open: file.open.is_some(),
            },
            file.accessed,
        ),
    };
    FileStatus {
        inode: inode.id,
        name: name.to_vec(),
        kind,
        mode: inode.mode,
        owner: tables.names().get(inode.owner).into(),
        group: tables.names().get(inode.group).into(),
        modified: inode.modified,
        accessed,
    }
}

/// Whether a block's length is final.
pub(crate) fn is_committed(row: &BlockRow) -> bool {
    row.state == BlockState::Committed
}
