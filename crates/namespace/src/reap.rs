//! Trees that were deleted: cut off at once, removed in steps. A directory that was cut off has no
//! entry and no place any more, so that nothing below it can be reached, neither by path nor by id; its
//! row in `reap` is all that leads to its children.

use mobula_types::InodeId;
use redb::ReadableTable;

use crate::apply::Apply;
use crate::record::Inode;
use crate::table::{Go, Read, TableError};

/// A tree of up to so many inodes goes with its `delete`; of a larger one the first so many.
pub(crate) const DELETE_INODES_MAX: u32 = 256;

/// What one `Reap` does at most, whatever it asks for.
const REAP_INODES_MAX: u32 = 65_536;

impl Apply<'_, '_> {
    /// Cuts off a directory that has children; its entry is gone already.
    pub(crate) fn cut_off(&mut self, directory: &Inode) -> Result<(), TableError> {
        self.tables.inodes.remove(directory.id.0)?;
        self.tables.reap.insert(directory.id.0, [].as_slice())?;
        self.state.reap += 1;
        // Others that wait have their turn with the leader's `Reap`: a delete's own work is bounded.
        if self.state.reap == 1 { self.reap(DELETE_INODES_MAX) } else { Ok(()) }
    }

    /// Removes up to `inodes` inodes of trees that were cut off.
    pub(crate) fn reap(&mut self, inodes: u32) -> Result<(), TableError> {
        self.tables.flush()?; // Children are listed below.
        let mut left = inodes.min(REAP_INODES_MAX) as usize;
        while left > 0 {
            let Some(directory) = self.tables.reap.first()?.map(|(id, _)| InodeId(id.value())) else { break };
            let mut children: Vec<(Vec<u8>, Inode)> = Vec::new();
            self.tables.children(directory, None, |name, child| {
                children.push((name.to_vec(), child));
                Ok(if children.len() < left { Go::On } else { Go::Stop })
            })?;
            let emptied = children.len() < left;
            for (name, child) in &children {
                self.remove_entry(directory, name)?;
                match child.directory() {
                    Some(inner) if inner.children > 0 => {
                        self.tables.inodes.remove(child.id.0)?;
                        self.tables.reap.insert(child.id.0, [].as_slice())?;
                        self.state.reap += 1;
                    }
                    _ => self.remove_inode(child)?,
                }
            }
            left -= children.len();
            if emptied {
                self.tables.reap.remove(directory.0)?;
                self.state.reap -= 1;
                self.state.directories -= 1;
                left = left.saturating_sub(1);
            }
        }
        Ok(())
    }
}
