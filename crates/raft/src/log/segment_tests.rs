//! The log's files against a naive model, with every crash in between; and the page that draws them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use mobula_disk::fake::{Crash, CrashDisk};
use mobula_disk::{DiskRef, Open};
use proptest::prelude::*;

use super::format::{self, Kind, Record, SegmentHeader};
use super::segment::{Opened, Placed, Segments, read_records};
use crate::face::{Position, RaftError};

const FOLDER: &str = "/log";

/// A change of the log.
#[derive(Clone, Debug)]
enum Step {
    /// So many records of such lengths, in the next term or the same.
    Append(Vec<usize>, bool),
    /// Takes away so many from the end.
    Truncate(u64),
    /// Takes away so many from the beginning.
    Purge(u64),
    /// Begins anew so far behind the end.
    Jump(u64),
    /// Closes and opens.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![4 => 0..40usize, 2 => 100..400usize, 1 => 900..2000usize];
    let step = prop_oneof![
        6 => (prop::collection::vec(length, 1..6), any::<bool>()).prop_map(|(l, t)| Step::Append(l, t)),
        2 => (0..12u64).prop_map(Step::Truncate),
        2 => (0..12u64).prop_map(Step::Purge),
        1 => (1..5u64).prop_map(Step::Jump),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..14)
}

/// What the log holds: (index -> term), and what was before that.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, u64>,
    previous: Option<Position>,
    term: u64,
}

impl Model {
    fn last(&self) -> Option<Position> {
        let last = self.entries.last_key_value();
        last.map(|(index, term)| Position { term: *term, index: *index }).or(self.previous)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }
}

fn open(disk: &DiskRef) -> Result<Opened, RaftError> {
    Segments::open(disk.clone(), Path::new(FOLDER), 1, 1024)
}

fn payload(position: Position, length: usize) -> Bytes {
    vec![(position.index * 7 + position.term) as u8; length].into()
}

/// A log and its model, changed alike.
struct Pair {
    disk: DiskRef,
    segments: Segments,
    places: BTreeMap<u64, Placed>,
    model: Model,
}

impl Pair {
    fn new(disk: DiskRef) -> Pair {
        let opened = open(&disk).unwrap();
        Pair { disk, segments: opened.segments, places: BTreeMap::new(), model: Model::default() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(lengths, new_term) => {
                self.model.term += u64::from(*new_term);
                let term = self.model.term;
                let record = |(number, length): (usize, &usize)| {
                    let position = Position { term, index: self.model.next() + number as u64 };
                    Record { position, kind: Kind::Command, payload: payload(position, *length) }
                };
                let records: Vec<Record> = lengths.iter().enumerate().map(record).collect();
                for placed in self.segments.append(&records).unwrap() {
                    self.model.entries.insert(placed.position.index, term);
                    self.places.insert(placed.position.index, placed);
                }
            }
            Step::Truncate(count) => {
                let keep = self.model.next().saturating_sub(*count);
                self.model.entries.split_off(&keep);
                self.places.split_off(&keep);
                let last = self.model.last();
                let place =
                    self.model.entries.last_key_value().map(|(index, _)| self.places[index].place.clone());
                self.segments.truncate(last, place).unwrap();
            }
            Step::Purge(count) => {
                let Some(upto) = self.model.entries.keys().nth(*count as usize).copied() else { return };
                let upto = Position { term: self.model.entries[&upto], index: upto };
                self.model.entries = self.model.entries.split_off(&(upto.index + 1));
                self.places = self.places.split_off(&(upto.index + 1));
                self.model.previous = Some(upto);
                self.segments.purge(upto).unwrap();
            }
            Step::Jump(count) => {
                self.model.term += 1;
                let upto = Position { term: self.model.term, index: self.model.next() + count };
                self.model.entries.clear();
                self.places.clear();
                self.model.previous = Some(upto);
                self.segments.purge(upto).unwrap();
            }
            Step::Reopen => {
                let opened = open(&self.disk).unwrap();
                check(&opened, &self.model, &self.model);
                self.segments = opened.segments;
                self.places = opened.records.into_iter().map(|p| (p.position.index, p)).collect();
                let first = self.model.previous.map_or(0, |previous| previous.index + 1);
                self.places = self.places.split_off(&first);
            }
        }
    }
}

/// What was opened is what was there before a change or after it, or in between.
fn check(opened: &Opened, before: &Model, after: &Model) {
    let found: BTreeMap<u64, u64> =
        opened.records.iter().map(|placed| (placed.position.index, placed.position.term)).collect();
    for (index, term) in &before.entries {
        if after.entries.get(index) == Some(term) {
            assert_eq!(found.get(index), Some(term), "{index} is gone: {before:?} to {after:?}: {found:?}");
        }
    }
    let last = opened.records.last().map(|placed| placed.position).or(opened.previous);
    assert!(last <= before.last().max(after.last()), "{last:?} is too much: {before:?} to {after:?}");
    for (index, term) in &found {
        let known = [before, after].iter().any(|model| {
            model.entries.get(index) == Some(term) || model.previous.is_some_and(|p| p.index >= *index)
        });
        assert!(known, "{term}.{index} never was: {before:?} to {after:?}");
    }
}

