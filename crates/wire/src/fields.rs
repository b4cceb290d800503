//! The fields of an encoded message one by one, without building it: for the two headers that every
//! call carries.

use crate::{WireError, varint};

/// The value of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Varint(u64),
    /// Bytes, and where they begin in the message.
    Bytes(&'a [u8], usize),
    /// Of fixed width: no field that we read.
    Fixed,
}

/// The fields of the message `input`.
pub(crate) struct Fields<'a> {
    input: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, input: &'a [u8]) -> Fields<'a> {
        Fields { input, at: 0, what }
    }

    /// The next field's number and value; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.at == self.input.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > MAX_FIELD {
            return Err(self.broken(format!("field number {number}")));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8)?,
            2 => {
                let length = self.varint()?;
                let from = self.at;
                self.skip(length)?;
                Value::Bytes(&self.input[from..self.at], from)
            }
            5 => self.skip(4)?,
            kind => return Err(self.broken(format!("wire type {kind}"))),
        };
        Ok(Some((number as u32, value)))
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let rest = &self.input[self.at..];
        let (value, length) =
            varint::peek(rest)?.ok_or(WireError::Truncated { what: self.what, needed: 1, have: 0 })?;
        self.at += length;
        Ok(value)
    }

    fn skip(&mut self, length: u64) -> Result<Value<'a>, WireError> {
        let have = (self.input.len() - self.at) as u64;
        if length > have {
            return Err(WireError::Truncated { what: self.what, needed: length, have });
        }
        self.at += length as usize;
        Ok(Value::Fixed)
    }

    /// An error for a field of the wrong kind.
    pub(crate) fn wrong_kind(&self, number: u32) -> WireError {
        self.broken(format!("field {number} has the wrong wire type"))
    }

    fn broken(&self, reason: String) -> WireError {
        WireError::Message { what: self.what, reason }
    }
}

/// Largest field number that protobuf knows.
const MAX_FIELD: u64 = (1 << 29) - 1;

/// How many fields of the message `input` a path of field numbers leads to, through messages within messages: what
/// decoding it would make of a few bytes each, it tells beforehand. Fields that no message can be at are passed by.
///
/// # Errors
/// The encoding's.
pub fn count_fields(input: &[u8], path: &[u32]) -> Result<usize, WireError> {
    let Some((first, rest)) = path.split_first() else { return Ok(1) };
    let mut fields = Fields::new("request", input);
    let mut count = 0;
    while let Some((number, value)) = fields.next()? {
        if number == *first {
            count += match value {
                Value::Bytes(within, _) => count_fields(within, rest)?,
                Value::Varint(_) | Value::Fixed => usize::from(rest.is_empty()),
            };
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_where_the_path_leads() {
        // Field 4 thrice, once with two of field 1 in it; field 1, a number, once.
        let input = [0x22, 0, 0x08, 1, 0x22, 4, 0x0a, 0, 0x0a, 0, 0x22, 0];
        assert_eq!(count_fields(&input, &[4]), Ok(3));
        assert_eq!(count_fields(&input, &[4, 1]), Ok(2));
        assert_eq!(count_fields(&input, &[1]), Ok(1));
        assert_eq!(count_fields(&input, &[1, 1]), Ok(0));
        assert_eq!(count_fields(&input, &[5]), Ok(0));
        assert!(count_fields(&input[..11], &[4]).is_err());
    }
}
