//! The one authoriser (D8): every front end reaches the namespace through it. Requests are typed,
//! paths parsed, callers resolved; reads are checked against the view that they are answered from,
//! writes inside `apply`.
//!
//! Knows no front end. Next on the walk: `writing`, then the namespace's `block`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mobula_disk::Pool;
use mobula_fleet::{FleetStats, Health, NodeFilter, NodeReport, Notice, StartProgress, UnderReplicated};
use mobula_namespace::{
    Access, BlockRecord, Caller, Command, ContentSummary, FileBlocks, FileKind, FileStatus, Format, Listing,
    OpenFile, Operation, Outcome, TableError, View,
};
use mobula_net::Clock;
use mobula_raft::Raft;
use mobula_types::{HdfsPath, InodeId, Millis};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::access_times::AccessTimes;
use crate::asker::Asker;
use crate::batcher::{Batcher, Done};
use crate::config::{Defaults, NamenodeConfig};
use crate::exceptions::Refusal;
use crate::groups::Groups;
use crate::leases::Leases;
use crate::machine::{NamespaceMachine, PublishedView};
use crate::room::{Found, Room};
use crate::roster::Roster;
use crate::safe_mode::{self, Safe, SafeMode};

/// Missing blocks that are looked up at once, under the fleet's lock.
const MISSING_A_LOOK: usize = 1_000;

/// The NameNode's functions, typed and independent of any front end.
pub struct Service {
    pub(crate) config: NamenodeConfig,
    pub(crate) clock: Clock,
    pub(crate) view: Arc<PublishedView>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) batcher: Batcher,
    pub(crate) raft: Raft<NamespaceMachine>,
    pub(crate) leases: Mutex<Leases>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) safe_mode: SafeMode,
    pub(crate) room: Room,
    pub(crate) access_times: AccessTimes,
    /// The cluster's birth.
    pub(crate) format: Format,
    /// This NameNode leads and knows all that was committed before (D16).
    pub(crate) leads: AtomicBool,
    /// Monotonic time of its start.
    pub(crate) started: Millis,
    /// `host:port` that others know it by.
    pub(crate) address: String,
    /// Full reports that are read at the same time: each may have a million replicas in memory.
    pub(crate) reports: Semaphore,
    /// Where they are decoded and sorted.
    pub(crate) report_pool: Pool,
    /// Where reads go that may visit a whole tree.
    pub(crate) tree_pool: Pool,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({})", self.address)
    }
}

/// What is asked of `getListing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithLocations {
    /// Names and figures.
    No,
    /// Blocks and their locations, too.
    Yes,
}

/// Which rights a sum of a tree asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumOf {
    /// `getContentSummary`.
    Content,
    /// `getQuotaUsage`.
    Quota,
}

impl Service {
    // ---- for programs in the same process ----

    /// Whether all is healed (DESIGN 3b).
    pub fn health(&self) -> Health {
        self.roster.ask(|fleet, _| fleet.health())
    }

    /// What the AutoHealer noticed and did, from `seq` on: number, monotonic time, notice.
    pub fn notices_since(&self, seq: u64) -> Vec<(u64, Millis, Notice)> {
        self.roster.ask(|fleet, _| fleet.notices_since(seq))
    }

    /// DataNodes, without a check: for programs in this process.
    pub fn nodes(&self, filter: NodeFilter) -> Vec<NodeReport> {
        self.roster.ask(|fleet, now| fleet.datanodes(now, filter))
    }

    /// Figures of the whole fleet.
    pub fn fleet_stats(&self) -> FleetStats {
        self.roster.ask(|fleet, _| fleet.stats())
    }

    /// Blocks below their target, riskiest first.
    pub fn under_replicated(&self, limit: usize) -> Vec<UnderReplicated> {
        self.roster.ask_with_table(|fleet, _, table| fleet.under_replicated(limit, table))
    }

    /// How far the reports after a start have come.
    pub fn start_progress(&self) -> StartProgress {
        self.roster.ask(|fleet, _| fleet.start_progress())
    }

    /// The published view: for tests and tools, which check for themselves.
    pub fn view(&self) -> View {
        View::clone(&self.view.load())
    }

    /// What clients are told by `getServerDefaults`.
    pub fn defaults(&self) -> &Defaults {
        &self.config.defaults
    }

    /// Entries of a listing's page.
    pub fn listing_max(&self) -> usize {
        self.config.listing_max
    }

