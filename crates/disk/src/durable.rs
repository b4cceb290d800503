//! Small files that are either the old or the new one after a crash, never a mixture.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Disk, Open};

/// Replaces the file at `path` by `bytes`, durably: written under another name, synced, renamed,
/// folder synced. What was at `path` stays whole until then. The other name is `path` with `.tmp`
/// appended; it is overwritten if it was left by a crash.
///
/// # Errors
/// Whatever the disk says; the file is then the old one, or the new one whose durability is unknown.
pub fn write_file_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let tmp = PathBuf::from(name);
    let file = disk.open(&tmp, Open::Create)?;
    file.set_length(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    drop(file);
    disk.rename(&tmp, path)?;
    disk.sync_folder(folder)
}

/// All of a file, unless it is longer than `length_max` bytes.
///
/// # Errors
/// `NotFound`, `InvalidData` if it is longer, and whatever the disk says.
pub fn read_file(disk: &dyn Disk, path: &Path, length_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let length = file.length()?;
    if length > length_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {length} bytes, more than the {length_max} it may have", path.display()),
        ));
    }
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Makes a folder and those above it that are missing, and makes their names durable.
///
/// # Errors
/// Whatever the disk says.
pub fn create_folder_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = Some(path);
    while let Some(folder) = at {
        if folder.as_os_str().is_empty() || disk.look(folder)?.is_some() {
            break;
        }
        missing.push(folder);
        at = folder.parent();
    }
    disk.create_folder(path)?;
    for folder in missing.iter().rev() {
        disk.sync_folder(folder_of(folder)?)?;
    }
    Ok(())
}

/// Makes the names of a folder and of those above it durable that was found and not made: a process that was killed
/// may have made it, and synced nothing.
///
/// # Errors
/// Whatever the disk says. A folder that cannot be read or changed, or whose file system knows no such sync, has no names
/// that are new, and is passed over.
pub fn sync_names_above(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    let mut at = path;
    while let Ok(folder) = folder_of(at) {
        match disk.sync_folder(folder) {
            Err(error)
                if matches!(
                    error.kind(),
                    InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported
                ) => {}
            synced => synced?,
        }
        if folder == Path::new(".") {
            break;
        }
        at = folder;
    }
    Ok(())
}

/// The folder that names `path`; `.` for a bare name.
fn folder_of(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: has no folder above it", path.display()),
        )),
    }
}
