//! Answers to questions: locations for readers, figures for reports, health. Changes nothing.

use std::sync::Arc;

use mobula_types::{Block, BlockId, ReplicaState};
use smallvec::SmallVec;

use crate::fleet::Fleet;
use crate::map::Entry;
use crate::roster::{Node, Standing, StorageHealth};
use crate::table::{BlockTable, TableBlock};
use crate::view::{
    FleetStats, Health, Location, Locations, NodeFilter, NodeReport, NodeState, StartProgress,
    UnderReplicated, WhyUnder,
};

impl Fleet {
    pub(crate) fn locate(&self, id: BlockId, reader: &str) -> Locations {
        let mut ranked: SmallVec<[(u64, Location); 4]> = SmallVec::new();
        for entry in self.map.entries(id) {
            if !entry.is_doomed()
                && let Some(found) = self.location(id, *entry, reader)
            {
                ranked.push(found);
            }
        }
        in_order(ranked)
    }

    /// A replica's place with its rank for the reader; none if it cannot be read.
    pub(crate) fn location(&self, id: BlockId, entry: Entry, reader: &str) -> Option<(u64, Location)> {
        let slot = entry.slot();
        let standing = self.roster.standing(slot);
        if standing == Standing::Gone {
            return None;
        }
        let corrupt = self.is_bad(id, entry);
        let stale = standing != Standing::Live;
        let location = self.location_at(slot, corrupt, stale)?;
        let node = self.roster.holder(slot)?;
        // Spread over the replicas by block and reader.
        let spread =
            mix(id.0 ^ mix(u64::from(slot)) ^ reader.bytes().fold(0, |sum, byte| mix(sum + u64::from(byte))));
        Some((rank(standing == Standing::Suspect, !node.is_machine(reader), spread), location))
    }

    fn location_at(&self, slot: u32, corrupt: bool, stale: bool) -> Option<Location> {
        let node = Arc::clone(&self.roster.holder(slot)?.info);
        let report = &self.roster.slot(slot).report;
        Some(Location { node, storage: report.storage.clone(), kind: report.kind, corrupt, stale })
    }

    pub(crate) fn count_finalized(&self, block: Block) -> usize {
        let mut nodes: SmallVec<[u32; 4]> = SmallVec::new();
        let stamp = self.map.stamp(block.id);
        for entry in self.map.entries(block.id) {
            let slot = entry.slot();
            let matches = match self.map.odd(block.id, slot).filter(|_| entry.is_odd()) {
                // Its length was compared with the table's when it was noted.
                None => stamp == Some(block.stamp),
                Some(odd) => {
                    odd.state == ReplicaState::Finalized
                        && !odd.verdict.is_bad()
                        && (odd.stamp, odd.length) == (block.stamp, block.length)
                }
            };
            let node = self.roster.slot(slot).node;
            if matches
                && !entry.is_doomed()
                && self.roster.standing(slot) != Standing::Gone
                && !nodes.contains(&node)
            {
                nodes.push(node);
            }
        }
        nodes.len()
    }

    pub(crate) fn node_reports(&self, filter: NodeFilter) -> Vec<NodeReport> {
        let wanted = |node: &Node| match filter {
            NodeFilter::All => true,
            NodeFilter::Live => node.state != NodeState::Dead,
            NodeFilter::Dead => node.state == NodeState::Dead,
            NodeFilter::Suspect => node.state == NodeState::Suspect,
        };
        let mut reports: Vec<NodeReport> = self
            .roster
            .iter()
            .filter(|(_, node)| wanted(node))
            .map(|(_, node)| self.node_report(node))
            .collect();
        reports.sort_by_cached_key(|report| {
            (report.info.id.ip.clone(), report.info.id.xfer_port, report.info.id.uuid.clone())
        });
        reports
    }

    fn node_report(&self, node: &Node) -> NodeReport {
        let slots = || node.slots.iter().map(|slot| self.roster.slot(*slot));
        let healthy =
            || slots().filter(|slot| slot.health == StorageHealth::Healthy).map(|slot| &slot.report);
        NodeReport {
            info: Arc::clone(&node.info),
            state: node.state,
            storages: slots().map(|slot| slot.report.clone()).collect(),
            capacity: healthy().map(|report| report.capacity).sum(),
            dfs_used: healthy().map(|report| report.dfs_used).sum(),
            remaining: healthy().map(|report| report.remaining).sum(),
            pool_used: healthy().map(|report| report.pool_used).sum(),
            non_dfs_used: healthy().map(|report| report.non_dfs_used).sum(),
            blocks: slots().map(|slot| slot.replicas).sum(),
            xceivers: node.xceivers,
            failed_volumes: node.failed_volumes,
            cache_capacity: node.cache_capacity,
            cache_used: node.cache_used,
            last_beat: node.last_beat,
            last_report: node.last_report,
        }
    }

