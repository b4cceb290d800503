//! A file's status and what hangs on it, as ClientProtocol tells them (`PBHelperClient`).

use bytes::Bytes;
use mobula_namespace::{ContentSummary, FileKind, FileStatus};
use mobula_proto::hdfs::{
    self,
    hdfs_file_status_proto::{FileType, Flags},
};
use mobula_types::{InodeId, StorageType};

use crate::config::Defaults;

/// The storage policy of a file that has none of its own, in statuses (HDFS: `BLOCK_STORAGE_POLICY_ID_UNSPECIFIED`).
const POLICY_UNSPECIFIED: u32 = 0;
/// HOT: the default policy's number.
pub const POLICY_HOT: u32 = 7;
/// "No quota" in fields that are signed in Java and unsigned on the wire.
const NO_QUOTA: u64 = u64::MAX;
/// The root's quota of names when nobody set one.
const ROOT_NAME_QUOTA: u64 = i64::MAX as u64;

/// A status under the name that the caller asked for: empty for the asked path itself.
pub fn status(status: FileStatus, name: Bytes) -> hdfs::HdfsFileStatusProto {
    let mut proto = hdfs::HdfsFileStatusProto {
        file_type: FileType::IsDir as i32,
        path: name,
        length: 0,
        permission: permission(status.mode),
        owner: status.owner,
        group: status.group,
        modification_time: status.modified.0,
        access_time: status.accessed.0,
        symlink: None,
        block_replication: Some(0),
        blocksize: Some(0),
        locations: None,
        file_id: Some(status.inode.0),
        children_num: None,
        file_encryption_info: None,
        storage_policy: Some(POLICY_UNSPECIFIED),
        ec_policy: None,
        // Always sent: Java reads permission bits above 01777 as flags when it is absent.
        flags: Some(flags(status.inode)),
        namespace: None,
    };
    match status.kind {
        FileKind::Directory { children } => {
            proto.children_num = Some(i32::try_from(children).unwrap_or(i32::MAX));
        }
        FileKind::File { length, replication, block_size, open: _ } => {
            proto.file_type = FileType::IsFile as i32;
            proto.length = length;
            proto.block_replication = Some(u32::from(replication));
            proto.blocksize = Some(block_size);
            proto.children_num = Some(0);
        }
    }
    proto
}

/// The root may have snapshots, none of them (`FSDirectory.createRoot`).
fn flags(inode: InodeId) -> u32 {
    if inode == InodeId::ROOT { Flags::SnapshotEnabled as u32 } else { 0 }
}

/// Permission bits.
pub fn permission(mode: u16) -> hdfs::FsPermissionProto {
    hdfs::FsPermissionProto { perm: u32::from(mode) }
}

/// `getContentSummary`. HDFS gives the root a quota of names that nobody can reach.
pub fn content_summary(summary: &ContentSummary, is_root: bool) -> hdfs::ContentSummaryProto {
    hdfs::ContentSummaryProto {
        length: summary.length,
        file_count: summary.files,
        directory_count: summary.directories,
        quota: name_quota(is_root),
        space_consumed: summary.space,
        space_quota: NO_QUOTA,
        type_quota_infos: Some(hdfs::StorageTypeQuotaInfosProto { type_quota_info: Vec::new() }),
        snapshot_length: Some(0),
        snapshot_file_count: Some(0),
        snapshot_directory_count: Some(0),
        snapshot_space_consumed: Some(0),
        // Of a tree it is its top's own, of a file what makes it whole.
        erasure_coding_policy: Some(if summary.directories == 0 { "Replicated" } else { "" }.into()),
    }
}

/// `getQuotaUsage`.
pub fn quota_usage(summary: &ContentSummary, is_root: bool) -> hdfs::QuotaUsageProto {
    hdfs::QuotaUsageProto {
        file_and_directory_count: summary.files + summary.directories,
        quota: name_quota(is_root),
        space_consumed: summary.space,
        space_quota: NO_QUOTA,
        type_quota_infos: Some(hdfs::StorageTypeQuotaInfosProto { type_quota_info: Vec::new() }),
    }
}

fn name_quota(is_root: bool) -> u64 {
    if is_root { ROOT_NAME_QUOTA } else { NO_QUOTA }
}

/// `getServerDefaults`.
pub fn server_defaults(defaults: &Defaults) -> hdfs::FsServerDefaultsProto {
    hdfs::FsServerDefaultsProto {
        block_size: defaults.block_size,
        bytes_per_checksum: defaults.checksum.bytes_per_chunk(),
        write_packet_size: defaults.write_packet_size,
        replication: u32::from(defaults.replication),
        file_buffer_size: defaults.file_buffer_size,
        encrypt_data_transfer: Some(false),
        trash_interval: Some(defaults.trash_interval_min),
        checksum_type: Some(defaults.checksum.kind().proto() as i32),
        // Empty, not absent: absent makes clients use a key provider of their own.
        key_provider_uri: Some(String::new()),
        policy_id: Some(POLICY_HOT),
        snapshot_trash_root_enabled: Some(false),
    }
}

