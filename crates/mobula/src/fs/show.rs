//! `cat`, `text`, `head`, `tail`, `checksum`: what is in files.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use flate2::write::{MultiGzDecoder, ZlibDecoder};
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
/// Compressed bytes handed to a decoder at once: they grow 1,032 times at most.
const DECODE_PIECE: usize = 4096;
/// Bytes of the shortest header of gzip.
const GZIP_HEADER: u64 = 10;

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

async fn open_file(item: &Item) -> Outcome<Reader> {
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

/// Prints files, unpacked where they are packed.
pub async fn text(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(1, MANY, &["ignoreCrc"]).parse(&mut args)?;
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        let shown = text_one(shell, &item).await;
        shell.settle(shown)?;
    }
    Ok(())
}

/// How a file is unpacked.
enum Unpack {
    Plain,
    Gzip(MultiGzDecoder<Vec<u8>>),
    Zlib(ZlibDecoder<Vec<u8>>),
}

async fn text_one(shell: &mut Shell, item: &Item) -> Outcome<()> {
    let mut reader = open_file(item).await?;
    // The first bytes tell what it is; a first piece may be shorter than they are.
    let mut head = Vec::new();
    while head.len() < 4 {
        match reader.next().await? {
            Some(piece) => head.extend_from_slice(&piece),
            None => break,
        }
    }
    let mut unpack = unpacker(item, &head)?;
    let mut piece = Some(head.into());
    while let Some(bytes) = piece {
        let bytes: bytes::Bytes = bytes;
        for part in bytes.chunks(DECODE_PIECE) {
            let fed = unpack.feed(part);
            unpack.drain(shell, part)?;
            fed.map_err(|error| Failure::other(error.to_string()))?;
        }
        piece = reader.next().await?;
    }
    // What there is of a file that was cut is shown before that is told.
    let flushed = unpack.flush();
    unpack.drain(shell, &[])?;
    let finished = flushed.and_then(|()| unpack.finish());
    shell.print_bytes(&finished.map_err(cut_off)?)?;
    shell.flush()
}

/// A packed file ended too early; the words are Java's.
fn cut_off(error: std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::UnexpectedEof => Failure::other("Unexpected end of ZLIB input stream"),
        _ => Failure::other(error.to_string()),
    }
}

/// By the first bytes, and then by the name's ending (HDFS: `Display.Text.getInputStream`).
fn unpacker(item: &Item, head: &[u8]) -> Outcome<Unpack> {
    let unsupported = |what| Err(Failure::path(&item.text, what));
    match head {
        // Too short to be anything else.
        [] | [_] => return Ok(Unpack::Plain),
        [0x1f, 0x8b, ..] => return Ok(Unpack::Gzip(MultiGzDecoder::new(Vec::new()))),
        [b'S', b'E', b'Q', ..] => return unsupported("SequenceFiles cannot be shown as text yet"),
        [b'O', b'b', b'j', 1, ..] => return unsupported("Avro files cannot be shown as text yet"),
        [b'O', b'b', b'j', ..] => return Err(Failure::other("Not an Avro data file")),
        [b'O', b'b', ..] => return Ok(Unpack::Plain),
        _ => {}
    }
    match item.name().rsplit_once('.').map_or("", |(_, ending)| ending) {
        "gz" if item.status()?.length < GZIP_HEADER => Err(Failure::other("Unexpected end of input stream")),
        "gz" => Err(Failure::other("not a gzip file")),
        "deflate" => Ok(Unpack::Zlib(ZlibDecoder::new(Vec::new()))),
        "bz2" => unsupported("bzip2 cannot be unpacked yet"),
        "zst" | "lz4" | "snappy" => unsupported("this compression cannot be unpacked yet"),
        _ => Ok(Unpack::Plain),
    }
}

impl Unpack {
    fn feed(&mut self, part: &[u8]) -> std::io::Result<()> {
        match self {
            Unpack::Plain => Ok(()),
            Unpack::Gzip(decoder) => decoder.write_all(part),
            Unpack::Zlib(decoder) => decoder.write_all(part),
        }
    }

    /// Prints what came out; `part` itself if nothing is packed.
    fn drain(&mut self, shell: &mut Shell, part: &[u8]) -> Outcome<()> {
        let buffer = match self {
            Unpack::Plain => return shell.print_bytes(part),
            Unpack::Gzip(decoder) => decoder.get_mut(),
            Unpack::Zlib(decoder) => decoder.get_mut(),
        };
        shell.print_bytes(buffer)?;
        buffer.clear();
        Ok(())
    }

    /// All that can be made of what was fed comes out.
    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Unpack::Plain => Ok(()),
            Unpack::Gzip(decoder) => decoder.flush(),
            Unpack::Zlib(decoder) => decoder.flush(),
        }
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Unpack::Plain => Ok(Vec::new()),
            Unpack::Gzip(decoder) => decoder.finish(),
            Unpack::Zlib(decoder) => decoder.finish(),
        }
    }
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
