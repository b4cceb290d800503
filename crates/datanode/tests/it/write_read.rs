//! One node: blocks go in and come out again, at every border.

use mobula_proto::hdfs as pb;
use mobula_rpc::{RpcClient, RpcClientOptions};
use mobula_wire::datatransfer::Op;
use std::time::Duration;

use crate::namenode::POOL;
use crate::speaker::{Flags, Speaker, base, block_proto, read_block, read_on, write_block};
use crate::{Bench, bytes, until, within};

#[tokio::test]
async fn borders_of_packets_chunks_and_batches() {
    let bench = Bench::with(1, |config| config.read_packet_bytes = 4096).await;
    let addr = bench.addr(0);
    let lengths = [0, 1, 511, 512, 513, 4096, 64_511, 64_512, 64_513, 1 << 20, (1 << 20) + 1, 3_000_000];
    for (at, length) in lengths.into_iter().enumerate() {
        let (id, data) = (1000 + at as u64, bytes(length));
        write_block(&addr, id, &[], &data, 64_512).await;
        assert_eq!(read_block(&addr, id, 0, length as u64).await.unwrap(), data);
        for (from, to) in [(0, 1), (511, 513), (512, 4608), (length.saturating_sub(1), length)] {
            if from < to && to <= length {
                let part = read_block(&addr, id, from as u64, (to - from) as u64).await.unwrap();
                assert_eq!(part, &data[from..to], "{from} to {to} of {length}");
            }
        }
        assert!(read_block(&addr, id, 0, length as u64 + 1).await.is_err(), "beyond the end");
        until(|| bench.namenode.received(id) == 1).await;
    }
}

#[tokio::test]
async fn packets_larger_than_a_batch_and_a_reader_that_stays() {
    let bench = Bench::real(1).await;
    let data = bytes(9_000_000);
    write_block(&bench.addr(0), 1, &[], &data, 4_194_304).await;
    let mut speaker = Speaker::connect(&bench.addr(0)).await;
    for (offset, length) in [(0, 9_000_000), (5, 10), (8_999_999, 1)] {
        let read = read_on(&mut speaker, 1, offset, length).await.unwrap();
        assert_eq!(read, &data[offset as usize..(offset + length) as usize]);
    }
}

/// Past the page cache and through it, in one file: ends within pages, overlap, readers in between.
#[tokio::test]
async fn large_blocks_past_the_page_cache() {
    let bench = Bench::with(2, |config| config.direct_write_min_bytes = Some(0)).await;
    let addr = bench.addr(0);
    let targets = [bench.addr(1)];
    for (id, length, step) in [(1, 9_000_001, 64_512), (2, 20_000_000, 65_536), (3, 8_388_608, 2_097_152)] {
        let data = bytes(length);
        write_block(&addr, id, std::slice::from_ref(&targets[0]), &data, step).await;
        for node in [&addr, &targets[0]] {
            assert_eq!(read_block(node, id, 0, length as u64).await.unwrap(), data, "block {id}");
        }
    }
    let data = bytes(12_000_000);
    let mut speaker = Speaker::open(&addr, 4, &[]).await;
    let (mut seqno, mut at) = (0, 0);
    for (round, end) in [1_000_000, 3_000_100, 3_000_200, 6_100_000, 12_000_000].into_iter().enumerate() {
        let first = seqno;
        while at < end {
            // An odd end within a chunk goes out twice, as after an hflush.
            at -= at % 512;
            let next = end.min(at + 64_512);
            speaker.packet(seqno, at, &data[at..next], Flags::None).await;
            (seqno, at) = (seqno + 1, next);
        }
        for expected in first..seqno {
            speaker.acked(expected, 1).await;
        }
        assert_eq!(read_block(&addr, 4, 0, end as u64).await.unwrap(), &data[..end], "round {round}");
    }
    speaker.packet(seqno, data.len(), &[], Flags::Last).await;
    speaker.acked(seqno, 1).await;
    assert_eq!(read_block(&addr, 4, 0, data.len() as u64).await.unwrap(), data);
}

