//! The machines of a run and what moves them: turmoil's hosts, one crashing disk each, and the plan.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mobula_datanode::{DataNode, DatanodeConfig, VolumeConfig};
use mobula_disk::{Crash, CrashDisk};
use mobula_namenode::{NameNode, NamenodeConfig, Service};
use mobula_namespace::LogPosition;
use mobula_net::{Clock, Entropy, Env, Net};
use parking_lot::{Mutex, MutexGuard};

use crate::ledger::{Expected, Ledger};
use crate::plan::{FAULTS_MS, Fault, Node, Plan, machines};
use crate::trace::Trace;
use crate::workload;

/// DataNodes of a run: as many as a file has replicas, so that every fault matters.
const DATANODES: usize = 3;
/// The simulation goes in steps of this.
const TICK: Duration = Duration::from_millis(2);
/// A message takes from one tick to this long.
const LATENCY_MAX: Duration = Duration::from_millis(12);
/// Once the faults are over, everything is whole, looked at, crashed and looked at again within this.
const SETTLE_LIMIT_MS: u64 = 600_000;
/// Time of day at which every run begins.
const EPOCH_MS: u64 = 1_700_000_000_000;
const NAMENODE_PORT: u16 = 8020;
const DATA_PORT: u16 = 9866;
const IPC_PORT: u16 = 9867;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Clients work, the plan strikes.
    Faults,
    /// All is mended; everything must become whole.
    Settle,
    /// The power fails everywhere; all starts again.
    Blackout,
    /// All is up again.
    After,
}

/// What the machines of a run share with the test around them.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<State>>, Trace);

struct State {
    phase: Phase,
    ledger: Ledger,
    failure: Option<String>,
    service: Option<Arc<Service>>,
    hashes: BTreeMap<LogPosition, u64>,
}

impl Shared {
    fn new(trace: Trace) -> Shared {
        let state = State {
            phase: Phase::Faults,
            ledger: Ledger::default(),
            failure: None,
            service: None,
            hashes: BTreeMap::new(),
        };
        Shared(Arc::new(Mutex::new(state)), trace)
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        self.0.lock().phase
    }

    /// What was acknowledged.
    pub fn ledger(&self) -> parking_lot::MappedMutexGuard<'_, Ledger> {
        MutexGuard::map(self.0.lock(), |state| &mut state.ledger)
    }

    /// What was acknowledged of a path, which is forgotten: it is about to change.
    pub fn take(&self, path: &str) -> Option<Expected> {
        let mut ledger = self.ledger();
        let was = ledger.entries().into_iter().find(|(known, _)| known == path)?.1;
        ledger.forget(path);
        Some(was)
    }

    /// A line of the trace, at the present simulated time.
    pub fn trace(&self, text: &str) {
        self.1.add(turmoil::sim_elapsed().unwrap_or_default().as_millis(), text);
    }

    /// The run has failed; the first reason counts.
    pub fn fail(&self, why: String) {
        self.trace(&format!("FAILED {why}"));
        self.0.lock().failure.get_or_insert(why);
    }

    fn set_phase(&self, phase: Phase) {
        self.trace(&format!("-- {phase:?}"));
        self.0.lock().phase = phase;
    }

    fn failure(&self) -> Option<String> {
        self.0.lock().failure.clone()
    }

    fn service(&self) -> Option<Arc<Service>> {
        self.0.lock().service.clone()
    }

    /// Equal log positions have equal namespaces, whatever happened in between.
    fn sample_hash(&self, service: &Service) {
        let view = service.view();
        let (Some(at), Ok(hash)) = (view.applied(), view.state_hash()) else { return };
        let before = *self.0.lock().hashes.entry(at).or_insert(hash);
        self.trace(&format!("state {at:?} {hash:016x}"));
        if before != hash {
            self.fail(format!("the namespace at {at:?} was {before:016x} and is {hash:016x}"));
        }
    }
}

/// A run that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Over the whole trace.
    pub trace: u64,
    /// Lines of the trace.
    pub lines: u64,
    /// Changes acknowledged, and not.
    pub counts: (u64, u64),
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
pub fn run(seed: u64, print: bool) -> Result<Report, Box<Failure>> {
    let shared = Shared::new(Trace::new(print));
    let outcome = World::new(seed, shared.clone()).play();
    match shared.failure().or_else(|| outcome.err()) {
        None => {
            Ok(Report { trace: shared.1.hash(), lines: shared.1.lines(), counts: shared.ledger().counts() })
        }
        Some(why) => Err(Box::new(Failure { seed, why, last: shared.1.last() })),
    }
}

