//! Clients that take and do not give: memory stays bounded, others notice nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mobula_rpc::RpcServerOptions;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::fixture::{Fixture, LIMIT, Text, call_bytes, limits, ready_bytes, text, wait_for};

/// Idle connections in the test, unless the limit of files is lower.
const IDLE: usize = 2_000;

/// This process's memory, for a look with `--nocapture`.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("unknown").to_string()
}

#[tokio::test]
async fn thousands_of_idle_connections() {
    let fixture = Fixture::start().await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        // Both ends are files of this process.
        let connected = fixture.env.net.connect(&fixture.address().to_string(), LIMIT).await;
        let Ok(mut stream) = connected else { break };
        if stream.write_all(&ready_bytes()).await.is_err() {
            break;
        }
        idle.push(stream);
    }
    println!("{} idle connections, {}", idle.len(), resident());
    // Room for one more, should the limit of files have been reached.
    idle.pop();
    idle.pop();
    let client = fixture.client();
    for n in 0..100 {
        let answer: Text = client.call("echo", &text(format!("/{n}"))).await.unwrap();
        assert_eq!(answer.src, format!("/{n}"));
    }
    assert!(idle.len() > 100, "{} connections", idle.len());
}

#[tokio::test]
async fn a_client_that_stops_reading_is_not_served_further() {
    let outbox_bytes_max = 256 << 10;
    let fixture = Fixture::with(RpcServerOptions { outbox_bytes_max, ..limits() }).await;
    let raw = fixture.ready().await;
    // 2,000 calls for 100 KB each, and nothing is read: the sockets' buffers take some megabytes of it.
    let mut calls = BytesMut::new();
    for id in 0..2_000 {
        calls.extend_from_slice(&call_bytes(id, "big", &text("100000")));
    }
    let (mut read, mut write) = raw.0.into_split();
    let writer = tokio::spawn(async move {
        let _ = write.write_all(&calls).await;
        write
    });
    let count = || fixture.service.calls.load(Ordering::Relaxed);
    // Once the count stands still, the server has had enough.
    let mut before = usize::MAX;
    while before != count() {
        before = count();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < 500, "{before} calls were answered to a client that does not read");
    fixture.client().call::<_, Text>("echo", &text("/")).await.unwrap();

    // When it reads again, everything comes, in full.
    use tokio::io::AsyncReadExt;
    let mut decoder = mobula_wire::rpc::ClientDecoder::new(crate::fixture::CLIENT);
    let mut input = BytesMut::new();
    let mut answers = 0;
    while answers < 2_000 {
        let more = timeout(LIMIT, read.read_buf(&mut input)).await.expect("in time").unwrap();
        assert_ne!(more, 0, "closed after {answers} answers");
        while let Some(response) = decoder.next(&mut input).unwrap() {
            assert!(response.outcome.unwrap().len() > 100_000);
            answers += 1;
        }
    }
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn calls_in_flight_are_bounded() {
    let fixture = Fixture::with(RpcServerOptions { calls_in_flight_max: 10, ..limits() }).await;
    let mut raw = fixture.ready().await;
    for id in 0..35 {
        raw.send(&call_bytes(id, "hold", &text("/"))).await;
    }
    let held = || fixture.service.held.lock().len();
    let mut input = BytesMut::new();
    for batch in [10, 10, 10, 5] {
        wait_for("the next ones are held", || held() == batch).await;
        // None comes above the limit, however long others take.
        fixture.client().call::<_, Text>("echo", &text("/")).await.unwrap();
        assert_eq!(held(), batch);
        fixture.service.release();
        for _ in 0..batch {
            raw.response(&mut input).await;
        }
    }
}

/// Of all connections together, and until they are answered.
#[tokio::test]
async fn bytes_of_requests_are_bounded() {
    let fixture = Fixture::with(RpcServerOptions { request_bytes_max: 1 << 20, ..limits() }).await;
    let (long, short) = (text("x".repeat(300 << 10)), text("x".repeat(20 << 10)));
    let mut writers = Vec::new();
    for _ in 0..2 {
        let raw = fixture.ready().await;
        let (read, mut write) = raw.0.into_split();
        let calls: BytesMut = (0..5).flat_map(|id| call_bytes(id, "hold", &long)).collect();
        // Before all of it is read, much is released.
        writers.push((read, tokio::spawn(async move { write.write_all(&calls).await.map(|()| write) })));
    }
    let held = || fixture.service.held.lock().len();
    for round in [3, 3, 3, 1] {
        wait_for("the next ones are held", || held() == round).await;
        // None comes above the limit, and short ones have room.
        let answer: Text = fixture.client().call("echo", &short).await.unwrap();
        assert_eq!(answer, short);
        assert_eq!(held(), round);
        fixture.service.release();
    }
    let mut open = Vec::new();
    for (read, writer) in writers {
        open.push((read, writer.await.unwrap().unwrap()));
    }

    // One that is longer than all of the room has it for itself.
    let longest = text("x".repeat(3 << 20));
    let mut raw = fixture.ready().await;
    raw.send(&call_bytes(0, "hold", &longest)).await;
    wait_for("it is held", || held() == 1).await;
    let mut waiting = fixture.ready().await;
    waiting.send(&call_bytes(0, "echo", &text("x".repeat(65 << 10)))).await;
    fixture.client().call::<_, Text>("echo", &short).await.unwrap();
    assert_eq!(fixture.service.calls.load(Ordering::Relaxed), 10 + 4 + 1 + 1);
    fixture.service.release();
    waiting.response(&mut BytesMut::new()).await;
}

/// Four bytes that announce a frame as long as all of the room, and nothing behind them: the room is others' again before
/// long.
#[tokio::test]
async fn who_announces_a_long_frame_must_send_it() {
    let fixture = Fixture::with(RpcServerOptions { request_bytes_max: 1 << 20, ..limits() }).await;
    let mut stalled = fixture.ready().await;
    stalled.send(&(1_u32 << 20).to_be_bytes()).await;
    let long = text("x".repeat(300 << 10));
    let waits = fixture.client();
    let answer = tokio::time::timeout(Duration::from_secs(25), waits.call::<_, Text>("echo", &long)).await;
    assert_eq!(answer.unwrap().unwrap(), long);
}

#[tokio::test]
async fn one_connection_too_many() {
    let fixture = Fixture::with(RpcServerOptions { connections_max: 3, ..limits() }).await;
    let mut kept = Vec::new();
    for id in 0..3 {
        let mut raw = fixture.ready().await;
        raw.send(&call_bytes(id, "echo", &text("/"))).await;
        raw.response(&mut BytesMut::new()).await;
        kept.push(raw);
    }
    assert_eq!(fixture.raw().await.rest().await, b"");
    kept.pop();
    // Its place is free as soon as the server has seen it go.
    let client = fixture.client();
    let start = tokio::time::Instant::now();
    while client.call::<_, Text>("echo", &text("/")).await.is_err() {
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A paused clock runs on by itself while everybody waits.
#[tokio::test(start_paused = true)]
async fn a_beginning_that_never_ends_is_closed() {
    let fixture = Fixture::start().await;
    for start in [&b""[..], b"hrp", b"hrpc\x09\x00\x00", &ready_bytes()[..20]] {
        let mut raw = fixture.raw().await;
        raw.send(start).await;
        use tokio::io::AsyncReadExt;
        let mut rest = Vec::new();
        let closed = raw.0.read_to_end(&mut rest).await;
        assert!(closed.is_err() || rest.is_empty());
    }
    // Who has said who they are may be silent.
    let mut raw = fixture.ready().await;
    raw.send(&call_bytes(0, "echo", &text("/"))).await;
    let mut input = BytesMut::new();
    raw.response(&mut input).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    raw.send(&call_bytes(1, "echo", &text("/"))).await;
    raw.response(&mut input).await;
}

/// The longest idle connection makes room.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_makes_room() {
    let mut fixture = Fixture::start().await;
    fixture.env.clock = mobula_net::Clock::virtual_from(0);
    let listener = fixture.env.net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let options = RpcServerOptions { connections_max: 2, ..limits() };
    fixture.server = mobula_rpc::RpcServer::start(&fixture.env, listener, fixture.service.clone(), options);
    let mut input = BytesMut::new();
    let mut first = fixture.ready().await;
    first.send(&call_bytes(0, "echo", &text("/"))).await;
    first.response(&mut input).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let mut second = fixture.ready().await;
    second.send(&call_bytes(0, "echo", &text("/"))).await;
    second.response(&mut input).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let mut third = fixture.ready().await;
    third.send(&call_bytes(0, "echo", &text("/"))).await;
    third.response(&mut input).await;
    assert_eq!(first.rest().await, b"");
    second.send(&call_bytes(1, "echo", &text("/"))).await;
    second.response(&mut input).await;
}

/// A paused clock runs on by itself while everybody waits.
#[tokio::test(start_paused = true)]
async fn who_never_reads_and_who_never_finishes_is_closed() {
    use tokio::io::AsyncReadExt;
    let fixture = Fixture::start().await;
    let mut deaf = fixture.ready().await;
    for id in 0..300 {
        deaf.send(&call_bytes(id, "big", &text("100000"))).await;
    }
    let mut slow = fixture.ready().await;
    slow.send(&[0, 1, 0, 0, 1, 2, 3]).await;
    let mut patient = fixture.ready().await;
    patient.send(&call_bytes(0, "hold", &text("/"))).await;
    tokio::time::sleep(Duration::from_secs(400)).await;

    let mut rest = Vec::new();
    let closed = timeout(LIMIT, deaf.0.read_to_end(&mut rest)).await.expect("closed");
    assert!(rest.len() < 300 * 100_000, "{closed:?}: {} bytes", rest.len());
    let mut rest = Vec::new();
    let closed = timeout(LIMIT, slow.0.read_to_end(&mut rest)).await.expect("closed");
    assert!(closed.is_err() || rest.is_empty());
    // One that waits for its answer may wait.
    fixture.service.release();
    patient.response(&mut BytesMut::new()).await;
}
