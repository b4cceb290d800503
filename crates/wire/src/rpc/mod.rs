//! Hadoop RPC 9 (HDFS: `Server.Connection`, `Client`, `RpcHeader.proto`).
//!
//! A client sends seven bytes, `hrpc`, the version, a service class and how it authenticates; then frames: a
//! `u32` length and as many bytes, in them messages with their lengths as varints in front. The first
//! frames may negotiate (SASL); one carries the context, who the user is; the others are calls, answered in any order.

mod answer;
mod call;
mod server;

pub use answer::{
    AnswerTo, ErrorDetail, FatalDetail, encode_error, encode_fatal, encode_http_not_found,
    encode_sasl_success, encode_success, encode_success_bytes,
};
pub use call::{
    CallHeader, ClientDecoder, Response, encode_call, encode_context, encode_ping, encode_preamble,
};
pub use server::{CallFrame, Fatal, Incoming, ServerDecoder, check_user_name, is_known_protocol};

use bytes::BytesMut;

/// The protocol's version.
pub const VERSION: u8 = 9;
/// The only version of every protocol above it that travels.
pub const PROTOCOL_VERSION: u64 = 1;
/// What every connection begins with.
pub const MAGIC: [u8; 4] = *b"hrpc";
/// Bytes of the preamble: magic, version, service class, authentication.
pub const PREAMBLE_LENGTH: usize = 7;
/// Longest frame, in bytes (HDFS: `ipc.maximum.data.length`).
pub const MESSAGE_LENGTH_MAX: usize = 128 << 20;
/// Longest frame before the context came, in bytes: nobody has said yet who they are.
pub const PRE_AUTH_LENGTH_MAX: usize = 64 << 10;
/// Longest name of a user, in bytes.
pub const USER_LENGTH_MAX: usize = 1024;
/// Authentication byte: none.
pub const AUTH_NONE: u8 = 0;
/// Authentication byte: SASL.
pub const AUTH_SASL: u8 = 0xdf;
/// Call id of the context.
pub const CONTEXT_CALL_ID: i32 = -3;
/// Call id of a ping.
pub const PING_CALL_ID: i32 = -4;
/// Call id of SASL messages.
pub const SASL_CALL_ID: i32 = -33;
/// Call id of answers to no call.
pub const NO_CALL_ID: i32 = -1;
/// The retry count of those who do not count.
pub const NO_RETRY_COUNT: i32 = -1;

/// What stands between the socket's bytes and the frames once the handshake is over. Identity now; SASL's integrity and
/// privacy (each frame wrapped in a frame of its own) come in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Bytes as they are.
    #[default]
    Plain,
}

impl Stage {
    /// Turns what arrived into frames, in place.
    pub fn unwrap(&mut self, _input: &mut BytesMut) {
        match self {
            Stage::Plain => {}
        }
    }

    /// Turns the frames in `output` from `from` on into what is sent, in place.
    pub fn wrap(&mut self, _output: &mut BytesMut, _from: usize) {
        match self {
            Stage::Plain => {}
        }
    }
}

#[cfg(test)]
mod tests;
