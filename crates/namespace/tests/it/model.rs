//! The namespace against a naive model: a map from whole paths to nodes, every rule written out anew and
//! slowly. Compared after every command: the answer's kind, and now and then everything.
//! `SEED=n cargo test model` replays one, `SEEDS=n` plays so many.

use std::collections::BTreeMap;

use mobula_namespace::{
    BlockState, Caller, Create, ErrorKind, FileKind, Operation, Outcome, Overwrite, Parents, Rules,
};
use mobula_types::{Block, GenStamp, HdfsPath, InodeId};
use rand::Rng;

use crate::fixture::{Fixture, path, superuser};
use crate::random::Random;
use crate::writers::Told;

const SEEDS: u64 = 16;
const COMMANDS: usize = 1500;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub id: InodeId,
    pub directory: bool,
    mode: u16,
    owner: String,
    group: String,
    replication: u16,
    pub holder: Option<String>,
    /// Of the last block: its id, and the length to which it is cut.
    pub recovery: Option<(GenStamp, Option<u64>)>,
    /// Bytes of the last block, while that is open, that nobody may cut off.
    pub kept: u64,
    /// Block, and whether its length is final.
    pub blocks: Vec<(Block, bool)>,
}

/// What an answer comes to.
#[derive(Debug, PartialEq)]
pub enum Said {
    Yes,
    No,
    Refused(ErrorKind),
}
use Said::{No, Refused, Yes};

pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    next_inode: u64,
    pub next_stamp: u64,
    rules: Rules,
}

pub type Checked<T> = Result<T, Said>;

pub fn refuse<T>(kind: ErrorKind) -> Checked<T> {
    Err(Refused(kind))
}

pub fn parent_of(path: &str) -> Option<String> {
    HdfsPath::parse(path).unwrap().parent().map(|parent| parent.as_str().to_owned())
}

fn join(parent: &str, name: &str) -> String {
    path(parent).join(name).as_str().to_owned()
}

fn below(path: &str, top: &str) -> bool {
    path != top && (top == "/" || path.starts_with(&format!("{top}/")))
}

impl Model {
    fn new() -> Model {
        let root = Node {
            id: InodeId::ROOT,
            directory: true,
            mode: 0o755,
            owner: "hdfs".into(),
            group: "supergroup".into(),
            replication: 0,
            holder: None,
            recovery: None,
            kept: 0,
            blocks: Vec::new(),
        };
        Model {
            nodes: BTreeMap::from([("/".to_owned(), root)]),
            next_inode: InodeId::ROOT.0 + 1,
            next_stamp: GenStamp::FIRST.0,
            rules: Rules::default(),
        }
    }

    fn ancestors(path: &str) -> Vec<String> {
        let mut list = Vec::new();
        let mut at = parent_of(path);
        while let Some(parent) = at {
            at = parent_of(&parent);
            list.push(parent);
        }
        list.reverse();
        list
    }

    fn may(&self, caller: &Caller, node: &Node, bits: u16) -> bool {
        let triple = if node.owner == caller.user {
            node.mode >> 6
        } else if caller.groups.contains(&node.group) {
            node.mode >> 3
        } else {
            node.mode
        };
        caller.superuser || triple & bits == bits
    }

