//! A writer whose pipeline lost a node goes on with others, under a new stamp that leaves the lost replica
//! behind. HDFS's `FSNamesystem.bumpBlockGenerationStamp` and `updatePipeline`.

use mobula_types::{Block, BlockId};

use crate::apply::{Answer, Apply, is_committed};
use crate::command::UpdatePipeline;
use crate::error::NamespaceError;
use crate::lease::open_mut;
use crate::outcome::{BlockEffect, Outcome};
use crate::record::BlockRow;
use crate::resolve::{self, Walk};
use crate::table::Read;

impl Apply<'_, '_> {
    /// The block stays as it is: until `updatePipeline` the old replicas are good.
    pub(crate) fn update_block_for_pipeline(&mut self, block: Block, holder: &str) -> Answer {
        self.block_under_construction(block, holder)?;
        let stamp = self.next_stamp();
        Ok(Outcome::Restamped(Block { stamp, ..block }))
    }

    pub(crate) fn update_pipeline(&mut self, update: &UpdatePipeline) -> Answer {
        let (old, new) = (self.full_name(update.old), self.full_name(update.new));
        if update.new.id != update.old.id {
            return Err(NamespaceError::PipelineOfAnother { new, old });
        }
        let (mut walk, id, mut row) = self.block_under_construction(update.old, &update.holder)?;
        if update.new.stamp <= row.stamp {
            let last = row.block(id).to_string();
            return Err(NamespaceError::PipelineStampOld { old, new, last });
        }
        if update.new.stamp >= self.state.next_stamp {
            return Err(NamespaceError::PipelineStampUnknown { old, new });
        }
        if update.new.length < row.length {
            let (old_length, new_length) = (update.old.length, update.new.length);
            return Err(NamespaceError::PipelineShrinks { old, old_length, new, new_length });
        }
        row.stamp = update.new.stamp;
        row.length = update.new.length;
        let open = open_mut(&mut walk);
        open.open_length = row.length;
        open.targets.clone_from(&update.targets);
        self.put_block(id, &row)?;
        self.save(&walk, walk.depth)?;
        let (block, targets) = (row.block(id), update.targets.clone());
        self.effects.push(BlockEffect::Pipeline { block, targets });
        Ok(Outcome::Done)
    }

    /// `checkUCBlock`: the block is the open last one of a file that `holder` writes, and nobody recovers it.
    fn block_under_construction(
        &self,
        block: Block,
        holder: &str,
    ) -> Result<(Walk<'static>, BlockId, BlockRow), NamespaceError> {
        let name = self.full_name(block);
        let Some(row) = self.tables.block_row(block.id)? else {
            return Err(NamespaceError::BlockMissing(name));
        };
        let walk = resolve::chain(&self.tables, row.inode)?;
        let open = walk.as_ref().and_then(|walk| walk.last()?.file()?.open.as_deref());
        let state = match (is_committed(&row), open) {
            (true, Some(_)) => Some("COMMITTED"),
            (true, None) => Some("COMPLETE"),
            (false, Some(open)) if open.recovery.is_some() => Some("UNDER_RECOVERY"),
            (false, _) => None,
        };
        if let Some(state) = state {
            return Err(NamespaceError::UnexpectedBlockState { block: name, state });
        }
        let Some(open) = open else {
            return Err(NamespaceError::BlockOfNothing(row.block(block.id).to_string()));
        };
        if open.holder != holder {
            return Err(NamespaceError::LeaseMismatch { block: name, holder: holder.to_owned() });
        }
        Ok((walk.expect("an open file was found"), block.id, row))
    }

    /// As HDFS prints an `ExtendedBlock`.
    pub(crate) fn full_name(&self, block: Block) -> String {
        let pool = self.state.format.as_ref().map_or("", |format| format.pool.as_str());
        format!("{pool}:{block}")
    }
}
