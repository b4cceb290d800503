//! A cluster that is just real enough for the client: a NameNode that hands out blocks and stamps, and
//! the DataNodes of [`crate::fake_node`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mobula_client::{Client, ClientOptions, ReplaceDatanode, RetryPolicy};
use mobula_net::{Env, Listener};
use mobula_proto::hdfs;
use mobula_rpc::{Call, Responder, RpcServer, RpcServerOptions, RpcService};
use mobula_wire::remote::{RemoteException, class};
use parking_lot::Mutex;
use prost::Message;

use crate::fake_node::FakeNode;

pub struct Fake {
    env: Env,
    pub namenode: Arc<FakeNameNode>,
    pub nodes: Vec<Arc<FakeNode>>,
    address: SocketAddr,
    _servers: Vec<RpcServer>,
}

/// Smaller than a packet of a client's, and no divisor of one, so that packets and blocks never line up.
pub const READ_PACKET: usize = 20 * 512;

impl Fake {
    pub async fn start(count: usize) -> Fake {
        let env = Env::real();
        let mut servers = Vec::new();
        let mut nodes = Vec::new();
        for index in 0..count {
            let data = listen(&env).await;
            let ipc = listen(&env).await;
            let node = Arc::new(FakeNode {
                env: env.clone(),
                index,
                data: data.local_addr().unwrap(),
                ipc: ipc.local_addr().unwrap(),
                state: Mutex::default(),
                peers: std::sync::OnceLock::new(),
            });
            servers.push(RpcServer::start(&env, ipc, node.clone(), rpc_options()));
            tokio::spawn(node.clone().serve(data));
            nodes.push(node);
        }
        for node in &nodes {
            let _ = node.peers.set(nodes.clone());
        }
        let namenode = Arc::new(FakeNameNode { nodes: nodes.clone(), state: Mutex::default() });
        let listener = listen(&env).await;
        let address = listener.local_addr().unwrap();
        servers.push(RpcServer::start(&env, listener, namenode.clone(), rpc_options()));
        Fake { env, namenode, nodes, address, _servers: servers }
    }

    pub fn client(&self) -> Client {
        self.client_of(vec![self.address.to_string()])
    }

    pub fn client_of(&self, namenodes: Vec<String>) -> Client {
        self.client_with(namenodes, ReplaceDatanode::default())
    }

