//! The log and consensus, over the disk that crashes and over real files.
#![allow(clippy::unwrap_used)]

mod fixture;
mod one;
