//! The DataNode as a whole: starts its rooms, and ends them in order.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mobula_disk::DiskRef;
use mobula_net::Env;
use mobula_rpc::{RpcServer, RpcServerOptions};
use mobula_types::DatanodeUuid;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};

use crate::block_recovery::Recoveries;
use crate::config::{DatanodeConfig, VolumeConfig};
use crate::error::{DatanodeError, Stopped};
use crate::ipc::Ipc;
use crate::journal::Journals;
use crate::mirrors::Mirrors;
use crate::namenode_link::{Active, FAREWELL_LIMIT, Link};
use crate::node::Node;
use crate::reports::Reports;
use crate::store::Store;
use crate::syncer::Syncers;
use crate::volume::{Volume, VolumeRef};
use crate::xceiver;

/// How long a folder's lock may still be held by one who is just ending.
const LOCK_LIMIT: Duration = Duration::from_millis(1_500);
/// Between attempts to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Connections to the RPC server at once.
const IPC_CONNECTIONS_MAX: usize = 1_000;
/// Calls of one connection that wait for their answer.
const IPC_CALLS_MAX: usize = 100;
/// Bytes of answers that a client has not read yet.
const IPC_OUTBOX_MAX: usize = 4 << 20;
/// Bytes of requests of all connections that are not answered yet.
const IPC_REQUESTS_MAX: usize = 8 << 20;
/// How long open connections may go on after an orderly end began.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// A running DataNode. Dropping it is its sudden death; [`DataNode::shutdown`] ends it in order.
#[derive(Debug)]
pub struct DataNode {
    node: Arc<Node>,
    links: Vec<JoinHandle<()>>,
    server: JoinHandle<()>,
    _others: Tasks,
    _ipc: RpcServer,
}

