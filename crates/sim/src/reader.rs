//! Readers that follow files, open or closed, and hold what they see against the oracle.

use std::time::Duration;

use mobula_client::Client;
use mobula_net::Entropy;
use mobula_proto::hdfs::hdfs_file_status_proto::FileType;

use crate::oracle::Name;
use crate::shared::{Phase, Shared};
use crate::workload::bounded;

/// Longest pause of a reader between two looks, in milliseconds.
const PAUSE_MS: u64 = 250;
/// How often it looks at the same file before it takes another.
const LOOKS: u64 = 4;

/// Reads until the phase of faults is over.
pub(crate) async fn follow(client: &Client, entropy: &Entropy, shared: &Shared) {
    while shared.phase() == Phase::Faults {
        let paths = shared.oracle().readable();
        if !paths.is_empty() {
            // The latest are more interesting.
            let at = paths.len() as u64 - 1 - entropy.below(paths.len() as u64);
            let path = paths[at as usize].clone();
            for _ in 0..1 + entropy.below(LOOKS) {
                look(client, shared, &path).await;
                tokio::time::sleep(Duration::from_millis(entropy.below(PAUSE_MS))).await;
            }
        }
        let paths = shared.oracle().paths();
        if !paths.is_empty() {
            look_at_name(client, shared, &paths[entropy.below(paths.len() as u64) as usize]).await;
        }
        tokio::time::sleep(Duration::from_millis(entropy.below(PAUSE_MS))).await;
    }
}

/// Whoever is answered at all is told what was acknowledged before he asked: also just after a restart.
async fn look_at_name(client: &Client, shared: &Shared, path: &str) {
    let Some(before) = shared.oracle().name(path) else { return };
    let found = match bounded(client.status(path)).await {
        Ok(None) => Name::Absent,
        Ok(Some(status)) if status.file_type() == FileType::IsDir => Name::Directory,
        Ok(Some(_)) => Name::File,
        Err(why) => return shared.trace(&format!("the status of {path} fails: {why}")),
    };
    let seen = shared.oracle().saw_name(path, before, found);
    if let Err(why) = seen {
        shared.fail(format!("{path}: {why}"));
    }
}

/// Whoever opens a file sees all that was promised before; that it cannot be opened is no lie.
async fn look(client: &Client, shared: &Shared, path: &str) {
    let Some(glimpse) = shared.oracle().glimpse(path) else { return };
    let read = async {
        let reader = client.open(path).await?;
        reader.read_at(0, reader.length() as usize).await
    };
    match bounded(read).await {
        Ok(bytes) => {
            shared.trace(&format!("a reader sees {} of {path}", bytes.len()));
            let seen = shared.oracle().saw(path, &glimpse, &bytes);
            if let Err(why) = seen {
                shared.fail(format!("a reader of {path}: {why}"));
            }
        }
        Err(why) => shared.trace(&format!("a reader of {path} fails: {why}")),
    }
}