    pub fn traverse(&self, caller: &Caller, path: &str, not_directory: ErrorKind) -> Checked<()> {
        for ancestor in Model::ancestors(path) {
            match self.nodes.get(&ancestor) {
                None => break,
                Some(node) if !node.directory => return refuse(not_directory),
                Some(node) if !self.may(caller, node, 1) => return refuse(ErrorKind::AccessControl),
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub fn want(&self, caller: &Caller, path: &str, bits: u16) -> Checked<()> {
        match self.nodes.get(path) {
            Some(node) if !self.may(caller, node, bits) => refuse(ErrorKind::AccessControl),
            _ => Ok(()),
        }
    }

    fn want_ancestor(&self, caller: &Caller, path: &str) -> Checked<()> {
        match Model::ancestors(path).into_iter().rev().find(|ancestor| self.nodes.contains_key(ancestor)) {
            Some(nearest) => self.want(caller, &nearest, 2),
            None => Ok(()),
        }
    }

    pub fn want_parent(&self, caller: &Caller, path: &str) -> Checked<()> {
        let Some(parent) = parent_of(path) else { return Ok(()) };
        if let (Some(node), Some(up)) = (self.nodes.get(path), self.nodes.get(&parent)) {
            let sticky = up.mode & 0o1000 != 0 && up.owner != caller.user && node.owner != caller.user;
            if sticky && !caller.superuser {
                return refuse(ErrorKind::AccessControl);
            }
        }
        self.want(caller, &parent, 2)
    }

    fn want_all_below(&self, caller: &Caller, top: &str) -> Checked<()> {
        if caller.superuser || !self.nodes.get(top).is_some_and(|node| node.directory) {
            return Ok(());
        }
        for (path, node) in self.nodes.iter().filter(|(path, _)| *path == top || below(path, top)) {
            if !node.directory || self.children(path) == 0 {
                continue;
            }
            let sticky = node.mode & 0o1000 != 0 && node.owner != caller.user;
            let others = self
                .nodes
                .iter()
                .any(|(child, node)| parent_of(child).as_ref() == Some(path) && node.owner != caller.user);
            if !self.may(caller, node, 7) || (sticky && others) {
                return refuse(ErrorKind::AccessControl);
            }
        }
        Ok(())
    }

    fn children(&self, path: &str) -> u64 {
        self.nodes.keys().filter(|child| parent_of(child).as_deref() == Some(path)).count() as u64
    }

    fn make(&mut self, caller: &Caller, path: &str, mode: u16, directory: bool) {
        let group = self.nodes[&parent_of(path).unwrap()].group.clone();
        let node = Node {
            id: InodeId(self.next_inode),
            directory,
            mode,
            owner: caller.user.clone(),
            group,
            replication: 0,
            holder: None,
            recovery: None,
            kept: 0,
            blocks: Vec::new(),
        };
        self.next_inode += 1;
        self.nodes.insert(path.into(), node);
    }

    fn make_parents(&mut self, caller: &Caller, path: &str, mode: u16) {
        for ancestor in Model::ancestors(path) {
            if !self.nodes.contains_key(&ancestor) {
                self.make(caller, &ancestor, mode, true);
            }
        }
    }

    fn remove(&mut self, top: &str) {
        self.nodes.retain(|path, _| path != top && !below(path, top));
    }

    fn run(&mut self, caller: &Caller, operation: &Operation) -> Said {
        let said = match operation {
            Operation::Mkdirs { path, mode, parents } => self.mkdirs(caller, path.as_str(), *mode, *parents),
            Operation::Create(create) | Operation::CreateWith { create, .. } => self.create(caller, create),
            Operation::Delete { path, recursive } => self.delete(caller, path.as_str(), *recursive),
            Operation::Rename { source, target } => self.rename(caller, source.as_str(), target.as_str()),
            Operation::Rename2 { source, target, overwrite, to_trash } => {
                self.rename2(caller, source.as_str(), target.as_str(), *overwrite, *to_trash)
            }
            Operation::SetReplication { path, replication } => {
                self.set_replication(caller, path.as_str(), *replication)
            }
            Operation::SetPermission { path, mode } => self.owned(caller, path.as_str()).map(|path| {
                self.nodes.get_mut(&path).unwrap().mode = mode & 0o1777;
                Yes
            }),
            Operation::SetAcl { path, access } => self.owned(caller, path.as_str()).map(|path| {
                let mode = &mut self.nodes.get_mut(&path).unwrap().mode;
                *mode = access.map_or(*mode, |access| *mode & 0o1000 | access);
                Yes
            }),
            Operation::SetOwner { path, user, group } => {
                self.set_owner(caller, path.as_str(), user.as_ref().unwrap(), group.as_ref().unwrap())
            }
            Operation::RecoverLease { path, holder } => self.recover(caller, path.as_str(), holder),
            other => self.writer(caller, other),
        };
        said.unwrap_or_else(|refused| refused)
    }

    fn mkdirs(&mut self, caller: &Caller, path: &str, mode: u16, parents: Parents) -> Checked<Said> {
        self.traverse(caller, path, ErrorKind::ParentNotDirectory)?;
        match self.nodes.get(path) {
            Some(node) if node.directory => return Ok(Yes),
            Some(_) => return refuse(ErrorKind::FileAlreadyExists),
            None => {}
        }
        self.want_ancestor(caller, path)?;
        self.want_made_parent(path, parents)?;
        self.make_parents(caller, path, mode & 0o777 | 0o300);
        self.make(caller, path, mode, true);
        Ok(Yes)
    }

    fn want_made_parent(&self, path: &str, parents: Parents) -> Checked<()> {
        match parents == Parents::Require && !self.nodes.contains_key(&parent_of(path).unwrap()) {
            true => refuse(ErrorKind::FileNotFound),
            false => Ok(()),
        }
    }

    fn create(&mut self, caller: &Caller, create: &Create) -> Checked<Said> {
        let path = create.path.as_str();
        self.traverse(caller, path, ErrorKind::ParentNotDirectory)?;
        self.want_ancestor(caller, path)?;
        let overwrite = create.flags & 2 != 0;
        match self.nodes.get(path) {
            Some(node) if node.directory => return refuse(ErrorKind::FileAlreadyExists),
            Some(_) if overwrite => self.want(caller, path, 2)?,
            Some(_) => {
                self.contend(path, &create.holder, create.holder_renewed)?;
                return refuse(ErrorKind::FileAlreadyExists);
            }
            None => {
                self.want_made_parent(path, create.parents)?;
                if create.flags & 1 == 0 {
                    return refuse(ErrorKind::FileNotFound);
                }
            }
        }
        self.remove(path);
        let ancestors = Model::ancestors(path);
        let nearest = ancestors.iter().rev().find(|ancestor| self.nodes.contains_key(*ancestor)).unwrap();
        let implied = self.nodes[nearest].mode & 0o777 | 0o300;
        self.make_parents(caller, path, implied);
        self.make(caller, path, create.mode, false);
        let node = self.nodes.get_mut(path).unwrap();
        node.holder = Some(create.holder.clone());
        node.replication = create.replication;
        Ok(Yes)
    }

    fn delete(&mut self, caller: &Caller, path: &str, recursive: bool) -> Checked<Said> {
        self.traverse(caller, path, ErrorKind::AccessControl)?;
        self.want_parent(caller, path)?;
        self.want_all_below(caller, path)?;
        if self.nodes.contains_key(path) && self.children(path) > 0 && !recursive {
            return refuse(ErrorKind::PathIsNotEmptyDirectory);
        }
        if path == "/" || !self.nodes.contains_key(path) {
            return Ok(No);
        }
        self.remove(path);
        Ok(Yes)
    }

    fn move_tree(&mut self, source: &str, target: &str) {
        let moved: Vec<String> =
            self.nodes.keys().filter(|path| *path == source || below(path, source)).cloned().collect();
        for old in moved {
            let node = self.nodes.remove(&old).unwrap();
            self.nodes.insert(format!("{target}{}", &old[source.len()..]), node);
        }
    }

    fn rename(&mut self, caller: &Caller, source: &str, target: &str) -> Checked<Said> {
        self.traverse(caller, source, ErrorKind::AccessControl)?;
        self.traverse(caller, target, ErrorKind::ParentNotDirectory)?;
        let mut target = target.to_owned();
        let name = path(source).name().to_owned();
        if self.nodes.get(&target).is_some_and(|node| node.directory) && !name.is_empty() {
            target = join(&target, &name);
        }
        self.want_parent(caller, source)?;
        self.want_ancestor(caller, &target)?;
        if !self.nodes.contains_key(source) || source == "/" {
            return Ok(No);
        }
        if source == target {
            return Ok(Yes);
        }
        let parent = parent_of(&target);
        if below(&target, source)
            || self.nodes.contains_key(&target)
            || !parent.is_some_and(|parent| self.nodes.contains_key(&parent))
        {
            return Ok(No);
        }
        self.move_tree(source, &target);
        Ok(Yes)
    }

    fn rename2(
        &mut self,
        caller: &Caller,
        source: &str,
        target: &str,
        overwrite: Overwrite,
        to_trash: bool,
    ) -> Checked<Said> {
        self.traverse(caller, source, ErrorKind::AccessControl)?;
        self.traverse(caller, target, ErrorKind::ParentNotDirectory)?;
        self.want_parent(caller, source)?;
        if to_trash {
            self.want_all_below(caller, source)?;
        }
        self.want_ancestor(caller, target)?;
        let Some(moved) = self.nodes.get(source) else { return refuse(ErrorKind::FileNotFound) };
        if source == "/" {
            return refuse(ErrorKind::Io);
        }
        if source == target {
            return refuse(ErrorKind::FileAlreadyExists);
        }
        if below(target, source) || target == "/" {
            return refuse(ErrorKind::Io);
        }
        if let Some(old) = self.nodes.get(target) {
            if old.directory != moved.directory {
                return refuse(ErrorKind::Io);
            }
            if overwrite == Overwrite::No {
                return refuse(ErrorKind::FileAlreadyExists);
            }
            if self.children(target) > 0 {
                return refuse(ErrorKind::Io);
            }
        }
        if !self.nodes.contains_key(&parent_of(target).unwrap()) {
            return refuse(ErrorKind::FileNotFound);
        }
        self.nodes.remove(target);
        self.move_tree(source, target);
        Ok(Yes)
    }

    fn set_replication(&mut self, caller: &Caller, path: &str, replication: u16) -> Checked<Said> {
        assert!(replication >= self.rules.replication_min);
        self.traverse(caller, path, ErrorKind::AccessControl)?;
        self.want(caller, path, 2)?;
        match self.nodes.get_mut(path) {
            Some(node) if !node.directory => {
                node.replication = replication;
                Ok(Yes)
            }
            _ => Ok(No),
        }
    }

    fn owned(&self, caller: &Caller, path: &str) -> Checked<String> {
        self.traverse(caller, path, ErrorKind::AccessControl)?;
        match self.nodes.get(path) {
            Some(node) if caller.superuser || node.owner == caller.user => Ok(path.into()),
            Some(_) => refuse(ErrorKind::AccessControl),
            None => refuse(ErrorKind::FileNotFound),
        }
    }

    fn set_owner(&mut self, caller: &Caller, path: &str, user: &str, group: &str) -> Checked<Said> {
        let found = self.owned(caller, path)?;
        if !caller.superuser && (user != caller.user || !caller.groups.iter().any(|mine| mine == group)) {
            return refuse(ErrorKind::AccessControl);
        }
        let node = self.nodes.get_mut(&found).unwrap();
        (node.owner, node.group) = (user.into(), group.into());
        Ok(Yes)
    }

    fn recover(&mut self, caller: &Caller, path: &str, holder: &str) -> Checked<Said> {
        self.traverse(caller, path, ErrorKind::AccessControl)?;
        match self.nodes.get(path).filter(|node| !node.directory).map(|node| node.holder.is_some()) {
            None => return refuse(ErrorKind::FileNotFound),
            Some(false) => return Ok(Yes),
            Some(true) => {}
        }
        self.want(caller, path, 2)?;
        Ok(if self.release(path, holder) { Yes } else { No })
    }

    /// Of addBlock, complete, abandonBlock and fsync the namespace decides, and the model keeps books:
    /// what it says must fit what is known of the file.
    fn written(&mut self, operation: &Operation, answer: &Result<Outcome, ErrorKind>) {
        let (path, file, holder) = match operation {
            Operation::AddBlock(add) => (&add.path, add.file, &add.holder),
            Operation::Complete { path, file, holder, .. }
            | Operation::Fsync { path, file, holder, .. }
            | Operation::AbandonBlock { path, file, holder, .. } => (path, *file, holder),
            _ => return,
        };
        let found = match file {
            Some(id) => self.nodes.values_mut().find(|node| node.id == id),
            None => self.nodes.get_mut(path.as_str()),
        };
        let Some(node) = found else {
            let refused = [Err(ErrorKind::FileNotFound), Err(ErrorKind::AccessControl)];
            assert!(refused.contains(answer), "of a missing file: {answer:?}");
            return;
        };
        let Ok(outcome) = answer else { return };
        if node.holder.as_ref() != Some(holder) {
            let last = node.blocks.last().map(|(block, _)| (block.id, block.stamp));
            let asked = match operation {
                Operation::Complete { last, .. } => last.map(|block| (block.id, block.stamp)),
                other => panic!("done without a lease: {other:?}"),
            };
            assert!(node.holder.is_none() && last == asked, "closed by another: {operation:?}");
            return;
        }
        match (operation, outcome) {
            (Operation::AddBlock(add), Outcome::Allocated(allocated)) => {
                if node.blocks.last().is_some_and(|(block, _)| *block == allocated.block) {
                    return; // The same again.
                }
                assert!(!node.blocks.iter().any(|(block, _)| block.id == allocated.block.id));
                if let (Some((last, committed)), Some(previous)) = (node.blocks.last_mut(), add.previous) {
                    assert_eq!((last.id, last.stamp), (previous.id, previous.stamp));
                    if !*committed {
                        assert!(node.recovery.is_none() && previous.length >= last.length);
                        (last.length, *committed) = (previous.length, true);
                    }
                }
                assert!(node.recovery.is_none() && !node.last_is_open(), "a block after an open one");
                assert_eq!((allocated.offset, allocated.block.stamp.0), (node.length(), self.next_stamp));
                self.next_stamp += 1;
                node.kept = 0;
                node.blocks.push((allocated.block, false));
            }
            (Operation::Complete { last, .. }, Outcome::Bool(true)) => {
                if let (Some((block, committed)), Some(last)) = (node.blocks.last_mut(), last)
                    && !*committed
                {
                    assert_eq!((block.id, block.stamp), (last.id, last.stamp));
                    assert!(node.recovery.is_none() && last.length >= block.length);
                    (block.length, *committed) = (last.length, true);
                }
                node.close();
            }
            (Operation::AbandonBlock { block, .. }, _)
                if node.blocks.last().is_some_and(|(last, _)| last.id == block.id) =>
            {
                assert!(node.recovery.is_none(), "abandoned under recovery");
                node.drop_last();
            }
            (Operation::Fsync { last_length: Some(length), .. }, _) if *length > 0 => {
                if let (Some((block, false)), None) = (node.blocks.last_mut(), node.recovery)
                    && *length > node.kept
                {
                    (block.length, node.kept) = (block.length.max(*length), *length);
                }
            }
            _ => {}
        }
    }
}

impl Model {
    /// A file that was made together with its first block.
    fn begun(&mut self, create: &Create, answer: &Result<Outcome, ErrorKind>) {
        let Ok(outcome) = answer else { return };
        let Outcome::Begun(status, allocated) = outcome else { panic!("no block: {outcome:?}") };
        assert_eq!((allocated.offset, allocated.block.stamp.0), (0, self.next_stamp));
        self.next_stamp += 1;
        let node = self.nodes.get_mut(create.path.as_str()).unwrap();
        assert_eq!((node.id, node.blocks.len()), (status.inode, 0));
        node.blocks.push((allocated.block, false));
    }

    /// `complete`, and `rename2` of the file that it closed, wherever that is. Whether it is closed the namespace
    /// decides, as of `complete`; `is_open` asks it.
    fn completed_as(
        &mut self,
        caller: &Caller,
        operation: &Operation,
        answer: &Result<Outcome, ErrorKind>,
        is_open: impl Fn(InodeId) -> bool,
    ) {
        let Operation::CompleteAs { path, file, holder, last, target, overwrite } = operation else { return };
        if file.is_none()
            && let Err(refused) = self.traverse(caller, path.as_str(), ErrorKind::AccessControl)
        {
            return assert_eq!(said(answer), refused, "{operation:?}");
        }
        let (path, holder) = (path.clone(), holder.clone());
        let complete = Operation::Complete { path, file: *file, holder, last: *last };
        let Some(at) = self.closed_at(&complete, is_open) else {
            assert_ne!(said(answer), Yes, "{operation:?}");
            return self.written(&complete, answer);
        };
        self.written(&complete, &Ok(Outcome::Bool(true)));
        let renamed = match at == target.as_str() {
            true => Ok(Yes),
            false => self.rename2(caller, &at, target.as_str(), *overwrite, false),
        };
        assert_eq!(said(answer), renamed.unwrap_or_else(|refused| refused), "{operation:?} of {at}");
    }

    /// The file that is closed by that, or was before.
    fn closed_at(&self, complete: &Operation, is_open: impl Fn(InodeId) -> bool) -> Option<String> {
        let Operation::Complete { path, file, last, .. } = complete else { return None };
        let (at, node) = match file {
            Some(id) => self.nodes.iter().find(|(_, node)| node.id == *id)?,
            None => self.nodes.get_key_value(path.as_str())?,
        };
        let asked = last.map(|block| (block.id, block.stamp));
        let closed = match &node.holder {
            Some(_) => !is_open(node.id),
            None => node.blocks.last().map(|(block, _)| (block.id, block.stamp)) == asked,
        };
        (closed && !node.directory).then(|| at.clone())
    }
}

fn compare(fixture: &Fixture, model: &Model, told: &Told) {
    let view = fixture.namespace.view();
    for (path_text, node) in &model.nodes {
        let status = view.status(&superuser(), &path(path_text)).unwrap();
        let status = status.unwrap_or_else(|| panic!("{path_text} is missing"));
        let have = (status.inode, status.mode, &status.owner, &status.group);
        assert_eq!(have, (node.id, node.mode, &node.owner, &node.group), "{path_text}");
        match status.kind {
            FileKind::Directory { children } => {
                assert!(node.directory);
                assert_eq!(children, model.children(path_text), "{path_text}");
                let listing = view.listing(&superuser(), &path(path_text), b"", 1000).unwrap().unwrap();
                assert_eq!((listing.entries.len() as u64, listing.remaining), (children, 0));
            }
            FileKind::File { length, replication, open, .. } => {
                assert!(!node.directory);
                assert_eq!((replication, open), (node.replication, node.holder.is_some()), "{path_text}");
                assert_eq!(length, node.length());
                assert_eq!(view.lease_of(node.id).unwrap(), node.holder);
                let mut offset = 0;
                let mut expected = node.blocks.iter();
                for found in view.blocks_of(node.id).unwrap() {
                    let closed = found.state == BlockState::Committed;
                    assert_eq!(Some(&(found.block, closed)), expected.next(), "{path_text}");
                    assert_eq!(found.offset, offset, "{path_text}: {}", found.block);
                    assert_eq!(found.targets.is_empty(), closed, "{path_text}: {}", found.block);
                    offset += found.block.length;
                }
                assert_eq!(expected.next(), None, "{path_text}");
                let running = view.recovery_of(node.id).unwrap().map(|running| running.recovery);
                assert_eq!(running.map(|running| (running.id, running.truncate)), node.recovery);
            }
        }
        assert_eq!(view.path_of(node.id).unwrap().unwrap().as_str(), path_text);
    }
    let counts = view.counts();
    assert_eq!(counts.inodes, model.nodes.len() as u64);
    assert_eq!(counts.blocks, model.nodes.values().map(|node| node.blocks.len() as u64).sum::<u64>());
    assert_eq!(counts.open_files, model.nodes.values().filter(|node| node.holder.is_some()).count() as u64);
    let rows = view.blocks_from(mobula_types::BlockId(0), usize::MAX).unwrap();
    assert_eq!(rows.len() as u64, counts.blocks);
    let told = told.blocks.values().map(|(block, state)| (block.id, block.stamp, *state));
    assert!(
        rows.iter().map(|row| (row.block.id, row.block.stamp, row.state)).eq(told),
        "the fleet was told else"
    );
    let running = model.nodes.values().filter(|node| node.recovery.is_some()).count();
    assert_eq!(view.recoveries(InodeId(0), usize::MAX).unwrap().len(), running);
    assert_eq!(view.next_stamp().0, model.next_stamp);
}

fn said(answer: &Result<Outcome, ErrorKind>) -> Said {
    match answer {
        Ok(Outcome::Bool(false)) => No,
        Ok(_) => Yes,
        Err(kind) => Refused(*kind),
    }
}

fn play(seed: u64) -> BTreeMap<&'static str, usize> {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut fixture = Fixture::new();
    let mut model = Model::new();
    let (mut files, mut blocks) = (Vec::new(), Vec::new());
    let mut yes = 0;
    let mut told = Told::default();
    let mut done = BTreeMap::<&'static str, usize>::new();
    for step in 0..COMMANDS {
        let caller = random.caller();
        let view = fixture.namespace.view();
        let operation = random.operation(&view, &files, &blocks);
        let applied = fixture.apply(&caller, None, operation.clone());
        told.hear(&applied.effects);
        let answer = applied.outcome.map_err(|error| error.kind());
        match &answer {
            Ok(Outcome::Status(status)) => files.push(status.inode),
            Ok(Outcome::Allocated(allocated)) => blocks.push(allocated.block),
            Ok(Outcome::Begun(status, allocated)) => {
                files.push(status.inode);
                blocks.push(allocated.block);
            }
            _ => {}
        }
        if matches!(said(&answer), Yes | No) {
            yes += usize::from(said(&answer) == Yes);
            *done.entry(name(&operation)).or_default() += 1;
        }
        match &operation {
            Operation::AddBlock(_)
            | Operation::Complete { .. }
            | Operation::Fsync { .. }
            | Operation::AbandonBlock { .. } => model.written(&operation, &answer),
            Operation::CompleteAs { .. } => {
                let view = fixture.namespace.view();
                model.completed_as(&caller, &operation, &answer, |file| {
                    view.lease_of(file).unwrap().is_some()
                });
            }
            _ => {
                let expected = model.run(&caller, &operation);
                assert_eq!(said(&answer), expected, "step {step} as {}: {operation:?}", caller.user);
                if let Operation::CreateWith { create, .. } = &operation {
                    model.begun(create, &answer);
                }
            }
        }
        match random.rng.random_range(0..150) {
            0..=2 => compare(&fixture, &model, &told),
            3 => fixture.lose_power(),
            4 => fixture.copy(),
            _ => {}
        }
    }
    println!("done: {done:?}");
    compare(&fixture, &model, &told);
    assert!(yes > COMMANDS / 10, "only {yes} of {COMMANDS} commands did anything");
    done
}

/// Of those that write files again, or at once: each must succeed now and then, or the test shows nothing of it.
fn name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Append(_) => "append",
        Operation::Truncate(_) => "truncate",
        Operation::Concat { .. } => "concat",
        Operation::UpdateBlockForPipeline { .. } => "updateBlockForPipeline",
        Operation::UpdatePipeline(_) => "updatePipeline",
        Operation::CommitBlockSynchronization(_) => "commitBlockSynchronization",
        Operation::RetryRecovery { .. } => "retryRecovery",
        Operation::ExpireLease { .. } => "expireLease",
        Operation::CreateWith { .. } => "createWith",
        Operation::CompleteAs { .. } => "completeAs",
        _ => "others",
    }
}

#[test]
fn agrees_with_a_naive_model() {
    match std::env::var("SEED") {
        Ok(seed) => drop(play(seed.parse().unwrap())),
        Err(_) => {
            let mut done = BTreeMap::new();
            let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
            for (name, count) in (0..seeds).flat_map(play) {
                *done.entry(name).or_insert(0) += count;
            }
            assert!(
                done.len() == 11 && done.values().all(|count| *count > 20),
                "too little was done: {done:?}"
            );
        }
    }
}
