//! Clients that write, rename, replace and delete until the faults are over, and then look whether
//! all that was acknowledged is there.

use std::time::Duration;

use bytes::Bytes;
use mobula_client::{Client, ClientError, ClientOptions, CreateOptions, ReplaceDatanode};
use mobula_net::{Entropy, Env};
use mobula_proto::hdfs;

use crate::ledger::{Expected, content};
use crate::shared::{Phase, Shared};

/// Clients at once.
const WRITERS: u64 = 3;
/// Block size of their files.
pub const BLOCK: u64 = 24 << 10;
/// Longest file.
const LENGTH_MAX: u64 = 3 * BLOCK;
/// Longest pause of a client between two rounds, in milliseconds: what counts is how many things are
/// under way when a fault strikes, not how many came before.
const PAUSE_MS: u64 = 150;
/// One call, or one file, may take this long before it counts as failed.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// A whole cluster answers a look at one path within this time.
const LOOK_LIMIT: Duration = Duration::from_secs(120);

fn client(env: &Env, namenode: &str) -> Client {
    Client::new(
        env.clone(),
        ClientOptions {
            namenodes: vec![namenode.into()],
            user: "sim".into(),
            replication: Some(3),
            block_size: Some(BLOCK),
            umask: 0o022,
            call_limit: CALL_LIMIT,
            replace_datanode: ReplaceDatanode::default(),
        },
    )
}

/// Works until the phase of faults is over.
pub async fn work(env: &Env, namenode: &str, shared: &Shared) {
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let entropy = Entropy::seeded(env.entropy.u64());
        let own = Env { entropy: entropy.clone(), ..env.clone() };
        let (client, shared) = (client(&own, namenode), shared.clone());
        writers.push(tokio::spawn(async move {
            for round in 0.. {
                if shared.phase() != Phase::Faults {
                    return;
                }
                one_round(&client, &entropy, &shared, writer, round).await;
                tokio::time::sleep(Duration::from_millis(entropy.below(PAUSE_MS))).await;
            }
        }));
    }
    for writer in writers {
        if let Err(panicked) = writer.await {
            shared.fail(format!("a writer panicked: {panicked}"));
        }
    }
}

/// A new file, and perhaps a change of it. Every path is one writer's own.
async fn one_round(client: &Client, entropy: &Entropy, shared: &Shared, writer: u64, round: u64) {
    let path = format!("/w{writer}/f{round}");
    if !put(client, entropy, shared, &path, false).await {
        // The cluster may be down: no use in asking as fast as we can.
        tokio::time::sleep(Duration::from_millis(100 + entropy.below(400))).await;
        return;
    }
    match entropy.below(6) {
        0 => rename(client, shared, &path).await,
        1 => delete(client, shared, &path).await,
        2 => {
            put(client, entropy, shared, &path, true).await;
        }
        3 => mkdirs(client, shared, &format!("/w{writer}/d{round}/below")).await,
        _ => {}
    }
}

async fn put(client: &Client, entropy: &Entropy, shared: &Shared, path: &str, overwrite: bool) -> bool {
    let (length, seed) = (entropy.below(LENGTH_MAX) as usize, entropy.u64());
    let data = Bytes::from(content(length, seed));
    let options = CreateOptions { overwrite, ..CreateOptions::default() };
    shared.ledger().forget(path);
    let done = bounded(client.put(path, data, options)).await;
    settle(shared, &done, &format!("put {path} {length}"), || {
        shared.ledger().acknowledge(path, Expected::File { length, seed });
    })
}

async fn rename(client: &Client, shared: &Shared, path: &str) {
    let moved = format!("{path}.moved");
    let Some(was) = shared.take(path) else { return };
    let request = hdfs::Rename2RequestProto {
        src: path.into(),
        dst: moved.clone(),
        overwrite_dest: false,
        move_to_trash: None,
    };
    let done = bounded(client.namenode().rename2(request)).await;
    settle(shared, &done, &format!("rename {path}"), || {
        shared.ledger().acknowledge(path, Expected::Absent);
        shared.ledger().acknowledge(&moved, was);
    });
}

async fn delete(client: &Client, shared: &Shared, path: &str) {
    shared.ledger().forget(path);
    let request = hdfs::DeleteRequestProto { src: path.into(), recursive: false };
    let done = match bounded(client.namenode().delete(request)).await {
        Ok(answer) if !answer.result => Err("it was not there".to_string()),
        other => other,
    };
    settle(shared, &done, &format!("delete {path}"), || shared.ledger().acknowledge(path, Expected::Absent));
}

async fn mkdirs(client: &Client, shared: &Shared, path: &str) {
    let request = hdfs::MkdirsRequestProto {
        src: path.into(),
        masked: mobula_proto::hdfs::FsPermissionProto { perm: 0o755 },
        create_parent: true,
        unmasked: None,
    };
    let done = bounded(client.namenode().mkdirs(request)).await;
    settle(shared, &done, &format!("mkdirs {path}"), || {
        shared.ledger().acknowledge(path, Expected::Directory)
    });
}

/// What a call came to; one that takes too long may or may not have been carried out.
async fn bounded<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, String> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

fn settle<T>(shared: &Shared, done: &Result<T, String>, what: &str, acknowledge: impl FnOnce()) -> bool {
    match done {
        Ok(_) => {
            acknowledge();
            shared.trace(what);
        }
        Err(why) => {
            shared.ledger().failure();
            shared.trace(&format!("{what} failed: {why}"));
        }
    }
    done.is_ok()
}

/// Looks at every path of the ledger; reports the first that is not as it was acknowledged.
pub async fn verify(env: &Env, namenode: &str, shared: &Shared, when: &str) {
    let client = client(env, namenode);
    let entries = shared.ledger().entries();
    for (path, expected) in &entries {
        let found = match tokio::time::timeout(LOOK_LIMIT, look(&client, path, *expected)).await {
            Ok(found) => found,
            Err(_) => Err(format!("no answer within {LOOK_LIMIT:?}")),
        };
        if let Err(why) = found {
            shared.fail(format!("{when}: {path} was acknowledged as {expected:?}: {why}"));
            return;
        }
    }
    shared.trace(&format!("{when}: {} paths as acknowledged", entries.len()));
}

async fn look(client: &Client, path: &str, expected: Expected) -> Result<(), String> {
    let text = |error: ClientError| error.to_string();
    let status = client.status(path).await.map_err(text)?;
    match (expected, status) {
        (Expected::Absent, None) => Ok(()),
        (Expected::Absent, Some(_)) => Err("it is back".into()),
        (_, None) => Err("it is gone".into()),
        (Expected::Directory, Some(status)) => {
            let directory = status.file_type() == hdfs::hdfs_file_status_proto::FileType::IsDir;
            directory.then_some(()).ok_or_else(|| "it is no directory".into())
        }
        (Expected::File { length, seed }, Some(_)) => {
            let read = client.get(path).await.map_err(text)?;
            if read == content(length, seed) {
                Ok(())
            } else {
                Err(format!("it has {} bytes, or others", read.len()))
            }
        }
    }
}
