//! The recovery of a file's last block: a lease that is taken from its holder leaves a block whose replicas
//! differ. A DataNode brings them to one length under a new stamp, the recovery id, and reports it; then the
//! file is closed. HDFS's `FSNamesystem.internalReleaseLease` and `commitBlockSynchronization`.
//!
//! Recovery ids are stamps, so they grow: a second recovery leaves the first one's report without effect, and
//! no writer's stamp that was given out before is above them (HDFS-7065). While a recovery runs nobody else
//! commits the block, changes its pipeline or abandons it.

use mobula_types::{GenStamp, InodeId};

use crate::apply::{Answer, Apply, is_committed};
use crate::block::last_block;
use crate::command::CommitBlockSynchronization;
use crate::error::NamespaceError;
use crate::lease::open_mut;
use crate::outcome::{BlockEffect, BlockState, Outcome, Recovery};
use crate::record::BlockRow;
use crate::resolve::{self, Walk};
use crate::table::{Read, TableError};

impl Apply<'_, '_> {
    /// `internalReleaseLease`: closes the file if its last block is committed, or has nothing; else the
    /// lease goes to `holder` and the last block's recovery begins. Says whether it is closed.
    pub(crate) fn release(&mut self, walk: &mut Walk<'_>, holder: &str) -> Result<bool, TableError> {
        if self.last_is_open(walk)? {
            let open = open_mut(walk);
            if !(open.targets.is_empty() && open.open_length == 0) {
                if open.recovery.is_none() {
                    self.begin_recovery(walk, None)?;
                }
                self.pass_lease(walk, holder)?;
                self.save(walk, walk.depth)?;
                return Ok(false);
            }
            self.drop_last(walk)?;
        }
        self.close(walk)?;
        Ok(true)
    }

    /// Gives out a recovery id for the open last block, and orders its recovery. The file's record is not
    /// written.
    pub(crate) fn begin_recovery(
        &mut self,
        walk: &mut Walk<'_>,
        truncate: Option<u64>,
    ) -> Result<(), TableError> {
        let id = self.next_stamp();
        let recovery = Recovery { id, began: self.now(), truncate };
        let open = open_mut(walk);
        open.recovery = Some(recovery);
        let targets = open.targets.clone();
        let inode = walk.last().expect("an open file");
        let last = last_block(&self.tables, inode.id, inode.file().expect("an open file"))?;
        if let Some((block, row)) = last {
            let block = row.block(block);
            self.effects.push(BlockEffect::Recover { block, recovery: id, targets, truncate });
        }
        Ok(())
    }

    fn pass_lease(&mut self, walk: &mut Walk<'_>, holder: &str) -> Result<(), TableError> {
        let file = walk.last().expect("an open file").id;
        let open = open_mut(walk);
        if open.holder == holder {
            return Ok(());
        }
        let old = std::mem::replace(&mut open.holder, holder.to_owned());
        self.drop_lease(file, &old)?;
        self.take_lease(holder);
        Ok(())
    }

    /// Begins a recovery again that did not end in time, if it is still that one.
    pub(crate) fn retry_recovery(&mut self, file: InodeId, recovery: GenStamp) -> Answer {
        let Some(mut walk) = resolve::chain(&self.tables, file)? else { return Ok(Outcome::Done) };
        let open = walk.last().and_then(|last| last.file()?.open.as_deref());
        let Some(running) = open.and_then(|open| open.recovery) else { return Ok(Outcome::Done) };
        if running.id == recovery {
            self.begin_recovery(&mut walk, running.truncate)?;
            self.save(&walk, walk.depth)?;
        }
        Ok(Outcome::Done)
    }

    /// How a recovery ended. Said again once the file is closed it changes nothing.
    pub(crate) fn commit_block_synchronization(&mut self, commit: &CommitBlockSynchronization) -> Answer {
        let name = self.full_name(commit.block);
        let Some(stored) = self.tables.block_row(commit.block.id)? else {
            return if commit.delete {
                Ok(Outcome::Done)
            } else {
                Err(NamespaceError::RecoveredNotFound(name))
            };
        };
        let Some(mut walk) = resolve::chain(&self.tables, stored.inode)? else {
            let path = format!("/.reserved/.inodes/{}", stored.inode);
            return Err(NamespaceError::RecoveredFileGone(path));
        };
        let inode = walk.last().expect("a block's file");
        let file = inode.file().expect("a block's file");
        let Some((last, row)) = last_block(&self.tables, inode.id, file)? else {
            return Err(NamespaceError::RecoveredNotFound(name));
        };
        let open = match &file.open {
            Some(open) if !is_committed(&row) => open,
            _ => return Ok(Outcome::Done),
        };
        let current = open.recovery.filter(|recovery| recovery.id == commit.stamp && last == commit.block.id);
        let Some(recovery) = current else {
            let (submitted, current) = (commit.stamp.0, open.recovery.map_or(0, |recovery| recovery.id.0));
            return Err(NamespaceError::RecoveryMismatch { submitted, current, block: name });
        };
        check_recovered(commit, recovery, open.kept, || name)?;
        if commit.delete {
            self.drop_last(&mut walk)?;
        } else {
            self.take_recovered(&mut walk, commit, row)?;
        }
        match commit.close {
            true => self.close(&mut walk)?,
            false => self.save(&walk, walk.depth)?,
        }
        Ok(Outcome::Done)
    }

    /// The block has its new stamp and length. The file's record is not written.
    fn take_recovered(
        &mut self,
        walk: &mut Walk<'_>,
        commit: &CommitBlockSynchronization,
        mut row: BlockRow,
    ) -> Result<(), TableError> {
        row.stamp = commit.stamp;
        row.length = commit.length;
        let open = open_mut(walk);
        open.recovery = None;
        open.open_length = commit.length;
        open.kept = commit.length; // The DataNodes synced it.
        open.targets.clone_from(&commit.targets);
        let block = row.block(commit.block.id);
        self.effects.push(BlockEffect::Recovered { block, targets: commit.targets.clone() });
        if !commit.close {
            return self.put_block(block.id, &row);
        }
        row.state = BlockState::Committed;
        let file = walk.nodes.last_mut().and_then(|last| last.file_mut()).expect("an open file");
        file.length += row.length;
        self.put_block(block.id, &row)?;
        self.effects.push(BlockEffect::Committed { block, replication: row.replication });
        Ok(())
    }
}

/// HDFS believes its DataNodes here. A primary that saw only the worse half of the replicas is not believed:
/// the recovery is begun again, until the better half is back.
fn check_recovered(
    commit: &CommitBlockSynchronization,
    recovery: Recovery,
    kept: u64,
    name: impl FnOnce() -> String,
) -> Result<(), NamespaceError> {
    let length = if commit.delete { 0 } else { commit.length };
    match recovery.truncate {
        Some(asked) if length != asked => {
            Err(NamespaceError::RecoveryNotCut { recovery: recovery.id.0, block: name(), length, asked })
        }
        None if length < kept => {
            Err(NamespaceError::RecoveryLoses { recovery: recovery.id.0, block: name(), length, kept })
        }
        _ => Ok(()),
    }
}