/// HDFS's storage policies (`BlockStoragePolicySuite.createDefaultSuite`): number, name, and the
/// media for new replicas, for new ones when those are full, and for repaired ones.
type Policy = (u32, &'static str, &'static [StorageType], &'static [StorageType], &'static [StorageType]);

#[rustfmt::skip]
const POLICIES: [Policy; 8] = {
    use StorageType::{Archive, Disk, Nvdimm, Provided, RamDisk, Ssd};
    [
        (1, "PROVIDED", &[Provided, Disk], &[Provided, Disk], &[Provided, Disk]),
        (2, "COLD", &[Archive], &[], &[]),
        (5, "WARM", &[Disk, Archive], &[Disk, Archive], &[Disk, Archive]),
        (7, "HOT", &[Disk], &[], &[Archive]),
        (10, "ONE_SSD", &[Ssd, Disk], &[Ssd, Disk], &[Ssd, Disk]),
        (12, "ALL_SSD", &[Ssd], &[Disk], &[Disk]),
        (14, "ALL_NVDIMM", &[Nvdimm], &[Disk], &[Disk]),
        (15, "LAZY_PERSIST", &[RamDisk, Disk], &[Disk], &[Disk]),
    ]
};

/// The name of the policy that every file has.
pub const HOT: &str = "HOT";

/// The first policy that wants replicas on such media (sorted by [`java_order`]): its own, and then more of the last one
/// (HDFS: `StoragePolicySummary.getStoragePolicy`).
pub fn policy_of_media(media: &[StorageType]) -> Option<&'static str> {
    let fits = |wanted: &[StorageType]| {
        let mut wanted = wanted.to_vec();
        wanted.sort_by_key(|medium| java_order(*medium));
        let rest = media.get(wanted.len()..);
        rest.is_some_and(|rest| {
            media.starts_with(&wanted) && rest.iter().all(|medium| Some(medium) == wanted.last())
        })
    };
    POLICIES.iter().find(|policy| fits(policy.2)).map(|policy| policy.1)
}

/// How Java's enumeration orders media.
pub fn java_order(medium: StorageType) -> u8 {
    match medium {
        StorageType::RamDisk => 0,
        StorageType::Ssd => 1,
        StorageType::Disk => 2,
        StorageType::Archive => 3,
        StorageType::Provided => 4,
        StorageType::Nvdimm => 5,
    }
}

/// `getStoragePolicies`.
pub fn storage_policies() -> Vec<hdfs::BlockStoragePolicyProto> {
    POLICIES.iter().map(storage_policy).collect()
}

/// The number of the policy of that name, whose case does not matter; none if there is none.
pub fn policy_number(name: &str) -> Option<u32> {
    POLICIES.iter().find(|policy| policy.1.eq_ignore_ascii_case(name)).map(|policy| policy.0)
}

/// The policy that every file has.
pub fn hot_policy() -> hdfs::BlockStoragePolicyProto {
    let hot = POLICIES.iter().find(|policy| policy.0 == POLICY_HOT).expect("HOT is in the table above");
    storage_policy(hot)
}

fn storage_policy(policy: &Policy) -> hdfs::BlockStoragePolicyProto {
    let types = |media: &[StorageType]| hdfs::StorageTypesProto {
        storage_types: media.iter().map(|medium| *medium as i32).collect(),
    };
    let (policy_id, name, creation, creation_fallback, replication_fallback) = *policy;
    hdfs::BlockStoragePolicyProto {
        policy_id,
        name: name.into(),
        creation_policy: types(creation),
        creation_fallback_policy: Some(types(creation_fallback)),
        replication_fallback_policy: Some(types(replication_fallback)),
    }
}

/// `getErasureCodingPolicies`: none, since no file can have one yet.
pub fn erasure_coding_policies() -> Vec<hdfs::ErasureCodingPolicyProto> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mobula_types::Millis;

    #[test]
    fn directories_have_no_length() {
        let proto = status(
            FileStatus {
                inode: InodeId(16_386),
                name: b"d".to_vec(),
                kind: FileKind::Directory { children: 2 },
                mode: 0o1755,
                owner: "o".into(),
                group: "g".into(),
                modified: Millis(5),
                accessed: Millis(9),
            },
            Bytes::from_static(b"d"),
        );
        assert_eq!((proto.file_type, proto.length, proto.access_time), (1, 0, 9));
        assert_eq!(
            (proto.block_replication, proto.blocksize, proto.children_num),
            (Some(0), Some(0), Some(2))
        );
        assert_eq!((proto.permission.perm, proto.flags), (0o1755, Some(0)));
    }

    #[test]
    fn policies_have_hdfs_numbers() {
        let ids: Vec<_> = storage_policies().iter().map(|policy| policy.policy_id).collect();
        assert_eq!(ids, [1, 2, 5, 7, 10, 12, 14, 15]);
        assert_eq!(hot_policy().name, "HOT");
    }
}
