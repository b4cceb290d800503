//! One replica's bytes as they come from its DataNode, verified.
//!
//! Bytes are copied once, by the kernel: packets are cut out of the buffer that the socket was read
//! into, and handed on as slices of it. A few such buffers go round, so that their pages stay warm.
//!
//! Invariant: what is handed out follows what was handed out before, without a gap, and its checksums
//! were right; the first and last packet may hold more than was asked for, which is cut off.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use mobula_proto::hdfs;
use mobula_wire::checksum::{Checksum, ChecksumKind, Mismatch};
use mobula_wire::datatransfer::Op;
use mobula_wire::packet::PacketPrefix;
use mobula_wire::{WireError, encode_delimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Shared;
use crate::link::{Link, address_of, broken, within};

/// Size of a buffer that the socket is read into.
const BUFFER_BYTES: usize = 1 << 20;
/// Buffers that go round. A caller that keeps more pieces than they hold makes new ones necessary.
const BUFFERS_MAX: usize = 4;
/// A read takes at most so much of the packets after the one that it is for.
const READ_BEYOND_BYTES: usize = 64 << 10;
/// With less room left than this, the next buffer is taken.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// Why a replica is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    #[error("{0}")]
    Corrupt(Mismatch),
    #[error("{0}")]
    Lost(#[from] io::Error),
    #[error("the DataNode refuses: {0}")]
    Refused(String),
}

/// Which bytes of which block.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) block: hdfs::ExtendedBlockProto,
    pub(crate) token: mobula_proto::common::TokenProto,
    /// Offsets in the block.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// How patient to be with one DataNode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    /// For the next bytes.
    pub(crate) stall: Duration,
}

/// A running read.
#[derive(Debug)]
pub(crate) struct ReplicaStream {
    link: Link,
    address: String,
    buffers: Buffers,
    checksum: Checksum,
    patience: Patience,
    /// Where in the block the next packet's data begins.
    next_offset: u64,
    /// What is wanted, in the block; `start` is the next byte to hand out.
    start: u64,
    end: u64,
    next_seqno: i64,
}

impl ReplicaStream {
    /// Asks `node` for `range`. A connection from the cache that turns out dead is replaced.
    pub(crate) async fn open(
        shared: &Shared,
        node: &hdfs::DatanodeInfoProto,
        range: &Range,
        patience: Patience,
    ) -> Result<ReplicaStream, ReadFault> {
        let address = address_of(node);
        let op = read_op(shared, range);
        if let Some(mut link) = shared.links.take(&address)
            && let Ok(answer) = link.ask(Op::ReadBlock, &op, patience.stall).await
        {
            return ReplicaStream::start(link, address, range, patience, answer);
        }
        let mut link = Link::connect(&shared.env, &address, patience.connect).await?;
        let answer = link.ask(Op::ReadBlock, &op, patience.stall).await?;
        ReplicaStream::start(link, address, range, patience, answer)
    }

    fn start(
        mut link: Link,
        address: String,
        range: &Range,
        patience: Patience,
        answer: hdfs::BlockOpResponseProto,
    ) -> Result<ReplicaStream, ReadFault> {
        if answer.status != hdfs::Status::Success as i32 {
            let status =
                hdfs::Status::try_from(answer.status).map_or("UNKNOWN", |status| status.as_str_name());
            return Err(ReadFault::Refused(format!("{status} {}", answer.message.unwrap_or_default())));
        }
        let Some(info) = answer.read_op_checksum_info else {
            return Err(broken("no checksum info in the answer to a read").into());
        };
        let checksum = Checksum::from_proto(&info.checksum).map_err(broken)?;
        let first = info.chunk_offset;
        if first > range.start || range.start - first >= u64::from(checksum.bytes_per_chunk()) {
            let what = format!("first chunk at {first} for a read from {}", range.start);
            return Err(broken(what).into());
        }
        let buffers = Buffers::starting_with(std::mem::take(&mut link.input));
        Ok(ReplicaStream {
            link,
            address,
            buffers,
            checksum,
            patience,
            next_offset: first,
            start: range.start,
            end: range.end,
            next_seqno: 0,
        })
    }

