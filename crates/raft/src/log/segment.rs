//! The log's files: opening them after whatever happened, and writing them.
//!
//! Invariants: a batch of records is synced before the next one is written, so damage that lies
//! before a record's batch was not done by a crash; only the last segment may have a torn tail, and
//! it is cut off, durably, before anything is written; names are durable before they are relied on;
//! and nothing is written behind a batch that is not known to be durable. Behind the last record of the last segment
//! are zeros; every other one ends with its last record.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobula_disk::{DiskRef, FileRef, Kind as EntryKind, Open, create_folder_durably, is_shortage, read_file};
use mobula_net::Entropy;

use super::format::{
    self, Found, HeaderError, PAYLOAD_MAX, RECORD_ALIGN, RECORD_HEADER, Record, SEGMENT_HEADER, Salt,
    SegmentHeader,
};
use crate::face::{Position, RaftError};

/// Bytes collected before they are written, in one call.
const WRITE_MAX: usize = 4 << 20;
/// So many bytes of zeros are written ahead of the records. Records that take their place change neither the file's length nor
/// where it lies: to sync them, the file system need not write its own journal, nor wait for others who do
/// (docs/decisions/0001-raft-log.md).
const FILL_BYTES: u64 = 256 << 10;
/// A segment longer than this is not ours.
const SEGMENT_MAX: u64 = 2 << 30;
/// A last segment that was cut behind is replaced if it is longer than this.
const ROLL_MIN: u64 = 64 << 10;
/// Segments are named so, followed by their first index in 20 digits.
const NAME: &str = "log-";

/// A file of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: FileRef,
    pub(crate) header: SegmentHeader,
}

impl Segment {
    /// Reads the record at the beginning of `bytes`, which are of this segment.
    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Found<'a>, &'static str> {
        format::decode(self.header.salt, bytes)
    }
}

/// Where a record is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    /// Of the payload.
    pub(crate) length: u32,
}

/// A record and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) position: Position,
    pub(crate) place: Place,
}

/// The log's files, as its one writer holds them.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: DiskRef,
    folder: PathBuf,
    node: u64,
    segment_bytes: u64,
    /// Each segment's salt comes from here.
    entropy: Entropy,
    /// All of them, the one written to last.
    all: VecDeque<Arc<Segment>>,
    /// Where the last one's next record goes.
    end: u64,
    /// How long the last one's file is, with the zeros.
    filled: u64,
    /// The last record; `None` in a log that never had one.
    last: Option<Position>,
    buffer: Vec<u8>,
}

/// A log that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segments: Segments,
    /// The entry before the first one that is there.
    pub(crate) previous: Option<Position>,
    pub(crate) records: Vec<Placed>,
}

impl Segments {
    /// Opens the log of `node` in `folder`, which is made if it is missing.
    pub(crate) fn open(
        disk: DiskRef,
        folder: &Path,
        node: u64,
        segment_bytes: u64,
        entropy: Entropy,
    ) -> Result<Opened, RaftError> {
        create_folder_durably(&*disk, folder)?;
        let mut segments = Segments {
            disk,
            folder: folder.into(),
            node,
            segment_bytes: segment_bytes.max(SEGMENT_HEADER as u64),
            entropy,
            all: VecDeque::new(),
            end: 0,
            filled: 0,
            last: None,
            buffer: Vec::new(),
        };
        segments.find()?;
        segments.drop_before_reset()?;
        let records = segments.read_all()?;
        match segments.all.is_empty() {
            true => segments.begin(None, false)?,
            false => segments.renew_tail(&records)?,
        }
        let previous = segments.all[0].header.previous;
        Ok(Opened { segments, previous, records })
    }

