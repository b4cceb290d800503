//! Servers as processes of their own: how they say that they are ready, how long they live, and how
//! another process of ours starts and ends them.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervised::{Claim, Supervised};

/// A server that is not ready after this long is reported with the end of its log.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Lines of a server's log that are shown when it fails.
const LOG_LINES_SHOWN: usize = 12;

/// What a server prints on standard output once it serves: `ready ADDRESS`.
pub const READY: &str = "ready";

/// Raises this process's limit of open files as far as it may: each connection is one, each block that is being
/// written two or three, and the usual limit of 1,024 is meant for programs that use `select`.
pub fn allow_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(soft, hard, %error, "cannot raise the limit of open files");
    }
}

/// Why a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Ctrl-C, SIGTERM or SIGHUP.
    Signal,
    /// Nobody renewed the claim on us.
    ClaimLapsed,
    /// The process that started it is gone, or said so by closing our standard input.
    ParentGone,
}

/// Hears when the process is asked to end. Made before a server starts, so that one that is asked
/// while it starts still cleans up.
#[derive(Debug)]
pub struct Asked {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
    parent: Option<pipe::Receiver>,
    claim: Option<Claim>,
}

impl Asked {
    /// Listens for Ctrl-C, SIGTERM and the end of our terminal, for the end of standard input where that is a lifeline (whoever
    /// started us holds its other end, so we cannot outlive them, even if they are killed), and for a
    /// claim that nobody renews.
    ///
    /// # Errors
    /// Signals that cannot be caught; a standard input that is no pipe; a claim without sense.
    pub fn listen(supervised: &Supervised) -> Result<Asked> {
        let parent = match supervised.until_stdin_closes {
            true => {
                let receiver = pipe::Receiver::from_file(stdin_file()?);
                Some(receiver.context("--until-stdin-closes needs a pipe as standard input")?)
            }
            false => None,
        };
        Ok(Asked {
            interrupt: signal(SignalKind::interrupt()).context("cannot catch SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot catch SIGTERM")?,
            hangup: hangup()?,
            parent,
            claim: supervised.claim()?,
        })
    }

    /// Resolves when the process is asked to end.
    pub async fn wait(&mut self) -> Ending {
        let parent = async {
            let Some(parent) = &mut self.parent else { return std::future::pending().await };
            let mut sink = [0; 256];
            while parent.read(&mut sink).await.is_ok_and(|count| count > 0) {}
        };
        let claim = async {
            match &mut self.claim {
                Some(claim) => claim.lapsed().await,
                None => std::future::pending().await,
            }
        };
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Ending::Signal,
            _ = self.terminate.recv() => Ending::Signal,
            _ = hangup => Ending::Signal,
            () = parent => Ending::ParentGone,
            () = claim => Ending::ClaimLapsed,
        }
    }
}

/// The end of our terminal, unless we were started so as to outlive it (`nohup`).
fn hangup() -> Result<Option<Signal>> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    if u64::from_str_radix(ignored.trim(), 16).is_ok_and(|signals| signals & 1 != 0) {
        return Ok(None);
    }
    signal(SignalKind::hangup()).map(Some).context("cannot catch SIGHUP")
}

fn stdin_file() -> Result<File> {
    use std::os::fd::AsFd;
    let copy = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
    Ok(File::from(copy))
}

/// How long a server lives that we start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// No longer than we do, even if we are killed.
    Ours,
    /// Until somebody ends it, once it is left to itself ([`Server::leave`]).
    ItsOwn,
}

/// A server that we started.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    // Its end tells the server that we are gone.
    lifeline: Option<ChildStdin>,
    address: String,
}

impl Server {
    /// Starts this very program with `args`, logging into `log`, and waits until it is ready.
    ///
    /// # Errors
    /// It ended, or was not ready in time: with the end of its log.
    pub async fn start(name: &str, args: &[OsString], log: &Path, lifetime: Lifetime) -> Result<Server> {
        let program = std::env::current_exe().context("cannot tell which program this is")?;
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::piped()).stderr(output);
        match lifetime {
            Lifetime::Ours => command.arg("--until-stdin-closes").stdin(Stdio::piped()).kill_on_drop(true),
            // A group of its own: Ctrl-C at our terminal is not for it. Ours, too, until it is left to itself.
            Lifetime::ItsOwn => command.stdin(Stdio::null()).process_group(0).kill_on_drop(true),
        };
        // It is told all by its arguments: what this machine has configured is for other clusters.
        command.env_remove("HADOOP_CONF_DIR").current_dir(log.parent().unwrap_or(Path::new(".")));
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let lifeline = child.stdin.take();
        let address = match tokio::time::timeout(READY_LIMIT, ready_line(&mut child)).await {
            Ok(Ok(address)) => address,
            Ok(Err(why)) => bail!("{name} did not start: {why:#}\n{}", tail(log)),
            Err(_) => bail!("{name} was not ready within {READY_LIMIT:?}\n{}", tail(log)),
        };
        Ok(Server { name: name.into(), child, lifeline, address })
    }

    /// What it printed behind `ready`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Leaves it running for good.
    pub fn leave(self) {
        std::mem::forget(self.child);
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Asks it to end in order (SIGTERM) and waits; after `limit` it is killed.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn stop(self, limit: Duration) -> Result<()> {
        let Server { name, mut child, lifeline, .. } = self;
        drop(lifeline);
        if let Some(pid) = child.id() {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            // It may have ended by itself just now.
            let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(result) => result.map(drop).with_context(|| format!("cannot wait for {name}")),
            Err(_) => child.kill().await.with_context(|| format!("cannot kill {name}")),
        }
    }
}

async fn ready_line(child: &mut Child) -> Result<String> {
    let output = child.stdout.take().ok_or_else(|| anyhow!("no standard output"))?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(address) = line.strip_prefix(READY) {
            // Whatever it prints later must not block it.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(address.trim().to_string());
        }
    }
    let status = child.wait().await?;
    bail!("it ended with {status}")
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

/// A folder that is removed when it is dropped, unless it is kept.
#[derive(Debug)]
pub struct WorkFolder(Option<tempfile::TempDir>, PathBuf);

/// How often the removal of a folder is tried: who was just killed may be in the middle of a last call in it.
const REMOVE_TRIES: u32 = 100;
/// Between two of them.
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let Some(folder) = self.0.take() else { return };
        for _ in 1..REMOVE_TRIES {
            if std::fs::remove_dir_all(folder.path()).is_ok() {
                break;
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
    }
}

impl WorkFolder {
    /// A new folder in the system's temporary folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(prefix: &str) -> Result<WorkFolder> {
        let folder =
            tempfile::Builder::new().prefix(prefix).tempdir().context("cannot make a temporary folder")?;
        let path = folder.path().to_path_buf();
        Ok(WorkFolder(Some(folder), path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.1
    }

    /// Leaves it where it is.
    pub fn keep(&mut self) {
        if let Some(folder) = self.0.take() {
            let _kept = folder.keep();
        }
    }

    /// Removes it now.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove(mut self) -> Result<()> {
        match self.0.take() {
            Some(folder) => folder.close().with_context(|| format!("cannot remove {}", self.1.display())),
            None => Ok(()),
        }
    }
}
