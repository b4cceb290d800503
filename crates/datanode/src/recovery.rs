//! A replica's part in the recovery of its block (HDFS: `FsDatasetImpl.initReplicaRecovery`,
//! `updateReplicaUnderRecovery`): first it stands still and says what it has, then it takes the length and the
//! stamp that were decided.
//!
//! Invariants: recovery ids of a replica only rise; between the two steps nobody writes to it; what it says it has
//! fits its checksums.

use std::io;
use std::sync::Arc;

use mobula_types::{Block, BlockId, GenStamp, ReplicaState, StorageUuid};

use crate::claim::{Claim, Taken};
use crate::create::{NewReplica, Origin};
use crate::files::Files;
use crate::replica::{
    FinalReplica, OpenReplica, Pen, Piece, RecoveringReplica, Replica, Stuck, SyncNow, Write,
};
use crate::reports::Change;
use crate::store::{OpenError, Store, whole};

/// What a node has of a block under recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its stamp, and the bytes that can be relied on.
    pub block: Block,
    /// What it was before the recovery.
    pub state: ReplicaState,
}

/// What a replica under recovery is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// As it was found.
    pub found: Block,
    /// Which recovery says so; its new stamp.
    pub recovery: GenStamp,
    /// Its new length, in bytes.
    pub length: u64,
    /// The block that its beginning is copied to, itself staying as it is (copy on truncate).
    pub copy_to: Option<BlockId>,
}

