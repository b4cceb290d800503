//! A node of the pipeline is killed while a large file is written: how long the writer stands still, and how much later
//! the file is done. The node stays dead: start it again before the next run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
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

/// What to write, and when to kill.
#[derive(Clone, Debug, Args)]
pub struct LossArgs {
    /// Bytes of the file
    #[arg(long, default_value = "1g", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Replicas
    #[arg(long, default_value_t = 3, value_name = "N")]
    replication: u16,
    /// Bytes of a block
    #[arg(long, default_value = "128m", value_parser = parse_size, value_name = "SIZE")]
    block_size: u64,
    /// After so many percent of the file
    #[arg(long, default_value_t = 55, value_name = "PERCENT")]
    after: u64,
    /// Which node of the pipeline, counted from 1
    #[arg(long, default_value_t = 2, value_name = "N")]
    node: usize,
    /// Puts without a loss that come before, to compare with; the first is not counted
    #[arg(long, default_value_t = 3, value_name = "N")]
    calm: usize,
}

/// Bytes that the file is written by: what a stall is measured between.
const PIECE: u64 = 1 << 20;
/// A writer that stands still for longer has failed.
const STALL_LIMIT: Duration = Duration::from_secs(300);

pub(super) async fn run(target: &Target, args: &LossArgs) -> Result<Vec<Row>> {
    ensure!(!target.datanode_pids.is_empty(), "which process to kill is found among those of --datanode-pid");
    let (path, piece) = (format!("{}/loss", target.folder), noise(target, PIECE));
    let mut rows = Vec::new();
    for round in 0..args.calm {
        let row = put(target, args, &path, &piece, None).await?;
        rows.extend(Some(row).filter(|_| round > 0 || args.calm == 1));
    }
    let kill_at = args.size / 100 * args.after.min(100);
    rows.push(put(target, args, &path, &piece, Some(kill_at)).await?);
    check(target, args, &path, &piece).await?;
    delete(&target.client(), &path).await?;
    Ok(rows)
}

/// Writes the file, and kills where `kill_at` bytes were written.
async fn put(
    target: &Target,
    args: &LossArgs,
    path: &str,
    piece: &Bytes,
    mut kill_at: Option<u64>,
) -> Result<Row> {
    let client = target.client();
    let options = CreateOptions {
        overwrite: true,
        replication: Some(args.replication),
        block_size: Some(args.block_size),
        ..CreateOptions::default()
    };
    let cpu = target.cpu();
    let disturbed = kill_at.is_some();
    let mut file = client.create(path, options).await?;
    let (mut left, mut stall) = (args.size, Duration::ZERO);
    let name = if disturbed { "put, one node killed" } else { "put" };
    while left > 0 {
        if kill_at.is_some_and(|at| args.size - left >= at) {
            kill_at = None;
            kill_node(target, args, path).await?;
        }
        let begun = Instant::now();
        let length = left.min(PIECE);
        let written = file.write(piece.slice(..length as usize));
        tokio::time::timeout(STALL_LIMIT, written).await.context("the writer stands still")??;
        stall = stall.max(begun.elapsed());
        left -= length;
    }
    let begun = Instant::now();
    tokio::time::timeout(STALL_LIMIT, file.close()).await.context("the close stands still")??;
    stall = stall.max(begun.elapsed());
    let used = cpu.used();
    let row = Row { operations: 1, ..Row::of_operations(name, &Latencies::default(), used).bare() };
    let row = Row { stall_ms: Some(stall.as_secs_f64() * 1e3), ..row };
    Ok(row.with_bytes(args.size, used.datanodes_s.filter(|_| !disturbed)))
}

/// Kills the process that holds the wanted place in the pipeline of the file's last block.
async fn kill_node(target: &Target, args: &LossArgs, path: &str) -> Result<()> {
    let request =
        hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: i64::MAX as u64 };
    let answer = target.client().namenode().get_block_locations(request).await?;
    let located = answer.locations.context("the file is not there")?;
    let last = located.last_block.context("the file has no block")?;
    let node = last.locs.get(args.node.saturating_sub(1)).or(last.locs.first());
    let port = node.context("the last block has no locations")?.id.xfer_port;
    let port = u16::try_from(port).context("the port of a DataNode")?;
    let pid = process_on_port(&target.datanode_pids, port).with_context(|| {
        format!("none of the processes {:?} listens on port {port}", target.datanode_pids)
    })?;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).with_context(|| format!("cannot kill {pid}"))
}

/// What lies there is what was written, byte for byte.
async fn check(target: &Target, args: &LossArgs, path: &str, piece: &[u8]) -> Result<()> {
    let mut reader = target.client().open(path).await?;
    let mut at = 0;
    while let Some(got) = reader.next().await? {
        let mut rest = &got[..];
        while !rest.is_empty() {
            let expected = &piece[at % piece.len()..];
            let length = expected.len().min(rest.len());
            ensure!(
                rest[..length] == expected[..length],
                "{path} differs from what was written, near byte {at}"
            );
            at += length;
            rest = &rest[length..];
        }
    }
    ensure!(at as u64 == args.size, "{at} bytes came back of {}", args.size);
    Ok(())
}
