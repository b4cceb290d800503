//! `mobula local`: starts fast, keeps what it should, names what stands in its way.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::servers::{Process, said};

fn local<'a>(dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["local", "--port", "0", "--dir", dir];
    args.extend(more);
    args
}

async fn fs(uri: &str, args: &[&str]) -> (String, String, i32) {
    let mut words = vec!["fs", "-fs", uri];
    words.extend(args);
    said(&words).await
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart_with_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let dir = dir.to_str().unwrap();
    let log = folder.path().join("log");
    let file = folder.path().join("file");
    std::fs::write(&file, "kept\n").unwrap();
    for (signal, write) in [(Signal::SIGINT, true), (Signal::SIGKILL, false), (Signal::SIGTERM, false)] {
        let mut process = Process::start(&local(dir, &[]), &log).await;
        let uri = process.ready()[0].to_string();
        if write {
            assert_eq!(
                fs(&uri, &["-put", file.to_str().unwrap(), "/kept"]).await,
                (String::new(), String::new(), 0)
            );
        }
        assert_eq!(fs(&uri, &["-cat", "/kept"]).await, ("kept\n".into(), String::new(), 0));
        let code = process.signal(signal).await;
        assert_eq!(code, if signal == Signal::SIGKILL { None } else { Some(0) });
    }
}

#[test]
fn without_a_folder_nothing_stays() {
    [false, true].into_iter().for_each(nothing_stays);
}

fn nothing_stays(hangs_up: bool) {
    let folder = tempfile::tempdir().unwrap();
    let temp = folder.path().join("tmp");
    std::fs::create_dir(&temp).unwrap();
    let child = std::process::Command::new(crate::servers::binary())
        .args(["local", "--port", "0", "--datanodes", "1", "--until-stdin-closes"])
        .env("TMPDIR", &temp)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = child;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert!(line.starts_with("ready hdfs://127.0.0.1:"), "{line}");
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 1);
    // Whoever started it is gone, or its terminal: so it goes, and takes its folder with it.
    if hangs_up {
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    }
    // As `nohup` starts programs: those stay when their terminal goes.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let outlives = u64::from_str_radix(ignored, 16).unwrap() & 1 != 0;
    if !hangs_up || outlives {
        assert_eq!(child.try_wait().unwrap(), None);
        drop(child.stdin.take());
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (_, error, code) = said(&["local", "--port", &port]).await;
    assert_eq!(code, 1);
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[tokio::test]
async fn a_folder_in_use_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let dir = dir.to_str().unwrap();
    let log = folder.path().join("log");
    let mut first = Process::start(&local(dir, &["--datanodes", "1"]), &log).await;
    let (_, error, code) = said(&local(dir, &["--datanodes", "1"])).await;
    assert_eq!(code, 1);
    assert!(error.contains(dir) && error.contains("in use"), "{error}");
    let uri = first.ready()[0].to_string();
    assert_eq!(fs(&uri, &["-mkdir", "/still-works"]).await.2, 0);
    first.orphan().await;
}

#[tokio::test]
async fn a_folder_with_other_things_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("namenode");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("thesis.tex"), "years of work").unwrap();
    let (_, error, code) = said(&local(folder.path().to_str().unwrap(), &[])).await;
    assert_eq!(code, 1);
    assert!(error.contains("thesis.tex"), "{error}");
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["thesis.tex"]);
}

#[tokio::test]
async fn datanode_folders_of_another_cluster_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    for dir in [&a, &b] {
        let mut process = Process::start(&local(dir.to_str().unwrap(), &["--datanodes", "1"]), &log).await;
        process.orphan().await;
    }
    std::fs::remove_dir_all(a.join("datanode-0")).unwrap();
    std::fs::rename(b.join("datanode-0"), a.join("datanode-0")).unwrap();
    let args = local(a.to_str().unwrap(), &["--datanodes", "1"]);
    let (_, error, code) =
        tokio::time::timeout(Duration::from_secs(60), said(&args)).await.expect("it gives up");
    assert_eq!(code, 1);
    assert!(error.contains("datanode-0"), "{error}");
}

