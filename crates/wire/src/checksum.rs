//! Checksums of data: one CRC, big-endian, for each chunk (HDFS: `DataChecksum`), and their composition
//! into the CRC of the whole (`CrcComposer`).

use bytes::BufMut;
use crc_fast::{CrcAlgorithm, Digest};
use mobula_proto::hdfs::{ChecksumProto, ChecksumTypeProto};

use crate::WireError;
use crate::packet::PACKET_LENGTH_MAX;

/// Length of one chunk's checksum, in bytes.
pub const SUM_LENGTH: usize = 4;
/// Largest chunk, in bytes: one must fit into a packet, together with its checksum and the packet's header.
pub const BYTES_PER_CHUNK_MAX: u32 = PACKET_LENGTH_MAX as u32 / 2;
/// HDFS's default chunk, in bytes (`dfs.bytes-per-checksum`).
pub const BYTES_PER_CHUNK_DEFAULT: u32 = 512;

/// Which checksum, with HDFS's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChecksumKind {
    /// None at all.
    Null = 0,
    /// That of gzip and Ethernet.
    Crc32 = 1,
    /// Castagnoli's: HDFS's default.
    #[default]
    Crc32c = 2,
}

impl ChecksumKind {
    /// The kind with that number on the wire and on disk.
    ///
    /// # Errors
    /// [`WireError::Unknown`].
    pub fn from_number(number: i32) -> Result<ChecksumKind, WireError> {
        Ok(match number {
            0 => ChecksumKind::Null,
            1 => ChecksumKind::Crc32,
            2 => ChecksumKind::Crc32c,
            _ => return Err(WireError::Unknown { what: "checksum type", value: number.into() }),
        })
    }

    /// Its number in messages.
    pub fn proto(self) -> ChecksumTypeProto {
        match self {
            ChecksumKind::Null => ChecksumTypeProto::ChecksumNull,
            ChecksumKind::Crc32 => ChecksumTypeProto::ChecksumCrc32,
            ChecksumKind::Crc32c => ChecksumTypeProto::ChecksumCrc32c,
        }
    }

    /// Java's name of it, as in `MD5-of-0MD5-of-512CRC32C`.
    pub fn name(self) -> &'static str {
        match self {
            ChecksumKind::Null => "NULL",
            ChecksumKind::Crc32 => "CRC32",
            ChecksumKind::Crc32c => "CRC32C",
        }
    }

    /// The checksum of `data`; 0 for [`ChecksumKind::Null`].
    #[inline]
    pub fn crc(self, data: &[u8]) -> u32 {
        match self {
            ChecksumKind::Null => 0,
            ChecksumKind::Crc32 => crc_fast::crc32_iso_hdlc(data),
            ChecksumKind::Crc32c => crc_fast::crc32_iscsi(data),
        }
    }

    /// The checksum of some bytes and then `data`, from the checksum `crc` of those bytes (0 for none).
    pub fn append(self, crc: u32, data: &[u8]) -> u32 {
        let algorithm = match self {
            ChecksumKind::Null => return 0,
            ChecksumKind::Crc32 => CrcAlgorithm::Crc32IsoHdlc,
            ChecksumKind::Crc32c => CrcAlgorithm::Crc32Iscsi,
        };
        let mut digest = Digest::new_with_init_state(algorithm, u64::from(!crc));
        digest.update(data);
        digest.finalize() as u32
    }

    /// The checksum of A followed by B, from the checksum `a` of A, `b` of B and the length of B in bytes.
    /// For many B of one length, [`Combiner`] is faster.
    pub fn combine(self, a: u32, b: u32, b_length: u64) -> u32 {
        Combiner::new(self, b_length).combine(a, b)
    }

    /// The polynomial, lowest power in the highest bit; 0 for none.
    fn polynomial(self) -> u32 {
        match self {
            ChecksumKind::Null => 0,
            ChecksumKind::Crc32 => 0xedb8_8320,
            ChecksumKind::Crc32c => 0x82f6_3b78,
        }
    }
}

/// Joins checksums where the second part always has the same length: x^(8 * length) is computed once.
#[derive(Clone, Copy, Debug)]
pub struct Combiner {
    kind: ChecksumKind,
    shift: u32,
}

impl Combiner {
    /// For second parts of `length` bytes.
    pub fn new(kind: ChecksumKind, length: u64) -> Combiner {
        let polynomial = kind.polynomial();
        // 1 is the highest bit here, x^8 the ninth from above.
        let (mut power, mut rest, mut shift) = (1u32 << 23, length, 1u32 << 31);
        if polynomial != 0 {
            while rest != 0 {
                if rest & 1 == 1 {
                    shift = multiply(shift, power, polynomial);
                }
                power = multiply(power, power, polynomial);
                rest >>= 1;
            }
        }
        Combiner { kind, shift }
    }

