//! The client's side: one connection to one server for one user, many calls in flight.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_net::{Env, Stream};
use mobula_types::ClientId;
use mobula_wire::remote::RemoteException;
use mobula_wire::rpc::{self, CallHeader, ClientDecoder, NO_CALL_ID, Response};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::socket::{Sending, poll_fill};

/// A sign of life is sent after so long without an answer while calls wait (HDFS: `ipc.ping.interval`).
const PING_INTERVAL: Duration = Duration::from_secs(60);
/// A connection without calls is closed after so long (HDFS: `ipc.client.connection.maxidletime`): before a server
/// does, so that no call is sent into a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Whom to call, as whom, how patiently.
#[derive(Clone, Debug)]
pub struct RpcClientOptions {
    /// `host:port`.
    pub address: String,
    /// The effective user.
    pub user: String,
    /// Java's name of the protocol.
    pub protocol: &'static str,
    /// Longest wait for a connection.
    pub connect_limit: Duration,
    /// Longest wait for an answer.
    pub call_limit: Duration,
}

/// A client; clones share the connection, which is made at the first call, and again after it broke.
#[derive(Clone, Debug)]
pub struct RpcClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    env: Env,
    options: RpcClientOptions,
    client_id: ClientId,
    next_call_id: AtomicI32,
    /// Held while connecting: who comes meanwhile waits for the outcome.
    link: tokio::sync::Mutex<LastAttempt>,
    /// The link that is in use, for those who do not want to wait.
    current: Mutex<Option<Arc<Link>>>,
    /// Attempts to connect that are over.
    attempts: AtomicU64,
    /// A connection without calls is closed after so long.
    idle_limit: Duration,
}

/// How the last attempt to connect failed, if it did.
#[derive(Debug, Default)]
struct LastAttempt {
    failure: Option<(io::ErrorKind, String)>,
}

/// How one call is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    /// A call id from [`RpcClient::next_call_id`], to send a call again under the same id.
    pub call_id: Option<i32>,
    /// How often it was tried before.
    pub retry_count: i32,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server's exception.
    #[error(transparent)]
    Remote(#[from] RemoteException),
    /// No connection: the call was not sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The server.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or no answer came in time: the call may or may not have been carried out.
    #[error("lost the connection to {address} while waiting for {method}: {reason}")]
    Lost {
        /// The server.
        address: String,
        /// The call.
        method: String,
        /// Why.
        reason: String,
    },
}

impl RpcClient {
    /// A client that is not connected yet. A connection without calls is closed after 10 s.
    pub fn new(env: &Env, options: RpcClientOptions) -> RpcClient {
        RpcClient::with_idle_limit(env, options, IDLE_LIMIT)
    }

    /// As [`RpcClient::new`], with another limit for connections without calls.
    pub fn with_idle_limit(env: &Env, options: RpcClientOptions, idle_limit: Duration) -> RpcClient {
        let mut id = env.entropy.bytes16();
        // A random UUID, as Java's clients have.
        id[6] = (id[6] & 0x0f) | 0x40;
        id[8] = (id[8] & 0x3f) | 0x80;
        RpcClient::build(env, options, ClientId(id), idle_limit)
    }

    /// As [`RpcClient::new`], under an id that other clients have too: for the NameNodes of one cluster,
    /// which share a retry cache. Call ids must then come from one counter for all of them.
    pub fn with_client_id(env: &Env, options: RpcClientOptions, client_id: ClientId) -> RpcClient {
        RpcClient::build(env, options, client_id, IDLE_LIMIT)
    }

    fn build(env: &Env, options: RpcClientOptions, client_id: ClientId, idle_limit: Duration) -> RpcClient {
        RpcClient(Arc::new(Inner {
            env: env.clone(),
            options,
            client_id,
            next_call_id: AtomicI32::new(0),
            link: tokio::sync::Mutex::default(),
            current: Mutex::default(),
            attempts: AtomicU64::new(0),
            idle_limit,
        }))
    }

    /// Its id in the server's retry cache.
    pub fn client_id(&self) -> ClientId {
        self.0.client_id
    }

    /// The server, as `host:port`.
    pub fn address(&self) -> &str {
        &self.0.options.address
    }

    /// A fresh call id.
    pub fn next_call_id(&self) -> i32 {
        self.0.next_call_id.fetch_add(1, Ordering::Relaxed) & i32::MAX
    }

    /// Whether there is a connection now, as far as this side knows.
    pub fn is_connected(&self) -> bool {
        self.0.current.lock().as_ref().is_some_and(|link| !link.is_closed())
    }

    /// Closes the connection: calls that wait are [`CallError::Lost`]. A later call makes a new one.
    pub fn close(&self) {
        if let Some(link) = self.0.current.lock().take() {
            link.close("closed by this client");
        }
    }

