//! The file system as a program sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_wire::remote::{RemoteException, class};

use crate::error::ClientError;
use crate::namenode::{NameNodeProxy, RetryPolicy};
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
    shared: Arc<Shared>,
}

/// What a client, its readers and its writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) options: ClientOptions,
    pub(crate) namenode: NameNodeProxy,
    /// Who holds the leases (HDFS: `DFSClient.clientName`).
    pub(crate) name: String,
}

impl Client {
    /// A client that is not connected yet.
    ///
    /// # Panics
    /// If `options` names no NameNode.
    pub fn new(env: Env, options: ClientOptions) -> Client {
        Client::with_retries(env, options, RetryPolicy::default())
    }

    /// As [`Client::new`], as patient with NameNodes as `policy` says.
    ///
    /// # Panics
    /// If `options` names no NameNode.
    pub fn with_retries(env: Env, options: ClientOptions, policy: RetryPolicy) -> Client {
        let namenode =
            NameNodeProxy::new(&env, &options.namenodes, &options.user, options.call_limit, policy);
        let name = format!("DFSClient_NONMAPREDUCE_{}_1", env.entropy.u64() as i32);
        Client { shared: Arc::new(Shared { env, options, namenode, name }) }
    }

    /// Typed calls to the NameNode.
    pub fn namenode(&self) -> &NameNodeProxy {
        &self.shared.namenode
    }

    /// What it was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// The name under which it holds leases.
    pub fn name(&self) -> &str {
        &self.shared.name
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
    pub async fn status(&self, path: &str) -> Result<Option<hdfs::HdfsFileStatusProto>, ClientError> {
        let request = hdfs::GetFileInfoRequestProto { src: path.into() };
        Ok(self.namenode().get_file_info(request).await?.fs)
    }

    /// All entries of a directory, over all pages; a file gives itself with an empty name.
    ///
    /// # Errors
    /// The NameNode's exceptions; `FileNotFoundException` if there is nothing.
    pub async fn list(&self, path: &str) -> Result<Vec<hdfs::HdfsFileStatusProto>, ClientError> {
        let mut entries = Vec::new();
        let mut start_after = Bytes::new();
        while let Some(page) = self.list_page(path, start_after, false).await? {
            let last = page.partial_listing.last().map(|entry| entry.path.clone());
            entries.extend(page.partial_listing);
            match last {
                Some(last) if page.remaining_entries > 0 => start_after = last,
                _ => return Ok(entries),
            }
        }
        let gone = RemoteException::new(class::FILE_NOT_FOUND, format!("File {path} does not exist."));
        Err(gone.into())
    }

    /// One page of a listing: the entries whose names come after `start_after` (empty: from the
    /// start). `None` if there is nothing at `path`.
    ///
    /// # Errors
    /// The NameNode's exceptions.
    pub async fn list_page(
        &self,
        path: &str,
        start_after: Bytes,
        need_location: bool,
    ) -> Result<Option<hdfs::DirectoryListingProto>, ClientError> {
        let request = hdfs::GetListingRequestProto { src: path.into(), start_after, need_location };
        Ok(self.namenode().get_listing(request).await?.dir_list)
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
