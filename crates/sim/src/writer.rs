//! A writer's session with one open file: writes, flushes, syncs, and an end: closed, or just gone.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mobula_client::FileWriter;
use mobula_net::Entropy;

use crate::oracle::{FileState, NodeAt};
use crate::shared::{Phase, Shared};
use crate::workload::bounded;

/// Writes and flushes of a session, at most.
const STEPS: u64 = 9;
/// Longest pause between two of them, in milliseconds.
const PAUSE_MS: u64 = 400;
/// A session that gets here writes no more, in bytes.
const LENGTH_MAX: u64 = 100_000;
/// A flush that is given up on purpose is given up within so many milliseconds.
const CANCEL_MS: u64 = 60;

/// How a session ended.
pub(crate) enum End {
    /// The close was acknowledged.
    Closed,
    /// The file is open still, or perhaps not: its writer is of no use any more, or gone.
    Left(Option<Box<FileWriter>>),
}

pub(crate) struct Session<'a> {
    pub shared: &'a Shared,
    pub entropy: &'a Entropy,
    pub path: &'a str,
    /// Its bytes are its own.
    pub seed: u64,
}

impl Session<'_> {
    /// Writes until it has enough, or something fails.
    pub(crate) async fn run(&self, mut writer: FileWriter) -> End {
        for _ in 0..1 + self.entropy.below(STEPS) {
            if self.shared.phase() != Phase::Faults {
                break;
            }
            if !self.step(&mut writer).await {
                return End::Left(Some(Box::new(writer)));
            }
        }
        self.noted(&writer);
        if self.entropy.below(3) == 0 {
            self.shared.trace(&format!("{} is left open at {}", self.path, writer.position()));
            return End::Left(Some(Box::new(writer)));
        }
        if self.close(writer).await { End::Closed } else { End::Left(None) }
    }

    /// Ends it in order; whether that was acknowledged.
    pub(crate) async fn close(&self, writer: FileWriter) -> bool {
        self.noted(&writer);
        let length = writer.position();
        let closed =
            self.answered(&format!("close {} at {length}", self.path), bounded(writer.close()).await);
        if closed {
            self.file(|file| file.settled(length));
        }
        closed
    }

    /// One of them; false: it failed.
    async fn step(&self, writer: &mut FileWriter) -> bool {
        match self.entropy.below(10) {
            0..=4 if writer.position() < LENGTH_MAX => self.write_some(writer).await,
            0..=5 => self.hflush(writer).await,
            6 => self.hsync(writer).await,
            7 => self.cancelled_flush(writer).await,
            8 => {
                tokio::time::sleep(Duration::from_millis(self.entropy.below(PAUSE_MS))).await;
                true
            }
            _ => self.write_some(writer).await && self.hflush(writer).await,
        }
    }

    async fn write_some(&self, writer: &mut FileWriter) -> bool {
        let most = [300, 700, 2_000, 9_000, 30_000][self.entropy.below(5) as usize];
        self.write(writer, 1 + self.entropy.below(most)).await
    }

    pub(crate) async fn write(&self, writer: &mut FileWriter, length: u64) -> bool {
        // Known before it is asked for: a reader may see it before the answer comes.
        let now_ms = self.shared.oracle().now_ms;
        let data = self.file(|file| {
            file.written_ms = now_ms;
            let from = file.content.length();
            file.content.write(self.seed, length);
            file.content.bytes(from, length)
        });
        let Some(data) = data else { return false };
        let done = bounded(writer.write(Bytes::from(data))).await;
        self.noted(writer);
        if let Err(why) = &done {
            self.shared.trace(&format!("write {length} to {} failed: {why}", self.path));
        }
        done.is_ok()
    }

    pub(crate) async fn hflush(&self, writer: &mut FileWriter) -> bool {
        let length = writer.position();
        let done = bounded(writer.hflush()).await;
        self.flushed(writer, done, length, "hflush")
    }

    pub(crate) async fn hsync(&self, writer: &mut FileWriter) -> bool {
        let length = writer.position();
        let done = bounded(writer.hsync()).await;
        if done.is_ok() {
            self.file(|file| file.synced(length));
        }
        self.flushed(writer, done, length, "hsync")
    }

    fn flushed(&self, writer: &FileWriter, done: Result<(), String>, length: u64, what: &str) -> bool {
        self.noted(writer);
        let done = self.answered(&format!("{what} {} at {length}", self.path), done);
        if done {
            let nodes = nodes_of(writer);
            self.file(|file| match nodes.is_empty() {
                // Between two blocks: those that are done are on disk.
                true => file.synced(length),
                false => file.flushed(length, &nodes),
            });
        }
        done
    }

    /// Nothing is promised, and the writer goes on.
    async fn cancelled_flush(&self, writer: &mut FileWriter) -> bool {
        let limit = Duration::from_millis(1 + self.entropy.below(CANCEL_MS));
        let done = tokio::time::timeout(limit, writer.hflush()).await;
        self.noted(writer);
        self.shared.trace(&format!("hflush {} given up: {}", self.path, done.is_err()));
        !matches!(done, Ok(Err(_)))
    }

    /// The pipeline may be another one by now.
    fn noted(&self, writer: &FileWriter) {
        let nodes = nodes_of(writer);
        self.file(|file| file.pipeline(&nodes));
    }

    fn answered(&self, what: &str, done: Result<(), String>) -> bool {
        self.shared.oracle().count(done.is_ok());
        match &done {
            Ok(()) => self.shared.trace(what),
            Err(why) => self.shared.trace(&format!("{what} failed: {why}")),
        }
        done.is_ok()
    }

    fn file<T>(&self, change: impl FnOnce(&mut FileState) -> T) -> Option<T> {
        self.shared.oracle().file_mut(self.path).map(change)
    }
}

/// The numbers of the nodes that the block in hand is written to.
fn nodes_of(writer: &FileWriter) -> BTreeSet<NodeAt> {
    let names = writer.pipeline().iter().map(|node| &node.id.host_name);
    names.filter_map(|name| name.strip_prefix("dn")?.parse().ok()).collect()
}
