//! Sets of blocks as paged bitmaps: 32 bytes for 256 neighbouring ids, so that a million blocks of a
//! dead node cost some 200 KiB. Iterates in ascending order; knows nothing but ids.

use std::collections::BTreeMap;

use mobula_types::BlockId;

/// Block ids on one page.
pub const PAGE_BLOCKS: u64 = 256;
const WORDS: usize = (PAGE_BLOCKS / 64) as usize;

/// The page that holds `id`.
pub fn page_of(id: BlockId) -> u64 {
    id.0 / PAGE_BLOCKS
}

/// Where `id` is on its page.
pub fn place_on_page(id: BlockId) -> usize {
    (id.0 % PAGE_BLOCKS) as usize
}

/// The id at `place` of `page`.
pub fn id_at(page: u64, place: usize) -> BlockId {
    BlockId(page * PAGE_BLOCKS + place as u64)
}

/// One bit for each id of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits([u64; WORDS]);

impl Bits {
    /// Whether the bit is set.
    pub fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    /// Sets it.
    pub fn set(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    /// Clears it.
    pub fn clear(&mut self, place: usize) {
        self.0[place / 64] &= !(1 << (place % 64));
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// How many are set below `place`.
    pub fn rank(&self, place: usize) -> usize {
        let whole: u32 = self.0[..place / 64].iter().map(|word| word.count_ones()).sum();
        let part = if place.is_multiple_of(64) {
            0
        } else {
            (self.0[place / 64] & ((1 << (place % 64)) - 1)).count_ones()
        };
        (whole + part) as usize
    }

    /// The first that is set at `place` or above.
    pub fn next(&self, place: usize) -> Option<usize> {
        let mut index = place / 64;
        if index >= WORDS {
            return None;
        }
        let mut word = self.0[index] & (u64::MAX << (place % 64));
        loop {
            if word != 0 {
                return Some(index * 64 + word.trailing_zeros() as usize);
            }
            index += 1;
            if index == WORDS {
                return None;
            }
            word = self.0[index];
        }
    }
}

/// A set of blocks.
#[derive(Clone, Debug, Default)]
pub struct BlockSet {
    pages: BTreeMap<u64, Bits>,
    len: u64,
}

impl BlockSet {
    /// Adds; true if it was not there.
    pub fn insert(&mut self, id: BlockId) -> bool {
        let bits = self.pages.entry(page_of(id)).or_default();
        let new = !bits.has(place_on_page(id));
        bits.set(place_on_page(id));
        self.len += u64::from(new);
        new
    }

    /// Takes out; true if it was there.
    pub fn remove(&mut self, id: BlockId) -> bool {
        let Some(bits) = self.pages.get_mut(&page_of(id)) else { return false };
        if !bits.has(place_on_page(id)) {
            return false;
        }
        bits.clear(place_on_page(id));
        if bits.is_empty() {
            self.pages.remove(&page_of(id));
        }
        self.len -= 1;
        true
    }

    /// Whether it is there.
    pub fn contains(&self, id: BlockId) -> bool {
        self.pages.get(&page_of(id)).is_some_and(|bits| bits.has(place_on_page(id)))
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.len = 0;
    }

    /// Ascending, from `from` on.
    pub fn iter_from(&self, from: BlockId) -> impl Iterator<Item = BlockId> + '_ {
        let first = page_of(from);
        self.pages.range(first..).flat_map(move |(page, bits)| {
            let start = if *page == first { place_on_page(from) } else { 0 };
            std::iter::successors(bits.next(start), |place| bits.next(place + 1))
                .map(move |place| id_at(*page, place))
        })
    }

    /// Up to `count` from `from` on, then from the beginning again: a fair share of a long queue.
    pub fn take_round(&self, from: BlockId, count: usize) -> Vec<BlockId> {
        let mut taken: Vec<BlockId> = self.iter_from(from).take(count).collect();
        let rest = count - taken.len();
        taken.extend(self.iter_from(BlockId(0)).take_while(|id| *id < from).take(rest));
        taken
    }
}

impl FromIterator<BlockId> for BlockSet {
    fn from_iter<I: IntoIterator<Item = BlockId>>(blocks: I) -> BlockSet {
        let mut set = BlockSet::default();
        for id in blocks {
            set.insert(id);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_u64..2_000), 0..400), from in 0_u64..2_000) {
            let mut set = BlockSet::default();
            let mut model = BTreeSet::new();
            for (add, id) in steps {
                let id = BlockId(id);
                if add {
                    prop_assert_eq!(set.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(set.remove(id), model.remove(&id));
                }
                prop_assert_eq!(set.contains(id), model.contains(&id));
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            let from = BlockId(from);
            prop_assert!(set.iter_from(from).eq(model.range(from..).copied()));
            let round: Vec<_> = model.range(from..).chain(model.range(..from)).copied().collect();
            prop_assert_eq!(set.take_round(from, 10_000), round);
        }
    }

    #[test]
    fn negative_ids_are_the_highest() {
        let mut set = BlockSet::default();
        for id in [BlockId(-16_i64 as u64), BlockId(u64::MAX), BlockId(0)] {
            set.insert(id);
        }
        assert_eq!(
            set.iter_from(BlockId(1)).collect::<Vec<_>>(),
            [BlockId(-16_i64 as u64), BlockId(u64::MAX)]
        );
    }
}
