//! Exceptions as they cross the wire: a Java class name and a message.

use std::borrow::Cow;

/// An exception of the other side, or one for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct RemoteException {
    /// Java's full class name.
    pub class: Cow<'static, str>,
    /// The message, without a leading class name.
    pub message: String,
}

impl RemoteException {
    /// An exception of `class`, which is one of [`class`].
    pub fn new(class: &'static str, message: impl Into<String>) -> RemoteException {
        RemoteException { class: Cow::Borrowed(class), message: message.into() }
    }
}

/// Java's class names.
#[allow(missing_docs)]
pub mod class {
    pub const ACCESS_CONTROL: &str = "org.apache.hadoop.security.AccessControlException";
    pub const FILE_NOT_FOUND: &str = "java.io.FileNotFoundException";
    pub const IO: &str = "java.io.IOException";
    pub const ILLEGAL_ARGUMENT: &str = "org.apache.hadoop.HadoopIllegalArgumentException";
    pub const FILE_ALREADY_EXISTS: &str = "org.apache.hadoop.fs.FileAlreadyExistsException";
    pub const PARENT_NOT_DIRECTORY: &str = "org.apache.hadoop.fs.ParentNotDirectoryException";
    pub const INVALID_PATH: &str = "org.apache.hadoop.fs.InvalidPathException";
    pub const PATH_IS_NOT_EMPTY_DIRECTORY: &str = "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException";
    pub const ALREADY_BEING_CREATED: &str = "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException";
    pub const RECOVERY_IN_PROGRESS: &str = "org.apache.hadoop.hdfs.protocol.RecoveryInProgressException";
    pub const LEASE_EXPIRED: &str = "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException";
    pub const NOT_REPLICATED_YET: &str = "org.apache.hadoop.hdfs.server.namenode.NotReplicatedYetException";
    pub const SAFE_MODE: &str = "org.apache.hadoop.hdfs.server.namenode.SafeModeException";
    pub const RETRIABLE: &str = "org.apache.hadoop.ipc.RetriableException";
    pub const STANDBY: &str = "org.apache.hadoop.ipc.StandbyException";
    pub const UNSUPPORTED_OPERATION: &str = "java.lang.UnsupportedOperationException";
    pub const REPLICA_NOT_FOUND: &str = "org.apache.hadoop.hdfs.server.datanode.ReplicaNotFoundException";
}
