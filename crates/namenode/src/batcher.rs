//! Gathers commands from all connections into batches, one log entry each: while one batch is being
//! synced, the next gathers (group commit, DESIGN D3).
//!
//! Invariants: bounded; every command is answered exactly once, in the order of the log; nothing is
//! answered before the log and the tables have it.

use std::sync::Arc;
use std::time::Duration;

use mobula_namespace::{Batch, Command, LastBlock, Operation, Outcome};
use mobula_raft::ProposeError;
use mobula_types::{HdfsPath, InodeId, Millis, Target};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::exceptions::Refusal;
use crate::service::Service;

/// Commands of one entry at most.
const BATCH_COMMANDS_MAX: usize = 2_048;
/// Bytes of text in them at most, unless one alone has more: what is more waits for the next entry. The log's largest
/// has eight times as much, so that no command makes those fail that happened to come with it.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// Commands that wait at most; more are told to come again.
const WAITING_MAX: usize = 65_536;

/// About what a command takes in the log besides its text, in bytes.
const COMMAND_BYTES: usize = 64;

/// Answered so many at once, callers are many enough to be waited for.
const GATHER_MIN: usize = 8;
/// One in so many of those who were answered need not come again.
const GATHER_LOSS: usize = 8;
/// Longest wait for them: no more than a sync of the log takes.
const GATHER_LIMIT: Duration = Duration::from_millis(1);
/// A wait in vain is followed by so many batches without one, twice as many each time.
const GATHER_PAUSE: u32 = 8;
/// The doubling ends here.
const GATHER_PAUSE_MAX: u32 = 8 << 7;

/// Bytes of text in commands that wait at most: long paths must not become much memory.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Takes the answer of one command. Called on the batcher's task: it must not block.
pub type Done = Box<dyn FnOnce(Result<Outcome, Refusal>) + Send>;

/// The way for commands into the log. Clones share it.
#[derive(Clone)]
pub struct Batcher(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    gathered: Notify,
    settled: Notify,
}

#[derive(Default)]
struct Waiting {
    commands: Vec<Command>,
    answers: Vec<Done>,
    /// Of text in `commands`.
    bytes: usize,
    /// So many commands are being waited for; 0 if nobody waits.
    wanted: usize,
    /// Commands that were taken and are not answered.
    underway: bool,
    /// Set once, for good: nothing is taken any more.
    closed: Option<Refusal>,
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batcher({} waiting)", self.0.waiting.lock().commands.len())
    }
}

impl Default for Batcher {
    fn default() -> Batcher {
        Batcher(Arc::new(Shared {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            gathered: Notify::new(),
            settled: Notify::new(),
        }))
    }
}

impl Batcher {
    /// Queues a command. `done` gets its answer, at once if it is refused.
    pub fn submit(&self, command: Command, done: Done) {
        let refusal = {
            let mut waiting = self.0.waiting.lock();
            if let Some(refusal) = &waiting.closed {
                refusal.clone()
            } else if waiting.commands.len() >= WAITING_MAX || waiting.bytes >= WAITING_BYTES_MAX {
                Refusal::Overloaded { waiting: waiting.commands.len() }
            } else {
                waiting.bytes += weight(&command);
                waiting.commands.push(command);
                waiting.answers.push(done);
                let first = waiting.commands.len() == 1;
                let enough = waiting.commands.len() == waiting.wanted;
                drop(waiting);
                if first {
                    self.0.arrived.notify_one();
                }
                if enough {
                    self.0.gathered.notify_one();
                }
                return;
            }
        };
        done(Err(refusal));
    }

