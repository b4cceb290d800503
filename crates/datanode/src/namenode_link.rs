//! One NameNode, as seen from here: an actor that registers, beats, reports and obeys
//! (HDFS: `BPServiceActor`, `BPOfferService`).
//!
//! Invariants: orders are taken from the active NameNode only, whose claims only rise; a full report
//! goes out only with a lease; single changes that could not be sent are sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::datanode as dn;
use mobula_proto::hdfs::nnha_status_heartbeat_proto::State as HaState;
use mobula_rpc::{CallError, RpcClient, RpcClientOptions};
use mobula_types::{Block, PoolId, StorageState, StorageUuid};
use mobula_wire::{block_report, convert};
use parking_lot::Mutex;
use prost::Message;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::block_recovery;
use crate::error::Stopped;
use crate::node::{Node, SOFTWARE_VERSION};
use crate::reports::{BadBlock, Change, Outbox, Trouble};
use crate::store::DeleteReport;
use crate::transfer::{self, Targets};
use crate::volume::Namespace;

/// Java's name of the protocol.
const PROTOCOL: &str = "org.apache.hadoop.hdfs.server.protocol.DatanodeProtocol";
/// Longest wait for a connection to a NameNode.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a NameNode's answer.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// The same for what is small and sent all the time, and for registering. A connection that died unheard must be
/// noticed, and another one made, before the node is declared dead: 10 s after its last heartbeat. A node that
/// waited longer to register would be away, with all that only it has, from recoveries that can do without it.
const BEAT_LIMIT: Duration = Duration::from_secs(5);
/// First pause after a call failed; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause (HDFS: 5 s between attempts to register).
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the last word to a NameNode may take.
pub(crate) const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// What it says (errorReport, NOTIFY).
const FAREWELL: &str = "stopping";
/// From so many replicas on, a full report is sent volume by volume (HDFS: `dfs.blockreport.split.threshold`).
const REPORT_SPLIT: usize = 1_000_000;
/// A NameNode that takes reports in buffers (`NamespaceInfo.Capability.STORAGE_BLOCK_REPORT_BUFFERS`).
const CAPABILITY_BUFFERS: u64 = 1;
/// A deletion with this length is not reported (HDFS: `BlockCommand.NO_ACK`).
const NO_ACK: u64 = i64::MAX as u64;
/// Exceptions after which a NameNode does not want this node any more.
const FATAL: [&str; 3] = [
    "org.apache.hadoop.hdfs.protocol.UnregisteredNodeException",
    "org.apache.hadoop.hdfs.server.protocol.DisallowedDatanodeException",
    "org.apache.hadoop.hdfs.server.common.IncorrectVersionException",
];

/// Which NameNode is active, by the claims of all.
#[derive(Debug, Default)]
pub(crate) struct Active(Mutex<Claim>);

#[derive(Debug, Default)]
struct Claim {
    namenode: Option<usize>,
    txid: Option<u64>,
}

impl Active {
    /// Takes a NameNode's word from a heartbeat; whether its orders count now.
    fn heard(&self, namenode: usize, state: i32, txid: u64) -> bool {
        let claims = state == HaState::Active as i32;
        let mut claim = self.0.lock();
        let holds = claim.namenode == Some(namenode);
        if claims && !holds {
            // Only a claim strictly above the last one counts: the older of two is deposed.
            if claim.txid.is_some_and(|last| txid <= last) {
                tracing::warn!(
                    namenode,
                    txid,
                    last = claim.txid,
                    "claims to be active with an old transaction"
                );
                return false;
            }
            claim.namenode = Some(namenode);
        } else if !claims && holds {
            claim.namenode = None;
        }
        if claim.namenode == Some(namenode) {
            claim.txid = Some(claim.txid.map_or(txid, |last| last.max(txid)));
            return true;
        }
        false
    }
}

