//! ClientProtocol's calls of administrators and monitors: figures, reports, safe mode.

use std::sync::Arc;

use mobula_fleet::NodeFilter;
use mobula_proto::hdfs;
use mobula_rpc::{Call, Responder};
use mobula_types::InodeId;
use mobula_wire::remote::RemoteException;

use crate::asker::Asker;
use crate::client_rpc::{decode, path, read, read_tree};
use crate::exceptions::Refusal;
use crate::located::{node_report, storage_report};
use crate::service::Service;

/// Files of one `listCorruptFileBlocks` (`dfs.corruptfilesreturned.max`).
const CORRUPT_FILES_MAX: usize = 500;
/// Files of one `listOpenFiles` (`dfs.namenode.list.openfiles.num.responses`).
const OPEN_FILES_MAX: usize = 1_000;

/// Answers the call if it is one of these, else hands it back.
pub fn call(
    service: &Arc<Service>,
    asker: &Asker,
    call: Call,
    reply: Responder,
) -> Option<(Call, Responder)> {
    let (s, body) = (service, &call.body[..]);
    match &call.method[..] {
        b"getFsStats" => read(body, reply, |q| get_fs_stats(s, q)),
        b"getFsReplicatedBlockStats" => read(body, reply, |q| get_replicated_block_stats(s, q)),
        b"getFsECBlockGroupStats" => read(body, reply, |q| get_ec_block_group_stats(s, q)),
        b"getDatanodeReport" => read(body, reply, |q| get_datanode_report(s, asker, q)),
        b"getDatanodeStorageReport" => read(body, reply, |q| get_datanode_storage_report(s, asker, q)),
        b"getSlowDatanodeReport" => read(body, reply, |q| get_slow_datanode_report(s, asker, q)),
        b"listCorruptFileBlocks" => read_tree(s, asker.clone(), body, reply, list_corrupt_file_blocks),
        b"listOpenFiles" => read(body, reply, |q| list_open_files(s, asker, q)),
        b"setSafeMode" => read(body, reply, |q| set_safe_mode(s, asker, q)),
        b"saveNamespace" => save_namespace(s, asker, body, reply),
        b"rollEdits" => read(body, reply, |q| roll_edits(s, asker, q)),
        b"restoreFailedStorage" => read(body, reply, |q| restore_failed_storage(s, asker, q)),
        b"refreshNodes" => read(body, reply, |q| refresh_nodes(s, asker, q)),
        b"finalizeUpgrade" => read(body, reply, |q| finalize_upgrade(s, asker, q)),
        b"upgradeStatus" => read(body, reply, upgrade_status),
        b"rollingUpgrade" => read(body, reply, |q| rolling_upgrade(s, asker, q)),
        b"getCurrentEditLogTxid" => read(body, reply, |q| get_current_edit_log_txid(s, asker, q)),
        b"msync" => msync(s, reply),
        b"getHAServiceState" => read(body, reply, get_ha_service_state),
        _ => return Some((call, reply)),
    }
    None
}

fn get_fs_stats(
    service: &Service,
    _request: hdfs::GetFsStatusRequestProto,
) -> Result<hdfs::GetFsStatsResponseProto, Refusal> {
    service.check_leads()?;
    let stats = service.fleet_stats();
    Ok(hdfs::GetFsStatsResponseProto {
        capacity: stats.capacity,
        used: stats.used,
        remaining: stats.remaining,
        under_replicated: stats.under_replicated,
        corrupt_blocks: stats.corrupt,
        missing_blocks: stats.missing,
        missing_repl_one_blocks: Some(stats.missing_repl_one),
        blocks_in_future: Some(stats.bytes_in_future),
        pending_deletion_blocks: Some(stats.pending_deletion),
    })
}

fn get_replicated_block_stats(
    service: &Service,
    _request: hdfs::GetFsReplicatedBlockStatsRequestProto,
) -> Result<hdfs::GetFsReplicatedBlockStatsResponseProto, Refusal> {
    service.check_leads()?;
    let stats = service.fleet_stats();
    Ok(hdfs::GetFsReplicatedBlockStatsResponseProto {
        low_redundancy: stats.under_replicated,
        corrupt_blocks: stats.corrupt,
        missing_blocks: stats.missing,
        missing_repl_one_blocks: stats.missing_repl_one,
        blocks_in_future: stats.bytes_in_future,
        pending_deletion_blocks: stats.pending_deletion,
        highest_prio_low_redundancy_blocks: Some(0),
        badly_distributed_blocks: Some(0),
    })
}

fn get_ec_block_group_stats(
    service: &Service,
    _request: hdfs::GetFsEcBlockGroupStatsRequestProto,
) -> Result<hdfs::GetFsEcBlockGroupStatsResponseProto, Refusal> {
    service.check_leads()?;
    // HDFS always fills in the optional ones, too: `dfsadmin -report` prints a line only for what is there.
    Ok(hdfs::GetFsEcBlockGroupStatsResponseProto {
        highest_prio_low_redundancy_blocks: Some(0),
        badly_distributed_blocks: Some(0),
        ..Default::default()
    })
}

