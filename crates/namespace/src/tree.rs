//! What changes the tree: mkdirs, create, both renames, delete. HDFS's `FSDirMkdirOp`,
//! `FSDirWriteFileOp.startFile`, `FSDirRenameOp` and `FSDirDeleteOp`.
//!
//! Where HDFS has made some parents before it meets a name that is too long, nothing is made here.

use std::borrow::Cow;

use mobula_types::{BlockId, HdfsPath};

use crate::apply::{Answer, Apply};
use crate::command::{Caller, Create, Overwrite, Parents, Rules};
use crate::error::NamespaceError;
use crate::guard;
use crate::outcome::Outcome;
use crate::permission::{ALL, Check, MODE_MASK, WRITE, check};
use crate::record::{Body, Construction, Directory, File, Inode};
use crate::resolve::{self, Aim, SNAPSHOT_NAME, Walk};
use crate::state::State;
use crate::table::{Read, TableError};

/// `CreateFlag` bits on the wire.
const FLAG_CREATE: u32 = 1;
const FLAG_OVERWRITE: u32 = 2;
/// u+wx: what implied directories have besides what they are given.
const IMPLIED: u16 = 0o300;
const RESERVED_AT_ROOT: &str = ".reserved";

/// All that is checked before a file is made, but for who writes the one that may be there: `resolvePathForStartFile`
/// and the first half of `startFileInt`.
pub(crate) fn check_create<'p, R: Read>(
    tables: &R,
    state: &State,
    caller: &Caller,
    create: &'p Create,
) -> Result<Walk<'p>, NamespaceError> {
    let (path, rules) = (&create.path, &state.rules);
    check_name(path, "create", |path| NamespaceError::InvalidPath(path.into()))?;
    if resolve::is_reserved_for_files(path) {
        return Err(NamespaceError::InvalidPath(path.as_str().into()));
    }
    let walk = resolve::resolve(tables, rules, caller, path, Aim::Create, "create")?;
    check(tables, rules, caller, &walk, Check { ancestor: WRITE, ..Check::default() })?;
    match walk.last() {
        Some(last) if last.is_directory() => return Err(NamespaceError::ExistsAsDirectory(walk.text())),
        Some(_) if create.flags & FLAG_OVERWRITE != 0 => {
            check(tables, rules, caller, &walk, Check { access: WRITE, ..Check::default() })?;
        }
        Some(_) => {}
        None => {
            if create.parents == Parents::Require {
                verify_parent(&walk)?;
            }
            if create.flags & FLAG_CREATE == 0 {
                return Err(NamespaceError::NothingToOverwrite(create.path.as_str().into()));
            }
        }
    }
    if create.block_size < rules.block_size_min {
        let (size, least) = (create.block_size, rules.block_size_min);
        return Err(NamespaceError::BlockSizeTooSmall { size, least });
    }
    check_replication(rules, create.replication, path, Some(&caller.machine))?;
    match walk.last() {
        // A name that is there already was checked when it was made.
        Some(old) if create.flags & FLAG_OVERWRITE != 0 => {
            guard::check_objects(state, guard::objects_of(old))?
        }
        Some(_) => {}
        None => {
            guard::check_objects(state, 0)?;
            check_limits(rules, &walk, "create")?;
        }
    }
    Ok(walk)
}

/// Whether that `create` would make a file now: refused if it would be, and where the file is there.
pub(crate) fn plan_create<R: Read>(
    tables: &R,
    state: &State,
    caller: &Caller,
    create: &Create,
) -> Result<(), NamespaceError> {
    let walk = check_create(tables, state, caller, create)?;
    match walk.last() {
        Some(_) if create.flags & FLAG_OVERWRITE == 0 => {
            Err(NamespaceError::FileExists { path: walk.text(), machine: caller.machine.clone() })
        }
        _ => Ok(()),
    }
}

/// `BlockManager.verifyReplication`.
pub(crate) fn check_replication(
    rules: &Rules,
    replication: u16,
    path: &HdfsPath,
    machine: Option<&str>,
) -> Result<(), NamespaceError> {
    let (least, most) = (rules.replication_min, rules.replication_max);
    let (path, machine) = (path.as_str(), machine.map(str::to_owned));
    if replication > most {
        return Err(NamespaceError::ReplicationTooHigh { replication, most, path: path.into(), machine });
    }
    if replication < least {
        return Err(NamespaceError::ReplicationTooLow { replication, least, path: path.into(), machine });
    }
    Ok(())
}

