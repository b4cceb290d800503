//! What the steps between a replica's states do to its files. Blocking: for a volume's pool.
//!
//! Invariants: every step leaves something at every instant that [`crate::load`] makes the old or the new
//! state of, kill or power loss; what a step found wrong with the bytes is an error of kind `InvalidData`, and
//! then it has changed nothing.

use std::io;
use std::path::{Path, PathBuf};

use mobula_disk::{Disk, DiskFile, FileRef, Open};
use mobula_types::{Block, GenStamp};
use mobula_wire::checksum::{Checksum, ChecksumKind, SUM_LENGTH};
use mobula_wire::meta::{self, META_HEADER_LENGTH};

use crate::replica::{OpenFiles, Pen, Progress, SyncNow};
use crate::volume::{data_name, meta_name};

/// What is read at once to verify a whole replica, in bytes of data; a multiple of any chunk that clients use.
const VERIFY_STEP: u64 = 1 << 20;
/// What is copied at once, in bytes.
const COPY_STEP: usize = 1 << 20;
/// Behind the name of a file that is copied because it has another name elsewhere (HDFS: `DatanodeUtil.UNLINK_BLOCK_SUFFIX`).
pub(crate) const UNLINKED: &str = ".unlinked";

/// A replica's files, opened to be written.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub data: FileRef,
    pub meta: FileRef,
    pub checksum: Checksum,
}

fn bad(block: &Block, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{block}: {what}"))
}

impl Files {
    /// Opens the files of `block` in `folder`.
    pub(crate) fn open(disk: &dyn Disk, folder: &Path, block: &Block) -> io::Result<Files> {
        let data = disk.open(&folder.join(data_name(block.id)), Open::ReadWrite)?;
        let meta = disk.open(&folder.join(meta_name(block)), Open::ReadWrite)?;
        let mut header = [0; META_HEADER_LENGTH];
        if meta.length()? < header.len() as u64 {
            return Err(bad(block, "the header of its checksums is cut short"));
        }
        meta.read_exact_at(&mut header, 0)?;
        let checksum = meta::decode(&header).map_err(|error| bad(block, &error.to_string()))?;
        Ok(Files { data, meta, checksum })
    }

    /// Fails unless both files are as long as a replica of `block.length` bytes has them.
    pub(crate) fn check_lengths(&self, block: &Block) -> io::Result<()> {
        let (data, meta) = (self.data.length()?, self.meta.length()?);
        if data == block.length && meta >= meta::file_length(self.checksum, block.length) {
            return Ok(());
        }
        let what = format!("{data} bytes and {meta} of checksums are there, of {} bytes", block.length);
        Err(bad(block, &what))
    }

    /// The stored checksum of the chunk that begins at `start`.
    fn stored_sum(&self, start: u64) -> io::Result<u32> {
        let mut sum = [0; SUM_LENGTH];
        self.meta.read_exact_at(&mut sum, sum_at(self.checksum, start))?;
        Ok(u32::from_be_bytes(sum))
    }

    /// The checksum of the last chunk of a replica of `block.length` bytes, if it is not full; compared
    /// with its bytes (HDFS: `BlockReceiver.computePartialChunkCrc`).
    pub(crate) fn last_sum(&self, block: &Block) -> io::Result<Option<u32>> {
        let Some(computed) = self.sum_of_last(block.length)? else { return Ok(None) };
        let stored = self.stored_sum(self.checksum.chunk_start(block.length))?;
        if computed != stored {
            let what = format!(
                "Partial CRC {computed:#010x} does not match value computed the last time file was closed {stored:#010x}"
            );
            return Err(bad(block, &what));
        }
        Ok(Some(computed))
    }

    /// The checksum that the last chunk of the first `length` bytes has, if it is not full.
    pub(crate) fn sum_of_last(&self, length: u64) -> io::Result<Option<u32>> {
        let start = self.checksum.chunk_start(length);
        if start == length || self.checksum.kind() == ChecksumKind::Null {
            return Ok(None);
        }
        let mut bytes = vec![0; (length - start) as usize];
        self.data.read_exact_at(&mut bytes, start)?;
        Ok(Some(self.checksum.kind().crc(&bytes)))
    }

