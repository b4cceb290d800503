//! One large file, written and read by one stream.

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use clap::Args;
use mobula_client::{Client, CreateOptions};
use tokio::time::Instant;

use super::meter::Latencies;
use super::report::Row;
use super::{Target, parse_size};

/// What to write and read.
#[derive(Clone, Debug, Args)]
pub struct DataArgs {
    /// Bytes of the file
    #[arg(long, default_value = "1g", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Replicas; several values are measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [3, 1], value_name = "N")]
    replication: Vec<u16>,
    /// Bytes of a block
    #[arg(long, default_value = "128m", value_parser = parse_size, value_name = "SIZE")]
    block_size: u64,
    /// How often each is done; the first time is not counted if there are several
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Bytes that the file is written by
    #[arg(long, default_value = "1m", value_parser = parse_size, value_name = "SIZE")]
    piece: u64,
    /// Only `put` or only `get` (which needs a file that a put with --keep has left)
    #[arg(long, value_name = "WHICH")]
    only: Option<String>,
    /// Leave the file there
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(target: &Target, args: &DataArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let piece = noise(target, args.piece.clamp(1, 64 << 20));
    for &replication in &args.replication {
        let path = format!("{}/data-r{replication}", target.folder);
        for round in 0..args.rounds.max(1) {
            let counts = round > 0 || args.rounds == 1;
            let wants = |which: &str| args.only.as_deref().is_none_or(|only| only == which);
            if wants("put") {
                let row = put(target, args, &path, replication, &piece).await?;
                rows.extend(Some(row).filter(|_| counts));
            }
            if wants("get") {
                // A first read may find nothing in the page cache; the later ones do.
                for what in ["get", "get again", "get again"] {
                    let row = get(target, args, &path, &format!("{what}, {replication} replicas")).await?;
                    rows.extend(Some(row).filter(|_| counts));
                }
            }
        }
        if !args.keep {
            delete(&target.client(), &path).await?;
        }
    }
    Ok(rows)
}

/// Bytes that do not compress, from the environment's entropy.
pub(super) fn noise(target: &Target, length: u64) -> Bytes {
    let mut data = BytesMut::with_capacity(length as usize + 16);
    while (data.len() as u64) < length {
        data.extend_from_slice(&target.env.entropy.bytes16());
    }
    data.truncate(length as usize);
    data.freeze()
}

async fn put(target: &Target, args: &DataArgs, path: &str, replication: u16, piece: &Bytes) -> Result<Row> {
    let client = target.client();
    let options = CreateOptions {
        overwrite: true,
        replication: Some(replication),
        block_size: Some(args.block_size),
        ..CreateOptions::default()
    };
    let cpu = target.cpu();
    let started = Instant::now();
    let mut writer = client.create(path, options).await?;
    let mut left = args.size;
    while left > 0 {
        let length = left.min(piece.len() as u64);
        writer.write(piece.slice(..length as usize)).await?;
        left -= length;
    }
    writer.close().await?;
    let mut latencies = Latencies::default();
    latencies.add(started.elapsed());
    let used = cpu.used();
    let row = Row::of_operations(&format!("put, {replication} replicas"), &latencies, used);
    Ok(without_quantiles(row).with_bytes(args.size, used.datanodes_s))
}

async fn get(target: &Target, args: &DataArgs, path: &str, name: &str) -> Result<Row> {
    let client = target.client();
    let cpu = target.cpu();
    let started = Instant::now();
    let mut reader = client.open(path).await?;
    let mut got = 0;
    while let Some(piece) = reader.next().await? {
        got += piece.len() as u64;
    }
    ensure!(got == args.size, "{got} bytes came back of {}", args.size);
    let mut latencies = Latencies::default();
    latencies.add(started.elapsed());
    let used = cpu.used();
    let row = Row::of_operations(name, &latencies, used);
    Ok(without_quantiles(row).with_bytes(args.size, used.datanodes_s))
}

/// One operation has no distribution, and its rate is in bytes.
fn without_quantiles(row: Row) -> Row {
    Row { per_second: None, p50_us: None, p99_us: None, p999_us: None, ..row }
}

pub(super) async fn delete(client: &Client, path: &str) -> Result<()> {
    let request = mobula_proto::hdfs::DeleteRequestProto { src: path.into(), recursive: true };
    client.namenode().delete(request).await?;
    Ok(())
}
