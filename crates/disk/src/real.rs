//! The machine's own files.
//!
//! Invariants: every error names its path; a failed sync is handed on as it is, never retried. A
//! lock file that this process holds is never opened a second time: closing any descriptor of it
//! would release the lock (POSIX record locks belong to the process, not to the descriptor).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, PosixFadviseAdvice, fallocate, fcntl, posix_fadvise};
use nix::libc;
use parking_lot::Mutex;
use rustix::io::{ReadWriteFlags, preadv2};

use crate::{
    Disk, DiskFile, DiskFolder, DiskRef, Entry, FileRef, FolderRef, Kind, Lock, Open, Pool, Space, unsynced,
};

/// Slices one `pwritev` takes (IOV_MAX on Linux).
const SLICES_MAX: usize = 1024;

/// Where Linux names the machine's present run.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Of folders that are made.
const FOLDER_MODE: u32 = 0o700;

/// Bytes of a foreign lock file that are quoted in an error.
const LOCK_QUOTE_MAX: u64 = 256;

/// The machine's own disk.
#[derive(Debug)]
pub struct RealDisk(());

impl RealDisk {
    /// The machine's own disk.
    #[allow(clippy::new_ret_no_self)] // nobody needs the type, everybody the seam
    pub fn new() -> DiskRef {
        Arc::new(RealDisk(()))
    }
}

/// Puts the path in front of what the system says.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(kind(&error), format!("{}: {error}", path.display()))
}

/// What kind of error it is. The standard library has none for descriptors that are short, the process's or the
/// machine's: they are no fault of the disk's ([`crate::is_shortage`]).
fn kind(error: &io::Error) -> ErrorKind {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => ErrorKind::OutOfMemory,
        _ => error.kind(),
    }
}

/// Something that was never there before.
fn nonce() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), since.as_nanos())
}

fn system(path: &Path) -> impl Fn(Errno) -> io::Error {
    move |errno| at(path)(io::Error::from(errno))
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<FileRef> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::ReadWrite | Open::Direct => _ = options.write(true),
            Open::CreateNew => _ = options.write(true).create_new(true),
            Open::Create => _ = options.write(true).create(true),
        }
        let opened = match how {
            Open::Direct => open_direct(&mut options, path),
            _ => options.open(path),
        };
        let file = opened.map_err(at(path))?;
        Ok(Arc::new(RealFile { file, path: path.into() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|error| {
            io::Error::new(kind(&error), format!("{} to {}: {error}", from.display(), to.display()))
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(at(path))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        // What is in it is for those whom the NameNode lets read it, and for no other account of this machine
        // (HDFS: `dfs.datanode.data.dir.perm`, `dfs.namenode.storage.dir.perm`).
        let make = || fs::DirBuilder::new().mode(FOLDER_MODE).create(path);
        let made = match (make(), path.parent()) {
            (Err(error), Some(above)) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(above).and_then(|()| make())
            }
            (made, _) => made,
        };
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made.map_err(at(path)),
        }
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path).map_err(at(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(path).map_err(at(path))? {
            let found = found.map_err(at(path))?;
            if let Some((kind, length)) = self.look(&found.path())? {
                entries.push(Entry { name: found.file_name(), kind, length });
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn look(&self, path: &Path) -> io::Result<Option<(Kind, u64)>> {
        match fs::metadata(path) {
            Ok(found) if found.is_file() => Ok(Some((Kind::File, found.len()))),
            Ok(found) if found.is_dir() => Ok(Some((Kind::Folder, 0))),
            Ok(_) => Ok(Some((Kind::Other, 0))),
            // A link that leads nowhere is something; a file below a file is nothing.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(fs::symlink_metadata(path).ok().map(|_| (Kind::Other, 0)))
            }
            Err(error) => Err(at(path)(error)),
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let folder = File::open(path).map_err(at(path))?;
        folder.sync_all().map_err(at(path)).map_err(unsynced)
    }

    fn open_folder(&self, path: &Path) -> io::Result<FolderRef> {
        let folder = File::open(path).map_err(at(path))?;
        Ok(Arc::new(RealFolder { folder, path: path.into() }))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = nix::sys::statvfs::statvfs(path).map_err(system(path))?;
        let unit = found.fragment_size();
        Ok(Space {
            capacity: found.blocks().saturating_mul(unit),
            available: found.blocks_available().saturating_mul(unit),
        })
    }

    fn lock(&self, path: &Path, contents: &str) -> io::Result<Lock> {
        HeldLock::take(path, contents).map(Lock::new)
    }

    fn boot(&self) -> String {
        fs::read_to_string(BOOT_ID).map_or_else(|_| nonce(), |id| id.trim().to_owned())
    }

    fn pool(&self, name: &str, threads: usize) -> Pool {
        Pool::threads(name, threads)
    }
}

#[derive(Debug)]
struct RealFolder {
    folder: File,
    path: Box<Path>,
}

impl DiskFolder for RealFolder {
    fn sync_names(&self) -> io::Result<()> {
        self.folder.sync_all().map_err(at(&self.path)).map_err(unsynced)
    }

    fn sync_all_files(&self) -> io::Result<()> {
        nix::unistd::syncfs(&self.folder).map_err(system(&self.path)).map_err(unsynced)
    }
}

/// Some file systems (tmpfs of old kernels, FUSE) refuse O_DIRECT: the page cache will do, then.
fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match options.clone().custom_flags(OFlag::O_DIRECT.bits()).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.open(path),
        opened => opened,
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: Box<Path>,
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        self.file.metadata().map(|found| found.len()).map_err(at(&self.path))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read.map_err(at(&self.path)),
            }
        }
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(at(&self.path))
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            let mut rest = [IoSliceMut::new(&mut buffer[done..])];
            match preadv2(&self.file, &mut rest, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(count @ 1..) => done += count,
                // The end, what is not in memory, and file systems that cannot tell.
                _ => break,
            }
        }
        done
    }

    fn will_read(&self, offset: u64, length: u64) {
        let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
        // A hint that is not taken costs nothing.
        let _ = posix_fadvise(&self.file, offset, length, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset).map_err(at(&self.path))
    }

    fn write_all_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut slices = slices.to_vec();
        let mut left = &mut slices[..];
        let mut offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // Leading empty slices would make a write of nothing look like a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let some = &left[..left.len().min(SLICES_MAX)];
            match nix::sys::uio::pwritev(&self.file, some, offset) {
                Ok(0) => return Err(at(&self.path)(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    IoSlice::advance_slices(&mut left, count);
                    offset += count as libc::off_t;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(system(&self.path)(errno)),
            }
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length).map_err(at(&self.path))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = libc::off_t::try_from(length).map_err(io::Error::other)?;
        if length == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(()),
            Err(errno) => Err(system(&self.path)(errno)),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(at(&self.path)).map_err(unsynced)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all().map_err(at(&self.path)).map_err(unsynced)
    }

    fn links(&self) -> io::Result<u64> {
        self.file.metadata().map(|found| found.nlink()).map_err(at(&self.path))
    }

    fn system_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// Lock files this process holds, by device and inode, with what was written into them. The
