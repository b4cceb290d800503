//! New replicas: on which volume, in the place of what, and their files (HDFS: `FsDatasetImpl.createRbw`,
//! `createTemporary`).
//!
//! Invariant: nothing that anybody may still need gives way to a new replica.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mobula_disk::Open;
use mobula_types::{Block, GenStamp, PoolId, ReplicaState, StorageType};
use mobula_wire::checksum::Checksum;
use mobula_wire::meta;

use crate::claim::Claim;
use crate::direct::Direct;
use crate::replica::{OpenFiles, OpenKind, OpenReplica, Parts, Progress, Replica};
use crate::reports::Change;
use crate::store::{OpenError, Store, whole};
use crate::volume::{VolumeRef, data_name, meta_name};

/// Who asks for a new replica; decides what it may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client, which writes its block.
    Client,
    /// A DataNode that copies a block by order.
    Copy,
    /// A DataNode that copies a block for a client's pipeline.
    Transfer,
}

/// A replica that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewReplica {
    pub block: Block,
    /// The stamp that it is to have in place of the block's, if its client has got a new one (3.4.1 on).
    pub stamp: Option<GenStamp>,
    pub origin: Origin,
    pub storage_type: StorageType,
    /// Bytes that it may come to have.
    pub expected: u64,
    pub checksum: Checksum,
}

impl Store {
    /// Makes the files of a new replica on a volume of that type with room for what is expected.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) async fn create(self: &Arc<Store>, new: NewReplica) -> Result<OpenReplica, OpenError> {
        let store = self.clone();
        whole(async move {
            let claim = store.replicas.claim(new.block.id).await?;
            store.make_way(&claim, &new).await?;
            store.make(&claim, &new).await
        })
        .await
    }

    /// Removes what may be replaced by a new replica, and refuses to replace anything else.
    ///
    /// A client's may take the place of what an attempt to set up the same pipeline left: nothing was ever
    /// written to it, and the client has a newer stamp. (HDFS 3.4.1 removes final replicas, too.)
    async fn make_way(self: &Arc<Store>, claim: &Claim, new: &NewReplica) -> Result<(), OpenError> {
        let stamp = new.stamp.unwrap_or(new.block.stamp);
        let gives_way = |old: &Replica| {
            let open = matches!(old, Replica::Open(_));
            let older = old.block().stamp < stamp;
            older
                && match new.origin {
                    Origin::Client => old.state() == ReplicaState::Rbw && open && old.block().length == 0,
                    Origin::Copy => open,
                    Origin::Transfer => true,
                }
        };
        let Some(old) = claim.replica() else { return Ok(()) };
        if !gives_way(&old) {
            return Err(OpenError::Exists(old.block()));
        }
        let taken = claim.take().await?;
        // It may have been finished, or given up, while its writer was stopped.
        match claim.replica() {
            None => return Ok(()),
            Some(old) if gives_way(&old) => {
                tracing::info!(block = %old.block(), %stamp, "gives way to a newer one");
                if !self.remove_files(&old).await {
                    return Err(OpenError::Exists(old.block()));
                }
            }
            Some(old) => return Err(OpenError::Exists(old.block())),
        }
        drop(taken);
        claim.remove();
        Ok(())
    }

    pub(crate) async fn make(
        self: &Arc<Store>,
        claim: &Claim,
        new: &NewReplica,
    ) -> Result<OpenReplica, OpenError> {
        let pool = self.pool().ok_or(OpenError::NoPool)?.clone();
        let kind = if new.origin == Origin::Client { OpenKind::Rbw } else { OpenKind::Temporary };
        let block = Block { stamp: new.stamp.unwrap_or(new.block.stamp), length: 0, ..new.block };
        let mut tried = Vec::new();
        loop {
            let volume = self.choose(new.storage_type, new.expected, &tried)?;
            let (of, pool) = (volume.clone(), pool.clone());
            let direct = Direct::new(self.direct_min, new.expected);
            let (expected, checksum) = (new.expected, new.checksum);
            let make = move || make_files(&of, &pool, block, kind, (expected, direct), checksum);
            let made = match self.forget_removed(&volume, block).await {
                Ok(()) => volume.pool.run(make).await,
                Err(error) => Err(error),
            };
            match made {
                Ok(parts) => {
                    let open = OpenReplica::new(parts);
                    claim.put(Replica::Open(open.growing().clone()))?;
                    if kind == OpenKind::Rbw {
                        self.reports.note(&volume.storage, block, Change::Receiving);
                    }
                    return Ok(open);
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
    fn choose(&self, kind: StorageType, bytes: u64, tried: &[usize]) -> Result<VolumeRef, OpenError> {
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
            return Err(OpenError::NoRoom { kind: kind.name(), needed });
        };
        // A volume with less than half the room of the roomiest is passed over in this turn.
        let roomy: Vec<&VolumeRef> =
            usable.into_iter().filter(|volume| volume.remaining() >= most / 2).collect();
        let turn = self.next_volume.fetch_add(1, Ordering::Relaxed);
        Ok(roomy[turn % roomy.len()].clone())
    }
}

fn make_files(
    volume: &VolumeRef,
    pool: &PoolId,
    block: Block,
    kind: OpenKind,
    (expected, direct): (u64, Direct),
    checksum: Checksum,
) -> io::Result<Parts> {
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
        Ok(meta) => Ok(Parts {
            block,
            kind,
            volume: volume.clone(),
            folder,
            checksum,
            files: Some(OpenFiles { data, meta }),
            progress: Progress::default(),
            synced: 0,
            kept: 0,
            reserved: expected,
            direct,
        }),
        Err(error) => {
            // The first error is the one that counts.
            let _ = disk.remove_file(&data_path);
            let _ = disk.remove_file(&meta_path);
            Err(error)
        }
    }
}
