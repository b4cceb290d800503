//! Who may do what: HDFS's `FSPermissionChecker`, with its order and its messages. Knows owner, group,
//! mode and the sticky bit; ACLs will stand before the mode (the next issues).

use crate::command::{Caller, Rules};
use crate::error::{Denied, Described, NamespaceError};
use crate::record::Inode;
use crate::resolve::Walk;
use crate::table::{Go, Read, TableError};

/// Bits of an rwx triple.
pub(crate) const READ: u8 = 4;
pub(crate) const WRITE: u8 = 2;
pub(crate) const EXECUTE: u8 = 1;
pub(crate) const ALL: u8 = 7;
pub(crate) const STICKY: u16 = 0o1000;
/// What `setPermission` keeps.
pub(crate) const MODE_MASK: u16 = 0o1777;

/// What is asked of a path, besides x on every ancestor; 0 asks nothing.
#[derive(Clone, Copy, Default)]
pub(crate) struct Check {
    /// Of the nearest ancestor that exists.
    pub(crate) ancestor: u8,
    /// Of the directory that holds it, with the sticky bit.
    pub(crate) parent: u8,
    /// Of what the path names.
    pub(crate) access: u8,
    /// Of every directory from the path's down.
    pub(crate) below: u8,
    /// Empty directories pass `below`.
    pub(crate) ignore_empty: bool,
}

/// Every ancestor is a directory and may be passed through.
pub(crate) fn check_traverse<R: Read>(
    tables: &R,
    rules: &Rules,
    caller: &Caller,
    walk: &Walk<'_>,
) -> Result<(), NamespaceError> {
    let checked = rules.permissions && !caller.superuser;
    for (index, node) in walk.nodes.iter().take(walk.depth).enumerate() {
        if !node.is_directory() {
            return Err(NamespaceError::ParentNotDirectory(walk.prefix(index)));
        }
        if checked {
            check_node(tables, caller, walk, index, EXECUTE)?;
        }
    }
    Ok(())
}

/// What [`Check`] says, in HDFS's order; the walk was traversed before.
pub(crate) fn check<R: Read>(
    tables: &R,
    rules: &Rules,
    caller: &Caller,
    walk: &Walk<'_>,
    check: Check,
) -> Result<(), NamespaceError> {
    if !rules.permissions || caller.superuser {
        return Ok(());
    }
    if check.parent & WRITE != 0
        && let (Some(parent), Some(last)) = (walk.parent(), walk.last())
        && sticky_violated(tables, caller, parent, last)
    {
        return Err(NamespaceError::DeniedBySticky {
            user: caller.user.clone(),
            child: Box::new(described(tables, walk.text(), last)),
            parent: Box::new(described(tables, walk.parent_path(), parent)),
        });
    }
    if check.ancestor != 0 && walk.depth > 0 && !walk.nodes.is_empty() {
        check_node(tables, caller, walk, walk.ancestor(), check.ancestor)?;
    }
    if check.parent != 0 && walk.depth > 0 && walk.parent().is_some() {
        check_node(tables, caller, walk, walk.depth - 1, check.parent)?;
    }
    if check.access != 0 && walk.last().is_some() {
        check_node(tables, caller, walk, walk.depth, check.access)?;
    }
    if check.below != 0
        && let Some(last) = walk.last().filter(|last| last.is_directory())
    {
        check_below(tables, caller, walk.text(), last, check)?;
    }
    Ok(())
}

/// `FSDirectory.checkOwner`: what the path names is there, and the caller's. Also where permissions are not
/// enabled, as is x on every ancestor then: to own is to be able to give away.
pub(crate) fn check_owner<R: Read>(
    tables: &R,
    caller: &Caller,
    walk: &Walk<'_>,
) -> Result<(), NamespaceError> {
    let Some(last) = walk.last() else { return Err(NamespaceError::NothingToOwn(walk.text())) };
    if caller.superuser {
        return Ok(());
    }
    for index in 0..walk.depth {
        check_node(tables, caller, walk, index, EXECUTE)?;
    }
    if tables.names().get(last.owner) != caller.user {
        return Err(NamespaceError::NotOwner { user: caller.user.clone(), path: walk.text() });
    }
    Ok(())
}

fn check_node<R: Read>(
    tables: &R,
    caller: &Caller,
    walk: &Walk<'_>,
    index: usize,
    access: u8,
) -> Result<(), NamespaceError> {
    match walk.nodes.get(index) {
        Some(node) if !permitted(tables, caller, node, access) => {
            Err(denied(tables, caller, walk.prefix(index), node, access))
        }
        _ => Ok(()),
    }
}

/// Whether the caller has all of `access` to that inode.
pub(crate) fn permitted<R: Read>(tables: &R, caller: &Caller, inode: &Inode, access: u8) -> bool {
    let names = tables.names();
    let triple = if names.get(inode.owner) == caller.user {
        inode.mode >> 6
    } else if is_member(caller, names.get(inode.group)) {
        inode.mode >> 3
    } else {
        inode.mode
    };
    triple as u8 & ALL & access == access
}

