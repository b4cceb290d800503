//! Packets that go to the disk together, and the rules by which a packet joins what was received
//! (HDFS: `BlockReceiver.receivePacket`): overlap with what is there, partial chunks, checksums.
//!
//! Pure: bytes in, a plan of what to write out. Knows no socket and no file.

use mobula_disk::DIRECT_ALIGN;
use mobula_wire::checksum::{Checksum, ChecksumKind, Mismatch, SUM_LENGTH};
use mobula_wire::packet::PacketHeader;

use crate::replica::{Piece, Write};

/// Data that is gathered for one write to the disk, in bytes.
const BATCH_BYTES: usize = 1 << 20;
/// How much more is taken to end at a page's border. Packets of one length that is a multiple of 512
/// bytes come to one after eight at most: 64,512 bytes after four.
const BATCH_BYTES_MORE: usize = 512 << 10;
/// Packets that are gathered for one write: small ones must not pile up.
const BATCH_PACKETS_MAX: usize = 256;
/// A buffer that was filled so far is made large and stays in place, so that its pages can be aligned.
const STEADY_MIN: usize = 256 << 10;

/// Why a packet is refused; the sender is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("packet {seqno} begins at {offset}, only {received} bytes were received before: out-of-sequence")]
    Gap { seqno: i64, offset: u64, received: u64 },
    #[error("packet {seqno} at {offset}: {source}")]
    Checksum { seqno: i64, offset: u64, source: Mismatch },
    #[error("packet {seqno} at {offset} crosses the border of a chunk that it begins within")]
    Crosses { seqno: i64, offset: u64 },
    #[error("packet {seqno}: the last one of a block has no data, this one has {length} bytes")]
    LastWithData { seqno: i64, length: u32 },
    #[error("packet {seqno} ends the block at {offset}, but {received} bytes were received")]
    WrongEnd { seqno: i64, offset: u64, received: u64 },
}

/// A packet that is to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub seqno: i64,
    /// Where its data ends in the block.
    pub end: u64,
    pub last: bool,
    pub sync: bool,
}

/// How a sender sums its chunks, and how the replica has them. They cover as many bytes each, else nothing fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksums {
    pub sent: Checksum,
    pub stored: Checksum,
}

/// Where the next byte of a replica goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Bytes received.
    pub length: u64,
    /// The checksum of the last chunk, if it is not full.
    pub last_sum: u32,
}

/// Some packets in a row, with their bytes in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Data, as it arrived.
    pub data: Vec<u8>,
    /// Where the first byte lies in it: as far behind a page's border as in the file.
    base: usize,
    /// Up to where it is used.
    pub filled: usize,
    sums: Vec<u8>,
    data_pieces: Vec<Piece>,
    sum_pieces: Vec<Piece>,
    /// The packets.
    pub packets: Vec<Arrived>,
    /// The tail behind the last of them.
    pub tail: Tail,
}

impl Batch {
    /// Empties it for the packets that follow byte `next` of the block; the buffers stay.
    pub(crate) fn begin(&mut self, next: u64) {
        self.base = 0;
        if self.data.len() >= STEADY_MIN {
            let steady = BATCH_BYTES + 2 * BATCH_BYTES_MORE;
            self.data.reserve_exact(steady.saturating_sub(self.data.len()));
            let past = self.data.as_ptr().addr() % DIRECT_ALIGN;
            self.base = (DIRECT_ALIGN - past) % DIRECT_ALIGN + next as usize % DIRECT_ALIGN;
        }
        self.filled = self.base;
        self.sums.clear();
        self.data_pieces.clear();
        self.sum_pieces.clear();
        self.packets.clear();
    }

    /// Whether there is enough for a write.
    pub(crate) fn is_full(&self) -> bool {
        let length = self.filled - self.base;
        let at_border = self.tail.length.is_multiple_of(DIRECT_ALIGN as u64);
        self.packets.len() >= BATCH_PACKETS_MAX
            || (length >= BATCH_BYTES && at_border)
            || length >= BATCH_BYTES + BATCH_BYTES_MORE
    }

