//! What the journal says, done once more to the files: at a start, before they are looked at.
//!
//! A replica's bytes never change while its stamp stays the same, they only become more; so a chunk that is full is
//! written again whatever the disk has of it, and one that is not stays as it is if it goes further than the record.
//! Everything is written, not only what differs: what the page cache shows may have failed to reach the disk. So may the
//! journal itself.
//!
//! Invariants: nothing is done before what says so is durable, or a crash in the middle could leave half of what nothing tells of
//! any more; the journal's files go only when all that they say is durable without them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use mobula_disk::{Disk, DiskFile, FileRef, Open};
use mobula_types::{Block, BlockId, GenStamp, PoolId};
use mobula_wire::checksum::{Checksum, ChecksumKind, SUM_LENGTH};
use mobula_wire::meta;

use super::format::{self, Fact, Header, HeaderError, RECORDS_FROM, Record, VERSION};
use super::writer::SETTLE_EACH_MAX;
use super::{FILE_BYTES_MAX, FILE_NAMES, folder_of};
use crate::files::{longest_match, sum_at};
use crate::load::{Names, names};
use crate::volume::{Volume, data_name, meta_name};

/// Brings the pool's replicas on the volume to what the journal says of them, durably, and removes it. Blocking.
///
/// # Errors
/// Whatever the disk says; the journal is then as it was.
pub(crate) fn replay(volume: &Volume, pool: &PoolId) -> io::Result<()> {
    let (disk, folder) = (&*volume.disk, folder_of(volume, pool));
    let mut files = Vec::new();
    for name in FILE_NAMES {
        match read(disk, &folder.join(name)) {
            Ok(file) => files.push((name, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let mut found: Vec<(&str, Header, &[u8])> = Vec::new();
    for (name, bytes) in &files {
        match Header::decode(bytes) {
            Ok(header) => found.push((*name, header, bytes)),
            Err(HeaderError::Version(version)) => {
                let path = folder.join(name);
                let what =
                    format!("{}: a journal of version {version}, known here {VERSION}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            // Of a file that was about to be begun nothing is there yet.
            Err(HeaderError::Damaged) => {
                if bytes.iter().any(|byte| *byte != 0) {
                    let path = folder.join(name);
                    tracing::error!(path = %path.display(), "its header is damaged: what it says is not known");
                }
            }
        }
    }
    found.sort_by_key(|(_, header, _)| header.order);
    let mut said: BTreeMap<BlockId, Vec<Record<'_>>> = BTreeMap::new();
    let mut believed = Vec::new();
    for (name, header, bytes) in &found {
        let mut end = RECORDS_FROM as usize;
        for (record, size) in records(header.salt, bytes.get(end..).unwrap_or_default()) {
            end += size;
            match record.fact {
                Fact::Forgotten => drop(said.remove(&record.block.id)),
                _ => said.entry(record.block.id).or_default().push(record),
            }
        }
        believed.push((*name, &bytes[..end.min(bytes.len())]));
    }
    if !said.is_empty() {
        tracing::info!(volume = %volume.config.path.display(), replicas = said.len(), "the journal is replayed");
        for (name, bytes) in believed {
            renew(disk, &folder.join(name), bytes)?;
        }
        let mut replay = Replay {
            volume,
            pool,
            folders: BTreeMap::new(),
            changed: BTreeSet::new(),
            written: Vec::new(),
            one_by_one: said.len() <= SETTLE_EACH_MAX,
        };
        said.values().try_for_each(|records| replay.block(records))?;
        if replay.one_by_one {
            replay.written.iter().try_for_each(|file| file.sync_data())?;
        } else {
            volume.around.sync_all_files()?;
        }
        replay.changed.iter().try_for_each(|folder| disk.sync_folder(folder))?;
    }
    // The older one first: what it says may be forgotten in the other.
    for name in found.iter().map(|(name, ..)| *name).chain(FILE_NAMES) {
        match disk.remove_file(&folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    disk.sync_folder(&folder)
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    mobula_disk::read_file(disk, path, FILE_BYTES_MAX)
}

/// Makes durable what a file was found to begin with.
fn renew(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, Open::ReadWrite)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()
}

/// The records from the beginning of `bytes` on, up to the first that is none, with their sizes.
fn records(salt: u64, bytes: &[u8]) -> impl Iterator<Item = (Record<'_>, usize)> {
    let (mut at, mut number) = (0, 0);
    std::iter::from_fn(move || {
        let (record, size) = format::decode(salt, number, &bytes[at..])?;
        (at, number) = (at + size, number + 1);
        Some((record, size))
    })
}

struct Replay<'a> {
    volume: &'a Volume,
    pool: &'a PoolId,
    /// What was in the folders at the beginning: no block is met twice.
    folders: BTreeMap<PathBuf, Names>,
    /// Folders in which names have changed, or may have since they were synced.
    changed: BTreeSet<PathBuf>,
    /// So few that they are synced one by one.
    one_by_one: bool,
    /// The files that are to be synced then.
    written: Vec<FileRef>,
}

/// What a folder has of a block.
#[derive(Debug)]
struct Here {
    data: bool,
    stamps: Vec<GenStamp>,
}

impl Replay<'_> {
    /// All that is said of one block, in order.
    fn block(&mut self, records: &[Record<'_>]) -> io::Result<()> {
        let last = records.last().expect("a block is there because of a record");
        let id = last.block.id;
        let (rbw, is_final) = (self.volume.rbw_folder(self.pool), self.volume.final_folder(self.pool, id));
        let (open, closed) = (self.look(&rbw, id)?, self.look(&is_final, id)?);
        let newest = open.stamps.iter().chain(&closed.stamps).max();
        // After a kill its names, or that they are gone, may be no more durable than what is written here.
        self.changed.insert(rbw.clone());
        if self.volume.disk.look(&is_final)?.is_some() {
            self.changed.insert(is_final.clone());
        }
        if newest.is_some_and(|stamp| *stamp > last.block.stamp) {
            // It was there without the journal before it got another stamp.
            return Ok(());
        }
        let is_closed = closed.data && closed.stamps.contains(&last.block.stamp);
        match last.fact {
            Fact::Final => self.close(last, (&rbw, &open), (&is_final, &closed)),
            Fact::Removed => {
                self.remove(id, &rbw, &open)?;
                self.remove(id, &is_final, &closed)
            }
            // It was synced before it got there.
            _ if is_closed => Ok(()),
            _ => {
                let same = |record: &&Record<'_>| record.block.stamp == last.block.stamp;
                let records: Vec<&Record<'_>> = records.iter().filter(same).collect();
                let elsewhere = closed.stamps.contains(&last.block.stamp);
                let sums_in = if elsewhere { &is_final } else { &rbw };
                self.write(&records, (&rbw, &open), sums_in)
            }
        }
    }

    /// What is left in a folder of a replica that was removed.
    fn remove(&self, id: BlockId, folder: &Path, here: &Here) -> io::Result<()> {
        let data = here.data.then(|| data_name(id));
        let metas = here.stamps.iter().map(|stamp| meta_name(&Block { id, stamp: *stamp, length: 0 }));
        data.into_iter().chain(metas).try_for_each(|name| self.volume.disk.remove_file(&folder.join(name)))
    }

    fn look(&mut self, folder: &Path, id: BlockId) -> io::Result<Here> {
        if !self.folders.contains_key(folder) {
            let found = match names(&*self.volume.disk, folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Names::new(),
                found => found?,
            };
            self.folders.insert(folder.to_owned(), found);
        }
        let (data, metas) = self.folders[folder].get(&id).cloned().unwrap_or_default();
        Ok(Here { data: data.is_some(), stamps: metas.iter().map(|(stamp, _)| GenStamp(*stamp)).collect() })
    }

    /// A replica that is final: its record has all of it.
    fn close(
        &mut self,
        record: &Record<'_>,
        (rbw, open): (&Path, &Here),
        (folder, closed): (&Path, &Here),
    ) -> io::Result<()> {
        self.volume.ensure_folder(folder)?;
        let disk = &*self.volume.disk;
        let block = record.block;
        let sums = disk.open(&folder.join(meta_name(&block)), Open::Create)?;
        let mut bytes = meta::encode(record.checksum).to_vec();
        bytes.extend_from_slice(record.sums);
        put(&*sums, &bytes)?;
        let data = disk.open(&folder.join(data_name(block.id)), Open::Create)?;
        put(&*data, record.data)?;
        self.wrote([data, sums]);
        let older = closed.stamps.iter().filter(|stamp| **stamp != block.stamp);
        older
            .map(|stamp| (folder, *stamp))
            .chain(open.stamps.iter().map(|stamp| (rbw, *stamp)))
            .try_for_each(|(folder, stamp)| {
                disk.remove_file(&folder.join(meta_name(&Block { stamp, ..block })))
            })?;
        if open.data {
            disk.remove_file(&rbw.join(data_name(block.id)))?;
        }
        self.changed.insert(folder.to_owned());
        Ok(())
    }

    /// An open replica, of which the records have what was synced since it was last synced where it lies.
    fn write(
        &mut self,
        records: &[&Record<'_>],
        (rbw, open): (&Path, &Here),
        sums_in: &Path,
    ) -> io::Result<()> {
        let first = records[0];
        let disk = &*self.volume.disk;
        let (data_path, meta_path) =
            (rbw.join(data_name(first.block.id)), sums_in.join(meta_name(&first.block)));
        let there = open.data && disk.look(&meta_path)?.is_some();
        if !there && first.start > 0 {
            // What it goes on from was removed, and the power failed before the journal knew.
            tracing::info!(block = %first.block, "the journal has its end, and the disk no beginning: it was deleted");
            return Ok(());
        }
        for stamp in open.stamps.iter().filter(|stamp| **stamp != first.block.stamp) {
            disk.remove_file(&rbw.join(meta_name(&Block { stamp: *stamp, ..first.block })))?;
        }
        let meta = disk.open(&meta_path, Open::Create)?;
        let data = disk.open(&data_path, Open::Create)?;
        if !there {
            data.set_length(0)?;
            meta.set_length(0)?;
        }
        for (at, record) in records.iter().enumerate() {
            let next = records.get(at + 1).map(|record| record.start);
            if !again(record, &*data, &*meta, next)? {
                tracing::warn!(block = %record.block, start = record.start, "the journal goes on behind its end");
                break;
            }
        }
        self.wrote([data, meta]);
        Ok(())
    }

    fn wrote(&mut self, files: [FileRef; 2]) {
        if self.one_by_one {
            self.written.extend(files);
        }
    }
}

/// Replaces what a file holds.
fn put(file: &dyn DiskFile, bytes: &[u8]) -> io::Result<()> {
    file.set_length(bytes.len() as u64)?;
    file.write_all_at(bytes, 0)
}

/// Writes what a record has; whether the files reach to where it begins. `next` is where the one after it begins.
fn again(
    record: &Record<'_>,
    data: &dyn DiskFile,
    meta: &dyn DiskFile,
    next: Option<u64>,
) -> io::Result<bool> {
    let (checksum, start, end) = (record.checksum, record.start, record.block.length);
    let reaches = data.length()? >= start && meta.length()? >= meta::file_length(checksum, start);
    if start > 0 && !reaches {
        return Ok(false);
    }
    meta.write_all_at(&meta::encode(checksum), 0)?;
    let partial = checksum.chunk_start(end);
    let full = (partial - start) as usize;
    let full_sums = full / checksum.bytes_per_chunk() as usize * SUM_LENGTH;
    data.write_all_at(&record.data[..full], start)?;
    meta.write_all_at(&record.sums[..full_sums], sum_at(checksum, start))?;
    // The same chunk comes again, longer. There may be thousands of those, and the chunk may be long on the disk.
    if partial == end || next.is_some_and(|next| next <= partial) {
        return Ok(true);
    }
    let further = further(checksum, partial, (end - partial) as usize, data, meta)?;
    match further {
        Some((bytes, sum)) => {
            data.write_all_at(&bytes, partial)?;
            meta.write_all_at(&sum, sum_at(checksum, partial))?;
        }
        None => {
            data.write_all_at(&record.data[full..], partial)?;
            meta.write_all_at(&record.sums[full_sums..], sum_at(checksum, partial))?;
            if next.is_none() {
                // Nothing behind it was promised, and the checksum is not that of a longer chunk.
                data.set_length(end)?;
                meta.set_length(meta::file_length(checksum, end))?;
            }
        }
    }
    Ok(true)
}

/// What the disk has of the chunk at `start`, with its checksum, if that goes at least as far as `least` bytes.
fn further(
    checksum: Checksum,
    start: u64,
    least: usize,
    data: &dyn DiskFile,
    meta: &dyn DiskFile,
) -> io::Result<Option<(Vec<u8>, [u8; SUM_LENGTH])>> {
    let at = sum_at(checksum, start);
    let have = data.length()?.saturating_sub(start).min(u64::from(checksum.bytes_per_chunk()));
    if (have as usize) < least
        || meta.length()? < at + SUM_LENGTH as u64
        || checksum.kind() == ChecksumKind::Null
    {
        return Ok(None);
    }
    let (mut bytes, mut sum) = (vec![0; have as usize], [0; SUM_LENGTH]);
    data.read_exact_at(&mut bytes, start)?;
    meta.read_exact_at(&mut sum, at)?;
    let fits = longest_match(checksum.kind(), &bytes, u32::from_be_bytes(sum));
    bytes.truncate(fits);
    Ok((fits >= least).then_some((bytes, sum)))
}
