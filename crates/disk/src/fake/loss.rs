//! What a power loss leaves of what was not synced.

use std::collections::BTreeSet;

use rand::Rng;

use super::state::{Edit, FileState, Inode, Medium, ROOT};

/// What the drive writes at once.
const SECTOR: usize = 512;
/// What the page cache writes at once.
pub(super) const PAGE: usize = 4096;
/// One page in so many is torn at its sectors, too.
const PAGES_PER_TORN: u32 = 4;

/// What becomes of unsynced work when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it is gone.
    Lost,
    /// It got some way, in order; the last write may be cut at a sector.
    Torn,
    /// Any part of it is there, in no order: page by page, name by name.
    Reordered,
}

impl Loss {
    /// All of them.
    pub const ALL: [Loss; 3] = [Loss::Lost, Loss::Torn, Loss::Reordered];
}

impl Medium {
    pub(super) fn draw_loss(&mut self) -> Loss {
        Loss::ALL[self.rng.random_range(0..Loss::ALL.len())]
    }

    /// The power fails.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.lose_names(loss);
        self.forget_unreachable();
        let mut files = std::mem::take(&mut self.files);
        for file in files.values_mut() {
            file.live = match loss {
                Loss::Lost => std::mem::take(&mut file.durable),
                Loss::Torn => self.torn(file),
                Loss::Reordered => self.reordered(file),
            };
            file.durable.clone_from(&file.live);
            file.pending.clear();
            file.allocated = file.live.len() as u64;
        }
        self.files = files;
        self.live = self.durable.clone();
    }

    fn lose_names(&mut self, loss: Loss) {
        match loss {
            Loss::Lost => {}
            Loss::Torn => {
                let kept = self.rng.random_range(0..=self.pending.len());
                for edit in self.pending.drain(..).take(kept) {
                    edit.apply(&mut self.durable);
                }
            }
            Loss::Reordered => {
                let touched = self.pending.iter().flat_map(|edit| edit.set.iter().map(|set| set.0));
                let touched: BTreeSet<Inode> = touched.collect();
                let synced: Vec<Inode> = touched.into_iter().filter(|_| self.rng.random()).collect();
                self.sync_folders(&synced);
            }
        }
        self.pending.clear();
    }

    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(inode) = next.pop() {
            if reached.insert(inode)
                && let Some(folder) = self.durable.get(&inode)
            {
                next.extend(folder.values().copied());
            }
        }
        self.durable.retain(|inode, _| reached.contains(inode));
        self.files.retain(|inode, _| reached.contains(inode));
    }

    /// The first changes whole, the one after them cut at a sector, the rest not at all.
    fn torn(&mut self, file: &mut FileState) -> Vec<u8> {
        let mut contents = std::mem::take(&mut file.durable);
        let whole = self.rng.random_range(0..=file.pending.len());
        for edit in &file.pending[..whole] {
            edit.apply(&mut contents);
        }
        if let Some(Edit::Write(offset, data)) = file.pending.get(whole) {
            let end = *offset as usize + data.len();
            let sectors = end.div_ceil(SECTOR) - *offset as usize / SECTOR;
            let cut = (*offset as usize / SECTOR + self.rng.random_range(0..=sectors)) * SECTOR;
            let kept = cut.clamp(*offset as usize, end) - *offset as usize;
            if kept > 0 {
                Edit::Write(*offset, data[..kept].into()).apply(&mut contents);
            }
        }
        contents
    }

    /// Every page, and the length, at a state of its own between durable and live; some pages with
    /// sectors of two states.
    fn reordered(&mut self, file: &mut FileState) -> Vec<u8> {
        if file.pending.is_empty() {
            return file.durable.clone();
        }
        let states = file.pending.len() + 1;
        let length = length_after(file, self.rng.random_range(0..states));
        let mut contents = Vec::with_capacity(length);
        for page in (0..length).step_by(PAGE) {
            let one = page_after(file, page, self.rng.random_range(0..states));
            let other = page_after(file, page, self.rng.random_range(0..states));
            let torn = self.rng.random_range(0..PAGES_PER_TORN) == 0;
            for sector in (0..PAGE.min(length - page)).step_by(SECTOR) {
                let state = if torn && self.rng.random() { &other } else { &one };
                contents.extend_from_slice(&state[sector..(length - page).min(sector + SECTOR)]);
            }
        }
        contents
    }
}

/// A file's length after its first `edits` unsynced changes.
fn length_after(file: &FileState, edits: usize) -> usize {
    file.pending[..edits].iter().fold(file.durable.len(), |length, edit| match edit {
        Edit::Write(offset, data) => length.max(*offset as usize + data.len()),
        Edit::Length(length) => *length as usize,
    })
}

/// The page at `page` after a file's first `edits` unsynced changes, zeros behind the end.
fn page_after(file: &FileState, page: usize, edits: usize) -> [u8; PAGE] {
    let mut buffer = [0; PAGE];
    let overlay = |buffer: &mut [u8; PAGE], offset: usize, data: &[u8]| {
        let (from, to) = (offset.max(page), (offset + data.len()).min(page + PAGE));
        if from < to {
            buffer[from - page..to - page].copy_from_slice(&data[from - offset..to - offset]);
        }
    };
    overlay(&mut buffer, 0, &file.durable);
    for edit in &file.pending[..edits] {
        match edit {
            Edit::Write(offset, data) => overlay(&mut buffer, *offset as usize, data),
            Edit::Length(length) => {
                let kept = (*length as usize).saturating_sub(page).min(PAGE);
                buffer[kept..].fill(0);
            }
        }
    }
    buffer
}