/// HDFS's filter as ours; `None` for states that no node has yet.
fn node_filter(number: i32) -> Result<Option<NodeFilter>, Refusal> {
    use hdfs::DatanodeReportTypeProto as Type;
    let kind = Type::try_from(number)
        .map_err(|_| Refusal::BadRequest(format!("no such type of report: {number}")))?;
    Ok(match kind {
        Type::All => Some(NodeFilter::All),
        Type::Live => Some(NodeFilter::Live),
        Type::Dead => Some(NodeFilter::Dead),
        Type::Decommissioning | Type::EnteringMaintenance | Type::InMaintenance => None,
    })
}

fn get_datanode_report(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetDatanodeReportRequestProto,
) -> Result<hdfs::GetDatanodeReportResponseProto, Refusal> {
    service.check_superuser(asker, "datanodeReport")?;
    let Some(filter) = node_filter(request.r#type)? else {
        return Ok(hdfs::GetDatanodeReportResponseProto { di: Vec::new() });
    };
    let nodes = service.datanode_report(asker, "datanodeReport", filter)?;
    let epoch = service.epoch();
    let di = nodes.iter().map(|node| node_report(node, epoch)).collect();
    Ok(hdfs::GetDatanodeReportResponseProto { di })
}

fn get_datanode_storage_report(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetDatanodeStorageReportRequestProto,
) -> Result<hdfs::GetDatanodeStorageReportResponseProto, Refusal> {
    service.check_superuser(asker, "getDatanodeStorageReport")?;
    let Some(filter) = node_filter(request.r#type)? else {
        return Ok(hdfs::GetDatanodeStorageReportResponseProto { datanode_storage_reports: Vec::new() });
    };
    let nodes = service.datanode_report(asker, "getDatanodeStorageReport", filter)?;
    let epoch = service.epoch();
    let reports = nodes.iter().map(|node| hdfs::DatanodeStorageReportProto {
        datanode_info: node_report(node, epoch),
        storage_reports: node.storages.iter().map(storage_report).collect(),
    });
    Ok(hdfs::GetDatanodeStorageReportResponseProto { datanode_storage_reports: reports.collect() })
}

fn get_slow_datanode_report(
    service: &Service,
    asker: &Asker,
    _request: hdfs::GetSlowDatanodeReportRequestProto,
) -> Result<hdfs::GetSlowDatanodeReportResponseProto, Refusal> {
    service.check_superuser(asker, "getSlowDatanodeReport")?;
    Ok(hdfs::GetSlowDatanodeReportResponseProto { datanode_info_proto: Vec::new() })
}

/// The cookie is the number of blocks that were looked at, as in HDFS.
fn list_corrupt_file_blocks(
    service: &Service,
    asker: &Asker,
    request: hdfs::ListCorruptFileBlocksRequestProto,
) -> Result<hdfs::ListCorruptFileBlocksResponseProto, Refusal> {
    let skip = request.cookie.as_deref().and_then(|cookie| cookie.parse().ok()).unwrap_or(0);
    let within = path(&request.path)?;
    let (blocks, seen) = service.missing_blocks(asker, &within, skip, CORRUPT_FILES_MAX)?;
    let files = blocks.iter().map(|(_, path)| path.as_str().to_owned()).collect();
    let corrupt = hdfs::CorruptFileBlocksProto { files, cookie: seen.max(skip).to_string() };
    Ok(hdfs::ListCorruptFileBlocksResponseProto { corrupt })
}

