//! The journal's bytes: docs/formats/journal.md draws them, and a test holds that page to this file. Pure: knows no file.

use mobula_types::{Block, BlockId, GenStamp};
use mobula_wire::checksum::{Checksum, ChecksumKind};
use mobula_wire::meta::{self, META_HEADER_LENGTH};

/// First bytes of a journal's file.
pub(crate) const MAGIC: [u8; 8] = *b"mobjrnl\n";
/// The version that this code writes, and the only one.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the header.
pub(crate) const HEADER: usize = 40;
/// Where the first record goes: what the disk writes at once is not shared with the header.
pub(crate) const RECORDS_FROM: u64 = 512;
/// Bytes of a record before its data.
pub(crate) const RECORD_HEADER: usize = 64;
/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN: usize = 8;
/// The longest data of one record, in bytes. What is longer is synced where it lies: to write it twice would cost more
/// than the sync.
pub(crate) const DATA_MAX: usize = 64 << 10;

/// The longest replica that is finished in a journal, in bytes. Several that are longer are better synced together, where
/// they lie: the disk gets the same bytes, and once.
pub(crate) const FINAL_MAX: usize = 16 << 10;

/// The first bytes of a file. Another one makes all records behind it nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Of two files, that with the lower one was written first.
    pub order: u64,
    /// Random, and in the checksum of each record: those of an earlier use of the file, and bytes that a client wrote
    /// so that they look like a record, are none.
    pub salt: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.order.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let crc = ChecksumKind::Crc32c.crc(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        let bytes: &[u8; HEADER] = bytes.first_chunk().ok_or(HeaderError::Damaged)?;
        if bytes[..8] != MAGIC || u32_at(bytes, 36) != ChecksumKind::Crc32c.crc(&bytes[..36]) {
            return Err(HeaderError::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(Header { order: u64_at(bytes, 16), salt: u64_at(bytes, 24) }),
            later => Err(HeaderError::Version(later)),
        }
    }
}

/// Why a file's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It is not whole.
    Damaged,
    /// It is whole, and of a version that is not known here.
    Version(u32),
}

/// What a record says of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// These bytes of an open replica are durable.
    Written = 1,
    /// The replica is final, and these are all its bytes.
    Final = 2,
    /// What was said of the block before counts no more.
    Forgotten = 3,
    /// The replica was removed: what the disk may still have of it goes.
    Removed = 4,
}

/// A record, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub fact: Fact,
    /// The replica; it ends where the record's data does.
    pub block: Block,
    /// Where the data begins: at a chunk's border.
    pub start: u64,
    pub checksum: Checksum,
    pub data: &'a [u8],
    /// Those of all chunks of `data`.
    pub sums: &'a [u8],
}

/// A record's bytes, all but what its place in a file decides.
#[derive(Clone, Debug)]
pub(crate) struct Draft(Vec<u8>);

impl Draft {
    /// One with room for data up to the end of `block` from `start` on; [`Draft::parts`] is to be filled.
    pub(crate) fn new(fact: Fact, block: Block, start: u64, checksum: Checksum) -> Draft {
        let data = block.length - start;
        let sums = checksum.sums_length(data);
        let size = record_size(data as usize, sums as usize);
        let mut bytes = vec![0; size];
        bytes[4] = fact as u8;
        bytes[16..24].copy_from_slice(&block.id.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&block.stamp.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&start.to_le_bytes());
        bytes[40..44].copy_from_slice(&(data as u32).to_le_bytes());
        bytes[44..48].copy_from_slice(&(sums as u32).to_le_bytes());
        bytes[48..48 + META_HEADER_LENGTH].copy_from_slice(&meta::encode(checksum));
        Draft(bytes)
    }

    /// One without data, that says that the block is to be forgotten, or was removed.
    pub(crate) fn empty(fact: Fact, block: Block) -> Draft {
        Draft::new(fact, Block { length: 0, ..block }, 0, Checksum::default_crc32c())
    }

    /// Where data and checksums go.
    pub(crate) fn parts(&mut self) -> (&mut [u8], &mut [u8]) {
        let (data, sums) = (u32_at(&self.0, 40) as usize, u32_at(&self.0, 44) as usize);
        let (data, rest) = self.0[RECORD_HEADER..].split_at_mut(data);
        (data, &mut rest[..sums])
    }

    /// Where the replica ends with it.
    pub(crate) fn end(&self) -> u64 {
        u64_at(&self.0, 32) + u64::from(u32_at(&self.0, 40))
    }

    /// Its bytes in a file, padding included.
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    /// Appends it to `out`, as record `number` (from 0) of a file with that salt.
    pub(crate) fn encode(mut self, salt: u64, number: u64, out: &mut Vec<u8>) {
        self.0[8..16].copy_from_slice(&number.to_le_bytes());
        let crc = checksum(salt, &self.0[4..]);
        self.0[..4].copy_from_slice(&crc.to_le_bytes());
        out.append(&mut self.0);
    }
}

