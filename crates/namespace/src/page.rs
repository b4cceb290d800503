//! Holds `docs/formats/tables.md` to the code: every example record there is made here again, and must
//! give the same bytes and read back the same. `cargo test -p mobula-namespace page -- --nocapture` prints
//! them.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use mobula_types::{BlockId, GenStamp, InodeId, Millis, StorageType, Target};

use crate::outcome::{BlockState, Recovery};
use crate::record::{BlockRow, Body, Construction, Directory, File, Inode, Place};
use crate::table::{entry_key, file_block_key};

const PAGE: &str = include_str!("../../../docs/formats/tables.md");

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for byte in line {
            write!(text, "{byte:02x} ").unwrap();
        }
        text.pop();
        text.push('\n');
    }
    text
}

fn holds(what: &str, bytes: &[u8]) {
    let example = format!("{what}\n{}", dump(bytes));
    println!("{example}");
    assert!(PAGE.contains(&example), "the page lacks this example:\n{example}");
}

fn directory() -> Inode {
    Inode {
        id: InodeId(16_386),
        mode: 0o755,
        owner: 0,
        group: 1,
        modified: Millis(1_700_000_000_000),
        body: Body::Directory(Directory { children: 2, subdirectories: 1, accessed: Millis(0) }),
    }
}

fn file() -> Inode {
    Inode {
        id: InodeId(16_387),
        mode: 0o644,
        owner: 2,
        group: 1,
        modified: Millis(1_700_000_000_500),
        body: Body::File(File {
            accessed: Millis(1_700_000_000_000),
            replication: 3,
            block_size: 128 << 20,
            length: 1000,
            blocks: 1,
            first: BlockId::FIRST,
            open: None,
        }),
    }
}

fn open_file() -> (Inode, Construction) {
    let mut inode = file();
    let target = Target { datanode: "dn1".into(), storage: "DS-1".into(), kind: StorageType::Disk };
    let open = Construction {
        holder: "c1".into(),
        machine: "10.0.0.1".into(),
        since: Millis(1_700_000_000_000),
        recovery: None,
        open_length: 7,
        kept: 0,
        targets: vec![target],
    };
    inode.file_mut().unwrap().open = Some(Box::default());
    (inode, open)
}

#[test]
fn the_page_shows_what_is_written() {
    let encoded = |inode: &Inode| {
        let mut bytes = Vec::new();
        inode.encode(&mut bytes);
        assert_eq!(&Inode::decode(&bytes).unwrap(), inode);
        bytes
    };
    holds("entries: key of \"d\" in the root", &entry_key(InodeId::ROOT, b"d"));
    holds("entries: a directory", &encoded(&directory()));
    let mut read = directory();
    read.directory_mut().unwrap().accessed = Millis(1_700_000_000_100);
    holds("entries: a directory whose access time was set", &encoded(&read));
    holds("entries: a closed file of one block", &encoded(&file()));
    let (inode, open) = open_file();
    holds("entries: a file being written", &encoded(&inode));
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    assert_eq!(Construction::decode(&bytes).unwrap(), open);
    holds("open: of that file", &bytes);
    let cut = Construction {
        recovery: Some(Recovery { id: GenStamp(1_002), began: Millis(1_700_000_000_900), truncate: Some(5) }),
        kept: 7,
        ..open
    };
    bytes.clear();
    cut.encode(&mut bytes);
    assert_eq!(Construction::decode(&bytes).unwrap(), cut);
    holds("open: of that file, while its last block is cut to 5 bytes", &bytes);
    bytes.clear();
    Place::encode(InodeId::ROOT, b"d", &mut bytes);
    let place = Place { parent: InodeId::ROOT, name: b"d".to_vec() };
    assert_eq!(Place::decode(&bytes).unwrap(), place);
    holds("inodes: \"d\" in the root", &bytes);
    let row = BlockRow {
        inode: InodeId(16_387),
        stamp: GenStamp::FIRST,
        length: 1000,
        replication: 3,
        offset: 0,
        state: BlockState::Committed,
    };
    bytes.clear();
    row.encode(&mut bytes);
    assert_eq!(BlockRow::decode(&bytes).unwrap(), row);
    holds("blocks: a committed block", &bytes);
    holds("file_blocks: key of the second block of file 16387", &file_block_key(InodeId(16_387), 1));
}

/// A row of `open` as the first version wrote it: up to the targets.
#[test]
fn an_open_file_of_the_version_before_can_be_read() {
    let (_, open) = open_file();
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    let fields = bytes.len() - 8; // Tag and length of `since`, and its 6 bytes.
    let old = Construction { since: Millis(0), ..open };
    assert_eq!(Construction::decode(&bytes[..fields]).unwrap(), old);
    bytes.truncate(fields);
    bytes.splice(12..13, [0xea, 0x07]);
    let recovery = Recovery { id: GenStamp(1_002), began: Millis(0), truncate: None };
    assert_eq!(Construction::decode(&bytes).unwrap(), Construction { recovery: Some(recovery), ..old });
    bytes.extend_from_slice(&[77, 0]);
    let error = Construction::decode(&bytes).unwrap_err().to_string();
    assert_eq!(error, "namespace tables: open: field 77, unknown here");
}

/// A row of a directory as it was before directories had access times.
#[test]
fn a_directory_of_the_version_before_can_be_read() {
    let row = [0, 0x82, 0x80, 1, 0xed, 3, 0, 1, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31, 2, 1];
    assert_eq!(Inode::decode(&row).unwrap(), directory());
}

#[test]
fn what_is_not_known_stops_the_reader() {
    let mut bytes = Vec::new();
    file().encode(&mut bytes);
    for length in 0..bytes.len() {
        assert!(Inode::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    bytes.extend_from_slice(&[77, 0]);
    let error = Inode::decode(&bytes).unwrap_err().to_string();
    assert_eq!(error, "namespace tables: entries: inode 16387 has field 77, unknown here");
    bytes[0] = 9;
    assert!(Inode::decode(&bytes).unwrap_err().to_string().contains("inode kind 9"));
    assert!(BlockRow::decode(&[0x11, 1, 1, 1, 1, 1]).is_err(), "a striped group is not known yet");
    assert!(BlockRow::decode(&[1, 1, 1, 1, 1, 1, 0]).is_err(), "bytes after the end");
    assert!(Inode::decode(&[0xff; 64]).is_err());
}
