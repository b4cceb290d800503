//! From a path to inodes: one walk, one lookup a name. HDFS's `INodesInPath` and
//! `FSDirectory.resolvePath`.

use std::borrow::Cow;

use mobula_types::{HdfsPath, InodeId};
use smallvec::SmallVec;

use crate::command::{Caller, Rules};
use crate::error::NamespaceError;
use crate::permission;
use crate::record::Inode;
use crate::table::{ROOT_PARENT, Read, TableError};

pub(crate) const SNAPSHOT_NAME: &str = ".snapshot";
const RESERVED_NAME: &str = ".reserved";
pub(crate) const RESERVED_INODES: &str = ".inodes";
pub(crate) const RESERVED_RAW: &str = "raw";

/// What the walk is for; HDFS's `DirOp`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    Read,
    Write,
    Create,
}

/// A path with the inodes that are there.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'p> {
    /// The path, after what stands for another one (`/.reserved`).
    pub(crate) path: Cow<'p, HdfsPath>,
    /// From the root down to the last that exists.
    pub(crate) nodes: SmallVec<[Inode; 6]>,
    /// How many names the path has.
    pub(crate) depth: usize,
    /// It goes through the root's `.snapshot`. No other directory has one until snapshots of it are allowed: there
    /// it is a name that nothing may have.
    pub(crate) snapshot: bool,
}

impl Walk<'_> {
    /// What the path names, if it is there.
    pub(crate) fn last(&self) -> Option<&Inode> {
        self.nodes.get(self.depth)
    }

    /// The directory that holds it, if that is there.
    pub(crate) fn parent(&self) -> Option<&Inode> {
        self.depth.checked_sub(1).and_then(|index| self.nodes.get(index))
    }

    /// Index of the nearest ancestor that is there, the path itself not counted. The root's is itself.
    pub(crate) fn ancestor(&self) -> usize {
        self.nodes.len().min(self.depth).saturating_sub(1)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.depth == 0
    }

    /// The name of the node at `index`; empty for the root.
    pub(crate) fn name(&self, index: usize) -> &str {
        match index.checked_sub(1) {
            // Most often the last one is asked for.
            Some(_) => self.path.components().nth_back(self.depth - index).unwrap_or(""),
            None => "",
        }
    }

    /// Where the node at `index` hangs.
    pub(crate) fn place(&self, index: usize) -> (InodeId, &str) {
        let parent = index.checked_sub(1).map_or(ROOT_PARENT, |parent| self.nodes[parent].id);
        (parent, self.name(index))
    }

    /// The path of the node at `index`, as HDFS prints it.
    pub(crate) fn prefix(&self, index: usize) -> String {
        if index == 0 {
            return "/".into();
        }
        let mut text = String::new();
        for name in self.path.components().take(index) {
            text.push('/');
            text.push_str(name);
        }
        text
    }

    /// The parent's path; HDFS's `getParentPath`.
    pub(crate) fn parent_path(&self) -> String {
        self.prefix(self.depth.saturating_sub(1))
    }

    pub(crate) fn text(&self) -> String {
        self.path.as_str().into()
    }
}

/// Walks without asking who it is.
pub(crate) fn walk<'p, R: Read>(tables: &R, path: Cow<'p, HdfsPath>) -> Result<Walk<'p>, TableError> {
    let mut nodes: SmallVec<[Inode; 6]> = SmallVec::new();
    let root = tables
        .entry(ROOT_PARENT, b"")?
        .ok_or_else(|| TableError::Corrupt { table: "entries", detail: "there is no root".into() })?;
    let mut snapshot = false;
    let mut depth = 0;
    let mut current = Some((root.id, root.is_directory()));
    nodes.push(root);
    for name in path.components() {
        depth += 1;
        let Some((id, true)) = current else { continue };
        current = None;
        if id == InodeId::ROOT && name == SNAPSHOT_NAME {
            snapshot = true;
            continue;
        }
        if let Some(node) = tables.entry(id, name.as_bytes())? {
            current = Some((node.id, node.is_directory()));
            nodes.push(node);
        }
    }
    Ok(Walk { path, nodes, depth, snapshot })
}

