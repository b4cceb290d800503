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
    /// `java.lang.IllegalArgumentException`
    JavaIllegalArgument,
    /// `o.a.h.fs.DirectoryListingStartAfterNotFoundException`
    StartAfterNotFound,
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

/// Who is refused what where: the nouns of `FSPermissionChecker`'s message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The caller.
    pub user: String,
    /// What was asked, as `FsAction` names it.
    pub access: &'static str,
    /// Where it was refused.
    pub path: String,
    /// `owner:group:drwxr-xr-x`.
    pub attributes: String,
}

/// A path and its `owner:group:drwxr-xr-x`, in the message about the sticky bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The path.
    pub path: String,
    /// `owner:group:drwxr-xr-x`.
    pub attributes: String,
}

/// Which file a lease was asked of, and what the asker has: `FSNamesystem.leaseExceptionString`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} (inode {file}) {}", holding(holder, *files))]
pub struct LeaseSubject {
    /// The file's path.
    pub path: String,
    /// The id that the client gave, 0 for none.
    pub file: u64,
    /// The asker.
    pub holder: String,
    /// How many files it has open.
    pub files: u64,
}

fn holding(holder: &str, files: u64) -> String {
    match files {
        0 => format!("Holder {holder} does not have any open files."),
        files => format!("[Lease.  Holder: {holder}, pending creates: {files}]"),
    }
}

/// Why an open file may not be opened by somebody else: `FSNamesystem.recoverLeaseInternal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contended {
    /// The file.
    pub path: String,
    /// Who wants it.
    pub holder: String,
    /// Where they are.
    pub machine: String,
    /// Who has it.
    pub owner: String,
    /// Where they are.
    pub owner_machine: String,
}

/// A refusal. The NameNode's table maps each [`ErrorKind`] to Hadoop's exception class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The fields are the nouns of the message above them.
pub enum NamespaceError {
    /// `INodeFile.valueOf` and many others.
    #[error("File does not exist: {0}")]
    FileNotFound(String),
    /// `INodeFile.valueOf` of a directory.
    #[error("Path is not a file: {0}")]
    NotAFile(String),
    /// `FSDirectory.checkOwner`.
    #[error("Directory/File does not exist {0}")]
    NothingToOwn(String),
    /// `INodeDirectory.valueOf`.
    #[error("Directory does not exist: {0}")]
    DirectoryNotFound(String),
    /// `FSDirAttrOp.unprotectedSetStoragePolicy`, `FSDirStatAndListingOp.getQuotaUsage`.
    #[error("File/Directory does not exist: {0}")]
    NothingThere(String),
    /// `FSDirAttrOp.setTimes`.
    #[error("File/Directory {0} does not exist.")]
    NothingToSetTimes(String),
    /// `FSNamesystem.checkAccess`.
    #[error("Path not found: {0}")]
    NothingToAccess(String),
    /// `FSDirectory.verifyParentDir`.
    #[error("Parent directory doesn't exist: {0}")]
    ParentNotFound(String),
    /// `FSDirWriteFileOp.resolvePathForStartFile` without the CREATE flag.
    #[error("Can't overwrite non-existent {0}")]
    NothingToOverwrite(String),
    /// `FSDirectory.resolveDotInodesPath`.
    #[error("File for given inode path does not exist: {0}")]
    InodePathNotFound(String),
    /// `FSDirectory.resolveDotInodesPath`.
    #[error("Invalid inode path: {0}")]
    InodePathInvalid(String),
    /// `FSDirStatAndListingOp.getListingInt`.
    #[error("Can't find startAfter {0}")]
    StartAfterNotFound(String),
    /// `FSDirRenameOp.validateRenameSource`.
    #[error("rename source {0} is not found.")]
    RenameSourceNotFound(String),
    /// `FSDirRenameOp.unprotectedRenameTo`.
    #[error("rename destination parent {0} not found.")]
    RenameParentNotFound(String),
    /// `FSNamesystem.checkLease` of nothing.
    #[error("File does not exist: {0}")]
    LeaseOfNothing(LeaseSubject),

