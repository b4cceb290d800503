//! The log as openraft sees it: entries in memory as soon as they are appended, on disk in groups.
//!
//! Invariants: what waits is written by one writer, in order, everything that waits by one write and
//! one sync; whoever waits for an entry is told only after that; the first failure is final: nothing
//! later is written or acknowledged. An entry leaves memory only when it can be read from disk.

pub(crate) mod format;
pub(crate) mod segment;
#[cfg(test)]
mod segment_tests;

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::Stream;
use mobula_disk::{DiskRef, Lock, Pool};
use mobula_net::Entropy;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use self::format::{Kind, Record};
use self::segment::{Opened, Place, Placed, Segments};
use crate::apply::Core;
use crate::face::{Machine, Position, RaftError};
use crate::types::{Data, EntryOf, Id, Types, Vote, log_id, position, position_of};

/// Entries handed to a reader at once.
const READ_ENTRIES_MAX: usize = 512;
/// Bytes of payload after which a reader is handed what there is.
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes an entry in memory is taken for, besides its payload.
const ENTRY_OVERHEAD: usize = 128;

/// The log; clones are the same one.
pub(crate) struct Log<M: Machine> {
    shared: Arc<Shared<M>>,
}

struct Shared<M: Machine> {
    state: Mutex<State<M>>,
    wake: Arc<Notify>,
    readers: Pool,
    cache_bytes: usize,
    stopped: watch::Sender<Option<String>>,
}

struct State<M: Machine> {
    /// The entry before the first one.
    purged: Option<Position>,
    slots: VecDeque<Slot<M>>,
    /// Slots before this one have left memory.
    cold: usize,
    cached_bytes: usize,
    vote: Option<Vote>,
    queue: Vec<Op>,
    failed: Option<String>,
    /// To whom entries are handed as soon as they are synced, while nobody else votes: then they are committed.
    alone: Option<Arc<Core<M>>>,
}

struct Slot<M: Machine> {
    position: Position,
    entry: Option<Arc<EntryOf<M>>>,
    place: Option<Place>,
}

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the writer is to do.
struct Op {
    work: Work,
    done: Done,
}

enum Work {
    Append(Vec<Record>),
    Vote(Vec<u8>),
    /// Removes what is behind the given entry.
    Truncate(Option<Position>),
    Purge(Position),
    /// Nothing; answered when all before it is done, and the last thing done.
    Close,
}

impl<M: Machine> Clone for Log<M> {
    fn clone(&self) -> Self {
        Log { shared: self.shared.clone() }
    }
}

/// What a log is opened with.
pub(crate) struct LogOptions {
    pub(crate) node: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) cache_bytes: u64,
    /// Where the segments' salts come from.
    pub(crate) entropy: Entropy,
    /// Held as long as anything may be written.
    pub(crate) lock: Lock,
}

