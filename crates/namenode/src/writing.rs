//! A file on its way in: what joins the namespace's blocks with the fleet's replicas. `addBlock`
//! chooses nodes, `complete` waits for replicas. Files that are opened again are in `reopening`, those
//! whose writer is gone in `recovering`.
//!
//! Next on the walk: the namespace's `block`, which applies what is decided here.

use std::sync::Arc;

use mobula_fleet::{NodeFilter, NodeState, Placement, PlacementRequest};
use mobula_namespace::{
    AddBlock, Allocated, BlockPlan, BlockState, Create, LastBlocks, Operation, Outcome, Overwrite,
};
use mobula_types::{Block, BlockId, HdfsPath, InodeId, Target};
use tokio::time::Instant;

use crate::asker::Asker;
use crate::batcher::Done;
use crate::exceptions::Refusal;
use crate::service::Service;

/// `addBlock`, typed.
#[derive(Clone, Debug)]
pub struct AddBlockRequest {
    /// The file, as the client names it.
    pub path: HdfsPath,
    /// The file's id.
    pub file: Option<InodeId>,
    /// The lease's holder.
    pub holder: String,
    /// The block that the client thinks is last.
    pub previous: Option<Block>,
    /// What placement is told, but for number and size.
    pub placement: PlacementRequest,
}

/// `getAdditionalDatanode`, typed.
#[derive(Clone, Debug)]
pub struct AdditionalRequest {
    /// See [`AddBlockRequest`].
    pub path: HdfsPath,
    /// See [`AddBlockRequest`].
    pub file: Option<InodeId>,
    /// See [`AddBlockRequest`].
    pub holder: String,
    /// The block that the nodes are for.
    pub block: Block,
    /// What placement is told, but for the size.
    pub placement: PlacementRequest,
}

/// `complete`, typed.
#[derive(Clone, Debug)]
pub struct CompleteRequest {
    /// See [`AddBlockRequest`].
    pub path: HdfsPath,
    /// See [`AddBlockRequest`].
    pub file: Option<InodeId>,
    /// See [`AddBlockRequest`].
    pub holder: String,
    /// The last block with its final length.
    pub last: Option<Block>,
    /// The name that it gets once it is closed.
    pub renamed: Option<(HdfsPath, Overwrite)>,
}

impl CompleteRequest {
    fn operation(self) -> Operation {
        let CompleteRequest { path, file, holder, last, renamed } = self;
        match renamed {
            None => Operation::Complete { path, file, holder, last },
            Some((target, overwrite)) => {
                Operation::CompleteAs { path, file, holder, last, target, overwrite }
            }
        }
    }
}

/// Takes a new block.
pub type Placed = Box<dyn FnOnce(Result<Allocated, Refusal>) + Send>;

/// Whether something can be decided now.
enum Now<T> {
    Yes(T),
    /// Only after an event that is likely to come.
    NotYet,
}

impl Service {
    /// `create`. Tells the log when the present holder of the lease last spoke.
    pub(crate) fn create(&self, asker: &Asker, create: Create, done: Done) {
        match self.contended(create) {
            Ok(create) => self.change(asker, Operation::Create(create), done),
            Err(refusal) => done(Err(refusal)),
        }
    }

    fn contended(&self, create: Create) -> Result<Create, Refusal> {
        let holder_renewed = self.contend(&create.path, &create.holder)?;
        Ok(Create { holder_renewed, ..create })
    }

    /// `create`, and the `addBlock` of its first block in the same step of the log, where nodes for it are at hand.
    /// `done` gets both answers, of the second one only what it was granted.
    pub(crate) fn create_with_block(
        &self,
        asker: &Asker,
        create: Create,
        placement: PlacementRequest,
        done: Created,
    ) {
        let Some(targets) = self.first_targets(asker, &create, placement) else {
            return self.create(asker, create, Box::new(|created| done(created.map(|it| (it, None)))));
        };
        let create = match self.contended(create) {
            Ok(create) => create,
            Err(refusal) => return done(Err(refusal)),
        };
        let operation = Operation::CreateWith { create, targets };
        let done: Done = Box::new(move |answer| match answer {
            Ok(Outcome::Begun(status, allocated)) => done(Ok((Outcome::Status(status), Some(allocated)))),
            answer => done(answer.map(|it| (it, None))),
        });
        self.change(asker, operation, done);
    }

