//! Blocks with their locations, as clients want them: from the view's blocks and the fleet's map.

use mobula_fleet::{Fleet, NodeInfo, NodeReport, NodeState};
use mobula_namespace::{BlockState, FileBlock, FileBlocks, FileKind};
use mobula_proto::{common, hdfs};
use mobula_types::{Block, DatanodeId, Millis, PoolId, StorageReport, StorageState, StorageType, Target};

use crate::exceptions::Refusal;

/// What a location needs besides the block.
pub struct Locator<'a> {
    /// The replicas.
    pub fleet: &'a Fleet,
    /// Monotonic.
    pub now: Millis,
    /// The block pool.
    pub pool: &'a str,
    /// The reader's address: nearer replicas come first.
    pub reader: &'a str,
}

impl Locator<'_> {
    /// `getBlockLocations`' answer.
    pub fn file(&self, file: &FileBlocks) -> hdfs::LocatedBlocksProto {
        let FileKind::File { open, .. } = file.status.kind else {
            return hdfs::LocatedBlocksProto::default();
        };
        hdfs::LocatedBlocksProto {
            file_length: file.last.as_ref().map_or(0, length_to),
            blocks: file.blocks.iter().map(|block| self.block(block)).collect(),
            under_construction: open,
            last_block: file.last.as_ref().map(|block| self.block(block)),
            // False for an empty file, as in HDFS.
            is_last_block_complete: file
                .last
                .as_ref()
                .is_some_and(|last| !open || last.state == BlockState::Committed),
            file_encryption_info: None,
            ec_policy: None,
        }
    }

    /// A block where its replicas are; under construction, where they are being written: readers ask
    /// there how much they may see.
    pub fn block(&self, block: &FileBlock) -> hdfs::LocatedBlockProto {
        let mut proto = self.bare(block.block, block.offset);
        let locations = match block.state {
            BlockState::UnderConstruction => {
                self.fleet.open_locations(block.block, &block.targets, self.reader)
            }
            BlockState::Committed => self.fleet.locations(self.now, block.block.id, self.reader),
        };
        proto.corrupt = locations.corrupt;
        proto.locs.reserve(locations.replicas.len());
        for replica in &locations.replicas {
            push(&mut proto, &replica.node, replica.storage.as_str(), replica.kind);
        }
        proto
    }

    /// A block at the targets that were chosen for it.
    pub fn at_targets(&self, block: Block, offset: u64, targets: &[Target]) -> hdfs::LocatedBlockProto {
        let mut proto = self.bare(block, offset);
        self.add_targets(&mut proto, targets);
        proto
    }

    /// A block at these nodes in this order, whoever lives.
    pub fn at_all_targets(&self, block: Block, offset: u64, targets: &[Target]) -> hdfs::LocatedBlockProto {
        let mut proto = self.bare(block, offset);
        for target in targets {
            if let Some(node) = self.fleet.node(&target.datanode) {
                push(&mut proto, &node, target.storage.as_str(), target.kind);
            }
        }
        proto
    }

    fn bare(&self, block: Block, offset: u64) -> hdfs::LocatedBlockProto {
        hdfs::LocatedBlockProto {
            b: extended(self.pool, block),
            offset,
            locs: Vec::new(),
            corrupt: false,
            // Required, also without tokens: its four fields empty.
            block_token: common::TokenProto::default(),
            is_cached: Vec::new(),
            storage_types: Vec::new(),
            storage_i_ds: Vec::new(),
            block_indices: None,
            block_tokens: Vec::new(),
        }
    }

    /// Live nodes first, in pipeline order; dead and forgotten ones are left out.
    fn add_targets(&self, proto: &mut hdfs::LocatedBlockProto, targets: &[Target]) {
        for wanted in [NodeState::Live, NodeState::Suspect] {
            for target in targets {
                if self.fleet.node_state(&target.datanode) != Some(wanted) {
                    continue;
                }
                if let Some(node) = self.fleet.node(&target.datanode) {
                    push(proto, &node, target.storage.as_str(), target.kind);
                }
            }
        }
    }
}

/// The length of a file that ends with this block, without what that has while it is open: readers ask the nodes.
fn length_to(last: &FileBlock) -> u64 {
    match last.state {
        BlockState::UnderConstruction => last.offset,
        BlockState::Committed => last.offset + last.block.length,
    }
}

