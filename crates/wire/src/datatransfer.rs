//! The operations of the data-transfer protocol, as they open a connection (HDFS: `Receiver`,
//! `Sender`): `u16` version, `u8` operation, then its message with the length in front.

use bytes::{Buf, BufMut, BytesMut};
pub use mobula_proto::hdfs::Status;
use mobula_proto::hdfs::{
    BlockOpResponseProto, OpBlockChecksumProto, OpBlockGroupChecksumProto, OpCopyBlockProto,
    OpReadBlockProto, OpReplaceBlockProto, OpRequestShortCircuitAccessProto, OpTransferBlockProto,
    OpWriteBlockProto, ReleaseShortCircuitAccessRequestProto, ShortCircuitShmRequestProto,
};
use prost::Message;

use crate::WireError;
use crate::varint::{self, encode_delimited, try_decode_delimited};

/// The protocol's version.
pub const VERSION: u16 = 28;
/// Longest message of an operation, in bytes: a pipeline of 512 nodes with all names fits, and what
/// decoding it takes stays small.
pub const OP_LENGTH_MAX: usize = 256 << 10;
/// Longest answer to an operation, in bytes.
pub const RESPONSE_LENGTH_MAX: usize = 1 << 20;
/// Bytes in front of the message's length.
const PREFIX_LENGTH: usize = 3;

/// The operations, with their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Store a replica.
    WriteBlock = 80,
    /// Send a replica.
    ReadBlock = 81,
    /// Not implemented in HDFS either.
    ReadMetadata = 82,
    /// The balancer: fetch a replica from another node.
    ReplaceBlock = 83,
    /// The balancer: send a replica to another node.
    CopyBlock = 84,
    /// The checksum of a replica.
    BlockChecksum = 85,
    /// Copy a replica to other nodes.
    TransferBlock = 86,
    /// Hand over file descriptors.
    RequestShortCircuitFds = 87,
    /// Take them back.
    ReleaseShortCircuitFds = 88,
    /// Share a segment of memory.
    RequestShortCircuitShm = 89,
    /// The checksum of a striped block.
    BlockGroupChecksum = 90,
}

impl Op {
    /// The operation with that code. HDFS declares 127, but its receiver does not know it either.
    pub fn from_code(code: u8) -> Option<Op> {
        Some(match code {
            80 => Op::WriteBlock,
            81 => Op::ReadBlock,
            82 => Op::ReadMetadata,
            83 => Op::ReplaceBlock,
            84 => Op::CopyBlock,
            85 => Op::BlockChecksum,
            86 => Op::TransferBlock,
            87 => Op::RequestShortCircuitFds,
            88 => Op::ReleaseShortCircuitFds,
            89 => Op::RequestShortCircuitShm,
            90 => Op::BlockGroupChecksum,
            _ => return None,
        })
    }
}

/// What a connection asks for.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Request {
    WriteBlock(OpWriteBlockProto),
    ReadBlock(OpReadBlockProto),
    ReplaceBlock(OpReplaceBlockProto),
    CopyBlock(OpCopyBlockProto),
    BlockChecksum(OpBlockChecksumProto),
    TransferBlock(OpTransferBlockProto),
    RequestShortCircuitFds(OpRequestShortCircuitAccessProto),
    ReleaseShortCircuitFds(ReleaseShortCircuitAccessRequestProto),
    RequestShortCircuitShm(ShortCircuitShmRequestProto),
    BlockGroupChecksum(OpBlockGroupChecksumProto),
}

impl Request {
    /// Which operation it is.
    pub fn op(&self) -> Op {
        match self {
            Request::WriteBlock(_) => Op::WriteBlock,
            Request::ReadBlock(_) => Op::ReadBlock,
            Request::ReplaceBlock(_) => Op::ReplaceBlock,
            Request::CopyBlock(_) => Op::CopyBlock,
            Request::BlockChecksum(_) => Op::BlockChecksum,
            Request::TransferBlock(_) => Op::TransferBlock,
            Request::RequestShortCircuitFds(_) => Op::RequestShortCircuitFds,
            Request::ReleaseShortCircuitFds(_) => Op::ReleaseShortCircuitFds,
            Request::RequestShortCircuitShm(_) => Op::RequestShortCircuitShm,
            Request::BlockGroupChecksum(_) => Op::BlockGroupChecksum,
        }
    }
}

