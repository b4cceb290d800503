//! A server's end of a connection: bytes in, what the client wants out.

use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use mobula_proto::common::rpc_sasl_proto::SaslState;
use mobula_proto::common::{IpcConnectionContextProto, RpcSaslProto, UserInformationProto};
use mobula_types::ClientId;
use prost::Message;

use super::answer::{self, AnswerTo, FatalDetail};
use super::{
    AUTH_NONE, AUTH_SASL, CONTEXT_CALL_ID, MAGIC, MESSAGE_LENGTH_MAX, NO_CALL_ID, NO_RETRY_COUNT,
    PING_CALL_ID, PRE_AUTH_LENGTH_MAX, PREAMBLE_LENGTH, SASL_CALL_ID, Stage, USER_LENGTH_MAX, VERSION,
};
use crate::fields::{Fields, Value};
use crate::remote::{RemoteException, class};
use crate::{WireError, convert, varint};

/// Java's names of the protocols that HDFS speaks.
static PROTOCOLS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    [
        "org.apache.hadoop.hdfs.protocol.ClientProtocol",
        "org.apache.hadoop.hdfs.server.protocol.DatanodeProtocol",
        "org.apache.hadoop.hdfs.server.protocol.DatanodeLifelineProtocol",
        "org.apache.hadoop.hdfs.server.protocol.InterDatanodeProtocol",
        "org.apache.hadoop.hdfs.server.protocol.NamenodeProtocol",
        "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol",
        "org.apache.hadoop.hdfs.protocol.ReconfigurationProtocol",
        "org.apache.hadoop.ha.HAServiceProtocol",
        "org.apache.hadoop.ha.ZKFCProtocol",
        "org.apache.hadoop.tools.GetUserMappingsProtocol",
        "org.apache.hadoop.security.RefreshUserMappingsProtocol",
        "org.apache.hadoop.security.authorize.RefreshAuthorizationPolicyProtocol",
        "org.apache.hadoop.ipc.RefreshCallQueueProtocol",
        "org.apache.hadoop.ipc.GenericRefreshProtocol",
        "org.apache.hadoop.ipc.ProtocolMetaInfoPB",
    ]
    .map(Arc::from)
    .into()
});

/// Whether HDFS has a protocol of that name.
pub fn is_known_protocol(name: &str) -> bool {
    PROTOCOLS.iter().any(|known| **known == *name)
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A step of the negotiation; what to answer, if anything.
    Sasl(Option<RpcSaslProto>),
    /// Who is calling: calls may follow.
    Context {
        /// The effective user.
        user: Arc<str>,
        /// Who asks in that user's name, if another.
        real_user: Option<Arc<str>>,
        /// The protocol that it names; each call names its own, which counts.
        protocol: Option<String>,
    },
    /// A sign of life.
    Ping,
    /// A call.
    Call(CallFrame),
}

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallFrame {
    /// Its number, 0 or above.
    pub call_id: i32,
    /// The client's id; zeros if it sent none.
    pub client_id: ClientId,
    /// How often the client has tried before; -1 if it does not say.
    pub retry_count: i32,
    /// Java's name of the protocol.
    pub protocol: Arc<str>,
    /// The method's name; shares the frame's bytes.
    pub method: Bytes,
    /// The protocol's version: 1.
    pub version: u64,
    /// What the client says of itself, as `CLI`; shares the frame's bytes.
    pub caller_context: Option<Bytes>,
    /// The request, still encoded; shares the frame's bytes.
    pub body: Bytes,
}

impl CallFrame {
    /// What its answer repeats.
    pub fn answer_to(&self) -> AnswerTo {
        AnswerTo { call_id: self.call_id, client_id: self.client_id, retry_count: self.retry_count }
    }
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// What to send before closing; empty to close without a word.
    pub answer: Bytes,
    /// Why, for the log.
    pub reason: String,
}

impl Fatal {
    fn silent(reason: String) -> Fatal {
        Fatal { answer: Bytes::new(), reason }
    }

