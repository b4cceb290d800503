//! ClientProtocol's calls about blocks and leases: create, addBlock, complete, locations.

use std::sync::Arc;

use bytes::Bytes;
use mobula_fleet::{Fleet, PlacementRequest};
use mobula_namespace::{Allocated, BlockState, Create, FileBlocks, FileKind, Operation, Outcome, Overwrite};
use mobula_proto::hdfs;
use mobula_rpc::Responder;
use mobula_types::{Block, DatanodeUuid, HdfsPath, StorageUuid, Target};
use mobula_wire::extension::{CompleteAnswer, CompleteWish, CreateAnswer, CreateWish, WithWish};
use mobula_wire::remote::RemoteException;
use tokio::time::Instant;

use crate::asker::Asker;
use crate::client_empty::check_policy;
use crate::client_rpc::{
    awaited, begun, change, decode, file_id, invalid_file_name, mode, name, new_path, parents, path,
};
use crate::exceptions::Refusal;
use crate::located::{Locator, block_of, own_block};
use crate::service::Service;
use crate::status_proto;
use crate::writing::{AddBlockRequest, AdditionalRequest, CompleteRequest, Created};

/// Nodes that a request may name at most; more is no client's.
pub const NODES_MAX: usize = 512;
/// A node's or a volume's name is a UUID with a prefix; what is longer goes neither into the log nor into the fleet.
const ID_BYTES_MAX: usize = 256;

// ---- reading ----

/// `getBlockLocations`.
pub fn get_block_locations(service: &Arc<Service>, asker: &Asker, body: &[u8], reply: Responder) {
    let found = decode(body).and_then(|request: hdfs::GetBlockLocationsRequestProto| {
        let path = path(&request.src)?;
        for (field, value) in [("offset", request.offset), ("length", request.length)] {
            if i64::try_from(value).is_err() {
                let words = format!("Negative {field} is not supported. File: {}", request.src);
                return Err(Refusal::JavaIllegalArgument(words));
            }
        }
        let file = service.file_blocks(asker, &path, request.offset, request.length)?;
        Ok((path, file))
    });
    match found {
        Err(refusal) => reply.error(&refusal.into()),
        Ok((path, file)) => {
            let there = Arc::clone(service);
            with_locations(service, asker, file, move |_, locations| {
                let locations = match is_located(&locations) {
                    true => Ok(locations),
                    false => there
                        .safe_mode
                        .check(|| format!("Zero blocklocations for {path}"))
                        .map(|()| locations),
                };
                let answer = locations
                    .map(|locations| hdfs::GetBlockLocationsResponseProto { locations: Some(locations) });
                reply.finish(answer.map_err(RemoteException::from));
            });
        }
    }
}

/// `getLocatedFileInfo`: the status, which asks for no right to read the file and is no reading of it.
pub fn get_located_file_info(service: &Arc<Service>, asker: &Asker, body: &[u8], reply: Responder) {
    let found = decode(body).and_then(|request: hdfs::GetLocatedFileInfoRequestProto| {
        let path = path(request.src.as_deref().unwrap_or_default())?;
        let Some(status) = service.status(asker, &path)? else { return Ok(None) };
        service.blocks_of_listed(&status).map(Some)
    });
    let answer = |fs| hdfs::GetLocatedFileInfoResponseProto { fs };
    match found {
        Err(refusal) => reply.error(&refusal.into()),
        Ok(None) => reply.success(&answer(None)),
        Ok(Some(file)) if matches!(file.status.kind, FileKind::Directory { .. }) => {
            reply.success(&answer(Some(status_proto::status(file.status, Bytes::new()))));
        }
        Ok(Some(file)) => with_locations(service, asker, file, move |file, locations| {
            let mut fs = status_proto::status(file.status, Bytes::new());
            fs.locations = Some(locations);
            reply.success(&answer(Some(fs)));
        }),
    }
}

