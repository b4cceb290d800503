//! The state machine: opening, applying, syncing. What a command does is in `apply`.

use std::sync::Arc;

use mobula_types::{BlockId, InodeId};
use redb::{Database, Durability, ReadableTable};

use crate::apply::Apply;
use crate::command::Batch;
use crate::directories::{Directories, Memo};
use crate::holders::Holders;
use crate::names::{NameNumbers, Names};
use crate::outcome::Applied;
use crate::retry::{Kept, LastCalls};
use crate::snapshot;
use crate::state::State;
use crate::table::{TableError, WriteTables};
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
    database: Database,
    state: State,
    names: Arc<Names>,
    numbers: NameNumbers,
    holders: Holders,
    calls: LastCalls,
    view: View,
    directories: Directories,
    memo: Arc<Memo>,
    version: u64,
    /// A transaction failed halfway: what is in memory tells another story than the tables.
    failed: Option<TableError>,
}

impl Namespace {
    /// Opens the tables on `backend`, or makes them there. `cache_bytes` bounds the page cache.
    ///
    /// # Errors
    /// Storage that fails, or tables of another format.
    pub fn open(backend: impl redb::StorageBackend, cache_bytes: usize) -> Result<Namespace, TableError> {
        let database = redb::Builder::new().set_cache_size(cache_bytes).create_with_backend(backend)?;
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true); // Else a kill before the first sync costs a walk of the file.
        let names = Arc::new(Names::default());
        let mut numbers = NameNumbers::default();
        let (state, mut holders) = {
            let mut tables = WriteTables::open(&transaction, names.clone())?;
            State::check_layout(&mut tables)?;
            load_names(&tables, &names, &mut numbers)?;
            (State::read(&tables.meta)?, Holders::count(&tables.open)?)
        };
        transaction.commit()?;
        let memo = Arc::new(Memo::default());
        let view = View::publish(&database, &state, &names, &memo, holders.publish(), 0)?;
        Ok(Namespace {
            database,
            state,
            names,
            numbers,
            holders,
            calls: LastCalls::default(),
            view,
            directories: Directories::default(),
            memo,
            version: 0,
            failed: None,
        })
    }

    /// Position of the last applied entry; none for a new namespace.
    pub fn applied(&self) -> Option<LogPosition> {
        self.state.applied
    }

    /// The last [`Entry::Membership`].
    pub fn membership(&self) -> Option<Vec<u8>> {
        self.state.membership.as_ref().map(|bytes| bytes.to_vec())
    }

    /// Applies entries, in one transaction that is not synced. Answers as many lists as there are
    /// entries; a blank or membership entry has an empty one.
    ///
    /// # Panics
    /// For an entry at or below [`Namespace::applied`]: to apply twice would fork the story.
    ///
    /// # Errors
    /// Storage that fails: final, the process stops.
    pub fn apply_all(&mut self, entries: &[(LogPosition, Entry)]) -> Result<Vec<Vec<Applied>>, TableError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.transact(entries);
        if let Err(error) = &answers {
            self.failed = Some(error.clone());
        }
        answers
    }

    fn transact(&mut self, entries: &[(LogPosition, Entry)]) -> Result<Vec<Vec<Applied>>, TableError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        let mut answers = Vec::with_capacity(entries.len());
        {
            let mut tables = WriteTables::open(&transaction, self.names.clone())?;
            tables.directories = std::mem::take(&mut self.directories).into();
            let mut apply = Apply {
                tables,
                state: &mut self.state,
                numbers: &mut self.numbers,
                holders: &mut self.holders,
                calls: &mut self.calls,
                kept: Kept::default(),
                effects: Vec::new(),
                scratch: Vec::with_capacity(512),
            };
            for (position, entry) in entries {
                answers.push(apply.entry(*position, entry)?);
            }
            apply.state.write(&mut apply.tables)?;
            apply.tables.flush()?;
            self.directories = apply.tables.directories.take();
        }
        transaction.commit()?;
        self.version += 1;
        self.memo.publish(self.version, &self.directories.trim());
        self.publish()?;
        Ok(answers)
    }

    /// Makes all that was applied durable, so that it is there after a crash and reopening is quick.
    /// Answers the position up to which the log may be cut.
    ///
    /// # Errors
    /// Storage that fails: final.
    pub fn sync(&mut self) -> Result<Option<LogPosition>, TableError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        {
            let mut tables = WriteTables::open(&transaction, self.names.clone())?;
            self.state.write(&mut tables)?;
        }
        let synced = transaction.commit().map_err(TableError::from);
        if let Err(error) = synced {
            self.failed = Some(error.clone()); // CASES 9: a second sync may lie.
            return Err(error);
        }
        // The old view would pin pages that this commit freed.
        self.publish()?;
        Ok(self.state.applied)
    }

    fn publish(&mut self) -> Result<(), TableError> {
        self.view = View::publish(
            &self.database,
            &self.state,
            &self.names,
            &self.memo,
            self.holders.publish(),
            self.version,
        )?;
        Ok(())
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
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        if let Err(error) = snapshot::read(&transaction, from) {
            transaction.abort()?;
            return Err(error);
        }
        let names = Arc::new(Names::default());
        let mut numbers = NameNumbers::default();
        let loaded = {
            let mut tables = WriteTables::open(&transaction, names.clone())?;
            State::check_layout(&mut tables)
                .and_then(|()| load_names(&tables, &names, &mut numbers))
                .and_then(|()| Ok((State::read(&tables.meta)?, Holders::count(&tables.open)?)))
        };
        let (state, holders) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                transaction.abort()?;
                return Err(error);
            }
        };
        transaction.commit()?;
        (self.state, self.names, self.numbers, self.holders) = (state, names, numbers, holders);
        (self.directories, self.memo, self.calls) = Default::default();
        self.failed = None;
        self.version = 0; // The memo is a new one, and counts from 0.
        self.publish()
    }

    /// A hash over the logical content of all tables: equal states hash equal, however they came about.
    ///
    /// # Errors
    /// The tables'.
    pub fn state_hash(&self) -> Result<u64, TableError> {
        self.view.state_hash()
    }
}