    /// Nodes for a new file's first block. None where there are too few, and where the file would be refused: what is
    /// placed takes room until the nodes' next beat, so nobody may have it placed who gets nothing written.
    fn first_targets(
        &self,
        asker: &Asker,
        create: &Create,
        placement: PlacementRequest,
    ) -> Option<Vec<Target>> {
        if self.check_leads().is_err() || self.safe_mode.is_on() {
            return None;
        }
        self.view.load().plan_create(&asker.caller, create).ok()?;
        let (replicas, block_size) = (create.replication, create.block_size);
        let placement = PlacementRequest { replicas, block_size, ..placement };
        let placed = self.roster.tell_quietly(|fleet, now, _| fleet.place(now, &placement));
        let enough = placed.targets.len() >= usize::from(self.config.rules.replication_min.max(1));
        enough.then_some(placed.targets)
    }

    /// `addBlock`: at once where it can be, else after waiting for nodes or replicas.
    pub(crate) fn add_block(self: &Arc<Self>, asker: &Asker, request: AddBlockRequest, done: Placed) {
        let words = || format!("Cannot add block to {}", request.path);
        if let Err(refusal) = self.check_leads().and_then(|()| self.safe_mode.check(words)) {
            return done(Err(refusal));
        }
        match self.place_block(asker, &request) {
            Ok(Now::Yes(decided)) => self.log_block(asker, request, decided, done),
            Err(Refusal::NotReplicatedYet(_)) => {
                let (service, asker) = (Arc::clone(self), asker.clone());
                tokio::spawn(async move { service.add_block_after_report(&asker, request, done).await });
            }
            Err(refusal) => done(Err(refusal)),
            Ok(Now::NotYet) => {
                let (service, asker) = (Arc::clone(self), asker.clone());
                tokio::spawn(async move { service.add_block_later(&asker, request, done).await });
            }
        }
    }

    /// The replicas of the block before are most often about to be reported: who is refused for want of
    /// them asks again only after 400 ms.
    async fn add_block_after_report(self: Arc<Self>, asker: &Asker, request: AddBlockRequest, done: Placed) {
        let deadline = Instant::now() + self.config.complete_wait;
        let waited =
            self.roster.wait_for_replicas(deadline, || self.lacks_penultimate(asker, &request)).await;
        match waited.and_then(|_| self.place_block(asker, &request)) {
            Ok(Now::Yes(decided)) => self.log_block(asker, request, decided, done),
            Ok(Now::NotYet) => self.add_block_later(asker, request, done).await,
            Err(refusal) => done(Err(refusal)),
        }
    }

    fn lacks_penultimate(
        &self,
        asker: &Asker,
        request: &AddBlockRequest,
    ) -> Result<Option<BlockId>, Refusal> {
        let AddBlockRequest { path, file, holder, previous, placement: _ } = request;
        let plan = self.view.load().plan_block(&asker.caller, path, *file, holder, *previous)?;
        let penultimate = plan.penultimate.map(|penultimate| penultimate.block);
        Ok(penultimate.filter(|block| !self.has_replicas(*block)).map(|block| block.id))
    }

    async fn add_block_later(self: Arc<Self>, asker: &Asker, request: AddBlockRequest, done: Placed) {
        let deadline = Instant::now() + self.config.placement_wait;
        let decided = self
            .roster
            .wait_for(deadline, || match self.place_block(asker, &request) {
                Ok(Now::NotYet) => None,
                Ok(Now::Yes(decided)) => Some(Ok(decided)),
                Err(refusal) => Some(Err(refusal)),
            })
            .await;
        match decided {
            Some(Ok(decided)) => self.log_block(asker, request, decided, done),
            Some(Err(refusal)) => done(Err(refusal)),
            None => {
                let placement = Placement { live: self.live_nodes(), ..Placement::default() };
                done(Err(self.no_targets(&request, &placement)));
            }
        }
    }

