//! What happened in a run, in order: kept as a hash, and as lines for who asks to see them.

use std::sync::Arc;

use parking_lot::Mutex;

/// What of a trace is kept besides its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The last lines, for the report of a failure; messages, whose text is costly, are not listened to.
    Lines,
    /// The last lines, for the report of a failure; messages go into the hash, so that runs can be compared.
    Last,
    /// The last lines, and every line is printed.
    Print,
    /// Every line and every message, to find where two runs part.
    All,
}

/// A run's trace; clones share it.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    now_ms: u64,
    hash: u64,
    lines: u64,
    messages: u64,
    kept: Vec<String>,
    keep: Keep,
}

/// FNV-1a's start and factor: any fixed hash serves, it only has to be the same everywhere.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const FACTOR: u64 = 0x0000_0100_0000_01b3;
/// Lines kept for the report of a failure.
const LAST_MAX: usize = 60;

impl Trace {
    /// An empty trace.
    pub fn new(keep: Keep) -> Trace {
        let inner = Inner { now_ms: 0, hash: START, lines: 0, messages: 0, kept: Vec::new(), keep };
        Trace(Arc::new(Mutex::new(inner)))
    }

    /// What is added from now on happens at this simulated time.
    pub fn at(&self, now_ms: u64) {
        self.0.lock().now_ms = now_ms;
    }

    /// Adds a line.
    pub fn add(&self, text: &str) {
        let mut inner = self.0.lock();
        let line = format!("{:>7} {text}", inner.now_ms);
        inner.mix(line.as_bytes());
        inner.lines += 1;
        if inner.keep == Keep::Print {
            println!("{line}");
        }
        if inner.keep != Keep::All && inner.kept.len() == LAST_MAX {
            inner.kept.remove(0);
        }
        inner.kept.push(line);
    }

    /// Adds a message that the network took or delivered.
    pub fn message(&self, text: &str) {
        let mut inner = self.0.lock();
        inner.mix(text.as_bytes());
        inner.messages += 1;
        if inner.keep == Keep::All {
            let line = format!("{:>7} {text}", inner.now_ms);
            inner.kept.push(line);
        }
    }

    /// Whether it takes messages at all.
    pub fn hears_messages(&self) -> bool {
        self.0.lock().keep != Keep::Lines
    }

    /// Over all lines and messages so far.
    pub fn hash(&self) -> u64 {
        self.0.lock().hash
    }

    /// How many lines and messages there were.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.0.lock();
        (inner.lines, inner.messages)
    }

    /// What was kept.
    pub fn kept(&self) -> Vec<String> {
        self.0.lock().kept.clone()
    }
}

impl Inner {
    fn mix(&mut self, bytes: &[u8]) {
        self.hash = fnv_on(self.hash, bytes);
    }
}

/// A hash that is the same everywhere.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    fnv_on(START, bytes)
}

fn fnv_on(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FACTOR))
}
