//! One of a journal's two files. Blocking.
//!
//! Invariants: records are written behind each other, and nothing behind one that is not known to be durable but what is
//! written and synced with it; behind the last one are zeros, or records of an earlier use.

use std::io;
use std::path::PathBuf;

use mobula_disk::{Disk, FileRef, Open};

use super::format::{Draft, Header, RECORDS_FROM};

/// So many bytes of zeros are written ahead of the records when a file is used for the first time: those that take
/// their place change neither its length nor where it lies (docs/decisions/0001-raft-log.md).
const FILL_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    /// It gets no longer than this, in bytes.
    bytes_max: u64,
    file: Option<FileRef>,
    begun: bool,
    full: bool,
    salt: u64,
    /// Where the next record goes.
    end: u64,
    /// How long the file is.
    filled: u64,
    /// The next record's.
    number: u64,
}

impl JournalFile {
    pub(crate) fn new(path: PathBuf, bytes_max: u64) -> JournalFile {
        JournalFile {
            path,
            bytes_max,
            file: None,
            begun: false,
            full: false,
            salt: 0,
            end: bytes_max,
            filled: 0,
            number: 0,
        }
    }

    /// Begins it anew, durably: what its records said counts no more.
    ///
    /// # Errors
    /// Whatever the disk says. After a shortage it may be tried again.
    pub(crate) fn begin(&mut self, disk: &dyn Disk, header: Header) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.make(disk)?,
        };
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        self.filled = file.length()?;
        (self.file, self.begun, self.full) = (Some(file), true, false);
        (self.salt, self.end, self.number) = (header.salt, RECORDS_FROM, 0);
        Ok(())
    }

    fn make(&self, disk: &dyn Disk) -> io::Result<FileRef> {
        let folder = self.path.parent().expect("it lies in a folder");
        disk.create_folder(folder)?;
        // Even if it was there: an attempt before, which was short of something, may have left its name as it was.
        disk.sync_folder(folder.parent().expect("the pool's"))?;
        let file = disk.open(&self.path, Open::Create)?;
        disk.sync_folder(folder)?;
        Ok(file)
    }

    /// Whether its records count.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    /// Its records need not count any more: it may be begun anew.
    pub(crate) fn retire(&mut self) {
        self.begun = false;
    }

    /// Bytes of records that it still takes.
    pub(crate) fn room(&self) -> u64 {
        if self.begun && !self.full { self.bytes_max.saturating_sub(self.end) } else { 0 }
    }

    /// It takes no more until it is begun anew: the disk is full.
    pub(crate) fn fill_up(&mut self) {
        self.full = true;
    }

    /// Writes records behind the last one; durably, if `sync`.
    ///
    /// # Errors
    /// Whatever the disk says. After a shortage the next records take the place of these.
    pub(crate) fn append(&mut self, drafts: Vec<Draft>, sync: bool) -> io::Result<()> {
        let file = self.file.as_ref().expect("it was begun");
        let count = drafts.len() as u64;
        let mut bytes = Vec::with_capacity(drafts.iter().map(Draft::size).sum());
        for (number, draft) in (self.number..).zip(drafts) {
            draft.encode(self.salt, number, &mut bytes);
        }
        let end = self.end + bytes.len() as u64;
        if end > self.filled {
            let filled = (end + FILL_BYTES).min(self.bytes_max).max(end);
            bytes.resize((filled - self.end) as usize, 0);
        }
        file.write_all_at(&bytes, self.end)?;
        if sync {
            file.sync_data()?;
        }
        self.filled = self.filled.max(self.end + bytes.len() as u64);
        (self.end, self.number) = (end, self.number + count);
        Ok(())
    }

    /// Removes it, not durably.
    pub(crate) fn remove(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.begun = false;
        if self.file.take().is_some() { disk.remove_file(&self.path) } else { Ok(()) }
    }
}
