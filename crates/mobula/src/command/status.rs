//! The NameNode's status page: health and the AutoHealer's notices, as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_fleet::{NodeFilter, Notice};
use mobula_namenode::Service;
use mobula_types::{DatanodeUuid, Millis};
use serde_json::{Value, json};

use crate::http::StatusSource;

/// A NameNode's status.
#[derive(Debug)]
pub struct NamenodeStatus {
    service: Arc<Service>,
    /// Tells this start of the NameNode from earlier ones: numbers of notices begin at 0 with each.
    start: String,
}

/// DataNodes' addresses by their identity: what people know them by.
type Names = BTreeMap<DatanodeUuid, String>;

impl NamenodeStatus {
    /// The status behind `service`; no two starts of a NameNode have the same `start`.
    pub fn new(service: Arc<Service>, start: String) -> NamenodeStatus {
        NamenodeStatus { service, start }
    }

    fn names(&self) -> Names {
        let nodes = self.service.nodes(NodeFilter::All);
        nodes.into_iter().map(|node| (node.info.id.uuid.clone(), node.info.id.xfer_address())).collect()
    }
}

impl StatusSource for NamenodeStatus {
    fn health(&self) -> Value {
        let health = self.service.health();
        let nodes: Vec<Value> = self
            .service
            .nodes(NodeFilter::All)
            .into_iter()
            .map(|node| {
                json!({
                    "uuid": node.info.id.uuid.as_str(),
                    "address": node.info.id.xfer_address(),
                    "state": format!("{:?}", node.state).to_lowercase(),
                    "blocks": node.blocks,
                    "capacity": node.capacity,
                    "used": node.dfs_used,
                    "remaining": node.remaining,
                    "failed_volumes": node.failed_volumes,
                })
            })
            .collect();
        json!({
            "start": self.start,
            "healed": health.healed,
            "under_replicated": health.under_replicated,
            "limited_by_nodes": health.limited_by_nodes,
            "missing": health.missing,
            "pending_copies": health.pending_copies,
            "unreported_nodes": health.unreported_nodes,
            "suspect_nodes": health.suspect_nodes,
            "nodes": nodes,
        })
    }

    fn notices(&self, since: u64) -> Value {
        let names = self.names();
        let kept = self.service.notices_since(0);
        let next = kept.last().map_or(0, |(seq, ..)| seq + 1);
        let from = first_wanted(since, next);
        let wanted = kept.iter().filter(|(seq, ..)| *seq >= from);
        let shown: Vec<Value> = wanted.map(|(seq, at, notice)| shown(*seq, *at, notice, &names)).collect();
        json!({ "start": self.start, "last": next, "notices": shown })
    }
}

/// The first notice for who asks from `since` on, where the next one will be number `next`. Numbers
/// begin at 0 with each start: a `since` beyond them is of an earlier process, and all of ours are new.
fn first_wanted(since: u64, next: u64) -> u64 {
    if since > next { 0 } else { since }
}

fn shown(seq: u64, at: Millis, notice: &Notice, names: &Names) -> Value {
    let (kind, text) = told(notice, names);
    json!({ "seq": seq, "ms": at.0, "kind": kind, "text": text })
}

/// A notice's name for scripts, and its words for people.
fn told(notice: &Notice, names: &Names) -> (&'static str, String) {
    let name = |node: &DatanodeUuid| names.get(node).cloned().unwrap_or_else(|| node.to_string());
    let seconds = |ms: &Millis| format!("{:.1} s", ms.0 as f64 / 1_000.0);
    match notice {
        Notice::NodeNew { node } => ("node_new", format!("{} joined", name(node))),
        Notice::NodeSuspect { node, silent_ms } => {
            let silent = seconds(silent_ms);
            (
                "node_suspect",
                format!("{} is suspect: last beat {silent} ago; no new blocks go there", name(node)),
            )
        }
        Notice::NodeDead { node, silent_ms, replicas } => {
            let silent = seconds(silent_ms);
            (
                "node_dead",
                format!("{} is dead: last beat {silent} ago; {replicas} replicas to restore", name(node)),
            )
        }
        Notice::NodeBack { node, was_dead } => {
            let note = if *was_dead { ", after it was taken for dead" } else { "" };
            ("node_back", format!("{} is back{note}", name(node)))
        }
        Notice::StorageFailed { node, storage, replicas } => (
            "storage_failed",
            format!("volume {storage} of {} failed; {replicas} replicas to restore", name(node)),
        ),
        Notice::StorageReported { node, replicas, .. } => {
            ("storage_reported", format!("{} reported {replicas} replicas", name(node)))
        }
        Notice::CopyOrdered { block, source, target, live, wanted, .. } => (
            "copy_ordered",
            format!("copying {block} ({live} of {wanted} left) from {} to {}", name(source), name(target)),
        ),
        Notice::CopyVerified { block, target, took_ms, .. } => {
            let took = seconds(took_ms);
            ("copy_verified", format!("{} has verified its copy of {block} after {took}", name(target)))
        }
        Notice::CopyGivenUp { block, target, .. } => (
            "copy_given_up",
            format!("the copy of {block} to {} was given up; it is tried elsewhere", name(target)),
        ),
        Notice::ReplicaCorrupt { block, node } => {
            ("replica_corrupt", format!("the replica of {block} on {} is corrupt", name(node)))
        }
        Notice::CorruptRemoved { block, node } => {
            ("corrupt_removed", format!("the corrupt replica of {block} on {} is removed", name(node)))
        }
        Notice::SurplusRemoved { block, node } => {
            ("surplus_removed", format!("one replica too many of {block}: {} drops its own", name(node)))
        }
        Notice::RecoveryOrdered { block, primary, .. } => {
            ("recovery_ordered", format!("{block} is recovered by {}", name(primary)))
        }
        Notice::RecoveryGivenUp { block, .. } => {
            ("recovery_given_up", format!("the recovery of {block} came to nothing: another one begins"))
        }
        Notice::BlockMissing { block } => ("block_missing", format!("no good replica of {block} is left")),
        Notice::CopiesOpen => ("copies_open", "the nodes have reported: copies may begin".into()),
        Notice::DeletesOpen => ("deletes_open", "the nodes have reported: deletions may begin".into()),
        Notice::Healed => ("healed", "every block has its replicas".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::first_wanted;

    #[test]
    fn numbers_of_an_earlier_process_begin_anew() {
        assert_eq!(first_wanted(3, 7), 3);
        assert_eq!(first_wanted(7, 7), 7);
        assert_eq!(first_wanted(8, 7), 0);
        assert_eq!(first_wanted(1, 0), 0);
    }
}
