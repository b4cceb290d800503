//! The namespace: a deterministic state machine over tables in an embedded copy-on-write B-tree
//! (DESIGN D2). [`Namespace::apply_all`] is the only way to change it; reads go to a published [`View`].
//!
//! Knows no clock, entropy, socket, file or thread: time and choices come in with the command, the
//! storage under the tables as a [`redb::StorageBackend`].

mod append;
mod apply;
mod attribute;
mod block;
pub mod command;
mod concat;
mod directories;
pub mod error;
mod guard;
mod holders;
pub mod lease;
mod names;
pub mod namespace;
pub mod outcome;
#[cfg(test)]
mod page;
mod permission;
mod pipeline;
mod reap;
mod record;
mod recovery;
mod resolve;
pub mod retry;
mod snapshot;
mod state;
pub mod table;
mod tree;
mod truncate;
pub mod view;

pub use command::{
    AddBlock, Append, Batch, Caller, Closable, Command, CommitBlockSynchronization, Create, Format, Guards,
    LastBlock, Operation, Overwrite, Parents, RetryKey, Rules, Truncate, UpdatePipeline,
};
pub use error::{Contended, Denied, Described, ErrorKind, LeaseSubject, NamespaceError};
pub use namespace::{Counts, Entry, LogPosition, Namespace};
pub use outcome::{
    Allocated, Appended, Applied, BlockEffect, BlockRecord, BlockState, ContentSummary, FileBlock,
    FileBlocks, FileKind, FileStatus, Listing, OpenFile, Outcome, Recovery, RunningRecovery,
};
pub use table::TableError;
pub use view::{Access, BlockPlan, LastBlocks, View};