#[tokio::test]
async fn hflush_overlap_and_readers_of_an_open_block() {
    let bench = Bench::real(1).await;
    let (addr, data) = (bench.addr(0), bytes(3000));
    let ipc = RpcClient::new(
        &bench.env,
        RpcClientOptions {
            address: bench.nodes[0].ipc_addr().to_string(),
            user: "anybody".into(),
            protocol: "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol",
            connect_limit: Duration::from_secs(5),
            call_limit: Duration::from_secs(5),
        },
    );
    let visible = async || {
        let request = pb::GetReplicaVisibleLengthRequestProto { block: block_proto(5, 1001, 0) };
        let answer: pb::GetReplicaVisibleLengthResponseProto =
            ipc.call("getReplicaVisibleLength", &request).await.unwrap();
        answer.length
    };
    let mut speaker = Speaker::open(&addr, 5, &[]).await;
    for (seqno, (from, to, flags)) in [
        (0, 100, Flags::None),
        (0, 700, Flags::Sync),
        (512, 1300, Flags::None),
        (1300, 1400, Flags::None), // as an append within a chunk
        (1024, 2900, Flags::None),
    ]
    .into_iter()
    .enumerate()
    {
        speaker.packet(seqno as i64, from, &data[from..to], flags).await;
        speaker.acked(seqno as i64, 1).await;
        assert_eq!(visible().await, to as u64);
        assert_eq!(read_block(&addr, 5, 0, to as u64).await.unwrap(), &data[..to]);
    }
    speaker.packet(-1, 0, &[], Flags::None).await;
    speaker.acked(-1, 1).await;
    speaker.packet(5, 2900, &[], Flags::Sync).await;
    speaker.acked(5, 1).await;
    speaker.packet(6, 2900, &[], Flags::Last).await;
    speaker.acked(6, 1).await;
    assert_eq!(visible().await, 2900);
    assert_eq!(read_block(&addr, 5, 0, 2900).await.unwrap(), &data[..2900]);
    let request = pb::GetReplicaVisibleLengthRequestProto { block: block_proto(6, 1001, 0) };
    let missing: Result<pb::GetReplicaVisibleLengthResponseProto, _> =
        ipc.call("getReplicaVisibleLength", &request).await;
    assert!(missing.unwrap_err().to_string().contains("ReplicaNotFoundException"));
    let refused: Result<pb::ShutdownDatanodeResponseProto, _> =
        ipc.call("shutdownDatanode", &pb::ShutdownDatanodeRequestProto { for_upgrade: false }).await;
    assert!(refused.unwrap_err().to_string().contains("AccessControlException"));
}

#[tokio::test]
async fn the_same_block_twice_is_refused() {
    let bench = Bench::real(1).await;
    write_block(&bench.addr(0), 1, &[], b"one", 512).await;
    let mut speaker = Speaker::connect(&bench.addr(0)).await;
    speaker.op(Op::WriteBlock, &crate::speaker::write_op(1, "client", &[])).await;
    assert!(speaker.closed().await);
    assert_eq!(read_block(&bench.addr(0), 1, 0, 3).await.unwrap(), b"one");
}

#[tokio::test]
async fn checksums_of_blocks() {
    use md5::{Digest, Md5};
    use mobula_wire::checksum::{Checksum, ChecksumKind};
    let bench = Bench::real(1).await;
    let data = bytes(100_000);
    write_block(&bench.addr(0), 1, &[], &data, 64_512).await;
    for length in [100_000usize, 99_999, 512, 1, 65_536] {
        let mut sums = Vec::new();
        Checksum::default_crc32c().compute(&data[..length], &mut sums);
        let crc = ChecksumKind::Crc32c.crc(&data[..length]);
        for (kind, expected) in [(1, Md5::digest(&sums).to_vec()), (2, crc.to_be_bytes().to_vec())] {
            let request = pb::OpBlockChecksumProto {
                header: base(block_proto(1, 1001, length as u64)),
                block_checksum_options: Some(pb::BlockChecksumOptionsProto {
                    block_checksum_type: Some(kind),
                    stripe_length: None,
                }),
            };
            let mut speaker = Speaker::connect(&bench.addr(0)).await;
            speaker.op(Op::BlockChecksum, &request).await;
            let answer = speaker.response().await.unwrap().checksum_response.unwrap();
            assert_eq!(answer.block_checksum, expected, "{kind} of {length}");
            assert_eq!((answer.bytes_per_crc, answer.crc_per_block), (512, 196));
        }
    }
}