/// Tasks that end when this is dropped.
#[derive(Debug)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl DataNode {
    /// Opens the volumes, listens, and starts to report to the NameNodes. Does not wait for them:
    /// see [`DataNode::wait_registered`]. Fresh volumes are formatted when the first NameNode says
    /// which cluster it is.
    ///
    /// # Errors
    /// [`DatanodeError`]; nothing on the disks was changed then but the lock files. A disk that fails is none as long as
    /// the configuration tolerates it and another volume says which DataNode this is.
    pub async fn start(env: Env, disk: DiskRef, config: DatanodeConfig) -> Result<DataNode, DatanodeError> {
        check(&config)?;
        let (volumes, absent) = open_volumes(&env, &disk, &config).await?;
        let uuid = common_uuid(&env, &volumes)?;
        let listener = env.net.listen(config.listen).await.map_err(DatanodeError::Listen)?;
        let ipc_listener = env.net.listen(config.ipc_listen).await.map_err(DatanodeError::Listen)?;
        let xfer_addr = listener.local_addr().map_err(DatanodeError::Listen)?;
        let ipc_addr = ipc_listener.local_addr().map_err(DatanodeError::Listen)?;
        let reports = Arc::new(Reports::new(config.namenodes.len()));
        let (syncers, sync_tasks) = Syncers::start(&volumes);
        let (journals, journal_tasks) = Journals::start(&volumes, config.journal_bytes, &env.entropy);
        let limits = (config.volume_spare_bytes, config.direct_write_min_bytes);
        let store = Store::new(volumes, limits, reports, (syncers, journals)).without(absent);
        let node = Arc::new(Node {
            uuid,
            xfer_addr,
            ipc_addr,
            store: Arc::new(store),
            restarting: watch::Sender::new(false),
            stopped: watch::Sender::new(None),
            registered: watch::Sender::new(0),
            pool_known: Notify::new(),
            ending: AtomicBool::new(false),
            ended: Notify::new(),
            active: Active::default(),
            mirrors: Mirrors::default(),
            xceivers: AtomicUsize::new(0),
            transfers: AtomicUsize::new(0),
            transfer_permits: Arc::new(Semaphore::new(config.transfers_max.max(1))),
            recoveries: Recoveries::default(),
            identity: OnceLock::new(),
            started_ms: env.clock.monotonic_ms(),
            env,
            config,
        });
        let options = RpcServerOptions {
            connections_max: IPC_CONNECTIONS_MAX,
            calls_in_flight_max: IPC_CALLS_MAX,
            outbox_bytes_max: IPC_OUTBOX_MAX,
            request_bytes_max: IPC_REQUESTS_MAX,
        };
        let ipc = RpcServer::start(&node.env, ipc_listener, Arc::new(Ipc { node: node.clone() }), options);
        let server = tokio::spawn(xceiver::serve(node.clone(), listener));
        let links: Vec<JoinHandle<()>> = (0..node.config.namenodes.len())
            .map(|index| tokio::spawn(Link::new(node.clone(), index).run()))
            .collect();
        let watch = tokio::spawn(watch_volumes(node.clone()));
        let mut others = vec![server.abort_handle(), watch.abort_handle()];
        others.extend(links.iter().map(JoinHandle::abort_handle));
        others.extend(sync_tasks.iter().chain(&journal_tasks).map(JoinHandle::abort_handle));
        Ok(DataNode { node, links, server, _others: Tasks(others), _ipc: ipc })
    }

    /// Where data transfer listens.
    pub fn xfer_addr(&self) -> SocketAddr {
        self.node.xfer_addr
    }

    /// Where its RPC server listens.
    pub fn ipc_addr(&self) -> SocketAddr {
        self.node.ipc_addr
    }

    /// Its identity, kept in its volumes' `VERSION` files.
    pub fn uuid(&self) -> DatanodeUuid {
        self.node.uuid.clone()
    }

    /// How many replicas it holds, open ones among them.
    pub fn replicas(&self) -> usize {
        self.node.store.count()
    }

    /// Waits until one NameNode has registered it and has had its full report.
    ///
    /// # Errors
    /// [`Stopped`] if it stopped by itself meanwhile.
    pub async fn wait_registered(&self) -> Result<(), Stopped> {
        let mut registered = self.node.registered.subscribe();
        tokio::select! {
            biased;
            why = self.wait_stopped() => Err(why),
            _ = registered.wait_for(|count| *count > 0) => Ok(()),
        }
    }

    /// Why it stopped by itself, if it did.
    pub fn stopped(&self) -> Option<Stopped> {
        self.node.stopped.borrow().clone()
    }

    /// Waits until it stops by itself.
    pub async fn wait_stopped(&self) -> Stopped {
        let mut stopped = self.node.stopped.subscribe();
        let why = stopped.wait_for(Option::is_some).await.expect("the sender lives as long as the node");
        why.clone().expect("it was waited for")
    }

    /// Ends it in order: tells the NameNodes, takes no more connections, lets the disks finish what
    /// was begun, and releases the folders.
    pub async fn shutdown(mut self) {
        self.node.ending.store(true, Ordering::Release);
        self.node.ended.notify_waiters();
        for _ in &self.links {
            self.node.ended.notify_one();
        }
        let node = self.node.clone();
        let give_up = Instant::now() + FAREWELL_LIMIT;
        for link in &mut self.links {
            node.ended.notify_waiters();
            let _ = timeout(give_up.saturating_duration_since(Instant::now()), link).await;
        }
        let drained = async {
            while node.xceivers.load(Ordering::Relaxed) > 0 {
                sleep(LOCK_PAUSE).await;
            }
        };
        // Those who still write see the connection end, as with any other stop.
        let _ = timeout(DRAIN_LIMIT, drained).await;
        node.store.journals.close().await;
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

fn check(config: &DatanodeConfig) -> Result<(), DatanodeError> {
    if config.volumes.is_empty() {
        return Err(DatanodeError::Config("a DataNode needs at least one volume".into()));
    }
    if config.namenodes.is_empty() {
        return Err(DatanodeError::Config("a DataNode needs the address of a NameNode".into()));
    }
    let folders: BTreeSet<_> = config.volumes.iter().map(|volume| &volume.path).collect();
    if folders.len() != config.volumes.len() {
        return Err(DatanodeError::Config("two volumes have the same folder".into()));
    }
    Ok(())
}

/// Opens all volumes, and says which could not be opened because their disks failed. Whoever held a lock a moment ago
/// may still be ending: it is waited for a little.
async fn open_volumes(
    env: &Env,
    disk: &DiskRef,
    config: &DatanodeConfig,
) -> Result<(Vec<VolumeRef>, Vec<VolumeConfig>), DatanodeError> {
    let give_up = Instant::now() + LOCK_LIMIT;
    let owner = format!("{}@{}", std::process::id(), config.host_name);
    let start = disk.pool("start", 1);
    let (mut volumes, mut absent, mut first) = (Vec::new(), Vec::new(), None);
    for of in &config.volumes {
        loop {
            let (disk, volume, owner) = (disk.clone(), of.clone(), owner.clone());
            let (index, threads, id) = (volumes.len(), config.volume_threads, env.entropy.uuid());
            let open = start.run(move || Volume::open(&disk, index, &volume, threads, id, &owner));
            match open.await {
                Ok(volume) => {
                    volumes.push(Arc::new(volume));
                    break;
                }
                Err(DatanodeError::Locked { .. }) if Instant::now() < give_up => sleep(LOCK_PAUSE).await,
                // What it holds can be read, and is not what it should be, or this process is short of something: that is no
                // failure of the disk.
                Err(DatanodeError::Disk { source, .. })
                    if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::OutOfMemory) =>
                {
                    return Err(DatanodeError::Disk { folder: of.path.clone(), source });
                }
                Err(error @ DatanodeError::Disk { .. }) => {
                    tracing::error!(volume = %of.path.display(), %error, "a volume failed: goes on without it");
                    absent.push(of.clone());
                    first.get_or_insert(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    match first {
        Some(error) if !can_do_without(absent.len(), &volumes, config) => Err(error),
        _ => Ok((volumes, absent)),
    }
}

/// Whether the node can start although so many volumes have failed. If those left are all fresh, they do not say which
/// DataNode it is: it would take another name than the one that a failed disk may hold.
fn can_do_without(failed: usize, left: &[VolumeRef], config: &DatanodeConfig) -> bool {
    let known = left.iter().any(|volume| volume.owner().is_some());
    known && config.failed_volumes_tolerated.is_none_or(|most| failed <= most)
}

/// The DataNode that all formatted volumes belong to, or a new one.
fn common_uuid(env: &Env, volumes: &[VolumeRef]) -> Result<DatanodeUuid, DatanodeError> {
    let mut owners = volumes.iter().filter_map(|volume| Some((volume, volume.owner()?)));
    let Some((first, (cluster, uuid))) = owners.next() else {
        return Ok(DatanodeUuid::from(env.entropy.uuid()));
    };
    for (volume, (other_cluster, other_uuid)) in owners {
        if (&other_cluster, &other_uuid) != (&cluster, &uuid) {
            let reason = format!(
                "belongs to DataNode {other_uuid} of cluster {other_cluster}, but {} to DataNode {uuid} of cluster {cluster}",
                first.config.path.display()
            );
            return Err(DatanodeError::Folder { folder: volume.config.path.clone(), reason });
        }
    }
    Ok(DatanodeUuid::from(uuid))
}

/// Asks the disks for their room, finds those that fail, and stops the node when too many did.
async fn watch_volumes(node: Arc<Node>) {
    let every = Duration::from_millis(node.config.heartbeat_ms);
    loop {
        let failed = node.store.failed_volumes().count();
        let all = node.config.volumes.len();
        if failed == all || node.config.failed_volumes_tolerated.is_some_and(|most| failed > most) {
            node.stop(Stopped::VolumesFailed { failed, all });
            return;
        }
        tokio::select! {
            biased;
            () = node.store.volume_failed.notified() => continue,
            () = sleep(every) => {}
        }
        for volume in node.store.volumes.iter().filter(|volume| !volume.is_failed()) {
            let of = volume.clone();
            let measured: io::Result<()> = volume.pool.run(move || of.measure()).await;
            if let Err(error) = volume.check() {
                node.store.fail_volume(volume, &error);
            } else if let Err(error) = measured {
                node.store.examine(volume, &error).await;
            }
        }
    }
}
