//! The machines of a run and what moves them: turmoil's hosts, one crashing disk each, and the plan.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobula_datanode::{DataNode, DatanodeConfig, VolumeConfig};
use mobula_disk::fake::CallKind;
use mobula_disk::{Crash, CrashDisk};
use mobula_namenode::{NameNode, NamenodeConfig, Observer, Service};
use mobula_net::{Clock, Entropy, Env, Net};
use mobula_types::{InodeId, Millis};

use crate::messages::{Message, Messages};
use crate::mishap::Mishap;
use crate::pairs::{self, Piece};
use crate::panics;
use crate::plan::{FAULTS_MS, Fault, Node, Plan, machines};
use crate::shared::{Phase, Shared};
use crate::tasks;
use crate::trace::{Keep, Trace};
use crate::watcher::Watcher;
use crate::workload;

/// DataNodes of a run: as many as a file has replicas, so that every fault matters, and up to two more,
/// so that a lost node can be replaced. The seed says how many.
const DATANODES: std::ops::RangeInclusive<usize> = 3..=5;
/// The simulation goes in steps of this.
const TICK: Duration = Duration::from_millis(4);
/// A message takes from one tick to this long.
const LATENCY_MAX: Duration = Duration::from_millis(16);
/// Messages that a connection holds before its reader takes them.
const CONNECTION_MESSAGES: usize = 4_096;
/// Once the faults are over, everything is whole, looked at, crashed and looked at again within this.
const SETTLE_LIMIT_MS: u64 = 600_000 + LOST_LIMIT.as_millis() as u64;
/// A machine that stopped by itself is started again after this long.
const RESTART_MS: u64 = 1_000;
/// Time of day at which every run begins.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Commands after which the tables are synced and the log is cut: so few that it happens often.
const SYNC_COMMANDS: u64 = 80;
/// Bytes of a segment of the log: so few that one is begun every some seconds, and crashes come in between.
const LOG_SEGMENT_BYTES: u64 = 4 << 10;
/// The NameNode goes into safe mode with less room than this; a disk that gets full has more left, or less.
const ROOM_RESERVED: u64 = 256 << 10;
const ROOM_CHECK: Duration = Duration::from_secs(1);
/// A lease that was not renewed for so long can be taken, or is closed by the NameNode: short, so that both
/// happen within a run.
const LEASE_MS_SOFT: u64 = 3_000;
const LEASE_MS_HARD: u64 = 9_000;
/// The log has at most so many bytes: what it is cut by is found wanting long before a disk is full.
const LOG_BYTES_MAX: u64 = 96 << 10;
/// How often it is looked at.
const LOG_LOOK_MS: u64 = 128;
const NAMENODE_PORT: u16 = 8020;
const DATA_PORT: u16 = 9866;
const IPC_PORT: u16 = 9867;

/// A run that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Over the whole trace.
    pub trace: u64,
    /// Lines of the trace, and messages in it.
    pub events: (u64, u64),
    /// Changes acknowledged, and not.
    pub changes: (u64, u64),
    /// How long it took, in simulated milliseconds.
    pub ms: u64,
}

/// A run that did not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was not as it must be.
    pub why: String,
    /// The end of its trace.
    pub last: Vec<String>,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] where something acknowledged was lost, or the cluster did not become whole.
pub fn run(seed: u64, keep: Keep) -> Result<Report, Box<Failure>> {
    play(seed, datanodes(seed), Plan::draw(seed, datanodes(seed)), &Trace::new(keep), &Job::Anything)
}

/// How many DataNodes a seed has.
fn datanodes(seed: u64) -> usize {
    DATANODES.start() + seed as usize % DATANODES.count()
}

/// Runs a seed with a plan that somebody wrote down, on so many DataNodes.
///
/// # Errors
/// As [`run`].
pub fn run_plan(seed: u64, datanodes: usize, faults: Vec<(u64, Fault)>) -> Result<Report, Box<Failure>> {
    play(seed, datanodes, Plan::of(faults), &Trace::new(Keep::Last), &Job::Anything)
}

/// Does a piece of work on three DataNodes, with connections broken off where these messages begin. Answers
/// with all messages that there were, and whether all of the work was acknowledged.
///
/// # Errors
/// As [`run`].
pub fn run_piece(
    piece: Piece,
    victims: &[Message],
    keep: Keep,
) -> Result<(Vec<Message>, bool), Box<Failure>> {
    let messages = Arc::new(Messages::default());
    let whole = Arc::new(AtomicBool::new(false));
    let job =
        Job::Piece { piece, victims: victims.to_vec(), messages: messages.clone(), whole: whole.clone() };
    play(1, *DATANODES.start(), Plan::of(Vec::new()), &Trace::new(keep), &job)?;
    Ok((messages.seen().0, whole.load(Ordering::Relaxed)))
}

