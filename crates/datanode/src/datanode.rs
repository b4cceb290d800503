//! The DataNode as a whole: starts its rooms, and ends them in order.

use std::net::SocketAddr;

use mobula_disk::DiskRef;
use mobula_net::Env;
use mobula_types::DatanodeUuid;

use crate::config::DatanodeConfig;
use crate::error::{DatanodeError, Stopped};

/// A running DataNode. Dropping it is its sudden death; [`DataNode::shutdown`] ends it in order.
#[derive(Debug)]
pub struct DataNode {
    xfer_addr: SocketAddr,
    ipc_addr: SocketAddr,
    uuid: DatanodeUuid,
}

impl DataNode {
    /// Opens the volumes, listens, and starts to report to the NameNodes. Does not wait for them:
    /// see [`DataNode::wait_registered`]. Fresh volumes are formatted when the first NameNode says
    /// which cluster it is.
    ///
    /// # Errors
    /// [`DatanodeError`]; nothing on the disks was changed then but the lock files.
    pub async fn start(_env: Env, _disk: DiskRef, _config: DatanodeConfig) -> Result<DataNode, DatanodeError> {
        unimplemented!()
    }

    /// Where data transfer listens.
    pub fn xfer_addr(&self) -> SocketAddr {
        self.xfer_addr
    }

    /// Where its RPC server listens.
    pub fn ipc_addr(&self) -> SocketAddr {
        self.ipc_addr
    }

    /// Its identity, kept in its volumes' `VERSION` files.
    pub fn uuid(&self) -> DatanodeUuid {
        self.uuid.clone()
    }

    /// Waits until one NameNode has registered it and has had its full report.
    ///
    /// # Errors
    /// [`Stopped`] if it stopped by itself meanwhile.
    pub async fn wait_registered(&self) -> Result<(), Stopped> {
        unimplemented!()
    }

    /// Why it stopped by itself, if it did.
    pub fn stopped(&self) -> Option<Stopped> {
        unimplemented!()
    }

    /// Waits until it stops by itself.
    pub async fn wait_stopped(&self) -> Stopped {
        unimplemented!()
    }

    /// Ends it in order: tells the NameNodes, takes no more connections, lets the disks finish what
    /// was begun, and releases the folders.
    pub async fn shutdown(self) {
        unimplemented!()
    }
}
