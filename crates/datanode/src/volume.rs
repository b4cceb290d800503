//! One disk of a DataNode: its folders, its lock, its room, its threads. HDFS's layout exactly:
//!
//! ```text
//! <volume>/in_use.lock
//! <volume>/current/VERSION
//! <volume>/current/BP-*/tmp/                                  copies that are coming in
//! <volume>/current/BP-*/current/VERSION
//! <volume>/current/BP-*/current/rbw/                          blocks that are being written
//! <volume>/current/BP-*/current/finalized/subdir<a>/subdir<b>/blk_<id>, blk_<id>_<stamp>.meta
//! ```
//!
//! Invariant: a volume that failed stays failed until the node is started again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mobula_disk::{
    Disk, DiskRef, Entry, FolderRef, Kind, Lock, Open, Pool, copy_error, is_failed_sync, is_shortage,
};
use mobula_types::{Block, BlockId, DatanodeUuid, PoolId, StorageReport, StorageState, StorageUuid};
use parking_lot::Mutex;

use crate::config::VolumeConfig;
use crate::error::DatanodeError;
use crate::version::{PoolVersion, VolumeVersion};

/// Threads that sync files. Many, because the file system's journal takes all who wait in one commit.
const SYNC_THREADS: usize = 16;
/// Names that an otherwise empty folder may hold and still count as empty.
const IGNORED_NAMES: [&str; 2] = ["in_use.lock", "lost+found"];

/// What the NameNode says of its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub id: u32,
    pub cluster: String,
    pub pool: PoolId,
    pub created: u64,
}

/// A volume in use.
#[derive(Debug)]
pub(crate) struct Volume {
    /// Its place among those that could be opened.
    pub index: usize,
    pub config: VolumeConfig,
    pub disk: DiskRef,
    /// Reads and writes.
    pub pool: Pool,
    /// Syncs, which may take long.
    sync_pool: Pool,
    /// How the first sync failed that did.
    broken: Mutex<Option<io::Error>>,
    pub storage: StorageUuid,
    version: Mutex<Option<VolumeVersion>>,
    failed: AtomicBool,
    used: AtomicU64,
    reserved: AtomicU64,
    capacity: AtomicU64,
    available: AtomicU64,
    /// Folders below `finalized` that are known to be there, and durably named.
    folders: Mutex<BTreeSet<PathBuf>>,
    /// Its folder, open since before the first write: syncs of all files tell of what failed since then.
    pub around: FolderRef,
    _lock: Lock,
}

