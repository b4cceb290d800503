//! `VERSION` files: Java properties, as HDFS keeps them on every volume and in every pool
//! (HDFS: `DataStorage`, `BlockPoolSliceStorage`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use mobula_disk::{Disk, read_file, write_file_durably};

/// The layout of 3.3 to 3.5; lower numbers are newer.
pub(crate) const LAYOUT: i64 = -57;
/// Longest `VERSION` file that is read, in bytes.
const VERSION_BYTES_MAX: u64 = 64 << 10;

/// What a volume's `VERSION` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeVersion {
    pub storage: String,
    pub cluster: String,
    pub datanode: String,
}

/// What a pool's `VERSION` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolVersion {
    pub namespace: u32,
    pub pool: String,
    pub created: u64,
}

type Properties = BTreeMap<String, String>;

impl VolumeVersion {
    /// Reads `<volume>/current/VERSION`; none if there is no such file.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<VolumeVersion>> {
        let Some(properties) = read(disk, path)? else { return Ok(None) };
        check(path, &properties, "storageType", "DATA_NODE")?;
        check_layout(path, &properties)?;
        Ok(Some(VolumeVersion {
            storage: field(path, &properties, "storageID")?,
            cluster: field(path, &properties, "clusterID")?,
            datanode: field(path, &properties, "datanodeUuid")?,
        }))
    }

    /// Writes it, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let VolumeVersion { storage, cluster, datanode } = self;
        let text = format!(
            "storageID={storage}\nclusterID={cluster}\ncTime=0\ndatanodeUuid={datanode}\n\
             storageType=DATA_NODE\nlayoutVersion={LAYOUT}\n"
        );
        write_file_durably(disk, path, text.as_bytes())
    }
}

impl PoolVersion {
    /// Reads `<volume>/current/BP-*/current/VERSION`; none if there is no such file.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<PoolVersion>> {
        let Some(properties) = read(disk, path)? else { return Ok(None) };
        check_layout(path, &properties)?;
        Ok(Some(PoolVersion {
            namespace: number(path, &properties, "namespaceID")? as u32,
            pool: field(path, &properties, "blockpoolID")?,
            created: number(path, &properties, "cTime")? as u64,
        }))
    }

    /// Writes it, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let PoolVersion { namespace, pool, created } = self;
        let text = format!(
            "namespaceID={}\nblockpoolID={pool}\ncTime={created}\nlayoutVersion={LAYOUT}\n",
            *namespace as i32
        );
        write_file_durably(disk, path, text.as_bytes())
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Properties>> {
    match read_file(disk, path, VERSION_BYTES_MAX) {
        Ok(bytes) => Ok(Some(parse(&String::from_utf8_lossy(&bytes)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Java properties, as far as HDFS writes them: `#` comments, `key=value`, backslashes before `:`, `=`, `#`, `!`.
fn parse(text: &str) -> Properties {
    let mut properties = Properties::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            properties.insert(key.trim().to_owned(), value.trim().replace('\\', ""));
        }
    }
    properties
}

fn bad(path: &Path, what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

fn field(path: &Path, properties: &Properties, key: &str) -> io::Result<String> {
    match properties.get(key) {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(bad(path, format!("{key} is missing"))),
    }
}

fn number(path: &Path, properties: &Properties, key: &str) -> io::Result<i64> {
    let text = field(path, properties, key)?;
    text.parse().map_err(|_| bad(path, format!("{key} is {text:?}, not a number")))
}

fn check(path: &Path, properties: &Properties, key: &str, expected: &str) -> io::Result<()> {
    let found = field(path, properties, key)?;
    if found == expected { Ok(()) } else { Err(bad(path, format!("{key} is {found}, not {expected}"))) }
}

fn check_layout(path: &Path, properties: &Properties) -> io::Result<()> {
    let layout = number(path, properties, "layoutVersion")?;
    if layout == LAYOUT {
        Ok(())
    } else {
        Err(bad(path, format!("layoutVersion is {layout}; only {LAYOUT} is understood")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_java_writes() {
        let text = "#Tue Nov 24 04:06:00 UTC 2026\nstorageID=DS-1\nclusterID=CID\\:1\ncTime=0\n\
                    datanodeUuid=u\nstorageType=DATA_NODE\nlayoutVersion=-57\n";
        let properties = parse(text);
        let path = Path::new("VERSION");
        assert_eq!(field(path, &properties, "clusterID").unwrap(), "CID:1");
        assert!(check_layout(path, &properties).is_ok());
        assert!(field(path, &properties, "blockpoolID").is_err());
        assert!(check_layout(path, &parse("layoutVersion=-56")).is_err());
        assert!(check_layout(path, &parse("layoutVersion=new")).is_err());
    }
}
