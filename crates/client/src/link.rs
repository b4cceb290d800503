//! One connection to a DataNode: the frames of DataTransferProtocol 28 on a socket.
//!
//! Bytes from a DataNode never panic, and memory grows with what has arrived, not with what was claimed.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mobula_net::{Env, Stream};
use mobula_proto::hdfs;
use mobula_wire::WireError;
use mobula_wire::datatransfer::{self, Op};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Room made for one read of a message.
const MESSAGE_READ_BYTES: usize = 512;
/// Slices in one vectored write; Linux takes up to 1,024.
const SLICES_MAX: usize = 64;

/// A connection, with the bytes that were read and not yet used.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream,
    pub(crate) input: BytesMut,
}

impl Link {
    pub(crate) async fn connect(env: &Env, address: &str, limit: Duration) -> io::Result<Link> {
        let stream = env.net.connect(address, limit).await?;
        Ok(Link { stream, input: BytesMut::new() })
    }

    /// Sends an op and waits for the message that answers it.
    pub(crate) async fn ask<Q: Message>(
        &mut self,
        op: Op,
        request: &Q,
        limit: Duration,
    ) -> io::Result<hdfs::BlockOpResponseProto> {
        let mut frame = BytesMut::new();
        datatransfer::encode_op(op, request, &mut frame);
        let talk = async {
            self.stream.write_all(&frame).await?;
            receive(&mut self.stream, &mut self.input, datatransfer::decode_response).await
        };
        within(limit, talk).await
    }
}

/// Reads until `decode` finds a message. Cancel safe: what arrived stays in `input`.
pub(crate) async fn receive<R, M>(
    stream: &mut R,
    input: &mut BytesMut,
    decode: impl Fn(&mut BytesMut) -> Result<Option<M>, WireError>,
) -> io::Result<M>
where
    R: AsyncRead + Unpin,
{
    loop {
        if let Some(message) = decode(input).map_err(broken)? {
            return Ok(message);
        }
        input.reserve(MESSAGE_READ_BYTES);
        if stream.read_buf(input).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the DataNode hung up"));
        }
    }
}

/// The peer does not speak the protocol.
pub(crate) fn broken(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the DataNode does not speak the protocol: {what}"))
}

/// `work`, or `TimedOut` after `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))),
    }
}

/// Writes all of `queue`, many pieces a call, without copying them together.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    stream: &mut W,
    queue: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    while !queue.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(queue.iter()) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        let mut written = stream.write_vectored(&slices[..used]).await?;
        if written == 0 && queue.iter().any(|piece| !piece.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = queue.front_mut() {
            if front.len() > written {
                front.advance(written);
                break;
            }
            written -= front.len();
            queue.pop_front();
        }
    }
    Ok(())
}

/// Where a DataNode takes data: `ip:port`.
pub(crate) fn address_of(node: &hdfs::DatanodeInfoProto) -> String {
    format!("{}:{}", node.id.ip_addr, node.id.xfer_port)
}

/// Idle connections, to be used again within [`LINK_IDLE_MAX`] (HDFS: `PeerCache`).
#[derive(Debug, Default)]
pub(crate) struct LinkCache {
    idle: Mutex<BTreeMap<String, VecDeque<(Instant, Link)>>>,
}

/// A DataNode closes an idle connection after 4 s; a second less is ours.
const LINK_IDLE_MAX: Duration = Duration::from_secs(3);
/// Idle connections kept to one DataNode.
const LINKS_PER_NODE_MAX: usize = 16;

impl LinkCache {
    /// The connection to `address` that was used last, if there is a fresh one.
    pub(crate) fn take(&self, address: &str) -> Option<Link> {
        let mut idle = self.idle.lock();
        let links = idle.get_mut(address)?;
        let (since, link) = links.pop_back()?;
        if since.elapsed() < LINK_IDLE_MAX {
            return Some(link);
        }
        // Those behind it are older still.
        idle.remove(address);
        None
    }

    /// Keeps a connection on which nothing is under way.
    pub(crate) fn put(&self, address: &str, link: Link) {
        let mut idle = self.idle.lock();
        idle.retain(|_, links| {
            links.retain(|(since, _)| since.elapsed() < LINK_IDLE_MAX);
            !links.is_empty()
        });
        let links = idle.entry(address.into()).or_default();
        if links.len() >= LINKS_PER_NODE_MAX {
            links.pop_front();
        }
        links.push_back((Instant::now(), link));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn vectored_writes_keep_the_order() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let pieces: VecDeque<Bytes> = (0..200_u8).map(|i| Bytes::from(vec![i; usize::from(i) % 5])).collect();
        let expected: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let mut queue = pieces;
        let write = tokio::spawn(async move { write_all(&mut near, &mut queue).await });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        write.await.unwrap().unwrap();
        assert_eq!(got, expected);
    }
}
