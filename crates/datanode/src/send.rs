//! READ_BLOCK and COPY_BLOCK: sends a replica's bytes as packets (HDFS: `DataXceiver.readBlock`,
//! `BlockSender`). What is in memory is read by the task that sends it, while it is in the processor's caches;
//! the rest by the disk's threads, a packet ahead of the one being sent.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use mobula_net::{ReadHalf, WriteHalf};
use mobula_proto::hdfs::{
    BlockOpResponseProto, ClientReadStatusProto, OpCopyBlockProto, OpReadBlockProto, ReadOpChecksumInfoProto,
    Status,
};
use mobula_types::ExtendedBlock;
use mobula_wire::checksum::{Checksum, ChecksumKind};
use mobula_wire::convert;
use mobula_wire::datatransfer::encode_response;
use mobula_wire::packet::{PACKET_LENGTH_MAX, PacketHeader, PacketPrefix};
use mobula_wire::try_decode_delimited;
use tokio::io::AsyncWrite;

use crate::framed::{Framed, write_all, write_two};
use crate::node::{Node, READ_LIMIT, WRITE_LIMIT};
use crate::source::{Load, Source, SourceError, Verify};

/// Longest `ClientReadStatusProto`, in bytes.
const READ_STATUS_MAX: usize = 1 << 10;
/// How far ahead of a long read the disk is told to begin, in bytes: what was written past the page cache
/// is not in it, and the system's own 128 KiB ahead leave the disk idle between two packets.
const AHEAD_BYTES: u64 = 4 << 20;

/// What ends a COPY_BLOCK, as HDFS does it.
const COPY_END: [u8; 2] = [0x00, 0x64];

/// Why sending a block ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the request: {0}")]
    Request(String),
    #[error("the receiver: {0}")]
    Receiver(#[from] io::Error),
}

/// Some bytes of a replica, on their way as packets.
pub(crate) struct Sending {
    source: Source,
    at: u64,
    end: u64,
    packet_bytes: usize,
    seqno: i64,
    with_sums: bool,
    verify: Verify,
    corrupt: Corrupt,
    next: Option<Load>,
    /// All so far was in memory. Once something was not, the disk's threads read the rest of this request.
    cached: bool,
    /// Up to where the disk was told to begin.
    prepared: u64,
}

/// What becomes of bytes that do not match their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Corrupt {
    /// They are sent with the checksums that they do not match, and the NameNode is told. A client finds out by itself
    /// and then says so: with an error in its place all it could say is that nobody has the block. And one that wants no
    /// checksums gets what there is (`-ignoreCrc`). HDFS's DataNode does not even look (`BlockSender`).
    Shown,
    /// The sending ends there: what is stored elsewhere is whole.
    Refused,
}

/// How much is verified before it is sent.
fn verify_for_clients(node: &Node) -> Verify {
    if node.config.verify_reads { Verify::Yes } else { Verify::No }
}

impl Sending {
    /// Opens the replica and reads the first packet, so that what is wrong is known before anything is sent.
    pub(crate) async fn open(
        node: &Node,
        source: Source,
        (offset, length): (u64, u64),
        with_sums: bool,
        (verify, corrupt): (Verify, Corrupt),
    ) -> Result<Sending, SourceError> {
        let (at, end) = source.span(offset, length)?;
        let chunk = source.checksum.bytes_per_chunk() as usize;
        // A packet with its checksums must stay below the limit.
        let packet_max = PACKET_LENGTH_MAX / 2;
        let packet_bytes = (node.config.read_packet_bytes.min(packet_max) / chunk).max(1) * chunk;
        let mut sending = Sending {
            source,
            at,
            end,
            packet_bytes,
            seqno: 0,
            with_sums,
            verify,
            corrupt,
            next: None,
            cached: true,
            prepared: at,
        };
        sending.next = sending.load(node, at, Load::default()).await?;
        Ok(sending)
    }

    /// Where the first packet begins.
    pub(crate) fn chunk_offset(&self) -> u64 {
        self.at
    }

