//! Markers of replicas whose writers wait for a restart of this node (HDFS: `BlockReceiver`, `BlockPoolSlice`): after
//! an orderly restart within the time a marker grants, such a replica is one that is being written as before, and
//! its pipeline goes on.
//!
//! A marker is `current/rbw:.blk_<id>.restart`, in HDFS's place, and holds the time in milliseconds at which it
//! expires, as text, and behind it which run of the machine it was written in. After a power loss it holds for nothing:
//! what is left of the replica may be less than what was acknowledged. HDFS reads the time alone, and leaves no more.

use std::io;
use std::path::{Path, PathBuf};

use mobula_disk::{Disk, Open, read_file};
use mobula_types::BlockId;

/// How long the marker of a restart holds (HDFS: `dfs.datanode.restart.replica.expiration`, 50 s).
pub(crate) const RESTART_MS_MAX: u64 = 50_000;
/// Longest marker that is read, in bytes.
const MARKER_BYTES_MAX: u64 = 256;

/// Where the marker of a block lies whose files are in `rbw`.
fn path(rbw: &Path, id: BlockId) -> PathBuf {
    let mut path = rbw.as_os_str().to_owned();
    path.push(format!(":.{id}.restart"));
    PathBuf::from(path)
}

/// Leaves a marker. Not synced, as the replica is not.
pub(crate) fn mark(disk: &dyn Disk, rbw: &Path, id: BlockId, now_ms: u64) -> io::Result<()> {
    let text = format!("{} {}", now_ms + RESTART_MS_MAX, disk.boot());
    let file = disk.open(&path(rbw, id), Open::Create)?;
    file.set_length(0)?;
    file.write_all_at(text.as_bytes(), 0)
}

/// Removes a block's marker, if there is one; whether it was still good.
pub(crate) fn take(disk: &dyn Disk, rbw: &Path, id: BlockId, now_ms: u64) -> io::Result<bool> {
    let path = path(rbw, id);
    let bytes = match read_file(disk, &path, MARKER_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        // Not ours, whatever it is: it says nothing.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
        Err(error) => return Err(error),
    };
    disk.remove_file(&path)?;
    let mut words = std::str::from_utf8(&bytes).unwrap_or_default().split_whitespace();
    let until = words.next().and_then(|until| until.parse::<u64>().ok());
    let same_run = words.next().is_none_or(|boot| boot == disk.boot());
    Ok(same_run && until.is_some_and(|until| now_ms <= until && until <= now_ms + RESTART_MS_MAX))
}
