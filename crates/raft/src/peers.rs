//! What voters say to each other, carried by [`Peers`]: votes, entries, and snapshots in pieces.
//! Messages are openraft's, encoded with postcard.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mobula_disk::{DiskRef, FileRef, Open, Pool};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::apply::{Applier, Core};
use crate::face::{Machine, Peers};
use crate::types::{Snapshot, SnapshotData, SnapshotMeta, Types, Vote};

pub(crate) const APPEND: &str = "append";
pub(crate) const VOTE: &str = "vote";
pub(crate) const PRE_VOTE: &str = "preVote";
pub(crate) const TRANSFER: &str = "transferLeader";
pub(crate) const SNAPSHOT: &str = "snapshot";

/// Bytes of a snapshot sent at once.
const PIECE: usize = 1 << 20;

/// A piece of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Piece {
    vote: Vote,
    meta: SnapshotMeta,
    offset: u64,
    #[serde(with = "serde_bytes_of")]
    data: Vec<u8>,
    last: bool,
}

/// The answer to a piece: what openraft answers to the last one, else nothing.
#[derive(Serialize, Deserialize)]
pub(crate) struct Taken {
    vote: Option<Vote>,
}

/// Bytes as such, not as a list of numbers.
mod serde_bytes_of {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let bytes: crate::types::Data<()> = crate::types::Data::deserialize(deserializer)?;
        Ok(bytes.bytes.into())
    }
}

/// Makes the ways to the other voters.
pub(crate) struct Network<M: Machine> {
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) core: Arc<Core<M>>,
    pub(crate) disk: DiskRef,
}

impl<M: Machine> RaftNetworkFactory<Types<M>> for Network<M> {
    type Network = Peer<M>;

    async fn new_client(&mut self, to: u64, node: &BasicNode) -> Peer<M> {
        Peer {
            to,
            address: node.addr.clone(),
            peers: self.peers.clone(),
            core: self.core.clone(),
            disk: self.disk.clone(),
        }
    }
}

/// The way to one voter.
pub(crate) struct Peer<M: Machine> {
    to: u64,
    address: String,
    peers: Arc<dyn Peers>,
    core: Arc<Core<M>>,
    disk: DiskRef,
}

type Rpc<M, T> = Result<T, RPCError<Types<M>>>;

impl<M: Machine> Peer<M> {
    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        request: &impl Serialize,
        limit: Duration,
    ) -> Result<T, String> {
        let request = postcard::to_allocvec(request).map_err(|error| error.to_string())?;
        let sent = self.peers.send(self.to, self.address.clone(), method, request.into());
        match tokio::time::timeout(limit, sent).await {
            Ok(Ok(answer)) => postcard::from_bytes(&answer).map_err(|error| format!("{method}: {error}")),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("{method}: no answer from voter {} within {limit:?}", self.to)),
        }
    }

    async fn rpc<T: DeserializeOwned>(
        &self,
        method: &'static str,
        request: &impl Serialize,
        option: &RPCOption,
    ) -> Rpc<M, T> {
        // An unreachable peer is tried again after a pause.
        let unreachable = |why: String| RPCError::Unreachable(Unreachable::new(&AnyError::error(why)));
        self.call(method, request, option.soft_ttl()).await.map_err(unreachable)
    }

    /// Sends a snapshot of the machine as it is now, which may be newer than what openraft asked for.
    async fn send_snapshot(&self, vote: Vote, limit: Duration) -> Result<Vote, String> {
        let name = format!("snapshot-to-{}.tmp", self.to);
        let (meta, path) = self.core.write_snapshot(name).await.map_err(|error| error.to_string())?;
        let pool = self.disk.pool("raft-snapshot", 1);
        let sent = self.send_pieces(&pool, vote, &meta, &path, limit).await;
        let disk = self.disk.clone();
        pool.run(move || disk.remove_file(&path)).await.map_err(|error| error.to_string())?;
        sent
    }

    async fn send_pieces(
        &self,
        pool: &Pool,
        vote: Vote,
        meta: &SnapshotMeta,
        path: &std::path::Path,
        limit: Duration,
    ) -> Result<Vote, String> {
        let file = self.disk.open(path, Open::Read).map_err(|error| error.to_string())?;
        let mut offset = 0;
        loop {
            let (data, last) = read_piece(pool, &file, offset).await.map_err(|error| error.to_string())?;
            let count = data.len() as u64;
            let piece = Piece { vote, meta: meta.clone(), offset, data, last };
            let taken: Taken = self.call(SNAPSHOT, &piece, limit).await?;
            match taken.vote {
                Some(vote) => return Ok(vote),
                None if last => {
                    return Err("the last piece of a snapshot was taken without a word".to_owned());
                }
                None => offset += count,
            }
        }
    }
}

