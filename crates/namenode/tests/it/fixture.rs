//! A NameNode on a disk that can crash, clients of any name, and DataNodes that do as they are told.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mobula_disk::RealDisk;
use mobula_disk::fake::CrashDisk;
use mobula_namenode::{GroupMapping, NameNode, NamenodeConfig, NamenodeError};
use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_proto::hdfs::datanode as dn;
use mobula_rpc::{CallError, CallOptions, RpcClient, RpcClientOptions};
use mobula_types::{Millis, ReplicaState};
use mobula_wire::extension::{Heard, WithWish};
use prost::Message;

pub const CLIENT: &str = "org.apache.hadoop.hdfs.protocol.ClientProtocol";
pub const DATANODE: &str = "org.apache.hadoop.hdfs.server.protocol.DatanodeProtocol";
/// No wait in a test is longer.
pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Fixture {
    pub disk: CrashDisk,
    pub config: NamenodeConfig,
    pub namenode: Option<NameNode>,
}

/// The configuration of tests: superuser hdfs; alice in staff, bob in guests, eve in the supergroup.
pub fn config() -> NamenodeConfig {
    let groups = [("alice", "staff"), ("bob", "guests"), ("eve", "supergroup"), ("hdfs", "hdfs")];
    let groups = groups.into_iter().map(|(user, group)| (user.to_string(), vec![group.to_string()]));
    let mut config = NamenodeConfig {
        name_dir: PathBuf::from("/name"),
        user: "hdfs".into(),
        groups: GroupMapping::Static(groups.collect()),
        cache_bytes: 8 << 20,
        placement_wait: Duration::from_millis(600),
        complete_wait: Duration::from_millis(300),
        ..NamenodeConfig::default()
    };
    config.fleet.start_delay_ms = Millis(0);
    config
}

/// Nodes that the test forgets to let beat stay live.
pub fn patient(config: &mut NamenodeConfig) {
    config.fleet.suspect_ms = Millis(60_000);
    config.fleet.dead_ms = Millis(60_000);
}

impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut NamenodeConfig)) -> Fixture {
        let mut config = config();
        change(&mut config);
        Fixture::begin(CrashDisk::new(1), config).await
    }

    /// On that disk, empty or as a crash left it.
    pub async fn on(disk: CrashDisk) -> Fixture {
        Fixture::begin(disk, config()).await
    }

    /// In `folder` of a real disk, whose pools have threads: the simulated one's calls are made by whoever asks, and one
    /// that blocks holds up tasks of others. Such a NameNode does not crash.
    pub async fn on_real_disk(folder: &Path, change: impl FnOnce(&mut NamenodeConfig)) -> Fixture {
        let mut config = config();
        config.name_dir = folder.join("name");
        change(&mut config);
        let namenode = NameNode::start(Env::real(), RealDisk::new(), config.clone()).await.unwrap();
        Fixture { disk: CrashDisk::new(1), config, namenode: Some(namenode) }
    }

    async fn begin(disk: CrashDisk, config: NamenodeConfig) -> Fixture {
        let namenode = NameNode::start(Env::real(), disk.process(), config.clone()).await.unwrap();
        Fixture { disk, config, namenode: Some(namenode) }
    }

    /// Three of them.
    pub async fn three(&self) -> Vec<FakeNode> {
        let mut nodes = Vec::new();
        for uuid in ["n1", "n2", "n3"] {
            nodes.push(self.datanode(uuid).await);
        }
        nodes
    }

    /// As [`Fixture::kill_and_restart`] at the same address, so that clients and nodes find it again.
    pub async fn kill_and_restart_here(&mut self) {
        self.config.listen.set_port(self.namenode().rpc_addr().port());
        self.kill_and_restart().await;
    }

    /// Ends the process without a word, and starts another one.
    pub async fn kill_and_restart(&mut self) {
        self.namenode = None;
        self.disk.crash(mobula_disk::fake::Crash::Kill);
        self.restart().await.unwrap();
    }

    pub async fn restart(&mut self) -> Result<(), NamenodeError> {
        let namenode = NameNode::start(Env::real(), self.disk.process(), self.config.clone()).await?;
        self.namenode = Some(namenode);
        Ok(())
    }

    pub fn namenode(&self) -> &NameNode {
        self.namenode.as_ref().unwrap()
    }

    pub fn client(&self, user: &str) -> Client {
        self.of(user, CLIENT)
    }

    pub fn of(&self, user: &str, protocol: &'static str) -> Client {
        Client(RpcClient::new(
            &Env::real(),
            RpcClientOptions {
                address: self.namenode().rpc_addr().to_string(),
                user: user.into(),
                protocol,
                connect_limit: LIMIT,
                call_limit: LIMIT,
            },
        ))
    }

    /// Registers a DataNode with one volume, and lets it beat and report nothing.
    pub async fn datanode(&self, uuid: &str) -> FakeNode {
        let mut node = FakeNode::new(self, uuid).await;
        node.register().await;
        node.beat().await;
        node.report(&[]).await;
        node
    }
}

