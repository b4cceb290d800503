//! Cutting a closed file. HDFS's `FSDirTruncateOp`: at a block's border at once; inside a block by a recovery,
//! in which the DataNodes cut their replicas under a new stamp. Until it ends the file is open, the caller
//! holds its lease, and the block has its old length for readers.

use mobula_types::{BlockId, InodeId};

use crate::apply::{Answer, Apply};
use crate::command::{Caller, LastBlock, Truncate};
use crate::error::{Contended, NamespaceError};
use crate::lease::{file_of, open_mut};
use crate::outcome::Outcome;
use crate::permission::{Check, WRITE, check};
use crate::record::{BlockRow, File};
use crate::resolve::{Aim, Walk};
use crate::table::{Read, TableError};

const OPERATION: &str = "TRUNCATE_FILE";

impl Apply<'_, '_> {
    pub(crate) fn truncate(&mut self, caller: &Caller, truncate: &Truncate) -> Answer {
        let mut walk = self.resolve(caller, &truncate.path, Aim::Write, "truncate")?;
        let asked = Check { access: WRITE, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        if self.is_being_cut(caller, truncate, &walk)? {
            return Ok(Outcome::Bool(false));
        }
        self.contend(caller, &truncate.holder, truncate.holder_renewed, &mut walk, OPERATION)?;
        let file = file_of(&walk)?;
        let (have, asked) = (file.length, truncate.length);
        if have == asked {
            return Ok(Outcome::Bool(true));
        }
        if have < asked {
            return Err(NamespaceError::TruncateLonger { have, asked });
        }
        let id = walk.last().expect("a file was found").id;
        let end = self.new_end(id, file, asked)?;
        let cut = end.as_ref().filter(|end| end.row.offset + end.row.length > asked);
        if let Some(end) = cut {
            check_seen(truncate, end, &walk)?;
        }
        self.drop_beyond(&mut walk, end.as_ref().map_or(0, |end| end.index + 1))?;
        let now = self.now();
        walk.nodes.last_mut().expect("a file was found").modified = now;
        let whole = cut.is_none();
        if let Some(end) = cut {
            self.cut_last(caller, truncate, &mut walk, asked - end.row.offset)?;
        }
        self.save(&walk, walk.depth)?;
        Ok(Outcome::Bool(whole))
    }

    /// Whether a truncation to the same length runs already; refused if it is to another.
    fn is_being_cut(
        &self,
        caller: &Caller,
        truncate: &Truncate,
        walk: &Walk<'_>,
    ) -> Result<bool, NamespaceError> {
        let file = file_of(walk)?;
        let Some(open) = &file.open else { return Ok(false) };
        let Some(length) = open.recovery.and_then(|recovery| recovery.truncate) else { return Ok(false) };
        if truncate.length == file.length + length {
            return Ok(true);
        }
        let of = Contended {
            path: walk.text(),
            holder: truncate.holder.clone(),
            machine: caller.machine.clone(),
            owner: open.holder.clone(),
            owner_machine: open.machine.clone(),
        };
        Err(NamespaceError::BeingTruncated { operation: OPERATION, of: Box::new(of) })
    }

    /// The block that holds the last byte of the file as it will be; none if that will be empty.
    fn new_end(&self, inode: InodeId, file: &File, length: u64) -> Result<Option<End>, TableError> {
        let (mut low, mut high) = (0, if length == 0 { 0 } else { file.blocks });
        let mut end = None;
        // Offsets rise: the last block that begins before the new end.
        while low < high {
            let index = low + (high - low) / 2;
            let id = self.tables.block_at(inode, file.first, index)?;
            let row = self.tables.file_block_row(inode, id)?;
            if row.offset < length {
                end = Some(End { index, id, row });
                low = index + 1;
            } else {
                high = index;
            }
        }
        Ok(end)
    }

    /// Takes the blocks from the end down to as many as `blocks`. The file's record is not written.
    fn drop_beyond(&mut self, walk: &mut Walk<'_>, blocks: u32) -> Result<(), TableError> {
        while walk.last().and_then(|last| last.file()).is_some_and(|file| file.blocks > blocks) {
            self.drop_last(walk)?;
        }
        Ok(())
    }

    /// Opens the file for the caller and begins the recovery that leaves `length` bytes of its last block.
    fn cut_last(
        &mut self,
        caller: &Caller,
        truncate: &Truncate,
        walk: &mut Walk<'_>,
        length: u64,
    ) -> Result<(), TableError> {
        let targets = truncate.last.as_ref().map_or_else(Vec::new, |last| last.targets.clone());
        self.open_again(caller, &truncate.holder, walk);
        self.reopen_last(walk, targets)?;
        open_mut(walk).kept = length;
        self.begin_recovery(walk, Some(length))
    }
}

/// The last block of a file as it will be.
struct End {
    index: u32,
    id: BlockId,
    row: BlockRow,
}

/// The leader looked up the replicas of the block that is to be cut.
fn check_seen(truncate: &Truncate, end: &End, walk: &Walk<'_>) -> Result<(), NamespaceError> {
    match &truncate.last {
        Some(LastBlock { block, .. }) if *block == end.row.block(end.id) => Ok(()),
        _ => Err(NamespaceError::LastBlockMoved(walk.text())),
    }
}