/// Why a session with a NameNode ended.
enum Ended {
    /// It wants a new registration, or the connection broke.
    Again,
    /// It does not want us.
    Refused(String),
    /// The node stops in order.
    Stopping,
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Ended {
        match &error {
            CallError::Remote(exception) if FATAL.iter().any(|class| exception.is(class)) => {
                Ended::Refused(exception.to_string())
            }
            _ => Ended::Again,
        }
    }
}

/// The actor.
pub(crate) struct Link {
    node: Arc<Node>,
    index: usize,
    address: String,
    client: RpcClient,
    orders: JoinSet<()>,
    counted: bool,
    /// Whether it said that it takes reports in buffers.
    buffers: bool,
}

impl Link {
    pub(crate) fn new(node: Arc<Node>, index: usize) -> Link {
        let address = node.config.namenodes[index].clone();
        let options = RpcClientOptions {
            address: address.clone(),
            user: node.config.user.clone(),
            protocol: PROTOCOL,
            connect_limit: CONNECT_LIMIT,
            call_limit: CALL_LIMIT,
        };
        let client = RpcClient::new(&node.env, options);
        Link { node, index, address, client, orders: JoinSet::new(), counted: false, buffers: true }
    }

    /// Serves this NameNode until the node stops.
    pub(crate) async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let begun = Instant::now();
            match self.session().await {
                Ended::Again => {}
                Ended::Refused(reason) => {
                    self.node.stop(Stopped::Refused { namenode: self.address.clone(), reason });
                    return;
                }
                Ended::Stopping => return,
            }
            if begun.elapsed() > PAUSE_MAX {
                pause = PAUSE_FIRST;
            }
            tokio::select! {
                biased;
                () = self.node.ended.notified() => {}
                () = sleep(pause) => {}
            }
            if self.node.ending.load(Ordering::Acquire) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// From registration until it has to be renewed.
    async fn session(&mut self) -> Ended {
        let registration = match self.register().await {
            Ok(registration) => registration,
            Err(ended) => return ended,
        };
        let mut beat = Beat::new(registration, self.node.config.full_report_ms);
        loop {
            match self.beat(&mut beat).await {
                Ok(Next::Go) => {}
                Ok(Next::Register) => match self.register().await {
                    Ok(registration) => beat = Beat::new(registration, self.node.config.full_report_ms),
                    Err(ended) => return ended,
                },
                Err(ended @ (Ended::Refused(_) | Ended::Stopping)) => return ended,
                // The registration still holds if the NameNode is the same; if not, it will say so.
                Err(Ended::Again) => {
                    sleep(PAUSE_FIRST.min(self.interval())).await;
                }
            }
            if self.node.ending.load(Ordering::Acquire) {
                self.farewell(&beat.registration).await;
                return Ended::Stopping;
            }
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.node.config.heartbeat_ms)
    }

    fn outbox(&self) -> &Outbox {
        self.node.store.reports.outbox(self.index)
    }

