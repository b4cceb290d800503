//! Calls as they should be.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mobula_rpc::{CallError, CallOptions, RpcClient, RpcClientOptions};
use mobula_wire::remote::class;
use mobula_wire::rpc;

use crate::fixture::{CLIENT, Fixture, PROTOCOL, Text, call_bytes, ready_bytes, text, wait_for};

fn remote(error: CallError) -> (String, String) {
    match error {
        CallError::Remote(exception) => (exception.class.into_owned(), exception.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn many_calls_in_flight_are_answered_out_of_order() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500 {
        let client = client.clone();
        tasks.spawn(async move {
            let method = if n % 2 == 0 { "hold" } else { "echo" };
            let answer: Text = client.call(method, &text(format!("/{n}"))).await.unwrap();
            assert_eq!(answer.src, format!("/{n}"));
        });
    }
    wait_for("half are held", || fixture.service.held.lock().len() == 250).await;
    wait_for("the others are counted", || fixture.service.calls.load(Ordering::Relaxed) == 500).await;
    fixture.service.release();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(client.is_connected());
}

#[tokio::test]
async fn failures_are_what_hdfs_says() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let call = async |method| remote(client.call::<_, Text>(method, &text("/")).await.unwrap_err());
    assert_eq!(call("fail").await, (class::FILE_NOT_FOUND.into(), "File does not exist: /a".into()));
    let words = format!("Unknown method what called on {PROTOCOL} protocol.");
    assert_eq!(call("what").await, (class::RPC_NO_SUCH_METHOD.into(), words));
    assert_eq!(call("forget").await.0, class::RPC_SERVER);

    let options = RpcClientOptions { protocol: "org.example.Unknown", ..fixture.options() };
    let other = RpcClient::new(&fixture.env, options);
    let failure = remote(other.call::<_, Text>("echo", &text("/")).await.unwrap_err());
    assert_eq!(failure, (class::RPC_NO_SUCH_PROTOCOL.into(), "Unknown protocol: org.example.Unknown".into()));
    // An exception of a call costs the connection nothing.
    assert!(client.is_connected() && other.is_connected());
}

#[tokio::test]
async fn a_fatal_answer_fails_all_that_wait_and_the_next_call_connects_again() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, Text>("hold", &text("/")).await }
    });
    wait_for("one is held", || fixture.service.held.lock().len() == 1).await;
    let fatal = remote(client.call::<_, Text>("fatal", &text("/")).await.unwrap_err());
    assert_eq!(fatal.0, class::FILE_NOT_FOUND);
    assert_eq!(remote(waiting.await.unwrap().unwrap_err()), fatal);
    assert!(!client.is_connected());
    client.call::<_, Text>("echo", &text("/")).await.unwrap();
    fixture.service.release();
}

#[tokio::test]
async fn the_caller_is_known_with_its_retries() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let id = client.next_call_id();
    for retry_count in [0, 3] {
        let options = CallOptions { call_id: Some(id), retry_count };
        let answer: Text = client.call_with("whoami", &text(""), options).await.unwrap();
        assert_eq!(answer.src, format!("alice {retry_count}"));
    }
    assert_ne!(client.next_call_id(), id);
    assert_eq!(client.client_id().0[6] >> 4, 4, "a random UUID");
}

#[tokio::test]
async fn a_server_that_goes_away_and_comes_back() {
    let fixture = Fixture::start().await;
    let (client, address) = (fixture.client(), fixture.address());
    client.call::<_, Text>("echo", &text("/")).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, Text>("hold", &text("/")).await }
    });
    wait_for("one is held", || fixture.service.held.lock().len() == 1).await;
    let Fixture { env, service, server } = fixture;
    drop(server);
    assert!(matches!(waiting.await.unwrap(), Err(CallError::Lost { .. })));
    // Answers to a connection that is gone go nowhere, quietly.
    service.release();
    let refused = client.call::<_, Text>("echo", &text("/")).await;
    assert!(matches!(refused, Err(CallError::Connect { .. })), "{refused:?}");

    let listener = env.net.listen(address).await.unwrap();
    let limits = crate::fixture::limits();
    let _server = mobula_rpc::RpcServer::start(&env, listener, service, limits);
    client.call::<_, Text>("echo", &text("/")).await.unwrap();
}

