//! Who asks, and the call that they ask with: what every RPC hands to the service.

use std::net::SocketAddr;
use std::sync::Arc;

use mobula_namespace::{Caller, Command, Operation, RetryKey};
use mobula_rpc::Call;
use mobula_types::ClientId;

/// Who asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Name, groups, rights; without the address.
    pub caller: Arc<Caller>,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// Names the call, for the retry cache; none if the client did not name itself.
    pub call: Option<RetryKey>,
}

impl Asker {
    /// The asker of an RPC whose user was resolved.
    pub fn of(call: &Call, caller: Arc<Caller>) -> Asker {
        let named = call.client_id != ClientId::default() && call.call_id >= 0;
        let retry = named.then_some(RetryKey { client: call.client_id, call: call.call_id });
        Asker { caller, peer: call.peer, call: retry }
    }

    /// The address that they ask from, as HDFS prints it.
    pub fn machine(&self) -> String {
        self.peer.ip().to_string()
    }

    /// Their command. Calls that HDFS marks as at-most-once carry their name to the retry cache.
    pub fn command(&self, operation: Operation) -> Command {
        let retry = self.only_call(&operation);
        let caller = Caller { machine: self.machine(), ..Caller::clone(&self.caller) };
        Command { caller, retry, operation }
    }

    /// The call's name, if it is one that happens once and is answered the same each time.
    pub fn only_call(&self, operation: &Operation) -> Option<RetryKey> {
        self.call.filter(|_| is_at_most_once(operation))
    }
}

/// HDFS's `@AtMostOnce` methods; the others may be repeated (`@Idempotent`).
fn is_at_most_once(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Create(_)
            | Operation::CreateWith { .. }
            | Operation::Rename { .. }
            | Operation::Rename2 { .. }
            | Operation::Delete { .. }
            | Operation::Append(_)
            | Operation::Concat { .. }
            | Operation::UpdatePipeline(_)
            | Operation::CompleteAs { .. }
    )
}
