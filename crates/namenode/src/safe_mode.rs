//! Safe mode as an administrator switches it, and as too little room on the disk does (D11: there is none that users
//! feel at start). Soft state, as in HDFS: a restart ends it, and comes back to it if the room is still short.

use std::sync::atomic::{AtomicU8, Ordering};

use mobula_namespace::Operation;
use mobula_proto::hdfs;
use mobula_types::PoolId;
use parking_lot::Mutex;
use prost::Message;

use crate::exceptions::Refusal;

/// Why nothing may be changed, if so. One at a time, as in HDFS: whichever came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// Changes are welcome.
    Off,
    /// An administrator switched it on.
    Manual,
    /// The log's disk has less room than is kept free. Over when it has some to spare, or when an administrator says so.
    ResourcesLow,
}

impl Safe {
    /// HDFS's advice (`FSNamesystem.getSafeModeTip`).
    fn tip(self) -> &'static str {
        match self {
            Safe::Off => "Safe mode is OFF.",
            Safe::Manual => {
                "It was turned on manually. Use \"hdfs dfsadmin -safemode leave\" to turn safe mode off."
            }
            Safe::ResourcesLow => {
                "Resources are low on NN. Please add or free up more resources. NOTE:  If you turn off safe mode \
                 before adding resources, the NN will immediately return to safe mode. "
            }
        }
    }
}

/// The switch.
#[derive(Debug)]
pub struct SafeMode {
    state: AtomicU8,
    /// Held by who switches it.
    switching: Mutex<()>,
    host: String,
}

impl SafeMode {
    /// Off. `host` is named in the exceptions.
    pub fn new(host: String) -> SafeMode {
        SafeMode { state: AtomicU8::new(Safe::Off as u8), switching: Mutex::new(()), host }
    }

    /// Why it is on, if it is.
    pub fn state(&self) -> Safe {
        of_number(self.state.load(Ordering::Acquire))
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.state() != Safe::Off
    }

    /// Switches it, one who does so after the other: `decide` hears how it is, says how it is to be, and does what belongs
    /// to that. Its other answer is handed on.
    pub fn switch<T>(&self, decide: impl FnOnce(Safe) -> (Safe, T)) -> T {
        let _one = self.switching.lock();
        let (state, answer) = decide(self.state());
        self.state.store(state as u8, Ordering::Release);
        answer
    }

    /// Refuses while it is on. `words` are HDFS's.
    ///
    /// # Errors
    /// [`Refusal::SafeMode`].
    pub fn check(&self, words: impl FnOnce() -> String) -> Result<(), Refusal> {
        match self.state() {
            Safe::Off => Ok(()),
            state => Err(self.refusal(state, words())),
        }
    }

    /// The refusal for what could not be done for want of room.
    pub fn low(&self, words: String) -> Refusal {
        self.refusal(Safe::ResourcesLow, words)
    }

    fn refusal(&self, state: Safe, refused: String) -> Refusal {
        Refusal::SafeMode { refused, tip: state.tip(), host: self.host.clone() }
    }
}

fn of_number(number: u8) -> Safe {
    let states = [Safe::Off, Safe::Manual, Safe::ResourcesLow];
    states.into_iter().find(|state| *state as u8 == number).expect("only states are stored")
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
        Operation::SetAcl { path, .. } => format!("Cannot set ACL on {path}"),
        Operation::SetOwner { path, .. } => format!("Cannot set owner for {path}"),
        Operation::SetTimes { path, .. } => format!("Cannot set times {path}"),
        Operation::Format(_)
        | Operation::Configure(_)
        | Operation::Guard(_)
        | Operation::ExpireLease { .. }
        | Operation::CommitBlockSynchronization(_)
        | Operation::RetryRecovery { .. }
        | Operation::Touch { .. }
        | Operation::Reap { .. } => "Cannot change the namespace".into(),
    }
}

