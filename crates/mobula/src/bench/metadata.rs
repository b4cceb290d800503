//! Calls to the NameNode, many in flight on few connections: each kind on its own, and in the mix of
//! a large production cluster.

use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use mobula_client::namenode::CLIENT_PROTOCOL;
use mobula_proto::hdfs;
use mobula_rpc::{RpcClient, RpcClientOptions};
use prost::Message;

use super::meter::measure;
use super::report::Row;
use super::{CALL_LIMIT, Target};

/// What to call, how often.
#[derive(Clone, Debug, Args)]
pub struct MetadataArgs {
    /// Operations of each kind
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    ops: usize,
    /// Calls in flight at any time
    #[arg(long, default_value_t = 64, value_name = "N")]
    in_flight: usize,
    /// Connections that they share
    #[arg(long, default_value_t = 1, value_name = "N")]
    connections: usize,
    /// Kinds to measure, of: create, open, stat, list, mkdirs, rename, delete, mix
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    only: Vec<String>,
    /// Rounds that come first and are not counted, so that a JVM has compiled what it will
    #[arg(long, default_value_t = 0, value_name = "N")]
    warm_up: usize,
}

/// Files of a directory, as in Hadoop's NNThroughputBenchmark.
const FILES_PER_DIRECTORY: usize = 100;
/// Block size of the files, which have no blocks.
const BLOCK_SIZE: u64 = 128 << 20;
/// The kinds, in the order in which they are measured: each finds what those before it left.
const KINDS: [&str; 8] = ["create", "open", "stat", "list", "mkdirs", "rename", "delete", "mix"];

/// The calls, over several connections.
#[derive(Clone, Debug)]
struct Calls {
    connections: Arc<Vec<RpcClient>>,
    client_name: String,
    base: String,
}

pub(super) async fn run(target: &Target, args: &MetadataArgs) -> Result<Vec<Row>> {
    if let Some(unknown) = args.only.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        bail!("'{unknown}' is none of: {}", KINDS.join(", "));
    }
    let calls = Calls::connect(target, args.connections.max(1));
    for _ in 0..args.warm_up {
        round(target, args, &calls).await?;
    }
    round(target, args, &calls).await
}

async fn round(target: &Target, args: &MetadataArgs, calls: &Calls) -> Result<Vec<Row>> {
    calls.delete(&calls.base, true).await?;
    let result = phases(target, args, calls).await;
    calls.delete(&calls.base, true).await?;
    result
}

async fn phases(target: &Target, args: &MetadataArgs, calls: &Calls) -> Result<Vec<Row>> {
    let wanted = |kind: &str| args.only.is_empty() || args.only.iter().any(|only| only == kind);
    let mut rows = Vec::new();
    calls.prepare_directories("files", args.ops, args.in_flight).await?;
    for kind in KINDS.iter().copied().filter(|kind| *kind != "mix") {
        // Those before "rename" work on the files that create makes, so create always runs.
        let needed = match kind {
            "create" => KINDS[1..7].iter().any(|kind| wanted(kind)),
            "rename" => wanted("delete"),
            _ => false,
        };
        if !needed && !wanted(kind) {
            continue;
        }
        let each = calls.clone();
        let operation = move |index: usize| {
            let calls = each.clone();
            async move { calls.one(kind, index).await }
        };
        if kind == "mkdirs" {
            calls.mkdirs(&format!("{}/directories", calls.base)).await?;
        }
        let row = measure(kind, args.ops, args.in_flight, target.cpu(), operation).await?;
        if wanted(kind) {
            rows.push(row);
        }
    }
    if wanted("mix") {
        rows.push(mix(target, args, calls).await?);
    }
    Ok(rows)
}

