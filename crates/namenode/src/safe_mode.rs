//! Safe mode as an administrator switches it (D11: there is none that users feel at start). Soft
//! state, as in HDFS: a restart ends it.

use std::sync::atomic::{AtomicBool, Ordering};

use mobula_namespace::Operation;
use mobula_types::PoolId;

use crate::exceptions::Refusal;

/// The switch.
#[derive(Debug, Default)]
pub struct SafeMode {
    on: AtomicBool,
    host: String,
}

impl SafeMode {
    /// Off. `host` is named in the exceptions.
    pub fn new(host: String) -> SafeMode {
        SafeMode { on: AtomicBool::new(false), host }
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Switches it; true if that changed anything.
    pub fn set(&self, on: bool) -> bool {
        self.on.swap(on, Ordering::AcqRel) != on
    }

    /// Refuses while it is on. `words` are HDFS's.
    ///
    /// # Errors
    /// [`Refusal::SafeMode`].
    pub fn check(&self, words: impl FnOnce() -> String) -> Result<(), Refusal> {
        if !self.is_on() {
            return Ok(());
        }
        Err(Refusal::SafeMode { refused: words(), host: self.host.clone() })
    }
}

/// What HDFS says of an operation in the exception, and its missing blanks. It names blocks with their pool.
pub fn words(operation: &Operation, pool: &PoolId) -> String {
    match operation {
        Operation::Mkdirs { path, .. } => format!("Cannot create directory {path}"),
        Operation::Create(create) | Operation::CreateWith { create, .. } => {
            format!("Cannot create file{}", create.path)
        }
        Operation::AddBlock(add) => format!("Cannot add block to {}", add.path),
        Operation::AbandonBlock { path, block, .. } => {
            format!("Cannot abandon block {pool}:{block} for file{path}")
        }
        Operation::Complete { path, .. } | Operation::CompleteAs { path, .. } => {
            format!("Cannot complete file {path}")
        }
        Operation::Fsync { path, .. } => format!("Cannot fsync file {path}"),
        Operation::Append(append) => format!("Cannot append to file{}", append.path),
        Operation::Truncate(truncate) => format!("Cannot truncate for {}", truncate.path),
        Operation::Concat { target, .. } => format!("Cannot concat {target}"),
        Operation::UpdateBlockForPipeline { block, .. } => {
            format!("Cannot get a new generation stamp and an access token for block {pool}:{block}")
        }
        Operation::UpdatePipeline(_) => "Pipeline not updated".into(),
        Operation::RecoverLease { path, .. } => format!("Cannot recover the lease of {path}"),
        Operation::Rename { source, .. } | Operation::Rename2 { source, .. } => {
            format!("Cannot rename {source}")
        }
        Operation::Delete { path, .. } => format!("Cannot delete {path}"),
        Operation::SetReplication { path, .. } => format!("Cannot set replication for {path}"),
        Operation::SetPermission { path, .. } => format!("Cannot set permission for {path}"),
        Operation::SetOwner { path, .. } => format!("Cannot set owner for {path}"),
        Operation::SetTimes { path, .. } => format!("Cannot set times {path}"),
        Operation::Format(_)
        | Operation::Configure(_)
        | Operation::ExpireLease { .. }
        | Operation::CommitBlockSynchronization(_)
        | Operation::RetryRecovery { .. }
        | Operation::Touch { .. }
        | Operation::Reap { .. } => "Cannot change the namespace".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_hdfs_says() {
        let safe_mode = SafeMode::new("nn1".into());
        assert_eq!(safe_mode.check(|| "Cannot create directory /a".into()), Ok(()));
        assert!(safe_mode.set(true));
        assert!(!safe_mode.set(true));
        let error = safe_mode.check(|| "Cannot create directory /a".into()).expect_err("it is on");
        assert_eq!(
            error.to_string(),
            "Cannot create directory /a. Name node is in safe mode.\nIt was turned on manually. Use \"hdfs \
             dfsadmin -safemode leave\" to turn safe mode off. NamenodeHostName:nn1"
        );
    }
}
