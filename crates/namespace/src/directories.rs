//! Directories in memory, so that the way down a path, and up from a file, costs no look into the tables.
//!
//! [`Directories`] is the writer's own: it holds for every directory in it what the tables hold, or will at
//! the next flush, and a directory that gets a thousand files in one transaction is written once. All
//! writes of entries come through it. [`Memo`] is shared by the views.

#![allow(clippy::disallowed_types)] // A HashMap with a fixed seed that nobody iterates over.

use std::collections::HashMap;
use std::sync::RwLock;

use foldhash::fast::FixedState;
use mobula_types::InodeId;

use crate::record::{Inode, Place};
use crate::table::{Key, entry_key, split_key};

/// Directories remembered from one transaction to the next: some 300 bytes each.
const DIRECTORIES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Directories {
    by_id: HashMap<u64, Known, FixedState>,
    by_entry: HashMap<Key, u64, FixedState>,
    /// Those that the tables do not hold yet as they are here, in the order in which they changed.
    dirty: Vec<u64>,
    /// Entries that changed or went in this transaction.
    touched: Vec<Key>,
}

#[derive(Debug)]
struct Known {
    parent: InodeId,
    name: Box<[u8]>,
    inode: Inode,
    dirty: bool,
}

impl Directories {
    pub(crate) fn entry(&self, key: &[u8]) -> Option<&Inode> {
        self.by_entry.get(key).and_then(|id| self.by_id.get(id)).map(|known| &known.inode)
    }

    pub(crate) fn place(&self, id: InodeId) -> Option<Place> {
        self.by_id.get(&id.0).map(|known| Place { parent: known.parent, name: known.name.to_vec() })
    }

    /// Remembers a directory as the tables hold it.
    pub(crate) fn learn(&mut self, key: &Key, inode: &Inode) {
        let (parent, name) = split_key(key);
        self.set(parent, name, inode, false);
    }

    /// Remembers a directory that the tables shall hold so.
    pub(crate) fn change(&mut self, parent: InodeId, name: &[u8], inode: &Inode) {
        if let Some(known) = self.by_id.get_mut(&inode.id.0)
            && known.parent == parent
            && *known.name == *name
        {
            known.inode.clone_from(inode);
            if !std::mem::replace(&mut known.dirty, true) {
                self.dirty.push(inode.id.0);
                self.touched.push(entry_key(parent, name));
            }
            return;
        }
        self.set(parent, name, inode, true);
        self.dirty.push(inode.id.0);
        self.touched.push(entry_key(parent, name));
    }

    fn set(&mut self, parent: InodeId, name: &[u8], inode: &Inode, dirty: bool) {
        let id = inode.id.0;
        self.by_entry.insert(entry_key(parent, name), id);
        self.by_id.insert(id, Known { parent, name: name.into(), inode: inode.clone(), dirty });
    }

    /// That entry goes, whether a directory or not.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        self.touched.push(Key::from_slice(key));
        if let Some(id) = self.by_entry.remove(key) {
            self.by_id.remove(&id);
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Gives what the tables do not hold yet to `write`.
    pub(crate) fn flush<E>(
        &mut self,
        mut write: impl FnMut(&[u8], &Inode) -> Result<(), E>,
    ) -> Result<(), E> {
        for id in std::mem::take(&mut self.dirty) {
            let Some(known) = self.by_id.get_mut(&id) else { continue };
            if std::mem::take(&mut known.dirty) {
                write(&entry_key(known.parent, &known.name), &known.inode)?;
            }
        }
        Ok(())
    }

    /// Between transactions: bounds the memory. Gives the entries that this one touched.
    pub(crate) fn trim(&mut self) -> Vec<Key> {
        assert!(self.is_settled(), "flushed before the commit");
        if self.by_id.len() > DIRECTORIES_MAX {
            self.by_id.clear();
            self.by_entry.clear();
        }
        std::mem::take(&mut self.touched)
    }
}

/// What views found of directories, for the next one to look. Readers only *try* its lock and go to their
/// tables otherwise, so that they wait for nobody.
///
/// An entry that was found at version e and not touched since is what it was at every version from e on:
/// so views of e or later may have it, and it may be left here only by a view of the present version.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    inner: RwLock<Found>,
}

#[derive(Debug, Default)]
struct Found {
    version: u64,
    entries: HashMap<Key, (u64, Inode), FixedState>,
}

impl Memo {
    pub(crate) fn entry(&self, version: u64, key: &[u8]) -> Option<Inode> {
        let found = self.inner.try_read().ok()?;
        let (since, inode) = found.entries.get(key)?;
        (*since <= version).then(|| inode.clone())
    }

    pub(crate) fn learn(&self, version: u64, key: &Key, inode: &Inode) {
        let Ok(mut found) = self.inner.try_write() else { return };
        if found.version != version {
            return;
        }
        if found.entries.len() >= DIRECTORIES_MAX {
            found.entries.clear();
        }
        found.entries.insert(key.clone(), (version, inode.clone()));
    }

    /// Before the view of `version` is given out: what its transaction touched goes.
    pub(crate) fn publish(&self, version: u64, touched: &[Key]) {
        let mut found = self.inner.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        found.version = version;
        for key in touched {
            found.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Body, Directory};

    fn directory(mode: u16) -> Inode {
        let body = Body::Directory(Directory::default());
        Inode { id: InodeId(5), mode, owner: 0, group: 0, modified: Default::default(), body }
    }

    #[test]
    fn a_memo_tells_no_view_what_is_not_so_in_it() {
        let memo = Memo::default();
        let key = entry_key(InodeId(1), b"d");
        memo.publish(1, &[]);
        memo.learn(1, &key, &directory(1));
        assert_eq!(memo.entry(1, &key), Some(directory(1)));
        assert_eq!(memo.entry(0, &key), None, "an older view may have known another one");
        memo.publish(2, &[]);
        assert_eq!(memo.entry(2, &key), Some(directory(1)), "untouched");
        memo.publish(3, std::slice::from_ref(&key));
        assert_eq!(memo.entry(3, &key), None);
        memo.learn(2, &key, &directory(1));
        assert_eq!(memo.entry(3, &key), None, "an old view may leave nothing");
        memo.learn(3, &key, &directory(2));
        assert_eq!((memo.entry(2, &key), memo.entry(3, &key)), (None, Some(directory(2))));
    }
}
