//! Who may do what: HDFS's `FSPermissionChecker`, with its order and its messages. Knows owner, group,
//! mode and the sticky bit; ACLs will stand before the mode (the next issues).

use mobula_types::InodeId;

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
/// The bits of owner, group and others.
pub(crate) const ACCESS_MASK: u16 = 0o777;

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

/// `checkSubAccess`: every directory of the tree, depth first, the last by name first.
fn check_below<R: Read>(
    tables: &R,
    caller: &Caller,
    path: String,
    top: &Inode,
    check: Check,
) -> Result<(), NamespaceError> {
    let mut way = Way::new(path);
    let mut next = Some(top.clone());
    while let Some(node) = next {
        if has_to_be_entered(tables, caller, &way, &node, top, check)? {
            way.enter(node.id);
        }
        next = way.next(|directory, before, found| {
            tables.subdirectories_before(directory, before, STEPS_AHEAD_MAX, found)
        })?;
    }
    Ok(())
}

/// Checks a directory, and the owners of what is in it if its sticky bit asks for that; whether there are directories
/// in it.
fn has_to_be_entered<R: Read>(
    tables: &R,
    caller: &Caller,
    way: &Way,
    node: &Inode,
    top: &Inode,
    check: Check,
) -> Result<bool, NamespaceError> {
    let Some(directory) = node.directory() else { return Ok(false) };
    let skipped = directory.children == 0 && check.ignore_empty;
    if !skipped && !permitted(tables, caller, node, check.below) {
        return Err(denied(tables, caller, way.path(), node, check.below));
    }
    let sticky = node.mode & STICKY != 0 && tables.names().get(node.owner) != caller.user;
    if sticky && directory.children > 0 {
        check_children(tables, caller, way, node, top)?;
    }
    Ok(directory.subdirectories > 0)
}

/// That directory has the sticky bit and is another's: so must nothing in it be.
fn check_children<R: Read>(
    tables: &R,
    caller: &Caller,
    way: &Way,
    node: &Inode,
    top: &Inode,
) -> Result<(), NamespaceError> {
    let mut violated = None;
    tables.children(node.id, None, |name, child| {
        if tables.names().get(child.owner) == caller.user {
            return Ok(Go::On);
        }
        let path = way.path();
        let child_path = format!("{}/{}", path.trim_end_matches('/'), String::from_utf8_lossy(name));
        violated = Some(NamespaceError::DeniedBySticky {
            user: caller.user.clone(),
            child: Box::new(described(tables, child_path, &child)),
            // HDFS gives the directory's path with the attributes of the tree's top.
            parent: Box::new(described(tables, path, top)),
        });
        Ok(Go::Stop)
    })?;
    violated.map_or(Ok(()), Err)
}

/// Directories of one that are looked up together: a lookup costs more than what it finds.
const STEPS_AHEAD_MAX: usize = 32;

/// The way down to where a visit of a tree is. It grows with the tree's depth, neither with its width nor with the
/// length of its paths: those are made of names when somebody is to be told one.
struct Way {
    top: String,
    steps: Vec<Step>,
}

/// A directory that is being visited, and its own in turn.
struct Step {
    directory: InodeId,
    /// The name of the one that is visited now.
    at: Vec<u8>,
    /// Those that come next, the very next one last.
    coming: Vec<(Vec<u8>, Inode)>,
    /// Where to look up more; none before the first.
    from: Option<Vec<u8>>,
    /// There are no more than those.
    all: bool,
}

impl Way {
    fn new(top: String) -> Way {
        Way { top, steps: Vec::new() }
    }

    /// The path of what is visited now.
    fn path(&self) -> String {
        let Some((first, others)) = self.steps.split_first() else { return self.top.clone() };
        let mut path = self.top.trim_end_matches('/').to_owned();
        for step in std::iter::once(first).chain(others) {
            path.push('/');
            path.push_str(&String::from_utf8_lossy(&step.at));
        }
        path
    }

    /// What is visited now is a directory: its own come next.
    fn enter(&mut self, directory: InodeId) {
        let (at, coming) = (Vec::new(), Vec::new());
        self.steps.push(Step { directory, at, coming, from: None, all: false });
    }

