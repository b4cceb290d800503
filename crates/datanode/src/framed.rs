//! Small helpers around a connection: messages with their length in front, writes with a limit.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::BytesMut;
use mobula_proto::hdfs::BlockOpResponseProto;
use mobula_wire::WireError;
use mobula_wire::ack::PipelineAck;
use mobula_wire::datatransfer::decode_response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::incoming::timed_out;

/// Room that is made for a message at once, in bytes.
const STEP: usize = 4 << 10;

/// Reads messages from a connection.
#[derive(Debug)]
pub(crate) struct Framed<R> {
    stream: R,
    input: BytesMut,
    limit: Duration,
}

impl<R: AsyncRead + Unpin> Framed<R> {
    /// `limit` is the longest silence.
    pub(crate) fn new(stream: R, limit: Duration) -> Framed<R> {
        Framed::with_rest(stream, BytesMut::new(), limit)
    }

    /// As [`Framed::new`], where `rest` arrived before.
    pub(crate) fn with_rest(stream: R, rest: BytesMut, limit: Duration) -> Framed<R> {
        Framed { stream, input: rest, limit }
    }

    /// Waits for a message. Nothing is lost if the wait is given up.
    pub(crate) async fn next<T, E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        mut decode: impl FnMut(&mut BytesMut) -> Result<Option<T>, E>,
    ) -> io::Result<T> {
        loop {
            let decoded = decode(&mut self.input);
            if let Some(message) = decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
                return Ok(message);
            }
            self.input.reserve(STEP);
            let read = timeout(self.limit, self.stream.read_buf(&mut self.input)).await;
            if read.map_err(|_| timed_out("an answer", self.limit))?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Changes the longest silence.
    pub(crate) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Whether the other side has neither said anything nor hung up, as far as is known here.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        self.input.reserve(STEP);
        tokio::select! {
            biased;
            _ = self.stream.read_buf(&mut self.input) => false,
            () = std::future::ready(()) => self.input.is_empty(),
        }
    }

    /// Waits for the answer to an operation.
    pub(crate) async fn response(&mut self) -> io::Result<BlockOpResponseProto> {
        self.next(decode_response).await
    }

    /// Waits for an acknowledgement.
    pub(crate) async fn ack(&mut self) -> io::Result<PipelineAck> {
        self.next::<_, WireError>(PipelineAck::decode).await
    }

    /// The connection, and what has arrived beyond the last message.
    pub(crate) fn into_parts(self) -> (R, BytesMut) {
        (self.stream, self.input)
    }
}

/// Writes all of it, or fails when nothing moves for `limit`.
pub(crate) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    limit: Duration,
) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let wrote = timeout(limit, stream.write(rest)).await;
        match wrote.map_err(|_| timed_out("the receiver", limit))?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => rest = &rest[count..],
        }
    }
    Ok(())
}

/// Writes one slice after the other, together where it can.
pub(crate) async fn write_two(
    stream: &mut (impl AsyncWrite + Unpin),
    first: &[u8],
    second: &[u8],
    limit: Duration,
) -> io::Result<()> {
    let mut done = 0;
    while done < first.len() {
        let slices = [IoSlice::new(&first[done..]), IoSlice::new(second)];
        let wrote = timeout(limit, stream.write_vectored(&slices)).await;
        match wrote.map_err(|_| timed_out("the receiver", limit))?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => done += count,
        }
    }
    write_all(stream, &second[done - first.len()..], limit).await
}