/// Why an operation was not understood. HDFS closes the connection without a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Another version of the protocol, or another protocol.
    #[error("data-transfer version {0}, {VERSION} expected")]
    Version(u16),
    /// An operation that nobody knows.
    #[error("unknown data-transfer operation {0}")]
    UnknownOp(u8),
    /// An operation that HDFS declares but does not have.
    #[error("data-transfer operation {0:?} is not implemented")]
    NotImplemented(Op),
    /// Not its message.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Reads operations from the bytes of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpDecoder;

impl OpDecoder {
    /// Takes an operation from the front of `input`, once it has arrived whole; what follows stays.
    ///
    /// # Errors
    /// [`OpError`] as soon as the bytes that arrived are wrong.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Request>, OpError> {
        let Some(&[v0, v1]) = input.first_chunk() else { return Ok(None) };
        let version = u16::from_be_bytes([v0, v1]);
        if version != VERSION {
            return Err(OpError::Version(version));
        }
        let Some(&code) = input.get(2) else { return Ok(None) };
        let op = Op::from_code(code).ok_or(OpError::UnknownOp(code))?;
        if op == Op::ReadMetadata {
            return Err(OpError::NotImplemented(op));
        }
        // The three bytes stay in front until the message is whole: nothing to remember.
        if !is_whole(&input[PREFIX_LENGTH..])? {
            return Ok(None);
        }
        input.advance(PREFIX_LENGTH);
        Ok(decode_request(op, input)?)
    }
}

/// Whether the message with its length in front is all there.
fn is_whole(input: &[u8]) -> Result<bool, WireError> {
    let Some((length, prefix)) = varint::peek(input)? else { return Ok(false) };
    let limit = OP_LENGTH_MAX as u64;
    if length > limit {
        return Err(WireError::TooLong { what: "message of an operation", length, limit });
    }
    Ok((input.len() - prefix) as u64 >= length)
}

fn decode_request(op: Op, input: &mut BytesMut) -> Result<Option<Request>, WireError> {
    fn read<M: Message + Default>(
        input: &mut BytesMut,
        wrap: fn(M) -> Request,
    ) -> Result<Option<Request>, WireError> {
        Ok(try_decode_delimited(input, OP_LENGTH_MAX)?.map(wrap))
    }
    match op {
        Op::WriteBlock => read(input, Request::WriteBlock),
        Op::ReadBlock => read(input, Request::ReadBlock),
        Op::ReadMetadata => Err(WireError::Unknown { what: "operation", value: op as i64 }),
        Op::ReplaceBlock => read(input, Request::ReplaceBlock),
        Op::CopyBlock => read(input, Request::CopyBlock),
        Op::BlockChecksum => read(input, Request::BlockChecksum),
        Op::TransferBlock => read(input, Request::TransferBlock),
        Op::RequestShortCircuitFds => read(input, Request::RequestShortCircuitFds),
        Op::ReleaseShortCircuitFds => read(input, Request::ReleaseShortCircuitFds),
        Op::RequestShortCircuitShm => read(input, Request::RequestShortCircuitShm),
        Op::BlockGroupChecksum => read(input, Request::BlockGroupChecksum),
    }
}

/// Writes an operation.
pub fn encode_op<M: Message>(op: Op, message: &M, out: &mut BytesMut) {
    out.reserve(PREFIX_LENGTH);
    out.put_u16(VERSION);
    out.put_u8(op as u8);
    encode_delimited(message, out);
}

/// Writes the answer to an operation.
pub fn encode_response(response: &BlockOpResponseProto, out: &mut BytesMut) {
    encode_delimited(response, out);
}

