//! A node: puts the log, the machine, the way to the peers and openraft together.
//!
//! Next on the walk: the namespace's `apply`, which a [`Machine`] calls.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mobula_disk::{DiskRef, Lock};
use mobula_net::{Entropy, Env};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError as OpenError};
use openraft::metrics::RaftDataMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{BasicNode, ChangeMembers, Config, ReadPolicy, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use crate::apply::{Applier, Core, Progress};
use crate::face::{FirstStart, Leadership, Machine, Position, ProposeError, RaftError, RaftOptions};
use crate::log::format::PAYLOAD_MAX;
use crate::log::{Log, LogOptions, stop};
use crate::peers::{Network, Receiver};
use crate::types::{Data, Id, Reply, Runtime, Types};

/// Readers that may wait for a round among the voters to begin.
const READERS_MAX: usize = 4096;
/// Who may wait for a sync to begin.
const SYNCS_MAX: usize = 64;
/// Entries in a message to a peer.
const SEND_ENTRIES_MAX: u64 = 512;
/// What a lone voter waits between two looks at nothing, in milliseconds.
const ALONE_TICK_MS: u64 = 10_000;

type OpenRaft<M> = openraft::Raft<Types<M>, Applier<M>>;
type Reader = oneshot::Sender<Result<(), ProposeError>>;
/// Of a sync; one that is dropped was not made.
type Asker = oneshot::Sender<()>;

/// A node; clones are the same one. Dropping the last clone does not sync anything: see
/// [`Raft::shutdown`].
pub struct Raft<M: Machine> {
    inner: Arc<Inner<M>>,
}

struct Inner<M: Machine> {
    open: OpenRaft<M>,
    core: Arc<Core<M>>,
    log: Log<M>,
    receiver: Receiver,
    alone: bool,
    leadership: watch::Receiver<Leadership>,
    readers: mpsc::Sender<Reader>,
    syncs: mpsc::Sender<Asker>,
    stopped: watch::Sender<Option<String>>,
    syncing: tokio::task::AbortHandle,
}

impl<M: Machine> Drop for Inner<M> {
    fn drop(&mut self) {
        // It holds the core, which ends with its last handle.
        self.syncing.abort();
    }
}

impl<M: Machine> Clone for Raft<M> {
    fn clone(&self) -> Self {
        Raft { inner: self.inner.clone() }
    }
}

impl<M: Machine> std::fmt::Debug for Raft<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Raft({}, {:?})", self.inner.open.node_id(), *self.inner.leadership.borrow())
    }
}

