//! The product as its users meet it: real processes, real sockets, real disks, and clients that
//! nobody here wrote.

#![allow(clippy::unwrap_used)]

mod attack;
mod cli;
mod copies;
mod corners;
mod fsck;
mod kills;
mod links;
mod local;
mod native;
mod packed;
mod servers;
mod verbs;
mod webhdfs;
