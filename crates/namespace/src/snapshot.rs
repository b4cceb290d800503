//! All tables as one stream: what a new voter is sent, and what a backup is. The layout is drawn in
//! `docs/formats/tables.md`. Logical: it holds rows, not pages, so that any version of the tree below
//! can read it.

use std::io::{self, Read, Write};

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use crate::record::put_number;
use crate::table::{
    BLOCKS, BytesDefinition, ENTRIES, FILE_BLOCKS, INODES, META, NAMES, NumberDefinition, OPEN, REAP, RETRY,
    RETRY_ROWS, TableError,
};

/// First bytes of a snapshot.
const MAGIC: &[u8; 8] = b"MOBNSNAP";
const VERSION: u32 = 1;
/// Longest key or value that is believed, bytes: a name has at most 32,000, a record's targets a few
/// hundred each, and a row of the retry cache less than 100 a command.
const PART_BYTES_MAX: u64 = 16 << 20;
const ROW: u8 = 1;
const END_OF_TABLE: u8 = 0;

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

enum Definition {
    Numbers(NumberDefinition),
    Bytes(BytesDefinition),
}

/// Every table, in the order of the stream and of the hash.
const TABLES: [Definition; 10] = [
    Definition::Bytes(META),
    Definition::Numbers(NAMES),
    Definition::Bytes(ENTRIES),
    Definition::Numbers(INODES),
    Definition::Numbers(BLOCKS),
    Definition::Bytes(FILE_BLOCKS),
    Definition::Numbers(OPEN),
    Definition::Numbers(REAP),
    Definition::Bytes(RETRY),
    Definition::Numbers(RETRY_ROWS),
];

/// Shows every row of one table, numbers as 8 bytes big-endian.
fn visit(
    transaction: &ReadTransaction,
    definition: &Definition,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), TableError>,
) -> Result<(), TableError> {
    match definition {
        Definition::Numbers(definition) => {
            for found in transaction.open_table(*definition)?.iter()? {
                let (key, value) = found?;
                row(&key.value().to_be_bytes(), value.value())?;
            }
        }
        Definition::Bytes(definition) => {
            for found in transaction.open_table(*definition)?.iter()? {
                let (key, value) = found?;
                row(key.value(), value.value())?;
            }
        }
    }
    Ok(())
}

/// See [`crate::View::write_snapshot`].
pub(crate) fn write(transaction: &ReadTransaction, out: &mut dyn Write) -> Result<(), TableError> {
    let mut out = Summed { inner: io::BufWriter::new(out), crc: new_crc() };
    out.put(MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    let mut head = Vec::with_capacity(16);
    for definition in &TABLES {
        visit(transaction, definition, |key, value| {
            head.clear();
            head.push(ROW);
            put_number(&mut head, key.len() as u64);
            head.extend_from_slice(key);
            put_number(&mut head, value.len() as u64);
            out.put(&head)?;
            out.put(value)
        })?;
        out.put(&[END_OF_TABLE])?;
    }
    let crc = out.crc.finalize() as u32;
    out.inner.write_all(&crc.to_le_bytes()).map_err(stream)?;
    out.inner.flush().map_err(stream)
}

/// Replaces what a transaction sees by a snapshot. The caller commits, or aborts on an error.
pub(crate) fn read(transaction: &WriteTransaction, from: &mut dyn Read) -> Result<(), TableError> {
    let mut from = Summed { inner: io::BufReader::new(from), crc: new_crc() };
    if from.exactly(MAGIC.len() as u64)? != MAGIC {
        return Err(TableError::Snapshot("does not begin as one".into()));
    }
    let version = from.exactly(4)?;
    if version != VERSION.to_le_bytes() {
        return Err(TableError::Snapshot(format!("version {version:02x?} is unknown here")));
    }
    for definition in &TABLES {
        match definition {
            Definition::Numbers(definition) => {
                transaction.delete_table(*definition)?;
                let mut table = transaction.open_table(*definition)?;
                while let Some((key, value)) = from.row()? {
                    let key: [u8; 8] = key
                        .try_into()
                        .map_err(|_| TableError::Snapshot("a number of other than 8 bytes".into()))?;
                    table.insert(u64::from_be_bytes(key), value.as_slice())?;
                }
            }
            Definition::Bytes(definition) => {
                transaction.delete_table(*definition)?;
                let mut table = transaction.open_table(*definition)?;
                while let Some((key, value)) = from.row()? {
                    table.insert(key.as_slice(), value.as_slice())?;
                }
            }
        }
    }
    let computed = from.crc.finalize() as u32;
    let stored = from.exactly(4)?;
    if stored != computed.to_le_bytes() {
        return Err(TableError::Snapshot(format!(
            "CRC is {computed:08x}, stored {stored:02x?} (little-endian)"
        )));
    }
    Ok(())
}

/// Equal content hashes equal. Not for anything that an adversary could gain by.
pub(crate) fn hash(transaction: &ReadTransaction) -> Result<u64, TableError> {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
    for definition in &TABLES {
        visit(transaction, definition, |key, value| {
            hasher.write_u64(key.len() as u64);
            hasher.write(key);
            hasher.write_u64(value.len() as u64);
            hasher.write(value);
            Ok(())
        })?;
        hasher.write_u64(u64::MAX);
    }
    Ok(hasher.finish())
}

/// A stream that keeps the CRC of what passed.
struct Summed<T> {
    inner: T,
    crc: crc_fast::Digest,
}

fn new_crc() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)
}

fn stream(error: io::Error) -> TableError {
    TableError::Snapshot(error.to_string())
}

impl<T: Write> Summed<T> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        self.crc.update(bytes);
        self.inner.write_all(bytes).map_err(stream)
    }
}

impl<T: Read> Summed<T> {
    /// Grows with what arrives, not with what was claimed.
    fn exactly(&mut self, length: u64) -> Result<Vec<u8>, TableError> {
        let mut bytes = Vec::new();
        (&mut self.inner).take(length).read_to_end(&mut bytes).map_err(stream)?;
        if bytes.len() as u64 != length {
            return Err(TableError::Snapshot("ends early".into()));
        }
        self.crc.update(&bytes);
        Ok(bytes)
    }

    fn part(&mut self) -> Result<Vec<u8>, TableError> {
        let mut length = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.exactly(1)?[0];
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if length > PART_BYTES_MAX {
                    break;
                }
                return self.exactly(length);
            }
        }
        Err(TableError::Snapshot(format!("a part longer than {PART_BYTES_MAX} bytes")))
    }

    fn row(&mut self) -> Result<Option<Row>, TableError> {
        match self.exactly(1)?[0] {
            END_OF_TABLE => Ok(None),
            ROW => Ok(Some((self.part()?, self.part()?))),
            other => Err(TableError::Snapshot(format!("row mark {other}"))),
        }
    }
}
