//! Cuts what a program writes into the packets of a block, and keeps those that may be needed again.
//!
//! Packets share the caller's buffers: only what is written in small pieces is copied. Knows no
//! socket and no block's name.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use mobula_wire::checksum::{Checksum, SUM_LENGTH};
use mobula_wire::packet::{PACKET_LENGTH_DEFAULT, data_per_packet};

/// Shorter writes than this are copied together.
const COPY_BYTES_MAX: usize = 16 << 10;
/// So much of a block's start is kept although it was acknowledged: a small file whose pipeline fails
/// can then be written again elsewhere, whatever became of its nodes.
pub(crate) const KEPT_BYTES_MAX: usize = 1 << 20;

/// A packet's bytes: `data` begins at a chunk's start, or where a file's last chunk was cut off when it
/// was opened for appending; in that case it ends within that chunk.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Where in the block it begins.
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    pub(crate) sums: Bytes,
    /// Ends the block: no data.
    pub(crate) last: bool,
    /// To be on disk before it is acknowledged.
    pub(crate) sync: bool,
}

impl Packet {
    fn new(offset: u64, data: Bytes, checksum: Checksum) -> Packet {
        Packet { offset, sums: sums_of(&data, checksum), data, last: false, sync: false }
    }

    /// A packet without data that wants what came before on disk.
    pub(crate) fn sync(offset: u64) -> Packet {
        Packet { offset, data: Bytes::new(), sums: Bytes::new(), last: false, sync: true }
    }

    /// The end of a block, which is then on disk.
    pub(crate) fn end_of_block(offset: u64) -> Packet {
        Packet { last: true, ..Packet::sync(offset) }
    }

    /// Where in the block it ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// The checksums of `data`, one a chunk, of which the last may be partial.
fn sums_of(data: &[u8], checksum: Checksum) -> Bytes {
    let mut sums = BytesMut::with_capacity(checksum.sums_length(data.len() as u64) as usize);
    checksum.compute(data, &mut sums);
    sums.freeze()
}

/// The end of the block in hand, which is not in packets yet, or in one that a longer one will replace.
#[derive(Debug)]
pub(crate) struct Cutter {
    /// Where `tail` begins in the block: a chunk's start, or where appending began.
    start: u64,
    tail: BytesMut,
    /// Bytes of `tail` that are in a packet already: a partial chunk that was flushed. It is sent again
    /// from `start` when more comes, as HDFS's own writers do.
    flushed: usize,
    checksum: Checksum,
    /// What one checksum covers.
    chunk_bytes: usize,
    /// Data bytes of a packet: HDFS's 126 chunks of 512 are the least that pays.
    packet_bytes: usize,
}

impl Cutter {
    /// For a block that has `start` bytes already.
    pub(crate) fn new(start: u64, checksum: Checksum) -> Cutter {
        let chunk_bytes = checksum.bytes_per_chunk() as usize;
        let packet_bytes = data_per_packet(PACKET_LENGTH_DEFAULT, chunk_bytes, SUM_LENGTH);
        Cutter { start, tail: BytesMut::new(), flushed: 0, checksum, chunk_bytes, packet_bytes }
    }

    /// Bytes of the block, with those that are in no packet yet.
    pub(crate) fn length(&self) -> u64 {
        self.start + self.tail.len() as u64
    }

    /// Cuts `data` into packets; what ends in the middle of a chunk, and what came in small pieces, waits.
    pub(crate) fn cut(&mut self, mut data: Bytes, packets: &mut Packets) {
        if data.len() < COPY_BYTES_MAX.max(self.chunk_bytes) {
            self.tail.extend_from_slice(&data);
            if self.tail.len() >= self.packet_bytes {
                self.take(self.whole(), packets);
            }
            return;
        }
        let missing = (self.chunk_bytes - self.length() as usize % self.chunk_bytes) % self.chunk_bytes;
        self.tail.extend_from_slice(&data.split_to(missing));
        self.take(self.tail.len(), packets);
        let whole = data.len() - data.len() % self.chunk_bytes;
        self.put(data.split_to(whole), packets);
        self.tail.extend_from_slice(&data);
    }

    /// Everything becomes packets; the partial chunk at the end also stays here.
    pub(crate) fn cut_all(&mut self, packets: &mut Packets) {
        self.take(self.whole(), packets);
        if self.tail.len() > self.flushed {
            packets.push(Packet::new(self.start, Bytes::copy_from_slice(&self.tail), self.checksum));
            self.flushed = self.tail.len();
        }
    }

    /// Bytes of the tail that end with a chunk.
    fn whole(&self) -> usize {
        let partial = self.length() as usize % self.chunk_bytes;
        self.tail.len().saturating_sub(partial)
    }