    /// Learns whose NameNode it is, opens the pool, and registers.
    async fn register(&mut self) -> Result<dn::DatanodeRegistrationProto, Ended> {
        let response: pb::VersionResponseProto =
            self.call_soon("versionRequest", &pb::VersionRequestProto::default()).await?;
        let pb::NamespaceInfoProto { block_pool_id, storage_info, capabilities, .. } = response.info;
        self.buffers = capabilities.unwrap_or(0) & CAPABILITY_BUFFERS != 0;
        let namespace = Namespace {
            id: storage_info.namespce_id,
            cluster: storage_info.cluster_id.clone(),
            pool: PoolId::from(block_pool_id.as_str()),
            created: storage_info.c_time,
        };
        if namespace.pool.as_str().is_empty() || namespace.pool.as_str().contains(['/', '\\']) {
            return Err(Ended::Refused(format!("its pool is {:?}", namespace.pool.as_str())));
        }
        let now_ms = self.node.env.clock.now_ms();
        let opened = self.node.store.open_pool(&namespace, &self.node.uuid, now_ms).await;
        opened.map_err(Ended::Refused)?;
        self.node.pool_known.notify_waiters();
        let registration = dn::DatanodeRegistrationProto {
            datanode_id: convert::datanode_id_proto(&self.node.id()),
            storage_info: pb::StorageInfoProto {
                layout_version: crate::version::LAYOUT as i32 as u32,
                ..storage_info
            },
            keys: pb::ExportedBlockKeysProto::default(),
            software_version: SOFTWARE_VERSION.into(),
        };
        // Before the report that follows is made: it tells all that happened until then.
        self.outbox().clear_entries();
        let request = dn::RegisterDatanodeRequestProto { registration };
        let answer: dn::RegisterDatanodeResponseProto = self.call_soon("registerDatanode", &request).await?;
        if let Ok(id) = convert::datanode_id(&answer.registration.datanode_id) {
            let _ = self.node.identity.set(id);
        }
        tracing::info!(namenode = %self.address, "registered");
        Ok(answer.registration)
    }

    /// One round: a heartbeat if it is due, and whatever is to be reported.
    async fn beat(&mut self, beat: &mut Beat) -> Result<Next, Ended> {
        let now = Instant::now();
        if now >= beat.next {
            beat.next = now + self.interval();
            let response = self.heartbeat(beat, now).await?;
            let status = &response.ha_status;
            let obeyed = self.node.active.heard(self.index, status.state, status.txid);
            if self.obey(response.cmds, obeyed) == Next::Register {
                return Ok(Next::Register);
            }
            beat.lease = response.full_block_report_lease_id.filter(|lease| *lease != 0).or(beat.lease);
            // Deletions and beginnings go with the heartbeat.
            self.send_entries(beat).await?;
        }
        // What keeps troubles from being told keeps nothing else from it. Not even a refusal does: it may be meant for a
        // source that was named, and one that is meant for this node comes with the next heartbeat, too.
        if now >= beat.troubles_from && self.send_troubles(beat).await.is_err() {
            beat.troubles_from = beat.next;
        }
        if self.outbox().is_urgent() {
            self.send_entries(beat).await?;
        }
        if self.outbox().take_full_wanted() {
            beat.report_due = now;
            beat.next = now;
        }
        if let Some(lease) = beat.lease.take() {
            self.full_report(beat, lease).await?;
        }
        let urgent = self.node.store.reports.outbox(self.index).urgent.notified();
        let troubled = self.outbox().is_troubled() && Instant::now() >= beat.troubles_from;
        if self.outbox().is_urgent() || troubled {
            return Ok(Next::Go);
        }
        tokio::select! {
            biased;
            () = self.node.ended.notified() => {}
            () = urgent => {}
            Some(_) = self.orders.join_next(), if !self.orders.is_empty() => {}
            () = tokio::time::sleep_until(beat.next) => {}
        }
        Ok(Next::Go)
    }

    async fn heartbeat(&self, beat: &Beat, now: Instant) -> Result<dn::HeartbeatResponseProto, Ended> {
        let store = &self.node.store;
        let failed: Vec<_> = store.failed_volumes().collect();
        let request = dn::HeartbeatRequestProto {
            registration: beat.registration.clone(),
            reports: store
                .volumes
                .iter()
                .map(|volume| convert::storage_report_proto(&volume.report()))
                .collect(),
            xmits_in_progress: Some(self.node.transfers.load(Ordering::Relaxed) as u32),
            xceiver_count: Some(self.node.xceivers.load(Ordering::Relaxed) as u32),
            failed_volumes: Some(failed.len() as u32),
            cache_capacity: Some(0),
            cache_used: Some(0),
            volume_failure_summary: (!failed.is_empty()).then(|| dn::VolumeFailureSummaryProto {
                failed_storage_locations: failed
                    .iter()
                    .map(|volume| format!("[{}]file:{}", volume.kind.name(), volume.path.display()))
                    .collect(),
                last_volume_failure_date: self.node.env.clock.now_ms(),
                estimated_capacity_lost_total: 0,
            }),
            request_full_block_report_lease: Some(now >= beat.report_due && beat.lease.is_none()),
            ..dn::HeartbeatRequestProto::default()
        };
        self.call_soon("sendHeartbeat", &request).await
    }

