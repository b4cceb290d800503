//! One connection of the server: one task, which reads calls, hands them to the service, and writes what gathers in
//! the outbox. Calls that are answered at once share the write that follows their read.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use mobula_net::{Clock, Stream};
use mobula_wire::rpc::{self, CallFrame, FatalDetail, Incoming, ServerDecoder};
use tokio::io::AsyncWriteExt;
use tokio::time::{Sleep, sleep};

use crate::budget::{Budget, Claim, Share};
use crate::outbox::{Outbox, Responder};
use crate::server::{Call, RpcServerOptions, RpcService, Verdict};
use crate::socket::{Sending, poll_fill};

/// Longest wait for who is calling.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// Longest time in which a client takes none of the bytes that wait for it.
const STALL_LIMIT: Duration = Duration::from_secs(300);
/// Longest time from a frame's first byte to its last.
const FRAME_LIMIT: Duration = Duration::from_secs(300);
/// A client of whose long frame nothing has come for so long is cut off: it has room that others wait for.
const LONG_FRAME_PAUSE: Duration = Duration::from_secs(10);
/// Bytes a second that a long frame must have over all.
const LONG_FRAME_RATE: usize = 1 << 20;
/// Longest time for the last bytes before closing.
const ENDING_LIMIT: Duration = Duration::from_secs(5);
/// After the last bytes the client may go on sending for so long and so much: closing while its bytes arrive would destroy
/// the answer on its side.
const LINGER_LIMIT: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A connection of the server.
pub(crate) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    service: Arc<dyn RpcService>,
    budget: Arc<Budget>,
    /// For the frame at the front of `input`.
    claim: Claim,
    options: Arc<RpcServerOptions>,
    clock: Clock,
    decoder: ServerDecoder,
    /// What arrived and was not understood yet.
    input: BytesMut,
    sending: Sending,
    outbox: Arc<Outbox>,
    /// Calls that were handed to the service, ever.
    issued: u64,
    user: Option<User>,
    /// Who said who they are, and whether they may is being found out.
    asking: Option<(User, Verdict)>,
    /// When the handshake, or the ending, has taken too long.
    deadline: Option<Pin<Box<Sleep>>>,
    /// When the client has taken nothing for too long.
    stall: Option<Pin<Box<Sleep>>>,
    /// When a frame that has begun has taken too long.
    frame: Option<Pin<Box<Sleep>>>,
    /// Since something of a long frame came.
    pause: Option<Pin<Box<Sleep>>>,
    phase: Phase,
}

struct User {
    name: Arc<str>,
    real: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Reads and writes.
    Serving,
    /// Writes what is left, then closes.
    Ending,
    /// Writes what is left, tells the client that there is no more, then closes.
    Refusing,
}

/// How taking what arrived went.
enum Taken {
    /// All that is whole was taken.
    All,
    /// The client, or all of them together, have so much underway that the rest waits.
    Enough,
}

impl Connection {
    pub(crate) fn new(
        stream: Stream,
        peer: SocketAddr,
        service: Arc<dyn RpcService>,
        budget: Arc<Budget>,
        options: Arc<RpcServerOptions>,
        clock: Clock,
        outbox: Arc<Outbox>,
    ) -> Connection {
        outbox.used(clock.monotonic_ms());
        Connection {
            stream,
            peer,
            service,
            budget,
            claim: Claim::default(),
            options,
            clock,
            decoder: ServerDecoder::new(),
            input: BytesMut::new(),
            sending: Sending::default(),
            outbox,
            issued: 0,
            user: None,
            asking: None,
            deadline: Some(Box::pin(sleep(HANDSHAKE_LIMIT))),
            stall: None,
            frame: None,
            pause: None,
            phase: Phase::Serving,
        }
    }

