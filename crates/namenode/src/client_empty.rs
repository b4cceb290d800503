//! ClientProtocol's calls about features that are not there. Reading ones answer as an HDFS that has
//! none of it, since clients ask in passing (`ls`, `cp -p`, Spark); changing ones say so in a sentence.

use std::sync::Arc;

use mobula_namespace::{FileStatus, Operation};
use mobula_proto::{common, hdfs};
use mobula_rpc::{Call, Responder};
use mobula_types::HdfsPath;
use mobula_wire::remote::{RemoteException, class};

use crate::asker::Asker;
use crate::client_rpc::{change, path, read};
use crate::exceptions::Refusal;
use crate::safe_mode;
use crate::service::Service;
use crate::status_proto;

/// Answers the call.
pub fn call(service: &Arc<Service>, asker: &Asker, call: Call, reply: Responder) {
    let (s, body) = (service, &call.body[..]);
    if let Err(refusal) = check_changeable(s, asker, &call.method, body) {
        return reply.error(&refusal.into());
    }
    match &call.method[..] {
        b"getDelegationToken" => read(body, reply, |_: common::GetDelegationTokenRequestProto| {
            Ok(common::GetDelegationTokenResponseProto { token: None })
        }),
        b"getDataEncryptionKey" => read(body, reply, |_: hdfs::GetDataEncryptionKeyRequestProto| {
            Ok(hdfs::GetDataEncryptionKeyResponseProto { data_encryption_key: None })
        }),
        b"getStoragePolicies" => read(body, reply, |_: hdfs::GetStoragePoliciesRequestProto| {
            Ok(hdfs::GetStoragePoliciesResponseProto { policies: status_proto::storage_policies() })
        }),
        b"getStoragePolicy" => read(body, reply, |q| get_storage_policy(s, asker, q)),
        b"setStoragePolicy" => read(body, reply, |q| set_storage_policy(s, asker, q)),
        b"unsetStoragePolicy" => read(body, reply, |q| unset_storage_policy(s, asker, q)),
        b"getEnclosingRoot" => read(body, reply, |q| get_enclosing_root(s, asker, q)),
        b"getLinkTarget" => read(body, reply, |q| get_link_target(s, asker, q)),
        b"getAclStatus" => read(body, reply, |q| get_acl_status(s, asker, q)),
        b"getXAttrs" => read(body, reply, |q| get_xattrs(s, asker, q)),
        b"listXAttrs" => read(body, reply, |q| list_xattrs(s, asker, q)),
        b"removeXAttr" => read(body, reply, |q| remove_xattr(s, asker, q)),
        b"getEZForPath" => read(body, reply, |q| get_ez_for_path(s, asker, q)),
        b"listEncryptionZones" => read(body, reply, |q| list_encryption_zones(s, asker, q)),
        b"createEncryptionZone" => read(body, reply, |q| create_encryption_zone(s, asker, q)),
        b"getErasureCodingPolicy" => read(body, reply, |q| get_erasure_coding_policy(s, asker, q)),
        b"getErasureCodingPolicies" => {
            read(body, reply, |_: hdfs::GetErasureCodingPoliciesRequestProto| {
                let ec_policies = status_proto::erasure_coding_policies();
                Ok(hdfs::GetErasureCodingPoliciesResponseProto { ec_policies })
            });
        }
        b"getErasureCodingCodecs" => read(body, reply, |_: hdfs::GetErasureCodingCodecsRequestProto| {
            Ok(hdfs::GetErasureCodingCodecsResponseProto { codec: Vec::new() })
        }),
        b"getSnapshottableDirListing" => {
            read(body, reply, |_: hdfs::GetSnapshottableDirListingRequestProto| {
                Ok(hdfs::GetSnapshottableDirListingResponseProto { snapshottable_dir_list: None })
            });
        }
        b"getSnapshotListing" => read(body, reply, |q: hdfs::GetSnapshotListingRequestProto| {
            not_snapshottable::<hdfs::GetSnapshotListingResponseProto>(s, asker, &q.snapshot_root)
        }),
        b"createSnapshot" => read(body, reply, |q: hdfs::CreateSnapshotRequestProto| {
            not_snapshottable::<hdfs::CreateSnapshotResponseProto>(s, asker, &q.snapshot_root)
        }),
        b"deleteSnapshot" => read(body, reply, |q: hdfs::DeleteSnapshotRequestProto| {
            not_snapshottable::<hdfs::DeleteSnapshotResponseProto>(s, asker, &q.snapshot_root)
        }),
        b"renameSnapshot" => read(body, reply, |q: hdfs::RenameSnapshotRequestProto| {
            not_snapshottable::<hdfs::RenameSnapshotResponseProto>(s, asker, &q.snapshot_root)
        }),
        b"getSnapshotDiffReport" => read(body, reply, |q: hdfs::GetSnapshotDiffReportRequestProto| {
            not_snapshottable::<hdfs::GetSnapshotDiffReportResponseProto>(s, asker, &q.snapshot_root)
        }),
        b"getSnapshotDiffReportListing" => {
            read(body, reply, |q: hdfs::GetSnapshotDiffReportListingRequestProto| {
                not_snapshottable::<hdfs::GetSnapshotDiffReportListingResponseProto>(
                    s,
                    asker,
                    &q.snapshot_root,
                )
            });
        }
        b"setAcl" => set_acl(s, asker, body, reply),
        b"listCachePools" => read(body, reply, |_: hdfs::ListCachePoolsRequestProto| {
            Ok(hdfs::ListCachePoolsResponseProto { entries: Vec::new(), has_more: false })
        }),
        b"listCacheDirectives" => read(body, reply, |_: hdfs::ListCacheDirectivesRequestProto| {
            Ok(hdfs::ListCacheDirectivesResponseProto { elements: Vec::new(), has_more: false })
        }),
        method => match unsupported(method) {
            Some(words) => reply.error(&Refusal::Unsupported(words).into()),
            None => reply.no_such_method(&call),
        },
    }
}

