//! Standard input, read without holding up the rest: leases are renewed while a pipe is silent.

use std::io::{ErrorKind, Read, Stdin};

use bytes::Bytes;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::failure::{Failure, Outcome};

/// More than any pipe holds, so that a shorter read means that the pipe is empty.
const PIECE: usize = 1 << 20;

/// Standard input as pieces.
pub struct Input {
    stdin: Stdin,
    /// Tells when there is something to read; `None` for files, which never make one wait.
    ready: Option<AsyncFd<Stdin>>,
}

impl Input {
    /// Standard input of this process.
    pub fn open() -> Input {
        // Deprecated because a descriptor may be closed under it; that of standard input never is.
        #[allow(deprecated)]
        let ready = AsyncFd::with_interest(std::io::stdin(), Interest::READABLE).ok();
        Input { stdin: std::io::stdin(), ready }
    }

    /// The next piece, `None` at the end.
    pub async fn next(&mut self) -> Outcome<Option<Bytes>> {
        let failed = |error: std::io::Error| Failure::other(format!("standard input: {error}"));
        let mut piece = vec![0; PIECE];
        loop {
            let guard = match &self.ready {
                Some(ready) => Some(ready.readable().await.map_err(failed)?),
                None => None,
            };
            match self.stdin.lock().read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    if let Some(mut guard) = guard.filter(|_| length < PIECE) {
                        guard.clear_ready();
                    }
                    piece.truncate(length);
                    return Ok(Some(piece.into()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Some(mut guard) = guard {
                        guard.clear_ready();
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
