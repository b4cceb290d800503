//! Connections that speak in another's name.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use mobula_namenode::impersonation::{Hosts, Impersonation, Names, Proxy};
use mobula_namenode::{GroupDirectory, GroupMapping};
use mobula_proto::hdfs;
use mobula_types::ClientId;
use mobula_wire::remote::class;
use mobula_wire::rpc::{self, CallHeader};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixture::*;

/// oozie may speak for bob, and for alice's group, from here; hue for everybody, from elsewhere.
fn rules() -> Impersonation {
    let hosts = |list: &str| Hosts::parse(list, |_| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]).unwrap();
    let oozie =
        Proxy { users: Names::parse("bob"), groups: Names::parse("staff"), hosts: hosts("here,10.0.0.0/8") };
    let hue = Proxy { users: Names::parse("*"), groups: Names::default(), hosts: hosts("10.0.0.1") };
    Impersonation([("oozie".to_owned(), oozie), ("hue".to_owned(), hue)].into())
}

/// A connection of `real` for `user`, which has asked for a directory in the same breath.
async fn ask(fixture: &Fixture, user: &str, real: &str, path: &str) -> TcpStream {
    let mut bytes = BytesMut::new();
    rpc::encode_preamble(&mut bytes);
    let client_id = ClientId([7; 16]);
    rpc::encode_context(client_id, user, Some(real), CLIENT, &mut bytes);
    let header = CallHeader {
        call_id: 1,
        client_id,
        retry_count: 0,
        protocol: CLIENT,
        method: "mkdirs",
        caller_context: None,
    };
    rpc::encode_call(&header, &mkdirs(path), &mut bytes);
    let mut stream = TcpStream::connect(fixture.namenode().rpc_addr()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream
}

/// The first answer.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let length = timeout(LIMIT, stream.read_u32()).await.unwrap().unwrap();
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

fn has(answer: &[u8], words: &str) -> bool {
    answer.windows(words.len()).any(|window| window == words.as_bytes())
}

#[tokio::test]
async fn who_may_speaks_in_anothers_name_and_nobody_else() {
    let fixture = Fixture::with(|config| config.impersonation = rules()).await;
    let hdfs = fixture.client("hdfs");
    let open = hdfs::SetPermissionRequestProto { src: "/".into(), permission: permission(0o777) };
    let _: hdfs::SetPermissionResponseProto = hdfs.call("setPermission", &open).await;
    for (user, path) in [("bob", "/of-bob"), ("alice", "/of-alice")] {
        let answer = answer(&mut ask(&fixture, user, "oozie", path).await).await;
        assert!(!has(&answer, "xception"), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(hdfs.status(path).await.unwrap().owner, user);
    }
    let no = |real: &str, user: &str| format!("User: {real} is not allowed to impersonate {user}");
    for (user, real, words) in [
        ("eve", "oozie", no("oozie", "eve")),
        ("hdfs", "oozie", no("oozie", "hdfs")),
        ("bob", "hdfs", no("hdfs", "bob")),
        ("bob", "hue", "Unauthorized connection for super-user: hue from IP /127.0.0.1".into()),
    ] {
        let mut stream = ask(&fixture, user, real, "/refused").await;
        let answer = answer(&mut stream).await;
        let told = String::from_utf8_lossy(&answer);
        assert!(has(&answer, class::AUTHORIZATION) && has(&answer, &words), "{told}");
        // The connection ends, and its call with it.
        assert_eq!(timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap(), 0);
    }
    assert!(hdfs.status("/refused").await.is_none());
}

#[tokio::test]
async fn by_default_nobody_does() {
    let fixture = Fixture::start().await;
    let answer = answer(&mut ask(&fixture, "bob", "hdfs", "/refused").await).await;
    assert!(has(&answer, "User: hdfs is not allowed to impersonate bob"));
}

/// The directory of users takes its time: the call behind it waits, others do not.
#[tokio::test]
async fn a_call_waits_for_the_groups_that_decide() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let groups = GroupDirectory::new(move |user| match user {
        "alice" => {
            // Ends with the test at the latest.
            _ = wait.lock().recv();
            Some(vec!["staff".into()])
        }
        _ => Some(Vec::new()),
    });
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::on_real_disk(folder.path(), |config| {
        config.impersonation = rules();
        config.groups = GroupMapping::Ask(groups);
        config.rules.permissions = false;
    })
    .await;
    let mut stream = ask(&fixture, "alice", "oozie", "/of-alice").await;
    let hdfs = fixture.client("hdfs");
    assert!(hdfs.mkdirs("/meanwhile").await);
    assert!(timeout(Duration::from_millis(50), stream.readable()).await.is_err(), "it was not answered yet");
    assert!(hdfs.status("/of-alice").await.is_none());
    go_on.send(()).unwrap();
    assert!(!has(&answer(&mut stream).await, "xception"));
    assert!(hdfs.status("/of-alice").await.is_some());
}