fn read_all(opened: &Opened) {
    for placed in &opened.records {
        let record = read_records(std::slice::from_ref(placed)).unwrap().remove(0);
        assert_eq!(record.payload, payload(placed.position, record.payload.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_crash_leaves_what_the_model_says(steps in steps(), seed in any::<u64>()) {
        let disk = CrashDisk::new(seed);
        let mut pair = Pair::new(disk.process());
        disk.record();
        let mut history = vec![(0, pair.model.clone())];
        for step in &steps {
            pair.step(step);
            history.push((disk.changes(), pair.model.clone()));
        }
        for image in disk.recorded().images(2) {
            let done = history.iter().rposition(|(changes, _)| *changes <= image.changes).unwrap();
            let after = history.get(done + 1).unwrap_or(&history[done]);
            let process = image.disk.process();
            let opened = open(&process).unwrap_or_else(|error| panic!("{image:?}: {error}"));
            check(&opened, &history[done].1, &after.1);
            read_all(&opened);
            // What was opened once is the same the second time, whatever happens in between.
            let first: Vec<Position> = opened.records.iter().map(|placed| placed.position).collect();
            image.disk.crash(Crash::PowerLoss);
            let again = open(&image.disk.process()).unwrap();
            let second: Vec<Position> = again.records.iter().map(|placed| placed.position).collect();
            prop_assert_eq!(first, second);
        }
    }

    #[test]
    fn decoders_take_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..200u32) {
        let _ = format::decode(&bytes);
        let _ = SegmentHeader::decode(&bytes);
        let _ = format::decode_vote(&bytes);
        if bytes.len() >= 8 {
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            let _ = format::decode(&bytes);
        }
    }
}

#[test]
fn a_header_says_what_it_was_given() {
    for previous in [None, Some(Position { term: 0, index: 0 }), Some(Position { term: 9, index: 77 })] {
        for reset in [false, true] {
            let header = SegmentHeader { node: 5, previous, reset };
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }
    assert_eq!(format::decode_vote(&format::encode_vote(3, b"abc")), Ok((3, &b"abc"[..])));
}

/// The example of docs/formats/log.md, from the code.
fn example() -> Vec<u8> {
    let previous = Position { term: 2, index: 41 };
    let mut bytes = SegmentHeader { node: 1, previous: Some(previous), reset: false }.encode().to_vec();
    let records = [
        (Position { term: 3, index: 42 }, Kind::Blank, ""),
        (Position { term: 3, index: 43 }, Kind::Command, "mkdir /a"),
        (Position { term: 3, index: 44 }, Kind::Command, "rm /b"),
    ];
    let mut back = 0;
    for (position, kind, payload) in records {
        // The first one was synced by itself, the other two together.
        back = if position.index < 44 { 0 } else { back };
        let record = Record { position, kind, payload: Bytes::from_static(payload.as_bytes()) };
        record.encode(back, &mut bytes);
        back += record.size() as u32;
    }
    bytes
}

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let show = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' };
        let shown: String = chunk.iter().map(show).collect();
        writeln!(text, "{:04x}  {:<47}  {shown}", line * 16, hex.join(" ")).unwrap();
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_page_shows_what_the_code_writes() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/log.md"));
    let dumps: Vec<&str> =
        page.split("```hex\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    let segment = dump(&example());
    let vote = postcard::to_allocvec(&crate::types::Vote::new_committed(3, 1)).unwrap();
    let vote = dump(&format::encode_vote(1, &vote));
    assert_eq!(dumps, [segment.as_str(), vote.as_str()], "the page should say:\n{segment}\n\n{vote}");
    for (name, value) in [
        ("SEGMENT_HEADER", format::SEGMENT_HEADER),
        ("RECORD_HEADER", format::RECORD_HEADER),
        ("RECORD_ALIGN", format::RECORD_ALIGN),
        ("VOTE_HEADER", format::VOTE_HEADER),
        ("PAYLOAD_MAX", format::PAYLOAD_MAX),
        ("VERSION", format::VERSION as usize),
    ] {
        let line = format!("| `{name}` | {value} |");
        assert!(page.contains(&line), "the page lacks {line}");
    }
}

/// A client's names may hold the bytes of a record. A batch with such names that a crash cut short is a torn tail.
#[test]
fn a_record_within_a_record_is_none() {
    let planted = {
        let mut bytes = Vec::new();
        let far = Position { term: 0x7f7f, index: 0x7f7f };
        Record { position: far, kind: Kind::Command, payload: Bytes::new() }.encode(0, &mut bytes);
        bytes
    };
    for shift in 0..8 {
        let disk = CrashDisk::new(1);
        let mut opened = open(&disk.process()).unwrap();
        let record = |index, payload: Vec<u8>| Record {
            position: Position { term: 1, index },
            kind: Kind::Command,
            payload: payload.into(),
        };
        opened.segments.append(&[record(0, vec![1; 100])]).unwrap();
        let mut names = vec![b'a'; 40 + shift];
        names.extend_from_slice(&planted);
        names.resize(600, b'a');
        opened.segments.append(&[record(1, names)]).unwrap();
        drop(opened);
        disk.crash(Crash::Kill);
        let process = disk.process();
        let entry = process.list(Path::new(FOLDER)).unwrap().into_iter().find(|it| it.length > 48).unwrap();
        let path = Path::new(FOLDER).join(&entry.name);
        process.open(&path, Open::ReadWrite).unwrap().set_length(entry.length - 100).unwrap();
        assert_eq!(open(&disk.process()).unwrap().records.len(), 1, "shifted by {shift}");
    }
}
