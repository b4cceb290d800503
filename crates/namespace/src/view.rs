//! A published view. Every read with a caller parses nothing, walks the path once and checks the
//! caller once (DESIGN D8).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mobula_types::{Block, BlockId, GenStamp, HdfsPath, InodeId, Millis};
use redb::{Database, ReadableDatabase};

use crate::apply::file_status;
use crate::block::{self, Analysis};
use crate::command::{Caller, Create, Format, Guards, RetryKey, Rules};
use crate::directories::Memo;
use crate::error::NamespaceError;
use crate::guard;
use crate::holders::PublishedHolders;
use crate::lease::{check_lease, file_of};
use crate::names::Names;
use crate::namespace::{Counts, LogPosition};
use crate::outcome::{
    Allocated, BlockRecord, BlockState, ContentSummary, FileBlock, FileBlocks, FileKind, FileStatus, Listing,
    OpenFile, Outcome, Recovery, RunningRecovery,
};
use crate::permission::{Check, EXECUTE, READ, WRITE, check, check_traverse, visit_tree};
use crate::record::{BlockRow, Body, Construction, File, Inode};
use crate::resolve::{self, Aim, Walk};
use crate::retry;
use crate::snapshot;
use crate::state::State;
use crate::table::{Go, RETRY, Read, ReadTables, TableError, block_record};
use crate::tree;

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
    /// The writer's address.
    pub machine: String,
    /// Set for a retry: this will be answered, targets need not be chosen.
    pub retry: Option<Allocated>,
    /// The last block of the file, with the length that `previous` gives it; the caller refuses with
    /// `NotReplicatedYetException` while the one before it lacks replicas.
    pub last: Option<BlockRecord>,
    /// The block before `last`.
    pub penultimate: Option<BlockRecord>,
}

/// What must be known of a file's end before a `complete` is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastBlocks {
    /// The last block.
    pub last: Option<FileBlock>,
    /// The block before it.
    pub penultimate: Option<FileBlock>,
    /// The last one's recovery, if one runs.
    pub recovery: Option<Recovery>,
}

/// A read-only view of one state: a cheap clone. It pins the pages of its state while it lives, so take a
/// new one for each request.
#[derive(Clone)]
pub struct View {
    published: Arc<Published>,
}

struct Published {
    tables: ReadTables,
    state: State,
    holders: PublishedHolders,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("applied", &self.published.state.applied).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn publish(
        database: &Database,
        state: &State,
        names: &Arc<Names>,
        memo: &Arc<Memo>,
        holders: PublishedHolders,
        version: u64,
    ) -> Result<View, TableError> {
        let tables = ReadTables::open(database.begin_read()?, names.clone(), memo.clone(), version)?;
        Ok(View { published: Arc::new(Published { tables, state: state.clone(), holders }) })
    }

    fn tables(&self) -> &ReadTables {
        &self.published.tables
    }

    fn state(&self) -> &State {
        &self.published.state
    }

