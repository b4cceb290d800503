//! The small protocols of administrators: user mappings, high availability, refreshing, and what
//! balancers and checkpointers ask first.

use std::sync::Arc;

use mobula_proto::hdfs::namenode as nn;
use mobula_proto::{common, hdfs};
use mobula_rpc::{Call, Responder};

use crate::asker::Asker;
use crate::client_rpc::{decode, read};
use crate::datanode_rpc;
use crate::exceptions::Refusal;
use crate::service::Service;

/// `hdfs groups`.
pub const USER_MAPPINGS: &str = "org.apache.hadoop.tools.GetUserMappingsProtocol";
/// `hdfs dfsadmin -refreshUserToGroupsMappings`.
pub const REFRESH_USER_MAPPINGS: &str = "org.apache.hadoop.security.RefreshUserMappingsProtocol";
/// `hdfs dfsadmin -refreshServiceAcl`.
pub const REFRESH_AUTHORIZATION: &str =
    "org.apache.hadoop.security.authorize.RefreshAuthorizationPolicyProtocol";
/// `hdfs dfsadmin -refreshCallQueue`.
pub const REFRESH_CALL_QUEUE: &str = "org.apache.hadoop.ipc.RefreshCallQueueProtocol";
/// `hdfs dfsadmin -refresh`.
pub const GENERIC_REFRESH: &str = "org.apache.hadoop.ipc.GenericRefreshProtocol";
/// `hdfs haadmin`.
pub const HA_SERVICE: &str = "org.apache.hadoop.ha.HAServiceProtocol";
/// Balancers and checkpointers.
pub const NAMENODE: &str = "org.apache.hadoop.hdfs.server.protocol.NamenodeProtocol";

const NO_HA: Refusal = Refusal::ServiceFailed("HA for namenode is not enabled");

/// `GetUserMappingsProtocol`. The user asked about is looked up as callers are.
pub fn user_mappings(service: &Arc<Service>, call: &Call, reply: Responder) {
    if &call.method[..] != b"getGroupsForUser" {
        return reply.no_such_method(call);
    }
    let request: common::GetGroupsForUserRequestProto = match decode(&call.body) {
        Ok(request) => request,
        Err(refusal) => return reply.error(&refusal.into()),
    };
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let groups = service.groups.resolve(&request.user).await.groups.clone();
        reply.success(&common::GetGroupsForUserResponseProto { groups });
    });
}

/// The protocols whose calls make the server read something again.
pub fn refresh(service: &Arc<Service>, asker: &Asker, call: &Call, reply: Responder) {
    let body = &call.body[..];
    match &call.method[..] {
        b"refreshUserToGroupsMappings" => {
            read(body, reply, |_: common::RefreshUserToGroupsMappingsRequestProto| {
                service.check_superuser(asker, "refreshUserToGroupsMappings")?;
                service.groups.refresh();
                tracing::info!(user = %asker.caller.user, "groups of users are looked up again");
                Ok(common::RefreshUserToGroupsMappingsResponseProto {})
            });
        }
        b"refreshSuperUserGroupsConfiguration" => {
            read(body, reply, |_: common::RefreshSuperUserGroupsConfigurationRequestProto| {
                service.check_superuser(asker, "refreshSuperUserGroupsConfiguration")?;
                Ok(common::RefreshSuperUserGroupsConfigurationResponseProto {})
            });
        }
        b"refreshServiceAcl" => read(body, reply, |_: common::RefreshServiceAclRequestProto| {
            service.check_superuser(asker, "refreshServiceAcl")?;
            // HDFS says this, too, while hadoop.security.authorization is off.
            Err::<common::RefreshServiceAclResponseProto, _>(Refusal::Authorization(
                "Service Level Authorization not enabled!",
            ))
        }),
        b"refreshCallQueue" => read(body, reply, |_: common::RefreshCallQueueRequestProto| {
            service.check_superuser(asker, "refreshCallQueue")?;
            Ok(common::RefreshCallQueueResponseProto {})
        }),
        b"refresh" => read(body, reply, |request: common::GenericRefreshRequestProto| {
            service.check_superuser(asker, "refresh")?;
            let identifier = request.identifier.unwrap_or_default();
            Err::<common::GenericRefreshResponseCollectionProto, _>(Refusal::IllegalArgument(format!(
                "Identifier '{identifier}' does not exist in RefreshRegistry. Valid options are: "
            )))
        }),
        _ => reply.no_such_method(call),
    }
}

