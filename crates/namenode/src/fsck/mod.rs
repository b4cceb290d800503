//! `fsck`: what HDFS's `NamenodeFsck` tells of a tree, in its lines and words, and what of it tools read: the last line.
//!
//! It is pulled: each part of the answer is made when it is asked for, from views of that moment, a page of a directory
//! at a time. Nobody's lock and no view is held between two parts, and a reader that goes away ends it. What it may
//! see is what its caller may read (D8). Knows no HTTP.

mod block;
mod file;
mod java;
mod media;
mod request;
mod totals;
mod tree;

use std::sync::Arc;

use mobula_types::{HdfsPath, Millis};

use crate::asker::Asker;
use crate::client_rpc;
use crate::exceptions::Refusal;
use crate::service::Service;
use block::BlockCheck;
use java::put;
pub use request::FsckRequest;
use request::Options;
use tree::TreeCheck;

/// Blocks without a good replica that one `-list-corruptfileblocks` tells of (`dfs.corruptfilesreturned.max`).
const CORRUPT_BLOCKS_MAX: usize = 500;
/// HDFS's name of the operation where a superuser is required.
const OPERATION: &str = "fsck";

/// A check that runs as far as it is read.
#[derive(Debug)]
pub struct Fsck {
    service: Arc<Service>,
    asker: Asker,
    work: Option<Work>,
}

/// What a thread for trees has in hand.
#[derive(Debug)]
struct Work {
    told: Told,
    stage: Stage,
}

/// The request, and what was said of it and not yet read.
#[derive(Debug)]
struct Told {
    request: FsckRequest,
    begun: Millis,
    date: fn(Millis) -> String,
    out: String,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Blocks(BlockCheck),
    Tree(Box<TreeCheck>),
}

/// How far a stage has come.
enum Step {
    More,
    Done,
}

impl Fsck {
    /// A check that `asker` asked for. `date` shows a time of day as Java's `Date` does.
    pub fn new(
        service: Arc<Service>,
        asker: Asker,
        request: FsckRequest,
        date: fn(Millis) -> String,
    ) -> Fsck {
        let begun = service.monotonic();
        let told = Told { request, begun, date, out: String::new() };
        Fsck { service, asker, work: Some(Work { told, stage: Stage::Begin }) }
    }

    /// The next part of the answer, never an empty one; none at the end.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let mut work = self.work.take()?;
            let (service, asker) = (Arc::clone(&self.service), self.asker.clone());
            let stepped = self.service.tree_pool.run(move || {
                let step = work.step(&service, &asker);
                (work, step)
            });
            let (mut work, step) = stepped.await;
            let text = std::mem::take(&mut work.told.out);
            match step {
                Step::Done => {}
                Step::More => self.work = Some(work),
            }
            if !text.is_empty() {
                return Some(text);
            }
        }
    }
}

impl Work {
    fn step(&mut self, service: &Service, asker: &Asker) -> Step {
        let stepped = match &mut self.stage {
            Stage::Begin => self.begin(service, asker),
            Stage::Blocks(blocks) => Ok(blocks.step(service, &mut self.told)),
            Stage::Tree(tree) => tree.step(service, asker, &mut self.told),
        };
        stepped.unwrap_or_else(|refusal| {
            self.told.failed(service, &refusal);
            Step::Done
        })
    }

    fn begin(&mut self, service: &Service, asker: &Asker) -> Result<Step, Refusal> {
        let told = &mut self.told;
        if told.options().show_progress {
            told.out.push_str(
                "The fsck switch -showprogress is deprecated and no longer has any effect. Progress is now shown by default.\n",
            );
        }
        let subject = match &told.request.block_ids {
            Some(_) => {
                service.check_superuser(asker, OPERATION)?;
                String::new()
            }
            None => format!(" for path {}", told.request.path),
        };
        let user = &asker.caller.user;
        let from = java::address(asker.peer.ip());
        let now = (told.date)(service.time());
        put!(told.out, "FSCK started by {user} (auth:SIMPLE) from {from}{subject} at {now}\n");
        tracing::info!(user, %from, path = told.request.path, "fsck");
        if let Some(ids) = told.request.block_ids.take() {
            service.check_leads()?;
            self.stage = Stage::Blocks(BlockCheck::new(ids));
            return Ok(Step::More);
        }
        let path = client_rpc::path(&told.request.path)?;
        let Some(status) = service.status(asker, &path)? else {
            put!(told.out, "\n\nPath '{}' does not exist", told.request.path);
            return Ok(Step::Done);
        };
        if told.request.options.list_corrupt {
            told.list_corrupt(service, asker, &path)?;
            return Ok(Step::Done);
        }
        if told.request.options.move_away {
            return Err(Refusal::Unsupported(MOVE_UNSUPPORTED));
        }
        self.stage = Stage::Tree(Box::new(TreeCheck::new(path, status)));
        Ok(Step::More)
    }
}

/// What `-move` is answered.
const MOVE_UNSUPPORTED: &str = "fsck -move is not supported: copy what is left of the files that are listed by \
    -list-corruptfileblocks, and remove them. Nothing was moved";

impl Told {
    fn options(&self) -> &Options {
        &self.request.options
    }

    fn ended(&mut self, service: &Service) {
        let now = (self.date)(service.time());
        let took = service.monotonic().since(self.begun).0;
        put!(self.out, "FSCK ended at {now} in {took} milliseconds\n");
    }

    fn failed(&mut self, service: &Service, why: &Refusal) {
        tracing::info!(path = self.request.path, %why, "fsck failed");
        self.ended(service);
        put!(self.out, "{why}\n\n\nFsck on path '{}' FAILED", self.request.path);
    }

    /// The cookie is the number of blocks that were looked at, as in HDFS.
    fn list_corrupt(&mut self, service: &Service, asker: &Asker, within: &HdfsPath) -> Result<(), Refusal> {
        let skip = self.request.start_after;
        let (blocks, seen) = service.missing_blocks(asker, within, skip, CORRUPT_BLOCKS_MAX)?;
        let cookie = seen.max(skip);
        put!(self.out, "Cookie:\t{cookie}\n");
        for (record, path) in &blocks {
            put!(self.out, "{}\t{}\t{path}\n", record.block.id, record.replication);
        }
        let count = match (blocks.len(), cookie) {
            (0, 0) => "no".into(),
            (0, _) => "no more".into(),
            (count, _) => count.to_string(),
        };
        put!(self.out, "\n\nThe filesystem under path '{}' has {count} CORRUPT files\n\n", self.request.path);
        Ok(())
    }
}
