//! A server with a service of few methods, and a raw socket to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use mobula_net::{Env, Stream};
use mobula_proto::hdfs::GetFileInfoRequestProto;
use mobula_rpc::{Call, Responder, RpcClient, RpcClientOptions, RpcServer, RpcServerOptions, RpcService};
use mobula_types::ClientId;
use mobula_wire::remote::{RemoteException, class};
use mobula_wire::rpc::{self, CallHeader, FatalDetail};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientProtocol";
pub const CLIENT: ClientId = ClientId(*b"0123456789abcdef");
/// No wait in a test is longer.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A message that carries a text.
pub type Text = GetFileInfoRequestProto;

pub fn text(text: impl Into<String>) -> Text {
    Text { src: text.into() }
}

/// Answers `echo` at once; keeps `hold` until [`Service::release`]; `big N` gives N bytes; `whoami`, `fail`,
/// `fatal` and `forget` do what they say.
#[derive(Default)]
pub struct Service {
    pub held: Mutex<Vec<(Text, Responder)>>,
    pub calls: AtomicUsize,
}

impl Service {
    /// Answers what was held, last come first served.
    pub fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        for (request, reply) in held.into_iter().rev() {
            reply.success(&request);
        }
    }
}

impl RpcService for Service {
    fn call(&self, call: Call, reply: Responder) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if &*call.protocol != PROTOCOL {
            return reply.no_such_protocol(&call);
        }
        let request = Text::decode(call.body.clone()).unwrap();
        let exception = RemoteException::new(class::FILE_NOT_FOUND, "File does not exist: /a");
        match &call.method[..] {
            b"echo" => reply.success(&request),
            b"hold" => self.held.lock().push((request, reply)),
            b"big" => reply.success(&text("x".repeat(request.src.parse().unwrap()))),
            b"whoami" => reply.success(&text(format!("{} {}", call.user, call.retry_count))),
            b"fail" => reply.finish::<Text>(Err(exception)),
            b"fatal" => reply.fatal(FatalDetail::Unauthorized, &exception),
            b"forget" => drop(reply),
            _ => reply.no_such_method(&call),
        }
    }
}

pub struct Fixture {
    pub env: Env,
    pub service: Arc<Service>,
    pub server: RpcServer,
}

pub fn limits() -> RpcServerOptions {
    RpcServerOptions {
        connections_max: 10_000,
        calls_in_flight_max: 4096,
        outbox_bytes_max: 1 << 20,
        request_bytes_max: 64 << 20,
    }
}

impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::with(limits()).await
    }

    pub async fn with(options: RpcServerOptions) -> Fixture {
        let (env, service) = (Env::real(), Arc::new(Service::default()));
        let listener = env.net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let server = RpcServer::start(&env, listener, service.clone(), options);
        Fixture { env, service, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub fn options(&self) -> RpcClientOptions {
        RpcClientOptions {
            address: self.address().to_string(),
            user: "alice".into(),
            protocol: PROTOCOL,
            connect_limit: LIMIT,
            call_limit: LIMIT,
        }
    }

    pub fn client(&self) -> RpcClient {
        RpcClient::new(&self.env, self.options())
    }

    /// A connection without a word said.
    pub async fn raw(&self) -> Raw {
        Raw(self.env.net.connect(&self.address().to_string(), LIMIT).await.unwrap())
    }

    /// A connection that has said who it is.
    pub async fn ready(&self) -> Raw {
        let mut raw = self.raw().await;
        raw.send(&ready_bytes()).await;
        raw
    }
}

pub fn ready_bytes() -> BytesMut {
    let mut out = BytesMut::new();
    rpc::encode_preamble(&mut out);
    rpc::encode_context(CLIENT, "alice", None, PROTOCOL, &mut out);
    out
}

pub fn call_bytes(call_id: i32, method: &str, request: &Text) -> BytesMut {
    let mut out = BytesMut::new();
    let header = CallHeader {
        call_id,
        client_id: CLIENT,
        retry_count: 0,
        protocol: PROTOCOL,
        method,
        caller_context: None,
    };
    rpc::encode_call(&header, request, &mut out);
    out
}

pub struct Raw(pub Stream);

impl Raw {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// All that the server sends until it closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        tokio::time::timeout(LIMIT, self.0.read_to_end(&mut rest)).await.expect("closed in time").unwrap();
        rest
    }

    /// The next answer.
    pub async fn response(&mut self, input: &mut BytesMut) -> rpc::Response {
        let mut decoder = rpc::ClientDecoder::new(CLIENT);
        let next = async {
            loop {
                if let Some(response) = decoder.next(input).unwrap() {
                    return response;
                }
                assert_ne!(self.0.read_buf(input).await.unwrap(), 0, "closed before the answer");
            }
        };
        tokio::time::timeout(LIMIT, next).await.expect("an answer in time")
    }
}

/// Waits until `condition` holds.
pub async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