    fn new(to: &AnswerTo, detail: FatalDetail, class: &'static str, words: impl Into<String>) -> Fatal {
        let exception = RemoteException::new(class, words);
        let mut answer = BytesMut::new();
        answer::encode_fatal(to, detail, &exception, &mut answer);
        Fatal { answer: answer.freeze(), reason: exception.message }
    }

    fn header(to: &AnswerTo, words: impl Into<String>) -> Fatal {
        Fatal::new(to, FatalDetail::InvalidHeader, class::FATAL_RPC_SERVER, words)
    }

    fn undecodable(to: &AnswerTo, what: &str, error: &WireError) -> Fatal {
        let words = format!("Error decoding {what}: {error}");
        Fatal::new(to, FatalDetail::Deserializing, class::FATAL_RPC_SERVER, words)
    }
}

/// Reads a connection from its first byte on.
#[derive(Debug, Default)]
pub struct ServerDecoder {
    state: State,
    stage: Stage,
    /// The protocol of the last call: nearly always that of the next one.
    protocol: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The first seven bytes.
    #[default]
    Preamble,
    /// The client asked for SASL and has yet to negotiate.
    Negotiating,
    /// SIMPLE, and nobody has said who they are.
    Anonymous,
    /// The context came.
    Ready,
}

impl ServerDecoder {
    /// At the first byte of a connection.
    pub fn new() -> ServerDecoder {
        ServerDecoder::default()
    }

    /// Whether the context came.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// How long the frame at the front of `input` is, with its length, as soon as it says so; `None` before the context,
    /// when frames are short, and for one that is too long.
    pub fn claimed(&self, input: &BytesMut) -> Option<usize> {
        let prefix = input.first_chunk().filter(|_| self.is_ready())?;
        let length = u32::from_be_bytes(*prefix) as usize;
        (length <= MESSAGE_LENGTH_MAX).then_some(prefix.len() + length)
    }