pub struct Client(pub RpcClient);

impl Client {
    pub async fn call<Q: Message, R: Message + Default>(&self, method: &str, request: &Q) -> R {
        match self.0.call(method, request).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method}: {error}"),
        }
    }

    pub async fn again<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        call_id: i32,
    ) -> Result<R, CallError> {
        self.0.call_with(method, request, CallOptions { call_id: Some(call_id), retry_count: 1 }).await
    }

    /// The exception's class, without its package, and message.
    pub async fn refused<Q: Message>(&self, method: &str, request: &Q) -> (String, String) {
        match self.0.call::<Q, hdfs::MkdirsResponseProto>(method, request).await {
            Err(error) => refusal(method, error),
            Ok(answer) => panic!("{method} was not refused: {answer:?}"),
        }
    }

    pub async fn mkdirs(&self, path: &str) -> bool {
        self.call::<_, hdfs::MkdirsResponseProto>("mkdirs", &mkdirs(path)).await.result
    }

    pub async fn status(&self, path: &str) -> Option<hdfs::HdfsFileStatusProto> {
        let request = hdfs::GetFileInfoRequestProto { src: path.into() };
        self.call::<_, hdfs::GetFileInfoResponseProto>("getFileInfo", &request).await.fs
    }

    pub async fn create(&self, path: &str) -> hdfs::HdfsFileStatusProto {
        self.call::<_, hdfs::CreateResponseProto>("create", &create(path, "w1")).await.fs.unwrap()
    }

    pub async fn add_block(
        &self,
        path: &str,
        previous: Option<hdfs::ExtendedBlockProto>,
    ) -> hdfs::LocatedBlockProto {
        let request = add_block(path, previous);
        self.call::<_, hdfs::AddBlockResponseProto>("addBlock", &request).await.block
    }

    pub async fn complete(&self, path: &str, last: Option<hdfs::ExtendedBlockProto>) -> bool {
        self.call::<_, hdfs::CompleteResponseProto>("complete", &complete(path, "w1", last)).await.result
    }

    pub async fn recover_lease(&self, path: &str, holder: &str) -> bool {
        let request = recover_lease(path, holder);
        self.call::<_, hdfs::RecoverLeaseResponseProto>("recoverLease", &request).await.result
    }

    pub async fn is_closed(&self, path: &str) -> bool {
        let request = hdfs::IsFileClosedRequestProto { src: path.into() };
        self.call::<_, hdfs::IsFileClosedResponseProto>("isFileClosed", &request).await.result
    }

    pub async fn blocks(&self, path: &str) -> hdfs::LocatedBlocksProto {
        let request =
            hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: i64::MAX as u64 };
        let located = self.call::<_, hdfs::GetBlockLocationsResponseProto>("getBlockLocations", &request);
        located.await.locations.unwrap()
    }

    /// A closed file of one block, at these nodes.
    pub async fn write(&self, path: &str, nodes: &[FakeNode], length: u64) -> hdfs::ExtendedBlockProto {
        self.create(path).await;
        let block = full(&self.add_block(path, None).await, length);
        for node in nodes {
            node.received(&block).await;
        }
        assert!(self.complete(path, Some(block.clone())).await);
        block
    }

    /// A file of w1, who was promised so many bytes of its only block, at these nodes.
    pub async fn open(&self, path: &str, nodes: &[FakeNode], length: u64) -> hdfs::ExtendedBlockProto {
        self.create(path).await;
        let block = full(&self.add_block(path, None).await, length);
        for node in nodes {
            node.receiving(&block).await;
        }
        let _: hdfs::FsyncResponseProto = self.call("fsync", &fsync(path, length)).await;
        block
    }

    /// A closed empty file.
    pub async fn touch(&self, path: &str) {
        self.create(path).await;
        assert!(self.complete(path, None).await);
    }

    pub async fn names(&self, path: &str) -> Vec<String> {
        let request = hdfs::GetListingRequestProto {
            src: path.into(),
            start_after: bytes::Bytes::new(),
            need_location: false,
        };
        let listing = self.call::<_, hdfs::GetListingResponseProto>("getListing", &request).await;
        let entries = listing.dir_list.unwrap().partial_listing;
        entries.iter().map(|entry| String::from_utf8(entry.path.to_vec()).unwrap()).collect()
    }
}

