//! A file system that a path lies on: HDFS, or the local one; and streams from and to it.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};

use bytes::Bytes;
use mobula_client::{FileReader, FileWriter};

use super::failure::{Failure, Outcome};
use super::hdfs::Hdfs;
use super::local::Local;
use super::local_sums::LocalSums;
use super::status::Status;

/// Bytes read from a local file at once.
const PIECE: usize = 1 << 20;

/// A file system. Cheap to clone.
#[derive(Clone, Debug)]
pub enum FileSystem {
    /// A cluster.
    Hdfs(Hdfs),
    /// This machine.
    Local(Local),
}

impl FileSystem {
    /// Where relative paths begin.
    pub fn home(&self) -> String {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.home().to_owned(),
            FileSystem::Local(local) => local.home(),
        }
    }

    /// The file system's own name: `hdfs://host:port`, `file:///`.
    pub fn uri(&self) -> &str {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.uri(),
            FileSystem::Local(_) => "file:///",
        }
    }

    /// A path with scheme and host, as Hadoop prints it.
    pub fn qualified(&self, path: &str) -> String {
        match self {
            FileSystem::Hdfs(hdfs) => format!("{}{path}", hdfs.uri()),
            // Java's paths that were made of others have no empty host.
            FileSystem::Local(_) => format!("file:{path}"),
        }
    }

    /// Whether there may be such a path; `typed` is how it was written. HDFS has neither `..` nor colons
    /// in names (`DFSUtilClient.isValidName`), and its clients ask no server about them.
    ///
    /// # Errors
    /// The path's name is none.
    pub fn check_name(&self, path: &str, typed: &str) -> Outcome<()> {
        let is_wrong = |name: &str| matches!(name, "." | "..") || name.contains(':');
        let reserved = path.starts_with("/.reserved/.inodes/");
        match self {
            FileSystem::Hdfs(_) if path.is_empty() || !reserved && path.split('/').any(is_wrong) => {
                Err(Failure::usage(format!("Pathname {path} from {typed} is not a valid DFS filename.")))
            }
            _ => Ok(()),
        }
    }

    /// Whether both are the same one.
    pub fn is_same(&self, other: &FileSystem) -> bool {
        self.uri() == other.uri()
    }

    /// The HDFS that this is.
    ///
    /// # Errors
    /// It is the local file system, which cannot do what was asked.
    pub fn as_hdfs(&self) -> Outcome<&Hdfs> {
        match self {
            FileSystem::Hdfs(hdfs) => Ok(hdfs),
            FileSystem::Local(_) => Err(Failure::other("Not supported on the local file system")),
        }
    }

    /// The status, `None` if there is nothing.
    pub async fn status(&self, path: &str) -> Outcome<Option<Status>> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.status(path).await,
            FileSystem::Local(local) => local.status(path),
        }
    }

    /// Whether there is something.
    pub async fn exists(&self, path: &str) -> Outcome<bool> {
        Ok(self.status(path).await?.is_some())
    }

    /// The entries of a directory; a file gives itself, with an empty name.
    pub async fn list(&self, path: &str) -> Outcome<Vec<Status>> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.list(path).await,
            FileSystem::Local(local) => local.list(path),
        }
    }

    /// Makes a directory and those above it; `mode` is before the umask.
    pub async fn mkdirs(&self, path: &str, mode: u16) -> Outcome<bool> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.mkdirs(path, mode).await,
            FileSystem::Local(local) => local.mkdirs(path, mode),
        }
    }

    /// A file to write to, over what is there.
    pub async fn create(&self, path: &str, replication: Option<u16>) -> Outcome<Writer> {
        match self {
            FileSystem::Hdfs(hdfs) => Ok(Writer::Hdfs(Box::new(hdfs.create(path, replication).await?))),
            FileSystem::Local(local) => {
                Ok(Writer::Local { file: local.create(path)?, path: path.to_owned(), sums: None })
            }
        }
    }

    /// A file to read.
    pub async fn open(&self, path: &str) -> Outcome<Reader> {
        match self {
            FileSystem::Hdfs(hdfs) => Ok(Reader::Hdfs(Box::new(hdfs.open(path).await?))),
            FileSystem::Local(local) => Ok(Reader::Local(local.open(path)?, path.to_owned())),
        }
    }

    /// Deletes; `false` if there was nothing.
    pub async fn delete(&self, path: &str, recursive: bool) -> Outcome<bool> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.delete(path, recursive).await,
            FileSystem::Local(local) => local.delete(path, recursive),
        }
    }

    /// Renames; `false` if it cannot be.
    pub async fn rename(&self, source: &str, target: &str) -> Outcome<bool> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.rename(source, target).await,
            FileSystem::Local(local) => local.rename(source, target),
        }
    }

    /// Sets permission bits.
    pub async fn set_mode(&self, path: &str, mode: u16) -> Outcome<()> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.set_mode(path, mode).await,
            FileSystem::Local(local) => local.set_mode(path, mode),
        }
    }

    /// Sets owner and group, each if given.
    pub async fn set_owner(&self, path: &str, owner: Option<&str>, group: Option<&str>) -> Outcome<()> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.set_owner(path, owner, group).await,
            FileSystem::Local(local) => local.set_owner(path, owner, group),
        }
    }

    /// Sets times in milliseconds, each if given.
    pub async fn set_times(&self, path: &str, modified: Option<u64>, accessed: Option<u64>) -> Outcome<()> {
        match self {
            FileSystem::Hdfs(hdfs) => hdfs.set_times(path, modified, accessed).await,
            FileSystem::Local(local) => local.set_times(path, modified, accessed),
        }
    }
}

