//! Settings and flags to the servers' and the client's own configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mobula_client::{ClientOptions, ReplaceDatanode, ReplacePolicy};
use mobula_datanode::{DatanodeConfig, VolumeConfig};
use mobula_fleet::FleetConfig;
use mobula_namenode::impersonation::{Hosts, Impersonation, Names};
use mobula_namenode::{Defaults, GroupMapping, NamenodeConfig};
use mobula_namespace::{Guards, Rules};
use mobula_types::{HdfsPath, Millis, StorageType};
use mobula_wire::checksum::{BYTES_PER_CHUNK_DEFAULT, Checksum, ChecksumKind};

use super::Settings;
use crate::fs::mode;

/// What `mobula namenode` takes as flags; each goes before the files.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NamenodeFlags {
    /// Folder for the namespace and its log; made and formatted if it is empty
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where to serve RPC, HOST:PORT; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Replicas of a file whose client does not say
    #[arg(long, value_name = "N")]
    pub replication: Option<u16>,
    /// Block size of a file whose client does not say, as 128m
    #[arg(long, value_name = "SIZE")]
    pub block_size: Option<String>,
    /// Smallest block size that a client may ask for, as 1m
    #[arg(long, value_name = "SIZE")]
    pub min_block_size: Option<String>,
}

/// What `mobula datanode` takes as flags; each goes before the files.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DatanodeFlags {
    /// Folder of one disk, with its medium in brackets before it where that is not DISK.
    #[arg(
        long = "dir",
        value_name = "DIR",
        help = "Folder of one disk; give it once per disk. [SSD]DIR names its medium"
    )]
    pub dirs: Vec<String>,
    /// The NameNode, HOST:PORT; give it once per NameNode
    #[arg(long = "namenode", value_name = "HOST:PORT")]
    pub namenodes: Vec<String>,
    /// Where to serve data, HOST:PORT; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where to serve RPC, HOST:PORT; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub ipc_listen: Option<String>,
    /// Use at most so much of each disk, as 100g
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<String>,
}

impl NamenodeFlags {
    /// Puts the flags over the settings.
    pub fn apply(&self, settings: &mut Settings) {
        if let Some(dir) = &self.dir {
            settings.set("dfs.namenode.name.dir", dir.display().to_string());
        }
        if self.listen.is_some() {
            // What a file says of the host to bind to was said of another address.
            settings.remove("dfs.namenode.rpc-bind-host");
        }
        let flags = [
            ("dfs.namenode.rpc-address", &self.listen),
            ("dfs.blocksize", &self.block_size),
            ("dfs.namenode.fs-limits.min-block-size", &self.min_block_size),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                settings.set(key, value);
            }
        }
        if let Some(replication) = self.replication {
            settings.set("dfs.replication", replication.to_string());
        }
    }
}

impl DatanodeFlags {
    /// Puts the flags over the settings.
    pub fn apply(&self, settings: &mut Settings) {
        if !self.dirs.is_empty() {
            settings.set("dfs.datanode.data.dir", self.dirs.join(","));
        }
        let flags = [("dfs.datanode.address", &self.listen), ("dfs.datanode.ipc.address", &self.ipc_listen)];
        for (key, value) in flags {
            if let Some(value) = value {
                settings.set(key, value);
            }
        }
    }
}

/// The user as whom we act: `HADOOP_USER_NAME`, else the operating system's name for us.
pub fn user_name() -> String {
    std::env::var("HADOOP_USER_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let uid = nix::unistd::getuid();
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
    })
}

