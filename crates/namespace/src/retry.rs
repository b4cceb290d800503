//! At most once: what a call was answered the first time (HDFS's `RetryCache`, here part of the state, so
//! that it survives a restart and a change of leaders). First in, first out; bounded in number and age.

#![allow(clippy::disallowed_types)] // A HashMap with a fixed seed that nobody iterates over.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use mobula_types::{ClientId, Millis};
use redb::ReadableTable;

use crate::apply::{Apply, file_status};
use crate::command::RetryKey;
use crate::outcome::Outcome;
use crate::record::{Inode, Reader, put_bytes, put_number};
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
            ANSWER_STATUS => {
                let name = from.bytes()?;
                Outcome::Status(file_status(&self.tables, &Inode::decode(from.bytes()?)?, name))
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
                put_bytes(&mut value, &status.name);
                put_bytes(&mut value, &self.created_record(status)?);
            }
            Outcome::Bool(false) | Outcome::Allocated(_) | Outcome::Appended(_) | Outcome::Restamped(_) => {
                return Ok(());
            }
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

    fn created_record(&self, status: &crate::outcome::FileStatus) -> Result<Vec<u8>, TableError> {
        use crate::outcome::FileKind;
        use crate::record::{Body, Construction, File};
        let FileKind::File { length, replication, block_size, open } = status.kind else {
            return Err(TableError::Corrupt { table: "retry", detail: "a directory was created".into() });
        };
        let number = |name: &str| self.numbers.get(name).unwrap_or_default();
        let file = File {
            accessed: status.accessed,
            replication,
            block_size,
            length,
            blocks: 0,
            first: mobula_types::BlockId(0),
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
