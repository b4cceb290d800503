//! The DataNode: receives, stores, sends and reports replicas of blocks. It speaks HDFS's
//! DataTransferProtocol to clients and other DataNodes, DatanodeProtocol to NameNodes, and keeps
//! its volumes in HDFS's own layout (DESIGN D6).
//!
//! Invariants: an acknowledged byte was handed to the operating system before the acknowledgement
//! left; a block whose last packet was acknowledged is synced, data, sums and names; bytes whose
//! checksum does not match are neither stored nor served.
//!
//! It knows blocks, never files: paths and owners are the NameNode's.

mod batch;
mod block_recovery;
mod checksum_op;
mod claim;
mod config;
mod create;
mod datanode;
mod direct;
mod error;
mod files;
mod framed;
mod incoming;
mod ipc;
mod journal;
mod load;
mod mirrors;
mod namenode_link;
mod node;
mod pipeline;
mod receive;
mod recovery;
mod reopen;
mod replica;
mod reports;
mod respond;
mod restart;
mod send;
mod source;
mod stir;
mod store;
mod syncer;
mod transfer;
mod verdict;
mod version;
mod volume;
mod xceiver;

pub use config::{DatanodeConfig, VolumeConfig};
pub use datanode::DataNode;
pub use error::{DatanodeError, Stopped};
