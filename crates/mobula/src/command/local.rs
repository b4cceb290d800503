//! `mobula local`: a whole cluster in one process, for development.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use mobula_namenode::Defaults;
use mobula_net::Env;

use super::namenode::serve_http;
use crate::cluster::{Cluster, ClusterOptions};
use crate::config::units::parse_size;
use crate::config::{
    NamenodeFlags, Settings, datanode_reserved, datanode_times_and_limits, namenode_config, namenode_names,
};
use crate::http::OwnNames;
use crate::process::{Asked, allow_open_files};
use crate::supervised::Supervised;

/// `mobula local`
#[derive(Clone, Debug, clap::Args)]
pub struct LocalArgs {
    /// How many DataNodes
    #[arg(long, default_value_t = 3, value_name = "N")]
    datanodes: usize,
    /// Keep everything in this folder, to be there again next time; without it, nothing stays
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port of the NameNode on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 9000, value_name = "PORT")]
    port: u16,
    /// Replicas of a file whose client does not say [default: 3, or as many as there are DataNodes]
    #[arg(long, value_name = "N")]
    replication: Option<u16>,
    /// Block size of a file whose client does not say [default: 128m]
    #[arg(long, value_name = "SIZE")]
    block_size: Option<String>,
    /// Smallest block size that a client may ask for [default: 1m]
    #[arg(long, value_name = "SIZE")]
    min_block_size: Option<String>,
    /// Serve HTTP on this port: a status page, fsck, WebHDFS; 0 picks a free one [default: none, or a free one
    /// with --write-config]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Write core-site.xml and hdfs-site.xml for Hadoop's clients into this folder
    #[arg(long, value_name = "DIR")]
    write_config: Option<PathBuf>,
    #[command(flatten)]
    supervised: Supervised,
}

/// A development cluster of more DataNodes than this is a mistake.
const DATANODES_MAX: usize = 256;

/// Serves until it is asked to end.
///
/// # Errors
/// It cannot start, or had to stop.
pub async fn run(settings: Settings, args: LocalArgs) -> Result<()> {
    let names = OwnNames::of_system(namenode_names(&settings));
    let options = options(settings, &args)?;
    let defaults = options.namenode.defaults.clone();
    allow_open_files();
    let mut asked = Asked::listen(&args.supervised)?;
    let cluster = tokio::select! {
        biased;
        _ = asked.wait() => return Ok(()),
        started = Cluster::start(options) => started?,
    };
    let namenode = cluster.namenode().context("a cluster that has just started has a NameNode")?;
    let http_port = args.http_port.or(args.write_config.is_some().then_some(0));
    let http = http_port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let http = serve_http(&Env::real(), namenode, http, names).await?;
    if let Some(folder) = &args.write_config {
        write_config(folder, &cluster.uri(), http, &defaults)?;
    }
    if let Some(address) = http {
        println!("status http://{address}");
    }
    args.supervised.ready(&cluster.uri())?;
    let ended = tokio::select! {
        biased;
        reason = namenode.stopped() => Err(anyhow!(reason)),
        _ = asked.wait() => Ok(()),
    };
    cluster.shutdown().await;
    ended
}

fn options(mut settings: Settings, args: &LocalArgs) -> Result<ClusterOptions> {
    if args.datanodes == 0 || args.datanodes > DATANODES_MAX {
        bail!("--datanodes {}: from 1 to {DATANODES_MAX}", args.datanodes);
    }
    for (flag, text) in
        [("--block-size", args.block_size.as_ref()), ("--min-block-size", args.min_block_size.as_ref())]
    {
        if let Some(text) = text {
            parse_size(text).ok_or_else(|| anyhow!("{flag} '{text}' is no size such as 128m"))?;
        }
    }
    let configured = settings.get("dfs.replication").is_some();
    let usual = (!configured).then(|| REPLICATION_DEFAULT.min(args.datanodes as u16));
    let flags = NamenodeFlags {
        dir: Some(PathBuf::from("set for each cluster")),
        listen: Some(format!("127.0.0.1:{}", args.port)),
        replication: args.replication.or(usual),
        block_size: args.block_size.clone(),
        min_block_size: args.min_block_size.clone(),
    };
    flags.apply(&mut settings);
    let mut options = ClusterOptions {
        datanodes: args.datanodes,
        dir: args.dir.clone(),
        port: args.port,
        namenode: namenode_config(&settings)?,
        reserved: datanode_reserved(&settings)?,
        ..ClusterOptions::default()
    };
    // Folders and addresses are each one's own.
    datanode_times_and_limits(&settings, &mut options.datanode)?;
    Ok(options)
}

/// HDFS's default of `dfs.replication`.
const REPLICATION_DEFAULT: u16 = 3;

/// In the files that we wrote, so that we replace no others. A comment in XML has no two hyphens within.
const OURS: &str = "<!-- Written by `mobula local`, anew at each start. -->";

/// What an earlier version wrote, which neither Hadoop's clients nor Go's read.
const OURS_BEFORE: &str = "<!-- Written by `mobula local --write-config`, anew at each start. -->";

/// Writes what Hadoop's clients read from `HADOOP_CONF_DIR`. A file that somebody else wrote stays.
fn write_config(folder: &Path, uri: &str, http: Option<SocketAddr>, defaults: &Defaults) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut hdfs_site = vec![
        ("dfs.replication", defaults.replication.to_string()),
        ("dfs.blocksize", defaults.block_size.to_string()),
    ];
    // For `hdfs fsck`.
    hdfs_site.extend(http.map(|address| ("dfs.namenode.http-address", address.to_string())));
    let files = [("core-site.xml", vec![("fs.defaultFS", uri.to_string())]), ("hdfs-site.xml", hdfs_site)];
    for (name, properties) in files {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) if !is_ours(&String::from_utf8_lossy(&bytes)) => {
                bail!(
                    "{} is not ours: it stays as it is; give --write-config another folder",
                    path.display()
                );
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            _ => {}
        }
        let mut text = format!("<?xml version=\"1.0\"?>\n{OURS}\n<configuration>\n");
        for (key, value) in properties {
            text += &format!("  <property><name>{key}</name><value>{value}</value></property>\n");
        }
        text += "</configuration>\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn is_ours(text: &str) -> bool {
    [OURS, OURS_BEFORE].iter().any(|line| text.contains(line))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LocalArgs,
    }

    #[test]
    fn datanodes_are_as_configured() {
        let args = Line::parse_from(["local"]).args;
        let usual = options(Settings::default(), &args).unwrap();
        let defaults = ClusterOptions::default();
        assert_eq!((usual.reserved, usual.datanode.heartbeat_ms), (0, defaults.datanode.heartbeat_ms));
        let mut settings = Settings::default();
        for (key, value) in [
            ("dfs.heartbeat.interval", "7"),
            ("dfs.blockreport.intervalMsec", "60000"),
            ("dfs.datanode.max.transfer.threads", "11"),
            ("dfs.datanode.du.reserved", "1m"),
            // Each has its own.
            ("dfs.datanode.data.dir", "/elsewhere"),
            ("dfs.datanode.address", "10.0.0.1:9866"),
        ] {
            settings.set(key, value);
        }
        let set = options(settings, &args).unwrap();
        let datanode = &set.datanode;
        assert_eq!(
            (datanode.heartbeat_ms, datanode.full_report_ms, datanode.xceivers_max),
            (7_000, 60_000, 11)
        );
        assert_eq!((set.reserved, datanode.listen), (1 << 20, defaults.datanode.listen));
        assert!(datanode.volumes.is_empty());
    }
}
