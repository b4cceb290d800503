//! `setrep`.

use std::time::Duration;

use super::failure::{Failure, Outcome};
use super::filesystem::FileSystem;
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::status::Kind;
use super::walk::Walk;

/// Pause between looks of `setrep -w`. HDFS waits 10 s, longer than our healing takes.
const WAIT_PAUSE: Duration = Duration::from_secs(1);

/// Sets the number of replicas.
pub async fn setrep(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let wait = Format::new(2, MANY, &["R", "w"]).parse(&mut args)?.has("w");
    let text = args.remove(0);
    let replication = match text.parse::<i16>() {
        Ok(number) if number >= 1 => number.unsigned_abs(),
        Ok(_) => return Err(Failure::usage("replication must be >= 1")),
        Err(_) => {
            shell.warn("setrep: Illegal replication, a positive integer expected");
            return Err(Failure::usage(match text.parse::<i32>() {
                Ok(_) => format!("Value out of range. Value:\"{text}\" Radix:10"),
                Err(_) => format!("For input string: \"{text}\""),
            }));
        }
    };
    let items = shell.expand_all(&args).await?;
    let mut waiting = Vec::new();
    let mut walk = Walk::over(items);
    while let Some((_, item)) = walk.next() {
        if !shell.is_there(&item) {
            continue;
        }
        if item.is_directory() {
            let children = shell.children_of(&item).await;
            walk.descend(children);
            continue;
        }
        let set = set_one(shell, &item, replication).await;
        let done = set.is_ok();
        shell.settle(set)?;
        if wait && done {
            waiting.push(item);
        }
    }
    for item in waiting {
        let waited = wait_for(shell, item, usize::from(replication)).await;
        shell.settle(waited)?;
    }
    Ok(())
}

async fn set_one(shell: &mut Shell, item: &Item, replication: u16) -> Outcome<()> {
    let (text, status) = (&item.text, item.status()?);
    if status.kind == Kind::Symlink {
        return Err(Failure::path(text, "Symlinks unsupported"));
    }
    if status.erasure_policy.is_some() {
        return shell
            .line(format!("Did not set replication for: {text}, because it's an erasure coded file."));
    }
    // Local files have one replica, whatever is said.
    if let FileSystem::Hdfs(hdfs) = &item.fs
        && !hdfs.set_replication(&item.path, replication).await?
    {
        return Err(Failure::other(format!("Could not set replication for: {text}")));
    }
    shell.line(format!("Replication {replication} set: {text}"))
}

/// Waits until each block has exactly so many replicas.
async fn wait_for(shell: &mut Shell, mut item: Item, replication: usize) -> Outcome<()> {
    shell.print_bytes(format!("Waiting for {} ...", item.text).as_bytes())?;
    shell.flush()?;
    let mut warned = false;
    loop {
        let length = item.refresh().await?.length;
        let FileSystem::Hdfs(hdfs) = &item.fs else { return shell.line(" done") };
        let replicas = hdfs.replicas(&item.path, length).await?;
        let wrong = replicas.into_iter().find(|found| *found != replication);
        let Some(found) = wrong else { return shell.line(" done") };
        if found > replication && !warned {
            shell
                .line("\nWARNING: the waiting time may be long for DECREASING the number of replications.")?;
            warned = true;
        }
        shell.print_bytes(b".")?;
        shell.flush()?;
        tokio::time::sleep(WAIT_PAUSE).await;
    }
}
