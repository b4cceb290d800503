//! Bytes to messages and back: Hadoop RPC 9 and DataTransferProtocol 28. No sockets, no clock: bytes
//! in, messages out. Bytes from outside never panic and never allocate what has not arrived.

pub mod remote;
