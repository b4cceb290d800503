//! Gathers commands from all connections into batches, one log entry each: while one batch is being
//! synced, the next gathers (group commit, DESIGN D3).
//!
//! Invariants: bounded; every command is answered exactly once, in the order of the log; nothing is
//! answered before the log and the tables have it.

use std::sync::Arc;
use std::time::Duration;

use mobula_namespace::{Batch, Command, Operation, Outcome};
use mobula_net::Clock;
use mobula_raft::{ProposeError, Raft};
use mobula_types::{HdfsPath, Millis};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::exceptions::Refusal;
use crate::machine::NamespaceMachine;

/// Commands of one entry at most. With the longest paths they still fit into the log's largest entry.
const BATCH_COMMANDS_MAX: usize = 2_048;
/// Commands that wait at most; more are told to come again.
const WAITING_MAX: usize = 65_536;

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
}

#[derive(Default)]
struct Waiting {
    commands: Vec<Command>,
    answers: Vec<Done>,
    /// Of text in `commands`.
    bytes: usize,
    /// So many commands are being waited for; 0 if nobody waits.
    wanted: usize,
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
                waiting.bytes += weight(&command.operation);
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
    }

    /// Proposes what was gathered, batch after batch, until the log stops.
    pub async fn run(self, raft: Raft<NamespaceMachine>, clock: Clock) {
        let mut patience = Patience::default();
        loop {
            let (commands, answers) = self.take();
            if commands.is_empty() {
                self.0.arrived.notified().await;
                // Those who were woken with the first caller get their commands in, too.
                tokio::task::yield_now().await;
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

    fn take(&self) -> (Vec<Command>, Vec<Done>) {
        let mut waiting = self.0.waiting.lock();
        if waiting.commands.len() <= BATCH_COMMANDS_MAX {
            waiting.bytes = 0;
            return (std::mem::take(&mut waiting.commands), std::mem::take(&mut waiting.answers));
        }
        let left = waiting.commands.split_off(BATCH_COMMANDS_MAX);
        let unanswered = waiting.answers.split_off(BATCH_COMMANDS_MAX);
        waiting.bytes = left.iter().map(|command| weight(&command.operation)).sum();
        (std::mem::replace(&mut waiting.commands, left), std::mem::replace(&mut waiting.answers, unanswered))
    }
}

impl Waiting {
    fn falls_short_of(&self, wanted: usize) -> bool {
        self.commands.len() < wanted && self.closed.is_none()
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
fn weight(operation: &Operation) -> usize {
    let path = |path: &HdfsPath| path.as_str().len();
    match operation {
        Operation::Rename { source, target } | Operation::Rename2 { source, target, .. } => {
            path(source) + path(target)
        }
        Operation::Create(create) => path(&create.path) + create.holder.len(),
        Operation::AddBlock(add) => path(&add.path) + add.holder.len(),
        Operation::Append(append) => path(&append.path) + append.holder.len(),
        Operation::Truncate(truncate) => path(&truncate.path) + truncate.holder.len(),
        Operation::Concat { target, sources } => path(target) + sources.iter().map(path).sum::<usize>(),
        Operation::UpdateBlockForPipeline { holder, .. } => holder.len(),
        Operation::UpdatePipeline(update) => update.holder.len(),
        Operation::Mkdirs { path: at, .. }
        | Operation::AbandonBlock { path: at, .. }
        | Operation::Complete { path: at, .. }
        | Operation::Fsync { path: at, .. }
        | Operation::RecoverLease { path: at, .. }
        | Operation::Delete { path: at, .. }
        | Operation::SetReplication { path: at, .. }
        | Operation::SetPermission { path: at, .. }
        | Operation::SetOwner { path: at, .. }
        | Operation::SetTimes { path: at, .. } => path(at),
        Operation::Format(_)
        | Operation::Configure(_)
        | Operation::ExpireLease { .. }
        | Operation::CommitBlockSynchronization(_)
        | Operation::RetryRecovery { .. }
        | Operation::Touch { .. }
        | Operation::Reap { .. } => 0,
    }
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
