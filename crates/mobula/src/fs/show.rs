//! `cat`, `head`, `tail`, `checksum`: what is in files.

use std::time::Duration;

use mobula_client::client::ChecksumKind;

use super::failure::{Failure, Outcome};
use super::filesystem::Reader;
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;

/// Bytes that `head` and `tail` show.
const SHOWN: u64 = 1024;
/// Pause of `tail -f` between looks (HDFS: `Tail.followDelay`).
const FOLLOW_PAUSE: Duration = Duration::from_millis(5000);

/// Prints files.
pub async fn cat(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(1, MANY, &["ignoreCrc"]).parse(&mut args)?;
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        let shown = cat_one(shell, &item).await;
        shell.settle(shown)?;
    }
    Ok(())
}

/// A file to read, and no directory.
///
/// # Errors
/// It is one, or cannot be opened.
pub async fn open_file(item: &Item) -> Outcome<Reader> {
    if item.is_directory() {
        return Err(Failure::is_directory(&item.text));
    }
    item.fs.open(&item.path).await
}

async fn cat_one(shell: &mut Shell, item: &Item) -> Outcome<()> {
    let mut reader = open_file(item).await?;
    while let Some(piece) = reader.next().await? {
        shell.print_bytes(&piece)?;
    }
    shell.flush()
}

/// Prints the first kilobyte of a file.
pub async fn head(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(1, 1, &[]).parse(&mut args)?;
    let item = shell.item(&args[0]).await?;
    item.status()?;
    let mut reader = open_file(&item).await?;
    let mut left = SHOWN as usize;
    while left > 0 {
        let Some(piece) = reader.next().await? else { break };
        let shown = piece.len().min(left);
        shell.print_bytes(&piece[..shown])?;
        left -= shown;
    }
    shell.flush()
}

/// Prints the last kilobyte of a file, and with `-f` what is added to it.
pub async fn tail(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(1, 1, &["f"]).with_values(&["s"]).parse(&mut args)?;
    let pause = match given.value("s").filter(|_| given.has("f")) {
        None | Some("") => FOLLOW_PAUSE,
        Some(ms) => match ms.parse::<i64>() {
            Ok(ms) if ms > 0 => Duration::from_millis(ms.unsigned_abs()),
            Ok(_) => FOLLOW_PAUSE,
            Err(_) => return Err(Failure::usage(format!("For input string: \"{ms}\""))),
        },
    };
    let mut item = shell.item(&args[0]).await?;
    item.status()?;
    if item.is_directory() {
        return Err(Failure::is_directory(&item.text));
    }
    let length = match item.fs.open(&item.path).await? {
        Reader::Hdfs(reader) => reader.length(),
        Reader::Local(..) => item.status()?.length,
    };
    let mut offset = show_from(shell, &mut item, length.saturating_sub(SHOWN)).await?;
    while given.has("f") {
        tokio::time::sleep(pause).await;
        offset = show_from(shell, &mut item, offset).await?;
    }
    Ok(())
}

/// Prints a file from `offset` to where it ends now, and says where that is. What is still being written
/// is longer than its status says: the reader knows.
async fn show_from(shell: &mut Shell, item: &mut Item, mut offset: u64) -> Outcome<u64> {
    let known = item.refresh().await?.length;
    let mut reader = item.fs.open(&item.path).await?;
    let length = match &reader {
        Reader::Hdfs(reader) => reader.length(),
        Reader::Local(..) => known,
    };
    if offset > length {
        // It was cut, or is another file: what is added from now on is shown.
        return Ok(length);
    }
    reader.seek(offset)?;
    while let Some(piece) = reader.next().await? {
        shell.print_bytes(&piece)?;
        offset += piece.len() as u64;
    }
    shell.flush()?;
    Ok(offset)
}

/// Prints checksums.
pub async fn checksum(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let with_block_size = Format::new(1, MANY, &["v"]).parse(&mut args)?.has("v");
    let kind = match shell.setting("dfs.checksum.combine.mode") {
        None | Some("MD5MD5CRC") => ChecksumKind::Md5,
        Some("COMPOSITE_CRC") => ChecksumKind::Composite,
        Some(other) => {
            return Err(Failure::usage(format!(
                "No enum constant org.apache.hadoop.fs.Options.ChecksumCombineMode.{other}"
            )));
        }
    };
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        let shown = checksum_one(shell, &item, kind, with_block_size).await;
        shell.settle(shown)?;
    }
    Ok(())
}

async fn checksum_one(
    shell: &mut Shell,
    item: &Item,
    kind: ChecksumKind,
    with_block_size: bool,
) -> Outcome<()> {
    let status = item.status()?;
    if status.is_directory() {
        return Err(Failure::is_directory(&item.text));
    }
    let sum = match &item.fs {
        super::filesystem::FileSystem::Hdfs(hdfs) => {
            let (algorithm, bytes) = hdfs.checksum(&item.path, kind).await?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{algorithm}\t{hex}")
        }
        super::filesystem::FileSystem::Local(_) => "NONE".into(),
    };
    let text = &item.text;
    match with_block_size {
        true => shell.line(format!("{text}\t{sum}\tBlockSize={}", status.block_size)),
        false => shell.line(format!("{text}\t{sum}")),
    }
}
