//! Small records, each flushed before the next: what a log, a queue or a journal on HDFS waits for.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use mobula_client::{Client, CreateOptions, FileWriter};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::data::{delete, noise};
use super::meter::Latencies;
use super::report::Row;
use super::{Target, parse_size};

/// How many records, by how many writers.
#[derive(Clone, Debug, Args)]
pub struct FlushArgs {
    /// Records of one row in all; each writer writes at least 50
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    records: usize,
    /// Bytes of a record
    #[arg(long, default_value = "4k", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Writers at once, each with a file of its own; several values are measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64], value_name = "N")]
    writers: Vec<usize>,
    /// What follows each record: hflush, hsync
    #[arg(long, value_delimiter = ',', default_values_t = ["hflush".to_string(), "hsync".to_string()], value_name = "KINDS")]
    kinds: Vec<String>,
    /// Replicas
    #[arg(long, default_value_t = 3, value_name = "N")]
    replication: u16,
}

/// What follows a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// New readers see it.
    Hflush,
    /// It survives power loss.
    Hsync,
}

/// Records of each writer at least.
const RECORDS_EACH_MIN: usize = 50;
/// Records of each writer that come first and are not counted: the pipeline is set up with them.
const WARM_UP: usize = 5;
/// No record of a benchmark may wait longer.
const RECORD_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(target: &Target, args: &FlushArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let record = noise(target, args.size);
    let folder = format!("{}/flush", target.folder);
    let client = target.client();
    delete(&client, &folder).await?;
    for kind in &args.kinds {
        let flush = match kind.as_str() {
            "hflush" => Flush::Hflush,
            "hsync" => Flush::Hsync,
            other => bail!("'{other}' is neither hflush nor hsync"),
        };
        for &writers in &args.writers {
            let name = format!("{kind}, {writers} {}", if writers == 1 { "writer" } else { "writers" });
            let row = one_row(target, args, &client, &folder, &record, (flush, writers.max(1))).await;
            rows.push(Row { name: name.clone(), ..row.with_context(|| format!("in {name}"))? });
        }
    }
    delete(&client, &folder).await?;
    Ok(rows)
}

async fn one_row(
    target: &Target,
    args: &FlushArgs,
    client: &Client,
    folder: &str,
    record: &Bytes,
    (flush, writers): (Flush, usize),
) -> Result<Row> {
    let options =
        CreateOptions { overwrite: true, replication: Some(args.replication), ..CreateOptions::default() };
    let mut files = Vec::with_capacity(writers);
    for index in 0..writers {
        let mut file = client.create(&format!("{folder}/w{index}"), options).await?;
        write(&mut file, record, flush, WARM_UP).await?;
        files.push(file);
    }
    let each = args.records.div_ceil(writers).max(RECORDS_EACH_MIN);
    let cpu = target.cpu();
    let mut running = JoinSet::new();
    for mut file in files {
        let record = record.clone();
        running.spawn(async move {
            let latencies = write(&mut file, &record, flush, each).await?;
            anyhow::Ok((file, latencies))
        });
    }
    let (mut all, mut files) = (Latencies::default(), Vec::with_capacity(writers));
    while let Some(done) = running.join_next().await {
        let (file, latencies) = done.context("a writer panicked")??;
        all.merge(latencies);
        files.push(file);
    }
    let used = cpu.used();
    for file in files {
        file.close().await?;
    }
    all.sort();
    Ok(Row::of_operations("", &all, used))
}

async fn write(file: &mut FileWriter, record: &Bytes, flush: Flush, count: usize) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    for _ in 0..count {
        let started = Instant::now();
        let one = async {
            file.write(record.clone()).await?;
            match flush {
                Flush::Hflush => file.hflush().await,
                Flush::Hsync => file.hsync().await,
            }
        };
        tokio::time::timeout(RECORD_LIMIT, one).await.context("a record took too long")??;
        latencies.add(started.elapsed());
    }
    Ok(latencies)
}
