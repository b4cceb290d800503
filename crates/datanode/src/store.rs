//! The replicas of all volumes: the map from block to replica, and the steps from open to final.
//! (The walk goes on in the fleet's `auto_healer`.)
//!
//! Invariants: a block has one replica here; a final replica's data, checksums and names are synced;
//! replicas of a failed volume are not in the map.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use mobula_disk::{FileRef, Open};
use mobula_types::{
    Block, BlockId, DatanodeUuid, GenStamp, PoolId, ReplicaState, StorageType, StoredReplica,
};
use mobula_wire::checksum::Checksum;
use mobula_wire::meta;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::direct::Direct;
use crate::replica::{FinalReplica, Growing, OpenKind, OpenReplica, Progress, WaitingReplica};
use crate::reports::{BadBlock, Change, Reports};
use crate::syncer::{Finalise, Syncers};
use crate::volume::{Namespace, Volume, VolumeRef, data_name, meta_name};

/// What the map holds for a block.
#[derive(Clone, Debug)]
pub(crate) enum Replica {
    /// Its files are being made, or being removed.
    Busy,
    Open(Arc<Growing>),
    Final(FinalReplica),
    Waiting(WaitingReplica),
}

/// Why a replica cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("replica of {0} is here already")]
    Exists(Block),
    #[error("no volume of type {kind} has {needed} bytes free")]
    NoRoom { kind: &'static str, needed: u64 },
    #[error("no NameNode has said which pool is ours")]
    NoPool,
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
    /// For an open replica: how far it has come.
    pub progress: Option<Progress>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    pub volumes: Vec<VolumeRef>,
    map: Mutex<BTreeMap<BlockId, Replica>>,
    namespace: OnceLock<Namespace>,
    opening: tokio::sync::Mutex<()>,
    next_volume: AtomicUsize,
    spare_bytes: u64,
    direct_min: Option<u64>,
    pub reports: Arc<Reports>,
    syncers: Syncers,
    /// Told when a volume fails.
    pub volume_failed: Notify,
    /// Replicas found bad that are still here: a NameNode that starts anew must hear of them again,
    /// or it takes them for good ones and drops others as surplus.
    known_bad: Mutex<BTreeMap<BlockId, BadBlock>>,
}

impl Store {
    pub(crate) fn new(
        volumes: Vec<VolumeRef>,
        (spare_bytes, direct_min): (u64, Option<u64>),
        reports: Arc<Reports>,
        syncers: Syncers,
    ) -> Store {
        Store {
            volumes,
            map: Mutex::default(),
            namespace: OnceLock::new(),
            opening: tokio::sync::Mutex::default(),
            next_volume: AtomicUsize::new(0),
            spare_bytes,
            direct_min,
            reports,
            syncers,
            volume_failed: Notify::new(),
            known_bad: Mutex::default(),
        }
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
    pub(crate) async fn open_pool(&self, namespace: &Namespace, node: &DatanodeUuid) -> Result<(), String> {
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
        for volume in &self.volumes {
            let (of, space, uuid) = (volume.clone(), namespace.clone(), node.clone());
            let loaded = volume.pool.run(move || {
                of.open_pool(&space, &uuid)?;
                crate::load::load(&of, &space.pool)
            });
            match loaded.await {
                Ok(found) => self.adopt(found),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error.to_string()),
                Err(error) => self.fail_volume(volume, &error),
            }
        }
        self.namespace.set(namespace.clone()).map_err(|_| "opened twice".to_owned())
    }

    /// Takes replicas that were found on a volume. Of two of one block the final one, then that with
    /// the higher stamp, then the longer one stays.
    fn adopt(&self, found: Vec<Replica>) {
        let rank = |replica: &Replica| match replica {
            Replica::Busy | Replica::Open(_) => (0, 0, GenStamp(0), 0),
            Replica::Final(it) => (it.block.stamp.0, 1, it.block.stamp, it.block.length),
            Replica::Waiting(it) => (it.block.stamp.0, 0, it.block.stamp, it.block.length),
        };
        let mut map = self.map.lock();
        for replica in found {
            let (block, volume) = match &replica {
                Replica::Final(it) => (it.block, &it.volume),
                Replica::Waiting(it) => (it.block, &it.volume),
                Replica::Busy | Replica::Open(_) => continue,
            };
            let better = map.get(&block.id).is_none_or(|other| rank(other) < rank(&replica));
            if better {
                map.insert(block.id, replica);
            } else {
                tracing::warn!(%block, volume = %volume.config.path.display(), "a second replica: not used");
            }
        }
    }