/// system's record locks do not tell two holders in one process apart.
static HELD: Mutex<BTreeMap<(u64, u64), String>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct HeldLock {
    identity: (u64, u64),
    file: Option<File>,
}

impl HeldLock {
    fn take(path: &Path, contents: &str) -> io::Result<HeldLock> {
        let mut held = HELD.lock();
        if let Ok(found) = fs::metadata(path)
            && let Some(holder) = held.get(&(found.dev(), found.ino()))
        {
            return Err(refused(path, holder));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(at(path))?;
        let whole = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                let mut holder = Vec::new();
                // The holder's words only help the reader: without them the refusal still stands.
                let _ = file.take(LOCK_QUOTE_MAX).read_to_end(&mut holder);
                return Err(refused(path, &String::from_utf8_lossy(&holder)));
            }
            Err(errno) => return Err(system(path)(errno)),
        }
        file.set_len(0).map_err(at(path))?;
        file.write_all(contents.as_bytes()).map_err(at(path))?;
        let found = file.metadata().map_err(at(path))?;
        let identity = (found.dev(), found.ino());
        held.insert(identity, contents.to_owned());
        Ok(HeldLock { identity, file: Some(file) })
    }
}

fn refused(path: &Path, holder: &str) -> io::Error {
    let path: PathBuf = path.into();
    io::Error::new(
        ErrorKind::WouldBlock,
        format!("{}: locked by another process: {}", path.display(), holder.trim()),
    )
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        drop(self.file.take());
        held.remove(&self.identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::is_shortage;

    #[test]
    fn what_is_short_is_not_broken() {
        let path = Path::new("/d");
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC, libc::EDQUOT] {
            let error = at(path)(io::Error::from_raw_os_error(code));
            assert!(is_shortage(&error) && error.to_string().starts_with("/d: "), "{code}: {error}");
            assert!(is_shortage(&system(path)(Errno::from_raw(code))), "{code}");
            assert!(!is_shortage(&unsynced(error)), "{code}: a sync that failed");
        }
        for code in [libc::EIO, libc::EROFS, libc::ENODEV, libc::ENOENT] {
            assert!(!is_shortage(&at(path)(io::Error::from_raw_os_error(code))), "{code}");
        }
    }
}
