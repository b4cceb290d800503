//! The map from block to replica, and who may change an entry of it.
//!
//! Invariants: an entry changes only under a [`Claim`] on its block, and that of an open replica only by whoever
//! has the right to write to it besides; a volume that failed has no entries.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use mobula_types::BlockId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::replica::{FinalReplica, Growing, OpenReplica, Replica, STOP_LIMIT, Stuck};

/// The replicas of all volumes.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    table: Mutex<Table>,
    /// Told when a claim ends.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Table {
    replicas: BTreeMap<BlockId, Replica>,
    claimed: BTreeSet<BlockId>,
}

impl Replicas {
    /// The replica of a block.
    pub(crate) fn get(&self, id: BlockId) -> Option<Replica> {
        self.table.lock().replicas.get(&id).cloned()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.table.lock().replicas.len()
    }

    /// Calls `look` with each of them, by block; it must not take long.
    pub(crate) fn each(&self, look: impl FnMut(&Replica)) {
        self.table.lock().replicas.values().for_each(look);
    }

    /// Keeps those for which `keep` says so: for volumes that come and go, whoever has claims.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Replica) -> bool) {
        self.table.lock().replicas.retain(|_, replica| keep(replica));
    }

    /// Takes a replica that was found on a volume, if it is better than what is known of its block; gives back the other one.
    pub(crate) fn adopt(
        &self,
        replica: Replica,
        better: impl Fn(&Replica, &Replica) -> bool,
    ) -> Option<Replica> {
        let mut table = self.table.lock();
        let id = replica.block().id;
        match table.replicas.get(&id) {
            Some(other) if !better(&replica, other) => Some(replica),
            _ => table.replicas.insert(id, replica),
        }
    }

    /// Waits until nobody else changes the block's replica, and keeps all others from it.
    ///
    /// # Errors
    /// [`Stuck`] after [`STOP_LIMIT`].
    pub(crate) async fn claim(self: &Arc<Self>, id: BlockId) -> Result<Claim, Stuck> {
        let free = async {
            loop {
                let settled = self.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if self.table.lock().claimed.insert(id) {
                    return;
                }
                settled.await;
            }
        };
        timeout(STOP_LIMIT, free).await.map_err(|_| Stuck(id))?;
        Ok(Claim { replicas: self.clone(), id })
    }

    /// Waits until nobody changes the block's replica, for those who only look.
    pub(crate) async fn settle(&self, id: BlockId) {
        let free = async {
            loop {
                let settled = self.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if !self.table.lock().claimed.contains(&id) {
                    return;
                }
                settled.await;
            }
        };
        // Who waited in vain looks at what there is.
        let _ = timeout(STOP_LIMIT, free).await;
    }

    /// `open`, to which the caller has the right to write, becomes `next`, or nothing.
    ///
    /// # Errors
    /// If the replica has left the map meanwhile: its volume failed.
    pub(crate) fn replace_open(&self, open: &Arc<Growing>, next: Option<Replica>) -> io::Result<()> {
        let id = open.block.id;
        let mut table = self.table.lock();
        if !table.replicas.get(&id).is_some_and(|replica| replica.is_open(open)) {
            return Err(io::Error::other(format!("{} is out of use", open.block)));
        }
        match next {
            Some(next) => table.replicas.insert(id, next),
            None => table.replicas.remove(&id),
        };
        Ok(())
    }
}

/// Nobody else changes the replica of this block meanwhile.
#[derive(Debug)]
pub(crate) struct Claim {
    replicas: Arc<Replicas>,
    id: BlockId,
}

/// A replica at rest, with whatever right there is to it.
#[derive(Debug)]
pub(crate) enum Taken {
    Nothing,
    Open(OpenReplica),
    Final(FinalReplica),
    /// Waiting, or under recovery: nobody writes it.
    Other,
}

impl Claim {
    pub(crate) fn replica(&self) -> Option<Replica> {
        self.replicas.get(self.id)
    }

    /// The replica, once whoever writes it has stopped.
    ///
    /// # Errors
    /// [`Stuck`] if the writer does not.
    pub(crate) async fn take(&self) -> Result<Taken, Stuck> {
        loop {
            let growing: Arc<Growing> = match self.replica() {
                None => return Ok(Taken::Nothing),
                Some(Replica::Final(it)) => return Ok(Taken::Final(it)),
                Some(Replica::Waiting(_) | Replica::Recovering(_)) => return Ok(Taken::Other),
                Some(Replica::Open(growing)) => growing,
            };
            let open = OpenReplica::take_over(growing).await?;
            // The writer may have finished it meanwhile, or given it up.
            if self.replica().is_some_and(|replica| replica.is_open(open.growing())) {
                return Ok(Taken::Open(open));
            }
        }
    }

    /// What the block's replica is from now on.
    ///
    /// # Errors
    /// If its volume has failed meanwhile.
    pub(crate) fn put(&self, replica: Replica) -> io::Result<()> {
        assert_eq!(replica.block().id, self.id, "a claim is to one block");
        let mut table = self.replicas.table.lock();
        if replica.volume().is_failed() {
            table.replicas.remove(&self.id);
            return Err(io::Error::other(format!("{} is out of use: its volume failed", replica.block())));
        }
        table.replicas.insert(self.id, replica);
        Ok(())
    }

    /// There is no replica any more.
    pub(crate) fn remove(&self) {
        self.replicas.table.lock().replicas.remove(&self.id);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.replicas.table.lock().claimed.remove(&self.id);
        self.replicas.settled.notify_waiters();
    }
}