    /// Makes the files of a new replica on a volume of that type with room for `expected` bytes.
    ///
    /// # Errors
    /// [`CreateError`].
    pub(crate) async fn create(
        &self,
        block: Block,
        kind: OpenKind,
        storage_type: StorageType,
        expected: u64,
        checksum: Checksum,
    ) -> Result<OpenReplica, CreateError> {
        let pool = self.pool().ok_or(CreateError::NoPool)?.clone();
        {
            let mut map = self.map.lock();
            if map.contains_key(&block.id) {
                return Err(CreateError::Exists(block));
            }
            map.insert(block.id, Replica::Busy);
        }
        let mut claim = Claim { store: self, id: block.id, kept: false };
        let mut tried = Vec::new();
        loop {
            let volume = self.choose(storage_type, expected, &tried)?;
            let of = volume.clone();
            let pool = pool.clone();
            let direct = Direct::new(self.direct_min, expected);
            let make = move || make_files(&of, &pool, block, kind, (expected, direct), checksum);
            let made = volume.pool.run(make).await;
            match made {
                Ok(growing) => {
                    let growing = Arc::new(growing);
                    claim.kept = true;
                    self.map.lock().insert(block.id, Replica::Open(growing.clone()));
                    if kind == OpenKind::Rbw {
                        self.reports.note(&volume.storage, block, Change::Receiving);
                    }
                    return Ok(OpenReplica(growing));
                }
                Err(error) => {
                    tracing::warn!(%block, volume = %volume.config.path.display(), %error, "cannot begin a replica");
                    self.examine(&volume, &error).await;
                    tried.push(volume.index);
                    if tried.len() == self.volumes.len() {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// The next volume in turn that is in use, of that type and has room; those with more room come
    /// up more often (HDFS: `AvailableSpaceVolumeChoosingPolicy` in spirit, round robin when even).
    fn choose(&self, kind: StorageType, bytes: u64, tried: &[usize]) -> Result<VolumeRef, CreateError> {
        let needed = bytes.saturating_add(self.spare_bytes);
        let usable: Vec<&VolumeRef> = self
            .volumes
            .iter()
            .filter(|volume| {
                !volume.is_failed() && volume.config.kind == kind && !tried.contains(&volume.index)
            })
            .filter(|volume| volume.remaining() >= needed)
            .collect();
        let most = usable.iter().map(|volume| volume.remaining()).max();
        let Some(most) = most else {
            return Err(CreateError::NoRoom { kind: kind.name(), needed });
        };
        // A volume with less than half the room of the roomiest is passed over in this turn.
        let roomy: Vec<&VolumeRef> =
            usable.into_iter().filter(|volume| volume.remaining() >= most / 2).collect();
        let turn = self.next_volume.fetch_add(1, Ordering::Relaxed);
        Ok(roomy[turn % roomy.len()].clone())
    }

    /// Syncs an open replica and gives it its final name. It has `length` bytes and whoever calls
    /// has verified them all.
    ///
    /// # Errors
    /// What the disk says; if a sync failed, the volume is out of use.
    pub(crate) async fn finalise(&self, open: OpenReplica, length: u64) -> io::Result<FinalReplica> {
        let OpenReplica(growing) = open;
        let block = Block { length, ..growing.block };
        let pool = self.pool().expect("an open replica's pool is known").clone();
        let folder = growing.volume.final_folder(&pool, block.id);
        let step = Finalise { growing: growing.clone(), block, folder };
        if let Err(error) = self.syncers.finalise(growing.volume.index, step).await {
            // A failed sync is final (STYLE 22).
            self.fail_volume(&growing.volume, &error);
            return Err(error);
        }
        let replica = FinalReplica { block, volume: growing.volume.clone() };
        {
            let mut map = self.map.lock();
            if growing.volume.is_failed() || growing.is_cancelled() {
                drop(map);
                if growing.is_cancelled() {
                    self.remove_files(Replica::Final(replica)).await;
                }
                return Err(io::Error::other(format!("{block} was removed while it was finished")));
            }
            map.insert(block.id, Replica::Final(replica.clone()));
        }
        growing.volume.add_used(disk_bytes(growing.checksum, length));
        self.reports.note(&growing.volume.storage, block, Change::Received);
        Ok(replica)
    }

    /// Gives up an open replica and removes its files.
    pub(crate) async fn abandon(&self, open: OpenReplica) {
        let id = open.0.block.id;
        {
            let mut map = self.map.lock();
            match map.get(&id) {
                Some(Replica::Open(growing)) if Arc::ptr_eq(growing, &open.0) => {
                    map.insert(id, Replica::Busy);
                }
                _ => return,
            }
        }
        let _claim = Claim { store: self, id, kept: false };
        self.remove_files(Replica::Open(open.0.clone())).await;
    }

    /// The replica of a block.
    pub(crate) fn get(&self, id: BlockId) -> Option<Replica> {
        self.map.lock().get(&id).cloned()
    }

    /// Whether the map still has that very version, at rest.
    fn holds(&self, block: &Block) -> bool {
        match self.get(block.id) {
            Some(Replica::Final(it)) => it.block == *block,
            Some(Replica::Waiting(it)) => it.block == *block,
            _ => false,
        }
    }

    /// How many replicas there are.
    pub(crate) fn count(&self) -> usize {
        self.map.lock().len()
    }

    /// Opens a replica's files for reading.
    ///
    /// # Errors
    /// `NotFound` if there is none; what the disk says.
    pub(crate) async fn open_to_read(&self, id: BlockId) -> io::Result<Readable> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no replica of {id} is here"));
        let pool = self.pool().ok_or_else(missing)?;
        let (block, state, volume, folder) = match self.get(id).ok_or_else(missing)? {
            Replica::Busy => return Err(missing()),
            Replica::Open(growing) => {
                return Ok(Readable {
                    block: growing.block,
                    state: growing.kind.state(),
                    volume: growing.volume.clone(),
                    data: growing.data.clone(),
                    meta: Some(growing.meta.clone()),
                    progress: Some(growing.progress()),
                });
            }
            Replica::Final(it) => {
                let folder = it.volume.final_folder(pool, id);
                (it.block, ReplicaState::Finalized, it.volume, folder)
            }
            Replica::Waiting(it) => {
                let folder = it.volume.rbw_folder(pool);
                (it.block, ReplicaState::Rwr, it.volume, folder)
            }
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
        match opened.await {
            Ok((data, meta)) => Ok(Readable { block, state, volume, data, meta, progress: None }),
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    // Unless it was removed, or finished, while it was opened.
                    if self.holds(&block) {
                        self.mark_bad(&block, &volume);
                    }
                } else {
                    self.examine(&volume, &error).await;
                }
                Err(error)
            }
        }
    }

    /// Removes a replica whose stamp is `block`'s, and reports it if `report`.
    pub(crate) async fn delete(&self, block: Block, report: DeleteReport) {
        let replica = {
            let mut map = self.map.lock();
            let Some(replica) = map.get(&block.id) else { return };
            let stamp = match replica {
                Replica::Busy => return,
                Replica::Open(it) => it.block.stamp,
                Replica::Final(it) => it.block.stamp,
                Replica::Waiting(it) => it.block.stamp,
            };
            if stamp != block.stamp {
                tracing::warn!(%block, have = %stamp, "told to delete another version: kept");
                return;
            }
            map.insert(block.id, Replica::Busy).expect("it was there under this lock")
        };
        let claim = Claim { store: self, id: block.id, kept: false };
        if let Replica::Open(growing) = &replica {
            growing.cancel();
        }
        let storage = volume_of(&replica).map(|volume| volume.storage.clone());
        self.remove_files(replica).await;
        drop(claim);
        if let (Some(storage), DeleteReport::Yes) = (storage, report) {
            self.reports.note(&storage, block, Change::Deleted);
        }
    }

    async fn remove_files(&self, replica: Replica) {
        let Some(pool) = self.pool() else { return };
        let (block, volume, folder, final_length) = match &replica {
            Replica::Busy => return,
            Replica::Open(it) => (it.block, it.volume.clone(), it.folder.clone(), None),
            Replica::Final(it) => {
                let folder = it.volume.final_folder(pool, it.block.id);
                (it.block, it.volume.clone(), folder, Some(it.block.length))
            }
            Replica::Waiting(it) => {
                (it.block, it.volume.clone(), it.volume.rbw_folder(pool), Some(it.block.length))
            }
        };
        let disk = volume.disk.clone();
        let removed = volume.pool.run(move || {
            // Data first: a crash between the two leaves checksums of nothing, which are ignored.
            let data = disk.remove_file(&folder.join(data_name(block.id)));
            let meta = disk.remove_file(&folder.join(meta_name(&block)));
            [data, meta]
        });
        for result in removed.await {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%block, %error, "cannot remove a replica's file");
                    self.examine(&volume, &error).await;
                }
                _ => {}
            }
        }
        if let Some(length) = final_length {
            volume.sub_used(disk_bytes(Checksum::default_crc32c(), length));
        }
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
        let map = self.map.lock();
        let mut known = self.known_bad.lock();
        known.retain(|id, bad| match map.get(id) {
            Some(Replica::Final(it)) => it.block.stamp == bad.block.stamp,
            _ => false,
        });
        known.values().cloned().collect()
    }

