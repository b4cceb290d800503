//! What openraft is told about our types. Only this crate sees it.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft::{BasicNode, EntryPayload, LogId, RaftTypeConfig, StoredMembership};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;

use crate::face::{Machine, MachineError, Position};

/// openraft's runtime: tokio, with entropy from a seed that [`crate::Raft::start`] draws.
pub(crate) type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;
pub(crate) type Leader = leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeader = <Leader as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type Vote = openraft::impls::Vote<Leader>;
pub(crate) type Id = LogId<CommittedLeader>;
pub(crate) type Members = StoredMembership<CommittedLeader, u64, BasicNode>;
pub(crate) type DataOf<M> = Data<<M as Machine>::Command, <M as Machine>::Outcome>;
pub(crate) type PayloadOf<M> = EntryPayload<DataOf<M>, u64, BasicNode>;
pub(crate) type EntryOf<M> = openraft::Entry<CommittedLeader, PayloadOf<M>>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeader, u64, BasicNode>;
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeader, u64, BasicNode, SnapshotData>;

/// openraft's bundle of types for a machine.
pub(crate) struct Types<M>(PhantomData<fn() -> M>);

impl<M: Machine> RaftTypeConfig for Types<M> {
    type D = DataOf<M>;
    type R = Answer<M>;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = Leader;
    type Vote = Vote;
    type Payload = PayloadOf<M>;
    type Entry = EntryOf<M>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Reply<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::AnyError;
}

impl<M> fmt::Debug for Types<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<M> Clone for Types<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Types<M> {}

impl<M> Default for Types<M> {
    fn default() -> Self {
        Types(PhantomData)
    }
}

impl<M> PartialEq for Types<M> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<M> Eq for Types<M> {}

impl<M> PartialOrd for Types<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> Ord for Types<M> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// A command on its way: encoded once, by whoever proposes it. The log and the peers see the bytes;
/// the machine of this node takes the original instead of decoding them again.
pub(crate) struct Data<C, O = ()> {
    pub(crate) bytes: Bytes,
    origin: Arc<Mutex<Origin<C, O>>>,
}

/// What does not travel.
struct Origin<C, O> {
    command: Option<C>,
    /// Of who proposed it: hears the outcome from a lone voter's log, and openraft hears of it later.
    proposer: Option<oneshot::Sender<O>>,
}

impl<C, O> Default for Origin<C, O> {
    fn default() -> Origin<C, O> {
        Origin { command: None, proposer: None }
    }
}

impl<C: Serialize + DeserializeOwned, O> Data<C, O> {
    /// The command, and where its outcome comes if a lone voter's log tells it.
    pub(crate) fn encode(command: C) -> Result<(Data<C, O>, oneshot::Receiver<O>), MachineError> {
        let bytes = postcard::to_allocvec(&command)
            .map_err(|error| MachineError(format!("a command cannot be encoded: {error}")))?;
        let (proposer, outcome) = oneshot::channel();
        let origin = Origin { command: Some(command), proposer: Some(proposer) };
        Ok((Data { bytes: bytes.into(), origin: Arc::new(Mutex::new(origin)) }, outcome))
    }

    /// The command: the original the first time, else from the bytes.
    pub(crate) fn take(&self) -> Result<C, MachineError> {
        if let Some(command) = self.origin.lock().command.take() {
            return Ok(command);
        }
        postcard::from_bytes(&self.bytes)
            .map_err(|error| MachineError(format!("a command in the log cannot be decoded: {error}")))
    }
}

impl<C, O> Data<C, O> {
    pub(crate) fn from_bytes(bytes: Bytes) -> Data<C, O> {
        Data { bytes, origin: Arc::default() }
    }

    /// Tells the outcome to who proposed it, if he still waits.
    pub(crate) fn answer(&self, outcome: O) {
        if let Some(proposer) = self.origin.lock().proposer.take() {
            // He may have gone.
            let _ = proposer.send(outcome);
        }
    }
}

impl<C, O> Clone for Data<C, O> {
    fn clone(&self) -> Self {
        Data { bytes: self.bytes.clone(), origin: self.origin.clone() }
    }
}

impl<C, O> fmt::Debug for Data<C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C, O> fmt::Display for Data<C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl<C, O> Serialize for Data<C, O> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de, C, O> Deserialize<'de> for Data<C, O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }
        }
        deserializer.deserialize_byte_buf(Visitor).map(Data::from_bytes)
    }
}

/// The way back for openraft's word about a proposal. Nobody need be there: a lone voter's log answers before openraft does.
pub(crate) struct Reply<T>(pub(crate) oneshot::Sender<T>);

impl<M: Machine, T: Send + 'static> Responder<Types<M>, T> for Reply<T> {
    fn on_complete(self, result: T) {
        let _ = self.0.send(result);
    }
}

/// An outcome on its way back. openraft wants it to be shareable and serializable; it is neither
/// shared nor serialized.
pub(crate) struct Answer<M: Machine>(Mutex<Option<M::Outcome>>);

impl<M: Machine> Answer<M> {
    pub(crate) fn new(outcome: Option<M::Outcome>) -> Answer<M> {
        Answer(Mutex::new(outcome))
    }

    pub(crate) fn into_outcome(self) -> Option<M::Outcome> {
        self.0.into_inner()
    }
}

impl<M: Machine> Serialize for Answer<M> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("outcomes do not travel"))
    }
}

impl<'de, M: Machine> Deserialize<'de> for Answer<M> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("outcomes do not travel"))
    }
}

/// What openraft carries around as a snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotData {
    /// This node's machine as it will be when somebody needs the bytes: at least as new as the
    /// snapshot's position, which the sender corrects.
    Machine,
    /// Bytes received from a leader, in the file of that name in the log's folder.
    Received(std::path::PathBuf),
}

pub(crate) fn position(id: &Id) -> Position {
    Position { term: **id.committed_leader_id(), index: id.index() }
}

pub(crate) fn log_id(position: Position) -> Id {
    Id::new_term_index(position.term, position.index)
}

pub(crate) fn position_of<M: Machine>(entry: &EntryOf<M>) -> Position {
    position(&entry.log_id())
}

pub(crate) fn encode_members(members: &Members) -> Vec<u8> {
    postcard::to_allocvec(members).expect("a membership is plain data")
}

pub(crate) fn decode_members(bytes: Option<&[u8]>) -> Result<Members, MachineError> {
    match bytes {
        None => Ok(Members::default()),
        Some(bytes) => postcard::from_bytes(bytes)
            .map_err(|error| MachineError(format!("the machine's membership cannot be decoded: {error}"))),
    }
}
