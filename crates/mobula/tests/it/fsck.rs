//! `fsck` over the NameNode's HTTP port: HDFS's lines, its last line, and who may ask for what.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use mobula::Cluster;
use mobula::command::namenode::serve_http;
use mobula::http::OwnNames;
use mobula::http::client;
use mobula_client::CreateOptions;
use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_types::Millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::servers::said;

const BLOCK: u64 = 4_096;
/// Longest wait for something that a busy machine delays.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

struct Checked {
    cluster: Cluster,
    http: String,
}

impl Checked {
    /// A cluster in which nodes die fast, and its HTTP port.
    async fn start(datanodes: usize) -> Checked {
        let cluster = Cluster::with(|c| {
            c.datanodes = datanodes;
            c.namenode.defaults.block_size = BLOCK;
            c.namenode.fleet.suspect_ms = Millis(1_000);
            c.namenode.fleet.dead_ms = Millis(2_000);
            // Any read of a file would show in its access time.
            c.namenode.rules.access_time_precision = Millis(1);
            // Directories take several pages.
            c.namenode.listing_max = 7;
        });
        let cluster = cluster.await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let http = serve_http(&Env::real(), cluster.namenode().unwrap(), Some(address), OwnNames::default())
            .await
            .unwrap();
        Checked { cluster, http: http.unwrap().to_string() }
    }

    async fn put(&self, path: &str, length: usize, replication: u16) {
        let data = Bytes::from(vec![7; length]);
        let options = CreateOptions { replication: Some(replication), ..CreateOptions::default() };
        self.cluster.client().put(path, data, options).await.unwrap();
    }

    /// The lines of `/fsck?QUERY` for the cluster's user.
    async fn fsck(&self, query: &str) -> Vec<String> {
        self.fsck_as(&mobula::config::user_name(), query).await
    }

    async fn fsck_as(&self, user: &str, query: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let target = format!("/fsck?ugi={user}&{query}");
        let take = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        client::lines(&Env::real(), &self.http, &target, take).await.unwrap();
        lines
    }

    /// Asks until a line has these words.
    async fn fsck_until(&self, query: &str, words: &str) -> Vec<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let lines = self.fsck(query).await;
            if lines.iter().any(|line| line.contains(words)) {
                return lines;
            }
            assert!(Instant::now() < deadline, "no '{words}' in\n{}", lines.join("\n"));
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn admin(&self, args: &[&str]) -> (String, String, i32) {
        let uri = self.cluster.uri();
        said(&[&["admin", "--fs", &uri, "fsck", "--http", &self.http], args].concat()).await
    }

    async fn located(&self, path: &str) -> hdfs::LocatedBlocksProto {
        let request = hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: 1 << 40 };
        self.cluster.client().namenode().get_block_locations(request).await.unwrap().locations.unwrap()
    }

    async fn set_mode(&self, path: &str, mode: u32) {
        let request = hdfs::SetPermissionRequestProto {
            src: path.into(),
            permission: hdfs::FsPermissionProto { perm: mode },
        };
        self.cluster.client().namenode().set_permission(request).await.unwrap();
    }

    /// Changes a byte of every replica of a block, and has a reader find out.
    async fn corrupt(&self, path: &str) {
        let block = self.located(path).await.blocks[0].b.block_id;
        let files = found(self.cluster.folder(), &format!("blk_{block}"));
        assert!(!files.is_empty());
        for file in files {
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        }
        assert!(self.cluster.client().get(path).await.is_err());
    }
}

fn found(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(found(&entry.path(), name));
        } else if entry.file_name() == name {
            files.push(entry.path());
        }
    }
    files
}

/// Times do not count.
fn without_times(lines: &[String]) -> Vec<&str> {
    let timeless = |line: &String| !line.starts_with("FSCK started by") && !line.starts_with("FSCK ended at");
    lines.iter().filter(|line| timeless(line)).map(String::as_str).collect()
}

#[track_caller]
fn has(lines: &[String], wanted: &str) {
    assert!(lines.iter().any(|line| line == wanted), "no line '{wanted}' in\n{}", lines.join("\n"));
}

