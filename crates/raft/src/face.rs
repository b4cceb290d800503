//! What the servers see of consensus: commands in, outcomes out.
//!
//! Next on the walk: the namespace's `apply`, which a [`Machine`] calls.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A place in the log. Ordered as the log is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
pub struct Position {
    /// The term of the leader that wrote the entry there.
    pub term: u64,
    /// The entry's number; the first is 0 (the first membership), each later one is one more.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<C> {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A command.
    Command(C),
    /// Who votes; the machine keeps the last one with its applied position, unread.
    Membership(Vec<u8>),
}

/// An entry that a majority has synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<C> {
    /// Where it is in the log.
    pub position: Position,
    /// What it carries.
    pub payload: Payload<C>,
}

/// Why a machine could not go on. Final: the process stops.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the state machine failed: {0}")]
pub struct MachineError(pub String);

impl From<std::io::Error> for MachineError {
    fn from(error: std::io::Error) -> MachineError {
        MachineError(error.to_string())
    }
}

/// A view of a machine at one position that can be written while the machine goes on.
pub type View = Box<dyn FnOnce(&mut dyn Write) -> Result<(), MachineError> + Send>;

/// What the committed entries are applied to, in order, on one thread at a time: the log's if this node votes
/// alone, else one of its own (a [`mobula_disk::Pool`] of one; inline in the simulator).
///
/// It keeps, together with what it stores, the position of the last entry applied and the last
/// membership; after a restart entries are applied again from behind that position. So an entry's
/// effects and its position must become durable together.
pub trait Machine: Send + 'static {
    /// A batch of commands: one entry of the log. Encoded with postcard.
    type Command: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static;
    /// What became of the batch.
    type Outcome: fmt::Debug + Send + 'static;

    /// The last entry applied that a restart would find, and the last membership applied.
    fn applied(&self) -> (Option<Position>, Option<Vec<u8>>);

    /// Applies entries in order; one result per entry, `None` for a blank one and a membership.
    ///
    /// # Errors
    /// Final: the process stops. A command that is refused is an outcome, not an error.
    fn apply(
        &mut self,
        entries: Vec<Committed<Self::Command>>,
    ) -> Result<Vec<Option<Self::Outcome>>, MachineError>;

    /// Makes everything applied durable and says up to where that is: the log may be cut behind it.
    ///
    /// # Errors
    /// Final: the process stops.
    fn sync(&mut self) -> Result<Option<Position>, MachineError>;

    /// Writes everything, as it is now, for another machine to [`Machine::restore`].
    ///
    /// # Errors
    /// Of `out`, or final.
    fn write_snapshot(&self, out: &mut dyn Write) -> Result<(), MachineError>;

    /// As [`Machine::write_snapshot`], but without holding up `apply` while it is written, for
    /// machines that can.
    fn view(&self) -> Option<View> {
        None
    }

    /// Replaces everything by what another machine wrote, durably, together with `at` and
    /// `membership`.
    ///
    /// # Errors
    /// Of `from`, or final.
    fn restore(
        &mut self,
        from: &mut dyn Read,
        at: Position,
        membership: Option<Vec<u8>>,
    ) -> Result<(), MachineError>;

    /// How many commands are in the batch; counted for [`RaftOptions::sync_every_commands`].
    fn commands_in(_command: &Self::Command) -> u64 {
        1
    }
}

/// The way to the other voters. The NameNode carries it over Hadoop RPC, tests over memory.
pub trait Peers: Send + Sync + 'static {
    /// Sends a request to a voter and hands back its answer, which that voter's [`crate::Raft::receive`]
    /// gave. May be called many times at once; order between calls does not matter.
    ///
    /// # Errors
    /// In words: whatever kept the answer from coming.
    fn send(
        &self,
        to: u64,
        address: String,
        method: &'static str,
        request: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>>;
}

/// Nobody to talk to: one voter.
#[derive(Clone, Copy, Debug)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn send(
        &self,
        to: u64,
        _address: String,
        _method: &'static str,
        _request: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>> {
        Box::pin(std::future::ready(Err(format!("there is no way to voter {to}"))))
    }
}

/// What a node does with an empty folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstStart {
    /// Founds the cluster of [`RaftOptions::voters`]; all of them may do so, with the same voters.
    Found,
    /// Waits to be taken in. A node that lost its disk must start so: it would vote twice (CASES 13).
    Join,
}