/// Adds locations. Shortly after a start, a block that nobody has reported yet is waited for: the reader would
/// otherwise give it up (D11). So are the nodes of a block that is being written: the reader takes the length that it
/// is shown by whoever is there.
fn with_locations(
    service: &Arc<Service>,
    asker: &Asker,
    file: FileBlocks,
    answer: impl FnOnce(FileBlocks, hdfs::LocatedBlocksProto) + Send + 'static,
) {
    let reader = asker.machine();
    let locations = locate(service, &file, &reader);
    let age = std::time::Duration::from_millis(service.monotonic().since(service.started).0);
    let left = service.config.placement_wait.checked_sub(age);
    if is_located(&locations) && (left.is_none() || are_writers_nodes_here(service, &file)) {
        return answer(file, locations);
    }
    let Some(left) = left.filter(|_| is_located(&locations) || !service.safe_mode.is_on()) else {
        return answer(file, locations);
    };
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let deadline = Instant::now() + left;
        let come = || {
            let located = locate(&service, &file, &reader);
            (is_located(&located) && are_writers_nodes_here(&service, &file)).then_some(located)
        };
        let found = service.roster.wait_for(deadline, come).await;
        let locations = found.unwrap_or_else(|| locate(&service, &file, &reader));
        answer(file, locations);
    });
}

/// Whether all nodes that a file's last block is being written to have registered since this NameNode started.
fn are_writers_nodes_here(service: &Service, file: &FileBlocks) -> bool {
    let open = file.last.iter().filter(|last| last.state == BlockState::UnderConstruction);
    let targets: Vec<&Target> = open.flat_map(|last| &last.targets).collect();
    let here = |fleet: &Fleet| targets.iter().all(|target| fleet.node_state(&target.datanode).is_some());
    targets.is_empty() || service.roster.ask(|fleet, _| here(fleet))
}

fn locate(service: &Service, file: &FileBlocks, reader: &str) -> hdfs::LocatedBlocksProto {
    service
        .roster
        .ask(|fleet, now| Locator { fleet, now, pool: service.format.pool.as_str(), reader }.file(file))
}

fn is_located(locations: &hdfs::LocatedBlocksProto) -> bool {
    locations.blocks.iter().all(|block| !block.locs.is_empty())
}

// ---- writing ----

/// `create`; with the first block, if that is wished.
pub fn create(service: &Arc<Service>, asker: &Asker, body: &[u8], reply: Responder) {
    let there = Arc::clone(service);
    let typed = |WithWish(request, wish): WithWish<hdfs::CreateRequestProto, CreateWish>| {
        Ok((create_command(request)?, wish.first_block.unwrap_or(false)))
    };
    let begin = |(create, with_block): (Create, bool), done: Created| {
        if !with_block {
            return service.create(asker, create, Box::new(|created| done(created.map(|it| (it, None)))));
        }
        let placement = PlacementRequest { client_machine: asker.machine(), ..PlacementRequest::default() };
        service.create_with_block(asker, create, placement, done);
    };
    begun(body, reply, typed, begin, move |(outcome, block): (Outcome, Option<Allocated>)| {
        Ok(CreateAnswer {
            fs: status_of(outcome),
            first_block: block.map(|it| at_targets(&there, it.block, it.offset, &it.targets)),
        })
    });
}

fn status_of(outcome: Outcome) -> Option<hdfs::HdfsFileStatusProto> {
    match outcome {
        Outcome::Status(status) => Some(status_proto::status(status, Bytes::new())),
        _ => None,
    }
}

fn create_command(request: hdfs::CreateRequestProto) -> Result<Create, Refusal> {
    if request.ec_policy_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Err(Refusal::Unsupported("Erasure coding is not supported yet: create without a policy"));
    }
    if let Some(name) = request.storage_policy.as_deref().filter(|name| !name.is_empty()) {
        check_policy(name)?;
    }
    Ok(Create {
        path: new_path("create", &request.src, str::to_owned)?,
        mode: mode(&request.masked),
        holder: name(request.client_name)?,
        flags: request.create_flag,
        parents: parents(request.create_parent),
        // A short in Java: what does not fit is above every maximum, and refused with its words.
        replication: u16::try_from(request.replication).unwrap_or(u16::MAX),
        block_size: request.block_size,
        holder_renewed: None,
    })
}