fn last(lines: &[String]) -> &str {
    lines.last().map_or("", String::as_str)
}

const HEALTHY: &str = "\
Status: HEALTHY
 Number of data-nodes:\t3
 Number of racks:\t\t1
 Total dirs:\t\t\t2
 Total symlinks:\t\t0

Replicated Blocks:
 Total size:\t5000 B
 Total files:\t2
 Total blocks (validated):\t2 (avg. block size 2500 B)
 Minimally replicated blocks:\t2 (100.0 %)
 Over-replicated blocks:\t0 (0.0 %)
 Under-replicated blocks:\t0 (0.0 %)
 Mis-replicated blocks:\t\t0 (0.0 %)
 Default replication factor:\t3
 Average block replication:\t2.0
 Missing blocks:\t\t0
 Corrupt blocks:\t\t0
 Missing replicas:\t\t0 (0.0 %)
 Blocks queued for replication:\t0

Erasure Coded Block Groups:
 Total size:\t0 B
 Total files:\t0
 Total block groups (validated):\t0
 Minimally erasure-coded block groups:\t0
 Over-erasure-coded block groups:\t0
 Under-erasure-coded block groups:\t0
 Unsatisfactory placement block groups:\t0
 Average block group size:\t0.0
 Missing block groups:\t\t0
 Corrupt block groups:\t\t0
 Missing internal blocks:\t0
 Blocks queued for replication:\t0


