//! ClientProtocol: one function per RPC. The first file of the NameNode on the walk: a client's
//! `write` comes in here as `create`, `addBlock` and `complete`. Next on the walk: the namespace's `block`,
//! which decides them inside `apply` (by way of `writing`, which places blocks and waits for the log).
//!
//! Reads are answered on the connection's own task from the published view; changes are answered
//! when their batch is in the log. Nothing here decides who may do what: the service does.

use std::sync::Arc;

use mobula_namespace::{Operation, Outcome, Overwrite, Parents};
use mobula_proto::hdfs;
use mobula_rpc::{Call, Responder};
use mobula_types::{HdfsPath, InodeId, Millis, PathError};
use mobula_wire::remote::RemoteException;
use prost::Message;

use crate::asker::Asker;
use crate::client_admin;
use crate::client_block;
use crate::client_empty;
use crate::client_listing;
use crate::client_reopen;
use crate::exceptions::Refusal;
use crate::service::{Service, SumOf, WithLocations};
use crate::status_proto;

/// Java's name of the protocol.
pub const PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientProtocol";

/// Answers one call of ClientProtocol.
pub fn call(service: &Arc<Service>, asker: Asker, call: Call, reply: Responder) {
    let s = service;
    let body = &call.body[..];
    match &call.method[..] {
        // Reading.
        b"getFileInfo" | b"getFileLinkInfo" => read(body, reply, |q| get_file_info(s, &asker, q)),
        b"getListing" => client_listing::get_listing(s, &asker, body, reply),
        b"getBatchedListing" => read(body, reply, |q| client_listing::get_batched_listing(s, &asker, q)),
        b"getBlockLocations" => client_block::get_block_locations(s, &asker, body, reply),
        b"getLocatedFileInfo" => client_block::get_located_file_info(s, &asker, body, reply),
        b"isFileClosed" => read(body, reply, |q| is_file_closed(s, &asker, q)),
        b"getPreferredBlockSize" => read(body, reply, |q| get_preferred_block_size(s, &asker, q)),
        b"getContentSummary" => read_tree(s, asker, body, reply, get_content_summary),
        b"getQuotaUsage" => read_tree(s, asker, body, reply, get_quota_usage),
        b"checkAccess" => read(body, reply, |q| check_access(s, &asker, q)),
        b"getServerDefaults" => read(body, reply, |q| get_server_defaults(s, q)),

        // Changing names.
        b"mkdirs" => mkdirs(s, &asker, body, reply),
        b"rename" => rename(s, &asker, body, reply),
        b"rename2" => rename2(s, &asker, body, reply),
        b"delete" => delete(s, &asker, body, reply),
        b"setReplication" => set_replication(s, &asker, body, reply),
        b"setPermission" => set_permission(s, &asker, body, reply),
        b"setOwner" => set_owner(s, &asker, body, reply),
        b"setTimes" => set_times(s, &asker, body, reply),

        // Writing files.
        b"create" => client_block::create(s, &asker, body, reply),
        b"addBlock" => client_block::add_block(s, &asker, body, reply),
        b"abandonBlock" => client_block::abandon_block(s, &asker, body, reply),
        b"getAdditionalDatanode" => {
            read(body, reply, |q| client_block::get_additional_datanode(s, &asker, q))
        }
        b"append" => client_reopen::append(s, asker, body, reply),
        b"truncate" => client_reopen::truncate(s, asker, body, reply),
        b"concat" => client_reopen::concat(s, &asker, body, reply),
        b"updateBlockForPipeline" => client_reopen::update_block_for_pipeline(s, &asker, body, reply),
        b"updatePipeline" => client_reopen::update_pipeline(s, &asker, body, reply),
        b"complete" => client_block::complete(s, &asker, body, reply),
        b"fsync" => client_block::fsync(s, &asker, body, reply),
        b"renewLease" => read(body, reply, |q| client_block::renew_lease(s, q)),
        b"recoverLease" => client_block::recover_lease(s, asker, body, reply),
        b"reportBadBlocks" => read(body, reply, |q| client_block::report_bad_blocks(s, q)),

        _ => {
            if let Some(call) = client_admin::call(s, &asker, call, reply) {
                client_empty::call(s, &asker, call.0, call.1);
            }
        }
    }
}

