//! The trash (Hadoop's `TrashPolicyDefault`): `/user/U/.Trash/Current` takes what `rm` removes,
//! `expunge` makes a checkpoint of it and deletes older ones.

use super::address;
use super::date;
use super::failure::{Failure, Kind, Outcome};
use super::filesystem::FileSystem;
use super::item::Item;
use super::options::Format;
use super::shell::Shell;

/// Permission bits of directories in the trash.
const TRASH_MODE: u16 = 0o700;
/// Checkpoints that one second may see.
const CHECKPOINTS_A_SECOND_MAX: u32 = 1000;

/// Where the trash of a file system is.
fn root(fs: &FileSystem) -> String {
    match fs {
        FileSystem::Hdfs(hdfs) => address::join(hdfs.home(), ".Trash"),
        FileSystem::Local(_) => {
            let home = std::env::var("HOME").unwrap_or_else(|_| "/".into());
            address::join(&home, ".Trash")
        }
    }
}

/// The configured interval in milliseconds; 0 if there is no trash.
fn interval_ms(shell: &Shell) -> u64 {
    let minutes = shell.setting("fs.trash.interval").and_then(|text| text.trim().parse::<f64>().ok());
    (minutes.unwrap_or(0.0).max(0.0) * 60_000.0) as u64
}

/// Moves what `item` names to the trash; `false` if there is no trash, or it lies there already.
///
/// # Errors
/// It cannot be moved.
pub async fn take(shell: &mut Shell, item: &Item) -> Outcome<bool> {
    if !is_used(shell, &item.fs).await? {
        return Ok(false);
    }
    let moved = take_enabled(shell, item).await;
    moved.map_err(|failure| match failure.kind {
        Kind::NotFound => failure,
        _ => Failure { message: format!("{}. Consider using -skipTrash option", failure.message), ..failure },
    })
}

/// The server's word on its trash goes before ours, unless it has none.
async fn is_used(shell: &Shell, fs: &FileSystem) -> Outcome<bool> {
    if let FileSystem::Hdfs(hdfs) = fs
        && hdfs.defaults().await?.trash_interval() > 0
    {
        return Ok(true);
    }
    Ok(interval_ms(shell) > 0)
}

async fn take_enabled(shell: &mut Shell, item: &Item) -> Outcome<bool> {
    let (fs, path) = (&item.fs, &item.path);
    let root = root(fs);
    if path.starts_with(&root) {
        return Ok(false);
    }
    if address::parent(&root).is_some_and(|parent| parent.starts_with(path.as_str())) {
        let text = fs.qualified(path);
        return Err(Failure::other(format!("Cannot move \"{text}\" to the trash, as it contains the trash")));
    }
    let target = move_into(shell, fs, path, &address::join(&root, "Current")).await?;
    if shell.is_watched() {
        let (from, to) = (fs.qualified(path), fs.qualified(&target));
        shell.warn(&format!("Moved: '{from}' to trash at: {to}"));
    }
    Ok(true)
}

/// Moves `path` below `current`, keeping its whole path; says where it is then.
async fn move_into(shell: &Shell, fs: &FileSystem, path: &str, current: &str) -> Outcome<String> {
    let clock = &shell.context.env.clock;
    let mut base =
        format!("{current}{}", address::parent(path).unwrap_or("")).trim_end_matches('/').to_owned();
    let mut last = Failure::other("");
    let mut tries = 0;
    // Twice: a checkpoint may come between making the directory and moving into it.
    while tries < 2 {
        match fs.mkdirs(&base, TRASH_MODE).await {
            Ok(true) => {}
            Ok(false) => return Err(Failure::other(format!("Can't create(mkdir) trash directory: {base}"))),
            Err(failure) if failure.kind == Kind::AlreadyExists => {
                base = around_file(fs, &base, clock.now_ms()).await?;
                continue;
            }
            Err(failure) => {
                last = failure;
                break;
            }
        }
        let wanted = address::join(&base, address::name(path));
        let mut target = wanted.clone();
        while fs.exists(&target).await? {
            target = format!("{wanted}{}", clock.now_ms());
        }
        let moved = match fs {
            FileSystem::Hdfs(hdfs) => hdfs.rename_strictly(path, &target, true).await,
            FileSystem::Local(local) => local.rename(path, &target).map(|_| ()),
        };
        match moved {
            Ok(()) => return Ok(target),
            Err(failure) => last = failure,
        }
        tries += 1;
    }
    let (from, to) = (fs.qualified(path), fs.qualified(&address::join(&base, address::name(path))));
    Err(Failure::other(format!("Failed to move {from} to trash {to}: {}", last.message)))
}