    /// Takes the next thing from the front of `input`; `None` if it has not arrived whole.
    ///
    /// # Errors
    /// [`Fatal`]: send its answer and close. As soon as what arrived is wrong; a frame that is too long by its
    /// claim alone.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, Fatal> {
        if self.state == State::Preamble && !self.preamble(input)? {
            return Ok(None);
        }
        self.stage.unwrap(input);
        let Some(frame) = self.frame(input)? else { return Ok(None) };
        self.incoming(&frame).map(Some)
    }

    /// Takes the preamble; `false` if it has not arrived.
    fn preamble(&mut self, input: &mut BytesMut) -> Result<bool, Fatal> {
        let Some(&[m0, m1, m2, m3, version, _service_class, auth]) = input.first_chunk() else {
            return Ok(false);
        };
        let magic = [m0, m1, m2, m3];
        let mut answer = BytesMut::new();
        if magic == *b"GET " {
            answer::encode_http_not_found(&mut answer);
            return Err(Fatal { answer: answer.freeze(), reason: "an HTTP request".into() });
        }
        if magic != MAGIC || version != VERSION {
            answer::encode_bad_version(version, &mut answer);
            let reason = format!("preamble {magic:02x?}, version {version}");
            return Err(Fatal { answer: answer.freeze(), reason });
        }
        self.state = match auth {
            AUTH_NONE => State::Anonymous,
            AUTH_SASL => State::Negotiating,
            _ => {
                let words = format!("Unknown auth protocol:{}", auth as i8);
                let to = AnswerTo::no_call(NO_CALL_ID);
                return Err(Fatal::new(&to, FatalDetail::Unauthorized, class::IPC, words));
            }
        };
        let _preamble = input.split_to(PREAMBLE_LENGTH);
        Ok(true)
    }

    /// Takes a frame without its length; `None` if it has not arrived whole.
    fn frame(&self, input: &mut BytesMut) -> Result<Option<Bytes>, Fatal> {
        let Some(&prefix) = input.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(prefix) as usize;
        let limit = if self.is_ready() { MESSAGE_LENGTH_MAX } else { PRE_AUTH_LENGTH_MAX };
        if length > limit {
            return Err(Fatal::silent(format!("a frame of {length} bytes, the limit is {limit}")));
        }
        let whole = prefix.len() + length;
        if input.len() < whole {
            return Ok(None);
        }
        let frame = input.split_to(whole).freeze();
        Ok(Some(frame.slice(prefix.len()..)))
    }

    fn incoming(&mut self, frame: &Bytes) -> Result<Incoming, Fatal> {
        let nobody = AnswerTo::no_call(NO_CALL_ID);
        let what = "RpcRequestHeaderProto";
        let undecodable = |error| Fatal::undecodable(&nobody, what, &error);
        let (header, rest) = split_delimited(what, frame, 0).map_err(undecodable)?;
        let header = RequestHeader::decode(&frame[header.clone()], header.start).map_err(undecodable)?;
        let to = header.check()?;
        match header.call_id {
            0.. if self.state == State::Ready => self.call(frame, rest, header),
            0.. => Err(Fatal::header(&to, "Connection context not established")),
            CONTEXT_CALL_ID => self.context(frame, rest, &to),
            SASL_CALL_ID => self.sasl(frame, rest, &to),
            PING_CALL_ID => Ok(Incoming::Ping),
            other => Err(Fatal::header(&to, format!("Unknown out of band call #{other}"))),
        }
    }

    fn call(&mut self, frame: &Bytes, at: usize, header: RequestHeader) -> Result<Incoming, Fatal> {
        let client_id = convert::client_id(&frame[header.client_id.clone()])
            .map_err(|error| Fatal::header(&header.answer_to(), error.to_string()))?;
        let to = AnswerTo { client_id, ..header.answer_to() };
        if header.kind != Some(KIND_PROTOBUF) {
            let words = format!("Unknown rpc kind in rpc header{}", kind_name(header.kind));
            return Err(Fatal::header(&to, words));
        }
        let unreadable = |error: WireError| {
            let words = format!("IPC server unable to read call parameters: {error}");
            Fatal::new(&to, FatalDetail::Deserializing, class::FATAL_RPC_SERVER, words)
        };
        let what = "RequestHeaderProto";
        let (method, rest) = split_delimited(what, frame, at).map_err(unreadable)?;
        let method = MethodHeader::decode(&frame[method.clone()], method.start).map_err(unreadable)?;
        let (body, end) = split_delimited("request", frame, rest).map_err(unreadable)?;
        if end != frame.len() {
            let count = (frame.len() - end) as u64;
            return Err(unreadable(WireError::Trailing { what: "request", count }));
        }
        let protocol = self.intern(&frame[method.protocol]).map_err(unreadable)?;
        Ok(Incoming::Call(CallFrame {
            call_id: header.call_id,
            client_id,
            retry_count: header.retry_count,
            protocol,
            method: frame.slice(method.name),
            version: method.version,
            caller_context: header.caller_context.map(|range| frame.slice(range)),
            body: frame.slice(body),
        }))
    }

    /// The shared copy of a protocol's name.
    fn intern(&mut self, name: &[u8]) -> Result<Arc<str>, WireError> {
        if let Some(last) = &self.protocol
            && last.as_bytes() == name
        {
            return Ok(last.clone());
        }
        let what = "declaringClassProtocolName";
        let name = std::str::from_utf8(name)
            .map_err(|error| WireError::Message { what, reason: error.to_string() })?;
        // A copy of this connection's own, so that cores do not share one counter.
        let protocol: Arc<str> = Arc::from(name);
        self.protocol = Some(protocol.clone());
        Ok(protocol)
    }

    fn context(&mut self, frame: &Bytes, at: usize, to: &AnswerTo) -> Result<Incoming, Fatal> {
        match self.state {
            State::Ready => return Err(Fatal::header(to, "Connection context already processed")),
            State::Negotiating | State::Preamble => {
                return Err(Fatal::header(to, "Connection header sent during SASL negotiation"));
            }
            State::Anonymous => {}
        }
        let context: IpcConnectionContextProto = decode_rest("IpcConnectionContextProto", frame, at, to)?;
        let IpcConnectionContextProto { user_info, protocol } = context;
        let UserInformationProto { effective_user, real_user } = user_info.unwrap_or_default();
        let user = check_user(effective_user.unwrap_or_default(), to)?;
        let real_user = real_user.map(|name| check_user(name, to)).transpose()?;
        self.state = State::Ready;
        let real_user = real_user.filter(|real_user| *real_user != user);
        Ok(Incoming::Context { user, real_user, protocol })
    }

    fn sasl(&mut self, frame: &Bytes, at: usize, to: &AnswerTo) -> Result<Incoming, Fatal> {
        if self.state != State::Negotiating {
            return Err(Fatal::header(to, "SASL protocol not requested by client"));
        }
        let message: RpcSaslProto = decode_rest("RpcSaslProto", frame, at, to)?;
        let state = SaslState::try_from(message.state);
        let is_simple = matches!(&message.auths[..], [auth] if auth.method == "SIMPLE");
        let answer = match state {
            // A server without authentication lists nothing and says at once that all is well.
            Ok(SaslState::Initiate) if is_simple => None,
            Ok(SaslState::Negotiate | SaslState::Initiate) => {
                Some(RpcSaslProto { state: SaslState::Success as i32, ..RpcSaslProto::default() })
            }
            Ok(SaslState::Wrap) => {
                let words = "Server is not wrapping data";
                return Err(Fatal::new(to, FatalDetail::InvalidHeader, class::SASL, words));
            }
            _ => {
                let name = state.map_or("UNKNOWN", |state| state.as_str_name());
                let words = format!("Client sent unsupported state {name}");
                return Err(Fatal::new(to, FatalDetail::Unauthorized, class::SASL, words));
            }
        };
        self.state = State::Anonymous;
        Ok(Incoming::Sasl(answer))
    }
}

