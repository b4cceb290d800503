//! Three nodes in a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mobula_proto::hdfs::Status;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_wire::datatransfer::Op;

use crate::speaker::{Flags, Speaker, packet_bytes, read_block, read_on, write_block, write_op};
use crate::stages::Again;
use crate::{Bench, bytes, until};

#[tokio::test]
async fn three_nodes_store_the_same() {
    let bench = Bench::real(3).await;
    let data = bytes(2_500_000);
    let targets = [bench.addr(1), bench.addr(2)];
    write_block(&bench.addr(0), 1, &targets, &data, 64_512).await;
    for at in 0..3 {
        assert_eq!(read_block(&bench.addr(at), 1, 0, 2_500_000).await.unwrap(), data);
    }
    until(|| bench.namenode.received(1) == 3).await;
}

#[tokio::test]
async fn a_mirror_out_of_reach_is_named() {
    let bench = Bench::real(1).await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let mut speaker = Speaker::connect(&bench.addr(0)).await;
    speaker.op(Op::WriteBlock, &write_op(1, "client", std::slice::from_ref(&gone))).await;
    let response = speaker.response().await.unwrap();
    assert_eq!((response.status, response.first_bad_link), (Status::Error as i32, Some(gone)));
    assert!(speaker.closed().await);
}

/// The next node is asked while this one opens its files: if it cannot, its sender hears nothing, as from Apache's, the
/// next node is let go, and what is here stays.
#[tokio::test]
async fn a_node_that_refuses_a_new_block_lets_the_next_one_go() {
    use tokio::io::AsyncReadExt;
    let bench = Bench::real(1).await;
    let data = bytes(1000);
    write_block(&bench.addr(0), 1, &[], &data, 512).await;
    let next = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut speaker = Speaker::connect(&bench.addr(0)).await;
    let targets = [next.local_addr().unwrap().to_string()];
    speaker.op(Op::WriteBlock, &write_op(1, "client", &targets)).await;
    assert!(speaker.closed().await);
    // It need not have come so far as to ask.
    let asked = tokio::select! {
        biased;
        asked = next.accept() => Some(asked.unwrap().0),
        () = std::future::ready(()) => None,
    };
    if let Some(mut asked) = asked {
        asked.read_to_end(&mut Vec::new()).await.unwrap();
    }
    assert_eq!(read_block(&bench.addr(0), 1, 0, 1000).await.unwrap(), data);
}

#[tokio::test]
async fn a_corrupt_packet_goes_nowhere() {
    let bench = Bench::real(2).await;
    let data = bytes(1000);
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[bench.addr(1)]).await;
    speaker.packet(0, 0, &data[..512], Flags::None).await;
    speaker.acked(0, 2).await;
    speaker.packet_with(1, 512, &data[512..], &[1, 2, 3, 4], Flags::None).await;
    let ack = speaker.ack().await.unwrap();
    assert_eq!((ack.seqno, ack.first_bad()), (1, Some((0, Status::ErrorChecksum))));
    drop(speaker);
    // What was acknowledged is there, and nothing else.
    for at in 0..2 {
        assert_eq!(read_block(&bench.addr(at), 1, 0, 512).await.unwrap(), &data[..512]);
        assert!(read_block(&bench.addr(at), 1, 0, 1000).await.is_err());
    }
}

/// HBase's log writer sends what is flushed at once in one packet, however long: those before it are not held back
/// until it is here.
#[tokio::test]
async fn a_packet_is_acknowledged_while_a_long_one_comes_in() {
    let bench = Bench::real(2).await;
    let data = bytes(4 << 20);
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[bench.addr(1)]).await;
    let mut out = packet_bytes(0, 0, &data[..512], Flags::None);
    let long = packet_bytes(1, 512, &data[512..], Flags::None);
    out.extend_from_slice(&long[..long.len() / 2]);
    speaker.raw(&out).await;
    speaker.acked(0, 2).await;
    speaker.raw(&long[long.len() / 2..]).await;
    speaker.acked(1, 2).await;
    speaker.packet(2, data.len(), &[], Flags::Last).await;
    speaker.acked(2, 2).await;
    for at in 0..2 {
        assert_eq!(read_block(&bench.addr(at), 1, 0, data.len() as u64).await.unwrap(), data);
    }
}