/// What comes before all that could be said of the feature: whose call it is, and safe mode. Where HDFS looks for the
/// feature first, so does what follows.
fn check_changeable(service: &Service, asker: &Asker, method: &[u8], body: &[u8]) -> Result<(), Refusal> {
    if let Some(operation) = superusers(method) {
        service.check_superuser(asker, operation)?;
    }
    let Some(words) = service.safe_mode.is_on().then(|| safe_mode::words_of_absent(method, body)).flatten()
    else {
        return Ok(());
    };
    service.check_leads()?;
    service.safe_mode.check(|| words)
}

/// HDFS's name of a call that is the superuser's.
fn superusers(method: &[u8]) -> Option<&'static str> {
    Some(match method {
        b"allowSnapshot" => "allowSnapshot",
        b"disallowSnapshot" => "disallowSnapshot",
        b"addCachePool" => "addCachePool",
        b"modifyCachePool" => "modifyCachePool",
        b"removeCachePool" => "removeCachePool",
        b"reencryptEncryptionZone" => "reencryptEncryptionZone",
        _ => return None,
    })
}

const NO_ACLS: &str = "ACLs are not supported yet: use owner, group and mode";

/// The sentence for a call that changes what is not there.
fn unsupported(method: &[u8]) -> Option<&'static str> {
    Some(match method {
        b"modifyAclEntries" | b"removeAclEntries" | b"removeDefaultAcl" | b"removeAcl" => NO_ACLS,
        b"setXAttr" => "Extended attributes are not supported yet",
        b"allowSnapshot" | b"disallowSnapshot" => "Snapshots are not supported yet",
        b"setQuota" => "Quotas are not supported yet",
        b"createSymlink" => "Symlinks not supported",
        b"satisfyStoragePolicy" => ONLY_HOT,
        b"addCacheDirective"
        | b"modifyCacheDirective"
        | b"removeCacheDirective"
        | b"addCachePool"
        | b"modifyCachePool"
        | b"removeCachePool" => "Centralized caching is not supported",
        b"reencryptEncryptionZone" | b"listReencryptionStatus" => "Encryption zones are not supported yet",
        b"setErasureCodingPolicy"
        | b"unsetErasureCodingPolicy"
        | b"addErasureCodingPolicies"
        | b"removeErasureCodingPolicy"
        | b"enableErasureCodingPolicy"
        | b"disableErasureCodingPolicy"
        | b"getECTopologyResultForPolicies" => "Erasure coding is not supported yet",
        b"renewDelegationToken" | b"cancelDelegationToken" => {
            "Delegation tokens are not issued: there is no authentication yet"
        }
        b"setBalancerBandwidth" => "There is no balancer yet whose bandwidth could be set",
        b"metaSave" => "metaSave is not supported: ask `mobula admin report`",
        b"getEditsFromTxid" => "A stream of edits is not supported yet",
        _ => return None,
    })
}

const ONLY_HOT: &str = "Storage policies cannot be set yet: every file is HOT";

