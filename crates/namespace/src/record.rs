//! Records as bytes. `docs/formats/tables.md` draws them, and a test holds that page to this file.
//!
//! Numbers are LEB128; text and lists have their length before them. What only some inodes have stands
//! at the end as tagged fields; an unknown tag stops the reader, since to skip it could mean to forget
//! a rule (DESIGN D14).

use mobula_types::{Block, BlockId, GenStamp, InodeId, Millis, StorageType, Target};

use crate::outcome::{BlockState, Recovery};
use crate::table::TableError;

/// Reads one record; every error names the table.
pub(crate) struct Reader<'a> {
    table: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(table: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { table, rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn corrupt(&self, detail: impl Into<String>) -> TableError {
        TableError::Corrupt { table: self.table, detail: detail.into() }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, TableError> {
        let (&first, rest) = self.rest.split_first().ok_or_else(|| self.corrupt("record ends early"))?;
        self.rest = rest;
        Ok(first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, TableError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("number above 64 bits"))
    }

    pub(crate) fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, TableError> {
        let value = self.number()?;
        T::try_from(value).map_err(|_| self.corrupt(format!("number {value} out of range")))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], TableError> {
        let length: usize = self.narrow()?;
        if length > self.rest.len() {
            return Err(self.corrupt("text ends early"));
        }
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, TableError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("text is not UTF-8"))
    }

    pub(crate) fn targets(&mut self) -> Result<Vec<Target>, TableError> {
        let count = self.number()?;
        let mut targets = Vec::new();
        for _ in 0..count {
            let datanode = self.text()?.into();
            let storage = self.text()?.into();
            let kind = self.byte()?;
            let kind = StorageType::from_number(i32::from(kind))
                .ok_or_else(|| self.corrupt(format!("storage type {kind}")))?;
            targets.push(Target { datanode, storage, kind });
        }
        Ok(targets)
    }

    pub(crate) fn end(&self) -> Result<(), TableError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("record goes on after its end")) }
    }
}

pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A file or directory. Stands in its directory's entry, so that a step down a path is one lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) id: InodeId,
    pub(crate) mode: u16,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) modified: Millis,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Directory(Directory),
    File(File),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) children: u64,
    /// Of the children: lets a check of the whole tree pass by directories that hold only files.
    pub(crate) subdirectories: u64,
    /// 0 until somebody sets it.
    pub(crate) accessed: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) accessed: Millis,
    pub(crate) replication: u16,
    pub(crate) block_size: u64,
    /// Bytes of committed blocks.
    pub(crate) length: u64,
    pub(crate) blocks: u32,
    /// The first block, if `blocks` is not 0; the others are in the table of file blocks, so that a
    /// file of one block needs no row there.
    pub(crate) first: BlockId,
    pub(crate) open: Option<Box<Construction>>,
}

/// What only a file being written has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Construction {
    pub(crate) holder: String,
    pub(crate) machine: String,
    /// When it was opened; 0 if the row is older than this field.
    pub(crate) since: Millis,
    /// Of the last block.
    pub(crate) recovery: Option<Recovery>,
    /// What is known of the last block's length while that is under construction, bytes.
    pub(crate) open_length: u64,
    /// Of them, those that somebody was promised to find again: what the block had when it was opened anew,
    /// and what fsync told, which comes after the DataNodes synced it. A recovery may not end below.
    pub(crate) kept: u64,
    /// Where the last block's replicas are expected while that is under construction.
    pub(crate) targets: Vec<Target>,
}

const KIND_DIRECTORY: u8 = 0;
const KIND_FILE: u8 = 1;
const TAG_CONSTRUCTION: u8 = 1;
const TAG_ACCESSED: u8 = 2;
// Of the construction.
const TAG_SINCE: u8 = 1;
const TAG_RECOVERY: u8 = 2;
const TAG_KEPT: u8 = 3;
const TABLE_ENTRIES: &str = "entries";
const TABLE_OPEN: &str = "open";

impl Inode {
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(crate) fn file(&self) -> Option<&File> {
        match &self.body {
            Body::File(file) => Some(file),
            Body::Directory(_) => None,
        }
    }

