//! Places for connections, and who gives way when there is none left. Knows nothing of requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The places.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Connections that wait for their clients, in the order in which they began to. Who is taken out gives way.
#[derive(Debug, Default)]
struct Idle {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Infallible>>,
}

impl Places {
    /// So many.
    pub fn new(count: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(count)), idle: Mutex::default() }
    }

    /// A place: where all are taken, that of the connection that has been idle for longest, or else the next one that
    /// ends. For one caller at a time.
    pub async fn take(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return place;
        }
        _ = self.idle.lock().waiting.pop_first();
        Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits for a client, which may take long; none if it had to give way meanwhile.
    pub async fn idle<T>(&self, client: impl Future<Output = T>) -> Option<T> {
        let (stays, gives_way) = oneshot::channel();
        let number = {
            let mut idle = self.idle.lock();
            idle.next += 1;
            let number = idle.next;
            idle.waiting.insert(number, stays);
            number
        };
        let _listed = Listed { places: self, number };
        tokio::select! {
            biased;
            _ = gives_way => None,
            came = client => Some(came),
        }
    }
}

/// In the list of those who are idle until dropped.
struct Listed<'p> {
    places: &'p Places,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        _ = self.places.idle.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_longest_idle_one_gives_way_and_none_that_is_at_work() {
        let places = Arc::new(Places::new(3));
        let at_work = places.take().await;
        let mut tasks = Vec::new();
        for _ in 0..2 {
            let place = places.take().await;
            let among = Arc::clone(&places);
            let task = tokio::spawn(async move {
                let came = among.idle(pending::<()>()).await;
                drop(place);
                came
            });
            tokio::task::yield_now().await;
            tasks.push(task);
        }
        let taken = places.take().await;
        assert_eq!(tasks.remove(0).await.unwrap(), None);
        assert!(!tasks[0].is_finished(), "one is enough");
        let second = places.take().await;
        assert_eq!(tasks.remove(0).await.unwrap(), None);

        // Nobody is idle: the next one has to wait for one that ends.
        let next = tokio::spawn(async move { places.take().await });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        drop(at_work);
        let third = next.await.unwrap();
        drop((taken, second, third));
    }

    #[tokio::test]
    async fn who_has_asked_is_idle_no_more() {
        let places = Places::new(1);
        let place = places.take().await;
        assert_eq!(places.idle(async { 7 }).await, Some(7));
        assert!(places.idle.lock().waiting.is_empty());
        drop(place);
    }
}
