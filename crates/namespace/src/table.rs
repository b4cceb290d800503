//! The tables: their names, their errors.

use std::fmt;

/// The tables cannot be read or written, or hold what they must not. Never the caller's fault: whoever
/// meets one stops serving.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The storage below failed.
    #[error("namespace tables: {0}")]
    Storage(String),
    /// A record that no version of this program wrote, or that a newer one did.
    #[error("namespace tables: {table}: {detail}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// What was found.
        detail: String,
    },
    /// A snapshot that was cut or changed, or is of another format.
    #[error("namespace snapshot: {0}")]
    Snapshot(String),
}

impl TableError {
    pub(crate) fn storage(error: impl fmt::Display) -> TableError {
        TableError::Storage(error.to_string())
    }
}
