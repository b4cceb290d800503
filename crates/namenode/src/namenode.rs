//! A running NameNode: starts its parts in order, and ends them in the reverse order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use mobula_disk::DiskRef;
use mobula_namespace::{Batch, Command, Format, Namespace, Operation, Outcome};
use mobula_net::{Env, Listener};
use mobula_raft::{Raft, RaftOptions};
use mobula_rpc::RpcServer;
use mobula_types::{BlockId, GenStamp, InodeId, Millis};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::access_times::AccessTimes;
use crate::batcher::Batcher;
use crate::config::NamenodeConfig;
use crate::error::NamenodeError;
use crate::exceptions::Refusal;
use crate::format::{self, NameFolder};
use crate::front::Front;
use crate::groups::Groups;
use crate::healer;
use crate::leases::Leases;
use crate::machine::{NamespaceMachine, PublishedView};
use crate::room::Room;
use crate::roster::Roster;
use crate::safe_mode::SafeMode;
use crate::service::{Service, own_caller};

/// This voter's number, while there is one.
const NODE: u64 = 1;
/// How long a port may stay in use.
const PORT_LIMIT: Duration = Duration::from_millis(500);
const PORT_PAUSE: Duration = Duration::from_millis(10);
/// Threads for group lookups: a directory server may be slow.
const GROUP_THREADS: usize = 2;
/// Threads for reads of whole trees: one that takes seconds does not hold up the next.
const TREE_THREADS: usize = 2;
/// Namespace ids have 31 bits, and 0 means none.
const NAMESPACE_IDS: u64 = 0x7fff_fffe;

/// A NameNode that serves. Dropping it stops it as a kill would: what was acknowledged is safe.
#[derive(Debug)]
pub struct NameNode {
    address: SocketAddr,
    service: Arc<Service>,
    stopped: watch::Receiver<Option<String>>,
    // In the order of their end: no more calls, no more work, then the folder is free.
    server: Option<RpcServer>,
    tasks: Tasks,
    folder: NameFolder,
}

/// Tasks that end with their owner.
#[derive(Debug, Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl NameNode {
    /// Starts on `config.name_dir`, which is formatted if it is empty, and only then. Answers once
    /// it serves.
    ///
    /// # Errors
    /// [`NamenodeError`]; nothing is damaged.
    pub async fn start(
        env: Env,
        disk: DiskRef,
        mut config: NamenodeConfig,
    ) -> Result<NameNode, NamenodeError> {
        config.fleet.replication_min = config.rules.replication_min;
        let (folder, tables) = format::take(&disk, &config.name_dir).await?;
        // Before the log: whoever cannot listen should not have replayed it.
        let listener = listen(&env, config.listen).await?;
        let namespace = open_tables(&disk, tables, &folder, config.cache_bytes).await?;
        let is_new = namespace.applied().is_none();
        let view: Arc<PublishedView> = Arc::new(ArcSwap::from_pointee(namespace.view()));
        let roster = Arc::new(Roster::new(
            config.fleet.clone(),
            env.entropy.u64(),
            env.clock.clone(),
            Arc::clone(&view),
        ));
        let raft = start_log(&env, &disk, &config, &folder, namespace, &view, &roster).await?;
        let format = found(&env, &config, &raft, &view).await?;
        if is_new {
            // So that the tables know, before anything is acknowledged, that there is a log: without it, nobody begins
            // anew as if nothing had been.
            raft.compact_now().await.map_err(|error| NamenodeError::Log(error.to_string()))?;
        }
        let service = Arc::new(service(&env, &disk, config, &listener, format, view, roster, raft, &folder)?);
        // Before anybody can write.
        service.check_room().await;
        Ok(serve(&env, listener, service, folder))
    }

    /// Where it serves RPC.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its functions, for programs in the same process: health, notices, nodes.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Ends in order: answers what was accepted, syncs the tables, releases the folder.
    pub async fn shutdown(mut self) {
        self.server = None;
        self.service.batcher.close(Refusal::Stopping("it is shut down".into()));
        self.tasks = Tasks::default();
        self.service.raft.shutdown().await;
        tracing::info!(folder = %self.folder.path.display(), "the NameNode has stopped");
    }

    /// Resolves with the reason when it must stop by itself: a failed sync, a corrupt log.
    pub async fn stopped(&self) -> NamenodeError {
        let mut stopped = self.stopped.clone();
        let reason = match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "it was shut down".into(),
        };
        NamenodeError::Log(reason)
    }
}

