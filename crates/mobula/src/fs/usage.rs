//! `du`, `df`, `count`: how much there is.

use mobula_proto::hdfs::{ContentSummaryProto, GetFsStatusRequestProto, QuotaUsageProto, StorageTypeProto};
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::filesystem::FileSystem;
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::size::{self, Style, Table};
use super::walk::Walk;

/// What a path holds.
pub struct Content {
    /// Files in it.
    pub files: u64,
    directories: u64,
    length: u64,
    consumed: u64,
    /// Of these, what only snapshots hold: files, directories, length, consumed.
    snapshots: [u64; 4],
    /// Names and bytes; below 0 for none.
    quota: i64,
    space_quota: i64,
    erasure_policy: String,
}

impl From<ContentSummaryProto> for Content {
    fn from(summary: ContentSummaryProto) -> Content {
        Content {
            files: summary.file_count,
            directories: summary.directory_count,
            length: summary.length,
            consumed: summary.space_consumed,
            snapshots: [
                summary.snapshot_file_count(),
                summary.snapshot_directory_count(),
                summary.snapshot_length(),
                summary.snapshot_space_consumed(),
            ],
            // -1 travels as an unsigned number.
            quota: summary.quota as i64,
            space_quota: summary.space_quota as i64,
            erasure_policy: summary.erasure_coding_policy.unwrap_or_default(),
        }
    }
}

impl Content {
    /// Of all under a path, wherever it lies.
    pub async fn of(item: &Item) -> Outcome<Content> {
        match &item.fs {
            FileSystem::Hdfs(hdfs) => Ok(hdfs.content(&item.path).await?.into()),
            FileSystem::Local(_) => Content::counted(item).await,
        }
    }

    /// Of a local path: counted here.
    async fn counted(item: &Item) -> Outcome<Content> {
        let mut content = Content {
            files: 0,
            directories: 0,
            length: 0,
            consumed: 0,
            snapshots: [0; 4],
            quota: -1,
            space_quota: -1,
            erasure_policy: String::new(),
        };
        let mut walk = Walk::over(vec![item.clone()]);
        while let Some((_, item)) = walk.next() {
            if item.is_directory() {
                content.directories += 1;
                walk.descend(item.children().await?);
            } else {
                content.files += 1;
                content.length += item.status()?.length;
            }
        }
        content.consumed = content.length;
        Ok(content)
    }

    /// As `ContentSummary.toErasureCodingPolicy` writes it.
    fn erasure_column(&self) -> String {
        match self.erasure_policy.as_str() {
            "Replicated" => "Replicated".into(),
            policy => format!("EC:{policy}"),
        }
    }

    fn without_snapshots(mut self) -> Content {
        let [files, directories, length, consumed] = self.snapshots;
        self.files = self.files.saturating_sub(files);
        self.directories = self.directories.saturating_sub(directories);
        self.length = self.length.saturating_sub(length);
        self.consumed = self.consumed.saturating_sub(consumed);
        self
    }
}

/// Prints what paths, or the entries of directories, take.
pub async fn du(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(0, MANY, &["h", "s", "v", "x"]).parse(&mut args)?;
    if args.is_empty() {
        args.push(".".into());
    }
    let style = Style::of(given.has("h"));
    let mut table = Table::new(&[]);
    if given.has("v") {
        table = table.with_head(&["SIZE", "DISK_SPACE_CONSUMED_WITH_ALL_REPLICAS", "FULL_PATH_NAME"]);
    }
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        let items = match item.is_directory() && !given.has("s") {
            true => shell.children_of(&item).await,
            false => vec![item],
        };
        for item in items {
            match Content::of(&item).await {
                Ok(content) => {
                    let content = if given.has("x") { content.without_snapshots() } else { content };
                    if shell.json {
                        print_content(shell, &item, &content)?;
                        continue;
                    }
                    let (length, consumed) = (content.length, content.consumed);
                    table.push(vec![size::format(length, style), size::format(consumed, style), item.text]);
                }
                Err(failure) => shell.settle(Err(failure))?,
            }
        }
    }
    print_table(shell, &table)
}

