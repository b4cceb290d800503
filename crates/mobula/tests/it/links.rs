//! Linked records, as in HBase's big linked list, by our client and by `hdfs-native`, while DataNodes and
//! the NameNode are killed (-9) and paused at random.
//!
//! Each record points to one that was flushed before it. In the end every record whose flush was
//! acknowledged is where it was written, and no record points to a hole. A writer of ours may fail only
//! if all nodes that had its block were hit. `MOBULA_LINK_FAULTS` says how many faults (default 20),
//! `MOBULA_SEED` replays a choice of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mobula_client::{
    AppendOptions, Client, ClientOptions, CreateOptions, FileWriter, ReplaceDatanode, RetryPolicy,
};
use mobula_net::{Entropy, Env};
use tokio::time::{Instant, timeout};

use crate::servers::Cluster;

/// In the quick test; CI has more.
const FAULTS: u64 = 20;
const DATANODES: usize = 4;
const REPLICATION: u16 = 3;
const WRITERS_OURS: u32 = 3;
const WRITERS_NATIVE: u32 = 2;
const BLOCK: u64 = 64 << 10;
/// Records that a writer adds to a file before it closes it.
const STAY: u64 = 60;
/// A call of ours that takes longer hangs; one of hdfs-native's is given up.
const OURS_LIMIT: Duration = Duration::from_secs(150);
const NATIVE_LIMIT: Duration = Duration::from_secs(20);
/// Longest that block recovery takes once all nodes are back.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// Lines of each log that are told about a block that is not recovered.
const LINES_TOLD: usize = 20;
/// A writer that failed waits so long before the next try.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: u32,
    at: u64,
}

/// What a record says of itself. Its bytes follow from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    writer: u32,
    length: u32,
    number: u64,
    before: Option<Place>,
}

const MAGIC: &[u8; 8] = b"mob link";
const HEADER: usize = 40;
/// Instead of a file's number: there is no record before.
const NO_FILE: u32 = u32::MAX;

impl Record {
    fn bytes(&self) -> Bytes {
        let before = self.before.unwrap_or(Place { file: NO_FILE, at: 0 });
        let mut bytes = Vec::with_capacity(self.length as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.writer.to_be_bytes());
        bytes.extend_from_slice(&self.length.to_be_bytes());
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&before.file.to_be_bytes());
        bytes.extend_from_slice(&before.at.to_be_bytes());
        let filler = |at: usize| (at as u64 * 31 + self.number * 17 + u64::from(self.writer)) % 251;
        bytes.extend((bytes.len()..self.length as usize).map(|at| filler(at) as u8));
        bytes.into()
    }

    /// The record at the start of `data`, if it is whole and undamaged.
    fn parse(data: &[u8]) -> Option<Record> {
        let header = data.get(..HEADER).filter(|header| header.starts_with(MAGIC))?;
        let u32_at = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().unwrap());
        let before = Place { file: u32_at(24), at: u64_at(28) };
        let record = Record {
            writer: u32_at(8),
            length: u32_at(12),
            number: u64_at(16),
            before: (before.file != NO_FILE).then_some(before),
        };
        (record.bytes() == data.get(..record.length as usize)?).then_some(record)
    }
}

/// What a writer was told.
#[derive(Debug, Default)]
struct Journal {
    files: u32,
    flushed: Vec<(Place, u64)>,
    /// Lengths of the files that it closed and did not open again.
    closed: BTreeMap<u32, u64>,
    records: u64,
    /// Failures of the writer, with what it was told.
    failures: Vec<String>,
}

/// Which DataNodes were hit, and when.
#[derive(Default)]
struct Faults {
    hits: Mutex<Vec<(Instant, usize)>>,
    /// DataNodes by the port that they had.
    ports: Mutex<BTreeMap<u32, usize>>,
}

impl Faults {
    fn hit(&self, node: usize) {
        self.hits.lock().unwrap().push((Instant::now(), node));
    }

    fn since(&self, moment: Instant) -> BTreeSet<usize> {
        let hits = self.hits.lock().unwrap();
        hits.iter().filter(|(at, _)| *at >= moment).map(|(_, node)| *node).collect()
    }

