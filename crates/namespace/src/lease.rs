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
    held: impl FnOnce() -> Result<u64, TableError>,
) -> Result<(&'w File, &'w Construction), NamespaceError> {
    let subject = || {
        let (path, holder) = (walk.text(), holder.to_owned());
        held().map(|files| LeaseSubject { path, file: file.unwrap_or_default().0, holder, files })
    };
    let Some(last) = walk.last() else { return Err(NamespaceError::LeaseOfNothing(subject()?)) };
    let Some(found) = last.file() else { return Err(NamespaceError::LeaseOfDirectory(subject()?)) };
    let Some(open) = &found.open else { return Err(NamespaceError::NotOpen(subject()?)) };
    if open.holder != holder {
        let owner = open.holder.clone();
        return Err(NamespaceError::NotLeaseOwner { owner, subject: subject()? });
    }
    Ok((found, open))
}

impl Apply<'_, '_> {
    /// How many files a holder writes.
    pub(crate) fn held(&self, holder: &str) -> u64 {
        self.holders.get(holder).copied().unwrap_or(0)
    }

    /// Counts a lease; its row is written with the file's entry.
    pub(crate) fn take_lease(&mut self, holder: &str) {
        *self.holders.entry(holder.to_owned()).or_default() += 1;
        self.state.open_files += 1;
    }

    pub(crate) fn drop_lease(&mut self, file: InodeId, holder: &str) -> Result<(), TableError> {
        self.tables.open.remove(file.0)?;
        if let Some(count) = self.holders.get_mut(holder) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(holder);
            }
        }
        self.state.open_files -= 1;
        Ok(())
    }

    /// `recoverLeaseInternal` without force: returns if the file is closed, or was closed just now.
    pub(crate) fn contend(
        &mut self,
        caller: &Caller,
        holder: &str,
        renewed: Option<Millis>,
        walk: &Walk<'_>,
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
            return match self.release(walk.clone(), &internal)? {
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
        let walk = self.resolve(caller, path, Aim::Write, "recoverLease")?;
        let asked = Check { access: WRITE, ..Check::default() };
        check(&self.tables, &self.state.rules, caller, &walk, asked)?;
        if file_of(&walk)?.open.is_none() {
            return Ok(Outcome::Bool(true));
        }
        Ok(Outcome::Bool(self.release(walk, holder)?))
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
        let internal = self.internal_holder(holder);
        match closable {
            Closable::Complete { last } => {
                let last = last.filter(|last| self.commits(&walk, *last).unwrap_or(false));
                if let Some(last) = last {
                    open_mut(&mut walk).recovery = None;
                    self.commit_last(&mut walk, Some(last))?;
                }
            }
            Closable::DropLast => {
                if self.last_is_open(&walk)? {
                    self.drop_last(&mut walk)?;
                }
            }
            Closable::NotYet => {}
        }
        Ok(Outcome::Bool(self.release(walk, &internal)?))
    }

    /// `internalReleaseLease`: closes the file if its last block is committed, or has nothing; else the
    /// lease goes to `holder` and the last block's recovery begins. Says whether it is closed.
    fn release(&mut self, mut walk: Walk<'_>, holder: &str) -> Result<bool, TableError> {
        if self.last_is_open(&walk)? {
            let open = open_mut(&mut walk);
            if !(open.targets.is_empty() && open.open_length == 0) {
                self.begin_recovery(&mut walk, holder)?;
                return Ok(false);
            }
            self.drop_last(&mut walk)?;
        }
        self.close(&mut walk)?;
        Ok(true)
    }

    /// The place for block recovery (the next issue): its stamp is given out here, and a BlockEffect
    /// would order it. Until then the leader's `ExpireLease` closes the file once its replicas agree.
    fn begin_recovery(&mut self, walk: &mut Walk<'_>, holder: &str) -> Result<(), TableError> {
        let file = walk.nodes[walk.depth].id;
        let recovery = match open_mut(walk).recovery {
            Some(running) => running,
            None => self.next_stamp(),
        };
        let open = open_mut(walk);
        let old = std::mem::replace(&mut open.holder, holder.to_owned());
        open.recovery = Some(recovery);
        if old != holder {
            self.drop_lease(file, &old)?;
            self.take_lease(holder);
        }
        self.save(walk, walk.depth)
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
