//! DatanodeProtocol and DatanodeLifelineProtocol: what DataNodes, ours and Apache's, tell, and the
//! orders that they are answered with (PROTOCOL-NAMENODE, section 5).
//!
//! Invariant: no DataNode is ever answered UnregisteredNodeException, which ends an Apache
//! DataNode's service for good: an unknown one is told to register.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mobula_fleet::{
    Fleet, Heartbeat, HeartbeatAnswer, NodeError, Order, ReceivedDeleted, Registration, ReplicaNews,
    ReportError, VOLUMES_MAX,
};
use mobula_namespace::CommitBlockSynchronization;
use mobula_proto::hdfs;
use mobula_proto::hdfs::datanode as dn;
use mobula_rpc::{Call, Responder};
use mobula_types::{Block, DatanodeUuid, GenStamp, Millis, StorageUuid, StoredReplica, Target};
use mobula_wire::extension::{Heard, WithWish};
use mobula_wire::{WireError, block_report, convert};

use crate::client_block::{NODES_MAX, bad_blocks, check_id, targets_of};
use crate::client_rpc::{awaited, read};
use crate::connections::Connections;
use crate::exceptions::Refusal;
use crate::located::{Locator, block_of, located_node};
use crate::service::Service;

/// Java's name of the protocol.
pub const PROTOCOL: &str = "org.apache.hadoop.hdfs.server.protocol.DatanodeProtocol";
/// Java's name of the lifeline's.
pub const LIFELINE: &str = "org.apache.hadoop.hdfs.server.protocol.DatanodeLifelineProtocol";

/// What Apache's DataNodes compare with their own version.
const SOFTWARE_VERSION: &str = "3.5.0";
/// HDFS's layout of the NameNode in 3.4 and 3.5; DataNodes do not compare it.
const LAYOUT_VERSION: i32 = -67;
/// `STORAGE_BLOCK_REPORT_BUFFERS`: reports come as buffers.
const CAPABILITIES: u64 = 1;
/// Replicas of a report that are taken under one hold of the fleet's lock: some milliseconds.
const REPORT_SLICE: usize = 10_000;

/// Answers one call of DatanodeProtocol.
pub fn call(service: &Arc<Service>, connections: &Connections, call: &Call, reply: Responder) {
    let (s, body) = (service, &call.body[..]);
    match &call.method[..] {
        b"sendHeartbeat" => read(body, reply, |q| send_heartbeat(s, connections, call.peer, q)),
        b"blockReceivedAndDeleted" => read(body, reply, |q| block_received_and_deleted(s, q)),
        b"blockReport" => block_report(s, body, reply),
        b"versionRequest" => read(body, reply, |_: hdfs::VersionRequestProto| {
            Ok(hdfs::VersionResponseProto { info: namespace_info(s) })
        }),
        b"registerDatanode" => read(body, reply, |q| register_datanode(s, connections, call.peer, q)),
        b"cacheReport" => {
            read(body, reply, |_: dn::CacheReportRequestProto| Ok(dn::CacheReportResponseProto { cmd: None }))
        }
        b"errorReport" => read(body, reply, |q| error_report(s, q)),
        b"reportBadBlocks" => read(body, reply, |q: dn::ReportBadBlocksRequestProto| {
            bad_blocks(s, &q.blocks)?;
            Ok(dn::ReportBadBlocksResponseProto {})
        }),
        b"commitBlockSynchronization" => commit_block_synchronization(s, body, reply),
        _ => reply.no_such_method(call),
    }
}

/// Answers one call of DatanodeLifelineProtocol: a heartbeat whose orders come with the next one.
pub fn lifeline(service: &Service, call: &Call, reply: Responder) {
    if &call.method[..] != b"sendLifeline" {
        return reply.no_such_method(call);
    }
    read(&call.body, reply, |request: dn::HeartbeatRequestProto| {
        let beat = heartbeat(&request)?;
        service.roster.tell(|fleet, now, _| {
            if !is_elsewhere(fleet, &request.registration) {
                fleet.on_lifeline(now, beat);
            }
        });
        Ok(mobula_proto::hdfs::datanodelifeline::LifelineResponseProto {})
    });
}