// ---- how calls are decoded and answered ----

/// Decodes a request.
///
/// # Errors
/// [`Refusal::BadRequest`].
pub fn decode<Q: Message + Default>(body: &[u8]) -> Result<Q, Refusal> {
    Q::decode(body).map_err(|error| Refusal::BadRequest(format!("unreadable request: {error}")))
}

/// Answers a read at once.
pub fn read<Q: Message + Default, R: Message>(
    body: &[u8],
    reply: Responder,
    answer: impl FnOnce(Q) -> Result<R, Refusal>,
) {
    reply.finish(decode(body).and_then(answer).map_err(RemoteException::from));
}

/// Answers a read that may go through the whole tree, on a thread for that: others of the connection, and of its
/// runtime, are answered meanwhile.
pub fn read_tree<Q: Message + Default + 'static, R: Message + 'static>(
    service: &Arc<Service>,
    asker: Asker,
    body: &[u8],
    reply: Responder,
    answer: fn(&Service, &Asker, Q) -> Result<R, Refusal>,
) {
    let service = Arc::clone(service);
    awaited(body, reply, Ok, |request| async move {
        let pool = service.tree_pool.clone();
        pool.run(move || answer(&service, &asker, request)).await
    });
}

/// Sends a change into the log, and its outcome to the client.
pub fn change<Q: Message + Default, R: Message + 'static>(
    service: &Service,
    asker: &Asker,
    body: &[u8],
    reply: Responder,
    operation: impl FnOnce(Q) -> Result<Operation, Refusal>,
    answer: fn(Outcome) -> R,
) {
    let begin = |operation, done| service.change(asker, operation, done);
    begun(body, reply, operation, begin, move |outcome| Ok(answer(outcome)));
}

/// Who is told how it ended: see [`begun`].
type Ended<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send>;

/// Answers a call that goes on by itself once it has `begin`: what cannot be read is refused at once.
pub fn begun<Q: Message + Default, A, T: 'static, R: Message + 'static>(
    body: &[u8],
    reply: Responder,
    typed: impl FnOnce(Q) -> Result<A, Refusal>,
    begin: impl FnOnce(A, Ended<T>),
    answer: impl FnOnce(T) -> Result<R, Refusal> + Send + 'static,
) {
    match decode(body).and_then(typed) {
        Err(refusal) => reply.error(&refusal.into()),
        Ok(asked) => begin(
            asked,
            Box::new(move |ended| reply.finish(ended.and_then(answer).map_err(RemoteException::from))),
        ),
    }
}

/// Answers a call that waits for other events, as a task of its own: what cannot be read is refused at once.
pub fn awaited<Q: Message + Default, A, R: Message + 'static, F>(
    body: &[u8],
    reply: Responder,
    typed: impl FnOnce(Q) -> Result<A, Refusal>,
    work: impl FnOnce(A) -> F,
) where
    F: Future<Output = Result<R, Refusal>> + Send + 'static,
{
    match decode(body).and_then(typed) {
        Err(refusal) => reply.error(&refusal.into()),
        Ok(asked) => {
            let work = work(asked);
            tokio::spawn(async move { reply.finish(work.await.map_err(RemoteException::from)) });
        }
    }
}

/// Java's boolean of an outcome.
pub fn is_true(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Bool(false))
}

/// No path that exists is longer: the characters of one, of four bytes each, and some squeezed slashes.
const PATH_BYTES_MAX: usize = 40_000;
/// Names of lease holders, users and groups are short; what is longer does not go into the log.
const NAME_BYTES_MAX: usize = 4_096;

/// A path that must only be absolute.
///
/// # Errors
/// NotAbsolute; Io for one that is longer than any.
pub fn path(text: &str) -> Result<HdfsPath, Refusal> {
    if text.len() > PATH_BYTES_MAX {
        return Err(Refusal::Io(PathError::TooLong.to_string()));
    }
    Ok(HdfsPath::parse(text)?)
}

