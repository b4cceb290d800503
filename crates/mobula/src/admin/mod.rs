//! `mobula admin`: what whoever looks after a cluster asks and orders, over HDFS's own protocol, so
//! that it works against Apache's NameNode as well.

/// Prints a line. A reader that went away (`| head`) is no reason to panic, as `println!` would.
macro_rules! say {
    ($($word:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($word)*);
    }};
}

mod blocks;
mod fsck;
mod nodes;
mod open_files;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use mobula_client::{Client, NameNodeProxy};
use mobula_proto::hdfs;
use serde_json::json;

use crate::fs::FsContext;
use crate::fs::size::human;
use nodes::Node;

/// Pause of `safemode wait` between looks.
const WAIT_PAUSE: Duration = Duration::from_secs(1);

/// What is asked or ordered.
#[derive(Clone, Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct AdminArgs {
    /// The cluster, as hdfs://host:port [default: fs.defaultFS]
    #[arg(long, global = true, value_name = "URI")]
    fs: Option<String>,
    #[command(subcommand)]
    command: AdminCommand,
}

const EXAMPLES: &str = "\
Examples:
  mobula admin report                      room, blocks and nodes of the cluster
  mobula admin nodes --json                a JSON object for each DataNode
  mobula admin blocks /projects            blocks that want replicas, and why
  mobula admin fsck / -files -blocks       each file with its blocks, as `hdfs fsck`
  mobula admin open-files --json           files that somebody writes to
  mobula admin recover-lease /logs/app     closes the file of a writer that is gone
  mobula admin safemode enter              no changes from now on";

