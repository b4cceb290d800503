//! The client's side: one connection to one server for one user, many calls in flight.

use std::io;
use std::time::Duration;

use mobula_net::Env;
use mobula_types::ClientId;
use mobula_wire::remote::RemoteException;
use prost::Message;

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
pub struct RpcClient {
    // Owner of this crate.
    _private: (),
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
    /// A client that is not connected yet.
    pub fn new(_env: &Env, _options: RpcClientOptions) -> RpcClient {
        unimplemented!()
    }

    /// Its id in the server's retry cache.
    pub fn client_id(&self) -> ClientId {
        unimplemented!()
    }

    /// A fresh call id.
    pub fn next_call_id(&self) -> i32 {
        unimplemented!()
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
        _method: &str,
        _request: &Q,
        _options: CallOptions,
    ) -> Result<R, CallError> {
        unimplemented!()
    }
}