/// What the clients of a run do.
#[derive(Clone)]
enum Job {
    /// All that they can, until the faults are over.
    Anything,
    /// One piece of work, over broken connections.
    Piece { piece: Piece, victims: Vec<Message>, messages: Arc<Messages>, whole: Arc<AtomicBool> },
}

impl Job {
    fn net(&self) -> Net {
        match self {
            Job::Anything => Net::sim(),
            Job::Piece { messages, .. } => Net::tapped(messages.clone()),
        }
    }
}

/// Runs a seed twice, and answers with where the two traces part, if they do.
pub fn compare(seed: u64) -> Option<String> {
    let traces = [Trace::new(Keep::All), Trace::new(Keep::All)];
    for trace in &traces {
        // Its end does not matter here, only how it came there.
        let _ = play(seed, datanodes(seed), Plan::draw(seed, datanodes(seed)), trace, &Job::Anything);
    }
    let [one, other] = [traces[0].kept(), traces[1].kept()];
    let at = one.iter().zip(&other).position(|(a, b)| a != b);
    let at = at.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))?;
    let before = one[at.saturating_sub(8)..at].join("\n  ");
    let none = String::new();
    let (a, b) = (one.get(at).unwrap_or(&none), other.get(at).unwrap_or(&none));
    Some(format!("event {at}, after\n  {before}\none has\n  {a}\nthe other\n  {b}"))
}

fn play(seed: u64, datanodes: usize, plan: Plan, trace: &Trace, job: &Job) -> Result<Report, Box<Failure>> {
    let _alone = tasks::alone();
    panics::expect(seed);
    let shared = Shared::new(trace.clone());
    let watcher = tracing::Dispatch::new(Watcher::new(trace.clone()));
    let outcome = tracing::dispatcher::with_default(&watcher, || {
        World::new(seed, datanodes, plan, shared.clone(), job.clone()).play()
    });
    // It holds what it shares with us: neither would ever be given back.
    shared.serves(None);
    match shared.failure().or_else(|| outcome.as_ref().err().cloned()) {
        None => Ok(Report {
            trace: trace.hash(),
            events: trace.counts(),
            changes: shared.oracle().counts(),
            ms: outcome.unwrap_or_default(),
        }),
        Some(why) => Err(Box::new(Failure { seed, why, last: trace.kept() })),
    }
}

/// A machine's time of day.
#[derive(Default)]
struct Watch {
    jumped_ms: i64,
    running: Option<Clock>,
}

struct World {
    job: Job,
    sim: turmoil::Sim<'static>,
    datanodes: usize,
    plan: Plan,
    disks: BTreeMap<Node, CrashDisk>,
    clocks: BTreeMap<Node, Rc<RefCell<Watch>>>,
    shared: Shared,
    /// Machines that do not run.
    down: BTreeSet<Node>,
    /// Machines whose disk was made to fail: they may stop by themselves, or take the disk out of use.
    troubled: BTreeSet<Node>,
    /// Machines that stopped, and when they start again.
    restarts: BTreeMap<Node, u64>,
    /// How many reasons there are for nothing to pass from the first to the second.
    cuts: BTreeMap<(Node, Node), usize>,
    paused: BTreeSet<Node>,
    /// Machines without power: nobody hears of them.
    dark: BTreeSet<Node>,
}

impl World {
    fn new(seed: u64, datanodes: usize, plan: Plan, shared: Shared, job: Job) -> World {
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .min_message_latency(TICK)
            .max_message_latency(LATENCY_MAX)
            .simulation_duration(Duration::from_millis(FAULTS_MS + SETTLE_LIMIT_MS))
            .tcp_capacity(CONNECTION_MESSAGES)
            .build();
        let entropy = Entropy::seeded(seed);
        let disks =
            machines(datanodes).into_iter().map(|node| (node, CrashDisk::new(entropy.u64()))).collect();
        let clocks = everybody(datanodes).map(|node| (node, Rc::default())).collect();
        let mut world = World {
            job,
            sim,
            datanodes,
            plan,
            disks,
            clocks,
            shared,
            down: BTreeSet::new(),
            troubled: BTreeSet::new(),
            restarts: BTreeMap::new(),
            cuts: BTreeMap::new(),
            paused: BTreeSet::new(),
            dark: BTreeSet::new(),
        };
        world.add_namenode(Entropy::seeded(entropy.u64()));
        for at in 0..datanodes {
            world.add_datanode(at, Entropy::seeded(entropy.u64()));
        }
        world.add_client(Entropy::seeded(entropy.u64()));
        world
    }

