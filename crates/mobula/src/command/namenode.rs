//! `mobula namenode`: one NameNode as a process.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use mobula_disk::RealDisk;
use mobula_namenode::NameNode;
use mobula_net::Env;

use crate::config::{NamenodeFlags, Settings, namenode_config};
use crate::http;
use crate::process::{Asked, allow_open_files};
use crate::supervised::Supervised;

/// `mobula namenode`
#[derive(Clone, Debug, clap::Args)]
pub struct NamenodeArgs {
    #[command(flatten)]
    flags: NamenodeFlags,
    /// Serve a status page on this port of the same host; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    #[command(flatten)]
    supervised: Supervised,
}

/// Serves until it is asked to end.
///
/// # Errors
/// It cannot start, or had to stop: a failed sync is final.
pub async fn run(mut settings: Settings, args: NamenodeArgs) -> Result<()> {
    args.flags.apply(&mut settings);
    let config = namenode_config(&settings)?;
    warn_if_open(config.listen);
    let env = Env::real();
    allow_open_files();
    let mut asked = Asked::listen(&args.supervised)?;
    let namenode = tokio::select! {
        biased;
        _ = asked.wait() => return Ok(()),
        started = NameNode::start(env.clone(), RealDisk::new(), config) => started?,
    };
    let http = serve_status(&env, &namenode, args.http_port).await?;
    args.supervised.ready(&format!("hdfs://{}{}", namenode.rpc_addr(), suffix(http)))?;
    let ended = tokio::select! {
        biased;
        reason = namenode.stopped() => Err(anyhow!(reason)),
        _ = asked.wait() => Ok(()),
    };
    namenode.shutdown().await;
    ended
}

/// Starts the status page where one is asked for, and says where it is.
pub async fn serve_status(env: &Env, namenode: &NameNode, port: Option<u16>) -> Result<Option<SocketAddr>> {
    let Some(port) = port else { return Ok(None) };
    let address = SocketAddr::new(namenode.rpc_addr().ip(), port);
    let listener = env.net.listen(address).await.context("cannot serve the status page")?;
    let address = listener.local_addr()?;
    let status = super::status::NamenodeStatus::new(namenode.service(), env.entropy.uuid());
    tokio::spawn(http::serve(listener, Arc::new(status)));
    Ok(Some(address))
}

fn suffix(http: Option<SocketAddr>) -> String {
    http.map(|address| format!(" http://{address}")).unwrap_or_default()
}

/// There is no authentication yet (D18): whoever can connect is trusted, and that is said.
pub fn warn_if_open(listen: SocketAddr) {
    if !listen.ip().is_loopback() {
        tracing::warn!(
            "{listen} is not loopback: there is no authentication yet, so everyone on that network is trusted"
        );
    }
}
