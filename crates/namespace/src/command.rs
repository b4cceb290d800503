//! What may be asked of the namespace: the contents of the log. A command carries all that `apply`
//! may not look up by itself: who asks, when, and what was chosen by chance or from soft state.

use std::collections::BTreeSet;

use mobula_types::{Block, BlockId, ClientId, GenStamp, HdfsPath, InodeId, Millis, PoolId, Target};
use serde::{Deserialize, Serialize};

/// One entry's worth of the log: commands that share a time and an fsync. Answered by as many
/// [`crate::Applied`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's time of day; `apply` uses max(previous, this), jumps forward bounded (D12).
    pub time: Millis,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// One change that somebody asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Who asks.
    pub caller: Caller,
    /// Set for HDFS's at-most-once calls: the same key again is given the first answer.
    pub retry: Option<RetryKey>,
    /// What is asked.
    pub operation: Operation,
}

/// Who asks, with what was resolved about them before the command was logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Short user name.
    pub user: String,
    /// The user's groups, primary first.
    pub groups: Vec<String>,
    /// The NameNode's own user, or a member of the supergroup.
    pub superuser: bool,
    /// The caller's address, as HDFS prints it in messages about leases.
    pub machine: String,
}

/// Key of the retry cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RetryKey {
    /// The RPC client.
    pub client: ClientId,
    /// Its call.
    pub call: i32,
}

/// Limits and switches that decide outcomes. They are state, changed by a command, so that a replay
/// under another configuration cannot tell another story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// `dfs.permissions.enabled`.
    pub permissions: bool,
    /// `dfs.permissions.superusergroup`.
    pub supergroup: String,
    /// `dfs.namenode.fs-limits.min-block-size`, bytes.
    pub block_size_min: u64,
    /// `dfs.namenode.fs-limits.max-blocks-per-file`.
    pub file_blocks_max: u64,
    /// `dfs.namenode.fs-limits.max-component-length`, bytes; 0 for no limit.
    pub name_bytes_max: u32,
    /// `dfs.namenode.fs-limits.max-directory-items`.
    pub directory_items_max: u64,
    /// `dfs.replication.max`.
    pub replication_max: u16,
    /// `dfs.namenode.replication.min`.
    pub replication_min: u16,
    /// `dfs.namenode.accesstime.precision`, milliseconds; 0 for no access times.
    pub access_time_precision: Millis,
    /// Another client may take over a lease that was not renewed for this long.
    pub lease_ms_soft: Millis,
    /// The NameNode closes the files of a lease that was not renewed for this long.
    pub lease_ms_hard: Millis,
}

impl Default for Rules {
    /// HDFS's defaults.
    fn default() -> Rules {
        Rules {
            permissions: true,
            supergroup: "supergroup".into(),
            block_size_min: 1 << 20,
            file_blocks_max: 10_000,
            name_bytes_max: 255,
            directory_items_max: 1 << 20,
            replication_max: 512,
            replication_min: 1,
            access_time_precision: Millis(3_600_000),
            lease_ms_soft: Millis(60_000),
            lease_ms_hard: Millis(20 * 60_000),
        }
    }
}

/// What else an administrator may forbid. Not part of [`Rules`], which stand in the logs of programs that knew nothing of
/// it: these have a command and a row of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// `dfs.namenode.max.objects`: files, directories and blocks together; 0 for any number.
    pub objects_max: u64,
    /// `fs.protected.directories`: deleted and renamed by nobody unless they are empty.
    pub protected: BTreeSet<HdfsPath>,
    /// `dfs.protected.subdirectories.enable`: what is below them neither.
    pub protect_subdirectories: bool,
}

