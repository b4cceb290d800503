//! Corners of `mobula fs` that scripts see: exit codes when nobody reads, names and hosts that cannot be,
//! questions, packed files that are none, columns, and arguments. Words and codes are Apache's shell's.

use std::io::Write;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::copies::{folder, fs_in};
use crate::servers::command;
use crate::verbs::{assert_fails, cluster, says, store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_reads() {
    let cluster = cluster().await;
    for path in ["/d/a", "/d/b", "/d/c"] {
        store(&cluster, path, "text\n").await;
    }
    let uri = cluster.uri();
    let unread = async |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command(&[&["fs", "-fs", &uri], args].concat())
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().await.unwrap();
        (String::new(), String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap_or(-1))
    };
    for verb in ["-ls", "-du", "-count", "-find", "-stat"] {
        assert_eq!(unread(&[verb, "/d"]).await, says(""), "{verb}");
    }
    assert_fails(unread(&["-cat", "/d/a"]).await, "cat: Unable to write to output stream.", 1);
    assert_fails(unread(&["-tail", "/d/a"]).await, "tail: Unable to write to output stream.", 1);
    assert_eq!(unread(&["-head", "/d/a"]).await, says(""));
    assert_eq!(unread(&["-setrep", "1", "/d/a", "/d/b", "/d/c"]).await, says(""));
    assert_eq!(unread(&["-rm", "/d/a", "/d/b"]).await, says(""));
    let folder = folder(&[]);
    assert_eq!(
        fs_in(&cluster, folder.path(), "", &["-ls", "-C", "/d"]).await,
        says("/d/c\n"),
        "both are gone"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_this_machine_does_not_know() {
    let cluster = cluster().await;
    let folder = folder(&[("f", "text")]);
    store(&cluster, "/f", "text").await;
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    assert_eq!(run(&["-chown", &format!("{me}:nosuchgroup"), "/f"]).await, says(""));
    let unknown = format!("get: chown: invalid group: ‘{me}:nosuchgroup’");
    assert_fails(run(&["-get", "-p", "/f", "got"]).await, &unknown, 1);
    assert_eq!(std::fs::read(folder.path().join("got")).unwrap(), b"text", "the file stays");
    let uri = format!("file://{}/f", folder.path().display());
    let unknown = format!("chown: changing ownership of '{uri}': chown: invalid user: ‘nosuchuser’");
    assert_fails(run(&["-chown", "nosuchuser", &uri]).await, &unknown, 1);
    let unknown = format!("chgrp: changing ownership of '{uri}': chown: invalid group: ‘:nosuchgroup’");
    assert_fails(run(&["-chgrp", "nosuchgroup", &uri]).await, &unknown, 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_files_that_are_cut_or_are_none() {
    let cluster = cluster().await;
    let folder = folder(&[]);
    let text: String = (0..50_000).map(|at| format!("line {at}\n")).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    store(&cluster, "/whole", packed.clone()).await;
    store(&cluster, "/cut", packed[..packed.len() / 2].to_vec()).await;
    for (path, data) in [("/short.gz", "plain\n"), ("/long.gz", "plain, and long enough\n"), ("/1.gz", "x")] {
        store(&cluster, path, data).await;
    }
    for (path, data) in [("/obj", "Objx"), ("/ob.gz", "Obx")] {
        store(&cluster, path, data).await;
    }
    let run = async |path: &str| fs_in(&cluster, folder.path(), "", &["-text", path]).await;
    assert_eq!(run("/whole").await, says(&text));
    let (out, error, code) = run("/cut").await;
    assert_eq!((error.as_str(), code), ("text: Unexpected end of ZLIB input stream\n", 1));
    assert!(out.len() > text.len() / 3 && text.starts_with(&out), "{} of {}", out.len(), text.len());
    assert_fails(run("/short.gz").await, "text: Unexpected end of input stream", 1);
    assert_fails(run("/long.gz").await, "text: not a gzip file", 1);
    assert_eq!(run("/1.gz").await, says("x"));
    assert_fails(run("/obj").await, "text: Not an Avro data file", 1);
    assert_eq!(run("/ob.gz").await, says("Obx"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_directories_are_asked_about() {
    let cluster = cluster().await;
    let folder = folder(&[("d/a", ""), ("d/b", "")]);
    let limit = "hadoop.shell.safely.delete.limit.num.files=1";
    let rm = async |input: &str, path: &str| {
        let args = ["-D", limit, "-rm", "-r", "-safely", path];
        fs_in(&cluster, folder.path(), input, &args).await
    };
    let question = "Proceed deleting 2 files? (Y or N) ";
    for path in ["/d/a", "/d/b"] {
        store(&cluster, path, "").await;
    }
    let aborted = format!("{question}Delete aborted at user request.\n\n");
    let again = format!("{question}Invalid input: maybe\n{aborted}");
    assert_eq!(rm("No\n", "/d").await, (String::new(), aborted.clone(), 0));
    assert_eq!(rm("maybe\nn\n", "/d").await, (String::new(), again, 0));
    assert_eq!(rm("", "/d").await, (String::new(), aborted.clone(), 0), "no answer is no");
    assert_eq!(rm("yes\n", "/d").await, ("Deleted /d\n".into(), question.into(), 0));
    let local = format!("file://{}/d", folder.path().display());
    assert_eq!(rm("n\n", &local).await, (String::new(), aborted, 0));
    assert_eq!(rm("Y\n", &local).await, (format!("Deleted {local}\n"), question.into(), 0));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_hosts_that_cannot_be() {
    let cluster = cluster().await;
    let uri = cluster.uri();
    let folder = folder(&[("d/a", "a"), ("d/c:d", "c"), ("c:d", "c")]);
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    let no_uri = "-mkdir: java.net.URISyntaxException: Relative path in absolute URI: a:b";
    assert_fails(run(&["-mkdir", "/a:b"]).await, no_uri, 255);
    let no_name = "-put: Pathname /d/c:d from /d/c:d is not a valid DFS filename.";
    assert_fails(run(&["-put", "d", "/d"]).await, no_name, 255);
    assert_eq!(run(&["-ls", "-C", "/d"]).await, says("/d/a\n"), "what came before it is there, and whole");
    assert_fails(run(&["-put", "./c:d", "/d/"]).await, no_name, 255);
    let no_name = format!("-ls: Pathname /.. from {uri}/.. is not a valid DFS filename.");
    assert_fails(run(&["-ls", "/.."]).await, &no_name, 255);
    // Longer than a name may be: no server is asked for it.
    let host = "h".repeat(64);
    let no_host = format!("-ls: java.net.UnknownHostException: {host}");
    assert_fails(run(&["-ls", &format!("hdfs://{host}/")]).await, &no_host, 255);
    let prefix = "dfs.user.home.dir.prefix=/homes";
    assert_eq!(run(&["-D", prefix, "-mkdir", "-p", "mine"]).await, says(""));
    let (out, _, _) = run(&["-ls", "-R", "-C", "/homes"]).await;
    assert!(out.ends_with("/mine\n"), "{out}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uri_without_a_path_is_not_the_root() {
    let cluster = cluster().await;
    let uri = cluster.uri();
    let folder = folder(&[("f", "text")]);
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    for verb in ["ls", "count", "du", "rm", "stat", "cat", "find"] {
        let missing = format!("{verb}: `{uri}': No such file or directory");
        assert_fails(run(&[&format!("-{verb}"), &uri]).await, &missing, 1);
    }
    assert_eq!(run(&["-test", "-e", &uri]).await.2, 1);
    let no_name = format!("Pathname  from {uri} is not a valid DFS filename.");
    for line in [&["-put", "f"][..], &["-touchz"], &["-appendToFile", "f"], &["-mkdir", "-p"], &["-tail"]] {
        let told = format!("{}: {no_name}", line[0]);
        assert_fails(run(&[line, &[uri.as_str()]].concat()).await, &told, 255);
    }
    let no_parent =
        "parent's path is null. This can happen if mkdir is called on root, so there's no parent.";
    let missing = format!("mkdir: `Item: {uri} {no_parent}': No such file or directory");
    assert_fails(run(&["-mkdir", &uri]).await, &missing, 1);
    assert_eq!(run(&["-put", "f", &format!("{uri}/")]).await, says(""));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uris_print_with_their_slashes() {
    let cluster = cluster().await;
    let folder = folder(&[("f", "text")]);
    let here = folder.path().to_str().unwrap();
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    store(&cluster, "/f", "text").await;
    assert_eq!(run(&["-ls", "-C", "hdfs:/f", "hdfs:///f"]).await, says("hdfs:///f\nhdfs:///f\n"));
    let file = format!("file://{here}/f");
    assert_eq!(
        run(&["-ls", "-C", &format!("file:{here}/f"), &file]).await,
        says(&format!("{file}\n{file}\n"))
    );
    assert_eq!(run(&["-rm", "hdfs:/f"]).await, says("Deleted hdfs:///f\n"));
    store(&cluster, "/f", "text").await;
    // Java completes a relative path with one slash, and leaves an absolute one as it is.
    let missing = format!("get: `no/f': No such file or directory: `file:{here}/no/f'");
    assert_fails(run(&["-get", "/f", "no/f"]).await, &missing, 1);
    let missing = format!("get: `{here}/no/f': No such file or directory: `file://{here}/no/f'");
    assert_fails(run(&["-get", "/f", &format!("{here}/no/f")]).await, &missing, 1);
    let missing = format!("mkdir: `file:{here}/no': No such file or directory");
    assert_fails(run(&["-mkdir", &format!("file://{here}/no/d")]).await, &missing, 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_failures_in_javas_words() {
    let cluster = cluster().await;
    let folder = folder(&[("d/f", "text"), ("one", "1")]);
    let here = folder.path().to_str().unwrap();
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "in", args).await;
    store(&cluster, "/f", "text").await;
    let missing = format!("appendToFile: {here}/none");
    assert_fails(run(&["-appendToFile", "none", "/f"]).await, &missing, 1);
    assert_fails(run(&["-appendToFile", "d", "/f"]).await, "appendToFile: Is a directory", 1);
    let only = "appendToFile: stdin (-) must be the sole input argument when present";
    assert_fails(run(&["-appendToFile", "-", "one", "/new"]).await, only, 1);
    assert_eq!(run(&["-test", "-z", "/new"]).await, says(""), "an empty file is made before that is noticed");
    // Nobody makes files there; root is told something else.
    let why =
        if nix::unistd::geteuid().is_root() { "No such file or directory" } else { "Permission denied" };
    assert_fails(run(&["-get", "/f", "/proc/x"]).await, &format!("get: /proc/x._COPYING_ ({why})"), 1);
    let refused = "mkdir: `file:///proc/x': Input/output error";
    assert_fails(run(&["-mkdir", "file:///proc/x"]).await, refused, 1);
    assert_fails(
        run(&["-rm", "file:///proc/version"]).await,
        "rm: `file:///proc/version': Input/output error",
        1,
    );
    std::os::unix::fs::symlink("nowhere", folder.path().join("d/dangling")).unwrap();
    let full = format!("moveFromLocal: Directory {here}/d is not empty");
    assert_fails(run(&["-moveFromLocal", "d", "/moved"]).await, &full, 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_checksums_go_with_what_they_were_of() {
    let cluster = cluster().await;
    let folder = folder(&[("one", "1"), ("merged", "old"), ("made", ""), ("put", "old")]);
    let here = folder.path().to_str().unwrap();
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    store(&cluster, "/f", "text").await;
    let made = format!("file://{here}/made");
    let put = format!("file://{here}/put");
    for (name, line) in [
        ("merged", &["-getmerge", "/f", "merged"][..]),
        ("made", &["-touchz", &made]),
        ("put", &["-put", "-f", "-d", "one", &put]),
    ] {
        let sums = folder.path().join(format!(".{name}.crc"));
        std::fs::write(&sums, "crc\0 of what was there").unwrap();
        assert_eq!(run(line).await, says(""), "{line:?}");
        assert!(!sums.exists(), "{line:?}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_ls_and_count() {
    let cluster = cluster().await;
    let folder = folder(&[("one", "1"), ("g/a\u{200b}\u{ad}\u{e000}", "")]);
    let here = folder.path().to_str().unwrap();
    let run = async |args: &[&str]| fs_in(&cluster, folder.path(), "", args).await;
    let files: Vec<String> = (0..101).map(|at| format!("/d/{at:03}")).collect();
    let touch: Vec<&str> = ["-touchz"].into_iter().chain(files.iter().map(String::as_str)).collect();
    assert_eq!(run(&["-mkdir", "/d"]).await, says(""));
    assert_eq!(run(&touch).await, says(""));
    assert_eq!(run(&["-chown", "someone-with-a-long-name", "/d/100"]).await, says(""));
    let wide = async |args: &[&str]| {
        let (out, error, code) = run(args).await;
        assert_eq!((error.as_str(), code), ("", 0));
        let wide = |line: &str| line.contains(&format!("{} supergroup", " ".repeat(10)));
        out.lines().filter(|line| line.starts_with('-') && wide(line)).count()
    };
    assert_eq!(wide(&["-ls", "/d"]).await, 100);
    assert_eq!(wide(&["-ls", "-R", "/d"]).await, 0, "the last one begins another group");
    assert_eq!(wide(&["-ls", "-R", "-S", "/d"]).await, 100, "what is sorted is one group");
    let (plain, erasure) = (run(&["-ls", "-d", "/d"]).await, run(&["-ls", "-e", "-d", "/d"]).await);
    assert_eq!(plain, erasure, "no column without a policy");
    assert_eq!(run(&["-put", "g", "/g"]).await, says(""));
    assert!(run(&["-ls", "-q", "/g"]).await.0.ends_with(" /g/a???\n"));
    assert_eq!(run(&["-ls", "-q", "-C", "/g"]).await, says("/g/a\u{200b}\u{ad}\u{e000}\n"));
    let note = "q or u option is given, the -x option is ignored.\n";
    let quota = "        none             inf            none             inf ";
    assert_eq!(run(&["-count", "-u", "-x", "/d"]).await, says(&format!("{note}{quota}/d\n")));
    // Whatever else is shown, -e and -s add their columns.
    let more = format!("{:>20} {:>18} {:>24} {:>24} {:>28} ", "EC:", 0, 0, 0, 0);
    let (titles, _, _) = run(&["-count", "-q", "-u", "-v", "-e", "-s", "/d"]).await;
    let titles: Vec<&str> = titles.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(titles[2..5], ["SPACE_QUOTA", "REM_SPACE_QUOTA", "ERASURECODING_POLICY"]);
    assert_eq!(run(&["-count", "-u", "-e", "-s", "/d"]).await, says(&format!("{quota}{more}/d\n")));
    let of_memory = format!("{:>14} {:>18} ", "none", "inf");
    let memory = ["-count", "-q", "-t", "ram_disk", "-e", "-s", "/d"];
    assert_eq!(run(&memory).await, says(&format!("{of_memory}{more}/d\n")));
    let local = format!("file://{here}/one");
    assert_eq!(run(&["-count", "-u", &local]).await, says(&format!("{quota}{local}\n")));
    assert_eq!(
        run(&["-setrep", "-w", "1", &local]).await,
        says(&format!("Replication 1 set: {local}\nWaiting for {local} ... done\n"))
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_as_java_takes_them() {
    let cluster = cluster().await;
    let folder = folder(&[("one", "1")]);
    let run =
        async |line: &str| fs_in(&cluster, folder.path(), "", &line.split(' ').collect::<Vec<_>>()).await;
    store(&cluster, "/f", "text").await;
    for verb in ["put -q x one", "get -q x /f", "cp -q x /f"] {
        let name = verb.split(' ').next().unwrap();
        assert_fails(run(&format!("-{verb} /g")).await, &format!("-{name}: For input string: \"x\""), 255);
    }
    for wrong in ["-name [a", "-a", "-name f -a", "-a -name f", "-name"] {
        assert_eq!(run(&format!("-find /f {wrong}")).await.2, 255, "{wrong}");
    }
    assert_eq!(run("-find /f -name f ) -name zzz").await, says("/f\n"));
    assert_eq!(run("-find /f -name f -a -print").await, says("/f\n"));
    assert_eq!(run("-touch -t 20201301:000000x /f").await, says(""));
    assert_fails(run("-touch -t").await, "-touch: option -t requires 1 argument.", 255);
    let (out, error, code) = run("-rmr -skipTrash /f").await;
    assert_eq!((out.as_str(), code), ("Deleted /f\n", 0));
    assert_eq!(error, "rmr: DEPRECATED: Please use '-rm -r' instead.\n");
    let (_, error, code) = run("-setrep 99999 /g").await;
    assert!(error.contains("\n-setrep: Value out of range. Value:\"99999\" Radix:10\n"), "{error}");
    assert_eq!(code, 255);
    assert_eq!(run("-expunge x").await, says(""));
    assert_fails(run("-expunge a b c").await, "-expunge: Too many arguments: expected 2 but got 3", 255);
    let too_few = "-appendToFile: Not enough arguments: expected 2 but got 1";
    assert_fails(run("-appendToFile -n one").await, too_few, 255);
    assert_fails(run("-createSnapshot /f a b").await, "-createSnapshot: Too many arguments.", 255);
    assert_fails(run("-deleteSnapshot /f").await, "-deleteSnapshot: Incorrect number of arguments.", 255);
    assert_eq!(run("-moveFromLocal -q 5 one /moved").await, says(""));
    let (out, error, code) = run("ls /f").await;
    let lines: Vec<&str> = error.lines().take(2).collect();
    assert_eq!((out.as_str(), code), ("", 255));
    assert_eq!(lines, ["ls: Unknown command", "Did you mean -ls?  This command begins with a dash."]);
    store(&cluster, "/f", "text").await;
    assert_eq!(run("-tail -s x /f").await, says("text"), "nothing is waited for");
    cluster.shutdown().await;
}
