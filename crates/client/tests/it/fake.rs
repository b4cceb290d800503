//! A cluster that is just real enough for the client: a NameNode that hands out blocks, and DataNodes
//! that keep them in memory, speak DataTransferProtocol, and fail when they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_client::{Client, ClientOptions, RetryPolicy};
use mobula_net::{Env, Listener, Stream};
use mobula_proto::hdfs;
use mobula_rpc::{Call, Responder, RpcServer, RpcServerOptions, RpcService};
use mobula_wire::ack::{PipelineAck, UNKNOWN_SEQNO};
use mobula_wire::checksum::{Checksum, ChecksumKind};
use mobula_wire::datatransfer::{self, Op, OpDecoder, Request};
use mobula_wire::packet::{HEARTBEAT_SEQNO, PacketHeader, PacketPrefix};
use mobula_wire::remote::{RemoteException, class};
use mobula_wire::{WireError, encode_delimited, try_decode_delimited};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
            });
            servers.push(RpcServer::start(&env, ipc, node.clone(), rpc_options()));
            tokio::spawn(node.clone().serve(data));
            nodes.push(node);
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
        let options = ClientOptions {
            namenodes,
            user: "alice".into(),
            replication: Some(3),
            block_size: Some(1 << 20),
            umask: 0o022,
            call_limit: Duration::from_secs(20),
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
    RpcServerOptions { connections_max: 1000, calls_in_flight_max: 1000, outbox_bytes_max: 8 << 20 }
}

pub struct FakeNameNode {
    nodes: Vec<Arc<FakeNode>>,
    pub state: Mutex<Namespace>,
}

#[derive(Default)]
pub struct Namespace {
    pub files: BTreeMap<String, FakeFile>,
    blocks_made: u64,
    pub abandoned: Vec<u64>,
    /// Block and uuid of replicas that were reported.
    pub bad: Vec<(u64, String)>,
    pub fsyncs: usize,
    /// So often does `complete` say no.
    pub completes_refused: usize,
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

#[derive(Clone)]
pub struct FakeBlock {
    pub id: u64,
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
            "renewLease" => reply.success(&hdfs::RenewLeaseResponseProto {}),
            "getBlockLocations" => reply.success(&self.locations(&decode(&call))),
            "getFileInfo" => reply.success(&hdfs::GetFileInfoResponseProto { fs: None }),
            "getListing" => reply.success(&listing(&decode(&call))),
            "reportBadBlocks" => reply.success(&self.bad_blocks(decode(&call))),
            _ => reply.no_such_method(&call),
        }
    }
}

fn decode<M: Message + Default>(call: &Call) -> M {
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
        let status = hdfs::HdfsFileStatusProto {
            file_type: hdfs::hdfs_file_status_proto::FileType::IsFile as i32,
            blocksize: Some(request.block_size),
            file_id: Some(16_386),
            ..Default::default()
        };
        Ok(hdfs::CreateResponseProto { fs: Some(status) })
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
        let order = (0..self.nodes.len()).map(|index| (index + made as usize) % self.nodes.len());
        let nodes: Vec<usize> =
            order.filter(|index| !excluded(&self.nodes[*index])).take(file.replication).collect();
        if nodes.is_empty() {
            let text =
                format!("File {} could only be written to 0 of the 1 minReplication nodes.", request.src);
            return Err(RemoteException::new(class::IO, text));
        }
        commit(file, request.previous.as_ref());
        let block = FakeBlock { id: 1_073_741_824 + made, length: 0, nodes };
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
        assert_eq!(file.blocks.pop().unwrap().id, request.b.block_id, "the last block is abandoned");
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
        let state = self.state.lock();
        let Some(file) = state.files.get(&request.src) else {
            return hdfs::GetBlockLocationsResponseProto { locations: None };
        };
        let mut located = hdfs::LocatedBlocksProto { under_construction: file.open, ..Default::default() };
        let mut offset = 0;
        for block in &file.blocks {
            let whole = self.located(block, offset);
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
                generation_stamp: 1001,
                num_bytes: Some(block.length),
            },
            offset,
            locs: block.nodes.iter().map(|index| self.nodes[*index].info()).collect(),
            storage_types: block.nodes.iter().map(|_| hdfs::StorageTypeProto::Disk as i32).collect(),
            storage_i_ds: block.nodes.iter().map(|index| format!("DS-{index}")).collect(),
            ..Default::default()
        }
    }

    pub fn blocks_of(&self, path: &str) -> Vec<FakeBlock> {
        self.state.lock().files[path].blocks.clone()
    }
}

