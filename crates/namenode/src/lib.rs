//! The NameNode: joins the Raft log, the namespace and the fleet, and serves Hadoop's
//! ClientProtocol and DatanodeProtocol over one port (DESIGN D2 to D5, D8, D10 to D16).
//!
//! A walk reader begins in [`client_rpc`]: one function per RPC. It asks [`service`], the one
//! authoriser, which reads from the published view or writes through the [`batcher`].
//!
//! Invariants: a command is answered after its entry was synced, applied and published; nobody but
//! the machine's thread changes tables; nobody holds a lock across an await.

mod access_times;
mod admin_rpc;
mod asker;
pub mod batcher;
mod client_admin;
mod client_block;
mod client_empty;
mod client_listing;
mod client_reopen;
pub mod client_rpc;
pub mod config;
mod connections;
mod datanode_rpc;
pub mod error;
pub mod exceptions;
mod format;
mod front;
pub mod fsck;
mod groups;
mod healer;
pub mod impersonation;
mod leases;
mod located;
mod machine;
pub mod namenode;
mod recovering;
mod reopening;
mod requests;
mod room;
mod roster;
mod safe_mode;
pub mod service;
mod status_proto;
mod writing;

pub use asker::Asker;
pub use config::{Defaults, GroupDirectory, GroupMapping, NamenodeConfig};
pub use error::NamenodeError;
pub use exceptions::Refusal;
pub use fsck::{Fsck, FsckRequest};
pub use machine::Observer;
pub use namenode::NameNode;
pub use service::{Service, SumOf};