/// The names that are about to be made, and the room in the directory that gets the first of them:
/// `verifyINodeName`, `verifyMaxComponentLength`, `verifyMaxDirItems`; and that the path is none too long which
/// was given as one below an inode, where HDFS has no limit to how deep a tree grows.
fn check_limits(rules: &Rules, walk: &Walk<'_>, operation: &'static str) -> Result<(), NamespaceError> {
    check_length(&walk.path, operation)?;
    for index in walk.nodes.len()..=walk.depth {
        check_new_name(rules, walk.name(index), || walk.prefix(index - 1), index == 1)?;
    }
    check_room(rules, walk, walk.nodes.len() - 1)
}

fn check_new_name(
    rules: &Rules,
    name: &str,
    parent: impl Fn() -> String,
    at_root: bool,
) -> Result<(), NamespaceError> {
    if name == SNAPSHOT_NAME {
        return Err(NamespaceError::ReservedName(name.into()));
    }
    if at_root && name == RESERVED_AT_ROOT {
        return Err(NamespaceError::ReservedRoot(name.into()));
    }
    let most = rules.name_bytes_max;
    if most != 0 && name.len() > most as usize {
        let (name, length) = (name.to_owned(), name.len());
        return Err(NamespaceError::NameTooLong { name, parent: parent(), most, length });
    }
    Ok(())
}

fn check_room(rules: &Rules, walk: &Walk<'_>, index: usize) -> Result<(), NamespaceError> {
    let items = walk.nodes[index].directory().map_or(0, |directory| directory.children);
    let most = rules.directory_items_max;
    if items >= most {
        return Err(NamespaceError::DirectoryFull { parent: walk.prefix(index), most, items });
    }
    Ok(())
}

