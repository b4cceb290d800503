//! Typed calls to the NameNode, one method per RPC of ClientProtocol, retried over NameNodes.
//!
//! A call keeps its client id and call id over every try, whichever NameNode it goes to, so that the
//! servers' retry cache answers a second try with the first one's result. All calls of
//! ClientProtocol are idempotent or marked at-most-once, hence any may be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_rpc::{CallError, CallOptions, RpcClient, RpcClientOptions};
use mobula_wire::remote::class;
use prost::Message;
use tokio::time::Instant;

use crate::error::ClientError;

/// Java's name of the protocol.
pub const CLIENT_PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientProtocol";

/// First pause before a call is tried again; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two tries of a call.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Call ids wrap here: negative ones mean something else on the wire.
const CALL_ID_MASK: i32 = i32::MAX;

/// How long a call is tried again, and after what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries go on for so long after a broken connection, a standby or a server that says "again".
    pub window: Duration,
    /// The same before the first answer ever: a wrong address should not take long to say so.
    pub window_before_contact: Duration,
    /// Try again what a NameNode in safe mode refused. HDFS's clients tell the user at once.
    pub through_safe_mode: bool,
    /// Longest wait for a connection.
    pub connect_limit: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            window: Duration::from_secs(30),
            window_before_contact: Duration::from_secs(3),
            through_safe_mode: false,
            connect_limit: Duration::from_secs(10),
        }
    }
}

/// The NameNode as a client sees it: whichever of several is active. Clones share the connections.
#[derive(Clone, Debug)]
pub struct NameNodeProxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    servers: Vec<RpcClient>,
    /// Index of the server that answered last.
    current: AtomicUsize,
    /// One counter for all servers: they share a retry cache, so an id must not mean two calls.
    call_id: AtomicI32,
    contacted: AtomicBool,
    policy: RetryPolicy,
}

/// What to do after a failed try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GiveUp,
    SameServer,
    NextServer,
}

impl NameNodeProxy {
    /// A proxy that is not connected yet, to `addresses` (`host:port`), of which there must be one.
    ///
    /// # Panics
    /// Without an address.
    pub fn new(
        env: &Env,
        addresses: &[String],
        user: &str,
        call_limit: Duration,
        policy: RetryPolicy,
    ) -> NameNodeProxy {
        assert!(!addresses.is_empty(), "a client needs the address of a NameNode");
        let options = |address: &String| RpcClientOptions {
            address: address.clone(),
            user: user.into(),
            protocol: CLIENT_PROTOCOL,
            connect_limit: policy.connect_limit,
            call_limit,
        };
        let first = RpcClient::new(env, options(&addresses[0]));
        let id = first.client_id();
        let others =
            addresses[1..].iter().map(|address| RpcClient::with_client_id(env, options(address), id));
        let servers: Vec<RpcClient> = std::iter::once(first).chain(others).collect();
        NameNodeProxy {
            inner: Arc::new(Inner {
                servers,
                current: AtomicUsize::new(0),
                call_id: AtomicI32::new(0),
                contacted: AtomicBool::new(false),
                policy,
            }),
        }
    }

