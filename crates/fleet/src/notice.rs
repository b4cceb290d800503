//! What the AutoHealer noticed and did, as a bounded journal for people: `mobula demo` and
//! `mobula admin` show it. Nothing decides by it.

use std::collections::VecDeque;

use mobula_types::{BlockId, DatanodeUuid, GenStamp, Millis, StorageUuid};

/// Oldest notices are forgotten beyond this many.
pub const NOTICES_MAX: usize = 16_384;

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A DataNode registered for the first time.
    NodeNew {
        /// Who.
        node: DatanodeUuid,
    },
    /// No beats, a broken connection, or it said that it stops.
    NodeSuspect {
        /// Who.
        node: DatanodeUuid,
        /// Since its last beat.
        silent_ms: Millis,
    },
    /// Its replicas no longer count.
    NodeDead {
        /// Who.
        node: DatanodeUuid,
        /// Since its last beat.
        silent_ms: Millis,
        /// Replicas that it held.
        replicas: u64,
    },
    /// It is there again.
    NodeBack {
        /// Who.
        node: DatanodeUuid,
        /// It had been declared dead.
        was_dead: bool,
    },
    /// A volume is out of use.
    StorageFailed {
        /// Whose.
        node: DatanodeUuid,
        /// Which.
        storage: StorageUuid,
        /// Replicas that it held.
        replicas: u64,
    },
    /// A full report of a volume was taken.
    StorageReported {
        /// Whose.
        node: DatanodeUuid,
        /// Which.
        storage: StorageUuid,
        /// Replicas in it.
        replicas: u64,
    },
    /// A copy was handed to its source.
    CopyOrdered {
        /// What.
        block: BlockId,
        /// From.
        source: DatanodeUuid,
        /// To.
        target: DatanodeUuid,
        /// Good replicas at this time.
        live: u16,
        /// How many there should be.
        wanted: u16,
        /// Bytes.
        length: u64,
    },
    /// The target has verified its checksums.
    CopyVerified {
        /// What.
        block: BlockId,
        /// Where.
        target: DatanodeUuid,
        /// Since it was handed out.
        took_ms: Millis,
        /// Bytes.
        length: u64,
    },
    /// It was not confirmed in time, or an end of it died: it is tried elsewhere.
    CopyGivenUp {
        /// What.
        block: BlockId,
        /// From.
        source: DatanodeUuid,
        /// To.
        target: DatanodeUuid,
    },
    /// A replica is bad: reported so, or of the wrong stamp or length.
    ReplicaCorrupt {
        /// Of which block.
        block: BlockId,
        /// Where.
        node: DatanodeUuid,
    },
    /// A bad replica is removed, for there are good ones.
    CorruptRemoved {
        /// Of which block.
        block: BlockId,
        /// Where.
        node: DatanodeUuid,
    },
    /// One replica too many is removed.
    SurplusRemoved {
        /// Of which block.
        block: BlockId,
        /// Where.
        node: DatanodeUuid,
    },
    /// A DataNode was ordered to bring an open block's replicas to one length and stamp.
    RecoveryOrdered {
        /// What.
        block: BlockId,
        /// Who does it.
        primary: DatanodeUuid,
        /// The recovery's id.
        recovery: GenStamp,
    },
    /// That came to nothing: it begins again under a higher id.
    RecoveryGivenUp {
        /// What.
        block: BlockId,
        /// The id that was in vain.
        recovery: GenStamp,
    },
    /// No good replica is left.
    BlockMissing {
        /// Which.
        block: BlockId,
    },
    /// Copies may be ordered from now on: the nodes have reported, or the delay is over.
    CopiesOpen,
    /// Replicas may be deleted from now on.
    DeletesOpen,
    /// Everything has its replicas again.
    Healed,
}

/// The journal.
#[derive(Debug, Default)]
pub struct Journal {
    next: u64,
    kept: VecDeque<(u64, Millis, Notice)>,
}

impl Journal {
    /// Adds one.
    pub fn add(&mut self, now: Millis, notice: Notice) {
        if self.kept.len() == NOTICES_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((self.next, now, notice));
        self.next += 1;
    }

    /// Those with `seq` or a higher number, oldest first.
    pub fn since(&self, seq: u64) -> Vec<(u64, Millis, Notice)> {
        let skip = self.kept.partition_point(|(number, ..)| *number < seq);
        self.kept.iter().skip(skip).cloned().collect()
    }

    /// The number that the next one will have.
    pub fn next(&self) -> u64 {
        self.next
    }
}