/// Who this cluster is.
pub fn namespace_info(service: &Service) -> hdfs::NamespaceInfoProto {
    use hdfs::nnha_status_heartbeat_proto::State;
    let state = if service.check_leads().is_ok() { State::Active } else { State::Standby };
    hdfs::NamespaceInfoProto {
        build_version: SOFTWARE_VERSION.into(),
        unused: 0,
        block_pool_id: service.format.pool.as_str().to_owned(),
        storage_info: storage_info(service),
        software_version: SOFTWARE_VERSION.into(),
        capabilities: Some(CAPABILITIES),
        state: Some(state as i32),
    }
}

fn storage_info(service: &Service) -> hdfs::StorageInfoProto {
    hdfs::StorageInfoProto {
        layout_version: LAYOUT_VERSION.cast_unsigned(),
        namespce_id: service.format.namespace_id,
        cluster_id: service.format.cluster_id.clone(),
        c_time: service.format.created.0,
    }
}

// ---- registration ----

fn register_datanode(
    service: &Service,
    connections: &Connections,
    peer: SocketAddr,
    request: dn::RegisterDatanodeRequestProto,
) -> Result<dn::RegisterDatanodeResponseProto, Refusal> {
    let mut registration = request.registration;
    check_cluster(service, &registration)?;
    if !service.config.trust_advertised_address || registration.datanode_id.ip_addr.is_empty() {
        registration.datanode_id.ip_addr = peer.ip().to_string();
    }
    let named = &registration.datanode_id;
    for (what, name) in [
        ("DataNode's UUID", &named.datanode_uuid),
        ("DataNode's address", &named.ip_addr),
        ("DataNode's host name", &named.host_name),
        ("DataNode's version", &registration.software_version),
    ] {
        check_id(what, name)?;
    }
    let id = convert::datanode_id(&registration.datanode_id).map_err(|error| bad(&error))?;
    let address = id.xfer_address();
    let uuid = id.uuid.clone();
    let software_version = registration.software_version.clone();
    let registered =
        service.roster.tell(|fleet, now, _| fleet.on_register(now, Registration { id, software_version }));
    registered.map_err(|error| match error {
        mobula_fleet::RegisterError::IdentityInUse { .. } => Refusal::DisallowedDatanode(error.to_string()),
        mobula_fleet::RegisterError::TooManyVolumes { .. } => Refusal::Io(error.to_string()),
    })?;
    connections.heard(peer, &uuid);
    tracing::info!(node = %uuid, address, version = registration.software_version, "a DataNode registered");
    registration.keys = no_keys();
    Ok(dn::RegisterDatanodeResponseProto { registration })
}

/// A DataNode of another cluster would have its replicas deleted.
fn check_cluster(service: &Service, registration: &dn::DatanodeRegistrationProto) -> Result<(), Refusal> {
    let (theirs, ours) = (&registration.storage_info, &service.format);
    if theirs.namespce_id == ours.namespace_id && theirs.cluster_id == ours.cluster_id {
        return Ok(());
    }
    Err(Refusal::Io(format!(
        "DataNode {} is of cluster {} with namespace {}, and this is cluster {} with namespace {}",
        registration.datanode_id.datanode_uuid,
        theirs.cluster_id,
        theirs.namespce_id,
        ours.cluster_id,
        ours.namespace_id
    )))
}

/// Block tokens are off; the fields are required nevertheless.
fn no_keys() -> hdfs::ExportedBlockKeysProto {
    hdfs::ExportedBlockKeysProto {
        is_block_token_enabled: false,
        key_update_interval: 0,
        token_life_time: 0,
        current_key: hdfs::BlockKeyProto { key_id: 0, expiry_date: 0, key_bytes: Some(Bytes::new()) },
        all_keys: Vec::new(),
    }
}

// ---- heartbeats ----

