//! Reading and writing a socket within one task, with next to no memory while nothing happens.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use mobula_net::Stream;
use mobula_wire::rpc::Stage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes of one read.
const READ_LENGTH: usize = 64 << 10;
/// A buffer that is empty is given back if it is larger than this: what 64 small calls in flight need is kept.
const KEPT_LENGTH: usize = 16 << 10;

thread_local! {
    /// Where reads land first: the thread's, so that a connection that waits holds no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_LENGTH]);
}

/// Appends what has arrived to `input`; 0 at the end of the stream.
pub(crate) fn poll_fill(
    stream: &mut Stream,
    input: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                input.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                give_back(input);
                Poll::Pending
            }
        }
    })
}

/// Frees an empty buffer that grew large.
pub(crate) fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT_LENGTH {
        *buffer = BytesMut::new();
    }
}

/// The bytes that are on their way out.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    bytes: BytesMut,
    sent: usize,
    stage: Stage,
}

impl Sending {
    /// Bytes that the socket has not taken yet.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Writes all there is, and then what `refill` swaps in, until there is no more; pending if the socket takes no more. Sets
    /// `progress` if it took any.
    pub(crate) fn poll_send(
        &mut self,
        stream: &mut Stream,
        mut refill: impl FnMut(&mut BytesMut),
        progress: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.left() == 0 {
                self.sent = 0;
                self.bytes.clear();
                refill(&mut self.bytes);
                if self.bytes.is_empty() {
                    give_back(&mut self.bytes);
                    return Poll::Ready(Ok(()));
                }
                self.stage.wrap(&mut self.bytes, 0);
            }
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            *progress = true;
        }
    }
}
