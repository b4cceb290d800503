//! The folder's layout, and the tables' storage.
//!
//! ```text
//! name/
//!   VERSION        what this folder is; written last when it is made, so its absence means "not made"
//!   in_use.lock    held by the process that serves it
//!   log/           the edit log (mobula-raft)
//!   tables.redb    the namespace (mobula-namespace); made under another name, so that it is whole if it is there
//! ```
//!
//! Invariant: a folder that holds anything else, or the files of something else, is not touched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mobula_disk::{
    Disk, DiskRef, FileRef, Kind, Lock, Open, create_folder_durably, read_file, sync_names_above,
    write_file_durably,
};
use parking_lot::Mutex;

use crate::error::NamenodeError;

const VERSION: &str = "VERSION";
const VERSION_TMP: &str = "VERSION.tmp";
const LOCK: &str = "in_use.lock";
const LOG: &str = "log";
const TABLES: &str = "tables.redb";
const TABLES_TMP: &str = "tables.redb.tmp";
/// What stands in `VERSION`.
const CONTENTS: &str = "kind=mobula-namenode\nlayout=1\n";
/// A longer `VERSION` is not ours.
const VERSION_BYTES_MAX: u64 = 4_096;
/// How long a NameNode of the same process may take to end after it was dropped.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(3);
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(5);
/// Names that a folder may have before it is made: an interrupted first start, a fresh file system.
const HARMLESS: [&str; 3] = [LOCK, VERSION_TMP, "lost+found"];

/// A folder that is ours and locked.
#[derive(Debug)]
pub struct NameFolder {
    /// Where.
    pub path: PathBuf,
    lock: Arc<Lock>,
}

impl NameFolder {
    /// Takes the folder, makes it if it is missing or empty. Blocks.
    ///
    /// # Errors
    /// [`NamenodeError::ForeignFolder`], `BadVersion`, `InUse`, `Disk`.
    pub fn take(disk: &dyn Disk, path: &Path) -> Result<NameFolder, NamenodeError> {
        let failed = |doing| move |source| NamenodeError::Disk { doing, path: path.to_owned(), source };
        let made = match disk.look(path).map_err(failed("looking at"))? {
            None => {
                create_folder_durably(disk, path).map_err(failed("making"))?;
                false
            }
            Some((Kind::Folder, _)) => {
                let made = is_ours(disk, path)?;
                // Who made the folders, or what is in this one, may have been killed before they were synced.
                let named = if made { disk.sync_folder(path) } else { sync_names_above(disk, path) };
                named.map_err(failed("syncing"))?;
                made
            }
            Some(_) => {
                let found = "a file, not a folder,".into();
                return Err(NamenodeError::ForeignFolder { folder: path.to_owned(), found });
            }
        };
        if made {
            check_version(disk, &path.join(VERSION))?;
        }
        let lock = disk.lock(&path.join(LOCK), &contents()).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                NamenodeError::InUse { folder: path.to_owned(), reason: error.to_string() }
            }
            _ => failed("locking")(error),
        })?;
        if !made {
            write_file_durably(disk, &path.join(VERSION), CONTENTS.as_bytes()).map_err(failed("writing"))?;
            tracing::info!(folder = %path.display(), "made a new NameNode's folder");
        }
        Ok(NameFolder { path: path.to_owned(), lock: Arc::new(lock) })
    }

    /// A share of the lock, for whoever may touch the folder or the port: the folder is free when all
    /// of them are gone.
    pub fn share(&self) -> Arc<Lock> {
        Arc::clone(&self.lock)
    }

    /// The log's folder.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The tables' storage. Blocks.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn tables(&self, disk: &dyn Disk) -> Result<TablesFile, NamenodeError> {
        let path = self.path.join(TABLES);
        let failed =
            |doing| move |source| NamenodeError::Disk { doing, path: self.path.join(TABLES), source };
        if disk.look(&path).map_err(failed("looking at"))?.is_none() {
            self.make_tables(disk).map_err(failed("making"))?;
        }
        TablesFile::open(disk, &path).map_err(failed("opening"))
    }

    /// Empty tables, whole on the disk before they have their name: redb refuses a file whose making the
    /// power cut short.
    fn make_tables(&self, disk: &dyn Disk) -> io::Result<()> {
        let unfinished = self.path.join(TABLES_TMP);
        let file = TablesFile::open(disk, &unfinished)?;
        file.file.set_length(0)?;
        let made = redb::Builder::new().create_with_backend(file.clone()).map_err(io::Error::other)?;
        drop(made);
        file.not_failed()?;
        file.file.sync_all()?;
        disk.rename(&unfinished, &self.path.join(TABLES))?;
        disk.sync_folder(&self.path)
    }
}

