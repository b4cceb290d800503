//! Answers as HDFS's `JsonUtil` writes them.

use mobula_fleet::FleetStats;
use mobula_namenode::{Defaults, Refusal};
use mobula_namespace::{ContentSummary, FileKind, FileStatus};
use mobula_types::InodeId;
use serde_json::{Value, json};

/// No quota.
const NO_QUOTA: i64 = -1;
/// The root's quota of names when nobody set one.
const ROOT_NAME_QUOTA: i64 = i64::MAX;

/// A status under that name, which is empty for the asked path itself.
pub fn status(status: &FileStatus, name: &str) -> Value {
    let mut value = json!({
        "pathSuffix": name,
        "type": "DIRECTORY",
        "length": 0,
        "owner": status.owner,
        "group": status.group,
        "permission": format!("{:o}", status.mode),
        "accessTime": status.accessed.0,
        "modificationTime": status.modified.0,
        "blockSize": 0,
        "replication": 0,
        "fileId": status.inode.0,
        "childrenNum": 0,
        "storagePolicy": 0,
    });
    match status.kind {
        FileKind::Directory { children } => value["childrenNum"] = json!(children),
        FileKind::File { length, replication, block_size, open: _ } => {
            value["type"] = json!("FILE");
            value["length"] = json!(length);
            value["replication"] = json!(replication);
            value["blockSize"] = json!(block_size);
        }
    }
    if status.inode == InodeId::ROOT {
        value["snapshotEnabled"] = json!(true);
    }
    value
}

/// `ContentSummary`.
pub fn content_summary(summary: &ContentSummary, is_root: bool) -> Value {
    json!({ "ContentSummary": {
        "length": summary.length,
        "fileCount": summary.files,
        "directoryCount": summary.directories,
        "ecPolicy": if summary.directories == 0 { "Replicated" } else { "" },
        "quota": name_quota(is_root),
        "spaceConsumed": summary.space,
        "spaceQuota": NO_QUOTA,
        "typeQuota": {},
        "snapshotLength": 0,
        "snapshotFileCount": 0,
        "snapshotDirectoryCount": 0,
        "snapshotSpaceConsumed": 0,
    }})
}

/// `QuotaUsage`.
pub fn quota_usage(summary: &ContentSummary, is_root: bool) -> Value {
    json!({ "QuotaUsage": {
        "fileAndDirectoryCount": summary.files + summary.directories,
        "quota": name_quota(is_root),
        "spaceConsumed": summary.space,
        "spaceQuota": NO_QUOTA,
        "typeQuota": {},
    }})
}

fn name_quota(is_root: bool) -> i64 {
    if is_root { ROOT_NAME_QUOTA } else { NO_QUOTA }
}

/// `FsServerDefaults`.
pub fn server_defaults(defaults: &Defaults) -> Value {
    json!({ "FsServerDefaults": {
        "blockSize": defaults.block_size,
        "bytesPerChecksum": defaults.checksum.bytes_per_chunk(),
        "writePacketSize": defaults.write_packet_size,
        "replication": defaults.replication,
        "fileBufferSize": defaults.file_buffer_size,
        "encryptDataTransfer": false,
        "trashInterval": defaults.trash_interval_min,
        // Java's number of it (`DataChecksum.Type`), as on the wire.
        "checksumType": defaults.checksum.kind().proto() as i32,
        "keyProviderUri": "",
        "defaultStoragePolicyId": HOT,
    }})
}

/// `FsStatus`.
pub fn status_of_all(stats: &FleetStats) -> Value {
    json!({ "FsStatus": { "capacity": stats.capacity, "used": stats.used, "remaining": stats.remaining } })
}

/// The policy that every file has.
const HOT: u8 = 7;

/// A refusal's status line and body (HDFS: `ExceptionHandler`).
pub fn refusal(refusal: &Refusal) -> (&'static str, Value) {
    exception(refusal.class(), &refusal.to_string())
}

/// The same for an exception of Java's.
pub fn exception(class: &str, message: &str) -> (&'static str, Value) {
    let status = match class {
        "java.io.FileNotFoundException" => "404 Not Found",
        "java.lang.IllegalArgumentException"
        | "org.apache.hadoop.HadoopIllegalArgumentException"
        | "org.apache.hadoop.fs.InvalidPathException"
        | "java.lang.UnsupportedOperationException" => "400 Bad Request",
        "java.lang.AssertionError" => "500 Internal Server Error",
        // What is left are IOExceptions.
        _ => "403 Forbidden",
    };
    // The name within its package, and within its class.
    let name = class.rsplit(['.', '$']).next().unwrap_or(class);
    (status, json!({ "RemoteException": { "exception": name, "javaClassName": class, "message": message } }))
}