/// The status of a path that must be there.
fn existing(
    service: &Service,
    asker: &Asker,
    path: &HdfsPath,
    missing: impl FnOnce(&HdfsPath) -> String,
) -> Result<FileStatus, Refusal> {
    service.status(asker, path)?.ok_or_else(|| not_found(missing(path)))
}

/// As `existing`, of what the caller may read.
fn readable(
    service: &Service,
    asker: &Asker,
    path: &HdfsPath,
    missing: impl FnOnce(&HdfsPath) -> String,
) -> Result<FileStatus, Refusal> {
    service.readable_status(asker, path)?.ok_or_else(|| not_found(missing(path)))
}

fn not_found(words: String) -> Refusal {
    Refusal::Remote(RemoteException::new(class::FILE_NOT_FOUND, words))
}

fn does_not_exist(path: &HdfsPath) -> String {
    format!("File does not exist: {path}")
}

fn get_storage_policy(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetStoragePolicyRequestProto,
) -> Result<hdfs::GetStoragePolicyResponseProto, Refusal> {
    let path = path(&request.path)?;
    readable(service, asker, &path, |path| format!("File/Directory does not exist: {path}"))?;
    Ok(hdfs::GetStoragePolicyResponseProto { storage_policy: status_proto::hot_policy() })
}

/// Whether a file may have that storage policy: they all have HOT.
///
/// # Errors
/// IllegalArgument for a name that no policy has, Unsupported for the others.
pub fn check_policy(name: &str) -> Result<(), Refusal> {
    match status_proto::policy_number(name) {
        None => Err(Refusal::IllegalArgument(format!("Cannot find a block policy with the name {name}"))),
        Some(status_proto::POLICY_HOT) => Ok(()),
        Some(_) => Err(Refusal::Unsupported(ONLY_HOT)),
    }
}

/// To HOT: changes nothing.
fn set_storage_policy(
    service: &Service,
    asker: &Asker,
    request: hdfs::SetStoragePolicyRequestProto,
) -> Result<hdfs::SetStoragePolicyResponseProto, Refusal> {
    let path = path(&request.src)?;
    service.check_leads()?;
    service.safe_mode.check(|| format!("Cannot set storage policy for {path}"))?;
    check_policy(&request.policy_name)?;
    service.view().check_policy_settable(&asker.caller, &path, "setStoragePolicy")?;
    Ok(hdfs::SetStoragePolicyResponseProto {})
}

/// Changes nothing: no file has one of its own.
fn unset_storage_policy(
    service: &Service,
    asker: &Asker,
    request: hdfs::UnsetStoragePolicyRequestProto,
) -> Result<hdfs::UnsetStoragePolicyResponseProto, Refusal> {
    let path = path(&request.src)?;
    service.check_leads()?;
    service.safe_mode.check(|| format!("Cannot unset storage policy for {path}"))?;
    service.view().check_policy_settable(&asker.caller, &path, "unsetStoragePolicy")?;
    Ok(hdfs::UnsetStoragePolicyResponseProto {})
}

/// The root of encryption zone, quota and mount that encloses a path: there is only one.
fn get_enclosing_root(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetEnclosingRootRequestProto,
) -> Result<hdfs::GetEnclosingRootResponseProto, Refusal> {
    service.readable_status(asker, &path(request.filename.as_deref().unwrap_or_default())?)?;
    Ok(hdfs::GetEnclosingRootResponseProto { enclosing_root_path: Some("/".into()) })
}

fn get_link_target(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetLinkTargetRequestProto,
) -> Result<hdfs::GetLinkTargetResponseProto, Refusal> {
    let path = path(&request.path)?;
    existing(service, asker, &path, does_not_exist)?;
    Err(Refusal::Io(format!("Path {path} is not a symbolic link")))
}

fn get_acl_status(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetAclStatusRequestProto,
) -> Result<hdfs::GetAclStatusResponseProto, Refusal> {
    let status = existing(service, asker, &path(&request.src)?, does_not_exist)?;
    let result = hdfs::AclStatusProto {
        permission: Some(status_proto::permission(status.mode)),
        sticky: status.mode & 0o1000 != 0,
        owner: status.owner,
        group: status.group,
        entries: Vec::new(),
    };
    Ok(hdfs::GetAclStatusResponseProto { result })
}