struct World {
    sim: turmoil::Sim<'static>,
    plan: Plan,
    disks: BTreeMap<Node, CrashDisk>,
    clocks: BTreeMap<Node, Rc<Cell<i64>>>,
    shared: Shared,
}

impl World {
    fn new(seed: u64, shared: Shared) -> World {
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .min_message_latency(TICK)
            .max_message_latency(LATENCY_MAX)
            .simulation_duration(Duration::from_millis(FAULTS_MS + SETTLE_LIMIT_MS))
            .tcp_capacity(4_096)
            .build();
        let entropy = Entropy::seeded(seed);
        let disks =
            machines(DATANODES).into_iter().map(|node| (node, CrashDisk::new(entropy.u64()))).collect();
        let clocks = machines(DATANODES).into_iter().chain([Node::Client]);
        let clocks = clocks.map(|node| (node, Rc::new(Cell::new(0)))).collect();
        let mut world = World { sim, plan: Plan::draw(seed, DATANODES), disks, clocks, shared };
        world.add_namenode(Entropy::seeded(entropy.u64()));
        for at in 0..DATANODES {
            world.add_datanode(at, Entropy::seeded(entropy.u64()));
        }
        world.add_client(Entropy::seeded(entropy.u64()));
        world
    }

    fn add_namenode(&mut self, entropy: Entropy) {
        let disk = self.disks[&Node::Namenode].clone();
        let (shared, jump) = (self.shared.clone(), Rc::clone(&self.clocks[&Node::Namenode]));
        self.sim.host("nn", move || {
            let (disk, shared, env) = (disk.clone(), shared.clone(), env(&entropy, &jump));
            async move {
                let config = namenode_config();
                let namenode = match NameNode::start(env()?, disk.process(), config).await {
                    Ok(namenode) => namenode,
                    Err(error) => {
                        shared.fail(format!("the NameNode does not start: {error}"));
                        return Ok(());
                    }
                };
                let service = namenode.service();
                shared.sample_hash(&service);
                shared.0.lock().service = Some(service);
                let why = namenode.stopped().await;
                shared.fail(format!("the NameNode stopped: {why}"));
                Ok(())
            }
        });
    }

    fn add_datanode(&mut self, at: usize, entropy: Entropy) {
        let node = Node::Datanode(at);
        let (disk, shared) = (self.disks[&node].clone(), self.shared.clone());
        let jump = Rc::clone(&self.clocks[&node]);
        self.sim.host(node.to_string(), move || {
            let (disk, shared, env) = (disk.clone(), shared.clone(), env(&entropy, &jump));
            async move {
                let datanode = match DataNode::start(env()?, disk.process(), datanode_config(at)).await {
                    Ok(datanode) => datanode,
                    Err(error) => {
                        shared.fail(format!("DataNode {at} does not start: {error}"));
                        return Ok(());
                    }
                };
                let why = datanode.wait_stopped().await;
                shared.fail(format!("DataNode {at} stopped: {why}"));
                Ok(())
            }
        });
    }

    fn add_client(&mut self, entropy: Entropy) {
        let (shared, jump) = (self.shared.clone(), Rc::clone(&self.clocks[&Node::Client]));
        let env = env(&entropy, &jump);
        self.sim.client("client", async move {
            let env = env()?;
            let namenode = format!("nn:{NAMENODE_PORT}");
            workload::work(&env, &namenode, &shared).await;
            healed(&shared).await;
            workload::verify(&env, &namenode, &shared, "after the faults").await;
            if let Some(service) = shared.service() {
                shared.sample_hash(&service);
            }
            shared.set_phase(Phase::Blackout);
            while shared.phase() != Phase::After {
                tokio::time::sleep(POLL).await;
            }
            healed(&shared).await;
            workload::verify(&env, &namenode, &shared, "after the blackout").await;
            Ok(())
        });
    }

