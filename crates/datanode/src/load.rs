//! What is found on a volume at start becomes replicas: final ones as they lie, those that were being
//! written as far as their checksums reach, copies that were coming in not at all
//! (HDFS: `BlockPoolSlice.getVolumeMap`, `validateIntegrityAndSetLength`). One that cannot be read is left alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use mobula_disk::{Disk, DiskFile, Kind, Open};
use mobula_types::{Block, BlockId, GenStamp, PoolId};
use mobula_wire::checksum::{Checksum, ChecksumKind, SUM_LENGTH};
use mobula_wire::meta::{self, META_HEADER_LENGTH};

use crate::files::{Files, UNLINKED, longest_match};
use crate::reopen::open_in_place;
use crate::replica::{FinalReplica, Replica, WaitingReplica};
use crate::restart;
use crate::store::disk_bytes;
use crate::volume::{BlockFile, VolumeRef, data_name, meta_name};

/// What is found on a volume.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub replicas: Vec<Replica>,
    /// Open replicas that cannot be read now. Nobody knows what they have.
    pub unreadable: Vec<BlockId>,
}

/// All replicas of the pool on the volume; empties `tmp`.
pub(crate) fn load(volume: &VolumeRef, pool: &PoolId, now_ms: u64) -> io::Result<Loaded> {
    let disk = &*volume.disk;
    let base = volume.pool_folder(pool);
    empty(disk, &volume.tmp_folder(pool))?;
    // Apache's caches: a later start of theirs would believe them without looking.
    for name in ["current/replicas", "current/dfsUsed"] {
        match disk.remove_file(&base.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let rbw = volume.rbw_folder(pool);
    finish_copies(disk, &rbw)?;
    let mut open = names(disk, &rbw)?;
    let mut loaded = Loaded::default();
    load_final(volume, pool, &mut open, &mut loaded.replicas)?;
    load_waiting(volume, &rbw, open, now_ms, &mut loaded);
    Ok(loaded)
}

/// Ends what was cut short when a file was to be copied because it has other names: the file is still there, unless
/// the copy was whole and had to take its place (HDFS: `DatanodeUtil`, `.unlinked`).
fn finish_copies(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    for entry in disk.list(folder)? {
        let Some(name) = entry.name.to_str().filter(|_| entry.kind == Kind::File) else { continue };
        let Some(original) = name.strip_suffix(UNLINKED) else { continue };
        let (copy, original) = (folder.join(name), folder.join(original));
        if disk.look(&original)?.is_some() {
            disk.remove_file(&copy)?;
        } else {
            disk.rename(&copy, &original)?;
        }
    }
    Ok(())
}

fn empty(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    for entry in disk.list(folder)? {
        let path = folder.join(&entry.name);
        match entry.kind {
            Kind::Folder => disk.remove_folder(&path)?,
            _ => disk.remove_file(&path)?,
        }
    }
    Ok(())
}

/// The length of a block's data file, and stamps and lengths of its meta files.
pub(crate) type FoundFiles = (Option<u64>, Vec<(u64, u64)>);

/// Those of one folder.
pub(crate) type Names = BTreeMap<BlockId, FoundFiles>;

/// What a folder has of blocks.
///
/// # Errors
/// `NotFound`, and whatever the disk says.
pub(crate) fn names(disk: &dyn Disk, folder: &Path) -> io::Result<Names> {
    let mut names = Names::new();
    for entry in disk.list(folder)? {
        match BlockFile::parse(&entry) {
            Some(BlockFile::Data(id)) => names.entry(id).or_default().0 = Some(entry.length),
            Some(BlockFile::Meta(id, stamp)) => names.entry(id).or_default().1.push((stamp, entry.length)),
            None => {}
        }
    }
    Ok(names)
}

/// `open` are the names of the folder of those that are being written. A step between the two that was cut short
/// is taken back: checksums and data are brought together where the data is.
fn load_final(
    volume: &VolumeRef,
    pool: &PoolId,
    open: &mut Names,
    found: &mut Vec<Replica>,
) -> io::Result<()> {
    let disk = &*volume.disk;
    let rbw = volume.rbw_folder(pool);
    let top = volume.pool_folder(pool).join("current/finalized");
    let mut folders = vec![top];
    while let Some(folder) = folders.pop() {
        let entries = disk.list(&folder)?;
        let below = entries.iter().filter(|entry| entry.kind == Kind::Folder);
        folders.extend(below.map(|entry| folder.join(&entry.name)));
        finish_copies(disk, &folder)?;
        for (id, (length, mut metas)) in names(disk, &folder)? {
            let other = open.get_mut(&id);
            match (length, other) {
                // An append, or a recovery, had moved the checksums only. Or both are what is left of two that were removed.
                (Some(length), Some((None | Some(0), theirs))) if metas.is_empty() => {
                    metas = fitting(disk, &rbw, (id, length), theirs)?;
                    theirs.retain(|meta| !metas.contains(meta));
                    move_metas(disk, &rbw, &folder, id, &metas)?;
                }
                // The replica was about to become final: nobody was told so.
                (None, Some((Some(length), theirs)))
                    if theirs.is_empty()
                        || newest(&fitting(disk, &folder, (id, *length), &metas)?)
                            > newest(&fitting(disk, &rbw, (id, *length), theirs)?) =>
                {
                    move_metas(disk, &folder, &rbw, id, &metas)?;
                    theirs.append(&mut metas);
                    continue;
                }
                _ => {}
            }
            let Some(length) = length else {
                // It was about to be deleted.
                for (stamp, _) in metas {
                    let block = Block { id, stamp: GenStamp(stamp), length: 0 };
                    disk.remove_file(&folder.join(meta_name(&block)))?;
                }
                continue;
            };
            let Some(&(stamp, meta_length)) = metas.iter().max() else {
                tracing::warn!(block = %id, folder = %folder.display(), "its checksums are missing: not used");
                continue;
            };
            if volume.final_folder(pool, id) != folder {
                tracing::warn!(block = %id, folder = %folder.display(), "not where it belongs: not used");
                continue;
            }
            volume.add_used(length + meta_length);
            let block = Block { id, stamp: GenStamp(stamp), length };
            found.push(Replica::Final(FinalReplica { block, volume: volume.clone() }));
        }
    }
    Ok(())
}

/// Those files of checksums that have them for all of a block's data.
fn fitting(
    disk: &dyn Disk,
    folder: &Path,
    (id, length): (BlockId, u64),
    metas: &[(u64, u64)],
) -> io::Result<Vec<(u64, u64)>> {
    let mut fitting = Vec::new();
    for &(stamp, meta_length) in metas {
        let meta =
            disk.open(&folder.join(meta_name(&Block { id, stamp: GenStamp(stamp), length })), Open::Read)?;
        if header(&*meta)?.is_some_and(|kind| meta_length >= meta::file_length(kind, length)) {
            fitting.push((stamp, meta_length));
        }
    }
    Ok(fitting)
}

/// The highest stamp.
fn newest(metas: &[(u64, u64)]) -> Option<u64> {
    metas.iter().map(|(stamp, _)| *stamp).max()
}

/// Whether not even the beginning of a file of checksums has reached the disk.
fn is_blank(file: &dyn DiskFile) -> io::Result<bool> {
    let mut header = [0; META_HEADER_LENGTH];
    let length = header.len().min(file.length()? as usize);
    file.read_exact_at(&mut header[..length], 0)?;
    Ok(length < header.len() || header == [0; META_HEADER_LENGTH])
}

/// What kind of checksums a file has; none if it does not say.
fn header(file: &dyn DiskFile) -> io::Result<Option<Checksum>> {
    let mut header = [0; META_HEADER_LENGTH];
    if file.length()? < META_HEADER_LENGTH as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut header, 0)?;
    Ok(meta::decode(&header).ok())
}

/// Moves files of checksums from one folder to the other, durably.
fn move_metas(disk: &dyn Disk, from: &Path, to: &Path, id: BlockId, metas: &[(u64, u64)]) -> io::Result<()> {
    for (stamp, _) in metas {
        let name = meta_name(&Block { id, stamp: GenStamp(*stamp), length: 0 });
        disk.rename(&from.join(&name), &to.join(&name))?;
    }
    disk.sync_folder(to)
}

/// A sector that cannot be read is the end of one replica, not of all that the disk has
/// (HDFS: `BlockPoolSlice.validateIntegrityAndSetLength`, which then takes it for an empty one).
fn load_waiting(volume: &VolumeRef, folder: &Path, open: Names, now_ms: u64, loaded: &mut Loaded) {
    for (id, files) in open {
        match load_one(volume, folder, id, files, now_ms) {
            Ok(replica) => loaded.replicas.extend(replica),
            Err(error) => {
                tracing::error!(block = %id, %error, "an open replica cannot be read: not used, its files stay");
                loaded.unreadable.push(id);
            }
        }
    }
}

/// The replica of that name in the folder of those that were being written, if it is one.
fn load_one(
    volume: &VolumeRef,
    folder: &Path,
    id: BlockId,
    (length, metas): FoundFiles,
    now_ms: u64,
) -> io::Result<Option<Replica>> {
    let disk = &*volume.disk;
    let goes_on = restart::take(disk, folder, id, now_ms)?;
    let mut newest = None;
    // A crash while it was begun: nothing in it was acknowledged, and it would be taken for a part of what comes.
    for (stamp, _) in metas {
        let path = folder.join(meta_name(&Block { id, stamp: GenStamp(stamp), length: 0 }));
        if length.is_none() || is_blank(&*disk.open(&path, Open::Read)?)? {
            disk.remove_file(&path)?;
        } else {
            newest = newest.max(Some(stamp));
        }
    }
    let (Some(length), Some(stamp)) = (length, newest) else {
        return length.map_or(Ok(()), |_| disk.remove_file(&folder.join(data_name(id)))).map(|()| None);
    };
    let block = Block { id, stamp: GenStamp(stamp), length };
    let Some((length, checksum)) = valid_length(disk, folder, &block)? else {
        tracing::warn!(block = %id, "its checksums cannot be read: not used");
        return Ok(None);
    };
    let block = Block { length, ..block };
    if goes_on {
        let files = Files::open(disk, folder, &block)?;
        let last_sum = files.sum_of_last(length)?;
        let open = open_in_place(block, volume, folder.to_owned(), files, last_sum);
        return Ok(Some(Replica::Open(open.growing().clone())));
    }
    volume.add_used(disk_bytes(checksum, length));
    Ok(Some(Replica::Waiting(WaitingReplica { block, volume: volume.clone() })))
}

/// Cuts a replica to what its checksums prove, and says how long that is; none if they say nothing.
/// The last chunk may have grown after its checksum was written: the longest beginning of it that the
/// checksum fits stays, since that is what was acknowledged.
fn valid_length(disk: &dyn Disk, folder: &Path, block: &Block) -> io::Result<Option<(u64, Checksum)>> {
    let data = disk.open(&folder.join(data_name(block.id)), Open::ReadWrite)?;
    let sums = disk.open(&folder.join(meta_name(block)), Open::ReadWrite)?;
    let Some(checksum) = header(&*sums)? else { return Ok(None) };
    let meta_length = sums.length()?;
    let length = data.length()?;
    if checksum.kind() == ChecksumKind::Null {
        return Ok(Some((length, checksum)));
    }
    let chunk = u64::from(checksum.bytes_per_chunk());
    let chunks = ((meta_length - META_HEADER_LENGTH as u64) / SUM_LENGTH as u64).min(checksum.chunks(length));
    let mut valid = 0;
    if chunks > 0 {
        let start = (chunks - 1) * chunk;
        let mut bytes = vec![0; (length - start).min(chunk) as usize];
        data.read_exact_at(&mut bytes, start)?;
        let mut sum = [0; SUM_LENGTH];
        sums.read_exact_at(&mut sum, META_HEADER_LENGTH as u64 + (chunks - 1) * SUM_LENGTH as u64)?;
        valid = start + longest_match(checksum.kind(), &bytes, u32::from_be_bytes(sum)) as u64;
    }
    if valid < length {
        data.set_length(valid)?;
    }
    sums.set_length(meta::file_length(checksum, valid))?;
    Ok(Some((valid, checksum)))
}