impl<M: Machine> Raft<M> {
    /// Opens the log in `folder`, replays what the machine does not have yet, and takes part. A first
    /// start with an empty folder founds the cluster (see [`FirstStart`]). One voter stands for
    /// election at once; whether it leads and has replayed everything, [`Raft::leadership`] says.
    ///
    /// The name of a `folder` that is there already must be durable: it is relied on.
    ///
    /// # Errors
    /// See [`RaftError`]; a failed start changes nothing on disk, but that a torn tail is cut off.
    pub async fn start(
        env: &Env,
        disk: DiskRef,
        folder: PathBuf,
        options: RaftOptions,
        machine: M,
    ) -> Result<Raft<M>, RaftError> {
        check(&options)?;
        let stopped = watch::Sender::new(None);
        let lock = prepare(&disk, &folder, options.node).await?;
        // One draw for both: elections and salts need not know of each other, and a simulated run stays the one it was.
        let seed = env.entropy.u64();
        let log_options = LogOptions {
            node: options.node,
            segment_bytes: options.segment_bytes,
            cache_bytes: options.cache_bytes,
            entropy: Entropy::seeded(!seed),
            lock,
        };
        let log = Log::<M>::open(disk.clone(), folder.clone(), log_options, stopped.clone()).await?;
        let sync_every = (options.sync_every_bytes, options.sync_every_commands);
        let progress = Progress::new(stopped.clone());
        let core = Core::new(machine, disk.clone(), folder.clone(), sync_every, progress)
            .map_err(|error| RaftError::Start(error.to_string()))?;
        let core = Arc::new(core);
        // What was cut from the log is durable in the machine: it was synced first.
        if let Some(previous) = log.previous().filter(|previous| core.progress.applied() < Some(*previous)) {
            return Err(RaftError::Gap { machine: core.progress.applied(), log: previous });
        }
        // And a lone voter applies nothing that its log has not synced.
        if let Some(machine) = core.progress.applied().filter(|applied| log.last() < Some(*applied))
            && core.votes_alone(options.node)
        {
            return Err(RaftError::Behind { machine, log: log.last() });
        }
        let network = Network { peers: options.peers.clone(), core: core.clone(), disk: disk.clone() };
        let config = Arc::new(configure(&options).validate().map_err(|e| RaftError::Options(e.to_string()))?);
        let building = OpenRaft::<M>::new(options.node, config, network, log.clone(), Applier(core.clone()));
        let open =
            Runtime::scope(seed, building).await.map_err(|error| RaftError::Start(error.to_string()))?;
        let alone = is_alone(&open, &log, &options).await?;
        found(&open, &log, &options).await?;
        if alone {
            log.commits_alone(core.clone());
        }
        let leadership = watch_leadership(open.clone(), core.clone(), stopped.clone());
        let (syncs, queue) = mpsc::channel(SYNCS_MAX);
        let keep_entries = alone.then_some(options.keep_entries);
        let syncing =
            Syncing { metrics: open.data_metrics(), open: open.clone(), core: core.clone(), keep_entries };
        let syncing = tokio::spawn(syncing.run(queue)).abort_handle();
        let (readers, queue) = mpsc::channel(READERS_MAX);
        tokio::spawn(serve_readers(open.clone(), queue));
        let receiver = Receiver::new(disk, folder);
        let inner = Inner { open, core, log, receiver, alone, leadership, readers, syncs, stopped, syncing };
        Ok(Raft { inner: Arc::new(inner) })
    }