    /// How far the bytes fit their checksums, up to `length`: what of it was handed to a disk that then lost power.
    pub(crate) fn verified_length(&self, length: u64) -> io::Result<u64> {
        if self.checksum.kind() == ChecksumKind::Null {
            return Ok(length);
        }
        let chunk = u64::from(self.checksum.bytes_per_chunk());
        let step = self.step();
        let mut at = 0;
        while at < length {
            let part = step.min(length - at);
            let (bytes, sums) = self.read(at, part as usize)?;
            if let Err(mismatch) = self.checksum.verify(&bytes, &sums) {
                let start = at + mismatch.chunk as u64 * chunk;
                // More of the chunk may be there than is counted, with its checksum: a write that failed behind it.
                let mut there = vec![0; self.data.length()?.saturating_sub(start).min(chunk) as usize];
                self.data.read_exact_at(&mut there, start)?;
                let fits = longest_match(self.checksum.kind(), &there, mismatch.expected) as u64;
                return Ok(length.min(start + fits));
            }
            at += part;
        }
        Ok(length)
    }

    /// Writes the first `length` bytes and their checksums again as they are. The process before this one may have ended
    /// since a sync of it failed: what can be read is then in memory alone, marked as written, and no later sync would write
    /// it (CASES, 9).
    pub(crate) fn renew(&self, length: u64) -> io::Result<()> {
        copy_bytes(&*self.data, &*self.data, length)?;
        copy_bytes(&*self.meta, &*self.meta, meta::file_length(self.checksum, length))
    }

    /// What is read at once to verify it, in bytes: whole chunks.
    pub(crate) fn step(&self) -> u64 {
        let chunk = u64::from(self.checksum.bytes_per_chunk());
        (VERIFY_STEP / chunk).max(1) * chunk
    }

    /// `length` bytes at a chunk's border and their checksums, as they are stored.
    fn read(&self, at: u64, length: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut bytes = vec![0; length];
        let mut sums = vec![0; self.checksum.sums_length(length as u64) as usize];
        self.data.read_exact_at(&mut bytes, at)?;
        self.meta.read_exact_at(&mut sums, sum_at(self.checksum, at))?;
        Ok((bytes, sums))
    }

    /// `length` bytes at a chunk's border, to another border or the end; `InvalidData` if they do not fit their
    /// checksums.
    pub(crate) fn read_verified(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let (bytes, sums) = self.read(at, length)?;
        let fault = |mismatch| io::Error::new(io::ErrorKind::InvalidData, format!("at {at}: {mismatch}"));
        self.checksum.verify(&bytes, &sums).map_err(fault)?;
        Ok(bytes)
    }
}

/// Where the checksum of the chunk that begins at `start` lies in the meta file.
pub(crate) fn sum_at(checksum: Checksum, start: u64) -> u64 {
    META_HEADER_LENGTH as u64 + start / u64::from(checksum.bytes_per_chunk()) * SUM_LENGTH as u64
}

/// Length of the longest beginning of `bytes` that has the checksum; 0 for none. The data of a chunk may have
/// grown after its checksum was written: that beginning is what was acknowledged.
pub(crate) fn longest_match(kind: ChecksumKind, bytes: &[u8], sum: u32) -> usize {
    if kind.crc(bytes) == sum {
        return bytes.len();
    }
    let (mut crc, mut longest) = (0, 0);
    for (index, byte) in bytes.iter().enumerate() {
        crc = kind.append(crc, std::slice::from_ref(byte));
        if crc == sum {
            longest = index + 1;
        }
    }
    longest
}

