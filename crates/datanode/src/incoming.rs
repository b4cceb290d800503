//! Reads packets from a connection: their front part into a small buffer, their data straight into
//! the buffer that mirror and disk are written from.
//!
//! Invariant: no buffer grows before the bytes for it have arrived.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use mobula_wire::packet::PacketPrefix;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// What is read for the front of a first packet: lengths, header, and the checksums of 64,512 bytes.
const FRONT_FIRST: usize = 31 + 504;
/// Room that is made for the front of a packet at once, in bytes.
const FRONT_STEP: usize = 64 << 10;
/// Room that is made for data at once, in bytes, before more has arrived.
const DATA_STEP: usize = 64 << 10;

/// The receiving side of a connection that carries packets.
#[derive(Debug)]
pub(crate) struct Incoming<R> {
    stream: R,
    front: BytesMut,
    /// How long the front of the next packet probably is: that of the last one.
    likely: usize,
    limit: Duration,
}

/// A connection that said nothing for too long.
pub(crate) fn timed_out(what: &str, limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what}: nothing for {limit:?}"))
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// `rest` arrived with what came before the packets; `limit` is the longest silence.
    pub(crate) fn new(stream: R, rest: BytesMut, limit: Duration) -> Incoming<R> {
        Incoming { stream, front: rest, likely: FRONT_FIRST, limit }
    }

    /// Waits for the front of the next packet. Nothing is lost if the wait is given up.
    pub(crate) async fn prefix(&mut self) -> io::Result<PacketPrefix> {
        loop {
            let parsed = PacketPrefix::parse(&self.front);
            let wanted = match parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                Some(prefix) => {
                    let whole = prefix.length + prefix.checksum_length as usize;
                    if self.front.len() >= whole {
                        return Ok(prefix);
                    }
                    whole
                }
                None => self.likely.max(self.front.len() + 1),
            };
            self.fill(wanted).await?;
        }
    }

    /// Whether something of the next packet is here already or can be had without waiting.
    pub(crate) async fn is_ready(&mut self) -> bool {
        if !self.front.is_empty() {
            return true;
        }
        let wanted = self.likely;
        tokio::select! {
            biased;
            // An error is found again by whoever reads next.
            result = self.fill(wanted) => result.is_ok(),
            () = std::future::ready(()) => false,
        }
    }

    /// Waits until something of the next packet is here, or an error, which whoever reads next finds
    /// again. Nothing is lost if the wait is given up.
    pub(crate) async fn more(&mut self) {
        if self.front.is_empty() {
            let wanted = self.likely;
            let _ = self.fill(wanted).await;
        }
    }

    async fn fill(&mut self, wanted: usize) -> io::Result<()> {
        use bytes::BufMut;
        let room = (wanted - self.front.len()).min(FRONT_STEP);
        self.front.reserve(room);
        let mut part = (&mut self.front).limit(room);
        let read = timeout(self.limit, self.stream.read_buf(&mut part)).await;
        match read.map_err(|_| timed_out("a packet", self.limit))?? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Takes the front of a packet: lengths, header, and behind `prefix.length` the checksums.
    pub(crate) fn take_front(&mut self, prefix: &PacketPrefix) -> BytesMut {
        let length = prefix.length + prefix.checksum_length as usize;
        if prefix.header.data_length > 0 {
            self.likely = length;
        }
        self.front.split_to(length)
    }

    /// Reads `length` bytes of data into `buffer` from `at` on; the buffer grows as they arrive.
    pub(crate) async fn data(&mut self, buffer: &mut Vec<u8>, at: usize, length: usize) -> io::Result<()> {
        let end = at + length;
        let early = self.front.len().min(length);
        let mut done = at + early;
        if buffer.len() < done {
            buffer.resize(end.min(done.max(at + DATA_STEP)), 0);
        }
        buffer[at..done].copy_from_slice(&self.front.split_to(early));
        while done < end {
            if buffer.len() == done {
                let arrived = done - at;
                buffer.resize(end.min(done + arrived.max(DATA_STEP)), 0);
            }
            let room = buffer.len().min(end);
            let read = timeout(self.limit, self.stream.read(&mut buffer[done..room])).await;
            match read.map_err(|_| timed_out("a packet's data", self.limit))?? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    /// The connection, and what has arrived beyond the last packet.
    pub(crate) fn into_parts(self) -> (R, BytesMut) {
        (self.stream, self.front)
    }

    /// Waits until the other side ends its direction, throwing away what it still sends.
    pub(crate) async fn drain(&mut self, bytes_max: usize) {
        let mut scratch = vec![0; 4096];
        let mut total = 0;
        while total < bytes_max {
            match timeout(self.limit, self.stream.read(&mut scratch)).await {
                Ok(Ok(count)) if count > 0 => total += count,
                _ => return,
            }
        }
    }
}
