//! Block recovery between the fleet, which orders it, and the namespace, which says how it ended:
//! `commitBlockSynchronization`, attempts that take too long, recoveries that a restart found running, and
//! leases whose limit passed, with which most of them begin.

use std::collections::BTreeSet;
use std::sync::Arc;

use mobula_fleet::{Recover, Synchronization};
use mobula_namespace::lease::INTERNAL_HOLDER;
use mobula_namespace::{Closable, CommitBlockSynchronization, OpenFile, Operation, RunningRecovery};
use mobula_types::{DatanodeUuid, InodeId, Millis};
use tokio::task::JoinSet;

use crate::exceptions::Refusal;
use crate::service::Service;

/// Recoveries or open files that are looked at in one go.
const PAGE: usize = 1_000;
/// Commands of the NameNode's own that are under way at the same time: they share batches of the log, and
/// leave most of each to those who wait for an answer.
const COMMANDS_AT_ONCE: usize = 64;

impl Service {
    /// `commitBlockSynchronization`. HDFS believes it; here it is held against what the fleet knows of
    /// replicas that had no part in it, and against what the namespace was promised. `heard` are all who were asked and
    /// answered; Apache's primaries do not tell.
    ///
    /// # Errors
    /// Io: the recovery will be tried again.
    pub(crate) async fn synchronize(
        &self,
        commit: CommitBlockSynchronization,
        heard: &[DatanodeUuid],
    ) -> Result<(), Refusal> {
        self.check_leads()?;
        self.safe_mode.check(|| "Cannot commitBlockSynchronization while in safe mode".into())?;
        let id = commit.block.id;
        let record = self.view.load().block(id).map_err(|error| Refusal::Io(error.to_string()))?;
        if let Some(record) = record {
            let sync = Synchronization {
                block: record.block,
                recovery: commit.stamp,
                length: commit.length,
                delete: commit.delete,
                targets: &commit.targets,
                heard,
            };
            let checked = self.roster.tell_quietly(|fleet, now, _| fleet.check_synchronization(now, &sync));
            checked.map_err(|undecided| Refusal::Io(undecided.to_string()))?;
        }
        let lost = record.map(|record| record.block).filter(|block| commit.delete && block.length > 0);
        let recovery = commit.stamp;
        let committed = self.execute_own(Operation::CommitBlockSynchronization(commit)).await;
        if let Err(refusal) = committed {
            if let Refusal::Namespace(_) = refusal {
                self.roster.tell_quietly(|fleet, now, _| fleet.on_recovery_failed(now, id, recovery));
            }
            return Err(refusal);
        }
        if let Some(block) = lost {
            tracing::warn!(%block, "no node has a byte of it left: its file has lost what was flushed to it");
        }
        self.roster.reported(std::iter::once(id));
        Ok(())
    }

    /// Recoveries that ran when this NameNode stopped, or followed, go on: their primaries may still be
    /// at work, and if not, the attempt is repeated under a higher id.
    pub(crate) fn resume_recoveries(&self) -> Result<usize, Refusal> {
        let mut after = InodeId(0);
        let mut resumed = 0;
        loop {
            let view = self.view();
            let running = view.recoveries(after, PAGE).map_err(|error| Refusal::Io(error.to_string()))?;
            let Some(last) = running.last() else { return Ok(resumed) };
            after = last.file;
            resumed += running.len();
            self.roster.tell(|fleet, now, _| {
                for RunningRecovery { block, targets, recovery, .. } in running {
                    let (recovery, truncate) = (recovery.id, recovery.truncate);
                    fleet.resume_recovery(now, Recover { block, recovery, targets, truncate });
                }
            });
        }
    }

    /// Repeats attempts that ended without a result.
    pub(crate) async fn retry_recoveries(self: &Arc<Self>) {
        let overdue = self.roster.tell_quietly(|fleet, now, _| fleet.overdue_recoveries(now, PAGE));
        if overdue.is_empty() {
            return;
        }
        let view = self.view();
        let commands = overdue.into_iter().filter_map(|(block, recovery)| {
            let file = view.block(block).ok()??.inode;
            tracing::info!(%block, %recovery, "a block's recovery came to nothing: it begins again");
            Some(Operation::RetryRecovery { file, recovery })
        });
        self.execute_all(commands).await;
    }

    /// Takes the leases of files whose writer has been silent beyond the hard limit: they are closed, at
    /// once or by the recovery of their last block.
    pub(crate) async fn expire_leases(self: &Arc<Self>) -> Result<(), Refusal> {
        let now = self.monotonic();
        let silent = self.silent_holders(now).await;
        let mut after = Some(InodeId(0)).filter(|_| !silent.is_empty());
        while let Some(from) = after {
            let view = self.view();
            let read = view.files_of(&silent, from, PAGE).map_err(|error| Refusal::Io(error.to_string()))?;
            let files = read.0;
            after = read.1;
            // The fleet sees to recoveries that run.
            let expired = files.iter().filter(|file| file.recovery.is_none());
            let commands = expired.map(|file| {
                let OpenFile { path, holder, .. } = file;
                let silent_ms = self.leases.lock().silent(holder, now).0;
                tracing::info!(%path, holder, silent_ms, "its writer is silent: its lease is taken");
                Operation::ExpireLease {
                    holder: file.holder.clone(),
                    file: file.inode,
                    // What an open last block has, only its recovery can tell.
                    closable: Closable::NotYet,
                }
            });
            self.execute_all(commands).await;
            tokio::task::yield_now().await;
        }
        self.forget_holders();
        Ok(())
    }

    /// Holders of leases who have been silent beyond the hard limit, and the NameNode itself. Looks at holders only:
    /// there may be many more files.
    async fn silent_holders(&self, now: Millis) -> BTreeSet<Arc<str>> {
        // `dfs.namenode.lease-hard-limit-sec`.
        let limit = self.config.rules.lease_ms_hard;
        let mut silent = BTreeSet::new();
        let mut page = self.view().holders(None, PAGE);
        while let Some(last) = page.last().cloned() {
            {
                let mut leases = self.leases.lock();
                let is_silent = |holder: &Arc<str>| {
                    holder.starts_with(INTERNAL_HOLDER) || leases.silent_holder(holder, now) > limit
                };
                silent.extend(page.into_iter().filter(is_silent));
            }
            tokio::task::yield_now().await;
            page = self.view().holders(Some(&last), PAGE);
        }
        silent
    }

    /// Forgets who named himself and holds nothing: for the soft limit he may be about to.
    fn forget_holders(&self) {
        let (view, soft) = (self.view(), self.config.rules.lease_ms_soft);
        self.leases.lock().forget(self.monotonic(), soft, |holder| view.files_held(holder) > 0);
    }

    /// Some commands of the NameNode's own; a refusal is told and left at that: they come again.
    async fn execute_all(self: &Arc<Self>, commands: impl Iterator<Item = Operation>) {
        let mut under_way = JoinSet::new();
        for operation in commands {
            if under_way.len() == COMMANDS_AT_ONCE {
                under_way.join_next().await;
            }
            let service = Arc::clone(self);
            under_way.spawn(async move {
                if let Err(refusal) = service.execute_own(operation).await {
                    tracing::warn!(%refusal, "an open file could not be seen to");
                }
            });
        }
        while under_way.join_next().await.is_some() {}
    }
}
