//! The log's bytes: docs/formats/log.md draws them, and a test holds that page to this file.
//! Knows no file.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use crate::face::Position;

/// First bytes of every segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"mobulog\n";
/// First bytes of the vote's file.
pub(crate) const VOTE_MAGIC: [u8; 8] = *b"mobuvot\n";
/// The version this code writes and the only one it reads.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a segment before its first record.
pub(crate) const SEGMENT_HEADER: usize = 48;
/// Bytes of a record before its payload.
pub(crate) const RECORD_HEADER: usize = 32;
/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN: usize = 8;
/// The longest payload, in bytes: twice what an RPC may carry.
pub(crate) const PAYLOAD_MAX: usize = 256 << 20;
/// Bytes of the vote's file before the vote.
pub(crate) const VOTE_HEADER: usize = 24;

/// Flag of a segment that begins anew behind a snapshot: what is in older segments counts no more.
const FLAG_RESET: u32 = 1;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Blank = 1,
    Command = 2,
    Membership = 3,
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Whose log it is.
    pub(crate) node: u64,
    /// The entry before the segment's first one; `None` if that is entry 0.
    pub(crate) previous: Option<Position>,
    /// Older segments count no more.
    pub(crate) reset: bool,
}

impl SegmentHeader {
    /// The index of the segment's first entry.
    pub(crate) fn first(&self) -> u64 {
        self.previous.map_or(0, |previous| previous.index + 1)
    }

    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(if self.reset { FLAG_RESET } else { 0 }).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.node.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous.map_or(0, |p| p.term).to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first().to_le_bytes());
        let crc = crc32c(&[&bytes[..44]]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; says what is wrong if it is not a whole one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER>() else {
            return Err(HeaderError::Damaged("the header is cut short"));
        };
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Damaged("it does not begin as a segment of the log"));
        }
        if crc32c(&[&bytes[..44]]) != u32_at(bytes, 44) {
            return Err(HeaderError::Damaged("the header's checksum is wrong"));
        }
        let (version, flags) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if version != VERSION || flags & !FLAG_RESET != 0 {
            return Err(HeaderError::Later { version, flags });
        }
        let first = u64_at(bytes, 32);
        let previous = first.checked_sub(1).map(|index| Position { term: u64_at(bytes, 24), index });
        Ok(SegmentHeader { node: u64_at(bytes, 16), previous, reset: flags & FLAG_RESET != 0 })
    }
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It is not whole.
    Damaged(&'static str),
    /// It is whole, and of a later program.
    Later { version: u32, flags: u32 },
}

/// A record to be written.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) position: Position,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

impl Record {
    /// Its bytes in a segment, padding included.
    pub(crate) fn size(&self) -> usize {
        record_size(self.payload.len())
    }

    /// Appends it to `out`. `back` is how far before it the batch begins that it is synced with.
    pub(crate) fn encode(&self, back: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).expect("no payload beyond PAYLOAD_MAX gets here");
        let mut header = [0; RECORD_HEADER];
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&self.position.term.to_le_bytes());
        header[16..24].copy_from_slice(&self.position.index.to_le_bytes());
        header[24..28].copy_from_slice(&back.to_le_bytes());
        header[28] = self.kind as u8;
        let crc = crc32c(&[&header[4..], &self.payload]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.payload);
        out.resize(out.len().next_multiple_of(RECORD_ALIGN), 0);
    }
}

pub(crate) fn record_size(payload: usize) -> usize {
    (RECORD_HEADER + payload).next_multiple_of(RECORD_ALIGN)
}

/// A record read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) position: Position,
    pub(crate) kind: Kind,
    pub(crate) back: u32,
    pub(crate) payload: &'a [u8],
}

/// How far before a record its batch begins, from its header.
pub(crate) fn back(header: &[u8; RECORD_HEADER]) -> u32 {
    u32_at(header, 24)
}

/// What the record at the beginning of `bytes` says of itself: where it is in the log, and its size. Its checksum may
/// be wrong; `None` if it cannot be a record's header.
pub(crate) fn claim(bytes: &[u8]) -> Option<(Position, usize)> {
    let header = bytes.first_chunk::<RECORD_HEADER>()?;
    let length = u32_at(header, 4) as usize;
    let position = Position { term: u64_at(header, 8), index: u64_at(header, 16) };
    (length <= PAYLOAD_MAX && matches!(header[28], 1..=3)).then(|| (position, record_size(length)))
}

/// Reads the record at the beginning of `bytes`; says what is wrong if there is no whole one.
pub(crate) fn decode(bytes: &[u8]) -> Result<Found<'_>, &'static str> {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else {
        return Err("a record is cut short in its header");
    };
    let length = u32_at(header, 4) as usize;
    if length > PAYLOAD_MAX {
        return Err("a record claims an impossible length");
    }
    let Some(payload) = bytes[RECORD_HEADER..].get(..length) else {
        return Err("a record is cut short");
    };
    if crc32c(&[&header[4..], payload]) != u32_at(header, 0) {
        return Err("a record's checksum is wrong");
    }
    let end = record_size(length).min(bytes.len());
    if bytes[RECORD_HEADER + length..end].iter().any(|byte| *byte != 0) {
        return Err("a record is followed by something else than zeros");
    }
    let kind = match header[28] {
        1 => Kind::Blank,
        2 => Kind::Command,
        3 => Kind::Membership,
        _ => return Err("a record is of an unknown kind"),
    };
    let position = Position { term: u64_at(header, 8), index: u64_at(header, 16) };
    Ok(Found { position, kind, back: u32_at(header, 24), payload })
}

/// The vote's file: whose vote, and the vote.
pub(crate) fn encode_vote(node: u64, vote: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; VOTE_HEADER];
    bytes[..8].copy_from_slice(&VOTE_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&node.to_le_bytes());
    bytes.extend_from_slice(vote);
    let crc = crc32c(&[&bytes[..12], &bytes[16..]]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the vote's file.
pub(crate) fn decode_vote(bytes: &[u8]) -> Result<(u64, &[u8]), HeaderError> {
    if bytes.len() < VOTE_HEADER || bytes[..8] != VOTE_MAGIC {
        return Err(HeaderError::Damaged("it does not begin as a vote"));
    }
    if crc32c(&[&bytes[..12], &bytes[16..]]) != u32_at(bytes, 12) {
        return Err(HeaderError::Damaged("the vote's checksum is wrong"));
    }
    match u32_at(bytes, 8) {
        VERSION => Ok((u64_at(bytes, 16), &bytes[VOTE_HEADER..])),
        version => Err(HeaderError::Later { version, flags: 0 }),
    }
}

fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("within a header whose length was checked"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("within a header whose length was checked"))
}
