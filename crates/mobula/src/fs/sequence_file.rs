//! Hadoop's SequenceFiles as text: a line for each record, key and value. Of the classes that they may hold we
//! know those of `org.apache.hadoop.io` that are a number or a text.

use bytes::Bytes;
use bzip2::read::MultiBzDecoder;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::failure::{Failure, Outcome};
use super::item::Item;
use super::pull::{Fields, Pull, cut, java_number, unpacked};
use super::shell::Shell;

/// The version that is written since 2007, and those before it back to the one that has blocks.
const VERSION: u8 = 6;
const VERSION_OLDEST: u8 = 5;
/// Bytes of the mark between records.
const SYNC: usize = 16;
/// Most records of a block that take no byte each.
const EMPTY_MAX: usize = 1 << 20;
/// Stands before the mark, where a length would stand.
const SYNC_ESCAPE: i32 = -1;

/// What the head of a file says.
struct Head {
    key: Class,
    value: Class,
    codec: Option<Codec>,
    in_blocks: bool,
    sync: Bytes,
}

/// Prints the records of a file.
///
/// # Errors
/// It is no SequenceFile, holds what we cannot show, or is damaged.
pub async fn show(shell: &mut Shell, item: &Item, mut file: Pull) -> Outcome<()> {
    let head = Head::read(item, &mut file).await?;
    while !file.is_at_end().await? {
        match head.in_blocks {
            true => show_block(shell, &head, &mut file).await?,
            false => show_record(shell, &head, &mut file).await?,
        }
    }
    shell.flush()
}

impl Head {
    async fn read(item: &Item, file: &mut Pull) -> Outcome<Head> {
        let no_file = |_| Failure::other(format!("{} not a SequenceFile", item.qualified()));
        let magic = file.take(4).await.map_err(no_file)?;
        if !(VERSION_OLDEST..=VERSION).contains(&magic[3]) {
            let found = magic[3];
            return Err(Failure::other(format!(
                "A record version mismatch occurred. Expecting v{VERSION}, found v{found}"
            )));
        }
        let (key, value) = (string(file).await?, string(file).await?);
        let flags = file.take(2).await?;
        let (packed, in_blocks) = (flags[0] != 0, flags[1] != 0);
        let codec = match packed {
            true => Some(Codec::named(&string(file).await?)?),
            false => None,
        };
        if magic[3] >= VERSION {
            let pairs = int(file).await?;
            for _ in 0..pairs.saturating_mul(2) {
                string(file).await?;
            }
        }
        let sync = file.take(SYNC).await?;
        Ok(Head { key: Class::named(&key)?, value: Class::named(&value)?, codec, in_blocks, sync })
    }

    async fn check_sync(&self, file: &mut Pull) -> Outcome<()> {
        match file.take(SYNC).await? == self.sync {
            true => Ok(()),
            false => Err(Failure::other("File is corrupt!")),
        }
    }

    fn unpack(&self, bytes: Bytes) -> Outcome<Bytes> {
        match &self.codec {
            Some(codec) => codec.unpack(&bytes),
            None => Ok(bytes),
        }
    }
}

async fn show_record(shell: &mut Shell, head: &Head, file: &mut Pull) -> Outcome<()> {
    let mut length = int(file).await?;
    if length == SYNC_ESCAPE {
        head.check_sync(file).await?;
        if file.is_at_end().await? {
            return Ok(());
        }
        length = int(file).await?;
    }
    let key_length = usize::try_from(int(file).await?).map_err(|_| cut())?;
    let record = file.take(usize::try_from(length).map_err(|_| cut())?).await?;
    if key_length > record.len() {
        return Err(cut());
    }
    let value = head.unpack(record.slice(key_length..))?;
    let (mut key, mut value) = (Fields(&record[..key_length]), Fields(&value));
    shell.line(format!("{}\t{}", head.key.text(&mut key)?, head.value.text(&mut value)?))
}

async fn show_block(shell: &mut Shell, head: &Head, file: &mut Pull) -> Outcome<()> {
    // The escape, which nothing else may stand in place of.
    int(file).await?;
    head.check_sync(file).await?;
    let records = varlong(file).await?;
    // Lengths stand before both; each key and value says itself how long it is.
    part(file).await?;
    let keys = head.unpack(part(file).await?)?;
    part(file).await?;
    let values = head.unpack(part(file).await?)?;
    if records > i64::try_from((keys.len() + values.len()).max(EMPTY_MAX)).unwrap_or(i64::MAX) {
        return Err(Failure::other("File is corrupt!"));
    }
    let (mut keys, mut values) = (Fields(&keys), Fields(&values));
    for _ in 0..records {
        shell.line(format!("{}\t{}", head.key.text(&mut keys)?, head.value.text(&mut values)?))?;
    }
    Ok(())
}

async fn part(file: &mut Pull) -> Outcome<Bytes> {
    let length = usize::try_from(varlong(file).await?).map_err(|_| cut())?;
    file.take(length).await
}

/// How values are packed.
enum Codec {
    Zlib,
    Gzip,
    Bzip2,
}