    pub(crate) fn sum_up(&self) -> FleetStats {
        let mut stats = FleetStats::default();
        for (_, node) in self.roster.iter() {
            stats.pending_deletion += node.pending_deletions();
            if node.state == NodeState::Dead {
                stats.nodes_dead += 1;
                continue;
            }
            let report = self.node_report(node);
            stats.capacity += report.capacity;
            stats.used += report.dfs_used;
            stats.remaining += report.remaining;
            stats.pool_used += report.pool_used;
            stats.xceivers += u64::from(node.xceivers);
            stats.nodes_live += 1;
            stats.nodes_suspect += usize::from(node.state == NodeState::Suspect);
        }
        stats.corrupt = self.needs.corrupt.len();
        if self.gate.copies_open {
            stats.under_replicated = self.needs.under_len() + self.needs.missing.len();
            stats.missing = self.needs.missing.len();
            stats.missing_repl_one = self.needs.missing_one.len();
        }
        stats.pending_copies = self.copies.len();
        stats.pending_recoveries = self.recoveries.len() as u64;
        stats.in_future = self.needs.future.len();
        stats.replicas = self.map.len();
        stats
    }

    /// Nodes that replicas can be on.
    fn eligible(&self) -> u16 {
        let count = self.roster.iter().filter(|(_, node)| node.state != NodeState::Dead).count();
        count.min(usize::from(u16::MAX)) as u16
    }

    pub(crate) fn judge_health(&self) -> Health {
        let living = || self.roster.iter().filter(|(_, node)| node.state != NodeState::Dead);
        let under = self.needs.under_len();
        let limited = self.needs.under_len_from(self.eligible());
        let unsettled = self.dirty.len() + self.needs.young() + u64::from(!self.sweep.is_idle());
        let suspect_nodes = living().filter(|(_, node)| node.state == NodeState::Suspect).count();
        let unreported_nodes = living().filter(|(index, _)| !self.roster.is_reported(*index)).count();
        let missing = self.needs.missing.len();
        let scanned = self.walk.done_once;
        Health {
            healed: under == limited
                && missing == 0
                && unsettled == 0
                && suspect_nodes == 0
                && unreported_nodes == 0
                && scanned,
            under_replicated: under + missing,
            limited_by_nodes: limited,
            missing,
            pending_copies: self.copies.len(),
            unreported_nodes,
            suspect_nodes,
            scanned,
            unsettled,
        }
    }

    pub(crate) fn list_under(&self, limit: usize, table: &dyn BlockTable) -> Vec<UnderReplicated> {
        let missing = self.needs.missing.iter_from(BlockId(0));
        let under = self.needs.under.values().flat_map(|set| set.iter_from(BlockId(0)));
        missing
            .chain(under)
            .filter_map(|id| self.row(id, table).filter(|row| row.committed))
            .take(limit)
            .map(|row| self.explain(&row))
            .collect()
    }

    fn explain(&self, row: &TableBlock) -> UnderReplicated {
        let id = row.block.id;
        let census = self.census(id);
        let mut holders: Vec<u32> = Vec::new();
        for entry in self.map.entries(id).iter().filter(|entry| !entry.is_odd() && !entry.is_doomed()) {
            let node = self.roster.slot(entry.slot()).node;
            if self.roster.standing(entry.slot()) != Standing::Gone && !holders.contains(&node) {
                holders.push(node);
            }
        }
        let free_nodes = || {
            self.roster
                .iter()
                .filter(|(index, node)| node.state != NodeState::Dead && !self.holds(id, *index))
        };
        let why = if census.present == 0 {
            WhyUnder::NoSource
        } else if census.pending > 0 {
            WhyUnder::CopyPending
        } else if !self.gate.copies_open {
            WhyUnder::Starting
        } else if census.good == 0 {
            WhyUnder::SourceSuspect
        } else if free_nodes().next().is_none() {
            WhyUnder::NoMoreNodes
        } else if free_nodes().all(|(index, _)| self.could_hold(row, index).is_none()) {
            WhyUnder::NoSpace
        } else {
            WhyUnder::Queued
        };
        UnderReplicated {
            block: row.block,
            live: census.present,
            wanted: row.replication,
            holders: holders.iter().map(|index| self.roster.node(*index).info.id.uuid.clone()).collect(),
            why,
        }
    }

    pub(crate) fn progress(&self) -> StartProgress {
        let living = || self.roster.iter().filter(|(_, node)| node.state != NodeState::Dead);
        let expected = if self.walk.done_once { self.walk.committed } else { self.walk.counted };
        StartProgress {
            blocks_expected: expected,
            blocks_reported: expected.saturating_sub(self.needs.missing.len()),
            nodes: living().count(),
            nodes_reported: living().filter(|(index, _)| self.roster.is_reported(*index)).count(),
            copies_open: self.gate.copies_open,
            deletes_open: self.gate.deletes_open,
        }
    }
}

/// Best first; bad ones only if all are.
pub(crate) fn in_order(mut ranked: SmallVec<[(u64, Location); 4]>) -> Locations {
    let corrupt = !ranked.is_empty() && ranked.iter().all(|(_, location)| location.corrupt);
    if !corrupt {
        ranked.retain(|(_, location)| !location.corrupt);
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    Locations { replicas: ranked.into_iter().map(|(_, location)| location).collect(), corrupt }
}

/// Suspect ones last, then local ones first, then as `spread` says.
fn rank(suspect: bool, remote: bool, spread: u64) -> u64 {
    u64::from(suspect) << 63 | u64::from(remote) << 62 | spread >> 2
}

/// A small mixer (SplitMix64's): it spreads readers, no more is asked of it.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
