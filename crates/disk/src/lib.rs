//! The disk seam (DESIGN D7): files and folders behind two small traits, so that a test can lose
//! what was not synced, tear a write or fail any one call. Real files, and the fake that crashes.
//!
//! Calls block. Threads live *inside* the disk: who may not block runs its calls in a [`Pool`],
//! which for the real disk is a few named threads and for the simulated one runs inline.

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// A disk, shared.
pub type DiskRef = Arc<dyn Disk>;
/// An open file, shared.
pub type FileRef = Arc<dyn DiskFile>;
/// A folder kept open, shared.
pub type FolderRef = Arc<dyn DiskFolder>;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A new file, to read and write; `AlreadyExists` if there is one.
    CreateNew,
    /// A file to read and write, made if missing, kept as it is if there.
    Create,
    /// As `ReadWrite`, past the page cache where the disk can: offsets, lengths and buffers are
    /// then multiples of [`DIRECT_ALIGN`]. The simulated disk treats it as `ReadWrite`.
    Direct,
}

/// What direct I/O must be aligned to, in bytes.
pub const DIRECT_ALIGN: usize = 4096;

/// What a name in a folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Something else: a link, a socket.
    Other,
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
    /// A file's length in bytes, else 0.
    pub length: u64,
}

/// Room on the disk under a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub capacity: u64,
    /// Free for this process.
    pub available: u64,
}

/// Files and folders. Errors name the path. Nothing is durable until the file *and* the folder that
/// names it were synced. What was short, and not broken, is told by the kind of an error: [`is_shortage`].
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`Open`] says, and whatever the disk says.
    fn open(&self, path: &Path, how: Open) -> io::Result<FileRef>;

    /// Moves a file or folder over whatever file was at `to`.
    ///
    /// # Errors
    /// `NotFound`, and whatever the disk says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, and whatever the disk says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it that are missing.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all in it.
    ///
    /// # Errors
    /// `NotFound`, and whatever the disk says.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, in no order that means anything, but the same one for the same disk.
    ///
    /// # Errors
    /// `NotFound`, and whatever the disk says.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// What is at `path`: its kind and length; `None` if nothing is.
    ///
    /// # Errors
    /// Whatever the disk says, but for `NotFound`.
    fn look(&self, path: &Path) -> io::Result<Option<(Kind, u64)>>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// Final: what was not synced may be gone, and a second try may not notice (CASES, 9). But `OutOfMemory` says
    /// that the folder could not be opened, and that nothing was tried.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Keeps a folder open, to sync what lies around it at once.
    ///
    /// # Errors
    /// `NotFound`, and whatever the disk says.
    fn open_folder(&self, path: &Path) -> io::Result<FolderRef>;

    /// Room under `path`.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Takes the lock file at `path` for this process and writes `contents` into it. Released when
    /// the result is dropped or the process ends. A POSIX record lock, as HDFS takes on
    /// `in_use.lock`; two holders in one process are refused, too.
    ///
    /// # Errors
    /// `WouldBlock` if somebody holds it, with the file's path and contents in the message.
    fn lock(&self, path: &Path, contents: &str) -> io::Result<Lock>;

    /// What names the present run of the machine: while it is the same, no power was lost, and what was written is
    /// there, synced or not. Never the same twice where that cannot be known.
    fn boot(&self) -> String;

    /// A place to run blocking calls: at most `threads` at once, in order for one thread.
    fn pool(&self, name: &str, threads: usize) -> Pool;
}