/// Whether the folder was made by us before; false if it may be made now.
fn is_ours(disk: &dyn Disk, path: &Path) -> Result<bool, NamenodeError> {
    let mut entries = disk.list(path).map_err(|source| NamenodeError::Disk {
        doing: "listing",
        path: path.to_owned(),
        source,
    })?;
    if entries.iter().any(|entry| entry.name == VERSION) {
        return Ok(true);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    match entries.iter().find(|entry| !HARMLESS.iter().any(|name| entry.name == *name)) {
        None => Ok(false),
        Some(entry) => Err(NamenodeError::ForeignFolder {
            folder: path.to_owned(),
            found: entry.name.to_string_lossy().into_owned(),
        }),
    }
}

fn check_version(disk: &dyn Disk, file: &Path) -> Result<(), NamenodeError> {
    let bad = |reason: String| NamenodeError::BadVersion { file: file.to_owned(), reason };
    let bytes = read_file(disk, file, VERSION_BYTES_MAX).map_err(|error| bad(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    if !text.lines().any(|line| line == "kind=mobula-namenode") {
        return Err(bad("it is not a Mobula NameNode's (no line kind=mobula-namenode)".into()));
    }
    match text.lines().find_map(|line| line.strip_prefix("layout=")) {
        Some("1") => Ok(()),
        layout => Err(bad(format!("layout {}, and this program knows layout 1", layout.unwrap_or("none")))),
    }
}

/// The tables' file as redb wants it. Remembers the first failed write or sync: it is final.
#[derive(Clone, Debug)]
pub struct TablesFile {
    file: FileRef,
    failed: Arc<Mutex<Option<String>>>,
}

impl TablesFile {
    fn open(disk: &dyn Disk, path: &Path) -> io::Result<TablesFile> {
        Ok(TablesFile { file: disk.open(path, Open::Create)?, failed: Arc::default() })
    }

    fn checked<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.failed.lock().get_or_insert_with(|| error.to_string());
        }
        result
    }

    fn not_failed(&self) -> io::Result<()> {
        match &*self.failed.lock() {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(format!("an earlier write or sync failed: {reason}"))),
        }
    }
}

impl redb::StorageBackend for TablesFile {
    fn len(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.not_failed()?;
        self.checked(self.file.set_length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.not_failed()?;
        self.checked(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.not_failed()?;
        self.checked(self.file.write_all_at(data, offset))
    }
}

/// Takes the folder and opens the tables' storage, on the disk's own threads. A NameNode of this very
/// process that was dropped just now may still be ending: it is waited for.
///
/// # Errors
/// As [`NameFolder::take`].
pub async fn take(disk: &DiskRef, path: &Path) -> Result<(NameFolder, TablesFile), NamenodeError> {
    let pool = disk.pool("namenode-format", 1);
    let deadline = tokio::time::Instant::now() + PREDECESSOR_LIMIT;
    loop {
        let (disk, path) = (Arc::clone(disk), path.to_owned());
        let taken = pool.run(move || take_now(&*disk, &path)).await;
        match taken {
            Err(NamenodeError::InUse { reason, .. })
                if reason.contains(&contents()) && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(PREDECESSOR_PAUSE).await;
            }
            taken => return taken,
        }
    }
}

fn take_now(disk: &dyn Disk, path: &Path) -> Result<(NameFolder, TablesFile), NamenodeError> {
    let folder = NameFolder::take(disk, path)?;
    let tables = folder.tables(disk)?;
    Ok((folder, tables))
}

/// What stands in the lock file.
fn contents() -> String {
    format!("namenode {}", std::process::id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mobula_disk::RealDisk;

    #[test]
    fn an_empty_folder_is_made_and_found_again() {
        let (disk, temp) = (RealDisk::new(), tempfile::tempdir().unwrap());
        let path = temp.path().join("deep/name");
        let folder = NameFolder::take(&*disk, &path).unwrap();
        assert!(matches!(NameFolder::take(&*disk, &path), Err(NamenodeError::InUse { .. })));
        drop(folder);
        NameFolder::take(&*disk, &path).unwrap();
    }

    #[test]
    fn a_foreign_folder_is_refused_untouched() {
        let (disk, temp) = (RealDisk::new(), tempfile::tempdir().unwrap());
        std::fs::write(temp.path().join("photo.jpg"), b"x").unwrap();
        let error = NameFolder::take(&*disk, temp.path()).unwrap_err();
        assert!(error.to_string().contains("photo.jpg"), "{error}");
        let names: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["photo.jpg"]);
    }

    #[test]
    fn another_kind_or_layout_is_refused() {
        for contents in ["layoutVersion=-66\nstorageType=NAME_NODE\n", "kind=mobula-namenode\nlayout=9\n"] {
            let (disk, temp) = (RealDisk::new(), tempfile::tempdir().unwrap());
            std::fs::write(temp.path().join(VERSION), contents).unwrap();
            let error = NameFolder::take(&*disk, temp.path()).unwrap_err();
            assert!(matches!(error, NamenodeError::BadVersion { .. }), "{error}");
        }
    }
}