/// `addBlock`.
pub fn add_block(service: &Arc<Service>, asker: &Asker, body: &[u8], reply: Responder) {
    let there = Arc::clone(service);
    let typed = |request| add_block_request(service, asker, request);
    let begin = |request, done| service.add_block(asker, request, done);
    begun(body, reply, typed, begin, move |allocated: Allocated| {
        let block = at_targets(&there, allocated.block, allocated.offset, &allocated.targets);
        Ok(hdfs::AddBlockResponseProto { block })
    });
}

fn add_block_request(
    service: &Service,
    asker: &Asker,
    request: hdfs::AddBlockRequestProto,
) -> Result<AddBlockRequest, Refusal> {
    let flag = |flag: hdfs::AddBlockFlagProto| request.flags.contains(&(flag as i32));
    let (no_local, ignore_locality) =
        (flag(hdfs::AddBlockFlagProto::NoLocalWrite), flag(hdfs::AddBlockFlagProto::IgnoreClientLocality));
    check_count(request.favored_nodes.len())?;
    let placement = PlacementRequest {
        client_machine: asker.machine(),
        excluded: nodes(&request.exclude_nodes)?,
        favored: request.favored_nodes,
        no_local,
        ignore_locality,
        ..PlacementRequest::default()
    };
    Ok(AddBlockRequest {
        path: path(&request.src)?,
        file: file_id(request.file_id),
        holder: name(request.client_name)?,
        previous: request
            .previous
            .as_ref()
            .map(|block| own_block(&service.format.pool, block))
            .transpose()?,
        placement,
    })
}

fn nodes(infos: &[hdfs::DatanodeInfoProto]) -> Result<Vec<DatanodeUuid>, Refusal> {
    check_count(infos.len())?;
    Ok(infos.iter().map(|info| DatanodeUuid::from(info.id.datanode_uuid.as_str())).collect())
}

/// Refuses a list of more nodes than any client names.
///
/// # Errors
/// BadRequest.
pub fn check_count(nodes: usize) -> Result<(), Refusal> {
    if nodes > NODES_MAX {
        return Err(Refusal::BadRequest(format!("{nodes} nodes, more than {NODES_MAX}")));
    }
    Ok(())
}

/// Refuses a name of a node or of a volume that is longer than any is.
///
/// # Errors
/// BadRequest.
pub fn check_id(what: &'static str, id: &str) -> Result<(), Refusal> {
    if id.len() > ID_BYTES_MAX {
        return Err(Refusal::BadRequest(format!("a {what} of {} bytes, more than {ID_BYTES_MAX}", id.len())));
    }
    Ok(())
}

/// A block at these nodes.
pub fn at_targets(
    service: &Service,
    block: Block,
    offset: u64,
    targets: &[Target],
) -> hdfs::LocatedBlockProto {
    service.roster.ask(|fleet, now| {
        Locator { fleet, now, pool: service.format.pool.as_str(), reader: "" }
            .at_targets(block, offset, targets)
    })
}

/// `getAdditionalDatanode`: the replicas that exist, and the new ones.
///
/// # Errors
/// FileNotFound, LeaseExpired.
pub fn get_additional_datanode(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetAdditionalDatanodeRequestProto,
) -> Result<hdfs::GetAdditionalDatanodeResponseProto, Refusal> {
    let existing = existing_targets(service, &request)?;
    let placement = PlacementRequest {
        replicas: u16::try_from(request.num_additional_nodes).unwrap_or(u16::MAX),
        client_machine: asker.machine(),
        excluded: nodes(&request.excludes)?,
        existing: existing.clone(),
        ..PlacementRequest::default()
    };
    let additional = AdditionalRequest {
        path: path(&request.src)?,
        file: file_id(request.file_id),
        holder: name(request.client_name)?,
        block: block_of(&request.blk),
        placement,
    };
    let chosen = service.additional_targets(asker, &additional)?;
    let targets: Vec<Target> = existing.into_iter().chain(chosen).collect();
    let block = at_targets(service, block_of(&request.blk), u64::MAX, &targets);
    Ok(hdfs::GetAdditionalDatanodeResponseProto { block })
}

