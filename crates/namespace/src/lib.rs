//! The namespace: a deterministic state machine over tables in an embedded copy-on-write B-tree
//! (DESIGN D2). [`Namespace::apply_all`] is the only way to change it; reads go to a published [`View`].
//!
//! Knows no clock, entropy, socket, file or thread: time and choices come in with the command, the
//! storage under the tables as a [`redb::StorageBackend`].

pub mod command;
pub mod error;
pub mod namespace;
pub mod outcome;
pub mod table;
pub mod view;

pub use command::{
    AddBlock, Batch, Caller, Closable, Command, Create, Format, Operation, Overwrite, Parents, RetryKey,
    Rules,
};
pub use error::{ErrorKind, NamespaceError};
pub use namespace::{Counts, Entry, LogPosition, Namespace};
pub use outcome::{
    Allocated, Applied, BlockEffect, BlockRecord, BlockState, ContentSummary, FileBlock, FileBlocks,
    FileKind, FileStatus, Listing, OpenFile, Outcome,
};
pub use table::TableError;
pub use view::{Access, BlockPlan, View};
