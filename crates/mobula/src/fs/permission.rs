//! `chmod`, `chown`, `chgrp`.

use super::failure::{Failure, Outcome};
use super::item::Item;
use super::mode::Mode;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::walk::Walk;

/// What is changed.
enum Change {
    Mode(Mode),
    Owner { owner: Option<String>, group: Option<String> },
}

/// Changes permission bits.
pub async fn chmod(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let recursive = Format::new(2, MANY, &["R"]).keeping_unknown().parse(&mut args)?.has("R");
    let text = args.remove(0);
    let mode = Mode::parse(&text).ok_or_else(|| {
        Failure::usage(format!("chmod : mode '{text}' does not match the expected pattern."))
    })?;
    change_all(shell, &args, &Change::Mode(mode), recursive).await
}

/// Changes owner and group.
pub async fn chown(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let recursive = Format::new(2, MANY, &["R"]).parse(&mut args)?.has("R");
    let (owner, group) = parse_owner(&args.remove(0))?;
    change_all(shell, &args, &Change::Owner { owner, group }, recursive).await
}

/// Changes the group.
pub async fn chgrp(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let recursive = Format::new(2, MANY, &["R"]).parse(&mut args)?.has("R");
    let text = args.remove(0);
    let group = text.trim();
    if group.is_empty() || !is_name(group) {
        return Err(Failure::usage(format!("'{text}' does not match expected pattern for group")));
    }
    let change = Change::Owner { owner: None, group: Some(group.to_owned()) };
    change_all(shell, &args, &change, recursive).await
}

/// Reads `OWNER`, `OWNER:GROUP` or `:GROUP`.
fn parse_owner(text: &str) -> Outcome<(Option<String>, Option<String>)> {
    let (owner, group) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
    if !is_name(owner) || !is_name(group) {
        return Err(Failure::usage(format!("'{text}' does not match expected pattern for [owner][:group].")));
    }
    let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    if owner.is_empty() && group.is_empty() {
        return Err(Failure::usage(format!("'{text}' does not specify owner or group.")));
    }
    Ok((some(owner), some(group)))
}

/// Characters that Hadoop allows in names of users and groups.
fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "-+_./@".contains(c))
}

async fn change_all(shell: &mut Shell, args: &[String], change: &Change, recursive: bool) -> Outcome<()> {
    let items = shell.expand_all(args).await?;
    let mut walk = Walk::over(items);
    while let Some((_, item)) = walk.next() {
        if !shell.is_there(&item) {
            continue;
        }
        let changed = change_one(&item, change).await;
        let failed = changed.is_err();
        shell.settle(changed)?;
        if recursive && !failed && item.is_directory() {
            let children = shell.children_of(&item).await;
            walk.descend(children);
        }
    }
    Ok(())
}

async fn change_one(item: &Item, change: &Change) -> Outcome<()> {
    let status = item.status()?;
    let told = |what: &str, failure: Failure| Failure {
        message: format!("changing {what} of '{}': {}", item.text, failure.message),
        ..failure
    };
    match change {
        Change::Mode(mode) => {
            let bits = mode.apply(status.mode, status.is_directory());
            if bits == status.mode {
                return Ok(());
            }
            item.fs.set_mode(&item.path, bits).await.map_err(|failure| told("permissions", failure))
        }
        Change::Owner { owner, group } => {
            let owner = owner.as_deref().filter(|owner| *owner != status.owner);
            let group = group.as_deref().filter(|group| *group != status.group);
            if owner.is_none() && group.is_none() {
                return Ok(());
            }
            let set = item.fs.set_owner(&item.path, owner, group).await;
            set.map_err(|failure| told("ownership", failure))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn owners_and_groups() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(parse_owner("alice").unwrap(), (some("alice"), None));
        assert_eq!(parse_owner("alice:staff").unwrap(), (some("alice"), some("staff")));
        assert_eq!(parse_owner(":staff").unwrap(), (None, some("staff")));
        assert_eq!(parse_owner("alice:").unwrap(), (some("alice"), None));
        assert!(parse_owner(":").unwrap_err().message.contains("does not specify owner or group"));
        assert!(parse_owner("a b").unwrap_err().message.contains("does not match expected pattern"));
        assert!(parse_owner("a:b:c").is_err());
    }
}