/// A NameNode's configuration.
///
/// # Errors
/// A setting that makes no sense, with where it stood.
pub fn namenode_config(settings: &Settings) -> Result<NamenodeConfig> {
    let mut config = NamenodeConfig { user: user_name(), ..NamenodeConfig::default() };
    let dir = settings.get("dfs.namenode.name.dir").ok_or_else(|| {
        anyhow!("no folder for the NameNode: give --dir DIR, or namenode.dir in mobula.toml (dfs.namenode.name.dir)")
    })?;
    if dir.contains(',') {
        bail!(
            "dfs.namenode.name.dir names several folders ({dir}): one is used, and copies are the log's followers' job"
        );
    }
    config.name_dir = local_path(&dir, "dfs.namenode.name.dir")?;
    config.listen = namenode_listen(settings)?;
    config.rules = rules(settings)?;
    config.guards = guards(settings)?;
    config.fleet = fleet(settings)?;
    // HDFS: what makes no sense is as if it were not there.
    if let Some(count) = settings.number("dfs.ls.limit")?.filter(|count| *count > 0) {
        config.listing_max = count;
    }
    if let Some(count) = settings.number("dfs.batched.ls.limit")? {
        if count == 0 {
            bail!("dfs.batched.ls.limit is 0, but must be greater than 0");
        }
        config.batched_paths_max = count;
    }
    config.defaults = defaults(settings)?;
    if let Some(size) = settings.size("mobula.namenode.cache-size")? {
        config.cache_bytes = usize::try_from(size).context("mobula.namenode.cache-size")?;
    }
    if let Some(size) = settings.size("dfs.namenode.resource.du.reserved")? {
        config.room_reserved = size;
    }
    if let Some(span) = settings.millis("dfs.namenode.resource.check.interval", 1)? {
        // Java would look without end.
        config.room_check = Duration::from_millis(span.max(1));
    }
    if let Some(trust) = settings.truth("mobula.namenode.trust-advertised-address")? {
        config.trust_advertised_address = trust;
    }
    if let Some(table) = settings.get("hadoop.user.group.static.mapping.overrides") {
        config.groups = GroupMapping::Overrides(static_groups(&table));
    }
    config.impersonation = impersonation(settings)?;
    Ok(config)
}

/// What clients that have no configuration of their own take from the NameNode (`FSNamesystem`, `FsServerDefaults`).
fn defaults(settings: &Settings) -> Result<Defaults> {
    let usual = Defaults::default();
    Ok(Defaults {
        block_size: settings.size("dfs.blocksize")?.unwrap_or(usual.block_size),
        checksum: default_checksum(settings)?,
        write_packet_size: settings
            .number("dfs.client-write-packet-size")?
            .unwrap_or(usual.write_packet_size),
        replication: settings.number("dfs.replication")?.unwrap_or(usual.replication),
        file_buffer_size: settings.number("io.file.buffer.size")?.unwrap_or(usual.file_buffer_size),
        trash_interval_min: settings.number("fs.trash.interval")?.unwrap_or(usual.trash_interval_min),
    })
}

fn default_checksum(settings: &Settings) -> Result<Checksum> {
    let kind = match settings.get("dfs.checksum.type").as_deref() {
        None | Some("CRC32C") => ChecksumKind::Crc32c,
        Some("CRC32") => ChecksumKind::Crc32,
        Some("NULL") => ChecksumKind::Null,
        Some(other) => bail!("dfs.checksum.type is '{other}', but must be CRC32C, CRC32 or NULL"),
    };
    let chunk = settings.number("dfs.bytes-per-checksum")?;
    Checksum::new(kind, chunk.unwrap_or(BYTES_PER_CHUNK_DEFAULT)).context("dfs.bytes-per-checksum")
}

/// Who may speak in whose name: `hadoop.proxyuser.NAME.users`, `.groups` and `.hosts`.
fn impersonation(settings: &Settings) -> Result<Impersonation> {
    const PREFIX: &str = "hadoop.proxyuser.";
    let mut rules = Impersonation::default();
    for (name, list) in settings.between(PREFIX, ".users") {
        rules.0.entry(name.into()).or_default().users = Names::parse(&list);
    }
    for (name, list) in settings.between(PREFIX, ".groups") {
        rules.0.entry(name.into()).or_default().groups = Names::parse(&list);
    }
    for (name, list) in settings.between(PREFIX, ".hosts") {
        let hosts = Hosts::parse(&list, addresses_of);
        let hosts = hosts.map_err(|error| anyhow!("{PREFIX}{name}.hosts: {error}"))?;
        rules.0.entry(name.into()).or_default().hosts = hosts;
    }
    Ok(rules)
}