The filesystem under path '/' is HEALTHY";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_tree_in_hdfs_lines() {
    let c = Checked::start(3).await;
    c.put("/d/a", 5_000, 2).await;
    c.put("/d/empty", 0, 3).await;
    let read = c.cluster.client().status("/d/a").await.unwrap().unwrap().access_time;
    let lines = c.fsck_until("path=%2F", "Average block replication:\t2.0").await;
    assert_eq!(without_times(&lines).join("\n"), format!("\n\n{HEALTHY}"));
    assert!(lines[0].contains("(auth:SIMPLE) from /127.0.0.1 for path / at "), "{}", lines[0]);
    assert_eq!(c.cluster.client().status("/d/a").await.unwrap().unwrap().access_time, read, "nobody read it");

    let lines = c.fsck("path=/d&files=1&blocks=1&locations=1&replicadetails=1").await;
    has(&lines, "/d <dir>");
    has(&lines, "/d/a 5000 bytes, replicated: replication=2, 2 block(s):  OK");
    has(&lines, "/d/empty 0 bytes, replicated: replication=3, 0 block(s):  OK");
    let block = &c.located("/d/a").await.blocks[1].b;
    let name = format!(
        "1. {}:blk_{}_{} len=904 Live_repl=2  [Datanode",
        block.pool_id, block.block_id, block.generation_stamp
    );
    let line =
        lines.iter().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{}", lines.join("\n")));
    assert_eq!(line.matches(",DISK](LIVE)").count(), 2, "{line}");
    assert!(line.ends_with(']') && line.contains("DatanodeInfoWithStorage[127.0.0.1:"), "{line}");

    let lines = c.fsck("path=/d/a&files=1&blocks=1&racks=1&storagepolicies=1").await;
    assert!(lines.iter().any(|line| line.contains("  [/default-rack/127.0.0.1:")), "{}", lines.join("\n"));
    has(&lines, "DISK:2(HOT)                        2             100.0000%");
    has(&lines, "All blocks satisfy specified storage policy.");
    let (out, error, code) = c.admin(&["/", "-files"]).await;
    assert!(out.ends_with("The filesystem under path '/' is HEALTHY\n") && out.contains("/d <dir>"), "{out}");
    assert_eq!((error.as_str(), code), ("", 0));
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_of_many_pages_and_who_may_look_into_them() {
    let c = Checked::start(1).await;
    for name in 0..40 {
        c.put(&format!("/wide/{}/{name:02}", name % 3), 0, 1).await;
    }
    c.put("/wide/secret/file", 1, 1).await;
    let lines = c.fsck("path=/wide&files=1").await;
    has(&lines, " Total files:\t41");
    has(&lines, " Total dirs:\t\t\t5");
    let names = lines.iter().filter(|line| line.starts_with("/wide/1/") && line.ends_with("OK"));
    let names: Vec<&str> = names.map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names.len(), 13);
    assert!(names.is_sorted());

    assert_eq!(
        last(&c.fsck_as("stranger", "path=/wide").await),
        "The filesystem under path '/wide' is HEALTHY"
    );
    c.set_mode("/wide/secret/file", 0o600).await;
    let lines = c.fsck_as("stranger", "path=/wide").await;
    assert_eq!(last(&lines), "Fsck on path '/wide' FAILED");
    let denied = "Permission denied: user=stranger, access=READ, inode=\"/wide/secret/file\":";
    assert!(lines.iter().any(|line| line.starts_with(denied)), "{}", lines.join("\n"));
    c.set_mode("/wide/secret", 0o700).await;
    let lines = c.fsck_as("stranger", "path=/wide").await;
    let denied = "Permission denied: user=stranger, access=READ_EXECUTE, inode=\"/wide/secret\":";
    assert!(lines.iter().any(|line| line.starts_with(denied)), "{}", lines.join("\n"));
    assert_eq!(
        last(&c.fsck_as("stranger", "path=/wide/1").await),
        "The filesystem under path '/wide/1' is HEALTHY"
    );
    // The user.name goes before the ugi; who gives neither is a stranger, too.
    assert_eq!(last(&c.fsck("user.name=stranger&path=/wide").await), "Fsck on path '/wide' FAILED");
    assert_eq!(last(&c.fsck_as("", "path=/wide").await), "Fsck on path '/wide' FAILED");

    for query in ["listcorruptfileblocks=1&path=/", "blockId=blk_1073741825"] {
        let lines = c.fsck_as("stranger", query).await;
        let denied = "Access denied for user stranger. Superuser privilege is required";
        assert!(lines.iter().any(|line| line.starts_with(denied)), "{query}: {}", lines.join("\n"));
        assert_eq!(last(&lines), "Fsck on path '/' FAILED", "{query}");
    }
    assert_eq!(last(&c.fsck("path=/none").await), "Path '/none' does not exist");
    assert_eq!(last(&c.fsck("path=relative").await), "Fsck on path 'relative' FAILED");
    assert_eq!(c.admin(&["/none"]).await.2, 0, "as in HDFS");
    assert_eq!(c.admin(&["relative"]).await.2, 255);
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_and_under_replicated_blocks() {
    let mut c = Checked::start(2).await;
    c.put("/one", 10, 1).await;
    c.put("/three", 10, 3).await;
    let block = c.located("/one").await.blocks[0].clone();
    let name = format!("blk_{}", block.b.block_id);
    let lines = c.fsck_until("path=/three", "but found 2 live replica(s)").await;
    let three = &c.located("/three").await.blocks[0].b;
    let three = format!("{}:blk_{}_{}", three.pool_id, three.block_id, three.generation_stamp);
    has(
        &lines,
        &format!(
            "/three:  Under replicated {three}. Target Replicas is 3 but found 2 live replica(s), \
             0 decommissioned replica(s), 0 decommissioning replica(s)."
        ),
    );
    has(&lines, " Under-replicated blocks:\t1 (100.0 %)");
    has(&lines, " Missing replicas:\t\t1 (33.333332 %)");
    assert_eq!(last(&lines), "The filesystem under path '/three' is HEALTHY");
    assert_eq!(last(&c.fsck("listcorruptfileblocks=1&path=/").await), "");

    let port = block.locs[0].id.xfer_port;
    let at =
        (0..2).find(|at| u32::from(c.cluster.datanode(*at).unwrap().xfer_addr().port()) == port).unwrap();
    c.cluster.kill_datanode(at);
    let lines = c.fsck_until("path=/one&files=1&blocks=1", "MISSING!").await;
    has(&lines, "/one 10 bytes, replicated: replication=1, 1 block(s):  MISSING 1 blocks of total size 10 B");
    has(&lines, &format!("0. {}:{name}_{} len=10 MISSING!", block.b.pool_id, block.b.generation_stamp));
    has(&lines, "  CORRUPT FILES:\t1");
    has(&lines, "  MISSING SIZE:\t\t10 B");
    has(&lines, "  UNDER MIN REPL'D BLOCKS:\t1 (100.0 %)");
    assert_eq!(last(&lines), "The filesystem under path '/one' is CORRUPT");
    has(&c.fsck("path=/").await, "/one: MISSING 1 blocks of total size 10 B.");

    let lines = c.fsck_until("listcorruptfileblocks=1&path=/", &name).await;
    has(&lines, "Cookie:\t1");
    has(&lines, &format!("{name}\t1\t/one"));
    has(&lines, "The filesystem under path '/' has 1 CORRUPT files");
    let lines = c.fsck("listcorruptfileblocks=1&path=/&startblockafter=1").await;
    has(&lines, "The filesystem under path '/' has no more CORRUPT files");
    let (out, _, code) = c.admin(&["-list-corruptfileblocks"]).await;
    assert_eq!(
        out,
        format!(
            "The list of corrupt blocks under path '/' are:\n{name}\t1\t/one\nThe filesystem under path '/' has 1 CORRUPT blocks\n"
        )
    );
    assert_eq!(code, 255);
    assert_eq!(c.admin(&["/"]).await.2, 1);

    // The node may come back: nothing is deleted for its absence.
    let lines = c.fsck("path=/&delete=1").await;
    assert!(lines.iter().any(|line| line.starts_with("/one: NOT deleted, ")), "{}", lines.join("\n"));
    assert_eq!(last(&lines), "Fsck on path '/' FAILED");
    c.cluster.restart_datanode(at).await.unwrap();
    c.fsck_until("path=/one", "is HEALTHY").await;
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_files_are_told_of_and_not_deleted() {
    let c = Checked::start(2).await;
    c.put("/d/bad", 10, 2).await;
    c.put("/d/good", 10, 1).await;
    c.corrupt("/d/bad").await;
    let lines = c.fsck_until("path=/d&files=1&blocks=1&locations=1&replicadetails=1", "is CORRUPT").await;
    let block = c.located("/d/bad").await.blocks[0].b.clone();
    has(&lines, &format!("/d/bad: CORRUPT blockpool {} block blk_{}", block.pool_id, block.block_id));
    has(&lines, " CORRUPT 1 blocks of total size 10 B");
    has(&lines, "  CORRUPT BLOCKS: \t1");
    assert!(
        lines.iter().any(|line| line.contains("Live_repl=0  [") && line.contains("(CORRUPT)")),
        "{}",
        lines.join("\n")
    );
    let id = format!("blk_{}", block.block_id);
    let lines = c.fsck(&format!("blockId={id}+")).await;
    has(&lines, &format!("Block Id: {id}"));
    has(&lines, "Block belongs to: /d/bad");
    has(&lines, "No. of Expected Replica: 2");
    has(&lines, "No. of live Replica: 0");
    assert!(
        last(&lines).ends_with("/default-rack is CORRUPT\t ReasonCode: CORRUPTION_REPORTED"),
        "{}",
        last(&lines)
    );

    let lines = c.fsck("path=/&move=1&delete=1").await;
    assert_eq!(last(&lines), "Fsck on path '/' FAILED");
    assert!(lines.iter().any(|line| line.starts_with("fsck -move is not supported")), "{}", lines.join("\n"));
    let lines = c.fsck("path=/&delete=1").await;
    assert!(lines.iter().any(|line| line.starts_with("/d/bad: NOT deleted, ")), "{}", lines.join("\n"));
    assert_eq!(last(&lines), "Fsck on path '/' FAILED");
    assert!(c.cluster.client().status("/d/bad").await.unwrap().is_some());
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_files_and_single_blocks() {
    let c = Checked::start(3).await;
    let client = c.cluster.client();
    let options = CreateOptions { replication: Some(2), block_size: Some(BLOCK), ..CreateOptions::default() };
    let mut writer = client.create("/open", options).await.unwrap();
    writer.write(Bytes::from(vec![1; 5_000])).await.unwrap();
    writer.hflush().await.unwrap();
    let lines = c.fsck("path=/").await;
    has(&lines, " Total files:\t0 (Files currently being written: 1)");
    assert_eq!(last(&lines), "The filesystem under path '/' is HEALTHY");
    let lines = c.fsck("path=/&files=1&blocks=1&locations=1&openforwrite=1").await;
    let line = lines.iter().find(|line| {
        line.starts_with("/open 4096 bytes, replicated: replication=2, 1 block(s), OPENFORWRITE: ")
    });
    assert!(line.is_some(), "{}", lines.join("\n"));
    has(&lines, "Under Construction Block:");
    let line = lines.iter().find(|line| line.starts_with("1. ")).unwrap();
    assert!(line.contains(" len=0 Expected_repl=2  [DatanodeInfoWithStorage["), "{line}");
    writer.close().await.unwrap();
    let lines = c.fsck_until("path=/open&files=1&openforwrite=1", "2 block(s):  OK").await;
    assert_eq!(last(&lines), "The filesystem under path '/open' is HEALTHY");

    let id = c.located("/open").await.blocks[0].b.block_id;
    let lines = c.fsck(&format!("blockId=blk_{id}%20not_a_block%20blk_99&maintenance=1")).await;
    has(&lines, "No. of live Replica: 2");
    has(&lines, "No. of in maintenance Replica: 0");
    has(&lines, "Incorrect blockId format: not_a_block");
    assert_eq!(last(&lines), "Block blk_99 does not exist");
    let healthy = lines.iter().filter(|line| line.ends_with("/default-rack is HEALTHY")).count();
    assert_eq!(healthy, 2, "{}", lines.join("\n"));
    assert_eq!(c.admin(&["/", "-blockId", "not_a_block"]).await.2, 0);
    c.cluster.shutdown().await;
}

/// Sends bytes and reads until the end.
async fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it ends").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hostile_client_sends() {
    let c = Checked::start(1).await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost:1\r\n\r\n").into_bytes();
    let status = async |bytes: &[u8]| raw(&c.http, bytes).await.lines().next().unwrap_or("").to_owned();
    for (target, wanted) in [
        ("/fsck?path=%", "400 Bad Request"),
        ("/fsck?path=%ff", "400 Bad Request"),
        ("/fs%zzck", "400 Bad Request"),
        ("/fsck?ugi=a&doas=root", "403 Forbidden"),
        ("/fsck/..", "404 Not Found"),
    ] {
        assert_eq!(status(&get(target)).await, format!("HTTP/1.1 {wanted}"), "{target}");
    }
    assert_eq!(status(b"POST /fsck HTTP/1.1\r\n\r\n").await, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status(b"\x16\x03\x01\r\n\r\n").await, "HTTP/1.1 400 Bad Request");
    for foreign in ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Host: evil.example"] {
        let request = format!("GET /fsck?path=/ HTTP/1.1\r\n{foreign}\r\n\r\n");
        assert_eq!(status(request.as_bytes()).await, "HTTP/1.1 403 Forbidden", "{foreign}");
    }
    let long = format!("GET /fsck?path=/{} HTTP/1.1\r\n", "a".repeat(70_000));
    assert_eq!(status(long.as_bytes()).await, "HTTP/1.1 431 Request Header Fields Too Large");
    let long = format!("/fsck?path=/{}", "a".repeat(50_000));
    assert!(raw(&c.http, &get(&long)).await.contains("Pathname too long."));

    // Chunks, as Java reads them.
    let answer = raw(&c.http, &get("/fsck?path=/")).await;
    let (head, mut body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    let mut text = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        text.push_str(&rest[..length]);
        assert_eq!(&rest[length..length + 2], "\r\n");
        body = &rest[length + 2..];
        if length == 0 {
            break;
        }
    }
    assert_eq!(body, "");
    assert!(text.ends_with("is HEALTHY"), "{text}");
    c.cluster.shutdown().await;
}
