//! Why the namespace refuses. Variants carry nouns and numbers; `Display` is the message that HDFS
//! gives for the same, since clients and people match on it.

use crate::table::TableError;

/// One per Java exception class that the namespace can give; the NameNode's table maps each to the
/// class's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// `o.a.h.security.AccessControlException`
    AccessControl,
    /// `java.io.FileNotFoundException`
    FileNotFound,
    /// `java.io.IOException`
    Io,
    /// `o.a.h.HadoopIllegalArgumentException`
    IllegalArgument,
    /// `o.a.h.fs.FileAlreadyExistsException`
    FileAlreadyExists,
    /// `o.a.h.fs.ParentNotDirectoryException`
    ParentNotDirectory,
    /// `o.a.h.fs.InvalidPathException`
    InvalidPath,
    /// `o.a.h.fs.PathIsNotEmptyDirectoryException`
    PathIsNotEmptyDirectory,
    /// `o.a.h.hdfs.protocol.AlreadyBeingCreatedException`
    AlreadyBeingCreated,
    /// `o.a.h.hdfs.protocol.RecoveryInProgressException`
    RecoveryInProgress,
    /// `o.a.h.hdfs.server.namenode.LeaseExpiredException`
    LeaseExpired,
    /// `o.a.h.hdfs.protocol.FSLimitException$PathComponentTooLongException`
    PathComponentTooLong,
    /// `o.a.h.hdfs.protocol.FSLimitException$MaxDirectoryItemsExceededException`
    MaxDirectoryItems,
    /// `o.a.h.hdfs.protocol.SnapshotAccessControlException`
    SnapshotAccessControl,
    /// `o.a.h.hdfs.protocol.SnapshotException`
    Snapshot,
    /// `java.lang.UnsupportedOperationException`
    Unsupported,
}

/// A refusal. The NameNode's table maps each [`ErrorKind`] to Hadoop's exception class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// `INodeFile.valueOf`, `INodesInPath`.
    #[error("File does not exist: {0}")]
    FileNotFound(String),
    /// The tables failed: ours, not the caller's. Never an outcome of `apply`.
    #[error(transparent)]
    Tables(#[from] TableError),
}

impl NamespaceError {
    /// The Java exception class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            NamespaceError::FileNotFound(_) => ErrorKind::FileNotFound,
            NamespaceError::Tables(_) => ErrorKind::Io,
        }
    }
}
