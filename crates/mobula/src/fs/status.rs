//! What the shell knows of a file or directory, wherever it lies (Hadoop's `FileStatus`).

use mobula_proto::hdfs::HdfsFileStatusProto;
use mobula_proto::hdfs::hdfs_file_status_proto::{FileType, Flags};

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// A file's or directory's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name in the directory that was listed; empty for the path that was asked for.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes; 0 for a directory in HDFS.
    pub length: u64,
    /// Number of replicas; 0 for a directory.
    pub replication: u16,
    /// Bytes; 0 for a directory.
    pub block_size: u64,
    /// Last change, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Last access, in milliseconds since 1970.
    pub accessed_ms: u64,
    /// Who owns it.
    pub owner: String,
    /// Its group.
    pub group: String,
    /// Permission bits with the sticky bit.
    pub mode: u16,
    /// Whether it has an ACL beyond the permission bits.
    pub has_acl: bool,
    /// The name of its erasure coding policy.
    pub erasure_policy: Option<String>,
}

impl Status {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }
}

impl From<HdfsFileStatusProto> for Status {
    fn from(status: HdfsFileStatusProto) -> Status {
        let kind = match status.file_type() {
            FileType::IsDir => Kind::Directory,
            FileType::IsFile => Kind::File,
            FileType::IsSymlink => Kind::Symlink,
        };
        let flags = status.flags();
        let replication = status.block_replication();
        let block_size = status.blocksize();
        Status {
            name: String::from_utf8_lossy(&status.path).into_owned(),
            kind,
            length: status.length,
            replication: u16::try_from(replication).unwrap_or(u16::MAX),
            block_size,
            modified_ms: status.modification_time,
            accessed_ms: status.access_time,
            mode: (status.permission.perm & 0o1777) as u16,
            has_acl: flags & Flags::HasAcl as u32 != 0,
            erasure_policy: status.ec_policy.and_then(|policy| policy.name),
            owner: status.owner,
            group: status.group,
        }
    }
}