    /// Finds the segments and reads their headers. A last one without a header is one whose making
    /// was cut short.
    fn find(&mut self) -> Result<(), RaftError> {
        let mut names: Vec<_> = self.disk.list(&self.folder)?;
        names.retain(|entry| entry.kind == EntryKind::File && is_segment(&entry.name.to_string_lossy()));
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let count = names.len();
        for (number, entry) in names.into_iter().enumerate() {
            let path = self.folder.join(&entry.name);
            let file = self.disk.open(&path, Open::ReadWrite)?;
            let mut bytes = vec![0; SEGMENT_HEADER.min(entry.length as usize)];
            file.read_exact_at(&mut bytes, 0)?;
            match SegmentHeader::decode(&bytes) {
                Ok(header) => {
                    self.check_header(&path, &header)?;
                    self.all.push_back(Arc::new(Segment { path, file, header }));
                }
                Err(HeaderError::Later { version, flags }) => {
                    let what =
                        format!("a log of version {version} (flags {flags:#x}), made by a later program");
                    return Err(RaftError::Foreign { file: path, what });
                }
                Err(HeaderError::Damaged(what)) => {
                    let rest = rest_of(&file, &path, entry.length, SEGMENT_HEADER)?;
                    if number + 1 < count || rest.iter().any(|byte| *byte != 0) {
                        return Err(RaftError::Corrupt { file: path, offset: 0, what: what.into() });
                    }
                    drop(file);
                    self.remove(&path)?;
                }
            }
        }
        Ok(())
    }

    fn check_header(&self, path: &Path, header: &SegmentHeader) -> Result<(), RaftError> {
        if path != self.path(header.first()) {
            let what = format!("the segment begins with entry {}, not where its name says", header.first());
            return Err(RaftError::Corrupt { file: path.into(), offset: 32, what });
        }
        if header.node != self.node {
            let what = format!("the log of node {}, not of node {}", header.node, self.node);
            return Err(RaftError::Foreign { file: path.into(), what });
        }
        Ok(())
    }

    fn drop_before_reset(&mut self) -> Result<(), RaftError> {
        let reset = self.all.iter().rposition(|segment| segment.header.reset).unwrap_or(0);
        for segment in self.all.drain(..reset).collect::<Vec<_>>() {
            self.remove(&segment.path)?;
        }
        Ok(())
    }

    fn read_all(&mut self) -> Result<Vec<Placed>, RaftError> {
        let mut records = Vec::new();
        let count = self.all.len();
        for number in 0..count {
            let segment = self.all[number].clone();
            if number == 0 {
                self.last = segment.header.previous;
            } else if segment.header.previous != self.last {
                let has = self.last.map_or("nothing".to_owned(), |last| last.to_string());
                let wants = segment.header.previous.map_or("nothing".to_owned(), |p| p.to_string());
                let what =
                    format!("the segment follows entry {wants}, but the log before it ends with {has}");
                return Err(RaftError::Corrupt { file: segment.path.clone(), offset: 24, what });
            }
            let length = segment.file.length()?;
            let header = segment.header.size();
            let bytes = rest_of(&segment.file, &segment.path, length, header)?;
            let end = self.scan(&segment, &bytes, &mut records)?;
            if end < bytes.len() {
                let last = number + 1 == count;
                let bad = Bad { segment: &segment, at: end, last: self.last };
                // What is in the last one behind its records is cut off by `renew_tail`, before anything else is written.
                bad.judge(&bytes, last)?;
            }
            self.end = (header + end) as u64;
            self.filled = self.end;
        }
        Ok(records)
    }

    /// Reads records as long as they are good; answers where (behind the header) that ends.
    fn scan(
        &mut self,
        segment: &Arc<Segment>,
        bytes: &[u8],
        records: &mut Vec<Placed>,
    ) -> Result<usize, RaftError> {
        let (mut at, header) = (0, segment.header.size());
        while let Ok(found) = segment.decode(bytes.get(at..).unwrap_or(&[])) {
            if !follows(self.last, found.position) {
                let what = format!("entry {} cannot follow {:?}", found.position, self.last);
                let offset = (header + at) as u64;
                return Err(RaftError::Corrupt { file: segment.path.clone(), offset, what });
            }
            let length = found.payload.len() as u32;
            let place = Place { segment: segment.clone(), offset: (header + at) as u64, length };
            records.push(Placed { position: found.position, place });
            self.last = Some(found.position);
            at += format::record_size(found.payload.len());
        }
        // A last record without its padding is whole: `at` is then behind the file's end.
        Ok(at)
    }

