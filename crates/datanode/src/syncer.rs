//! Finishing replicas in groups (DESIGN D17): sync the files of all that wait, rename them, sync
//! each folder once, then say so. While one group is under way the next one gathers.
//!
//! A group of some replicas is synced as a whole, with all else on the file system: one flush of the
//! disk in place of two a replica. 16 replicas of 100 KB took 1.4 ms that way and 6.3 ms with a sync
//! each from 16 threads (medians of 5; virtual disk, ext4). A small group is synced file by file, so as not to
//! write what others have not asked for.
//!
//! Invariant: `Ok` means data, checksums and their final names are durable.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use mobula_types::Block;
use tokio::sync::{mpsc, oneshot};

use crate::replica::{OpenFiles, Pen};
use crate::volume::{VolumeRef, data_name, meta_name};

/// Replicas that wait for one volume; those who come later wait to queue.
const QUEUE_MAX: usize = 1024;
/// Replicas in one group.
const GROUP_MAX: usize = 256;
/// From so many replicas on, a group is synced by one call.
const SYNC_TOGETHER_MIN: usize = 3;

/// A replica to be finished.
#[derive(Debug)]
pub(crate) struct Finalise {
    pub pen: Pen,
    pub block: Block,
    pub folder: PathBuf,
}

type Waiting = (Finalise, oneshot::Sender<io::Result<()>>);

/// The way to each volume's syncer.
#[derive(Debug)]
pub(crate) struct Syncers {
    queues: Vec<mpsc::Sender<Waiting>>,
}

impl Syncers {
    /// One task for each volume; their handles are the caller's to abort.
    pub(crate) fn start(volumes: &[VolumeRef]) -> (Syncers, Vec<tokio::task::JoinHandle<()>>) {
        let mut queues = Vec::new();
        let mut tasks = Vec::new();
        for volume in volumes {
            let (queue, waiting) = mpsc::channel(QUEUE_MAX);
            queues.push(queue);
            tasks.push(tokio::spawn(run(volume.clone(), waiting)));
        }
        (Syncers { queues }, tasks)
    }

    /// Waits until the replica is finished.
    pub(crate) async fn finalise(&self, volume: usize, step: Finalise) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        let gone = |_| io::Error::other("the DataNode is stopping");
        self.queues[volume]
            .send((step, done))
            .await
            .map_err(|_| io::Error::other("the DataNode is stopping"))?;
        result.await.map_err(gone)?
    }
}

async fn run(volume: VolumeRef, mut queue: mpsc::Receiver<Waiting>) {
    let mut group = Vec::new();
    while queue.recv_many(&mut group, GROUP_MAX).await > 0 {
        let (steps, waiters): (Vec<Finalise>, Vec<_>) = group.drain(..).unzip();
        let results = finish(&volume, steps).await;
        for (waiter, result) in waiters.into_iter().zip(results) {
            // Nobody waiting any more is no error: the replica is final all the same.
            let _ = waiter.send(result);
        }
    }
}

/// Finishes a group; one result for each of it.
async fn finish(volume: &VolumeRef, steps: Vec<Finalise>) -> Vec<io::Result<()>> {
    let count = steps.len();
    let of = volume.clone();
    let result = if count >= SYNC_TOGETHER_MIN {
        let together = move || of.around.sync_all_files().and_then(|()| rename(&of, &steps));
        volume.sync_pool.run(together).await
    } else {
        match sync_each(volume, &steps).await {
            Ok(()) => volume.sync_pool.run(move || rename(&of, &steps)).await,
            Err(error) => Err(error),
        }
    };
    // One failure is everybody's: after it nothing on this disk is certain.
    let copy = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
    (0..count).map(|_| result.as_ref().copied().map_err(copy)).collect()
}

/// Syncs the files of a few replicas, all at the same time.
async fn sync_each(volume: &VolumeRef, steps: &[Finalise]) -> io::Result<()> {
    let mut syncs = Vec::with_capacity(steps.len() * 2);
    for step in steps {
        let growing = step.pen.growing();
        let OpenFiles { data, meta } = match growing.open_files() {
            Some(files) => files,
            None => {
                let of = growing.clone();
                volume.sync_pool.run(move || of.files()).await?
            }
        };
        for file in [data, meta] {
            let pool = volume.sync_pool.clone();
            syncs.push(tokio::spawn(async move { pool.run(move || file.sync_data()).await }));
        }
    }
    let mut result = Ok(());
    for sync in syncs {
        match sync.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => result = Err(error),
            Err(panic) => result = Err(io::Error::other(panic.to_string())),
        }
    }
    result
}

fn rename(volume: &VolumeRef, steps: &[Finalise]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for step in steps {
        volume.ensure_folder(&step.folder)?;
        folders.insert(&step.folder);
        // Checksums first: final data is never without them.
        for name in [meta_name(&step.block), data_name(step.block.id)] {
            volume.disk.rename(&step.pen.growing().folder.join(&name), &step.folder.join(&name))?;
        }
    }
    folders.into_iter().try_for_each(|folder| volume.disk.sync_folder(folder))
}