#[tokio::test]
async fn a_mirror_that_dies_is_blamed_and_the_rest_is_stored() {
    let mut bench = Bench::real(2).await;
    let data = bytes(2000);
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[bench.addr(1)]).await;
    speaker.packet(0, 0, &data[..1024], Flags::None).await;
    speaker.acked(0, 2).await;
    drop(bench.nodes.pop());
    speaker.packet(1, 1024, &data[1024..], Flags::None).await;
    let ack = speaker.ack().await.unwrap();
    assert_eq!((ack.seqno, ack.first_bad()), (-2, Some((1, Status::Error))));
    drop(speaker);
    assert_eq!(read_block(&bench.addr(0), 1, 0, 2000).await.unwrap(), data);
}

/// A block through three nodes, one of which is killed after some packets: the writer goes on with the two others as
/// clients do, under a new stamp, and again when the second one is killed.
#[tokio::test]
async fn nodes_die_at_random_bytes() {
    let seed = 20_261;
    println!("seed {seed}");
    let entropy = mobula_net::Entropy::seeded(seed);
    let mut recoveries = 0;
    for round in 0..8 {
        let mut bench = Bench::real(3).await;
        let data = bytes(300_000 + entropy.below(100_000) as usize);
        let mut nodes: Vec<String> = (0..3).map(|at| bench.addr(at)).collect();
        let mut alive: Vec<Option<mobula_datanode::DataNode>> = bench.nodes.drain(..).map(Some).collect();
        let all = nodes.clone();
        let mut speaker = Speaker::open(&nodes[0], 1, &nodes[1..]).await;
        let (mut acked, mut sent, mut seqno, mut stamp) = (0, 0, 0, 1001);
        let mut kills = [entropy.below(200_000), entropy.below(200_000) + 100_000].map(|at| at as usize);
        kills.sort_unstable();
        let mut kills = kills.into_iter().peekable();
        let mut pending = std::collections::VecDeque::new();
        loop {
            if kills.peek().is_some_and(|at| sent >= *at) {
                kills.next();
                let at = entropy.below(nodes.len() as u64) as usize;
                let which = all.iter().position(|addr| *addr == nodes[at]).unwrap();
                drop(alive[which].take());
            }
            let failed = if sent < data.len() && pending.len() < 4 {
                // Each begins at a chunk's border: what an hflush sent of the last chunk comes again.
                let from = sent / 512 * 512;
                let to = data.len().min(sent + 1 + entropy.below(20_000) as usize);
                speaker.packet(seqno, from, &data[from..to], Flags::None).await;
                pending.push_back((seqno, to));
                (seqno, sent) = (seqno + 1, to);
                None
            } else if pending.is_empty() {
                speaker.packet(seqno, data.len(), &[], Flags::Last).await;
                pending.push_back((seqno, data.len()));
                acknowledged(&mut speaker, nodes.len()).await.err()
            } else {
                match acknowledged(&mut speaker, nodes.len()).await {
                    Ok(_) => {
                        acked = pending.pop_front().unwrap().1;
                        None
                    }
                    Err(bad) => Some(bad),
                }
            };
            let Some(bad) = failed else {
                if acked == data.len() && pending.front().is_some_and(|(last, _)| *last == seqno) {
                    break;
                }
                continue;
            };
            let ending = sent == data.len() && acked == data.len();
            nodes.remove(bad);
            recoveries += 1;
            let stage =
                if ending { Stage::PipelineCloseRecovery } else { Stage::PipelineSetupStreamingRecovery };
            loop {
                let again = Again {
                    stage,
                    stamp,
                    next: stamp + 1,
                    least: acked as u64,
                    most: sent as u64,
                    client: "client",
                };
                let (next, accepted) = again.ask(&nodes[0], 1, &nodes[1..]).await;
                speaker = next;
                stamp += 1;
                if accepted {
                    break;
                }
                // Killed meanwhile: which one shows by trying those that are left.
                nodes.retain(|addr| alive[all.iter().position(|other| other == addr).unwrap()].is_some());
                assert!(!nodes.is_empty(), "round {round}: one lives");
            }
            if ending {
                break;
            }
            (sent, pending) = (acked, std::collections::VecDeque::new());
        }
        for addr in &nodes {
            if alive[all.iter().position(|other| other == addr).unwrap()].is_some() {
                let read = read_block(addr, 1, 0, data.len() as u64).await;
                assert!(read.unwrap() == data, "round {round}: other bytes");
            }
        }
    }
    assert!(recoveries >= 8, "only {recoveries} recoveries");
}

