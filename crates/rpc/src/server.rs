//! The server's side.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mobula_net::{Env, Listener};
use mobula_types::ClientId;
use mobula_wire::remote::RemoteException;
use prost::Message;

/// What a server does with calls.
pub trait RpcService: Send + Sync + 'static {
    /// Called on the connection's own task for each call, in the order of arrival. It must not
    /// block: it answers through `reply` at once, or moves `reply` elsewhere and answers later, in
    /// any order. Unknown protocols and methods are answered by [`Responder::no_such_protocol`] and
    /// [`Responder::no_such_method`].
    fn call(&self, call: Call, reply: Responder);

    /// A connection ended, for whatever reason. Called once for each, on its own task.
    fn disconnected(&self, _peer: SocketAddr) {}
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

/// The way back to the client of one call. Dropping it unanswered answers with an error.
#[derive(Debug)]
pub struct Responder {
    // Owner of this crate.
    _private: (),
}

impl Responder {
    /// Sends the result.
    pub fn finish<M: Message>(self, result: Result<M, RemoteException>) {
        match result {
            Ok(message) => self.success(&message),
            Err(exception) => self.error(&exception),
        }
    }

    /// Sends a success.
    pub fn success<M: Message>(self, _message: &M) {
        unimplemented!()
    }

    /// Sends an exception: status ERROR, detail ERROR_APPLICATION.
    pub fn error(self, _exception: &RemoteException) {
        unimplemented!()
    }

    /// `RpcNoSuchMethodException`, as HDFS words it.
    pub fn no_such_method(self, _call: &Call) {
        unimplemented!()
    }

    /// `RpcNoSuchProtocolException`, as HDFS words it.
    pub fn no_such_protocol(self, _call: &Call) {
        unimplemented!()
    }
}

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct RpcServerOptions {
    /// Connections at once; one more is closed at once.
    pub connections_max: usize,
    /// Calls of one connection that wait for their answer; its next frames are not read meanwhile.
    pub calls_in_flight_max: usize,
    /// Bytes of answers that a client has not read yet; its next frames are not read meanwhile.
    pub outbox_bytes_max: usize,
}

/// A running server; dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct RpcServer {
    address: SocketAddr,
}

impl RpcServer {
    /// Serves `listener` until dropped.
    pub fn start(
        _env: &Env,
        _listener: Listener,
        _service: Arc<dyn RpcService>,
        _options: RpcServerOptions,
    ) -> RpcServer {
        unimplemented!()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}
