//! What the fleet asks of the namespace. `namenode` answers it from the namespace's published view.

use mobula_types::{Block, BlockId};

/// A block that some file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableBlock {
    /// Id, stamp and length; the length is final only if `committed`.
    pub block: Block,
    /// Target number of replicas.
    pub replication: u16,
    /// Length and stamp are final: it counts for healing.
    pub committed: bool,
}

/// The block table, at one moment.
pub trait BlockTable {
    /// The block, if a file has it.
    fn block(&self, id: BlockId) -> Option<TableBlock>;

    /// Up to `count` blocks from `from` on, ascending by id: for merge-joins and scans.
    fn blocks_from(&self, from: BlockId, count: usize) -> Vec<TableBlock>;

    /// The next id that will be handed out: a replica with this or a higher one belongs to a future
    /// that this view has not seen, and is kept aside, never invalidated (D15).
    fn next_block(&self) -> BlockId;
}