impl Apply<'_, '_> {
    pub(crate) fn mkdirs(&mut self, caller: &Caller, path: &HdfsPath, mode: u16, parents: Parents) -> Answer {
        check_name(path, "mkdirs", invalid_file_name)?;
        let mut walk = self.resolve(caller, path, Aim::Create, "mkdirs")?;
        match walk.last() {
            Some(last) if last.is_directory() => return Ok(Outcome::Bool(true)),
            Some(_) => return Err(NamespaceError::NotADirectory(walk.text())),
            None => {}
        }
        let asked = Check { ancestor: WRITE, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        if parents == Parents::Require {
            verify_parent(&walk)?;
        }
        guard::check_objects(self.state, 0)?;
        check_limits(&self.state.rules, &walk, "mkdirs")?;
        let implied = (mode & 0o777) | IMPLIED;
        self.make_parents(caller, &mut walk, implied)?;
        let directory = self.new_directory(caller, &walk, mode & MODE_MASK)?;
        self.hang(&mut walk, directory)?;
        Ok(Outcome::Bool(true))
    }

    pub(crate) fn create(&mut self, caller: &Caller, create: &Create) -> Answer {
        let mut walk = check_create(&self.tables, self.state, caller, create)?;
        match walk.last() {
            Some(_) if create.flags & FLAG_OVERWRITE == 0 => {
                return self.create_existing(caller, create, &mut walk);
            }
            Some(_) => self.remove_overwritten(&mut walk)?,
            None => {}
        }
        let ancestor = walk.nodes.last().expect("the root is there").mode;
        self.make_parents(caller, &mut walk, (ancestor & 0o777) | IMPLIED)?;
        let file = self.new_file(caller, create, &walk)?;
        let status = self.status(&file, walk.name(walk.depth));
        self.take_lease(&create.holder);
        self.hang(&mut walk, file)?;
        Ok(Outcome::Status(status))
    }

    /// Without OVERWRITE: an open file's lease may change hands, and then the file exists.
    fn create_existing(&mut self, caller: &Caller, create: &Create, walk: &mut Walk<'_>) -> Answer {
        self.contend(caller, &create.holder, create.holder_renewed, walk, "CREATE_FILE")?;
        Err(NamespaceError::FileExists { path: walk.text(), machine: caller.machine.clone() })
    }

    /// HDFS asks no lease here: who still writes the old file finds it gone.
    fn remove_overwritten(&mut self, walk: &mut Walk<'_>) -> Result<(), TableError> {
        let old = walk.nodes.pop().expect("the file is there");
        let (parent, name) = (walk.depth - 1, walk.name(walk.depth).to_owned());
        self.remove_entry(walk.nodes[parent].id, name.as_bytes())?;
        self.remove_inode(&old)?;
        let directory = walk.nodes[parent].directory_mut().expect("it held a file");
        directory.children -= 1;
        Ok(()) // The directory is written when the new file is hung into it.
    }

    fn new_file(&mut self, caller: &Caller, create: &Create, walk: &Walk<'_>) -> Result<Inode, TableError> {
        let construction = Construction {
            holder: create.holder.clone(),
            machine: caller.machine.clone(),
            since: self.now(),
            ..Construction::default()
        };
        let file = File {
            accessed: self.now(),
            replication: create.replication,
            block_size: create.block_size,
            length: 0,
            blocks: 0,
            first: BlockId(0),
            open: Some(Box::new(construction)),
        };
        self.new_inode(caller, walk, create.mode & MODE_MASK, Body::File(file))
    }

    fn new_directory(&mut self, caller: &Caller, walk: &Walk<'_>, mode: u16) -> Result<Inode, TableError> {
        self.new_inode(caller, walk, mode, Body::Directory(Directory::default()))
    }

    /// The caller's, of the group of the directory at the end of the walk.
    fn new_inode(
        &mut self,
        caller: &Caller,
        walk: &Walk<'_>,
        mode: u16,
        body: Body,
    ) -> Result<Inode, TableError> {
        let group = walk.nodes.last().expect("the root is there").group;
        let owner = self.number_of(&caller.user)?;
        Ok(Inode { id: self.next_inode(), mode, owner, group, modified: self.now(), body })
    }

    /// Makes the directories that are missing above the last name.
    fn make_parents(&mut self, caller: &Caller, walk: &mut Walk<'_>, mode: u16) -> Result<(), TableError> {
        while walk.nodes.len() < walk.depth {
            let directory = self.new_directory(caller, walk, mode)?;
            self.hang(walk, directory)?;
        }
        Ok(())
    }

    /// The old rename: moves *into* a directory, and says `false` where the new one says why.
    pub(crate) fn rename(&mut self, caller: &Caller, source: &HdfsPath, target: &HdfsPath) -> Answer {
        check_length(target, "rename")?;
        let from = self.resolve(caller, source, Aim::Write, "rename")?;
        check_name(target, "rename", invalid_file_name)?;
        let mut to = self.resolve(caller, target, Aim::Create, "rename")?;
        check_length(&to.path, "rename")?;
        if let Some(last) = to.last().filter(|last| last.is_directory()) {
            let name = from.name(from.depth);
            if !name.is_empty() {
                let child = self.tables.entry(last.id, name.as_bytes())?;
                to.path = Cow::Owned(to.path.join(name));
                to.depth += 1;
                to.nodes.extend(child);
            }
        }
        guard::check_protected(&self.tables, self.state, &from)?;
        self.check_rename(caller, &from, &to, false)?;
        if from.last().is_none() || from.is_root() {
            return Ok(Outcome::Bool(false));
        }
        if from.path == to.path {
            return Ok(Outcome::Bool(true));
        }
        let refused = to.path.is_within(&from.path)
            || resolve::is_exactly_reserved(&from.path)
            || resolve::is_exactly_reserved(&to.path)
            || to.last().is_some()
            || to.parent().is_none();
        if refused {
            return Ok(Outcome::Bool(false));
        }
        self.check_rename_limits(&from, &to)?;
        self.rehang(from, to)?;
        Ok(Outcome::Bool(true))
    }

    /// `rename2`: POSIX's, never moves into.
    pub(crate) fn rename2(
        &mut self,
        caller: &Caller,
        source: &HdfsPath,
        target: &HdfsPath,
        overwrite: Overwrite,
        to_trash: bool,
    ) -> Answer {
        check_length(target, "rename")?;
        let from = self.resolve(caller, source, Aim::Write, "rename")?;
        check_name(target, "rename", invalid_file_name)?;
        let mut to = self.resolve(caller, target, Aim::Create, "rename")?;
        check_length(&to.path, "rename")?;
        guard::check_protected(&self.tables, self.state, &from)?;
        if to_trash {
            self.settle(&from)?;
        }
        self.check_rename(caller, &from, &to, to_trash)?;
        check_rename2(&from, &to, overwrite)?;
        self.check_rename_limits(&from, &to)?;
        if let Some(old) = to.last().cloned() {
            let (parent, name) = (to.depth - 1, to.name(to.depth).to_owned());
            self.remove_entry(to.nodes[parent].id, name.as_bytes())?;
            self.remove_inode(&old)?;
            to.nodes.pop();
            forget_child(&mut to.nodes[parent], &old);
            self.save(&to, parent)?;
            // Both walks may show that directory; `rehang` reads what was written.
        }
        self.rehang(from, to)?;
        Ok(Outcome::Done)
    }

    fn check_rename(
        &self,
        caller: &Caller,
        from: &Walk<'_>,
        to: &Walk<'_>,
        to_trash: bool,
    ) -> Result<(), NamespaceError> {
        let below = if to_trash { ALL } else { 0 };
        let rules = &self.state.rules;
        let asked = Check { parent: WRITE, below, ignore_empty: true, ..Check::default() };
        check(&self.tables, rules, caller, from, asked)?;
        check(&self.tables, rules, caller, to, Check { ancestor: WRITE, ..Check::default() })
    }

    fn check_rename_limits(&self, from: &Walk<'_>, to: &Walk<'_>) -> Result<(), NamespaceError> {
        let rules = &self.state.rules;
        check_new_name(rules, to.name(to.depth), || to.parent_path(), to.depth == 1)?;
        let same = from.parent().map(|parent| parent.id) == to.parent().map(|parent| parent.id);
        if same { Ok(()) } else { check_room(rules, to, to.depth - 1) }
    }

    /// Takes what `from` names and hangs it where `to` says, which is free.
    fn rehang(&mut self, from: Walk<'_>, to: Walk<'_>) -> Result<(), TableError> {
        let moved = from.nodes[from.depth].clone();
        let (source, target) = (from.depth - 1, to.depth - 1);
        let (old_parent, old_name) = from.place(from.depth);
        let (new_parent, new_name) = (to.nodes[target].id, to.name(to.depth));
        self.remove_entry(old_parent, old_name.as_bytes())?;
        self.put_entry(new_parent, new_name, &moved)?;
        self.put_place(moved.id, new_parent, new_name)?;
        self.change_directory(&from, source, |node| forget_child(node, &moved))?;
        self.change_directory(&to, target, |node| {
            let directory = node.directory_mut().expect("the target's parent is a directory");
            directory.children += 1;
            directory.subdirectories += u64::from(moved.is_directory());
        })
    }

    /// Changes a directory of a walk as the tables have it now, and its time.
    fn change_directory(
        &mut self,
        walk: &Walk<'_>,
        index: usize,
        change: impl FnOnce(&mut Inode),
    ) -> Result<(), TableError> {
        let (parent, name) = walk.place(index);
        let node = self.tables.entry(parent, name.as_bytes())?;
        let mut node = node.ok_or_else(|| TableError::Corrupt {
            table: "entries",
            detail: format!("directory {} went away", walk.nodes[index].id),
        })?;
        change(&mut node);
        node.modified = node.modified.max(self.now());
        self.put_entry(parent, name, &node)
    }

    pub(crate) fn delete(&mut self, caller: &Caller, path: &HdfsPath, recursive: bool) -> Answer {
        if resolve::is_exactly_reserved(path) {
            return Err(NamespaceError::InvalidPath(path.as_str().into()));
        }
        let mut walk = self.resolve(caller, path, Aim::Write, "delete")?;
        self.settle(&walk)?;
        let asked = Check { parent: WRITE, below: ALL, ignore_empty: true, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        let Some(last) = walk.last() else { return Ok(Outcome::Bool(false)) };
        let children = last.directory().map_or(0, |directory| directory.children);
        if children > 0 && !recursive {
            return Err(NamespaceError::NotEmpty(walk.text()));
        }
        guard::check_protected(&self.tables, self.state, &walk)?;
        if walk.is_root() {
            return Ok(Outcome::Bool(false));
        }
        let (parent, old) = (walk.depth - 1, walk.nodes.pop().expect("it is there"));
        let name = walk.name(walk.depth).to_owned();
        self.remove_entry(walk.nodes[parent].id, name.as_bytes())?;
        forget_child(&mut walk.nodes[parent], &old);
        walk.nodes[parent].modified = walk.nodes[parent].modified.max(self.now());
        self.save(&walk, parent)?;
        if children == 0 {
            self.remove_inode(&old)?
        } else {
            self.cut_off(&old)?
        }
        Ok(Outcome::Bool(true))
    }

    /// Before a check of the whole tree: its directories must be in the tables.
    fn settle(&mut self, walk: &Walk<'_>) -> Result<(), TableError> {
        let children =
            walk.last().and_then(|last| last.directory()).map_or(0, |directory| directory.children);
        if children > 0 { self.tables.flush() } else { Ok(()) }
    }

    /// Removes a file with its blocks and lease, or an empty directory; its entry is gone already.
    pub(crate) fn remove_inode(&mut self, inode: &Inode) -> Result<(), TableError> {
        self.tables.inodes.remove(inode.id.0)?;
        let Body::File(file) = &inode.body else {
            self.state.directories -= 1;
            return Ok(());
        };
        self.state.files -= 1;
        for index in 0..file.blocks {
            let block = self.tables.block_at(inode.id, file.first, index)?;
            self.remove_block(inode.id, index, block)?;
        }
        if let Some(open) = &file.open {
            self.drop_lease(inode.id, &open.holder)?;
        }
        Ok(())
    }
}

fn forget_child(parent: &mut Inode, child: &Inode) {
    if let Some(directory) = parent.directory_mut() {
        directory.children -= 1;
        directory.subdirectories -= u64::from(child.is_directory());
    }
}

/// The order is HDFS's: `validateRenameSource`, `validateDestination`, `validateOverwrite`.
fn check_rename2(from: &Walk<'_>, to: &Walk<'_>, overwrite: Overwrite) -> Result<(), NamespaceError> {
    let (source_path, target_path) = (from.text(), to.text());
    let Some(source) = from.last() else { return Err(NamespaceError::RenameSourceNotFound(source_path)) };
    if from.is_root() {
        return Err(NamespaceError::RenameSourceIsRoot);
    }
    if from.path == to.path {
        return Err(NamespaceError::RenameSame { source_path, target_path });
    }
    if to.path.is_within(&from.path) {
        return Err(NamespaceError::RenameIntoItself { source_path, target_path });
    }
    if resolve::is_exactly_reserved(&from.path) || resolve::is_exactly_reserved(&to.path) {
        return Err(NamespaceError::InvalidPath("Cannot rename to or from /.reserved".into()));
    }
    if to.is_root() {
        return Err(NamespaceError::RenameTargetIsRoot);
    }
    if let Some(target) = to.last() {
        if target.is_directory() != source.is_directory() {
            return Err(NamespaceError::RenameKindsDiffer { source_path, target_path });
        }
        if overwrite == Overwrite::No {
            return Err(NamespaceError::RenameTargetExists(target_path));
        }
        if target.directory().is_some_and(|directory| directory.children > 0) {
            return Err(NamespaceError::RenameTargetNotEmpty(target_path));
        }
    }
    if to.parent().is_none() {
        return Err(NamespaceError::RenameParentNotFound(target_path));
    }
    Ok(())
}

/// `FSDirectory.verifyParentDir`.
fn verify_parent(walk: &Walk<'_>) -> Result<(), NamespaceError> {
    match walk.parent() {
        None => Err(NamespaceError::ParentNotFound(walk.parent_path())),
        Some(_) => Ok(()),
    }
}

/// `FSDirectory.resolvePath` of a path that is to be made.
fn invalid_file_name(path: &str) -> NamespaceError {
    NamespaceError::InvalidPath(format!("Invalid file name: {path}"))
}

/// `NameNodeRpcServer.checkPathLength`, which comes before all else.
fn check_length(path: &HdfsPath, operation: &'static str) -> Result<(), NamespaceError> {
    path.check_length().map_err(|_| NamespaceError::PathTooLong { operation })
}

/// `NameNodeRpcServer.checkPathLength` and `DFSUtil.isValidName`.
fn check_name(
    path: &HdfsPath,
    operation: &'static str,
    invalid: impl Fn(&str) -> NamespaceError,
) -> Result<(), NamespaceError> {
    check_length(path, operation)?;
    path.check_creatable().map_err(|_| invalid(path.as_str()))
}
