//! The tables: their names, keys and errors, and reading them alike in a view and inside `apply`.

use std::cell::RefCell;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use mobula_types::{BlockId, InodeId};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use smallvec::SmallVec;

use crate::directories::{Directories, Memo};
use crate::names::Names;
use crate::outcome::BlockRecord;
use crate::record::{BlockRow, Construction, Inode, Place};

/// The tables cannot be read or written, or hold what they must not. Never the caller's fault: whoever
/// meets one stops serving.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The storage below failed.
    #[error("namespace tables: {0}")]
    Storage(String),
    /// A record that no version of this program wrote, or that a newer one did.
    #[error("namespace tables: {table}: {detail}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// What was found.
        detail: String,
    },
    /// A snapshot that was cut or changed, or is of another format.
    #[error("namespace snapshot: {0}")]
    Snapshot(String),
}

impl TableError {
    pub(crate) fn storage(error: impl fmt::Display) -> TableError {
        TableError::Storage(error.to_string())
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for TableError {
            fn from(error: redb::$error) -> TableError {
                TableError::storage(error)
            }
        }
    )*};
}
from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError, SetDurabilityError);

/// Keys that are numbers.
pub(crate) type NumberDefinition = TableDefinition<'static, u64, &'static [u8]>;
/// Keys that are bytes, in unsigned byte order.
pub(crate) type BytesDefinition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// (parent id, 8 bytes big-endian; name) -> inode record.
pub(crate) const ENTRIES: BytesDefinition = TableDefinition::new("entries");
/// Inode id -> where it hangs.
pub(crate) const INODES: NumberDefinition = TableDefinition::new("inodes");
/// Block id -> block record.
pub(crate) const BLOCKS: NumberDefinition = TableDefinition::new("blocks");
/// (file, 8 bytes; index from 1, 4 bytes; both big-endian) -> block id, 8 bytes big-endian. Index 0 is
/// in the inode record.
pub(crate) const FILE_BLOCKS: BytesDefinition = TableDefinition::new("file_blocks");
/// Inode id of a file being written -> its construction, the holder of its lease first.
pub(crate) const OPEN: NumberDefinition = TableDefinition::new("open");
/// Directories that were cut off: id -> nothing.
pub(crate) const REAP: NumberDefinition = TableDefinition::new("reap");
/// Number -> owner or group.
pub(crate) const NAMES: NumberDefinition = TableDefinition::new("names");
/// (client, 16 bytes; call, 4 bytes big-endian) -> time, and the first answers to that call and some below it.
pub(crate) const RETRY: BytesDefinition = TableDefinition::new("retry");
/// Row number, counting up -> time, and the keys of the rows of `RETRY` that came in together.
pub(crate) const RETRY_ROWS: NumberDefinition = TableDefinition::new("retry_rows");
/// Everything there is one of.
pub(crate) const META: BytesDefinition = TableDefinition::new("meta");

pub(crate) const ROOT_PARENT: InodeId = InodeId(0);

pub(crate) type Key = SmallVec<[u8; 64]>;

