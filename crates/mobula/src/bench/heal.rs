//! A DataNode is killed for good: how long until every block has all its replicas again, on nodes that live. The node
//! stays dead: start it again before the next run.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mobula_client::CreateOptions;
use mobula_proto::hdfs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::data::{delete, noise};
use super::listener::process_on_port;
use super::meter::Latencies;
use super::report::Row;
use super::{Target, parse_size};

/// What lies there, and what is killed.
#[derive(Clone, Debug, Args)]
pub struct HealArgs {
    /// Bytes of the file
    #[arg(long, default_value = "4g", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Replicas: there must be more DataNodes than that
    #[arg(long, default_value_t = 3, value_name = "N")]
    replication: u16,
    /// Bytes of a block
    #[arg(long, default_value = "16m", value_parser = parse_size, value_name = "SIZE")]
    block_size: u64,
    /// A cluster that is not whole after so many seconds has failed
    #[arg(long, default_value_t = 1_500, value_name = "SECONDS")]
    limit: u64,
}

/// Bytes that the file is written by.
const PIECE: u64 = 1 << 20;
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait until all is whole before the kill.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(target: &Target, args: &HealArgs) -> Result<Vec<Row>> {
    let path = format!("{}/heal", target.folder);
    write(target, args, &path).await?;
    wait_until_whole(target, args, &path, None, SETTLE_LIMIT).await.context("before the kill")?;
    let (pid, address) = victim(target).await?;
    let lost = holds(&locations(target, args, &path).await?, &address);
    ensure!(lost > 0, "the node {address} holds no replica of {path}");
    let cpu = target.cpu();
    let begun = Instant::now();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).with_context(|| format!("cannot kill {pid}"))?;
    let limit = Duration::from_secs(args.limit);
    let noticed = wait_until_whole(target, args, &path, Some(&address), limit).await?;
    let used = cpu.used();
    let row = |name: &str, seconds: f64| Row {
        name: name.into(),
        operations: lost,
        seconds,
        ..Row::of_operations(name, &Latencies::default(), used).bare()
    };
    let rows = vec![
        row("one node killed -> noticed", noticed.as_secs_f64()),
        row("one node killed -> whole again", begun.elapsed().as_secs_f64()),
    ];
    delete(&target.client(), &path).await?;
    Ok(rows)
}

async fn write(target: &Target, args: &HealArgs, path: &str) -> Result<()> {
    let (client, piece) = (target.client(), noise(target, PIECE));
    let options = CreateOptions {
        overwrite: true,
        replication: Some(args.replication),
        block_size: Some(args.block_size),
        ..CreateOptions::default()
    };
    let mut file = client.create(path, options).await?;
    let mut left = args.size;
    while left > 0 {
        let length = left.min(PIECE);
        file.write(piece.slice(..length as usize)).await?;
        left -= length;
    }
    Ok(file.close().await?)
}

/// The first of the processes, with the address that the NameNode knows it by.
async fn victim(target: &Target) -> Result<(u32, String)> {
    let request = hdfs::GetDatanodeReportRequestProto { r#type: hdfs::DatanodeReportTypeProto::Live as i32 };
    let nodes = target.client().namenode().get_datanode_report(request).await?.di;
    for &pid in &target.datanode_pids {
        let listens = |node: &&hdfs::DatanodeInfoProto| {
            u16::try_from(node.id.xfer_port).is_ok_and(|port| process_on_port(&[pid], port).is_some())
        };
        if let Some(node) = nodes.iter().find(listens) {
            return Ok((pid, address_of(&node.id)));
        }
    }
    bail!("no live DataNode is one of the processes of --datanode-pid {:?}", target.datanode_pids)
}

fn address_of(node: &hdfs::DatanodeIdProto) -> String {
    format!("{}:{}", node.ip_addr, node.xfer_port)
}

/// Where each block's replicas are.
async fn locations(target: &Target, args: &HealArgs, path: &str) -> Result<Vec<Vec<String>>> {
    let request = hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: args.size };
    let answer = target.client().namenode().get_block_locations(request).await?;
    let located = answer.locations.context("the file is not there")?;
    let of_block =
        |block: &hdfs::LocatedBlockProto| block.locs.iter().map(|node| address_of(&node.id)).collect();
    Ok(located.blocks.iter().map(of_block).collect())
}

fn holds(blocks: &[Vec<String>], address: &str) -> usize {
    blocks.iter().filter(|nodes| nodes.iter().any(|node| node == address)).count()
}

/// Waits until every block has all its replicas, and none on `dead`; answers after what time nothing was said to be on
/// `dead` any more.
async fn wait_until_whole(
    target: &Target,
    args: &HealArgs,
    path: &str,
    dead: Option<&str>,
    limit: Duration,
) -> Result<Duration> {
    let begun = Instant::now();
    let mut noticed = None;
    loop {
        let blocks = locations(target, args, path).await?;
        let gone = dead.is_none_or(|dead| holds(&blocks, dead) == 0);
        if gone {
            let noticed = *noticed.get_or_insert_with(|| begun.elapsed());
            if blocks.iter().all(|nodes| nodes.len() >= usize::from(args.replication)) {
                return Ok(noticed);
            }
        }
        let missing = blocks.iter().filter(|nodes| nodes.len() < usize::from(args.replication)).count();
        ensure!(
            begun.elapsed() < limit,
            "{missing} of {} blocks are not whole after {limit:?}",
            blocks.len()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