/// A holder's, user's or group's name.
///
/// # Errors
/// BadRequest if it is longer than any name is.
pub fn name(text: String) -> Result<String, Refusal> {
    if text.len() > NAME_BYTES_MAX {
        return Err(Refusal::BadRequest(format!("a name of {} bytes", text.len())));
    }
    Ok(text)
}

/// A path that is about to be made: HDFS names the RPC where one is too long (`NameNodeRpcServer.checkPathLength`),
/// and calls one invalid that is relative or has an empty name within. `apply` refuses other names.
///
/// # Errors
/// InvalidName in the words of `invalid`, TooLong.
pub fn new_path(rpc: &str, text: &str, invalid: fn(&str) -> String) -> Result<HdfsPath, Refusal> {
    let refused = || Refusal::Path(PathError::InvalidName(invalid(text)));
    let path = HdfsPath::parse(text).map_err(|_| refused())?;
    path.check_length().map_err(|error| Refusal::Io(format!("{rpc}: {error}")))?;
    if text.trim_end_matches('/').contains("//") { Err(refused()) } else { Ok(path) }
}

/// `FSDirectory.resolvePath` of what is about to be made.
pub fn invalid_file_name(text: &str) -> String {
    format!("Invalid file name: {text}")
}

/// A file id; 0 stands for none.
pub fn file_id(id: Option<u64>) -> Option<InodeId> {
    id.filter(|id| *id != 0).map(InodeId)
}

/// Permission bits; HDFS keeps twelve.
#[allow(clippy::cast_possible_truncation)] // masked to twelve bits
pub fn mode(permission: &hdfs::FsPermissionProto) -> u16 {
    (permission.perm & 0o1777) as u16
}

/// Whether missing parents are made.
pub fn parents(create: bool) -> Parents {
    if create { Parents::Create } else { Parents::Require }
}

// ---- reading ----

fn get_file_info(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetFileInfoRequestProto,
) -> Result<hdfs::GetFileInfoResponseProto, Refusal> {
    let status = service.status(asker, &path(&request.src)?)?;
    // The name of the asked path itself is empty.
    let fs = status.map(|status| status_proto::status(status, bytes::Bytes::new()));
    Ok(hdfs::GetFileInfoResponseProto { fs })
}

fn is_file_closed(
    service: &Service,
    asker: &Asker,
    request: hdfs::IsFileClosedRequestProto,
) -> Result<hdfs::IsFileClosedResponseProto, Refusal> {
    let result = service.is_file_closed(asker, &path(&request.src)?)?;
    Ok(hdfs::IsFileClosedResponseProto { result })
}

fn get_preferred_block_size(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetPreferredBlockSizeRequestProto,
) -> Result<hdfs::GetPreferredBlockSizeResponseProto, Refusal> {
    let bsize = service.preferred_block_size(asker, &path(&request.filename)?)?;
    Ok(hdfs::GetPreferredBlockSizeResponseProto { bsize })
}

fn get_content_summary(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetContentSummaryRequestProto,
) -> Result<hdfs::GetContentSummaryResponseProto, Refusal> {
    let path = path(&request.path)?;
    let summary = service.sum_up_here(asker, &path, SumOf::Content, &|| true)?;
    let summary = status_proto::content_summary(&summary, path.is_root());
    Ok(hdfs::GetContentSummaryResponseProto { summary })
}

fn get_quota_usage(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetQuotaUsageRequestProto,
) -> Result<hdfs::GetQuotaUsageResponseProto, Refusal> {
    let path = path(&request.path)?;
    let summary = service.sum_up_here(asker, &path, SumOf::Quota, &|| true)?;
    Ok(hdfs::GetQuotaUsageResponseProto { usage: status_proto::quota_usage(&summary, path.is_root()) })
}

