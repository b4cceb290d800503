//! The field's nouns as types: ids, units, blocks, storages, paths. The bottom of the house: every
//! crate may use it, and it knows no wire format, clock, socket or disk.

pub mod block;
pub mod id;
pub mod path;
pub mod storage;

pub use block::{Block, ExtendedBlock, ReplicaState, StoredReplica};
pub use id::{BlockId, ClientId, DatanodeUuid, GenStamp, InodeId, Millis, PoolId, StorageUuid};
pub use path::{HdfsPath, PathError};
pub use storage::{DatanodeId, StorageReport, StorageState, StorageType, Target};
