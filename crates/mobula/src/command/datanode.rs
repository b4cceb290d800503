//! `mobula datanode`: one DataNode as a process.

use anyhow::{Result, anyhow};
use mobula_datanode::DataNode;
use mobula_disk::RealDisk;
use mobula_net::Env;

use super::namenode::warn_if_open;
use crate::config::{DatanodeFlags, Settings, datanode_config};
use crate::process::{Asked, allow_open_files};
use crate::supervised::Supervised;

/// `mobula datanode`
#[derive(Clone, Debug, clap::Args)]
pub struct DatanodeArgs {
    #[command(flatten)]
    flags: DatanodeFlags,
    #[command(flatten)]
    supervised: Supervised,
}

/// Serves until it is asked to end.
///
/// # Errors
/// It cannot start, or had to stop: its last volume failed, another node has its identity.
pub async fn run(mut settings: Settings, args: DatanodeArgs) -> Result<()> {
    args.flags.apply(&mut settings);
    let config = datanode_config(&settings, &args.flags)?;
    warn_if_open(config.listen);
    allow_open_files();
    let mut asked = Asked::listen(&args.supervised)?;
    let datanode = tokio::select! {
        biased;
        _ = asked.wait() => return Ok(()),
        started = DataNode::start(Env::real(), RealDisk::new(), config) => started?,
    };
    let ended = tokio::select! {
        biased;
        stopped = datanode.wait_stopped() => Err(anyhow!(stopped)),
        _ = asked.wait() => Ok(()),
        ended = serve(&datanode, &args.supervised) => ended,
    };
    datanode.shutdown().await;
    ended
}

/// Says that it is ready once a NameNode has its report, then waits for ever.
async fn serve(datanode: &DataNode, supervised: &Supervised) -> Result<()> {
    datanode.wait_registered().await.map_err(|stopped| anyhow!(stopped))?;
    supervised.ready(&format!("{} {}", datanode.xfer_addr(), datanode.uuid()))?;
    std::future::pending().await
}