    /// Cuts off what is behind the last record, and writes the last batch once more, with one sync for both, and one for
    /// the segment's name. The process before this one may have stopped since its sync failed: what the disk then shows is in
    /// the page cache only, marked clean, and no later sync would write it (CASES, 9). A crash before the sync leaves a
    /// tail that is as torn as it was, behind a batch whose bytes are the same.
    fn renew_tail(&self, records: &[Placed]) -> io::Result<()> {
        let segment = self.current();
        let begin = match records.last().map(|last| &last.place) {
            Some(place) if place.segment.path == segment.path => {
                let mut header = [0; RECORD_HEADER];
                segment.file.read_exact_at(&mut header, place.offset)?;
                place.offset.saturating_sub(u64::from(format::back(&header)))
            }
            _ => 0,
        };
        let end = self.end.min(segment.file.length()?);
        // So may a cut be whose sync failed: what it took away would be there again after a power loss.
        segment.file.set_length(end)?;
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(begin)).map_err(io::Error::other)?];
        segment.file.read_exact_at(&mut bytes, begin)?;
        segment.file.write_all_at(&bytes, begin)?;
        segment.file.sync_data()?;
        self.disk.sync_folder(&self.folder)?;
        self.reserve()
    }

    /// Reserves what a cut has freed. Where there is no room for that, it goes on as long as there is.
    fn reserve(&self) -> io::Result<()> {
        match self.current().file.allocate(self.segment_bytes) {
            Err(error) if is_shortage(&error) => Ok(()),
            reserved => reserved,
        }
    }

    /// Writes records behind the last one and syncs them; answers where they are.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<Vec<Placed>> {
        let mut placed = Vec::with_capacity(records.len());
        let mut begin = self.end;
        for record in records {
            assert!(
                follows(self.last, record.position),
                "{:?} cannot follow {:?}",
                record.position,
                self.last
            );
            let header = &self.current().header;
            let filled = self.end > header.size() as u64;
            let full = self.end + record.size() as u64 > self.segment_bytes;
            if filled && (full || header.salt.is_none()) {
                self.write_buffer()?;
                self.finish()?;
                self.begin(self.last, false)?;
                begin = self.end;
            } else if self.buffer.len() + record.size() > WRITE_MAX {
                self.write_buffer()?;
            }
            let back = u32::try_from(self.end - begin).unwrap_or(u32::MAX);
            record.encode(self.current().header.salt, back, &mut self.buffer);
            let length = record.payload.len() as u32;
            let place = Place { segment: self.current().clone(), offset: self.end, length };
            placed.push(Placed { position: record.position, place });
            self.end += record.size() as u64;
            self.last = Some(record.position);
        }
        self.write_buffer()?;
        self.current().file.sync_data()?;
        Ok(placed)
    }

    /// Writes what was collected; it ends at `self.end`. Behind the zeros it brings new ones.
    fn write_buffer(&mut self) -> io::Result<()> {
        let offset = self.end - self.buffer.len() as u64;
        if self.end > self.filled {
            self.filled = self.fill_to();
            self.buffer.resize((self.filled - offset) as usize, 0);
        }
        self.current().file.write_all_at(&self.buffer, offset)?;
        self.buffer.clear();
        Ok(())
    }

    /// Up to where zeros belong behind `self.end`.
    fn fill_to(&self) -> u64 {
        (self.end + FILL_BYTES).min(self.segment_bytes).max(self.end)
    }

    /// The last segment gets no more records.
    fn finish(&self) -> io::Result<()> {
        let file = &self.current().file;
        if self.filled > self.end {
            file.set_length(self.end)?;
        }
        file.sync_data()
    }

    fn current(&self) -> &Arc<Segment> {
        self.all.back().expect("an opened log has a segment")
    }

    /// Makes the segment behind `previous`, durably.
    fn begin(&mut self, previous: Option<Position>, reset: bool) -> io::Result<()> {
        let salt = Some(Salt(self.entropy.u64()));
        let header = SegmentHeader { node: self.node, previous, reset, salt };
        let path = self.path(header.first());
        let file = self.disk.open(&path, Open::CreateNew)?;
        file.allocate(self.segment_bytes)?;
        self.end = header.size() as u64;
        self.filled = self.fill_to();
        let mut bytes = header.encode().to_vec();
        bytes.resize(self.filled as usize, 0);
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        self.disk.sync_folder(&self.folder)?;
        self.all.push_back(Arc::new(Segment { path, file, header }));
        self.last = previous;
        Ok(())
    }

    /// Removes the entries behind `last`, which is at `place`; `None` if its record counts no more.
    pub(crate) fn truncate(&mut self, last: Option<Position>, place: Option<Place>) -> io::Result<()> {
        let next = last.map_or(0, |last| last.index + 1);
        // From the end, each durably: a crash leaves no hole.
        while self.all.len() > 1 && self.current().header.first() >= next {
            let segment = self.all.pop_back().expect("there are two");
            self.remove(&segment.path)?;
        }
        self.last = last;
        self.end = match place {
            Some(place) => place.offset + format::record_size(place.length as usize) as u64,
            None if self.current().header.first() == next => self.current().header.size() as u64,
            // What is left are entries that were purged: the log begins anew behind them.
            None => {
                self.begin(last, true)?;
                return self.drop_front(next);
            }
        };
        let file = &self.current().file;
        // Batch by batch: of a cut that a power loss tears, what is left behind it must be of the batch that it tore.
        for begin in self.batches_behind(self.end)?.into_iter().rev() {
            file.set_length(begin)?;
            file.sync_data()?;
        }
        file.set_length(self.end)?;
        file.sync_data()?;
        self.filled = self.end;
        self.reserve()
    }

    /// Where, behind that place in the last segment, batches begin.
    fn batches_behind(&self, end: u64) -> io::Result<Vec<u64>> {
        let segment = self.current();
        let mut bytes = vec![0; segment.file.length()?.saturating_sub(end) as usize];
        segment.file.read_exact_at(&mut bytes, end)?;
        let (mut begins, mut at) = (Vec::new(), 0);
        while let Ok(found) = segment.decode(bytes.get(at..).unwrap_or(&[])) {
            if found.back == 0 && at > 0 {
                begins.push(end + at as u64);
            }
            at += format::record_size(found.payload.len());
        }
        Ok(begins)
    }

    /// Removes segments of which no entry behind `upto` is left.
    pub(crate) fn purge(&mut self, upto: Position) -> io::Result<()> {
        let last = self.last.map(|last| last.index);
        if last.is_none_or(|last| last < upto.index) {
            // Behind a snapshot from elsewhere: the log begins anew.
            self.begin(Some(upto), true)?;
        } else if last == Some(upto.index) && self.end > ROLL_MIN {
            self.finish()?;
            self.begin(self.last, false)?;
        }
        self.drop_front(upto.index + 1)
    }

    /// Removes segments of which no entry from `first` on is left.
    fn drop_front(&mut self, first: u64) -> io::Result<()> {
        while self.all.len() > 1 && self.all[1].header.first() <= first {
            let segment = self.all.pop_front().expect("there are two");
            self.remove(&segment.path)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)?;
        self.disk.sync_folder(&self.folder)
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{NAME}{first:020}"))
    }
}

