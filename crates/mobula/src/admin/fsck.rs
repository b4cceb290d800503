//! `mobula admin fsck`: asks the NameNode's HTTP port as HDFS's `DFSck` does, ours or Apache's, and shows what it says.

use anyhow::{Context, Result, bail};
use mobula_net::Env;

use crate::http::client;
use crate::http::query::encode;

/// HDFS's default port of a NameNode's HTTP server.
const HTTP_PORT: u16 = 9870;
/// Pages of corrupt blocks that are asked for at most.
const PAGES_MAX: usize = 10_000;

/// The NameNode to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The network.
    pub env: &'a Env,
    /// Its HTTP port, HOST:PORT.
    pub address: String,
    /// The user.
    pub user: &'a str,
}

/// What the exit code is when nothing says so, as Java's -1 ends up.
const CODE_UNKNOWN: i32 = 255;

/// Where the HTTP port of the NameNode at `namenode` (HOST:PORT) is: as `configured`, or HDFS's default port. A host that
/// stands for all is the NameNode's.
pub fn address(configured: Option<&str>, namenode: &str) -> String {
    let host = namenode.rsplit_once(':').map_or(namenode, |(host, _)| host);
    match configured {
        None => format!("{host}:{HTTP_PORT}"),
        Some(address) => match address.rsplit_once(':') {
            Some(("0.0.0.0" | "[::]" | "*" | "", port)) => format!("{host}:{port}"),
            _ => address.to_owned(),
        },
    }
}

/// Checks; the exit code says how it ended, as that of `hdfs fsck`.
///
/// # Errors
/// Arguments that make no sense; no answer.
pub async fn run(place: &Place<'_>, args: &[String]) -> Result<i32> {
    let (path, mut query) = query(args)?;
    query.insert_str(0, &format!("/fsck?ugi={}", encode(place.user)));
    query.push_str(&format!("&path={}", encode(&path)));
    if args.iter().any(|arg| arg == "-list-corruptfileblocks") {
        return list_corrupt(place, &path, &query).await;
    }
    let mut last = String::new();
    let shown = client::lines(place.env, &place.address, &query, |line| {
        say!("{line}");
        last = line.to_owned();
        Ok(())
    });
    shown.await.with_context(|| format!("the NameNode's HTTP port {}", place.address))?;
    Ok(code_of(&last))
}

/// What an option of `hdfs fsck` is as a parameter.
fn parameter(option: &str) -> Option<&'static str> {
    Some(match option {
        "-move" => "move",
        "-delete" => "delete",
        "-files" => "files",
        "-openforwrite" => "openforwrite",
        "-blocks" => "blocks",
        "-locations" => "locations",
        "-racks" => "racks",
        "-replicaDetails" => "replicadetails",
        "-upgradedomains" => "upgradedomains",
        "-storagepolicies" => "storagepolicies",
        "-showprogress" => "showprogress",
        "-list-corruptfileblocks" => "listcorruptfileblocks",
        "-includeSnapshots" => "includeSnapshots",
        "-maintenance" => "maintenance",
        "-replicate" => "replicate",
        _ => return None,
    })
}

/// The path, and the parameters.
fn query(args: &[String]) -> Result<(String, String)> {
    let (mut path, mut query) = (None, String::new());
    let mut rest = args.iter().peekable();
    while let Some(arg) = rest.next() {
        if arg == "-blockId" {
            let mut ids = Vec::new();
            while let Some(id) = rest.next_if(|id| !id.starts_with('-')) {
                ids.push(id.as_str());
            }
            query.push_str(&format!("&blockId={}", encode(&ids.join(" "))));
        } else if let Some(name) = parameter(arg) {
            query.push_str(&format!("&{name}=1"));
        } else if arg.starts_with('-') {
            bail!("fsck: Illegal option '{arg}'");
        } else if path.replace(arg.clone()).is_some() {
            bail!("fsck: can only operate on one path at a time '{arg}'");
        }
    }
    Ok((path.unwrap_or_else(|| "/".into()), query))
}

