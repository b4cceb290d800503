//! Block recovery between the fleet, which orders it, and the namespace, which says how it ended:
//! `commitBlockSynchronization`, attempts that take too long, recoveries that a restart found running, and
//! leases whose limit passed, with which most of them begin.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_fleet::{Recover, Synchronization};
use mobula_namespace::lease::INTERNAL_HOLDER;
use mobula_namespace::{Closable, CommitBlockSynchronization, OpenFile, Operation, RunningRecovery};
use mobula_types::{InodeId, Millis};
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
    /// replicas that had no part in it, and against what the namespace was promised.
    ///
    /// # Errors
    /// Io: the recovery will be tried again.
    pub(crate) async fn synchronize(&self, commit: CommitBlockSynchronization) -> Result<(), Refusal> {
        self.check_leads()?;
        let id = commit.block.id;
        let record = self.view.load().block(id).map_err(|error| Refusal::Io(error.to_string()))?;
        if let Some(record) = record {
            let sync = Synchronization {
                block: record.block,
                recovery: commit.stamp,
                length: commit.length,
                delete: commit.delete,
                targets: &commit.targets,
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
        // `dfs.namenode.lease-hard-limit-sec`.
        let limit = self.config.rules.lease_ms_hard;
        let mut after = InodeId(0);
        loop {
            let view = self.view();
            let open = view.open_files(after, PAGE).map_err(|error| Refusal::Io(error.to_string()))?;
            let Some(last) = open.last() else { break };
            after = last.inode;
            let now = self.monotonic();
            let mut silent: BTreeMap<&str, Millis> = BTreeMap::new();
            {
                let leases = self.leases.lock();
                for file in &open {
                    silent.entry(&file.holder).or_insert_with(|| leases.silent(&file.holder, now));
                }
            }
            let expired = |file: &&OpenFile| {
                let internal = file.holder.starts_with(INTERNAL_HOLDER);
                // The fleet sees to recoveries that run.
                file.recovery.is_none() && (internal || silent[file.holder.as_str()] > limit)
            };
            let expired: Vec<&OpenFile> = open.iter().filter(expired).collect();
            for file in &expired {
                let (path, holder) = (&file.path, &file.holder);
                tracing::info!(%path, holder, silent_ms = silent[holder.as_str()].0, "its writer is silent: its lease is taken");
            }
            let commands = expired.into_iter().map(|file| Operation::ExpireLease {
                holder: file.holder.clone(),
                file: file.inode,
                // What an open last block has, only its recovery can tell.
                closable: Closable::NotYet,
            });
            self.execute_all(commands).await;
            tokio::task::yield_now().await;
        }
        self.leases.lock().forget(self.monotonic(), Millis(limit.0.saturating_mul(2)));
        Ok(())
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
