//! DataNodes and their volumes, as NameNode, DataNode and client name them to each other.

use serde::{Deserialize, Serialize};

use crate::id::{DatanodeUuid, StorageUuid};

/// What a volume is made of, with HDFS's numbers on the wire (`StorageTypeProto`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum StorageType {
    /// A spinning disk, or anything: HDFS's default.
    #[default]
    Disk = 1,
    /// Flash.
    Ssd = 2,
    /// Dense and slow.
    Archive = 3,
    /// Memory, written out lazily.
    RamDisk = 4,
    /// Outside storage.
    Provided = 5,
    /// Persistent memory.
    Nvdimm = 6,
}

impl StorageType {
    /// The type with that number on the wire.
    pub fn from_number(number: i32) -> Option<StorageType> {
        Some(match number {
            1 => StorageType::Disk,
            2 => StorageType::Ssd,
            3 => StorageType::Archive,
            4 => StorageType::RamDisk,
            5 => StorageType::Provided,
            6 => StorageType::Nvdimm,
            _ => return None,
        })
    }

    /// HDFS's name of it, as in `[DISK]/data/1`.
    pub fn name(self) -> &'static str {
        match self {
            StorageType::Disk => "DISK",
            StorageType::Ssd => "SSD",
            StorageType::Archive => "ARCHIVE",
            StorageType::RamDisk => "RAM_DISK",
            StorageType::Provided => "PROVIDED",
            StorageType::Nvdimm => "NVDIMM",
        }
    }
}

/// Whether a volume takes writes (`DatanodeStorageProto.StorageState`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StorageState {
    /// Reads and writes.
    #[default]
    Normal,
    /// Shared between nodes, read only.
    ReadOnlyShared,
}

/// A DataNode and where it listens: HDFS's `DatanodeID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DatanodeId {
    /// Address that others connect to.
    pub ip: String,
    /// Its own name for its host.
    pub host_name: String,
    /// Its identity, whatever the address.
    pub uuid: DatanodeUuid,
    /// Port of the data-transfer protocol.
    pub xfer_port: u16,
    /// Port of its web pages, 0 for none.
    pub info_port: u16,
    /// Port of its TLS web pages, 0 for none.
    pub info_secure_port: u16,
    /// Port of its RPC server.
    pub ipc_port: u16,
}

impl DatanodeId {
    /// `ip:port` of the data-transfer protocol: how HDFS names a node in a pipeline.
    pub fn xfer_address(&self) -> String {
        format!("{}:{}", self.ip, self.xfer_port)
    }
}

/// One volume's figures in a heartbeat, in bytes (`StorageReportProto`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageReport {
    /// Which volume.
    pub storage: StorageUuid,
    /// Its medium.
    pub kind: StorageType,
    /// Whether it takes writes.
    pub state: StorageState,
    /// The volume is out of use.
    pub failed: bool,
    /// Size, less what is reserved.
    pub capacity: u64,
    /// Used by replicas of all pools.
    pub dfs_used: u64,
    /// Free for replicas.
    pub remaining: u64,
    /// Used by replicas of this pool.
    pub pool_used: u64,
    /// Used by others on the same disk.
    pub non_dfs_used: u64,
}

/// A place for a replica: one volume of one DataNode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The DataNode.
    pub datanode: DatanodeUuid,
    /// Its volume (a hint: DataNodes choose among those of the type).
    pub storage: StorageUuid,
    /// The volume's medium.
    pub kind: StorageType,
}