    pub fn client_with(&self, namenodes: Vec<String>, replace_datanode: ReplaceDatanode) -> Client {
        let options = ClientOptions {
            namenodes,
            user: "alice".into(),
            replication: Some(3),
            block_size: Some(1 << 20),
            umask: 0o022,
            call_limit: Duration::from_secs(20),
            replace_datanode,
            favored_nodes: Vec::new(),
        };
        Client::with_retries(self.env.clone(), options, RetryPolicy::default())
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

pub async fn listen(env: &Env) -> Listener {
    env.net.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap()
}

pub fn rpc_options() -> RpcServerOptions {
    RpcServerOptions {
        connections_max: 1000,
        calls_in_flight_max: 1000,
        outbox_bytes_max: 8 << 20,
        request_bytes_max: 64 << 20,
    }
}

/// HDFS's first generation stamp, and one.
const FIRST_STAMP: u64 = 1001;

pub struct FakeNameNode {
    nodes: Vec<Arc<FakeNode>>,
    pub state: Mutex<Namespace>,
}

#[derive(Default)]
pub struct Namespace {
    pub files: BTreeMap<String, FakeFile>,
    blocks_made: u64,
    stamps_made: u64,
    pub pipelines_updated: usize,
    pub abandoned: Vec<u64>,
    /// Block and uuid of replicas that were reported.
    pub bad: Vec<(u64, String)>,
    pub fsyncs: usize,
    /// So often does `complete` say no.
    pub completes_refused: usize,
    /// So often are a file's blocks located without a node, as by a NameNode that has just been started.
    pub nodes_unknown: usize,
    /// So many calls get this exception.
    pub exceptions: Vec<RemoteException>,
    /// Method, call id and retry count of every call.
    pub calls: Vec<(String, i32, i32)>,
    /// Clients that called.
    pub clients: BTreeSet<[u8; 16]>,
}

#[derive(Default, Clone)]
pub struct FakeFile {
    pub blocks: Vec<FakeBlock>,
    pub open: bool,
    block_size: u64,
    replication: usize,
}

#[derive(Clone, Debug)]
pub struct FakeBlock {
    pub id: u64,
    pub stamp: u64,
    pub length: u64,
    pub nodes: Vec<usize>,
}

impl RpcService for FakeNameNode {
    fn call(&self, call: Call, reply: Responder) {
        let method = String::from_utf8(call.method.to_vec()).unwrap();
        let planned = {
            let mut state = self.state.lock();
            state.calls.push((method.clone(), call.call_id, call.retry_count));
            state.clients.insert(call.client_id.0);
            state.exceptions.pop()
        };
        if let Some(exception) = planned {
            return reply.error(&exception);
        }
        match method.as_str() {
            "create" => reply.finish(self.create(&decode(&call))),
            "addBlock" => reply.finish(self.add_block(&decode(&call))),
            "abandonBlock" => reply.finish(self.abandon(&decode(&call))),
            "complete" => reply.finish(self.complete(&decode(&call))),
            "fsync" => {
                self.state.lock().fsyncs += 1;
                reply.success(&hdfs::FsyncResponseProto {});
            }
            "append" => reply.finish(self.append(&decode(&call))),
            "updateBlockForPipeline" => reply.finish(self.new_stamp(&decode(&call))),
            "updatePipeline" => reply.finish(self.update_pipeline(&decode(&call))),
            "getAdditionalDatanode" => reply.finish(self.additional_node(&decode(&call))),
            "renewLease" => reply.success(&hdfs::RenewLeaseResponseProto {}),
            "getBlockLocations" => reply.success(&self.locations(&decode(&call))),
            "getFileInfo" => reply.success(&hdfs::GetFileInfoResponseProto { fs: None }),
            "getListing" => reply.success(&listing(&decode(&call))),
            "reportBadBlocks" => reply.success(&self.bad_blocks(decode(&call))),
            _ => reply.no_such_method(&call),
        }
    }
}

pub fn decode<M: Message + Default>(call: &Call) -> M {
    M::decode(call.body.clone()).unwrap()
}

/// Pages of a folder with 2,500 entries.
fn listing(request: &hdfs::GetListingRequestProto) -> hdfs::GetListingResponseProto {
    let names =
        (0..2500).map(|i| format!("f{i:05}")).filter(|name| name.as_bytes() > &request.start_after[..]);
    let names: Vec<String> = names.collect();
    let entry = |name: &String| hdfs::HdfsFileStatusProto {
        file_type: hdfs::hdfs_file_status_proto::FileType::IsFile as i32,
        path: Bytes::from(name.clone()),
        ..Default::default()
    };
    let page: Vec<_> = names.iter().take(1000).map(entry).collect();
    let remaining_entries = (names.len() - page.len()) as u32;
    let list = hdfs::DirectoryListingProto { partial_listing: page, remaining_entries };
    hdfs::GetListingResponseProto { dir_list: (request.src == "/many").then_some(list) }
}

impl FakeNameNode {
    fn create(
        &self,
        request: &hdfs::CreateRequestProto,
    ) -> Result<hdfs::CreateResponseProto, RemoteException> {
        let mut state = self.state.lock();
        let overwrite = request.create_flag & hdfs::CreateFlagProto::Overwrite as u32 != 0;
        if state.files.contains_key(&request.src) && !overwrite {
            return Err(RemoteException::new(class::FILE_ALREADY_EXISTS, request.src.clone()));
        }
        let file = FakeFile {
            open: true,
            block_size: request.block_size,
            replication: request.replication as usize,
            ..FakeFile::default()
        };
        state.files.insert(request.src.clone(), file);
        let status = state.files[&request.src].status();
        Ok(hdfs::CreateResponseProto { fs: Some(status) })
    }

    fn append(
        &self,
        request: &hdfs::AppendRequestProto,
    ) -> Result<hdfs::AppendResponseProto, RemoteException> {
        let mut state = self.state.lock();
        let Some(file) = state.files.get_mut(&request.src) else {
            let text = format!("Failed to append to non-existent file {}", request.src);
            return Err(RemoteException::new(class::FILE_NOT_FOUND, text));
        };
        if file.open {
            return Err(RemoteException::new(class::ALREADY_BEING_CREATED, request.src.clone()));
        }
        file.open = true;
        let new_block = request.flag() & hdfs::CreateFlagProto::NewBlock as u32 != 0;
        let before = file.length() - file.blocks.last().map_or(0, |last| last.length);
        let last = file.blocks.last().filter(|last| new_block || last.length < file.block_size);
        let mut block = last.map(|last| self.located(last, before));
        let status = file.status();
        let unknown = state.takes_nodes_as_unknown();
        if let Some(block) = block.as_mut().filter(|_| new_block || unknown) {
            block.locs.clear();
        }
        Ok(hdfs::AppendResponseProto { block, stat: Some(status) })
    }

    fn new_stamp(
        &self,
        request: &hdfs::UpdateBlockForPipelineRequestProto,
    ) -> Result<hdfs::UpdateBlockForPipelineResponseProto, RemoteException> {
        let mut state = self.state.lock();
        state.stamps_made += 1;
        let stamp = FIRST_STAMP + state.stamps_made;
        let block = state.last_block(request.block.block_id)?;
        let mut located = self.located(block, 0);
        located.b.generation_stamp = stamp;
        located.locs.clear();
        Ok(hdfs::UpdateBlockForPipelineResponseProto { block: located })
    }

    fn update_pipeline(
        &self,
        request: &hdfs::UpdatePipelineRequestProto,
    ) -> Result<hdfs::UpdatePipelineResponseProto, RemoteException> {
        let mut state = self.state.lock();
        state.pipelines_updated += 1;
        let block = state.last_block(request.new_block.block_id)?;
        assert!(request.new_block.generation_stamp > block.stamp, "stamps grow");
        assert!(request.new_block.num_bytes.unwrap() >= block.length, "blocks do not shrink");
        assert_eq!(request.new_nodes.len(), request.storage_i_ds.len());
        block.stamp = request.new_block.generation_stamp;
        let index = |id: &hdfs::DatanodeIdProto| {
            self.nodes.iter().position(|node| node.info().id == *id).expect("a node of ours")
        };
        block.nodes = request.new_nodes.iter().map(index).collect();
        Ok(hdfs::UpdatePipelineResponseProto {})
    }

    fn additional_node(
        &self,
        request: &hdfs::GetAdditionalDatanodeRequestProto,
    ) -> Result<hdfs::GetAdditionalDatanodeResponseProto, RemoteException> {
        let mut state = self.state.lock();
        let taken = |node: &FakeNode| {
            request.existings.iter().chain(&request.excludes).any(|taken| taken.id == node.info().id)
        };
        let Some(index) = self.nodes.iter().position(|node| !taken(node)) else {
            return Err(RemoteException::new(class::IO, "no node is left"));
        };
        let mut block = state.last_block(request.blk.block_id)?.clone();
        let index_of = |node: &hdfs::DatanodeInfoProto| {
            self.nodes.iter().position(|ours| ours.info().id == node.id).expect("a node of ours")
        };
        block.nodes = request.existings.iter().map(index_of).chain([index]).collect();
        Ok(hdfs::GetAdditionalDatanodeResponseProto { block: self.located(&block, 0) })
    }

    fn add_block(
        &self,
        request: &hdfs::AddBlockRequestProto,
    ) -> Result<hdfs::AddBlockResponseProto, RemoteException> {
        let mut state = self.state.lock();
        state.blocks_made += 1;
        let made = state.blocks_made;
        let excluded = |node: &Arc<FakeNode>| {
            request.exclude_nodes.iter().any(|excluded| excluded.id.xfer_port == u32::from(node.data.port()))
        };
        let file = state.files.get_mut(&request.src).unwrap();
        if let Some(last) = file.block_of_retry(request.previous.as_ref()) {
            let offset = file.length();
            return Ok(hdfs::AddBlockResponseProto { block: self.located(&last, offset) });
        }
        let order = (0..self.nodes.len()).map(|index| (index + made as usize) % self.nodes.len());
        let nodes: Vec<usize> =
            order.filter(|index| !excluded(&self.nodes[*index])).take(file.replication).collect();
        if nodes.is_empty() {
            let text =
                format!("File {} could only be written to 0 of the 1 minReplication nodes.", request.src);
            return Err(RemoteException::new(class::IO, text));
        }
        commit(file, request.previous.as_ref());
        let block = FakeBlock { id: 1_073_741_824 + made, stamp: FIRST_STAMP, length: 0, nodes };
        let offset = file.blocks.iter().map(|block| block.length).sum();
        file.blocks.push(block.clone());
        Ok(hdfs::AddBlockResponseProto { block: self.located(&block, offset) })
    }

    fn abandon(
        &self,
        request: &hdfs::AbandonBlockRequestProto,
    ) -> Result<hdfs::AbandonBlockResponseProto, RemoteException> {
        let mut state = self.state.lock();
        state.abandoned.push(request.b.block_id);
        let file = state.files.get_mut(&request.src).unwrap();
        let block = file.blocks.pop().unwrap();
        assert_eq!(block.id, request.b.block_id, "the last block is abandoned");
        for node in &self.nodes {
            node.state.lock().replicas.remove(&block.id);
        }
        Ok(hdfs::AbandonBlockResponseProto {})
    }

    fn complete(
        &self,
        request: &hdfs::CompleteRequestProto,
    ) -> Result<hdfs::CompleteResponseProto, RemoteException> {
        let mut state = self.state.lock();
        if state.completes_refused > 0 {
            state.completes_refused -= 1;
            return Ok(hdfs::CompleteResponseProto { result: false });
        }
        let file = state.files.get_mut(&request.src).unwrap();
        commit(file, request.last.as_ref());
        file.open = false;
        Ok(hdfs::CompleteResponseProto { result: true })
    }

    fn locations(
        &self,
        request: &hdfs::GetBlockLocationsRequestProto,
    ) -> hdfs::GetBlockLocationsResponseProto {
        let mut state = self.state.lock();
        let unknown = state.takes_nodes_as_unknown();
        let Some(file) = state.files.get(&request.src) else {
            return hdfs::GetBlockLocationsResponseProto { locations: None };
        };
        let mut located = hdfs::LocatedBlocksProto { under_construction: file.open, ..Default::default() };
        let mut offset = 0;
        for block in &file.blocks {
            let mut whole = self.located(block, offset);
            if unknown {
                whole.locs.clear();
            }
            let incomplete = file.open && Some(block.id) == file.blocks.last().map(|last| last.id);
            if !incomplete {
                located.file_length += block.length;
            }
            let wanted = offset + block.length > request.offset && offset < request.offset + request.length;
            if wanted || incomplete {
                located.blocks.push(whole.clone());
            }
            located.last_block = Some(whole);
            located.is_last_block_complete = !incomplete;
            offset += block.length;
        }
        hdfs::GetBlockLocationsResponseProto { locations: Some(located) }
    }

    fn bad_blocks(&self, request: hdfs::ReportBadBlocksRequestProto) -> hdfs::ReportBadBlocksResponseProto {
        let mut state = self.state.lock();
        for block in request.blocks {
            for node in block.locs {
                state.bad.push((block.b.block_id, node.id.datanode_uuid));
            }
        }
        hdfs::ReportBadBlocksResponseProto {}
    }

    fn located(&self, block: &FakeBlock, offset: u64) -> hdfs::LocatedBlockProto {
        hdfs::LocatedBlockProto {
            b: hdfs::ExtendedBlockProto {
                pool_id: "BP-1".into(),
                block_id: block.id,
                generation_stamp: block.stamp,
                num_bytes: Some(block.length),
            },
            offset,
            locs: block.nodes.iter().map(|index| self.nodes[*index].info()).collect(),
            storage_types: block.nodes.iter().map(|_| hdfs::StorageTypeProto::Disk as i32).collect(),
            storage_i_ds: block.nodes.iter().map(|index| format!("DS-{index}")).collect(),
            ..Default::default()
        }
    }

    /// Every node of every block of a closed file that lives has the block: whole, under its stamp, ended,
    /// and on disk. Answers how many replicas each block has.
    pub fn check_closed(&self, path: &str, data: &[u8]) -> Vec<usize> {
        let state = self.state.lock();
        let file = &state.files[path];
        assert!(!file.open, "{path} is closed");
        assert_eq!(file.length(), data.len() as u64);
        let (mut offset, mut counts) = (0, Vec::new());
        for block in &file.blocks {
            let expected = &data[offset..offset + block.length as usize];
            offset += block.length as usize;
            let mut count = 0;
            for node in block.nodes.iter().map(|index| &self.nodes[*index]) {
                let node_state = node.state.lock();
                if node_state.dead || node_state.hung {
                    continue;
                }
                let replica = node_state.replicas.get(&block.id).expect("the NameNode counts on it");
                assert!(replica.data == expected, "blk_{} on node {}", block.id, node.index);
                assert!(replica.finalized, "blk_{} on node {} is open", block.id, node.index);
                assert_eq!(replica.stamp, block.stamp);
                assert_eq!(replica.synced, expected.len(), "close syncs, on node {}", node.index);
                count += 1;
            }
            counts.push(count);
        }
        counts
    }

    pub fn blocks_of(&self, path: &str) -> Vec<FakeBlock> {
        self.state.lock().files[path].blocks.clone()
    }
}

impl Namespace {
    fn takes_nodes_as_unknown(&mut self) -> bool {
        let unknown = self.nodes_unknown > 0;
        self.nodes_unknown = self.nodes_unknown.saturating_sub(1);
        unknown
    }

    /// The open file's last block, which must be that one.
    fn last_block(&mut self, id: u64) -> Result<&mut FakeBlock, RemoteException> {
        let mut open = self.files.values_mut().filter(|file| file.open);
        let found = open.find_map(|file| file.blocks.last_mut().filter(|last| last.id == id));
        found.ok_or_else(|| RemoteException::new(class::IO, format!("blk_{id} is not under construction")))
    }
}

impl FakeFile {
    /// The last block, if it was given to whoever asks and they did not hear of it.
    fn block_of_retry(&self, previous: Option<&hdfs::ExtendedBlockProto>) -> Option<FakeBlock> {
        let (last, before) = self.blocks.split_last()?;
        let had = previous.map(|previous| previous.block_id);
        (last.length == 0 && before.last().map(|block| block.id) == had).then(|| last.clone())
    }

    fn length(&self) -> u64 {
        self.blocks.iter().map(|block| block.length).sum()
    }

    fn status(&self) -> hdfs::HdfsFileStatusProto {
        hdfs::HdfsFileStatusProto {
            file_type: hdfs::hdfs_file_status_proto::FileType::IsFile as i32,
            length: self.length(),
            blocksize: Some(self.block_size),
            block_replication: Some(self.replication as u32),
            file_id: Some(16_386),
            ..Default::default()
        }
    }
}

fn commit(file: &mut FakeFile, block: Option<&hdfs::ExtendedBlockProto>) {
    if let (Some(block), Some(last)) = (block, file.blocks.last_mut()) {
        assert_eq!(block.block_id, last.id, "the last block is committed");
        assert_eq!(block.generation_stamp, last.stamp, "under its present stamp");
        last.length = block.num_bytes.unwrap();
        assert!(last.length <= file.block_size);
    }
}
