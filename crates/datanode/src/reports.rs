//! What NameNodes are still to be told of single replicas and bad blocks: one outbox per NameNode.
//!
//! Invariant: an outbox holds one entry a block, the newest; above [`OUTBOX_MAX`] it is emptied and
//! a full report is asked for instead.

use std::collections::BTreeMap;

use mobula_proto::hdfs::DatanodeInfoProto;
use mobula_types::{Block, BlockId, StorageUuid};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Entries in one outbox.
pub(crate) const OUTBOX_MAX: usize = 1 << 20;
/// Bad blocks waiting to be reported.
const BAD_MAX: usize = 10_000;
/// Those told of in one call.
const BAD_CALL_MAX: usize = 256;
/// Longest name of a source that is kept, in bytes: a host's has at most 253.
const NAME_MAX: usize = 255;
/// Other messages waiting to be sent.
const ERRORS_MAX: usize = 1_000;

/// What happened to a replica (`ReceivedDeletedBlockInfoProto.BlockStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Receiving,
    Received,
    Deleted,
}

/// Why a whole replica or the node is in trouble (`ErrorReportRequestProto.ErrorCode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Trouble {
    Notify = 0,
    Disk = 1,
    InvalidBlock = 2,
}

/// A replica whose bytes are bad, here or where they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadBlock {
    pub block: Block,
    /// The volume; none if the replica is another DataNode's.
    pub storage: Option<StorageUuid>,
    /// The other DataNode, as it said who it is.
    pub source: Option<DatanodeInfoProto>,
}

impl BadBlock {
    /// A block whose bytes came bad from another DataNode. Anybody may say to be one, and anything besides: its identity
    /// is kept and no more; none if that is none.
    pub(crate) fn sent_by(source: &DatanodeInfoProto, block: Block) -> Option<BadBlock> {
        let names = [&source.id.ip_addr, &source.id.host_name, &source.id.datanode_uuid];
        let source = DatanodeInfoProto { id: source.id.clone(), ..Default::default() };
        let fits = names.iter().all(|name| name.len() <= NAME_MAX);
        fits.then_some(BadBlock { block, storage: None, source: Some(source) })
    }
}

type Entries = BTreeMap<(StorageUuid, BlockId), (Block, Change)>;

#[derive(Debug, Default)]
struct Pending {
    entries: Entries,
    bad: Vec<BadBlock>,
    errors: Vec<(Trouble, String)>,
    urgent: bool,
    full_wanted: bool,
}

/// What one NameNode is still to be told.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pending: Mutex<Pending>,
    /// Told when something is to be sent at once.
    pub urgent: Notify,
}

impl Outbox {
    /// Takes all that is pending. What cannot be sent comes back by [`Outbox::put_back`].
    pub(crate) fn take_entries(&self) -> Vec<(StorageUuid, Block, Change)> {
        let mut pending = self.pending.lock();
        pending.urgent = false;
        std::mem::take(&mut pending.entries)
            .into_iter()
            .map(|((storage, _), (block, change))| (storage, block, change))
            .collect()
    }

    pub(crate) fn put_back(&self, entries: Vec<(StorageUuid, Block, Change)>) {
        let mut pending = self.pending.lock();
        pending.urgent = true;
        for (storage, block, change) in entries {
            pending.entries.entry((storage, block.id)).or_insert((block, change));
        }
    }

    /// Whether single changes are to be sent at once.
    pub(crate) fn is_urgent(&self) -> bool {
        self.pending.lock().urgent
    }

    /// Whether there are bad blocks or errors to be told of.
    pub(crate) fn is_troubled(&self) -> bool {
        let pending = self.pending.lock();
        !pending.bad.is_empty() || !pending.errors.is_empty()
    }

    /// Forgets all single changes: a full report that is made after this call tells them.
    pub(crate) fn clear_entries(&self) {
        self.pending.lock().entries.clear();
    }

    /// Takes the next bad blocks, as many as go into a call: first those that lie here, and apart from the others, since
    /// what a source said of itself may be refused. What cannot be sent comes back by [`Outbox::put_back_bad`].
    pub(crate) fn take_bad(&self) -> Vec<BadBlock> {
        let bad = &mut self.pending.lock().bad;
        let here = bad.iter().any(|it| it.source.is_none());
        bad.extract_if(.., |it| it.source.is_none() == here).take(BAD_CALL_MAX).collect()
    }

    pub(crate) fn take_errors(&self) -> Vec<(Trouble, String)> {
        std::mem::take(&mut self.pending.lock().errors)
    }

    /// Behind all others: if it is one of these that cannot be sent, the others can.
    pub(crate) fn put_back_bad(&self, bad: Vec<BadBlock>) {
        let mut pending = self.pending.lock();
        for block in bad {
            push_bad(&mut pending.bad, block);
        }
    }

    /// Asks for a full report; `false` if it was asked for already.
    pub(crate) fn want_full(&self) {
        self.pending.lock().full_wanted = true;
        self.urgent.notify_one();
    }

    /// Whether a full report was asked for; forgets it.
    pub(crate) fn take_full_wanted(&self) -> bool {
        std::mem::take(&mut self.pending.lock().full_wanted)
    }

    fn note(&self, storage: &StorageUuid, block: Block, change: Change) {
        let urgent = {
            let mut pending = self.pending.lock();
            if pending.entries.len() >= OUTBOX_MAX {
                pending.entries.clear();
                pending.full_wanted = true;
            }
            pending.entries.insert((storage.clone(), block.id), (block, change));
            let urgent = change == Change::Received && !pending.urgent;
            pending.urgent |= change == Change::Received;
            urgent
        };
        if urgent {
            self.urgent.notify_one();
        }
    }
}

fn push_bad(list: &mut Vec<BadBlock>, bad: BadBlock) {
    if list.len() < BAD_MAX && !list.contains(&bad) {
        list.push(bad);
    }
}

/// The outboxes of all NameNodes.
#[derive(Debug)]
pub(crate) struct Reports {
    outboxes: Vec<Outbox>,
}

impl Reports {
    pub(crate) fn new(namenodes: usize) -> Reports {
        Reports { outboxes: (0..namenodes).map(|_| Outbox::default()).collect() }
    }

    /// The outbox of the NameNode with that place in the configuration.
    pub(crate) fn outbox(&self, namenode: usize) -> &Outbox {
        &self.outboxes[namenode]
    }

    /// A replica changed.
    pub(crate) fn note(&self, storage: &StorageUuid, block: Block, change: Change) {
        for outbox in &self.outboxes {
            outbox.note(storage, block, change);
        }
    }

    /// A replica is bad.
    pub(crate) fn bad(&self, bad: &BadBlock) {
        for outbox in &self.outboxes {
            push_bad(&mut outbox.pending.lock().bad, bad.clone());
            outbox.urgent.notify_one();
        }
    }

    /// Something else that NameNodes should know.
    pub(crate) fn error(&self, trouble: Trouble, message: &str) {
        for outbox in &self.outboxes {
            let mut pending = outbox.pending.lock();
            if pending.errors.len() < ERRORS_MAX {
                pending.errors.push((trouble, message.to_owned()));
            }
            drop(pending);
            outbox.urgent.notify_one();
        }
    }

    /// Every NameNode is to have a full report soon.
    pub(crate) fn want_full(&self) {
        for outbox in &self.outboxes {
            outbox.want_full();
        }
    }
}