/// `base` with another name for the file that is in its way.
async fn around_file(fs: &FileSystem, base: &str, now_ms: u64) -> Outcome<String> {
    let mut file = base;
    while !fs.exists(file).await? {
        file = address::parent(file).unwrap_or("/");
    }
    Ok(format!("{file}{now_ms}{}", &base[file.len()..]))
}

/// Makes a checkpoint of the trash, and deletes those that are old enough, or all.
pub async fn expunge(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(0, 2, &["immediate"]).with_values(&["fs"]).parse(&mut args)?;
    let fs = match given.value("fs") {
        None | Some("") => shell.default_fs()?,
        Some(uri) => shell.item(&format!("{}/", uri.trim_end_matches('/'))).await?.fs,
    };
    let root = root(&fs);
    let now_ms = shell.context.env.clock.now_ms();
    if given.has("immediate") {
        checkpoint(&fs, &root, now_ms).await?;
        delete_checkpoints(shell, &fs, &root, None).await
    } else {
        let oldest_ms = now_ms.saturating_sub(interval_ms(shell));
        delete_checkpoints(shell, &fs, &root, Some(oldest_ms)).await?;
        checkpoint(&fs, &root, now_ms).await
    }
}

async fn checkpoint(fs: &FileSystem, root: &str, now_ms: u64) -> Outcome<()> {
    let current = address::join(root, "Current");
    if !fs.exists(&current).await? {
        return Ok(());
    }
    let base = address::join(root, &date::checkpoint_name(now_ms));
    for attempt in 0..=CHECKPOINTS_A_SECOND_MAX {
        let target = if attempt == 0 { base.clone() } else { format!("{base}-{attempt}") };
        let moved = match fs {
            FileSystem::Hdfs(hdfs) => hdfs.rename_strictly(&current, &target, false).await,
            FileSystem::Local(local) => match local.status(&target)? {
                Some(_) => Err(Failure::exists(&target)),
                None => local.rename(&current, &target).map(|_| ()),
            },
        };
        match moved {
            Err(failure) if failure.kind == Kind::AlreadyExists => {}
            other => return other,
        }
    }
    Err(Failure::other(format!("Failed to checkpoint trash: {base}")))
}

/// Deletes checkpoints made before `before_ms`, or all; what is none goes to the trash once more.
async fn delete_checkpoints(
    shell: &mut Shell,
    fs: &FileSystem,
    root: &str,
    before_ms: Option<u64>,
) -> Outcome<()> {
    let entries = match fs.list(root).await {
        Ok(entries) => entries,
        Err(failure) if failure.kind == Kind::NotFound => return Ok(()),
        Err(failure) => return Err(failure),
    };
    for entry in entries.iter().filter(|entry| entry.name != "Current") {
        let path = address::join(root, &entry.name);
        let Some(made_ms) = date::parse_checkpoint(&entry.name) else {
            move_into(shell, fs, &path, &address::join(root, "Current")).await?;
            shell.warn(&format!("Unexpected item in trash: {path}. Force moving to trash."));
            continue;
        };
        if before_ms.is_none_or(|before| made_ms < before) && !fs.delete(&path, true).await? {
            shell.warn(&format!("Couldn't delete checkpoint: {path} Ignoring."));
        }
    }
    Ok(())
}
