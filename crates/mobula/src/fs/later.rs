//! Verbs whose call is sent, and whose work comes later: `appendToFile`, `truncate`, `concat`, ACLs,
//! extended attributes, snapshots. Our server answers that it does not support them; so do we, if
//! another one does.

use std::time::Duration;

use mobula_proto::hdfs;

use super::copy::remote_destination;
use super::failure::{Failure, Outcome};
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;

/// Pause of `truncate -w` between looks.
const WAIT_PAUSE: Duration = Duration::from_millis(1000);

/// What a client without it says where the server would do it.
fn not_ours(what: &str) -> Failure {
    Failure::other(format!("{what} is not supported by this client yet"))
}

/// Appends local files.
pub async fn append_to_file(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    if args.len() < 2 {
        return Err(Failure::other("missing destination argument"));
    }
    let target = remote_destination(shell, &mut args).await?;
    let new_block = Format::new(1, MANY, &["n"]).parse(&mut args)?.has("n");
    let hdfs = target.fs.as_hdfs()?;
    let mut sources = Vec::new();
    for arg in args.iter().filter(|arg| *arg != "-") {
        sources.push(shell.local_item(arg).await?);
    }
    if sources.len() < args.len() && !sources.is_empty() {
        return Err(Failure::other("stdin (-) must be the sole input argument when present"));
    }
    if !target.exists() {
        hdfs.create(&target.path, None).await?.close().await.map_err(Failure::from)?;
    }
    // CreateFlag APPEND, and NEW_BLOCK.
    let flag = 4 | if new_block { 32 } else { 0 };
    let client_name = format!("DFSClient_NONMAPREDUCE_{}_1", shell.context.env.entropy.below(1 << 31));
    let request = hdfs::AppendRequestProto {
        src: target.path.clone(),
        client_name: client_name.clone(),
        flag: Some(flag),
    };
    hdfs.namenode().append(request).await?;
    // It is open now under our name; a client that cannot write to it must not leave it so.
    let request = hdfs::RecoverLeaseRequestProto { src: target.path.clone(), client_name };
    hdfs.namenode().recover_lease(request).await?;
    Err(not_ours("appending to a file"))
}

/// Cuts files.
pub async fn truncate(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let wait = Format::new(2, MANY, &["w"]).parse(&mut args)?.has("w");
    let text = args.remove(0);
    let length = match text.parse::<i64>() {
        Ok(length) if length >= 0 => length.unsigned_abs(),
        Ok(_) => return Err(Failure::usage("length must be >= 0")),
        Err(_) => {
            shell.warn("truncate: Illegal length, a non-negative integer expected");
            return Err(Failure::usage(format!("For input string: \"{text}\"")));
        }
    };
    let mut waiting = Vec::new();
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        match truncate_one(&item, length).await {
            Ok(true) => shell.line(format!("Truncated {} to length: {length}", item.text))?,
            Ok(false) if wait => waiting.push(item),
            Ok(false) => shell.line(format!(
                "Truncating {} to length: {length}. Wait for block recovery to complete before further updating the file.",
                item.text
            ))?,
            Err(failure) => shell.settle(Err(failure))?,
        }
    }
    for mut item in waiting {
        shell.print_bytes(format!("Waiting for {} ...", item.text).as_bytes())?;
        shell.flush()?;
        while item.refresh().await?.length != length {
            shell.print_bytes(b".")?;
            shell.flush()?;
            tokio::time::sleep(WAIT_PAUSE).await;
        }
        shell.line(format!("\nTruncated {} to length: {length}", item.text))?;
    }
    Ok(())
}

async fn truncate_one(item: &Item, length: u64) -> Outcome<bool> {
    let status = item.status()?;
    if status.is_directory() {
        return Err(Failure::is_directory(&item.text));
    }
    if length > status.length {
        return Err(Failure::usage(format!(
            "Cannot truncate to a larger file size. Current size: {}, truncate size: {length}.",
            status.length
        )));
    }
    let request = hdfs::TruncateRequestProto {
        src: item.path.clone(),
        new_length: length,
        client_name: "DFSClient_NONMAPREDUCE_0_1".into(),
    };
    Ok(item.fs.as_hdfs()?.namenode().truncate(request).await?.result)
}