fn print_table(shell: &mut Shell, table: &Table) -> Outcome<()> {
    if !table.is_empty() {
        for line in table.lines() {
            shell.line(line)?;
        }
    }
    Ok(())
}

fn print_content(shell: &mut Shell, item: &Item, content: &Content) -> Outcome<()> {
    let quota = |quota: i64| (quota >= 0).then_some(quota);
    let value = json!({
        "path": item.text,
        "length": content.length,
        "space_consumed": content.consumed,
        "files": content.files,
        "directories": content.directories,
        "quota": quota(content.quota),
        "space_quota": quota(content.space_quota),
    });
    shell.line(value.to_string())
}

/// Prints the room there is.
pub async fn df(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(0, MANY, &["h"]).parse(&mut args)?;
    if args.is_empty() {
        args.push("/".into());
    }
    let style = Style::of(given.has("h"));
    let mut table = Table::new(&[1, 2, 3, 4]).with_head(&["Filesystem", "Size", "Used", "Available", "Use%"]);
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        match room(&item).await {
            Ok([size, used, free]) if shell.json => {
                let value =
                    json!({"filesystem": item.fs.uri(), "size": size, "used": used, "available": free});
                shell.line(value.to_string())?;
            }
            Ok([size, used, free]) => table.push(vec![
                item.fs.uri().to_owned(),
                size::format(size, style),
                size::format(used, style),
                size::format(free, style),
                percent(used, size),
            ]),
            Err(failure) => shell.settle(Err(failure))?,
        }
    }
    print_table(shell, &table)
}

/// A share without decimals, halves up; `NaN%` of nothing, as in HDFS.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "NaN%".into();
    }
    let percent = (u128::from(part) * 200 + u128::from(whole)) / (u128::from(whole) * 2);
    format!("{percent}%")
}

/// Size, used and free bytes.
async fn room(item: &Item) -> Outcome<[u64; 3]> {
    match &item.fs {
        FileSystem::Hdfs(hdfs) => {
            let stats = hdfs.namenode().get_fs_stats(GetFsStatusRequestProto {}).await?;
            Ok([stats.capacity, stats.used, stats.remaining])
        }
        FileSystem::Local(_) => {
            let stats = nix::sys::statvfs::statvfs(item.path.as_str())
                .map_err(|error| Failure::path(&item.text, error.desc()))?;
            let bytes = |blocks: u64| blocks * stats.fragment_size();
            let (size, free) = (bytes(stats.blocks()), bytes(stats.blocks_available()));
            Ok([size, size.saturating_sub(bytes(stats.blocks_free())), free])
        }
    }
}

/// What there is where nobody sets quotas: -1 travels as an unsigned number.
const NO_QUOTA: QuotaUsageProto = QuotaUsageProto {
    file_and_directory_count: 0,
    quota: u64::MAX,
    space_consumed: 0,
    space_quota: u64::MAX,
    type_quota_infos: None,
};

/// The media that quotas can be set for, in Hadoop's order.
const QUOTA_MEDIA: [(&str, StorageTypeProto); 5] = [
    ("SSD", StorageTypeProto::Ssd),
    ("DISK", StorageTypeProto::Disk),
    ("ARCHIVE", StorageTypeProto::Archive),
    ("PROVIDED", StorageTypeProto::Provided),
    ("NVDIMM", StorageTypeProto::Nvdimm),
];

/// The one that none can be set for; it may be asked about all the same.
const QUOTA_FREE_MEDIUM: Medium = ("RAM_DISK", StorageTypeProto::RamDisk);

