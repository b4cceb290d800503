//! What the program does, one file for each of its servers and shows.

pub mod datanode;
pub mod demo;
pub mod local;
pub mod namenode;
pub mod status;