    /// Carries out what a NameNode orders; of one that is not active only what concerns itself.
    fn obey(&mut self, commands: Vec<dn::DatanodeCommandProto>, active: bool) -> Next {
        use dn::datanode_command_proto::Type;
        for command in commands {
            match Type::try_from(command.cmd_type) {
                Ok(Type::RegisterCommand) => return Next::Register,
                Ok(Type::BlockCommand) if active => {
                    if let Some(command) = command.blk_cmd {
                        self.obey_block(command);
                    }
                }
                Ok(Type::BlockRecoveryCommand) if active => {
                    for order in command.recovery_cmd.unwrap_or_default().blocks {
                        let (node, namenode) = (self.node.clone(), self.client.clone());
                        self.orders.spawn(block_recovery::recover(node, namenode, order));
                    }
                }
                Ok(Type::BlockEcReconstructionCommand) if active => {
                    tracing::warn!(namenode = %self.address, "an order that is not supported yet: left undone");
                }
                // Keys, upgrades, caching and bandwidth: nothing to do here yet.
                _ => {}
            }
        }
        Next::Go
    }

    fn obey_block(&mut self, command: dn::BlockCommandProto) {
        use dn::block_command_proto::Action;
        let pool = self.node.store.pool().map(PoolId::as_str);
        if pool != Some(command.block_pool_id.as_str()) {
            tracing::warn!(pool = %command.block_pool_id, "an order for a pool that is not ours");
            return;
        }
        match Action::try_from(command.action) {
            Ok(Action::Transfer) => self.order_transfers(command),
            Ok(Action::Invalidate) => self.order_deletions(command.blocks),
            _ => tracing::warn!(action = command.action, "an order that nobody gives"),
        }
    }

    fn order_transfers(&mut self, command: dn::BlockCommandProto) {
        let dn::BlockCommandProto { blocks, targets, target_storage_uuids, target_storage_types, .. } =
            command;
        for (at, (block, targets)) in blocks.iter().zip(targets).enumerate() {
            let Ok(block) = convert::block(block) else { continue };
            let targets = Targets {
                nodes: targets.datanodes,
                kinds: target_storage_types
                    .get(at)
                    .map(|list| list.storage_types.clone())
                    .unwrap_or_default(),
                storages: target_storage_uuids
                    .get(at)
                    .map(|list| list.storage_uuids.clone())
                    .unwrap_or_default(),
            };
            let node = self.node.clone();
            self.orders.spawn(async move { transfer::by_order(&node, block, targets).await });
        }
    }

    fn order_deletions(&mut self, blocks: Vec<pb::BlockProto>) {
        let read = |block: &pb::BlockProto| {
            let report = if block.num_bytes == Some(NO_ACK) { DeleteReport::No } else { DeleteReport::Yes };
            Some((convert::block(block).ok()?, report))
        };
        let doomed = self.node.store.doom(blocks.iter().filter_map(read));
        let node = self.node.clone();
        self.orders.spawn(async move { node.store.delete_all(doomed).await });
    }

    /// Tells of single replicas.
    async fn send_entries(&self, beat: &Beat) -> Result<(), Ended> {
        let entries = self.outbox().take_entries();
        if entries.is_empty() {
            return Ok(());
        }
        let Some(pool) = self.node.store.pool() else { return Ok(()) };
        let request = dn::BlockReceivedAndDeletedRequestProto {
            registration: beat.registration.clone(),
            block_pool_id: pool.as_str().into(),
            blocks: self.by_storage(&entries),
        };
        let sent: Result<dn::BlockReceivedAndDeletedResponseProto, Ended> =
            self.call_soon("blockReceivedAndDeleted", &request).await;
        sent.map(|_| ()).inspect_err(|_| self.outbox().put_back(entries))
    }