    /// The checksum that the packets carry.
    pub(crate) fn checksum(&self) -> Checksum {
        let kind = if self.with_sums { self.source.checksum.kind() } else { ChecksumKind::Null };
        Checksum::new(kind, self.source.checksum.bytes_per_chunk()).expect("its chunk was checked")
    }

    /// Reads the packet at `at`; none behind the end.
    async fn load(&mut self, node: &Node, at: u64, load: Load) -> Result<Option<Load>, SourceError> {
        match self.load_verified(node, at, load).await {
            Err(SourceError::Corrupt { .. }) if self.corrupt == Corrupt::Shown => {
                self.verify = Verify::No;
                self.load_verified(node, at, Load::default()).await
            }
            loaded => loaded,
        }
    }

    async fn load_verified(
        &mut self,
        node: &Node,
        at: u64,
        mut load: Load,
    ) -> Result<Option<Load>, SourceError> {
        let length = (self.end - at).min(self.packet_bytes as u64) as usize;
        if length == 0 {
            return Ok(None);
        }
        load.front.clear();
        let sums = if self.with_sums { self.source.checksum.sums_length(length as u64) } else { 0 };
        let header = PacketHeader {
            offset_in_block: at,
            seqno: self.seqno + i64::from(at > self.at),
            last: false,
            data_length: length as u32,
            sync: false,
        };
        PacketPrefix::encode(&header, sums as u32, &mut load.front);
        let keep = load.front.len();
        self.cached = self.cached && self.source.load_cached(at, length, &mut load, self.verify);
        if !self.cached {
            let ahead = self.ahead(at + length as u64);
            load = self.source.load(node, at, length, load, (ahead, self.verify)).await?;
        }
        if !self.with_sums {
            load.front.truncate(keep);
        }
        Ok(Some(load))
    }

    /// What of the bytes behind `at` the disk is to begin with now: a large piece at a time.
    fn ahead(&mut self, at: u64) -> (u64, u64) {
        let (from, to) = (self.prepared.max(at), self.end.min(at + AHEAD_BYTES));
        if to < from + AHEAD_BYTES / 2 && to < self.end {
            return (from, from);
        }
        self.prepared = self.prepared.max(to);
        (from, to)
    }

    /// Sends all packets, the empty last one among them.
    pub(crate) async fn send(
        mut self,
        node: &Node,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), SendError> {
        let mut spare = Load::default();
        while let Some(load) = self.next.take() {
            let next_at = self.at + load.length as u64;
            let write = write_two(to, &load.front, &load.data[..load.length], WRITE_LIMIT);
            if self.cached {
                write.await?;
                self.next = self.load(node, next_at, load).await?;
            } else {
                let (wrote, next) = tokio::join!(biased; write, self.load(node, next_at, spare));
                wrote?;
                self.next = next?;
                spare = load;
            }
            self.at = next_at;
            self.seqno += 1;
        }
        let trailer = PacketHeader {
            offset_in_block: self.end,
            seqno: self.seqno,
            last: true,
            data_length: 0,
            sync: false,
        };
        let mut out = BytesMut::new();
        PacketPrefix::encode(&trailer, 0, &mut out);
        Ok(write_all(to, &out, WRITE_LIMIT).await?)
    }
}

/// READ_BLOCK. `Ok` if the connection can take another operation.
///
/// # Errors
/// [`SendError`]; the client was told what it can be told.
pub(crate) async fn read_block(
    node: &Arc<Node>,
    read: &mut Framed<ReadHalf>,
    write: &mut WriteHalf,
    request: OpReadBlockProto,
) -> Result<(), SendError> {
    let block = checked(node, &request.header.base_header.block);
    let opened = match block {
        Ok(block) => {
            // Negative in Java: as much as there is (`BlockSender`).
            let length = i64::try_from(request.len).is_ok().then_some(request.len);
            open(node, &block, (request.offset, length), request.send_checksums.unwrap_or(true)).await
        }
        Err(error) => Err(error),
    };
    let sending = match opened {
        Ok(sending) => sending,
        Err(error) => {
            let words = read_refusal(&request, &error);
            return refuse(write, &words, error).await;
        }
    };
    write_all(write, &answer(&sending), WRITE_LIMIT).await?;
    sending.send(node, write).await?;
    read.set_limit(READ_LIMIT);
    // Clients that wanted less hang up instead: normal.
    let decode = |input: &mut BytesMut| try_decode_delimited::<ClientReadStatusProto>(input, READ_STATUS_MAX);
    read.next(decode).await?;
    Ok(())
}