    /// Calls any method of ClientProtocol by its name, as the typed methods do.
    ///
    /// # Errors
    /// The server's exception, or the last failure to reach one within the policy's window.
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<R, ClientError> {
        let inner = &*self.inner;
        let call_id = inner.call_id.fetch_add(1, Ordering::Relaxed) & CALL_ID_MASK;
        let started = Instant::now();
        let mut pause = PAUSE_FIRST;
        let mut tried = 0_usize;
        loop {
            let at = inner.current.load(Ordering::Relaxed) % inner.servers.len();
            let options = CallOptions { call_id: Some(call_id), retry_count: tried as i32 };
            let error = match inner.servers[at].call_with(method, request, options).await {
                Ok(answer) => {
                    inner.contacted.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let verdict = inner.judge(&error);
            if verdict == Verdict::GiveUp || started.elapsed() >= inner.window() {
                return Err(error.into());
            }
            tracing::debug!(method, tried, %error, "the NameNode is tried again");
            tried += 1;
            if verdict == Verdict::NextServer {
                inner.move_on_from(at);
            }
            // Every server gets its first try without a pause.
            if verdict == Verdict::SameServer || tried >= inner.servers.len() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

impl Inner {
    fn window(&self) -> Duration {
        match self.contacted.load(Ordering::Relaxed) {
            true => self.policy.window,
            false => self.policy.window_before_contact,
        }
    }

    fn judge(&self, error: &CallError) -> Verdict {
        let remote = match error {
            CallError::Remote(remote) => remote,
            CallError::Connect { .. } | CallError::Lost { .. } => return Verdict::NextServer,
        };
        // Whoever answers is there.
        self.contacted.store(true, Ordering::Relaxed);
        match &*remote.class {
            class::STANDBY => Verdict::NextServer,
            class::RETRIABLE => Verdict::SameServer,
            class::SAFE_MODE if self.policy.through_safe_mode => Verdict::SameServer,
            _ => Verdict::GiveUp,
        }
    }

    /// Another server from now on, unless another call has moved on already.
    fn move_on_from(&self, at: usize) {
        let next = (at + 1) % self.servers.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// One method per RPC: `name "Java's name" Request => Response;`.
macro_rules! calls {
    ($($name:ident $method:literal $request:ident => $response:ident;)*) => {
        impl NameNodeProxy {
            $(
                #[doc = concat!("ClientProtocol's `", $method, "`.")]
                ///
                /// # Errors
                /// As [`NameNodeProxy::call`].
                pub async fn $name(
                    &self,
                    request: hdfs::$request,
                ) -> Result<hdfs::$response, ClientError> {
                    self.call($method, &request).await
                }
            )*
        }
    };
}

calls! {
    get_block_locations "getBlockLocations" GetBlockLocationsRequestProto => GetBlockLocationsResponseProto;
    get_server_defaults "getServerDefaults" GetServerDefaultsRequestProto => GetServerDefaultsResponseProto;
    create "create" CreateRequestProto => CreateResponseProto;
    append "append" AppendRequestProto => AppendResponseProto;
    set_replication "setReplication" SetReplicationRequestProto => SetReplicationResponseProto;
    set_storage_policy "setStoragePolicy" SetStoragePolicyRequestProto => SetStoragePolicyResponseProto;
    unset_storage_policy "unsetStoragePolicy" UnsetStoragePolicyRequestProto => UnsetStoragePolicyResponseProto;
    get_storage_policy "getStoragePolicy" GetStoragePolicyRequestProto => GetStoragePolicyResponseProto;
    get_storage_policies "getStoragePolicies" GetStoragePoliciesRequestProto => GetStoragePoliciesResponseProto;
    set_permission "setPermission" SetPermissionRequestProto => SetPermissionResponseProto;
    set_owner "setOwner" SetOwnerRequestProto => SetOwnerResponseProto;
    abandon_block "abandonBlock" AbandonBlockRequestProto => AbandonBlockResponseProto;
    add_block "addBlock" AddBlockRequestProto => AddBlockResponseProto;
    get_additional_datanode "getAdditionalDatanode" GetAdditionalDatanodeRequestProto => GetAdditionalDatanodeResponseProto;
    complete "complete" CompleteRequestProto => CompleteResponseProto;
    report_bad_blocks "reportBadBlocks" ReportBadBlocksRequestProto => ReportBadBlocksResponseProto;
    concat "concat" ConcatRequestProto => ConcatResponseProto;
    truncate "truncate" TruncateRequestProto => TruncateResponseProto;
    rename "rename" RenameRequestProto => RenameResponseProto;
    rename2 "rename2" Rename2RequestProto => Rename2ResponseProto;
    delete "delete" DeleteRequestProto => DeleteResponseProto;
    mkdirs "mkdirs" MkdirsRequestProto => MkdirsResponseProto;
    get_listing "getListing" GetListingRequestProto => GetListingResponseProto;
    get_batched_listing "getBatchedListing" GetBatchedListingRequestProto => GetBatchedListingResponseProto;
    renew_lease "renewLease" RenewLeaseRequestProto => RenewLeaseResponseProto;
    recover_lease "recoverLease" RecoverLeaseRequestProto => RecoverLeaseResponseProto;
    get_fs_stats "getFsStats" GetFsStatusRequestProto => GetFsStatsResponseProto;
    get_fs_replicated_block_stats "getFsReplicatedBlockStats" GetFsReplicatedBlockStatsRequestProto => GetFsReplicatedBlockStatsResponseProto;
    get_fs_ec_block_group_stats "getFsECBlockGroupStats" GetFsEcBlockGroupStatsRequestProto => GetFsEcBlockGroupStatsResponseProto;
    get_datanode_report "getDatanodeReport" GetDatanodeReportRequestProto => GetDatanodeReportResponseProto;
    get_datanode_storage_report "getDatanodeStorageReport" GetDatanodeStorageReportRequestProto => GetDatanodeStorageReportResponseProto;
    get_preferred_block_size "getPreferredBlockSize" GetPreferredBlockSizeRequestProto => GetPreferredBlockSizeResponseProto;
    set_safe_mode "setSafeMode" SetSafeModeRequestProto => SetSafeModeResponseProto;
    save_namespace "saveNamespace" SaveNamespaceRequestProto => SaveNamespaceResponseProto;
    roll_edits "rollEdits" RollEditsRequestProto => RollEditsResponseProto;
    restore_failed_storage "restoreFailedStorage" RestoreFailedStorageRequestProto => RestoreFailedStorageResponseProto;
    refresh_nodes "refreshNodes" RefreshNodesRequestProto => RefreshNodesResponseProto;
    finalize_upgrade "finalizeUpgrade" FinalizeUpgradeRequestProto => FinalizeUpgradeResponseProto;
    upgrade_status "upgradeStatus" UpgradeStatusRequestProto => UpgradeStatusResponseProto;
    rolling_upgrade "rollingUpgrade" RollingUpgradeRequestProto => RollingUpgradeResponseProto;
    list_corrupt_file_blocks "listCorruptFileBlocks" ListCorruptFileBlocksRequestProto => ListCorruptFileBlocksResponseProto;
    meta_save "metaSave" MetaSaveRequestProto => MetaSaveResponseProto;
    get_file_info "getFileInfo" GetFileInfoRequestProto => GetFileInfoResponseProto;
    get_located_file_info "getLocatedFileInfo" GetLocatedFileInfoRequestProto => GetLocatedFileInfoResponseProto;
    add_cache_directive "addCacheDirective" AddCacheDirectiveRequestProto => AddCacheDirectiveResponseProto;
    modify_cache_directive "modifyCacheDirective" ModifyCacheDirectiveRequestProto => ModifyCacheDirectiveResponseProto;
    remove_cache_directive "removeCacheDirective" RemoveCacheDirectiveRequestProto => RemoveCacheDirectiveResponseProto;
    list_cache_directives "listCacheDirectives" ListCacheDirectivesRequestProto => ListCacheDirectivesResponseProto;
    add_cache_pool "addCachePool" AddCachePoolRequestProto => AddCachePoolResponseProto;
    modify_cache_pool "modifyCachePool" ModifyCachePoolRequestProto => ModifyCachePoolResponseProto;
    remove_cache_pool "removeCachePool" RemoveCachePoolRequestProto => RemoveCachePoolResponseProto;
    list_cache_pools "listCachePools" ListCachePoolsRequestProto => ListCachePoolsResponseProto;
    get_file_link_info "getFileLinkInfo" GetFileLinkInfoRequestProto => GetFileLinkInfoResponseProto;
    get_content_summary "getContentSummary" GetContentSummaryRequestProto => GetContentSummaryResponseProto;
    set_quota "setQuota" SetQuotaRequestProto => SetQuotaResponseProto;
    fsync "fsync" FsyncRequestProto => FsyncResponseProto;
    set_times "setTimes" SetTimesRequestProto => SetTimesResponseProto;
    create_symlink "createSymlink" CreateSymlinkRequestProto => CreateSymlinkResponseProto;
    get_link_target "getLinkTarget" GetLinkTargetRequestProto => GetLinkTargetResponseProto;
    update_block_for_pipeline "updateBlockForPipeline" UpdateBlockForPipelineRequestProto => UpdateBlockForPipelineResponseProto;
    update_pipeline "updatePipeline" UpdatePipelineRequestProto => UpdatePipelineResponseProto;
    set_balancer_bandwidth "setBalancerBandwidth" SetBalancerBandwidthRequestProto => SetBalancerBandwidthResponseProto;
    get_data_encryption_key "getDataEncryptionKey" GetDataEncryptionKeyRequestProto => GetDataEncryptionKeyResponseProto;
    create_snapshot "createSnapshot" CreateSnapshotRequestProto => CreateSnapshotResponseProto;
    rename_snapshot "renameSnapshot" RenameSnapshotRequestProto => RenameSnapshotResponseProto;
    allow_snapshot "allowSnapshot" AllowSnapshotRequestProto => AllowSnapshotResponseProto;
    disallow_snapshot "disallowSnapshot" DisallowSnapshotRequestProto => DisallowSnapshotResponseProto;
    get_snapshottable_dir_listing "getSnapshottableDirListing" GetSnapshottableDirListingRequestProto => GetSnapshottableDirListingResponseProto;
    get_snapshot_listing "getSnapshotListing" GetSnapshotListingRequestProto => GetSnapshotListingResponseProto;
    delete_snapshot "deleteSnapshot" DeleteSnapshotRequestProto => DeleteSnapshotResponseProto;
    get_snapshot_diff_report "getSnapshotDiffReport" GetSnapshotDiffReportRequestProto => GetSnapshotDiffReportResponseProto;
    get_snapshot_diff_report_listing "getSnapshotDiffReportListing" GetSnapshotDiffReportListingRequestProto => GetSnapshotDiffReportListingResponseProto;
    is_file_closed "isFileClosed" IsFileClosedRequestProto => IsFileClosedResponseProto;
    modify_acl_entries "modifyAclEntries" ModifyAclEntriesRequestProto => ModifyAclEntriesResponseProto;
    remove_acl_entries "removeAclEntries" RemoveAclEntriesRequestProto => RemoveAclEntriesResponseProto;
    remove_default_acl "removeDefaultAcl" RemoveDefaultAclRequestProto => RemoveDefaultAclResponseProto;
    remove_acl "removeAcl" RemoveAclRequestProto => RemoveAclResponseProto;
    set_acl "setAcl" SetAclRequestProto => SetAclResponseProto;
    get_acl_status "getAclStatus" GetAclStatusRequestProto => GetAclStatusResponseProto;
    set_xattr "setXAttr" SetXAttrRequestProto => SetXAttrResponseProto;
    get_xattrs "getXAttrs" GetXAttrsRequestProto => GetXAttrsResponseProto;
    list_xattrs "listXAttrs" ListXAttrsRequestProto => ListXAttrsResponseProto;
    remove_xattr "removeXAttr" RemoveXAttrRequestProto => RemoveXAttrResponseProto;
    check_access "checkAccess" CheckAccessRequestProto => CheckAccessResponseProto;
    create_encryption_zone "createEncryptionZone" CreateEncryptionZoneRequestProto => CreateEncryptionZoneResponseProto;
    list_encryption_zones "listEncryptionZones" ListEncryptionZonesRequestProto => ListEncryptionZonesResponseProto;
    reencrypt_encryption_zone "reencryptEncryptionZone" ReencryptEncryptionZoneRequestProto => ReencryptEncryptionZoneResponseProto;
    list_reencryption_status "listReencryptionStatus" ListReencryptionStatusRequestProto => ListReencryptionStatusResponseProto;
    get_ez_for_path "getEZForPath" GetEzForPathRequestProto => GetEzForPathResponseProto;
    set_erasure_coding_policy "setErasureCodingPolicy" SetErasureCodingPolicyRequestProto => SetErasureCodingPolicyResponseProto;
    unset_erasure_coding_policy "unsetErasureCodingPolicy" UnsetErasureCodingPolicyRequestProto => UnsetErasureCodingPolicyResponseProto;
    get_ec_topology_result_for_policies "getECTopologyResultForPolicies" GetEcTopologyResultForPoliciesRequestProto => GetEcTopologyResultForPoliciesResponseProto;
    get_current_edit_log_txid "getCurrentEditLogTxid" GetCurrentEditLogTxidRequestProto => GetCurrentEditLogTxidResponseProto;
    get_edits_from_txid "getEditsFromTxid" GetEditsFromTxidRequestProto => GetEditsFromTxidResponseProto;
    get_erasure_coding_policies "getErasureCodingPolicies" GetErasureCodingPoliciesRequestProto => GetErasureCodingPoliciesResponseProto;
    add_erasure_coding_policies "addErasureCodingPolicies" AddErasureCodingPoliciesRequestProto => AddErasureCodingPoliciesResponseProto;
    remove_erasure_coding_policy "removeErasureCodingPolicy" RemoveErasureCodingPolicyRequestProto => RemoveErasureCodingPolicyResponseProto;
    enable_erasure_coding_policy "enableErasureCodingPolicy" EnableErasureCodingPolicyRequestProto => EnableErasureCodingPolicyResponseProto;
    disable_erasure_coding_policy "disableErasureCodingPolicy" DisableErasureCodingPolicyRequestProto => DisableErasureCodingPolicyResponseProto;
    get_erasure_coding_policy "getErasureCodingPolicy" GetErasureCodingPolicyRequestProto => GetErasureCodingPolicyResponseProto;
    get_erasure_coding_codecs "getErasureCodingCodecs" GetErasureCodingCodecsRequestProto => GetErasureCodingCodecsResponseProto;
    get_quota_usage "getQuotaUsage" GetQuotaUsageRequestProto => GetQuotaUsageResponseProto;
    list_open_files "listOpenFiles" ListOpenFilesRequestProto => ListOpenFilesResponseProto;
    msync "msync" MsyncRequestProto => MsyncResponseProto;
    satisfy_storage_policy "satisfyStoragePolicy" SatisfyStoragePolicyRequestProto => SatisfyStoragePolicyResponseProto;
    get_ha_service_state "getHAServiceState" HaServiceStateRequestProto => HaServiceStateResponseProto;
    get_slow_datanode_report "getSlowDatanodeReport" GetSlowDatanodeReportRequestProto => GetSlowDatanodeReportResponseProto;
    get_enclosing_root "getEnclosingRoot" GetEnclosingRootRequestProto => GetEnclosingRootResponseProto;
}