fn push(proto: &mut hdfs::LocatedBlockProto, node: &NodeInfo, storage: &str, kind: StorageType) {
    proto.locs.push(located_node(node));
    proto.is_cached.push(false);
    proto.storage_types.push(kind as i32);
    proto.storage_i_ds.push(storage.to_owned());
}

/// A block of the pool.
pub fn extended(pool: &str, block: Block) -> hdfs::ExtendedBlockProto {
    hdfs::ExtendedBlockProto {
        pool_id: pool.to_owned(),
        block_id: block.id.0,
        generation_stamp: block.stamp.0,
        num_bytes: Some(block.length),
    }
}

/// The block of a request; the pool is not looked at, as in HDFS, but for those of [`own_block`].
pub fn block_of(proto: &hdfs::ExtendedBlockProto) -> Block {
    Block {
        id: mobula_types::BlockId(proto.block_id),
        stamp: mobula_types::GenStamp(proto.generation_stamp),
        length: proto.num_bytes.unwrap_or(0),
    }
}

/// The block of a request that commits it (`FSDirWriteFileOp.checkBlock`).
///
/// # Errors
/// Io for one of another pool.
pub fn own_block(pool: &PoolId, proto: &hdfs::ExtendedBlockProto) -> Result<Block, Refusal> {
    if proto.pool_id != pool.as_str() {
        let given = &proto.pool_id;
        return Err(Refusal::Io(format!("Unexpected BlockPoolId {given} - expected {pool}")));
    }
    Ok(block_of(proto))
}

/// A DataNode as a location: identity and rack, without figures.
pub fn located_node(node: &NodeInfo) -> hdfs::DatanodeInfoProto {
    hdfs::DatanodeInfoProto {
        id: datanode_id(&node.id),
        location: Some(node.rack.clone()),
        ..hdfs::DatanodeInfoProto::default()
    }
}

/// Identity and addresses.
pub fn datanode_id(id: &DatanodeId) -> hdfs::DatanodeIdProto {
    hdfs::DatanodeIdProto {
        ip_addr: id.ip.clone(),
        host_name: id.host_name.clone(),
        datanode_uuid: id.uuid.as_str().to_owned(),
        xfer_port: u32::from(id.xfer_port),
        info_port: u32::from(id.info_port),
        ipc_port: u32::from(id.ipc_port),
        info_secure_port: Some(u32::from(id.info_secure_port)),
    }
}

/// A DataNode with its figures. `epoch` is the time of day at monotonic 0, milliseconds.
pub fn node_report(node: &NodeReport, epoch: u64) -> hdfs::DatanodeInfoProto {
    hdfs::DatanodeInfoProto {
        id: datanode_id(&node.info.id),
        capacity: Some(node.capacity),
        dfs_used: Some(node.dfs_used),
        remaining: Some(node.remaining),
        block_pool_used: Some(node.pool_used),
        last_update: Some(epoch + node.last_beat.0),
        xceiver_count: Some(node.xceivers),
        location: Some(node.info.rack.clone()),
        non_dfs_used: Some(node.non_dfs_used),
        admin_state: Some(hdfs::datanode_info_proto::AdminState::Normal as i32),
        cache_capacity: Some(node.cache_capacity),
        cache_used: Some(node.cache_used),
        last_update_monotonic: Some(node.last_beat.0),
        upgrade_domain: None,
        last_block_report_time: Some(node.last_report.map_or(0, |at| epoch + at.0)),
        last_block_report_monotonic: Some(node.last_report.map_or(0, |at| at.0)),
        num_blocks: Some(u32::try_from(node.blocks).unwrap_or(u32::MAX)),
        software_version: Some(node.info.software_version.clone()),
    }
}

/// A volume's figures.
pub fn storage_report(report: &StorageReport) -> hdfs::StorageReportProto {
    let state = match report.state {
        StorageState::Normal => hdfs::datanode_storage_proto::StorageState::Normal,
        StorageState::ReadOnlyShared => hdfs::datanode_storage_proto::StorageState::ReadOnlyShared,
    };
    hdfs::StorageReportProto {
        storage_uuid: report.storage.as_str().to_owned(),
        failed: Some(report.failed),
        capacity: Some(report.capacity),
        dfs_used: Some(report.dfs_used),
        remaining: Some(report.remaining),
        block_pool_used: Some(report.pool_used),
        storage: Some(hdfs::DatanodeStorageProto {
            storage_uuid: report.storage.as_str().to_owned(),
            state: Some(state as i32),
            storage_type: Some(report.kind as i32),
        }),
        non_dfs_used: Some(report.non_dfs_used),
        mount: None,
    }
}
