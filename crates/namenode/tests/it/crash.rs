//! Kills, failing disks, and folders of others.

use std::io::ErrorKind;

use mobula_disk::Open;
use mobula_disk::fake::{CallKind, CrashDisk, Loss};
use mobula_namenode::{NameNode, NamenodeError};
use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_rpc::CallError;

use crate::fixture::*;

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_and_a_repetition_gets_the_first_answer() {
    let mut fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.mkdirs("/a").await;
    let (create_id, rename_id) = (client.0.next_call_id(), client.0.next_call_id());
    let created: hdfs::CreateResponseProto =
        client.again("create", &create("/f", "w1"), create_id).await.unwrap();
    let renamed: hdfs::RenameResponseProto =
        client.again("rename", &rename("/a", "/b"), rename_id).await.unwrap();
    assert!(renamed.result);

    let port = fixture.namenode().rpc_addr().port();
    fixture.config.listen.set_port(port);
    fixture.kill_and_restart().await;
    let again: hdfs::CreateResponseProto =
        client.again("create", &create("/f", "w1"), create_id).await.unwrap();
    assert_eq!(again.fs.unwrap().file_id, created.fs.unwrap().file_id, "not AlreadyBeingCreated");
    let again: hdfs::RenameResponseProto =
        client.again("rename", &rename("/a", "/b"), rename_id).await.unwrap();
    assert!(again.result, "not false for a source that is gone");
    assert_eq!(client.names("/").await, ["b", "f"]);
    assert!(client.complete("/f", None).await);
}

#[tokio::test]
async fn an_orderly_end_and_many_restarts() {
    let mut fixture = Fixture::start().await;
    let format = fixture.namenode().service().format().clone();
    for round in 0..3 {
        fixture.client("hdfs").mkdirs(&format!("/d{round}")).await;
        fixture.namenode.take().unwrap().shutdown().await;
        fixture.restart().await.unwrap();
    }
    assert_eq!(fixture.client("hdfs").names("/").await, ["d0", "d1", "d2"]);
    assert_eq!(*fixture.namenode().service().format(), format, "formatted once");
}

#[tokio::test]
async fn changed_rules_are_in_force_after_a_restart() {
    let mut fixture = Fixture::start().await;
    fixture.namenode.take().unwrap().shutdown().await;
    fixture.config.rules.name_bytes_max = 4;
    fixture.restart().await.unwrap();
    let (class, _) = fixture.client("hdfs").refused("mkdirs", &mkdirs("/12345")).await;
    assert_eq!(class, "FSLimitException$PathComponentTooLongException");
}

