//! What was acknowledged, per file and byte, and so what must be found.
//!
//! What is promised, to whom (DESIGN 3b), and what of it this oracle holds the cluster to:
//!
//! - A *change of names* (create, rename, delete, concat, truncate, mkdirs) that was answered holds through
//!   anything. One that failed, or was not answered, may or may not have happened: both are right from
//!   then on, and the path is left alone until the end.
//! - *Closed*, or *hsynced*: that many bytes are there through anything, power loss of all included. So
//!   are the bytes of a file that somebody opened for appending: it was closed, if only by a recovery.
//! - *hflushed*: that many bytes are there as long as one DataNode of the pipeline lives on with them. What
//!   "lives on" means here:
//!   - kills and restarts of processes take nothing, of any number of nodes at any time: what was flushed
//!     has been handed to the operating system. If no node that ever was in the pipeline since the flush
//!     lost power, the bytes must be there; that a call to a disk failed, or that a disk was full, excuses nobody.
//!   - if some did, then a node must be left that was in the pipeline from the flush to the last that is
//!     known of it, did not, and was never away (down, paused, or its link to the NameNode cut) for so long that
//!     it could be declared dead. Then the bytes must be there. Of three nodes of which two lost power and
//!     one was killed and started again at once, the killed one counts; and one that only other nodes do not reach.
//!   - the time of a flush is that of its last write: its nodes acknowledge what they get, also before anybody asks
//!     (seed 238: all lost power between a write and an hflush that had nothing more to send; HDFS's answers, too).
//!   - if all had their power cut, what was hflushed and not hsynced may be gone, down to what was hsynced.
//! - *Written*: promised to nobody, may be there all the same. Never anything else: the bytes that are
//!   there are those that were written there, without a hole, and no more than were written.
//!
//! A writer that was robbed of its lease cannot have a flush acknowledged after another one was let in.
//!
//! Readers of a file, open or closed, are held to the same as soon as they have opened it.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::Content;
use crate::mishap::Mishaps;

/// A DataNode's number.
pub type NodeAt = usize;

/// An acknowledged flush.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flush {
    length: u64,
    /// When the last of it was handed to the writer.
    written_ms: u64,
    /// In every pipeline since; and in any.
    always: BTreeSet<NodeAt>,
    ever: BTreeSet<NodeAt>,
}

/// A file: its bytes are a beginning of `content`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    /// All that was written; more than that cannot be found.
    pub content: Content,
    /// So many bytes survive anything.
    pub durable: u64,
    /// When the last of it was handed to a writer, in simulated milliseconds.
    pub written_ms: u64,
    flush: Option<Flush>,
}

impl FileState {
    /// A closed file of just these bytes.
    pub fn closed(content: Content) -> FileState {
        FileState { durable: content.length(), content, written_ms: 0, flush: None }
    }

    /// Its length, if there is no doubt about it.
    pub fn exact(&self) -> Option<u64> {
        (self.durable == self.content.length()).then_some(self.durable)
    }

    /// So many bytes must be found at least.
    pub fn floor(&self, mishaps: &Mishaps, now_ms: u64) -> u64 {
        let flushed = self.flush.as_ref().filter(|flush| flush.holds(mishaps, now_ms));
        self.durable.max(flushed.map_or(0, |flush| flush.length))
    }

    /// All bytes so far survive anything.
    pub fn synced(&mut self, length: u64) {
        self.durable = self.durable.max(length);
    }

    /// So many bytes were flushed to these nodes. Each may have acknowledged them as soon as they were written, and
    /// have lost its power before the writer heard of the flush, or asked for it.
    pub fn flushed(&mut self, length: u64, nodes: &BTreeSet<NodeAt>) {
        let (always, ever) = (nodes.clone(), nodes.clone());
        self.flush = Some(Flush { length, written_ms: self.written_ms, always, ever });
    }

