//! How many files each holder of leases writes: counted from the table `open` once, and kept with it from then on.
//! The writer counts within `apply`; readers ask for what was published with the newest view, and never read the table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use redb::ReadableTable;

use crate::record::Construction;
use crate::table::TableError;

type Counts = BTreeMap<Arc<str>, u64>;

/// The writer's counts.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    counts: Counts,
    /// Those whose count changed since it was published.
    touched: BTreeSet<Arc<str>>,
    published: PublishedHolders,
}

/// The counts as of the newest view.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishedHolders(Arc<RwLock<Counts>>);

impl Holders {
    /// Counts the files of a table.
    pub(crate) fn count(open: &impl ReadableTable<u64, &'static [u8]>) -> Result<Holders, TableError> {
        let mut holders = Holders::default();
        for row in open.iter()? {
            let (_, construction) = row?;
            holders.add(Construction::decode_holder(construction.value())?);
        }
        Ok(holders)
    }

    pub(crate) fn held(&self, holder: &str) -> u64 {
        self.counts.get(holder).copied().unwrap_or(0)
    }

    /// One more file.
    pub(crate) fn add(&mut self, holder: &str) {
        let key = match self.counts.get_key_value(holder) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(holder),
        };
        self.touched.insert(Arc::clone(&key));
        *self.counts.entry(key).or_default() += 1;
    }

    /// One less.
    pub(crate) fn remove(&mut self, holder: &str) {
        let Some((key, count)) = self.counts.get_key_value(holder) else { return };
        let (key, count) = (Arc::clone(key), count - 1);
        if count == 0 {
            self.counts.remove(&key);
        } else {
            self.counts.insert(Arc::clone(&key), count);
        }
        self.touched.insert(key);
    }

    /// What readers are told from now on.
    pub(crate) fn publish(&mut self) -> PublishedHolders {
        if !self.touched.is_empty() {
            let mut published = self.published.0.write().unwrap_or_else(PoisonError::into_inner);
            for key in std::mem::take(&mut self.touched) {
                match self.counts.get(&key) {
                    Some(count) => _ = published.insert(key, *count),
                    None => _ = published.remove(&key),
                }
            }
        }
        self.published.clone()
    }
}

impl PublishedHolders {
    pub(crate) fn held(&self, holder: &str) -> u64 {
        self.read(|counts| counts.get(holder).copied().unwrap_or(0))
    }

    /// In order, up to `limit` of those after `after` (all, if none).
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Vec<Arc<str>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|counts| counts.range::<str, _>((from, Bound::Unbounded)).take(limit).map(key).collect())
    }

    fn read<T>(&self, ask: impl FnOnce(&Counts) -> T) -> T {
        ask(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key((holder, _): (&Arc<str>, &u64)) -> Arc<str> {
    Arc::clone(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_told_what_was_published() {
        let mut holders = Holders::default();
        holders.add("a");
        holders.add("a");
        holders.add("b");
        let published = holders.publish();
        assert_eq!((published.held("a"), published.held("b"), published.held("c")), (2, 1, 0));
        // Between two publications a holder may seem to have lost its only file.
        holders.remove("b");
        assert_eq!((holders.held("b"), published.held("b")), (0, 1));
        holders.add("b");
        holders.remove("a");
        holders.publish();
        assert_eq!((published.held("a"), published.held("b")), (1, 1));
        holders.remove("a");
        holders.publish();
        holders.add("c");
        holders.publish();
        assert_eq!(published.page(None, 5), ["b".into(), "c".into()]);
        assert_eq!(published.page(Some("b"), 5), ["c".into()]);
        assert_eq!(published.page(None, 1), ["b".into()]);
    }
}
