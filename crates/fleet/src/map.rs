//! The map of replicas (DESIGN D15): which volumes hold which block. Paged, 256 ids a page; a page
//! packs four bytes a replica and five a block, and costs nothing for ids without replicas:
//!
//! ```text
//! page   present: 256 bits | counts: u8 per present block | stamps: u32 per present block
//!        entries: u32 per replica, those of one block together, blocks ascending
//! entry  bits 0-19 slot (a volume of a node) | bit 20 odd | bit 21 doomed
//! ```
//!
//! A plain entry is a finalized replica with the block's stamp and length. An *odd* one is anything
//! else, with its particulars beside the map. Knows no node, no table, no time.

use std::collections::BTreeMap;

use mobula_types::{BlockId, GenStamp, ReplicaState};

use crate::set::{Bits, id_at, page_of, place_on_page};

/// Volumes that can be numbered.
pub const SLOTS_MAX: usize = 1 << 20;
/// Replicas of one block that are remembered; more are not noted (HDFS allows a target of 512).
pub const REPLICAS_MAX: usize = 255;
/// A page's vectors grow by this many at a time: doubling would waste half of the memory.
const GROWTH: usize = 32;
/// A stamp that is too far from its page's first one for 32 bits stands beside the page.
const STAMP_FAR: u32 = u32::MAX;

const ODD: u32 = 1 << 20;
const DOOMED: u32 = 1 << 21;
const SLOT_MASK: u32 = ODD - 1;

/// A replica: on which volume, and how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u32);

impl Entry {
    /// A finalized replica as the block table wants it.
    pub fn plain(slot: u32) -> Entry {
        debug_assert!(slot < SLOTS_MAX as u32, "slots are numbered within the limit");
        Entry(slot)
    }

    /// One with particulars.
    pub fn odd(slot: u32) -> Entry {
        Entry(Entry::plain(slot).0 | ODD)
    }

    /// Its volume.
    pub fn slot(self) -> u32 {
        self.0 & SLOT_MASK
    }

    /// Whether it has particulars.
    pub fn is_odd(self) -> bool {
        self.0 & ODD != 0
    }

    /// Whether it is to be deleted or being deleted: it counts for nothing.
    pub fn is_doomed(self) -> bool {
        self.0 & DOOMED != 0
    }

    /// The same, doomed or not.
    pub fn with_doom(self, doomed: bool) -> Entry {
        Entry(if doomed { self.0 | DOOMED } else { self.0 & !DOOMED })
    }
}

/// What is known of a replica that is not plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddReplica {
    /// Its stamp.
    pub stamp: GenStamp,
    /// Its length, as last reported.
    pub length: u64,
    /// Its state.
    pub state: ReplicaState,
    /// How it stands to the block table.
    pub verdict: Verdict,
}

/// How an odd replica stands to the block table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its block is not committed, or it is still being written: neither good nor bad.
    Open,
    /// Wrong stamp, length or state for its committed block.
    Mismatch,
    /// Its bytes were found to be bad; only a new copy or its deletion heals that.
    Corrupt,
}

impl Verdict {
    /// Whether it should go once good ones are there.
    pub fn is_bad(self) -> bool {
        self != Verdict::Open
    }
}

#[derive(Debug, Default)]
struct Page {
    present: Bits,
    counts: Vec<u8>,
    stamps: Vec<u32>,
    entries: Vec<Entry>,
    stamp_base: u64,
    stamps_far: BTreeMap<u8, GenStamp>,
}

impl Page {
    /// Index among the present blocks, and the range of its entries.
    fn find(&self, place: usize) -> Option<(usize, std::ops::Range<usize>)> {
        self.present.has(place).then(|| {
            let rank = self.present.rank(place);
            let start = self.offset(rank);
            (rank, start..start + usize::from(self.counts[rank]))
        })
    }

    fn offset(&self, rank: usize) -> usize {
        self.counts[..rank].iter().map(|count| usize::from(*count)).sum()
    }

    fn stamp(&self, place: usize, rank: usize) -> GenStamp {
        match self.stamps[rank] {
            STAMP_FAR => self.stamps_far[&(place as u8)],
            near => GenStamp(self.stamp_base.wrapping_add(u64::from(near))),
        }
    }

    fn set_stamp(&mut self, place: usize, rank: usize, stamp: GenStamp) {
        let near = stamp.0.wrapping_sub(self.stamp_base);
        if near < u64::from(STAMP_FAR) {
            self.stamps[rank] = near as u32;
            self.stamps_far.remove(&(place as u8));
        } else {
            self.stamps[rank] = STAMP_FAR;
            self.stamps_far.insert(place as u8, stamp);
        }
    }