/// Whether a user may have that name, by whatever way it comes.
///
/// # Errors
/// What is wrong with it.
pub fn check_user_name(name: &str) -> Result<(), String> {
    let length = name.len();
    if name.is_empty() {
        Err("Null user".into())
    } else if length > USER_LENGTH_MAX {
        Err(format!("A user name of {length} bytes, the limit is {USER_LENGTH_MAX}"))
    } else if name.chars().any(char::is_control) {
        Err("A user name with control characters".into())
    } else {
        Ok(())
    }
}

fn check_user(name: String, to: &AnswerTo) -> Result<Arc<str>, Fatal> {
    let checked = check_user_name(&name);
    checked.map_err(|words| Fatal::new(to, FatalDetail::Unauthorized, class::ACCESS_CONTROL, words))?;
    Ok(name.into())
}

fn decode_rest<M: Message + Default>(
    what: &'static str,
    frame: &Bytes,
    at: usize,
    to: &AnswerTo,
) -> Result<M, Fatal> {
    let decode = || {
        let (range, _) = split_delimited(what, frame, at)?;
        M::decode(&frame[range]).map_err(|error| WireError::message(what, &error))
    };
    decode().map_err(|error| Fatal::undecodable(to, what, &error))
}

/// Where the message with its length in front, which begins at `at`, lies in `frame`, and where the next begins.
fn split_delimited(
    what: &'static str,
    frame: &[u8],
    at: usize,
) -> Result<(std::ops::Range<usize>, usize), WireError> {
    let rest = &frame[at..];
    let (length, prefix) =
        varint::peek(rest)?.ok_or(WireError::Truncated { what, needed: 1, have: rest.len() as u64 })?;
    let have = (rest.len() - prefix) as u64;
    if length > have {
        return Err(WireError::Truncated { what, needed: length, have });
    }
    let end = at + prefix + length as usize;
    Ok((at + prefix..end, end))
}

/// `RPC_PROTOCOL_BUFFER`.
const KIND_PROTOBUF: u64 = 2;
/// `RPC_FINAL_PACKET`.
const OP_FINAL_PACKET: u64 = 0;

fn kind_name(kind: Option<u64>) -> String {
    match kind {
        Some(0) => "RPC_BUILTIN".into(),
        Some(1) => "RPC_WRITABLE".into(),
        other => format!("{other:?}"),
    }
}

