//! Refusals of the NameNode, and THE table that gives each its Java exception class. Messages are
//! HDFS's own where clients or people match on them.

use mobula_namespace::{ErrorKind, NamespaceError};
use mobula_types::{HdfsPath, PathError};
use mobula_wire::remote::{RemoteException, class};

/// Why the NameNode does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The namespace's reason.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A reason whose class and words are known already.
    #[error("{}", .0.message)]
    Remote(RemoteException),
    /// The path cannot be.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A field that the protocol requires is missing, or no value of its type.
    #[error("{0}")]
    BadRequest(String),
    /// Only the superuser may.
    #[error("Access denied for user {user}. Superuser privilege is required{}", of_operation(.operation))]
    SuperuserRequired {
        /// Who asked.
        user: String,
        /// HDFS's name of the operation, where its message has one.
        operation: Option<&'static str>,
    },
    /// Safe mode is on.
    #[error("{refused}. Name node is in safe mode.\n{tip} NamenodeHostName:{host}")]
    SafeMode {
        /// What is not done, as HDFS words it: `Cannot create directory /a`.
        refused: String,
        /// Why, and what to do about it.
        tip: &'static str,
        /// This NameNode.
        host: String,
    },
    /// The block before the last has no finalized replica yet.
    #[error("Not replicated yet: {0}")]
    NotReplicatedYet(HdfsPath),
    /// Placement found no DataNode at all.
    #[error(
        "File {path} could only be written to {found} of the {wanted} minReplication nodes. There are {live} \
         datanode(s) running and {} node(s) are excluded in this operation.",
        none_or(.excluded)
    )]
    NoTargets {
        /// The file.
        path: HdfsPath,
        /// Nodes that would do.
        found: usize,
        /// `dfs.namenode.replication.min`.
        wanted: u16,
        /// Live nodes.
        live: usize,
        /// Nodes that the client excluded.
        excluded: usize,
    },
    /// Too many commands wait already.
    #[error("the NameNode is overloaded: {waiting} commands wait")]
    Overloaded {
        /// How many.
        waiting: usize,
    },
    /// It will be different in a moment: HDFS's clients ask again.
    #[error("{0}")]
    Retriable(String),
    /// Another NameNode leads, or none.
    #[error(
        "Operation category WRITE is not supported in state standby. Visit https://s.apache.org/sbnn-error"
    )]
    Standby,
    /// The log stopped: nothing is acknowledged any more.
    #[error("the NameNode stops: {0}")]
    Stopping(String),
    /// Not there yet.
    #[error("{0}")]
    Unsupported(&'static str),
    /// An illegal argument, where HDFS throws Hadoop's exception.
    #[error("{0}")]
    IllegalArgument(String),
    /// An illegal argument, where HDFS throws Java's (`Preconditions.checkArgument`).
    #[error("{0}")]
    JavaIllegalArgument(String),
    /// A plain IOException.
    #[error("{0}")]
    Io(String),
    /// A named attribute that no file has.
    #[error("At least one of the attributes provided was not found.")]
    XAttrNotFound,
    /// What this user may not do at all.
    #[error("{0}")]
    Authorization(&'static str),
    /// A DataNode that may not take part; Apache's end their service for good.
    #[error("{0}")]
    DisallowedDatanode(String),
    /// A full report came under a lease that is not in force.
    #[error("Invalid block report lease 0x{lease:x} of {node}")]
    ReportLease {
        /// The DataNode.
        node: String,
        /// What it showed.
        lease: u64,
    },
    /// A snapshot call on a directory that has none.
    #[error("Directory is not a snapshottable directory: {0}")]
    NotSnapshottable(HdfsPath),
    /// An HA transition that is not ours to make.
    #[error("{0}")]
    ServiceFailed(&'static str),
}

fn of_operation(operation: &Option<&'static str>) -> String {
    operation.map_or_else(String::new, |operation| format!(" for operation {operation}"))
}

fn none_or(count: &usize) -> String {
    if *count == 0 { "no".into() } else { count.to_string() }
}

impl Refusal {
    /// Java's class for it.
    pub fn class(&self) -> &str {
        match self {
            Refusal::Namespace(error) => class_of(error.kind()),
            Refusal::Remote(exception) => &exception.class,
            Refusal::Path(PathError::InvalidName(_)) => class::INVALID_PATH,
            // FSDirectory.resolvePath and FSNamesystem answer plain IOExceptions for these.
            Refusal::Path(PathError::TooLong) => class::IO,
            Refusal::Path(PathError::NotAbsolute(_)) => "java.lang.AssertionError",
            Refusal::SuperuserRequired { .. } => class::ACCESS_CONTROL,
            Refusal::SafeMode { .. } => class::SAFE_MODE,
            Refusal::NotReplicatedYet(_) => class::NOT_REPLICATED_YET,
            Refusal::Overloaded { .. } | Refusal::Retriable(_) => class::RETRIABLE,
            Refusal::Standby => class::STANDBY,
            Refusal::Unsupported(_) => class::UNSUPPORTED_OPERATION,
            Refusal::IllegalArgument(_) => class::ILLEGAL_ARGUMENT,
            Refusal::JavaIllegalArgument(_) => class::JAVA_ILLEGAL_ARGUMENT,
            Refusal::XAttrNotFound => class::XATTR_NOT_FOUND,
            Refusal::Authorization(_) => class::AUTHORIZATION,
            Refusal::DisallowedDatanode(_) => class::DISALLOWED_DATANODE,
            Refusal::ReportLease { .. } => class::INVALID_BLOCK_REPORT_LEASE,
            Refusal::NotSnapshottable(_) => class::SNAPSHOT,
            Refusal::ServiceFailed(_) => class::SERVICE_FAILED,
            Refusal::BadRequest(_) | Refusal::NoTargets { .. } | Refusal::Stopping(_) | Refusal::Io(_) => {
                class::IO
            }
        }
    }
}

impl From<&Refusal> for RemoteException {
    fn from(refusal: &Refusal) -> RemoteException {
        RemoteException { class: refusal.class().to_owned().into(), message: refusal.to_string() }
    }
}

impl From<Refusal> for RemoteException {
    fn from(refusal: Refusal) -> RemoteException {
        RemoteException::from(&refusal)
    }
}

/// The table.
fn class_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AccessControl => class::ACCESS_CONTROL,
        ErrorKind::FileNotFound => class::FILE_NOT_FOUND,
        ErrorKind::Io => class::IO,
        ErrorKind::IllegalArgument => class::ILLEGAL_ARGUMENT,
        ErrorKind::JavaIllegalArgument => class::JAVA_ILLEGAL_ARGUMENT,
        ErrorKind::StartAfterNotFound => "org.apache.hadoop.fs.DirectoryListingStartAfterNotFoundException",
        ErrorKind::FileAlreadyExists => class::FILE_ALREADY_EXISTS,
        ErrorKind::ParentNotDirectory => class::PARENT_NOT_DIRECTORY,
        ErrorKind::InvalidPath => class::INVALID_PATH,
        ErrorKind::PathIsNotEmptyDirectory => class::PATH_IS_NOT_EMPTY_DIRECTORY,
        ErrorKind::AlreadyBeingCreated => class::ALREADY_BEING_CREATED,
        ErrorKind::RecoveryInProgress => class::RECOVERY_IN_PROGRESS,
        ErrorKind::LeaseExpired => class::LEASE_EXPIRED,
        ErrorKind::PathComponentTooLong => class::PATH_COMPONENT_TOO_LONG,
        ErrorKind::MaxDirectoryItems => class::MAX_DIRECTORY_ITEMS_EXCEEDED,
        ErrorKind::SnapshotAccessControl => class::SNAPSHOT_ACCESS_CONTROL,
        ErrorKind::Snapshot => class::SNAPSHOT,
        ErrorKind::Unsupported => class::UNSUPPORTED_OPERATION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_hdfs_words() {
        let no_targets = Refusal::NoTargets {
            path: HdfsPath::root().join("f"),
            found: 0,
            wanted: 1,
            live: 3,
            excluded: 0,
        };
        assert_eq!(
            no_targets.to_string(),
            "File /f could only be written to 0 of the 1 minReplication nodes. There are 3 datanode(s) \
             running and no node(s) are excluded in this operation."
        );
        let denied = Refusal::SuperuserRequired { user: "u".into(), operation: Some("safemode_enter") };
        assert_eq!(
            denied.to_string(),
            "Access denied for user u. Superuser privilege is required for operation safemode_enter"
        );
        assert_eq!(RemoteException::from(&denied).class, class::ACCESS_CONTROL);
    }
}