    fn insert(&mut self, place: usize, stamp: GenStamp, entry: Entry) -> bool {
        if self.entries.is_empty() {
            // Older stamps than the first one seen are likely too: the middle of the range.
            self.stamp_base = stamp.0.saturating_sub(u64::from(STAMP_FAR) / 2);
        }
        if !self.present.has(place) {
            let rank = self.present.rank(place);
            self.present.set(place);
            grow(&mut self.counts);
            grow(&mut self.stamps);
            self.counts.insert(rank, 0);
            self.stamps.insert(rank, 0);
            self.set_stamp(place, rank, stamp);
        }
        let (rank, range) = self.find(place).expect("just made present");
        if range.len() == REPLICAS_MAX {
            return false;
        }
        grow(&mut self.entries);
        self.entries.insert(range.end, entry);
        self.counts[rank] += 1;
        true
    }

    fn remove(&mut self, place: usize, slot: u32) -> Option<Entry> {
        let (rank, range) = self.find(place)?;
        let index = range.start + self.entries[range].iter().position(|entry| entry.slot() == slot)?;
        let entry = self.entries.remove(index);
        self.counts[rank] -= 1;
        if self.counts[rank] == 0 {
            self.counts.remove(rank);
            self.stamps.remove(rank);
            self.stamps_far.remove(&(place as u8));
            self.present.clear(place);
        }
        Some(entry)
    }
}

fn grow<T>(vector: &mut Vec<T>) {
    if vector.len() == vector.capacity() {
        vector.reserve_exact(GROWTH);
    }
}

/// The map.
#[derive(Debug, Default)]
pub struct ReplicaMap {
    pages: BTreeMap<u64, Page>,
    odd: BTreeMap<(BlockId, u32), OddReplica>,
    len: u64,
}

impl ReplicaMap {
    /// A block's replicas.
    pub fn entries(&self, id: BlockId) -> &[Entry] {
        let Some(page) = self.pages.get(&page_of(id)) else { return &[] };
        page.find(place_on_page(id)).map_or(&[], |(_, range)| &page.entries[range])
    }

    /// A block's replica on one volume.
    pub fn get(&self, id: BlockId, slot: u32) -> Option<Entry> {
        self.entries(id).iter().copied().find(|entry| entry.slot() == slot)
    }

    /// The particulars of an odd replica.
    pub fn odd(&self, id: BlockId, slot: u32) -> Option<&OddReplica> {
        self.odd.get(&(id, slot))
    }

    /// The stamp of a block's plain replicas; none without replicas.
    pub fn stamp(&self, id: BlockId) -> Option<GenStamp> {
        let page = self.pages.get(&page_of(id))?;
        let (rank, _) = page.find(place_on_page(id))?;
        Some(page.stamp(place_on_page(id), rank))
    }

    /// Sets the stamp of a block's plain replicas, if it has replicas.
    pub fn set_stamp(&mut self, id: BlockId, stamp: GenStamp) {
        if let Some(page) = self.pages.get_mut(&page_of(id))
            && let Some((rank, _)) = page.find(place_on_page(id))
        {
            page.set_stamp(place_on_page(id), rank, stamp);
        }
    }

    /// Notes a plain replica; what was known of the one on that volume is replaced. `stamp` is kept
    /// if the block has no replicas yet. The doom of the old one stays.
    pub fn put_plain(&mut self, id: BlockId, slot: u32, stamp: GenStamp) {
        self.odd.remove(&(id, slot));
        self.put(id, stamp, Entry::plain(slot));
    }

    /// Notes an odd replica.
    pub fn put_odd(&mut self, id: BlockId, slot: u32, replica: OddReplica) {
        if self.put(id, replica.stamp, Entry::odd(slot)) {
            self.odd.insert((id, slot), replica);
        }
    }

    fn put(&mut self, id: BlockId, stamp: GenStamp, entry: Entry) -> bool {
        let page = self.pages.entry(page_of(id)).or_default();
        if let Some((_, range)) = page.find(place_on_page(id))
            && let Some(old) = page.entries[range].iter_mut().find(|old| old.slot() == entry.slot())
        {
            *old = entry.with_doom(old.is_doomed());
            return true;
        }
        let added = page.insert(place_on_page(id), stamp, entry);
        self.len += u64::from(added);
        added
    }

    /// Dooms a replica, or spares it.
    pub fn set_doom(&mut self, id: BlockId, slot: u32, doomed: bool) {
        if let Some(page) = self.pages.get_mut(&page_of(id))
            && let Some((_, range)) = page.find(place_on_page(id))
            && let Some(entry) = page.entries[range].iter_mut().find(|entry| entry.slot() == slot)
        {
            *entry = entry.with_doom(doomed);
        }
    }