/// How a node takes part.
#[derive(Clone)]
pub struct RaftOptions {
    /// This node's number.
    pub node: u64,
    /// Who votes at first, this node among them, with the addresses that [`Peers`] is given. After
    /// the first start the log knows. By default this node alone.
    pub voters: BTreeMap<u64, String>,
    /// What to do with an empty folder.
    pub first_start: FirstStart,
    /// The way to the others.
    pub peers: Arc<dyn Peers>,
    /// Bytes reserved for a segment of the log; an entry larger than that gets one of its own.
    pub segment_bytes: u64,
    /// Bytes of log after which the machine is synced and the log cut.
    pub sync_every_bytes: u64,
    /// Commands after which the machine is synced and the log cut.
    pub sync_every_commands: u64,
    /// Entries kept behind the cut, so that a voter that was away catches up without a snapshot.
    pub keep_entries: u64,
    /// Bytes of entries kept in memory for those who read the log; older ones are read from disk.
    pub cache_bytes: u64,
    /// Time between two signs of life of a leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// The shortest silence after which a voter stands for election, in milliseconds; the longest is
    /// twice that.
    pub election_ms: u64,
    /// How long a snapshot may take to reach a peer and be installed.
    pub snapshot_limit: Duration,
}

impl RaftOptions {
    /// One voter with number `node`.
    pub fn alone(node: u64) -> RaftOptions {
        RaftOptions {
            node,
            voters: BTreeMap::from([(node, String::new())]),
            first_start: FirstStart::Found,
            peers: Arc::new(NoPeers),
            segment_bytes: 16 << 20,
            sync_every_bytes: 64 << 20,
            sync_every_commands: 32_768,
            keep_entries: 0,
            cache_bytes: 16 << 20,
            heartbeat_ms: 500,
            election_ms: 1_500,
            snapshot_limit: Duration::from_secs(600),
        }
    }

    /// Several voters; they keep some of the log for each other.
    pub fn among(node: u64, voters: BTreeMap<u64, String>, peers: Arc<dyn Peers>) -> RaftOptions {
        RaftOptions { voters, peers, keep_entries: 10_000, ..RaftOptions::alone(node) }
    }
}

/// Whether this node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It does, in `term`.
    Leader {
        /// Its term.
        term: u64,
        /// The term's first entry is committed and applied: everything committed before is, too
        /// (DESIGN D16). Until then nothing may be answered or ordered as a leader.
        ready: bool,
    },
    /// Another one does, if known.
    Follower {
        /// The leader.
        leader: Option<u64>,
    },
}

impl Leadership {
    /// Leads, and knows all that was committed before.
    pub fn is_ready(&self) -> bool {
        matches!(self, Leadership::Leader { ready: true, .. })
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The log is damaged where a crash cannot have done it. The file is left as it is.
    #[error("{}: corrupt at byte {offset}: {what}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file of a later version, or of something else.
    #[error("{}: {what}", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What it is.
        what: String,
    },
    /// The log does not reach back to where the machine is: a file of the one or the other is missing.
    #[error("the state machine is at {machine:?}, but the log begins only behind {log}")]
    Gap {
        /// The last entry that the machine has.
        machine: Option<Position>,
        /// The entry before the log's first one.
        log: Position,
    },
    /// The log ends before the machine's state: it is empty, or an older copy.
    #[error(
        "the state machine is at {machine}, but the log ends at {log:?}: its folder is another one than before, or an older \
         copy; what was acknowledged since may be in the right one"
    )]
    Behind {
        /// The last entry that the machine has.
        machine: Position,
        /// The last entry of the log.
        log: Option<Position>,
    },
    /// The disk failed.
    #[error("{0}")]
    Disk(#[from] std::io::Error),
    /// The options contradict each other or what is on disk.
    #[error("{0}")]
    Options(String),
    /// Consensus did not start.
    #[error("raft: {0}")]
    Start(String),
}

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; the command did not happen.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Who does, if known.
        leader: Option<u64>,
    },
    /// The command may or may not have happened.
    #[error("the outcome is not known")]
    Lost,
    /// The command is too large for the log; it did not happen.
    #[error("a command of {bytes} bytes; at most {most} fit")]
    TooLarge {
        /// Its size, encoded.
        bytes: usize,
        /// What fits.
        most: usize,
    },
    /// The node has stopped; the command may or may not have happened.
    #[error("stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}
