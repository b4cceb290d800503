//! Who may write a file: HDFS's `LeaseManager` and what `FSNamesystem` asks of it. Renewals are soft
//! state of the leader (D12); here is only who holds what.

use mobula_types::{GenStamp, HdfsPath, InodeId, Millis};

use crate::apply::{Answer, Apply};
use crate::command::{Caller, Closable};
use crate::error::{Contended, LeaseSubject, NamespaceError};
use crate::outcome::Outcome;
use crate::permission::{Check, WRITE, check};
use crate::record::{Construction, File};
use crate::resolve::{self, Aim, Walk};
use crate::table::TableError;

/// Holder of the leases that the NameNode itself recovers (HDFS: `INTERNAL_LEASE_HOLDER`).
pub const INTERNAL_HOLDER: &str = "HDFS_NameNode";

/// The file at the end of a walk, which must be a file (`INodeFile.valueOf`).
pub(crate) fn file_of<'w>(walk: &'w Walk<'_>) -> Result<&'w File, NamespaceError> {
    let last = walk.last().ok_or_else(|| NamespaceError::FileNotFound(walk.text()))?;
    last.file().ok_or_else(|| NamespaceError::NotAFile(walk.text()))
}

/// `FSNamesystem.checkLease`: the file is open, and `holder` writes it. `held` counts the holder's files,
/// for the message only.
pub(crate) fn check_lease<'w>(
    walk: &'w Walk<'_>,
    file: Option<InodeId>,
    holder: &str,
    held: impl FnOnce() -> u64,
) -> Result<(&'w File, &'w Construction), NamespaceError> {
    let subject = || {
        let (path, holder) = (walk.text(), holder.to_owned());
        LeaseSubject { path, file: file.unwrap_or_default().0, holder, files: held() }
    };
    let Some(last) = walk.last() else { return Err(NamespaceError::LeaseOfNothing(subject())) };
    let Some(found) = last.file() else { return Err(NamespaceError::LeaseOfDirectory(subject())) };
    let Some(open) = &found.open else { return Err(NamespaceError::NotOpen(subject())) };
    if open.holder != holder {
        let owner = open.holder.clone();
        return Err(NamespaceError::NotLeaseOwner { owner, subject: subject() });
    }
    Ok((found, open))
}

impl Apply<'_, '_> {
    /// How many files a holder writes.
    pub(crate) fn held(&self, holder: &str) -> u64 {
        self.holders.held(holder)
    }

    /// Counts a lease; its row is written with the file's entry.
    pub(crate) fn take_lease(&mut self, holder: &str) {
        self.holders.add(holder);
        self.state.open_files += 1;
    }

    pub(crate) fn drop_lease(&mut self, file: InodeId, holder: &str) -> Result<(), TableError> {
        self.tables.open.remove(file.0)?;
        self.holders.remove(holder);
        self.state.open_files -= 1;
        Ok(())
    }

    /// `recoverLeaseInternal` without force: returns if the file is closed, or was closed just now.
    pub(crate) fn contend(
        &mut self,
        caller: &Caller,
        holder: &str,
        renewed: Option<Millis>,
        walk: &mut Walk<'_>,
        operation: &'static str,
    ) -> Result<(), NamespaceError> {
        let Some(open) = file_of(walk)?.open.as_deref() else { return Ok(()) };
        let of = Box::new(Contended {
            path: walk.text(),
            holder: holder.into(),
            machine: caller.machine.clone(),
            owner: open.holder.clone(),
            owner_machine: open.machine.clone(),
        });
        if open.holder == holder {
            return Err(NamespaceError::AlreadyHeld { operation, of });
        }
        let expired =
            renewed.is_some_and(|renewed| self.now().since(renewed) > self.state.rules.lease_ms_soft);
        if expired {
            let internal = self.internal_holder(&open.holder);
            return match self.release(walk, &internal)? {
                true => Ok(()),
                false => Err(NamespaceError::RecoveryStarted { operation, of }),
            };
        }
        match open.recovery {
            Some(_) => Err(NamespaceError::RecoveryRuns { operation, of }),
            None => Err(NamespaceError::HeldByOther { operation, of }),
        }
    }

    pub(crate) fn recover_lease(&mut self, caller: &Caller, path: &HdfsPath, holder: &str) -> Answer {
        let mut walk = self.resolve(caller, path, Aim::Write, "recoverLease")?;
        if file_of(&walk)?.open.is_none() {
            return Ok(Outcome::Bool(true));
        }
        let asked = Check { access: WRITE, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        Ok(Outcome::Bool(self.release(&mut walk, holder)?))
    }

    /// The answer says whether the file is closed now.
    pub(crate) fn expire_lease(&mut self, holder: &str, file: InodeId, closable: &Closable) -> Answer {
        let Some(mut walk) = resolve::chain(&self.tables, file)? else { return Ok(Outcome::Bool(true)) };
        let Some(open) = walk.last().and_then(|last| last.file()).and_then(|file| file.open.as_deref())
        else {
            return Ok(Outcome::Bool(true));
        };
        if open.holder != holder {
            return Ok(Outcome::Bool(false));
        }
        let (free, unkept) = (open.recovery.is_none(), open.kept == 0);
        let internal = self.internal_holder(holder);
        match closable {
            // While its recovery runs, only that may say what the block has.
            Closable::Complete { last: Some(last) } if free && self.commits(&walk, *last)? => {
                self.commit_last(&mut walk, Some(*last))?;
            }
            // What was synced is somewhere, whoever did not see it.
            Closable::DropLast if unkept && self.last_is_open(&walk)? => self.drop_last(&mut walk)?,
            Closable::Complete { .. } | Closable::DropLast | Closable::NotYet => {}
        }
        Ok(Outcome::Bool(self.release(&mut walk, &internal)?))
    }

    /// `finalizeINodeFileUnderConstruction`.
    pub(crate) fn close(&mut self, walk: &mut Walk<'_>) -> Result<(), TableError> {
        let now = self.now();
        let last = walk.nodes.last_mut().expect("the file is there");
        last.modified = now;
        let id = last.id;
        let open = last.file_mut().and_then(|file| file.open.take()).expect("an open file");
        self.drop_lease(id, &open.holder)?;
        self.save(walk, walk.depth)
    }

    pub(crate) fn next_stamp(&mut self) -> GenStamp {
        let stamp = self.state.next_stamp;
        self.state.next_stamp.0 += 1;
        stamp
    }

    fn internal_holder(&self, present: &str) -> String {
        if present.starts_with(INTERNAL_HOLDER) {
            return present.into();
        }
        format!("{INTERNAL_HOLDER}-{}", self.now())
    }
}

/// The construction of the open file at the end of a walk.
pub(crate) fn open_mut<'w>(walk: &'w mut Walk<'_>) -> &'w mut Construction {
    let file = walk.nodes.last_mut().and_then(|last| last.file_mut());
    file.and_then(|file| file.open.as_deref_mut()).expect("checked: an open file")
}
