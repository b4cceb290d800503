//! The RPC front end: resolves the caller once, then hands each call to its protocol's room. Who asks as a DataNode is
//! nobody's question: its beats do not wait for a directory of users.

use std::net::SocketAddr;
use std::sync::Arc;

use mobula_disk::Lock;
use mobula_namespace::Caller;
use mobula_rpc::{Call, Responder, RpcService, Verdict};

use crate::asker::Asker;
use crate::connections::Connections;
use crate::service::Service;
use crate::{admin_rpc, client_rpc, datanode_rpc, requests};

/// What the RPC server calls.
pub struct Front {
    service: Arc<Service>,
    connections: Connections,
    /// The port is in use while this lives, and with it the folder.
    _lock: Arc<Lock>,
}

impl Front {
    /// A front end of `service`.
    pub fn new(service: Arc<Service>, lock: Arc<Lock>) -> Front {
        Front { service, connections: Connections::default(), _lock: lock }
    }
}

impl RpcService for Front {
    fn call(&self, call: Call, reply: Responder) {
        if let Err(refusal) = requests::check(&call) {
            tracing::debug!(peer = %call.peer, user = &*call.user, %refusal, "a request was not looked at");
            return reply.error(&refusal.into());
        }
        match &*call.protocol {
            datanode_rpc::PROTOCOL => {
                return datanode_rpc::call(&self.service, &self.connections, &call, reply);
            }
            datanode_rpc::LIFELINE => return datanode_rpc::lifeline(&self.service, &call, reply),
            _ => {}
        }
        if let Some(caller) = self.service.groups.cached(&call.user) {
            return dispatch(&self.service, caller, call, reply);
        }
        let service = Arc::clone(&self.service);
        tokio::spawn(async move {
            let caller = service.groups.resolve(&call.user).await;
            dispatch(&service, caller, call, reply);
        });
    }

    fn authorize(&self, user: &Arc<str>, real_user: Option<&Arc<str>>, peer: SocketAddr) -> Verdict {
        let Some(real_user) = real_user else { return Box::pin(std::future::ready(Ok(()))) };
        let (service, user, real_user) = (Arc::clone(&self.service), Arc::clone(user), Arc::clone(real_user));
        Box::pin(async move {
            let rules = &service.config.impersonation;
            // Nobody has names looked up who may speak for none of them.
            let groups = match rules.asks_for_groups(&real_user) {
                true => service.groups.resolve(&user).await.groups.clone(),
                false => Vec::new(),
            };
            rules.check(&real_user, &user, &groups, peer.ip())
        })
    }

    fn disconnected(&self, peer: SocketAddr) {
        if let Some(node) = self.connections.ended(peer) {
            tracing::info!(%node, %peer, "a DataNode's connection ended");
            self.service.roster.tell(|fleet, now, _| fleet.on_disconnected(now, &node));
        }
    }
}

fn dispatch(service: &Arc<Service>, caller: Arc<Caller>, call: Call, reply: Responder) {
    let asker = Asker::of(&call, caller);
    match &*call.protocol {
        client_rpc::PROTOCOL => client_rpc::call(service, asker, call, reply),
        admin_rpc::USER_MAPPINGS => admin_rpc::user_mappings(service, &call, reply),
        admin_rpc::REFRESH_USER_MAPPINGS
        | admin_rpc::REFRESH_AUTHORIZATION
        | admin_rpc::REFRESH_CALL_QUEUE
        | admin_rpc::GENERIC_REFRESH => admin_rpc::refresh(service, &asker, &call, reply),
        admin_rpc::HA_SERVICE => admin_rpc::ha_service(service, &asker, &call, reply),
        admin_rpc::NAMENODE => admin_rpc::namenode(service, &asker, &call, reply),
        _ => reply.no_such_protocol(&call),
    }
}
