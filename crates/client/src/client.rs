//! The file system as a program sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_wire::checksum::Checksum;
use mobula_wire::extension::{CreateAnswer, CreateWish, WithWish};
use mobula_wire::remote::{RemoteException, class};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::checksum;
use crate::error::ClientError;
use crate::lease::{self, Leases};
use crate::link::LinkCache;
use crate::namenode::{NameNodeProxy, RetryPolicy};
use crate::reader::{self, FileReader};
use crate::recovery::ReplaceDatanode;
use crate::writer::{FileWriter, OpenedFile};

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
    /// What becomes of a pipeline that lost a node.
    pub replace_datanode: ReplaceDatanode,
    /// DataNodes as `host:port` that new blocks go to before others, as long as they live and have room.
    pub favored_nodes: Vec<String>,
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

/// Where appending goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewBlock {
    /// In the file's last block, unless it is full.
    #[default]
    WhenFull,
    /// In a new block (HDFS: `CreateFlag.NEW_BLOCK`).
    Always,
}

/// How a file is gone on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// Where.
    pub new_block: NewBlock,
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
    /// What is sent along with the data of files that are written.
    pub(crate) checksum: Checksum,
    /// Who holds the leases (HDFS: `DFSClient.clientName`).
    pub(crate) name: String,
    pub(crate) leases: Arc<Leases>,
    pub(crate) links: LinkCache,
    defaults: Mutex<Option<(Instant, hdfs::FsServerDefaultsProto)>>,
}

/// How long the server's defaults are believed (HDFS: `SERVER_DEFAULTS_VALIDITY_PERIOD`).
const DEFAULTS_VALID: Duration = Duration::from_secs(3600);
/// How long a NameNode that was started again may take to hear of a block, and how often it is asked.
const NODES_LIMIT: Duration = Duration::from_secs(30);
const NODES_PAUSE: Duration = Duration::from_millis(100);
/// Bits of a permission that exist.
const MODE_BITS: u16 = 0o1777;

impl Client {
    /// A client that is not connected yet.
    ///
    /// # Panics
    /// If `options` names no NameNode.
    pub fn new(env: Env, options: ClientOptions) -> Client {
        Client::with_retries(env, options, RetryPolicy::default())
    }

    /// As [`Client::new`], with another checksum of what it writes (`dfs.checksum.type`,
    /// `dfs.bytes-per-checksum`).
    ///
    /// # Panics
    /// If `options` names no NameNode.
    pub fn with_checksum(env: Env, options: ClientOptions, checksum: Checksum) -> Client {
        Client::build(env, options, RetryPolicy::default(), checksum)
    }

    /// As [`Client::new`], as patient with NameNodes as `policy` says.
    ///
    /// # Panics
    /// If `options` names no NameNode.
    pub fn with_retries(env: Env, options: ClientOptions, policy: RetryPolicy) -> Client {
        Client::build(env, options, policy, Checksum::default_crc32c())
    }

