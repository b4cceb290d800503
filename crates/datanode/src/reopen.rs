//! Replicas that are written again: the stages of WRITE_BLOCK that find one here (HDFS: `FsDatasetImpl.append`,
//! `recoverAppend`, `recoverRbw`, `recoverClose`, `convertTemporaryToRbw`).
//!
//! Invariants: a stage that does not fit the replica's state, stamps or lengths changes nothing, nor does it stop
//! a writer with a newer stamp; a step that began ends, even if whoever asked for it is gone.

use std::io;
use std::sync::Arc;

use mobula_disk::is_failed_sync;
use mobula_types::{Block, BlockId, GenStamp, ReplicaState};

use crate::claim::{Claim, Taken};
use crate::direct::Direct;
use crate::files::{self, Files};
use crate::replica::{
    FinalReplica, OpenFiles, OpenKind, OpenReplica, Parts, Progress, Replica, SyncNow, WaitingReplica,
};
use crate::reports::Change;
use crate::store::{OpenError, Store, disk_bytes, whole};
use crate::volume::{VolumeRef, data_name, meta_name};

/// What a client wants of a replica that is here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again {
    /// Which, with the stamp that the client knows.
    pub block: Block,
    /// The stamp that it is to have from now on.
    pub stamp: GenStamp,
    /// Bytes that the client knows to be acknowledged (`minBytesRcvd`).
    pub least: u64,
    /// Bytes that it has sent (`maxBytesRcvd`).
    pub most: u64,
    /// Bytes that the block may come to have.
    pub expected: u64,
    /// What one checksum of the sender covers, in bytes.
    pub bytes_per_chunk: u32,
}

impl Again {
    fn id(&self) -> BlockId {
        self.block.id
    }

    fn check_new_stamp(&self) -> Result<(), OpenError> {
        if self.stamp < self.block.stamp {
            return Err(self.wrong_stamp(self.stamp));
        }
        Ok(())
    }

    fn wrong_stamp(&self, have: GenStamp) -> OpenError {
        OpenError::Stamp { block: self.id(), have, from: self.block.stamp, to: self.stamp }
    }

    fn wrong_state(&self, replica: &Replica) -> OpenError {
        let state = match replica {
            Replica::Recovering(_) => ReplicaState::Rur,
            it => it.state(),
        };
        OpenError::State { block: self.id(), state }
    }

    /// A replica in a state that `fits`, whose stamp is between the two.
    fn check(&self, replica: Option<Replica>, fits: &[ReplicaState]) -> Result<Replica, OpenError> {
        self.check_new_stamp()?;
        let replica = replica.ok_or(OpenError::NotFound(self.id()))?;
        if matches!(replica, Replica::Recovering(_)) || !fits.contains(&replica.state()) {
            return Err(self.wrong_state(&replica));
        }
        let have = replica.block().stamp;
        if have < self.block.stamp || have > self.stamp {
            return Err(self.wrong_stamp(have));
        }
        Ok(replica)
    }

    /// Takes a replica that fits, once its writer has stopped; what does not fit keeps its writer.
    async fn take(&self, claim: &Claim, fits: &[ReplicaState]) -> Result<Taken, OpenError> {
        self.check(claim.replica(), fits)?;
        let taken = claim.take().await?;
        self.check(claim.replica(), fits)?;
        Ok(taken)
    }

    fn check_length(&self, have: u64) -> Result<(), OpenError> {
        if have != self.least {
            return Err(OpenError::Length { block: self.id(), have, least: self.least, most: self.least });
        }
        Ok(())
    }

    fn check_chunk(&self, here: u32) -> Result<(), OpenError> {
        if here != self.bytes_per_chunk {
            return Err(OpenError::Chunk { block: self.id(), here, sent: self.bytes_per_chunk });
        }
        Ok(())
    }
}

const FINAL_OR_RBW: [ReplicaState; 2] = [ReplicaState::Finalized, ReplicaState::Rbw];

impl Store {
    /// PIPELINE_SETUP_APPEND: opens a final replica.
    ///
    /// # Errors
    /// [`OpenError`], as for all of these.
    pub(crate) async fn append(self: &Arc<Store>, again: Again) -> Result<OpenReplica, OpenError> {
        let store = self.clone();
        whole(async move {
            let claim = store.replicas.claim(again.id()).await?;
            let exact = Again { stamp: again.block.stamp, ..again };
            again.check_new_stamp()?;
            match exact.check(claim.replica(), &[ReplicaState::Finalized])? {
                Replica::Final(replica) => store.append_final(&claim, replica, &again).await,
                other => Err(again.wrong_state(&other)),
            }
        })
        .await
    }

