//! Blocks that grow large are written past the page cache: bringing pages into it, writing them back
//! and throwing them away again was 45 % of a DataNode's CPU time (docs/decisions/0002-page-cache.md).
//! Small ones go through it: their first readers find them there, and one sync takes many together.
//!
//! How long a block will be, no client says. So the first bytes go through the page cache and what
//! follows, once the block is long enough, goes directly: whole extents of aligned pages. The parts of pages at
//! the ends of a run go through the cache; no page is written both ways unless it is overwritten, and then the
//! kernel keeps the two in step. Readers of a block that is being written see the same bytes either way.
//!
//! Invariant: what `write` returned from is with the operating system or the disk, never in a buffer of ours.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use mobula_disk::{DIRECT_ALIGN, FileRef, Open};
use parking_lot::Mutex;

use crate::replica::Growing;
use crate::volume::data_name;

/// Shortest run that is written directly, in bytes: each costs a wait for the disk.
const RUN_MIN: usize = 256 << 10;

/// Which bytes of an open replica are written past the page cache, and the file to do so.
#[derive(Debug)]
pub(crate) struct Direct {
    /// From this offset on; none: never.
    from: Option<u64>,
    left: AtomicBool,
    file: Mutex<File>,
}

#[derive(Clone, Debug)]
enum File {
    NotYet,
    Open(FileRef),
    /// The disk does not have it, or nobody writes any more.
    Never,
}

impl Direct {
    /// `block_bytes_min` is the configured length; `expected` what the sender said, 0 if it does not know.
    pub(crate) fn new(block_bytes_min: Option<u64>, expected: u64) -> Direct {
        let from = block_bytes_min.map(|least| if expected >= least { 0 } else { least });
        Direct { from, left: AtomicBool::new(false), file: Mutex::new(File::NotYet) }
    }

    /// Not at all: what is opened again grows by what its writer flushes.
    pub(crate) fn never() -> Direct {
        Direct { from: None, left: AtomicBool::new(true), file: Mutex::new(File::Never) }
    }

    /// From now on everything goes through the page cache. A writer that has synced will sync again, and
    /// overwrites what it synced: one way for all its bytes leaves nothing to the kernel's merging of two.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Nobody writes any more.
    pub(crate) fn close(&self) {
        self.leave();
        *self.file.lock() = File::Never;
    }

    /// Writes `bytes` at `at` into the replica's data file, directly as far as they allow it.
    pub(crate) fn write(&self, growing: &Growing, cached: &FileRef, bytes: &[u8], at: u64) -> io::Result<()> {
        let head = (at.next_multiple_of(DIRECT_ALIGN as u64) - at) as usize;
        let whole = bytes.len().saturating_sub(head) / DIRECT_ALIGN * DIRECT_ALIGN;
        let off = self.left.load(Ordering::Relaxed) || self.from.is_none_or(|from| at < from);
        if whole < RUN_MIN || off {
            return cached.write_all_at(bytes, at);
        }
        let (head, rest) = bytes.split_at(head);
        let (pages, tail) = rest.split_at(whole);
        let pages_at = at + head.len() as u64;
        let aligned = pages.as_ptr().addr().is_multiple_of(DIRECT_ALIGN);
        let Some(file) = self.file(growing).filter(|_| aligned) else {
            return cached.write_all_at(bytes, at);
        };
        match file.write_all_at(pages, pages_at) {
            // A disk with borders of its own, or a write that was cut short in the middle of a page.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                cached.write_all_at(pages, pages_at)?;
            }
            result => result?,
        }
        cached.write_all_at(head, at)?;
        cached.write_all_at(tail, pages_at + whole as u64)
    }

    fn file(&self, growing: &Growing) -> Option<FileRef> {
        let mut file = self.file.lock();
        if let File::NotYet = *file {
            let path = growing.folder.join(data_name(growing.block.id));
            *file = match growing.volume.disk.open(&path, Open::Direct) {
                Ok(opened) => File::Open(opened),
                Err(error) => {
                    tracing::warn!(%error, "goes through the page cache");
                    File::Never
                }
            };
        }
        match &*file {
            File::Open(file) => Some(file.clone()),
            File::NotYet | File::Never => None,
        }
    }
}