/// What we read of `RpcRequestHeaderProto`; ranges are within the frame.
#[derive(Debug, Default)]
struct RequestHeader {
    kind: Option<u64>,
    op: Option<u64>,
    call_id: i32,
    has_call_id: bool,
    client_id: std::ops::Range<usize>,
    retry_count: i32,
    caller_context: Option<std::ops::Range<usize>>,
}

impl RequestHeader {
    /// `base` is where `bytes` begins in the frame.
    fn decode(bytes: &[u8], base: usize) -> Result<RequestHeader, WireError> {
        let mut header = RequestHeader { retry_count: NO_RETRY_COUNT, ..RequestHeader::default() };
        let mut fields = Fields::new("RpcRequestHeaderProto", bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Varint(kind)) => header.kind = Some(kind),
                (2, Value::Varint(op)) => header.op = Some(op),
                (3, Value::Varint(id)) => {
                    header.call_id = varint::unzigzag(u64::from(id as u32)) as i32;
                    header.has_call_id = true;
                }
                (4, Value::Bytes(id, at)) => header.client_id = base + at..base + at + id.len(),
                (5, Value::Varint(count)) => {
                    header.retry_count = varint::unzigzag(u64::from(count as u32)) as i32;
                }
                (7, Value::Bytes(context, at)) => {
                    header.caller_context = caller_context(context, base + at)?;
                }
                (1..=5 | 7, _) => return Err(fields.wrong_kind(number)),
                _ => {}
            }
        }
        if !header.has_call_id {
            return Err(WireError::Missing { what: "callId" });
        }
        Ok(header)
    }

    fn answer_to(&self) -> AnswerTo {
        AnswerTo { retry_count: self.retry_count, ..AnswerTo::no_call(self.call_id) }
    }

    /// HDFS's `checkRpcHeaders`.
    fn check(&self) -> Result<AnswerTo, Fatal> {
        let to = self.answer_to();
        match self.op {
            None => return Err(Fatal::header(&to, " IPC Server: No rpc op in rpcRequestHeader")),
            Some(OP_FINAL_PACKET) => {}
            Some(op) => {
                let name = match op {
                    1 => "RPC_CONTINUATION_PACKET".into(),
                    2 => "RPC_CLOSE_CONNECTION".into(),
                    other => other.to_string(),
                };
                let words = format!("IPC Server does not implement rpc header operation{name}");
                return Err(Fatal::header(&to, words));
            }
        }
        if self.kind.is_none() {
            return Err(Fatal::header(&to, " IPC Server: No rpc kind in rpcRequestHeader"));
        }
        Ok(to)
    }
}

/// Where the text of an `RPCCallerContextProto` lies in the frame.
fn caller_context(bytes: &[u8], base: usize) -> Result<Option<std::ops::Range<usize>>, WireError> {
    let mut fields = Fields::new("RPCCallerContextProto", bytes);
    let mut range = None;
    while let Some((number, value)) = fields.next()? {
        if let (1, Value::Bytes(text, at)) = (number, value) {
            range = Some(base + at..base + at + text.len());
        }
    }
    Ok(range)
}

/// `RequestHeaderProto`; ranges are within the frame.
#[derive(Debug, Default)]
struct MethodHeader {
    name: std::ops::Range<usize>,
    protocol: std::ops::Range<usize>,
    version: u64,
}

impl MethodHeader {
    fn decode(bytes: &[u8], base: usize) -> Result<MethodHeader, WireError> {
        let mut header = MethodHeader::default();
        let mut fields = Fields::new("RequestHeaderProto", bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(name, at)) => header.name = base + at..base + at + name.len(),
                (2, Value::Bytes(name, at)) => header.protocol = base + at..base + at + name.len(),
                (3, Value::Varint(version)) => header.version = version,
                (1..=3, _) => return Err(fields.wrong_kind(number)),
                _ => {}
            }
        }
        if header.name.is_empty() {
            return Err(WireError::Missing { what: "methodName" });
        }
        if header.protocol.is_empty() {
            return Err(WireError::Missing { what: "declaringClassProtocolName" });
        }
        Ok(header)
    }
}
