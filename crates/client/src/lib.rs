//! Our own client of HDFS's protocols, thin over `mobula-wire` and `mobula-rpc`: it works against
//! Mobula and Apache HDFS alike. Streams with a window of packets on the way in, verifies checksums
//! and moves on to another replica on the way out.

mod checksum;
pub mod client;
pub mod error;
mod lease;
mod link;
pub mod namenode;
mod pipeline;
pub mod reader;
mod stream;
mod visible;
pub mod writer;

pub use client::{ChecksumKind, Client, ClientOptions, CreateOptions};
pub use error::ClientError;
pub use namenode::{NameNodeProxy, RetryPolicy};
pub use reader::FileReader;
pub use writer::FileWriter;
