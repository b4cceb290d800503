//! Hands committed entries to the machine, on its own thread, and remembers how far it is.
//!
//! Invariants: entries reach the machine once and in order; the outcome of an entry is handed out
//! after it was applied; the first failure is final; openraft hears of nothing that it has not ordered yet.
//!
//! What a lone voter's log has synced is committed: it is applied on the log's thread at once, and whoever proposed it
//! is answered. openraft orders the same later, off the way of the answer, and finds it done.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use mobula_disk::{DiskRef, FileRef, Open, Pool};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::face::{Committed, Machine, MachineError, Payload, Position};
use crate::log::stop;
use crate::types::{
    Answer, DataOf, EntryOf, Id, Members, Snapshot, SnapshotData, SnapshotMeta, Types, decode_members,
    encode_members, log_id, position, position_of,
};

/// Entries applied at once.
const APPLY_ENTRIES_MAX: usize = 512;
/// Bytes of commands after which entries are applied without waiting for more.
const APPLY_BYTES_MAX: usize = 4 << 20;
/// Bytes of a snapshot written or read at once.
const SNAPSHOT_BUFFER: usize = 1 << 20;

/// The machine and how far it is; shared by the one who applies, the one who sends snapshots, and the
/// node.
pub(crate) struct Core<M: Machine> {
    held: Mutex<Held<M>>,
    /// The machine's thread.
    pool: Pool,
    disk: DiskRef,
    folder: PathBuf,
    sync_every: (u64, u64),
    pub(crate) progress: Progress,
}

/// What the node may know without waiting for the machine.
pub(crate) struct Progress {
    applied: Mutex<Option<Position>>,
    /// How far openraft has ordered entries to be applied; never above `applied`.
    ordered: Mutex<Option<Position>>,
    /// The term of the last entry applied: that term's first entry is, too.
    pub(crate) term: watch::Sender<u64>,
    /// Told when the machine should be synced.
    pub(crate) sync_due: Notify,
    pub(crate) stopped: watch::Sender<Option<String>>,
}

impl Progress {
    pub(crate) fn new(stopped: watch::Sender<Option<String>>) -> Progress {
        let (applied, ordered) = Default::default();
        Progress { applied, ordered, term: watch::Sender::new(0), sync_due: Notify::new(), stopped }
    }

    pub(crate) fn applied(&self) -> Option<Position> {
        *self.applied.lock()
    }

    fn advance(&self, to: Option<Position>) {
        *self.applied.lock() = to;
        let term = to.map_or(0, |to| to.term);
        self.term.send_if_modified(|known| std::mem::replace(known, term) != term);
    }

    fn order(&self, upto: Option<Position>) {
        *self.ordered.lock() = upto;
    }
}

struct Held<M: Machine> {
    /// Gone after the node was shut down.
    machine: Option<M>,
    applied: Option<Position>,
    members: Members,
    /// What a restart would find.
    synced: SnapshotMeta,
    bytes_since: u64,
    commands_since: u64,
    /// What it failed of; it is not asked again.
    failed: Option<MachineError>,
}

type Waiting<M> = Option<ApplyResponder<Types<M>>>;

impl<M: Machine> Core<M> {
    pub(crate) fn new(
        machine: M,
        disk: DiskRef,
        folder: PathBuf,
        sync_every: (u64, u64),
        progress: Progress,
    ) -> Result<Core<M>, MachineError> {
        let (applied, membership) = machine.applied();
        let members = decode_members(membership.as_deref())?;
        let synced = meta(applied, &members);
        progress.advance(applied);
        progress.order(applied);
        let machine = Some(machine);
        let held =
            Held { machine, applied, members, synced, bytes_since: 0, commands_since: 0, failed: None };
        let pool = disk.pool("raft-apply", 1);
        Ok(Core { held: Mutex::new(held), pool, disk, folder, sync_every, progress })
    }

    /// Whether the machine knows of no other voter than `node`.
    pub(crate) fn votes_alone(&self, node: u64) -> bool {
        self.held.lock().members.voter_ids().eq([node])
    }

    /// Applies entries that a lone voter's log has synced, if nothing before them is missing, and answers who proposed
    /// them. What is not applied here is when openraft orders it.
    pub(crate) fn apply_synced(&self, entries: Vec<EntryOf<M>>) {
        let mut held = self.held.lock();
        let next = held.applied.map_or(0, |applied| applied.index + 1);
        if held.machine.is_none() || entries.first().is_none_or(|first| position_of::<M>(first).index != next)
        {
            return;
        }
        let proposers: Vec<Option<DataOf<M>>> = entries.iter().map(data_of::<M>).collect();
        match held.apply(entries, self) {
            Ok(outcomes) => {
                drop(held);
                for (data, outcome) in proposers.into_iter().zip(outcomes) {
                    if let (Some(data), Some(outcome)) = (data, outcome) {
                        data.answer(outcome);
                    }
                }
            }
            // openraft hears of it when it orders the same.
            Err(error) => drop(self.fail(&error)),
        }
    }

