//! What can be wrong with bytes; always the fault of who sent them.

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A varint of more than ten bytes, or one above 64 bits.
    #[error("a varint that does not end within 10 bytes")]
    Varint,
    /// The bytes end before the thing does.
    #[error("{what}: {needed} bytes expected, {have} there")]
    Truncated {
        /// What was read.
        what: &'static str,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that were left.
        have: u64,
    },
    /// Longer than a limit of ours.
    #[error("{what} of {length} bytes, the limit is {limit}")]
    TooLong {
        /// What was announced.
        what: &'static str,
        /// Its length, in bytes, as announced.
        length: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Not a message of that type.
    #[error("{what}: {reason}")]
    Message {
        /// The message's type.
        what: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// A number outside its range.
    #[error("{what} of {value}: not from {min} to {max}")]
    OutOfRange {
        /// What the number counts.
        what: &'static str,
        /// The number.
        value: i64,
        /// Its least.
        min: i64,
        /// Its greatest.
        max: i64,
    },
    /// A number that stands for nothing.
    #[error("unknown {what}: {value}")]
    Unknown {
        /// What the number should name.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// Bytes after the end.
    #[error("{count} bytes after the end of {what}")]
    Trailing {
        /// After what.
        what: &'static str,
        /// How many.
        count: u64,
    },
    /// A field that must be there is not.
    #[error("{what} is missing")]
    Missing {
        /// The field.
        what: &'static str,
    },
    /// Two numbers that should be equal are not.
    #[error("{what}: {left} and {right} differ")]
    Differ {
        /// What they both say.
        what: &'static str,
        /// One of them.
        left: i64,
        /// The other.
        right: i64,
    },
}

impl WireError {
    /// An undecodable message of type `what`.
    pub(crate) fn message(what: &'static str, error: &prost::DecodeError) -> WireError {
        WireError::Message { what, reason: error.to_string() }
    }
}
