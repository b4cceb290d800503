//! A whole cluster in this process: for tests, for `mobula local`, for a look around.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mobula_client::{Client, ClientOptions, ReplaceDatanode};
use mobula_datanode::{DataNode, DatanodeConfig, VolumeConfig};
use mobula_disk::{DiskRef, RealDisk};
use mobula_namenode::{NameNode, NamenodeConfig};
use mobula_net::Env;

use crate::config::user_name;

/// What a cluster is made of; every field has a default, so that each one set matters.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many DataNodes.
    pub datanodes: usize,
    /// Volumes of each DataNode.
    pub volumes: usize,
    /// Where everything is kept; none: a temporary folder that goes with the cluster.
    pub dir: Option<PathBuf>,
    /// The NameNode's RPC port on loopback; 0 picks a free one.
    pub port: u16,
    /// The NameNode's settings; folder and address are set from the fields above.
    pub namenode: NamenodeConfig,
    /// What every DataNode starts from; folders, address and NameNode are set for each.
    pub datanode: DatanodeConfig,
    /// Bytes of each volume that are not used.
    pub reserved: u64,
    /// The user that clients of the cluster are.
    pub user: String,
}

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        let user = user_name();
        let mut namenode = NamenodeConfig { user: user.clone(), ..NamenodeConfig::default() };
        namenode.rules.block_size_min = 0;
        ClusterOptions {
            datanodes: 3,
            volumes: 1,
            dir: None,
            port: 0,
            namenode,
            datanode: DatanodeConfig { user: user.clone(), ..DatanodeConfig::default() },
            reserved: 0,
            user,
        }
    }
}

/// A running cluster. Dropping it ends it as a kill would; [`Cluster::shutdown`] ends it in order.
#[derive(Debug)]
pub struct Cluster {
    env: Env,
    disk: DiskRef,
    options: ClusterOptions,
    namenode: Option<NameNode>,
    datanodes: Vec<Option<DataNode>>,
    address: SocketAddr,
    // Last, so that it goes after those who write into it.
    folder: Folder,
}

#[derive(Debug)]
enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Folder::Kept(path) => path,
            Folder::Temporary(folder) => folder.path(),
        }
    }
}

/// A cluster that is not whole after this long says so instead of waiting on.
const READY_LIMIT: Duration = Duration::from_secs(60);

