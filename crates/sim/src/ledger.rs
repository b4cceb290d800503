//! What was acknowledged. What failed, or was never answered, is not in it: it may or may not have
//! happened, and either is right.

use std::collections::BTreeMap;

/// What must be found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A closed file of so many bytes, made by [`content`] from this seed.
    File { length: usize, seed: u64 },
    /// A directory.
    Directory,
    /// Nothing.
    Absent,
}

/// The acknowledged state, by path.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    by_path: BTreeMap<String, Expected>,
    acknowledged: u64,
    failed: u64,
}

impl Ledger {
    /// Before a change is asked for: nothing is known of the path until it is answered.
    pub fn forget(&mut self, path: &str) {
        self.by_path.remove(path);
    }

    /// What must be found at a path, which is forgotten: it is about to change.
    pub fn take(&mut self, path: &str) -> Option<Expected> {
        self.by_path.remove(path)
    }

    /// A change was acknowledged.
    pub fn acknowledge(&mut self, path: &str, expected: Expected) {
        self.acknowledged += 1;
        self.by_path.insert(path.into(), expected);
    }

    /// A change failed, or its answer was lost.
    pub fn failure(&mut self) {
        self.failed += 1;
    }

    /// All that must hold.
    pub fn entries(&self) -> Vec<(String, Expected)> {
        self.by_path.iter().map(|(path, expected)| (path.clone(), *expected)).collect()
    }

    /// Changes that were acknowledged, and that were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.acknowledged, self.failed)
    }
}

/// A file's bytes: different at every offset and for every seed.
pub fn content(length: usize, seed: u64) -> Vec<u8> {
    let byte =
        |at: usize| ((at as u64 + 1).wrapping_mul(seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..length).map(byte).collect()
}