    /// Commits a command and applies it. If the future is dropped the command may happen all the same.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: M::Command) -> Result<M::Outcome, ProposeError> {
        let (data, mut outcome) =
            Data::encode(command).map_err(|error| ProposeError::Stopped { why: error.to_string() })?;
        if data.bytes.len() > PAYLOAD_MAX {
            return Err(ProposeError::TooLarge { bytes: data.bytes.len(), most: PAYLOAD_MAX });
        }
        let (reply, written) = oneshot::channel();
        let sent = self.inner.open.client_write_ff(data, Some(Reply(reply))).await;
        sent.map_err(|fatal| self.why_stopped(&fatal.to_string()))?;
        tokio::select! {
            biased;
            Ok(outcome) = &mut outcome => Ok(outcome),
            written = written => match written {
                Ok(Ok(written)) => Ok(written.data.into_outcome().expect("the machine answers every command")),
                Ok(Err(error)) => Err(self.refused(OpenError::APIError(error))),
                Err(_) => Err(self.why_stopped("stopped")),
            }
        }
    }

    fn why_stopped(&self, otherwise: &str) -> ProposeError {
        let why = self.inner.stopped.borrow().clone().unwrap_or_else(|| otherwise.to_owned());
        ProposeError::Stopped { why }
    }

    /// Whether this node leads, and changes of it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// The last entry known here to be committed and applied; `0.0` if there is none.
    pub fn committed(&self) -> Position {
        self.inner.core.progress.applied().unwrap_or_default()
    }

    /// Waits until this node has applied all that was acknowledged anywhere before the call. Free with
    /// one voter; else those who ask at the same time share one round.
    ///
    /// # Errors
    /// `NotLeader`, `Stopped`, or `Lost` if no majority answers.
    pub async fn read_index(&self) -> Result<(), ProposeError> {
        if self.inner.stopped.borrow().is_some() {
            return Err(self.why_stopped("stopped"));
        }
        let leadership = *self.inner.leadership.borrow();
        match leadership {
            // Nobody else can have acknowledged anything, and what was acknowledged here was applied.
            Leadership::Leader { ready: true, .. } if self.inner.alone => return Ok(()),
            Leadership::Follower { leader } => return Err(ProposeError::NotLeader { leader }),
            Leadership::Leader { .. } => {}
        }
        let (reader, answer) = oneshot::channel();
        let queued = self.inner.readers.send(reader).await;
        match queued {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.why_stopped("stopped"))),
            Err(_) => Err(self.why_stopped("stopped")),
        }
    }

    /// Syncs the machine and cuts the log behind it, now. With several voters the cut may come later.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn compact_now(&self) -> Result<(), ProposeError> {
        let (asker, done) = oneshot::channel();
        let queued = self.inner.syncs.send(asker).await;
        let done = queued.is_ok() && done.await.is_ok();
        done.then_some(()).ok_or_else(|| self.why_stopped("stopped"))
    }

    /// Stands for election now, instead of when the leader has been silent for long.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn elect(&self) -> Result<(), ProposeError> {
        let triggered = self.inner.open.trigger().elect(false).await;
        triggered.map_err(|fatal| self.why_stopped(&fatal.to_string()))
    }

    /// Makes these the voters; only the leader can. New ones, started with [`FirstStart::Join`], first
    /// catch up. Answers when the change is committed. A lone voter must have been restarted with
    /// [`RaftOptions::among`] before: alone, it gives too few signs of life.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Lost` also if the change is refused, for example since another one is
    /// under way.
    pub async fn set_voters(&self, voters: BTreeMap<u64, String>) -> Result<(), ProposeError> {
        let known = self.voters();
        for (node, address) in voters.iter().filter(|(node, _)| !known.contains_key(node)) {
            let added = self.inner.open.add_learner(*node, BasicNode::new(address), true).await;
            added.map_err(|error| self.refused(error))?;
        }
        let moved = |(node, address): &(&u64, &String)| known.get(node).is_some_and(|old| old != *address);
        let moved: BTreeMap<u64, BasicNode> =
            voters.iter().filter(moved).map(|(node, address)| (*node, BasicNode::new(address))).collect();
        if !moved.is_empty() {
            let moved = self.inner.open.change_membership(ChangeMembers::SetNodes(moved), true).await;
            moved.map_err(|error| self.refused(error))?;
        }
        let ids: std::collections::BTreeSet<u64> = voters.into_keys().collect();
        let changed = self.inner.open.change_membership(ids, false).await;
        changed.map(drop).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: OpenError<Types<M>, ClientWriteError<Types<M>>>) -> ProposeError {
        match error {
            OpenError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                ProposeError::NotLeader { leader: forward.leader_id }
            }
            OpenError::APIError(error) => {
                tracing::warn!("a proposal has no outcome: {error}");
                ProposeError::Lost
            }
            OpenError::Fatal(fatal) => self.why_stopped(&fatal.to_string()),
        }
    }

    /// Who votes, as this node knows it, with their addresses.
    pub fn voters(&self) -> BTreeMap<u64, String> {
        let metrics = self.inner.open.server_metrics();
        let now = metrics.borrow_watched();
        let membership = now.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let nodes = membership.nodes().filter(|(id, _)| voters.contains(id));
        nodes.map(|(id, node)| (*id, node.addr.clone())).collect()
    }

    /// Answers a peer's request that [`crate::Peers::send`] carried here.
    ///
    /// # Errors
    /// In words.
    pub async fn receive(&self, method: &str, request: Bytes) -> Result<Bytes, String> {
        self.inner.receiver.receive(&self.inner.open, method, &request).await
    }

    /// Becomes `Some(reason)` when the log or the machine failed, or the node was shut down. The
    /// process must stop then: a failed sync is final.
    pub fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.inner.stopped.subscribe()
    }

    /// Stops taking part, syncs the machine, drops it and closes the log: afterwards both may be opened
    /// again. What was proposed and not answered may or may not have happened.
    pub async fn shutdown(&self) {
        let failed = self.inner.stopped.borrow().is_some();
        stop(&self.inner.stopped, "shut down");
        if let Err(error) = self.inner.open.shutdown().await {
            tracing::error!("consensus did not end as it should: {error}");
        }
        // Its failure was logged and told where it happened.
        let _ = self.inner.core.close(!failed).await;
        self.inner.log.close().await;
    }
}