/// Cuts an open replica to `length`, durably, and its last checksum with it.
///
/// At every instant the checksums are those of the whole old replica, or of full chunks up to a border at or
/// behind `length`, or of a beginning of the data, which [`longest_match`] finds. A failure in the middle leaves it counted as
/// long as its checksums reach then, with more data behind.
pub(crate) fn cut(pen: &Pen, length: u64) -> io::Result<()> {
    let growing = pen.growing();
    let (checksum, Progress { on_disk, last_sum, .. }) = (growing.checksum, growing.progress());
    let OpenFiles { data, meta } = growing.files()?;
    let files = Files { data, meta, checksum };
    let (start, chunk) = (checksum.chunk_start(length), u64::from(checksum.bytes_per_chunk()));
    let chunk_end = on_disk.min(start + chunk);
    // Of the chunk in which it will end: as it is, and as it will be.
    let sums = if start == length || checksum.kind() == ChecksumKind::Null {
        None
    } else {
        let mut bytes = vec![0; (chunk_end - start) as usize];
        files.data.read_exact_at(&mut bytes, start)?;
        let known = last_sum.filter(|_| chunk_end == on_disk);
        let stored = known.map_or_else(|| files.stored_sum(start), Ok)?;
        if checksum.kind().crc(&bytes) != stored {
            return Err(bad(&growing.block, "the chunk that is to be cut does not fit its checksum"));
        }
        Some((stored, checksum.kind().crc(&bytes[..(length - start) as usize])))
    };
    let meta_length = meta::file_length(checksum, length);
    // A write that failed halfway may have left more than is counted.
    let as_is = length == on_disk && files.data.length()? == length && files.meta.length()? == meta_length;
    if !as_is {
        files.data.sync_data()?;
        files.meta.set_length(meta_length)?;
        match sums {
            Some((stored, _)) => {
                pen.cut(chunk_end, Some(stored).filter(|_| !chunk_end.is_multiple_of(chunk)))
            }
            None => pen.cut(length, None),
        }
    }
    if let Some((_, sum)) = sums {
        files.meta.write_all_at(&sum.to_be_bytes(), sum_at(checksum, start))?;
    }
    if !as_is {
        files.meta.sync_data()?;
        pen.cut(length, sums.map(|(_, sum)| sum));
        files.data.set_length(length)?;
        files.data.sync_data()?;
    }
    Ok(())
}

/// Gives a replica another stamp: its meta file's name. A shortage has changed nothing.
pub(crate) fn restamp(
    disk: &dyn Disk,
    folder: &Path,
    block: &Block,
    stamp: GenStamp,
    sync: SyncNow,
) -> io::Result<()> {
    if block.stamp != stamp {
        let next = Block { stamp, ..*block };
        let names = (sync == SyncNow::Yes).then(|| disk.open_folder(folder)).transpose()?;
        disk.rename(&folder.join(meta_name(block)), &folder.join(meta_name(&next)))?;
        if let Some(names) = names {
            names.sync_names()?;
        }
    }
    Ok(())
}

/// Moves both files of a replica, durably, under the names that they have. A shortage has changed nothing: what the
/// syncs need is taken first.
pub(crate) fn move_both(disk: &dyn Disk, from: &Path, to: &Path, block: &Block) -> io::Result<()> {
    let folders = [disk.open_folder(to)?, disk.open_folder(from)?];
    move_names(disk, from, to, block)?;
    folders.iter().try_for_each(|folder| folder.sync_names())
}

/// Moves both files of a replica, not durably. Checksums first: those in the new folder without data, and data in
/// the old one without checksums, tell what was under way. A shortage has changed nothing.
pub(crate) fn move_names(disk: &dyn Disk, from: &Path, to: &Path, block: &Block) -> io::Result<()> {
    let (meta, data) = (meta_name(block), data_name(block.id));
    disk.rename(&from.join(&meta), &to.join(&meta))?;
    let Err(error) = disk.rename(&from.join(&data), &to.join(&data)) else { return Ok(()) };
    // Were it left like that, the two would be apart: that is no shortage any more.
    let apart = |back| io::Error::other(format!("{error}, and the checksums do not go back: {back}"));
    disk.rename(&to.join(&meta), &from.join(&meta)).map_err(apart)?;
    Err(error)
}

/// Replaces a file that has other names, too, by a copy of its own: appending must not change what an upgrade or
/// a snapshot of the disk has kept (HDFS: `LocalReplica.breakHardLinksIfNeeded`).
pub(crate) fn unlink(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let file = disk.open(path, Open::Read)?;
    if file.links()? < 2 {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(UNLINKED);
    let copy = PathBuf::from(name);
    let target = disk.open(&copy, Open::Create)?;
    target.set_length(0)?;
    copy_bytes(&*file, &*target, file.length()?)?;
    target.sync_data()?;
    drop((file, target));
    disk.rename(&copy, path)
}

/// Copies the first `length` bytes; onto themselves, they are written again.
pub(crate) fn copy_bytes(from: &dyn DiskFile, to: &dyn DiskFile, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_STEP.min(length as usize)];
    let mut at = 0;
    while at < length {
        let part = buffer.len().min((length - at) as usize);
        from.read_exact_at(&mut buffer[..part], at)?;
        to.write_all_at(&buffer[..part], at)?;
        at += part as u64;
    }
    Ok(())
}