/// Listens. A port that is in use may be that of a NameNode of this process that ends just now, or of
/// a killed one whose sockets the operating system is still closing.
async fn listen(env: &Env, address: SocketAddr) -> Result<Listener, NamenodeError> {
    let deadline = tokio::time::Instant::now() + PORT_LIMIT;
    loop {
        match env.net.listen(address).await {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(PORT_PAUSE).await;
            }
            listened => return listened.map_err(NamenodeError::Listen),
        }
    }
}

async fn open_tables(
    disk: &DiskRef,
    tables: format::TablesFile,
    folder: &NameFolder,
    cache_bytes: usize,
) -> Result<Namespace, NamenodeError> {
    let opened = disk.pool("namenode-open", 1).run(move || Namespace::open(tables, cache_bytes)).await;
    opened.map_err(|error| NamenodeError::Tables { folder: folder.path.clone(), reason: error.to_string() })
}

async fn start_log(
    env: &Env,
    disk: &DiskRef,
    config: &NamenodeConfig,
    folder: &NameFolder,
    namespace: Namespace,
    view: &Arc<PublishedView>,
    roster: &Arc<Roster>,
) -> Result<Raft<NamespaceMachine>, NamenodeError> {
    let hears = Arc::clone(roster);
    let effects = Box::new(move |effects| hears.on_effects(effects));
    let machine = NamespaceMachine::new(namespace, Arc::clone(view), effects, folder.share());
    let machine = machine.observed(config.observer.clone());
    let options = RaftOptions {
        sync_every_bytes: config.sync_log_bytes,
        sync_every_commands: config.sync_commands,
        segment_bytes: config.log_segment_bytes,
        ..RaftOptions::alone(NODE)
    };
    let started = Raft::start(env, Arc::clone(disk), folder.log(), options, machine).await;
    started.map_err(|error| NamenodeError::Log(error.to_string()))
}

/// Waits until this node leads, gives a new cluster its identity, and brings the rules up to date.
async fn found(
    env: &Env,
    config: &NamenodeConfig,
    raft: &Raft<NamespaceMachine>,
    view: &PublishedView,
) -> Result<Format, NamenodeError> {
    let mut leadership = raft.leadership();
    let mut stopped = raft.stopped();
    tokio::select! {
        biased;
        reason = stopped.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone());
            return Err(NamenodeError::Log(reason.unwrap_or_else(|| "it was shut down".into())));
        }
        led = leadership.wait_for(|leadership| leadership.is_ready()) => {
            led.map_err(|_| NamenodeError::Log("it was shut down".into()))?;
        }
    }
    if view.load().format().is_none() {
        propose_own(env, config, raft, "Format", Operation::Format(new_format(env, config))).await?;
    }
    if *view.load().rules() != config.rules {
        propose_own(env, config, raft, "Configure", Operation::Configure(config.rules.clone())).await?;
    }
    if *view.load().guards() != config.guards {
        propose_own(env, config, raft, "Guard", Operation::Guard(config.guards.clone())).await?;
    }
    view.load().format().ok_or_else(|| NamenodeError::Refused {
        command: "Format",
        reason: "the namespace has no identity afterwards".into(),
    })
}

async fn propose_own(
    env: &Env,
    config: &NamenodeConfig,
    raft: &Raft<NamespaceMachine>,
    command: &'static str,
    operation: Operation,
) -> Result<Outcome, NamenodeError> {
    let caller = own_caller(&config.user);
    let batch = Batch {
        time: Millis(env.clock.now_ms()),
        commands: vec![Command { caller, retry: None, operation }],
    };
    let applied = raft.propose(batch).await.map_err(|error| NamenodeError::Log(error.to_string()))?;
    let outcome = applied.into_iter().next().expect("one outcome for one command").outcome;
    tracing::info!(command, "done at start");
    outcome.map_err(|error| NamenodeError::Refused { command, reason: error.to_string() })
}

