//! BLOCK_CHECKSUM: one checksum of a replica, made from those of its chunks
//! (HDFS: `BlockChecksumHelper.ReplicatedBlockChecksumComputer`).

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use md5::{Digest, Md5};
use mobula_net::WriteHalf;
use mobula_proto::hdfs::{
    BlockChecksumOptionsProto, BlockChecksumTypeProto, BlockOpResponseProto, OpBlockChecksumProto,
    OpBlockChecksumResponseProto, Status,
};
use mobula_wire::checksum::{Combiner, SUM_LENGTH};
use mobula_wire::datatransfer::encode_response;
use mobula_wire::meta::META_HEADER_LENGTH;

use crate::framed::write_all;
use crate::node::{Node, WRITE_LIMIT};
use crate::send::{SendError, checked};
use crate::source::{Load, Source, SourceError, Verify};

/// Checksums that are read at once, in bytes.
const SUMS_STEP: usize = 1 << 20;

/// Answers BLOCK_CHECKSUM; a failure closes the connection without a word, as in HDFS.
pub(crate) async fn block_checksum(
    node: &Arc<Node>,
    write: &mut WriteHalf,
    request: OpBlockChecksumProto,
) -> Result<(), SendError> {
    let block = checked(node, &request.header.block)?;
    let wanted = block.block.length;
    let source = Source::open(node, &block.block, wanted).await?;
    if source.meta().is_none() {
        return Err(SourceError::NoChecksums(source.block).into());
    }
    let length = wanted.min(source.length);
    let options = request.block_checksum_options.unwrap_or_default();
    let kind = BlockChecksumTypeProto::try_from(options.block_checksum_type.unwrap_or(1))
        .map_err(|_| SendError::Request("unknown type of a block's checksum".into()))?;
    let stripe = options.stripe_length.unwrap_or(0);
    let sums = Sums { node, source: &source, length };
    let checksum = match kind {
        BlockChecksumTypeProto::Md5crc => sums.md5().await?,
        BlockChecksumTypeProto::CompositeCrc if !source.has_sums() => {
            return Err(SourceError::NoChecksums(source.block).into());
        }
        BlockChecksumTypeProto::CompositeCrc if stripe == 0 || stripe >= length => sums.composite().await?,
        BlockChecksumTypeProto::CompositeCrc => {
            return Err(SendError::Request("checksums by stripes come with erasure coding".into()));
        }
    };
    // Of the whole replica, whatever was asked for.
    let all_sums = if source.has_sums() { source.checksum.chunks(source.length) } else { 0 };
    let response = BlockOpResponseProto {
        status: Status::Success as i32,
        checksum_response: Some(OpBlockChecksumResponseProto {
            bytes_per_crc: source.checksum.bytes_per_chunk(),
            crc_per_block: all_sums,
            block_checksum: checksum.into(),
            crc_type: Some(source.checksum.kind().proto() as i32),
            block_checksum_options: Some(BlockChecksumOptionsProto {
                block_checksum_type: Some(kind as i32),
                stripe_length: options.stripe_length,
            }),
        }),
        ..BlockOpResponseProto::default()
    };
    let mut out = BytesMut::new();
    encode_response(&response, &mut out);
    Ok(write_all(write, &out, WRITE_LIMIT).await?)
}

/// The checksums of the first `length` bytes of a replica.
struct Sums<'a> {
    node: &'a Arc<Node>,
    source: &'a Source,
    length: u64,
}

impl Sums<'_> {
    /// The MD5 of all checksums; where a file was written without any, that of nothing, as in HDFS.
    async fn md5(&self) -> Result<Vec<u8>, SendError> {
        if !self.source.has_sums() {
            return Ok(Md5::new().finalize().to_vec());
        }
        let digest = self.fold(Md5::new(), |mut digest, sums| {
            digest.update(sums);
            digest
        });
        let (mut digest, last) = digest.await?;
        if let Some((sum, _)) = last {
            digest.update(sum.to_be_bytes());
        }
        Ok(digest.finalize().to_vec())
    }

    /// The checksum of the bytes themselves.
    async fn composite(&self) -> Result<Vec<u8>, SendError> {
        let kind = self.source.checksum.kind();
        let whole = Combiner::new(kind, self.source.checksum.bytes_per_chunk().into());
        let crc = self.fold(0u32, move |mut crc, sums| {
            for sum in sums.chunks_exact(SUM_LENGTH) {
                crc = whole.combine(crc, u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]));
            }
            crc
        });
        let (mut crc, last) = crc.await?;
        if let Some((sum, length)) = last {
            crc = kind.combine(crc, sum, length);
        }
        Ok(crc.to_be_bytes().to_vec())
    }

    /// Runs `step` over the stored checksums of all full chunks; and the checksum and length of the
    /// last part, computed from its bytes, which are verified.
    async fn fold<T: Send + 'static>(
        &self,
        start: T,
        step: impl Fn(T, &[u8]) -> T + Clone + Send + 'static,
    ) -> Result<(T, Option<(u32, u64)>), SendError> {
        let chunk = u64::from(self.source.checksum.bytes_per_chunk());
        let meta = self.source.meta().cloned().ok_or(SourceError::NoChecksums(self.source.block))?;
        let (full, mut at, mut folded) = (self.length / chunk * SUM_LENGTH as u64, 0, start);
        while at < full {
            let (meta, step) = (meta.clone(), step.clone());
            let length = (full - at).min(SUMS_STEP as u64);
            let part = self.source.volume.pool.run(move || {
                let mut sums = vec![0; length as usize];
                meta.read_exact_at(&mut sums, META_HEADER_LENGTH as u64 + at)?;
                Ok::<T, io::Error>(step(folded, &sums))
            });
            folded = part.await.map_err(SourceError::Disk)?;
            at += length;
        }
        let rest = self.length % chunk;
        if rest == 0 {
            return Ok((folded, None));
        }
        let begin = self.length - rest;
        let (_, end) = self.source.span(begin, rest)?;
        let load = Load::default();
        let load =
            self.source.load(self.node, begin, (end - begin) as usize, load, ((0, 0), Verify::Yes)).await?;
        let sum = self.source.checksum.kind().crc(&load.data[..rest as usize]);
        Ok((folded, Some((sum, rest))))
    }
}
