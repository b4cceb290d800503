//! The fleet: which DataNodes live, where replicas are, where new ones go and how lost ones are
//! restored (DESIGN D4, D5, D15). Pure logic in virtual time: events and `now` in, orders out.
//! Knows no socket, clock, disk or thread, and draws no entropy but from its seed.

mod answers;
mod assess;
mod auto_healer;
mod copies;
pub mod event;
mod fleet;
mod inspect;
mod map;
mod needs;
pub mod notice;
mod open;
pub mod order;
mod placement;
mod recovery;
mod report;
mod roster;
mod set;
pub mod table;
mod trim;
pub mod view;
mod watch;

pub use event::{
    BlockChange, FleetConfig, Heartbeat, HeartbeatAnswer, NodeError, Placement, PlacementRequest,
    ReceivedDeleted, Recover, RegisterError, Registration, ReplicaNews, ReportError, Synchronization,
    Undecided,
};
pub use fleet::Fleet;
pub use inspect::{Defect, Replica};
pub use notice::Notice;
pub use order::Order;
pub use report::{ReportCursor, sort_report};
pub use roster::VOLUMES_MAX;
pub use table::{BlockTable, TableBlock};
pub use view::{
    FleetStats, Health, Location, Locations, NodeFilter, NodeInfo, NodeReport, NodeState, StartProgress,
    UnderReplicated, WhyUnder,
};
