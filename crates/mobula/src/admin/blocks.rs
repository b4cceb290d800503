//! Blocks that do not have all their replicas. The NameNode has no call that lists them, so the
//! files are walked with their locations, as HDFS's `fsck` does; not, where its counters say that
//! there are none.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use bytes::Bytes;
use comfy_table::{Table, presets};
use mobula_client::Client;
use mobula_proto::hdfs;
use mobula_proto::hdfs::hdfs_file_status_proto::FileType;
use serde_json::json;

/// Pages of corrupt files that are asked for at most.
const CORRUPT_PAGES_MAX: usize = 1000;

/// Where to look, and for how many.
#[derive(Clone, Debug)]
pub struct Search {
    /// A file or directory.
    pub path: String,
    /// Most blocks to list.
    pub limit: usize,
    /// Whatever the counters say.
    pub all: bool,
    /// One JSON object a line.
    pub json: bool,
}

/// A block that wants replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanting {
    block: u64,
    path: String,
    replicas: usize,
    target: usize,
    why: String,
}

/// What is needed to say why.
struct Reasons {
    live_nodes: usize,
    corrupt_files: BTreeSet<String>,
}

/// Lists them; exit code 1 if data is missing.
///
/// # Errors
/// The NameNode's exceptions, or nothing at the path.
pub async fn list(client: &Client, search: &Search) -> Result<i32> {
    let stats = client.namenode().get_fs_stats(hdfs::GetFsStatusRequestProto {}).await?;
    let counted = stats.under_replicated + stats.corrupt_blocks + stats.missing_blocks;
    let mut found = Vec::new();
    if counted > 0 || search.all {
        let reasons = Reasons {
            live_nodes: live_nodes(client).await?,
            corrupt_files: corrupt_files(client, &search.path).await?,
        };
        found = walk(client, search, &reasons).await?;
    }
    print(search, &found);
    if !search.json {
        say!(
            "{} under replicated, {} with corrupt replicas, {} missing, as the NameNode counts",
            stats.under_replicated,
            stats.corrupt_blocks,
            stats.missing_blocks
        );
    }
    Ok(i32::from(stats.missing_blocks > 0))
}

async fn live_nodes(client: &Client) -> Result<usize> {
    let request = hdfs::GetDatanodeReportRequestProto { r#type: hdfs::DatanodeReportTypeProto::Live as i32 };
    Ok(client.namenode().get_datanode_report(request).await?.di.len())
}

/// Files with a block none of whose replicas is good.
async fn corrupt_files(client: &Client, path: &str) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut cookie = None;
    for _ in 0..CORRUPT_PAGES_MAX {
        let request = hdfs::ListCorruptFileBlocksRequestProto { path: path.to_owned(), cookie };
        let page = client.namenode().list_corrupt_file_blocks(request).await?.corrupt;
        if page.files.is_empty() {
            break;
        }
        files.extend(page.files);
        cookie = Some(page.cookie);
    }
    Ok(files)
}

async fn walk(client: &Client, search: &Search, reasons: &Reasons) -> Result<Vec<Wanting>> {
    let mut found = Vec::new();
    let mut directories = vec![search.path.clone()];
    while let Some(directory) = directories.pop() {
        let mut start_after = Bytes::new();
        loop {
            let request = hdfs::GetListingRequestProto {
                src: directory.clone(),
                start_after: start_after.clone(),
                need_location: true,
            };
            let Some(page) = client.namenode().get_listing(request).await?.dir_list else {
                if directory == search.path {
                    bail!("`{directory}': No such file or directory");
                }
                break; // deleted while we walk
            };
            for entry in &page.partial_listing {
                let path = join(&directory, &entry.path);
                if entry.file_type() == FileType::IsDir {
                    directories.push(path);
                } else {
                    found.extend(wanting(path, entry, reasons));
                }
            }
            if found.len() >= search.limit {
                found.truncate(search.limit);
                return Ok(found);
            }
            match page.partial_listing.last() {
                Some(last) if page.remaining_entries > 0 => start_after = last.path.clone(),
                _ => break,
            }
        }
    }
    Ok(found)
}

fn join(directory: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    match (directory, name.is_empty()) {
        (directory, true) => directory.to_owned(),
        ("/", false) => format!("/{name}"),
        (directory, false) => format!("{}/{name}", directory.trim_end_matches('/')),
    }
}