    pub(crate) fn file_mut(&mut self) -> Option<&mut File> {
        match &mut self.body {
            Body::File(file) => Some(file),
            Body::Directory(_) => None,
        }
    }

    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.body {
            Body::Directory(directory) => Some(directory),
            Body::File(_) => None,
        }
    }

    pub(crate) fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.body {
            Body::Directory(directory) => Some(directory),
            Body::File(_) => None,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.is_directory() { KIND_DIRECTORY } else { KIND_FILE });
        for number in
            [self.id.0, u64::from(self.mode), u64::from(self.owner), u64::from(self.group), self.modified.0]
        {
            put_number(out, number);
        }
        match &self.body {
            Body::Directory(directory) => {
                put_number(out, directory.children);
                put_number(out, directory.subdirectories);
                if directory.accessed.0 > 0 {
                    put_field(out, TAG_ACCESSED, &[directory.accessed.0]);
                }
            }
            Body::File(file) => file.encode(self.modified, out),
        }
    }

    /// Of a file being written the record tells only that it is: the rest is in the table of open files.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Inode, TableError> {
        let mut from = Reader::new(TABLE_ENTRIES, bytes);
        let kind = from.byte()?;
        let id = InodeId(from.number()?);
        let mode = from.narrow()?;
        let owner = from.narrow()?;
        let group = from.narrow()?;
        let modified = Millis(from.number()?);
        let mut body = match kind {
            KIND_DIRECTORY => Body::Directory(Directory {
                children: from.number()?,
                subdirectories: from.number()?,
                accessed: Millis(0),
            }),
            KIND_FILE => Body::File(File::decode(modified, &mut from)?),
            other => return Err(from.corrupt(format!("inode kind {other}"))),
        };
        while !from.is_empty() {
            let tag = from.byte()?;
            let field = from.bytes()?;
            match (tag, &mut body) {
                (TAG_CONSTRUCTION, Body::File(file)) if field.is_empty() => {
                    file.open = Some(Box::default());
                }
                (TAG_ACCESSED, Body::Directory(directory)) => {
                    let mut field = Reader::new(TABLE_ENTRIES, field);
                    directory.accessed = Millis(field.number()?);
                    field.end()?;
                }
                _ => return Err(from.corrupt(format!("inode {id} has field {tag}, unknown here"))),
            }
        }
        Ok(Inode { id, mode, owner, group, modified, body })
    }
}

impl File {
    fn encode(&self, modified: Millis, out: &mut Vec<u8>) {
        put_number(out, zigzag(self.accessed.0.wrapping_sub(modified.0) as i64));
        put_number(out, u64::from(self.replication));
        put_number(out, self.block_size);
        put_number(out, self.length);
        put_number(out, u64::from(self.blocks));
        if self.blocks > 0 {
            put_number(out, self.first.0);
        }
        if self.open.is_some() {
            out.push(TAG_CONSTRUCTION);
            put_bytes(out, &[]);
        }
    }

    fn decode(modified: Millis, from: &mut Reader<'_>) -> Result<File, TableError> {
        let accessed = Millis(modified.0.wrapping_add(unzigzag(from.number()?) as u64));
        let replication = from.narrow()?;
        let block_size = from.number()?;
        let length = from.number()?;
        let blocks = from.narrow()?;
        let first = if blocks > 0 { BlockId(from.number()?) } else { BlockId(0) };
        Ok(File { accessed, replication, block_size, length, blocks, first, open: None })
    }
}

