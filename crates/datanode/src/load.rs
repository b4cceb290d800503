//! What is found on a volume at start becomes replicas: final ones as they lie, those that were being
//! written as far as their checksums reach, copies that were coming in not at all
//! (HDFS: `BlockPoolSlice.getVolumeMap`, `validateIntegrityAndSetLength`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use mobula_disk::{Disk, Kind, Open};
use mobula_types::{Block, BlockId, GenStamp, PoolId};
use mobula_wire::checksum::{Checksum, ChecksumKind, SUM_LENGTH};
use mobula_wire::meta::{self, META_HEADER_LENGTH};

use crate::replica::{FinalReplica, WaitingReplica};
use crate::store::{Replica, disk_bytes};
use crate::volume::{BlockFile, VolumeRef, data_name, meta_name};

/// All replicas of the pool on the volume; empties `tmp`.
pub(crate) fn load(volume: &VolumeRef, pool: &PoolId) -> io::Result<Vec<Replica>> {
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
    let mut found = Vec::new();
    load_final(volume, pool, &mut found)?;
    load_waiting(volume, pool, &mut found)?;
    Ok(found)
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

/// Data files with their length, and the stamps of their meta files, of one folder.
type Names = BTreeMap<BlockId, (Option<u64>, Vec<(u64, u64)>)>;

fn names(disk: &dyn Disk, folder: &Path) -> io::Result<Names> {
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

fn load_final(volume: &VolumeRef, pool: &PoolId, found: &mut Vec<Replica>) -> io::Result<()> {
    let disk = &*volume.disk;
    let top = volume.pool_folder(pool).join("current/finalized");
    let mut folders = vec![top];
    while let Some(folder) = folders.pop() {
        let entries = disk.list(&folder)?;
        let below = entries.iter().filter(|entry| entry.kind == Kind::Folder);
        folders.extend(below.map(|entry| folder.join(&entry.name)));
        for (id, (length, metas)) in names(disk, &folder)? {
            let (Some(length), Some(&(stamp, meta_length))) = (length, metas.iter().max()) else {
                tracing::warn!(block = %id, folder = %folder.display(), "data or checksums are missing: not used");
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

fn load_waiting(volume: &VolumeRef, pool: &PoolId, found: &mut Vec<Replica>) -> io::Result<()> {
    let disk = &*volume.disk;
    let folder = volume.rbw_folder(pool);
    for (id, (length, metas)) in names(disk, &folder)? {
        let (Some(length), Some(&(stamp, _))) = (length, metas.iter().max()) else {
            // A crash while it was begun or renamed; nothing in it was acknowledged, or it is final.
            for (stamp, _) in metas {
                let block = Block { id, stamp: GenStamp(stamp), length: 0 };
                disk.remove_file(&folder.join(meta_name(&block)))?;
            }
            continue;
        };
        let block = Block { id, stamp: GenStamp(stamp), length };
        let Some((length, checksum)) = valid_length(disk, &folder, &block)? else {
            tracing::warn!(block = %id, "its checksums cannot be read: not used");
            continue;
        };
        volume.add_used(disk_bytes(checksum, length));
        let block = Block { length, ..block };
        found.push(Replica::Waiting(WaitingReplica { block, volume: volume.clone() }));
    }
    Ok(())
}

/// Cuts a replica to what its checksums prove, and says how long that is; none if they say nothing.
/// The last chunk may have grown after its checksum was written: the longest beginning of it that the
/// checksum fits stays, since that is what was acknowledged.
fn valid_length(disk: &dyn Disk, folder: &Path, block: &Block) -> io::Result<Option<(u64, Checksum)>> {
    let data = disk.open(&folder.join(data_name(block.id)), Open::ReadWrite)?;
    let sums = disk.open(&folder.join(meta_name(block)), Open::ReadWrite)?;
    let mut header = [0; META_HEADER_LENGTH];
    let meta_length = sums.length()?;
    if meta_length < META_HEADER_LENGTH as u64 {
        return Ok(None);
    }
    sums.read_exact_at(&mut header, 0)?;
    let Ok(checksum) = meta::decode(&header) else { return Ok(None) };
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

/// Length of the longest beginning of `bytes` that has the checksum; 0 for none.
fn longest_match(kind: ChecksumKind, bytes: &[u8], sum: u32) -> usize {
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
