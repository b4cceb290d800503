//! Lists of replicas in block reports (HDFS: `BlockListAsLongs`).
//!
//! New form, one stream cut into pieces at any byte; per replica four varints:
//! id (zigzag), length on disk, generation stamp, state. Old form, numbers:
//! `finalized count, others count, (id, length, stamp)..., -1, -1, -1, (id, length, stamp, state)...`.

use bytes::{BufMut, Bytes, BytesMut};
use mobula_types::{Block, BlockId, GenStamp, ReplicaState, StoredReplica};

use crate::{WireError, varint};

/// A piece is closed once it has this many bytes (HDFS: `CHUNK_SIZE` of 64 KiB).
pub const PIECE_LENGTH: usize = 64 << 10;
/// Most bytes of one replica: four varints.
pub const ENTRY_LENGTH_MAX: usize = 4 * varint::VARINT_LENGTH_MAX;
/// Least bytes of one replica.
const ENTRY_LENGTH_MIN: u64 = 4;

/// A list of replicas as it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedReport {
    /// How many replicas (`numberOfBlocks`).
    pub count: u64,
    /// The pieces of the stream (`blocksBuffers`).
    pub pieces: Vec<Bytes>,
}

/// Writes replicas in the new form.
#[derive(Debug, Default)]
pub struct Encoder {
    report: EncodedReport,
    piece: BytesMut,
}

impl Encoder {
    /// Adds a replica.
    pub fn push(&mut self, replica: &StoredReplica) {
        let StoredReplica { block: Block { id, stamp, length }, state } = *replica;
        self.piece.reserve(ENTRY_LENGTH_MAX);
        varint::put(varint::zigzag(id.0 as i64), &mut self.piece);
        varint::put(length, &mut self.piece);
        varint::put(stamp.0, &mut self.piece);
        self.piece.put_u8(state as u8);
        self.report.count += 1;
        if self.piece.len() >= PIECE_LENGTH {
            self.report.pieces.push(self.piece.split().freeze());
        }
    }

    /// The list.
    pub fn finish(mut self) -> EncodedReport {
        if !self.piece.is_empty() {
            self.report.pieces.push(self.piece.freeze());
        }
        self.report
    }
}

/// `replicas` in the new form.
pub fn encode<'a>(replicas: impl IntoIterator<Item = &'a StoredReplica>) -> EncodedReport {
    let mut encoder = Encoder::default();
    for replica in replicas {
        encoder.push(replica);
    }
    encoder.finish()
}

/// Reads replicas in the new form, one at a time; ends at the first error. Entries may straddle pieces.
#[derive(Debug)]
pub struct Decoder<'a> {
    pieces: &'a [Bytes],
    at: usize,
    left: u64,
}