    /// Queues a command and waits for its answer.
    ///
    /// # Errors
    /// The namespace's refusal, or why the log took nothing.
    pub async fn execute(&self, command: Command) -> Result<Outcome, Refusal> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(command, Box::new(move |answer| _ = sender.send(answer)));
        receiver.await.unwrap_or_else(|_| Err(Refusal::Stopping("it was shut down".into())))
    }

    /// Waits until all commands are answered that were queued before. Meant for when hardly any come.
    pub async fn settled(&self) {
        loop {
            let woken = self.0.settled.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.0.waiting.lock().is_settled() {
                return;
            }
            woken.await;
        }
    }

    /// How many commands wait.
    pub fn waiting(&self) -> usize {
        self.0.waiting.lock().commands.len()
    }

    /// Refuses all that waits and all that comes.
    pub fn close(&self, refusal: Refusal) {
        let answers = {
            let mut waiting = self.0.waiting.lock();
            waiting.closed.get_or_insert_with(|| refusal.clone());
            waiting.commands.clear();
            waiting.bytes = 0;
            self.0.gathered.notify_one();
            std::mem::take(&mut waiting.answers)
        };
        for done in answers {
            done(Err(refusal.clone()));
        }
        self.0.settled.notify_waiters();
    }

    /// Proposes what was gathered, batch after batch, until the log stops. What there is no room for is refused before
    /// the log hears of it: see `docs/decisions/0009-what-takes-a-disk-out.md`.
    pub async fn run(self, service: Arc<Service>) {
        let _closes = Closes(self.clone());
        let (raft, clock) = (&service.raft, &service.clock);
        let mut patience = Patience::default();
        loop {
            let Taken { commands, answers, bytes } = self.take();
            if commands.is_empty() {
                self.0.settled.notify_waiters();
                self.0.arrived.notified().await;
                // Those who were woken with the first caller get their commands in, too.
                tokio::task::yield_now().await;
                continue;
            }
            if !service.has_room(bytes).await {
                for (command, done) in commands.iter().zip(answers) {
                    done(service.no_room(command));
                }
                continue;
            }
            let proposed = raft.propose(Batch { time: Millis(clock.now_ms()), commands }).await;
            match proposed {
                Ok(outcomes) => {
                    assert_eq!(outcomes.len(), answers.len(), "one outcome for each command");
                    let answered = answers.len();
                    for (done, applied) in answers.into_iter().zip(outcomes) {
                        done(applied.outcome.map_err(Refusal::Namespace));
                    }
                    self.gather(answered, &mut patience).await;
                }
                Err(error) => {
                    let refusal = refusal(&error);
                    for done in answers {
                        done(Err(refusal.clone()));
                    }
                    if let ProposeError::Stopped { .. } = error {
                        self.close(refusal);
                        return;
                    }
                }
            }
        }
    }

    /// Waits a moment for those who were just answered to ask again. Otherwise they and those who wait
    /// now would take turns for ever, in batches of half the size, and it is the batch that costs: its
    /// sync, its wake-ups, its transaction.
    async fn gather(&self, answered: usize, patience: &mut Patience) {
        if answered < GATHER_MIN || patience.is_out() {
            return;
        }
        let wanted = {
            let mut waiting = self.0.waiting.lock();
            let wanted = waiting.commands.len() + answered - answered / GATHER_LOSS;
            waiting.wanted = wanted.min(BATCH_COMMANDS_MAX);
            waiting.wanted
        };
        let all = async {
            while self.0.waiting.lock().falls_short_of(wanted) {
                self.0.gathered.notified().await;
            }
        };
        let came = tokio::time::timeout(GATHER_LIMIT, all).await.is_ok();
        let mut waiting = self.0.waiting.lock();
        waiting.wanted = 0;
        // Where nobody waits nobody was kept waiting.
        if came || !waiting.commands.is_empty() {
            patience.note(came);
        }
    }

    fn take(&self) -> Taken {
        let mut waiting = self.0.waiting.lock();
        let fitting = waiting.fitting();
        let left = waiting.commands.split_off(fitting);
        let unanswered = waiting.answers.split_off(fitting);
        let bytes_left = left.iter().map(weight).sum();
        let bytes = std::mem::replace(&mut waiting.bytes, bytes_left) - bytes_left;
        let commands = std::mem::replace(&mut waiting.commands, left);
        let answers = std::mem::replace(&mut waiting.answers, unanswered);
        waiting.underway = !commands.is_empty();
        Taken { bytes: bytes + commands.len() * COMMAND_BYTES, commands, answers }
    }
}

/// Refuses everybody when whoever proposes is gone, in whatever way: nobody waits for him for ever.
struct Closes(Batcher);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close(Refusal::Stopping("it was shut down".into()));
    }
}

/// A batch on its way into the log.
struct Taken {
    commands: Vec<Command>,
    answers: Vec<Done>,
    /// About what it takes there.
    bytes: usize,
}

impl Waiting {
    /// What was taken is answered when the next batch is taken, be it an empty one.
    fn is_settled(&self) -> bool {
        self.closed.is_some() || (self.commands.is_empty() && !self.underway)
    }

    fn falls_short_of(&self, wanted: usize) -> bool {
        self.commands.len() < wanted && self.closed.is_none()
    }

    /// How many of the commands, from the first, make a batch: at least one, if any waits.
    fn fitting(&self) -> usize {
        if self.commands.len() <= BATCH_COMMANDS_MAX && self.bytes <= BATCH_BYTES_MAX {
            return self.commands.len();
        }
        let mut bytes = 0;
        let fits = |command: &&Command| {
            bytes += weight(command);
            bytes <= BATCH_BYTES_MAX
        };
        self.commands.iter().take(BATCH_COMMANDS_MAX).take_while(fits).count().max(1)
    }
}

/// Whether waiting for callers has paid.
#[derive(Debug, Default)]
struct Patience {
    /// Batches that are not waited for.
    skip: u32,
    /// How many the next failure will cost; 0 after a success.
    next: u32,
}

impl Patience {
    /// Counts a batch; whether it is not to be waited for.
    fn is_out(&mut self) -> bool {
        let out = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        out
    }

    fn note(&mut self, came: bool) {
        self.next = if came { 0 } else { (self.next * 2).clamp(GATHER_PAUSE, GATHER_PAUSE_MAX) };
        self.skip = self.next;
    }
}

/// About how much text a command holds, in bytes.
fn weight(command: &Command) -> usize {
    let groups: usize = command.caller.groups.iter().map(String::len).sum();
    command.caller.user.len() + groups + text(&command.operation)
}