    /// What is to be written, if anything.
    pub(crate) fn write(&self, checksum: Checksum) -> Option<Write<'_>> {
        let partial = !self.tail.length.is_multiple_of(u64::from(checksum.bytes_per_chunk()));
        (!self.data_pieces.is_empty()).then_some(Write {
            data: &self.data,
            data_pieces: &self.data_pieces,
            sums: &self.sums,
            sum_pieces: &self.sum_pieces,
            end: self.tail.length,
            last_sum: (partial && checksum.kind() != ChecksumKind::Null).then_some(self.tail.last_sum),
        })
    }

    /// Adds the packet whose data lies at `self.filled` in the buffer, once it is verified.
    /// `tail` is where the replica ends now, and moves.
    ///
    /// # Errors
    /// [`PacketError`]; then nothing was added.
    pub(crate) fn add(
        &mut self,
        header: &PacketHeader,
        sums: &[u8],
        checksums: Checksums,
        tail: &mut Tail,
    ) -> Result<(), PacketError> {
        let length = header.data_length as usize;
        if length > 0 {
            self.add_data(header, sums, checksums, tail)?;
            self.filled += length;
        } else if header.last && header.offset_in_block != tail.length {
            let (seqno, offset) = (header.seqno, header.offset_in_block);
            return Err(PacketError::WrongEnd { seqno, offset, received: tail.length });
        }
        self.tail = *tail;
        let PacketHeader { seqno, last, sync, .. } = *header;
        // A sign of life and an empty packet acknowledge nothing.
        let end = if length > 0 || last { header.end() } else { 0 };
        self.packets.push(Arrived { seqno, end, last, sync });
        Ok(())
    }

    fn add_data(
        &mut self,
        header: &PacketHeader,
        sums: &[u8],
        checksums: Checksums,
        tail: &mut Tail,
    ) -> Result<(), PacketError> {
        let Checksums { sent, stored: checksum } = checksums;
        let (seqno, offset, length) = (header.seqno, header.offset_in_block, header.data_length as usize);
        if header.last {
            return Err(PacketError::LastWithData { seqno, length: header.data_length });
        }
        if offset > tail.length {
            return Err(PacketError::Gap { seqno, offset, received: tail.length });
        }
        let chunk = u64::from(checksum.bytes_per_chunk());
        let within = offset % chunk;
        // A packet that begins within a chunk has one checksum, of its own bytes only.
        if within != 0 && within + length as u64 > chunk {
            return Err(PacketError::Crosses { seqno, offset });
        }
        let data = &self.data[self.filled..self.filled + length];
        let mut computed = Vec::new();
        if !sums.is_empty() {
            let fault = |source| PacketError::Checksum { seqno, offset, source };
            sent.verify(data, sums).map_err(fault)?;
        }
        // None came, or of another type: an append may, and the file keeps its own.
        let sums = if sums.is_empty() || sent.kind() != checksum.kind() {
            checksum.compute(data, &mut computed);
            &computed[..]
        } else {
            sums
        };
        let end = header.end();
        if end <= tail.length {
            return Ok(());
        }
        if within != 0 {
            self.extend_chunk(header, sums, checksum, tail);
        } else {
            self.append(header, sums, checksum, tail);
        }
        Ok(())
    }

    /// Data from a chunk's border on. What is there of that chunk is written once more, the same
    /// bytes, so that data and checksum always fit.
    fn append(&mut self, header: &PacketHeader, sums: &[u8], checksum: Checksum, tail: &mut Tail) {
        let start = checksum.chunk_start(tail.length).max(header.offset_in_block);
        let skip = (start - header.offset_in_block) as usize;
        let length = header.data_length as usize - skip;
        self.data_pieces.push(Piece { at: start, from: self.filled + skip, length });
        if checksum.kind() != ChecksumKind::Null {
            let first = skip / checksum.bytes_per_chunk() as usize * SUM_LENGTH;
            self.push_sums(start, &sums[first..], checksum);
            let last = sums.last_chunk().copied().unwrap_or_default();
            tail.last_sum = u32::from_be_bytes(last);
        }
        tail.length = header.end();
    }

    /// New bytes within the last chunk, with a checksum of the packet's own bytes. A writer that appends to a
    /// chunk and flushes sends all that it has appended again: what is there of that already is left out.
    fn extend_chunk(&mut self, header: &PacketHeader, sums: &[u8], checksum: Checksum, tail: &mut Tail) {
        let known = (tail.length - header.offset_in_block) as usize;
        let length = header.data_length as usize - known;
        let from = self.filled + known;
        self.data_pieces.push(Piece { at: tail.length, from, length });
        if checksum.kind() != ChecksumKind::Null {
            let new = match known {
                0 => u32::from_be_bytes(sums.first_chunk().copied().unwrap_or_default()),
                _ => checksum.kind().crc(&self.data[from..from + length]),
            };
            tail.last_sum = checksum.kind().combine(tail.last_sum, new, length as u64);
            let sum = tail.last_sum.to_be_bytes();
            self.push_sums(checksum.chunk_start(tail.length), &sum, checksum);
        }
        tail.length = header.end();
    }

    fn push_sums(&mut self, start: u64, sums: &[u8], checksum: Checksum) {
        let at = start / u64::from(checksum.bytes_per_chunk()) * SUM_LENGTH as u64;
        self.sum_pieces.push(Piece { at, from: self.sums.len(), length: sums.len() });
        self.sums.extend_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Disk {
        data: Vec<u8>,
        sums: Vec<u8>,
        tail: Tail,
    }

    fn put(file: &mut Vec<u8>, buffer: &[u8], pieces: &[Piece]) {
        for piece in pieces {
            let at = piece.at as usize;
            file.resize(file.len().max(at + piece.length), 0);
            file[at..at + piece.length].copy_from_slice(&buffer[piece.from..piece.from + piece.length]);
        }
    }

    fn send(disk: &mut Disk, whole: &[u8], from: usize, to: usize) -> Result<(), PacketError> {
        let checksum = Checksum::default_crc32c();
        let mut batch = Batch::default();
        batch.data.extend_from_slice(&whole[from..to]);
        let mut sums = Vec::new();
        checksum.compute(&whole[from..to], &mut sums);
        let header = PacketHeader {
            offset_in_block: from as u64,
            seqno: 1,
            last: false,
            data_length: (to - from) as u32,
            sync: false,
        };
        batch.add(&header, &sums, Checksums { sent: checksum, stored: checksum }, &mut disk.tail)?;
        if let Some(write) = batch.write(checksum) {
            put(&mut disk.data, write.data, write.data_pieces);
            put(&mut disk.sums, write.sums, write.sum_pieces);
        }
        Ok(())
    }

    fn agrees(disk: &Disk, whole: &[u8]) {
        let checksum = Checksum::default_crc32c();
        assert_eq!(disk.data, &whole[..disk.tail.length as usize]);
        checksum.verify(&disk.data, &disk.sums).unwrap();
    }

    #[test]
    fn overlap_partial_chunks_and_gaps() {
        let whole: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut disk = Disk { data: vec![], sums: vec![], tail: Tail::default() };
        for (from, to) in [
            (0, 100),     // hflush after 100 bytes
            (0, 700),     // resent from the chunk's border
            (512, 700),   // again, nothing new
            (512, 1000),  // longer
            (1000, 1010), // appended with a checksum of its own
            (1000, 1016), // flushed, and sent again with more
            (1000, 1012), // again, nothing new
            (1016, 1024), // up to the border
            (1024, 3000),
            (2048, 2900), // wholly old
            (1024, 4999), // much overlap
        ] {
            send(&mut disk, &whole, from, to).unwrap();
            agrees(&disk, &whole);
        }
        assert_eq!(disk.tail.length, 4999);
        assert!(matches!(send(&mut disk, &whole, 4999, 5000), Ok(())));
        let mut disk = Disk { data: vec![], sums: vec![], tail: Tail::default() };
        send(&mut disk, &whole, 0, 100).unwrap();
        assert!(matches!(send(&mut disk, &whole, 101, 200), Err(PacketError::Gap { .. })));
        assert!(matches!(send(&mut disk, &whole, 100, 600), Err(PacketError::Crosses { .. })));
        agrees(&disk, &whole);
    }

    #[test]
    fn a_wrong_checksum_and_a_wrong_end() {
        let checksum = Checksum::default_crc32c();
        let same = Checksums { sent: checksum, stored: checksum };
        let mut batch = Batch { data: vec![1; 600], ..Batch::default() };
        let mut tail = Tail::default();
        let header =
            PacketHeader { offset_in_block: 0, seqno: 0, last: false, data_length: 600, sync: false };
        let refused = batch.add(&header, &[0; 8], same, &mut tail);
        assert!(matches!(refused, Err(PacketError::Checksum { .. })));
        let refused = batch.add(&header, &[0; 4], same, &mut tail);
        assert!(matches!(refused, Err(PacketError::Checksum { .. })));
        let end = PacketHeader { offset_in_block: 5, seqno: 0, last: true, data_length: 0, sync: false };
        assert!(matches!(batch.add(&end, &[], same, &mut tail), Err(PacketError::WrongEnd { .. })));
        assert_eq!((tail, batch.packets.len()), (Tail::default(), 0));
    }

    /// An append with another type of checksum, and packets without any: the file keeps its own.
    #[test]
    fn checksums_are_translated() {
        use mobula_wire::checksum::ChecksumKind;
        let whole: Vec<u8> = (0..3000u32).map(|i| (i * 11 % 253) as u8).collect();
        let stored = Checksum::default_crc32c();
        let other = Checksum::new(ChecksumKind::Crc32, 512).unwrap();
        let mut disk = Disk { data: vec![], sums: vec![], tail: Tail::default() };
        send(&mut disk, &whole, 0, 700).unwrap();
        for (from, to, with_sums) in [
            (700, 800, true),
            (800, 1024, false),
            (1024, 2000, true),
            (1536, 2500, false),
            (2500, 2560, true),
        ] {
            let mut batch = Batch { data: whole[from..to].to_vec(), ..Batch::default() };
            let mut sums = Vec::new();
            if with_sums {
                other.compute(&whole[from..to], &mut sums);
            }
            let header = PacketHeader {
                offset_in_block: from as u64,
                seqno: 1,
                last: false,
                data_length: (to - from) as u32,
                sync: false,
            };
            let mut wrong = sums.clone();
            if let Some(byte) = wrong.first_mut() {
                *byte ^= 1;
                let before = disk.tail;
                let refused = batch.add(&header, &wrong, Checksums { sent: other, stored }, &mut disk.tail);
                assert!(matches!(refused, Err(PacketError::Checksum { .. })));
                assert_eq!(disk.tail, before);
            }
            batch.add(&header, &sums, Checksums { sent: other, stored }, &mut disk.tail).unwrap();
            let write = batch.write(stored).unwrap();
            put(&mut disk.data, write.data, write.data_pieces);
            put(&mut disk.sums, write.sums, write.sum_pieces);
            agrees(&disk, &whole);
        }
        assert_eq!(disk.tail.length, 2560);
    }
}
