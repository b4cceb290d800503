//! What happened in a run, in order: kept as a hash, and as lines for who asks to see them.

use std::sync::Arc;

use parking_lot::Mutex;

/// A run's trace; clones share it.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    hash: u64,
    lines: u64,
    last: Vec<String>,
    print: bool,
}

/// FNV-1a's start and factor: any fixed hash serves, it only has to be the same everywhere.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const FACTOR: u64 = 0x0000_0100_0000_01b3;
/// Lines kept for the report of a failure.
const LAST_MAX: usize = 40;

impl Trace {
    /// An empty trace, printed as it grows if `print`.
    pub fn new(print: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Inner { hash: START, lines: 0, last: Vec::new(), print })))
    }

    /// Adds a line, at the simulated time of `ms`.
    pub fn add(&self, ms: u128, text: &str) {
        let mut inner = self.0.lock();
        let line = format!("{ms:>7} {text}");
        for byte in line.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(FACTOR);
        }
        inner.lines += 1;
        if inner.print {
            println!("{line}");
        }
        if inner.last.len() == LAST_MAX {
            inner.last.remove(0);
        }
        inner.last.push(line);
    }

    /// Over all lines so far.
    pub fn hash(&self) -> u64 {
        self.0.lock().hash
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.0.lock().lines
    }

    /// The last of them.
    pub fn last(&self) -> Vec<String> {
        self.0.lock().last.clone()
    }
}
