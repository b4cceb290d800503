//! At most once: what a call was answered the first time (HDFS's `RetryCache`, here part of the state, so
//! that it survives a restart and a change of leaders). First in, first out; bounded in number and age.

#![allow(clippy::disallowed_types)] // A HashMap with a fixed seed that nobody iterates over.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use mobula_types::{Block, BlockId, ClientId, GenStamp, Millis};
use redb::ReadableTable;

use crate::apply::{Apply, file_status};
use crate::command::RetryKey;
use crate::outcome::{Appended, BlockState, FileBlock, FileKind, FileStatus, Outcome};
use crate::record::{Body, Construction, File, Inode, Reader, put_bytes, put_number, put_targets};
use crate::table::TableError;

/// Answers kept at most.
pub const RETRY_ENTRIES_MAX: u64 = 1 << 20;
/// Answers are kept so long, in log time (HDFS: `dfs.namenode.retrycache.expirytime.millis`).
pub const RETRY_AGE_MS_MAX: Millis = Millis(10 * 60 * 1000);
/// Answers forgotten with one batch at most, beyond as many as it brings: a backlog of old ones goes
/// little by little, and not at once with whoever comes next.
const RETRY_EVICTED_EXTRA: u64 = 64;

const KEY_BYTES: usize = 20;
const ANSWER_DONE: u8 = 0;
const ANSWER_TRUE: u8 = 1;
const ANSWER_STATUS: u8 = 2;
const ANSWER_APPENDED: u8 = 3;

fn key_bytes(key: &RetryKey) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..16].copy_from_slice(&key.client.0);
    bytes[16..].copy_from_slice(&key.call.to_be_bytes());
    bytes
}

/// Clients remembered in [`LastCalls`]: some 50 bytes each.
const CLIENTS_MAX: usize = 16_384;

/// The highest call of each client that the tables have an answer to, or had: clients count their calls up,
/// so that nearly every call is above it, and then needs no look into the table. Never below what the table
/// holds; calls below 0 are not counted.
#[derive(Debug, Default)]
pub(crate) struct LastCalls(HashMap<ClientId, i32, FixedState>);

impl LastCalls {
    fn note(&mut self, key: &RetryKey) {
        if let Some(last) = self.0.get_mut(&key.client) {
            *last = key.call.max(*last);
        }
    }
}

impl Apply<'_, '_> {
    /// Whether that call cannot have been answered yet.
    fn is_new(&mut self, key: &RetryKey) -> Result<bool, TableError> {
        if key.call < 0 {
            return Ok(false);
        }
        if let Some(last) = self.calls.0.get(&key.client) {
            return Ok(key.call > *last);
        }
        let bound = |call| key_bytes(&RetryKey { client: key.client, call });
        let (first, most) = (bound(0), bound(i32::MAX));
        let last = match self.tables.retry.range::<&[u8]>(first.as_slice()..=most.as_slice())?.next_back() {
            Some(row) => {
                let row = row?.0;
                let call = row.value()[KEY_BYTES - 4..].first_chunk();
                i32::from_be_bytes(*call.expect("the range has keys of that length alone"))
            }
            None => -1,
        };
        if self.calls.0.len() >= CLIENTS_MAX {
            self.calls.0.clear();
        }
        self.calls.0.insert(key.client, last);
        Ok(key.call > last)
    }

    /// The first answer to that call, if it is still known.
    pub(crate) fn remembered(&mut self, key: &RetryKey) -> Result<Option<Outcome>, TableError> {
        if self.is_new(key)? {
            return Ok(None);
        }
        let Some(value) = self.tables.retry.get(key_bytes(key).as_slice())? else { return Ok(None) };
        let mut from = Reader::new("retry", value.value());
        let time = Millis(from.number()?);
        if self.now().since(time) > RETRY_AGE_MS_MAX {
            return Ok(None);
        }
        Ok(Some(match from.byte()? {
            ANSWER_DONE => Outcome::Done,
            ANSWER_TRUE => Outcome::Bool(true),
            ANSWER_STATUS => Outcome::Status(self.answered_status(&mut from)?),
            ANSWER_APPENDED => {
                let status = self.answered_status(&mut from)?;
                let block = if from.is_empty() { None } else { Some(answered_block(&mut from)?) };
                Outcome::Appended(Appended { status, block })
            }
            other => return Err(from.corrupt(format!("answer {other}"))),
        }))
    }

