//! Writing a file.

use bytes::Bytes;

use crate::error::ClientError;

/// A file being written. Dropped without `close`, it stays open on the server until its lease ends.
#[derive(Debug)]
pub struct FileWriter {
    _private: (),
}

impl FileWriter {
    /// Takes `data`, without a copy where it can; waits while the window of packets is full.
    ///
    /// # Errors
    /// The NameNode's exceptions, or no DataNode left that takes the block.
    pub async fn write(&mut self, _data: Bytes) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// Waits until all that was written is visible to new readers.
    ///
    /// # Errors
    /// As `write`.
    pub async fn hflush(&mut self) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// Waits until all that was written survives power loss.
    ///
    /// # Errors
    /// As `write`.
    pub async fn hsync(&mut self) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// Completes the file; when this returns it is durable.
    ///
    /// # Errors
    /// As `write`.
    pub async fn close(self) -> Result<(), ClientError> {
        unimplemented!()
    }
}
