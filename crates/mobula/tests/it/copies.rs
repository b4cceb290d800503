//! `mobula fs` verbs that carry files between here and the cluster: what Apache's shell makes of several
//! sources of one name, of standard input, of URIs, of umasks and checksums, and of links that lead nowhere.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use mobula::Cluster;
use tokio::io::AsyncWriteExt;

use crate::servers::command;
use crate::verbs::{assert_fails, cluster, says, store, stored};

/// A folder with these files in it.
pub fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// `mobula fs ARGS` in `folder`, with `input`.
pub async fn fs_in(cluster: &Cluster, folder: &Path, input: &str, args: &[&str]) -> (String, String, i32) {
    let uri = cluster.uri();
    let mut child = command(&[&["fs", "-fs", &uri], args].concat())
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end without reading.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
}

fn bits(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_of_one_name_come_one_after_the_other() {
    let cluster = cluster().await;
    let folder =
        folder(&[("a/x", "of a"), ("b/x", "of b"), ("a/s/one", "1"), ("b/s/one", "2"), ("b/s/two", "3")]);
    let here = folder.path();
    let run = async |line: &str| fs_in(&cluster, here, "", &line.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(run("-mkdir /d /e /direct /copies /trees").await, says(""));
    assert_fails(run("-put a/x b/x /d").await, "put: `/d/x': File exists", 1);
    assert_eq!(stored(&cluster, "/d/x").await, "of a", "the first is there");
    assert_eq!(run("-put -f a/x b/x /e").await, says(""));
    assert_eq!(stored(&cluster, "/e/x").await, "of b", "the last one wins");
    assert_fails(run("-put -d a/x b/x /direct").await, "put: `/direct/x': File exists", 1);
    assert_eq!(stored(&cluster, "/direct/x").await, "of a");
    assert_fails(run("-cp /d/x /e/x /copies").await, "cp: `/copies/x': File exists", 1);
    assert_eq!(stored(&cluster, "/copies/x").await, "of a");
    assert_fails(run("-put a/s b/s /trees").await, "put: `/trees/s/one': File exists", 1);
    assert_eq!(run("-cat /trees/s/one /trees/s/two").await, says("13"));
    assert_eq!(run("-ls -R -C /d").await, says("/d/x\n"), "nothing half-written stays");
    // One file's name is what another one is called until it is whole.
    std::fs::create_dir(here.join("left")).unwrap();
    std::fs::write(here.join("left/y"), vec![b'y'; 1 << 20]).unwrap();
    std::fs::write(here.join("left/y._COPYING_"), "left").unwrap();
    for _ in 0..2 {
        assert_eq!(run("-put -f left /").await, says(""));
        assert_eq!(stored(&cluster, "/left/y").await, vec![b'y'; 1 << 20]);
        assert_eq!(stored(&cluster, "/left/y._COPYING_").await, "left");
    }
    // Long enough that both would be under way at once.
    for (path, byte) in [("/d/big", b'A'), ("/e/big", b'B')] {
        store(&cluster, path, vec![byte; 3_000_000]).await;
    }
    std::fs::create_dir(here.join("back")).unwrap();
    assert_eq!(run("-get -f /d/big /e/big back").await, says(""));
    assert!(std::fs::read(here.join("back/big")).unwrap() == [b'B'; 3_000_000], "whole, and of one of them");
    assert_eq!(std::fs::read_dir(here.join("back")).unwrap().count(), 1);
    assert_fails(run("-moveFromLocal a/x b/x /copies").await, "moveFromLocal: `/copies/x': File exists", 1);
    assert!(here.join("a/x").exists() && here.join("b/x").exists(), "what was not stored stays");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_wants_a_directory_that_is_there() {
    let cluster = cluster().await;
    let folder = folder(&[]);
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "in", args).await;
    assert_fails(run(&["-put", "-"]).await, "put: `.': No such file or directory", 1);
    assert_fails(run(&["-put", "-", "/no/dir/"]).await, "put: `/no/dir/': No such file or directory", 1);
    assert_eq!(run(&["-ls", "-C", "/"]).await, says(""), "nothing was made");
    assert_eq!(run(&["-put", "-", "/no/dir"]).await, says(""));
    assert_eq!(stored(&cluster, "/no/dir").await, "in");
    assert_eq!(run(&["-put", "-", "/no/"]).await, says(""));
    assert_eq!(stored(&cluster, "/no/-").await, "in");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_in_a_local_uri_is_no_path() {
    let cluster = cluster().await;
    let folder = folder(&[("tmp/x", "kept")]);
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    let here = folder.path().to_str().unwrap();
    let wrong = format!("-ls: Wrong FS: file://one{here}, expected: file:///");
    assert_fails(run(&["-ls", "file://one"]).await, &wrong, 255);
    let (out, error, code) = run(&["-rm", "-r", &format!("file:/{here}/tmp")]).await;
    let first = here.trim_start_matches('/').split('/').next().unwrap();
    assert!(error.starts_with(&format!("-rm: Wrong FS: file://{first}/")), "{error}");
    assert_eq!((out.as_str(), code), ("", 255));
    assert!(folder.path().join("tmp/x").exists());
    assert_eq!(run(&["-cat", &format!("file://{here}/tmp/x")]).await, says("kept"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_files_have_the_bits_that_the_umask_leaves() {
    let cluster = cluster().await;
    let folder = folder(&[]);
    store(&cluster, "/d/f", "text").await;
    let umask = "fs.permissions.umask-mode=077";
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    assert_eq!(run(&["-D", umask, "-get", "/d/f", "f"]).await, says(""));
    assert_eq!(run(&["-D", umask, "-get", "/d", "d"]).await, says(""));
    let path = |name: &str| folder.path().join(name);
    assert_eq!((bits(&path("f")), bits(&path("d")), bits(&path("d/f"))), (0o600, 0o700, 0o600));
    assert_eq!(run(&["-D", umask, "-getmerge", "/d", "made/here/merged"]).await, says(""));
    assert_eq!(
        (bits(&path("made")), bits(&path("made/here/merged"))),
        (0o700, 0o600),
        "and the folders above"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_are_as_configured() {
    let cluster = cluster().await;
    let folder = folder(&[("one", "one\n")]);
    let run =
        async |line: &str| fs_in(&cluster, folder.path(), "", &line.split(' ').collect::<Vec<_>>()).await;
    let no_chunks = |size: u32| {
        format!("-put: Invalid values: dfs.bytes-per-checksum (=512) must divide block size (={size}).")
    };
    assert_fails(run("-D dfs.blocksize=1048577 -put one /x").await, &no_chunks(1_048_577), 255);
    let no_chunk = "-touchz: Invalid values: dfs.bytes-per-checksum (=1000) must divide block size (=4096).";
    assert_fails(run("-D dfs.bytes-per-checksum=1000 -touchz /x").await, no_chunk, 255);
    assert_eq!(run("-ls /").await, says(""), "nothing was made");
    // As Apache's shell prints them.
    for (setting, path, sum) in [
        (
            "dfs.checksum.type=CRC32",
            "/c1",
            "MD5-of-0MD5-of-512CRC32\t000002000000000000000000b51cef493a874fe9b19df36a7efbe42b",
        ),
        (
            "dfs.bytes-per-checksum=1024",
            "/c2",
            "MD5-of-0MD5-of-1024CRC32C\t000004000000000000000000d223122e13484739b68e59311f04fa91",
        ),
        (
            "dfs.checksum.type=other",
            "/c3",
            "MD5-of-0MD5-of-512CRC32C\t000002000000000000000000d223122e13484739b68e59311f04fa91",
        ),
    ] {
        assert_eq!(run(&format!("-D {setting} -put one {path}")).await, says(""));
        assert_eq!(run(&format!("-checksum {path}")).await, says(&format!("{path}\t{sum}\n")));
        assert_eq!(run(&format!("-cat {path}")).await, says("one\n"));
        assert_eq!(run(&format!("-D {setting} -appendToFile one {path}")).await, says(""));
        assert_eq!(run(&format!("-cat {path}")).await, says("one\none\n"));
    }
    assert_eq!(run("-D dfs.checksum.type=NULL -put one /c4").await, says(""));
    assert_eq!(run("-cat /c4").await, says("one\n"));
    assert_eq!(run("-D dfs.bytes-per-checksum=0 -put one /c5").await.2, 255);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_beside_local_files_follow_them() {
    let cluster = cluster().await;
    let folder = folder(&[("d/f", "text"), ("d/.f.crc", "not to be stored"), ("d/.hidden", "h")]);
    let run =
        async |line: &str| fs_in(&cluster, folder.path(), "", &line.split(' ').collect::<Vec<_>>()).await;
    let path = |name: &str| folder.path().join(name);
    assert_eq!(run("-put d /d").await, says(""));
    assert_eq!(run("-ls -C /d").await, says("/d/.hidden\n/d/f\n"));
    assert_eq!(run("-get -crc /d/f f").await, says(""));
    let sum = mobula_wire::checksum::ChecksumKind::Crc32.crc(b"text");
    let expected = [&b"crc\0\0\0\x02\0"[..], &sum.to_be_bytes()].concat();
    assert_eq!(std::fs::read(path(".f.crc")).unwrap(), expected);
    assert!(!path(".f._COPYING_.crc").exists());
    assert_eq!(run("-get -f /d/f f").await, says(""));
    assert!(!path(".f.crc").exists(), "it was the old file's");
    assert_eq!(run("-moveFromLocal d /moved").await, says(""));
    assert!(!path("d").exists(), "with what belonged to its files");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_lead_nowhere_are_not_listed() {
    let cluster = cluster().await;
    let folder = folder(&[("d/f", "text")]);
    std::os::unix::fs::symlink("nowhere", folder.path().join("d/dangling")).unwrap();
    std::os::unix::fs::symlink("itself", folder.path().join("d/itself")).unwrap();
    let run =
        async |line: &str| fs_in(&cluster, folder.path(), "", &line.split(' ').collect::<Vec<_>>()).await;
    let uri = format!("file://{}/d", folder.path().display());
    assert_eq!(run("-put d /d").await, says(""));
    assert_eq!(run("-ls -C /d").await, says("/d/f\n"));
    assert_eq!(run(&format!("-ls -C {uri}")).await, says(&format!("{uri}/f\n")));
    let none = "put: `d/itself': No such file or directory";
    assert_fails(run("-put d/itself /x").await, none, 1);
    cluster.shutdown().await;
}
