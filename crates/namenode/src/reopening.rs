//! Closed files that are opened again: `append` and `truncate`. Both begin with what only soft state
//! knows, where the last block's good replicas are; `apply` decides by the tables, and if the last block
//! is another one by then, it is looked up again.

use std::sync::Arc;

use mobula_namespace::{
    Append, Appended, BlockState, FileBlock, LastBlock, NamespaceError, Operation, Outcome, Truncate,
};
use mobula_types::{Block, HdfsPath, Millis, Target};
use tokio::time::Instant;

use crate::asker::Asker;
use crate::exceptions::Refusal;
use crate::service::Service;

/// Each time somebody else was faster: more often is no coincidence.
const LOOKS_MAX: usize = 16;

impl Service {
    /// When the present holder of the file's lease spoke last, as log time; the caller, who is about to
    /// hold one, speaks now.
    pub(crate) fn contend(&self, path: &HdfsPath, holder: &str) -> Result<Option<Millis>, Refusal> {
        let view = self.view.load();
        let held = view.lease_at(path).map_err(|error| Refusal::Io(error.to_string()))?;
        // The log's time never goes back: behind a clock that did, everybody would have been silent for that long.
        let time = view.log_time().max(self.time());
        let now = self.monotonic();
        let mut leases = self.leases.lock();
        let silent = held.map(|held| leases.silent(&held.holder, now));
        leases.renew(holder, now);
        Ok(silent.map(|silent| Millis(time.0.saturating_sub(silent.0))))
    }

    /// `append`.
    ///
    /// # Errors
    /// FileNotFound, FileAlreadyExists, AlreadyBeingCreated, RecoveryInProgress; Retriable or Io while
    /// the last block has no replica.
    pub(crate) async fn append(self: &Arc<Self>, asker: &Asker, append: Append) -> Result<Appended, Refusal> {
        self.check_leads()?;
        let deadline = Instant::now() + self.config.placement_wait;
        for _ in 0..LOOKS_MAX {
            let holder_renewed = self.contend(&append.path, &append.holder)?;
            let found = self.view.load().last_block_at(&append.path);
            let last = found.map_err(|error| Refusal::Io(error.to_string()))?;
            let last = self.with_replicas(&append.path, last, deadline).await?;
            let operation = Operation::Append(Append { holder_renewed, last, ..append.clone() });
            match self.execute(asker, operation).await {
                Err(Refusal::Namespace(NamespaceError::LastBlockMoved(_))) => {}
                Ok(Outcome::Appended(appended)) => return Ok(appended),
                Ok(other) => return Err(Refusal::Io(format!("append was answered {other:?}"))),
                Err(refusal) => return Err(refusal),
            }
        }
        Err(moves_on(&append.path))
    }

    /// `truncate`: true if it is done, false if a recovery cuts the last block now, or once nodes that have it
    /// come back.
    ///
    /// # Errors
    /// FileNotFound, AlreadyBeingCreated, RecoveryInProgress; IllegalArgument for a length that the file does not
    /// have.
    pub(crate) async fn truncate(
        self: &Arc<Self>,
        asker: &Asker,
        truncate: Truncate,
    ) -> Result<bool, Refusal> {
        self.check_leads()?;
        for _ in 0..LOOKS_MAX {
            let holder_renewed = self.contend(&truncate.path, &truncate.holder)?;
            let found = self.view.load().block_cut_at(&truncate.path, truncate.length);
            let last = found.map_err(|error| Refusal::Io(error.to_string()))?;
            let last = self.with_known_replicas(&truncate.path, last).await;
            let operation = Operation::Truncate(Truncate { holder_renewed, last, ..truncate.clone() });
            match self.execute(asker, operation).await {
                Err(Refusal::Namespace(NamespaceError::LastBlockMoved(_))) => {}
                Ok(Outcome::Bool(done)) => return Ok(done),
                Ok(other) => return Err(Refusal::Io(format!("truncate was answered {other:?}"))),
                Err(refusal) => return Err(refusal),
            }
        }
        Err(moves_on(&truncate.path))
    }

    /// The good replicas of a block, if they suffice to go on with it.
    fn good_replicas(&self, path: &HdfsPath, block: Block) -> Option<Vec<Target>> {
        let targets = self.roster.ask(|fleet, _| fleet.good_targets(block));
        let enough = targets.len() >= usize::from(self.config.rules.replication_min);
        // Of an open file, or of none, `apply` knows what to say.
        let moot = || !matches!(self.view.load().lease_at(path), Ok(None));
        (enough || moot()).then_some(targets)
    }

    /// What the log did to blocks reaches the fleet a moment after it can be read.
    fn soon(&self) -> Instant {
        Instant::now() + self.config.complete_wait
    }

    /// A block with those good replicas that are known, were it none: the recovery that cuts it waits for
    /// nodes that have it, as in HDFS.
    async fn with_known_replicas(&self, path: &HdfsPath, block: Option<FileBlock>) -> Option<LastBlock> {
        let FileBlock { block, state, .. } = block?;
        if state != BlockState::Committed {
            return Some(LastBlock { block, targets: Vec::new() });
        }
        let found = self.roster.wait_for(self.soon(), || self.good_replicas(path, block)).await;
        let known = || self.roster.ask(|fleet, _| fleet.good_targets(block));
        Some(LastBlock { block, targets: found.unwrap_or_else(known) })
    }

    /// A block with its good replicas. Nodes that have yet to report, after a start, are waited for. An
    /// open block's are of no use: the lease decides in `apply`.
    async fn with_replicas(
        &self,
        path: &HdfsPath,
        block: Option<FileBlock>,
        deadline: Instant,
    ) -> Result<Option<LastBlock>, Refusal> {
        let Some(FileBlock { block, state, .. }) = block else { return Ok(None) };
        if state != BlockState::Committed {
            return Ok(Some(LastBlock { block, targets: Vec::new() }));
        }
        let good = || self.good_replicas(path, block);
        // Without nodes that have yet to report there is nothing to wait for.
        let awaited = || {
            let progress = self.roster.ask(|fleet, _| fleet.start_progress());
            progress.nodes == 0 || progress.nodes_reported < progress.nodes
        };
        let come = || match good() {
            Some(targets) => Some(Some(targets)),
            None if awaited() => None,
            None => Some(None),
        };
        let soon = deadline.min(self.soon());
        let found = match self.roster.wait_for(soon, good).await {
            Some(targets) => Some(Some(targets)),
            None => self.roster.wait_for(deadline, come).await,
        };
        match found {
            Some(Some(targets)) => Ok(Some(LastBlock { block, targets })),
            // FSDirAppendOp.appendFile has these words, in these two classes.
            None => Err(Refusal::Retriable(format!(
                "append: lastBlock={block} of src={path} is COMMITTED but not yet COMPLETE."
            ))),
            Some(None) => Err(Refusal::Io(format!(
                "append: lastBlock={block} of src={path} is not sufficiently replicated yet."
            ))),
        }
    }
}

fn moves_on(path: &HdfsPath) -> Refusal {
    Refusal::Retriable(format!("The last block of {path} changed {LOOKS_MAX} times while it was looked up."))
}