    /// Calls `method` and waits for the answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<R, CallError> {
        self.call_with(method, request, CallOptions::default()).await
    }

    /// As [`RpcClient::call`], with an id and a retry count of the caller's.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_with<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        options: CallOptions,
    ) -> Result<R, CallError> {
        let inner = &*self.0;
        let header = CallHeader {
            call_id: options.call_id.unwrap_or_else(|| self.next_call_id()),
            client_id: inner.client_id,
            retry_count: options.retry_count,
            protocol: inner.options.protocol,
            method,
            caller_context: None,
        };
        let lost = |reason: String| CallError::Lost {
            address: inner.options.address.clone(),
            method: method.into(),
            reason,
        };
        let (waiting, link, answers) = loop {
            let link = inner.connected().await?;
            let answers = link.answers();
            // A link that closed between the two: make another one.
            if let Some(waiting) = link.send(&header, request) {
                break (waiting, link, answers);
            }
        };
        let limit = inner.options.call_limit;
        let answer = match timeout(limit, waiting.answer()).await {
            Ok(answer) => answer,
            Err(_) => {
                // A connection can be dead without either end being told: who calls next gets another.
                if link.answers() == answers {
                    link.close(&format!("no word from the server within {limit:?}"));
                }
                return Err(lost(format!("no answer within {limit:?}")));
            }
        };
        match answer {
            Ok(body) => {
                R::decode(body).map_err(|error| lost(format!("the answer cannot be decoded: {error}")))
            }
            Err(Failure::Remote(exception)) => Err(CallError::Remote(exception)),
            Err(Failure::Lost(reason)) => Err(lost(reason.to_string())),
        }
    }
}

impl Inner {
    /// The connection, made if there is none.
    async fn connected(&self) -> Result<Arc<Link>, CallError> {
        if let Some(link) = self.open_link() {
            return Ok(link);
        }
        let before = self.attempts.load(Ordering::Acquire);
        let mut last = self.link.lock().await;
        if let Some(link) = self.open_link() {
            return Ok(link);
        }
        // An attempt that others made while this call waited counts for this one too.
        if self.attempts.load(Ordering::Acquire) != before
            && let Some((kind, reason)) = &last.failure
        {
            return Err(self.connect_error(io::Error::new(*kind, reason.clone())));
        }
        let connected = self.env.net.connect(&self.options.address, self.options.connect_limit).await;
        self.attempts.fetch_add(1, Ordering::Release);
        match connected {
            Ok(stream) => {
                last.failure = None;
                let link = Link::start(stream, self);
                *self.current.lock() = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                last.failure = Some((error.kind(), error.to_string()));
                Err(self.connect_error(error))
            }
        }
    }

    fn open_link(&self) -> Option<Arc<Link>> {
        self.current.lock().clone().filter(|link| !link.is_closed())
    }

    fn connect_error(&self, source: io::Error) -> CallError {
        CallError::Connect { address: self.options.address.clone(), source }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(link) = self.current.get_mut().take() {
            link.close("the client is gone");
        }
    }
}

/// Why a call got no result.
#[derive(Clone, Debug)]
enum Failure {
    Remote(RemoteException),
    Lost(Arc<str>),
}

type Answer = Result<Bytes, Failure>;

/// A connection: what callers and its task share.
#[derive(Debug, Default)]
struct Link(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Calls that are yet to be written.
    calls: BytesMut,
    waiting: BTreeMap<i32, oneshot::Sender<Answer>>,
    /// Of the link's task, while it sleeps.
    sleeper: Option<Waker>,
    /// How many answers came.
    answers: u64,
    closed: bool,
}

impl Link {
    fn start(stream: Stream, inner: &Inner) -> Arc<Link> {
        let link = Arc::new(Link::default());
        {
            let calls = &mut link.0.lock().calls;
            let RpcClientOptions { user, protocol, .. } = &inner.options;
            rpc::encode_preamble(calls);
            rpc::encode_context(inner.client_id, user, None, protocol, calls);
        }
        let task = LinkTask {
            stream,
            link: link.clone(),
            client_id: inner.client_id,
            decoder: ClientDecoder::new(inner.client_id),
            input: BytesMut::new(),
            sending: Sending::default(),
            heard: Instant::now(),
            idle_limit: inner.idle_limit,
            alarm: Box::pin(sleep_until(Instant::now() + inner.idle_limit.min(PING_INTERVAL))),
        };
        tokio::spawn(task.run());
        link
    }

    fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    fn answers(&self) -> u64 {
        self.0.lock().answers
    }

