//! `getmerge`: many files into one local file.

use bytes::Bytes;

use super::address;
use super::failure::{Failure, Outcome};
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;

/// Concatenates files, and those directly in directories, into one local file.
pub async fn getmerge(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(2, MANY, &["nl", "skip-empty-file"]).parse(&mut args)?;
    let target = shell.local_item(&args.pop().unwrap_or_default()).await?;
    if target.is_directory() {
        return Err(Failure::is_directory(&target.text));
    }
    let mut files = Vec::new();
    let mut missing = false;
    for item in shell.expand_all(&args).await? {
        if !item.exists() {
            missing = true;
            shell.fail(&Failure::not_found(&item.text));
        } else if item.is_directory() {
            let mut children = shell.children_of(&item).await;
            children.sort_by(|a, b| address::order(&a.path, &b.path));
            files.extend(children.into_iter().filter(|child| !child.is_directory()));
        } else {
            files.push(item);
        }
    }
    // Better no file than one without a part.
    if missing {
        return Ok(());
    }
    merge(&files, &target, given.has("nl"), given.has("skip-empty-file")).await
}

async fn merge(files: &[Item], target: &Item, newline: bool, skip_empty: bool) -> Outcome<()> {
    let mut writer = target.fs.create(&target.path, None).await?;
    for file in files {
        let empty = file.status()?.length == 0;
        if !empty {
            let mut reader = file.fs.open(&file.path).await?;
            while let Some(piece) = reader.next().await? {
                writer.write(piece).await?;
            }
        }
        if newline && !(empty && skip_empty) {
            writer.write(Bytes::from_static(b"\n")).await?;
        }
    }
    writer.close().await
}
