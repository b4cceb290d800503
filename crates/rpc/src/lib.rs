//! Hadoop RPC over sockets: a server that hands calls to a [`RpcService`], and a client. The bytes
//! are `mobula-wire`'s; here are connections, limits and time.

mod client;
mod server;

pub use client::{CallError, CallOptions, RpcClient, RpcClientOptions};
pub use server::{Call, Responder, RpcServer, RpcServerOptions, RpcService};