/// 47 % list, 42 % open, 3 % create, 3 % mkdirs, 2 % rename, 3 % other (stat, setReplication, delete).
async fn mix(target: &Target, args: &MetadataArgs, calls: &Calls) -> Result<Row> {
    let pool = args.ops.clamp(FILES_PER_DIRECTORY, MIX_POOL_MAX);
    for folder in ["pool", "moving", "new"] {
        calls.prepare_directories(folder, args.ops.max(pool), args.in_flight).await?;
    }
    let each = calls.clone();
    let fill = move |index: usize| {
        let calls = each.clone();
        async move { calls.create(&calls.file("pool", index)).await }
    };
    measure("pool", pool, args.in_flight, target.cpu(), fill).await?;
    // What is renamed and deleted exists before, and is touched once.
    let moving: Vec<usize> = (0..args.ops).filter(|index| matches!(share_of(*index), 95 | 96 | 99)).collect();
    let (each, count) = (calls.clone(), moving.len());
    let fill = move |index: usize| {
        let (calls, index) = (each.clone(), moving[index]);
        async move { calls.create(&calls.file("moving", index)).await }
    };
    measure("moving", count, args.in_flight, target.cpu(), fill).await?;
    let each = calls.clone();
    let operation = move |index: usize| {
        let calls = each.clone();
        async move { calls.one_of_mix(index, pool).await }
    };
    measure("mix", args.ops, args.in_flight, target.cpu(), operation).await
}

/// Files that the mix opens and lists.
const MIX_POOL_MAX: usize = 20_000;

