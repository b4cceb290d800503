//! Block recovery: what a replica answers and does, and what a primary decides with real nodes.

use std::time::Duration;

use mobula_datanode::DataNode;
use mobula_net::Env;
use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_rpc::{RpcClient, RpcClientOptions};
use mobula_wire::convert;

use crate::speaker::{Flags, Speaker, block_proto, read_block, write_block};
use crate::stages::{Again, deaf};
use crate::{Bench, bytes, until};

const STAMP: u64 = 1001;

/// A DataNode, as another one asks it.
pub struct Peer(RpcClient);

impl Peer {
    pub fn of(node: &DataNode) -> Peer {
        Peer(RpcClient::new(
            &Env::real(),
            RpcClientOptions {
                address: node.ipc_addr().to_string(),
                user: "anybody".into(),
                protocol: "org.apache.hadoop.hdfs.server.protocol.InterDatanodeProtocol",
                connect_limit: Duration::from_secs(5),
                call_limit: Duration::from_secs(20),
            },
        ))
    }

    /// State, length and stamp of the replica, if there is one.
    pub async fn init(&self, id: u64, stamp: u64, recovery: u64) -> Result<Option<(i32, u64, u64)>, String> {
        let block = order(id, stamp, recovery, &[], None);
        let request = pb::InitReplicaRecoveryRequestProto { block };
        let answer: Result<pb::InitReplicaRecoveryResponseProto, _> =
            self.0.call("initReplicaRecovery", &request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        assert_eq!(answer.replica_found, answer.block.is_some());
        Ok(answer.block.map(|block| (answer.state.unwrap(), block.num_bytes.unwrap(), block.gen_stamp)))
    }

    pub async fn update(
        &self,
        (id, stamp, length): (u64, u64, u64),
        recovery: u64,
        new_length: u64,
        new_id: Option<u64>,
    ) -> Result<String, String> {
        let request = pb::UpdateReplicaUnderRecoveryRequestProto {
            block: block_proto(id, stamp, length),
            recovery_id: recovery,
            new_length,
            new_block_id: new_id,
        };
        let answer: Result<pb::UpdateReplicaUnderRecoveryResponseProto, _> =
            self.0.call("updateReplicaUnderRecovery", &request).await;
        Ok(answer.map_err(|error| error.to_string())?.storage_uuid.unwrap())
    }
}

fn order(
    id: u64,
    stamp: u64,
    recovery: u64,
    nodes: &[pb::DatanodeInfoProto],
    truncate: Option<pb::BlockProto>,
) -> pb::RecoveringBlockProto {
    pb::RecoveringBlockProto {
        new_gen_stamp: recovery,
        block: pb::LocatedBlockProto {
            b: block_proto(id, stamp, 0),
            locs: nodes.to_vec(),
            block_token: convert::empty_token(),
            ..Default::default()
        },
        truncate_block: truncate,
        ..Default::default()
    }
}

fn info(node: &DataNode) -> pb::DatanodeInfoProto {
    let mut info = crate::speaker::target(&node.xfer_addr().to_string());
    info.id.datanode_uuid = node.uuid().to_string();
    info.id.ipc_port = node.ipc_addr().port().into();
    info
}

/// A node that nobody answers for.
fn gone() -> pb::DatanodeInfoProto {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut info = crate::speaker::target(&listener.local_addr().unwrap().to_string());
    info.id.datanode_uuid = "gone".into();
    info.id.ipc_port = info.id.xfer_port;
    info
}

/// A replica of one node: `acked` bytes acknowledged, `sent` on the disk, its writer still there.
pub async fn written(addr: &str, id: u64, data: &[u8], (acked, sent): (usize, usize)) -> Speaker {
    let (deaf, _task) = deaf().await;
    if acked > 0 {
        let mut speaker = Speaker::open(addr, id, &[]).await;
        speaker.packet(0, 0, &data[..acked], Flags::None).await;
        speaker.acked(0, 1).await;
        if acked == sent {
            return speaker;
        }
        drop(speaker);
        let length = acked as u64;
        let again = Again {
            next: STAMP,
            least: length,
            most: length,
            ..Again::new(Stage::PipelineSetupStreamingRecovery)
        };
        let (mut speaker, accepted) = again.ask(addr, id, &[deaf]).await;
        assert!(accepted);
        speaker.packet(1, acked / 512 * 512, &data[acked / 512 * 512..sent], Flags::None).await;
        assert_eq!(read_block(addr, id, 0, sent as u64).await.unwrap(), &data[..sent]);
        return speaker;
    }
    let mut speaker = Speaker::open(addr, id, &[deaf]).await;
    if sent > 0 {
        speaker.packet(0, 0, &data[..sent], Flags::None).await;
        assert_eq!(read_block(addr, id, 0, sent as u64).await.unwrap(), &data[..sent]);
    }
    speaker
}

#[tokio::test]
async fn what_is_written_is_brought_to_what_all_have() {
    let bench = Bench::real(3).await;
    let data = bytes(5000);
    let mut writers = Vec::new();
    for (at, sent) in [(0, 1300), (1, 900), (2, 4000)] {
        writers.push(written(&bench.addr(at), 7, &data, (600, sent)).await);
    }
    let nodes: Vec<_> = bench.nodes.iter().map(info).collect();
    // The NameNode is not ready for it: it is told again.
    bench.namenode.notes.lock().fail_commits = 1;
    bench.namenode.order_recovery(bench.nodes[1].uuid().as_str(), order(7, STAMP, 2000, &nodes, None));
    until(|| bench.namenode.notes.lock().commits.len() == 2).await;
    let commit = bench.namenode.notes.lock().commits[1].clone();
    assert_eq!(
        (commit.new_gen_stamp, commit.new_length, commit.close_file, commit.delete_block),
        (2000, 900, true, false)
    );
    assert_eq!(
        (commit.block.generation_stamp, commit.new_taragets.len(), commit.new_target_storages.len()),
        (STAMP, 3, 3)
    );
    for at in 0..3 {
        assert_eq!(commit.new_taragets[at].datanode_uuid, bench.nodes[at].uuid().to_string());
        assert_eq!(read_block(&bench.addr(at), 7, 0, 900).await.unwrap(), &data[..900]);
        assert!(read_block(&bench.addr(at), 7, 0, 901).await.is_err());
    }
    for writer in &mut writers {
        assert!(writer.closed().await, "a writer is stopped");
    }
    until(|| bench.namenode.received(7) == 3).await;
    let notes = bench.namenode.notes.lock();
    assert!(
        notes
            .changes
            .iter()
            .filter(|change| change.2 == 2)
            .all(|(_, block, _)| block.gen_stamp == 2000 && block.num_bytes == Some(900))
    );
}

#[tokio::test]
async fn a_recovery_that_cannot_decide_waits_and_nothing_is_deleted() {
    let bench = Bench::real(2).await;
    let data = bytes(1000);
    let uuid = bench.nodes[0].uuid();
    let mut nodes: Vec<_> = bench.nodes.iter().map(info).collect();
    nodes.push(gone());
    // Block 1: nobody who answers has it. Block 2: a writer is there, with bytes.
    let _writer = written(&bench.addr(1), 2, &data, (500, 500)).await;
    bench.namenode.order_recovery(uuid.as_str(), order(1, STAMP, 2000, &nodes, None));
    bench.namenode.order_recovery(uuid.as_str(), order(2, STAMP, 2001, &nodes, None));
    until(|| !bench.namenode.notes.lock().commits.is_empty()).await;
    {
        let notes = bench.namenode.notes.lock();
        assert_eq!(notes.commits.len(), 1);
        assert_eq!((notes.commits[0].block.block_id, notes.commits[0].new_length), (2, 500));
    }
    // All answer: now it is certain. So it is if a writer was there that had sent nothing.
    bench.namenode.order_recovery(uuid.as_str(), order(1, STAMP, 2002, &nodes[..2], None));
    until(|| bench.namenode.notes.lock().commits.len() == 2).await;
    let _writer = written(&bench.addr(0), 3, &data, (0, 0)).await;
    bench.namenode.order_recovery(uuid.as_str(), order(3, STAMP, 2003, &nodes, None));
    until(|| bench.namenode.notes.lock().commits.len() == 3).await;
    let notes = bench.namenode.notes.lock();
    for commit in &notes.commits[1..] {
        assert!(
            commit.delete_block
                && commit.close_file
                && commit.new_length == 0
                && commit.new_taragets.is_empty()
        );
    }
}

#[tokio::test]
async fn recovery_ids_only_rise() {
    let bench = Bench::real(1).await;
    let (addr, data) = (bench.addr(0), bytes(1000));
    let peer = Peer::of(&bench.nodes[0]);
    let mut writer = written(&addr, 1, &data, (700, 700)).await;
    // Too new, too old: the writer is left alone.
    assert!(peer.init(1, STAMP + 1, 5000).await.unwrap_err().contains("IOException"));
    assert!(peer.init(1, STAMP, STAMP).await.unwrap_err().contains("IOException"));
    assert_eq!(peer.init(99, STAMP, 5000).await.unwrap(), None);
    writer.packet(1, 512, &data[512..900], Flags::None).await;
    writer.acked(1, 1).await;
    assert_eq!(peer.init(1, STAMP, 5000).await.unwrap(), Some((1, 900, STAMP)));
    assert!(writer.closed().await);
    for old in [4999, 5000] {
        assert!(peer.init(1, STAMP, old).await.unwrap_err().contains("RecoveryInProgressException"));
    }
    assert_eq!(peer.init(1, STAMP, 5001).await.unwrap(), Some((1, 900, STAMP)));
    // It is read as before meanwhile, and nobody writes it.
    assert_eq!(read_block(&addr, 1, 0, 900).await.unwrap(), &data[..900]);
    for stage in [
        Stage::PipelineSetupStreamingRecovery,
        Stage::PipelineSetupAppendRecovery,
        Stage::PipelineCloseRecovery,
    ] {
        let again = Again { least: 900, most: 900, next: 6000, ..Again::new(stage) };
        assert!(!again.ask(&addr, 1, &[]).await.1, "{stage:?}");
    }
    let found = (1, STAMP, 900);
    assert!(peer.update(found, 5000, 800, None).await.is_err(), "an older recovery");
    assert!(peer.update(found, 5002, 800, None).await.is_err(), "one that never began");
    assert!(peer.update(found, 5001, 901, None).await.is_err(), "longer than it is");
    assert!(peer.update((1, STAMP, 899), 5001, 800, None).await.is_err(), "not as it was found");
    peer.update(found, 5001, 800, None).await.unwrap();
    peer.update(found, 5001, 800, None).await.expect("its reply was lost");
    assert!(peer.update(found, 5001, 700, None).await.is_err());
    assert_eq!(read_block(&addr, 1, 0, 800).await.unwrap(), &data[..800]);
    assert!(peer.init(1, STAMP, 5001).await.is_err(), "it has that stamp already");
    // The primary has died after this; another one begins with a higher id.
    assert_eq!(peer.init(1, STAMP, 5002).await.unwrap(), Some((0, 800, 5001)));
    peer.update((1, 5001, 800), 5002, 800, None).await.unwrap();
    assert_eq!(read_block(&addr, 1, 0, 800).await.unwrap(), &data[..800]);
}

#[tokio::test]
async fn a_primary_that_dies_in_the_middle() {
    let bench = Bench::real(3).await;
    let data = bytes(3000);
    let mut writers = Vec::new();
    for (at, sent) in [(0, 2500), (1, 1200), (2, 1800)] {
        writers.push(written(&bench.addr(at), 1, &data, (1000, sent)).await);
    }
    // It had asked all, and had one of them take the length.
    let peers: Vec<Peer> = bench.nodes.iter().map(Peer::of).collect();
    for (peer, length) in peers.iter().zip([2500, 1200, 1800]) {
        assert_eq!(peer.init(1, STAMP, 2000).await.unwrap(), Some((1, length, STAMP)));
    }
    peers[2].update((1, STAMP, 1800), 2000, 1200, None).await.unwrap();
    let nodes: Vec<_> = bench.nodes.iter().map(info).collect();
    bench.namenode.order_recovery(bench.nodes[0].uuid().as_str(), order(1, STAMP, 2001, &nodes, None));
    until(|| !bench.namenode.notes.lock().commits.is_empty()).await;
    let commit = bench.namenode.notes.lock().commits[0].clone();
    assert_eq!((commit.new_length, commit.new_taragets.len()), (1200, 3));
    for at in 0..3 {
        assert_eq!(read_block(&bench.addr(at), 1, 0, 1200).await.unwrap(), &data[..1200]);
    }
}

/// All nodes were restarted with the block open. One has rotten bytes in its middle.
#[tokio::test]
async fn restarted_nodes_keep_the_longest_that_fits_its_checksums() {
    let mut bench = Bench::real(3).await;
    let data = bytes(5000);
    for (at, sent) in [(0, 4000), (1, 3000), (2, 5000)] {
        written(&bench.addr(at), 1, &data, (1000, sent)).await;
    }
    let uuids: Vec<_> = bench.nodes.iter().map(|node| node.uuid().to_string()).collect();
    bench.nodes.clear();
    let rotten = bench.folder.path().join(format!("dn2/current/{}/current/rbw/blk_1", crate::namenode::POOL));
    let mut stored = std::fs::read(&rotten).unwrap();
    stored[2222] ^= 4;
    std::fs::write(&rotten, stored).unwrap();
    for at in 0..3 {
        let node = bench.launch(at, mobula_disk::RealDisk::new(), |_| {}).await;
        bench.nodes.push(node);
    }
    let nodes: Vec<_> = bench.nodes.iter().map(info).collect();
    // Not before all have answered.
    let with_gone = [nodes.clone(), vec![gone()]].concat();
    bench.namenode.order_recovery(&uuids[0], order(1, STAMP, 2000, &with_gone, None));
    let peer = Peer::of(&bench.nodes[2]);
    crate::within(async {
        // Cut at the chunk that does not fit: 4 x 512.
        while !peer.init(1, STAMP, 2000).await.is_err_and(|error| error.contains("InProgress")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    bench.namenode.order_recovery(&uuids[0], order(1, STAMP, 2001, &nodes, None));
    until(|| !bench.namenode.notes.lock().commits.is_empty()).await;
    let commit = bench.namenode.notes.lock().commits[0].clone();
    assert_eq!((commit.new_length, commit.new_taragets.len()), (4000, 1));
    assert_eq!(read_block(&bench.addr(0), 1, 0, 4000).await.unwrap(), &data[..4000]);
}

#[tokio::test]
async fn truncations_in_place_and_into_a_copy() {
    let bench = Bench::real(3).await;
    let data = bytes(3000);
    let nodes: Vec<_> = bench.nodes.iter().map(info).collect();
    let targets = [bench.addr(1), bench.addr(2)];
    for (id, into) in [(1, 1), (2, 9)] {
        write_block(&bench.addr(0), id, &targets, &data, 1024).await;
        let truncate = pb::BlockProto { block_id: into, gen_stamp: 2000 + id, num_bytes: Some(1111) };
        let order = order(id, STAMP, 2000 + id, &nodes, Some(truncate));
        bench.namenode.order_recovery(bench.nodes[2].uuid().as_str(), order);
        until(|| bench.namenode.notes.lock().commits.len() == id as usize).await;
        let commit = bench.namenode.notes.lock().commits[id as usize - 1].clone();
        assert_eq!((commit.block.block_id, commit.new_length, commit.new_taragets.len()), (id, 1111, 3));
        for at in 0..3 {
            assert_eq!(read_block(&bench.addr(at), into, 0, 1111).await.unwrap(), &data[..1111]);
            assert!(read_block(&bench.addr(at), into, 0, 1112).await.is_err());
        }
    }
    // The one that was copied is as it was.
    for at in 0..3 {
        assert_eq!(read_block(&bench.addr(at), 2, 0, 3000).await.unwrap(), data);
    }
}

/// An orderly restart: the writer is told, and its replica is one that is being written afterwards.
#[tokio::test]
async fn a_writer_waits_for_a_restart() {
    let mut bench = Bench::real(2).await;
    let data = bytes(3000);
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[bench.addr(1)]).await;
    speaker.packet(0, 0, &data[..700], Flags::None).await;
    speaker.acked(0, 2).await;
    let admin = RpcClient::new(
        &bench.env,
        RpcClientOptions {
            address: bench.nodes[1].ipc_addr().to_string(),
            user: "admin".into(),
            protocol: "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol",
            connect_limit: Duration::from_secs(5),
            call_limit: Duration::from_secs(5),
        },
    );
    let request = pb::ShutdownDatanodeRequestProto { for_upgrade: true };
    let _: pb::ShutdownDatanodeResponseProto = admin.call("shutdownDatanode", &request).await.unwrap();
    let ack = speaker.ack().await.unwrap();
    assert_eq!((ack.seqno, ack.first_bad()), (-2, Some((1, pb::Status::OobRestart))));
    assert_eq!(ack.replies.len(), 2);
    let stopped = bench.nodes.pop().unwrap();
    crate::within(stopped.wait_stopped()).await;
    drop(stopped);
    // What it leaves behind says that its next node is gone.
    let ack = speaker.ack().await.unwrap();
    assert_eq!((ack.seqno, ack.first_bad()), (-2, Some((1, pb::Status::Error))));
    let node = bench.launch(1, mobula_disk::RealDisk::new(), |_| {}).await;
    bench.nodes.push(node);
    let again = Again { least: 700, most: 700, ..Again::new(Stage::PipelineSetupStreamingRecovery) };
    let (mut speaker, accepted) = again.ask(&bench.addr(0), 1, &[bench.addr(1)]).await;
    assert!(accepted);
    speaker.packet(1, 512, &data[512..], Flags::None).await;
    speaker.acked(1, 2).await;
    speaker.packet(2, 3000, &[], Flags::Last).await;
    speaker.acked(2, 2).await;
    for at in 0..2 {
        assert_eq!(read_block(&bench.addr(at), 1, 0, 3000).await.unwrap(), data);
    }
}

/// A writer is long gone, and what it had handed to the disk has gone bad since: what is left proves nothing of the
/// rest, now and when it is asked again.
#[tokio::test]
async fn what_goes_bad_while_nobody_writes() {
    let bench = Bench::real(1).await;
    let data = bytes(5000);
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[]).await;
    speaker.packet(0, 0, &data, Flags::None).await;
    speaker.acked(0, 1).await;
    let path = bench.folder.path().join(format!("dn0/current/{}/current/rbw/blk_1", crate::namenode::POOL));
    drop(speaker);
    let peer = Peer::of(&bench.nodes[0]);
    until(|| {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|it| it.unwrap().path().read_link().ok());
        !links.into_iter().any(|link| link == path)
    })
    .await;
    let mut stored = std::fs::read(&path).unwrap();
    stored[2222] ^= 4;
    std::fs::write(&path, stored).unwrap();
    for recovery in [2000, 2001] {
        assert_eq!(peer.init(1, STAMP, recovery).await.unwrap(), Some((2, 2048, STAMP)));
    }
    peer.update((1, STAMP, 2048), 2001, 2048, None).await.unwrap();
    assert_eq!(read_block(&bench.addr(0), 1, 0, 2048).await.unwrap(), &data[..2048]);
}