#[derive(Clone, Debug, Subcommand)]
enum AdminCommand {
    /// Room, blocks and DataNodes: the cluster at a glance
    Report {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// DataNodes and how they are
    Nodes {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Blocks that do not have all their replicas, and why. Exits with 1 if data is missing
    Blocks {
        /// Where to look
        #[arg(default_value = "/")]
        path: String,
        /// Most blocks to list
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
        /// Looks at every file even if the NameNode counts no such block
        #[arg(long)]
        all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Check files and their blocks: the options, lines and exit codes of `hdfs fsck`, from the NameNode's HTTP port
    Fsck {
        /// The NameNode's HTTP port [default: dfs.namenode.http-address, or port 9870 of the NameNode]
        #[arg(long, value_name = "HOST:PORT")]
        http: Option<String>,
        /// A path and options of `hdfs fsck`, as / -files -blocks -locations
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Files that are open for writing, by whom, and since when nothing was closed or cut
    OpenFiles {
        /// Where to look
        #[arg(default_value = "/")]
        path: String,
        /// Most files to list
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Take a file from a writer that is gone, and close it with all that was flushed; waits until it
    /// is closed. Exits with 1 if it is not
    RecoverLease {
        /// The file
        #[arg(required_unless_present = "path_option")]
        path: Option<String>,
        /// The file, as `hdfs debug recoverLease` has it
        #[arg(long = "path", value_name = "PATH", conflicts_with = "path")]
        path_option: Option<String>,
        /// How often to ask, once a second
        #[arg(long, default_value_t = 60, value_name = "N")]
        retries: u32,
    },
    /// Safe mode, in which nothing is changed: ask, enter, leave, or wait for its end
    Safemode {
        /// What to do
        action: SafeMode,
    },
    /// Write the namespace to disk as a checkpoint; HDFS wants safe mode for it
    SaveNamespace,
    /// Read the lists of admitted and excluded DataNodes again
    RefreshNodes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SafeMode {
    Get,
    Enter,
    Leave,
    Wait,
}

/// Runs one command, and gives the exit code.
///
/// # Errors
/// The NameNode's exceptions, or no answer.
pub async fn run(mut context: FsContext, args: AdminArgs) -> Result<i32> {
    if let Some(uri) = &args.fs {
        context.use_cluster(uri)?;
    }
    if context.client_options.namenodes.is_empty() {
        bail!("fs.defaultFS is {}: name a cluster by --fs hdfs://HOST:PORT", context.default_fs);
    }
    let client = Client::new(context.env.clone(), context.client_options.clone());
    let namenode = client.namenode();
    match args.command {
        AdminCommand::Report { json } => report(namenode, &context, json).await?,
        AdminCommand::Nodes { json } => {
            let nodes = nodes::all(namenode, context.env.clock.now_ms()).await?;
            print_nodes(&nodes, json);
        }
        AdminCommand::Blocks { path, limit, all, json } => {
            return blocks::list(&client, &blocks::Search { path, limit, all, json }).await;
        }
        AdminCommand::Fsck { http, args } => {
            let configured = http.or_else(|| context.settings.get("dfs.namenode.http-address").cloned());
            let address = fsck::address(configured.as_deref(), &context.client_options.namenodes[0]);
            let user = &context.client_options.user;
            return fsck::run(&fsck::Place { env: &context.env, address, user }, &args).await;
        }
        AdminCommand::OpenFiles { path, limit, json } => {
            let files = open_files::all(&client, &path, limit).await?;
            open_files::print(&files, context.env.clock.now_ms(), json);
        }
        AdminCommand::RecoverLease { path, path_option, retries } => {
            let path = path.or(path_option).unwrap_or_default();
            return open_files::recover_lease(&client, &path, retries).await;
        }
        AdminCommand::Safemode { action } => safe_mode(namenode, action).await?,
        AdminCommand::SaveNamespace => {
            let saved = namenode.save_namespace(hdfs::SaveNamespaceRequestProto::default()).await?;
            say!("{}", if saved.saved() { "Save namespace successful" } else { "No save was needed" });
        }
        AdminCommand::RefreshNodes => {
            namenode.refresh_nodes(hdfs::RefreshNodesRequestProto {}).await?;
            say!("Refresh nodes successful");
        }
    }
    Ok(0)
}

async fn safe_mode(namenode: &NameNodeProxy, action: SafeMode) -> Result<()> {
    use hdfs::SafeModeActionProto as Action;
    let ask = async |action: Action| -> Result<bool> {
        let request = hdfs::SetSafeModeRequestProto { action: action as i32, checked: Some(false) };
        Ok(namenode.set_safe_mode(request).await?.result)
    };
    let mut on = match action {
        SafeMode::Get | SafeMode::Wait => ask(Action::SafemodeGet).await?,
        SafeMode::Enter => ask(Action::SafemodeEnter).await?,
        SafeMode::Leave => ask(Action::SafemodeLeave).await?,
    };
    while on && action == SafeMode::Wait {
        tokio::time::sleep(WAIT_PAUSE).await;
        on = ask(Action::SafemodeGet).await?;
    }
    say!("Safe mode is {}", if on { "ON" } else { "OFF" });
    Ok(())
}

async fn report(namenode: &NameNodeProxy, context: &FsContext, as_json: bool) -> Result<()> {
    let stats = namenode.get_fs_stats(hdfs::GetFsStatusRequestProto {}).await?;
    let get = hdfs::SetSafeModeRequestProto {
        action: hdfs::SafeModeActionProto::SafemodeGet as i32,
        checked: Some(false),
    };
    let safe_mode = namenode.set_safe_mode(get).await?.result;
    let nodes = nodes::all(namenode, context.env.clock.now_ms()).await;
    let nodes = nodes.context("the list of DataNodes is for the superuser")?;
    let live = nodes.iter().filter(|node| node.live).count();
    if as_json {
        let value = json!({
            "filesystem": context.default_fs,
            "safe_mode": safe_mode,
            "capacity": stats.capacity,
            "used": stats.used,
            "remaining": stats.remaining,
            "under_replicated_blocks": stats.under_replicated,
            "corrupt_blocks": stats.corrupt_blocks,
            "missing_blocks": stats.missing_blocks,
            "missing_blocks_of_one_replica": stats.missing_repl_one_blocks(),
            "pending_deletion_blocks": stats.pending_deletion_blocks(),
            "live_nodes": live,
            "dead_nodes": nodes.len() - live,
            "nodes": nodes.iter().map(Node::as_json).collect::<Vec<_>>(),
        });
        say!("{value:#}");
        return Ok(());
    }
    if safe_mode {
        say!("Safe mode is ON");
    }
    let share = |part: u64, whole: u64| match whole {
        0 => "-".to_string(),
        whole => format!("{:.2}%", part as f64 * 100.0 / whole as f64),
    };
    let size = |bytes: u64| format!("{bytes} ({})", human(bytes as i64));
    say!("Configured Capacity: {}", size(stats.capacity));
    say!("DFS Used: {}", size(stats.used));
    say!("DFS Used%: {}", share(stats.used, stats.capacity));
    say!("DFS Remaining: {}", size(stats.remaining));
    say!("Under replicated blocks: {}", stats.under_replicated);
    say!("Blocks with corrupt replicas: {}", stats.corrupt_blocks);
    say!("Missing blocks: {}", stats.missing_blocks);
    say!("Missing blocks (with replication factor 1): {}", stats.missing_repl_one_blocks());
    say!("Pending deletion blocks: {}", stats.pending_deletion_blocks());
    say!("Live datanodes ({live}), dead datanodes ({}):", nodes.len() - live);
    print_nodes(&nodes, false);
    Ok(())
}

fn print_nodes(nodes: &[Node], as_json: bool) {
    if as_json {
        for node in nodes {
            say!("{}", node.as_json());
        }
    } else {
        say!("{}", nodes::table(nodes));
    }
}
