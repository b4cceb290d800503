//! Which blocks need something, as sets that are kept up to date one block at a time. Knows no
//! node; how a block stands is worked out in `assess`.

use std::collections::{BTreeMap, VecDeque};

use mobula_types::{BlockId, Millis};

use crate::set::BlockSet;

/// How urgent a copy is; lower is sooner: one replica left, two or more to go, one to go; then by
/// how many are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    class: u8,
    present: u16,
}

impl Urgency {
    /// For a block with `present` replicas where `wanted` should be.
    pub fn of(present: u16, wanted: u16) -> Urgency {
        let class = match (present, wanted.saturating_sub(present)) {
            (0 | 1, _) => 0,
            (_, 2..) => 1,
            _ => 2,
        };
        Urgency { class, present }
    }

    /// Replicas that such blocks have.
    pub fn present(self) -> u16 {
        self.present
    }
}

/// How one committed block stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Nodes with a replica that counts for everything.
    pub good: u16,
    /// The same, with those on suspect nodes and hoped-for ones.
    pub present: u16,
    /// Bad replicas on volumes that are not gone.
    pub bad: u16,
    /// Copies under way.
    pub pending: u16,
}

/// The sets.
#[derive(Debug, Default)]
pub struct Needs {
    /// Blocks that are in any of `missing`, `under`, `todo`.
    needy: BlockSet,
    /// Without any replica that counts.
    pub missing: BlockSet,
    /// Of these, with a target of 1.
    pub missing_one: BlockSet,
    /// Fewer than wanted, by how many there are.
    pub under: BTreeMap<u16, BlockSet>,
    /// Of these, with fewer copies under way than needed.
    pub todo: BTreeMap<Urgency, BlockSet>,
    /// With a bad replica.
    pub corrupt: BlockSet,
    /// With a replica that may go: a bad one, or one too many.
    pub trim: BlockSet,
    /// Replicas whose blocks stand above the namespace's next id.
    pub future: BlockSet,
    /// Just committed: reports from the pipeline are on their way. Until when.
    young: BTreeMap<BlockId, Millis>,
    young_queue: VecDeque<(Millis, BlockId)>,
}

impl Needs {
    /// Sorts a committed block in; true if it just went missing.
    pub fn sort_in(&mut self, id: BlockId, wanted: u16, census: Census) -> bool {
        let was_missing = self.missing.contains(id);
        self.take_out(id);
        // Within its grace it may just be that word of the new stamp has not come from all.
        let bad = census.bad > 0 && !self.is_young(id);
        if bad {
            self.corrupt.insert(id);
        } else {
            self.corrupt.remove(id);
        }
        if census.present > wanted || bad && census.present > 0 {
            self.trim.insert(id);
        } else {
            self.trim.remove(id);
        }
        if census.present >= wanted || self.is_young(id) {
            return false;
        }
        self.needy.insert(id);
        if census.present == 0 {
            self.missing.insert(id);
            if wanted == 1 {
                self.missing_one.insert(id);
            }
            return !was_missing;
        }
        self.under.entry(census.present).or_default().insert(id);
        if census.present + census.pending < wanted {
            self.todo.entry(Urgency::of(census.present, wanted)).or_default().insert(id);
        }
        false
    }

    /// It needs nothing: not committed, or no file has it.
    pub fn forget(&mut self, id: BlockId) {
        self.take_out(id);
        self.corrupt.remove(id);
        self.trim.remove(id);
        self.young.remove(&id);
        self.future.remove(id);
    }

    fn take_out(&mut self, id: BlockId) {
        if !self.needy.remove(id) {
            return;
        }
        if self.missing.remove(id) {
            self.missing_one.remove(id);
            return;
        }
        remove_from(&mut self.under, id);
        remove_from(&mut self.todo, id);
    }

    /// It was just committed: a grace before it counts as short of replicas.
    pub fn make_young(&mut self, id: BlockId, until: Millis) {
        self.young.insert(id, until);
        self.young_queue.push_back((until, id));
    }

    /// Whether it was committed just now.
    pub fn is_young(&self, id: BlockId) -> bool {
        self.young.contains_key(&id)
    }

    /// It has what it needs before its grace is over.
    pub fn grow_up(&mut self, id: BlockId) {
        self.young.remove(&id);
    }

    /// Up to `count` blocks whose grace is over.
    pub fn grown_up(&mut self, now: Millis, count: usize) -> Vec<BlockId> {
        let mut grown = Vec::new();
        while grown.len() < count
            && let Some((until, id)) = self.young_queue.front().copied()
            && (until <= now || !self.young.contains_key(&id))
        {
            self.young_queue.pop_front();
            if self.young.get(&id) == Some(&until) {
                self.young.remove(&id);
                grown.push(id);
            }
        }
        grown
    }

    /// Blocks within their grace.
    pub fn young(&self) -> u64 {
        self.young.len() as u64
    }

    /// Blocks below their target that have a replica.
    pub fn under_len(&self) -> u64 {
        self.under.values().map(BlockSet::len).sum()
    }

    /// Of these, those that have at least `nodes` replicas.
    pub fn under_len_from(&self, nodes: u16) -> u64 {
        self.under.range(nodes..).map(|(_, set)| set.len()).sum()
    }
}

fn remove_from<K: Ord + Copy>(ranks: &mut BTreeMap<K, BlockSet>, id: BlockId) {
    let mut emptied = None;
    for (rank, set) in ranks.iter_mut() {
        if set.remove(id) {
            emptied = set.is_empty().then_some(*rank);
            break;
        }
    }
    if let Some(rank) = emptied {
        ranks.remove(&rank);
    }
}
