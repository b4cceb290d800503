//! `mobula demo`: a real file is cut into blocks, replicated, loses machines, heals, and comes back
//! byte for byte. Everything it shows was asked of the cluster; nothing is staged.

mod cast;
mod screen;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use mobula_client::{Client, ClientOptions, CreateOptions, ReplaceDatanode};
use mobula_net::Env;
use mobula_proto::hdfs;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::user_name;
use crate::http;
use crate::process::{Asked, Lifetime};
use crate::supervised::Supervised;
use cast::Cast;
use screen::{Row, Screen, size};

/// `mobula demo`
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// The file to store [default: this program itself]
    file: Option<PathBuf>,
    /// Leave the cluster running, and say how to use it
    #[arg(long)]
    keep: bool,
}

/// DataNodes of the demo.
const DATANODES: usize = 5;
/// Replicas of its file.
const REPLICAS: u16 = 3;
/// Smallest block size of the demo; larger files get larger blocks, so that the table stays readable.
const BLOCK_SIZE_MIN: u64 = 1 << 20;
/// The file has about so many blocks at most.
const BLOCKS_AIM: u64 = 64;
/// Healing that takes longer than this has failed.
const HEAL_LIMIT: Duration = Duration::from_secs(120);
/// How often the cluster is asked while we wait for it.
const POLL: Duration = Duration::from_millis(50);
/// Bytes read from or compared with the local file at a time.
const PIECE: usize = 1 << 20;

/// Plays it.
///
/// # Errors
/// Whatever stood in the way; a difference in the bytes is one of them.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let mut asked = Asked::listen(&Supervised::default())?;
    tokio::select! {
        biased;
        _ = asked.wait() => bail!("interrupted; everything was taken down"),
        played = play(args) => played.map(|()| ExitCode::SUCCESS),
    }
}

async fn play(args: DemoArgs) -> Result<()> {
    let source = match &args.file {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("cannot tell which program this is")?,
    };
    let length =
        std::fs::metadata(&source).with_context(|| format!("cannot read {}", source.display()))?.len();
    let block_size = length.div_ceil(BLOCKS_AIM).next_multiple_of(BLOCK_SIZE_MIN).max(BLOCK_SIZE_MIN);
    let mut screen = Screen::new();
    let lifetime = if args.keep { Lifetime::ItsOwn } else { Lifetime::Ours };

    screen.step(&format!("Start: one NameNode and {DATANODES} DataNodes, each a process of its own"));
    let cast = Cast::start(DATANODES, block_size, lifetime).await?;
    let mut show = Show::new(cast, screen, block_size);
    show.introduce();
    let first = show.store(&source).await?;
    show.kill_one_and_heal().await?;
    show.update(&source, &first).await?;
    show.kill_two_and_restart().await?;
    show.list().await?;
    show.finish(args.keep).await
}

/// A file's contents as the demo compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    sha256: String,
    length: u64,
}

struct Show {
    cast: Cast,
    screen: Screen,
    client: Client,
    env: Env,
    path: String,
    block_size: u64,
    stored: Option<Content>,
    compared: u32,
    healed: Vec<Duration>,
}

impl Show {
    fn new(cast: Cast, screen: Screen, block_size: u64) -> Show {
        let env = Env::real();
        let client = Client::new(
            env.clone(),
            ClientOptions {
                namenodes: vec![cast.address().into()],
                user: user_name(),
                replication: Some(REPLICAS),
                block_size: Some(block_size),
                umask: 0o022,
                call_limit: Duration::from_secs(60),
                replace_datanode: ReplaceDatanode::default(),
                favored_nodes: Vec::new(),
            },
        );
        let (path, stored, compared, healed) = (String::new(), None, 0, Vec::new());
        Show { cast, screen, client, env, path, block_size, stored, compared, healed }
    }

    fn introduce(&self) {
        let pid = |pid: Option<u32>| pid.map_or_else(|| "?".into(), |pid| pid.to_string());
        self.screen.line(&format!(
            "NameNode hdfs://{} (pid {})",
            self.cast.address(),
            pid(self.cast.namenode_pid())
        ));
        for datanode in &self.cast.datanodes {
            self.screen.line(&format!(
                "{} {} (pid {})",
                datanode.name,
                datanode.address,
                pid(datanode.pid())
            ));
        }
        self.screen.line(&format!("all ready after {:.2} s", self.screen.elapsed().as_secs_f64()));
    }

