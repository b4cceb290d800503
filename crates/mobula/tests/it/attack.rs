//! Bytes that nobody should send, to the ports of real processes: the one connection gets an answer
//! or is closed, memory stays bounded, and a client next to it notices nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mobula_client::{Client, ClientOptions, CreateOptions, ReplaceDatanode};
use mobula_net::{Entropy, Env};

use crate::servers::Cluster;

/// A connection that is neither answered nor closed by then hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// What all of this may add to a server's memory.
const GROWTH_KB_MAX: u64 = 96 << 10;
/// Idle connections held to each port.
const IDLE: usize = 1_500;

/// A header with which a client opens a connection, SIMPLE.
const PREAMBLE: &[u8] = b"hrpc\x09\x00\x00";

fn client(address: &str) -> Client {
    Client::new(
        Env::real(),
        ClientOptions {
            namenodes: vec![address.into()],
            user: mobula::config::user_name(),
            replication: Some(2),
            block_size: Some(64 << 10),
            umask: 0o022,
            call_limit: Duration::from_secs(20),
            replace_datanode: ReplaceDatanode::default(),
            favored_nodes: Vec::new(),
        },
    )
}

/// Everything that is sent to a port, by name.
fn attacks(entropy: &Entropy) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = vec![
        ("an HTTP request".into(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("wrong magic".into(), b"hrpX\x09\x00\x00".to_vec()),
        ("an old version".into(), b"hrpc\x04\x00\x00".to_vec()),
        ("an unknown authentication".into(), b"hrpc\x09\x00\x55".to_vec()),
        ("a length of 2 GiB".into(), [PREAMBLE, &0x7fff_ffff_u32.to_be_bytes()].concat()),
        ("a negative length".into(), [PREAMBLE, &u32::MAX.to_be_bytes()].concat()),
        ("an endless varint".into(), [PREAMBLE, &64_u32.to_be_bytes(), &[0xff; 64]].concat()),
        ("a frame of zeros".into(), [PREAMBLE, &1_000_u32.to_be_bytes(), &[0; 1_000]].concat()),
        ("data transfer of another version".into(), vec![0, 27, 80, 0]),
        ("an unknown operation".into(), vec![0, 28, 127, 0]),
        ("an operation of 4 GiB".into(), vec![0, 28, 81, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("an operation without a body".into(), vec![0, 28, 80, 0]),
    ];
    for op in [80, 81, 83, 84, 85, 86, 87, 88, 89, 90] {
        let mut junk = vec![0, 28, op, 100];
        junk.extend((0..100).map(|_| entropy.u64() as u8));
        all.push((format!("operation {op} with noise for a body"), junk));
    }
    for round in 0..40 {
        let length = 1 + entropy.below(4_000) as usize;
        let noise: Vec<u8> = (0..length).map(|_| entropy.u64() as u8).collect();
        let bytes = if round % 2 == 0 { noise } else { [PREAMBLE, &noise].concat() };
        all.push((format!("{length} random bytes"), bytes));
    }
    all
}

/// Sends, ends the sending side, and reads until the server closes; it must, within the limit.
fn strike(address: &str, what: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    // The server may have seen enough and hung up before all was sent.
    let _refused = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut sink = [0; 4_096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{address}: {what}: neither answered nor closed: {error}"),
        }
    }
}

fn memory_kb(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server is alive");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes, reads and removes a file, as anybody would.
async fn use_it(client: &Client, round: usize) {
    let path = format!("/good/{round}");
    let data = Bytes::from(vec![round as u8; 100_000]);
    client.put(&path, data.clone(), CreateOptions::default()).await.unwrap();
    assert_eq!(client.get(&path).await.unwrap(), data);
}

async fn cluster() -> Cluster {
    Cluster::start(2, &["--min-block-size", "0"]).await
}

fn assert_unharmed(cluster: &Cluster, before: &[u64]) {
    let pids = pids(cluster);
    for (pid, before) in pids.iter().zip(before) {
        let now = memory_kb(*pid);
        assert!(now < before + GROWTH_KB_MAX, "process {pid} grew from {before} to {now} KiB");
    }
    for name in ["nn", "dn0", "dn1"] {
        let log = std::fs::read_to_string(cluster.log(name)).unwrap();
        assert!(!log.contains("panicked"), "{name}:\n{log}");
    }
}

fn pids(cluster: &Cluster) -> Vec<i32> {
    std::iter::once(cluster.namenode.pid()).chain(cluster.datanodes.iter().map(|node| node.pid())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_every_port() {
    let seed = std::env::var("MOBULA_SEED")
        .map_or_else(|_| Entropy::from_system().u64(), |seed| seed.parse().unwrap());
    println!("MOBULA_SEED={seed}");
    let entropy = Entropy::seeded(seed);
    let cluster = cluster().await;
    let client = client(&cluster.address);
    use_it(&client, 0).await;
    let before: Vec<u64> = pids(&cluster).into_iter().map(memory_kb).collect();
    let data_port = cluster.datanodes[0].ready()[0].to_string();
    for (round, (what, bytes)) in attacks(&entropy).into_iter().enumerate() {
        for address in [&cluster.address, &data_port] {
            strike(address, &what, &bytes);
        }
        if round % 16 == 0 {
            use_it(&client, 1 + round).await;
        }
    }
    use_it(&client, 1_000).await;
    assert_unharmed(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowds_of_idle_connections() {
    let cluster = cluster().await;
    let client = client(&cluster.address);
    use_it(&client, 0).await;
    let before: Vec<u64> = pids(&cluster).into_iter().map(memory_kb).collect();
    let data_port = cluster.datanodes[0].ready()[0].to_string();
    let mut crowd = Vec::new();
    for address in [&cluster.address, &data_port] {
        for at in 0..IDLE {
            let mut stream = TcpStream::connect(address).unwrap();
            if at % 2 == 0 {
                // Half of them begin something, and never end it.
                stream.write_all(&PREAMBLE[..4]).unwrap();
            }
            crowd.push(stream);
        }
    }
    let begin = Instant::now();
    use_it(&client, 1).await;
    assert!(begin.elapsed() < ANSWER_LIMIT, "the client next to the crowd waited for {:?}", begin.elapsed());
    assert_unharmed(&cluster, &before);
    drop(crowd);
    use_it(&client, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_none() {
    use mobula_proto::hdfs;
    let cluster = cluster().await;
    let client = client(&cluster.address);
    let mkdirs = |path: String| {
        let client = client.clone();
        async move {
            let request = hdfs::MkdirsRequestProto {
                src: path,
                masked: hdfs::FsPermissionProto { perm: 0o755 },
                create_parent: true,
                unmasked: None,
            };
            client.namenode().mkdirs(request).await.map(|answer| answer.result)
        }
    };
    for bad in ["", "relative", "/a/../b", "/a/./b", "/a:b", "//a", "/a//b", "/.reserved/x", "/.snapshot"] {
        assert!(mkdirs(bad.into()).await.is_err(), "{bad:?} was made");
    }
    for bad in [format!("/{}", "n".repeat(256)), "/d".repeat(10_000), format!("/{}", "x".repeat(9_000))] {
        assert!(mkdirs(bad.clone()).await.is_err(), "a path of {} bytes was made", bad.len());
    }
    assert!(mkdirs("/a/b//".into()).await.unwrap());
    assert!(mkdirs("/control\u{1}\n\u{7f}".into()).await.unwrap(), "HDFS takes control characters");
    assert!(client.status("/a/b").await.unwrap().is_some());
    assert!(mkdirs(format!("/{}", "n".repeat(255))).await.unwrap());
    use_it(&client, 0).await;
}
