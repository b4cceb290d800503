//! What a server sends. Answers are appended, so that many of them make one write.

use bytes::{BufMut, BytesMut};
use mobula_proto::common::RpcSaslProto;
use mobula_proto::common::rpc_response_header_proto::{RpcErrorCodeProto, RpcStatusProto};
use mobula_proto::common::rpc_sasl_proto::SaslState;
use mobula_types::ClientId;
use prost::Message;

use super::{NO_RETRY_COUNT, SASL_CALL_ID, VERSION};
use crate::remote::{RemoteException, class};
use crate::varint;

/// What of a call its answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTo {
    /// Its number.
    pub call_id: i32,
    /// Who called; zeros are sent as none.
    pub client_id: ClientId,
    /// How often it was tried before.
    pub retry_count: i32,
}

impl AnswerTo {
    /// An answer to something that is no call.
    pub fn no_call(call_id: i32) -> AnswerTo {
        AnswerTo { call_id, client_id: ClientId::default(), retry_count: NO_RETRY_COUNT }
    }
}

/// Why one call failed; the connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorDetail {
    /// What the service says.
    Application,
    /// No such method.
    NoSuchMethod,
    /// No such protocol.
    NoSuchProtocol,
    /// The server itself.
    Server,
    /// Another version of the protocol.
    VersionMismatch,
}

