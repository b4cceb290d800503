//! Everything behind the one binary, and the embedded [`Cluster`] for tests and demonstrations.

pub mod admin;
pub mod bench;
pub mod cluster;
pub mod command;
pub mod config;
pub mod fs;
pub mod http;
pub mod log_file;
pub mod process;
pub mod supervised;
pub mod webhdfs;

pub use cluster::{Cluster, ClusterOptions};
