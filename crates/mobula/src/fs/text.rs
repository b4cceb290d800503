//! `text`: what is in files, unpacked where they are packed, and written out where they are no text.

use std::io::{ErrorKind, Write};

use bzip2::write::BzDecoder;
use flate2::write::{MultiGzDecoder, ZlibDecoder};

use super::avro;
use super::failure::{Failure, Outcome};
use super::filesystem::Reader;
use super::item::Item;
use super::options::{Format, MANY};
use super::pull::Pull;
use super::sequence_file;
use super::shell::Shell;
use super::show::open_file;

/// Compressed bytes handed to a decoder at once: they grow 1,032 times at most.
const DECODE_PIECE: usize = 4096;
/// Bytes of the shortest header of gzip.
const GZIP_HEADER: u64 = 10;

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
    Bzip2(BzDecoder<Vec<u8>>),
}

/// What a file is.
enum Kind {
    Plain,
    Gzip,
    Zlib,
    Bzip2,
    SequenceFile,
    Avro,
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
    let unpack = match kind_of(item, &head)? {
        Kind::Plain => Unpack::Plain,
        Kind::Gzip => Unpack::Gzip(MultiGzDecoder::new(Vec::new())),
        Kind::Zlib => Unpack::Zlib(ZlibDecoder::new(Vec::new())),
        Kind::Bzip2 => Unpack::Bzip2(BzDecoder::new(Vec::new())),
        Kind::SequenceFile => return sequence_file::show(shell, item, Pull::new(reader, &head)).await,
        Kind::Avro => return avro::show(shell, Pull::new(reader, &head)).await,
    };
    show_stream(shell, unpack, head, reader).await
}

async fn show_stream(
    shell: &mut Shell,
    mut unpack: Unpack,
    head: Vec<u8>,
    mut reader: Reader,
) -> Outcome<()> {
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
fn kind_of(item: &Item, head: &[u8]) -> Outcome<Kind> {
    match head {
        // Too short to be anything else.
        [] | [_] => return Ok(Kind::Plain),
        [0x1f, 0x8b, ..] => return Ok(Kind::Gzip),
        [b'S', b'E', b'Q', ..] => return Ok(Kind::SequenceFile),
        [b'O', b'b', b'j', 1, ..] => return Ok(Kind::Avro),
        [b'O', b'b', b'j', ..] => return Err(Failure::other("Not an Avro data file")),
        [b'O', b'b', ..] => return Ok(Kind::Plain),
        _ => {}
    }
    match item.name().rsplit_once('.').map_or("", |(_, ending)| ending) {
        "gz" if item.status()?.length < GZIP_HEADER => Err(Failure::other("Unexpected end of input stream")),
        "gz" => Err(Failure::other("not a gzip file")),
        "deflate" if !is_zlib(head) => Err(Failure::other("incorrect header check")),
        "deflate" => Ok(Kind::Zlib),
        "bz2" => Ok(Kind::Bzip2),
        "zst" | "lz4" | "snappy" => Err(Failure::path(&item.text, "this compression cannot be unpacked yet")),
        _ => Ok(Kind::Plain),
    }
}

/// Whether the first two bytes are the header of zlib's format.
fn is_zlib(head: &[u8]) -> bool {
    matches!(head, [first, second, ..] if u16::from_be_bytes([*first, *second]) % 31 == 0)
}

impl Unpack {
    fn feed(&mut self, part: &[u8]) -> std::io::Result<()> {
        match self {
            Unpack::Plain => Ok(()),
            Unpack::Gzip(decoder) => decoder.write_all(part),
            Unpack::Zlib(decoder) => decoder.write_all(part),
            Unpack::Bzip2(decoder) => feed_bzip2(decoder, part),
        }
    }

    /// Prints what came out; `part` itself if nothing is packed.
    fn drain(&mut self, shell: &mut Shell, part: &[u8]) -> Outcome<()> {
        let buffer = match self {
            Unpack::Plain => return shell.print_bytes(part),
            Unpack::Gzip(decoder) => decoder.get_mut(),
            Unpack::Zlib(decoder) => decoder.get_mut(),
            Unpack::Bzip2(decoder) => decoder.get_mut(),
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
            Unpack::Bzip2(decoder) => decoder.flush(),
        }
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Unpack::Plain => Ok(Vec::new()),
            Unpack::Gzip(decoder) => decoder.finish(),
            Unpack::Zlib(decoder) => decoder.finish(),
            Unpack::Bzip2(mut decoder) => decoder.finish(),
        }
    }
}

/// Streams may follow one another.
fn feed_bzip2(decoder: &mut BzDecoder<Vec<u8>>, mut part: &[u8]) -> std::io::Result<()> {
    while !part.is_empty() {
        match decoder.write(part)? {
            0 => *decoder = BzDecoder::new(decoder.finish()?),
            taken => part = &part[taken..],
        }
    }
    Ok(())
}
