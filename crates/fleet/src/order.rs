//! What the fleet wants done.

use mobula_types::{Block, Target};

/// An order for one DataNode, sent in the answer to its next heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// DNA_TRANSFER: copy a finalized replica to these targets.
    Copy {
        /// What, with its final length and stamp.
        block: Block,
        /// Where to.
        targets: Vec<Target>,
    },
    /// DNA_INVALIDATE: remove these replicas.
    Delete {
        /// Exact stamps.
        blocks: Vec<Block>,
    },
    /// DNA_REGISTER: register again, then report in full.
    Register,
}
