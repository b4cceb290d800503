//! The walk through a tree, depth first and by name, in steps of bounded work and memory.

use std::collections::BTreeSet;
use std::collections::VecDeque;

use mobula_fleet::NodeFilter;
use mobula_namespace::{FileKind, FileStatus};
use mobula_types::HdfsPath;

use super::java::put;
use super::media::MediaSummary;
use super::totals::{NO_ERASURE_CODING, Totals};
use super::{Step, Told};
use crate::asker::Asker;
use crate::exceptions::Refusal;
use crate::service::Service;

/// Names of one step.
const ENTRIES_A_STEP: usize = 200;
/// A step that has said so much is the last before it is read, bytes.
const STEP_BYTES: usize = 32 << 10;
/// Entries of directories on the way down that are kept; of others the rest is listed again on the way up.
const ENTRIES_KEPT_MAX: usize = 10_000;
/// Progress is a line for so many names.
const NAMES_A_LINE: u64 = 1_000;

/// A tree that is being checked.
#[derive(Debug)]
pub struct TreeCheck {
    /// Where to begin.
    top: Option<(HdfsPath, FileStatus)>,
    /// Directories from the top down to where it is.
    way: Vec<Directory>,
    /// Entries in all of `way`.
    kept: usize,
    pub(super) totals: Totals,
    pub(super) media: MediaSummary,
    /// A file was to be deleted, and was not.
    pub(super) failed_to_delete: bool,
}

/// A directory on the way.
#[derive(Debug)]
struct Directory {
    path: HdfsPath,
    /// What was listed and not looked at.
    entries: VecDeque<FileStatus>,
    /// The last name that was looked at.
    after: Vec<u8>,
    /// More follow behind `entries`.
    has_more: bool,
}

impl TreeCheck {
    /// A check from here down.
    pub fn new(path: HdfsPath, status: FileStatus) -> TreeCheck {
        TreeCheck {
            top: Some((path, status)),
            way: Vec::new(),
            kept: 0,
            totals: Totals::default(),
            media: MediaSummary::default(),
            failed_to_delete: false,
        }
    }

    /// The next names.
    pub fn step(&mut self, service: &Service, asker: &Asker, told: &mut Told) -> Result<Step, Refusal> {
        for _ in 0..ENTRIES_A_STEP {
            let Some((path, status)) = self.next_entry(service, asker)? else {
                return self.finish(service, told).map(|()| Step::Done);
            };
            self.check(service, asker, told, path, &status)?;
            if told.out.len() >= STEP_BYTES {
                break;
            }
        }
        Ok(Step::More)
    }

    fn next_entry(
        &mut self,
        service: &Service,
        asker: &Asker,
    ) -> Result<Option<(HdfsPath, FileStatus)>, Refusal> {
        if let Some(top) = self.top.take() {
            return Ok(Some(top));
        }
        while let Some(directory) = self.way.last_mut() {
            if let Some(entry) = directory.entries.pop_front() {
                self.kept -= 1;
                directory.after.clone_from(&entry.name);
                // A file that took its directory's place lists itself, without a name.
                let path = match &entry.name[..] {
                    b"" => directory.path.clone(),
                    name => directory.path.join(&String::from_utf8_lossy(name)),
                };
                return Ok(Some((path, entry)));
            }
            if !directory.has_more {
                self.way.pop();
                continue;
            }
            let limit = service.config.listing_max;
            let listing = service.listing(asker, &directory.path, &directory.after, limit)?;
            // None: it was deleted meanwhile.
            let (entries, remaining) = listing.map_or((Vec::new(), 0), |page| (page.entries, page.remaining));
            directory.has_more = remaining > 0 && !entries.is_empty();
            directory.entries = entries.into();
            self.kept += directory.entries.len();
            self.forget_surplus();
        }
        Ok(None)
    }