impl Volume {
    /// Locks the folder and reads what is in it; `storage` names it if it is fresh.
    pub(crate) fn open(
        disk: &DiskRef,
        index: usize,
        config: &VolumeConfig,
        threads: usize,
        fresh_id: String,
        owner: &str,
    ) -> Result<Volume, DatanodeError> {
        let folder = config.path.clone();
        let failed = |source| DatanodeError::Disk { folder: folder.clone(), source };
        mobula_disk::create_folder_durably(&**disk, &folder).map_err(failed)?;
        let lock = disk.lock(&folder.join("in_use.lock"), owner).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DatanodeError::Locked { folder: folder.clone(), source },
            _ => failed(source),
        })?;
        let version = VolumeVersion::read(&**disk, &folder.join("current/VERSION")).map_err(failed)?;
        if version.is_none() {
            refuse_foreign(&**disk, &folder)?;
            // It may have been made by a first start that was killed before it was synced.
            mobula_disk::sync_names_above(&**disk, &folder).map_err(failed)?;
        }
        let storage = match &version {
            Some(version) if version.storage.starts_with("DS-") => version.storage.clone(),
            _ => format!("DS-{fresh_id}"),
        };
        let volume = Volume {
            index,
            config: config.clone(),
            disk: disk.clone(),
            pool: disk.pool(&format!("volume{index}"), threads),
            sync_pool: disk.pool(&format!("sync{index}"), SYNC_THREADS),
            broken: Mutex::default(),
            storage: StorageUuid::from(storage),
            version: Mutex::new(version),
            failed: AtomicBool::new(false),
            used: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
            available: AtomicU64::new(0),
            folders: Mutex::default(),
            around: disk.open_folder(&folder).map_err(failed)?,
            _lock: lock,
        };
        volume.measure().map_err(failed)?;
        Ok(volume)
    }

    /// The cluster that it belongs to, and the DataNode; none if it is fresh.
    pub(crate) fn owner(&self) -> Option<(String, String)> {
        self.version.lock().as_ref().map(|version| (version.cluster.clone(), version.datanode.clone()))
    }

    /// Makes the folders of a pool that are missing, and checks those that are there.
    pub(crate) fn open_pool(&self, namespace: &Namespace, datanode: &DatanodeUuid) -> io::Result<()> {
        let disk = &*self.disk;
        let mut version = self.version.lock();
        let wanted = VolumeVersion {
            storage: self.storage.as_str().into(),
            cluster: namespace.cluster.clone(),
            datanode: datanode.as_str().into(),
        };
        let current = self.config.path.join("current");
        mobula_disk::create_folder_durably(disk, &current)?;
        let pool = self.pool_folder(&namespace.pool);
        for folder in ["tmp", "current/finalized", "current/rbw"] {
            mobula_disk::create_folder_durably(disk, &pool.join(folder))?;
        }
        let path = pool.join("current/VERSION");
        let pool_wanted = PoolVersion {
            namespace: namespace.id,
            pool: namespace.pool.as_str().into(),
            created: namespace.created,
        };
        match PoolVersion::read(disk, &path)? {
            None => pool_wanted.write(disk, &path)?,
            Some(found) if found == pool_wanted => {}
            Some(found) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{}: namespaceID {} and cTime {}, but the NameNode has namespaceID {} and cTime {}",
                        path.display(),
                        found.namespace,
                        found.created,
                        pool_wanted.namespace,
                        pool_wanted.created
                    ),
                ));
            }
        }
        // Folders may have been made just before a kill: sync their names once per start.
        for folder in [&*self.config.path, &*current, &*pool, &*pool.join("current")] {
            disk.sync_folder(folder)?;
        }
        // Last: a volume with this file counts as formatted.
        if version.as_ref() != Some(&wanted) {
            wanted.write(disk, &current.join("VERSION"))?;
            *version = Some(wanted);
        }
        Ok(())
    }

    /// `<volume>/current/BP-*`
    pub(crate) fn pool_folder(&self, pool: &PoolId) -> PathBuf {
        self.config.path.join("current").join(pool.as_str())
    }

    pub(crate) fn rbw_folder(&self, pool: &PoolId) -> PathBuf {
        self.pool_folder(pool).join("current/rbw")
    }

    pub(crate) fn tmp_folder(&self, pool: &PoolId) -> PathBuf {
        self.pool_folder(pool).join("tmp")
    }

    /// Where a final replica of the block lies (HDFS: `DatanodeUtil.idToBlockDir`).
    pub(crate) fn final_folder(&self, pool: &PoolId, id: BlockId) -> PathBuf {
        let (a, b) = (id.0 >> 16 & 31, id.0 >> 8 & 31);
        self.pool_folder(pool).join(format!("current/finalized/subdir{a}/subdir{b}"))
    }

    /// Makes a folder for final replicas, durably named, unless it is known to be there.
    pub(crate) fn ensure_folder(&self, folder: &Path) -> io::Result<()> {
        if self.folders.lock().contains(folder) {
            return Ok(());
        }
        mobula_disk::create_folder_durably(&*self.disk, folder)?;
        // It may have been made just before a crash: sync the names above once per start.
        for above in folder.ancestors().skip(1).take(2) {
            self.disk.sync_folder(above)?;
        }
        self.folders.lock().insert(folder.to_owned());
        Ok(())
    }

    /// Asks the disk for its room.
    pub(crate) fn measure(&self) -> io::Result<()> {
        let space = self.disk.space(&self.config.path)?;
        self.capacity.store(space.capacity, Ordering::Relaxed);
        self.available.store(space.available, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes for replicas in all.
    fn capacity(&self) -> u64 {
        let all = self.capacity.load(Ordering::Relaxed);
        all.min(self.config.capacity_limit.unwrap_or(u64::MAX)).saturating_sub(self.config.reserved)
    }

    /// Bytes free for replicas, less what open replicas may still take.
    pub(crate) fn remaining(&self) -> u64 {
        let used = self.used.load(Ordering::Relaxed);
        let available = self.available.load(Ordering::Relaxed).saturating_sub(self.config.reserved);
        let ours = self.capacity().saturating_sub(used);
        available.min(ours).saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    /// Sets room aside for an open replica.
    pub(crate) fn reserve(&self, bytes: u64) {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back room that was set aside.
    pub(crate) fn unreserve(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of replicas that came.
    pub(crate) fn add_used(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of replicas that went.
    pub(crate) fn sub_used(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// A sync failed: from now on no other one is believed, until the volume is out of use.
    pub(crate) fn broke(&self, error: &io::Error) {
        self.broken.lock().get_or_insert_with(|| copy_error(error));
    }

    /// Fails if something was lost already that a later sync may not notice.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.broken.lock().as_ref().map_or(Ok(()), |error| Err(copy_error(error)))
    }

    /// Makes a call that syncs something. Its success is told only if no sync on this disk has failed so far.
    pub(crate) async fn run_sync<T: Send + 'static>(
        self: &Arc<Volume>,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let of = self.clone();
        let checked = move || match call() {
            Ok(done) => of.check().map(|()| done),
            Err(error) => {
                if is_failed_sync(&error) {
                    of.broke(&error);
                }
                Err(error)
            }
        };
        self.sync_pool.run(checked).await
    }

    /// Whether it is out of use.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Takes it out of use; whether it was in use.
    pub(crate) fn set_failed(&self) -> bool {
        !self.failed.swap(true, Ordering::AcqRel)
    }

    /// Whether the disk still takes and keeps a few bytes, after an error (HDFS: `DatasetVolumeChecker`).
    pub(crate) fn probe(&self) -> io::Result<()> {
        let path = self.config.path.join("current/.probe");
        let file = self.disk.open(&path, Open::Create)?;
        match file.write_all_at(b"probe", 0).and_then(|()| file.sync_data()) {
            // A full disk is a healthy one.
            Err(error) if !is_shortage(&error) => return Err(error),
            _ => {}
        }
        drop(file);
        self.disk.remove_file(&path)
    }

    /// Its figures for a heartbeat.
    pub(crate) fn report(&self) -> StorageReport {
        let failed = self.is_failed();
        let live = |bytes: u64| if failed { 0 } else { bytes };
        let (capacity, used) = (self.capacity(), self.used.load(Ordering::Relaxed));
        let free = self.available.load(Ordering::Relaxed).saturating_sub(self.config.reserved);
        StorageReport {
            storage: self.storage.clone(),
            kind: self.config.kind,
            state: StorageState::Normal,
            failed,
            capacity: live(capacity),
            dfs_used: live(used),
            remaining: live(self.remaining()),
            pool_used: live(used),
            non_dfs_used: live(capacity.saturating_sub(used).saturating_sub(free)),
        }
    }
}

/// The name of a block's file.
pub(crate) fn data_name(id: BlockId) -> String {
    id.to_string()
}

/// The name of the file with its checksums.
pub(crate) fn meta_name(block: &Block) -> String {
    format!("{}_{}.meta", block.id, block.stamp)
}

/// What a file name in a volume stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockFile {
    Data(BlockId),
    Meta(BlockId, u64),
}

impl BlockFile {
    pub(crate) fn parse(entry: &Entry) -> Option<BlockFile> {
        let name = entry.name.to_str().filter(|_| entry.kind == Kind::File)?.strip_prefix("blk_")?;
        let id = |text: &str| text.parse::<i64>().ok().map(|id| BlockId(id as u64));
        match name.strip_suffix(".meta") {
            None => id(name).map(BlockFile::Data),
            Some(name) => {
                let (number, stamp) = name.rsplit_once('_')?;
                Some(BlockFile::Meta(id(number)?, stamp.parse().ok()?))
            }
        }
    }
}

/// Refuses a folder that holds something and is no volume.
fn refuse_foreign(disk: &dyn Disk, folder: &Path) -> Result<(), DatanodeError> {
    let failed = |source| DatanodeError::Disk { folder: folder.to_owned(), source };
    let mut names: Vec<String> =
        disk.list(folder).map_err(failed)?.iter().map(|e| e.name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !IGNORED_NAMES.contains(&name.as_str()));
    // A format that was cut short leaves `current` without its VERSION, which is written last.
    if names.iter().all(|name| name == "current") {
        return Ok(());
    }
    names.sort();
    let reason = format!("is neither empty nor a DataNode's folder: it holds {}", names.join(", "));
    Err(DatanodeError::Folder { folder: folder.to_owned(), reason })
}

/// Volumes, shared.
pub(crate) type VolumeRef = Arc<Volume>;