    fn learn_ports(&self, cluster: &Cluster) {
        let mut ports = self.ports.lock().unwrap();
        for (at, node) in cluster.datanodes.iter().enumerate() {
            let port = node.ready()[0].rsplit_once(':').unwrap().1;
            ports.insert(port.parse().unwrap(), at);
        }
    }
}

enum Source {
    Ours(Client),
    Native(hdfs_native::Client),
}

enum Output {
    Ours(Box<FileWriter>),
    Native(Box<hdfs_native::file::FileWriter>),
}

/// Waits for a call of either client.
async fn ended<T, E: std::fmt::Display>(
    limit: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(limit, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

impl Source {
    fn ours(address: &str) -> Source {
        Source::Ours(ours(address))
    }

    fn native(address: &str) -> Source {
        // Only what is given here: no configuration of the machine's.
        let empty = tempfile::tempdir().unwrap();
        let client = hdfs_native::ClientBuilder::new()
            .with_config_dir(empty.path().to_str().unwrap())
            .with_url(format!("hdfs://{address}"))
            .build();
        Source::Native(client.unwrap())
    }

    async fn create(&self, path: &str) -> Result<Output, String> {
        match self {
            Source::Ours(client) => {
                let writer = ended(OURS_LIMIT, client.create(path, CreateOptions::default())).await?;
                Ok(Output::Ours(Box::new(writer)))
            }
            Source::Native(client) => {
                let options = hdfs_native::WriteOptions::default()
                    .block_size(BLOCK)
                    .replication(u32::from(REPLICATION));
                let writer = ended(NATIVE_LIMIT, client.create(path, options)).await?;
                Ok(Output::Native(Box::new(writer)))
            }
        }
    }

    async fn append(&self, path: &str) -> Result<Output, String> {
        match self {
            Source::Ours(client) => {
                let writer = ended(OURS_LIMIT, client.append(path, AppendOptions::default())).await?;
                Ok(Output::Ours(Box::new(writer)))
            }
            Source::Native(client) => {
                let writer = ended(NATIVE_LIMIT, client.append(path)).await?;
                Ok(Output::Native(Box::new(writer)))
            }
        }
    }
}

impl Output {
    async fn write(&mut self, data: Bytes) -> Result<(), String> {
        match self {
            Output::Ours(writer) => ended(OURS_LIMIT, writer.write(data)).await,
            Output::Native(writer) => ended(NATIVE_LIMIT, writer.write_bytes(data)).await.map(|_| ()),
        }
    }

    /// hflush where there is one, and at times hsync.
    async fn flush(&mut self, to_disk: bool) -> Result<(), String> {
        match self {
            Output::Ours(writer) if to_disk => ended(OURS_LIMIT, writer.hsync()).await,
            Output::Ours(writer) => ended(OURS_LIMIT, writer.hflush()).await,
            Output::Native(writer) => ended(NATIVE_LIMIT, writer.hsync()).await,
        }
    }

    async fn close(self) -> Result<(), String> {
        match self {
            Output::Ours(writer) => ended(OURS_LIMIT, writer.close()).await,
            Output::Native(mut writer) => ended(NATIVE_LIMIT, writer.close()).await,
        }
    }
}

/// Writes records until it is told to stop.
struct Writer {
    number: u32,
    source: Source,
    address: String,
    entropy: Entropy,
    journal: Journal,
    faults: Arc<Faults>,
    stop: Arc<AtomicBool>,
    /// The nodes that had the last flushed bytes, and when that flush was asked for.
    pipeline: BTreeSet<usize>,
    flushed_at: Instant,
    /// How many records were flushed, for whoever waits for enough of them.
    count: Arc<AtomicUsize>,
}

impl Writer {
    async fn run(mut self) -> Journal {
        while !self.stop.load(Ordering::Relaxed) {
            let Err(reason) = self.visit().await else { continue };
            match &self.source {
                Source::Ours(_) => self.check_failure(&reason),
                // Its connections may be of no use any more.
                Source::Native(_) => self.source = Source::native(&self.address),
            }
            self.journal.failures.push(reason);
            self.pipeline.clear();
            self.flushed_at = Instant::now();
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
        self.journal
    }

    /// Our client goes on as long as one node has the block.
    fn check_failure(&self, reason: &str) {
        let hit = self.faults.since(self.flushed_at);
        let all = !self.pipeline.is_empty() && self.pipeline.is_subset(&hit);
        assert!(
            all || hit.len() >= usize::from(REPLICATION),
            "writer {} failed though of the nodes {:?} only {hit:?} were hit: {reason}",
            self.number,
            self.pipeline
        );
    }

    /// Opens a file, adds records, closes it.
    async fn visit(&mut self) -> Result<(), String> {
        self.pipeline.clear();
        let closed: Vec<u32> = self.journal.closed.keys().copied().collect();
        let (file, mut at, mut output) = match self.entropy.below(3) {
            0 if !closed.is_empty() => {
                let file = closed[self.entropy.below(closed.len() as u64) as usize];
                let length = self.journal.closed.remove(&file).expect("it was picked from there");
                match self.source.append(&path(self.number, file)).await {
                    Ok(output) => {
                        self.note_pipeline(&output);
                        (file, length, output)
                    }
                    // The NameNode has not heard of its replicas again: HDFS's clients, too, fail.
                    Err(reason) if reason.contains("is not sufficiently replicated yet") => {
                        self.journal.closed.insert(file, length);
                        return Ok(());
                    }
                    Err(reason) => return Err(reason),
                }
            }
            _ => {
                let file = self.journal.files;
                self.journal.files += 1;
                (file, 0, self.source.create(&path(self.number, file)).await?)
            }
        };
        let records = self.entropy.below(STAY);
        for _ in 0..records {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.add_some(file, &mut at, &mut output).await?;
        }
        output.close().await?;
        self.journal.closed.insert(file, at);
        Ok(())
    }

    /// Up to three records, which one flush makes visible. Each points to the newest flushed one.
    async fn add_some(&mut self, file: u32, at: &mut u64, output: &mut Output) -> Result<(), String> {
        let asked = Instant::now();
        let mut added = Vec::new();
        for _ in 0..=self.entropy.below(3) {
            let most = if self.entropy.below(8) == 0 { 40_000 } else { 700 };
            let record = Record {
                writer: self.number,
                length: (HEADER as u64 + self.entropy.below(most)) as u32,
                number: self.journal.records,
                before: self.journal.flushed.last().map(|(place, _)| *place),
            };
            self.journal.records += 1;
            output.write(record.bytes()).await?;
            added.push((Place { file, at: *at }, record.number));
            *at += u64::from(record.length);
        }
        output.flush(self.entropy.below(4) == 0).await?;
        self.journal.flushed.extend(added);
        self.count.store(self.journal.flushed.len(), Ordering::Relaxed);
        self.flushed_at = asked;
        self.note_pipeline(output);
        Ok(())
    }

    fn note_pipeline(&mut self, output: &Output) {
        if let Output::Ours(writer) = output {
            let ports = self.faults.ports.lock().unwrap();
            let nodes = writer.pipeline().iter().filter_map(|node| ports.get(&node.id.xfer_port));
            self.pipeline = nodes.copied().collect();
        }
    }
}

fn path(writer: u32, file: u32) -> String {
    format!("/links/w{writer}/f{file}")
}

fn ours(address: &str) -> Client {
    let options = ClientOptions {
        favored_nodes: Vec::new(),
        namenodes: vec![address.into()],
        user: mobula::config::user_name(),
        replication: Some(REPLICATION),
        block_size: Some(BLOCK),
        umask: 0o022,
        call_limit: Duration::from_secs(20),
        replace_datanode: ReplaceDatanode::default(),
    };
    // A NameNode that comes back is in safe mode for a moment.
    let policy = RetryPolicy { through_safe_mode: true, ..RetryPolicy::default() };
    Client::with_retries(Env::real(), options, policy)
}

/// One thing that goes wrong, drawn from `entropy`; afterwards all processes run.
async fn fault(cluster: &mut Cluster, entropy: &Entropy, faults: &Faults) {
    let moment = |limit_ms: u64| Duration::from_millis(entropy.below(limit_ms));
    let node = entropy.below(DATANODES as u64) as usize;
    let other = (node + 1 + entropy.below(DATANODES as u64 - 1) as usize) % DATANODES;
    match entropy.below(16) {
        0..6 => kill_datanodes(cluster, faults, &[node], moment(1_000)).await,
        6 => kill_datanodes(cluster, faults, &[node, other], moment(2_000)).await,
        7 => kill_datanodes(cluster, faults, &[0, 1, 2, 3], moment(500)).await,
        8..11 => {
            // Now and then for longer than a writer waits.
            let limit_ms = if entropy.below(4) == 0 { 12_000 } else { 3_000 };
            faults.hit(node);
            cluster.datanodes[node].pause();
            tokio::time::sleep(moment(limit_ms)).await;
            faults.hit(node);
            cluster.datanodes[node].resume();
        }
        11 => {
            cluster.namenode.pause();
            tokio::time::sleep(moment(3_000)).await;
            cluster.namenode.resume();
        }
        12 => {
            faults.hit(node);
            cluster.datanodes[node].kill().await;
            cluster.restart_namenode().await;
            cluster.revive_datanode(node).await;
            faults.hit(node);
        }
        _ => cluster.restart_namenode().await,
    }
    faults.learn_ports(cluster);
}

async fn kill_datanodes(cluster: &mut Cluster, faults: &Faults, nodes: &[usize], pause: Duration) {
    for node in nodes {
        faults.hit(*node);
        cluster.datanodes[*node].kill().await;
    }
    tokio::time::sleep(pause).await;
    for node in nodes {
        cluster.revive_datanode(*node).await;
        faults.hit(*node);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flushed_record_is_lost_and_no_link_is_a_hole() {
    let kills = crate::kills::from_environment("MOBULA_LINK_FAULTS").unwrap_or(FAULTS);
    let seed = crate::kills::from_environment("MOBULA_SEED").unwrap_or_else(|| Entropy::from_system().u64());
    println!("MOBULA_LINK_FAULTS={kills} MOBULA_SEED={seed}");
    let entropy = Entropy::seeded(seed);
    let mut cluster = Cluster::start(DATANODES, &["--min-block-size", "0"]).await;
    let (stop, faults) = (Arc::new(AtomicBool::new(false)), Arc::new(Faults::default()));
    faults.learn_ports(&cluster);
    let counts: Vec<Arc<AtomicUsize>> = (0..WRITERS_OURS + WRITERS_NATIVE).map(|_| Arc::default()).collect();
    let writers: Vec<_> = (0..WRITERS_OURS + WRITERS_NATIVE)
        .map(|number| {
            let address = cluster.address.clone();
            let source =
                if number < WRITERS_OURS { Source::ours(&address) } else { Source::native(&address) };
            let writer = Writer {
                number,
                source,
                address,
                entropy: Entropy::seeded(entropy.u64()),
                journal: Journal::default(),
                faults: Arc::clone(&faults),
                stop: Arc::clone(&stop),
                pipeline: BTreeSet::new(),
                flushed_at: Instant::now(),
                count: Arc::clone(&counts[number as usize]),
            };
            tokio::spawn(writer.run())
        })
        .collect();
    for _ in 0..kills {
        // Not to wait for something: the moment of the fault is what is drawn.
        tokio::time::sleep(Duration::from_millis(entropy.below(500))).await;
        fault(&mut cluster, &entropy, &faults).await;
    }
    // One of hdfs-native's may wait for a node that hung until its time is up, and goes on then.
    let few = || counts.iter().any(|count| count.load(Ordering::Relaxed) <= kills as usize);
    let until = Instant::now() + 3 * OURS_LIMIT;
    while few() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let client = ours(&cluster.address);
    for (number, writer) in writers.into_iter().enumerate() {
        let journal = timeout(2 * OURS_LIMIT, writer).await.expect("writers end").unwrap();
        // One of hdfs-native's may wait for a node that hangs until its time is up.
        let (who, enough) = match (number as u32) < WRITERS_OURS {
            true => ("ours", kills as usize),
            false => ("hdfs-native", 1),
        };
        println!(
            "writer {number} ({who}): {} records flushed, {} files, failures {:?}",
            journal.flushed.len(),
            journal.files,
            journal.failures
        );
        verify(&cluster, &client, number as u32, &journal).await;
        assert!(journal.flushed.len() > enough, "the load was too small to tell");
    }
}

async fn verify(cluster: &Cluster, client: &Client, writer: u32, journal: &Journal) {
    let mut found = BTreeMap::new();
    for file in 0..journal.files {
        let path = path(writer, file);
        if client.status(&path).await.unwrap().is_none() {
            continue;
        }
        close_by_recovery(cluster, client, &path).await;
        let data = client.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        if let Some(length) = journal.closed.get(&file) {
            assert_eq!(data.len() as u64, *length, "{path} was closed with another length");
        }
        let mut at = 0;
        while let Some(record) = Record::parse(&data[at..]) {
            found.insert(Place { file, at: at as u64 }, record);
            at += record.length as usize;
        }
        let is_closed = journal.closed.contains_key(&file);
        assert!(!is_closed || at == data.len(), "{path} is damaged at {at} of {} bytes", data.len());
    }
    for (place, number) in &journal.flushed {
        let record = found.get(place).unwrap_or_else(|| {
            panic!("writer {writer}: flushed record {number} at {place:?} is gone or damaged")
        });
        assert_eq!((record.writer, record.number), (writer, *number), "at {place:?}");
    }
    for (place, record) in &found {
        if let Some(before) = record.before {
            assert!(found.contains_key(&before), "the record at {place:?} points to a hole at {before:?}");
        }
    }
}

/// Takes the file from a writer that is gone, and waits until its last block is whole.
async fn close_by_recovery(cluster: &Cluster, client: &Client, path: &str) {
    let recovered = async {
        while !client.is_closed(path).await.unwrap() && !client.recover_lease(path).await.unwrap() {
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    };
    if timeout(RECOVERY_LIMIT, recovered).await.is_err() {
        let request = mobula_proto::hdfs::GetBlockLocationsRequestProto {
            src: path.into(),
            offset: 0,
            length: 1 << 40,
        };
        let located = client.namenode().get_block_locations(request).await.unwrap().locations.unwrap();
        let block = located.last_block.expect("it is open for one");
        let name = format!("blk_{}", block.b.block_id);
        for log in ["nn", "dn0", "dn1", "dn2", "dn3"] {
            let text = std::fs::read_to_string(cluster.log(log)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(&name)).collect();
            println!("{log}:\n{}", lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n"));
        }
        panic!("{path} is not closed by recovery of {block:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_file_is_closed_by_the_hard_limit_with_all_that_was_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mobula.toml");
    std::fs::write(&config, "[namenode]\nlease_soft_limit = \"1s\"\nlease_hard_limit = \"3s\"\n").unwrap();
    let more = ["--min-block-size", "0", "--config", config.to_str().unwrap()];
    let mut cluster = Cluster::start(DATANODES, &more).await;
    let client = ours(&cluster.address);
    // Within the first block, and within the second.
    for (nth, flushed) in [1_000, BLOCK as usize + 700].into_iter().enumerate() {
        let (path, data) = (format!("/abandoned/{nth}"), Bytes::from(vec![nth as u8 + 1; flushed]));
        let mut writer = client.create(&path, CreateOptions::default()).await.unwrap();
        writer.write(data.clone()).await.unwrap();
        writer.hflush().await.unwrap();
        // Dropped: nobody renews its lease any more.
        drop(writer);
        cluster.restart_namenode().await;
        let closed = async {
            while !client.is_closed(&path).await.unwrap() {
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        };
        timeout(RECOVERY_LIMIT, closed).await.expect("it is closed");
        assert_eq!(client.status(&path).await.unwrap().unwrap().length, flushed as u64);
        assert!(client.get(&path).await.unwrap() == data, "{path} has other bytes");
    }
}