    /// Goes on to the next directory. `look` pushes up to [`STEPS_AHEAD_MAX`] of those that come after a name, less
    /// only if there are no more.
    fn next(
        &mut self,
        mut look: impl FnMut(InodeId, Option<&[u8]>, &mut Vec<(Vec<u8>, Inode)>) -> Result<(), TableError>,
    ) -> Result<Option<Inode>, TableError> {
        while let Some(step) = self.steps.last_mut() {
            if step.coming.is_empty() && !step.all {
                look(step.directory, step.from.as_deref(), &mut step.coming)?;
                step.all = step.coming.len() < STEPS_AHEAD_MAX;
                step.from = step.coming.last().map(|(name, _)| name.clone());
                step.coming.reverse();
            }
            if let Some((name, node)) = step.coming.pop() {
                step.at = name;
                return Ok(Some(node));
            }
            self.steps.pop();
        }
        Ok(None)
    }
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
/// such directory by name (`INodeDirectory.computeDirectoryContentSummary`). Ends as soon as it `goes_on` no more.
pub(crate) fn visit_tree<R: Read>(
    tables: &R,
    rules: &Rules,
    caller: &Caller,
    path: String,
    top: &Inode,
    goes_on: &dyn Fn() -> bool,
    mut visit: impl FnMut(&Inode) -> Result<(), TableError>,
) -> Result<(), NamespaceError> {
    let checked = rules.permissions && !caller.superuser;
    let mut way = Way::new(path);
    let mut next = Some(top.clone());
    while let Some(node) = next {
        visit(&node)?;
        if node.is_directory() {
            if checked && !permitted(tables, caller, &node, READ | EXECUTE) {
                return Err(denied(tables, caller, way.path(), &node, READ | EXECUTE));
            }
            way.enter(node.id);
        }
        next = way.next(|directory, after, found| {
            tables.children(directory, after, |name, child| {
                if !child.is_directory() {
                    visit(&child)?;
                    return Ok(if goes_on() { Go::On } else { Go::Stop });
                }
                found.push((name.to_vec(), child));
                Ok(if found.len() < STEPS_AHEAD_MAX { Go::On } else { Go::Stop })
            })
        })?;
        if !goes_on() {
            return Err(NamespaceError::NobodyWaits);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::record::{Body, Directory};
    use mobula_types::Millis;

    fn directory(id: u64) -> Inode {
        let body = Body::Directory(Directory::default());
        Inode { id: InodeId(id), mode: 0o755, owner: 0, group: 0, modified: Millis(0), body }
    }

    /// Names `000000` to, exclusive, so many.
    fn children(count: usize, after: Option<&[u8]>, found: &mut Vec<(Vec<u8>, Inode)>) {
        let first = after.map_or(0, |name| std::str::from_utf8(name).unwrap().parse::<usize>().unwrap() + 1);
        for number in (first..count).take(STEPS_AHEAD_MAX) {
            found.push((format!("{number:06}").into_bytes(), directory(1 + number as u64)));
        }
    }

    #[test]
    fn the_way_through_a_tree_grows_with_its_depth_alone() {
        const WIDE: usize = 100_000;
        let top = format!("/{}", "long/".repeat(1_500));
        let mut way = Way::new(top.clone());
        way.enter(InodeId(0));
        let (mut visited, mut held_most) = (0, 0);
        while let Some(node) = way
            .next(|directory, after, found| {
                // Of the children of 0, each seventh has three of its own.
                let count = if directory.0 == 0 { WIDE } else { 3 };
                children(count, after, found);
                Ok(())
            })
            .unwrap()
        {
            visited += 1;
            if way.steps.len() == 1 && node.id.0 % 7 == 0 {
                assert_eq!(way.path(), format!("{top}{:06}", node.id.0 - 1));
                way.enter(node.id);
            }
            held_most = held_most.max(way.steps.iter().map(|step| step.coming.len()).sum());
        }
        assert_eq!(visited, WIDE + WIDE / 7 * 3);
        assert!(held_most <= 2 * STEPS_AHEAD_MAX, "{held_most} directories were held at once");
    }
}