fn list_open_files(
    service: &Service,
    asker: &Asker,
    request: hdfs::ListOpenFilesRequestProto,
) -> Result<hdfs::ListOpenFilesResponseProto, Refusal> {
    use hdfs::OpenFilesTypeProto as Type;
    let within = path(request.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/"))?;
    let mut after = InodeId(u64::try_from(request.id).unwrap_or(0));
    // Those that hold up a decommissioning: nothing is decommissioned yet.
    let all = request.types.is_empty() || request.types.contains(&(Type::AllOpenFiles as i32));
    let mut entries = Vec::new();
    let mut has_more = all;
    // A client goes on after the last one that it was given: a page must not be empty but for the last.
    while has_more && entries.len() < OPEN_FILES_MAX {
        let page = service.open_files(asker, after, OPEN_FILES_MAX - entries.len())?;
        has_more = !page.is_empty();
        after = page.last().map_or(after, |file| file.inode);
        let wanted = page.into_iter().filter(|file| file.path.is_within(&within));
        entries.extend(wanted.map(|file| hdfs::OpenFilesBatchResponseProto {
            id: i64::try_from(file.inode.0).unwrap_or(i64::MAX),
            path: file.path.as_str().to_owned(),
            client_name: file.holder,
            client_machine: file.machine,
        }));
    }
    if !all {
        service.check_superuser(asker, "listOpenFiles")?;
    }
    Ok(hdfs::ListOpenFilesResponseProto { entries, has_more, types: request.types })
}

fn set_safe_mode(
    service: &Service,
    asker: &Asker,
    request: hdfs::SetSafeModeRequestProto,
) -> Result<hdfs::SetSafeModeResponseProto, Refusal> {
    use hdfs::SafeModeActionProto as Action;
    let action = Action::try_from(request.action)
        .map_err(|_| Refusal::BadRequest(format!("no such safe mode action: {}", request.action)))?;
    let result = match action {
        Action::SafemodeGet => service.in_safe_mode(),
        Action::SafemodeEnter => service.set_safe_mode(asker, "safemode_enter", true)?,
        Action::SafemodeLeave => service.set_safe_mode(asker, "safemode_leave", false)?,
        Action::SafemodeForceExit => service.set_safe_mode(asker, "safemode_force_exit", false)?,
    };
    Ok(hdfs::SetSafeModeResponseProto { result })
}

fn save_namespace(service: &Arc<Service>, asker: &Asker, body: &[u8], reply: Responder) {
    if let Err(refusal) = decode::<hdfs::SaveNamespaceRequestProto>(body) {
        return reply.error(&refusal.into());
    }
    let (service, asker) = (Arc::clone(service), asker.clone());
    tokio::spawn(async move {
        let saved = service.save_namespace(&asker).await;
        let answer = saved.map(|()| hdfs::SaveNamespaceResponseProto { saved: Some(true) });
        reply.finish(answer.map_err(RemoteException::from));
    });
}

/// The log rolls by itself; the answer is where it stands.
fn roll_edits(
    service: &Service,
    asker: &Asker,
    _request: hdfs::RollEditsRequestProto,
) -> Result<hdfs::RollEditsResponseProto, Refusal> {
    service.check_superuser(asker, "rollEditLog")?;
    service.safe_mode.check(|| "Log not rolled".into())?;
    Ok(hdfs::RollEditsResponseProto { new_segment_tx_id: service.transaction() + 1 })
}

fn restore_failed_storage(
    service: &Service,
    asker: &Asker,
    _request: hdfs::RestoreFailedStorageRequestProto,
) -> Result<hdfs::RestoreFailedStorageResponseProto, Refusal> {
    service.check_superuser(asker, "restoreFailedStorage")?;
    Ok(hdfs::RestoreFailedStorageResponseProto { result: false })
}

fn refresh_nodes(
    service: &Service,
    asker: &Asker,
    _request: hdfs::RefreshNodesRequestProto,
) -> Result<hdfs::RefreshNodesResponseProto, Refusal> {
    service.refresh_nodes(asker)?;
    Ok(hdfs::RefreshNodesResponseProto {})
}

fn finalize_upgrade(
    service: &Service,
    asker: &Asker,
    _request: hdfs::FinalizeUpgradeRequestProto,
) -> Result<hdfs::FinalizeUpgradeResponseProto, Refusal> {
    service.check_superuser(asker, "finalizeUpgrade")?;
    Ok(hdfs::FinalizeUpgradeResponseProto {})
}

fn upgrade_status(
    _request: hdfs::UpgradeStatusRequestProto,
) -> Result<hdfs::UpgradeStatusResponseProto, Refusal> {
    Ok(hdfs::UpgradeStatusResponseProto { upgrade_finalized: true })
}

fn rolling_upgrade(
    service: &Service,
    asker: &Asker,
    request: hdfs::RollingUpgradeRequestProto,
) -> Result<hdfs::RollingUpgradeResponseProto, Refusal> {
    service.check_superuser(asker, "queryRollingUpgrade")?;
    if request.action != hdfs::RollingUpgradeActionProto::Query as i32 {
        return Err(Refusal::Unsupported("Rolling upgrades are not supported yet"));
    }
    Ok(hdfs::RollingUpgradeResponseProto { rolling_upgrade_info: None })
}

fn get_current_edit_log_txid(
    service: &Service,
    asker: &Asker,
    _request: hdfs::GetCurrentEditLogTxidRequestProto,
) -> Result<hdfs::GetCurrentEditLogTxidResponseProto, Refusal> {
    service.check_superuser(asker, "getCurrentEditLogTxid")?;
    let txid = i64::try_from(service.transaction()).unwrap_or(i64::MAX);
    Ok(hdfs::GetCurrentEditLogTxidResponseProto { txid })
}

/// Waits until all that was acknowledged anywhere is readable here.
fn msync(service: &Arc<Service>, reply: Responder) {
    if let Err(refusal) = service.check_leads() {
        return reply.error(&refusal.into());
    }
    let service = Arc::clone(service);
    tokio::spawn(async move {
        match service.raft.read_index().await {
            Ok(()) => reply.success(&hdfs::MsyncResponseProto {}),
            Err(_) => reply.error(&Refusal::Standby.into()),
        }
    });
}

/// With one voter there is no high availability to speak of, and HDFS says so.
fn get_ha_service_state(
    _request: hdfs::HaServiceStateRequestProto,
) -> Result<hdfs::HaServiceStateResponseProto, Refusal> {
    Err(Refusal::ServiceFailed("HA for namenode is not enabled"))
}