fn existing_targets(
    service: &Service,
    request: &hdfs::GetAdditionalDatanodeRequestProto,
) -> Result<Vec<Target>, Refusal> {
    let existing = nodes(&request.existings)?;
    if request.existing_storage_uuids.is_empty() {
        // A client that names no volumes: whichever its nodes have.
        let anywhere = StorageUuid::from("");
        let targets = existing.into_iter().map(|datanode| Target {
            datanode,
            storage: anywhere.clone(),
            kind: mobula_types::StorageType::default(),
        });
        return Ok(targets.collect());
    }
    let words = || format!("src={}, blk={}", request.src, block_of(&request.blk));
    targets_of(service, existing, &request.existing_storage_uuids, words)
}

/// Nodes and their volumes, as a client names them: as many of one as of the other
/// (`DatanodeManager.getDatanodeStorageInfos`).
pub fn targets_of(
    service: &Service,
    nodes: Vec<DatanodeUuid>,
    storages: &[String],
    words: impl FnOnce() -> String,
) -> Result<Vec<Target>, Refusal> {
    if nodes.len() != storages.len() {
        let why = match storages.len() {
            0 => {
                "Missing storageIDs: It is likely that the HDFS client, who made this call, is running in an \
                  older version of Hadoop which does not support storageIDs."
                    .to_owned()
            }
            given => format!("Length mismatched: storageIDs.length={given} != "),
        };
        let words = format!("{why} datanodeID.length={}, {}", nodes.len(), words());
        return Err(Refusal::IllegalArgument(words));
    }
    for (node, storage) in nodes.iter().zip(storages) {
        check_id("DataNode's UUID", node.as_str())?;
        check_id("storage's ID", storage)?;
    }
    let known = service.nodes(mobula_fleet::NodeFilter::All);
    let targets = nodes.into_iter().zip(storages).map(|(datanode, storage)| {
        let storage = StorageUuid::from(storage.as_str());
        let node = known.iter().find(|node| node.info.id.uuid == datanode);
        let volume = node.and_then(|node| node.storages.iter().find(|volume| volume.storage == storage));
        let kind = volume.map(|volume| volume.kind).unwrap_or_default();
        Target { datanode, storage, kind }
    });
    Ok(targets.collect())
}

/// `abandonBlock`.
pub fn abandon_block(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::AbandonBlockRequestProto| {
        Ok(Operation::AbandonBlock {
            path: path(&request.src)?,
            file: file_id(request.file_id),
            holder: name(request.holder)?,
            block: block_of(&request.b),
        })
    };
    change(service, asker, body, reply, operation, |_| hdfs::AbandonBlockResponseProto {});
}

/// `complete`; the file then gets another name, if that is wished.
pub fn complete(service: &Arc<Service>, asker: &Asker, body: &[u8], reply: Responder) {
    let typed = |WithWish(request, wish): WithWish<hdfs::CompleteRequestProto, _>| {
        Ok(CompleteRequest {
            renamed: renamed(wish)?,
            path: path(&request.src)?,
            file: file_id(request.file_id),
            holder: name(request.client_name)?,
            last: request.last.as_ref().map(|block| own_block(&service.format.pool, block)).transpose()?,
        })
    };
    let begin = |request: CompleteRequest, done: Completed| {
        let wished = request.renamed.is_some();
        service.complete(asker, request, Box::new(move |ended| done(ended.map(|outcome| (outcome, wished)))));
    };
    begun(body, reply, typed, begin, |(outcome, wished): (Outcome, bool)| {
        let result = is_closed(&outcome)?;
        Ok(CompleteAnswer { result, renamed: (wished && result).then_some(true) })
    });
}

