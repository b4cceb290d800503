//! Safe mode as an administrator switches it (D11: there is none that users feel at start). Soft
//! state, as in HDFS: a restart ends it.

use std::sync::atomic::{AtomicBool, Ordering};

use mobula_namespace::Operation;

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

    /// Refuses while it is on. `action` finishes HDFS's "Cannot ...".
    ///
    /// # Errors
    /// [`Refusal::SafeMode`].
    pub fn check(&self, action: impl FnOnce() -> String) -> Result<(), Refusal> {
        if !self.is_on() {
            return Ok(());
        }
        Err(Refusal::SafeMode { action: action(), host: self.host.clone() })
    }
}

/// What HDFS calls an operation in the exception.
pub fn action(operation: &Operation) -> String {
    match operation {
        Operation::Mkdirs { path, .. } => format!("create directory {path}"),
        Operation::Create(create) => format!("create file {}", create.path),
        Operation::AddBlock(add) => format!("add block to {}", add.path),
        Operation::AbandonBlock { path, block, .. } => format!("abandon block {block} for file {path}"),
        Operation::Complete { path, .. } => format!("complete file {path}"),
        Operation::Fsync { path, .. } => format!("fsync file {path}"),
        Operation::Append(append) => format!("append to file {}", append.path),
        Operation::Truncate(truncate) => format!("truncate for {}", truncate.path),
        Operation::Concat { target, .. } => format!("concat {target}"),
        Operation::UpdateBlockForPipeline { block, .. } => {
            format!("get a new generation stamp and an access token for block {block}")
        }
        Operation::UpdatePipeline(_) => "update pipeline".into(),
        Operation::RecoverLease { path, .. } => format!("recover the lease of {path}"),
        Operation::Rename { source, .. } | Operation::Rename2 { source, .. } => format!("rename {source}"),
        Operation::Delete { path, .. } => format!("delete {path}"),
        Operation::SetReplication { path, .. } => format!("set replication for {path}"),
        Operation::SetPermission { path, .. } => format!("set permission for {path}"),
        Operation::SetOwner { path, .. } => format!("set owner for {path}"),
        Operation::SetTimes { path, .. } => format!("set times {path}"),
        Operation::Format(_)
        | Operation::Configure(_)
        | Operation::ExpireLease { .. }
        | Operation::CommitBlockSynchronization(_)
        | Operation::RetryRecovery { .. }
        | Operation::Touch { .. }
        | Operation::Reap { .. } => "change the namespace".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_hdfs_says() {
        let safe_mode = SafeMode::new("nn1".into());
        assert_eq!(safe_mode.check(|| "create directory /a".into()), Ok(()));
        assert!(safe_mode.set(true));
        assert!(!safe_mode.set(true));
        let error = safe_mode.check(|| "create directory /a".into()).expect_err("it is on");
        assert_eq!(
            error.to_string(),
            "Cannot create directory /a. Name node is in safe mode.\nIt was turned on manually. Use \"hdfs \
             dfsadmin -safemode leave\" to turn safe mode off. NamenodeHostName:nn1"
        );
    }
}