fn text(operation: &Operation) -> usize {
    let path = |path: &HdfsPath| path.as_str().len();
    let last = |last: &Option<LastBlock>| last.as_ref().map_or(0, |last| targets(&last.targets));
    match operation {
        Operation::Rename { source, target } | Operation::Rename2 { source, target, .. } => {
            path(source) + path(target)
        }
        Operation::Create(create) => path(&create.path) + create.holder.len(),
        Operation::CreateWith { create, targets: of } => {
            path(&create.path) + create.holder.len() + targets(of)
        }
        Operation::CompleteAs { path: at, holder, target, .. } => path(at) + holder.len() + path(target),
        Operation::AddBlock(add) => path(&add.path) + add.holder.len() + targets(&add.targets),
        Operation::Append(append) => path(&append.path) + append.holder.len() + last(&append.last),
        Operation::Truncate(truncate) => path(&truncate.path) + truncate.holder.len() + last(&truncate.last),
        Operation::Concat { target, sources } => path(target) + sources.iter().map(path).sum::<usize>(),
        Operation::UpdateBlockForPipeline { holder, .. } | Operation::ExpireLease { holder, .. } => {
            holder.len()
        }
        Operation::UpdatePipeline(update) => update.holder.len() + targets(&update.targets),
        Operation::CommitBlockSynchronization(commit) => targets(&commit.targets),
        Operation::AbandonBlock { path: at, holder, .. }
        | Operation::Complete { path: at, holder, .. }
        | Operation::Fsync { path: at, holder, .. }
        | Operation::RecoverLease { path: at, holder } => path(at) + holder.len(),
        Operation::SetOwner { path: at, user, group } => {
            path(at) + [user, group].into_iter().flatten().map(String::len).sum::<usize>()
        }
        Operation::Mkdirs { path: at, .. }
        | Operation::Delete { path: at, .. }
        | Operation::SetReplication { path: at, .. }
        | Operation::SetPermission { path: at, .. }
        | Operation::SetAcl { path: at, .. }
        | Operation::SetTimes { path: at, .. } => path(at),
        Operation::Touch { accesses } => accesses.len() * std::mem::size_of::<(InodeId, Millis)>(),
        Operation::Format(_)
        | Operation::Configure(_)
        | Operation::Guard(_)
        | Operation::RetryRecovery { .. }
        | Operation::Reap { .. } => 0,
    }
}

fn targets(targets: &[Target]) -> usize {
    targets.iter().map(|target| target.datanode.as_str().len() + target.storage.as_str().len()).sum()
}

/// A client whose command was lost asks the next leader under the same call id, where the retry
/// cache knows whether it happened: so it is told what makes it do that.
fn refusal(error: &ProposeError) -> Refusal {
    match error {
        ProposeError::NotLeader { .. } | ProposeError::Lost => Refusal::Standby,
        ProposeError::TooLarge { .. } => Refusal::Io(error.to_string()),
        ProposeError::Stopped { why } => Refusal::Stopping(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mobula_namespace::{Caller, Parents, UpdatePipeline};
    use mobula_types::{Block, BlockId, GenStamp};

    fn command(operation: Operation) -> Command {
        let caller = Caller { user: "u".into(), groups: Vec::new(), superuser: false, machine: "m".into() };
        Command { caller, retry: None, operation }
    }

    #[test]
    fn a_huge_command_goes_into_the_log_alone() {
        let batcher = Batcher::default();
        let mkdirs = Operation::Mkdirs { path: HdfsPath::root(), mode: 0, parents: Parents::Create };
        let block = Block { id: BlockId(1), stamp: GenStamp(1), length: 0 };
        let long = "x".repeat(BATCH_BYTES_MAX + 1);
        let target = Target { datanode: long.as_str().into(), storage: "s".into(), kind: Default::default() };
        let huge = UpdatePipeline { holder: "h".into(), old: block, new: block, targets: vec![target] };
        for operation in [mkdirs.clone(), Operation::UpdatePipeline(huge), mkdirs.clone(), mkdirs] {
            batcher.submit(command(operation), Box::new(|_| {}));
        }
        for (taken, left) in [(1, 3), (1, 2), (2, 0)] {
            let batch = batcher.take();
            assert_eq!((batch.commands.len(), batch.answers.len(), batcher.waiting()), (taken, taken, left));
            assert_eq!(batch.bytes > BATCH_BYTES_MAX, left == 2, "the huge one is the second");
        }
        assert_eq!(batcher.0.waiting.lock().bytes, 0);
    }

    #[test]
    fn no_batch_has_more_commands_than_fit() {
        let batcher = Batcher::default();
        let mkdirs = Operation::Mkdirs { path: HdfsPath::root(), mode: 0, parents: Parents::Create };
        for _ in 0..BATCH_COMMANDS_MAX + 1 {
            batcher.submit(command(mkdirs.clone()), Box::new(|_| {}));
        }
        assert_eq!(batcher.take().commands.len(), BATCH_COMMANDS_MAX);
        assert_eq!(batcher.take().commands.len(), 1);
        assert!(batcher.take().commands.is_empty());
    }
}
