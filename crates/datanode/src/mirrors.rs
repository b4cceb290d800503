//! Connections to the next nodes of pipelines that are kept after a block, for the next block's pipeline. To make and to
//! end one took a fifth of what a node does for a block of some KB. Apache's nodes close theirs after a block, and one of ours
//! after a silence: whoever takes one of these must be ready to make another.
//!
//! Invariant: what is kept has said nothing since its block's last acknowledgement.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::node::KEEPALIVE_LIMIT;
use crate::receive::Mirror;

/// Connections that are kept, to all nodes together.
const KEPT_MAX: usize = 64;
/// They are kept so long: the other side gives up a moment later.
const KEPT_LIMIT: Duration = KEEPALIVE_LIMIT.saturating_sub(Duration::from_secs(1));

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mirrors(Mutex<Kept>);

/// By address, the newest last.
type Kept = BTreeMap<String, Vec<(Instant, Mirror)>>;

impl Mirrors {
    /// The newest connection to that node, if there is one.
    pub(crate) fn take(&self, address: &str) -> Option<Mirror> {
        let mut kept = self.0.lock();
        forget_old(&mut kept);
        kept.get_mut(address)?.pop().map(|(_, mirror)| mirror)
    }

    /// Keeps a connection on which nothing is under way.
    pub(crate) fn keep(&self, address: String, mirror: Mirror) {
        let mut kept = self.0.lock();
        forget_old(&mut kept);
        if kept.values().map(Vec::len).sum::<usize>() < KEPT_MAX {
            kept.entry(address).or_default().push((Instant::now(), mirror));
        }
    }
}

fn forget_old(kept: &mut Kept) {
    kept.retain(|_, of_one| {
        of_one.retain(|(since, _)| since.elapsed() < KEPT_LIMIT);
        !of_one.is_empty()
    });
}
