//! The namespace from outside: scenarios as text, a naive model over random commands, crashes, snapshots,
//! large directories.
// The environment says which seed to replay.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod answers;
mod crash;
mod fixture;
mod images;
mod large;
mod model;
mod random;
mod retries;
mod scenario;
mod writers;