type Medium = (&'static str, StorageTypeProto);

struct Counting {
    quota: bool,
    quota_only: bool,
    by_medium: Option<Vec<Medium>>,
    style: Style,
    without_snapshots: bool,
    erasure: bool,
    snapshots: bool,
}

/// Prints numbers of directories and files, their length, and quotas.
pub async fn count(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given =
        Format::new(1, MANY, &["q", "h", "v", "u", "x", "e", "s"]).with_values(&["t"]).parse(&mut args)?;
    if args.is_empty() {
        args.push(".".into());
    }
    let quota = given.has("q") || given.has("u");
    if quota && given.has("x") {
        shell.line("q or u option is given, the -x option is ignored.")?;
    }
    let counting = Counting {
        quota: given.has("q"),
        quota_only: given.has("u"),
        by_medium: match given.value("t") {
            Some(media) if quota => Some(parse_media(media)?),
            _ => None,
        },
        style: Style::of(given.has("h")),
        without_snapshots: given.has("x") && !quota,
        erasure: given.has("e"),
        snapshots: given.has("s"),
    };
    if given.has("v") && !shell.json {
        shell.line(format!("{}PATHNAME", counting.head()))?;
    }
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        let counted = counting.print(shell, &item).await;
        shell.settle(counted)?;
    }
    Ok(())
}

fn parse_media(text: &str) -> Outcome<Vec<Medium>> {
    if text.is_empty() || text.eq_ignore_ascii_case("all") {
        return Ok(QUOTA_MEDIA.to_vec());
    }
    let medium = |name: &str| {
        let mut all = QUOTA_MEDIA.iter().chain([&QUOTA_FREE_MEDIUM]);
        let known = all.find(|(medium, _)| medium.eq_ignore_ascii_case(name));
        known.copied().ok_or_else(|| {
            let name = name.to_uppercase();
            Failure::usage(format!("No enum constant org.apache.hadoop.fs.StorageType.{name}"))
        })
    };
    text.split(',').filter(|name| !name.is_empty()).map(medium).collect()
}

/// Columns of `ContentSummary` and `QuotaUsage`.
fn quota_columns(cells: [&str; 4]) -> String {
    let [a, b, c, d] = cells;
    format!("{a:>12} {b:>15} {c:>15} {d:>15} ")
}

fn summary_columns(cells: [&str; 3]) -> String {
    let [a, b, c] = cells;
    format!("{a:>12} {b:>12} {c:>18} ")
}

fn snapshot_columns(cells: [&str; 4]) -> String {
    let [a, b, c, d] = cells;
    format!("{a:>18} {b:>24} {c:>24} {d:>28} ")
}

fn medium_columns(a: &str, b: &str) -> String {
    format!("{a:>14} {b:>18} ")
}

impl Counting {
    fn head(&self) -> String {
        let mut head = match &self.by_medium {
            Some(media) => {
                let columns = |(name, _): &Medium| {
                    medium_columns(&format!("{name}_QUOTA"), &format!("REM_{name}_QUOTA"))
                };
                media.iter().map(columns).collect()
            }
            None if self.quota || self.quota_only => {
                quota_columns(["QUOTA", "REM_QUOTA", "SPACE_QUOTA", "REM_SPACE_QUOTA"])
            }
            None => String::new(),
        };
        if !self.is_quota_alone() {
            head += &summary_columns(["DIR_COUNT", "FILE_COUNT", "CONTENT_SIZE"]);
        }
        if self.erasure {
            head += "ERASURECODING_POLICY ";
        }
        if self.snapshots {
            head += &snapshot_columns([
                "SNAPSHOT_LENGTH",
                "SNAPSHOT_FILE_COUNT",
                "SNAPSHOT_DIR_COUNT",
                "SNAPSHOT_SPACE_CONSUMED",
            ]);
        }
        head
    }

    /// Whether there are no columns of what paths hold.
    fn is_quota_alone(&self) -> bool {
        self.quota_only || self.by_medium.is_some()
    }

    async fn print(&self, shell: &mut Shell, item: &Item) -> Outcome<()> {
        if self.is_quota_alone() {
            return self.print_quota(shell, item).await;
        }
        let mut content = Content::of(item).await?;
        let more = self.more_columns(&content);
        if self.without_snapshots {
            content = content.without_snapshots();
        }
        if shell.json {
            return print_content(shell, item, &content);
        }
        shell.line(format!("{}{more}{}", self.columns(&content), item.text))
    }