/// `HAServiceProtocol`: with one voter, what HDFS says without high availability.
pub fn ha_service(service: &Arc<Service>, asker: &Asker, call: &Call, reply: Responder) {
    let body = &call.body[..];
    match &call.method[..] {
        b"getServiceStatus" => read(body, reply, |_: common::GetServiceStatusRequestProto| {
            let leads = service.check_leads().is_ok();
            let state = if leads {
                common::HaServiceStateProto::Active
            } else {
                common::HaServiceStateProto::Standby
            };
            Ok(common::GetServiceStatusResponseProto {
                state: state as i32,
                ready_to_become_active: Some(true),
                not_ready_reason: None,
            })
        }),
        b"monitorHealth" => read(body, reply, |_: common::MonitorHealthRequestProto| {
            service.check_superuser(asker, "monitorHealth")?;
            Ok(common::MonitorHealthResponseProto {})
        }),
        b"transitionToActive" | b"transitionToStandby" | b"transitionToObserver" => {
            match service.check_superuser(asker, "transitionToActive") {
                Err(refusal) => reply.error(&refusal.into()),
                Ok(()) => reply.error(&NO_HA.into()),
            }
        }
        _ => reply.no_such_method(call),
    }
}

/// `NamenodeProtocol`.
pub fn namenode(service: &Arc<Service>, asker: &Asker, call: &Call, reply: Responder) {
    let body = &call.body[..];
    match &call.method[..] {
        b"versionRequest" => read(body, reply, |_: hdfs::VersionRequestProto| {
            Ok(hdfs::VersionResponseProto { info: datanode_rpc::namespace_info(service) })
        }),
        b"getBlockKeys" => read(body, reply, |_: nn::GetBlockKeysRequestProto| {
            service.check_superuser(asker, "getBlockKeys")?;
            Ok(nn::GetBlockKeysResponseProto { keys: None })
        }),
        b"getTransactionId" => read(body, reply, |_: nn::GetTransactionIdRequestProto| {
            service.check_superuser(asker, "getTransactionID")?;
            Ok(nn::GetTransactionIdResponseProto { tx_id: service.transaction() })
        }),
        b"getMostRecentCheckpointTxId" => {
            read(body, reply, |_: nn::GetMostRecentCheckpointTxIdRequestProto| {
                service.check_superuser(asker, "getMostRecentCheckpointTxId")?;
                Ok(nn::GetMostRecentCheckpointTxIdResponseProto { tx_id: service.transaction() })
            });
        }
        b"isUpgradeFinalized" => read(body, reply, |_: nn::IsUpgradeFinalizedRequestProto| {
            service.check_superuser(asker, "isUpgradeFinalized")?;
            Ok(nn::IsUpgradeFinalizedResponseProto { is_upgrade_finalized: true })
        }),
        b"isRollingUpgrade" => read(body, reply, |_: nn::IsRollingUpgradeRequestProto| {
            service.check_superuser(asker, "isRollingUpgrade")?;
            Ok(nn::IsRollingUpgradeResponseProto { is_rolling_upgrade: false })
        }),
        b"getBlocks" => reply.error(&Refusal::Unsupported("The balancer is not supported yet").into()),
        b"rollEditLog"
        | b"getMostRecentNameNodeFileTxId"
        | b"errorReport"
        | b"registerSubordinateNamenode"
        | b"startCheckpoint"
        | b"endCheckpoint"
        | b"getEditLogManifest"
        | b"getNextSPSPath" => {
            let words = "There are no checkpoints: the log is cut behind synced tables";
            reply.error(&Refusal::Unsupported(words).into());
        }
        _ => reply.no_such_method(call),
    }
}