/// Why a replica takes no part in a recovery.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("replica of {block} has generation stamp {have}, older than {wanted}")]
    Stale { block: BlockId, have: GenStamp, wanted: GenStamp },
    #[error("replica of {block} has generation stamp {have}, not older than recovery {recovery}")]
    NotNewer { block: BlockId, have: GenStamp, recovery: GenStamp },
    #[error("replica of {block} is under recovery {current}, which {recovery} does not follow")]
    InProgress { block: BlockId, current: GenStamp, recovery: GenStamp },
    #[error("replica of {block} is not under recovery {recovery}")]
    NotUnder { block: BlockId, recovery: GenStamp },
    #[error("replica of {block} has {have} bytes: not {said}, or fewer than {wanted}")]
    Length { block: BlockId, have: u64, said: u64, wanted: u64 },
    #[error("the replica of {0} could not be read when this DataNode started")]
    Unreadable(BlockId),
    #[error(transparent)]
    Stuck(#[from] Stuck),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl Store {
    /// Stops whoever writes the replica, and puts it under the recovery with that id; what there is of it. None if
    /// there is nothing that a client ever wrote.
    ///
    /// # Errors
    /// [`RecoveryError`]; a newer recovery, or a newer replica, is left alone.
    pub(crate) async fn begin_recovery(
        self: &Arc<Store>,
        block: Block,
        recovery: GenStamp,
    ) -> Result<Option<Found>, RecoveryError> {
        let store = self.clone();
        whole(async move {
            let claim = store.replicas.claim(block.id).await?;
            let Some(replica) = claim.replica() else {
                let unreadable = store.unreadable.lock().contains(&block.id);
                return if unreadable { Err(RecoveryError::Unreadable(block.id)) } else { Ok(None) };
            };
            if replica.state() == ReplicaState::Temporary {
                store.drop_copy(&claim).await?;
                return Ok(None);
            }
            check(&replica, &block, recovery)?;
            let taken = claim.take().await?;
            // It may have been finished while its writer was stopped.
            let Some(replica) = claim.replica() else { return Ok(None) };
            check(&replica, &block, recovery)?;
            let found = store.reliable(&replica, taken).await?;
            let under = RecoveringReplica::new(&replica, recovery, (found.block.length, found.state));
            claim.put(Replica::Recovering(Arc::new(under)))?;
            Ok(Some(found))
        })
        .await
    }

    /// Gives the replica the length and the stamp that its recovery decided, and makes it final; on which volume.
    /// A repeated call finds it done.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub(crate) async fn end_recovery(
        self: &Arc<Store>,
        outcome: Outcome,
    ) -> Result<StorageUuid, RecoveryError> {
        let store = self.clone();
        whole(async move {
            let Outcome { found, recovery, length, copy_to } = outcome;
            let claim = store.replicas.claim(found.id).await?;
            let under = match claim.replica() {
                Some(Replica::Recovering(it)) if it.recovery == recovery => it,
                Some(Replica::Final(it))
                    if copy_to.is_none() && it.block == (Block { stamp: recovery, length, ..found }) =>
                {
                    return Ok(it.volume.storage.clone());
                }
                _ => return Err(RecoveryError::NotUnder { block: found.id, recovery }),
            };
            let have = under.length;
            if have != found.length || have < length {
                let said = found.length;
                return Err(RecoveryError::Length { block: found.id, have, said, wanted: length });
            }
            let replica = Replica::Recovering(under).original().clone();
            let done = match copy_to.filter(|id| *id != found.id) {
                Some(id) => store.copy_beginning(&claim, replica, &outcome, id).await?,
                None => store.settle_at(&claim, replica, &outcome, have).await?,
            };
            Ok(done.volume.storage.clone())
        })
        .await
    }

    /// A copy that is coming in is of no use to a recovery, and not to be taken for the block afterwards.
    async fn drop_copy(&self, claim: &Claim) -> Result<(), RecoveryError> {
        let _taken = claim.take().await?;
        if let Some(replica) = claim.replica().filter(|it| it.state() == ReplicaState::Temporary) {
            self.remove_files(&replica).await;
            claim.remove();
        }
        Ok(())
    }

    /// What of a replica at rest can be relied on. Of one that was being written when the node stopped, all bytes are
    /// verified: if the power failed, any part of them may be missing. So are those of one whose files were closed
    /// meanwhile: the system may have failed to write them, and forgotten that. If they do not fit, such a replica
    /// proves no more than one of a node that was restarted.
    async fn reliable(&self, replica: &Replica, taken: Taken) -> Result<Found, RecoveryError> {
        let (block, state, volume) = (replica.block(), replica.state(), replica.volume().clone());
        let pool = self.pool().ok_or(OpenError::NoPool)?;
        let (folder, all) = match replica.original() {
            Replica::Open(growing) => (growing.folder.clone(), growing.open_files().is_none()),
            Replica::Waiting(_) => (volume.rbw_folder(pool), true),
            Replica::Final(_) | Replica::Recovering(_) => (volume.final_folder(pool, block.id), false),
        };
        let disk = volume.disk.clone();
        let looked = volume.pool.run(move || {
            let files = Files::open(&*disk, &folder, &block)?;
            if all {
                return files.verified_length(block.length);
            }
            if state == ReplicaState::Finalized {
                files.check_lengths(&block)?;
                files.last_sum(&block)?;
            }
            Ok(block.length)
        });
        let length = match looked.await {
            Ok(length) => length,
            Err(error) => return Err(self.judge(&volume, &block, error).await.into()),
        };
        if let Taken::Open(open) = taken {
            self.cut(open, length).await?;
        }
        // What was once found wanting is cut by now, and stays so.
        let wanting = matches!(replica, Replica::Recovering(it) if it.state == ReplicaState::Rwr);
        let state = if wanting || length < block.length { ReplicaState::Rwr } else { state };
        Ok(Found { block: Block { length, ..block }, state })
    }

    async fn settle_at(
        self: &Arc<Store>,
        claim: &Claim,
        replica: Replica,
        outcome: &Outcome,
        have: u64,
    ) -> Result<FinalReplica, RecoveryError> {
        let Outcome { recovery, length, .. } = *outcome;
        let open: OpenReplica = match replica {
            Replica::Final(it) if it.block.length == length => {
                let done = self.restamp_final(claim, it, recovery).await?;
                self.reports.note(&done.volume.storage, done.block, Change::Received);
                return Ok(done);
            }
            Replica::Final(it) => self.reopen(claim, it, None).await?,
            Replica::Waiting(it) => self.resume(claim, it, have).await?,
            Replica::Open(growing) => {
                claim.put(Replica::Open(growing.clone()))?;
                OpenReplica::take_over(growing).await?
            }
            Replica::Recovering(_) => unreachable!("the original of a recovery is none"),
        };
        let open = self.cut(open, length).await?;
        // Not synced: finishing it syncs its name.
        let open = self.restamp(claim, open, recovery, 0, SyncNow::No).await?;
        Ok(self.finalise(open, length, Some(Change::Received)).await?)
    }

    /// Copies the first bytes of a replica to another block, and leaves the replica as it was.
    async fn copy_beginning(
        self: &Arc<Store>,
        claim: &Claim,
        replica: Replica,
        outcome: &Outcome,
        id: BlockId,
    ) -> Result<FinalReplica, RecoveryError> {
        let Outcome { recovery, length, .. } = *outcome;
        let Replica::Final(source) = replica else {
            return Err(OpenError::State { block: outcome.found.id, state: replica.state() }.into());
        };
        let pool = self.pool().ok_or(OpenError::NoPool)?;
        let target_claim = self.replicas.claim(id).await?;
        let folder = source.volume.final_folder(pool, source.block.id);
        let (disk, block) = (source.volume.disk.clone(), source.block);
        let opened = source.volume.pool.run(move || Files::open(&*disk, &folder, &block));
        let files = match opened.await {
            Ok(files) => files,
            Err(error) => return Err(self.judge(&source.volume, &block, error).await.into()),
        };
        if let Some(old) = target_claim.replica() {
            return Err(OpenError::Exists(old.block()).into());
        }
        let new = NewReplica {
            block: Block { id, stamp: recovery, length: 0 },
            stamp: None,
            origin: Origin::Client,
            storage_type: source.volume.config.kind,
            expected: length,
            checksum: files.checksum,
        };
        let open = self.make(&target_claim, &new).await?;
        let pen = open.pen();
        let copied =
            open.growing().volume.clone().pool.run(move || copy_verified(&files, &pen, length)).await;
        if let Err(error) = copied {
            self.abandon(open).await;
            return Err(self.judge(&source.volume, &block, error).await.into());
        }
        let growing = open.growing().clone();
        let done = match self.finalise(open, length, Some(Change::Received)).await {
            Ok(done) => done,
            Err(error) => {
                // Else it would be in the way of the next attempt.
                if !growing.volume.is_failed() {
                    self.abandon(OpenReplica::take_over(growing).await?).await;
                }
                return Err(error.into());
            }
        };
        drop(target_claim);
        claim.put(Replica::Final(source))?;
        Ok(done)
    }
}

