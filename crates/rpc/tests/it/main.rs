//! Server and client over real sockets, and clients that do what none should.
#![allow(clippy::unwrap_used)]

mod bounds;
mod calls;
mod fixture;
mod refusals;
