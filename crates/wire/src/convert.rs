//! Between messages and the field's nouns. `x(&XProto)` reads and checks, `x_proto(&X)` writes.
//!
//! prost reads a missing required field as its default; what must not be empty is checked here.

use mobula_proto::common::TokenProto;
use mobula_proto::hdfs::{
    BlockProto, DatanodeIdProto, DatanodeInfoProto, DatanodeStorageProto, ExtendedBlockProto,
    ReplicaStateProto, StorageReportProto, StorageTypeProto, datanode_info_proto::AdminState,
    datanode_storage_proto,
};
use mobula_types::{
    Block, BlockId, ClientId, DatanodeId, DatanodeUuid, ExtendedBlock, GenStamp, PoolId, ReplicaState,
    StorageReport, StorageState, StorageType, StorageUuid,
};

use crate::WireError;

/// The rack of a node without one; Java clients choke on none at all.
pub const DEFAULT_RACK: &str = "/default-rack";
/// Bytes of a client's id.
pub const CLIENT_ID_LENGTH: usize = 16;

/// Reads a block without its pool.
///
/// # Errors
/// [`WireError::OutOfRange`] for a length above 2^63, which is negative in Java.
pub fn block(proto: &BlockProto) -> Result<Block, WireError> {
    let BlockProto { block_id, gen_stamp, num_bytes } = *proto;
    Ok(Block { id: BlockId(block_id), stamp: GenStamp(gen_stamp), length: length(num_bytes.unwrap_or(0))? })
}

/// Writes a block without its pool.
pub fn block_proto(block: &Block) -> BlockProto {
    BlockProto { block_id: block.id.0, gen_stamp: block.stamp.0, num_bytes: Some(block.length) }
}

/// Reads a block with its pool.
///
/// # Errors
/// [`WireError`] without a pool, or for a length above 2^63.
pub fn extended_block(proto: &ExtendedBlockProto) -> Result<ExtendedBlock, WireError> {
    let ExtendedBlockProto { pool_id, block_id, generation_stamp, num_bytes } = proto;
    if pool_id.is_empty() {
        return Err(WireError::Missing { what: "a block's pool" });
    }
    let block = Block {
        id: BlockId(*block_id),
        stamp: GenStamp(*generation_stamp),
        length: length(num_bytes.unwrap_or(0))?,
    };
    Ok(ExtendedBlock { pool: PoolId::from(pool_id.as_str()), block })
}

/// Writes a block with its pool.
pub fn extended_block_proto(block: &ExtendedBlock) -> ExtendedBlockProto {
    pool_block_proto(&block.pool, &block.block)
}

/// Writes a block and its pool.
pub fn pool_block_proto(pool: &PoolId, block: &Block) -> ExtendedBlockProto {
    ExtendedBlockProto {
        pool_id: pool.as_str().into(),
        block_id: block.id.0,
        generation_stamp: block.stamp.0,
        num_bytes: Some(block.length),
    }
}

fn length(bytes: u64) -> Result<u64, WireError> {
    match i64::try_from(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(WireError::OutOfRange {
            what: "length of a block",
            value: bytes as i64,
            min: 0,
            max: i64::MAX,
        }),
    }
}

/// Reads a DataNode's addresses.
///
/// # Errors
/// [`WireError`] for a port above 65535. An empty uuid is for the caller to judge.
pub fn datanode_id(proto: &DatanodeIdProto) -> Result<DatanodeId, WireError> {
    let DatanodeIdProto {
        ip_addr,
        host_name,
        datanode_uuid,
        xfer_port,
        info_port,
        ipc_port,
        info_secure_port,
    } = proto;
    Ok(DatanodeId {
        ip: ip_addr.clone(),
        host_name: host_name.clone(),
        uuid: DatanodeUuid::from(datanode_uuid.as_str()),
        xfer_port: port("data-transfer port", *xfer_port)?,
        info_port: port("HTTP port", *info_port)?,
        info_secure_port: port("HTTPS port", info_secure_port.unwrap_or(0))?,
        ipc_port: port("IPC port", *ipc_port)?,
    })
}

/// Writes a DataNode's addresses.
pub fn datanode_id_proto(id: &DatanodeId) -> DatanodeIdProto {
    let DatanodeId { ip, host_name, uuid, xfer_port, info_port, info_secure_port, ipc_port } = id;
    DatanodeIdProto {
        ip_addr: ip.clone(),
        host_name: host_name.clone(),
        datanode_uuid: uuid.as_str().into(),
        xfer_port: (*xfer_port).into(),
        info_port: (*info_port).into(),
        ipc_port: (*ipc_port).into(),
        info_secure_port: Some((*info_secure_port).into()),
    }
}

