//! Markers of replicas whose writers wait for a restart of this node (HDFS: `BlockReceiver`, `BlockPoolSlice`): after
//! an orderly restart within the time a marker grants, such a replica is one that is being written as before, and
//! its pipeline goes on.
//!
//! A marker is `current/rbw:.blk_<id>.restart`, in HDFS's place, and holds the time in milliseconds at which it
//! expires, as text.

use std::io;
use std::path::{Path, PathBuf};

use mobula_disk::{Disk, Open, read_file};
use mobula_types::BlockId;

/// How long the marker of a restart holds (HDFS: `dfs.datanode.restart.replica.expiration`, 50 s).
pub(crate) const RESTART_MS_MAX: u64 = 50_000;
/// Longest marker that is read, in bytes.
const MARKER_BYTES_MAX: u64 = 64;

/// Where the marker of a block lies whose files are in `rbw`.
fn path(rbw: &Path, id: BlockId) -> PathBuf {
    let mut path = rbw.as_os_str().to_owned();
    path.push(format!(":.{id}.restart"));
    PathBuf::from(path)
}

/// Leaves a marker. Not synced: after a power loss nobody's pipeline goes on.
pub(crate) fn mark(disk: &dyn Disk, rbw: &Path, id: BlockId, now_ms: u64) -> io::Result<()> {
    let text = (now_ms + RESTART_MS_MAX).to_string();
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
    let until = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u64>().ok());
    Ok(until.is_some_and(|until| now_ms <= until && until <= now_ms + RESTART_MS_MAX))
}