impl<M: Machine> Log<M> {
    /// Opens the log and starts its writer, which ends with the last clone. The reason of a failure
    /// goes to `stopped`.
    pub(crate) async fn open(
        disk: DiskRef,
        folder: PathBuf,
        options: LogOptions,
        stopped: watch::Sender<Option<String>>,
    ) -> Result<Log<M>, RaftError> {
        let writers = disk.pool("raft-log", 1);
        let readers = disk.pool("raft-read", 1);
        let (node, segment_bytes, entropy) = (options.node, options.segment_bytes, options.entropy);
        let open = {
            let (disk, folder) = (disk.clone(), folder.clone());
            move || {
                let opened = Segments::open(disk.clone(), &folder, node, segment_bytes, entropy)?;
                let vote = segment::read_vote(&disk, &folder, node)?;
                check_vote(&folder, &opened, vote.as_deref())?;
                Ok::<_, RaftError>((opened, vote))
            }
        };
        let (opened, vote) = writers.run(open).await?;
        let vote = match vote {
            None => None,
            Some(bytes) => Some(postcard::from_bytes(&bytes).map_err(|error| RaftError::Corrupt {
                file: folder.join("vote"),
                offset: format::VOTE_HEADER as u64,
                what: format!("the vote cannot be decoded: {error}"),
            })?),
        };
        let slots: VecDeque<_> = opened
            .records
            .into_iter()
            .map(|placed| Slot { position: placed.position, entry: None, place: Some(placed.place) })
            .collect();
        let state = State {
            purged: opened.previous,
            cold: slots.len(),
            slots,
            cached_bytes: 0,
            vote,
            queue: Vec::new(),
            failed: None,
            alone: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Arc::new(Notify::new()),
            readers,
            cache_bytes: options.cache_bytes as usize,
            stopped,
        });
        let writer = Writer { segments: opened.segments, disk, folder, node, _lock: options.lock };
        tokio::spawn(write_loop(Arc::downgrade(&shared), shared.wake.clone(), writer, writers));
        Ok(Log { shared })
    }

    /// From now on has `core` apply what is synced, until the voters change: this node is the only one.
    pub(crate) fn commits_alone(&self, core: Arc<Core<M>>) {
        self.shared.state.lock().alone = Some(core);
    }

    /// Whether anything was ever written or voted.
    pub(crate) fn is_pristine(&self) -> bool {
        let state = self.shared.state.lock();
        state.purged.is_none() && state.slots.is_empty() && state.vote.is_none()
    }

    /// The entry before the first one that is there.
    pub(crate) fn previous(&self) -> Option<Position> {
        self.shared.state.lock().purged
    }

    /// The last entry, or the one before the first if there is none.
    pub(crate) fn last(&self) -> Option<Position> {
        self.shared.state.lock().last()
    }

    /// Waits until all that was asked for before is done, and ends the writer.
    pub(crate) async fn close(&self) {
        // A log that failed has nothing to wait for.
        let _ = self.ask(Work::Close).await;
    }

    fn queue(&self, work: Work, done: Done) {
        let failed = {
            let mut state = self.shared.state.lock();
            match state.failed.clone() {
                Some(why) => Some((why, done)),
                None => {
                    state.queue.push(Op { work, done });
                    None
                }
            }
        };
        match failed {
            Some((why, done)) => done(Err(io::Error::other(why))),
            None => self.shared.wake.notify_one(),
        }
    }

    async fn ask(&self, work: Work) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        // Whoever asked may have gone.
        self.queue(work, Box::new(move |result| _ = done.send(result)));
        answer.await.unwrap_or_else(|_| Err(io::Error::other("the log is closed")))
    }
}

/// A vote is synced before any entry of its term: entries of a term without a vote mean that the vote
/// was lost, and with it the promise not to vote twice.
fn check_vote(folder: &std::path::Path, opened: &Opened, vote: Option<&[u8]>) -> Result<(), RaftError> {
    let last = opened.records.last().map(|placed| placed.position).or(opened.previous);
    match last {
        Some(last) if last.term > 0 && vote.is_none() => Err(RaftError::Corrupt {
            file: folder.join("vote"),
            offset: 0,
            what: format!("the vote is missing, and the log has entries up to {last}"),
        }),
        _ => Ok(()),
    }
}

