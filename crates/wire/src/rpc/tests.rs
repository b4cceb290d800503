#![allow(clippy::unwrap_used)]
//! Golden bytes as a live 3.5.0 NameNode and its shell exchanged them, and bytes that nobody should send.

use bytes::{BufMut, Bytes};
use mobula_proto::common::rpc_request_header_proto::OperationProto;
use mobula_proto::common::rpc_response_header_proto::{RpcErrorCodeProto, RpcStatusProto};
use mobula_proto::common::rpc_sasl_proto::{SaslAuth, SaslState};
use mobula_proto::common::{
    IpcConnectionContextProto, RequestHeaderProto, RpcRequestHeaderProto, RpcResponseHeaderProto,
    RpcSaslProto, UserInformationProto,
};
use mobula_proto::hdfs::{GetFileInfoRequestProto, GetFileInfoResponseProto};
use mobula_types::ClientId;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::encode_delimited;
use crate::remote::{RemoteException, class};

const CLIENT: ClientId = ClientId(*b"0123456789abcdef");
const PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientProtocol";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What `FsShell -test -e /a` sends as alice.
fn shell_bytes() -> Vec<u8> {
    let id = &CLIENT.0[..];
    [
        &hex("68727063 09 00 00")[..],
        &hex("0000005c 21 0802 1000 1805 2210"),
        id,
        &hex("2801 3a050a03434c49 39 1207 0a05616c696365 1a2e"),
        PROTOCOL.as_bytes(),
        &hex("00000067 21 0802 1000 1800 2210"),
        id,
        &hex("2800 3a050a03434c49 3f 0a0b"),
        b"getFileInfo",
        &hex("122e"),
        PROTOCOL.as_bytes(),
        &hex("1801 04 0a022f61"),
    ]
    .concat()
}

fn all(decoder: &mut ServerDecoder, input: &mut BytesMut) -> (Vec<Incoming>, Option<Fatal>) {
    let mut incoming = Vec::new();
    loop {
        match decoder.next(input) {
            Ok(Some(next)) => incoming.push(next),
            Ok(None) => return (incoming, None),
            Err(fatal) => return (incoming, Some(fatal)),
        }
    }
}

fn decode(bytes: &[u8]) -> (Vec<Incoming>, Option<Fatal>) {
    all(&mut ServerDecoder::new(), &mut BytesMut::from(bytes))
}

/// The header and what is behind it of the only frame in `answer`.
fn answer(answer: &[u8]) -> (RpcResponseHeaderProto, Bytes) {
    let mut frame = Bytes::copy_from_slice(&answer[4..]);
    assert_eq!(frame.len() as u32, u32::from_be_bytes(answer[..4].try_into().unwrap()));
    (crate::decode_delimited(&mut frame).unwrap(), frame)
}

fn frame(parts: &[&[u8]]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32(parts.iter().map(|part| part.len()).sum::<usize>() as u32);
    parts.iter().for_each(|part| out.put_slice(part));
    out
}

fn delimited<M: Message>(message: &M) -> BytesMut {
    let mut out = BytesMut::new();
    encode_delimited(message, &mut out);
    out
}

fn header(call_id: i32) -> RpcRequestHeaderProto {
    RpcRequestHeaderProto {
        rpc_kind: Some(2),
        rpc_op: Some(OperationProto::RpcFinalPacket as i32),
        call_id,
        client_id: Bytes::copy_from_slice(&CLIENT.0),
        retry_count: Some(0),
        ..Default::default()
    }
}

fn preamble(auth: u8) -> Vec<u8> {
    [&b"hrpc"[..], &[9, 0, auth]].concat()
}

fn context(user: &str) -> BytesMut {
    let mut out = BytesMut::new();
    encode_context(CLIENT, user, None, PROTOCOL, &mut out);
    out
}

fn call_with(header: &RpcRequestHeaderProto) -> BytesMut {
    let method = RequestHeaderProto {
        method_name: "getFileInfo".into(),
        declaring_class_protocol_name: PROTOCOL.into(),
        client_protocol_version: 1,
    };
    let request = GetFileInfoRequestProto { src: "/a".into() };
    frame(&[&delimited(header), &delimited(&method), &delimited(&request)])
}

/// What ends a connection that sends `bytes`: status, detail, class, words.
fn refusal(bytes: &[u8]) -> (i32, RpcErrorCodeProto, String, String) {
    let fatal = decode(bytes).1.expect("refused");
    let (header, rest) = answer(&fatal.answer);
    assert!(rest.is_empty(), "a failure has no body");
    assert_eq!(header.status, RpcStatusProto::Fatal as i32);
    assert_eq!(header.server_ipc_version_num, Some(9));
    let detail = RpcErrorCodeProto::try_from(header.error_detail.unwrap()).unwrap();
    (header.call_id as i32, detail, header.exception_class_name.unwrap(), header.error_msg.unwrap())
}

