//! `mobula bench`: measures a cluster through HDFS's own protocols, so that Apache's servers and ours
//! are driven alike. It knows nothing of either beyond the protocol and the CPU time of the processes
//! that it is told of.

mod abandoned;
mod connections;
mod data;
mod flush;
mod heal;
mod listener;
mod loss;
mod metadata;
mod meter;
mod report;
mod small;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use mobula_client::{Client, ClientOptions, ReplaceDatanode};
use mobula_net::Env;

pub use report::Row;

/// Arguments of `mobula bench`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// The NameNode to measure
    #[arg(long, global = true, default_value = "hdfs://127.0.0.1:9000", value_name = "URI")]
    namenode: String,
    /// Process of the NameNode, to account its CPU time
    #[arg(long, global = true, value_name = "PID")]
    server_pid: Option<u32>,
    /// Processes of the DataNodes, to account their CPU time
    #[arg(long, global = true, value_name = "PID", value_delimiter = ',')]
    datanode_pid: Vec<u32>,
    /// The folder to work in; what the benchmark made in it is deleted afterwards
    #[arg(long, global = true, default_value = "/benchmark", value_name = "PATH")]
    folder: String,
    /// Print JSON in place of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  mobula bench metadata --ops 40000 --in-flight 64 --server-pid $(pgrep -f 'mobula namenode')
  mobula bench data --size 1g --replication 3,1
  mobula bench small --files 1000 --size 100k --at-once 16
  mobula bench connections --count 10000
  mobula bench flush --size 4k --writers 1,64
  mobula bench loss --size 1g --datanode-pid $(pgrep -d, -f 'mobula datanode')
  mobula bench abandoned --files 1000";

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Calls to the NameNode: create, open, stat, list, mkdirs, rename, delete, and a mix of them
    Metadata(metadata::MetadataArgs),
    /// One large file: put and get
    Data(data::DataArgs),
    /// Many small files: put and get
    Small(small::SmallArgs),
    /// Many connections that do nothing, and one that does
    Connections(connections::ConnectionsArgs),
    /// Small records, each followed by hflush or hsync
    Flush(flush::FlushArgs),
    /// A put during which a DataNode of its pipeline is killed: it must be started again afterwards
    Loss(loss::LossArgs),
    /// A DataNode is killed: until every block is whole again; it must be started again afterwards
    Heal(heal::HealArgs),
    /// Files whose writers are gone, closed by lease recovery
    Abandoned(abandoned::AbandonedArgs),
}

/// Longest wait for one answer while measuring; longer is a failure of the server.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// What every benchmark is given.
#[derive(Clone, Debug)]
struct Target {
    env: Env,
    /// `host:port`.
    address: String,
    user: String,
    folder: String,
    server_pid: Option<u32>,
    datanode_pids: Vec<u32>,
}

impl Target {
    fn client(&self) -> Client {
        let options = ClientOptions {
            namenodes: vec![self.address.clone()],
            user: self.user.clone(),
            replication: None,
            block_size: None,
            umask: 0o022,
            call_limit: CALL_LIMIT,
            replace_datanode: ReplaceDatanode::default(),
            favored_nodes: Vec::new(),
        };
        Client::new(self.env.clone(), options)
    }

    fn cpu(&self) -> meter::CpuMeter {
        meter::CpuMeter::start(self.server_pid, &self.datanode_pids)
    }
}

/// Runs a benchmark and prints what it found.
///
/// # Errors
/// The first failure of the cluster or the connection to it: a benchmark with errors has no figures.
pub async fn run(env: Env, args: BenchArgs) -> Result<()> {
    let address = args.namenode.trim_start_matches("hdfs://").trim_end_matches('/').to_string();
    let named = |key| std::env::var(key).ok().filter(|name| !name.is_empty());
    let target = Target {
        env,
        address,
        user: named("HADOOP_USER_NAME").or_else(|| named("USER")).unwrap_or_else(|| "root".into()),
        folder: args.folder.trim_end_matches('/').to_string(),
        server_pid: args.server_pid,
        datanode_pids: args.datanode_pid.clone(),
    };
    let rows = match &args.what {
        What::Metadata(what) => metadata::run(&target, what).await,
        What::Data(what) => data::run(&target, what).await,
        What::Small(what) => small::run(&target, what).await,
        What::Connections(what) => connections::run(&target, what).await,
        What::Flush(what) => flush::run(&target, what).await,
        What::Loss(what) => loss::run(&target, what).await,
        What::Heal(what) => heal::run(&target, what).await,
        What::Abandoned(what) => abandoned::run(&target, what).await,
    };
    let rows = rows.with_context(|| format!("while measuring {}", args.namenode))?;
    println!("{}", if args.json { report::json(&rows)? } else { report::table(&rows) });
    Ok(())
}

/// Parses a size such as `100k`, `128m` or `1g` (powers of 1,024), as HDFS's options take them.
fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if lower.ends_with('k') => (digits, 10),
        Some(digits) if lower.ends_with('m') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (lower.as_str(), 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is no size: 4096, 100k, 128m, 1g"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, size) in
            [("7", Ok(7)), ("100k", Ok(102_400)), ("1G", Ok(1 << 30)), ("128m", Ok(128 << 20))]
        {
            assert_eq!(parse_size(text), size);
        }
        assert!(parse_size("x").is_err());
        assert!(parse_size("99999999999g").is_err());
    }
}
