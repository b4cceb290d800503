//! The namespace as the Raft log's machine: applies committed batches on the log's own thread,
//! publishes the new view, then tells the fleet what changed for blocks.
//!
//! Invariant: the order is apply, publish, fleet, answer. So a reader who was answered finds what it
//! was told, and a block that the fleet hears of is in the view.

use std::io::{Read, Write};
use std::sync::Arc;

use arc_swap::ArcSwap;
use mobula_disk::Lock;
use mobula_namespace::{Applied, Batch, BlockEffect, Entry, LogPosition, Namespace, View};
use mobula_raft::{Committed, Machine, MachineError, Payload, Position};

/// The view that readers are answered from.
pub type PublishedView = ArcSwap<View>;

/// Hears of every change of blocks, on the applying thread.
pub type Effects = Box<dyn Fn(Vec<BlockEffect>) + Send>;

/// Hears of every entry that was applied, with the view afterwards, on the applying thread: for tests
/// that hold a second machine against this one.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Observe>>);

type Observe = dyn Fn(&[(LogPosition, Entry)], &View) + Send + Sync;

impl Observer {
    /// One that calls `observe`.
    pub fn new(observe: impl Fn(&[(LogPosition, Entry)], &View) + Send + Sync + 'static) -> Observer {
        Observer(Some(Arc::new(observe)))
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Observer({})", self.0.is_some())
    }
}

/// The machine.
pub struct NamespaceMachine {
    namespace: Namespace,
    published: Arc<PublishedView>,
    effects: Effects,
    observer: Observer,
    /// The folder is in use while this lives.
    _lock: Arc<Lock>,
}

impl NamespaceMachine {
    /// The machine over `namespace`, which publishes to `published`.
    pub fn new(
        namespace: Namespace,
        published: Arc<PublishedView>,
        effects: Effects,
        lock: Arc<Lock>,
    ) -> NamespaceMachine {
        let observer = Observer::default();
        NamespaceMachine { namespace, published, effects, observer, _lock: lock }
    }

    /// The same, observed.
    pub fn observed(self, observer: Observer) -> NamespaceMachine {
        NamespaceMachine { observer, ..self }
    }

    fn publish(&self) {
        self.published.store(Arc::new(self.namespace.view()));
    }
}

impl Machine for NamespaceMachine {
    type Command = Batch;
    type Outcome = Vec<Applied>;

    fn applied(&self) -> (Option<Position>, Option<Vec<u8>>) {
        (self.namespace.applied().map(raft_position), self.namespace.membership())
    }

    fn apply(&mut self, entries: Vec<Committed<Batch>>) -> Result<Vec<Option<Vec<Applied>>>, MachineError> {
        let is_batch: Vec<bool> =
            entries.iter().map(|entry| matches!(entry.payload, Payload::Command(_))).collect();
        let entries: Vec<(LogPosition, Entry)> = entries.into_iter().map(entry).collect();
        let mut outcomes = self.namespace.apply_all(&entries).map_err(machine_error)?;
        self.publish();
        if let Some(observe) = &self.observer.0 {
            observe(&entries, &self.namespace.view());
        }
        let effects: Vec<BlockEffect> =
            outcomes.iter_mut().flatten().flat_map(|applied| std::mem::take(&mut applied.effects)).collect();
        if !effects.is_empty() {
            (self.effects)(effects);
        }
        Ok(outcomes.into_iter().zip(is_batch).map(|(outcome, batch)| batch.then_some(outcome)).collect())
    }

    fn sync(&mut self) -> Result<Option<Position>, MachineError> {
        Ok(self.namespace.sync().map_err(machine_error)?.map(raft_position))
    }

    fn write_snapshot(&self, out: &mut dyn Write) -> Result<(), MachineError> {
        self.namespace.write_snapshot(out).map_err(machine_error)
    }

    fn view(&self) -> Option<mobula_raft::View> {
        let view = self.namespace.view();
        Some(Box::new(move |out| view.write_snapshot(out).map_err(machine_error)))
    }

    fn restore(
        &mut self,
        from: &mut dyn Read,
        at: Position,
        _membership: Option<Vec<u8>>,
    ) -> Result<(), MachineError> {
        self.namespace.restore(from).map_err(machine_error)?;
        self.publish();
        match self.namespace.applied().map(raft_position) {
            Some(position) if position == at => Ok(()),
            other => Err(MachineError(format!("a snapshot said to be at {at} was at {other:?}"))),
        }
    }

    fn commands_in(batch: &Batch) -> u64 {
        batch.commands.len() as u64
    }
}

fn entry(committed: Committed<Batch>) -> (LogPosition, Entry) {
    let Position { term, index } = committed.position;
    let entry = match committed.payload {
        Payload::Blank => Entry::Blank,
        Payload::Command(batch) => Entry::Batch(batch),
        Payload::Membership(bytes) => Entry::Membership(bytes),
    };
    (LogPosition { term, index }, entry)
}

fn raft_position(position: LogPosition) -> Position {
    Position { term: position.term, index: position.index }
}

fn machine_error(error: impl std::fmt::Display) -> MachineError {
    MachineError(error.to_string())
}