    /// Runs `call` on the machine's thread; an error is final.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Core<M>, &mut Held<M>) -> Result<T, MachineError> + Send + 'static,
    ) -> io::Result<T> {
        let core = self.clone();
        let done = self.pool.run(move || call(&core, &mut core.held.lock())).await;
        done.map_err(|error| self.fail(&error))
    }

    /// Applies what openraft orders.
    async fn order(self: &Arc<Self>, entries: Vec<(EntryOf<M>, Waiting<M>)>) -> io::Result<()> {
        let Some(last) = entries.last().map(|(entry, _)| position_of::<M>(entry)) else { return Ok(()) };
        if self.progress.applied() >= Some(last) {
            self.progress.order(Some(last));
            return Ok(());
        }
        self.run(move |core, held| held.apply_ordered(entries, core)).await
    }

    fn fail(&self, error: &MachineError) -> io::Error {
        tracing::error!("{error}");
        stop(&self.progress.stopped, &error.to_string());
        io::Error::other(error.to_string())
    }

    /// Syncs the machine, if it is to be, and drops it.
    pub(crate) async fn close(self: &Arc<Self>, sync: bool) -> io::Result<()> {
        self.run(move |core, held| {
            let synced = if sync && held.machine.is_some() { held.sync(core).map(drop) } else { Ok(()) };
            held.machine = None;
            synced
        })
        .await
    }

    /// Writes what the machine is now to a new file; answers what is in it.
    pub(crate) async fn write_snapshot(
        self: &Arc<Self>,
        name: String,
    ) -> io::Result<(SnapshotMeta, PathBuf)> {
        let path = self.folder.join(name);
        let to = path.clone();
        let (meta, view) = self
            .run(move |core, held| {
                let meta = meta(held.applied, &held.members);
                let machine = held.machine()?;
                let view = machine.view();
                if view.is_none() {
                    core.write_file(&to, |out| machine.write_snapshot(out))?;
                }
                Ok((meta, view))
            })
            .await?;
        if let Some(view) = view {
            let (core, to) = (self.clone(), path.clone());
            let pool = self.disk.pool("raft-snapshot", 1);
            pool.run(move || core.write_file(&to, view)).await.map_err(|error| self.fail(&error))?;
        }
        Ok((meta, path))
    }

    fn write_file(
        &self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> Result<(), MachineError>,
    ) -> Result<(), MachineError> {
        let file = self.disk.open(path, Open::Create)?;
        file.set_length(0)?;
        let mut out = BufWriter::with_capacity(SNAPSHOT_BUFFER, Cursor { file, at: 0 });
        write(&mut out)?;
        Ok(out.flush()?)
    }
}