fn commit(file: &mut FakeFile, block: Option<&hdfs::ExtendedBlockProto>) {
    if let (Some(block), Some(last)) = (block, file.blocks.last_mut()) {
        assert_eq!(block.block_id, last.id, "the last block is committed");
        last.length = block.num_bytes.unwrap();
        assert!(last.length <= file.block_size);
    }
}

pub struct FakeNode {
    env: Env,
    pub index: usize,
    data: SocketAddr,
    ipc: SocketAddr,
    pub state: Mutex<NodeState>,
}

#[derive(Default)]
pub struct NodeState {
    pub replicas: BTreeMap<u64, Replica>,
    /// Hangs up on everybody.
    pub dead: bool,
    /// Dies before it acknowledges the packet that arrives after so many.
    pub dies_after_packets: Option<usize>,
    /// Dies in the middle of a read after so many bytes.
    pub dies_after_bytes_read: Option<usize>,
    /// Acknowledges the next packet as one with a wrong checksum.
    pub claims_bad_checksum: bool,
    /// Takes a read and says nothing more.
    pub stalls_reads: bool,
    pub connections: usize,
    pub reads: usize,
    pub statuses: Vec<i32>,
    pub syncs: usize,
}

#[derive(Default, Clone)]
pub struct Replica {
    pub data: Vec<u8>,
    /// The sums as they were when the bytes came, so that what rots can be told.
    sums: Vec<u8>,
    pub finalized: bool,
}