    /// Steps until the client is done or something has failed.
    fn play(mut self) -> Result<(), String> {
        let mut sampled_ms = 0;
        loop {
            let now_ms = self.sim.elapsed().as_millis() as u64;
            while let Some(fault) = self.plan.due(now_ms) {
                self.strike(fault);
            }
            if now_ms >= FAULTS_MS && self.shared.phase() == Phase::Faults {
                self.shared.set_phase(Phase::Settle);
            }
            if self.shared.phase() == Phase::Blackout {
                self.blackout();
            }
            if now_ms >= sampled_ms + SAMPLE_MS {
                sampled_ms = now_ms;
                self.sample();
            }
            if self.shared.failure().is_some() {
                return Ok(());
            }
            match self.sim.step() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn sample(&self) {
        if self.sim.is_host_running("nn")
            && let Some(service) = self.shared.service()
        {
            self.shared.sample_hash(&service);
        }
    }

    fn strike(&mut self, fault: Fault) {
        let now = self.sim.elapsed().as_millis();
        self.shared.1.add(now, &format!("** {fault}"));
        match fault {
            Fault::Kill(node) => self.crash(node, Crash::Kill),
            Fault::PowerLoss(node) => self.crash(node, Crash::PowerLoss),
            Fault::Restart(node) => self.sim.bounce(node.to_string()),
            Fault::Cut(a, b) => self.sim.partition(a.to_string(), b.to_string()),
            Fault::CutOneWay(from, to) => self.sim.partition_oneway(from.to_string(), to.to_string()),
            Fault::Mend(a, b) => self.sim.repair(a.to_string(), b.to_string()),
            Fault::Jump(node, ms) => {
                let clock = &self.clocks[&node];
                clock.set(clock.get() + ms);
            }
        }
    }

    fn crash(&mut self, node: Node, crash: Crash) {
        if node == Node::Namenode {
            self.shared.0.lock().service = None;
        }
        self.sim.crash(node.to_string());
        self.disks[&node].crash(crash);
    }

    /// The power fails everywhere; all comes back.
    fn blackout(&mut self) {
        for node in machines(DATANODES) {
            self.crash(node, Crash::PowerLoss);
        }
        for node in machines(DATANODES) {
            self.sim.bounce(node.to_string());
        }
        self.shared.1.add(self.sim.elapsed().as_millis(), "** blackout");
        self.shared.0.lock().phase = Phase::After;
    }
}

/// How often conditions are looked at, in simulated time.
const POLL: Duration = Duration::from_millis(100);
/// How often the namespace's hash is sampled.
const SAMPLE_MS: u64 = 1_000;
/// All is whole within this after the faults, or the AutoHealer has failed.
const HEALED_LIMIT: Duration = Duration::from_secs(200);

/// Waits until the NameNode says that every closed file has all its replicas.
async fn healed(shared: &Shared) {
    let healed = async {
        loop {
            if shared.service().is_some_and(|service| {
                let health = service.health();
                health.healed && health.under_replicated == 0 && health.missing == 0
            }) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(HEALED_LIMIT, healed).await.is_err() {
        let health = shared.service().map(|service| service.health());
        shared.fail(format!("not healed within {HEALED_LIMIT:?}: {health:?}"));
        return;
    }
    shared.trace("healed");
}

/// An environment for a machine that starts now. Made inside its runtime, where its clock runs.
fn env(entropy: &Entropy, jump: &Rc<Cell<i64>>) -> impl FnOnce() -> turmoil::Result<Env> + 'static {
    let (entropy, jump) = (Entropy::seeded(entropy.u64()), Rc::clone(jump));
    move || {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
        let clock = Clock::virtual_from(EPOCH_MS + elapsed);
        clock.jump(jump.get());
        Ok(Env { net: Net::sim(), clock, entropy })
    }
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

fn namenode_config() -> NamenodeConfig {
    let mut config = NamenodeConfig {
        name_dir: PathBuf::from("/name"),
        listen: anywhere(NAMENODE_PORT),
        user: "sim".into(),
        cache_bytes: 8 << 20,
        ..NamenodeConfig::default()
    };
    config.rules.block_size_min = 0;
    config.groups = mobula_namenode::GroupMapping::Static(BTreeMap::new());
    config
}

fn datanode_config(at: usize) -> DatanodeConfig {
    DatanodeConfig {
        volumes: vec![VolumeConfig::new("/data")],
        namenodes: vec![format!("nn:{NAMENODE_PORT}")],
        listen: anywhere(DATA_PORT),
        ipc_listen: anywhere(IPC_PORT),
        host_name: format!("dn{at}"),
        user: "sim".into(),
        ..DatanodeConfig::default()
    }
}