/// The blocks of a file that want replicas. One that is being written is not among them.
fn wanting(path: String, file: &hdfs::HdfsFileStatusProto, reasons: &Reasons) -> Vec<Wanting> {
    let target = file.block_replication() as usize;
    let Some(located) = &file.locations else { return Vec::new() };
    let written = located.under_construction && !located.is_last_block_complete;
    let finished = located.blocks.len() - usize::from(written && !located.blocks.is_empty());
    let wanting = |block: &hdfs::LocatedBlockProto| {
        let replicas = if block.corrupt { 0 } else { block.locs.len() };
        let why = why(block, target, reasons, &path)?;
        Some(Wanting { block: block.b.block_id, path: path.clone(), replicas, target, why })
    };
    located.blocks[..finished].iter().filter_map(wanting).collect()
}

/// Why a block has not as many replicas as it should; `None` if it has.
fn why(block: &hdfs::LocatedBlockProto, target: usize, reasons: &Reasons, path: &str) -> Option<String> {
    let replicas = block.locs.len();
    if block.corrupt {
        return Some("every replica is corrupt".into());
    }
    if replicas == 0 {
        let corrupt = reasons.corrupt_files.contains(path);
        return Some(if corrupt { "missing" } else { "no live node has a replica" }.into());
    }
    if replicas >= target {
        return None;
    }
    Some(match reasons.live_nodes {
        nodes if nodes < target && replicas >= nodes => {
            format!("only {nodes} live nodes for {target} replicas")
        }
        _ => "waits to be copied".into(),
    })
}

fn print(search: &Search, found: &[Wanting]) {
    if search.json {
        for wanting in found {
            let Wanting { block, path, replicas, target, why } = wanting;
            let value = json!({
                "block": format!("blk_{block}"), "path": path, "replicas": replicas, "target": target, "why": why,
            });
            say!("{value}");
        }
        return;
    }
    if found.is_empty() {
        say!("every block has all its replicas");
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["block", "replicas", "why", "file"]);
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    for wanting in found {
        *by_reason.entry(&wanting.why).or_default() += 1;
        table.add_row([
            format!("blk_{}", wanting.block),
            format!("{} of {}", wanting.replicas, wanting.target),
            wanting.why.clone(),
            wanting.path.clone(),
        ]);
    }
    say!("{table}");
    for (why, blocks) in by_reason {
        say!("{blocks}: {why}");
    }
    if found.len() >= search.limit {
        say!("(the first {}; --limit lists more)", search.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(replicas: usize, corrupt: bool) -> hdfs::LocatedBlockProto {
        hdfs::LocatedBlockProto {
            locs: vec![hdfs::DatanodeInfoProto::default(); replicas],
            corrupt,
            ..Default::default()
        }
    }

    #[test]
    fn every_reason() {
        let reasons = Reasons { live_nodes: 2, corrupt_files: BTreeSet::from(["/bad".to_owned()]) };
        let why = |replicas, corrupt, target, path| why(&block(replicas, corrupt), target, &reasons, path);
        assert_eq!(why(3, false, 3, "/a"), None);
        assert_eq!(why(3, true, 3, "/a").as_deref(), Some("every replica is corrupt"));
        assert_eq!(why(0, false, 3, "/a").as_deref(), Some("no live node has a replica"));
        assert_eq!(why(0, false, 3, "/bad").as_deref(), Some("missing"));
        assert_eq!(why(2, false, 3, "/a").as_deref(), Some("only 2 live nodes for 3 replicas"));
        assert_eq!(why(1, false, 2, "/a").as_deref(), Some("waits to be copied"));
    }

    #[test]
    fn the_block_being_written_is_left_out() {
        let reasons = Reasons { live_nodes: 3, corrupt_files: BTreeSet::new() };
        let mut file = hdfs::HdfsFileStatusProto { block_replication: Some(3), ..Default::default() };
        file.locations = Some(hdfs::LocatedBlocksProto {
            blocks: vec![block(1, false), block(0, false)],
            under_construction: true,
            is_last_block_complete: false,
            ..Default::default()
        });
        let found = wanting("/a".into(), &file, &reasons);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].replicas, found[0].target), (1, 3));
    }

    #[test]
    fn joined() {
        assert_eq!(join("/", b"a"), "/a");
        assert_eq!(join("/a", b"b"), "/a/b");
        assert_eq!(join("/a", b""), "/a");
    }
}
