//! What a NameNode is told at its start. Plain data: files and flags are read elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mobula_fleet::FleetConfig;
use mobula_namespace::{Guards, Rules};
use mobula_rpc::RpcServerOptions;
use mobula_wire::checksum::Checksum;

use crate::impersonation::Impersonation;
use crate::machine::Observer;

/// Memory for the tables' pages, in bytes: the largest part of the process's memory (1 M files must
/// fit into 300 MiB of RSS).
pub const CACHE_BYTES: usize = 96 << 20;

/// Everything that can be set, with defaults that are safe: loopback only.
#[derive(Clone, Debug)]
pub struct NamenodeConfig {
    /// `dfs.namenode.name.dir`: the folder with the log and the tables.
    pub name_dir: PathBuf,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `host:port` that others are told; `None`: what it listens on.
    pub advertised: Option<String>,
    /// The superuser: whoever runs the NameNode.
    pub user: String,
    /// Limits that decide outcomes; logged when they differ from those in force.
    pub rules: Rules,
    /// What an administrator has put out of reach; logged when it differs from what is in force.
    pub guards: Guards,
    /// What clients are told by `getServerDefaults`.
    pub defaults: Defaults,
    /// Times and limits of the fleet.
    pub fleet: FleetConfig,
    /// Where a user's groups come from.
    pub groups: GroupMapping,
    /// Who may speak in whose name.
    pub impersonation: Impersonation,
    /// How long a group lookup is believed (`hadoop.security.groups.cache.secs`).
    pub groups_ttl: Duration,
    /// Page cache of the tables, bytes.
    pub cache_bytes: usize,
    /// Limits of the RPC server.
    pub rpc: RpcServerOptions,
    /// Take the address that a DataNode advertises instead of the one that it connects from.
    pub trust_advertised_address: bool,
    /// `addBlock` waits so long for DataNodes to come back (D11).
    pub placement_wait: Duration,
    /// `complete` waits so long for the last block's report before it says false.
    pub complete_wait: Duration,
    /// How often the fleet is ticked and leases are looked at.
    pub tick: Duration,
    /// Entries of a listing's page (`dfs.ls.limit`).
    pub listing_max: usize,
    /// Paths of one `getBatchedListing` (`dfs.batched.ls.limit`).
    pub batched_paths_max: usize,
    /// `dfs.namenode.resource.du.reserved`: with less room than this, in bytes, for log and tables, nothing is changed any
    /// more (safe mode). A new segment of the log takes `log_segment_bytes` of it at once.
    pub room_reserved: u64,
    /// `dfs.namenode.resource.check.interval`: how often that is looked at when nobody writes.
    pub room_check: Duration,
    /// Sync the tables and cut the log after so many bytes of log.
    pub sync_log_bytes: u64,
    /// Sync the tables and cut the log after so many commands.
    pub sync_commands: u64,
    /// Bytes reserved for a segment of the log.
    pub log_segment_bytes: u64,
    /// Hears of what is applied; for tests.
    pub observer: Observer,
}

impl Default for NamenodeConfig {
    fn default() -> NamenodeConfig {
        NamenodeConfig {
            name_dir: PathBuf::from("name"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertised: None,
            user: "hdfs".into(),
            rules: Rules::default(),
            guards: Guards::default(),
            defaults: Defaults::default(),
            fleet: FleetConfig::default(),
            groups: GroupMapping::default(),
            impersonation: Impersonation::default(),
            groups_ttl: Duration::from_secs(300),
            cache_bytes: CACHE_BYTES,
            rpc: RpcServerOptions {
                connections_max: 20_000,
                calls_in_flight_max: 1_024,
                outbox_bytes_max: 8 << 20,
                // A full report of some million replicas.
                request_bytes_max: 256 << 20,
            },
            trust_advertised_address: false,
            placement_wait: Duration::from_secs(10),
            complete_wait: Duration::from_millis(500),
            tick: Duration::from_millis(250),
            listing_max: 1_000,
            batched_paths_max: 100,
            room_reserved: 100 << 20,
            room_check: Duration::from_secs(5),
            sync_log_bytes: 64 << 20,
            // A restart replays so many at most: a tenth of a second.
            sync_commands: 16_000,
            log_segment_bytes: 16 << 20,
            observer: Observer::default(),
        }
    }
}

/// `getServerDefaults`, with HDFS's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `dfs.blocksize`, bytes.
    pub block_size: u64,
    /// `dfs.checksum.type` and `dfs.bytes-per-checksum`.
    pub checksum: Checksum,
    /// `dfs.client-write-packet-size`, bytes.
    pub write_packet_size: u32,
    /// `dfs.replication`.
    pub replication: u16,
    /// `io.file.buffer.size`, bytes.
    pub file_buffer_size: u32,
    /// `fs.trash.interval`, minutes; 0: no trash.
    pub trash_interval_min: u64,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults {
            block_size: 128 << 20,
            checksum: Checksum::default_crc32c(),
            write_packet_size: 65_536,
            replication: 3,
            file_buffer_size: 4_096,
            trash_interval_min: 0,
        }
    }
}

/// Where a user's groups come from (`hadoop.security.group.mapping`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GroupMapping {
    /// The operating system's user database. Never a shell (CVE-2016-5393).
    #[default]
    System,
    /// A fixed table; a user who is not in it has no groups.
    Static(BTreeMap<String, Vec<String>>),
    /// A fixed table for some users; the operating system's database for all others
    /// (HDFS: `hadoop.user.group.static.mapping.overrides`).
    Overrides(BTreeMap<String, Vec<String>>),
    /// What the program that this NameNode is embedded in knows.
    Ask(GroupDirectory),
}

/// A directory of users: may block; none if it cannot say now, empty for a user without groups.
#[derive(Clone)]
pub struct GroupDirectory(Arc<AskGroups>);

type AskGroups = dyn Fn(&str) -> Option<Vec<String>> + Send + Sync;

impl GroupDirectory {
    /// One that calls `ask`, on a thread for that.
    pub fn new(ask: impl Fn(&str) -> Option<Vec<String>> + Send + Sync + 'static) -> GroupDirectory {
        GroupDirectory(Arc::new(ask))
    }

    pub(crate) fn groups_of(&self, user: &str) -> Option<Vec<String>> {
        (self.0)(user)
    }
}

impl PartialEq for GroupDirectory {
    fn eq(&self, other: &GroupDirectory) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for GroupDirectory {}

impl fmt::Debug for GroupDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupDirectory")
    }
}