    fn by_storage(
        &self,
        entries: &[(StorageUuid, Block, Change)],
    ) -> Vec<dn::StorageReceivedDeletedBlocksProto> {
        use dn::received_deleted_block_info_proto::BlockStatus;
        let mut lists: BTreeMap<&StorageUuid, Vec<dn::ReceivedDeletedBlockInfoProto>> = BTreeMap::new();
        for (storage, block, change) in entries {
            let status = match change {
                Change::Receiving => BlockStatus::Receiving,
                Change::Received => BlockStatus::Received,
                Change::Deleted => BlockStatus::Deleted,
            };
            lists.entry(storage).or_default().push(dn::ReceivedDeletedBlockInfoProto {
                block: convert::block_proto(block),
                status: status as i32,
                delete_hint: None,
            });
        }
        let of = |storage: &StorageUuid| {
            let volume = self.node.store.volumes.iter().find(|volume| volume.storage == *storage)?;
            Some(convert::datanode_storage_proto(storage, volume.config.kind, StorageState::Normal))
        };
        lists
            .into_iter()
            .map(|(storage, blocks)| dn::StorageReceivedDeletedBlocksProto {
                storage_uuid: storage.as_str().into(),
                blocks,
                storage: of(storage),
            })
            .collect()
    }

    /// Tells of bad replicas and other trouble; of many in several rounds.
    async fn send_troubles(&self, beat: &Beat) -> Result<(), Ended> {
        for (trouble, message) in self.outbox().take_errors() {
            self.error_report(&beat.registration, trouble, message).await?;
        }
        let bad = self.outbox().take_bad();
        if bad.is_empty() {
            return Ok(());
        }
        let Some(pool) = self.node.store.pool() else { return Ok(()) };
        let located = |bad: &BadBlock| pb::LocatedBlockProto {
            b: convert::pool_block_proto(pool, &bad.block),
            locs: vec![bad.source.clone().unwrap_or_else(|| self.node.info())],
            block_token: convert::empty_token(),
            storage_types: vec![pb::StorageTypeProto::Disk as i32],
            storage_i_ds: vec![bad.storage.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default()],
            ..pb::LocatedBlockProto::default()
        };
        let request = dn::ReportBadBlocksRequestProto { blocks: bad.iter().map(located).collect() };
        let sent: Result<dn::ReportBadBlocksResponseProto, Ended> =
            self.call_soon("reportBadBlocks", &request).await;
        sent.map(|_| ()).inspect_err(|_| self.outbox().put_back_bad(bad))
    }

    async fn error_report(
        &self,
        registration: &dn::DatanodeRegistrationProto,
        trouble: Trouble,
        message: String,
    ) -> Result<(), Ended> {
        let request = dn::ErrorReportRequestProto {
            registartion: registration.clone(),
            error_code: trouble as u32,
            msg: message,
        };
        let _: dn::ErrorReportResponseProto = self.call("errorReport", &request).await?;
        Ok(())
    }