    /// Serves until either side has enough.
    pub(crate) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll_serve(cx)).await;
        match end {
            Ok(()) if self.phase == Phase::Refusing => self.linger().await,
            Ok(()) => {}
            Err(error) => tracing::debug!(peer = %self.peer, %error, "connection lost"),
        }
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.wake_up();
        loop {
            let answered = self.outbox.answered();
            let all_sent = self.poll_send(cx)?.is_ready();
            if self.phase == Phase::Serving && self.outbox.is_evicted() {
                self.end(Phase::Ending);
            }
            if self.phase != Phase::Serving {
                if all_sent && self.outbox.bytes() == 0 {
                    return Poll::Ready(Ok(()));
                }
            } else if self.poll_take(cx)? {
                continue;
            }
            self.outbox.set_busy(self.issued != self.outbox.answered());
            if !self.outbox.sleep(answered, cx.waker()) {
                continue;
            }
            // An eviction between the look above and lying down woke nobody.
            let evicted = self.phase == Phase::Serving && self.outbox.is_evicted();
            if evicted || (all_sent && self.outbox.bytes() > 0) {
                continue;
            }
            return self.poll_clocks(cx);
        }
    }

    /// Takes what arrived, and reads what arrives; whether there was any of it.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let before = self.issued;
        match self.take_input(cx) {
            Taken::All if self.phase == Phase::Serving => {
                if self.poll_read(cx)?.is_ready() {
                    self.pause = None;
                    return Ok(true);
                }
                self.await_frame();
            }
            // That it waits is not the client's doing.
            Taken::All | Taken::Enough => (self.frame, self.pause) = (None, None),
        }
        Ok(self.issued != before || self.phase != Phase::Serving)
    }

    /// Nothing is here: sets the clocks within which the client must have sent the rest of what it began.
    fn await_frame(&mut self) {
        if self.input.is_empty() {
            self.frame = None;
            return;
        }
        let Some(length) = self.claim.keeps_others_waiting() else {
            self.frame.get_or_insert_with(|| Box::pin(sleep(FRAME_LIMIT)));
            return;
        };
        let seconds = Duration::from_secs((length / LONG_FRAME_RATE) as u64);
        self.frame.get_or_insert_with(|| Box::pin(sleep(LONG_FRAME_PAUSE + seconds)));
        self.pause.get_or_insert_with(|| Box::pin(sleep(LONG_FRAME_PAUSE)));
    }

    /// Writes until nothing waits or the socket takes no more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let (mut progress, mut fatal) = (false, false);
        let outbox = &self.outbox;
        let refill = |empty: &mut BytesMut| fatal |= outbox.take(empty);
        let sent = self.sending.poll_send(&mut self.stream, refill, &mut progress, cx);
        if progress || sent.is_ready() {
            self.stall = None;
        }
        if fatal && self.phase == Phase::Serving {
            self.end(Phase::Refusing);
        }
        match sent {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => {
                self.stall.get_or_insert_with(|| Box::pin(sleep(STALL_LIMIT)));
                Ok(Poll::Pending)
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        match poll_fill(&mut self.stream, &mut self.input, cx)? {
            Poll::Ready(count) => {
                self.outbox.used(self.clock.monotonic_ms());
                if count == 0 {
                    self.end(Phase::Ending);
                }
                Ok(Poll::Ready(()))
            }
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for clock in
            [&mut self.deadline, &mut self.stall, &mut self.frame, &mut self.pause].into_iter().flatten()
        {
            if clock.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Poll::Pending
    }

    fn end(&mut self, phase: Phase) {
        self.phase = phase;
        self.input = BytesMut::new();
        self.claim = Claim::default();
        self.deadline = Some(Box::pin(sleep(ENDING_LIMIT)));
    }

    /// Whether one more call may start.
    fn may_take(&self) -> bool {
        self.issued - self.outbox.answered() < self.options.calls_in_flight_max as u64
            && self.sending.left() + self.outbox.bytes() < self.options.outbox_bytes_max
    }

    fn take_input(&mut self, cx: &mut Context<'_>) -> Taken {
        while self.may_take() {
            if self.poll_asking(cx).is_pending() {
                return Taken::Enough;
            }
            if self.phase != Phase::Serving {
                return Taken::All;
            }
            if let Some(length) = self.decoder.claimed(&self.input)
                && self.claim.poll(&self.budget, length, cx).is_pending()
            {
                return Taken::Enough;
            }
            match self.decoder.next(&mut self.input) {
                Ok(Some(incoming)) => self.on_incoming(incoming),
                Ok(None) => return Taken::All,
                Err(fatal) => {
                    tracing::debug!(peer = %self.peer, reason = %fatal.reason, "connection refused");
                    self.outbox.say(|out| out.extend_from_slice(&fatal.answer));
                    self.end(Phase::Refusing);
                }
            }
            if self.phase != Phase::Serving {
                return Taken::All;
            }
        }
        Taken::Enough
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        (self.frame, self.pause) = (None, None);
        let room = self.claim.take();
        match incoming {
            Incoming::Call(frame) => self.on_call(frame, room),
            Incoming::Ping => {}
            Incoming::Sasl(answer) => {
                if let Some(answer) = answer {
                    let to = rpc::AnswerTo::no_call(rpc::SASL_CALL_ID);
                    self.outbox.say(|out| rpc::encode_success(&to, &answer, out));
                }
            }
            Incoming::Context { user, real_user, protocol: _ } => self.on_context(user, real_user),
        }
    }

    fn on_context(&mut self, name: Arc<str>, real: Option<Arc<str>>) {
        let verdict = self.service.authorize(&name, real.as_ref(), self.peer);
        self.asking = Some((User { name, real }, verdict));
    }

    /// Hears whether the client may call, if that is not known.
    fn poll_asking(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((_, verdict)) = &mut self.asking else { return Poll::Ready(()) };
        let Poll::Ready(verdict) = verdict.as_mut().poll(cx) else { return Poll::Pending };
        let asked = self.asking.take().map(|(user, _)| user);
        match verdict {
            Ok(()) => (self.user, self.deadline) = (asked, None),
            Err(exception) => {
                tracing::info!(peer = %self.peer, reason = %exception.message, "a connection is not authorized");
                let to = rpc::AnswerTo::no_call(rpc::CONTEXT_CALL_ID);
                self.outbox.say(|out| rpc::encode_fatal(&to, FatalDetail::Unauthorized, &exception, out));
                self.end(Phase::Refusing);
            }
        }
        Poll::Ready(())
    }

    fn on_call(&mut self, frame: CallFrame, room: Share) {
        let user = self.user.as_ref().expect("the decoder lets no call through before the context");
        self.issued += 1;
        let reply = Responder::new(self.outbox.clone(), frame.answer_to(), room);
        let CallFrame { call_id, client_id, retry_count, protocol, method, version, caller_context: _, body } =
            frame;
        if version != rpc::PROTOCOL_VERSION && rpc::is_known_protocol(&protocol) {
            reply.version_mismatch(&protocol, version);
            return;
        }
        let call = Call {
            protocol,
            method,
            body,
            user: user.name.clone(),
            real_user: user.real.clone(),
            peer: self.peer,
            client_id,
            call_id,
            retry_count,
        };
        self.service.call(call, reply);
    }

    /// Lets the client read the last answer.
    async fn linger(&mut self) {
        let drain = async {
            self.stream.shutdown().await?;
            let mut drained = 0;
            while drained < LINGER_BYTES_MAX {
                self.input.clear();
                match poll_fn(|cx| poll_fill(&mut self.stream, &mut self.input, cx)).await? {
                    0 => break,
                    count => drained += count,
                }
            }
            io::Result::Ok(())
        };
        // However it went, the connection is over.
        let _ = tokio::time::timeout(LINGER_LIMIT, drain).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outbox.close();
        self.service.disconnected(self.peer);
    }
}
