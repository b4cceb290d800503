//! At most once: what a call was answered the first time (HDFS's `RetryCache`, here part of the state, so
//! that it survives a restart and a change of leaders). First in, first out; bounded in number and age.

#![allow(clippy::disallowed_types)] // A HashMap with a fixed seed that nobody iterates over.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::FixedState;
use mobula_types::{Block, BlockId, ClientId, GenStamp, Millis};
use redb::ReadableTable;

use crate::apply::{Apply, file_status};
use crate::command::RetryKey;
use crate::outcome::{Appended, BlockState, FileBlock, FileKind, FileStatus, Outcome};
use crate::record::{Body, Construction, File, Inode, Reader, put_bytes, put_number, put_targets};
use crate::table::{Read, TableError};

/// Answers kept at most.
pub const RETRY_ENTRIES_MAX: u64 = 1 << 20;
/// Answers are kept so long, in log time (HDFS: `dfs.namenode.retrycache.expirytime.millis`).
pub const RETRY_AGE_MS_MAX: Millis = Millis(10 * 60 * 1000);
/// Answers forgotten with one batch at most, beyond as many as it brings: a backlog of old ones goes
/// little by little, and not at once with whoever comes next.
const RETRY_EVICTED_EXTRA: u64 = 64;

const KEY_BYTES: usize = 20;
/// Calls from the highest one of a row down to its lowest, at most: so a call can only be in the rows whose highest
/// call is less than this above it.
const ROW_SPAN: u32 = 256;
/// Bytes of answers after which a row is full, so that a row fits into a page of the tables.
const ROW_BYTES_MAX: usize = 2 << 10;

const ANSWER_DONE: u8 = 0;
const ANSWER_TRUE: u8 = 1;
const ANSWER_STATUS: u8 = 2;
const ANSWER_APPENDED: u8 = 3;

/// Calls as unsigned numbers, as they stand in keys.
fn key_bytes(client: ClientId, call: u32) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..16].copy_from_slice(&client.0);
    bytes[16..].copy_from_slice(&call.to_be_bytes());
    bytes
}

fn call_of(key: &[u8]) -> u32 {
    u32::from_be_bytes(*key[KEY_BYTES - 4..].first_chunk().expect("keys have that length alone"))
}

/// The first answers of the batch in hand, which become rows at its end: some calls of one client stand in one row,
/// since it is the row that costs.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Client, call, and where in `bytes` its answer is.
    calls: Vec<(ClientId, u32, Range<usize>)>,
    bytes: Vec<u8>,
}

impl Kept {
    fn answer(&self, key: &RetryKey) -> Option<&[u8]> {
        let call = key.call.cast_unsigned();
        let found = self.calls.iter().rev().find(|(client, at, _)| *client == key.client && *at == call)?;
        Some(&self.bytes[found.2.clone()])
    }
}

/// A row of `retry`: when, and then the answers, each behind how far its call is below the row's own.
struct Row<'a> {
    time: Millis,
    from: Reader<'a>,
}

