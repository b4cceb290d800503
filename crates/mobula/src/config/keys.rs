//! Every setting there is: what `mobula.toml` calls it and Hadoop's key for it.

/// Where clients look for a NameNode unless told otherwise: `mobula local`'s place.
pub const DEFAULT_FS: &str = "hdfs://127.0.0.1:9000";

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.name` in `mobula.toml`.
    pub name: &'static str,
    /// Hadoop's key, or one of ours in Hadoop's manner where HDFS has none.
    pub hadoop: &'static str,
    /// What it does, for `mobula config`.
    pub about: &'static str,
}

/// The key that has taken the place of an old one, which Hadoop still takes (HDFS: `HdfsConfiguration`, `Configuration`);
/// any other as it is.
pub fn of_today(key: &str) -> &str {
    match key {
        "fs.default.name" => "fs.defaultFS",
        "dfs.block.size" => "dfs.blocksize",
        "dfs.name.dir" => "dfs.namenode.name.dir",
        "dfs.data.dir" => "dfs.datanode.data.dir",
        "dfs.permissions" => "dfs.permissions.enabled",
        "dfs.permissions.supergroup" => "dfs.permissions.superusergroup",
        "dfs.max.objects" => "dfs.namenode.max.objects",
        "dfs.umaskmode" => "fs.permissions.umask-mode",
        "dfs.replication.min" => "dfs.namenode.replication.min",
        other => other,
    }
}

const fn key(name: &'static str, hadoop: &'static str, about: &'static str) -> Key {
    Key { name, hadoop, about }
}

/// All of them, by section.
pub const KEYS: &[Key] = &[
    key("client.default_fs", "fs.defaultFS", "the cluster, as hdfs://HOST:PORT or a logical name"),
    key("client.replication", "dfs.replication", "replicas of a new file"),
    key("client.block_size", "dfs.blocksize", "block size of a new file, in bytes or as 128m"),
    key("client.umask", "fs.permissions.umask-mode", "permission bits that new files do not get, octal"),
    key("client.checksum", "dfs.checksum.type", "checksum of new files: CRC32C, CRC32 or NULL"),
    key(
        "client.bytes_per_checksum",
        "dfs.bytes-per-checksum",
        "bytes of a new file that one checksum covers",
    ),
    key(
        "client.packet_size",
        "dfs.client-write-packet-size",
        "bytes of a packet that clients without a configuration are told to send",
    ),
    key(
        "client.buffer_size",
        "io.file.buffer.size",
        "bytes of a buffer that clients without a configuration are told to use",
    ),
    key(
        "client.homes",
        "dfs.user.home.dir.prefix",
        "the folder of users' folders, where relative paths begin",
    ),
    key(
        "client.favored_nodes",
        "mobula.client.favored-nodes",
        "DataNodes that new blocks go to first, HOST:PORT with commas between",
    ),
    key(
        "client.trash_interval",
        "fs.trash.interval",
        "minutes that deleted files stay in the trash; 0: no trash",
    ),
    key(
        "client.delete_limit",
        "hadoop.shell.safely.delete.limit.num.files",
        "with more files than this to delete, -safely asks",
    ),
    key(
        "client.checksum_combine",
        "dfs.checksum.combine.mode",
        "checksum of a whole file: MD5MD5CRC, which tells blocks, or COMPOSITE_CRC, of the content alone",
    ),
    key(
        "client.replace_datanode",
        "dfs.client.block.write.replace-datanode-on-failure.enable",
        "whether a writer takes another DataNode in place of one that is lost; false: never",
    ),
    key(
        "client.replace_datanode_policy",
        "dfs.client.block.write.replace-datanode-on-failure.policy",
        "when it does: DEFAULT, ALWAYS or NEVER",
    ),
    key(
        "client.replace_datanode_best_effort",
        "dfs.client.block.write.replace-datanode-on-failure.best-effort",
        "whether it goes on with fewer where there is no other one",
    ),
    key("namenode.dir", "dfs.namenode.name.dir", "the NameNode's folder"),
    key("namenode.listen", "dfs.namenode.rpc-address", "where the NameNode serves, HOST:PORT"),
    key(
        "namenode.bind_host",
        "dfs.namenode.rpc-bind-host",
        "the address to bind if it is not the host of namenode.listen",
    ),
    key(
        "namenode.http",
        "dfs.namenode.http-address",
        "where the NameNode serves HTTP (status, fsck, WebHDFS), HOST:PORT; it does only if this is set",
    ),
    key(
        "namenode.http_bind_host",
        "dfs.namenode.http-bind-host",
        "the address to bind if it is not the host of namenode.http",
    ),
    key("namenode.permissions", "dfs.permissions.enabled", "whether permissions are enforced"),
    key("namenode.supergroup", "dfs.permissions.superusergroup", "the group of superusers"),
    key("namenode.block_size_min", "dfs.namenode.fs-limits.min-block-size", "smallest block size of a file"),
    key("namenode.file_blocks_max", "dfs.namenode.fs-limits.max-blocks-per-file", "most blocks of a file"),
    key(
        "namenode.name_bytes_max",
        "dfs.namenode.fs-limits.max-component-length",
        "longest name, bytes; 0: any",
    ),
    key(
        "namenode.directory_items_max",
        "dfs.namenode.fs-limits.max-directory-items",
        "most entries of a directory",
    ),
    key(
        "namenode.objects_max",
        "dfs.namenode.max.objects",
        "most files, directories and blocks together; 0: any number",
    ),
    key("namenode.listing_max", "dfs.ls.limit", "most entries of a directory in one answer"),
    key("namenode.batched_listing_max", "dfs.batched.ls.limit", "most directories that one call may list"),
    key(
        "namenode.protected_directories",
        "fs.protected.directories",
        "directories that nobody can delete or rename unless they are empty, with commas between",
    ),
    key(
        "namenode.protect_subdirectories",
        "dfs.protected.subdirectories.enable",
        "whether what is in a protected directory is protected, too",
    ),
    key("namenode.replication_max", "dfs.replication.max", "most replicas of a file"),
    key(
        "namenode.replication_min",
        "dfs.namenode.replication.min",
        "replicas before a block counts as written",
    ),
    key(
        "namenode.access_time_precision",
        "dfs.namenode.accesstime.precision",
        "access times are kept this exactly, ms; 0: not kept",
    ),
    key(
        "namenode.static_groups",
        "hadoop.user.group.static.mapping.overrides",
        "groups of users, as user1=g1,g2;user2=g3",
    ),
    key(
        "proxyuser.NAME.users",
        "hadoop.proxyuser.NAME.users",
        "users in whose name the user NAME may speak, with commas between; *: any",
    ),
    key(
        "proxyuser.NAME.groups",
        "hadoop.proxyuser.NAME.groups",
        "groups in whose members' names the user NAME may speak, with commas between; *: any",
    ),
    key(
        "proxyuser.NAME.hosts",
        "hadoop.proxyuser.NAME.hosts",
        "where NAME may do that from: addresses, networks as 10.0.0.0/8, names, with commas between; *: anywhere",
    ),
    key(
        "namenode.suspect_after",
        "mobula.namenode.suspect-after",
        "without a beat for so long, a DataNode gets no new blocks",
    ),
    key(
        "namenode.dead_after",
        "mobula.namenode.dead-after",
        "without a beat for so long, a DataNode is dead and its blocks heal",
    ),
    key(
        "namenode.lease_soft_limit",
        "mobula.namenode.lease-soft-limit",
        "a writer that was silent for so long may be replaced by another; without a unit, seconds",
    ),
    key(
        "namenode.lease_hard_limit",
        "dfs.namenode.lease-hard-limit-sec",
        "the files of a writer that was silent for so long are closed; without a unit, seconds",
    ),
    key(
        "namenode.trust_advertised_address",
        "mobula.namenode.trust-advertised-address",
        "take the address that a DataNode advertises, not the one that it connects from",
    ),
    key(
        "namenode.room_reserved",
        "dfs.namenode.resource.du.reserved",
        "with less room than this on the disk of namenode.dir, nothing is changed any more (safe mode); 0: not looked at",
    ),
    key(
        "namenode.room_check",
        "dfs.namenode.resource.check.interval",
        "how often that room is looked at when nobody writes; without a unit, ms",
    ),
    key("namenode.cache_size", "mobula.namenode.cache-size", "memory for the namespace's tables"),
    key(
        "datanode.dirs",
        "dfs.datanode.data.dir",
        "the DataNode's folders, one per disk, separated by commas; [SSD] before one names its medium",
    ),
    key("datanode.listen", "dfs.datanode.address", "where the DataNode serves data, HOST:PORT"),
    key("datanode.ipc_listen", "dfs.datanode.ipc.address", "where the DataNode serves RPC, HOST:PORT"),
    key("datanode.host_name", "dfs.datanode.hostname", "the name by which others know this DataNode's host"),
    key(
        "datanode.advertised_address",
        "mobula.datanode.advertised-address",
        "the IP address that others are to connect to, where it is not that of datanode.listen",
    ),
    key("datanode.heartbeat", "dfs.heartbeat.interval", "time between heartbeats; without a unit, seconds"),
    key(
        "datanode.report_interval",
        "dfs.blockreport.intervalMsec",
        "time between full block reports; without a unit, ms",
    ),
    key("datanode.reserved", "dfs.datanode.du.reserved", "bytes of each disk that are not used"),
    key(
        "datanode.journal",
        "mobula.datanode.journal-size",
        "how long each of the two files of a disk's journal of small syncs may become; 0: there is none",
    ),
    key("datanode.transfers_max", "dfs.datanode.max.transfer.threads", "most data connections at once"),
];

/// The key that `mobula.toml` calls `name`.
pub fn by_name(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known name that looks most like `name`.
pub fn nearest(name: &str) -> &'static str {
    KEYS.iter().map(|key| key.name).min_by_key(|known| distance(name, known)).unwrap_or(KEYS[0].name)
}

/// Levenshtein's distance: how many letters to change, add or drop.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_nearest() {
        assert_eq!(nearest("client.replicaton"), "client.replication");
        assert_eq!(nearest("datanode.dir"), "datanode.dirs");
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    /// Texts of the program that look like keys of a configuration, outside tests, with their files.
    fn mentioned(folder: &std::path::Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                mentioned(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap();
            let part_of_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            let texts = product.split('"').filter(|text| text.chars().all(part_of_key));
            let begins = ["dfs.", "fs.", "hadoop.", "mobula.namenode", "mobula.datanode", "mobula.client"];
            let keys = texts.filter(|text| begins.iter().any(|begin| text.starts_with(begin)));
            found.extend(keys.map(|key| (path.display().to_string(), key.to_owned())));
        }
    }

    #[test]
    fn what_is_asked_for_is_listed() {
        let mut found = Vec::new();
        mentioned(concat!(env!("CARGO_MANIFEST_DIR"), "/src").as_ref(), &mut found);
        // What others' defaults are made of, and the beginning of keys with a name in them.
        found.retain(|(file, key)| {
            !file.ends_with("keys.rs") && key != "hadoop.tmp.dir" && !key.ends_with('.')
        });
        assert!(found.len() > 40, "the keys are gone: {found:?}");
        for (file, key) in found {
            assert!(KEYS.iter().any(|listed| listed.hadoop == key), "{key} of {file} is not listed");
        }
    }

    #[test]
    fn names_are_unique() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(KEYS[at + 1..].iter().all(|other| other.name != key.name && other.hadoop != key.hadoop));
        }
    }
}
