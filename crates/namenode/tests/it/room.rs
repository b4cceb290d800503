//! A NameNode whose disk gets full: safe mode in place of an end, and back out of it.

use std::time::Duration;

use mobula_disk::fake::CrashDisk;
use mobula_namenode::NamenodeConfig;
use mobula_proto::hdfs;
use tokio::time::{Instant, sleep};

use crate::fixture::{Client, Fixture, LIMIT, create, mkdirs};

const KIB: u64 = 1 << 10;

/// So much is to stay free. A segment of the log, and what the tables grow by, fit in many times.
const RESERVED: u64 = 1_024 * KIB;

fn small_log(config: &mut NamenodeConfig) {
    config.room_reserved = RESERVED;
    config.listing_max = 100_000;
    config.log_segment_bytes = 64 * KIB;
    config.sync_log_bytes = 256 * KIB;
    config.sync_commands = 512;
}

/// Leaves so many bytes free.
fn leave(disk: &CrashDisk, free: u64) {
    let space = disk.process().space("/".as_ref()).unwrap();
    disk.set_capacity(Some(space.capacity - space.available + free));
}

async fn safe_mode(client: &Client, action: hdfs::SafeModeActionProto) -> bool {
    let request = hdfs::SetSafeModeRequestProto { action: action as i32, checked: None };
    client.call::<_, hdfs::SetSafeModeResponseProto>("setSafeMode", &request).await.result
}

async fn is_safe(client: &Client) -> bool {
    safe_mode(client, hdfs::SafeModeActionProto::SafemodeGet).await
}

/// Waits until safe mode is on, or off.
async fn until_safe(client: &Client, on: bool) {
    let deadline = Instant::now() + LIMIT;
    while is_safe(client).await != on {
        assert!(Instant::now() < deadline, "safe mode did not become {on}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What is said to who wants a directory.
async fn said(client: &Client) -> String {
    let refused = client.0.call::<_, hdfs::MkdirsResponseProto>("mkdirs", &mkdirs("/a")).await;
    refused.unwrap_err().to_string()
}

#[tokio::test]
async fn a_disk_that_is_low_on_room_is_safe_mode_until_there_is_room() {
    let fixture = Fixture::with(|config| {
        small_log(config);
        config.room_check = Duration::from_millis(20);
    })
    .await;
    let (hdfs, mut node) = (fixture.client("hdfs"), fixture.datanode("n1").await);
    assert!(hdfs.mkdirs("/before").await);
    let made: hdfs::CreateResponseProto =
        hdfs.again("create", &create("/before/f", "w1"), 7_001).await.unwrap();
    leave(&fixture.disk, RESERVED - 1);
    until_safe(&hdfs, true).await;

    let words = "Cannot create directory /a. Name node is in safe mode.\nResources are low on NN. Please add or free up \
                 more resources. NOTE:  If you turn off safe mode before adding resources, the NN will immediately \
                 return to safe mode.  NamenodeHostName:127.0.0.1";
    assert!(said(&hdfs).await.contains(words), "{}", said(&hdfs).await);
    // What is read, and DataNodes, are served.
    assert!(hdfs.status("/before").await.is_some() && hdfs.names("/").await == ["before"]);
    node.beat().await;
    node.report(&[]).await;
    let again = hdfs.again("create", &create("/before/f", "w1"), 7_001).await.unwrap();
    assert_eq!(made, again, "it was acknowledged");

    // An administrator's word holds until the next look, also where safe mode was theirs before.
    safe_mode(&hdfs, hdfs::SafeModeActionProto::SafemodeLeave).await;
    until_safe(&hdfs, true).await;
    assert!(safe_mode(&hdfs, hdfs::SafeModeActionProto::SafemodeEnter).await);
    let deadline = Instant::now() + LIMIT;
    while !said(&hdfs).await.contains(words) {
        assert!(Instant::now() < deadline, "nobody looked again");
        sleep(Duration::from_millis(5)).await;
    }

    fixture.disk.set_capacity(None);
    until_safe(&hdfs, false).await;
    assert!(hdfs.mkdirs("/after").await);
    assert_eq!(hdfs.names("/").await, ["after", "before"]);
    // It has told what it has, and has missed nothing.
    let orders = node.beat().await.cmds;
    assert!(orders.iter().all(|order| order.register_cmd.is_none()), "it is to report again");
}

/// The reserve alone does not end it, nor lets it anybody write: the next batch would bring it back.
#[tokio::test]
async fn safe_mode_ends_with_room_to_spare() {
    let fixture = Fixture::with(|config| {
        small_log(config);
        config.room_check = Duration::from_millis(5);
    })
    .await;
    let hdfs = fixture.client("hdfs");
    leave(&fixture.disk, RESERVED - 1);
    until_safe(&hdfs, true).await;
    leave(&fixture.disk, RESERVED + 2 * 64 * KIB - 1);
    let before = fixture.disk.calls();
    let deadline = Instant::now() + LIMIT;
    while fixture.disk.calls() < before + 10 {
        assert!(Instant::now() < deadline, "nobody looks");
        assert!(said(&hdfs).await.contains("Resources are low on NN."));
        sleep(Duration::from_millis(5)).await;
    }
    assert!(is_safe(&hdfs).await);
    leave(&fixture.disk, RESERVED + 2 * 64 * KIB);
    until_safe(&hdfs, false).await;
}

/// An administrator's safe mode does not end because there is room.
#[tokio::test]
async fn room_ends_no_administrators_safe_mode() {
    let fixture = Fixture::with(|config| config.room_check = Duration::from_millis(5)).await;
    let hdfs = fixture.client("hdfs");
    assert!(safe_mode(&hdfs, hdfs::SafeModeActionProto::SafemodeEnter).await);
    let looks = || fixture.disk.calls();
    let before = looks();
    let deadline = Instant::now() + LIMIT;
    while looks() < before + 10 {
        assert!(Instant::now() < deadline, "nobody looks");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(is_safe(&hdfs).await);
}

/// Nobody looks but those who write: they stop before the disk is full, and all that was acknowledged is there.
#[tokio::test]
async fn writers_stop_before_the_disk_is_full() {
    let mut fixture = Fixture::with(|config| {
        small_log(config);
        config.room_check = Duration::from_secs(3_600);
    })
    .await;
    let hdfs = fixture.client("hdfs");
    leave(&fixture.disk, RESERVED + 512 * KIB);
    let (mut made, deadline) = (0, Instant::now() + LIMIT);
    let name = "n".repeat(200);
    let refused = loop {
        assert!(Instant::now() < deadline, "{made} directories do not fill the disk");
        let path = format!("/{name}{made}");
        match hdfs.0.call::<_, hdfs::MkdirsResponseProto>("mkdirs", &mkdirs(&path)).await {
            Ok(_) => made += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(made > 0 && refused.contains("Resources are low on NN."), "{made}: {refused}");
    let left = fixture.disk.process().space("/".as_ref()).unwrap().available;
    // The tables' file grows by as much as it has, at once; on this disk that takes all of it.
    assert!(left >= RESERVED / 4, "{left} bytes are left");
    assert_eq!(hdfs.names("/").await.len(), made);

    // It starts again on the full disk, and is in safe mode before it serves.
    fixture.kill_and_restart().await;
    let hdfs = fixture.client("hdfs");
    assert!(is_safe(&hdfs).await);
    assert_eq!(hdfs.names("/").await.len(), made);
    assert_eq!(hdfs.refused("mkdirs", &mkdirs("/more")).await.0, "SafeModeException");
}