/// A host's addresses; none, with a warning, if it is not known.
fn addresses_of(host: &str) -> Vec<IpAddr> {
    match (host, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "a host from which users may speak for others is not known");
            Vec::new()
        }
    }
}

fn namenode_listen(settings: &Settings) -> Result<SocketAddr> {
    let address = match settings.get("dfs.namenode.rpc-address") {
        Some(address) => address,
        None => settings.namenodes()?.remove(0),
    };
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| anyhow!("'{address}' is no HOST:PORT (dfs.namenode.rpc-address)"))?;
    let host = settings.get("dfs.namenode.rpc-bind-host").unwrap_or_else(|| host.into());
    resolve(&format!("{host}:{port}"))
}

/// Where a NameNode serves HTTP, if it is to.
///
/// # Errors
/// An address that is none.
pub fn namenode_http(settings: &Settings) -> Result<Option<SocketAddr>> {
    let Some(address) = settings.get("dfs.namenode.http-address") else { return Ok(None) };
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| anyhow!("'{address}' is no HOST:PORT (dfs.namenode.http-address)"))?;
    let host = settings.get("dfs.namenode.http-bind-host").unwrap_or_else(|| host.into());
    resolve(&format!("{host}:{port}")).map(Some)
}

/// The hosts' names by which the configuration calls the NameNode.
pub fn namenode_names(settings: &Settings) -> Vec<String> {
    let addresses = ["dfs.namenode.rpc-address", "dfs.namenode.http-address"];
    let addresses = addresses.into_iter().filter_map(|key| settings.get(key));
    addresses
        .chain(settings.namenodes().unwrap_or_default())
        .filter_map(|address| Some(address.rsplit_once(':')?.0.trim().to_owned()))
        .filter(|host| !host.is_empty())
        .collect()
}

fn rules(settings: &Settings) -> Result<Rules> {
    let d = Rules::default();
    let size = |key, default| Ok::<u64, anyhow::Error>(settings.size(key)?.unwrap_or(default));
    Ok(Rules {
        permissions: settings.truth("dfs.permissions.enabled")?.unwrap_or(d.permissions),
        supergroup: settings.get("dfs.permissions.superusergroup").unwrap_or(d.supergroup),
        block_size_min: size("dfs.namenode.fs-limits.min-block-size", d.block_size_min)?,
        file_blocks_max: size("dfs.namenode.fs-limits.max-blocks-per-file", d.file_blocks_max)?,
        name_bytes_max: settings
            .number("dfs.namenode.fs-limits.max-component-length")?
            .unwrap_or(d.name_bytes_max),
        directory_items_max: size("dfs.namenode.fs-limits.max-directory-items", d.directory_items_max)?,
        replication_max: settings.number("dfs.replication.max")?.unwrap_or(d.replication_max),
        replication_min: settings.number("dfs.namenode.replication.min")?.unwrap_or(d.replication_min),
        access_time_precision: settings
            .millis("dfs.namenode.accesstime.precision", 1)?
            .map_or(d.access_time_precision, Millis),
        lease_ms_soft: settings
            .millis("mobula.namenode.lease-soft-limit", 1_000)?
            .map_or(d.lease_ms_soft, Millis),
        lease_ms_hard: settings
            .millis("dfs.namenode.lease-hard-limit-sec", 1_000)?
            .map_or(d.lease_ms_hard, Millis),
    })
}

fn guards(settings: &Settings) -> Result<Guards> {
    let d = Guards::default();
    Ok(Guards {
        objects_max: settings.number("dfs.namenode.max.objects")?.unwrap_or(d.objects_max),
        protected: protected(&settings.get("fs.protected.directories").unwrap_or_default()),
        protect_subdirectories: settings
            .truth("dfs.protected.subdirectories.enable")?
            .unwrap_or(d.protect_subdirectories),
    })
}