/// What HDFS says, in safe mode and before anything else, of a call that would change something which is not there yet:
/// an ACL, a snapshot, a quota. None for other calls.
pub fn words_of_absent(method: &[u8], body: &[u8]) -> Option<String> {
    // Their first field is a string: which the call is about.
    let what = || hdfs::GetFileInfoRequestProto::decode(body).map(|first| first.src).unwrap_or_default();
    let pool = || hdfs::AddCachePoolRequestProto::decode(body).ok().and_then(|it| it.info.pool_name);
    let pool = || pool().unwrap_or_else(|| "null".into());
    Some(match method {
        b"modifyAclEntries" => format!("Cannot modify ACL entries on {}", what()),
        b"removeAclEntries" => format!("Cannot remove ACL entries on {}", what()),
        b"removeDefaultAcl" => format!("Cannot remove default ACL entries on {}", what()),
        b"removeAcl" => format!("Cannot remove ACL on {}", what()),
        b"setAcl" => format!("Cannot set ACL on {}", what()),
        b"setXAttr" => format!("Cannot set XAttr on {}", what()),
        b"removeXAttr" => format!("Cannot remove XAttr entry on {}", what()),
        b"allowSnapshot" => format!("Cannot allow snapshot for {}", what()),
        b"disallowSnapshot" => format!("Cannot disallow snapshot for {}", what()),
        b"createSnapshot" => format!("Cannot create snapshot for {}", what()),
        b"renameSnapshot" => format!("Cannot rename snapshot for {}", what()),
        b"deleteSnapshot" => format!("Cannot delete snapshot for {}", what()),
        b"setQuota" => format!("Cannot set quota on {}", what()),
        b"addCacheDirective" | b"modifyCacheDirective" => "Cannot add cache directive".into(),
        b"removeCacheDirective" => "Cannot remove cache directives".into(),
        b"addCachePool" => format!("Cannot add cache pool{}", pool()),
        b"modifyCachePool" => format!("Cannot modify cache pool{}", pool()),
        b"removeCachePool" => format!("Cannot modify cache pool{}", what()),
        b"setErasureCodingPolicy" => format!("Cannot set erasure coding policy on {}", what()),
        b"unsetErasureCodingPolicy" => format!("Cannot unset erasure coding policy on {}", what()),
        b"addErasureCodingPolicies" => "Cannot add erasure coding policy".into(),
        b"removeErasureCodingPolicy" => format!("Cannot remove erasure coding policy {}", what()),
        b"enableErasureCodingPolicy" => format!("Cannot enable erasure coding policy {}", what()),
        b"disableErasureCodingPolicy" => format!("Cannot disable erasure coding policy {}", what()),
        b"getDelegationToken" => "Cannot issue delegation token".into(),
        b"renewDelegationToken" => "Cannot renew delegation token".into(),
        b"cancelDelegationToken" => "Cannot cancel delegation token".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_hdfs_says() {
        let safe_mode = SafeMode::new("nn1".into());
        let message = || {
            let refused = safe_mode.check(|| "Cannot create directory /a".into());
            refused.map_err(|refusal| refusal.to_string())
        };
        assert_eq!(message(), Ok(()));
        assert_eq!(safe_mode.switch(|before| (Safe::Manual, before)), Safe::Off);
        let words = "Cannot create directory /a. Name node is in safe mode.\nIt was turned on manually. Use \"hdfs \
                     dfsadmin -safemode leave\" to turn safe mode off. NamenodeHostName:nn1";
        assert_eq!(message(), Err(words.into()));
        assert_eq!(safe_mode.switch(|before| (Safe::ResourcesLow, before)), Safe::Manual);
        let words = "Cannot create directory /a. Name node is in safe mode.\nResources are low on NN. Please add or \
                     free up more resources. NOTE:  If you turn off safe mode before adding resources, the NN will \
                     immediately return to safe mode.  NamenodeHostName:nn1";
        assert_eq!(message(), Err(words.into()));
        assert_eq!(safe_mode.low("Cannot create directory /a".into()).to_string(), words);
    }
}
