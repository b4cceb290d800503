//! Where new replicas go (HDFS: `BlockPlacementPolicyDefault`): the first on the writer's own
//! machine if a DataNode is there, the others on distinct nodes; of two drawn by free space, the one
//! with less to do. Racks come later: every node is on `/default-rack`.

use std::collections::BTreeSet;

use mobula_types::{DatanodeUuid, Target};
use rand::Rng;

use crate::event::{Placement, PlacementRequest};
use crate::fleet::Fleet;
use crate::roster::Node;
use crate::view::NodeState;

/// A node that could take a replica.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    node: u32,
    /// Its roomiest volume's free bytes: its chance to be drawn.
    free: u64,
    /// Connections and blocks that it has to do with.
    busy: u64,
    local: bool,
    favored: bool,
}

/// What a request says of nodes, to be asked for each of them: the fleet is locked meanwhile.
struct Wishes<'r> {
    taken: BTreeSet<&'r DatanodeUuid>,
    /// Machine and port.
    favored: BTreeSet<(&'r str, u16)>,
}

impl<'r> Wishes<'r> {
    fn of(request: &'r PlacementRequest) -> Wishes<'r> {
        let existing = request.existing.iter().map(|target| &target.datanode);
        let address = |address: &'r String| {
            let (machine, port) = address.rsplit_once(':')?;
            Some((machine, port.parse().ok()?)).filter(|_| !machine.is_empty())
        };
        Wishes {
            taken: request.excluded.iter().chain(existing).collect(),
            favored: request.favored.iter().filter_map(address).collect(),
        }
    }

    /// Whether the node was named as `ip:port` or `host:port`.
    fn favor(&self, node: &Node) -> bool {
        let id = &node.info.id;
        !self.favored.is_empty()
            && [&id.ip, &id.host_name]
                .iter()
                .any(|machine| self.favored.contains(&(machine.as_str(), id.xfer_port)))
    }
}

impl Fleet {
    pub(crate) fn choose_targets(&mut self, request: &PlacementRequest) -> Placement {
        let mut placement = Placement {
            targets: Vec::new(),
            live: self.roster.iter().filter(|(_, node)| node.state != NodeState::Dead).count(),
            excluded: request.excluded.iter().filter(|uuid| self.roster.index(uuid).is_some()).count(),
        };
        let wishes = Wishes::of(request);
        let mut candidates = self.candidates(request, &wishes, Node::is_usable);
        if candidates.is_empty() && request.existing.is_empty() {
            // A suspect node is better than none: it may have missed a beat only.
            let fit = |node: &Node| node.state == NodeState::Suspect && !node.stopping;
            candidates = self.candidates(request, &wishes, fit);
        }
        while placement.targets.len() < usize::from(request.replicas) && !candidates.is_empty() {
            let first = placement.targets.is_empty() && request.existing.is_empty();
            let index = self.draw(&candidates, first, request.no_local);
            let chosen = candidates.swap_remove(index);
            if let Some(slot) = self.draw_volume(chosen.node, request.block_size) {
                let placed = &mut self.roster.node_mut(chosen.node).placed;
                *placed = (placed.0 + 1, placed.1 + request.block_size);
                placement.targets.push(self.target(chosen.node, slot));
            }
        }
        self.order_pipeline(request, &mut placement.targets);
        placement
    }

    fn candidates(
        &self,
        request: &PlacementRequest,
        wishes: &Wishes<'_>,
        fit: impl Fn(&Node) -> bool,
    ) -> Vec<Candidate> {
        let taken = |node: &Node| wishes.taken.contains(&node.info.id.uuid);
        let mut found = Vec::new();
        for (index, node) in self.roster.iter().filter(|(_, node)| fit(node) && !taken(node)) {
            let free = node.slots.iter().map(|slot| self.roster.free(*slot, &self.config)).max().unwrap_or(0);
            let coming = node.load.bytes_in + node.placed.1;
            if free == 0 || free < request.block_size.saturating_add(coming) {
                continue;
            }
            found.push(Candidate {
                node: index,
                free: free - coming,
                busy: u64::from(node.xceivers) + u64::from(node.placed.0) * 2,
                local: !request.ignore_locality && node.is_machine(&request.client_machine),
                favored: wishes.favor(node),
            });
        }
        found
    }

    /// The index of the next one: favoured ones first, then for the first replica local ones (or,
    /// with `no_local`, rather others), then any.
    fn draw(&mut self, candidates: &[Candidate], first: bool, no_local: bool) -> usize {
        let all = || 0..candidates.len();
        let mut pool: Vec<usize> = all().filter(|index| candidates[*index].favored).collect();
        if pool.is_empty() && first && !no_local {
            pool = all().filter(|index| candidates[*index].local).collect();
        }
        if pool.is_empty() && no_local {
            pool = all().filter(|index| !candidates[*index].local).collect();
        }
        if pool.is_empty() {
            pool = all().collect();
        }
        let one = self.draw_by_room(&pool, candidates);
        let two = self.draw_by_room(&pool, candidates);
        if candidates[two].busy < candidates[one].busy { two } else { one }
    }

    fn draw_by_room(&mut self, pool: &[usize], candidates: &[Candidate]) -> usize {
        let total: u128 = pool.iter().map(|index| u128::from(candidates[*index].free)).sum();
        let mut ticket = self.rng.random_range(0..total.max(1));
        for index in pool {
            let free = u128::from(candidates[*index].free);
            if ticket < free {
                return *index;
            }
            ticket -= free;
        }
        pool[0]
    }

    /// A volume of the node with room, drawn by free space.
    fn draw_volume(&mut self, node: u32, block_size: u64) -> Option<u32> {
        let rooms: Vec<(u32, u64)> = self
            .roster
            .node(node)
            .slots
            .iter()
            .map(|slot| (*slot, self.roster.free(*slot, &self.config)))
            .filter(|(_, free)| *free > 0 && *free >= block_size)
            .collect();
        let total: u128 = rooms.iter().map(|(_, free)| u128::from(*free)).sum();
        if total == 0 {
            return None;
        }
        let mut ticket = self.rng.random_range(0..total);
        rooms
            .iter()
            .find(|(_, free)| {
                let here = ticket < u128::from(*free);
                ticket = ticket.saturating_sub(u128::from(*free));
                here
            })
            .map(|(slot, _)| *slot)
    }

    /// The writer's own machine is first in the pipeline, wherever it was drawn.
    fn order_pipeline(&self, request: &PlacementRequest, targets: &mut [Target]) {
        let local = |target: &Target| {
            let index = self.roster.index(&target.datanode);
            index.is_some_and(|index| self.roster.node(index).is_machine(&request.client_machine))
        };
        if !request.ignore_locality {
            targets.sort_by_key(|target| !local(target));
        }
    }
}
