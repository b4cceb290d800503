//! One file on its way: into `P._COPYING_`, and renamed to `P` when it is whole. Whatever ends it
//! early, no half-written target stays.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::failure::{Failure, Outcome};
use super::filesystem::{FileSystem, Reader, Writer};
use super::input::Input;
use super::item::Item;
use super::progress::Progress;
use super::shell::{Shell, Unfinished};
use super::status::Status;

/// What a target is called until it is whole.
pub const SUFFIX: &str = "._COPYING_";
/// Time for a call to arrive that was sent before the shell was stopped.
const CLEAR_PAUSE: Duration = Duration::from_millis(200);

/// What of a source's status goes to its target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preserve {
    /// Times of change and access.
    pub times: bool,
    /// Owner and group.
    pub owner: bool,
    /// Permission bits.
    pub mode: bool,
}

impl Preserve {
    /// What `-p` keeps.
    pub const USUAL: Preserve = Preserve { times: true, owner: true, mode: true };

    /// Gives `target` what is kept of `source`.
    pub async fn apply(self, source: &Status, target: &Item) -> Outcome<()> {
        let (fs, path) = (&target.fs, &target.path);
        if self.times {
            fs.set_times(path, Some(source.modified_ms), Some(source.accessed_ms)).await?;
        }
        if self.owner {
            fs.set_owner(path, Some(&source.owner), Some(&source.group)).await?;
        }
        if self.mode {
            fs.set_mode(path, source.mode).await?;
        }
        Ok(())
    }
}

/// How files are copied.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Replace what is there.
    pub overwrite: bool,
    /// Write to the target itself.
    pub direct: bool,
    /// What of the source's status is kept.
    pub preserve: Preserve,
    /// Replicas of new files, if not the configured number.
    pub replication: Option<u16>,
    /// Remove the source afterwards.
    pub move_away: bool,
    /// Keep checksums beside local targets.
    pub local_sums: bool,
    /// Files on their way at the same time.
    pub in_flight: usize,
}

/// Where bytes come from.
pub enum Source {
    /// A file.
    File(Reader),
    /// Standard input.
    Input(Input),
}

impl Source {
    async fn next(&mut self) -> Outcome<Option<bytes::Bytes>> {
        match self {
            Source::File(reader) => reader.next().await,
            Source::Input(input) => input.next().await,
        }
    }
}

/// What a transfer needs of the shell.
#[derive(Clone)]
pub struct Desk {
    progress: Progress,
    unfinished: Unfinished,
}

impl Desk {
    /// The shell's.
    pub fn of(shell: &Shell) -> Desk {
        Desk { progress: shell.progress.clone(), unfinished: shell.unfinished.clone() }
    }

    fn begin(&self, item: &Item) {
        let entry = (item.fs.clone(), item.path.clone());
        self.unfinished.lock().insert(item.qualified(), entry);
    }

    fn end(&self, item: &Item) {
        self.unfinished.lock().remove(&item.qualified());
    }

    /// Deletes what was begun: the shell ends early.
    pub async fn clear(unfinished: &Unfinished) {
        for round in 0..2 {
            let begun: Vec<_> = unfinished.lock().iter().map(|(key, at)| (key.clone(), at.clone())).collect();
            if round > 0 && !begun.is_empty() {
                // The call that makes a file may have been under way: it comes after our delete then.
                tokio::time::sleep(CLEAR_PAUSE).await;
            }
            for (key, (fs, path)) in begun {
                // Nobody is left to tell of a failure.
                if let Ok(true) = fs.delete(&path, false).await {
                    unfinished.lock().remove(&key);
                }
            }
        }
    }

    /// Writes all of `source` to `target`.
    ///
    /// # Errors
    /// Something is there, or a file system says no; nothing half-written stays.
    pub async fn write(&self, source: Source, target: &Item, manner: &Manner) -> Outcome<()> {
        if target.is_directory() || target.exists() && !manner.overwrite {
            return Err(Failure::exists(&target.text));
        }
        let temporary = if manner.direct { target.clone() } else { target.with_suffix(SUFFIX) };
        if !manner.direct {
            self.begin(&temporary);
        }
        let created = temporary.fs.create(&temporary.path, manner.replication).await;
        let written = match created {
            Ok(mut writer) => {
                if manner.local_sums {
                    writer.keep_sums();
                }
                self.begin(&temporary);
                self.fill(source, writer, &temporary, target).await
            }
            Err(failure) => {
                self.end(&temporary);
                return Err(failure);
            }
        };
        if written.is_err() {
            // The first failure is the one to tell.
            let _ = temporary.fs.delete(&temporary.path, false).await;
        }
        self.end(&temporary);
        written
    }

    async fn fill(
        &self,
        mut source: Source,
        mut writer: Writer,
        temporary: &Item,
        target: &Item,
    ) -> Outcome<()> {
        while let Some(piece) = source.next().await? {
            let length = piece.len() as u64;
            writer.write(piece).await?;
            self.progress.advance(length, target.name());
        }
        writer.close().await?;
        if temporary.path == target.path { Ok(()) } else { rename(temporary, target).await }
    }

    /// Copies one file, and its status as far as it is kept.
    ///
    /// # Errors
    /// As [`Desk::write`].
    pub async fn copy(&self, source: &Item, target: &Item, manner: &Manner) -> Outcome<()> {
        let reader = source.fs.open(&source.path).await?;
        self.write(Source::File(reader), target, manner).await?;
        manner.preserve.apply(source.status()?, target).await?;
        if manner.move_away && !source.fs.delete(&source.path, false).await? {
            return Err(Failure::refused_to("remove", &source.text, None));
        }
        Ok(())
    }
}

/// Gives the whole file its name, over what was there, in one step.
async fn rename(temporary: &Item, target: &Item) -> Outcome<()> {
    if let (FileSystem::Hdfs(hdfs), true) = (&target.fs, target.exists()) {
        return hdfs.rename_over(&temporary.path, &target.path).await;
    }
    match target.fs.rename(&temporary.path, &target.path).await? {
        true => Ok(()),
        false => Err(Failure::refused_to("rename", &temporary.text, Some(&target.text))),
    }
}

/// Files on their way, at most so many at once. What they give is told in the order they began.
pub struct Flights {
    most: usize,
    tasks: VecDeque<Flight>,
}

/// A task that ends with whoever waits for it.
struct Flight(JoinHandle<Outcome<()>>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Flights {
    /// At most `most` at once.
    pub fn new(most: usize) -> Flights {
        Flights { most: most.max(1), tasks: VecDeque::new() }
    }

    /// Begins one more, once there is room.
    ///
    /// # Errors
    /// Failures that end the verb.
    pub async fn begin(
        &mut self,
        shell: &mut Shell,
        task: impl Future<Output = Outcome<()>> + Send + 'static,
    ) -> Outcome<()> {
        while self.tasks.len() >= self.most {
            self.land(shell).await?;
        }
        self.tasks.push_back(Flight(tokio::spawn(task)));
        Ok(())
    }

    /// Waits for all.
    ///
    /// # Errors
    /// Failures that end the verb.
    pub async fn land_all(&mut self, shell: &mut Shell) -> Outcome<()> {
        while !self.tasks.is_empty() {
            self.land(shell).await?;
        }
        Ok(())
    }

    async fn land(&mut self, shell: &mut Shell) -> Outcome<()> {
        let Some(mut flight) = self.tasks.pop_front() else { return Ok(()) };
        let outcome = match (&mut flight.0).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Failure::other(format!("the transfer broke off: {error}"))),
        };
        shell.settle(outcome)
    }
}