    /// Forgets the entries of the highest directories if there are too many: they are listed again.
    fn forget_surplus(&mut self) {
        let Some((_, above)) = self.way.split_last_mut() else { return };
        for directory in above {
            if self.kept <= ENTRIES_KEPT_MAX {
                return;
            }
            self.kept -= directory.entries.len();
            directory.has_more |= !directory.entries.is_empty();
            directory.entries = VecDeque::new();
        }
    }

    /// Looks at one name.
    fn check(
        &mut self,
        service: &Service,
        asker: &Asker,
        told: &mut Told,
        path: HdfsPath,
        status: &FileStatus,
    ) -> Result<(), Refusal> {
        if self.totals.seen().is_multiple_of(NAMES_A_LINE) {
            told.out.push('\n');
        }
        if let FileKind::File { .. } = status.kind {
            return self.check_file(service, asker, told, path, status);
        }
        if told.options().files {
            put!(told.out, "{path} <dir>\n");
        }
        self.totals.directories += 1;
        self.way.push(Directory { path, entries: VecDeque::new(), after: Vec::new(), has_more: true });
        Ok(())
    }

    fn finish(&mut self, service: &Service, told: &mut Told) -> Result<(), Refusal> {
        let nodes = service.nodes(NodeFilter::Live);
        let racks: BTreeSet<&str> = nodes.iter().map(|node| node.info.rack.as_str()).collect();
        let healthy = self.totals.is_healthy();
        let out = &mut told.out;
        put!(out, "\nStatus: {}\n", if healthy { "HEALTHY" } else { "CORRUPT" });
        put!(out, " Number of data-nodes:\t{}\n", nodes.len());
        put!(out, " Number of racks:\t\t{}\n", racks.len());
        put!(out, " Total dirs:\t\t\t{}\n", self.totals.directories);
        out.push_str(" Total symlinks:\t\t0\n\nReplicated Blocks:\n");
        let replication_min = service.config.rules.replication_min;
        self.totals.tell(out, service.config.defaults.replication, replication_min);
        put!(out, "\nErasure Coded Block Groups:\n{NO_ERASURE_CODING}");
        if told.request.options.storage_policies {
            self.media.tell(&mut told.out);
        }
        told.ended(service);
        if self.failed_to_delete {
            return Err(Refusal::Io("fsck encountered internal errors!".into()));
        }
        // Tools read the last line.
        let state = if healthy { "HEALTHY" } else { "CORRUPT" };
        put!(told.out, "\n\nThe filesystem under path '{}' is {state}", told.request.path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mobula_types::{InodeId, Millis};

    use super::*;

    fn entry(name: usize) -> FileStatus {
        FileStatus {
            inode: InodeId(1),
            name: name.to_string().into_bytes(),
            kind: FileKind::Directory { children: 0 },
            mode: 0,
            owner: String::new(),
            group: String::new(),
            modified: Millis(0),
            accessed: Millis(0),
        }
    }

    #[test]
    fn what_is_kept_of_deep_trees_is_bounded() {
        let mut tree = TreeCheck::new(HdfsPath::root(), entry(0));
        for depth in 0..100 {
            let entries: VecDeque<FileStatus> = (0..1_000).map(entry).collect();
            tree.kept += entries.len();
            let path = HdfsPath::parse(&format!("/{depth}")).unwrap();
            tree.way.push(Directory { path, entries, after: b"before".to_vec(), has_more: false });
            tree.forget_surplus();
            let kept: usize = tree.way.iter().map(|directory| directory.entries.len()).sum();
            assert_eq!(tree.kept, kept);
            assert!(kept <= ENTRIES_KEPT_MAX);
            assert_eq!(tree.way.last().unwrap().entries.len(), 1_000, "the last is where it goes on");
        }
        let (forgotten, kept) = tree.way.split_at(90);
        assert!(forgotten.iter().all(|directory| directory.has_more && directory.after == b"before"));
        assert!(kept.iter().all(|directory| !directory.has_more));
    }
}
