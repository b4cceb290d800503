//! What is asked of `fsck`: the parameters that HDFS's `DFSck` sends.

/// A check that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsckRequest {
    /// Where to begin, as it was asked.
    pub(super) path: String,
    /// Instead of a tree: these blocks.
    pub(super) block_ids: Option<Vec<String>>,
    /// Blocks that an earlier page told of.
    pub(super) start_after: usize,
    pub(super) options: Options,
}

/// What is shown, and what is done with corrupt files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub files: bool,
    pub blocks: bool,
    pub locations: bool,
    pub racks: bool,
    pub replica_details: bool,
    pub upgrade_domains: bool,
    pub maintenance: bool,
    pub storage_policies: bool,
    pub open_for_write: bool,
    pub list_corrupt: bool,
    pub show_progress: bool,
    pub move_away: bool,
    pub delete: bool,
}

impl Options {
    /// Whether a block's line tells where it is.
    pub fn tells_places(&self) -> bool {
        self.locations || self.racks || self.replica_details || self.upgrade_domains
    }
}

impl FsckRequest {
    /// A request with these parameters; of one that comes twice the first counts, and unknown ones do not, as in HDFS.
    pub fn of<'p>(parameters: impl Iterator<Item = (&'p str, &'p str)>) -> FsckRequest {
        let mut request =
            FsckRequest { path: "/".into(), block_ids: None, start_after: 0, options: Options::default() };
        let mut seen_path = false;
        for (name, value) in parameters {
            match name {
                "path" if !seen_path => {
                    seen_path = true;
                    value.clone_into(&mut request.path);
                }
                "blockId" if request.block_ids.is_none() => request.block_ids = Some(block_ids(value)),
                // Anything but a number is the beginning (FSNamesystem.getIntCookie).
                "startblockafter" => request.start_after = value.parse().unwrap_or(0),
                _ => request.options.set(name),
            }
        }
        request
    }
}

impl Options {
    fn set(&mut self, name: &str) {
        let option = match name {
            "files" => &mut self.files,
            "blocks" => &mut self.blocks,
            "locations" => &mut self.locations,
            "racks" => &mut self.racks,
            "replicadetails" => &mut self.replica_details,
            "upgradedomains" => &mut self.upgrade_domains,
            "maintenance" => &mut self.maintenance,
            "storagepolicies" => &mut self.storage_policies,
            "openforwrite" => &mut self.open_for_write,
            "listcorruptfileblocks" => &mut self.list_corrupt,
            "showprogress" => &mut self.show_progress,
            "move" => &mut self.move_away,
            "delete" => &mut self.delete,
            // `replicate` is for blocks in the wrong racks, and there is one rack; of snapshots there are none.
            _ => return,
        };
        *option = true;
    }
}

/// Java's `split(" ")`: empty ones at the end do not count.
fn block_ids(text: &str) -> Vec<String> {
    let mut ids: Vec<String> = text.split(' ').map(String::from).collect();
    while ids.len() > 1 && ids.last().is_some_and(String::is_empty) {
        ids.pop();
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_as_dfsck_sends_them() {
        let parameters =
            [("ugi", "me"), ("files", "1"), ("path", "/a"), ("path", "/b"), ("blockId", "blk_1 blk_2 ")];
        let request = FsckRequest::of(parameters.into_iter());
        assert_eq!(request.path, "/a");
        assert_eq!(request.block_ids.as_deref(), Some(&["blk_1".to_owned(), "blk_2".to_owned()][..]));
        assert_eq!(request.options, Options { files: true, ..Options::default() });
        assert_eq!(block_ids(""), [""]);
        assert_eq!(FsckRequest::of([("startblockafter", "x")].into_iter()).start_after, 0);
    }
}