/// A number below 2^64 that looks random, the same for the same index in every run (splitmix64).
fn scatter(index: usize) -> u64 {
    let mut z = (index as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Which percent of the mix an operation belongs to.
fn share_of(index: usize) -> u64 {
    scatter(index) % 100
}

impl Calls {
    fn connect(target: &Target, connections: usize) -> Calls {
        let options = RpcClientOptions {
            address: target.address.clone(),
            user: target.user.clone(),
            protocol: CLIENT_PROTOCOL,
            connect_limit: CALL_LIMIT,
            call_limit: CALL_LIMIT,
        };
        let connections = (0..connections).map(|_| RpcClient::new(&target.env, options.clone()));
        Calls {
            connections: Arc::new(connections.collect()),
            client_name: format!("mobula_bench_{}", target.env.entropy.u64()),
            base: format!("{}/metadata", target.folder),
        }
    }

    async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        index: usize,
    ) -> Result<R> {
        Ok(self.connections[index % self.connections.len()].call(method, request).await?)
    }

    fn folder(&self, folder: &str, index: usize) -> String {
        format!("{}/{folder}/d{}", self.base, index / FILES_PER_DIRECTORY)
    }

    fn file(&self, folder: &str, index: usize) -> String {
        format!("{}/f{index}", self.folder(folder, index))
    }

    async fn prepare_directories(&self, folder: &str, files: usize, in_flight: usize) -> Result<()> {
        let (calls, folder) = (self.clone(), folder.to_string());
        let make = move |index: usize| {
            let calls = calls.clone();
            let path = calls.folder(&folder, index * FILES_PER_DIRECTORY);
            async move { calls.mkdirs(&path).await }
        };
        let nobody = super::meter::CpuMeter::start(None, &[]);
        measure("prepare", files.div_ceil(FILES_PER_DIRECTORY), in_flight, nobody, make).await?;
        Ok(())
    }

    async fn one(&self, kind: &str, index: usize) -> Result<()> {
        let path = self.file("files", index);
        match kind {
            "create" => self.create(&path).await,
            "open" => self.open(&path, index).await,
            "stat" => self.stat(&path, index).await,
            "list" => self.list(&self.folder("files", index), index).await,
            "mkdirs" => self.mkdirs(&format!("{}/directories/d{index}", self.base)).await,
            "rename" => self.rename(&path, index).await,
            _ => self.delete(&format!("{path}.moved"), false).await,
        }
    }

    async fn one_of_mix(&self, index: usize, pool: usize) -> Result<()> {
        let picked = (scatter(index) >> 32) as usize % pool;
        match share_of(index) {
            0..=46 => self.list(&self.folder("pool", picked), index).await,
            47..=88 => self.open(&self.file("pool", picked), index).await,
            89..=91 => self.create(&self.file("new", index)).await,
            92..=94 => self.mkdirs(&format!("{}.d", self.file("new", index))).await,
            95 | 96 => self.rename(&self.file("moving", index), index).await,
            97 => self.stat(&self.file("pool", picked), index).await,
            98 => self.set_replication(&self.file("pool", picked), index).await,
            _ => self.delete(&self.file("moving", index), false).await,
        }
    }

    /// create and complete: two calls, a file without blocks.
    async fn create(&self, path: &str) -> Result<()> {
        let request = hdfs::CreateRequestProto {
            src: path.into(),
            masked: hdfs::FsPermissionProto { perm: 0o644 },
            client_name: self.client_name.clone(),
            create_flag: hdfs::CreateFlagProto::Create as u32,
            create_parent: true,
            replication: 3,
            block_size: BLOCK_SIZE,
            ..Default::default()
        };
        let spread = path.len();
        let created: hdfs::CreateResponseProto = self.call("create", &request, spread).await?;
        let request = hdfs::CompleteRequestProto {
            src: path.into(),
            client_name: self.client_name.clone(),
            last: None,
            file_id: created.fs.and_then(|status| status.file_id),
        };
        let done: hdfs::CompleteResponseProto = self.call("complete", &request, spread).await?;
        anyhow::ensure!(done.result, "complete of {path} says no");
        Ok(())
    }

    async fn open(&self, path: &str, index: usize) -> Result<()> {
        let request =
            hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: 10 * BLOCK_SIZE };
        let answer: hdfs::GetBlockLocationsResponseProto =
            self.call("getBlockLocations", &request, index).await?;
        anyhow::ensure!(answer.locations.is_some(), "{path} is not there");
        Ok(())
    }

    async fn stat(&self, path: &str, index: usize) -> Result<()> {
        let request = hdfs::GetFileInfoRequestProto { src: path.into() };
        let answer: hdfs::GetFileInfoResponseProto = self.call("getFileInfo", &request, index).await?;
        anyhow::ensure!(answer.fs.is_some(), "{path} is not there");
        Ok(())
    }

    async fn list(&self, path: &str, index: usize) -> Result<()> {
        let request = hdfs::GetListingRequestProto { src: path.into(), ..Default::default() };
        let answer: hdfs::GetListingResponseProto = self.call("getListing", &request, index).await?;
        anyhow::ensure!(answer.dir_list.is_some(), "{path} is not there");
        Ok(())
    }

    async fn mkdirs(&self, path: &str) -> Result<()> {
        let request = hdfs::MkdirsRequestProto {
            src: path.into(),
            masked: hdfs::FsPermissionProto { perm: 0o755 },
            create_parent: true,
            unmasked: None,
        };
        let answer: hdfs::MkdirsResponseProto = self.call("mkdirs", &request, path.len()).await?;
        anyhow::ensure!(answer.result, "mkdirs of {path} says no");
        Ok(())
    }

    async fn rename(&self, path: &str, index: usize) -> Result<()> {
        let request = hdfs::RenameRequestProto { src: path.into(), dst: format!("{path}.moved") };
        let answer: hdfs::RenameResponseProto = self.call("rename", &request, index).await?;
        anyhow::ensure!(answer.result, "rename of {path} says no");
        Ok(())
    }

    async fn set_replication(&self, path: &str, index: usize) -> Result<()> {
        let replication = 2 + (index % 2) as u32;
        let request = hdfs::SetReplicationRequestProto { src: path.into(), replication };
        let answer: hdfs::SetReplicationResponseProto = self.call("setReplication", &request, index).await?;
        anyhow::ensure!(answer.result, "setReplication of {path} says no");
        Ok(())
    }

    /// A missing path is no error when `recursive`: that is cleaning up.
    async fn delete(&self, path: &str, recursive: bool) -> Result<()> {
        let request = hdfs::DeleteRequestProto { src: path.into(), recursive };
        let answer: hdfs::DeleteResponseProto = self.call("delete", &request, path.len()).await?;
        anyhow::ensure!(answer.result || recursive, "{path} is not there");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_has_the_shares_that_it_says() {
        let count = 100_000;
        let share = |from: u64, to: u64| {
            (0..count).filter(|index| (from..=to).contains(&share_of(*index))).count() * 100 / count
        };
        assert!((46..=48).contains(&share(0, 46)));
        assert!((41..=43).contains(&share(47, 88)));
    }
}
