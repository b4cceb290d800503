//! openraft behind our own face, and the log (DESIGN D3). One voter by default: the same path, the
//! same promises, as with three or five.
//!
//! Invariants: an outcome is handed out only after its command was synced by a majority and applied
//! (DESIGN D13); a failed write or sync of the log, and a failing machine, are final; nothing outside
//! this crate sees openraft.
//!
//! It must never know what a command means.

mod apply;
mod face;
mod log;
mod node;
mod peers;
mod types;

pub use face::*;
pub use node::Raft;
