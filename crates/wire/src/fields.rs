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