fn send_heartbeat(
    service: &Service,
    connections: &Connections,
    peer: SocketAddr,
    request: dn::HeartbeatRequestProto,
) -> Result<dn::HeartbeatResponseProto, Refusal> {
    check_cluster(service, &request.registration)?;
    let beat = heartbeat(&request)?;
    connections.heard(peer, &beat.node);
    let pool = service.format.pool.as_str();
    let (answer, cmds) = service.roster.tell(|fleet, now, table| {
        let answer = match is_elsewhere(fleet, &request.registration) {
            true => HeartbeatAnswer { orders: vec![Order::Register], report_lease: 0 },
            false => fleet.on_heartbeat(now, beat, table),
        };
        let commands = commands(fleet, pool, &answer);
        (answer, commands)
    });
    use hdfs::nnha_status_heartbeat_proto::State;
    let state = if service.check_leads().is_ok() { State::Active } else { State::Standby };
    Ok(dn::HeartbeatResponseProto {
        cmds,
        ha_status: hdfs::NnhaStatusHeartbeatProto { state: state as i32, txid: service.transaction() },
        rolling_upgrade_status: None,
        rolling_upgrade_status_v2: None,
        full_block_report_lease_id: Some(answer.report_lease),
        is_slownode: Some(false),
    })
}

fn heartbeat(request: &dn::HeartbeatRequestProto) -> Result<Heartbeat, Refusal> {
    check_volumes(request.reports.len())?;
    for report in &request.reports {
        check_id("storage's ID", &report.storage_uuid)?;
        check_id("storage's ID", report.storage.as_ref().map_or("", |storage| &storage.storage_uuid))?;
    }
    let storages: Result<Vec<_>, WireError> = request.reports.iter().map(convert::storage_report).collect();
    Ok(Heartbeat {
        node: node_of(&request.registration),
        storages: storages.map_err(|error| bad(&error))?,
        transfers: request.xmits_in_progress.unwrap_or(0),
        xceivers: request.xceiver_count.unwrap_or(0),
        failed_volumes: request.failed_volumes.unwrap_or(0),
        wants_report_lease: request.request_full_block_report_lease.unwrap_or(false),
        cache_capacity: request.cache_capacity.unwrap_or(0),
        cache_used: request.cache_used.unwrap_or(0),
    })
}

/// What a copy of a node says is not taken for the node's own word.
fn is_elsewhere(fleet: &Fleet, registration: &dn::DatanodeRegistrationProto) -> bool {
    let id = &registration.datanode_id;
    fleet.is_elsewhere(&node_of(registration), &id.ip_addr, u16::try_from(id.xfer_port).unwrap_or(0))
}

/// More volumes than a node may have would be looked for one by one.
fn check_volumes(count: usize) -> Result<(), Refusal> {
    if count > VOLUMES_MAX {
        return Err(Refusal::BadRequest(format!("{count} volumes: a DataNode may have {VOLUMES_MAX}")));
    }
    Ok(())
}

fn node_of(registration: &dn::DatanodeRegistrationProto) -> DatanodeUuid {
    DatanodeUuid::from(registration.datanode_id.datanode_uuid.as_str())
}

fn bad(error: &WireError) -> Refusal {
    Refusal::BadRequest(error.to_string())
}

/// Orders as commands: all recoveries in one, all copies in another, all deletions in a third.
fn commands(fleet: &Fleet, pool: &str, answer: &HeartbeatAnswer) -> Vec<dn::DatanodeCommandProto> {
    let mut copies = block_command(pool, dn::block_command_proto::Action::Transfer);
    let mut deletes = block_command(pool, dn::block_command_proto::Action::Invalidate);
    let mut recoveries = Vec::new();
    let mut commands = Vec::new();
    for order in &answer.orders {
        match order {
            Order::Register => commands.push(register_command()),
            Order::Recover { block, recovery, targets, truncate } => {
                recoveries.push(recovering_block(fleet, pool, *block, *recovery, targets, *truncate));
            }
            Order::Delete { blocks } => deletes.blocks.extend(blocks.iter().map(convert::block_proto)),
            Order::Copy { block, targets } => {
                copies.blocks.push(convert::block_proto(block));
                push_targets(fleet, &mut copies, targets);
            }
        }
    }
    if !recoveries.is_empty() {
        commands.push(dn::DatanodeCommandProto {
            cmd_type: dn::datanode_command_proto::Type::BlockRecoveryCommand as i32,
            recovery_cmd: Some(dn::BlockRecoveryCommandProto { blocks: recoveries }),
            ..dn::DatanodeCommandProto::default()
        });
    }
    for command in [copies, deletes] {
        if !command.blocks.is_empty() {
            commands.push(dn::DatanodeCommandProto {
                cmd_type: dn::datanode_command_proto::Type::BlockCommand as i32,
                blk_cmd: Some(command),
                ..dn::DatanodeCommandProto::default()
            });
        }
    }
    commands
}