fn port(what: &'static str, number: u32) -> Result<u16, WireError> {
    let max = u16::MAX.into();
    u16::try_from(number).map_err(|_| WireError::OutOfRange { what, value: number.into(), min: 0, max })
}

/// The node of a message about one.
///
/// # Errors
/// As [`datanode_id`].
pub fn datanode_info_id(proto: &DatanodeInfoProto) -> Result<DatanodeId, WireError> {
    datanode_id(&proto.id)
}

/// A message about a node with nothing but its addresses and what Java needs: rack and state.
pub fn datanode_info_proto(id: &DatanodeId) -> DatanodeInfoProto {
    DatanodeInfoProto {
        id: datanode_id_proto(id),
        location: Some(DEFAULT_RACK.into()),
        admin_state: Some(AdminState::Normal as i32),
        ..DatanodeInfoProto::default()
    }
}

/// Reads a medium.
///
/// # Errors
/// [`WireError::Unknown`].
pub fn storage_type(number: i32) -> Result<StorageType, WireError> {
    StorageType::from_number(number).ok_or(WireError::Unknown { what: "storage type", value: number.into() })
}

/// Reads a medium that may be left out, as DISK.
///
/// # Errors
/// [`WireError::Unknown`].
pub fn storage_type_or_disk(number: Option<i32>) -> Result<StorageType, WireError> {
    number.map_or(Ok(StorageType::Disk), storage_type)
}

/// A medium in messages.
pub fn storage_type_proto(kind: StorageType) -> StorageTypeProto {
    match kind {
        StorageType::Disk => StorageTypeProto::Disk,
        StorageType::Ssd => StorageTypeProto::Ssd,
        StorageType::Archive => StorageTypeProto::Archive,
        StorageType::RamDisk => StorageTypeProto::RamDisk,
        StorageType::Provided => StorageTypeProto::Provided,
        StorageType::Nvdimm => StorageTypeProto::Nvdimm,
    }
}

/// Reads a volume's state; one that we do not know takes no writes.
pub fn storage_state(number: Option<i32>) -> StorageState {
    match number {
        None | Some(0) => StorageState::Normal,
        Some(_) => StorageState::ReadOnlyShared,
    }
}

/// Writes a volume: its id, medium and state.
pub fn datanode_storage_proto(
    storage: &StorageUuid,
    kind: StorageType,
    state: StorageState,
) -> DatanodeStorageProto {
    let state = match state {
        StorageState::Normal => datanode_storage_proto::StorageState::Normal,
        StorageState::ReadOnlyShared => datanode_storage_proto::StorageState::ReadOnlyShared,
    };
    DatanodeStorageProto {
        storage_uuid: storage.as_str().into(),
        state: Some(state as i32),
        storage_type: Some(storage_type_proto(kind) as i32),
    }
}

/// Reads a volume: its id, medium and state.
///
/// # Errors
/// [`WireError`] without an id, or for an unknown medium.
pub fn datanode_storage(
    proto: &DatanodeStorageProto,
) -> Result<(StorageUuid, StorageType, StorageState), WireError> {
    let DatanodeStorageProto { storage_uuid, state, storage_type } = proto;
    Ok((storage_id(storage_uuid)?, storage_type_or_disk(*storage_type)?, storage_state(*state)))
}

fn storage_id(text: &str) -> Result<StorageUuid, WireError> {
    if text.is_empty() {
        return Err(WireError::Missing { what: "a volume's id" });
    }
    Ok(StorageUuid::from(text))
}

/// Reads one volume's figures.
///
/// # Errors
/// [`WireError`] without an id, or for an unknown medium.
pub fn storage_report(proto: &StorageReportProto) -> Result<StorageReport, WireError> {
    let StorageReportProto {
        storage_uuid,
        failed,
        capacity,
        dfs_used,
        remaining,
        block_pool_used,
        storage,
        non_dfs_used,
        mount: _,
    } = proto;
    let (storage, kind, state) = match storage {
        Some(storage) => datanode_storage(storage)?,
        // Senders before Hadoop 2.4.
        None => (storage_id(storage_uuid)?, StorageType::Disk, StorageState::Normal),
    };
    let (capacity, dfs_used) = (capacity.unwrap_or(0), dfs_used.unwrap_or(0));
    let remaining = remaining.unwrap_or(0);
    let others = capacity.saturating_sub(dfs_used).saturating_sub(remaining);
    Ok(StorageReport {
        storage,
        kind,
        state,
        failed: failed.unwrap_or(false),
        capacity,
        dfs_used,
        remaining,
        pool_used: block_pool_used.unwrap_or(0),
        non_dfs_used: non_dfs_used.unwrap_or(others),
    })
}