#[tokio::test]
async fn a_call_that_nobody_answers_ends_in_time_and_leaves_nothing() {
    let fixture = Fixture::start().await;
    let options = RpcClientOptions { call_limit: Duration::from_millis(50), ..fixture.options() };
    let client = RpcClient::new(&fixture.env, options);
    let lost = client.call::<_, Text>("hold", &text("/late")).await;
    assert!(matches!(lost, Err(CallError::Lost { .. })), "{lost:?}");
    // The server was silent all the time: the connection may be dead, and the next call gets another.
    assert!(!client.is_connected());
    fixture.service.release();
    client.call::<_, Text>("echo", &text("/")).await.unwrap();
    assert!(client.is_connected());
}

#[tokio::test]
async fn close_fails_what_waits() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, Text>("hold", &text("/")).await }
    });
    wait_for("one is held", || fixture.service.held.lock().len() == 1).await;
    client.close();
    assert!(matches!(waiting.await.unwrap(), Err(CallError::Lost { .. })));
    assert!(!client.is_connected());
    client.call::<_, Text>("echo", &text("/")).await.unwrap();
}

#[tokio::test]
async fn an_idle_client_lets_its_connection_go() {
    let fixture = Fixture::start().await;
    let limit = Duration::from_millis(30);
    let client = RpcClient::with_idle_limit(&fixture.env, fixture.options(), limit);
    client.call::<_, Text>("echo", &text("/")).await.unwrap();
    wait_for("the connection is gone", || !client.is_connected()).await;
    client.call::<_, Text>("echo", &text("/")).await.unwrap();
}

/// A paused clock runs to the next alarm when nothing else happens, so the ping comes at once.
#[tokio::test(start_paused = true)]
async fn a_waiting_client_pings() {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = RpcClientOptions {
        address: listener.local_addr().unwrap().to_string(),
        user: "alice".into(),
        protocol: PROTOCOL,
        connect_limit: Duration::from_secs(1000),
        call_limit: Duration::from_secs(1000),
    };
    let client = RpcClient::new(&mobula_net::Env::real(), options);
    let call = tokio::spawn(async move { client.call::<_, Text>("echo", &text("/")).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut input = BytesMut::new();
    let mut decoder = rpc::ServerDecoder::new();
    let mut seen = Vec::new();
    while !seen.contains(&rpc::Incoming::Ping) {
        assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0, "closed after {seen:?}");
        while let Some(incoming) = decoder.next(&mut input).unwrap() {
            seen.push(incoming);
        }
    }
    assert_eq!(seen.len(), 3, "context, call, ping: {seen:?}");
    call.abort();
}

#[tokio::test]
async fn a_ping_gets_no_answer_and_harms_nothing() {
    let fixture = Fixture::start().await;
    let mut raw = fixture.raw().await;
    let mut bytes = ready_bytes();
    rpc::encode_ping(CLIENT, &mut bytes);
    bytes.extend_from_slice(&call_bytes(4, "echo", &text("/a")));
    raw.send(&bytes).await;
    let response = raw.response(&mut BytesMut::new()).await;
    assert_eq!(response.call_id, 4);
}

#[tokio::test]
async fn bytes_that_trickle_in_one_by_one() {
    let fixture = Fixture::start().await;
    let mut raw = fixture.raw().await;
    let bytes = [ready_bytes(), call_bytes(1, "echo", &text("/slow"))].concat();
    for byte in bytes {
        raw.send(&[byte]).await;
    }
    assert_eq!(raw.response(&mut BytesMut::new()).await.call_id, 1);
}
