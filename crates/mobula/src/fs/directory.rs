//! `mkdir` and `rmdir`.

use super::address;
use super::failure::{Failure, Outcome};
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;

/// Bits of a new directory before the umask.
pub const DIRECTORY_MODE: u16 = 0o777;

/// Makes directories.
pub async fn mkdir(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let parents = Format::new(1, MANY, &["p"]).parse(&mut args)?.has("p");
    for item in shell.expand_all(&args).await? {
        let made = mkdir_one(&item, parents).await;
        shell.settle(made)?;
    }
    Ok(())
}

async fn mkdir_one(item: &Item, parents: bool) -> Outcome<()> {
    if let Some(status) = &item.status {
        return match status.is_directory() {
            true if parents => Ok(()),
            true => Err(Failure::exists(&item.text)),
            false => Err(Failure::not_directory(&item.text)),
        };
    }
    if item.path.is_empty() && !parents {
        let text = &item.text;
        return Err(Failure::not_found(&format!(
            "Item: {text} parent's path is null. This can happen if mkdir is called on root, so there's no parent."
        )));
    }
    item.fs.check_name(&item.path, &item.text)?;
    if !parents
        && let Some(parent) = address::parent(&item.path)
        && !item.fs.exists(parent).await?
    {
        return Err(Failure::not_found(&item.fs.qualified(parent)));
    }
    match item.fs.mkdirs(&item.path, DIRECTORY_MODE).await? {
        true => Ok(()),
        false => Err(Failure::refused(&item.text)),
    }
}

/// Removes empty directories.
pub async fn rmdir(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let flag = "-ignore-fail-on-non-empty";
    let forgive = Format::new(1, MANY, &["-ignore-fail-on-non-empty"]).parse(&mut args)?.has(flag);
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        let removed = rmdir_one(&item, forgive).await;
        shell.settle(removed)?;
    }
    Ok(())
}

async fn rmdir_one(item: &Item, forgive: bool) -> Outcome<()> {
    if !item.is_directory() {
        return Err(Failure::not_directory(&item.text));
    }
    if !item.fs.list(&item.path).await?.is_empty() {
        return if forgive { Ok(()) } else { Err(Failure::not_empty(&item.text)) };
    }
    match item.fs.delete(&item.path, false).await? {
        true => Ok(()),
        false => Err(Failure::refused(&item.text)),
    }
}