/// `FSDirectory.resolvePath`: stands-for paths, the walk, x on every ancestor.
pub(crate) fn resolve<'p, R: Read>(
    tables: &R,
    rules: &Rules,
    caller: &Caller,
    path: &'p HdfsPath,
    aim: Aim,
    operation: &'static str,
) -> Result<Walk<'p>, NamespaceError> {
    let (path, raw) = reserved(tables, path)?;
    let walk = walk(tables, path)?;
    if raw && aim != Aim::Read && rules.permissions && !caller.superuser {
        return Err(NamespaceError::NotSuperuser { user: caller.user.clone(), operation });
    }
    permission::check_traverse(tables, rules, caller, &walk).map_err(|error| match error {
        NamespaceError::ParentNotDirectory(path) if aim != Aim::Create => {
            NamespaceError::AncestorNotDirectory(path)
        }
        error => error,
    })?;
    if walk.snapshot && aim != Aim::Read {
        return Err(NamespaceError::SnapshotIsReadOnly);
    }
    Ok(walk)
}

/// As `resolve` to read, with nobody asked: ancestors must be directories.
pub(crate) fn resolve_unasked<'p, R: Read>(
    tables: &R,
    path: &'p HdfsPath,
) -> Result<Walk<'p>, NamespaceError> {
    let walk = find(tables, path)?;
    let above = walk.nodes.iter().take(walk.depth);
    match above.enumerate().find(|(_, node)| !node.is_directory()) {
        Some((index, _)) => Err(NamespaceError::AncestorNotDirectory(walk.prefix(index))),
        None => Ok(walk),
    }
}

/// As `resolve`, with nobody asked, and a file as ancestor taken for nothing.
pub(crate) fn find<'p, R: Read>(tables: &R, path: &'p HdfsPath) -> Result<Walk<'p>, NamespaceError> {
    let (path, _) = reserved(tables, path)?;
    Ok(walk(tables, path)?)
}

/// As `resolve` for RPCs that carry a file id: that goes before the path, and asks nobody.
pub(crate) fn resolve_file<'p, R: Read>(
    tables: &R,
    rules: &Rules,
    caller: &Caller,
    path: &'p HdfsPath,
    file: Option<InodeId>,
    operation: &'static str,
) -> Result<Walk<'p>, NamespaceError> {
    let Some(file) = file.filter(|file| file.0 != 0) else {
        return resolve(tables, rules, caller, path, Aim::Write, operation);
    };
    // Most often it is where the client says: the way down is cheaper than the way up.
    let there = walk(tables, Cow::Borrowed(path))?;
    if !there.snapshot && there.last().is_some_and(|last| last.id == file) {
        return Ok(there);
    }
    match chain(tables, file)? {
        Some(found) => Ok(found),
        // HDFS: a path without inodes, so that the message has the path that the client gave.
        None => Ok(Walk {
            depth: path.depth().max(1),
            path: Cow::Borrowed(path),
            nodes: SmallVec::new(),
            snapshot: false,
        }),
    }
}

/// From an inode up to the root; none if it is gone or was cut off.
pub(crate) fn chain<R: Read>(tables: &R, inode: InodeId) -> Result<Option<Walk<'static>>, TableError> {
    let mut names: SmallVec<[Vec<u8>; 8]> = SmallVec::new();
    let mut parents: SmallVec<[InodeId; 8]> = SmallVec::new();
    let mut at = inode;
    while at != InodeId::ROOT {
        let Some(place) = tables.place(at)? else { return Ok(None) };
        names.push(place.name);
        parents.push(place.parent);
        at = place.parent;
    }
    let mut text = String::new();
    let mut nodes = SmallVec::new();
    let missing =
        || TableError::Corrupt { table: "entries", detail: format!("a node above {inode} is missing") };
    nodes.push(tables.entry(ROOT_PARENT, b"")?.ok_or_else(missing)?);
    for (name, parent) in names.iter().zip(&parents).rev() {
        text.push('/');
        text.push_str(&String::from_utf8_lossy(name));
        nodes.push(tables.entry(*parent, name)?.ok_or_else(missing)?);
    }
    let path = HdfsPath::parse(if text.is_empty() { "/" } else { &text }).map_err(TableError::storage)?;
    Ok(Some(Walk { path: Cow::Owned(path), depth: names.len(), nodes, snapshot: false }))
}