    /// What `addBlock` can do now: answer a retry, or log a block for these targets.
    fn place_block(&self, asker: &Asker, request: &AddBlockRequest) -> Result<Now<Decided>, Refusal> {
        let AddBlockRequest { path, file, holder, previous, placement } = request;
        let plan = self.view.load().plan_block(&asker.caller, path, *file, holder, *previous)?;
        if let Some(allocated) = plan.retry {
            return Ok(Now::Yes(Decided::Again(allocated)));
        }
        if !self.penultimate_is_there(&plan)? {
            return Err(Refusal::NotReplicatedYet(plan.path));
        }
        let placement =
            PlacementRequest { replicas: plan.replication, block_size: plan.block_size, ..placement.clone() };
        let placed = self.roster.tell_quietly(|fleet, now, _| fleet.place(now, &placement));
        if placed.targets.len() >= usize::from(self.config.rules.replication_min.max(1)) {
            return Ok(Now::Yes(Decided::New(placed.targets)));
        }
        if self.nodes_may_come(&placement) { Ok(Now::NotYet) } else { Err(self.no_targets(request, &placed)) }
    }

    /// HDFS asks that all blocks but the last be complete. The one before the last became so when
    /// its successor was asked for, unless its report was slow.
    fn penultimate_is_there(&self, plan: &BlockPlan) -> Result<bool, Refusal> {
        let Some(penultimate) = &plan.penultimate else { return Ok(true) };
        Ok(self.has_replicas(penultimate.block))
    }

    fn has_replicas(&self, block: Block) -> bool {
        let wanted = usize::from(self.config.rules.replication_min);
        self.roster.ask(|fleet, _| fleet.finalized(block)) >= wanted
    }

    /// Whether waiting could help: no node is live, or one that was not excluded has yet to say
    /// what room it has. Nodes that are excluded or full stay so (D11).
    fn nodes_may_come(&self, placement: &PlacementRequest) -> bool {
        let nodes = self.roster.ask(|fleet, now| fleet.datanodes(now, NodeFilter::Live));
        let mut live = nodes.iter().filter(|node| node.state == NodeState::Live).peekable();
        if live.peek().is_none() {
            return true;
        }
        live.any(|node| node.storages.is_empty() && !placement.excluded.contains(&node.info.id.uuid))
    }

    fn live_nodes(&self) -> usize {
        self.roster.ask(|fleet, _| fleet.stats().nodes_live)
    }

    fn no_targets(&self, request: &AddBlockRequest, placement: &Placement) -> Refusal {
        Refusal::NoTargets {
            path: request.path.clone(),
            found: placement.targets.len(),
            wanted: self.config.rules.replication_min,
            live: placement.live,
            excluded: placement.excluded,
        }
    }

    fn log_block(&self, asker: &Asker, request: AddBlockRequest, decided: Decided, done: Placed) {
        let targets = match decided {
            Decided::Again(allocated) => return done(Ok(allocated)),
            Decided::New(targets) => targets,
        };
        let AddBlockRequest { path, file, holder, previous, placement: _ } = request;
        let operation = Operation::AddBlock(AddBlock { path, file, holder, previous, targets });
        let done: Done = Box::new(move |answer| {
            done(answer.and_then(|outcome| match outcome {
                Outcome::Allocated(allocated) => Ok(allocated),
                other => Err(Refusal::Io(format!("addBlock was answered {other:?}"))),
            }));
        });
        self.change(asker, operation, done);
    }

