//! Our own client of HDFS's protocols, thin over `mobula-wire` and `mobula-rpc`: it works against
//! Mobula and Apache HDFS alike. Streams with a window of packets on the way in, verifies checksums
//! and moves on to another replica on the way out.

mod acks;
mod checksum;
pub mod client;
pub mod error;
mod lease;
mod link;
pub mod namenode;
mod packet;
mod pipeline;
mod probe;
pub mod reader;
mod recovery;
mod stream;
mod visible;
pub mod writer;

pub use client::{AppendOptions, ChecksumKind, Client, ClientOptions, CreateOptions, NewBlock};
pub use error::ClientError;
pub use namenode::{NameNodeProxy, RetryPolicy};
pub use reader::FileReader;
pub use recovery::{ReplaceDatanode, ReplacePolicy};
pub use writer::{FileWriter, SyncOptions};
