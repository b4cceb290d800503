//! Servers of the built binary, as processes that end with the test.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Longer than any server takes to start on a busy machine.
pub const READY_LIMIT: Duration = Duration::from_secs(60);

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_mobula")
}

/// A server that was ready once.
pub struct Process {
    child: Child,
    /// All it printed up to and with its `ready` line.
    pub printed: Vec<String>,
}

impl Process {
    /// Starts `mobula ARGS` and waits for `ready`; what it logs goes to `log`.
    pub async fn start(args: &[&str], log: &Path) -> Process {
        let output = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = command(args)
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = Vec::new();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                printed.push(line);
                if printed.last().unwrap().starts_with("ready") {
                    return true;
                }
            }
            false
        };
        let ready = tokio::time::timeout(READY_LIMIT, ready).await;
        if ready != Ok(true) {
            panic!(
                "{args:?} was not ready ({ready:?}):\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
        }
        Process { child, printed }
    }

    /// The words behind `ready`.
    pub fn ready(&self) -> Vec<&str> {
        self.printed.last().unwrap().split(' ').skip(1).collect()
    }

    pub fn pid(&self) -> i32 {
        self.child.id().unwrap().cast_signed()
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Stops it in its tracks: its sockets stay, and nothing answers.
    pub fn pause(&self) {
        self.send(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.send(Signal::SIGCONT);
    }

    fn send(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Sends a signal and waits for the exit code.
    pub async fn signal(&mut self, signal: Signal) -> Option<i32> {
        self.send(signal);
        let ended = tokio::time::timeout(READY_LIMIT, self.child.wait()).await.expect("it ends");
        ended.unwrap().code()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself, for its exit code.
    pub async fn wait(&mut self) -> Option<i32> {
        // `Child::wait` would close it, and so end the server.
        let _lifeline = self.child.stdin.take();
        let ended = tokio::time::timeout(READY_LIMIT, self.child.wait()).await.expect("it ends");
        ended.unwrap().code()
    }

    /// Closes its standard input, as the death of whoever started it would, and waits for the end.
    pub async fn orphan(&mut self) {
        drop(self.child.stdin.take());
        tokio::time::timeout(READY_LIMIT, self.child.wait()).await.expect("it ends").unwrap();
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env_remove("HADOOP_CONF_DIR").env_remove("RUST_LOG").current_dir(std::env::temp_dir());
    command
}

/// Runs `mobula ARGS` to its end.
pub async fn run(args: &[&str]) -> Output {
    command(args).stdin(Stdio::null()).output().await.unwrap()
}

/// Standard output, standard error and exit code as text.
pub async fn said(args: &[&str]) -> (String, String, i32) {
    let output = run(args).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
}

/// A NameNode and DataNodes as processes of their own, in one temporary folder.
pub struct Cluster {
    folder: tempfile::TempDir,
    namenode_args: Vec<String>,
    pub namenode: Process,
    pub datanodes: Vec<Process>,
    pub address: String,
}

impl Cluster {
    pub async fn start(datanodes: usize, namenode_args: &[&str]) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let namenode_args: Vec<String> = namenode_args.iter().map(ToString::to_string).collect();
        let namenode = start_namenode(folder.path(), "127.0.0.1:0", &namenode_args).await;
        let address = namenode.ready()[0].strip_prefix("hdfs://").unwrap().to_string();
        let mut cluster = Cluster { folder, namenode_args, namenode, datanodes: Vec::new(), address };
        for at in 0..datanodes {
            let datanode = cluster.start_datanode(at).await;
            cluster.datanodes.push(datanode);
        }
        cluster
    }

    pub async fn restart_namenode(&mut self) {
        self.namenode.kill().await;
        self.namenode = start_namenode(self.folder.path(), &self.address, &self.namenode_args).await;
    }

    pub async fn restart_datanode(&mut self, at: usize) {
        self.datanodes[at].kill().await;
        self.revive_datanode(at).await;
    }

    /// Starts one again that was killed.
    pub async fn revive_datanode(&mut self, at: usize) {
        self.datanodes[at] = self.start_datanode(at).await;
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    async fn start_datanode(&self, at: usize) -> Process {
        let dir = self.folder.path().join(format!("dn{at}"));
        let args = [
            "datanode",
            "--dir",
            dir.to_str().unwrap(),
            "--namenode",
            &self.address,
            "--listen",
            "127.0.0.1:0",
        ];
        Process::start(&args, &self.log(&format!("dn{at}"))).await
    }
}

async fn start_namenode(folder: &Path, listen: &str, more: &[String]) -> Process {
    let dir = folder.join("nn");
    let mut args = vec!["namenode", "--dir", dir.to_str().unwrap(), "--listen", listen];
    args.extend(more.iter().map(String::as_str));
    Process::start(&args, &folder.join("nn.log")).await
}