impl ErrorDetail {
    fn code(self) -> RpcErrorCodeProto {
        match self {
            ErrorDetail::Application => RpcErrorCodeProto::ErrorApplication,
            ErrorDetail::NoSuchMethod => RpcErrorCodeProto::ErrorNoSuchMethod,
            ErrorDetail::NoSuchProtocol => RpcErrorCodeProto::ErrorNoSuchProtocol,
            ErrorDetail::Server => RpcErrorCodeProto::ErrorRpcServer,
            ErrorDetail::VersionMismatch => RpcErrorCodeProto::ErrorRpcVersionMismatch,
        }
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalDetail {
    /// A header that makes no sense here.
    InvalidHeader,
    /// Not the message that should be there.
    Deserializing,
    /// Another version of RPC.
    VersionMismatch,
    /// Not allowed.
    Unauthorized,
}

impl FatalDetail {
    fn code(self) -> RpcErrorCodeProto {
        match self {
            FatalDetail::InvalidHeader => RpcErrorCodeProto::FatalInvalidRpcHeader,
            FatalDetail::Deserializing => RpcErrorCodeProto::FatalDeserializingRequest,
            FatalDetail::VersionMismatch => RpcErrorCodeProto::FatalVersionMismatch,
            FatalDetail::Unauthorized => RpcErrorCodeProto::FatalUnauthorized,
        }
    }
}

/// Most bytes of a header without texts: seven short fields and a client id.
const HEADER_LENGTH_MAX: usize = 64;
/// Bytes of a frame's length.
const FRAME_PREFIX: usize = 4;

/// Writes a success with its result.
pub fn encode_success<M: Message>(to: &AnswerTo, message: &M, out: &mut BytesMut) {
    put_success(to, message.encoded_len(), out);
    message.encode_raw(out);
}

/// Writes a success with its result, which is encoded already.
pub fn encode_success_bytes(to: &AnswerTo, message: &[u8], out: &mut BytesMut) {
    put_success(to, message.len(), out);
    out.put_slice(message);
}

/// Writes what comes before a result of `body` bytes.
fn put_success(to: &AnswerTo, body: usize, out: &mut BytesMut) {
    out.reserve(FRAME_PREFIX + HEADER_LENGTH_MAX + varint::VARINT_LENGTH_MAX + body);
    let header = header_length(to);
    let frame = varint::length(header as u64) + header + varint::length(body as u64) + body;
    out.put_u32(frame_length(frame));
    varint::put(header as u64, out);
    put_header(to, RpcStatusProto::Success, None, out);
    varint::put(body as u64, out);
}

/// Writes an exception: this call fails, the connection lives on.
pub fn encode_error(to: &AnswerTo, detail: ErrorDetail, exception: &RemoteException, out: &mut BytesMut) {
    put_failure(to, RpcStatusProto::Error, detail.code(), exception, out);
}

/// Writes an exception for the whole connection, which the caller closes.
pub fn encode_fatal(to: &AnswerTo, detail: FatalDetail, exception: &RemoteException, out: &mut BytesMut) {
    put_failure(to, RpcStatusProto::Fatal, detail.code(), exception, out);
}

/// Writes what a client that negotiates hears from a server without authentication: go on as SIMPLE.
pub fn encode_sasl_success(out: &mut BytesMut) {
    let message = RpcSaslProto { state: SaslState::Success as i32, ..RpcSaslProto::default() };
    encode_success(&AnswerTo::no_call(SASL_CALL_ID), &message, out);
}

/// Writes what an HTTP client gets on this port (HDFS: `RECEIVED_HTTP_REQ_RESPONSE`).
pub fn encode_http_not_found(out: &mut BytesMut) {
    out.put_slice(
        b"HTTP/1.1 404 Not Found\r\nContent-type: text/plain\r\n\r\n\
        It looks like you are making an HTTP request to a Hadoop IPC port. \
        This is not the correct port for the web interface on this daemon.\r\n",
    );
}

/// Writes what a client of another version of RPC gets, in the layout that its version knows.
pub(super) fn encode_bad_version(version: u8, out: &mut BytesMut) {
    // Java's bytes are signed.
    let version = version as i8;
    let words = format!("Server IPC version {VERSION} cannot communicate with client version {version}");
    let class = class::RPC_VERSION_MISMATCH;
    match version {
        9.. => {
            let exception = RemoteException::new(class, words);
            encode_fatal(&AnswerTo::no_call(-1), FatalDetail::VersionMismatch, &exception, out);
        }
        3..9 => {
            // Call id, status FATAL, two texts.
            out.put_i32(-1);
            out.put_i32(-1);
            put_text(class, out);
            put_text(&words, out);
        }
        2 => {
            // Call id, "failed", two texts.
            out.put_i32(0);
            out.put_u8(1);
            put_text(class, out);
            put_text(&words, out);
        }
        _ => {}
    }
}

fn put_text(text: &str, out: &mut BytesMut) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn put_failure(
    to: &AnswerTo,
    status: RpcStatusProto,
    code: RpcErrorCodeProto,
    exception: &RemoteException,
    out: &mut BytesMut,
) {
    let RemoteException { class, message } = exception;
    let text = |text: &str| 1 + varint::length(text.len() as u64) + text.len();
    let header = header_length(to) + text(class) + text(message) + 2;
    let frame = varint::length(header as u64) + header;
    out.reserve(FRAME_PREFIX + frame);
    out.put_u32(frame_length(frame));
    varint::put(header as u64, out);
    put_header(to, status, Some((code, exception)), out);
}

/// Bytes of a success's header.
fn header_length(to: &AnswerTo) -> usize {
    let client_id = if has_client_id(to) { to.client_id.0.len() } else { 0 };
    // Status and version two bytes each, client id two and itself.
    1 + varint::length(u64::from(to.call_id as u32)) + 4 + 2 + client_id + 1 + retry_length(to)
}

fn retry_length(to: &AnswerTo) -> usize {
    varint::length(varint::zigzag(to.retry_count.into()))
}

fn has_client_id(to: &AnswerTo) -> bool {
    to.client_id != ClientId::default()
}

/// The fields of `RpcResponseHeaderProto` in their order.
fn put_header(
    to: &AnswerTo,
    status: RpcStatusProto,
    failure: Option<(RpcErrorCodeProto, &RemoteException)>,
    out: &mut BytesMut,
) {
    out.put_u8(0x08);
    varint::put(u64::from(to.call_id as u32), out);
    out.put_slice(&[0x10, status as u8, 0x18, VERSION]);
    if let Some((code, exception)) = failure {
        for (tag, text) in [(0x22, exception.class.as_bytes()), (0x2a, exception.message.as_bytes())] {
            out.put_u8(tag);
            varint::put(text.len() as u64, out);
            out.put_slice(text);
        }
        out.put_slice(&[0x30, code as u8]);
    }
    out.put_u8(0x3a);
    let client_id = if has_client_id(to) { &to.client_id.0[..] } else { &[] };
    out.put_u8(client_id.len() as u8);
    out.put_slice(client_id);
    out.put_u8(0x40);
    varint::put(varint::zigzag(to.retry_count.into()), out);
}

fn frame_length(length: usize) -> u32 {
    u32::try_from(length).expect("an answer is far below 4 GiB: services bound theirs")
}
