//! Three nodes in a row.

use mobula_proto::hdfs::Status;
use mobula_wire::datatransfer::Op;

use crate::speaker::{Flags, Speaker, read_block, write_block, write_op};
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