    /// Act 2: the file goes in.
    async fn store(&mut self, source: &Path) -> Result<Content> {
        let name =
            source.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned());
        self.path = format!("/demo/{}", name.replace(':', "_"));
        self.screen.step(&format!("Store {} as {} with {REPLICAS} replicas", source.display(), self.path));
        let begin = Instant::now();
        let content = self.put(source, &[]).await?;
        let seconds = begin.elapsed().as_secs_f64();
        self.screen.line(&format!(
            "{} in {seconds:.2} s, {:.0} MB/s, synced on every replica; SHA-256 {}",
            size(content.length),
            content.length as f64 / 1e6 / seconds,
            content.sha256
        ));
        self.stored = Some(content.clone());
        self.show_replicas().await?;
        Ok(content)
    }

    /// Act 3: a machine dies, the AutoHealer restores what it held.
    async fn kill_one_and_heal(&mut self) -> Result<()> {
        let rows = self.rows().await?;
        let victim = self.busiest(&rows)?;
        let name = self.cast.datanodes[victim].name.clone();
        self.screen.step(&format!("Kill {name} with SIGKILL, and watch the AutoHealer"));
        let lost = rows.iter().filter(|row| row.replicas[victim]).count() as u64;
        self.kill_and_wait(&[victim], lost).await?;
        self.show_replicas().await?;
        let expected = self.stored.clone().context("stored in act 2")?;
        self.compare("read back whole", &expected).await
    }

    /// Act 4: a newer version takes the file's place.
    async fn update(&mut self, source: &Path, first: &Content) -> Result<()> {
        self.screen.step("Update: a newer version takes the file's place");
        self.compare("version 1, before", first).await?;
        let note = format!("\nversion 2, {} bytes later\n", first.length);
        let second = self.put(source, note.as_bytes()).await?;
        self.stored = Some(second.clone());
        self.compare("version 2, after", &second).await?;
        if first == &second {
            bail!("both versions have SHA-256 {}", first.sha256);
        }
        Ok(())
    }

    /// Act 5: another machine dies, and the NameNode with it; only the NameNode comes back.
    async fn kill_two_and_restart(&mut self) -> Result<()> {
        let rows = self.rows().await?;
        let victim = self.busiest(&rows)?;
        let name = self.cast.datanodes[victim].name.clone();
        self.screen.step(&format!("Kill {name} and the NameNode with SIGKILL; restart the NameNode"));
        self.cast.kill_datanode(victim).await?;
        self.cast.kill_namenode().await?;
        let begin = Instant::now();
        self.cast.start_namenode(self.block_size).await?;
        self.screen.at(begin, "the NameNode serves again, from its log");
        let expected = self.stored.clone().context("stored in act 4")?;
        self.compare("read again", &expected).await?;
        let begin = Instant::now();
        self.follow_healing(begin, 0).await?;
        self.show_replicas().await
    }

    /// Act 6: what is there.
    async fn list(&mut self) -> Result<()> {
        self.screen.step("List files and nodes");
        for entry in self.client.list("/demo").await? {
            self.screen.line(&format!(
                "-rw-r--r-- {} {} {} {:>12} /demo/{}",
                entry.block_replication.unwrap_or(0),
                entry.owner,
                entry.group,
                entry.length,
                String::from_utf8_lossy(&entry.path)
            ));
        }
        for datanode in &self.cast.datanodes {
            let state = if datanode.runs() { "live" } else { "killed" };
            self.screen.line(&format!("{} {} {state}", datanode.name, datanode.address));
        }
        Ok(())
    }

    async fn finish(mut self, keep: bool) -> Result<()> {
        self.screen.step("Summary");
        let healed: Vec<String> =
            self.healed.iter().map(|time| format!("{:.1} s", time.as_secs_f64())).collect();
        self.screen.line(&format!(
            "{} comparisons, all equal; healed {} after the loss; {:.1} s in all",
            self.compared,
            healed.join(" and "),
            self.screen.elapsed().as_secs_f64()
        ));
        if keep {
            let address = self.cast.address().to_string();
            self.screen.line(&format!("left running in {}; try", self.cast.folder().display()));
            self.screen.line(&format!("  mobula fs -fs hdfs://{address} -ls -R /"));
            self.screen.line(&format!("  hdfs dfs -fs hdfs://{address} -cat {} | sha256sum", self.path));
            let pids =
                self.cast.datanodes.iter().filter_map(cast::Datanode::pid).chain(self.cast.namenode_pid());
            let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
            self.screen.line(&format!(
                "end it with: kill {}; rm -r {}",
                pids.join(" "),
                self.cast.folder().display()
            ));
            self.cast.keep();
            return Ok(());
        }
        let folder = self.cast.folder().to_path_buf();
        self.cast.end().await?;
        self.screen.line(&format!("all processes ended, {} removed", folder.display()));
        Ok(())
    }

    async fn kill_and_wait(&mut self, victims: &[usize], lost: u64) -> Result<()> {
        let seen = self.last_notice().await?;
        for victim in victims {
            self.cast.kill_datanode(*victim).await?;
        }
        let begin = Instant::now();
        self.screen.at(begin, &format!("killed; {lost} blocks have one replica less"));
        self.follow_healing(begin, seen).await
    }

    /// Shows the AutoHealer's notices until it says, and the locations agree, that all is whole.
    async fn follow_healing(&mut self, begin: Instant, mut seen: u64) -> Result<()> {
        let total = self.rows().await?.len() as u64;
        let bar = self.screen.bar(total);
        let mut copies = Copies::default();
        loop {
            for notice in self.notices(&mut seen).await? {
                if let Some(text) = copies.take(&notice) {
                    let text = self.by_name(text);
                    bar.suspend(|| self.screen.at(begin, &text));
                }
            }
            let whole = self.whole().await?;
            bar.set_position(whole);
            if whole == total && self.healthy().await? {
                break;
            }
            if begin.elapsed() > HEAL_LIMIT {
                bail!("not healed within {HEAL_LIMIT:?}: {whole} of {total} blocks have {REPLICAS} replicas");
            }
            tokio::time::sleep(POLL).await;
        }
        bar.finish_and_clear();
        self.screen.at(begin, &copies.summary());
        self.screen.at(
            begin,
            &format!("healed: each of {total} blocks has {REPLICAS} replicas, checksums verified"),
        );
        self.healed.push(begin.elapsed());
        Ok(())
    }

    async fn put(&self, source: &Path, more: &[u8]) -> Result<Content> {
        let options = CreateOptions { overwrite: true, ..CreateOptions::default() };
        let mut writer = self.client.create(&self.path, options).await?;
        let mut file =
            std::fs::File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
        let mut hash = Sha256::new();
        let mut length = 0;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, PIECE as u64), &mut piece)?;
            if piece.is_empty() {
                break;
            }
            hash.update(&piece);
            length += piece.len() as u64;
            writer.write(Bytes::from(piece)).await?;
        }
        hash.update(more);
        length += more.len() as u64;
        if !more.is_empty() {
            writer.write(Bytes::copy_from_slice(more)).await?;
        }
        writer.close().await?;
        Ok(Content { sha256: hex(&hash.finalize()), length })
    }

    async fn compare(&mut self, what: &str, expected: &Content) -> Result<()> {
        let begin = Instant::now();
        let mut reader = self.client.open(&self.path).await?;
        let mut hash = Sha256::new();
        let mut length = 0;
        while let Some(piece) = reader.next().await? {
            hash.update(&piece);
            length += piece.len() as u64;
        }
        let read = Content { sha256: hex(&hash.finalize()), length };
        if &read != expected {
            bail!(
                "{} ({what}) differs: stored {} bytes with SHA-256 {}, read {} bytes with {}",
                self.path,
                expected.length,
                expected.sha256,
                read.length,
                read.sha256
            );
        }
        self.compared += 1;
        let seconds = begin.elapsed().as_secs_f64();
        self.screen.line(&format!(
            "{what}: {} in {seconds:.2} s, SHA-256 equal ({})",
            size(length),
            read.sha256
        ));
        Ok(())
    }

    async fn show_replicas(&self) -> Result<()> {
        let nodes: Vec<(String, bool)> =
            self.cast.datanodes.iter().map(|node| (node.name.clone(), node.runs())).collect();
        self.screen.replicas(&nodes, &self.rows().await?);
        Ok(())
    }

    /// Where the NameNode says that each block's replicas are.
    async fn rows(&self) -> Result<Vec<Row>> {
        let request = hdfs::GetBlockLocationsRequestProto {
            src: self.path.clone(),
            offset: 0,
            length: i64::MAX as u64,
        };
        let located = self.client.namenode().get_block_locations(request).await?.locations;
        let located = located.ok_or_else(|| anyhow!("{} is gone", self.path))?;
        let row = |block: &hdfs::LocatedBlockProto| {
            let held = |address: &String| {
                block.locs.iter().any(|node| &format!("{}:{}", node.id.ip_addr, node.id.xfer_port) == address)
            };
            Row {
                block: format!("blk_{}", block.b.block_id),
                length: block.b.num_bytes.unwrap_or(0),
                replicas: self.cast.datanodes.iter().map(|node| held(&node.address)).collect(),
            }
        };
        Ok(located.blocks.iter().map(row).collect())
    }

    /// How many blocks have all their replicas on nodes that run.
    async fn whole(&self) -> Result<u64> {
        let runs: Vec<bool> = self.cast.datanodes.iter().map(cast::Datanode::runs).collect();
        let held = |row: &Row| row.replicas.iter().zip(&runs).filter(|(held, runs)| **held && **runs).count();
        Ok(self.rows().await?.iter().filter(|row| held(row) >= usize::from(REPLICAS)).count() as u64)
    }

    /// The running DataNode with the most replicas.
    fn busiest(&self, rows: &[Row]) -> Result<usize> {
        let running = (0..self.cast.datanodes.len()).filter(|at| self.cast.datanodes[*at].runs());
        let held = |at: &usize| rows.iter().filter(|row| row.replicas[*at]).count();
        running.max_by_key(held).ok_or_else(|| anyhow!("no DataNode is left"))
    }

    /// A notice with the DataNodes' names in place of their addresses.
    fn by_name(&self, text: String) -> String {
        self.cast.datanodes.iter().fold(text, |text, node| text.replace(&node.address, &node.name))
    }

    async fn healthy(&self) -> Result<bool> {
        let health = http::get(&self.env, self.cast.status(), "/health").await?;
        Ok(health["healed"].as_bool().unwrap_or(false))
    }

    async fn last_notice(&self) -> Result<u64> {
        let answer = http::get(&self.env, self.cast.status(), "/notices?since=0").await?;
        Ok(answer["last"].as_u64().unwrap_or(0))
    }

    async fn notices(&self, seen: &mut u64) -> Result<Vec<Value>> {
        let answer = http::get(&self.env, self.cast.status(), &format!("/notices?since={seen}")).await?;
        *seen = answer["last"].as_u64().unwrap_or(*seen);
        Ok(answer["notices"].as_array().cloned().unwrap_or_default())
    }
}

/// Copies that the AutoHealer ordered and saw verified: too many for a line each.
#[derive(Default)]
struct Copies {
    ordered: u64,
    verified: u64,
}

impl Copies {
    /// Counts a copy; any other notice gives a line to show, and so does the first of each.
    fn take(&mut self, notice: &Value) -> Option<String> {
        let text = || notice["text"].as_str().map(String::from);
        match notice["kind"].as_str() {
            Some("copy_ordered") => {
                self.ordered += 1;
                (self.ordered == 1).then(text).flatten()
            }
            Some("copy_verified") => {
                self.verified += 1;
                (self.verified == 1).then(text).flatten()
            }
            _ => text(),
        }
    }

    fn summary(&self) -> String {
        format!("{} copies ordered, {} verified by their target", self.ordered, self.verified)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
