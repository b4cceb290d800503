//! Where blocking disk calls run. A bounded number of threads, started when they are first needed,
//! and a bounded queue; or no thread at all, in the simulator.
//!
//! Invariant: a call that was queued runs, even if whoever waits for it has gone away, and even if the system has no
//! thread to give. It is on the data path, so a call costs one box, one wake-up of a thread and one of the waiting task.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Calls that may wait in a pool's queue; those who come later wait to queue.
pub const POOL_QUEUE_MAX: usize = 1024;

/// A short call that took longer was not short: the disk, or its journal, is busy.
const SHORT_LIMIT: Duration = Duration::from_micros(500);
/// After one of those, so many short calls in a row must have been short before one is made by its caller again.
const SHORT_AGAIN: u32 = 64;
/// Whether a thread of a runtime makes a short call right now. One at a time in this process: if that disk hangs, it
/// holds up one thread of the runtime and no more.
static CALLED_HERE: AtomicBool = AtomicBool::new(false);

/// A bounded number of threads for blocking calls; the simulated disk's runs them inline. Cheap to
/// clone. The threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Pool(Kind);

#[derive(Clone)]
enum Kind {
    Inline,
    Threads(Arc<Threads>),
}

type Call = Box<dyn FnOnce() + Send>;

/// Has a thread of that name make a call.
type Spawn = fn(String, Call) -> io::Result<()>;

fn spawn(name: String, call: Call) -> io::Result<()> {
    std::thread::Builder::new().name(name).spawn(call).map(|_| ())
}

/// What clones of a pool share; its drop tells the workers to end.
struct Threads {
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    name: String,
    threads_max: usize,
    spawn: Spawn,
    /// Whether the system had no thread to give when it was asked last.
    starved: AtomicBool,
    /// So many short calls must prove short on these threads.
    distrust: AtomicU32,
}

/// What the workers see: it must not keep [`Threads`] alive.
struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    calls: VecDeque<(Call, OwnedSemaphorePermit)>,
    idle: usize,
    /// Threads, and callers that stand in for one.
    started: usize,
    closed: bool,
}

impl Pool {
    /// A pool that runs every call at once, in whoever asks.
    pub fn inline() -> Pool {
        Pool(Kind::Inline)
    }

    /// A pool of at most `threads` (at least one) threads that bear `name` and a number.
    pub fn threads(name: &str, threads: usize) -> Pool {
        Pool::of(name, threads, spawn)
    }

    fn of(name: &str, threads: usize, spawn: Spawn) -> Pool {
        Pool(Kind::Threads(Arc::new(Threads {
            queue: Arc::new(Queue { state: Mutex::default(), wake: Condvar::new() }),
            room: Arc::new(Semaphore::new(POOL_QUEUE_MAX)),
            name: name.to_owned(),
            threads_max: threads.max(1),
            spawn,
            starved: AtomicBool::new(false),
            distrust: AtomicU32::new(0),
        })))
    }

    /// As [`Pool::run`], for a call that waits for no disk as long as all is well: some KiB into the page cache.
    /// It is made at once by whoever asks, without two hand-overs between threads, which take longer than the
    /// call does; by this pool's threads where that has not proved true lately, or where it could stop the last thread
    /// of a runtime.
    pub async fn run_short<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        let Kind::Threads(threads) = &self.0 else { return call() };
        if threads.distrust.load(Ordering::Relaxed) == 0
            && let Some(_one) = Here::take()
        {
            let (result, took) = timed(call);
            threads.judge(took);
            return result;
        }
        let (result, took) = self.run(move || timed(call)).await;
        threads.judge(took);
        result
    }

    /// Runs `call` and hands back its result. If `call` panicked, that panic is passed on.
    /// Once started to wait, the call runs even if the future is dropped.
    pub async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        let threads = match &self.0 {
            Kind::Inline => return call(),
            Kind::Threads(threads) => threads,
        };
        let room = threads.room.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (done, result) = oneshot::channel();
        let call = move || {
            // Nobody waiting any more is no error: the call was made.
            let _ = done.send(catch_unwind(AssertUnwindSafe(call)));
        };
        threads.queue(Box::new(call), room);
        match result.await.expect("a queued call runs, and answers even if it panics") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// The right to make a short call on a thread of a runtime.
struct Here;

