//! The command line as a whole: help, configuration errors, exit codes.

use crate::servers::said;

#[tokio::test]
async fn help_has_examples_and_every_command() {
    let (help, _, code) = said(&["--help"]).await;
    assert_eq!(code, 0);
    for word in ["demo", "local", "namenode", "datanode", "fs", "admin", "bench", "completions", "Examples:"]
    {
        assert!(help.contains(word), "{word} is missing from:\n{help}");
    }
}

#[tokio::test]
async fn an_unknown_key_in_our_file_names_line_and_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mobula.toml");
    std::fs::write(&file, "[namenode]\nlisten = \"127.0.0.1:0\"\n[datanode]\nheartbeet = \"1s\"\n").unwrap();
    let (_, error, code) = said(&["--config", file.to_str().unwrap(), "namenode", "--dir", "unused"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("mobula.toml:4") && error.contains("datanode.heartbeat"), "{error}");
}

#[tokio::test]
async fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let (script, _, code) = said(&["completions", shell]).await;
        assert_eq!(code, 0);
        assert!(script.contains("mobula"), "{shell}");
    }
}

/// `mobula keys | head -1` is no failure.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for words in [&["keys"][..], &["completions", "zsh"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output =
            std::process::Command::new(crate::servers::binary()).args(words).stdout(writer).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "{words:?}: {error}");
    }
}

#[tokio::test]
async fn an_error_tells_its_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (_, error, code) = said(&["local", "--port", &port, "--dir", folder.path().to_str().unwrap()]).await;
    assert_eq!(code, 1);
    assert!(error.contains(&port), "{error}");
    assert_eq!(error.matches("Address already in use").count(), 1, "{error}");
}

#[tokio::test]
async fn servers_need_a_folder_and_say_which_key() {
    let (_, error, code) = said(&["namenode", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("dfs.namenode.name.dir"), "{error}");
    let (_, error, code) = said(&["datanode", "--namenode", "127.0.0.1:1"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("dfs.datanode.data.dir"), "{error}");
}

/// The README's first command, with a small file: every act, equal bytes, nothing left.
#[tokio::test]
async fn the_demo_plays_to_its_end_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let temp = folder.path().join("tmp");
    std::fs::create_dir(&temp).unwrap();
    let file = folder.path().join("file.bin");
    let bytes: Vec<u8> = (0..5_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, bytes).unwrap();
    let output = tokio::process::Command::new(crate::servers::binary())
        .args(["demo", file.to_str().unwrap()])
        .env("TMPDIR", &temp)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}\n{error}");
    for word in ["Start:", "Store", "Kill", "healed:", "version 2, after", "read again", "Summary", "removed"]
    {
        assert!(text.contains(word), "{word} is missing from:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "plain lines in a pipe:\n{text}");
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0);
}

/// Somebody ends it, and it was to leave its cluster running: neither processes nor folders stay.
#[tokio::test]
async fn a_demo_that_is_interrupted_leaves_nothing() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let temp = folder.path().join("tmp");
    std::fs::create_dir(&temp).unwrap();
    // What this machine has configured is for other clusters.
    let site =
        "<configuration><property><name>dfs.datanode.ipc.address</name><value>127.0.0.1:1</value></property>";
    std::fs::write(folder.path().join("hdfs-site.xml"), format!("{site}</configuration>")).unwrap();
    let mut child = tokio::process::Command::new(crate::servers::binary())
        .args(["demo", "--keep", folder.path().join("hdfs-site.xml").to_str().unwrap()])
        .env("TMPDIR", &temp)
        .env("HADOOP_CONF_DIR", folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("the second act begins").contains("Store") {}
    let pid = nix::unistd::Pid::from_raw(child.id().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("interrupted; everything was taken down"), "{error}");
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0);
    let of_ours = |command: Vec<u8>| String::from_utf8_lossy(&command).contains(temp.to_str().unwrap());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let processes = std::fs::read_dir("/proc").unwrap();
        let commands = processes.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
        if !commands.into_iter().any(of_ours) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "a server runs on");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
