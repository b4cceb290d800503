//! The fleet behind its lock, with the clock and the view that its events need.
//!
//! Invariant: the lock is held for one event, never across an await; reports come in slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_fleet::{BlockChange, BlockTable, Fleet, FleetConfig, Recover, TableBlock};
use mobula_namespace::{BlockEffect, BlockRecord, BlockState, View};
use mobula_net::Clock;
use mobula_types::{BlockId, Millis};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::machine::PublishedView;

/// The fleet, shared.
#[derive(Debug)]
pub struct Roster {
    fleet: RwLock<Fleet>,
    view: Arc<PublishedView>,
    clock: Clock,
    changed: Notify,
    /// Blocks that somebody waits for a replica of: so that a report wakes only those it concerns.
    awaited: Mutex<BTreeMap<BlockId, Arc<Notify>>>,
}

impl Roster {
    /// An empty fleet over the blocks of `view`.
    pub fn new(config: FleetConfig, seed: u64, clock: Clock, view: Arc<PublishedView>) -> Roster {
        let fleet = Fleet::new(config, seed, Millis(clock.monotonic_ms()));
        Roster { fleet: RwLock::new(fleet), view, clock, changed: Notify::new(), awaited: Mutex::default() }
    }

    /// Monotonic time, as the fleet counts it.
    pub fn now(&self) -> Millis {
        Millis(self.clock.monotonic_ms())
    }

    /// Asks the fleet.
    pub fn ask<T>(&self, question: impl FnOnce(&Fleet, Millis) -> T) -> T {
        question(&self.fleet.read(), self.now())
    }

    /// Asks the fleet something that needs the block table.
    pub fn ask_with_table<T>(&self, question: impl FnOnce(&Fleet, Millis, &dyn BlockTable) -> T) -> T {
        let view = self.view.load();
        question(&self.fleet.read(), self.now(), &Table(&view))
    }

    /// Tells the fleet of an event, and wakes those who wait for its changes.
    pub fn tell<T>(&self, event: impl FnOnce(&mut Fleet, Millis, &dyn BlockTable) -> T) -> T {
        let result = self.tell_quietly(event);
        self.changed.notify_waiters();
        result
    }

    /// As [`Roster::tell`], for events that nobody waits for.
    pub fn tell_quietly<T>(&self, event: impl FnOnce(&mut Fleet, Millis, &dyn BlockTable) -> T) -> T {
        // The view is taken inside the lock: a change of blocks that the fleet was told is in it.
        let mut fleet = self.fleet.write();
        let view = self.view.load();
        event(&mut fleet, self.now(), &Table(&view))
    }

    /// What the log did to blocks.
    pub fn on_effects(&self, effects: Vec<BlockEffect>) {
        let mut fleet = self.fleet.write();
        let now = self.now();
        for effect in effects {
            fleet.on_block_change(now, block_change(effect));
        }
        drop(fleet);
        self.changed.notify_waiters();
    }

    /// Resolves at the next [`Roster::tell`]. Enable it before looking, so that none is missed.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Waits until `found` answers, looking again after every event, at most until `deadline`.
    pub async fn wait_for<T>(
        &self,
        deadline: tokio::time::Instant,
        mut found: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        loop {
            let changed = self.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(answer) = found() {
                return Some(answer);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return found();
            }
        }
    }
}

impl Roster {
    /// Wakes those who wait for replicas of these blocks.
    pub fn reported(&self, blocks: impl Iterator<Item = BlockId>) {
        let awaited = self.awaited.lock();
        if awaited.is_empty() {
            return;
        }
        for bell in blocks.filter_map(|block| awaited.get(&block)) {
            bell.notify_waiters();
        }
    }

    /// Wakes all who wait for replicas: a full report may have brought any.
    pub fn reported_all(&self) {
        self.awaited.lock().values().for_each(|bell| bell.notify_waiters());
    }

    /// Waits until `lacking` names no block any more, looking again when a replica of the one it named
    /// is reported; false if that takes longer than until `deadline`.
    pub async fn wait_for_replicas<E>(
        &self,
        deadline: tokio::time::Instant,
        mut lacking: impl FnMut() -> Result<Option<BlockId>, E>,
    ) -> Result<bool, E> {
        while let Some(block) = lacking()? {
            let bell = Arc::clone(self.awaited.lock().entry(block).or_default());
            let rung = {
                let rung = bell.notified();
                tokio::pin!(rung);
                rung.as_mut().enable();
                // It may have come between the look and the bell.
                match lacking()? {
                    Some(still) if still == block => tokio::time::timeout_at(deadline, rung).await.is_ok(),
                    _ => true,
                }
            };
            let mut awaited = self.awaited.lock();
            // The map's and ours: nobody else waits for it.
            if Arc::strong_count(&bell) == 2 {
                awaited.remove(&block);
            }
            drop(awaited);
            if !rung {
                return Ok(lacking()?.is_none());
            }
        }
        Ok(true)
    }
}

fn block_change(effect: BlockEffect) -> BlockChange {
    match effect {
        BlockEffect::Allocated { block, replication, targets } => {
            BlockChange::Allocated { block, replication, targets }
        }
        BlockEffect::Committed { block, replication } => BlockChange::Committed { block, replication },
        BlockEffect::Reopened { block, replication, targets } => {
            BlockChange::Reopened { block, replication, targets }
        }
        BlockEffect::Pipeline { block, targets } => BlockChange::Pipeline { block, targets },
        BlockEffect::Recover { block, recovery, targets, truncate } => {
            BlockChange::Recover(Recover { block, recovery, targets, truncate })
        }
        BlockEffect::Recovered { block, targets } => BlockChange::Recovered { block, targets },
        BlockEffect::Removed { block } => BlockChange::Removed { block },
        BlockEffect::Replication { block, replication } => BlockChange::Replication { block, replication },
    }
}

/// The block table of one view.
struct Table<'a>(&'a View);

impl BlockTable for Table<'_> {
    fn block(&self, id: BlockId) -> Option<TableBlock> {
        readable(self.0.block(id)).map(table_block)
    }

    fn blocks_from(&self, from: BlockId, count: usize) -> Vec<TableBlock> {
        readable(self.0.blocks_from(from, count)).into_iter().map(table_block).collect()
    }

    fn next_block(&self) -> BlockId {
        self.0.next_block()
    }
}

fn table_block(record: BlockRecord) -> TableBlock {
    TableBlock {
        block: record.block,
        replication: record.replication,
        committed: record.state == BlockState::Committed,
    }
}

/// A table that cannot be read must not look like a table without blocks: the fleet would have
/// replicas deleted. So that is the end of the process.
fn readable<T>(read: Result<T, mobula_namespace::TableError>) -> T {
    read.unwrap_or_else(|error| panic!("the block table cannot be read: {error}"))
}