/// The path of an inode; none if it is gone or was cut off.
pub(crate) fn path_of<R: Read>(tables: &R, inode: InodeId) -> Result<Option<HdfsPath>, TableError> {
    let mut names: SmallVec<[Vec<u8>; 8]> = SmallVec::new();
    let mut at = inode;
    while at != InodeId::ROOT {
        let Some(place) = tables.place(at)? else { return Ok(None) };
        names.push(place.name);
        at = place.parent;
    }
    let mut text = String::new();
    for name in names.iter().rev() {
        text.push('/');
        text.push_str(&String::from_utf8_lossy(name));
    }
    HdfsPath::parse(if text.is_empty() { "/" } else { &text }).map(Some).map_err(TableError::storage)
}

/// The path that one under `/.reserved` stands for.
pub(crate) fn stands_for<'p, R: Read>(
    tables: &R,
    path: &'p HdfsPath,
) -> Result<Cow<'p, HdfsPath>, NamespaceError> {
    Ok(reserved(tables, path)?.0)
}

/// `/.reserved/.inodes/ID[/rest]` and `/.reserved/raw[/rest]` (`FSDirectory.resolveComponents`); says
/// whether it was the latter.
fn reserved<'p, R: Read>(
    tables: &R,
    path: &'p HdfsPath,
) -> Result<(Cow<'p, HdfsPath>, bool), NamespaceError> {
    if !path.as_str().starts_with("/.reserved/") {
        return Ok((Cow::Borrowed(path), false));
    }
    let mut names = path.components().skip(1);
    match names.next() {
        Some(RESERVED_INODES) => {
            let Some(id) = names.next() else { return Ok((Cow::Borrowed(path), false)) };
            Ok((Cow::Owned(inode_path(tables, path, id, names)?), false))
        }
        Some(RESERVED_RAW) => {
            let rest: Vec<&str> = names.collect();
            if rest == [RESERVED_NAME] {
                return Ok((Cow::Borrowed(path), true));
            }
            Ok((Cow::Owned(HdfsPath::root().descend(rest.into_iter())), true))
        }
        _ => Ok((Cow::Borrowed(path), false)),
    }
}

fn inode_path<'n, R: Read>(
    tables: &R,
    path: &HdfsPath,
    id: &str,
    rest: impl Iterator<Item = &'n str>,
) -> Result<HdfsPath, NamespaceError> {
    let id = id.parse::<i64>().map_err(|_| NamespaceError::InodePathInvalid(path.as_str().into()))?;
    let found = path_of(tables, InodeId(id as u64))?;
    let found = found.ok_or_else(|| NamespaceError::InodePathNotFound(path.as_str().into()))?;
    let mut rest = rest.peekable();
    if rest.peek() == Some(&"..") {
        // A single one, for NFS; HDFS forgets what comes after it, too.
        return Ok(found.parent().unwrap_or_else(HdfsPath::root));
    }
    Ok(found.descend(rest))
}

/// `/.reserved` itself: not to be made, moved or removed.
pub(crate) fn is_exactly_reserved(path: &HdfsPath) -> bool {
    path.as_str() == "/.reserved"
}

/// Whether a file may not be made there (`FSNamesystem.startFileInt`).
pub(crate) fn is_reserved_for_files(path: &HdfsPath) -> bool {
    let mut names = path.components();
    names.next() == Some(RESERVED_NAME) && !matches!(names.next(), Some(RESERVED_INODES | RESERVED_RAW))
}

/// Whether it stands for another path (`FSDirectory.isReservedRawName`, `isReservedInodesName`).
pub(crate) fn is_reserved_path(path: &HdfsPath) -> bool {
    let mut names = path.components();
    names.next() == Some(RESERVED_NAME) && matches!(names.next(), Some(RESERVED_INODES | RESERVED_RAW))
}
