//! Every pair of the messages of a small piece of work is broken off once (CASES: Hadoop's best idea).
//!
//! The messages of a clean run are counted, by kind: RPCs and their answers, and those of data transfer.
//! Then the work is done again for each pair of them; where one of the two begins, its connection breaks.
//! So a request is lost, or an answer to one that was carried out. What was acknowledged must be there.

use std::fmt;
use std::time::Duration;

use mobula_client::CreateOptions;
use mobula_net::Env;

use crate::messages::Message;
use crate::oracle::{FileState, Possible};
use crate::shared::Shared;
use crate::workload::{Slot, bounded};
use crate::writer::Session;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Two blocks, with a flush in the first and a sync in the second, closed.
    Write,
    /// The same file is gone on with, in its last block.
    Append,
    /// A writer has died, and another client takes its file.
    Recovery,
    /// A file is renamed over another one, cut inside its block, joined with a third, and deleted.
    Names,
    /// A small file over another one, by wishes.
    Small,
}

impl Piece {
    /// All of them.
    pub const ALL: [Piece; 5] = [Piece::Write, Piece::Append, Piece::Recovery, Piece::Names, Piece::Small];
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

/// Every pair, and every single message, of those that a clean run had.
pub fn pairs(seen: &[Message]) -> Vec<Vec<Message>> {
    let mut all = Vec::new();
    for (at, one) in seen.iter().enumerate() {
        all.push(vec![one.clone()]);
        all.extend(seen[at + 1..].iter().map(|other| vec![one.clone(), other.clone()]));
    }
    all
}

const PATH: &str = "/p/file";
const OTHER: &str = "/p/other";
const THIRD: &str = "/p/third";
/// The cluster is up within this time, and prepared.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A client asks for a dead one's file so often.
const ASKED_MAX: u32 = 60;
const ASKED_PAUSE: Duration = Duration::from_millis(300);

/// What the work changes must be there before it begins.
pub(crate) async fn prepare(piece: Piece, env: &Env, namenode: &str, shared: &Shared, nodes: usize) -> Slot {
    let ready = async {
        let live = || shared.service().map_or(0, |service| service.fleet_stats().nodes_live);
        while live() < nodes {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let slot = Slot::new(env, namenode, shared, 0);
        match piece {
            Piece::Write => {}
            Piece::Append | Piece::Small => put(&slot, PATH, 3_000).await,
            Piece::Recovery => {
                // Dropped: its lease is renewed no more.
                let session = begin(&slot, PATH, 11).await;
                if let Some((session, mut writer)) = session {
                    session.write(&mut writer, 3_000).await;
                    session.hflush(&mut writer).await;
                    session.write(&mut writer, 300).await;
                }
            }
            Piece::Names => {
                put(&slot, PATH, 3_000).await;
                put(&slot, OTHER, 2_000).await;
                put(&slot, THIRD, 1_000).await;
            }
        }
        slot
    };
    match tokio::time::timeout(READY_LIMIT, ready).await {
        Ok(slot) => slot,
        Err(_) => {
            shared.fail("the cluster does not get ready".into());
            Slot::new(env, namenode, shared, 0)
        }
    }
}

async fn put(slot: &Slot, path: &str, length: u64) {
    if let Some((session, mut writer)) = begin(slot, path, length).await {
        session.write(&mut writer, length).await;
        session.close(writer).await;
    }
}

async fn begin<'a>(
    slot: &'a Slot,
    path: &'a str,
    seed: u64,
) -> Option<(Session<'a>, mobula_client::FileWriter)> {
    let oracle = || slot.shared.oracle();
    oracle().begin(path);
    let made = bounded(slot.client.create(path, CreateOptions::default())).await;
    let empty = Possible::File(FileState::default());
    let possible = if made.is_ok() { vec![empty] } else { vec![empty, Possible::Absent] };
    oracle().set(path, possible);
    slot.answered(&format!("create {path}"), &made);
    let session = Session { shared: &slot.shared, entropy: &slot.entropy, path, seed };
    Some((session, made.ok()?))
}

/// Does the work, as far as it goes; answers whether all of it was acknowledged.
pub(crate) async fn act(piece: Piece, slot: &mut Slot) -> bool {
    match piece {
        Piece::Write => match begin(slot, PATH, 7).await {
            Some((session, mut writer)) => {
                session.write(&mut writer, 3_000).await
                    && session.hflush(&mut writer).await
                    && session.write(&mut writer, 24_000).await
                    && session.hsync(&mut writer).await
                    && session.write(&mut writer, 500).await
                    && session.close(writer).await
            }
            None => false,
        },
        Piece::Append => append(slot).await,
        Piece::Recovery => {
            let mut closed = false;
            for _ in 0..ASKED_MAX {
                closed = bounded(slot.client.recover_lease(PATH)).await.is_ok_and(|closed| closed);
                if closed {
                    break;
                }
                tokio::time::sleep(ASKED_PAUSE).await;
            }
            closed && append(slot).await
        }
        Piece::Names => {
            slot.rename_to(PATH, OTHER, true).await;
            slot.truncate_to(OTHER, 1_700).await;
            slot.concat_to(OTHER, THIRD).await;
            slot.delete(OTHER).await;
            slot.shared.oracle().counts().1 == 0
        }
        Piece::Small => slot.small(OTHER, PATH, true).await,
    }
}

async fn append(slot: &Slot) -> bool {
    let Some(mut writer) = slot.append(PATH).await else { return false };
    let session = Session { shared: &slot.shared, entropy: &slot.entropy, path: PATH, seed: 13 };
    session.write(&mut writer, 700).await
        && session.hflush(&mut writer).await
        && session.write(&mut writer, 100).await
        && session.close(writer).await
}
