//! `mobula`: a distributed file system that speaks HDFS's protocols, as one program.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mobula::command::{datanode, demo, local, namenode};
use mobula::config::{self, Settings};
use mobula::log_file::LogFile;
use mobula::{admin, bench, fs};
use mobula_net::Env;

// The servers hold many small buffers of mixed ages; the system's allocator gives them back late.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A distributed file system that speaks HDFS's protocols and heals itself.
#[derive(Debug, Parser)]
#[command(name = "mobula", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    /// Folder with Hadoop's core-site.xml and hdfs-site.xml [default: $HADOOP_CONF_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    conf: Option<PathBuf>,
    /// Our own configuration file [default: mobula.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What servers log to standard error: error, warn, info, debug, or a filter as in RUST_LOG
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    /// What servers log goes into this file, which is put aside when it grows long, and not to
    /// standard error
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  mobula demo                              watch a file being stored, lose two machines, and heal
  mobula local --dir /tmp/m                a cluster on this machine, kept in a folder
  mobula fs -put notes.txt /               as `hdfs dfs -put`
  mobula namenode --dir /srv/nn --listen 10.0.0.1:8020
  mobula datanode --dir /disk1 --dir /disk2 --namenode 10.0.0.1:8020";

#[derive(Debug, Subcommand)]
enum Command {
    /// Store a file on a cluster of this machine, kill parts of it, and watch it heal
    Demo(demo::DemoArgs),
    /// Run a whole cluster in one process, for development
    Local(local::LocalArgs),
    /// Run a NameNode
    Namenode(namenode::NamenodeArgs),
    /// Run a DataNode
    Datanode(datanode::DatanodeArgs),
    /// Work with files: the verbs, options and output of `hdfs dfs`
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Fs {
        /// A verb with its options and paths; `mobula fs -help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Look after a cluster: report, safe mode, nodes, blocks
    Admin(admin::AdminArgs),
    /// Measure a cluster, Apache's or ours, through HDFS's protocols
    Bench(bench::BenchArgs),
    /// List every configuration key
    Keys,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mobula: {}", told_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes. Many of our errors quote their cause already: it is not told twice.
fn told_once(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !words.contains(&cause) {
            words.push_str(if words.is_empty() { "" } else { ": " });
            words.push_str(&cause);
        }
    }
    words
}

/// Prints what was asked for; a reader that has seen enough (`| head`) is no failure.
fn print(text: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(text).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    start_log(&cli)?;
    let variable = std::env::var_os("HADOOP_CONF_DIR").filter(|folder| !folder.is_empty());
    let folder = cli.conf.clone().or_else(|| variable.map(PathBuf::from));
    let load = || Settings::load(folder.as_deref(), cli.config.as_deref());
    match cli.command {
        Command::Demo(args) => servers()?.block_on(demo::run(args)),
        Command::Local(args) => servers()?.block_on(local::run(load()?, args)).map(|()| ExitCode::SUCCESS),
        Command::Namenode(args) => {
            namenode_runtime()?.block_on(namenode::run(load()?, args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Datanode(args) => {
            servers()?.block_on(datanode::run(load()?, args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Fs { args } => {
            let code = clients()?.block_on(fs::run(fs_context(&load()?)?, args));
            Ok(ExitCode::from(code as u8))
        }
        Command::Admin(args) => {
            let code = clients()?.block_on(admin::run(fs_context(&load()?)?, args))?;
            Ok(ExitCode::from(code as u8))
        }
        Command::Bench(args) => {
            servers()?.block_on(bench::run(Env::real(), args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Keys => {
            let lines = config::keys::KEYS
                .iter()
                .map(|key| format!("{:34}{:52}{}\n", key.name, key.hadoop, key.about))
                .collect::<String>();
            print(lines.as_bytes()).map(|()| ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mobula", &mut script);
            print(&script).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn fs_context(settings: &Settings) -> Result<fs::FsContext> {
    Ok(fs::FsContext {
        client_options: config::client_options(settings)?,
        default_fs: settings.default_fs(),
        settings: settings.to_map(),
        env: Env::real(),
    })
}

/// A runtime for servers: a thread per core.
fn servers() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// A runtime for a NameNode: the log has a thread of its own, which applies what it has synced, and is busy when there
/// is much to do. With a thread for each core besides, a change costs a microsecond more, for waking each other.
fn namenode_runtime() -> Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(cores.saturating_sub(1).max(1)).enable_all();
    builder.build().context("cannot start the runtime")
}

/// A runtime for one command of a person: it starts fast, on this thread alone.
fn clients() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn start_log(cli: &Cli) -> Result<()> {
    let serves = matches!(cli.command, Command::Namenode(_) | Command::Datanode(_));
    let default = if serves { "info" } else { "warn" };
    let filter = cli.log.clone().or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| default.into());
    let log = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::new(filter));
    match &cli.log_file {
        Some(path) => log.with_writer(Mutex::new(LogFile::open(path)?)).with_ansi(false).init(),
        None => log
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
    }
    Ok(())
}
