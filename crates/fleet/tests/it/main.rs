//! The fleet among pretended DataNodes.
#![allow(clippy::unwrap_used, missing_docs)]

mod inspect;
mod oracle;
mod reports;
mod scenario;
mod week;
mod world;
mod writing;