impl<'a> Row<'a> {
    fn read(value: &'a [u8]) -> Result<Row<'a>, TableError> {
        let mut from = Reader::new("retry", value);
        Ok(Row { time: Millis(from.number()?), from })
    }

    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>, TableError> {
        if self.from.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.from.narrow()?, self.from.bytes()?)))
    }

    fn count(mut self) -> Result<u64, TableError> {
        let mut count = 0;
        while self.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// Clients remembered in [`LastCalls`] from one batch to the next: some 50 bytes each.
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
        let (first, most) = (key_bytes(key.client, 0), key_bytes(key.client, i32::MAX.cast_unsigned()));
        let last = match self.tables.retry.range::<&[u8]>(first.as_slice()..=most.as_slice())?.next_back() {
            Some(row) => call_of(row?.0.value()).cast_signed(),
            None => -1,
        };
        self.calls.0.insert(key.client, last);
        Ok(key.call > last)
    }

    /// The first answer to that call, if it is still known.
    pub(crate) fn remembered(&mut self, key: &RetryKey) -> Result<Option<Outcome>, TableError> {
        if self.is_new(key)? {
            return Ok(None);
        }
        if let Some(answer) = self.kept.answer(key) {
            return answered(&self.tables, answer).map(Some);
        }
        let answer = stored(&self.tables.retry, key, self.now())?;
        answer.map(|answer| answered(&self.tables, &answer)).transpose()
    }

    /// Keeps a success; `false` is none (HDFS: `RetryCache.setState`). It becomes part of a row at the batch's end.
    pub(crate) fn keep(&mut self, key: &RetryKey, outcome: &Outcome) -> Result<(), TableError> {
        let mut bytes = std::mem::take(&mut self.kept.bytes);
        let begin = bytes.len();
        let encoded = self.encode_answer(outcome, &mut bytes);
        let end = bytes.len();
        self.kept.bytes = bytes;
        encoded?;
        if end > begin {
            self.calls.note(key);
            self.kept.calls.push((key.client, key.call.cast_unsigned(), begin..end));
        }
        Ok(())
    }

    /// Nothing for what is not kept.
    fn encode_answer(&self, outcome: &Outcome, out: &mut Vec<u8>) -> Result<(), TableError> {
        match outcome {
            Outcome::Done => out.push(ANSWER_DONE),
            Outcome::Bool(true) => out.push(ANSWER_TRUE),
            // The block is found again by who asks for it.
            Outcome::Status(status) | Outcome::Begun(status, _) => {
                // The record was written just now: what is kept is what was answered.
                out.push(ANSWER_STATUS);
                self.put_status(out, status)?;
            }
            Outcome::Appended(Appended { status, block }) => {
                out.push(ANSWER_APPENDED);
                self.put_status(out, status)?;
                if let Some(block) = block {
                    put_block(out, block);
                }
            }
            Outcome::Bool(false) | Outcome::Allocated(_) | Outcome::Restamped(_) => {}
        }
        Ok(())
    }

    /// Writes what was kept of a batch, and forgets the oldest.
    pub(crate) fn remember(&mut self) -> Result<(), TableError> {
        // Not before: until now the tables did not have what this batch answered.
        if self.calls.0.len() >= CLIENTS_MAX {
            self.calls.0.clear();
        }
        let mut kept = std::mem::take(&mut self.kept);
        let count = kept.calls.len() as u64;
        if count > 0 {
            let mut row = Vec::with_capacity(64);
            put_number(&mut row, self.now().0);
            self.put_rows(&mut kept, &mut row)?;
            self.tables.retry_rows.insert(self.state.retry_next, row.as_slice())?;
            self.state.retry_next += 1;
            kept.calls.clear();
            kept.bytes.clear();
        }
        self.kept = kept;
        self.forget_oldest(count + RETRY_EVICTED_EXTRA)
    }

    /// Writes the answers of a batch, some of one client to a row; the rows' keys go to `keys`.
    fn put_rows(&mut self, kept: &mut Kept, keys: &mut Vec<u8>) -> Result<(), TableError> {
        kept.calls.sort_unstable_by_key(|kept| std::cmp::Reverse((kept.0, kept.1)));
        let mut rest = &kept.calls[..];
        let mut value = Vec::with_capacity(ROW_BYTES_MAX + 128);
        while let Some((client, highest, _)) = rest.first() {
            value.clear();
            put_number(&mut value, self.now().0);
            let mut count = 0;
            // Calls below 0 stand above all others in the table: not in a row with those.
            let fits = |(other, call, _): &&(ClientId, u32, Range<usize>)| {
                other == client && highest - call < ROW_SPAN && (highest ^ call).leading_zeros() > 0
            };
            for (_, call, answer) in rest.iter().take_while(fits) {
                if value.len() >= ROW_BYTES_MAX {
                    break;
                }
                put_number(&mut value, u64::from(highest - call));
                put_bytes(&mut value, &kept.bytes[answer.clone()]);
                count += 1;
            }
            let key = key_bytes(*client, *highest);
            // A row that is there already has the same call, answered anew because that was too long ago.
            let old = self.tables.retry.insert(key.as_slice(), value.as_slice())?;
            let old = old.map(|old| Row::read(old.value())?.count()).transpose()?;
            self.state.retry_entries += count as u64;
            self.state.retry_entries -= old.unwrap_or(0);
            keys.extend_from_slice(&key);
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Forgets the oldest answers, if there are too many or they are too old; about `bound` of them at most.
    fn forget_oldest(&mut self, bound: u64) -> Result<(), TableError> {
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
                evicted += self.forget(&key, time)?;
            }
            self.tables.retry_rows.remove(number)?;
        }
        Ok(())
    }

    fn oldest(&self) -> Result<Option<(u64, Vec<u8>)>, TableError> {
        Ok(self.tables.retry_rows.first()?.map(|(number, row)| (number.value(), row.value().to_vec())))
    }

    /// Forgets a row, unless it was written anew since; answers how many answers were in it.
    fn forget(&mut self, key: &[u8; KEY_BYTES], time: Millis) -> Result<u64, TableError> {
        let count = match self.tables.retry.get(key.as_slice())? {
            Some(value) => {
                let row = Row::read(value.value())?;
                if row.time == time { row.count()? } else { 0 }
            }
            None => 0,
        };
        if count > 0 {
            self.tables.retry.remove(key.as_slice())?;
            self.state.retry_entries -= count;
        }
        Ok(count.max(1))
    }

    fn put_status(&self, value: &mut Vec<u8>, status: &FileStatus) -> Result<(), TableError> {
        put_bytes(value, &status.name);
        put_bytes(value, &self.answered_record(status)?);
        Ok(())
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

/// The first answer to that call as the table has it, unless it is too old.
pub(crate) fn stored(
    retry: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &RetryKey,
    now: Millis,
) -> Result<Option<Vec<u8>>, TableError> {
    let call = key.call.cast_unsigned();
    let (first, most) =
        (key_bytes(key.client, call), key_bytes(key.client, call.saturating_add(ROW_SPAN - 1)));
    for row in retry.range::<&[u8]>(first.as_slice()..=most.as_slice())? {
        let (at, value) = row?;
        let mut row = Row::read(value.value())?;
        if now.since(row.time) > RETRY_AGE_MS_MAX {
            continue;
        }
        let below = call_of(at.value()) - call;
        while let Some((distance, answer)) = row.next()? {
            if distance == below {
                return Ok(Some(answer.to_vec()));
            }
        }
    }
    Ok(None)
}

/// What was answered.
pub(crate) fn answered<R: Read>(tables: &R, answer: &[u8]) -> Result<Outcome, TableError> {
    let mut from = Reader::new("retry", answer);
    Ok(match from.byte()? {
        ANSWER_DONE => Outcome::Done,
        ANSWER_TRUE => Outcome::Bool(true),
        ANSWER_STATUS => Outcome::Status(answered_status(tables, &mut from)?),
        ANSWER_APPENDED => {
            let status = answered_status(tables, &mut from)?;
            let block = if from.is_empty() { None } else { Some(answered_block(&mut from)?) };
            Outcome::Appended(Appended { status, block })
        }
        other => return Err(from.corrupt(format!("answer {other}"))),
    })
}

fn answered_status<R: Read>(tables: &R, from: &mut Reader<'_>) -> Result<FileStatus, TableError> {
    let name = from.bytes()?;
    Ok(file_status(tables, &Inode::decode(from.bytes()?)?, name))
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
