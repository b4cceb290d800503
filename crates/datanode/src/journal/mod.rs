//! A volume's journal: where small syncs become durable together (docs/decisions/0012-journal.md).
//!
//! To sync a record of 4 KiB where it lies takes two files and the file system's own journal, for each writer by itself.
//! Here the records of all writers go behind each other into one file, whose length and place do not change, and one
//! flush of the disk makes all of them durable. The replica's files are written as ever, and synced later, with
//! all others; then the journal's file is used again. After a power loss the journal is replayed (`replay`).
//!
//! Two files take turns: while one is being settled, the other is written. When both are full, who asks is told so, and
//! syncs its files itself: nobody waits for the journal, and nothing depends on it.
//!
//! Invariants: what was kept is durable, with all of the replica before it; nothing but writing, finishing and removing
//! happens to a replica of which the journal has anything, until that was settled and the journal has forgotten it, nor does
//! another one of the block begin; a file is used again only when all that it says is durable without it. A failed sync is
//! final: nothing is kept any more.

mod file;
mod format;
mod replay;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use mobula_net::Entropy;
use mobula_types::{Block, BlockId, GenStamp, PoolId};
use mobula_wire::checksum::{Checksum, ChecksumKind};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::replica::{Growing, OpenKind, Pen};
use crate::syncer::Finalise;
use crate::volume::{Volume, VolumeRef};

pub(crate) use format::{Draft, Fact};
pub(crate) use replay::replay;

/// Requests that wait for one volume; those who come later wait to queue.
const QUEUE_MAX: usize = 1024;
/// The longest file that a configuration may ask for, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// The files, in the folder of the journal.
const FILE_NAMES: [&str; 2] = ["journal-0", "journal-1"];

/// `<volume>/current/BP-*/mobula`: HDFS has nothing of that name, and leaves alone what it does not know.
fn folder_of(volume: &Volume, pool: &PoolId) -> PathBuf {
    volume.pool_folder(pool).join("mobula")
}

/// Those of all volumes.
#[derive(Debug)]
pub(crate) struct Journals(Vec<Journal>);

impl Journals {
    /// One task for each volume; their handles are the caller's to abort. `file_bytes` is how long each of a volume's two
    /// files may become; 0 for none.
    pub(crate) fn start(
        volumes: &[VolumeRef],
        file_bytes: u64,
        entropy: &Entropy,
    ) -> (Journals, Vec<JoinHandle<()>>) {
        let (mut journals, mut tasks) = (Vec::new(), Vec::new());
        for volume in volumes {
            let (queue, requests) = mpsc::channel(QUEUE_MAX);
            let shared = Arc::new(Shared {
                volume: volume.clone(),
                file_bytes: file_bytes.min(FILE_BYTES_MAX),
                entropy: entropy.clone(),
                pool: OnceLock::new(),
                live: Mutex::default(),
            });
            tasks.push(tokio::spawn(writer::run(shared.clone(), requests)));
            journals.push(Journal { queue, shared });
        }
        (Journals(journals), tasks)
    }

    pub(crate) fn of(&self, volume: &Volume) -> &Journal {
        &self.0[volume.index]
    }

    /// Settles all that was kept and removes the files, at an orderly end.
    pub(crate) async fn close(&self) {
        for journal in &self.0 {
            if let Err(error) = journal.ask(What::Close).await {
                // It is replayed at the next start.
                let volume = &journal.shared.volume.config.path;
                tracing::warn!(volume = %volume.display(), %error, "the journal stays");
            }
        }
    }
}

/// The way to one volume's journal.
#[derive(Debug)]
pub(crate) struct Journal {
    queue: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    volume: VolumeRef,
    file_bytes: u64,
    entropy: Entropy,
    /// Known once the volume's pool was opened, and what was found there replayed.
    pool: OnceLock<PoolId>,
    /// The blocks of which each file says something.
    live: Mutex<[Live; 2]>,
}

type Live = BTreeMap<BlockId, Said>;

/// What something was said of.
#[derive(Clone, Debug)]
struct Said {
    stamp: GenStamp,
    /// Who writes it, if it is open.
    writer: Weak<Growing>,
}

type Done = oneshot::Sender<io::Result<bool>>;

#[derive(Debug)]
struct Request {
    what: What,
    /// None: nobody waits for it.
    done: Option<Done>,
}

#[derive(Debug)]
enum What {
    /// Bytes of an open replica are to be kept.
    Written { draft: Draft, pen: Pen },
    /// A replica is to be kept whole, and then to have its final name.
    Final { draft: Draft, step: Finalise },
    /// Nothing that was said of a block is to count any more.
    Forget(Block),
    /// A replica was removed.
    Removed(Block),
    /// All is to be settled, and the files are to go.
    Close,
}

impl Journal {
    /// From now on it can be used.
    pub(crate) fn open(&self, pool: &PoolId) {
        let _ = self.shared.pool.set(pool.clone());
    }

    /// Whether it takes what an open replica has become, or will when it ends at `end`.
    pub(crate) fn takes_written(&self, growing: &Growing, end: u64) -> bool {
        let data = end.saturating_sub(growing.kept_start());
        growing.kind == OpenKind::Rbw && self.takes(growing.checksum, data, format::DATA_MAX)
    }

    /// Whether it takes a replica of `length` bytes as a final one.
    pub(crate) fn takes_final(&self, growing: &Growing, length: u64) -> bool {
        growing.progress().on_disk == length && self.takes(growing.checksum, length, format::FINAL_MAX)
    }

    fn takes(&self, checksum: Checksum, data: u64, most: usize) -> bool {
        let most = most as u64;
        self.shared.file_bytes > 0
            && self.shared.pool.get().is_some()
            && checksum.kind() != ChecksumKind::Null
            && data <= most
            && checksum.sums_length(data) <= most
    }

    /// Makes the bytes of an open replica durable; `false` if there is no room.
    ///
    /// # Errors
    /// A sync that failed, now or before: final.
    pub(crate) async fn written(&self, draft: Draft, pen: Pen) -> io::Result<bool> {
        self.ask(What::Written { draft, pen }).await
    }

    /// Makes a replica durable, and moves it to where final ones are; `false`, and not moved, if there is no room.
    ///
    /// # Errors
    /// As [`Journal::written`]; a shortage: the replica is open as before.
    pub(crate) async fn finalise(&self, draft: Draft, step: Finalise) -> io::Result<bool> {
        self.ask(What::Final { draft, step }).await
    }

    /// Whether it says anything of a block.
    pub(crate) fn has(&self, id: BlockId) -> bool {
        self.shared.live.lock().iter().any(|live| live.contains_key(&id))
    }

    /// Forgets a block whose replica is durable without the journal.
    ///
    /// # Errors
    /// As [`Journal::written`]; a shortage: nothing was forgotten.
    pub(crate) async fn forget(&self, block: Block) -> io::Result<()> {
        match self.ask(What::Forget(block)).await? {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Notes that a replica was removed. Until that is durable, or if there is no room for it, a power loss or a kill brings
    /// the replica back, as if it had not been removed. The block is not forgotten before somebody asks for it.
    pub(crate) async fn note_removed(&self, block: Block) {
        if self.has(block.id) {
            // Who ends needs to note nothing.
            let _ = self.queue.send(Request { what: What::Removed(block), done: None }).await;
        }
    }

    async fn ask(&self, what: What) -> io::Result<bool> {
        let (done, answer) = oneshot::channel();
        let ending = || io::Error::other("the DataNode is stopping");
        self.queue.send(Request { what, done: Some(done) }).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}
