//! The replicas of all volumes: the map from block to replica, and the steps from open to final.
//! (The walk goes on in the fleet's `auto_healer`.)
//!
//! Invariants: a block has one replica here; a final replica's data, checksums and names are synced;
//! replicas of a failed volume are not in the map.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use mobula_disk::{FileRef, Open, is_failed_sync, is_shortage};
use mobula_types::{Block, BlockId, DatanodeUuid, GenStamp, PoolId, ReplicaState, StoredReplica};
use mobula_wire::checksum::Checksum;
use mobula_wire::meta;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::claim::Replicas;
use crate::config::VolumeConfig;
use crate::journal::{Fact, Journals};
use crate::replica::{FinalReplica, Growing, OpenKind, OpenReplica, Progress, Replica, Stuck};
use crate::reports::{BadBlock, Change, Reports};
use crate::restart;
use crate::syncer::{Finalise, Syncers};
use crate::volume::{Namespace, Volume, VolumeRef, data_name, meta_name};

/// Why a replica cannot be written. To the sender all of these are a closed connection; the classes of HDFS are
/// `ReplicaAlreadyExistsException`, `ReplicaNotFoundException`, `DiskOutOfSpaceException` and `IOException`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("replica of {0} is here already")]
    Exists(Block),
    #[error("no replica of {0} is here")]
    NotFound(BlockId),
    #[error("replica of {block} is in state {state:?}")]
    State { block: BlockId, state: ReplicaState },
    #[error("replica of {block} has generation stamp {have}, not one from {from} to {to}")]
    Stamp { block: BlockId, have: GenStamp, from: GenStamp, to: GenStamp },
    #[error("replica of {block} has {have} bytes, not from {least} to {most}")]
    Length { block: BlockId, have: u64, least: u64, most: u64 },
    #[error("replica of {block} has checksums of {here} bytes, the sender of {sent}")]
    Chunk { block: BlockId, here: u32, sent: u32 },
    #[error("no volume of type {kind} has {needed} bytes free")]
    NoRoom { kind: &'static str, needed: u64 },
    #[error("no NameNode has said which pool is ours")]
    NoPool,
    #[error(transparent)]
    Stuck(#[from] Stuck),
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// A replica as it is opened to be read.
#[derive(Debug)]
pub(crate) struct Readable {
    pub block: Block,
    pub state: ReplicaState,
    pub volume: VolumeRef,
    pub data: FileRef,
    pub meta: Option<FileRef>,
    /// For an open replica: how far it had come, and what may change it.
    pub open: Option<(Progress, Arc<Growing>)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    pub volumes: Vec<VolumeRef>,
    /// Those that failed before they could be opened.
    absent: Vec<VolumeConfig>,
    pub replicas: Arc<Replicas>,
    namespace: OnceLock<Namespace>,
    opening: tokio::sync::Mutex<()>,
    pub next_volume: AtomicUsize,
    pub spare_bytes: u64,
    pub direct_min: Option<u64>,
    pub reports: Arc<Reports>,
    syncers: Syncers,
    pub journals: Journals,
    /// Told when a volume fails.
    pub volume_failed: Notify,
    /// Replicas found bad that are still here: a NameNode that starts anew must hear of them again,
    /// or it takes them for good ones and drops others as surplus.
    known_bad: Mutex<BTreeMap<BlockId, BadBlock>>,
    /// Open replicas that could not be read at the start: a recovery must not take them for none.
    pub unreadable: Mutex<BTreeSet<BlockId>>,
    /// What is to be deleted, by order, and is not yet.
    doomed: Mutex<BTreeSet<(BlockId, GenStamp)>>,
}

impl Store {
    pub(crate) fn new(
        volumes: Vec<VolumeRef>,
        (spare_bytes, direct_min): (u64, Option<u64>),
        reports: Arc<Reports>,
        (syncers, journals): (Syncers, Journals),
    ) -> Store {
        Store {
            volumes,
            absent: Vec::new(),
            replicas: Arc::default(),
            namespace: OnceLock::new(),
            opening: tokio::sync::Mutex::default(),
            next_volume: AtomicUsize::new(0),
            spare_bytes,
            direct_min,
            reports,
            syncers,
            journals,
            volume_failed: Notify::new(),
            known_bad: Mutex::default(),
            unreadable: Mutex::default(),
            doomed: Mutex::default(),
        }
    }

    /// The same, with volumes that count as failed from the beginning.
    pub(crate) fn without(self, absent: Vec<VolumeConfig>) -> Store {
        Store { absent, ..self }
    }

    /// The pool of the namespace that the volumes belong to, once a NameNode has said so.
    pub(crate) fn pool(&self) -> Option<&PoolId> {
        self.namespace.get().map(|namespace| &namespace.pool)
    }

    /// Formats fresh volumes and loads the replicas of the pool; once. Volumes that fail at it are
    /// taken out of use.
    ///
    /// # Errors
    /// A sentence, if the volumes belong to another cluster or namespace.
    pub(crate) async fn open_pool(
        &self,
        namespace: &Namespace,
        node: &DatanodeUuid,
        now_ms: u64,
    ) -> Result<(), String> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(ours) = self.namespace.get() {
            return if ours == namespace {
                Ok(())
            } else {
                Err(format!(
                    "serves cluster {} and pool {}, not cluster {} and pool {}",
                    namespace.cluster, namespace.pool, ours.cluster, ours.pool
                ))
            };
        }
        for volume in &self.volumes {
            if let Some((cluster, _)) = volume.owner()
                && cluster != namespace.cluster
            {
                return Err(format!(
                    "Incompatible clusterIDs in {}: namenode clusterID = {}; datanode clusterID = {cluster}",
                    volume.config.path.display(),
                    namespace.cluster
                ));
            }
        }
        let mut surplus = Vec::new();
        for volume in &self.volumes {
            let (of, space, uuid) = (volume.clone(), namespace.clone(), node.clone());
            let loaded = volume.pool.run(move || {
                of.open_pool(&space, &uuid)?;
                crate::journal::replay(&of, &space.pool)?;
                crate::load::load(&of, &space.pool, now_ms)
            });
            match loaded.await {
                Ok(loaded) => {
                    self.unreadable.lock().extend(loaded.unreadable);
                    surplus.extend(self.adopt(loaded.replicas));
                    self.journals.of(volume).open(&namespace.pool);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error.to_string()),
                Err(error) => self.fail_volume(volume, &error),
            }
        }
        self.namespace.set(namespace.clone()).map_err(|_| "opened twice".to_owned())?;
        for replica in surplus {
            let (block, volume) = (replica.block(), replica.volume());
            tracing::warn!(%block, volume = %volume.config.path.display(), "a second replica: removed");
            self.remove_files(&replica).await;
        }
        Ok(())
    }

    /// Takes replicas that were found on a volume. Of two of one block that with the higher stamp, then the longer one,
    /// then the final one stays; the others are to go, or they would be there again without that one
    /// (HDFS: `BlockPoolSlice.resolveDuplicateReplicas`).
    fn adopt(&self, found: Vec<Replica>) -> Vec<Replica> {
        let rank = |replica: &Replica| {
            let is_final = matches!(replica, Replica::Final(_));
            (replica.block().stamp, replica.block().length, is_final)
        };
        let others = |replica| self.replicas.adopt(replica, |new, old| rank(new) > rank(old));
        found.into_iter().filter_map(others).collect()
    }

    /// Syncs an open replica and gives it its final name. It has `length` bytes and whoever calls
    /// has verified them all. The NameNodes are told, if `notice` says what.
    ///
    /// # Errors
    /// What the disk says. If only room or descriptors were short, the replica is open as before, with nobody who
    /// writes it; else the volume is out of use.
    pub(crate) async fn finalise(
        self: &Arc<Store>,
        open: OpenReplica,
        length: u64,
        notice: Option<Change>,
    ) -> io::Result<FinalReplica> {
        let store = self.clone();
        whole(async move { store.finalise_now(open, length, notice).await }).await
    }

    async fn finalise_now(
        &self,
        open: OpenReplica,
        length: u64,
        notice: Option<Change>,
    ) -> io::Result<FinalReplica> {
        let growing = open.growing().clone();
        let block = Block { length, ..growing.block };
        let pool = self.pool().expect("an open replica's pool is known").clone();
        let folder = growing.volume.final_folder(&pool, block.id);
        let step = Finalise { pen: open.pen(), block, folder };
        if let Err(error) = self.finish(&growing, step).await {
            // A failed sync is final (STYLE 22).
            self.step_failed(&growing.volume, &error).await;
            self.leave(open).await;
            return Err(error);
        }
        let replica = FinalReplica { block, volume: growing.volume.clone() };
        self.replicas.replace_open(&growing, Some(Replica::Final(replica.clone())))?;
        growing.volume.add_used(disk_bytes(growing.checksum, length));
        if let Some(change) = notice {
            self.reports.note(&growing.volume.storage, block, change);
        }
        Ok(replica)
    }

    /// Makes a replica durable and gives it its final name: a small one in the journal, if that has room.
    async fn finish(&self, growing: &Arc<Growing>, step: Finalise) -> io::Result<()> {
        let journal = self.journals.of(&growing.volume);
        if journal.takes_final(growing, step.block.length) {
            let pen = step.pen.clone();
            match growing.volume.pool.run_short(move || pen.draft(Fact::Final)).await {
                Ok(draft) => {
                    if journal.finalise(draft, step.clone()).await? {
                        return Ok(());
                    }
                }
                Err(error) => {
                    tracing::warn!(block = %step.block, %error, "not for the journal: cannot be read")
                }
            }
        }
        self.syncers.finalise(growing.volume.index, step).await
    }

    /// Before a step that the journal knows nothing of: what it has of a replica in `folder` becomes durable without it, and
    /// is forgotten there. On an error, which has changed nothing, the step must not be made.
    pub(crate) async fn settle(
        &self,
        volume: &VolumeRef,
        block: Block,
        folder: &Path,
    ) -> Result<(), OpenError> {
        let journal = self.journals.of(volume);
        if !journal.has(block.id) {
            return Ok(());
        }
        let (of, folder, pool) = (volume.clone(), folder.to_owned(), self.pool().cloned());
        let sync = move || {
            let names = [data_name(block.id), meta_name(&block)].map(|name| folder.join(name));
            let files =
                [of.disk.open(&names[0], Open::ReadWrite)?, of.disk.open(&names[1], Open::ReadWrite)?];
            files.iter().try_for_each(|file| file.sync_data())?;
            of.disk.sync_folder(&folder)?;
            // Where it may have come from: it is not to be in both.
            pool.map_or(Ok(()), |pool| of.disk.sync_folder(&of.rbw_folder(&pool)))
        };
        let settled = async {
            volume.run_sync(sync).await?;
            journal.forget(block).await
        };
        match settled.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.judge(volume, &block, error).await),
        }
    }

    /// Before a replica of the block begins: what a volume's journal has of an older one, which was removed, is not to be
    /// done to this one. The removal is durable by then.
    pub(crate) async fn forget_removed(&self, volume: &VolumeRef, block: Block) -> io::Result<()> {
        let (journal, Some(pool)) = (self.journals.of(volume), self.pool()) else { return Ok(()) };
        if !journal.has(block.id) {
            return Ok(());
        }
        let folders = [volume.rbw_folder(pool), volume.final_folder(pool, block.id)];
        let of = volume.clone();
        let sync = move || {
            folders.iter().try_for_each(|folder| match of.disk.sync_folder(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
        };
        volume.run_sync(sync).await?;
        journal.forget(block).await
    }

    /// Gives up an open replica and removes its files.
    pub(crate) async fn abandon(self: &Arc<Store>, open: OpenReplica) {
        let store = self.clone();
        whole(async move { store.abandon_now(open).await }).await;
    }

    async fn abandon_now(&self, open: OpenReplica) {
        let replica = Replica::Open(open.growing().clone());
        self.remove_files(&replica).await;
        // If it is there no more, its volume failed.
        let _ = self.replicas.replace_open(open.growing(), None);
    }

    /// Leaves a replica open that its writer cannot go on with. A client's waits for the recovery of its block; a copy
    /// is of no use unfinished.
    pub(crate) async fn leave(&self, open: OpenReplica) {
        open.growing().rest();
        if open.growing().kind == OpenKind::Temporary && !open.growing().volume.is_failed() {
            self.abandon_now(open).await;
        }
    }

    /// The replica of a block.
    pub(crate) fn get(&self, id: BlockId) -> Option<Replica> {
        self.replicas.get(id)
    }

    /// Whether the map has that very version, at rest.
    pub(crate) fn holds(&self, block: &Block) -> bool {
        match self.get(block.id) {
            Some(replica @ (Replica::Final(_) | Replica::Waiting(_))) => replica.block() == *block,
            _ => false,
        }
    }

    /// How many replicas there are.
    pub(crate) fn count(&self) -> usize {
        self.replicas.count()
    }

    /// Opens a replica's files for reading.
    ///
    /// # Errors
    /// `NotFound` if there is none; what the disk says.
    pub(crate) async fn open_to_read(&self, id: BlockId) -> io::Result<Readable> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no replica of {id} is here"));
        let pool = self.pool().ok_or_else(missing)?;
        let mut again = true;
        loop {
            let replica = match self.get(id) {
                Some(replica) => replica,
                None if again => {
                    again = false;
                    self.replicas.settle(id).await;
                    continue;
                }
                None => return Err(missing()),
            };
            if let Replica::Open(growing) = replica.original() {
                match open_growing(growing).await {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && again => {
                        // It has got another name meanwhile.
                        again = false;
                        self.replicas.settle(id).await;
                        continue;
                    }
                    opened => return opened,
                }
            }
            let (block, state, volume) = (replica.block(), replica.state(), replica.volume().clone());
            let folder = match state {
                ReplicaState::Finalized => volume.final_folder(pool, id),
                _ => volume.rbw_folder(pool),
            };
            let disk = volume.disk.clone();
            let opened = volume.pool.run(move || {
                let data = disk.open(&folder.join(data_name(id)), Open::Read)?;
                let meta = match disk.open(&folder.join(meta_name(&block)), Open::Read) {
                    Ok(meta) => Some(meta),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
                Ok((data, meta))
            });
            let error = match opened.await {
                // Without checksums only if nobody was just giving it another stamp.
                Ok((data, Some(meta))) => {
                    return Ok(Readable { block, state, volume, data, meta: Some(meta), open: None });
                }
                Ok((data, None)) if !again => {
                    return Ok(Readable { block, state, volume, data, meta: None, open: None });
                }
                Ok((_, None)) => io::ErrorKind::NotFound.into(),
                Err(error) => error,
            };
            if error.kind() != io::ErrorKind::NotFound {
                self.examine(&volume, &error).await;
                return Err(error);
            }
            if again {
                // It was removed, finished or opened again meanwhile, or its files are gone.
                again = false;
                self.replicas.settle(id).await;
            } else {
                if self.holds(&block) {
                    self.mark_bad(&block, &volume);
                }
                return Err(error);
            }
        }
    }

    /// Notes an order to delete; what of it is to be done. A block that is not here now may well be here, under the same
    /// stamp, when its turn comes: a new copy, which is not meant. Neither is it where an earlier order is still
    /// waiting for its turn, which a NameNode repeats.
    pub(crate) fn doom(
        &self,
        order: impl Iterator<Item = (Block, DeleteReport)>,
    ) -> Vec<(Block, DeleteReport)> {
        let mut doomed = self.doomed.lock();
        let is_here = |block: &Block| self.get(block.id).is_some_and(|it| it.block().stamp == block.stamp);
        order.filter(|(block, _)| is_here(block) && doomed.insert((block.id, block.stamp))).collect()
    }

    /// Carries out an order that was noted.
    pub(crate) async fn delete_all(self: &Arc<Store>, doomed: Vec<(Block, DeleteReport)>) {
        for (block, report) in doomed {
            self.delete(block, report).await;
            self.doomed.lock().remove(&(block.id, block.stamp));
        }
    }

    /// Removes a replica whose stamp is `block`'s, and reports it if `report`. It stays in the map, and so in
    /// full reports, until its files are gone: an order that a stop overtakes is given again (HDFS-17218).
    pub(crate) async fn delete(self: &Arc<Store>, block: Block, report: DeleteReport) {
        let store = self.clone();
        whole(async move {
            let removed = async {
                let claim = store.replicas.claim(block.id).await?;
                let is_it = |replica: &Replica| replica.block().stamp == block.stamp;
                if !claim.replica().is_some_and(|replica| is_it(&replica)) {
                    return Ok(None);
                }
                let taken = claim.take().await?;
                let Some(replica) = claim.replica().filter(is_it) else { return Ok(None) };
                // What could not be removed is still there, and told of again with the next full report.
                if !store.remove_files(&replica).await {
                    return Ok(None);
                }
                claim.remove();
                drop(taken);
                Ok::<_, Stuck>(Some(replica.volume().storage.clone()))
            };
            match removed.await {
                Ok(Some(storage)) if report == DeleteReport::Yes => {
                    store.reports.note(&storage, block, Change::Deleted);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    tracing::info!(%block, "told to delete what is not here, is another version, or cannot be removed")
                }
                Err(error) => tracing::warn!(%block, %error, "cannot delete: kept"),
            }
        })
        .await;
    }

    /// Removes a replica's files; whether it is gone: it is without its data, and whole if that stays.
    pub(crate) async fn remove_files(&self, replica: &Replica) -> bool {
        let Some(pool) = self.pool() else { return false };
        let (block, volume) = (replica.block(), replica.volume().clone());
        let (folder, counted) = match replica.original() {
            Replica::Open(it) => (it.folder.clone(), None),
            Replica::Final(_) => (volume.final_folder(pool, block.id), Some(block.length)),
            Replica::Waiting(_) => (volume.rbw_folder(pool), Some(block.length)),
            Replica::Recovering(_) => unreachable!("the original of a recovery is none"),
        };
        let disk = volume.disk.clone();
        let removed = volume.pool.run(move || {
            let remove = |name: String| match disk.remove_file(&folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            // Data first: what a crash between the two leaves, or a failure, are checksums of nothing, which are ignored.
            remove(data_name(block.id)).map(|()| remove(meta_name(&block)))
        });
        let removed = removed.await;
        let gone = removed.is_ok();
        if let Err(error) = removed.flatten() {
            tracing::warn!(%block, %error, "cannot remove a replica's file");
            self.examine(&volume, &error).await;
        }
        if gone {
            self.journals.of(&volume).note_removed(block).await;
        }
        if let Some(length) = counted.filter(|_| gone) {
            volume.sub_used(disk_bytes(Checksum::default_crc32c(), length));
        }
        gone
    }

    /// The bytes of a replica are bad: all NameNodes are told. It stays until they order otherwise.
    pub(crate) fn mark_bad(&self, block: &Block, volume: &Volume) {
        tracing::warn!(%block, volume = %volume.config.path.display(), "a bad replica");
        let bad = BadBlock { block: *block, storage: Some(volume.storage.clone()), source: None };
        self.reports.bad(&bad);
        self.known_bad.lock().insert(block.id, bad);
    }

    /// The replicas that were found bad and are still here, for a NameNode that has just had a full
    /// report: a report does not say it.
    pub(crate) fn known_bad(&self) -> Vec<BadBlock> {
        let mut known = self.known_bad.lock();
        known.retain(|id, bad| match self.get(*id) {
            Some(Replica::Final(it)) => it.block.stamp == bad.block.stamp,
            _ => false,
        });
        known.values().cloned().collect()
    }

    /// After an error of a volume: is it the disk? Then it is taken out of use. After a failed sync it always is.
    pub(crate) async fn examine(&self, volume: &VolumeRef, error: &io::Error) {
        use io::ErrorKind::{AlreadyExists, InvalidData, NotFound, UnexpectedEof};
        if is_failed_sync(error) {
            self.fail_volume(volume, error);
            return;
        }
        if let Err(first) = volume.check() {
            self.fail_volume(volume, &first);
            return;
        }
        if volume.is_failed()
            || matches!(error.kind(), AlreadyExists | InvalidData | NotFound | UnexpectedEof)
        {
            return;
        }
        let of = volume.clone();
        if is_shortage(error) {
            let _ = volume.pool.run(move || of.measure()).await;
            return;
        }
        match volume.pool.run(move || of.probe()).await {
            // Then it could not be asked; it is with the next error.
            Err(short) if is_shortage(&short) => {}
            Err(error) => self.fail_volume(volume, &error),
            Ok(()) => {}
        }
    }

    /// After a step between a replica's states failed. If something was only short, the step has changed nothing;
    /// else nobody knows what is on the disk, and the volume is taken out of use.
    pub(crate) async fn step_failed(&self, volume: &VolumeRef, error: &io::Error) {
        if is_shortage(error) {
            tracing::warn!(volume = %volume.config.path.display(), %error, "a replica stays in its state");
            self.examine(volume, error).await;
        } else {
            self.fail_volume(volume, error);
        }
    }

    /// Takes a volume out of use: its replicas leave the map, the NameNodes hear of it.
    pub(crate) fn fail_volume(&self, volume: &VolumeRef, error: &io::Error) {
        if !volume.set_failed() {
            return;
        }
        tracing::error!(volume = %volume.config.path.display(), %error, "a volume failed: out of use");
        self.replicas.retain(|replica| {
            let stays = replica.volume().index != volume.index;
            if let (false, Replica::Open(growing)) = (stays, replica.original()) {
                growing.cancel();
            }
            stays
        });
        self.volume_failed.notify_waiters();
        self.volume_failed.notify_one();
        self.reports.error(
            crate::reports::Trouble::Disk,
            &format!("volume {} failed: {error}", volume.config.path.display()),
        );
        self.reports.want_full();
    }

    /// Stops all who write (HDFS: `evictWriters`); what they have written stays, for their recoveries.
    pub(crate) fn stop_writers(&self) {
        self.replicas.each(|replica| {
            if let Replica::Open(growing) = replica {
                growing.cancel();
            }
        });
    }

    /// Marks what clients write, so that it is found as such by a start soon after.
    pub(crate) async fn mark_for_restart(&self, now_ms: u64) {
        let mut open = Vec::new();
        self.replicas.each(|replica| match replica {
            Replica::Open(growing) if growing.kind == OpenKind::Rbw => open.push(growing.clone()),
            _ => {}
        });
        for growing in open {
            let of = growing.clone();
            let mark = move || restart::mark(&*of.volume.disk, &of.folder, of.block.id, now_ms);
            if let Err(error) = growing.volume.pool.run(mark).await {
                tracing::warn!(block = %growing.block, %error, "its writer cannot go on after the restart");
            }
        }
    }

    /// The volumes that are out of use.
    pub(crate) fn failed_volumes(&self) -> impl Iterator<Item = &VolumeConfig> {
        let failed = self.volumes.iter().filter(|volume| volume.is_failed());
        failed.map(|volume| &volume.config).chain(&self.absent)
    }

    /// All replicas of each volume in use, as a full report tells them, by block.
    pub(crate) fn full_report(&self) -> Vec<(VolumeRef, Vec<StoredReplica>)> {
        let mut reports: Vec<(VolumeRef, Vec<StoredReplica>)> = self
            .volumes
            .iter()
            .filter(|volume| !volume.is_failed())
            .map(|volume| (volume.clone(), Vec::new()))
            .collect();
        self.replicas.each(|replica| {
            let state = replica.state();
            if state == ReplicaState::Temporary {
                return;
            }
            let (block, index) = (replica.block(), replica.volume().index);
            if let Some((_, list)) = reports.iter_mut().find(|(volume, _)| volume.index == index) {
                list.push(StoredReplica { block, state });
            }
        });
        reports
    }
}

async fn open_growing(growing: &Arc<Growing>) -> io::Result<Readable> {
    let files = match growing.open_files() {
        Some(files) => files,
        None => {
            let of = growing.clone();
            growing.volume.pool.run(move || of.files()).await?
        }
    };
    Ok(Readable {
        block: growing.block,
        state: growing.kind.state(),
        volume: growing.volume.clone(),
        data: files.data,
        meta: Some(files.meta),
        open: Some((growing.progress(), growing.clone())),
    })
}

/// Carries a step to its end, even if whoever waits for it goes away in the middle: a replica must not be left
/// between two states.
pub(crate) async fn whole<T: Send + 'static>(step: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(step).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and whoever waits here with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Whether a deletion is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteReport {
    Yes,
    No,
}

/// Bytes that a replica takes on the disk.
pub(crate) fn disk_bytes(checksum: Checksum, length: u64) -> u64 {
    length + meta::file_length(checksum, length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use mobula_disk::CrashDisk;
    use mobula_net::Entropy;
    use tokio::time::sleep;

    use super::*;
    use crate::config::VolumeConfig;

    fn block(id: u64) -> Block {
        Block { id: BlockId(id), stamp: GenStamp(1001), length: 0 }
    }

    async fn store() -> Arc<Store> {
        let disk = CrashDisk::new(1).process();
        let volume = Volume::open(&disk, 0, &VolumeConfig::new("/data"), 1, "1".into(), "test").unwrap();
        let volumes: Vec<VolumeRef> = vec![Arc::new(volume)];
        let syncers = Syncers::start(&volumes).0;
        let journals = Journals::start(&volumes, 0, &Entropy::seeded(1)).0;
        let store = Arc::new(Store::new(volumes, (0, None), Arc::new(Reports::new(1)), (syncers, journals)));
        let pool = PoolId::from("BP-1".to_owned());
        let namespace = Namespace { id: 1, cluster: "c".into(), pool, created: 0 };
        store.open_pool(&namespace, &DatanodeUuid::from("u".to_owned()), 0).await.unwrap();
        store
    }

    fn put(store: &Store, id: u64) {
        let replica = FinalReplica { block: block(id), volume: store.volumes[0].clone() };
        assert!(store.replicas.adopt(Replica::Final(replica), |_, _| true).is_none());
    }

    /// A NameNode repeats an order that hangs at its first block; meanwhile the second is deleted, and copied anew.
    #[tokio::test(start_paused = true)]
    async fn an_order_to_delete_means_what_was_there() {
        let store = store().await;
        put(&store, 1);
        put(&store, 2);
        let hangs = store.replicas.claim(BlockId(1)).await.unwrap();
        let order = || [(block(1), DeleteReport::Yes), (block(2), DeleteReport::Yes)].into_iter();
        let give = || {
            let (store, doomed) = (store.clone(), store.doom(order()));
            tokio::spawn(async move { store.delete_all(doomed).await })
        };
        let first = give();
        sleep(Duration::from_secs(30)).await;
        let again = give();
        first.await.unwrap();
        assert!(store.get(BlockId(2)).is_none());
        // What is not here cannot be meant.
        let late = give();
        put(&store, 2);
        again.await.unwrap();
        late.await.unwrap();
        assert!(store.get(BlockId(2)).is_some(), "the new copy");
        drop(hangs);
        give().await.unwrap();
        assert_eq!(store.count(), 0);
    }
}
