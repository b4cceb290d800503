//! Time: of day for what people see and the log records, monotonic for waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A clock; clones tell the same time. Waiting is tokio's (`tokio::time`), which a test may pause.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Real {
        start: std::time::Instant,
    },
    /// Follows tokio's (paused) clock; a test may make its time of day jump.
    Virtual {
        epoch_ms: u64,
        start: Instant,
        jump_ms: Arc<AtomicI64>,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn real() -> Clock {
        Clock(Kind::Real { start: std::time::Instant::now() })
    }

    /// A clock that shows `epoch_ms` (since 1970) now and goes on with tokio's. Must be made inside
    /// the runtime that it is used in.
    pub fn virtual_from(epoch_ms: u64) -> Clock {
        Clock(Kind::Virtual { epoch_ms, start: Instant::now(), jump_ms: Arc::new(AtomicI64::new(0)) })
    }

    /// Moves a virtual clock's time of day, for good, by `by_ms`; monotonic time is untouched.
    pub fn jump(&self, by_ms: i64) {
        match &self.0 {
            Kind::Real { .. } => {}
            Kind::Virtual { jump_ms, .. } => {
                jump_ms.fetch_add(by_ms, Ordering::Relaxed);
            }
        }
    }

    /// Time of day, in milliseconds since 1970. May jump either way.
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Kind::Real { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                since.as_millis() as u64
            }
            Kind::Virtual { epoch_ms, start, jump_ms } => {
                let now = epoch_ms + start.elapsed().as_millis() as u64;
                now.saturating_add_signed(jump_ms.load(Ordering::Relaxed))
            }
        }
    }

    /// Time since this clock was made, in milliseconds; never goes back.
    pub fn monotonic_ms(&self) -> u64 {
        match &self.0 {
            Kind::Real { start } => start.elapsed().as_millis() as u64,
            Kind::Virtual { start, .. } => start.elapsed().as_millis() as u64,
        }
    }
}
