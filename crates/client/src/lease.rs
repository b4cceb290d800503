//! Keeps the leases of open files alive: one renewal each 30 s while any file is open, by one task
//! per client (HDFS: `LeaseRenewer`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use mobula_proto::hdfs;
use parking_lot::Mutex;

use crate::namenode::NameNodeProxy;

/// Half of the soft limit after which others may take a file (HDFS: 60 s).
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// How many files are open for writing.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    renewing: bool,
}

/// One open file.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Arc<Leases>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.state.lock().open -= 1;
    }
}

/// Counts a file as open until the answer is dropped, and sees to it that leases are renewed.
pub(crate) fn hold(leases: &Arc<Leases>, namenode: &NameNodeProxy, client_name: &str) -> Lease {
    let mut state = leases.state.lock();
    state.open += 1;
    if !state.renewing {
        state.renewing = true;
        let request =
            hdfs::RenewLeaseRequestProto { client_name: client_name.into(), namespaces: Vec::new() };
        tokio::spawn(renew(Arc::downgrade(leases), namenode.clone(), request));
    }
    Lease { leases: leases.clone() }
}

async fn renew(leases: Weak<Leases>, namenode: NameNodeProxy, request: hdfs::RenewLeaseRequestProto) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let Some(leases) = leases.upgrade() else { return };
        {
            let mut state = leases.state.lock();
            if state.open == 0 {
                state.renewing = false;
                return;
            }
        }
        if let Err(error) = namenode.renew_lease(request.clone()).await {
            tracing::warn!(%error, "the leases of open files were not renewed");
        }
    }
}