    /// Sends a call; `None` if the link is closed, and nothing was sent.
    fn send<Q: Message>(self: &Arc<Link>, header: &CallHeader<'_>, request: &Q) -> Option<Waiting> {
        let (sender, receiver) = oneshot::channel();
        let sleeper = {
            let mut shared = self.0.lock();
            if shared.closed {
                return None;
            }
            rpc::encode_call(header, request, &mut shared.calls);
            // An id that waits already is a mistake of the caller's: the older call loses its answer.
            shared.waiting.insert(header.call_id, sender);
            shared.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Some(Waiting { link: self.clone(), call_id: header.call_id, receiver })
    }

    /// Fails all that wait.
    fn close(&self, reason: &str) {
        self.close_with(&Failure::Lost(reason.into()));
    }

    fn close_with(&self, failure: &Failure) {
        let (waiting, sleeper) = {
            let mut shared = self.0.lock();
            shared.closed = true;
            shared.calls = BytesMut::new();
            (std::mem::take(&mut shared.waiting), shared.sleeper.take())
        };
        for sender in waiting.into_values() {
            // A caller that no longer waits does not mind.
            let _ = sender.send(Err(failure.clone()));
        }
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

/// A call that was sent. Dropping it forgets the call.
struct Waiting {
    link: Arc<Link>,
    call_id: i32,
    receiver: oneshot::Receiver<Answer>,
}

impl Waiting {
    async fn answer(mut self) -> Answer {
        match (&mut self.receiver).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Lost("another call was sent under the same id".into())),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Closed both after an answer and for a call that took over this id: neither is ours to remove.
        let mut shared = self.link.0.lock();
        self.receiver.close();
        if shared.waiting.get(&self.call_id).is_some_and(oneshot::Sender::is_closed) {
            shared.waiting.remove(&self.call_id);
        }
    }
}

/// The task that owns the socket.
struct LinkTask {
    stream: Stream,
    link: Arc<Link>,
    client_id: ClientId,
    decoder: ClientDecoder,
    input: BytesMut,
    sending: Sending,
    /// When the server was last heard of, or a ping sent.
    heard: Instant,
    idle_limit: Duration,
    /// When to look whether to ping or to close.
    alarm: Pin<Box<Sleep>>,
}

impl LinkTask {
    async fn run(mut self) {
        let failure = poll_fn(|cx| self.poll_serve(cx)).await;
        self.link.close_with(&failure);
    }

    /// Ready when the link is over.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let link = self.link.clone();
            let mut progress = false;
            let refill = |empty: &mut BytesMut| std::mem::swap(&mut link.0.lock().calls, empty);
            let sent = self.sending.poll_send(&mut self.stream, refill, &mut progress, cx);
            if let Poll::Ready(Err(error)) = &sent {
                return Poll::Ready(lost(error));
            }
            match poll_fill(&mut self.stream, &mut self.input, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Failure::Lost("closed by the server".into())),
                Poll::Ready(Ok(_)) => {
                    self.heard = Instant::now();
                    match self.take_input() {
                        Ok(()) => continue,
                        Err(failure) => return Poll::Ready(failure),
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(lost(&error)),
                Poll::Pending => {}
            }
            if self.alarm.as_mut().poll(cx).is_ready() {
                match self.on_alarm() {
                    Some(failure) => return Poll::Ready(failure),
                    None => continue,
                }
            }
            let mut shared = self.link.0.lock();
            if shared.closed {
                return Poll::Ready(Failure::Lost("closed by this client".into()));
            }
            if sent.is_ready() && !shared.calls.is_empty() {
                continue;
            }
            shared.sleeper = Some(cx.waker().clone());
            return Poll::Pending;
        }
    }

    fn take_input(&mut self) -> Result<(), Failure> {
        loop {
            match self.decoder.next(&mut self.input) {
                Ok(Some(response)) => self.on_response(response)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(Failure::Lost(error.to_string().into())),
            }
        }
    }

    fn on_response(&mut self, response: Response) -> Result<(), Failure> {
        let Response { call_id, outcome, fatal } = response;
        let outcome = outcome.map_err(Failure::Remote);
        if fatal && let Err(failure) = outcome {
            return Err(failure);
        }
        // The call may have been given up meanwhile.
        let waiting = {
            let mut shared = self.link.0.lock();
            shared.answers += 1;
            shared.waiting.remove(&call_id)
        };
        if let Some(sender) = waiting {
            let _ = sender.send(outcome);
        } else if call_id == NO_CALL_ID {
            tracing::debug!("an answer to no call");
        }
        Ok(())
    }

    /// Pings if calls wait, ends an idle link; then sets the next alarm.
    fn on_alarm(&mut self) -> Option<Failure> {
        let now = Instant::now();
        let mut shared = self.link.0.lock();
        let idle = shared.waiting.is_empty();
        let limit = if idle { self.idle_limit } else { PING_INTERVAL };
        if now >= self.heard + limit {
            if idle {
                // Under the lock: no call slips in between.
                shared.closed = true;
                return Some(Failure::Lost("idle".into()));
            }
            rpc::encode_ping(self.client_id, &mut shared.calls);
            self.heard = now;
        }
        // A call may come and go before that: then the link just lives a little longer.
        self.alarm.as_mut().reset(now + self.idle_limit.min(PING_INTERVAL));
        None
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::Lost(error.to_string().into())
}
