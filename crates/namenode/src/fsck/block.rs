//! `-blockId`: single blocks, replica by replica.

use mobula_fleet::{Defect, Replica};
use mobula_namespace::{BlockRecord, TableError};
use mobula_types::{BlockId, HdfsPath};

use super::file::count_live;
use super::java::put;
use super::{Step, Told};
use crate::service::Service;

/// Blocks of one step.
const BLOCKS_A_STEP: usize = 100;

/// Blocks that are asked for.
#[derive(Debug)]
pub struct BlockCheck {
    ids: std::vec::IntoIter<String>,
}

impl BlockCheck {
    /// A check of blocks by the names that were given.
    pub fn new(ids: Vec<String>) -> BlockCheck {
        BlockCheck { ids: ids.into_iter() }
    }

    /// The next blocks.
    pub fn step(&mut self, service: &Service, told: &mut Told) -> Step {
        for text in self.ids.by_ref().take(BLOCKS_A_STEP) {
            if !text.contains("blk_") {
                put!(told.out, "Incorrect blockId format: {text}\n");
                continue;
            }
            told.out.push('\n');
            if let Err(error) = told.tell_block(service, &text) {
                tracing::warn!(block = text, %error, "fsck cannot look a block up");
                put!(told.out, "{error}\n\n\nFsck on blockId '{text}");
            }
        }
        if self.ids.len() == 0 { Step::Done } else { Step::More }
    }
}

impl Told {
    /// `NamenodeFsck.blockIdCK`.
    fn tell_block(&mut self, service: &Service, text: &str) -> Result<(), TableError> {
        let Some((record, path)) = found(service, text)? else {
            put!(self.out, "Block {text} does not exist\n");
            return Ok(());
        };
        let replicas = service.roster.ask(|fleet, _| fleet.replicas(record.block));
        let count = |wanted: fn(&Replica) -> bool| replicas.iter().filter(|replica| wanted(replica)).count();
        let out = &mut self.out;
        put!(out, "Block Id: {text}\nBlock belongs to: {path}\n");
        put!(out, "No. of Expected Replica: {}\n", record.replication);
        put!(out, "No. of live Replica: {}\n", count_live(&replicas));
        put!(out, "No. of excess Replica: {}\n", count(|replica| replica.bad.is_none() && replica.surplus));
        put!(out, "No. of stale Replica: {}\n", count(|replica| replica.unconfirmed));
        out.push_str("No. of decommissioned Replica: 0\nNo. of decommissioning Replica: 0\n");
        if self.request.options.maintenance {
            out.push_str("No. of entering maintenance Replica: 0\nNo. of in maintenance Replica: 0\n");
        }
        put!(out, "No. of corrupted Replica: {}\n", count(|replica| replica.bad.is_some()));
        // HDFS begins with the last.
        for replica in replicas.iter().rev() {
            let (host, rack) = (&replica.node.id.host_name, &replica.node.rack);
            put!(out, "Block replica on datanode/rack: {host}{rack} {}\n", state(replica));
        }
        Ok(())
    }
}

/// The block of that name, and its file; none if no file has it.
fn found(service: &Service, text: &str) -> Result<Option<(BlockRecord, HdfsPath)>, TableError> {
    let Some(id) = block_id(text) else { return Ok(None) };
    let view = service.view();
    let Some(record) = view.block(id)? else { return Ok(None) };
    Ok(view.path_of(record.inode)?.map(|path| (record, path)))
}

/// The block of `blk_N` or `blk_N_STAMP.meta` (`Block.getBlockId`).
fn block_id(text: &str) -> Option<BlockId> {
    let rest = text.strip_prefix("blk_")?;
    let number = match rest.split_once('_') {
        Some((number, stamp)) => {
            stamp.strip_suffix(".meta")?.parse::<u64>().ok()?;
            number
        }
        None => rest,
    };
    number.parse::<i64>().ok().map(|id| BlockId(id.cast_unsigned()))
}

fn state(replica: &Replica) -> &'static str {
    match replica {
        Replica { bad: Some(Defect::Stamp), .. } => "is CORRUPT\t ReasonCode: GENSTAMP_MISMATCH",
        Replica { bad: Some(Defect::Length), .. } => "is CORRUPT\t ReasonCode: SIZE_MISMATCH",
        Replica { bad: Some(Defect::State), .. } => "is CORRUPT\t ReasonCode: INVALID_STATE",
        Replica { bad: Some(Defect::Reported), .. } => "is CORRUPT\t ReasonCode: CORRUPTION_REPORTED",
        Replica { suspect: true, .. } => "is STALE",
        Replica { surplus: true, .. } => "is EXCESS",
        _ => "is HEALTHY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_blocks() {
        assert_eq!(block_id("blk_1073741825"), Some(BlockId(1_073_741_825)));
        assert_eq!(block_id("blk_1073741825_1001.meta"), Some(BlockId(1_073_741_825)));
        for none in ["", "blk_", "1073741825", "blk_1_2", "blk_x", "blk_99999999999999999999", "ablk_1"] {
            assert_eq!(block_id(none), None, "{none}");
        }
    }
}