fn data_of<M: Machine>(entry: &EntryOf<M>) -> Option<DataOf<M>> {
    match &entry.payload {
        EntryPayload::Normal(data) => Some(data.clone()),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

fn meta(applied: Option<Position>, members: &Members) -> SnapshotMeta {
    SnapshotMeta { last_log_id: applied.map(log_id), last_membership: members.clone() }
}

impl<M: Machine> Held<M> {
    fn machine(&mut self) -> Result<&mut M, MachineError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.machine.as_mut().ok_or_else(|| MachineError("it was shut down".to_owned()))
    }

    fn apply(
        &mut self,
        entries: Vec<EntryOf<M>>,
        core: &Core<M>,
    ) -> Result<Vec<Option<M::Outcome>>, MachineError> {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let position = position_of::<M>(&entry);
            let expected = self.applied.map_or(0, |applied| applied.index + 1) + committed.len() as u64;
            assert_eq!(position.index, expected, "entries are applied once and in order");
            let payload = match entry.payload {
                EntryPayload::Blank => Payload::Blank,
                EntryPayload::Normal(data) => {
                    self.bytes_since += data.bytes.len() as u64;
                    let command = data.take()?;
                    self.commands_since += M::commands_in(&command);
                    Payload::Command(command)
                }
                EntryPayload::Membership(membership) => {
                    self.members = Members::new(Some(log_id(position)), membership);
                    Payload::Membership(encode_members(&self.members))
                }
            };
            committed.push(Committed { position, payload });
        }
        let Some(last) = committed.last().map(|entry| entry.position) else { return Ok(Vec::new()) };
        let count = committed.len();
        let outcomes =
            self.machine()?.apply(committed).inspect_err(|error| self.failed = Some(error.clone()))?;
        assert_eq!(outcomes.len(), count, "one result per entry");
        self.applied = Some(last);
        core.progress.advance(self.applied);
        if self.bytes_since >= core.sync_every.0 || self.commands_since >= core.sync_every.1 {
            core.progress.sync_due.notify_one();
        }
        Ok(outcomes)
    }

    /// What openraft orders; of that, what was applied already is only noted.
    fn apply_ordered(
        &mut self,
        mut entries: Vec<(EntryOf<M>, Waiting<M>)>,
        core: &Core<M>,
    ) -> Result<(), MachineError> {
        let Some(last) = entries.last().map(|(entry, _)| position_of::<M>(entry)) else { return Ok(()) };
        let applied = self.applied;
        entries.retain(|(entry, _)| Some(position_of::<M>(entry)) > applied);
        let (entries, waiting): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let outcomes = self.apply(entries, core)?;
        core.progress.order(Some(last));
        for (responder, outcome) in waiting.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(Answer::new(outcome));
            }
        }
        Ok(())
    }

    fn sync(&mut self, core: &Core<M>) -> Result<SnapshotMeta, MachineError> {
        // openraft cuts no log whose entries it has not ordered yet.
        let upto = self.machine()?.sync()?.min(*core.progress.ordered.lock());
        (self.bytes_since, self.commands_since) = (0, 0);
        let known = self.members.log_id().is_none_or(|id| Some(position(&id)) <= upto);
        let members = if known { &self.members } else { &self.synced.last_membership };
        self.synced = meta(upto, members);
        Ok(self.synced.clone())
    }
}

/// openraft's view of the machine.
pub(crate) struct Applier<M: Machine>(pub(crate) Arc<Core<M>>);

impl<M: Machine> RaftStateMachine<Types<M>> for Applier<M> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> Result<(Option<Id>, Members), io::Error> {
        self.0.run(|_, held| Ok((held.applied.map(log_id), held.members.clone()))).await
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<M>>, io::Error>> + Unpin + Send,
    {
        let (mut some, mut bytes) = (Vec::new(), 0);
        loop {
            let next = entries.next().await.transpose()?;
            let over = next.is_none();
            if let Some((entry, responder)) = next {
                if let EntryPayload::Normal(data) = &entry.payload {
                    bytes += data.bytes.len();
                }
                some.push((entry, responder));
            }
            if over || some.len() >= APPLY_ENTRIES_MAX || bytes >= APPLY_BYTES_MAX {
                let now = std::mem::take(&mut some);
                self.0.order(now).await?;
                bytes = 0;
            }
            if over {
                return Ok(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        Builder(self.0.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        let SnapshotData::Received(path) = data else {
            return Err(io::Error::other("a snapshot to install must have been received"));
        };
        let Some(at) = meta.last_log_id.as_ref().map(position) else {
            return Err(io::Error::other("a snapshot of nothing"));
        };
        let members = meta.last_membership.clone();
        self.0
            .run(move |core, held| {
                let file = core.disk.open(&path, Open::Read)?;
                let mut from = BufReader::with_capacity(SNAPSHOT_BUFFER, Cursor { file, at: 0 });
                held.machine()?.restore(&mut from, at, Some(encode_members(&members)))?;
                held.applied = Some(at);
                held.synced = self::meta(Some(at), &members);
                held.members = members;
                core.progress.advance(Some(at));
                core.progress.order(Some(at));
                drop(from);
                Ok(core.disk.remove_file(&path)?)
            })
            .await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let meta = self.0.run(|_, held| Ok(held.synced.clone())).await?;
        let there = meta.last_log_id.is_some();
        Ok(there.then_some(Snapshot { meta, snapshot: SnapshotData::Machine }))
    }
}

/// Makes what openraft calls a snapshot: the machine's own synced tables. Bytes are written only when
/// a peer needs them.
pub(crate) struct Builder<M: Machine>(Arc<Core<M>>);

impl<M: Machine> RaftSnapshotBuilder<Types<M>> for Builder<M> {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = self.0.run(|core, held| held.sync(core)).await?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Machine })
    }
}

/// A file read or written from its beginning on.
struct Cursor {
    file: FileRef,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Cursor {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(data, self.at)?;
        self.at += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