pub fn permission(perm: u32) -> hdfs::FsPermissionProto {
    hdfs::FsPermissionProto { perm }
}

pub fn mkdirs(path: &str) -> hdfs::MkdirsRequestProto {
    hdfs::MkdirsRequestProto {
        src: path.into(),
        masked: permission(0o755),
        create_parent: true,
        unmasked: None,
    }
}

pub fn create(path: &str, holder: &str) -> hdfs::CreateRequestProto {
    hdfs::CreateRequestProto {
        src: path.into(),
        masked: permission(0o644),
        client_name: holder.into(),
        create_flag: 1,
        create_parent: true,
        replication: 3,
        block_size: 1 << 20,
        ..hdfs::CreateRequestProto::default()
    }
}

pub fn add_block(path: &str, previous: Option<hdfs::ExtendedBlockProto>) -> hdfs::AddBlockRequestProto {
    hdfs::AddBlockRequestProto {
        src: path.into(),
        client_name: "w1".into(),
        previous,
        ..hdfs::AddBlockRequestProto::default()
    }
}

pub fn complete(
    path: &str,
    holder: &str,
    last: Option<hdfs::ExtendedBlockProto>,
) -> hdfs::CompleteRequestProto {
    hdfs::CompleteRequestProto { src: path.into(), client_name: holder.into(), last, file_id: None }
}

pub fn append(path: &str, holder: &str) -> hdfs::AppendRequestProto {
    hdfs::AppendRequestProto { src: path.into(), client_name: holder.into(), flag: None }
}

pub fn recover_lease(path: &str, holder: &str) -> hdfs::RecoverLeaseRequestProto {
    hdfs::RecoverLeaseRequestProto { src: path.into(), client_name: holder.into() }
}

pub fn fsync(path: &str, length: u64) -> hdfs::FsyncRequestProto {
    let last_block_length = Some(length.cast_signed());
    hdfs::FsyncRequestProto { src: path.into(), client: "w1".into(), last_block_length, file_id: None }
}

/// The exception's class, without its package, and the first line of its message.
fn refusal(method: &str, error: CallError) -> (String, String) {
    let CallError::Remote(exception) = error else { panic!("{method} was not answered: {error}") };
    let class = exception.class.rsplit('.').next().unwrap().to_string();
    (class, exception.message.lines().next().unwrap_or_default().to_string())
}

pub fn delete(path: &str) -> hdfs::DeleteRequestProto {
    hdfs::DeleteRequestProto { src: path.into(), recursive: true }
}

pub fn rename(src: &str, dst: &str) -> hdfs::RenameRequestProto {
    hdfs::RenameRequestProto { src: src.into(), dst: dst.into() }
}

/// The block with its final length.
pub fn full(block: &hdfs::LocatedBlockProto, length: u64) -> hdfs::ExtendedBlockProto {
    hdfs::ExtendedBlockProto { num_bytes: Some(length), ..block.b.clone() }
}

/// A DataNode played by the test.
pub struct FakeNode {
    pub rpc: Client,
    pub uuid: String,
    pub registration: dn::DatanodeRegistrationProto,
    pub info: hdfs::NamespaceInfoProto,
    lease: u64,
}

