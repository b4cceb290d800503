//! What the fleet wants done.

use mobula_types::{Block, GenStamp, Target};

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
    /// BlockRecoveryCommand: bring the replicas of an open block to one length and stamp.
    Recover {
        /// Id, stamp as it is now.
        block: Block,
        /// The recovery's id, and the block's stamp afterwards.
        recovery: GenStamp,
        /// Where replicas are expected, the receiver of the order among them.
        targets: Vec<Target>,
        /// Cut to this length, bytes.
        truncate: Option<u64>,
    },
    /// DNA_REGISTER: register again, then report in full.
    Register,
}
