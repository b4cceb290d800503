//! The NameNode: joins the Raft log, the namespace and the fleet, and serves Hadoop's
//! ClientProtocol and DatanodeProtocol over one port (DESIGN D2 to D5, D8, D10 to D16).
//!
//! A walk reader begins in `client_rpc`: one function per RPC. It asks [`service`], the one
//! authoriser, which reads from the published view or writes through the `batcher`.
//!
//! Invariants: a command is answered after its entry was synced, applied and published; nobody but
//! the machine's thread changes tables; nobody holds a lock across an await.

pub mod config;
pub mod error;
pub mod namenode;
pub mod service;

pub use config::{Defaults, GroupMapping, NamenodeConfig};
pub use error::NamenodeError;
pub use namenode::NameNode;
pub use service::Service;