static PORT: AtomicU16 = AtomicU16::new(20_000);

impl FakeNode {
    pub async fn new(fixture: &Fixture, uuid: &str) -> FakeNode {
        let rpc = fixture.of("hdfs", DATANODE);
        let version: hdfs::VersionResponseProto =
            rpc.call("versionRequest", &hdfs::VersionRequestProto {}).await;
        let registration = dn::DatanodeRegistrationProto {
            datanode_id: hdfs::DatanodeIdProto {
                ip_addr: "0.0.0.0".into(),
                host_name: format!("host-{uuid}"),
                datanode_uuid: uuid.into(),
                xfer_port: u32::from(PORT.fetch_add(1, Ordering::Relaxed)),
                info_port: 1,
                ipc_port: 2,
                info_secure_port: None,
            },
            storage_info: hdfs::StorageInfoProto {
                layout_version: (-57i32).cast_unsigned(),
                ..version.info.storage_info.clone()
            },
            keys: hdfs::ExportedBlockKeysProto::default(),
            software_version: "3.5.0".into(),
        };
        FakeNode { rpc, uuid: uuid.into(), registration, info: version.info, lease: 0 }
    }

    pub async fn register(&mut self) {
        let request = dn::RegisterDatanodeRequestProto { registration: self.registration.clone() };
        let answer: dn::RegisterDatanodeResponseProto = self.rpc.call("registerDatanode", &request).await;
        self.registration = answer.registration;
    }

    pub fn storage(&self) -> hdfs::DatanodeStorageProto {
        hdfs::DatanodeStorageProto {
            storage_uuid: format!("DS-{}", self.uuid),
            state: Some(0),
            storage_type: Some(hdfs::StorageTypeProto::Disk as i32),
        }
    }

    pub fn heartbeat(&self) -> dn::HeartbeatRequestProto {
        dn::HeartbeatRequestProto {
            registration: self.registration.clone(),
            reports: vec![hdfs::StorageReportProto {
                storage_uuid: format!("DS-{}", self.uuid),
                failed: Some(false),
                capacity: Some(1 << 40),
                dfs_used: Some(0),
                remaining: Some(1 << 40),
                block_pool_used: Some(0),
                storage: Some(self.storage()),
                non_dfs_used: Some(0),
                mount: None,
            }],
            request_full_block_report_lease: Some(true),
            ..dn::HeartbeatRequestProto::default()
        }
    }

    /// A heartbeat; remembers the lease for a full report.
    pub async fn beat(&mut self) -> dn::HeartbeatResponseProto {
        let answer: dn::HeartbeatResponseProto = self.rpc.call("sendHeartbeat", &self.heartbeat()).await;
        if let Some(lease) = answer.full_block_report_lease_id.filter(|lease| *lease != 0) {
            self.lease = lease;
        }
        answer
    }

    /// A full report of finalized blocks.
    pub async fn report(&self, blocks: &[hdfs::ExtendedBlockProto]) -> Option<dn::DatanodeCommandProto> {
        self.report_as(blocks, ReplicaState::Finalized).await
    }

    /// Begins a new life, in which it has these replicas.
    pub async fn begin_again(&mut self, blocks: &[hdfs::ExtendedBlockProto], state: ReplicaState) {
        self.register().await;
        self.beat().await;
        self.report_as(blocks, state).await;
    }

    /// A full report.
    pub async fn report_as(
        &self,
        blocks: &[hdfs::ExtendedBlockProto],
        state: ReplicaState,
    ) -> Option<dn::DatanodeCommandProto> {
        let replicas: Vec<_> = blocks.iter().map(|block| replica(block, state)).collect();
        let encoded = mobula_wire::block_report::encode(&replicas);
        let request = dn::BlockReportRequestProto {
            registration: self.registration.clone(),
            block_pool_id: self.info.block_pool_id.clone(),
            reports: vec![dn::StorageBlockReportProto {
                storage: self.storage(),
                blocks: Vec::new(),
                number_of_blocks: Some(encoded.count),
                blocks_buffers: encoded.pieces,
            }],
            context: Some(dn::BlockReportContextProto {
                total_rpcs: 1,
                cur_rpc: 0,
                id: 7,
                lease_id: Some(self.lease),
            }),
        };
        self.rpc.call::<_, dn::BlockReportResponseProto>("blockReport", &request).await.cmd
    }