/// Every change there is. Paths of RPCs that carry a file id have it in `file`: HDFS then goes by
/// the id, not by the path. The log numbers them in this order: new ones come last, so that a log
/// that was written before can be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the RPCs of the same name.
pub enum Operation {
    /// The first command of a cluster, and the only one that an empty namespace takes.
    Format(Format),
    /// Rules changed by configuration.
    Configure(Rules),
    Mkdirs {
        path: HdfsPath,
        mode: u16,
        parents: Parents,
    },
    Create(Create),
    AddBlock(AddBlock),
    AbandonBlock {
        path: HdfsPath,
        file: Option<InodeId>,
        holder: String,
        block: Block,
    },
    /// The caller has made sure that the blocks have enough finalized replicas (soft state).
    Complete {
        path: HdfsPath,
        file: Option<InodeId>,
        holder: String,
        last: Option<Block>,
    },
    Fsync {
        path: HdfsPath,
        file: Option<InodeId>,
        holder: String,
        last_length: Option<u64>,
    },
    /// `recoverLease`: takes the lease from its holder at once.
    RecoverLease {
        path: HdfsPath,
        holder: String,
    },
    /// A lease whose hard limit passed, found by the leader: closes what can be closed.
    ExpireLease {
        holder: String,
        file: InodeId,
        closable: Closable,
    },
    Rename {
        source: HdfsPath,
        target: HdfsPath,
    },
    Rename2 {
        source: HdfsPath,
        target: HdfsPath,
        overwrite: Overwrite,
        to_trash: bool,
    },
    Delete {
        path: HdfsPath,
        recursive: bool,
    },
    SetReplication {
        path: HdfsPath,
        replication: u16,
    },
    SetPermission {
        path: HdfsPath,
        mode: u16,
    },
    SetOwner {
        path: HdfsPath,
        user: Option<String>,
        group: Option<String>,
    },
    /// `None` leaves a time as it is (-1 on the wire).
    SetTimes {
        path: HdfsPath,
        modified: Option<Millis>,
        accessed: Option<Millis>,
    },
    /// Access times that readers left behind; nobody waits for it, missing inodes are skipped.
    Touch {
        accesses: Vec<(InodeId, Millis)>,
    },
    /// Removes up to `inodes` inodes of trees that were deleted.
    Reap {
        inodes: u32,
    },
    Append(Append),
    Truncate(Truncate),
    Concat {
        target: HdfsPath,
        sources: Vec<HdfsPath>,
    },
    /// `updateBlockForPipeline`: a new stamp for the last block of an open file; the block itself
    /// stays as it is until `UpdatePipeline`.
    UpdateBlockForPipeline {
        block: Block,
        holder: String,
    },
    UpdatePipeline(UpdatePipeline),
    CommitBlockSynchronization(CommitBlockSynchronization),
    /// A block's recovery did not end in time, found by the leader: it begins again under a higher
    /// recovery id. Nothing if the file is closed, or the recovery is another one by now.
    RetryRecovery {
        file: InodeId,
        recovery: GenStamp,
    },
    /// `Create` and the `AddBlock` of the first block, for these targets.
    CreateWith {
        create: Create,
        targets: Vec<Target>,
    },
    /// `Complete` and, once the file is closed, `Rename2` of that very file, wherever it was moved meanwhile: nobody
    /// sees the name before the file is whole. If the rename is refused, the file is closed where it was; if it has the
    /// name already, it was granted before.
    CompleteAs {
        path: HdfsPath,
        file: Option<InodeId>,
        holder: String,
        last: Option<Block>,
        target: HdfsPath,
        overwrite: Overwrite,
    },
    /// Guards changed by configuration.
    Guard(Guards),
    /// `setAcl` of an ACL that is a mode: the nine bits of owner, group and others, the sticky bit stays. `None`: of an
    /// empty one, which takes away what there is, and there is nothing.
    SetAcl {
        path: HdfsPath,
        access: Option<u16>,
    },
}

/// A cluster's birth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// `CID-<uuid>`.
    pub cluster_id: String,
    /// 31 bits, not 0.
    pub namespace_id: u32,
    /// `BP-<n>-<ip>-<ms>`.
    pub pool: PoolId,
    /// Creation time as DataNodes compare it; 0 for a new cluster.
    pub created: Millis,
    /// The next block id, stamp and inode id to hand out (adopting a cluster gives higher ones).
    pub next_block: BlockId,
    /// See `next_block`.
    pub next_stamp: GenStamp,
    /// See `next_block`.
    pub next_inode: InodeId,
    /// Owner of the root directory.
    pub owner: String,
    /// The first rules.
    pub rules: Rules,
}

