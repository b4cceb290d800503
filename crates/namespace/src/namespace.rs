//! The state machine: opening, applying, syncing. Bodies follow.

use mobula_types::{BlockId, InodeId};

use crate::command::Batch;
use crate::outcome::Applied;
use crate::table::TableError;
use crate::view::View;

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The leader's term.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}

/// What a log entry holds for the namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Commands.
    Batch(Batch),
    /// Raft's membership, opaque here; kept beside the position.
    Membership(Vec<u8>),
    /// A leader's first entry: only its position counts.
    Blank,
}

/// The namespace. One owner, who applies; readers take a [`View`].
#[derive(Debug)]
pub struct Namespace {
    view: View,
}

#[allow(unused_variables, clippy::unimplemented)]
impl Namespace {
    /// Opens the tables on `backend`, or makes them there. `cache_bytes` bounds the page cache.
    ///
    /// # Errors
    /// Storage that fails, or tables of another format.
    pub fn open(backend: impl redb::StorageBackend, cache_bytes: usize) -> Result<Namespace, TableError> {
        unimplemented!()
    }

    /// Position of the last applied entry; none for a new namespace.
    pub fn applied(&self) -> Option<LogPosition> {
        unimplemented!()
    }

    /// The last [`Entry::Membership`].
    pub fn membership(&self) -> Option<Vec<u8>> {
        unimplemented!()
    }

    /// Applies entries, in one transaction that is not synced. Answers as many lists as there are
    /// entries; a blank or membership entry has an empty one. An entry at or below
    /// [`Namespace::applied`] is a fault of the caller's and panics.
    ///
    /// # Errors
    /// Storage that fails: final, the process stops.
    pub fn apply_all(&mut self, entries: &[(LogPosition, Entry)]) -> Result<Vec<Vec<Applied>>, TableError> {
        unimplemented!()
    }

    /// Makes all that was applied durable, so that it is there after a crash and reopening is quick.
    ///
    /// # Errors
    /// Storage that fails: final.
    pub fn sync(&mut self) -> Result<Option<LogPosition>, TableError> {
        unimplemented!()
    }

    /// What was last applied, for readers. Cheap.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// See [`View::write_snapshot`].
    ///
    /// # Errors
    /// The tables' or `out`'s.
    pub fn write_snapshot(&self, out: &mut dyn std::io::Write) -> Result<(), TableError> {
        self.view.write_snapshot(out)
    }

    /// Replaces everything by a snapshot, and syncs. On an error the old state stays.
    ///
    /// # Errors
    /// A snapshot cut short, changed or of another version; the tables' own.
    pub fn restore(&mut self, from: &mut dyn std::io::Read) -> Result<(), TableError> {
        unimplemented!()
    }

    /// A hash over the logical content of all tables: equal states hash equal, however they came about.
    ///
    /// # Errors
    /// The tables'.
    pub fn state_hash(&self) -> Result<u64, TableError> {
        self.view.state_hash()
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files and directories, the root counted.
    pub inodes: u64,
    /// Files.
    pub files: u64,
    /// Directories, the root counted.
    pub directories: u64,
    /// Blocks of files (those not yet reaped are not counted).
    pub blocks: u64,
    /// Files being written.
    pub open_files: u64,
    /// Trees cut off and not yet wholly removed: [`crate::Operation::Reap`] is due while not 0.
    pub pending_reap: u64,
    /// The next block id to be given out.
    pub next_block: BlockId,
    /// The next inode id to be given out.
    pub next_inode: InodeId,
}
