//! Files whose writers are gone, closed by lease recovery: how long it takes, whether what was flushed is there, and
//! what others feel of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mobula_client::{Client, CreateOptions};
use mobula_proto::hdfs;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::data::{delete, noise};
use super::meter::{CpuMeter, Latencies, measure};
use super::report::Row;
use super::{Target, parse_size};

/// How many files, and who recovers them.
#[derive(Clone, Debug, Args)]
pub struct AbandonedArgs {
    /// Files
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    files: usize,
    /// Bytes that were flushed into each
    #[arg(long, default_value = "4k", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Replicas
    #[arg(long, default_value_t = 3, value_name = "N")]
    replication: u16,
    /// Files under way at any time
    #[arg(long, default_value_t = 16, value_name = "N")]
    at_once: usize,
    /// Wait for the server's own limit, which is set to so many seconds, in place of asking for recovery
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// Seconds for which others are watched before
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    calm: u64,
}

/// Block size of the files: room for so much is set aside for each replica that is open.
const BLOCK_SIZE: u64 = 8 << 20;
/// Writers of others, which make empty files meanwhile.
const OTHERS: usize = 4;
/// Pause between two looks at a file that is not closed yet.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After the limit a file is closed within this time, or the benchmark fails.
const CLOSE_LIMIT: Duration = Duration::from_secs(300);

pub(super) async fn run(target: &Target, args: &AbandonedArgs) -> Result<Vec<Row>> {
    let folder = format!("{}/abandoned", target.folder);
    delete(&target.client(), &folder).await?;
    let left = abandon(target, args, &folder).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let calm =
        tokio::spawn(others(target.clone(), format!("{folder}/others"), stop.clone(), "others, before"));
    tokio::time::sleep(Duration::from_secs(args.calm)).await;
    stop.store(true, Ordering::Relaxed);
    let calm = calm.await.context("the others panicked")??;
    let limit = Duration::from_secs(args.limit.unwrap_or(0));
    // The others are watched while files are closed, not while everybody waits for the limit.
    tokio::time::sleep_until(left + limit).await;
    let stop = Arc::new(AtomicBool::new(false));
    let busy =
        tokio::spawn(others(target.clone(), format!("{folder}/others"), stop.clone(), "others, meanwhile"));
    let closed = close_all(target, args, &folder).await;
    stop.store(true, Ordering::Relaxed);
    let busy = busy.await.context("the others panicked")??;
    let rows = vec![calm, closed?, busy];
    check(target, args, &folder).await?;
    delete(&target.client(), &folder).await?;
    Ok(rows)
}

/// Begins the files, flushes into each, and goes away; answers when.
async fn abandon(target: &Target, args: &AbandonedArgs, folder: &str) -> Result<Instant> {
    let (client, record) = (target.client(), noise(target, args.size));
    let options = CreateOptions {
        replication: Some(args.replication),
        block_size: Some(BLOCK_SIZE),
        ..CreateOptions::default()
    };
    let kept = Arc::new(parking_lot::Mutex::new(Vec::with_capacity(args.files)));
    let (writer, files, base) = (client.clone(), kept.clone(), folder.to_owned());
    let begin = move |index: usize| {
        let (client, record, files) = (writer.clone(), record.clone(), files.clone());
        let path = format!("{base}/f{index}");
        async move {
            let mut file = client.create(&path, options).await?;
            file.write(record).await?;
            file.hflush().await?;
            files.lock().push(file);
            Ok(())
        }
    };
    measure("begin", args.files, args.at_once, CpuMeter::start(None, &[]), begin).await?;
    kept.lock().clear();
    Ok(Instant::now())
}

/// Makes empty files until `stop` is set.
async fn others(target: Target, folder: String, stop: Arc<AtomicBool>, name: &'static str) -> Result<Row> {
    let (client, cpu) = (target.client(), target.cpu());
    let mut workers = JoinSet::new();
    for worker in 0..OTHERS {
        let (client, stop, folder) = (client.clone(), stop.clone(), folder.clone());
        workers.spawn(async move {
            let mut latencies = Latencies::default();
            while !stop.load(Ordering::Relaxed) {
                let options = CreateOptions { overwrite: true, ..CreateOptions::default() };
                let begun = Instant::now();
                client.create(&format!("{folder}/o{worker}"), options).await?.close().await?;
                latencies.add(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(worker) = workers.join_next().await {
        all.merge(worker.context("a worker panicked")??);
    }
    let used = cpu.used();
    all.sort();
    let row = Row::of_operations(name, &all, used);
    // What the servers used beside them is not theirs.
    Ok(Row { server_us: None, datanodes_us: None, own_us: None, own_percent: None, ..row })
}

/// Sees to it that every file is closed: its latency is from the limit to the moment when it was seen closed.
async fn close_all(target: &Target, args: &AbandonedArgs, folder: &str) -> Result<Row> {
    let (client, begun) = (target.client(), Instant::now());
    let cpu = target.cpu();
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    let (files, asks) = (args.files, args.limit.is_none());
    // All files are looked at in turn: one that waits must not keep the others from being asked for.
    for _ in 0..args.at_once.clamp(1, files.max(1)) {
        let (client, next, folder) = (client.clone(), next.clone(), folder.to_owned());
        workers.spawn(async move {
            let mut mine: Vec<usize> = Vec::new();
            let mut latencies = Latencies::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= files {
                    break;
                }
                match asks && recover(&client, &format!("{folder}/f{index}")).await? {
                    true => latencies.add(begun.elapsed()),
                    false => mine.push(index),
                }
            }
            while !mine.is_empty() {
                if begun.elapsed() > CLOSE_LIMIT {
                    bail!(
                        "{} files are not closed after {CLOSE_LIMIT:?}, f{} among them",
                        mine.len(),
                        mine[0]
                    );
                }
                tokio::time::sleep(LOOK_EVERY).await;
                let mut open = Vec::new();
                for index in mine {
                    match is_closed(&client, &format!("{folder}/f{index}")).await? {
                        true => latencies.add(begun.elapsed()),
                        false => open.push(index),
                    }
                }
                mine = open;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(worker) = workers.join_next().await {
        all.merge(worker.context("a worker panicked")??);
    }
    let used = cpu.used();
    all.sort();
    Ok(Row::of_operations(&format!("{files} files closed"), &all, used))
}

async fn recover(client: &Client, path: &str) -> Result<bool> {
    let request = hdfs::RecoverLeaseRequestProto { src: path.into(), client_name: client.name().into() };
    Ok(client.namenode().recover_lease(request).await?.result)
}

async fn is_closed(client: &Client, path: &str) -> Result<bool> {
    let request = hdfs::IsFileClosedRequestProto { src: path.into() };
    Ok(client.namenode().is_file_closed(request).await?.result)
}

/// Nothing that was flushed is gone.
async fn check(target: &Target, args: &AbandonedArgs, folder: &str) -> Result<()> {
    let client = target.client();
    for index in 0..args.files {
        let path = format!("{folder}/f{index}");
        let status = client.status(&path).await?.with_context(|| format!("{path} is gone"))?;
        ensure!(status.length == args.size, "{path} has {} bytes, {} were flushed", status.length, args.size);
    }
    Ok(())
}
