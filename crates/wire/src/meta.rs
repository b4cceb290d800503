//! The header of a replica's `.meta` file (HDFS: `BlockMetadataHeader`), after which the chunks'
//! checksums follow, four bytes each:
//!
//! ```text
//! 0..2  u16 version, 1
//! 2     u8  checksum: 0 none, 1 CRC32, 2 CRC32C
//! 3..7  i32 bytes per chunk
//! ```

use crate::WireError;
use crate::checksum::{Checksum, ChecksumKind};

/// Length of the header, in bytes.
pub const META_HEADER_LENGTH: usize = 7;
/// The only version there is.
pub const META_VERSION: u16 = 1;

/// The header for `checksum`.
pub fn encode(checksum: Checksum) -> [u8; META_HEADER_LENGTH] {
    let mut header = [0; META_HEADER_LENGTH];
    header[..2].copy_from_slice(&META_VERSION.to_be_bytes());
    header[2] = checksum.kind() as u8;
    header[3..].copy_from_slice(&checksum.bytes_per_chunk().to_be_bytes());
    header
}

/// Reads the header at the front of `input`.
///
/// # Errors
/// [`WireError`] if it is cut short, of another version, or names no checksum.
pub fn decode(input: &[u8]) -> Result<Checksum, WireError> {
    let header: &[u8; META_HEADER_LENGTH] = input.first_chunk().ok_or(WireError::Truncated {
        what: "header of a meta file",
        needed: META_HEADER_LENGTH as u64,
        have: input.len() as u64,
    })?;
    let [v0, v1, kind, b0, b1, b2, b3] = *header;
    let version = u16::from_be_bytes([v0, v1]);
    if version != META_VERSION {
        return Err(WireError::Unknown { what: "version of a meta file", value: version.into() });
    }
    let kind = ChecksumKind::from_number(kind.into())?;
    Checksum::new(kind, u32::from_be_bytes([b0, b1, b2, b3]))
}

/// Length of the meta file of a replica of `data_length` bytes.
pub fn file_length(checksum: Checksum, data_length: u64) -> u64 {
    META_HEADER_LENGTH as u64 + checksum.sums_length(data_length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn golden_bytes() {
        let checksum = Checksum::new(ChecksumKind::Crc32c, 512).unwrap();
        assert_eq!(encode(checksum), [0, 1, 2, 0, 0, 2, 0]);
        assert_eq!(decode(&[0, 1, 2, 0, 0, 2, 0, 9, 9]), Ok(checksum));
        assert_eq!(file_length(checksum, 513), 7 + 8);
    }

    #[test]
    fn refuses_nonsense() {
        for bad in [
            &[0, 1, 2, 0, 0, 2][..],
            &[0, 2, 2, 0, 0, 2, 0],
            &[0, 1, 3, 0, 0, 2, 0],
            &[0, 1, 2, 0, 0, 0, 0],
            &[0, 1, 2, 0xff, 0, 2, 0],
        ] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }
}
