//! `touch` and `touchz`.

use super::date;
use super::failure::{Failure, Outcome};
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;

/// Makes empty files.
pub async fn touchz(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(1, MANY, &[]).parse(&mut args)?;
    for item in shell.expand_all(&args).await? {
        let touched = touchz_one(&item).await;
        shell.settle(touched)?;
    }
    Ok(())
}

async fn touchz_one(item: &Item) -> Outcome<()> {
    match &item.status {
        Some(status) if status.is_directory() => Err(Failure::is_directory(&item.text)),
        Some(status) if status.length != 0 => Err(Failure::path(&item.text, "Not a zero-length file")),
        Some(_) => make_empty(item).await,
        None => make_missing(item).await,
    }
}

async fn make_missing(item: &Item) -> Outcome<()> {
    if !item.parent_exists().await? {
        return Err(Failure::not_found_in_full(&item.text, &item.qualified()));
    }
    make_empty(item).await
}

async fn make_empty(item: &Item) -> Outcome<()> {
    item.fs.create(&item.path, None).await?.close().await
}

/// Which times `touch` sets.
struct Times {
    modified: bool,
    accessed: bool,
    /// Milliseconds; `None`: now.
    at: Option<u64>,
    make: bool,
}

/// Sets times, and makes what is missing.
pub async fn touch(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let stamp = pop_timestamp(&mut args)?;
    let given = Format::new(1, MANY, &["a", "m", "t", "c"]).parse(&mut args)?;
    let (only_modified, only_accessed) = (given.has("m"), given.has("a"));
    let parse = |text: String| {
        date::parse_touch(&text).ok_or_else(|| {
            Failure::usage(format!(
                "Unable to parse the specified timestamp {text}. The expected format is yyyyMMdd:HHmmss"
            ))
        })
    };
    let at = stamp.map(parse).transpose()?;
    let times = Times {
        modified: only_modified || !only_accessed,
        accessed: only_accessed || !only_modified,
        at,
        make: !given.has("c"),
    };
    let now_ms = shell.context.env.clock.now_ms();
    for item in shell.expand_all(&args).await? {
        let touched = touch_one(&item, &times, now_ms).await;
        shell.settle(touched)?;
    }
    Ok(())
}

/// Takes `-t STAMP` out of the arguments.
fn pop_timestamp(args: &mut Vec<String>) -> Outcome<Option<String>> {
    let options_end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let Some(at) = args[..options_end].iter().position(|arg| arg == "-t") else { return Ok(None) };
    if at + 1 >= args.len() {
        return Err(Failure::usage("option -t requires 1 argument."));
    }
    args.remove(at);
    Ok(Some(args.remove(at)))
}

async fn touch_one(item: &Item, times: &Times, now_ms: u64) -> Outcome<()> {
    if !item.exists() {
        // The parent is looked for even if nothing shall be made.
        if !item.parent_exists().await? {
            return Err(Failure::not_found_in_full(&item.text, &item.qualified()));
        }
        if !times.make {
            return Ok(());
        }
        make_empty(item).await?;
        if times.at.is_none() {
            return Ok(());
        }
    }
    let at = times.at.unwrap_or(now_ms);
    item.fs.set_times(&item.path, times.modified.then_some(at), times.accessed.then_some(at)).await
}
