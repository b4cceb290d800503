//! A client's end of a connection: what it sends, and the answers that it gets.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mobula_proto::common::rpc_request_header_proto::OperationProto;
use mobula_proto::common::rpc_response_header_proto::RpcStatusProto;
use mobula_proto::common::{
    IpcConnectionContextProto, RequestHeaderProto, RpcCallerContextProto, RpcKindProto,
    RpcRequestHeaderProto, RpcResponseHeaderProto, UserInformationProto,
};
use mobula_types::ClientId;
use prost::Message;

use super::{
    AUTH_NONE, CONTEXT_CALL_ID, MAGIC, MESSAGE_LENGTH_MAX, NO_RETRY_COUNT, PING_CALL_ID, PROTOCOL_VERSION,
    VERSION,
};
use crate::remote::{RemoteException, class};
use crate::{WireError, decode_delimited, varint};

/// Writes the first seven bytes of a connection without authentication.
pub fn encode_preamble(out: &mut BytesMut) {
    out.put_slice(&MAGIC);
    out.put_slice(&[VERSION, 0, AUTH_NONE]);
}

/// Writes who is calling. `protocol` is Java's name of what will be called.
pub fn encode_context(
    client_id: ClientId,
    user: &str,
    real_user: Option<&str>,
    protocol: &str,
    out: &mut BytesMut,
) {
    let header = request_header(CONTEXT_CALL_ID, client_id, NO_RETRY_COUNT, None);
    let context = IpcConnectionContextProto {
        user_info: Some(UserInformationProto {
            effective_user: Some(user.into()),
            real_user: real_user.map(Into::into),
        }),
        protocol: Some(protocol.into()),
    };
    put_frame(&[&header, &context], out);
}

/// Writes a sign of life.
pub fn encode_ping(client_id: ClientId, out: &mut BytesMut) {
    put_frame(&[&request_header(PING_CALL_ID, client_id, NO_RETRY_COUNT, None)], out);
}

/// What is said about a call besides its request.
#[derive(Clone, Copy, Debug)]
pub struct CallHeader<'a> {
    /// Its number, 0 or above, unique among those that wait.
    pub call_id: i32,
    /// Who calls.
    pub client_id: ClientId,
    /// How often it was tried before.
    pub retry_count: i32,
    /// Java's name of the protocol.
    pub protocol: &'a str,
    /// The method.
    pub method: &'a str,
    /// What the caller says of itself.
    pub caller_context: Option<&'a str>,
}

/// Writes a call.
pub fn encode_call<M: Message>(call: &CallHeader<'_>, request: &M, out: &mut BytesMut) {
    let CallHeader { call_id, client_id, retry_count, protocol, method, caller_context } = *call;
    let header = request_header(call_id, client_id, retry_count, caller_context);
    let method = RequestHeaderProto {
        method_name: method.into(),
        declaring_class_protocol_name: protocol.into(),
        client_protocol_version: PROTOCOL_VERSION,
    };
    put_frame(&[&header, &method, request], out);
}

fn request_header(
    call_id: i32,
    client_id: ClientId,
    retry_count: i32,
    caller_context: Option<&str>,
) -> RpcRequestHeaderProto {
    let caller_context =
        caller_context.map(|context| RpcCallerContextProto { context: context.into(), signature: None });
    RpcRequestHeaderProto {
        rpc_kind: Some(RpcKindProto::RpcProtocolBuffer as i32),
        rpc_op: Some(OperationProto::RpcFinalPacket as i32),
        call_id,
        client_id: Bytes::copy_from_slice(&client_id.0),
        retry_count: Some(retry_count),
        caller_context,
        ..RpcRequestHeaderProto::default()
    }
}

/// A message of any type.
trait Part {
    fn length(&self) -> usize;
    fn put(&self, out: &mut BytesMut);
}

impl<M: Message> Part for M {
    fn length(&self) -> usize {
        self.encoded_len()
    }

    fn put(&self, out: &mut BytesMut) {
        self.encode_raw(out);
    }
}

fn put_frame(parts: &[&dyn Part], out: &mut BytesMut) {
    let length: usize = parts.iter().map(|part| varint::length(part.length() as u64) + part.length()).sum();
    out.reserve(4 + length);
    out.put_u32(u32::try_from(length).expect("a request is far below 4 GiB"));
    for part in parts {
        varint::put(part.length() as u64, out);
        part.put(out);
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// To which call; -1 for none.
    pub call_id: i32,
    /// The encoded result, or the exception.
    pub outcome: Result<Bytes, RemoteException>,
    /// The server closes the connection after this: all calls that wait have failed.
    pub fatal: bool,
}

/// Reads the answers of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientDecoder {
    client_id: ClientId,
}

impl ClientDecoder {
    /// For the connection of the client `client_id`.
    pub fn new(client_id: ClientId) -> ClientDecoder {
        ClientDecoder { client_id }
    }

    /// Takes the next answer from the front of `input`; `None` if it has not arrived whole.
    ///
    /// # Errors
    /// [`WireError`]: what arrived is no answer, or one for another client; the connection is of no use.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Response>, WireError> {
        let Some(&prefix) = input.first_chunk() else { return Ok(None) };
        let length = u64::from(u32::from_be_bytes(prefix));
        if length > MESSAGE_LENGTH_MAX as u64 {
            return Err(WireError::TooLong { what: "answer", length, limit: MESSAGE_LENGTH_MAX as u64 });
        }
        let whole = prefix.len() + length as usize;
        if input.len() < whole {
            return Ok(None);
        }
        let mut frame = input.split_to(whole).freeze();
        frame.advance(prefix.len());
        self.response(frame).map(Some)
    }

    fn response(&self, mut frame: Bytes) -> Result<Response, WireError> {
        let header: RpcResponseHeaderProto = decode_delimited(&mut frame)?;
        let RpcResponseHeaderProto { call_id, status, exception_class_name, error_msg, client_id, .. } =
            header;
        if let Some(id) = client_id
            && !id.is_empty()
            && id[..] != self.client_id.0
        {
            return Err(WireError::Message {
                what: "answer",
                reason: format!("for another client: {:02x?}", &id[..]),
            });
        }
        let status = RpcStatusProto::try_from(status)
            .map_err(|_| WireError::Unknown { what: "status of an answer", value: status.into() })?;
        let outcome = match status {
            RpcStatusProto::Success => Ok(split_body(&mut frame)?),
            RpcStatusProto::Error | RpcStatusProto::Fatal => Err(RemoteException {
                class: exception_class_name.map_or(class::IO.into(), Into::into),
                message: error_msg.unwrap_or_default(),
            }),
        };
        if !frame.is_empty() {
            return Err(WireError::Trailing { what: "answer", count: frame.len() as u64 });
        }
        Ok(Response { call_id: call_id as i32, outcome, fatal: status == RpcStatusProto::Fatal })
    }
}

fn split_body(frame: &mut Bytes) -> Result<Bytes, WireError> {
    let have = frame.len() as u64;
    let what = "result";
    let (length, prefix) = varint::peek(frame)?.ok_or(WireError::Truncated { what, needed: 1, have })?;
    let have = have - prefix as u64;
    if length > have {
        return Err(WireError::Truncated { what, needed: length, have });
    }
    frame.advance(prefix);
    Ok(frame.split_to(length as usize))
}
