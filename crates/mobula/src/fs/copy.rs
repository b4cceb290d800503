//! `put`, `get`, `cp`, `mv` and their kin: everything with sources and one destination (Hadoop's
//! `CommandWithDestination`).

use std::collections::BTreeSet;
use std::vec::IntoIter;

use super::directory::DIRECTORY_MODE;
use super::failure::{Failure, Outcome};
use super::input::Input;
use super::item::Item;
use super::options::{Format, Given, MANY};
use super::shell::Shell;
use super::transfer::{Desk, Flights, Manner, Preserve, SUFFIX, Source};

/// Files on their way at once, where `-t` does not say. Apache's shell takes one after the other.
const IN_FLIGHT_DEFAULT: usize = 8;
/// Most that `-t` may ask for.
const IN_FLIGHT_MAX: usize = 256;

/// Stores local files.
pub async fn put(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(1, MANY, &["f", "p", "l", "d"]).with_values(&["t", "q"]).parse(&mut args)?;
    put_parsed(shell, args, &given, false).await
}

/// Stores local files, and removes them here.
pub async fn move_from_local(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    if args.iter().any(|arg| arg == "-t") {
        return Err(Failure::usage("Illegal option -t"));
    }
    let given = Format::new(1, MANY, &["f", "p", "l", "d"]).with_values(&["t", "q"]).parse(&mut args)?;
    put_parsed(shell, args, &given, true).await
}

async fn put_parsed(shell: &mut Shell, mut args: Vec<String>, given: &Given, move_away: bool) -> Outcome<()> {
    let manner = Manner {
        overwrite: given.has("f"),
        direct: given.has("d"),
        preserve: if given.has("p") { Preserve::USUAL } else { Preserve::default() },
        // Lazily persisted files have one replica in HDFS.
        replication: given.has("l").then_some(1),
        move_away,
        local_sums: false,
        in_flight: in_flight(given)?,
    };
    let target = remote_destination(shell, &mut args).await?;
    if args == ["-"] {
        let target = target_of("-", &target).await?;
        return Desk::of(shell).write(Source::Input(Input::open()), &target, &manner).await;
    }
    let mut sources = Vec::new();
    for arg in &args {
        match shell.local_item(arg).await {
            Ok(item) => sources.push(item),
            Err(failure) => shell.settle(Err(failure))?,
        }
    }
    copy_all(shell, sources, target, manner).await
}

/// Fetches files.
pub async fn get(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let flags = &["crc", "ignoreCrc", "p", "f"];
    let given = Format::new(1, MANY, flags).with_values(&["t", "q"]).parse(&mut args)?;
    let manner = Manner {
        overwrite: given.has("f"),
        direct: false,
        preserve: if given.has("p") { Preserve::USUAL } else { Preserve::default() },
        replication: None,
        move_away: false,
        local_sums: given.has("crc"),
        in_flight: in_flight(&given)?,
    };
    let target = match args.len() {
        0 | 1 => ".".to_owned(),
        _ => args.pop().unwrap_or_default(),
    };
    let target = shell.local_item(&target).await?;
    let sources = shell.expand_all(&args).await?;
    copy_all(shell, sources, target, manner).await
}

/// Copies within the cluster, or between file systems.
pub async fn cp(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let preserve = pop_preserve(&mut args)?;
    let given = Format::new(2, MANY, &["f", "d"]).with_values(&["t", "q"]).parse(&mut args)?;
    let manner = Manner {
        overwrite: given.has("f"),
        direct: given.has("d"),
        preserve,
        replication: None,
        move_away: false,
        local_sums: false,
        in_flight: in_flight(&given)?,
    };
    let target = remote_destination(shell, &mut args).await?;
    let sources = shell.expand_all(&args).await?;
    copy_all(shell, sources, target, manner).await
}

/// Takes `-p` or `-pATTRIBUTES` out of the arguments.
fn pop_preserve(args: &mut Vec<String>) -> Outcome<Preserve> {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let Some(at) = args[..end].iter().position(|arg| arg.starts_with("-p")) else {
        return Ok(Preserve::default());
    };
    let option = args.remove(at);
    if option == "-p" {
        return Ok(Preserve::USUAL);
    }
    let mut preserve = Preserve::default();
    for attribute in option[2..].chars() {
        match attribute.to_ascii_lowercase() {
            't' => preserve.times = true,
            'o' => preserve.owner = true,
            // ACLs go beyond permission bits; until the server has them the bits are all there is.
            'p' | 'a' => preserve.mode = true,
            'x' => {}
            other => return Err(Failure::usage(format!("No attribute for {other}"))),
        }
    }
    Ok(preserve)
}

