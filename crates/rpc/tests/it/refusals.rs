//! Connections that get an answer and are closed, or are closed without one.

use bytes::BytesMut;
use mobula_wire::remote::class;
use mobula_wire::rpc::{self, CallHeader};

use crate::fixture::{CLIENT, Fixture, PROTOCOL, Text, call_bytes, ready_bytes, text};

/// What the server says before it closes.
async fn answer_to(fixture: &Fixture, bytes: &[u8]) -> Vec<u8> {
    let mut raw = fixture.raw().await;
    raw.send(bytes).await;
    raw.rest().await
}

fn contains(answer: &[u8], words: &str) -> bool {
    answer.windows(words.len()).any(|window| window == words.as_bytes())
}

#[tokio::test]
async fn wrong_beginnings_are_answered_and_closed() {
    let fixture = Fixture::start().await;
    let mismatch = "Server IPC version 9 cannot communicate with client version";
    for (bytes, words) in [
        (&b"hrpc\x08\x00\x00"[..], mismatch),
        (b"hrpc\x0b\x00\x00", mismatch),
        (b"nope\x09\x00\x00", mismatch),
        (b"hrpc\x09\x00\x05", "Unknown auth protocol:5"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 Not Found"),
    ] {
        let answer = answer_to(&fixture, bytes).await;
        assert!(contains(&answer, words), "{bytes:?}: {}", String::from_utf8_lossy(&answer));
    }
    // More than was read when the answer was given must not destroy the answer on its way.
    let long = [&b"GET / HTTP/1.1\r\n"[..], &[b'x'; 300_000]].concat();
    assert!(contains(&answer_to(&fixture, &long).await, "HTTP/1.1 404 Not Found"));
}

#[tokio::test]
async fn lengths_beyond_the_limit_are_closed_without_a_word() {
    let fixture = Fixture::start().await;
    for (start, length) in [
        (&ready_bytes()[..], 0x8000_0000u32),
        (&ready_bytes(), 0x7fff_ffff),
        (b"hrpc\x09\x00\x00", 0x8000_0000),
        (b"hrpc\x09\x00\x00", 1 << 20),
    ] {
        let bytes = [start, &length.to_be_bytes()].concat();
        assert_eq!(answer_to(&fixture, &bytes).await, b"", "{length:#x}");
    }
    fixture.client().call::<_, Text>("echo", &text("/")).await.unwrap();
}

#[tokio::test]
async fn a_call_before_the_context_and_a_user_too_long() {
    let fixture = Fixture::start().await;
    let call = [&b"hrpc\x09\x00\x00"[..], &call_bytes(0, "echo", &text("/"))].concat();
    assert!(contains(&answer_to(&fixture, &call).await, "Connection context not established"));
    let mut bytes = BytesMut::from(&b"hrpc\x09\x00\x00"[..]);
    rpc::encode_context(CLIENT, &"x".repeat(5000), None, PROTOCOL, &mut bytes);
    assert!(contains(&answer_to(&fixture, &bytes).await, class::ACCESS_CONTROL));
    let mut bytes = BytesMut::from(&b"hrpc\x09\x00\x00"[..]);
    rpc::encode_context(CLIENT, &"x".repeat(1 << 20), None, PROTOCOL, &mut bytes);
    let mut raw = fixture.raw().await;
    // The server may close before it has taken all of it.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.0, &bytes).await;
    fixture.client().call::<_, Text>("echo", &text("/")).await.unwrap();
}

#[tokio::test]
async fn nobody_speaks_in_anothers_name() {
    let fixture = Fixture::start().await;
    let mut bytes = BytesMut::from(&b"hrpc\x09\x00\x00"[..]);
    rpc::encode_context(CLIENT, "carol", Some("alice"), PROTOCOL, &mut bytes);
    let answer = answer_to(&fixture, &bytes).await;
    assert!(contains(&answer, class::AUTHORIZATION));
    assert!(contains(&answer, "User: alice is not allowed to impersonate carol"));
}

#[tokio::test]
async fn another_version_of_a_known_protocol() {
    let fixture = Fixture::start().await;
    let mut raw = fixture.ready().await;
    let mut bytes = BytesMut::new();
    let header = CallHeader {
        call_id: 3,
        client_id: CLIENT,
        retry_count: 0,
        protocol: PROTOCOL,
        method: "echo",
        caller_context: None,
    };
    rpc::encode_call(&header, &text("/"), &mut bytes);
    // The version is the last byte of the protocol's header: 18 01.
    let at = bytes.windows(2).rposition(|pair| pair == [0x18, 1]).unwrap();
    bytes[at + 1] = 2;
    raw.send(&bytes).await;
    let exception = raw.response(&mut BytesMut::new()).await.outcome.unwrap_err();
    assert_eq!(exception.class, class::RPC_VERSION_MISMATCH);
    assert_eq!(exception.message, format!("Protocol {PROTOCOL} version mismatch. (client = 2, server = 1)"));
    raw.send(&call_bytes(4, "echo", &text("/"))).await;
    assert_eq!(raw.response(&mut BytesMut::new()).await.call_id, 4);
}

#[tokio::test]
async fn a_client_with_tokens_goes_on_as_simple() {
    let fixture = Fixture::start().await;
    let mut raw = fixture.raw().await;
    // Header of call -33 without a client id, then RpcSaslProto{state = NEGOTIATE}.
    let negotiate = b"\x00\x00\x00\x0e\x0a\x08\x02\x10\x00\x18\x41\x22\x00\x28\x01\x02\x10\x01";
    raw.send(&[&b"hrpc\x09\x00\xdf"[..], negotiate].concat()).await;
    let mut input = BytesMut::new();
    let success = raw.response(&mut input).await;
    assert_eq!((success.call_id, &success.outcome.unwrap()[..]), (-33, &b"\x10\x00"[..]));
    raw.send(&ready_bytes()[7..]).await;
    raw.send(&call_bytes(0, "whoami", &text(""))).await;
    assert_eq!(&raw.response(&mut input).await.outcome.unwrap()[..], b"\x0a\x07alice 0");
}

#[tokio::test]
async fn random_bytes_after_a_good_beginning() {
    let fixture = Fixture::start().await;
    let seed = fixture.env.entropy.u64();
    println!("seed {seed}");
    let random = mobula_net::Entropy::seeded(seed);
    for round in 0..200 {
        let mut bytes = if round % 2 == 0 { ready_bytes().to_vec() } else { Vec::new() };
        bytes.extend((0..random.below(200)).map(|_| random.u64() as u8));
        let mut raw = fixture.raw().await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.0, &bytes).await;
    }
    fixture.client().call::<_, Text>("echo", &text("/")).await.unwrap();
}