#[tokio::test]
async fn hadoops_configuration_files_are_written_but_nobody_elses_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf");
    std::fs::create_dir(&conf).unwrap();
    let before = "<!-- Written by `mobula local --write-config`, anew at each start. --><configuration/>";
    std::fs::write(conf.join("hdfs-site.xml"), before).unwrap();
    let conf_text = conf.to_str().unwrap();
    let args = ["local", "--port", "0", "--datanodes", "2", "--write-config", conf_text];
    let mut process = Process::start(&args, &folder.path().join("log")).await;
    let uri = process.ready()[0].to_string();
    let core = std::fs::read_to_string(conf.join("core-site.xml")).unwrap();
    assert!(core.contains(&uri), "{core}");
    let hdfs = std::fs::read_to_string(conf.join("hdfs-site.xml")).unwrap();
    for text in [&core, &hdfs] {
        let (comment, _) = text.split_once("<!--").unwrap().1.split_once("-->").unwrap();
        assert!(!comment.contains("--"), "no reader of XML takes {comment:?}");
    }
    assert!(hdfs.contains("<name>dfs.replication</name>"), "{hdfs}");
    let (out, error, code) = said(&["--conf", conf_text, "fs", "-mkdir", "/by-configuration"]).await;
    assert_eq!((out.as_str(), error.as_str(), code), ("", "", 0));
    // Where fsck is asked, too.
    let (out, error, code) = said(&["--conf", conf_text, "admin", "fsck", "/by-configuration"]).await;
    assert!(out.ends_with("The filesystem under path '/by-configuration' is HEALTHY\n"), "{out}");
    assert_eq!((error.as_str(), code), ("", 0));
    process.orphan().await;
    for others in [&b"<configuration/>"[..], b"<!-- f\xfcr alle --><configuration/>"] {
        std::fs::write(conf.join("core-site.xml"), others).unwrap();
        let (_, error, code) = said(&args).await;
        assert_eq!(code, 1);
        assert!(error.contains("core-site.xml is not ours"), "{error}");
        assert_eq!(std::fs::read(conf.join("core-site.xml")).unwrap(), others);
    }
}

/// What files say counts where no flag says otherwise; and nobody else's account reads what is stored.
#[tokio::test]
async fn files_count_and_folders_are_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("mobula.toml"), "[client]\nreplication = 2\nblock_size = \"64m\"\n").unwrap();
    let (toml, dir, conf) = (path("mobula.toml"), path("cluster"), path("conf"));
    let args = [&["--config", &toml][..], &local(&dir, &["--write-config", &conf])].concat();
    let mut process = Process::start(&args, &folder.path().join("log")).await;
    let written = std::fs::read_to_string(path("conf/hdfs-site.xml")).unwrap();
    assert!(written.contains("<name>dfs.replication</name><value>2<"), "{written}");
    assert!(written.contains("<name>dfs.blocksize</name><value>67108864<"), "{written}");
    for name in ["cluster/namenode", "cluster/datanode-0", "cluster/datanode-0/current"] {
        let mode = std::fs::metadata(path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    process.orphan().await;
}

#[tokio::test]
async fn a_server_whose_claim_nobody_renews_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (claim, ready, log) = (path("claim"), path("ready"), path("log"));
    std::fs::write(&claim, "").unwrap();
    let more = ["--claim", &claim, "--claim-limit", "3s", "--ready-file", &ready, "--log-file", &log];
    let mut process = Process::start(
        &[&local(&path("cluster"), &more)[..], &["--log", "info"]].concat(),
        &folder.path().join("error"),
    )
    .await;
    let text = std::fs::read_to_string(&ready).unwrap();
    assert_eq!(text, format!("ready {}\npid {}\n", process.ready()[0], process.pid()));
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        std::fs::write(&claim, "").unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(process.is_alive(), "it ended though it was claimed");
    }
    assert_eq!(process.wait().await, Some(0));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("not wanted any more"), "{logged}");
    assert_eq!(std::fs::read_to_string(folder.path().join("error")).unwrap(), "");
}