fn check(options: &RaftOptions) -> Result<(), RaftError> {
    if options.first_start == FirstStart::Found && !options.voters.contains_key(&options.node) {
        let what = format!("node {} founds a cluster in which it does not vote", options.node);
        return Err(RaftError::Options(what));
    }
    Ok(())
}

/// Whether this node is the only voter, as the options and the log say.
async fn is_alone<M: Machine>(
    open: &OpenRaft<M>,
    log: &Log<M>,
    options: &RaftOptions,
) -> Result<bool, RaftError> {
    // Asks the core: its metrics are empty until it runs.
    let known = open.with_raft_state(|state| state.membership_state.effective().voter_ids().collect());
    let known: Vec<u64> = known.await.map_err(|error| RaftError::Start(error.to_string()))?;
    if log.is_pristine() {
        return Ok(options.voters.len() == 1 && options.first_start == FirstStart::Found);
    }
    if options.voters.len() == 1 && known.len() > 1 {
        let what = format!("started as the only voter, but the log says that {known:?} vote");
        return Err(RaftError::Options(what));
    }
    Ok(options.voters.len() == 1 && known == [options.node])
}

/// Takes the folder for this process and removes what a crash left in it.
async fn prepare(disk: &DiskRef, folder: &std::path::Path, node: u64) -> Result<Lock, RaftError> {
    let (own, folder) = (disk.clone(), folder.to_owned());
    let prepare = move || {
        mobula_disk::create_folder_durably(&*own, &folder)?;
        let lock = own.lock(&folder.join("raft.lock"), &format!("node {node}\n"))?;
        for entry in own.list(&folder)? {
            let name = entry.name.to_string_lossy();
            if name.starts_with("snapshot-") && name.ends_with(".tmp") {
                own.remove_file(&folder.join(&entry.name))?;
            }
        }
        Ok::<_, io::Error>(lock)
    };
    Ok(disk.pool("raft-log", 1).run(prepare).await?)
}

fn configure(options: &RaftOptions) -> Config {
    let alone = options.voters.len() == 1;
    // A lone voter has nobody to hear from and nobody to tell that it lives: its ticks are rare.
    let heartbeat = if alone { ALONE_TICK_MS } else { options.heartbeat_ms };
    let election = if alone { 3 * ALONE_TICK_MS } else { options.election_ms };
    Config {
        cluster_name: "mobula".to_owned(),
        heartbeat_interval: heartbeat,
        election_timeout_min: election,
        election_timeout_max: 2 * election,
        install_snapshot_timeout: u64::try_from(options.snapshot_limit.as_millis()).unwrap_or(u64::MAX),
        max_payload_entries: SEND_ENTRIES_MAX,
        // Followers further back than the log reaches get a snapshot; nobody does before.
        replication_lag_threshold: u64::MAX,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.keep_entries,
        purge_batch_size: 1,
        // A restarted leader stands for election again: its term's blank entry tells it what was
        // committed before (DESIGN D16).
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        ..Config::default()
    }
}