/// Directories with commas between. As in HDFS those are passed over that are not absolute, or reserved
/// (`FSDirectory.normalizePaths`).
fn protected(list: &str) -> BTreeSet<HdfsPath> {
    let mut found = BTreeSet::new();
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match HdfsPath::parse(text) {
            Ok(path) if path.components().next() != Some(".reserved") => _ = found.insert(path),
            _ => tracing::error!("fs.protected.directories ignoring path {text}"),
        }
    }
    found
}

fn fleet(settings: &Settings) -> Result<FleetConfig> {
    let mut fleet = FleetConfig::default();
    if let Some(span) = settings.millis("mobula.namenode.suspect-after", 1_000)? {
        fleet.suspect_ms = Millis(span);
    }
    if let Some(span) = settings.millis("mobula.namenode.dead-after", 1_000)? {
        fleet.dead_ms = Millis(span);
    }
    if let Some(count) = settings.number("dfs.namenode.replication.min")? {
        fleet.replication_min = count;
    }
    Ok(fleet)
}

/// `user1=group1,group2;user2=group3` (HDFS: `hadoop.user.group.static.mapping.overrides`).
fn static_groups(table: &str) -> BTreeMap<String, Vec<String>> {
    let entry = |entry: &str| {
        let (user, groups) = entry.split_once('=').unwrap_or((entry, ""));
        let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty());
        (user.trim().to_string(), groups.map(String::from).collect())
    };
    table.split(';').filter(|text| !text.trim().is_empty()).map(entry).collect()
}

/// A DataNode's configuration.
///
/// # Errors
/// A setting that makes no sense, with where it stood.
pub fn datanode_config(settings: &Settings, flags: &DatanodeFlags) -> Result<DatanodeConfig> {
    let mut config = DatanodeConfig { user: user_name(), ..DatanodeConfig::default() };
    let dirs = settings.get("dfs.datanode.data.dir").ok_or_else(|| {
        anyhow!("no folder for the DataNode: give --dir DIR, or datanode.dirs in mobula.toml (dfs.datanode.data.dir)")
    })?;
    let reserved = datanode_reserved(settings)?;
    let capacity = match &flags.capacity {
        Some(text) => Some(
            super::units::parse_size(text)
                .ok_or_else(|| anyhow!("--capacity '{text}' is no size such as 100g"))?,
        ),
        None => None,
    };
    for text in dirs.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let (kind, path) = volume(text)?;
        config.volumes.push(VolumeConfig { path, kind, capacity_limit: capacity, reserved });
    }
    config.namenodes = match settings.get("dfs.namenode.rpc-address") {
        _ if !flags.namenodes.is_empty() => flags.namenodes.clone(),
        Some(address) => vec![address],
        None => settings.namenodes()?,
    };
    if let Some(address) = settings.get("dfs.datanode.address") {
        config.listen = resolve(&address)?;
    }
    if let Some(address) = settings.get("dfs.datanode.ipc.address") {
        config.ipc_listen = resolve(&address)?;
    } else {
        config.ipc_listen = SocketAddr::new(config.listen.ip(), 0);
    }
    config.host_name = settings.get("dfs.datanode.hostname").unwrap_or_else(|| host_name(config.listen.ip()));
    datanode_times_and_limits(settings, &mut config)?;
    if let Some(address) = settings.get("mobula.datanode.advertised-address") {
        let parsed = address.trim().parse();
        config.advertised_ip = Some(
            parsed
                .map_err(|_| anyhow!("mobula.datanode.advertised-address: '{address}' is no IP address"))?,
        );
    }
    Ok(config)
}