fn check_access(
    service: &Service,
    asker: &Asker,
    request: hdfs::CheckAccessRequestProto,
) -> Result<hdfs::CheckAccessResponseProto, Refusal> {
    let bits = u8::try_from(request.mode).ok().filter(|bits| *bits <= 7);
    let bits = bits.ok_or_else(|| Refusal::BadRequest(format!("no such access: {}", request.mode)))?;
    service.check_access(asker, &path(&request.path)?, mobula_namespace::Access(bits))?;
    Ok(hdfs::CheckAccessResponseProto {})
}

fn get_server_defaults(
    service: &Service,
    _request: hdfs::GetServerDefaultsRequestProto,
) -> Result<hdfs::GetServerDefaultsResponseProto, Refusal> {
    service.check_leads()?;
    let server_defaults = status_proto::server_defaults(&service.config.defaults);
    Ok(hdfs::GetServerDefaultsResponseProto { server_defaults })
}

// ---- changing names ----

fn mkdirs(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::MkdirsRequestProto| {
        Ok(Operation::Mkdirs {
            path: new_path("mkdirs", &request.src, invalid_file_name)?,
            mode: mode(&request.masked),
            parents: parents(request.create_parent),
        })
    };
    change(service, asker, body, reply, operation, |outcome| hdfs::MkdirsResponseProto {
        result: is_true(&outcome),
    });
}

fn rename(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::RenameRequestProto| {
        let target = new_path("rename", &request.dst, invalid_file_name)?;
        Ok(Operation::Rename { source: path(&request.src)?, target })
    };
    change(service, asker, body, reply, operation, |outcome| hdfs::RenameResponseProto {
        result: is_true(&outcome),
    });
}

fn rename2(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::Rename2RequestProto| {
        let target = new_path("rename", &request.dst, invalid_file_name)?;
        Ok(Operation::Rename2 {
            source: path(&request.src)?,
            target,
            overwrite: if request.overwrite_dest { Overwrite::Yes } else { Overwrite::No },
            to_trash: request.move_to_trash.unwrap_or(false),
        })
    };
    change(service, asker, body, reply, operation, |_| hdfs::Rename2ResponseProto {});
}

fn delete(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::DeleteRequestProto| {
        Ok(Operation::Delete { path: path(&request.src)?, recursive: request.recursive })
    };
    change(service, asker, body, reply, operation, |outcome| hdfs::DeleteResponseProto {
        result: is_true(&outcome),
    });
}

fn set_replication(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::SetReplicationRequestProto| {
        let path = path(&request.src)?;
        // Above what a short holds it is above every maximum, too: `apply` has the words.
        let replication = u16::try_from(request.replication).unwrap_or(u16::MAX);
        Ok(Operation::SetReplication { path, replication })
    };
    change(service, asker, body, reply, operation, |outcome| hdfs::SetReplicationResponseProto {
        result: is_true(&outcome),
    });
}

fn set_permission(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::SetPermissionRequestProto| {
        Ok(Operation::SetPermission { path: path(&request.src)?, mode: mode(&request.permission) })
    };
    change(service, asker, body, reply, operation, |_| hdfs::SetPermissionResponseProto {});
}

fn set_owner(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let named = |text: Option<String>| text.filter(|text| !text.is_empty()).map(name).transpose();
    let operation = |request: hdfs::SetOwnerRequestProto| {
        Ok(Operation::SetOwner {
            path: path(&request.src)?,
            user: named(request.username)?,
            group: named(request.groupname)?,
        })
    };
    change(service, asker, body, reply, operation, |_| hdfs::SetOwnerResponseProto {});
}

fn set_times(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    // Negative in Java: leave it as it is.
    let time = |time: u64| i64::try_from(time).is_ok().then_some(Millis(time));
    let operation = |request: hdfs::SetTimesRequestProto| {
        Ok(Operation::SetTimes {
            path: path(&request.src)?,
            modified: time(request.mtime),
            accessed: time(request.atime),
        })
    };
    change(service, asker, body, reply, operation, |_| hdfs::SetTimesResponseProto {});
}

/// Java's `needLocation`.
pub fn with_locations(need: bool) -> WithLocations {
    if need { WithLocations::Yes } else { WithLocations::No }
}