    /// Keeps a success; `false` is none (HDFS: `RetryCache.setState`). The key goes to `kept`.
    pub(crate) fn keep(
        &mut self,
        key: &RetryKey,
        outcome: &Outcome,
        kept: &mut Vec<u8>,
    ) -> Result<(), TableError> {
        let mut value = Vec::with_capacity(64);
        put_number(&mut value, self.now().0);
        match outcome {
            Outcome::Done => value.push(ANSWER_DONE),
            Outcome::Bool(true) => value.push(ANSWER_TRUE),
            Outcome::Status(status) => {
                // The record was written just now: what is kept is what was answered.
                value.push(ANSWER_STATUS);
                self.put_status(&mut value, status)?;
            }
            Outcome::Appended(Appended { status, block }) => {
                value.push(ANSWER_APPENDED);
                self.put_status(&mut value, status)?;
                if let Some(block) = block {
                    put_block(&mut value, block);
                }
            }
            Outcome::Bool(false) | Outcome::Allocated(_) | Outcome::Restamped(_) => return Ok(()),
        }
        self.calls.note(key);
        let key = key_bytes(key);
        if self.tables.retry.insert(key.as_slice(), value.as_slice())?.is_none() {
            self.state.retry_entries += 1;
        }
        kept.extend_from_slice(&key);
        Ok(())
    }

    /// Notes the keys that came with a batch, and forgets the oldest.
    pub(crate) fn remember(&mut self, kept: &[u8]) -> Result<(), TableError> {
        if !kept.is_empty() {
            let mut row = Vec::with_capacity(kept.len() + 8);
            put_number(&mut row, self.now().0);
            row.extend_from_slice(kept);
            self.tables.retry_rows.insert(self.state.retry_next, row.as_slice())?;
            self.state.retry_next += 1;
        }
        let bound = (kept.len() / KEY_BYTES) as u64 + RETRY_EVICTED_EXTRA;
        let mut evicted = 0;
        while evicted < bound {
            let Some((number, row)) = self.oldest()? else { break };
            let mut from = Reader::new("retry_rows", &row);
            let time = Millis(from.number()?);
            let surplus = self.state.retry_entries > RETRY_ENTRIES_MAX;
            if !surplus && self.now().since(time) <= RETRY_AGE_MS_MAX {
                break;
            }
            while !from.is_empty() {
                let mut key = [0; KEY_BYTES];
                for byte in &mut key {
                    *byte = from.byte()?;
                }
                self.forget(&key, time)?;
                evicted += 1;
            }
            self.tables.retry_rows.remove(number)?;
        }
        Ok(())
    }

    fn oldest(&self) -> Result<Option<(u64, Vec<u8>)>, TableError> {
        Ok(self.tables.retry_rows.first()?.map(|(number, row)| (number.value(), row.value().to_vec())))
    }

    /// Forgets an answer, unless the same key was answered anew since.
    fn forget(&mut self, key: &[u8; KEY_BYTES], time: Millis) -> Result<(), TableError> {
        let same = match self.tables.retry.get(key.as_slice())? {
            Some(value) => Reader::new("retry", value.value()).number()? == time.0,
            None => false,
        };
        if same {
            self.tables.retry.remove(key.as_slice())?;
            self.state.retry_entries -= 1;
        }
        Ok(())
    }

    fn put_status(&self, value: &mut Vec<u8>, status: &FileStatus) -> Result<(), TableError> {
        put_bytes(value, &status.name);
        put_bytes(value, &self.answered_record(status)?);
        Ok(())
    }

    fn answered_status(&self, from: &mut Reader<'_>) -> Result<FileStatus, TableError> {
        let name = from.bytes()?;
        Ok(file_status(&self.tables, &Inode::decode(from.bytes()?)?, name))
    }

    fn answered_record(&self, status: &FileStatus) -> Result<Vec<u8>, TableError> {
        let FileKind::File { length, replication, block_size, open } = status.kind else {
            return Err(TableError::Corrupt { table: "retry", detail: "a directory was opened".into() });
        };
        let number = |name: &str| self.numbers.get(name).unwrap_or_default();
        let file = File {
            accessed: status.accessed,
            replication,
            block_size,
            length,
            blocks: 0,
            first: BlockId(0),
            open: open.then(Box::<Construction>::default),
        };
        let inode = Inode {
            id: status.inode,
            mode: status.mode,
            owner: number(&status.owner),
            group: number(&status.group),
            modified: status.modified,
            body: Body::File(file),
        };
        let mut bytes = Vec::with_capacity(64);
        inode.encode(&mut bytes);
        Ok(bytes)
    }
}

/// The block in the answer to an `append`.
fn put_block(out: &mut Vec<u8>, block: &FileBlock) {
    let FileBlock { block: Block { id, stamp, length }, offset, state, targets } = block;
    out.push(u8::from(*state == BlockState::Committed));
    for number in [id.0, stamp.0, *length, *offset] {
        put_number(out, number);
    }
    put_targets(out, targets);
}

fn answered_block(from: &mut Reader<'_>) -> Result<FileBlock, TableError> {
    let state = match from.byte()? {
        0 => BlockState::UnderConstruction,
        1 => BlockState::Committed,
        other => return Err(from.corrupt(format!("block state {other}"))),
    };
    let block =
        Block { id: BlockId(from.number()?), stamp: GenStamp(from.number()?), length: from.number()? };
    Ok(FileBlock { block, offset: from.number()?, state, targets: from.targets()? })
}
