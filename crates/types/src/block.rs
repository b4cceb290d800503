//! Blocks and what DataNodes say of their replicas.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{BlockId, GenStamp, PoolId};

/// A block at one version: HDFS's `Block`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Block {
    /// Which block.
    pub id: BlockId,
    /// Which version of it.
    pub stamp: GenStamp,
    /// Its length in bytes.
    pub length: u64,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.id, self.stamp)
    }
}

/// A block with the pool that it belongs to: HDFS's `ExtendedBlock`, printed as HDFS prints it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtendedBlock {
    /// The pool.
    pub pool: PoolId,
    /// The block.
    pub block: Block,
}

impl fmt::Display for ExtendedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pool, self.block)
    }
}

/// The state of a replica on a DataNode, with HDFS's numbers (`HdfsServerConstants.ReplicaState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum ReplicaState {
    /// Closed: its bytes do not change.
    Finalized = 0,
    /// Being written.
    Rbw = 1,
    /// Was being written when the DataNode stopped; waits for recovery.
    Rwr = 2,
    /// Under recovery.
    Rur = 3,
    /// Being copied from another DataNode; never reported.
    Temporary = 4,
}

impl ReplicaState {
    /// The state with that number on the wire.
    pub fn from_number(number: u64) -> Option<ReplicaState> {
        Some(match number {
            0 => ReplicaState::Finalized,
            1 => ReplicaState::Rbw,
            2 => ReplicaState::Rwr,
            3 => ReplicaState::Rur,
            4 => ReplicaState::Temporary,
            _ => return None,
        })
    }
}

/// A replica as a DataNode reports it; `block.length` is what is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoredReplica {
    /// Id, stamp and length on disk.
    pub block: Block,
    /// Its state.
    pub state: ReplicaState,
}