pub(crate) fn is_member(caller: &Caller, group: &str) -> bool {
    caller.groups.iter().any(|member| member == group)
}

fn sticky_violated<R: Read>(tables: &R, caller: &Caller, parent: &Inode, child: &Inode) -> bool {
    parent.mode & STICKY != 0
        && tables.names().get(parent.owner) != caller.user
        && tables.names().get(child.owner) != caller.user
}

/// `checkSubAccess`: every directory of the tree, depth first.
fn check_below<R: Read>(
    tables: &R,
    caller: &Caller,
    path: String,
    top: &Inode,
    check: Check,
) -> Result<(), NamespaceError> {
    let mut stack = vec![(path, top.clone())];
    while let Some((path, node)) = stack.pop() {
        let Some(directory) = node.directory().copied() else { continue };
        let skipped = directory.children == 0 && check.ignore_empty;
        if !skipped && !permitted(tables, caller, &node, check.below) {
            return Err(denied(tables, caller, path, &node, check.below));
        }
        let sticky = node.mode & STICKY != 0 && tables.names().get(node.owner) != caller.user;
        if directory.children == 0 || (directory.subdirectories == 0 && !sticky) {
            continue;
        }
        check_children(tables, caller, &path, &node, top, sticky, &mut stack)?;
    }
    Ok(())
}

fn check_children<R: Read>(
    tables: &R,
    caller: &Caller,
    path: &str,
    node: &Inode,
    top: &Inode,
    sticky: bool,
    stack: &mut Vec<(String, Inode)>,
) -> Result<(), NamespaceError> {
    let mut violated = None;
    tables.children(node.id, None, |name, child| {
        let child_path = || format!("{}/{}", path.trim_end_matches('/'), String::from_utf8_lossy(name));
        if sticky && tables.names().get(child.owner) != caller.user {
            violated = Some(NamespaceError::DeniedBySticky {
                user: caller.user.clone(),
                child: Box::new(described(tables, child_path(), &child)),
                // HDFS gives the directory's path with the attributes of the tree's top.
                parent: Box::new(described(tables, path.into(), top)),
            });
            return Ok(Go::Stop);
        }
        if child.is_directory() {
            stack.push((child_path(), child));
        }
        Ok(Go::On)
    })?;
    violated.map_or(Ok(()), Err)
}

/// The refusal of `access` to that inode.
pub(crate) fn denied<R: Read>(
    tables: &R,
    caller: &Caller,
    path: String,
    inode: &Inode,
    access: u8,
) -> NamespaceError {
    NamespaceError::Denied(Box::new(Denied {
        user: caller.user.clone(),
        access: action(access),
        path,
        attributes: attributes(tables, inode),
    }))
}

fn described<R: Read>(tables: &R, path: String, inode: &Inode) -> Described {
    Described { path, attributes: attributes(tables, inode) }
}

/// `owner:group:drwxr-xr-x`, as `FsPermission` prints it.
fn attributes<R: Read>(tables: &R, inode: &Inode) -> String {
    let mut text = format!("{}:{}:", tables.names().get(inode.owner), tables.names().get(inode.group));
    text.push(if inode.is_directory() { 'd' } else { '-' });
    for shift in [6, 3, 0] {
        let triple = inode.mode >> shift;
        let last = match (shift == 0 && inode.mode & STICKY != 0, triple & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, false) => 'T',
            (true, true) => 't',
        };
        text.push(if triple & 4 != 0 { 'r' } else { '-' });
        text.push(if triple & 2 != 0 { 'w' } else { '-' });
        text.push(last);
    }
    text
}

/// `FsAction`'s name.
fn action(access: u8) -> &'static str {
    ["NONE", "EXECUTE", "WRITE", "WRITE_EXECUTE", "READ", "READ_EXECUTE", "READ_WRITE", "ALL"]
        [usize::from(access & ALL)]
}

/// Shows a tree's directories and files, for `getContentSummary`; refuses where r-x is missing, and names the first
/// such directory by name (`INodeDirectory.computeDirectoryContentSummary`).
pub(crate) fn visit_tree<R: Read>(
    tables: &R,
    rules: &Rules,
    caller: &Caller,
    path: String,
    top: &Inode,
    mut visit: impl FnMut(&Inode) -> Result<(), TableError>,
) -> Result<(), NamespaceError> {
    let checked = rules.permissions && !caller.superuser;
    let mut stack: Vec<(String, Inode)> = vec![(path, top.clone())];
    while let Some((path, node)) = stack.pop() {
        visit(&node)?;
        if !node.is_directory() {
            continue;
        }
        if checked && !permitted(tables, caller, &node, READ | EXECUTE) {
            return Err(denied(tables, caller, path, &node, READ | EXECUTE));
        }
        let first = stack.len();
        tables.children(node.id, None, |name, child| {
            if child.is_directory() {
                let path = format!("{}/{}", path.trim_end_matches('/'), String::from_utf8_lossy(name));
                stack.push((path, child));
            } else {
                visit(&child)?;
            }
            Ok(Go::On)
        })?;
        stack[first..].reverse();
    }
    Ok(())
}