    /// The checksum of A followed by B, where B has the length this was made for.
    #[inline]
    pub fn combine(&self, a: u32, b: u32) -> u32 {
        multiply(self.shift, a, self.kind.polynomial()) ^ b
    }
}

/// The product of two polynomials over GF(2) modulo `polynomial`, all of them with the lowest power in the
/// highest bit.
fn multiply(a: u32, mut b: u32, polynomial: u32) -> u32 {
    let mut product = 0;
    for power in (0..32).rev() {
        // Both by masks: the bits of a checksum cannot be predicted.
        product ^= b & (a >> power & 1).wrapping_neg();
        b = (b >> 1) ^ (polynomial & (b & 1).wrapping_neg());
    }
    product
}

/// A checksum and its chunks. Invariant: the chunk has from 1 to [`BYTES_PER_CHUNK_MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum {
    kind: ChecksumKind,
    bytes_per_chunk: u32,
}

/// A chunk whose checksum is not the one that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("checksum of chunk {chunk}: {expected:#010x} expected, the data has {actual:#010x}")]
pub struct Mismatch {
    /// Which chunk of those that were checked, from 0.
    pub chunk: usize,
    /// What came with it.
    pub expected: u32,
    /// What the data has.
    pub actual: u32,
}

impl Checksum {
    /// A checksum of `kind` for each `bytes_per_chunk` bytes.
    ///
    /// # Errors
    /// [`WireError::OutOfRange`] unless the chunk has from 1 to [`BYTES_PER_CHUNK_MAX`] bytes.
    pub fn new(kind: ChecksumKind, bytes_per_chunk: u32) -> Result<Checksum, WireError> {
        if bytes_per_chunk == 0 || bytes_per_chunk > BYTES_PER_CHUNK_MAX {
            return Err(WireError::OutOfRange {
                what: "bytes per checksum",
                value: bytes_per_chunk.into(),
                min: 1,
                max: BYTES_PER_CHUNK_MAX.into(),
            });
        }
        Ok(Checksum { kind, bytes_per_chunk })
    }

    /// CRC32C of 512 bytes, as HDFS has it by default.
    pub const fn default_crc32c() -> Checksum {
        Checksum { kind: ChecksumKind::Crc32c, bytes_per_chunk: BYTES_PER_CHUNK_DEFAULT }
    }

    /// Which checksum.
    pub fn kind(&self) -> ChecksumKind {
        self.kind
    }

    /// Bytes that one checksum covers.
    pub fn bytes_per_chunk(&self) -> u32 {
        self.bytes_per_chunk
    }

    /// How many chunks `data_length` bytes that begin at a chunk's border have.
    pub fn chunks(&self, data_length: u64) -> u64 {
        data_length.div_ceil(self.bytes_per_chunk.into())
    }

    /// Bytes of checksums for `data_length` bytes that begin at a chunk's border; 0 for
    /// [`ChecksumKind::Null`].
    pub fn sums_length(&self, data_length: u64) -> u64 {
        match self.kind {
            ChecksumKind::Null => 0,
            _ => self.chunks(data_length) * SUM_LENGTH as u64,
        }
    }

    /// The last chunk's border at or below `offset`.
    pub fn chunk_start(&self, offset: u64) -> u64 {
        offset - offset % u64::from(self.bytes_per_chunk)
    }

    /// Appends the checksums of `data`, which begins at a chunk's border.
    pub fn compute(&self, data: &[u8], sums: &mut impl BufMut) {
        if self.kind == ChecksumKind::Null {
            return;
        }
        for chunk in data.chunks(self.bytes_per_chunk as usize) {
            sums.put_u32(self.kind.crc(chunk));
        }
    }

    /// Compares `data`, which begins at a chunk's border, with its checksums. Always well for
    /// [`ChecksumKind::Null`].
    ///
    /// # Errors
    /// [`Mismatch`] for the first chunk that differs; a chunk without a checksum, and a checksum
    /// without a chunk, differ too.
    pub fn verify(&self, data: &[u8], sums: &[u8]) -> Result<(), Mismatch> {
        if self.kind == ChecksumKind::Null {
            return Ok(());
        }
        let chunks = data.chunks(self.bytes_per_chunk as usize);
        if sums.len() != chunks.len() * SUM_LENGTH {
            let chunk = chunks.len().min(sums.len() / SUM_LENGTH);
            return Err(Mismatch { chunk, expected: 0, actual: 0 });
        }
        for (index, (chunk, sum)) in chunks.zip(sums.chunks_exact(SUM_LENGTH)).enumerate() {
            let actual = self.kind.crc(chunk);
            let expected = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
            if actual != expected {
                return Err(Mismatch { chunk: index, expected, actual });
            }
        }
        Ok(())
    }

