//! The log's bytes: docs/formats/log.md draws them, and a test holds that page to this file.
//! Knows no file.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use crate::face::Position;

/// First bytes of every segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"mobulog\n";
/// First bytes of the vote's file.
pub(crate) const VOTE_MAGIC: [u8; 8] = *b"mobuvot\n";
/// The version of the segments that this code writes; it also reads version 1.
pub(crate) const VERSION: u32 = 2;
/// The first version, whose records anybody can make who can have bytes written into the log.
const VERSION_UNSALTED: u32 = 1;
/// The version of the vote's file.
pub(crate) const VOTE_VERSION: u32 = 1;
/// Bytes of a segment before its first record.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// Of these, the ones that all versions have in common, and all that version 1 has.
pub(crate) const SEGMENT_HEADER_COMMON: usize = 48;
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

/// What the records of a segment are told from bytes by that only look like records: without it no
/// checksum is right. Random for each segment and written nowhere else, so that nobody who has a say in
/// what is logged (a file's name, say) can plant a record inside of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) u64);

impl Salt {
    /// Each record bears this part openly. A checksum alone could be guessed: a batch has room for
    /// millions of tries, and there are only 2^32 checksums.
    fn mark(self) -> [u8; 3] {
        let [.., a, b, c] = self.0.to_le_bytes();
        [a, b, c]
    }
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
    /// What its records are made with; `None` in version 1.
    pub(crate) salt: Option<Salt>,
}

impl SegmentHeader {
    /// Where the first record goes.
    pub(crate) fn size(&self) -> usize {
        if self.salt.is_some() { SEGMENT_HEADER } else { SEGMENT_HEADER_COMMON }
    }

    /// The index of the segment's first entry.
    pub(crate) fn first(&self) -> u64 {
        self.previous.map_or(0, |previous| previous.index + 1)
    }

    /// Its bytes, which are of version 2: it must have a salt.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let salt = self.salt.expect("only version 1 has none, and that is not written any more");
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(if self.reset { FLAG_RESET } else { 0 }).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.node.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous.map_or(0, |p| p.term).to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first().to_le_bytes());
        let crc = crc32c(&[&bytes[..44]]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes[48..56].copy_from_slice(&salt.0.to_le_bytes());
        let crc = crc32c(&[&bytes[..60]]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; says what is wrong if it is not a whole one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(common) = bytes.first_chunk::<SEGMENT_HEADER_COMMON>() else {
            return Err(HeaderError::Damaged("the header is cut short"));
        };
        if common[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Damaged("it does not begin as a segment of the log"));
        }
        if crc32c(&[&common[..44]]) != u32_at(common, 44) {
            return Err(HeaderError::Damaged("the header's checksum is wrong"));
        }
        let (version, flags) = (u32_at(common, 8), u32_at(common, 12));
        if !(VERSION_UNSALTED..=VERSION).contains(&version) || flags & !FLAG_RESET != 0 {
            return Err(HeaderError::Later { version, flags });
        }
        let salt = if version == VERSION_UNSALTED { None } else { Some(decode_salt(bytes)?) };
        let first = u64_at(common, 32);
        let previous = first.checked_sub(1).map(|index| Position { term: u64_at(common, 24), index });
        Ok(SegmentHeader { node: u64_at(common, 16), previous, reset: flags & FLAG_RESET != 0, salt })
    }
}

fn decode_salt(bytes: &[u8]) -> Result<Salt, HeaderError> {
    let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER>() else {
        return Err(HeaderError::Damaged("the header is cut short"));
    };
    if crc32c(&[&bytes[..60]]) != u32_at(bytes, 60) {
        return Err(HeaderError::Damaged("the header's second checksum is wrong"));
    }
    Ok(Salt(u64_at(bytes, 48)))
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

    /// Appends it to `out`, for a segment with this salt. `back` is how far before it the batch begins
    /// that it is synced with.
    pub(crate) fn encode(&self, salt: Option<Salt>, back: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).expect("no payload beyond PAYLOAD_MAX gets here");
        let mut header = [0; RECORD_HEADER];
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&self.position.term.to_le_bytes());
        header[16..24].copy_from_slice(&self.position.index.to_le_bytes());
        header[24..28].copy_from_slice(&back.to_le_bytes());
        header[28] = self.kind as u8;
        header[29..].copy_from_slice(&mark(salt));
        let crc = record_checksum(salt, &header, &self.payload);
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

fn mark(salt: Option<Salt>) -> [u8; 3] {
    salt.map_or([0; 3], Salt::mark)
}

fn record_checksum(salt: Option<Salt>, header: &[u8; RECORD_HEADER], payload: &[u8]) -> u32 {
    match salt {
        None => crc32c(&[&header[4..], payload]),
        Some(salt) => crc32c(&[&salt.0.to_le_bytes(), &header[4..], payload]),
    }
}

/// Reads the record at the beginning of `bytes`, of a segment with this salt; says what is wrong if
/// there is no whole one.
pub(crate) fn decode(salt: Option<Salt>, bytes: &[u8]) -> Result<Found<'_>, &'static str> {
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
    if header[29..] != mark(salt) {
        return Err("a record does not bear its segment's mark");
    }
    if record_checksum(salt, header, payload) != u32_at(header, 0) {
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
    bytes[8..12].copy_from_slice(&VOTE_VERSION.to_le_bytes());
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
        VOTE_VERSION => Ok((u64_at(bytes, 16), &bytes[VOTE_HEADER..])),
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
