//! A NameNode on a disk that can crash, clients of any name, and DataNodes that do as they are told.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mobula_disk::fake::CrashDisk;
use mobula_namenode::{GroupMapping, NameNode, NamenodeConfig, NamenodeError};
use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_proto::hdfs::datanode as dn;
use mobula_rpc::{CallError, CallOptions, RpcClient, RpcClientOptions};
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
    config.fleet.start_delay_ms = mobula_types::Millis(0);
    config
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

    async fn begin(disk: CrashDisk, config: NamenodeConfig) -> Fixture {
        let namenode = NameNode::start(Env::real(), disk.process(), config.clone()).await.unwrap();
        Fixture { disk, config, namenode: Some(namenode) }
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
            Err(CallError::Remote(exception)) => {
                let class = exception.class.rsplit('.').next().unwrap().to_string();
                (class, exception.message.lines().next().unwrap_or_default().to_string())
            }
            other => panic!("{method} was not refused: {other:?}"),
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
        let request =
            hdfs::CompleteRequestProto { src: path.into(), client_name: "w1".into(), last, file_id: None };
        self.call::<_, hdfs::CompleteResponseProto>("complete", &request).await.result
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
        let replicas: Vec<_> = blocks.iter().map(replica).collect();
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
}

fn replica(block: &hdfs::ExtendedBlockProto) -> mobula_types::StoredReplica {
    mobula_types::StoredReplica {
        block: mobula_types::Block {
            id: mobula_types::BlockId(block.block_id),
            stamp: mobula_types::GenStamp(block.generation_stamp),
            length: block.num_bytes.unwrap_or(0),
        },
        state: mobula_types::ReplicaState::Finalized,
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
