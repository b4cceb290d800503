//! How much room there is for the log and the tables (HDFS: `NameNodeResourceChecker`).
//!
//! HDFS looks every five seconds. Here whoever writes looks, too, if nobody has for a moment or much was written since:
//! the room that is kept free is then still there for what is in the log already and comes into the tables. Knows
//! nothing of safe mode.

use std::io;
use std::path::PathBuf;

use mobula_disk::{DiskRef, Pool};
use mobula_types::Millis;
use parking_lot::Mutex;

/// Before a batch is written, the last look is no older than this...
const LOOK_MS_MAX: Millis = Millis(100);
/// ... and so many bytes of commands at most were written since.
const LOOK_BYTES_MAX: usize = 1 << 20;
/// There is room to spare when so many segments of the log fit in beside the reserve: the one that is made next, and one
/// to write until the log is cut. Where one byte decided, what is written after safe mode would bring it back at once.
const SPARE_SEGMENTS: u64 = 2;

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Less than is kept free, or a folder that cannot be looked at (HDFS: `File.getUsableSpace`).
    Low,
    /// As much as is kept free.
    Enough,
    /// And [`SPARE_SEGMENTS`] beside it.
    Ample,
}

/// The room, and when it was looked at.
#[derive(Debug)]
pub struct Room {
    disk: DiskRef,
    folders: Vec<PathBuf>,
    /// Bytes that must be free; 0: whatever there is will do.
    reserved: u64,
    /// Bytes with which there is some to spare.
    ample: u64,
    /// `statvfs` of a network's file system may block.
    pool: Pool,
    last: Mutex<Look>,
}

#[derive(Debug, Default)]
struct Look {
    at: Millis,
    bytes_since: usize,
}

impl Room {
    /// The room of those folders, of which `reserved` bytes are to be free. Segments of the log have `segment_bytes`.
    pub fn new(disk: DiskRef, folders: Vec<PathBuf>, reserved: u64, segment_bytes: u64) -> Room {
        let pool = disk.pool("namenode-room", 1);
        let ample = reserved.saturating_add(SPARE_SEGMENTS.saturating_mul(segment_bytes));
        Room { disk, folders, reserved, ample, pool, last: Mutex::default() }
    }

    /// Whether it must be looked at before so many bytes are written; they count as written.
    pub fn is_due(&self, now: Millis, bytes: usize) -> bool {
        if self.reserved == 0 {
            return false;
        }
        let mut last = self.last.lock();
        last.bytes_since = last.bytes_since.saturating_add(bytes);
        last.bytes_since > LOOK_BYTES_MAX || now.since(last.at) > LOOK_MS_MAX
    }

    /// Looks.
    pub async fn look(&self, now: Millis) -> Found {
        *self.last.lock() = Look { at: now, bytes_since: 0 };
        if self.reserved == 0 {
            return Found::Ample;
        }
        let (disk, folders) = (self.disk.clone(), self.folders.clone());
        let looked = move || -> io::Result<u64> {
            let mut least = u64::MAX;
            for folder in folders {
                least = least.min(disk.space(&folder)?.available);
            }
            Ok(least)
        };
        match self.pool.run(looked).await {
            Ok(available) if available >= self.ample => Found::Ample,
            Ok(available) if available >= self.reserved => Found::Enough,
            Ok(available) => {
                tracing::debug!(available, reserved = self.reserved, "the log's disk is low on room");
                Found::Low
            }
            Err(error) => {
                tracing::warn!(%error, "the room of the log's disk cannot be looked at");
                Found::Low
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobula_disk::CrashDisk;

    fn room(disk: &CrashDisk, reserved: u64) -> Room {
        Room::new(disk.process(), vec!["/".into()], reserved, 10)
    }

    #[tokio::test]
    async fn the_reserve_itself_is_enough_and_two_segments_are_to_spare() {
        let disk = CrashDisk::new(1);
        disk.set_capacity(Some(1_000));
        let found = async |reserved| room(&disk, reserved).look(Millis(0)).await;
        assert_eq!(found(980).await, Found::Ample);
        assert_eq!(found(981).await, Found::Enough);
        assert_eq!(found(1_000).await, Found::Enough);
        assert_eq!(found(1_001).await, Found::Low);
        disk.set_capacity(Some(0));
        assert_eq!(found(0).await, Found::Ample, "nothing is to be kept free");
    }

    #[tokio::test]
    async fn a_look_is_due_after_a_moment_or_many_bytes() {
        let room = room(&CrashDisk::new(1), 1);
        assert!(room.look(Millis(1_000)).await != Found::Low);
        assert!(!room.is_due(Millis(1_100), LOOK_BYTES_MAX));
        assert!(room.is_due(Millis(1_100), 1));
        assert!(room.look(Millis(1_100)).await != Found::Low);
        assert!(!room.is_due(Millis(1_200), 1));
        assert!(room.is_due(Millis(1_201), 1));
    }
}
