//! What befell the DataNodes, and when: the oracle asks whether one may have lost what it held.

use std::collections::BTreeMap;

/// A DataNode that nobody heard of for so long, in simulated milliseconds, may be given up by a recovery:
/// less than the 10 s after which it is declared dead, since its last beat may have been before.
const GIVEN_UP_MS: u64 = 6_000;
/// Absences that are no further apart than this are one: a machine that starts needs time to be heard of.
const APART_MS: u64 = 3_000;
/// As long as it lasts.
const OPEN: u64 = u64::MAX;

/// Why a DataNode is not to be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// It may lose what was not synced: the power failed.
    Loss,
    /// It, or its link to the NameNode, is down.
    Absence,
}

/// From when to when, in order.
type Times = Vec<(u64, u64)>;

/// All of a run.
#[derive(Debug, Default)]
pub struct Mishaps(BTreeMap<(usize, Mishap), Times>);

impl Mishaps {
    /// It begins; one that goes on already goes on.
    pub fn begin(&mut self, node: usize, what: Mishap, now_ms: u64) {
        let times = self.0.entry((node, what)).or_default();
        if times.last().is_none_or(|(_, until)| *until != OPEN) {
            times.push((now_ms, OPEN));
        }
    }

    /// It is over.
    pub fn end(&mut self, node: usize, what: Mishap, now_ms: u64) {
        if let Some((_, until)) = self.0.get_mut(&(node, what)).and_then(|times| times.last_mut()) {
            *until = (*until).min(now_ms);
        }
    }

    /// Whether a node may have lost, since then, what it had not synced.
    pub fn lost_since(&self, node: usize, since_ms: u64) -> bool {
        self.times(node, Mishap::Loss).iter().any(|(_, until)| *until >= since_ms)
    }

    /// Whether a node was away, since then, for so long that it may have been given up.
    pub fn given_up_since(&self, node: usize, since_ms: u64, now_ms: u64) -> bool {
        let mut run: Option<(u64, u64)> = None;
        for &(from, until) in self.times(node, Mishap::Absence) {
            let until = until.min(now_ms);
            if until < since_ms {
                continue;
            }
            run = match run {
                Some((first, last)) if from <= last.saturating_add(APART_MS) => {
                    Some((first, until.max(last)))
                }
                _ => Some((from, until)),
            };
            if run.is_some_and(|(first, last)| last - first >= GIVEN_UP_MS) {
                return true;
            }
        }
        false
    }

    fn times(&self, node: usize, what: Mishap) -> &[(u64, u64)] {
        self.0.get(&(node, what)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_absences() {
        let mut all = Mishaps::default();
        all.begin(1, Mishap::Loss, 500);
        all.end(1, Mishap::Loss, 500);
        assert!(all.lost_since(1, 500) && !all.lost_since(1, 501) && !all.lost_since(0, 0));
        all.begin(1, Mishap::Absence, 1_000);
        assert!(!all.given_up_since(1, 0, 6_999) && all.given_up_since(1, 0, 7_000));
        all.end(1, Mishap::Absence, 4_000);
        assert!(!all.given_up_since(1, 0, 100_000));
        all.begin(1, Mishap::Absence, 6_000);
        all.end(1, Mishap::Absence, 7_500);
        assert!(all.given_up_since(1, 0, 100_000), "a moment between the two does not count");
        assert!(!all.given_up_since(1, 4_500, 100_000));
    }
}
