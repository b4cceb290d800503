//! Replication, mode, owner and times: HDFS's `FSDirAttrOp`.

use mobula_types::{HdfsPath, InodeId, Millis};

use crate::apply::{Answer, Apply};
use crate::command::Caller;
use crate::error::NamespaceError;
use crate::outcome::{BlockEffect, Outcome};
use crate::permission::{ACCESS_MASK, Check, MODE_MASK, WRITE, check, check_owner, is_member};
use crate::record::Body;
use crate::resolve::{self, Aim, Walk};
use crate::table::Read;
use crate::tree::check_replication;

impl Apply<'_, '_> {
    pub(crate) fn set_replication(&mut self, caller: &Caller, path: &HdfsPath, replication: u16) -> Answer {
        check_replication(&self.state.rules, replication, path, None)?;
        let mut walk = self.resolve(caller, path, Aim::Write, "setReplication")?;
        let asked = Check { access: WRITE, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        let Some(file) = walk.last().and_then(|last| last.file()) else { return Ok(Outcome::Bool(false)) };
        if file.replication == replication {
            return Ok(Outcome::Bool(true));
        }
        let last = walk.nodes.last_mut().expect("the file is there");
        let inode = last.id;
        let file = last.file_mut().expect("checked: a file");
        file.replication = replication;
        let (first, blocks) = (file.first, file.blocks);
        self.save(&walk, walk.depth)?;
        for index in 0..blocks {
            let id = self.tables.block_at(inode, first, index)?;
            let mut row = self.tables.file_block_row(inode, id)?;
            row.replication = replication;
            self.put_block(id, &row)?;
            self.effects.push(BlockEffect::Replication { block: id, replication });
        }
        Ok(Outcome::Bool(true))
    }

    /// The walk to something that is there, and that the caller owns.
    fn owned<'p>(
        &self,
        caller: &Caller,
        path: &'p HdfsPath,
        operation: &'static str,
    ) -> Result<Walk<'p>, NamespaceError> {
        if resolve::is_exactly_reserved(path) {
            return Err(NamespaceError::InvalidPath(path.as_str().into()));
        }
        let walk = self.resolve(caller, path, Aim::Write, operation)?;
        check_owner(&self.tables, caller, &walk)?;
        Ok(walk)
    }

    pub(crate) fn set_permission(&mut self, caller: &Caller, path: &HdfsPath, mode: u16) -> Answer {
        let mut walk = self.owned(caller, path, "setPermission")?;
        let depth = walk.depth;
        walk.nodes[depth].mode = mode & MODE_MASK;
        self.save(&walk, depth)?;
        Ok(Outcome::Done)
    }

    /// An ACL of owner, group and others alone is a mode, and HDFS keeps none beside it (`AclStorage.updateINodeAcl`).
    pub(crate) fn set_acl(&mut self, caller: &Caller, path: &HdfsPath, access: Option<u16>) -> Answer {
        let mut walk = self.owned(caller, path, "setAcl")?;
        let Some(access) = access else { return Ok(Outcome::Done) };
        let depth = walk.depth;
        let mode = &mut walk.nodes[depth].mode;
        *mode = *mode & !ACCESS_MASK | access & ACCESS_MASK;
        self.save(&walk, depth)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn set_owner(
        &mut self,
        caller: &Caller,
        path: &HdfsPath,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Answer {
        let mut walk = self.owned(caller, path, "setOwner")?;
        if !caller.superuser {
            if user.is_some_and(|user| user != caller.user) {
                return Err(NamespaceError::MayNotGiveAway(caller.user.clone()));
            }
            if let Some(group) = group.filter(|group| !is_member(caller, group)) {
                return Err(NamespaceError::NotInGroup { user: caller.user.clone(), group: group.into() });
            }
        }
        let depth = walk.depth;
        if let Some(user) = user {
            walk.nodes[depth].owner = self.number_of(user)?;
        }
        if let Some(group) = group {
            walk.nodes[depth].group = self.number_of(group)?;
        }
        self.save(&walk, depth)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn set_times(
        &mut self,
        caller: &Caller,
        path: &HdfsPath,
        modified: Option<Millis>,
        accessed: Option<Millis>,
    ) -> Answer {
        let mut walk = self.resolve(caller, path, Aim::Write, "setTimes")?;
        let asked = Check { access: WRITE, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        if walk.last().is_none() {
            return Err(NamespaceError::NothingToSetTimes(walk.text()));
        }
        let depth = walk.depth;
        let node = &mut walk.nodes[depth];
        node.modified = modified.unwrap_or(node.modified);
        if let Some(accessed) = accessed {
            match &mut node.body {
                Body::File(file) => file.accessed = accessed,
                Body::Directory(directory) => directory.accessed = accessed,
            }
        }
        self.save(&walk, depth)?;
        Ok(Outcome::Done)
    }

    /// Readers' access times, by id; those within the precision change nothing.
    pub(crate) fn touch(&mut self, accesses: &[(InodeId, Millis)]) -> Answer {
        let precision = self.state.rules.access_time_precision;
        for (inode, accessed) in accesses {
            let Some(place) = self.tables.place(*inode)? else { continue };
            let Some(mut node) = self.tables.entry(place.parent, &place.name)? else { continue };
            let Some(file) = node.file_mut() else { continue };
            if *accessed <= file.accessed + precision {
                continue;
            }
            file.accessed = *accessed;
            let name = String::from_utf8_lossy(&place.name).into_owned();
            self.put_entry(place.parent, &name, &node)?;
        }
        Ok(Outcome::Done)
    }
}
