//! Packets of the data-transfer protocol (HDFS: `PacketHeader`, `PacketReceiver`):
//!
//! ```text
//! i32 packet length: 4 + checksums + data (itself, but neither the next field nor the header)
//! i16 header length
//! PacketHeaderProto, then the checksums, then the data
//! ```

use bytes::{Buf, BufMut, BytesMut};
use mobula_proto::hdfs::PacketHeaderProto;
use prost::Message;

use crate::WireError;

/// Longest packet with its header, in bytes (HDFS: `dfs.data.transfer.max.packet.size`).
pub const PACKET_LENGTH_MAX: usize = 16 << 20;
/// The sequence number of a packet that only says that its sender lives.
pub const HEARTBEAT_SEQNO: i64 = -1;
/// Bytes of the two lengths in front of the header.
pub const LENGTHS_LENGTH: usize = 6;
/// What Java's client sets aside for lengths and header: 6 and 27.
pub const HEADER_LENGTH_MAX: usize = 33;
/// HDFS's default packet, in bytes, with all that is in it (`dfs.client-write-packet-size`).
pub const PACKET_LENGTH_DEFAULT: usize = 65_536;

/// How many bytes of data a packet of at most `packet_length` bytes takes, in whole chunks, as Java's client
/// counts: 64,512 for the defaults. At least one chunk.
pub fn data_per_packet(packet_length: usize, bytes_per_chunk: usize, sum_length: usize) -> usize {
    let body = packet_length.saturating_sub(HEADER_LENGTH_MAX);
    let chunks = body / (bytes_per_chunk + sum_length).max(1);
    chunks.max(1) * bytes_per_chunk
}

/// What a packet's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Where its data begins in the block.
    pub offset_in_block: u64,
    /// Its number; [`HEARTBEAT_SEQNO`] for a sign of life.
    pub seqno: i64,
    /// The block ends here.
    pub last: bool,
    /// Bytes of data.
    pub data_length: u32,
    /// Sync to disk before the acknowledgement.
    pub sync: bool,
}

impl PacketHeader {
    /// A sign of life.
    pub fn heartbeat() -> PacketHeader {
        PacketHeader { offset_in_block: 0, seqno: HEARTBEAT_SEQNO, last: false, data_length: 0, sync: false }
    }

    /// Where its data ends in the block.
    pub fn end(&self) -> u64 {
        self.offset_in_block.saturating_add(self.data_length.into())
    }
}

/// The front of a packet, up to its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketPrefix {
    /// The header.
    pub header: PacketHeader,
    /// Bytes of checksums, which follow.
    pub checksum_length: u32,
    /// Bytes of this prefix itself on the wire.
    pub length: usize,
}

impl PacketPrefix {
    /// Bytes of checksums and data, which follow the prefix.
    pub fn body_length(&self) -> usize {
        self.checksum_length as usize + self.header.data_length as usize
    }

    /// Reads a prefix at the front of `input`; `None` if it has not arrived whole.
    ///
    /// # Errors
    /// [`WireError`] as soon as the lengths break a limit: a packet length below 4, a negative header length or one of
    /// more than [`PACKET_LENGTH_MAX`] in all, data that is not within the packet, a negative offset.
    pub fn parse(input: &[u8]) -> Result<Option<PacketPrefix>, WireError> {
        let Some(&[p0, p1, p2, p3]) = input.first_chunk() else { return Ok(None) };
        let packet_length = i64::from(i32::from_be_bytes([p0, p1, p2, p3]));
        let max = PACKET_LENGTH_MAX as i64;
        if !(4..=max).contains(&packet_length) {
            return Err(WireError::OutOfRange { what: "packet length", value: packet_length, min: 4, max });
        }
        let Some(&[.., h0, h1]) = input.first_chunk::<LENGTHS_LENGTH>() else { return Ok(None) };
        let header_length = i64::from(i16::from_be_bytes([h0, h1]));
        let header_max = (max - packet_length).min(i64::from(i16::MAX));
        if !(0..=header_max).contains(&header_length) {
            let what = "length of a packet's header";
            return Err(WireError::OutOfRange { what, value: header_length, min: 0, max: header_max });
        }
        let length = LENGTHS_LENGTH + header_length as usize;
        let Some(header) = input.get(LENGTHS_LENGTH..length) else { return Ok(None) };
        let header = decode_header(header)?;
        let body_length = packet_length - 4;
        let data_length = i64::from(header.data_length);
        if data_length > body_length {
            let what = "data of a packet";
            return Err(WireError::OutOfRange { what, value: data_length, min: 0, max: body_length });
        }
        Ok(Some(PacketPrefix { header, checksum_length: (body_length - data_length) as u32, length }))
    }

    /// As [`PacketPrefix::parse`], and takes it from `input`.
    ///
    /// # Errors
    /// As [`PacketPrefix::parse`].
    pub fn decode(input: &mut BytesMut) -> Result<Option<PacketPrefix>, WireError> {
        let prefix = PacketPrefix::parse(input)?;
        if let Some(prefix) = &prefix {
            input.advance(prefix.length);
        }
        Ok(prefix)
    }