    /// Bytes that are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.end - self.start
    }

    /// The next bytes; `None` when all were handed out. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadFault> {
        while self.start < self.end {
            let (prefix, body) = self.packet().await?;
            let piece = self.take_data(&prefix, body)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Checks a packet and cuts what is wanted out of it.
    fn take_data(&mut self, prefix: &PacketPrefix, mut body: Bytes) -> Result<Bytes, ReadFault> {
        let header = &prefix.header;
        if header.seqno != self.next_seqno || header.offset_in_block != self.next_offset {
            let what = format!(
                "packet {} at {}, {} at {} is due",
                header.seqno, header.offset_in_block, self.next_seqno, self.next_offset
            );
            return Err(broken(what).into());
        }
        if header.last || header.data_length == 0 {
            return Err(broken(format!("the end at {}, {} was asked for", self.next_offset, self.end)).into());
        }
        let sums = body.split_to(prefix.checksum_length as usize);
        if self.checksum.kind() != ChecksumKind::Null {
            self.checksum.verify(&body, &sums).map_err(ReadFault::Corrupt)?;
        }
        self.next_seqno += 1;
        self.next_offset = header.end();
        let before = self.start.saturating_sub(header.offset_in_block).min(body.len() as u64);
        let until = self.end.min(header.end()).saturating_sub(header.offset_in_block);
        let piece = body.slice(before as usize..(until as usize).max(before as usize));
        self.start += piece.len() as u64;
        Ok(piece)
    }

    /// The next whole packet: its prefix, and checksums and data.
    async fn packet(&mut self) -> Result<(PacketPrefix, Bytes), ReadFault> {
        let stall = self.patience.stall;
        loop {
            let need = match PacketPrefix::parse(&self.buffers.current).map_err(broken)? {
                Some(prefix) => {
                    let whole = prefix.length + prefix.body_length();
                    if self.buffers.current.len() >= whole {
                        let mut packet = self.buffers.current.split_to(whole).freeze();
                        return Ok((prefix, packet.split_off(prefix.length)));
                    }
                    whole
                }
                None => 0,
            };
            self.buffers.make_room(need);
            // Not far beyond this packet: what lies there is copied when the next buffer is taken.
            let limit = need.saturating_sub(self.buffers.current.len()).saturating_add(READ_BEYOND_BYTES);
            let mut room = (&mut self.buffers.current).limit(limit);
            let read = within(stall, self.link.stream.read_buf(&mut room)).await?;
            if read == 0 {
                let text = "the DataNode hung up in the middle of a read";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text).into());
            }
        }
    }

    /// After the last byte: takes the empty packet at the end, tells the DataNode that all was well,
    /// and keeps the connection for the next read.
    pub(crate) async fn finish(mut self, shared: &Shared) {
        debug_assert_eq!(self.start, self.end, "a read is finished when all was handed out");
        let Ok((prefix, _)) = self.packet().await else { return };
        if !prefix.header.last || prefix.header.data_length != 0 {
            return;
        }
        let verified = match self.checksum.kind() {
            ChecksumKind::Null => hdfs::Status::Success,
            _ => hdfs::Status::ChecksumOk,
        };
        let mut frame = BytesMut::new();
        encode_delimited(&hdfs::ClientReadStatusProto { status: verified as i32 }, &mut frame);
        if self.link.stream.write_all(&frame).await.is_ok() && self.buffers.current.is_empty() {
            shared.links.put(&self.address, self.link);
        }
    }
}

fn read_op(shared: &Shared, range: &Range) -> hdfs::OpReadBlockProto {
    hdfs::OpReadBlockProto {
        header: hdfs::ClientOperationHeaderProto {
            base_header: hdfs::BaseHeaderProto {
                block: range.block.clone(),
                token: Some(range.token.clone()),
                trace_info: None,
            },
            client_name: shared.name.clone(),
        },
        offset: range.start,
        len: range.end - range.start,
        send_checksums: Some(true),
        caching_strategy: None,
    }
}

/// The buffer that is read into, and those that were, to be used again once nobody holds their bytes.
#[derive(Debug)]
struct Buffers {
    current: BytesMut,
    before: VecDeque<BytesMut>,
}

impl Buffers {
    fn starting_with(current: BytesMut) -> Buffers {
        Buffers { current, before: VecDeque::new() }
    }

    /// Sees to it that a read has room, and that a packet of `need` bytes gets it in time. A claimed
    /// length is believed up to [`BUFFER_BYTES`], then as far again as bytes have come.
    fn make_room(&mut self, need: usize) {
        let have = self.current.len();
        let room = self.current.capacity() - have;
        if room >= need.saturating_sub(have).clamp(ROOM_BYTES_MIN, BUFFER_BYTES) {
            return;
        }
        let size = BUFFER_BYTES.max(have * 2);
        // Nobody holds what was read before: the same pages again, while they are in the cache.
        if self.current.try_reclaim(size - have) {
            return;
        }
        let mut next = self.recycled(size).unwrap_or_else(|| BytesMut::with_capacity(size));
        next.extend_from_slice(&self.current);
        self.current.clear();
        let used = std::mem::replace(&mut self.current, next);
        self.before.push_back(used);
    }

    fn recycled(&mut self, size: usize) -> Option<BytesMut> {
        if self.before.front_mut()?.try_reclaim(size) {
            return self.before.pop_front();
        }
        if self.before.len() >= BUFFERS_MAX {
            self.before.pop_front();
        }
        None
    }
}

impl From<WireError> for ReadFault {
    fn from(error: WireError) -> ReadFault {
        ReadFault::Lost(broken(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_go_round_once_nobody_holds_their_bytes() {
        let mut buffers = Buffers::starting_with(BytesMut::new());
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..100 {
            buffers.make_room(0);
            let room = buffers.current.capacity();
            buffers.current.resize(room, 1);
            let piece = buffers.current.split_to(room - 10).freeze();
            addresses.insert(piece.as_ptr() as usize / 4096);
        }
        assert!(addresses.len() <= 2 * (BUFFERS_MAX + 1), "{} places in memory", addresses.len());
    }

    #[test]
    fn a_claimed_length_gets_no_memory_before_bytes_come() {
        let mut buffers = Buffers::starting_with(BytesMut::new());
        buffers.make_room(usize::MAX);
        assert!(buffers.current.capacity() <= 2 * BUFFER_BYTES);
    }
}