async fn read_piece(pool: &Pool, file: &FileRef, offset: u64) -> io::Result<(Vec<u8>, bool)> {
    let file = file.clone();
    pool.run(move || {
        let left = file.length()?.saturating_sub(offset);
        let mut data = vec![0; left.min(PIECE as u64) as usize];
        file.read_exact_at(&mut data, offset)?;
        Ok((data, left <= PIECE as u64))
    })
    .await
}

impl<M: Machine> RaftNetworkV2<Types<M>> for Peer<M> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<M>>,
        option: RPCOption,
    ) -> Rpc<M, AppendEntriesResponse<Types<M>>> {
        self.rpc(APPEND, &request, &option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<M>>,
        option: RPCOption,
    ) -> Rpc<M, VoteResponse<Types<M>>> {
        self.rpc(VOTE, &request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<M>>,
        option: RPCOption,
    ) -> Rpc<M, VoteResponse<Types<M>>> {
        self.rpc(PRE_VOTE, &request, &option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<M>>,
        option: RPCOption,
    ) -> Rpc<M, TransferLeaderResponse<Types<M>>> {
        self.rpc(TRANSFER, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        _snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<M>>, StreamingError<Types<M>>> {
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, option.soft_ttl()) => sent,
        };
        sent.map(SnapshotResponse::new)
            .map_err(|why| StreamingError::Network(NetworkError::new(&AnyError::error(why))))
    }
}

/// Takes in what peers send.
pub(crate) struct Receiver {
    disk: DiskRef,
    folder: PathBuf,
    pool: Pool,
    arriving: tokio::sync::Mutex<Option<Arriving>>,
}

struct Arriving {
    meta: SnapshotMeta,
    vote: Vote,
    file: FileRef,
    next: u64,
}

type OpenRaft<M> = openraft::Raft<Types<M>, Applier<M>>;

impl Receiver {
    pub(crate) fn new(disk: DiskRef, folder: PathBuf) -> Receiver {
        let pool = disk.pool("raft-snapshot", 1);
        Receiver { disk, folder, pool, arriving: tokio::sync::Mutex::new(None) }
    }

    pub(crate) async fn receive<M: Machine>(
        &self,
        raft: &OpenRaft<M>,
        method: &str,
        request: &[u8],
    ) -> Result<Bytes, String> {
        match method {
            APPEND => encode(raft.append_entries(decode(request)?).await),
            VOTE => encode(raft.vote(decode(request)?).await),
            PRE_VOTE => encode(raft.pre_vote(decode(request)?).await),
            TRANSFER => encode(raft.handle_transfer_leader(decode(request)?).await),
            SNAPSHOT => encode(self.take(raft, decode(request)?).await),
            _ => Err(format!("no such method between voters: {method}")),
        }
    }

    async fn take<M: Machine>(&self, raft: &OpenRaft<M>, piece: Piece) -> Result<Taken, String> {
        let mut arriving = self.arriving.lock().await;
        let path = self.folder.join("snapshot-received.tmp");
        if piece.offset == 0 {
            let (disk, path) = (self.disk.clone(), path.clone());
            let opened = self.pool.run(move || {
                let file = disk.open(&path, Open::Create)?;
                file.set_length(0)?;
                Ok::<_, io::Error>(file)
            });
            let file = opened.await.map_err(|error| error.to_string())?;
            *arriving = Some(Arriving { meta: piece.meta.clone(), vote: piece.vote, file, next: 0 });
        }
        let same = |now: &&mut Arriving| {
            now.meta == piece.meta && now.vote == piece.vote && now.next == piece.offset
        };
        let Some(now) = arriving.as_mut().filter(same) else {
            return Err("a piece of another snapshot than the one arriving".to_owned());
        };
        let (file, offset) = (now.file.clone(), piece.offset);
        now.next += piece.data.len() as u64;
        let written = self.pool.run(move || file.write_all_at(&piece.data, offset)).await;
        written.map_err(|error| error.to_string())?;
        if !piece.last {
            return Ok(Taken { vote: None });
        }
        *arriving = None;
        let snapshot = Snapshot { meta: piece.meta, snapshot: SnapshotData::Received(path) };
        let installed = raft.install_full_snapshot(piece.vote, snapshot).await;
        Ok(Taken { vote: Some(installed.map_err(|error| error.to_string())?.vote) })
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    postcard::from_bytes(bytes)
        .map_err(|error| format!("a request between voters cannot be decoded: {error}"))
}

fn encode<T: Serialize, E: std::fmt::Display>(answer: Result<T, E>) -> Result<Bytes, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    postcard::to_allocvec(&answer).map(Bytes::from).map_err(|error| error.to_string())
}