/// Joins files into the first.
pub async fn concat(shell: &mut Shell, args: Vec<String>) -> Outcome<()> {
    let mut items = shell.expand_all(&args).await?.into_iter();
    let usage = "<target path> <src path> <src path> ...";
    let Some(target) = items.next() else {
        return Err(Failure::other(format!("Target path not specified. {usage}")));
    };
    let sources: Vec<Item> = items.collect();
    if sources.len() < 2 {
        return Err(Failure::other(format!("The number of source paths is less than 2. {usage}")));
    }
    let is_file = |item: &Item| item.status.as_ref().is_some_and(|status| status.is_file());
    if !is_file(&target) {
        let path = target.qualified();
        return Err(Failure::other(format!("Target path {path} does not exist or is not file.")));
    }
    if let Some(missing) = sources.iter().find(|source| !is_file(source)) {
        return Err(Failure::other(format!("{} does not exist or is not file.", missing.qualified())));
    }
    let request = hdfs::ConcatRequestProto {
        trg: target.path.clone(),
        srcs: sources.into_iter().map(|source| source.path).collect(),
    };
    target.fs.as_hdfs()?.namenode().concat(request).await?;
    Ok(())
}

/// Shows or changes ACLs: asks the server whether it has them.
pub async fn acl(shell: &mut Shell, args: Vec<String>) -> Outcome<()> {
    let item = last_path(shell, &args).await?;
    let request = hdfs::GetAclStatusRequestProto { src: item.path.clone() };
    item.fs.as_hdfs()?.namenode().get_acl_status(request).await?;
    Err(not_ours("working with ACLs"))
}

/// Shows or changes extended attributes: asks the server whether it has them.
pub async fn attributes(shell: &mut Shell, args: Vec<String>) -> Outcome<()> {
    let item = last_path(shell, &args).await?;
    let request = hdfs::ListXAttrsRequestProto { src: item.path.clone() };
    item.fs.as_hdfs()?.namenode().list_xattrs(request).await?;
    Err(not_ours("working with extended attributes"))
}

async fn last_path(shell: &mut Shell, args: &[String]) -> Outcome<Item> {
    let Some(path) = args.last() else { return Err(Failure::usage("<path> is missing")) };
    let item = shell.expand_some(path).await?.remove(0);
    item.status()?;
    Ok(item)
}

/// Makes a snapshot.
pub async fn create_snapshot(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(1, 2, &[]).parse(&mut args)?;
    let name = (args.len() > 1).then(|| args.remove(1));
    let item = last_path(shell, &args).await?;
    let request = hdfs::CreateSnapshotRequestProto { snapshot_root: item.path.clone(), snapshot_name: name };
    let made = item.fs.as_hdfs()?.namenode().create_snapshot(request).await?;
    shell.line(format!("Created snapshot {}", item.fs.qualified(&made.snapshot_path)))
}

/// Deletes a snapshot.
pub async fn delete_snapshot(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(2, 2, &[]).parse(&mut args)?;
    let name = args.remove(1);
    let item = last_path(shell, &args).await?;
    let request = hdfs::DeleteSnapshotRequestProto { snapshot_root: item.path.clone(), snapshot_name: name };
    item.fs.as_hdfs()?.namenode().delete_snapshot(request).await?;
    Ok(())
}

/// Renames a snapshot.
pub async fn rename_snapshot(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(3, 3, &[]).parse(&mut args)?;
    let (new, old) = (args.remove(2), args.remove(1));
    let item = last_path(shell, &args).await?;
    let request = hdfs::RenameSnapshotRequestProto {
        snapshot_root: item.path.clone(),
        snapshot_old_name: old,
        snapshot_new_name: new,
    };
    item.fs.as_hdfs()?.namenode().rename_snapshot(request).await?;
    Ok(())
}
