//! Queues between the activities of one task, which are polled together. What one gives, another takes in the
//! same poll: nobody is woken for it. With queues that wake, a task that wakes itself is put at the end of its
//! runtime's line, and another thread is roused to take it from there: for a small packet that took longer than all
//! else that a node does with it.
//!
//! Invariant: both ends of a queue are polled within [`Stir::drive`] of their stir, which looks again as long as
//! anything was moved. So they borrow from it, and cannot go to another task.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use parking_lot::Mutex;

/// Whether something was moved since the activities were last looked at.
#[derive(Debug, Default)]
pub(crate) struct Stir(AtomicBool);

#[derive(Debug)]
struct Shared<T> {
    items: VecDeque<T>,
    room: usize,
    givers: usize,
    taker: bool,
}

/// The end of a queue where things go in; clones are the same end.
#[derive(Debug)]
pub(crate) struct Giver<'a, T> {
    stir: &'a Stir,
    shared: Arc<Mutex<Shared<T>>>,
}

/// The end where they come out.
#[derive(Debug)]
pub(crate) struct Taker<'a, T> {
    stir: &'a Stir,
    shared: Arc<Mutex<Shared<T>>>,
}

/// Nobody takes anything any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Stir {
    /// A queue that holds at most `room` things.
    pub(crate) fn queue<T>(&self, room: usize) -> (Giver<'_, T>, Taker<'_, T>) {
        let shared = Shared { items: VecDeque::new(), room, givers: 1, taker: true };
        let shared = Arc::new(Mutex::new(shared));
        (Giver { stir: self, shared: shared.clone() }, Taker { stir: self, shared })
    }

    /// Polls `activities` until they have moved nothing.
    pub(crate) async fn drive<F: Future>(&self, activities: F) -> F::Output {
        let mut activities = pin!(activities);
        poll_fn(|cx| {
            loop {
                self.0.store(false, Ordering::Relaxed);
                match activities.as_mut().poll(cx) {
                    Poll::Pending if self.0.load(Ordering::Relaxed) => {}
                    polled => return polled,
                }
            }
        })
        .await
    }

    fn moved(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Giver<'_, T> {
    /// Gives, once there is room.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn give(&self, item: T) -> Result<(), Gone> {
        let mut item = Some(item);
        poll_fn(|_| {
            let mut shared = self.shared.lock();
            if !shared.taker {
                return Poll::Ready(Err(Gone));
            }
            if shared.items.len() >= shared.room {
                return Poll::Pending;
            }
            shared.items.extend(item.take());
            self.stir.moved();
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl<T> Clone for Giver<'_, T> {
    fn clone(&self) -> Self {
        self.shared.lock().givers += 1;
        Giver { stir: self.stir, shared: self.shared.clone() }
    }
}

impl<T> Drop for Giver<'_, T> {
    fn drop(&mut self) {
        self.shared.lock().givers -= 1;
        self.stir.moved();
    }
}

impl<T> Taker<'_, T> {
    /// The next one; none when nothing is left and nobody gives any more. Nothing is lost if the wait is given up.
    pub(crate) async fn take(&mut self) -> Option<T> {
        poll_fn(|_| {
            if let Some(item) = self.take_now() {
                return Poll::Ready(Some(item));
            }
            if self.shared.lock().givers == 0 { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// The next one, if it is there.
    pub(crate) fn take_now(&mut self) -> Option<T> {
        let item = self.shared.lock().items.pop_front();
        if item.is_some() {
            self.stir.moved();
        }
        item
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.lock().items.is_empty()
    }
}

impl<T> Drop for Taker<'_, T> {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.taker = false;
        shared.items.clear();
        drop(shared);
        self.stir.moved();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Three activities, thousands of things, one poll, and nobody is woken.
    #[test]
    fn what_is_given_is_taken_in_the_same_poll() {
        let stir = Stir::default();
        let (give, mut middle) = stir.queue::<u32>(1);
        let (pass, mut take) = stir.queue::<u32>(3);
        let all = stir.drive(async {
            let first = async move {
                for number in 0..5_000 {
                    give.give(number).await.unwrap();
                }
            };
            let second = async {
                while let Some(number) = middle.take().await {
                    pass.give(number * 2).await.unwrap();
                }
                drop(pass);
            };
            let third = async {
                let mut taken = Vec::new();
                while let Some(number) = take.take().await {
                    taken.push(number);
                }
                taken
            };
            tokio::join!(third, second, first).0
        });
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let polled = pin!(all).poll(&mut Context::from_waker(&waker));
        let Poll::Ready(taken) = polled else { panic!("it waits") };
        assert_eq!(taken, (0..5_000).map(|number| number * 2).collect::<Vec<_>>());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_gives_learns_that_nobody_takes() {
        let stir = Stir::default();
        let (give, take) = stir.queue::<u32>(1);
        let all = stir.drive(async {
            let gives = async {
                give.give(1).await.unwrap();
                give.give(2).await
            };
            let goes = async {
                assert!(!take.is_empty());
                drop(take);
            };
            tokio::join!(gives, goes).0
        });
        let polled = pin!(all).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Err(Gone)));
    }

    #[test]
    fn the_last_giver_ends_it() {
        let stir = Stir::default();
        let (give, mut take) = stir.queue::<u32>(2);
        let other = give.clone();
        let mut all = pin!(stir.drive(async { (take.take().await, take.take().await) }));
        let mut cx = Context::from_waker(Waker::noop());
        drop(give);
        assert!(all.as_mut().poll(&mut cx).is_pending());
        assert_eq!(pin!(other.give(7)).poll(&mut cx), Poll::Ready(Ok(())));
        drop(other);
        assert_eq!(all.as_mut().poll(&mut cx), Poll::Ready((Some(7), None)));
    }
}
