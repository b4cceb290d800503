//! A whole cluster in one thread, from one seed: a NameNode, three to five DataNodes and clients on
//! a network that is cut, clocks that jump and disks that lose what was not synced (DESIGN D7, 3b).
//!
//! A run has a phase of faults, in which writers create, append, flush, die and come back while readers
//! follow them; then one in which everything must become whole and closed; then the power fails
//! everywhere at once, and all must be there again. The [`oracle`] knows what was acknowledged, per file
//! and byte; equal log positions must have equal namespaces, by hash; each seed leaves the same trace.

mod content;
mod messages;
mod mishap;
pub mod oracle;
mod pairs;
mod panics;
mod plan;
mod reader;
mod shadow;
mod shared;
mod small;
mod tasks;
mod trace;
mod watcher;
mod workload;
mod world;
mod writer;

pub use messages::Message;
pub use pairs::{Piece, pairs};
pub use plan::{Fault, Node, Plan};
pub use trace::{Keep, Trace};
pub use world::{Failure, Report, compare, run, run_piece, run_plan};
