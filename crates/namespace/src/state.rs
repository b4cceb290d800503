//! What there is one of: counters, time, rules, position. In memory beside the tables, written to the
//! table `meta` at the end of every transaction, so that both always tell the same.

use std::sync::Arc;

use mobula_types::{BlockId, GenStamp, InodeId, Millis};
use redb::ReadableTable;

use crate::command::{Format, Guards, Rules};
use crate::namespace::{Counts, LogPosition};
use crate::record::{Reader, put_number};
use crate::table::{TableError, WriteTables};

/// Version of the tables' layout; another one but the last is refused.
pub(crate) const LAYOUT: u64 = 3;
/// The one before: first answers had a row each.
const LAYOUT_BEFORE: u64 = 2;
/// What `apply` may do (D14): raised by a command when all voters know how. Logged, so that voters of
/// two versions agree.
pub(crate) const FEATURE_LEVEL: u64 = 1;

/// A leader's clock may run ahead of the log by this much, unless a new term begins: one mad reading then
/// spoils no more than a day, and a cluster that was down for a week still knows what time it is. A
/// leader with nothing to do for longer than this should log an empty batch now and then.
pub(crate) const LOG_TIME_JUMP_MS_MAX: Millis = Millis(24 * 3600 * 1000);

const KEY_LAYOUT: &[u8] = b"layout";
const KEY_COUNTERS: &[u8] = b"counters";
const KEY_MEMBERSHIP: &[u8] = b"membership";
const KEY_FORMAT: &[u8] = b"format";
const KEY_RULES: &[u8] = b"rules";
const KEY_GUARDS: &[u8] = b"guards";

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: Option<Arc<[u8]>>,
    pub(crate) format: Option<Arc<Format>>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) feature_level: u64,
    pub(crate) time: Millis,
    /// The term of the last batch.
    pub(crate) time_term: u64,
    pub(crate) next_block: BlockId,
    pub(crate) next_stamp: GenStamp,
    pub(crate) next_inode: InodeId,
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) blocks: u64,
    pub(crate) open_files: u64,
    pub(crate) reap: u64,
    /// Number of the next row of `retry_rows`.
    pub(crate) retry_next: u64,
    pub(crate) retry_entries: u64,
    /// The parts that changed since they were last written.
    pub(crate) dirty_format: bool,
    pub(crate) dirty_guards: bool,
    pub(crate) dirty_membership: bool,
}

impl Default for State {
    fn default() -> State {
        State {
            applied: None,
            membership: None,
            format: None,
            rules: Arc::new(Rules::default()),
            guards: Arc::default(),
            feature_level: FEATURE_LEVEL,
            time: Millis(0),
            time_term: 0,
            next_block: BlockId(0),
            next_stamp: GenStamp(0),
            next_inode: InodeId(0),
            files: 0,
            directories: 0,
            blocks: 0,
            open_files: 0,
            reap: 0,
            retry_next: 0,
            retry_entries: 0,
            dirty_format: false,
            dirty_guards: false,
            dirty_membership: false,
        }
    }
}

