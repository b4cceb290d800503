//! Access times that readers left behind, until the next batch takes them (D13: nobody waits).

use std::collections::BTreeMap;

use mobula_types::{InodeId, Millis};
use parking_lot::Mutex;

/// Files remembered at most; further ones are read without a trace until the next batch.
const FILES_MAX: usize = 65_536;

/// What is to be written.
#[derive(Debug, Default)]
pub struct AccessTimes(Mutex<BTreeMap<InodeId, Millis>>);

impl AccessTimes {
    /// `file` was read at `now` (time of day).
    pub fn note(&self, file: InodeId, now: Millis) {
        let mut noted = self.0.lock();
        if noted.len() < FILES_MAX {
            noted.entry(file).or_insert(now);
        }
    }

    /// Takes up to `count` of them.
    pub fn take(&self, count: usize) -> Vec<(InodeId, Millis)> {
        let mut noted = self.0.lock();
        let mut taken = Vec::with_capacity(count.min(noted.len()));
        while taken.len() < count {
            let Some(first) = noted.pop_first() else { break };
            taken.push(first);
        }
        taken
    }
}
