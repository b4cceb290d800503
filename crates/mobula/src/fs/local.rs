//! The local file system as the shell sees it.
//!
//! Its calls block: they are short (the page cache), a hop to another thread would cost more than
//! most of them, and the shell runs on real files only, never in the simulator.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

use super::address;
use super::directory::DIRECTORY_MODE;
use super::failure::{Failure, Outcome};
use super::local_sums;
use super::status::{Kind, Status};

/// What Hadoop says of local files' blocks (`fs.local.block.size`).
const BLOCK_SIZE: u64 = 32 << 20;

/// Bits of a new file before the umask.
const FILE_MODE: u16 = 0o666;

/// The machine's files.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    umask: u16,
}

impl Local {
    /// Local files; `umask` is taken from the bits of what is made.
    pub fn new(umask: u16) -> Local {
        Local { umask }
    }

    /// Where relative paths begin.
    pub fn home(&self) -> String {
        std::env::current_dir().map_or_else(|_| "/".into(), |path| path.to_string_lossy().into_owned())
    }

    /// The status, `None` if there is nothing. Symbolic links are followed.
    pub fn status(&self, path: &str) -> Outcome<Option<Status>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(status_of(String::new(), &metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A file where a directory should be: nothing can be there.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            // A link to itself.
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => Ok(None),
            Err(error) => Err(Failure::local(path, &error)),
        }
    }

    /// The entries of a directory, by name; a file gives itself, with an empty name.
    pub fn list(&self, path: &str) -> Outcome<Vec<Status>> {
        let failed = |error: io::Error| Failure::local(path, &error);
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_dir() {
            return Ok(vec![status_of(String::new(), &metadata)]);
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = text(entry.map_err(failed)?.file_name())?;
            if local_sums::is_name(&name) {
                continue;
            }
            // Neither a link that leads nowhere nor what was removed just now is listed.
            if let Some(status) = self.status(&address::join(path, &name))? {
                entries.push(Status { name, ..status });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Makes a directory and those above it; `false` if it cannot be: Java knows no more.
    pub fn mkdirs(&self, path: &str, mode: u16) -> Outcome<bool> {
        let mode = u32::from(mode & !self.umask);
        match fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::exists(path)),
            Err(_) => Ok(false),
        }
    }

    /// A file to write to, over what is there; the directories above it are made if they are missing.
    pub fn create(&self, path: &str) -> Outcome<File> {
        if let Some(parent) = address::parent(path)
            && self.status(parent)?.is_none()
            && !self.mkdirs(parent, DIRECTORY_MODE)?
        {
            return Err(Failure::other(format!("Mkdirs failed to create file:{parent}")));
        }
        let mode = u32::from(FILE_MODE & !self.umask);
        let file = File::options().write(true).create(true).truncate(true).mode(mode).open(path);
        let file = file.map_err(|error| Failure::in_words(path, &error))?;
        // What another shell left beside it is not its any more: Hadoop's would call the file broken.
        local_sums::remove(path);
        Ok(file)
    }

    /// A file to read.
    pub fn open(&self, path: &str) -> Outcome<File> {
        File::open(path).map_err(|error| Failure::local(path, &error))
    }

    /// Deletes; `false` if there was nothing, or it cannot be: Java knows no more.
    pub fn delete(&self, path: &str, recursive: bool) -> Outcome<bool> {
        let done = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() && recursive => fs::remove_dir_all(path),
            Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
            Ok(_) => fs::remove_file(path).inspect(|()| local_sums::remove(path)),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(Failure::other(format!("Directory {path} is not empty")))
            }
            Err(_) => Ok(false),
        }
    }

    /// Renames over what is there.
    pub fn rename(&self, source: &str, target: &str) -> Outcome<bool> {
        fs::rename(source, target).map_err(|error| Failure::in_words(target, &error))?;
        local_sums::rename(source, target);
        Ok(true)
    }

    /// Sets permission bits.
    pub fn set_mode(&self, path: &str, mode: u16) -> Outcome<()> {
        let permissions = fs::Permissions::from_mode(u32::from(mode));
        fs::set_permissions(path, permissions).map_err(|error| Failure::local(path, &error))
    }

    /// Sets owner and group, each if given; names or numbers. Hadoop runs `chown`, whose words these are.
    pub fn set_owner(&self, path: &str, owner: Option<&str>, group: Option<&str>) -> Outcome<()> {
        let invalid = |what: &str| {
            let group = group.map(|group| format!(":{group}")).unwrap_or_default();
            Failure::other(format!("chown: invalid {what}: ‘{}{group}’", owner.unwrap_or("")))
        };
        let number = |name: &str| name.parse::<u32>().ok();
        let uid_of = |name: &str| {
            let user = User::from_name(name).ok().flatten().map(|user| user.uid);
            user.or_else(|| number(name).map(Uid::from_raw)).ok_or_else(|| invalid("user"))
        };
        let gid_of = |name: &str| {
            let group = Group::from_name(name).ok().flatten().map(|group| group.gid);
            group.or_else(|| number(name).map(Gid::from_raw)).ok_or_else(|| invalid("group"))
        };
        let (uid, gid) = (owner.map(uid_of).transpose()?, group.map(gid_of).transpose()?);
        nix::unistd::chown(path, uid, gid).map_err(|error| {
            Failure::other(format!("chown: changing ownership of '{path}': {}", error.desc()))
        })
    }

    /// Sets times in milliseconds, each if given.
    pub fn set_times(&self, path: &str, modified: Option<u64>, accessed: Option<u64>) -> Outcome<()> {
        let time = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let mut times = FileTimes::new();
        if let Some(ms) = modified {
            times = times.set_modified(time(ms));
        }
        if let Some(ms) = accessed {
            times = times.set_accessed(time(ms));
        }
        let set = File::open(path).and_then(|file| file.set_times(times));
        set.map_err(|error| Failure::local(path, &error))
    }
}

/// Java sees names as text, and so do we; a name that is none is told, not mangled.
fn text(name: OsString) -> Outcome<String> {
    name.into_string().map_err(|name| Failure::other(format!("the name {name:?} is not UTF-8")))
}

fn status_of(name: String, metadata: &Metadata) -> Status {
    let kind = match metadata {
        metadata if metadata.is_dir() => Kind::Directory,
        metadata if metadata.is_symlink() => Kind::Symlink,
        _ => Kind::File,
    };
    let ms = |time: io::Result<SystemTime>| {
        let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_millis() as u64)
    };
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    Status {
        name,
        kind,
        length: metadata.len(),
        replication: u16::from(kind == Kind::File),
        block_size: BLOCK_SIZE,
        modified_ms: ms(metadata.modified()),
        accessed_ms: ms(metadata.accessed()),
        owner: User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name),
        group: Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name),
        mode: (metadata.mode() & 0o1777) as u16,
        has_acl: false,
        erasure_policy: None,
    }
}
