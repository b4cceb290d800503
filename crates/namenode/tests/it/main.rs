//! The NameNode from outside: RPCs over loopback, DataNodes played by the tests, disks that crash.
#![allow(clippy::unwrap_used)]

mod admin;
mod crash;
mod empty;
mod fixture;
mod impersonation;
mod limits;
mod names;
mod nodes;
mod random;
mod recovery;
mod reopening;
mod room;
mod writing;
