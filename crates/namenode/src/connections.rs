//! Which connections DataNodes speak over, so that a broken one makes its node suspect at once (D5).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mobula_types::DatanodeUuid;
use parking_lot::Mutex;

/// Connections remembered at most: DataNodes times the few that each has.
const CONNECTIONS_MAX: usize = 100_000;

/// Nodes by connection.
#[derive(Debug, Default)]
pub struct Connections(Mutex<BTreeMap<SocketAddr, DatanodeUuid>>);

impl Connections {
    /// `node` spoke over the connection from `peer`.
    pub fn heard(&self, peer: SocketAddr, node: &DatanodeUuid) {
        let mut nodes = self.0.lock();
        if nodes.get(&peer) != Some(node) && nodes.len() < CONNECTIONS_MAX {
            nodes.insert(peer, node.clone());
        }
    }

    /// The connection from `peer` ended; the node, if that was its last one.
    pub fn ended(&self, peer: SocketAddr) -> Option<DatanodeUuid> {
        let mut nodes = self.0.lock();
        let node = nodes.remove(&peer)?;
        (!nodes.values().any(|other| *other == node)).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_gone_with_its_last_connection() {
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (connections, node) = (Connections::default(), DatanodeUuid::from("n"));
        connections.heard(peer(1), &node);
        connections.heard(peer(2), &node);
        assert_eq!(connections.ended(peer(1)), None);
        assert_eq!(connections.ended(peer(3)), None);
        assert_eq!(connections.ended(peer(2)), Some(node));
    }
}