/// A file written without checksums (`dfs.checksum.type` NULL) has a checksum that says so.
#[tokio::test]
async fn the_checksum_of_a_block_without_checksums() {
    use md5::{Digest, Md5};
    use mobula_wire::checksum::{Checksum, ChecksumKind};
    let bench = Bench::real(1).await;
    let mut speaker = Speaker::connect(&bench.addr(0)).await;
    let mut op = crate::speaker::write_op(1, "client", &[]);
    op.requested_checksum = Checksum::new(ChecksumKind::Null, 10).unwrap().to_proto();
    speaker.op(Op::WriteBlock, &op).await;
    assert_eq!(speaker.response().await.unwrap().status, 0);
    speaker.packet_with(0, 0, b"what nobody has summed", &[], Flags::None).await;
    speaker.acked(0, 1).await;
    speaker.packet_with(1, 22, &[], &[], Flags::Last).await;
    speaker.acked(1, 1).await;
    for length in [22, 7] {
        let request = pb::OpBlockChecksumProto {
            header: base(block_proto(1, 1001, length)),
            block_checksum_options: None,
        };
        let mut speaker = Speaker::connect(&bench.addr(0)).await;
        speaker.op(Op::BlockChecksum, &request).await;
        let answer = speaker.response().await.unwrap().checksum_response.unwrap();
        assert_eq!(answer.block_checksum, Md5::digest(b"").to_vec());
        assert_eq!((answer.bytes_per_crc, answer.crc_per_block, answer.crc_type), (10, 0, Some(0)));
    }
}

/// A length below 0 asks for all there is (`BlockSender`).
#[tokio::test]
async fn a_read_of_negative_length() {
    let bench = Bench::real(1).await;
    let data = bytes(70_000);
    write_block(&bench.addr(0), 1, &[], &data, 64_512).await;
    assert_eq!(read_block(&bench.addr(0), 1, 0, u64::MAX).await.unwrap(), data);
    let beyond = read_block(&bench.addr(0), 1, 1, 70_000).await.unwrap_err();
    let words = format!(
        "opReadBlock {POOL}:blk_1_1001 received exception java.io.IOException:  Offset 1 and length 70000 don't match \
         block {POOL}:blk_1_1001 ( blockLen 70000 )"
    );
    assert_eq!(beyond, words);
    assert!(read_block(&bench.addr(0), 1, 1, u64::MAX).await.is_err());
    assert!(read_block(&bench.addr(0), 1, u64::MAX, 1).await.is_err());
}

