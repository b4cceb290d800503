//! What an administrator has put out of reach: more objects than so many, directories that are protected. HDFS's
//! `FSNamesystem.checkFsObjectLimit` and `DFSUtil.checkProtectedDescendants`.

use mobula_types::HdfsPath;

use crate::error::NamespaceError;
use crate::record::{Body, Inode};
use crate::resolve::{self, Walk};
use crate::state::State;
use crate::table::Read;

/// Refuses one more object where there are as many as there may be. `freed` of them go before it comes.
pub(crate) fn check_objects(state: &State, freed: u64) -> Result<(), NamespaceError> {
    let most = state.guards.objects_max;
    let objects = state.files + state.directories + state.blocks;
    if most != 0 && most <= objects.saturating_sub(freed) {
        return Err(NamespaceError::TooManyObjects(most));
    }
    Ok(())
}

/// How many objects go with a file that is replaced.
pub(crate) fn objects_of(inode: &Inode) -> u64 {
    match &inode.body {
        Body::File(file) => 1 + u64::from(file.blocks),
        Body::Directory(_) => 1,
    }
}

/// Refuses to take away a directory that is protected, or holds one that is, unless that is empty. Asked even of the
/// superuser.
pub(crate) fn check_protected<R: Read>(
    tables: &R,
    state: &State,
    walk: &Walk<'_>,
) -> Result<(), NamespaceError> {
    let guards = &state.guards;
    if guards.protected.is_empty() || !walk.last().is_some_and(is_filled) {
        return Ok(());
    }
    if guards.protected.contains(&*walk.path) {
        return Err(NamespaceError::Protected(walk.text()));
    }
    // As in HDFS, whose set of what is below the root's "/" is empty; the root goes nowhere anyhow.
    let below = |path: &&HdfsPath| !walk.is_root() && path.is_within(&walk.path);
    for path in guards.protected.iter().filter(below) {
        if resolve::find(tables, path)?.last().is_some_and(is_filled) {
            return Err(NamespaceError::ProtectedBelow(path.as_str().into()));
        }
    }
    if guards.protect_subdirectories {
        let above = |path: &&HdfsPath| !path.is_root() && walk.path.is_within(path);
        // The nearest one is named: of those on one way down, the longest.
        if let Some(path) = guards.protected.iter().rfind(above) {
            return Err(NamespaceError::ProtectedAbove(path.as_str().into()));
        }
    }
    Ok(())
}

fn is_filled(inode: &Inode) -> bool {
    inode.directory().is_some_and(|directory| directory.children > 0)
}
