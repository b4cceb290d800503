//! Avro data files as text: a line of JSON for each datum, as Avro's `JsonEncoder` writes it.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use bzip2::read::MultiBzDecoder;
use flate2::read::DeflateDecoder;
use serde_json::Value;

use super::failure::{Failure, Outcome};
use super::pull::{Fields, Pull, cut, java_number, unpacked};
use super::shell::Shell;

/// Bytes of the mark after each block.
const SYNC: usize = 16;
/// Most data of a block that take no byte each.
const EMPTY_MAX: usize = 1 << 20;
/// Most bytes of text that one datum may become.
const TEXT_MAX: usize = 256 << 20;
/// How deep values and types may lie in one another.
const DEPTH_MAX: usize = 200;

/// Prints the data of a file that begins as one of Avro's.
///
/// # Errors
/// It is damaged, or packed in a way that we do not know.
pub async fn show(shell: &mut Shell, mut file: Pull) -> Outcome<()> {
    file.take(4).await?;
    let about = metadata(&mut file).await?;
    let entry = |key: &str| about.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let schema = serde_json::from_str(&entry("avro.schema").unwrap_or_default());
    let schema = schema.map_err(|error| Failure::other(format!("the schema is no JSON: {error}")))?;
    let mut types = Types::default();
    let schema = types.read(&schema, "", 0)?;
    let codec = Codec::named(entry("avro.codec").as_deref().unwrap_or("null"))?;
    let sync = file.take(SYNC).await?;
    while !file.is_at_end().await? {
        let (count, length) = (varlong(&mut file).await?, varlong(&mut file).await?);
        let block = file.take(usize::try_from(length).map_err(|_| cut())?).await?;
        let block = codec.unpack(block)?;
        let mut fields = Fields(&block);
        if count > i64::try_from(block.len().max(EMPTY_MAX)).unwrap_or(i64::MAX) {
            return Err(Failure::other(format!("a block of {count} data has {} bytes", block.len())));
        }
        for _ in 0..count {
            let mut text = String::new();
            types.write(&schema, &mut fields, &mut text, 0)?;
            shell.line(text)?;
        }
        if file.take(SYNC).await? != sync {
            return Err(Failure::other("Invalid sync!"));
        }
    }
    shell.flush()
}

async fn metadata(file: &mut Pull) -> Outcome<BTreeMap<String, Bytes>> {
    let mut about = BTreeMap::new();
    loop {
        let count = varlong(file).await?;
        if count == 0 {
            return Ok(about);
        }
        if count < 0 {
            // The bytes of all that follows.
            varlong(file).await?;
        }
        for _ in 0..count.unsigned_abs() {
            let key = String::from_utf8_lossy(&bytes(file).await?).into_owned();
            about.insert(key, bytes(file).await?);
        }
    }
}

async fn bytes(file: &mut Pull) -> Outcome<Bytes> {
    let length = usize::try_from(varlong(file).await?).map_err(|_| cut())?;
    file.take(length).await
}

async fn varlong(file: &mut Pull) -> Outcome<i64> {
    let mut number = Varlong::default();
    loop {
        if let Some(value) = number.add(file.take(1).await?[0])? {
            return Ok(value);
        }
    }
}

fn varlong_of(fields: &mut Fields<'_>) -> Outcome<i64> {
    let mut number = Varlong::default();
    loop {
        let [byte] = fields.array()?;
        if let Some(value) = number.add(byte)? {
            return Ok(value);
        }
    }
}

fn length_of(fields: &mut Fields<'_>) -> Outcome<usize> {
    usize::try_from(varlong_of(fields)?).map_err(|_| cut())
}

/// A number of seven bits a byte, the lowest first, of which the lowest bit is the sign.
#[derive(Default)]
struct Varlong {
    value: u64,
    bits: u32,
}

impl Varlong {
    fn add(&mut self, byte: u8) -> Outcome<Option<i64>> {
        if self.bits >= 64 {
            return Err(Failure::other("Invalid long encoding"));
        }
        self.value |= u64::from(byte & 0x7f) << self.bits;
        self.bits += 7;
        let value = (self.value >> 1) as i64 ^ -((self.value & 1) as i64);
        Ok((byte & 0x80 == 0).then_some(value))
    }
}

enum Codec {
    Null,
    Deflate,
    Bzip2,
}