    /// After an error of a volume: is it the disk? Then it is taken out of use.
    pub(crate) async fn examine(&self, volume: &VolumeRef, error: &io::Error) {
        use io::ErrorKind::{AlreadyExists, InvalidData, NotFound, StorageFull, UnexpectedEof};
        if volume.is_failed()
            || matches!(error.kind(), AlreadyExists | InvalidData | NotFound | UnexpectedEof)
        {
            return;
        }
        if error.kind() == StorageFull {
            let of = volume.clone();
            let _ = volume.pool.run(move || of.measure()).await;
            return;
        }
        let of = volume.clone();
        if let Err(error) = volume.pool.run(move || of.probe()).await {
            self.fail_volume(volume, &error);
        }
    }

    /// Takes a volume out of use: its replicas leave the map, the NameNodes hear of it.
    pub(crate) fn fail_volume(&self, volume: &VolumeRef, error: &io::Error) {
        if !volume.set_failed() {
            return;
        }
        tracing::error!(volume = %volume.config.path.display(), %error, "a volume failed: out of use");
        self.map.lock().retain(|_, replica| match volume_of(replica) {
            Some(of) if of.index == volume.index => {
                if let Replica::Open(growing) = replica {
                    growing.cancel();
                }
                false
            }
            _ => true,
        });
        self.volume_failed.notify_waiters();
        self.volume_failed.notify_one();
        self.reports.error(
            crate::reports::Trouble::Disk,
            &format!("volume {} failed: {error}", volume.config.path.display()),
        );
        self.reports.want_full();
    }

