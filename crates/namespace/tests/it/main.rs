//! The namespace from outside: scenarios as text, a naive model over random commands, crashes, snapshots,
//! large directories.
#![allow(clippy::unwrap_used, missing_docs)]

mod crash;
mod fixture;
mod large;
mod model;
mod random;
mod scenario;
