//! Verbs whose call is sent, and whose work comes later: ACLs, extended attributes, snapshots. Our
//! server answers that it does not support them; so do we, if another one does.

use mobula_proto::hdfs;

use super::failure::{Failure, Outcome};
use super::item::Item;
use super::shell::Shell;

/// What a client without it says where the server would do it.
fn not_ours(what: &str) -> Failure {
    Failure::other(format!("{what} is not supported by this client yet"))
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

/// These verbs know no options.
fn check_count(args: &[String], count: usize) -> Outcome<()> {
    match args.len() == count {
        true => Ok(()),
        false => Err(Failure::usage("Incorrect number of arguments.")),
    }
}

/// Makes a snapshot.
pub async fn create_snapshot(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    match args.len() {
        0 => return Err(Failure::usage("<snapshotDir> is missing.")),
        1 | 2 => {}
        _ => return Err(Failure::usage("Too many arguments.")),
    }
    let name = (args.len() > 1).then(|| args.remove(1));
    let item = last_path(shell, &args).await?;
    let request = hdfs::CreateSnapshotRequestProto { snapshot_root: item.path.clone(), snapshot_name: name };
    let made = item.fs.as_hdfs()?.namenode().create_snapshot(request).await?;
    shell.line(format!("Created snapshot {}", item.fs.qualified(&made.snapshot_path)))
}

/// Deletes a snapshot.
pub async fn delete_snapshot(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    check_count(&args, 2)?;
    let name = args.remove(1);
    let item = last_path(shell, &args).await?;
    let request = hdfs::DeleteSnapshotRequestProto { snapshot_root: item.path.clone(), snapshot_name: name };
    item.fs.as_hdfs()?.namenode().delete_snapshot(request).await?;
    Ok(())
}

/// Renames a snapshot.
pub async fn rename_snapshot(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    check_count(&args, 3)?;
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