    fn add_namenode(&mut self, entropy: Entropy) {
        let disk = self.disks[&Node::Namenode].clone();
        let (shared, clock) = (self.shared.clone(), Rc::clone(&self.clocks[&Node::Namenode]));
        let net = self.job.net();
        self.sim.host("nn", move || {
            let (disk, shared, env) = (disk.clone(), shared.clone(), env(&net, &entropy, &clock));
            async move {
                let config = namenode_config(&shared);
                let why = match NameNode::start(env()?, disk.process(), config).await {
                    Ok(namenode) => {
                        shared.serves(Some(namenode.service()));
                        namenode.stopped().await.to_string()
                    }
                    Err(error) => format!("it does not start: {error}"),
                };
                shared.ended(Node::Namenode, why).await
            }
        });
    }

    fn add_datanode(&mut self, at: usize, entropy: Entropy) {
        let node = Node::Datanode(at);
        let (disk, shared) = (self.disks[&node].clone(), self.shared.clone());
        let clock = Rc::clone(&self.clocks[&node]);
        let net = self.job.net();
        self.sim.host(node.to_string(), move || {
            let (disk, shared, env) = (disk.clone(), shared.clone(), env(&net, &entropy, &clock));
            async move {
                let why = match DataNode::start(env()?, disk.process(), datanode_config(at)).await {
                    Ok(datanode) => datanode.wait_stopped().await.to_string(),
                    Err(error) => format!("it does not start: {error}"),
                };
                shared.ended(node, why).await
            }
        });
    }

    fn add_client(&mut self, entropy: Entropy) {
        let (shared, clock) = (self.shared.clone(), Rc::clone(&self.clocks[&Node::Client]));
        let env = env(&self.job.net(), &entropy, &clock);
        let (job, datanodes) = (self.job.clone(), self.datanodes);
        self.sim.client("client", async move {
            let env = env()?;
            let namenode = format!("nn:{NAMENODE_PORT}");
            if let Job::Piece { piece, victims, messages, whole } = job {
                let mut slot = pairs::prepare(piece, &env, &namenode, &shared, datanodes).await;
                messages.arm(&victims);
                whole.store(pairs::act(piece, &mut slot).await, Ordering::Relaxed);
                messages.disarm();
                drop(slot);
                shared.set_phase(Phase::Settle);
                healed(&shared).await;
                workload::verify(&env, &namenode, &shared, "in the end").await;
                return Ok(());
            }
            workload::work(&env, &namenode, &shared).await;
            healed(&shared).await;
            workload::verify(&env, &namenode, &shared, "after the faults").await;
            shared.compare();
            shared.set_phase(Phase::Blackout);
            while shared.phase() != Phase::After {
                tokio::time::sleep(POLL).await;
            }
            healed(&shared).await;
            workload::verify(&env, &namenode, &shared, "after the blackout").await;
            shared.compare();
            Ok(())
        });
    }