fn new_format(env: &Env, config: &NamenodeConfig) -> Format {
    let now = env.clock.now_ms();
    let number = env.entropy.below(u64::from(u32::MAX));
    let namespace_id = 1 + env.entropy.below(NAMESPACE_IDS);
    Format {
        cluster_id: format!("CID-{}", env.entropy.uuid()),
        namespace_id: u32::try_from(namespace_id).expect("31 bits"),
        pool: format!("BP-{number}-{}-{now}", config.listen.ip()).into(),
        created: Millis(0),
        next_block: BlockId::FIRST,
        next_stamp: GenStamp::FIRST,
        next_inode: InodeId(InodeId::ROOT.0 + 1),
        owner: config.user.clone(),
        rules: config.rules.clone(),
    }
}

#[allow(clippy::too_many_arguments)] // The one place where all parts meet.
fn service(
    env: &Env,
    disk: &DiskRef,
    config: NamenodeConfig,
    listener: &Listener,
    format: Format,
    view: Arc<PublishedView>,
    roster: Arc<Roster>,
    raft: Raft<NamespaceMachine>,
    folder: &NameFolder,
) -> Result<Service, NamenodeError> {
    let local = listener.local_addr().map_err(NamenodeError::Listen)?;
    let address = config.advertised.clone().unwrap_or_else(|| local.to_string());
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
    let now = Millis(env.clock.monotonic_ms());
    let groups = Groups::new(
        config.groups.clone(),
        &config.user,
        &config.rules.supergroup,
        u64::try_from(config.groups_ttl.as_millis()).unwrap_or(u64::MAX / 2),
        env.clock.clone(),
        disk.pool("namenode-groups", GROUP_THREADS),
    );
    Ok(Service {
        clock: env.clock.clone(),
        view,
        roster,
        batcher: Batcher::default(),
        raft,
        leases: Mutex::new(Leases::new(now)),
        groups: Arc::new(groups),
        safe_mode: SafeMode::new(host),
        room: Room::new(
            Arc::clone(disk),
            vec![folder.path.clone(), folder.log()],
            config.room_reserved,
            config.log_segment_bytes,
        ),
        access_times: AccessTimes::default(),
        format,
        leads: AtomicBool::new(true),
        started: now,
        address,
        reports: Semaphore::new(1),
        report_pool: disk.pool("namenode-reports", 1),
        tree_pool: disk.pool("namenode-trees", TREE_THREADS),
        config,
    })
}

fn serve(env: &Env, listener: Listener, service: Arc<Service>, folder: NameFolder) -> NameNode {
    let mut tasks = Tasks::default();
    tasks.spawn(service.batcher.clone().run(Arc::clone(&service)));
    tasks.spawn(healer::watch_room(Arc::clone(&service)));
    tasks.spawn(healer::follow_leadership(Arc::clone(&service), service.raft.leadership()));
    tasks.spawn(healer::heal(Arc::clone(&service)));
    tasks.spawn(healer::expire_leases(Arc::clone(&service)));
    tasks.spawn(healer::recover(Arc::clone(&service)));
    tasks.spawn(healer::reap(Arc::clone(&service)));
    tasks.spawn(healer::keep_time(Arc::clone(&service)));
    let front = Arc::new(Front::new(Arc::clone(&service), folder.share()));
    let server = RpcServer::start(env, listener, front, service.config.rpc.clone());
    let address = server.local_addr();
    let counts = service.view.load().counts();
    tracing::info!(%address, inodes = counts.inodes, blocks = counts.blocks, "the NameNode serves");
    let stopped = service.raft.stopped();
    NameNode { address, service, stopped, server: Some(server), tasks, folder }
}