    /// The first `length` bytes of the tail, which end with a chunk, become packets.
    fn take(&mut self, length: usize, packets: &mut Packets) {
        if length > 0 {
            let data = self.tail.split_to(length).freeze();
            self.put(data, packets);
        }
    }

    fn put(&mut self, mut data: Bytes, packets: &mut Packets) {
        while !data.is_empty() {
            let room = match self.start as usize % self.chunk_bytes {
                0 => self.packet_bytes,
                used => self.chunk_bytes - used,
            };
            let packet = Packet::new(self.start, data.split_to(data.len().min(room)), self.checksum);
            self.start = packet.end();
            self.flushed = 0;
            packets.push(packet);
        }
    }
}

/// The packets of the block in hand that are not acknowledged, and of a small block all.
///
/// Invariant: they follow each other without a gap (they may overlap), the first begins where no byte
/// before it is unacknowledged, and `acked <= sent <= packets.len()`.
#[derive(Debug)]
pub(crate) struct Packets {
    packets: VecDeque<Packet>,
    bytes: usize,
    /// How many at the front are acknowledged by all nodes.
    acked: usize,
    /// How many at the front went down the present connection, or need not.
    sent: usize,
    /// The block's first byte is in them, and no reader was promised any.
    whole: bool,
}

impl Packets {
    /// None yet. `whole` if the block is new.
    pub(crate) fn new(whole: bool) -> Packets {
        Packets { packets: VecDeque::new(), bytes: 0, acked: 0, sent: 0, whole }
    }

    fn push(&mut self, packet: Packet) {
        self.bytes += packet.data.len();
        self.packets.push_back(packet);
    }

    /// Adds the packet that ends the block.
    pub(crate) fn push_end(&mut self, offset: u64) {
        self.push(Packet::end_of_block(offset));
    }

    /// Asks for all up to `offset`, the end, to be synced: by the newest packet if it was not sent yet.
    pub(crate) fn want_sync(&mut self, offset: u64) {
        let has_unsent = self.has_unsent();
        match self.packets.back_mut() {
            Some(newest) if has_unsent => newest.sync = true,
            _ => self.push(Packet::sync(offset)),
        }
    }

    /// The next to be sent.
    pub(crate) fn next_unsent(&self) -> Option<&Packet> {
        self.packets.get(self.sent)
    }

    /// The next to be sent was handed to the connection.
    pub(crate) fn mark_sent(&mut self) {
        assert!(self.has_unsent(), "one was handed over");
        self.sent += 1;
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.packets.len()
    }

    pub(crate) fn has_unacked(&self) -> bool {
        self.acked < self.packets.len()
    }

    /// Where in the block the newest packet ends; `None` without one.
    pub(crate) fn end(&self) -> Option<u64> {
        self.packets.back().map(Packet::end)
    }

    /// Whether the packet that ends the block is among them.
    pub(crate) fn has_end(&self) -> bool {
        self.packets.back().is_some_and(|packet| packet.last)
    }

    /// What a recovery must know of them.
    pub(crate) fn held(&self) -> Held {
        let has_end = self.has_end();
        Held { whole: self.whole, has_end, only_end_is_left: has_end && self.acked + 1 == self.packets.len() }
    }

    /// The next `count` packets were acknowledged. Answers where in the block they end.
    pub(crate) fn acknowledge(&mut self, count: usize) -> Option<u64> {
        let end = self.packets.range(self.acked..self.acked + count).map(Packet::end).max();
        self.acked += count;
        if !self.whole || self.bytes > KEPT_BYTES_MAX {
            self.forget_acked();
        }
        end
    }

    /// What was acknowledged is visible to readers, or too much to keep.
    pub(crate) fn forget_acked(&mut self) {
        self.whole = self.whole && self.acked == 0;
        for packet in self.packets.drain(..self.acked) {
            self.bytes -= packet.data.len();
        }
        self.sent -= self.acked;
        self.acked = 0;
    }

    /// Readers were promised what there is: it must not be taken back, not even to be written elsewhere.
    pub(crate) fn promise(&mut self) {
        self.whole = false;
        self.forget_acked();
    }

    /// Whether the block could be begun again from its first byte, until its end is acknowledged.
    pub(crate) fn stays_whole(&self) -> bool {
        self.whole && self.bytes <= KEPT_BYTES_MAX
    }

    /// On a new connection: what is not acknowledged is sent again.
    pub(crate) fn send_unacked_again(&mut self) {
        self.sent = self.acked;
    }