    /// Writes the prefix of a packet with `checksum_length` bytes of checksums; those and the data are the caller's.
    pub fn encode(header: &PacketHeader, checksum_length: u32, out: &mut impl BufMut) {
        let PacketHeader { offset_in_block, seqno, last, data_length, sync } = *header;
        let packet_length = 4 + checksum_length + data_length;
        assert!(packet_length as usize <= PACKET_LENGTH_MAX, "a packet of {packet_length} bytes");
        // Tag and value of each field; all but the last are always there.
        out.put_u32(packet_length);
        out.put_u16(if sync { 27 } else { 25 });
        out.put_u8(0x09);
        out.put_u64_le(offset_in_block);
        out.put_u8(0x11);
        out.put_i64_le(seqno);
        out.put_slice(&[0x18, last.into(), 0x25]);
        out.put_u32_le(data_length);
        if sync {
            out.put_slice(&[0x28, 1]);
        }
    }
}

fn decode_header(bytes: &[u8]) -> Result<PacketHeader, WireError> {
    let proto =
        PacketHeaderProto::decode(bytes).map_err(|error| WireError::message("PacketHeaderProto", &error))?;
    let PacketHeaderProto { offset_in_block, seqno, last_packet_in_block, data_len, sync_block } = proto;
    let range = |what, value| WireError::OutOfRange { what, value, min: 0, max: i64::MAX };
    Ok(PacketHeader {
        offset_in_block: u64::try_from(offset_in_block)
            .map_err(|_| range("offset of a packet", offset_in_block))?,
        seqno,
        last: last_packet_in_block,
        data_length: u32::try_from(data_len).map_err(|_| range("data of a packet", data_len.into()))?,
        sync: sync_block.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = PacketHeader> {
        (0..i64::MAX as u64, any::<i64>(), any::<bool>(), 0u32..100_000, any::<bool>()).prop_map(
            |(offset_in_block, seqno, last, data_length, sync)| PacketHeader {
                offset_in_block,
                seqno,
                last,
                data_length,
                sync,
            },
        )
    }

    /// Whoever holds a replica with the longest chunks can send it.
    #[test]
    fn the_longest_chunk_fits_into_a_packet() {
        let data_length = crate::checksum::BYTES_PER_CHUNK_MAX;
        let header = PacketHeader { offset_in_block: 0, seqno: 0, last: false, data_length, sync: false };
        let mut out = BytesMut::new();
        PacketPrefix::encode(&header, crate::checksum::SUM_LENGTH as u32, &mut out);
        assert_eq!(PacketPrefix::decode(&mut out).unwrap().unwrap().header, header);
    }

    fn with_lengths(packet: i32, header: i16, data: i32) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i32(packet);
        out.put_i16(header);
        let proto = PacketHeaderProto { data_len: data, seqno: 1, ..Default::default() };
        proto.encode(&mut out).unwrap();
        out
    }

    #[test]
    fn javas_packet() {
        assert_eq!(data_per_packet(PACKET_LENGTH_DEFAULT, 512, 4), 64_512);
        assert_eq!(data_per_packet(10, 512, 4), 512);
    }

    #[test]
    fn refuses_lengths_that_break_a_limit() {
        assert!(PacketPrefix::parse(&with_lengths(4, 25, 0)).unwrap().is_some());
        for (packet, header, data) in [
            (3, 25, 0),
            (0, 25, 0),
            (-1, 25, 0),
            (i32::MIN, 25, 0),
            (i32::MAX, 25, 0),
            (16 << 20, 25, 0),
            (4, -1, 0),
            (4, i16::MIN, 0),
            (100, 25, 97),
            (100, 25, -1),
            (100, 25, i32::MIN),
        ] {
            let bytes = with_lengths(packet, header, data);
            assert!(PacketPrefix::parse(&bytes).is_err(), "{packet} {header} {data}");
        }
        // A huge length is refused before anything else arrives.
        assert!(PacketPrefix::parse(&[0x7f, 0xff, 0xff, 0xff]).is_err());
    }

    proptest! {
        #[test]
        fn round_trip_at_every_split(header in any_header(), sums in 0u32..1000, rest: Vec<u8>) {
            let mut out = BytesMut::new();
            PacketPrefix::encode(&header, sums, &mut out);
            let length = out.len();
            prop_assert_eq!(length, if header.sync { HEADER_LENGTH_MAX } else { HEADER_LENGTH_MAX - 2 });
            for cut in 0..length {
                prop_assert_eq!(PacketPrefix::parse(&out[..cut]), Ok(None));
            }
            let proto = PacketHeaderProto::decode(&out[LENGTHS_LENGTH..]).unwrap();
            prop_assert_eq!(proto.encode_to_vec(), &out[LENGTHS_LENGTH..]);
            out.extend_from_slice(&rest);
            let prefix = PacketPrefix::decode(&mut out).unwrap().unwrap();
            prop_assert_eq!(prefix, PacketPrefix { header, checksum_length: sums, length });
            prop_assert_eq!(&out[..], &rest[..]);
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            if let Ok(Some(prefix)) = PacketPrefix::parse(&bytes) {
                prop_assert!(prefix.length <= bytes.len());
                prop_assert!(prefix.body_length() <= PACKET_LENGTH_MAX);
            }
        }

        #[test]
        fn damaged_bytes(header in any_header(), at in 0usize..33, byte: u8) {
            let mut out = BytesMut::new();
            PacketPrefix::encode(&header, 8, &mut out);
            let at = at % out.len();
            out[at] = byte;
            if let Ok(Some(prefix)) = PacketPrefix::parse(&out) {
                prop_assert!(prefix.body_length() <= PACKET_LENGTH_MAX);
            }
        }
    }
}
