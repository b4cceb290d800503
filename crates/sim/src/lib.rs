//! A whole cluster in one thread, from one seed: a NameNode, three DataNodes and clients on a
//! network that is cut, clocks that jump and disks that lose what was not synced (DESIGN D7, 3b).
//!
//! A run has a phase of faults, then one in which everything must become whole; then the power
//! fails everywhere at once, and all must be there again. Whatever was acknowledged is looked for;
//! equal log positions must have equal namespaces, by hash; each seed leaves the same trace.

mod ledger;
mod panics;
mod plan;
mod shadow;
mod shared;
mod tasks;
mod trace;
mod watcher;
mod workload;
mod world;

pub use ledger::Ledger;
pub use plan::{Fault, Node, Plan};
pub use trace::{Keep, Trace};
pub use world::{Failure, Report, compare, run, run_plan};