    /// The cluster's identity.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Who asks under that name from there, by a front end without calls that could be repeated.
    pub async fn asker(&self, user: &str, peer: SocketAddr) -> Asker {
        Asker { caller: self.groups.resolve(user).await, peer, call: None }
    }

    // ---- state ----

    /// Refuses unless this NameNode leads.
    ///
    /// # Errors
    /// [`Refusal::Standby`].
    pub(crate) fn check_leads(&self) -> Result<(), Refusal> {
        if self.leads.load(Ordering::Acquire) { Ok(()) } else { Err(Refusal::Standby) }
    }

    /// Refuses everybody but superusers. `operation` is HDFS's name of it.
    ///
    /// # Errors
    /// [`Refusal::SuperuserRequired`].
    pub(crate) fn check_superuser(&self, asker: &Asker, operation: &'static str) -> Result<(), Refusal> {
        if asker.caller.superuser || !self.config.rules.permissions {
            return Ok(());
        }
        let user = asker.caller.user.clone();
        Err(Refusal::SuperuserRequired { user, operation: Some(operation) })
    }

    /// Time of day.
    pub(crate) fn time(&self) -> Millis {
        Millis(self.clock.now_ms())
    }

    /// Monotonic time.
    pub(crate) fn monotonic(&self) -> Millis {
        Millis(self.clock.monotonic_ms())
    }

    /// The time of day at monotonic 0, as it seems now, in milliseconds.
    pub(crate) fn epoch(&self) -> u64 {
        self.time().0.saturating_sub(self.monotonic().0)
    }

    /// `haStatus.txid` (D16): no deposed leader's uncommitted tail can stand above it.
    pub fn transaction(&self) -> u64 {
        let committed = self.raft.committed();
        committed.term << 40 | committed.index
    }

    // ---- writes ----

    /// Sends a change into the log; `done` gets its outcome.
    pub(crate) fn change(&self, asker: &Asker, operation: Operation, done: Done) {
        match self.check_writable(&operation) {
            Ok(()) => self.batcher.submit(asker.command(operation), done),
            Err(refusal) => match self.first_answer(asker, &operation, refusal) {
                Err(refusal) => done(Err(refusal)),
                Ok(answer) => drop(tokio::spawn(async move { done(answer.await) })),
            },
        }
    }

    /// A change that `asker` asks for, checked inside `apply`.
    ///
    /// # Errors
    /// The refusal.
    pub async fn execute(&self, asker: &Asker, operation: Operation) -> Result<Outcome, Refusal> {
        match self.check_writable(&operation) {
            Ok(()) => self.batcher.execute(asker.command(operation)).await,
            Err(refusal) => self.first_answer(asker, &operation, refusal)?.await,
        }
    }

    fn check_writable(&self, operation: &Operation) -> Result<(), Refusal> {
        self.check_leads()?;
        self.safe_mode.check(|| safe_mode::words(operation, &self.format.pool))
    }

    /// In safe mode, too, a call that happened is answered once more as it was (HDFS: each method of `NameNodeRpcServer`
    /// asks `RetryCache` before `FSNamesystem` asks for safe mode). As there it is waited for if it is under way.
    ///
    /// # Errors
    /// `refusal`, if it is for another reason or the call may happen many times.
    fn first_answer(
        &self,
        asker: &Asker,
        operation: &Operation,
        refusal: Refusal,
    ) -> Result<impl Future<Output = Result<Outcome, Refusal>> + Send + use<>, Refusal> {
        let Some(call) = asker.only_call(operation).filter(|_| matches!(refusal, Refusal::SafeMode { .. }))
        else {
            return Err(refusal);
        };
        let (batcher, view) = (self.batcher.clone(), Arc::clone(&self.view));
        Ok(async move {
            batcher.settled().await;
            match view.load().remembered(&call) {
                Ok(Some(outcome)) => Ok(outcome),
                Ok(None) => Err(refusal),
                Err(error) => Err(Refusal::Io(error.to_string())),
            }
        })
    }

    /// A change of the NameNode's own: lease expiry, reaping, access times.
    pub(crate) async fn execute_own(&self, operation: Operation) -> Result<Outcome, Refusal> {
        self.check_leads()?;
        let caller = self.own_caller();
        self.batcher.execute(mobula_namespace::Command { caller, retry: None, operation }).await
    }