impl Apply<'_, '_> {
    fn entry(&mut self, position: LogPosition, entry: &Entry) -> Result<Vec<Applied>, TableError> {
        assert!(
            self.state.applied.is_none_or(|applied| applied.index < position.index),
            "entry {position:?} comes after {:?} was applied",
            self.state.applied
        );
        self.state.applied = Some(position);
        match entry {
            Entry::Batch(batch) => self.batch(position.term, batch),
            Entry::Membership(bytes) => {
                self.state.membership = Some(bytes.as_slice().into());
                self.state.dirty_membership = true;
                Ok(Vec::new())
            }
            Entry::Blank => Ok(Vec::new()),
        }
    }
}

fn load_names(tables: &WriteTables<'_>, names: &Names, numbers: &mut NameNumbers) -> Result<(), TableError> {
    for row in tables.name_rows.iter()? {
        let (number, name) = row?;
        let number = u32::try_from(number.value()).map_err(TableError::storage)?;
        let name = String::from_utf8_lossy(name.value()).into_owned();
        names.set(number, &name);
        numbers.set(number, &name);
    }
    Ok(())
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files and directories, the root and those not yet reaped counted.
    pub inodes: u64,
    /// Files.
    pub files: u64,
    /// Directories, the root counted.
    pub directories: u64,
    /// Blocks of files, with those of trees not yet reaped.
    pub blocks: u64,
    /// Files being written.
    pub open_files: u64,
    /// Directories cut off and not yet emptied: [`crate::Operation::Reap`] is due while not 0.
    pub pending_reap: u64,
    /// The next block id to be given out.
    pub next_block: BlockId,
    /// The next inode id to be given out.
    pub next_inode: InodeId,
}