impl Codec {
    fn named(class: &str) -> Outcome<Codec> {
        Ok(match class.strip_prefix("org.apache.hadoop.io.compress.").unwrap_or("") {
            "DefaultCodec" | "DeflateCodec" => Codec::Zlib,
            "GzipCodec" => Codec::Gzip,
            "BZip2Codec" => Codec::Bzip2,
            _ => return Err(Failure::usage(format!("Unknown codec: {class}"))),
        })
    }

    fn unpack(&self, bytes: &[u8]) -> Outcome<Bytes> {
        match self {
            Codec::Zlib => unpacked(ZlibDecoder::new(bytes), "record"),
            Codec::Gzip => unpacked(MultiGzDecoder::new(bytes), "record"),
            Codec::Bzip2 => unpacked(MultiBzDecoder::new(bytes), "record"),
        }
    }
}

/// A class of `org.apache.hadoop.io` that we can read.
#[derive(Clone, Copy)]
enum Class {
    Boolean,
    Byte,
    Short,
    Int,
    Long,
    VarInt,
    Float,
    Double,
    Text,
    Utf8,
    Bytes,
    Md5,
    Null,
}

impl Class {
    fn named(name: &str) -> Outcome<Class> {
        Ok(match name.strip_prefix("org.apache.hadoop.io.").unwrap_or("") {
            "BooleanWritable" => Class::Boolean,
            "ByteWritable" => Class::Byte,
            "ShortWritable" => Class::Short,
            "IntWritable" => Class::Int,
            "LongWritable" => Class::Long,
            "VIntWritable" | "VLongWritable" => Class::VarInt,
            "FloatWritable" => Class::Float,
            "DoubleWritable" => Class::Double,
            "Text" => Class::Text,
            "UTF8" => Class::Utf8,
            "BytesWritable" => Class::Bytes,
            "MD5Hash" => Class::Md5,
            "NullWritable" => Class::Null,
            _ => return Err(Failure::other(format!("WritableName can't load class: {name}"))),
        })
    }

    /// Takes one from `fields`, and writes it as its `toString` does.
    fn text(self, fields: &mut Fields<'_>) -> Outcome<String> {
        Ok(match self {
            Class::Boolean => (fields.array::<1>()? != [0]).to_string(),
            Class::Byte => i8::from_be_bytes(fields.array()?).to_string(),
            Class::Short => i16::from_be_bytes(fields.array()?).to_string(),
            Class::Int => i32::from_be_bytes(fields.array()?).to_string(),
            Class::Long => i64::from_be_bytes(fields.array()?).to_string(),
            Class::VarInt => varlong_of(fields)?.to_string(),
            Class::Float => java_number(&format!("{:e}", f32::from_be_bytes(fields.array()?))),
            Class::Double => java_number(&format!("{:e}", f64::from_be_bytes(fields.array()?))),
            Class::Text => {
                let length = usize::try_from(varlong_of(fields)?).map_err(|_| cut())?;
                String::from_utf8_lossy(fields.take(length)?).into_owned()
            }
            Class::Utf8 => {
                let length = usize::from(u16::from_be_bytes(fields.array()?));
                String::from_utf8_lossy(fields.take(length)?).into_owned()
            }
            Class::Bytes => {
                let length = u32::from_be_bytes(fields.array()?) as usize;
                let digits: Vec<String> =
                    fields.take(length)?.iter().map(|byte| format!("{byte:02x}")).collect();
                digits.join(" ")
            }
            Class::Md5 => fields.array::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect(),
            Class::Null => "(null)".into(),
        })
    }
}

async fn int(file: &mut Pull) -> Outcome<i32> {
    Fields(&file.take(4).await?).array().map(i32::from_be_bytes)
}

async fn string(file: &mut Pull) -> Outcome<String> {
    let length = usize::try_from(varlong(file).await?).map_err(|_| cut())?;
    Ok(String::from_utf8_lossy(&file.take(length).await?).into_owned())
}

async fn varlong(file: &mut Pull) -> Outcome<i64> {
    let first = file.take(1).await?[0];
    let rest = file.take(bytes_after(first)).await?;
    Ok(varlong_from(first, &rest))
}

fn varlong_of(fields: &mut Fields<'_>) -> Outcome<i64> {
    let [first] = fields.array()?;
    Ok(varlong_from(first, fields.take(bytes_after(first))?))
}

/// How many bytes follow the first one of a number (HDFS: `WritableUtils.decodeVIntSize`).
fn bytes_after(first: u8) -> usize {
    match first as i8 {
        -120..=-113 => (-112 - i32::from(first as i8)) as usize,
        -128..=-121 => (-120 - i32::from(first as i8)) as usize,
        _ => 0,
    }
}

fn varlong_from(first: u8, rest: &[u8]) -> i64 {
    if rest.is_empty() {
        return i64::from(first as i8);
    }
    let value = rest.iter().fold(0_i64, |value, byte| value << 8 | i64::from(*byte));
    if (first as i8) < -120 { !value } else { value }
}