    /// PIPELINE_SETUP_APPEND_RECOVERY: the set-up of an append failed elsewhere, or before its first byte was
    /// acknowledged; the replica may be final or open by now.
    pub(crate) async fn recover_append(self: &Arc<Store>, again: Again) -> Result<OpenReplica, OpenError> {
        let store = self.clone();
        whole(async move {
            let claim = store.replicas.claim(again.id()).await?;
            match store.take_whole(&claim, &again).await? {
                Whole::Final(replica) => store.append_final(&claim, replica, &again).await,
                Whole::Open(open) => {
                    again.check_chunk(open.growing().checksum.bytes_per_chunk())?;
                    // A write that failed halfway may have left more than is counted.
                    let length = open.growing().progress().on_disk;
                    let open = store.cut(open, length).await?;
                    let open = store.restamp(&claim, open, again.stamp, again.expected, SyncNow::Yes).await?;
                    store.note(&open, Change::Receiving);
                    Ok(open)
                }
            }
        })
        .await
    }

    /// PIPELINE_SETUP_STREAMING_RECOVERY: the writer goes on behind what all nodes have acknowledged; what lies behind
    /// is cut off and comes again.
    pub(crate) async fn recover_streaming(self: &Arc<Store>, again: Again) -> Result<OpenReplica, OpenError> {
        let store = self.clone();
        whole(async move {
            let claim = store.replicas.claim(again.id()).await?;
            let taken = again.take(&claim, &[ReplicaState::Rbw]).await?;
            let Taken::Open(open) = taken else { return Err(OpenError::NotFound(again.id())) };
            again.check_chunk(open.growing().checksum.bytes_per_chunk())?;
            let Progress { on_disk, acked, .. } = open.growing().progress();
            if acked < again.least || on_disk > again.most {
                let (least, most) = (again.least, again.most);
                let have = if acked < least { acked } else { on_disk };
                return Err(OpenError::Length { block: again.id(), have, least, most });
            }
            let open = store.cut(open, acked).await?;
            store.restamp(&claim, open, again.stamp, again.expected, SyncNow::Yes).await
        })
        .await
    }

    /// PIPELINE_CLOSE_RECOVERY: the block's end was sent, but not acknowledged by all.
    pub(crate) async fn recover_close(self: &Arc<Store>, again: Again) -> Result<FinalReplica, OpenError> {
        let store = self.clone();
        whole(async move {
            let claim = store.replicas.claim(again.id()).await?;
            match store.take_whole(&claim, &again).await? {
                Whole::Final(replica) => {
                    let replica = store.restamp_final(&claim, replica, again.stamp).await?;
                    store.reports.note(&replica.volume.storage, replica.block, Change::Received);
                    Ok(replica)
                }
                Whole::Open(open) => {
                    let length = open.growing().progress().on_disk;
                    let open = store.cut(open, length).await?;
                    // Finishing it syncs its name.
                    let open = store.restamp(&claim, open, again.stamp, 0, SyncNow::No).await?;
                    Ok(store.finalise(open, length, Some(Change::Received)).await?)
                }
            }
        })
        .await
    }