    /// The NameNode as a caller.
    pub(crate) fn own_caller(&self) -> Caller {
        own_caller(&self.config.user)
    }

    // ---- reads ----

    /// `getFileInfo`.
    ///
    /// # Errors
    /// AccessControl.
    pub fn status(&self, asker: &Asker, path: &HdfsPath) -> Result<Option<FileStatus>, Refusal> {
        self.check_leads()?;
        Ok(self.view.load().status(&asker.caller, path)?)
    }

    /// The status of what the caller may read, for calls that ask for that.
    ///
    /// # Errors
    /// AccessControl.
    pub(crate) fn readable_status(
        &self,
        asker: &Asker,
        path: &HdfsPath,
    ) -> Result<Option<FileStatus>, Refusal> {
        self.check_leads()?;
        Ok(self.view.load().readable_status(&asker.caller, path)?)
    }

    /// `getListing`.
    ///
    /// # Errors
    /// AccessControl.
    pub fn listing(
        &self,
        asker: &Asker,
        path: &HdfsPath,
        start_after: &[u8],
        limit: usize,
    ) -> Result<Option<Listing>, Refusal> {
        self.check_leads()?;
        Ok(self.view.load().listing(&asker.caller, path, start_after, limit)?)
    }

    /// `getBlockLocations` without the locations; notes the access time.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn file_blocks(
        &self,
        asker: &Asker,
        path: &HdfsPath,
        offset: u64,
        length: u64,
    ) -> Result<FileBlocks, Refusal> {
        self.check_leads()?;
        let now = self.time();
        let file = self.view.load().file_blocks(&asker.caller, path, offset, length, now)?;
        if let Some(inode) = file.touch
            && !self.safe_mode.is_on()
        {
            self.access_times.note(inode, now);
        }
        Ok(file)
    }

    /// As [`Service::file_blocks`] from the beginning, for who looks at blocks and reads none: no access time moves.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub(crate) fn blocks_to_check(
        &self,
        asker: &Asker,
        path: &HdfsPath,
        length: u64,
    ) -> Result<FileBlocks, Refusal> {
        self.check_leads()?;
        Ok(self.view.load().file_blocks(&asker.caller, path, 0, length, Millis(0))?)
    }

    /// The blocks of a file up to the length that its status tells; the caller was checked for that.
    ///
    /// # Errors
    /// The tables'.
    pub(crate) fn blocks_of_listed(&self, status: &FileStatus) -> Result<FileBlocks, Refusal> {
        let mut blocks = Vec::new();
        let mut last = None;
        if let FileKind::File { length, .. } = status.kind {
            let found = self.view.load().blocks_of(status.inode);
            blocks = found.map_err(|error| Refusal::Io(error.to_string()))?;
            last = blocks.last().cloned();
            blocks.retain(|block| block.offset < length.max(1));
        }
        Ok(FileBlocks { status: status.clone(), last, blocks, touch: None })
    }

    /// `getContentSummary` or `getQuotaUsage`, as long as it `goes_on`: either may visit millions of names.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn sum_up_here(
        &self,
        asker: &Asker,
        path: &HdfsPath,
        sum: SumOf,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<ContentSummary, Refusal> {
        self.check_leads()?;
        let view = self.view.load();
        Ok(match sum {
            SumOf::Content => view.content_summary(&asker.caller, path, goes_on),
            SumOf::Quota => view.quota_usage(&asker.caller, path, goes_on),
        }?)
    }

    /// [`Service::sum_up_here`] on a thread for trees. Dropped, it ends there, too.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub async fn sum_up(
        self: &Arc<Self>,
        asker: &Asker,
        path: &HdfsPath,
        sum: SumOf,
    ) -> Result<ContentSummary, Refusal> {
        let (service, asker, path) = (Arc::clone(self), asker.clone(), path.clone());
        while_wanted(&self.tree_pool, move |wanted| service.sum_up_here(&asker, &path, sum, wanted)).await
    }

    /// `isFileClosed`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn is_file_closed(&self, asker: &Asker, path: &HdfsPath) -> Result<bool, Refusal> {
        self.check_leads()?;
        Ok(self.view.load().is_file_closed(&asker.caller, path)?)
    }

    /// `getPreferredBlockSize`, bytes.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn preferred_block_size(&self, asker: &Asker, path: &HdfsPath) -> Result<u64, Refusal> {
        self.check_leads()?;
        Ok(self.view.load().preferred_block_size(&asker.caller, path)?)
    }

    /// `checkAccess`.
    ///
    /// # Errors
    /// AccessControl, FileNotFound.
    pub fn check_access(&self, asker: &Asker, path: &HdfsPath, access: Access) -> Result<(), Refusal> {
        self.check_leads()?;
        Ok(self.view.load().check_access(&asker.caller, path, access)?)
    }

    /// Files being written, by inode id, those after `after`. Superuser.
    ///
    /// # Errors
    /// SuperuserRequired.
    pub fn open_files(&self, asker: &Asker, after: InodeId, limit: usize) -> Result<Vec<OpenFile>, Refusal> {
        self.check_superuser(asker, "listOpenFiles")?;
        self.check_leads()?;
        self.view.load().open_files(after, limit).map_err(|error| Refusal::Io(error.to_string()))
    }

    /// Blocks without a good replica, with their files, after the first `skip` of all such blocks; and how many of all
    /// were seen then: there are more only if `limit` were found. Superuser. May look at millions of blocks: run it on
    /// a thread for trees.
    ///
    /// # Errors
    /// SuperuserRequired.
    pub(crate) fn missing_blocks(
        &self,
        asker: &Asker,
        within: &HdfsPath,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<(BlockRecord, HdfsPath)>, usize), Refusal> {
        self.check_superuser(asker, "listCorruptFileBlocks")?;
        self.check_leads()?;
        let unreadable = |error: TableError| Refusal::Io(error.to_string());
        let (mut found, mut seen, mut after) = (Vec::new(), 0, None);
        loop {
            let page = self.roster.ask(|fleet, _| fleet.missing_blocks(after, MISSING_A_LOOK));
            let Some(last) = page.last() else { return Ok((found, seen)) };
            after = Some(*last);
            let view = self.view();
            for block in page {
                seen += 1;
                if seen <= skip {
                    continue;
                }
                let Some(record) = view.block(block).map_err(unreadable)? else { continue };
                let path = view.path_of(record.inode).map_err(unreadable)?;
                found.extend(path.filter(|path| path.is_within(within)).map(|path| (record, path)));
                if found.len() >= limit {
                    return Ok((found, seen));
                }
            }
        }
    }

    /// `getDatanodeReport`. Superuser.
    ///
    /// # Errors
    /// SuperuserRequired.
    pub fn datanode_report(
        &self,
        asker: &Asker,
        operation: &'static str,
        filter: NodeFilter,
    ) -> Result<Vec<NodeReport>, Refusal> {
        self.check_superuser(asker, operation)?;
        self.check_leads()?;
        Ok(self.nodes(filter))
    }

    // ---- administration ----

    /// Switches safe mode; true if it is on afterwards. Superuser.
    ///
    /// # Errors
    /// SuperuserRequired.
    pub fn set_safe_mode(&self, asker: &Asker, operation: &'static str, on: bool) -> Result<bool, Refusal> {
        self.check_superuser(asker, operation)?;
        if self.switch_safe_mode(None, if on { Safe::Manual } else { Safe::Off }) {
            tracing::info!(user = %asker.caller.user, on, "safe mode was switched");
        }
        Ok(self.safe_mode.is_on())
    }

    /// In safe mode nothing is copied or deleted. Whether it was switched on or off by this, and not on for another reason; nothing
    /// is done if it is not as expected.
    fn switch_safe_mode(&self, expected: Option<Safe>, to: Safe) -> bool {
        self.safe_mode.switch(|before| {
            if expected.is_some_and(|expected| expected != before) {
                return (before, false);
            }
            let switched = (before == Safe::Off) != (to == Safe::Off);
            match to {
                _ if !switched => {}
                Safe::Off => self.roster.tell(|fleet, _, _| fleet.release_orders()),
                Safe::Manual | Safe::ResourcesLow => self.roster.tell(|fleet, _, _| fleet.hold_orders()),
            }
            (to, switched)
        })
    }

    /// Looks whether there is room on the log's disk: without it safe mode comes on, and with some to spare it goes off that
    /// was on for want of it (`NameNodeResourceMonitor`). Whether changes may be logged.
    pub(crate) async fn check_room(&self) -> bool {
        let found = self.room.look(self.monotonic()).await;
        match (found, self.safe_mode.state()) {
            (Found::Ample, Safe::ResourcesLow) => {
                if self.switch_safe_mode(Some(Safe::ResourcesLow), Safe::Off) {
                    tracing::info!("the NameNode has room again: safe mode is off");
                }
            }
            (Found::Ample | Found::Enough, _) | (Found::Low, Safe::ResourcesLow) => {}
            // An administrator's safe mode becomes one that ends by itself, as in HDFS.
            (Found::Low, Safe::Off | Safe::Manual) => {
                self.switch_safe_mode(None, Safe::ResourcesLow);
                tracing::error!("the NameNode is low on room for its log: safe mode is on");
            }
        }
        found != Found::Low && self.safe_mode.state() != Safe::ResourcesLow
    }

    /// Whether there is room to log so many bytes of commands.
    pub(crate) async fn has_room(&self, bytes: usize) -> bool {
        if self.room.is_due(self.monotonic(), bytes) {
            return self.check_room().await;
        }
        self.safe_mode.state() != Safe::ResourcesLow
    }

    /// What is said of a command for which there is none: its first answer, if it happened before.
    ///
    /// # Errors
    /// SafeMode, and the tables'.
    pub(crate) fn no_room(&self, command: &Command) -> Result<Outcome, Refusal> {
        if let Some(call) = &command.retry {
            let answer = self.view.load().remembered(call).map_err(|error| Refusal::Io(error.to_string()))?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        Err(self.safe_mode.low(safe_mode::words(&command.operation, &self.format.pool)))
    }

    /// Whether safe mode is on.
    pub fn in_safe_mode(&self) -> bool {
        self.safe_mode.is_on()
    }

    /// `saveNamespace`: syncs the tables and cuts the log. Superuser, in safe mode.
    ///
    /// # Errors
    /// SuperuserRequired; Io outside safe mode.
    pub async fn save_namespace(&self, asker: &Asker) -> Result<(), Refusal> {
        self.check_superuser(asker, "saveNamespace")?;
        if !self.safe_mode.is_on() {
            let words = "Safe mode should be turned ON in order to create namespace image.";
            return Err(Refusal::Io(words.into()));
        }
        self.raft.compact_now().await.map_err(|error| Refusal::Stopping(error.to_string()))
    }

    /// `refreshNodes`. Superuser.
    ///
    /// # Errors
    /// SuperuserRequired.
    pub fn refresh_nodes(&self, asker: &Asker) -> Result<(), Refusal> {
        self.check_superuser(asker, "refreshNodes")?;
        self.roster.tell(|fleet, now, _| fleet.refresh_nodes(now));
        Ok(())
    }

    /// `renewLease`: keeps the caller's open files alive. An unknown holder is as good.
    ///
    /// # Errors
    /// Standby, SafeMode.
    pub fn renew_lease(&self, holder: &str) -> Result<(), Refusal> {
        self.check_leads()?;
        self.safe_mode.check(|| format!("Cannot renew lease for {holder}"))?;
        if self.view.load().files_held(holder) > 0 {
            self.leases.lock().renew(holder, self.monotonic());
        }
        Ok(())
    }
}