    async fn print_quota(&self, shell: &mut Shell, item: &Item) -> Outcome<()> {
        let usage = match &item.fs {
            FileSystem::Hdfs(hdfs) => hdfs.quota(&item.path).await?,
            FileSystem::Local(_) => NO_QUOTA,
        };
        let columns = match &self.by_medium {
            Some(media) => self.medium_quotas(&usage, media),
            None => self.quotas(
                usage.quota as i64,
                usage.file_and_directory_count,
                usage.space_quota as i64,
                usage.space_consumed,
            ),
        };
        let more = match self.erasure || self.snapshots {
            true => self.more_columns(&Content::of(item).await?),
            false => String::new(),
        };
        shell.line(format!("{columns}{more}{}", item.text))
    }

    fn columns(&self, content: &Content) -> String {
        let number = |number| size::format(number, self.style);
        let mut columns = String::new();
        if self.quota {
            let used = content.files + content.directories;
            columns += &self.quotas(content.quota, used, content.space_quota, content.consumed);
        }
        let counts = [number(content.directories), number(content.files), number(content.length)];
        columns += &summary_columns([&counts[0], &counts[1], &counts[2]]);
        columns
    }

    /// What `-e` and `-s` add, whatever stands before it.
    fn more_columns(&self, content: &Content) -> String {
        let number = |number| size::format(number, self.style);
        let mut columns = String::new();
        if self.erasure {
            columns += &format!("{:>20} ", content.erasure_column());
        }
        if self.snapshots {
            let [files, directories, length, consumed] = content.snapshots.map(number);
            columns += &snapshot_columns([&length, &files, &directories, &consumed]);
        }
        columns
    }

    fn quotas(&self, quota: i64, used: u64, space_quota: i64, consumed: u64) -> String {
        // No directory may have a quota of no names; one of no bytes it may.
        let (quota, rest) = self.quota_and_rest(if quota == 0 { -1 } else { quota }, used);
        let (space_quota, space_rest) = self.quota_and_rest(space_quota, consumed);
        quota_columns([&quota, &rest, &space_quota, &space_rest])
    }

    fn quota_and_rest(&self, quota: i64, used: u64) -> (String, String) {
        if quota < 0 {
            return ("none".into(), "inf".into());
        }
        let rest = quota.saturating_sub_unsigned(used);
        match self.style {
            Style::Exact => (quota.to_string(), rest.to_string()),
            Style::Human => (size::human(quota), size::human(rest)),
        }
    }

    fn medium_quotas(&self, usage: &QuotaUsageProto, media: &[Medium]) -> String {
        let infos = usage.type_quota_infos.as_ref().map_or(&[][..], |infos| &infos.type_quota_info);
        let columns = |(_, medium): &Medium| {
            let info = infos.iter().find(|info| info.r#type() == *medium);
            let (quota, used) = info.map_or((-1, 0), |info| (info.quota as i64, info.consumed));
            let (quota, rest) = self.quota_and_rest(quota, used);
            medium_columns(&quota, &rest)
        };
        media.iter().map(columns).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> Counting {
        Counting {
            quota: true,
            quota_only: false,
            by_medium: None,
            style: Style::Exact,
            without_snapshots: false,
            erasure: false,
            snapshots: false,
        }
    }

    #[test]
    fn columns_as_hadoop_prints_them() {
        let content = Content {
            files: 14,
            directories: 7,
            length: 4_401_832,
            consumed: 4_401_832,
            snapshots: [0; 4],
            quota: -1,
            space_quota: 5_000_000,
            erasure_policy: String::new(),
        };
        assert_eq!(
            counting().columns(&content),
            "        none             inf         5000000          598168            7           14            4401832 "
        );
        assert_eq!(
            counting().head(),
            "       QUOTA       REM_QUOTA     SPACE_QUOTA REM_SPACE_QUOTA    DIR_COUNT   FILE_COUNT       CONTENT_SIZE "
        );
    }

    #[test]
    fn shares() {
        assert_eq!(percent(1, 3), "33%");
        assert_eq!(percent(1, 200), "1%");
        assert_eq!(percent(0, 0), "NaN%");
    }
}