/// `DFSck.listCorruptFileBlocks`: asks for page after page.
async fn list_corrupt(place: &Place<'_>, path: &str, query: &str) -> Result<i32> {
    let (mut count, mut cookie) = (0_u64, 0_u64);
    for _ in 0..PAGES_MAX {
        let target = match cookie {
            0 => query.to_owned(),
            cookie => format!("{query}&startblockafter={cookie}"),
        };
        let (mut ended, mut denied, mut failed) = (false, false, None);
        let shown = client::lines(place.env, &place.address, &target, |line| {
            if let Some(number) = line.strip_prefix("Cookie:\t") {
                cookie = number.trim().parse().unwrap_or(0);
                ended |= cookie == 0;
            } else if ["has no CORRUPT files", "has no more CORRUPT files", "does not exist"]
                .iter()
                .any(|end| line.ends_with(end))
            {
                ended = true;
            } else if line.starts_with("Access denied for user") {
                denied = true;
            } else if line.ends_with("FAILED") {
                failed = Some(line.to_owned());
            } else if !line.is_empty()
                && !line.starts_with("FSCK ")
                && !line.starts_with("The filesystem under")
            {
                count += 1;
                if count == 1 {
                    say!("The list of corrupt blocks under path '{path}' are:");
                }
                say!("{line}");
            }
            Ok(())
        });
        shown.await.with_context(|| format!("the NameNode's HTTP port {}", place.address))?;
        if denied {
            say!("Failed to open path '{path}': Permission denied");
            return Ok(CODE_UNKNOWN);
        }
        if let Some(words) = failed {
            bail!(words);
        }
        if ended {
            break;
        }
    }
    say!("The filesystem under path '{path}' has {count} CORRUPT blocks");
    Ok(if count == 0 { 0 } else { CODE_UNKNOWN })
}

/// What `DFSck` makes of the last line.
fn code_of(last: &str) -> i32 {
    let ends = [
        ("is HEALTHY", 0),
        ("is CORRUPT", 1),
        ("does not exist", 0),
        ("is EXCESS", 0),
        ("is DECOMMISSIONED", 2),
        ("is DECOMMISSIONING", 3),
        ("is IN MAINTENANCE", 4),
        ("is ENTERING MAINTENANCE", 5),
        ("is STALE", 6),
    ];
    let known = ends.iter().find(|(end, _)| last.ends_with(end)).map(|(_, code)| *code);
    known.unwrap_or(if last.contains("Incorrect blockId format:") { 0 } else { CODE_UNKNOWN })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(args: &[&str]) -> Result<(String, String)> {
        query(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_as_of_hdfs() {
        let (path, asked) =
            of(&["/a b", "-files", "-blocks", "-blockId", "blk_1", "blk_2", "-racks"]).unwrap();
        assert_eq!(
            (path.as_str(), asked.as_str()),
            ("/a b", "&files=1&blocks=1&blockId=blk_1%20blk_2&racks=1")
        );
        assert_eq!(of(&[]).unwrap().0, "/");
        assert_eq!(of(&["-x"]).unwrap_err().to_string(), "fsck: Illegal option '-x'");
        assert!(of(&["/a", "/b"]).unwrap_err().to_string().contains("one path at a time '/b'"));
    }

    #[test]
    fn where_it_is() {
        assert_eq!(address(None, "nn:8020"), "nn:9870");
        assert_eq!(address(Some("0.0.0.0:50070"), "nn:8020"), "nn:50070");
        assert_eq!(address(Some("web:1"), "nn:8020"), "web:1");
    }

    #[test]
    fn codes_as_of_hdfs() {
        assert_eq!(code_of("The filesystem under path '/' is HEALTHY"), 0);
        assert_eq!(code_of("The filesystem under path '/' is CORRUPT"), 1);
        assert_eq!(code_of("Incorrect blockId format: x"), 0);
        assert_eq!(code_of("Fsck on path '/' FAILED"), 255);
        assert_eq!(code_of(""), 255);
    }
}