/// Whether missing parents are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parents {
    /// Made, with HDFS's implied modes.
    Create,
    /// Must be there.
    Require,
}

/// Whether an existing target is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overwrite {
    /// Replaced.
    Yes,
    /// An error.
    No,
}

/// What soft state says of an open file's blocks when its lease expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closable {
    /// All blocks have enough finalized replicas; the last one's length is this.
    Complete {
        /// Id, stamp and length of the last block.
        last: Option<Block>,
    },
    /// The last block has no location and no bytes: drop it and close.
    DropLast,
    /// Not yet: block recovery must run first.
    NotYet,
}

/// `create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// The new file.
    pub path: HdfsPath,
    /// Permission bits with the umask already applied.
    pub mode: u16,
    /// The client's name, which will hold the lease.
    pub holder: String,
    /// `CreateFlag` bits as on the wire: CREATE 1, OVERWRITE 2, APPEND 4, LAZY_PERSIST 16, NEW_BLOCK
    /// 32, SHOULD_REPLICATE 128.
    pub flags: u32,
    /// Missing parents.
    pub parents: Parents,
    /// Target number of replicas.
    pub replication: u16,
    /// Bytes.
    pub block_size: u64,
    /// When the present holder of the lease, if any, last renewed it (soft state of the leader).
    pub holder_renewed: Option<Millis>,
}

/// Where the replicas of a file's last block are, which is soft state: the leader looks it up before
/// the command is logged. If that block is another one when the command is applied, the answer is
/// [`crate::NamespaceError::LastBlockMoved`], and the leader looks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBlock {
    /// Id, stamp and length.
    pub block: Block,
    /// Its good replicas.
    pub targets: Vec<Target>,
}

/// `append`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The file.
    pub path: HdfsPath,
    /// The client's name, which will hold the lease.
    pub holder: String,
    /// `CreateFlag` bits as on the wire: APPEND 4, NEW_BLOCK 32.
    pub flags: u32,
    /// See [`Create::holder_renewed`].
    pub holder_renewed: Option<Millis>,
    /// None for a file without blocks.
    pub last: Option<LastBlock>,
}

/// `truncate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncate {
    /// The file.
    pub path: HdfsPath,
    /// The client's name, which holds the lease while a recovery runs.
    pub holder: String,
    /// The new length in bytes.
    pub length: u64,
    /// See [`Create::holder_renewed`].
    pub holder_renewed: Option<Millis>,
    /// The block in which the new end lies, none if that is at a block's border.
    pub last: Option<LastBlock>,
}

/// `updatePipeline`: the writer goes on with other nodes, or under a new stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePipeline {
    /// The lease's holder.
    pub holder: String,
    /// The block as it was.
    pub old: Block,
    /// Its new stamp, and its length so far.
    pub new: Block,
    /// Where its replicas are expected from now on, in pipeline order.
    pub targets: Vec<Target>,
}

/// `commitBlockSynchronization`: how a block's recovery ended, as its primary DataNode says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitBlockSynchronization {
    /// The block, with the stamp that it had before.
    pub block: Block,
    /// The recovery's id, which is the block's stamp from now on.
    pub stamp: GenStamp,
    /// Its length in bytes.
    pub length: u64,
    /// Close the file.
    pub close: bool,
    /// No replica has any byte: drop the block.
    pub delete: bool,
    /// Where it is now.
    pub targets: Vec<Target>,
}

/// `addBlock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddBlock {
    /// The file, as the client names it.
    pub path: HdfsPath,
    /// The file's id, which goes before the path.
    pub file: Option<InodeId>,
    /// The lease's holder.
    pub holder: String,
    /// The block that the client thinks is last, with its final length.
    pub previous: Option<Block>,
    /// Where a new block would go, as placement chose; unused if this is a retry.
    pub targets: Vec<Target>,
}