impl<'a> Decoder<'a> {
    /// A reader of `count` replicas in `pieces`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if so many cannot be in so few bytes.
    pub fn new(count: u64, pieces: &'a [Bytes]) -> Result<Decoder<'a>, WireError> {
        let have: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let needed = count.saturating_mul(ENTRY_LENGTH_MIN);
        if needed > have {
            return Err(WireError::Truncated { what: "block report", needed, have });
        }
        Ok(Decoder { pieces, at: 0, left: count })
    }

    fn entry(&mut self) -> Result<StoredReplica, WireError> {
        let id = varint::unzigzag(self.varint()?) as u64;
        let length = self.varint()?;
        let stamp = self.varint()?;
        let state = self.varint()?;
        replica(id, length, stamp, state)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let rest = self.pieces.first().map(|piece| &piece[self.at..]).unwrap_or_default();
        if let Some((value, length)) = varint::peek(rest)? {
            self.at += length;
            return Ok(value);
        }
        self.straddling_varint()
    }

    /// A varint that goes on in the next piece: byte by byte.
    fn straddling_varint(&mut self) -> Result<u64, WireError> {
        let mut bytes = Vec::with_capacity(varint::VARINT_LENGTH_MAX);
        loop {
            let Some(piece) = self.pieces.first() else {
                return Err(WireError::Truncated { what: "block report", needed: 1, have: 0 });
            };
            let Some(&byte) = piece.get(self.at) else {
                self.pieces = &self.pieces[1..];
                self.at = 0;
                continue;
            };
            self.at += 1;
            bytes.push(byte);
            if let Some((value, _)) = varint::peek(&bytes)? {
                return Ok(value);
            }
        }
    }

    fn check_end(&self) -> Result<(), WireError> {
        let all: usize = self.pieces.iter().map(Bytes::len).sum();
        match all - self.at {
            0 => Ok(()),
            count => Err(WireError::Trailing { what: "block report", count: count as u64 }),
        }
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<StoredReplica, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let mut entry = self.entry();
        if self.left == 0 && entry.is_ok() {
            entry = self.check_end().and(entry);
        }
        if entry.is_err() {
            self.left = 0;
        }
        Some(entry)
    }
}

/// Reads a list of the new form whole.
///
/// # Errors
/// [`WireError`] for the first thing that is wrong.
pub fn decode(count: u64, pieces: &[Bytes]) -> Result<Vec<StoredReplica>, WireError> {
    Decoder::new(count, pieces)?.collect()
}

/// Reads a list of the old form.
///
/// # Errors
/// [`WireError`] for the first thing that is wrong.
pub fn decode_longs(longs: &[u64]) -> Result<Vec<StoredReplica>, WireError> {
    let [finalized, others, rest @ ..] = longs else {
        // HDFS sends nothing at all for an empty volume.
        return match longs.len() {
            0 => Ok(Vec::new()),
            have => Err(WireError::Truncated { what: "block report", needed: 2, have: have as u64 }),
        };
    };
    let needed = finalized
        .checked_mul(3)
        .and_then(|numbers| numbers.checked_add(3))
        .and_then(|numbers| numbers.checked_add(others.checked_mul(4)?));
    if needed != Some(rest.len() as u64) {
        let (left, right) = (needed.unwrap_or(u64::MAX) as i64, rest.len() as i64);
        return Err(WireError::Differ { what: "numbers of a block report", left, right });
    }
    let (first, rest) = rest.split_at(*finalized as usize * 3);
    let (delimiter, second) = rest.split_at(3);
    if delimiter != [u64::MAX; 3] {
        return Err(WireError::Missing { what: "the middle of a block report" });
    }
    let first = first
        .chunks_exact(3)
        .map(|entry| replica(entry[0], entry[1], entry[2], ReplicaState::Finalized as u64));
    let second = second.chunks_exact(4).map(|entry| replica(entry[0], entry[1], entry[2], entry[3]));
    first.chain(second).collect()
}

/// `replicas` in the old form.
pub fn encode_longs(replicas: &[StoredReplica]) -> Vec<u64> {
    let is_finalized = |replica: &&StoredReplica| replica.state == ReplicaState::Finalized;
    let count = replicas.iter().filter(is_finalized).count();
    let mut longs = vec![count as u64, (replicas.len() - count) as u64];
    for StoredReplica { block, .. } in replicas.iter().filter(is_finalized) {
        longs.extend([block.id.0, block.length, block.stamp.0]);
    }
    longs.extend([u64::MAX; 3]);
    for StoredReplica { block, state } in replicas.iter().filter(|replica| !is_finalized(replica)) {
        longs.extend([block.id.0, block.length, block.stamp.0, *state as u64]);
    }
    longs
}

fn replica(id: u64, length: u64, stamp: u64, state: u64) -> Result<StoredReplica, WireError> {
    // Java's longs: above 2^63 a length is negative.
    if i64::try_from(length).is_err() {
        let (what, value) = ("length of a replica", length as i64);
        return Err(WireError::OutOfRange { what, value, min: 0, max: i64::MAX });
    }
    let state = ReplicaState::from_number(state)
        .ok_or(WireError::Unknown { what: "state of a replica", value: state as i64 })?;
    Ok(StoredReplica { block: Block { id: BlockId(id), stamp: GenStamp(stamp), length }, state })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn any_replica() -> impl Strategy<Value = StoredReplica> {
        (any::<u64>(), 0..=i64::MAX as u64, any::<u64>(), 0u64..5)
            .prop_map(|(id, length, stamp, state)| replica(id, length, stamp, state).unwrap())
    }

    #[test]
    fn golden_bytes() {
        let one = replica(1_073_741_825, 10, 1001, 0).unwrap();
        let report = encode([&one]);
        assert_eq!(&report.pieces[0][..], [0x82, 0x80, 0x80, 0x80, 0x08, 10, 0xe9, 0x07, 0]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(decode(u64::MAX, &[Bytes::from_static(&[2, 2, 2, 0])]).is_err());
        assert!(decode(1, &[Bytes::from_static(&[2, 2, 2, 9])]).is_err());
        assert!(decode(1, &[Bytes::from_static(&[2, 2, 2, 0, 0])]).is_err());
        assert!(decode(1, &[]).is_err());
        assert_eq!(decode(0, &[]).unwrap(), []);
        assert_eq!(decode_longs(&[]).unwrap(), []);
        for bad in [&[1u64][..], &[u64::MAX, 1], &[0, 0, 1, 1, 1], &[1, 0, 1, 1, 1], &[0, u64::MAX / 4, 1]] {
            assert!(decode_longs(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn many_replicas_make_many_pieces() {
        let all: Vec<_> = (0..100_000).map(|n| replica(1 << 30 | n, n, 1000 + n, n % 5).unwrap()).collect();
        let report = encode(&all);
        assert!(report.pieces.len() > 10);
        assert_eq!(decode(report.count, &report.pieces).unwrap(), all);
    }

    proptest! {
        #[test]
        fn round_trip_over_any_pieces(
            replicas in proptest::collection::vec(any_replica(), 0..50),
            size in 1usize..40,
        ) {
            let report = encode(&replicas);
            let whole: Vec<u8> = report.pieces.concat();
            let pieces: Vec<Bytes> = whole.chunks(size).map(Bytes::copy_from_slice).collect();
            prop_assert_eq!(decode(report.count, &pieces).unwrap(), replicas.clone());
            let mut sorted = replicas;
            sorted.sort_by_key(|replica| replica.state != ReplicaState::Finalized);
            prop_assert_eq!(decode_longs(&encode_longs(&sorted)).unwrap(), sorted);
        }

        #[test]
        fn any_bytes(count: u64, small in 0u64..100, pieces: Vec<Vec<u8>>, longs: Vec<u64>) {
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            let _ = decode(count, &pieces);
            let _ = decode(small, &pieces);
            let _ = decode_longs(&longs);
        }
    }
}