    /// An incremental report of one block.
    pub async fn tell(&self, block: &hdfs::ExtendedBlockProto, status: i32) {
        let request = dn::BlockReceivedAndDeletedRequestProto {
            registration: self.registration.clone(),
            block_pool_id: self.info.block_pool_id.clone(),
            blocks: vec![dn::StorageReceivedDeletedBlocksProto {
                storage_uuid: format!("DS-{}", self.uuid),
                blocks: vec![dn::ReceivedDeletedBlockInfoProto {
                    block: hdfs::BlockProto {
                        block_id: block.block_id,
                        gen_stamp: block.generation_stamp,
                        num_bytes: block.num_bytes,
                    },
                    status,
                    delete_hint: None,
                }],
                storage: Some(self.storage()),
            }],
        };
        let _: dn::BlockReceivedAndDeletedResponseProto =
            self.rpc.call("blockReceivedAndDeleted", &request).await;
    }

    pub async fn received(&self, block: &hdfs::ExtendedBlockProto) {
        self.tell(block, 2).await;
    }

    pub async fn receiving(&self, block: &hdfs::ExtendedBlockProto) {
        self.tell(block, 1).await;
    }

    /// Its disks are gone: it is dead.
    pub async fn fail(&self) {
        let registartion = self.registration.clone();
        let request = dn::ErrorReportRequestProto { registartion, error_code: 3, msg: "all disks".into() };
        let _: dn::ErrorReportResponseProto = self.rpc.call("errorReport", &request).await;
    }

    /// As primary: these nodes have the block, so long, under that recovery; none: it is dropped.
    pub async fn synchronize(
        &self,
        order: &hdfs::RecoveringBlockProto,
        length: u64,
        at: &[&FakeNode],
    ) -> Result<(), (String, String)> {
        let done = self.try_synchronize(order, length, at, &[]).await;
        done.map_err(|error| refusal("commitBlockSynchronization", error))
    }

    /// With those who were heard, which Apache's primaries do not tell.
    pub async fn try_synchronize(
        &self,
        order: &hdfs::RecoveringBlockProto,
        length: u64,
        at: &[&FakeNode],
        heard: &[&FakeNode],
    ) -> Result<(), CallError> {
        let request = dn::CommitBlockSynchronizationRequestProto {
            block: order.block.b.clone(),
            new_gen_stamp: order.new_gen_stamp,
            new_length: length,
            close_file: true,
            delete_block: at.is_empty(),
            new_taragets: at.iter().map(|node| node.registration.datanode_id.clone()).collect(),
            new_target_storages: at.iter().map(|node| node.storage().storage_uuid).collect(),
        };
        let request =
            WithWish(request, Heard { heard: heard.iter().map(|node| node.uuid.clone()).collect() });
        let answer: Result<dn::CommitBlockSynchronizationResponseProto, _> =
            self.rpc.0.call("commitBlockSynchronization", &request).await;
        answer.map(|_| ())
    }
}

/// Lets the nodes beat until one of them is ordered to recover the block: which, and the order.
pub async fn ordered(
    nodes: &mut [FakeNode],
    block: &hdfs::ExtendedBlockProto,
) -> (usize, hdfs::RecoveringBlockProto) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        for (at, node) in nodes.iter_mut().enumerate() {
            let commands = node.beat().await.cmds.into_iter().filter_map(|command| command.recovery_cmd);
            let mut orders = commands.flat_map(|command| command.blocks);
            if let Some(order) = orders.find(|order| order.block.b.block_id == block.block_id) {
                return (at, order);
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody is to recover {block:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn replica(block: &hdfs::ExtendedBlockProto, state: ReplicaState) -> mobula_types::StoredReplica {
    mobula_types::StoredReplica {
        block: mobula_types::Block {
            id: mobula_types::BlockId(block.block_id),
            stamp: mobula_types::GenStamp(block.generation_stamp),
            length: block.num_bytes.unwrap_or(0),
        },
        state,
    }
}

/// Asks until the answer is yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !ask().await {
        assert!(tokio::time::Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
