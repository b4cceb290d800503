//! Bytes to messages and back: Hadoop RPC 9 and DataTransferProtocol 28. No sockets, no clock: bytes
//! in, messages out. Bytes from outside never panic and never allocate what has not arrived.
//!
//! Every decoder is fed with what has arrived so far and answers one of three things: a message, "not
//! yet" (`Ok(None)`), or an error after which the connection is of no use.

pub mod ack;
pub mod block_report;
pub mod checksum;
pub mod convert;
pub mod datatransfer;
mod error;
pub mod extension;
mod fields;
pub mod meta;
pub mod packet;
pub mod remote;
pub mod rpc;
pub mod varint;

pub use error::WireError;
pub use fields::count_fields;
pub use varint::{decode_delimited, encode_delimited, take_delimited, try_decode_delimited};
