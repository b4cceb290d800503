//! The log and consensus, over the disk that crashes and over real files.
#![allow(clippy::unwrap_used)]

mod crash;
mod fixture;
mod one;
mod random;
mod three;
mod versions;
