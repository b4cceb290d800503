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

    /// Whether it is of that very class.
    pub fn is(&self, class: &str) -> bool {
        self.class == class
    }

    /// The message without what Java's servers put behind it: its first line.
    pub fn first_line(&self) -> &str {
        self.message.lines().next().unwrap_or("")
    }
}

/// Java's class names.
#[allow(missing_docs)]
pub mod class {
    pub const ACCESS_CONTROL: &str = "org.apache.hadoop.security.AccessControlException";
    pub const AUTHORIZATION: &str = "org.apache.hadoop.security.authorize.AuthorizationException";
    pub const FILE_NOT_FOUND: &str = "java.io.FileNotFoundException";
    pub const IO: &str = "java.io.IOException";
    pub const EOF: &str = "java.io.EOFException";
    pub const JAVA_ILLEGAL_ARGUMENT: &str = "java.lang.IllegalArgumentException";
    pub const ILLEGAL_ARGUMENT: &str = "org.apache.hadoop.HadoopIllegalArgumentException";
    pub const FILE_ALREADY_EXISTS: &str = "org.apache.hadoop.fs.FileAlreadyExistsException";
    pub const PARENT_NOT_DIRECTORY: &str = "org.apache.hadoop.fs.ParentNotDirectoryException";
    pub const INVALID_PATH: &str = "org.apache.hadoop.fs.InvalidPathException";
    pub const PATH_IS_NOT_EMPTY_DIRECTORY: &str = "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException";
    pub const UNRESOLVED_LINK: &str = "org.apache.hadoop.fs.UnresolvedLinkException";
    pub const UNRESOLVED_PATH: &str = "org.apache.hadoop.hdfs.protocol.UnresolvedPathException";
    pub const ALREADY_BEING_CREATED: &str = "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException";
    pub const RECOVERY_IN_PROGRESS: &str = "org.apache.hadoop.hdfs.protocol.RecoveryInProgressException";
    pub const NS_QUOTA_EXCEEDED: &str = "org.apache.hadoop.hdfs.protocol.NSQuotaExceededException";
    pub const DS_QUOTA_EXCEEDED: &str = "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException";
    pub const QUOTA_BY_STORAGE_TYPE_EXCEEDED: &str =
        "org.apache.hadoop.hdfs.protocol.QuotaByStorageTypeExceededException";
    pub const SNAPSHOT: &str = "org.apache.hadoop.hdfs.protocol.SnapshotException";
    pub const SNAPSHOT_ACCESS_CONTROL: &str =
        "org.apache.hadoop.hdfs.protocol.SnapshotAccessControlException";
    pub const ACL: &str = "org.apache.hadoop.hdfs.protocol.AclException";
    pub const XATTR_NOT_FOUND: &str = "org.apache.hadoop.hdfs.protocol.XAttrNotFoundException";
    pub const UNKNOWN_CRYPTO_PROTOCOL_VERSION: &str =
        "org.apache.hadoop.hdfs.protocol.UnknownCryptoProtocolVersionException";
    pub const UNREGISTERED_NODE: &str = "org.apache.hadoop.hdfs.protocol.UnregisteredNodeException";
    pub const PATH_COMPONENT_TOO_LONG: &str =
        "org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException";
    pub const MAX_DIRECTORY_ITEMS_EXCEEDED: &str =
        "org.apache.hadoop.hdfs.protocol.FSLimitException$MaxDirectoryItemsExceededException";
    pub const LEASE_EXPIRED: &str = "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException";
    pub const NOT_REPLICATED_YET: &str = "org.apache.hadoop.hdfs.server.namenode.NotReplicatedYetException";
    pub const SAFE_MODE: &str = "org.apache.hadoop.hdfs.server.namenode.SafeModeException";
    pub const RETRY_START_FILE: &str = "org.apache.hadoop.hdfs.server.namenode.RetryStartFileException";
    pub const DISALLOWED_DATANODE: &str =
        "org.apache.hadoop.hdfs.server.protocol.DisallowedDatanodeException";
    pub const INVALID_BLOCK_REPORT_LEASE: &str =
        "org.apache.hadoop.hdfs.server.protocol.InvalidBlockReportLeaseException";
    pub const INCORRECT_VERSION: &str = "org.apache.hadoop.hdfs.server.common.IncorrectVersionException";
    pub const REPLICA_NOT_FOUND: &str = "org.apache.hadoop.hdfs.server.datanode.ReplicaNotFoundException";
    pub const REPLICA_ALREADY_EXISTS: &str =
        "org.apache.hadoop.hdfs.server.datanode.ReplicaAlreadyExistsException";
    pub const SERVICE_FAILED: &str = "org.apache.hadoop.ha.ServiceFailedException";
    pub const RETRIABLE: &str = "org.apache.hadoop.ipc.RetriableException";
    pub const STANDBY: &str = "org.apache.hadoop.ipc.StandbyException";
    pub const OBSERVER_RETRY_ON_ACTIVE: &str = "org.apache.hadoop.ipc.ObserverRetryOnActiveException";
    pub const UNSUPPORTED_OPERATION: &str = "java.lang.UnsupportedOperationException";
    pub const RPC_NO_SUCH_METHOD: &str = "org.apache.hadoop.ipc.RpcNoSuchMethodException";
    pub const RPC_NO_SUCH_PROTOCOL: &str = "org.apache.hadoop.ipc.RpcNoSuchProtocolException";
    pub const RPC_VERSION_MISMATCH: &str = "org.apache.hadoop.ipc.RPC$VersionMismatch";
    pub const RPC_SERVER: &str = "org.apache.hadoop.ipc.RpcServerException";
    pub const FATAL_RPC_SERVER: &str = "org.apache.hadoop.ipc.Server$FatalRpcServerException";
    pub const IPC: &str = "org.apache.hadoop.ipc.IpcException";
    pub const SASL: &str = "javax.security.sasl.SaslException";
    pub const SECRET_MANAGER_INVALID_TOKEN: &str =
        "org.apache.hadoop.security.token.SecretManager$InvalidToken";
}
