//! Opening a closed file again: append. HDFS's `FSDirAppendOp`.
//!
//! Where the last block's replicas are is soft state and comes with the command; if that block is another
//! one by now, nothing is opened and the leader looks again.

use mobula_types::Target;

use crate::apply::{Answer, Apply};
use crate::block::last_block;
use crate::command::{Append, Caller, LastBlock};
use crate::error::NamespaceError;
use crate::lease::open_mut;
use crate::outcome::{Appended, BlockEffect, BlockState, FileBlock, Outcome};
use crate::permission::{Check, WRITE, check};
use crate::record::Construction;
use crate::resolve::{Aim, Walk};
use crate::table::TableError;

/// `CreateFlag.NEW_BLOCK` on the wire.
const FLAG_NEW_BLOCK: u32 = 32;

impl Apply<'_, '_> {
    pub(crate) fn append(&mut self, caller: &Caller, append: &Append) -> Answer {
        let mut walk = self.resolve(caller, &append.path, Aim::Write, "append")?;
        if walk.last().is_some_and(|last| last.is_directory()) {
            return Err(NamespaceError::AppendToDirectory(walk.text()));
        }
        let asked = Check { access: WRITE, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        if walk.last().is_none() {
            let (path, machine) = (walk.text(), caller.machine.clone());
            return Err(NamespaceError::NothingToAppendTo { path, machine });
        }
        self.contend(caller, &append.holder, append.holder_renewed, &mut walk, "APPEND_FILE")?;
        let block = self.block_to_append_to(&walk, append)?;
        self.open_again(caller, &append.holder, &mut walk);
        if let Some(block) = block.as_ref().filter(|_| append.flags & FLAG_NEW_BLOCK == 0) {
            self.reopen_last(&mut walk, block.targets.clone())?;
        }
        self.save(&walk, walk.depth)?;
        let status = self.status(&walk.nodes[walk.depth], walk.name(walk.depth));
        Ok(Outcome::Appended(Appended { status, block }))
    }

    /// What the client writes on: nothing if it must ask for a new block at once. With NEW_BLOCK the last block
    /// without its nodes, which the client names when it asks.
    fn block_to_append_to(
        &self,
        walk: &Walk<'_>,
        append: &Append,
    ) -> Result<Option<FileBlock>, NamespaceError> {
        let inode = walk.last().expect("a file was found");
        let file = inode.file().expect("a file was found");
        let Some((id, row)) = last_block(&self.tables, inode.id, file)? else { return Ok(None) };
        let (block, offset) = (row.block(id), row.offset);
        if append.flags & FLAG_NEW_BLOCK != 0 {
            return Ok(Some(FileBlock { block, offset, state: BlockState::Committed, targets: Vec::new() }));
        }
        if row.length >= file.block_size {
            return Ok(None);
        }
        match &append.last {
            Some(LastBlock { block: seen, targets }) if *seen == block => {
                let (state, targets) = (BlockState::UnderConstruction, targets.clone());
                Ok(Some(FileBlock { block, offset, state, targets }))
            }
            _ => Err(NamespaceError::LastBlockMoved(walk.text())),
        }
    }

    /// Gives a closed file to a writer (`INodeFile.toUnderConstruction`). Its record is not written.
    pub(crate) fn open_again(&mut self, caller: &Caller, holder: &str, walk: &mut Walk<'_>) {
        let construction = Construction {
            holder: holder.to_owned(),
            machine: caller.machine.clone(),
            since: self.now(),
            ..Construction::default()
        };
        let last = walk.nodes.last_mut().expect("a file was found");
        let file = last.file_mut().expect("a file was found");
        assert!(file.open.is_none(), "contended for: closed");
        file.open = Some(Box::new(construction));
        self.take_lease(holder);
    }

    /// Takes the committed last block of a file that was opened again under construction, its stamp and length
    /// as they were (`BlockManager.convertLastBlockToUnderConstruction`). The file's record is not written.
    pub(crate) fn reopen_last(
        &mut self,
        walk: &mut Walk<'_>,
        targets: Vec<Target>,
    ) -> Result<(), TableError> {
        let last = walk.nodes.last_mut().expect("a file was found");
        let inode = last.id;
        let file = last.file_mut().expect("a file was found");
        let Some((id, mut row)) = last_block(&self.tables, inode, file)? else { return Ok(()) };
        assert_eq!(row.state, BlockState::Committed, "{id} of a closed file");
        row.state = BlockState::UnderConstruction;
        file.length -= row.length;
        let open = open_mut(walk);
        open.open_length = row.length;
        open.kept = row.length;
        open.targets.clone_from(&targets);
        self.put_block(id, &row)?;
        let (block, replication) = (row.block(id), row.replication);
        self.effects.push(BlockEffect::Reopened { block, replication, targets });
        Ok(())
    }
}