/// Takes how a `complete` ended, and whether another name was wished.
type Completed = Box<dyn FnOnce(Result<(Outcome, bool), Refusal>) + Send>;

/// A call number that was used before for another call is remembered with that call's answer, which tells nothing of
/// this file.
fn is_closed(outcome: &Outcome) -> Result<bool, Refusal> {
    match outcome {
        Outcome::Bool(closed) => Ok(*closed),
        Outcome::Done => Ok(true),
        other => Err(Refusal::Io(format!("complete was answered {other:?}"))),
    }
}

fn renamed(wish: CompleteWish) -> Result<Option<(HdfsPath, Overwrite)>, Refusal> {
    let Some(target) = wish.target else { return Ok(None) };
    let overwrite = if wish.overwrite.unwrap_or(false) { Overwrite::Yes } else { Overwrite::No };
    Ok(Some((new_path("rename", &target, invalid_file_name)?, overwrite)))
}

/// `fsync`: -1 leaves the last block's length as it is.
pub fn fsync(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::FsyncRequestProto| {
        Ok(Operation::Fsync {
            path: path(&request.src)?,
            file: file_id(request.file_id),
            holder: name(request.client)?,
            last_length: request.last_block_length.and_then(|length| u64::try_from(length).ok()),
        })
    };
    change(service, asker, body, reply, operation, |_| hdfs::FsyncResponseProto {});
}

/// `renewLease`.
///
/// # Errors
/// Standby, SafeMode; Io for a federated client's list of namespaces.
pub fn renew_lease(
    service: &Service,
    request: hdfs::RenewLeaseRequestProto,
) -> Result<hdfs::RenewLeaseResponseProto, Refusal> {
    if !request.namespaces.is_empty() {
        return Err(Refusal::Io(format!(
            "namespaces({:?}) should be null or empty",
            request.namespaces.iter().take(3).collect::<Vec<_>>()
        )));
    }
    service.renew_lease(&request.client_name)?;
    Ok(hdfs::RenewLeaseResponseProto {})
}

/// `recoverLease`.
pub fn recover_lease(service: &Arc<Service>, asker: Asker, body: &[u8], reply: Responder) {
    let typed =
        |request: hdfs::RecoverLeaseRequestProto| Ok((path(&request.src)?, name(request.client_name)?));
    let service = Arc::clone(service);
    awaited(body, reply, typed, |(path, holder)| async move {
        let result = service.recover_lease(&asker, path, holder).await?;
        Ok(hdfs::RecoverLeaseResponseProto { result })
    });
}

/// `reportBadBlocks`: a reader found a checksum that does not match.
///
/// # Errors
/// Standby.
pub fn report_bad_blocks(
    service: &Service,
    request: hdfs::ReportBadBlocksRequestProto,
) -> Result<hdfs::ReportBadBlocksResponseProto, Refusal> {
    service.check_leads()?;
    bad_blocks(service, &request.blocks)?;
    Ok(hdfs::ReportBadBlocksResponseProto {})
}

/// Tells the fleet of bad replicas, from readers and from DataNodes.
///
/// # Errors
/// BadRequest for more of them than anybody tells of at once.
pub fn bad_blocks(service: &Service, blocks: &[hdfs::LocatedBlockProto]) -> Result<(), Refusal> {
    check_count(blocks.iter().map(|located| located.locs.len().max(1)).sum())?;
    for located in blocks {
        let block = block_of(&located.b);
        let storages = located.storage_i_ds.iter().map(|id| Some(StorageUuid::from(id.as_str())));
        let at: Vec<_> = located
            .locs
            .iter()
            .map(|node| DatanodeUuid::from(node.id.datanode_uuid.as_str()))
            .zip(storages.chain(std::iter::repeat(None)))
            .collect();
        tracing::warn!(%block, replicas = at.len(), "bad replicas were reported");
        service.roster.tell(|fleet, now, table| fleet.on_bad_replica(now, block, &at, table));
    }
    Ok(())
}