    /// TRANSFER_RBW: a copy that came in whole becomes a replica that a client writes on. Synced, since what its
    /// source holds may be; `acked` bytes of it count as acknowledged: the rest was sent to the end of a chunk, and
    /// its writer may yet take it back.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) async fn publish(self: &Arc<Store>, open: OpenReplica, acked: u64) -> io::Result<()> {
        let store = self.clone();
        whole(async move {
            let pool = store.pool().expect("an open replica's pool is known").clone();
            let growing = open.growing().clone();
            let (pen, folder) = (open.pen(), growing.volume.rbw_folder(&pool));
            let target = folder.clone();
            let moved = growing.volume.run_sync(move || {
                let growing = pen.growing();
                let OpenFiles { data, meta } = growing.files()?;
                data.sync_data()?;
                meta.sync_data()?;
                files::move_both(&*growing.volume.disk, &growing.folder, &target, &growing.block)
            });
            if let Err(error) = moved.await {
                store.step_failed(&growing.volume, &error).await;
                store.leave(open).await;
                return Err(error);
            }
            let published = open.published(folder, acked);
            published.growing().rest();
            store.replicas.replace_open(&growing, Some(Replica::Open(published.growing().clone())))
        })
        .await
    }

    /// A replica that has all of what its client has sent, once its writer has stopped
    /// (HDFS: `FsDatasetImpl.recoverCheck`).
    async fn take_whole(&self, claim: &Claim, again: &Again) -> Result<Whole, OpenError> {
        match again.take(claim, &FINAL_OR_RBW).await? {
            Taken::Final(replica) => {
                again.check_length(replica.block.length)?;
                Ok(Whole::Final(replica))
            }
            Taken::Open(open) => {
                let Progress { on_disk, acked, .. } = open.growing().progress();
                again.check_length(on_disk)?;
                again.check_length(acked)?;
                Ok(Whole::Open(open))
            }
            Taken::Nothing | Taken::Other => Err(OpenError::NotFound(again.id())),
        }
    }

    async fn append_final(
        self: &Arc<Store>,
        claim: &Claim,
        replica: FinalReplica,
        again: &Again,
    ) -> Result<OpenReplica, OpenError> {
        again.check_length(replica.block.length)?;
        let more = again.expected.saturating_sub(replica.block.length);
        if replica.volume.remaining() < more {
            let kind = replica.volume.config.kind.name();
            return Err(OpenError::NoRoom { kind, needed: more });
        }
        let open = self.reopen(claim, replica, Some(again)).await?;
        let open = self.restamp(claim, open, again.stamp, again.expected, SyncNow::Yes).await?;
        self.note(&open, Change::Receiving);
        Ok(open)
    }

    /// Moves a final replica back to those that are being written, under its old stamp. Its last chunk is verified
    /// first, and what has other names is copied.
    pub(crate) async fn reopen(
        self: &Arc<Store>,
        claim: &Claim,
        replica: FinalReplica,
        again: Option<&Again>,
    ) -> Result<OpenReplica, OpenError> {
        let pool = self.pool().ok_or(OpenError::NoPool)?;
        let FinalReplica { block, volume } = &replica;
        let (from, to) = (volume.final_folder(pool, block.id), volume.rbw_folder(pool));
        self.settle(volume, *block, &from).await?;
        let (Files { checksum, .. }, last_sum) = self.open_whole(volume, *block, &from).await?;
        if let Some(again) = again {
            again.check_chunk(checksum.bytes_per_chunk())?;
        }
        let (disk, folder, moving) = (volume.disk.clone(), from.clone(), *block);
        let unlinked = volume.run_sync(move || {
            let names = [data_name(moving.id), meta_name(&moving)];
            names.iter().try_for_each(|name| files::unlink(&*disk, &folder.join(name)))
        });
        if let Err(error) = unlinked.await {
            self.examine(volume, &error).await;
            return Err(error.into());
        }
        let (disk, target) = (volume.disk.clone(), to.clone());
        let moved = volume.run_sync(move || files::move_both(&*disk, &from, &target, &moving));
        if let Err(error) = moved.await {
            self.step_failed(volume, &error).await;
            return Err(error.into());
        }
        let length = block.length;
        volume.sub_used(disk_bytes(checksum, length));
        let open = OpenReplica::new(Parts {
            block: Block { length: 0, ..*block },
            kind: OpenKind::Rbw,
            volume: volume.clone(),
            folder: to,
            checksum,
            // Opened by who writes: what was unlinked is another file now.
            files: None,
            progress: Progress { on_disk: length, last_sum, acked: length },
            synced: length,
            kept: length,
            reserved: 0,
            direct: Direct::never(),
        });
        claim.put(Replica::Open(open.growing().clone()))?;
        Ok(open)
    }

    /// Opens the files of a replica that waits, cut to `length`, which was verified; all of it is written again by the next
    /// sync.
    pub(crate) async fn resume(
        self: &Arc<Store>,
        claim: &Claim,
        replica: WaitingReplica,
        length: u64,
    ) -> Result<OpenReplica, OpenError> {
        let pool = self.pool().ok_or(OpenError::NoPool)?;
        let WaitingReplica { block, volume } = &replica;
        let (folder, block) = (volume.rbw_folder(pool), *block);
        let (disk, within) = (volume.disk.clone(), folder.clone());
        let opened = volume.pool.run(move || {
            let files = Files::open(&*disk, &within, &block)?;
            let last_sum = files.sum_of_last(length)?;
            files.renew(length)?;
            Ok((files, last_sum))
        });
        let (files, last_sum) = match opened.await {
            Ok(found) => found,
            Err(error) => return Err(self.judge(volume, &block, error).await),
        };
        volume.sub_used(disk_bytes(files.checksum, block.length));
        let open = open_in_place(Block { length, ..block }, volume, folder, files, last_sum);
        claim.put(Replica::Open(open.growing().clone()))?;
        self.cut(open, length).await
    }

    /// The files of a replica, whose lengths and last checksum fit; else it is bad.
    async fn open_whole(
        &self,
        volume: &VolumeRef,
        block: Block,
        folder: &std::path::Path,
    ) -> Result<(Files, Option<u32>), OpenError> {
        let (disk, folder) = (volume.disk.clone(), folder.to_owned());
        let opened = volume.pool.run(move || {
            let files = Files::open(&*disk, &folder, &block)?;
            files.check_lengths(&block)?;
            let last_sum = files.last_sum(&block)?;
            Ok::<_, io::Error>((files, last_sum))
        });
        match opened.await {
            Ok(found) => Ok(found),
            Err(error) => Err(self.judge(volume, &block, error).await),
        }
    }

    /// Whether an error says that the replica is bad, or the disk.
    pub(crate) async fn judge(&self, volume: &VolumeRef, block: &Block, error: io::Error) -> OpenError {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        let says_bad = matches!(error.kind(), InvalidData | NotFound | UnexpectedEof);
        if says_bad && !is_failed_sync(&error) {
            self.mark_bad(block, volume);
        } else {
            self.examine(volume, &error).await;
        }
        error.into()
    }

    /// Cuts an open replica to `length`.
    pub(crate) async fn cut(&self, open: OpenReplica, length: u64) -> Result<OpenReplica, OpenError> {
        let (pen, growing) = (open.pen(), open.growing().clone());
        self.settle(&growing.volume, growing.block, &growing.folder).await?;
        let block = Block { length: growing.progress().on_disk, ..growing.block };
        match growing.volume.run_sync(move || files::cut(&pen, length)).await {
            Ok(()) => Ok(open),
            Err(error) => Err(self.judge(&growing.volume, &block, error).await),
        }
    }

    /// Gives an open replica the stamp that it is to have, and makes it ready for the next writer, who may bring
    /// it to `expected` bytes. Durably, unless something follows that syncs the folder.
    pub(crate) async fn restamp(
        &self,
        claim: &Claim,
        open: OpenReplica,
        stamp: GenStamp,
        expected: u64,
        sync: SyncNow,
    ) -> Result<OpenReplica, OpenError> {
        let growing = open.growing().clone();
        if let Err(error) = self.settle(&growing.volume, growing.block, &growing.folder).await {
            self.leave(open).await;
            return Err(error);
        }
        let pen = open.pen();
        let renamed = growing.volume.run_sync(move || {
            let growing = pen.growing();
            files::restamp(&*growing.volume.disk, &growing.folder, &growing.block, stamp, sync)
        });
        if let Err(error) = renamed.await {
            self.step_failed(&growing.volume, &error).await;
            self.leave(open).await;
            return Err(error.into());
        }
        let room = expected.saturating_sub(growing.progress().on_disk);
        let open = open.restamped(stamp, room);
        claim.put(Replica::Open(open.growing().clone()))?;
        Ok(open)
    }

    /// Gives a final replica another stamp.
    pub(crate) async fn restamp_final(
        &self,
        claim: &Claim,
        replica: FinalReplica,
        stamp: GenStamp,
    ) -> Result<FinalReplica, OpenError> {
        let pool = self.pool().ok_or(OpenError::NoPool)?;
        let FinalReplica { block, volume } = replica;
        let folder = volume.final_folder(pool, block.id);
        self.settle(&volume, block, &folder).await?;
        let disk = volume.disk.clone();
        let renamed = volume.run_sync(move || files::restamp(&*disk, &folder, &block, stamp, SyncNow::Yes));
        if let Err(error) = renamed.await {
            self.step_failed(&volume, &error).await;
            return Err(error.into());
        }
        let replica = FinalReplica { block: Block { stamp, ..block }, volume };
        claim.put(Replica::Final(replica.clone()))?;
        Ok(replica)
    }

    fn note(&self, open: &OpenReplica, change: Change) {
        let growing = open.growing();
        let block = Block { length: growing.progress().on_disk, ..growing.block };
        self.reports.note(&growing.volume.storage, block, change);
    }
}

/// A replica that is open where it lies, with nobody who writes it; all of it counts as acknowledged.
pub(crate) fn open_in_place(
    block: Block,
    volume: &VolumeRef,
    folder: std::path::PathBuf,
    files: Files,
    last_sum: Option<u32>,
) -> OpenReplica {
    let length = block.length;
    OpenReplica::new(Parts {
        block: Block { length: 0, ..block },
        kind: OpenKind::Rbw,
        volume: volume.clone(),
        folder,
        checksum: files.checksum,
        files: Some(OpenFiles { data: files.data, meta: files.meta }),
        progress: Progress { on_disk: length, last_sum, acked: length },
        synced: length,
        kept: 0,
        reserved: 0,
        direct: Direct::never(),
    })
}

/// A replica with all its bytes, at rest.
enum Whole {
    Final(FinalReplica),
    Open(OpenReplica),
}