/// Reads the record at the beginning of `bytes`, which must be the one of that number in a file with that salt; and how
/// many bytes it takes. None if there is no such one: that is the journal's end.
pub(crate) fn decode(salt: u64, number: u64, bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let header: &[u8; RECORD_HEADER] = bytes.first_chunk()?;
    let (data, sums) = (u32_at(header, 40) as usize, u32_at(header, 44) as usize);
    if data > DATA_MAX || sums > DATA_MAX || u64_at(header, 8) != number {
        return None;
    }
    let size = record_size(data, sums);
    let whole = bytes.get(..size)?;
    if u32_at(header, 0) != checksum(salt, &whole[4..]) {
        return None;
    }
    let fact = match header[4] {
        1 => Fact::Written,
        2 => Fact::Final,
        3 => Fact::Forgotten,
        4 => Fact::Removed,
        _ => return None,
    };
    let kind = meta::decode(&header[48..]).ok()?;
    let start = u64_at(header, 32);
    let fits = start == kind.chunk_start(start) && kind.sums_length(data as u64) == sums as u64;
    let length = start.checked_add(data as u64).filter(|_| fits)?;
    let block = Block { id: BlockId(u64_at(header, 16)), stamp: GenStamp(u64_at(header, 24)), length };
    let (data, rest) = whole[RECORD_HEADER..].split_at(data);
    Some((Record { fact, block, start, checksum: kind, data, sums: &rest[..sums] }, size))
}

fn record_size(data: usize, sums: usize) -> usize {
    (RECORD_HEADER + data + sums).next_multiple_of(RECORD_ALIGN)
}

fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    let kind = ChecksumKind::Crc32c;
    kind.append(kind.crc(&salt.to_le_bytes()), bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SALT: u64 = 0x0123_4567_89ab_cdef;

    fn draft(fact: Fact, id: u64, start: u64, data: &[u8]) -> Draft {
        let block = Block { id: BlockId(id), stamp: GenStamp(1001), length: start + data.len() as u64 };
        let checksum = Checksum::default_crc32c();
        let mut draft = Draft::new(fact, block, start, checksum);
        let mut sums = Vec::new();
        checksum.compute(data, &mut sums);
        let (data_part, sums_part) = draft.parts();
        data_part.copy_from_slice(data);
        sums_part.copy_from_slice(&sums);
        draft
    }

    /// The page's examples, from the code.
    #[test]
    fn the_page_shows_these_bytes() {
        let hex = |bytes: &[u8]| {
            let mut text = String::new();
            for line in bytes.chunks(16) {
                let words: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                text.push_str(&format!("    {}\n", words.join(" ")));
            }
            text
        };
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/journal.md"));
        let header = Header { order: 3, salt: SALT };
        let mut bytes = header.encode().to_vec();
        assert!(page.contains(&hex(&bytes)), "the header is\n{}", hex(&bytes));
        bytes.clear();
        draft(Fact::Written, 1_073_741_825, 512, b"mobula").encode(SALT, 7, &mut bytes);
        assert!(page.contains(&hex(&bytes)), "the record is\n{}", hex(&bytes));
        let constants = [
            ("VERSION", u64::from(VERSION)),
            ("HEADER", HEADER as u64),
            ("RECORDS_FROM", RECORDS_FROM),
            ("RECORD_HEADER", RECORD_HEADER as u64),
            ("RECORD_ALIGN", RECORD_ALIGN as u64),
            ("DATA_MAX", DATA_MAX as u64),
        ];
        for (name, value) in constants {
            let row = format!("| `{name}` | {value} |");
            assert!(page.contains(&row), "the page lacks {row}");
        }
    }

    #[test]
    fn a_header_is_whole_or_not_and_of_this_version_or_another() {
        let header = Header { order: 1, salt: SALT };
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(Header::decode(&bytes[..HEADER - 1]), Err(HeaderError::Damaged));
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Damaged));
        let crc = ChecksumKind::Crc32c.crc(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Version(2)));
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let data: Vec<u8> = (0..1300u32).map(|at| (at % 251) as u8).collect();
        let mut bytes = Vec::new();
        draft(Fact::Written, 5, 1024, &data).encode(SALT, 0, &mut bytes);
        let first = bytes.len();
        Draft::empty(Fact::Forgotten, Block { id: BlockId(5), stamp: GenStamp(1001), length: 9 })
            .encode(SALT, 1, &mut bytes);
        let (record, size) = decode(SALT, 0, &bytes).unwrap();
        assert_eq!((record.fact, record.start, record.block.length), (Fact::Written, 1024, 2324));
        assert_eq!((record.data, size), (&data[..], first));
        record.checksum.verify(record.data, record.sums).unwrap();
        let (record, _) = decode(SALT, 1, &bytes[first..]).unwrap();
        assert_eq!((record.fact, record.block.id), (Fact::Forgotten, BlockId(5)));
        assert_eq!(decode(SALT, 1, &bytes), None, "another number");
        assert_eq!(decode(SALT + 1, 0, &bytes), None, "another salt");
        assert_eq!(decode(SALT, 0, &bytes[..first - 1]), None, "cut short");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<(usize, u8)>()) {
            let _ = decode(SALT, 0, &bytes);
            let _ = Header::decode(&bytes);
            let mut good = Vec::new();
            draft(Fact::Final, 1, 0, &bytes).encode(SALT, 0, &mut good);
            prop_assert!(decode(SALT, 0, &good).is_some());
            let at = flip.0 % good.len();
            good[at] ^= flip.1;
            prop_assert_eq!(decode(SALT, 0, &good).is_some(), flip.1 == 0);
            bytes.splice(..0, good);
            let _ = decode(SALT, 0, &bytes);
        }
    }
}
