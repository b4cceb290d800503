//! A small file as `python/src/mobulafs/small.py` writes it: made with its first block under a temporary name, block and
//! end sent in one piece, closed and named in one step. Who is not answered gives up, as one who died.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use mobula_net::Env;
use mobula_proto::hdfs;
use mobula_wire::WireError;
use mobula_wire::ack::PipelineAck;
use mobula_wire::checksum::{Checksum, ChecksumKind};
use mobula_wire::datatransfer::{self, Op};
use mobula_wire::extension::{CompleteAnswer, CompleteWish, CreateAnswer, CreateWish, WithWish};
use mobula_wire::packet::{PacketHeader, PacketPrefix};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::oracle::{FileState, Possible};
use crate::workload::{BLOCK, Slot, bounded};

/// Longest one, in bytes: one packet.
const LENGTH_MAX: u64 = 20_000;
/// A DataNode that does not answer within this time is given up.
const DATANODE_LIMIT: Duration = Duration::from_secs(10);
/// It is closed as soon as one DataNode has reported its block: so often that is asked, with such pauses.
const COMPLETE_TRIES: u32 = 5;
const COMPLETE_PAUSE: Duration = Duration::from_millis(400);

impl Slot {
    /// A small file at `target`, which may replace one; whether that was acknowledged.
    pub(crate) async fn small(&mut self, temporary: &str, target: &str, over: bool) -> bool {
        let was = if over { Possible::File(self.present(target)) } else { Possible::Absent };
        self.forget(target);
        self.shared.oracle().begin(temporary);
        self.shared.oracle().begin(target);
        let mut file = FileState::default();
        let (seed, length) = (self.env.entropy.u64(), 1 + self.entropy.below(LENGTH_MAX));
        file.written_ms = self.shared.oracle().now_ms;
        file.content.write(seed, length);
        let mut named = false;
        let done = self.store(temporary, target, over, &file.content.bytes(0, length), &mut named).await;
        self.answered(&format!("small file {target} of {length} by {temporary}"), &done);
        let whole = Possible::File(FileState::closed(file.content.clone()));
        let mut oracle = self.shared.oracle();
        match &done {
            Ok(()) => {
                oracle.set(temporary, vec![Possible::Absent]);
                oracle.set(target, vec![whole]);
            }
            Err(_) if named => {
                if !over {
                    oracle.either(temporary, target);
                }
                // What is not closed is promised to nobody.
                oracle.set(temporary, vec![Possible::File(file), Possible::Absent]);
                oracle.set(target, vec![whole, was]);
            }
            Err(_) => {
                oracle.set(temporary, vec![Possible::File(file), Possible::Absent]);
                oracle.set(target, vec![was]);
            }
        }
        drop(oracle);
        if done.is_ok() {
            self.remember(target);
        }
        done.is_ok()
    }

    /// `named` once the name has been asked for.
    async fn store(
        &self,
        temporary: &str,
        target: &str,
        over: bool,
        data: &[u8],
        named: &mut bool,
    ) -> Result<(), String> {
        let (file, located) = self.begin_small(temporary).await?;
        let block = hdfs::ExtendedBlockProto { num_bytes: Some(data.len() as u64), ..located.b.clone() };
        match tokio::time::timeout(DATANODE_LIMIT, send(&self.env, self.client.name(), &located, data)).await
        {
            Ok(sent) => sent.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer of a DataNode in time".into()),
        }
        *named = true;
        let request = hdfs::CompleteRequestProto {
            src: temporary.into(),
            client_name: self.client.name().into(),
            last: Some(block),
            file_id: Some(file),
        };
        let wish = CompleteWish { target: Some(target.into()), overwrite: Some(over) };
        let request = WithWish(request, wish);
        for _ in 0..COMPLETE_TRIES {
            let answer: CompleteAnswer = bounded(self.client.namenode().call("complete", &request)).await?;
            match (answer.result, answer.renamed) {
                (true, Some(true)) => return Ok(()),
                (true, _) => return Err("it is closed and has no name".into()),
                (false, _) => tokio::time::sleep(COMPLETE_PAUSE).await,
            }
        }
        Err("it is not closed".into())
    }

