//! Why a NameNode does not start, or stops. Variants name the blame.

use std::io;
use std::path::PathBuf;

/// A reason not to serve.
#[derive(Debug, thiserror::Error)]
pub enum NamenodeError {
    /// The folder holds something that is no NameNode's; it was not touched.
    #[error("{folder} holds {found} and is no NameNode's folder: give it an empty one, or its own", folder = .folder.display())]
    ForeignFolder {
        /// The folder.
        folder: PathBuf,
        /// The first name in it that does not belong there.
        found: String,
    },
    /// Written by a version of another layout.
    #[error("{file}: {reason}", file = .file.display())]
    BadVersion {
        /// The version file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process serves the folder.
    #[error("{folder} is in use: {reason}", folder = .folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who, as the lock file says.
        reason: String,
    },
    /// The disk under the folder.
    #[error("{doing} {path}: {source}", path = .path.display())]
    Disk {
        /// What was tried, as `writing`.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The address to listen on.
    #[error("cannot listen on {0}")]
    Listen(#[source] io::Error),
    /// The tables.
    #[error("the namespace's tables in {folder}: {reason}", folder = .folder.display())]
    Tables {
        /// Where they are.
        folder: PathBuf,
        /// What they say.
        reason: String,
    },
    /// The log, or the state machine over it: what was not synced is not acknowledged, and nothing
    /// will be from now on.
    #[error("the edit log stopped: {0}")]
    Log(String),
    /// A command of the NameNode's own was refused: a defect of ours.
    #[error("{command} was refused: {reason}")]
    Refused {
        /// Which.
        command: &'static str,
        /// By what words.
        reason: String,
    },
}