    fn resolve<'p>(
        &self,
        caller: &Caller,
        path: &'p HdfsPath,
        operation: &'static str,
    ) -> Result<Walk<'p>, NamespaceError> {
        if self.state().format.is_none() {
            return Err(NamespaceError::NotFormatted);
        }
        resolve::resolve(self.tables(), &self.state().rules, caller, path, Aim::Read, operation)
    }

    fn check(&self, caller: &Caller, walk: &Walk<'_>, access: u8) -> Result<(), NamespaceError> {
        check(self.tables(), &self.state().rules, caller, walk, Check { access, ..Check::default() })
    }

    /// What that call was answered the first time, if it was and is still known. Calls that are on their way into the log
    /// are not known yet.
    ///
    /// # Errors
    /// The tables'.
    pub fn remembered(&self, call: &RetryKey) -> Result<Option<Outcome>, TableError> {
        let retry = self.tables().transaction.open_table(RETRY)?;
        let answer = retry::stored(&retry, call, self.state().time)?;
        answer.map(|answer| retry::answered(self.tables(), &answer)).transpose()
    }

    /// `getFileInfo`: none if there is no such file.
    ///
    /// # Errors
    /// AccessControl on the way.
    pub fn status(&self, caller: &Caller, path: &HdfsPath) -> Result<Option<FileStatus>, NamespaceError> {
        let walk = match self.resolve(caller, path, "getfileinfo") {
            // The superuser is told "absent" where a file is an ancestor: HDFS's contracts want it.
            Err(NamespaceError::AncestorNotDirectory(_)) if caller.superuser => return Ok(None),
            walk => walk?,
        };
        Ok(self.shown(&walk))
    }

    /// The status at the end of a walk.
    fn shown(&self, walk: &Walk<'_>) -> Option<FileStatus> {
        let name = walk.name(walk.depth);
        if resolve::is_exactly_reserved(&walk.path) {
            return Some(bare_directory(name, RESERVED_MODE));
        }
        if walk.snapshot && walk.depth == 1 {
            return Some(bare_directory(name, SNAPSHOTS_MODE));
        }
        walk.last().map(|last| file_status(self.tables(), last, name.as_bytes()))
    }

    /// As [`View::status`], for calls that tell what only who may read it may know: attributes, policies.
    ///
    /// # Errors
    /// AccessControl.
    pub fn readable_status(
        &self,
        caller: &Caller,
        path: &HdfsPath,
    ) -> Result<Option<FileStatus>, NamespaceError> {
        let walk = self.resolve(caller, path, "getfileinfo")?;
        self.check(caller, &walk, READ)?;
        Ok(self.shown(&walk))
    }

    /// Whether the caller may set a policy of what is there; `operation` is HDFS's name of that.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn check_policy_settable(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        operation: &'static str,
    ) -> Result<(), NamespaceError> {
        if self.state().format.is_none() {
            return Err(NamespaceError::NotFormatted);
        }
        let walk = resolve::resolve(self.tables(), &self.state().rules, caller, path, Aim::Write, operation)?;
        self.check(caller, &walk, WRITE)?;
        match walk.last() {
            Some(_) => Ok(()),
            None => Err(NamespaceError::NothingThere(walk.text())),
        }
    }

    /// What is in `/.reserved`: `FSDirectory.createReservedStatuses`.
    fn reserved_listing(&self) -> Listing {
        let born = self.state().format.as_ref().map_or(Millis(0), |format| format.created);
        let entries = [resolve::RESERVED_INODES, resolve::RESERVED_RAW].map(|name| FileStatus {
            group: self.state().rules.supergroup.clone(),
            modified: born,
            accessed: born,
            ..bare_directory(name, RESERVED_ENTRY_MODE)
        });
        Listing { entries: entries.into(), remaining: 0 }
    }

    /// The snapshots of a directory: the root may have none, and no other is asked yet.
    fn snapshots(walk: &Walk<'_>) -> Result<Listing, NamespaceError> {
        if walk.snapshot {
            return Ok(Listing { entries: Vec::new(), remaining: 0 });
        }
        Err(match walk.parent() {
            Some(_) => NamespaceError::NotSnapshottable(walk.parent_path()),
            None => NamespaceError::DirectoryNotFound(walk.parent_path()),
        })
    }

    /// `getListing`: up to `limit` (at least 1) names after `start_after` (exclusive), which is a name or a path
    /// under `/.reserved` that stands for one; a file gives itself with an empty name.
    ///
    /// # Errors
    /// AccessControl; StartAfterNotFound; Snapshot for the `.snapshot` of a plain directory, FileNotFound for that of none.
    pub fn listing(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        start_after: &[u8],
        limit: usize,
    ) -> Result<Option<Listing>, NamespaceError> {
        let walk = self.resolve(caller, path, "listStatus")?;
        let start_after = self.name_meant(start_after)?;
        if resolve::is_exactly_reserved(&walk.path) {
            return Ok(Some(self.reserved_listing()));
        }
        let Some(last) = walk.last() else {
            let asked =
                walk.name(walk.depth) == resolve::SNAPSHOT_NAME && (!walk.snapshot || walk.depth == 1);
            return if asked { View::snapshots(&walk).map(Some) } else { Ok(None) };
        };
        let Some(directory) = last.directory() else {
            let entries = vec![file_status(self.tables(), last, b"")];
            return Ok(Some(Listing { entries, remaining: 0 }));
        };
        self.check(caller, &walk, READ | EXECUTE)?;
        let after = Some(&start_after[..]).filter(|name| !name.is_empty());
        self.page(last.id, after, limit.max(1), directory.children).map(Some).map_err(Into::into)
    }

    /// The name that a client's `startAfter` means: it may give a path of the inode where it left off.
    fn name_meant<'n>(&self, start_after: &'n [u8]) -> Result<Cow<'n, [u8]>, NamespaceError> {
        if !start_after.starts_with(b"/.reserved/") {
            return Ok(start_after.into());
        }
        let text = String::from_utf8_lossy(start_after);
        let found = HdfsPath::parse(&text).ok().and_then(|path| {
            resolve::stands_for(self.tables(), &path).ok().map(|path| path.name().as_bytes().to_vec())
        });
        found.map(Cow::Owned).ok_or_else(|| NamespaceError::StartAfterNotFound(text.into_owned()))
    }

    fn page(
        &self,
        directory: InodeId,
        after: Option<&[u8]>,
        limit: usize,
        children: u64,
    ) -> Result<Listing, TableError> {
        let tables = self.tables();
        let mut entries = Vec::with_capacity(limit.min(children as usize));
        tables.children(directory, after, |name, child| {
            entries.push(file_status(tables, &child, name));
            Ok(if entries.len() < limit { Go::On } else { Go::Stop })
        })?;
        let remaining = match (after, entries.last()) {
            (_, None) => 0,
            (None, Some(_)) => children - entries.len() as u64,
            (Some(_), Some(_)) if entries.len() < limit => 0,
            // How many come after is known only by counting them, which is done for a few. Beyond, clients
            // ask whether it is 0: that one more look tells; the rest is an upper bound.
            (Some(_), Some(last)) => {
                let most = if children <= REMAINING_COUNTED_MAX { children } else { 1 };
                match self.count_after(directory, &last.name, most as usize)? {
                    1 if most == 1 => children.saturating_sub(entries.len() as u64 + 1).max(1),
                    counted => counted,
                }
            }
        };
        Ok(Listing { entries, remaining })
    }

    /// How many children come after a name, up to `most`.
    fn count_after(&self, directory: InodeId, name: &[u8], most: usize) -> Result<u64, TableError> {
        let mut count = 0;
        for row in self.tables().child_rows(directory, Some(name))?.take(most) {
            row?;
            count += 1;
        }
        Ok(count)
    }

    /// `getBlockLocations` without the locations. `now` is the reader's time: it decides `touch`. The
    /// length in the status is without an incomplete last block.
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
        if self.state().format.is_none() {
            return Err(NamespaceError::NotFormatted);
        }
        // Whether there is such a file is told to everybody, as HDFS does.
        let walk = resolve::resolve_unasked(self.tables(), path)?;
        let file = file_of(&walk)?;
        let inode = walk.last().expect("a file was found");
        check_traverse(self.tables(), &self.state().rules, caller, &walk)?;
        self.check(caller, &walk, READ)?;
        let mut status = file_status(self.tables(), inode, walk.name(walk.depth).as_bytes());
        if let FileKind::File { length, .. } = &mut status.kind {
            *length = file.length;
        }
        // The block at `offset` is shown in any case (`BlockManager.createLocatedBlockList`).
        let end = offset.saturating_add(length.max(1));
        let mut blocks = Vec::new();
        let first = self.first_overlapping(inode.id, file, offset)?;
        for index in first..file.blocks {
            let block = self.file_block(inode.id, file, index)?;
            if block.offset >= end {
                break;
            }
            blocks.push(block);
        }
        let last = match file.blocks.checked_sub(1) {
            Some(index) => Some(self.file_block(inode.id, file, index)?),
            None => None,
        };
        let precision = self.state().rules.access_time_precision;
        let touches = precision.0 != 0 && now > file.accessed + precision;
        Ok(FileBlocks { touch: touches.then_some(inode.id), status, blocks, last })
    }

    /// Index of the block that holds `offset`: the last one that begins at or before it.
    fn first_overlapping(&self, inode: InodeId, file: &File, offset: u64) -> Result<u32, TableError> {
        let (mut low, mut high) = (0, file.blocks);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.file_block(inode, file, middle)?.offset <= offset { low = middle } else { high = middle }
        }
        if file.blocks > 0 && offset > 0 {
            let block = self.file_block(inode, file, low)?;
            // Beyond the end nothing overlaps, but for an open block, whose end is not known.
            let ends = block.offset + block.block.length;
            if block.state == BlockState::Committed && offset >= ends {
                return Ok(low + 1);
            }
        }
        Ok(low)
    }

    fn file_block(&self, inode: InodeId, file: &File, index: u32) -> Result<FileBlock, TableError> {
        let id = self.tables().block_at(inode, file.first, index)?;
        let row = self.tables().file_block_row(inode, id)?;
        let targets = match (&file.open, row.state) {
            (Some(open), BlockState::UnderConstruction) => open.targets.clone(),
            _ => Vec::new(),
        };
        Ok(FileBlock { block: row.block(id), offset: row.offset, state: row.state, targets })
    }

    /// `getContentSummary`. May visit millions of names, and asks at each whether it `goes_on`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound; NobodyWaits.
    pub fn content_summary(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<ContentSummary, NamespaceError> {
        let walk = self.resolve(caller, path, "contentSummary")?;
        match walk.last() {
            Some(last) => self.summary(caller, &walk, last, goes_on),
            None => Err(NamespaceError::FileNotFound(walk.text())),
        }
    }

    /// `getQuotaUsage`: the same figures, since no directory has a quota; the whole tree is checked before.
    ///
    /// # Errors
    /// AccessControl, FileNotFound; NobodyWaits.
    pub fn quota_usage(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<ContentSummary, NamespaceError> {
        let walk = self.resolve(caller, path, "quotaUsage")?;
        let asked = Check { below: READ | EXECUTE, ..Check::default() };
        check(self.tables(), &self.state().rules, caller, &walk, asked)?;
        match walk.last() {
            Some(last) => self.summary(caller, &walk, last, goes_on),
            None => Err(NamespaceError::NothingThere(walk.text())),
        }
    }

    fn summary(
        &self,
        caller: &Caller,
        walk: &Walk<'_>,
        top: &Inode,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<ContentSummary, NamespaceError> {
        let mut summary = ContentSummary::default();
        visit_tree(self.tables(), &self.state().rules, caller, walk.text(), top, goes_on, |node| {
            match &node.body {
                Body::Directory(_) => summary.directories += 1,
                Body::File(file) => {
                    summary.files += 1;
                    summary.length += file.length + file.open.as_ref().map_or(0, |open| open.open_length);
                    summary.space += self.space(node.id, file)?;
                }
            }
            Ok(())
        })?;
        Ok(summary)
    }

    /// Bytes that a file takes: of an open last block what that may become (`INodeFile.storagespaceConsumedContiguous`).
    fn space(&self, inode: InodeId, file: &File) -> Result<u64, TableError> {
        let last = match &file.open {
            Some(_) => block::last_block(self.tables(), inode, file)?,
            None => None,
        };
        let open = last.is_some_and(|(_, row)| row.state == BlockState::UnderConstruction);
        let length = file.length + if open { file.block_size } else { 0 };
        Ok(length * u64::from(file.replication))
    }

    /// `isFileClosed`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn is_file_closed(&self, caller: &Caller, path: &HdfsPath) -> Result<bool, NamespaceError> {
        Ok(file_of(&self.resolve(caller, path, "isFileClosed")?)?.open.is_none())
    }

    /// `getPreferredBlockSize`, bytes.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn preferred_block_size(&self, caller: &Caller, path: &HdfsPath) -> Result<u64, NamespaceError> {
        Ok(file_of(&self.resolve(caller, path, "getPreferredBlockSize")?)?.block_size)
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
        let walk = self.resolve(caller, path, "checkAccess")?;
        if walk.last().is_none() {
            return Err(NamespaceError::NothingToAccess(walk.text()));
        }
        self.check(caller, &walk, access.0)
    }

    /// Whether `create` would make a file now, so that a block may be placed for it: checks as the command will, but for
    /// the lease of a file that is there.
    ///
    /// # Errors
    /// As [`crate::Operation::Create`].
    pub fn plan_create(&self, caller: &Caller, create: &Create) -> Result<(), NamespaceError> {
        if self.state().format.is_none() {
            return Err(NamespaceError::NotFormatted);
        }
        tree::plan_create(self.tables(), self.state(), caller, create)
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
        guard::check_objects(self.state(), 0)?;
        let walk = self.resolve_file(caller, path, file, "addBlock")?;
        let (record, open) = check_lease(&walk, file, holder, || self.files_held(holder))?;
        let pool = self.state().format.as_ref().map_or("", |format| format.pool.as_str());
        let analysis = block::analyze(self.tables(), &self.state().rules, pool, &walk, record, previous)?;
        let mut plan = BlockPlan {
            inode: walk.last().expect("the lease was checked").id,
            path: walk.path.clone().into_owned(),
            replication: record.replication,
            block_size: record.block_size,
            machine: open.machine.clone(),
            retry: None,
            last: None,
            penultimate: None,
        };
        match analysis {
            Analysis::Retry { block, row } if !open.targets.is_empty() => {
                let (block, targets) = (row.block(block), open.targets.clone());
                plan.retry = Some(Allocated { block, offset: row.offset, targets });
            }
            Analysis::Retry { .. } => {}
            Analysis::New { last, penultimate } => {
                block::check_commit(&last, open, previous)?;
                plan.last = last.map(|(id, mut row)| {
                    if let (Some(previous), BlockState::UnderConstruction) = (previous, row.state) {
                        row.length = previous.length;
                    }
                    block_record(id, &row)
                });
                plan.penultimate = penultimate.map(|(id, row)| block_record(id, &row));
            }
        }
        Ok(plan)
    }

    fn resolve_file<'p>(
        &self,
        caller: &Caller,
        path: &'p HdfsPath,
        file: Option<InodeId>,
        operation: &'static str,
    ) -> Result<Walk<'p>, NamespaceError> {
        if self.state().format.is_none() {
            return Err(NamespaceError::NotFormatted);
        }
        resolve::resolve_file(self.tables(), &self.state().rules, caller, path, file, operation)
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
        let walk = self.resolve_file(caller, path, file, "checkLease")?;
        check_lease(&walk, file, holder, || self.files_held(holder))?;
        Ok(open_file(&walk).expect("the lease was checked"))
    }

    /// As [`View::open_file`]: the file's last two blocks, as far as it has them.
    ///
    /// # Errors
    /// FileNotFound, LeaseExpired.
    pub fn last_blocks(
        &self,
        caller: &Caller,
        path: &HdfsPath,
        file: Option<InodeId>,
        holder: &str,
    ) -> Result<LastBlocks, NamespaceError> {
        let walk = self.resolve_file(caller, path, file, "checkLease")?;
        let (record, open) = check_lease(&walk, file, holder, || self.files_held(holder))?;
        let inode = walk.last().expect("the lease was checked").id;
        let from_end = |nth: u32| {
            let index = record.blocks.checked_sub(nth);
            index.map(|index| self.file_block(inode, record, index)).transpose()
        };
        Ok(LastBlocks { last: from_end(1)?, penultimate: from_end(2)?, recovery: open.recovery })
    }

    /// All blocks of a file, in order; none if there is no such file.
    ///
    /// # Errors
    /// The tables'.
    pub fn blocks_of(&self, file: InodeId) -> Result<Vec<FileBlock>, TableError> {
        let Some(place) = self.tables().place(file)? else { return Ok(Vec::new()) };
        let Some(inode) = self.tables().entry(place.parent, &place.name)? else { return Ok(Vec::new()) };
        let Some(record) = inode.file() else { return Ok(Vec::new()) };
        (0..record.blocks).map(|index| self.file_block(file, record, index)).collect()
    }

    /// One block, also of a tree that is not yet reaped.
    ///
    /// # Errors
    /// The tables'.
    pub fn block(&self, block: BlockId) -> Result<Option<BlockRecord>, TableError> {
        Ok(self.tables().block_row(block)?.map(|row| block_record(block, &row)))
    }

    /// Up to `count` blocks from `from` (inclusive) on, by id.
    ///
    /// # Errors
    /// The tables'.
    pub fn blocks_from(&self, from: BlockId, count: usize) -> Result<Vec<BlockRecord>, TableError> {
        let mut records = Vec::new();
        for row in self.tables().blocks.range(from.0..)?.take(count) {
            let (id, value) = row?;
            records.push(block_record(BlockId(id.value()), &BlockRow::decode(value.value())?));
        }
        Ok(records)
    }

    /// The next block id to be given out: replicas from here on are of blocks not yet applied (D15).
    pub fn next_block(&self) -> BlockId {
        self.state().next_block
    }

    /// The next stamp to be given out.
    pub fn next_stamp(&self) -> GenStamp {
        self.state().next_stamp
    }

    /// Where an inode is; none if it is gone or in a tree that was cut off.
    ///
    /// # Errors
    /// The tables'.
    pub fn path_of(&self, inode: InodeId) -> Result<Option<HdfsPath>, TableError> {
        resolve::path_of(self.tables(), inode)
    }

    /// Files being written, by inode id, those after `after`; those in trees that were cut off are left
    /// out.
    ///
    /// # Errors
    /// The tables'.
    pub fn open_files(&self, after: InodeId, limit: usize) -> Result<Vec<OpenFile>, TableError> {
        let mut files = Vec::new();
        for row in self.tables().open.range(after.0.saturating_add(1)..)? {
            if files.len() >= limit {
                break;
            }
            let (id, _) = row?;
            if let Some(walk) = resolve::chain(self.tables(), InodeId(id.value()))? {
                files.extend(open_file(&walk));
            }
        }
        Ok(files)
    }

    /// Recoveries that run, by inode id, those of files after `after`: what a new leader must order again, and
    /// retry when it is late. Looks at every open file.
    ///
    /// # Errors
    /// The tables'.
    pub fn recoveries(&self, after: InodeId, limit: usize) -> Result<Vec<RunningRecovery>, TableError> {
        let mut running = Vec::new();
        for row in self.tables().open.range(after.0.saturating_add(1)..)? {
            if running.len() >= limit {
                break;
            }
            let (id, value) = row?;
            let open = Construction::decode(value.value())?;
            if open.recovery.is_some() {
                running.extend(self.recovery_of(InodeId(id.value()))?);
            }
        }
        Ok(running)
    }

    /// The recovery of that file's last block; none if none runs, or the file is gone.
    ///
    /// # Errors
    /// The tables'.
    pub fn recovery_of(&self, file: InodeId) -> Result<Option<RunningRecovery>, TableError> {
        let Some(place) = self.tables().place(file)? else { return Ok(None) };
        if resolve::path_of(self.tables(), file)?.is_none() {
            return Ok(None); // Of a tree that was cut off.
        }
        let Some(inode) = self.tables().entry(place.parent, &place.name)? else { return Ok(None) };
        let Some(record) = inode.file() else { return Ok(None) };
        let Some(open) = &record.open else { return Ok(None) };
        let (Some(recovery), Some((id, row))) =
            (open.recovery, block::last_block(self.tables(), file, record)?)
        else {
            return Ok(None);
        };
        Ok(Some(RunningRecovery { file, block: row.block(id), targets: open.targets.clone(), recovery }))
    }

    /// How many files `holder` writes. Of the newest view, whichever this is, and without a look at the tables.
    pub fn files_held(&self, holder: &str) -> u64 {
        self.published.holders.held(holder)
    }

    /// Holders of leases in order, up to `limit` of those after `after` (all, if none). As [`View::files_held`].
    pub fn holders(&self, after: Option<&str>, limit: usize) -> Vec<Arc<str>> {
        self.published.holders.page(after, limit)
    }

    /// The files that these write, of the next `rows` open ones after `after`, and where to go on, if there are
    /// more. Those in trees that were cut off are left out.
    ///
    /// # Errors
    /// The tables'.
    pub fn files_of(
        &self,
        holders: &BTreeSet<Arc<str>>,
        after: InodeId,
        rows: usize,
    ) -> Result<(Vec<OpenFile>, Option<InodeId>), TableError> {
        let mut files = Vec::new();
        let mut seen = 0;
        for row in self.tables().open.range(after.0.saturating_add(1)..)? {
            let (id, value) = row?;
            let id = InodeId(id.value());
            if holders.contains(Construction::decode_holder(value.value())?)
                && let Some(walk) = resolve::chain(self.tables(), id)?
            {
                files.extend(open_file(&walk));
            }
            seen += 1;
            if seen >= rows {
                return Ok((files, Some(id)));
            }
        }
        Ok((files, None))
    }

    /// Who writes this file; none if nobody does or there is no such file.
    ///
    /// # Errors
    /// The tables'.
    pub fn lease_of(&self, file: InodeId) -> Result<Option<String>, TableError> {
        match self.tables().open.get(file.0)? {
            Some(row) => Construction::decode_holder(row.value()).map(|holder| Some(holder.to_owned())),
            None => Ok(None),
        }
    }

    /// Who writes the file at this path; for what must be known before a `create` is logged, so
    /// without a caller. None if nobody does or there is no such file.
    ///
    /// # Errors
    /// The tables'.
    pub fn lease_at(&self, path: &HdfsPath) -> Result<Option<OpenFile>, TableError> {
        Ok(self.found(path)?.and_then(|walk| open_file(&walk)))
    }

    /// The last block of the file at this path; for what must be known before an `append` is logged, so without
    /// a caller. None if there is no such file, or it has no blocks.
    ///
    /// # Errors
    /// The tables'.
    pub fn last_block_at(&self, path: &HdfsPath) -> Result<Option<FileBlock>, TableError> {
        let Some(walk) = self.found(path)? else { return Ok(None) };
        let Some((id, file)) = walk.last().and_then(|last| Some((last.id, last.file()?))) else {
            return Ok(None);
        };
        let last = file.blocks.checked_sub(1);
        last.map(|index| self.file_block(id, file, index)).transpose()
    }

    /// The block of the file at this path in which a new end at `length` lies; for what must be known before a
    /// `truncate` is logged, so without a caller. None if that is at a block's border or not within the file.
    ///
    /// # Errors
    /// The tables'.
    pub fn block_cut_at(&self, path: &HdfsPath, length: u64) -> Result<Option<FileBlock>, TableError> {
        let Some(walk) = self.found(path)? else { return Ok(None) };
        let Some((id, file)) = walk.last().and_then(|last| Some((last.id, last.file()?))) else {
            return Ok(None);
        };
        let index = self.first_overlapping(id, file, length)?;
        if index >= file.blocks {
            return Ok(None);
        }
        let block = self.file_block(id, file, index)?;
        let inside = block.offset < length && length < block.offset + block.block.length;
        Ok(inside.then_some(block))
    }

    /// What a path names, with nobody asked; none if it is nothing.
    fn found<'p>(&self, path: &'p HdfsPath) -> Result<Option<Walk<'p>>, TableError> {
        if self.state().format.is_none() {
            return Ok(None);
        }
        match resolve::find(self.tables(), path) {
            Ok(walk) => Ok(Some(walk)),
            Err(NamespaceError::Tables(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        self.state().counts()
    }

    /// The cluster's birth; none before [`crate::Operation::Format`].
    pub fn format(&self) -> Option<Format> {
        self.state().format.as_deref().cloned()
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.state().rules.clone()
    }

    /// The guards in force.
    pub fn guards(&self) -> Arc<Guards> {
        self.state().guards.clone()
    }

    /// The time of the last batch.
    pub fn log_time(&self) -> Millis {
        self.state().time
    }

    /// Position of the last applied entry.
    pub fn applied(&self) -> Option<LogPosition> {
        self.state().applied
    }

    /// The last membership.
    pub fn membership(&self) -> Option<Vec<u8>> {
        self.state().membership.as_ref().map(|bytes| bytes.to_vec())
    }

    /// Writes all tables, in order of their keys: a versioned header, the records, a CRC.
    ///
    /// # Errors
    /// The tables' or `out`'s.
    pub fn write_snapshot(&self, out: &mut dyn std::io::Write) -> Result<(), TableError> {
        snapshot::write(&self.tables().transaction, out)
    }

    /// See [`crate::Namespace::state_hash`].
    ///
    /// # Errors
    /// The tables'.
    pub fn state_hash(&self) -> Result<u64, TableError> {
        snapshot::hash(&self.tables().transaction)
    }
}

/// In directories of up to so many children a later page tells exactly how many are left.
const REMAINING_COUNTED_MAX: u64 = 128;
/// `FSDirectory.DOT_RESERVED_STATUS`, what is in it, and `DOT_SNAPSHOT_DIR_STATUS`.
const RESERVED_MODE: u16 = 0o1770;
const RESERVED_ENTRY_MODE: u16 = 0o770;
const SNAPSHOTS_MODE: u16 = 0o777;

/// A directory that nobody made.
fn bare_directory(name: &str, mode: u16) -> FileStatus {
    FileStatus {
        inode: InodeId::NONE,
        name: name.into(),
        kind: FileKind::Directory { children: 0 },
        mode,
        owner: String::new(),
        group: String::new(),
        modified: Millis(0),
        accessed: Millis(0),
    }
}

/// The open file at the end of a walk.
fn open_file(walk: &Walk<'_>) -> Option<OpenFile> {
    let inode = walk.last()?;
    let open = inode.file()?.open.as_deref()?;
    Some(OpenFile {
        inode: inode.id,
        path: walk.path.clone().into_owned(),
        holder: open.holder.clone(),
        machine: open.machine.clone(),
        since: open.since,
        recovery: open.recovery,
    })
}
