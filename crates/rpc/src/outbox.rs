//! The way back to a client: answers gather in its connection's outbox, from any thread, and leave in one write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use bytes::BytesMut;
use mobula_wire::remote::{RemoteException, class};
use mobula_wire::rpc::{self, AnswerTo, ErrorDetail, FatalDetail};
use parking_lot::Mutex;
use prost::Message;

use crate::budget::Share;
use crate::server::Call;
use crate::socket::give_back;

/// Answers of one connection that are yet to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    shared: Mutex<Shared>,
    /// Calls that were answered, ever; changes under the lock.
    answered: AtomicU64,
    /// Bytes in `shared.answers`; changes under the lock.
    bytes: AtomicUsize,
    /// Whether the server wants this connection closed.
    evicted: AtomicBool,
    /// When it was last read from, in milliseconds of the server's clock.
    used_ms: AtomicU64,
    /// Whether calls wait for their answers, as the connection last knew.
    busy: AtomicBool,
}

#[derive(Debug, Default)]
struct Shared {
    answers: BytesMut,
    /// Of the connection's task, while it sleeps.
    sleeper: Option<Waker>,
    /// The connection is gone: answers have nowhere to go.
    closed: bool,
    /// What is in here is the last.
    fatal: bool,
}

impl Outbox {
    /// Calls that were answered, ever.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Appends what answers a call.
    fn answer(&self, encode: impl FnOnce(&mut BytesMut)) {
        self.push(1, false, encode);
    }

    /// Appends what is no answer to a call.
    pub(crate) fn say(&self, encode: impl FnOnce(&mut BytesMut)) {
        self.push(0, false, encode);
    }

    fn push(&self, calls: u64, fatal: bool, encode: impl FnOnce(&mut BytesMut)) {
        let sleeper = {
            let mut shared = self.shared.lock();
            if !shared.closed && !shared.fatal {
                encode(&mut shared.answers);
                shared.fatal = fatal;
            }
            self.bytes.store(shared.answers.len(), Ordering::Relaxed);
            self.answered.fetch_add(calls, Ordering::Release);
            shared.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Swaps what waits for `empty`, which is empty. Whether it is the last that may be sent.
    pub(crate) fn take(&self, empty: &mut BytesMut) -> bool {
        // A count that is out of date is found out by `sleep`.
        if self.bytes() == 0 {
            return false;
        }
        let mut shared = self.shared.lock();
        std::mem::swap(&mut shared.answers, empty);
        self.bytes.store(0, Ordering::Relaxed);
        shared.fatal
    }

    /// The connection's task looks after itself for now: nobody needs to wake it.
    pub(crate) fn wake_up(&self) {
        self.shared.lock().sleeper = None;
    }

    /// Has `waker` called at the next answer, unless one came since `answered` was read; then `false`.
    pub(crate) fn sleep(&self, answered: u64, waker: &Waker) -> bool {
        let mut shared = self.shared.lock();
        if self.answered() != answered {
            return false;
        }
        give_back(&mut shared.answers);
        shared.sleeper = Some(waker.clone());
        true
    }

    /// From now on answers are dropped.
    pub(crate) fn close(&self) {
        let mut shared = self.shared.lock();
        shared.closed = true;
        shared.sleeper = None;
        shared.answers = BytesMut::new();
    }

    /// Notes that something arrived.
    pub(crate) fn used(&self, now_ms: u64) {
        self.used_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Notes whether calls wait for their answers.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Since when nothing arrived, if no call waits.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        let idle = !self.busy.load(Ordering::Relaxed) && !self.is_evicted();
        idle.then(|| self.used_ms.load(Ordering::Relaxed))
    }

    /// Has the connection close itself.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        // As an answer would, so that it cannot be missed between two looks.
        self.push(0, false, |_| {});
    }

    /// Whether it is to close itself.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }
}

/// The way back to the client of one call. Dropping it unanswered answers with an error.
#[derive(Debug)]
pub struct Responder {
    /// None once it has answered.
    outbox: Option<Arc<Outbox>>,
    to: AnswerTo,
    /// The request's room, until it is answered.
    _room: Share,
}

impl Responder {
    pub(crate) fn new(outbox: Arc<Outbox>, to: AnswerTo, room: Share) -> Responder {
        Responder { outbox: Some(outbox), to, _room: room }
    }

    /// Sends the result.
    pub fn finish<M: Message>(self, result: Result<M, RemoteException>) {
        match result {
            Ok(message) => self.success(&message),
            Err(exception) => self.error(&exception),
        }
    }

    /// Sends a success.
    pub fn success<M: Message>(mut self, message: &M) {
        if let Some(outbox) = self.outbox.take() {
            outbox.answer(|out| rpc::encode_success(&self.to, message, out));
        }
    }

    /// Sends a success whose message is encoded already.
    pub fn success_bytes(mut self, message: &[u8]) {
        if let Some(outbox) = self.outbox.take() {
            outbox.answer(|out| rpc::encode_success_bytes(&self.to, message, out));
        }
    }

    /// Sends an exception: status ERROR, detail ERROR_APPLICATION.
    pub fn error(self, exception: &RemoteException) {
        self.failure(ErrorDetail::Application, exception);
    }

    /// `RpcNoSuchMethodException`, as HDFS words it.
    pub fn no_such_method(self, call: &Call) {
        let method = String::from_utf8_lossy(&call.method);
        let words = format!("Unknown method {method} called on {} protocol.", call.protocol);
        self.failure(ErrorDetail::NoSuchMethod, &RemoteException::new(class::RPC_NO_SUCH_METHOD, words));
    }

    /// `RpcNoSuchProtocolException`, as HDFS words it.
    pub fn no_such_protocol(self, call: &Call) {
        let words = format!("Unknown protocol: {}", call.protocol);
        self.failure(ErrorDetail::NoSuchProtocol, &RemoteException::new(class::RPC_NO_SUCH_PROTOCOL, words));
    }

    /// `RPC$VersionMismatch`, as HDFS words it.
    pub(crate) fn version_mismatch(self, protocol: &str, version: u64) {
        let server = rpc::PROTOCOL_VERSION;
        let words = format!("Protocol {protocol} version mismatch. (client = {version}, server = {server})");
        let exception = RemoteException::new(class::RPC_VERSION_MISMATCH, words);
        self.failure(ErrorDetail::VersionMismatch, &exception);
    }

    /// Sends an exception that fails every call of the connection, and closes it. For what concerns the
    /// connection; an exception of a call is [`Responder::error`]'s.
    pub fn fatal(mut self, detail: FatalDetail, exception: &RemoteException) {
        if let Some(outbox) = self.outbox.take() {
            outbox.push(1, true, |out| rpc::encode_fatal(&self.to, detail, exception, out));
        }
    }

    fn failure(mut self, detail: ErrorDetail, exception: &RemoteException) {
        if let Some(outbox) = self.outbox.take() {
            outbox.answer(|out| rpc::encode_error(&self.to, detail, exception, out));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(outbox) = self.outbox.take() {
            let words = "The server gave up the call without an answer";
            let exception = RemoteException::new(class::RPC_SERVER, words);
            outbox.answer(|out| rpc::encode_error(&self.to, ErrorDetail::Server, &exception, out));
        }
    }
}