/// The next acknowledgement of data; else the node that a client would blame.
async fn acknowledged(speaker: &mut Speaker, nodes: usize) -> Result<i64, usize> {
    match speaker.ack().await {
        None => Err(0),
        Some(ack) => match ack.first_bad() {
            Some((bad, _)) => Err(bad.min(nodes - 1)),
            None => Ok(ack.seqno),
        },
    }
}

/// Passes bytes on between a node and the one that it takes for its next, and counts the connections.
struct Between {
    address: String,
    connections: Arc<AtomicUsize>,
    all: tokio::task::JoinHandle<()>,
}

impl Between {
    async fn start(next: String) -> Between {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let all = tokio::spawn(async move {
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut to = tokio::net::TcpStream::connect(&next).await.unwrap();
                passing.spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
            }
        });
        Between { address, connections, all }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Two blocks on one connection to the first node, which has one to the next.
#[tokio::test]
async fn blocks_follow_each_other_on_the_connections_of_the_first() {
    let bench = Bench::real(2).await;
    let between = Between::start(bench.addr(1)).await;
    let next = [between.address.clone()];
    let data = bytes(3000);
    let mut speaker = Speaker::connect(&bench.addr(0)).await;
    for id in 1..4 {
        speaker.op(Op::WriteBlock, &write_op(id, "client", &next)).await;
        assert_eq!(speaker.response().await.unwrap().status, 0);
        speaker.packet(0, 0, &data, Flags::None).await;
        speaker.packet(1, data.len(), &[], Flags::Last).await;
        speaker.acked(0, 2).await;
        speaker.acked(1, 2).await;
    }
    assert_eq!(between.connections(), 1);
    // Another operation may come, too; and one that is refused ends it, as before.
    assert_eq!(read_on(&mut speaker, 3, 0, 3000).await.unwrap(), data);
    speaker.op(Op::WriteBlock, &write_op(3, "client", &[])).await;
    assert!(speaker.closed().await);
    for (at, id) in [(0, 1), (1, 1), (0, 2), (1, 2), (1, 3)] {
        assert_eq!(read_block(&bench.addr(at), id, 0, 3000).await.unwrap(), data);
    }
}

/// All that a client may send ahead: the operation, the block and its end, and the next one, before any answer.
#[tokio::test]
async fn blocks_may_come_without_waiting_for_an_answer() {
    let bench = Bench::real(3).await;
    let next = [bench.addr(1), bench.addr(2)];
    let data = bytes(1000);
    let mut speaker = Speaker::connect(&bench.addr(0)).await;
    for id in 1..4 {
        speaker.op(Op::WriteBlock, &write_op(id, "client", &next)).await;
        speaker.packet(0, 0, &data, Flags::None).await;
        speaker.packet(1, data.len(), &[], Flags::Last).await;
    }
    for _ in 1..4 {
        assert_eq!(speaker.response().await.unwrap().status, 0);
        speaker.acked(0, 3).await;
        speaker.acked(1, 3).await;
    }
    for at in 0..3 {
        for id in 1..4 {
            assert_eq!(read_block(&bench.addr(at), id, 0, 1000).await.unwrap(), data);
        }
    }
}

/// The next node, as Apache's, closes its connection behind a block, or has ended and begun again since.
#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let bench = Bench::real(2).await;
    let between = Between::start(bench.addr(1)).await;
    let (next, data) = ([between.address.clone()], bytes(1000));
    write_block(&bench.addr(0), 1, &next, &data, 512).await;
    between.all.abort();
    // Its connections end with it, whether that is known to the first node already or not.
    let again = loop {
        let listener = tokio::net::TcpListener::bind(&between.address).await;
        if let Ok(listener) = listener {
            break listener;
        }
        tokio::task::yield_now().await;
    };
    let to = bench.addr(1);
    let passing = tokio::spawn(async move {
        let (mut from, _) = again.accept().await.unwrap();
        let mut to = tokio::net::TcpStream::connect(&to).await.unwrap();
        tokio::io::copy_bidirectional(&mut from, &mut to).await
    });
    write_block(&bench.addr(0), 2, &next, &data, 512).await;
    assert_eq!(read_block(&bench.addr(1), 2, 0, 1000).await.unwrap(), data);
    passing.abort();
}