/// Of owner, group and others alone: Spark's TRUNCATE TABLE sets such an ACL where there was none before.
fn set_acl(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::SetAclRequestProto| {
        let access = match &request.acl_spec[..] {
            // None at all takes away what there is, which is nothing (`FSDirAclOp.unprotectedSetAcl`).
            [] => None,
            entries => Some(minimal_mode(entries)?),
        };
        Ok(Operation::SetAcl { path: path(&request.src)?, access })
    };
    change(service, asker, body, reply, operation, |_| hdfs::SetAclResponseProto {});
}

/// The nine bits that three unnamed entries for access stand for.
///
/// # Errors
/// Unsupported if there are others, or not all of these.
fn minimal_mode(entries: &[hdfs::AclEntryProto]) -> Result<u16, Refusal> {
    use hdfs::acl_entry_proto::{AclEntryScopeProto, AclEntryTypeProto};
    let (mut mode, mut seen) = (0, 0);
    for entry in entries {
        let shift = match entry.r#type() {
            AclEntryTypeProto::User => 6,
            AclEntryTypeProto::Group => 3,
            AclEntryTypeProto::Other => 0,
            AclEntryTypeProto::Mask => return Err(Refusal::Unsupported(NO_ACLS)),
        };
        let named = entry.name.as_ref().is_some_and(|name| !name.is_empty());
        if named || entry.scope() != AclEntryScopeProto::Access || seen & (0o7 << shift) != 0 {
            return Err(Refusal::Unsupported(NO_ACLS));
        }
        seen |= 0o7 << shift;
        mode |= (entry.permissions() as u16 & 0o7) << shift;
    }
    if seen == 0o777 { Ok(mode) } else { Err(Refusal::Unsupported(NO_ACLS)) }
}

fn get_xattrs(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetXAttrsRequestProto,
) -> Result<hdfs::GetXAttrsResponseProto, Refusal> {
    readable(service, asker, &path(&request.src)?, does_not_exist)?;
    if !request.x_attrs.is_empty() {
        return Err(Refusal::XAttrNotFound);
    }
    Ok(hdfs::GetXAttrsResponseProto { x_attrs: Vec::new() })
}

fn list_xattrs(
    service: &Service,
    asker: &Asker,
    request: hdfs::ListXAttrsRequestProto,
) -> Result<hdfs::ListXAttrsResponseProto, Refusal> {
    readable(service, asker, &path(&request.src)?, does_not_exist)?;
    Ok(hdfs::ListXAttrsResponseProto { x_attrs: Vec::new() })
}

fn remove_xattr(
    service: &Service,
    asker: &Asker,
    request: hdfs::RemoveXAttrRequestProto,
) -> Result<hdfs::RemoveXAttrResponseProto, Refusal> {
    existing(service, asker, &path(&request.src)?, does_not_exist)?;
    Err(Refusal::Io("No matching attributes found for remove operation".into()))
}

fn get_ez_for_path(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetEzForPathRequestProto,
) -> Result<hdfs::GetEzForPathResponseProto, Refusal> {
    service.readable_status(asker, &path(&request.src)?)?;
    Ok(hdfs::GetEzForPathResponseProto { zone: None })
}

fn list_encryption_zones(
    service: &Service,
    asker: &Asker,
    _request: hdfs::ListEncryptionZonesRequestProto,
) -> Result<hdfs::ListEncryptionZonesResponseProto, Refusal> {
    service.check_superuser(asker, "listEncryptionZones")?;
    Ok(hdfs::ListEncryptionZonesResponseProto { zones: Vec::new(), has_more: false })
}

fn create_encryption_zone(
    service: &Service,
    asker: &Asker,
    request: hdfs::CreateEncryptionZoneRequestProto,
) -> Result<hdfs::CreateEncryptionZoneResponseProto, Refusal> {
    service.check_superuser(asker, "createEncryptionZone")?;
    let src = request.src;
    let words = format!("Can't create an encryption zone for {src} since no key provider is available.");
    Err(Refusal::Io(words))
}

fn get_erasure_coding_policy(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetErasureCodingPolicyRequestProto,
) -> Result<hdfs::GetErasureCodingPolicyResponseProto, Refusal> {
    readable(service, asker, &path(&request.src)?, |path| format!("Path not found: {path}"))?;
    Ok(hdfs::GetErasureCodingPolicyResponseProto { ec_policy: None })
}

/// What HDFS answers for every directory that nobody allowed snapshots of.
fn not_snapshottable<R>(service: &Service, asker: &Asker, root: &str) -> Result<R, Refusal> {
    let path = path(root)?;
    existing(service, asker, &path, |path| format!("Directory does not exist: {path}"))?;
    Err(Refusal::NotSnapshottable(path))
}
