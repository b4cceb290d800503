//! `mobula namenode`: one NameNode as a process.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use mobula_disk::RealDisk;
use mobula_namenode::NameNode;
use mobula_net::Env;

use crate::config::{NamenodeFlags, Settings, namenode_config, namenode_http, namenode_names};
use crate::http::{self, OwnNames, Site};
use crate::process::{Asked, allow_open_files};
use crate::supervised::Supervised;

/// `mobula namenode`
#[derive(Clone, Debug, clap::Args)]
pub struct NamenodeArgs {
    #[command(flatten)]
    flags: NamenodeFlags,
    /// Serve HTTP on this port of the same host: a status page, fsck, WebHDFS; 0 picks a free one
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
    let configured_http = namenode_http(&settings)?;
    for address in [Some(config.listen), configured_http].into_iter().flatten() {
        warn_if_open(address);
    }
    let env = Env::real();
    allow_open_files();
    let mut asked = Asked::listen(&args.supervised)?;
    let namenode = tokio::select! {
        biased;
        _ = asked.wait() => return Ok(()),
        started = NameNode::start(env.clone(), RealDisk::new(), config) => started?,
    };
    let http = match args.http_port {
        Some(port) => Some(SocketAddr::new(namenode.rpc_addr().ip(), port)),
        None => configured_http,
    };
    let names = OwnNames::of_system(namenode_names(&settings));
    let http = serve_http(&env, &namenode, http, names).await?;
    args.supervised.ready(&format!("hdfs://{}{}", namenode.rpc_addr(), suffix(http)))?;
    let ended = tokio::select! {
        biased;
        reason = namenode.stopped() => Err(anyhow!(reason)),
        _ = asked.wait() => Ok(()),
    };
    namenode.shutdown().await;
    ended
}

/// Starts the HTTP port where one is asked for, and says where it is. `own_names` are those of this machine.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_http(
    env: &Env,
    namenode: &NameNode,
    address: Option<SocketAddr>,
    own_names: OwnNames,
) -> Result<Option<SocketAddr>> {
    let Some(address) = address else { return Ok(None) };
    let listener = env.net.listen(address).await.context("cannot serve HTTP")?;
    let address = listener.local_addr()?;
    let status = super::status::NamenodeStatus::new(namenode.service(), env.entropy.uuid());
    let site = Site::of_namenode(Arc::new(status), namenode.service(), own_names);
    tokio::spawn(http::serve(listener, Arc::new(site)));
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