/// A file being read.
#[derive(Debug)]
pub enum Reader {
    /// From a cluster.
    Hdfs(Box<FileReader>),
    /// From this machine, with its path.
    Local(File, String),
}

impl Reader {
    /// The next piece, `None` at the end.
    pub async fn next(&mut self) -> Outcome<Option<Bytes>> {
        match self {
            Reader::Hdfs(reader) => Ok(reader.next().await?),
            Reader::Local(file, path) => loop {
                let mut piece = vec![0; PIECE];
                match file.read(&mut piece) {
                    Ok(0) => return Ok(None),
                    Ok(length) => {
                        piece.truncate(length);
                        return Ok(Some(piece.into()));
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(Failure::local(path, &error)),
                }
            },
        }
    }

    /// Moves to `offset`.
    pub fn seek(&mut self, offset: u64) -> Outcome<()> {
        match self {
            Reader::Hdfs(reader) => reader.seek(offset),
            Reader::Local(file, path) => {
                file.seek(SeekFrom::Start(offset)).map_err(|error| Failure::local(path, &error))?;
            }
        }
        Ok(())
    }
}

/// A file being written.
#[derive(Debug)]
pub enum Writer {
    /// To a cluster.
    Hdfs(Box<FileWriter>),
    /// To this machine.
    Local {
        /// What is written to.
        file: File,
        /// Where it is.
        path: String,
        /// Checksums for the file beside it, if there shall be one.
        sums: Option<LocalSums>,
    },
}

impl Writer {
    /// Keeps checksums of a local file beside it; HDFS keeps its own.
    pub fn keep_sums(&mut self) {
        if let Writer::Local { sums, .. } = self {
            *sums = Some(LocalSums::default());
        }
    }

    /// Adds `piece`.
    pub async fn write(&mut self, piece: Bytes) -> Outcome<()> {
        match self {
            Writer::Hdfs(writer) => Ok(writer.write(piece).await?),
            Writer::Local { file, path, sums } => {
                if let Some(sums) = sums {
                    sums.add(&piece);
                }
                file.write_all(&piece).map_err(|error| Failure::local(path, &error))
            }
        }
    }

    /// Ends the file; in HDFS it is durable then.
    pub async fn close(self) -> Outcome<()> {
        match self {
            Writer::Hdfs(writer) => Ok(writer.close().await?),
            Writer::Local { path, sums: Some(sums), .. } => sums.store(&path),
            Writer::Local { .. } => Ok(()),
        }
    }
}