/// A recovery with all who have a part in it. A truncation has the block once more, with the stamp and
/// the length that it is to have (`DatanodeManager.getBlockRecoveryCommand`).
fn recovering_block(
    fleet: &Fleet,
    pool: &str,
    block: Block,
    recovery: GenStamp,
    targets: &[Target],
    truncate: Option<u64>,
) -> hdfs::RecoveringBlockProto {
    let locator = Locator { fleet, now: Millis(0), pool, reader: "" };
    hdfs::RecoveringBlockProto {
        new_gen_stamp: recovery.0,
        block: locator.at_all_targets(block, 0, targets),
        truncate_block: truncate
            .map(|length| convert::block_proto(&Block { id: block.id, stamp: recovery, length })),
        ec_policy: None,
        block_indices: None,
    }
}

fn block_command(pool: &str, action: dn::block_command_proto::Action) -> dn::BlockCommandProto {
    dn::BlockCommandProto {
        action: action as i32,
        block_pool_id: pool.to_owned(),
        ..dn::BlockCommandProto::default()
    }
}

/// One list of nodes, volumes and media for the block that was pushed before.
fn push_targets(fleet: &Fleet, command: &mut dn::BlockCommandProto, targets: &[Target]) {
    let mut nodes = hdfs::DatanodeInfosProto { datanodes: Vec::new() };
    let mut storages = hdfs::StorageUuidsProto { storage_uuids: Vec::new() };
    let mut media = hdfs::StorageTypesProto { storage_types: Vec::new() };
    for target in targets {
        let Some(node) = fleet.node(&target.datanode) else { continue };
        nodes.datanodes.push(located_node(&node));
        storages.storage_uuids.push(target.storage.as_str().to_owned());
        media.storage_types.push(target.kind as i32);
    }
    command.targets.push(nodes);
    command.target_storage_uuids.push(storages);
    command.target_storage_types.push(media);
}

fn register_command() -> dn::DatanodeCommandProto {
    dn::DatanodeCommandProto {
        cmd_type: dn::datanode_command_proto::Type::RegisterCommand as i32,
        register_cmd: Some(dn::RegisterCommandProto {}),
        ..dn::DatanodeCommandProto::default()
    }
}

// ---- reports ----

fn block_received_and_deleted(
    service: &Service,
    request: dn::BlockReceivedAndDeletedRequestProto,
) -> Result<dn::BlockReceivedAndDeletedResponseProto, Refusal> {
    check_cluster(service, &request.registration)?;
    check_volumes(request.blocks.len())?;
    let node = node_of(&request.registration);
    if service.roster.ask(|fleet, _| is_elsewhere(fleet, &request.registration)) {
        tracing::warn!(%node, "news from another address than the node registered from: not taken");
        return Ok(dn::BlockReceivedAndDeletedResponseProto {});
    }
    for volume in &request.blocks {
        let storage = volume.storage.as_ref().map_or(&volume.storage_uuid, |storage| &storage.storage_uuid);
        check_id("storage's ID", storage)?;
        let storage = StorageUuid::from(storage.as_str());
        let news: Vec<_> = volume.blocks.iter().map(received_deleted).collect::<Result<_, _>>()?;
        // An unknown node is told to register with its next heartbeat, and reports in full then.
        service
            .roster
            .tell(|fleet, now, table| fleet.on_received_deleted(now, &node, &storage, &news, table));
        service.roster.reported(news.iter().map(|news| news.block.id));
    }
    Ok(dn::BlockReceivedAndDeletedResponseProto {})
}