/// COPY_BLOCK: the whole replica, for the balancer; always verified.
pub(crate) async fn copy_block(
    node: &Arc<Node>,
    write: &mut WriteHalf,
    request: OpCopyBlockProto,
) -> Result<(), SendError> {
    let opened = async {
        let block = checked(node, &request.header.block)?;
        let source = Source::open(node, &block.block, 0).await?;
        let length = source.length;
        let with_sums = source.has_sums();
        Ok(Sending::open(node, source, (0, length), with_sums, (Verify::Yes, Corrupt::Refused)).await?)
    };
    let sending = match opened.await {
        Ok(sending) => sending,
        Err(error) => {
            let error: SendError = error;
            let words = error.to_string();
            return refuse(write, &words, error).await;
        }
    };
    write_all(write, &answer(&sending), WRITE_LIMIT).await?;
    sending.send(node, write).await?;
    Ok(write_all(write, &COPY_END, WRITE_LIMIT).await?)
}

async fn open(
    node: &Arc<Node>,
    block: &ExtendedBlock,
    (offset, length): (u64, Option<u64>),
    with_sums: bool,
) -> Result<Sending, SendError> {
    let end = length.map_or(0, |length| offset.saturating_add(length));
    let source = Source::open(node, &block.block, end).await?;
    let range = (offset, length.unwrap_or(source.visible));
    let with_sums = with_sums && source.has_sums();
    let verify = (verify_for_clients(node), Corrupt::Shown);
    Ok(Sending::open(node, source, range, with_sums, verify).await?)
}

/// The block that a request names, if its pool is ours.
pub(crate) fn checked(
    node: &Node,
    block: &mobula_proto::hdfs::ExtendedBlockProto,
) -> Result<ExtendedBlock, SendError> {
    let block = convert::extended_block(block).map_err(|error| SendError::Request(error.to_string()))?;
    if node.store.pool() == Some(&block.pool) {
        Ok(block)
    } else {
        Err(SendError::Request(format!("pool {} is not ours", block.pool)))
    }
}

fn answer(sending: &Sending) -> BytesMut {
    let response = BlockOpResponseProto {
        status: Status::Success as i32,
        read_op_checksum_info: Some(ReadOpChecksumInfoProto {
            checksum: sending.checksum().to_proto(),
            chunk_offset: sending.chunk_offset(),
        }),
        ..BlockOpResponseProto::default()
    };
    let mut out = BytesMut::new();
    encode_response(&response, &mut out);
    out
}

/// HDFS's words for a read that is refused, which its clients print (`DataXceiver.readBlock`, `BlockSender`).
fn read_refusal(request: &OpReadBlockProto, error: &SendError) -> String {
    let Ok(block) = convert::extended_block(&request.header.base_header.block) else {
        return error.to_string();
    };
    let reason = match error {
        SendError::Source(SourceError::Missing(_)) => {
            format!(
                "org.apache.hadoop.hdfs.server.datanode.ReplicaNotFoundException: Replica not found for {block}"
            )
        }
        SendError::Source(SourceError::Range { length: stored, .. }) => {
            let (offset, length) = (request.offset.cast_signed(), request.len.cast_signed());
            format!(
                "java.io.IOException:  Offset {offset} and length {length} don't match block {block} ( blockLen {stored} )"
            )
        }
        error => format!("java.io.IOException: {error}"),
    };
    format!("opReadBlock {block} received exception {reason}")
}

async fn refuse(write: &mut WriteHalf, words: &str, error: SendError) -> Result<(), SendError> {
    let response = BlockOpResponseProto {
        status: Status::Error as i32,
        message: Some(words.into()),
        ..BlockOpResponseProto::default()
    };
    let mut out = BytesMut::new();
    encode_response(&response, &mut out);
    write_all(write, &out, WRITE_LIMIT).await?;
    Err(error)
}