/// An open file. Reads and writes carry their offset and may come from several threads.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes at `offset`; 0 means the end.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reads exactly `buffer.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Reads up to `buffer.len()` bytes at `offset` as far as they are in memory, without waiting for the
    /// disk: fewer, or none, where that or the end stands in the way. For a thread that must not wait.
    fn read_cached_at(&self, _buffer: &mut [u8], _offset: u64) -> usize {
        0
    }

    /// Says that `length` bytes at `offset` will be read soon, so that the disk can begin; a hint.
    fn will_read(&self, _offset: u64, _length: u64) {}

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `StorageFull`, and whatever the disk says; some of the bytes may then have been written.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all the slices, one after the other, from `offset` on.
    ///
    /// # Errors
    /// As [`DiskFile::write_all_at`].
    fn write_all_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for slice in slices {
            self.write_all_at(slice, at)?;
            at += slice.len() as u64;
        }
        Ok(())
    }

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Reserves room up to `length` without changing the length; a hint where it cannot.
    ///
    /// # Errors
    /// `StorageFull`, and whatever the disk says.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Makes contents and length durable.
    ///
    /// # Errors
    /// Final: what was not synced may be gone, and a second try may not notice (CASES, 9). Never a shortage
    /// ([`is_shortage`]), whatever the system says.
    fn sync_data(&self) -> io::Result<()>;

    /// As `sync_data`, and times and modes too.
    ///
    /// # Errors
    /// Final, as [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// How many names it has: more than one if it is kept elsewhere, too.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    /// The operating system's file, where there is one: for sendfile and for handing it out.
    fn system_file(&self) -> Option<&std::fs::File> {
        None
    }
}

/// A folder kept open.
pub trait DiskFolder: Send + Sync + fmt::Debug {
    /// Makes the names in it durable, as [`Disk::sync_folder`], without having to open it: for who must know before a
    /// change of names that nothing but the disk can keep it from being made durable.
    ///
    /// # Errors
    /// Final, as [`DiskFile::sync_data`].
    fn sync_names(&self) -> io::Result<()>;

    /// Makes contents and lengths of all files durable that lie on the folder's file system, whoever
    /// wrote them; of their names it promises nothing. One flush of the disk in place of one a file.
    ///
    /// # Errors
    /// Final, as [`DiskFile::sync_data`]. Covers what failed since the folder was opened (Linux 5.8 and
    /// later): open it before the writes that are to be covered.
    fn sync_all_files(&self) -> io::Result<()>;
}

/// Whether a call failed because room, descriptors or memory were short: `StorageFull`, `QuotaExceeded`,
/// `OutOfMemory`. The disk is as good as before, and what was written is still there: a sync that failed is never
/// told so.
pub fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory)
}

/// Whether it was a sync that failed: what that was to make durable may be gone although it can still be read, and a
/// second one would succeed without it.
pub fn is_failed_sync(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SyncFailed>())
}

/// The same error once more, for each of those whom it concerns: of its kind, with its words, and a failed sync if it is one.
pub fn copy_error(error: &io::Error) -> io::Error {
    let words = io::Error::new(error.kind(), error.to_string());
    if is_failed_sync(error) { io::Error::new(error.kind(), SyncFailed(words)) } else { words }
}

/// What [`is_failed_sync`] knows an error by.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SyncFailed(io::Error);

/// A sync that failed, however the system puts it (a disk that is full shows late on some file systems).
fn unsynced(error: io::Error) -> io::Error {
    let kind = if is_shortage(&error) { io::ErrorKind::Other } else { error.kind() };
    io::Error::new(kind, SyncFailed(error))
}

/// A lock file held; see [`Disk::lock`].
#[derive(Debug)]
pub struct Lock {
    _held: Box<dyn Held>,
}

impl Lock {
    /// Wraps whatever releases the lock when it is dropped.
    pub fn new(held: impl Any + Send + Sync + fmt::Debug) -> Lock {
        Lock { _held: Box::new(held) }
    }
}

trait Held: Send + Sync + fmt::Debug {}
impl<T: Send + Sync + fmt::Debug> Held for T {}

mod durable;
pub mod fake;
mod pool;
mod real;

pub use durable::{create_folder_durably, read_file, sync_names_above, write_file_durably};
pub use fake::{Crash, CrashDisk};
pub use pool::Pool;
pub use real::RealDisk;