/// The value of the table of open files. It stands apart, since it is large and short-lived: in the entries it
/// would leave their pages nearly empty when the files are closed.
impl Construction {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.holder.as_bytes());
        put_bytes(out, self.machine.as_bytes());
        put_number(out, self.recovery.map_or(0, |recovery| recovery.id.0));
        put_number(out, self.open_length);
        put_targets(out, &self.targets);
        put_field(out, TAG_SINCE, &[self.since.0]);
        if let Some(Recovery { id: _, began, truncate }) = self.recovery {
            put_field(out, TAG_RECOVERY, &[began.0, truncate.map_or(0, |length| length + 1)]);
        }
        if self.kept > 0 {
            put_field(out, TAG_KEPT, &[self.kept]);
        }
    }

    /// The holder alone.
    pub(crate) fn decode_holder(bytes: &[u8]) -> Result<&str, TableError> {
        Reader::new(TABLE_OPEN, bytes).text()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Construction, TableError> {
        let mut from = Reader::new(TABLE_OPEN, bytes);
        let holder = from.text()?.into();
        let machine = from.text()?.into();
        let recovery = Some(GenStamp(from.number()?)).filter(|stamp| stamp.0 != 0);
        let recovery = recovery.map(|id| Recovery { id, began: Millis(0), truncate: None });
        let open_length = from.number()?;
        let targets = from.targets()?;
        let mut open =
            Construction { holder, machine, since: Millis(0), recovery, open_length, kept: 0, targets };
        while !from.is_empty() {
            let tag = from.byte()?;
            let mut field = Reader::new(TABLE_OPEN, from.bytes()?);
            match (tag, &mut open.recovery) {
                (TAG_SINCE, _) => open.since = Millis(field.number()?),
                (TAG_RECOVERY, Some(recovery)) => {
                    recovery.began = Millis(field.number()?);
                    recovery.truncate = field.number()?.checked_sub(1);
                }
                (TAG_KEPT, _) => open.kept = field.number()?,
                _ => return Err(from.corrupt(format!("field {tag}, unknown here"))),
            }
            field.end()?;
        }
        Ok(open)
    }
}

/// A field of one or two numbers.
fn put_field(out: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    out.push(tag);
    let at = out.len();
    out.push(0);
    for number in numbers {
        put_number(out, *number);
    }
    out[at] = (out.len() - at - 1) as u8; // Two numbers have at most 20 bytes.
}

pub(crate) fn put_targets(out: &mut Vec<u8>, targets: &[Target]) {
    put_number(out, targets.len() as u64);
    for target in targets {
        put_bytes(out, target.datanode.as_str().as_bytes());
        put_bytes(out, target.storage.as_str().as_bytes());
        out.push(target.kind as u8);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A block: the value of the table of blocks, its id being the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRow {
    pub(crate) inode: InodeId,
    pub(crate) stamp: GenStamp,
    pub(crate) length: u64,
    pub(crate) replication: u16,
    /// Where it begins in its file.
    pub(crate) offset: u64,
    pub(crate) state: BlockState,
}

const FORM_CONTIGUOUS: u8 = 0; // The high bits of the first byte; striped groups will be 1 (D14).
const STATE_OPEN: u8 = 0;
const STATE_COMMITTED: u8 = 1;

impl BlockRow {
    pub(crate) fn block(&self, id: BlockId) -> Block {
        Block { id, stamp: self.stamp, length: self.length }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let state = match self.state {
            BlockState::UnderConstruction => STATE_OPEN,
            BlockState::Committed => STATE_COMMITTED,
        };
        out.push(FORM_CONTIGUOUS << 4 | state);
        for number in [self.inode.0, self.stamp.0, self.length, u64::from(self.replication), self.offset] {
            put_number(out, number);
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<BlockRow, TableError> {
        let mut from = Reader::new("blocks", bytes);
        let state = match from.byte()? {
            STATE_OPEN => BlockState::UnderConstruction,
            STATE_COMMITTED => BlockState::Committed,
            other => return Err(from.corrupt(format!("block form and state {other:#04x}"))),
        };
        let row = BlockRow {
            inode: InodeId(from.number()?),
            stamp: GenStamp(from.number()?),
            length: from.number()?,
            replication: from.narrow()?,
            offset: from.number()?,
            state,
        };
        from.end()?;
        Ok(row)
    }
}

/// Where an inode hangs: the value of the table of inodes, its id being the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) parent: InodeId,
    pub(crate) name: Vec<u8>,
}

impl Place {
    pub(crate) fn encode(parent: InodeId, name: &[u8], out: &mut Vec<u8>) {
        put_number(out, parent.0);
        out.extend_from_slice(name);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Place, TableError> {
        let mut from = Reader::new("inodes", bytes);
        let parent = InodeId(from.number()?);
        Ok(Place { parent, name: from.rest.to_vec() })
    }
}
