//! The messages of Hadoop's protocols, generated from `proto/`. Nothing else lives here, so that
//! this costly crate is compiled once.
//!
//! prost does not enforce `required`: a missing field reads as its default, so handlers check.

#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

pub use hadoop::{common, fs, hdfs};