    /// `FSPermissionChecker.toAccessControlString`.
    #[error("Permission denied: user={}, access={}, inode=\"{}\":{}", .0.user, .0.access, .0.path, .0.attributes)]
    Denied(Box<Denied>),
    /// `FSPermissionChecker.throwStickyBitException`.
    #[error(
        "Permission denied by sticky bit: user={user}, path=\"{}\":{}, parent=\"{}\":{}",
        child.path, child.attributes, parent.path, parent.attributes
    )]
    DeniedBySticky { user: String, child: Box<Described>, parent: Box<Described> },
    /// `FSPermissionChecker.checkOwner`.
    #[error("Permission denied. user={user} is not the owner of inode={path}")]
    NotOwner { user: String, path: String },
    /// `FSPermissionChecker.checkSuperuserPrivilege`.
    #[error("Access denied for user {user}. Superuser privilege is required for operation {operation}")]
    NotSuperuser { user: String, operation: &'static str },
    /// `FSDirAttrOp.setOwner`.
    #[error("User {0} is not a super user (non-super user cannot change owner).")]
    MayNotGiveAway(String),
    /// `FSDirAttrOp.setOwner`.
    #[error("User {user} does not belong to {group}")]
    NotInGroup { user: String, group: String },
    /// `DFSUtil.checkProtectedDescendants` of the directory itself.
    #[error("Cannot delete/rename non-empty protected directory {0}")]
    Protected(String),
    /// `DFSUtil.checkProtectedDescendants` of one in it.
    #[error("Cannot delete/rename non-empty protected subdirectory {0}")]
    ProtectedBelow(String),
    /// `DFSUtil.checkProtectedDescendants` of one that it is in.
    #[error("Cannot delete/rename subdirectory under protected subdirectory {0}")]
    ProtectedAbove(String),
    /// A file as ancestor, where HDFS cannot throw [`NamespaceError::ParentNotDirectory`].
    #[error("{0} (is not a directory)")]
    AncestorNotDirectory(String),

    /// A file as ancestor of what is to be made: `FSPermissionChecker.checkIsDirectory`.
    #[error("{0} (is not a directory)")]
    ParentNotDirectory(String),

    /// `FSDirWriteFileOp.resolvePathForStartFile`.
    #[error("{0} already exists as a directory")]
    ExistsAsDirectory(String),
    /// `FSDirWriteFileOp.startFile`.
    #[error("{path} for client {machine} already exists")]
    FileExists { path: String, machine: String },
    /// `FSDirMkdirOp.mkdirs`.
    #[error("Path is not a directory: {0}")]
    NotADirectory(String),
    /// `FSDirRenameOp`.
    #[error("The source {source_path} and destination {target_path} are the same")]
    RenameSame { source_path: String, target_path: String },
    /// `FSDirRenameOp.validateOverwrite`.
    #[error("rename destination {0} already exists")]
    RenameTargetExists(String),

    /// `FSDirRenameOp.validateRenameSource`.
    #[error("rename source cannot be the root")]
    RenameSourceIsRoot,
    /// `FSDirRenameOp.unprotectedRenameTo`.
    #[error("rename destination cannot be the root")]
    RenameTargetIsRoot,
    /// `FSDirRenameOp.validateDestination`.
    #[error("Rename destination {target_path} is a directory or file under source {source_path}")]
    RenameIntoItself { source_path: String, target_path: String },
    /// `FSDirRenameOp.validateOverwrite`.
    #[error("Source {source_path} and destination {target_path} must both be directories")]
    RenameKindsDiffer { source_path: String, target_path: String },
    /// `FSDirRenameOp.validateOverwrite`.
    #[error("rename destination directory is not empty: {0}")]
    RenameTargetNotEmpty(String),
    /// `FSNamesystem.startFileInt`.
    #[error(
        "Specified block size {size} is less than configured minimum value \
         dfs.namenode.fs-limits.min-block-size={least}"
    )]
    BlockSizeTooSmall { size: u64, least: u64 },
    /// `BlockManager.verifyReplication`.
    #[error(
        "Requested replication factor of {replication} exceeds maximum of {most} for {path}{}",
        client_name(machine)
    )]
    ReplicationTooHigh { replication: u16, most: u16, path: String, machine: Option<String> },
    /// `BlockManager.verifyReplication`.
    #[error(
        "Requested replication factor of {replication} is less than the required minimum of {least} for {path}{}",
        client_name(machine)
    )]
    ReplicationTooLow { replication: u16, least: u16, path: String, machine: Option<String> },
    /// `NameNodeRpcServer.checkPathLength`.
    #[error("{operation}: Pathname too long.  Limit 8000 characters, 1000 levels.")]
    PathTooLong { operation: &'static str },
    /// `FSDirWriteFileOp.validateAddBlock`.
    #[error(
        "File has reached the limit on maximum number of blocks \
         (dfs.namenode.fs-limits.max-blocks-per-file): {blocks} >= {most}"
    )]
    TooManyBlocks { blocks: u64, most: u64 },
    /// `FSNamesystem.checkFsObjectLimit`.
    #[error("Exceeded the configured number of objects {0} in the filesystem.")]
    TooManyObjects(u64),
    /// `FSDirWriteFileOp.analyzeFileState`.
    #[error("Request looked like a retry to allocate block {block} but it already contains {length} bytes")]
    NotARetry { block: String, length: u64 },
    /// `FSDirWriteFileOp.analyzeFileState`.
    #[error(
        "Cannot allocate block in {path}: passed 'previous' block {previous} does not match actual last \
         block in file {last}"
    )]
    PreviousMismatch { path: String, previous: String, last: String },
    /// `BlockManager.commitBlock`.
    #[error("Commit block with mismatching GS. NN has {have}, client submits {submitted}")]
    CommitStampMismatch { have: String, submitted: String },
    /// `BlockInfo.commitBlock`.
    #[error("Trying to commit inconsistent block: id = {submitted}, expected id = {have}")]
    CommitIdMismatch { have: i64, submitted: i64 },
    /// `BlockManager.commitOrCompleteLastBlock`.
    #[error("Commit or complete block {0}, whereas it is under recovery.")]
    CommitUnderRecovery(String),
    /// `BlockManager.commitBlock` asserts it.
    #[error("Commit block {block} with {submitted} bytes, fewer than the {have} that were synced")]
    CommitShrinks { block: String, have: u64, submitted: u64 },
    /// Not HDFS's: `abandonBlock` of a block that is under recovery.
    #[error("Abandon block {0}, whereas it is under recovery.")]
    AbandonUnderRecovery(String),

    /// `FSDirAppendOp.appendFile`.
    #[error("Failed to append to non-existent file {path} for client {machine}")]
    NothingToAppendTo { path: String, machine: String },
    /// `FSDirAppendOp.appendFile`.
    #[error("Cannot append to directory {0}; already exists as a directory.")]
    AppendToDirectory(String),

    /// `FSDirTruncateOp.truncate`, while another truncation runs.
    #[error("{}{} is being truncated.", because(operation, of), of.path)]
    BeingTruncated { operation: &'static str, of: Box<Contended> },
    /// `FSDirTruncateOp.truncate`.
    #[error("Cannot truncate to a larger file size. Current size: {have}, truncate size: {asked}.")]
    TruncateLonger { have: u64, asked: u64 },

    /// `FSNamesystem.checkUCBlock`.
    #[error("{0} does not exist.")]
    BlockMissing(String),
    /// `FSNamesystem.checkUCBlock`.
    #[error("Unexpected BlockUCState: {block} is {state} but not UNDER_CONSTRUCTION")]
    UnexpectedBlockState { block: String, state: &'static str },
    /// `FSNamesystem.checkUCBlock`.
    #[error("The file {0} belonged to does not exist or it is not under construction.")]
    BlockOfNothing(String),
    /// `FSNamesystem.checkUCBlock`.
    #[error("Lease mismatch: {block} is accessed by a non lease holder {holder}")]
    LeaseMismatch { block: String, holder: String },
    /// `FSNamesystem.updatePipeline` asserts it.
    #[error("{new} and {old} has different block identifier")]
    PipelineOfAnother { new: String, old: String },
    /// `FSNamesystem.updatePipelineInternal`.
    #[error(
        "Update {old} but the new block {new} does not have a larger generation stamp than the last block {last}"
    )]
    PipelineStampOld { old: String, new: String, last: String },
    /// `FSNamesystem.updatePipelineInternal`.
    #[error("Update {old} (size={old_length}) to a smaller size block {new} (size={new_length})")]
    PipelineShrinks { old: String, old_length: u64, new: String, new_length: u64 },
    /// Not HDFS's: a stamp from the future would stand above those of later recoveries.
    #[error("Update {old} to {new}, whose generation stamp was never given out")]
    PipelineStampUnknown { old: String, new: String },

    /// `FSNamesystem.commitBlockSynchronization`.
    #[error("Block (={0}) not found")]
    RecoveredNotFound(String),
    /// `FSNamesystem.commitBlockSynchronization`.
    #[error("File not found: {0}, likely due to delayed block removal")]
    RecoveredFileGone(String),
    /// `FSNamesystem.commitBlockSynchronization`.
    #[error("The recovery id {submitted} does not match current recovery id {current} for block {block}")]
    RecoveryMismatch { submitted: u64, current: u64, block: String },
    /// Not HDFS's: it would cut off what fsync or close promised; the recovery is to be tried again.
    #[error(
        "The recovery {recovery} of block {block} ended with {length} bytes, but {kept} were synced before"
    )]
    RecoveryLoses { recovery: u64, block: String, length: u64, kept: u64 },
    /// Not HDFS's: the file would not have the length that was asked for.
    #[error(
        "The recovery {recovery} of block {block} ended with {length} bytes, but it was to be cut to {asked}"
    )]
    RecoveryNotCut { recovery: u64, block: String, length: u64, asked: u64 },

    /// `FSDirConcatOp.validatePath`.
    #[error("No sources given")]
    ConcatNothing,
    /// `FSDirConcatOp.validatePath`.
    #[error("Concat operation doesn't support .reserved relative path : {0}")]
    ConcatReserved(String),
    /// `FSDirConcatOp.verifyTargetFile`.
    #[error("concat: target file {0} is under construction")]
    ConcatTargetOpen(String),
    /// `FSDirConcatOp.verifySrcFiles`.
    #[error("Source file {source_path} is not in the same directory with the target {target_path}")]
    ConcatElsewhere { source_path: String, target_path: String },
    /// `FSDirConcatOp.verifySrcFiles`.
    #[error("concat: the src file {source_path} is the same with the target file {target_path}")]
    ConcatSame { source_path: String, target_path: String },
    /// `FSDirConcatOp.verifySrcFiles`.
    #[error("concat: source file {0} is invalid or empty or underConstruction")]
    ConcatInvalid(String),
    /// `FSDirConcatOp.verifySrcFiles`.
    #[error(
        "concat: source file {path} has preferred block size {size} which is greater than the target file's \
         preferred block size {most}"
    )]
    ConcatBlockSize { path: String, size: u64, most: u64 },
    /// `FSDirConcatOp.verifySrcFiles`.
    #[error("concat: at least two of the source files are the same")]
    ConcatTwice,

    /// The first command must be [`crate::Operation::Format`].
    #[error("NameNode is not formatted.")]
    NotFormatted,
    /// A second [`crate::Operation::Format`].
    #[error("NameNode is already formatted as {0}")]
    AlreadyFormatted(String),

    /// `FSDirectory.resolvePath`, and what may not be made or removed under `/.reserved`.
    #[error("Invalid path name {0}")]
    InvalidPath(String),

    /// `FSDirectory.verifyINodeName`.
    #[error("\"{0}\" is a reserved name.")]
    ReservedName(String),
    /// `FSDirectory.addLastINode`.
    #[error(
        "File name \"{0}\" is reserved and cannot be created. If this is during upgrade change the name of the \
         existing file or directory to another name before upgrading to the new release."
    )]
    ReservedRoot(String),

    /// `FSDirDeleteOp.delete`.
    #[error("`{0} is non empty': Directory is not empty")]
    NotEmpty(String),

    /// The caller holds the lease already.
    #[error("{}{} is already the current lease holder.", because(operation, of), of.holder)]
    AlreadyHeld { operation: &'static str, of: Box<Contended> },
    /// Somebody else holds it.
    #[error("{}this file lease is currently owned by {} on {}", because(operation, of), of.owner, of.owner_machine)]
    HeldByOther { operation: &'static str, of: Box<Contended> },
    /// Its recovery began just now.
    #[error("{}lease recovery is in progress. Try again later.", because(operation, of))]
    RecoveryStarted { operation: &'static str, of: Box<Contended> },
    /// Its recovery runs.
    #[error("{}another recovery is in progress by {} on {}", because(operation, of), of.owner, of.owner_machine)]
    RecoveryRuns { operation: &'static str, of: Box<Contended> },

    /// `FSNamesystem.checkLease` of a directory.
    #[error("INode is not a regular file: {0}")]
    LeaseOfDirectory(LeaseSubject),
    /// `FSNamesystem.checkLease` of a closed file.
    #[error("File is not open for writing: {0}")]
    NotOpen(LeaseSubject),
    /// `FSNamesystem.checkLease` of another's file. The parenthesis is HDFS's.
    #[error("Client (={}) is not the lease owner (={owner}: {subject}", subject.holder)]
    NotLeaseOwner { owner: String, subject: LeaseSubject },

    /// `FSDirectory.verifyMaxComponentLength`.
    #[error(
        "The maximum path component name limit of {name} in directory {parent} is exceeded: limit={most} \
         length={length}"
    )]
    NameTooLong { name: String, parent: String, most: u32, length: usize },
    /// `FSDirectory.verifyMaxDirItems`.
    #[error("The directory item limit of {parent} is exceeded: limit={most} items={items}")]
    DirectoryFull { parent: String, most: u64, items: u64 },

    /// A write at or below the root's `.snapshot`.
    #[error("Modification on a read-only snapshot is disallowed")]
    SnapshotIsReadOnly,
    /// `.snapshot` of a plain directory.
    #[error("Directory is not a snapshottable directory: {0}")]
    NotSnapshottable(String),
    /// Flags or fields of what comes later.
    #[error("{0}")]
    Unsupported(&'static str),

    /// The last block is another one than the leader looked up: it looks again. Nobody outside sees it.
    #[error("the last block of {0} is another one by now")]
    LastBlockMoved(String),

    /// Who asked has gone. Nobody outside sees it.
    #[error("nobody waits for the answer any more")]
    NobodyWaits,

    /// The tables failed: ours, not the caller's. Never an outcome of `apply`.
    #[error(transparent)]
    Tables(#[from] TableError),
}

fn client_name(machine: &Option<String>) -> String {
    machine.as_ref().map(|machine| format!(", clientName={machine}")).unwrap_or_default()
}

fn because(operation: &str, of: &Contended) -> String {
    format!("Failed to {operation} {} for {} on {} because ", of.path, of.holder, of.machine)
}

impl NamespaceError {
    /// The Java exception class.
    pub fn kind(&self) -> ErrorKind {
        use NamespaceError as E;
        match self {
            E::FileNotFound(_)
            | E::NotAFile(_)
            | E::NothingToOwn(_)
            | E::NothingThere(_)
            | E::DirectoryNotFound(_)
            | E::NothingToSetTimes(_)
            | E::NothingToAccess(_)
            | E::ParentNotFound(_)
            | E::NothingToOverwrite(_)
            | E::InodePathNotFound(_)
            | E::InodePathInvalid(_)
            | E::RenameSourceNotFound(_)
            | E::RenameParentNotFound(_)
            | E::NothingToAppendTo { .. }
            | E::RecoveredFileGone(_)
            | E::LeaseOfNothing(_) => ErrorKind::FileNotFound,
            E::StartAfterNotFound(_) => ErrorKind::StartAfterNotFound,
            E::Denied(_)
            | E::DeniedBySticky { .. }
            | E::NotOwner { .. }
            | E::NotSuperuser { .. }
            | E::MayNotGiveAway(_)
            | E::NotInGroup { .. }
            | E::Protected(_)
            | E::ProtectedBelow(_)
            | E::ProtectedAbove(_)
            | E::AncestorNotDirectory(_) => ErrorKind::AccessControl,
            E::ParentNotDirectory(_) => ErrorKind::ParentNotDirectory,
            E::ExistsAsDirectory(_)
            | E::FileExists { .. }
            | E::NotADirectory(_)
            | E::AppendToDirectory(_)
            | E::RenameSame { .. }
            | E::RenameTargetExists(_) => ErrorKind::FileAlreadyExists,
            E::RenameSourceIsRoot
            | E::RenameTargetIsRoot
            | E::RenameIntoItself { .. }
            | E::RenameKindsDiffer { .. }
            | E::RenameTargetNotEmpty(_)
            | E::BlockSizeTooSmall { .. }
            | E::ReplicationTooHigh { .. }
            | E::ReplicationTooLow { .. }
            | E::PathTooLong { .. }
            | E::TooManyBlocks { .. }
            | E::TooManyObjects(_)
            | E::NotARetry { .. }
            | E::PreviousMismatch { .. }
            | E::CommitStampMismatch { .. }
            | E::CommitIdMismatch { .. }
            | E::CommitUnderRecovery(_)
            | E::CommitShrinks { .. }
            | E::AbandonUnderRecovery(_)
            | E::BlockMissing(_)
            | E::UnexpectedBlockState { .. }
            | E::BlockOfNothing(_)
            | E::PipelineOfAnother { .. }
            | E::PipelineStampOld { .. }
            | E::PipelineShrinks { .. }
            | E::PipelineStampUnknown { .. }
            | E::RecoveredNotFound(_)
            | E::RecoveryMismatch { .. }
            | E::RecoveryLoses { .. }
            | E::RecoveryNotCut { .. }
            | E::ConcatReserved(_)
            | E::NotFormatted
            | E::AlreadyFormatted(_)
            | E::LastBlockMoved(_)
            | E::NobodyWaits
            | E::Tables(_) => ErrorKind::Io,
            E::InvalidPath(_) => ErrorKind::InvalidPath,
            E::ReservedName(_)
            | E::ReservedRoot(_)
            | E::TruncateLonger { .. }
            | E::ConcatTargetOpen(_)
            | E::ConcatElsewhere { .. }
            | E::ConcatSame { .. }
            | E::ConcatInvalid(_)
            | E::ConcatBlockSize { .. }
            | E::ConcatTwice => ErrorKind::IllegalArgument,
            E::ConcatNothing => ErrorKind::JavaIllegalArgument,
            E::NotEmpty(_) => ErrorKind::PathIsNotEmptyDirectory,
            E::AlreadyHeld { .. } | E::HeldByOther { .. } | E::BeingTruncated { .. } => {
                ErrorKind::AlreadyBeingCreated
            }
            E::RecoveryStarted { .. } | E::RecoveryRuns { .. } => ErrorKind::RecoveryInProgress,
            E::LeaseOfDirectory(_) | E::NotOpen(_) | E::NotLeaseOwner { .. } | E::LeaseMismatch { .. } => {
                ErrorKind::LeaseExpired
            }
            E::NameTooLong { .. } => ErrorKind::PathComponentTooLong,
            E::DirectoryFull { .. } => ErrorKind::MaxDirectoryItems,
            E::SnapshotIsReadOnly => ErrorKind::SnapshotAccessControl,
            E::NotSnapshottable(_) => ErrorKind::Snapshot,
            E::Unsupported(_) => ErrorKind::Unsupported,
        }
    }
}
