//! Bytes that nobody should send: the connection ends, and nothing else happens.

use bytes::{BufMut, BytesMut};
use mobula_net::Entropy;
use mobula_proto::hdfs as pb;
use mobula_wire::datatransfer::{Op, encode_op};

use crate::speaker::{Flags, Speaker, base, block_proto, read_block, write_block, write_op};
use crate::{Bench, bytes};

#[tokio::test]
async fn nonsense_closes_the_connection_and_changes_nothing() {
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    write_block(&addr, 1, &[], b"abc", 512).await;
    let entropy = Entropy::seeded(99);
    let mut inputs: Vec<Vec<u8>> = vec![
        vec![0, 27, 80, 0],
        vec![0, 28, 0, 0],
        vec![0, 28, 127, 0],
        vec![0, 28, 82, 0],
        vec![0, 28, 80, 0xff, 0xff, 0xff, 0xff, 0x07],
        vec![0, 28, 80, 3, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for _ in 0..50 {
        inputs.push((0..entropy.below(300) + 3).map(|_| entropy.u64() as u8).collect());
    }
    for input in inputs {
        let mut speaker = Speaker::connect(&addr).await;
        speaker.raw(&input).await;
        assert!(speaker.closed().await, "{input:?}");
    }
    assert_eq!(read_block(&addr, 1, 0, 3).await.unwrap(), b"abc");
    assert_eq!(bench.nodes[0].replicas(), 1);
}

#[tokio::test]
async fn wrong_pools_stages_checksums_and_versions() {
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    let with = |change: fn(&mut pb::OpWriteBlockProto)| {
        let mut op = write_op(7, "client", &[]);
        change(&mut op);
        op
    };
    let ops = [
        with(|op| op.header.base_header.block.pool_id = "BP-other".into()),
        with(|op| op.header.base_header.block.pool_id = String::new()),
        with(|op| op.header.base_header.block.num_bytes = Some(u64::MAX)),
        with(|op| op.header.base_header.block.num_bytes = Some(i64::MAX as u64)),
        with(|op| op.stage = 0),
        with(|op| op.stage = 3),
        with(|op| op.stage = 99),
        with(|op| op.requested_checksum.bytes_per_checksum = 0),
        with(|op| op.requested_checksum.bytes_per_checksum = u32::MAX),
        with(|op| op.requested_checksum.bytes_per_checksum = (8 << 20) + 1),
        with(|op| op.requested_checksum.r#type = 9),
        with(|op| op.storage_type = Some(2)),
        with(|op| op.target_storage_types = vec![1, 1]),
    ];
    for op in ops {
        let mut speaker = Speaker::connect(&addr).await;
        speaker.op(Op::WriteBlock, &op).await;
        assert!(speaker.closed().await, "{op:?}");
        assert_eq!(bench.nodes[0].replicas(), 0, "{op:?}");
    }
    let mut speaker = Speaker::connect(&addr).await;
    let request =
        pb::OpBlockChecksumProto { header: base(block_proto(1, 1, 1)), block_checksum_options: None };
    speaker.op(Op::BlockChecksum, &request).await;
    assert!(speaker.closed().await);
    assert!(read_block(&addr, 12345, 0, 1).await.unwrap_err().contains("blk_12345"));
}

#[tokio::test]
async fn bad_packets() {
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    let data = bytes(1000);
    let lengths = |packet: i32, header: i16| {
        let mut out = BytesMut::new();
        out.put_i32(packet);
        out.put_i16(header);
        out.put_bytes(0, 40);
        out.to_vec()
    };
    let raws = [
        lengths(0, 25),
        lengths(3, 25),
        lengths(-1, 25),
        lengths(i32::MAX, 25),
        lengths(17 << 20, 25),
        lengths(100, -1),
        vec![0xff; 100],
    ];
    let mut id = 100;
    for raw in raws {
        let mut speaker = Speaker::open(&addr, id, &[]).await;
        speaker.packet(0, 0, &data[..512], Flags::None).await;
        speaker.acked(0, 1).await;
        speaker.raw(&raw).await;
        assert!(speaker.closed().await, "{raw:?}");
        assert_eq!(read_block(&addr, id, 0, 512).await.unwrap(), &data[..512]);
        id += 1;
    }
    // A gap, a border crossed, a wrong end, data in the last packet.
    for (offset, part, flags) in [
        (600, &data[600..700], Flags::None),
        (700, &data[700..], Flags::Last),
        (500, &data[..0], Flags::Last),
    ] {
        let mut speaker = Speaker::open(&addr, id, &[]).await;
        speaker.packet(0, 0, &data[..512], Flags::None).await;
        speaker.acked(0, 1).await;
        speaker.packet(1, offset, part, flags).await;
        assert!(speaker.closed().await);
        assert_eq!(read_block(&addr, id, 0, 512).await.unwrap(), &data[..512]);
        id += 1;
    }
}

#[tokio::test]
async fn a_claimed_packet_that_never_comes_takes_no_memory_and_streams_may_end_anywhere() {
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    let mut whole = BytesMut::new();
    encode_op(Op::WriteBlock, &write_op(1, "", &[]), &mut whole);
    for cut in 0..whole.len() {
        let mut speaker = Speaker::connect(&addr).await;
        speaker.raw(&whole[..cut]).await;
        drop(speaker);
    }
    let mut idle = Vec::new();
    for id in 0..50 {
        let mut speaker = Speaker::open(&addr, 500 + id, &[]).await;
        let mut out = BytesMut::new();
        let header = mobula_wire::packet::PacketHeader {
            offset_in_block: 0,
            seqno: 0,
            last: false,
            data_length: 16_000_000,
            sync: false,
        };
        mobula_wire::packet::PacketPrefix::encode(&header, 125_000, &mut out);
        speaker.raw(&out).await;
        idle.push(speaker);
    }
    write_block(&addr, 1, &[], b"abc", 512).await;
    assert_eq!(read_block(&addr, 1, 0, 3).await.unwrap(), b"abc");
}

/// A next node that acknowledges what it likes: this one is not taken in.
#[tokio::test]
async fn acknowledgements_that_lie() {
    use mobula_proto::hdfs::Status;
    use mobula_wire::ack::PipelineAck;
    use tokio::io::AsyncWriteExt;
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    let encoded = |seqno: i64, replies: &[Status]| {
        let mut out = BytesMut::new();
        PipelineAck::new(seqno, replies.iter().copied()).encode(&mut out);
        out.to_vec()
    };
    // What it says, and what the client is told: a bad node, or the end of the connection.
    type Told = Option<(usize, Status)>;
    let cases: [(Vec<u8>, Told); 8] = [
        (encoded(7, &[Status::Success]), Some((1, Status::Error))),
        (encoded(-2, &[Status::Success]), None),
        (encoded(0, &[]), None),
        (encoded(0, &[Status::ErrorChecksum]), None),
        (encoded(0, &[Status::Error]), Some((1, Status::Error))),
        (encoded(-2, &[Status::Success, Status::Error]), Some((2, Status::Error))),
        (vec![0xff; 40], Some((1, Status::Error))),
        (vec![], Some((1, Status::Error))),
    ];
    for (at, (lie, expected)) in cases.into_iter().enumerate() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let liar = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[4, 8, 0, 18, 0]).await.unwrap();
            let mut some = [0; 4096];
            // The request, then the packet.
            for _ in 0..2 {
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut some).await;
            }
            let _ = stream.write_all(&lie).await;
            if !lie.is_empty() {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        });
        let id = 100 + at as u64;
        let mut speaker = Speaker::open(&addr, id, &[target]).await;
        tokio::task::yield_now().await;
        speaker.packet(0, 0, b"abc", Flags::None).await;
        let told = speaker.ack().await;
        let told = told.and_then(|ack| {
            assert!(ack.seqno == -2 || ack.seqno == 0, "case {at}: {ack:?}");
            ack.first_bad()
        });
        assert_eq!(told, expected, "case {at}");
        // It has the bytes all the same, and none of them counts as acknowledged by all.
        drop(speaker);
        assert_eq!(read_block(&addr, id, 0, 3).await.unwrap(), b"abc");
        liar.abort();
    }
}
