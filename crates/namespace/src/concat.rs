//! Joining files: the blocks of the sources move behind those of the target, and the sources vanish. HDFS's
//! `FSDirConcatOp`, its checks in its order. No replica is touched; quotas are not there yet.

use std::collections::BTreeSet;

use mobula_types::HdfsPath;

use crate::apply::{Answer, Apply};
use crate::command::Caller;
use crate::error::NamespaceError;
use crate::lease::file_of;
use crate::outcome::{BlockEffect, Outcome};
use crate::permission::{Check, READ, WRITE, check};
use crate::record::{File, Inode};
use crate::resolve::{self, Aim, Walk};
use crate::table::{Read, TableError, file_block_key};

impl Apply<'_, '_> {
    pub(crate) fn concat(&mut self, caller: &Caller, target: &HdfsPath, sources: &[HdfsPath]) -> Answer {
        check_paths(target, sources)?;
        let mut walk = self.resolve(caller, target, Aim::Write, "concat")?;
        let rules = &self.state.rules;
        check(&self.tables, rules, caller, &walk, Check { access: WRITE, ..Check::default() })?;
        if file_of(&walk)?.open.is_some() {
            return Err(NamespaceError::ConcatTargetOpen(target.as_str().into()));
        }
        let sources = self.check_sources(caller, &walk, sources)?;
        for (name, source) in &sources {
            self.move_blocks(&mut walk, source)?;
            self.remove_moved(&walk, name, source)?;
        }
        let (now, parent) = (self.now(), walk.depth - 1);
        walk.nodes[walk.depth].modified = now;
        let directory = &mut walk.nodes[parent];
        directory.modified = directory.modified.max(now);
        directory.directory_mut().expect("it holds the target").children -= sources.len() as u64;
        self.save(&walk, parent)?;
        self.save(&walk, walk.depth)?;
        Ok(Outcome::Done)
    }

    /// `verifySrcFiles`: the sources, each with its name in the target's directory.
    fn check_sources(
        &self,
        caller: &Caller,
        target: &Walk<'_>,
        paths: &[HdfsPath],
    ) -> Result<Vec<(String, Inode)>, NamespaceError> {
        let rules = &self.state.rules;
        let into = file_of(target)?;
        let mut sources: Vec<(String, Inode)> = Vec::with_capacity(paths.len());
        let mut seen = BTreeSet::new();
        for path in paths {
            let walk = self.resolve(caller, path, Aim::Write, "concat")?;
            check(&self.tables, rules, caller, &walk, Check { access: READ, ..Check::default() })?;
            check(&self.tables, rules, caller, &walk, Check { parent: WRITE, ..Check::default() })?;
            check_source(target, into, &walk, path)?;
            let source = walk.nodes[walk.depth].clone();
            seen.insert(source.id);
            sources.push((walk.name(walk.depth).to_owned(), source));
        }
        if seen.len() < sources.len() { Err(NamespaceError::ConcatTwice) } else { Ok(sources) }
    }

    /// Hangs a source's blocks behind those of the file at the end of the walk, whose record is not written.
    fn move_blocks(&mut self, walk: &mut Walk<'_>, source: &Inode) -> Result<(), TableError> {
        let from = source.file().expect("checked: a file");
        let (index, id) = (walk.depth, walk.nodes[walk.depth].id);
        for nth in 0..from.blocks {
            let block = self.tables.block_at(source.id, from.first, nth)?;
            let mut row = self.tables.file_block_row(source.id, block)?;
            let file = walk.nodes[index].file_mut().expect("checked: a file");
            row.inode = id;
            row.offset += file.length;
            let new = file.replication;
            let restrained = std::mem::replace(&mut row.replication, new) != new;
            let at = file.blocks;
            file.blocks += 1;
            if at == 0 {
                file.first = block;
            } else {
                let key = file_block_key(id, at);
                self.tables.file_blocks.insert(key.as_slice(), block.0.to_be_bytes().as_slice())?;
            }
            if nth > 0 {
                self.tables.file_blocks.remove(file_block_key(source.id, nth).as_slice())?;
            }
            self.put_block(block, &row)?;
            if restrained {
                self.effects.push(BlockEffect::Replication { block, replication: new });
            }
        }
        walk.nodes[index].file_mut().expect("checked: a file").length += from.length;
        Ok(())
    }

    /// Removes a file whose blocks went elsewhere.
    fn remove_moved(&mut self, walk: &Walk<'_>, name: &str, source: &Inode) -> Result<(), TableError> {
        let directory = walk.nodes[walk.depth - 1].id;
        self.remove_entry(directory, name.as_bytes())?;
        self.tables.inodes.remove(source.id.0)?;
        self.state.files -= 1;
        Ok(())
    }
}

/// `validatePath`.
fn check_paths(target: &HdfsPath, sources: &[HdfsPath]) -> Result<(), NamespaceError> {
    if sources.is_empty() {
        return Err(NamespaceError::ConcatNothing);
    }
    match std::iter::once(target).chain(sources).find(|path| resolve::is_reserved_path(path)) {
        Some(path) => Err(NamespaceError::ConcatReserved(path.as_str().into())),
        None => Ok(()),
    }
}

fn check_source(
    target: &Walk<'_>,
    into: &File,
    walk: &Walk<'_>,
    path: &HdfsPath,
) -> Result<(), NamespaceError> {
    let (source_path, target_path) = (path.as_str().to_owned(), target.text());
    let source = file_of(walk)?;
    let parent = |walk: &Walk<'_>| walk.parent().map(|parent| parent.id);
    if parent(walk) != parent(target) {
        return Err(NamespaceError::ConcatElsewhere { source_path, target_path });
    }
    if walk.last().map(|last| last.id) == target.last().map(|last| last.id) {
        return Err(NamespaceError::ConcatSame { source_path, target_path });
    }
    if source.open.is_some() || source.blocks == 0 {
        return Err(NamespaceError::ConcatInvalid(source_path));
    }
    let (size, most) = (source.block_size, into.block_size);
    if size > most {
        return Err(NamespaceError::ConcatBlockSize { path: source_path, size, most });
    }
    Ok(())
}