/// What is the same for every DataNode, wherever it is.
///
/// # Errors
/// A setting that makes no sense, with where it stood.
pub fn datanode_times_and_limits(settings: &Settings, config: &mut DatanodeConfig) -> Result<()> {
    if let Some(span) = settings.millis("dfs.heartbeat.interval", 1_000)? {
        config.heartbeat_ms = span;
    }
    if let Some(span) = settings.millis("dfs.blockreport.intervalMsec", 1)? {
        config.full_report_ms = span;
    }
    if let Some(count) = settings.number("dfs.datanode.max.transfer.threads")? {
        config.xceivers_max = count;
    }
    if let Some(bytes) = settings.size("mobula.datanode.journal-size")? {
        config.journal_bytes = bytes;
    }
    Ok(())
}

/// Bytes of each disk that a DataNode does not use.
///
/// # Errors
/// A setting that makes no sense, with where it stood.
pub fn datanode_reserved(settings: &Settings) -> Result<u64> {
    Ok(settings.size("dfs.datanode.du.reserved")?.unwrap_or(0))
}

/// The name that readers compare with their own to find replicas on their machine.
fn host_name(listen: IpAddr) -> String {
    if listen == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return "localhost".into();
    }
    own_host_name().unwrap_or_else(|| listen.to_string())
}

/// This machine's name, if it has one.
pub fn own_host_name() -> Option<String> {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok())
}

/// `[SSD]/data/1` to its medium and path (HDFS: `StorageLocation`).
fn volume(text: &str) -> Result<(StorageType, PathBuf)> {
    let Some((name, path)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return Ok((StorageType::Disk, local_path(text, "dfs.datanode.data.dir")?));
    };
    let kind = (1..=6)
        .filter_map(StorageType::from_number)
        .find(|kind| kind.name().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            anyhow!("'{text}': [{name}] is no medium; use DISK, SSD, ARCHIVE, RAM_DISK, PROVIDED or NVDIMM")
        })?;
    Ok((kind, local_path(path, "dfs.datanode.data.dir")?))
}

/// A path that may be written as a `file:` URI, as Hadoop's keys allow.
fn local_path(text: &str, key: &str) -> Result<PathBuf> {
    let text = text.trim();
    if text.contains("${") {
        bail!("{key} is '{text}': nothing says what stands for ${{...}} in it");
    }
    Ok(PathBuf::from(text.strip_prefix("file://").or_else(|| text.strip_prefix("file:")).unwrap_or(text)))
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found =
        address.to_socket_addrs().with_context(|| format!("'{address}' is no HOST:PORT that resolves"))?;
    found.next().ok_or_else(|| anyhow!("'{address}' resolves to nothing"))
}

/// A client's options.
///
/// # Errors
/// A setting that makes no sense, with where it stood.
pub fn client_options(settings: &Settings) -> Result<ClientOptions> {
    let umask = match settings.get("fs.permissions.umask-mode") {
        Some(text) => mode::umask(&text).ok_or_else(|| {
            anyhow!("fs.permissions.umask-mode is '{text}', but must be octal, as 022, or as u=rwx,g=rx,o=")
        })?,
        None => UMASK_DEFAULT,
    };
    Ok(ClientOptions {
        // Of another file system none: a path may name a cluster all the same.
        namenodes: settings.namenodes_of(&settings.default_fs()).unwrap_or_default(),
        user: user_name(),
        replication: settings.number("dfs.replication")?,
        block_size: settings.size("dfs.blocksize")?,
        umask,
        call_limit: CALL_LIMIT,
        replace_datanode: replace_datanode(settings)?,
        favored_nodes: favored_nodes(&settings.get("mobula.client.favored-nodes").unwrap_or_default()),
    })
}

/// DataNodes that new blocks go to first: `mobula.client.favored-nodes`, with commas between.
pub fn favored_nodes(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|node| !node.is_empty()).map(String::from).collect()
}