#[test]
fn the_shells_bytes_are_understood() {
    let (incoming, fatal) = decode(&shell_bytes());
    assert_eq!(fatal, None);
    let context =
        Incoming::Context { user: "alice".into(), real_user: None, protocol: Some(PROTOCOL.into()) };
    let call = CallFrame {
        call_id: 0,
        client_id: CLIENT,
        retry_count: 0,
        protocol: PROTOCOL.into(),
        method: Bytes::from_static(b"getFileInfo"),
        version: 1,
        caller_context: Some(Bytes::from_static(b"CLI")),
        body: Bytes::from_static(b"\x0a\x02/a"),
    };
    assert_eq!(incoming, [context, Incoming::Call(call)]);
}

#[test]
fn the_servers_bytes() {
    let mut out = BytesMut::new();
    let to = AnswerTo { call_id: 0, client_id: CLIENT, retry_count: 0 };
    encode_success(&to, &GetFileInfoResponseProto::default(), &mut out);
    let golden = [&hex("0000001c 1a 0800 1000 1809 3a10")[..], &CLIENT.0, &hex("4000 00")].concat();
    assert_eq!(&out[..], &golden[..]);

    out.clear();
    encode_sasl_success(&mut out);
    assert_eq!(&out[..], &hex("00000012 0e 08dfffffff0f 1000 1809 3a00 4001 02 1000")[..]);
    let (header, body) = answer(&out);
    assert_eq!(header.call_id as i32, SASL_CALL_ID);
    assert_eq!(&body[..], &hex("02 1000")[..]);
}

#[test]
fn a_call_as_the_shell_sends_it() {
    let mut out = BytesMut::new();
    encode_call(
        &CallHeader {
            call_id: 0,
            client_id: CLIENT,
            retry_count: 0,
            protocol: PROTOCOL,
            method: "getFileInfo",
            caller_context: Some("CLI"),
        },
        &GetFileInfoRequestProto { src: "/a".into() },
        &mut out,
    );
    let shell = shell_bytes();
    assert_eq!(&out[..], &shell[shell.len() - out.len()..]);
    assert_eq!(out.len(), 0x67 + 4);
}

#[test]
fn every_split_gives_the_same() {
    let bytes = shell_bytes();
    let whole = decode(&bytes).0;
    for cut in 0..bytes.len() {
        let (mut decoder, mut input) = (ServerDecoder::new(), BytesMut::from(&bytes[..cut]));
        let (mut incoming, fatal) = all(&mut decoder, &mut input);
        assert_eq!(fatal, None, "{cut}");
        input.extend_from_slice(&bytes[cut..]);
        incoming.extend(all(&mut decoder, &mut input).0);
        assert_eq!(incoming, whole, "{cut}");
    }
}