impl Codec {
    fn named(name: &str) -> Outcome<Codec> {
        Ok(match name {
            "null" => Codec::Null,
            "deflate" => Codec::Deflate,
            "bzip2" => Codec::Bzip2,
            other => return Err(Failure::other(format!("Unrecognized codec: {other}"))),
        })
    }

    fn unpack(&self, block: Bytes) -> Outcome<Bytes> {
        match self {
            Codec::Null => Ok(block),
            Codec::Deflate => unpacked(DeflateDecoder::new(&block[..]), "block"),
            Codec::Bzip2 => unpacked(MultiBzDecoder::new(&block[..]), "block"),
        }
    }
}

/// A type, in which others may lie.
#[derive(Clone, Debug)]
enum Schema {
    Null,
    Boolean,
    /// `int` or `long`: they are written the same.
    Whole(&'static str),
    Float,
    Double,
    Bytes,
    String,
    Array(Box<Schema>),
    Map(Box<Schema>),
    Union(Vec<Schema>),
    /// One that has a name, which may lie in itself.
    Named(String),
}

/// A type that has a name.
#[derive(Clone, Debug)]
enum Named {
    Record(Vec<(String, Schema)>),
    Enum(Vec<String>),
    Fixed(usize),
}

#[derive(Debug, Default)]
struct Types {
    by_name: BTreeMap<String, Named>,
}

impl Types {
    /// Reads a schema, and keeps the types that have names.
    fn read(&mut self, schema: &Value, namespace: &str, depth: usize) -> Outcome<Schema> {
        if depth > DEPTH_MAX {
            return Err(Failure::other("the schema is too deep"));
        }
        let wrong = || Failure::other(format!("the schema has no type of this kind: {schema}"));
        match schema {
            Value::String(name) => Ok(self.of_name(name, namespace)),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.read(branch, namespace, depth + 1));
                Ok(Schema::Union(branches.collect::<Outcome<_>>()?))
            }
            Value::Object(members) => match members.get("type").ok_or_else(wrong)? {
                Value::String(kind) => match kind.as_str() {
                    "array" | "map" => {
                        let inner = members.get(if kind == "array" { "items" } else { "values" });
                        let inner = Box::new(self.read(inner.ok_or_else(wrong)?, namespace, depth + 1)?);
                        Ok(if kind == "array" { Schema::Array(inner) } else { Schema::Map(inner) })
                    }
                    "record" | "error" | "enum" | "fixed" => {
                        self.read_named(kind, schema, namespace, depth).transpose().ok_or_else(wrong)?
                    }
                    name => Ok(self.of_name(name, namespace)),
                },
                other => self.read(other, namespace, depth + 1),
            },
            _ => Err(wrong()),
        }
    }

    fn of_name(&self, name: &str, namespace: &str) -> Schema {
        match name {
            "null" => Schema::Null,
            "boolean" => Schema::Boolean,
            "int" => Schema::Whole("int"),
            "long" => Schema::Whole("long"),
            "float" => Schema::Float,
            "double" => Schema::Double,
            "bytes" => Schema::Bytes,
            "string" => Schema::String,
            name => Schema::Named(full_name(name, namespace)),
        }
    }

    fn read_named(
        &mut self,
        kind: &str,
        schema: &Value,
        around: &str,
        depth: usize,
    ) -> Outcome<Option<Schema>> {
        let Some(name) = schema["name"].as_str() else { return Ok(None) };
        let name = full_name(name, schema["namespace"].as_str().unwrap_or(around));
        let named = match kind {
            "fixed" => schema["size"].as_u64().and_then(|size| usize::try_from(size).ok()).map(Named::Fixed),
            "enum" => schema["symbols"].as_array().map(|symbols| {
                Named::Enum(symbols.iter().map(|symbol| symbol.as_str().unwrap_or("").to_owned()).collect())
            }),
            _ => {
                let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
                let mut fields = Vec::new();
                for field in schema["fields"].as_array().into_iter().flatten() {
                    let name = field["name"].as_str().unwrap_or("").to_owned();
                    fields.push((name, self.read(&field["type"], namespace, depth + 1)?));
                }
                Some(Named::Record(fields))
            }
        };
        Ok(named.map(|named| {
            self.by_name.insert(name.clone(), named);
            Schema::Named(name)
        }))
    }

    /// Takes a value from `fields`, and writes it as JSON.
    fn write(&self, schema: &Schema, fields: &mut Fields<'_>, out: &mut String, depth: usize) -> Outcome<()> {
        if depth > DEPTH_MAX || out.len() > TEXT_MAX {
            return Err(Failure::other("a datum is too large, or too deep"));
        }
        match schema {
            Schema::Null => out.push_str("null"),
            Schema::Boolean => out.push_str(if fields.array()? == [0] { "false" } else { "true" }),
            Schema::Whole(_) => out.push_str(&varlong_of(fields)?.to_string()),
            Schema::Float => write_number(&format!("{:e}", f32::from_le_bytes(fields.array()?)), out),
            Schema::Double => write_number(&format!("{:e}", f64::from_le_bytes(fields.array()?)), out),
            Schema::Bytes => {
                let length = length_of(fields)?;
                write_latin(fields.take(length)?, out);
            }
            Schema::String => {
                let length = length_of(fields)?;
                write_text(&String::from_utf8_lossy(fields.take(length)?), out);
            }
            Schema::Array(items) => {
                self.write_items(fields, out, ['[', ']'], |fields, out| {
                    self.write(items, fields, out, depth + 1)
                })?;
            }
            Schema::Map(values) => self.write_items(fields, out, ['{', '}'], |fields, out| {
                self.write(&Schema::String, fields, out, depth + 1)?;
                out.push(':');
                self.write(values, fields, out, depth + 1)
            })?,
            Schema::Union(branches) => self.write_branch(branches, fields, out, depth)?,
            Schema::Named(name) => self.write_named(name, fields, out, depth)?,
        }
        Ok(())
    }

    /// Items in blocks, each with their number before it, until one has none.
    fn write_items(
        &self,
        fields: &mut Fields<'_>,
        out: &mut String,
        [open, close]: [char; 2],
        one: impl Fn(&mut Fields<'_>, &mut String) -> Outcome<()>,
    ) -> Outcome<()> {
        out.push(open);
        let mut first = true;
        loop {
            let count = varlong_of(fields)?;
            if count == 0 {
                break;
            }
            if count < 0 {
                varlong_of(fields)?;
            }
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                one(fields, out)?;
            }
        }
        out.push(close);
        Ok(())
    }

    fn write_branch(
        &self,
        branches: &[Schema],
        fields: &mut Fields<'_>,
        out: &mut String,
        depth: usize,
    ) -> Outcome<()> {
        let branch = branches.get(length_of(fields)?).ok_or_else(cut)?;
        let label = match branch {
            Schema::Null => return self.write(branch, fields, out, depth + 1),
            Schema::Boolean => "boolean",
            Schema::Whole(name) => name,
            Schema::Float => "float",
            Schema::Double => "double",
            Schema::Bytes => "bytes",
            Schema::String => "string",
            Schema::Array(_) => "array",
            Schema::Map(_) => "map",
            Schema::Named(name) => name,
            Schema::Union(_) => return Err(Failure::other("a union lies in a union")),
        };
        out.push('{');
        write_text(label, out);
        out.push(':');
        self.write(branch, fields, out, depth + 1)?;
        out.push('}');
        Ok(())
    }

    fn write_named(
        &self,
        name: &str,
        fields: &mut Fields<'_>,
        out: &mut String,
        depth: usize,
    ) -> Outcome<()> {
        let named = self.by_name.get(name);
        match named.ok_or_else(|| Failure::other(format!("the schema has no type \"{name}\"")))? {
            Named::Fixed(size) => write_latin(fields.take(*size)?, out),
            Named::Enum(symbols) => write_text(symbols.get(length_of(fields)?).ok_or_else(cut)?, out),
            Named::Record(members) => {
                out.push('{');
                for (at, (name, schema)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    write_text(name, out);
                    out.push(':');
                    self.write(schema, fields, out, depth + 1)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// Numbers that JSON does not have are texts.
fn write_number(shortest: &str, out: &mut String) {
    let number = java_number(shortest);
    let quote = if number.ends_with(char::is_numeric) { "" } else { "\"" };
    out.push_str(&format!("{quote}{number}{quote}"));
}

/// Bytes as the first 256 characters.
fn write_latin(bytes: &[u8], out: &mut String) {
    write_text(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>(), out);
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\u{1f}' => {
                // Writing to a text never fails.
                let _ = write!(out, "\\u{:04X}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}