    /// The checksum of the `data_length` bytes whose chunks have `sums` (COMPOSITE_CRC). The bytes begin at a
    /// chunk's border.
    ///
    /// # Errors
    /// [`WireError::Differ`] if there are more or fewer sums than chunks.
    pub fn compose(&self, sums: &[u8], data_length: u64) -> Result<u32, WireError> {
        let needed = self.sums_length(data_length);
        if sums.len() as u64 != needed {
            let (left, right) = (needed as i64, sums.len() as i64);
            return Err(WireError::Differ { what: "bytes of checksums", left, right });
        }
        let whole = Combiner::new(self.kind, self.bytes_per_chunk.into());
        let last_length = data_length - self.chunk_start(data_length.saturating_sub(1));
        let last = Combiner::new(self.kind, last_length);
        let count = sums.len() / SUM_LENGTH;
        let mut crc = 0;
        for (index, sum) in sums.chunks_exact(SUM_LENGTH).enumerate() {
            let sum = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
            crc = if index + 1 == count { last.combine(crc, sum) } else { whole.combine(crc, sum) };
        }
        Ok(crc)
    }

    /// As a message.
    pub fn to_proto(&self) -> ChecksumProto {
        ChecksumProto { r#type: self.kind.proto() as i32, bytes_per_checksum: self.bytes_per_chunk }
    }

    /// From a message.
    ///
    /// # Errors
    /// [`WireError`] for an unknown type or a chunk out of range.
    pub fn from_proto(proto: &ChecksumProto) -> Result<Checksum, WireError> {
        let ChecksumProto { r#type, bytes_per_checksum } = *proto;
        Checksum::new(ChecksumKind::from_number(r#type)?, bytes_per_checksum)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn any_kind() -> impl Strategy<Value = ChecksumKind> {
        prop_oneof![Just(ChecksumKind::Crc32), Just(ChecksumKind::Crc32c)]
    }

    #[test]
    fn check_values() {
        assert_eq!(ChecksumKind::Crc32.crc(b"123456789"), 0xcbf4_3926);
        assert_eq!(ChecksumKind::Crc32c.crc(b"123456789"), 0xe306_9283);
        assert_eq!(ChecksumKind::Crc32c.append(0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_flipped_bit_is_found_in_its_chunk() {
        let checksum = Checksum::default_crc32c();
        let mut data = vec![7u8; 1300];
        let mut sums = Vec::new();
        checksum.compute(&data, &mut sums);
        assert_eq!(sums.len() as u64, checksum.sums_length(1300));
        assert_eq!(checksum.verify(&data, &sums), Ok(()));
        data[600] ^= 1;
        assert_eq!(checksum.verify(&data, &sums).unwrap_err().chunk, 1);
        data[600] ^= 1;
        assert_eq!(checksum.verify(&data, &sums[..8]).unwrap_err().chunk, 2);
        assert!(checksum.verify(&data[..1024], &sums).is_err());
    }

    #[test]
    fn refuses_chunks_out_of_range() {
        for bytes in [0, BYTES_PER_CHUNK_MAX + 1, u32::MAX] {
            assert!(Checksum::new(ChecksumKind::Crc32c, bytes).is_err());
        }
        assert!(Checksum::from_proto(&ChecksumProto { r#type: 3, bytes_per_checksum: 512 }).is_err());
    }

    proptest! {
        #[test]
        fn parts_combine_to_the_whole(
            kind in any_kind(),
            a in proptest::collection::vec(any::<u8>(), 0..2000),
            b in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let whole = [&a[..], &b].concat();
            prop_assert_eq!(kind.combine(kind.crc(&a), kind.crc(&b), b.len() as u64), kind.crc(&whole));
            prop_assert_eq!(kind.append(kind.crc(&a), &b), kind.crc(&whole));
        }

        #[test]
        fn chunks_compose_to_the_whole(
            kind in any_kind(),
            chunk in 1u32..600,
            data in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let checksum = Checksum::new(kind, chunk).unwrap();
            let mut sums = Vec::new();
            checksum.compute(&data, &mut sums);
            prop_assert_eq!(checksum.compose(&sums, data.len() as u64).unwrap(), kind.crc(&data));
            prop_assert!(checksum.verify(&data, &sums).is_ok());
        }
    }
}
