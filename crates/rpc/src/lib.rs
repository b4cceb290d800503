//! Hadoop RPC over sockets: a server that hands calls to a [`RpcService`], and a client. The bytes
//! are `mobula-wire`'s; here are connections, limits and time.
//!
//! Invariants: one task owns each socket, reads and writes it; others only append to its outbox, whose lock is
//! held for the copy alone. What a peer sends or does not read costs memory up to a named bound and no more.

mod budget;
mod client;
mod connection;
mod outbox;
mod server;
mod socket;

pub use client::{CallError, CallOptions, RpcClient, RpcClientOptions};
pub use outbox::Responder;
pub use server::{Call, RpcServer, RpcServerOptions, RpcService, Verdict, may_not_impersonate};
