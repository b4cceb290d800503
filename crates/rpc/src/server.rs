//! The server's side: who serves, within which limits, and the loop that accepts connections.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mobula_net::{Clock, Env, Listener, Stream};
use mobula_types::ClientId;
use mobula_wire::remote::{RemoteException, class};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::budget::Budget;
use crate::connection::Connection;
use crate::outbox::{Outbox, Responder};

/// What a server does with calls.
pub trait RpcService: Send + Sync + 'static {
    /// Called on the connection's own task for each call, in the order of arrival. It must not
    /// block: it answers through `reply` at once, or moves `reply` elsewhere and answers later, in
    /// any order. Unknown protocols and methods are answered by [`Responder::no_such_protocol`] and
    /// [`Responder::no_such_method`].
    fn call(&self, call: Call, reply: Responder);

    /// A connection ended, for whatever reason. Called once for each; it must not block.
    fn disconnected(&self, _peer: SocketAddr) {}

    /// Whether `user`, in whose name `real_user` asks, may call at all: nothing of the connection is looked at before that
    /// is known, and it is closed if that takes as long as a handshake may. By default nobody may ask in another's name
    /// (HDFS: `ProxyUsers`). The error is what the client is told before the connection is closed.
    fn authorize(&self, user: &Arc<str>, real_user: Option<&Arc<str>>, _peer: SocketAddr) -> Verdict {
        let verdict = real_user.map_or(Ok(()), |real| Err(may_not_impersonate(real, user)));
        Box::pin(std::future::ready(verdict))
    }
}

/// Whether somebody may call; see [`RpcService::authorize`].
pub type Verdict = Pin<Box<dyn Future<Output = Result<(), RemoteException>> + Send>>;

/// What HDFS says to who may not speak in another's name.
pub fn may_not_impersonate(real_user: &str, user: &str) -> RemoteException {
    let words = format!("User: {real_user} is not allowed to impersonate {user}");
    RemoteException::new(class::AUTHORIZATION, words)
}

/// One call of a client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Java's name of the protocol, as `org.apache.hadoop.hdfs.protocol.ClientProtocol`.
    pub protocol: Arc<str>,
    /// The method's name.
    pub method: Bytes,
    /// The request, still encoded.
    pub body: Bytes,
    /// Whom the connection speaks for (SIMPLE: as it says).
    pub user: Arc<str>,
    /// Who asked in that user's name (proxy user), if another.
    pub real_user: Option<Arc<str>>,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// The client's id; zeros if it sent none.
    pub client_id: ClientId,
    /// The call's number.
    pub call_id: i32,
    /// How often the client has tried before; -1 if it does not say.
    pub retry_count: i32,
}

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct RpcServerOptions {
    /// Connections at once. One more takes the place of the one that has been idle longest, if that is long enough; else
    /// it is closed at once.
    pub connections_max: usize,
    /// Calls of one connection that wait for their answer; its next frames are not read meanwhile.
    pub calls_in_flight_max: usize,
    /// Bytes of answers that a client has not read yet; its next frames are not read meanwhile.
    pub outbox_bytes_max: usize,
    /// Bytes of requests, of all connections, that are being read or wait for their answer: as many of short requests and
    /// as many of long ones. A connection whose next one finds no room is not read meanwhile.
    pub request_bytes_max: usize,
}

/// A running server; dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct RpcServer {
    address: SocketAddr,
    task: AbortHandle,
}

impl RpcServer {
    /// Serves `listener` until dropped.
    pub fn start(
        env: &Env,
        listener: Listener,
        service: Arc<dyn RpcService>,
        options: RpcServerOptions,
    ) -> RpcServer {
        let address = listener.local_addr().expect("a listener that was bound has an address");
        let acceptor = Acceptor {
            listener,
            service,
            budget: Arc::new(Budget::new(options.request_bytes_max)),
            options: Arc::new(options),
            clock: env.clock.clone(),
            tasks: JoinSet::new(),
            connections: BTreeMap::new(),
            next: 0,
            failing: false,
        };
        let task = tokio::spawn(acceptor.run()).abort_handle();
        RpcServer { address, task }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        // With the acceptor go its listener and its set of tasks, and with those the sockets.
        self.task.abort();
    }
}

/// A connection without calls is not closed for another one before it was idle for so long: twice as long as
/// Java's clients keep theirs (`ipc.client.connection.maxidletime`).
const IDLE_MS_MIN: u64 = 20_000;
/// Pause after the operating system had no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Acceptor {
    listener: Listener,
    service: Arc<dyn RpcService>,
    budget: Arc<Budget>,
    options: Arc<RpcServerOptions>,
    clock: Clock,
    /// One task a connection; each ends with its number.
    tasks: JoinSet<u64>,
    connections: BTreeMap<u64, Arc<Outbox>>,
    next: u64,
    /// The last accept failed, and the log says so.
    failing: bool,
}

impl Acceptor {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next() => self.on_ended(ended),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.on_accepted(stream, peer),
                    Err(error) => self.on_failed(&error).await,
                }
            }
        }
    }

    fn on_accepted(&mut self, stream: Stream, peer: SocketAddr) {
        self.failing = false;
        if self.tasks.len() >= self.options.connections_max {
            // The place of one that is evicted is free once it has closed: this one is a guest for that long.
            if self.tasks.len() >= self.options.connections_max + EVICTING_MAX || !self.evict() {
                tracing::debug!(%peer, connections = self.tasks.len(), "one connection too many");
                return;
            }
        }
        let (number, outbox) = (self.next, Arc::new(Outbox::default()));
        self.next += 1;
        self.connections.insert(number, outbox.clone());
        let (service, options) = (self.service.clone(), self.options.clone());
        let budget = self.budget.clone();
        let connection = Connection::new(stream, peer, service, budget, options, self.clock.clone(), outbox);
        self.tasks.spawn(async move {
            connection.run().await;
            number
        });
    }

    /// Closes the connection that has been idle longest; `false` if none has been for long enough.
    fn evict(&mut self) -> bool {
        let now = self.clock.monotonic_ms();
        let idle = |outbox: &&Arc<Outbox>| outbox.idle_since();
        let oldest = self.connections.values().filter(|outbox| idle(outbox).is_some()).min_by_key(idle);
        match oldest {
            Some(outbox) if idle(&outbox).is_some_and(|since| now.saturating_sub(since) >= IDLE_MS_MIN) => {
                outbox.evict();
                true
            }
            _ => false,
        }
    }

    fn on_ended(&mut self, ended: Result<u64, JoinError>) {
        match ended {
            Ok(number) => {
                self.connections.remove(&number);
            }
            Err(error) => {
                tracing::error!(%error, "a connection's task failed");
                // Which one it was is not said; those that are gone have no task that holds their outbox.
                self.connections.retain(|_, outbox| Arc::strong_count(outbox) > 1);
            }
        }
    }

    async fn on_failed(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, NotConnected};
        // A client that left before it was let in says nothing about the next one.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected) {
            return;
        }
        if !self.failing {
            tracing::warn!(%error, "cannot accept connections; trying on");
        }
        self.failing = true;
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Connections above the limit while evicted ones close.
const EVICTING_MAX: usize = 16;