/// As [`Pool::run`], of a call that may take long: it is told whether anybody waits for it still.
async fn while_wanted<T: Send + 'static>(
    pool: &Pool,
    call: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> T {
    let waits = Arc::new(());
    let heard = Arc::downgrade(&waits);
    let result = pool.run(move || call(&|| heard.strong_count() > 0)).await;
    drop(waits);
    result
}

/// The NameNode's own user as a caller.
pub(crate) fn own_caller(user: &str) -> Caller {
    Caller { user: user.to_owned(), groups: Vec::new(), superuser: true, machine: "127.0.0.1".into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_ends() {
        let pool = mobula_disk::RealDisk::new().pool("trees", 1);
        assert!(while_wanted(&pool, |wanted| wanted()).await);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (told, how_it_ended) = tokio::sync::oneshot::channel();
        let endless = while_wanted(&pool, move |wanted| {
            let limit = Instant::now() + Duration::from_secs(30);
            begun.send(()).unwrap();
            while wanted() && Instant::now() < limit {
                std::thread::yield_now();
            }
            told.send(!wanted()).unwrap();
        });
        tokio::select! {
            () = endless => panic!("it ended, and somebody waited"),
            has_begun = has_begun => has_begun.unwrap(),
        }
        assert!(how_it_ended.await.unwrap(), "it went on until its limit");
    }
}