impl Cluster {
    /// A cluster with `change` made to the defaults: `Cluster::with(|c| c.datanodes = 4)`.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn with(change: impl FnOnce(&mut ClusterOptions)) -> Result<Cluster> {
        let mut options = ClusterOptions::default();
        change(&mut options);
        Cluster::start(options).await
    }

    /// Starts the NameNode and all DataNodes and waits until they serve.
    ///
    /// # Errors
    /// Port taken, folder of another cluster, folder in use, a disk that cannot be written: each
    /// named; nothing is damaged.
    pub async fn start(options: ClusterOptions) -> Result<Cluster> {
        let folder = match &options.dir {
            Some(path) => Folder::Kept(path.clone()),
            None => Folder::Temporary(
                tempfile::Builder::new()
                    .prefix("mobula-")
                    .tempdir()
                    .context("cannot make a temporary folder")?,
            ),
        };
        let (env, disk) = (Env::real(), RealDisk::new());
        let namenode = start_namenode(&env, &disk, &options, folder.path(), options.port).await?;
        let address = namenode.rpc_addr();
        let mut cluster =
            Cluster { env, disk, folder, address, namenode: Some(namenode), datanodes: Vec::new(), options };
        for at in 0..cluster.options.datanodes {
            let datanode = cluster.launch_datanode(at).await?;
            cluster.datanodes.push(Some(datanode));
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// The NameNode's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `hdfs://HOST:PORT`.
    pub fn uri(&self) -> String {
        format!("hdfs://{}", self.address)
    }

    /// The folder with everything in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The NameNode, unless it was killed.
    pub fn namenode(&self) -> Option<&NameNode> {
        self.namenode.as_ref()
    }

    /// DataNode `at`, unless it was killed.
    pub fn datanode(&self, at: usize) -> Option<&DataNode> {
        self.datanodes.get(at)?.as_ref()
    }

    /// A client for the cluster's user.
    pub fn client(&self) -> Client {
        self.client_as(&self.options.user)
    }

    /// A client for some user.
    pub fn client_as(&self, user: &str) -> Client {
        Client::new(
            self.env.clone(),
            ClientOptions {
                namenodes: vec![self.address.to_string()],
                user: user.into(),
                replication: None,
                block_size: None,
                umask: 0o022,
                call_limit: READY_LIMIT,
                replace_datanode: ReplaceDatanode::default(),
                favored_nodes: Vec::new(),
            },
        )
    }

    /// Ends DataNode `at` without a word, as a kill would.
    pub fn kill_datanode(&mut self, at: usize) {
        self.datanodes[at] = None;
    }

    /// Starts DataNode `at` again on its folders and waits until it is registered.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn restart_datanode(&mut self, at: usize) -> Result<()> {
        self.datanodes[at] = None;
        let datanode = self.launch_datanode(at).await?;
        registered(&datanode).await?;
        self.datanodes[at] = Some(datanode);
        Ok(())
    }

    /// Ends the NameNode without a word, as a kill would.
    pub fn kill_namenode(&mut self) {
        self.namenode = None;
    }

    /// Starts the NameNode again on its folder and port.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn restart_namenode(&mut self) -> Result<()> {
        self.namenode = None;
        let namenode =
            start_namenode(&self.env, &self.disk, &self.options, self.folder.path(), self.address.port())
                .await?;
        self.namenode = Some(namenode);
        Ok(())
    }

    /// Waits until every DataNode is registered and has reported.
    ///
    /// # Errors
    /// One that stopped, or took longer than a minute.
    pub async fn wait_ready(&self) -> Result<()> {
        for datanode in self.datanodes.iter().flatten() {
            registered(datanode).await?;
        }
        Ok(())
    }

    /// Ends everything in order: DataNodes first, so that they can say so.
    pub async fn shutdown(mut self) {
        for datanode in self.datanodes.iter_mut().filter_map(Option::take) {
            datanode.shutdown().await;
        }
        if let Some(namenode) = self.namenode.take() {
            namenode.shutdown().await;
        }
    }

    async fn launch_datanode(&self, at: usize) -> Result<DataNode> {
        let mut config = self.options.datanode.clone();
        let folder = self.folder.path().join(format!("datanode-{at}"));
        let volume = |path| VolumeConfig { reserved: self.options.reserved, ..VolumeConfig::new(path) };
        config.volumes = match self.options.volumes {
            1 => vec![volume(folder)],
            many => (0..many).map(|number| volume(folder.join(format!("volume-{number}")))).collect(),
        };
        config.namenodes = vec![self.address.to_string()];
        DataNode::start(self.env.clone(), self.disk.clone(), config)
            .await
            .with_context(|| format!("DataNode {at} does not start"))
    }
}

async fn start_namenode(
    env: &Env,
    disk: &DiskRef,
    options: &ClusterOptions,
    folder: &Path,
    port: u16,
) -> Result<NameNode> {
    let mut config = options.namenode.clone();
    config.name_dir = folder.join("namenode");
    config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    NameNode::start(env.clone(), disk.clone(), config).await.context("the NameNode does not start")
}

async fn registered(datanode: &DataNode) -> Result<()> {
    match tokio::time::timeout(READY_LIMIT, datanode.wait_registered()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stopped)) => bail!("DataNode {} stopped: {stopped}", datanode.xfer_addr()),
        Err(_) => bail!("DataNode {} did not register within {READY_LIMIT:?}", datanode.xfer_addr()),
    }
}