impl Here {
    fn take() -> Option<Here> {
        let runtime = Handle::try_current().ok()?;
        let others =
            runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1;
        (others && !CALLED_HERE.swap(true, Ordering::Acquire)).then_some(Here)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        CALLED_HERE.store(false, Ordering::Release);
    }
}

fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = call();
    (result, begun.elapsed())
}

impl Threads {
    /// Notes how long a short call took.
    fn judge(&self, took: Duration) {
        if took > SHORT_LIMIT {
            self.distrust.store(SHORT_AGAIN, Ordering::Relaxed);
        } else {
            let less = |left: u32| left.checked_sub(1);
            // None is left: that is how it should be.
            let _ = self.distrust.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    fn queue(&self, call: Call, room: OwnedSemaphorePermit) {
        let mut state = self.queue.state.lock();
        state.calls.push_back((call, room));
        if state.idle >= state.calls.len() {
            drop(state);
            self.queue.wake.notify_one();
        } else if state.started < self.threads_max {
            let number = state.started;
            state.started += 1;
            drop(state);
            self.start(number);
        } else {
            drop(state);
            self.queue.wake.notify_one();
        }
    }

    /// Starts a thread, which `started` counts already. If the system has none to give, those that live have the calls;
    /// and if there is none, the caller stands in for one: until there is a thread, or no call is left.
    fn start(&self, number: usize) {
        loop {
            let queue = self.queue.clone();
            let work = Box::new(move || queue.work());
            let Err(error) = (self.spawn)(format!("{}-{number}", self.name), work) else {
                self.starved.store(false, Ordering::Relaxed);
                return;
            };
            if !self.starved.swap(true, Ordering::Relaxed) {
                tracing::warn!(pool = %self.name, %error, "no thread to be had: callers wait for the disk themselves");
            }
            let mut state = self.queue.state.lock();
            // Who else is counted is a thread, or a caller that will find itself the last one here: the calls are theirs.
            let next = if state.started > 1 { None } else { state.calls.pop_front() };
            let Some((call, room)) = next else {
                state.started -= 1;
                drop(state);
                self.queue.wake.notify_one();
                return;
            };
            drop(state);
            drop(room);
            call();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.wake.notify_all();
    }
}

impl Queue {
    /// A worker's life: calls until the pool is gone and the queue is empty.
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some((call, room)) = state.calls.pop_front() {
                drop(state);
                drop(room);
                call();
                state = self.state.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                self.wake.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Inline => f.write_str("Pool(inline)"),
            Kind::Threads(threads) => write!(f, "Pool({} x {})", threads.name, threads.threads_max),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_thread_keeps_the_order() {
        let pool = Pool::threads("order", 1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let calls: Vec<_> = (0..500)
            .map(|number| {
                let (pool, seen) = (pool.clone(), seen.clone());
                tokio::spawn(async move { pool.run(move || seen.lock().push(number)).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(*seen.lock(), (0..500).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn no_more_threads_than_asked_for_and_all_are_used() {
        let pool = Pool::threads("width", 3);
        let meet = Arc::new(std::sync::Barrier::new(3));
        let running = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..30)
            .map(|_| {
                let (pool, running, meet) = (pool.clone(), running.clone(), meet.clone());
                tokio::spawn(async move {
                    pool.run(move || {
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                        meet.wait();
                        running.fetch_sub(1, Ordering::SeqCst);
                        meet.wait();
                    })
                    .await;
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_spares_the_pool() {
        let pool = Pool::threads("panic", 1);
        let other = pool.clone();
        let failed = tokio::spawn(async move { other.run(|| panic!("on purpose")).await }).await;
        assert!(failed.unwrap_err().is_panic());
        assert_eq!(pool.run(|| 7).await, 7);
    }

    #[tokio::test]
    async fn what_was_queued_runs_and_then_the_threads_end() {
        let pool = Pool::threads("end", 1);
        let (started, wait) = std::sync::mpsc::channel();
        let queue = match &pool.0 {
            Kind::Threads(threads) => Arc::downgrade(&threads.queue),
            Kind::Inline => unreachable!(),
        };
        {
            let mut call = std::pin::pin!(pool.run(move || started.send(()).unwrap()));
            // Polled once, then dropped: the call is in the queue.
            assert!(futures_poll(call.as_mut()).is_none());
        }
        wait.recv().unwrap();
        drop(pool);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while queue.strong_count() > 0 {
            assert!(std::time::Instant::now() < deadline, "the thread goes on");
            std::thread::yield_now();
        }
    }

    fn no_thread() -> io::Error {
        io::ErrorKind::WouldBlock.into()
    }

    fn runtime_of_callers() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).thread_name("caller").build().unwrap()
    }

    #[test]
    fn without_a_thread_the_caller_makes_the_call() {
        let pool = Pool::of("none", 2, |_, _| Err(no_thread()));
        let callers = runtime_of_callers();
        for _ in 0..3 {
            let pool = pool.clone();
            assert_eq!(
                callers.block_on(callers.spawn(async move { pool.run(here).await })).unwrap(),
                "caller"
            );
        }
    }

    /// The first is given, and no other: it has all calls, even those that another thread was wanted for.
    #[tokio::test]
    async fn a_thread_that_lives_has_the_calls_of_one_that_was_not_to_be_had() {
        static GIVEN: AtomicUsize = AtomicUsize::new(0);
        let pool = Pool::of("one", 3, |name, call| match GIVEN.fetch_add(1, Ordering::SeqCst) {
            0 => spawn(name, call),
            _ => Err(no_thread()),
        });
        let (hung, is_hung) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let mut first = std::pin::pin!(pool.run(move || {
            hung.send(()).unwrap();
            released.recv().unwrap();
        }));
        assert!(futures_poll(first.as_mut()).is_none());
        is_hung.recv().unwrap();
        let mut second = std::pin::pin!(pool.run(here));
        assert!(futures_poll(second.as_mut()).is_none(), "the caller does not wait for the disk");
        assert_eq!(GIVEN.load(Ordering::SeqCst), 2);
        release.send(()).unwrap();
        first.await;
        assert_eq!(second.await, "one-0");
    }

    /// Threads come and do not come: every call is made, and never more at once than there may be threads.
    #[test]
    fn every_call_is_made_whenever_threads_are_short() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let callers = runtime_of_callers();
        for round in 0..30 {
            let threads = round % 3 + 1;
            let pool = Pool::of("short", threads, |name, call| {
                if ASKED.fetch_add(1, Ordering::SeqCst).is_multiple_of(4) {
                    spawn(name, call)
                } else {
                    Err(no_thread())
                }
            });
            let running = Arc::new(AtomicUsize::new(0));
            let calls: Vec<_> = (0..40)
                .map(|number| {
                    let (pool, running) = (pool.clone(), running.clone());
                    callers.spawn(async move {
                        let call = move || {
                            assert!(running.fetch_add(1, Ordering::SeqCst) < threads, "too many at once");
                            std::thread::yield_now();
                            running.fetch_sub(1, Ordering::SeqCst);
                            number
                        };
                        pool.run(call).await
                    })
                })
                .collect();
            for (number, call) in calls.into_iter().enumerate() {
                assert_eq!(callers.block_on(call).unwrap(), number, "round {round}");
            }
        }
    }

    fn here() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    fn runtime(workers: usize) -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("worker")
            .build()
            .unwrap()
    }

    /// One test, since they share the right to call: who has a runtime with other threads makes a short call itself;
    /// while that hangs, others use the pool's threads, and the runtime goes on.
    #[test]
    fn a_short_call_is_made_by_its_caller_one_at_a_time() {
        let pool = Pool::threads("short", 2);
        let two = runtime(2);
        let on = |runtime: &tokio::runtime::Runtime, pool: &Pool| {
            let pool = pool.clone();
            runtime.block_on(runtime.spawn(async move { pool.run_short(here).await })).unwrap()
        };
        assert_eq!(on(&two, &pool), "worker");
        assert!(on(&runtime(1), &pool).starts_with("short-"));

        let (hung, is_hung) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let hanging = pool.clone();
        let hangs = two.spawn(async move {
            hanging
                .run_short(move || {
                    hung.send(()).unwrap();
                    released.recv().unwrap();
                })
                .await;
        });
        is_hung.recv().unwrap();
        let begun = Instant::now();
        while begun.elapsed() <= SHORT_LIMIT {
            std::thread::yield_now();
        }
        assert!(on(&two, &pool).starts_with("short-"));
        release.send(()).unwrap();
        two.block_on(hangs).unwrap();
        // That was no short one: the threads have the next ones, until as many as that were short.
        let by_threads = (0..SHORT_AGAIN).filter(|_| on(&two, &pool).starts_with("short-")).count();
        assert!(by_threads as u32 >= SHORT_AGAIN);
        let back = (0..10_000).any(|_| on(&two, &pool) == "worker");
        assert!(back, "it is never trusted again");
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }
}
