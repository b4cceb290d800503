//! A published view. Every read with a caller parses nothing, walks the path once and checks the
//! caller once (DESIGN D8).

use mobula_types::{Block, BlockId, GenStamp, HdfsPath, InodeId, Millis};

use crate::command::{Caller, Format, Rules};
use crate::error::NamespaceError;
use crate::namespace::{Counts, LogPosition};
use crate::outcome::{
    Allocated, BlockRecord, ContentSummary, FileBlock, FileBlocks, FileStatus, Listing, OpenFile,
};
use crate::table::TableError;

/// What is asked of a path by `checkAccess`: an rwx triple of bits, 4 2 1; 0 asks for existence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u8);

/// What placement must know before an [`crate::AddBlock`] is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPlan {
    /// The file.
    pub inode: InodeId,
    /// Its path.
    pub path: HdfsPath,
    /// How many targets to choose.
    pub replication: u16,
    /// Preferred block size, bytes.
    pub block_size: u64,
    /// Set for a retry: this will be answered, targets need not be chosen.
    pub retry: Option<Allocated>,
    /// The last block of the file, with the length that `previous` gives it; the caller refuses with
    /// `NotReplicatedYetException` while the one before it lacks replicas.
    pub last: Option<BlockRecord>,
    /// The block before `last`.
    pub penultimate: Option<BlockRecord>,
}

/// A read-only view of one state: a cheap clone.
#[derive(Clone, Debug)]
pub struct View {}

#[allow(unused_variables, clippy::unimplemented)]
impl View {
    /// `getFileInfo`: none if there is no such file.
    ///
    /// # Errors
    /// AccessControl on the way.
    pub fn status(&self, caller: &Caller, path: &HdfsPath) -> Result<Option<FileStatus>, NamespaceError> {
        unimplemented!()
    }

    /// `getListing`: up to `limit` (at least 1) names after `start_after` (exclusive); a file gives
    /// itself with an empty name.
    ///
    /// # Errors
    /// AccessControl.
    pub fn listing(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        start_after: &[u8],
        limit: usize,
    ) -> Result<Option<Listing>, NamespaceError> {
        unimplemented!()
    }

    /// `getBlockLocations` without the locations. `now` is the reader's time: it decides `touch`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn file_blocks(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        offset: u64,
        length: u64,
        now: Millis,
    ) -> Result<FileBlocks, NamespaceError> {
        unimplemented!()
    }

    /// `getContentSummary`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn content_summary(
        &self,
        caller: &Caller,
        path: &HdfsPath,
    ) -> Result<ContentSummary, NamespaceError> {
        unimplemented!()
    }

    /// `isFileClosed`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn is_file_closed(&self, caller: &Caller, path: &HdfsPath) -> Result<bool, NamespaceError> {
        unimplemented!()
    }

    /// `getPreferredBlockSize`, bytes.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn preferred_block_size(&self, caller: &Caller, path: &HdfsPath) -> Result<u64, NamespaceError> {
        unimplemented!()
    }

    /// `checkAccess`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn check_access(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        access: Access,
    ) -> Result<(), NamespaceError> {
        unimplemented!()
    }

    /// What `addBlock` would do now, for placement. Checks as the command will.
    ///
    /// # Errors
    /// As [`crate::Operation::AddBlock`].
    pub fn plan_block(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        file: Option<InodeId>,
        holder: &str,
        previous: Option<Block>,
    ) -> Result<BlockPlan, NamespaceError> {
        unimplemented!()
    }

    /// `checkLease`: the open file that `holder` writes, found by id before path.
    ///
    /// # Errors
    /// FileNotFound, LeaseExpired.
    pub fn open_file(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        file: Option<InodeId>,
        holder: &str,
    ) -> Result<OpenFile, NamespaceError> {
        unimplemented!()
    }

    /// All blocks of a file, in order; none if there is no such file.
    ///
    /// # Errors
    /// The tables'.
    pub fn blocks_of(&self, file: InodeId) -> Result<Vec<FileBlock>, TableError> {
        unimplemented!()
    }

    /// One block, also of a tree that is not yet reaped.
    ///
    /// # Errors
    /// The tables'.
    pub fn block(&self, block: BlockId) -> Result<Option<BlockRecord>, TableError> {
        unimplemented!()
    }

    /// Up to `count` blocks from `from` (inclusive) on, by id.
    ///
    /// # Errors
    /// The tables'.
    pub fn blocks_from(&self, from: BlockId, count: usize) -> Result<Vec<BlockRecord>, TableError> {
        unimplemented!()
    }

    /// The next block id to be given out: replicas from here on are of blocks not yet applied (D15).
    pub fn next_block(&self) -> BlockId {
        unimplemented!()
    }

    /// The next stamp to be given out.
    pub fn next_stamp(&self) -> GenStamp {
        unimplemented!()
    }

    /// Where an inode is; none if it is gone or in a tree that was cut off.
    ///
    /// # Errors
    /// The tables'.
    pub fn path_of(&self, inode: InodeId) -> Result<Option<HdfsPath>, TableError> {
        unimplemented!()
    }

    /// Files being written, by inode id, those after `after`.
    ///
    /// # Errors
    /// The tables'.
    pub fn open_files(&self, after: InodeId, limit: usize) -> Result<Vec<OpenFile>, TableError> {
        unimplemented!()
    }

    /// The files that `holder` writes.
    ///
    /// # Errors
    /// The tables'.
    pub fn leases(&self, holder: &str) -> Result<Vec<InodeId>, TableError> {
        unimplemented!()
    }

    /// Who writes this file; none if nobody does or there is no such file.
    ///
    /// # Errors
    /// The tables'.
    pub fn lease_of(&self, file: InodeId) -> Result<Option<String>, TableError> {
        unimplemented!()
    }

    /// Who writes the file at this path; for what must be known before a `create` is logged, so
    /// without a caller. None if nobody does or there is no such file.
    ///
    /// # Errors
    /// The tables'.
    pub fn lease_at(&self, path: &HdfsPath) -> Result<Option<OpenFile>, TableError> {
        unimplemented!()
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        unimplemented!()
    }

    /// The cluster's birth; none before [`crate::Operation::Format`].
    pub fn format(&self) -> Option<Format> {
        unimplemented!()
    }

    /// The rules in force.
    pub fn rules(&self) -> Rules {
        unimplemented!()
    }

    /// The time of the last batch.
    pub fn log_time(&self) -> Millis {
        unimplemented!()
    }

    /// Position of the last applied entry.
    pub fn applied(&self) -> Option<LogPosition> {
        unimplemented!()
    }

    /// The last membership.
    pub fn membership(&self) -> Option<Vec<u8>> {
        unimplemented!()
    }

    /// Writes all tables, in order of their keys: a versioned header, the records, a CRC.
    ///
    /// # Errors
    /// The tables' or `out`'s.
    pub fn write_snapshot(&self, out: &mut dyn std::io::Write) -> Result<(), TableError> {
        unimplemented!()
    }

    /// See [`crate::Namespace::state_hash`].
    ///
    /// # Errors
    /// The tables'.
    pub fn state_hash(&self) -> Result<u64, TableError> {
        unimplemented!()
    }
}