fn received_deleted(info: &dn::ReceivedDeletedBlockInfoProto) -> Result<ReceivedDeleted, Refusal> {
    use dn::received_deleted_block_info_proto::BlockStatus;
    let news = match BlockStatus::try_from(info.status) {
        Ok(BlockStatus::Receiving) => ReplicaNews::Receiving,
        Ok(BlockStatus::Received) => ReplicaNews::Received,
        Ok(BlockStatus::Deleted) => ReplicaNews::Deleted,
        Err(_) => return Err(Refusal::BadRequest(format!("no such news of a replica: {}", info.status))),
    };
    let hint = info.delete_hint.as_deref().filter(|hint| !hint.is_empty());
    Ok(ReceivedDeleted {
        block: convert::block(&info.block).map_err(|error| bad(&error))?,
        news,
        delete_hint: hint.map(DatanodeUuid::from),
    })
}

/// A full report: read off the connection's task, taken in slices, one report at a time, so that
/// neither the lock nor memory is held for all of them.
fn block_report(service: &Arc<Service>, body: &[u8], reply: Responder) {
    let service = Arc::clone(service);
    awaited(body, reply, Ok, |request| async move {
        let cmd = take_report(&service, request).await?;
        Ok(dn::BlockReportResponseProto { cmd })
    });
}

async fn take_report(
    service: &Service,
    request: dn::BlockReportRequestProto,
) -> Result<Option<dn::DatanodeCommandProto>, Refusal> {
    check_cluster(service, &request.registration)?;
    check_volumes(request.reports.len())?;
    if service.roster.ask(|fleet, _| is_elsewhere(fleet, &request.registration)) {
        return Ok(Some(register_command()));
    }
    let node = node_of(&request.registration);
    let (lease, last_rpc) = match &request.context {
        None => (0, true),
        Some(context) => (context.lease_id.unwrap_or(0), context.cur_rpc + 1 >= context.total_rpcs),
    };
    if let Some(volume) = request.reports.first() {
        // Before it waits its turn: who has no lease keeps nothing in memory meanwhile.
        let storage = storage_of(volume)?;
        let begun =
            service.roster.tell_quietly(|fleet, now, _| fleet.report_begin(now, &node, &storage, lease));
        use ReportError::{BadLease, TooManyVolumes, UnknownNode};
        if let Err(error @ (UnknownNode(_) | BadLease { .. } | TooManyVolumes { .. })) = begun
            && let Some(answer) = report_refused(&node, &storage, error)
        {
            return answer;
        }
    }
    let _one_at_a_time = service.reports.acquire().await;
    let volumes = request.reports.len();
    for (at, volume) in request.reports.into_iter().enumerate() {
        let last = last_rpc && at + 1 == volumes;
        let storage = storage_of(&volume)?;
        let replicas = service.report_pool.run(move || sorted_replicas(&volume)).await?;
        match take_volume(service, &node, &storage, &replicas, lease, last).await {
            Ok(()) => {
                tracing::debug!(%node, %storage, replicas = replicas.len(), "a volume reported in full")
            }
            Err(error) => {
                if let Some(answer) = report_refused(&node, &storage, error) {
                    return answer;
                }
            }
        }
    }
    Ok(None)
}

fn storage_of(volume: &dn::StorageBlockReportProto) -> Result<StorageUuid, Refusal> {
    check_id("storage's ID", &volume.storage.storage_uuid)?;
    Ok(StorageUuid::from(volume.storage.storage_uuid.as_str()))
}

/// What a report is answered of which a volume was not taken; none if its other volumes may be.
fn report_refused(
    node: &DatanodeUuid,
    storage: &StorageUuid,
    error: ReportError,
) -> Option<Result<Option<dn::DatanodeCommandProto>, Refusal>> {
    match error {
        ReportError::UnknownNode(_) => Some(Ok(Some(register_command()))),
        ReportError::BadLease { node, lease } => {
            Some(Err(Refusal::ReportLease { node: node.to_string(), lease }))
        }
        ReportError::TooManyVolumes { slots } => {
            Some(Err(Refusal::Io(format!("{slots} volumes are known, which is the limit"))))
        }
        ReportError::UnhealthyStorage { .. } | ReportError::Overtaken { .. } => {
            tracing::warn!(%node, %storage, %error, "a full report was not taken");
            None
        }
    }
}

