//! Why the client failed.

use mobula_rpc::CallError;
use mobula_wire::remote::RemoteException;

/// A failure, with who is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The NameNode said no.
    #[error(transparent)]
    Remote(#[from] RemoteException),
    /// The NameNode could not be reached, or was lost.
    #[error("{0}")]
    NameNode(CallError),
    /// No DataNode could serve or take a block.
    #[error("{0}")]
    DataNodes(String),
    /// Blocks of that size would not have whole chunks; both in bytes.
    #[error("Invalid values: dfs.bytes-per-checksum (={chunk}) must divide block size (={block_size}).")]
    BlockSize {
        /// What one checksum covers.
        chunk: u32,
        /// What was asked for.
        block_size: u64,
    },
    /// An argument of ours makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl From<CallError> for ClientError {
    fn from(error: CallError) -> ClientError {
        match error {
            CallError::Remote(remote) => ClientError::Remote(remote),
            other => ClientError::NameNode(other),
        }
    }
}

impl ClientError {
    /// Java's class name of a remote exception; `None` for all else.
    pub fn class(&self) -> Option<&str> {
        match self {
            ClientError::Remote(remote) => Some(&remote.class),
            _ => None,
        }
    }
}