/// Writes one volume's figures.
pub fn storage_report_proto(report: &StorageReport) -> StorageReportProto {
    let StorageReport {
        storage,
        kind,
        state,
        failed,
        capacity,
        dfs_used,
        remaining,
        pool_used,
        non_dfs_used,
    } = report;
    StorageReportProto {
        storage_uuid: storage.as_str().into(),
        failed: Some(*failed),
        capacity: Some(*capacity),
        dfs_used: Some(*dfs_used),
        remaining: Some(*remaining),
        block_pool_used: Some(*pool_used),
        storage: Some(datanode_storage_proto(storage, *kind, *state)),
        non_dfs_used: Some(*non_dfs_used),
        mount: None,
    }
}

/// Reads a replica's state.
///
/// # Errors
/// [`WireError::Unknown`].
pub fn replica_state(number: i32) -> Result<ReplicaState, WireError> {
    let what = "state of a replica";
    let unknown = WireError::Unknown { what, value: number.into() };
    u64::try_from(number).ok().and_then(ReplicaState::from_number).ok_or(unknown)
}

/// A replica's state in messages.
pub fn replica_state_proto(state: ReplicaState) -> ReplicaStateProto {
    match state {
        ReplicaState::Finalized => ReplicaStateProto::Finalized,
        ReplicaState::Rbw => ReplicaStateProto::Rbw,
        ReplicaState::Rwr => ReplicaStateProto::Rwr,
        ReplicaState::Rur => ReplicaStateProto::Rur,
        ReplicaState::Temporary => ReplicaStateProto::Temporary,
    }
}

/// Reads a client's id; none at all is sixteen zeros.
///
/// # Errors
/// [`WireError::Differ`] for any other length than 16.
pub fn client_id(bytes: &[u8]) -> Result<ClientId, WireError> {
    if bytes.is_empty() {
        return Ok(ClientId::default());
    }
    let (left, right) = (CLIENT_ID_LENGTH as i64, bytes.len() as i64);
    let id = bytes.try_into().map_err(|_| WireError::Differ { what: "bytes of a client id", left, right })?;
    Ok(ClientId(id))
}

/// No token: its four fields are required, so they are there and empty.
pub fn empty_token() -> TokenProto {
    TokenProto::default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node() -> DatanodeId {
        DatanodeId {
            ip: "127.0.0.1".into(),
            host_name: "localhost".into(),
            uuid: "u".into(),
            xfer_port: 9866,
            info_port: 9864,
            info_secure_port: 0,
            ipc_port: 9867,
        }
    }

    #[test]
    fn nouns_survive_the_wire() {
        let block = Block { id: BlockId(7), stamp: GenStamp(1001), length: 12 };
        assert_eq!(super::block(&block_proto(&block)).unwrap(), block);
        let extended = ExtendedBlock { pool: "BP-1".into(), block };
        assert_eq!(extended_block(&extended_block_proto(&extended)).unwrap(), extended);
        assert_eq!(datanode_id(&datanode_id_proto(&node())).unwrap(), node());
        let report = StorageReport {
            storage: "DS-1".into(),
            kind: StorageType::Nvdimm,
            state: StorageState::ReadOnlyShared,
            failed: true,
            capacity: 10,
            dfs_used: 2,
            remaining: 3,
            pool_used: 4,
            non_dfs_used: 5,
        };
        assert_eq!(storage_report(&storage_report_proto(&report)).unwrap(), report);
        for number in 0..5 {
            assert_eq!(replica_state_proto(replica_state(number).unwrap()) as i32, number);
        }
        for number in 1..7 {
            assert_eq!(storage_type_proto(storage_type(number).unwrap()) as i32, number);
        }
    }

    #[test]
    fn refuses_nonsense() {
        let mut bad = datanode_id_proto(&node());
        bad.ipc_port = 65_536;
        assert!(datanode_id(&bad).is_err());
        assert!(extended_block(&ExtendedBlockProto::default()).is_err());
        assert!(block(&BlockProto { num_bytes: Some(u64::MAX), ..Default::default() }).is_err());
        assert!(storage_report(&StorageReportProto::default()).is_err());
        assert!(storage_type(0).is_err() && storage_type(7).is_err() && storage_type(-1).is_err());
        assert!(replica_state(5).is_err() && replica_state(-1).is_err());
        assert!(client_id(&[1; 15]).is_err() && client_id(&[1; 17]).is_err());
        assert_eq!(client_id(&[]).unwrap(), ClientId([0; 16]));
    }
}