    /// The pipeline consists of these nodes now.
    pub fn pipeline(&mut self, nodes: &BTreeSet<NodeAt>) {
        if let Some(flush) = &mut self.flush {
            flush.always.retain(|node| nodes.contains(node));
            flush.ever.extend(nodes);
        }
    }

    /// It was found closed, or opened to append, with this length.
    pub fn settled(&mut self, length: u64) {
        self.content.cut(length);
        self.durable = length;
        self.flush = None;
    }

    /// It may have been cut to this length, or not.
    pub fn maybe_cut(&mut self, length: u64) {
        self.durable = self.durable.min(length);
        self.flush = None;
    }

    fn check(&self, found: &[u8], mishaps: &Mishaps, now_ms: u64) -> Result<(), String> {
        let (length, most) = (found.len() as u64, self.content.length());
        let floor = self.floor(mishaps, now_ms);
        if let Some(at) = self.content.first_difference(&found[..found.len().min(most as usize)]) {
            return Err(format!("byte {at} of {length} was never written there"));
        }
        if length > most {
            return Err(format!("it has {length} bytes, and {most} were written"));
        }
        if length < floor {
            return Err(format!(
                "it has {length} bytes; {} are durable, {:?} were flushed, {most} written",
                self.durable, self.flush
            ));
        }
        Ok(())
    }
}

impl Flush {
    fn holds(&self, mishaps: &Mishaps, now_ms: u64) -> bool {
        let lost = |node: &NodeAt| mishaps.lost_since(*node, self.written_ms);
        let given_up = |node: &NodeAt| mishaps.given_up_since(*node, self.written_ms, now_ms);
        !self.ever.iter().any(lost) || self.always.iter().any(|node| !lost(node) && !given_up(node))
    }
}

/// What may be found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Possible {
    /// A file.
    File(FileState),
    /// A directory.
    Directory,
    /// Nothing.
    Absent,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Nothing.
    Absent,
}

/// What was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// Nothing.
    Absent,
}

#[derive(Clone, Debug, Default)]
struct Place {
    /// Any of these may be found.
    possible: Vec<Possible>,
    /// Counts the changes but for more bytes: what a reader saw across one says nothing.
    epoch: u64,
    /// A change is under way.
    changing: bool,
}

/// What a reader knows of a file before it opens it.
#[derive(Clone, Debug)]
pub struct Glimpse {
    epoch: u64,
    before: FileState,
}

/// The acknowledged state, by path.
#[derive(Debug, Default)]
pub struct Oracle {
    places: BTreeMap<String, Place>,
    /// Renames without an answer: something is at one of the two places, not at both.
    either: Vec<(String, String)>,
    /// What befell the DataNodes.
    pub mishaps: Mishaps,
    /// The simulated time, in milliseconds.
    pub now_ms: u64,
    acknowledged: u64,
    failed: u64,
}

impl Oracle {
    /// A change of a path is asked for: until it is known what came of it, readers learn nothing.
    pub fn begin(&mut self, path: &str) {
        let place = self.places.entry(path.into()).or_default();
        place.epoch += 1;
        place.changing = true;
    }

    /// This is what may be found there from now on.
    pub fn set(&mut self, path: &str, possible: Vec<Possible>) {
        let place = self.places.entry(path.into()).or_default();
        place.epoch += 1;
        place.changing = false;
        place.possible = possible;
    }

    /// The file there, if it is the only possibility.
    pub fn file(&self, path: &str) -> Option<&FileState> {
        match self.places.get(path)?.possible.as_slice() {
            [Possible::File(file)] => Some(file),
            _ => None,
        }
    }

    /// The same, to write in its promises.
    pub fn file_mut(&mut self, path: &str) -> Option<&mut FileState> {
        match self.places.get_mut(path)?.possible.as_mut_slice() {
            [Possible::File(file)] => Some(file),
            _ => None,
        }
    }

    /// A rename of which nobody knows whether it happened.
    pub fn either(&mut self, one: &str, other: &str) {
        self.either.push((one.into(), other.into()));
    }