/// Founds the cluster if this is the first start, and does not let a lone voter wait for itself.
async fn found<M: Machine>(open: &OpenRaft<M>, log: &Log<M>, options: &RaftOptions) -> Result<(), RaftError> {
    let start = |error: String| RaftError::Start(error);
    if log.is_pristine() && options.first_start == FirstStart::Found {
        let members: BTreeMap<u64, BasicNode> =
            options.voters.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
        match open.initialize(members).await {
            // A faster one among the others has founded it already.
            Ok(()) | Err(OpenError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(start(error.to_string())),
        }
    } else if options.voters.len() == 1 && options.voters.contains_key(&options.node) {
        open.trigger().elect(false).await.map_err(|error| start(error.to_string()))?;
    }
    Ok(())
}

/// Keeps a watch of who leads, until the core ends.
fn watch_leadership<M: Machine>(
    open: OpenRaft<M>,
    core: Arc<Core<M>>,
    stopped: watch::Sender<Option<String>>,
) -> watch::Receiver<Leadership> {
    let (tell, leadership) = watch::channel(Leadership::Follower { leader: None });
    let mut servers = open.server_metrics();
    drop(open);
    let mut terms = core.progress.term.subscribe();
    drop(core);
    tokio::spawn(async move {
        loop {
            let now = {
                let server = servers.borrow_watched();
                let applied = *terms.borrow_and_update();
                match server.state {
                    openraft::ServerState::Leader => {
                        let term = server.vote.leader_id.term;
                        Leadership::Leader { term, ready: applied == term }
                    }
                    _ => Leadership::Follower { leader: server.current_leader },
                }
            };
            tell.send_if_modified(|known| std::mem::replace(known, now) != now);
            let goes_on = tokio::select! {
                biased;
                changed = servers.changed() => changed.is_ok(),
                changed = terms.changed() => changed.is_ok(),
            };
            if !goes_on {
                break;
            }
        }
        stop(&stopped, "consensus ended");
        tell.send_replace(Leadership::Follower { leader: None });
    });
    leadership
}

/// Syncs the machine and cuts the log, whenever enough was applied or somebody asks. It is the only one that has openraft
/// make a sync, one at a time: openraft does not hear of a second one, and says nothing of one that found nothing new.
struct Syncing<M: Machine> {
    open: OpenRaft<M>,
    core: Arc<Core<M>>,
    metrics: WatchReceiverOf<Types<M>, RaftDataMetrics<Types<M>>>,
    /// So many entries before the machine's are to be cut when a sync has been made; none, where others vote: what a
    /// silent one may still want is not cut.
    keep_entries: Option<u64>,
}

impl<M: Machine> Syncing<M> {
    async fn run(mut self, queue: mpsc::Receiver<Asker>) {
        let mut stopped = self.core.progress.stopped.subscribe();
        tokio::select! {
            biased;
            _ = stopped.wait_for(Option::is_some) => {}
            _ = self.serve(queue) => {}
        }
    }

    /// Ends, with none, when consensus or the last who could ask has.
    async fn serve(&mut self, mut queue: mpsc::Receiver<Asker>) -> Option<()> {
        let mut asked = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = self.core.progress.sync_due.notified() => {}
                count = queue.recv_many(&mut asked, SYNCS_MAX) => if count == 0 { return None },
            }
            self.sync().await?;
            for asker in asked.drain(..) {
                // An asker that has gone needs no answer.
                let _ = asker.send(());
            }
        }
    }

    /// None if consensus has ended.
    async fn sync(&mut self) -> Option<()> {
        let Some(target) = self.core.progress.applied().map(|applied| applied.index) else { return Some(()) };
        // What it has not ordered yet would not count.
        self.reach(target, |now| &now.last_applied).await?;
        if !reached(&self.metrics.borrow_watched().snapshot, target) {
            self.open.trigger().snapshot().await.ok()?;
            self.reach(target, |now| &now.snapshot).await?;
        }
        match self.keep_entries.and_then(|kept| target.checked_sub(kept)) {
            Some(cut) => self.reach(cut, |now| &now.purged).await,
            None => Some(()),
        }
    }

    /// Waits until openraft is as far; none if it has ended.
    async fn reach(
        &mut self,
        index: u64,
        what: impl Fn(&RaftDataMetrics<Types<M>>) -> &Option<Id>,
    ) -> Option<()> {
        while !reached(what(&self.metrics.borrow_watched()), index) {
            self.metrics.changed().await.ok()?;
        }
        Some(())
    }
}

fn reached(id: &Option<Id>, index: u64) -> bool {
    id.as_ref().is_some_and(|id| id.index() >= index)
}

/// One round among the voters for all readers that wait.
async fn serve_readers<M: Machine>(open: OpenRaft<M>, mut queue: mpsc::Receiver<Reader>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, READERS_MAX).await > 0 {
        let answer = match open.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(OpenError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id })
            }
            Err(OpenError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(ProposeError::Lost),
            Err(OpenError::Fatal(fatal)) => Err(ProposeError::Stopped { why: fatal.to_string() }),
        };
        for reader in waiting.drain(..) {
            // A reader that has gone needs no answer.
            let _ = reader.send(answer.clone());
        }
    }
}