fn is_segment(name: &str) -> bool {
    let digits = name.strip_prefix(NAME).unwrap_or("");
    digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn follows(last: Option<Position>, next: Position) -> bool {
    match last {
        None => next.index == 0,
        Some(last) => next.index == last.index + 1 && next.term >= last.term,
    }
}

/// What is behind a segment's header of that size.
fn rest_of(file: &FileRef, path: &Path, length: u64, header: usize) -> Result<Vec<u8>, RaftError> {
    if length > SEGMENT_MAX {
        let what = format!("{length} bytes, longer than any segment of the log");
        return Err(RaftError::Foreign { file: path.into(), what });
    }
    let mut bytes = vec![0; (length as usize).saturating_sub(header)];
    file.read_exact_at(&mut bytes, header as u64)?;
    Ok(bytes)
}

/// The place where a segment's records end before its bytes do.
struct Bad<'a> {
    segment: &'a Segment,
    /// Behind the header.
    at: usize,
    last: Option<Position>,
}

impl Bad<'_> {
    /// Fine if a crash can have done it: in the last segment, and with no record behind it that was
    /// written after what is here had been synced.
    fn judge(&self, bytes: &[u8], is_last: bool) -> Result<(), RaftError> {
        let why = self.segment.decode(&bytes[self.at..]).err().unwrap_or("a record is in the wrong place");
        if !is_last {
            return Err(self.corrupt(format!("{why}, and this is not the log's last segment")));
        }
        let Some(nonzero) = bytes[self.at..].iter().position(|byte| *byte != 0) else { return Ok(()) };
        let mut at = (self.at + nonzero) / RECORD_ALIGN * RECORD_ALIGN;
        while at + RECORD_HEADER <= bytes.len() {
            if let Ok(found) = self.segment.decode(&bytes[at..])
                && Some(found.position) > self.last
            {
                if at - (found.back as usize).min(at) > self.at {
                    return Err(self.corrupt(format!(
                        "{why}, but entry {} behind it was written after it was synced",
                        found.position
                    )));
                }
                at += format::record_size(found.payload.len());
            } else {
                at += RECORD_ALIGN;
            }
        }
        Ok(())
    }

    fn corrupt(&self, what: String) -> RaftError {
        let offset = (self.segment.header.size() + self.at) as u64;
        RaftError::Corrupt { file: self.segment.path.clone(), offset, what }
    }
}