    /// Forgets a replica.
    pub fn remove(&mut self, id: BlockId, slot: u32) -> Option<Entry> {
        let page = self.pages.get_mut(&page_of(id))?;
        let entry = page.remove(place_on_page(id), slot)?;
        if page.entries.is_empty() {
            self.pages.remove(&page_of(id));
        }
        self.odd.remove(&(id, slot));
        self.len -= 1;
        Some(entry)
    }

    /// Replicas.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The first page at `page` or above.
    pub fn next_page(&self, page: u64) -> Option<u64> {
        self.pages.range(page..).next().map(|(number, _)| *number)
    }

    /// The blocks of one page that have a replica which `wanted` wants.
    pub fn on_page(&self, number: u64, mut wanted: impl FnMut(Entry) -> bool) -> Vec<BlockId> {
        let Some(page) = self.pages.get(&number) else { return Vec::new() };
        let mut found = Vec::new();
        let mut offset = 0;
        let mut place = page.present.next(0);
        for count in &page.counts {
            let here = place.expect("as many places as counts");
            let end = offset + usize::from(*count);
            if page.entries[offset..end].iter().any(|entry| wanted(*entry)) {
                found.push(id_at(number, here));
            }
            offset = end;
            place = page.present.next(here + 1);
        }
        found
    }

    /// The blocks on a volume with ids in `from..=to`, ascending.
    pub fn on_slot(&self, slot: u32, from: BlockId, to: BlockId) -> Vec<BlockId> {
        let mut found = Vec::new();
        let mut next = self.next_page(page_of(from));
        while let Some(number) = next
            && number <= page_of(to)
        {
            found.extend(self.on_page(number, |entry| entry.slot() == slot));
            next = number.checked_add(1).and_then(|page| self.next_page(page));
        }
        found.retain(|id| (from..=to).contains(id));
        found
    }

    /// Bytes that the map holds in memory, about (the B-trees' own nodes are estimated).
    pub fn memory(&self) -> usize {
        let pages: usize = self
            .pages
            .values()
            .map(|page| {
                std::mem::size_of::<Page>() * 3 / 2
                    + page.counts.capacity()
                    + page.stamps.capacity() * 4
                    + page.entries.capacity() * 4
            })
            .sum();
        pages + self.odd.len() * 80
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_map_is_a_map(steps in prop::collection::vec((0_u8..4, 0_u64..600, 0_u32..6, 0_u64..3), 0..500)) {
            let mut map = ReplicaMap::default();
            let mut model: BTreeMap<(BlockId, u32), bool> = BTreeMap::new();
            for (step, id, slot, stamp) in steps {
                let id = BlockId(id);
                // Far apart on purpose: they do not fit one page's 32 bits.
                let stamp = GenStamp(stamp << 40);
                match step {
                    0 => {
                        map.put_plain(id, slot, stamp);
                        model.insert((id, slot), false);
                    }
                    1 => {
                        map.put_odd(id, slot, OddReplica {
                            stamp, length: 1, state: ReplicaState::Rbw, verdict: Verdict::Open,
                        });
                        model.insert((id, slot), true);
                    }
                    2 => {
                        map.set_stamp(id, stamp);
                        if !map.entries(id).is_empty() {
                            prop_assert_eq!(map.stamp(id), Some(stamp));
                        }
                    }
                    _ => prop_assert_eq!(map.remove(id, slot).is_some(), model.remove(&(id, slot)).is_some()),
                }
                prop_assert_eq!(map.get(id, slot).map(|entry| entry.is_odd()), model.get(&(id, slot)).copied());
                prop_assert_eq!(map.odd(id, slot).is_some(), model.get(&(id, slot)) == Some(&true));
            }
            prop_assert_eq!(map.len(), model.len() as u64);
            for slot in 0..6 {
                let on: Vec<_> = model.keys().filter(|key| key.1 == slot).map(|key| key.0).collect();
                prop_assert_eq!(map.on_slot(slot, BlockId(0), BlockId(u64::MAX)), on);
            }
        }
    }

    #[test]
    fn three_million_blocks_fit() {
        const BLOCKS: u64 = 3_000_000;
        let mut map = ReplicaMap::default();
        for block in 0..BLOCKS {
            let id = BlockId(BlockId::FIRST.0 + block);
            for copy in 0..3 {
                map.put_plain(id, ((block + copy * 7) % 40) as u32, GenStamp(1001 + block));
            }
        }
        assert_eq!(map.len(), 3 * BLOCKS);
        let each = map.memory() as f64 / BLOCKS as f64;
        // 3 x 4 + 4 + 1 and the page: 10 M blocks then take less than 200 MB.
        assert!(each < 19.0, "{each} bytes a block");
    }
}