fn sorted_replicas(volume: &dn::StorageBlockReportProto) -> Result<Vec<StoredReplica>, Refusal> {
    let decoded = match volume.number_of_blocks {
        Some(count) if volume.blocks.is_empty() => block_report::decode(count, &volume.blocks_buffers),
        _ => block_report::decode_longs(&volume.blocks),
    };
    let mut replicas = decoded.map_err(|error| bad(&error))?;
    replicas.sort_unstable_by_key(|replica| replica.block.id);
    Ok(replicas)
}

async fn take_volume(
    service: &Service,
    node: &DatanodeUuid,
    storage: &StorageUuid,
    replicas: &[StoredReplica],
    lease: u64,
    last: bool,
) -> Result<(), ReportError> {
    let roster = &service.roster;
    let mut cursor = roster.tell_quietly(|fleet, now, _| fleet.report_begin(now, node, storage, lease))?;
    for slice in replicas.chunks(REPORT_SLICE) {
        roster.tell(|fleet, now, table| fleet.report_slice(now, &mut cursor, slice, table))?;
        tokio::task::yield_now().await;
    }
    roster.tell(|fleet, now, table| fleet.report_finish(now, cursor, last, table))?;
    roster.reported_all();
    Ok(())
}

/// How a block's recovery ended.
fn commit_block_synchronization(service: &Arc<Service>, body: &[u8], reply: Responder) {
    let there = Arc::clone(service);
    awaited(
        body,
        reply,
        |request| synchronization(service, request),
        |(request, heard): (CommitBlockSynchronization, Vec<DatanodeUuid>)| async move {
            let (block, recovery, length) = (request.block, request.stamp, request.length);
            let (close, delete) = (request.close, request.delete);
            let done = there.synchronize(request, &heard).await;
            match &done {
                Ok(()) => tracing::info!(%block, %recovery, length, close, delete, "a block was recovered"),
                Err(refusal) => {
                    tracing::warn!(%block, %recovery, length, delete, %refusal, "a recovery's result was not taken")
                }
            }
            done.map(|()| dn::CommitBlockSynchronizationResponseProto {})
        },
    );
}

fn synchronization(
    service: &Service,
    WithWish(request, told): WithWish<dn::CommitBlockSynchronizationRequestProto, Heard>,
) -> Result<(CommitBlockSynchronization, Vec<DatanodeUuid>), Refusal> {
    let nodes: Vec<_> =
        request.new_taragets.iter().take(NODES_MAX).map(|node| node.datanode_uuid.as_str().into()).collect();
    let block = block_of(&request.block);
    let targets = targets_of(service, nodes, &request.new_target_storages, || format!("block={block}"))?;
    let commit = CommitBlockSynchronization {
        block,
        stamp: GenStamp(request.new_gen_stamp),
        length: request.new_length,
        close: request.close_file,
        delete: request.delete_block,
        // Apache's primary names an empty node for a block that it dropped.
        targets: targets.into_iter().filter(|target| !target.datanode.as_str().is_empty()).collect(),
    };
    let heard = told.heard.iter().take(NODES_MAX).map(|uuid| uuid.as_str().into()).collect();
    Ok((commit, heard))
}

fn error_report(
    service: &Service,
    request: dn::ErrorReportRequestProto,
) -> Result<dn::ErrorReportResponseProto, Refusal> {
    let node = node_of(&request.registartion);
    let error = match request.error_code {
        0 => NodeError::Notice,
        1 => NodeError::Disk,
        2 => NodeError::InvalidBlock,
        3 => NodeError::FatalDisk,
        other => return Err(Refusal::BadRequest(format!("no such error code: {other}"))),
    };
    let stops = error == NodeError::Notice && request.msg == STOPPING;
    if stops {
        tracing::info!(%node, "a DataNode stops in order");
    } else {
        tracing::warn!(%node, code = request.error_code, words = request.msg, "a DataNode reports an error");
    }
    service.roster.tell(|fleet, now, _| match stops {
        _ if is_elsewhere(fleet, &request.registartion) => {}
        true => fleet.on_stopping(now, &node),
        false => fleet.on_error_report(now, &node, error),
    });
    Ok(dn::ErrorReportResponseProto {})
}

/// The words of a NOTIFY by which our DataNodes say that they stop in order (D5). Apache's say nothing.
const STOPPING: &str = "stopping";