#[test]
fn wrong_preambles_get_what_their_version_understands() {
    let mismatch =
        |version: i8| format!("Server IPC version 9 cannot communicate with client version {version}");
    let class = class::RPC_VERSION_MISMATCH;
    for bytes in [&b"hrpc\x0a\x00\x00"[..], b"xxxx\x0a\x00\x00"] {
        let expected = (-1, RpcErrorCodeProto::FatalVersionMismatch, class.into(), mismatch(10));
        assert_eq!(refusal(bytes), expected);
    }
    let text = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let old = decode(b"hrpc\x08\x00\x00").1.unwrap().answer;
    assert_eq!(old, [hex("ffffffff ffffffff"), text(class), text(&mismatch(8))].concat());
    let older = decode(b"hrpc\x02\x00\x00").1.unwrap().answer;
    assert_eq!(older, [hex("00000000 01"), text(class), text(&mismatch(2))].concat());
    assert!(decode(b"\x00\x00\x00\x00\x00\x00\x00").1.unwrap().answer.is_empty());
    let http = decode(b"GET / HTTP/1.1\r\n").1.unwrap().answer;
    assert!(http.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
    let expected =
        (-1, RpcErrorCodeProto::FatalUnauthorized, class::IPC.into(), "Unknown auth protocol:7".into());
    assert_eq!(refusal(&preamble(7)), expected);
}

#[test]
fn frames_out_of_order_are_refused_in_words() {
    use RpcErrorCodeProto::{FatalDeserializingRequest, FatalInvalidRpcHeader, FatalUnauthorized};
    let ready = [&preamble(0)[..], &context("alice")].concat();
    let with = |start: &[u8], rest: &[u8]| refusal(&[start, rest].concat());
    let none = preamble(0);

    let (id, detail, class, words) = with(&none, &call_with(&header(5)));
    assert_eq!((id, detail), (5, FatalInvalidRpcHeader));
    assert_eq!(class, class::FATAL_RPC_SERVER);
    assert_eq!(words, "Connection context not established");

    let (id, detail, _, words) = with(&ready, &context("alice"));
    assert_eq!((id, detail), (CONTEXT_CALL_ID, FatalInvalidRpcHeader));
    assert_eq!(words, "Connection context already processed");

    let (_, detail, _, words) = with(&ready, &call_with(&header(-7)));
    assert_eq!((detail, &words[..]), (FatalInvalidRpcHeader, "Unknown out of band call #-7"));

    let no_op = RpcRequestHeaderProto { rpc_op: None, ..header(5) };
    assert_eq!(with(&ready, &call_with(&no_op)).3, " IPC Server: No rpc op in rpcRequestHeader");
    let close = RpcRequestHeaderProto { rpc_op: Some(2), ..header(5) };
    assert_eq!(
        with(&ready, &call_with(&close)).3,
        "IPC Server does not implement rpc header operationRPC_CLOSE_CONNECTION"
    );
    let no_kind = RpcRequestHeaderProto { rpc_kind: None, ..header(5) };
    assert_eq!(with(&ready, &call_with(&no_kind)).3, " IPC Server: No rpc kind in rpcRequestHeader");
    let writable = RpcRequestHeaderProto { rpc_kind: Some(1), ..header(5) };
    assert_eq!(with(&ready, &call_with(&writable)).3, "Unknown rpc kind in rpc headerRPC_WRITABLE");
    let short_id = RpcRequestHeaderProto { client_id: Bytes::from_static(b"short"), ..header(5) };
    assert_eq!(with(&ready, &call_with(&short_id)).1, FatalInvalidRpcHeader);

    // A header and nothing else, garbage, and bytes after the end.
    assert_eq!(with(&ready, &frame(&[&delimited(&header(5))])).1, FatalDeserializingRequest);
    assert_eq!(with(&ready, &frame(&[&[0xff; 20]])).1, FatalDeserializingRequest);
    assert_eq!(with(&ready, &frame(&[])).1, FatalDeserializingRequest);
    let call = call_with(&header(5));
    assert_eq!(with(&ready, &frame(&[&call[4..], b"more"])).1, FatalDeserializingRequest);

    for user in ["", "line\nbreak", &"x".repeat(USER_LENGTH_MAX + 1)] {
        assert_eq!(with(&none, &context(user)).1, FatalUnauthorized);
    }
}

#[test]
fn lengths_are_refused_when_they_are_claimed() {
    let ready = [&preamble(0)[..], &context("alice")].concat();
    for (start, length) in [
        (&ready[..], 0x8000_0000u32),
        (&ready, u32::MAX),
        (&ready, (128 << 20) + 1),
        (&preamble(0), (64 << 10) + 1),
        (&preamble(0), 0x8000_0000),
    ] {
        let fatal = decode(&[start, &length.to_be_bytes()].concat()).1.expect("refused");
        assert!(fatal.answer.is_empty(), "closed without a word");
    }
    // What is allowed waits, and takes no memory before it arrives.
    let mut input = BytesMut::from(&[&ready[..], &(128u32 << 20).to_be_bytes()].concat()[..]);
    let mut decoder = ServerDecoder::new();
    assert_eq!(all(&mut decoder, &mut input).1, None);
    assert!(input.capacity() < 4096);
}

#[test]
fn sasl_on_a_server_without_it() {
    let sasl = |state: SaslState, auths: Vec<SaslAuth>| {
        let header = RpcRequestHeaderProto { client_id: Bytes::new(), ..header(SASL_CALL_ID) };
        let message = RpcSaslProto { state: state as i32, auths, ..Default::default() };
        frame(&[&delimited(&header), &delimited(&message)])
    };
    let simple = SaslAuth { method: "SIMPLE".into(), mechanism: String::new(), ..Default::default() };
    let start = preamble(AUTH_SASL);
    let success = RpcSaslProto { state: SaslState::Success as i32, ..Default::default() };

    let negotiate = sasl(SaslState::Negotiate, vec![]);
    let bytes = [&start[..], &negotiate, &context("alice"), &call_with(&header(5))].concat();
    let (incoming, fatal) = decode(&bytes);
    assert_eq!(fatal, None);
    assert_eq!(incoming.len(), 3);
    assert_eq!(incoming[0], Incoming::Sasl(Some(success)));
    let initiate = sasl(SaslState::Initiate, vec![simple]);
    assert_eq!(decode(&[&start[..], &initiate].concat()), (vec![Incoming::Sasl(None)], None));

    let early = refusal(&[&start[..], &context("alice")].concat());
    assert_eq!(early.3, "Connection header sent during SASL negotiation");
    let twice = refusal(&[&start[..], &negotiate, &negotiate].concat());
    assert_eq!(twice.3, "SASL protocol not requested by client");
    let unasked = refusal(&[&preamble(0)[..], &negotiate].concat());
    assert_eq!(unasked.1, RpcErrorCodeProto::FatalInvalidRpcHeader);
    let response = refusal(&[&start[..], &sasl(SaslState::Response, vec![])].concat());
    assert_eq!((response.1, &response.2[..]), (RpcErrorCodeProto::FatalUnauthorized, class::SASL));
}

#[test]
fn a_proxy_user_and_one_that_is_itself() {
    let context = |effective: &str, real: &str| {
        let info =
            UserInformationProto { effective_user: Some(effective.into()), real_user: Some(real.into()) };
        let context = IpcConnectionContextProto { user_info: Some(info), protocol: None };
        frame(&[&delimited(&header(CONTEXT_CALL_ID)), &delimited(&context)])
    };
    let users = |bytes: &[u8]| match &decode(bytes).0[..] {
        [Incoming::Context { user, real_user, .. }] => {
            (user.to_string(), real_user.as_deref().map(str::to_owned))
        }
        other => panic!("{other:?}"),
    };
    let carol = [&preamble(0)[..], &context("carol", "alice")].concat();
    assert_eq!(users(&carol), ("carol".into(), Some("alice".into())));
    let alice = [&preamble(0)[..], &context("alice", "alice")].concat();
    assert_eq!(users(&alice), ("alice".into(), None));
}

#[test]
fn several_answers_in_one_buffer() {
    let mut out = BytesMut::new();
    let to = |call_id| AnswerTo { call_id, client_id: CLIENT, retry_count: -1 };
    let body = GetFileInfoRequestProto { src: "/a".into() };
    let exception = RemoteException::new(class::FILE_NOT_FOUND, "File does not exist: /a\n\tat x");
    encode_success(&to(7), &body, &mut out);
    encode_error(&to(300), ErrorDetail::Application, &exception, &mut out);
    encode_fatal(&to(-1), FatalDetail::Unauthorized, &exception, &mut out);
    let mut decoder = ClientDecoder::new(CLIENT);
    let mut next = || decoder.next(&mut out).unwrap();
    let success = Response { call_id: 7, outcome: Ok(body.encode_to_vec().into()), fatal: false };
    assert_eq!(next(), Some(success));
    let failure = |call_id, fatal| Response { call_id, outcome: Err(exception.clone()), fatal };
    assert_eq!(next(), Some(failure(300, false)));
    assert_eq!(next(), Some(failure(-1, true)));
    assert_eq!(next(), None);
    assert_eq!(exception.first_line(), "File does not exist: /a");
}

#[test]
fn an_answer_waits_at_every_split() {
    let mut out = BytesMut::new();
    let to = AnswerTo { call_id: 1, client_id: CLIENT, retry_count: 0 };
    encode_success(&to, &GetFileInfoRequestProto { src: "/a".into() }, &mut out);
    for cut in 0..out.len() {
        let mut input = BytesMut::from(&out[..cut]);
        let mut decoder = ClientDecoder::new(CLIENT);
        assert_eq!(decoder.next(&mut input), Ok(None), "{cut}");
        input.extend_from_slice(&out[cut..]);
        assert!(decoder.next(&mut input).unwrap().is_some());
        assert!(input.is_empty());
    }
}

#[test]
fn a_client_refuses_what_is_no_answer() {
    let mut decoder = ClientDecoder::new(CLIENT);
    let mut next = |bytes: &[u8]| decoder.next(&mut BytesMut::from(bytes));
    assert!(next(&[0x80, 0, 0, 0]).is_err());
    assert!(next(b"HTTP/1.1 200 OK").is_err());
    assert!(next(&frame(&[])).is_err());
    let mut foreign = BytesMut::new();
    let to = AnswerTo { call_id: 1, client_id: ClientId([1; 16]), retry_count: 0 };
    encode_success(&to, &GetFileInfoResponseProto::default(), &mut foreign);
    assert!(next(&foreign).is_err());
    let to = AnswerTo { client_id: CLIENT, ..to };
    let mut good = BytesMut::new();
    encode_success(&to, &GetFileInfoResponseProto::default(), &mut good);
    assert!(next(&frame(&[&good[4..], b"x"])).is_err(), "bytes after the end");
    assert!(next(&frame(&[&good[4..good.len() - 1]])).is_err(), "no body");
}

proptest! {
    #[test]
    fn our_header_is_prosts_header(call_id: i32, id: [u8; 16], retry_count: i32, words in "[ -~]{0,300}") {
        let to = AnswerTo { call_id, client_id: ClientId(id), retry_count };
        let exception = RemoteException { class: words.clone().into(), message: words.clone() };
        let mut out = BytesMut::new();
        encode_error(&to, ErrorDetail::Application, &exception, &mut out);
        let (header, rest) = answer(&out);
        prop_assert!(rest.is_empty());
        let client_id = if id == [0; 16] { Bytes::new() } else { Bytes::copy_from_slice(&id) };
        let expected = RpcResponseHeaderProto {
            call_id: call_id as u32,
            status: RpcStatusProto::Error as i32,
            server_ipc_version_num: Some(9),
            exception_class_name: Some(words.clone()),
            error_msg: Some(words),
            error_detail: Some(RpcErrorCodeProto::ErrorApplication as i32),
            client_id: Some(client_id),
            retry_count: Some(retry_count),
            state_id: None,
            router_federated_state: None,
        };
        prop_assert_eq!(&delimited(&expected)[..], &out[4..]);
        prop_assert_eq!(header, expected);
    }

    #[test]
    fn any_call_is_read_as_prost_wrote_it(
        call_id in 0..=i32::MAX,
        retry_count: i32,
        context in proptest::option::of("[a-z]{0,40}"),
        src in "[a-z/]{0,200}",
    ) {
        let mut out = BytesMut::from(&[&preamble(0)[..], &context_bytes()].concat()[..]);
        let call = CallHeader {
            call_id,
            client_id: CLIENT,
            retry_count,
            protocol: PROTOCOL,
            method: "getFileInfo",
            caller_context: context.as_deref(),
        };
        let request = GetFileInfoRequestProto { src };
        encode_call(&call, &request, &mut out);
        let (incoming, fatal) = decode(&out);
        prop_assert_eq!(fatal, None);
        let Incoming::Call(frame) = &incoming[1] else { panic!("{incoming:?}") };
        prop_assert_eq!((frame.call_id, frame.retry_count), (call_id, retry_count));
        prop_assert_eq!(frame.caller_context.as_deref(), context.as_deref().map(str::as_bytes));
        prop_assert_eq!(&frame.body[..], &request.encode_to_vec()[..]);
        prop_assert_eq!(frame.answer_to(), AnswerTo { call_id, client_id: CLIENT, retry_count });
    }

    #[test]
    fn any_bytes_to_the_server(auth in prop_oneof![Just(0u8), Just(0xdf)], ready: bool, bytes: Vec<u8>) {
        let start = if ready { context_bytes() } else { BytesMut::new() };
        decode(&[&preamble(auth)[..], &start, &bytes].concat());
        decode(&[&preamble(auth)[..], &start, &frame(&[&bytes])].concat());
        decode(&bytes);
    }

    #[test]
    fn damaged_bytes_to_the_server(damage in proptest::collection::vec((0usize..200, any::<u8>()), 1..4), cut in 0usize..210) {
        let mut bytes = shell_bytes();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let whole = decode(&bytes);
        // In two pieces it is the same as in one.
        let cut = cut % bytes.len();
        let (mut decoder, mut input) = (ServerDecoder::new(), BytesMut::from(&bytes[..cut]));
        let (mut incoming, mut fatal) = all(&mut decoder, &mut input);
        if fatal.is_none() {
            input.extend_from_slice(&bytes[cut..]);
            let (more, end) = all(&mut decoder, &mut input);
            incoming.extend(more);
            fatal = end;
        }
        prop_assert_eq!((incoming, fatal), whole);
    }

    #[test]
    fn any_bytes_to_the_client(bytes: Vec<u8>, at in 0usize..60, byte: u8) {
        let mut decoder = ClientDecoder::new(CLIENT);
        let _ = decoder.next(&mut BytesMut::from(&bytes[..]));
        let _ = decoder.next(&mut frame(&[&bytes]));
        let mut good = BytesMut::new();
        let to = AnswerTo { call_id: 1, client_id: CLIENT, retry_count: 0 };
        encode_success(&to, &GetFileInfoRequestProto { src: "/a/b/c".into() }, &mut good);
        let at = at % good.len();
        good[at] = byte;
        let _ = decoder.next(&mut good);
    }
}

fn context_bytes() -> BytesMut {
    context("alice")
}