    /// For a new block: everything is sent again.
    pub(crate) fn send_all_again(&mut self) {
        assert!(self.whole, "a block is begun again from its first byte");
        self.acked = 0;
        self.sent = 0;
    }
}

/// What is held of the block in hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// It could be begun again from its first byte.
    pub(crate) whole: bool,
    /// The packet that ends it is there.
    pub(crate) has_end: bool,
    /// That packet is all that is not acknowledged.
    pub(crate) only_end_is_left: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mobula_wire::checksum::ChecksumKind;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// The chunk and the packet of HDFS's defaults.
    const CHUNK_BYTES: usize = 512;
    const PACKET_BYTES: usize = 126 * CHUNK_BYTES;

    fn cutter(start: u64) -> Cutter {
        Cutter::new(start, Checksum::default_crc32c())
    }

    /// What a DataNode would hold after these packets, with HDFS's rules for overlaps.
    fn stored(start: u64, cutter: &Cutter, packets: &Packets) -> Vec<u8> {
        let chunk_bytes = cutter.chunk_bytes;
        let mut bytes = vec![0; start as usize];
        for packet in &packets.packets {
            assert!(packet.offset as usize <= bytes.len(), "a gap before {}", packet.offset);
            assert!(packet.data.len() <= cutter.packet_bytes);
            let chunk = |offset: u64| offset / chunk_bytes as u64;
            if !packet.offset.is_multiple_of(chunk_bytes as u64) {
                assert_eq!(packet.offset, start, "only where appending began");
                assert_eq!(chunk(packet.offset), chunk(packet.end() - 1), "crosses a chunk's end");
            }
            let sums = packet.sums.len() / 4;
            assert_eq!(sums, packet.data.len().div_ceil(chunk_bytes));
            bytes.truncate(packet.offset as usize);
            bytes.extend_from_slice(&packet.data);
        }
        bytes.split_off(start as usize)
    }

    /// Sends all; answers how many those were.
    fn send(packets: &mut Packets) -> usize {
        let before = packets.sent;
        while packets.has_unsent() {
            packets.mark_sent();
        }
        packets.sent - before
    }

    #[test]
    fn packets_hold_what_was_written_wherever_it_is_cut() {
        let seed = std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap());
        for seed in seed..seed + 200 {
            let mut random = StdRng::seed_from_u64(seed);
            let start = [0, 512, 1, 511, 100, 700][random.random_range(0..6)];
            let chunk = [512, 512, 1, 1_024, 40_000, 100_000][random.random_range(0..6)];
            let checksum = Checksum::new(ChecksumKind::Crc32, chunk).unwrap();
            let (mut cutter, mut packets) = (Cutter::new(start, checksum), Packets::new(false));
            let mut expected = Vec::new();
            for _ in 0..random.random_range(1..40) {
                let length = [1, 100, 511, 512, 513, 5_000, 16_384, 70_000][random.random_range(0..8)];
                let data: Vec<u8> = (0..length).map(|_| random.random()).collect();
                expected.extend_from_slice(&data);
                cutter.cut(data.into(), &mut packets);
                assert_eq!(cutter.length(), start + expected.len() as u64);
                if random.random_bool(0.3) {
                    cutter.cut_all(&mut packets);
                    assert!(stored(start, &cutter, &packets) == expected, "replay with SEED={seed}");
                }
            }
            cutter.cut_all(&mut packets);
            assert!(stored(start, &cutter, &packets) == expected, "replay with SEED={seed}");
        }
    }

    #[test]
    fn a_small_block_is_kept_whole_and_a_large_one_is_not() {
        let (mut cutter, mut packets) = (cutter(0), Packets::new(true));
        cutter.cut(vec![0; 10 * PACKET_BYTES].into(), &mut packets);
        send(&mut packets);
        assert_eq!(packets.acknowledge(10), Some(10 * PACKET_BYTES as u64));
        assert!(packets.held().whole && !packets.has_unacked());
        packets.send_all_again();
        assert_eq!(send(&mut packets), 10);
        cutter.cut(vec![0; 10 * PACKET_BYTES].into(), &mut packets);
        send(&mut packets);
        packets.acknowledge(5);
        assert!(!packets.held().whole);
        assert_eq!(packets.packets.len(), 15);
        packets.send_unacked_again();
        assert_eq!(send(&mut packets), 15);
    }

    #[test]
    fn what_was_promised_is_not_begun_again() {
        let (mut cutter, mut packets) = (cutter(0), Packets::new(true));
        cutter.cut(vec![0; 100].into(), &mut packets);
        cutter.cut_all(&mut packets);
        packets.want_sync(100);
        assert_eq!(packets.packets.len(), 1, "the newest packet carries the wish");
        send(&mut packets);
        packets.want_sync(100);
        assert_eq!(packets.packets.len(), 2, "and an empty one if there is none");
        send(&mut packets);
        packets.acknowledge(2);
        packets.promise();
        assert!(!packets.held().whole && packets.end().is_none());
    }
}
