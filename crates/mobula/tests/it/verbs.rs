//! `mobula fs` verbs that change what is in a file, or follow it, and `mobula admin` for files that are
//! open: words and exit codes of Apache's shell.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use mobula::Cluster;
use mobula_client::CreateOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::servers::{command, said};

const BLOCK: usize = 4096;
/// Longest wait for what a command is to print.
const LIMIT: Duration = Duration::from_secs(60);

pub async fn cluster() -> Cluster {
    Cluster::with(|c| c.namenode.defaults.block_size = BLOCK as u64).await.unwrap()
}

async fn fs(cluster: &Cluster, args: &[&str]) -> (String, String, i32) {
    let uri = cluster.uri();
    said(&[&["fs", "-fs", &uri], args].concat()).await
}

async fn admin(cluster: &Cluster, args: &[&str]) -> (String, String, i32) {
    let uri = cluster.uri();
    said(&[&["admin", "--fs", &uri], args].concat()).await
}

pub fn says(out: &str) -> (String, String, i32) {
    (out.into(), String::new(), 0)
}

/// It fails with `code`, prints nothing, and the first line of its errors is `line`.
#[track_caller]
pub fn assert_fails((out, error, code): (String, String, i32), line: &str, with: i32) {
    assert_eq!((out.as_str(), error.lines().next(), code), ("", Some(line), with), "{error}");
}

pub async fn store(cluster: &Cluster, path: &str, data: impl Into<Bytes>) {
    cluster.client().put(path, data.into(), CreateOptions::default()).await.unwrap();
}

pub async fn stored(cluster: &Cluster, path: &str) -> Bytes {
    cluster.client().get(path).await.unwrap()
}

fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_to_file() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let local = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (one, two) = (local("one", "one "), local("two", "two "));
    assert_eq!(fs(&cluster, &["-appendToFile", &one, "/f"]).await, says(""), "made where there is none");
    assert_eq!(fs(&cluster, &["-appendToFile", &two, &one, "/f"]).await, says(""));
    assert_eq!(fs(&cluster, &["-appendToFile", "-n", &two, "/f"]).await, says(""), "in a new block");
    assert_eq!(stored(&cluster, "/f").await, "one two one two ");
    let uri = cluster.uri();
    let mut child = command(&["fs", "-fs", &uri, "-appendToFile", "-", "/f"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"three").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (Some(0), 0, 0));
    assert_eq!(stored(&cluster, "/f").await, "one two one two three");
    let only = "appendToFile: stdin (-) must be the sole input argument when present";
    assert_fails(fs(&cluster, &["-appendToFile", "-", &one, "/f"]).await, only, 1);
    assert_fails(
        fs(&cluster, &["-appendToFile", "/f"]).await,
        "appendToFile: missing destination argument",
        1,
    );
    let (out, error, code) = fs(&cluster, &["-appendToFile", "/none/such", "/f"]).await;
    assert_eq!((out.as_str(), code), ("", 1));
    assert!(error.starts_with("appendToFile: ") && error.contains("/none/such"), "{error}");
    assert_eq!(stored(&cluster, "/f").await, "one two one two three", "failures added nothing");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncate() {
    let cluster = cluster().await;
    let data = bytes(2 * BLOCK + 1_000);
    store(&cluster, "/f", data.clone()).await;
    store(&cluster, "/g", data.clone()).await;
    assert_eq!(fs(&cluster, &["-mkdir", "/d"]).await, says(""));
    let (out, error, code) = fs(&cluster, &["-truncate", "-w", "5000", "/f", "/g"]).await;
    assert_eq!((error.as_str(), code), ("", 0));
    // A dot for each second that it took.
    let mut rest = out.as_str();
    for path in ["/f", "/g"] {
        rest =
            rest.strip_prefix(&format!("Waiting for {path} ...")).expect("it waits").trim_start_matches('.');
        rest = rest.strip_prefix(&format!("\nTruncated {path} to length: 5000\n")).expect("and says so");
    }
    assert_eq!(rest, "");
    for path in ["/f", "/g"] {
        assert_eq!(stored(&cluster, path).await, data[..5_000]);
    }
    let at_a_border = BLOCK.to_string();
    let done = format!("Truncated /f to length: {at_a_border}\n");
    assert_eq!(fs(&cluster, &["-truncate", &at_a_border, "/f"]).await, says(&done));
    assert_eq!(fs(&cluster, &["-truncate", &at_a_border, "/f"]).await, says(&done), "as long already");
    assert_eq!(stored(&cluster, "/f").await, data[..BLOCK]);
    let goes_on = "Truncating /g to length: 7. Wait for block recovery to complete before further updating this file.\n";
    assert_eq!(fs(&cluster, &["-truncate", "7", "/g"]).await, says(goes_on));
    let longer = "-truncate: Cannot truncate to a larger file size. Current size: 4096, truncate size: 4097.";
    assert_fails(fs(&cluster, &["-truncate", "4097", "/f"]).await, longer, 255);
    let no_length = "truncate: Illegal length, a non-negative integer expected";
    assert_fails(fs(&cluster, &["-truncate", "x", "/f"]).await, no_length, 255);
    assert_fails(fs(&cluster, &["-truncate", "1", "/d"]).await, "truncate: `/d': Is a directory", 1);
    let missing = "truncate: `/none': No such file or directory";
    assert_fails(fs(&cluster, &["-truncate", "1", "/none"]).await, missing, 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concat() {
    let cluster = cluster().await;
    let data = bytes(3 * BLOCK);
    for (path, from, until) in [("/a", 0, BLOCK), ("/b", BLOCK, BLOCK + 700), ("/c", BLOCK + 700, data.len())]
    {
        store(&cluster, path, data.slice(from..until)).await;
    }
    let too_few =
        "concat: The number of source paths is less than 2. <target path> <src path> <src path> ...";
    assert_fails(fs(&cluster, &["-concat", "/a", "/b"]).await, too_few, 1);
    let missing = format!("concat: {}/none does not exist or is not file.", cluster.uri());
    assert_fails(fs(&cluster, &["-concat", "/a", "/b", "/none"]).await, &missing, 1);
    let no_target = format!("concat: Target path {}/none does not exist or is not file.", cluster.uri());
    assert_fails(fs(&cluster, &["-concat", "/none", "/b", "/c"]).await, &no_target, 1);
    assert_eq!(fs(&cluster, &["-concat", "/a", "/b", "/c"]).await, says(""));
    assert_eq!(stored(&cluster, "/a").await, data);
    assert_eq!(fs(&cluster, &["-test", "-e", "/b"]).await.2, 1, "the sources are gone");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_follows() {
    let cluster = cluster().await;
    let text: String = (0..400).map(|at| format!("line {at}\n")).collect();
    store(&cluster, "/log", text.clone()).await;
    let end = &text[text.len() - 1024..];
    assert_eq!(fs(&cluster, &["-tail", "/log"]).await, says(end));
    let uri = cluster.uri();
    let mut child = command(&["fs", "-fs", &uri, "-tail", "-f", "-s", "100", "/log"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut prints = async |expected: &str| {
        let mut got = vec![0; expected.len()];
        timeout(LIMIT, out.read_exact(&mut got)).await.expect("it prints").unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), expected);
    };
    prints(end).await;
    let mut writer = cluster.client().append("/log", mobula_client::AppendOptions::default()).await.unwrap();
    for added in ["what is flushed\n", "while the file\n", "is open\n"] {
        writer.write(added.into()).await.unwrap();
        writer.hflush().await.unwrap();
        prints(added).await;
    }
    writer.close().await.unwrap();
    let mut writer = cluster.client().append("/log", mobula_client::AppendOptions::default()).await.unwrap();
    writer.write("and what comes later\n".into()).await.unwrap();
    writer.close().await.unwrap();
    prints("and what comes later\n").await;
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    assert_eq!(fs(&cluster, &["-rm", "-skipTrash", "/log"]).await, says("Deleted /log\n"));
    let output = timeout(LIMIT, child.wait_with_output()).await.expect("it ends with the file").unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (error.as_str(), output.status.code()),
        ("tail: `/log': No such file or directory\n", Some(1))
    );
    assert_fails(fs(&cluster, &["-tail", "-f", "/"]).await, "tail: `/': Is a directory", 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_files_are_listed_and_taken_from_their_writers() {
    let cluster = cluster().await;
    let (out, error, code) = admin(&cluster, &["open-files", "--json"]).await;
    assert_eq!((out.as_str(), error.as_str(), code), ("", "", 0), "none");
    let client = cluster.client();
    let data = bytes(BLOCK + 1_000);
    let mut writer = client.create("/logs/app", CreateOptions::default()).await.unwrap();
    writer.write(data.clone()).await.unwrap();
    writer.hflush().await.unwrap();
    let _other = client.create("/data/part", CreateOptions::default()).await.unwrap();
    let (out, error, code) = admin(&cluster, &["open-files", "--json", "/logs"]).await;
    assert_eq!((error.as_str(), code, out.lines().count()), ("", 0, 1), "{out}");
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["path"], &line["holder"]), (&"/logs/app".into(), &client.name().into()));
    assert_eq!(line["host"], "127.0.0.1");
    let (out, _, code) = admin(&cluster, &["open-files"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("/logs/app") && out.contains("/data/part") && out.contains("holder"), "{out}");
    let (out, _, code) = admin(&cluster, &["open-files", "--json", "--limit", "1"]).await;
    assert_eq!((out.lines().count(), code), (1, 0));
    let (out, _, code) = admin(&cluster, &["recover-lease", "/logs/app"]).await;
    assert_eq!((out.as_str(), code), ("recoverLease SUCCEEDED on /logs/app\n", 0));
    assert_eq!(stored(&cluster, "/logs/app").await, data, "with all that was flushed");
    writer.write(bytes(BLOCK)).await.ok();
    assert!(writer.close().await.is_err(), "it is taken from its writer");
    assert_eq!(admin(&cluster, &["open-files", "--json", "/logs"]).await, says(""));
    let again = admin(&cluster, &["recover-lease", "--path", "/logs/app"]).await;
    assert_eq!(
        again,
        says("recoverLease SUCCEEDED on /logs/app\n"),
        "of a closed file there is none to take"
    );
    let (out, error, code) = admin(&cluster, &["recover-lease", "/none", "--retries", "3"]).await;
    assert_eq!((out.as_str(), code), ("", 1));
    assert!(error.starts_with("recoverLease got exception: "), "{error}");
    assert!(error.ends_with("Giving up on recoverLease for /none after 1 try\n"), "{error}");
    cluster.shutdown().await;
}