    fn build(env: Env, options: ClientOptions, policy: RetryPolicy, checksum: Checksum) -> Client {
        let namenode =
            NameNodeProxy::new(&env, &options.namenodes, &options.user, options.call_limit, policy);
        let name = format!("DFSClient_NONMAPREDUCE_{}_1", env.entropy.u64() as i32);
        let shared = Shared {
            env,
            options,
            namenode,
            checksum,
            name,
            leases: Arc::default(),
            links: LinkCache::default(),
            defaults: Mutex::new(None),
        };
        Client { shared: Arc::new(shared) }
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
    /// The NameNode's exceptions; [`ClientError::BlockSize`] for a block size that is no multiple of what a checksum covers.
    pub async fn create(&self, path: &str, options: CreateOptions) -> Result<FileWriter, ClientError> {
        self.create_with(path, options, CreateWish::default()).await
    }

    async fn create_with(
        &self,
        path: &str,
        options: CreateOptions,
        wish: CreateWish,
    ) -> Result<FileWriter, ClientError> {
        let mine = &self.shared.options;
        let (mut replication, mut block_size) =
            (options.replication.or(mine.replication), options.block_size.or(mine.block_size));
        if replication.is_none() || block_size.is_none() {
            let defaults = self.server_defaults().await?;
            replication = replication.or(Some(defaults.replication as u16));
            block_size = block_size.or(Some(defaults.block_size));
        }
        let block_size = block_size.unwrap_or_default();
        self.check_block_size(block_size)?;
        let overwrite = if options.overwrite { hdfs::CreateFlagProto::Overwrite as u32 } else { 0 };
        let request = hdfs::CreateRequestProto {
            src: path.into(),
            masked: hdfs::FsPermissionProto { perm: u32::from(options.mode & !mine.umask & MODE_BITS) },
            client_name: self.shared.name.clone(),
            create_flag: hdfs::CreateFlagProto::Create as u32 | overwrite,
            create_parent: options.parents,
            replication: u32::from(replication.unwrap_or_default()),
            block_size,
            crypto_protocol_version: Vec::new(),
            unmasked: Some(hdfs::FsPermissionProto { perm: u32::from(options.mode & MODE_BITS) }),
            ec_policy_name: None,
            storage_policy: None,
        };
        // A server that leaves it out knows the file by its path only.
        let answer: CreateAnswer = self.namenode().call("create", &WithWish(request, wish)).await?;
        let status = answer.fs.unwrap_or_default();
        Ok(self.writer(OpenedFile {
            path: path.into(),
            // What was asked for: a new file is empty, whatever it replaced.
            status: hdfs::HdfsFileStatusProto { length: 0, ..status },
            block_size,
            replication: usize::from(replication.unwrap_or_default()),
            last_block: None,
            previous: None,
            first_block: answer.first_block.filter(|block| !block.locs.is_empty()),
        }))
    }

    /// Blocks have whole chunks, but for the last one of a file.
    fn check_block_size(&self, block_size: u64) -> Result<(), ClientError> {
        let chunk = self.shared.checksum.bytes_per_chunk();
        if block_size.is_multiple_of(chunk.into()) {
            return Ok(());
        }
        Err(ClientError::BlockSize { chunk, block_size })
    }

    /// A file to go on writing to, at its end. Its bytes stay visible; they are durable as before.
    ///
    /// # Errors
    /// The NameNode's exceptions: `FileNotFoundException`, `AlreadyBeingCreatedException` if somebody
    /// writes to it, `RecoveryInProgressException` for a file whose last writer is being cleaned up after.
    pub async fn append(&self, path: &str, options: AppendOptions) -> Result<FileWriter, ClientError> {
        let new_block = options.new_block == NewBlock::Always;
        let flag = hdfs::CreateFlagProto::Append as u32
            | if new_block { hdfs::CreateFlagProto::NewBlock as u32 } else { 0 };
        let request = hdfs::AppendRequestProto {
            src: path.into(),
            client_name: self.shared.name.clone(),
            flag: Some(flag),
        };
        let hdfs::AppendResponseProto { block, stat } = self.namenode().append(request).await?;
        // It is open now: were this dropped, nobody would renew its lease, and it would end by itself.
        let status = match stat {
            Some(status) => status,
            None => self.status(path).await?.unwrap_or_default(),
        };
        let (last_block, previous) = match block {
            Some(last) if new_block => (None, Some(last.b)),
            Some(last) if last.locs.is_empty() => (Some(self.find_nodes(path, last).await?), None),
            last => (last, None),
        };
        let replication = usize::from(self.shared.options.replication.unwrap_or_default());
        let block_size = self.shared.options.block_size.unwrap_or(status.blocksize.unwrap_or_default());
        let path = path.into();
        let first_block = None;
        let file = OpenedFile { path, status, block_size, replication, last_block, previous, first_block };
        Ok(self.writer(file))
    }

    /// The last block of a file that is being opened, from a NameNode that was started again between
    /// two tries of the call, until DataNodes have told it that they have the block.
    async fn find_nodes(
        &self,
        path: &str,
        last: hdfs::LocatedBlockProto,
    ) -> Result<hdfs::LocatedBlockProto, ClientError> {
        let started = Instant::now();
        loop {
            let located = reader::locate(&self.shared, path, last.offset).await?;
            let found = located.blocks.into_iter().chain(located.last_block);
            let found = found.filter(|block| block.b.block_id == last.b.block_id && !block.locs.is_empty());
            if let Some(found) = found.last() {
                return Ok(hdfs::LocatedBlockProto { b: last.b, ..found });
            }
            if started.elapsed() >= NODES_LIMIT {
                let text = format!("No DataNode is known that has the last block of {path}");
                return Err(ClientError::DataNodes(text));
            }
            tokio::time::sleep(NODES_PAUSE).await;
        }
    }

    fn writer(&self, file: OpenedFile) -> FileWriter {
        let lease = lease::hold(&self.shared.leases, self.namenode(), &self.shared.name);
        FileWriter::new(self.shared.clone(), file, lease)
    }

    /// Cuts a closed file to `length` bytes. `true`: it is done; `false`: its last block is being cut,
    /// and the file can be opened for writing again once [`Client::is_closed`].
    ///
    /// # Errors
    /// The NameNode's exceptions; `HadoopIllegalArgumentException` if the file is shorter.
    pub async fn truncate(&self, path: &str, length: u64) -> Result<bool, ClientError> {
        let request = hdfs::TruncateRequestProto {
            src: path.into(),
            new_length: length,
            client_name: self.shared.name.clone(),
        };
        Ok(self.namenode().truncate(request).await?.result)
    }

    /// Moves the blocks of `sources` behind those of `target`; the sources are gone then.
    ///
    /// # Errors
    /// The NameNode's exceptions.
    pub async fn concat(&self, target: &str, sources: &[&str]) -> Result<(), ClientError> {
        let srcs = sources.iter().map(|source| (*source).to_owned()).collect();
        self.namenode().concat(hdfs::ConcatRequestProto { trg: target.into(), srcs }).await?;
        Ok(())
    }

    /// Takes an open file from its writer and has it closed, with all that was flushed. `true`: it is
    /// closed; `false`: recovery runs, ask again.
    ///
    /// # Errors
    /// The NameNode's exceptions.
    pub async fn recover_lease(&self, path: &str) -> Result<bool, ClientError> {
        let client_name = self.shared.name.clone();
        let request = hdfs::RecoverLeaseRequestProto { src: path.into(), client_name };
        Ok(self.namenode().recover_lease(request).await?.result)
    }

    /// Whether nobody writes to the file, and its last block is whole.
    ///
    /// # Errors
    /// The NameNode's exceptions; `FileNotFoundException` for none and for directories.
    pub async fn is_closed(&self, path: &str) -> Result<bool, ClientError> {
        let request = hdfs::IsFileClosedRequestProto { src: path.into() };
        Ok(self.namenode().is_file_closed(request).await?.result)
    }

    /// The server's defaults, asked for once an hour.
    ///
    /// # Errors
    /// The NameNode's exceptions.
    pub async fn server_defaults(&self) -> Result<hdfs::FsServerDefaultsProto, ClientError> {
        if let Some((since, defaults)) = &*self.shared.defaults.lock()
            && since.elapsed() < DEFAULTS_VALID
        {
            return Ok(defaults.clone());
        }
        let request = hdfs::GetServerDefaultsRequestProto {};
        let defaults = self.namenode().get_server_defaults(request).await?.server_defaults;
        *self.shared.defaults.lock() = Some((Instant::now(), defaults.clone()));
        Ok(defaults)
    }

    /// A file to read.
    ///
    /// # Errors
    /// The NameNode's exceptions; `FileNotFoundException` for none and for directories.
    pub async fn open(&self, path: &str) -> Result<FileReader, ClientError> {
        FileReader::open(self.shared.clone(), path).await
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
    pub async fn put(&self, path: &str, data: Bytes, options: CreateOptions) -> Result<(), ClientError> {
        // There is something to be written, so its first block is wished for at once.
        let first_block = !data.is_empty() && self.shared.options.favored_nodes.is_empty();
        let wish = CreateWish { first_block: first_block.then_some(true) };
        let mut writer = self.create_with(path, options, wish).await?;
        writer.write(data).await?;
        writer.close().await
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// As [`Client::open`] and [`FileReader`].
    pub async fn get(&self, path: &str) -> Result<Bytes, ClientError> {
        let reader = self.open(path).await?;
        let length = usize::try_from(reader.length())
            .map_err(|_| ClientError::Usage(format!("{path} does not fit into memory")))?;
        reader.read_at(0, length).await
    }

    /// HDFS's file checksum: algorithm name and bytes, as `hdfs dfs -checksum` prints them.
    ///
    /// # Errors
    /// The NameNode's exceptions, or no DataNode that answers for a block.
    pub async fn checksum(&self, path: &str, kind: ChecksumKind) -> Result<(String, Vec<u8>), ClientError> {
        checksum::of_file(&self.shared, path, kind).await
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