/// Takes the answer to an operation from the front of `input`, once it has arrived whole.
///
/// # Errors
/// [`WireError`] if it is too long or no answer.
pub fn decode_response(input: &mut BytesMut) -> Result<Option<BlockOpResponseProto>, WireError> {
    try_decode_delimited(input, RESPONSE_LENGTH_MAX)
}

/// A success, with the empty `firstBadLink` that makes it the five bytes that the Go client waits for.
pub fn response_success() -> BlockOpResponseProto {
    BlockOpResponseProto {
        status: Status::Success as i32,
        first_bad_link: Some(String::new()),
        ..BlockOpResponseProto::default()
    }
}

/// A failure in words. `first_bad_link` is the `ip:port` of the node that failed, or empty.
pub fn response_failure(status: Status, first_bad_link: &str, message: &str) -> BlockOpResponseProto {
    BlockOpResponseProto {
        status: status as i32,
        first_bad_link: Some(first_bad_link.into()),
        message: Some(message.into()),
        ..BlockOpResponseProto::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn write_block() -> OpWriteBlockProto {
        let mut message = OpWriteBlockProto::default();
        message.header.client_name = "DFSClient_NONMAPREDUCE_1_1".into();
        message.header.base_header.block.pool_id = "BP-1-127.0.0.1-1".into();
        message.target_storage_ids = vec!["DS-1".into(), "DS-2".into()];
        message
    }

    #[test]
    fn a_success_has_five_bytes() {
        let mut out = BytesMut::new();
        encode_response(&response_success(), &mut out);
        assert_eq!(&out[..], [4, 0x08, 0, 0x12, 0]);
        assert_eq!(decode_response(&mut out), Ok(Some(response_success())));
    }

    #[test]
    fn every_split_waits() {
        let mut whole = BytesMut::new();
        encode_op(Op::WriteBlock, &write_block(), &mut whole);
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(OpDecoder.next(&mut part), Ok(None));
            assert_eq!(part.len(), cut, "nothing is taken before all is there");
            part.extend_from_slice(&whole[cut..]);
            part.extend_from_slice(b"rest");
            assert_eq!(OpDecoder.next(&mut part), Ok(Some(Request::WriteBlock(write_block()))));
            assert_eq!(&part[..], b"rest");
        }
    }

    #[test]
    fn refuses_at_the_first_wrong_byte() {
        let next = |bytes: &[u8]| OpDecoder.next(&mut BytesMut::from(bytes));
        assert_eq!(next(&[0, 27]), Err(OpError::Version(27)));
        assert_eq!(next(b"GET "), Err(OpError::Version(0x4745)));
        assert_eq!(next(&[0, 28, 127]), Err(OpError::UnknownOp(127)));
        assert_eq!(next(&[0, 28, 0]), Err(OpError::UnknownOp(0)));
        assert_eq!(next(&[0, 28, 82]), Err(OpError::NotImplemented(Op::ReadMetadata)));
        // 2 GiB are refused when they are claimed.
        assert!(matches!(next(&[0, 28, 80, 0x80, 0x80, 0x80, 0x80, 0x08]), Err(OpError::Wire(_))));
        assert!(matches!(next(&[[0, 28, 80].as_slice(), &[0x80; 10]].concat()), Err(OpError::Wire(_))));
    }

    proptest! {
        #[test]
        fn any_bytes(code in 80u8..91, bytes: Vec<u8>) {
            let mut input = BytesMut::from(&[&[0, 28, code], &bytes[..]].concat()[..]);
            let _ = OpDecoder.next(&mut input);
        }

        #[test]
        fn damaged_bytes(at in 3usize..60, byte: u8) {
            let mut whole = BytesMut::new();
            encode_op(Op::WriteBlock, &write_block(), &mut whole);
            let at = at % whole.len();
            whole[at] = byte;
            let _ = OpDecoder.next(&mut whole);
        }
    }
}
