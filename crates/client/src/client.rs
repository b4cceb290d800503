//! The file system as a program sees it.

use std::time::Duration;

use bytes::Bytes;
use mobula_net::Env;
use mobula_proto::hdfs;

use crate::error::ClientError;
use crate::namenode::NameNodeProxy;
use crate::reader::FileReader;
use crate::writer::FileWriter;

/// Where to connect to, as whom, and how to write.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// NameNodes as `host:port`, tried in turn.
    pub namenodes: Vec<String>,
    /// The user.
    pub user: String,
    /// Default number of replicas of new files (`dfs.replication`); `None`: the server's default.
    pub replication: Option<u16>,
    /// Default block size in bytes (`dfs.blocksize`); `None`: the server's default.
    pub block_size: Option<u64>,
    /// Permission bits taken from new files and directories (`fs.permissions.umask-mode`).
    pub umask: u16,
    /// Longest wait for an answer of the NameNode.
    pub call_limit: Duration,
}

/// How a file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Replace an existing file.
    pub overwrite: bool,
    /// Make missing parents.
    pub parents: bool,
    /// Permission bits before the umask.
    pub mode: u16,
    /// Else the client's default.
    pub replication: Option<u16>,
    /// Bytes; else the client's default.
    pub block_size: Option<u64>,
}

impl Default for CreateOptions {
    fn default() -> CreateOptions {
        CreateOptions { overwrite: false, parents: true, mode: 0o666, replication: None, block_size: None }
    }
}

/// A client; cheap to clone. Files that it has open for writing are kept alive by lease renewals.
#[derive(Clone, Debug)]
pub struct Client {
    // Owner of this crate.
    _private: (),
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(_env: Env, _options: ClientOptions) -> Client {
        unimplemented!()
    }

    /// Typed calls to the NameNode.
    pub fn namenode(&self) -> &NameNodeProxy {
        unimplemented!()
    }

    /// A new file to write to. Nothing is durable before [`FileWriter::close`] or an hsync.
    ///
    /// # Errors
    /// The NameNode's exceptions.
    pub async fn create(&self, _path: &str, _options: CreateOptions) -> Result<FileWriter, ClientError> {
        unimplemented!()
    }

    /// A file to read.
    ///
    /// # Errors
    /// The NameNode's exceptions; `FileNotFoundException` for none and for directories.
    pub async fn open(&self, _path: &str) -> Result<FileReader, ClientError> {
        unimplemented!()
    }

    /// The status, or `None` if there is nothing at `path`.
    ///
    /// # Errors
    /// The NameNode's exceptions.
    pub async fn status(&self, _path: &str) -> Result<Option<hdfs::HdfsFileStatusProto>, ClientError> {
        unimplemented!()
    }

    /// All entries of a directory, over all pages; a file gives itself with an empty name.
    ///
    /// # Errors
    /// The NameNode's exceptions; `FileNotFoundException` if there is nothing.
    pub async fn list(&self, _path: &str) -> Result<Vec<hdfs::HdfsFileStatusProto>, ClientError> {
        unimplemented!()
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// As [`Client::create`] and [`FileWriter`].
    pub async fn put(&self, _path: &str, _data: Bytes, _options: CreateOptions) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// As [`Client::open`] and [`FileReader`].
    pub async fn get(&self, _path: &str) -> Result<Bytes, ClientError> {
        unimplemented!()
    }

    /// HDFS's file checksum: algorithm name and bytes, as `hdfs dfs -checksum` prints them.
    ///
    /// # Errors
    /// The NameNode's exceptions, or no DataNode that answers for a block.
    pub async fn checksum(&self, _path: &str, _kind: ChecksumKind) -> Result<(String, Vec<u8>), ClientError> {
        unimplemented!()
    }
}

/// Which file checksum (`dfs.checksum.combine.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumKind {
    /// MD5 of MD5s of CRCs: depends on block size and bytes per checksum.
    Md5,
    /// One CRC of the whole file.
    Composite,
}
