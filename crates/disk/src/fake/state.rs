//! What is on the simulated medium: the live tree that processes see, the durable one that a power
//! loss leaves for certain, and the changes in between, in order.
//!
//! Invariant: live is durable with all pending changes applied (but for failed syncs, which drop
//! pending data that stays readable until a crash).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::named;
use crate::{Entry, Kind, Space};

/// A file's or folder's number; the root folder's is 0.
pub(super) type Inode = u64;
pub(super) const ROOT: Inode = 0;

/// Unlinked files are looked for when this many names have gone since the last time.
const SWEEP_AFTER: usize = 256;

/// What a disk without a limit says it has, in bytes.
const CAPACITY_DEFAULT: u64 = 1 << 40;

/// A change. Replayed from the same medium, the same changes give the same inodes.
#[derive(Clone, Debug)]
pub(super) enum Act {
    CreateFile(PathBuf),
    CreateFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveFile(PathBuf),
    RemoveFolder(PathBuf),
    SyncFolder(PathBuf),
    Write(Inode, u64, Arc<[u8]>),
    SetLength(Inode, u64),
    Allocate(Inode, u64),
    Sync(Inode),
    FailSync(Inode),
}

/// A change to a file's contents that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Write(u64, Arc<[u8]>),
    Length(u64),
}

impl Edit {
    pub(super) fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Edit::Write(offset, data) => {
                let from = *offset as usize;
                let to = from + data.len();
                if contents.len() < to {
                    contents.resize(to, 0);
                }
                contents[from..to].copy_from_slice(data);
            }
            Edit::Length(length) => contents.resize(*length as usize, 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Edit>,
    pub(super) allocated: u64,
}

/// A change of names that is not durable yet. It is atomic, as a journal makes it.
#[derive(Clone, Debug)]
pub(super) struct NameEdit {
    /// (folder, name, what it stands for from now on).
    pub(super) set: Vec<(Inode, OsString, Option<Inode>)>,
}

pub(super) type Folder = BTreeMap<OsString, Inode>;

#[derive(Clone, Debug)]
pub(super) struct Medium {
    pub(super) files: BTreeMap<Inode, FileState>,
    pub(super) live: BTreeMap<Inode, Folder>,
    pub(super) durable: BTreeMap<Inode, Folder>,
    pub(super) pending: Vec<NameEdit>,
    pub(super) next: Inode,
    pub(super) rng: StdRng,
    pub(super) capacity: Option<u64>,
    pub(super) locks: BTreeMap<Inode, String>,
    pub(super) opens: BTreeMap<Inode, u32>,
    gone: usize,
}

/// The names of a path, whatever it begins with.
fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

impl Medium {
    pub(super) fn new(seed: u64) -> Medium {
        let root = BTreeMap::from([(ROOT, Folder::new())]);
        Medium {
            files: BTreeMap::new(),
            live: root.clone(),
            durable: root,
            pending: Vec::new(),
            next: ROOT + 1,
            rng: StdRng::seed_from_u64(seed),
            capacity: None,
            locks: BTreeMap::new(),
            opens: BTreeMap::new(),
            gone: 0,
        }
    }

    /// Files with changes that are not durable.
    pub(super) fn unsynced(&self) -> Vec<Inode> {
        let dirty = self.files.iter().filter(|(_, file)| !file.pending.is_empty());
        dirty.map(|(inode, _)| *inode).collect()
    }

    pub(super) fn contents(&self, inode: Inode) -> &[u8] {
        self.files.get(&inode).map_or(&[], |file| &file.live)
    }

    fn find(&self, path: &Path) -> Option<Inode> {
        names(path).try_fold(ROOT, |at, name| self.live.get(&at)?.get(name).copied())
    }

    /// The file at `path`, if there is one; its folder must be there.
    pub(super) fn file(&self, path: &Path) -> io::Result<Option<Inode>> {
        let (folder, name) = self.parent(path)?;
        match self.live[&folder].get(name) {
            Some(inode) if self.live.contains_key(inode) => {
                Err(named(path, ErrorKind::IsADirectory, "is a folder"))
            }
            found => Ok(found.copied()),
        }
    }