    /// The file's id, and its block.
    async fn begin_small(&self, path: &str) -> Result<(u64, hdfs::LocatedBlockProto), String> {
        let holder = self.client.name().to_owned();
        let request = hdfs::CreateRequestProto {
            src: path.into(),
            masked: hdfs::FsPermissionProto { perm: 0o644 },
            client_name: holder.clone(),
            create_flag: hdfs::CreateFlagProto::Create as u32,
            create_parent: true,
            replication: 3,
            block_size: BLOCK,
            ..hdfs::CreateRequestProto::default()
        };
        let request = WithWish(request, CreateWish { first_block: Some(true) });
        let made: CreateAnswer = bounded(self.client.namenode().call("create", &request)).await?;
        let file = made.fs.and_then(|status| status.file_id).ok_or("no file")?;
        if let Some(located) = made.first_block {
            return Ok((file, located));
        }
        let request = hdfs::AddBlockRequestProto {
            src: path.into(),
            client_name: holder,
            file_id: Some(file),
            ..hdfs::AddBlockRequestProto::default()
        };
        Ok((file, bounded(self.client.namenode().add_block(request)).await?.block))
    }
}

/// Block and end in one piece; returns when all nodes have synced it.
async fn send(env: &Env, holder: &str, located: &hdfs::LocatedBlockProto, data: &[u8]) -> io::Result<()> {
    let first = located.locs.first().ok_or_else(|| io::Error::other("no DataNode takes the block"))?;
    let address = format!("{}:{}", first.id.ip_addr, first.id.xfer_port);
    let mut stream = env.net.connect(&address, DATANODE_LIMIT).await?;
    // Python's.
    let checksum = Checksum::new(ChecksumKind::Crc32, 512).map_err(broken)?;
    let mut out = BytesMut::new();
    datatransfer::encode_op(Op::WriteBlock, &write_op(holder, located, checksum), &mut out);
    put_packet(0, 0, data, checksum, &mut out);
    put_packet(1, data.len() as u64, &[], checksum, &mut out);
    stream.write_all(&out).await?;
    let mut input = BytesMut::new();
    loop {
        if let Some(answer) = datatransfer::decode_response(&mut input).map_err(broken)? {
            if answer.status != hdfs::Status::Success as i32 {
                return Err(io::Error::other(format!("a DataNode refused the block: {answer:?}")));
            }
            break;
        }
        read_more(&mut stream, &mut input).await?;
    }
    loop {
        match PipelineAck::decode(&mut input).map_err(broken)? {
            Some(ack) if !ack.is_success() => {
                return Err(io::Error::other(format!("a DataNode of the pipeline failed: {ack:?}")));
            }
            Some(ack) if ack.seqno == 1 => return Ok(()),
            Some(_) => {}
            None => read_more(&mut stream, &mut input).await?,
        }
    }
}

async fn read_more(stream: &mut mobula_net::Stream, input: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn broken(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn put_packet(seqno: i64, offset: u64, data: &[u8], checksum: Checksum, out: &mut BytesMut) {
    let last = data.is_empty();
    let header =
        PacketHeader { offset_in_block: offset, seqno, last, data_length: data.len() as u32, sync: last };
    PacketPrefix::encode(&header, checksum.sums_length(data.len() as u64) as u32, out);
    checksum.compute(data, out);
    out.put_slice(data);
}

fn write_op(holder: &str, located: &hdfs::LocatedBlockProto, checksum: Checksum) -> hdfs::OpWriteBlockProto {
    hdfs::OpWriteBlockProto {
        header: hdfs::ClientOperationHeaderProto {
            base_header: hdfs::BaseHeaderProto {
                block: located.b.clone(),
                token: Some(located.block_token.clone()),
                trace_info: None,
            },
            client_name: holder.into(),
        },
        targets: located.locs[1..].to_vec(),
        source: None,
        stage: hdfs::op_write_block_proto::BlockConstructionStage::PipelineSetupCreate as i32,
        pipeline_size: located.locs.len() as u32,
        min_bytes_rcvd: 0,
        max_bytes_rcvd: 0,
        latest_generation_stamp: located.b.generation_stamp,
        requested_checksum: checksum.to_proto(),
        caching_strategy: None,
        storage_type: located.storage_types.first().copied(),
        target_storage_types: located.storage_types.iter().skip(1).copied().collect(),
        allow_lazy_persist: None,
        pinning: None,
        target_pinnings: Vec::new(),
        storage_id: located.storage_i_ds.first().cloned(),
        target_storage_ids: located.storage_i_ds.iter().skip(1).cloned().collect(),
    }
}
