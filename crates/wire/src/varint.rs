//! Varints, and messages with their length in front as a varint.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::WireError;

/// Longest varint of 64 bits, in bytes.
pub const VARINT_LENGTH_MAX: usize = 10;

/// Reads a varint at the front of `input`: its value and how many bytes it takes; `None` if it has
/// not arrived whole.
///
/// # Errors
/// [`WireError::Varint`] if it does not end within ten bytes or is above 64 bits.
#[inline]
pub fn peek(input: &[u8]) -> Result<Option<(u64, usize)>, WireError> {
    if let Some(&first) = input.first()
        && first < 0x80
    {
        return Ok(Some((u64::from(first), 1)));
    }
    let mut value = 0u64;
    for (index, &byte) in input.iter().take(VARINT_LENGTH_MAX).enumerate() {
        // The tenth byte holds the 64th bit and nothing else.
        if index == VARINT_LENGTH_MAX - 1 && byte > 1 {
            return Err(WireError::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() >= VARINT_LENGTH_MAX { Err(WireError::Varint) } else { Ok(None) }
}

/// Writes `value` as a varint.
#[inline]
pub fn put(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// How many bytes `value` takes.
#[inline]
pub fn length(value: u64) -> usize {
    // 7 bits a byte: bits / 7, rounded up, and one byte for 0.
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Signed to unsigned, small magnitudes to small numbers (`sint64`).
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
#[inline]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Takes a message with its length in front from `input`, which holds it whole. What follows stays.
///
/// # Errors
/// [`WireError`] if it is cut short or no message of that type.
pub fn decode_delimited<M: Message + Default>(input: &mut Bytes) -> Result<M, WireError> {
    let (length, prefix) =
        peek(input)?.ok_or(WireError::Truncated { what: "length", needed: 1, have: input.len() as u64 })?;
    let have = (input.len() - prefix) as u64;
    if length > have {
        return Err(WireError::Truncated { what: name::<M>(), needed: length, have });
    }
    input.advance(prefix);
    let body = input.split_to(length as usize);
    M::decode(body).map_err(|error| WireError::message(name::<M>(), &error))
}

/// Takes the bytes of a message with its length in front from the front of `input`, once they have all arrived;
/// `None` and `input` untouched before that.
///
/// # Errors
/// [`WireError::TooLong`] if it claims more than `limit` bytes, as soon as it claims so.
pub fn take_delimited(
    input: &mut BytesMut,
    what: &'static str,
    limit: usize,
) -> Result<Option<Bytes>, WireError> {
    let Some((length, prefix)) = peek(input)? else { return Ok(None) };
    if length > limit as u64 {
        return Err(WireError::TooLong { what, length, limit: limit as u64 });
    }
    if ((input.len() - prefix) as u64) < length {
        return Ok(None);
    }
    input.advance(prefix);
    Ok(Some(input.split_to(length as usize).freeze()))
}

/// As [`take_delimited`], decoded.
///
/// # Errors
/// [`WireError`] if it is too long or no message of that type.
pub fn try_decode_delimited<M: Message + Default>(
    input: &mut BytesMut,
    limit: usize,
) -> Result<Option<M>, WireError> {
    let Some(body) = take_delimited(input, name::<M>(), limit)? else { return Ok(None) };
    M::decode(body).map(Some).map_err(|error| WireError::message(name::<M>(), &error))
}

/// Writes `message` with its length in front.
pub fn encode_delimited<M: Message>(message: &M, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(length + VARINT_LENGTH_MAX);
    put(length as u64, out);
    message.encode_raw(out);
}

/// The type's name without its path, for errors.
fn name<M>() -> &'static str {
    let full = std::any::type_name::<M>();
    full.rsplit("::").next().unwrap_or(full)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_never_ends_or_overflows() {
        assert_eq!(peek(&[0x80; 9]), Ok(None));
        assert_eq!(peek(&[0x80; 10]), Err(WireError::Varint));
        assert_eq!(peek(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(WireError::Varint));
        assert_eq!(peek(&[]), Ok(None));
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, signed: i64) {
            let mut out = BytesMut::new();
            put(value, &mut out);
            prop_assert_eq!(out.len(), length(value));
            prop_assert_eq!(peek(&out), Ok(Some((value, out.len()))));
            prop_assert_eq!(peek(&out[..out.len() - 1]), Ok(None));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn agrees_with_prost(value: u64) {
            let mut out = BytesMut::new();
            put(value, &mut out);
            prop_assert_eq!(prost::encoding::decode_varint(&mut out.freeze()).unwrap(), value);
        }
    }
}
