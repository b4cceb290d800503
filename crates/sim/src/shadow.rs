//! A second machine, which applies what the NameNode's applies and never crashes: equal log
//! positions must hold equal entries and have equal namespaces, by hash (DESIGN D2).

use mobula_namespace::{Entry, LogPosition, Namespace, View};
use redb::backends::InMemoryBackend;

use crate::trace::fnv;

/// Pages that the second machine keeps, in bytes.
const CACHE_BYTES: usize = 4 << 20;
/// The namespaces are compared after every so many new entries, and whenever a replay ends.
const COMPARE_EVERY: u64 = 200;

/// What a call says that the plan let fail (`mobula_disk::fake`).
const MADE_TO_FAIL: &str = "made to fail (simulated disk)";

/// The second machine.
#[derive(Debug)]
pub(crate) struct Shadow {
    namespace: Namespace,
    /// The entry with index `i` is at `i`: its position, and a hash of what it holds.
    entries: Vec<(LogPosition, u64)>,
    compared: u64,
    replaying: bool,
}

impl Shadow {
    pub(crate) fn new() -> Shadow {
        let namespace = Namespace::open(InMemoryBackend::new(), CACHE_BYTES).expect("memory does not fail");
        Shadow { namespace, entries: Vec::new(), compared: 0, replaying: false }
    }

    /// The NameNode starts again: what it replays is held against what was.
    pub(crate) fn restarted(&mut self) {
        self.replaying = true;
    }

    /// The NameNode applied entries and shows `view` now. Answers the position and hash of both
    /// namespaces if they were compared.
    pub(crate) fn applied(
        &mut self,
        entries: &[(LogPosition, Entry)],
        view: &View,
    ) -> Result<Option<(LogPosition, u64)>, String> {
        for (position, entry) in entries {
            self.one(*position, entry)?;
        }
        let end = self.entries.len() as u64;
        let at_end = view.applied().is_some_and(|at| at.index + 1 == end);
        if !at_end || !(self.replaying || end >= self.compared + COMPARE_EVERY) {
            return Ok(None);
        }
        match view.state_hash() {
            Ok(is) => self.hold_against(view, is).map(Some),
            // A disk that was made to fail has failed us, who look on. The NameNode's next call finds its tables closed
            // and stops; what it replays then is compared.
            Err(error) if error.to_string().contains(MADE_TO_FAIL) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Holds the namespaces against each other now, if the NameNode's is not behind.
    pub(crate) fn compare(&mut self, view: &View) -> Result<(LogPosition, u64), String> {
        let is = view.state_hash().map_err(|error| error.to_string())?;
        self.hold_against(view, is)
    }

    fn hold_against(&mut self, other: &View, is: u64) -> Result<(LogPosition, u64), String> {
        let own = self.namespace.view();
        let at = other.applied().unwrap_or_default();
        if own.applied() != other.applied() {
            return Err(format!("applied up to {at:?}; was {:?}", own.applied()));
        }
        let was = own.state_hash().map_err(|error| error.to_string())?;
        if was != is {
            return Err(format!("the namespace at {at:?} is {is:016x}; it must be {was:016x}"));
        }
        (self.compared, self.replaying) = (self.entries.len() as u64, false);
        Ok((at, is))
    }

    fn one(&mut self, position: LogPosition, entry: &Entry) -> Result<(), String> {
        let hash = fnv(format!("{entry:?}").as_bytes());
        let next = self.entries.len() as u64;
        match position.index.checked_sub(next) {
            None if self.entries[position.index as usize] == (position, hash) => Ok(()),
            None => {
                let (was, _) = self.entries[position.index as usize];
                Err(format!("the entry at {position:?} was applied at {was:?}, or was another one"))
            }
            Some(0) => {
                self.entries.push((position, hash));
                let applied = self.namespace.apply_all(&[(position, entry.clone())]);
                applied.map(drop).map_err(|error| error.to_string())
            }
            Some(_) => Err(format!("the entry at {position:?} comes where {next} is due")),
        }
    }
}
