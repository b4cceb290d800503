//! Many small files, some at once: what the cost of a file is, rather than of a byte.

use anyhow::{Result, ensure};
use clap::Args;
use mobula_client::CreateOptions;

use super::data::{delete, noise};
use super::meter::measure;
use super::report::Row;
use super::{Target, parse_size};

/// How many files, how large.
#[derive(Clone, Debug, Args)]
pub struct SmallArgs {
    /// Files
    #[arg(long, default_value_t = 1000, value_name = "N")]
    files: usize,
    /// Bytes of each
    #[arg(long, default_value = "100000", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Files under way at any time
    #[arg(long, default_value_t = 16, value_name = "N")]
    at_once: usize,
    /// Replicas
    #[arg(long, default_value_t = 3, value_name = "N")]
    replication: u16,
    /// How often all is done; the first time is not counted if there are several
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Leave the files where they are, so that nobody who measures next measures the disk that has just lost them
    #[arg(long)]
    keep: bool,
}

/// Block size of the files: they fit into one.
const BLOCK_SIZE: u64 = 128 << 20;

pub(super) async fn run(target: &Target, args: &SmallArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut folder = format!("{}/small", target.folder);
    for round in 0..args.rounds.max(1) {
        if args.keep {
            folder = format!("{}/small-{}-{round}", target.folder, std::process::id());
        }
        let both = one_round(target, args, &folder).await?;
        if round > 0 || args.rounds == 1 {
            rows.extend(both);
        }
    }
    if !args.keep {
        delete(&target.client(), &folder).await?;
    }
    Ok(rows)
}

async fn one_round(target: &Target, args: &SmallArgs, folder: &str) -> Result<[Row; 2]> {
    let (client, data) = (target.client(), noise(target, args.size));
    delete(&client, folder).await?;
    let options = CreateOptions {
        overwrite: true,
        replication: Some(args.replication),
        block_size: Some(BLOCK_SIZE),
        ..CreateOptions::default()
    };
    let (each, base) = (client.clone(), folder.to_string());
    let put = move |index: usize| {
        let (client, data, path) = (each.clone(), data.clone(), format!("{base}/f{index}"));
        async move { Ok(client.put(&path, data, options).await?) }
    };
    let cpu = target.cpu();
    let put = measure("put", args.files, args.at_once, cpu, put).await?;
    let (each, base, size) = (client.clone(), folder.to_string(), args.size);
    let get = move |index: usize| {
        let (client, path) = (each.clone(), format!("{base}/f{index}"));
        async move {
            let got = client.get(&path).await?.len() as u64;
            ensure!(got == size, "{path} has {got} bytes, not {size}");
            Ok(())
        }
    };
    let cpu = target.cpu();
    let get = measure("get", args.files, args.at_once, cpu, get).await?;
    let all = args.size * args.files as u64;
    Ok([put, get].map(|row| {
        let datanodes_s = row.datanodes_us.map(|us| us * args.files as f64 / 1e6);
        row.with_bytes(all, datanodes_s)
    }))
}
