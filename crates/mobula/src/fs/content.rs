//! Verbs that change what is in a file: `appendToFile`, `truncate`, `concat`.

use std::time::Duration;

use mobula_client::FileWriter;

use super::copy::remote_destination;
use super::failure::{Failure, Kind, Outcome};
use super::filesystem::Reader;
use super::input::Input;
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;

/// Pause of `truncate -w` between looks; a dot is printed after so many.
const WAIT_PAUSE: Duration = Duration::from_millis(100);
const LOOKS_PER_DOT: u32 = 10;

/// Appends local files, or standard input.
pub async fn append_to_file(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    if args.len() < 2 {
        return Err(Failure::other("missing destination argument"));
    }
    let new_block = Format::new(2, MANY, &["n"]).parse(&mut args)?.has("n");
    let target = remote_destination(shell, &mut args).await?;
    let hdfs = target.fs.as_hdfs()?;
    let mut sources = Vec::new();
    for arg in args.iter().filter(|arg| *arg != "-") {
        sources.push(shell.local_item(arg).await?);
    }
    if !target.exists() {
        target.fs.check_name(&target.path, &target.text)?;
        hdfs.create_new(&target.path).await?.close().await?;
    }
    if sources.len() < args.len() && !sources.is_empty() {
        return Err(Failure::other("stdin (-) must be the sole input argument when present"));
    }
    let mut writer = hdfs.append(&target.path, new_block).await?;
    let added = match sources.is_empty() {
        true => add_input(&mut writer).await,
        false => add_files(&mut writer, &sources).await,
    };
    // What came before a failure stays, as with Java's shell.
    let closed = writer.close().await;
    added?;
    Ok(closed?)
}

async fn add_input(writer: &mut FileWriter) -> Outcome<()> {
    let mut input = Input::open();
    while let Some(piece) = input.next().await? {
        writer.write(piece).await?;
    }
    Ok(())
}

async fn add_files(writer: &mut FileWriter, sources: &[Item]) -> Outcome<()> {
    for source in sources {
        let mut reader = open(source).await?;
        while let Some(piece) = reader.next().await? {
            writer.write(piece).await?;
        }
    }
    Ok(())
}

/// A local file to read; what is wrong with it is told in fewer words than elsewhere.
async fn open(source: &Item) -> Outcome<Reader> {
    if source.is_directory() {
        return Err(Failure::other("Is a directory"));
    }
    source.fs.open(&source.path).await.map_err(|failure| match failure.kind {
        Kind::NotFound | Kind::Denied => Failure::other(&source.path),
        _ => failure,
    })
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
                "Truncating {} to length: {length}. Wait for block recovery to complete before further updating this file.",
                item.text
            ))?,
            Err(failure) => shell.settle(Err(failure))?,
        }
    }
    for mut item in waiting {
        wait_until_cut(shell, &mut item, length).await?;
    }
    Ok(())
}

async fn wait_until_cut(shell: &mut Shell, item: &mut Item, length: u64) -> Outcome<()> {
    shell.print_bytes(format!("Waiting for {} ...", item.text).as_bytes())?;
    shell.flush()?;
    let mut looks = 0;
    // The length may be the new one before the last block is cut.
    while item.refresh().await?.length != length || !item.fs.as_hdfs()?.is_closed(&item.path).await? {
        looks += 1;
        if looks % LOOKS_PER_DOT == 0 {
            shell.print_bytes(b".")?;
            shell.flush()?;
        }
        tokio::time::sleep(WAIT_PAUSE).await;
    }
    shell.line(format!("\nTruncated {} to length: {length}", item.text))
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
    item.fs.as_hdfs()?.truncate(&item.path, length).await
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
    let sources: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    target.fs.as_hdfs()?.concat(&target.path, &sources).await
}
