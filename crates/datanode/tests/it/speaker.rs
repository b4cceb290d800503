//! A client that speaks data transfer, one message at a time.

use std::time::Duration;

use bytes::BytesMut;
use mobula_net::{Env, Stream};
use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_wire::ack::PipelineAck;
use mobula_wire::checksum::Checksum;
use mobula_wire::datatransfer::{Op, decode_response, encode_op};
use mobula_wire::packet::{PacketHeader, PacketPrefix};
use mobula_wire::{WireError, encode_delimited};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::namenode::POOL;
use crate::within;

/// A connection.
pub struct Speaker {
    pub stream: Stream,
    pub input: BytesMut,
}

pub fn block_proto(id: u64, stamp: u64, length: u64) -> pb::ExtendedBlockProto {
    pb::ExtendedBlockProto {
        pool_id: POOL.into(),
        block_id: id,
        generation_stamp: stamp,
        num_bytes: Some(length),
    }
}

pub fn base(block: pb::ExtendedBlockProto) -> pb::BaseHeaderProto {
    pb::BaseHeaderProto { block, token: None, trace_info: None }
}

pub fn target(addr: &str) -> pb::DatanodeInfoProto {
    let (ip, port) = addr.split_once(':').unwrap();
    pb::DatanodeInfoProto {
        id: pb::DatanodeIdProto {
            ip_addr: ip.into(),
            host_name: "localhost".into(),
            datanode_uuid: "u".into(),
            xfer_port: port.parse().unwrap(),
            ..Default::default()
        },
        ..Default::default()
    }
}

pub fn write_op(id: u64, client: &str, targets: &[String]) -> pb::OpWriteBlockProto {
    pb::OpWriteBlockProto {
        header: pb::ClientOperationHeaderProto {
            base_header: base(block_proto(id, 1001, 1 << 20)),
            client_name: client.into(),
        },
        targets: targets.iter().map(|addr| target(addr)).collect(),
        stage: Stage::PipelineSetupCreate as i32,
        pipeline_size: targets.len() as u32 + 1,
        requested_checksum: Checksum::default_crc32c().to_proto(),
        storage_type: Some(1),
        ..Default::default()
    }
}

