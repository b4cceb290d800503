//! Owners and groups as small numbers. Append-only, so that views share one list with the writer: a
//! number never changes its meaning, and reading takes no lock.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Chunk `n` holds `2^n` names: 32 of them hold every `u32`.
const CHUNKS: usize = 32;

type Chunk = Box<[OnceLock<Box<str>>]>;

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Names {
    chunks: [OnceLock<Chunk>; CHUNKS],
}

impl Names {
    /// The name with that number; empty for one that was never given (a corrupt table).
    pub(crate) fn get(&self, number: u32) -> &str {
        let (chunk, slot) = seat(number);
        self.chunks[chunk].get().and_then(|chunk| chunk[slot].get()).map_or("", |name| name)
    }

    pub(crate) fn set(&self, number: u32, name: &str) {
        let (chunk, slot) = seat(number);
        let seats =
            self.chunks[chunk].get_or_init(|| (0..1usize << chunk).map(|_| OnceLock::new()).collect());
        seats[slot].get_or_init(|| name.into());
    }
}

fn seat(number: u32) -> (usize, usize) {
    let number = number as usize + 1;
    let chunk = number.ilog2() as usize;
    (chunk.min(CHUNKS - 1), number - (1 << chunk))
}

/// The way back, which only the writer needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameNumbers {
    numbers: BTreeMap<Box<str>, u32>,
}

impl NameNumbers {
    pub(crate) fn get(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn set(&mut self, number: u32, name: &str) {
        self.numbers.insert(name.into(), number);
    }

    pub(crate) fn next(&self) -> u32 {
        self.numbers.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_seat() {
        let names = Names::default();
        for number in 0..1000 {
            names.set(number, &format!("user{number}"));
        }
        for number in 0..1000 {
            assert_eq!(names.get(number), format!("user{number}"));
        }
        assert_eq!(names.get(5000), "");
        assert_eq!(seat(u32::MAX - 1), (31, (1 << 31) - 1));
    }
}
