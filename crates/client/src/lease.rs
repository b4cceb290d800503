//! Keeps the leases of open files alive: one renewal each 30 s while any file is open, by one task
//! per client (HDFS: `LeaseRenewer`).

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mobula_proto::hdfs;
use parking_lot::Mutex;

use crate::namenode::NameNodeProxy;

/// Half of the soft limit after which others may take a file (HDFS: 60 s).
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// After one that failed; twice as long after each further one, up to [`RENEW_EVERY`].
const RENEW_AGAIN: Duration = Duration::from_secs(1);

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
        let namenode = namenode.clone();
        let ask = async move || namenode.renew_lease(request.clone()).await.map(drop);
        tokio::spawn(renew(Arc::downgrade(leases), ask));
    }
    Lease { leases: leases.clone() }
}

/// Renews with `ask` as long as files are open; soon again when that failed, since it may have taken half of the lease's
/// time to fail.
async fn renew<E: Display>(leases: Weak<Leases>, ask: impl AsyncFn() -> Result<(), E>) {
    let mut pause = RENEW_EVERY;
    let mut again = RENEW_AGAIN;
    loop {
        tokio::time::sleep(pause).await;
        let Some(leases) = leases.upgrade() else { return };
        {
            let mut state = leases.state.lock();
            if state.open == 0 {
                state.renewing = false;
                return;
            }
        }
        pause = match ask().await {
            Ok(()) => {
                again = RENEW_AGAIN;
                RENEW_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "the leases of open files were not renewed");
                let now = again;
                again = (again * 2).min(RENEW_EVERY);
                now
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A network that is away for half a minute fails one renewal late; the next one must not wait for its usual time.
    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_failed_is_tried_again_soon() {
        let leases = Arc::new(Leases::default());
        leases.state.lock().open = 1;
        let (begun, renewed) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let times = renewed.clone();
        let ask = async move || {
            let at = begun.elapsed().as_secs();
            if (30..61).contains(&at) {
                sleep(Duration::from_secs(30)).await;
                return Err("the network is away");
            }
            times.lock().push(at);
            Ok(())
        };
        tokio::spawn(renew(Arc::downgrade(&leases), ask));
        sleep(Duration::from_secs(120)).await;
        assert_eq!(*renewed.lock(), [61, 91]);
    }
}