    /// Tells of all replicas.
    async fn full_report(&mut self, beat: &mut Beat, lease: u64) -> Result<(), Ended> {
        self.send_entries(beat).await?;
        let Some(pool) = self.node.store.pool().cloned() else { return Ok(()) };
        let reports = self.node.store.full_report();
        let total: usize = reports.iter().map(|(_, replicas)| replicas.len()).sum();
        let storages: Vec<dn::StorageBlockReportProto> = reports
            .into_iter()
            .map(|(volume, replicas)| {
                let storage = convert::datanode_storage_proto(
                    &volume.storage,
                    volume.config.kind,
                    StorageState::Normal,
                );
                if !self.buffers {
                    let blocks = block_report::encode_longs(&replicas);
                    return dn::StorageBlockReportProto { storage, blocks, ..Default::default() };
                }
                let encoded = block_report::encode(&replicas);
                dn::StorageBlockReportProto {
                    storage,
                    blocks: Vec::new(),
                    number_of_blocks: Some(encoded.count),
                    blocks_buffers: encoded.pieces,
                }
            })
            .collect();
        let parts: Vec<Vec<_>> = if total < REPORT_SPLIT {
            vec![storages]
        } else {
            storages.into_iter().map(|storage| vec![storage]).collect()
        };
        let id = self.node.env.entropy.u64() as i64;
        let total_rpcs = parts.len() as i32;
        for (at, reports) in parts.into_iter().enumerate() {
            let request = dn::BlockReportRequestProto {
                registration: beat.registration.clone(),
                block_pool_id: pool.as_str().into(),
                reports,
                context: Some(dn::BlockReportContextProto {
                    total_rpcs,
                    cur_rpc: at as i32,
                    id,
                    lease_id: Some(lease),
                }),
            };
            let response: dn::BlockReportResponseProto = self.call("blockReport", &request).await?;
            if let Some(command) = response.cmd
                && self.obey(vec![command], true) == Next::Register
            {
                beat.next = Instant::now();
                return Ok(());
            }
        }
        self.outbox().put_back_bad(self.node.store.known_bad());
        beat.report_due = Instant::now() + Duration::from_millis(beat.full_report_ms);
        if !std::mem::replace(&mut self.counted, true) {
            self.node.registered.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// The last word, in order.
    async fn farewell(&self, registration: &dn::DatanodeRegistrationProto) {
        let word = self.error_report(registration, Trouble::Notify, FAREWELL.into());
        // Whoever does not hear it waits a little longer for the next heartbeat.
        let _ = timeout(FAREWELL_LIMIT, word).await;
    }

    async fn call<Q: Message, R: Message + Default>(&self, method: &str, request: &Q) -> Result<R, Ended> {
        self.client.call(method, request).await.map_err(|error| {
            tracing::warn!(namenode = %self.address, method, %error, "a call failed");
            Ended::from(error)
        })
    }

    /// As `call`, within [`BEAT_LIMIT`]; else the connection is given up.
    async fn call_soon<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<R, Ended> {
        match timeout(BEAT_LIMIT, self.call(method, request)).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::warn!(namenode = %self.address, method, "no answer within {BEAT_LIMIT:?}");
                self.client.close();
                Err(Ended::Again)
            }
        }
    }
}

/// The rhythm of one registration.
struct Beat {
    registration: dn::DatanodeRegistrationProto,
    next: Instant,
    /// When troubles may be told again, after a NameNode did not take them.
    troubles_from: Instant,
    report_due: Instant,
    full_report_ms: u64,
    lease: Option<u64>,
}

impl Beat {
    fn new(registration: dn::DatanodeRegistrationProto, full_report_ms: u64) -> Beat {
        let now = Instant::now();
        Beat { registration, next: now, troubles_from: now, report_due: now, full_report_ms, lease: None }
    }
}

/// What follows a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Register,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deposed_namenode_is_not_obeyed() {
        let (active, standby) = (HaState::Active as i32, HaState::Standby as i32);
        let claims = Active::default();
        assert!(claims.heard(0, active, 0));
        assert!(!claims.heard(1, standby, 10));
        assert!(claims.heard(0, active, 5));
        assert!(!claims.heard(1, active, 5), "not above the last claim");
        assert!(claims.heard(1, active, 6));
        assert!(!claims.heard(0, active, 6), "deposed");
        assert!(!claims.heard(1, standby, 7));
        assert!(claims.heard(0, active, 8));
    }
}