fn in_flight(given: &Given) -> Outcome<usize> {
    let number = |option| match given.value(option) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse::<i32>() {
            Ok(number) => Ok(Some(usize::try_from(number).unwrap_or(0))),
            Err(_) => Err(Failure::usage(format!("For input string: \"{text}\""))),
        },
    };
    // Files wait in no queue here, but a length that is none is told.
    number("q")?;
    Ok(number("t")?.map_or(IN_FLIGHT_DEFAULT, |threads| threads.clamp(1, IN_FLIGHT_MAX)))
}

/// Where things go: the last argument, or the user's directory if there is only one.
pub async fn remote_destination(shell: &mut Shell, args: &mut Vec<String>) -> Outcome<Item> {
    if args.len() < 2 {
        return shell.item(".").await;
    }
    let text = args.pop().unwrap_or_default();
    let mut items = shell.expand_some(&text).await?;
    match (items.pop(), items.is_empty()) {
        (Some(item), true) => Ok(item),
        _ => Err(Failure::path(&text, "Too many matches")),
    }
}

/// What must hold of the destination for so many sources.
async fn check_destination(sources: usize, target: &Item, overwrite: bool) -> Outcome<()> {
    if sources > 1 {
        return match target.status()?.is_directory() {
            true => Ok(()),
            false => Err(Failure::not_directory(&target.text)),
        };
    }
    if target.exists() {
        return match target.is_directory() || overwrite {
            true => Ok(()),
            false => Err(Failure::exists(&target.text)),
        };
    }
    match target.parent_exists().await? {
        true => Ok(()),
        false => Err(Failure::not_found_in_full(&target.text, &target.qualified())),
    }
}

/// Where one source goes: into a directory, or to the very path.
async fn target_of(name: &str, target: &Item) -> Outcome<Item> {
    if target.is_directory() || target.is_typed_as_directory() {
        return target.child(name).await;
    }
    Ok(target.clone())
}

/// A directory neither goes onto nor into itself.
async fn check_not_within(source: &Item, target: &Item) -> Outcome<()> {
    if !source.is_directory() || !source.fs.is_same(&target.fs) {
        return Ok(());
    }
    let target = target_of(source.name(), target).await?;
    if target.path == source.path {
        let (text, target) = (&source.text, target.qualified());
        return Err(Failure::other(format!("`{text}' to `{target}': are identical")));
    }
    let inside = format!("{}/", source.path.trim_end_matches('/'));
    if target.path.starts_with(&inside) {
        let (text, target) = (&source.text, &target.text);
        return Err(Failure::other(format!("`{text}' to `{target}': is a subdirectory of itself")));
    }
    Ok(())
}

async fn copy_all(shell: &mut Shell, sources: Vec<Item>, target: Item, manner: Manner) -> Outcome<()> {
    check_destination(sources.len(), &target, manner.overwrite).await?;
    let flights = Flights::new(manner.in_flight);
    let mut copier = Copier { desk: Desk::of(shell), manner, flights, directories: Vec::new() };
    let mut names = BTreeSet::new();
    for source in sources {
        // The same target again: what came first must be there, so that it is seen.
        if !names.insert(source.name().to_owned()) {
            copier.finish(shell).await?;
        }
        let copied = copier.copy_source(shell, source, &target).await;
        copier.settle(shell, copied).await?;
    }
    copier.finish(shell).await
}

/// Copies trees: directories in order, files as they get room.
struct Copier {
    desk: Desk,
    manner: Manner,
    flights: Flights,
    /// Directories whose status is set, or that are removed, when all is inside them.
    directories: Vec<(Item, Item)>,
}

impl Copier {
    /// Tells of a failure after those that came before it.
    async fn settle(&mut self, shell: &mut Shell, outcome: Outcome<()>) -> Outcome<()> {
        if outcome.is_err() {
            self.flights.land_all(shell).await?;
        }
        shell.settle(outcome)
    }

    async fn copy_source(&mut self, shell: &mut Shell, source: Item, target: &Item) -> Outcome<()> {
        source.status()?;
        check_not_within(&source, target).await?;
        let top = target_of(source.name(), target).await?;
        if !source.is_directory() {
            return self.copy_file(shell, source, Place::Known(top)).await;
        }
        let mut frames = vec![self.enter(source, top).await?];
        while let Some(frame) = frames.last_mut() {
            let Some(item) = frame.sources.next() else {
                frames.pop();
                continue;
            };
            if !item.is_directory() {
                let place = match frame.target.new_child(item.name()) {
                    // Nothing can be in a directory that was just made.
                    Ok(target) if frame.fresh => Place::Known(target),
                    Ok(_) => Place::In(frame.target.clone()),
                    Err(failure) => {
                        self.settle(shell, Err(failure)).await?;
                        continue;
                    }
                };
                self.copy_file(shell, item, place).await?;
                continue;
            }
            let entered = match frame.target.child(item.name()).await {
                Ok(target) => self.enter(item, target).await,
                Err(failure) => Err(failure),
            };
            match entered {
                Ok(frame) => frames.push(frame),
                Err(failure) => self.settle(shell, Err(failure)).await?,
            }
        }
        Ok(())
    }