/// Reads the records at `places`, which are in this order in one segment and next to each other.
pub(crate) fn read_records(places: &[Placed]) -> io::Result<Vec<Record>> {
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
    let end = last.place.offset + format::record_size(last.place.length as usize) as u64;
    let segment = &first.place.segment;
    let damaged = |offset: u64, what: &str| {
        let what = format!("{}: corrupt at byte {offset}: {what}", segment.path.display());
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    let mut bytes = vec![0; (end - first.place.offset) as usize];
    segment.file.read_exact_at(&mut bytes, first.place.offset)?;
    let bytes = bytes::Bytes::from(bytes);
    let mut records = Vec::with_capacity(places.len());
    for Placed { position, place } in places {
        let at = (place.offset - first.place.offset) as usize;
        let found = segment.decode(&bytes[at..]).map_err(|what| damaged(place.offset, what))?;
        if found.position != *position {
            return Err(damaged(place.offset, "another record is in its place"));
        }
        let payload = bytes.slice_ref(found.payload);
        records.push(Record { position: *position, kind: found.kind, payload });
    }
    Ok(records)
}

/// The last vote saved, encoded; `None` if none was.
pub(crate) fn read_vote(disk: &DiskRef, folder: &Path, node: u64) -> Result<Option<Vec<u8>>, RaftError> {
    let path = vote_path(folder);
    if disk.look(&path)?.is_none() {
        return Ok(None);
    }
    let bytes = read_file(&**disk, &path, 1 << 16)?;
    match format::decode_vote(&bytes) {
        Ok((of, vote)) if of == node => Ok(Some(vote.to_vec())),
        Ok((of, _)) => {
            Err(RaftError::Foreign { file: path, what: format!("the vote of node {of}, not of node {node}") })
        }
        Err(HeaderError::Damaged(what)) => {
            Err(RaftError::Corrupt { file: path, offset: 0, what: what.into() })
        }
        Err(HeaderError::Later { version, .. }) => {
            let what = format!("a vote of version {version}, made by a later program");
            Err(RaftError::Foreign { file: path, what })
        }
    }
}

/// Saves a vote, durably.
pub(crate) fn write_vote(disk: &DiskRef, folder: &Path, node: u64, vote: &[u8]) -> io::Result<()> {
    mobula_disk::write_file_durably(&**disk, &vote_path(folder), &format::encode_vote(node, vote))
}

fn vote_path(folder: &Path) -> PathBuf {
    folder.join("vote")
}

const _: () = assert!(PAYLOAD_MAX + RECORD_HEADER < u32::MAX as usize);