#[tokio::test]
async fn two_namenodes_on_one_folder_are_one_too_many() {
    let fixture = Fixture::start().await;
    let second = NameNode::start(Env::real(), fixture.disk.process(), fixture.config.clone()).await;
    let error = second.unwrap_err();
    assert!(matches!(error, NamenodeError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("/name"), "{error}");
    assert!(fixture.client("hdfs").mkdirs("/still-serves").await);
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_is_damaged() {
    let fixture = Fixture::start().await;
    let mut config = config();
    config.listen = fixture.namenode().rpc_addr();
    config.name_dir = "/other".into();
    let error = NameNode::start(Env::real(), fixture.disk.process(), config.clone()).await.unwrap_err();
    assert!(matches!(error, NamenodeError::Listen(_)), "{error}");
    config.listen.set_port(0);
    NameNode::start(Env::real(), fixture.disk.process(), config).await.unwrap();
}

#[tokio::test]
async fn a_folder_of_something_else_is_left_alone() {
    let fixture = Fixture::start().await;
    let disk = fixture.disk.process();
    disk.create_folder("/photos".as_ref()).unwrap();
    disk.open("/photos/cat.jpg".as_ref(), Open::CreateNew).unwrap();
    let mut other = config();
    other.name_dir = "/photos".into();
    let error = NameNode::start(Env::real(), fixture.disk.process(), other).await.unwrap_err();
    assert!(error.to_string().contains("cat.jpg"), "{error}");
    assert_eq!(disk.list("/photos".as_ref()).unwrap().len(), 1);
}

#[tokio::test]
async fn a_failed_sync_is_the_end() {
    let mut fixture = Fixture::start().await;
    let client = fixture.client("hdfs");
    client.mkdirs("/before").await;
    fixture.disk.set_fault(Some(Box::new(|call| (call.kind == CallKind::Sync).then_some(ErrorKind::Other))));
    let result = client.0.call::<_, hdfs::MkdirsResponseProto>("mkdirs", &mkdirs("/lost")).await;
    assert!(result.is_err(), "not acknowledged");
    let reason = tokio::time::timeout(LIMIT, fixture.namenode().stopped()).await.unwrap();
    assert!(matches!(reason, NamenodeError::Log(_)), "{reason}");
    fixture.disk.set_fault(None);
    for path in ["/later", "/later2"] {
        let result = client.0.call::<_, hdfs::MkdirsResponseProto>("mkdirs", &mkdirs(path)).await;
        assert!(matches!(result, Err(CallError::Remote(_) | CallError::Lost { .. })), "{result:?}");
    }
    fixture.namenode = None;
    fixture.disk.lose_power(Loss::Lost);
    fixture.restart().await.unwrap();
    let names = fixture.client("hdfs").names("/").await;
    assert_eq!(names, ["before"]);
}

#[tokio::test]
async fn acknowledged_changes_survive_power_loss() {
    let mut fixture = Fixture::start().await;
    for round in 0..5 {
        let client = fixture.client("hdfs");
        for i in 0..20 {
            client.mkdirs(&format!("/r{round}/{i:02}")).await;
        }
        fixture.namenode = None;
        fixture.disk.crash(mobula_disk::fake::Crash::PowerLoss);
        fixture.restart().await.unwrap();
        let client = fixture.client("hdfs");
        assert_eq!(client.names(&format!("/r{round}")).await.len(), 20);
    }
}

/// The power fails at any change of the disk during a first start: the tables, half made, were refused for
/// good as no tables.
#[tokio::test]
async fn a_first_start_cut_short_anywhere_can_be_begun_again() {
    let disk = CrashDisk::new(1);
    disk.record();
    let mut fixture = Fixture::on(disk.clone()).await;
    fixture.client("hdfs").mkdirs("/first").await;
    let acknowledged = disk.changes();
    fixture.namenode = None;
    let recording = disk.recorded();
    let mut images = 0;
    for image in recording.images(2) {
        let what = format!("{image:?}");
        let again = Fixture::on(image.disk).await;
        let client = again.client("hdfs");
        if image.changes >= acknowledged {
            assert_eq!(client.names("/").await, ["first"], "{what}");
        }
        assert!(client.mkdirs("/second").await, "{what}");
        images += 1;
    }
    println!("{images} crash images of a first start, {} changes of the disk", recording.len());
    assert!(images > 200, "{images} images");
}

/// A first start that is killed anywhere leaves names that no disk has yet. The next one makes them durable, however
/// much is there already: else the power takes the log with its folder, and all that was acknowledged since.
#[tokio::test]
async fn what_follows_a_first_start_that_was_killed_survives_power_loss() {
    let disk = CrashDisk::new(1);
    disk.record();
    let mut fixture = Fixture::on(disk.clone()).await;
    fixture.namenode = None;
    let recording = disk.recorded();
    let mut kills = 0;
    for (changes, disk) in recording.kills() {
        let mut again = Fixture::on(disk.clone()).await;
        assert!(again.client("hdfs").mkdirs("/first").await, "killed after {changes} changes");
        disk.lose_power(Loss::Lost);
        again.namenode = None;
        again.restart().await.unwrap_or_else(|error| panic!("killed after {changes} changes: {error}"));
        assert_eq!(again.client("hdfs").names("/").await, ["first"], "killed after {changes} changes");
        kills += 1;
    }
    assert!(kills > 40, "{kills} kills");
}

/// The folder of the log is another one than before, or empty: somebody removed it, or its disk is not mounted. Also
/// a NameNode that has never synced its tables since does not begin anew as if nothing had been.
#[tokio::test]
async fn a_log_that_is_gone_is_no_first_start() {
    let mut fixture = Fixture::start().await;
    fixture.client("hdfs").mkdirs("/first").await;
    // As a kill, not in order: that would sync the tables.
    fixture.disk.crash(mobula_disk::Crash::Kill);
    fixture.namenode = None;
    let process = fixture.disk.process();
    process.rename("/name/log".as_ref(), "/elsewhere".as_ref()).unwrap();
    let error = fixture.restart().await.expect_err("the log is gone");
    assert!(error.to_string().contains("another one than before"), "{error}");
    fixture.disk.crash(mobula_disk::Crash::Kill);
    let process = fixture.disk.process();
    process.remove_folder("/name/log".as_ref()).unwrap();
    process.rename("/elsewhere".as_ref(), "/name/log".as_ref()).unwrap();
    fixture.restart().await.unwrap();
    assert_eq!(fixture.client("hdfs").names("/").await, ["first"]);
}