    fn parent<'p>(&self, path: &'p Path) -> io::Result<(Inode, &'p OsStr)> {
        let name = names(path).last().ok_or_else(|| named(path, ErrorKind::InvalidInput, "is the root"))?;
        let above = path.parent().unwrap_or(Path::new(""));
        match self.find(above) {
            Some(folder) if self.live.contains_key(&folder) => Ok((folder, name)),
            _ => Err(named(path, ErrorKind::NotFound, "its folder is missing")),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<Inode> {
        match self.find(path) {
            Some(folder) if self.live.contains_key(&folder) => Ok(folder),
            Some(_) => Err(named(path, ErrorKind::NotADirectory, "is a file")),
            None => Err(named(path, ErrorKind::NotFound, "no such folder")),
        }
    }

    pub(super) fn look(&self, path: &Path) -> Option<(Kind, u64)> {
        self.find(path).map(|inode| self.describe(inode))
    }

    fn describe(&self, inode: Inode) -> (Kind, u64) {
        match self.files.get(&inode) {
            Some(file) => (Kind::File, file.live.len() as u64),
            None => (Kind::Folder, 0),
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let folder = self.folder(path)?;
        let entry = |(name, inode): (&OsString, &Inode)| {
            let (kind, length) = self.describe(*inode);
            Entry { name: name.clone(), kind, length }
        };
        Ok(self.live[&folder].iter().map(entry).collect())
    }

    pub(super) fn space(&self) -> Space {
        let capacity = self.capacity.unwrap_or(CAPACITY_DEFAULT);
        Space { capacity, available: capacity.saturating_sub(self.used()) }
    }

    fn used(&self) -> u64 {
        let linked: BTreeSet<Inode> =
            self.live.values().flat_map(|folder| folder.values().copied()).collect();
        let held = |inode: &Inode| linked.contains(inode) || self.opens.contains_key(inode);
        let size = |file: &FileState| file.allocated.max(file.live.len() as u64);
        self.files.iter().filter(|(inode, _)| held(inode)).map(|(_, file)| size(file)).sum()
    }

    /// Fails if the file may not grow to `length`.
    fn reserve(&self, path: &Path, inode: Inode, length: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let has = self.files.get(&inode).map_or(0, |file| file.allocated.max(file.live.len() as u64));
        if length > has && self.used() + (length - has) > capacity {
            return Err(named(path, ErrorKind::StorageFull, "no space left"));
        }
        Ok(())
    }

    /// Makes a change; answers the inode made by `CreateFile`, else one that means nothing.
    pub(super) fn act(&mut self, path: &Path, act: Act) -> io::Result<Inode> {
        match act {
            Act::CreateFile(path) => return self.create_file(&path),
            Act::CreateFolder(path) => self.create_folder(&path)?,
            Act::Rename(from, to) => self.rename(&from, &to)?,
            Act::RemoveFile(path) => self.remove_file(&path)?,
            Act::RemoveFolder(path) => self.remove_folder(&path)?,
            Act::SyncFolder(path) => {
                let folder = self.folder(&path)?;
                self.sync_folders(&[folder]);
                self.sweep();
            }
            // A write of nothing does not make a file longer.
            Act::Write(_, _, data) if data.is_empty() => {}
            Act::Write(inode, offset, data) => {
                self.reserve(path, inode, offset + data.len() as u64)?;
                self.edit(inode, Edit::Write(offset, data));
            }
            Act::SetLength(inode, length) => {
                self.reserve(path, inode, length)?;
                self.edit(inode, Edit::Length(length));
            }
            Act::Allocate(inode, length) => {
                self.reserve(path, inode, length)?;
                let file = self.files.entry(inode).or_default();
                file.allocated = file.allocated.max(length);
            }
            Act::Sync(inode) => {
                let file = self.files.entry(inode).or_default();
                for edit in file.pending.drain(..) {
                    edit.apply(&mut file.durable);
                }
            }
            Act::FailSync(inode) => self.files.entry(inode).or_default().pending.clear(),
        }
        Ok(ROOT)
    }

    fn edit(&mut self, inode: Inode, edit: Edit) {
        let file = self.files.entry(inode).or_default();
        edit.apply(&mut file.live);
        file.pending.push(edit);
    }

    fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let (folder, name) = self.parent(path)?;
        let inode = self.next;
        self.next += 1;
        self.files.insert(inode, FileState::default());
        self.set_names(vec![(folder, name.to_owned(), Some(inode))]);
        Ok(inode)
    }

    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path) {
            at = match self.live[&at].get(name).copied() {
                Some(inode) if self.live.contains_key(&inode) => inode,
                Some(_) => return Err(named(path, ErrorKind::AlreadyExists, "a file is in the way")),
                None => {
                    let inode = self.next;
                    self.next += 1;
                    self.live.insert(inode, Folder::new());
                    self.durable.insert(inode, Folder::new());
                    self.set_names(vec![(at, name.to_owned(), Some(inode))]);
                    inode
                }
            };
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (old_folder, old_name) = self.parent(from)?;
        let moved = self.live[&old_folder].get(old_name).copied();
        let inode = moved.ok_or_else(|| named(from, ErrorKind::NotFound, "no such file"))?;
        let (folder, name) = self.parent(to)?;
        match self.live[&folder].get(name) {
            Some(there) if *there == inode => return Ok(()),
            Some(there) if self.live.get(there).is_some_and(|folder| !folder.is_empty()) => {
                return Err(named(to, ErrorKind::DirectoryNotEmpty, "is a folder with something in it"));
            }
            _ => {}
        }
        self.set_names(vec![(folder, name.to_owned(), Some(inode)), (old_folder, old_name.to_owned(), None)]);
        Ok(())
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        if self.file(path)?.is_none() {
            return Err(named(path, ErrorKind::NotFound, "no such file"));
        }
        let (folder, name) = self.parent(path)?;
        self.set_names(vec![(folder, name.to_owned(), None)]);
        Ok(())
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        let folder = self.folder(path)?;
        self.empty(folder);
        let (above, name) = self.parent(path)?;
        self.set_names(vec![(above, name.to_owned(), None)]);
        Ok(())
    }

    /// Removes all in a folder, one name after the other: a crash may leave any part of it.
    fn empty(&mut self, folder: Inode) {
        for (name, inode) in self.live[&folder].clone() {
            if self.live.contains_key(&inode) {
                self.empty(inode);
            }
            self.set_names(vec![(folder, name, None)]);
        }
    }

    fn set_names(&mut self, set: Vec<(Inode, OsString, Option<Inode>)>) {
        let edit = NameEdit { set };
        self.gone += edit.set.iter().filter(|(_, _, to)| to.is_none()).count();
        edit.apply(&mut self.live);
        self.pending.push(edit);
    }

    /// Makes durable what touches the given folders, and what that builds on.
    pub(super) fn sync_folders(&mut self, folders: &[Inode]) {
        let mut touched: BTreeSet<Inode> = folders.iter().copied().collect();
        let mut chosen = vec![false; self.pending.len()];
        for (number, edit) in self.pending.iter().enumerate().rev() {
            if edit.set.iter().any(|(folder, _, _)| touched.contains(folder)) {
                chosen[number] = true;
                touched.extend(edit.set.iter().map(|(folder, _, _)| *folder));
            }
        }
        let mut chosen = chosen.into_iter();
        let durable = &mut self.durable;
        self.pending.retain(|edit| {
            let now = chosen.next().unwrap_or(false);
            if now {
                edit.apply(durable);
            }
            !now
        });
    }

    /// Forgets files that nothing names and nobody has open.
    pub(super) fn sweep(&mut self) {
        if self.gone < SWEEP_AFTER.max(self.files.len() / 2) {
            return;
        }
        self.gone = 0;
        let trees = self.live.values().chain(self.durable.values());
        let mut named: BTreeSet<Inode> = trees.flat_map(|folder| folder.values().copied()).collect();
        named.extend(self.pending.iter().flat_map(|edit| edit.set.iter().filter_map(|set| set.2)));
        let opens = &self.opens;
        self.files.retain(|inode, _| named.contains(inode) || opens.contains_key(inode));
    }

    pub(super) fn flip(&mut self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let inode = self.file(path)?.ok_or_else(|| named(path, ErrorKind::NotFound, "no such file"))?;
        let file = self.files.entry(inode).or_default();
        let live = file.live.get_mut(offset as usize);
        *live.ok_or_else(|| named(path, ErrorKind::UnexpectedEof, "no such byte"))? ^= mask;
        if let Some(byte) = file.durable.get_mut(offset as usize) {
            *byte ^= mask;
        }
        Ok(())
    }
}

impl NameEdit {
    pub(super) fn apply(&self, tree: &mut BTreeMap<Inode, Folder>) {
        for (folder, name, to) in &self.set {
            let Some(folder) = tree.get_mut(folder) else { continue };
            match to {
                Some(inode) => _ = folder.insert(name.clone(), *inode),
                None => _ = folder.remove(name),
            }
        }
    }
}
