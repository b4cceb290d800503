//! kill -9 of every process at random moments under load: no closed file and no acknowledged change
//! of metadata is lost. `MOBULA_KILLS` sets how many (default 20), `MOBULA_SEED` replays a choice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mobula_client::{Client, ClientOptions, CreateOptions, ReplaceDatanode};
use mobula_net::{Entropy, Env};

use crate::servers::Cluster;

const DATANODES: usize = 4;
const WRITERS: u64 = 4;
const BLOCK: u64 = 64 << 10;

/// What was acknowledged: a path's contents, or its absence. What failed is not in it: it may or may
/// not have happened.
type Acknowledged = Arc<Mutex<BTreeMap<String, Option<Bytes>>>>;

pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn client(address: &str) -> Client {
    Client::new(
        Env::real(),
        ClientOptions {
            namenodes: vec![address.into()],
            user: mobula::config::user_name(),
            replication: Some(3),
            block_size: Some(BLOCK),
            umask: 0o022,
            call_limit: Duration::from_secs(20),
            replace_datanode: ReplaceDatanode::default(),
            favored_nodes: Vec::new(),
        },
    )
}

/// Creates, renames, replaces and deletes until it is told to stop; each path is one writer's own.
async fn work(
    writer: u64,
    client: Client,
    entropy: Entropy,
    stop: Arc<AtomicBool>,
    acknowledged: Acknowledged,
) {
    for round in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let path = format!("/kills/w{writer}/f{round}");
        let length = entropy.below(3 * BLOCK) as usize;
        let data = Bytes::from(vec![(round % 251) as u8; length]);
        let options = CreateOptions::default();
        if client.put(&path, data.clone(), options).await.is_err() {
            continue;
        }
        acknowledged.lock().unwrap().insert(path.clone(), Some(data.clone()));
        change(&client, &path, data, entropy.below(4), &acknowledged).await;
    }
}

/// One change of a closed file. Before it is asked for nothing is known of the path any more.
async fn change(client: &Client, path: &str, data: Bytes, which: u64, acknowledged: &Acknowledged) {
    let namenode = client.namenode();
    let forget = || acknowledged.lock().unwrap().remove(path);
    match which {
        0 => {
            let moved = format!("{path}.moved");
            forget();
            let request = mobula_proto::hdfs::Rename2RequestProto {
                src: path.into(),
                dst: moved.clone(),
                overwrite_dest: false,
                move_to_trash: None,
            };
            if namenode.rename2(request).await.is_ok() {
                let mut all = acknowledged.lock().unwrap();
                all.insert(path.into(), None);
                all.insert(moved, Some(data));
            }
        }
        1 => {
            forget();
            let request = mobula_proto::hdfs::DeleteRequestProto { src: path.into(), recursive: false };
            if namenode.delete(request).await.is_ok_and(|answer| answer.result) {
                acknowledged.lock().unwrap().insert(path.into(), None);
            }
        }
        2 => {
            forget();
            let newer = Bytes::from(vec![0xee; data.len() / 2]);
            let options = CreateOptions { overwrite: true, ..CreateOptions::default() };
            if client.put(path, newer.clone(), options).await.is_ok() {
                acknowledged.lock().unwrap().insert(path.into(), Some(newer));
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let kills = from_environment("MOBULA_KILLS").unwrap_or(20);
    let seed = from_environment("MOBULA_SEED").unwrap_or_else(|| Entropy::from_system().u64());
    println!("MOBULA_KILLS={kills} MOBULA_SEED={seed}");
    let entropy = Entropy::seeded(seed);
    let mut cluster = Cluster::start(DATANODES, &["--min-block-size", "0"]).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Acknowledged::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, own) = (client(&cluster.address), Entropy::seeded(entropy.u64()));
            tokio::spawn(work(writer, client, own, Arc::clone(&stop), Arc::clone(&acknowledged)))
        })
        .collect();
    for _ in 0..kills {
        // Not to wait for something: the moment of the kill is what is drawn.
        tokio::time::sleep(Duration::from_millis(entropy.below(300))).await;
        match entropy.below(DATANODES as u64 + 1) as usize {
            DATANODES => cluster.restart_namenode().await,
            datanode => cluster.restart_datanode(datanode).await,
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(180), writer).await.expect("writers end").unwrap();
    }
    let known = acknowledged.lock().unwrap().clone();
    verify(&client(&cluster.address), &known).await;
    println!("{} paths as acknowledged after {kills} kills", known.len());
    assert!(known.len() as u64 > kills, "the load was too small to tell: {} paths", known.len());
}

async fn verify(client: &Client, known: &BTreeMap<String, Option<Bytes>>) {
    for (path, expected) in known {
        let status = client.status(path).await.unwrap();
        match expected {
            None => assert!(status.is_none(), "{path} was deleted or renamed away, and is back"),
            Some(data) => {
                assert!(status.is_some(), "{path} is gone");
                let read = client.get(path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
                assert!(
                    read == *data,
                    "{path} has {} bytes, or others than the {} stored",
                    read.len(),
                    data.len()
                );
            }
        }
    }
}
