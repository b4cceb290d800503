//! A running NameNode: starts its parts in order, and ends them in the reverse order.

use std::net::SocketAddr;
use std::sync::Arc;

use mobula_disk::DiskRef;
use mobula_net::Env;

use crate::config::NamenodeConfig;
use crate::error::NamenodeError;
use crate::service::Service;

/// A NameNode that serves. Dropping it stops it as a kill would: what was acknowledged is safe.
#[derive(Debug)]
pub struct NameNode {
    address: SocketAddr,
    service: Arc<Service>,
}

impl NameNode {
    /// Starts on `config.name_dir`, which is formatted if it is empty, and only then. Answers once
    /// it serves.
    ///
    /// # Errors
    /// [`NamenodeError`]; nothing is damaged.
    pub async fn start(
        _env: Env,
        _disk: DiskRef,
        _config: NamenodeConfig,
    ) -> Result<NameNode, NamenodeError> {
        unimplemented!()
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
    pub async fn shutdown(self) {}

    /// Resolves with the reason when it must stop by itself: a failed sync, a corrupt log.
    pub async fn stopped(&self) -> NamenodeError {
        std::future::pending().await
    }
}