fn check(replica: &Replica, block: &Block, recovery: GenStamp) -> Result<(), RecoveryError> {
    let have = replica.block().stamp;
    if have < block.stamp {
        return Err(RecoveryError::Stale { block: block.id, have, wanted: block.stamp });
    }
    if have >= recovery {
        return Err(RecoveryError::NotNewer { block: block.id, have, recovery });
    }
    match replica {
        Replica::Recovering(it) if it.recovery >= recovery => {
            Err(RecoveryError::InProgress { block: block.id, current: it.recovery, recovery })
        }
        _ => Ok(()),
    }
}

/// Copies the first `length` bytes of verified files into an open replica.
fn copy_verified(from: &Files, to: &Pen, length: u64) -> io::Result<()> {
    let chunk = u64::from(from.checksum.bytes_per_chunk());
    let step = from.step();
    let has = from.data.length()?;
    let mut at = 0;
    while at < length {
        // Whole chunks are verified; of the last one only the beginning is copied.
        let part = step.min(length - at);
        let whole = part.next_multiple_of(chunk).min(has - at);
        let bytes = from.read_verified(at, whole as usize)?;
        let data = &bytes[..part as usize];
        let mut sums = Vec::new();
        from.checksum.compute(data, &mut sums);
        let sums_at = from.checksum.sums_length(at);
        let partial = !part.is_multiple_of(chunk);
        let last = sums.last_chunk::<4>().copied().map(u32::from_be_bytes);
        let write = Write {
            data,
            data_pieces: &[Piece { at, from: 0, length: data.len() }],
            sums: &sums,
            sum_pieces: &[Piece { at: sums_at, from: 0, length: sums.len() }],
            end: at + part,
            last_sum: last.filter(|_| partial),
        };
        to.write(Some(&write), SyncNow::No)?;
        at += part;
    }
    Ok(())
}
