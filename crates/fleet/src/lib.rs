//! The fleet: which DataNodes live, where replicas are, where new ones go and how lost ones are
//! restored (DESIGN D4, D5, D15). Pure logic in virtual time: events and `now` in, orders out.
//! Knows no socket, clock, disk or thread, and draws no entropy but from its seed.

pub mod event;
pub mod order;
pub mod table;

pub use event::{FleetConfig, Heartbeat, ReceivedDeleted, Registration, ReplicaNews};
pub use order::Order;
pub use table::{BlockTable, TableBlock};