pub(crate) fn entry_key(parent: InodeId, name: &[u8]) -> Key {
    let mut key = Key::from_slice(&parent.0.to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// The way back from [`entry_key`].
pub(crate) fn split_key(key: &[u8]) -> (InodeId, &[u8]) {
    let (parent, name) = key.split_at(8);
    (InodeId(u64::from_be_bytes(parent.try_into().expect("8 bytes"))), name)
}

pub(crate) fn file_block_key(file: InodeId, index: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&file.0.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// All tables in one state, to be read.
pub(crate) trait Read {
    type Bytes: ReadableTable<&'static [u8], &'static [u8]>;
    type Numbers: ReadableTable<u64, &'static [u8]>;

    fn entries(&self) -> &Self::Bytes;
    fn inodes(&self) -> &Self::Numbers;
    fn blocks(&self) -> &Self::Numbers;
    fn file_blocks(&self) -> &Self::Bytes;
    fn open_rows(&self) -> &Self::Numbers;
    fn names(&self) -> &Names;

    /// A directory that is remembered under that key.
    fn known(&self, key: &[u8]) -> Option<Inode>;
    /// Remembers a directory that the tables hold.
    fn learn(&self, key: &Key, inode: &Inode);
    /// Where a directory hangs, if that is remembered.
    fn known_place(&self, inode: InodeId) -> Option<Place>;
    /// The tables hold all that is known.
    fn is_settled(&self) -> bool;

    /// The inode under that name.
    fn entry(&self, parent: InodeId, name: &[u8]) -> Result<Option<Inode>, TableError> {
        let key = entry_key(parent, name);
        if let Some(known) = self.known(&key) {
            return Ok(Some(known));
        }
        let Some(value) = self.entries().get(key.as_slice())? else { return Ok(None) };
        let inode = self.inode(value.value())?;
        if inode.is_directory() {
            self.learn(&key, &inode);
        }
        Ok(Some(inode))
    }

    /// The inode that an entry's record tells of, with what an open file has besides.
    fn inode(&self, record: &[u8]) -> Result<Inode, TableError> {
        let mut inode = Inode::decode(record)?;
        let id = inode.id;
        if let Some(open) = inode.file_mut().and_then(|file| file.open.as_deref_mut()) {
            let row = self.open_rows().get(id.0)?.ok_or_else(|| TableError::Corrupt {
                table: "open",
                detail: format!("the row of file {id} is missing"),
            })?;
            *open = Construction::decode(row.value())?;
        }
        Ok(inode)
    }

    /// Where an inode hangs.
    fn place(&self, inode: InodeId) -> Result<Option<Place>, TableError> {
        if let Some(place) = self.known_place(inode) {
            return Ok(Some(place));
        }
        match self.inodes().get(inode.0)? {
            Some(value) => Place::decode(value.value()).map(Some),
            None => Ok(None),
        }
    }

    fn block_row(&self, block: BlockId) -> Result<Option<BlockRow>, TableError> {
        match self.blocks().get(block.0)? {
            Some(value) => BlockRow::decode(value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// A block that a file names, so that it must be there.
    fn file_block_row(&self, file: InodeId, block: BlockId) -> Result<BlockRow, TableError> {
        self.block_row(block)?.ok_or_else(|| TableError::Corrupt {
            table: "blocks",
            detail: format!("{block} of file {file} is missing"),
        })
    }

    /// The id of the block at `index` of a file.
    fn block_at(&self, file: InodeId, first: BlockId, index: u32) -> Result<BlockId, TableError> {
        if index == 0 {
            return Ok(first);
        }
        let corrupt = |detail: &str| TableError::Corrupt {
            table: "file_blocks",
            detail: format!("{file}[{index}] {detail}"),
        };
        let value = self.file_blocks().get(file_block_key(file, index).as_slice())?;
        let value = value.ok_or_else(|| corrupt("is missing"))?;
        let bytes = value.value().try_into().map_err(|_| corrupt("is not 8 bytes"))?;
        Ok(BlockId(u64::from_be_bytes(bytes)))
    }

    /// The rows of a directory's children whose names come after `after` (all, if none).
    fn child_rows(
        &self,
        parent: InodeId,
        after: Option<&[u8]>,
    ) -> Result<redb::Range<'_, &'static [u8], &'static [u8]>, TableError> {
        let start = entry_key(parent, after.unwrap_or_default());
        let end = entry_key(InodeId(parent.0 + 1), &[]);
        let lower = match after {
            Some(_) => Bound::Excluded(start.as_slice()),
            None => Bound::Included(start.as_slice()),
        };
        Ok(self.entries().range::<&[u8]>((lower, Bound::Excluded(end.as_slice())))?)
    }

    /// Calls `visit` with the children of a directory whose names come after `after` (all, if none),
    /// in order, until it says to stop.
    fn children(
        &self,
        parent: InodeId,
        after: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], Inode) -> Result<Go, TableError>,
    ) -> Result<(), TableError>
    where
        Self: Sized,
    {
        assert!(self.is_settled(), "what the tables do not hold yet would not show");
        for row in self.child_rows(parent, after)? {
            let (key, value) = row?;
            if visit(&key.value()[8..], self.inode(value.value())?)? == Go::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Pushes a directory's own directories whose names come before `before` (all, if none), the last one first, up to
    /// `limit`.
    fn subdirectories_before(
        &self,
        parent: InodeId,
        before: Option<&[u8]>,
        limit: usize,
        found: &mut Vec<(Vec<u8>, Inode)>,
    ) -> Result<(), TableError> {
        assert!(self.is_settled(), "what the tables do not hold yet would not show");
        let start = entry_key(parent, &[]);
        let end = match before {
            Some(name) => entry_key(parent, name),
            None => entry_key(InodeId(parent.0 + 1), &[]),
        };
        for row in self.entries().range::<&[u8]>(start.as_slice()..end.as_slice())?.rev() {
            let (key, value) = row?;
            let inode = self.inode(value.value())?;
            if inode.is_directory() {
                found.push((key.value()[8..].to_vec(), inode));
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether a visit goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    On,
    Stop,
}

pub(crate) fn block_record(id: BlockId, row: &BlockRow) -> BlockRecord {
    BlockRecord { block: row.block(id), inode: row.inode, replication: row.replication, state: row.state }
}

/// The tables of a view.
pub(crate) struct ReadTables {
    pub(crate) entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) inodes: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) blocks: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) file_blocks: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) open: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) names: Arc<Names>,
    pub(crate) memo: Arc<Memo>,
    /// Counts published views.
    pub(crate) version: u64,
    /// For what is rare: snapshots and hashes.
    pub(crate) transaction: ReadTransaction,
}

impl ReadTables {
    pub(crate) fn open(
        transaction: ReadTransaction,
        names: Arc<Names>,
        memo: Arc<Memo>,
        version: u64,
    ) -> Result<ReadTables, TableError> {
        Ok(ReadTables {
            entries: transaction.open_table(ENTRIES)?,
            inodes: transaction.open_table(INODES)?,
            blocks: transaction.open_table(BLOCKS)?,
            file_blocks: transaction.open_table(FILE_BLOCKS)?,
            open: transaction.open_table(OPEN)?,
            names,
            memo,
            version,
            transaction,
        })
    }
}

/// The tables inside `apply`.
pub(crate) struct WriteTables<'t> {
    pub(crate) entries: Table<'t, &'static [u8], &'static [u8]>,
    pub(crate) inodes: Table<'t, u64, &'static [u8]>,
    pub(crate) blocks: Table<'t, u64, &'static [u8]>,
    pub(crate) file_blocks: Table<'t, &'static [u8], &'static [u8]>,
    pub(crate) open: Table<'t, u64, &'static [u8]>,
    pub(crate) reap: Table<'t, u64, &'static [u8]>,
    pub(crate) name_rows: Table<'t, u64, &'static [u8]>,
    pub(crate) retry: Table<'t, &'static [u8], &'static [u8]>,
    pub(crate) retry_rows: Table<'t, u64, &'static [u8]>,
    pub(crate) meta: Table<'t, &'static [u8], &'static [u8]>,
    pub(crate) names: Arc<Names>,
    pub(crate) directories: RefCell<Directories>,
}

impl<'t> WriteTables<'t> {
    pub(crate) fn open(
        transaction: &'t WriteTransaction,
        names: Arc<Names>,
    ) -> Result<WriteTables<'t>, TableError> {
        Ok(WriteTables {
            entries: transaction.open_table(ENTRIES)?,
            inodes: transaction.open_table(INODES)?,
            blocks: transaction.open_table(BLOCKS)?,
            file_blocks: transaction.open_table(FILE_BLOCKS)?,
            open: transaction.open_table(OPEN)?,
            reap: transaction.open_table(REAP)?,
            name_rows: transaction.open_table(NAMES)?,
            retry: transaction.open_table(RETRY)?,
            retry_rows: transaction.open_table(RETRY_ROWS)?,
            meta: transaction.open_table(META)?,
            names,
            directories: RefCell::default(),
        })
    }

    pub(crate) fn put_entry(
        &mut self,
        parent: InodeId,
        name: &[u8],
        inode: &Inode,
        scratch: &mut Vec<u8>,
    ) -> Result<(), TableError> {
        if inode.is_directory() {
            self.directories.get_mut().change(parent, name, inode);
            return Ok(());
        }
        scratch.clear();
        inode.encode(scratch);
        self.entries.insert(entry_key(parent, name).as_slice(), scratch.as_slice())?;
        if let Some(open) = inode.file().and_then(|file| file.open.as_deref()) {
            scratch.clear();
            open.encode(scratch);
            self.open.insert(inode.id.0, scratch.as_slice())?;
        }
        Ok(())
    }

    pub(crate) fn remove_entry(&mut self, parent: InodeId, name: &[u8]) -> Result<(), TableError> {
        let key = entry_key(parent, name);
        self.directories.get_mut().forget(&key);
        self.entries.remove(key.as_slice())?;
        Ok(())
    }

    /// Writes the directories that changed: before the commit, and before children are listed.
    pub(crate) fn flush(&mut self) -> Result<(), TableError> {
        let entries = &mut self.entries;
        let mut record = Vec::with_capacity(64);
        self.directories.get_mut().flush(|key, inode| {
            record.clear();
            inode.encode(&mut record);
            entries.insert(key, record.as_slice())?;
            Ok(())
        })
    }
}

macro_rules! the_tables {
    () => {
        fn entries(&self) -> &Self::Bytes {
            &self.entries
        }
        fn inodes(&self) -> &Self::Numbers {
            &self.inodes
        }
        fn blocks(&self) -> &Self::Numbers {
            &self.blocks
        }
        fn file_blocks(&self) -> &Self::Bytes {
            &self.file_blocks
        }
        fn open_rows(&self) -> &Self::Numbers {
            &self.open
        }
        fn names(&self) -> &Names {
            &self.names
        }
    };
}

impl Read for ReadTables {
    type Bytes = ReadOnlyTable<&'static [u8], &'static [u8]>;
    type Numbers = ReadOnlyTable<u64, &'static [u8]>;
    the_tables!();

    fn known(&self, key: &[u8]) -> Option<Inode> {
        self.memo.entry(self.version, key)
    }
    fn learn(&self, key: &Key, inode: &Inode) {
        self.memo.learn(self.version, key, inode);
    }
    fn known_place(&self, _: InodeId) -> Option<Place> {
        None
    }
    fn is_settled(&self) -> bool {
        true
    }
}

impl<'t> Read for WriteTables<'t> {
    type Bytes = Table<'t, &'static [u8], &'static [u8]>;
    type Numbers = Table<'t, u64, &'static [u8]>;
    the_tables!();

    fn known(&self, key: &[u8]) -> Option<Inode> {
        self.directories.borrow().entry(key).cloned()
    }
    fn learn(&self, key: &Key, inode: &Inode) {
        self.directories.borrow_mut().learn(key, inode);
    }
    fn known_place(&self, inode: InodeId) -> Option<Place> {
        self.directories.borrow().place(inode)
    }
    fn is_settled(&self) -> bool {
        self.directories.borrow().is_settled()
    }
}