    /// Steps until the client is done or something has failed; answers how long it took.
    fn play(mut self) -> Result<u64, String> {
        loop {
            let now_ms = self.now_ms();
            self.shared.at(now_ms);
            while let Some(fault) = self.plan.due(now_ms) {
                self.strike(fault);
            }
            self.look_after_ended(now_ms);
            self.look_at_log(now_ms);
            match self.shared.phase() {
                Phase::Faults if now_ms >= FAULTS_MS => self.mend_all(),
                Phase::Blackout => self.blackout(),
                _ => {}
            }
            if let Some(panicked) = panics::take() {
                return Err(panicked);
            }
            if self.shared.failure().is_some() {
                return Ok(now_ms);
            }
            match self.sim.step() {
                Ok(true) => return Ok(now_ms),
                Ok(false) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.sim.elapsed().as_millis() as u64
    }

    /// The log is cut behind what the tables have, whatever befalls them.
    fn look_at_log(&self, now_ms: u64) {
        if !now_ms.is_multiple_of(LOG_LOOK_MS) {
            return;
        }
        let bytes = self.disks[&Node::Namenode].bytes_in(&PathBuf::from("/name/log"));
        if bytes > LOG_BYTES_MAX {
            self.shared.fail(format!("the log has {bytes} bytes, more than {LOG_BYTES_MAX}: it is not cut"));
        }
    }

    /// Whether a fault is one now: the network cannot hold messages back while it loses some.
    fn is_one(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Pause(node) => self.dark.is_empty() && !self.paused.contains(node),
            Fault::Resume(node) => self.paused.contains(node),
            _ => true,
        }
    }

    fn strike(&mut self, fault: Fault) {
        if !self.is_one(&fault) {
            return;
        }
        self.shared.trace(&format!("** {fault}"));
        match fault {
            Fault::Kill(node) => self.crash(node, Crash::Kill),
            Fault::PowerLoss(node) => self.crash(node, Crash::PowerLoss),
            Fault::Restart(node) => self.restart(node),
            Fault::Cut(from, to) => {
                *self.cuts.entry((from, to)).or_default() += 1;
                self.wire();
                if let Some(node) = hidden(from, to) {
                    self.shared.befalls(node, Mishap::Absence);
                }
            }
            Fault::Mend(from, to) => {
                if let Some(cuts) = self.cuts.get_mut(&(from, to)) {
                    *cuts = cuts.saturating_sub(1);
                }
                self.wire();
                for node in [from, to] {
                    self.back(node);
                }
            }
            Fault::Jump(node, ms) => {
                let mut watch = self.clocks[&node].borrow_mut();
                watch.jumped_ms += ms;
                if let Some(clock) = &watch.running {
                    clock.jump(ms);
                }
            }
            Fault::FailSync(node, syncs) => {
                self.troubled.insert(node);
                self.disks[&node].fail_sync(syncs);
            }
            Fault::FailCalls(node, calls, count, error) => {
                self.troubled.insert(node);
                // Nobody is short of room or descriptors who reads what is open.
                self.disks[&node].fail_calls(calls, count, error, move |call| {
                    error == ErrorKind::Other || !matches!(call.kind, CallKind::Read | CallKind::Look)
                });
            }
            Fault::Full(node, bytes) => {
                self.troubled.insert(node);
                let space = self.disks[&node].process().space(&PathBuf::from("/"));
                let used = space.map_or(0, |space| space.capacity - space.available);
                self.disks[&node].set_capacity(Some(used + bytes));
            }
            Fault::Room(node) => self.disks[&node].set_capacity(None),
            Fault::Pause(node) => self.pause(node),
            Fault::Resume(node) => self.resume(node),
        }
    }

    /// One reason for not hearing of a machine is gone: are there others?
    fn back(&self, node: Node) {
        let cut = self.cuts.iter().any(|((from, to), cuts)| *cuts > 0 && hidden(*from, *to) == Some(node));
        let away = cut || [&self.down, &self.paused, &self.dark].iter().any(|all| all.contains(&node));
        if !away {
            self.shared.is_over(node, Mishap::Absence);
        }
    }

    /// The network as the cuts and the machines without power want it.
    fn wire(&mut self) {
        for from in everybody(self.datanodes) {
            for to in everybody(self.datanodes).filter(|to| *to != from) {
                let cut = self.cuts.get(&(from, to)).is_some_and(|cuts| *cuts > 0);
                if cut || self.dark.contains(&from) || self.dark.contains(&to) {
                    self.sim.partition_oneway(from.to_string(), to.to_string());
                } else {
                    self.sim.repair_oneway(from.to_string(), to.to_string());
                }
            }
        }
    }

    fn crash(&mut self, node: Node, crash: Crash) {
        if !self.down.insert(node) {
            // Its process is gone already; the power takes what that left in the page cache.
            self.lose(node, crash);
            return;
        }
        if node == Node::Namenode {
            self.shared.serves(None);
            self.shared.namenode_down();
        }
        if crash == Crash::PowerLoss && self.paused.is_empty() {
            // Its sockets are not closed: they fall silent.
            self.dark.insert(node);
            self.wire();
        }
        self.sim.crash(node.to_string());
        self.shared.befalls(node, Mishap::Absence);
        self.lose(node, crash);
    }

    /// What a crash leaves on a machine's disk.
    fn lose(&self, node: Node, crash: Crash) {
        self.disks[&node].crash(crash);
        if crash == Crash::PowerLoss {
            self.shared.befalls(node, Mishap::Loss);
            self.shared.is_over(node, Mishap::Loss);
        }
    }

    fn restart(&mut self, node: Node) {
        self.restarts.remove(&node);
        if self.down.remove(&node) {
            if self.dark.remove(&node) {
                self.wire();
            }
            self.sim.bounce(node.to_string());
        }
        self.back(node);
    }

    fn pause(&mut self, node: Node) {
        self.paused.insert(node);
        self.shared.befalls(node, Mishap::Absence);
        for other in everybody(self.datanodes).filter(|other| *other != node) {
            self.sim.hold(node.to_string(), other.to_string());
        }
    }

    fn resume(&mut self, node: Node) {
        if self.paused.remove(&node) {
            for other in
                everybody(self.datanodes).filter(|other| *other != node && !self.paused.contains(other))
            {
                self.sim.release(node.to_string(), other.to_string());
            }
        }
        self.back(node);
    }

    /// A process that stopped by itself is gone, and somebody starts it again.
    fn look_after_ended(&mut self, now_ms: u64) {
        for (node, why) in self.shared.take_ended() {
            self.shared.trace(&format!("** {node} stopped: {why}"));
            if !self.troubled.contains(&node) {
                self.shared.fail(format!("{node} stopped: {why}"));
            }
            self.crash(node, Crash::Kill);
            self.restarts.insert(node, now_ms + RESTART_MS);
        }
        let due: Vec<Node> =
            self.restarts.iter().filter(|(_, at)| **at <= now_ms).map(|(node, _)| *node).collect();
        for node in due {
            self.shared.trace(&format!("** {node} starts again"));
            self.disks[&node].set_fault(None);
            self.restart(node);
        }
    }

    /// The faults are over. A process whose disk failed is started again: it may have taken it out of use.
    fn mend_all(&mut self) {
        for node in std::mem::take(&mut self.paused) {
            self.paused.insert(node);
            self.resume(node);
        }
        for node in std::mem::take(&mut self.troubled) {
            self.disks[&node].set_fault(None);
            self.disks[&node].set_capacity(None);
            self.crash(node, Crash::Kill);
        }
        self.cuts.clear();
        for node in machines(self.datanodes) {
            self.restart(node);
        }
        self.wire();
        self.shared.set_phase(Phase::Settle);
    }

    /// The power fails everywhere; all comes back.
    fn blackout(&mut self) {
        for node in machines(self.datanodes) {
            self.crash(node, Crash::PowerLoss);
        }
        for node in machines(self.datanodes) {
            self.restart(node);
        }
        self.shared.set_phase(Phase::After);
    }
}

/// Of whom the NameNode hears nothing, or who hears nothing of it, if nothing passes between these two.
fn hidden(from: Node, to: Node) -> Option<Node> {
    match (from, to) {
        (Node::Namenode, other) | (other, Node::Namenode) => Some(other),
        _ => None,
    }
}

fn everybody(datanodes: usize) -> impl Iterator<Item = Node> {
    machines(datanodes).into_iter().chain([Node::Client])
}

/// How often conditions are looked at, in simulated time.
const POLL: Duration = Duration::from_millis(100);
/// All is whole within this after the faults, or the AutoHealer has failed.
const HEALED_LIMIT: Duration = Duration::from_secs(200);
/// Only a file of which flushed bytes were promised that no node has any more may stay open so much longer: the NameNode
/// looks for them for ten minutes.
const LOST_LIMIT: Duration = Duration::from_secs(600);

/// Waits until the NameNode says that no file is open and every file has all its replicas.
async fn healed(shared: &Shared) {
    let mut whole = tokio::time::timeout(HEALED_LIMIT, whole_and_closed(shared)).await.is_ok();
    if !whole && looks_for_lost_bytes(shared) {
        shared.trace("only bytes that nobody may have are waited for");
        whole = tokio::time::timeout(LOST_LIMIT, whole_and_closed(shared)).await.is_ok();
    }
    if !whole {
        let found = shared.service().map(|service| {
            let open = service.view().open_files(InodeId(0), usize::MAX);
            (service.health(), service.under_replicated(usize::MAX), open)
        });
        shared.fail(format!("not whole and closed within {HEALED_LIMIT:?}: {found:?}"));
        return;
    }
    shared.trace("whole and closed");
}

async fn whole_and_closed(shared: &Shared) {
    while !shared
        .service()
        .is_some_and(|service| is_whole(&service) && service.view().counts().open_files == 0)
    {
        tokio::time::sleep(POLL).await;
    }
}

fn is_whole(service: &Service) -> bool {
    let health = service.health();
    health.healed && health.under_replicated == 0 && health.missing == 0
}

/// All is whole, and every open file is under a recovery of a block of which the NameNode was told bytes.
fn looks_for_lost_bytes(shared: &Shared) -> bool {
    shared.service().is_some_and(|service| {
        let view = service.view();
        let running = view.recoveries(InodeId(0), usize::MAX).expect("the simulated tables can be read");
        is_whole(&service)
            && running.len() as u64 == view.counts().open_files
            && running.iter().all(|it| it.block.length > 0 && it.recovery.truncate.is_none())
    })
}

/// An environment for a machine that starts now. Made inside its runtime, where its clock runs.
fn env(
    net: &Net,
    entropy: &Entropy,
    watch: &Rc<RefCell<Watch>>,
) -> impl FnOnce() -> turmoil::Result<Env> + use<> {
    let (net, entropy, watch) = (net.clone(), Entropy::seeded(entropy.u64()), Rc::clone(watch));
    move || {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
        let clock = Clock::virtual_from(EPOCH_MS + elapsed);
        let mut watch = watch.borrow_mut();
        clock.jump(watch.jumped_ms);
        watch.running = Some(clock.clone());
        Ok(Env { net, clock, entropy })
    }
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

fn namenode_config(shared: &Shared) -> NamenodeConfig {
    let observing = shared.clone();
    let mut config = NamenodeConfig {
        name_dir: PathBuf::from("/name"),
        listen: anywhere(NAMENODE_PORT),
        user: "sim".into(),
        cache_bytes: 8 << 20,
        sync_commands: SYNC_COMMANDS,
        log_segment_bytes: LOG_SEGMENT_BYTES,
        room_reserved: ROOM_RESERVED,
        room_check: ROOM_CHECK,
        observer: Observer::new(move |entries, view| observing.applied(entries, view)),
        ..NamenodeConfig::default()
    };
    config.rules.block_size_min = 0;
    config.rules.lease_ms_soft = Millis(LEASE_MS_SOFT);
    config.rules.lease_ms_hard = Millis(LEASE_MS_HARD);
    config.groups = mobula_namenode::GroupMapping::Static(BTreeMap::new());
    config
}

/// How long each file of a node's journal may become: full after a few records; with room for more; there is none.
const JOURNALS: [u64; 3] = [4 << 10, 64 << 10, 0];

fn datanode_config(at: usize) -> DatanodeConfig {
    DatanodeConfig {
        journal_bytes: JOURNALS[at % JOURNALS.len()],
        volumes: vec![VolumeConfig::new("/data")],
        namenodes: vec![format!("nn:{NAMENODE_PORT}")],
        listen: anywhere(DATA_PORT),
        ipc_listen: anywhere(IPC_PORT),
        host_name: format!("dn{at}"),
        user: "sim".into(),
        ..DatanodeConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_cannot_be_is_not_told_of() {
        let trace = Trace::new(Keep::Lines);
        let shared = Shared::new(trace.clone());
        let mut world = World::new(1, 3, Plan::of(Vec::new()), shared, Job::Anything);
        let nodes = [Node::Datanode(0), Node::Datanode(1)];
        let told = |words: &str| trace.kept().iter().filter(|line| line.contains(words)).count();
        world.strike(Fault::PowerLoss(nodes[0]));
        world.strike(Fault::Pause(nodes[1]));
        world.strike(Fault::Resume(nodes[1]));
        assert_eq!((told("** pause"), told("** resume"), world.paused.len()), (0, 0, 0));
        world.strike(Fault::Restart(nodes[0]));
        world.strike(Fault::Pause(nodes[1]));
        assert_eq!((told("** pause dn1"), world.paused.len()), (1, 1));
        world.strike(Fault::Resume(nodes[1]));
        assert_eq!((told("** resume dn1"), world.paused.len()), (1, 0));
    }

    /// A machine was killed, and before it was started again its power failed.
    #[test]
    fn power_is_lost_on_a_machine_that_is_down_already() {
        let shared = Shared::new(Trace::new(Keep::Lines));
        let mut world = World::new(1, 3, Plan::of(Vec::new()), shared.clone(), Job::Anything);
        let (node, boot) =
            (Node::Datanode(0), |world: &World| world.disks[&Node::Datanode(0)].process().boot());
        let first = boot(&world);
        shared.at(500);
        world.strike(Fault::Kill(node));
        assert!(boot(&world) == first && !shared.oracle().mishaps.lost_since(0, 0));
        world.strike(Fault::PowerLoss(node));
        assert!(boot(&world) != first && shared.oracle().mishaps.lost_since(0, 500));
    }
}
