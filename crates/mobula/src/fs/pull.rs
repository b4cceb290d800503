//! A file's bytes in the pieces that its format asks for.

use std::io::Read;

use bytes::{Bytes, BytesMut};

use super::failure::{Failure, Outcome};
use super::filesystem::Reader;

/// Most bytes that a packed part of a file may unpack to: containers cut what they hold to a few MiB.
const UNPACKED_MAX: usize = 256 << 20;

/// A file that is read from its beginning.
#[derive(Debug)]
pub struct Pull {
    reader: Reader,
    buffer: BytesMut,
}

impl Pull {
    /// A file of which `head` was read already.
    pub fn new(reader: Reader, head: &[u8]) -> Pull {
        Pull { reader, buffer: BytesMut::from(head) }
    }

    /// Whether nothing is left.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn is_at_end(&mut self) -> Outcome<bool> {
        Ok(!self.fill(1).await?)
    }

    /// The next `length` bytes; no more are kept than have arrived.
    ///
    /// # Errors
    /// The file ends before, or cannot be read.
    pub async fn take(&mut self, length: usize) -> Outcome<Bytes> {
        match self.fill(length).await? {
            true => Ok(self.buffer.split_to(length).freeze()),
            false => Err(cut()),
        }
    }

    async fn fill(&mut self, wanted: usize) -> Outcome<bool> {
        while self.buffer.len() < wanted {
            match self.reader.next().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Bytes that are taken from the front.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `length` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

/// All that a decoder makes of a packed part, which the format calls `what`.
///
/// # Errors
/// It is not packed in that way, is cut, fails its checksum, or is more than any part may be.
pub fn unpacked(decoder: impl Read, what: &str) -> Outcome<Bytes> {
    let mut bytes = Vec::new();
    let read = decoder.take(UNPACKED_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::other(error.to_string()))?;
    match bytes.len() <= UNPACKED_MAX {
        true => Ok(bytes.into()),
        false => Err(Failure::other(format!("a packed {what} of more than {UNPACKED_MAX} bytes"))),
    }
}

/// A file, or a part of it, ended too early.
pub fn cut() -> Failure {
    Failure::other("Unexpected end of file")
}

/// A number as Java's `Double.toString` and `Float.toString` write it; `shortest` is Rust's `{:e}` of it.
pub fn java_number(shortest: &str) -> String {
    let (digits, exponent) = match shortest.split_once('e') {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().unwrap_or(0)),
        None if shortest.ends_with("inf") => return shortest.replace("inf", "Infinity"),
        None => return shortest.to_owned(),
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let plain: String = digits.chars().filter(|digit| *digit != '.').collect();
    let with_point = |digits: &str, point: usize| match digits.split_at_checked(point) {
        Some((whole, part)) if !part.is_empty() => format!("{whole}.{part}"),
        _ => format!("{digits:0<point$}.0"),
    };
    match exponent {
        0..=6 => format!("{sign}{}", with_point(&plain, exponent as usize + 1)),
        -3..=-1 => format!("{sign}0.{}{plain}", "0".repeat((-exponent - 1) as usize)),
        _ => format!("{sign}{}E{exponent}", with_point(&plain, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_java_writes_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (-120.0, "-120.0"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (1_234_567.25, "1234567.25"),
            (0.001, "0.001"),
            (0.0125, "0.0125"),
            (1e-5, "1.0E-5"),
            (1.234_567e-300, "1.234567E-300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(java_number(&format!("{number:e}")), text);
        }
        assert_eq!(java_number(&format!("{:e}", 3.1_f32)), "3.1");
    }
}
