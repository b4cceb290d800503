//! Many connections that do nothing: what they cost the NameNode, and what others feel of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use mobula_client::namenode::CLIENT_PROTOCOL;
use mobula_proto::hdfs;
use mobula_rpc::{RpcClient, RpcClientOptions};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::meter::{measure, resident_bytes};
use super::report::Row;
use super::{CALL_LIMIT, Target};

/// How many.
#[derive(Clone, Debug, Args)]
pub struct ConnectionsArgs {
    /// Idle connections
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    count: usize,
    /// Calls on one further connection, before and after
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    ops: usize,
    /// Connections made at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    at_once: usize,
}

/// Idle connections are kept for as long as any measurement takes.
const IDLE_LIMIT: Duration = Duration::from_secs(3600);
/// Descriptors beside those of the connections.
const FILES_SPARE: u64 = 100;

pub(super) async fn run(target: &Target, args: &ConnectionsArgs) -> Result<Vec<Row>> {
    allow_files(args.count as u64 + FILES_SPARE)?;
    let options = RpcClientOptions {
        address: target.address.clone(),
        user: target.user.clone(),
        protocol: CLIENT_PROTOCOL,
        connect_limit: CALL_LIMIT,
        call_limit: CALL_LIMIT,
    };
    let busy = RpcClient::new(&target.env, options.clone());
    let before = stat_one_by_one(target, args, "stat, alone", &busy).await?;
    let idle: Arc<Vec<RpcClient>> = Arc::new(
        (0..args.count)
            .map(|_| RpcClient::with_idle_limit(&target.env, options.clone(), IDLE_LIMIT))
            .collect(),
    );
    let each = idle.clone();
    let connect = move |index: usize| {
        let idle = each.clone();
        async move { stat(&idle[index]).await }
    };
    let made = measure("connect", args.count, args.at_once, target.cpu(), connect).await?;
    let made = with_resident(target, made);
    let name = format!("stat, {} idle beside it", args.count);
    let after = stat_one_by_one(target, args, &name, &busy).await?;
    drop(idle);
    Ok(vec![before, made, after])
}

async fn stat_one_by_one(
    target: &Target,
    args: &ConnectionsArgs,
    name: &str,
    busy: &RpcClient,
) -> Result<Row> {
    let busy = busy.clone();
    let operation = move |_| {
        let busy = busy.clone();
        async move { stat(&busy).await }
    };
    let row = measure(name, args.ops, 1, target.cpu(), operation).await?;
    Ok(with_resident(target, row))
}

async fn stat(connection: &RpcClient) -> Result<()> {
    let request = hdfs::GetFileInfoRequestProto { src: "/".into() };
    let _: hdfs::GetFileInfoResponseProto = connection.call("getFileInfo", &request).await?;
    Ok(())
}

fn with_resident(target: &Target, row: Row) -> Row {
    Row { server_resident: target.server_pid.and_then(resident_bytes), ..row }
}

/// Raises this process's limit of open files to `count`.
fn allow_files(count: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= count {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count))
        .with_context(|| format!("{count} open files are needed, the limit is {hard} (ulimit -n)"))
}
