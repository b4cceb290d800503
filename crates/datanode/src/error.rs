//! Why a DataNode cannot start, and why one stopped by itself.

use std::io;
use std::path::PathBuf;

/// Why a DataNode cannot start. Each variant names whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum DatanodeError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// A folder belongs to something else.
    #[error("{}: {reason}", folder.display())]
    Folder {
        /// The volume's folder.
        folder: PathBuf,
        /// What is in it instead.
        reason: String,
    },
    /// A living process has the folder.
    #[error("{}: in use by another process: {source}", folder.display())]
    Locked {
        /// The volume's folder.
        folder: PathBuf,
        /// What the lock says.
        source: io::Error,
    },
    /// The disk failed.
    #[error("{}: {source}", folder.display())]
    Disk {
        /// The volume's folder.
        folder: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A port cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(#[source] io::Error),
}

/// Why a DataNode stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Its volumes failed: more of them than are tolerated.
    #[error("{failed} of {all} volumes failed")]
    VolumesFailed {
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
    },
    /// The NameNode does not want it, or is another cluster's.
    #[error("{namenode}: {reason}")]
    Refused {
        /// The NameNode's address.
        namenode: String,
        /// Its words.
        reason: String,
    },
    /// An administrator asked for it (`shutdownDatanode`).
    #[error("an administrator asked for it")]
    Asked,
}