/// What becomes of a pipeline that lost a node: `dfs.client.block.write.replace-datanode-on-failure.*`.
fn replace_datanode(settings: &Settings) -> Result<ReplaceDatanode> {
    let default = ReplaceDatanode::default();
    let key = "dfs.client.block.write.replace-datanode-on-failure.policy";
    let policy = match settings.get(key) {
        None => default.policy,
        Some(text) => match text.trim().to_uppercase().as_str() {
            "DEFAULT" => ReplacePolicy::Default,
            "ALWAYS" => ReplacePolicy::Always,
            "NEVER" => ReplacePolicy::Never,
            _ => bail!("{key} is '{text}', but must be DEFAULT, ALWAYS or NEVER"),
        },
    };
    let enabled = settings.truth("dfs.client.block.write.replace-datanode-on-failure.enable")?;
    let policy = if enabled.unwrap_or(true) { policy } else { ReplacePolicy::Never };
    let best_effort = settings.truth("dfs.client.block.write.replace-datanode-on-failure.best-effort")?;
    Ok(ReplaceDatanode { policy, best_effort: best_effort.unwrap_or(default.best_effort) })
}

/// HDFS's default of `fs.permissions.umask-mode`.
const UMASK_DEFAULT: u16 = 0o022;

/// Longest wait for the NameNode's answer to one call.
const CALL_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clients_of_another_file_system_and_symbolic_umasks() {
        let mut settings = Settings::default();
        settings.set("fs.defaultFS", "s3a://bucket");
        settings.set("fs.permissions.umask-mode", "u=rwx,g=rx,o=");
        let options = client_options(&settings).unwrap();
        assert_eq!((options.namenodes, options.umask), (Vec::new(), 0o027));
        settings.set("fs.defaultFS", "nn:9000");
        assert_eq!(client_options(&settings).unwrap().namenodes, ["nn:9000"]);
        assert_eq!(settings.default_fs(), "hdfs://nn:9000");
        settings.set("fs.permissions.umask-mode", "27");
        let error = client_options(&settings).unwrap_err().to_string();
        assert!(error.contains("fs.permissions.umask-mode is '27'"), "{error}");
    }

    #[test]
    fn what_clients_are_told_is_as_configured() {
        let mut settings = Settings::default();
        settings.set("dfs.namenode.name.dir", "/name");
        assert_eq!(namenode_config(&settings).unwrap().defaults, Defaults::default());
        let keys = [
            ("dfs.blocksize", "16m"),
            ("dfs.checksum.type", "CRC32"),
            ("dfs.bytes-per-checksum", "4096"),
            ("dfs.client-write-packet-size", "131072"),
            ("dfs.replication", "2"),
            ("io.file.buffer.size", "8192"),
            ("fs.trash.interval", "60"),
        ];
        keys.into_iter().for_each(|(key, value)| settings.set(key, value));
        let told = namenode_config(&settings).unwrap().defaults;
        let expected = Defaults {
            block_size: 16 << 20,
            checksum: Checksum::new(ChecksumKind::Crc32, 4096).unwrap(),
            write_packet_size: 131_072,
            replication: 2,
            file_buffer_size: 8192,
            trash_interval_min: 60,
        };
        assert_eq!(told, expected);
        for (key, wrong) in [("dfs.bytes-per-checksum", "0"), ("dfs.checksum.type", "MIXED")] {
            let mut settings = settings.clone();
            settings.set(key, wrong);
            let error = namenode_config(&settings).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_room_that_is_kept_free() {
        let mut settings = Settings::default();
        settings.set("dfs.namenode.name.dir", "/name");
        let room = |settings: &Settings| {
            let config = namenode_config(settings).unwrap();
            (config.room_reserved, config.room_check)
        };
        assert_eq!(room(&settings), (100 << 20, Duration::from_secs(5)));
        settings.set("dfs.namenode.resource.du.reserved", "1g");
        settings.set("dfs.namenode.resource.check.interval", "250");
        assert_eq!(room(&settings), (1 << 30, Duration::from_millis(250)));
    }

    #[test]
    fn limits_and_protected_directories() {
        let mut settings = Settings::default();
        let keys = [
            ("dfs.namenode.name.dir", "/name"),
            ("dfs.ls.limit", "7"),
            ("dfs.batched.ls.limit", "3"),
            ("dfs.namenode.max.objects", "1000"),
            ("fs.protected.directories", " /a//b/ , c,/.reserved/x, /d"),
            ("dfs.protected.subdirectories.enable", "true"),
        ];
        keys.iter().for_each(|(key, value)| settings.set(key, *value));
        let config = namenode_config(&settings).unwrap();
        assert_eq!((config.listing_max, config.batched_paths_max, config.guards.objects_max), (7, 3, 1_000));
        let protected: Vec<&str> = config.guards.protected.iter().map(HdfsPath::as_str).collect();
        assert_eq!((&protected[..], config.guards.protect_subdirectories), (&["/a/b", "/d"][..], true));
        settings.set("dfs.ls.limit", "0");
        assert_eq!(namenode_config(&settings).unwrap().listing_max, 1_000);
        settings.set("dfs.batched.ls.limit", "0");
        assert!(namenode_config(&settings).is_err());
    }

    #[test]
    fn who_may_speak_in_whose_name() {
        let mut settings = Settings::default();
        settings.set("dfs.namenode.name.dir", "/name");
        assert_eq!(namenode_config(&settings).unwrap().impersonation, Impersonation::default());
        settings.set("hadoop.proxyuser.a.b.users", "x, y");
        settings.set("hadoop.proxyuser.a.b.hosts", "127.0.0.1");
        settings.set("hadoop.proxyuser.hue.groups", "*");
        let rules = namenode_config(&settings).unwrap().impersonation;
        assert_eq!(rules.0.keys().collect::<Vec<_>>(), ["a.b", "hue"]);
        assert_eq!((&rules.0["a.b"].users, &rules.0["hue"].groups), (&Names::parse("x,y"), &Names::All));
        settings.set("hadoop.proxyuser.hue.hosts", "10.0.0.0/99");
        let error = namenode_config(&settings).unwrap_err().to_string();
        assert!(error.contains("hadoop.proxyuser.hue.hosts") && error.contains("10.0.0.0/99"), "{error}");
    }

    #[test]
    fn volumes_name_their_medium() {
        assert_eq!(volume("/data").unwrap(), (StorageType::Disk, "/data".into()));
        assert_eq!(volume("[ssd]file:///data").unwrap(), (StorageType::Ssd, "/data".into()));
        assert!(volume("[TAPE]/data").unwrap_err().to_string().contains("TAPE"));
    }

    #[test]
    fn groups_as_hadoop_writes_them() {
        let groups = static_groups("alice=staff,dev;bob=;carol=ops");
        assert_eq!(groups["alice"], ["staff", "dev"]);
        assert!(groups["bob"].is_empty());
        assert_eq!(groups.len(), 3);
    }

    #[test]
    fn a_datanode_with_two_disks() {
        let mut settings = Settings::default();
        settings.set("dfs.datanode.data.dir", "/d1,[SSD]/d2");
        settings.set("fs.defaultFS", "hdfs://127.0.0.1:9");
        settings.set("dfs.heartbeat.interval", "3");
        settings.set("mobula.datanode.journal-size", "8m");
        let config = datanode_config(&settings, &DatanodeFlags::default()).unwrap();
        assert_eq!(config.volumes.len(), 2);
        assert_eq!(config.volumes[1].kind, StorageType::Ssd);
        assert_eq!(config.namenodes, ["127.0.0.1:9"]);
        assert_eq!(config.heartbeat_ms, 3_000);
        assert_eq!(config.journal_bytes, 8 << 20);
        assert_eq!(config.advertised_ip, None);
        settings.set("mobula.datanode.advertised-address", "10.0.0.7");
        let config = datanode_config(&settings, &DatanodeFlags::default()).unwrap();
        assert_eq!(config.advertised_ip, Some("10.0.0.7".parse().unwrap()));
        settings.set("mobula.datanode.advertised-address", "here");
        assert!(datanode_config(&settings, &DatanodeFlags::default()).is_err());
    }
}