impl State {
    /// Moves the log's time to that of a batch.
    pub(crate) fn advance(&mut self, term: u64, time: Millis) {
        let bounded = if term == self.time_term { time.min(self.time + LOG_TIME_JUMP_MS_MAX) } else { time };
        self.time = self.time.max(bounded);
        self.time_term = term;
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            inodes: self.files + self.directories,
            files: self.files,
            directories: self.directories,
            blocks: self.blocks,
            open_files: self.open_files,
            pending_reap: self.reap,
            next_block: self.next_block,
            next_inode: self.next_inode,
        }
    }

    pub(crate) fn write(&mut self, tables: &mut WriteTables<'_>) -> Result<(), TableError> {
        let mut bytes = Vec::with_capacity(128);
        self.encode(&mut bytes);
        tables.meta.insert(KEY_COUNTERS, bytes.as_slice())?;
        if std::mem::take(&mut self.dirty_membership) {
            tables.meta.insert(KEY_MEMBERSHIP, self.membership.as_deref().unwrap_or_default())?;
        }
        if std::mem::take(&mut self.dirty_format) {
            if let Some(format) = &self.format {
                tables.meta.insert(KEY_FORMAT, postcard_bytes(&**format)?.as_slice())?;
            }
            tables.meta.insert(KEY_RULES, postcard_bytes(&*self.rules)?.as_slice())?;
        }
        if std::mem::take(&mut self.dirty_guards) {
            tables.meta.insert(KEY_GUARDS, postcard_bytes(&*self.guards)?.as_slice())?;
        }
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let applied = self.applied.unwrap_or_default();
        let numbers = [
            u64::from(self.applied.is_some()),
            applied.term,
            applied.index,
            self.feature_level,
            self.time.0,
            self.time_term,
            self.next_block.0,
            self.next_stamp.0,
            self.next_inode.0,
            self.files,
            self.directories,
            self.blocks,
            self.open_files,
            self.reap,
            self.retry_next,
            self.retry_entries,
        ];
        for number in numbers {
            put_number(out, number);
        }
    }

    /// The state that the tables tell; a new one if they are empty.
    pub(crate) fn read(meta: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<State, TableError> {
        let mut state = State::default();
        let Some(counters) = meta.get(KEY_COUNTERS)? else { return Ok(state) };
        let mut from = Reader::new("meta", counters.value());
        let some = from.number()? != 0;
        let applied = LogPosition { term: from.number()?, index: from.number()? };
        state.applied = some.then_some(applied);
        state.feature_level = from.number()?;
        if state.feature_level > FEATURE_LEVEL {
            return Err(
                from.corrupt(format!("feature level {}, known here {FEATURE_LEVEL}", state.feature_level))
            );
        }
        state.time = Millis(from.number()?);
        state.time_term = from.number()?;
        state.next_block = BlockId(from.number()?);
        state.next_stamp = GenStamp(from.number()?);
        state.next_inode = InodeId(from.number()?);
        let counters = [
            &mut state.files,
            &mut state.directories,
            &mut state.blocks,
            &mut state.open_files,
            &mut state.reap,
            &mut state.retry_next,
            &mut state.retry_entries,
        ];
        for counter in counters {
            *counter = from.number()?;
        }
        from.end()?;
        state.membership = meta.get(KEY_MEMBERSHIP)?.map(|value| value.value().into());
        if let Some(value) = meta.get(KEY_FORMAT)? {
            state.format = Some(Arc::new(postcard_value(value.value())?));
        }
        if let Some(value) = meta.get(KEY_RULES)? {
            state.rules = Arc::new(postcard_value(value.value())?);
        }
        if let Some(value) = meta.get(KEY_GUARDS)? {
            state.guards = Arc::new(postcard_value(value.value())?);
        }
        Ok(state)
    }

    /// Refuses another layout, and writes this one into new tables.
    pub(crate) fn check_layout(tables: &mut WriteTables<'_>) -> Result<(), TableError> {
        let found = match tables.meta.get(KEY_LAYOUT)? {
            Some(value) => Some(Reader::new("meta", value.value()).number()?),
            None => None,
        };
        match found {
            Some(LAYOUT) => Ok(()),
            Some(LAYOUT_BEFORE) => State::forget_answers(tables),
            Some(other) => Err(TableError::Corrupt {
                table: "meta",
                detail: format!("layout {other}, known here {LAYOUT}"),
            }),
            None => write_layout(tables),
        }
    }

    /// From the layout before to this one. What was answered before is not known any more: a call that is retried over
    /// the change of programs is made once more, as by HDFS after a restart without its log.
    fn forget_answers(tables: &mut WriteTables<'_>) -> Result<(), TableError> {
        tables.retry.retain(|_, _| false)?;
        tables.retry_rows.retain(|_, _| false)?;
        let mut state = State::read(&tables.meta)?;
        state.retry_entries = 0;
        state.write(tables)?;
        write_layout(tables)
    }
}

fn write_layout(tables: &mut WriteTables<'_>) -> Result<(), TableError> {
    let mut bytes = Vec::new();
    put_number(&mut bytes, LAYOUT);
    tables.meta.insert(KEY_LAYOUT, bytes.as_slice())?;
    Ok(())
}

fn postcard_bytes(value: &impl serde::Serialize) -> Result<Vec<u8>, TableError> {
    postcard::to_stdvec(value).map_err(TableError::storage)
}

fn postcard_value<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, TableError> {
    postcard::from_bytes(bytes)
        .map_err(|error| TableError::Corrupt { table: "meta", detail: error.to_string() })
}
