//! Reading a file.

use bytes::Bytes;

use crate::error::ClientError;

/// An open file to read from; many reads at once are fine.
#[derive(Debug)]
pub struct FileReader {
    _private: (),
}

impl FileReader {
    /// Its length in bytes, the visible part of an open last block included.
    pub fn length(&self) -> u64 {
        unimplemented!()
    }

    /// Reads `length` bytes at `offset`, fewer at the end of the file.
    ///
    /// # Errors
    /// No replica of a block could be read.
    pub async fn read_at(&self, _offset: u64, _length: usize) -> Result<Bytes, ClientError> {
        unimplemented!()
    }

    /// The next piece from the stream's position, in whatever size arrives; `None` at the end. The
    /// stream keeps its connection and reads ahead.
    ///
    /// # Errors
    /// No replica of a block could be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        unimplemented!()
    }

    /// Moves the stream's position.
    pub fn seek(&mut self, _offset: u64) {
        unimplemented!()
    }
}
