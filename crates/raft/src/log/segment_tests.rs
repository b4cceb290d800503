//! The log's files against a naive model, with every crash in between; and the page that draws them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mobula_disk::fake::{CallKind, Crash, CrashDisk};
use mobula_disk::{DiskRef, read_file};
use mobula_net::Entropy;
use proptest::prelude::*;

use super::format::{self, Kind, Record, Salt, SegmentHeader};
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
    open_with(disk, 1024)
}

fn open_with(disk: &DiskRef, segment_bytes: u64) -> Result<Opened, RaftError> {
    Segments::open(disk.clone(), Path::new(FOLDER), 1, segment_bytes, Entropy::seeded(1))
}

/// What a user would have logged who wants a torn batch to look like damage before its end: records
/// that are whole but for the salt, of batches of their own, and far ahead.
fn payload(position: Position, length: usize) -> Bytes {
    let ahead = Position { term: position.term + 1, index: position.index * 7 + 1000 };
    let mut bytes = Vec::new();
    Record { position: ahead, kind: Kind::Blank, payload: Bytes::new() }.encode(None, 0, &mut bytes);
    bytes.into_iter().cycle().take(length).collect()
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

/// Of every crash image of these steps the log opens as the model says, twice.
fn crash_everywhere(steps: &[Step], seed: u64) {
    let disk = CrashDisk::new(seed);
    let mut pair = Pair::new(disk.process());
    disk.record();
    let mut history = vec![(0, pair.model.clone())];
    for step in steps {
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
        assert_eq!(first, second);
    }
}

/// A cut within one page, of which the first sectors were written and the others not: whole records of a later batch stood
/// behind the torn place, and the log was taken for damaged.
#[test]
fn a_truncation_that_is_torn_leaves_no_batch_behind_a_hole() {
    let steps = [
        Step::Append(vec![225, 145], false),
        Step::Append(vec![0, 900, 0], false),
        Step::Reopen,
        Step::Truncate(4),
    ];
    for seed in 0..200 {
        crash_everywhere(&steps, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_crash_leaves_what_the_model_says(steps in steps(), seed in any::<u64>()) {
        crash_everywhere(&steps, seed);
    }

    #[test]
    fn decoders_take_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..200u32) {
        let _ = format::decode(None, &bytes);
        let _ = SegmentHeader::decode(&bytes);
        let _ = format::decode_vote(&bytes);
        if bytes.len() >= 8 {
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            let _ = format::decode(Some(Salt(u64::from(length))), &bytes);
        }
    }
}

#[test]
fn a_header_says_what_it_was_given() {
    for previous in [None, Some(Position { term: 0, index: 0 }), Some(Position { term: 9, index: 77 })] {
        for reset in [false, true] {
            let header = SegmentHeader { node: 5, previous, reset, salt: Some(Salt(99)) };
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }
    assert_eq!(format::decode_vote(&format::encode_vote(3, b"abc")), Ok((3, &b"abc"[..])));
}

/// A segment of version 1, byte by byte: behind entry `previous`, the batches.
fn version_1(previous: Position, batches: &[Vec<(u64, Bytes)>]) -> Vec<u8> {
    let crc = |bytes: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    let mut bytes = b"mobulog\n\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    bytes.extend(previous.term.to_le_bytes());
    bytes.extend((previous.index + 1).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(crc(&bytes).to_le_bytes());
    let mut index = previous.index;
    for batch in batches {
        let begin = bytes.len();
        for (term, payload) in batch {
            index += 1;
            let back = (bytes.len() - begin) as u32;
            let mut record = (payload.len() as u32).to_le_bytes().to_vec();
            record.extend(term.to_le_bytes());
            record.extend(index.to_le_bytes());
            record.extend(back.to_le_bytes());
            record.extend([2, 0, 0, 0]);
            record.extend(payload);
            bytes.extend(crc(&record).to_le_bytes());
            bytes.extend(record);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
    }
    bytes
}

/// A disk with one segment of these bytes, behind entry 2.41.
fn disk_with(bytes: &[u8]) -> CrashDisk {
    let disk = CrashDisk::new(1);
    let process = disk.process();
    mobula_disk::create_folder_durably(&*process, Path::new(FOLDER)).unwrap();
    mobula_disk::write_file_durably(&*process, &segment_at(42), bytes).unwrap();
    disk
}

fn segment_at(first: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("log-{first:020}"))
}

const BEFORE: Position = Position { term: 2, index: 41 };

type Payload = fn(Position, usize) -> Bytes;

fn harmless(position: Position, length: usize) -> Bytes {
    vec![position.index as u8; length].into()
}

/// Three batches of two records of 100 and 300 bytes.
fn batches(payload: Payload) -> Vec<Vec<(u64, Bytes)>> {
    let record = |index, length| (3, payload(Position { term: 3, index }, length));
    (0..3).map(|batch| vec![record(42 + 2 * batch, 100), record(43 + 2 * batch, 300)]).collect()
}

/// The same in both versions, and where each batch begins.
fn both_versions(payload: Payload) -> [(Vec<u8>, [usize; 4]); 2] {
    let old = version_1(BEFORE, &batches(payload));
    let disk = CrashDisk::new(1);
    let mut segments = open_with(&disk.process(), 4096).unwrap().segments;
    segments.purge(BEFORE).unwrap();
    let mut index = 41;
    for batch in batches(payload) {
        let record = |(term, payload)| {
            index += 1;
            Record { position: Position { term, index }, kind: Kind::Command, payload }
        };
        segments.append(&batch.into_iter().map(record).collect::<Vec<_>>()).unwrap();
    }
    let mut new = read_file(&*disk.process(), &segment_at(42), 1 << 20).unwrap();
    let starts = |header: usize| [0, 1, 2, 3].map(|batch| header + batch * (136 + 336));
    assert_eq!((old.len(), new.len()), (starts(48)[3], 4096));
    assert!(new.split_off(starts(64)[3]).iter().all(|byte| *byte == 0));
    [(old, starts(48)), (new, starts(64))]
}

fn opened(bytes: &[u8]) -> (CrashDisk, Result<Vec<Placed>, RaftError>) {
    let disk = disk_with(bytes);
    let opened = open_with(&disk.process(), 4096);
    (disk, opened.map(|opened| opened.records))
}

/// The pages of a batch reached the disk, but for the first one. What stands in its records, and looks like
/// a record that was written after the batch was synced, is no proof that more than a batch was torn.
#[test]
fn a_record_planted_in_a_torn_batch_is_none() {
    let [(mut old, old_starts), (mut new, new_starts)] = both_versions(payload);
    old[old_starts[2]..old_starts[2] + 200].fill(0);
    new[new_starts[2]..new_starts[2] + 200].fill(0);
    let (disk, found) = opened(&new);
    assert_eq!(found.unwrap().len(), 4, "the batches before it");
    let length = disk.process().look(&segment_at(42)).unwrap().unwrap().1;
    assert_eq!(length as usize, new_starts[2], "cut at the tail");
    // Version 1 has nothing to tell them by.
    assert!(matches!(opened(&old).1, Err(RaftError::Corrupt { .. })));
}

/// Decay before the last batch, of whatever byte, is refused with its place, planted records or not.
#[test]
fn a_flipped_byte_before_the_last_batch_is_refused() {
    for (bytes, starts) in both_versions(harmless) {
        let whole = opened(&bytes).1.unwrap();
        assert_eq!(whole.len(), 6);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x41;
            match opened(&bytes).1 {
                Err(RaftError::Corrupt { offset, .. }) => {
                    assert!(at < starts[2], "{at} is of the last batch");
                    let named = if at < starts[0] {
                        0
                    } else {
                        whole.iter().map(|p| p.place.offset).filter(|o| *o <= at as u64).max().unwrap()
                    };
                    assert_eq!(offset, named, "byte {at}");
                }
                Err(other) => panic!("byte {at}: {other}"),
                Ok(records) => assert!(at >= starts[2] && records.len() >= 4, "byte {at} was not noticed"),
            }
        }
    }
}

/// Zeros are written ahead, and only behind the last record of all: whatever is among them is what a crash left.
#[test]
fn zeros_are_only_behind_the_last_record() {
    let [_, (bytes, starts)] = both_versions(payload);
    for at in starts[3]..4096 {
        let mut bytes = bytes.clone();
        bytes.resize(4096, 0);
        bytes[at] ^= 0x41;
        assert_eq!(opened(&bytes).1.unwrap().len(), 6, "byte {at}");
    }
    let disk = CrashDisk::new(1);
    let process = disk.process();
    let mut segments = open_with(&process, 4096).unwrap().segments;
    let mut append = |index| {
        let position = Position { term: 1, index };
        let record = Record { position, kind: Kind::Command, payload: harmless(position, 1000) };
        segments.append(&[record]).unwrap().remove(0)
    };
    let placed: Vec<Placed> = (0..10).map(&mut append).collect();
    let length = |first| process.look(&segment_at(first)).unwrap().unwrap().1;
    assert_eq!([length(0), length(3), length(6)], [64 + 3 * 1032; 3]);
    assert_eq!(length(9), 4096);
    segments.truncate(Some(placed[8].position), Some(placed[8].place.clone())).unwrap();
    assert_eq!(length(6), 64 + 3 * 1032);
    let opened = open_with(&disk.process(), 4096).unwrap();
    assert_eq!(opened.records.len(), 9);
}

/// From the first record on, of a new log as of one that was opened again: else each record's sync writes the file's length.
#[test]
fn a_record_takes_the_place_of_zeros() {
    let disk = CrashDisk::new(1);
    for index in 0..2 {
        let process = disk.process();
        let mut segments = open_with(&process, 4096).unwrap().segments;
        let position = Position { term: 1, index };
        segments.append(&[Record { position, kind: Kind::Command, payload: Bytes::new() }]).unwrap();
        assert_eq!(process.look(&segment_at(0)).unwrap().unwrap().1, 4096, "record {index}");
        drop(segments);
        disk.crash(Crash::Kill);
    }
}

/// The cut of a segment that was full did not reach the disk, and the process stopped. The next one takes it for done, and
/// then a power loss brings the zeros back, in a segment that is not the last one any more.
#[test]
fn a_cut_whose_sync_failed_is_made_again() {
    let record = |index| {
        let position = Position { term: 1, index };
        Record { position, kind: Kind::Command, payload: harmless(position, 1000) }
    };
    let mut cuts = 0;
    for failing in 0..20 {
        let disk = CrashDisk::new(failing);
        let mut segments = open_with(&disk.process(), 4096).unwrap().segments;
        disk.fail_sync(failing);
        let acked = (0..8).take_while(|index| segments.append(&[record(*index)]).is_ok()).count() as u64;
        cuts += u64::from(acked == 3);
        drop(segments);
        disk.set_fault(None);
        disk.crash(Crash::Kill);
        let opened = open_with(&disk.process(), 4096).unwrap();
        let next = opened.records.len() as u64;
        assert!(next >= acked);
        let mut segments = opened.segments;
        (next..next + 8).for_each(|index| drop(segments.append(&[record(index)]).unwrap()));
        disk.crash(Crash::PowerLoss);
        let opened = open_with(&disk.process(), 4096).unwrap_or_else(|error| panic!("{failing}: {error}"));
        assert_eq!(opened.records.len() as u64, next + 8);
    }
    assert!(cuts > 0, "no sync of a cut failed");
}

/// However much is behind the last record, and if nothing is.
#[test]
fn a_start_cuts_once_and_syncs_once() {
    let bytes = version_1(BEFORE, &batches(harmless));
    for torn in [0, 5, 40] {
        let disk = disk_with(&bytes[..bytes.len() - torn]);
        let count = |kind| disk.count(kind);
        let (syncs, writes) = (count(CallKind::Sync), count(CallKind::Write));
        drop(open_with(&disk.process(), 4096).unwrap());
        // The cut, the last batch, and the room that is reserved.
        assert_eq!((count(CallKind::Sync) - syncs, count(CallKind::Write) - writes), (1, 3), "{torn}");
    }
}

/// A file that ends anywhere has what is whole of it.
#[test]
fn a_segment_cut_at_any_byte_keeps_what_is_before() {
    for (bytes, _) in both_versions(harmless) {
        let whole: Vec<u64> = opened(&bytes)
            .1
            .unwrap()
            .iter()
            .map(|p| p.place.offset + 32 + u64::from(p.place.length))
            .collect();
        for length in 0..bytes.len() {
            let found = opened(&bytes[..length]).1.unwrap();
            let kept = whole.iter().filter(|end| **end <= length as u64).count();
            assert_eq!(found.len(), kept, "cut to {length} bytes");
        }
    }
}

#[test]
fn a_log_of_version_1_goes_on_in_version_2() {
    let bytes = version_1(BEFORE, &batches(harmless));
    for (torn, kept) in [(false, 6), (true, 5)] {
        let disk = disk_with(&bytes[..bytes.len() - if torn { 5 } else { 0 }]);
        let opened = open_with(&disk.process(), 4096).unwrap();
        assert_eq!((opened.previous, opened.records.len()), (Some(BEFORE), kept));
        let mut segments = opened.segments;
        let before = read_file(&*disk.process(), &segment_at(42), 1 << 20).unwrap();
        let first = 42 + kept as u64;
        for index in first..first + 4 {
            let position = Position { term: 4, index };
            let record = Record { position, kind: Kind::Command, payload: harmless(position, 50) };
            segments.append(&[record]).unwrap();
        }
        disk.crash(Crash::PowerLoss);
        let process = disk.process();
        assert_eq!(read_file(&*process, &segment_at(42), 1 << 20).unwrap(), before, "left as it was");
        let next = read_file(&*process, &segment_at(first), 1 << 20).unwrap();
        assert_eq!(&next[..12], b"mobulog\n\x02\0\0\0");
        let opened = open_with(&process, 4096).unwrap();
        for placed in &opened.records {
            let record = read_records(std::slice::from_ref(placed)).unwrap().remove(0);
            assert_eq!(record.payload, harmless(placed.position, record.payload.len()));
        }
        let found: Vec<u64> = opened.records.iter().map(|placed| placed.position.index).collect();
        assert_eq!(found, (42..first + 4).collect::<Vec<_>>());
    }
}

/// One without records goes on as it is: the next one would have its name.
#[test]
fn an_empty_segment_of_version_1_takes_one_record() {
    let disk = disk_with(&version_1(BEFORE, &[]));
    let mut segments = open_with(&disk.process(), 4096).unwrap().segments;
    let record = |index| {
        let position = Position { term: 3, index };
        Record { position, kind: Kind::Command, payload: payload(position, 50) }
    };
    segments.append(&[record(42), record(43)]).unwrap();
    disk.crash(Crash::PowerLoss);
    let opened = open_with(&disk.process(), 4096).unwrap();
    read_all(&opened);
    let salted: Vec<bool> =
        opened.records.iter().map(|placed| placed.place.segment.header.salt.is_some()).collect();
    assert_eq!(salted, [false, true]);
}

#[test]
fn segments_have_salts_of_their_own() {
    let disk = CrashDisk::new(1);
    let mut segments = open(&disk.process()).unwrap().segments;
    let mut salts = Vec::new();
    for index in 0..3 {
        let position = Position { term: 1, index };
        let record = Record { position, kind: Kind::Command, payload: payload(position, 1000) };
        let placed = segments.append(&[record]).unwrap();
        salts.push(placed[0].place.segment.header.salt.unwrap().0);
    }
    salts.sort_unstable();
    salts.dedup();
    assert_eq!(salts.len(), 3);
}

/// The example of docs/formats/log.md, from the code.
fn example() -> Vec<u8> {
    let salt = Some(Salt(0x1122_3344_5566_7788));
    let mut bytes = SegmentHeader { node: 1, previous: Some(BEFORE), reset: false, salt }.encode().to_vec();
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
        record.encode(salt, back, &mut bytes);
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
        ("SEGMENT_HEADER_COMMON", format::SEGMENT_HEADER_COMMON),
        ("VOTE_VERSION", format::VOTE_VERSION as usize),
    ] {
        let line = format!("| `{name}` | {value} |");
        assert!(page.contains(&line), "the page lacks {line}");
    }
}