impl FakeNode {
    fn info(&self) -> hdfs::DatanodeInfoProto {
        hdfs::DatanodeInfoProto {
            id: hdfs::DatanodeIdProto {
                ip_addr: "127.0.0.1".into(),
                host_name: "localhost".into(),
                datanode_uuid: self.uuid(),
                xfer_port: self.data.port().into(),
                ipc_port: self.ipc.port().into(),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    pub fn uuid(&self) -> String {
        format!("uuid-{}", self.index)
    }

    async fn serve(self: Arc<Self>, listener: Listener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            self.state.lock().connections += 1;
            let node = self.clone();
            tokio::spawn(async move {
                let _ = node.talk(stream).await;
            });
        }
    }

    fn check_alive(&self) -> io::Result<()> {
        match self.state.lock().dead {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    async fn talk(&self, mut stream: Stream) -> io::Result<()> {
        let mut input = BytesMut::new();
        loop {
            self.check_alive()?;
            let mut decoder = OpDecoder;
            let request = loop {
                match decoder.next(&mut input) {
                    Ok(Some(request)) => break request,
                    Ok(None) => more(&mut stream, &mut input).await?,
                    Err(_) => return Err(io::ErrorKind::InvalidData.into()),
                }
            };
            self.check_alive()?;
            match request {
                Request::WriteBlock(op) => return self.write(stream, input, op).await,
                Request::ReadBlock(op) => self.read(&mut stream, &mut input, op).await?,
                Request::BlockChecksum(op) => return self.checksum(stream, op).await,
                _ => return Ok(()),
            }
        }
    }

    async fn write(
        &self,
        mut stream: Stream,
        mut input: BytesMut,
        op: hdfs::OpWriteBlockProto,
    ) -> io::Result<()> {
        let id = op.header.base_header.block.block_id;
        assert_eq!(op.latest_generation_stamp, 0);
        self.state.lock().replicas.insert(id, Replica::default());
        let mut mirror = None;
        let mut answer = BytesMut::new();
        if let Some((next, rest)) = op.targets.split_first() {
            let address = format!("{}:{}", next.id.ip_addr, next.id.xfer_port);
            match connect_mirror(&self.env, &address, &op, rest).await {
                Ok(link) => mirror = Some(link),
                Err(_) => {
                    let response = datatransfer::response_failure(hdfs::Status::Error, &address, "no mirror");
                    datatransfer::encode_response(&response, &mut answer);
                    return stream.write_all(&answer).await;
                }
            }
        }
        datatransfer::encode_response(&datatransfer::response_success(), &mut answer);
        stream.write_all(&answer).await?;
        loop {
            let (prefix, packet) = packet(&mut stream, &mut input).await?;
            self.check_alive()?;
            let last = prefix.header.last;
            let mut statuses = vec![self.store(id, &prefix, &packet)?];
            let mut seqno = prefix.header.seqno;
            if let Some((stream, input)) = &mut mirror {
                match forward(stream, input, &packet).await {
                    Ok(ack) => {
                        seqno = ack.seqno;
                        statuses.extend(ack.replies.iter().map(|reply| reply.status));
                    }
                    // As HDFS says that the node after it is gone, whichever packet it is.
                    Err(_) => {
                        seqno = UNKNOWN_SEQNO;
                        statuses.push(hdfs::Status::Error);
                    }
                }
            }
            let mut ack = BytesMut::new();
            PipelineAck::new(seqno, statuses).encode(&mut ack);
            stream.write_all(&ack).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Checks and stores a packet, unless this is when the node dies.
    fn store(&self, id: u64, prefix: &PacketPrefix, packet: &Bytes) -> io::Result<hdfs::Status> {
        let mut state = self.state.lock();
        if let Some(left) = state.dies_after_packets.as_mut() {
            if *left == 0 {
                state.dead = true;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            *left -= 1;
        }
        if std::mem::take(&mut state.claims_bad_checksum) {
            return Ok(hdfs::Status::ErrorChecksum);
        }
        if prefix.header.seqno == HEARTBEAT_SEQNO {
            return Ok(hdfs::Status::Success);
        }
        state.syncs += usize::from(prefix.header.sync);
        let sums = packet.slice(prefix.length..prefix.length + prefix.checksum_length as usize);
        let data = packet.slice(prefix.length + sums.len()..);
        let checksum = Checksum::default_crc32c();
        let start = prefix.header.offset_in_block;
        assert!(
            data.is_empty() || start.is_multiple_of(512),
            "our writer begins at a chunk's start, not {start}"
        );
        checksum.verify(&data, &sums).expect("the client's sums are right");
        let replica = state.replicas.get_mut(&id).unwrap();
        assert!(start <= replica.data.len() as u64, "no gap: {start} after {}", replica.data.len());
        if !data.is_empty() {
            replica.data.truncate(start as usize);
            replica.data.extend_from_slice(&data);
            replica.sums.truncate(start as usize / 512 * 4);
            replica.sums.extend_from_slice(&sums);
        }
        if prefix.header.last {
            assert_eq!(start, replica.data.len() as u64, "the last packet stands at the block's end");
            replica.finalized = true;
        }
        Ok(hdfs::Status::Success)
    }

    async fn read(
        &self,
        stream: &mut Stream,
        input: &mut BytesMut,
        op: hdfs::OpReadBlockProto,
    ) -> io::Result<()> {
        let (replica, stalls) = {
            let mut state = self.state.lock();
            state.reads += 1;
            (state.replicas.get(&op.header.base_header.block.block_id).cloned(), state.stalls_reads)
        };
        if stalls {
            return std::future::pending().await;
        }
        let mut out = BytesMut::new();
        let Some(replica) = replica.filter(|replica| op.offset + op.len <= replica.data.len() as u64) else {
            let response = datatransfer::response_failure(hdfs::Status::Error, "", "no such replica");
            datatransfer::encode_response(&response, &mut out);
            stream.write_all(&out).await?;
            return Err(io::ErrorKind::NotFound.into());
        };
        let first = op.offset / 512 * 512;
        let until = (op.offset + op.len).div_ceil(512).saturating_mul(512).min(replica.data.len() as u64);
        let response = hdfs::BlockOpResponseProto {
            read_op_checksum_info: Some(hdfs::ReadOpChecksumInfoProto {
                checksum: Checksum::default_crc32c().to_proto(),
                chunk_offset: first,
            }),
            ..datatransfer::response_success()
        };
        datatransfer::encode_response(&response, &mut out);
        let (mut at, mut seqno) = (first, 0);
        while at < until {
            let end = until.min(at + READ_PACKET as u64);
            let data = &replica.data[at as usize..end as usize];
            let sums = &replica.sums[at as usize / 512 * 4..end.div_ceil(512) as usize * 4];
            put_packet(&mut out, at, seqno, data, sums, false);
            (at, seqno) = (end, seqno + 1);
        }
        put_packet(&mut out, until, seqno, &[], &[], true);
        let dies = self.state.lock().dies_after_bytes_read;
        if let Some(bytes) = dies.filter(|bytes| *bytes < out.len()) {
            stream.write_all(&out[..bytes]).await?;
            self.state.lock().dead = true;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        stream.write_all(&out).await?;
        let decode = |input: &mut BytesMut| try_decode_delimited::<hdfs::ClientReadStatusProto>(input, 100);
        let status = receive(stream, input, decode).await?;
        self.state.lock().statuses.push(status.status);
        Ok(())
    }

    async fn checksum(&self, mut stream: Stream, op: hdfs::OpBlockChecksumProto) -> io::Result<()> {
        use md5::{Digest, Md5};
        let replica = self.state.lock().replicas[&op.header.block.block_id].clone();
        let composite = op.block_checksum_options.and_then(|options| options.block_checksum_type)
            == Some(hdfs::BlockChecksumTypeProto::CompositeCrc as i32);
        let block_checksum = match composite {
            true => Bytes::from(ChecksumKind::Crc32c.crc(&replica.data).to_be_bytes().to_vec()),
            false => Bytes::from(Md5::digest(&replica.sums).to_vec()),
        };
        let response = hdfs::BlockOpResponseProto {
            checksum_response: Some(hdfs::OpBlockChecksumResponseProto {
                bytes_per_crc: 512,
                crc_per_block: replica.sums.len() as u64 / 4,
                block_checksum,
                crc_type: Some(hdfs::ChecksumTypeProto::ChecksumCrc32c as i32),
                block_checksum_options: op.block_checksum_options,
            }),
            ..datatransfer::response_success()
        };
        let mut out = BytesMut::new();
        encode_delimited(&response, &mut out);
        stream.write_all(&out).await
    }
}

impl RpcService for FakeNode {
    fn call(&self, call: Call, reply: Responder) {
        assert_eq!(&call.method[..], b"getReplicaVisibleLength");
        let request: hdfs::GetReplicaVisibleLengthRequestProto = decode(&call);
        let length =
            self.state.lock().replicas.get(&request.block.block_id).map(|replica| replica.data.len());
        reply.finish(match length {
            Some(length) => Ok(hdfs::GetReplicaVisibleLengthResponseProto { length: length as u64 }),
            None => Err(RemoteException::new(class::REPLICA_NOT_FOUND, "not here")),
        });
    }
}

fn put_packet(out: &mut BytesMut, offset: u64, seqno: i64, data: &[u8], sums: &[u8], last: bool) {
    let header =
        PacketHeader { offset_in_block: offset, seqno, last, data_length: data.len() as u32, sync: false };
    PacketPrefix::encode(&header, sums.len() as u32, out);
    out.extend_from_slice(sums);
    out.extend_from_slice(data);
}

async fn connect_mirror(
    env: &Env,
    address: &str,
    op: &hdfs::OpWriteBlockProto,
    rest: &[hdfs::DatanodeInfoProto],
) -> io::Result<(Stream, BytesMut)> {
    let mut stream = env.net.connect(address, Duration::from_secs(5)).await?;
    let op = hdfs::OpWriteBlockProto { targets: rest.to_vec(), ..op.clone() };
    let mut frame = BytesMut::new();
    datatransfer::encode_op(Op::WriteBlock, &op, &mut frame);
    stream.write_all(&frame).await?;
    let mut input = BytesMut::new();
    let answer = receive(&mut stream, &mut input, datatransfer::decode_response).await?;
    match answer.status {
        0 => Ok((stream, input)),
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

async fn forward(stream: &mut Stream, input: &mut BytesMut, packet: &Bytes) -> io::Result<PipelineAck> {
    stream.write_all(packet).await?;
    receive(stream, input, PipelineAck::decode).await
}

async fn more(stream: &mut Stream, input: &mut BytesMut) -> io::Result<()> {
    input.reserve(64 << 10);
    match stream.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn receive<M>(
    stream: &mut Stream,
    input: &mut BytesMut,
    decode: impl Fn(&mut BytesMut) -> Result<Option<M>, WireError>,
) -> io::Result<M> {
    loop {
        match decode(input) {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => more(stream, input).await?,
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

/// A whole packet as it came, with its prefix.
async fn packet(stream: &mut Stream, input: &mut BytesMut) -> io::Result<(PacketPrefix, Bytes)> {
    loop {
        if let Some(prefix) = PacketPrefix::parse(input).map_err(io::Error::other)? {
            let whole = prefix.length + prefix.body_length();
            if input.len() >= whole {
                return Ok((prefix, input.split_to(whole).freeze()));
            }
        }
        more(stream, input).await?;
    }
}