impl<M: Machine> State<M> {
    fn next(&self) -> u64 {
        self.first() + self.slots.len() as u64
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    fn last(&self) -> Option<Position> {
        self.slots.back().map(|slot| slot.position).or(self.purged)
    }

    fn push(&mut self, entry: EntryOf<M>, cache_bytes: usize) {
        let position = position_of::<M>(&entry);
        assert_eq!(position.index, self.next(), "openraft appends without holes");
        self.cached_bytes += weight::<M>(&entry);
        self.slots.push_back(Slot { position, entry: Some(Arc::new(entry)), place: None });
        self.cool(cache_bytes);
    }

    /// Lets the oldest entries leave memory that are on disk, until the others fit.
    fn cool(&mut self, cache_bytes: usize) {
        while self.cached_bytes > cache_bytes && self.cold < self.slots.len() {
            let slot = &mut self.slots[self.cold];
            if slot.place.is_none() {
                return;
            }
            if let Some(entry) = slot.entry.take() {
                self.cached_bytes -= weight::<M>(&entry);
            }
            self.cold += 1;
        }
    }

    fn placed(&mut self, written: Vec<Placed>, cache_bytes: usize) {
        let first = self.first();
        for placed in written {
            let slot =
                placed.position.index.checked_sub(first).and_then(|at| self.slots.get_mut(at as usize));
            // It may have been purged or replaced since.
            if let Some(slot) = slot.filter(|slot| slot.position == placed.position) {
                slot.place = Some(placed.place);
            }
        }
        self.cool(cache_bytes);
    }

    fn drop_behind(&mut self, keep: Option<Position>) {
        let kept = keep.map_or(0, |keep| (keep.index + 1).saturating_sub(self.first())) as usize;
        for slot in self.slots.drain(kept.min(self.slots.len())..) {
            self.cached_bytes -= slot.entry.map_or(0, |entry| weight::<M>(&entry));
        }
        self.cold = self.cold.min(self.slots.len());
    }

    fn drop_upto(&mut self, upto: Position) {
        let gone = ((upto.index + 1).saturating_sub(self.first()) as usize).min(self.slots.len());
        for slot in self.slots.drain(..gone) {
            self.cached_bytes -= slot.entry.map_or(0, |entry| weight::<M>(&entry));
        }
        self.cold = self.cold.saturating_sub(gone);
        self.purged = self.purged.max(Some(upto));
    }

    /// Entries from `start` on as long as they are in memory, or else on disk next to each other.
    fn some(&self, start: u64, end: u64) -> Run<M> {
        let (mut bytes, mut entries, mut places) = (0, Vec::new(), Vec::<Placed>::new());
        for index in start..end.min(start + READ_ENTRIES_MAX as u64) {
            let slot = &self.slots[(index - self.first()) as usize];
            match &slot.entry {
                Some(entry) if places.is_empty() => {
                    bytes += weight::<M>(entry);
                    entries.push((**entry).clone());
                }
                None if entries.is_empty() => {
                    let place = slot.place.clone().expect("an entry is in memory or on disk");
                    let same = |last: &Placed| Arc::ptr_eq(&last.place.segment, &place.segment);
                    if !places.last().is_none_or(same) {
                        break;
                    }
                    bytes += place.length as usize;
                    places.push(Placed { position: slot.position, place });
                }
                _ => break,
            }
            if bytes >= READ_BYTES_MAX {
                break;
            }
        }
        if places.is_empty() { Run::Memory(entries) } else { Run::Disk(places) }
    }
}

enum Run<M: Machine> {
    Memory(Vec<EntryOf<M>>),
    Disk(Vec<Placed>),
}

fn weight<M: Machine>(entry: &EntryOf<M>) -> usize {
    ENTRY_OVERHEAD
        + match &entry.payload {
            EntryPayload::Normal(data) => data.bytes.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

fn to_record<M: Machine>(entry: &EntryOf<M>) -> Record {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (Kind::Blank, Bytes::new()),
        EntryPayload::Normal(data) => (Kind::Command, data.bytes.clone()),
        EntryPayload::Membership(membership) => {
            (Kind::Membership, postcard::to_allocvec(membership).expect("a membership is plain data").into())
        }
    };
    Record { position: position_of::<M>(entry), kind, payload }
}

fn to_entry<M: Machine>(record: Record) -> io::Result<EntryOf<M>> {
    let payload = match record.kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Command => EntryPayload::Normal(Data::from_bytes(record.payload)),
        Kind::Membership => {
            EntryPayload::Membership(postcard::from_bytes(&record.payload).map_err(|error| {
                let what = format!("entry {}: the membership cannot be decoded: {error}", record.position);
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?)
        }
    };
    Ok(EntryOf::<M> { log_id: log_id(record.position), payload })
}

impl<M: Machine> Drop for Shared<M> {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Does what is asked for until the log is dropped, closed, or fails.
async fn write_loop<M: Machine>(shared: Weak<Shared<M>>, wake: Arc<Notify>, mut writer: Writer, pool: Pool) {
    loop {
        let ops = {
            let Some(shared) = shared.upgrade() else { return };
            std::mem::take(&mut shared.state.lock().queue)
        };
        if ops.is_empty() {
            wake.notified().await;
            continue;
        }
        let owner = shared.clone();
        let (back, flow) = pool
            .run(move || {
                let flow = writer.work(ops, &Owner(owner));
                (writer, flow)
            })
            .await;
        if let ControlFlow::Break(closed) = flow {
            // With the writer goes the lock: whoever hears of the end may open the log again.
            drop(back);
            closed.into_iter().for_each(|done| done(Ok(())));
            return;
        }
        writer = back;
    }
}

/// The log, as its writer sees it: it may be gone.
struct Owner<M: Machine>(Weak<Shared<M>>);

impl<M: Machine> Owner<M> {
    fn placed(&self, placed: Vec<Placed>) {
        if let Some(shared) = self.0.upgrade() {
            shared.state.lock().placed(placed, shared.cache_bytes);
        }
    }

    fn place(&self, position: Option<Position>) -> Option<Place> {
        let shared = self.0.upgrade()?;
        let state = shared.state.lock();
        let at = position?.index.checked_sub(state.first())?;
        state.slots.get(at as usize)?.place.clone()
    }

    /// From now on the log refuses everything; hands back what it had taken already.
    fn refuse(&self, why: &str) -> Vec<Op> {
        let Some(shared) = self.0.upgrade() else { return Vec::new() };
        let mut state = shared.state.lock();
        state.failed = Some(why.to_owned());
        std::mem::take(&mut state.queue)
    }

    fn stop(&self, why: &str) {
        if let Some(shared) = self.0.upgrade() {
            stop(&shared.stopped, why);
        }
    }
}

/// Says why the node stops, unless that was said already.
pub(crate) fn stop(stopped: &watch::Sender<Option<String>>, why: &str) {
    stopped.send_if_modified(|stopped| {
        let first = stopped.is_none();
        stopped.get_or_insert_with(|| why.to_owned());
        first
    });
}

/// The one who writes the log's files.
struct Writer {
    segments: Segments,
    disk: DiskRef,
    folder: PathBuf,
    node: u64,
    _lock: Lock,
}

impl Writer {
    /// Does all of `ops`, appends next to each other at once; breaks off after a failure, when the
    /// rest is refused, and everything after it; or when it was closed, with whom to tell.
    fn work<M: Machine>(&mut self, ops: Vec<Op>, owner: &Owner<M>) -> ControlFlow<Option<Done>> {
        let mut ops = ops.into_iter().peekable();
        while let Some(Op { work, done }) = ops.next() {
            let mut dones = vec![done];
            let result = match work {
                Work::Append(mut records) => {
                    while let Some(next) = ops.next_if(|op| matches!(op.work, Work::Append(_))) {
                        let Work::Append(more) = next.work else { unreachable!("just matched") };
                        records.extend(more);
                        dones.push(next.done);
                    }
                    self.segments.append(&records).map(|placed| owner.placed(placed))
                }
                Work::Vote(vote) => segment::write_vote(&self.disk, &self.folder, self.node, &vote),
                Work::Truncate(keep) => self.segments.truncate(keep, owner.place(keep)),
                Work::Purge(upto) => self.segments.purge(upto),
                Work::Close => {
                    owner
                        .refuse("the log is closed")
                        .into_iter()
                        .chain(ops)
                        .for_each(|op| op.refuse("the log is closed"));
                    return ControlFlow::Break(dones.pop());
                }
            };
            if let Err(error) = &result {
                let why = error.to_string();
                tracing::error!("the log failed, which is final: {why}");
                let waiting = owner.refuse(&why);
                owner.stop(&why);
                dones.into_iter().for_each(|done| done(Err(io::Error::other(why.clone()))));
                ops.chain(waiting).for_each(|op| op.refuse(&why));
                return ControlFlow::Break(None);
            }
            dones.into_iter().for_each(|done| done(Ok(())));
        }
        ControlFlow::Continue(())
    }
}

impl Op {
    fn refuse(self, why: &str) {
        (self.done)(Err(io::Error::other(why.to_owned())));
    }
}

impl<M: Machine> RaftLogReader<Types<M>> for Log<M> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + std::fmt::Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf<M>>, io::Error> {
        let (mut at, end) = self.clip(&range);
        let mut entries = Vec::new();
        while at < end {
            let some = self.read_some(at, end).await?;
            if some.is_empty() {
                break;
            }
            at += some.len() as u64;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<EntryOf<M>>> + Send
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + Send,
    {
        let (at, end) = self.clip(&range);
        let start = (self.clone(), at, VecDeque::new());
        Box::pin(futures_util::stream::try_unfold(start, move |(log, mut at, mut some)| async move {
            if some.is_empty() && at < end {
                some = log.read_some(at, end).await?.into();
                at += some.len() as u64;
            }
            Ok(some.pop_front().map(|entry| (entry, (log, at, some))))
        }))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<EntryOf<M>>, io::Error> {
        let (start, end) = self.clip(&(start..end));
        if start >= end { Ok(Vec::new()) } else { self.read_some(start, end).await }
    }
}

impl<M: Machine> Log<M> {
    /// The part of a range that is there.
    fn clip(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let state = self.shared.state.lock();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        (start.max(state.first()), end.min(state.next()))
    }

    /// At least one entry, if `start` is there and before `end`.
    async fn read_some(&self, start: u64, end: u64) -> io::Result<Vec<EntryOf<M>>> {
        let run = {
            let state = self.shared.state.lock();
            if start < state.first() || start >= state.next() {
                return Ok(Vec::new());
            }
            state.some(start, end.min(state.next()))
        };
        match run {
            Run::Memory(entries) => Ok(entries),
            Run::Disk(places) => {
                let records = self.shared.readers.run(move || segment::read_records(&places)).await?;
                records.into_iter().map(to_entry::<M>).collect()
            }
        }
    }
}

impl<M: Machine> RaftLogStorage<Types<M>> for Log<M> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<M>>, io::Error> {
        let state = self.shared.state.lock();
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last().map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = postcard::to_allocvec(vote).map_err(io::Error::other)?;
        self.ask(Work::Vote(bytes)).await?;
        self.shared.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<M>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<M>> + Send,
        I::IntoIter: Send,
    {
        let (mut records, mut committed) = (Vec::new(), Vec::new());
        let alone = {
            let mut state = self.shared.state.lock();
            for entry in entries {
                if let EntryPayload::Membership(_) = &entry.payload {
                    state.alone = None;
                }
                records.push(to_record::<M>(&entry));
                if state.alone.is_some() {
                    committed.push(entry.clone());
                }
                state.push(entry, self.shared.cache_bytes);
            }
            state.alone.clone()
        };
        let done = move |result: io::Result<()>| {
            if let (Some(core), Ok(())) = (alone, &result) {
                core.apply_synced(committed);
            }
            callback.io_completed(result);
        };
        self.queue(Work::Append(records), Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<Id>) -> Result<(), io::Error> {
        let keep = last.as_ref().map(position);
        self.shared.state.lock().drop_behind(keep);
        self.ask(Work::Truncate(keep)).await
    }

    async fn purge(&mut self, upto: Id) -> Result<(), io::Error> {
        let upto = position(&upto);
        self.shared.state.lock().drop_upto(upto);
        self.ask(Work::Purge(upto)).await
    }
}
