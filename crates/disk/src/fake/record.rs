//! Recordings of all changes to a disk, from which every crash in between can be made.

use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::loss::Loss;
use super::state::{Act, Medium};
use super::{Crash, CrashDisk};

/// What was on the disk at first, and every change since.
#[derive(Clone, Debug)]
pub struct Recording {
    start: Medium,
    acts: Vec<Act>,
}

/// A disk as a power loss after some number of changes leaves it.
#[derive(Debug)]
pub struct Image {
    /// How many of the recorded changes had been made.
    pub changes: usize,
    /// What became of the unsynced ones.
    pub loss: Loss,
    /// Which of several such losses it is; with `changes` and `loss` the seed of it.
    pub variant: u64,
    /// The disk.
    pub disk: CrashDisk,
}

impl Recording {
    pub(super) fn from(start: Medium) -> Recording {
        Recording { start, acts: Vec::new() }
    }

    pub(super) fn note(&mut self, act: Act) {
        self.acts.push(act);
    }

    /// Changes recorded.
    pub fn len(&self) -> usize {
        self.acts.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// Every number of changes x every kind of loss, those that draw `variants` times each.
    pub fn images(&self, variants: u64) -> impl Iterator<Item = Image> + '_ {
        let mut now = self.start.clone();
        (0..=self.acts.len()).flat_map(move |changes| {
            if changes > 0 {
                // It worked when it was recorded, and nothing here is different.
                let done = now.act(Path::new("recording"), self.acts[changes - 1].clone());
                assert!(done.is_ok(), "change {changes} of a recording cannot be made again: {done:?}");
            }
            let times = |loss| if loss == Loss::Lost { 1 } else { variants };
            let kinds = Loss::ALL.into_iter().flat_map(move |loss| (0..times(loss)).map(move |v| (loss, v)));
            let images: Vec<Image> =
                kinds.map(|(loss, variant)| image(&now, changes, loss, variant)).collect();
            images
        })
    }

    /// The disk after every number of changes, as `kill -9` of all processes leaves it: nothing is lost.
    pub fn kills(&self) -> impl Iterator<Item = (usize, CrashDisk)> + '_ {
        let mut now = self.start.clone();
        (0..=self.acts.len()).map(move |changes| {
            if changes > 0 {
                let done = now.act(Path::new("recording"), self.acts[changes - 1].clone());
                assert!(done.is_ok(), "change {changes} of a recording cannot be made again: {done:?}");
            }
            let disk = CrashDisk::of(now.clone());
            disk.crash(Crash::Kill);
            (changes, disk)
        })
    }
}

fn image(medium: &Medium, changes: usize, loss: Loss, variant: u64) -> Image {
    let mut medium = medium.clone();
    medium.rng = StdRng::seed_from_u64((changes as u64) << 16 | variant << 2 | loss as u64);
    let disk = CrashDisk::of(medium);
    disk.lose_power(loss);
    Image { changes, loss, variant, disk }
}