    /// How many volumes are out of use.
    pub(crate) fn failed_volumes(&self) -> usize {
        self.volumes.iter().filter(|volume| volume.is_failed()).count()
    }

    /// All replicas of each volume in use, as a full report tells them, by block.
    pub(crate) fn full_report(&self) -> Vec<(VolumeRef, Vec<StoredReplica>)> {
        let mut reports: Vec<(VolumeRef, Vec<StoredReplica>)> = self
            .volumes
            .iter()
            .filter(|volume| !volume.is_failed())
            .map(|volume| (volume.clone(), Vec::new()))
            .collect();
        let map = self.map.lock();
        for replica in map.values() {
            let (stored, index) = match replica {
                Replica::Busy => continue,
                Replica::Open(it) if it.kind == OpenKind::Temporary => continue,
                Replica::Open(it) => {
                    let block = Block { length: it.progress().on_disk, ..it.block };
                    (StoredReplica { block, state: ReplicaState::Rbw }, it.volume.index)
                }
                Replica::Final(it) => {
                    (StoredReplica { block: it.block, state: ReplicaState::Finalized }, it.volume.index)
                }
                Replica::Waiting(it) => {
                    (StoredReplica { block: it.block, state: ReplicaState::Rwr }, it.volume.index)
                }
            };
            if let Some((_, list)) = reports.iter_mut().find(|(volume, _)| volume.index == index) {
                list.push(stored);
            }
        }
        reports
    }
}

/// Whether a deletion is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteReport {
    Yes,
    No,
}

fn volume_of(replica: &Replica) -> Option<&VolumeRef> {
    match replica {
        Replica::Busy => None,
        Replica::Open(it) => Some(&it.volume),
        Replica::Final(it) => Some(&it.volume),
        Replica::Waiting(it) => Some(&it.volume),
    }
}

/// Bytes that a replica takes on the disk.
pub(crate) fn disk_bytes(checksum: Checksum, length: u64) -> u64 {
    length + meta::file_length(checksum, length)
}

/// A place in the map that is given back unless a replica came of it.
struct Claim<'a> {
    store: &'a Store,
    id: BlockId,
    kept: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let mut map = self.store.map.lock();
            if matches!(map.get(&self.id), Some(Replica::Busy)) {
                map.remove(&self.id);
            }
        }
    }
}

fn make_files(
    volume: &VolumeRef,
    pool: &PoolId,
    block: Block,
    kind: OpenKind,
    (expected, direct): (u64, Direct),
    checksum: Checksum,
) -> io::Result<Growing> {
    let folder: PathBuf = match kind {
        OpenKind::Rbw => volume.rbw_folder(pool),
        OpenKind::Temporary => volume.tmp_folder(pool),
    };
    let disk = &volume.disk;
    let (data_path, meta_path) = (folder.join(data_name(block.id)), folder.join(meta_name(&block)));
    let data = disk.open(&data_path, Open::CreateNew)?;
    let made = disk.open(&meta_path, Open::CreateNew).and_then(|file| {
        file.write_all_at(&meta::encode(checksum), 0)?;
        Ok(file)
    });
    match made {
        Ok(file) => {
            Ok(Growing::new(block, kind, volume.clone(), folder, checksum, data, file, expected, direct))
        }
        Err(error) => {
            // The first error is the one that counts.
            let _ = disk.remove_file(&data_path);
            let _ = disk.remove_file(&meta_path);
            Err(error)
        }
    }
}