    /// Counts a change or a flush.
    pub fn count(&mut self, acknowledged: bool) {
        *(if acknowledged { &mut self.acknowledged } else { &mut self.failed }) += 1;
    }

    /// Changes and flushes that were acknowledged, and that were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.acknowledged, self.failed)
    }

    /// Paths that a reader can look at.
    pub fn readable(&self) -> Vec<String> {
        let files = self.places.iter().filter(|(path, place)| !place.changing && self.file(path).is_some());
        files.map(|(path, _)| path.clone()).collect()
    }

    /// A reader is about to open a file.
    pub fn glimpse(&self, path: &str) -> Option<Glimpse> {
        let place = self.places.get(path).filter(|place| !place.changing)?;
        Some(Glimpse { epoch: place.epoch, before: self.file(path)?.clone() })
    }

    /// A reader has read a file from its start to its end.
    ///
    /// # Errors
    /// What is wrong with what it saw.
    pub fn saw(&self, path: &str, glimpse: &Glimpse, found: &[u8]) -> Result<(), String> {
        let place = &self.places[path];
        let Some(now) = self.file(path).filter(|_| !place.changing && place.epoch == glimpse.epoch) else {
            return Ok(());
        };
        // What was promised before it opened the file, of all that may be there by now.
        let mut expected = FileState { content: now.content.clone(), ..glimpse.before.clone() };
        if let (Some(flush), Some(later)) = (&mut expected.flush, &now.flush) {
            flush.always.retain(|node| later.always.contains(node));
            flush.ever.extend(&later.ever);
        }
        expected.check(found, &self.mishaps, self.now_ms)
    }

    /// What a path stands for beyond doubt, and the epoch in which it does.
    pub fn name(&self, path: &str) -> Option<(u64, Name)> {
        let place = self.places.get(path).filter(|place| !place.changing)?;
        let name = match place.possible.as_slice() {
            [Possible::File(_)] => Name::File,
            [Possible::Directory] => Name::Directory,
            [Possible::Absent] => Name::Absent,
            _ => return None,
        };
        Some((place.epoch, name))
    }

    /// Somebody who knew `before` asked for the path's status, and this is the answer.
    ///
    /// # Errors
    /// If it was nothing else in between.
    pub fn saw_name(&self, path: &str, before: (u64, Name), found: Name) -> Result<(), String> {
        match self.name(path) {
            Some(now) if now == before && found != now.1 => {
                Err(format!("its status says {found:?}, and it is {:?}", now.1))
            }
            _ => Ok(()),
        }
    }

    /// All paths that anybody ever touched.
    pub fn paths(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    /// Everything is whole and closed, and this is what is there; it must be there for good.
    ///
    /// # Errors
    /// Why it cannot be right.
    pub fn settle(&mut self, path: &str, found: &Found) -> Result<(), String> {
        let mut wrong = Vec::new();
        for possible in &self.places[path].possible {
            let fits = match (possible, found) {
                (Possible::File(file), Found::File(bytes)) => {
                    file.check(bytes, &self.mishaps, self.now_ms).map(|()| {
                        let mut settled = file.clone();
                        settled.settled(bytes.len() as u64);
                        Possible::File(settled)
                    })
                }
                (Possible::Directory, Found::Directory) => Ok(Possible::Directory),
                (Possible::Absent, Found::Absent) => Ok(Possible::Absent),
                (Possible::File(_), Found::Absent) => Err("the file is gone".into()),
                (Possible::Absent, Found::File(bytes)) => {
                    Err(format!("a file of {} bytes is there that should not", bytes.len()))
                }
                _ => Err("it is something else".into()),
            };
            match fits {
                Ok(settled) => {
                    self.set(path, vec![settled]);
                    return Ok(());
                }
                Err(why) => wrong.push(why),
            }
        }
        Err(wrong.join("; or "))
    }

    /// After all paths were settled: no rename left two files, or none.
    ///
    /// # Errors
    /// Which one did.
    pub fn settle_renames(&self) -> Result<(), String> {
        for (one, other) in &self.either {
            let there = |path| self.file(path).is_some();
            if there(one) == there(other) {
                let what = if there(one) { "at both" } else { "at neither" };
                return Err(format!(
                    "after a rename without an answer a file is {what} of {one} and {other}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mishap::Mishap;

    fn flushed() -> FileState {
        let mut file = FileState::default();
        file.content.write(1, 100);
        file.synced(40);
        file.written_ms = 1_000;
        file.flushed(80, &BTreeSet::from([0, 1, 2]));
        file
    }

    fn power_losses(nodes: &[NodeAt]) -> Mishaps {
        let mut all = Mishaps::default();
        for node in nodes {
            all.begin(*node, Mishap::Loss, 2_000);
            all.end(*node, Mishap::Loss, 2_000);
        }
        all
    }

    #[test]
    fn what_was_flushed_lives_as_long_as_one_node_with_it() {
        let file = flushed();
        assert_eq!(file.floor(&power_losses(&[]), 9_000), 80);
        assert_eq!(file.floor(&power_losses(&[0, 2]), 9_000), 80);
        assert_eq!(file.floor(&power_losses(&[0, 1, 2]), 9_000), 40, "what was synced is left");
        let mut away = power_losses(&[0, 2]);
        away.begin(1, Mishap::Absence, 3_000);
        assert_eq!(file.floor(&away, 8_000), 80);
        assert_eq!(file.floor(&away, 9_000), 40, "the last one may have been given up");
    }

    #[test]
    fn power_may_be_lost_before_the_answer_arrives() {
        let mut file = flushed();
        file.written_ms = 2_000;
        file.flushed(90, &BTreeSet::from([0, 1, 2]));
        assert_eq!(file.floor(&power_losses(&[0, 1, 2]), 9_000), 40, "it was written just before");
        file.written_ms = 2_001;
        file.flushed(90, &BTreeSet::from([0, 1, 2]));
        assert_eq!(file.floor(&power_losses(&[0, 1, 2]), 9_000), 90);
    }

    #[test]
    fn a_node_that_left_the_pipeline_counts_no_more() {
        let mut file = flushed();
        file.pipeline(&BTreeSet::from([0, 3]));
        assert_eq!(file.floor(&power_losses(&[0]), 9_000), 40);
        assert_eq!(file.floor(&power_losses(&[1]), 9_000), 80);
    }

    #[test]
    fn a_name_is_what_it_was_answered_to_be() {
        let mut oracle = Oracle::default();
        oracle.begin("/f");
        assert_eq!(oracle.name("/f"), None, "who knows");
        oracle.set("/f", vec![Possible::File(flushed())]);
        let before = oracle.name("/f").expect("a file");
        assert!(oracle.saw_name("/f", before, Name::File).is_ok());
        oracle.saw_name("/f", before, Name::Absent).expect_err("it was not replayed yet, or is lost");
        oracle.begin("/f");
        assert!(oracle.saw_name("/f", before, Name::Absent).is_ok(), "it is being deleted");
        oracle.set("/f", vec![Possible::Absent]);
        assert!(oracle.saw_name("/f", before, Name::File).is_ok(), "asked before");
        let before = oracle.name("/f").expect("nothing");
        oracle.saw_name("/f", before, Name::File).expect_err("it was deleted");
        oracle.set("/f", vec![Possible::Absent, Possible::File(flushed())]);
        assert_eq!(oracle.name("/f"), None, "a change without an answer");
    }

    #[test]
    fn what_is_found_must_fit() {
        let file = flushed();
        let (bytes, none) = (file.content.bytes(0, 100), Mishaps::default());
        for (length, right) in [(79, false), (80, true), (100, true)] {
            assert_eq!(file.check(&bytes[..length], &none, 5_000).is_ok(), right, "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        file.check(&longer, &none, 5_000).expect_err("it is too long");
        longer.truncate(90);
        longer[3] ^= 1;
        file.check(&longer, &none, 5_000).expect_err("it is too long");
    }
}