    /// `getAdditionalDatanode`: the new targets.
    ///
    /// # Errors
    /// FileNotFound, LeaseExpired.
    pub(crate) fn additional_targets(
        &self,
        asker: &Asker,
        request: &AdditionalRequest,
    ) -> Result<Vec<Target>, Refusal> {
        self.check_leads()?;
        self.safe_mode.check(|| {
            let (path, pool, block) = (&request.path, &self.format.pool, request.block);
            format!("Cannot add datanode; src={path}, blk={pool}:{block}")
        })?;
        let view = self.view.load();
        let file = view.open_file(&asker.caller, &request.path, request.file, &request.holder)?;
        let block_size = view.preferred_block_size(&self.own_caller(), &file.path)?;
        let placement = PlacementRequest { block_size, ..request.placement.clone() };
        Ok(self.roster.tell_quietly(|fleet, now, _| fleet.place(now, &placement)).targets)
    }

    /// `complete`: closes the file once its last blocks have their replicas; false if they do not
    /// come within a short while, as in HDFS, whose clients then ask again.
    pub(crate) fn complete(self: &Arc<Self>, asker: &Asker, request: CompleteRequest, done: Done) {
        match self.lacking(asker, &request) {
            Ok(None) => self.change(asker, request.operation(), done),
            Err(refusal) => done(Err(refusal)),
            Ok(Some(_)) => {
                let (service, asker) = (Arc::clone(self), asker.clone());
                tokio::spawn(async move { service.complete_later(&asker, request, done).await });
            }
        }
    }

    async fn complete_later(self: Arc<Self>, asker: &Asker, request: CompleteRequest, done: Done) {
        let deadline = Instant::now() + self.config.complete_wait;
        let there = self.roster.wait_for_replicas(deadline, || self.lacking(asker, &request)).await;
        match there {
            Ok(true) => self.change(asker, request.operation(), done),
            Ok(false) => done(Ok(Outcome::Bool(false))),
            Err(refusal) => done(Err(refusal)),
        }
    }

    /// The block whose replicas `complete` must wait for; none if the command can be logged: all are
    /// there, or it will be refused or answered as a repetition anyway.
    fn lacking(&self, asker: &Asker, request: &CompleteRequest) -> Result<Option<BlockId>, Refusal> {
        self.check_leads()?;
        let view = self.view.load();
        let found = view.last_blocks(&asker.caller, &request.path, request.file, &request.holder);
        let Ok(LastBlocks { last: Some(last), penultimate, recovery }) = found else { return Ok(None) };
        if let Some(penultimate) = penultimate
            && !self.has_replicas(penultimate.block)
        {
            return Ok(Some(penultimate.block.id));
        }
        if recovery.is_some() && request.last.is_some() {
            return Ok(None);
        }
        let last_is_there = match request.last {
            // Another block than the last one is refused in `apply`, with HDFS's words.
            Some(claimed) if (claimed.id, claimed.stamp) != (last.block.id, last.block.stamp) => true,
            Some(claimed) => self.has_replicas(claimed),
            None => last.state == BlockState::Committed && self.has_replicas(last.block),
        };
        Ok((!last_is_there).then_some(last.block.id))
    }

    /// `recoverLease`: takes the lease from its holder at once; true if the file is closed, false if the
    /// recovery of its last block runs: whoever waits asks again.
    ///
    /// # Errors
    /// FileNotFound, AccessControl, and what the lease says.
    pub(crate) async fn recover_lease(
        &self,
        asker: &Asker,
        path: HdfsPath,
        holder: String,
    ) -> Result<bool, Refusal> {
        self.leases.lock().renew(&holder, self.monotonic());
        let operation = Operation::RecoverLease { path, holder };
        match self.execute(asker, operation).await? {
            Outcome::Bool(closed) => Ok(closed),
            other => Err(Refusal::Io(format!("recoverLease was answered {other:?}"))),
        }
    }
}

/// Takes a new file, and its first block where that was granted.
pub type Created = Box<dyn FnOnce(Result<(Outcome, Option<Allocated>), Refusal>) + Send>;

/// What `addBlock` decided.
enum Decided {
    /// A retry: the same block.
    Again(Allocated),
    /// A new block for these.
    New(Vec<Target>),
}