/// Readers and checksums of a block whose writer flushes every few bytes, within the same chunk mostly.
#[tokio::test]
async fn readers_follow_a_writer() {
    use md5::{Digest, Md5};
    use mobula_wire::checksum::Checksum;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let bench = Bench::real(1).await;
    let (addr, data) = (bench.addr(0), Arc::new(bytes(60_000)));
    let mut speaker = Speaker::open(&addr, 1, &[]).await;
    let acked = Arc::new(AtomicUsize::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..4_usize {
        let (addr, data, acked) = (addr.clone(), data.clone(), acked.clone());
        readers.spawn(async move {
            let mut rounds = 0_u32;
            loop {
                let visible = acked.load(Ordering::Acquire);
                let from = if reader < 2 { visible.saturating_sub(700) } else { 0 };
                if reader == 3 {
                    let request = pb::OpBlockChecksumProto {
                        header: base(block_proto(1, 1001, visible as u64)),
                        block_checksum_options: None,
                    };
                    let mut speaker = Speaker::connect(&addr).await;
                    speaker.op(Op::BlockChecksum, &request).await;
                    let answer = speaker.response().await.unwrap().checksum_response.unwrap();
                    let mut sums = Vec::new();
                    Checksum::default_crc32c().compute(&data[..visible], &mut sums);
                    assert_eq!(answer.block_checksum, Md5::digest(&sums).to_vec(), "of {visible} bytes");
                } else {
                    let read = read_block(&addr, 1, from as u64, (visible - from) as u64).await;
                    assert!(read.is_ok_and(|read| read == data[from..visible]), "{from} to {visible}");
                }
                rounds += 1;
                if visible == data.len() {
                    return rounds;
                }
            }
        });
    }
    let (mut at, mut seqno) = (0, 0);
    let entropy = mobula_net::Entropy::seeded(7);
    while at < data.len() {
        let from = at / 512 * 512;
        at = data.len().min(at + 1 + entropy.below(150) as usize);
        speaker.packet(seqno, from, &data[from..at], Flags::None).await;
        speaker.acked(seqno, 1).await;
        acked.store(at, Ordering::Release);
        seqno += 1;
    }
    let mut rounds = 0;
    while let Some(done) = readers.join_next().await {
        rounds += done.unwrap();
    }
    assert!(rounds > 40, "only {rounds} reads while it was written");
    assert!(bench.namenode.notes.lock().bad.is_empty());
}

/// A writer that is gone keeps no room (HDFS-9530), nor does one that was evicted.
#[tokio::test]
async fn room_of_dead_writers_is_given_back() {
    let bench = Bench::with(1, |config| {
        config.volume_spare_bytes = 0;
        config.volumes[0].capacity_limit = Some(3 << 19);
    })
    .await;
    let addr = bench.addr(0);
    let asked = async |id: u64| {
        let mut speaker = Speaker::connect(&addr).await;
        speaker.op(Op::WriteBlock, &crate::speaker::write_op(id, "client", &[])).await;
        let accepted = speaker.response().await.is_some();
        (speaker, accepted)
    };
    let (first, accepted) = asked(1).await;
    assert!(accepted);
    assert!(!asked(2).await.1, "there is room for one block");
    let open_files = || {
        let links = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.unwrap().path().read_link().ok());
        links
            .filter(|path| {
                path.starts_with(bench.folder.path()) && path.to_str().unwrap().contains("/rbw/blk_")
            })
            .count()
    };
    assert_eq!(open_files(), 2);
    drop(first);
    until(|| open_files() == 0).await;
    let mut second = within(async {
        loop {
            if let (speaker, true) = asked(2).await {
                return speaker;
            }
        }
    })
    .await;
    let admin = RpcClient::new(
        &bench.env,
        RpcClientOptions {
            address: bench.nodes[0].ipc_addr().to_string(),
            user: "admin".into(),
            protocol: "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol",
            connect_limit: Duration::from_secs(5),
            call_limit: Duration::from_secs(5),
        },
    );
    let _: pb::EvictWritersResponseProto =
        admin.call("evictWriters", &pb::EvictWritersRequestProto::default()).await.unwrap();
    assert!(second.closed().await);
    within(async { while !asked(3).await.1 {} }).await;
}

/// A writer that says nothing more is given up after a minute, and its room is free; what it flushed stays.
#[tokio::test]
async fn a_writer_that_stops_sending() {
    let bench = Bench::with(1, |config| {
        config.volume_spare_bytes = 0;
        config.volumes[0].capacity_limit = Some(3 << 19);
    })
    .await;
    let addr = bench.addr(0);
    let mut silent = Speaker::open(&addr, 1, &[]).await;
    silent.packet(0, 0, b"abc", Flags::None).await;
    silent.acked(0, 1).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(59)).await;
    silent.packet(-1, 0, &[], Flags::None).await;
    tokio::time::resume();
    silent.acked(-1, 1).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert!(silent.closed().await);
    assert_eq!(read_block(&addr, 1, 0, 3).await.unwrap(), b"abc");
    within(async {
        loop {
            let mut speaker = Speaker::connect(&addr).await;
            speaker.op(Op::WriteBlock, &crate::speaker::write_op(2, "client", &[])).await;
            if speaker.response().await.is_some() {
                return;
            }
        }
    })
    .await;
}
