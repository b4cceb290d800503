//! Room for requests, shared by all connections: what has been promised to a request is its until it is answered.
//! Long ones and short ones have rooms of their own, so that reports hold up no beats.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Frames up to this length need no room: of them a connection has what its calls in flight may be.
const FREE_LENGTH: usize = 1 << 10;
/// Frames up to this length are short.
const SHORT_LENGTH: usize = 64 << 10;

/// The rooms.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

/// What a request has been promised; dropping it gives it back.
#[derive(Debug, Default)]
pub(crate) struct Share {
    _permit: Option<OwnedSemaphorePermit>,
}

/// A connection's place in the line for room.
#[derive(Default)]
pub(crate) struct Claim {
    held: Option<Share>,
    /// Bytes of the frame that it is for.
    length: usize,
    waiting: Option<Pin<Box<Waiting>>>,
}

type Waiting = dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send;

impl Budget {
    /// Two rooms of so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Budget {
        let bytes_max = bytes_max.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Budget { bytes_max, short: room(bytes_max), long: room(bytes_max) }
    }

    fn ask(&self, length: usize) -> Result<Share, Pin<Box<Waiting>>> {
        if length <= FREE_LENGTH {
            return Ok(Share::default());
        }
        let room = if length <= SHORT_LENGTH { &self.short } else { &self.long };
        // One that is longer than the room has it for itself.
        let bytes = u32::try_from(length.min(self.bytes_max)).unwrap_or(u32::MAX);
        match Arc::clone(room).try_acquire_many_owned(bytes) {
            Ok(permit) => Ok(Share { _permit: Some(permit) }),
            Err(_) => Err(Box::pin(Arc::clone(room).acquire_many_owned(bytes))),
        }
    }
}

fn room(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes))
}

impl Claim {
    /// Gets room for the frame that comes next, `length` bytes long, once; pending while there is none.
    pub(crate) fn poll(&mut self, budget: &Budget, length: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.held.is_some() {
            return Poll::Ready(());
        }
        self.length = length;
        let mut waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => match budget.ask(length) {
                Ok(share) => {
                    self.held = Some(share);
                    return Poll::Ready(());
                }
                Err(waiting) => waiting,
            },
        };
        match waiting.as_mut().poll(cx) {
            // The rooms are never closed.
            Poll::Ready(permit) => {
                self.held = Some(Share { _permit: permit.ok() });
                Poll::Ready(())
            }
            Poll::Pending => {
                self.waiting = Some(waiting);
                Poll::Pending
            }
        }
    }

    /// The length of a long frame that has its room and is not here yet: others wait for it.
    pub(crate) fn keeps_others_waiting(&self) -> Option<usize> {
        (self.held.is_some() && self.length > SHORT_LENGTH).then_some(self.length)
    }

    /// The frame was taken: what it was promised goes with it.
    pub(crate) fn take(&mut self) -> Share {
        self.held.take().unwrap_or_default()
    }
}
