//! What comes out of `apply` and of reads.

use mobula_types::{Block, BlockId, GenStamp, HdfsPath, InodeId, Millis, Target};

use crate::error::NamespaceError;

/// The answer to one command, and what it means for replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// For the caller.
    pub outcome: Result<Outcome, NamespaceError>,
    /// For the fleet. A refusal has some where it began a recovery (`RecoveryStarted`) or closed a file.
    pub effects: Vec<BlockEffect>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing to say.
    Done,
    /// Java's `true` or `false`: mkdirs, rename, delete, setReplication, complete, recoverLease.
    Bool(bool),
    /// `create`: the new file.
    Status(FileStatus),
    /// `create` with the first block: the new file and the block.
    Begun(FileStatus, Allocated),
    /// `addBlock`: the new block, or the same one again for a retry.
    Allocated(Allocated),
    /// `append`.
    Appended(Appended),
    /// `updateBlockForPipeline`: the block with its new stamp.
    Restamped(Block),
}

/// A file opened again for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The file.
    pub status: FileStatus,
    /// Its last block, if that is to be written on: under construction now, the stamp as it was. With
    /// NEW_BLOCK the last block without targets, as HDFS answers.
    pub block: Option<FileBlock>,
}

/// A block handed to a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// Id and stamp; length 0.
    pub block: Block,
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Where its replicas go.
    pub targets: Vec<Target>,
}

/// What a change of the namespace means for replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant says what its fields are.
pub enum BlockEffect {
    /// A new block under construction at these targets.
    Allocated { block: Block, replication: u16, targets: Vec<Target> },
    /// Its length and stamp are final; it counts for healing from now on.
    Committed { block: Block, replication: u16 },
    /// A committed block is under construction again (append, truncation inside it); its replicas at
    /// these targets are as good as before.
    Reopened { block: Block, replication: u16, targets: Vec<Target> },
    /// Its writer goes on under this stamp at these targets; replicas with an older one are stale.
    Pipeline { block: Block, targets: Vec<Target> },
    /// Its recovery begins, or begins again, under this id: a DataNode is to be ordered to bring its
    /// replicas to one length and stamp. With `truncate` to that length.
    Recover { block: Block, recovery: GenStamp, targets: Vec<Target>, truncate: Option<u64> },
    /// Its recovery ended: final replicas with this stamp and length are at these targets, synced; others
    /// are stale.
    Recovered { block: Block, targets: Vec<Target> },
    /// No file has it any more: its replicas go.
    Removed { block: BlockId },
    /// Its target number of replicas changed.
    Replication { block: BlockId, replication: u16 },
}

/// A file or directory, as `getFileInfo` tells it. Symlinks do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Its id.
    pub inode: InodeId,
    /// Its name within its directory, as bytes of UTF-8; empty for the root.
    pub name: Vec<u8>,
    /// File or directory, with what only one of them has.
    pub kind: FileKind,
    /// Permission bits, 12 of them (with sticky).
    pub mode: u16,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
    /// Modification time.
    pub modified: Millis,
    /// Access time; of a directory 0 until somebody sets it.
    pub accessed: Millis,
}

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory with so many children.
    Directory {
        /// How many.
        children: u64,
    },
    /// A file.
    File {
        /// Bytes of its committed blocks, and of an open last one what fsync recorded; without the
        /// latter in [`FileBlocks`].
        length: u64,
        /// Target number of replicas.
        replication: u16,
        /// Preferred block size in bytes.
        block_size: u64,
        /// Being written.
        open: bool,
    },
}

/// A file's block as the tables know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileBlock {
    /// Id, stamp and length; the length of an open last block is what `fsync` recorded, or 0.
    pub block: Block,
    /// Where it begins in the file.
    pub offset: u64,
    /// Whether its length is final.
    pub state: BlockState,
    /// While under construction, where its replicas are expected.
    pub targets: Vec<Target>,
}

/// How far a block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Being written.
    UnderConstruction,
    /// Length and stamp are final.
    Committed,
}

/// What the fleet needs to know of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// Id, stamp, length.
    pub block: Block,
    /// The file that it belongs to.
    pub inode: InodeId,
    /// Target number of replicas.
    pub replication: u16,
    /// Its state.
    pub state: BlockState,
}

/// A file with blocks, for `getBlockLocations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileBlocks {
    /// The file.
    pub status: FileStatus,
    /// The blocks that overlap the range asked for.
    pub blocks: Vec<FileBlock>,
    /// The last block of the file, whatever was asked for.
    pub last: Option<FileBlock>,
    /// Set where reading it now should move the access time (precision of [`crate::Rules`]).
    pub touch: Option<InodeId>,
}

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Names in unsigned byte order.
    pub entries: Vec<FileStatus>,
    /// How many come after the last of `entries`: 0 if none, exact on the first page, else an upper bound.
    pub remaining: u64,
}

/// `getContentSummary`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentSummary {
    /// Bytes of all files, once.
    pub length: u64,
    /// Files.
    pub files: u64,
    /// Directories, the asked one counted.
    pub directories: u64,
    /// Bytes times replication; an open last block counts as a whole one.
    pub space: u64,
}

/// A file being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// The file.
    pub inode: InodeId,
    /// Its path.
    pub path: HdfsPath,
    /// The lease's holder.
    pub holder: String,
    /// The address of the writer who opened it.
    pub machine: String,
    /// When it was opened (log time); 0 if tables of an earlier version did not tell.
    pub since: Millis,
    /// Set while its last block is recovered or cut.
    pub recovery: Option<Recovery>,
}

/// The recovery of a file's last block, while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Its id: the stamp that the block will have.
    pub id: GenStamp,
    /// When this attempt began (log time); 0 if tables of an earlier version did not tell.
    pub began: Millis,
    /// The block is to be cut to this many bytes: a truncation.
    pub truncate: Option<u64>,
}

/// A recovery with what a DataNode must be told of it; what [`BlockEffect::Recover`] said when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningRecovery {
    /// The file.
    pub file: InodeId,
    /// Its last block: stamp and length as they were before.
    pub block: Block,
    /// Where its replicas are expected.
    pub targets: Vec<Target>,
    /// Id, age and aim.
    pub recovery: Recovery,
}
