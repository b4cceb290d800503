//! Syncs of replicas, whose failure is final (STYLE 22): what one was to make durable may be gone although it can still
//! be read, and a second one would succeed without it. So the error says that it was a sync, and
//! [`crate::store::Store::examine`] takes the volume out of use, whatever a probe of it would say.

use std::io;
use std::path::Path;

use mobula_disk::{Disk, DiskFile, is_shortage};

/// The error inside an [`io::Error`] of its kind.
#[derive(Debug, thiserror::Error)]
#[error("a sync failed: {0}")]
struct SyncFailed(io::Error);

fn failed(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), SyncFailed(error))
}

/// Whether it was a sync that failed.
pub(crate) fn is_failed_sync(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SyncFailed>())
}

/// Makes a file's bytes and length durable.
pub(crate) fn sync_file(file: &dyn DiskFile) -> io::Result<()> {
    file.sync_data().map_err(failed)
}

/// Makes the names in a folder durable. A shortage is no failed sync: the folder could not be opened.
pub(crate) fn sync_folder(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    disk.sync_folder(folder).map_err(|error| if is_shortage(&error) { error } else { failed(error) })
}