    /// Makes the directory, and gives what goes into it.
    async fn enter(&mut self, source: Item, mut target: Item) -> Outcome<Frame> {
        let fresh = !target.exists();
        if !fresh {
            if !target.is_directory() {
                return Err(Failure::not_directory(&target.text));
            }
            // Moved directories are not merged.
            if self.manner.move_away {
                return Err(Failure::exists(&target.text));
            }
        } else {
            if !target.fs.mkdirs(&target.path, DIRECTORY_MODE).await? {
                return Err(Failure::refused_to("mkdir", &target.text, None));
            }
            target.refresh().await?;
        }
        let children = source.children().await?;
        self.directories.push((source, target.clone()));
        Ok(Frame { sources: children.into_iter(), target, fresh })
    }

    async fn copy_file(&mut self, shell: &mut Shell, source: Item, place: Place) -> Outcome<()> {
        let (desk, manner) = (self.desk.clone(), self.manner.clone());
        let is_temporary = source.name().ends_with(SUFFIX);
        shell.progress.expect(source.status()?.length);
        let task = async move {
            let target = match place {
                Place::Known(target) => target,
                Place::In(parent) => parent.child(source.name()).await?,
            };
            desk.copy(&source, &target, &manner).await
        };
        if !is_temporary {
            return self.flights.begin(shell, task).await;
        }
        // Another file's temporary one may be called the same.
        self.flights.land_all(shell).await?;
        self.flights.begin(shell, task).await?;
        self.flights.land_all(shell).await
    }

    async fn finish(&mut self, shell: &mut Shell) -> Outcome<()> {
        self.flights.land_all(shell).await?;
        let directories = std::mem::take(&mut self.directories);
        // Those inside first: setting their status changes the times of those around them.
        for (source, target) in directories.into_iter().rev() {
            let finished = finish_directory(&source, &target, &self.manner).await;
            shell.settle(finished)?;
        }
        Ok(())
    }
}

/// A directory that is being copied.
struct Frame {
    /// What is still to copy of it.
    sources: IntoIter<Item>,
    /// Where that goes.
    target: Item,
    /// Whether the target was made for it.
    fresh: bool,
}

/// Where a file goes.
enum Place {
    /// Here; it is known what is there.
    Known(Item),
    /// Into this directory, under its own name.
    In(Item),
}

async fn finish_directory(source: &Item, target: &Item, manner: &Manner) -> Outcome<()> {
    manner.preserve.apply(source.status()?, target).await?;
    if manner.move_away && !source.fs.delete(&source.path, false).await? {
        return Err(Failure::refused_to("remove", &source.text, None));
    }
    Ok(())
}

/// Renames within one file system.
pub async fn mv(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(2, MANY, &[]).parse(&mut args)?;
    let target = remote_destination(shell, &mut args).await?;
    let sources = shell.expand_all(&args).await?;
    check_destination(sources.len(), &target, false).await?;
    for source in sources {
        let moved = mv_one(&source, &target).await;
        shell.settle(moved)?;
    }
    Ok(())
}

async fn mv_one(source: &Item, target: &Item) -> Outcome<()> {
    source.status()?;
    check_not_within(source, target).await?;
    let target = target_of(source.name(), target).await?;
    if !source.fs.is_same(&target.fs) {
        return Err(Failure::path(&source.text, "Does not match target filesystem"));
    }
    if target.exists() {
        return Err(Failure::exists(&target.text));
    }
    match source.fs.rename(&source.path, &target.path).await? {
        true => Ok(()),
        false => Err(Failure::refused(&source.text)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_cp_keeps() {
        let mut args: Vec<String> = ["-f", "-ptx", "/a", "/b"].map(String::from).to_vec();
        let preserve = pop_preserve(&mut args).unwrap();
        assert!(preserve.times && !preserve.owner && !preserve.mode);
        assert_eq!(args, ["-f", "/a", "/b"]);
        let mut args: Vec<String> = ["--", "-p", "/b"].map(String::from).to_vec();
        assert!(!pop_preserve(&mut args).unwrap().times);
        assert_eq!(args.len(), 3);
        assert!(pop_preserve(&mut vec!["-pz".into()]).is_err());
    }
}