impl Speaker {
    pub async fn connect(addr: &str) -> Speaker {
        let stream = Env::real().net.connect(addr, Duration::from_secs(5)).await.unwrap();
        Speaker { stream, input: BytesMut::new() }
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        // The other side may have hung up already: that is for the test to see in what it reads.
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn op<M: Message>(&mut self, op: Op, message: &M) {
        let mut out = BytesMut::new();
        encode_op(op, message, &mut out);
        self.raw(&out).await;
    }

    /// The next message; none at the end of the stream.
    pub async fn next<T>(
        &mut self,
        mut decode: impl FnMut(&mut BytesMut) -> Result<Option<T>, WireError>,
    ) -> Option<T> {
        within(async {
            loop {
                if let Some(message) = decode(&mut self.input).unwrap() {
                    return Some(message);
                }
                match self.stream.read_buf(&mut self.input).await {
                    Ok(count) if count > 0 => {}
                    _ => return None,
                }
            }
        })
        .await
    }

    pub async fn response(&mut self) -> Option<pb::BlockOpResponseProto> {
        self.next(decode_response).await
    }

    pub async fn ack(&mut self) -> Option<PipelineAck> {
        self.next(PipelineAck::decode).await
    }

    /// Whether the other side hung up.
    pub async fn closed(&mut self) -> bool {
        self.next(|input| Ok((!input.is_empty()).then_some(()))).await.is_none()
    }

    /// Opens a pipeline whose first node this is connected to.
    pub async fn open(addr: &str, id: u64, targets: &[String]) -> Speaker {
        let mut speaker = Speaker::connect(addr).await;
        speaker.op(Op::WriteBlock, &write_op(id, "client", targets)).await;
        let response = speaker.response().await.unwrap();
        assert_eq!((response.status, response.first_bad_link.as_deref()), (0, Some("")), "{response:?}");
        speaker
    }

    /// Sends a packet with these bytes.
    pub async fn packet(&mut self, seqno: i64, offset: usize, data: &[u8], flags: Flags) {
        self.raw(&packet_bytes(seqno, offset, data, flags)).await;
    }

    pub async fn packet_with(&mut self, seqno: i64, offset: usize, data: &[u8], sums: &[u8], flags: Flags) {
        self.raw(&packet_bytes_with(seqno, offset, data, sums, flags)).await;
    }

    /// Expects success for a packet from so many nodes.
    pub async fn acked(&mut self, seqno: i64, nodes: usize) {
        let ack = self.ack().await.expect("an acknowledgement");
        assert_eq!((ack.seqno, ack.replies.len(), ack.is_success()), (seqno, nodes, true), "{ack:?}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flags {
    None,
    Sync,
    Last,
}

/// A packet, as it is sent.
pub fn packet_bytes(seqno: i64, offset: usize, data: &[u8], flags: Flags) -> BytesMut {
    let mut sums = Vec::new();
    Checksum::default_crc32c().compute(data, &mut sums);
    packet_bytes_with(seqno, offset, data, &sums, flags)
}

fn packet_bytes_with(seqno: i64, offset: usize, data: &[u8], sums: &[u8], flags: Flags) -> BytesMut {
    let header = PacketHeader {
        offset_in_block: offset as u64,
        seqno,
        last: flags == Flags::Last,
        data_length: data.len() as u32,
        sync: flags == Flags::Sync,
    };
    let mut out = BytesMut::new();
    PacketPrefix::encode(&header, sums.len() as u32, &mut out);
    out.extend_from_slice(sums);
    out.extend_from_slice(data);
    out
}

/// Writes a whole block in packets of `step` bytes.
pub async fn write_block(addr: &str, id: u64, targets: &[String], data: &[u8], step: usize) {
    let mut speaker = Speaker::open(addr, id, targets).await;
    let mut seqno = 0;
    for (at, part) in data.chunks(step).enumerate() {
        speaker.packet(seqno, at * step, part, Flags::None).await;
        seqno += 1;
    }
    for expected in 0..seqno {
        speaker.acked(expected, targets.len() + 1).await;
    }
    speaker.packet(seqno, data.len(), &[], Flags::Last).await;
    speaker.acked(seqno, targets.len() + 1).await;
}

/// Reads bytes of a block; an error is the status, or that the connection ended.
pub async fn read_block(addr: &str, id: u64, offset: u64, length: u64) -> Result<Vec<u8>, String> {
    let mut speaker = Speaker::connect(addr).await;
    let bytes = read_on(&mut speaker, id, offset, length).await?;
    Ok(bytes)
}

pub async fn read_on(speaker: &mut Speaker, id: u64, offset: u64, length: u64) -> Result<Vec<u8>, String> {
    read_request(speaker, id, (offset, length), None).await
}

/// As `read_block`, with or without checksums.
pub async fn read_as(
    addr: &str,
    id: u64,
    range: (u64, u64),
    send_checksums: Option<bool>,
) -> Result<Vec<u8>, String> {
    let mut speaker = Speaker::connect(addr).await;
    read_request(&mut speaker, id, range, send_checksums).await
}

async fn read_request(
    speaker: &mut Speaker,
    id: u64,
    (offset, length): (u64, u64),
    send_checksums: Option<bool>,
) -> Result<Vec<u8>, String> {
    let request = pb::OpReadBlockProto {
        header: pb::ClientOperationHeaderProto {
            base_header: base(block_proto(id, 1001, 0)),
            client_name: "client".into(),
        },
        offset,
        len: length,
        send_checksums,
        caching_strategy: None,
    };
    speaker.op(Op::ReadBlock, &request).await;
    let response = speaker.response().await.ok_or("closed")?;
    if response.status != 0 {
        return Err(response.message.unwrap_or_default());
    }
    let info = response.read_op_checksum_info.unwrap();
    let checksum = Checksum::from_proto(&info.checksum).unwrap();
    let mut at = info.chunk_offset;
    assert!(at <= offset && offset - at < 512);
    let mut bytes = Vec::new();
    for seqno in 0.. {
        let prefix = speaker.next(PacketPrefix::decode).await.ok_or("closed while reading")?;
        let need = prefix.body_length();
        let body = speaker.next(|input| Ok((input.len() >= need).then(|| input.split_to(need)))).await;
        let body = body.ok_or("closed while reading")?;
        assert_eq!((prefix.header.seqno, prefix.header.offset_in_block), (seqno, at));
        if prefix.header.last {
            assert!(body.is_empty());
            break;
        }
        assert!(prefix.header.data_length > 0, "no empty packet but the last");
        let (sums, data) = body.split_at(prefix.checksum_length as usize);
        checksum.verify(data, sums).map_err(|mismatch| mismatch.to_string())?;
        bytes.extend_from_slice(data);
        at += data.len() as u64;
    }
    let mut out = BytesMut::new();
    encode_delimited(&pb::ClientReadStatusProto { status: 6 }, &mut out);
    speaker.raw(&out).await;
    let skip = (offset - info.chunk_offset) as usize;
    // Negative in Java: all there is.
    let length = if i64::try_from(length).is_ok() { length } else { (bytes.len() - skip) as u64 };
    assert!(bytes.len() >= skip + length as usize && bytes.len() < skip + length as usize + 512);
    Ok(bytes[skip..skip + length as usize].to_vec())
}
